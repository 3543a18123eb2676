/**
 * Cost of one pick: `npm run bench:pick`. Prints, by strategy and fleet size, nanoseconds a pick and a whole lease
 * (acquire, first byte, settle), and the bytes of heap that 100,000 picks leave behind (expected: next to none).
 *
 * Every cell is a process of its own, as a server is: code that has seen many tables is optimised for none of them.
 */
import { execFileSync } from 'node:child_process';
import { parseArgs } from 'node:util';
import { createBalancer, type Lease } from '../src/core/balancer.ts';
import { type StrategyName, strategyNames } from '../src/core/domain.ts';
import { LoadTable } from '../src/core/load-table.ts';
import { createRandom } from '../src/core/random.ts';

const sizes = [4, 16, 64, 256, 1024, 10_000];
const targets: Readonly<Record<number, number>> = { 64: 2000, 1024: 20_000 };

type Cell = { pickNs: number; leaseNs: number; heapBytes: number };

/** A fleet with history in every row: samples, totals, some open requests. */
function fleet(strategy: StrategyName, size: number) {
  const table = LoadTable.create(size);
  const balancer = createBalancer(table, { slowStartMs: 0 });
  table.strategy = strategy;
  const random = createRandom(42);
  for (let i = 0; i < size; i++) {
    const ref = table.join({ weight: [1, 1.2, 1.5, 1.8, 2, 3][i % 6] as number, ceiling: 256, now: 0 });
    table.setRunning(ref, true, 0);
    balancer.probed(ref, true, 0, '');
  }
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
  return { balancer, now };
}

/** Nanoseconds a call: the median of many short rounds, so that being preempted does not count. */
function measure(call: (now: number) => void, from: number, budgetMs: number): number {
  let now = from;
  let calls = 16;
  const rounds: number[] = [];
  const end = performance.now() + budgetMs;
  while (performance.now() < end || rounds.length < 20) {
    const start = performance.now();
    for (let i = 0; i < calls; i++) call((now += 0.01));
    const ms = performance.now() - start;
    if (ms < 0.3) calls *= 2;
    else rounds.push((ms * 1e6) / calls);
  }
  // The first half is warm-up.
  const warm = rounds.slice(rounds.length >> 1).sort((a, b) => a - b);
  return warm[warm.length >> 1] as number;
}

function cell(strategy: StrategyName, size: number, budgetMs: number): Cell {
  const { balancer, now } = fleet(strategy, size);
  const pickNs = measure((time) => balancer.pick(time), now, budgetMs);
  const leaseNs = measure(
    (time) => {
      const lease = balancer.acquire(time);
      if (typeof lease === 'string') return;
      lease.firstByte(time);
      lease.settle('complete', time);
    },
    now + 1e6,
    budgetMs,
  );
  // Boxed beforehand, as a list that also holds a string keeps them: the clock's own number is not the pick's.
  const picks = size > 1024 ? 2000 : 100_000;
  const times: unknown[] = ['', ...Array.from({ length: picks }, (_, i) => now + 2e6 + i * 0.01)];
  const collect = (globalThis as { gc?: () => void }).gc;
  let heapBytes = Number.POSITIVE_INFINITY;
  // Reading the counter allocates too, and code is compiled now and then: the least of several trials is the picks' own.
  for (let trial = 0; trial < 3; trial++) {
    collect?.();
    const before = process.memoryUsage().heapUsed;
    for (let i = 1; i <= picks; i++) balancer.pick(times[i] as number);
    heapBytes = Math.min(heapBytes, process.memoryUsage().heapUsed - before);
  }
  return { pickNs, leaseNs, heapBytes };
}

const { values } = parseArgs({ options: { one: { type: 'string' }, quick: { type: 'boolean', default: false } } });
if (values.one !== undefined) {
  const [strategy, size, budget] = values.one.split(' ');
  console.log(JSON.stringify(cell(strategy as StrategyName, Number(size), Number(budget))));
} else {
  const budgetMs = values.quick ? 100 : 500;
  const results = strategyNames.map((strategy) =>
    sizes.map((size): Cell => {
      const args = ['--expose-gc', import.meta.filename, '--one', `${strategy} ${size} ${budgetMs}`];
      return JSON.parse(execFileSync(process.execPath, args, { encoding: 'utf8' })) as Cell;
    }),
  );
  const print = (title: string, value: (cell: Cell) => number) => {
    console.log(`${title.padEnd(26)}${sizes.map((size) => size.toLocaleString('en').padStart(11)).join('')}`);
    strategyNames.forEach((strategy, i) => {
      const cells = (results[i] ?? []).map((result) => Math.round(value(result)).toLocaleString('en').padStart(11));
      console.log(`${strategy.padEnd(26)}${cells.join('')}`);
    });
    console.log();
  };
  console.log(`Node ${process.version}, by number of upstreams. Targets: 2,000 ns at 64, 20,000 ns at 1,024.\n`);
  print('ns a pick', (result) => result.pickNs);
  print('ns acquire + settle', (result) => result.leaseNs);
  print('heap bytes, all picks', (result) => Math.max(0, result.heapBytes));
  const missed = strategyNames.flatMap((strategy, i) =>
    sizes.flatMap((size, j) => {
      const target = targets[size];
      const ns = results[i]?.[j]?.pickNs ?? 0;
      return target !== undefined && ns > target ? [`${strategy} at ${size}: ${Math.round(ns)} ns`] : [];
    }),
  );
  console.log(missed.length === 0 ? 'all targets met' : `missed: ${missed.join(', ')}`);
  process.exitCode = missed.length === 0 ? 0 : 1;
}
