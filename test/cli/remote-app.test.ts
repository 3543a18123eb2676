import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { CliError } from '../../src/cli/exit.ts';
import { connectApp, type RemoteApp } from '../../src/cli/remote-app.ts';
import { AppError, type LocalApp } from '../../src/fleet/app.ts';
import { createRestServer } from '../../src/rest/create-server.ts';
import { createStage, type Stage } from '../fleet/fixture.ts';
import { eventually } from '../helpers/eventually.ts';

const key = 'a-key-of-the-remote-test';
let stage: Stage;
let local: LocalApp;
let rest: Awaited<ReturnType<typeof createRestServer>>;
let remote: RemoteApp;

beforeAll(async () => {
  stage = await createStage({ seed: 5 });
  local = await stage.start({ timing: { rentTimeoutMs: 20_000 } });
  local.keys.ensure(key, { name: 'operator', scope: 'admin' });
  rest = await createRestServer({ app: local, host: '127.0.0.1', port: 0 });
  remote = await connectApp({ url: rest.url, key });
  await eventually(() => local.state.get().providers.every((provider) => provider.status === 'ok'), 'both providers');
}, 30_000);
afterAll(async () => {
  await remote[Symbol.asyncDispose]();
  await rest.close();
  await stage[Symbol.asyncDispose]();
});

describe('a server elsewhere as an App', () => {
  test('its snapshot is that of the server, and follows it', async () => {
    await eventually(() => remote.state.get().providers.every((provider) => provider.status === 'ok'), 'the same data');
    let told = 0;
    const stop = remote.state.subscribe(() => {
      told += 1;
    });
    await local.setStrategy('equal_weighted', 'test');
    await eventually(() => remote.state.get().strategy.name === 'equal_weighted', 'the switch');
    stop();
    expect(told).toBeGreaterThan(0);
    await eventually(() => remote.state.get().version === local.state.get().version, 'the newest version');
    expect(remote.state.get()).toEqual(local.state.get());
  });

  test('every command reaches the server and the result comes back in the words of the App', async () => {
    expect(await remote.setStrategy('least_connections', 'ignored')).toEqual({
      strategy: 'least_connections',
      previous: 'equal_weighted',
    });
    expect(local.state.get().strategy.name).toBe('least_connections');

    const filter = { maxUsdPerHour: 2, gpuCount: 1 };
    const offers = await remote.offers(filter);
    expect(offers.offers.length).toBeGreaterThan(0);
    expect(offers.offers.every((offer) => offer.usdPerHour <= 2 && offer.gpuCount === 1)).toBe(true);
    expect(await remote.plan({ count: 2, filter, config: {} })).toMatchObject({ count: 2, requested: 2, errors: [] });

    const wish = { count: 2, filter, config: { image: 'a/b', durationHours: 2 } };
    const first = await remote.reserve(wish, { idempotencyKey: 'remote-1' });
    expect(first).toMatchObject({ count: 2, requested: 2, errors: [] });
    const again = await remote.reserve(wish, { idempotencyKey: 'remote-1' });
    expect(again.reserved).toEqual(first.reserved);
    expect(stage.simulator.ledger()).toHaveLength(2);

    const id = first.reserved[0]?.instanceId ?? '';
    await eventually(() => remote.state.get().upstreams.find((row) => row.id === id)?.state === 'OK', 'rotation');
    expect(await remote.drain(id, { deadlineMs: 60_000 })).toMatchObject({ id, admin: { mode: 'drain' } });
    expect(await remote.resume(id)).toMatchObject({ id, admin: { mode: 'ready' } });
    expect(await remote.setWeight(id, 4)).toMatchObject({ weight: 4, weightSource: 'operator' });
    expect((await remote.logs(id, { tail: 3 })).length).toBeGreaterThan(0);
    expect(await remote.decisions({ limit: 5 })).toEqual([]);
    expect(await remote.requests({ limit: 5, slowest: true })).toEqual([]);
    await remote.refresh();

    expect(await remote.addUpstream({ name: 'lab', url: 'http://127.0.0.1:9' })).toMatchObject({ id: 'static-lab' });
    await remote.removeUpstream('static-lab');
    expect(remote.state.get().upstreams.some((row) => row.id === 'static-lab')).toBe(false);

    expect(await remote.destroy(id, { now: true })).toEqual({ id, status: 'destroyed' });
    const released = await remote.releaseReservation(first.reservation, { now: true });
    expect(released.failed).toEqual([]);
    expect(stage.simulator.instances()).toEqual([]);
  }, 60_000);

  // A dozen paid calls, of three seconds each in part: on a machine that others keep busy twice as long and more.
  test('a rental is followed by its key and stopped', async () => {
    const wish = { vast: 1, ionet: 1, filter: { maxUsdPerHour: 4 }, config: {} };
    expect(await remote.planBatch(wish)).toMatchObject({ count: 2, requested: 2, errors: [] });
    const slow = stage.simulator.faults.add({ kind: 'latency', ms: 3000, route: 'rent' });
    const before = stage.simulator.ledger().length;
    const work = remote.reserve(
      { count: 8, filter: {}, config: {}, maxTotalUsdPerHour: 100 },
      { idempotencyKey: 'remote-2' },
    );
    const refused = work.catch((error: AppError) => error.code);
    const following = await eventually(() => remote.reservationOf('remote-2'), 'paid calls under way');
    expect(following).toMatchObject({ state: 'renting', requested: 8, ended: [] });
    const result = await remote.cancel('remote-2');
    expect(await refused).toBe('incomplete');
    expect(result).toMatchObject({ reservation: following?.id, kept: [] });
    await eventually(() => stage.simulator.instances().length === 0, 'nothing rented');
    expect(stage.simulator.ledger().length - before).toBeLessThan(8);
    expect(await remote.reservationOf('remote-3')).toBeNull();
    stage.simulator.faults.remove(slow.id);
    const [offer] = (await remote.offers({ provider: 'vast.ai' })).offers;
    const rent = () =>
      remote.rentOffer('vast.ai', offer?.id ?? '', {}, { idempotencyKey: 'remote-4', maxUsdPerHour: 100 });
    expect(await rent()).toEqual(await rent());
    expect((await remote.cancel('remote-4')).released).toEqual([`vast-${offer?.id}`]);
  }, 60_000);

  test('refusals come as AppErrors with the code of the server', async () => {
    await expect(remote.drain('vast-nothing')).rejects.toMatchObject({ name: 'AppError', code: 'not_found' });
    await expect(remote.plan({ count: 17, filter: {}, config: {} })).rejects.toMatchObject({ code: 'invalid' });
    await expect(remote.reserve({ count: 1, filter: { gpuModel: 'no such card' }, config: {} })).rejects.toMatchObject({
      code: 'no_offers',
    });
  });

  test('events come with their ids, none twice', async () => {
    await eventually(() => remote.events.recent().at(-1)?.id === local.events.recent().at(-1)?.id, 'the last event');
    const ids = remote.events.recent().map((event) => event.id);
    expect(ids).toEqual([...new Set(ids)].sort((a, b) => a - b));
    expect(remote.events.recent().at(-1)).toEqual(local.events.recent().at(-1));
  });

  test('a server that goes away leaves its data, counts as stale, and is followed again when it is back', async () => {
    const { port } = rest;
    const before = remote.state.get();
    await rest.close();
    await eventually(() => remote.connection.get().state === 'stale', 'stale');
    expect(remote.connection.get()).toMatchObject({ retryAt: expect.any(Number), detail: expect.any(String) });
    expect(remote.state.get().upstreams).toEqual(before.upstreams);
    await expect(remote.setStrategy('round_robin', 'x')).rejects.toMatchObject({ code: 'disconnected' });

    await local.setStrategy('weighted_round_robin', 'test');
    rest = await createRestServer({ app: local, host: '127.0.0.1', port });
    await eventually(() => remote.connection.get().state === 'live', 'live again');
    await eventually(() => remote.state.get().strategy.name === 'weighted_round_robin', 'what changed meanwhile');
    await eventually(
      () => remote.events.recent().some((event) => event.message.includes('weighted_round_robin')),
      'the event that it missed',
    );
  });

  test('a retry that is asked for does not wait for its turn', async () => {
    const { port } = rest;
    await rest.close();
    // Pauses grow to ten seconds: by then an attempt that comes at once is one that was asked for.
    await eventually(() => (remote.connection.get().retryAt ?? 0) - Date.now() > 6000, 'a long pause');
    const planned = remote.connection.get().retryAt;
    remote.connection.retry?.();
    await new Promise((resolve) => setImmediate(resolve));
    expect(remote.connection.get().retryAt).not.toBe(planned);
    rest = await createRestServer({ app: local, host: '127.0.0.1', port });
    await eventually(() => {
      remote.connection.retry?.();
      return remote.connection.get().state === 'live';
    }, 'live again');
  }, 60_000);

  test('a wrong key and a wrong address are told at once, with their exit codes', async () => {
    const wrongKey = await connectApp({ url: rest.url, key: 'wrong-wrong-wrong' }).catch((error: unknown) => error);
    expect(wrongKey).toBeInstanceOf(CliError);
    expect(wrongKey).toMatchObject({ exitCode: 4 });
    const nobody = await connectApp({ url: 'http://127.0.0.1:9', key }).catch((error: unknown) => error);
    expect(nobody).toMatchObject({ exitCode: 3 });
    expect(String((nobody as Error).message)).not.toContain(key);
  });

  test('a key that may only read can look, and its commands are refused as read-only', async () => {
    const { key: readKey } = local.keys.create({ name: 'reader', scope: 'read' });
    await using reader = await connectApp({ url: rest.url, key: readKey });
    expect(reader.state.get().strategy.name).toBe('weighted_round_robin');
    expect(reader.readonly).toBe(true);
    expect(remote.readonly).toBe(false);
    const refusal = await reader.setStrategy('round_robin', 'x').catch((error: unknown) => error);
    expect(refusal).toBeInstanceOf(AppError);
    expect(refusal).toMatchObject({ code: 'read_only' });
  });
});
