import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { KeyScope } from '../../src/fleet/app.ts';
import { createGate } from '../../src/rest/gate.ts';
import { ProblemError } from '../../src/rest/problem.ts';
import { createFakeApp, type FakeApp, memoryKeys } from '../helpers/fake-app.ts';
import { type Rest, startRest } from './harness.ts';

let app: FakeApp;
let rest: Rest;

beforeEach(async () => {
  app = createFakeApp();
  rest = await startRest(app);
});
afterEach(() => rest[Symbol.asyncDispose]());

const keyOf = (scope: KeyScope) => app.keys.create({ name: scope, scope }).key;

describe('keys and scopes', () => {
  test('without a key it is 401 with a challenge, also for what does not parse', async () => {
    const reply = await rest.call('GET', '/api/v1/fleet', { key: null });
    expect(reply.status).toBe(401);
    expect(reply.headers['www-authenticate']).toBe('Bearer realm="gpuproxy"');
    expect(reply.body).toMatchObject({ code: 'unauthorized' });
    const garbage = await rest.call('POST', '/api/v1/gpu/instances/reserve', { key: null, body: '{' });
    expect(garbage.status).toBe(401);
  });

  test('a key passes as X-API-Key or as a bearer token', async () => {
    expect((await rest.call('GET', '/api/v1/fleet')).status).toBe(200);
    const headers = { authorization: `Bearer ${rest.adminKey}` };
    expect((await rest.call('GET', '/api/v1/fleet', { key: null, headers })).status).toBe(200);
    expect((await rest.call('GET', '/api/v1/fleet', { key: `${rest.adminKey}x` })).status).toBe(401);
  });

  test('read may look and plan, and nothing else', async () => {
    const key = keyOf('read');
    expect((await rest.call('GET', '/api/v1/fleet', { key })).status).toBe(200);
    expect((await rest.call('POST', '/api/v1/gpu/instances/plan', { key, body: { count: 1 } })).status).toBe(200);
    const refused: [string, string, object?][] = [
      ['PUT', '/api/v1/loadbalancer/strategy', { strategy: 'round_robin' }],
      ['POST', '/api/v1/gpu/instances/reserve', { count: 1 }],
      ['POST', '/api/v1/gpu/instances/batch', { vastai_count: 1 }],
      ['POST', '/api/v1/gpu/instances/vastai/1'],
      ['DELETE', '/api/v1/gpu/instances/vastai/1'],
      ['DELETE', '/api/v1/fleet/vast-1'],
      ['POST', '/api/v1/fleet/vast-1/drain'],
      ['POST', '/api/v1/keys', { name: 'x', scope: 'admin' }],
      ['GET', '/api/v1/keys'],
    ];
    for (const [method, path, body] of refused) {
      const reply = await rest.call(method, path, { key, body });
      expect(reply.status, `${method} ${path}`).toBe(403);
      expect(reply.body).toMatchObject({ code: 'forbidden' });
    }
    expect(app.calls).toEqual([]);
  });

  test('proxy may do nothing here', async () => {
    expect((await rest.call('GET', '/api/v1/fleet', { key: keyOf('proxy') })).status).toBe(403);
  });

  test('every operation of the document that is not public refuses a stranger', async () => {
    for (const [path, methods] of Object.entries(rest.document.paths)) {
      for (const [method, operation] of Object.entries(methods)) {
        const target = path.replaceAll(/\{\w+\}/g, 'x');
        const headers = { host: 'gpu.example' };
        const reply = await rest.call(method.toUpperCase(), target, { key: null, headers });
        if (operation.security?.length === 0) expect(reply.status, path).not.toBe(401);
        else expect(reply.status, `${method} ${path}`).toBe(401);
      }
    }
    expect(app.calls).toEqual([]);
  });

  test('a key is made, shown once, used, listed without its secret and revoked', async () => {
    const made = await rest.call('POST', '/api/v1/keys', {
      body: { name: 'ci', scope: 'read', requests_per_minute: 100 },
    });
    expect(made.status).toBe(201);
    const { key, id } = made.body as { key: string; id: string };
    expect((await rest.call('GET', '/api/v1/fleet', { key })).status).toBe(200);
    const listed = await rest.call('GET', '/api/v1/keys');
    expect(listed.body).toMatchObject({ keys: [{ name: 'tester' }, { name: 'ci', scope: 'read', id }] });
    expect(listed.text).not.toContain(key);
    expect((await rest.call('DELETE', `/api/v1/keys/${id}`)).status).toBe(204);
    expect((await rest.call('GET', '/api/v1/fleet', { key })).status).toBe(401);
    expect((await rest.call('DELETE', '/api/v1/keys/nobody')).status).toBe(404);
  });

  test('the last admin key is not revoked', async () => {
    const [mine] = app.keys.list();
    const reply = await rest.call('DELETE', `/api/v1/keys/${mine?.id}`);
    expect(reply.status).toBe(409);
    expect((await rest.call('GET', '/api/v1/fleet')).status).toBe(200);
  });

  test('an admin key that expires does not stand in for one that does not', async () => {
    const [mine] = app.keys.list();
    const revoke = (id: string | undefined) => rest.call('DELETE', `/api/v1/keys/${id}`);
    const brief = () => app.keys.create({ name: 'brief', scope: 'admin', expiresAt: Date.now() + 60_000 }).view;
    const [first] = [brief(), brief()];
    const refused = await revoke(mine?.id);
    expect(refused.status).toBe(409);
    expect(refused.body).toMatchObject({ detail: expect.stringContaining('does not expire') });
    expect((await revoke(first.id)).status).toBe(204);
    const lasting = app.keys.create({ name: 'lasting', scope: 'admin' });
    expect((await revoke(mine?.id)).status).toBe(204);
    expect((await rest.call('GET', '/api/v1/fleet', { key: lasting.key })).status).toBe(200);
  });

  test('a key that is given in place of its id does not come back', async () => {
    const reply = await rest.call('DELETE', `/api/v1/keys/${rest.adminKey}`);
    expect(reply.status).toBe(404);
    expect(reply.text).not.toContain(rest.adminKey);
  });

  test.each([
    [{ name: 'x', scope: 'root' }, 'scope'],
    [{ name: '', scope: 'read' }, 'name'],
    [{ name: 'x', scope: 'read', expires_at: '2001-01-01T00:00:00Z' }, 'expires_at'],
    [{ name: 'x', scope: 'read', expires_at: 'tomorrow' }, 'expires_at'],
    [{ name: 'x', scope: 'read', requests_per_minute: 0 }, 'requests_per_minute'],
  ])('a key of %j is refused', async (body, path) => {
    const reply = await rest.call('POST', '/api/v1/keys', { body });
    expect(reply.status).toBe(400);
    expect(reply.body).toMatchObject({ errors: [{ path }] });
  });

  test('too many requests of a key are 429 with Retry-After and RateLimit', async () => {
    const { key } = app.keys.create({ name: 'slow', scope: 'read', requestsPerMinute: 2 });
    const first = await rest.call('GET', '/api/v1/fleet', { key });
    expect(first.headers['ratelimit-policy']).toBe('"key";q=2;w=60');
    expect(first.headers.ratelimit).toBe('"key";r=1;t=30');
    await rest.call('GET', '/api/v1/fleet', { key });
    const third = await rest.call('GET', '/api/v1/fleet', { key });
    expect(third.status).toBe(429);
    expect(Number(third.headers['retry-after'])).toBeGreaterThanOrEqual(29);
    expect(third.headers.ratelimit).toMatch(/^"key";r=0;t=/);
    expect((await rest.call('GET', '/api/v1/fleet')).status).toBe(200);
  });

  test('open requests of a key are bounded, and a place is free again when one ends', async () => {
    const { key } = app.keys.create({ name: 'narrow', scope: 'read', maxConcurrent: 1 });
    const { promise, resolve } = Promise.withResolvers<void>();
    app.on({
      decisions: async () => {
        await promise;
        return [];
      },
    });
    const open = rest.call('GET', '/api/v1/decisions', { key });
    await expect.poll(async () => (await rest.call('GET', '/api/v1/fleet', { key })).status).toBe(429);
    const { headers } = await rest.call('GET', '/api/v1/fleet', { key });
    expect(headers).toMatchObject({
      'ratelimit-policy': '"open";q=1;qu="concurrent-requests"',
      ratelimit: '"open";r=0',
      'retry-after': '1',
    });
    resolve();
    expect((await open).status).toBe(200);
    await expect.poll(async () => (await rest.call('GET', '/api/v1/fleet', { key })).status).toBe(200);
  });

  test('guessing is answered with 429, and proven keys still pass', async () => {
    await rest.call('GET', '/api/v1/fleet');
    const fresh = keyOf('read');
    const answers: number[] = [];
    for (let guess = 0; guess < 20; guess++) {
      answers.push((await rest.call('GET', '/api/v1/fleet', { key: `guess-${guess}` })).status);
    }
    expect(answers.slice(0, 10)).toEqual(Array.from({ length: 10 }, () => 401));
    expect(answers.slice(10)).toContain(429);
    const locked = await rest.call('GET', '/api/v1/fleet', { key: fresh });
    expect([200, 429]).toContain(locked.status);
    expect((await rest.call('GET', '/api/v1/fleet')).status).toBe(200);
  });
});

test('a key with both limits is told of both', async () => {
  const { key } = app.keys.create({ name: 'both', scope: 'read', requestsPerMinute: 2, maxConcurrent: 3 });
  const { headers } = await rest.call('GET', '/api/v1/fleet', { key });
  expect(headers['ratelimit-policy']).toBe('"key";q=2;w=60, "open";q=3;qu="concurrent-requests"');
  expect(headers.ratelimit).toBe('"key";r=1;t=30, "open";r=2');
});

describe('gate', () => {
  const ask = (gate: ReturnType<typeof createGate>, key: string, address = '10.0.0.1') => {
    try {
      const admission = gate.admit({ headers: { 'x-api-key': key }, address, access: 'read' });
      admission.release();
      return 200;
    } catch (error) {
      if (error instanceof ProblemError) return error.status;
      throw error;
    }
  };

  test('a locked address does not even have its key looked at, and the lock grows to a minute at most', () => {
    let now = 0;
    const keys = memoryKeys();
    const { key } = keys.create({ name: 'k', scope: 'read' });
    const gate = createGate(keys, () => now);
    for (let guess = 0; guess < 10; guess++) expect(ask(gate, `wrong-${guess}`)).toBe(401);
    expect(ask(gate, key)).toBe(429);
    expect(ask(gate, key, '10.0.0.2')).toBe(200);
    expect(ask(gate, key)).toBe(200); // proven in the meantime
    now = 1000;
    expect(ask(gate, 'wrong-10')).toBe(401);
    now = 2900;
    expect(ask(gate, 'wrong-11')).toBe(429);
    now = 3001;
    expect(ask(gate, 'wrong-11')).toBe(401);
    for (let guess = 12; guess < 60; guess++) {
      now += 60_000;
      expect(ask(gate, `wrong-${guess}`)).toBe(401);
    }
    expect(ask(gate, 'wrong-99')).toBe(429);
    now += 60_000;
    expect(ask(gate, 'wrong-99')).toBe(401);
  });

  test('the same wrong key over and over is no guess', () => {
    const gate = createGate(memoryKeys(), () => 0);
    for (let turn = 0; turn < 100; turn++) expect(ask(gate, 'stale')).toBe(401);
  });

  test('addresses of one IPv6 /64 count together, others do not', () => {
    const gate = createGate(memoryKeys(), () => 0);
    for (let guess = 0; guess < 10; guess++) ask(gate, `wrong-${guess}`, `2001:db8:1:2::${guess}`);
    expect(ask(gate, 'x', '2001:db8:1:2:ffff::1')).toBe(429);
    expect(ask(gate, 'x', '2001:db8:1:3::1')).toBe(401);
  });

  test('a revoked key is out at once, although it was proven', () => {
    const keys = memoryKeys();
    const { key, view } = keys.create({ name: 'k', scope: 'read' });
    const gate = createGate(keys, () => 0);
    expect(ask(gate, key)).toBe(200);
    keys.revoke(view.id);
    expect(ask(gate, key)).toBe(401);
  });

  test('a minute refills what a key may do', () => {
    let now = 0;
    const keys = memoryKeys();
    const { key } = keys.create({ name: 'k', scope: 'read', requestsPerMinute: 3 });
    const gate = createGate(keys, () => now);
    expect([1, 2, 3, 4].map(() => ask(gate, key))).toEqual([200, 200, 200, 429]);
    now += 20_000;
    expect([1, 2].map(() => ask(gate, key))).toEqual([200, 429]);
    now += 600_000;
    expect([1, 2, 3, 4].map(() => ask(gate, key))).toEqual([200, 200, 200, 429]);
  });
});
