import { describe, expect, test } from 'vitest';
import type { Lease } from '../../src/core/balancer.ts';
import { type Ending, endings } from '../../src/core/domain.ts';
import { type Verdict, verdicts } from '../../src/core/health.ts';
import { createFleet, type Fleet, joinFleet, leaseOf } from './fleet.ts';

/** A lease on that very row. */
const on = (fleet: Fleet, row: number, now: number): Lease => {
  const others = fleet.refs.map((ref) => ref.row).filter((r) => r !== row);
  const lease = leaseOf(fleet.balancer.acquire(now, { tried: others }));
  expect(lease.row).toBe(row);
  return lease;
};
const end = (fleet: Fleet, row: number, ending: Ending, now: number, retryAfterMs?: number) =>
  on(fleet, row, now).settle(ending, now, retryAfterMs);
const fail = (fleet: Fleet, row: number, now: number, times = 3) => {
  for (let i = 0; i < times; i++) end(fleet, row, 'server_error', now);
};
const state = (fleet: Fleet, row: number) => fleet.table.read(fleet.refs[row]!);

describe('how an attempt ended', () => {
  const worth: Readonly<Record<Ending, { verdict: Verdict; shown: boolean; costMs: number | null }>> = {
    // A known average of 100 ms; the attempt took 2,000 ms, its first byte (where one came) 400 ms; long after the last sample.
    complete: { verdict: 'success', shown: true, costMs: 400 },
    client_error: { verdict: 'neutral', shown: false, costMs: null },
    server_error: { verdict: 'failure', shown: false, costMs: 5000 },
    refused: { verdict: 'failure', shown: false, costMs: 5000 },
    first_byte_timeout: { verdict: 'failure', shown: false, costMs: 2000 },
    backoff: { verdict: 'backoff', shown: false, costMs: null },
    truncated: { verdict: 'failure', shown: false, costMs: 5000 },
    idle_timeout: { verdict: 'failure', shown: false, costMs: 5000 },
    client_gone: { verdict: 'neutral', shown: false, costMs: 2000 },
    drained: { verdict: 'neutral', shown: false, costMs: null },
  };

  test.each(endings)('%s counts for health, for the shown average and for the cost as it should', (ending) => {
    const fleet = createFleet({ size: 4, strategy: 'least_response_time' });
    const first = on(fleet, 0, 0);
    first.firstByte(100);
    first.settle('complete', 100);
    const much = 1e9;
    const lease = on(fleet, 0, much);
    if (['complete', 'truncated', 'idle_timeout'].includes(ending)) lease.firstByte(much + 400);
    lease.settle(ending, much + 2000, 700);
    const expected = worth[ending];
    expect(verdicts[ending]).toBe(expected.verdict);
    const row = state(fleet, 0)!;
    expect(row.endings[ending]).toBe(ending === 'complete' ? 2 : 1);
    expect(row.avgMs).toBeCloseTo(expected.shown ? 400 : 100, 3);
    expect(row.lastMs).toBeCloseTo(expected.shown ? 400 : 100, 3);
    expect((fleet.table.columns.costUs[0] as number) / 1000).toBeCloseTo(expected.costMs ?? 100, 3);
    expect(row.health).toBe(expected.verdict === 'backoff' ? 'backoff' : 'up');
    expect(row.healthUntilMs).toBe(expected.verdict === 'backoff' ? much + 2700 : null);
    expect(row.ttfbHistogram.reduce((a, b) => a + b, 0)).toBe(expected.shown ? 2 : 1);

    // Three in a row eject if, and only if, it is a failure.
    for (let i = 0; i < 2 && expected.verdict !== 'backoff'; i++) end(fleet, 0, ending, much + 3000);
    expect(state(fleet, 0)?.health === 'ejected').toBe(expected.verdict === 'failure');
  });

  test('a client that leaves early is no sample, and never a first one', () => {
    const fleet = createFleet({ size: 2, strategy: 'least_response_time' });
    on(fleet, 0, 1000).settle('client_gone', 1900);
    expect(fleet.table.columns.costUs[0]).toBe(-1);
    const slow = on(fleet, 0, 2000);
    slow.firstByte(2500);
    slow.settle('complete', 3000);
    const gone = on(fleet, 0, 1e9);
    gone.settle('client_gone', 1e9 + 10);
    expect(fleet.table.columns.costUs[0]).toBe(500_000);
  });
});

describe('health', () => {
  test('a success in between starts the count of failures anew, a good probe does not', () => {
    const fleet = createFleet({ size: 4, strategy: 'round_robin' });
    fail(fleet, 0, 1, 2);
    end(fleet, 0, 'complete', 2);
    fail(fleet, 0, 3, 2);
    fleet.balancer.probed(fleet.refs[0]!, true, 4, '');
    expect(state(fleet, 0)?.health).toBe('up');
    fail(fleet, 0, 5, 1);
    expect(state(fleet, 0)?.health).toBe('ejected');
  });

  test('each ejection in a row lasts twice as long, up to the longest', () => {
    const fleet = createFleet({ size: 4, strategy: 'round_robin', settings: { ejectMaxMs: 60_000 } });
    let now = 1000;
    const lasted: number[] = [];
    fail(fleet, 0, now);
    for (let i = 0; i < 6; i++) {
      const until = state(fleet, 0)?.healthUntilMs ?? 0;
      lasted.push(until - now);
      expect(fleet.balancer.acquire(until - 1, { tried: [1, 2, 3] })).toBe('none');
      now = until;
      fail(fleet, 0, now, 1);
    }
    expect(lasted).toEqual([5000, 10_000, 20_000, 40_000, 60_000, 60_000]);
    expect(state(fleet, 0)?.ejections).toBe(7);
  });

  test('probation lets in one request at a time; a neutral end frees its place without judging', () => {
    const fleet = createFleet({ size: 4, strategy: 'least_connections' });
    fail(fleet, 0, 0);
    const trial = on(fleet, 0, 5000);
    expect(state(fleet, 0)?.health).toBe('probation');
    expect(fleet.balancer.acquire(5001, { tried: [1, 2, 3] })).toBe('none');
    trial.settle('client_gone', 5002);
    expect(state(fleet, 0)?.health).toBe('probation');
    const again = on(fleet, 0, 5003);
    again.settle('complete', 5004);
    expect(state(fleet, 0)?.health).toBe('up');
  });

  test('requests from before an ejection neither prolong nor end it', () => {
    const fleet = createFleet({ size: 4, strategy: 'round_robin' });
    const old = [0, 1, 2, 3].map(() => on(fleet, 0, 0));
    const paused = on(fleet, 0, 0);
    fail(fleet, 0, 10);
    const until = state(fleet, 0)?.healthUntilMs;
    old[0]?.settle('refused', 20);
    paused.settle('backoff', 20, 1);
    old[1]?.settle('complete', 30);
    expect(state(fleet, 0)).toMatchObject({ health: 'ejected', healthUntilMs: until, ejections: 1 });
    const trial = on(fleet, 0, 6000);
    old[2]?.settle('complete', 6001);
    expect(state(fleet, 0)?.health).toBe('probation');
    expect(fleet.balancer.acquire(6002, { tried: [1, 2, 3] })).toBe('none');
    trial.settle('complete', 6003);
    expect(state(fleet, 0)?.health).toBe('up');
    old[3]?.settle('complete', 6004);
    expect(state(fleet, 0)?.active).toBe(0);
  });

  test('traffic ejects at most half of the fleet', () => {
    const fleet = createFleet({ size: 5, strategy: 'round_robin' });
    for (let row = 0; row < 5; row++) fail(fleet, row, 10);
    expect([0, 1, 2, 3, 4].map((row) => state(fleet, row)?.health)).toEqual(['ejected', 'ejected', 'up', 'up', 'up']);
  });

  test('the only upstream is never ejected by traffic', () => {
    const fleet = createFleet({ size: 1, strategy: 'round_robin' });
    fail(fleet, 0, 10, 20);
    expect(state(fleet, 0)?.health).toBe('up');
  });

  test('failing probes eject whoever they are about, and panic then sends requests to all that are not known dead', () => {
    const fleet = createFleet({ size: 4, strategy: 'least_connections' });
    fail(fleet, 0, 0);
    expect(fleet.balancer.acquire(1, { tried: [1, 2, 3] })).toBe('none');
    for (const row of [1, 2]) {
      for (let i = 0; i < 3; i++) fleet.balancer.probed(fleet.refs[row]!, false, 2, 'no answer');
    }
    expect(state(fleet, 1)).toMatchObject({ health: 'ejected', healthWhy: 'probe failed: no answer' });
    // Three of four are out: the one that traffic ejected is worth a try, the two dead ones are not.
    const rows = new Set(Array.from({ length: 8 }, () => leaseOf(fleet.balancer.acquire(3)).row));
    expect([...rows].sort()).toEqual([0, 3]);
    // What a request itself asks for holds in panic too.
    const allowed = new Uint8Array(64);
    allowed[3] = 1;
    for (let i = 0; i < 3; i++) expect(leaseOf(fleet.balancer.acquire(3, { allowed })).row).toBe(3);
    const lease = on(fleet, 0, 4);
    lease.settle('complete', 5);
    expect(state(fleet, 0)?.health).toBe('up');
  });

  test('in panic one on probation gets more than its one request', () => {
    const fleet = createFleet({ size: 2, strategy: 'least_connections' });
    fail(fleet, 0, 0);
    for (let i = 0; i < 3; i++) fleet.balancer.probed(fleet.refs[1]!, false, 1, 'no answer');
    const rows = [0, 1, 2].map(() => leaseOf(fleet.balancer.acquire(6000)).row);
    expect(rows).toEqual([0, 0, 0]);
    expect(state(fleet, 0)?.health).toBe('probation');
  });

  test('the probation of a thread that died is open to another request', () => {
    const fleet = createFleet({ size: 3, strategy: 'round_robin' });
    fail(fleet, 0, 0);
    on(fleet, 0, 6000);
    expect(fleet.balancer.acquire(6001, { tried: [1, 2] })).toBe('none');
    fleet.table.releaseThread(0);
    expect(leaseOf(fleet.balancer.acquire(6002, { tried: [1, 2] })).row).toBe(0);
  });

  test('one whose probes fail stays out when its time is over, and comes back on a good probe', () => {
    const fleet = createFleet({ size: 4, strategy: 'round_robin' });
    for (let i = 0; i < 3; i++) fleet.balancer.probed(fleet.refs[0]!, false, 0, 'refused');
    expect(fleet.balancer.acquire(1e6, { tried: [1, 2, 3] })).toBe('none');
    fleet.balancer.probed(fleet.refs[0]!, true, 1e6, '');
    expect(state(fleet, 0)?.health).toBe('probation');
    end(fleet, 0, 'complete', 1e6);
    expect(state(fleet, 0)?.health).toBe('up');
  });

  test('back-off ends when the upstream said, returns to where it was, and is no failure', () => {
    const fleet = createFleet({ size: 2, strategy: 'round_robin' });
    end(fleet, 0, 'backoff', 100, 2000);
    expect(state(fleet, 0)).toMatchObject({ health: 'backoff', healthUntilMs: 2100, ejections: 0 });
    expect(fleet.balancer.acquire(2099, { tried: [1] })).toBe('none');
    on(fleet, 0, 2100).settle('complete', 2101);
    expect(state(fleet, 0)?.health).toBe('up');
  });

  test('of several open requests that are told to wait the longest pause counts', () => {
    const fleet = createFleet({ size: 2, strategy: 'round_robin' });
    const [first, second, third, late] = [0, 1, 2, 3].map(() => on(fleet, 0, 100));
    first?.settle('backoff', 200, 1000);
    second?.settle('backoff', 300, 5000);
    third?.settle('backoff', 400, 10);
    expect(state(fleet, 0)).toMatchObject({ health: 'backoff', healthUntilMs: 5300 });
    on(fleet, 0, 5300).settle('complete', 5301);
    expect(state(fleet, 0)?.health).toBe('up');
    late?.settle('backoff', 5400, 100);
    expect(state(fleet, 0)).toMatchObject({ health: 'backoff', healthUntilMs: 5500 });
  });

  test('who was out enters equal_weighted level with those in service, also after a back-off', () => {
    const fleet = createFleet({ size: 4, strategy: 'equal_weighted' });
    fail(fleet, 0, 10);
    for (let i = 0; i < 60; i++) end(fleet, 1 + (i % 3), 'complete', 20);
    end(fleet, 1, 'backoff', 30, 1000);
    for (let i = 0; i < 60; i++) end(fleet, 2 + (i % 2), 'complete', 40);
    const taken = (now: number, tried: number[]) => {
      const rows = Array.from({ length: 6 }, () => {
        const lease = leaseOf(fleet.balancer.acquire(now, { tried }));
        lease.settle('complete', now);
        return lease.row;
      });
      return rows.filter((row) => row === 1).length;
    };
    // Not with the one that is still ejected at three requests: that would be far below.
    expect(taken(2000, [0])).toBe(2);
    const joined = joinFleet(fleet, 2000);
    expect(fleet.table.columns.offset[joined.row]).toBeGreaterThan(40);
  });

  test('after an ejection its old response times are forgotten', () => {
    const fleet = createFleet({ size: 4, strategy: 'least_response_time' });
    const slow = on(fleet, 0, 0);
    slow.firstByte(9000);
    slow.settle('complete', 9000);
    fail(fleet, 0, 9000);
    on(fleet, 0, 20_000).settle('client_error', 20_010);
    expect(state(fleet, 0)?.health).toBe('probation');
    expect(fleet.table.columns.costUs[0]).toBe(-1);
    expect(state(fleet, 0)?.avgMs).toBe(9000);
  });

  test('a back-off during probation returns to probation', () => {
    const fleet = createFleet({ size: 4, strategy: 'round_robin' });
    fail(fleet, 0, 0);
    end(fleet, 0, 'backoff', 5000, 1000);
    expect(state(fleet, 0)?.health).toBe('backoff');
    on(fleet, 0, 6000);
    expect(state(fleet, 0)?.health).toBe('probation');
  });

  test('ejections stop counting as in a row after as long a time up', () => {
    const fleet = createFleet({ size: 4, strategy: 'round_robin' });
    fail(fleet, 0, 0);
    end(fleet, 0, 'complete', 5000);
    end(fleet, 0, 'complete', 6000);
    expect(state(fleet, 0)?.ejections).toBe(1);
    end(fleet, 0, 'complete', 10_000);
    expect(state(fleet, 0)?.ejections).toBe(0);
  });

  test('what is over shows as over, also when no pick has come since', () => {
    const fleet = createFleet({ size: 4, strategy: 'round_robin' });
    end(fleet, 0, 'backoff', 100, 1000);
    fail(fleet, 1, 100);
    for (let i = 0; i < 3; i++) fleet.balancer.probed(fleet.refs[2]!, false, 100, 'refused');
    const shown = (now: number) => [0, 1, 2].map((row) => fleet.table.read(fleet.refs[row]!, now)?.health);
    expect(shown(200)).toEqual(['backoff', 'ejected', 'ejected']);
    expect(shown(10_000)).toEqual(['up', 'probation', 'ejected']);
    expect(fleet.table.read(fleet.refs[0]!, 10_000)).toMatchObject({
      inService: true,
      healthUntilMs: null,
      healthWhy: '',
    });
  });

  test('one that stops and runs again starts unknown', () => {
    const fleet = createFleet({ size: 2, strategy: 'round_robin' });
    const [ref] = fleet.refs;
    const slow = on(fleet, 0, 0);
    slow.firstByte(9);
    slow.settle('complete', 9);
    fail(fleet, 0, 9);
    fleet.table.setRunning(ref!, false, 10);
    fleet.table.setRunning(ref!, true, 20);
    expect(state(fleet, 0)).toMatchObject({ health: 'unknown', healthWhy: 'waiting for its first probe' });
    expect(fleet.balancer.acquire(30, { tried: [1] })).toBe('none');
    // Its failures and response times were those of its old self.
    expect(fleet.table.columns.costUs[0]).toBe(-1);
    fleet.balancer.probed(ref!, true, 40, '');
    fail(fleet, 0, 50, 1);
    expect(state(fleet, 0)).toMatchObject({ health: 'up', ejections: 0 });
  });
});

describe('slow start', () => {
  const settings = { slowStartMs: 30_000 };

  test('a joiner ramps up in weight and ceiling from a tenth to the whole', () => {
    const fleet = createFleet({ size: 2, strategy: 'weighted_round_robin', settings, weights: [1, 1], ceiling: 20 });
    const joined = joinFleet(fleet, 100_000, 1, 20);
    const ramp = (now: number) => fleet.table.read(joined, now)?.slowStart;
    expect([100_000, 103_000, 115_000, 129_900, 130_000].map(ramp)).toEqual([0.1, 0.1, 0.5, 0.95, 1]);
    const share = (now: number) => {
      let got = 0;
      for (let i = 0; i < 210; i++) {
        const lease = leaseOf(fleet.balancer.acquire(now));
        if (lease.row === joined.row) got++;
        lease.settle('complete', now);
      }
      return got;
    };
    expect(share(100_000)).toBeCloseTo(10, -1);
    expect(share(115_000)).toBeCloseTo(42, -1);
    expect(share(140_000)).toBeCloseTo(70, -1);
    const tried = fleet.refs.slice(0, 2).map((ref) => ref.row);
    const second = joinFleet(fleet, 200_000, 1, 20);
    const wanted = { tried: [...tried, joined.row] };
    expect(leaseOf(fleet.balancer.acquire(200_000, wanted)).row).toBe(second.row);
    leaseOf(fleet.balancer.acquire(200_000, wanted));
    expect(fleet.balancer.acquire(200_000, wanted)).toBe('full');
    leaseOf(fleet.balancer.acquire(210_000, wanted));
  });

  test('of a ceiling so low that a tenth is nothing, one request is let in from the start', () => {
    const fleet = createFleet({ size: 1, strategy: 'round_robin', settings, ceiling: 5 });
    const joined = joinFleet(fleet, 100_000, 1, 5);
    expect(leaseOf(fleet.balancer.acquire(100_000, { tried: [0] })).row).toBe(joined.row);
    expect(fleet.balancer.acquire(100_000, { tried: [0] })).toBe('full');
  });

  test('a recovered one ramps up too', () => {
    const fleet = createFleet({ size: 4, strategy: 'round_robin', settings });
    fail(fleet, 0, 100_000);
    end(fleet, 0, 'complete', 105_000);
    expect(fleet.table.read(fleet.refs[0]!, 106_000)?.slowStart).toBe(0.1);
    expect(fleet.table.read(fleet.refs[1]!, 106_000)?.slowStart).toBe(1);
  });

  test('nobody is held back when all are new', () => {
    const fleet = createFleet({ size: 3, strategy: 'least_connections', settings, ceiling: 10 });
    expect(fleet.refs.map((ref) => fleet.table.read(ref, 1)?.slowStart)).toEqual([1, 1, 1]);
    for (let i = 0; i < 30; i++) leaseOf(fleet.balancer.acquire(1));
    expect(fleet.balancer.acquire(1)).toBe('full');
  });
});

describe('switched off', () => {
  test('without balancing the first eligible in fleet order takes everything, and loads are tracked all the same', () => {
    const fleet = createFleet({ size: 3, strategy: 'round_robin', ceiling: 4 });
    fleet.table.balancing = false;
    const rows = Array.from({ length: 5 }, () => leaseOf(fleet.balancer.acquire(1)).row);
    expect(rows).toEqual([0, 0, 0, 0, 1]);
    fleet.table.leave(fleet.refs[0]!);
    const late = joinFleet(fleet, 2);
    expect(late.row).toBe(0);
    // The row of the one that left is used again, but its tenant is the youngest.
    expect(leaseOf(fleet.balancer.acquire(3)).row).toBe(1);
    expect(fleet.table.totals().total).toBe(6);
  });
});
