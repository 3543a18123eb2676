import type { Strategy } from './strategy.ts';

/**
 * Weights count in ten-thousandths or so of a pick: whole numbers, so that credits cannot drift, and fine enough that
 * rounding at a change of the set is lost in them.
 */
const unitsPerWeight = 10 * 1024;

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
    const { table } = context;
    const { weight, credit, creditScale, lastPick } = table.columns;

    function units(row: number, now: number): number {
      const w = weight[row] as number;
      if (w <= 0) return 0;
      const part = context.slow ? table.ramp(row, now) : 1;
      return Math.max(1, Math.round(Math.min(w, 1e6) * unitsPerWeight * part));
    }

    return {
      pick(rows, count, now) {
        let sum = 0;
        for (let i = 0; i < count; i++) sum += units(rows[i] as number, now);
        // All weights 0: as equal.
        const equal = sum === 0;
        if (equal) sum = count * unitsPerWeight;
        let best = -1;
        let bestDeadline = 0;
        let bestOwed = false;
        let bestWeight = 0;
        for (let i = 0; i < count; i++) {
          const row = rows[i] as number;
          const w = equal ? unitsPerWeight : units(row, now);
          if (w === 0) continue;
          let c = credit[row] as number;
          const scale = creditScale[row] as number;
          if (scale !== sum) {
            c = Math.round((c * sum) / scale);
            creditScale[row] = sum;
          }
          c += w;
          credit[row] = c;
          // Nobody may have credit after a change of the set; then the most urgent of all.
          const owed = c > 0;
          const deadline = (sum - c) / w;
          let better = best < 0 || (owed && !bestOwed);
          if (!better && owed === bestOwed) {
            // A tie goes to the greater weight, whose next deadline comes sooner; then to the longest since served.
            better =
              deadline < bestDeadline ||
              (deadline === bestDeadline &&
                (w > bestWeight || (w === bestWeight && (lastPick[row] as number) < (lastPick[best] as number))));
          }
          if (better) {
            best = row;
            bestDeadline = deadline;
            bestOwed = owed;
            bestWeight = w;
          }
        }
        credit[best] = (credit[best] as number) - sum;
        return best;
      },
      // Picks it is ahead of its fair share; negative: behind.
      score: (row) => -(credit[row] as number) / (creditScale[row] as number),
    };
  },
};
