import { unitsPerWeight } from '../load-table.ts';
import type { Strategy } from './strategy.ts';

/**
 * Smooth weighted round robin with the quota rule (Balinski and Young's quota method, with divisor w): every eligible
 * row earns its weight, and among those with credit the one that would first fall a whole pick behind is picked, for
 * the sum of the weights. The well-known smooth form (largest credit) is exact per cycle but can be more than one
 * pick behind within it. Credits are kept in units of picks: when the sum of the weights changes, they scale with it.
 */
export const weightedRoundRobin: Strategy = {
  name: 'weighted_round_robin',
  title: 'Weighted Round Robin',
  summary: 'Assigns weights based on GPU specifications (VRAM, price) and distributes accordingly',
  useCases: ['Heterogeneous GPU clusters', 'Optimizing for performance vs cost', 'Prioritizing powerful GPUs'],
  create(context) {
    const { table, scores } = context;
    const { units, credit, creditScale, lastPick } = table.columns;

    /** What the row earns at each pick: whole, so that no fraction is lost over time. */
    function earning(row: number, now: number): number {
      const whole = units[row] as number;
      return whole === 0 ? 0 : Math.max(1, Math.round(whole * table.ramp(row, now)));
    }

    return (rows, count, now) => {
      const { slow } = context;
      let sum = 0;
      if (slow) for (let i = 0; i < count; i++) sum += earning(rows[i] as number, now);
      else for (let i = 0; i < count; i++) sum += units[rows[i] as number] as number;
      // All weights 0: as equal.
      const equal = sum === 0;
      if (equal) sum = count * unitsPerWeight;
      let best = -1;
      let bestWeight = 0;
      let bestDeadline = 0;
      let bestOwed = false;
      for (let i = 0; i < count; i++) {
        const row = rows[i] as number;
        const weight = equal ? unitsPerWeight : slow ? earning(row, now) : (units[row] as number);
        if (weight === 0) {
          scores[row] = Number.POSITIVE_INFINITY;
          continue;
        }
        let balance = credit[row] as number;
        const scale = creditScale[row] as number;
        if (scale !== sum) {
          balance = Math.round((balance * sum) / scale);
          creditScale[row] = sum;
        }
        balance += weight;
        credit[row] = balance;
        const deadline = (sum - balance) / weight;
        scores[row] = deadline;
        // Nobody may have credit after a change of the set; then the most urgent of all.
        const owed = balance > 0;
        if (best >= 0) {
          if (owed !== bestOwed) {
            if (bestOwed) continue;
          } else if (deadline > bestDeadline) continue;
          else if (deadline === bestDeadline) {
            // A tie goes to the greater weight, whose next deadline comes sooner; then to the longest since served.
            if (weight < bestWeight) continue;
            if (weight === bestWeight && (lastPick[row] as number) > (lastPick[best] as number)) continue;
          }
        }
        best = row;
        bestWeight = weight;
        bestDeadline = deadline;
        bestOwed = owed;
      }
      credit[best] = (credit[best] as number) - sum;
      return best;
    };
  },
};
