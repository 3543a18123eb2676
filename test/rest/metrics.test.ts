import { readFileSync } from 'node:fs';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { createBalancer } from '../../src/core/balancer.ts';
import { ttfbBoundsMs } from '../../src/core/load-table.ts';
import type { DataPlaneReport } from '../../src/core/report.ts';
import { createFakeApp, type FakeApp, providerView, upstreamView } from '../helpers/fake-app.ts';
import { type Rest, startRest } from './harness.ts';

let app: FakeApp;
let rest: Rest;

const histogram = (ms: Record<number, number>) => {
  const counts = Array.from({ length: ttfbBoundsMs.length + 1 }, () => 0);
  for (const [value, count] of Object.entries(ms)) {
    const bucket = ttfbBoundsMs.findIndex((bound) => Number(value) <= bound);
    counts[bucket < 0 ? ttfbBoundsMs.length : bucket]! += count;
  }
  return counts;
};

/** Requests of one upstream whose first bytes took so many ms, through the table that is shared with the data plane. */
function serve({ dataPlane }: FakeApp, id: string, firstBytesMs: readonly number[]): void {
  const ref = dataPlane.table.join({ weight: 1, ceiling: 0, now: 0 });
  const balancer = createBalancer(dataPlane.table, { slowStartMs: 0 });
  dataPlane.table.setRunning(ref, true, 0);
  balancer.probed(ref, true, 0, '');
  for (const ms of firstBytesMs) {
    const lease = balancer.acquire(0);
    if (typeof lease === 'string') throw new Error(lease);
    lease.firstByte(ms);
    lease.settle('complete', ms);
  }
  const entry = { ...ref, id, provider: 'vast.ai', origin: 'http://127.0.0.1:1', models: null };
  Object.assign(dataPlane, { directory: () => [entry] });
}

beforeEach(async () => {
  app = createFakeApp({
    upstreams: [
      upstreamView({
        endings: { ...upstreamView().endings, complete: 140, truncated: 2 },
        expiresAt: 1_800_000_000_000,
      }),
      upstreamView({ id: 'vast-gone', lifecycle: { phase: 'ended', at: 0, reason: '' } }),
    ],
    providers: [providerView()],
    cost: { usdPerHour: 0.79, spentUsd: 3, spentTodayUsd: 1, maxUsdPerHour: 5 },
  });
  serve(app, 'vast-12345', [...Array.from({ length: 10 }, () => 50), 200, 200, 200, 200, 200, 1e9]);
  rest = await startRest(app);
});
afterEach(() => rest[Symbol.asyncDispose]());

type Sample = { name: string; labels: Record<string, string>; value: number };

/** Reads the text format as strictly as Prometheus does: every sample belongs to an announced metric. */
function parse(text: string): { types: Map<string, string>; samples: Sample[] } {
  const types = new Map<string, string>();
  const samples: Sample[] = [];
  const seen = new Set<string>();
  for (const line of text.split('\n')) {
    if (line === '' || line.startsWith('# HELP ')) continue;
    const type = /^# TYPE (\w+) (counter|gauge|histogram|summary)$/.exec(line);
    if (type) {
      if (types.has(type[1]!)) throw new Error(`${type[1]} is announced twice`);
      types.set(type[1]!, type[2]!);
      continue;
    }
    const match = /^([a-z_:][\w:]*)(?:\{(.*)\})? (-?[\d.e+-]+|NaN|\+Inf)$/i.exec(line);
    if (!match) throw new Error(`not a sample: ${line}`);
    const key = `${match[1]}{${match[2] ?? ''}}`;
    if (seen.has(key)) throw new Error(`comes twice: ${key}`);
    seen.add(key);
    const base = types.has(match[1]!) ? match[1]! : match[1]!.replace(/_(bucket|count|sum)$/, '');
    if (!types.has(base)) throw new Error(`without a type: ${line}`);
    if (types.get(base) === 'counter' && !base.endsWith('_total')) throw new Error(`${base} does not end in _total`);
    const labels = Object.fromEntries(
      [...(match[2] ?? '').matchAll(/(\w+)="((?:[^"\\]|\\.)*)"/g)].map(([, name, value]) => [name!, value!]),
    );
    samples.push({ name: match[1]!, labels, value: Number(match[3]!.replace('+Inf', 'Infinity')) });
  }
  return { types, samples };
}

const scrape = async () => {
  const reply = await rest.call('GET', '/metrics', { key: null });
  expect(reply.status).toBe(200);
  expect(reply.headers['content-type']).toBe('text/plain; version=0.0.4; charset=utf-8');
  return parse(reply.text);
};

/** What two data-plane threads told. */
function report(more: Partial<DataPlaneReport['counters']>): void {
  const counters = {
    requests: 5,
    statusClasses: [1, 0, 3, 0, 0, 1],
    causes: {},
    retries: 1,
    bytesIn: 10,
    bytesOut: 20,
    upgrades: 1,
    ...more,
  };
  for (const thread of [0, 1]) {
    app.dataPlane.report({ thread, requests: [], queued: 0, loopLagMs: 12, counters });
  }
}

describe('/metrics', () => {
  test('is text that Prometheus accepts, with the numbers of the snapshot', async () => {
    const { samples, types } = await scrape();
    const numberOf = (name: string, labels: Record<string, string> = {}) =>
      samples.find((s) => s.name === name && Object.entries(labels).every(([k, v]) => s.labels[k] === v))?.value;
    const upstream = 'vast-12345';
    expect(numberOf('gpuproxy_upstream_in_flight', { upstream })).toBe(3);
    expect(numberOf('gpuproxy_upstream_attempts_total', { upstream, provider: 'vast.ai' })).toBe(150);
    expect(numberOf('gpuproxy_upstream_endings_total', { upstream, ending: 'truncated' })).toBe(2);
    expect(numberOf('gpuproxy_upstream_response_time_seconds', { upstream })).toBeCloseTo(0.2502);
    expect(numberOf('gpuproxy_upstream_expires_timestamp_seconds', { upstream })).toBe(1_800_000_000);
    expect(numberOf('gpuproxy_strategy_info', { strategy: 'round_robin' })).toBe(1);
    expect(numberOf('gpuproxy_strategy_info', { strategy: 'least_connections' })).toBe(0);
    expect(numberOf('gpuproxy_picks_total', { strategy: 'round_robin' })).toBe(16);
    expect(numberOf('gpuproxy_provider_credit_usd', { provider: 'vast.ai' })).toBe(25);
    expect(numberOf('gpuproxy_usd_per_hour')).toBe(0.79);
    expect(numberOf('gpuproxy_max_usd_per_hour')).toBe(5);
    expect(types.get('gpuproxy_upstream_ttfb_seconds')).toBe('histogram');
    expect(samples.filter((sample) => sample.labels.upstream === 'vast-gone')).toEqual([]);
    expect(types.has('nodejs_eventloop_lag_p99_seconds')).toBe(true);
    expect(types.has('nodejs_version_info')).toBe(false);
  });

  test('every histogram has buckets, a sum and a count, in seconds', async () => {
    report({ durationHistogram: histogram({ 50: 3, 400: 1 }), durationSumMs: 550 });
    await rest.call('GET', '/api/v1/fleet');
    const series = async () => {
      const { types, samples } = await scrape();
      const histograms = [...types].flatMap(([name, type]) => (type === 'histogram' ? [name] : []));
      return histograms.map((name) => ({
        name,
        parts: new Set(samples.flatMap((s) => (s.name.startsWith(`${name}_`) ? [s.name.slice(name.length)] : []))),
      }));
    };
    await expect.poll(async () => (await series()).every(({ parts }) => parts.size > 0)).toBe(true);
    expect((await series()).map(({ name }) => name).sort()).toEqual([
      'gpuproxy_api_request_duration_seconds',
      'gpuproxy_request_duration_seconds',
      'gpuproxy_ttfb_seconds',
      'gpuproxy_upstream_ttfb_seconds',
      'nodejs_gc_duration_seconds',
    ]);
    for (const { name, parts } of await series()) {
      expect(name.endsWith('_seconds')).toBe(true);
      expect([...parts].sort(), name).toEqual(['_bucket', '_count', '_sum']);
    }
    const { samples } = await scrape();
    const value = (name: string) => samples.find((sample) => sample.name === name)?.value;
    expect(value('gpuproxy_upstream_ttfb_seconds_sum')).toBeCloseTo(1_000_001.5);
    expect(value('gpuproxy_ttfb_seconds_sum')).toBeCloseTo(1_000_001.5);
    expect(value('gpuproxy_ttfb_seconds_count')).toBe(16);
    expect(value('gpuproxy_request_duration_seconds_sum')).toBeCloseTo(1.1);
    expect(value('gpuproxy_request_duration_seconds_count')).toBe(8);
  });

  test('histogram buckets are cumulative, end at +Inf and agree with the count', async () => {
    const { samples } = await scrape();
    const mine = samples.filter((s) => s.labels.upstream === 'vast-12345');
    const buckets = mine.filter((s) => s.name === 'gpuproxy_upstream_ttfb_seconds_bucket');
    const bounds = buckets.map((s) => Number(s.labels.le!.replace('+Inf', 'Infinity')));
    expect(bounds).toEqual([...bounds].sort((a, b) => a - b));
    expect(bounds.at(-1)).toBe(Number.POSITIVE_INFINITY);
    const counts = buckets.map((s) => s.value);
    expect(counts).toEqual([...counts].sort((a, b) => a - b));
    expect(counts.at(-1)).toBe(16);
    expect(counts.at(-2)).toBe(15);
    expect(mine.find((s) => s.name === 'gpuproxy_upstream_ttfb_seconds_count')?.value).toBe(16);
    const below = buckets.findLast((s) => Number(s.labels.le) < 0.05);
    const above = buckets.find((s) => Number(s.labels.le) >= 0.2);
    expect(below?.value).toBe(0);
    expect(above?.value).toBe(15);
  });

  test('reports of all threads add up, and without any there is no series', async () => {
    expect((await scrape()).samples.filter((s) => s.name === 'gpuproxy_responses_total')).toEqual([]);
    report({
      causes: { complete: 3, queue_timeout: 2 },
      durationHistogram: histogram({ 50: 3, 400: 1 }),
      promptTokens: 100,
      completionTokens: 7,
      outcomes: [
        { instance: 'vast-12345', status: 200, cause: 'complete', count: 3 },
        { instance: 'vast-gone', status: 200, cause: 'complete', count: 9 },
      ],
    });
    const { samples } = await scrape();
    expect(samples.find((s) => s.name === 'gpuproxy_responses_total' && s.labels.code === '2xx')?.value).toBe(6);
    expect(
      samples.find((s) => s.name === 'gpuproxy_request_causes_total' && s.labels.cause === 'queue_timeout')?.value,
    ).toBe(4);
    expect(samples.find((s) => s.name === 'gpuproxy_bytes_total' && s.labels.direction === 'out')?.value).toBe(40);
    const value = (name: string, labels: Record<string, string>) =>
      samples.find((s) => s.name === name && Object.entries(labels).every(([k, v]) => s.labels[k] === v))?.value;
    expect(value('gpuproxy_tokens_total', { kind: 'prompt' })).toBe(200);
    expect(value('gpuproxy_tokens_total', { kind: 'completion' })).toBe(14);
    expect(value('gpuproxy_thread_eventloop_lag_seconds', { thread: '1' })).toBe(0.012);
    expect(value('gpuproxy_request_duration_seconds_count', {})).toBe(8);
    expect(value('gpuproxy_request_duration_seconds_bucket', { le: '+Inf' })).toBe(8);
    expect(value('gpuproxy_upstream_requests_total', { upstream: 'vast-12345', code: '200', cause: 'complete' })).toBe(
      6,
    );
    expect(value('gpuproxy_upstream_requests_total', { upstream: 'vast-gone' })).toBeUndefined();
  });

  test('events, ejections and the control plane’s own answers are counted', async () => {
    app.emit({ kind: 'ejected', level: 'warn', subject: 'vast-12345' });
    await rest.call('GET', '/api/v1/fleet');
    await rest.call('GET', '/api/v1/fleet', { key: null });
    await expect
      .poll(async () => {
        const { samples } = await scrape();
        const answers = samples.filter(
          (s) => s.name === 'gpuproxy_api_requests_total' && s.labels.operation === 'listFleet',
        );
        return answers.map((s) => `${s.labels.code}:${s.value}`).sort();
      })
      .toEqual(['200:1', '401:1']);
    const { samples } = await scrape();
    expect(samples.find((s) => s.name === 'gpuproxy_ejections_total')?.value).toBe(1);
  });

  test('is open to this machine under its own name; any other name needs a key', async () => {
    const open = await rest.call('GET', '/metrics', { key: null, headers: { host: 'localhost:8080' } });
    expect(open.status).toBe(200);
    const rebound = await rest.call('GET', '/metrics', { key: null, headers: { host: 'evil.example' } });
    expect(rebound.status).toBe(401);
    const withKey = await rest.call('GET', '/metrics', {
      key: null,
      headers: { host: 'gpu.example', authorization: `Bearer ${rest.adminKey}` },
    });
    expect(withKey.status).toBe(200);
  });

  test('what a proxy on this machine passes on is not of this machine, whatever name it asks for', async () => {
    for (const passed of ['forwarded', 'x-forwarded-for', 'x-forwarded-proto', 'x-real-ip', 'via']) {
      const headers = { host: 'localhost', [passed]: '203.0.113.7' };
      expect((await rest.call('GET', '/metrics', { key: null, headers })).status, passed).toBe(401);
      const withKey = { ...headers, 'x-api-key': rest.adminKey };
      expect((await rest.call('GET', '/metrics', { key: null, headers: withKey })).status, passed).toBe(200);
    }
  });
});

describe('docs', () => {
  const mentioned = (text: string) =>
    [...new Set(text.match(/\b(?:gpuproxy|nodejs|process)_[a-z0-9_]+\b/g) ?? [])].sort();

  test.each(['docs/grafana-dashboard.json', 'docs/alerts.yml'])(
    '%s uses only metrics and labels that exist',
    async (file) => {
      report({
        durationHistogram: histogram({}),
        outcomes: [{ instance: 'vast-12345', status: 200, cause: 'complete', count: 1 }],
      });
      await rest.call('GET', '/api/v1/fleet');
      await expect.poll(async () => (await scrape()).samples.some((sample) => sample.labels.operation)).toBe(true);
      const { samples } = await scrape();
      const known = new Set(samples.map((sample) => sample.name));
      const text = readFileSync(file, 'utf8');
      const names = mentioned(text);
      expect(names.length).toBeGreaterThan(5);
      // Metrics of things that did not happen yet have no sample.
      const { types } = await scrape();
      expect(names.filter((name) => !known.has(name) && !types.has(name))).toEqual([]);

      const labels = new Set(['job', 'le', 'instance', ...samples.flatMap((sample) => Object.keys(sample.labels))]);
      const byLists = [...text.matchAll(/\b(?:by|on) \(([^)]*)\)/g)].flatMap((match) => match[1]!.split(/, */));
      expect(byLists.filter((label) => !labels.has(label))).toEqual([]);
    },
  );

  test('docs/control-plane.md names metrics and labels that exist', async () => {
    const text = readFileSync('docs/control-plane.md', 'utf8');
    const rows = text.slice(text.indexOf('## Metrics')).matchAll(/^\| \w+ \| (.*) \|$/gm);
    const named = [...rows].flatMap(([, cell = '']) =>
      [...cell.matchAll(/`([a-z_]+?)(\*?)(?:\{([a-z_,]+)\})?`/g)].map(([, name = '', star = '', labels = '']) => ({
        name: name.startsWith('_') ? `gpuproxy${name}` : name,
        isPrefix: star !== '',
        labels: labels === '' ? [] : labels.split(','),
      })),
    );
    const metrics = named.filter(({ name }) => /^(gpuproxy|nodejs)_/.test(name));
    expect(metrics.length).toBeGreaterThan(25);
    report({ durationHistogram: histogram({}), spansExported: 1 });
    app.emit({ kind: 'ejected', level: 'warn' });
    const { types, samples } = await scrape();
    const names = [...types.keys()];
    const missing = metrics.filter(({ name, isPrefix }) =>
      isPrefix ? !names.some((known) => known.startsWith(name)) : !names.includes(name),
    );
    expect(missing).toEqual([]);
    for (const { name, labels } of metrics) {
      const sample = samples.find((one) => one.name === name || one.name === `${name}_bucket`);
      if (sample) expect(Object.keys(sample.labels), name).toEqual(expect.arrayContaining(labels));
    }
  });

  test('the dashboard is JSON whose panels do not overlap', () => {
    const { panels } = JSON.parse(readFileSync('docs/grafana-dashboard.json', 'utf8')) as {
      panels: { id: number; gridPos: { x: number; y: number; w: number; h: number } }[];
    };
    const cells = new Set<string>();
    for (const { gridPos } of panels) {
      for (let x = gridPos.x; x < gridPos.x + gridPos.w; x++) {
        for (let y = gridPos.y; y < gridPos.y + gridPos.h; y++) {
          expect(cells.has(`${x},${y}`)).toBe(false);
          cells.add(`${x},${y}`);
        }
      }
    }
    expect(new Set(panels.map((panel) => panel.id)).size).toBe(panels.length);
  });
});
