import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { type Offer, strategyNames } from '../../src/core/domain.ts';
import { chooseOffers, matchesFilter, type ProviderLoad, usdPerGpuHour } from '../../src/core/offers.ts';
import { nominalVramGb, weightOf } from '../../src/core/weight.ts';

const offer = (fields: Partial<Offer> & { id: string }): Offer => ({
  provider: 'vast.ai',
  gpuModel: 'RTX 4090',
  gpuCount: 1,
  vramGb: 24,
  usdPerHour: 0.5,
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
const load = (fields: Partial<ProviderLoad>): ProviderLoad => ({
  active: 0,
  total: 0,
  avgMs: null,
  lastUsed: null,
  ...fields,
});
const vast = [0.3, 0.4, 0.5].map((usdPerHour, i) => offer({ id: `v${i}`, usdPerHour }));
const ionet = [0.6, 0.7].map((usdPerHour, i) => offer({ id: `i${i}`, provider: 'io.net', usdPerHour }));
const ids = (offers: Iterable<Offer>) => [...offers].map((o) => o.id);

describe('choosing offers', () => {
  test('round robin alternates between providers, beginning with the one used longest ago, cheapest first', () => {
    const loads = { 'vast.ai': load({ lastUsed: 9 }), 'io.net': load({ lastUsed: 4 }) };
    const chosen = chooseOffers({ offers: [...vast, ...ionet], strategy: 'round_robin', loads, balancing: true });
    expect(ids(chosen)).toEqual(['i0', 'v0', 'i1', 'v1', 'v2']);
  });

  test('least_connections takes where the fewest are rented, and each taken counts', () => {
    const loads = { 'vast.ai': load({ active: 2 }), 'io.net': load({ active: 1 }) };
    const chosen = chooseOffers({ offers: [...vast, ...ionet], strategy: 'least_connections', loads, balancing: true });
    expect(ids(chosen)).toEqual(['i0', 'v0', 'i1', 'v1', 'v2']);
  });

  test('equal_weighted goes by rentals ever', () => {
    const loads = { 'vast.ai': load({ total: 10, active: 0 }), 'io.net': load({ total: 8, active: 5 }) };
    const chosen = chooseOffers({ offers: [...vast, ...ionet], strategy: 'equal_weighted', loads, balancing: true });
    expect(ids(chosen)).toEqual(['i0', 'i1', 'v0', 'v1', 'v2']);
  });

  test('weighted_round_robin takes the powerful ones first', () => {
    const big = offer({ id: 'big', vramGb: 80, usdPerHour: 1.99 });
    const chosen = chooseOffers({
      offers: [...vast, big],
      strategy: 'weighted_round_robin',
      loads: {},
      balancing: true,
    });
    expect(ids(chosen)[0]).toBe('big');
  });

  test('least_response_time prefers the faster provider until it holds too many', () => {
    const loads = { 'vast.ai': load({ avgMs: 300, active: 0 }), 'io.net': load({ avgMs: 100, active: 1 }) };
    const chosen = chooseOffers({
      offers: [...vast, ...ionet],
      strategy: 'least_response_time',
      loads,
      balancing: true,
    });
    expect(ids(chosen)).toEqual(['i0', 'v0', 'i1', 'v1', 'v2']);
  });

  test('switched off it takes the cheapest, by GPU-hour', () => {
    const two = offer({ id: 'two', gpuCount: 2, usdPerHour: 0.5 });
    const chosen = chooseOffers({
      offers: [...ionet, ...vast, two],
      strategy: 'round_robin',
      loads: {},
      balancing: false,
    });
    expect(ids(chosen)).toEqual(['two', 'v0', 'v1', 'v2', 'i0', 'i1']);
  });

  test('one that is gone counts for nothing and is not offered again', () => {
    const pooled = offer({ id: 'pool', provider: 'io.net', available: 3 });
    const chosen = chooseOffers({
      offers: [...vast, pooled],
      strategy: 'least_connections',
      loads: {},
      balancing: true,
    });
    expect(chosen.next().value?.id).toBe('v0');
    expect(chosen.next().value?.id).toBe('pool');
    expect(chosen.next('gone').value?.id).toBe('v1');
    expect(chosen.next().value?.id).toBe('v2');
    expect(chosen.next().done).toBe(true);
  });

  test('a provider whose offer was gone keeps its turn in round robin', () => {
    const chosen = chooseOffers({ offers: [...vast, ...ionet], strategy: 'round_robin', loads: {}, balancing: true });
    expect(chosen.next().value?.id).toBe('v0');
    expect(chosen.next('gone').value?.id).toBe('v1');
    expect(chosen.next().value?.id).toBe('i0');
    expect(chosen.next('gone').value?.id).toBe('i1');
    expect(chosen.next().value?.id).toBe('v2');
  });

  test('every instance in stock is offered exactly once, whatever the strategy', () => {
    const stock = fc.array(fc.tuple(fc.integer({ min: 0, max: 4 }), fc.integer({ min: 1, max: 300 }), fc.boolean()), {
      maxLength: 12,
    });
    fc.assert(
      fc.property(stock, fc.constantFrom(...strategyNames), fc.boolean(), (rows, strategy, balancing) => {
        const offers = rows.map(([available, cents, io], i) =>
          offer({ id: `o${i}`, available, usdPerHour: cents / 100, provider: io ? 'io.net' : 'vast.ai' }),
        );
        const taken = ids(chooseOffers({ offers, strategy, loads: {}, balancing }));
        return offers.every((o) => taken.filter((id) => id === o.id).length === o.available);
      }),
    );
  });
});

describe('filters', () => {
  const it = offer({ id: 'x', gpuModel: 'RTX 4090', vramGb: 24, usdPerHour: 0.79, gpuCount: 2 });
  test.each([
    [{}, true],
    [{ minVramGb: 24 }, true],
    [{ minVramGb: 25 }, false],
    [{ maxUsdPerHour: 0.79 }, true],
    [{ maxUsdPerHour: 0.78 }, false],
    [{ gpuModel: 'rtx_4090' }, true],
    [{ gpuModel: '4090' }, true],
    [{ gpuModel: 'A100' }, false],
    [{ location: 'se' }, true],
    [{ location: 'sweden' }, true],
    [{ location: 'DE' }, false],
    [{ location: 'wed' }, true],
    [{ provider: 'io.net' as const }, false],
    [{ gpuCount: 2 }, true],
    [{ gpuCount: 1 }, false],
    [{ verified: true }, true],
    [{ verified: false }, false],
  ])('%j gives %s', (filter, expected) => {
    expect(matchesFilter(it, filter)).toBe(expected);
  });

  test('an offer whose location is not known is in no particular place', () => {
    expect(matchesFilter(offer({ id: 'y', location: null, countryCode: null }), { location: 'SE' })).toBe(false);
    expect(usdPerGpuHour(it)).toBeCloseTo(0.395);
  });
});

describe('weight', () => {
  test.each([
    [80, 1, 1.99, 3],
    [80, 1, 0.99, 3.6],
    [40, 1, 1.5, 2],
    [48, 1, 0.5, 2.4],
    [24, 1, 1, 1.5],
    [24, 1, 0.79, 1.8],
    [23, 1, 2, 1],
    [16, 1, 0.2, 1.2],
    [24, 4, 3.2, 7.2],
    [80, 8, 27.8753, 24],
  ])('%i GB × %i at %f USD per hour weighs %f', (vramGb, gpuCount, usdPerHour, expected) => {
    expect(weightOf({ vramGb, gpuCount, usdPerHour })).toBe(expected);
  });

  test.each([
    [24_564, 24],
    [24_576, 24],
    [23_028, 24],
    [81_559, 80],
    [81_251, 80],
    [81_920, 80],
    [40_960, 40],
    [49_140, 48],
    [46_068, 48],
    [15_360, 16],
    [16_376, 16],
    [12_288, 12],
    [143_771, 141],
    [183_359, 180],
    [22_528, 22],
  ])('%i MB is a card of %i GB', (megabytes, gb) => {
    expect(nominalVramGb(megabytes / 1024)).toBe(gb);
  });
});
