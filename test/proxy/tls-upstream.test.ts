import { createHash, randomBytes } from 'node:crypto';
import { type AddressInfo, createServer as createTcpServer, type Socket } from 'node:net';
import { createServer as createTlsServer, type SecureVersion, type TLSSocket } from 'node:tls';
import { expect, test } from 'vitest';
import { certificate } from '../helpers/certificate.ts';
import { echo, RawClient, Rig, until } from './rig.ts';

const tls = certificate();

/** An upstream that speaks TLS and answers every request with what `answer` does. Closes at the end of the test. */
async function secureUpstream(
  answer: (secured: TLSSocket, cut: () => void, request: string) => void,
  version: SecureVersion = 'TLSv1.3',
) {
  const below = new WeakMap<TLSSocket, Socket>();
  let latest: Socket | null = null;
  let handshakes = 0;
  const server = createTlsServer({ ...tls, maxVersion: version }, (secured) => {
    handshakes++;
    const plain = below.get(secured) ?? latest;
    secured.on('error', () => {});
    let request = '';
    secured.on('data', (bytes: Buffer) => {
      request += bytes.toString('latin1');
      if (!request.includes('\r\n\r\n')) return;
      const whole = request;
      request = '';
      // Ends the connection below TLS, as somebody on the way could: without a close_notify.
      answer(secured, () => plain?.end(), whole);
    });
  });
  server.on('connection', (plain: Socket) => {
    latest = plain;
    plain.on('error', () => {});
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return {
    origin: `https://127.0.0.1:${(server.address() as AddressInfo).port}`,
    get handshakes() {
      return handshakes;
    },
    [Symbol.asyncDispose]: () => new Promise<void>((resolve) => server.close(() => resolve())),
  };
}

const settings = { verifyUpstreamTls: false };
const plainRequest = 'GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n';
const trailersRequest =
  'POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\nTrailer: X-T\r\n\r\n0\r\nX-T: 1\r\n\r\n';
const heads = {
  'no framing': 'HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nall of it',
  'a length': 'HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nall of it',
  chunks: 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nall of it\r\n0\r\n\r\n',
  'half of its chunks': 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nall of it\r\n',
  'half of its length': 'HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nall of it',
} as const;

for (const version of ['TLSv1.2', 'TLSv1.3'] as const) {
  for (const request of [plainRequest, trailersRequest]) {
    for (const [framing, text] of Object.entries(heads)) {
      for (const end of ['by the word of the upstream', 'cut', 'cut later'] as const) {
        const half = framing.startsWith('half');
        const whole = framing === 'no framing' ? end === 'by the word of the upstream' : !half;
        const client = request === plainRequest ? 'a request' : 'a request with trailers';
        test(`${version}: the answer to ${client} with ${framing} that ends ${end} is ${whole ? 'whole' : 'broken off'}`, async () => {
          await using upstream = await secureUpstream((secured, cut) => {
            secured.write(text, () => {
              if (end === 'cut') cut();
              else if (end === 'cut later') setTimeout(cut, 30);
              else secured.end();
            });
          }, version);
          await using rig = await Rig.start({ settings });
          rig.join('a', upstream.origin);
          const asked = new RawClient(rig.proxy.port).send(request);
          await until(() => asked.closed);
          if (whole) {
            expect(asked.received).toMatch(/^HTTP\/1\.1 200 OK\r\n/);
            expect(asked.received).toMatch(framing === 'a length' ? /all of it$/ : /all of it\r\n0\r\n\r\n$/);
            expect(rig.endings('a')).toEqual({ complete: 1 });
          } else {
            expect(asked.received).not.toContain('\r\n0\r\n');
            expect(rig.endings('a')).toEqual({ truncated: 1 });
          }
        });
      }
    }
  }
}

test('an answer without framing to HEAD and with status 204 is whole whatever its connection does', async () => {
  await using upstream = await secureUpstream((secured, cut, request) => {
    const status = request.startsWith('HEAD') ? '200 OK' : '204 No Content';
    secured.write(`HTTP/1.1 ${status}\r\nConnection: close\r\n\r\n`, cut);
  });
  await using rig = await Rig.start({ settings });
  rig.join('a', upstream.origin);
  for (const method of ['HEAD', 'GET']) {
    const asked = new RawClient(rig.proxy.port).send(`${method} / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n`);
    await until(() => asked.closed);
    expect(asked.received).toContain(method === 'HEAD' ? 'HTTP/1.1 200' : 'HTTP/1.1 204');
  }
  expect(rig.endings('a')).toEqual({ complete: 2 });
});

for (const framing of ['no framing', 'chunks'] as const) {
  for (const end of ['by the word of the upstream', 'cut'] as const) {
    const whole = framing === 'chunks' || end !== 'cut';
    const outcome = whole ? 'gets every byte' : 'learns that it broke off';
    test(`a slow client of an answer with ${framing} that ends ${end} before it has read it ${outcome}`, async () => {
      const body = randomBytes(6_000_000);
      await using upstream = await secureUpstream((secured, cut) => {
        secured.write(`HTTP/1.1 200 OK\r\nConnection: close\r\n`);
        secured.write(
          framing === 'chunks' ? `Transfer-Encoding: chunked\r\n\r\n${body.length.toString(16)}\r\n` : '\r\n',
        );
        secured.write(body);
        secured.write(framing === 'chunks' ? '\r\n0\r\n\r\n' : '', () => {
          if (end === 'cut') cut();
          else secured.end();
        });
      });
      await using rig = await Rig.start({ settings });
      rig.join('a', upstream.origin);
      const asked = new RawClient(rig.proxy.port).send(plainRequest);
      asked.socket.pause();
      await until(() => rig.active('a') === 1);
      await new Promise((resolve) => setTimeout(resolve, 300));
      asked.socket.resume();
      await until(() => asked.closed);
      const read = unchunked(asked.received.slice(asked.received.indexOf('\r\n\r\n') + 4));
      expect(read.ended).toBe(whole);
      if (whole) expect(sha256(Buffer.from(read.body, 'latin1'))).toBe(sha256(body));
      expect(rig.endings('a')).toEqual(whole ? { complete: 1 } : { truncated: 1 });
    });
  }
}

test('over TLS too a slow reader holds up the sender, both ways', async () => {
  const chunk = randomBytes(1_000_000);
  const most = 40;
  let sent = 0;
  let taking: TLSSocket | null = null;
  await using upstream = await secureUpstream((secured, _cut, request) => {
    if (request.startsWith('POST')) {
      taking = secured.pause();
      return;
    }
    secured.write(`HTTP/1.1 200 OK\r\nContent-Length: ${most * chunk.length}\r\n\r\n`);
    const more = () => {
      while (sent < most) {
        sent++;
        if (!secured.write(chunk)) {
          secured.once('drain', more);
          return;
        }
      }
    };
    more();
  });
  await using rig = await Rig.start({ settings });
  rig.join('a', upstream.origin);
  /** Waits until `count` stands still. */
  const settled = async (count: () => number) => {
    for (let last = -1; last !== count(); ) {
      last = count();
      await new Promise((resolve) => setTimeout(resolve, 300));
    }
    return count();
  };
  const reader = new RawClient(rig.proxy.port).send('GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n');
  reader.socket.pause();
  await until(() => sent > 0);
  expect(await settled(() => sent)).toBeLessThan(most / 2);
  reader.socket.resume();
  await until(() => reader.closed);
  expect(reader.received.length).toBeGreaterThan(most * chunk.length);

  const writer = new RawClient(rig.proxy.port);
  writer.send(`POST / HTTP/1.1\r\nHost: x\r\nContent-Length: ${most * chunk.length}\r\n\r\n`);
  for (let i = 0; i < most; i++) writer.socket.write(chunk);
  await until(() => taking !== null);
  expect(await settled(() => writer.socket.bytesWritten - writer.socket.writableLength)).toBeLessThan(
    (most / 2) * chunk.length,
  );
  let received = 0;
  taking!.removeAllListeners('data');
  taking!.on('data', (bytes: Buffer) => {
    received += bytes.length;
  });
  taking!.resume();
  // The first bytes came with the head.
  await until(() => received > (most - 1) * chunk.length);
  taking!.write('HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n');
  await writer.until(/200 OK/);
  writer.socket.destroy();
});

const sha256 = (bytes: Buffer) => createHash('sha256').update(bytes).digest('hex');

function unchunked(text: string): { body: string; ended: boolean } {
  const pieces: string[] = [];
  for (let at = 0; ; ) {
    const line = text.indexOf('\r\n', at);
    const size = line === -1 ? Number.NaN : Number.parseInt(text.slice(at, line), 16);
    if (size === 0) return { body: pieces.join(''), ended: true };
    if (Number.isNaN(size) || line + 4 + size > text.length) return { body: pieces.join(''), ended: false };
    pieces.push(text.slice(line + 2, line + 2 + size));
    at = line + size + 4;
  }
}

/** An upstream that accepts and does no more than `welcome`: it never ends its side by itself. */
async function rawUpstream(welcome: (socket: Socket) => void) {
  const open = new Set<Socket>();
  const server = createTcpServer({ allowHalfOpen: true }, (socket) => {
    open.add(socket);
    socket.on('error', () => {});
    socket.on('close', () => open.delete(socket));
    socket.on('end', () => socket.end());
    socket.resume();
    welcome(socket);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return {
    open,
    origin: `https://127.0.0.1:${(server.address() as AddressInfo).port}`,
    [Symbol.asyncDispose]: () => {
      for (const socket of open) socket.destroy();
      return new Promise<void>((resolve) => server.close(() => resolve()));
    },
  };
}

const welcomes: Record<string, (socket: Socket) => void> = {
  'ends its side at once': (socket) => void socket.end(),
  'speaks something else': (socket) => void socket.write('220 mail ready\r\n'),
  'speaks something else and ends its side': (socket) => void socket.end('220 mail ready\r\n'),
  'resets in the handshake': (socket) => void setTimeout(() => socket.resetAndDestroy(), 20),
  'ends its side in the handshake': (socket) =>
    void setTimeout(() => socket.end(Buffer.from([22, 3, 3, 0, 50, 2])), 20),
  'says nothing': () => {},
};
for (const [what, welcome] of Object.entries(welcomes)) {
  for (const request of [plainRequest, trailersRequest]) {
    const kind = request === plainRequest ? 'a request' : 'a request with trailers';
    test(`no connection is left when the upstream of ${kind} ${what}`, async () => {
      await using upstream = await rawUpstream(welcome);
      await using rig = await Rig.start({ settings: { ...settings, connectTimeoutMs: 300, maxRetries: 0 } });
      rig.join('a', upstream.origin);
      const asked = new RawClient(rig.proxy.port).send(request);
      await until(() => asked.closed);
      expect(asked.received).toMatch(/^HTTP\/1\.1 502/);
      await until(() => upstream.open.size === 0);
      expect(rig.endings('a')).toEqual({ refused: 1 });
      const left = new RawClient(rig.proxy.port).send(request);
      await new Promise((resolve) => setTimeout(resolve, 10));
      left.socket.destroy();
      await until(() => rig.active('a') === 0 && upstream.open.size === 0);
    });
  }
}

const slowKinds = {
  'an answer': {
    request: plainRequest,
    head: (size: number) => `200 OK\r\nConnection: close\r\nContent-Length: ${size}`,
  },
  'an answer to a request with trailers': {
    request: trailersRequest,
    head: (size: number) => `200 OK\r\nConnection: close\r\nContent-Length: ${size}`,
  },
  'a tunnel': {
    request: 'GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n',
    head: () => '101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket',
  },
};
for (const [kind, { request, head }] of Object.entries(slowKinds)) {
  test(`a slow client of ${kind} whose upstream closes at once gets all, whatever is still on its way`, async () => {
    let size = 0;
    await using upstream = await secureUpstream((secured) => {
      // The trailers come later.
      if (secured.writableEnded) return;
      secured.write(`HTTP/1.1 ${head(size)}\r\n\r\n`);
      secured.end(Buffer.alloc(size, 0x78));
    });
    await using rig = await Rig.start({ settings });
    rig.join('a', upstream.origin);
    // About as much as the buffers of the system and of all streams on the way hold.
    for (size = 4_200_000; size < 4_700_000; size += 40_000) {
      const asked = new RawClient(rig.proxy.port).send(request);
      asked.socket.pause();
      setTimeout(() => asked.socket.resume(), 250);
      await until(() => asked.closed);
      expect(asked.received.length).toBeGreaterThan(size);
    }
  });
}

test('connections over TLS are used again, and their ends between requests disturb nobody', async () => {
  await using upstream = await secureUpstream((secured, cut, request) => {
    secured.write('HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok', () => {
      if (request.startsWith('GET /last')) setTimeout(cut, 10);
    });
  });
  await using rig = await Rig.start({ settings });
  rig.join('a', upstream.origin);
  for (let i = 0; i < 5; i++) expect(await (await fetch(rig.url)).text()).toBe('ok');
  expect(upstream.handshakes).toBe(1);
  expect(await (await fetch(`${rig.url}/last`)).text()).toBe('ok');
  await new Promise((resolve) => setTimeout(resolve, 60));
  expect(await (await fetch(rig.url)).text()).toBe('ok');
  expect(upstream.handshakes).toBe(2);
  expect(rig.endings('a')).toEqual({ complete: 7 });
});

test('an upstream over TLS that refuses, and one that speaks no TLS, are tried elsewhere and held against them', async () => {
  const closed = createTcpServer();
  await new Promise<void>((resolve) => closed.listen(0, '127.0.0.1', resolve));
  const { port } = closed.address() as AddressInfo;
  await new Promise((resolve) => closed.close(resolve));
  await using rig = await Rig.start({ settings });
  rig.join('refusing', `https://127.0.0.1:${port}`);
  const plain = await rig.backend('plain', echo);
  rig.leave('plain');
  rig.join('plain', plain.origin.replace('http:', 'https:'));
  await rig.backend('good', echo);
  expect((await fetch(rig.url)).status).toBe(200);
  expect([rig.endings('refusing'), rig.endings('plain'), rig.endings('good')]).toEqual([
    { refused: 1 },
    { refused: 1 },
    { complete: 1 },
  ]);
});
