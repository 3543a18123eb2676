import type { StrategyName } from '../domain.ts';
import type { LoadTable } from '../load-table.ts';

/** What a strategy may know besides the table. The balancer keeps it true for the pick at hand. */
export type PickContext = {
  readonly table: LoadTable;
  /** Time constant of response time averages. */
  readonly tauMs: number;
  /** Costs within this part of the lowest are a tie. */
  readonly tieFraction: number;
  /** True while some, but not all, upstreams are in slow start: weights then count times `table.ramp`. */
  slow: boolean;
  /** By row: a pick leaves here what it compared, lower wins; for people who ask why. */
  readonly scores: Float64Array;
};

/**
 * One strategy at work on one thread: picks one of the first `count` (at least 1) of `rows`. Runs under the table's lock
 * and allocates nothing. It sees eligible rows alone and keeps its state in the table's columns, so that threads share
 * it and a switch loses nothing.
 */
export type Pick = (rows: Int32Array, count: number, now: number) => number;

export type Strategy = Readonly<{
  name: StrategyName;
  /** For people, as in "Round Robin". */
  title: string;
  /** One line. */
  summary: string;
  /** What it is good for, a few words each. */
  useCases: readonly string[];
  create(context: PickContext): Pick;
}>;
