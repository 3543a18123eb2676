import { describe, expect, test } from 'vitest';
import { strategyNames } from '../../src/core/domain.ts';
import {
  balancerPolicy,
  capacityOf,
  demoModelFleet,
  type ModelUpstream,
  modelTraffic,
  replay,
  runModel,
} from '../../src/core/fleet-model.ts';
import { createRandom } from '../../src/core/random.ts';
import type { FinishedRequest } from '../../src/core/report.ts';

const run = (upstreams: readonly ModelUpstream[], strategy: (typeof strategyNames)[number], load = 0.75, seed = 1) =>
  runModel({
    upstreams,
    requests: modelTraffic({ upstreams, load, count: 4000, random: createRandom(seed) }),
    policy: balancerPolicy(strategy, upstreams),
  });

describe('fleet model', () => {
  test('the same seed gives the same result, another seed another one', () => {
    const once = run(demoModelFleet, 'least_connections');
    expect(run(demoModelFleet, 'least_connections')).toEqual(once);
    expect(run(demoModelFleet, 'least_connections', 0.75, 2)).not.toEqual(once);
  });

  test('one slot with known jobs: what waits is served in order', () => {
    const upstreams = [{ id: 'one', weight: 1, slots: 1, speed: 2 }];
    const requests = [0, 10, 20].map((atMs) => ({ atMs, workMs: 100, firstMs: 10 }));
    const result = runModel({ upstreams, requests, policy: balancerPolicy('round_robin', upstreams) });
    // Ends at 50, 100 and 150: 50, 90 and 130 after their arrivals.
    expect(result).toMatchObject({
      requests: 3,
      lost: 0,
      meanMs: 90,
      p50Ms: 90,
      p99Ms: 130,
      shares: { one: 1 },
      // 300 ms of work in 20 ms at twice the speed.
      loads: { one: 7.5 },
      peakOpen: 3,
    });
  });

  test('on unequal GPUs the strategies that look at load beat those that do not', () => {
    const mean = Object.fromEntries(strategyNames.map((name) => [name, run(demoModelFleet, name).meanMs ?? 0]));
    expect(mean.least_response_time).toBeLessThan(mean.least_connections as number);
    expect((mean.least_connections as number) * 2).toBeLessThan(mean.weighted_round_robin as number);
    expect(mean.weighted_round_robin).toBeLessThan(mean.round_robin as number);
  });

  test.each(strategyNames)(
    '%s loses less than one request in a hundred to an upstream that fails everything',
    (name) => {
      const broken = { id: 'broken', weight: 3, slots: 8, speed: 1, fails: { fromMs: 0, toMs: 1e12, afterMs: 50 } };
      const result = run([...demoModelFleet, broken], name, 0.5);
      expect(result.lost).toBeGreaterThan(0);
      expect(result.lost / result.requests).toBeLessThan(0.01);
    },
  );

  test.each(strategyNames)('%s gives an upstream that joins its part', (name) => {
    const joiner = { id: 'joiner', weight: 3, slots: 12, speed: 2.4, joinsAtMs: 20_000 };
    const result = run([...demoModelFleet, joiner], name, 0.5);
    expect(result.shares.joiner).toBeGreaterThan(0.03);
  });

  test('the load asked for is the load that comes', () => {
    const requests = modelTraffic({ upstreams: demoModelFleet, load: 0.8, count: 20_000, random: createRandom(3) });
    const work = requests.reduce((sum, r) => sum + r.workMs, 0);
    const span = requests.at(-1)?.atMs ?? 1;
    expect(work / span / capacityOf(demoModelFleet)).toBeCloseTo(0.8, 1);
    expect(() => modelTraffic({ upstreams: [], load: 0.8, count: 1, random: createRandom(3) })).toThrow(RangeError);
  });
});

describe('replay', () => {
  const finished = (i: number, instance: string, totalMs: number): FinishedRequest => ({
    at: 1_700_000_000_000 + i * 40 + totalMs,
    id: `r${i}`,
    method: 'POST',
    path: '/v1/chat/completions',
    status: 200,
    cause: 'complete',
    instance,
    attempts: 1,
    queueMs: 0,
    ttfbMs: totalMs / 2,
    totalMs,
    bytesOut: 100,
    model: null,
  });
  const upstreams = [
    { id: 'fast', weight: 3 },
    { id: 'slow', weight: 1 },
  ];
  const observed = Array.from({ length: 1000 }, (_, i) => finished(i, i % 2 ? 'slow' : 'fast', i % 2 ? 200 : 20));

  test('the strategy in use is reproduced, and another one shows its own shares', () => {
    const same = replay(observed, upstreams, 'round_robin');
    expect(same?.shares).toEqual({ fast: 0.5, slow: 0.5 });
    expect(same?.p95Ms).toBeCloseTo(200, -1);
    expect(replay(observed, upstreams, 'weighted_round_robin')?.hottestShare).toBeCloseTo(0.75, 2);
    const timed = replay(observed, upstreams, 'least_response_time');
    expect(timed?.shares.fast).toBeGreaterThan(0.8);
  });

  test('too few requests say nothing, and strangers do not count', () => {
    expect(replay(observed.slice(0, 100), upstreams, 'round_robin')).toBe(null);
    expect(replay(observed, [{ id: 'other', weight: 1 }], 'round_robin')).toBe(null);
    expect(replay(observed, [], 'round_robin')).toBe(null);
  });
});
