import { createHash } from 'node:crypto';
import { get as httpGet, type IncomingMessage } from 'node:http';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { wholeChunks } from '../../src/proxy/upstream-pool.ts';
import { RawClient, Rig, sleep, until } from './rig.ts';

/** The same, said as a grammar. */
function bodyBytes(text: string): number {
  let rest = text;
  let total = 0;
  while (rest !== '') {
    const size = /^([0-9a-fA-F]{1,4})\r\n/.exec(rest);
    if (size === null) return -1;
    const bytes = Number.parseInt(size[1]!, 16);
    const end = size[0].length + bytes;
    if (bytes === 0 || rest.length < end + 2 || rest.slice(end, end + 2) !== '\r\n') return -1;
    total += bytes;
    rest = rest.slice(end + 2);
  }
  return total > 0 ? total : -1;
}

test('whole chunks are known by their grammar, and nothing else passes for them', () => {
  const chunk = fc
    .tuple(fc.string({ minLength: 1, maxLength: 30 }), fc.constantFrom(1, 2, 4, 5), fc.boolean())
    .map(([body, width, upper]) => {
      const bytes = Buffer.from(body).toString('latin1');
      const size = bytes.length.toString(16).padStart(width, '0');
      return `${upper ? size.toUpperCase() : size}\r\n${bytes}\r\n`;
    });
  const text = fc
    .tuple(fc.array(chunk, { maxLength: 4 }), fc.nat(200), fc.nat(3), fc.nat(255))
    .map(([all, where, what, byte]) => {
      const whole = all.join('');
      const at = where % (whole.length + 1);
      if (what === 0) return whole;
      if (what === 1) return whole.slice(0, at);
      return whole.slice(0, at) + String.fromCharCode(byte) + whole.slice(what === 2 ? at : at + 1);
    });
  fc.assert(
    fc.property(text, fc.nat(5), (one, before) => {
      const bytes = Buffer.from('7'.repeat(before) + one, 'latin1');
      expect(wholeChunks(bytes, before, bytes.length)).toBe(bodyBytes(one));
    }),
    { numRuns: 20_000 },
  );
  for (const one of [
    '',
    '0\r\n\r\n',
    '1\r\na\r\n0\r\n\r\n',
    '1;x\r\na\r\n',
    '1\na\n',
    '00001\r\na\r\n',
    ' 1\r\na\r\n',
    '1',
    '1\r\na\r',
  ])
    expect(wholeChunks(Buffer.from(one), 0, one.length), JSON.stringify(one)).toBe(-1);
});

const event = (n: number) => `data: ${JSON.stringify({ n, pad: 'x'.repeat(n % 800) })}\n\n`;

test('events that a client takes slowly arrive as they were, and what it does not take waits at the upstream', async () => {
  await using rig = await Rig.start();
  const sent = createHash('sha256');
  let written = 0;
  let waits = 0;
  await rig.backend('a', async (_req, res) => {
    res.writeHead(200, { 'content-type': 'text/event-stream' });
    for (let n = 0; n < 60_000; n++) {
      const text = event(n);
      sent.update(text);
      written += text.length;
      if (!res.write(text)) {
        waits++;
        await new Promise((resolve) => res.once('drain', resolve));
      }
      if (n % 50 === 0) await new Promise(setImmediate);
    }
    res.end();
  });
  const got = createHash('sha256');
  // Nobody listens to it, so nothing is read from its connection.
  const response = await new Promise<IncomingMessage>((resolve) => httpGet(rig.url, { agent: false }, resolve));
  let before = -1;
  while (before !== written || written === 0) {
    before = written;
    await sleep(150);
  }
  let reads = 0;
  for await (const chunk of response) {
    got.update(chunk as Buffer);
    if (++reads % 40 === 0) await sleep(10);
  }
  expect(waits).toBeGreaterThan(0);
  expect(before).toBeLessThan(written);
  expect(got.digest('hex')).toBe(sent.digest('hex'));
  const [request] = await rig.reported(1);
  expect(request).toMatchObject({ cause: 'complete', bytesOut: written });
  expect(rig.active('a')).toBe(0);
});

test.each(['destroyed', 'reset'])(
  'a stream of events whose upstream is %s between two of them breaks off',
  async (how) => {
    await using rig = await Rig.start();
    await rig.backend('a', async (_req, res) => {
      res.writeHead(200, { 'content-type': 'text/event-stream' });
      for (let n = 0; n < 5; n++) {
        res.write(event(n));
        await sleep(15);
      }
      if (how === 'reset') res.socket?.resetAndDestroy();
      else res.socket?.destroy();
    });
    const client = new RawClient(rig.proxy.port).send('GET / HTTP/1.1\r\nHost: x\r\n\r\n');
    await until(() => client.closed);
    expect(client.received).toContain(event(4));
    expect(client.received.endsWith('0\r\n\r\n')).toBe(false);
    expect(rig.endings('a')).toEqual({ truncated: 1 });
    expect(rig.active('a')).toBe(0);
  },
);
