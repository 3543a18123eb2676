import fc from 'fast-check';
import { afterAll, beforeAll, expect, it } from 'vitest';
import type { Offer, RentResult } from '../../src/core/domain.ts';
import { createIonet } from '../../src/providers/ionet.ts';
import { type Provider, ProviderError } from '../../src/providers/provider.ts';
import { createVast } from '../../src/providers/vast.ts';
import { type FaultInput, type Simulator, startSimulator } from '../../src/sim/simulator.ts';

/** With bounds 100 times shorter than in use. */
const patience = 0.01;
/** What each call may take in use, in seconds, all waits, attempts and pages together. */
const boundS = {
  vast: { rent: 150, bid: 150, offers: 45, list: 60, destroy: 75, balance: 30, logs: 30, extend: 0 },
  // A price is asked for before the paid call.
  ionet: { rent: 150, bid: 0, offers: 45, list: 60, destroy: 60, balance: 0, logs: 30, extend: 60 },
} as const;
/** For what a call does besides waiting; what the machine takes away from this thread meanwhile comes on top. */
const slackMs = 400;

let sim: Simulator;
let providers: Record<'vast' | 'ionet', Provider>;
let offers: Record<'vast' | 'ionet', readonly Offer[]>;
const outcomes = new Map<string, number>();
const done = new Set<string>();
/** Milliseconds by which this thread was late, all together: its timers are late by as much. */
let lateMs = 0;
let meter: NodeJS.Timeout | undefined;
let labels = 0;

beforeAll(async () => {
  let last = performance.now();
  meter = setInterval(() => {
    const now = performance.now();
    lateMs += Math.max(0, now - last - 10);
    last = now;
  }, 10);
  const pool = { vast: 400, ionet: 400 };
  sim = await startSimulator({
    seed: 3,
    offers: pool,
    // Nothing boots in this time: it is about the calls, not about machines.
    bootMs: { min: 600_000, max: 600_000 },
    credit: { vast: 1e6, ionet: 1e6 },
  });
  const options = { instancePort: 8000, pace: 0, patience, maxOffers: 1000 };
  providers = {
    vast: createVast({ ...options, apiKey: sim.vastKey, baseUrl: sim.vastUrl }),
    ionet: createIonet({ ...options, apiKey: sim.ionetKey, baseUrl: sim.ionetUrl }),
  };
  const patient = {
    vast: createVast({ ...options, patience: 1, apiKey: sim.vastKey, baseUrl: sim.vastUrl }),
    ionet: createIonet({ ...options, patience: 1, apiKey: sim.ionetKey, baseUrl: sim.ionetUrl }),
  };
  offers = { vast: (await patient.vast.offers({})).offers, ionet: (await patient.ionet.offers({})).offers };
  await Promise.all([patient.vast.close?.(), patient.ionet.close?.()]);
});
afterAll(async () => {
  clearInterval(meter);
  await Promise.all(Object.values(providers).map((provider) => provider.close?.()));
  await sim.close();
});

const when = fc.constantFrom('before', 'after');
const often = {
  probability: fc.constantFrom(0.2, 0.6, 1),
  times: fc.option(fc.integer({ min: 1, max: 3 }), { nil: undefined }),
};
const route = fc.constantFrom(undefined, 'paid', 'list', 'search', 'destroy', 'read', 'write', 'logs', 'price');
const fault = fc.oneof(
  fc.record({ kind: fc.constant('latency'), ms: fc.integer({ min: 0, max: 150 }), route, ...often }),
  fc.record({ kind: fc.constant('rate_limit'), route, ...often }),
  fc.record({
    kind: fc.constant('error'),
    status: fc.constantFrom(400, 403, 404, 408, 500, 502, 503, 504),
    when,
    route,
    ...often,
  }),
  fc.record({ kind: fc.constant('reset'), when, route, ...often }),
  fc.record({ kind: fc.constant('hang'), when, route, ...often }),
  fc.record({
    kind: fc.constant('garbage'),
    how: fc.constantFrom('html', 'empty', 'truncate', 'wrong_shape'),
    when,
    route,
    ...often,
  }),
  fc.record({
    kind: fc.constant('lose_answer'),
    how: fc.constantFrom('reset', 'hang', 'error', 'truncate'),
    when,
    ...often,
  }),
  fc.record({ kind: fc.constant('stale_offers'), ...often }),
);
/** Some paid answers are always lost: that is where money goes. */
const schedule = fc
  .tuple(
    fc.record({
      kind: fc.constant('lose_answer'),
      how: fc.constantFrom('reset', 'hang', 'error', 'truncate'),
      when,
      probability: fc.constantFrom(0.3, 0.6),
    }),
    fc.array(fault, { maxLength: 3 }),
  )
  .map(([lost, others]) => [lost, ...others]);
const call = fc.record({
  on: fc.constantFrom('vast' as const, 'ionet' as const),
  what: fc.constantFrom('rent', 'rent', 'rent', 'bid', 'offers', 'list', 'destroy', 'balance', 'logs', 'extend'),
  /** Which offer or contract. */
  pick: fc.nat(10_000),
  abortAfterMs: fc.option(fc.integer({ min: 0, max: 200 }), { nil: undefined, freq: 3 }),
});

type Call = typeof call extends fc.Arbitrary<infer C> ? C : never;

/** The work's outcome, which must be there in time. */
async function bounded<T>(on: Call['on'], what: keyof (typeof boundS)['vast'], work: Promise<T>): Promise<T> {
  const began = performance.now();
  const lateBefore = lateMs;
  const allowed = () => boundS[on][what] * 1000 * patience + slackMs + (lateMs - lateBefore);
  let timer: NodeJS.Timeout | undefined;
  const hung = new Promise<never>((_, reject) => {
    timer = setInterval(() => {
      if (performance.now() - began > allowed() + 5000) reject(new Error(`${on} ${what} hangs`));
    }, 100);
  });
  const [outcome] = await Promise.allSettled([Promise.race([work, hung])]);
  clearInterval(timer);
  const took = performance.now() - began;
  // The meter has its turn before it is judged by.
  await new Promise((resolve) => setTimeout(resolve, 25));
  if (took > allowed()) throw new Error(`${on} ${what} took ${Math.round(took)} ms of ${Math.round(allowed())}`);
  done.add(`${on} ${what}`);
  if (outcome.status === 'rejected') throw outcome.reason;
  return outcome.value;
}

it('whatever the network does, a client throws only its own errors, hangs never and rents at most once', async () => {
  const run = async (schedule: readonly object[], calls: readonly Call[]) => {
    sim.faults.clear();
    for (const one of schedule) sim.faults.add(JSON.parse(JSON.stringify(one)) as FaultInput);
    const startedAt = Date.now();
    const rentals: { label: string; on: 'vast' | 'ionet'; result: RentResult | null }[] = [];
    await Promise.all(
      calls.map(async ({ on, what, pick, abortAfterMs }) => {
        const provider = providers[on];
        const signal = abortAfterMs === undefined ? undefined : AbortSignal.timeout(abortAfterMs);
        const contracts = sim.ledger().filter((entry) => entry.provider === on);
        const contract = contracts[pick % Math.max(1, contracts.length)]?.contract ?? '31000001';
        try {
          if (what === 'rent' || what === 'bid') {
            const offer = offers[on][pick % offers[on].length] as Offer;
            const rental = { label: `label-${++labels}`, on, result: null as RentResult | null };
            rentals.push(rental);
            rental.result = await bounded(
              on,
              what,
              provider.rent(
                offer,
                {
                  label: rental.label,
                  image: 'x:y',
                  diskGb: 10,
                  env: {},
                  onstart: null,
                  args: null,
                  ports: [8000],
                  maxBidUsdPerHour: what === 'bid' ? (pick % 2 === 0 ? 0.001 : 5) : null,
                  durationHours: 1,
                  maxUsdPerHour: 100,
                },
                signal,
              ),
            );
            const { result } = rental;
            const name = `${on} ${result.ok ? 'ok' : `${result.reason}${result.leaked ? ' leaked' : ''}`}`;
            outcomes.set(name, (outcomes.get(name) ?? 0) + 1);
          } else if (what === 'offers') await bounded(on, what, provider.offers({}, signal));
          else if (what === 'list') await bounded(on, what, provider.list(signal));
          else if (what === 'destroy') await bounded(on, what, provider.destroy(contract, signal));
          else if (what === 'balance')
            await bounded<unknown>(on, what, provider.balance?.(signal) ?? Promise.resolve());
          else if (what === 'logs')
            await bounded<unknown>(on, what, provider.logs?.(contract, { tail: 5 }, signal) ?? Promise.resolve());
          else await bounded(on, what, provider.extend?.(contract, 1, signal) ?? Promise.resolve());
        } catch (error) {
          const aborted = signal?.aborted === true && error === signal.reason;
          const own = error instanceof ProviderError && what !== 'rent' && what !== 'bid';
          if (!aborted && !own) throw error;
        }
      }),
    );
    // What was on its way when the client gave up may still arrive.
    await new Promise((resolve) => setTimeout(resolve, 200));
    for (const on of ['vast', 'ionet'] as const) {
      const paid = (route: string) =>
        sim.calls().filter((one) => one.route === route && one.provider === on && one.at >= startedAt).length;
      const asked = (what: string) => calls.filter((one) => one.on === on && one.what === what).length;
      expect(paid('rent'), 'a paid call was repeated').toBeLessThanOrEqual(asked('rent') + asked('bid'));
      expect(paid('extend'), 'time was bought again').toBeLessThanOrEqual(asked('extend'));
    }
    const made = sim.ledger();
    for (const { label, on, result } of rentals) {
      const contracts = made.filter((entry) => entry.provider === on && entry.label === label);
      expect(contracts.length, `${label} rented more than once`).toBeLessThanOrEqual(1);
      if (result?.ok) expect(contracts.map((entry) => entry.contract)).toEqual([result.contract]);
      else if (result?.leaked) expect(contracts.map((entry) => entry.contract)).toEqual([result.leaked]);
      else if (result?.reason !== 'unknown') {
        expect(contracts, `${label}: ${JSON.stringify(result)} but it was rented`).toEqual([]);
      }
    }
  };
  const every = (on: Call['on'], pick: number): Call[] =>
    (['rent', 'bid', 'offers', 'list', 'destroy', 'balance', 'logs', 'extend'] as const).map((what) => ({
      on,
      what,
      pick,
      abortAfterMs: undefined,
    }));
  const all = [...every('vast', 1), ...every('ionet', 1)];
  await fc.assert(fc.asyncProperty(schedule, fc.array(call, { minLength: 4, maxLength: 10 }), run), {
    numRuns: 30,
    endOnFailure: true,
    interruptAfterTimeLimit: 30_000,
    // Every call of both, without a fault, with every answer of a paid call lost, and with nothing answered at all.
    examples: [
      [[], all],
      [[{ kind: 'lose_answer', how: 'reset' }], all],
      [[{ kind: 'hang' }], all],
      [[{ kind: 'hang', when: 'after' }], all],
    ] as never,
  });
  for (const on of ['vast', 'ionet'] as const) {
    expect([...done].filter((name) => name.startsWith(on))).toHaveLength(8);
    // The schedules were neither all fatal nor all harmless.
    expect(outcomes.get(`${on} ok`) ?? 0).toBeGreaterThan(0);
    expect(outcomes.get(`${on} unknown`) ?? 0).toBeGreaterThan(0);
  }
}, 90_000);
