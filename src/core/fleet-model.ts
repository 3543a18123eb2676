import { type BalancerSettings, createBalancer, type Lease } from './balancer.ts';
import type { StrategyName } from './domain.ts';
import { LoadTable, type RowRef } from './load-table.ts';
import type { FinishedRequest } from './report.ts';
import { type Strategy, strategies } from './strategies/index.ts';

/**
 * A discrete-event model of a fleet: requests arrive, a policy places each, an upstream serves as many at once as it has
 * slots and lets the rest wait in line. Nothing is random but what the caller's `random` gives; times are milliseconds
 * from the start of the model.
 */
export type ModelUpstream = Readonly<{
  id: string;
  weight: number;
  /** Requests served at once; more wait in line at the upstream. */
  slots: number;
  /** Work done per millisecond and slot; 1 is the reference GPU. */
  speed: number;
  /** Enters service at this time; absent: there from the start. */
  joinsAtMs?: number | undefined;
  /** From and to when it answers every request with a failure after so long. */
  fails?: Readonly<{ fromMs: number; toMs: number; afterMs: number }> | undefined;
}>;

export type ModelRequest = Readonly<{
  atMs: number;
  /** Milliseconds on one slot of the reference GPU. */
  workMs: number;
  /** Part of the work before the first byte: nearly all of a plain answer, little of a stream. */
  firstMs: number;
}>;

/** Places requests, known by their number, on upstreams, known by their index. */
export type ModelPolicy = Readonly<{
  name: string;
  joined(upstream: number, now: number): void;
  /** Index of an upstream that has joined; -1 when there is none to take it: the request is lost. */
  pick(request: number, now: number): number;
  firstByte(request: number, upstream: number, now: number): void;
  ended(request: number, upstream: number, now: number, ok: boolean): void;
}>;

export type ModelResult = Readonly<{
  policy: string;
  requests: number;
  /** Failed at an upstream or found none. */
  lost: number;
  /** Whole response times of the requests that were answered; null when none was. */
  meanMs: number | null;
  p50Ms: number | null;
  p95Ms: number | null;
  p99Ms: number | null;
  ttfbP95Ms: number | null;
  /** Part of the picks by upstream id. */
  shares: Readonly<Record<string, number>>;
  hottestShare: number;
  /**
   * Work that an upstream was given by what it can do from when it joins to the last arrival, by id. Above 1 its line,
   * and with it the times of the policy, grow as long as requests come.
   */
  loads: Readonly<Record<string, number>>;
  /** Most requests open at one upstream at once. */
  peakOpen: number;
}>;

/** Work that the fleet can do in a millisecond, of the upstreams there from the start that do not fail. */
export function capacityOf(upstreams: readonly ModelUpstream[]): number {
  return upstreams.reduce((sum, u) => sum + (u.joinsAtMs === undefined && !u.fails ? u.slots * u.speed : 0), 0);
}

const meanWorkMs = 800;
const streamedPart = 0.4;

/**
 * Poisson arrivals of plain and streamed requests with log-normal sizes (σ = 1), at `load` (0.8: 80 %) of what the fleet
 * can do.
 */
export function modelTraffic(options: {
  upstreams: readonly ModelUpstream[];
  load: number;
  count: number;
  random: () => number;
}): ModelRequest[] {
  const { random } = options;
  const perMs = (options.load * capacityOf(options.upstreams)) / meanWorkMs;
  if (!(perMs > 0)) throw new RangeError('load: the model needs a load above 0 and an upstream that works');
  const normal = () => Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random());
  const requests: ModelRequest[] = [];
  let atMs = 0;
  for (let i = 0; i < options.count; i++) {
    atMs += -Math.log(1 - random()) / perMs;
    const streamed = random() < streamedPart;
    // The mean of a log-normal is e^(μ + σ²/2): with σ = 1 the median lies at the mean over √e.
    const workMs = (meanWorkMs / Math.exp(0.5)) * Math.exp(normal());
    requests.push({ atMs, workMs, firstMs: workMs * (streamed ? 0.1 : 0.95) });
  }
  return requests;
}

/** Eight instances of four kinds, as one would rent them for little money. */
export const demoModelFleet: readonly ModelUpstream[] = [
  { id: 'h100-1', weight: 3, slots: 12, speed: 2.4 },
  { id: 'a100-1', weight: 3, slots: 8, speed: 1.6 },
  { id: 'a6000-1', weight: 2.4, slots: 6, speed: 0.9 },
  { id: 'a6000-2', weight: 2.4, slots: 6, speed: 0.9 },
  { id: '4090-1', weight: 1.8, slots: 4, speed: 1.2 },
  { id: '4090-2', weight: 1.8, slots: 4, speed: 1.2 },
  { id: '3090-1', weight: 1.8, slots: 4, speed: 0.7 },
  { id: '3090-2', weight: 1.8, slots: 4, speed: 0.7 },
];

/**
 * The real balancer and one of its strategies as a policy, on a table of its own. `planted` stands in for the strategy,
 * to have another rule behind the same health, probation and slow start.
 */
export function balancerPolicy(
  strategy: StrategyName,
  upstreams: readonly ModelUpstream[],
  settings: Partial<BalancerSettings> = {},
  planted?: Strategy['create'],
): ModelPolicy {
  const table = LoadTable.create(Math.max(1, upstreams.length));
  const registry = strategies.map((s) => (planted && s.name === strategy ? { ...s, create: planted } : s));
  const balancer = createBalancer(table, settings, { traced: 1, strategies: registry });
  table.strategy = strategy;
  const refs: (RowRef | undefined)[] = [];
  const upstreamOfRow: number[] = [];
  const leases = new Map<number, Lease>();
  return {
    name: strategy,
    joined(upstream, now) {
      const ref = table.join({ weight: upstreams[upstream]?.weight ?? 1, ceiling: 0, now });
      refs[upstream] = ref;
      upstreamOfRow[ref.row] = upstream;
      table.setRunning(ref, true, now);
      balancer.probed(ref, true, now, '');
    },
    pick(request, now) {
      const lease = balancer.acquire(now);
      if (typeof lease === 'string') return -1;
      leases.set(request, lease);
      return upstreamOfRow[lease.row] ?? -1;
    },
    firstByte(request, _upstream, now) {
      leases.get(request)?.firstByte(now);
    },
    ended(request, _upstream, now, ok) {
      leases.get(request)?.settle(ok ? 'complete' : 'server_error', now);
      leases.delete(request);
    },
  };
}

const eventKinds = { join: 0, first: 1, end: 2, fail: 3 } as const;
type EventKind = (typeof eventKinds)[keyof typeof eventKinds];
type Event = { at: number; order: number; kind: EventKind; upstream: number; request: number };

/** What an event costs, as a number of rows of the table that are looked at. */
const rowsOfAnEvent = 200;

export type ModelRun = {
  upstreams: readonly ModelUpstream[];
  requests: readonly ModelRequest[];
  policy: ModelPolicy;
};

/** Runs the requests (in order of arrival) through the policy until the last one has ended. */
export function runModel(options: ModelRun): ModelResult {
  const steps = modelSteps(options);
  for (let step = steps.next(); ; step = steps.next()) if (step.done) return step.value;
}

/** The same in steps, between which other work can be done; each gives what it took, in rows of the table looked at. */
function* modelSteps({ upstreams, requests, policy }: ModelRun): Generator<number, ModelResult> {
  const events = createHeap();
  const busy = upstreams.map(() => 0);
  const open = upstreams.map(() => 0);
  const picks = upstreams.map(() => 0);
  const given = upstreams.map(() => 0);
  const lines: number[][] = upstreams.map(() => []);
  const totals: number[] = [];
  const firsts: number[] = [];
  let lost = 0;
  let peakOpen = 0;

  for (const [index, upstream] of upstreams.entries()) {
    if (upstream.joinsAtMs === undefined) policy.joined(index, 0);
    else events.push(upstream.joinsAtMs, eventKinds.join, index, -1);
    // A row is found by looking for a free one.
    yield upstreams.length;
  }

  const begin = (request: number, upstream: number, now: number) => {
    const { speed } = upstreams[upstream] as ModelUpstream;
    const { workMs, firstMs } = requests[request] as ModelRequest;
    busy[upstream] = (busy[upstream] as number) + 1;
    events.push(now + firstMs / speed, eventKinds.first, upstream, request);
    events.push(now + workMs / speed, eventKinds.end, upstream, request);
  };
  const close = (upstream: number) => {
    open[upstream] = (open[upstream] as number) - 1;
  };
  const arrive = (request: number, now: number) => {
    const upstream = policy.pick(request, now);
    const target = upstreams[upstream];
    if (target === undefined) {
      lost++;
      return;
    }
    picks[upstream] = (picks[upstream] as number) + 1;
    open[upstream] = (open[upstream] as number) + 1;
    peakOpen = Math.max(peakOpen, open[upstream] as number);
    const { fails } = target;
    if (fails !== undefined && now >= fails.fromMs && now < fails.toMs) {
      events.push(now + fails.afterMs, eventKinds.fail, upstream, request);
      return;
    }
    given[upstream] = (given[upstream] as number) + (requests[request] as ModelRequest).workMs;
    if ((busy[upstream] as number) < target.slots) begin(request, upstream, now);
    else lines[upstream]?.push(request);
  };
  const happen = ({ at, kind, upstream, request }: Event) => {
    switch (kind) {
      case eventKinds.join:
        policy.joined(upstream, at);
        return;
      case eventKinds.first:
        firsts.push(at - (requests[request] as ModelRequest).atMs);
        policy.firstByte(request, upstream, at);
        return;
      case eventKinds.fail:
        lost++;
        close(upstream);
        policy.ended(request, upstream, at, false);
        return;
      case eventKinds.end: {
        totals.push(at - (requests[request] as ModelRequest).atMs);
        close(upstream);
        policy.ended(request, upstream, at, true);
        busy[upstream] = (busy[upstream] as number) - 1;
        const next = lines[upstream]?.shift();
        if (next !== undefined) begin(next, upstream, at);
      }
    }
  };

  for (let request = 0; request < requests.length; request++) {
    const { atMs } = requests[request] as ModelRequest;
    for (let event = events.popUntil(atMs); event !== undefined; event = events.popUntil(atMs)) happen(event);
    arrive(request, atMs);
    // A pick looks at every row; itself and what happened before it cost as much as some rows more.
    yield upstreams.length + rowsOfAnEvent;
  }
  const never = Number.POSITIVE_INFINITY;
  for (let event = events.popUntil(never); event !== undefined; event = events.popUntil(never)) {
    happen(event);
    yield rowsOfAnEvent;
  }

  totals.sort((a, b) => a - b);
  firsts.sort((a, b) => a - b);
  const placed = Math.max(
    1,
    picks.reduce((sum, n) => sum + n, 0),
  );
  const shares = Object.fromEntries(upstreams.map((u, i) => [u.id, (picks[i] as number) / placed]));
  const endMs = requests.at(-1)?.atMs ?? 0;
  const loads = Object.fromEntries(
    upstreams.map((u, i) => {
      const couldDo = Math.max(0, endMs - (u.joinsAtMs ?? 0)) * u.slots * u.speed;
      return [u.id, couldDo === 0 ? 0 : (given[i] as number) / couldDo];
    }),
  );
  return {
    policy: policy.name,
    requests: requests.length,
    lost,
    meanMs: totals.length === 0 ? null : totals.reduce((sum, ms) => sum + ms, 0) / totals.length,
    p50Ms: quantile(totals, 0.5),
    p95Ms: quantile(totals, 0.95),
    p99Ms: quantile(totals, 0.99),
    ttfbP95Ms: quantile(firsts, 0.95),
    shares,
    hottestShare: Math.max(0, ...Object.values(shares)),
    loads,
    peakOpen,
  };
}

export type ReplayUpstream = Readonly<{ id: string; weight: number }>;
/** `hottestShare`: greatest part of the picks that one upstream gets, 0 to 1. */
export type Replay = Pick<ModelResult, 'requests' | 'lost' | 'hottestShare' | 'shares' | 'loads'> &
  Readonly<{ meanMs: number; p50Ms: number; p95Ms: number; p99Ms: number }>;

/** Fewer finished requests than this say nothing about a strategy. */
export const leastReplayed = 200;

/**
 * What a strategy would have made of requests that have finished: the same arrivals, and the service times that were
 * observed. An upstream counts as fast as its median service time among them says and serves at once as many as it was
 * seen to; one that was not seen counts as the middle of the others. Null under `leastReplayed` requests. `at` is taken
 * as the time when a request ended.
 */
export function replay(
  requests: readonly FinishedRequest[],
  upstreams: readonly ReplayUpstream[],
  strategy: StrategyName,
): Replay | null {
  const steps = replaySteps(requests, upstreams, strategy);
  for (let step = steps.next(); ; step = steps.next()) if (step.done) return step.value;
}

/** The same in steps, as of `modelSteps`. */
export function* replaySteps(
  requests: readonly FinishedRequest[],
  upstreams: readonly ReplayUpstream[],
  strategy: StrategyName,
): Generator<number, Replay | null> {
  const known = new Set(upstreams.map((upstream) => upstream.id));
  const seen = requests.filter((r) => r.cause === 'complete' && r.instance !== null && known.has(r.instance));
  if (seen.length < leastReplayed || upstreams.length === 0) return null;
  const serviceMs = (r: FinishedRequest) => Math.max(0.01, r.totalMs - r.queueMs);
  const median = (values: number[]) =>
    quantile(
      values.sort((a, b) => a - b),
      0.5,
    ) ?? 1;
  const middle = median(seen.map(serviceMs));
  const speeds = new Map<string, number>();
  const slots = new Map<string, number>();
  const byInstance = Map.groupBy(seen, (r) => r.instance);
  for (const { id } of upstreams) {
    const own = byInstance.get(id) ?? [];
    if (own.length < 5) continue;
    speeds.set(id, middle / median(own.map(serviceMs)));
    slots.set(id, mostAtOnce(own));
  }
  const usualSlots = Math.max(1, Math.round(median([...slots.values()])));
  const model = upstreams.map(({ id, weight }) => ({
    id,
    weight,
    slots: slots.get(id) ?? usualSlots,
    speed: speeds.get(id) ?? 1,
  }));
  const start = Math.min(...seen.map((r) => r.at - r.totalMs));
  const arrivals = seen
    .map((r) => {
      const speed = speeds.get(r.instance ?? '') ?? 1;
      const firstMs = Math.max(0, (r.ttfbMs ?? r.totalMs) - r.queueMs);
      return { atMs: r.at - r.totalMs - start, workMs: serviceMs(r) * speed, firstMs: firstMs * speed };
    })
    .sort((a, b) => a.atMs - b.atMs);
  yield seen.length;
  const result = yield* modelSteps({
    upstreams: model,
    requests: arrivals,
    policy: balancerPolicy(strategy, model, { slowStartMs: 0 }),
  });
  const { requests: count, lost, hottestShare, shares, loads, meanMs, p50Ms, p95Ms, p99Ms } = result;
  if (meanMs === null || p50Ms === null || p95Ms === null || p99Ms === null) return null;
  return { requests: count, lost, hottestShare, shares, loads, meanMs, p50Ms, p95Ms, p99Ms };
}

function mostAtOnce(requests: readonly FinishedRequest[]): number {
  const steps = requests.flatMap((r) => [
    { at: r.at - r.totalMs, step: 1 },
    { at: r.at, step: -1 },
  ]);
  steps.sort((a, b) => a.at - b.at || a.step - b.step);
  let open = 0;
  let most = 1;
  for (const { step } of steps) most = Math.max(most, (open += step));
  return most;
}

/** Of an ascending list. */
function quantile(sorted: readonly number[], p: number): number | null {
  if (sorted.length === 0) return null;
  return sorted[Math.min(sorted.length - 1, Math.floor(p * sorted.length))] as number;
}

/** Events by time; those of one time in the order in which they were made, so that a run is repeatable. */
function createHeap() {
  const heap: Event[] = [];
  let made = 0;
  const before = (a: Event, b: Event) => a.at < b.at || (a.at === b.at && a.order < b.order);
  return {
    push(at: number, kind: EventKind, upstream: number, request: number): void {
      const event: Event = { at, order: made++, kind, upstream, request };
      let i = heap.push(event) - 1;
      while (i > 0) {
        const parent = (i - 1) >> 1;
        if (!before(event, heap[parent] as Event)) break;
        heap[i] = heap[parent] as Event;
        i = parent;
      }
      heap[i] = event;
    },
    /** The earliest one that is not after `until`. */
    popUntil(until: number): Event | undefined {
      const top = heap[0];
      if (top === undefined || top.at > until) return undefined;
      const last = heap.pop() as Event;
      if (heap.length === 0) return top;
      let i = 0;
      for (;;) {
        let child = 2 * i + 1;
        if (child >= heap.length) break;
        if (child + 1 < heap.length && before(heap[child + 1] as Event, heap[child] as Event)) child++;
        if (!before(heap[child] as Event, last)) break;
        heap[i] = heap[child] as Event;
        i = child;
      }
      heap[i] = last;
      return top;
    },
  };
}
