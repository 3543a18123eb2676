import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, expect, test, vi } from 'vitest';
import type { Offer, OfferFilter, ProviderName } from '../../src/core/domain.ts';
import { type Availability, createAvailability } from '../../src/fleet/availability.ts';
import { defaultTiming, systemClock, type Timing } from '../../src/fleet/timing.ts';
import { type OfferList, type Provider, ProviderError } from '../../src/providers/provider.ts';
import { until } from './fixture.ts';

const offerOf = (provider: ProviderName, id: number, fields: Partial<Offer> = {}): Offer => ({
  provider,
  id: String(id),
  gpuModel: id % 2 === 0 ? 'RTX 4090' : 'H100 SXM',
  gpuCount: 1,
  vramGb: id % 2 === 0 ? 24 : 80,
  usdPerHour: 0.1 + id / 1000,
  location: 'Sweden, SE',
  countryCode: 'SE',
  reliability: 0.99,
  verified: true,
  available: 1,
  minBidUsdPerHour: null,
  prepaidHours: null,
  diskGb: null,
  storage: null,
  machineId: null,
  ...fields,
});

type Answer = (filter: OfferFilter) => OfferList | Promise<OfferList>;
const marketOf = (name: ProviderName, answer: Answer) => {
  const asked: OfferFilter[] = [];
  const provider: Provider = {
    name,
    prefix: name.slice(0, 2),
    async offers(filter) {
      asked.push(filter);
      return answer(filter);
    },
    rent: () => Promise.reject(new Error('not here')),
    list: () => Promise.resolve([]),
    destroy: () => Promise.resolve(),
  };
  return { provider, asked };
};
const down = (name: ProviderName) => () => {
  throw new ProviderError(name, 'server_error', 'HTTP 503: no');
};
const whole = (...offers: Offer[]): OfferList => ({ offers, more: false });

const running: Availability[] = [];
afterEach(() => {
  for (const one of running.splice(0)) one.stop();
  vi.useRealTimers();
});
function startWith(providers: readonly Provider[], timing: Partial<Timing> = {}, random = () => 0.5) {
  const told: string[] = [];
  const availability = createAvailability({
    providers,
    clock: { now: () => Date.now(), monotonic: systemClock.monotonic },
    timing: { ...defaultTiming, ...timing },
    events: {
      emit: ({ message }: { message: string }) => void told.push(message),
      recent: () => [],
      subscribe: () => () => {},
    } as never,
    random,
    changed: () => {},
  });
  running.push(availability);
  return { availability, told };
}

test('each market is asked every 30 s with a jitter, and one that fails more and more seldom, up to 5 min', async () => {
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'Date'] });
  let broken = true;
  const vast = marketOf('vast.ai', () => (broken ? down('vast.ai')() : whole(offerOf('vast.ai', 1))));
  const ionet = marketOf('io.net', () => whole(offerOf('io.net', 1)));
  let draw = 0;
  const { availability, told } = startWith([vast.provider, ionet.provider], {}, () => [0, 1][draw++ % 2] as number);
  availability.start();
  await vi.advanceTimersByTimeAsync(0);
  // 30 s, less 15 % and more 15 %; the one that failed already waits twice as long.
  const pause = (name: ProviderName) => (availability.market(name).nextRefreshAt ?? 0) - Date.now();
  expect([pause('vast.ai'), pause('io.net')].sort((a, b) => a - b)).toEqual([34_500, 51_000]);
  await vi.advanceTimersByTimeAsync(3_600_000);
  // In an hour: about 120 times, and twelve.
  expect(ionet.asked.length).toBeGreaterThan(100);
  expect(ionet.asked.length).toBeLessThan(145);
  expect(vast.asked.length).toBeGreaterThan(12);
  expect(vast.asked.length).toBeLessThan(22);
  expect(availability.market('io.net')).toMatchObject({ failing: false, lastError: null });
  expect(availability.market('vast.ai')).toMatchObject({ failing: true, lastError: { code: 'server_error' } });
  // Who asks in between does not make the background wait longer.
  const before = availability.market('vast.ai').nextRefreshAt;
  await availability.offers({});
  expect(availability.market('vast.ai').nextRefreshAt).toBe(before);
  broken = false;
  await vi.advanceTimersByTimeAsync(400_000);
  expect(availability.market('vast.ai').failing).toBe(false);
  expect(pause('vast.ai')).toBeLessThanOrEqual(34_500);
  expect(told).toEqual(['vast.ai: HTTP 503: no', 'vast.ai answers again']);
});

test('a market that was read whole answers filters from what is known; one that was not is asked with the filter, once', async () => {
  const all = Array.from({ length: 10 }, (_, n) => offerOf('io.net', n));
  const ionet = marketOf('io.net', () => whole(...all));
  const rare = offerOf('vast.ai', 999, { gpuModel: 'B200', vramGb: 180 });
  const vast = marketOf('vast.ai', (filter) =>
    filter.gpuModel === undefined
      ? { offers: [offerOf('vast.ai', 1), offerOf('vast.ai', 2)], more: true }
      : { offers: filter.gpuModel === 'B200' ? [rare] : [], more: false },
  );
  const { availability } = startWith([vast.provider, ionet.provider]);
  await availability.refresh();
  expect(availability.market('vast.ai').more).toBe(true);
  expect(await availability.offers({})).toMatchObject({ more: ['vast.ai'], errors: [] });
  expect([vast.asked.length, ionet.asked.length]).toEqual([1, 1]);

  for (let n = 0; n < 3; n++) {
    const { offers, more } = await availability.offers({ gpuModel: 'B200' });
    expect(offers).toEqual([rare]);
    expect(more).toEqual([]);
  }
  expect([vast.asked.length, ionet.asked.length]).toEqual([2, 1]);
  // The same filter in another order is the same question.
  await availability.offers({ gpuModel: 'B200', minVramGb: 80 });
  await availability.offers({ minVramGb: 80, gpuModel: 'B200' });
  expect(vast.asked.length).toBe(3);
});

test('when others have the turns of a market, what is known of it answers, and that is no failure', async () => {
  let turns = 1;
  const vast = marketOf('vast.ai', () => {
    if (turns-- > 0) return { offers: [offerOf('vast.ai', 1), offerOf('vast.ai', 2)], more: true };
    throw new ProviderError('vast.ai', 'rate_limited', 'calls to search wait for their turn, 6 s more', {
      sent: false,
    });
  });
  const { availability, told } = startWith([vast.provider]);
  await availability.refresh();
  expect(await availability.offers({ minVramGb: 80 })).toMatchObject({
    offers: [{ id: '1' }],
    errors: [],
    more: ['vast.ai'],
  });
  expect(availability.market('vast.ai')).toMatchObject({ failing: false, lastError: null });
  expect(told).toEqual([]);
});

test('one market that hangs does not delay the answer of the other for long', async () => {
  const ionet = marketOf('io.net', () => whole(offerOf('io.net', 1)));
  const vast = marketOf('vast.ai', () => new Promise<OfferList>(() => {}));
  const { availability } = startWith([vast.provider, ionet.provider]);
  const began = performance.now();
  const answer = await availability.offers({ gpuCount: 2 });
  expect(performance.now() - began).toBeLessThan(9000);
  expect(answer).toMatchObject({
    offers: [{ provider: 'io.net' }],
    errors: [{ provider: 'vast.ai', code: 'timeout', staleMs: null }],
    more: ['vast.ai'],
  });
});

test('a market that is well but slow to answer a filter is answered for by what is known of it', async () => {
  const ionet = marketOf('io.net', () => whole(offerOf('io.net', 1)));
  const vast = marketOf('vast.ai', (filter) =>
    filter.minVramGb === undefined
      ? { offers: [offerOf('vast.ai', 1), offerOf('vast.ai', 2)], more: true }
      : new Promise<OfferList>(() => {}),
  );
  const { availability } = startWith([vast.provider, ionet.provider]);
  await availability.refresh();
  const answer = await availability.offers({ minVramGb: 80 });
  expect(answer).toMatchObject({ offers: [{ id: '1' }, { id: '1' }], errors: [], more: ['vast.ai'] });
});

test('old data are shown with their age', async () => {
  let broken = false;
  const vast = marketOf('vast.ai', () => (broken ? down('vast.ai')() : whole(offerOf('vast.ai', 1))));
  const { availability } = startWith([vast.provider], { offersFreshMs: 0 });
  await availability.refresh();
  broken = true;
  await sleep(60);
  const answer = await until('an error', async () => {
    const one = await availability.offers({});
    return one.errors.length > 0 ? one : null;
  });
  expect(answer.offers).toHaveLength(1);
  expect(answer.errors[0]?.staleMs).toBeGreaterThanOrEqual(50);
});

test('the latency of a provider is what its API took, not what was waited for a turn or for several calls', async () => {
  const { provider } = marketOf('vast.ai', async () => {
    await sleep(300);
    return whole(offerOf('vast.ai', 1));
  });
  const stats = { calls: 4, retries: 0, rateLimited: 0, skippedRows: 0, answeredMs: 41.6 };
  const { availability } = startWith([{ ...provider, stats: () => stats }]);
  await availability.refresh();
  expect(availability.market('vast.ai').latencyMs).toBe(42);
  stats.answeredMs = 12;
  await availability.offers({ gpuModel: 'H100', gpuCount: 2 });
  expect(availability.market('vast.ai').latencyMs).toBe(12);
});
