import { type AddressInfo, createServer, type Server, Socket } from 'node:net';
import fc from 'fast-check';
import type { Dispatcher } from 'undici';
import type { IncomingHttpHeaders } from 'undici/types/header.js';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { type AnswerHead, readAnswerHead } from '../../src/proxy/answer-head.ts';
import { Exchange } from '../../src/proxy/exchange.ts';
import { type Taker, type UpstreamConnection, UpstreamPool } from '../../src/proxy/upstream-pool.ts';
import { RawClient, Rig, sleep, type startBackend, until } from './rig.ts';

/**
 * On a connection that was used before, a short exchange goes past undici. What an upstream gets and what comes of its
 * answer must be the same as through undici, which has the first request of every connection.
 */

/** What the upstream does with the request for a path: pieces of bytes, one character each, and then perhaps the end. */
type Play = Readonly<{ pieces: readonly string[]; afterMs?: number; end?: boolean }>;

const ready = 'HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n';
const plays = new Map<string, Play>([['/ready', { pieces: [ready] }]]);
const received: string[] = [];
const sockets = new Set<Socket>();
let server: Server;
let origin = '';

beforeAll(async () => {
  server = createServer({ noDelay: true }, (socket) => {
    sockets.add(socket);
    socket.on('close', () => sockets.delete(socket));
    socket.on('error', () => {});
    let got = '';
    socket.on('data', (chunk) => {
      got += chunk.toString('latin1');
      const end = got.indexOf('\r\n\r\n');
      const length = Number(/content-length: (\d+)/.exec(got)?.[1] ?? 0);
      if (end === -1 || got.length < end + 4 + length) return;
      received.push(got);
      const path = got.split(' ', 2)[1]!;
      got = '';
      void play(socket, plays.get(path.split('?')[0]!)!);
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  origin = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
});

afterAll(() => {
  for (const socket of sockets) socket.destroy();
  server.close();
});

async function play(socket: Socket, { pieces, afterMs, end }: Play): Promise<void> {
  if (afterMs !== undefined) await sleep(afterMs);
  for (const [i, piece] of pieces.entries()) {
    if (i > 0) await sleep(2);
    socket.write(piece, 'latin1');
  }
  if (end === true) socket.end();
}

type Seen = {
  /** Came past undici. */
  short: boolean;
  informed: number[];
  head: AnswerHead | null;
  body: string;
  outcome: 'end' | 'error' | 'nothing';
  /** The connection can be used again. */
  kept: boolean;
};

/** One request on `connection`, from its first byte until nothing more can come of it. */
async function ask(connection: UpstreamConnection, options: Dispatcher.DispatchOptions): Promise<Seen> {
  const seen: Seen = { short: false, informed: [], head: null, body: '', outcome: 'nothing', kept: false };
  const end = (outcome: 'end' | 'error') => {
    expect(seen.outcome).toBe('nothing');
    seen.outcome = outcome;
  };
  const taker: Taker = {
    takesChunks: false,
    onChunks: () => expect.unreachable(),
    onSent: () => {},
    onShortAnswer(head, body) {
      seen.short = true;
      Object.assign(seen, { head, body });
      end('end');
      connection.release();
    },
    onRequestStart: () => connection.writing(),
    onResponseStart(_controller: unknown, status: number, headers: IncomingHttpHeaders, text?: string) {
      if (status < 200) seen.informed.push(status);
      else {
        seen.head = readAnswerHead(status, text ?? '', headers);
        connection.told(headers['keep-alive']);
      }
    },
    onResponseData(_controller: unknown, chunk: Buffer) {
      seen.body += chunk.toString('latin1');
    },
    onResponseEnd() {
      end('end');
      connection.release();
    },
    onResponseError() {
      end('error');
      connection.destroy();
    },
  };
  connection.dispatch(options, taker);
  const from = Date.now();
  // An answer that waits for bytes that never come is one more way to end.
  while (seen.outcome === 'nothing' && Date.now() - from < 60) await sleep(1);
  await sleep(3);
  seen.kept = connection.idle && !connection.dead && !connection.closed;
  return seen;
}

function pool(): UpstreamPool {
  return new UpstreamPool(new URL(origin), { verifyUpstreamTls: true, connectTimeoutMs: 1_000 });
}

function get(path: string): Dispatcher.DispatchOptions {
  return { path, method: 'GET', headers: [], body: null, upgrade: null, blocking: false, reset: false };
}

/** A connection that has had a request. */
async function used(from: UpstreamPool): Promise<UpstreamConnection> {
  const connection = from.take(true, false)!;
  const first = await ask(connection, get('/ready'));
  expect(first).toMatchObject({ outcome: 'end', short: false, kept: true });
  expect(from.take(false, false)).toBe(connection);
  return connection;
}

/** undici groups headers by name; ours keep the order in which they came. */
function grouped(head: AnswerHead | null): AnswerHead | null {
  if (head === null) return null;
  const fields = new Map<string, string[]>();
  for (let i = 0; i < head.passed.length; i += 2) {
    const name = head.passed[i]!;
    fields.set(name, [...(fields.get(name) ?? []), head.passed[i + 1]!]);
  }
  return { ...head, passed: [...fields].flat(2) };
}

async function both(options: Dispatcher.DispatchOptions): Promise<{ undici: Seen; ours: Seen }> {
  const connections = pool();
  const [undici, ours] = [
    await ask(connections.take(true, false)!, options),
    await ask(await used(connections), options),
  ];
  connections.destroy();
  return { undici, ours };
}

test('what goes out is what undici writes, byte for byte', async () => {
  plays.set('/a', { pieces: [ready] });
  const headers = [
    ...['accept', '*/*', 'X-Mixed', 'Case', 'x-empty', '', 'x-high', 'caf\xe9', 'x-tab', 'a\tb'],
    ...['cookie', 'a=b', 'cookie', 'c=d', 'via', '1.1 gpuproxy'],
  ];
  const bodies = [
    null,
    Buffer.from('{"model":"m"}'),
    Buffer.from('\x00\xff\xe9\r\n', 'latin1'),
    Buffer.alloc(8_192, 'b'),
  ];
  for (const method of ['GET', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS', 'QUERY', 'PROPFIND', 'REPORT', 'TRACE']) {
    for (const body of bodies) {
      received.length = 0;
      const { undici, ours } = await both({
        ...get(`/a?${method}=%20~\xe9`),
        method: method as Dispatcher.HttpMethod,
        headers,
        body,
      });
      const [byUndici, first, byUs] = received;
      expect(first).toContain('GET /ready');
      expect(byUs).toBe(byUndici);
      expect(undici.short, method).toBe(false);
      expect(ours.short, method).toBe(true);
    }
  }
}, 60_000);

test('what undici would not send is left to it to refuse', async () => {
  plays.set('/a', { pieces: [ready] });
  const wrong: Partial<Dispatcher.DispatchOptions>[] = [
    { headers: ['x-a', 'b\r\nx-c: d'] },
    { headers: ['x-a\r\n', 'b'] },
    { headers: ['x a', 'b'] },
    { headers: ['x-wide', '\u0101'] },
    { path: '/a\r\n' },
    { path: '/a b' },
    { path: '/\u0101' },
    { path: 'a' },
    { method: 'GET /x' as Dispatcher.HttpMethod },
  ];
  for (const one of wrong) {
    received.length = 0;
    const { undici, ours } = await both({ ...get('/a'), ...one });
    expect(undici.outcome, JSON.stringify(one)).toBe('error');
    expect(ours, JSON.stringify(one)).toMatchObject({ outcome: 'error', short: false });
    expect(received.filter((text) => !text.includes('/ready'))).toEqual([]);
  }
});

const statusLines = fc.oneof(
  { weight: 6, arbitrary: fc.constantFrom('HTTP/1.1 200 OK', 'HTTP/1.1 404 Not Found', 'HTTP/1.1 503 Busy') },
  fc.constantFrom(
    ...['HTTP/1.1 200 ', 'HTTP/1.1 200', 'HTTP/1.0 200 OK', 'HTTP/1.1 204 No Content', 'HTTP/1.1 304 Not Modified'],
    ...['HTTP/1.1 205 Reset', 'HTTP/1.1 99 Low', 'HTTP/1.1 600 High', 'HTTP/1.1 200 caf\xe9', 'HTTP/1.1  200 OK'],
    ...['http/1.1 200 OK', 'HTTP/1.1 200 OK ', 'HTTP/1.1 101 Switching', 'HTTP/2.0 200 OK', 'HTTP/1.1 200\tOK'],
  ),
);
const headerLines = fc.oneof(
  {
    weight: 4,
    arbitrary: fc.constantFrom('X-A: 1', 'Content-Type: application/json', 'Date: now', 'x-b:2', 'Via: 1.1 x'),
  },
  fc.constantFrom(
    ...[
      'X-Empty:',
      'X-Blank: ',
      'X-Tab:\tv\t',
      'X-Wide:  v  ',
      'X-High: caf\xe9',
      'X Space: 1',
      'X-Space : 1',
      ': none',
    ],
    ...['Connection: close', 'Connection: keep-alive', 'Connection: Keep-Alive', 'Connection: X-A', 'Connection:'],
    ...['Keep-Alive: timeout=9', 'Keep-Alive: timeout=1', 'Proxy-Connection: close', 'Transfer-Encoding: chunked'],
    ...[
      'Transfer-Encoding: identity',
      'Upgrade: websocket',
      'Trailer: X-Sum',
      'Content-Length: 3',
      'content-length: 0',
    ],
    ...['Content-Length: +3', 'Content-Length: 3, 3', 'Content-Length: 0x3', 'Content-Length:', 'Retry-After: 3'],
    ...[
      'X-A: 1\r\n folded',
      'X-A: 1\n',
      'X-A: 1\rX-B: 2',
      'X-Nul: \x00',
      'Set-Cookie: a=b',
      'X-Request-Id: u',
      '__proto__: x',
    ],
  ),
);
const answers = fc
  .record({
    before: fc.oneof(
      { weight: 8, arbitrary: fc.constant('') },
      fc.constantFrom('HTTP/1.1 100 Continue\r\n\r\n', 'HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n', '\r\n', ready),
    ),
    status: statusLines,
    headers: fc.array(headerLines, { maxLength: 4 }),
    body: fc.oneof(
      fc.constantFrom('', 'abc', '3\r\nabc\r\n0\r\n\r\n', ready),
      fc.string({ unit: 'binary', maxLength: 30 }).map((text) => Buffer.from(text).toString('latin1')),
    ),
    length: fc.oneof({ weight: 6, arbitrary: fc.constant('exact') }, fc.constantFrom('none', 'more', 'less', 'zeros')),
    after: fc.oneof({ weight: 8, arbitrary: fc.constant('') }, fc.constantFrom('x', '\r\n', ready)),
    // A byte somewhere is left out, or is another one.
    slip: fc.option(
      fc.record({ at: fc.nat(300), byte: fc.constantFrom('', '\n', '\r', ' ', ':', '\x00', 'x', '\t') }),
      {
        freq: 4,
      },
    ),
    cut: fc.option(fc.nat(300), { freq: 5 }),
    end: fc.boolean(),
  })
  .map(({ before, status, headers, body, length, after, slip, cut, end }) => {
    const told = body.length + (length === 'more' ? 1 : length === 'less' ? -1 : 0);
    const lengthLine = length === 'none' ? [] : [`Content-Length: ${length === 'zeros' ? '00' : ''}${told}`];
    let text = `${before}${[status, ...headers, ...lengthLine].join('\r\n')}\r\n\r\n${body}${after}`;
    if (slip !== null && slip.at < text.length) text = text.slice(0, slip.at) + slip.byte + text.slice(slip.at + 1);
    const pieces = cut === null || cut === 0 || cut >= text.length ? [text] : [text.slice(0, cut), text.slice(cut)];
    return { pieces, end } satisfies Play;
  });

test('what is read past undici is what undici reads', async () => {
  const numRuns = Number(process.env.DIFF_RUNS ?? 300);
  const seed = Number(process.env.DIFF_SEED ?? 20_261_128);
  let short = 0;
  await fc.assert(
    fc.asyncProperty(answers, async (one) => {
      plays.set('/one', one);
      const { undici, ours } = await both(get('/one'));
      if (ours.short) short++;
      expect(undici.short).toBe(false);
      expect({ ...ours, head: grouped(ours.head), short: null }).toEqual({
        ...undici,
        head: grouped(undici.head),
        short: null,
      });
    }),
    { numRuns, seed },
  );
  // Else the two would have been the same one.
  expect(short).toBeGreaterThan(numRuns / 10);
}, 240_000);

/** A rig whose upstream has had its first request; `sockets` are the upstream's ends. */
async function warm(then: Parameters<typeof startBackend>[0], settings: ConstructorParameters<typeof Object>[0] = {}) {
  const rig = await Rig.start({ settings: { idleTimeoutMs: 400, firstByteTimeoutMs: 400, ...(settings as object) } });
  let asked = 0;
  const backend = await rig.backend('a', (req, res) => {
    if (asked++ > 0) then(req, res);
    else res.end('first');
  });
  await fetch(rig.url);
  await sleep(5);
  expect(backend.sockets.size).toBe(1);
  return { rig, backend, asked: () => asked };
}

test('an answer that takes its time, comes in pieces or in chunks is whole', async () => {
  const { rig, backend } = await warm(
    async (req, res) => {
      if (req.url === '/late') await sleep(700);
      if (req.url === '/chunks') for (let i = 0; i < 5; i++) res.write(`${i}`.repeat(100));
      else if (req.url === '/pieces') {
        res.setHeader('content-length', 4);
        res.write('ab');
        await sleep(50);
        res.end('cd');
        return;
      }
      res.end(`${req.url} and on`);
    },
    { firstByteTimeoutMs: 5_000, idleTimeoutMs: 5_000 },
  );
  for (let i = 0; i < 2; i++) {
    expect(await (await fetch(`${rig.url}/late`)).text()).toBe('/late and on');
    expect(await (await fetch(`${rig.url}/pieces`)).text()).toBe('abcd');
    expect(await (await fetch(`${rig.url}/chunks`)).text()).toBe(
      `${[0, 1, 2, 3, 4].map((n) => `${n}`.repeat(100)).join('')}/chunks and on`,
    );
    expect(await (await fetch(`${rig.url}/short`, { method: 'POST', body: 'x' })).text()).toBe('/short and on');
  }
  expect(backend.sockets.size).toBe(1);
  expect(rig.endings('a')).toEqual({ complete: 9 });
  await rig.close();
});

test('an upstream that is silent gets its deadline, and its connection is cut', async () => {
  const { rig, backend } = await warm(() => {});
  const answer = await fetch(rig.url, { method: 'POST', body: 'x' });
  expect(answer.status).toBe(504);
  await until(() => backend.sockets.size === 0);
  expect(rig.endings('a')).toEqual({ complete: 1, first_byte_timeout: 1 });
  expect(rig.active('a')).toBe(0);
  await rig.close();
});

test('a client that leaves at once frees the slot and cuts the connection, whether the request was written or not', async () => {
  for (const waitMs of [0, 1, 20, 300]) {
    const { rig, backend } = await warm(() => {}, { firstByteTimeoutMs: 5_000 });
    const client = new RawClient(rig.proxy.port);
    await until(() => !client.socket.connecting);
    client.send('GET / HTTP/1.1\r\nHost: x\r\n\r\n');
    await sleep(waitMs);
    client.socket.destroy();
    await until(() => rig.active('a') === 0 && rig.proxy.active === 0);
    if (waitMs >= 20) await until(() => backend.sockets.size === 0);
    const { complete, client_gone, ...others } = rig.endings('a');
    expect(others).toEqual({});
    expect(complete).toBe(1);
    if (waitMs >= 20) expect(client_gone).toBe(1);
    await rig.close();
  }
});

test('an upstream that is removed, or breaks off, before it has answered', async () => {
  for (const how of ['removed', 'reset', 'ended', 'half'] as const) {
    let rig: Rig | null = null;
    const made = await warm(
      async (req) => {
        await sleep(100);
        if (how === 'removed') rig!.leave('a');
        else if (how === 'reset') req.socket.resetAndDestroy();
        else if (how === 'ended') req.socket.end();
        else req.socket.end('HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf');
      },
      { maxRetries: 0, firstByteTimeoutMs: 5_000 },
    );
    rig = made.rig;
    const ref = rig.refs.get('a')!;
    const client = new RawClient(rig.proxy.port);
    client.send('POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx');
    await until(() => made.rig.proxy.active === 0 && client.received !== '');
    if (how === 'half') await until(() => client.closed);
    else expect(client.received).toMatch(how === 'removed' ? /^HTTP\/1\.1 50[23] / : /^HTTP\/1\.1 502 /);
    if (how !== 'removed') {
      expect(rig.endings('a')).toEqual({ complete: 1, [how === 'half' ? 'truncated' : 'refused']: 1 });
      expect(rig.table.read(ref)?.active).toBe(0);
    }
    client.socket.destroy();
    await rig.close();
  }
});

test('bytes that nobody asked for are never the answer of the next one', async () => {
  // The upstream's end is in this process: what it writes now is there when the proxy reads the request.
  for (let run = 0; run < 40; run++) {
    const { rig, backend } = await warm((_req, res) => {
      res.setHeader('content-length', 4);
      res.end('good');
    });
    const client = new RawClient(rig.proxy.port);
    await until(() => !client.socket.connecting);
    const [upstream] = backend.sockets;
    const evil = () => upstream!.write('HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil');
    if (run % 2 === 0) evil();
    client.send('GET / HTTP/1.1\r\nHost: x\r\n\r\n');
    if (run % 2 === 1) evil();
    await client.until(/(good|evil)$/);
    expect(client.received).toMatch(/good$/);
    expect(rig.endings('a')).toEqual({ complete: 2 });
    client.socket.destroy();
    await rig.close();
  }
});

test('a connection that ends just before a request says nothing about the upstream', async () => {
  for (let run = 0; run < 40; run++) {
    const { rig, backend } = await warm((_req, res) => res.end('good'));
    const client = new RawClient(rig.proxy.port);
    await until(() => !client.socket.connecting);
    const [upstream] = backend.sockets;
    const close = () => (run % 4 < 2 ? upstream!.end() : upstream!.resetAndDestroy());
    if (run % 2 === 0) close();
    client.send('POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx');
    if (run % 2 === 1) close();
    await client.until(/good/);
    expect(client.received).toMatch(/^HTTP\/1\.1 200 /);
    expect(rig.endings('a')).toEqual({ complete: 2 });
    client.socket.destroy();
    await rig.close();
  }
});

// A second after that answer the connection would be closed, if nobody had use for it.
test.each(['timeout=2', 'Timeout=2', 'max=9, timeout=2', 'x-timeout=60, timeout=2'])(
  'a connection that its upstream wants closed soon is not closed while it is in use (%s)',
  async (hint) => {
    plays.set('/hint', { pieces: [`HTTP/1.1 200 OK\r\nKeep-Alive: ${hint}\r\nContent-Length: 0\r\n\r\n`] });
    plays.set('/slow', { pieces: [ready], afterMs: 600 });
    const rig = await Rig.start();
    rig.join('a', origin);
    const ask = (path: string) => fetch(`${rig.url}${path}`, { method: 'POST' }).then((res) => res.status);
    const all = (path: string) => Promise.all(Array.from({ length: 8 }, () => ask(path)));
    // The proxy looks at its open requests four times a second; this falls between two looks.
    await sleep(80);
    await all('/hint');
    await sleep(960);
    received.length = 0;
    expect(await all('/slow')).toEqual(Array(8).fill(200));
    expect(received).toHaveLength(8);
    expect(rig.endings('a')).toEqual({ complete: 16 });
    await rig.close();
  },
);

test('half a 100 Continue that came before the request is no part of any answer', async () => {
  const answer = (body: string, more = '') => `HTTP/1.1 200 OK\r\n${more}Content-Length: ${body.length}\r\n\r\n${body}`;
  // What somebody has stored there and what looks like an answer; too long to be read at once.
  const document = `${answer('evil', 'Set-Cookie: sid=evil\r\n')}${' '.repeat(9_000)}`;
  plays.set('/document', { pieces: [answer(document)] });
  for (const path of ['/one', '/two']) plays.set(path, { pieces: [answer(path)] });
  for (let run = 0; run < 10; run++) {
    const before = new Set(sockets);
    const rig = await Rig.start();
    rig.join('a', origin);
    await fetch(`${rig.url}/ready`);
    const upstream = [...sockets].find((socket) => !before.has(socket))!;
    const client = new RawClient(rig.proxy.port);
    await until(() => !client.socket.connecting);
    const half = () => upstream.write('HTTP/1.1 100 C\r\nX: ');
    if (run % 2 === 0) half();
    client.send('GET /one HTTP/1.1\r\nHost: x\r\n\r\n');
    if (run % 2 === 1) half();
    await client.until(/\/one$/);
    expect(await (await fetch(`${rig.url}/two`)).text()).toBe('/two');
    const stored = await fetch(`${rig.url}/document`);
    expect(stored.headers.get('set-cookie')).toBe(null);
    expect(await stored.text()).toBe(document);
    client.socket.destroy();
    await rig.close();
  }
});

test('between the end of one exchange and the next request there is always a look at what the upstream has sent', async () => {
  const answer = (body: string) => `HTTP/1.1 200 OK\r\nContent-Length: ${body.length}\r\n\r\n${body}`;
  const asked = new Map<string, Socket>();
  const upstream = createServer({ noDelay: true }, (socket) => {
    socket.on('error', () => {});
    socket.on('data', (chunk) => {
      const path = chunk.toString('latin1').split(' ', 2)[1]!;
      asked.set(path, socket);
      if (path.startsWith('/warm')) setTimeout(() => socket.write(answer('warm')), 50);
      else if (path === '/second' || path === '/other') socket.write(answer(path));
    });
    sockets.add(socket);
  });
  await new Promise<void>((resolve) => upstream.listen(0, '127.0.0.1', resolve));
  const rig = await Rig.start();
  rig.join('a', `http://127.0.0.1:${(upstream.address() as AddressInfo).port}`);
  await Promise.all([1, 2, 3].map((n) => fetch(`${rig.url}/warm${n}`)));
  const clients = [1, 2, 3].map(() => new RawClient(rig.proxy.port));
  await until(() => clients.every(({ socket }) => !socket.connecting));
  const [one, two, three] = clients as [RawClient, RawClient, RawClient];
  // Two requests of one connection: the second one begins as the first one's answer is written, at the end of a turn.
  one.send('GET /first HTTP/1.1\r\nHost: x\r\n\r\nGET /second HTTP/1.1\r\nHost: x\r\n\r\n');
  three.send('GET /third HTTP/1.1\r\nHost: x\r\n\r\n');
  await until(() => asked.has('/first') && asked.has('/third'));
  await sleep(20);
  const { write } = Socket.prototype;
  let sent = false;
  const asItWas = (socket: Socket, ...args: unknown[]) =>
    (write as (...args: unknown[]) => boolean).apply(socket, args);
  Socket.prototype.write = function (this: Socket, ...args: unknown[]) {
    const done = asItWas(this, ...args);
    // Just then the upstream sends one more answer.
    if (!sent && String(args[0]).endsWith('first body') && this !== asked.get('/first')) {
      sent = true;
      asItWas(asked.get('/first')!, answer('evil'));
    }
    return done;
  } as typeof write;
  try {
    asked.get('/third')!.write(answer('third body'));
    two.send('GET /other HTTP/1.1\r\nHost: x\r\n\r\n');
    asked.get('/first')!.write(answer('first body'));
    await until(() => /(second|evil|\}\s)$/.test(one.received));
  } finally {
    Socket.prototype.write = write;
  }
  expect(sent).toBe(true);
  expect(one.received).toMatch(/first body(?:.|\s)*\/second$/);
  for (const { socket } of clients) socket.destroy();
  await rig.close();
  upstream.close();
});

test('an upstream that has gone just before a request leaves the one retry for another upstream', async () => {
  for (let run = 0; run < 6; run++) {
    const rig = await Rig.start({ settings: { maxRetries: 1 } });
    const a = await rig.backend('a', (_req, res) => res.end('a'));
    await fetch(rig.url);
    await rig.backend('b', (_req, res) => res.end('b'));
    await fetch(rig.url);
    await fetch(rig.url);
    const clients = [new RawClient(rig.proxy.port), new RawClient(rig.proxy.port)];
    await until(() => clients.every(({ socket }) => !socket.connecting));
    await sleep(5);
    for (const client of clients) client.send('POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx');
    a.server.close();
    for (const socket of a.sockets) socket.end();
    for (const client of clients) {
      expect(await client.until(/\r\n\r\n/)).toMatch(/^HTTP\/1\.1 200 /);
      client.socket.destroy();
    }
    await rig.close();
  }
});

test('a fault of ours in passing a short answer on ends that request alone', async () => {
  const { rig } = await warm((_req, res) => res.end('good'), { maxRetries: 0 });
  const { write } = Exchange.prototype;
  Exchange.prototype.write = () => {
    throw new Error('planted');
  };
  try {
    await expect(fetch(rig.url).then((res) => res.text())).rejects.toThrow();
  } finally {
    Exchange.prototype.write = write;
  }
  await until(() => rig.active('a') === 0 && rig.proxy.active === 0);
  expect(await (await fetch(rig.url)).text()).toBe('good');
  await rig.close();
});

test('what the upstream says of idle connections is news to undici once', async () => {
  const saying = (seconds: number) =>
    `HTTP/1.1 200 OK\r\nConnection: keep-alive\r\nKeep-Alive: timeout=${seconds}\r\nContent-Length: 0\r\n\r\n`;
  plays.set('/five', { pieces: [saying(5)] });
  plays.set('/four', { pieces: [saying(4)] });
  const connections = pool();
  const connection = await used(connections);
  const shorts: boolean[] = [];
  for (const path of ['/five', '/five', '/four', '/four', '/ready', '/five']) {
    const seen = await ask(connection, get(path));
    expect(seen).toMatchObject({ outcome: 'end', kept: true });
    connections.take(false, false);
    shorts.push(seen.short);
  }
  // An answer that says nothing changes nothing.
  expect(shorts).toEqual([false, true, false, true, true, false]);
  connections.destroy();
});
