import * as z from 'zod';
import { faultSchema } from './faults.ts';

const portNumber = z.number().int().min(0).max(65_535).default(0);

/** Options of the simulator; every field may be left out. */
export const simulatorOptionsSchema = z.strictObject({
  /** The same seed gives the same offers, prices and boot times. */
  seed: z.number().int().default(1),
  vastKey: z.string().min(1).default('sim-vast-key'),
  ionetKey: z.string().min(1).default('sim-ionet-key'),
  /** Instances rentable at the start: asks on vast.ai, single-GPU stock over all places on io.net. */
  offers: z
    .strictObject({
      vast: z.number().int().min(0).max(100_000).default(42),
      ionet: z.number().int().min(0).max(100_000).default(28),
    })
    .prefault({}),
  /** Milliseconds from renting to a running container, drawn per instance; the application listens a quarter later. */
  bootMs: z
    .strictObject({ min: z.number().min(0), max: z.number().min(0) })
    .refine(({ min, max }) => min <= max, { error: 'min must not be above max' })
    .default({ min: 1500, max: 4000 }),
  host: z.string().min(1).default('127.0.0.1'),
  /** 0 takes a free port. */
  ports: z.strictObject({ vast: portNumber, ionet: portNumber, control: portNumber }).prefault({}),
  /** GPU servers: 2 is twice as fast as the cards are. */
  speed: z.number().positive().default(1),
  /** Sequences a GPU server serves at once; absent: by card. */
  slots: z.number().int().positive().optional(),
  /** Models every GPU server has; absent: by VRAM. */
  models: z.array(z.string().min(1)).min(1).optional(),
  /** Spendable USD at the start. */
  credit: z.strictObject({ vast: z.number().default(250), ionet: z.number().default(500) }).prefault({}),
  /** Simulated time per real time, for billing and prepaid hours: 3600 makes an hour of a second. */
  timeScale: z.number().positive().default(1),
  /** vast.ai's least interval between two calls of an endpoint: 1 is as documented, 0 is off. */
  rateLimit: z.number().min(0).default(0),
  /** For so long a new vast.ai contract is not to be seen and a destroyed one lingers in the list. */
  lagMs: z.number().min(0).default(0),
  /** Offers per minute that are taken by others and replaced by ones with another id and price. */
  churnPerMinute: z.number().min(0).default(0),
  /** Of each running instance and hour of real time: it exits, goes offline, or is outbid where that can be. */
  accidentsPerHour: z.number().min(0).default(0),
  /** Faults from the start. */
  faults: z.array(faultSchema).default([]),
});

export type SimulatorOptions = z.input<typeof simulatorOptionsSchema>;
export type SimulatorSettings = z.output<typeof simulatorOptionsSchema>;
