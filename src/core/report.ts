import type { Ending, StrategyName } from './domain.ts';

/** Of the newest finished requests so many are kept: a minute at 80 a second, for the preview of a strategy. */
export const keptRequests = 5000;

/** Of the latest picks so many can be looked at, over all threads. */
export const keptDecisions = 1000;

/** One candidate of a pick: eligible with a score, or the reason why it was not eligible. */
export type DecisionCandidate = Readonly<{
  id: string;
  /** Why it could not be picked; null when it could. */
  excluded: string | null;
  /** What the strategy compared (lower wins); null when it was not eligible. */
  score: number | null;
}>;

/** One pick, for people who ask "why this one?". */
export type Decision = Readonly<{
  at: number;
  strategy: StrategyName;
  winner: string | null;
  candidates: readonly DecisionCandidate[];
  ending: Ending | null;
  ttfbMs: number | null;
  totalMs: number | null;
}>;

/** One finished request as the dashboard and the preview model see it. No headers, no bodies, no query. */
export type FinishedRequest = Readonly<{
  at: number;
  id: string;
  method: string;
  /** Path without the query string. */
  path: string;
  status: number;
  /** One cause word: `complete`, `client_gone`, `refused`, … */
  cause: string;
  instance: string | null;
  attempts: number;
  queueMs: number;
  ttfbMs: number | null;
  totalMs: number;
  bytesOut: number;
  model: string | null;
}>;

/** What one data-plane thread tells the main thread, a few times a second. Counters are cumulative per thread. */
export type DataPlaneReport = Readonly<{
  thread: number;
  requests: readonly FinishedRequest[];
  queued: number;
  counters: Readonly<{
    requests: number;
    /** Answers by status class: index 1 is 1xx … 5 is 5xx; index 0 counts requests that ended without an answer. */
    statusClasses: readonly number[];
    /** By cause word of FinishedRequest. */
    causes: Readonly<Record<string, number>>;
    retries: number;
    bytesIn: number;
    bytesOut: number;
    upgrades: number;
    /** From the arrival of a request to its end, of those that reached an upstream: counts by bucket of `ttfbBoundsMs`. */
    durationHistogram?: readonly number[];
    /** Sum of the times that it counts. */
    durationSumMs?: number;
    /** Tokens that answers of upstreams told in their `usage`. */
    promptTokens?: number;
    completionTokens?: number;
    /** Spans of OpenTelemetry; absent where nothing is traced. */
    spansExported?: number;
    spansDropped?: number;
    /** Requests that an upstream was asked for, by its id, status and cause word. */
    outcomes?: readonly RequestOutcomes[];
  }>;
  /** Why lines of the access log cannot be written at the moment; absent when they can. */
  accessLogFault?: string;
  /** SHA-256, hex, of the keys that clients came with since the last report. */
  keysUsed?: readonly string[];
  /** How late the thread's timers ran at worst since its last report, milliseconds. */
  loopLagMs?: number;
}>;

/** So many requests ended at this upstream in this way. */
export type RequestOutcomes = Readonly<{ instance: string; status: number; cause: string; count: number }>;
