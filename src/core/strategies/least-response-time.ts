import { flag, header, health } from '../load-table.ts';
import type { Strategy } from './strategy.ts';

/** The fleet's median is taken anew this often; it is what averages without samples drift toward. */
const medianEveryMs = 250;
/** An upstream without a sample is offered a request as soon as it is idle, but not more often than this. */
const firstSampleEveryMs = 1000;
/** An idle upstream is tried again after so many time constants, whatever its average says. */
const retryAfterTaus = 10;

/**
 * Lowest average response time × (open requests + 1), as NGINX's least_time and the peak-EWMA balancers of Finagle and
 * Linkerd do: the lowest average alone sends everything to one instance until it is the slowest.
 */
export const leastResponseTime: Strategy = {
  name: 'least_response_time',
  title: 'Least Response Time',
  summary: 'Routes to the GPU with the lowest average response time',
  useCases: ['Latency-sensitive applications', 'Inference workloads', 'Performance optimization'],
  create({ table, tauMs, tieFraction }) {
    const { active, lastPick, lastUsed, costUs, costAt, flags, health: state } = table.columns;
    const { numbers } = table;
    const costs = new Float64Array(table.capacity);
    const inService = flag.used | flag.running;

    /** Lower median over the upstreams in service that have a sample; -1 when none has. */
    function median(now: number): number {
      const age = now - (numbers[header.medianAt] as number);
      if (age >= 0 && age < medianEveryMs && (numbers[header.medianUs] as number) >= 0) {
        return numbers[header.medianUs] as number;
      }
      let n = 0;
      for (let row = 0; row < table.high; row++) {
        if (flags[row] === inService && state[row] === health.up && (costUs[row] as number) >= 0) {
          costs[n++] = costUs[row] as number;
        }
      }
      const value = n === 0 ? -1 : select(costs, n, (n - 1) >> 1);
      numbers[header.medianUs] = value;
      numbers[header.medianAt] = now;
      return value;
    }

    /** Expected response time at `now`, µs; only of rows with a sample. */
    function expected(row: number, now: number, middle: number): number {
      const e = costUs[row] as number;
      const dt = now - (costAt[row] as number);
      if (!(dt > 0) || middle < 0) return e;
      return middle + (e - middle) * Math.exp(-dt / tauMs);
    }

    return {
      pick(rows, count, now) {
        const middle = median(now);
        let sampled = false;
        let due = -1;
        let lowest = Number.POSITIVE_INFINITY;
        for (let i = 0; i < count; i++) {
          const row = rows[i] as number;
          const open = active[row] as number;
          const known = (costUs[row] as number) >= 0;
          const used = lastUsed[row] as number;
          const idleMs = used < 0 ? Number.POSITIVE_INFINITY : now - used;
          if (open === 0 && idleMs >= (known ? retryAfterTaus * tauMs : firstSampleEveryMs)) {
            // Due whatever it costs; the one longest unserved first.
            if (due < 0 || (lastPick[row] as number) < (lastPick[due] as number)) due = row;
          }
          let cost: number;
          if (known) {
            sampled = true;
            cost = expected(row, now, middle) * (open + 1);
          } else {
            // One request at a time until its first sample: a guess of zero would flood it.
            cost = open === 0 && middle >= 0 ? middle : Number.POSITIVE_INFINITY;
          }
          costs[i] = cost;
          if (cost < lowest) lowest = cost;
        }
        const byCost = sampled && lowest !== Number.POSITIVE_INFINITY;
        if (due >= 0 && byCost) return due;
        const tie = byCost ? lowest * (1 + tieFraction) : Number.POSITIVE_INFINITY;
        let best = -1;
        for (let i = 0; i < count; i++) {
          if ((costs[i] as number) > tie) continue;
          const row = rows[i] as number;
          const more = best < 0 ? -1 : (active[row] as number) - (active[best] as number);
          if (more < 0 || (more === 0 && (lastPick[row] as number) < (lastPick[best] as number))) best = row;
        }
        return best;
      },
      score(row, now) {
        // In milliseconds, like everything that people see.
        if ((costUs[row] as number) < 0) return 0;
        return (expected(row, now, numbers[header.medianUs] as number) * ((active[row] as number) + 1)) / 1000;
      },
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
