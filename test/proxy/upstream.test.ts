import { type AddressInfo, createServer, type Server, type Socket } from 'node:net';
import { afterEach, expect, test } from 'vitest';
import { readAnswerHead } from '../../src/proxy/answer-head.ts';
import { RawClient, Rig, sleep, until } from './rig.ts';

const servers: Server[] = [];
const sockets = new Set<Socket>();
afterEach(() => {
  for (const socket of sockets) socket.destroy();
  for (const server of servers.splice(0)) server.close();
});

/** An upstream that speaks bytes. `answer` gets everything that has come in on the connection since the last answer. */
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
      if (!got.includes('\r\n\r\n')) return;
      const request = got;
      got = '';
      answer(socket, request, connection);
    });
  });
  servers.push(server);
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

const get = 'GET / HTTP/1.1\r\nHost: x\r\n\r\n';

/** What a client gets for one request to an upstream that answers `text`. */
async function ask(text: string, request = get): Promise<{ received: string; endings: object; status: number }> {
  await using rig = await Rig.start({ balancer: { ejectAfterFailures: 100 } });
  rig.join('a', await raw((socket) => socket.write(text, 'latin1')));
  const client = new RawClient(rig.proxy.port).send(request);
  await until(() => client.closed || /HTTP\/1\.1 [2-9]\d\d[\s\S]*\r\n\r\n/.test(client.received));
  await until(() => rig.active('a') === 0);
  client.socket.destroy();
  return {
    received: client.received,
    endings: rig.endings('a'),
    status: Number(/HTTP\/1\.1 ([2-9]\d\d)/.exec(client.received)?.[1]),
  };
}

test('an answer whose end could be read in two ways is 502 and nothing of it passes', async () => {
  const answers = [
    'HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok',
    'HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nokk',
    'HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\nok',
    'HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nok',
    'HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n',
    'HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n',
    'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n',
    'HTTP/1.1 200 OK\r\nContent-Length : 2\r\n\r\nok',
    'HTTP/1.1 200 OK\r\nX-A: 1\r\n folded: 2\r\nContent-Length: 2\r\n\r\nok',
    'HTTP/1.1 200 OK\r\nX-A: 1\nX-B: 2\r\nContent-Length: 2\r\n\r\nok',
    'HTTP/1.1 200 OK\r\nX-A: 1\rX-B: 2\r\nContent-Length: 2\r\n\r\nok',
    'HTTP/1.1 200 OK\r\nX-A: a\0b\r\nContent-Length: 2\r\n\r\nok',
    'HTTP/1.1 200 OK\r\nno colon\r\nContent-Length: 2\r\n\r\nok',
    'HTTP/1.1 20 OK\r\nContent-Length: 2\r\n\r\nok',
    'HTTP/1.1 099 OK\r\nContent-Length: 2\r\n\r\nok',
    ' HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok',
    'HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n',
    'HTTP/1.1 101 Switching Protocols\r\nContent-Length: 2\r\n\r\nok',
    `HTTP/1.1 200 OK\r\nX-Big: ${'y'.repeat(100_000)}\r\nContent-Length: 2\r\n\r\nok`,
  ];
  for (const answer of answers) {
    const { status, received, endings } = await ask(answer);
    expect([answer.slice(0, 100), status]).toEqual([answer.slice(0, 100), 502]);
    expect(received).not.toContain('\r\n\r\nok');
    expect(endings).toEqual({ refused: 1 });
  }
});

test('a body that breaks the rules of chunks is cut, never ended', async () => {
  for (const body of [
    '2\r\nokX',
    '2\r\nok\r\nZZ\r\n',
    '2;x\nok\r\n',
    '-2\r\nok\r\n',
    '\r\n',
    'fffffffffffffffff\r\nx',
    '2\nok',
  ]) {
    const { received, endings } = await ask(`HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n.\r\n${body}`);
    expect(received).toContain('200 OK');
    expect(received).not.toMatch(/0\r\n\r\n$/);
    expect(endings).toEqual({ truncated: 1 });
  }
});

test('chunks pass whatever pieces they arrive in, extensions stay behind', async () => {
  const text =
    'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n' +
    '5\r\nhello\r\n1;name="v;w"\r\n,\r\n00B\r\n 0123456789\r\nA\r\nabcdefghij\r\n0\r\nX-Sum: 7\r\nContent-Type: x\r\n\r\n';
  await using rig = await Rig.start();
  let size = 1;
  const origin = await raw(async (socket) => {
    const step = size;
    for (let at = 0; at < text.length; at += step) {
      socket.write(text.slice(at, at + step), 'latin1');
      if (step < 60) await new Promise(setImmediate);
    }
  });
  rig.join('a', origin);
  for (size of [1, 2, 3, 7, 61, 1000]) {
    const client = new RawClient(rig.proxy.port).send(get);
    await client.until(/\r\n0\r\n(?:.+\r\n)*\r\n$/);
    const [, body = ''] = client.received.split('\r\n\r\n', 2);
    let rest = body;
    let decoded = '';
    for (let end = rest.indexOf('\r\n'); end !== -1; end = rest.indexOf('\r\n')) {
      const length = Number.parseInt(rest.slice(0, end), 16);
      if (length === 0) break;
      expect(rest.slice(0, end)).toMatch(/^[0-9a-f]+$/i);
      decoded += rest.slice(end + 2, end + 2 + length);
      rest = rest.slice(end + 4 + length);
    }
    expect(decoded).toBe('hello, 0123456789abcdefghij');
    expect(client.received.toLowerCase()).toMatch(/0\r\nx-sum: 7\r\n\r\n$/);
    client.socket.destroy();
  }
  await until(() => rig.active('a') === 0);
  expect(rig.endings('a')).toEqual({ complete: 6 });
});

test('an answer that ends with its connection is whole when it was closed, and broken when it was reset', async () => {
  await using rig = await Rig.start();
  const origin = await raw((socket, request) => {
    socket.write('HTTP/1.1 200 OK\r\n\r\nuntil the end');
    setTimeout(() => (request.includes('/reset') ? socket.resetAndDestroy() : socket.end()), 40);
  });
  rig.join('a', origin);
  const closed = new RawClient(rig.proxy.port).send(get);
  await closed.until(/until the end\r\n0\r\n\r\n$/);
  const reset = new RawClient(rig.proxy.port).send(get.replace('/', '/reset'));
  await until(() => reset.closed);
  expect(reset.received).toContain('until the end');
  expect(reset.received).not.toMatch(/0\r\n\r\n$/);
  expect(rig.endings('a')).toEqual({ complete: 1, truncated: 1 });
  closed.socket.destroy();
});

test('100 Continue that nobody asked for is passed over, other 1xx pass', async () => {
  const { received } = await ask(
    'HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok',
  );
  expect(received).not.toContain(' 100 ');
  expect(received).toMatch(
    /^HTTP\/1\.1 102 [\s\S]*HTTP\/1\.1 103 [\s\S]*link: <\/a>[\s\S]*HTTP\/1\.1 200 OK[\s\S]*ok$/,
  );
});

test('204 goes without a length, 304 and answers to HEAD keep theirs', async () => {
  expect((await ask('HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n')).received).not.toMatch(/content-length/i);
  expect((await ask('HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n')).received).toMatch(/content-length: 5/i);
  const head = await ask('HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n', 'HEAD / HTTP/1.1\r\nHost: x\r\n\r\n');
  expect(head.received).toMatch(/content-length: 5/i);
});

test('bytes beyond the end of an answer never reach a client, and their connection is not used again', async () => {
  await using rig = await Rig.start();
  const used: number[] = [];
  const origin = await raw((socket, _request, connection) => {
    used.push(connection);
    socket.write('HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil');
  });
  rig.join('a', origin);
  for (let i = 0; i < 3; i++) expect(await (await fetch(rig.url)).text()).toBe('ok');
  expect(used).toEqual([1, 2, 3]);
});

test('bytes on an idle connection close it', async () => {
  await using rig = await Rig.start();
  const used: number[] = [];
  const origin = await raw((socket, _request, connection) => {
    used.push(connection);
    socket.write('HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok');
    setTimeout(() => socket.write('HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil'), 30);
  });
  rig.join('a', origin);
  expect(await (await fetch(rig.url)).text()).toBe('ok');
  await sleep(120);
  expect(await (await fetch(rig.url)).text()).toBe('ok');
  expect(used).toEqual([1, 2]);
});

test('an idle connection that is closed just as it is used again costs nobody anything', async () => {
  await using rig = await Rig.start();
  let requests = 0;
  const origin = await raw((socket, _request, connection) => {
    requests++;
    // The second request on a connection finds it closed.
    if (requests % 2 === 0 && connection === requests / 2) socket.destroy();
    else socket.write('HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok');
  });
  rig.join('a', origin);
  for (let i = 0; i < 4; i++) {
    const answer = await fetch(rig.url, { method: 'POST', body: 'x' });
    expect([answer.status, await answer.text()]).toEqual([200, 'ok']);
  }
  expect(requests).toBeGreaterThan(4);
  expect(rig.endings('a')).toEqual({ complete: 4 });
});

test('a connection is not kept longer than the upstream says it will be', async () => {
  await using rig = await Rig.start();
  const used: number[] = [];
  const origin = await raw((socket, _request, connection) => {
    used.push(connection);
    socket.write('HTTP/1.1 200 OK\r\nKeep-Alive: timeout=1\r\nContent-Length: 2\r\n\r\nok');
  });
  rig.join('a', origin);
  for (let i = 0; i < 2; i++) await (await fetch(rig.url)).text();
  expect(used).toEqual([1, 2]);
});

test('an HTTP/1.0 upstream is understood, with a connection that stays and with one that goes', async () => {
  await using rig = await Rig.start();
  const used: number[] = [];
  const origin = await raw((socket, request, connection) => {
    used.push(connection);
    if (request.startsWith('GET /stay')) {
      socket.write('HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 4\r\n\r\nstay');
    } else socket.end('HTTP/1.0 200 OK\r\n\r\ngo');
  });
  rig.join('a', origin);
  for (const path of ['stay', 'stay', 'go', 'stay']) {
    expect(await (await fetch(`${rig.url}/${path}`)).text()).toBe(path);
  }
  expect(used).toEqual([1, 1, 1, 2]);
});

test('with one upstream alone, no first byte in time is 504 also for a request that may be repeated', async () => {
  await using rig = await Rig.start({ settings: { firstByteTimeoutMs: 200 } });
  rig.join('a', await raw(() => {}));
  const answer = await fetch(rig.url);
  expect(answer.status).toBe(504);
  expect(await answer.json()).toMatchObject({ code: 'first_byte_timeout' });
  expect(rig.endings('a')).toEqual({ first_byte_timeout: 1 });
});

test('trailers of a request that carry keys or framing do not pass', async () => {
  await using rig = await Rig.start();
  let seen = '';
  rig.join(
    'a',
    await raw((socket, request) => {
      seen += request;
      if (request.includes('0\r\n')) socket.write('HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok');
    }),
  );
  const client = new RawClient(rig.proxy.port).send(
    'POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nTrailer: X-A, Authorization\r\n\r\n1\r\nz\r\n0\r\nX-A: 1\r\nAuthorization: Bearer secret\r\nX-API-Key: secret\r\n\r\n',
  );
  await client.until(/ok$/);
  expect(seen).toContain('X-A: 1');
  expect(seen).not.toContain('secret');
  client.socket.destroy();
});

test('heads are read the same whatever their order and number', () => {
  const head = readAnswerHead(200, 'f\ufffd', {
    'content-length': '7',
    connection: 'Close, X-Gone',
    'x-gone': '1',
    'set-cookie': ['a', 'b'],
    empty: '',
  });
  expect(head).toMatchObject({ status: 200, reason: '', contentLength: 7, chunked: false });
  expect(head?.passed).toEqual(['set-cookie', 'a', 'set-cookie', 'b', 'empty', '']);
  for (const name of ['constructor', 'toString']) {
    expect(readAnswerHead(200, '', { [name]: '1' })?.passed).toEqual([name, '1']);
  }
});
