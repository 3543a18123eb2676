import { createHash, randomBytes } from 'node:crypto';
import { endings, type Offer, type OfferFilter } from '../../src/core/domain.ts';
import { LoadTable } from '../../src/core/load-table.ts';
import type { DataPlaneReport } from '../../src/core/report.ts';
import {
  type App,
  AppError,
  type FleetEvent,
  type Keys,
  type KeyView,
  type LocalApp,
  type ProviderView,
  type ReservationView,
  type Snapshot,
  type UpstreamView,
} from '../../src/fleet/app.ts';

const at = Date.UTC(2024, 0, 12, 10, 30);

export function upstreamView(change: Partial<UpstreamView> = {}): UpstreamView {
  return {
    id: 'vast-12345',
    provider: 'vast.ai',
    contract: '54321',
    reservation: 'res-1',
    lifecycle: { phase: 'running', at, origin: 'http://127.0.0.1:9' },
    admin: { mode: 'ready' },
    health: { state: 'up' },
    eligible: true,
    state: 'OK',
    reason: '',
    origin: 'http://127.0.0.1:9',
    gpuModel: 'RTX 4090',
    gpuCount: 1,
    vramGb: 24,
    usdPerHour: 0.79,
    location: 'Sweden, SE',
    models: ['llama'],
    interruptible: false,
    startedAt: at,
    expiresAt: null,
    spentUsd: 1.25,
    weight: 1.5,
    weightSource: 'formula',
    configured: false,
    ceiling: 256,
    active: 3,
    total: 150,
    avgMs: 250.2,
    lastMs: 245,
    lastUsedAt: at,
    rps: 2,
    errorRate: 0,
    share: 0.5,
    p50Ms: 240,
    p95Ms: 300,
    p99Ms: 310,
    trend: [1, 2, 3],
    endings: Object.fromEntries(endings.map((ending) => [ending, 0])) as UpstreamView['endings'],
    ttfbHistogram: [],
    ...change,
  };
}

export function providerView(change: Partial<ProviderView> = {}): ProviderView {
  return {
    name: 'vast.ai',
    status: 'ok',
    available: 42,
    more: false,
    offers: 42,
    minUsdPerHour: 0.2,
    maxUsdPerHour: 3,
    cheapest: [{ gpuModel: 'RTX 4090', vramGb: 24, usdPerGpuHour: 0.35, available: 4 }],
    rented: 1,
    usdPerHour: 0.79,
    creditUsd: 25,
    refreshedAt: at,
    latencyMs: 120,
    lastError: null,
    nextRefreshAt: at + 30_000,
    ...change,
  };
}

export function offerOf(change: Partial<Offer> = {}): Offer {
  return {
    provider: 'vast.ai',
    id: '777',
    gpuModel: 'RTX 4090',
    gpuCount: 1,
    vramGb: 24,
    usdPerHour: 0.4,
    location: 'Sweden, SE',
    countryCode: 'SE',
    reliability: 0.99,
    verified: true,
    available: 1,
    minBidUsdPerHour: 0.2,
    prepaidHours: null,
    diskGb: 100,
    storage: null,
    machineId: 'm1',
    ...change,
  };
}

export function snapshotOf(change: Partial<Snapshot> = {}): Snapshot {
  return {
    version: 1,
    at,
    startedAt: at,
    mode: { simulated: true, banner: 'SIMULATED', balancing: true, proxyUrl: null, apiUrl: null },
    strategy: { name: 'round_robin', source: 'default', since: at },
    upstreams: [],
    providers: [],
    reservations: [],
    foreign: [],
    traffic: {
      rps: 0,
      inFlight: 0,
      queued: 0,
      errorRate: 0,
      p50Ms: null,
      p95Ms: null,
      p99Ms: null,
      requests: 0,
      retries: 0,
      trend: [],
      ttfbHistogram: [],
    },
    cost: { usdPerHour: 0, spentUsd: 0, spentTodayUsd: 0, maxUsdPerHour: null },
    ...change,
  };
}

/** Keys in memory. */
export function memoryKeys(now: () => number = Date.now): Keys {
  const rows = new Map<string, KeyView>();
  const hash = (key: string) => createHash('sha256').update(key).digest('hex');
  const byHash = new Map<string, string>();
  const listeners = new Set<() => void>();
  const put = (key: string, view: KeyView) => {
    rows.set(view.id, view);
    byHash.set(hash(key), view.id);
    return view;
  };
  const viewOf = (input: Parameters<Keys['create']>[0]): KeyView => ({
    id: `key-${rows.size + 1}`,
    name: input.name,
    scope: input.scope,
    createdAt: now(),
    lastUsedAt: null,
    expiresAt: input.expiresAt ?? null,
    revokedAt: null,
    requestsPerMinute: input.requestsPerMinute ?? null,
    maxConcurrent: input.maxConcurrent ?? null,
  });
  return {
    create(input) {
      const key = `gp_${randomBytes(18).toString('base64url')}`;
      return { key, view: put(key, viewOf(input)) };
    },
    ensure: (key, input) => rows.get(byHash.get(hash(key)) ?? '') ?? put(key, viewOf(input)),
    list: () => [...rows.values()],
    revoke(id) {
      const view = rows.get(id);
      if (!view) return false;
      rows.set(id, { ...view, revokedAt: now() });
      for (const listener of listeners) listener();
      return true;
    },
    verify(key) {
      const view = rows.get(byHash.get(hash(key)) ?? '');
      if (!view || view.revokedAt !== null || (view.expiresAt !== null && view.expiresAt <= now())) return null;
      return view;
    },
    proxyHashes: () => [],
    proxyTerms: () => [],
    onChange(listener) {
      listeners.add(listener);
      return () => void listeners.delete(listener);
    },
  };
}

export type FakeApp = LocalApp & {
  change(change: Partial<Snapshot>): void;
  emit(event: Partial<FleetEvent>): FleetEvent;
  /** Calls that change something, in order. */
  readonly calls: [name: string, ...args: unknown[]][];
  /** Replaces methods. */
  on(methods: Partial<Omit<App, 'state' | 'events'>>): void;
};

/**
 * An application without providers, ledger or data plane, for tests of the wire alone. It answers plausibly, remembers
 * what it was asked, and any method can be replaced.
 */
export function createFakeApp(start: Partial<Snapshot> = {}): FakeApp {
  let snapshot = snapshotOf(start);
  const stateListeners = new Set<() => void>();
  const eventListeners = new Set<(event: FleetEvent) => void>();
  let kept: FleetEvent[] = [];
  let eventId = 0;
  let reports: DataPlaneReport[] = [];
  const calls: [string, ...unknown[]][] = [];
  const change = (part: Partial<Snapshot>) => {
    snapshot = { ...snapshot, ...part, version: snapshot.version + 1 };
    for (const listener of stateListeners) listener();
  };
  const find = (id: string) => {
    const view = snapshot.upstreams.find((upstream) => upstream.id === id);
    if (!view) throw new AppError('not_found', `There is no upstream ${id}.`);
    return view;
  };
  const replace = (id: string, part: Partial<UpstreamView>) => {
    const view = { ...find(id), ...part };
    change({ upstreams: snapshot.upstreams.map((upstream) => (upstream.id === id ? view : upstream)) });
    return view;
  };
  const item = (index: number) => ({
    instanceId: `vast-${index}`,
    contractId: String(index),
    provider: 'vast.ai' as const,
    gpuModel: 'RTX 4090',
    gpuCount: 1,
    vramGb: 24,
    usdPerHour: 0.1 + 0.2,
  });

  const fake: FakeApp = {
    state: {
      get: () => snapshot,
      subscribe(listener) {
        stateListeners.add(listener);
        return () => stateListeners.delete(listener);
      },
    },
    events: {
      recent: (afterId = 0) => kept.filter((event) => event.id > afterId),
      subscribe(listener) {
        eventListeners.add(listener);
        return () => eventListeners.delete(listener);
      },
    },
    async setStrategy(name, by) {
      calls.push(['setStrategy', name, by]);
      const previous = snapshot.strategy.name;
      change({ strategy: { ...snapshot.strategy, name } });
      return { strategy: name, previous };
    },
    async offers(filter: OfferFilter) {
      calls.push(['offers', filter]);
      return { offers: [offerOf()], errors: [], more: [] };
    },
    async plan(request) {
      return {
        offers: [offerOf()],
        count: 1,
        requested: request.count,
        usdPerHour: 0.4,
        prepaidUsd: 0,
        errors: [],
      };
    },
    async reserve(request, options) {
      calls.push(['reserve', request, options]);
      return {
        reservation: 'res-1',
        reserved: Array.from({ length: request.count }, (_, index) => item(index + 1)),
        count: request.count,
        requested: request.count,
        errors: [],
      };
    },
    async batch(request, options) {
      calls.push(['batch', request, options]);
      return {
        reservation: 'res-2',
        vast: Array.from({ length: request.vast }, (_, index) => `${index + 1}`),
        ionet: Array.from({ length: request.ionet }, (_, index) => `io-${index + 1}`),
        errors: [],
      };
    },
    async planBatch(request) {
      const count = request.vast + request.ionet;
      return { offers: [offerOf()], count: 1, requested: count, usdPerHour: 0.4, prepaidUsd: 0, errors: [] };
    },
    async rentOffer(provider, offerId, config, options) {
      calls.push(['rentOffer', provider, offerId, config, options]);
      return item(9);
    },
    reservationOf: async () => snapshot.reservations[0] ?? null,
    async cancel(key, options) {
      calls.push(['cancel', key, options]);
      return { reservation: 'res-1', kept: [], released: ['vast-1'], pending: [] };
    },
    async releaseReservation(id, options) {
      calls.push(['releaseReservation', id, options]);
      const found = snapshot.reservations.find((reservation: ReservationView) => reservation.id === id);
      if (!found) throw new AppError('not_found', `There is no reservation ${id}.`);
      return { released: found.instances, failed: [] };
    },
    async destroy(id, options) {
      calls.push(['destroy', id, options]);
      find(id);
      return { id, status: 'destroying' };
    },
    async drain(id, options) {
      calls.push(['drain', id, options]);
      return replace(id, { admin: { mode: 'drain', deadlineAt: at + (options?.deadlineMs ?? 0) }, state: 'DRAIN' });
    },
    resume: async (id) => replace(id, { admin: { mode: 'ready' } }),
    setWeight: async (id, weight) =>
      replace(id, { weight: weight ?? 1.5, weightSource: weight === null ? 'formula' : 'operator' }),
    async extend(id, hours) {
      calls.push(['extend', id, hours]);
      return find(id);
    },
    async logs(id) {
      find(id);
      return ['one', 'two'];
    },
    async adopt(provider, contract) {
      calls.push(['adopt', provider, contract]);
      return upstreamView({ id: `vast-${contract}`, provider, contract });
    },
    async addUpstream(input) {
      calls.push(['addUpstream', input]);
      return upstreamView({ id: `static-${input.name ?? 'x'}`, provider: 'static', contract: null, origin: input.url });
    },
    async removeUpstream(id, options) {
      calls.push(['removeUpstream', id, options]);
      find(id);
    },
    decisions: async () => [
      {
        at,
        strategy: 'round_robin',
        winner: 'vast-12345',
        candidates: [
          { id: 'vast-12345', excluded: null, score: 3 },
          { id: 'vast-2', excluded: 'draining', score: null },
        ],
        ending: 'complete',
        ttfbMs: 12.5,
        totalMs: 20,
      },
    ],
    requests: async () => [
      {
        at,
        id: 'r1',
        method: 'POST',
        path: '/v1/chat/completions',
        status: 200,
        cause: 'complete',
        instance: 'vast-12345',
        attempts: 1,
        queueMs: 0,
        ttfbMs: 12.5,
        totalMs: 20,
        bytesOut: 512,
        model: 'llama',
      },
    ],
    async refresh() {
      calls.push(['refresh']);
    },
    dataPlane: {
      table: LoadTable.create(16),
      directory: () => [],
      onDirectory: () => () => {},
      report(report) {
        reports = [...reports.filter((other) => other.thread !== report.thread), report];
      },
      reports: () => reports,
    },
    keys: memoryKeys(),
    async [Symbol.asyncDispose]() {},
    change,
    emit(part) {
      const event: FleetEvent = {
        id: ++eventId,
        at,
        level: 'info',
        kind: 'system',
        subject: null,
        message: `event ${eventId}`,
        ...part,
      };
      kept = [...kept, event].slice(-100);
      for (const listener of eventListeners) listener(event);
      return event;
    },
    stopRenting: async () => {},
    announce(urls) {
      change({ mode: { ...snapshot.mode, ...urls } });
    },
    calls,
    on(methods) {
      Object.assign(fake, methods);
    },
  };
  return fake;
}
