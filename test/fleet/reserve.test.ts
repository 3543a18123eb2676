import { expect, test as serial } from 'vitest';
import { matchesFilter } from '../../src/core/offers.ts';
import type { AppError } from '../../src/fleet/app.ts';
import { type Provider, ProviderError } from '../../src/providers/provider.ts';
import { aliveContracts, createStage, type Stage, until } from './fixture.ts';

const test = serial.concurrent;

/** Marketplaces whose offers stay as they are now, whatever becomes of them: a listing may always be of the past. */
function frozen({ providers }: Stage): Promise<Provider[]> {
  return Promise.all(
    providers.map(async (provider): Promise<Provider> => {
      const { offers } = await provider.offers({});
      return {
        ...provider,
        offers: async (filter) => ({ offers: offers.filter((offer) => matchesFilter(offer, filter)), more: false }),
      };
    }),
  );
}

const refusal = (work: Promise<unknown>): Promise<AppError> =>
  work.then(
    (value) => {
      throw new Error(`not refused: ${JSON.stringify(value)}`);
    },
    (error: AppError) => error,
  );

test('a reservation refuses counts that are not whole numbers from 1 to 16 and names the field', async () => {
  await using stage = await createStage();
  const app = await stage.start();
  for (const count of [0, 17, 1.5, -1, Number.NaN]) {
    const error = await refusal(app.reserve({ count, filter: {}, config: {} }));
    expect(error).toMatchObject({ name: 'AppError', code: 'invalid' });
    expect(error.message).toContain('count');
  }
  const split = await refusal(app.reserve({ count: 3, filter: { gpuCount: 2 }, config: {} }));
  expect(split).toMatchObject({ code: 'invalid' });
  expect(split.message).toContain('gpu_count');
  expect(stage.simulator.ledger()).toHaveLength(0);
});

test('gpu_count makes instances of so many GPUs', async () => {
  await using stage = await createStage();
  const app = await stage.start();
  const result = await app.reserve({ count: 4, filter: { gpuCount: 2 }, config: {} });
  expect(result.count).toBe(2 * result.reserved.length);
  expect(result.reserved.every((item) => item.gpuCount === 2)).toBe(true);
});

test('twenty reservations at once never rent one offer twice and never exceed the budget together', async () => {
  await using stage = await createStage({ offers: { vast: 30, ionet: 20 } });
  const maxUsdPerHour = 15;
  const app = await stage.start({ flags: { MAX_USD_PER_HOUR: maxUsdPerHour } });
  const results = await Promise.allSettled(
    Array.from({ length: 20 }, () => app.reserve({ count: 2, filter: {}, config: {} })),
  );
  const reserved = results.flatMap((result) => (result.status === 'fulfilled' ? result.value.reserved : []));
  const refused = results.flatMap((result) => (result.status === 'rejected' ? [result.reason as AppError] : []));
  expect(reserved.length).toBeGreaterThan(0);
  expect(refused.some((error) => error.code === 'budget_exceeded')).toBe(true);
  expect(new Set(reserved.map((item) => item.instanceId)).size).toBe(reserved.length);
  expect(new Set(reserved.map((item) => item.contractId)).size).toBe(reserved.length);
  const contracts = stage.simulator.ledger();
  expect(contracts.length).toBe(reserved.length);
  const rate = contracts.reduce((sum, entry) => sum + entry.usdPerHour, 0);
  expect(rate).toBeLessThanOrEqual(maxUsdPerHour + 0.001);
  // Nobody was even told that an offer is gone: the claims kept the reservations apart.
  const vast = contracts.filter((entry) => entry.provider === 'vast');
  expect(new Set(vast.map((entry) => entry.offer)).size).toBe(vast.length);
  const collisions = stage.simulator.calls().filter((call) => call.route === 'rent' && call.status >= 400);
  expect(collisions).toHaveLength(0);
});

test('an offer that is gone is replaced by the next candidate and not reported as a failure', async () => {
  await using stage = await createStage();
  stage.simulator.faults.add({ kind: 'stale_offers', provider: 'all', times: 2 });
  const app = await stage.start();
  const result = await app.reserve({ count: 3, filter: {}, config: {} });
  expect(result).toMatchObject({ count: 3, errors: [] });
  expect(stage.simulator.ledger()).toHaveLength(3);
});

test('filters that nothing matches are no_offers, and the message says so', async () => {
  await using stage = await createStage();
  const app = await stage.start();
  const error = await refusal(app.reserve({ count: 1, filter: { minVramGb: 9999 }, config: {} }));
  expect(error).toMatchObject({ code: 'no_offers' });
  expect(error.details).toContain('no offers match the filters');
  const plan = await app.plan({ count: 1, filter: { minVramGb: 9999 }, config: {} });
  expect(plan).toMatchObject({ count: 0, offers: [] });
});

test('fewer offers than wanted are told apart from what is wanted, and one of anything is not several', async () => {
  await using stage = await createStage();
  const app = await stage.start();
  const { offers } = await app.offers({ provider: 'vast.ai' });
  const dearest = Math.max(...offers.map((offer) => offer.usdPerHour));
  const rare = offers.filter((offer) => offer.usdPerHour === dearest);
  expect(rare).toHaveLength(1);
  const model = rare[0]?.gpuModel ?? '';
  const filter = { provider: 'vast.ai' as const, gpuModel: model, gpuCount: rare[0]?.gpuCount ?? 1 };
  const { errors, count } = await app.plan({ count: 16, filter, config: {} });
  const wanted = 16 / filter.gpuCount;
  expect(count).toBeLessThan(16);
  expect(errors.join()).toMatch(new RegExp(`\\d+ matching instances? (is|are) on offer, ${wanted} are wanted`));
  await app.reserve({ count: 1, filter: {}, config: {} }, { by: 'tests' });
  const said = app.events.recent().map((event) => event.message);
  expect(said.join('\n')).toMatch(/: renting 1 GPU for tests\n[\s\S]*1 of 1 GPU reserved/);
});

test('with one provider down the other takes its place, unless the filter forbids it', async () => {
  await using stage = await createStage();
  stage.simulator.faults.add({ kind: 'error', status: 503, provider: 'vast' });
  const app = await stage.start();
  const result = await app.reserve({ count: 2, filter: {}, config: {} });
  expect(result.reserved.map((item) => item.provider)).toEqual(['io.net', 'io.net']);
  const error = await refusal(app.reserve({ count: 1, filter: { provider: 'vast.ai' }, config: {} }));
  expect(error.code).toBe('provider_failed');
});

test('a provider that fails only when it is to rent is left out and the other takes its place', async () => {
  await using stage = await createStage();
  stage.simulator.faults.add({ kind: 'rate_limit', route: 'rent', provider: 'ionet' });
  const app = await stage.start();
  const result = await app.reserve({ count: 4, filter: {}, config: {} });
  expect(result.count).toBe(4);
  expect(result.reserved.every((item) => item.provider === 'vast.ai')).toBe(true);
  expect(result.errors.join()).toContain('io.net');
});

test('with both providers down nothing is rented and the refusal is provider_failed', async () => {
  await using stage = await createStage();
  stage.simulator.faults.add({ kind: 'error', status: 500 });
  const app = await stage.start();
  const error = await refusal(app.reserve({ count: 1, filter: {}, config: {} }));
  expect(error.code).toBe('provider_failed');
  expect(error.details).toHaveLength(2);
});

test('without credit anywhere the refusal is no_credit', async () => {
  await using stage = await createStage({ credit: { vast: 0, ionet: 0 } });
  const app = await stage.start();
  const error = await refusal(app.reserve({ count: 2, filter: {}, config: {} }));
  expect(error.code).toBe('no_credit');
  expect(stage.simulator.ledger()).toHaveLength(0);
});

test.each(['vast.ai', 'io.net'] as const)(
  'a price that rose above max_price between search and rent is refused at %s, and nothing dearer is kept',
  async (provider) => {
    await using stage = await createStage();
    const app = await stage.start({ providers: await frozen(stage) });
    const { offers } = await app.offers({ provider, gpuCount: 1 });
    const cheapest = offers[0]?.usdPerHour ?? 0;
    stage.simulator.faults.add({ kind: 'reprice', provider: provider === 'vast.ai' ? 'vast' : 'ionet', factor: 10 });
    const error = await refusal(
      app.reserve({ count: 1, filter: { provider, maxUsdPerHour: cheapest * 1.5 }, config: {} }),
    );
    expect(error.code).toBe('no_offers');
    expect(error.details.join()).toContain(`the limit is`);
    await until('nothing dearer is kept', () => aliveContracts(stage.simulator).length === 0);
    // Within the limit a risen price is taken, and shown as it is.
    const { count, reserved } = await app.reserve({ count: 1, filter: { provider, maxUsdPerHour: 1000 }, config: {} });
    expect(count).toBe(1);
    const bought = stage.simulator.ledger().find((entry) => entry.contract === reserved[0]?.contractId);
    expect(reserved[0]?.usdPerHour).toBeCloseTo(bought?.usdPerHour ?? 0, 6);
  },
);

test('without a limit of its own nothing is rented for more than its offer said, nor beyond the budget', async () => {
  await using stage = await createStage();
  const app = await stage.start({ timing: { offersFreshMs: 60_000, refreshMs: 60_000 } });
  await app.refresh();
  stage.simulator.faults.add({ kind: 'reprice', factor: 3 });
  const { reserved, errors } = await app.reserve({ count: 1, filter: { provider: 'vast.ai' }, config: {} });
  expect(errors.join()).toContain('the limit is');
  await until('the dear one is given back', () => aliveContracts(stage.simulator).length === 1);
  const [kept] = stage.simulator.instances();
  expect(kept?.usdPerHour).toBeCloseTo(reserved[0]?.usdPerHour ?? 0, 6);
  await app.destroy(reserved[0]?.instanceId ?? '', { now: true });
  await app[Symbol.asyncDispose]();
  const tight = await stage.start({ providers: await frozen(stage), flags: { MAX_USD_PER_HOUR: 1 } });
  stage.simulator.faults.add({ kind: 'reprice', factor: 1.04 });
  const result = await tight
    .reserve({ count: 8, filter: { provider: 'vast.ai', maxUsdPerHour: 0.6 }, config: {} })
    .catch(() => null);
  await until('settled', () => tight.state.get().upstreams.every((view) => view.state !== 'DESTROYING'));
  const rate = stage.simulator.instances().reduce((sum, instance) => sum + instance.usdPerHour, 0);
  expect(rate).toBeLessThanOrEqual(1.001);
  expect(result === null || result.count > 0).toBe(true);
});

test('a paid call whose answer is lost is found by its label and not made again', async () => {
  await using stage = await createStage();
  stage.simulator.faults.add({ kind: 'lose_answer', how: 'reset', times: 2 });
  const app = await stage.start();
  const result = await app.reserve({ count: 2, filter: {}, config: {} });
  expect(result.count).toBe(2);
  expect(stage.simulator.ledger()).toHaveLength(2);
});

test('a lost answer that cannot be looked up stays open, and is adopted when the list comes back', async () => {
  await using stage = await createStage();
  stage.simulator.faults.add({ kind: 'lose_answer', how: 'reset', provider: 'vast', times: 1 });
  const list = stage.simulator.faults.add({ kind: 'error', status: 502, route: 'list', provider: 'vast' });
  const app = await stage.start({ timing: { unknownGraceMs: 60_000 } });
  const error = await refusal(
    app.reserve({ count: 1, filter: { provider: 'vast.ai' }, config: {} }, { idempotencyKey: 'k' }),
  );
  expect(error.code).toBe('provider_timeout');
  expect(app.state.get().upstreams).toMatchObject([{ state: 'RESERVING' }]);
  const again = await refusal(
    app.reserve({ count: 1, filter: { provider: 'vast.ai' }, config: {} }, { idempotencyKey: 'k' }),
  );
  expect(again.code).toBe('conflict');
  stage.simulator.faults.remove(list.id);
  await until('adopted', () => app.state.get().upstreams.some((view) => view.eligible));
  expect(app.state.get().reservations).toMatchObject([{ state: 'active' }]);
  const repeated = await until('the key has its answer', () =>
    app.reserve({ count: 1, filter: { provider: 'vast.ai' }, config: {} }, { idempotencyKey: 'k' }).catch(() => null),
  );
  expect(repeated).toMatchObject({ count: 1, replayed: true });
  expect(stage.simulator.ledger()).toHaveLength(1);
});

test('a contract made by a refused call is given back', async () => {
  await using stage = await createStage();
  const app = await stage.start();
  const { offers } = await app.offers({ provider: 'vast.ai', gpuCount: 1 });
  const offer = offers.find((candidate) => candidate.minBidUsdPerHour !== null);
  expect(offer).toBeDefined();
  const bid = (offer?.minBidUsdPerHour ?? 1) + 0.001;
  // The market moves above the bid between search and rent.
  stage.simulator.faults.add({ kind: 'reprice', provider: 'vast', factor: 5 });
  await refusal(app.rentOffer('vast.ai', offer?.id ?? '', { maxBidUsdPerHour: bid }));
  await until('nothing is left', () => aliveContracts(stage.simulator).length === 0);
  expect(app.state.get().upstreams.every((view) => view.lifecycle.phase === 'ended')).toBe(true);
});

test('all or nothing gives back what it rented when the rest cannot be had', async () => {
  await using stage = await createStage({ offers: { vast: 6, ionet: 0 } });
  const app = await stage.start();
  const plan = await app.plan({ count: 16, filter: { provider: 'vast.ai' }, config: {} });
  expect(plan.count).toBeGreaterThan(1);
  const short = await refusal(
    app.reserve({ count: plan.count + 1, filter: { provider: 'vast.ai' }, config: {}, allOrNothing: true }),
  );
  expect(short.code).toBe('incomplete');
  expect(stage.simulator.ledger()).toHaveLength(0);
  stage.simulator.faults.add({ kind: 'stale_offers', provider: 'vast', times: 1 });
  const error = await refusal(
    app.reserve({ count: plan.count, filter: { provider: 'vast.ai' }, config: {}, allOrNothing: true }),
  );
  expect(error.code).toBe('incomplete');
  expect(stage.simulator.ledger().length).toBeGreaterThan(0);
  await until('rolled back', () => aliveContracts(stage.simulator).length === 0);
  await until('settled', () =>
    app.state.get().reservations.every((reservation) => ['ended', 'failed'].includes(reservation.state)),
  );
});

test('an Idempotency-Key answers a repeat with the stored result, also while the first is under way and after a restart', async () => {
  await using stage = await createStage();
  const app = await stage.start();
  const request = { count: 2, filter: { minVramGb: 1 }, config: { image: 'a:b' } };
  const [first, second] = await Promise.all([
    app.reserve(request, { idempotencyKey: 'one' }),
    app.reserve({ config: { image: 'a:b' }, filter: { minVramGb: 1 }, count: 2 }, { idempotencyKey: 'one' }),
  ]);
  expect(second).toEqual({ ...first, replayed: true });
  const mismatch = await refusal(app.reserve({ ...request, count: 1 }, { idempotencyKey: 'one' }));
  expect(mismatch.code).toBe('idempotency_mismatch');
  await app[Symbol.asyncDispose]();
  const next = await stage.start();
  expect(await next.reserve(request, { idempotencyKey: 'one' })).toEqual({ ...first, replayed: true });
  expect(stage.simulator.ledger()).toHaveLength(2);
});

test('an Idempotency-Key is free again after a day, and after a reservation that rented nothing', async () => {
  await using stage = await createStage();
  let ahead = 0;
  const clock = { now: () => Date.now() + ahead, monotonic: () => performance.now() };
  const app = await stage.start({ clock });
  await app.reserve({ count: 1, filter: {}, config: {} }, { idempotencyKey: 'day' });
  ahead = 25 * 3_600_000;
  const other = await app.reserve({ count: 2, filter: {}, config: {} }, { idempotencyKey: 'day' });
  expect(other.replayed).toBeUndefined();
  stage.simulator.faults.add({ kind: 'credit', usd: -10_000 });
  await refusal(app.reserve({ count: 1, filter: {}, config: {} }, { idempotencyKey: 'poor' }));
  stage.simulator.faults.add({ kind: 'credit', usd: 1000 });
  const later = await app.reserve({ count: 1, filter: {}, config: {} }, { idempotencyKey: 'poor' });
  expect(later.replayed).toBeUndefined();
});

test('a cancelled reservation makes no further paid call and gives back what was rented', async () => {
  await using stage = await createStage();
  stage.simulator.faults.add({ kind: 'latency', ms: 3000, route: 'rent' });
  const app = await stage.start({ timing: { rentTimeoutMs: 20_000 } });
  const work = refusal(app.reserve({ count: 16, filter: {}, config: {} }, { idempotencyKey: 'stop' }));
  const seen = await until('paid calls are under way', () => app.reservationOf('stop'));
  expect(seen).toMatchObject({ state: 'renting', requested: 16 });
  const result = await app.cancel('stop');
  const error = await work;
  expect(error.code).toBe('incomplete');
  expect(error.message).toMatch(/cancelled: \d+ rented instances are given back/);
  expect(result).toMatchObject({ reservation: seen.id, kept: [] });
  await until('all given back', () => aliveContracts(stage.simulator).length === 0);
  expect(stage.simulator.ledger().length).toBeLessThan(16);
  expect([...result.released, ...result.pending]).toHaveLength(stage.simulator.ledger().length);
  expect(app.events.recent().some((event) => event.message.startsWith(`${seen.id} cancelled: `))).toBe(true);
  // Nothing is left of the key either: it may try again.
  stage.simulator.faults.clear();
  const again = await app.reserve({ count: 1, filter: {}, config: {} }, { idempotencyKey: 'stop' });
  expect(again.replayed).toBeUndefined();
});

test('a reservation that is cancelled with keep answers what was rented by then', async () => {
  await using stage = await createStage();
  stage.simulator.faults.add({ kind: 'latency', ms: 3000, route: 'rent' });
  const app = await stage.start({ timing: { rentTimeoutMs: 20_000 } });
  const work = app.reserve({ count: 16, filter: {}, config: {} }, { idempotencyKey: 'enough' });
  await until('paid calls are under way', () => app.reservationOf('enough'));
  const kept = await app.cancel('enough', { keep: true });
  const result = await work;
  expect(result.count).toBeGreaterThan(0);
  expect(result.count).toBeLessThan(16);
  expect(result.errors).toContain('cancelled: nothing more was rented');
  expect(kept).toEqual({
    reservation: result.reservation,
    kept: result.reserved.map((item) => item.instanceId),
    released: [],
    pending: [],
  });
  expect(aliveContracts(stage.simulator)).toEqual(result.reserved.map((item) => item.contractId).sort());
});

test('cancelling before the search has ended rents nothing, after the end gives everything back, and of an unknown key is not_found', async () => {
  await using stage = await createStage();
  const app = await stage.start({ timing: { offersFreshMs: 0 } });
  stage.simulator.faults.add({ kind: 'latency', ms: 300, route: 'search' });
  const work = refusal(app.reserve({ count: 2, filter: {}, config: {} }, { idempotencyKey: 'early' }));
  expect(await app.cancel('early')).toEqual({ reservation: null, kept: [], released: [], pending: [] });
  expect((await work).message).toContain('cancelled before anything');
  expect(stage.simulator.ledger()).toHaveLength(0);
  stage.simulator.faults.clear();
  const done = await app.reserve({ count: 2, filter: {}, config: {} }, { idempotencyKey: 'late' });
  const result = await app.cancel('late');
  expect(result.released.toSorted()).toEqual(done.reserved.map((item) => item.instanceId).sort());
  expect(aliveContracts(stage.simulator)).toHaveLength(0);
  expect((await refusal(app.cancel('never'))).code).toBe('not_found');
});

test('all or nothing that is cancelled with keep is given back all the same', async () => {
  await using stage = await createStage();
  stage.simulator.faults.add({ kind: 'latency', ms: 3000, route: 'rent' });
  const app = await stage.start({ timing: { rentTimeoutMs: 20_000 } });
  const work = refusal(
    app.reserve({ count: 12, filter: {}, config: {}, allOrNothing: true }, { idempotencyKey: 'whole' }),
  );
  await until('paid calls are under way', () => app.reservationOf('whole'));
  expect((await app.cancel('whole', { keep: true })).kept).toEqual([]);
  expect((await work).code).toBe('incomplete');
  await until('all given back', () => aliveContracts(stage.simulator).length === 0);
});

test('a reservation that is released while it is being rented is stopped and given back', async () => {
  await using stage = await createStage();
  stage.simulator.faults.add({ kind: 'latency', ms: 3000, route: 'rent' });
  const app = await stage.start({ timing: { rentTimeoutMs: 20_000 } });
  const work = refusal(app.reserve({ count: 12, filter: {}, config: {} }));
  const renting = await until('paid calls are under way', () => app.state.get().reservations[0]);
  const released = await app.releaseReservation(renting.id, { now: true });
  expect((await work).message).toContain('cancelled');
  await until('all given back', () => aliveContracts(stage.simulator).length === 0);
  expect(released.released.length + released.failed.length).toBe(stage.simulator.ledger().length);
  expect(stage.simulator.ledger().length).toBeLessThan(12);
});

test('what was confirmed is the most that is spent: a dearer whole is refused, a dearer replacement is not taken', async () => {
  await using stage = await createStage();
  const app = await stage.start({
    flags: { LB_ENABLED: false },
    timing: { offersFreshMs: 60_000, refreshMs: 60_000 },
  });
  await app.refresh();
  const wish = { count: 2, filter: { provider: 'vast.ai' as const }, config: {} };
  const plan = await app.plan(wish);
  const dear = await refusal(app.reserve({ ...wish, maxTotalUsdPerHour: plan.usdPerHour * 0.9 }));
  expect(dear).toMatchObject({ code: 'conflict' });
  expect(dear.message).toMatch(/would cost \$[\d.]+\/h by now, more than the \$[\d.]+\/h/);
  expect(stage.simulator.ledger()).toHaveLength(0);
  // The cheapest is gone: any other one would be dearer than what was agreed to.
  stage.simulator.faults.add({ kind: 'stale_offers', provider: 'vast', times: 1 });
  const bounded = await app.reserve({ ...wish, maxTotalUsdPerHour: plan.usdPerHour });
  expect(bounded.count).toBe(1);
  expect(bounded.errors.join()).toContain('every other offer would make the whole dearer');
  const spent = stage.simulator.instances().reduce((sum, instance) => sum + instance.usdPerHour, 0);
  expect(spent).toBeLessThanOrEqual(plan.usdPerHour * 1.05);
  // Without that bound the next candidate takes its place.
  stage.simulator.faults.add({ kind: 'stale_offers', provider: 'vast', times: 1 });
  expect((await app.reserve(wish)).count).toBe(2);
});

test('all or nothing that proves too dear only after its answer is given back whole, and its key is free again', async () => {
  await using stage = await createStage();
  let hidden = false;
  const providers = (await frozen(stage)).map(
    (provider): Provider => ({
      ...provider,
      list: async (signal) => {
        if (hidden) throw new ProviderError(provider.name, 'server_error', 'no list');
        return provider.list(signal);
      },
    }),
  );
  const [vast] = providers;
  if (vast === undefined) throw new Error('no provider');
  const app = await stage.start({ providers: [vast] });
  const wish = { count: 3, filter: {}, config: {} };
  const other = await app.reserve({ count: 1, filter: {}, config: {} });
  const parted = await app.reserve({ count: 2, filter: {}, config: {} });
  hidden = true;
  // One of the three alone costs more than its offer said: the first that is had, for offers may be gone by now.
  const rent = vast.rent.bind(vast);
  const reprice = (factor: number) => stage.simulator.faults.add({ kind: 'reprice', provider: 'vast', factor });
  let isDearer = false;
  let turn: Promise<unknown> = Promise.resolve();
  Object.assign(vast, {
    rent: (...args: Parameters<Provider['rent']>) => {
      const result = turn.then(async () => {
        if (isDearer) return rent(...args);
        reprice(4);
        const first = await rent(...args);
        reprice(1 / 4);
        isDearer = first.ok;
        return first;
      });
      turn = result.catch(() => undefined);
      return result;
    },
  });
  const { reserved, reservation } = await app.reserve({ ...wish, allOrNothing: true }, { idempotencyKey: 'whole' });
  expect(reserved).toHaveLength(3);
  hidden = false;
  await until('given back whole', () => aliveContracts(stage.simulator).length === 3);
  const kept = [...other.reserved, ...parted.reserved].map((item) => item.contractId).sort();
  expect(aliveContracts(stage.simulator)).toEqual(kept);
  const view = () => app.state.get().reservations.find((item) => item.id === reservation);
  await until('over', () => view()?.state === 'ended');
  expect(view()).toMatchObject({
    instances: [],
    ended: expect.arrayContaining(reserved.map((item) => item.instanceId)),
  });
  expect(view()?.errors.join()).toMatch(/costs \$[\d.]+\/h, the limit is .*all of it is given back/);
  const told = app.events.recent().filter((event) => event.message.includes(`and all of ${reservation} with it`));
  expect(told).toHaveLength(1);
  const again = await app.reserve({ ...wish, allOrNothing: true }, { idempotencyKey: 'whole' });
  expect(again).toMatchObject({ count: 3 });
  expect(again.replayed).toBeUndefined();
});

test.each([
  { kind: 'rate_limit', route: 'rent' },
  { kind: 'rate_limit' },
  { kind: 'hang' },
  { kind: 'hang', when: 'after' },
  { kind: 'error', status: 503 },
] as const)('a reservation ends, with its roll-back, under what never ends at the marketplaces: %o', async (fault) => {
  await using stage = await createStage();
  const app = await stage.start({ timing: { callTimeoutMs: 300, rentTimeoutMs: 300, destroyWaitMs: 300 } });
  await app.refresh();
  stage.simulator.faults.add(fault);
  const error = await refusal(app.reserve({ count: 4, filter: {}, config: {}, allOrNothing: true }));
  expect(error.code).toBeTypeOf('string');
  // The server can be left while all of it goes on.
  await app[Symbol.asyncDispose]();
});

test.each(['not listed in time', 'answer lost in a crash'] as const)(
  'a price that has risen is found out later too, and given back: %s',
  async (how) => {
    await using stage = await createStage();
    let hidden = false;
    const [vast] = await frozen(stage);
    if (vast === undefined) throw new Error('no provider');
    const slow: Provider = {
      ...vast,
      list: (signal) => {
        if (hidden) throw new ProviderError('vast.ai', 'server_error', 'no list');
        return vast.list(signal);
      },
    };
    const app = await stage.start({ providers: [slow], timing: { unknownGraceMs: 60_000 } });
    hidden = true;
    stage.simulator.faults.add({ kind: 'reprice', factor: 4 });
    if (how === 'answer lost in a crash') stage.simulator.faults.add({ kind: 'lose_answer', how: 'reset', times: 1 });
    const rented = await app.reserve({ count: 1, filter: {}, config: {} }).catch(() => null);
    expect(rented === null).toBe(how === 'answer lost in a crash');
    expect(aliveContracts(stage.simulator)).toHaveLength(1);
    await app[Symbol.asyncDispose]();
    hidden = false;
    const next = await stage.start({ providers: [slow] });
    await until('given back', () => aliveContracts(stage.simulator).length === 0);
    const event = await until('said', () =>
      next.events.recent().find((each) => each.level === 'warn' && each.message.includes('is given back')),
    );
    expect(event.message).toMatch(/it costs \$[\d.]+\/h, the limit is \$[\d.]+\/h/);
    await until('ended', () => next.state.get().reservations[0]?.state === 'ended');
    expect(next.state.get().reservations[0]).toMatchObject({ instances: [], ended: [expect.stringMatching(/^vast-/)] });
  },
);

test('own purchases leave the stock that is shown and offered at once', async () => {
  await using stage = await createStage();
  const app = await stage.start({ timing: { offersFreshMs: 60_000, refreshMs: 60_000 } });
  await app.refresh();
  const stock = () => app.state.get().providers.map((view) => view.available);
  const before = stock();
  const { reserved } = await app.reserve({ count: 4, filter: {}, config: {} });
  const bought = ['vast.ai', 'io.net'].map((name) => reserved.filter((item) => item.provider === name).length);
  expect(stock()).toEqual(before.map((n, index) => n - (bought[index] ?? 0)));
  const { offers } = await app.offers({ provider: 'vast.ai' });
  const taken = reserved.filter((item) => item.provider === 'vast.ai').map((item) => item.instanceId);
  expect(taken.length).toBeGreaterThan(0);
  expect(offers.some((offer) => taken.includes(`vast-${offer.id}`))).toBe(false);
});

test('a rental that is cut off says why it waits and for how long, on the instance and on the reservation', async () => {
  await using stage = await createStage();
  stage.simulator.faults.add({ kind: 'hang', when: 'before', route: 'rent' });
  stage.simulator.faults.add({ kind: 'error', status: 502, route: 'list' });
  const app = await stage.start({ timing: { rentTimeoutMs: 200, unknownGraceMs: 35_000 } });
  await refusal(app.reserve({ count: 1, filter: { provider: 'vast.ai' }, config: {} }));
  expect(app.state.get().upstreams[0]?.reason).toMatch(
    /^the answer was lost \(.*\); looked for by its label at vast\.ai for up to \d0 s more$/,
  );
  await app[Symbol.asyncDispose]();
  const next = await stage.start({ timing: { unknownGraceMs: 35_000 } });
  const [view] = next.state.get().upstreams;
  expect(view).toMatchObject({ state: 'RESERVING' });
  expect(view?.reason).toMatch(/looked for by its label at vast\.ai for up to \d0 s more$/);
  expect(next.state.get().reservations[0]?.errors.join()).toContain('looked for by its label');
});

test('a batch rents so many from each provider and answers their contracts', async () => {
  await using stage = await createStage();
  const app = await stage.start();
  const wish = { vast: 2, ionet: 3, filter: {}, config: {} };
  const plan = await app.planBatch(wish);
  expect(stage.simulator.ledger()).toHaveLength(0);
  const result = await app.batch(wish);
  // The plan is what is taken, and not the cheapest of each.
  const rented = stage.simulator.ledger();
  expect(rented.flatMap((entry) => (entry.provider === 'vast' ? [entry.offer] : [])).sort()).toEqual(
    plan.offers.flatMap((offer) => (offer.provider === 'vast.ai' ? [offer.id] : [])).sort(),
  );
  expect(rented.reduce((sum, entry) => sum + entry.usdPerHour, 0)).toBeCloseTo(plan.usdPerHour, 3);
  expect(result.vast).toHaveLength(2);
  expect(result.ionet).toHaveLength(3);
  expect(result.errors).toEqual([]);
  for (const [vast, ionet] of [
    [9, 0],
    [0, 9],
    [-1, 1],
    [0, 0],
  ] as const) {
    expect((await refusal(app.batch({ vast, ionet, filter: {}, config: {} }))).code).toBe('invalid');
  }
});

test('one named offer is rented as it is, and one that does not exist is not_found', async () => {
  await using stage = await createStage();
  const app = await stage.start();
  const { offers } = await app.offers({ provider: 'vast.ai' });
  const offer = offers[0];
  const item = await app.rentOffer('vast.ai', offer?.id ?? '', {});
  expect(item).toMatchObject({ instanceId: `vast-${offer?.id}`, provider: 'vast.ai' });
  expect((await refusal(app.rentOffer('vast.ai', '1', {}))).code).toBe('not_found');
});

test('an Idempotency-Key of one named offer rents it once, and refuses a price above what was confirmed', async () => {
  await using stage = await createStage();
  const app = await stage.start();
  const { offers } = await app.offers({ provider: 'vast.ai' });
  const [a, b] = offers;
  const rent = (id: string | undefined) => app.rentOffer('vast.ai', id ?? '', {}, { idempotencyKey: 'one' });
  const [first, second] = await Promise.all([rent(a?.id), rent(a?.id)]);
  expect(second).toEqual({ ...first, replayed: true });
  expect((await refusal(rent(b?.id))).code).toBe('idempotency_mismatch');
  await app[Symbol.asyncDispose]();
  const next = await stage.start();
  expect(await next.rentOffer('vast.ai', a?.id ?? '', {}, { idempotencyKey: 'one' })).toEqual({
    ...first,
    replayed: true,
  });
  expect(stage.simulator.ledger()).toHaveLength(1);
  const price = b?.usdPerHour ?? 0;
  const dear = await refusal(next.rentOffer('vast.ai', b?.id ?? '', {}, { maxUsdPerHour: price * 0.9 }));
  expect(dear.code).toBe('conflict');
  expect(stage.simulator.ledger()).toHaveLength(1);
});

test('a plan says what would be rented, at which price, and rents nothing', async () => {
  await using stage = await createStage();
  const app = await stage.start({ flags: { MAX_USD_PER_HOUR: 0.01 } });
  const plan = await app.plan({ count: 2, filter: { provider: 'io.net' }, config: { durationHours: 3 } });
  expect(plan.count).toBe(2);
  expect(plan.prepaidUsd).toBeCloseTo(plan.usdPerHour * 3, 6);
  expect(plan.errors.join()).toContain('MAX_USD_PER_HOUR');
  expect(stage.simulator.ledger()).toHaveLength(0);
});

test('a shutdown in the middle finishes or undoes what was begun before the process leaves', async () => {
  await using stage = await createStage();
  stage.simulator.faults.add({ kind: 'latency', ms: 500, route: 'rent', provider: 'ionet' });
  stage.simulator.faults.add({ kind: 'latency', ms: 3000, route: 'rent', provider: 'vast' });
  const bothPay = Promise.withResolvers<void>();
  let opened = 0;
  const app = await stage.start({
    timing: { rentTimeoutMs: 20_000 },
    onStep(name) {
      if (name === 'after-intent') opened += 1;
      // In the same turn as the first answer while both pay: nothing can be called in between.
      if (name === 'answered' && opened >= 2) bothPay.resolve(app[Symbol.asyncDispose]());
    },
  });
  const some = app.reserve({ count: 8, filter: { provider: 'io.net' }, config: {} });
  const all = refusal(app.reserve({ count: 8, filter: { provider: 'vast.ai' }, config: {}, allOrNothing: true }));
  await bothPay.promise;
  const result = await some;
  expect(result.count).toBeGreaterThan(0);
  expect(result.count).toBeLessThan(8);
  expect(result.errors.join()).toContain('shut down');
  expect((await all).message).toContain('given back');
  expect(aliveContracts(stage.simulator)).toEqual(result.reserved.map((item) => item.contractId).sort());
  const next = await stage.start();
  expect(
    next.state
      .get()
      .reservations.map((reservation) => reservation.state)
      .sort(),
  ).toEqual(['ended', 'partial']);
});

test('a reservation that is released while an answer is lost says that this one is not given back yet', async () => {
  await using stage = await createStage();
  stage.simulator.faults.add({ kind: 'lose_answer', how: 'reset', provider: 'vast', times: 1 });
  const list = stage.simulator.faults.add({ kind: 'error', status: 502, route: 'list', provider: 'vast' });
  const app = await stage.start({ timing: { unknownGraceMs: 60_000 } });
  await refusal(app.reserve({ count: 1, filter: { provider: 'vast.ai' }, config: {} }));
  const id = app.state.get().reservations[0]?.id ?? '';
  const released = await app.releaseReservation(id, { now: true });
  expect(released).toEqual({ released: [], failed: [app.state.get().upstreams[0]?.id] });
  expect(app.state.get().upstreams).toMatchObject([{ state: 'DESTROYING' }]);
  expect(aliveContracts(stage.simulator)).toHaveLength(1);
  stage.simulator.faults.remove(list.id);
  await until('destroyed once it is seen', () => aliveContracts(stage.simulator).length === 0);
  await until('ended', () => app.state.get().reservations[0]?.state === 'ended');
});
