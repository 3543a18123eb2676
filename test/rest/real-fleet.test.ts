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
  app = await stage.start({ flags: { MAX_USD_PER_HOUR: 100 }, timing: { rentTimeoutMs: 20_000 } });
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

  test('what only the fleet can see to be wrong names its field as well', async () => {
    const refused = [
      [{ count: 3, filters: { gpu_count: 2 } }, 'filters.gpu_count'],
      [{ count: 1, filters: { max_price: 1 }, config: { max_bid: 2 } }, 'config.max_bid'],
    ] as const;
    for (const [body, path] of refused) {
      const reply = await reserve(body);
      expect(reply.status).toBe(400);
      const { detail, errors } = reply.body as { detail: string; errors: { path: string; message: string }[] };
      expect(errors).toEqual([{ path, in: 'body', message: expect.any(String) }]);
      expect(detail).toBe(`${path}: ${errors[0]?.message}`);
    }
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

  test('what rents one offer, or a batch, is paid once with an Idempotency-Key as well', async () => {
    const before = stage.simulator.ledger().length;
    const { instances } = (await rest.call('GET', '/api/v1/gpu/instances?provider=vast')).body as {
      instances: { id: string; price_per_hour: number }[];
    };
    const [offer, other] = instances;
    const headers = { 'idempotency-key': 'one-offer' };
    const rent = (id: string | undefined, body: object) =>
      rest.call('POST', `/api/v1/gpu/instances/vastai/${id}`, { body, headers });
    const first = await rent(offer?.id, { max_price: (offer?.price_per_hour ?? 0) * 1.02 });
    expect(first.status).toBe(201);
    const again = await rent(offer?.id, {});
    expect([again.status, again.headers['idempotency-replayed']]).toEqual([201, 'true']);
    expect(again.body).toEqual(first.body);
    expect((await rent(other?.id, {})).status).toBe(422);
    const dear = await rest.call('POST', `/api/v1/gpu/instances/vastai/${other?.id}`, { body: { max_price: 0.001 } });
    expect(dear).toMatchObject({ status: 409, body: { code: 'conflict' } });

    const body = { vastai_count: 1, ionet_count: 1, filters: { max_price: 4 } };
    const plan = await rest.call('POST', '/api/v1/gpu/instances/batch/plan', { body });
    expect(plan.body).toMatchObject({ count: 2, requested: 2, instances: [{}, {}], errors: [] });
    const batch = () =>
      rest.call('POST', '/api/v1/gpu/instances/batch', { body, headers: { 'idempotency-key': 'two' } });
    const made = await batch();
    const repeated = await batch();
    expect(repeated.headers['idempotency-replayed']).toBe('true');
    expect(repeated.body).toEqual(made.body);
    expect(stage.simulator.ledger().length - before).toBe(3);
    for (const key of ['one-offer', 'two']) {
      const reply = await rest.call('POST', '/api/v1/reservations/cancel', { body: { idempotency_key: key } });
      expect([200, 202]).toContain(reply.status);
    }
    await eventually(() => contracts() === 2, 'only the batch of before');
  });

  test('a client that leaves in the middle leaves no halves: it is finished, found by its key, and can be cancelled', async () => {
    const before = stage.simulator.ledger().length;
    const slow = stage.simulator.faults.add({ kind: 'latency', ms: 3000, route: 'rent' });
    const client = new AbortController();
    const ask = (key: string, signal?: AbortSignal) =>
      fetch(`${rest.url}/api/v1/gpu/instances/reserve`, {
        method: 'POST',
        headers: { 'x-api-key': rest.adminKey, 'content-type': 'application/json', 'idempotency-key': key },
        body: JSON.stringify({ count: 6 }),
        ...(signal ? { signal } : {}),
      });
    const left = ask('leaving', client.signal).catch((error: Error) => error.name);
    await eventually(() => app.reservationOf('leaving'), 'paid calls under way');
    client.abort();
    expect(await left).toBe('AbortError');
    const found = async () => {
      const { body } = await rest.call('GET', '/api/v1/reservations?idempotency_key=leaving');
      return (body as { reservations: { state: string; instances: string[] }[] }).reservations[0];
    };
    await eventually(async () => (await found())?.state === 'active', 'the whole of it');
    expect((await found())?.instances).toHaveLength(6);
    expect(stage.simulator.ledger().length - before).toBe(6);
    expect((await ask('leaving')).headers.get('idempotency-replayed')).toBe('true');

    const stopped = ask('stopping');
    await eventually(() => app.reservationOf('stopping'), 'other paid calls under way');
    const cancelled = await rest.call('POST', '/api/v1/reservations/cancel', {
      body: { idempotency_key: 'stopping', keep: true },
    });
    const { kept } = cancelled.body as { kept: string[] };
    expect(cancelled.status).toBe(200);
    expect(kept.length).toBeGreaterThan(0);
    expect(kept.length).toBeLessThan(6);
    const answer = (await (await stopped).json()) as Reserved & { errors: string[] };
    expect(answer.reserved.map((item) => item.instance_id).sort()).toEqual(kept.toSorted());
    expect(answer.errors).toContain('cancelled: nothing more was rented');
    stage.simulator.faults.remove(slow.id);
    for (const key of ['leaving', 'stopping']) {
      await rest.call('POST', '/api/v1/reservations/cancel', { body: { idempotency_key: key } });
    }
    await eventually(() => contracts() === 2, 'only the batch of before');
    const unknown = await rest.call('POST', '/api/v1/reservations/cancel', { body: { idempotency_key: 'never' } });
    expect(unknown.status).toBe(404);
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
