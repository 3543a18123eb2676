import { describe, expect, test } from 'vitest';
import { createBalancer, type Lease } from '../../src/core/balancer.ts';
import { strategyNames } from '../../src/core/domain.ts';
import { LoadTable, type RowRef } from '../../src/core/load-table.ts';

const fleet = (n: number, options: { ceiling?: number; slowStartMs?: number; weights?: number[] } = {}) => {
  const table = LoadTable.create(64);
  const balancer = createBalancer(table, { slowStartMs: options.slowStartMs ?? 0 });
  const refs: RowRef[] = [];
  for (let i = 0; i < n; i++) {
    const ref = table.join({ weight: options.weights?.[i] ?? 1, ceiling: options.ceiling ?? 0, now: 0 });
    table.setRunning(ref, true, 0);
    balancer.probed(ref, true, 0, '');
    refs.push(ref);
  }
  return { table, balancer, refs };
};
const taken = (lease: Lease | string): Lease => {
  if (typeof lease === 'string') throw new Error(`expected a lease, got ${lease}`);
  return lease;
};

describe('balancer', () => {
  test.each(strategyNames)('%s serves every upstream and leaves nothing open', (strategy) => {
    const { table, balancer, refs } = fleet(4);
    table.strategy = strategy;
    const seen = new Set<number>();
    const open: Lease[] = [];
    for (let i = 0; i < 40; i++) {
      const lease = taken(balancer.acquire(i));
      seen.add(lease.row);
      open.push(lease);
      if (open.length > 3) open.shift()?.settle('complete', i);
    }
    for (const lease of open) lease.settle('complete', 50);
    expect(seen.size).toBe(4);
    expect(table.totals().active).toBe(0);
    expect(table.totals().total).toBe(40);
    expect(table.totals().endings.complete).toBe(40);
    expect(table.totals().picksByStrategy[strategy]).toBe(40);
    expect(refs.map((ref) => table.read(ref)?.active)).toEqual([0, 0, 0, 0]);
  });

  test('an upstream gets nothing before its first good probe', () => {
    const table = LoadTable.create(8);
    const balancer = createBalancer(table);
    const ref = table.join({ weight: 1, ceiling: 0, now: 0 });
    expect(balancer.acquire(0)).toBe('none');
    table.setRunning(ref, true, 0);
    expect(balancer.acquire(0)).toBe('none');
    balancer.probed(ref, false, 0, '503 from /health');
    expect(table.read(ref)?.healthWhy).toBe('not ready yet: 503 from /health');
    balancer.probed(ref, true, 0, '');
    expect(taken(balancer.acquire(1)).row).toBe(ref.row);
  });

  test('weights {5,1,1} give the order a a a b a a c', () => {
    const { table, balancer } = fleet(3, { weights: [5, 1, 1] });
    table.strategy = 'weighted_round_robin';
    const order = Array.from({ length: 14 }, (_, i) => 'abc'[taken(balancer.acquire(i)).row]).join('');
    expect(order).toBe('aaabaacaaabaac');
  });

  test('three failures eject for the base time, then a single request is let in', () => {
    const { table, balancer, refs } = fleet(2);
    const fail = (now: number) => {
      for (;;) {
        const lease = taken(balancer.acquire(now));
        if (lease.row === 0) return lease.settle('refused', now);
        lease.settle('complete', now);
      }
    };
    fail(1);
    fail(2);
    fail(3);
    expect(table.read(refs[0]!)).toMatchObject({ health: 'ejected', healthUntilMs: 5003, ejections: 1 });
    expect(table.read(refs[0]!)?.healthWhy).toBe('3 failures in a row, the last: connection refused or reset');
    expect(taken(balancer.acquire(4)).row).toBe(1);
    const trial = taken(balancer.acquire(5003));
    expect(trial.row).toBe(0);
    expect(taken(balancer.acquire(5004)).row).toBe(1);
    trial.settle('complete', 5005);
    expect(table.read(refs[0]!)?.health).toBe('up');
  });

  test('full ceilings are told apart from nothing eligible', () => {
    const { balancer } = fleet(2, { ceiling: 1 });
    const first = taken(balancer.acquire(1));
    taken(balancer.acquire(1));
    expect(balancer.acquire(1)).toBe('full');
    expect(balancer.acquire(1, { tried: [0, 1] })).toBe('none');
    first.settle('complete', 2);
    expect(taken(balancer.acquire(3)).row).toBe(first.row);
  });

  test('a lease on an upstream that has left settles in the totals alone', () => {
    const { table, balancer, refs } = fleet(1);
    const lease = taken(balancer.acquire(1));
    table.leave(refs[0]!);
    const next = table.join({ weight: 1, ceiling: 0, now: 2 });
    expect(next.row).toBe(0);
    lease.firstByte(3);
    lease.settle('complete', 3);
    lease.settle('complete', 3);
    expect(table.read(next)).toMatchObject({ active: 0, total: 0, avgMs: null, endings: { complete: 0 } });
    expect(table.read(refs[0]!)).toBe(null);
    expect(table.totals()).toMatchObject({ active: 0, total: 1 });
  });
});
