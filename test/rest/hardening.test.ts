import { connect } from 'node:net';
import { gzipSync } from 'node:zlib';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { createFakeApp, type FakeApp } from '../helpers/fake-app.ts';
import { type Rest, startRest } from './harness.ts';

let app: FakeApp;
let rest: Rest;

/** What the server took for bugs of its own: nothing that a client does is one. */
const bugs: unknown[] = [];

beforeEach(async () => {
  app = createFakeApp();
  rest = await startRest(app, {
    limits: { headersMs: 400, requestMs: 800, bodyBytes: 4096 },
    logger: { error: (fields, message) => bugs.push([message, fields]) },
  });
});
afterEach(async () => {
  await rest[Symbol.asyncDispose]();
  expect(bugs.splice(0)).toEqual([]);
});

/** Sends bytes as they are and returns all that came until the server closed. */
function raw(text: string, options: { later?: string; afterMs?: number } = {}): Promise<string> {
  const { promise, resolve } = Promise.withResolvers<string>();
  const socket = connect(rest.server.port, '127.0.0.1');
  let received = '';
  socket.setEncoding('utf8');
  socket.on('data', (part: string) => {
    received += part;
  });
  socket.on('error', () => {});
  socket.on('close', () => resolve(received));
  socket.write(text);
  if (options.later !== undefined) setTimeout(() => socket.write(options.later ?? ''), options.afterMs);
  return promise;
}

const reserve = '/api/v1/gpu/instances/reserve';

describe('bodies', () => {
  test.each(['{', '{"count":', 'count=1', '"', '{"count":1}}', '\u0000'])('%j is 400 bad_json', async (body) => {
    const reply = await rest.call('POST', reserve, { body });
    expect(reply.status).toBe(400);
    expect(reply.body).toMatchObject({ code: 'bad_json' });
  });

  test('bad JSON is not quoted back, for it may hold a secret', async () => {
    const reply = await rest.call('POST', reserve, { body: '{"config":{"env":{"TOKEN":"hunter22"}' });
    expect(reply.status).toBe(400);
    expect(reply.text).not.toContain('hunter22');
  });

  test('bytes that are not UTF-8 are 400', async () => {
    const reply = await rest.call('POST', reserve, { body: Buffer.from([0x22, 0xff, 0xfe, 0x22]) });
    expect(reply.body).toMatchObject({ code: 'bad_json', detail: 'The body is not UTF-8.' });
  });

  test('no body where one is needed is 400, not 500', async () => {
    expect((await rest.call('POST', reserve)).status).toBe(400);
    expect((await rest.call('POST', reserve, { body: '' })).status).toBe(400);
    expect((await rest.call('POST', reserve, { body: 'null' })).status).toBe(400);
  });

  test('__proto__ is refused at any depth', async () => {
    const reply = await rest.call('POST', reserve, { body: '{"count":1,"config":{"env":{"__proto__":"x"}}}' });
    expect(reply.status).toBe(400);
    expect(app.calls).toEqual([]);
  });

  test('another type than JSON is 415', async () => {
    for (const type of ['text/plain', 'application/x-www-form-urlencoded', 'multipart/form-data', 'nonsense']) {
      const reply = await rest.call('POST', reserve, { body: '{"count":1}', headers: { 'content-type': type } });
      expect(reply.status, type).toBe(415);
      expect(reply.body).toMatchObject({ code: 'unsupported_media_type' });
    }
    const zipped = await rest.call('POST', reserve, {
      body: gzipSync('{"count":1}'),
      headers: { 'content-encoding': 'gzip' },
    });
    expect(zipped.status).toBe(415);
  });

  test('JSON with a charset is JSON', async () => {
    const headers = { 'content-type': 'application/json; charset=utf-8' };
    expect((await rest.call('POST', reserve, { body: '{"count":1}', headers })).status).toBe(201);
  });

  test('a body over the limit is 413, announced or not', async () => {
    const body = JSON.stringify({ count: 1, config: { onstart: 'x'.repeat(5000) } });
    const announced = await rest.call('POST', reserve, { body });
    expect(announced.status).toBe(413);
    expect(announced.body).toMatchObject({
      code: 'too_large',
      detail: 'The body is larger than 4096 bytes, the limit.',
    });
    const answer = await raw(
      `POST ${reserve} HTTP/1.1\r\nHost: x\r\nX-API-Key: ${rest.adminKey}\r\nContent-Type: application/json\r\n` +
        `Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n1388\r\n${'x'.repeat(5000)}\r\n0\r\n\r\n`,
    );
    expect(answer).toMatch(/^HTTP\/1\.1 413 /);
    expect(answer).toContain('4096 bytes');
  });
});

describe('methods and paths', () => {
  test('a method that does not fit is 405 with Allow', async () => {
    const reply = await rest.call('DELETE', '/api/v1/loadbalancer/strategy');
    expect(reply.status).toBe(405);
    expect(reply.headers.allow).toBe('GET, HEAD, PUT, OPTIONS');
    for (const method of ['PATCH', 'TRACE', 'PROPFIND', 'QUERY']) {
      const other = await rest.call(method, '/api/v1/gpu/instances/reserve');
      expect(other.status, method).toBe(405);
      expect(other.headers.allow).toBe('POST, OPTIONS');
    }
    expect((await rest.call('POST', '/healthz')).status).toBe(405);
  });

  test('OPTIONS says what is allowed, and CORS is off', async () => {
    const reply = await rest.call('OPTIONS', '/api/v1/fleet/x', {
      key: null,
      headers: { origin: 'https://evil.example', 'access-control-request-method': 'DELETE' },
    });
    expect(reply.status).toBe(204);
    expect(reply.headers.allow).toBe('GET, HEAD, DELETE, OPTIONS');
    const withOrigin = await rest.call('GET', '/api/v1/fleet', { headers: { origin: 'https://evil.example' } });
    for (const { headers } of [reply, withOrigin]) {
      expect(Object.keys(headers).filter((name) => name.startsWith('access-control-'))).toEqual([]);
    }
  });

  test('HEAD answers like GET without the body', async () => {
    const head = await rest.call('HEAD', '/api/v1/fleet');
    const get = await rest.call('GET', '/api/v1/fleet');
    expect(head.status).toBe(200);
    expect(head.text).toBe('');
    expect(head.headers['content-length']).toBe(get.headers['content-length']);
  });

  test('an unknown path is 404 and guesses the meant one', async () => {
    const reply = await rest.call('GET', '/api/v1/flet');
    expect(reply.status).toBe(404);
    expect(reply.body).toMatchObject({ code: 'not_found', detail: expect.stringContaining('/api/v1/fleet') });
    const guesses: [string, string | null][] = [
      ['/fleet', '/api/v1/fleet'],
      ['/api/v1/fleet/vast-1/drian', '/api/v1/fleet/{id}/drain'],
      ['/api/v2/reservations', '/api/v1/reservations'],
      ['/api/v1/healthz', '/healthz'],
      ['/metric', '/metrics'],
      ['/api/v1/nope', null],
      ['/api/v1', null],
      ['/', null],
    ];
    for (const [path, guess] of guesses) {
      const { body } = await rest.call('GET', path);
      const { detail } = body as { detail: string };
      expect(detail, path).toContain(guess === null ? 'openapi.json lists what there is' : `Did you mean ${guess}?`);
    }
    expect((await rest.call('GET', '/')).status).toBe(404);
    expect((await rest.call('GET', '/api/v1/fleet/')).status).toBe(200);
  });

  test('broken percent-encoding is 400, an id of any length and content 404', async () => {
    expect((await rest.call('GET', '/api/v1/fleet/%zz')).status).toBe(400);
    expect((await rest.call('GET', `/api/v1/fleet/${'a'.repeat(300)}`)).status).toBe(400);
    expect((await rest.call('GET', `/api/v1/fleet/${'a'.repeat(3000)}`)).status).toBe(404);
    expect((await rest.call('GET', '/api/v1/fleet/..%2f..%2fetc%2fpasswd')).status).toBe(404);
    expect((await rest.call('GET', '/api/v1/fleet/__proto__')).status).toBe(404);
  });
});

describe('connections', () => {
  test('headers over the limit are 431', async () => {
    const answer = await raw(`GET /healthz HTTP/1.1\r\nHost: x\r\nX-Big: ${'x'.repeat(20_000)}\r\n\r\n`);
    expect(answer).toMatch(/^HTTP\/1\.1 431 /);
    expect(answer).toContain('larger than 16384 bytes');
    expect(answer).toContain('application/problem+json');
  });

  test('headers that drip in are cut off with 408', async () => {
    const answer = await raw('GET /healthz HTTP/1.1\r\nHost: x\r\n', { later: 'X-Slow: 1\r\n', afterMs: 100 });
    expect(answer).toMatch(/^HTTP\/1\.1 408 /);
  });

  test('a body that never comes is cut off with 408', async () => {
    const answer = await raw(
      `POST ${reserve} HTTP/1.1\r\nHost: x\r\nX-API-Key: ${rest.adminKey}\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{`,
    );
    expect(answer).toMatch(/^HTTP\/1\.1 408 /);
    expect(app.calls).toEqual([]);
  });

  test.each([
    ['nonsense', 'hello\r\n\r\n'],
    ['no Host', 'GET /healthz HTTP/1.1\r\n\r\n'],
    [
      'both lengths',
      'POST /api/v1/fleet/x/resume HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n',
    ],
    ['a bare LF', 'GET /healthz HTTP/1.1\nHost: x\n\n'],
  ])('%s is 400', async (_name, text) => {
    expect(await raw(text)).toMatch(/^HTTP\/1\.1 400 /);
  });

  test('HTTP/1.0 needs no Host', async () => {
    expect(await raw('GET /healthz HTTP/1.0\r\n\r\n')).toMatch(/^HTTP\/1\.1 200 /);
  });

  test('100-continue is met, any other expectation refused', async () => {
    const head = (expectation: string) =>
      `POST ${reserve} HTTP/1.1\r\nHost: x\r\nX-API-Key: ${rest.adminKey}\r\nContent-Type: application/json\r\n` +
      `Connection: close\r\nContent-Length: 11\r\nExpect: ${expectation}\r\n\r\n`;
    const met = await raw(head('100-continue'), { later: '{"count":1}', afterMs: 50 });
    expect(met).toMatch(/^HTTP\/1\.1 100 Continue\r\n\r\nHTTP\/1\.1 201 /);
    expect(await raw(head('a-miracle'))).toMatch(/^HTTP\/1\.1 417 /);
  });

  test.each([
    ['broken percent-encoding', 'GET /api/v1/fleet/%zz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n', 400],
    ['a long id', `GET /api/v1/fleet/${'a'.repeat(600)} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n`, 404],
    ['no Host', 'GET /healthz HTTP/1.1\r\n\r\n', 400],
    ['an expectation', 'GET /healthz HTTP/1.1\r\nHost: x\r\nExpect: more\r\n\r\n', 417],
    ['nonsense', 'hello\r\n\r\n', 400],
    ['headers that do not end', 'GET /healthz HTTP/1.1\r\nHost: x\r\n', 408],
    ['a body that does not come', `POST ${reserve} HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n`, 401],
    ['long headers', `GET / HTTP/1.1\r\nHost: x\r\nX-Big: ${'x'.repeat(20_000)}\r\n\r\n`, 431],
  ])('the refusal of %s is a problem with an id', async (_name, text, status) => {
    const [head = '', body = ''] = (await raw(text)).split('\r\n\r\n');
    expect(head).toMatch(new RegExp(`^HTTP/1\\.1 ${status} `));
    expect(head).toMatch(/^content-type: application\/problem\+json/im);
    expect(head).toMatch(/^x-request-id: [0-9a-f-]{36}$/im);
    expect(head).toMatch(/^x-content-type-options: nosniff$/im);
    // A second answer may follow in the same bytes.
    expect(JSON.parse(body.split('HTTP/1.1', 1)[0]!)).toMatchObject({ status, code: expect.any(String) });
  });
});

test.each([
  ['a path that there is not', 'POST /nope', ''],
  ['a page', 'POST /api/v1/docs', ''],
  ['an operation without a key', 'POST /api/v1/fleet/adopt', ''],
  ['an operation with a key', `POST ${reserve}`, 'key'],
  ['an operation without a body', 'DELETE /api/v1/fleet/vast-1', 'key'],
])('an upload to %s that breaks off is no bug of the server', async (_name, target, key) => {
  const start = (more: string) =>
    `${target} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n${key && `X-API-Key: ${rest.adminKey}\r\n`}${more}`;
  for (const leave of ['destroy', 'end'] as const) {
    const socket = connect(rest.server.port, '127.0.0.1');
    socket.on('error', () => {});
    const closed = new Promise((done) => socket.on('close', done));
    socket.resume();
    socket.write(start('Content-Length: 20\r\n\r\n{"a"'), () => socket[leave]());
    await closed;
  }
  await raw(start('Transfer-Encoding: chunked\r\n\r\n4\r\n{"a"\r\nnonsense\r\n'));
  // Cut off by the time limit for a request.
  await raw(start('Content-Length: 20\r\n\r\n{"a"'));
  // The server has noticed when it has ended, and then the list of bugs is looked at.
});

describe('what an answer tells', () => {
  test('nothing of the software, nothing to cache, nothing to frame', async () => {
    for (const [method, path] of [
      ['GET', '/api/v1/fleet'],
      ['GET', '/nowhere'],
      ['POST', '/api/v1/keys'],
      ['GET', '/api/v1/fleet/%zz'],
    ] as const) {
      const { headers, text } = await rest.call(method, path);
      expect(headers.server).toBeUndefined();
      expect(headers['x-powered-by']).toBeUndefined();
      expect(headers['x-content-type-options']).toBe('nosniff');
      expect(headers['cache-control']).toBe('no-store');
      expect(text).not.toMatch(/fastify|node_modules|FST_ERR|zod/i);
    }
  });

  test('a request id comes back, the caller’s own when it is harmless', async () => {
    for (const path of ['/api/v1/fleet', '/nope', '/api/v1/fleet/%zz', `/api/v1/fleet/${'a'.repeat(600)}`]) {
      const own = await rest.call('GET', path, { headers: { 'x-request-id': 'abc-1' } });
      expect(own.headers['x-request-id'], path).toBe('abc-1');
    }
    const bad = await rest.call('GET', '/api/v1/fleet', { headers: { 'x-request-id': 'a b<script>' } });
    expect(bad.headers['x-request-id']).toMatch(/^[0-9a-f-]{36}$/);
  });

  test('a planted secret is in no answer and in no log line', async () => {
    const secret = 'hunter22-secret';
    const logged: string[] = [];
    await using other = await startRest(app, { logger: { error: (fields) => logged.push(JSON.stringify(fields)) } });
    app.on({ offers: () => Promise.reject(new Error('bug')) });
    const tries: [string, string, object][] = [
      ['GET', '/api/v1/fleet', { key: secret }],
      ['GET', '/api/v1/gpu/instances', { headers: { authorization: `Bearer ${secret}`, cookie: secret } }],
      ['POST', '/api/v1/gpu/instances/reserve', { body: { count: 1, config: { env: { A: [secret] } } } }],
      ['POST', '/api/v1/gpu/instances/reserve', { body: { count: 1, config: { onstart: { a: secret } } } }],
      ['POST', '/api/v1/gpu/instances/reserve', { body: `{"a":"${secret}` }],
      ['POST', '/api/v1/upstreams', { body: { url: `http://user:${secret}@host` } }],
      ['POST', '/api/v1/keys', { body: { name: 'x', scope: 'read', api_key: { deep: secret } } }],
      ['GET', `/nowhere?key=${secret}`, {}],
      ['POST', `/api/v1/fleet?api_key=${secret}`, {}],
      ['GET', `/api/v1/gpu/instances?api_key=${secret}`, {}],
    ];
    for (const [method, path, options] of tries) {
      const { text, headers } = await other.call(method, path, options);
      expect(text + JSON.stringify(headers), `${method} ${path}`).not.toContain(secret);
    }
    expect(logged.join()).not.toContain(secret);
  });
});

test('a reservation goes on when the client leaves in the middle of it', async () => {
  const { promise: mayFinish, resolve: finish } = Promise.withResolvers<void>();
  const { promise: begun, resolve: begin } = Promise.withResolvers<void>();
  let finished = false;
  let options: unknown;
  app.on({
    async reserve(request, given) {
      options = given;
      begin();
      await mayFinish;
      finished = true;
      return { reservation: 'r', reserved: [], count: request.count, requested: request.count, errors: [] };
    },
  });
  const body = '{"count":1}';
  const socket = connect(rest.server.port, '127.0.0.1');
  socket.on('error', () => {});
  socket.write(
    `POST ${reserve} HTTP/1.1\r\nHost: x\r\nX-API-Key: ${rest.adminKey}\r\nContent-Type: application/json\r\nContent-Length: ${body.length}\r\n\r\n${body}`,
  );
  await begun;
  socket.destroy();
  finish();
  await expect.poll(() => finished).toBe(true);
  expect(options).toEqual({ by: 'tester' });
});

test('a question is aborted when the client leaves', async () => {
  const { promise: aborted, resolve } = Promise.withResolvers<void>();
  const { promise: begun, resolve: begin } = Promise.withResolvers<void>();
  app.on({
    offers: (_filter, signal) =>
      new Promise((_take, fail) => {
        begin();
        signal?.addEventListener('abort', () => {
          resolve();
          fail(signal.reason);
        });
      }),
  });
  const socket = connect(rest.server.port, '127.0.0.1');
  socket.on('error', () => {});
  socket.write(`GET /api/v1/gpu/instances HTTP/1.1\r\nHost: x\r\nX-API-Key: ${rest.adminKey}\r\n\r\n`);
  await begun;
  socket.destroy();
  await aborted;
});

test('closing waits for an answer that is under way, and cuts one that takes too long', async () => {
  let entered = 0;
  const { promise, resolve } = Promise.withResolvers<void>();
  app.on({
    decisions: async () => {
      entered++;
      await promise;
      return [];
    },
  });
  const answer = rest.call('GET', '/api/v1/decisions');
  await expect.poll(() => entered).toBe(1);
  const closing = rest.server.close();
  resolve();
  expect((await answer).status).toBe(200);
  await closing;

  const stuck = createFakeApp();
  stuck.on({ decisions: () => new Promise(() => {}) });
  const other = await startRest(stuck, { limits: { closeMs: 100 } });
  const cut = other.call('GET', '/api/v1/decisions').catch((error: NodeJS.ErrnoException) => error.code);
  await new Promise((done) => setTimeout(done, 50));
  await other.server.close();
  expect(await cut).toBe('ECONNRESET');
});

test('a port in use is said so', async () => {
  await expect(startRest(app, { port: rest.server.port })).rejects.toMatchObject({ code: 'EADDRINUSE' });
});
