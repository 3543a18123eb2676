import { type AddressInfo, createServer, type Server, type Socket } from 'node:net';
import { afterEach, expect, test } from 'vitest';
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

test('requests that come on one connection all at once go out one after the other', async () => {
  await using rig = await Rig.start();
  const seen: string[] = [];
  let open = 0;
  let mostOpen = 0;
  await rig.backend('a', (req, res) => {
    mostOpen = Math.max(mostOpen, ++open);
    seen.push(`${req.method} ${req.url}`);
    req.resume();
    setTimeout(() => {
      open--;
      res.end(`<${req.url}>`);
    }, 5);
  });
  const client = new RawClient(rig.proxy.port);
  let text = '';
  for (let i = 0; i < 60; i++) {
    text += i % 3 === 0 ? `PUT /${i} HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nput` : get(`/${i}`);
  }
  client.send(text);
  await client.until(/<\/59>/);
  expect(mostOpen).toBe(1);
  expect(seen).toEqual(Array.from({ length: 60 }, (_, i) => `${i % 3 === 0 ? 'PUT' : 'GET'} /${i}`));
  client.socket.destroy();
});

test('a client that sends requests and takes no answer has no more than one under way', async () => {
  await using rig = await Rig.start();
  let asked = 0;
  await rig.backend('a', (_req, res) => {
    asked++;
    res.end(Buffer.alloc(100_000));
  });
  const client = new RawClient(rig.proxy.port);
  client.socket.pause();
  client.send(get('/').repeat(2_000));
  let last = -1;
  await until(() => asked > 0);
  while (last !== asked) {
    last = asked;
    await sleep(150);
  }
  // What the sockets hold, and one.
  expect(asked).toBeLessThan(200);
  expect(rig.active('a')).toBeLessThanOrEqual(1);
  client.socket.destroy();
  await until(() => rig.proxy.active === 0);
});

const soundHead =
  /^HTTP\/1\.1 [1-9]\d\d [\t\x20-\x7e\x80-\xff]*(?:\r\n[!#$%&'*+.^_`|~\w-]+: [\t\x20-\x7e\x80-\xff]*)*$/;

test('no head of an upstream, however it is made, becomes anything but a sound head', async () => {
  const ok = 'Content-Length: 2\r\n\r\nok';
  const heads: Record<string, string> = {};
  for (const status of ['000', '001', '099', '199', '299', '599', '600', '999', '20', '2000', ' 200', '-20', '2O0']) {
    heads[`status ${status}`] = `HTTP/1.1 ${status} OK\r\n${ok}`;
  }
  for (let byte = 0; byte < 256; byte++) {
    if (byte > 0x20 && byte < 0x7f && byte % 7 !== 0) continue;
    const char = String.fromCharCode(byte);
    heads[`byte ${byte} in a value`] = `HTTP/1.1 200 OK\r\nX-A: a${char}b\r\n${ok}`;
    heads[`byte ${byte} in a name`] = `HTTP/1.1 200 OK\r\nX${char}A: a\r\n${ok}`;
    heads[`byte ${byte} in the reason`] = `HTTP/1.1 200 O${char}K\r\n${ok}`;
    heads[`byte ${byte} in a hint`] = `HTTP/1.1 103 Hints\r\nX-A: a${char}b\r\n\r\nHTTP/1.1 200 OK\r\n${ok}`;
    heads[`byte ${byte} in the reason of a hint`] = `HTTP/1.1 103 H${char}s\r\n\r\nHTTP/1.1 200 OK\r\n${ok}`;
  }
  // As UTF-8, cut to one byte each, these are CR and LF.
  const cut = Buffer.from('\u010d\u010aX-Evil: yes\u010d\u010a').toString('latin1');
  heads['line breaks beyond latin1 in a value'] = `HTTP/1.1 200 OK\r\nX-A: ${cut}\r\n${ok}`;
  heads['line breaks beyond latin1 in the reason'] = `HTTP/1.1 200 ${cut}\r\n${ok}`;
  heads['line breaks beyond latin1 in a hint'] = `HTTP/1.1 103 Hints\r\nX-A: ${cut}\r\n\r\nHTTP/1.1 200 OK\r\n${ok}`;
  heads['a status that is no answer and then one'] = `HTTP/1.1 000 No\r\n\r\nHTTP/1.1 200 OK\r\n${ok}`;
  heads['a hint with a length'] = `HTTP/1.1 103 Hints\r\nContent-Length: 2\r\n\r\nHTTP/1.1 200 OK\r\n${ok}`;
  heads['names of every object'] = `HTTP/1.1 200 OK\r\n__proto__: a\r\nconstructor: b\r\n${ok}`;
  await using rig = await Rig.start({
    balancer: { ejectAfterFailures: 100_000 },
    settings: { firstByteTimeoutMs: 2_000 },
  });
  const names = Object.keys(heads);
  rig.join(
    'a',
    await raw((socket, request) => {
      socket.write(heads[names[Number(request.split(' ')[1]!.slice(1))]!]!, 'latin1');
      // What was begun and not ended ends here.
      setTimeout(() => socket.end(), 20);
    }),
  );
  const faults: string[] = [];
  let passed = 0;
  const ask = async (i: number) => {
    const client = new RawClient(rig.proxy.port).send(get(`/${i}`, 'Connection: close\r\n'));
    await until(() => client.closed);
    let text = client.received;
    for (;;) {
      const end = text.indexOf('\r\n\r\n');
      const head = end === -1 ? text : text.slice(0, end);
      if (end === -1 || !soundHead.test(head) || /evil/i.test(head.replace(/^x-a: .*$/im, ''))) {
        faults.push(`${names[i]}: ${JSON.stringify(client.received)}`);
        return;
      }
      text = text.slice(end + 4);
      if (/^HTTP\/1\.1 1/.test(head)) continue;
      const length = Number(/content-length: (\d+)/i.exec(head)?.[1]);
      if (text.length !== length) faults.push(`${names[i]}: ${JSON.stringify(client.received)}`);
      else if (text === 'ok') passed++;
      return;
    }
  };
  for (let i = 0; i < names.length; i += 20) {
    await Promise.all(names.slice(i, i + 20).map((_, j) => ask(i + j)));
  }
  expect(faults).toEqual([]);
  expect(passed).toBeGreaterThan(100);
  await until(() => rig.active('a') === 0);
}, 60_000);

test('a client that does not take the end of its answer is cut off after the idle time', async () => {
  await using rig = await Rig.start({ settings: { idleTimeoutMs: 300 } });
  await rig.backend('a', (_req, res) => res.end(Buffer.alloc(20_000)));
  const client = new RawClient(rig.proxy.port);
  client.socket.pause();
  // More than the sockets hold, each answer small enough to be ended at once.
  client.send(get('/').repeat(1_500));
  await until(() => rig.table.totals().total > 0);
  await until(() => rig.proxy.active === 0);
  await until(() => (rig.reports.at(-1)?.counters.causes.client_stalled ?? 0) > 0);
  client.socket.destroy();
});

test('an answer that was drained to ask elsewhere leaves nothing behind on its connection', async () => {
  await using rig = await Rig.start({ balancer: { ejectAfterFailures: 100 } });
  const used: number[] = [];
  rig.join(
    'a',
    await raw((socket, request, connection) => {
      used.push(connection);
      if (request.startsWith('GET /first')) {
        socket.write('HTTP/1.1 503 Busy\r\nContent-Length: 10\r\n\r\n01234');
        setTimeout(() => socket.write('56789'), 20);
        return;
      }
      socket.write('HTTP/1.1 200 OK\r\nContent-Length: 30\r\n\r\n');
      let left = 30;
      const more = () => {
        socket.write('x');
        if (--left > 0) setTimeout(more, 50);
      };
      more();
    }),
  );
  rig.join('b', await raw((socket) => socket.write('HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nb')));
  expect(await (await fetch(`${rig.url}/first`)).text()).toBe('b');
  await until(() => rig.table.totals().active === 0);
  await sleep(100);
  rig.leave('b');
  // Longer than an answer that nobody wants is drained.
  expect(await (await fetch(`${rig.url}/second`)).text()).toBe('x'.repeat(30));
  expect(used).toEqual([1, 1]);
});

test('what comes behind a request is never answered in its place, and takes nothing down', async () => {
  const upgrade = 'Connection: Upgrade\r\nUpgrade: websocket\r\n';
  const behind: Record<string, string> = {
    'an upgrade': get('/2', upgrade),
    CONNECT: 'CONNECT x:80 HTTP/1.1\r\nHost: x:80\r\n\r\n',
    'no HTTP': 'rubbish\r\n\r\n',
    'a head that never ends': 'GET / HTTP/1.1\r\nHost: x\r\n',
    'a head that is too large': get('/2', `X: ${'x'.repeat(40_000)}\r\n`),
    'an expectation': get('/2', 'Expect: a miracle\r\n'),
    'both lengths': 'POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n',
  };
  await using rig = await Rig.start({ settings: { headersTimeoutMs: 400 } });
  await rig.backend('a', (req, res) => void setTimeout(() => res.end(`<${req.url}>`), req.url === '/1' ? 700 : 0));
  for (const [name, text] of Object.entries(behind)) {
    const client = new RawClient(rig.proxy.port).send(get('/1') + text);
    await until(() => client.closed || client.received.includes('</1>'));
    // Its own answer, but for CONNECT, after which nobody listens for HTTP.
    if (name !== 'CONNECT') expect([name, client.received]).toEqual([name, expect.stringMatching(/^HTTP\/1\.1 200 /)]);
    else expect(client.received).toBe('');
    if (name === 'no HTTP') await until(() => client.closed);
    client.socket.destroy();
  }
  await until(() => rig.proxy.active === 0);
});

test('clients that break off wherever it hurts take nothing down', async () => {
  await using rig = await Rig.start({ balancer: { ejectAfterFailures: 100_000 } });
  await rig.backend('a', (req, res) => {
    req.on('error', () => {});
    req.resume();
    res.end(Buffer.alloc(req.url === '/big' ? 300_000 : 20));
  });
  const heads = [
    'CONNECT x:80 HTTP/1.1\r\nHost: x:80\r\n\r\n',
    'CONNECT x:80 HTTP/1.1\r\nHost: x:80\r\nContent-Length: 10\r\n\r\n',
    'rubbish\r\n\r\n',
    get('/', 'Connection: Upgrade\r\nUpgrade: websocket\r\n'),
    get('/', 'Expect: a miracle\r\n'),
    get('/', `X: ${'x'.repeat(40_000)}\r\n`),
    'POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 100000\r\n\r\n',
    get('/big'),
    get('/') + get('/big') + get('/'),
    'GET http://elsewhere/ HTTP/1.1\r\nHost: x\r\n\r\n',
  ];
  for (let round = 0; round < 12; round++) {
    await Promise.all(
      heads.map(async (head) => {
        const client = new RawClient(rig.proxy.port);
        await until(() => client.socket.readyState === 'open' || client.closed);
        client.send(head);
        if (round % 4 === 1) await sleep(round);
        if (round % 4 === 2) await until(() => client.received !== '' || client.closed);
        if (round % 4 === 3) client.socket.end();
        else client.socket.resetAndDestroy();
        await until(() => client.closed);
      }),
    );
  }
  expect(await (await fetch(rig.url)).arrayBuffer()).toHaveProperty('byteLength', 20);
  await until(() => rig.proxy.active === 0);
  expect(rig.active('a')).toBe(0);
});

test('a request with trailers whose client leaves is cut also while its connection is still to become one', async () => {
  await using rig = await Rig.start({ settings: { connectTimeoutMs: 60_000 } });
  let opened = 0;
  // It takes the connection and never says a word of TLS.
  const silent = createServer((socket) => {
    opened++;
    sockets.add(socket);
    socket.on('error', () => {});
    socket.on('close', () => sockets.delete(socket));
    socket.resume();
  });
  servers.push(silent);
  await new Promise<void>((resolve) => silent.listen(0, '127.0.0.1', resolve));
  rig.join('a', `https://127.0.0.1:${(silent.address() as AddressInfo).port}`);
  const client = new RawClient(rig.proxy.port);
  client.send('POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n4\r\nbody\r\n');
  await until(() => opened === 1);
  client.socket.destroy();
  await until(() => sockets.size === 0);
  await until(() => rig.proxy.active === 0);
  expect(rig.endings('a')).toEqual({ client_gone: 1 });
});
