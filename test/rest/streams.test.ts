import { connect } from 'node:net';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { Snapshot } from '../../src/fleet/app.ts';
import { snapshot as snapshotSchema } from '../../src/rest/schemas.ts';
import { createFakeApp, type FakeApp, upstreamView } from '../helpers/fake-app.ts';
import { openSse, type Rest, startRest } from './harness.ts';

let app: FakeApp;
let rest: Rest;

beforeEach(async () => {
  app = createFakeApp({ upstreams: [upstreamView()] });
  rest = await startRest(app, { limits: { streams: 4 } });
});
afterEach(() => rest[Symbol.asyncDispose]());

const open = (path: string, headers: Record<string, string> = {}) =>
  openSse(rest.url, path, { 'x-api-key': rest.adminKey, ...headers });

describe('events', () => {
  test('a stream starts now and each message has its id, kind and body', async () => {
    app.emit({ message: 'before' });
    const reader = await open('/api/v1/events');
    expect(reader.headers['content-type']).toMatch(/^text\/event-stream/);
    expect(reader.headers['x-content-type-options']).toBe('nosniff');
    app.emit({ kind: 'strategy', message: 'switched', level: 'ok' });
    expect(await reader.next()).toEqual({
      id: '2',
      event: 'strategy',
      data: {
        id: 2,
        at: '2024-01-12T10:30:00.000Z',
        level: 'ok',
        kind: 'strategy',
        subject: null,
        message: 'switched',
      },
    });
    reader.close();
  });

  test('Last-Event-ID resumes after the last one that was seen, without loss and without repeats', async () => {
    for (let index = 0; index < 5; index++) app.emit({});
    const reader = await open('/api/v1/events', { 'last-event-id': '3' });
    app.emit({});
    const ids = [await reader.next(), await reader.next(), await reader.next()].map((message) => message.id);
    expect(ids).toEqual(['4', '5', '6']);
    reader.close();
  });

  test('last_event_id=0 gives all that are kept', async () => {
    app.emit({});
    app.emit({});
    const reader = await open('/api/v1/events?last_event_id=0');
    expect((await reader.next()).id).toBe('1');
    expect((await reader.next()).id).toBe('2');
    reader.close();
  });

  test('what is no longer kept is announced as a gap', async () => {
    for (let index = 0; index < 150; index++) app.emit({});
    const reader = await open('/api/v1/events', { 'last-event-id': '10' });
    expect(await reader.next()).toMatchObject({ event: 'gap', data: { missed: true } });
    expect((await reader.next()).id).toBe('51');
    reader.close();
  });

  test('an id of another ledger starts from the beginning', async () => {
    app.emit({});
    const reader = await open('/api/v1/events', { 'last-event-id': '900' });
    expect(await reader.next()).toMatchObject({ event: 'gap' });
    expect((await reader.next()).id).toBe('1');
    reader.close();
  });

  test('a Last-Event-ID that is none is 400', async () => {
    const reply = await rest.call('GET', '/api/v1/events', { headers: { 'last-event-id': 'x' } });
    expect(reply.status).toBe(400);
  });

  test('a reader that takes nothing is dropped, the others are not, and it resumes where it was', async () => {
    const slow = connect(rest.server.port, '127.0.0.1');
    slow.on('error', () => {});
    slow.write(`GET /api/v1/events HTTP/1.1\r\nHost: x\r\nX-API-Key: ${rest.adminKey}\r\n\r\n`);
    slow.pause();
    const good = await open('/api/v1/events');
    const total = 1500;
    const reading = (async () => {
      while ((await good.next()).id !== String(total));
    })();
    const message = 'x'.repeat(20_000);
    const closed = new Promise<void>((resolve) => slow.on('close', () => resolve()));
    for (let emitted = 0; emitted < total; emitted++) {
      app.emit({ message });
      if (emitted % 5 === 0) await new Promise((resolve) => setImmediate(resolve));
    }
    await reading;
    slow.resume();
    await closed;
    good.close();
  });

  test('a HEAD request opens no stream', async () => {
    const reply = await rest.call('HEAD', '/api/v1/events');
    expect(reply.status).toBe(200);
    expect(reply.text).toBe('');
  });

  test('open streams are bounded, and a place is free again when a reader leaves', async () => {
    const readers = await Promise.all([1, 2, 3, 4].map(() => open('/api/v1/events')));
    const refused = await rest.call('GET', '/api/v1/events');
    expect(refused.status).toBe(503);
    readers[0]?.close();
    await expect
      .poll(async () => {
        const reader = await open('/api/v1/events');
        reader.close();
        return reader.status;
      })
      .toBe(200);
    for (const reader of readers) reader.close();
  });
});

describe('state stream', () => {
  test('sends the snapshot at once and again after changes, at most four a second', async () => {
    const reader = await open('/api/v1/state/stream');
    const first = await reader.next();
    expect(first).toMatchObject({ id: '1', event: 'snapshot' });
    expect(snapshotSchema.parse(first.data)).toEqual(app.state.get());

    const startedAt = performance.now();
    for (let index = 0; index < 50; index++) app.change({ at: index });
    const second = (await reader.next()).data as Snapshot;
    expect(second.at).toBe(49);
    app.change({ at: 50 });
    app.change({ at: 51 });
    const third = (await reader.next()).data as Snapshot;
    expect(third.at).toBe(51);
    expect(performance.now() - startedAt).toBeGreaterThan(400);
    reader.close();
  });

  test('a slow reader misses snapshots and then gets the newest one', async () => {
    const reader = await open('/api/v1/state/stream');
    await reader.next();
    reader.pause();
    const upstreams = Array.from({ length: 2000 }, (_, index) => upstreamView({ id: `vast-${index}` }));
    for (let index = 1; index <= 8; index++) {
      app.change({ at: index, upstreams });
      await new Promise((resolve) => setTimeout(resolve, 260));
    }
    app.change({ at: 999, upstreams: [] });
    reader.resume();
    const seen: number[] = [];
    while (seen.at(-1) !== 999) seen.push(((await reader.next()).data as Snapshot).at);
    expect(seen.length).toBeLessThanOrEqual(9);
    reader.close();
  });
});

test('a quiet stream is kept alive by comments', async () => {
  await using lively = await startRest(app, { limits: { keepAliveMs: 50 } });
  const reader = await openSse(lively.url, '/api/v1/events', { 'x-api-key': lively.adminKey });
  await expect.poll(() => reader.comments()).toBeGreaterThan(2);
  reader.close();
});

test('a key takes its streams with it when it is revoked or runs out', async () => {
  const { key, view } = app.keys.create({ name: 'short', scope: 'read' });
  const brief = app.keys.create({ name: 'brief', scope: 'read', expiresAt: Date.now() + 300 });
  const other = await open('/api/v1/events');
  const revoked = await openSse(rest.url, '/api/v1/events', { 'x-api-key': key });
  const expired = await openSse(rest.url, '/api/v1/state/stream', { 'x-api-key': brief.key });
  expect([revoked.status, expired.status]).toEqual([200, 200]);
  app.keys.revoke(view.id);
  await revoked.ended;
  await expired.ended;
  const next = other.next();
  app.emit({});
  expect((await next).id).toBe('1');
  other.close();
});

test('closing the server ends its streams', async () => {
  const reader = await open('/api/v1/events');
  await rest.server.close();
  await reader.ended;
});
