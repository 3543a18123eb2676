import * as z from 'zod';
import { FaultError } from './fault-error.ts';
import type { Random } from './random.ts';

/**
 * Faults on command. One flat JSON object each, told apart by `kind`, for `POST /__sim/faults`, for the simulator's
 * options and, as `kind,key=value,…`, for flags.
 *
 * Every fault may carry `times` (gone after so many applications), `forMs` (gone after that time) and `probability`
 * (0 to 1, of hitting each request it matches).
 */

const often = {
  probability: z.number().min(0).max(1).default(1),
  times: z.number().int().positive().optional(),
  forMs: z.number().positive().optional(),
};

/** Names of calls: of both marketplaces, of vast.ai, of io.net. */
const routes = [
  ...['rent', 'list', 'get', 'destroy', 'update', 'logs', 'other'],
  ...['search', 'bid', 'reboot', 'command', 'user', 'gpu_names', 'filters'],
  ...['hardware', 'replicas', 'price', 'locations', 'public_hardware', 'containers', 'extend', 'name'],
];
/** `search`: all that find offers. `paid`: all that buy. `read` is what is not `write`. */
const groups: Readonly<Record<string, readonly string[]>> = {
  search: ['search', 'hardware', 'replicas', 'price', 'locations', 'public_hardware'],
  paid: ['rent', 'extend'],
  write: ['rent', 'extend', 'destroy', 'update', 'bid', 'reboot', 'command'],
};
const route = z.enum([...routes, 'paid', 'read', 'write']);

/** Whether the word, the name of a call or of a group, means this call. */
export function namesRoute(word: string, name: string): boolean {
  return word === name || (word === 'read' ? !groups.write?.includes(name) : groups[word]?.includes(name) === true);
}

const api = {
  ...often,
  provider: z.enum(['vast', 'ionet', 'all']).default('all'),
  route: route.optional(),
};
/** `before`: nothing happens on the server. `after`: it does what was asked, and then the answer is lost. */
const when = z.enum(['before', 'after']).default('before');
/** A contract id, `vast` or `ionet` (all of that marketplace), `*` (all), `random` (one, chosen now). */
const instance = z.coerce.string().default('random');
const rental = { ...often, provider: z.enum(['vast', 'ionet', 'all']).default('all') };
const gpu = {
  ...often,
  instance: z.coerce.string().default('*'),
  /** Which requests of the GPU server: with `inference` alone its probe keeps passing. */
  paths: z.enum(['inference', 'health', 'all']).default('inference'),
};

export const faultSchema = z.discriminatedUnion('kind', [
  // --- on the marketplaces' APIs ---
  z.strictObject({ kind: z.literal('latency'), ms: z.number().min(0), jitterMs: z.number().min(0).default(0), ...api }),
  /** 429 without Retry-After: plain text, or one of the two JSON forms that occur. */
  z.strictObject({
    kind: z.literal('rate_limit'),
    form: z.enum(['text', 'detail', 'error']).default('text'),
    ...api,
  }),
  z.strictObject({
    kind: z.literal('error'),
    status: z.number().int().min(400).max(599).default(503),
    /** Absent: an HTML page of a gateway. */
    body: z.unknown().optional(),
    when,
    ...api,
  }),
  z.strictObject({ kind: z.literal('reset'), when, ...api }),
  /** Never answers; with `ms`, answers after that. */
  z.strictObject({ kind: z.literal('hang'), ms: z.number().positive().optional(), when, ...api }),
  /** The paid call, by default: accepted, then the answer is lost. `when: before` loses it without having rented. */
  z.strictObject({
    kind: z.literal('lose_answer'),
    how: z.enum(['reset', 'hang', 'error', 'truncate']).default('reset'),
    ...api,
    when: z.enum(['before', 'after']).default('after'),
    route: route.default('paid'),
  }),
  /** 200 with a body that is not what was promised. */
  z.strictObject({
    kind: z.literal('garbage'),
    how: z.enum(['html', 'empty', 'truncate', 'wrong_shape']).default('html'),
    when: z.enum(['before', 'after']).default('after'),
    ...api,
  }),

  // --- on the offers ---
  /** Offers that are gone now, from the lists too. `offer` names one, else `count` random ones. */
  z.strictObject({
    kind: z.literal('vanish_offers'),
    provider: z.enum(['vast', 'ionet', 'all']).default('all'),
    offer: z.coerce.string().optional(),
    count: z.number().int().positive().default(1),
  }),
  /** Offers that stay listed, but whoever rents one is told that it is gone. */
  z.strictObject({ kind: z.literal('stale_offers'), ...rental }),
  z.strictObject({
    kind: z.literal('reprice'),
    provider: z.enum(['vast', 'ionet', 'all']).default('all'),
    factor: z.number().positive(),
  }),
  /** vast.ai's search ignores comparisons of numbers. */
  z.strictObject({ kind: z.literal('sloppy_filters'), ...often }),
  z.strictObject({
    kind: z.literal('credit'),
    provider: z.enum(['vast', 'ionet', 'all']).default('all'),
    usd: z.number(),
  }),

  // --- on rented instances, now ---
  z.strictObject({ kind: z.literal('exit'), instance }),
  z.strictObject({ kind: z.literal('offline'), instance }),
  /** Undoes `exit` and `offline`. */
  z.strictObject({ kind: z.literal('online'), instance }),
  /** Interruptible vast.ai instances only; others are left alone. */
  z.strictObject({ kind: z.literal('outbid'), instance }),
  /** Prepaid io.net time is over now. */
  z.strictObject({ kind: z.literal('expire'), instance }),
  /** Starting a stopped vast.ai instance: 200 with success false, the GPU is taken. */
  z.strictObject({ kind: z.literal('start_refused'), ...often }),

  // --- on instances rented from now on ---
  z.strictObject({ kind: z.literal('slow_boot'), factor: z.number().positive().default(10), ...rental }),
  /**
   * `refuse`: running, but nothing listens. `error`: /health answers 503 for ever. `stuck`: loads for ever.
   * `pull_error`, `oci_error`: loading with the message of a failed image pull or container start.
   */
  z.strictObject({
    kind: z.literal('never_healthy'),
    how: z.enum(['refuse', 'error', 'stuck', 'pull_error', 'oci_error']).default('refuse'),
    ...rental,
  }),

  // --- on GPU servers ---
  z.strictObject({ kind: z.literal('gpu_slow'), factor: z.number().positive().default(10), ...gpu }),
  z.strictObject({ kind: z.literal('gpu_hang'), afterChunks: z.number().int().min(0).default(0), ...gpu }),
  /** The connection is reset after that many chunks of the answer; 0: before its first byte. */
  z.strictObject({ kind: z.literal('gpu_reset'), afterChunks: z.number().int().min(0).default(3), ...gpu }),
  z.strictObject({
    kind: z.literal('gpu_error'),
    status: z.number().int().min(400).max(599).default(500),
    ...gpu,
  }),
  z.strictObject({ kind: z.literal('gpu_rate_limit'), retryAfterS: z.number().int().min(0).default(2), ...gpu }),
  /** Its port is closed while the marketplace still says running; ends with the fault. */
  z.strictObject({ kind: z.literal('gpu_vanish'), ...gpu }),
]);

export const faultKinds = faultSchema.options.map((option) => option.shape.kind.value);

export type Fault = z.infer<typeof faultSchema>;
export type FaultKind = Fault['kind'];
/** What may be written: fields with defaults left out. */
export type FaultInput = z.input<typeof faultSchema>;
export type StandingFault = Fault & Readonly<{ id: string; hits: number }>;

export type FaultOf<K extends FaultKind> = Extract<Fault, { kind: K }>;

export function parseFault(input: unknown): Fault {
  const parsed = faultSchema.safeParse(input);
  if (parsed.success) return parsed.data;
  const kind = (input as { kind?: unknown } | null)?.kind;
  if (!faultKinds.includes(kind as FaultKind)) {
    throw new FaultError(`kind: got ${JSON.stringify(kind)}, accepts one of ${faultKinds.join(', ')}`);
  }
  throw new FaultError(
    parsed.error.issues.map((issue) => `${issue.path.join('.') || String(kind)}: ${issue.message}`).join('; '),
  );
}

/** `latency,ms=500,route=rent` as a fault; numbers are read as such. */
export function parseFaultFlag(text: string): Fault {
  const [kind, ...pairs] = text.split(',').map((part) => part.trim());
  const fields: Record<string, unknown> = { kind };
  for (const pair of pairs) {
    const at = pair.indexOf('=');
    if (at < 1) throw new FaultError(`${kind}: got ${JSON.stringify(pair)}, accepts key=value`);
    const value = pair.slice(at + 1);
    fields[pair.slice(0, at)] = value !== '' && Number.isFinite(Number(value)) ? Number(value) : value;
  }
  return parseFault(fields);
}

/** Faults that change something at once and are then done; the rest stand until their end. */
const immediate = new Set<FaultKind>([
  'vanish_offers',
  'reprice',
  'credit',
  'exit',
  'offline',
  'online',
  'outbid',
  'expire',
]);

export interface Faults {
  /** Throws FaultError. Immediate ones are carried out and answered with an empty `id`. */
  add(input: FaultInput): StandingFault;
  list(): readonly StandingFault[];
  remove(id: string): boolean;
  clear(): void;
}

export type FaultHooks = Readonly<{
  /** Carries out an immediate fault. */
  act(fault: Fault): void;
  /** Replaces an instance named `random` by a real one. */
  settle(fault: Fault): Fault;
  /** The list changed. */
  changed(): void;
}>;

/** The standing faults, asked at every point where one may strike. */
export class FaultBook implements Faults {
  readonly #random: Random;
  readonly #hooks: FaultHooks;
  #faults: { fault: Fault; id: string; hits: number; until: number }[] = [];
  #lastId = 0;

  constructor(random: Random, hooks: FaultHooks) {
    this.#random = random;
    this.#hooks = hooks;
  }

  add(input: FaultInput): StandingFault {
    const fault = this.#hooks.settle(parseFault(input));
    if (immediate.has(fault.kind)) {
      this.#hooks.act(fault);
      return { ...fault, id: '', hits: 1 };
    }
    const id = `f${++this.#lastId}`;
    const forMs = 'forMs' in fault ? fault.forMs : undefined;
    this.#faults.push({ fault, id, hits: 0, until: forMs === undefined ? Infinity : performance.now() + forMs });
    this.#hooks.changed();
    return { ...fault, id, hits: 0 };
  }

  list(): readonly StandingFault[] {
    this.#expire();
    return this.#faults.map(({ fault, id, hits }) => ({ ...fault, id, hits }));
  }

  remove(id: string): boolean {
    const before = this.#faults.length;
    this.#faults = this.#faults.filter((entry) => entry.id !== id);
    if (this.#faults.length !== before) this.#hooks.changed();
    return this.#faults.length !== before;
  }

  clear(): void {
    this.#faults = [];
    this.#hooks.changed();
  }

  /** The standing faults of these kinds that match and strike now; each strike counts. */
  strike<K extends FaultKind>(kinds: readonly K[], matches: (fault: FaultOf<K>) => boolean): FaultOf<K>[] {
    if (this.#faults.length === 0) return [];
    this.#expire();
    const struck: FaultOf<K>[] = [];
    for (const entry of [...this.#faults]) {
      if (!kinds.includes(entry.fault.kind as K)) continue;
      const fault = entry.fault as FaultOf<K>;
      if (!matches(fault)) continue;
      if ('probability' in fault && !this.#random.chance(fault.probability)) continue;
      entry.hits++;
      struck.push(fault);
      if ('times' in fault && fault.times !== undefined && entry.hits >= fault.times) this.remove(entry.id);
    }
    return struck;
  }

  /** Whether such a fault stands, without counting a strike. */
  stands<K extends FaultKind>(kind: K, matches: (fault: FaultOf<K>) => boolean): boolean {
    if (this.#faults.length === 0) return false;
    this.#expire();
    return this.#faults.some(({ fault }) => fault.kind === kind && matches(fault as FaultOf<K>));
  }

  #expire(): void {
    const now = performance.now();
    if (!this.#faults.some((entry) => entry.until <= now)) return;
    this.#faults = this.#faults.filter((entry) => entry.until > now);
    this.#hooks.changed();
  }
}
