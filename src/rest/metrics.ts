import {
  Counter,
  collectDefaultMetrics,
  Gauge,
  Histogram,
  type MetricObjectWithValues,
  type MetricType,
  Registry,
} from 'prom-client';
import { endings, strategyNames } from '../core/domain.ts';
import { ttfbBoundsMs } from '../core/load-table.ts';
import type { DataPlaneReport } from '../core/report.ts';
import type { LocalApp, Snapshot, UpstreamView } from '../fleet/app.ts';

/** What /metrics tells. Everything but the control plane's own counts is read from the application at each scrape. */
export interface Metrics {
  readonly contentType: string;
  text(): Promise<string>;
  /** One answer of the control plane. `seconds` is null for streams, whose length says nothing. */
  observe(operation: string, status: number, seconds: number | null): void;
  close(): void;
}

type Labels = Record<string, string>;
type Row = readonly [labels: Labels, value: number];

/** Every third bound of the load table's buckets: each series of each upstream costs Prometheus memory. */
const boundIndexes = ttfbBoundsMs.map((_, index) => index).filter((index) => index % 3 === 2);

/** Of the process, not of one server: the monitors behind it cannot be stopped, so they are started once. */
let processRegistry: Registry | null = null;
function sharedProcessRegistry(): Registry {
  if (processRegistry === null) {
    processRegistry = new Registry();
    collectDefaultMetrics({ register: processRegistry });
    // What runs here in which version is nobody's business; the others are gauges with the name of a counter.
    for (const name of ['version_info', 'active_handles_total', 'active_requests_total', 'active_resources_total']) {
      processRegistry.removeSingleMetric(`nodejs_${name}`);
    }
  }
  return processRegistry;
}

export function createMetrics(app: LocalApp, openStreams: () => number): Metrics {
  const registry = new Registry();
  const registers = [registry];

  const gauge = (name: string, help: string, labelNames: string[], read: () => Iterable<Row>) => {
    new Gauge({
      name,
      help,
      labelNames,
      registers,
      collect() {
        this.reset();
        for (const [labels, value] of read()) this.set(labels, value);
      },
    });
  };
  const counter = (name: string, help: string, labelNames: string[], read: () => Iterable<Row>) => {
    new Counter({
      name,
      help,
      labelNames,
      registers,
      collect() {
        this.reset();
        for (const [labels, value] of read()) this.inc(labels, value);
      },
    });
  };
  const state = (): Snapshot => app.state.get();
  const live = () => state().upstreams.filter((view) => view.lifecycle.phase !== 'ended');
  const perUpstream = (value: (view: UpstreamView) => number | null) => () =>
    live().flatMap((view): Row[] => {
      const number = value(view);
      return number === null ? [] : [[{ upstream: view.id, provider: view.provider }, number]];
    });
  const reports = (): readonly DataPlaneReport[] => app.dataPlane.reports?.() ?? [];
  /** Without the threads' own counts there is no series: a zero would be a claim. */
  const reported = (rows: () => Row[]) => () => (reports().length === 0 ? [] : rows());
  const summed = (value: (report: DataPlaneReport) => number) => reports().reduce((sum, r) => sum + value(r), 0);
  // Not `instance`: that label is the scraped server's own, and Prometheus would rename ours.
  const upstreamLabels = ['upstream', 'provider'];

  // --- the pool ---
  counter('gpuproxy_requests_total', 'Requests that reached the data plane', [], () => [
    [{}, state().traffic.requests],
  ]);
  counter(
    'gpuproxy_responses_total',
    'Answers to clients by status class; none: no answer',
    ['code'],
    reported(() =>
      ['none', '1xx', '2xx', '3xx', '4xx', '5xx'].map((code, index) => [
        { code },
        summed((report) => report.counters.statusClasses[index] ?? 0),
      ]),
    ),
  );
  counter(
    'gpuproxy_request_causes_total',
    'How requests ended, by cause word',
    ['cause'],
    reported(() => {
      const causes = new Map<string, number>(endings.map((ending) => [ending, 0]));
      for (const report of reports()) {
        for (const [cause, count] of Object.entries(report.counters.causes)) {
          causes.set(cause, (causes.get(cause) ?? 0) + count);
        }
      }
      return [...causes].map(([cause, count]) => [{ cause }, count]);
    }),
  );
  counter(
    'gpuproxy_bytes_total',
    'Body bytes from and to clients',
    ['direction'],
    reported(() => [
      [{ direction: 'in' }, summed((report) => report.counters.bytesIn)],
      [{ direction: 'out' }, summed((report) => report.counters.bytesOut)],
    ]),
  );
  counter(
    'gpuproxy_upgrades_total',
    'Tunnelled upgrades (WebSocket)',
    [],
    reported(() => [[{}, summed((report) => report.counters.upgrades)]]),
  );
  counter(
    'gpuproxy_tokens_total',
    'Tokens that answers told in their usage',
    ['kind'],
    reported(() => [
      [{ kind: 'prompt' }, summed((report) => report.counters.promptTokens ?? 0)],
      [{ kind: 'completion' }, summed((report) => report.counters.completionTokens ?? 0)],
    ]),
  );
  counter('gpuproxy_spans_total', 'OpenTelemetry spans that were sent, or given up', ['result'], () =>
    reports().every((report) => report.counters.spansExported === undefined)
      ? []
      : [
          [{ result: 'exported' }, summed((report) => report.counters.spansExported ?? 0)],
          [{ result: 'dropped' }, summed((report) => report.counters.spansDropped ?? 0)],
        ],
  );
  counter('gpuproxy_retries_total', 'Further attempts on other upstreams', [], () => [[{}, state().traffic.retries]]);
  counter('gpuproxy_picks_total', 'Picks by the strategy that made them', ['strategy'], () => {
    const { picksByStrategy } = app.dataPlane.table.totals();
    return strategyNames.map((strategy) => [{ strategy }, picksByStrategy[strategy]]);
  });
  gauge('gpuproxy_in_flight_requests', 'Open attempts at upstreams', [], () => [[{}, state().traffic.inFlight]]);
  gauge('gpuproxy_queued_requests', 'Requests that wait because every upstream is full', [], () => [
    [{}, state().traffic.queued],
  ]);
  gauge('gpuproxy_strategy_info', '1 for the strategy in use', ['strategy'], () =>
    strategyNames.map((strategy) => [{ strategy }, strategy === state().strategy.name ? 1 : 0]),
  );
  gauge('gpuproxy_eligible_upstreams', 'Upstreams that may get a request now', [], () => [
    [{}, state().upstreams.filter((view) => view.eligible).length],
  ]);
  registry.registerMetric(
    new TableHistogram('gpuproxy_ttfb_seconds', 'From dispatch to the first byte, all upstreams', [], () => {
      const { ttfbHistogram, ttfbSumMs } = app.dataPlane.table.totals();
      return [{ labels: {}, counts: ttfbHistogram, sumMs: ttfbSumMs }];
    }),
  );
  registry.registerMetric(
    new TableHistogram(
      'gpuproxy_request_duration_seconds',
      'From arrival to end, requests an upstream was asked for',
      [],
      () => {
        if (reports().every(({ counters }) => counters.durationHistogram === undefined)) return [];
        const counts = ttfbBoundsMs.map(() => 0).concat(0);
        for (const { counters } of reports()) {
          for (const [bucket, count] of (counters.durationHistogram ?? []).entries()) counts[bucket]! += count;
        }
        return [{ labels: {}, counts, sumMs: summed((report) => report.counters.durationSumMs ?? 0) }];
      },
    ),
  );
  gauge(
    'gpuproxy_thread_eventloop_lag_seconds',
    'How late the timers of a data-plane thread ran at worst, of late',
    ['thread'],
    () =>
      reports().flatMap(({ thread, loopLagMs }): Row[] =>
        loopLagMs === undefined ? [] : [[{ thread: String(thread) }, loopLagMs / 1000]],
      ),
  );

  // --- each upstream ---
  counter(
    'gpuproxy_upstream_requests_total',
    'Requests by the upstream that was asked last, status code (499: the client left) and cause word',
    [...upstreamLabels, 'code', 'cause'],
    () => {
      const providers = new Map(live().map((view) => [view.id, view.provider]));
      return reports().flatMap((report) =>
        (report.counters.outcomes ?? []).flatMap(({ instance, status, cause, count }): Row[] => {
          const provider = providers.get(instance);
          return provider === undefined ? [] : [[{ upstream: instance, provider, code: String(status), cause }, count]];
        }),
      );
    },
  );
  counter(
    'gpuproxy_upstream_attempts_total',
    'Attempts by upstream',
    upstreamLabels,
    perUpstream((view) => view.total),
  );
  counter('gpuproxy_upstream_endings_total', 'How attempts ended, by upstream', [...upstreamLabels, 'ending'], () =>
    live().flatMap((view) =>
      endings.map((ending): Row => [{ upstream: view.id, provider: view.provider, ending }, view.endings[ending]]),
    ),
  );
  gauge(
    'gpuproxy_upstream_in_flight',
    'Open attempts',
    upstreamLabels,
    perUpstream((view) => view.active),
  );
  gauge(
    'gpuproxy_upstream_max_in_flight',
    'Ceiling; 0: none',
    upstreamLabels,
    perUpstream((view) => view.ceiling),
  );
  gauge(
    'gpuproxy_upstream_eligible',
    '1 when it may get a request now',
    upstreamLabels,
    perUpstream((view) => (view.eligible ? 1 : 0)),
  );
  gauge('gpuproxy_upstream_state', '1, with its state as a label', [...upstreamLabels, 'state'], () =>
    live().map((view) => [{ upstream: view.id, provider: view.provider, state: view.state }, 1]),
  );
  gauge(
    'gpuproxy_upstream_weight',
    'Weight',
    upstreamLabels,
    perUpstream((view) => view.weight),
  );
  gauge(
    'gpuproxy_upstream_response_time_seconds',
    'Time-decayed mean of the time to the first byte, as the strategies see it',
    upstreamLabels,
    perUpstream((view) => (view.avgMs === null ? null : view.avgMs / 1000)),
  );
  gauge(
    'gpuproxy_upstream_usd_per_hour',
    'Price',
    upstreamLabels,
    perUpstream((view) => view.usdPerHour),
  );
  counter(
    'gpuproxy_upstream_spent_usd_total',
    'Spent on it',
    upstreamLabels,
    perUpstream((view) => view.spentUsd),
  );
  gauge(
    'gpuproxy_upstream_expires_timestamp_seconds',
    'When its prepaid time ends',
    upstreamLabels,
    perUpstream((view) => (view.expiresAt === null ? null : view.expiresAt / 1000)),
  );
  registry.registerMetric(
    new TableHistogram('gpuproxy_upstream_ttfb_seconds', 'From dispatch to the first byte', upstreamLabels, () =>
      app.dataPlane.directory().flatMap((entry) => {
        const row = app.dataPlane.table.read(entry);
        if (row === null) return [];
        const labels = { upstream: entry.id, provider: entry.provider };
        return [{ labels, counts: row.ttfbHistogram, sumMs: row.ttfbSumMs }];
      }),
    ),
  );

  // --- providers, money ---
  const perProvider = (value: (view: Snapshot['providers'][number]) => number | null) => () =>
    state().providers.flatMap((view): Row[] => {
      const number = value(view);
      return number === null ? [] : [[{ provider: view.name }, number]];
    });
  const ofProvider = ['provider'];
  gauge(
    'gpuproxy_provider_up',
    '1 when its last refresh worked',
    ofProvider,
    perProvider((p) => (p.status === 'ok' ? 1 : 0)),
  );
  gauge(
    'gpuproxy_provider_available_instances',
    'Rentable now',
    ofProvider,
    perProvider((p) => p.available),
  );
  gauge(
    'gpuproxy_provider_offers',
    'Offers now',
    ofProvider,
    perProvider((p) => p.offers),
  );
  gauge(
    'gpuproxy_provider_min_usd_per_hour',
    'Cheapest offer',
    ofProvider,
    perProvider((p) => p.minUsdPerHour),
  );
  gauge(
    'gpuproxy_provider_credit_usd',
    'Money left in the account',
    ofProvider,
    perProvider((p) => p.creditUsd),
  );
  gauge(
    'gpuproxy_provider_rented_instances',
    'Rented from it',
    ofProvider,
    perProvider((p) => p.rented),
  );
  gauge(
    'gpuproxy_provider_usd_per_hour',
    'Cost of what is rented from it',
    ofProvider,
    perProvider((p) => p.usdPerHour),
  );
  gauge(
    'gpuproxy_provider_refresh_duration_seconds',
    'How long its last refresh took',
    ofProvider,
    perProvider((p) => (p.latencyMs === null ? null : p.latencyMs / 1000)),
  );
  gauge(
    'gpuproxy_provider_last_refresh_timestamp_seconds',
    'When its last refresh worked',
    ofProvider,
    perProvider((p) => (p.refreshedAt === null ? null : p.refreshedAt / 1000)),
  );
  gauge('gpuproxy_usd_per_hour', 'Cost of the fleet', [], () => [[{}, state().cost.usdPerHour]]);
  gauge('gpuproxy_max_usd_per_hour', 'MAX_USD_PER_HOUR, when set', [], () => {
    const { maxUsdPerHour } = state().cost;
    return maxUsdPerHour === null ? [] : [[{}, maxUsdPerHour]];
  });
  counter('gpuproxy_spent_usd_total', 'Spent in all', [], () => [[{}, state().cost.spentUsd]]);
  gauge('gpuproxy_reservations', 'Reservations by state', ['state'], () => {
    const byState = Map.groupBy(state().reservations, (reservation) => reservation.state);
    return (['renting', 'active', 'partial', 'releasing', 'ended', 'failed'] as const).map((name) => [
      { state: name },
      byState.get(name)?.length ?? 0,
    ]);
  });
  gauge('gpuproxy_foreign_instances', 'Instances of the accounts that this server did not rent', [], () => [
    [{}, state().foreign.length],
  ]);
  gauge('gpuproxy_start_timestamp_seconds', 'When this server started', [], () => [[{}, state().startedAt / 1000]]);

  // --- counted here ---
  const events = new Counter({
    name: 'gpuproxy_events_total',
    help: 'Events by kind and level since the start: ejected, recovered, rental, destroy, provider, …',
    labelNames: ['kind', 'level'],
    registers,
  });
  const ejections = new Counter({
    name: 'gpuproxy_ejections_total',
    help: 'Ejections since the start',
    registers,
  });
  const unsubscribe = app.events.subscribe(({ kind, level }) => {
    events.inc({ kind, level });
    if (kind === 'ejected') ejections.inc();
  });
  const apiRequests = new Counter({
    name: 'gpuproxy_api_requests_total',
    help: 'Answers of the control plane',
    labelNames: ['operation', 'code'],
    registers,
  });
  const apiDurations = new Histogram({
    name: 'gpuproxy_api_request_duration_seconds',
    help: 'How long the control plane took to answer',
    labelNames: ['operation'],
    buckets: [0.001, 0.005, 0.025, 0.1, 0.5, 1, 5, 30],
    registers,
  });
  gauge('gpuproxy_api_event_streams', 'Open event streams', [], () => [[{}, openStreams()]]);

  return {
    contentType: registry.contentType,
    async text() {
      const [own, process] = await Promise.all([registry.metrics(), sharedProcessRegistry().metrics()]);
      return `${own}\n${process}`;
    },
    observe(operation, status, seconds) {
      apiRequests.inc({ operation, code: String(status) });
      if (seconds !== null) apiDurations.observe({ operation }, seconds);
    },
    close: unsubscribe,
  };
}

type Counted = Readonly<{ labels: Labels; counts: readonly number[]; sumMs: number }>;

/** A histogram whose buckets and sum were counted elsewhere, by bucket of the load table. */
class TableHistogram extends Histogram<string> {
  readonly #name: string;
  readonly #help: string;
  readonly #read: () => readonly Counted[];

  constructor(name: string, help: string, labelNames: string[], read: () => readonly Counted[]) {
    super({ name, help, labelNames, registers: [] });
    this.#name = name;
    this.#help = help;
    this.#read = read;
  }

  override async get(): Promise<MetricObjectWithValues<{ value: number; labels: Labels; metricName: string }>> {
    const values = this.#read().flatMap(({ labels, counts, sumMs }) => {
      const cumulative: number[] = [];
      let all = 0;
      for (const count of counts) cumulative.push((all += count));
      const buckets = boundIndexes.map((index) => ({
        labels: { ...labels, le: String((ttfbBoundsMs[index] as number) / 1000) },
        value: cumulative[index] ?? all,
        metricName: `${this.#name}_bucket`,
      }));
      return [
        ...buckets,
        { labels: { ...labels, le: '+Inf' }, value: all, metricName: `${this.#name}_bucket` },
        { labels, value: sumMs / 1000, metricName: `${this.#name}_sum` },
        { labels, value: all, metricName: `${this.#name}_count` },
      ];
    });
    // The package's types call it a number, its code a word.
    const type = 'histogram' as unknown as MetricType;
    return { name: this.#name, help: this.#help, type, values, aggregator: 'sum', collect: () => {} };
  }

  /** What the registry prints from when it exists. */
  getForPromString() {
    return this.get();
  }
}
