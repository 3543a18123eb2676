import { describe, expect, it } from 'vitest';
import type { Offer, RentSpec } from '../../src/core/domain.ts';
import type { ProviderOptions } from '../../src/providers/index.ts';
import { createIonet } from '../../src/providers/ionet.ts';
import { errorOf, type Recorded, type Script, type Scripted, startScripted } from './scripted-server.ts';

const key = 'io-v2-secret';
const api = '/enterprise/v1/io-cloud/caas';

async function ionetOf(script: Script, options: Partial<ProviderOptions> = {}) {
  const server = await startScripted(script);
  const ionet = createIonet({ apiKey: key, baseUrl: server.url, instancePort: 8000, pace: 0, ...options });
  return {
    server,
    ionet,
    /** Paths asked for that contain the words. */
    asked: (words: string) => server.requests.filter((request) => `${request.method} ${request.path}`.includes(words)),
    async [Symbol.asyncDispose]() {
      await ionet.close?.();
      await server[Symbol.asyncDispose]();
    },
  };
}

type Routes = Readonly<Record<string, Scripted | ((request: Recorded) => Scripted | undefined)>>;
/** Answers by the first route whose words the method and path contain. */
const routes =
  (...tables: Routes[]): Script =>
  (request) => {
    const all = tables.flatMap((table) => Object.entries(table));
    const found = all.find(([words]) => `${request.method} ${request.path}`.includes(words));
    if (!found) return { status: 404, body: { detail: 'Not found' } };
    return typeof found[1] === 'function' ? found[1](request) : found[1];
  };
const parameter = (request: Recorded, name: string) => new URL(request.path, 'http://x').searchParams.get(name);

const market: Routes = {
  'max-gpus-per-container': {
    body: {
      data: {
        hardware: [
          {
            hardware_id: 203,
            hardware_name: 'H100 SXM5',
            brand_name: 'NVIDIA',
            max_gpus_per_container: 8,
            available: 12,
          },
          { hardware_id: 210, hardware_name: 'L40S', brand_name: 'NVIDIA', max_gpus_per_container: 4, available: 3 },
          { hardware_id: 211, hardware_name: 'RTX 4090', max_gpus_per_container: 1, available: 0 },
          { hardware_name: 'no id' },
        ],
        total: 4,
      },
    },
  },
  'available-replicas': (request) => ({
    body: {
      data:
        parameter(request, 'hardware_id') === '203'
          ? [
              { id: 12, iso2: 'us', name: 'United States', available_replicas: 4 },
              { id: 13, iso2: 'FI', name: 'Finland', available_replicas: 0 },
            ]
          : [{ id: 13, iso2: 'FI', name: 'Finland', available_replicas: 2 }],
    },
  }),
  '/price': (request) => ({
    body: {
      data: {
        total_cost_usdc:
          (parameter(request, 'hardware_id') === '203' ? 2.2 : 0.8) *
          Number(parameter(request, 'duration_hours')) *
          Number(parameter(request, 'gpus_per_container')),
        available_replica_count: [4],
      },
    },
  }),
};
const publicList: Routes = {
  'GET /v1/io-cloud/caas/hardware': {
    body: {
      data: {
        hardware: [
          { id: '8H100.80S', name: 'H100', vram_per_card: 80, interconnect: 'sxm5', price: 1, num_cards: 8 },
          { id: '1H100.94', name: 'H100', vram_per_card: 94, interconnect: 'nvl', price: 1, num_cards: 1 },
          { id: 'x', name: 'L40S', vram_per_card: 45, price: 0 },
          { name: null },
        ],
      },
    },
  },
};

const spec: RentSpec = {
  label: 'gpuproxy-7f3a',
  image: 'vllm/vllm-openai:latest',
  diskGb: 40,
  env: { A: 'b', HF_TOKEN: 'hf_x' },
  onstart: null,
  args: ['--port', '8000'],
  ports: [8000],
  maxBidUsdPerHour: null,
  durationHours: 3,
  maxUsdPerHour: null,
};
const offer: Offer = {
  provider: 'io.net',
  id: '203-12-x1',
  gpuModel: 'H100 SXM5',
  gpuCount: 1,
  vramGb: 80,
  usdPerHour: 2.2,
  location: 'United States, US',
  countryCode: 'US',
  reliability: null,
  verified: null,
  available: 4,
  minBidUsdPerHour: null,
  prepaidHours: 1,
  diskGb: null,
  storage: null,
  machineId: null,
};

describe.concurrent('offers', () => {
  it('are not waited for longer than their caller does, though others have asked the same question', async () => {
    const silent: Script = () => undefined;
    await using it = await ionetOf(silent, { patience: 0.2 });
    const reason = new Error('the caller has left');
    const first = errorOf(it.ionet.offers({}));
    const control = new AbortController();
    const second = errorOf(it.ionet.offers({}, control.signal));
    setTimeout(() => control.abort(reason), 50);
    const which = await Promise.race([second.then((error) => error), first.then(() => null)]);
    expect(which).toBe(reason);
    expect(await first).toMatchObject({ code: 'timeout' });
  });

  it('are put together from hardware, places with stock, and a price for each', async () => {
    await using it = await ionetOf(routes(market, publicList));
    const found = (await it.ionet.offers({})).offers;
    expect(found).toEqual([
      {
        ...offer,
        id: '210-13-x1',
        gpuModel: 'L40S',
        vramGb: 48,
        usdPerHour: 0.8,
        location: 'Finland, FI',
        countryCode: 'FI',
        available: 2,
      },
      offer,
    ]);
    expect(
      it.asked('/price').map((request) => Object.fromEntries(new URL(request.path, 'http://x').searchParams)),
    ).toEqual(
      expect.arrayContaining([
        { location_ids: '[12]', hardware_id: '203', duration_hours: '1', gpus_per_container: '1', replica_count: '1' },
      ]),
    );
    for (const request of it.server.requests) expect(request.headers['x-api-key']).toBe(key);
    expect(it.asked('hardware_id=211')).toEqual([]);
    expect(it.ionet.stats?.().skippedRows).toBe(2);
  });

  it('ask again only for what changes', async () => {
    await using it = await ionetOf(routes(market, publicList));
    (await it.ionet.offers({})).offers;
    const before = it.server.requests.length;
    (await it.ionet.offers({})).offers;
    await Promise.all([it.ionet.offers({}), it.ionet.offers({ gpuModel: 'h100' })]);
    expect(it.server.requests.length).toBe(before);
  });

  it('for several GPUs are containers of so many', async () => {
    await using it = await ionetOf(routes(market, publicList));
    const found = (await it.ionet.offers({ gpuCount: 4 })).offers;
    expect(found.map((one) => [one.id, one.gpuCount, one.usdPerHour])).toEqual([
      ['210-13-x4', 4, 3.2],
      ['203-12-x4', 4, 8.8],
    ]);
    expect((await it.ionet.offers({ gpuCount: 8 })).offers.map((one) => one.id)).toEqual(['203-12-x8']);
  });

  it('are asked a price for only when the rest of the filter lets them', async () => {
    await using it = await ionetOf(routes(market, publicList));
    expect((await it.ionet.offers({ minVramGb: 80, location: 'us' })).offers).toHaveLength(1);
    expect(it.asked('/price')).toHaveLength(1);
    expect((await it.ionet.offers({ maxUsdPerHour: 1 })).offers).toHaveLength(1);
    expect((await it.ionet.offers({ verified: true })).offers).toEqual([]);
    expect((await it.ionet.offers({ provider: 'vast.ai' })).offers).toEqual([]);
  });

  it('are what the reachable part says when a part fails', async () => {
    await using it = await ionetOf(
      routes(
        {
          'available-replicas?hardware_id=210': { status: 500, body: '' },
          'GET /v1/io-cloud/caas/hardware': { status: 503, body: '<html>' },
        },
        market,
      ),
    );
    const found = (await it.ionet.offers({})).offers;
    expect(found.map((one) => [one.id, one.vramGb])).toEqual([['203-12-x1', 80]]);
  });

  it('are an error when every part fails', async () => {
    await using it = await ionetOf(routes({ 'available-replicas': { status: 500, body: '' } }, market));
    expect(await errorOf(it.ionet.offers({}))).toMatchObject({ code: 'server_error' });
  });

  it.each([401, 403])('say that the key was refused: HTTP %i', async (status) => {
    await using it = await ionetOf(routes({ 'available-replicas': { status, body: { detail: 'nope' } } }, market));
    expect(await errorOf(it.ionet.offers({}))).toMatchObject({ code: 'auth' });
  });

  it('keep the last price when it cannot be asked again, but not one of nothing', async () => {
    await using it = await ionetOf(
      routes({ '/price?location_ids=%5B12%5D': { body: { data: { total_cost_usdc: 0 } } } }, market, publicList),
    );
    expect((await it.ionet.offers({})).offers.map((one) => one.id)).toEqual(['210-13-x1']);
  });

  it.each([
    ['RTX 4090', 24],
    ['GeForce RTX 3090', 24],
    ['A100-SXM4-80GB', 80],
    ['A100 PCIe 40GB', 40],
    ['H200', 141],
    ['RTX 6000 Ada', 48],
    ['Tesla T4', 16],
    ['Quantum Card', 0],
  ])('know the memory of a %s', async (hardware_name, vramGb) => {
    await using it = await ionetOf(
      routes(
        { 'max-gpus-per-container': { body: { data: { hardware: [{ hardware_id: 'a-1', hardware_name }] } } } },
        market,
      ),
    );
    const found = (await it.ionet.offers({})).offers;
    expect(found.map((one) => [one.id, one.vramGb])).toEqual([['a-1-13-x1', vramGb]]);
  });
});

describe.concurrent('a rental', () => {
  const deployed: Routes = { 'POST ': { body: { status: 'deployment requested', deployment_id: '8a4e-uuid' } } };

  it('is one deployment, prepaid, with secrets apart', async () => {
    await using it = await ionetOf(routes(deployed, market));
    expect(await it.ionet.rent(offer, spec)).toEqual({ ok: true, contract: '8a4e-uuid', usdPerHour: 2.2 });
    expect(it.asked('POST')).toMatchObject([{ path: `${api}/deploy` }]);
    expect(it.asked('POST')[0]?.body).toEqual({
      resource_private_name: 'gpuproxy-7f3a',
      duration_hours: 3,
      gpus_per_container: 1,
      hardware_id: 203,
      location_ids: [12],
      container_config: {
        replica_count: 1,
        env_variables: { A: 'b' },
        secret_env_variables: { HF_TOKEN: 'hf_x' },
        args: ['--port', '8000'],
        traffic_port: 8000,
      },
      registry_config: { image_url: 'vllm/vllm-openai:latest', registry_username: '', registry_secret: '' },
    });
  });

  it('starts a script through a shell, and keeps ids that are text', async () => {
    await using it = await ionetOf(routes({ 'POST ': { body: { data: { deployment_id: 'w' } } } }, market));
    await it.ionet.rent({ ...offer, id: '8H100.80S-FI-x2' }, { ...spec, onstart: 'serve', args: null });
    expect(it.asked('POST')[0]?.body).toMatchObject({
      hardware_id: '8H100.80S',
      location_ids: ['FI'],
      gpus_per_container: 2,
      container_config: { entrypoint: ['/bin/sh', '-c', 'serve'] },
    });
  });

  it.each([
    ['no_credit', 402, { detail: 'Payment required' }],
    ['no_credit', 400, { detail: 'Insufficient IO credits' }],
    ['gone', 400, { detail: 'Not enough replicas available' }],
    ['gone', 409, { detail: 'Hardware is sold out' }],
    ['unknown', 409, { detail: 'Cluster name already exists' }],
    ['unknown', 400, { detail: 'The name gpuproxy-7f3a is already in use' }],
    ['rejected', 422, { detail: [{ loc: ['body', 'duration_hours'], msg: 'too small', type: 'x' }] }],
    ['rejected', 401, { detail: 'Invalid API key' }],
    ['rejected', 400, { detail: 'Bad image' }],
    ['unavailable', 429, 'slow down'],
    ['unknown', 500, '<html>'],
    ['unknown', 403, '<html>'],
    ['unknown', 400, ''],
    ['unknown', 200, '<html>'],
    ['unknown', 200, { status: 'success' }],
  ])('is %s after HTTP %i %j, and was asked for once', async (reason, status, body) => {
    await using it = await ionetOf(routes({ 'POST ': { status, body } }, market));
    expect(await it.ionet.rent(offer, spec)).toMatchObject({ ok: false, reason });
    expect(it.asked('POST')).toHaveLength(1);
  });

  it('is not bought at a price that has risen', async () => {
    await using it = await ionetOf(routes(deployed, market));
    expect(await it.ionet.rent({ ...offer, usdPerHour: 2 }, spec)).toMatchObject({ ok: false, reason: 'price_risen' });
    expect(await it.ionet.rent(offer, { ...spec, maxUsdPerHour: 2.1 })).toMatchObject({ reason: 'price_risen' });
    expect(it.asked('POST')).toHaveLength(0);
    expect(await it.ionet.rent({ ...offer, usdPerHour: 2 }, { ...spec, maxUsdPerHour: 2.2 })).toMatchObject({
      ok: true,
    });
  });

  it('is not bought where no price can be had', async () => {
    await using it = await ionetOf(routes({ '/price': { status: 503, body: '' } }, deployed, market));
    expect(await it.ionet.rent(offer, spec)).toMatchObject({ ok: false, reason: 'unavailable' });
    await using empty = await ionetOf(
      routes({ '/price': { body: { data: { total_cost_usdc: 2, available_replica_count: [0] } } } }, deployed, market),
    );
    expect(await empty.ionet.rent(offer, spec)).toMatchObject({ ok: false, reason: 'gone' });
    expect([...it.asked('POST'), ...empty.asked('POST')]).toHaveLength(0);
  });

  it('is unknown when the answer is lost', async () => {
    await using it = await ionetOf((request, response, message) =>
      request.method === 'POST' ? void response.socket?.resetAndDestroy() : routes(market)(request, response, message),
    );
    expect(await it.ionet.rent(offer, spec)).toMatchObject({ ok: false, reason: 'unknown' });
    expect(it.asked('POST')).toHaveLength(1);
  });

  it.each([
    ['a bid', { maxBidUsdPerHour: 1 }, /bid/],
    ['two ports', { ports: [8000, 9000] }, /exactly one port/],
    ['half an hour', { durationHours: 0.5 }, /0.5/],
    ['no label', { label: '' }, /label/],
  ])('with %s is refused before anything is sent', async (_, change, words) => {
    await using it = await ionetOf(routes(deployed, market));
    const result = await it.ionet.rent(offer, { ...spec, ...change });
    expect(result).toMatchObject({ ok: false, reason: 'rejected' });
    expect((result as { detail: string }).detail).toMatch(words);
    expect(it.server.requests).toHaveLength(0);
  });
});

const deployment = (id: string, rest: object = {}) => ({
  id,
  status: 'running',
  name: 'gpuproxy-7f3a',
  completed_percent: 12.5,
  hardware_quantity: 1,
  brand_name: 'NVIDIA',
  hardware_name: 'H100 SXM5',
  served: '0d 1h',
  remaining: '0d 7h',
  compute_minutes_served: 60,
  compute_minutes_remaining: 420,
  created_at: '2025-10-03T06:46:25.316056',
  ...rest,
});
const detail = (rest: object = {}) => ({
  body: {
    data: {
      id: 'd1',
      status: 'running',
      created_at: '2025-10-03T06:46:25.316056',
      started_at: '2025-10-03T06:50:00.5',
      finished_at: null,
      amount_paid: 17.6,
      completed_percent: 12.5,
      total_gpus: 2,
      gpus_per_container: 2,
      total_containers: 1,
      hardware_name: 'H100 SXM5',
      hardware_id: 203,
      locations: [{ id: 12, iso2: 'us', name: 'United States' }],
      brand_name: 'NVIDIA',
      compute_minutes_served: 60,
      compute_minutes_remaining: 420,
      container_config: { traffic_port: 8000 },
      ...rest,
    },
  },
});
const containers = (...workers: object[]) => ({ body: { data: { total: workers.length, workers } } });
const worker = (rest: object = {}) => ({
  container_id: 'c1',
  status: 'running',
  container_events: [{ time: '2025-10-03T06:46:25', message: 'Pulling image' }],
  public_url: 'https://abc.worker.example/',
  ...rest,
});
const fleet = (rows: object[], rest: Routes = {}): Script =>
  routes(rest, {
    '/containers': containers(worker()),
    '/deployments?': { body: { data: { deployments: rows, total: rows.length, statuses: [] } } },
    '/deployment/': detail(),
  });

describe.concurrent('the list', () => {
  it('reads a deployment into our words: hourly price from what was paid, times without a zone as UTC', async () => {
    await using it = await ionetOf(fleet([deployment('d1')]));
    expect(await it.ionet.list()).toEqual([
      {
        contract: 'd1',
        label: 'gpuproxy-7f3a',
        phase: 'running',
        origin: 'https://abc.worker.example',
        detail: 'running: Pulling image',
        gpuModel: 'H100 SXM5',
        gpuCount: 2,
        vramGb: 80,
        usdPerHour: 2.2,
        diskUsdPerHour: null,
        location: 'United States, US',
        startedAt: Date.UTC(2025, 9, 3, 6, 50, 0, 500),
        expiresAt: Date.UTC(2025, 9, 3, 14, 50, 0, 500),
        interruptible: false,
        outbid: false,
      },
    ]);
    expect(it.server.requests[0]?.path).toBe(`${api}/deployments?page=0&page_size=100`);
  });

  it.each([
    ['deployment requested', 'booting'],
    ['RUNNING', 'running'],
    ['completed', 'ended'],
    ['failed', 'failed'],
    ['termination requested', 'stopped'],
    ['destroyed', 'ended'],
    ['something new', 'booting'],
  ])('takes the status %s for %s', async (status, phase) => {
    await using it = await ionetOf(fleet([deployment('d1', { status })]));
    expect(await it.ionet.list()).toMatchObject([{ phase }]);
  });

  it('calls a running deployment booting until it has an address', async () => {
    let url: string | null = null;
    await using it = await ionetOf(
      fleet([deployment('d1')], {
        '/containers': () => containers(worker({ public_url: url, container_events: null })),
      }),
    );
    expect(await it.ionet.list()).toMatchObject([{ phase: 'booting', origin: null }]);
    url = 'https://up.example';
    expect(await it.ionet.list()).toMatchObject([{ phase: 'running', origin: 'https://up.example' }]);
  });

  it.each([
    ['absent', { public_url: undefined }],
    ['no URL', { public_url: 'soon' + ' there' }],
    ['of another kind', { public_url: 'ftp://x.example' }],
  ])('takes no address that is %s', async (_, change) => {
    await using it = await ionetOf(fleet([deployment('d1')], { '/containers': containers(worker(change)) }));
    expect(await it.ionet.list()).toMatchObject([{ phase: 'booting', origin: null }]);
  });

  it('says that a deployment failed when its containers did', async () => {
    await using it = await ionetOf(
      fleet([deployment('d1')], { '/containers': containers(worker({ status: 'Failed', public_url: null })) }),
    );
    expect(await it.ionet.list()).toMatchObject([{ phase: 'failed' }]);
  });

  it('asks once for what does not change, and nothing about what has ended', async () => {
    await using it = await ionetOf(
      fleet([deployment('d1'), deployment('d2', { status: 'destroyed' }), deployment('d3', { status: 'completed' })]),
    );
    await it.ionet.list();
    await it.ionet.list();
    await it.ionet.list();
    expect(it.asked('/deployments?')).toHaveLength(3);
    expect(it.server.requests.length).toBe(5);
    expect(it.asked('/d2')).toEqual([]);
  });

  it('asks again for the details when time was bought', async () => {
    let left = 420;
    await using it = await ionetOf(
      routes({
        '/deployments?': () => ({
          body: { data: { deployments: [deployment('d1', { compute_minutes_remaining: left })], total: 1 } },
        }),
        '/containers': containers(worker()),
        '/deployment/': () => detail({ compute_minutes_remaining: left, amount_paid: ((60 + left) / 60) * 2.2 }),
      }),
    );
    const [before] = await it.ionet.list();
    left += 120;
    const [after] = await it.ionet.list();
    expect((after?.expiresAt ?? 0) - (before?.expiresAt ?? 0)).toBe(2 * 3_600_000);
    expect(after?.usdPerHour).toBeCloseTo(2.2);
  });

  it('says that time ends sooner when less is left than the start tells', async () => {
    const row = deployment('d1', { compute_minutes_served: 400, compute_minutes_remaining: 20 });
    const started = {
      started_at: new Date().toISOString(),
      compute_minutes_served: 400,
      compute_minutes_remaining: 20,
    };
    await using it = await ionetOf(
      fleet([row], { '/deployment/d1': detail(started), '/containers': containers(worker()) }),
    );
    const [listed] = await it.ionet.list();
    const left = (listed?.expiresAt ?? 0) - Date.now();
    expect(left / 60_000).toBeGreaterThan(19);
    expect(left / 60_000).toBeLessThan(22);
  });

  it('stands although details and containers fail', async () => {
    let broken = false;
    const or = (fine: Scripted) => () => (broken ? { status: 500, body: '' } : fine);
    await using it = await ionetOf(
      fleet([deployment('d1')], { '/containers': or(containers(worker())), '/deployment/': or(detail()) }),
    );
    broken = true;
    expect(await it.ionet.list()).toMatchObject([{ contract: 'd1', phase: 'booting', gpuCount: 1, usdPerHour: 0 }]);
    broken = false;
    expect(await it.ionet.list()).toMatchObject([{ phase: 'running', gpuCount: 2 }]);
    broken = true;
    expect(await it.ionet.list()).toMatchObject([{ phase: 'running', gpuCount: 2 }]);
  });

  it('goes through all pages, and once more when fewer came than there are', async () => {
    const all = Array.from({ length: 250 }, (_, n) => deployment(`d${n}`, { status: 'destroyed' }));
    let round = 0;
    await using it = await ionetOf(
      routes({
        '/deployments?': (request) => {
          const page = Number(parameter(request, 'page'));
          if (page === 0) round++;
          // Between two pages of the first round one row moves up over the edge.
          const rows = round === 1 && page > 0 ? all.filter((row) => row.id !== 'd0') : all;
          return { body: { data: { deployments: rows.slice(page * 100, page * 100 + 100), total: 250 } } };
        },
      }),
    );
    expect(await it.ionet.list()).toHaveLength(250);
    expect(round).toBe(2);
  });

  it.each([
    ['a row has no id', { data: { deployments: [{ name: 'x' }], total: 1 } }],
    ['it is no list', { data: { deployments: null } }],
    ['it is empty', {}],
  ])('is an error rather than incomplete when %s', async (_, body) => {
    await using it = await ionetOf(routes({ '/deployments?': { body } }));
    expect((await errorOf(it.ionet.list())).name).toBe('ProviderError');
  });

  it('takes bare answers and times with a zone too', async () => {
    await using it = await ionetOf(
      routes({
        '/deployments?': { body: { deployments: [deployment('d1')], total: 1 } },
        '/containers': { body: { workers: [worker()] } },
        '/deployment/': {
          body: { started_at: '2025-10-03T08:50:00+02:00', amount_paid: 8, compute_minutes_remaining: 480 },
        },
      }),
    );
    expect(await it.ionet.list()).toMatchObject([
      { phase: 'running', startedAt: Date.UTC(2025, 9, 3, 6, 50), usdPerHour: 1 },
    ]);
  });
});

describe.concurrent('destroy', () => {
  it('takes the bare answer', async () => {
    await using it = await ionetOf(routes({ 'DELETE ': { body: { status: 'success', deployment_id: 'd1' } } }));
    await it.ionet.destroy('d1');
    expect(it.server.requests).toMatchObject([{ method: 'DELETE', path: `${api}/deployment/d1` }]);
  });

  it('succeeds when it is gone, ending or ended', async () => {
    await using gone = await ionetOf(routes({}));
    await gone.ionet.destroy('d1');
    for (const status of ['termination requested', 'destroyed', 'completed']) {
      await using it = await ionetOf(
        routes({ 'DELETE ': { status: 400, body: { detail: 'no' } }, '/deployment/': detail({ status }) }),
      );
      await it.ionet.destroy('d1');
    }
  });

  it('fails when it is refused and still runs, and when the 404 is of another server', async () => {
    await using it = await ionetOf(
      routes({ 'DELETE ': { status: 400, body: { detail: 'no' } }, '/deployment/': detail({ status: 'running' }) }),
    );
    expect(await errorOf(it.ionet.destroy('d1'))).toMatchObject({ code: 'rejected' });
    await using other = await ionetOf(() => ({ status: 404, body: '<html>' }));
    expect(await errorOf(other.ionet.destroy('d1'))).toMatchObject({ code: 'not_found' });
    expect(await errorOf(other.ionet.destroy('../x'))).toMatchObject({ code: 'rejected', sent: false });
  });
});

describe.concurrent('extend', () => {
  it('buys whole hours, once', async () => {
    await using it = await ionetOf(routes({ '/extend': { status: 503, body: '' } }));
    expect(await errorOf(it.ionet.extend?.('d1', 2) ?? Promise.resolve())).toMatchObject({ code: 'server_error' });
    expect(it.server.requests).toMatchObject([
      { method: 'POST', path: `${api}/deployment/d1/extend`, body: { duration_hours: 2 } },
    ]);
    expect(await errorOf(it.ionet.extend?.('d1', 0.5) ?? Promise.resolve())).toMatchObject({
      code: 'rejected',
      sent: false,
    });
  });

  it('says what the service said against it', async () => {
    await using it = await ionetOf(
      routes({ '/extend': { status: 422, body: { detail: [{ loc: ['body', 'duration_hours'], msg: 'too long' }] } } }),
    );
    expect((await errorOf(it.ionet.extend?.('d1', 2) ?? Promise.resolve())).message).toContain(
      'body.duration_hours: too long',
    );
  });
});

describe.concurrent('logs', () => {
  it('are the last lines of streams that never end', async () => {
    await using it = await ionetOf((request, response, message) => {
      if (!request.path.includes('/log/')) return fleet([])(request, response, message);
      response.writeHead(200, { 'content-type': 'text/event-stream' });
      const lines = parameter(request, 'stream') === 'stderr' ? ['oops'] : ['one', 'two', 'three'];
      response.write(lines.map((line) => `: comment\nid: 1\ndata: ${line}\n\n`).join(''));
      const timer = setInterval(() => response.write(': still here\n\n'), 50);
      response.on('close', () => clearInterval(timer));
      return undefined;
    });
    expect(await it.ionet.logs?.('d1', { tail: 3 })).toEqual(['two', 'three', 'stderr: oops']);
    expect(it.asked('/log/c1?stream=stdout')).toHaveLength(1);
  });

  it('are empty before there is a container', async () => {
    await using it = await ionetOf(fleet([], { '/containers': containers() }));
    expect(await it.ionet.logs?.('d1', { tail: 3 })).toEqual([]);
  });
});
