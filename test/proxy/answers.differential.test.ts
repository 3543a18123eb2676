import { get as httpGet } from 'node:http';
import { type AddressInfo, createServer, type Server, type Socket } from 'node:net';
import fc from 'fast-check';
import { afterAll, beforeAll, test } from 'vitest';
import { Rig, until } from './rig.ts';

/**
 * What a client sees through the proxy is held against what node's own strict client sees of the same bytes, sent by the
 * same upstream. DIFF_RUNS (150) answers of each kind, DIFF_SEED for a run that is to be repeated, DIFF_REPORT=1 to list
 * every difference instead of stopping at the first one.
 */
const runs = Number(process.env.DIFF_RUNS ?? 150);
// The same answers in every run; DIFF_SEED and DIFF_RUNS look further.
const seed = Number(process.env.DIFF_SEED ?? 20_261_123);
const listing = process.env.DIFF_REPORT === '1';

/** How an upstream answers: bytes (one character each) in pieces, then what it does to the connection. */
type Answer = Readonly<{ text: string; cuts: readonly number[]; last: 'fin' | 'rst' | 'stay'; extra?: string }>;

type Seen = Readonly<{ status: number; body: string; complete: boolean }>;

let server: Server;
let rig: Rig;
let port = 0;
const answers = new Map<string, Answer>();
const sockets = new Set<Socket>();

beforeAll(async () => {
  server = createServer({ noDelay: true }, (socket) => {
    sockets.add(socket);
    socket.on('close', () => sockets.delete(socket));
    socket.on('error', () => {});
    let got = '';
    socket.on('data', (chunk) => {
      got += chunk.toString('latin1');
      const path = /^[A-Z]+ \/(\d+) /.exec(got)?.[1];
      if (!got.includes('\r\n\r\n') || path === undefined) return;
      got = '';
      void play(socket, answers.get(path)!);
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  port = (server.address() as AddressInfo).port;
  rig = await Rig.start({
    settings: { idleTimeoutMs: 20_000, maxRetries: 0 },
    balancer: { ejectAfterFailures: 1_000_000 },
  });
  rig.join('a', `http://127.0.0.1:${port}`);
});

afterAll(async () => {
  await rig.close();
  for (const socket of sockets) socket.destroy();
  server.close();
});

async function play(socket: Socket, answer: Answer): Promise<void> {
  const { text } = answer;
  const cuts = [...answer.cuts.map((cut) => cut % (text.length + 1)), text.length].sort((a, b) => a - b);
  let at = 0;
  for (const cut of cuts) {
    if (cut === at) continue;
    socket.write(Buffer.from(text.slice(at, cut), 'latin1'));
    at = cut;
    // The first one comes before what was written can have been read.
    await new Promise(setImmediate);
    await new Promise(setImmediate);
  }
  if (answer.last === 'fin') socket.end();
  else if (answer.last === 'rst') {
    // After what was written has been read: a reset may overtake bytes, and then both see less, but not the same.
    await new Promise((resolve) => setTimeout(resolve, 25));
    socket.resetAndDestroy();
  }
}

/** One request with node's client, on a connection of its own. */
function ask(toPort: number, path: string, method: string): Promise<Seen> {
  return new Promise((resolve) => {
    let status = 0;
    let body = '';
    let done = false;
    const end = (complete: boolean) => {
      if (done) return;
      done = true;
      clearTimeout(timer);
      req.destroy();
      resolve({ status, body, complete });
    };
    const req = httpGet({ host: '127.0.0.1', port: toPort, path, method, agent: false, insecureHTTPParser: false });
    // An answer that waits for bytes that never come is a failed one.
    const timer = setTimeout(end, 1_500, false);
    req.on('error', () => end(false));
    req.on('response', (res) => {
      status = res.statusCode ?? 0;
      res.on('data', (chunk: Buffer) => {
        body += chunk.toString('latin1');
      });
      res.on('error', () => end(false));
      res.on('aborted', () => end(false));
      res.on('end', () => end(res.complete));
    });
  });
}

/** What is wrong with what the proxy made of an answer; null when nothing is. */
function difference(direct: Seen, proxied: Seen): string | null {
  if (direct.complete) {
    if (!proxied.complete) return `node: complete ${direct.status}, proxy: failed (${proxied.status})`;
    if (direct.status !== proxied.status) return `node: ${direct.status}, proxy: ${proxied.status}`;
    return direct.body === proxied.body ? null : 'bodies differ';
  }
  // A refusal in the proxy's own name is how it tells that nothing usable has come.
  if (proxied.status === 502 && proxied.body.includes('upstream_failed')) return null;
  if (proxied.complete) return `node: failed after ${direct.status}, proxy: COMPLETE ${proxied.status}`;
  return null;
}

let count = 0;

/** `extra` is sent through the proxy alone: node's client may fail on it although the answer before it is whole. */
async function compare(answer: Answer, method: string, extra: string, mayRefuse: boolean): Promise<string | null> {
  const path = String(++count);
  const proxiedPath = String(++count);
  answers.set(path, answer);
  answers.set(proxiedPath, { ...answer, text: answer.text + extra });
  const [direct, proxied] = await Promise.all([
    ask(port, `/${path}`, method),
    ask(rig.proxy.port, `/${proxiedPath}`, method),
  ]);
  // Codings that nobody asked for and that a proxy cannot undo, and protocols that nobody wanted, are refused.
  const foreign = direct.status === 101 || /transfer-encoding:(?!\s*chunked\r)/i.test(answer.text);
  if (proxied.status === 502 && (foreign || mayRefuse)) return null;
  const found = difference(direct, proxied);
  if (found === null || direct.complete) return found;
  // Node's client may fail on bytes beyond the end of an answer that is whole.
  for (let beyond = 1; beyond < answer.text.length; beyond++) {
    answers.set(path, { ...answer, text: answer.text.slice(0, -beyond) });
    const shorter = await ask(port, `/${path}`, method);
    if (shorter.complete && difference(shorter, proxied) === null) return null;
  }
  return found;
}

const differences = new Map<string, string>();

/** `mayRefuse`: of a broken answer the proxy may take less than node does, never more. */
async function hold(name: string, answer: fc.Arbitrary<Answer>, method = 'GET', mayRefuse = false): Promise<void> {
  console.log(`${name}: seed ${seed}`);
  await fc.assert(
    fc.asyncProperty(answer, async (one) => {
      let found = await compare(one, method, one.extra ?? '', mayRefuse);
      // A busy machine can be late once.
      if (found !== null) found = await compare(one, method, one.extra ?? '', mayRefuse);
      if (found === null) return;
      const told = `${found}: ${method} ${JSON.stringify(one.text.length > 400 ? `${one.text.slice(0, 200)}…${one.text.slice(-150)}` : one.text)} then ${one.last}`;
      if (!listing) throw new Error(told);
      const key = `${name}: ${found}`;
      const known = differences.get(key);
      if (known === undefined || known.length > told.length) differences.set(key, told);
    }),
    { numRuns: runs, seed, endOnFailure: !listing },
  );
  await until(() => rig.active('a') === 0);
  if (listing) for (const told of differences.values()) console.log(`${name} DIFFERENCE ${told}`);
  if (listing) differences.clear();
}

const cuts = fc.oneof(
  fc.constant([] as number[]),
  fc.array(fc.nat(100_000), { maxLength: 8 }),
  fc.constant(Array.from({ length: 300 }, (_, i) => i)),
);
const statusOf = fc.constantFrom('200 OK', '200 ', '201 Created', '206 Partial Content', '404 Not Found', '500 Oops');
const plainHeader = fc.constantFrom(
  'X-A: 1',
  'x-b:2',
  'X-Empty:',
  'Set-Cookie: a=b',
  'Content-Type: text/event-stream',
  'Date: Mon, 23 Nov 2026 16:00:00 GMT',
  'X-Tab:\tv\t',
  'X-High: \xe9\xff',
  `X-Long: ${'l'.repeat(3_000)}`,
);
const headers = fc.array(plainHeader, { maxLength: 4 }).map((all) => all.map((one) => `${one}\r\n`).join(''));
const before = fc
  .array(
    fc.constantFrom(
      'HTTP/1.1 102 Processing\r\n\r\n',
      'HTTP/1.1 103 Early Hints\r\nLink: </a>; rel=preload\r\n\r\n',
      'HTTP/1.1 100 Continue\r\n\r\n',
    ),
    { maxLength: 2 },
  )
  .map((all) => all.join(''));
const bodyOf = fc.oneof(
  fc.string({ maxLength: 40, unit: 'binary-ascii' }),
  fc.nat(20_000).map((n) => 'b'.repeat(n)),
  fc.constant('data: {"a":1}\n\n'.repeat(20)),
  fc.constant('0\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n'),
);
const version = fc.constantFrom('HTTP/1.1', 'HTTP/1.1', 'HTTP/1.1', 'HTTP/1.0');
const connection = fc.constantFrom('', '', 'Connection: close\r\n', 'Connection: keep-alive\r\n');
const hex = (n: number) =>
  fc.constantFrom(n.toString(16), n.toString(16).toUpperCase(), n.toString(16).padStart(5, '0'));

const chunkedBody = fc
  .array(
    bodyOf.filter((body) => body !== '').chain((body) => hex(body.length).map((size) => ({ body, size }))),
    { maxLength: 5 },
  )
  .chain((all) =>
    fc
      .tuple(
        fc.constantFrom('', '', ';x', ';x=y', ';x="y;z"'),
        fc.constantFrom('', '', 'X-Sum: 1\r\n', 'X-Sum: 1\r\nX-Two:2\r\n'),
      )
      .map(
        ([extension, trailers]) =>
          `${all.map(({ body, size }) => `${size}${extension}\r\n${body}\r\n`).join('')}0\r\n${trailers}\r\n`,
      ),
  );

const withLength = fc
  .tuple(before, version, statusOf, headers, connection, bodyOf)
  .map(([first, http, status, more, close, body]) => {
    return `${first}${http} ${status}\r\n${more}${close}Content-Length: ${body.length}\r\n\r\n${body}`;
  });
const withChunks = fc
  .tuple(before, statusOf, headers, connection, chunkedBody)
  .map(([first, status, more, close, body]) => {
    return `${first}HTTP/1.1 ${status}\r\n${more}${close}Transfer-Encoding: chunked\r\n\r\n${body}`;
  });
const untilClose = fc
  .tuple(version, statusOf, headers, bodyOf)
  .map(([http, status, more, body]) => `${http} ${status}\r\n${more}\r\n${body}`);
const bodiless = fc
  .tuple(before, fc.constantFrom('204 No Content', '304 Not Modified'), headers)
  .map(([first, status, more]) => `${first}HTTP/1.1 ${status}\r\n${more}\r\n`);

const ending = fc.constantFrom('fin' as const, 'rst' as const);
const framed = fc.oneof(withLength, withChunks, bodiless);

test('whole answers with a length, in chunks or without a body are the same', async () => {
  await hold(
    'whole',
    fc.record({ text: framed, cuts, last: fc.constantFrom('fin' as const, 'rst' as const, 'stay' as const) }),
  );
}, 120_000);

test('answers that end with the connection are whole after FIN and broken after RST', async () => {
  await hold('until close', fc.record({ text: untilClose, cuts, last: ending }));
}, 120_000);

test('answers that break off at any byte are never whole', async () => {
  const text = fc.oneof(framed, untilClose).chain((whole) => fc.nat(whole.length).map((n) => whole.slice(0, n)));
  await hold('cut', fc.record({ text, cuts, last: ending }));
}, 120_000);

test('answers to HEAD are the same', async () => {
  const text = fc
    .oneof(withLength, withChunks, untilClose)
    .map((whole) => whole.slice(0, whole.lastIndexOf('\r\n\r\n') + 4));
  const heads = text.map((one) =>
    one.slice(
      0,
      one.search(/HTTP\/1\.[01] [2-5]/) + one.slice(one.search(/HTTP\/1\.[01] [2-5]/)).indexOf('\r\n\r\n') + 4,
    ),
  );
  await hold('HEAD', fc.record({ text: heads, cuts, last: fc.constantFrom('fin' as const, 'stay' as const) }), 'HEAD');
}, 120_000);

test('bytes beyond the end change nothing', async () => {
  const extra = fc.constantFrom(
    'x',
    '\r\n',
    '\r\n\r\n',
    '0\r\n\r\n',
    'HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil',
    '\0\0\0',
  );
  await hold('extra', fc.record({ text: framed, cuts, last: ending, extra }));
}, 120_000);

test('answers with faults are not whole where node says that they are not', async () => {
  const wrongHead = fc.constantFrom(
    'Content-Length: 5\r\nTransfer-Encoding: chunked\r\n',
    'Transfer-Encoding: chunked\r\nContent-Length: 5\r\n',
    'Content-Length: 5\r\nContent-Length: 5\r\n',
    'Content-Length: 5\r\nContent-Length: 6\r\n',
    'Content-Length: 5, 5\r\n',
    'Content-Length: +5\r\n',
    'Content-Length: -5\r\n',
    'Content-Length: 0x5\r\n',
    'Content-Length: \r\n',
    'Content-Length: 5 5\r\n',
    'Content-Length: 99999999999999999999\r\n',
    'Content-Length : 5\r\n',
    'Content-Length: 5\n',
    'Content-Length: 5\r',
    'Content-Length:\r\n 5\r\n',
    'X-Fold: a\r\n b\r\nContent-Length: 5\r\n',
    ' X-Lead: a\r\nContent-Length: 5\r\n',
    'no colon\r\nContent-Length: 5\r\n',
    'X-Nul: a\0b\r\nContent-Length: 5\r\n',
    'X-Cr: a\rb\r\nContent-Length: 5\r\n',
    'X-Lf: a\nX-B: b\r\nContent-Length: 5\r\n',
    'X(Bad): a\r\nContent-Length: 5\r\n',
    ': a\r\nContent-Length: 5\r\n',
    'Transfer-Encoding: gzip\r\n',
    'Transfer-Encoding: chunked, gzip\r\n',
    'Transfer-Encoding: xchunked\r\n',
    'Transfer-Encoding:\r\n chunked\r\n',
    'Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n',
    `X-Huge: ${'h'.repeat(70_000)}\r\nContent-Length: 5\r\n`,
  );
  const wrongStatus = fc.constantFrom(
    ...[
      'HTTP/1.1 200 OK',
      'HTTP/1.1 2000 OK',
      'HTTP/1.1 20 OK',
      'HTTP/1.1  200 OK',
      'HTTP/1.1 abc OK',
      'HTTP/3.7 200 OK',
    ],
    ...[
      'http/1.1 200 OK',
      'HTTP/1.1\t200 OK',
      'HTTP/1.1 200',
      'ICY 200 OK',
      '\r\nHTTP/1.1 200 OK',
      'HTTP/1.1 200 O\0K',
    ],
    'HTTP/1.1 101 Switching Protocols',
  );
  const body = fc.constantFrom('hello', '5\r\nhello\r\n0\r\n\r\n', 'hello world');
  const first = fc.tuple(wrongHead, body).map(([head, rest]) => `HTTP/1.1 200 OK\r\n${head}\r\n${rest}`);
  const second = wrongStatus.map((line) => `${line}\r\nContent-Length: 5\r\n\r\nhello`);
  const wrongChunk = fc.constantFrom(
    ...[
      '',
      'g\r\n',
      '-1\r\nx\r\n',
      '0x1\r\nx\r\n',
      '1\nx\r\n',
      '1\r\nx\n',
      '1\r\nxy\r\n',
      '1 \r\nx\r\n',
      ' 1\r\nx\r\n',
      '1\r\r\nx\r\n',
    ],
    ...[
      '1;a\nb\r\nx\r\n',
      'fffffffffffffffff\r\nx\r\n',
      '\r\n',
      '1;\0\r\nx\r\n',
      '+1\r\nx\r\n',
      '1\r\nx',
      '2\r\nx\r\n',
      '00000000000000000001\r\nx\r\n',
    ],
  );
  const wrongEnd = fc.constantFrom(
    ...[
      '0\r\n\r\n',
      '0\r\n',
      '0\r',
      '0',
      '',
      '0\n\n',
      '0\r\nX: y',
      '0\r\nbad trailer\r\n\r\n',
      '0\r\n X: y\r\n\r\n',
      '0\r\nX : y\r\n\r\n',
    ],
    ...[
      '0\r\nX: a\0b\r\n\r\n',
      '00\r\n\r\n',
      '0;e\r\n\r\n',
      '0 \r\n\r\n',
      '0\r\nX: a\r\n b\r\n\r\n',
      `0\r\nX: ${'t'.repeat(20_000)}\r\n\r\n`,
    ],
  );
  const third = fc
    .tuple(wrongChunk, wrongEnd)
    .map(([bad, end]) => `HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n${bad}${end}`);
  await hold('faults', fc.record({ text: fc.oneof(first, second, third), cuts, last: ending }), 'GET', true);
}, 240_000);

test('answers with bytes changed, left out or put in are never whole where node fails', async () => {
  const text = fc
    .tuple(
      fc.oneof(framed, untilClose),
      fc.array(fc.tuple(fc.nat(400), fc.nat(2), fc.integer({ min: 0, max: 255 })), { minLength: 1, maxLength: 3 }),
    )
    .map(([whole, changes]) => {
      let result = whole;
      for (const [where, what, byte] of changes) {
        const at = where % (result.length + 1);
        const put = what === 2 ? '' : String.fromCharCode(byte);
        result = result.slice(0, at) + put + result.slice(what === 1 ? at : at + 1);
      }
      return result;
    });
  await hold('changed', fc.record({ text, cuts, last: ending }), 'GET', true);
}, 240_000);

test('events that come in reads of their own pass as they are, and faults among them are never whole', async () => {
  const chunk = fc
    .oneof(bodyOf, fc.constant('data: {"choices":[{"delta":{"content":"tok"}}]}\n\n'))
    .filter((body) => body !== '')

    .chain((body) =>
      fc
        .constantFrom(body.length.toString(16), body.length.toString(16).toUpperCase())
        .map((size) => `${size}\r\n${body}\r\n`),
    );
  const wholes = fc.array(chunk, { minLength: 1, maxLength: 3 }).map((all) => [all.join('')]);
  // A read in the middle of a chunk that looks like whole ones.
  const inner = '3\r\nabc\r\n1\r\n0\r\n';
  const misleading = fc.boolean().map((early) => {
    const size = (inner.length + 8).toString(16);
    return early ? [`${size}\r\nhead`, inner, 'tail\r\n'] : [`${size}\r\n`, `headtail${inner}\r\n`];
  });
  const reads = fc.array(fc.oneof(wholes, wholes, misleading), { minLength: 1, maxLength: 6 }).map((all) => all.flat());
  // A body that ends with the connection, or after a length, and looks like chunks is a body like any other.
  const framing = fc.constantFrom('chunks' as const, 'chunks' as const, 'close' as const, 'length' as const);
  const fault = fc.option(fc.tuple(fc.nat(7), fc.nat(60), fc.nat(2), fc.integer({ min: 0, max: 255 })), { freq: 1 });
  const text = fc
    .tuple(
      statusOf,
      headers,
      reads,
      fault,
      fc.constantFrom(...Array<string>(4).fill('0\r\n\r\n'), '0\r\nX-Sum: 1\r\n\r\n', '0\r\n', ''),
      fc.boolean(),
      framing,
    )
    .map(([status, more, all, change, end, apart, how]) => {
      const length = all.join('').length + end.length;
      const tells = { chunks: 'Transfer-Encoding: chunked\r\n', close: '', length: `Content-Length: ${length}\r\n` };
      const pieces = [`HTTP/1.1 ${status}\r\n${more}${tells[how]}\r\n`, ...all, end];
      if (!apart) pieces.splice(0, 2, pieces[0]! + pieces[1]!);
      if (change !== null) {
        const [which, where, what, byte] = change;
        const index = 1 + (which % (pieces.length - 1));
        const piece = pieces[index]!;
        const at = where % (piece.length + 1);
        const put = what === 2 ? '' : String.fromCharCode(byte);
        pieces[index] = piece.slice(0, at) + put + piece.slice(what === 1 ? at : at + 1);
      }
      let at = 0;
      return { text: pieces.join(''), cuts: pieces.map((piece) => (at += piece.length)) };
    });
  await hold(
    'events',
    fc.tuple(text, ending).map(([one, last]) => ({ ...one, last })),
    'GET',
    true,
  );
}, 240_000);
