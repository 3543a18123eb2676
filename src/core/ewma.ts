/**
 * Exponentially weighted moving average decayed by time rather than by count, so that it means the same at 1 and at
 * 1,000 samples a second. A sample after `dtMs` weighs `1 − e^(−dt/τ)`.
 *
 * At a thousand samples a second one step is a few hundred-thousandths of the difference: what holds the average has to
 * keep fractions of a microsecond.
 */
export function ewmaStep(average: number, sample: number, dtMs: number, tauMs: number): number {
  if (!(dtMs > 0)) return average;
  return average + (sample - average) * -Math.expm1(-dtMs / tauMs);
}
