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
};

/**
 * One strategy at work on one thread. Both run under the table's lock and allocate nothing. A strategy sees eligible
 * rows alone and keeps its state in the table's columns, so that threads share it and a switch loses nothing.
 */
export type Picker = Readonly<{
  /** One of the first `count` of `rows` (`count` is at least 1). */
  pick(rows: Int32Array, count: number, now: number): number;
  /** What it compares of a row, lower wins; for people who ask why. */
  score(row: number, now: number): number;
}>;

export type Strategy = Readonly<{
  name: StrategyName;
  /** For people, as in "Round Robin". */
  title: string;
  /** One line. */
  summary: string;
  /** What it is good for, a few words each. */
  useCases: readonly string[];
  create(context: PickContext): Picker;
}>;
