import type { StrategyName } from '../core/domain.ts';
import { replaySteps } from '../core/fleet-model.ts';
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
) => Prediction | null | Promise<Prediction | null>;

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

/** Rows that a model looks at between two turns of the event loop: a few milliseconds, also on a slow machine. */
export const sliceRows = 20_000;

/** The model of the core, on the instances that may get requests now. */
export const predictByReplay: Predict = async (strategy, requests, snapshot) => {
  const result = await inSlices(
    replaySteps(
      requests,
      snapshot.upstreams.filter((row) => row.eligible).map(({ id, weight }) => ({ id, weight })),
      strategy,
    ),
  );
  return result === null ? null : { p95Ms: result.p95Ms, shares: new Map(Object.entries(result.shares)) };
};

/** Takes the steps to their end and gives way to other work after every `sliceRows` of what they took. */
export async function inSlices<T>(
  steps: Generator<number, T>,
  giveWay: () => Promise<void> = () => new Promise((done) => setImmediate(done)),
): Promise<T> {
  let taken = 0;
  for (let step = steps.next(); ; step = steps.next()) {
    if (step.done) return step.value;
    taken += step.value;
    if (taken < sliceRows) continue;
    taken = 0;
    await giveWay();
  }
}

/** Of whole answers, as the upstreams gave them. */
export function observedP95(requests: readonly FinishedRequest[]): number | null {
  const times = requests
    .filter((request) => request.cause === 'complete')
    .map((request) => request.totalMs - request.queueMs)
    .sort((a, b) => a - b);
  return times[Math.floor(times.length * 0.95)] ?? null;
}

/** The preview of one strategy from the requests that are kept. Gives way to other work while it is made. */
export async function previewOf(
  strategy: StrategyName,
  kept: readonly FinishedRequest[],
  snapshot: Snapshot,
  now: number,
  predict: Predict,
): Promise<PreviewState> {
  // A model is made anew every few seconds and grows with requests times instances: on great fleets the newest must do.
  const most = Math.max(leastRequests + 100, Math.floor(2_000_000 / (snapshot.upstreams.length + 1)));
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
  const then = await predict(strategy, requests, snapshot);
  if (then === null) return { ...nothing, why: 'the model has nothing to say about this traffic' };
  // Requests from before a switch say nothing about the model of the strategy that came with it.
  const switched = snapshot.strategy.since > (requests[0]?.at ?? now);
  const model = switched ? null : ((await predict(snapshot.strategy.name, requests, snapshot))?.p95Ms ?? null);
  return {
    ...nothing,
    shares: then.shares,
    predictedP95Ms: then.p95Ms,
    modelError: model === null || nowP95Ms === null || nowP95Ms <= 0 ? null : Math.abs(model - nowP95Ms) / nowP95Ms,
    why: null,
  };
}
