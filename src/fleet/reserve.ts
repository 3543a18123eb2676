import { createHash, randomBytes } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Offer, OfferFilter, ProviderInstance, ProviderName, RentResult, RentSpec } from '../core/domain.ts';
import type { LoadTable } from '../core/load-table.ts';
import { chooseOffers, type ProviderLoad, usdPerHourWith } from '../core/offers.ts';
import { counted, price } from '../core/words.ts';
import { type Provider, ProviderError } from '../providers/provider.ts';
import {
  AppError,
  type BatchRequest,
  type BatchResult,
  type CancelResult,
  type InstanceConfig,
  invalidField,
  type OffersAnswer,
  type RentedOffer,
  type RentOptions,
  type ReservationView,
  type ReservedItem,
  type ReservePlan,
  type ReserveRequest,
  type ReserveResult,
} from './app.ts';
import type { Availability, Claim } from './availability.ts';
import type { Destroyer } from './destroyer.ts';
import type { EventLog } from './events.ts';
import { failureOf } from './failure.ts';
import { unusedInstanceId } from './instance-id.ts';
import type { Ledger } from './ledger/ledger.ts';
import type { Rental, Reservation } from './ledger/rows.ts';
import type { Reconciler } from './reconciler.ts';
import type { FleetRecord, FleetRecords } from './records.ts';
import { interrupted, searchLeftMs, searchText } from './search-text.ts';
import { usdPerHourNow } from './spend.ts';
import type { Clock, Timing } from './timing.ts';

/** Rents: each rental is a committed intent before it is a paid call, and its outcome is committed after it. */
export interface Reserver {
  plan(request: ReserveRequest, signal?: AbortSignal): Promise<ReservePlan>;
  planBatch(request: BatchRequest, signal?: AbortSignal): Promise<ReservePlan>;
  reserve(request: ReserveRequest, options?: RentOptions): Promise<ReserveResult>;
  batch(request: BatchRequest, options?: RentOptions): Promise<BatchResult>;
  rentOffer(
    provider: ProviderName,
    offerId: string,
    config: InstanceConfig,
    options?: RentOptions & { maxUsdPerHour?: number | undefined },
  ): Promise<RentedOffer>;
  /** The reservation that a request with this key made. */
  byKey(idempotencyKey: string): Reservation | undefined;
  cancel(idempotencyKey: string, keep: boolean): Promise<CancelResult>;
  /** Judges what a rental turns out to cost, once; a reason means that it costs more than it may and is given back. */
  tooDear(record: FleetRecord, instance: ProviderInstance): string | null;
  release(id: string, drainMs: number): Promise<{ released: readonly string[]; failed: readonly string[] }>;
  /** True while a reservation of this process works on the rental. */
  underWay(label: string): boolean;
  /** Takes up what the last process left open. Call once, before anything else. */
  recover(): void;
  /** Closes reservations whose rentals are all settled. Cheap when there are none. */
  tidy(): void;
  view(reservation: Reservation): ReservationView;
  stop(graceMs: number): Promise<void>;
}

export type ReserveParts = Readonly<{
  providers: ReadonlyMap<ProviderName, Provider>;
  ledger: Ledger;
  records: FleetRecords;
  table: LoadTable;
  availability: Availability;
  reconciler: Reconciler;
  destroyer: Destroyer;
  events: EventLog;
  clock: Clock;
  timing: Timing;
  maxUsdPerHour: number | null;
  defaults: Readonly<{ image: string; diskGb: number; instancePort: number }>;
  changed: () => void;
  step: (name: string) => void;
}>;

/** Paid calls of one reservation that may be under way at once. */
const parallel = 4;
/** Rise of a price over the offer's that is borne when nobody set a limit: what a disk or rounding adds. */
const unaskedRise = 0.05;
/** Offers tried for one instance before it counts as not to be had. */
const attemptsPerInstance = 6;
/** Failures of one kind after which a provider is left out of the rest of a reservation. */
const patience = { unavailable: 3, unknown: 2, rejected: 2 } as const;
/** A tenth of a cent: prices are sums, and sums round. */
const priceSlackUsd = 0.001;
const maxGpus = 16;
const maxBatch = 8;

type Market = OffersAnswer & { open(): readonly Offer[] };

/** Instances of one kind within a reservation. */
type Group = {
  readonly filter: OfferFilter;
  readonly instances: number;
  readonly config: InstanceConfig;
  /** Only this offer will do. */
  readonly offerId: string | null;
  market: Market;
  asked: number;
  /** Its prices have proved to be of the past. */
  stale: boolean;
};

type Slot = {
  readonly group: Group;
  record: FleetRecord;
  offer: Offer;
  claim: Claim;
  attempts: number;
  rented: boolean;
};

/** How somebody stops a request that is under way. */
type Stopper = {
  /** Once set, no further paid call is made. */
  wish: 'keep' | 'give back' | null;
  /** Of the request, once it has committed to rent something. */
  reservation: string | null;
};

/** One reservation under way. */
type Saga = {
  readonly id: string;
  readonly by: string;
  readonly requested: number;
  readonly allOrNothing: boolean;
  readonly maxTotalUsdPerHour: number | null;
  readonly stopper: Stopper;
  readonly idempotencyKey: string | null;
  readonly slots: Slot[];
  readonly errors: Set<string>;
  /** Providers left out of the rest of it. */
  readonly out: Set<ProviderName>;
  readonly failures: Map<string, number>;
  readonly causes: Set<'gone' | 'no_credit' | 'failed' | 'timeout' | 'budget'>;
  /** No further paid calls. */
  stop: boolean;
};

export function createReserver(parts: ReserveParts): Reserver {
  const { providers, ledger, records, table, availability, reconciler, destroyer, events, clock, timing } = parts;
  const { changed, step } = parts;
  const underWay = new Set<string>();
  /** First requests with an Idempotency-Key that are still under way. */
  const pending = new Map<string, { bodyHash: string; answer: Promise<unknown>; stopper: Stopper }>();
  const sagas = new Set<Promise<unknown>>();
  const active = new Map<string, { stopper: Stopper; ended: Promise<void> }>();
  const shutdown = new AbortController();
  let stopping = false;
  let unsettled = new Set<string>();
  const lastRentedAt = new Map<ProviderName, number>();

  // --- choosing ---

  const usdPerHourOf = (offer: Offer, config: InstanceConfig): number =>
    usdPerHourWith(offer, config.diskGb ?? parts.defaults.diskGb, config.maxBidUsdPerHour ?? null);
  const hoursOf = (offer: Offer, config: InstanceConfig): number => config.durationHours ?? offer.prepaidHours ?? 1;
  const prepaidUsdOf = (offer: Offer, config: InstanceConfig): number =>
    offer.prepaidHours === null ? 0 : usdPerHourOf(offer, config) * hoursOf(offer, config);

  const loads = (): Partial<Record<ProviderName, ProviderLoad>> => {
    const lifetime = ledger.rentals.lifetime();
    const result: Partial<Record<ProviderName, ProviderLoad>> = {};
    for (const name of providers.keys()) {
      const mine = records.all().filter((record) => record.provider === name && record.lifecycle.phase !== 'ended');
      const times = mine.flatMap((record) => {
        const avgMs = record.ref === null ? null : (table.read(record.ref)?.avgMs ?? null);
        return avgMs === null ? [] : [avgMs];
      });
      result[name] = {
        active: mine.length,
        total: lifetime.get(name) ?? 0,
        avgMs: times.length === 0 ? null : times.reduce((a, b) => a + b, 0) / times.length,
        lastUsed: lastRentedAt.get(name) ?? null,
      };
    }
    return result;
  };

  /** What the offers of a group have to match; a bid replaces the price on the tag. */
  const marketFilter = (filter: OfferFilter, config: InstanceConfig): OfferFilter =>
    config.maxBidUsdPerHour === undefined ? filter : { ...filter, maxUsdPerHour: undefined };
  const suits = (offer: Offer, group: Group): boolean => {
    if (group.offerId !== null && offer.id !== group.offerId) return false;
    if (usdPerHourOf(offer, group.config) > (group.filter.maxUsdPerHour ?? Number.POSITIVE_INFINITY)) return false;
    const bid = group.config.maxBidUsdPerHour;
    if (bid === undefined) return true;
    return offer.minBidUsdPerHour !== null && offer.minBidUsdPerHour <= bid;
  };
  const choose = (
    group: Group,
    n: number,
    out: ReadonlySet<ProviderName>,
    maxUsdPerHour = Number.POSITIVE_INFINITY,
  ): Offer[] => {
    const offers = group.market
      .open()
      .filter(
        (offer) =>
          !out.has(offer.provider) &&
          suits(offer, group) &&
          usdPerHourOf(offer, group.config) <= maxUsdPerHour + priceSlackUsd,
      );
    const order = chooseOffers({ offers, strategy: table.strategy, loads: loads(), balancing: table.balancing });
    return [...order.take(n)];
  };

  const ask = async (
    filter: OfferFilter,
    instances: number,
    config: InstanceConfig,
    signal: AbortSignal | undefined,
    offerId: string | null = null,
  ): Promise<Group> => {
    const bid = config.maxBidUsdPerHour;
    if (bid !== undefined && filter.maxUsdPerHour !== undefined && bid > filter.maxUsdPerHour) {
      throw invalidField(
        offerId === null ? 'config.max_bid' : 'max_bid',
        `${bid} USD per hour is above max_price, which is ${filter.maxUsdPerHour}`,
      );
    }
    if (filter.provider !== undefined && !providers.has(filter.provider)) {
      throw new AppError('invalid', `provider ${filter.provider} is not configured`, {
        details: [`configured: ${[...providers.keys()].join(', ') || 'none'}`],
      });
    }
    const ended = signal === undefined ? shutdown.signal : AbortSignal.any([signal, shutdown.signal]);
    const market = await availability
      .candidates(marketFilter(filter, config), ended, { askAnyway: offerId !== null })
      .catch((error: unknown) => {
        if (!shutdown.signal.aborted) throw error;
        throw new AppError('conflict', 'the server was shut down before anything was rented');
      });
    return { filter, instances, config, offerId, market, asked: 1, stale: false };
  };

  const gpusPerInstance = (request: ReserveRequest): number => {
    const { count, filter } = request;
    if (!Number.isInteger(count) || count < 1 || count > maxGpus) {
      throw invalidField('count', `got ${count}, accepts a whole number from 1 to ${maxGpus}`);
    }
    const gpus = filter.gpuCount ?? 1;
    if (!Number.isInteger(gpus) || gpus < 1 || count % gpus !== 0) {
      throw invalidField('filters.gpu_count', `${counted(count, 'GPU')} cannot be split into instances of ${gpus}`);
    }
    return gpus;
  };
  const reserveGroup = (request: ReserveRequest, signal: AbortSignal | undefined) => {
    const gpus = gpusPerInstance(request);
    return ask({ ...request.filter, gpuCount: gpus }, request.count / gpus, request.config, signal);
  };

  const marketErrors = (groups: readonly Group[]): string[] => [
    ...new Set(groups.flatMap((group) => group.market.errors.map((error) => `${error.provider}: ${error.message}`))),
  ];
  const short = (wanted: number, got: number): string =>
    got === 0
      ? 'no offers match the filters'
      : `${counted(got, 'matching instance is', 'matching instances are')} on offer, ${wanted} are wanted`;

  // --- intents ---

  const overBudget = (moreUsdPerHour: number): string | null => {
    if (parts.maxUsdPerHour === null) return null;
    const committed = ledger.rentals.committedUsdPerHour();
    // Half a hundredth of a cent forgives the rounding of sums.
    return committed + moreUsdPerHour > parts.maxUsdPerHour + 0.00005
      ? `$${moreUsdPerHour.toFixed(2)}/h more would make $${(committed + moreUsdPerHour).toFixed(2)}/h; MAX_USD_PER_HOUR is $${parts.maxUsdPerHour.toFixed(2)}/h`
      : null;
  };

  /** The most that one instance may turn out to cost; null when any price is borne. */
  const limitOf = (offer: Offer, group: Group, maxTotalUsdPerHour: number | null): number | null => {
    const { config, filter } = group;
    if (config.maxBidUsdPerHour !== undefined) return null;
    // What a greater disk adds is not always told.
    const priced = offer.storage !== null || (config.diskGb ?? parts.defaults.diskGb) <= parts.defaults.diskGb;
    const unasked = priced ? usdPerHourOf(offer, config) * (1 + unaskedRise) + 0.005 : null;
    const asked = filter.maxUsdPerHour ?? null;
    if (asked === null || unasked === null) return asked ?? unasked;
    // Under a bound of the whole nothing may cost more than what the whole was checked with.
    return parts.maxUsdPerHour === null && maxTotalUsdPerHour === null ? asked : Math.min(asked, unasked);
  };

  const intent = (offer: Offer, group: Group, reservation: string, maxTotalUsdPerHour: number | null): Rental => {
    const provider = providers.get(offer.provider);
    if (provider === undefined) throw new Error(`${offer.provider} is not configured`);
    const rental: Rental = {
      label: `gpuproxy-${randomBytes(9).toString('hex')}`,
      reservation,
      instanceId: unusedInstanceId(ledger, `${provider.prefix}-${offer.id}`),
      provider: offer.provider,
      offerId: offer.id,
      contract: null,
      state: 'intended',
      wanted: true,
      gpuModel: offer.gpuModel,
      gpuCount: offer.gpuCount,
      vramGb: offer.vramGb,
      usdPerHour: usdPerHourOf(offer, group.config),
      limitUsdPerHour: limitOf(offer, group, maxTotalUsdPerHour),
      // What a bid costs is what was bid.
      priceSeen: group.config.maxBidUsdPerHour !== undefined,
      diskUsdPerHour: (offer.storage?.usdPerGbHour ?? 0) * (group.config.diskGb ?? parts.defaults.diskGb),
      prepaid: offer.prepaidHours !== null,
      prepaidHours: offer.prepaidHours === null ? null : hoursOf(offer, group.config),
      location: offer.location,
      interruptible: group.config.maxBidUsdPerHour !== undefined,
      origin: null,
      createdAt: clock.now(),
      settledAt: null,
      ran: false,
      billedFrom: null,
      diskFrom: null,
      expiresAt: null,
      endedAt: null,
      reason: null,
    };
    ledger.rentals.insert(rental);
    return rental;
  };
  /** After the commit of its intent: the offer is taken, the record is in the picture. */
  const begin = (rental: Rental, offer: Offer): { record: FleetRecord; claim: Claim } => {
    underWay.add(rental.label);
    lastRentedAt.set(offer.provider, clock.now());
    return { record: records.intended(rental), claim: availability.claim(offer) };
  };

  const specOf = (saga: Saga, rental: Rental, group: Group, offer: Offer): RentSpec => {
    const { config, filter } = group;
    const whole = parts.maxUsdPerHour ?? saga.maxTotalUsdPerHour;
    return {
      label: rental.label,
      image: config.image ?? parts.defaults.image,
      diskGb: config.diskGb ?? parts.defaults.diskGb,
      env: config.env ?? {},
      onstart: config.onstart ?? null,
      args: config.args ?? null,
      ports: config.ports && config.ports.length > 0 ? config.ports : [parts.defaults.instancePort],
      maxBidUsdPerHour: config.maxBidUsdPerHour ?? null,
      durationHours: hoursOf(offer, config),
      // Under a bound of the whole nothing may cost more than what the whole was checked with.
      maxUsdPerHour: whole === null ? (filter.maxUsdPerHour ?? null) : null,
    };
  };

  // --- one attempt ---

  const call = async (provider: Provider, offer: Offer, spec: RentSpec): Promise<RentResult> => {
    try {
      return await provider.rent(
        offer,
        spec,
        AbortSignal.any([AbortSignal.timeout(timing.rentTimeoutMs), shutdown.signal]),
      );
    } catch (error) {
      const failure = failureOf(error);
      // A provider rejects a paid call only when nothing was sent; an error that says otherwise is believed.
      const sent = error instanceof ProviderError && error.sent;
      return { ok: false, reason: sent ? 'unknown' : 'unavailable', detail: failure.message };
    }
  };

  /** A shutdown ends it early, and so does nothing else: what it throws then says no more than that. */
  const pause = (ms: number) => sleep(ms, undefined, { signal: shutdown.signal }).catch(() => undefined);

  /** Searches the provider's list for a label whose paid call gave no answer. */
  const look = async (saga: Saga, slot: Slot): Promise<'found' | 'absent' | 'unclear'> => {
    let answer: 'absent' | 'unclear' = 'unclear';
    for (const ms of timing.lookForLabelMs) {
      await pause(ms);
      if (stopping) return 'unclear';
      const sought = await reconciler.seek(slot.record.provider, slot.record.rental?.label ?? '');
      if (sought.found !== null) {
        commitRented(saga, slot, sought.found.contract);
        return 'found';
      }
      answer = sought.failure === null ? 'absent' : 'unclear';
    }
    return answer;
  };

  const commitRented = (saga: Saga, slot: Slot, contract: string, usdPerHour?: number) => {
    const { record, offer } = slot;
    step('before-outcome');
    records.rented(record, contract, usdPerHour);
    step('after-outcome');
    slot.claim.settle('rented');
    slot.rented = true;
    const rental = record.rental;
    events.emit({
      level: 'ok',
      kind: 'rental',
      subject: record.id,
      message: `${record.id} rented for ${saga.id}: ${offer.gpuCount}x ${offer.gpuModel} at ${price(rental?.usdPerHour ?? offer.usdPerHour)}/h, contract ${contract}`,
    });
    reconciler.nudge(record.provider);
  };

  /**
   * Where the answer of the paid call names no price, the list does. One that costs more than it may is given back at
   * once and another takes its place.
   */
  const priceHolds = async (saga: Saga, slot: Slot): Promise<boolean> => {
    const { record } = slot;
    // At once, and again where the list could not be had or does not have it yet.
    for (const ms of [0, ...timing.lookForLabelMs]) {
      if (ms > 0) await pause(ms);
      const { rental } = record;
      if (stopping || saga.stopper.wish !== null) return true;
      if (rental === null || rental.state !== 'rented' || rental.priceSeen) return true;
      const { found } = await reconciler.seek(record.provider, rental.label);
      if (found === null || record.rental?.state !== 'rented') continue;
      const why = self.tooDear(record, found);
      if (why !== null) {
        slot.rented = false;
        slot.group.stale = true;
        saga.errors.add(`${record.id}: ${why}; given back`);
        saga.causes.add('gone');
        return false;
      }
      records.observed(record, found);
      return true;
    }
    // The reconcile that sees it first judges its price.
    return true;
  };

  const count = (saga: Saga, kind: keyof typeof patience, provider: ProviderName) => {
    const key = `${kind} ${provider}`;
    const n = (saga.failures.get(key) ?? 0) + 1;
    saga.failures.set(key, n);
    if (n >= patience[kind]) saga.out.add(provider);
  };

  /** One paid call and the commit of its outcome. True: the slot has its instance. False: it needs another offer. */
  const attempt = async (saga: Saga, slot: Slot): Promise<boolean | 'open'> => {
    const { record, offer, group } = slot;
    const rental = record.rental;
    const provider = providers.get(offer.provider);
    if (rental === null || provider === undefined) throw new Error(`${record.id} has nothing to rent with`);
    slot.attempts += 1;
    try {
      step('call');
      const spec = specOf(saga, rental, group, offer);
      const result = await call(provider, offer, spec);
      step('answered');
      if (result.ok) {
        commitRented(saga, slot, result.contract, result.usdPerHour);
        return await priceHolds(saga, slot);
      }
      const line = `${record.id}: ${result.detail}`;
      if (result.leaked !== undefined) {
        // Refused, and yet there is a contract that costs money.
        records.destroying(
          record,
          `refused by ${offer.provider}, but a contract was made: ${result.detail}`,
          result.leaked,
        );
        slot.claim.settle('gone');
        destroyer.resume(record);
        saga.errors.add(line);
        saga.causes.add('failed');
        count(saga, 'rejected', offer.provider);
        return false;
      }
      switch (result.reason) {
        case 'gone':
        case 'price_risen':
          slot.claim.settle('gone');
          records.refused(record, result.detail);
          if (result.reason === 'price_risen') saga.errors.add(line);
          saga.causes.add('gone');
          return false;
        case 'no_credit':
          slot.claim.settle('free');
          records.refused(record, result.detail);
          saga.out.add(offer.provider);
          saga.errors.add(`${offer.provider}: ${result.detail}`);
          saga.causes.add('no_credit');
          return false;
        case 'rejected':
        case 'unavailable':
          slot.claim.settle(result.reason === 'rejected' ? 'gone' : 'free');
          records.refused(record, result.detail);
          saga.errors.add(`${offer.provider}: ${result.detail}`);
          saga.causes.add('failed');
          count(saga, result.reason, offer.provider);
          if (result.reason === 'unavailable' && !stopping) {
            await pause(timing.lookForLabelMs[0] ?? 0);
          }
          return false;
        case 'unknown': {
          records.patch(record, { state: 'unknown', settledAt: clock.now(), reason: result.detail });
          slot.claim.settle('gone');
          reconciler.nudge(record.provider);
          saga.causes.add('timeout');
          const found = await look(saga, slot);
          if (found === 'found') return await priceHolds(saga, slot);
          saga.errors.add(
            `${record.id}: the answer of ${offer.provider} was lost (${result.detail})${found === 'absent' ? '' : '; it is looked for by its label'}`,
          );
          count(saga, 'unknown', offer.provider);
          if (found === 'unclear') return 'open';
          // Another offer takes its place; should this one still turn up, it is destroyed.
          records.patch(record, { wanted: false });
          return false;
        }
      }
    } finally {
      underWay.delete(rental.label);
    }
  };

  /** What may still be spent an hour on another instance, by what the whole reservation may cost. */
  const allowance = (saga: Saga): number => {
    if (saga.maxTotalUsdPerHour === null) return Number.POSITIVE_INFINITY;
    const taken = ledger.rentals
      .of(saga.id)
      .filter((rental) => rental.wanted && ['intended', 'unknown', 'rented'].includes(rental.state));
    return saga.maxTotalUsdPerHour - taken.reduce((sum, rental) => sum + rental.usdPerHour, 0);
  };

  /** Commits the intent on another offer for a slot; false when there is none, or no money for it. */
  const replace = async (saga: Saga, slot: Slot): Promise<boolean> => {
    const { group } = slot;
    if (slot.attempts >= attemptsPerInstance || stopped(saga)) return false;
    let [offer] = choose(group, 1, saga.out, allowance(saga));
    const worn = group.stale || (offer === undefined && saga.causes.has('gone'));
    if (worn && group.asked < 2 && group.offerId === null) {
      group.asked += 1;
      group.stale = false;
      try {
        group.market = await availability.candidates(marketFilter(group.filter, group.config), shutdown.signal, {
          askAnyway: true,
        });
      } catch (error) {
        saga.errors.add(`the providers could not be asked for other offers: ${failureOf(error).message}`);
      }
      [offer] = choose(group, 1, saga.out, allowance(saga));
    }
    if (stopped(saga)) return false;
    if (offer === undefined) {
      if (choose(group, 1, saga.out).length > 0) {
        saga.errors.add(
          `every other offer would make the whole dearer than the $${saga.maxTotalUsdPerHour?.toFixed(3)}/h it may cost`,
        );
      } else if (saga.causes.has('gone')) saga.errors.add('no further offer matches');
      return false;
    }
    const chosen = offer;
    step('before-intent');
    // Choice, budget, intent and claim in one synchronous step: nobody else chooses in between.
    const committed = ledger.transaction(() => {
      const over = overBudget(usdPerHourOf(chosen, group.config));
      return over === null ? { rental: intent(chosen, group, saga.id, saga.maxTotalUsdPerHour) } : { over };
    });
    if ('over' in committed) {
      saga.errors.add(committed.over);
      saga.causes.add('budget');
      return false;
    }
    const { rental } = committed;
    step('after-intent');
    const { record, claim } = begin(rental, chosen);
    slot.record = record;
    slot.offer = chosen;
    slot.claim = claim;
    return true;
  };

  /** No further paid call is to be made. */
  const stopped = (saga: Saga): boolean => saga.stop || stopping || saga.stopper.wish !== null;

  const fill = async (saga: Saga, slot: Slot): Promise<void> => {
    for (;;) {
      if (stopped(saga)) {
        // Its intent was committed, its call never made.
        abandon(slot);
        if (stopping) saga.errors.add('the server was shut down meanwhile');
        return;
      }
      const done = await attempt(saga, slot);
      if (done === true || done === 'open') break;
      if (!(await replace(saga, slot))) break;
    }
    if (!slot.rented && saga.allOrNothing) saga.stop = true;
  };
  const abandon = (slot: Slot) => {
    const rental = slot.record.rental;
    if (rental === null || rental.state !== 'intended') return;
    slot.claim.settle('free');
    records.refused(slot.record, 'not called');
    underWay.delete(rental.label);
  };

  // --- one reservation ---

  type Opening = {
    groups: readonly Group[];
    requested: number;
    allOrNothing: boolean;
    maxTotalUsdPerHour: number | null;
    by: string;
    stopper: Stopper;
    idempotency: { key: string; bodyHash: string } | null;
  };

  /** Chooses, checks the budget and commits all intents in one synchronous step. */
  const open = (opening: Opening): Saga => {
    const chosen = opening.groups.flatMap((group) =>
      choose(group, group.instances, new Set()).map((offer) => ({ group, offer })),
    );
    const wanted = opening.groups.reduce((sum, group) => sum + group.instances, 0);
    const problems = marketErrors(opening.groups);
    if (chosen.length === 0) {
      const failed = opening.groups.flatMap((group) => group.market.errors);
      const asked = new Set(opening.groups.flatMap((group) => group.filter.provider ?? [...providers.keys()]));
      if (failed.length > 0 && failed.length >= asked.size) {
        const code = failed.every((error) => error.code === 'timeout') ? 'provider_timeout' : 'provider_failed';
        throw new AppError(code, 'no provider could be asked for offers', { details: problems });
      }
      throw new AppError('no_offers', short(wanted, 0), { details: [short(wanted, 0), ...problems] });
    }
    if (opening.allOrNothing && chosen.length < wanted) {
      throw new AppError('incomplete', `${short(wanted, chosen.length)}; nothing was rented`, {
        details: [short(wanted, chosen.length), ...problems],
      });
    }
    const usdPerHour = chosen.reduce((sum, { group, offer }) => sum + usdPerHourOf(offer, group.config), 0);
    const { maxTotalUsdPerHour } = opening;
    if (maxTotalUsdPerHour !== null && usdPerHour > maxTotalUsdPerHour + priceSlackUsd) {
      throw new AppError(
        'conflict',
        `it would cost $${usdPerHour.toFixed(3)}/h by now, more than the $${maxTotalUsdPerHour.toFixed(3)}/h it may cost; nothing was rented`,
      );
    }

    const id = `res-${randomBytes(5).toString('hex')}`;
    step('before-intent');
    const rentals = ledger.transaction(() => {
      const over = overBudget(usdPerHour);
      if (over !== null) throw new AppError('budget_exceeded', over);
      ledger.reservations.insert({
        id,
        createdAt: clock.now(),
        by: opening.by,
        requested: opening.requested,
        allOrNothing: opening.allOrNothing,
        state: 'renting',
        errors: [],
        idempotencyKey: opening.idempotency?.key ?? null,
      });
      if (opening.idempotency !== null) {
        ledger.idempotency.insert({
          ...opening.idempotency,
          reservation: id,
          createdAt: clock.now(),
          result: null,
        });
      }
      return chosen.map(({ group, offer }) => intent(offer, group, id, maxTotalUsdPerHour));
    });
    step('after-intent');
    const saga: Saga = {
      id,
      by: opening.by,
      requested: opening.requested,
      allOrNothing: opening.allOrNothing,
      maxTotalUsdPerHour,
      stopper: opening.stopper,
      idempotencyKey: opening.idempotency?.key ?? null,
      slots: chosen.map(({ group, offer }, index) => ({
        group,
        offer,
        ...begin(rentals[index] as Rental, offer),
        attempts: 0,
        rented: false,
      })),
      errors: new Set(chosen.length < wanted ? [short(wanted, chosen.length), ...problems] : []),
      out: new Set(),
      failures: new Map(),
      causes: new Set(),
      stop: false,
    };
    events.emit({
      level: 'info',
      kind: 'reservation',
      subject: id,
      message: `${id}: renting ${counted(opening.requested, 'GPU')} for ${opening.by}`,
    });
    changed();
    return saga;
  };

  /**
   * Within a transaction: nobody is to have what a reservation rented. What exists is to be destroyed, what may still
   * turn up is disowned. Answers what is being destroyed now and what is not known to exist.
   */
  const disown = (id: string, why: string): { toDestroy: FleetRecord[]; unclear: FleetRecord[] } => {
    ledger.reservations.update(id, { state: 'releasing' });
    const toDestroy: FleetRecord[] = [];
    const unclear: FleetRecord[] = [];
    for (const rental of ledger.rentals.of(id)) {
      const record = records.byLabel(rental.label);
      if (record === undefined) {
        // Ended long ago; should the provider list it again, it is not taken back.
        if (rental.wanted) ledger.rentals.update(rental.label, { wanted: false });
        continue;
      }
      if (rental.state === 'rented') records.destroying(record, why);
      else if (rental.wanted) records.patch(record, { wanted: false });
      if (record.rental?.state === 'destroying') toDestroy.push(record);
      else if (rental.state === 'unknown' || rental.state === 'intended') unclear.push(record);
    }
    return { toDestroy, unclear };
  };

  const undo = (id: string, idempotencyKey: string | null, why: string) =>
    ledger.transaction(() => {
      if (idempotencyKey !== null) ledger.idempotency.remove(idempotencyKey);
      return disown(id, why);
    });

  /** Gives back what the saga rented; answers what became of it. */
  const rollBack = async (saga: Saga, why: string): Promise<string> => {
    step('before-rollback');
    ledger.reservations.update(saga.id, { errors: [...saga.errors] });
    const { toDestroy, unclear } = undo(saga.id, saga.idempotencyKey, why);
    step('rollback');
    for (const record of toDestroy) destroyer.resume(record);
    await Promise.all(toDestroy.map((record) => destroyer.settled(record, timing.destroyWaitMs)));
    const given =
      toDestroy.length === 0 ? 'nothing had been rented' : `${toDestroy.length} rented instances are given back`;
    return unclear.length === 0
      ? given
      : `${given}; ${unclear.length} more, whose answer was lost, will be destroyed if they turn up`;
  };

  /**
   * Within a transaction: what a reservation of all or nothing that has its answer loses with the rental that is given
   * back. One that is under way sees to it itself.
   */
  const restOf = (given: Rental, why: string): FleetRecord[] => {
    const reservation = given.reservation === null ? undefined : ledger.reservations.get(given.reservation);
    if (reservation === undefined || !reservation.allOrNothing || active.has(reservation.id)) return [];
    ledger.reservations.update(reservation.id, {
      errors: [...reservation.errors, `${given.instanceId}: ${why}; all or nothing: all of it is given back`],
    });
    unsettled.add(reservation.id);
    const { toDestroy } = undo(
      reservation.id,
      reservation.idempotencyKey,
      `all or nothing: ${given.instanceId} ${why}`,
    );
    return toDestroy.filter((record) => record.rental?.label !== given.label);
  };

  const itemOf = (rental: Rental): ReservedItem => ({
    instanceId: rental.instanceId,
    contractId: rental.contract ?? '',
    provider: rental.provider,
    gpuModel: rental.gpuModel,
    gpuCount: rental.gpuCount,
    vramGb: rental.vramGb,
    usdPerHour: rental.usdPerHour,
  });
  /** The answer of a reservation from what the ledger knows of it. */
  const resultOf = (id: string, requested: number, errors: readonly string[]): ReserveResult => {
    const items = ledger.rentals
      .of(id)
      .filter((rental) => rental.state === 'rented' && rental.contract !== null)
      .map(itemOf);
    return {
      reservation: id,
      reserved: items,
      count: items.reduce((sum, item) => sum + item.gpuCount, 0),
      requested,
      errors,
    };
  };

  const noneRented = (saga: Saga): AppError => {
    const details = [...saga.errors];
    const { causes } = saga;
    if (saga.stopper.wish !== null)
      return new AppError('incomplete', 'cancelled: nothing had been rented', { details });
    if (stopping) return new AppError('conflict', 'the server was shut down before anything was rented', { details });
    if (causes.has('no_credit')) return new AppError('no_credit', details[0] ?? 'no credit', { details });
    if (causes.has('failed')) return new AppError('provider_failed', details[0] ?? 'the providers failed', { details });
    if (causes.has('timeout')) return new AppError('provider_timeout', details[0] ?? 'no answer in time', { details });
    if (causes.has('budget')) return new AppError('budget_exceeded', details[0] ?? 'over budget', { details });
    return new AppError('no_offers', 'every matching offer was gone when it was to be rented', {
      details: details.length > 0 ? details : ['every matching offer was gone'],
    });
  };

  const execute = async (opening: Opening): Promise<ReserveResult> => {
    const { stopper } = opening;
    if (stopper.wish !== null) throw new AppError('incomplete', 'cancelled before anything was to be rented');
    const saga = open(opening);
    const ended = Promise.withResolvers<void>();
    stopper.reservation = saga.id;
    active.set(saga.id, { stopper, ended: ended.promise });
    try {
      const queue = [...saga.slots];
      const worker = async () => {
        for (let slot = queue.shift(); slot !== undefined; slot = queue.shift()) await fill(saga, slot);
      };
      const results = await Promise.allSettled(Array.from({ length: Math.min(parallel, queue.length) }, worker));
      for (const result of results) if (result.status === 'rejected') throw result.reason;

      // A list may have shown meanwhile that one is too dear: that one is on its way out.
      const rented = saga.slots.filter((slot) => slot.rented && slot.record.rental?.state === 'rented');
      if (stopper.wish === 'give back') {
        const message = `${saga.id} cancelled: ${await rollBack(saga, 'cancelled')}`;
        events.emit({ level: 'warn', kind: 'reservation', subject: saga.id, message });
        throw new AppError('incomplete', message, { details: [...saga.errors] });
      }
      if (opening.allOrNothing && rented.length < saga.slots.length) {
        const undone = await rollBack(saga, 'all or nothing: the rest could not be had');
        const message = `${rented.length} of ${counted(saga.slots.length, 'instance')} could be rented: ${undone}`;
        events.emit({ level: 'warn', kind: 'reservation', subject: saga.id, message: `${saga.id}: ${message}` });
        throw new AppError('incomplete', message, { details: [...saga.errors] });
      }
      if (stopper.wish === 'keep') saga.errors.add('cancelled: nothing more was rented');
      const answer = resultOf(saga.id, saga.requested, [...saga.errors]);
      step('before-answer');
      const lost = ledger.rentals.of(saga.id).some((rental) => rental.state === 'unknown' && rental.wanted);
      ledger.transaction(() => {
        ledger.reservations.update(saga.id, { state: lost ? 'renting' : 'settled', errors: answer.errors });
        if (saga.idempotencyKey !== null) {
          // Nothing was spent: the same key may try again.
          if (answer.reserved.length === 0 && !lost) ledger.idempotency.remove(saga.idempotencyKey);
          else if (!lost || answer.reserved.length > 0)
            ledger.idempotency.finish(saga.idempotencyKey, JSON.stringify(answer));
        }
      });
      step('answer');
      events.emit({
        level: answer.count === saga.requested ? 'ok' : answer.count > 0 ? 'warn' : 'error',
        kind: 'reservation',
        subject: saga.id,
        message: `${saga.id}: ${answer.count} of ${counted(saga.requested, 'GPU')} reserved${answer.errors.length > 0 ? ` (${answer.errors[0]})` : ''}`,
      });
      changed();
      if (answer.reserved.length === 0) throw noneRented(saga);
      return answer;
    } finally {
      active.delete(saga.id);
      ended.resolve();
      // However it ended: whatever is still open in the ledger is looked after from here on.
      unsettled.add(saga.id);
      for (const slot of saga.slots) if (slot.record.rental !== null) underWay.delete(slot.record.rental.label);
      changed();
    }
  };

  // --- idempotency ---

  const once = async <T extends object>(
    key: string | undefined,
    body: unknown,
    work: (idempotency: { key: string; bodyHash: string } | null, stopper: Stopper) => Promise<T>,
    stored: (json: string) => T,
  ): Promise<T> => {
    if (stopping) throw new AppError('conflict', 'the server is shutting down');
    const stopper: Stopper = { wish: null, reservation: null };
    if (key === undefined) return track(work(null, stopper));
    const bodyHash = createHash('sha256').update(canonical(body)).digest('hex');
    const mismatch = () =>
      new AppError('idempotency_mismatch', 'this Idempotency-Key was used with another request; take a new key');
    const running = pending.get(key);
    if (running !== undefined) {
      if (running.bodyHash !== bodyHash) throw mismatch();
      return { ...((await running.answer) as T), replayed: true };
    }
    // What a crash interrupted may have been repaired since the last look.
    self.tidy();
    const entry = ledger.idempotency.get(key);
    if (entry !== undefined && clock.now() - entry.createdAt < timing.idempotencyMs) {
      if (entry.bodyHash !== bodyHash) throw mismatch();
      if (entry.result === null) {
        throw new AppError(
          'conflict',
          `the first request with this Idempotency-Key (${entry.reservation}) was interrupted and is being repaired; ask again in a moment`,
        );
      }
      return { ...stored(entry.result), replayed: true };
    }
    if (entry !== undefined) ledger.idempotency.remove(key);
    const answer = work({ key, bodyHash }, stopper);
    pending.set(key, { bodyHash, answer, stopper });
    // Whoever asked gets the rejection; a promise that is only followed here must not be an unhandled one.
    answer.catch(() => undefined).finally(() => pending.delete(key));
    return track(answer);
  };
  const track = <T>(work: Promise<T>): Promise<T> => {
    sagas.add(work);
    work.catch(() => undefined).finally(() => sagas.delete(work));
    return work;
  };

  const rentedOf = (result: ReserveResult): RentedOffer => {
    const [item] = result.reserved;
    if (item === undefined) throw new Error(`${result.reservation} has no instance`);
    return item;
  };
  const batchOf = (result: ReserveResult): BatchResult => ({
    reservation: result.reservation,
    vast: result.reserved.filter((item) => item.provider === 'vast.ai').map((item) => item.contractId),
    ionet: result.reserved.filter((item) => item.provider === 'io.net').map((item) => item.contractId),
    errors: result.errors,
  });

  const planOf = (groups: readonly Group[], requested: number): ReservePlan => {
    const chosen = groups.flatMap((group) =>
      choose(group, group.instances, new Set()).map((offer) => ({ offer, config: group.config })),
    );
    const instances = groups.reduce((sum, group) => sum + group.instances, 0);
    const usdPerHour = chosen.reduce((sum, { offer, config }) => sum + usdPerHourOf(offer, config), 0);
    const over = overBudget(usdPerHour);
    return {
      offers: chosen.map(({ offer }) => offer),
      count: chosen.reduce((sum, { offer }) => sum + offer.gpuCount, 0),
      requested,
      usdPerHour,
      prepaidUsd: chosen.reduce((sum, { offer, config }) => sum + prepaidUsdOf(offer, config), 0),
      errors: [
        ...(chosen.length < instances ? [short(instances, chosen.length)] : []),
        ...marketErrors(groups),
        ...(over === null ? [] : [over]),
      ],
    };
  };

  /** The instances of a batch: so many of each provider, each with this many GPUs. */
  const batchGroups = (request: BatchRequest) => {
    for (const [field, value] of [
      ['vastai_count', request.vast],
      ['ionet_count', request.ionet],
    ] as const) {
      if (!Number.isInteger(value) || value < 0 || value > maxBatch) {
        throw invalidField(field, `got ${value}, accepts a whole number from 0 to ${maxBatch}`);
      }
    }
    const instances = request.vast + request.ionet;
    if (instances === 0) throw new AppError('invalid', 'vastai_count and ionet_count are both 0: nothing to rent');
    const gpus = request.filter.gpuCount ?? 1;
    return {
      requested: instances * gpus,
      ask: (signal: AbortSignal | undefined) =>
        Promise.all(
          (
            [
              ['vast.ai', request.vast],
              ['io.net', request.ionet],
            ] as const
          ).flatMap(([provider, n]) =>
            n === 0 ? [] : [ask({ ...request.filter, provider, gpuCount: gpus }, n, request.config, signal)],
          ),
        ),
    };
  };

  const self: Reserver = {
    async plan(request, signal) {
      return planOf([await reserveGroup(request, signal)], request.count);
    },
    async planBatch(request, signal) {
      const { requested, ask: askBoth } = batchGroups(request);
      return planOf(await askBoth(signal), requested);
    },
    async reserve(request, options = {}) {
      gpusPerInstance(request);
      // What it may cost is not part of what is asked for: a repeat spends nothing.
      const { maxTotalUsdPerHour = null, ...asked } = request;
      return once(
        options.idempotencyKey,
        { reserve: asked },
        async (idempotency, stopper) =>
          execute({
            groups: [await reserveGroup(request, undefined)],
            requested: request.count,
            allOrNothing: request.allOrNothing ?? false,
            maxTotalUsdPerHour,
            by: options.by ?? 'local',
            stopper,
            idempotency,
          }),
        (json) => JSON.parse(json) as ReserveResult,
      );
    },
    async batch(request, options = {}) {
      const { requested, ask: askBoth } = batchGroups(request);
      const { maxTotalUsdPerHour = null, ...asked } = request;
      return once(
        options.idempotencyKey,
        { batch: asked },
        async (idempotency, stopper) => {
          const result = await execute({
            groups: await askBoth(undefined),
            requested,
            allOrNothing: false,
            maxTotalUsdPerHour,
            by: options.by ?? 'local',
            stopper,
            idempotency,
          });
          return batchOf(result);
        },
        (json) => batchOf(JSON.parse(json) as ReserveResult),
      );
    },
    async rentOffer(provider, offerId, config, options = {}) {
      return once(
        options.idempotencyKey,
        { rent: { provider, offerId, config } },
        async (idempotency, stopper) => {
          const group = await ask({ provider }, 1, config, undefined, offerId);
          const offer = group.market.offers.find((candidate) => candidate.id === offerId);
          if (offer === undefined) {
            const error = group.market.errors[0];
            if (error !== undefined) throw new AppError('provider_failed', `${provider}: ${error.message}`);
            throw new AppError('not_found', `${provider} has no offer ${offerId} (any more)`);
          }
          const result = await execute({
            groups: [group],
            requested: offer.gpuCount,
            allOrNothing: false,
            maxTotalUsdPerHour: options.maxUsdPerHour ?? null,
            by: options.by ?? 'local',
            stopper,
            idempotency,
          });
          return rentedOf(result);
        },
        (json) => rentedOf(JSON.parse(json) as ReserveResult),
      );
    },
    byKey(key) {
      const reservation = pending.get(key)?.stopper.reservation ?? ledger.idempotency.get(key)?.reservation;
      return reservation == null ? undefined : ledger.reservations.get(reservation);
    },
    async cancel(key, keep) {
      const running = pending.get(key);
      if (running !== undefined) {
        if (running.stopper.wish !== 'give back') running.stopper.wish = keep ? 'keep' : 'give back';
        // Whoever made the request is told how it failed; what became of it is read from the ledger.
        await running.answer.catch(() => undefined);
      }
      const id = running === undefined ? ledger.idempotency.get(key)?.reservation : running.stopper.reservation;
      if (id === undefined) throw new AppError('not_found', 'no request with this Idempotency-Key has rented anything');
      if (id === null) return { reservation: null, kept: [], released: [], pending: [] };
      const owned = () => ledger.rentals.of(id);
      if (
        !keep &&
        owned().some((rental) => rental.wanted && ['rented', 'unknown', 'intended'].includes(rental.state))
      ) {
        await self.release(id, 0);
      }
      const named = (rentals: readonly Rental[]) => rentals.map((rental) => rental.instanceId);
      return {
        reservation: id,
        kept: named(owned().filter((rental) => rental.state === 'rented')),
        released: named(owned().filter((rental) => rental.state === 'ended')),
        pending: named(owned().filter((rental) => ['destroying', 'unknown', 'intended'].includes(rental.state))),
      };
    },
    tooDear(record, instance) {
      const { rental } = record;
      const { usdPerHour } = instance;
      // Zero is how a provider says "I do not know yet".
      if (rental === null || rental.priceSeen || usdPerHour <= 0) return null;
      const limit = rental.limitUsdPerHour;
      const why =
        limit !== null && usdPerHour > limit + priceSlackUsd
          ? `costs $${usdPerHour.toFixed(3)}/h, the limit is $${limit.toFixed(3)}/h`
          : overBudget(usdPerHour - rental.usdPerHour);
      const rest = ledger.transaction(() => {
        records.patch(record, { priceSeen: true });
        // What it costs until it is gone, or has cost at once, is booked as it is.
        records.observed(record, instance);
        if (why === null) return [];
        records.destroying(record, `its price had risen: ${why}`);
        return restOf(rental, why);
      });
      if (why === null) return null;
      const words = `it ${why.startsWith('costs') ? '' : 'is over the budget: '}${why}`;
      events.emit({
        level: 'warn',
        kind: 'rental',
        subject: record.id,
        message: `${record.id} is given back${rest.length === 0 ? '' : `, and all of ${rental.reservation} with it`}: ${words}`,
      });
      for (const given of [record, ...rest]) destroyer.resume(given);
      return why;
    },
    async release(id, drainMs) {
      if (ledger.reservations.get(id) === undefined) {
        throw new AppError('not_found', `no reservation is called ${id}`);
      }
      const running = active.get(id);
      if (running !== undefined) {
        running.stopper.wish = 'give back';
        await running.ended;
      }
      const { toDestroy, unclear } = ledger.transaction(() => disown(id, `${id} was released`));
      unsettled.add(id);
      for (const record of toDestroy) destroyer.request(record, `${id} was released`, drainMs);
      const done = await Promise.all(
        toDestroy.map(async (record) => ({ id: record.id, ok: await destroyer.settled(record, timing.destroyWaitMs) })),
      );
      events.emit({
        level: 'info',
        kind: 'reservation',
        subject: id,
        message: `${id} released (${counted(done.length, 'instance')})`,
      });
      self.tidy();
      const given = ledger.rentals.of(id).filter((rental) => running !== undefined && rental.state === 'ended');
      const released = new Set([
        ...done.filter((item) => item.ok).map((item) => item.id),
        ...given.map((rental) => rental.instanceId),
      ]);
      return {
        released: [...released],
        failed: [...done.filter((item) => !item.ok), ...unclear].map((item) => item.id),
      };
    },
    underWay: (label) => underWay.has(label),
    recover() {
      for (const rental of ledger.rentals.open()) {
        lastRentedAt.set(rental.provider, Math.max(lastRentedAt.get(rental.provider) ?? 0, rental.createdAt));
        const record = records.byLabel(rental.label);
        if (rental.state === 'intended' && record !== undefined) {
          // Its call may have been on the wire until the last process died, which was at the latest just now.
          records.patch(record, { state: 'unknown', settledAt: clock.now(), reason: interrupted });
        }
      }
      for (const reservation of ledger.reservations.unsettled()) {
        unsettled.add(reservation.id);
        // All or nothing, cut off half way: the answer was never given, so all of it goes back.
        if (reservation.state === 'releasing' || reservation.allOrNothing) {
          undo(reservation.id, reservation.idempotencyKey, 'all or nothing: interrupted by a restart');
        }
      }
      for (const record of records.all()) if (record.rental?.state === 'destroying') destroyer.resume(record);
    },
    tidy() {
      if (unsettled.size === 0) return;
      const left = new Set<string>();
      for (const id of unsettled) {
        const reservation = ledger.reservations.get(id);
        if (reservation === undefined || reservation.state === 'settled') continue;
        if (active.has(id)) {
          left.add(id);
          continue;
        }
        if (reservation.state === 'renting' && reservation.allOrNothing) {
          // Its work ended without an outcome, as when the disk was full.
          const { toDestroy } = undo(id, reservation.idempotencyKey, 'all or nothing: interrupted');
          for (const record of toDestroy) destroyer.resume(record);
          left.add(id);
          continue;
        }
        const rentals = ledger.rentals.of(id);
        const open = rentals.some((rental) =>
          reservation.state === 'releasing'
            ? !['ended', 'refused'].includes(rental.state)
            : rental.state === 'intended' || (rental.state === 'unknown' && rental.wanted),
        );
        if (open) {
          left.add(id);
          continue;
        }
        ledger.transaction(() => {
          ledger.reservations.update(id, { state: 'settled' });
          const key = reservation.idempotencyKey;
          if (key === null || ledger.idempotency.get(key)?.result !== null) return;
          const answer = resultOf(id, reservation.requested, [...reservation.errors, 'interrupted by a restart']);
          if (answer.reserved.length === 0) ledger.idempotency.remove(key);
          else ledger.idempotency.finish(key, JSON.stringify(answer));
        });
        changed();
      }
      unsettled = left;
    },
    view(reservation) {
      const rentals = ledger.rentals.of(reservation.id).filter((rental) => rental.state !== 'refused');
      const live = rentals.filter((rental) => rental.state === 'rented');
      const gpus = live.reduce((sum, rental) => sum + rental.gpuCount, 0);
      const state = active.has(reservation.id)
        ? 'renting'
        : rentals.some((rental) => rental.state === 'intended' || (rental.state === 'unknown' && rental.wanted))
          ? 'renting'
          : reservation.state === 'releasing' && rentals.some((rental) => rental.state !== 'ended')
            ? 'releasing'
            : rentals.length === 0
              ? 'failed'
              : live.length === 0
                ? rentals.some((rental) => rental.state === 'destroying')
                  ? 'releasing'
                  : 'ended'
                : gpus < reservation.requested
                  ? 'partial'
                  : 'active';
      return {
        id: reservation.id,
        createdAt: reservation.createdAt,
        by: reservation.by,
        requested: reservation.requested,
        state,
        instances: rentals.filter((rental) => rental.state !== 'ended').map((rental) => rental.instanceId),
        ended: rentals.filter((rental) => rental.state === 'ended').map((rental) => rental.instanceId),
        usdPerHour: rentals
          .filter((rental) => rental.state !== 'ended' && rental.contract !== null)
          .reduce((sum, rental) => {
            const phase = records.byLabel(rental.label)?.lifecycle.phase ?? 'booting';
            return sum + usdPerHourNow(rental, phase);
          }, 0),
        errors: [
          ...reservation.errors,
          ...rentals
            .filter((rental) => rental.state === 'unknown')
            // A reservation that ended without its answer has said so itself.
            .filter(({ instanceId }) => !reservation.errors.some((line) => line.startsWith(`${instanceId}: `)))
            .map((rental) => `${rental.instanceId}: ${searchText(rental, searchLeftMs(rental, clock.now(), timing))}`),
        ],
      };
    },
    async stop(graceMs) {
      stopping = true;
      if (sagas.size === 0) return shutdown.abort();
      const done = Promise.allSettled([...sagas]);
      const timer = setTimeout(() => shutdown.abort(), graceMs);
      await done;
      clearTimeout(timer);
      shutdown.abort();
    },
  };
  return self;
}

/** JSON with sorted keys and without absent fields: the same request gives the same text. */
function canonical(value: unknown): string {
  return JSON.stringify(value, (_, item: unknown) =>
    item !== null && typeof item === 'object' && !Array.isArray(item)
      ? Object.fromEntries(Object.entries(item).sort(([a], [b]) => (a < b ? -1 : 1)))
      : item,
  );
}
