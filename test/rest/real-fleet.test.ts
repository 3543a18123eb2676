import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { LocalApp, Snapshot } from '../../src/fleet/app.ts';
import { snapshot as snapshotSchema } from '../../src/rest/schemas.ts';
import { createStage, type Stage } from '../fleet/fixture.ts';
import { eventually } from '../helpers/eventually.ts';
import { openSse, type Rest, startRest } from './harness.ts';

let stage: Stage;
let app: LocalApp;
let rest: Rest;

beforeAll(async () => {
  stage = await createStage({ seed: 3, offers: { vast: 60, ionet: 20 } });
  app = await stage.start({ flags: { MAX_USD_PER_HOUR: 100 } });
  rest = await startRest(app);
  await eventually(() => app.state.get().providers.every((provider) => provider.status === 'ok'), 'both providers');
});
afterAll(async () => {
  await rest[Symbol.asyncDispose]();
  await stage[Symbol.asyncDispose]();
});

type Reserved = {
  reserved: { instance_id: string; contract_id: string; provider: string; vram: number; price: number }[];
  count: number;
  reservation_id: string;
};
const reserve = (body: object, headers: Record<string, string> = {}) =>
  rest.call('POST', '/api/v1/gpu/instances/reserve', { body, headers });
const contracts = () => stage.simulator.instances().length;

describe('the control plane over a real fleet and the simulated marketplaces', () => {
  test('offers come from both, cheapest first, filtered as asked', async () => {
    const all = (await rest.call('GET', '/api/v1/gpu/instances')).body as {
      instances: { provider: string; price_per_hour: number; vram_gb: number }[];
      count: number;
    };
    expect(all.count).toBe(all.instances.length);
    expect(new Set(all.instances.map((offer) => offer.provider))).toEqual(new Set(['vast.ai', 'io.net']));
    const big = (await rest.call('GET', '/api/v1/gpu/instances?provider=vast&min_vram=40&max_price=5'))
      .body as typeof all;
    expect(big.instances.every((o) => o.provider === 'vast.ai' && o.vram_gb >= 40 && o.price_per_hour <= 5)).toBe(true);
  });

  test('a reservation is rented, boots, is in the loads, drains and is released', async () => {
    const reply = await reserve({ count: 3, filters: { min_vram: 24, max_price: 3 }, config: { image: 'x/y' } });
    expect(reply.status).toBe(201);
    const { reserved, reservation_id: id } = reply.body as Reserved;
    expect(reserved).toHaveLength(3);
    expect(reserved.every((item) => item.vram >= 24 && item.price <= 3)).toBe(true);
    const ids = reserved.map((item) => item.instance_id);

    const loads = (await rest.call('GET', '/api/v1/loadbalancer/loads')).body as { loads: Record<string, object> };
    expect(Object.keys(loads.loads).sort()).toEqual([...ids].sort());
    await eventually(
      async () => (await rest.call('GET', '/readyz', { key: null })).status === 200,
      'an eligible upstream',
    );
    await eventually(async () => {
      const { body } = await rest.call('GET', '/api/v1/fleet');
      return (body as { upstreams: { eligible: boolean }[] }).upstreams.filter((u) => u.eligible).length === 3;
    }, 'three eligible upstreams');

    const drained = await rest.call('POST', `/api/v1/fleet/${ids[0]}/drain`);
    expect(drained.body).toMatchObject({ admin: { mode: 'drain' }, eligible: false, state: 'DRAIN' });
    expect((await rest.call('POST', `/api/v1/fleet/${ids[0]}/resume`)).body).toMatchObject({
      admin: { mode: 'ready' },
    });
    const weighed = await rest.call('PUT', `/api/v1/fleet/${ids[0]}/weight`, { body: { weight: 7 } });
    expect(weighed.body).toMatchObject({ weight: 7, weight_source: 'operator' });
    expect((await rest.call('GET', `/api/v1/loadbalancer/load?instance_id=${ids[0]}`)).body).toMatchObject({
      weight: 7,
    });
    expect((await rest.call('GET', `/api/v1/fleet/${ids[0]}/logs?tail=5`)).status).toBe(200);

    expect((await rest.call('GET', `/api/v1/reservations/${id}`)).body).toMatchObject({
      requested: 3,
      state: 'active',
    });
    const released = await rest.call('DELETE', `/api/v1/reservations/${id}?now=true`);
    expect([200, 202]).toContain(released.status);
    await eventually(() => contracts() === 0, 'nothing left at the providers');
  });

  test('the same Idempotency-Key rents once; with another body it is 422', async () => {
    const headers = { 'idempotency-key': 'once' };
    const first = await reserve({ count: 1 }, headers);
    const again = await reserve({ count: 1 }, headers);
    expect(first.status).toBe(201);
    expect(again.status).toBe(201);
    expect(again.body).toEqual(first.body);
    expect(again.headers['idempotency-replayed']).toBe('true');
    expect((await reserve({ count: 2 }, headers)).status).toBe(422);
    expect(contracts()).toBe(1);
    const [item] = (first.body as Reserved).reserved;
    const word = item?.provider === 'vast.ai' ? 'vastai' : 'ionet';
    const gone = await rest.call('DELETE', `/api/v1/gpu/instances/${word}/${item?.contract_id}?now=true`);
    expect([200, 202]).toContain(gone.status);
    await eventually(() => contracts() === 0, 'nothing left at the providers');
    expect((await rest.call('DELETE', `/api/v1/gpu/instances/${word}/${item?.contract_id}`)).body).toMatchObject({
      status: expect.stringMatching(/gone|destroyed/),
    });
  });

  test('nothing matching is 409, over the budget is 409, and neither rents', async () => {
    const none = await reserve({ count: 1, filters: { gpu_model: 'no such card' } });
    expect(none.status).toBe(409);
    expect(none.body).toMatchObject({ code: 'no_offers' });
    const partly = await reserve({ count: 16, filters: { gpu_model: 'H200' }, all_or_nothing: true });
    expect([409, 201]).toContain(partly.status);
    if (partly.status === 201) {
      await rest.call('DELETE', `/api/v1/reservations/${(partly.body as Reserved).reservation_id}?now=true`);
    }
    await eventually(() => contracts() === 0, 'nothing left at the providers');
    const unknown = await rest.call('POST', '/api/v1/gpu/instances/vastai/1');
    expect([404, 409]).toContain(unknown.status);
  });

  test('a provider in trouble is named in the answer of the other', async () => {
    stage.simulator.faults.add({ kind: 'error', status: 503, provider: 'vast', route: 'search' });
    const reply = await eventually(async () => {
      const answer = await rest.call('GET', '/api/v1/gpu/instances');
      return (answer.body as { errors: object[] }).errors.length > 0 ? answer : null;
    }, 'the trouble to be told');
    stage.simulator.faults.clear();
    expect(reply?.status).toBe(200);
    expect(reply?.body).toMatchObject({
      errors: [{ provider: 'vast.ai' }],
      instances: expect.arrayContaining([expect.objectContaining({ provider: 'io.net' })]),
    });
  });

  test('batch rents from each provider as many as asked', async () => {
    const reply = await rest.call('POST', '/api/v1/gpu/instances/batch', {
      body: { vastai_count: 1, ionet_count: 1, filters: { max_price: 4 }, config: {} },
    });
    expect(reply.status).toBe(201);
    const body = reply.body as { vastai_instances: string[]; ionet_instances: string[]; total_created: number };
    expect(body.vastai_instances).toHaveLength(1);
    expect(body.ionet_instances).toHaveLength(1);
    expect(body.total_created).toBe(2);
    expect(
      stage.simulator
        .instances()
        .map((instance) => String(instance.contract))
        .sort(),
    ).toEqual([...body.vastai_instances, ...body.ionet_instances].sort());
  });

  test('state, events, metrics, cost, decisions and keys speak of the same fleet', async () => {
    const { body } = await rest.call('GET', '/api/v1/state');
    const snapshot = snapshotSchema.parse(body) as Snapshot;
    expect(snapshot.upstreams.length).toBeGreaterThanOrEqual(2);
    expect(body).toEqual(JSON.parse(JSON.stringify(snapshot)));

    const events = await openSse(rest.url, '/api/v1/events?last_event_id=0', { 'x-api-key': rest.adminKey });
    const first = await events.next();
    expect(first.data).toMatchObject({ id: Number(first.id) });
    await rest.call('PUT', '/api/v1/loadbalancer/strategy', { body: { strategy: 'least_response_time' } });
    for (;;) if ((await events.next()).event === 'strategy') break;
    events.close();
    expect((await rest.call('GET', '/api/v1/loadbalancer/strategy')).body).toEqual({ strategy: 'least_response_time' });

    const metrics = await rest.call('GET', '/metrics', { key: null });
    expect(metrics.text).toContain('gpuproxy_strategy_info{strategy="least_response_time"} 1');
    expect((await rest.call('GET', '/api/v1/cost')).status).toBe(200);
    expect((await rest.call('GET', '/api/v1/decisions')).status).toBe(200);
    expect((await rest.call('GET', '/api/v1/requests')).status).toBe(200);
    expect((await rest.call('GET', '/api/v1/providers')).status).toBe(200);

    const made = await rest.call('POST', '/api/v1/keys', { body: { name: 'reader', scope: 'read' } });
    const { key, id } = made.body as { key: string; id: string };
    expect((await rest.call('GET', '/api/v1/fleet', { key })).status).toBe(200);
    expect((await rest.call('DELETE', `/api/v1/keys/${id}`)).status).toBe(204);
    expect((await rest.call('GET', '/api/v1/fleet', { key })).status).toBe(401);
  });

  test('a server one has joins by URL, is probed, and leaves', async () => {
    const origin = app.state.get().upstreams.find((upstream) => upstream.origin !== null)?.origin;
    const added = await rest.call('POST', '/api/v1/upstreams', { body: { name: 'mine', url: origin } });
    expect(added.status).toBe(201);
    const { instance_id: id } = added.body as { instance_id: string };
    await eventually(
      async () => ((await rest.call('GET', `/api/v1/fleet/${id}`)).body as { eligible: boolean }).eligible,
      'the added server to be eligible',
    );
    const twice = await rest.call('POST', '/api/v1/upstreams', { body: { name: 'mine', url: origin } });
    expect(twice.status).toBe(409);
    expect((await rest.call('DELETE', `/api/v1/upstreams/${id}`)).status).toBe(204);
    expect((await rest.call('DELETE', '/api/v1/upstreams/nobody')).status).toBe(404);
  });
});
