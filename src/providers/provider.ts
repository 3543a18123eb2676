import type {
  ContractId,
  Offer,
  OfferFilter,
  ProviderInstance,
  ProviderName,
  RentResult,
  RentSpec,
} from '../core/domain.ts';

/**
 * A marketplace behind one type. Nothing waits inside a provider: readiness arrives through `list`.
 * Every method rejects with `ProviderError` alone (or the signal's AbortError when the caller aborted).
 */
export interface Provider {
  readonly name: ProviderName;
  /** First part of instance ids: `vast`, `ionet`. */
  readonly prefix: string;
  /** Rentable now, re-checked against the filter on our side. */
  offers(filter: OfferFilter, signal?: AbortSignal): Promise<OfferList>;
  /**
   * One paid call, never repeated by this method. Refusals and failures are values, see RentResult. Rejects only with
   * the signal's AbortError and only when nothing was sent; aborted later it answers `unknown`.
   */
  rent(offer: Offer, spec: RentSpec, signal?: AbortSignal): Promise<RentResult>;
  /**
   * Every instance of the account, ours or not, complete or an error: what is missing from the answer does not exist.
   * Instances that have ended may be in it, as `ended`.
   */
  list(signal?: AbortSignal): Promise<readonly ProviderInstance[]>;
  /** Destroying what is gone succeeds. */
  destroy(contract: ContractId, signal?: AbortSignal): Promise<void>;
  /** Spendable money in USD; absent where the provider has no such call. */
  balance?(signal?: AbortSignal): Promise<number>;
  /** Last lines of the instance's output. */
  logs?(contract: ContractId, options: { tail: number }, signal?: AbortSignal): Promise<readonly string[]>;
  /** Buys more prepaid hours. */
  extend?(contract: ContractId, hours: number, signal?: AbortSignal): Promise<void>;
  /** What this client has done since it was made. */
  stats?(): ProviderStats;
  /** Closes pooled connections. */
  close?(): Promise<void>;
}

export type OfferList = Readonly<{
  /** Cheapest first. */
  offers: readonly Offer[];
  /** True when the marketplace has, or may have, more that match than could be read: its rate limits bound a search. */
  more: boolean;
}>;

/** Counters of a client, all since it was made. */
export type ProviderStats = Readonly<{
  /** HTTP requests sent. */
  calls: number;
  /** Of those: repeated after a failure. */
  retries: number;
  /** Answers of 429. */
  rateLimited: number;
  /** Rows of offers left out because they could not be read. */
  skippedRows: number;
  /** How long the provider took for its last answer, from sending the request to the end of the answer; null before the first. */
  answeredMs: number | null;
}>;

export type ProviderErrorCode =
  | 'auth' // the key was refused
  | 'rate_limited' // 429
  | 'timeout' // no answer in time
  | 'unreachable' // connection refused, DNS, TLS, reset
  | 'server_error' // 5xx
  | 'bad_answer' // the answer does not have the documented shape
  | 'rejected' // 4xx other than the above
  | 'not_found';

/** A call of a marketplace that failed. The message is one line without the provider's name and without any secret. */
export class ProviderError extends Error {
  override readonly name = 'ProviderError';
  readonly code: ProviderErrorCode;
  readonly provider: ProviderName;
  readonly status: number | null;
  /** How long to wait before the next call to the same endpoint, when the provider or our spacing says so. */
  readonly retryAfterMs: number | null;
  /** False when it is certain that the provider never got the request. */
  readonly sent: boolean;

  constructor(
    provider: ProviderName,
    code: ProviderErrorCode,
    message: string,
    options: { status?: number | null; retryAfterMs?: number | null; sent?: boolean; cause?: unknown } = {},
  ) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.provider = provider;
    this.code = code;
    this.status = options.status ?? null;
    this.retryAfterMs = options.retryAfterMs ?? null;
    this.sent = options.sent ?? true;
  }
}
