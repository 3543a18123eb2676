import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { expect, test as serial } from 'vitest';
import { monotonicMs } from '../../src/clock.ts';
import { createBalancer } from '../../src/core/balancer.ts';
import { LoadTable } from '../../src/core/load-table.ts';
import type { AppError, FleetEvent } from '../../src/fleet/app.ts';
import { createApp } from '../../src/fleet/create-app.ts';
import { type Provider, ProviderError } from '../../src/providers/provider.ts';
import type { Simulator } from '../../src/sim/simulator.ts';
import { aliveContracts, createStage, testConfig, until } from './fixture.ts';

// Each has marketplaces and a ledger of its own, and most of its time is waiting.
const test = serial.concurrent;

const codeOf = (work: Promise<unknown>) =>
  work.then(
    () => 'done',
    (error: AppError) => error.code,
  );

async function rentByHand({ vastUrl, vastKey }: Simulator, offer: string, label: string): Promise<string> {
  const rented = await fetch(`${vastUrl}/api/v0/asks/${offer}/`, {
    method: 'PUT',
    headers: { authorization: `Bearer ${vastKey}`, 'content-type': 'application/json' },
    body: JSON.stringify({ client_id: 'me', image: 'x:y', disk: 10, label, env: { '-p 8000:8000': '1' } }),
  });
  return String(((await rented.json()) as { new_contract: number }).new_contract);
}

test('an instance that vanishes at the provider ends with the reason, and leaves the load table', async () => {
  await using stage = await createStage();
  const app = await stage.start();
  const { reserved } = await app.reserve({ count: 2, filter: { provider: 'vast.ai' }, config: {} });
  await until('both up', () => app.dataPlane.directory().length === 2);
  const [gone] = reserved;
  await fetch(`${stage.simulator.vastUrl}/api/v0/instances/${gone?.contractId}/`, {
    method: 'DELETE',
    headers: { authorization: `Bearer ${stage.simulator.vastKey}` },
  });
  const view = await until('ended', () =>
    app.state.get().upstreams.find((item) => item.id === gone?.instanceId && item.lifecycle.phase === 'ended'),
  );
  expect(view).toMatchObject({ state: 'ENDED', eligible: false, origin: null });
  expect(view.reason).toContain('vast.ai');
  expect(app.dataPlane.directory()).toHaveLength(1);
  expect(app.state.get().reservations).toMatchObject([{ state: 'partial' }]);
  expect(app.events.recent().some((event) => event.kind === 'rental' && event.message.includes('ended'))).toBe(true);
});

test('whoever asks something of an instance that has ended is told that it has, and why', async () => {
  await using stage = await createStage();
  const app = await stage.start();
  const { reserved } = await app.reserve({ count: 1, filter: {}, config: {} });
  const id = reserved[0]?.instanceId ?? '';
  await app.destroy(id, { now: true });
  await until('ended', () => app.state.get().upstreams[0]?.state === 'ENDED');
  for (const work of [app.logs(id), app.drain(id), app.setWeight(id, 2), app.extend(id, 1)]) {
    const error = await work.then(
      () => null,
      (refused: AppError) => refused,
    );
    expect(error).toMatchObject({ code: 'conflict', message: expect.stringMatching(/has ended at \S+Z: by command/) });
  }
  expect(await codeOf(app.logs('vast-1'))).toBe('not_found');
  // Also when it is no longer in the picture.
  await app[Symbol.asyncDispose]();
  const next = await stage.start({ timing: { endedShownMs: 0 } });
  await until('forgotten', () => next.state.get().upstreams.length === 0);
  expect(await codeOf(next.logs(id))).toBe('conflict');
});

test('an instance that stops at the provider leaves rotation and is not billed meanwhile', async () => {
  await using stage = await createStage();
  const app = await stage.start();
  const { reserved } = await app.reserve({ count: 1, filter: { provider: 'vast.ai' }, config: {} });
  const id = reserved[0]?.instanceId ?? '';
  await until('up', () => app.state.get().upstreams[0]?.eligible);
  const state = (value: string) =>
    fetch(`${stage.simulator.vastUrl}/api/v0/instances/${reserved[0]?.contractId}/`, {
      method: 'PUT',
      headers: { authorization: `Bearer ${stage.simulator.vastKey}`, 'content-type': 'application/json' },
      body: JSON.stringify({ state: value }),
    });
  await state('stopped');
  const view = await until('out of rotation', () => {
    const found = app.state.get().upstreams.find((item) => item.id === id);
    return found?.state === 'STOPPED' && !found.eligible ? found : null;
  });
  expect(view.reason).toContain('stopped');
  await state('running');
  await until('back in rotation', () => app.state.get().upstreams[0]?.eligible);
});

test('an instance that fails before it ever ran is destroyed, because it would cost money for ever', async () => {
  await using stage = await createStage();
  stage.simulator.faults.add({ kind: 'never_healthy', how: 'oci_error', provider: 'vast' });
  const app = await stage.start();
  await app.reserve({ count: 1, filter: { provider: 'vast.ai' }, config: {} });
  await until('destroyed', () => aliveContracts(stage.simulator).length === 0);
  await until('ended', () => app.state.get().upstreams.every((view) => view.state === 'ENDED'));
  expect(app.events.recent().some((event) => event.level === 'error' && event.message.includes('failed'))).toBe(true);
});

test('destroy drains first, then confirms; a second destroy is fine; an unknown id is not_found', async () => {
  await using stage = await createStage();
  const app = await stage.start();
  const { reserved } = await app.reserve({ count: 1, filter: {}, config: {} });
  const id = reserved[0]?.instanceId ?? '';
  await until('up', () => app.state.get().upstreams[0]?.eligible);
  const balancer = createBalancer(app.dataPlane.table);
  const lease = balancer.acquire(monotonicMs());
  if (typeof lease === 'string') throw new Error(lease);
  const work = app.destroy(id, { deadlineMs: 60_000 });
  expect(app.state.get().upstreams[0]).toMatchObject({ state: 'DESTROYING', active: 1, eligible: false });
  // The open request still finds its origin.
  expect(app.dataPlane.directory()).toHaveLength(1);
  expect(aliveContracts(stage.simulator)).toHaveLength(1);
  lease.settle('complete', monotonicMs());
  expect(await work).toEqual({ id, status: 'destroyed' });
  expect(aliveContracts(stage.simulator)).toHaveLength(0);
  expect(await app.destroy(id)).toEqual({ id, status: 'gone' });
  expect(await codeOf(app.destroy('vast-nobody'))).toBe('not_found');
});

test('now cuts open requests instead of waiting for them', async () => {
  await using stage = await createStage();
  const app = await stage.start();
  const { reserved } = await app.reserve({ count: 1, filter: {}, config: {} });
  await until('up', () => app.state.get().upstreams[0]?.eligible);
  const lease = createBalancer(app.dataPlane.table).acquire(monotonicMs());
  expect(typeof lease).not.toBe('string');
  expect(await app.destroy(reserved[0]?.instanceId ?? '', { now: true })).toMatchObject({ status: 'destroyed' });
  expect(app.dataPlane.directory()).toHaveLength(0);
});

test('a destroy that fails is shown as destroying, survives a restart and is retried until the provider confirms', async () => {
  await using stage = await createStage();
  const app = await stage.start({ timing: { destroyWaitMs: 200 } });
  const { reserved, reservation } = await app.reserve({ count: 2, filter: {}, config: {} });
  const broken = stage.simulator.faults.add({ kind: 'error', status: 503, route: 'destroy' });
  const first = await app.destroy(reserved[0]?.instanceId ?? '', { now: true });
  expect(first.status).toBe('destroying');
  const released = await app.releaseReservation(reservation, { now: true });
  expect(released.failed).toHaveLength(2);
  await until('the reason', () => app.state.get().upstreams[0]?.reason.includes('next attempt in'));
  expect(app.state.get().upstreams[0]?.state).toBe('DESTROYING');
  await app[Symbol.asyncDispose]();
  const next = await stage.start();
  expect(next.state.get().upstreams.map((item) => item.state)).toEqual(['DESTROYING', 'DESTROYING']);
  expect(aliveContracts(stage.simulator)).toHaveLength(2);
  stage.simulator.faults.remove(broken.id);
  await until('confirmed', () => aliveContracts(stage.simulator).length === 0);
  await until('ended', () => next.state.get().upstreams.every((item) => item.state === 'ENDED'));
  expect(next.state.get().reservations).toMatchObject([{ state: 'ended' }]);
});

test('a destroy goes on by itself until the provider confirms, though no list says that it is still needed', async () => {
  await using stage = await createStage();
  const app = await stage.start({ timing: { destroyWaitMs: 100, destroyRetryMaxMs: 60 } });
  const { reserved } = await app.reserve({ count: 1, filter: {}, config: {} });
  const id = reserved[0]?.instanceId ?? '';
  await until('up', () => app.state.get().upstreams[0]?.eligible);
  stage.simulator.faults.add({ kind: 'error', status: 503, route: 'list' });
  const broken = stage.simulator.faults.add({ kind: 'error', status: 503, route: 'destroy' });
  const calls = () => stage.providers.reduce((sum, provider) => sum + (provider.stats?.().calls ?? 0), 0);
  expect(await app.destroy(id, { now: true })).toEqual({ id, status: 'destroying' });
  const view = () => app.state.get().upstreams[0];
  for (let round = 0; round < 3; round += 1) {
    const before = calls();
    await until('asked again', () => calls() > before + 4);
    expect(view()).toMatchObject({ state: 'DESTROYING', eligible: false });
    expect(aliveContracts(stage.simulator)).toHaveLength(1);
  }
  stage.simulator.faults.remove(broken.id);
  await until('confirmed', () => view()?.state === 'ENDED');
  expect(aliveContracts(stage.simulator)).toEqual([]);
});

test('after a restart rentals, weights and drains are as they were, and instances of others are foreign until adopted', async () => {
  await using stage = await createStage();
  const app = await stage.start();
  const { reserved } = await app.reserve({ count: 2, filter: {}, config: {} });
  const [a, b] = reserved.map((item) => item.instanceId);
  await until('both up', () => app.dataPlane.directory().length === 2);
  await app.setWeight(a ?? '', 2.5);
  await app.drain(b ?? '', { deadlineMs: 60_000 });
  const { offers } = await app.offers({ provider: 'vast.ai' });
  const contract = await rentByHand(stage.simulator, offers.at(-1)?.id ?? '', 'by hand');
  await app[Symbol.asyncDispose]();

  const next = await stage.start();
  // Known origins take traffic again as soon as a probe passes, whatever the provider is doing.
  const views = next.state.get().upstreams;
  expect(views.map((view) => view.id).sort()).toEqual([a, b].sort());
  expect(views.find((view) => view.id === a)).toMatchObject({ weight: 2.5, weightSource: 'operator' });
  expect(views.find((view) => view.id === b)).toMatchObject({ admin: { mode: 'drain' } });
  const foreign = await until('foreign seen', () => next.state.get().foreign.find((row) => row.contract === contract));
  expect(foreign).toMatchObject({ provider: 'vast.ai', label: 'by hand' });
  expect(await codeOf(next.adopt('vast.ai', '1'))).toBe('not_found');
  const adopted = await next.adopt('vast.ai', contract);
  expect(adopted).toMatchObject({ id: `vast-${contract}`, contract });
  await until('adopted one takes traffic', () =>
    next.state.get().upstreams.some((view) => view.id === adopted.id && view.eligible),
  );
  expect(next.state.get().foreign).toEqual([]);
  expect(await codeOf(next.adopt('vast.ai', contract))).toBe('conflict');
});

test('a second process on the same data directory is refused with the pid of the first', async () => {
  await using stage = await createStage();
  await stage.start();
  const second = createApp({ config: testConfig(), providers: [], dataDir: stage.dataDir });
  await expect(second).rejects.toMatchObject({ name: 'LedgerLockedError', code: 'ledger_locked', pid: process.pid });
  await expect(second).rejects.toThrow(stage.dataDir);
});

test('static upstreams are probed, drained, removed, and remembered; those of UPSTREAMS cannot be removed', async () => {
  await using stage = await createStage();
  const server = createServer((request, response) => {
    response.setHeader('content-type', 'application/json');
    response.end(request.url === '/v1/models' ? '{"data":[{"id":"m1"}]}' : '{}');
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  try {
    const app = await stage.start({ flags: { UPSTREAMS: `mine=${url}` } });
    await until('up', () => app.state.get().upstreams[0]?.eligible);
    expect(app.state.get().upstreams[0]).toMatchObject({
      id: 'static-mine',
      provider: 'static',
      weight: 1,
      contract: null,
    });
    await until('models', () => app.dataPlane.directory()[0]?.models?.includes('m1'));
    const added = await app.addUpstream({ name: 'two', url: `${url}/` });
    expect(added.id).toBe('static-two');
    expect(await codeOf(app.addUpstream({ name: 'two', url }))).toBe('conflict');
    expect(await codeOf(app.addUpstream({ url: 'ftp://x' }))).toBe('invalid');
    expect(await codeOf(app.removeUpstream('static-mine'))).toBe('conflict');
    expect(await codeOf(app.destroy('static-mine'))).toBe('unsupported');
    await app[Symbol.asyncDispose]();
    const next = await stage.start();
    expect(next.state.get().upstreams.map((view) => view.id)).toEqual(['static-two']);
    // What is open may finish; nothing new comes, and it cannot be taken back.
    await until('up again', () => next.state.get().upstreams[0]?.eligible);
    const balancer = createBalancer(new LoadTable(next.dataPlane.table.buffer), { slowStartMs: 0 }, { thread: 9 });
    const lease = balancer.acquire(monotonicMs());
    if (typeof lease === 'string') throw new Error(lease);
    await next.removeUpstream('static-two');
    expect(next.state.get().upstreams[0]).toMatchObject({ state: 'DRAIN', active: 1, eligible: false });
    expect(await codeOf(next.resume('static-two'))).toBe('conflict');
    lease.settle('complete', monotonicMs());
    await until('removed', () => next.state.get().upstreams.length === 0);
    expect(next.dataPlane.directory()).toEqual([]);
    const third = await next.addUpstream({ name: 'three', url });
    await until('three is up', () => next.state.get().upstreams[0]?.eligible);
    balancer.acquire(monotonicMs());
    await next.removeUpstream(third.id, { now: true });
    expect(next.state.get().upstreams).toEqual([]);
  } finally {
    server.closeAllConnections();
    server.close();
  }
});

test('probes eject an upstream that stops answering and bring it back, each with its event', async () => {
  await using stage = await createStage();
  let healthy = true;
  const server = createServer((_, response) => {
    response.statusCode = healthy ? 200 : 500;
    response.end();
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  try {
    const app = await stage.start({
      flags: { UPSTREAMS: `a=${url},b=${url}/x`, EJECT_BASE_SECONDS: 0.2, MAX_EJECTED_FRACTION: 1 },
      providers: [],
      timing: { probeIntervalMs: 50 },
    });
    await until('up', () => app.state.get().upstreams.every((view) => view.eligible));
    healthy = false;
    const down = await until('down', () => app.state.get().upstreams.find((view) => view.state === 'DOWN'));
    expect(down.health).toMatchObject({ state: 'ejected' });
    expect(down.reason).toContain('500');
    healthy = true;
    await until('probation', () => app.state.get().upstreams.some((view) => view.state === 'PROBATION'));
    // The probe only opens the door: a request that succeeds is what counts.
    const balancer = createBalancer(app.dataPlane.table);
    await until('up again', () => {
      const lease = balancer.acquire(monotonicMs());
      if (typeof lease !== 'string') lease.settle('complete', monotonicMs());
      return app.state.get().upstreams.every((view) => view.health.state === 'up');
    });
    const kinds = new Set(app.events.recent().map((event) => event.kind));
    expect(kinds).toContain('ejected');
    expect(kinds).toContain('recovered');
    // One that is gone altogether: the reason is named once.
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
    const refused = await until('down for good', () => {
      const message = app.events.recent().at(-1)?.message ?? '';
      return message.includes('ECONNREFUSED') ? message : null;
    });
    expect(refused).toMatch(/^static-[ab] ejected: probe failed: ECONNREFUSED$/);
  } finally {
    server.closeAllConnections();
    server.close();
  }
});

test('a drain takes an upstream out of picks until it is resumed', async () => {
  await using stage = await createStage();
  const app = await stage.start();
  const { reserved } = await app.reserve({ count: 1, filter: {}, config: {} });
  const id = reserved[0]?.instanceId ?? '';
  await until('up', () => app.state.get().upstreams[0]?.eligible);
  expect(await app.drain(id, { deadlineMs: 100 })).toMatchObject({ state: 'DRAIN', eligible: false });
  expect(app.state.get().upstreams[0]?.state).toBe('DRAIN');
  await until('the deadline has its event', () =>
    app.events.recent().some((event) => event.kind === 'drain' && event.message.includes('drained')),
  );
  expect(await app.resume(id)).toMatchObject({ state: 'OK', eligible: true });
  expect(await codeOf(app.drain('nobody'))).toBe('not_found');
  expect(await codeOf(app.setWeight(id, -1))).toBe('invalid');
  expect(await app.setWeight(id, 0)).toMatchObject({ weight: 0, weightSource: 'operator' });
  expect((await app.setWeight(id, null)).weightSource).toBe('formula');
});

test('the last strategy survives a restart, LB_STRATEGY wins over it, and the snapshot says which', async () => {
  await using stage = await createStage();
  const app = await stage.start();
  expect(app.state.get().strategy).toMatchObject({ name: 'round_robin', source: 'default' });
  expect(await app.setStrategy('least_connections', 'test')).toEqual({
    strategy: 'least_connections',
    previous: 'round_robin',
  });
  expect(app.state.get().strategy).toMatchObject({ name: 'least_connections', source: 'saved' });
  expect(app.dataPlane.table.strategy).toBe('least_connections');
  expect(await codeOf(app.setStrategy('fastest' as 'round_robin', 'test'))).toBe('invalid');
  await app[Symbol.asyncDispose]();
  const saved = await stage.start();
  expect(saved.state.get().strategy).toMatchObject({ name: 'least_connections', source: 'saved' });
  await saved[Symbol.asyncDispose]();
  const set = await stage.start({ flags: { LB_STRATEGY: 'equal_weighted' } });
  expect(set.state.get().strategy).toMatchObject({ name: 'equal_weighted', source: 'LB_STRATEGY' });
  await set.setStrategy('round_robin', 'test');
  expect(set.events.recent().at(-1)?.message).toBe(
    'strategy equal_weighted -> round_robin by test; LB_STRATEGY brings equal_weighted back at the next start',
  );
});

test('the snapshot keeps its reference while nothing changes and the parts that did not change when something does', async () => {
  await using stage = await createStage();
  const app = await stage.start({ flags: { UPSTREAMS: 'a=http://127.0.0.1:9,b=http://127.0.0.1:9/x' }, providers: [] });
  await until('probed', () => app.state.get().upstreams.every((view) => view.reason === 'not ready yet: ECONNREFUSED'));
  const before = app.state.get();
  let calls = 0;
  const stop = app.state.subscribe(() => {
    calls += 1;
  });
  await new Promise((resolve) => setTimeout(resolve, 300));
  expect(app.state.get()).toBe(before);
  expect(calls).toBe(0);
  await app.setWeight('static-a', 2);
  const after = app.state.get();
  expect(after).not.toBe(before);
  expect(after.version).toBe(before.version + 1);
  expect(calls).toBe(1);
  expect(after.upstreams[1]).toBe(before.upstreams[1]);
  expect(after.traffic).toBe(before.traffic);
  stop();
});

test('event ids grow over restarts, kept events come back, and a listener gets each once', async () => {
  await using stage = await createStage();
  const app = await stage.start({ providers: [] });
  const seen: FleetEvent[] = [];
  app.events.subscribe((event) => seen.push(event));
  await app.setStrategy('least_connections', 'me');
  expect(seen.map((event) => event.kind)).toEqual(['strategy']);
  const last = app.events.recent().at(-1)?.id ?? 0;
  expect(app.events.recent(last)).toEqual([]);
  expect(app.events.recent(last - 1)).toEqual(seen);
  await app[Symbol.asyncDispose]();
  const next = await stage.start({ providers: [] });
  expect(next.events.recent().find((event) => event.id === last)).toEqual(seen[0]);
  expect(next.events.recent(last).every((event) => event.id > last)).toBe(true);
  expect(next.events.recent(last).length).toBeGreaterThan(0);
});

test('one provider that hangs neither hides nor delays the other', async () => {
  await using stage = await createStage();
  const app = await stage.start({
    timing: { callTimeoutMs: 250, offersFreshMs: 10_000, refreshMs: 100, refreshMaxMs: 200 },
  });
  await until('both known', () =>
    app.state.get().providers.every((view) => view.status === 'ok' && view.available > 0),
  );
  stage.simulator.faults.add({ kind: 'hang', provider: 'vast' });
  const failing = await until('vast.ai is in error', () =>
    app.state.get().providers.find((view) => view.name === 'vast.ai' && view.status === 'error'),
  );
  // Last good data stay, with their age.
  expect(failing.available).toBeGreaterThan(0);
  expect(failing.lastError).not.toBeNull();
  expect(app.state.get().providers.find((view) => view.name === 'io.net')?.status).toBe('ok');
  const answer = await app.offers({});
  expect(answer.offers.some((offer) => offer.provider === 'io.net')).toBe(true);
  expect(answer.errors).toMatchObject([{ provider: 'vast.ai' }]);
  expect(answer.errors[0]?.staleMs).toBeGreaterThan(0);
  stage.simulator.faults.clear();
  await until('vast.ai is back', () => app.state.get().providers.every((view) => view.status === 'ok'));
});

test('a contract that appears late is adopted, and an intent whose label never appears is closed after the grace period', async () => {
  await using stage = await createStage();
  const [vast] = stage.providers;
  if (vast === undefined) throw new Error('no provider');
  let lists = 0;
  let listing: 'fails' | 'leaves it out' | 'shows it' = 'fails';
  const late: Provider = {
    ...vast,
    async list(signal) {
      const rows = await vast.list(signal);
      lists += 1;
      if (listing === 'fails') throw new ProviderError('vast.ai', 'server_error', 'no list');
      return listing === 'shows it' ? rows : [];
    },
  };
  const wish = { count: 1, filter: {}, config: {} };
  stage.simulator.faults.add({ kind: 'lose_answer', how: 'reset', times: 1 });
  const app = await stage.start({ providers: [late], timing: { unknownGraceMs: 60_000 } });
  expect(await codeOf(app.reserve(wish, { idempotencyKey: 'late' }))).toBe('provider_timeout');
  await app[Symbol.asyncDispose]();
  listing = 'leaves it out';
  const next = await stage.start({ providers: [late], timing: { unknownGraceMs: 60_000 } });
  const before = lists;
  await until('it is not in several lists', () => lists > before + 5);
  expect(next.state.get().upstreams).toMatchObject([{ state: 'RESERVING' }]);
  listing = 'shows it';
  await until('adopted', () => next.state.get().upstreams[0]?.eligible);
  expect(aliveContracts(stage.simulator)).toHaveLength(1);
  expect(next.events.recent().some((event) => event.message.includes('found by its label at vast.ai: adopted'))).toBe(
    true,
  );

  // This one never reaches the provider.
  stage.simulator.faults.add({ kind: 'hang', when: 'before', route: 'rent', times: 1 });
  await next[Symbol.asyncDispose]();
  const last = await stage.start({ providers: [late], timing: { rentTimeoutMs: 100, unknownGraceMs: 400 } });
  await last.reserve(wish).catch(() => null);
  await until('closed', () => last.events.recent().some((event) => event.message.includes('was never rented')));
  await until('settled', () => last.state.get().upstreams.every((view) => view.lifecycle.phase !== 'reserving'));
});

test('a list of instances that cannot be had is told once, and when it can be again', async () => {
  await using stage = await createStage();
  const fault = stage.simulator.faults.add({ kind: 'error', status: 502, route: 'list', provider: 'vast' });
  const app = await stage.start();
  const told = (text: string) => app.events.recent().filter((event) => event.message.includes(text)).length;
  await until('told', () => told('vast.ai: the list of instances could not be had') > 0);
  const asked = () => stage.simulator.calls().filter((call) => call.route === 'list' && call.status === 502).length;
  const before = asked();
  await until('asked again', () => asked() > before + 2);
  expect(told('vast.ai: the list of instances could not be had')).toBe(1);
  stage.simulator.faults.remove(fault.id);
  await until('told that it is over', () => told('vast.ai lists its instances again') === 1);
  expect(told('io.net')).toBe(0);
});

test('a question to all waits only a moment for the one that hangs, and shows what was known of it', async () => {
  await using stage = await createStage();
  const app = await stage.start({ timing: { callTimeoutMs: 30_000, offersFreshMs: 0, refreshMs: 60_000 } });
  await until('both known', () => app.state.get().providers.every((view) => view.available > 0));
  stage.simulator.faults.add({ kind: 'error', provider: 'vast' });
  expect((await app.offers({})).errors).toMatchObject([{ provider: 'vast.ai', code: 'server_error' }]);
  stage.simulator.faults.clear();
  stage.simulator.faults.add({ kind: 'hang', provider: 'vast' });
  const begun = performance.now();
  const answer = await app.offers({});
  expect(performance.now() - begun).toBeLessThan(3500);
  expect(new Set(answer.offers.map((offer) => offer.provider))).toEqual(new Set(['vast.ai', 'io.net']));
  expect(answer.errors).toMatchObject([{ provider: 'vast.ai', code: 'timeout' }]);
  expect(answer.errors[0]?.message).toMatch(/^no answer yet; last time: HTTP 503/);
  expect(answer.errors[0]?.staleMs).toBeGreaterThan(0);
});

test('logs come from the provider; a static upstream has none', async () => {
  await using stage = await createStage();
  const app = await stage.start({ flags: { UPSTREAMS: 's=http://127.0.0.1:9' } });
  const { reserved } = await app.reserve({ count: 1, filter: { provider: 'vast.ai' }, config: {} });
  const id = reserved[0]?.instanceId ?? '';
  await until('up', () => app.state.get().upstreams.some((view) => view.id === id && view.eligible));
  const lines = await app.logs(id, { tail: 5 });
  expect(Array.isArray(lines)).toBe(true);
  expect(await codeOf(app.logs('static-s'))).toBe('unsupported');
});

test('an instance that the provider leaves out of its lists for a while is taken back, not destroyed', async () => {
  await using stage = await createStage();
  let hidden = false;
  const [vast] = stage.providers;
  if (vast === undefined) throw new Error('no provider');
  const forgetful: Provider = { ...vast, list: async (signal) => (hidden ? [] : vast.list(signal)) };
  const app = await stage.start({ providers: [forgetful] });
  const { reserved } = await app.reserve({ count: 2, filter: {}, config: {} });
  const [kept, given] = reserved.map((item) => item.instanceId);
  await until('both up', () => app.state.get().upstreams.every((view) => view.eligible));
  hidden = true;
  await until('ended', () => app.state.get().upstreams.every((view) => view.state === 'ENDED'));
  // What is destroyed by command meanwhile must not come back.
  expect(await app.destroy(given ?? '')).toMatchObject({ status: 'gone' });
  hidden = false;
  await until('back in rotation', () =>
    app.state.get().upstreams.some((view) => view.id === kept && view.state === 'OK'),
  );
  await until('the other one is destroyed', () => aliveContracts(stage.simulator).length === 1);
  expect(aliveContracts(stage.simulator)).toEqual([reserved[0]?.contractId]);
  expect(app.state.get().reservations).toMatchObject([{ state: 'partial' }]);
  expect(app.events.recent().some((event) => event.message.includes('taken back'))).toBe(true);
});

test('a second instance under one of our labels is destroyed, the first one stays', async () => {
  await using stage = await createStage();
  const app = await stage.start();
  const { reserved } = await app.reserve({ count: 1, filter: { provider: 'vast.ai' }, config: {} });
  const label = stage.simulator.ledger()[0]?.label ?? '';
  const { offers } = await app.offers({ provider: 'vast.ai' });
  await rentByHand(stage.simulator, offers.at(-1)?.id ?? '', label);
  expect(aliveContracts(stage.simulator)).toHaveLength(2);
  await until('the second is gone', () => aliveContracts(stage.simulator).length === 1);
  expect(aliveContracts(stage.simulator)).toEqual([reserved[0]?.contractId]);
  expect(app.events.recent().some((event) => event.message.includes('second instance labelled'))).toBe(true);
  expect(app.state.get().foreign).toEqual([]);
});

test('a contract whose answer was lost and that ended meanwhile is booked as paid', async () => {
  await using stage = await createStage();
  stage.simulator.faults.add({ kind: 'lose_answer', how: 'reset', provider: 'ionet', times: 1 });
  const list = stage.simulator.faults.add({ kind: 'error', status: 502, route: 'list', provider: 'ionet' });
  const app = await stage.start({ timing: { unknownGraceMs: 60_000 } });
  expect(await codeOf(app.reserve({ count: 1, filter: { provider: 'io.net' }, config: {} }))).toBe('provider_timeout');
  stage.simulator.faults.add({ kind: 'expire', instance: 'ionet' });
  stage.simulator.faults.remove(list.id);
  await until('ended', () => app.state.get().upstreams.some((view) => view.state === 'ENDED'));
  expect(app.state.get().cost.spentUsd).toBeCloseTo(stage.simulator.ledger()[0]?.chargedUsd ?? -1, 2);
});

test('an extension whose answer is lost is neither bought twice nor left unbooked, also over a restart', async () => {
  await using stage = await createStage();
  const app = await stage.start({ timing: { rentTimeoutMs: 400, unknownGraceMs: 60_000 } });
  const { reserved } = await app.reserve({ count: 1, filter: { provider: 'io.net' }, config: { durationHours: 2 } });
  const id = reserved[0]?.instanceId ?? '';
  const rate = reserved[0]?.usdPerHour ?? 0;
  const before = await until('its end is known', () => app.state.get().upstreams[0]?.expiresAt);
  const list = stage.simulator.faults.add({ kind: 'error', status: 502, route: 'list', provider: 'ionet' });
  stage.simulator.faults.add({ kind: 'lose_answer', how: 'hang', route: 'extend', times: 1 });
  expect(await codeOf(app.extend(id, 3))).toBe('provider_timeout');
  expect(await codeOf(app.extend(id, 3))).toBe('conflict');
  expect(app.state.get().cost.spentUsd).toBeCloseTo(2 * rate, 2);
  await app[Symbol.asyncDispose]();

  stage.simulator.faults.remove(list.id);
  const next = await stage.start({ timing: { unknownGraceMs: 600 } });
  await until('booked', () => Math.abs(next.state.get().cost.spentUsd - 5 * rate) < 0.01);
  expect(next.state.get().upstreams[0]?.expiresAt ?? 0).toBeGreaterThan(before + 2.9 * 3_600_000);
  // One that never reached the provider is closed, and the next one may be bought.
  stage.simulator.faults.add({ kind: 'lose_answer', how: 'reset', when: 'before', route: 'extend', times: 1 });
  expect(await codeOf(next.extend(id, 1))).toBe('provider_timeout');
  await until('closed', () => next.events.recent().some((event) => event.message.includes('was not extended by 1 h')));
  await next.extend(id, 1);
  expect(next.state.get().cost.spentUsd).toBeCloseTo(6 * rate, 2);
  expect(stage.simulator.ledger()[0]?.chargedUsd).toBeCloseTo(6 * rate, 2);
});

test('an old reservation stays in the picture while it owns something, however many came after it', async () => {
  await using stage = await createStage();
  const app = await stage.start();
  const { reservation } = await app.reserve({ count: 1, filter: {}, config: {} });
  stage.simulator.faults.add({ kind: 'credit', usd: -10_000 });
  await Promise.allSettled(Array.from({ length: 60 }, () => app.reserve({ count: 1, filter: {}, config: {} })));
  const shown = app.state.get().reservations;
  expect(shown).toHaveLength(51);
  expect(shown.at(-1)).toMatchObject({ id: reservation, state: 'active' });
});

test('an address with a user name or password in it is refused', async () => {
  await using stage = await createStage();
  const app = await stage.start({ providers: [] });
  expect(await codeOf(app.addUpstream({ url: 'http://me:secret@127.0.0.1:9' }))).toBe('invalid');
  expect(JSON.stringify(app.state.get())).not.toContain('secret');
});

test('times follow the wall clock after the machine has slept', async () => {
  await using stage = await createStage();
  let asleep = 0;
  const clock = { now: () => Date.now() + asleep, monotonic: () => performance.now() };
  const app = await stage.start({ clock });
  const { reserved } = await app.reserve({ count: 1, filter: {}, config: {} });
  await until('up', () => app.state.get().upstreams[0]?.eligible);
  const lease = createBalancer(app.dataPlane.table).acquire(clock.monotonic());
  if (typeof lease !== 'string') lease.settle('complete', clock.monotonic());
  asleep = 8 * 3_600_000;
  const view = await until('its time is of today', () =>
    app.state.get().upstreams.find((item) => Math.abs((item.lastUsedAt ?? 0) - clock.now()) < 60_000),
  );
  expect(view).toMatchObject({ id: reserved[0]?.instanceId, lifecycle: { phase: 'running' } });
});
