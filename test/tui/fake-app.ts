import type { Ending, Offer, ProviderName, StrategyName } from '../../src/core/domain.ts';
import { endings } from '../../src/core/domain.ts';
import { ttfbBoundsMs } from '../../src/core/load-table.ts';
import type { FinishedRequest } from '../../src/core/report.ts';
import {
  type App,
  AppError,
  type FleetEvent,
  type ReservationView,
  type ReserveRequest,
  type Snapshot,
  type UpstreamView,
} from '../../src/fleet/app.ts';

export type FakeApp = App & {
  /** Moves the clock and the traffic on by a step. */
  tick(ms?: number): void;
  /** Replaces the picture. */
  show(change: (snapshot: Snapshot) => Snapshot): void;
  emit(level: FleetEvent['level'], kind: string, subject: string | null, message: string): void;
  /** Every changing call, by name and arguments. */
  readonly calls: readonly (readonly [string, ...unknown[]])[];
  /** The next call of this method rejects. */
  fail(method: string, error: Error): void;
  readonly now: () => number;
};

export const startOfTime = Date.UTC(2026, 0, 12, 10, 30, 0);

const models: readonly (readonly [string, number, number])[] = [
  ['RTX 4090', 24, 0.34],
  ['H100 SXM', 80, 2.06],
  ['A100 PCIE', 80, 1.21],
  ['RTX 3090', 24, 0.19],
  ['L40S', 48, 0.61],
];

/** A small generator, so that the same seed shows the same fleet. */
export function randomOf(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296;
  };
}

export function histogramAround(ms: number, count: number, random: () => number): number[] {
  const buckets = new Array<number>(ttfbBoundsMs.length + 1).fill(0);
  for (let i = 0; i < count; i += 1) {
    const value = ms * Math.exp((random() + random() + random() - 1.5) * 0.9);
    const found = ttfbBoundsMs.findIndex((bound) => value <= bound);
    const at = found === -1 ? ttfbBoundsMs.length : found;
    buckets[at] = (buckets[at] ?? 0) + 1;
  }
  return buckets;
}

export function fakeUpstream(index: number, now: number, random: () => number): UpstreamView {
  const [gpuModel, vramGb, price] = models[index % models.length] ?? ['RTX 4090', 24, 0.34];
  const provider: ProviderName = index % 3 === 2 ? 'io.net' : 'vast.ai';
  const speed = 60 + random() * 300;
  const active = Math.floor(random() * 40);
  const total = Math.floor(200 + random() * 9000);
  const gpuCount = index % 4 === 3 ? 2 : 1;
  const none = Object.fromEntries(endings.map((name) => [name, 0])) as Record<Ending, number>;
  return {
    id: `${provider === 'io.net' ? 'ionet' : 'vast'}-${(7_000_000 + Math.floor(random() * 999_999)).toString(provider === 'io.net' ? 16 : 10)}`,
    provider,
    contract: String(7_000_000 + index),
    reservation: index < 4 ? 'r-0188' : 'r-0192',
    lifecycle: { phase: 'running', at: now - 3_600_000, origin: `http://10.0.0.${index + 1}:8000` },
    admin: { mode: 'ready' },
    health: { state: 'up' },
    eligible: true,
    state: 'OK',
    reason: '',
    origin: `http://10.0.0.${index + 1}:8000`,
    gpuModel,
    gpuCount,
    vramGb,
    usdPerHour: price * gpuCount,
    location: ['Sweden, SE', 'Texas, US', 'Quebec, CA', 'Iceland, IS'][index % 4] ?? null,
    models: ['qwen3-32b'],
    interruptible: false,
    startedAt: now - 3_600_000 * (1 + index),
    expiresAt: provider === 'io.net' ? now + 4_000_000 : null,
    spentUsd: price * gpuCount * (1 + index),
    weight: vramGb >= 80 ? 3 : vramGb >= 40 ? 2.4 : 1.8,
    weightSource: 'formula',
    configured: false,
    ceiling: 256,
    active,
    total,
    avgMs: speed,
    lastMs: speed * (0.7 + random() * 0.6),
    lastUsedAt: now - Math.floor(random() * 3000),
    rps: 2 + random() * 60,
    errorRate: random() * 0.01,
    share: 0,
    p50Ms: speed * 0.8,
    p95Ms: speed * 2.1,
    p99Ms: speed * 3.6,
    trend: Array.from({ length: 60 }, (_, i) => 10 + 8 * Math.sin(i / 6 + index) + random() * 6),
    endings: { ...none, complete: total - 7, client_gone: 4, client_error: 2, refused: 1 },
    ttfbHistogram: histogramAround(speed, 500, random),
  };
}

/** A fleet in memory that behaves plausibly: traffic changes with every tick, actions change what is shown. */
export function createFakeApp(
  options: { instances?: number; seed?: number; now?: () => number; at?: number } = {},
): FakeApp {
  const random = randomOf(options.seed ?? 7);
  let clock = options.at ?? startOfTime;
  const now = options.now ?? (() => clock);
  const listeners = new Set<() => void>();
  const eventListeners = new Set<(event: FleetEvent) => void>();
  const events: FleetEvent[] = [];
  const calls: (readonly [string, ...unknown[]])[] = [];
  const failures = new Map<string, Error>();
  let nextId = 1;

  let upstreams = Array.from({ length: options.instances ?? 12 }, (_, index) => fakeUpstream(index, now(), random));
  const dress = (index: number, change: Partial<UpstreamView>) => {
    upstreams = upstreams.map((row, at) => (at === index ? { ...row, ...change } : row));
  };
  if (upstreams.length >= 8) {
    dress(2, { state: 'SLOW', reason: 'p95 912 ms is 4.3x the pool', p95Ms: 912, avgMs: 640 });
    dress(4, {
      state: 'DRAIN',
      admin: { mode: 'drain', deadlineAt: now() + 40_000 },
      eligible: false,
      reason: 'draining: 3 in flight, 40 s to the deadline',
      active: 3,
    });
    dress(6, {
      state: 'BOOT',
      lifecycle: { phase: 'booting', at: now() - 130_000, detail: 'pulling image' },
      health: { state: 'unknown' },
      eligible: false,
      reason: 'booting for 2m10s: pulling image',
      origin: null,
      active: 0,
      total: 0,
      avgMs: null,
      lastMs: null,
      p50Ms: null,
      p95Ms: null,
      p99Ms: null,
      lastUsedAt: null,
      rps: 0,
      trend: [],
      ttfbHistogram: [],
    });
    dress(7, {
      state: 'DOWN',
      health: { state: 'ejected', untilAt: now() + 20_000, times: 3, why: 'connect ECONNREFUSED' },
      eligible: false,
      reason: 'ejected: connect ECONNREFUSED; tried again in 20 s',
      active: 0,
      rps: 0,
      errorRate: 1,
    });
  }

  const totals = (rows: readonly UpstreamView[]) => {
    const picks = rows.reduce((sum, row) => sum + row.rps, 0);
    return rows.map((row) => ({ ...row, share: picks > 0 ? row.rps / picks : 0 }));
  };
  upstreams = totals(upstreams);

  const reservations: ReservationView[] =
    upstreams.length < 5
      ? []
      : [
          {
            id: 'r-0188',
            createdAt: now() - 4_000_000,
            by: 'tui',
            requested: 4,
            state: 'active',
            instances: upstreams.slice(0, 4).map((row) => row.id),
            ended: [],
            usdPerHour: 3.8,
            errors: [],
          },
          {
            id: 'r-0192',
            createdAt: now() - 130_000,
            by: 'cli',
            requested: upstreams.length - 4,
            state: 'active',
            instances: upstreams.slice(4).map((row) => row.id),
            ended: [],
            usdPerHour: 5.2,
            errors: [],
          },
        ];

  const provider = (name: ProviderName, available: number) => ({
    name,
    status: 'ok' as const,
    available,
    more: false,
    offers: available,
    minUsdPerHour: name === 'vast.ai' ? 0.19 : 0.31,
    maxUsdPerHour: name === 'vast.ai' ? 4.12 : 3.98,
    cheapest: models.slice(0, name === 'vast.ai' ? 5 : 3).map(([gpuModel, vramGb, price], index) => ({
      gpuModel,
      vramGb,
      usdPerGpuHour: price * (name === 'vast.ai' ? 1 : 1.1),
      available: 3 + index * 5,
    })),
    rented: upstreams.filter((row) => row.provider === name).length,
    usdPerHour: upstreams.filter((row) => row.provider === name).reduce((sum, row) => sum + row.usdPerHour, 0),
    creditUsd: name === 'vast.ai' ? 25.4 : null,
    refreshedAt: now() - 4000,
    latencyMs: 182,
    lastError: null,
    nextRefreshAt: now() + 26_000,
  });

  const trafficOf = (rows: readonly UpstreamView[]) => ({
    rps: rows.reduce((sum, row) => sum + row.rps, 0),
    inFlight: rows.reduce((sum, row) => sum + row.active, 0),
    queued: 3,
    errorRate: 0.0012,
    p50Ms: 41,
    p95Ms: 212,
    p99Ms: 480,
    requests: rows.reduce((sum, row) => sum + row.total, 0),
    retries: 12,
    trend: Array.from({ length: 60 }, (_, i) => 500 + 120 * Math.sin(i / 7) + random() * 60),
    ttfbHistogram: histogramAround(140, 800, random),
  });
  const pool = trafficOf(upstreams);

  let snapshot: Snapshot = {
    version: 1,
    at: now(),
    startedAt: now() - 3 * 86_400_000,
    mode: {
      simulated: true,
      banner: 'SIMULATED FLEET: no money is spent',
      balancing: true,
      proxyUrl: 'http://127.0.0.1:8081',
      apiUrl: 'http://127.0.0.1:8080',
    },
    strategy: { name: 'round_robin', source: 'default', since: now() - 13_000 },
    upstreams,
    providers: [provider('vast.ai', 42), provider('io.net', 28)],
    reservations,
    foreign: [],
    traffic: pool,
    cost: {
      usdPerHour: upstreams.reduce((sum, row) => sum + row.usdPerHour, 0),
      spentUsd: 416.2,
      spentTodayUsd: 216,
      maxUsdPerHour: 40,
    },
  };

  const put = (next: Snapshot) => {
    snapshot = { ...next, version: snapshot.version + 1, at: now() };
    for (const listener of listeners) listener();
  };
  const emit: FakeApp['emit'] = (level, kind, subject, message) => {
    const event: FleetEvent = { id: nextId++, at: now(), level, kind, subject, message };
    events.push(event);
    for (const listener of eventListeners) listener(event);
  };
  const called = async (name: string, ...args: unknown[]) => {
    calls.push([name, ...args]);
    const error = failures.get(name);
    if (error) {
      failures.delete(name);
      throw error;
    }
  };
  const change = (id: string, to: Partial<UpstreamView>): UpstreamView => {
    const row = snapshot.upstreams.find((one) => one.id === id);
    if (!row) throw new AppError('not_found', `no instance ${id}`);
    const changed = { ...row, ...to };
    put({ ...snapshot, upstreams: snapshot.upstreams.map((one) => (one.id === id ? changed : one)) });
    return changed;
  };

  const offers: Offer[] = Array.from({ length: 30 }, (_, index) => {
    const [gpuModel, vramGb, price] = models[index % models.length] ?? ['RTX 4090', 24, 0.34];
    return {
      provider: index % 3 === 2 ? ('io.net' as const) : ('vast.ai' as const),
      id: String(6_600_000 + index * 37),
      gpuModel,
      gpuCount: 1,
      vramGb,
      usdPerHour: price * (1 + index * 0.01),
      location: index % 2 === 0 ? 'Sweden, SE' : 'Texas, US',
      countryCode: index % 2 === 0 ? 'SE' : 'US',
      reliability: 0.99,
      verified: index % 7 !== 0,
      available: 1 + (index % 5),
      minBidUsdPerHour: null,
      prepaidHours: null,
      diskGb: 100,
      storage: null,
      machineId: `m${index}`,
    };
  }).sort((a, b) => a.usdPerHour - b.usdPerHour);

  const planFor = (request: ReserveRequest) => {
    const wanted = request.filter.gpuModel?.toLowerCase() ?? '';
    const matching = offers.filter(
      (offer) =>
        offer.gpuModel.toLowerCase().includes(wanted) &&
        (request.filter.provider === undefined || offer.provider === request.filter.provider) &&
        offer.usdPerHour <= (request.filter.maxUsdPerHour ?? Number.POSITIVE_INFINITY) &&
        offer.vramGb >= (request.filter.minVramGb ?? 0),
    );
    const chosen = matching.slice(0, request.count);
    return {
      offers: chosen,
      count: chosen.length,
      requested: request.count,
      usdPerHour: chosen.reduce((sum, offer) => sum + offer.usdPerHour, 0),
      prepaidUsd: 0,
      errors: chosen.length < request.count ? [`only ${chosen.length} offers match`] : [],
    };
  };

  const requestsOf = (count: number): FinishedRequest[] =>
    Array.from({ length: count }, (_, index) => ({
      at: now() - index * 50,
      id: `req_${(0x8fa1 - index).toString(16)}`,
      method: 'POST',
      path: '/v1/chat/completions',
      status: index % 17 === 5 ? 503 : 200,
      cause: index % 17 === 5 ? 'server_error' : 'complete',
      instance: snapshot.upstreams[index % Math.max(1, snapshot.upstreams.length)]?.id ?? null,
      attempts: index % 17 === 5 ? 2 : 1,
      queueMs: 0,
      ttfbMs: 120 + index,
      totalMs: 1600 - index * 3,
      bytesOut: 4000,
      model: 'qwen3-32b',
    }));

  emit('info', 'system', null, 'simulated fleet with seed 7 is up');
  if (upstreams.length >= 8) {
    emit('ok', 'recovered', upstreams[0]?.id ?? null, 'joined rotation after 3 m 41 s');
    emit('warn', 'provider', 'io.net', 'API 429, next poll in 20 s; offers are 35 s old');
    emit(
      'error',
      'ejected',
      upstreams[7]?.id ?? null,
      'health check failed 3/3: connect ECONNREFUSED; out of rotation',
    );
    emit('warn', 'rental', upstreams[2]?.id ?? null, "p95 912 ms is 4.3x the pool's 212 ms");
  }

  return {
    calls,
    now,
    emit,
    fail: (method, error) => void failures.set(method, error),
    show: (make) => put(make(snapshot)),
    tick(ms = 250) {
      clock += ms;
      const rows = totals(
        snapshot.upstreams.map((row) => {
          if (!row.eligible) return row;
          const active = Math.max(0, row.active + Math.round((random() - 0.5) * 6));
          const rps = Math.max(0.1, row.rps * (0.95 + random() * 0.1));
          return {
            ...row,
            active,
            rps,
            total: row.total + Math.round((rps * ms) / 1000),
            avgMs: (row.avgMs ?? 100) * (0.98 + random() * 0.04),
            lastMs: (row.avgMs ?? 100) * (0.6 + random() * 0.8),
            lastUsedAt: now(),
            trend: [...row.trend.slice(1), rps],
          };
        }),
      );
      const traffic = { ...pool, rps: rows.reduce((sum, row) => sum + row.rps, 0) };
      put({
        ...snapshot,
        upstreams: rows,
        traffic: { ...traffic, inFlight: rows.reduce((sum, row) => sum + row.active, 0) },
      });
    },
    state: {
      get: () => snapshot,
      subscribe(listener) {
        listeners.add(listener);
        return () => listeners.delete(listener);
      },
    },
    events: {
      recent: (afterId = 0) => events.filter((event) => event.id > afterId),
      subscribe(listener) {
        eventListeners.add(listener);
        return () => eventListeners.delete(listener);
      },
    },
    async setStrategy(name: StrategyName, by) {
      await called('setStrategy', name, by);
      const previous = snapshot.strategy.name;
      put({ ...snapshot, strategy: { name, source: 'saved', since: now() } });
      emit('ok', 'strategy', null, `${previous} -> ${name} by ${by}`);
      return { strategy: name, previous };
    },
    async offers(filter) {
      await called('offers', filter);
      return {
        offers: offers.filter((offer) => filter.provider === undefined || offer.provider === filter.provider),
        errors: [],
        more: [],
      };
    },
    async plan(request) {
      await called('plan', request);
      return planFor(request);
    },
    async reserve(request, reserveOptions) {
      await called('reserve', request, reserveOptions?.idempotencyKey);
      const plan = planFor(request);
      if (plan.count === 0) throw new AppError('no_offers', 'no offers match');
      const rows = plan.offers.map(
        (offer, index): UpstreamView => ({
          ...fakeUpstream(index + 100, now(), random),
          id: `${offer.provider === 'io.net' ? 'ionet' : 'vast'}-${offer.id}`,
          provider: offer.provider,
          gpuModel: offer.gpuModel,
          usdPerHour: offer.usdPerHour,
          reservation: 'r-0200',
          state: 'BOOT',
          eligible: false,
          reason: 'booting',
          lifecycle: { phase: 'booting', at: now(), detail: 'pulling image' },
          health: { state: 'unknown' },
          origin: null,
        }),
      );
      put({
        ...snapshot,
        upstreams: [...snapshot.upstreams, ...rows],
        reservations: [
          ...snapshot.reservations,
          {
            id: 'r-0200',
            createdAt: now(),
            by: 'tui',
            requested: request.count,
            state: 'active',
            instances: rows.map((row) => row.id),
            ended: [],
            usdPerHour: plan.usdPerHour,
            errors: plan.errors,
          },
        ],
      });
      return {
        reservation: 'r-0200',
        reserved: rows.map((row) => ({
          instanceId: row.id,
          contractId: row.contract ?? '',
          provider: row.provider,
          gpuModel: row.gpuModel,
          gpuCount: row.gpuCount,
          vramGb: row.vramGb,
          usdPerHour: row.usdPerHour,
        })),
        count: rows.length,
        requested: request.count,
        errors: plan.errors,
      };
    },
    async batch() {
      await called('batch');
      return { reservation: null, vast: [], ionet: [], errors: [] };
    },
    async rentOffer(name, offerId) {
      await called('rentOffer', name, offerId);
      return {
        instanceId: `vast-${offerId}`,
        contractId: offerId,
        provider: name,
        gpuModel: 'RTX 4090',
        gpuCount: 1,
        vramGb: 24,
        usdPerHour: 0.34,
      };
    },
    async planBatch(request) {
      await called('planBatch', request);
      return planFor({ count: request.vast + request.ionet, filter: request.filter, config: request.config });
    },
    async reservationOf(key) {
      await called('reservationOf', key);
      return snapshot.reservations.find((item) => item.id === 'r-0200') ?? null;
    },
    async cancel(key, cancelOptions) {
      await called('cancel', key, cancelOptions?.keep ?? false);
      return { reservation: null, kept: [], released: [], pending: [] };
    },
    async releaseReservation(id, releaseOptions) {
      await called('releaseReservation', id, releaseOptions);
      const item = snapshot.reservations.find((one) => one.id === id);
      return { released: item?.instances ?? [], failed: [] };
    },
    async destroy(id, destroyOptions) {
      await called('destroy', id, destroyOptions);
      if (!snapshot.upstreams.some((row) => row.id === id)) throw new AppError('not_found', `no instance ${id}`);
      put({ ...snapshot, upstreams: snapshot.upstreams.filter((row) => row.id !== id) });
      emit('ok', 'destroy', id, 'destroyed by tui');
      return { id, status: 'destroyed' };
    },
    async drain(id) {
      await called('drain', id);
      return change(id, {
        state: 'DRAIN',
        eligible: false,
        admin: { mode: 'drain', deadlineAt: null },
        reason: 'draining',
      });
    },
    async resume(id) {
      await called('resume', id);
      return change(id, { state: 'OK', eligible: true, admin: { mode: 'ready' }, reason: '' });
    },
    async setWeight(id, weight) {
      await called('setWeight', id, weight);
      return change(id, { weight: weight ?? 1.8, weightSource: weight === null ? 'formula' : 'operator' });
    },
    async extend(id, hours) {
      await called('extend', id, hours);
      return change(id, {});
    },
    async logs(id) {
      await called('logs', id);
      return ['INFO:     Started server process', 'INFO:     Uvicorn running on http://0.0.0.0:8000'];
    },
    async adopt() {
      throw new AppError('unsupported', 'not here');
    },
    async addUpstream() {
      throw new AppError('unsupported', 'not here');
    },
    async removeUpstream() {
      throw new AppError('unsupported', 'not here');
    },
    async decisions(query) {
      const rows = snapshot.upstreams.slice(0, 4);
      return Array.from({ length: 12 }, (_, index) => ({
        at: now() - index * 300,
        strategy: snapshot.strategy.name,
        winner: rows[index % Math.max(1, rows.length)]?.id ?? null,
        candidates: [
          { id: query?.instance ?? '', excluded: index % 4 === 3 ? 'at its ceiling' : null, score: index },
          ...rows.map((row) => ({ id: row.id, excluded: null, score: index + 1 })),
        ],
        ending: 'complete' as const,
        ttfbMs: 120,
        totalMs: 900,
      }));
    },
    async requests(query) {
      return requestsOf(query?.limit ?? 50).filter(
        (request) => query?.instance === undefined || request.instance === query.instance,
      );
    },
    async refresh() {
      await called('refresh');
    },
  };
}
