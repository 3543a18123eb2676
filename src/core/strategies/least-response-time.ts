import { header, serving } from '../load-table.ts';
import type { Strategy } from './strategy.ts';

/** The fleet's median is taken anew this often; it is what averages without samples drift toward. */
const medianEveryMs = 250;
/** An upstream without a sample is offered a request as soon as it is idle, but not more often than this. */
const firstSampleEveryMs = 1000;
/** One that got nothing for so many time constants is tried again, whatever its average says. */
const retryAfterTaus = 10;

/** e^(−x) in steps of 1/decaySteps; beyond the end it counts as 0. Linear between steps, within 0.0001. */
const decaySteps = 64;
const decayTable = Float64Array.from({ length: 16 * decaySteps + 1 }, (_, i) => Math.exp(-i / decaySteps));

/**
 * Lowest average response time × (open requests + 1), as NGINX's least_time and the peak-EWMA balancers of Finagle and
 * Linkerd do: the lowest average alone sends everything to one instance until it is the slowest.
 */
export const leastResponseTime: Strategy = {
  name: 'least_response_time',
  title: 'Least Response Time',
  summary: 'Routes to the GPU with the lowest average response time',
  useCases: ['Latency-sensitive applications', 'Inference workloads', 'Performance optimization'],
  create({ table, tauMs, tieFraction, scores }) {
    const { active, lastPick, lastUsed, costUs, costAt, serving: serves } = table.columns;
    const { numbers } = table;
    const work = new Float64Array(table.capacity);
    const stepsPerMs = decaySteps / tauMs;

    /** Brings the header's median up to date: the lower median over the upstreams in service that have a sample. */
    function refreshMedian(now: number): void {
      let n = 0;
      for (let row = 0; row < table.high; row++) {
        const us = costUs[row] as number;
        if (serves[row] === serving.yes && us >= 0) work[n++] = us;
      }
      numbers[header.medianUs] = n === 0 ? -1 : select(work, n, (n - 1) >> 1);
      numbers[header.medianAt] = now;
    }

    return (rows, count, now) => {
      const age = now - (numbers[header.medianAt] as number);
      if (!(age >= 0 && age < medianEveryMs) || (numbers[header.medianUs] as number) < 0) refreshMedian(now);
      const middle = numbers[header.medianUs] as number;
      let sampled = false;
      let due = -1;
      let lowest = Number.POSITIVE_INFINITY;
      for (let i = 0; i < count; i++) {
        const row = rows[i] as number;
        const open = active[row] as number;
        // Plain, as all reads under the lock: Atomics.load would double the time of a pick.
        const us = costUs[row] as number;
        let cost = Number.POSITIVE_INFINITY;
        if (us >= 0) {
          sampled = true;
          cost = us;
          const dt = now - (costAt[row] as number);
          if (dt > 0 && middle >= 0) {
            const step = dt * stepsPerMs;
            const whole = step | 0;
            const before = step < decayTable.length - 1 ? (decayTable[whole] as number) : 0;
            const after = step < decayTable.length - 1 ? (decayTable[whole + 1] as number) : 0;
            cost = middle + (us - middle) * (before + (after - before) * (step - whole));
          }
          cost *= open + 1;
        } else if (open === 0 && middle >= 0) {
          // One request at a time until its first sample: a guess of zero would flood it.
          cost = middle;
        }
        scores[row] = cost / 1000;
        work[i] = cost;
        if (cost < lowest) lowest = cost;
        if (open === 0 || us >= 0) {
          // Due whatever it costs; the one longest unserved first.
          const used = lastUsed[row] as number;
          const isDue = used < 0 || now - used >= (us >= 0 ? retryAfterTaus * tauMs : firstSampleEveryMs);
          if (isDue && (due < 0 || (lastPick[row] as number) < (lastPick[due] as number))) due = row;
        }
      }
      const byCost = sampled && lowest !== Number.POSITIVE_INFINITY;
      if (due >= 0 && byCost) return due;
      const tie = byCost ? lowest * (1 + tieFraction) : Number.POSITIVE_INFINITY;
      let best = -1;
      let least = Number.POSITIVE_INFINITY;
      for (let i = 0; i < count; i++) {
        if ((work[i] as number) > tie) continue;
        const row = rows[i] as number;
        const open = active[row] as number;
        if (open < least || (open === least && (lastPick[row] as number) < (lastPick[best] as number))) {
          best = row;
          least = open;
        }
      }
      return best;
    };
  },
};

/** The `k`-th smallest of the first `n` values, by quickselect in place. */
function select(values: Float64Array, n: number, k: number): number {
  let low = 0;
  let high = n - 1;
  while (low < high) {
    const pivot = values[(low + high) >> 1] as number;
    let i = low;
    let j = high;
    while (i <= j) {
      while ((values[i] as number) < pivot) i++;
      while ((values[j] as number) > pivot) j--;
      if (i <= j) {
        const held = values[i] as number;
        values[i++] = values[j] as number;
        values[j--] = held;
      }
    }
    if (k <= j) high = j;
    else if (k >= i) low = i;
    else break;
  }
  return values[k] as number;
}
