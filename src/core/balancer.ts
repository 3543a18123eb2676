import { DecisionTrace, exclusion } from './decision-trace.ts';
import { type Ending, endings } from './domain.ts';
import { ewmaStep } from './ewma.ts';
import { expire, type HealthSettings, judge, judgeProbe, panics } from './health.ts';
import {
  flag,
  header,
  health,
  type LoadTable,
  loadUs,
  maxThreads,
  type RowRef,
  serving as servingStates,
  storeUs,
  ttfbBoundsMs,
  ttfbBucket,
  wholeUs,
} from './load-table.ts';
import { keptDecisions } from './report.ts';
import { strategies } from './strategies/index.ts';
import type { Pick, PickContext, Strategy } from './strategies/strategy.ts';

export type BalancerSettings = HealthSettings &
  Readonly<{
    /** Time constant of response time averages. */
    ewmaTauMs: number;
    /** Costs within this part of the lowest are a tie. */
    tieFraction: number;
    /** Least that a failure counts as, in least_response_time. */
    failurePenaltyMs: number;
  }>;

export const defaultBalancerSettings: BalancerSettings = {
  ejectAfterFailures: 3,
  ejectBaseMs: 5000,
  ejectMaxMs: 300_000,
  maxEjectedFraction: 0.5,
  slowStartMs: 30_000,
  ewmaTauMs: 30_000,
  tieFraction: 0.1,
  failurePenaltyMs: 5000,
};

/** What one request asks of its upstream besides being eligible. */
export type Want = Readonly<{
  /** By row, 1: may serve this request (has the model). Absent or null: all may. */
  allowed?: Uint8Array | null;
  /** Rows that this request has tried. */
  tried?: readonly number[];
}>;

/** `none`: nothing eligible. `full`: eligible but for their ceilings, so queue and try again. */
export type Refusal = 'none' | 'full';

/** One attempt at one upstream, counted from the pick to its end. Disposing an unsettled one settles it as client_gone. */
export interface Lease extends Disposable {
  readonly row: number;
  readonly generation: number;
  readonly settled: boolean;
  /**
   * The first byte of the answer is here; `good` false: of one whose status says that it will end as an error. The first
   * call counts.
   */
  firstByte(now: number, good?: boolean): void;
  /** −1 and one outcome, once; later calls do nothing. */
  settle(ending: Ending, now: number, retryAfterMs?: number): void;
}

/** Picks and leases for one thread. Many threads may have one each over the same table. */
export interface Balancer {
  readonly table: LoadTable;
  readonly settings: BalancerSettings;
  /** Pick and +1 in one synchronous step over all threads. */
  acquire(now: number, want?: Want): Lease | Refusal;
  /** Would `acquire` find a place now? Takes and counts nothing. */
  hasRoom(now: number, want?: Want): boolean;
  /** The pick of `acquire` alone: gives away the turn but counts nothing. The row, or -1 when there is none. */
  pick(now: number, want?: Want): number;
  /** Takes the result of an active probe; `why` is one line for people, about a failure. */
  probed(ref: RowRef, ok: boolean, now: number, why: string): void;
  /** Other settings from now on; those that pace averages and ties stay what they were. */
  configure(settings: Partial<HealthSettings>): void;
  /** The last 1,000 picks of this thread. */
  readonly trace: DecisionTrace;
}

const endingNumbers = Object.fromEntries(endings.map((ending, i) => [ending, i])) as Readonly<Record<Ending, number>>;
const histogramWidth = ttfbBoundsMs.length + 1;
const noRow = -1;
const allFull = -2;

/**
 * `thread` (0 to 63) says whose leases these are, for `table.releaseThread`; one balancer a thread. `traced` is the size of
 * the trace. `strategies` stands in for the registry, in the order of `strategyNames`.
 */
export function createBalancer(
  table: LoadTable,
  settings: Partial<BalancerSettings> = {},
  options: { thread?: number; traced?: number; strategies?: readonly Strategy[] } = {},
): Balancer {
  const set: { -readonly [K in keyof BalancerSettings]: number } = { ...defaultBalancerSettings };
  function configure(change: Partial<BalancerSettings>): void {
    for (const [name, value] of Object.entries(change)) {
      if (!Number.isFinite(value) || value < 0)
        throw new RangeError(`${name}: got ${value}, accepts a number from 0 up`);
    }
    Object.assign(set, change);
  }
  configure(settings);
  const thread = options.thread ?? 0;
  if (!Number.isInteger(thread) || thread < 0 || thread >= maxThreads) {
    throw new RangeError(`thread: got ${thread}, accepts a whole number from 0 to ${maxThreads - 1}`);
  }
  table.thread = thread;

  const trace = new DecisionTrace(options.traced ?? keptDecisions);
  const scores = new Float64Array(table.capacity);
  const context: PickContext = { table, tauMs: set.ewmaTauMs, tieFraction: set.tieFraction, slow: false, scores };
  const picks = (options.strategies ?? strategies).map((strategy) => strategy.create(context));
  const c = table.columns;
  const { flags, generation: generations, serving, active, ceiling, health: state, joined } = c;
  const { numbers } = table;
  const eligible = new Int32Array(table.capacity);

  let panic = false;

  /** Fills `eligible`; returns how many there are, or allFull when ceilings alone are in the way. */
  function candidates(now: number, want: Want | undefined): number {
    const allowed = want?.allowed ?? null;
    const tried = want?.tried !== undefined && want.tried.length > 0 ? want.tried : null;
    const high = table.high;
    context.slow = now < (numbers[header.slowUntil] as number) && !table.allNew(now);
    const { slow } = context;
    panic = false;

    let size = 0;
    let out = 0;
    let count = 0;
    let full = 0;
    for (let row = 0; row < high; row++) {
      const serves = serving[row] as number;
      if (serves === servingStates.no) continue;
      if (serves === servingStates.perhaps) {
        if ((state[row] as number) >= health.ejected) expire(table, row, now);
        const rowState = state[row] as number;
        if (rowState === health.unknown) continue;
        size++;
        if (rowState === health.ejected || rowState === health.probation) out++;
        if (!isWell(row)) continue;
      } else size++;
      if (allowed !== null && allowed[row] !== 1) continue;
      if (tried?.includes(row)) continue;
      if ((active[row] as number) >= (ceiling[row] as number) || (slow && isFull(row, now))) full++;
      else eligible[count++] = row;
    }

    if (out > 0 && panics(out, size, set)) {
      panic = true;
      count = 0;
      full = 0;
      for (let row = 0; row < high; row++) {
        const code = exclusionOf(row, now, want);
        if (code === exclusion.none) eligible[count++] = row;
        else if (code === exclusion.full) full++;
      }
    }
    return count > 0 ? count : full > 0 ? allFull : 0;
  }

  /** May it get a request by its health? In panic whoever is not known dead may. */
  function isWell(row: number): boolean {
    const rowState = state[row] as number;
    if (rowState === health.up) return true;
    if (rowState === health.probation) return panic || c.probing[row] === 0;
    return rowState === health.ejected && panic && c.probeFailures[row] === 0;
  }

  function isFull(row: number, now: number): boolean {
    const most = ceiling[row] as number;
    const open = active[row] as number;
    return open >= most || (context.slow && open >= Math.max(1, Math.floor(most * table.ramp(row, now))));
  }

  /** Why a row is not a candidate of the pick at hand, as a number of `exclusion`. */
  function exclusionOf(row: number, now: number, want: Want | undefined): number {
    if (serving[row] === servingStates.no) {
      return ((flags[row] as number) & flag.draining) !== 0 ? exclusion.draining : exclusion.notRunning;
    }
    if (!isWell(row)) {
      const rowState = state[row] as number;
      if (rowState === health.probation) return exclusion.probation;
      if (rowState === health.ejected) return exclusion.ejected;
      return rowState === health.backoff ? exclusion.backoff : exclusion.unknown;
    }
    if (want?.allowed != null && want.allowed[row] !== 1) return exclusion.model;
    if (want?.tried?.includes(row)) return exclusion.tried;
    return isFull(row, now) ? exclusion.full : exclusion.none;
  }

  function firstInFleetOrder(count: number): number {
    let best = eligible[0] as number;
    for (let i = 0; i < count; i++) {
      const row = eligible[i] as number;
      scores[row] = joined[row] as number;
      if ((joined[row] as number) < (joined[best] as number)) best = row;
    }
    return best;
  }

  /** Under the lock: picks and gives away the turn; returns the row, noRow or allFull. Allocates nothing. */
  function choose(now: number, want: Want | undefined): number {
    const count = candidates(now, want);
    const index = table.strategyIndex;
    const decision = trace.begin(now, index);
    lastDecision = decision;
    if (count <= 0) {
      record(now, want, noRow);
      return count === allFull ? allFull : noRow;
    }
    const pick = picks[index] as Pick;
    const row = table.balancing ? pick(eligible, count, now) : firstInFleetOrder(count);
    const generation = c.generation[row] as number;
    trace.won(row, generation);
    if (!record(now, want, row)) trace.candidate(row, generation, exclusion.none, scores);
    const sequence = (numbers[header.sequence] as number) + 1;
    numbers[header.sequence] = sequence;
    c.lastPick[row] = sequence;
    c.lastUsed[row] = now;
    return row;
  }
  let lastDecision = 0;

  /** Puts the first rows of the table and what was compared of them into the trace; true if `winner` was among them. */
  function record(now: number, want: Want | undefined, winner: number): boolean {
    const high = table.high;
    let room = trace.room();
    let found = false;
    for (let row = 0; row < high && room > 0; row++) {
      // One that does not run (yet) is no candidate, and threads that pick do not know its name.
      if (((flags[row] as number) & flag.running) === 0) continue;
      // What the pick has just raised does not count: the winner was a candidate.
      const code = row === winner ? exclusion.none : exclusionOf(row, now, want);
      trace.candidate(row, generations[row] as number, code, scores);
      if (row === winner) found = true;
      room--;
    }
    return found;
  }

  /** Under the lock: +1 on the row that was chosen. */
  function place(row: number, want: Want | undefined): void {
    c.total[row] = (c.total[row] as number) + 1;
    if (want?.tried !== undefined && want.tried.length > 0) c.retries[row] = (c.retries[row] as number) + 1;
    numbers[header.total] = (numbers[header.total] as number) + 1;
    const used = header.picks + table.strategyIndex;
    numbers[used] = (numbers[used] as number) + 1;
    if (state[row] === health.probation) c.probing[row] = 1;
    table.open(row, thread);
  }

  class RowLease implements Lease {
    readonly row: number;
    readonly generation: number;
    readonly #epoch: number;
    readonly #startedAt: number;
    readonly #decision: number;
    #ttfbMs = -1;
    #settled = false;

    constructor(row: number, now: number) {
      this.row = row;
      this.generation = c.generation[row] as number;
      this.#epoch = c.epoch[row] as number;
      this.#startedAt = now;
      this.#decision = lastDecision;
    }

    get settled(): boolean {
      return this.#settled;
    }

    firstByte(now: number, good = true): void {
      if (this.#settled || this.#ttfbMs >= 0 || !Number.isFinite(now)) return;
      this.#ttfbMs = Math.max(0, now - this.#startedAt);
      const { row } = this;
      if (!good || (c.costUs[row] as number) >= 0) return;
      // The averages take this at the end; but a newcomer waits for its first sample, and a stream may last for hours.
      table.lock();
      try {
        if (c.generation[row] !== this.generation || c.epoch[row] !== this.#epoch) return;
        if ((c.costUs[row] as number) < 0) cost(row, this.#ttfbMs, table.time(now));
      } finally {
        table.unlock();
      }
    }

    settle(ending: Ending, now: number, retryAfterMs?: number): void {
      if (this.#settled) return;
      const number = endingNumbers[ending];
      if (number === undefined) throw new RangeError(`ending: got ${String(ending)}, accepts ${endings.join(', ')}`);
      this.#settled = true;
      const { row } = this;
      table.lock();
      try {
        const time = table.time(now);
        const elapsedMs = Math.max(0, time - this.#startedAt);
        const current = c.generation[row] === this.generation && ((flags[row] as number) & flag.used) !== 0;
        table.shut(row, thread, current);
        table.count(row, number, current);
        trace.settle(this.#decision, number, this.#ttfbMs, elapsedMs);
        if (!current) return;
        sample(row, ending, time, elapsedMs, this.#ttfbMs);
        // A lease from before a change of health neither judges the state after it nor holds its probation. A pause that
        // is asked for holds all the same: of many that are open the last to end may name the longest.
        const stale = c.epoch[row] !== this.#epoch;
        if (!stale) c.probing[row] = 0;
        if (!stale || ending === 'backoff') judge(table, row, number, time, set, retryAfterMs);
      } finally {
        table.unlock();
      }
    }

    [Symbol.dispose](): void {
      this.settle('client_gone', Number.NaN);
    }
  }

  /** Gives the averages what this ending is worth. `ttfbMs` is -1 when no byte came. */
  function sample(row: number, ending: Ending, now: number, elapsedMs: number, ttfbMs: number): void {
    const known = loadUs(c.costUs, c.costRest, row);
    const expectedMs = known < 0 ? 0 : known / 1000;
    switch (ending) {
      case 'complete': {
        const ms = ttfbMs >= 0 ? ttfbMs : elapsedMs;
        const us = ms * 1000;
        const shown = loadUs(c.shownUs, c.shownRest, row);
        const average = shown < 0 ? us : ewmaStep(shown, us, now - (c.shownAt[row] as number), set.ewmaTauMs);
        storeUs(c.shownUs, c.shownRest, row, average);
        c.shownAt[row] = Math.max(now, c.shownAt[row] as number);
        Atomics.store(c.lastSampleUs, row, wholeUs(us));
        const bucket = ttfbBucket(ms);
        const at = row * histogramWidth + bucket;
        table.histograms[at] = (table.histograms[at] as number) + 1;
        numbers[header.histogram + bucket] = (numbers[header.histogram + bucket] as number) + 1;
        c.ttfbSumMs[row] = (c.ttfbSumMs[row] as number) + ms;
        numbers[header.ttfbSumMs] = (numbers[header.ttfbSumMs] as number) + ms;
        cost(row, ms, now);
        return;
      }
      case 'refused':
      case 'server_error':
      case 'truncated':
      case 'idle_timeout':
        cost(row, Math.max(expectedMs, elapsedMs, set.failurePenaltyMs), now);
        return;
      case 'first_byte_timeout':
        cost(row, Math.max(expectedMs, elapsedMs), now);
        return;
      case 'client_gone': {
        // Leaving early says nothing; having waited longer than usual does. It is a lower bound, so never a first sample.
        const waitedMs = ttfbMs >= 0 ? ttfbMs : elapsedMs;
        if (known >= 0 && waitedMs > expectedMs) cost(row, waitedMs, now);
        return;
      }
      case 'client_error':
      case 'backoff':
      case 'drained':
        return;
    }
  }

  function cost(row: number, ms: number, now: number): void {
    const known = loadUs(c.costUs, c.costRest, row);
    const us = ms * 1000;
    const average = known < 0 ? us : ewmaStep(known, us, now - (c.costAt[row] as number), set.ewmaTauMs);
    storeUs(c.costUs, c.costRest, row, average);
    c.costAt[row] = known < 0 ? now : Math.max(now, c.costAt[row] as number);
  }

  return {
    table,
    settings: set,
    trace,
    configure,
    acquire(now, want) {
      table.lock();
      try {
        const time = table.time(now);
        const row = choose(time, want);
        if (row === noRow) return 'none';
        if (row === allFull) return 'full';
        place(row, want);
        return new RowLease(row, time);
      } finally {
        table.unlock();
      }
    },
    hasRoom(now, want) {
      table.lock();
      try {
        return candidates(table.time(now), want) > 0;
      } finally {
        table.unlock();
      }
    },
    pick(now, want) {
      table.lock();
      try {
        return Math.max(noRow, choose(table.time(now), want));
      } finally {
        table.unlock();
      }
    },
    probed(ref, ok, now, why) {
      table.lock();
      try {
        if (!table.isCurrent(ref)) return;
        judgeProbe(table, ref.row, ok, table.time(now), set);
        table.noteProbe(ref, ok ? '' : why);
      } finally {
        table.unlock();
      }
    },
  };
}
