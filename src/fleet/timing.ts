import { monotonicMs } from '../clock.ts';
import type { Config } from '../config.ts';

/** The two clocks of the fleet: wall time for what people read and what is stored, monotonic time for the load table. */
export type Clock = Readonly<{
  /** Milliseconds since the epoch. */
  now(): number;
  /** The process-wide monotonic clock, milliseconds. */
  monotonic(): number;
}>;

export const systemClock: Clock = { now: () => Date.now(), monotonic: monotonicMs };

/** Intervals and bounds that no variable sets, all in milliseconds. */
export type Timing = Readonly<{
  /** Shortest time between two snapshots. */
  snapshotMs: number;
  /** The same after an order, a new state of an instance or an answer of a market. */
  snapshotSoonMs: number;
  reconcileMs: number;
  /** Between reconciles while something boots, is unknown or is being destroyed. */
  reconcileBusyMs: number;
  refreshMs: number;
  /** Longest pause between two refreshes of a provider that fails. */
  refreshMaxMs: number;
  /** Availability younger than this answers `offers` without asking. */
  offersFreshMs: number;
  /** Bound of one call of a provider that costs nothing. */
  callTimeoutMs: number;
  /** Bound of one paid call, after which its outcome is unknown. */
  rentTimeoutMs: number;
  /** When, after a lost answer of a paid call, the provider's list is searched for the label. */
  lookForLabelMs: readonly number[];
  /** A rental whose outcome is unknown is closed when its label stayed absent this long. */
  unknownGraceMs: number;
  /** A new contract may be absent from the provider's list this long. */
  absentGraceMs: number;
  /** An ended contract may linger in the provider's list this long before it is destroyed again. */
  lingerGraceMs: number;
  /** An instance that fails before it ever ran is given up after this long. */
  failedGraceMs: number;
  /** Bound of one attempt to destroy; many at once wait for their turns at the provider. */
  destroyTimeoutMs: number;
  /** First pause between two attempts to destroy; doubles up to `destroyRetryMaxMs`. */
  destroyRetryMs: number;
  destroyRetryMaxMs: number;
  /** How long a caller of `destroy` waits for the provider before it is told `destroying`. */
  destroyWaitMs: number;
  probeIntervalMs: number;
  probeTimeoutMs: number;
  /** Between probes of an upstream that has not answered one yet. */
  probeFirstMs: number;
  /** Between reads of `/v1/models`. */
  modelsMs: number;
  /** How long an ended upstream stays in the picture. */
  endedShownMs: number;
  /** Warning before prepaid time runs out. */
  expiryWarningMs: number;
  idempotencyMs: number;
}>;

export const defaultTiming: Timing = {
  snapshotMs: 250,
  snapshotSoonMs: 40,
  reconcileMs: 30_000,
  reconcileBusyMs: 2000,
  refreshMs: 30_000,
  refreshMaxMs: 300_000,
  offersFreshMs: 45_000,
  callTimeoutMs: 20_000,
  rentTimeoutMs: 120_000,
  lookForLabelMs: [500, 1500, 4000],
  unknownGraceMs: 120_000,
  absentGraceMs: 15_000,
  lingerGraceMs: 60_000,
  failedGraceMs: 30_000,
  destroyTimeoutMs: 120_000,
  destroyRetryMs: 2000,
  destroyRetryMaxMs: 60_000,
  destroyWaitMs: 5000,
  probeIntervalMs: 5000,
  probeTimeoutMs: 3000,
  probeFirstMs: 1000,
  modelsMs: 60_000,
  endedShownMs: 120_000,
  expiryWarningMs: 600_000,
  idempotencyMs: 24 * 3_600_000,
};

/** With what the variables say. */
export function timingOf(config: Config): Timing {
  return {
    ...defaultTiming,
    reconcileMs: config.RECONCILE_SECONDS * 1000,
    reconcileBusyMs: Math.min(defaultTiming.reconcileBusyMs, config.RECONCILE_SECONDS * 1000),
    refreshMs: config.REFRESH_SECONDS * 1000,
    // A little longer than a round of the background: whoever asks in between is answered from what it brought.
    offersFreshMs: Math.min(60_000, config.REFRESH_SECONDS * 1500),
    probeIntervalMs: config.HEALTH_INTERVAL_SECONDS * 1000,
    probeTimeoutMs: config.HEALTH_TIMEOUT_SECONDS * 1000,
    probeFirstMs: Math.min(defaultTiming.probeFirstMs, config.HEALTH_INTERVAL_SECONDS * 1000),
  };
}
