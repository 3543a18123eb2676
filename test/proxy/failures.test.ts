import type { RequestListener } from 'node:http';
import { type AddressInfo, createServer as createTcpServer, type Socket } from 'node:net';
import { expect, test } from 'vitest';
import { type Echo, echo, RawClient, Rig, readAll, sleep, until } from './rig.ts';

/** A port nobody listens on. */
async function deadPort(): Promise<number> {
  const server = createTcpServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return port;
}

const reset: RequestListener = (req) => void (req.socket as Socket).resetAndDestroy();
const status =
  (code: number, headers: Record<string, string> = {}): RequestListener =>
  (req, res) => {
    req.resume();
    req.on('end', () => res.writeHead(code, headers).end(`answer ${code}`));
  };

test('a refused connection is tried on another upstream, with any method and body', async () => {
  await using rig = await Rig.start({ balancer: { ejectAfterFailures: 100 } });
  rig.join('dead', `http://127.0.0.1:${await deadPort()}`);
  await rig.backend('live', echo);
  for (let i = 0; i < 4; i++) {
    const answer = await fetch(rig.url, { method: 'POST', body: `body ${i}` });
    expect(answer.status).toBe(200);
    expect(answer.headers.get('x-gpuproxy-instance')).toBe('live');
    expect(((await answer.json()) as Echo).body).toBe(`body ${i}`);
  }
  expect(rig.endings('dead').refused).toBeGreaterThanOrEqual(1);
  expect(rig.endings('live')).toEqual({ complete: 4 });
  expect(rig.active('dead')).toBe(0);
  const requests = await rig.reported(4);
  expect(Math.max(...requests.map((request) => request.attempts))).toBe(2);
});

test('with nobody else left a refused connection is 502 and says so as a problem document', async () => {
  await using rig = await Rig.start();
  rig.join('dead', `http://127.0.0.1:${await deadPort()}`);
  const answer = await fetch(rig.url);
  expect(answer.status).toBe(502);
  expect(answer.headers.get('content-type')).toBe('application/problem+json');
  expect(await answer.json()).toMatchObject({ status: 502, title: 'Bad Gateway' });
  expect(rig.endings('dead')).toEqual({ refused: 1 });
});

test('a reset before the answer is retried when the body was kept', async () => {
  await using rig = await Rig.start({ balancer: { ejectAfterFailures: 100 } });
  await rig.backend('bad', reset);
  await rig.backend('good', echo);
  const chunked = new Blob(['kept chunks']).stream();
  for (const init of [
    { method: 'GET' },
    { method: 'POST', body: 'kept' },
    { method: 'POST', body: chunked, duplex: 'half' },
  ]) {
    for (let i = 0; i < (init.body === chunked ? 1 : 2); i++) {
      const answer = await fetch(rig.url, init as RequestInit);
      expect(answer.status).toBe(200);
      await answer.text();
    }
  }
  expect(rig.endings('bad').refused).toBeGreaterThanOrEqual(2);
});

test('a reset after a large body was sent is not retried', async () => {
  await using rig = await Rig.start({ settings: { retryBodyBytes: 1000 } });
  let asked = 0;
  const listener: RequestListener = async (req) => {
    asked++;
    await readAll(req);
    (req.socket as Socket).resetAndDestroy();
  };
  await rig.backend('a', listener);
  await rig.backend('b', listener);
  const answer = await fetch(rig.url, { method: 'PUT', body: 'x'.repeat(100_000) });
  expect(answer.status).toBe(502);
  expect(asked).toBe(1);
});

test('502, 503 and 504 are asked elsewhere, 500 and 404 are passed through', async () => {
  await using rig = await Rig.start({ balancer: { ejectAfterFailures: 100 } });
  for (const code of [502, 503, 504]) {
    await using one = await Rig.start();
    await one.backend('bad', status(code));
    await one.backend('good', status(200));
    const answers = [
      await fetch(one.url, { method: 'POST', body: 'x' }),
      await fetch(one.url, { method: 'POST', body: 'x' }),
    ];
    expect(answers.map((answer) => answer.status)).toEqual([200, 200]);
    expect(one.endings('bad')).toEqual({ server_error: 2 });
    expect(one.endings('good')).toEqual({ complete: 2 });
  }
  await rig.backend('only', (req, res) => res.writeHead(Number(req.url!.slice(1))).end('as is'));
  for (const code of [500, 404, 502]) {
    const answer = await fetch(`${rig.url}/${code}`);
    expect([answer.status, await answer.text()]).toEqual([code, 'as is']);
  }
  expect(rig.endings('only')).toEqual({ server_error: 2, client_error: 1 });
});

test('429 and 503 with Retry-After are back-off: asked elsewhere, else passed through with the header', async () => {
  await using rig = await Rig.start();
  await rig.backend('busy', status(503, { 'retry-after': '7' }));
  const first = await fetch(rig.url);
  expect(first.status).toBe(503);
  expect(first.headers.get('retry-after')).toBe('7');
  expect(await first.text()).toBe('answer 503');
  expect(rig.endings('busy')).toEqual({ backoff: 1 });
  expect(rig.table.read(rig.refs.get('busy')!)?.health).toBe('backoff');
  await using other = await Rig.start();
  await other.backend('busy', status(429, { 'retry-after': '60' }));
  await other.backend('free', status(200));
  for (let i = 0; i < 4; i++) expect((await fetch(other.url)).status).toBe(200);
  expect(other.endings('busy')).toEqual({ backoff: 1 });
});

test('no more than two further attempts are made', async () => {
  await using rig = await Rig.start();
  let asked = 0;
  for (const id of ['a', 'b', 'c', 'd', 'e']) {
    await rig.backend(id, (req) => {
      asked++;
      (req.socket as Socket).resetAndDestroy();
    });
  }
  expect((await fetch(rig.url)).status).toBe(502);
  expect(asked).toBe(3);
  expect((await rig.reported(1))[0]).toMatchObject({ attempts: 3, status: 502 });
});

test('retries have a budget: when everything fails the load does not multiply', async () => {
  await using rig = await Rig.start({
    balancer: { ejectAfterFailures: 1000 },
    settings: { retryBudgetMin: 1, retryBudgetFraction: 0.1 },
  });
  let asked = 0;
  for (const id of ['a', 'b', 'c', 'd']) {
    await rig.backend(id, (_req, res) => {
      asked++;
      setTimeout(() => res.writeHead(503).end(), 50);
    });
  }
  const answers = await Promise.all(Array.from({ length: 40 }, () => fetch(rig.url)));
  expect(answers.every((answer) => answer.status === 503)).toBe(true);
  // Without a budget it would be 120.
  expect(asked).toBeLessThan(70);
  expect(asked).toBeGreaterThan(40);
});

test('an upstream that dies after bytes were sent breaks the transfer: never a clean end, never a retry', async () => {
  const cases: Record<string, RequestListener> = {
    chunked: (req, res) => {
      res.write('part');
      setTimeout(() => req.socket.destroy(), 30);
    },
    length: (req, res) => {
      res.writeHead(200, { 'content-length': 100 });
      res.write('part');
      setTimeout(() => (req.socket as Socket).resetAndDestroy(), 30);
    },
  };
  for (const listener of Object.values(cases)) {
    await using rig = await Rig.start();
    await rig.backend('a', listener);
    await rig.backend('b', listener);
    const answer = await fetch(rig.url);
    expect(answer.status).toBe(200);
    await expect(answer.text()).rejects.toThrow();
    await until(() => rig.active('a') + rig.active('b') === 0);
    const both = [rig.endings('a'), rig.endings('b')];
    expect(both).toContainEqual({ truncated: 1 });
    expect(both).toContainEqual({});
    expect((await rig.reported(1))[0]).toMatchObject({ cause: 'truncated', attempts: 1 });
  }
});

test('an HTTP/1.0 client, to whom a closed connection means the end, gets a reset when the upstream dies', async () => {
  await using rig = await Rig.start();
  await rig.backend('a', (req, res) => {
    res.write('part');
    setTimeout(() => req.socket.destroy(), 30);
  });
  const client = new RawClient(rig.proxy.port);
  client.send('GET / HTTP/1.0\r\n\r\n');
  await until(() => client.closed);
  expect((client.error as NodeJS.ErrnoException | null)?.code).toBe('ECONNRESET');
});

test('what the upstream sent before it died reaches the client', async () => {
  await using rig = await Rig.start();
  await rig.backend('a', (req, res) => {
    res.write('first');
    setTimeout(() => {
      res.write('last');
      setImmediate(() => req.socket.destroySoon());
    }, 30);
  });
  const client = new RawClient(rig.proxy.port);
  client.send('GET / HTTP/1.1\r\nHost: x\r\n\r\n');
  await until(() => client.closed);
  expect(client.received).toContain('first');
  expect(client.received).toContain('last');
  expect(client.received).not.toContain('0\r\n\r\n');
});

test('a client that leaves before the first byte cancels the upstream request at once', async () => {
  await using rig = await Rig.start();
  let cancelled = false;
  let asked = false;
  await rig.backend('a', (_req, res) => {
    asked = true;
    res.on('close', () => {
      cancelled = true;
    });
  });
  for (const leave of ['destroy', 'end'] as const) {
    cancelled = false;
    asked = false;
    const client = new RawClient(rig.proxy.port);
    client.send('GET /slow HTTP/1.1\r\nHost: x\r\n\r\n');
    await until(() => asked);
    expect(rig.active('a')).toBe(1);
    client.socket[leave]();
    await until(() => cancelled);
    await until(() => rig.active('a') === 0);
  }
  expect(rig.endings('a')).toEqual({ client_gone: 2 });
  expect((await rig.reported(2))[0]).toMatchObject({ status: 499, cause: 'client_gone' });
  expect(rig.table.read(rig.refs.get('a')!)?.health).toBe('up');
});

test('a client that leaves in the middle of a stream cancels it', async () => {
  await using rig = await Rig.start();
  let cancelled = false;
  await rig.backend('a', (_req, res) => {
    const timer = setInterval(() => res.write('tick'), 5);
    res.on('close', () => {
      clearInterval(timer);
      cancelled = true;
    });
  });
  const gone = new AbortController();
  const answer = await fetch(rig.url, { signal: gone.signal });
  await answer.body!.getReader().read();
  gone.abort();
  await until(() => cancelled && rig.active('a') === 0);
  expect(rig.endings('a')).toEqual({ client_gone: 1 });
});

test('a client that leaves while it uploads cancels the upstream request', async () => {
  await using rig = await Rig.start();
  let aborted = false;
  let begun = false;
  await rig.backend('a', (req) => {
    req.on('data', () => {
      begun = true;
    });
    req.on('error', () => {
      aborted = true;
    });
  });
  const client = new RawClient(rig.proxy.port);
  client.send(`POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n${'x'.repeat(100_000)}`);
  await until(() => begun);
  client.socket.destroy();
  await until(() => aborted && rig.active('a') === 0);
  expect(rig.endings('a')).toEqual({ client_gone: 1 });
});

test('a client that leaves pipelined requests behind frees the slot of the one under way, the others are never sent', async () => {
  await using rig = await Rig.start();
  const seen: (string | undefined)[] = [];
  await rig.backend('a', (req) => void seen.push(req.url));
  const client = new RawClient(rig.proxy.port);
  client.send('GET /1 HTTP/1.1\r\nHost: x\r\n\r\nGET /2 HTTP/1.1\r\nHost: x\r\n\r\n');
  await until(() => seen.length === 1 && rig.proxy.active === 2);
  client.socket.destroy();
  await until(() => rig.proxy.active === 0);
  expect(rig.endings('a')).toEqual({ client_gone: 1 });
  expect(rig.active('a')).toBe(0);
  expect(seen).toEqual(['/1']);
});

test('an answer that ends before the upload did is delivered, and the connection does not confuse what follows', async () => {
  await using rig = await Rig.start();
  await rig.backend('a', (_req, res) => res.writeHead(413).end('too large'));
  const client = new RawClient(rig.proxy.port);
  client.send(`POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 200000\r\n\r\n${'x'.repeat(100_000)}`);
  await client.until(/413 Payload Too Large[\s\S]*too large/);
  client.send(`${'x'.repeat(100_000)}GET /next HTTP/1.1\r\nHost: x\r\n\r\n`);
  await client.until(/413[\s\S]*413/);
  client.socket.destroy();
  await until(() => rig.active('a') === 0);
  expect(rig.endings('a')).toEqual({ client_error: 2 });
});

test('an upstream that never lets a connection become one is given up after the connect timeout and another one is asked', async () => {
  // It takes the connection and never says a word of TLS.
  const silent = createTcpServer((socket) => void socket.on('error', () => {}));
  await new Promise<void>((resolve) => silent.listen(0, '127.0.0.1', resolve));
  await using rig = await Rig.start({ settings: { connectTimeoutMs: 300 } });
  rig.join('silent', `https://127.0.0.1:${(silent.address() as AddressInfo).port}`);
  await rig.backend('live', echo);
  for (let i = 0; i < 2; i++) expect((await fetch(rig.url)).status).toBe(200);
  expect(rig.endings('silent').refused).toBe(2);
  silent.close();
});

test('no first byte in time: an idempotent request is asked elsewhere, another one gets 504', async () => {
  await using rig = await Rig.start({ settings: { firstByteTimeoutMs: 300 } });
  await rig.backend('hangs', (req) => void req.resume());
  const post = await fetch(rig.url, { method: 'POST', body: 'x' });
  expect(post.status).toBe(504);
  expect(await post.json()).toMatchObject({ code: 'first_byte_timeout' });
  await rig.backend('answers', echo);
  for (let i = 0; i < 2; i++) expect((await fetch(rig.url)).status).toBe(200);
  expect(rig.endings('hangs')).toEqual({ first_byte_timeout: 2 });
});

test('silence between chunks for too long breaks the transfer, a slow but steady stream does not', async () => {
  await using rig = await Rig.start({ settings: { idleTimeoutMs: 400 } });
  await rig.backend('a', (req, res) => {
    res.write('x');
    if (req.url === '/silent') return;
    let left = 12;
    const timer = setInterval(() => {
      res.write('x');
      if (--left === 0) {
        clearInterval(timer);
        res.end();
      }
    }, 100);
  });
  const silent = await fetch(`${rig.url}/silent`);
  await expect(silent.text()).rejects.toThrow();
  expect(await (await fetch(rig.url)).text()).toBe('x'.repeat(13));
  expect(rig.endings('a')).toEqual({ idle_timeout: 1, complete: 1 });
});

test('a client that stops uploading gets 408, and it is not held against the upstream', async () => {
  await using rig = await Rig.start({ settings: { idleTimeoutMs: 300 } });
  await rig.backend('a', () => {});
  for (const length of [10, 1_000_000]) {
    const client = new RawClient(rig.proxy.port);
    client.send(`POST / HTTP/1.1\r\nHost: x\r\nContent-Length: ${length}\r\n\r\nabc`);
    await client.until(/^HTTP\/1\.1 408/);
    client.socket.destroy();
  }
  await until(() => rig.active('a') === 0);
  expect(Object.keys(rig.endings('a'))).toEqual(['client_gone']);
});

test('a client that stops reading is cut off after the idle time', async () => {
  await using rig = await Rig.start({ settings: { idleTimeoutMs: 300 } });
  await rig.backend('a', (_req, res) => {
    const chunk = Buffer.alloc(1_000_000);
    const more = () => {
      while (!res.destroyed && res.write(chunk));
      res.once('drain', more);
    };
    more();
  });
  const client = new RawClient(rig.proxy.port);
  client.socket.pause();
  client.send('GET / HTTP/1.1\r\nHost: x\r\n\r\n');
  await until(() => rig.active('a') === 1);
  await until(() => rig.active('a') === 0);
  expect(rig.endings('a')).toEqual({ client_gone: 1 });
  client.socket.destroy();
});

test('the total time of a request can be limited', async () => {
  await using rig = await Rig.start({ settings: { totalTimeoutMs: 400 } });
  await rig.backend('a', (req, res) => {
    if (req.url === '/hang') return;
    const timer = setInterval(() => res.write('x'), 20);
    res.on('close', () => clearInterval(timer));
  });
  expect((await fetch(`${rig.url}/hang`)).status).toBe(504);
  const stream = await fetch(rig.url);
  await expect(stream.text()).rejects.toThrow();
  await until(() => rig.active('a') === 0);
  expect(rig.endings('a')).toEqual({ drained: 2 });
});

test('an answer that is no HTTP is 502', async () => {
  await using rig = await Rig.start();
  const garbage = createTcpServer((socket) => {
    socket.on('error', () => {});
    socket.on('data', () => socket.end('HELLO THIS IS NOT HTTP\r\n\r\n'));
  });
  await new Promise<void>((resolve) => garbage.listen(0, '127.0.0.1', resolve));
  rig.join('garbage', `http://127.0.0.1:${(garbage.address() as AddressInfo).port}`);
  expect((await fetch(rig.url)).status).toBe(502);
  expect(rig.endings('garbage')).toEqual({ refused: 1 });
  garbage.close();
});

test('three failures in a row eject an upstream, and then it gets nothing', async () => {
  await using rig = await Rig.start({ balancer: { ejectAfterFailures: 3 } });
  let asked = 0;
  await rig.backend('bad', (req) => {
    asked++;
    (req.socket as Socket).resetAndDestroy();
  });
  await rig.backend('good', echo);
  await rig.backend('good too', echo);
  for (let i = 0; i < 30; i++) expect((await fetch(rig.url)).status).toBe(200);
  expect(asked).toBe(3);
  expect(rig.table.read(rig.refs.get('bad')!)?.health).toBe('ejected');
});

test('an upstream that leaves the fleet cuts what it still had, and new requests go elsewhere', async () => {
  await using rig = await Rig.start();
  await rig.backend('a', (_req, res) => void res.write('begun'));
  const answer = await fetch(rig.url);
  rig.leave('a');
  await expect(answer.text()).rejects.toThrow();
  const none = await fetch(rig.url);
  expect(none.status).toBe(503);
  expect(none.headers.get('retry-after')).toBe('1');
  expect(rig.table.totals()).toMatchObject({ active: 0 });
  await rig.backend('b', echo);
  expect((await fetch(rig.url)).status).toBe(200);
  expect((await rig.reported(3))[0]).toMatchObject({ cause: 'drained' });
});

test('connections to upstreams are used again, and one that the upstream closed meanwhile does no harm', async () => {
  await using rig = await Rig.start();
  let connections = 0;
  const backend = await rig.backend('a', echo);
  backend.server.on('connection', () => connections++);
  for (let i = 0; i < 10; i++) await (await fetch(rig.url, { method: 'POST', body: 'x' })).text();
  expect(connections).toBeLessThanOrEqual(2);
  for (let i = 0; i < 5; i++) {
    for (const socket of backend.sockets) socket.destroy();
    await sleep(20);
    expect((await fetch(rig.url, { method: 'POST', body: 'x' })).status).toBe(200);
  }
});

test.each([
  [404, {}],
  [429, { 'retry-after': '0' }],
  [500, {}],
])('an upstream that answers %i at once does not look fast to least_response_time', async (status, headers) => {
  await using rig = await Rig.start({
    strategy: 'least_response_time',
    settings: { maxRetries: 0 },
    balancer: { ejectAfterFailures: 1_000_000 },
  });
  await rig.backend('good', (_req, res) => void setTimeout(() => res.end('ok'), 20));
  let now = 0;
  let most = 0;
  await rig.backend('bad', (_req, res) => {
    most = Math.max(most, ++now);
    res.on('close', () => now--);
    res.writeHead(status, headers).end('no');
  });
  const until = Date.now() + 600;
  await Promise.all(
    Array.from({ length: 8 }, async () => {
      while (Date.now() < until) await (await fetch(rig.url)).text();
    }),
  );
  // Without a sample of its own it gets one request at a time, and after a failure a penalty.
  expect(most).toBe(1);
  if (status === 500) expect(rig.endings('bad').server_error).toBeLessThan(rig.endings('good').complete ?? 0);
});

test('what fails on a used connection is sent once more only if the news of its end was on its way', async () => {
  await using rig = await Rig.start({ settings: { maxRetries: 0 }, balancer: { ejectAfterFailures: 1_000_000 } });
  let wait = 0;
  const posts: string[] = [];
  await rig.backend('a', (req, res) => {
    if (req.method === 'GET') {
      res.end('warm');
      return;
    }
    posts.push(req.url ?? '');
    if (posts.filter((url) => url === req.url).length > 1) res.end('again');
    else setTimeout(() => (req.socket as Socket).resetAndDestroy(), wait);
  });
  const post = async (path: string) => (await fetch(rig.url + path, { method: 'POST', body: '{}' })).status;
  await (await fetch(rig.url)).text();
  expect(await post('/at-once')).toBe(200);
  await (await fetch(rig.url)).text();
  wait = 250;
  expect(await post('/at-work')).toBe(502);
  expect(posts).toEqual(['/at-once', '/at-once', '/at-work']);
  const requests = await rig.reported(4);
  expect(requests.find(({ path }) => path === '/at-once')).toMatchObject({ attempts: 2 });
  expect(requests.find(({ path }) => path === '/at-work')).toMatchObject({ attempts: 1 });
});

test('an upstream that does not take an upload is to blame, not the client', async () => {
  await using rig = await Rig.start({ settings: { idleTimeoutMs: 300 } });
  const backend = await rig.backend('a', () => {});
  backend.server.removeAllListeners('request');
  backend.server.on('request', (req) => req.pause());
  const client = new RawClient(rig.proxy.port);
  client.send(`POST / HTTP/1.1\r\nHost: x\r\nContent-Length: ${64 * 1024 * 1024}\r\n\r\n`);
  const chunk = Buffer.alloc(1024 * 1024);
  for (let i = 0; i < 64; i++) client.socket.write(chunk);
  await client.until(/HTTP\/1\.1 504/);
  expect(rig.endings('a')).toEqual({ first_byte_timeout: 1 });
  client.socket.destroy();
});

test('long answers that were once retried leave the budget of retries to others', async () => {
  await using rig = await Rig.start({ settings: { retryBudgetMin: 2, retryBudgetFraction: 0 } });
  let failing = true;
  await rig.backend('bad', (req, res) => {
    if (failing) (req.socket as Socket).destroy();
    else res.end('ok');
  });
  await rig.backend('good', (req, res) => {
    if (req.url === '/stream') res.write('begun');
    else res.end('ok');
  });
  const streams = [];
  for (let i = 0; i < 6; i++) streams.push(await fetch(`${rig.url}/stream`));
  expect(rig.proxy.active).toBe(6);
  for (let i = 0; i < 6; i++) expect((await fetch(rig.url)).status).toBe(200);
  failing = false;
  for (const stream of streams) await stream.body?.cancel();
  await until(() => rig.proxy.active === 0);
});
