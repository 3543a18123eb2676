import { PassThrough } from 'node:stream';
import { expect, test, vi } from 'vitest';
import { runScreenReader } from '../../src/tui/screen-reader.ts';
import { createFakeApp } from './fake-app.ts';

function start(readonly = false) {
  const app = createFakeApp();
  const stdin = new PassThrough();
  const stdout = new PassThrough();
  let text = '';
  stdout.on('data', (chunk: Buffer) => {
    text += chunk.toString('utf8');
  });
  const ended = runScreenReader({ app, stdin, stdout, readonly, everyMs: 20 });
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
  type(id.slice(-4));
  await says(/: destroyed\./);
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
