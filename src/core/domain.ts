/**
 * The words of the program as types. Pure data: no clock, no Node, no packages.
 *
 * Units are in the names: `Ms` milliseconds, `Gb` gigabytes (nominal, as printed on the card), `usdPerHour`
 * US dollars per hour. Fields ending in `At` are wall-clock milliseconds since the Unix epoch.
 */

/** What a provider may be called in data. The registry in `providers/index.ts` is the list of those that exist. */
export type ProviderName = 'vast.ai' | 'io.net' | 'static';

/** Something a marketplace would rent out right now. Volatile: renting is the only proof that it still exists. */
export type Offer = Readonly<{
  provider: ProviderName;
  /** The provider's own id of the offer. */
  id: string;
  /** As the provider prints it, blanks kept: "RTX 4090", "H100 SXM". */
  gpuModel: string;
  gpuCount: number;
  /** Nominal VRAM of one GPU. */
  vramGb: number;
  /** For the whole instance, disk included. */
  usdPerHour: number;
  /** Human form, "Sweden, SE"; null when the provider does not say. */
  location: string | null;
  /** ISO 3166 alpha-2; null when unknown. */
  countryCode: string | null;
  /** 0 to 1; null when the provider has no such figure. */
  reliability: number | null;
  verified: boolean | null;
  /** How many instances this one offer can become (1 for a concrete machine, stock for a pooled offer). */
  available: number;
  /** Lowest bid for an interruptible instance; null where bids do not exist. */
  minBidUsdPerHour: number | null;
  /** Hours that are paid up front; null when billing is by use. */
  prepaidHours: number | null;
  diskGb: number | null;
  /** What the disk costs, and how much of it is in `usdPerHour`; null where the price does not depend on the disk. */
  storage: Readonly<{ usdPerGbHour: number; pricedGb: number }> | null;
  /** Key of the physical machine, so that one that failed can be avoided. */
  machineId: string | null;
}>;

/** Filters of an offer search. Absent means "any". */
export type OfferFilter = Readonly<{
  minVramGb?: number | undefined;
  /** Per hour and instance. */
  maxUsdPerHour?: number | undefined;
  /** Case-insensitive; `_` and blank are the same; substring match. */
  gpuModel?: string | undefined;
  /** Country code or part of the location text, case-insensitive. */
  location?: string | undefined;
  provider?: ProviderName | undefined;
  /** Exact number of GPUs of the instance. */
  gpuCount?: number | undefined;
  verified?: boolean | undefined;
}>;

/** What to start on a rented instance. */
export type RentSpec = Readonly<{
  /** Unique, made and committed by us before the paid call: how a rental is found again after a crash. */
  label: string;
  image: string;
  diskGb: number;
  env: Readonly<Record<string, string>>;
  onstart: string | null;
  args: readonly string[] | null;
  /** Container ports to publish; the first one serves HTTP. */
  ports: readonly number[];
  /** Interruptible instance at this bid; null rents on demand. */
  maxBidUsdPerHour: number | null;
  /** Prepaid hours where the provider sells time. */
  durationHours: number;
  /** Refuse rather than pay more than this per hour; null means the price in the offer. */
  maxUsdPerHour: number | null;
}>;

export type ContractId = string;

export type RentRefusal = 'gone' | 'no_credit' | 'rejected' | 'price_risen' | 'unavailable' | 'unknown';

/**
 * A refused rental may still have created a billed contract (`leaked`). `unknown` means that the answer was lost: an
 * instance may exist, look for the label. `unavailable` means that nothing was sent or the provider said "try later".
 */
export type RentResult =
  /** `usdPerHour` is the price it was bought at; absent when the answer does not say and the list will. */
  | Readonly<{ ok: true; contract: ContractId; usdPerHour?: number }>
  | Readonly<{ ok: false; reason: RentRefusal; detail: string; leaked?: ContractId }>;

/** One row of a provider's "my instances": what the provider says, in our words. */
export type ProviderInstance = Readonly<{
  contract: ContractId;
  label: string | null;
  phase: 'booting' | 'running' | 'stopped' | 'failed' | 'ended';
  /** Base URL once HTTP is reachable, without a trailing slash. */
  origin: string | null;
  /** The provider's own words about the phase. */
  detail: string | null;
  gpuModel: string;
  gpuCount: number;
  vramGb: number;
  usdPerHour: number;
  /** Of that, what is billed also while it does not run; null when the provider does not say. */
  diskUsdPerHour: number | null;
  location: string | null;
  startedAt: number | null;
  /** End of prepaid time; null when billing is by use. */
  expiresAt: number | null;
  interruptible: boolean;
  /** True when an interruptible instance was stopped because somebody bid more. */
  outbid: boolean;
}>;

// --- the three independent facts about an upstream (each with one writer) ---

/** What the provider says (and, before and after that, our ledger). Writer: fleet. */
export type Lifecycle =
  | Readonly<{ phase: 'reserving'; at: number }>
  | Readonly<{ phase: 'booting'; at: number; detail: string | null }>
  | Readonly<{ phase: 'running'; at: number; origin: string }>
  /** It exists and does not run: outbid, stopped by hand, or failed. */
  | Readonly<{ phase: 'halted'; at: number; cause: 'outbid' | 'stopped' | 'failed'; detail: string | null }>
  | Readonly<{ phase: 'destroying'; at: number; detail: string | null }>
  | Readonly<{ phase: 'ended'; at: number; reason: string }>;

/** What the operator says. Writer: the operator's commands. */
export type Admin = Readonly<{ mode: 'ready' }> | Readonly<{ mode: 'drain'; deadlineAt: number | null }>;

/** What traffic and probes say. Writer: the load table, from outcomes. */
export type Health =
  | Readonly<{ state: 'unknown' | 'up' | 'probation' }>
  | Readonly<{ state: 'ejected'; untilAt: number; times: number; why: string }>
  | Readonly<{ state: 'backoff'; untilAt: number; why: string }>;

/** How an attempt ended. The order is the wire order of counters in the load table: append only. */
export const endings = [
  'complete', // all bytes delivered (any status below 500 that is not backoff and not 4xx)
  'client_error', // the upstream answered 4xx: passed through
  'server_error', // the upstream answered 5xx before any byte reached the client
  'refused', // connect, DNS, TLS or reset before any byte of the answer
  'first_byte_timeout', // no first byte in time
  'backoff', // 429 or 503 with Retry-After
  'truncated', // died after bytes were sent
  'idle_timeout', // silent between chunks too long
  'client_gone', // the client left
  'drained', // cut at a drain deadline
] as const;
export type Ending = (typeof endings)[number];

export const strategyNames = [
  'round_robin',
  'equal_weighted',
  'weighted_round_robin',
  'least_connections',
  'least_response_time',
] as const;
export type StrategyName = (typeof strategyNames)[number];
