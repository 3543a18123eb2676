import { randomBytes } from 'node:crypto';
import { request as httpRequest, type IncomingMessage } from 'node:http';
import { type AddressInfo, createServer as createTcpServer, type Socket } from 'node:net';
import { expect, test } from 'vitest';
import { type Echo, echo, RawClient, Rig, readAll, sleep, until } from './rig.ts';

/** One request through node's own client, which shows trailers, early hints and raw headers. */
function ask(
  url: string,
  options: {
    method?: string;
    headers?: Record<string, string | string[]>;
    body?: string | Buffer;
    onInformation?: (info: { statusCode: number; headers: object }) => void;
  } = {},
): Promise<IncomingMessage & { text: string }> {
  return new Promise((resolve, reject) => {
    const req = httpRequest(url, { method: options.method ?? 'GET', headers: options.headers ?? {}, agent: false });
    req.on('error', reject);
    req.on('information', (info) => options.onInformation?.(info));
    req.on('response', (res) => {
      readAll(res).then((body) => resolve(Object.assign(res, { text: body.toString('latin1') })), reject);
    });
    req.end(options.body);
  });
}

test('a request reaches an upstream and its answer comes back', async () => {
  await using rig = await Rig.start();
  await rig.backend('a', echo);
  const answer = await fetch(`${rig.url}/v1/thing?x=1`, { method: 'POST', body: 'hello', headers: { 'x-a': 'b' } });
  expect(answer.status).toBe(200);
  const seen = (await answer.json()) as Echo;
  expect(seen).toMatchObject({ method: 'POST', url: '/v1/thing?x=1', body: 'hello' });
  expect(seen.headers['x-a']).toBe('b');
  expect(answer.headers.get('x-gpuproxy-instance')).toBe('a');
  expect(rig.active('a')).toBe(0);
  expect(rig.endings('a')).toEqual({ complete: 1 });
  const [request] = await rig.reported(1);
  expect(request).toMatchObject({
    method: 'POST',
    path: '/v1/thing',
    status: 200,
    cause: 'complete',
    instance: 'a',
    attempts: 1,
  });
  expect(request!.ttfbMs).toBeGreaterThan(0);
  expect(request!.totalMs).toBeGreaterThanOrEqual(request!.ttfbMs!);
});

test('every method passes, with and without a body', async () => {
  await using rig = await Rig.start();
  await rig.backend('a', echo);
  for (const method of ['GET', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS', 'PROPFIND', 'REPORT', 'TRACE']) {
    const bare = JSON.parse((await ask(`${rig.url}/m`, { method })).text) as Echo;
    expect(bare).toMatchObject({ method, url: '/m', body: '' });
    if (method === 'TRACE') continue;
    const full = JSON.parse(
      (await ask(`${rig.url}/m`, { method, body: 'xyz', headers: { 'content-length': '3' } })).text,
    ) as Echo;
    expect(full).toMatchObject({ method, body: 'xyz' });
  }
});

test('the path and the query reach the upstream byte for byte', async () => {
  await using rig = await Rig.start();
  await rig.backend('a', echo);
  for (const target of [
    '/',
    '//double',
    '/a%2Fb/../c?x=%00&y=a+b',
    '/?',
    '/ä'.normalize('NFC').replace('ä', '%C3%A4'),
    '/a;b=c?d[]=1|2',
  ]) {
    const client = new RawClient(rig.proxy.port);
    client.send(`GET ${target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n`);
    await until(() => client.closed);
    expect((JSON.parse(client.received.split('\r\n\r\n')[1]!) as Echo).url).toBe(target);
  }
});

test('an upstream with a path in its base URL gets that path in front', async () => {
  await using rig = await Rig.start();
  const backend = await rig.backend('a', echo);
  rig.leave('a');
  rig.join('b', `${backend.origin}/base`);
  const answer = await fetch(`${rig.url}/v1/x?y=1`);
  expect(((await answer.json()) as Echo).url).toBe('/base/v1/x?y=1');
});

test('hop-by-hop headers, headers named by Connection and the keys for this proxy do not reach the upstream', async () => {
  await using rig = await Rig.start({ settings: { upstreamApiKey: 'up-key' } });
  await rig.backend('a', echo);
  const client = new RawClient(rig.proxy.port);
  client.send(
    'GET / HTTP/1.1\r\nHost: public.example:8081\r\nConnection: close, X-Hop, content-length\r\nKeep-Alive: 5\r\nX-Hop: 1\r\n' +
      'Proxy-Connection: keep-alive\r\nProxy-Authorization: Basic abc\r\nTE: trailers, deflate\r\nTrailer: X-T\r\n' +
      'X-API-Key: client-secret\r\nAuthorization: Bearer client-secret\r\nX-Forwarded-For: 10.1.1.1\r\nX-Forwarded-For: 10.2.2.2\r\n' +
      'Via: 1.0 front\r\ntraceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\nX-Request-Id: my-id.1\r\n' +
      'Cookie: a=1\r\nCookie: b=2\r\nX-Empty:\r\n\r\n',
  );
  await until(() => client.closed);
  expect(client.received).toContain('x-request-id: my-id.1');
  const { headers, raw } = JSON.parse(client.received.split('\r\n\r\n')[1]!) as Echo;
  expect(JSON.stringify(raw)).not.toContain('client-secret');
  for (const gone of ['keep-alive', 'x-hop', 'proxy-connection', 'proxy-authorization', 'trailer', 'x-api-key']) {
    expect(headers).not.toHaveProperty(gone);
  }
  expect(headers).toMatchObject({
    authorization: 'Bearer up-key',
    te: 'trailers',
    'x-forwarded-for': '10.1.1.1, 10.2.2.2, 127.0.0.1',
    'x-forwarded-proto': 'http',
    'x-forwarded-host': 'public.example:8081',
    via: '1.0 front, 1.1 gpuproxy',
    traceparent: '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01',
    'x-request-id': 'my-id.1',
    cookie: 'a=1; b=2',
    'x-empty': '',
  });
  expect(headers.host).toMatch(/^127\.0\.0\.1:\d+$/);
});

test('hop-by-hop headers of the answer stay behind, everything else comes through, repeated headers too', async () => {
  await using rig = await Rig.start();
  await rig.backend('a', (_req, res) => {
    res.writeHead(201, 'Made It', [
      'Set-Cookie',
      'a=1',
      'Set-Cookie',
      'b=2',
      'Connection',
      'X-Hop',
      'X-Hop',
      '1',
      'Proxy-Authenticate',
      'Basic',
      'X-Gpuproxy-Instance',
      'forged',
      'Via',
      '1.1 inner',
      'X-Keep',
      'yes',
      'Content-Length',
      '2',
    ]);
    res.end('ok');
  });
  const answer = await ask(rig.url);
  expect(answer.statusCode).toBe(201);
  expect(answer.statusMessage).toBe('Made It');
  expect(answer.headers['set-cookie']).toEqual(['a=1', 'b=2']);
  expect(answer.headers).toMatchObject({ 'x-keep': 'yes', via: '1.1 inner, 1.1 gpuproxy', 'x-gpuproxy-instance': 'a' });
  expect(answer.headers).not.toHaveProperty('x-hop');
  expect(answer.headers).not.toHaveProperty('proxy-authenticate');
});

test('X-Gpuproxy-Instance can be switched off, and a request without an id gets one', async () => {
  await using rig = await Rig.start({ settings: { instanceHeader: false } });
  await rig.backend('a', echo);
  const [one, two] = [await ask(rig.url), await ask(rig.url, { headers: { 'x-request-id': 'bad id\t' } })];
  expect(one.headers).not.toHaveProperty('x-gpuproxy-instance');
  expect(one.headers['x-request-id']).toMatch(/^[\w-]{6,}$/);
  expect((JSON.parse(one.text) as Echo).headers['x-request-id']).toBe(one.headers['x-request-id']);
  expect(two.headers['x-request-id']).not.toContain(' ');
});

test('HEAD, 204 and 304 have no body and keep the connection usable', async () => {
  await using rig = await Rig.start();
  await rig.backend('a', (req, res) => {
    if (req.url === '/204') res.writeHead(204).end();
    else if (req.url === '/304') res.writeHead(304, { etag: '"x"' }).end();
    else res.writeHead(200, { 'content-length': 12 }).end(req.method === 'HEAD' ? undefined : 'twelve bytes');
  });
  const client = new RawClient(rig.proxy.port);
  client.send('HEAD / HTTP/1.1\r\nHost: x\r\n\r\n');
  expect(await client.until(/\r\n\r\n/)).toContain('content-length: 12');
  client.send('GET /204 HTTP/1.1\r\nHost: x\r\n\r\n');
  await client.until(/204 No Content[\s\S]*\r\n\r\n/);
  client.send('GET /304 HTTP/1.1\r\nHost: x\r\n\r\n');
  await client.until(/304 Not Modified[\s\S]*\r\n\r\n/);
  client.send('GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n');
  await client.until(/twelve bytes$/);
  expect(client.received.match(/HTTP\/1\.1/g)).toHaveLength(4);
  await until(() => rig.active('a') === 0);
  expect(rig.endings('a')).toEqual({ complete: 4 });
});

test('trailers of the answer pass', async () => {
  await using rig = await Rig.start();
  await rig.backend('a', (_req, res) => {
    res.writeHead(200, { trailer: 'x-sum' });
    res.write('body');
    res.addTrailers({ 'x-sum': '42' });
    res.end();
  });
  const answer = await ask(rig.url);
  expect(answer.text).toBe('body');
  expect(answer.headers.trailer).toBe('x-sum');
  expect(answer.trailers).toEqual({ 'x-sum': '42' });
});

test('trailers of a request pass', async () => {
  await using rig = await Rig.start();
  const seen: object[] = [];
  await rig.backend('a', async (req, res) => {
    const body = (await readAll(req)).toString();
    seen.push({ body, announced: req.headers.trailer, trailers: req.trailers });
    res.end(body);
  });
  for (const wait of [0, 120]) {
    const client = new RawClient(rig.proxy.port);
    client.send(
      'POST /t HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\nTE: trailers\r\n\r\n4\r\nbody\r\n',
    );
    await sleep(wait);
    client.send('0\r\nX-Sum: 42\r\n\r\n');
    await client.until(/body/);
    client.socket.destroy();
  }
  expect(seen).toEqual([1, 2].map(() => ({ body: 'body', announced: 'X-Sum', trailers: { 'x-sum': '42' } })));
  await until(() => rig.active('a') === 0);
  expect(rig.endings('a')).toEqual({ complete: 2 });
});

const lateBodies = {
  'in chunks': { head: 'Transfer-Encoding: chunked', body: '5\r\nhello\r\n0\r\n\r\n', framing: [undefined, 'chunked'] },
  'with a length': { head: 'Content-Length: 5', body: 'hello', framing: ['5', undefined] },
  'too large to keep': { head: 'Content-Length: 200000', body: 'x'.repeat(200_000), framing: ['200000', undefined] },
} as const;

for (const [name, { head, body, framing }] of Object.entries(lateBodies)) {
  test(`a client that waits for the answer before it begins its body ${name} gets it`, async () => {
    await using rig = await Rig.start();
    const seen: object[] = [];
    rig.join('refuses', 'http://127.0.0.1:1');
    await rig.backend('a', (req, res) => {
      res.writeHead(200, { 'set-cookie': ['a=1', 'b=2'], etag: '"1"' });
      res.write('begin');
      void readAll(req).then((bytes) => {
        seen.push({ bytes: bytes.length, framing: [req.headers['content-length'], req.headers['transfer-encoding']] });
        res.end('all');
      });
    });
    for (let round = 0; round < 2; round++) {
      const client = new RawClient(rig.proxy.port);
      client.send(`POST / HTTP/1.1\r\nHost: x\r\n${head}\r\n\r\n`);
      const begun = await client.until(/begin/);
      expect(begun).toMatch(/set-cookie: a=1\r\n(?:.*\r\n)*?set-cookie: b=2\r\n/);
      client.send(body);
      await client.until(/all\r\n0\r\n\r\n$/);
      client.send('GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n');
      await until(() => client.closed);
      expect(client.received.match(/200 OK/g)).toHaveLength(2);
    }
    const length = name === 'too large to keep' ? 200_000 : 5;
    const first = { bytes: length, framing: [...framing] };
    expect(seen.filter((_, i) => i % 2 === 0)).toEqual([first, first]);
    await until(() => rig.active('a') === 0);
    expect(rig.endings('a')).toEqual({ complete: 4 });
  });
}

test('an answer to the head alone ends the request: the body is not waited for', async () => {
  await using rig = await Rig.start();
  const backend = await rig.backend('a', (_req, res) => void res.writeHead(401, { 'content-length': 2 }).end('no'));
  const client = new RawClient(rig.proxy.port);
  client.send('POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n');
  await client.until(/401 Unauthorized(?:.|\s)*no$/);
  await until(() => client.closed && backend.sockets.size === 0);
  expect(rig.endings('a')).toEqual({ client_error: 1 });
});

test('an upstream that answers and reads no further keeps no connection', async () => {
  const sockets = () => process.getActiveResourcesInfo().filter((name) => name === 'TCPSocketWrap').length;
  const accepted: Socket[] = [];
  const upstream = createTcpServer((socket) => {
    accepted.push(socket.on('error', () => {}));
    socket.once('data', () => {
      socket.pause();
      setTimeout(() => socket.write('HTTP/1.1 413 Content Too Large\r\nContent-Length: 0\r\n\r\n'), 200);
    });
  });
  await new Promise<void>((resolve) => upstream.listen(0, '127.0.0.1', resolve));
  await using rig = await Rig.start();
  rig.join('a', `http://127.0.0.1:${(upstream.address() as AddressInfo).port}`);
  const before = sockets();
  const client = new RawClient(rig.proxy.port);
  client.send('POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 20000000\r\n\r\n');
  await until(() => accepted.length === 1);
  client.socket.write(Buffer.alloc(20_000_000));
  await client.until(/413/);
  client.socket.destroy();
  // What is left is the side of the upstream, which does not look whether anybody is there.
  await until(() => sockets() === before + 1);
  expect(rig.active('a')).toBe(0);
  accepted[0]!.destroy();
  await new Promise((resolve) => upstream.close(resolve));
});

test('a 101 that nobody asked for is no answer, however the request goes out', async () => {
  await using rig = await Rig.start({ settings: { maxRetries: 0 } });
  const backend = await rig.backend('a', () => {});
  backend.server.on('request', (req) => {
    req.socket.write('HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: foo\r\n\r\n');
  });
  const requests = [
    'GET / HTTP/1.1\r\nHost: x\r\n\r\n',
    'POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n',
    'POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nTrailer: X-T\r\n\r\n0\r\nX-T: 1\r\n\r\n',
  ];
  for (const request of requests) {
    const client = new RawClient(rig.proxy.port).send(request);
    expect(await client.until(/\r\n\r\n/)).toMatch(/^HTTP\/1\.1 502/);
    client.socket.destroy();
  }
  await until(() => rig.active('a') === 0 && backend.sockets.size === 0);
});

test('a client that leaves before it began its body frees the upstream', async () => {
  await using rig = await Rig.start();
  const backend = await rig.backend('a', () => {});
  const client = new RawClient(rig.proxy.port);
  client.send('POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n');
  await until(() => backend.sockets.size === 1);
  client.socket.destroy();
  await until(() => rig.active('a') === 0 && backend.sockets.size === 0);
  expect(rig.endings('a')).toEqual({ client_gone: 1 });
});

test('early hints pass before the answer', async () => {
  await using rig = await Rig.start();
  await rig.backend('a', (_req, res) => {
    res.writeEarlyHints({ link: '</style.css>; rel=preload' }, () => res.end('done'));
  });
  const hints: object[] = [];
  const answer = await ask(rig.url, {
    onInformation: (info) => hints.push({ status: info.statusCode, headers: info.headers }),
  });
  expect(answer.text).toBe('done');
  expect(hints).toMatchObject([{ status: 103, headers: { link: '</style.css>; rel=preload' } }]);
});

test('Expect: 100-continue is answered when the body is wanted, and not when the request is refused', async () => {
  await using rig = await Rig.start();
  const client = new RawClient(rig.proxy.port);
  client.send('POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 200000\r\n\r\n');
  expect(await client.until(/503/)).not.toContain('100 Continue');
  client.socket.destroy();
  await rig.backend('a', echo);
  for (const length of [5, 100_000]) {
    const next = new RawClient(rig.proxy.port);
    next.send(
      `POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: ${length}\r\nConnection: close\r\n\r\n`,
    );
    await next.until(/^HTTP\/1\.1 100 Continue\r\n\r\n/);
    next.send('z'.repeat(length));
    await until(() => next.closed);
    expect(next.received).toContain('200 OK');
    expect(next.received).not.toContain('expect');
  }
});

test('events reach the client one by one, as they are made', async () => {
  await using rig = await Rig.start();
  let push: (text: string) => void = () => {};
  let end: () => void = () => {};
  await rig.backend('a', (_req, res) => {
    res.writeHead(200, { 'content-type': 'text/event-stream' });
    res.flushHeaders();
    push = (text) => void res.write(`data: ${text}\n\n`);
    end = () => void res.end();
  });
  const answer = await fetch(rig.url); // resolves on the headers alone
  expect(answer.headers.get('content-type')).toBe('text/event-stream');
  const reader = answer.body!.getReader();
  for (const text of ['one', 'two', 'three']) {
    push(text);
    const { value } = await reader.read();
    expect(Buffer.from(value!).toString()).toBe(`data: ${text}\n\n`);
  }
  expect(rig.active('a')).toBe(1);
  end();
  expect((await reader.read()).done).toBe(true);
  expect(rig.active('a')).toBe(0);
});

test('headers with a length reach the client before a late body', async () => {
  await using rig = await Rig.start();
  let end: () => void = () => {};
  await rig.backend('a', (_req, res) => {
    res.writeHead(200, { 'content-length': 4 });
    res.flushHeaders();
    end = () => void res.end('late');
  });
  const answer = await fetch(rig.url);
  end();
  expect(await answer.text()).toBe('late');
});

test('a chunked upload reaches the upstream piece by piece, and the answer may begin before it ends', async () => {
  await using rig = await Rig.start();
  await rig.backend('a', (req, res) => {
    res.writeHead(200);
    req.on('data', (chunk: Buffer) => res.write(`<${chunk.toString()}>`));
    req.on('end', () => res.end('.'));
  });
  const client = new RawClient(rig.proxy.port);
  client.send('POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n');
  await client.until(/<abc>/);
  client.send('4\r\ndefg\r\n');
  await client.until(/<defg>/);
  client.send('0\r\n\r\n');
  await client.until(/\.\r\n0\r\n\r\n$/);
  client.socket.destroy();
});

test('a small body that dawdles is passed on without waiting for its end', async () => {
  await using rig = await Rig.start();
  await rig.backend('a', (req, res) => {
    res.writeHead(200);
    req.on('data', (chunk: Buffer) => res.write(`<${chunk.toString()}>`));
    req.on('end', () => res.end('.'));
  });
  const client = new RawClient(rig.proxy.port);
  client.send('POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 6\r\n\r\nabc');
  await client.until(/<abc>/);
  client.send('def');
  await client.until(/<def>/);
  client.socket.destroy();
});

test('bodies of every size come through unchanged both ways', async () => {
  await using rig = await Rig.start();
  await rig.backend('a', (req, res) => {
    const length = req.headers['x-length'];
    res.writeHead(200, length === undefined ? {} : { 'content-length': String(length) });
    req.pipe(res);
  });
  for (const size of [0, 1, 65_535, 65_536, 65_537, 1_000_003]) {
    const body = randomBytes(size);
    for (const known of [true, false]) {
      const headers: Record<string, string> = known ? { 'x-length': String(size) } : {};
      const answer = await fetch(rig.url, {
        method: 'POST',
        headers,
        ...(known ? { body } : { body: new Blob([body]).stream(), duplex: 'half' }),
      } as RequestInit);
      expect(Buffer.from(await answer.arrayBuffer()).equals(body)).toBe(true);
    }
  }
  expect(rig.active('a')).toBe(0);
});

test('a compressed answer is passed on as it is', async () => {
  await using rig = await Rig.start();
  const bytes = Buffer.from('1f8b0800000000000003cb48cdc9c907008686a610360500000', 'hex');
  await rig.backend('a', (_req, res) => res.writeHead(200, { 'content-encoding': 'gzip' }).end(bytes));
  const answer = await ask(rig.url, { headers: { 'accept-encoding': 'gzip' } });
  expect(answer.headers['content-encoding']).toBe('gzip');
  expect(Buffer.from(answer.text, 'latin1').equals(bytes)).toBe(true);
});

test('all trailers of an answer pass, but for those that may not stand there', async () => {
  await using rig = await Rig.start();
  await rig.backend('a', (_req, res) => {
    res.writeHead(200, { trailer: 'grpc-status, grpc-message, content-length' });
    res.write('body');
    res.addTrailers({ 'grpc-status': '3', 'grpc-message': 'no', 'Set-Cookie': 'a=b' });
    res.end();
  });
  const client = new RawClient(rig.proxy.port).send('GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n');
  await until(() => client.closed);
  expect(client.received).toContain('\r\n0\r\ngrpc-status: 3\r\ngrpc-message: no\r\nset-cookie: a=b\r\n\r\n');
});

test('a client that does not read stops the upstream, and nothing piles up in between', async () => {
  await using rig = await Rig.start();
  const size = 96 * 1024 * 1024;
  let written = 0;
  await rig.backend('a', (_req, res) => {
    res.writeHead(200, { 'content-length': size });
    const chunk = Buffer.alloc(65_536, 'x');
    const more = () => {
      while (written < size && !res.destroyed) {
        written += chunk.length;
        if (!res.write(chunk)) {
          res.once('drain', more);
          return;
        }
      }
      res.end();
    };
    more();
  });
  const client = new RawClient(rig.proxy.port);
  client.socket.removeAllListeners('data');
  client.socket.pause();
  client.send('GET / HTTP/1.1\r\nHost: x\r\n\r\n');
  let last = -1;
  await until(() => written > 0);
  while (last !== written) {
    last = written;
    await sleep(150);
  }
  // Socket buffers of three connections hold some megabytes; the rest has to wait at its source.
  expect(written).toBeLessThan(size / 2);
  let received = 0;
  client.socket.on('data', (chunk: Buffer) => {
    received += chunk.length;
  });
  client.socket.resume();
  await until(() => received > size);
  client.socket.destroy();
  await until(() => rig.active('a') === 0);
});

test('a large body passes both ways without memory growing with it', async () => {
  await using rig = await Rig.start();
  const size = 128 * 1024 * 1024;
  await rig.backend('a', (req, res) => {
    res.writeHead(200);
    req.pipe(res);
  });
  const client = new RawClient(rig.proxy.port);
  client.socket.removeAllListeners('data');
  let received = 0;
  client.socket.on('data', (chunk: Buffer) => {
    received += chunk.length;
  });
  const before = process.memoryUsage().rss;
  let peak = before;
  client.send(`POST / HTTP/1.1\r\nHost: x\r\nContent-Length: ${size}\r\n\r\n`);
  const chunk = Buffer.alloc(262_144, 'z');
  for (let sent = 0; sent < size; sent += chunk.length) {
    if (!client.socket.write(chunk)) await new Promise((resolve) => client.socket.once('drain', resolve));
    peak = Math.max(peak, process.memoryUsage.rss());
  }
  await until(() => received > size);
  expect(peak - before).toBeLessThan(100 * 1024 * 1024);
  client.socket.destroy();
  await until(() => rig.active('a') === 0);
});

test('an upstream that does not read stops the client', async () => {
  await using rig = await Rig.start();
  let resume: () => void = () => {};
  let received = 0;
  await rig.backend('a', (req, res) => {
    req.pause();
    resume = () => {
      req.on('data', (chunk: Buffer) => {
        received += chunk.length;
      });
      req.on('end', () => res.end('thanks'));
      req.resume();
    };
  });
  const size = 64 * 1024 * 1024;
  const client = new RawClient(rig.proxy.port);
  client.send(`POST / HTTP/1.1\r\nHost: x\r\nContent-Length: ${size}\r\n\r\n`);
  let sent = 0;
  const chunk = Buffer.alloc(65_536, 'y');
  const more = () => {
    while (sent < size) {
      sent += chunk.length;
      if (!client.socket.write(chunk)) {
        client.socket.once('drain', more);
        return;
      }
    }
  };
  more();
  let last = -1;
  while (last !== sent || sent === 0) {
    last = sent;
    await sleep(150);
  }
  expect(sent).toBeLessThan(size / 2);
  await until(() => rig.active('a') === 1);
  resume();
  await client.until(/thanks/);
  expect(received).toBe(size);
  client.socket.destroy();
});

test('an HTTP/1.0 client gets an answer it can read', async () => {
  await using rig = await Rig.start();
  await rig.backend('a', (_req, res) => {
    res.write('no length');
    res.end();
  });
  const client = new RawClient(rig.proxy.port);
  client.send('GET / HTTP/1.0\r\n\r\n');
  await until(() => client.closed);
  expect(client.error).toBeNull();
  expect(client.received).toMatch(/^HTTP\/1\.1 200 OK\r\n[\s\S]*\r\n\r\nno length$/);
});

test('pipelined requests are answered in order', async () => {
  await using rig = await Rig.start();
  await rig.backend('a', (req, res) => {
    setTimeout(() => res.end(`<${req.url}>`), req.url === '/1' ? 100 : 0);
  });
  const client = new RawClient(rig.proxy.port);
  client.send(
    'GET /1 HTTP/1.1\r\nHost: x\r\n\r\nGET /2 HTTP/1.1\r\nHost: x\r\n\r\nGET /3 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n',
  );
  await until(() => client.closed);
  expect(client.received.match(/<\/\d>/g)).toEqual(['</1>', '</2>', '</3>']);
  await until(() => rig.active('a') === 0);
});
