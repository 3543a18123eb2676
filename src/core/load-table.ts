import { type Ending, endings, type StrategyName, strategyNames } from './domain.ts';
import { lineWords, WaitingLine } from './waiting-line.ts';

/** A row, and which of its tenants is meant: rows are recycled. */
export type RowRef = Readonly<{ row: number; generation: number }>;

/** Most threads that may hold leases at once. */
export const maxThreads = 64;

const bucketCount = 48;
const firstBoundMs = 0.1;
const lastBoundMs = 300_000;

/** Upper bounds of the TTFB buckets, log-spaced; the histogram has one bucket more, for what is above the last. */
export const ttfbBoundsMs: readonly number[] = Array.from({ length: bucketCount }, (_, i) =>
  Number((firstBoundMs * (lastBoundMs / firstBoundMs) ** (i / (bucketCount - 1))).toPrecision(4)),
);

/** Index of the bucket that `ms` falls into. */
export function ttfbBucket(ms: number): number {
  let low = 0;
  let high = bucketCount;
  while (low < high) {
    const mid = (low + high) >> 1;
    if (ms <= (ttfbBoundsMs[mid] as number)) high = mid;
    else low = mid + 1;
  }
  return low;
}

/**
 * Milliseconds below which the part `p` of the counted times lies (0.95, or 95 for people who think in percent),
 * interpolated within its bucket; null when nothing was counted. Works on the difference of two histograms.
 */
export function percentile(histogram: readonly number[], p: number): number | null {
  const part = Math.min(1, Math.max(0, p > 1 ? p / 100 : p));
  let count = 0;
  for (const n of histogram) count += Math.max(0, n);
  if (count === 0) return null;
  const rank = part * count;
  let below = 0;
  for (let i = 0; i < histogram.length; i++) {
    const n = Math.max(0, histogram[i] ?? 0);
    if (n === 0) continue;
    if (below + n >= rank) {
      const from = i === 0 ? 0 : (ttfbBoundsMs[i - 1] as number);
      const to = ttfbBoundsMs[i] ?? lastBoundMs;
      return from + (to - from) * Math.max(0, (rank - below) / n);
    }
    below += n;
  }
  return lastBoundMs;
}

export const healthStates = ['unknown', 'up', 'probation', 'ejected', 'backoff'] as const;
export type HealthState = (typeof healthStates)[number];

/** Numbers of `healthStates` as the health column holds them. */
export const health = { unknown: 0, up: 1, probation: 2, ejected: 3, backoff: 4 } as const;

/** Bits of the flags column. */
export const flag = { used: 1, running: 2, draining: 4 } as const;

/** Values of the serving column: not at all, after a closer look at its health, or yes. */
export const serving = { no: 0, perhaps: 1, yes: 2 } as const;

/** A ceiling that no count of open requests reaches. */
const noCeiling = 2 ** 31 - 1;

/**
 * Weights count in units of which one weight has 10,240: whole numbers, so that credits cannot drift, and fine enough
 * that rounding at a change of the set is lost in them.
 */
export const unitsPerWeight = 10 * 1024;

/** Why a row is in its health state, as a number in the why column: 0 none, then one per ending, then these. */
export const whyProbe = endings.length + 1;

const endingWords: Readonly<Record<Ending, string>> = {
  complete: '',
  client_error: 'the upstream answered 4xx',
  server_error: 'the upstream answered 5xx',
  refused: 'connection refused or reset',
  first_byte_timeout: 'no first byte in time',
  backoff: 'the upstream asked for a pause (Retry-After)',
  truncated: 'the answer broke off',
  idle_timeout: 'the answer fell silent',
  client_gone: '',
  drained: '',
};

const floatColumns = [
  'total', // picks ever; a failed attempt was placed and counts
  'retries', // of these, picks that were not the request's first
  'offset', // equal_weighted: what a newcomer is credited so that it enters level
  'lastPick', // sequence number of the last pick; negative before the first, in order of joining
  'joined', // sequence number of joining: fleet order
  'credit', // weighted round robin, in units of creditScale: creditScale is one pick
  'creditScale',
  'weight',
  'units', // the weight as weighted round robin counts it
  'lastUsed', // ms of the last pick; -1 before the first
  'shownAt',
  'ttfbSumMs', // of what the histogram counts
  'costAt',
  'healthUntil',
  'upSince',
  'rampFrom',
  'rampMs', // 0: no slow start
] as const;

const intColumns = [
  'shownUs', // EWMA of response times, as shown, to the nearest microsecond; -1 before the first sample
  'shownRest', // what rounding left over, see `storeUs`
  'lastSampleUs',
  'costUs', // the same with penalties for failures, as least_response_time compares; -1 before the first sample
  'costRest',
  'flags',
  'serving', // from flags and health: what a pick has to look at first
  'generation',
  'active',
  'ceiling', // noCeiling when there is none
  'health',
  'epoch', // grows with every change of health: outcomes of leases from before a change do not judge the state after it
  'ejections',
  'failures', // in a row, from traffic
  'probeFailures', // in a row, from active probes
  'probing', // 1 while the single request of probation is open
  'afterBackoff', // health state to return to
  'why',
  'whyCount',
] as const;

export type Columns = Readonly<
  Record<(typeof floatColumns)[number], Float64Array> & Record<(typeof intColumns)[number], Int32Array>
>;

// Words of the header, as Int32.
const hLock = 0;
const hWaiters = 1;
const hStrategy = 2;
const hBalancing = 3;
const hCapacity = 4;
const hHigh = 5;
const hActive = 6;
const hUsed = 7;
const hOpen = 8; // open leases by thread, leases on removed rows included
const headerInts = hOpen + maxThreads;

// Numbers of the header, as Float64.
export const header = {
  sequence: 0, // of picks
  joins: 1,
  clock: 2, // latest time that anybody handed in
  slowUntil: 3, // no row is in slow start after this
  medianUs: 4, // of the fleet's costs; -1: nobody has a sample
  medianAt: 5,
  total: 6,
  ttfbSumMs: 7,
  endings: 8,
  picks: 8 + endings.length + 2, // room to append endings
  histogram: 8 + endings.length + 2 + strategyNames.length + 3,
} as const;
const headerFloats = header.histogram + bucketCount + 1;

const histogramWidth = bucketCount + 1;
const align = (bytes: number) => (bytes + 7) & ~7;

function bytesFor(capacity: number): number {
  return (
    align(headerInts * 4) +
    (headerFloats + (floatColumns.length + endings.length) * capacity) * 8 +
    (intColumns.length + histogramWidth + maxThreads) * capacity * 4 +
    lineWords(maxThreads, capacity) * 4
  );
}

const restScale = 2 ** 31;
const maxUs = 2 ** 31 - 1;

/** A time as an int column holds it. */
export const wholeUs = (us: number): number => Math.min(maxUs, Math.round(us));

/**
 * Stores a time as whole microseconds, which any thread can read at any moment and never half written, and beside them
 * what rounding left over: at a thousand samples a second one step of an average is far less than a microsecond, and
 * whole ones alone would never move. Times above 35 minutes count as 35 minutes. Under the lock.
 */
export function storeUs(whole: Int32Array, rest: Int32Array, row: number, us: number): void {
  const nearest = wholeUs(us);
  Atomics.store(whole, row, nearest);
  rest[row] = Math.min(us - nearest, 0.5) * restScale;
}

/** What `storeUs` stored, within 2^-31 µs; -1 before the first. Under the lock. */
export function loadUs(whole: Int32Array, rest: Int32Array, row: number): number {
  const nearest = whole[row] as number;
  return nearest < 0 ? -1 : nearest + (rest[row] as number) / restScale;
}

/** Milliseconds a thread waits for the lock before it takes it from an owner that must have died with it. */
const lockPatienceMs = 2000;
/** Lock owner of a table without a balancer. */
const noThread = maxThreads;

export type LoadRow = Readonly<{
  active: number;
  total: number;
  /** Time-decayed average of response times (TTFB) of complete answers; null before the first. */
  avgMs: number | null;
  lastMs: number | null;
  weight: number;
  /** Most requests at once; 0: no limit. */
  ceiling: number;
  /** Monotonic time of the last pick. */
  lastUsedMs: number | null;
  running: boolean;
  draining: boolean;
  /** Part of its weight and ceiling that a new or recovered upstream gets, 0.1 to 1. */
  slowStart: number;
  health: HealthState;
  /** Monotonic time when an ejection or a back-off ends. */
  healthUntilMs: number | null;
  /** Ejections in a row. */
  ejections: number;
  /** One line, empty when all is well. */
  healthWhy: string;
  /** True when a pick could choose it now; a full ceiling or a request's own wishes aside. */
  inService: boolean;
  endings: Readonly<Record<Ending, number>>;
  /** Picks that were not their request's first. */
  retries: number;
  /** Counts by bucket of `ttfbBoundsMs`, plus one above the last bound. */
  ttfbHistogram: readonly number[];
  /** Sum of the times that the histogram counts. */
  ttfbSumMs: number;
}>;

type RowNumbers = Omit<LoadRow, 'endings' | 'ttfbHistogram'>;

/** The whole process since its start, removed rows included. */
export type TableTotals = Readonly<{
  active: number;
  total: number;
  endings: Readonly<Record<Ending, number>>;
  ttfbHistogram: readonly number[];
  ttfbSumMs: number;
  picksByStrategy: Readonly<Record<StrategyName, number>>;
}>;

function finite(name: string, value: number): number {
  if (!Number.isFinite(value) || value < 0) throw new RangeError(`${name}: got ${value}, accepts a number from 0 up`);
  return value;
}

/**
 * The numbers of every upstream, one row each, in one piece of shared memory. Times are milliseconds of the process-wide
 * monotonic clock and are handed in. A short lock in the header makes "pick and lease" and "settle" one step over all
 * threads; plain reads and writes of the columns happen under it alone.
 */
export class LoadTable {
  readonly buffer: SharedArrayBuffer;
  readonly capacity: number;
  /** For core alone, under the lock. */
  readonly columns: Columns;
  /** `endings.length` counts a row. */
  readonly endingCounts: Float64Array;
  /** `ttfbBoundsMs.length + 1` counts a row. */
  readonly histograms: Int32Array;
  /** Open leases by thread and row: what a thread that died had open. */
  readonly threadActive: Int32Array;
  readonly numbers: Float64Array;
  readonly #lineWords: Int32Array;
  /** Whose leases and lock this object takes; set by the balancer of the thread. */
  thread: number = noThread;

  readonly #words: Int32Array;
  /** Words of the last failed probe by row and generation; kept where the prober runs. */
  readonly #probeWhy = new Map<number, { generation: number; why: string }>();
  /** The last picture of each row: thousands of rows are read several times a second, and few have changed. */
  readonly #pictures = new Map<number, { generation: number; picture: LoadRow }>();

  /** An empty table for up to `capacity` upstreams at once. Strategy round_robin, balancing on. */
  static create(capacity = 4096): LoadTable {
    if (!Number.isInteger(capacity) || capacity < 1 || capacity > 1_000_000) {
      throw new RangeError(`capacity: got ${capacity}, accepts a whole number from 1 to 1000000`);
    }
    const buffer = new SharedArrayBuffer(bytesFor(capacity));
    const words = new Int32Array(buffer, 0, headerInts);
    words[hCapacity] = capacity;
    words[hBalancing] = 1;
    const table = new LoadTable(buffer);
    table.numbers[header.medianUs] = -1;
    table.numbers[header.medianAt] = Number.NEGATIVE_INFINITY;
    table.numbers[header.slowUntil] = Number.NEGATIVE_INFINITY;
    return table;
  }

  /** The same table from another thread. */
  constructor(buffer: SharedArrayBuffer) {
    this.buffer = buffer;
    this.#words = new Int32Array(buffer, 0, headerInts);
    this.capacity = this.#words[hCapacity] as number;
    if (buffer.byteLength !== bytesFor(this.capacity)) throw new RangeError('buffer: not a load table');
    let at = align(headerInts * 4);
    const floats = (length: number) => {
      const view = new Float64Array(buffer, at, length);
      at += length * 8;
      return view;
    };
    const ints = (length: number) => {
      const view = new Int32Array(buffer, at, length);
      at += length * 4;
      return view;
    };
    this.numbers = floats(headerFloats);
    const columns: Record<string, Float64Array | Int32Array> = {};
    for (const name of floatColumns) columns[name] = floats(this.capacity);
    this.endingCounts = floats(this.capacity * endings.length);
    for (const name of intColumns) columns[name] = ints(this.capacity);
    this.histograms = ints(this.capacity * histogramWidth);
    this.threadActive = ints(this.capacity * maxThreads);
    this.#lineWords = ints(lineWords(maxThreads, this.capacity));
    this.columns = columns as Columns;
  }

  get strategy(): StrategyName {
    return strategyNames[Atomics.load(this.#words, hStrategy)] as StrategyName;
  }
  set strategy(name: StrategyName) {
    const index = strategyNames.indexOf(name);
    if (index < 0) throw new RangeError(`strategy: got ${String(name)}, accepts one of ${strategyNames.join(', ')}`);
    Atomics.store(this.#words, hStrategy, index);
  }
  /** Index of the strategy in `strategyNames`. */
  get strategyIndex(): number {
    return Atomics.load(this.#words, hStrategy);
  }

  /** False: the first eligible upstream in fleet order takes everything. */
  get balancing(): boolean {
    return Atomics.load(this.#words, hBalancing) === 1;
  }
  set balancing(on: boolean) {
    Atomics.store(this.#words, hBalancing, on ? 1 : 0);
  }

  /** The line of those who wait for a place, as a thread sees it. */
  line(thread: number): WaitingLine {
    return new WaitingLine(this.#lineWords, thread, maxThreads, this.capacity);
  }

  /** Rows at or above this were never used. */
  get high(): number {
    return this.#words[hHigh] as number;
  }

  /**
   * Enters the critical section. Not reentrant, never across an `await`. Waiting threads sleep rather than spin: the
   * owner may need this very core to get on.
   */
  lock(): void {
    const words = this.#words;
    const me = this.thread + 1;
    if (Atomics.compareExchange(words, hLock, 0, me) === 0) return;
    let waitedMs = 0;
    for (;;) {
      for (let spin = 0; spin < 40; spin++) {
        if (Atomics.load(words, hLock) === 0 && Atomics.compareExchange(words, hLock, 0, me) === 0) return;
      }
      const owner = Atomics.load(words, hLock);
      if (owner === 0) continue;
      Atomics.add(words, hWaiters, 1);
      const woken = Atomics.wait(words, hLock, owner, 1);
      Atomics.sub(words, hWaiters, 1);
      // A worker can be terminated inside the section; nobody else would ever open it again.
      if (woken === 'timed-out' && ++waitedMs >= lockPatienceMs) {
        if (Atomics.compareExchange(words, hLock, owner, me) === owner) return;
        waitedMs = 0;
      }
    }
  }

  unlock(): void {
    const words = this.#words;
    // Not if somebody took it from us in the belief that we had died.
    if (Atomics.compareExchange(words, hLock, this.thread + 1, 0) !== this.thread + 1) return;
    if (Atomics.load(words, hWaiters) > 0) Atomics.notify(words, hLock, 1);
  }

  /** `now` if it is a time, else the latest known one: no NaN enters the table. */
  time(now: number): number {
    const numbers = this.numbers;
    if (!Number.isFinite(now)) return numbers[header.clock] as number;
    if (now > (numbers[header.clock] as number)) numbers[header.clock] = now;
    return now;
  }

  /**
   * A row for a new upstream: health unknown, not running. `ceiling` is the most requests at once, 0 for no limit.
   * Throws RangeError when the table is full or a number is none.
   */
  join(init: { weight: number; ceiling: number; now: number }): RowRef {
    finite('weight', init.weight);
    finite('ceiling', init.ceiling);
    const c = this.columns;
    this.lock();
    try {
      this.time(init.now);
      // Without gaps there is nothing to look for below the first unused row.
      let row = this.#words[hUsed] === this.high ? this.high : 0;
      while (row < this.capacity && ((c.flags[row] as number) & flag.used) !== 0) row++;
      if (row === this.capacity) throw new RangeError(`load table is full: ${this.capacity} upstreams`);
      const generation = c.generation[row] as number;
      for (const name of floatColumns) c[name][row] = 0;
      for (const name of intColumns) c[name][row] = 0;
      this.endingCounts.fill(0, row * endings.length, (row + 1) * endings.length);
      this.histograms.fill(0, row * histogramWidth, (row + 1) * histogramWidth);
      const joined = (this.numbers[header.joins] as number) + 1;
      this.numbers[header.joins] = joined;
      c.generation[row] = generation;
      c.joined[row] = joined;
      c.lastPick[row] = joined - 2 ** 52;
      // As fine as credits are later: in coarser units its part of what others leave behind would be rounded away.
      c.creditScale[row] = unitsPerWeight;
      this.#weigh(row, init.weight);
      this.#cap(row, init.ceiling);
      c.lastUsed[row] = c.shownUs[row] = c.lastSampleUs[row] = c.costUs[row] = -1;
      c.flags[row] = flag.used;
      Atomics.add(this.#words, hUsed, 1);
      if (row >= this.high) Atomics.store(this.#words, hHigh, row + 1);
      return { row, generation };
    } finally {
      this.unlock();
    }
  }

  /** Takes the upstream out. Its open leases still settle, in the totals alone; the row gets a new generation. */
  leave(ref: RowRef): void {
    const c = this.columns;
    const { row } = ref;
    this.lock();
    try {
      if (!this.isCurrent(ref)) return;
      c.flags[row] = 0;
      Atomics.sub(this.#words, hUsed, 1);
      c.serving[row] = serving.no;
      c.active[row] = 0;
      c.generation[row] = ((c.generation[row] as number) + 1) | 0;
      for (let thread = 0; thread < maxThreads; thread++) this.threadActive[thread * this.capacity + row] = 0;
      // What it was owed or ahead is spread over the rest: credits keep the sum of zero that their bounds rest on.
      const owed = (c.credit[row] as number) / (c.creditScale[row] as number);
      let others = 0;
      for (let i = 0; i < this.high; i++) if (((c.flags[i] as number) & flag.used) !== 0) others++;
      for (let i = 0; i < this.high && owed !== 0; i++) {
        if (((c.flags[i] as number) & flag.used) === 0) continue;
        c.credit[i] = (c.credit[i] as number) + Math.round((owed / others) * (c.creditScale[i] as number));
      }
      let high = this.high;
      while (high > 0 && ((c.flags[high - 1] as number) & flag.used) === 0) high--;
      Atomics.store(this.#words, hHigh, high);
    } finally {
      this.unlock();
    }
  }

  /** The provider says that it runs and its origin is known. Going up again starts with unknown health. */
  setRunning(ref: RowRef, running: boolean, now: number): void {
    this.#change(ref, now, (row) => {
      const c = this.columns;
      const was = ((c.flags[row] as number) & flag.running) !== 0;
      if (was === running) return;
      c.flags[row] = (c.flags[row] as number) ^ flag.running;
      this.enter(row, health.unknown);
      c.failures[row] = c.probeFailures[row] = c.ejections[row] = c.why[row] = 0;
      Atomics.store(c.costUs, row, -1);
    });
  }

  /** The operator says that it takes nothing new. */
  setDraining(ref: RowRef, draining: boolean, now: number): void {
    this.#change(ref, now, (row) => {
      const c = this.columns;
      const was = ((c.flags[row] as number) & flag.draining) !== 0;
      if (was === draining) return;
      c.flags[row] = (c.flags[row] as number) ^ flag.draining;
      this.#serve(row);
      if (!draining) this.level(row);
    });
  }

  /** A weight of 0 gets nothing while another has more. Throws RangeError on what is no weight. */
  setWeight(ref: RowRef, weight: number): void {
    finite('weight', weight);
    this.#change(ref, Number.NaN, (row) => {
      this.#weigh(row, weight);
    });
  }

  /** Most requests at once, 0 for no limit. */
  setCeiling(ref: RowRef, ceiling: number): void {
    finite('ceiling', ceiling);
    this.#change(ref, Number.NaN, (row) => {
      this.#cap(row, ceiling);
    });
  }

  isCurrent(ref: RowRef): boolean {
    const { row, generation } = ref;
    return (
      row >= 0 &&
      row < this.capacity &&
      this.columns.generation[row] === generation &&
      ((this.columns.flags[row] as number) & flag.used) !== 0
    );
  }

  /**
   * equal_weighted: who enters service stands level with the lowest of the others, or it would take everything until
   * its total had caught up with theirs. Under the lock.
   */
  level(row: number): void {
    const c = this.columns;
    let lowest = Number.POSITIVE_INFINITY;
    for (let i = 0; i < this.high; i++) {
      if (i === row || c.serving[i] !== serving.yes) continue;
      lowest = Math.min(lowest, (c.total[i] as number) + (c.offset[i] as number));
    }
    if (lowest !== Number.POSITIVE_INFINITY) c.offset[row] = lowest - (c.total[row] as number);
  }

  /** Puts a row into a health state; what began before no longer judges it. Under the lock. */
  enter(row: number, state: number): void {
    const c = this.columns;
    c.health[row] = state;
    c.epoch[row] = ((c.epoch[row] as number) + 1) | 0;
    c.probing[row] = 0;
    this.#serve(row);
  }

  /** Part of weight and ceiling that slow start allows the row at `now`, 0.1 to 1. Under the lock. */
  ramp(row: number, now: number): number {
    const c = this.columns;
    const ms = c.rampMs[row] as number;
    if (ms === 0) return 1;
    const part = (now - (c.rampFrom[row] as number)) / ms;
    // In twentieths, so that weights do not change with every pick.
    return part >= 1 ? 1 : Math.max(0.1, Math.floor(part * 20) / 20);
  }

  /** True when no upstream in service is past its slow start: then there is nobody to take the load meanwhile. */
  allNew(now: number): boolean {
    const c = this.columns;
    for (let i = 0; i < this.high; i++) {
      if (c.serving[i] === serving.yes && this.ramp(i, now) === 1) return false;
    }
    return true;
  }

  /** +1 by this thread. Under the lock. */
  open(row: number, thread: number): void {
    const c = this.columns;
    const at = thread * this.capacity + row;
    Atomics.add(c.active, row, 1);
    this.threadActive[at] = (this.threadActive[at] as number) + 1;
    Atomics.add(this.#words, hActive, 1);
    Atomics.add(this.#words, hOpen + thread, 1);
  }

  /** −1 by this thread, on a row of the current generation or (`current` false) on one that is gone. Under the lock. */
  shut(row: number, thread: number, current: boolean): void {
    Atomics.sub(this.#words, hActive, 1);
    Atomics.sub(this.#words, hOpen + thread, 1);
    if (!current) return;
    const at = thread * this.capacity + row;
    Atomics.sub(this.columns.active, row, 1);
    this.threadActive[at] = (this.threadActive[at] as number) - 1;
  }

  /** Counts one ending, of the row if it is current, and of the process. Under the lock. */
  count(row: number, ending: number, current: boolean): void {
    const numbers = this.numbers;
    numbers[header.endings + ending] = (numbers[header.endings + ending] as number) + 1;
    if (!current) return;
    const at = row * endings.length + ending;
    this.endingCounts[at] = (this.endingCounts[at] as number) + 1;
  }

  /**
   * Ends every lease that a thread had open when it died, as `drained`: its clients were cut off, which says nothing
   * about the upstreams. Also frees the lock if it died inside.
   */
  releaseThread(thread: number): void {
    if (!Number.isInteger(thread) || thread < 0 || thread >= maxThreads) {
      throw new RangeError(`thread: got ${thread}, accepts a whole number from 0 to ${maxThreads - 1}`);
    }
    Atomics.compareExchange(this.#words, hLock, thread + 1, 0);
    this.line(thread).clear();
    const c = this.columns;
    const drained = endings.indexOf('drained');
    this.lock();
    try {
      let orphans = Atomics.exchange(this.#words, hOpen + thread, 0);
      // Sums are made anew rather than subtracted from: the thread may have died between two of its counts.
      let active = 0;
      for (let other = 0; other < maxThreads; other++) active += Atomics.load(this.#words, hOpen + other);
      Atomics.store(this.#words, hActive, active);
      for (let row = 0; row < this.high; row++) {
        const at = thread * this.capacity + row;
        const mine = this.threadActive[at] as number;
        this.threadActive[at] = 0;
        if (mine > 0) c.probing[row] = 0;
        for (let i = 0; i < mine; i++) this.count(row, drained, true);
        orphans -= mine;
        let open = 0;
        for (let other = 0; other < maxThreads; other++) {
          open += this.threadActive[other * this.capacity + row] as number;
        }
        Atomics.store(c.active, row, open);
      }
      for (; orphans > 0; orphans--) this.count(0, drained, false);
    } finally {
      this.unlock();
    }
  }

  /** Keeps the prober's words for `read`; they are not in shared memory. */
  noteProbe(ref: RowRef, why: string): void {
    this.#probeWhy.set(ref.row, { generation: ref.generation, why });
  }

  /**
   * A picture of one row, the same object until something in it changed; null when its upstream has left. `now` is for slow start; default: the latest known
   * time. Who reads many rows hands in what `allNew` says, which looks at all of them.
   */
  read(ref: RowRef, now: number = Number.NaN, allNew?: boolean): LoadRow | null {
    const c = this.columns;
    const { row } = ref;
    this.lock();
    try {
      if (!this.isCurrent(ref)) return null;
      const time = this.time(now);
      const flags = c.flags[row] as number;
      const state = healthStates[this.#presentHealth(row, time)] as HealthState;
      const timed = state === 'ejected' || state === 'backoff';
      const us = (value: number | undefined) => (value === undefined || value < 0 ? null : value / 1000);
      const ramp = this.ramp(row, time);
      const numbers: RowNumbers = {
        active: c.active[row] as number,
        total: c.total[row] as number,
        avgMs: us(loadUs(c.shownUs, c.shownRest, row)),
        lastMs: us(c.lastSampleUs[row]),
        weight: c.weight[row] as number,
        ceiling: c.ceiling[row] === noCeiling ? 0 : (c.ceiling[row] as number),
        lastUsedMs: (c.lastUsed[row] as number) < 0 ? null : (c.lastUsed[row] as number),
        running: (flags & flag.running) !== 0,
        draining: (flags & flag.draining) !== 0,
        slowStart: ramp === 1 || (allNew ?? this.allNew(time)) ? 1 : ramp,
        health: state,
        healthUntilMs: timed ? (c.healthUntil[row] as number) : null,
        ejections: c.ejections[row] as number,
        healthWhy: this.#why(ref, state),
        inService: c.serving[row] !== serving.no && (state === 'up' || state === 'probation'),
        retries: c.retries[row] as number,
        ttfbSumMs: c.ttfbSumMs[row] as number,
      };
      const kept = this.#pictures.get(row);
      if (kept?.generation === ref.generation && this.#shows(kept.picture, row, numbers)) return kept.picture;
      const picture: LoadRow = {
        ...numbers,
        endings: named(endings, this.endingCounts, row * endings.length),
        ttfbHistogram: Array.from(this.histograms.subarray(row * histogramWidth, (row + 1) * histogramWidth)),
      };
      this.#pictures.set(row, { generation: ref.generation, picture });
      return picture;
    } finally {
      this.unlock();
    }
  }

  #shows(picture: LoadRow, row: number, numbers: RowNumbers): boolean {
    for (const name in numbers) {
      if (numbers[name as keyof RowNumbers] !== picture[name as keyof RowNumbers]) return false;
    }
    for (let i = 0; i < endings.length; i++) {
      if (picture.endings[endings[i] as Ending] !== this.endingCounts[row * endings.length + i]) return false;
    }
    for (let i = 0; i < histogramWidth; i++) {
      if (picture.ttfbHistogram[i] !== this.histograms[row * histogramWidth + i]) return false;
    }
    return true;
  }

  /** The whole process since its start, removed upstreams included. */
  totals(): TableTotals {
    this.lock();
    try {
      return {
        active: Atomics.load(this.#words, hActive),
        total: this.numbers[header.total] as number,
        endings: named(endings, this.numbers, header.endings),
        ttfbHistogram: Array.from(this.numbers.subarray(header.histogram, header.histogram + histogramWidth)),
        ttfbSumMs: this.numbers[header.ttfbSumMs] as number,
        picksByStrategy: named(strategyNames, this.numbers, header.picks),
      };
    } finally {
      this.unlock();
    }
  }

  /** The state that the next pick will find: ejections and back-offs end at a pick, and there may be none for hours. */
  #presentHealth(row: number, now: number): number {
    const c = this.columns;
    const state = c.health[row] as number;
    if (state < health.ejected || now < (c.healthUntil[row] as number)) return state;
    if (state === health.backoff) return c.afterBackoff[row] as number;
    return c.probeFailures[row] === 0 ? health.probation : state;
  }

  #serve(row: number): void {
    const c = this.columns;
    c.serving[row] =
      c.flags[row] !== (flag.used | flag.running)
        ? serving.no
        : c.health[row] === health.up
          ? serving.yes
          : serving.perhaps;
  }

  #weigh(row: number, weight: number): void {
    const c = this.columns;
    c.weight[row] = weight;
    // Bounded, so that sums of credits stay exact in a double.
    c.units[row] = weight === 0 ? 0 : Math.max(1, Math.round(Math.min(weight, 1e6) * unitsPerWeight));
  }

  #cap(row: number, ceiling: number): void {
    this.columns.ceiling[row] = ceiling < 1 ? noCeiling : Math.min(noCeiling, Math.floor(ceiling));
  }

  #why(ref: RowRef, state: HealthState): string {
    const code = this.columns.why[ref.row] as number;
    const noted = this.#probeWhy.get(ref.row);
    const words = noted?.generation === ref.generation && noted.why !== '' ? `: ${noted.why}` : '';
    if (state === 'up') return '';
    if (state === 'unknown') return code === whyProbe ? `not ready yet${words}` : 'waiting for its first probe';
    if (code === whyProbe) return `probe failed${words}`;
    const text = endingWords[endings[code - 1] as Ending] ?? '';
    if (state === 'backoff') return text;
    const count = this.columns.whyCount[ref.row] as number;
    return count > 1 ? `${count} failures in a row, the last: ${text}` : text;
  }

  #change(ref: RowRef, now: number, change: (row: number) => void): void {
    this.lock();
    try {
      this.time(now);
      if (this.isCurrent(ref)) change(ref.row);
    } finally {
      this.unlock();
    }
  }
}

function named<Name extends string>(names: readonly Name[], counts: Float64Array, from: number): Record<Name, number> {
  return Object.fromEntries(names.map((name, i) => [name, counts[from + i] as number])) as Record<Name, number>;
}
