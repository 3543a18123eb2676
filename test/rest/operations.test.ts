import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { AppError } from '../../src/fleet/app.ts';
import { ProviderError } from '../../src/providers/provider.ts';
import { createFakeApp, type FakeApp, offerOf, providerView, upstreamView } from '../helpers/fake-app.ts';
import { type Rest, startRest } from './harness.ts';

let app: FakeApp;
let rest: Rest;

beforeEach(async () => {
  app = createFakeApp({
    upstreams: [
      upstreamView(),
      upstreamView({
        id: 'ionet-abc',
        provider: 'io.net',
        contract: 'xyz789',
        avgMs: null,
        lastMs: null,
        lastUsedAt: null,
        active: 0,
        total: 0,
        weight: 2,
        eligible: false,
        state: 'DOWN',
        health: { state: 'ejected', untilAt: Date.UTC(2024, 0, 12), times: 2, why: 'refused' },
      }),
      upstreamView({ id: 'vast-old', lifecycle: { phase: 'ended', at: 0, reason: 'destroyed' }, eligible: false }),
    ],
    providers: [providerView(), providerView({ name: 'io.net', available: 28 })],
    reservations: [
      {
        id: 'res-1',
        createdAt: 0,
        by: 'tester',
        requested: 2,
        state: 'active',
        instances: ['vast-12345', 'ionet-abc'],
        ended: [],
        usdPerHour: 2.78,
        errors: [],
      },
    ],
    foreign: [
      {
        provider: 'vast.ai',
        contract: '999',
        label: null,
        phase: 'running',
        gpuModel: 'A100',
        gpuCount: 1,
        usdPerHour: 1,
      },
    ],
  });
  rest = await startRest(app);
});
afterEach(() => rest[Symbol.asyncDispose]());

describe('strategy', () => {
  test('GET answers the guide’s one field', async () => {
    const reply = await rest.call('GET', '/api/v1/loadbalancer/strategy');
    expect(reply.status).toBe(200);
    expect(reply.body).toEqual({ strategy: 'round_robin' });
  });

  test('PUT switches and answers the guide’s two fields', async () => {
    const reply = await rest.call('PUT', '/api/v1/loadbalancer/strategy', { body: { strategy: 'least_connections' } });
    expect(reply.status).toBe(200);
    expect(reply.body).toEqual({ strategy: 'least_connections', message: 'Load balancing strategy updated' });
    expect(app.calls).toEqual([['setStrategy', 'least_connections', 'tester']]);
  });

  test('an unknown strategy is 400, names those accepted and guesses the meant one', async () => {
    const reply = await rest.call('PUT', '/api/v1/loadbalancer/strategy', { body: { strategy: 'least_conections' } });
    expect(reply.status).toBe(400);
    expect(reply.headers['content-type']).toMatch(/^application\/problem\+json/);
    expect(reply.body).toEqual({
      type: '/api/v1/docs#invalid',
      title: 'A value is not accepted',
      status: 400,
      code: 'invalid',
      detail: expect.stringContaining('strategy: got "least_conections"'),
      errors: [
        {
          path: 'strategy',
          in: 'body',
          message:
            'got "least_conections", accepts one of round_robin, equal_weighted, weighted_round_robin, least_connections, least_response_time; did you mean least_connections?',
        },
      ],
    });
    expect(app.calls).toEqual([]);
  });
});

describe('loads', () => {
  test('every tracked instance has the guide’s fields first and a numeric twin of each time', async () => {
    const { body } = await rest.call('GET', '/api/v1/loadbalancer/loads');
    expect(body).toEqual({
      strategy: 'round_robin',
      count: 2,
      loads: {
        'vast-12345': {
          instance_id: 'vast-12345',
          provider: 'vast.ai',
          active_connections: 3,
          total_connections: 150,
          avg_response_time: '250ms',
          last_response_time: '245ms',
          weight: 1.5,
          last_used: '2024-01-12T10:30:00.000Z',
          avg_response_time_ms: 250.2,
          last_response_time_ms: 245,
        },
        'ionet-abc': {
          instance_id: 'ionet-abc',
          provider: 'io.net',
          active_connections: 0,
          total_connections: 0,
          avg_response_time: '0ms',
          last_response_time: '0ms',
          weight: 2,
          last_used: null,
          avg_response_time_ms: null,
          last_response_time_ms: null,
        },
      },
    });
  });

  test('one load is asked for by instance_id', async () => {
    const one = await rest.call('GET', '/api/v1/loadbalancer/load?instance_id=vast-12345');
    expect(one.body).toMatchObject({ instance_id: 'vast-12345', active_connections: 3 });
    const unknown = await rest.call('GET', '/api/v1/loadbalancer/load?instance_id=vast-1');
    expect(unknown.status).toBe(404);
    expect(unknown.body).toMatchObject({ code: 'not_found' });
    const none = await rest.call('GET', '/api/v1/loadbalancer/load');
    expect(none.status).toBe(400);
    expect(none.body).toMatchObject({ errors: [{ path: 'instance_id', in: 'query' }] });
  });
});

describe('offers and renting', () => {
  test('filters arrive as numbers and provider aliases as names', async () => {
    const reply = await rest.call(
      'GET',
      '/api/v1/gpu/instances?provider=vastai&min_vram=24&max_price=2.0&verified=true',
    );
    expect(reply.status).toBe(200);
    expect(reply.body).toMatchObject({
      count: 1,
      provider: 'vast.ai',
      instances: [{ id: '777', gpu_name: 'RTX 4090', vram_gb: 24, price_per_hour: 0.4, available: 1 }],
    });
    expect(app.calls[0]).toEqual(['offers', { minVramGb: 24, maxUsdPerHour: 2, provider: 'vast.ai', verified: true }]);
  });

  test.each([
    ['min_vram=lots', 'min_vram', 'got "lots", accepts a number'],
    ['min_vram=', 'min_vram', 'got "", accepts a number'],
    ['max_price=-1', 'max_price', 'got -1, accepts more than 0'],
    ['provider=aws', 'provider', 'got "aws", accepts one of'],
    ['min_vam=24', 'min_vam', 'unknown parameter; did you mean min_vram?'],
    ['min_vram=24&min_vram=48', 'min_vram', 'given more than once'],
  ])('?%s is refused with the reason, never ignored', async (query, path, message) => {
    const reply = await rest.call('GET', `/api/v1/gpu/instances?${query}`);
    expect(reply.status).toBe(400);
    const { errors } = reply.body as { errors: { path: string; message: string }[] };
    expect(errors[0]?.path).toBe(path);
    expect(errors[0]?.message).toContain(message);
    expect(app.calls).toEqual([]);
  });

  test('reserve answers the guide’s fields and says where the reservation is', async () => {
    const reply = await rest.call('POST', '/api/v1/gpu/instances/reserve', {
      body: {
        count: 2,
        filters: { min_vram: 24, max_price: 2.0 },
        config: { image: 'nvidia/cuda:12.0.0-base-ubuntu22.04' },
      },
      headers: { 'idempotency-key': 'abc' },
    });
    expect(reply.status).toBe(201);
    expect(reply.headers.location).toBe('/api/v1/reservations/res-1');
    const body = reply.body as { reserved: object[] };
    expect(Object.keys(body)).toEqual(['reserved', 'count', 'requested', 'errors', 'reservation_id']);
    expect(Object.keys(body.reserved[0]!).slice(0, 6)).toEqual([
      'instance_id',
      'contract_id',
      'provider',
      'gpu_model',
      'vram',
      'price',
    ]);
    expect(body.reserved[0]).toMatchObject({ price: 0.3, vram: 24, contract_id: '1' });
    expect(app.calls[0]?.[1]).toMatchObject({ count: 2, filter: { minVramGb: 24, maxUsdPerHour: 2 } });
    expect(app.calls[0]?.[2]).toEqual({ by: 'tester', idempotencyKey: 'abc' });
  });

  test.each([
    [{ count: 0 }, 'count', 'got 0, accepts at least 1'],
    [{ count: 17 }, 'count', 'got 17, accepts at most 16'],
    [{ count: 1.5 }, 'count', 'got 1.5, accepts a whole number'],
    [{ count: '4' }, 'count', 'got "4", accepts a number'],
    [{}, 'count', 'missing, accepts a number'],
    [[], '', 'got a list, accepts an object'],
    [{ count: 1, filters: { min_vram: '24' } }, 'filters.min_vram', 'got "24", accepts a number'],
    [{ count: 1, filters: { minVram: 24 } }, 'filters.minVram', 'did you mean min_vram?'],
    [{ count: 1, config: { env: { TOKEN: 5 } } }, 'config.env.TOKEN', 'got a value (hidden), accepts a text'],
    [{ count: 1, config: { ports: [0] } }, 'config.ports.0', 'got 0, accepts at least 1'],
  ])('a reservation of %j is refused and nothing is rented', async (body, path, message) => {
    const reply = await rest.call('POST', '/api/v1/gpu/instances/reserve', { body });
    expect(reply.status).toBe(400);
    const { errors } = reply.body as { errors: { path: string; message: string }[] };
    expect(errors[0]?.path).toBe(path);
    expect(errors[0]?.message).toContain(message);
    expect(app.calls).toEqual([]);
  });

  test('batch counts from 0 to 8 are taken as they are, others refused', async () => {
    const reply = await rest.call('POST', '/api/v1/gpu/instances/batch', {
      body: { vastai_count: 2, ionet_count: 1, filters: {}, config: {} },
    });
    expect(reply.status).toBe(201);
    expect(reply.body).toMatchObject({
      vastai_instances: ['1', '2'],
      ionet_instances: ['io-1'],
      total_created: 3,
      errors: [],
    });
    for (const body of [{ vastai_count: 9 }, { vastai_count: -1 }, { vastai_count: 0, ionet_count: 0 }, {}]) {
      expect((await rest.call('POST', '/api/v1/gpu/instances/batch', { body })).status).toBe(400);
    }
  });

  test('renting one offer takes its configuration as the body, or none', async () => {
    const plain = await rest.call('POST', '/api/v1/gpu/instances/vastai/777');
    expect(plain.status).toBe(201);
    expect(plain.body).toMatchObject({ contract_id: '9', provider: 'vast.ai', instance_id: 'vast-9' });
    await rest.call('POST', '/api/v1/gpu/instances/vast.ai/777', { body: { image: 'x', disk_gb: 20 } });
    expect(app.calls[1]?.[3]).toMatchObject({ image: 'x', diskGb: 20 });
  });

  test('destroying takes an instance id or a contract id, and what is gone counts as done', async () => {
    const byContract = await rest.call('DELETE', '/api/v1/gpu/instances/vastai/54321?now');
    expect(byContract.status).toBe(202);
    expect(byContract.body).toEqual({ instance_id: 'vast-12345', status: 'destroying' });
    expect(app.calls[0]).toEqual(['destroy', 'vast-12345', { now: true }]);
    const byId = await rest.call('DELETE', '/api/v1/gpu/instances/vastai/vast-12345');
    expect(byId.status).toBe(202);
    const gone = await rest.call('DELETE', '/api/v1/gpu/instances/vastai/42');
    expect(gone.status).toBe(200);
    expect(gone.body).toEqual({ instance_id: 'vast-42', status: 'gone' });
  });

  test('what the account has besides ours is never destroyed', async () => {
    const reply = await rest.call('DELETE', '/api/v1/gpu/instances/vastai/999');
    expect(reply.status).toBe(409);
    expect(app.calls).toEqual([]);
  });

  test.each([
    [new AppError('no_offers', 'No offer matches.', { details: ['vast.ai: none'] }), 409, 'no_offers'],
    [new AppError('incomplete', 'x'), 409, 'incomplete'],
    [new AppError('budget_exceeded', 'x'), 409, 'budget_exceeded'],
    [new AppError('no_credit', 'x'), 409, 'no_credit'],
    [new AppError('idempotency_mismatch', 'x'), 422, 'idempotency_mismatch'],
    [new AppError('provider_failed', 'x'), 502, 'provider_failed'],
    [new AppError('provider_timeout', 'x'), 504, 'provider_timeout'],
    [new AppError('read_only', 'x'), 403, 'read_only'],
    [new AppError('invalid', 'x'), 400, 'invalid'],
    [new ProviderError('vast.ai', 'rate_limited', 'x', { retryAfterMs: 1500 }), 503, 'unavailable'],
    [new ProviderError('vast.ai', 'timeout', 'x'), 504, 'provider_timeout'],
    [new ProviderError('vast.ai', 'auth', 'x'), 502, 'provider_failed'],
  ])('%s becomes its status', async (error, status, code) => {
    app.on({ reserve: () => Promise.reject(error) });
    const reply = await rest.call('POST', '/api/v1/gpu/instances/reserve', { body: { count: 1 } });
    expect(reply.status).toBe(status);
    expect(reply.body).toMatchObject({ code, status });
    if (code === 'unavailable') expect(reply.headers['retry-after']).toBe('2');
  });

  test('a bug is a 500 that says nothing of the inside, and goes to the log', async () => {
    const logged: object[] = [];
    await using other = await startRest(app, { logger: { error: (fields) => logged.push(fields) } });
    app.on({ reserve: () => Promise.reject(new TypeError('secret-of-the-inside')) });
    const reply = await other.call('POST', '/api/v1/gpu/instances/reserve', { body: { count: 1 } });
    expect(reply.status).toBe(500);
    expect(reply.text).not.toContain('secret-of-the-inside');
    expect(reply.text).not.toContain('.ts');
    expect(logged).toHaveLength(1);
  });

  test('the plan rents nothing', async () => {
    const reply = await rest.call('POST', '/api/v1/gpu/instances/plan', { body: { count: 1 } });
    expect(reply.status).toBe(200);
    expect(reply.body).toMatchObject({ count: 1, price_per_hour: 0.4, instances: [{ id: offerOf().id }] });
    expect(app.calls).toEqual([]);
  });
});

describe('fleet', () => {
  test('shows lifecycle, admin state, health, origin, price and load of each upstream', async () => {
    const { body } = await rest.call('GET', '/api/v1/fleet');
    expect(body).toMatchObject({
      count: 3,
      upstreams: [
        {
          instance_id: 'vast-12345',
          contract_id: '54321',
          lifecycle: { phase: 'running' },
          admin: { mode: 'ready', deadline: null },
          health: { state: 'up' },
          price_per_hour: 0.79,
          load: { active_connections: 3 },
        },
        { health: { state: 'ejected', times: 2, why: 'refused' } },
        { lifecycle: { phase: 'ended', detail: 'destroyed' } },
      ],
      foreign: [{ contract_id: '999' }],
    });
    expect((await rest.call('GET', '/api/v1/fleet/vast-12345')).status).toBe(200);
    expect((await rest.call('GET', '/api/v1/fleet/vast-0')).status).toBe(404);
  });

  test('drain, resume, weight, extend, logs, destroy, adopt', async () => {
    const drained = await rest.call('POST', '/api/v1/fleet/vast-12345/drain', { body: { deadline_seconds: 5 } });
    expect(drained.body).toMatchObject({ admin: { mode: 'drain', deadline: '2024-01-12T10:30:05.000Z' } });
    expect((await rest.call('POST', '/api/v1/fleet/vast-12345/drain')).status).toBe(200);
    expect((await rest.call('POST', '/api/v1/fleet/vast-12345/resume')).body).toMatchObject({
      admin: { mode: 'ready' },
    });
    expect((await rest.call('PUT', '/api/v1/fleet/vast-12345/weight', { body: { weight: 4 } })).body).toMatchObject({
      weight: 4,
      weight_source: 'operator',
    });
    expect((await rest.call('PUT', '/api/v1/fleet/vast-12345/weight', { body: { weight: null } })).body).toMatchObject({
      weight_source: 'formula',
    });
    expect((await rest.call('POST', '/api/v1/fleet/ionet-abc/extend', { body: { hours: 2 } })).status).toBe(200);
    expect((await rest.call('GET', '/api/v1/fleet/vast-12345/logs?tail=2')).body).toEqual({
      instance_id: 'vast-12345',
      lines: ['one', 'two'],
    });
    expect((await rest.call('DELETE', '/api/v1/fleet/vast-12345?now=true')).status).toBe(202);
    expect((await rest.call('DELETE', '/api/v1/fleet/nobody')).status).toBe(404);
    const adopted = await rest.call('POST', '/api/v1/fleet/adopt', { body: { provider: 'vast', contract_id: '999' } });
    expect(adopted.status).toBe(201);
    expect(app.calls.at(-1)).toEqual(['adopt', 'vast.ai', '999']);
  });

  test('a server one has is added by URL and removed; a URL with credentials is refused', async () => {
    const added = await rest.call('POST', '/api/v1/upstreams', {
      body: { name: 'mine', url: 'http://127.0.0.1:9000' },
    });
    expect(added.status).toBe(201);
    expect((await rest.call('DELETE', '/api/v1/upstreams/vast-12345')).status).toBe(204);
    for (const url of ['http://me:hunter22@host', 'ftp://host', 'nonsense', 'file:///etc/passwd']) {
      const refused = await rest.call('POST', '/api/v1/upstreams', { body: { url } });
      expect(refused.status).toBe(400);
      expect(refused.text).not.toContain('hunter22');
    }
  });

  test('credentials in an origin are not shown', async () => {
    app.change({ upstreams: [upstreamView({ origin: 'http://me:hunter22@host:1' })] });
    const { text } = await rest.call('GET', '/api/v1/fleet');
    expect(text).not.toContain('hunter22');
    expect(text).toContain('http://host:1');
  });
});

test('an unknown word gets the nearest known one, and none where nothing is near', async () => {
  const near = await rest.call('GET', '/api/v1/gpu/instances?min_vrm=24');
  expect(JSON.stringify(near.body)).toContain('unknown parameter; did you mean min_vram?');
  const far = await rest.call('GET', '/api/v1/gpu/instances?zzzzzz=24');
  expect(JSON.stringify(far.body)).toContain('unknown parameter, accepts ');
  expect(JSON.stringify(far.body)).not.toContain('undefined');
});

describe('providers, reservations, cost, decisions, requests, state', () => {
  test('providers say what is available and the total', async () => {
    const { body } = await rest.call('GET', '/api/v1/providers');
    expect(body).toMatchObject({ total_available: 70, providers: [{ provider: 'vast.ai', available: 42 }, {}] });
    expect((await rest.call('POST', '/api/v1/providers/refresh')).status).toBe(200);
    expect(app.calls).toEqual([['refresh']]);
  });

  test('reservations are listed, shown and released', async () => {
    expect((await rest.call('GET', '/api/v1/reservations')).body).toMatchObject({ count: 1 });
    expect((await rest.call('GET', '/api/v1/reservations/res-1')).body).toMatchObject({ reservation_id: 'res-1' });
    expect((await rest.call('GET', '/api/v1/reservations/res-0')).status).toBe(404);
    expect((await rest.call('DELETE', '/api/v1/reservations/res-1')).body).toEqual({
      reservation_id: 'res-1',
      released: ['vast-12345', 'ionet-abc'],
      failed: [],
    });
    expect((await rest.call('DELETE', '/api/v1/reservations/res-0')).status).toBe(404);
  });

  test('cost, decisions and requests answer as described', async () => {
    expect((await rest.call('GET', '/api/v1/cost')).body).toMatchObject({ usd_per_hour: 0 });
    expect((await rest.call('GET', '/api/v1/decisions?limit=5')).body).toMatchObject({ count: 1 });
    expect((await rest.call('GET', '/api/v1/requests?slowest=true&instance_id=vast-12345')).body).toMatchObject({
      count: 1,
      requests: [{ path: '/v1/chat/completions' }],
    });
  });

  test('the state is the whole snapshot', async () => {
    const { body } = await rest.call('GET', '/api/v1/state');
    expect(body).toEqual(JSON.parse(JSON.stringify(app.state.get())));
  });
});

describe('probes', () => {
  test('versions are told to who may read, and to nobody else', async () => {
    const { body } = await rest.call('GET', '/api/v1/version');
    expect(body).toEqual({ version: 'unknown', node: process.versions.node });
    expect((await rest.call('GET', '/api/v1/version', { key: null })).status).toBe(401);
  });

  test('liveness and readiness need no key', async () => {
    expect((await rest.call('GET', '/healthz', { key: null })).body).toEqual({ status: 'ok' });
    expect((await rest.call('GET', '/readyz', { key: null })).body).toEqual({ status: 'ready', eligible: 1 });
    app.change({ upstreams: [] });
    const reply = await rest.call('GET', '/readyz', { key: null });
    expect(reply.status).toBe(503);
    expect(reply.body).toMatchObject({ code: 'not_ready' });
  });
});
