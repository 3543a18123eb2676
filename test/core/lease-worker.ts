import { parentPort, workerData } from 'node:worker_threads';
import { createBalancer, type Lease } from '../../src/core/balancer.ts';
import { endings } from '../../src/core/domain.ts';
import { LoadTable } from '../../src/core/load-table.ts';

/** Leases and settles on a shared table: so many times, or (`count` 0) until it is terminated. */
const { buffer, thread, count, hold } = workerData as {
  buffer: SharedArrayBuffer;
  thread: number;
  count: number;
  hold: number;
};
// Not back-off: the threads of this test do not share a clock, and it would last longer in one than in another.
const kinds = endings.filter((ending) => ending !== 'backoff');
const balancer = createBalancer(new LoadTable(buffer), { maxEjectedFraction: 0, slowStartMs: 0 }, { thread });
const open: Lease[] = [];
let placed = 0;
const forever = count === 0;
if (forever) parentPort?.postMessage('started');
for (let i = 0; forever || i < count; i++) {
  const lease = balancer.acquire(i / 100);
  if (typeof lease === 'string') continue;
  placed++;
  open.push(lease);
  if (open.length > hold) open.shift()?.settle(kinds[i % kinds.length] as (typeof endings)[number], i / 100);
}
if (hold === 0 || count > 0) for (const lease of open) lease.settle('complete', count / 100);
parentPort?.postMessage(placed);
