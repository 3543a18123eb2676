/**
 * Cost of one pick: `npm run bench:pick`. Prints nanoseconds a pick by strategy and fleet size, and the bytes of heap
 * that picks alone leave behind (expected: none), and the cost of a whole lease (acquire, first byte, settle).
 */
import { createBalancer, type Lease } from '../src/core/balancer.ts';
import { type StrategyName, strategyNames } from '../src/core/domain.ts';
import { LoadTable } from '../src/core/load-table.ts';

const sizes = [4, 16, 64, 256, 1024, 10_000];
const collect = (globalThis as { gc?: () => void }).gc;
const quick = process.argv.includes('--quick');

function fleet(strategy: StrategyName, size: number) {
  const table = LoadTable.create(size);
  const balancer = createBalancer(table, { slowStartMs: 0 });
  table.strategy = strategy;
  let seed = 42;
  const random = () => (seed = (seed * 1_103_515_245 + 12_345) % 2 ** 31) / 2 ** 31;
  for (let i = 0; i < size; i++) {
    const ref = table.join({ weight: [1, 1.2, 1.5, 1.8, 2, 3][i % 6] as number, ceiling: 256, now: 0 });
    table.setRunning(ref, true, 0);
    balancer.probed(ref, true, 0, '');
  }
  // Every row with history: samples, totals, some open requests.
  let now = 0;
  const open: Lease[] = [];
  for (let i = 0; i < size * 4; i++) {
    now += 0.5;
    const lease = balancer.acquire(now);
    if (typeof lease === 'string') throw new Error(lease);
    lease.firstByte(now + 20 + random() * 200);
    open.push(lease);
    if (open.length > size) open.shift()?.settle('complete', now + 300);
  }
  return { table, balancer, now };
}

/** Nanoseconds a call: the median of several rounds, so that one preemption does not count. */
function measure(call: (now: number) => void, from: number, budgetMs: number): number {
  let now = from;
  let calls = 16;
  const rounds: number[] = [];
  const end = performance.now() + budgetMs;
  while (performance.now() < end || rounds.length < 5) {
    const start = performance.now();
    for (let i = 0; i < calls; i++) call((now += 0.01));
    const ms = performance.now() - start;
    if (ms < 2) calls *= 2;
    else rounds.push((ms * 1e6) / calls);
  }
  rounds.sort((a, b) => a - b);
  return rounds[rounds.length >> 1] as number;
}

const budgetMs = quick ? 60 : 400;
console.log(`Node ${process.version}; nanoseconds, median; targets: 2,000 at 64 upstreams and 20,000 at 1,024\n`);
console.log(`${'pick'.padEnd(24)}${sizes.map((size) => String(size).padStart(10)).join('')}`);
let missed = 0;
for (const strategy of strategyNames) {
  const cells = sizes.map((size) => {
    const { balancer, now } = fleet(strategy, size);
    const ns = measure((time) => balancer.pick(time), now, budgetMs);
    if ((size === 64 && ns > 2000) || (size === 1024 && ns > 20_000)) missed++;
    return Math.round(ns).toLocaleString('en').padStart(10);
  });
  console.log(`${strategy.padEnd(24)}${cells.join('')}`);
}

console.log(`\n${'acquire + settle'.padEnd(24)}${sizes.map((size) => String(size).padStart(10)).join('')}`);
for (const strategy of strategyNames) {
  const cells = sizes.map((size) => {
    const { balancer, now } = fleet(strategy, size);
    const ns = measure(
      (time) => {
        const lease = balancer.acquire(time);
        if (typeof lease === 'string') return;
        lease.firstByte(time);
        lease.settle('complete', time);
      },
      now,
      budgetMs / 2,
    );
    return Math.round(ns).toLocaleString('en').padStart(10);
  });
  console.log(`${strategy.padEnd(24)}${cells.join('')}`);
}

if (collect === undefined) console.log('\nheap: run with --expose-gc to count');
else {
  console.log('\nheap grown by 100,000 picks at 64 upstreams, bytes (one number boxed a pick would be 1,600,000)');
  for (const strategy of strategyNames) {
    const { balancer, now } = fleet(strategy, 64);
    // Boxed beforehand, as a list that also holds a string keeps them: the clock's own number is not the pick's.
    const times: unknown[] = ['', ...Array.from({ length: 100_000 }, (_, i) => now + i * 0.01)];
    for (let i = 1; i <= 20_000; i++) balancer.pick(times[i] as number);
    // The reading of memoryUsage itself allocates: the least of several trials is what the picks leave.
    let least = Number.POSITIVE_INFINITY;
    for (let trial = 0; trial < 5; trial++) {
      collect();
      const before = process.memoryUsage().heapUsed;
      for (let i = 1; i <= 100_000; i++) balancer.pick(times[i] as number);
      least = Math.min(least, process.memoryUsage().heapUsed - before);
    }
    console.log(`${strategy.padEnd(24)}${least.toLocaleString('en').padStart(10)}`);
  }
}
if (missed > 0) {
  console.log(`\n${missed} target(s) missed`);
  process.exitCode = 1;
}
