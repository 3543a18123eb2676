import { expect, test } from 'vitest';
import type { DataPlaneReport, FinishedRequest } from '../../src/core/report.ts';
import { healthChange, keep } from '../../src/fleet/snapshot.ts';
import { createMeter, createReports } from '../../src/fleet/traffic.ts';

const request = (id: string, totalMs: number, instance: string | null = 'vast-1'): FinishedRequest => ({
  at: 1,
  id,
  method: 'POST',
  path: '/v1/chat/completions',
  status: 200,
  cause: 'complete',
  instance,
  attempts: 1,
  queueMs: 0,
  ttfbMs: 1,
  totalMs,
  bytesOut: 1,
  model: null,
});
const report = (thread: number, requests: FinishedRequest[], count: number): DataPlaneReport => ({
  thread,
  requests,
  queued: 1,
  counters: {
    requests: count,
    statusClasses: [0, 0, count - 1, 0, 0, 1],
    causes: { truncated: 1 },
    retries: 2,
    bytesIn: 0,
    bytesOut: 0,
    upgrades: 0,
  },
});

test('a meter tells the rate of the last ten seconds, the errors and percentiles of the last minute, and a trend', () => {
  const meter = createMeter();
  const histogram = (fast: number, slow: number) =>
    Array.from({ length: 49 }, (_, i) => (i === 20 ? fast : i === 40 ? slow : 0));
  for (let second = 1; second <= 20; second += 1) {
    meter.sample(second, { total: second * 5, ended: second * 5, broken: second }, histogram(second * 4, second));
  }
  const rates = meter.rates();
  expect(rates.rps).toBe(5);
  expect(rates.errorRate).toBeCloseTo(0.2, 2);
  expect(rates.trend).toEqual(Array.from({ length: 19 }, () => 5));
  expect(rates.p50Ms).toBeLessThan(rates.p99Ms ?? 0);
});

test('a meter at rest gives the same empty picture, so that an idle screen is not drawn again', () => {
  const meter = createMeter();
  for (let second = 1; second <= 100; second += 1) {
    meter.sample(second, { total: 7, ended: 7, broken: 0 }, []);
  }
  const before = meter.rates();
  meter.sample(101, { total: 7, ended: 7, broken: 0 }, []);
  expect(meter.rates()).toEqual(before);
  expect(before).toMatchObject({ rps: 0, errorRate: 0, p50Ms: null, trend: [] });
});

test('what was before the last minute is forgotten', () => {
  const meter = createMeter();
  for (let second = 1; second <= 200; second += 1) {
    meter.sample(second, { total: 1000, ended: 1000, broken: Math.min(second, 100) }, [Math.min(second, 100)]);
  }
  expect(meter.rates()).toMatchObject({ rps: 0, errorRate: 0, p50Ms: null });
});

test('reports of several threads add up, and the newest and slowest requests are found by instance', () => {
  const reports = createReports();
  expect(reports.totals()).toBeNull();
  reports.take(report(0, [request('a', 5), request('b', 50)], 10));
  reports.take(report(1, [request('c', 20, 'vast-2')], 4));
  reports.take(report(0, [request('d', 7)], 12));
  expect(reports.totals()).toEqual({ requests: 16, retries: 4, queued: 2, failed: 4, answered: 16 });
  expect(reports.requests({}).map((item) => item.id)).toEqual(['d', 'c', 'b', 'a']);
  expect(reports.requests({ slowest: true, limit: 2 }).map((item) => item.id)).toEqual(['b', 'c']);
  expect(reports.requests({ instance: 'vast-2' }).map((item) => item.id)).toEqual(['c']);
});

test('of a new picture every part that did not change is the old one, also when rows move', () => {
  const before = {
    rows: [
      { id: 'a', n: [1] },
      { id: 'b', n: [2] },
    ],
    other: { x: 1 },
  };
  expect(keep(before, structuredClone(before))).toBe(before);
  const after = keep(before, {
    rows: [
      { id: 'c', n: [3] },
      { id: 'b', n: [2] },
      { id: 'a', n: [9] },
    ],
    other: { x: 1 },
  });
  expect(after.rows[1]).toBe(before.rows[1]);
  expect(after.other).toBe(before.other);
  expect(after.rows[2]).toEqual({ id: 'a', n: [9] });
  expect(keep(before, { rows: [before.rows[1], before.rows[0]], other: { x: 1 } })).not.toBe(before);
});

test('only changes of health are told', () => {
  type Row = Parameters<typeof healthChange>[1];
  const row = (health: Row['health'], ejections = 0) => ({ health, ejections, healthWhy: 'why' }) as Row;
  expect(healthChange(null, row('unknown'))).toBeNull();
  expect(healthChange(row('unknown'), row('up'))).toMatchObject({ kind: 'ready' });
  expect(healthChange(row('up'), row('ejected', 1))).toEqual({ kind: 'ejected', why: 'why' });
  expect(healthChange(row('ejected', 1), row('ejected', 1))).toBeNull();
  expect(healthChange(row('ejected', 1), row('ejected', 2))).toMatchObject({ kind: 'ejected' });
  expect(healthChange(row('probation', 1), row('up', 1))).toMatchObject({ kind: 'recovered' });
  expect(healthChange(row('backoff'), row('up'))).toBeNull();
});

test('what a thread counted stays counted when it dies and its successor begins at zero', () => {
  const reports = createReports();
  reports.take(report(1, [], 10));
  reports.take(report(2, [], 5));
  reports.take(report(1, [], 3));
  expect(reports.totals()).toMatchObject({ requests: 18, retries: 6, queued: 2 });
  reports.take(report(1, [], 1));
  expect(reports.totals()).toMatchObject({ requests: 19, retries: 8 });
  const causes = reports.latest().map(({ counters }) => counters.causes.truncated ?? 0);
  expect(causes.reduce((a, b) => a + b, 0)).toBe(4);
});
