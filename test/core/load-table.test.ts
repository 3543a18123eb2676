import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { createBalancer } from '../../src/core/balancer.ts';
import { LoadTable, loadUs, percentile, storeUs, ttfbBoundsMs, ttfbBucket } from '../../src/core/load-table.ts';
import { createFleet, joinFleet, leaseOf } from './fleet.ts';

describe('load table', () => {
  test('a recycled row starts from nothing and answers to its new tenant alone', () => {
    const fleet = createFleet({ size: 2, strategy: 'round_robin', weights: [3, 1] });
    const [gone] = fleet.refs;
    for (let i = 0; i < 6; i++) leaseOf(fleet.balancer.acquire(i)).settle('complete', i + 5);
    fleet.table.leave(gone!);
    fleet.table.leave(gone!);
    const next = joinFleet(fleet, 10, 1.5, 7);
    expect(next.row).toBe(gone!.row);
    expect(next.generation).not.toBe(gone!.generation);
    fleet.table.setWeight(gone!, 9);
    fleet.table.setRunning(gone!, false, 11);
    fleet.balancer.probed(gone!, false, 11, 'late probe of the old one');
    expect(fleet.table.isCurrent(gone!)).toBe(false);
    expect(fleet.table.read(next)).toMatchObject({
      active: 0,
      total: 0,
      avgMs: null,
      lastMs: null,
      weight: 1.5,
      ceiling: 7,
      lastUsedMs: null,
      running: true,
      health: 'up',
      healthWhy: '',
    });
    expect(fleet.table.totals().total).toBe(6);
  });

  test('a full table says so, and has room again when somebody leaves', () => {
    const table = LoadTable.create(2);
    const init = { weight: 1, ceiling: 0, now: 0 };
    const first = table.join(init);
    table.join(init);
    expect(() => table.join(init)).toThrow('load table is full: 2 upstreams');
    table.leave(first);
    expect(table.join(init).row).toBe(0);
  });

  test('numbers that are none are refused by name', () => {
    const table = LoadTable.create(2);
    expect(() => table.join({ weight: -1, ceiling: 0, now: 0 })).toThrow('weight: got -1');
    expect(() => table.join({ weight: 1, ceiling: Number.NaN, now: 0 })).toThrow('ceiling: got NaN');
    expect(() => LoadTable.create(0)).toThrow('capacity: got 0');
    expect(() => createBalancer(table, { ejectBaseMs: Number.NaN })).toThrow('ejectBaseMs: got NaN');
    expect(() => createBalancer(table, {}, { thread: 64 })).toThrow('thread: got 64');
    expect(() => {
      table.strategy = 'fastest' as 'round_robin';
    }).toThrow('strategy: got fastest, accepts one of round_robin');
  });

  test('thousands of upstreams fit and take turns', () => {
    const fleet = createFleet({ size: 3000, strategy: 'least_connections', capacity: 10_000 });
    const rows = new Set(Array.from({ length: 500 }, () => leaseOf(fleet.balancer.acquire(1)).row));
    expect(rows.size).toBe(500);
    expect(fleet.table.totals().active).toBe(500);
  });

  test('only upstreams that a request may use are picked', () => {
    const fleet = createFleet({ size: 3, strategy: 'round_robin' });
    const allowed = new Uint8Array(64);
    allowed[2] = 1;
    for (let i = 0; i < 4; i++) expect(leaseOf(fleet.balancer.acquire(i, { allowed })).row).toBe(2);
    expect(fleet.balancer.acquire(5, { allowed, tried: [2] })).toBe('none');
    expect(fleet.balancer.acquire(5, { allowed: new Uint8Array(0) })).toBe('none');
  });

  test('a retry is counted where it went', () => {
    const fleet = createFleet({ size: 2, strategy: 'round_robin' });
    leaseOf(fleet.balancer.acquire(1)).settle('refused', 2);
    leaseOf(fleet.balancer.acquire(2, { tried: [0] })).settle('complete', 3);
    expect(fleet.refs.map((ref) => fleet.table.read(ref)?.retries)).toEqual([0, 1]);
  });
});

describe('averages', () => {
  test('are whole microseconds, with a rest that loses nothing, and -1 for none', () => {
    const [whole, rest] = [new Int32Array(1), new Int32Array(1)];
    fc.assert(
      fc.property(fc.double({ min: 0, max: 2e9, noNaN: true }), (us) => {
        storeUs(whole, rest, 0, us);
        expect(whole[0]).toBe(Math.round(us));
        expect(Math.abs(loadUs(whole, rest, 0) - us)).toBeLessThanOrEqual(2 ** -21);
      }),
      { numRuns: 2000 },
    );
    storeUs(whole, rest, 0, 1e12);
    expect(loadUs(whole, rest, 0)).toBeGreaterThanOrEqual(2 ** 31 - 1);
    whole[0] = -1;
    expect(loadUs(whole, rest, 0)).toBe(-1);
  });

  test('follow a thousand samples a second, which whole microseconds alone would not', () => {
    const fleet = createFleet({ size: 1, strategy: 'least_response_time' });
    const at = (now: number, ms: number) => {
      const lease = leaseOf(fleet.balancer.acquire(now));
      lease.firstByte(now + ms);
      lease.settle('complete', now + ms);
    };
    at(0, 1);
    for (let now = 1; now < 90_000; now++) at(now, 2);
    expect(fleet.table.read(fleet.refs[0]!)?.avgMs).toBeGreaterThan(1.94);
    expect(fleet.table.columns.costUs[0]).toBeGreaterThan(1940);
  });
});

describe('percentile', () => {
  const histogramOf = (values: readonly number[]) => {
    const histogram = new Array<number>(ttfbBoundsMs.length + 1).fill(0);
    for (const ms of values) histogram[ttfbBucket(ms)] = (histogram[ttfbBucket(ms)] as number) + 1;
    return histogram;
  };

  test('the bounds rise from 0.1 ms to 300 s', () => {
    expect(ttfbBoundsMs[0]).toBe(0.1);
    expect(ttfbBoundsMs.at(-1)).toBe(300_000);
    expect(ttfbBoundsMs.every((ms, i) => i === 0 || ms > (ttfbBoundsMs[i - 1] as number))).toBe(true);
  });

  test('it lies in the bucket of the exact percentile', () => {
    fc.assert(
      fc.property(
        fc.array(fc.double({ min: 0.01, max: 290_000, noNaN: true }), { minLength: 1, maxLength: 200 }),
        fc.double({ min: 0.01, max: 0.99, noNaN: true }),
        (values, p) => {
          const exact = [...values].sort((a, b) => a - b)[Math.ceil(p * values.length) - 1] as number;
          const bucket = ttfbBucket(exact);
          const answer = percentile(histogramOf(values), p) as number;
          return answer >= (ttfbBoundsMs[bucket - 1] ?? 0) && answer <= (ttfbBoundsMs[bucket] as number);
        },
      ),
    );
  });

  test('nothing counted gives null, and 95 means 0.95', () => {
    expect(percentile(histogramOf([]), 0.95)).toBe(null);
    const histogram = histogramOf([1, 2, 3, 400]);
    expect(percentile(histogram, 50)).toBe(percentile(histogram, 0.5));
    expect(percentile(histogramOf([1e9]), 0.5)).toBe(300_000);
  });
});

describe('decision trace', () => {
  const idOf = (row: number) => `gpu-${row}`;

  test('it tells why each running upstream could not be picked and what was compared of the others', () => {
    const fleet = createFleet({ size: 6, strategy: 'least_connections', ceiling: 1 });
    const { table, balancer, refs } = fleet;
    table.setDraining(refs[0]!, true, 0);
    table.setRunning(refs[1]!, false, 0);
    leaseOf(balancer.acquire(1, { tried: [3, 4, 5] }));
    const allowed = new Uint8Array(64).fill(1, 0, 5);
    const lease = leaseOf(balancer.acquire(1000, { tried: [4], allowed }));
    lease.firstByte(1020);
    lease.settle('complete', 1100);
    const [decision] = balancer.trace.recent(1, idOf, 5_000_000);
    expect(decision).toEqual({
      at: 5_001_000,
      strategy: 'least_connections',
      winner: 'gpu-3',
      candidates: [
        { id: 'gpu-0', excluded: 'draining', score: null },
        { id: 'gpu-2', excluded: 'at its ceiling', score: null },
        { id: 'gpu-3', excluded: null, score: 0 },
        { id: 'gpu-4', excluded: 'already tried by this request', score: null },
        { id: 'gpu-5', excluded: 'does not have the model', score: null },
      ],
      ending: 'complete',
      ttfbMs: 20,
      totalMs: 100,
    });
  });

  test('open picks and refusals are in it from the start, endings when they come', () => {
    const { balancer } = createFleet({ size: 1, strategy: 'round_robin', ceiling: 1 });
    const lease = leaseOf(balancer.acquire(1));
    expect(balancer.acquire(2)).toBe('full');
    const kept = () => balancer.trace.recent(10, idOf, 0);
    expect(kept()).toMatchObject([{ winner: null }, { winner: 'gpu-0', ending: null }]);
    lease.settle('client_gone', 3);
    expect(kept()[1]).toMatchObject({ winner: 'gpu-0', ending: 'client_gone', ttfbMs: null });
  });

  test('of a large fleet the winner is always among the candidates that are kept', () => {
    const { balancer } = createFleet({ size: 64, strategy: 'round_robin' });
    for (let i = 0; i < 64; i++) leaseOf(balancer.acquire(i));
    for (const decision of balancer.trace.recent(100, idOf, 0)) {
      expect(decision.candidates.some((c) => c.id === decision.winner && c.excluded === null)).toBe(true);
    }
  });

  test('it keeps the newest, and a lease that ends after its place was taken changes nothing', () => {
    const { balancer } = createFleet({ size: 1, strategy: 'round_robin' });
    const old = leaseOf(balancer.acquire(0));
    for (let i = 1; i <= 1500; i++) leaseOf(balancer.acquire(i)).settle('complete', i);
    old.settle('refused', 2000);
    const kept = balancer.trace.recent(5000, idOf, 0);
    expect(kept.length).toBe(1000);
    expect(kept[0]?.at).toBe(1500);
    expect(kept.some((d) => d.ending === 'refused')).toBe(false);
    expect(balancer.trace.recent(1, () => null, 0)[0]?.winner).toBe('(gone)');
  });
});
