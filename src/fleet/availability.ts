import { setTimeout as sleep } from 'node:timers/promises';
import type { Offer, OfferFilter, ProviderName } from '../core/domain.ts';
import { matchesFilter } from '../core/offers.ts';
import { unlessAborted } from '../core/unless-aborted.ts';
import { type OfferList, type Provider, ProviderError } from '../providers/provider.ts';
import type { OffersAnswer } from './app.ts';
import type { EventLog } from './events.ts';
import { type Failure, failureOf } from './failure.ts';
import type { Clock, Timing } from './timing.ts';

/** What is known of one provider's market. Replaced, never changed. */
export type Market = Readonly<{
  offers: readonly Offer[];
  /** True when there are, or may be, more of them than were read. */
  more: boolean;
  /** Wall time of the last good answer; null before the first. */
  refreshedAt: number | null;
  /** Of the provider's last answer: what our own spacing of requests costs is not its doing. */
  latencyMs: number | null;
  lastError: Readonly<{ at: number; code: string; message: string }> | null;
  /** True while the last refresh failed. */
  failing: boolean;
  nextRefreshAt: number | null;
  creditUsd: number | null;
}>;

export type Claim = Readonly<{
  /** `rented`: it stays taken until a listing that was asked for later; `gone`: nothing of it is left; `free`: untouched. */
  settle(outcome: 'rented' | 'gone' | 'free'): void;
}>;

/**
 * The markets, asked in the background, each provider on its own: one that fails never hides or delays another. Last
 * good data stay, with their age.
 */
export interface Availability {
  market(provider: ProviderName): Market;
  offers(filter: OfferFilter, signal?: AbortSignal): Promise<OffersAnswer>;
  /** Offers to rent from. `open` says what is left of them now: instances that other reservations took are taken off. */
  candidates(
    filter: OfferFilter,
    signal?: AbortSignal,
    options?: { askAnyway?: boolean },
  ): Promise<OffersAnswer & { open(): readonly Offer[] }>;
  /** Takes one instance out of an offer, in the same synchronous step in which it was chosen. */
  claim(offer: Offer): Claim;
  /** Asks every provider now; failures are kept, not thrown. */
  refresh(): Promise<void>;
  start(): void;
  stop(): void;
}

type State = {
  readonly provider: Provider;
  market: Market;
  /** Monotonic time at which the present offers were asked for. */
  askedAt: number;
  failures: number;
  timer: NodeJS.Timeout | null;
  pending: Promise<void> | null;
  /** Good answers to questions with a filter, by the filter, with the wall time at which they came. */
  readonly answered: Map<string, Readonly<{ part: Part; at: number }>>;
};

/** One provider's part of an answer. */
type Part = {
  readonly offers: readonly Offer[];
  readonly more: boolean;
  readonly askedAt: number;
  readonly error?: OffersAnswer['errors'][number];
};

type ClaimState = { settledAt: number | null; gone: boolean };

/** How much longer the others may take once one provider has answered; a quarter of it for one that failed last time. */
const stragglerMs = 4000;
/** Filters whose last answer is kept. */
const keptAnswers = 32;

export function createAvailability(parts: {
  providers: readonly Provider[];
  clock: Clock;
  timing: Timing;
  events: EventLog;
  random: () => number;
  changed: () => void;
}): Availability {
  const { clock, timing, events, random, changed } = parts;
  const abort = new AbortController();
  let running = false;
  const states = new Map<ProviderName, State>(
    parts.providers.map((provider) => [
      provider.name,
      {
        provider,
        market: {
          offers: [],
          more: false,
          refreshedAt: null,
          latencyMs: null,
          lastError: null,
          failing: false,
          nextRefreshAt: null,
          creditUsd: null,
        },
        askedAt: Number.NEGATIVE_INFINITY,
        failures: 0,
        timer: null,
        pending: null,
        answered: new Map(),
      },
    ]),
  );

  const claims = new Map<string, ClaimState[]>();
  const claimKey = (offer: Offer) => `${offer.provider} ${offer.id}`;
  const remaining = (offer: Offer, askedAt: number): number => {
    let left = offer.available;
    for (const claim of claims.get(claimKey(offer)) ?? []) {
      if (claim.settledAt !== null && claim.settledAt <= askedAt) continue;
      if (claim.gone) return 0;
      left -= 1;
    }
    return left;
  };
  /** What is left of offers that were asked for at `askedAt`; the same list when nothing of it was taken. */
  const left = (offers: readonly Offer[], askedAt: number): readonly Offer[] => {
    let same = true;
    const kept = offers.flatMap((offer) => {
      const available = remaining(offer, askedAt);
      if (available === offer.available) return [offer];
      same = false;
      return available <= 0 ? [] : [{ ...offer, available }];
    });
    return same ? offers : kept;
  };
  /** Grows when something is taken or given back. */
  let taken = 0;
  const shown = new Map<State, { of: Market; taken: number; market: Market }>();
  const pruneClaims = () => {
    const oldest = Math.min(
      ...[...states.values()].flatMap((state) => [
        state.askedAt,
        ...[...state.answered.values()].flatMap(({ part, at }) =>
          clock.now() - at <= timing.offersFreshMs ? [part.askedAt] : [],
        ),
      ]),
    );
    for (const [key, list] of claims) {
      const kept = list.filter((claim) => claim.settledAt === null || claim.settledAt > oldest);
      if (kept.length === 0) claims.delete(key);
      else claims.set(key, kept);
    }
  };

  const bounded = (signal?: AbortSignal) =>
    AbortSignal.any([AbortSignal.timeout(timing.callTimeoutMs), abort.signal, ...(signal ? [signal] : [])]);

  const succeeded = (state: State, list: OfferList | null) => {
    if (state.market.failing) {
      events.emit({
        level: 'ok',
        kind: 'provider',
        subject: state.provider.name,
        message: `${state.provider.name} answers again`,
      });
    }
    state.failures = 0;
    const answeredMs = state.provider.stats?.().answeredMs ?? null;
    state.market = {
      ...state.market,
      ...(list === null ? {} : { ...list, refreshedAt: clock.now() }),
      latencyMs: answeredMs === null ? null : Math.round(answeredMs),
      failing: false,
    };
  };
  const failed = (state: State, failure: Failure) => {
    if (!state.market.failing) {
      events.emit({
        level: 'error',
        kind: 'provider',
        subject: state.provider.name,
        message: `${state.provider.name}: ${failure.message}`,
      });
    }
    state.market = {
      ...state.market,
      failing: true,
      lastError: { at: clock.now(), code: failure.code, message: failure.message },
    };
  };

  const refreshOne = (state: State): Promise<void> => {
    state.pending ??= (async () => {
      const askedAt = clock.monotonic();
      try {
        const list = await state.provider.offers({}, bounded());
        succeeded(state, list);
        state.askedAt = askedAt;
        pruneClaims();
      } catch (error) {
        if (abort.signal.aborted) return;
        failed(state, failureOf(error));
        // Those who ask in between do not make the background wait longer.
        state.failures += 1;
      }
      changed();
      // The credit is beside the point of a refresh: without it the offers are as good.
      if (state.provider.balance && !state.market.failing) {
        try {
          const creditUsd = await state.provider.balance(bounded());
          state.market = { ...state.market, creditUsd };
          changed();
        } catch (error) {
          failureOf(error);
        }
      }
    })().finally(() => {
      state.pending = null;
    });
    return state.pending;
  };

  const schedule = (state: State) => {
    if (!running) return;
    const backedOff = Math.min(timing.refreshMaxMs, timing.refreshMs * 2 ** Math.min(10, state.failures));
    // Jitter keeps providers, and several gpuproxies on one account, out of step.
    const pause = backedOff * (0.85 + 0.3 * random());
    state.market = { ...state.market, nextRefreshAt: clock.now() + Math.round(pause) };
    state.timer = setTimeout(() => {
      void refreshOne(state).finally(() => schedule(state));
    }, pause);
    state.timer.unref();
  };

  /** What the last good listing says, without asking. */
  const lastGood = (state: State, filter: OfferFilter, code: string, message: string): Part => {
    const { refreshedAt, offers, more } = state.market;
    return {
      offers: refreshedAt === null ? [] : offers.filter((offer) => matchesFilter(offer, filter)),
      more: refreshedAt === null || more,
      askedAt: state.askedAt,
      error: {
        provider: state.provider.name,
        code,
        message,
        staleMs: refreshedAt === null ? null : clock.now() - refreshedAt,
      },
    };
  };

  const fresh = ({ market }: State): boolean =>
    !market.failing && market.refreshedAt !== null && clock.now() - market.refreshedAt <= timing.offersFreshMs;
  const fromMarket = ({ market, askedAt }: State, filter: OfferFilter): Part => ({
    offers: market.offers.filter((offer) => matchesFilter(offer, filter)),
    more: market.more,
    askedAt,
  });
  /** Offers of several GPUs may exist only when asked for: a pooled offer is listed as one GPU. */
  const ofOneGpu = (filter: OfferFilter): boolean => filter.gpuCount === undefined || filter.gpuCount === 1;

  /** One provider's part of an answer: from what was read lately when that is enough, else asked with the filter. */
  const ask = async (state: State, filter: OfferFilter, signal?: AbortSignal, askAnyway = false): Promise<Part> => {
    // Of a market that could not be read whole, what matches may be in the part that is not known.
    const enough = () => ofOneGpu(filter) && (!state.market.more || isUnfiltered(filter));
    const key = JSON.stringify(filter, Object.keys(filter).sort());
    if (!askAnyway) {
      // A refresh that is under way brings the same answer sooner than a question of our own.
      if (enough() && !fresh(state) && state.pending !== null) await unlessAborted(state.pending, signal);
      if (enough() && fresh(state)) return fromMarket(state, filter);
      const answered = state.answered.get(key);
      if (answered !== undefined && clock.now() - answered.at <= timing.offersFreshMs) return answered.part;
    }
    const askedAt = clock.monotonic();
    try {
      const list = await state.provider.offers(filter, bounded(signal));
      succeeded(state, null);
      const part: Part = { ...list, askedAt };
      state.answered.delete(key);
      state.answered.set(key, { part, at: clock.now() });
      if (state.answered.size > keptAnswers) state.answered.delete(state.answered.keys().next().value ?? '');
      return part;
    } catch (error) {
      if (signal?.aborted) throw signal.reason;
      const failure = failureOf(error);
      // Nothing was asked, because others had the turns: that is no trouble of the provider.
      const noTurn = error instanceof ProviderError && error.code === 'rate_limited' && !error.sent;
      if (noTurn && fresh(state)) return fromMarket(state, filter);
      failed(state, failure);
      changed();
      return lastGood(state, filter, failure.code, failure.message);
    }
  };

  const askAll = async (filter: OfferFilter, signal?: AbortSignal, askAnyway = false) => {
    const asked = [...states.values()].filter((state) => !filter.provider || state.provider.name === filter.provider);
    const parts = asked.map((state) => ask(state, filter, signal, askAnyway));
    // Whoever hangs does not delay the others: its call goes on, and what was known before takes its place.
    const first = Promise.withResolvers<void>();
    const done = new AbortController();
    for (const part of parts) {
      part.then(
        ({ error }) => {
          if (error === undefined) first.resolve();
        },
        () => {},
      );
    }
    const straggler = async (state: State): Promise<Part> => {
      await first.promise;
      await sleep(state.market.failing ? stragglerMs / 4 : stragglerMs, undefined, { signal: done.signal });
      // It is well and only slow, as when others have its turns: what is known of it will do.
      if (state.market.more && fresh(state) && ofOneGpu(filter)) return fromMarket(state, filter);
      const { failing, lastError } = state.market;
      const before = failing && lastError !== null ? `; last time: ${lastError.message}` : '';
      return lastGood(state, filter, 'timeout', `no answer yet${before}`);
    };
    try {
      const answers = await Promise.all(
        asked.map((state, index) => Promise.race([parts[index] as Promise<Part>, straggler(state)])),
      );
      return {
        answers,
        offers: answers.flatMap((answer) => answer.offers).sort((a, b) => a.usdPerHour - b.usdPerHour),
        errors: answers.flatMap((answer) => (answer.error === undefined ? [] : [answer.error])),
        more: asked.flatMap((state, index) => (answers[index]?.more ? [state.provider.name] : [])),
      };
    } finally {
      done.abort();
    }
  };

  return {
    market(provider) {
      const state = states.get(provider);
      if (state === undefined) throw new Error(`${provider} is not configured`);
      const before = shown.get(state);
      if (before?.of === state.market && before.taken === taken) return before.market;
      const offers = left(state.market.offers, state.askedAt);
      const market = offers === state.market.offers ? state.market : { ...state.market, offers };
      shown.set(state, { of: state.market, taken, market });
      return market;
    },
    async offers(filter, signal) {
      const { answers, errors, more } = await askAll(filter, signal);
      const offers = answers.flatMap((answer) => left(answer.offers, answer.askedAt));
      return { offers: offers.sort((a, b) => a.usdPerHour - b.usdPerHour), errors, more };
    },
    async candidates(filter, signal, options = {}) {
      const { answers, offers, errors, more } = await askAll(filter, signal, options.askAnyway);
      return {
        offers,
        errors,
        more,
        open: () => answers.flatMap((answer) => left(answer.offers, answer.askedAt)),
      };
    },
    claim(offer) {
      const claim: ClaimState = { settledAt: null, gone: false };
      const key = claimKey(offer);
      claims.set(key, [...(claims.get(key) ?? []), claim]);
      taken += 1;
      return {
        settle(outcome) {
          taken += 1;
          if (outcome === 'free') {
            claims.set(
              key,
              (claims.get(key) ?? []).filter((other) => other !== claim),
            );
            return;
          }
          claim.settledAt = clock.monotonic();
          claim.gone = outcome === 'gone';
        },
      };
    },
    async refresh() {
      await Promise.all([...states.values()].map(refreshOne));
    },
    start() {
      running = true;
      for (const state of states.values()) void refreshOne(state).finally(() => schedule(state));
    },
    stop() {
      running = false;
      abort.abort();
      for (const state of states.values()) if (state.timer !== null) clearTimeout(state.timer);
    },
  };
}

/** True for "what is there at all?". */
function isUnfiltered(filter: OfferFilter): boolean {
  return Object.entries(filter).every(([name, value]) => name === 'provider' || value === undefined);
}
