import type { Offer, OfferFilter, ProviderName, StrategyName } from './domain.ts';
import { weightOf } from './weight.ts';

/** What a provider's instances carry, as the strategies see it when offers are chosen. */
export type ProviderLoad = Readonly<{
  /** Rented instances. */
  active: number;
  /** Rentals ever. */
  total: number;
  /** Mean response time over its instances; null when none has one. */
  avgMs: number | null;
  /** Any growing measure of when it was last rented from; null: never. */
  lastUsed: number | null;
}>;

export type OfferChoice = Readonly<{
  offers: readonly Offer[];
  strategy: StrategyName;
  /** Providers without an entry count as idle and unused. */
  loads: Partial<Record<ProviderName, ProviderLoad>>;
  /** False: cheapest first. */
  balancing: boolean;
}>;

type State = { active: number; total: number; avgMs: number | null; turn: number };

/** USD per hour that an instance of the offer costs with this disk, on demand or at this bid: a bid is for the GPUs alone. */
export function usdPerHourWith(offer: Offer, diskGb: number | null, bidUsdPerHour: number | null): number {
  const { storage } = offer;
  if (bidUsdPerHour !== null) {
    return bidUsdPerHour + (storage === null ? 0 : storage.usdPerGbHour * (diskGb ?? storage.pricedGb));
  }
  if (storage === null || diskGb === null) return offer.usdPerHour;
  return offer.usdPerHour + storage.usdPerGbHour * (diskGb - storage.pricedGb);
}

/** USD per hour and GPU: what offers of different sizes are compared by. */
export function usdPerGpuHour(offer: Offer): number {
  return offer.usdPerHour / Math.max(1, offer.gpuCount);
}

/**
 * Offers in the order in which to rent them, one element an instance, an offer at most `available` times. Lazy: one that
 * turns out to be gone is simply followed by the next. Each taken raises its provider's load by one instance; call
 * `next('gone')` after a candidate that could not be rented, and it is taken back (and the offer not offered again).
 */
export function* chooseOffers(choice: OfferChoice): Generator<Offer, void, 'gone' | undefined> {
  const left = new Map<Offer, number>();
  for (const offer of choice.offers) if (offer.available > 0) left.set(offer, Math.floor(offer.available));
  const states = new Map<ProviderName, State>();
  const stateOf = (provider: ProviderName): State => {
    let state = states.get(provider);
    if (state === undefined) {
      const load = choice.loads[provider];
      state = {
        active: load?.active ?? 0,
        total: load?.total ?? 0,
        avgMs: load?.avgMs ?? null,
        turn: load?.lastUsed ?? Number.NEGATIVE_INFINITY,
      };
      states.set(provider, state);
    }
    return state;
  };
  let turn = Math.max(0, ...Object.values(choice.loads).map((load) => load?.lastUsed ?? 0));
  const key = choice.balancing ? keyOf(choice.strategy, choice.loads) : () => 0;

  while (left.size > 0) {
    let best: Offer | undefined;
    let bestKey = 0;
    for (const offer of left.keys()) {
      const k = key(offer, stateOf(offer.provider));
      if (best === undefined || k < bestKey || (k === bestKey && isCheaper(offer, best))) {
        best = offer;
        bestKey = k;
      }
    }
    if (best === undefined) return;
    const state = stateOf(best.provider);
    const { turn: turnBefore } = state;
    state.active += 1;
    state.total += 1;
    state.turn = ++turn;
    const remaining = (left.get(best) ?? 1) - 1;
    if (remaining > 0) left.set(best, remaining);
    else left.delete(best);
    if ((yield best) === 'gone') {
      state.active -= 1;
      state.total -= 1;
      state.turn = turnBefore;
      left.delete(best);
    }
  }
}

function isCheaper(a: Offer, b: Offer): boolean {
  const difference = usdPerGpuHour(a) - usdPerGpuHour(b);
  return difference < 0 || (difference === 0 && (a.id < b.id || (a.id === b.id && a.provider < b.provider)));
}

/** What a strategy compares of an offer, lower first. */
function keyOf(strategy: StrategyName, loads: OfferChoice['loads']): (offer: Offer, state: State) => number {
  switch (strategy) {
    case 'round_robin':
      return (_, state) => state.turn;
    case 'equal_weighted':
      return (_, state) => state.total;
    case 'weighted_round_robin':
      // The most powerful first, and by weight between providers: instances per unit of weight.
      return (offer, state) => (state.active + 1) / Math.max(0.1, weightOf(offer));
    case 'least_connections':
      return (_, state) => state.active;
    case 'least_response_time': {
      const known = Object.values(loads).flatMap((load) => (load?.avgMs == null ? [] : [load.avgMs]));
      if (known.length === 0) return (_, state) => state.active;
      // A provider without a sample stands where the middle of the others stands.
      const middle = known.sort((a, b) => a - b)[(known.length - 1) >> 1] as number;
      return (_, state) => (state.avgMs ?? middle) * (state.active + 1);
    }
  }
}

const words = (text: string) => text.toLowerCase().replaceAll('_', ' ').trim();

/** True when the offer is what the filter asks for. Price is per hour and instance, VRAM per GPU. */
export function matchesFilter(offer: Offer, filter: OfferFilter): boolean {
  if (filter.provider !== undefined && offer.provider !== filter.provider) return false;
  if (filter.minVramGb !== undefined && offer.vramGb < filter.minVramGb) return false;
  if (filter.maxUsdPerHour !== undefined && offer.usdPerHour > filter.maxUsdPerHour) return false;
  if (filter.gpuCount !== undefined && offer.gpuCount !== filter.gpuCount) return false;
  if (filter.verified !== undefined && offer.verified !== filter.verified) return false;
  if (filter.gpuModel !== undefined && !words(offer.gpuModel).includes(words(filter.gpuModel))) return false;
  return filter.location === undefined || isIn(offer, words(filter.location));
}

/** By country code or part of the text. Two letters are a code: "de" is not in "Sweden". */
function isIn(offer: Offer, wanted: string): boolean {
  const text = offer.location === null ? '' : words(offer.location);
  if (wanted.length > 2) return text.includes(wanted);
  return offer.countryCode?.toLowerCase() === wanted || text.split(/[^a-z]+/).includes(wanted);
}
