import type { Config } from '../config.ts';
import type { DirectoryEntry } from '../core/directory.ts';
import type {
  Admin,
  Ending,
  Health,
  Lifecycle,
  Offer,
  OfferFilter,
  ProviderName,
  StrategyName,
} from '../core/domain.ts';
import type { LoadTable } from '../core/load-table.ts';
import type { DataPlaneReport, Decision, FinishedRequest } from '../core/report.ts';

/**
 * What the dashboard and the REST server both speak to. Everything in it is plain data over promises, so that the same
 * interface is served by the system in this process and by a remote server.
 */
export interface App {
  readonly state: {
    /** Same reference until something visible changed. */
    get(): Snapshot;
    subscribe(listener: () => void): () => void;
  };
  readonly events: {
    /** Kept events with an id greater than `afterId`, oldest first. */
    recent(afterId?: number): readonly FleetEvent[];
    subscribe(listener: (event: FleetEvent) => void): () => void;
  };

  setStrategy(name: StrategyName, by: string): Promise<{ strategy: StrategyName; previous: StrategyName }>;

  offers(filter: OfferFilter, signal?: AbortSignal): Promise<OffersAnswer>;
  /** What `reserve` would rent now, without renting. */
  plan(request: ReserveRequest, signal?: AbortSignal): Promise<ReservePlan>;
  /** What `batch` would rent now, without renting. */
  planBatch(request: BatchRequest, signal?: AbortSignal): Promise<ReservePlan>;
  reserve(request: ReserveRequest, options?: RentOptions): Promise<ReserveResult>;
  batch(request: BatchRequest, options?: RentOptions): Promise<BatchResult>;
  /** `maxUsdPerHour`: refused when it costs more by now. */
  rentOffer(
    provider: ProviderName,
    offerId: string,
    config: InstanceConfig,
    options?: RentOptions & Readonly<{ maxUsdPerHour?: number | undefined }>,
  ): Promise<RentedOffer>;
  /** What a request with this Idempotency-Key rented or is renting; null when it has got to nothing. */
  reservationOf(idempotencyKey: string): Promise<ReservationView | null>;
  /**
   * Stops the request with this Idempotency-Key: no further paid call is made, those under way are waited for, and what
   * was rented is given back, or kept with `keep`. One that has ended already is given back all the same.
   */
  cancel(idempotencyKey: string, options?: Readonly<{ keep?: boolean }>): Promise<CancelResult>;
  /** One that is still being rented is stopped first. */
  releaseReservation(
    id: string,
    options?: { now?: boolean },
  ): Promise<{ released: readonly string[]; failed: readonly string[] }>;
  /** `id` is an instance id. Drains first unless `now`. */
  destroy(id: string, options?: { now?: boolean; deadlineMs?: number }): Promise<DestroyResult>;
  drain(id: string, options?: { deadlineMs?: number }): Promise<UpstreamView>;
  resume(id: string): Promise<UpstreamView>;
  /** null gives the weight back to the formula. */
  setWeight(id: string, weight: number | null): Promise<UpstreamView>;
  extend(id: string, hours: number): Promise<UpstreamView>;
  logs(id: string, options?: { tail?: number }, signal?: AbortSignal): Promise<readonly string[]>;
  adopt(provider: ProviderName, contract: string): Promise<UpstreamView>;
  addUpstream(input: { name?: string; url: string }): Promise<UpstreamView>;
  /** What is open may finish, at most until the drain deadline, unless `now`. */
  removeUpstream(id: string, options?: { now?: boolean }): Promise<void>;
  decisions(query?: { instance?: string; limit?: number }): Promise<readonly Decision[]>;
  requests(query?: { instance?: string; slowest?: boolean; limit?: number }): Promise<readonly FinishedRequest[]>;
  /** Asks every provider again now. */
  refresh(): Promise<void>;
}

/** The system in this process: the App plus what the data plane needs. */
export interface LocalApp extends App, AsyncDisposable {
  readonly dataPlane: {
    readonly table: LoadTable;
    directory(): readonly DirectoryEntry[];
    onDirectory(listener: (entries: readonly DirectoryEntry[]) => void): () => void;
    report(report: DataPlaneReport): void;
    /** Where picks are remembered: asked when somebody wants to see them. Newest first. */
    traceFrom?(decisions: () => Promise<readonly Decision[]>): void;
    /** The newest report of each thread, for counters that the snapshot does not have. */
    reports?(): readonly DataPlaneReport[];
  };
  readonly keys: Keys;
  /** Takes up what another configuration says, as far as it can change while requests are open. */
  reconfigure?(config: Config): void;
  /** Rents nothing more and resolves when what was begun is finished or undone, so that whoever waits for it is answered. */
  stopRenting(): Promise<void>;
  /** Tells the app where its listeners are, once they listen; shown in `Snapshot.mode`. */
  announce(urls: { apiUrl: string; proxyUrl: string }): void;
}

/** One immutable picture of everything that is shown. */
export type Snapshot = Readonly<{
  /** Grows with every change. */
  version: number;
  at: number;
  startedAt: number;
  mode: Readonly<{
    /** True when the providers are the local simulator. */
    simulated: boolean;
    /** One line for people, "SIMULATED FLEET: no money is spent"; null when there is nothing to say. */
    banner: string | null;
    balancing: boolean;
    proxyUrl: string | null;
    apiUrl: string | null;
  }>;
  strategy: Readonly<{
    name: StrategyName;
    /** Who chose it: `LB_STRATEGY` (the variable wins at every start), `saved` (the last choice) or `default`. */
    source: 'LB_STRATEGY' | 'saved' | 'default';
    since: number;
  }>;
  upstreams: readonly UpstreamView[];
  providers: readonly ProviderView[];
  reservations: readonly ReservationView[];
  foreign: readonly ForeignInstance[];
  traffic: Traffic;
  cost: Readonly<{
    usdPerHour: number;
    spentUsd: number;
    /** Spent since local midnight. */
    spentTodayUsd: number;
    /** MAX_USD_PER_HOUR; null when not set. */
    maxUsdPerHour: number | null;
  }>;
}>;

export type UpstreamView = Readonly<{
  /** `vast-12345`. */
  id: string;
  provider: ProviderName;
  contract: string | null;
  reservation: string | null;
  lifecycle: Lifecycle;
  admin: Admin;
  health: Health;
  /** Derived from the three facts and the ceiling: may it get a request now? */
  eligible: boolean;
  /** One word for people: RESERVING BOOT PROBE OK SLOW PROBATION BACKOFF DOWN OUTBID STOPPED FAILED DRAIN DESTROYING ENDED. */
  state: string;
  /** Why it is in that state, one line; empty when all is well. */
  reason: string;
  origin: string | null;
  gpuModel: string;
  gpuCount: number;
  vramGb: number;
  usdPerHour: number;
  location: string | null;
  models: readonly string[] | null;
  interruptible: boolean;
  startedAt: number | null;
  expiresAt: number | null;
  spentUsd: number;
  weight: number;
  weightSource: 'formula' | 'operator';
  /** A static one that UPSTREAMS names: it is taken out there alone. */
  configured: boolean;
  ceiling: number;
  active: number;
  total: number;
  avgMs: number | null;
  lastMs: number | null;
  lastUsedAt: number | null;
  /** Over the last 10 s. */
  rps: number;
  /** Over the last 60 s, 0 to 1. */
  errorRate: number;
  /** Part of the picks of the last 60 s, 0 to 1. */
  share: number;
  p50Ms: number | null;
  p95Ms: number | null;
  p99Ms: number | null;
  /** Requests per second, one number a second, newest last, at most 60. */
  trend: readonly number[];
  endings: Readonly<Record<Ending, number>>;
  /** Cumulative counts by bucket of `ttfbBoundsMs`. */
  ttfbHistogram: readonly number[];
}>;

export type ProviderView = Readonly<{
  name: ProviderName;
  status: 'ok' | 'error' | 'loading';
  /** Rentable instances now (stock counted). */
  available: number;
  /** True when there are more, or may be: what can be read of a market is bounded by its rate limits. */
  more: boolean;
  offers: number;
  minUsdPerHour: number | null;
  maxUsdPerHour: number | null;
  /** Cheapest per GPU model, cheapest first. */
  cheapest: readonly Readonly<{ gpuModel: string; vramGb: number; usdPerGpuHour: number; available: number }>[];
  rented: number;
  usdPerHour: number;
  creditUsd: number | null;
  refreshedAt: number | null;
  latencyMs: number | null;
  lastError: Readonly<{ at: number; code: string; message: string }> | null;
  nextRefreshAt: number | null;
}>;

export type ReservationView = Readonly<{
  id: string;
  createdAt: number;
  by: string;
  requested: number;
  /** `renting` while paid calls are under way. */
  state: 'renting' | 'active' | 'partial' | 'releasing' | 'ended' | 'failed';
  /** What exists of it, or may exist. */
  instances: readonly string[];
  /** What it had and is over. */
  ended: readonly string[];
  usdPerHour: number;
  errors: readonly string[];
}>;

/** In the account, not ours: never touched. */
export type ForeignInstance = Readonly<{
  provider: ProviderName;
  contract: string;
  label: string | null;
  phase: string;
  gpuModel: string;
  gpuCount: number;
  usdPerHour: number;
}>;

export type Traffic = Readonly<{
  /** Over the last 10 s. */
  rps: number;
  inFlight: number;
  queued: number;
  /** Over the last 60 s, 0 to 1: answers of 5xx and broken transfers. */
  errorRate: number;
  p50Ms: number | null;
  p95Ms: number | null;
  p99Ms: number | null;
  requests: number;
  retries: number;
  /** Requests per second, one number a second, newest last, at most 60. */
  trend: readonly number[];
  ttfbHistogram: readonly number[];
}>;

export type FleetEvent = Readonly<{
  id: number;
  at: number;
  level: 'info' | 'ok' | 'warn' | 'error';
  /** `strategy`, `rental`, `ejected`, `recovered`, `provider`, `drain`, `destroy`, `reservation`, `budget`, `upstream`, `system`. */
  kind: string;
  /** Instance, provider or reservation id; null for the whole system. */
  subject: string | null;
  message: string;
}>;

// --- renting ---

export type InstanceConfig = Readonly<{
  image?: string | undefined;
  diskGb?: number | undefined;
  env?: Readonly<Record<string, string>> | undefined;
  onstart?: string | undefined;
  args?: readonly string[] | undefined;
  ports?: readonly number[] | undefined;
  maxBidUsdPerHour?: number | undefined;
  durationHours?: number | undefined;
}>;

export type ReserveRequest = Readonly<{
  /** GPUs, 1 to 16. */
  count: number;
  filter: OfferFilter;
  config: InstanceConfig;
  allOrNothing?: boolean | undefined;
  /** Of all its instances together, by the prices of their offers: what was confirmed. Replacements stay below it too. */
  maxTotalUsdPerHour?: number | undefined;
}>;

export type RentOptions = Readonly<{ idempotencyKey?: string; by?: string }>;

export type ReservedItem = Readonly<{
  instanceId: string;
  contractId: string;
  provider: ProviderName;
  gpuModel: string;
  gpuCount: number;
  vramGb: number;
  usdPerHour: number;
}>;

export type ReserveResult = Readonly<{
  reservation: string;
  reserved: readonly ReservedItem[];
  /** GPUs reserved. */
  count: number;
  requested: number;
  /** Why it is fewer than requested, one line each. */
  errors: readonly string[];
  /** True when an earlier answer for the same Idempotency-Key is repeated. */
  replayed?: boolean;
}>;

export type ReservePlan = Readonly<{
  offers: readonly Offer[];
  count: number;
  requested: number;
  usdPerHour: number;
  /** Charged at once where time is prepaid. */
  prepaidUsd: number;
  errors: readonly string[];
}>;

export type RentedOffer = ReservedItem & Readonly<{ replayed?: boolean }>;

export type CancelResult = Readonly<{
  /** null: it was stopped before anything was to be rented. */
  reservation: string | null;
  kept: readonly string[];
  released: readonly string[];
  /** Given back, but not confirmed yet: it is retried until it is. */
  pending: readonly string[];
}>;

export type BatchRequest = Readonly<{
  vast: number;
  ionet: number;
  filter: OfferFilter;
  config: InstanceConfig;
  maxTotalUsdPerHour?: number | undefined;
}>;
export type BatchResult = Readonly<{
  reservation: string | null;
  vast: readonly string[];
  ionet: readonly string[];
  errors: readonly string[];
  replayed?: boolean;
}>;
export type OffersAnswer = Readonly<{
  offers: readonly Offer[];
  /** Providers that could not be asked, with the reason and, when stale data are shown, their age. */
  errors: readonly Readonly<{ provider: ProviderName; code: string; message: string; staleMs: number | null }>[];
  /** Providers that have, or may have, more that match than is known. */
  more: readonly ProviderName[];
}>;
export type DestroyResult = Readonly<{
  id: string;
  /** `destroyed` confirmed by the provider; `destroying` accepted, being retried; `gone` it was not there any more. */
  status: 'destroyed' | 'destroying' | 'gone';
}>;

// --- keys ---

export type KeyScope = 'admin' | 'read' | 'proxy';
export type KeyView = Readonly<{
  id: string;
  name: string;
  scope: KeyScope;
  createdAt: number;
  lastUsedAt: number | null;
  expiresAt: number | null;
  revokedAt: number | null;
  requestsPerMinute: number | null;
  maxConcurrent: number | null;
}>;
export interface Keys {
  create(input: {
    name: string;
    scope: KeyScope;
    expiresAt?: number | null;
    requestsPerMinute?: number | null;
    maxConcurrent?: number | null;
  }): { key: string; view: KeyView };
  /** Puts a key that the user chose (GPUPROXY_API_KEY) into the ledger, hashed; idempotent. */
  ensure(key: string, input: { name: string; scope: KeyScope }): KeyView;
  list(): readonly KeyView[];
  revoke(id: string): boolean;
  /** Constant-time; null when unknown, expired or revoked. */
  verify(key: string): KeyView | null;
  /** SHA-256 hex of every live key that may use the data plane, for its threads. */
  proxyHashes(): readonly string[];
  /** Of these, what keys with a limit or an end may do. */
  proxyTerms(): readonly Readonly<{
    hash: string;
    expiresAt: number | null;
    requestsPerMinute: number | null;
    maxConcurrent: number | null;
  }>[];
  /** Keys, by these hashes, came with requests of the data plane. */
  used?(hashes: readonly string[]): void;
  /** Called after a key was created or revoked. */
  onChange(listener: () => void): () => void;
}

/** Expected refusals of App methods. One function maps `code` to an HTTP status and an exit code. */
export type AppErrorCode =
  | 'not_found' // unknown instance, reservation or offer
  | 'invalid' // bad input that a schema cannot see
  | 'conflict'
  | 'no_offers' // nothing matches
  | 'incomplete' // all_or_nothing could not be met; rolled back
  | 'budget_exceeded'
  | 'idempotency_mismatch'
  | 'no_credit'
  | 'provider_failed' // the provider answered with an error
  | 'provider_timeout'
  | 'unsupported' // this provider cannot do that
  | 'read_only'
  | 'disconnected'; // remote app only: the server is not reachable

export class AppError extends Error {
  override readonly name = 'AppError';
  readonly code: AppErrorCode;
  /** Lines for `errors[]`. */
  readonly details: readonly string[];
  /** Path of the field that is wrong, with which the message begins; null: no single one is. */
  readonly field: string | null;
  constructor(
    code: AppErrorCode,
    message: string,
    options: { details?: readonly string[]; field?: string; cause?: unknown } = {},
  ) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.code = code;
    this.details = options.details ?? [];
    this.field = options.field ?? null;
  }
}

/** Bad input in one field of a request, by its path on the wire. */
export function invalidField(field: string, message: string): AppError {
  return new AppError('invalid', `${field}: ${message}`, { field });
}
