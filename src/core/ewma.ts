/**
 * Exponentially weighted moving average decayed by time rather than by count, so that it means the same at 1 and at
 * 1,000 samples a second. A sample after `dtMs` weighs `1 − e^(−dt/τ)`.
 *
 * Values stay fractional: at a thousand samples a second one step is a few hundred-thousandths of the difference, and
 * an average kept in whole microseconds would never move.
 */
export function ewmaStep(average: number, sample: number, dtMs: number, tauMs: number): number {
  if (!(dtMs > 0)) return average;
  return average + (sample - average) * -Math.expm1(-dtMs / tauMs);
}
