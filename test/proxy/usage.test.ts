import { expect, test } from 'vitest';
import { ttfbBoundsMs } from '../../src/core/load-table.ts';
import { UsageTail } from '../../src/proxy/usage-tail.ts';
import { Rig, until } from './rig.ts';

/** What is read at the end of a body that came in pieces of a size. */
function read(body: string, size: number) {
  const bytes = Buffer.from(body);
  const tail = new UsageTail();
  for (let at = 0; at < bytes.length; at += size) tail.pushEnd(bytes.subarray(at, at + size));
  return tail.read();
}

const usage = '"usage": {"prompt_tokens": 12, "total_tokens": 42, "completion_tokens": 30}';
const long = 'x'.repeat(10_000);

test.each([
  [`{"choices":[{"text":"${long}"}],${usage},"prompt_logprobs":null}`, { promptTokens: 12, completionTokens: 30 }],
  [
    `data: {"text":"${long}","usage":null}\n\ndata: {"choices":[],${usage}}\n\ndata: [DONE]\n\n`,
    { promptTokens: 12, completionTokens: 30 },
  ],
  [`{"text":"${long}","usage":{"input_tokens":5,"output_tokens":6}}`, { promptTokens: 5, completionTokens: 6 }],
  [`{"embedding":[1],"usage":{"prompt_tokens":5,"total_tokens":5}}`, { promptTokens: 5, completionTokens: 0 }],
  [`{"text":"\\"usage\\": {\\"prompt_tokens\\": 99}"}`, null],
  [`{"usage":{"prompt_tokens":99999999999999999999}}`, null],
  [`{${usage},"text":"${long}"}`, null],
  ['{}', null],
])('the usage at the end of %.40s… is read, in whatever pieces it comes', (body, expected) => {
  for (const size of [1, 7, 100, 2048, 100_000]) expect(read(body, size), `pieces of ${size}`).toEqual(expected);
});

test('pieces that come with the framing of their chunks and pieces that come without it add up, wherever they meet', () => {
  const body = `{"choices":[],${usage}}`;
  for (let from = 1; from < body.length - 1; from += 3) {
    for (let to = from + 1; to < body.length; to += 5) {
      const tail = new UsageTail();
      const framed = [body.slice(from, to)].map((text) => `${text.length.toString(16)}\r\n${text}\r\n`).join('');
      tail.push(body.slice(0, from));
      tail.push(framed, true);
      tail.push(body.slice(to));
      expect(tail.read(), `${from} to ${to}`).toEqual({ promptTokens: 12, completionTokens: 30 });
    }
  }
});

test('an answer is held no longer than its end needs', () => {
  const tail = new UsageTail();
  for (let i = 0; i < 1000; i++) tail.pushEnd(Buffer.alloc(100, 'x'));
  tail.pushEnd(Buffer.from(`{${usage}}`));
  expect(tail.read()).toEqual({ promptTokens: 12, completionTokens: 30 });
});

test('tokens, durations and outcomes by upstream are reported', async () => {
  await using rig = await Rig.start();
  await rig.backend('a', (req, res) => {
    if (req.url === '/bad') res.writeHead(500, { 'content-type': 'application/json' }).end(`{${usage}}`);
    else if (req.url === '/stream') {
      res.writeHead(200, { 'content-type': 'text/event-stream' });
      res.write('data: {"choices":[{"delta":{"content":"hi"}}]}\n\n');
      setTimeout(() => res.end(`data: {"choices":[],${usage}}\n\ndata: [DONE]\n\n`), 20);
    } else res.writeHead(200, { 'content-type': 'application/json; charset=utf-8' }).end(`{"choices":[],${usage}}`);
  });
  const post = async (path: string) =>
    (
      await fetch(rig.url + path, { method: 'POST', body: '{}', headers: { 'content-type': 'application/json' } })
    ).text();
  await post('/json');
  await post('/stream');
  await post('/bad');
  await (await fetch(`${rig.url}/get`)).text();
  await until(() => rig.reports.at(-1)?.counters.requests === 4);
  const { counters, loopLagMs } = rig.reports.at(-1)!;
  expect(counters).toMatchObject({ promptTokens: 24, completionTokens: 60 });
  expect(counters.outcomes).toEqual([
    { instance: 'a', status: 200, cause: 'complete', count: 3 },
    { instance: 'a', status: 500, cause: 'complete', count: 1 },
  ]);
  expect(counters.durationHistogram).toHaveLength(ttfbBoundsMs.length + 1);
  expect(counters.durationHistogram?.reduce((a, b) => a + b, 0)).toBe(4);
  expect(loopLagMs).toBeGreaterThanOrEqual(0);
});
