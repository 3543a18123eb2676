import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { RawClient, Rig, readAll, until } from './rig.ts';

/**
 * Requests that are broken, ambiguous or meant to be read differently by two parsers in a row. For each: what the client
 * is answered, and that nothing of it, and above all no second request hidden in it, reaches the upstream.
 */
const h = 'Host: x\r\n';
const hidden = 'GET /hidden HTTP/1.1\r\nHost: x\r\n\r\n';
const post = 'POST /p HTTP/1.1\r\n';

const refused: Record<string, [request: string, status: number]> = {
  // --- two opinions about the length of a body ---
  'CL and TE': [`${post}${h}Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nX${hidden}`, 400],
  'TE and CL': [`${post}${h}Transfer-Encoding: chunked\r\nContent-Length: 6\r\n\r\n0\r\n\r\nX${hidden}`, 400],
  'CL 0 and TE': [`${post}${h}Content-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n`, 400],
  'two different CL': [`${post}${h}Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!`, 400],
  'two equal CL': [`${post}${h}Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello`, 400],
  'CL list': [`${post}${h}Content-Length: 5, 5\r\n\r\nhello`, 400],
  'CL list of two': [`${post}${h}Content-Length: 5, 6\r\n\r\nhello`, 400],
  'CL plus': [`${post}${h}Content-Length: +5\r\n\r\nhello`, 400],
  'CL minus': [`${post}${h}Content-Length: -5\r\n\r\nhello`, 400],
  'CL hex': [`${post}${h}Content-Length: 0x5\r\n\r\nhello`, 400],
  'CL with a blank in it': [`${post}${h}Content-Length: 1 0\r\n\r\nhellohello`, 400],
  'CL empty': [`${post}${h}Content-Length: \r\n\r\n`, 400],
  'CL letters': [`${post}${h}Content-Length: five\r\n\r\nhello`, 400],
  'CL float': [`${post}${h}Content-Length: 5.0\r\n\r\nhello`, 400],
  'CL beyond 64 bit': [`${post}${h}Content-Length: 99999999999999999999999\r\n\r\nhello`, 400],
  // --- transfer codings that one parser knows and another does not ---
  'TE identity': [`${post}${h}Transfer-Encoding: identity\r\n\r\nhello`, 400],
  'TE gzip': [`${post}${h}Transfer-Encoding: gzip\r\n\r\nhello`, 400],
  'TE gzip, chunked': [`${post}${h}Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n`, 400],
  'TE chunked, gzip': [`${post}${h}Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n`, 400],
  'TE chunked, chunked': [`${post}${h}Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n`, 400],
  'TE twice': [`${post}${h}Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n`, 400],
  'TE twice, second unknown': [`${post}${h}Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n0\r\n\r\n`, 400],
  'TE xchunked': [`${post}${h}Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n`, 400],
  'TE quoted': [`${post}${h}Transfer-Encoding: "chunked"\r\n\r\n0\r\n\r\n`, 400],
  'TE with a vertical tab': [`${post}${h}Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n`, 400],
  'TE with a blank before the colon': [`${post}${h}Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n`, 400],
  'TE with a tab before the colon': [`${post}${h}Transfer-Encoding\t: chunked\r\n\r\n0\r\n\r\n`, 400],
  'TE folded': [`${post}${h}Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n`, 400],
  'TE in HTTP/1.0': [`POST /p HTTP/1.0\r\n${h}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n`, 400],
  // --- line ends ---
  'bare LF after the request line': [`GET /p HTTP/1.1\n${h}\r\n`, 400],
  'bare LF after a header': [`GET /p HTTP/1.1\r\nHost: x\nX-A: b\r\n\r\n`, 400],
  'bare LF at the end of the headers': [`GET /p HTTP/1.1\r\n${h}\n`, 400],
  'bare LF everywhere': ['GET /p HTTP/1.1\nHost: x\n\n', 400],
  'bare CR in a header value': [`GET /p HTTP/1.1\r\n${h}X-A: a\rb\r\n\r\n`, 400],
  'bare CR as a line end': [`GET /p HTTP/1.1\r\n${h}X-A: a\rTransfer-Encoding: chunked\r\n\r\n`, 400],
  'CR CR LF': [`GET /p HTTP/1.1\r\n${h}X-A: a\r\r\n\r\n`, 400],
  'obs-fold with a blank': [`GET /p HTTP/1.1\r\n${h}X-A: a\r\n b\r\n\r\n`, 400],
  'obs-fold with a tab': [`GET /p HTTP/1.1\r\n${h}X-A: a\r\n\tb\r\n\r\n`, 400],
  'fold before the first header': [`GET /p HTTP/1.1\r\n X-A: a\r\n${h}\r\n`, 400],
  // --- header names and values ---
  'blank in a header name': [`GET /p HTTP/1.1\r\n${h}X A: b\r\n\r\n`, 400],
  'blank before the colon': [`GET /p HTTP/1.1\r\n${h}X-A : b\r\n\r\n`, 400],
  'no colon': [`GET /p HTTP/1.1\r\n${h}X-A\r\n\r\n`, 400],
  'empty header name': [`GET /p HTTP/1.1\r\n${h}: b\r\n\r\n`, 400],
  'NUL in a header value': [`GET /p HTTP/1.1\r\n${h}X-A: a\x00b\r\n\r\n`, 400],
  'NUL in a header name': [`GET /p HTTP/1.1\r\n${h}X\x00A: b\r\n\r\n`, 400],
  'DEL in a header value': [`GET /p HTTP/1.1\r\n${h}X-A: a\x7fb\r\n\r\n`, 400],
  'control character in a header value': [`GET /p HTTP/1.1\r\n${h}X-A: a\x01b\r\n\r\n`, 400],
  'letter beyond ASCII in a header name': [`GET /p HTTP/1.1\r\n${h}X-\xe4: b\r\n\r\n`, 400],
  'bracket in a header name': [`GET /p HTTP/1.1\r\n${h}X[A]: b\r\n\r\n`, 400],
  // --- Host ---
  'two Hosts': [`GET /p HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n`, 400],
  'two equal Hosts': [`GET /p HTTP/1.1\r\nHost: x\r\nHost: x\r\n\r\n`, 400],
  'no Host': ['GET /p HTTP/1.1\r\nX-A: b\r\n\r\n', 400],
  'Host with a path': ['GET /p HTTP/1.1\r\nHost: x/y\r\n\r\n', 400],
  'Host with a user': ['GET /p HTTP/1.1\r\nHost: a@x\r\n\r\n', 400],
  'Host with a blank': ['GET /p HTTP/1.1\r\nHost: x y\r\n\r\n', 400],
  'Host with a bad port': ['GET /p HTTP/1.1\r\nHost: x:port\r\n\r\n', 400],
  // --- request line ---
  'unknown method': [`FOO /p HTTP/1.1\r\n${h}\r\n`, 400],
  'method in lower case': [`get /p HTTP/1.1\r\n${h}\r\n`, 400],
  'method with a tab': [`GET\t/p HTTP/1.1\r\n${h}\r\n`, 400],
  'blank in the target': [`GET /p q HTTP/1.1\r\n${h}\r\n`, 400],
  'NUL in the target': [`GET /p\x00q HTTP/1.1\r\n${h}\r\n`, 400],
  'tab in the target': [`GET /p\tq HTTP/1.1\r\n${h}\r\n`, 400],
  'fragment in the target': [`GET /p#q HTTP/1.1\r\n${h}\r\n`, 400],
  'target without a slash': [`GET p HTTP/1.1\r\n${h}\r\n`, 400],
  'absolute-form target': [`GET http://169.254.169.254/latest/meta-data HTTP/1.1\r\n${h}\r\n`, 400],
  'absolute-form target with https': [`GET https://example.com/ HTTP/1.1\r\n${h}\r\n`, 400],
  'asterisk target': [`OPTIONS * HTTP/1.1\r\n${h}\r\n`, 400],
  'authority target': [`CONNECT example.com:443 HTTP/1.1\r\n${h}\r\n`, 405],
  'no version': [`GET /p\r\n${h}\r\n`, 400],
  'HTTP/0.9 style': ['GET /p\r\n\r\n', 400],
  'HTTP/2 version': [`GET /p HTTP/2.0\r\n${h}\r\n`, 400],
  'HTTP/1.2 version': [`GET /p HTTP/1.2\r\n${h}\r\n`, 400],
  'HTTP/1.10 version': [`GET /p HTTP/1.10\r\n${h}\r\n`, 400],
  'lower-case http': [`GET /p http/1.1\r\n${h}\r\n`, 400],
  'HTTP/2 preface': ['PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n', 400],
  'TLS hello': ['\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n', 400],
  // --- size ---
  'header block too large': [`GET /p HTTP/1.1\r\n${h}X-A: ${'a'.repeat(40_000)}\r\n\r\n`, 431],
  'request line too large': [`GET /${'a'.repeat(40_000)} HTTP/1.1\r\n${h}\r\n`, 431],
  'too many headers': [`GET /p HTTP/1.1\r\n${h}${'A: b\r\n'.repeat(200)}\r\n`, 431],
  // --- coming round again ---
  'a loop of proxies': [`GET /p HTTP/1.1\r\n${h}Via: ${Array(9).fill('1.1 gpuproxy').join(', ')}\r\n\r\n`, 508],
};

/** Broken only after the headers: the upstream may see the request, but never a whole one, and never the hidden one. */
const brokenBody: Record<string, string> = {
  'chunk size not hex': `zz\r\nhello\r\n0\r\n\r\n${hidden}`,
  'chunk size negative': `-5\r\nhello\r\n0\r\n\r\n${hidden}`,
  'chunk size with 0x': `0x5\r\nhello\r\n0\r\n\r\n${hidden}`,
  'chunk size beyond 64 bit': `ffffffffffffffff1\r\nhello\r\n0\r\n\r\n${hidden}`,
  'chunk size empty': `\r\nhello\r\n0\r\n\r\n${hidden}`,
  'chunk size with a blank': `5 \r\nhello\r\n0\r\n\r\n${hidden}`,
  'chunk size with a leading blank': ` 5\r\nhello\r\n0\r\n\r\n${hidden}`,
  'chunk longer than said': `5\r\nhello!\r\n0\r\n\r\n${hidden}`,
  'chunk without its CRLF': `5\r\nhello0\r\n\r\n${hidden}`,
  'chunk ended by a bare LF': `5\nhello\r\n0\r\n\r\n${hidden}`,
  'chunk data ended by a bare LF': `5\r\nhello\n0\r\n\r\n${hidden}`,
  'chunk extension with a bare LF': `5;a\nhello\r\n0\r\n\r\n${hidden}`,
  'trailer with a bare LF': `5\r\nhello\r\n0\r\nX: y\n\r\n`,
  'trailer folded': `5\r\nhello\r\n0\r\nX: y\r\n z\r\n\r\n`,
  'endless chunk extension': `5;${'a'.repeat(70_000)}\r\nhello\r\n0\r\n\r\n${hidden}`,
};

/** Odd, but nobody can take them for something else: they go on in plain spelling. */
const tolerated: Record<string, string> = {
  'two blanks before the target': `GET  /p HTTP/1.1\r\n${h}\r\n`,
  'empty lines before the request': `\r\n\r\nGET /p HTTP/1.1\r\n${h}\r\n`,
  'blanks around a header value': `GET /p HTTP/1.1\r\nHost: \t x \t\r\n\r\n`,
  'TE in capitals': `${post}${h}TRANSFER-ENCODING: Chunked\r\n\r\n0\r\n\r\n`,
  'leading zeros of a chunk size': `${post}${h}Transfer-Encoding: chunked\r\n\r\n0005\r\nhello\r\n0\r\n\r\n`,
  'chunk extension': `${post}${h}Transfer-Encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n0\r\n\r\n`,
  'leading zeros of CL': `${post}${h}Content-Length: 0005\r\n\r\nhello`,
};

let rig: Rig;
const seen: { url: string; whole: boolean }[] = [];
let strictPort = 0;
const strict = createServer((req, res) => {
  readAll(req).then(
    () => res.end(),
    () => {},
  );
});

beforeAll(async () => {
  rig = await Rig.start();
  await rig.backend('a', (req, res) => {
    const one = { url: req.url ?? '', whole: false };
    seen.push(one);
    readAll(req).then(
      () => {
        one.whole = true;
        res.end('reached');
      },
      () => {},
    );
  });
  await new Promise<void>((resolve) => strict.listen(0, '127.0.0.1', resolve));
  strictPort = (strict.address() as AddressInfo).port;
});
afterAll(async () => {
  await rig.close();
  strict.closeAllConnections();
  strict.close();
});

test('the corpus is large enough to mean something', () => {
  expect(Object.keys(refused).length + Object.keys(brokenBody).length).toBeGreaterThanOrEqual(90);
});

test.each(Object.entries(refused))('refused without asking an upstream: %s', async (_name, [request, status]) => {
  seen.length = 0;
  const client = new RawClient(rig.proxy.port);
  client.send(request);
  await until(() => client.closed || /^HTTP[\s\S]*\r\n\r\n/.test(client.received));
  expect(client.received).toMatch(new RegExp(`^HTTP/1\\.1 ${status} `));
  await until(() => client.closed);
  expect(client.received.match(/HTTP\/1\.1 \d/g)).toHaveLength(1);
  expect(seen).toEqual([]);
});

test.each(Object.entries(brokenBody))('never passed on as a whole request: %s', async (_name, body) => {
  seen.length = 0;
  const client = new RawClient(rig.proxy.port);
  client.send(`POST /p HTTP/1.1\r\n${h}Transfer-Encoding: chunked\r\n\r\n${body}`);
  await until(() => client.closed);
  if (client.received !== '') expect(client.received).toMatch(/^HTTP\/1\.1 4\d\d /);
  await until(() => rig.proxy.active === 0);
  expect(seen.filter((one) => one.whole || one.url === '/hidden')).toEqual([]);
});

test.each(Object.entries(tolerated))('passed on as exactly one request: %s', async (_name, request) => {
  seen.length = 0;
  const client = new RawClient(rig.proxy.port);
  client.send(request);
  expect(await client.until(/reached/)).toMatch(/^HTTP\/1\.1 200 /);
  client.socket.destroy();
  expect(seen).toEqual([{ url: '/p', whole: true }]);
});

test("where the proxy is stricter than node's strict parser, it is so on purpose", async () => {
  const stricter: string[] = [];
  for (const [name, [request]] of Object.entries(refused)) {
    const client = new RawClient(strictPort);
    client.send(request);
    await until(() => client.closed || /^HTTP[\s\S]*\r\n\r\n/.test(client.received));
    client.socket.destroy();
    if (/^HTTP\/1\.1 200 /.test(client.received)) stricter.push(name);
  }
  expect(stricter).toEqual([
    'TE gzip, chunked',
    'TE in HTTP/1.0',
    'two Hosts',
    'two equal Hosts',
    'Host with a path',
    'Host with a user',
    'Host with a blank',
    'Host with a bad port',
    'fragment in the target',
    'absolute-form target',
    'absolute-form target with https',
    'asterisk target',
    'no version',
    'HTTP/0.9 style',
    'HTTP/2 version',
    'too many headers',
    'a loop of proxies',
  ]);
});

test('slow headers are cut off with 408', async () => {
  await using slow = await Rig.start({ settings: { headersTimeoutMs: 400 } });
  const client = new RawClient(slow.proxy.port);
  client.send('GET / HTTP/1.1\r\nHost: x\r\n');
  await until(() => client.closed);
  expect(client.received).toMatch(/^HTTP\/1\.1 408 /);
});

test('an idle connection is closed after the keep-alive time', async () => {
  await using idle = await Rig.start({ settings: { keepAliveTimeoutMs: 200 } });
  const client = new RawClient(idle.proxy.port);
  client.send('GET / HTTP/1.1\r\nHost: x\r\n\r\n');
  await client.until(/503/);
  await until(() => client.closed);
});

test('connections beyond the limit are turned away, and there is room again when others leave', async () => {
  await using few = await Rig.start({ settings: { maxConnections: 2 } });
  const clients = [1, 2].map(() => new RawClient(few.proxy.port).send('GET / HTTP/1.1\r\nHost: x\r\n\r\n'));
  for (const client of clients) await client.until(/503/);
  const extra = new RawClient(few.proxy.port).send('GET / HTTP/1.1\r\nHost: x\r\n\r\n');
  await until(() => extra.closed);
  expect(extra.received).toBe('');
  clients[0]!.socket.destroy();
  let text = '';
  await until(() => {
    const again = new RawClient(few.proxy.port).send('GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n');
    again.socket.on('data', (chunk) => {
      text += chunk;
    });
    return text.includes('503');
  });
  clients[1]!.socket.destroy();
});
