import type { Ending } from '../core/domain.ts';
import { endings } from '../core/domain.ts';
import { type LoadRow, percentile, type TableTotals } from '../core/load-table.ts';
import { type DataPlaneReport, type FinishedRequest, keptRequests } from '../core/report.ts';
import type { Traffic } from './app.ts';

/** Endings in which the upstream is to blame: answers of 5xx and broken transfers. */
const broken: readonly Ending[] = ['server_error', 'refused', 'first_byte_timeout', 'truncated', 'idle_timeout'];
const windowSeconds = 60;
/** Histograms are kept in steps of this many seconds: 13 of them span the window. */
const stepSeconds = 5;

type Counts = Readonly<{ total: number; ended: number; broken: number }>;
type Sample = Counts & { readonly second: number };

/** The last minute of one set of cumulative counters. */
export interface Meter {
  /** Once a second. */
  sample(second: number, counts: Counts, histogram: readonly number[]): void;
  rates(): Readonly<{
    /** Over the last 10 s. */
    rps: number;
    /** Started in the last 60 s. */
    recent: number;
    errorRate: number;
    p50Ms: number | null;
    p95Ms: number | null;
    p99Ms: number | null;
    trend: readonly number[];
  }>;
}

const idle: ReturnType<Meter['rates']> = {
  rps: 0,
  recent: 0,
  errorRate: 0,
  p50Ms: null,
  p95Ms: null,
  p99Ms: null,
  trend: [],
};

export function createMeter(): Meter {
  const samples: Sample[] = [];
  const histograms: { second: number; counts: readonly number[] }[] = [];
  let latest: readonly number[] = [];
  let rates = idle;

  return {
    sample(second, counts, histogram) {
      samples.push({ second, ...counts });
      while (samples.length > windowSeconds + 1) samples.shift();
      latest = histogram;
      const lastStep = histograms.at(-1);
      if (lastStep === undefined || second - lastStep.second >= stepSeconds) {
        histograms.push({ second, counts: histogram });
        while (histograms.length > windowSeconds / stepSeconds + 1) histograms.shift();
      }
      const first = samples[0] ?? { second, ...counts };
      const recent = counts.total - first.total;
      const ended = counts.ended - first.ended;
      if (recent === 0 && ended === 0) {
        rates = idle;
        return;
      }
      const tenAgo = samples[Math.max(0, samples.length - 11)] ?? first;
      const base = histograms[0]?.counts ?? [];
      const difference = latest.map((n, index) => n - (base[index] ?? 0));
      rates = {
        rps: round((counts.total - tenAgo.total) / Math.max(1, second - tenAgo.second), 2),
        recent,
        errorRate: ended === 0 ? 0 : round((counts.broken - first.broken) / ended, 4),
        p50Ms: shown(percentile(difference, 50)),
        p95Ms: shown(percentile(difference, 95)),
        p99Ms: shown(percentile(difference, 99)),
        trend: samples.slice(1).map((sample, index) => sample.total - (samples[index]?.total ?? sample.total)),
      };
    },
    rates: () => rates,
  };
}

export function countsOf(row: LoadRow | TableTotals): Counts {
  let ended = 0;
  let bad = 0;
  for (const ending of endings) ended += row.endings[ending];
  for (const ending of broken) bad += row.endings[ending];
  return { total: row.total, ended, broken: bad };
}

/** What the data plane reports, kept for people: requests, and totals over its threads. */
export interface Reports {
  take(report: DataPlaneReport): void;
  requests(query: { instance?: string; slowest?: boolean; limit?: number }): readonly FinishedRequest[];
  /** The newest report of each thread, and one with the counts of threads that were replaced, so that no sum ever falls. */
  latest(): readonly DataPlaneReport[];
  /** Null before the first report. */
  totals(): Readonly<{ requests: number; retries: number; queued: number; failed: number; answered: number }> | null;
}

export function createReports(): Reports {
  const threads = new Map<number, DataPlaneReport>();
  /** What threads counted that have died since: their successors begin at zero. */
  let lost: DataPlaneReport | null = null;
  const latest = () => (lost === null ? [...threads.values()] : [...threads.values(), lost]);
  const requests: FinishedRequest[] = [];

  return {
    take(report) {
      const before = threads.get(report.thread);
      if (before !== undefined && report.counters.requests < before.counters.requests) {
        lost = { thread: -1, requests: [], queued: 0, counters: added(before, lost) };
      }
      threads.set(report.thread, report);
      requests.push(...report.requests);
      if (requests.length > keptRequests) requests.splice(0, requests.length - keptRequests);
    },
    requests({ instance, slowest: bySlowness = false, limit = 100 }) {
      const match = (request: FinishedRequest) => instance === undefined || request.instance === instance;
      if (!bySlowness) return newest(requests, limit, match);
      return requests
        .filter(match)
        .sort((a, b) => b.totalMs - a.totalMs)
        .slice(0, limit);
    },
    latest,
    totals() {
      if (threads.size === 0) return null;
      const sum = { requests: 0, retries: 0, queued: 0, failed: 0, answered: 0 };
      for (const { counters, queued } of latest()) {
        sum.requests += counters.requests;
        sum.retries += counters.retries;
        sum.queued += queued;
        const classes = counters.statusClasses.reduce((a, b) => a + b, 0);
        // A transfer that broke off had a good status: its cause tells.
        const cut = (counters.causes.truncated ?? 0) + (counters.causes.idle_timeout ?? 0);
        sum.failed += (counters.statusClasses[5] ?? 0) + cut;
        sum.answered += classes;
      }
      return sum;
    },
  };
}

type Counters = DataPlaneReport['counters'];

function added({ counters: a }: DataPlaneReport, other: DataPlaneReport | null): Counters {
  if (other === null) return a;
  const b = other.counters;
  const lists = (x: readonly number[] = [], y: readonly number[] = []) =>
    Array.from({ length: Math.max(x.length, y.length) }, (_, index) => (x[index] ?? 0) + (y[index] ?? 0));
  const causes = { ...b.causes };
  for (const [cause, count] of Object.entries(a.causes)) causes[cause] = (causes[cause] ?? 0) + count;
  return {
    requests: a.requests + b.requests,
    statusClasses: lists(a.statusClasses, b.statusClasses),
    causes,
    retries: a.retries + b.retries,
    bytesIn: a.bytesIn + b.bytesIn,
    bytesOut: a.bytesOut + b.bytesOut,
    upgrades: a.upgrades + b.upgrades,
    durationHistogram: lists(a.durationHistogram, b.durationHistogram),
    durationSumMs: (a.durationSumMs ?? 0) + (b.durationSumMs ?? 0),
    promptTokens: (a.promptTokens ?? 0) + (b.promptTokens ?? 0),
    completionTokens: (a.completionTokens ?? 0) + (b.completionTokens ?? 0),
    spansExported: (a.spansExported ?? 0) + (b.spansExported ?? 0),
    spansDropped: (a.spansDropped ?? 0) + (b.spansDropped ?? 0),
    outcomes: [...(a.outcomes ?? []), ...(b.outcomes ?? [])],
  };
}

/** The pool's numbers: those of the clients' requests where the data plane reports them, else those of the attempts. */
export function trafficOf(totals: TableTotals, meter: Meter, reports: Reports): Traffic {
  const rates = meter.rates();
  const counted = reports.totals();
  return {
    rps: rates.rps,
    inFlight: totals.active,
    queued: counted?.queued ?? 0,
    errorRate: rates.errorRate,
    p50Ms: rates.p50Ms,
    p95Ms: rates.p95Ms,
    p99Ms: rates.p99Ms,
    requests: counted?.requests ?? totals.total,
    retries: counted?.retries ?? 0,
    trend: rates.trend,
    ttfbHistogram: totals.ttfbHistogram,
  };
}

/** Counters of the pool for its meter, in the same terms as `trafficOf`. */
export function poolCounts(totals: TableTotals, reports: Reports): Counts {
  const counted = reports.totals();
  if (counted === null) return countsOf(totals);
  return { total: counted.requests, ended: counted.answered, broken: counted.failed };
}

function newest<T>(items: readonly T[], limit: number, match: (item: T) => boolean): T[] {
  const found: T[] = [];
  for (let index = items.length - 1; index >= 0 && found.length < limit; index -= 1) {
    const item = items[index];
    if (item !== undefined && match(item)) found.push(item);
  }
  return found;
}

const shown = (ms: number | null) => (ms === null ? null : round(ms, 1));

export function round(value: number, digits: number): number {
  const factor = 10 ** digits;
  return Math.round(value * factor) / factor;
}
