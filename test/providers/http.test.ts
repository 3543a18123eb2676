import { describe, expect, it } from 'vitest';
import { z } from 'zod';
import { createJsonClient, type JsonClient, sendPaid } from '../../src/providers/http.ts';
import { ProviderError } from '../../src/providers/provider.ts';
import { errorOf, type Script, startScripted } from './scripted-server.ts';

const key = 'sk-very-secret-key';
const endpoint = { name: 'thing', spacingMs: 0 };

async function clientOf(script: Script, options: { pace?: number; patience?: number; path?: string } = {}) {
  const server = await startScripted(script);
  const client = createJsonClient({
    provider: 'vast.ai',
    baseUrl: server.url + (options.path ?? ''),
    auth: { authorization: `Bearer ${key}` },
    secret: key,
    pace: options.pace ?? 0,
    patience: options.patience ?? 1,
  });
  return {
    server,
    client,
    async [Symbol.asyncDispose]() {
      await client.close();
      await server[Symbol.asyncDispose]();
    },
  };
}
const get = (client: JsonClient, rest: object = {}) =>
  client.get({ endpoint, method: 'GET', path: '/x', until: client.within(5000), ...rest }, z.object({ a: z.number() }));

describe.concurrent('one call', () => {
  it('sends the key in its header alone, the query encoded, and the body as JSON under the path of the base URL', async () => {
    await using it = await clientOf(() => ({ body: { a: 1 } }), { path: '/proxy/' });
    const answer = await it.client.get(
      {
        endpoint,
        method: 'PUT',
        path: '/api/x/',
        query: { q: '[12] &' },
        body: { b: 2 },
        until: it.client.within(5000),
      },
      z.object({ a: z.number() }),
    );
    expect(answer).toEqual({ a: 1 });
    const [request] = it.server.requests;
    expect(request).toMatchObject({ method: 'PUT', path: '/proxy/api/x/?q=%5B12%5D+%26', body: { b: 2 } });
    expect(request?.headers.authorization).toBe(`Bearer ${key}`);
    expect(request?.headers['content-type']).toBe('application/json');
  });

  it.each([
    [401, { msg: 'no' }, 'auth'],
    [403, {}, 'auth'],
    [404, { detail: 'Not found' }, 'not_found'],
    [422, { detail: [{ loc: ['body', 'n'], msg: 'too small', type: 'x' }] }, 'rejected'],
    [429, 'API requests too frequent', 'rate_limited'],
    [500, '<html><body>oops</body></html>', 'server_error'],
    [502, '', 'server_error'],
    [308, '', 'bad_answer'],
    [200, '<html></html>', 'bad_answer'],
    [200, '', 'bad_answer'],
    [200, { a: 'one' }, 'bad_answer'],
    [200, '{"a": 1', 'bad_answer'],
  ] as const)('maps HTTP %i with %j to %s', async (status, body, code) => {
    await using it = await clientOf(() => ({ status, body, headers: { location: 'http://127.0.0.1:1/' } }));
    const error = await errorOf(get(it.client));
    expect(error).toBeInstanceOf(ProviderError);
    expect(error).toMatchObject({ code, status, provider: 'vast.ai' });
    expect(error.message).not.toMatch(/<html/);
    expect(it.server.requests).toHaveLength(1);
  });

  it('says what a 422 complains of, field by field', async () => {
    const detail = [
      { loc: ['body', 'duration_hours'], msg: 'must be at least 1', type: 'greater_than_equal' },
      { loc: ['body', 'x'], msg: 'Extra inputs are not permitted', type: 'extra_forbidden' },
    ];
    await using it = await clientOf(() => ({ status: 422, body: { detail } }));
    expect((await errorOf(get(it.client))).message).toContain(
      'body.duration_hours: must be at least 1; body.x: Extra inputs are not permitted',
    );
  });

  it('never lets the key or an escape sequence into an error, not even one that the provider echoes', async () => {
    await using it = await clientOf(() => ({ status: 400, body: { msg: `bad ${key}\u001b[2J\nline` } }));
    const error = await errorOf(get(it.client));
    expect(error.message).toContain('bad [key] [2J line');
    expect(JSON.stringify(error, Object.getOwnPropertyNames(error))).not.toContain(key);
    expect(String(error.stack)).not.toContain(key);
  });

  it('refuses a key that no header can carry without sending anything', async () => {
    await using server = await startScripted(() => ({ body: {} }));
    const client = createJsonClient({
      provider: 'io.net',
      baseUrl: server.url,
      auth: { 'x-api-key': 'a\nb' },
      secret: 'a\nb',
      pace: 0,
      patience: 1,
    });
    expect(await errorOf(get(client))).toMatchObject({ code: 'auth', sent: false });
    expect(server.requests).toHaveLength(0);
    await client.close();
  });

  it('names the reason of a failed connection once', async () => {
    const server = await startScripted(() => ({}));
    await server[Symbol.asyncDispose]();
    const client = createJsonClient({
      provider: 'vast.ai',
      auth: {},
      secret: '',
      pace: 0,
      patience: 1,
      baseUrl: server.url,
    });
    const { message } = await errorOf(get(client));
    expect(message.match(/ECONNREFUSED/g)).toHaveLength(1);
    await client.close();
  });

  it('knows that a refused connection sent nothing, and that a reset may have arrived', async () => {
    const server = await startScripted((_, response) => void response.socket?.resetAndDestroy());
    const options = { provider: 'vast.ai', auth: {}, secret: '', pace: 0, patience: 1 } as const;
    const client = createJsonClient({ ...options, baseUrl: server.url });
    expect(await errorOf(get(client))).toMatchObject({ code: 'unreachable', sent: true });
    await server[Symbol.asyncDispose]();
    expect(await errorOf(get(client))).toMatchObject({ code: 'unreachable', sent: false });
    await client.close();
  });
});

describe('bounds', () => {
  it('end a call that gets no answer', async () => {
    await using it = await clientOf(() => undefined, { patience: 0.01 });
    const before = performance.now();
    expect(await errorOf(get(it.client, { until: it.client.within(60_000) }))).toMatchObject({ code: 'timeout' });
    expect(performance.now() - before).toBeLessThan(3000);
  });

  it('end a call whose answer drips for ever', async () => {
    await using it = await clientOf(
      (_, response) => {
        response.writeHead(200, { 'content-type': 'application/json' });
        const drip = setInterval(() => response.write(' '), 10);
        response.on('close', () => clearInterval(drip));
        return undefined;
      },
      { patience: 0.01 },
    );
    expect(await errorOf(get(it.client))).toMatchObject({ code: 'timeout' });
  });

  it('end a call whose answer is larger than any list', async () => {
    const block = Buffer.alloc(1024 * 1024, 'x');
    await using it = await clientOf((_, response) => {
      response.writeHead(200);
      const push = () => {
        while (!response.destroyed && response.write(block));
        response.once('drain', push);
      };
      push();
      return undefined;
    });
    const error = await errorOf(get(it.client));
    expect(error).toMatchObject({ code: 'bad_answer' });
    expect(error.message).toContain('larger than 16 MB');
  });

  it('hold for all attempts together', async () => {
    await using it = await clientOf(() => ({ status: 503, body: '' }), { pace: 1 });
    const before = performance.now();
    const error = await errorOf(get(it.client, { until: it.client.within(700), attempts: 100 }));
    expect(error).toMatchObject({ code: 'server_error' });
    expect(performance.now() - before).toBeLessThan(2500);
    expect(it.server.requests.length).toBeGreaterThan(1);
    expect(it.server.requests.length).toBeLessThan(6);
  });

  it('give way to the caller, whose own reason is what is thrown', async () => {
    const control = new AbortController();
    await using it = await clientOf(() => {
      control.abort();
      return undefined;
    });
    const work = errorOf(get(it.client, { signal: control.signal }));
    expect((await work).name).toBe('AbortError');
    const already = errorOf(get(it.client, { signal: AbortSignal.abort() }));
    expect((await already).name).toBe('AbortError');
    expect(it.server.requests).toHaveLength(1);
  });
});

describe.concurrent('attempts', () => {
  it('repeat what failed on the way or in a gateway, and count', async () => {
    let calls = 0;
    await using it = await clientOf((_, response) => {
      calls++;
      if (calls === 1) return void response.socket?.resetAndDestroy();
      return calls === 2 ? { status: 502, body: '<html>' } : { body: { a: 3 } };
    });
    expect(await get(it.client, { attempts: 3 })).toEqual({ a: 3 });
    expect(it.client.stats()).toMatchObject({ calls: 3, retries: 2 });
  });

  it('do not deny an attempt that may have arrived', async () => {
    const it = await clientOf((_, response) => void response.socket?.resetAndDestroy(), { pace: 1 });
    const work = errorOf(get(it.client, { attempts: 2 }));
    while (it.server.requests.length === 0) await new Promise((resolve) => setTimeout(resolve, 5));
    await it.server[Symbol.asyncDispose]();
    expect(await work).toMatchObject({ code: 'unreachable', sent: true });
    await it.client.close();
  });

  it('do not repeat a refusal', async () => {
    await using it = await clientOf(() => ({ status: 400, body: { msg: 'no' } }));
    expect(await errorOf(get(it.client, { attempts: 3 }))).toMatchObject({ code: 'rejected' });
    expect(it.server.requests).toHaveLength(1);
  });
});

describe('spacing', () => {
  it('keeps the calls to one endpoint apart, in the order they came, and leaves others alone', async () => {
    await using it = await clientOf(() => ({ body: { a: 1 } }), { pace: 1 });
    const slow = { name: 'slow', spacingMs: 120 };
    await Promise.all([1, 2, 3].map((n) => get(it.client, { endpoint: slow, path: `/slow/${n}` })));
    await get(it.client, { path: '/other' });
    const [first, , third] = it.server.requests;
    expect(it.server.requests.map((request) => request.path)).toEqual(['/slow/1', '/slow/2', '/slow/3', '/other']);
    expect((third?.at ?? 0) - (first?.at ?? 0)).toBeGreaterThan(120);
  });

  it('keeps calls apart whose turns came while the process stood still', async () => {
    await using it = await clientOf(() => ({ body: { a: 1 } }), { pace: 1 });
    const slow = { name: 'slow', spacingMs: 150 };
    const calls = [1, 2, 3, 4].map(() => get(it.client, { endpoint: slow }));
    await calls[0];
    const until = performance.now() + 600;
    while (performance.now() < until);
    await Promise.all(calls);
    const times = it.server.requests.map((request) => request.at);
    for (const [index, at] of times.slice(1).entries()) expect(at - (times[index] ?? 0)).toBeGreaterThan(100);
  });

  it('lets a burst through first', async () => {
    await using it = await clientOf(() => ({ body: { a: 1 } }), { pace: 1 });
    const bursty = { name: 'bursty', spacingMs: 60_000, burst: 3 };
    expect(it.client.freeIn(bursty, 2)).toBe(0);
    await Promise.all([1, 2, 3].map(() => get(it.client, { endpoint: bursty })));
    expect(it.client.freeIn(bursty)).toBeGreaterThan(50_000);
    expect(await errorOf(get(it.client, { endpoint: bursty }))).toMatchObject({ code: 'rate_limited', sent: false });
    expect(it.server.requests).toHaveLength(3);
  });

  it('has no bursts any more once one was refused', async () => {
    let calls = 0;
    await using it = await clientOf(
      () => (++calls === 2 ? { status: 429, body: 'too frequent' } : { body: { a: 1 } }),
      {
        pace: 0.1,
      },
    );
    const bursty = { name: 'bursty', spacingMs: 2000, burst: 10 };
    await get(it.client, { endpoint: bursty });
    await get(it.client, { endpoint: bursty, attempts: 2 });
    await get(it.client, { endpoint: bursty });
    await get(it.client, { endpoint: bursty });
    const times = it.server.requests.map((request) => request.at);
    expect(times).toHaveLength(5);
    // Three turns of 200 ms, less what the last but one may have come late: a burst would take some milliseconds.
    expect((times[4] ?? 0) - (times[1] ?? 0)).toBeGreaterThan(300);
  });

  it('refuses at once what cannot have its turn in time', async () => {
    await using it = await clientOf(() => ({ body: { a: 1 } }), { pace: 1 });
    const slow = { name: 'slow', spacingMs: 60_000 };
    await get(it.client, { endpoint: slow });
    const before = performance.now();
    const error = await errorOf(get(it.client, { endpoint: slow }));
    expect(error).toMatchObject({ code: 'rate_limited', sent: false });
    expect((error as ProviderError).retryAfterMs).toBeGreaterThan(50_000);
    expect(performance.now() - before).toBeLessThan(1000);
  });

  it('gives a turn back when its caller leaves the queue', async () => {
    await using it = await clientOf(() => ({ body: { a: 1 } }), { pace: 1 });
    const slow = { name: 'slow', spacingMs: 300 };
    await get(it.client, { endpoint: slow });
    const control = new AbortController();
    const left = errorOf(get(it.client, { endpoint: slow, signal: control.signal }));
    control.abort();
    expect((await left).name).toBe('AbortError');
    const before = performance.now();
    await get(it.client, { endpoint: slow });
    expect(performance.now() - before).toBeLessThan(500);
  });

  it('backs off after 429 without Retry-After, doubling, until an answer is none', async () => {
    let refuse = true;
    await using it = await clientOf(
      () => (refuse ? { status: 429, body: 'API requests too frequent', type: 'text/plain' } : { body: { a: 1 } }),
      { pace: 0.1 },
    );
    const slow = { name: 'slow', spacingMs: 1000 };
    const waits: number[] = [];
    for (let n = 0; n < 3; n++) {
      const error = (await errorOf(get(it.client, { endpoint: slow }))) as ProviderError;
      expect(error.code).toBe('rate_limited');
      waits.push(error.retryAfterMs ?? 0);
    }
    expect(waits[0]).toBeGreaterThan(50);
    expect(waits[1]).toBeGreaterThan(1.6 * (waits[0] ?? 0));
    expect(waits[2]).toBeGreaterThan(1.6 * (waits[1] ?? 0));
    refuse = false;
    expect(await get(it.client, { endpoint: slow })).toEqual({ a: 1 });
    expect(it.client.stats().rateLimited).toBe(3);
  });

  it('waits neither for a refusal nor between attempts longer than the call may take, nor than its caller', async () => {
    const busy = { status: 429, body: '', headers: { 'retry-after': '40' } };
    await using it = await clientOf(() => busy, { pace: 1 });
    const reason = new Error('the caller has left');
    const leave = async (endpoint: object, attempts: number) => {
      const control = new AbortController();
      const left = errorOf(
        get(it.client, { endpoint, attempts, until: it.client.within(120_000), signal: control.signal }),
      );
      setTimeout(() => control.abort(reason), 100);
      const before = performance.now();
      expect(await left).toBe(reason);
      expect(performance.now() - before).toBeLessThan(10_000);
    };
    // The second attempt has to wait 40 s for its turn.
    await leave({ name: 'one', spacingMs: 0 }, 3);
    // So has whoever comes later.
    await leave({ name: 'one', spacingMs: 0 }, 1);
    const late = await errorOf(get(it.client, { endpoint: { name: 'one', spacingMs: 0 } }));
    expect(late).toMatchObject({ code: 'rate_limited', sent: false });
    expect(it.server.requests).toHaveLength(1);
    const own = { name: 'two', spacingMs: 0 };
    const whole = performance.now();
    expect(await errorOf(get(it.client, { endpoint: own, attempts: 5 }))).toMatchObject({ code: 'rate_limited' });
    expect(performance.now() - whole).toBeLessThan(10_000);
  });

  it('says how long the provider took for its last answer, without what was waited for turns', async () => {
    await using it = await clientOf(
      (_, response) => void setTimeout(() => response.end(JSON.stringify({ a: 1 })), 30),
      { pace: 1 },
    );
    expect(it.client.stats().answeredMs).toBeNull();
    const slow = { name: 'slow', spacingMs: 1500 };
    const began = performance.now();
    await Promise.all([get(it.client, { endpoint: slow }), get(it.client, { endpoint: slow })]);
    const whole = performance.now() - began;
    expect(whole).toBeGreaterThan(1500);
    expect(it.client.stats().answeredMs).toBeGreaterThanOrEqual(29);
    expect(it.client.stats().answeredMs).toBeLessThan(whole - 1400);
  });

  it('keeps to Retry-After when it comes', async () => {
    await using it = await clientOf(() => ({ status: 429, body: '', headers: { 'retry-after': '7' } }));
    const error = (await errorOf(get(it.client))) as ProviderError;
    expect(error.retryAfterMs).toBeGreaterThan(6000);
    expect(error.retryAfterMs).toBeLessThanOrEqual(7000);
  });

  it.each(['86400', '99999999999', new Date(Date.now() + 1e10).toUTCString()])(
    'sends nobody away for longer than a minute, whatever Retry-After says: %s',
    async (retryAfter) => {
      await using it = await clientOf(() => ({ status: 429, body: '', headers: { 'retry-after': retryAfter } }));
      const call = { endpoint, method: 'DELETE', path: '/x', until: it.client.within(5000) } as const;
      expect(it.client.failure(await it.client.send(call)).retryAfterMs).toBe(60_000);
      expect(it.client.freeIn(endpoint)).toBeLessThanOrEqual(60_000);
    },
  );
});

describe.concurrent('a paid call', () => {
  const paid = (client: JsonClient, rest: object = {}) =>
    sendPaid(client, { endpoint, method: 'POST', path: '/buy', body: {}, until: client.within(5000), ...rest });

  it('goes out once, whatever happens', async () => {
    await using it = await clientOf((_, response) => void response.socket?.resetAndDestroy());
    expect(await paid(it.client, { attempts: 5 })).toMatchObject({ ok: false, reason: 'unknown' });
    expect(it.server.requests).toHaveLength(1);
  });

  it('uses a connection of its own', async () => {
    await using it = await clientOf(() => ({ body: { a: 1 } }));
    await get(it.client);
    await new Promise((resolve) => setTimeout(resolve, 30));
    await get(it.client);
    expect(it.server.sockets()).toBe(1);
    await new Promise((resolve) => setTimeout(resolve, 30));
    await paid(it.client);
    expect(it.server.sockets()).toBe(2);
  });

  it('is unknown when aborted under way, and rejects when aborted before', async () => {
    await using it = await clientOf(() => undefined);
    const control = new AbortController();
    setTimeout(() => control.abort(), 50);
    expect(await paid(it.client, { signal: control.signal })).toMatchObject({ ok: false, reason: 'unknown' });
    expect((await errorOf(paid(it.client, { signal: AbortSignal.abort() }))).name).toBe('AbortError');
    expect(it.server.requests).toHaveLength(1);
  });

  it('is unavailable when nothing can have arrived', async () => {
    const it = await clientOf(() => ({}));
    await it.server[Symbol.asyncDispose]();
    expect(await paid(it.client)).toMatchObject({ ok: false, reason: 'unavailable' });
    await it.client.close();
  });
});

describe.concurrent('lines of a text without an end', () => {
  const read = (client: JsonClient, limits: object = {}) =>
    client.lines(
      { endpoint, method: 'GET', path: '/log', until: client.within(5000) },
      { tail: 3, quietMs: 150, settledMs: 50, maxMs: 300, maxBytes: 100_000, ...limits },
    );

  it('are read until it is quiet, whole although their bytes come in pieces, the last ones kept', async () => {
    await using it = await clientOf((_, response) => {
      response.writeHead(200, { 'content-type': 'text/event-stream' });
      const bytes = Buffer.from('one\r\ntwo\nthree ü\nfour');
      for (const [index, byte] of bytes.entries())
        setTimeout(() => response.write(Buffer.from([byte])), index < 8 ? 1 : 2);
      return undefined;
    });
    expect(await read(it.client)).toEqual(['two', 'three ü', 'four']);
  });

  it('end after a time although news keep coming', async () => {
    await using it = await clientOf((_, response) => {
      response.writeHead(200);
      const timer = setInterval(() => response.write(`${'x'.repeat(10)}\n`), 5);
      response.on('close', () => clearInterval(timer));
      return undefined;
    });
    expect(await read(it.client)).toHaveLength(3);
  });

  it('fail with the error of an answer that is none', async () => {
    await using it = await clientOf(() => ({ status: 404, body: { detail: 'Not found' } }));
    expect(await errorOf(read(it.client))).toMatchObject({ code: 'not_found' });
  });
});
