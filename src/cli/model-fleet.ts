import { readFileSync } from 'node:fs';
import * as z from 'zod';
import { capacityOf, type ModelUpstream } from '../core/fleet-model.ts';
import { nominalVramGb, weightOf } from '../core/weight.ts';
import { usageError } from './exit.ts';

const seconds = z.number().min(0).max(86_400);
const instance = z
  .strictObject({
    id: z.string().min(1).max(64),
    count: z.int().min(1).max(1000).default(1),
    slots: z.int().min(1).max(10_000),
    speed: z.number().min(0.001).max(1000),
    weight: z.number().min(0).max(1000).optional(),
    vram_gb: z.number().min(1).max(10_000).optional(),
    gpu_count: z.int().min(1).max(64).optional(),
    usd_per_hour: z.number().min(0).max(10_000).optional(),
    joins_at_s: seconds.optional(),
    fails: z.strictObject({ from_s: seconds, to_s: seconds, after_ms: z.number().min(0).max(600_000) }).optional(),
  })
  .refine((row) => row.weight === undefined || (row.vram_gb ?? row.usd_per_hour ?? row.gpu_count) === undefined, {
    path: ['weight'],
    message: 'give either weight, or vram_gb, gpu_count and usd_per_hour',
  });
const modelFleet = z.array(instance).min(1).max(1000);

/** The format of a fleet file, for the help. */
export const modelFleetHelp = `
Fleet file: a JSON list of instances, like
  [{"id": "h100", "slots": 12, "speed": 2.4, "vram_gb": 80, "usd_per_hour": 2.1},
   {"id": "4090", "count": 4, "slots": 4, "speed": 1.2, "weight": 1.8}]
  id            name; of several ("count") -1, -2, … is added
  slots         requests it serves at once; more wait in line at it
  speed         of one slot: at 1 the average request takes 800 ms, at 2 it takes 400 ms
  weight        for weighted_round_robin; or vram_gb (of one GPU), gpu_count and
                usd_per_hour, from which the server makes it
  joins_at_s    seconds from the start when it joins; else it is there from the start
  fails         {"from_s": 0, "to_s": 600, "after_ms": 50}: then every request to it
                fails after so long`;

/** The fleet that a file describes. Throws a usage error that names the file and each wrong field. */
export function readModelFleet(file: string): ModelUpstream[] {
  const wrong = (why: string) =>
    usageError(`--fleet: ${file} is no fleet file`, { why, hint: 'the format: gpuproxy simulate --help' });
  let text: string;
  try {
    text = readFileSync(file, 'utf8');
  } catch (error) {
    throw usageError(`--fleet: cannot read ${file}`, {
      why: (error as Error).message,
      hint: 'demo, or the path of a fleet file; its format: gpuproxy simulate --help',
    });
  }
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw wrong((error as Error).message);
  }
  const parsed = modelFleet.safeParse(value);
  if (!parsed.success) {
    const issues = parsed.error.issues.slice(0, 5).map(({ path, message }) => {
      const at = path.map((part) => (typeof part === 'number' ? `[${part}]` : `.${String(part)}`)).join('');
      return `${at === '' ? 'the file' : at}: ${message}`;
    });
    throw wrong(issues.join('; '));
  }
  const upstreams = parsed.data.flatMap((row) =>
    Array.from({ length: row.count }, (_, i): ModelUpstream => {
      const { fails } = row;
      return {
        id: row.count === 1 ? row.id : `${row.id}-${i + 1}`,
        slots: row.slots,
        speed: row.speed,
        weight:
          row.weight ??
          (row.vram_gb === undefined
            ? 1
            : weightOf({
                vramGb: nominalVramGb(row.vram_gb),
                gpuCount: row.gpu_count ?? 1,
                usdPerHour: row.usd_per_hour ?? Number.POSITIVE_INFINITY,
              })),
        joinsAtMs: row.joins_at_s === undefined ? undefined : row.joins_at_s * 1000,
        fails: fails && { fromMs: fails.from_s * 1000, toMs: fails.to_s * 1000, afterMs: fails.after_ms },
      };
    }),
  );
  if (upstreams.length > 1000) throw wrong(`${upstreams.length} instances; at most 1000`);
  const ids = upstreams.map(({ id }) => id);
  const twice = ids.find((id, i) => ids.indexOf(id) !== i);
  if (twice !== undefined) throw wrong(`two instances are called ${twice}`);
  if (capacityOf(upstreams) === 0) throw wrong('at least one instance must be there from the start and never fail');
  return upstreams;
}
