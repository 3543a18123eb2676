import type { Socket } from 'node:net';
import { expect, test } from 'vitest';
import WebSocket, { WebSocketServer } from 'ws';
import { RawClient, Rig, sleep, until } from './rig.ts';

/** An upstream that echoes messages. */
async function echoing(rig: Rig, id: string) {
  const backend = await rig.backend(id, (_req, res) => res.writeHead(426).end('upgrade needed'));
  const wss = new WebSocketServer({ server: backend.server, path: '/ws' });
  const seen: { headers: Record<string, unknown>; url: string | undefined }[] = [];
  wss.on('connection', (socket, req) => {
    seen.push({ headers: req.headers, url: req.url });
    socket.on('message', (data, binary) => socket.send(data, { binary }));
    socket.on('error', () => {});
  });
  return { backend, wss, seen };
}

test('a WebSocket is tunnelled and counted for its whole life', async () => {
  await using rig = await Rig.start();
  const { seen } = await echoing(rig, 'a');
  const socket = new WebSocket(`ws://127.0.0.1:${rig.proxy.port}/ws?x=1`, {
    headers: { 'x-api-key': 'secret-key', authorization: 'Bearer secret-key' },
  });
  const heard: string[] = [];
  socket.on('message', (data) => heard.push(data.toString()));
  await new Promise((resolve) => socket.once('open', resolve));
  expect(rig.active('a')).toBe(1);
  for (const text of ['one', 'two', 'x'.repeat(200_000)]) socket.send(text);
  await until(() => heard.length === 3);
  expect(heard.map((text) => text.length)).toEqual([3, 3, 200_000]);
  expect(rig.active('a')).toBe(1);
  socket.close();
  await until(() => rig.active('a') === 0);
  expect(rig.endings('a')).toEqual({ complete: 1 });
  expect(seen[0]!.url).toBe('/ws?x=1');
  expect(JSON.stringify(seen)).not.toContain('secret-key');
  expect(seen[0]!.headers).toMatchObject({ 'x-forwarded-for': '127.0.0.1', upgrade: 'websocket' });
  const [request] = await rig.reported(1);
  expect(request).toMatchObject({ status: 101, cause: 'complete', instance: 'a' });
  expect(request!.bytesOut).toBeGreaterThan(200_000);
});

test('the answer to an upgrade names the instance and speaks the protocol of the upstream', async () => {
  await using rig = await Rig.start();
  await echoing(rig, 'a');
  const client = new RawClient(rig.proxy.port);
  client.send(
    'GET /ws HTTP/1.1\r\nHost: x\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n' +
      'Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n',
  );
  const head = await client.until(/\r\n\r\n/);
  expect(head).toMatch(/^HTTP\/1\.1 101 Switching Protocols\r\n/);
  expect(head.toLowerCase()).toContain('sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo=');
  expect(head).toContain('x-gpuproxy-instance: a');
  client.socket.destroy();
  await until(() => rig.active('a') === 0);
});

test('either side that breaks off takes the other with it', async () => {
  await using rig = await Rig.start();
  const { wss } = await echoing(rig, 'a');
  const open = async () => {
    const socket = new WebSocket(`ws://127.0.0.1:${rig.proxy.port}/ws`);
    socket.on('error', () => {});
    await new Promise((resolve) => socket.once('open', resolve));
    return socket;
  };
  const first = await open();
  for (const client of wss.clients) client.terminate();
  await until(() => first.readyState === WebSocket.CLOSED && rig.active('a') === 0);
  const second = await open();
  await until(() => wss.clients.size === 1);
  second.terminate();
  await until(() => wss.clients.size === 0 && rig.active('a') === 0);
});

test('an upstream that will not upgrade answers as to any request', async () => {
  await using rig = await Rig.start();
  await echoing(rig, 'a');
  const client = new RawClient(rig.proxy.port);
  client.send('GET /other HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n');
  await until(() => client.closed);
  expect(client.received).toMatch(/^HTTP\/1\.1 400 Bad Request\r\n/);
  await until(() => rig.active('a') === 0);
  expect(rig.endings('a')).toEqual({ client_error: 1 });
});

test('an upgrade with no upstream to take it is 503', async () => {
  await using rig = await Rig.start();
  const client = new RawClient(rig.proxy.port);
  client.send('GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n');
  await until(() => client.closed);
  expect(client.received).toMatch(/^HTTP\/1\.1 503 /);
});

test('a client that leaves while its upgrade is waiting frees the slot', async () => {
  await using rig = await Rig.start();
  const backend = await rig.backend('a', () => {});
  let asked = false;
  backend.server.on('upgrade', (_req, socket) => {
    asked = true;
    socket.on('error', () => {});
  });
  const client = new RawClient(rig.proxy.port);
  client.send('GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n');
  await until(() => asked);
  expect(rig.active('a')).toBe(1);
  client.socket.end();
  await until(() => rig.active('a') === 0);
  expect(rig.endings('a')).toEqual({ client_gone: 1 });
});

test('h2c is not tunnelled: the request is answered as HTTP/1.1 and the plea goes no further', async () => {
  await using rig = await Rig.start();
  let headers: Record<string, unknown> = {};
  await rig.backend('a', (req, res) => {
    headers = req.headers;
    res.end('plain');
  });
  const client = new RawClient(rig.proxy.port);
  client.send(
    'GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n',
  );
  expect(await client.until(/plain/)).toMatch(/^HTTP\/1\.1 200 OK/);
  expect(headers).not.toHaveProperty('upgrade');
  expect(headers).not.toHaveProperty('http2-settings');
  client.socket.destroy();
});

/** An upstream that agrees to switch and then does what it is told. */
async function switching(rig: Rig, id: string, then: (socket: Socket) => void) {
  const backend = await rig.backend(id, (_req, res) => res.end());
  backend.server.on('upgrade', (_req, duplex) => {
    const socket = duplex as Socket;
    socket.on('error', () => {});
    socket.write('HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n');
    then(socket);
  });
  return backend;
}
const upgrading = 'GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n';

test('an upstream that stays when its client has gone is let go', async () => {
  await using rig = await Rig.start();
  await switching(rig, 'a', (socket) => {
    // It hears the end and says nothing.
    (socket as Socket & { allowHalfOpen: boolean }).allowHalfOpen = true;
    socket.resume();
  });
  const client = new RawClient(rig.proxy.port).send(upgrading);
  await client.until(/101 Switching/);
  expect(rig.active('a')).toBe(1);
  client.socket.end();
  await until(() => rig.active('a') === 0, 15_000);
  await until(() => rig.proxy.active === 0);
});

test('a tunnel of which one side takes nothing is cut after the idle time, one that is silent is not', async () => {
  await using rig = await Rig.start({ settings: { idleTimeoutMs: 400 } });
  await switching(rig, 'a', (socket) => {
    const chunk = Buffer.alloc(65_536);
    const more = () => {
      while (!socket.destroyed && socket.write(chunk));
    };
    socket.on('drain', more);
    more();
  });
  const stalled = new RawClient(rig.proxy.port);
  stalled.socket.removeAllListeners('data');
  stalled.socket.pause();
  stalled.send(upgrading);
  await until(() => rig.active('a') === 1);
  await until(() => rig.active('a') === 0, 15_000);

  await using quiet = await Rig.start({ settings: { idleTimeoutMs: 200 } });
  await switching(quiet, 'b', (socket) => socket.resume());
  const silent = new RawClient(quiet.proxy.port).send(upgrading);
  await silent.until(/101 Switching/);
  await sleep(900);
  expect(quiet.active('b')).toBe(1);
  silent.socket.destroy();
  await until(() => quiet.active('b') === 0);
});

test('a tunnel of which one side has said its last word goes on as long as the other one has something to say', async () => {
  await using rig = await Rig.start();
  await switching(rig, 'a', (socket) => {
    socket.resume();
    let ticks = 0;
    const timer = setInterval(() => {
      socket.write(++ticks < 14 ? 'tick ' : 'the end');
      if (ticks === 14) socket.end();
      if (ticks === 14) clearInterval(timer);
    }, 500);
  });
  const client = new RawClient(rig.proxy.port).send(upgrading);
  await client.until(/101 Switching/);
  client.socket.end();
  // Longer than silence would be allowed.
  await until(() => client.received.includes('the end'), 15_000);
  await until(() => rig.active('a') === 0);
});
