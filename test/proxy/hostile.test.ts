import { type AddressInfo, createServer, type Server, type Socket } from 'node:net';
import { afterEach, expect, test, vi } from 'vitest';
import { ProxyResponse } from '../../src/proxy/proxy-response.ts';
import { RawClient, Rig, sleep, until } from './rig.ts';

const servers: Server[] = [];
const sockets = new Set<Socket>();
afterEach(() => {
  for (const socket of sockets) socket.destroy();
  sockets.clear();
  for (const server of servers.splice(0)) server.close();
});

/** An upstream that speaks bytes. `answer` gets the head of each request. */
async function raw(answer: (socket: Socket, request: string, connection: number) => void): Promise<string> {
  let connections = 0;
  const server = createServer({ noDelay: true }, (socket) => {
    const connection = ++connections;
    let got = '';
    sockets.add(socket);
    socket.on('error', () => {});
    socket.on('close', () => sockets.delete(socket));
    socket.on('data', (chunk) => {
      got += chunk.toString('latin1');
      for (let end = got.indexOf('\r\n\r\n'); end !== -1; end = got.indexOf('\r\n\r\n')) {
        const request = got.slice(0, end + 4);
        got = got.slice(end + 4);
        answer(socket, request, connection);
      }
    });
  });
  servers.push(server);
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

const get = (path: string, more = '') => `GET ${path} HTTP/1.1\r\nHost: x\r\n${more}\r\n`;

function inChunks(body: string, size: number): string {
  let text = '';
  for (let at = 0; at < body.length; at += size) {
    const piece = body.slice(at, at + size);
    text += `${piece.length.toString(16)}\r\n${piece}\r\n`;
  }
  return `${text}0\r\n\r\n`;
}

/** Reads one chunked body to its end. */
function chunked(text: string): { body: string; rest: string } | null {
  let body = '';
  let at = text.indexOf('\r\n\r\n') + 4;
  for (;;) {
    const line = text.indexOf('\r\n', at);
    if (line === -1) return null;
    const size = Number.parseInt(text.slice(at, line), 16);
    if (text.length < line + size + 4) return null;
    body += text.slice(line + 2, line + 2 + size);
    at = line + size + 4;
    if (size === 0) return { body, rest: text.slice(at) };
  }
}

test('an answer that had to wait for its reader is whole, however its end was told', async () => {
  await using rig = await Rig.start();
  const body = Array.from({ length: 60_000 }, (_, i) => `${i},`).join('');
  const forms: Record<string, string> = {
    '/length': `Content-Length: ${body.length}\r\n\r\n${body}`,
    '/chunks': `Transfer-Encoding: chunked\r\n\r\n${inChunks(body, 100_000)}`,
    '/small-chunks': `Transfer-Encoding: chunked\r\n\r\n${inChunks(body, 3_000)}`,
    '/close': `Connection: close\r\n\r\n${body}`,
  };
  rig.join(
    'a',
    await raw((socket, request) => {
      const path = request.split(' ')[1]!;
      socket.write(`HTTP/1.1 200 OK\r\n${forms[path]}`, 'latin1');
      if (path === '/close') socket.end();
    }),
  );
  for (const path of Object.keys(forms)) {
    const client = new RawClient(rig.proxy.port);
    client.socket.pause();
    client.send(get(path));
    setTimeout(() => client.socket.resume(), 50);
    let got: { body: string; rest: string } | null = null;
    await until(() => {
      const head = client.received.indexOf('\r\n\r\n');
      if (head === -1) return false;
      if (path !== '/length') got = chunked(client.received);
      else if (client.received.length >= head + 4 + body.length)
        got = { body: client.received.slice(head + 4), rest: '' };
      return got !== null;
    });
    // Nothing may follow: it would be taken for the next answer.
    await sleep(50);
    if (path !== '/length') got = chunked(client.received);
    expect([path, got!.body === body, got!.rest]).toEqual([path, true, '']);
    client.socket.destroy();
  }
});

test('100 Continue comes before its answer also for a request that waits behind another one', async () => {
  await using rig = await Rig.start();
  rig.join(
    'a',
    await raw((socket, request) => {
      const answer = () => socket.write(`HTTP/1.1 200 OK\r\nContent-Length: 60000\r\n\r\n${'x'.repeat(60_000)}`);
      if (request.startsWith('GET /slow')) setTimeout(answer, 200);
      else answer();
    }),
  );
  const client = new RawClient(rig.proxy.port);
  client.send(`${get('/slow')}POST /second HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nok`);
  await until(() => client.received.length > 120_000);
  expect(client.received.split(/(?=HTTP\/1\.1 )/).map((part) => part.slice(9, 12))).toEqual(['200', '100', '200']);
  expect(client.received.endsWith('x'.repeat(60_000))).toBe(true);
  client.socket.destroy();
});

test('an answer that waits behind another one does not pile up, and is whole when its turn comes', async () => {
  await using rig = await Rig.start({ settings: { idleTimeoutMs: 1_000 } });
  const size = 32 * 1024 * 1024;
  const sent: Record<string, number> = { '/1': 0, '/2': 0 };
  await rig.backend('a', (req, res) => {
    const path = req.url!;
    res.writeHead(200, { 'content-length': size });
    const chunk = Buffer.alloc(65_536, path.slice(1));
    const more = () => {
      while (sent[path]! < size && !res.destroyed) {
        sent[path]! += chunk.length;
        if (!res.write(chunk)) {
          res.once('drain', more);
          return;
        }
      }
      res.end();
    };
    more();
  });
  const heads = vi.spyOn(ProxyResponse.prototype, 'takeHead');
  const client = new RawClient(rig.proxy.port);
  client.socket.removeAllListeners('data');
  let received = 0;
  let mostWaiting = 0;
  const bodies = [0, 0];
  client.socket.on('data', (bytes: Buffer) => {
    received += bytes.length;
    for (let i = 0; i + 1 < bytes.length; i += 1024) {
      if (bytes[i] === 0x31 && bytes[i + 1] === 0x31) bodies[0]!++;
      else if (bytes[i] === 0x32 && bytes[i + 1] === 0x32) bodies[1]!++;
    }
    for (const response of heads.mock.contexts as ProxyResponse[]) {
      if (response.socket === null) mostWaiting = Math.max(mostWaiting, response.writableLength);
    }
    client.socket.pause();
    setTimeout(() => client.socket.resume(), 4);
  });
  client.send(get('/1') + get('/2'));
  await until(() => received > 2 * size, 60_000);
  heads.mockRestore();
  expect(mostWaiting).toBeGreaterThan(0);
  expect(mostWaiting).toBeLessThan(300_000);
  for (const pieces of bodies) expect(pieces).toBeGreaterThan((size / 1024) * 0.9);
  client.socket.destroy();
  await until(() => rig.active('a') === 0);
}, 90_000);
