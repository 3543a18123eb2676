import { once } from 'node:events';
import { Worker } from 'node:worker_threads';
import { describe, expect, test } from 'vitest';
import { createBalancer } from '../../src/core/balancer.ts';
import { strategyNames } from '../../src/core/domain.ts';
import { LoadTable, maxThreads } from '../../src/core/load-table.ts';

const sharedFleet = (size: number) => {
  const table = LoadTable.create(16);
  const balancer = createBalancer(table, { maxEjectedFraction: 0, slowStartMs: 0 }, { thread: maxThreads - 1 });
  const refs = Array.from({ length: size }, () => {
    const ref = table.join({ weight: 1.5, ceiling: 0, now: 0 });
    table.setRunning(ref, true, 0);
    balancer.probed(ref, true, 0, '');
    return ref;
  });
  return { table, balancer, refs };
};
const start = (table: LoadTable, thread: number, count: number, hold: number) =>
  new Worker(new URL('./lease-worker.ts', import.meta.url), {
    workerData: { buffer: table.buffer, thread, count, hold },
  });

describe('one table for several threads', () => {
  test('four threads lease and settle at once and every count comes out exact', async () => {
    const { table, refs } = sharedFleet(5);
    const count = 2500;
    const workers = [0, 1, 2, 3].map((thread) => start(table, thread, count, 7));
    const placed = await Promise.all(workers.map(async (worker) => (await once(worker, 'message'))[0] as number));
    await Promise.all(workers.map((worker) => worker.terminate()));
    expect(placed).toEqual([count, count, count, count]);
    const totals = table.totals();
    expect(totals.active).toBe(0);
    expect(totals.total).toBe(4 * count);
    expect(Object.values(totals.endings).reduce((a, b) => a + b, 0)).toBe(4 * count);
    const rows = refs.map((ref) => table.read(ref));
    expect(rows.map((row) => row?.active)).toEqual([0, 0, 0, 0, 0]);
    expect(rows.reduce((sum, row) => sum + (row?.total ?? 0), 0)).toBe(4 * count);
    // Round robin over all threads together, not one ring for each.
    const each = rows.map((row) => row?.total ?? 0);
    expect(Math.max(...each) - Math.min(...each)).toBeLessThanOrEqual(1);
  });

  test('what a thread had open when it was killed is released, and the table works on', async () => {
    const { table, balancer, refs } = sharedFleet(3);
    for (let round = 0; round < 5; round++) {
      table.strategy = strategyNames[round % strategyNames.length]!;
      const worker = start(table, 5, 0, 20);
      await once(worker, 'message');
      const mine = balancer.acquire(round);
      // Killed at a random point, in the lock or out of it.
      await new Promise((resolve) => setTimeout(resolve, 1 + round * 2));
      await worker.terminate();
      table.releaseThread(5);
      expect(table.totals().active).toBe(1);
      expect(refs.reduce((sum, ref) => sum + (table.read(ref)?.active ?? 0), 0)).toBe(1);
      if (typeof mine === 'string') throw new Error(mine);
      mine.settle('complete', round);
      expect(table.totals().active).toBe(0);
    }
    table.releaseThread(5);
    expect(table.totals().active).toBe(0);
    expect(() => table.releaseThread(64)).toThrow('thread: got 64');
  });

  test('a strategy chosen in one thread is the strategy of all', () => {
    const { table } = sharedFleet(1);
    const other = new LoadTable(table.buffer);
    other.strategy = 'least_response_time';
    other.balancing = false;
    expect(table.strategy).toBe('least_response_time');
    expect(table.balancing).toBe(false);
    expect(() => new LoadTable(new SharedArrayBuffer(64 * 1024))).toThrow('not a load table');
  });
});
