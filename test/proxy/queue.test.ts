import { expect, test } from 'vitest';
import { monotonicMs } from '../../src/clock.ts';
import { createBalancer } from '../../src/core/balancer.ts';
import { LoadTable } from '../../src/core/load-table.ts';
import type { RunningProxy } from '../../src/proxy/create-proxy.ts';
import { echo, RawClient, Rig, until } from './rig.ts';

/** An upstream whose answers wait until they are let go, in the order in which they were asked. */
function gate() {
  const open: { url: string; release: () => void }[] = [];
  return {
    open,
    listener: (req: import('node:http').IncomingMessage, res: import('node:http').ServerResponse) => {
      open.push({ url: req.url ?? '', release: () => void res.end(req.url) });
    },
  };
}

const askFor = (url: string, model: string) =>
  fetch(`${url}/v1/completions`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ prompt: 'x', model }),
  });

test('at the ceiling requests wait their turn, first come first served', async () => {
  await using rig = await Rig.start();
  const { open, listener } = gate();
  await rig.backend('a', listener, { ceiling: 1 });
  const done: string[] = [];
  const answers = [];
  for (const path of ['/1', '/2', '/3', '/4']) {
    answers.push(fetch(rig.url + path).then(async (answer) => done.push(await answer.text())));
    const count = answers.length;
    await until(() => rig.proxy.active === count);
  }
  expect(open.map((one) => one.url)).toEqual(['/1']);
  for (let i = 0; i < 4; i++) {
    await until(() => open.length === i + 1);
    expect(rig.active('a')).toBe(1);
    open[i]!.release();
  }
  await Promise.all(answers);
  expect(done).toEqual(['/1', '/2', '/3', '/4']);
  const last = (await rig.reported(4)).find((request) => request.path === '/4')!;
  expect(last.queueMs).toBeGreaterThan(0);
  expect(last).toMatchObject({ attempts: 1, status: 200 });
});

test('the queue is bounded: one more gets 503 with Retry-After at once', async () => {
  await using rig = await Rig.start({ settings: { queueLimit: 2 } });
  const { open, listener } = gate();
  await rig.backend('a', listener, { ceiling: 1 });
  const waiting = [1, 2, 3].map((n) => fetch(`${rig.url}/${n}`));
  await until(() => rig.proxy.active === 3);
  const extra = await fetch(rig.url);
  expect(extra.status).toBe(503);
  expect(extra.headers.get('retry-after')).toBe('1');
  expect(await extra.json()).toMatchObject({ code: 'queue_full' });
  for (let i = 0; i < 3; i++) {
    await until(() => open.length === i + 1);
    open[i]!.release();
  }
  expect((await Promise.all(waiting)).map((answer) => answer.status)).toEqual([200, 200, 200]);
});

test('who waits longer than the deadline gets 503 with Retry-After', async () => {
  await using rig = await Rig.start({ settings: { queueTimeoutMs: 300 } });
  const { open, listener } = gate();
  await rig.backend('a', listener, { ceiling: 1 });
  const first = fetch(rig.url);
  await until(() => open.length === 1);
  const late = await fetch(rig.url);
  expect(late.status).toBe(503);
  expect(late.headers.get('retry-after')).toBe('1');
  expect(await late.json()).toMatchObject({ code: 'queue_timeout' });
  open[0]!.release();
  expect((await first).status).toBe(200);
  expect(rig.endings('a')).toEqual({ complete: 1 });
});

test('a queued client that leaves frees its place', async () => {
  await using rig = await Rig.start({ settings: { queueLimit: 1 } });
  const { open, listener } = gate();
  await rig.backend('a', listener, { ceiling: 1 });
  const first = fetch(rig.url);
  await until(() => open.length === 1);
  const leaver = new RawClient(rig.proxy.port);
  leaver.send('GET /left HTTP/1.1\r\nHost: x\r\n\r\n');
  await until(() => rig.proxy.active === 2);
  leaver.socket.destroy();
  await until(() => rig.proxy.active === 1);
  const next = fetch(`${rig.url}/next`);
  await until(() => rig.proxy.active === 2);
  open[0]!.release();
  await first;
  await until(() => open.length === 2);
  expect(open[1]!.url).toBe('/next');
  open[1]!.release();
  expect((await next).status).toBe(200);
});

test('room made by another thread, or by a new upstream, wakes those who wait', async () => {
  await using rig = await Rig.start();
  const { open, listener } = gate();
  const ref = rig.join('a', (await rig.backend('spare', listener, { running: false })).origin, { ceiling: 1 });
  // Another thread is another view of the same table.
  const other = createBalancer(new LoadTable(rig.table.buffer), { slowStartMs: 0 }, { thread: 5 });
  const lease = other.acquire(monotonicMs());
  if (typeof lease === 'string') throw new Error(lease);
  const waiting = fetch(rig.url);
  await until(() => rig.proxy.active === 1);
  expect(open).toHaveLength(0);
  lease.settle('complete', monotonicMs());
  await until(() => open.length === 1);
  const second = fetch(rig.url);
  await until(() => rig.proxy.active === 2);
  rig.table.setCeiling(ref, 2);
  await until(() => open.length === 2);
  for (const one of open) one.release();
  expect((await waiting).status).toBe(200);
  expect((await second).status).toBe(200);
});

test('the order is one over all threads: who came first to another thread goes first', async () => {
  await using rig = await Rig.start();
  const { open, listener } = gate();
  await rig.backend('a', listener, { ceiling: 1 });
  const other = await rig.otherThread();
  const answers: Promise<Response>[] = [];
  const asked: string[] = [];
  for (let i = 0; i < 12; i++) {
    // The first of the other thread comes when this one has nobody who waits, and finds a line all the same.
    const proxy = i % 3 === 1 ? other : rig.proxy;
    asked.push(`/${i}`);
    answers.push(fetch(`http://127.0.0.1:${proxy.port}/${i}`));
    await until(() => rig.proxy.active + other.active === i + 1);
  }
  for (let i = 0; i < 12; i++) {
    await until(() => open.length === i + 1);
    expect(rig.active('a')).toBe(1);
    open[i]!.release();
  }
  for (const answer of await Promise.all(answers)) expect(answer.status).toBe(200);
  expect(open.map(({ url }) => url)).toEqual(asked);
  await until(() => rig.active('a') === 0 && !rig.table.line(9).elsewhere);
});

test('a thread that does not come when it is called, or died, holds nobody up', async () => {
  await using rig = await Rig.start();
  const { open, listener } = gate();
  await rig.backend('a', listener, { ceiling: 1 });
  const first = fetch(rig.url);
  await until(() => open.length === 1);
  // Somebody waits in a thread that is busy with something else.
  const known = new Uint8Array(rig.table.capacity);
  known[rig.refs.get('a')!.row] = 1;
  const busy = rig.table.line(7);
  const onlooker = rig.table.line(9);
  busy.show(0, known, busy.ticket());
  const second = fetch(rig.url);
  await until(() => rig.proxy.active === 2);
  open[0]!.release();
  await until(() => open.length === 2);
  const third = fetch(rig.url);
  await until(() => rig.proxy.active === 2);
  rig.table.releaseThread(7);
  expect(onlooker.elsewhere).toBe(true);
  open[1]!.release();
  await until(() => open.length === 3);
  open[2]!.release();
  for (const answer of await Promise.all([first, second, third])) expect(answer.status).toBe(200);
  await until(() => !onlooker.elsewhere);
});

test('who is called, comes and does not go although it could, holds nobody up either', async () => {
  await using rig = await Rig.start();
  const { open, listener } = gate();
  await rig.backend('a', listener, { ceiling: 1 });
  const first = fetch(rig.url);
  await until(() => open.length === 1);
  const known = new Uint8Array(rig.table.capacity);
  known[rig.refs.get('a')!.row] = 1;
  const idle = rig.table.line(7);
  idle.show(0, known, idle.ticket());
  let calls = 0;
  let over = false;
  const come = (): Promise<void> =>
    idle.called().then(() => {
      calls++;
      idle.answer();
      return over ? undefined : come();
    });
  const coming = come();
  const second = fetch(rig.url);
  await until(() => rig.proxy.active === 2);
  open[0]!.release();
  await until(() => open.length === 2);
  expect(calls).toBeGreaterThan(0);
  // It stays passed over, and is no reason to look for room in vain.
  const third = fetch(rig.url);
  await until(() => rig.proxy.active === 2);
  open[1]!.release();
  await until(() => open.length === 3);
  open[2]!.release();
  for (const answer of await Promise.all([first, second, third])) expect(answer.status).toBe(200);
  over = true;
  rig.table.line(9).call(7);
  await coming;
  idle.clear();
});

/** Upstreams `a` for models m and k, `c` for k alone, each with room for one, and `b` for m, which refuses. Both of the first are taken. */
async function taken(rig: Rig, other: RunningProxy, url: string) {
  const [a, c] = [gate(), gate()];
  await rig.backend('a', a.listener, { ceiling: 1, models: ['m', 'k'] });
  await rig.backend('c', c.listener, { ceiling: 1, models: ['k'] });
  other.setDirectory([...rig.entries]);
  const held = [askFor(url, 'k'), askFor(url, 'k')];
  await until(() => a.open.length === 1 && c.open.length === 1);
  rig.join('b', 'http://127.0.0.1:1', { models: ['m'] });
  other.setDirectory([...rig.entries]);
  return { a, c, held };
}

for (const where of ['in another thread', 'in the same thread'] as const) {
  test(`a request on its second upstream keeps its turn before those who came later ${where}`, async () => {
    await using rig = await Rig.start();
    const other = await rig.otherThread();
    const otherUrl = `http://127.0.0.1:${(where === 'in another thread' ? other : rig.proxy).port}`;
    const { a, c, held } = await taken(rig, other, otherUrl);
    const again = askFor(`${rig.url}/again`, 'm');
    await until(() => rig.endings('b').refused === 1);
    const later = askFor(`${otherUrl}/later`, 'k');
    await until(() => rig.proxy.active + other.active === 4);
    a.open[0]!.release();
    await until(() => a.open.length === 2);
    expect(a.open[1]!.url).toMatch(/^\/again/);
    expect(c.open).toHaveLength(1);
    c.open[0]!.release();
    await until(() => c.open.length === 2);
    expect(c.open[1]!.url).toMatch(/^\/later/);
    for (const one of [a.open[1]!, c.open[1]!]) one.release();
    for (const answer of await Promise.all([...held, again, later])) expect(answer.status).toBe(200);
    await until(() => !rig.table.line(9).elsewhere);
  });
}

test('who waits for one of two upstreams does not hold up who can use the other', async () => {
  await using rig = await Rig.start();
  const other = await rig.otherThread();
  const { a, c, held } = await taken(rig, other, rig.url);
  const again = askFor(rig.url, 'm');
  await until(() => rig.endings('b').refused === 1);
  const passing = [askFor(rig.url, 'k'), askFor(`http://127.0.0.1:${other.port}`, 'k')];
  await until(() => rig.proxy.active + other.active === 5);
  for (let done = 0; done < 3; done++) {
    await until(() => c.open.length > done);
    expect(a.open).toHaveLength(1);
    c.open[done]!.release();
  }
  a.open[0]!.release();
  await until(() => a.open.length === 2);
  a.open[1]!.release();
  for (const answer of await Promise.all([...held, again, ...passing])) expect(answer.status).toBe(200);
});

test('the order holds over threads also for more kinds of waiting requests than a thread can show one by one', async () => {
  const kinds = 24;
  await using rig = await Rig.start({ settings: { queueLimit: 100 } });
  const other = await rig.otherThread({ queueLimit: 100 });
  const models = Array.from({ length: kinds }, (_, i) => `m${i}`);
  const wide = gate();
  await rig.backend('wide', wide.listener, { ceiling: 1, models });
  const narrow = gate();
  for (const model of models) await rig.backend(model, narrow.listener, { ceiling: 1, models: [model] });
  other.setDirectory([...rig.entries]);
  const urls = [rig.url, `http://127.0.0.1:${other.port}`];
  const answers = [askFor(rig.url, 'm0'), ...models.map((model) => askFor(rig.url, model))];
  await until(() => wide.open.length === 1 && narrow.open.length === kinds);
  const order: string[] = [];
  for (let i = 0; i < kinds; i++) {
    const model = `m${(i * 7) % kinds}`;
    const answer = askFor(urls[i % 2]!, model);
    answers.push(answer);
    void answer.then(() => order.push(model));
    await until(() => rig.proxy.active + other.active === kinds + 2 + i);
  }
  for (let i = 0; i <= kinds; i++) {
    await until(() => wide.open.length === i + 1);
    wide.open[i]!.release();
    await until(() => order.length === i);
  }
  for (const one of narrow.open) one.release();
  for (const answer of await Promise.all(answers)) expect(answer.status).toBe(200);
  expect(order).toEqual(models.map((_, i) => `m${(i * 7) % kinds}`));
});

test('one whose model is at its ceiling does not hold up the others', async () => {
  await using rig = await Rig.start();
  const small = gate();
  const large = gate();
  await rig.backend('small', small.listener, { ceiling: 1, models: ['small'] });
  await rig.backend('large', large.listener, { ceiling: 1, models: ['large'] });
  const ask = (model: string) =>
    fetch(`${rig.url}/v1/completions`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ prompt: 'x', model }),
    });
  const answers = [ask('small'), ask('small'), ask('large')];
  await until(() => small.open.length === 1 && large.open.length === 1);
  small.open[0]!.release();
  large.open[0]!.release();
  await until(() => small.open.length === 2);
  small.open[1]!.release();
  expect((await Promise.all(answers)).map((answer) => answer.status)).toEqual([200, 200, 200]);
});

test('however many wait for one model, who wants another or none at all goes past them, in every thread', async () => {
  await using rig = await Rig.start({ settings: { queueLimit: 500 } });
  const small = gate();
  await rig.backend('small', small.listener, { ceiling: 1, models: ['small'] });
  await rig.backend('large', echo, { ceiling: 1, models: ['large'] });
  const other = await rig.otherThread({ queueLimit: 500 });
  const otherUrl = `http://127.0.0.1:${other.port}`;
  const waiting = Array.from({ length: 161 }, (_, i) => askFor(i % 2 === 0 ? rig.url : otherUrl, 'small'));
  await until(() => rig.proxy.active + other.active === 161);
  for (const url of [rig.url, otherUrl]) {
    const passing = Array.from({ length: 6 }, (_, i) => (i % 2 === 0 ? askFor(url, 'large') : fetch(url)));
    for (const answer of await Promise.all(passing)) expect(answer.status).toBe(200);
  }
  // Those without a model may take the room of the one model too, once it is theirs to take.
  for (let done = 0; done < 161; done++) {
    await until(() => small.open.length > done);
    small.open[done]!.release();
  }
  for (const answer of await Promise.all(waiting)) expect(answer.status).toBe(200);
});

test('those who wait for models of one upstream in several threads go in the order in which they came', async () => {
  await using rig = await Rig.start();
  const { open, listener } = gate();
  await rig.backend('a', listener, { ceiling: 1, models: ['m', 'k'] });
  await rig.backend('b', echo, { ceiling: 1, models: ['n'] });
  const other = await rig.otherThread();
  const answers: Promise<Response>[] = [];
  for (let i = 0; i < 9; i++) {
    const url = `http://127.0.0.1:${(i % 3 === 1 ? other : rig.proxy).port}/${i}`;
    answers.push(
      fetch(url, { method: 'POST', headers: { 'content-type': 'application/json' }, body: '{"model":"m"}' }),
    );
    await until(() => rig.proxy.active + other.active === i + 1);
  }
  for (let i = 0; i < 9; i++) {
    await until(() => open.length === i + 1);
    open[i]!.release();
  }
  for (const answer of await Promise.all(answers)) expect(answer.status).toBe(200);
  expect(open.map(({ url }) => url)).toEqual(answers.map((_, i) => `/${i}`));
});

test('who waits for a model that leaves the fleet is told so, and never served by another', async () => {
  await using rig = await Rig.start();
  const { open, listener } = gate();
  let wrong = 0;
  await rig.backend('a', listener, { ceiling: 1, models: ['m'] });
  await rig.backend('b', (_req, res) => void res.end(String(++wrong)), { models: ['n'] });
  const answers = [askFor(rig.url, 'm'), askFor(rig.url, 'm'), askFor(rig.url, 'm')];
  await until(() => rig.proxy.active === 3);
  rig.leave('a');
  const found = await Promise.all(answers);
  expect(found.map((answer) => answer.status).sort()).toEqual([404, 404, 503]);
  expect(open.length).toBe(1);
  expect(wrong).toBe(0);
});

test('with nothing eligible the answer is 503 with Retry-After, without waiting', async () => {
  await using rig = await Rig.start();
  const answer = await fetch(rig.url);
  expect(answer.status).toBe(503);
  expect(answer.headers.get('retry-after')).toBe('1');
  expect(await answer.json()).toMatchObject({ code: 'no_upstream', title: 'Service Unavailable' });
});
