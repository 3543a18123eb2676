import type { StrategyName } from '../core/domain.ts';
import { replay } from '../core/fleet-model.ts';
import type { FinishedRequest } from '../core/report.ts';
import type { Snapshot } from '../fleet/app.ts';

/** What a model says a strategy would have done with the last minute of requests. */
export type Prediction = Readonly<{
  /** Of whole response times. */
  p95Ms: number | null;
  /** Part of the picks by instance id, 0 to 1. */
  shares: ReadonlyMap<string, number>;
}>;

/** Replays requests under a strategy. Returns null when it cannot say anything. */
export type Predict = (
  strategy: StrategyName,
  requests: readonly FinishedRequest[],
  snapshot: Snapshot,
) => Prediction | null;

export type PreviewState = Readonly<{
  strategy: StrategyName;
  /** Null while it is being computed or when there is nothing to compare. */
  shares: ReadonlyMap<string, number> | null;
  /** Observed, of whole response times. */
  nowP95Ms: number | null;
  predictedP95Ms: number | null;
  /** Relative error of the model on the strategy that is active; null when unknown. */
  modelError: number | null;
  requests: number;
  /** Why there is no prediction; null when there is one. */
  why: string | null;
}>;

/** Fewer requests than this say nothing about a strategy. */
export const leastRequests = 200;
const spanMs = 60_000;

/** The model of the core, on the instances that may get requests now. */
export const predictByReplay: Predict = (strategy, requests, snapshot) => {
  const result = replay(
    requests,
    snapshot.upstreams.filter((row) => row.eligible).map(({ id, weight }) => ({ id, weight })),
    strategy,
  );
  return result === null ? null : { p95Ms: result.p95Ms, shares: new Map(Object.entries(result.shares)) };
};

/** Of whole answers, as the upstreams gave them. */
export function observedP95(requests: readonly FinishedRequest[]): number | null {
  const times = requests
    .filter((request) => request.cause === 'complete')
    .map((request) => request.totalMs - request.queueMs)
    .sort((a, b) => a - b);
  return times[Math.floor(times.length * 0.95)] ?? null;
}

/** The preview of one strategy from the requests that are kept. Gives way to other work between its two models. */
export async function previewOf(
  strategy: StrategyName,
  kept: readonly FinishedRequest[],
  snapshot: Snapshot,
  now: number,
  predict: Predict,
): Promise<PreviewState> {
  // The time of a model grows with requests times instances: on great fleets and much traffic the newest must do.
  const most = Math.max(leastRequests + 100, Math.min(1500, Math.floor(300_000 / (snapshot.upstreams.length + 1))));
  const requests = kept
    .filter((request) => request.at >= now - spanMs)
    .sort((a, b) => a.at - b.at)
    .slice(-most);
  const nowP95Ms = observedP95(requests);
  const nothing = {
    strategy,
    requests: requests.length,
    nowP95Ms,
    shares: null,
    predictedP95Ms: null,
    modelError: null,
  };
  if (requests.length < leastRequests) {
    return { ...nothing, why: `not enough traffic: ${requests.length} of ${leastRequests} requests` };
  }
  const then = predict(strategy, requests, snapshot);
  if (then === null) return { ...nothing, why: 'the model has nothing to say about this traffic' };
  await new Promise((done) => setImmediate(done));
  // Requests from before a switch say nothing about the model of the strategy that came with it.
  const switched = snapshot.strategy.since > (requests[0]?.at ?? now);
  const model = switched ? null : (predict(snapshot.strategy.name, requests, snapshot)?.p95Ms ?? null);
  return {
    ...nothing,
    shares: then.shares,
    predictedP95Ms: then.p95Ms,
    modelError: model === null || nowP95Ms === null || nowP95Ms <= 0 ? null : Math.abs(model - nowP95Ms) / nowP95Ms,
    why: null,
  };
}
