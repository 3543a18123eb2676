import { createHash } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { createServer as createHttpsServer, request as httpsRequest } from 'node:https';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { connect as connectTls } from 'node:tls';
import { afterAll, expect, test } from 'vitest';
import { monotonicMs } from '../../src/clock.ts';
import { certificate } from '../helpers/certificate.ts';
import { echo, RawClient, Rig, readAll, sleep, until } from './rig.ts';

const folder = mkdtempSync(join(tmpdir(), 'gpuproxy-proxy-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const sha256 = (key: string) => createHash('sha256').update(key).digest('hex');

function askTls(port: number, ca: string, path = '/'): Promise<{ status: number; text: string }> {
  return new Promise((resolve, reject) => {
    const req = httpsRequest({ host: '127.0.0.1', port, path, ca, agent: false }, (res) => {
      readAll(res).then((body) => resolve({ status: res.statusCode ?? 0, text: body.toString() }), reject);
    });
    req.on('error', reject);
    req.end();
  });
}

test('with keys required, only a known key comes in, and it goes no further', async () => {
  await using rig = await Rig.start({ auth: { required: true, hashes: [sha256('good-key')] } });
  await rig.backend('a', echo);
  const ask = (headers: Record<string, string>) => fetch(rig.url, { headers });
  for (const headers of [
    {},
    { 'x-api-key': 'bad-key' },
    { authorization: 'Bearer bad-key' },
    { authorization: 'Basic good-key' },
  ]) {
    const answer = await ask(headers as Record<string, string>);
    expect(answer.status).toBe(401);
    expect(answer.headers.get('www-authenticate')).toMatch(/^Bearer/);
    expect(answer.headers.get('content-type')).toBe('application/problem+json');
    expect(await answer.json()).toMatchObject({ status: 401, code: 'unauthorized' });
  }
  for (const headers of [
    { 'x-api-key': 'good-key' },
    { authorization: 'Bearer good-key' },
    { authorization: 'bearer good-key' },
  ]) {
    const answer = await ask(headers as Record<string, string>);
    expect(answer.status).toBe(200);
    expect(await answer.text()).not.toContain('good-key');
  }
  rig.proxy.setAuth({ required: true, hashes: [] });
  expect((await ask({ 'x-api-key': 'good-key' })).status).toBe(401);
  expect(rig.endings('a')).toEqual({ complete: 3 });
});

test('a key may have limits: what is beyond them is 429, what has ended counts no more, and an expired key is unknown', async () => {
  const none = { slot: -1, expiresAt: null, requestsPerMinute: null, maxConcurrent: null };
  const terms = [
    { ...none, hash: sha256('two-at-once'), slot: 0, maxConcurrent: 2 },
    { ...none, hash: sha256('three-a-minute'), slot: 1, requestsPerMinute: 3 },
    { ...none, hash: sha256('expired'), expiresAt: Date.now() - 1 },
  ];
  await using rig = await Rig.start({ auth: { required: true, hashes: terms.map((one) => one.hash), terms } });
  let finish: () => void = () => {};
  await rig.backend('a', (req, res) => {
    if (req.url !== '/hold') return void res.end();
    const before = finish;
    finish = () => {
      before();
      res.end();
    };
  });
  const ask = (key: string, path = '/') => fetch(rig.url + path, { headers: { 'x-api-key': key } });
  const held = [ask('two-at-once', '/hold'), ask('two-at-once', '/hold')];
  await until(() => rig.active('a') === 2);
  const third = await ask('two-at-once');
  expect(third.status).toBe(429);
  expect(third.headers.get('retry-after')).toBe('1');
  expect(await third.json()).toMatchObject({ code: 'rate_limited' });
  finish();
  await Promise.all(held);
  await until(() => rig.proxy.active === 0);
  expect((await ask('two-at-once')).status).toBe(200);
  const statuses = [];
  for (let i = 0; i < 4; i++) statuses.push((await ask('three-a-minute')).status);
  expect(statuses).toEqual([200, 200, 200, 429]);
  const late = (await ask('three-a-minute')).headers;
  expect(Number(late.get('retry-after'))).toBeGreaterThan(10);
  expect(late.get('ratelimit-policy')).toBe('"key";q=3;w=60');
  expect(late.get('ratelimit')).toBe(`"key";r=0;t=${late.get('retry-after')}`);
  expect((await ask('expired')).status).toBe(401);
});

test('who guesses keys is locked out and told when to come again; a key that proved right passes', async () => {
  await using rig = await Rig.start({ auth: { required: true, hashes: [sha256('good-key')] } });
  await rig.backend('a', echo);
  const ask = (key: string) => fetch(rig.url, { headers: { authorization: `Bearer ${key}` } });
  expect((await ask('good-key')).status).toBe(200);
  const answers = [];
  for (let guess = 0; guess < 20; guess++) answers.push(await ask(`guess-${guess}`));
  expect(answers.slice(0, 10).map(({ status }) => status)).toEqual(Array.from({ length: 10 }, () => 401));
  const locked = answers.find(({ status }) => status === 429);
  expect(Number(locked?.headers.get('retry-after'))).toBeGreaterThan(0);
  expect(await locked?.json()).toMatchObject({ code: 'rate_limited' });
  expect((await ask('good-key')).status).toBe(200);
});

test('a large body of a request that is refused does not disturb the answer', async () => {
  await using rig = await Rig.start({ auth: { required: true, hashes: [] } });
  const answer = await fetch(rig.url, { method: 'POST', body: Buffer.alloc(3_000_000) });
  expect(answer.status).toBe(401);
});

test('TLS on the listener and towards upstreams', async () => {
  const tls = certificate();
  const upstream = createHttpsServer(tls, (req, res) => void res.end(`secure ${req.url}`));
  await new Promise<void>((resolve) => upstream.listen(0, '127.0.0.1', resolve));
  await using rig = await Rig.start({ settings: { tls, verifyUpstreamTls: false } });
  rig.join('a', `https://127.0.0.1:${(upstream.address() as AddressInfo).port}`);
  expect(await askTls(rig.proxy.port, tls.cert, '/x')).toEqual({ status: 200, text: 'secure /x' });
  // A body that breaks off without any framing: the connection is cut, and the proxy goes on.
  rig.leave('a');
  await rig.backend('b', (req, res) => {
    res.write('part');
    setTimeout(() => req.socket.destroy(), 30);
  });
  const old = connectTls({ host: '127.0.0.1', port: rig.proxy.port, ca: tls.cert });
  old.on('error', () => {});
  old.write('GET / HTTP/1.0\r\n\r\n');
  await new Promise((resolve) => old.resume().once('close', resolve));
  expect(rig.endings('b')).toEqual({ truncated: 1 });
  // Plain HTTP on a TLS port is closed, not answered.
  const plain = new RawClient(rig.proxy.port).send('GET / HTTP/1.1\r\nHost: x\r\n\r\n');
  await until(() => plain.closed);
  await using strict = await Rig.start();
  strict.join('a', `https://127.0.0.1:${(upstream.address() as AddressInfo).port}`);
  expect((await fetch(strict.url)).status).toBe(502); // the certificate is nobody's the proxy knows
  upstream.closeAllConnections();
  upstream.close();
});

test('drain finishes what is under way, takes nothing new, and cuts what is left at the deadline', async () => {
  await using rig = await Rig.start();
  let finish: () => void = () => {};
  await rig.backend('a', (req, res) => {
    res.write('begun');
    if (req.url === '/ends') finish = () => void res.end(' and done');
  });
  const ends = await fetch(`${rig.url}/ends`);
  const hangs = await fetch(`${rig.url}/hangs`);
  const idle = new RawClient(rig.proxy.port);
  await sleep(20);
  const drained = rig.proxy.drain(700);
  await until(() => idle.closed);
  const refusedClient = new RawClient(rig.proxy.port);
  await until(() => refusedClient.closed);
  expect(refusedClient.error).not.toBeNull();
  finish();
  expect(await ends.text()).toBe('begun and done');
  await expect(hangs.text()).rejects.toThrow();
  await drained;
  expect(rig.active('a')).toBe(0);
  expect(rig.endings('a')).toEqual({ complete: 1, drained: 1 });
});

test('while draining an answer says that its connection ends', async () => {
  await using rig = await Rig.start();
  let finish: () => void = () => {};
  await rig.backend('a', (_req, res) => {
    finish = () => void res.end('done');
  });
  const client = new RawClient(rig.proxy.port).send('GET / HTTP/1.1\r\nHost: x\r\n\r\n');
  await until(() => rig.active('a') === 1);
  const drained = rig.proxy.drain(10_000);
  await sleep(20);
  finish();
  await until(() => client.closed);
  expect(client.received.toLowerCase()).toContain('connection: close');
  await drained;
});

test('the access log has one JSON line a request, without query, header or key', async () => {
  const file = join(folder, 'logs', 'access.log');
  await using rig = await Rig.start({ settings: { accessLog: file } });
  await rig.backend('a', echo);
  await (
    await fetch(`${rig.url}/v1/x?token=secret-query`, {
      method: 'POST',
      body: 'four',
      headers: {
        'x-api-key': 'secret-key',
        'x-request-id': 'req-1',
        traceparent: '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01',
      },
    })
  ).text();
  await fetch(`${rig.url}/none`, { method: 'TRACE' }).catch(() => {});
  const gone = new RawClient(rig.proxy.port).send('GET /left HTTP/1.1\r\nHost: x\r\n');
  gone.socket.destroy();
  await rig.close();
  const text = readFileSync(file, 'utf8');
  expect(text).not.toContain('secret');
  const lines = text
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line));
  expect(lines).toHaveLength(1);
  expect(lines[0]).toMatchObject({
    id: 'req-1',
    method: 'POST',
    path: '/v1/x',
    status: 200,
    cause: 'complete',
    instance: 'a',
    attempts: 1,
    bytes_in: 4,
    client: '127.0.0.1',
    model: null,
    queue_ms: 0,
    trace: '0af7651916cd43dd8448eb211c80319c',
  });
  for (const phase of ['connect_ms', 'ttfb_ms', 'total_ms', 'bytes_out']) expect(lines[0][phase]).toBeGreaterThan(0);
  expect(Date.parse(lines[0].time)).toBeGreaterThan(1_700_000_000_000);
});

test('a disk that is full loses lines of the access log, says so, and takes no traffic with it', async () => {
  await using rig = await Rig.start({ settings: { accessLog: '/dev/full' } });
  await rig.backend('a', echo);
  for (let i = 0; i < 2; i++) {
    await (await fetch(rig.url)).text();
    // The first lines are tried again together with the next ones.
    const told = () => rig.reports.filter((report) => report.accessLogFault !== undefined).length > i;
    await until(told);
  }
  expect(rig.reports.at(-1)?.accessLogFault).toContain('ENOSPC');
  expect(await (await fetch(rig.url)).text()).not.toBe('');
});

test('what clients name is ASCII in the access log, and reads back as it was', async () => {
  const file = join(folder, 'logs', 'names.log');
  await using rig = await Rig.start({ settings: { accessLog: file } });
  const model = 'modèle "漢" \u2028\ud83d\ude00';
  await rig.backend('a', echo, { models: [model] });
  await (
    await fetch(`${rig.url}/v1/chat/completions`, {
      method: 'POST',
      body: JSON.stringify({ model }),
      headers: { 'content-type': 'application/json' },
    })
  ).text();
  await rig.close();
  const text = readFileSync(file, 'latin1');
  expect(text).toMatch(/^[\n\x20-\x7e]*$/);
  expect(JSON.parse(text)).toMatchObject({ model, status: 200 });
});

test('decisions are reported with what was compared and how it ended', async () => {
  await using rig = await Rig.start({ strategy: 'least_connections' });
  await rig.backend('a', echo);
  await rig.backend('b', echo);
  rig.table.setDraining(rig.refs.get('b')!, true, monotonicMs());
  await (await fetch(rig.url)).text();
  const [decision] = rig.proxy.decisions();
  expect(decision).toMatchObject({ strategy: 'least_connections', winner: 'a', ending: 'complete' });
  expect(decision!.candidates).toContainEqual({ id: 'b', excluded: 'draining', score: null });
  expect(Math.abs(decision!.at - Date.now())).toBeLessThan(60_000);
});

test('counters are cumulative and told by cause', async () => {
  await using rig = await Rig.start();
  await rig.backend('a', (req, res) => res.writeHead(req.url === '/404' ? 404 : 200).end('12345'));
  for (const path of ['/', '/', '/404']) await (await fetch(rig.url + path, { method: 'POST', body: 'abc' })).text();
  await rig.reported(3);
  const { counters } = rig.reports.at(-1)!;
  expect(counters).toMatchObject({
    requests: 3,
    bytesIn: 9,
    bytesOut: 15,
    retries: 0,
    upgrades: 0,
    causes: { complete: 3 },
  });
  expect(counters.statusClasses).toEqual([0, 0, 2, 0, 1, 0]);
});

test('an answer without a length that breaks off is a reset also under TLS: not every client minds a missing farewell', async () => {
  const tls = certificate();
  await using rig = await Rig.start({ settings: { tls } });
  await rig.backend('a', (req, res) => {
    res.write('part');
    setTimeout(() => req.socket.resetAndDestroy(), 50);
  });
  const client = connectTls({ host: '127.0.0.1', port: rig.proxy.port, ca: tls.cert, servername: 'localhost' });
  client.write('GET / HTTP/1.0\r\nHost: localhost\r\n\r\n');
  let received = '';
  client.on('data', (chunk) => {
    received += chunk.toString('latin1');
  });
  const code = await new Promise((resolve) => {
    client.on('error', (error: NodeJS.ErrnoException) => resolve(error.code));
    client.on('end', () => resolve('a clean end'));
  });
  expect(received).toContain('part');
  expect(code).toBe('ECONNRESET');
});
