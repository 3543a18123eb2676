import { describe, expect, it } from 'vitest';
import type { Offer, RentSpec } from '../../src/core/domain.ts';
import type { ProviderOptions } from '../../src/providers/index.ts';
import { createVast } from '../../src/providers/vast.ts';
import { errorOf, type Recorded, type Script, type Scripted, startScripted } from './scripted-server.ts';

const key = 'vast-secret-key';

async function vastOf(script: Script, options: Partial<ProviderOptions> = {}) {
  const server = await startScripted(script);
  const vast = createVast({ apiKey: key, baseUrl: server.url, instancePort: 8000, pace: 0, ...options });
  return {
    server,
    vast,
    async [Symbol.asyncDispose]() {
      await vast.close?.();
      await server[Symbol.asyncDispose]();
    },
  };
}

/** Answers of search; gpu names are told apart by their path. */
const searching =
  (page: (body: Record<string, { gte?: number; lt?: number; lte?: number; gt?: number }>) => unknown[]): Script =>
  (request) =>
    request.path.includes('gpu_names')
      ? { body: { gpu_names: ['RTX 4090', 'RTX 4090 D', 'H100 SXM', 'RTX 3060'] } }
      : { body: { offers: page(request.body as never) } };

const row = (id: number, rest: object = {}) => ({
  id,
  num_gpus: 1,
  gpu_name: 'RTX 4090',
  gpu_ram: 24564,
  dph_total: 0.3,
  dph_base: 0.28,
  storage_cost: 0.36,
  direct_port_count: 10,
  geolocation: 'Sweden, SE',
  reliability2: 0.99,
  verification: 'verified',
  rentable: true,
  rented: false,
  machine_id: 77,
  disk_space: 400.5,
  min_bid: 0.1,
  ...rest,
});

const offer: Offer = {
  provider: 'vast.ai',
  id: '21000001',
  gpuModel: 'RTX 4090',
  gpuCount: 1,
  vramGb: 24,
  usdPerHour: 0.3,
  location: 'Sweden, SE',
  countryCode: 'SE',
  reliability: 0.99,
  verified: true,
  available: 1,
  minBidUsdPerHour: 0.1,
  prepaidHours: null,
  diskGb: 400,
  storage: { usdPerGbHour: 0.0005, pricedGb: 40 },
  machineId: '77',
};
const spec: RentSpec = {
  label: 'gpuproxy-1',
  image: 'vllm/vllm-openai:latest',
  diskGb: 40,
  env: { FOO: 'bar' },
  onstart: null,
  args: null,
  ports: [8000],
  maxBidUsdPerHour: null,
  durationHours: 1,
  maxUsdPerHour: null,
};

/** At most 64 rows from a price on. */
const pagedByPrice = (market: readonly ReturnType<typeof row>[]): Script =>
  searching((body) =>
    market
      .filter((one) => one.dph_total >= (body.dph_total?.gte ?? 0) && one.dph_total > (body.dph_total?.gt ?? 0))
      .slice(0, 64),
  );

describe.concurrent('a search', () => {
  it('asks for what can serve, priced with the disk, cheapest first, in each class of memory', async () => {
    await using it = await vastOf(searching(() => []));
    (await it.vast.offers({})).offers;
    expect(it.server.requests.map((request) => `${request.method} ${request.path}`)).toEqual(
      Array(4).fill('POST /api/v0/bundles/'),
    );
    expect(it.server.requests[0]?.body).toEqual({
      rentable: { eq: true },
      external: { eq: false },
      rented: { eq: false },
      direct_port_count: { gte: 1 },
      gpu_ram: { lt: 22732 },
      type: 'on-demand',
      order: [['dph_total', 'asc']],
      limit: 64,
      allocated_storage: 40,
    });
    expect(it.server.requests.map((request) => (request.body as { gpu_ram: object }).gpu_ram)).toEqual([
      { lt: 22732 },
      { gte: 22732, lt: 37888 },
      { gte: 37888, lt: 75776 },
      { gte: 75776 },
    ]);
    expect(it.server.requests[0]?.headers.authorization).toBe(`Bearer ${key}`);
  });

  it('puts what it can of the filter into the query and checks all of it again', async () => {
    await using it = await vastOf(
      searching(() => [
        row(1),
        row(2, { dph_total: 9 }),
        row(3, { gpu_ram: 12282 }),
        row(4, { num_gpus: 2 }),
        row(5, { geolocation: 'Texas, US' }),
        row(6, { gpu_name: 'RTX 3060' }),
        row(7, { verification: 'unverified' }),
        row(8, { direct_port_count: 0 }),
        row(9, { rented: true }),
        row(10, { rentable: false }),
        row(11, { resource_type: 'disk' }),
        row(12, { num_gpus: 0 }),
      ]),
    );
    const found = (
      await it.vast.offers({
        minVramGb: 24,
        maxUsdPerHour: 1,
        gpuModel: 'rtx_4090',
        gpuCount: 1,
        location: 'se',
        verified: true,
      })
    ).offers;
    expect(found.map((one) => one.id)).toEqual(['1']);
    expect(it.server.requests.at(-1)?.body).toMatchObject({
      gpu_name: { in: ['RTX 4090', 'RTX 4090 D'] },
      num_gpus: { eq: 1 },
      dph_total: { lte: 1 },
      gpu_ram: { gte: 22732 },
      geolocation: { in: ['SE'] },
      verified: { eq: true },
    });
  });

  it('reads an offer into our words and units', async () => {
    await using it = await vastOf(searching((body) => (body.gpu_ram?.lt ? [] : [row(5, { gpu_ram: 81559 })])));
    expect((await it.vast.offers({})).offers).toEqual([
      {
        provider: 'vast.ai',
        id: '5',
        gpuModel: 'RTX 4090',
        gpuCount: 1,
        vramGb: 80,
        usdPerHour: 0.3,
        location: 'Sweden, SE',
        countryCode: 'SE',
        reliability: 0.99,
        verified: true,
        available: 1,
        minBidUsdPerHour: 0.1,
        prepaidHours: null,
        diskGb: 400.5,
        storage: { usdPerGbHour: 0.0005, pricedGb: 40 },
        machineId: '77',
      },
    ]);
  });

  it.each([
    [24564, 24],
    [24576, 24],
    [23028, 24],
    [81559, 80],
    [81251, 80],
    [46068, 48],
    [49140, 48],
    [183359, 180],
    [15360, 16],
    [32607, 32],
    [143771, 141],
    [12288, 12],
    [11264, 11],
  ])('knows %i MB as a card of %i GB', async (gpuRam, vramGb) => {
    await using it = await vastOf(searching(() => [row(1, { gpu_ram: gpuRam })]));
    expect((await it.vast.offers({})).offers[0]?.vramGb).toBe(vramGb);
  });

  it('survives nulls everywhere but in the essentials, and counts the rows it cannot read', async () => {
    const nulls = { geolocation: null, reliability2: null, verification: null, machine_id: null, disk_space: null };
    await using it = await vastOf(
      searching((body) =>
        body.gpu_ram?.gte
          ? []
          : [
              row(1, { ...nulls, min_bid: null, dph_base: null, storage_cost: null, rented: null, rentable: null }),
              row(2, { ...nulls, geolocation: 12, verification: {}, num_gpus: '2', dph_total: '0.5' }),
              row(3, { gpu_name: null }),
              row(4, { dph_total: 'free' }),
              { nothing: true },
              null,
              'row',
            ],
      ),
    );
    const found = (await it.vast.offers({})).offers;
    expect(found.map((one) => [one.id, one.gpuCount, one.usdPerHour, one.location])).toEqual([
      ['1', 1, 0.3, null],
      ['2', 2, 0.5, null],
    ]);
    expect(it.vast.stats?.().skippedRows).toBe(5);
  });

  it('pages by price past the 64 that one answer holds, and drops what comes twice', async () => {
    const market = Array.from({ length: 200 }, (_, n) => row(n, { dph_total: 0.1 + Math.floor(n / 3) / 100 }));
    await using it = await vastOf(pagedByPrice(market), { maxOffers: 1000 });
    const found = (await it.vast.offers({ gpuModel: '4090' })).offers;
    expect(new Set(found.map((one) => one.id)).size).toBe(200);
    expect(found).toHaveLength(200);
    expect(found).toEqual([...found].sort((a, b) => a.usdPerHour - b.usdPerHour));
  });

  it('gets past a price that more than a page of offers have', async () => {
    const market = Array.from({ length: 150 }, (_, n) => row(n, { dph_total: n < 130 ? 0.2 : 0.4 }));
    await using it = await vastOf(pagedByPrice(market), { maxOffers: 1000 });
    const found = (await it.vast.offers({ gpuModel: '4090' })).offers;
    expect(found.filter((one) => one.usdPerHour === 0.4)).toHaveLength(20);
    expect(it.server.requests.length).toBeLessThan(8);
  });

  it('ends although the server ignores what the pages ask for', async () => {
    const market = Array.from({ length: 64 }, (_, n) => row(n, { dph_total: 0.2 + n / 100 }));
    await using it = await vastOf(
      searching(() => market),
      { maxOffers: 10_000 },
    );
    expect((await it.vast.offers({})).offers).toHaveLength(64);
    expect(it.server.requests.length).toBeLessThan(20);
  });

  it('keeps what it has when a later page fails, and fails when the first does', async () => {
    const market = Array.from({ length: 100 }, (_, n) => row(n, { dph_total: 0.2 + n / 100 }));
    await using it = await vastOf(
      (request) =>
        request.path.includes('gpu_names')
          ? { status: 500, body: '' }
          : (request.body as { dph_total?: { gte?: number } }).dph_total?.gte
            ? { status: 400, body: { error: 'invalid_request', msg: 'no' } }
            : { body: { offers: market.slice(0, 64) } },
      { maxOffers: 10_000 },
    );
    expect((await it.vast.offers({ gpuModel: '4090' })).offers).toHaveLength(64);
    await using bad = await vastOf(() => ({
      status: 400,
      body: { error: 'invalid_request', msg: 'Invalid json body' },
    }));
    expect(await errorOf(bad.vast.offers({}))).toMatchObject({ code: 'rejected' });
  });

  it.each([
    [404, { success: false, error: 'auth_error', msg: 'Invalid user key' }],
    [401, { success: false, error: 'auth_error', msg: 'Invalid user key' }],
    [200, { success: false, error: 'auth_error', msg: 'Invalid user key' }],
    [403, { msg: 'Invalid user key' }],
  ])('knows a refused key, also when it comes as HTTP %i', async (status, body) => {
    await using it = await vastOf(() => ({ status, body }));
    const error = await errorOf(it.vast.offers({}));
    expect(error).toMatchObject({ code: 'auth' });
    expect(error.message).not.toContain(key);
  });

  it('shows the classes of cards that it cannot ask for in time as it saw them last', async () => {
    await using it = await vastOf(
      (request) => ({ body: { offers: [row((request.body as { gpu_ram: { gte?: number } }).gpu_ram.gte ?? 1)] } }),
      // A turn every 30 s, and half a second to wait for one.
      { pace: 5, patience: 0.05 },
    );
    expect((await it.vast.offers({})).offers).toHaveLength(4);
    expect((await it.vast.offers({})).offers).toHaveLength(4);
    expect(it.server.requests).toHaveLength(8);
    // Two calls of the burst of ten are left.
    expect((await it.vast.offers({})).offers).toHaveLength(4);
    expect(it.server.requests).toHaveLength(10);
    expect(await errorOf(it.vast.offers({}))).toMatchObject({ code: 'rate_limited', sent: false });
  });

  /** A market whose offers cost a cent more each, of one class of memory; with what is asked of it. */
  const marketOf = (ids: readonly number[]) => ids.map((n) => row(n, { dph_total: 0.1 + n / 100 }));

  it('reads no more than the rate limit lets it, says so, and goes on where it stopped', async () => {
    let market = marketOf(Array.from({ length: 700 }, (_, n) => n));
    await using it = await vastOf(
      (request, response, message) => {
        // All of it is of the second class.
        const { gpu_ram } = request.body as { gpu_ram: { lt?: number; gte?: number } };
        if (gpu_ram.gte !== 22732) return { body: { offers: [] } };
        return pagedByPrice(market)(request, response, message);
      },
      // A turn every 30 s beyond the burst of ten, and five minutes in three seconds.
      { pace: 5, patience: 0.05 },
    );
    const first = await it.vast.offers({});
    // Ten in a burst: four first pages, four behind them, two spared for whoever asks with a filter.
    expect(it.server.requests).toHaveLength(8);
    expect(first.offers).toHaveLength(64 + 4 * 63);
    expect(first.more).toBe(true);
    // What a page should show and does not is gone; what lies behind the pages read is still known.
    market = market.filter((one) => one.id !== 3);
    const second = await it.vast.offers({});
    expect(second.offers.map((one) => one.id)).not.toContain('3');
    expect(second.offers).toHaveLength(64 + 4 * 63 - 1);
    expect(second.more).toBe(true);
    expect(it.server.requests).toHaveLength(10);
  });

  it('knows when it has seen all of it, also over several rounds', async () => {
    const market = marketOf(Array.from({ length: 300 }, (_, n) => n));
    await using it = await vastOf(
      (request, response, message) => {
        const { gpu_ram } = request.body as { gpu_ram: { gte?: number } };
        if (gpu_ram.gte !== 22732) return { body: { offers: [] } };
        return pagedByPrice(market)(request, response, message);
      },
      // A turn every 60 ms.
      { pace: 0.01 },
    );
    const seen: number[] = [];
    let answer = await it.vast.offers({});
    while (answer.more && seen.length < 100) {
      seen.push(answer.offers.length);
      await new Promise((resolve) => setTimeout(resolve, 130));
      answer = await it.vast.offers({});
    }
    expect(answer.offers).toHaveLength(300);
    expect(answer.more).toBe(false);
    // It never forgot what an earlier round had read.
    expect(seen).toEqual([...seen].sort((a, b) => a - b));
  });

  it('reads pages of a filtered search as far as the rate limit lets it, and says when that was not all', async () => {
    const market = marketOf(Array.from({ length: 700 }, (_, n) => n));
    await using it = await vastOf(pagedByPrice(market), { pace: 5 });
    const { offers, more } = await it.vast.offers({ minVramGb: 24 });
    expect(it.server.requests).toHaveLength(8);
    expect(offers).toHaveLength(64 + 7 * 63);
    expect(more).toBe(true);
    // With the two turns that were spared.
    expect(await it.vast.offers({ minVramGb: 24, maxUsdPerHour: 0.4 })).toMatchObject({ more: true });
    expect(it.server.requests).toHaveLength(9);
  });

  it('lists at most 3,000 offers where no limit holds it back', async () => {
    const market = marketOf(Array.from({ length: 3600 }, (_, n) => n));
    await using it = await vastOf((request, response, message) => {
      const { gpu_ram } = request.body as { gpu_ram?: { gte?: number } };
      if (gpu_ram?.gte !== 22732) return { body: { offers: [] } };
      return pagedByPrice(market)(request, response, message);
    });
    for (const round of [1, 2]) {
      const { offers, more } = await it.vast.offers({});
      expect([round, more]).toEqual([round, true]);
      expect(offers.length).toBeGreaterThan(2500);
      expect(offers.length).toBeLessThanOrEqual(3000);
    }
  });

  it('asks nothing of another provider', async () => {
    await using it = await vastOf(searching(() => [row(1)]));
    expect((await it.vast.offers({ provider: 'io.net' })).offers).toEqual([]);
    expect(it.server.requests).toHaveLength(0);
  });
});

describe.concurrent('a rental', () => {
  const rented = { body: { success: true, new_contract: 31000001, instance_api_key: 'd15a' } };

  it('sends what the official client sends', async () => {
    await using it = await vastOf(() => rented);
    expect(await it.vast.rent(offer, spec)).toEqual({ ok: true, contract: '31000001' });
    const [request] = it.server.requests;
    expect(request).toMatchObject({ method: 'PUT', path: '/api/v0/asks/21000001/' });
    expect(request?.body).toEqual({
      client_id: 'me',
      image: 'vllm/vllm-openai:latest',
      env: { '-p 8000:8000': '1', FOO: 'bar' },
      price: null,
      disk: 40,
      label: 'gpuproxy-1',
      target_state: 'running',
      cancel_unavail: true,
      runtype: 'args',
    });
  });

  it.each([
    ['onstart', { onstart: 'serve' }, { runtype: 'ssh_direct', onstart: 'serve' }],
    ['args', { args: ['--model', 'x'] }, { runtype: 'args', args: ['--model', 'x'] }],
    [
      'both, where onstart is the entrypoint',
      { onstart: '/bin/sh', args: ['-c', 'x'] },
      { runtype: 'args', onstart: '/bin/sh', args: ['-c', 'x'] },
    ],
    ['a bid', { maxBidUsdPerHour: 0.12 }, { price: 0.12, cancel_unavail: false }],
    ['two ports', { ports: [9000, 22] }, { env: { '-p 9000:9000': '1', '-p 22:22': '1', FOO: 'bar' } }],
  ])('starts with %s', async (_, change, sent) => {
    await using it = await vastOf(() => rented);
    await it.vast.rent(offer, { ...spec, ...change });
    expect(it.server.requests[0]?.body).toMatchObject(sent);
  });

  const gone = 'error 404/3603: no_such_ask  Instance type by id 21000001 is not available.';
  it.each([
    ['the usual 400', 400, { success: false, error: 'invalid_args', msg: gone, ask_id: 21000001 }],
    ['the documented 404', 404, { success: false, error: 'invalid_args', msg: gone }],
    [
      '410',
      410,
      {
        success: false,
        error: 'no_such_ask',
        msg: 'error 410/3907: no_such_ask Instance type 1 is no longer available.',
      },
    ],
    ['200 without success', 200, { success: false, error: 'invalid_args', msg: gone }],
    ['a text', 400, 'no_such_ask'],
  ])('knows an offer that is gone: %s', async (_, status, body) => {
    await using it = await vastOf(() => ({ status, body }));
    expect(await it.vast.rent(offer, spec)).toMatchObject({ ok: false, reason: 'gone' });
  });

  it.each([
    ['no_credit', 400, { success: false, error: 'insufficient_credit', msg: 'Your balance is too low' }],
    ['rejected', 400, { success: false, error: 'invalid_args', msg: 'error 400/3467: Invalid args: image' }],
    ['rejected', 401, { success: false, error: 'auth_error', msg: 'Invalid user key' }],
    ['rejected', 403, { success: false, error: 'invalid_args', msg: 'error 403/3586: Offer is not your own' }],
    ['unavailable', 429, 'API requests too frequent: endpoint threshold=4.5*1.0'],
    ['unknown', 500, '<html>Internal Server Error</html>'],
    ['unknown', 504, ''],
    ['unknown', 400, '<html>Bad Request</html>'],
    ['unknown', 404, ''],
    ['unknown', 200, '<html>Welcome</html>'],
    ['unknown', 200, { success: true }],
    ['unknown', 200, ''],
  ])('is %s after HTTP %i %j, and was asked for once', async (reason, status, body) => {
    await using it = await vastOf(() => ({ status, body }));
    const result = await it.vast.rent(offer, spec);
    expect(result).toMatchObject({ ok: false, reason });
    expect(JSON.stringify(result)).not.toContain(key);
    expect(it.server.requests).toHaveLength(1);
  });

  it('names the contract that a refused bid left behind', async () => {
    await using it = await vastOf(() => ({
      status: 400,
      body: { success: false, error: 'invalid_price', msg: 'bid too low', new_contract: 31000009 },
    }));
    expect(await it.vast.rent(offer, { ...spec, maxBidUsdPerHour: 0.01 })).toMatchObject({
      ok: false,
      reason: 'rejected',
      leaked: '31000009',
    });
  });

  it('is unknown when the answer is lost, and never asked for again', async () => {
    await using it = await vastOf((_, response) => void response.socket?.resetAndDestroy());
    expect(await it.vast.rent(offer, spec)).toMatchObject({ ok: false, reason: 'unknown' });
    expect(it.server.requests).toHaveLength(1);
    await using silent = await vastOf(() => undefined, { patience: 0.005 });
    expect(await silent.vast.rent(offer, spec)).toMatchObject({ ok: false, reason: 'unknown' });
    expect(silent.server.requests).toHaveLength(1);
  });

  it.each([
    ['disk', { diskGb: 4 }, /8/],
    ['disk', { diskGb: 9000 }, /9000 GB is more than/],
    ['label', { label: '' }, /label/],
    ['label', { label: 'x'.repeat(257) }, /label/],
    ['onstart', { onstart: 'x'.repeat(5000) }, /5000/],
    ['env', { env: { '-v /:/host': '1' } }, /-v/],
    ['ports', { ports: [] }, /ports/],
    ['bid', { maxBidUsdPerHour: 500 }, /500/],
  ])('with a bad %s is refused before anything is sent', async (_, change, words) => {
    await using it = await vastOf(() => rented);
    const result = await it.vast.rent(offer, { ...spec, ...change });
    expect(result).toMatchObject({ ok: false, reason: 'rejected' });
    expect((result as { detail: string }).detail).toMatch(words);
    expect(it.server.requests).toHaveLength(0);
  });

  it('is refused when the offer, as last seen, costs more than it may', async () => {
    const seen = row(21000001, { dph_total: 0.5, dph_base: 0.48 });
    await using it = await vastOf((request) => (request.method === 'PUT' ? rented : { body: { offers: [seen] } }));
    (await it.vast.offers({})).offers;
    expect(await it.vast.rent(offer, spec)).toMatchObject({ ok: false, reason: 'price_risen' });
    // 0.48 + 240 GB × 0.36 / 720
    expect(await it.vast.rent(offer, { ...spec, diskGb: 240, maxUsdPerHour: 0.59 })).toMatchObject({
      reason: 'price_risen',
    });
    expect(await it.vast.rent(offer, { ...spec, diskGb: 240, maxUsdPerHour: 0.61 })).toMatchObject({ ok: true });
  });

  it('waits for its turn: one every 5.4 s at the documented pace', async () => {
    await using it = await vastOf(() => rented, { pace: 0.05 });
    await Promise.all([1, 2, 3].map((n) => it.vast.rent({ ...offer, id: String(n) }, spec)));
    const [first, , third] = it.server.requests;
    expect((third?.at ?? 0) - (first?.at ?? 0)).toBeGreaterThan(450);
  });
});

const instance = (id: number, rest: object = {}) => ({
  id,
  label: 'gpuproxy-1',
  actual_status: 'running',
  intended_status: 'running',
  cur_state: 'running',
  next_state: 'running',
  status_msg: 'success, running image/ssh',
  public_ipaddr: ' 203.0.113.42\n',
  ports: {
    '22/tcp': [{ HostIp: '0.0.0.0', HostPort: '40022' }],
    '8000/tcp': [
      { HostIp: '0.0.0.0', HostPort: '33526' },
      { HostIp: '::', HostPort: '33526' },
    ],
  },
  extra_env: [
    ['-p 8000:8000', '1'],
    ['FOO', 'bar'],
  ],
  gpu_name: 'RTX 4090',
  num_gpus: 1,
  gpu_ram: 24564,
  dph_total: 0.3014,
  geolocation: 'Sweden, SE',
  start_date: 1760000000.5,
  is_bid: false,
  jupyter_token: 'hidden',
  ...rest,
});
const listing =
  (...rows: unknown[]): Script =>
  () => ({ body: { success: true, instances: rows, next_token: null } });

describe.concurrent('the list', () => {
  it('says what the disk costs where storage price and size are told', async () => {
    const disk = async (fields: object) => {
      await using it = await vastOf(listing({ ...instance(31000001), ...fields }));
      return (await it.vast.list())[0]?.diskUsdPerHour;
    };
    expect(await disk({ storage_cost: 0.2, disk_space: 360 })).toBeCloseTo(0.1, 9);
    expect(await disk({ storage_cost: 0, disk_space: 360 })).toBe(0);
    expect(await disk({ storage_cost: 0.2, disk_space: -1 })).toBeNull();
    expect(await disk({ storage_cost: null, disk_space: 360 })).toBeNull();
  });

  it('reads an instance into our words', async () => {
    await using it = await vastOf(listing(instance(31000001)));
    expect(await it.vast.list()).toEqual([
      {
        contract: '31000001',
        label: 'gpuproxy-1',
        phase: 'running',
        origin: 'http://203.0.113.42:33526',
        detail: 'running: success, running image/ssh',
        gpuModel: 'RTX 4090',
        gpuCount: 1,
        vramGb: 24,
        usdPerHour: 0.3014,
        diskUsdPerHour: null,
        location: 'Sweden, SE',
        startedAt: 1760000000500,
        expiresAt: null,
        interruptible: false,
        outbid: false,
      },
    ]);
    expect(it.server.requests[0]).toMatchObject({ method: 'GET' });
    expect(decodeURIComponent(it.server.requests[0]?.path ?? '').replaceAll('+', ' ')).toBe(
      '/api/v1/instances/?select_filters={}&order_by=[{"col": "id", "dir": "asc"}]&limit=25',
    );
  });

  it.each([
    ['nothing yet', { actual_status: null, ports: null }, 'booting'],
    ['created', { actual_status: 'created', ports: null }, 'booting'],
    ['loading', { actual_status: 'loading', ports: null }, 'booting'],
    ['running', {}, 'running'],
    ['running, ports not there yet', { ports: null }, 'booting'],
    ['rebooting', { actual_status: 'rebooting' }, 'booting'],
    ['exited', { actual_status: 'exited', ports: null }, 'failed'],
    [
      'exited because stopped',
      { actual_status: 'exited', intended_status: 'stopped', cur_state: 'stopped' },
      'stopped',
    ],
    ['exited, just started again', { actual_status: 'exited', cur_state: 'stopped', next_state: 'running' }, 'booting'],
    ['running but to be stopped', { intended_status: 'stopped' }, 'stopped'],
    ['frozen', { intended_status: 'frozen', actual_status: 'frozen' }, 'stopped'],
    ['offline', { actual_status: 'offline' }, 'failed'],
    ['no heartbeat, served before', { actual_status: 'unknown' }, 'running'],
    ['no heartbeat, never served', { actual_status: 'unknown', ports: null }, 'failed'],
    ['unloaded', { cur_state: 'unloaded', intended_status: 'stopped' }, 'ended'],
    ['a broken start', { actual_status: 'created', status_msg: 'Error: OCI runtime create failed: runc' }, 'failed'],
    ['an image that is not there', { actual_status: 'loading', status_msg: 'x: manifest unknown' }, 'failed'],
    ['a state nobody knows', { actual_status: 'thinking', ports: null }, 'booting'],
  ])('says what phase it is in: %s', async (_, change, phase) => {
    await using it = await vastOf(listing(instance(1, change)));
    expect(await it.vast.list()).toMatchObject([{ phase }]);
  });

  it('knows an interruptible instance that was outbid', async () => {
    const stopped = {
      cur_state: 'stopped',
      intended_status: 'stopped',
      next_state: 'stopped',
      actual_status: 'exited',
    };
    await using it = await vastOf(
      listing(instance(1, { ...stopped, is_bid: true }), instance(2, stopped), instance(3, { is_bid: true })),
    );
    expect((await it.vast.list()).map((one) => [one.interruptible, one.outbid, one.phase])).toEqual([
      [true, true, 'stopped'],
      [false, false, 'stopped'],
      [true, false, 'running'],
    ]);
  });

  it.each([
    [
      'the first port we asked for',
      { '9000/tcp': [{ HostPort: '1' }], '8000/tcp': [{ HostPort: '2' }] },
      [['-p 9000:9000', '1']],
      '1',
    ],
    ['a number', { '8000/tcp': [{ HostPort: 33 }] }, [], '33'],
    [
      'the instance port when nothing was asked',
      { '70/tcp': [{ HostPort: '1' }], '8000/tcp': [{ HostPort: '2' }] },
      null,
      '2',
    ],
    ['the only port besides SSH', { '22/tcp': [{ HostPort: '1' }], '5000/tcp': [{ HostPort: '2' }] }, [], '2'],
  ])('finds the port: %s', async (_, ports, extraEnv, port) => {
    await using it = await vastOf(listing(instance(1, { ports, extra_env: extraEnv })));
    expect((await it.vast.list())[0]?.origin).toBe(`http://203.0.113.42:${port}`);
  });

  it.each([
    ['no address', { public_ipaddr: null }],
    ['a name instead of an address', { public_ipaddr: 'evil.example/x' }],
    ['a port that is none', { ports: { '8000/tcp': [{ HostPort: '80/../x' }] } }],
    ['ports as bare numbers', { ports: { '8000/tcp': [8000] } }],
    ['an empty list', { ports: { '8000/tcp': [] } }],
  ])('has no origin with %s', async (_, change) => {
    await using it = await vastOf(listing(instance(1, change)));
    expect(await it.vast.list()).toMatchObject([{ origin: null, phase: 'booting' }]);
  });

  it('puts an IPv6 address in brackets', async () => {
    await using it = await vastOf(listing(instance(1, { public_ipaddr: '2001:db8::1\n' })));
    expect((await it.vast.list())[0]?.origin).toBe('http://[2001:db8::1]:33526');
  });

  it('takes nulls in every field but the id', async () => {
    const nulls = Object.fromEntries(Object.keys(instance(1)).map((name) => [name, null]));
    await using it = await vastOf(listing({ ...nulls, id: 9 }));
    expect(await it.vast.list()).toMatchObject([{ contract: '9', phase: 'booting', gpuModel: 'unknown', label: null }]);
  });

  it('follows page tokens to the end, every instance once', async () => {
    const all = Array.from({ length: 60 }, (_, n) => instance(n + 1));
    await using it = await vastOf((request) => {
      const after = Number(new URL(request.path, 'http://x').searchParams.get('after_token')?.slice(1) ?? 0);
      const next = after + 25 < all.length ? `t${after + 25}` : null;
      // A row that comes on two pages, as when the list moves between them.
      return { body: { success: true, instances: all.slice(Math.max(0, after - 1), after + 25), next_token: next } };
    });
    expect((await it.vast.list()).map((one) => Number(one.contract))).toEqual(all.map((one) => one.id));
    expect(it.server.requests).toHaveLength(3);
  });

  it('begins again when a token has become invalid, once', async () => {
    let bad = true;
    await using it = await vastOf((request) => {
      if (!request.path.includes('after_token')) return { body: { instances: [instance(1)], next_token: 'T' } };
      if (bad) {
        bad = false;
        return { status: 400, body: { success: false, error: 'invalid_token', msg: 'x' } };
      }
      return { body: { instances: [instance(2)], next_token: null } };
    });
    expect(await it.vast.list()).toHaveLength(2);
    await using never = await vastOf((request) =>
      request.path.includes('after_token')
        ? { status: 400, body: { success: false, error: 'invalid_token', msg: 'x' } }
        : { body: { instances: [], next_token: 'T' } },
    );
    expect(await errorOf(never.vast.list())).toMatchObject({ code: 'rejected' });
  });

  it.each([
    [
      'a page fails',
      (n: number): Scripted =>
        n === 1 ? { body: { instances: [instance(1)], next_token: 'T' } } : { status: 400, body: {} },
    ],
    ['a row has no id', (): Scripted => ({ body: { instances: [instance(1), { label: 'x' }] } })],
    ['a token repeats', (): Scripted => ({ body: { instances: [instance(1)], next_token: 'T' } })],
    ['it says that it failed', (): Scripted => ({ body: { success: false, msg: 'try later', instances: [] } })],
    ['it is no list', (): Scripted => ({ body: { instances: null } })],
  ])('is an error rather than incomplete when %s', async (_, script) => {
    let calls = 0;
    await using it = await vastOf(() => script(++calls));
    expect((await errorOf(it.vast.list())).name).toBe('ProviderError');
  });
});

describe.concurrent('destroy', () => {
  it('sends a body, as the official client does', async () => {
    await using it = await vastOf(() => ({ body: { success: true } }));
    await it.vast.destroy('31000001');
    expect(it.server.requests).toMatchObject([{ method: 'DELETE', path: '/api/v0/instances/31000001/', body: {} }]);
  });

  it.each([
    [404, { success: false, error: 'not_found', msg: 'x' }],
    [404, { success: false, error: 'no_such_instance', msg: 'x' }],
    [200, { success: false, msg: 'error 404/3401: no_such_instance' }],
  ])('succeeds when it is gone: HTTP %i', async (status, body) => {
    await using it = await vastOf(() => ({ status, body }));
    await it.vast.destroy('1');
  });

  it.each([
    ['a page of another server', 404, '<html>Not Found</html>', 'not_found'],
    ['another API', 404, { detail: 'Not Found' }, 'not_found'],
    ['the 404 of a wrong key', 404, { error: 'auth_error', msg: 'Invalid user key' }, 'auth'],
    ['success false', 200, { success: false, msg: 'busy' }, 'rejected'],
  ])('does not take %s for success', async (_, status, body, code) => {
    await using it = await vastOf(() => ({ status, body }));
    expect(await errorOf(it.vast.destroy('1'))).toMatchObject({ code });
  });

  it('is repeated through 429 and gateway errors', async () => {
    const answers: Scripted[] = [
      { status: 429, body: 'API requests too frequent' },
      { status: 502, body: '' },
      { body: { success: true } },
    ];
    await using it = await vastOf(() => answers.shift());
    await it.vast.destroy('1');
    expect(it.server.requests).toHaveLength(3);
  });

  it('takes no id that could be another path', async () => {
    await using it = await vastOf(() => ({ body: {} }));
    expect(await errorOf(it.vast.destroy('../users'))).toMatchObject({ code: 'rejected', sent: false });
    expect(it.server.requests).toHaveLength(0);
  });
});

describe.concurrent('balance', () => {
  it('is the credit, not the balance', async () => {
    await using it = await vastOf(() => ({ body: { id: 1, balance: -3.2, credit: 41.25, email: 'x' } }));
    expect(await it.vast.balance?.()).toBe(41.25);
    expect(it.server.requests[0]?.path).toBe('/api/v0/users/current/');
  });
});

describe.concurrent('logs', () => {
  const withLog = (urlOf: (base: string) => string, log: (n: number, request: Recorded) => Scripted): Script => {
    let reads = 0;
    return (request) =>
      request.method === 'PUT'
        ? { body: { success: true, result_url: urlOf(`http://${request.headers.host}`) } }
        : log(++reads, request);
  };

  it('come from a second address, without the key, when they have been written', async () => {
    await using it = await vastOf(
      withLog(
        (base) => `${base}/store/log.txt?sig=1`,
        (n) => (n < 3 ? { status: n === 1 ? 404 : 403, body: 'not yet' } : { body: 'a\nb\r\nc\n', type: 'text/plain' }),
      ),
    );
    expect(await it.vast.logs?.('31000001', { tail: 2 })).toEqual(['b', 'c']);
    const [asked, ...reads] = it.server.requests;
    expect(asked).toMatchObject({ path: '/api/v0/instances/request_logs/31000001/', body: { tail: '2' } });
    expect(reads).toHaveLength(3);
    for (const read of reads) {
      expect(read.path).toBe('/store/log.txt?sig=1');
      expect(read.headers.authorization).toBeUndefined();
    }
  });

  it('end with an error when they are never written', async () => {
    await using it = await vastOf(
      withLog(
        (base) => `${base}/log`,
        () => ({ status: 404, body: '' }),
      ),
      { patience: 0.01 },
    );
    expect(await errorOf(it.vast.logs?.('1', { tail: 2 }) ?? Promise.resolve())).toMatchObject({ code: 'timeout' });
  });

  it.each([
    'http://169.254.169.254/latest/meta-data',
    'https://10.0.0.1/x',
    'https://[::1]/x',
    'https://localhost/x',
    'http://example.com/plain',
    'file:///etc/passwd',
    'https://db.internal/x',
    'nonsense://',
  ])('are not read from %s', async (url) => {
    await using it = await vastOf(
      withLog(
        () => url,
        () => ({ body: 'x' }),
      ),
    );
    expect(await errorOf(it.vast.logs?.('1', { tail: 2 }) ?? Promise.resolve())).toMatchObject({ code: 'bad_answer' });
    expect(it.server.requests).toHaveLength(1);
  });
});
