import type { StrategyName } from '../core/domain.ts';
import type { FinishedRequest } from '../core/report.ts';
import type { Snapshot } from '../fleet/app.ts';

/** What a model says a strategy would have done with the last minute of requests. */
export type Prediction = Readonly<{
  p95Ms: number | null;
  /** Part of the picks by instance id, 0 to 1. */
  shares: ReadonlyMap<string, number>;
}>;

/**
 * Replays requests under a strategy. Injected, because the model lives with the strategies. Returns null when it cannot
 * say anything.
 */
export type Predict = (
  strategy: StrategyName,
  requests: readonly FinishedRequest[],
  snapshot: Snapshot,
) => Prediction | null;

export type PreviewState = Readonly<{
  strategy: StrategyName;
  /** Null while it is being computed or when there is nothing to compare. */
  shares: ReadonlyMap<string, number> | null;
  nowP95Ms: number | null;
  predictedP95Ms: number | null;
  /** Relative error of the model on the strategy that is active; null when unknown. */
  modelError: number | null;
  requests: number;
  /** Why there is no prediction; null when there is one. */
  why: string | null;
}>;
