import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, expect, test } from 'vitest';
import { AccessLog } from '../../src/proxy/access-log.ts';

const folder = mkdtempSync(join(tmpdir(), 'gpuproxy-access-log-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const text = fc.oneof(
  fc.string({ maxLength: 40 }),
  fc.string({ unit: 'binary', maxLength: 40 }),
  fc.constantFrom('"', '\\', '\x7f', '\n', 'ü', '\ud83d', ''),
  // Longer than what is handed over at once, plain and with every character escaped.
  fc.constantFrom('x'.repeat(70_000), 'ü'.repeat(20_000), `${'y'.repeat(64_000)}\n`),
);
const ms = fc.oneof(fc.double({ min: 0, max: 1e7, noNaN: true }), fc.constantFrom(0, 0.0004, 0.9996, 9.9999, 999.9996));
const count = fc.oneof(fc.nat(1_200), fc.constantFrom(2 ** 31, 2 ** 40, 9, 10, 99, 100, 999, 1_000));
const request = fc.record({
  at: fc.integer({ min: 1_700_000_000_000, max: 1_900_000_000_000 }),
  id: text,
  method: fc.constantFrom('GET', 'POST', 'M-SEARCH'),
  path: text,
  status: fc.integer({ min: 100, max: 999 }),
  cause: fc.constantFrom('complete', 'client_gone'),
  instance: fc.option(text),
  attempts: fc.nat(3),
  queueMs: ms,
  ttfbMs: fc.option(ms),
  totalMs: ms,
  bytesOut: count,
  model: fc.option(text),
});
const rest = fc.record({
  connectMs: fc.option(ms),
  bytesIn: count,
  client: fc.option(text),
  trace: fc.option(fc.constantFrom('0af7651916cd43dd8448eb211c80319c')),
});

const rounded = (value: number | null) => (value === null ? null : Math.round(value * 1000) / 1000);

test('every line is JSON in ASCII that reads back as what it was made of, whatever stands before it', async () => {
  let file = 0;
  await fc.assert(
    fc.asyncProperty(fc.array(fc.tuple(request, rest), { minLength: 1, maxLength: 6 }), async (all) => {
      const name = join(folder, `${file++}.log`);
      const log = new AccessLog(name);
      for (const [finished, { connectMs, bytesIn, client, trace }] of all) {
        const { queueMs, ttfbMs, totalMs } = finished;
        log.write(finished, { queueMs, connectMs, ttfbMs, totalMs }, { bytesIn, client, headers: { trace } });
      }
      log.writeUnread({ at: 0, id: 'a-1', status: 400, cause: 'malformed', bytesOut: 12, client: 'ü' });
      await log.close();
      const written = readFileSync(name, 'latin1');
      rmSync(name);
      expect(written).toMatch(/^[\n\x20-\x7f]*$/);
      const lines = written.split('\n');
      expect(lines.pop()).toBe('');
      expect(JSON.parse(lines.pop() as string)).toMatchObject({ id: 'a-1', client: 'ü', status: 400, path: null });
      expect(lines).toHaveLength(all.length);
      for (const [i, [finished, { connectMs, bytesIn, client, trace }]] of all.entries()) {
        expect(JSON.parse(lines[i] as string)).toEqual({
          time: new Date(finished.at).toISOString(),
          id: finished.id,
          method: finished.method,
          path: finished.path,
          status: finished.status,
          cause: finished.cause,
          instance: finished.instance,
          attempts: finished.attempts,
          queue_ms: rounded(finished.queueMs),
          connect_ms: rounded(connectMs),
          ttfb_ms: rounded(finished.ttfbMs),
          total_ms: rounded(finished.totalMs),
          bytes_in: bytesIn,
          bytes_out: finished.bytesOut,
          model: finished.model,
          client,
          ...(trace === null ? {} : { trace }),
        });
      }
    }),
    { numRuns: 150 },
  );
});
