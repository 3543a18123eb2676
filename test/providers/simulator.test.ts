import { describe, expect, it } from 'vitest';
import type { Offer, ProviderInstance, RentSpec } from '../../src/core/domain.ts';
import { createIonet } from '../../src/providers/ionet.ts';
import type { Provider } from '../../src/providers/provider.ts';
import { createVast } from '../../src/providers/vast.ts';
import { type Simulator, startSimulator } from '../../src/sim/simulator.ts';
import { errorOf } from './scripted-server.ts';

let labels = 0;

/** A simulator and both clients, for one test alone: all of them run side by side. */
async function createStage() {
  const sim = await startSimulator({
    seed: 7,
    offers: { vast: 300, ionet: 60 },
    bootMs: { min: 120, max: 200 },
    credit: { vast: 10_000, ionet: 10_000 },
    speed: 20,
  });
  const options = { instancePort: 8000, pace: 0, maxOffers: 1000 };
  const vast: Provider = createVast({ ...options, apiKey: sim.vastKey, baseUrl: sim.vastUrl });
  const ionet: Provider = createIonet({ ...options, apiKey: sim.ionetKey, baseUrl: sim.ionetUrl });
  return {
    sim,
    vast,
    ionet,
    async [Symbol.asyncDispose]() {
      await Promise.all([vast.close?.(), ionet.close?.()]);
      await sim.close();
    },
  };
}

const both = [
  ['vast.ai', 'vast'],
  ['io.net', 'ionet'],
] as const;

const specOf = (rest: Partial<RentSpec> = {}): RentSpec => ({
  label: `gpuproxy-test-${++labels}`,
  image: 'vllm/vllm-openai:latest',
  diskGb: 40,
  env: { HF_TOKEN: 'x', MODE: 'fast' },
  onstart: null,
  args: ['--port', '8000'],
  ports: [8000],
  maxBidUsdPerHour: null,
  durationHours: 1,
  maxUsdPerHour: null,
  ...rest,
});
const cheapest = async (provider: Provider, skip = 0): Promise<Offer> => {
  const found = (await provider.offers({})).offers;
  const offer = found[skip];
  if (!offer) throw new Error('the simulator has no offers');
  return offer;
};
const rented = async (provider: Provider, rest: Partial<RentSpec> = {}) => {
  const spec = specOf(rest);
  const result = await provider.rent(await cheapest(provider), spec);
  if (!result.ok) throw new Error(`not rented: ${result.detail}`);
  return { contract: result.contract, label: spec.label };
};
const rowOf = async (provider: Provider, contract: string) =>
  (await provider.list()).find((row) => row.contract === contract);
/** Polls the list until the row is as wanted. */
const until = async (
  provider: Provider,
  contract: string,
  wanted: (row: ProviderInstance | undefined) => boolean,
): Promise<ProviderInstance | undefined> => {
  const deadline = performance.now() + 10_000;
  for (;;) {
    const row = await rowOf(provider, contract);
    if (wanted(row)) return row;
    if (performance.now() > deadline) throw new Error(`still ${JSON.stringify(row)}`);
    await new Promise((resolve) => setTimeout(resolve, 30));
  }
};
const paidCalls = (sim: Simulator, name: 'vast' | 'ionet') =>
  sim.calls().filter((call) => call.provider === name && call.route === 'rent').length;

describe.concurrent.each(both)('%s from offer to end', (_, name) => {
  it('lists, rents, boots, serves, shows its logs and is destroyed, twice', async () => {
    await using stage = await createStage();
    const { sim, [name]: provider } = stage;
    const offers = (await provider.offers({ minVramGb: 24, maxUsdPerHour: 5, gpuCount: 1 })).offers;
    expect(offers.length).toBeGreaterThan(0);
    for (const offer of offers) {
      expect(offer.vramGb).toBeGreaterThanOrEqual(24);
      expect(offer.usdPerHour).toBeLessThanOrEqual(5);
      expect(offer.gpuCount).toBe(1);
    }
    expect(offers).toEqual([...offers].sort((a, b) => a.usdPerHour - b.usdPerHour));

    const offer = offers[0] as Offer;
    const spec = specOf();
    sim.faults.add({ kind: 'slow_boot', factor: 4, times: 1 });
    const result = await provider.rent(offer, spec);
    expect(result).toMatchObject({ ok: true });
    const contract = (result as { contract: string }).contract;
    const first = await rowOf(provider, contract);
    expect(first).toMatchObject({ label: spec.label, phase: 'booting', origin: null });
    const row = await until(provider, contract, (it) => it?.phase === 'running');
    expect(row).toMatchObject({ gpuModel: offer.gpuModel, gpuCount: 1, vramGb: offer.vramGb });
    expect(row?.usdPerHour).toBeCloseTo(offer.usdPerHour, 2);
    expect(row?.startedAt).toBeGreaterThan(Date.now() - 60_000);

    // Listening comes a little after running.
    const deadline = performance.now() + 10_000;
    let status = 0;
    while (status !== 200 && performance.now() < deadline) {
      status = await fetch(`${row?.origin}/health`).then(
        (response) => response.status,
        () => 0,
      );
      if (status !== 200) await new Promise((resolve) => setTimeout(resolve, 30));
    }
    expect(status).toBe(200);
    expect((await provider.logs?.(contract, { tail: 5 }))?.length).toBeGreaterThan(0);

    await provider.destroy(contract);
    await until(provider, contract, (it) => it === undefined || it.phase === 'ended');
    await provider.destroy(contract);
    expect(sim.ledger().filter((entry) => entry.label === spec.label)).toHaveLength(1);
  });

  it('reports a wrong key as such, on every call', async () => {
    await using stage = await createStage();
    const { sim, [name]: provider } = stage;
    const create = name === 'vast' ? createVast : createIonet;
    const baseUrl = name === 'vast' ? sim.vastUrl : sim.ionetUrl;
    const stranger = create({ apiKey: 'wrong-key-123', baseUrl, instancePort: 8000, pace: 0 });
    const offer = await cheapest(provider);
    for (const error of [await errorOf(stranger.offers({})), await errorOf(stranger.list())]) {
      expect(error).toMatchObject({ code: 'auth' });
      expect(error.message).not.toContain('wrong-key-123');
    }
    const refused = await stranger.rent(offer, specOf());
    expect(refused).toMatchObject({ ok: false, reason: 'rejected' });
    await stranger.close?.();
  });

  it('answers gone for an offer that is still listed', async () => {
    await using stage = await createStage();
    const { sim, [name]: provider } = stage;
    sim.faults.add({ kind: 'stale_offers', times: 1 });
    expect(await provider.rent(await cheapest(provider), specOf())).toMatchObject({ ok: false, reason: 'gone' });
  });

  it('answers no_credit when there is none', async () => {
    await using stage = await createStage();
    const { sim, [name]: provider } = stage;
    const offer = await cheapest(provider);
    sim.faults.add({ kind: 'credit', provider: name, usd: 0.001 });
    const result = await provider.rent(offer, specOf());
    expect(result).toMatchObject({ ok: false, reason: 'no_credit' });
  });

  it.each(['reset', 'error', 'truncate', 'hang'] as const)(
    'answers unknown when the rental happened and the answer was lost by %s, and finds it by its label',
    async (how) => {
      await using stage = await createStage();
      const { sim, [name]: provider } = stage;
      const offer = await cheapest(provider);
      sim.faults.add({ kind: 'lose_answer', how, provider: name, times: 1 });
      const spec = specOf();
      const before = paidCalls(sim, name);
      const hanging = how === 'hang' ? AbortSignal.timeout(1500) : undefined;
      expect(await provider.rent(offer, spec, hanging)).toMatchObject({ ok: false, reason: 'unknown' });
      expect(paidCalls(sim, name) - before).toBe(1);
      const found = (await provider.list()).filter((row) => row.label === spec.label);
      expect(found).toHaveLength(1);
      await provider.destroy(found[0]?.contract ?? '');
    },
  );

  it('survives what gateways do between it and its reads', async () => {
    await using stage = await createStage();
    const { sim, [name]: provider } = stage;
    for (const fault of [
      { kind: 'error', status: 502, route: 'list', times: 1 },
      { kind: 'reset', route: 'list', times: 1 },
      { kind: 'rate_limit', route: 'list', times: 1 },
    ] as const) {
      sim.faults.add({ ...fault, provider: name });
      expect(Array.isArray(await provider.list())).toBe(true);
    }
    for (const how of ['html', 'empty', 'truncate', 'wrong_shape'] as const) {
      sim.faults.add({ kind: 'garbage', how, route: 'list', provider: name });
      expect((await errorOf(provider.list())).name).toBe('ProviderError');
      sim.faults.clear();
    }
  });

  it('says that an instance exited', async () => {
    await using stage = await createStage();
    const { sim, [name]: provider } = stage;
    const { contract } = await rented(provider);
    await until(provider, contract, (row) => row?.phase === 'running');
    sim.faults.add({ kind: 'exit', instance: contract });
    expect(await until(provider, contract, (row) => row?.phase !== 'running')).toMatchObject({
      phase: 'failed',
      origin: null,
    });
    await provider.destroy(contract);
  });
});

describe.concurrent('vast.ai', () => {
  it('finds every offer of a market larger than a page, and more memory classes than the cheapest', async () => {
    await using stage = await createStage();
    const { sim, vast } = stage;
    const found = (await vast.offers({})).offers;
    expect(found.length).toBeGreaterThan(200);
    expect(new Set(found.map((offer) => offer.id)).size).toBe(found.length);
    expect(Math.min(...found.map((offer) => offer.vramGb))).toBeLessThan(24);
    expect(Math.max(...found.map((offer) => offer.vramGb))).toBeGreaterThanOrEqual(80);
    expect(found.length).toBeLessThanOrEqual(sim.rentable().vast);
  });

  it('checks again what a server that ignores comparisons answers', async () => {
    await using stage = await createStage();
    const { sim, vast } = stage;
    sim.faults.add({ kind: 'sloppy_filters' });
    for (const offer of (await vast.offers({ minVramGb: 40, maxUsdPerHour: 1 })).offers) {
      expect(offer.vramGb).toBeGreaterThanOrEqual(40);
      expect(offer.usdPerHour).toBeLessThanOrEqual(1);
    }
  });

  it('leads away the contract of a bid that was too low', async () => {
    await using stage = await createStage();
    const { vast } = stage;
    const result = await vast.rent(await cheapest(vast), specOf({ maxBidUsdPerHour: 0.001 }));
    expect(result).toMatchObject({ ok: false, reason: 'rejected' });
    const leaked = (result as { leaked?: string }).leaked ?? '';
    expect(await rowOf(vast, leaked)).toMatchObject({ phase: 'stopped', interruptible: true });
    await vast.destroy(leaked);
    expect(await rowOf(vast, leaked)).toBeUndefined();
  });

  it('says when an interruptible instance was outbid', async () => {
    await using stage = await createStage();
    const { sim, vast } = stage;
    const offer = await cheapest(vast);
    const { contract } = await rented(vast, { maxBidUsdPerHour: (offer.minBidUsdPerHour ?? 0) * 3 + 0.5 });
    const running = await until(vast, contract, (row) => row?.phase === 'running');
    expect(running).toMatchObject({ interruptible: true, outbid: false });
    sim.faults.add({ kind: 'outbid', instance: contract });
    expect(await until(vast, contract, (row) => row?.phase !== 'running')).toMatchObject({
      phase: 'stopped',
      outbid: true,
    });
    await vast.destroy(contract);
  });

  it.each(['pull_error', 'oci_error'] as const)('says that a start failed: %s', async (how) => {
    await using stage = await createStage();
    const { sim, vast } = stage;
    sim.faults.add({ kind: 'never_healthy', how, provider: 'vast', times: 1 });
    const { contract } = await rented(vast);
    const row = await until(vast, contract, (it) => it?.phase === 'failed');
    expect(row?.detail).toMatch(/manifest unknown|OCI runtime/);
    await vast.destroy(contract);
  });

  it('says that a machine went offline', async () => {
    await using stage = await createStage();
    const { sim, vast } = stage;
    const { contract } = await rented(vast);
    await until(vast, contract, (row) => row?.phase === 'running');
    sim.faults.add({ kind: 'offline', instance: contract });
    expect(await until(vast, contract, (row) => row?.phase !== 'running')).toMatchObject({ phase: 'failed' });
    await vast.destroy(contract);
  });

  it('lists more instances than a page holds', async () => {
    await using stage = await createStage();
    const { vast } = stage;
    const offers = (await vast.offers({ gpuCount: 1 })).offers.slice(0, 30);
    const contracts: string[] = [];
    for (const offer of offers) {
      const result = await vast.rent(offer, specOf());
      if (result.ok) contracts.push(result.contract);
    }
    expect(contracts).toHaveLength(30);
    const listed = new Set((await vast.list()).map((row) => row.contract));
    expect(contracts.filter((contract) => !listed.has(contract))).toEqual([]);
    await Promise.all(contracts.map((contract) => vast.destroy(contract)));
  });

  it('has a balance in dollars', async () => {
    await using stage = await createStage();
    const { vast } = stage;
    expect(await vast.balance?.()).toBeGreaterThan(9000);
  });
});

describe.concurrent('io.net', () => {
  it('never offers more than there is, and knows the memory of every card', async () => {
    await using stage = await createStage();
    const { sim, ionet } = stage;
    const found = (await ionet.offers({})).offers;
    expect(found.reduce((sum, offer) => sum + offer.available, 0)).toBeLessThanOrEqual(sim.rentable().ionet);
    expect(found.filter((offer) => offer.vramGb === 0)).toEqual([]);
    expect(found.every((offer) => offer.prepaidHours === 1)).toBe(true);
  });

  it('answers unknown to a label that is taken, so that the earlier rental is found', async () => {
    await using stage = await createStage();
    const { ionet } = stage;
    const { contract, label } = await rented(ionet);
    expect(await ionet.rent(await cheapest(ionet), specOf({ label }))).toMatchObject({ ok: false, reason: 'unknown' });
    await ionet.destroy(contract);
  });

  it('buys more time', async () => {
    await using stage = await createStage();
    const { ionet } = stage;
    const { contract } = await rented(ionet, { durationHours: 2 });
    const before = await until(ionet, contract, (row) => row?.expiresAt != null && row.phase === 'running');
    await ionet.extend?.(contract, 3);
    const after = await rowOf(ionet, contract);
    expect(((after?.expiresAt ?? 0) - (before?.expiresAt ?? 0)) / 3_600_000).toBeCloseTo(3, 1);
    expect(after?.usdPerHour).toBeCloseTo(before?.usdPerHour ?? 0, 3);
    await ionet.destroy(contract);
  });

  it('ends when its prepaid time is over', async () => {
    await using stage = await createStage();
    const { sim, ionet } = stage;
    const { contract } = await rented(ionet);
    await until(ionet, contract, (row) => row?.phase === 'running');
    sim.faults.add({ kind: 'expire', instance: contract });
    await until(ionet, contract, (row) => row === undefined || row.phase === 'ended');
  });

  it('is on its way out for a while after it was destroyed', async () => {
    await using stage = await createStage();
    const { ionet } = stage;
    const { contract } = await rented(ionet);
    await ionet.destroy(contract);
    expect(await rowOf(ionet, contract)).toMatchObject({ phase: 'stopped', detail: 'termination requested' });
    await until(ionet, contract, (row) => row === undefined || row.phase === 'ended');
  });

  it('does not buy at a price that has risen since it was offered', async () => {
    await using stage = await createStage();
    const { sim, ionet } = stage;
    const offer = await cheapest(ionet);
    sim.faults.add({ kind: 'reprice', provider: 'ionet', factor: 1.5 });
    const result = await ionet.rent(offer, specOf());
    expect(result).toMatchObject({ ok: false, reason: 'price_risen' });
  });
});

describe('at the documented limits of vast.ai', () => {
  it('never comes too early', async () => {
    await using strict = await startSimulator({ rateLimit: 0.01, offers: { vast: 20, ionet: 1 }, speed: 20 });
    const client = createVast({ apiKey: strict.vastKey, baseUrl: strict.vastUrl, instancePort: 8000, pace: 0.1 });
    const offers = (await client.offers({ gpuCount: 1 })).offers;
    const results = await Promise.all(offers.slice(0, 4).map((offer) => client.rent(offer, specOf())));
    const contracts = results.flatMap((result) => (result.ok ? [result.contract] : []));
    expect(contracts).toHaveLength(4);
    await Promise.all([client.list(), client.list(), client.balance?.()]);
    await Promise.all(contracts.map((contract) => client.destroy(contract)));
    // Searches come in bursts until one is refused: whether they may is documented both ways.
    expect(strict.calls().filter((call) => call.status === 429 && call.route !== 'search')).toEqual([]);
    await client.close?.();
  });

  it('gets through although the limits are stricter than it knows', async () => {
    await using strict = await startSimulator({ rateLimit: 0.05, offers: { vast: 20, ionet: 1 }, speed: 20 });
    const client = createVast({ apiKey: strict.vastKey, baseUrl: strict.vastUrl, instancePort: 8000, pace: 0.03 });
    for (let n = 0; n < 3; n++) expect(await client.list()).toEqual([]);
    expect(new Set((await client.offers({})).offers.map((offer) => offer.vramGb)).size).toBeGreaterThan(2);
    expect(strict.calls().filter((call) => call.status === 429).length).toBeGreaterThan(0);
    await client.close?.();
  });
});
