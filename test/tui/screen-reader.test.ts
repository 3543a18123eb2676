import { PassThrough } from 'node:stream';
import { expect, test, vi } from 'vitest';
import { AppError } from '../../src/fleet/app.ts';
import { runScreenReader } from '../../src/tui/screen-reader.ts';
import type { Connection } from '../../src/tui/view.ts';
import { createFakeApp } from './fake-app.ts';

function start(readonly = false, more: Partial<Parameters<typeof runScreenReader>[0]> = {}) {
  const app = createFakeApp();
  const stdin = new PassThrough();
  const stdout = new PassThrough();
  let text = '';
  stdout.on('data', (chunk: Buffer) => {
    text += chunk.toString('utf8');
  });
  const ended = runScreenReader({ app, stdin, stdout, readonly, everyMs: 20, now: app.now, ...more });
  const says = (what: string | RegExp) => vi.waitFor(() => expect(text).toMatch(what), { timeout: 3000, interval: 10 });
  return { app, ended, says, text: () => text, type: (line: string) => void stdin.write(`${line}\n`) };
}

test('the fleet is told in sentences, changes are announced, quit ends it', async () => {
  const { app, ended, says, text, type } = start();
  await says(/Strategy round_robin\. \d+ of 12 instances take requests\./);
  type('instances');
  await says(/vast-\d+, DOWN; ejected: connect ECONNREFUSED/);
  expect(text().indexOf(', DOWN;')).toBeLessThan(text().indexOf(', OK;'));
  app.emit('error', 'ejected', 'vast-1', 'out of rotation');
  await says(/error vast-1: out of rotation/);
  type('strategy 4');
  await says(/Strategy is now least_connections, was round_robin/);
  type('frobnicate');
  await says(/No command frobnicate/);
  type('quit');
  expect(await ended).toBe(0);
  expect(text()).not.toContain('\u001b');
});

test('what costs or loses something needs a typed word', async () => {
  const { app, ended, says, type } = start();
  const id = app.state.get().upstreams[0]?.id ?? '';
  type(`destroy ${id}`);
  await says(/cannot be undone/);
  type('yes');
  await says(/Not confirmed/);
  expect(app.calls).toEqual([]);
  type(`destroy ${id}`);
  type(`2 ${id.slice(-4)}`);
  await says(/: destroyed\./);
  expect(app.calls.at(-1)).toMatchObject(['destroy', id, { now: true }]);
  type('reserve 2');
  await says(/2 of 2 GPUs for \$\d+\.\d\d per hour/);
  type('2');
  await says(/Reserved 2 of 2 GPUs/);
  type('reserve 17');
  await says(/from 1 to 16/);
  type('quit');
  await ended;
});

test('a read-only one changes nothing', async () => {
  const { app, ended, says, type } = start(true);
  type('strategy 4');
  await says(/Not done: this dashboard is read-only/);
  expect(app.calls).toEqual([]);
  type('quit');
  await ended;
});

test('weights, drains and switches are taken back by undo within a minute', async () => {
  const { app, ended, says, type } = start();
  const row = app.state.get().upstreams[0];
  const id = row?.id ?? '';
  type(`weight ${id} 4.5`);
  await says(/weighs 4\.50/);
  type('undo');
  await vi.waitFor(() => expect(app.calls.at(-1)).toEqual(['setWeight', id, null]));
  type(`drain ${id}`);
  await says(/DRAIN/);
  type('undo');
  await vi.waitFor(() => expect(app.calls.at(-1)).toEqual(['resume', id]));
  type('strategy least_connections');
  await says(/was round_robin/);
  app.tick(61_000);
  type('undo');
  await says(/Nothing to undo/);
  expect(app.state.get().strategy.name).toBe('least_connections');
  type(`weight ${id} heavy`);
  await says(/weight: got "heavy", accepts a number from 0 to 1000/);
  type('quit');
  await ended;
});

test('a reservation takes wishes, and a lost answer is asked for again with the same key', async () => {
  const { app, ended, says, type } = start();
  type('reserve 2 gpu=h100 provider=vast.ai');
  await says(/2 of 2 GPUs for/);
  app.fail('reserve', new AppError('disconnected', 'connection reset'));
  type('2');
  await says(/No answer: connection reset\. Type the same again/);
  type('2');
  await says(/Reserved 2 of 2 GPUs/);
  const reserved = app.calls.filter(([name]) => name === 'reserve');
  expect(reserved[0]?.[1]).toMatchObject({ count: 2, filter: { gpuModel: 'h100', provider: 'vast.ai' } });
  expect(reserved[1]?.[2]).toBe(reserved[0]?.[2]);
  type('reserve 1 colour=blue');
  await says(/got "colour=blue", accepts gpu=, max=/);
  type('quit');
  await ended;
});

test('every command of the help answers', async () => {
  const { app, ended, says, text, type } = start(false, { save: async (name) => `/tmp/${name}` });
  const id = app.state.get().upstreams[2]?.id ?? '';
  type('instances state:down');
  await says(/DOWN/);
  expect(text()).not.toMatch(/, OK;/);
  type(`instance ${id}`);
  await says(/The provider says running, the operator ready, traffic up\./);
  type(`logs ${id}`);
  await says(/Uvicorn running/);
  type('providers');
  await says(/vast\.ai: ok, 42 available from \$0\.19 per hour, credit/);
  type('offers max=0.3');
  await says(/offers, the ten cheapest/);
  type('events');
  await says(/info system: simulated fleet/);
  type('reservations');
  await says(/r-0188: active, 4 GPUs asked for/);
  type('preview 4');
  await says(/No preview|Model of/);
  type(`extend ${id} 3`);
  await says(/3 more hours for .* paid at once/);
  type('3');
  await says(/is paid for 3 more hours/);
  type('release r-0188');
  await says(/Type 1 4 to drain first/);
  type('2 4');
  await says(/4 instances released/);
  type('refresh');
  await says(/providers were asked again/);
  type('save');
  await says(/Saved \/tmp\/gpuproxy-.*\.json/);
  type(':help');
  await says(/strategy \[NAME or NUMBER\]: the strategies, or switch to one/);
  type('quit');
  expect(await ended).toBe(0);
});

test('a lost server is announced, refresh connects again, its return is announced', async () => {
  let connection: Connection = { state: 'live', since: 0, retryAt: null, detail: null };
  let tell = () => {};
  let retries = 0;
  const { ended, says, text, type } = start(false, {
    label: 'http://gpu-host:8080',
    connection: {
      get: () => connection,
      subscribe: (listener) => {
        tell = listener;
        return () => undefined;
      },
      retry: () => {
        retries += 1;
      },
    },
  });
  await says(/gpuproxy at http:\/\/gpu-host:8080\./);
  connection = { ...connection, state: 'stale', detail: 'ECONNREFUSED' };
  tell();
  tell();
  await says(/Connection lost: ECONNREFUSED/);
  type('refresh');
  await says(/Connecting again/);
  expect(retries).toBe(1);
  connection = { ...connection, state: 'live', detail: null };
  tell();
  await says(/Connected again/);
  expect(text().match(/Connection lost/g)).toHaveLength(1);
  type('quit');
  await ended;
});
