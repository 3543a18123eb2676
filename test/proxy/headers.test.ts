import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { readRequestHeaders } from '../../src/proxy/headers.ts';
import { RawClient, Rig, until } from './rig.ts';

const told = [
  ['Host', 'api'],
  ['Forwarded', 'for=1.2.3.4'],
  ['X-Real-IP', '1.2.3.4'],
  ['X-Forwarded-For', '1.2.3.4'],
  ['X-Forwarded-Port', '443'],
  ['X-Forwarded-Prefix', '/admin'],
  ['X-Forwarded-Server', 'inside'],
  ['X_Forwarded_For', '1.2.3.4'],
  ['x_real_ip', '1.2.3.4'],
  ['X-Other', 'stays'],
  ['My_Own', 'stays'],
].flat();
const forwardOf = (trusted: boolean) => {
  const client = { address: '203.0.113.9', trusted, secure: false, oldHttp: false, httpVersion: '1.1' };
  const { forward } = readRequestHeaders(told, { maxHeaderCount: 100 }, client);
  return Object.fromEntries(Array.from({ length: forward.length / 2 }, (_, i) => [forward[2 * i], forward[2 * i + 1]]));
};

test('where a request came from is told by the proxy alone, unless the client is trusted', () => {
  expect(forwardOf(false)).toEqual({
    'x-other': 'stays',
    my_own: 'stays',
    'x-forwarded-for': '203.0.113.9',
    'x-forwarded-proto': 'http',
    'x-forwarded-host': 'api',
    via: '1.1 gpuproxy',
  });
  expect(forwardOf(true)).toMatchObject({
    forwarded: 'for=1.2.3.4',
    'x-real-ip': '1.2.3.4',
    'x-forwarded-for': '1.2.3.4, 203.0.113.9',
    'x-forwarded-port': '443',
  });
  // What some servers take for the same is not ours to vouch for.
  expect(Object.keys(forwardOf(true)).filter((name) => name.includes('_'))).toEqual(['my_own']);
});

test('a length that is no exact number is refused', () => {
  const client = { address: '::1', trusted: true, secure: false, oldHttp: false, httpVersion: '1.1' };
  const faultOf = (length: string) =>
    readRequestHeaders(['Host', 'a', 'Content-Length', length], { maxHeaderCount: 100 }, client).fault?.code;
  expect(faultOf('9007199254740991')).toBeUndefined();
  for (const length of ['9007199254740992', '18446744073709551615', '1e3', ''])
    expect(faultOf(length)).toBe('ambiguous_framing');
});

test('requests that cannot be read have their line in the access log, their count and their id too', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'gpuproxy-log-'));
  const file = join(folder, 'access.log');
  const rig = await Rig.start({ settings: { accessLog: file, headersTimeoutMs: 300 } });
  try {
    await rig.backend('a', (_req, res) => res.end('ok'));
    const asked = {
      malformed: ['nonsense\r\n\r\n', 400],
      headers_too_large: [`GET / HTTP/1.1\r\nHost: x\r\nX: ${'y'.repeat(100_000)}\r\n\r\n`, 431],
      request_timeout: ['GET / HTTP/1.1\r\nHost: x\r\n', 408],
      bad_expectation: ['GET / HTTP/1.1\r\nHost: x\r\nExpect: the worst\r\n\r\n', 417],
      method_not_allowed: ['CONNECT a:1 HTTP/1.1\r\nHost: x\r\n\r\n', 405],
    } as const;
    for (const [cause, [text, status]] of Object.entries(asked)) {
      const client = new RawClient(rig.proxy.port).send(text);
      await until(() => client.closed);
      expect(client.received, cause).toMatch(
        new RegExp(`^HTTP/1\\.1 ${status} [^]*\\r\\nx-request-id: \\S+\\r\\n[^]*"code":"${cause}"`),
      );
    }
    await (await fetch(rig.url)).text();
    await until(() => rig.reports.at(-1)?.counters.requests === 6);
    expect(rig.reports.at(-1)?.counters.causes).toMatchObject({ malformed: 1, request_timeout: 1, complete: 1 });
  } finally {
    await rig.close();
  }
  const lines = readFileSync(file, 'utf8')
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line));
  expect(lines.map(({ status }) => status)).toEqual([400, 431, 408, 417, 405, 200]);
  expect(lines[0]).toMatchObject({ method: null, path: null, cause: 'malformed', client: '127.0.0.1' });
  expect(Object.keys(lines[0])).toEqual(Object.keys(lines[5]));
  rmSync(folder, { recursive: true, force: true });
});
