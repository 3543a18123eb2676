import { afterEach, expect, test } from 'vitest';
import { createDashboard, type Dashboard } from '../../src/tui/dashboard.ts';
import { textOf } from '../../src/tui/line.ts';
import { eventRow } from '../../src/tui/panes/events.ts';
import { createFakeApp } from './fake-app.ts';

const open: Dashboard[] = [];
afterEach(() => {
  for (const dashboard of open.splice(0)) dashboard.dispose();
});

test('an id is cut in its middle, as in the table', () => {
  const id = 'ionet-230-18-x1-4711';
  const event = { id: 1, at: 0, level: 'ok' as const, kind: 'rental', subject: id, message: 'is in rotation' };
  expect(textOf(eventRow(event, 80))).toContain('ionet-2~-x1-4711 ');
  expect(textOf(eventRow(event, 130))).toContain(id);
});

test('the tab of the events counts the warnings since they were looked at', () => {
  const app = createFakeApp();
  const dashboard = createDashboard({ app, columns: 80, rows: 24, color: 0, now: app.now });
  open.push(dashboard);
  const tabs = () => textOf(dashboard.lines()[2] ?? []);
  expect(tabs()).toContain('Events 3W!');
  dashboard.press(['E']);
  dashboard.press(['i']);
  expect(tabs()).toContain('Events 5 ');
  app.emit('warn', 'provider', 'io.net', 'API 429');
  app.emit('ok', 'provider', 'io.net', 'answers again');
  dashboard.changed();
  expect(tabs()).toContain('Events 1W ');
  app.emit('error', 'ejected', 'vast-1', 'out of rotation');
  dashboard.changed();
  expect(tabs()).toContain('Events 2W!');
  dashboard.press(['E']);
  dashboard.press(['i']);
  expect(tabs()).toContain('Events 8 ');
});

test('ctrl-s names both files that it wrote', async () => {
  const app = createFakeApp();
  const names: string[] = [];
  const save = async (name: string) => {
    names.push(name);
    return `/tmp/${name}`;
  };
  const dashboard = createDashboard({ app, columns: 160, rows: 45, color: 0, now: app.now, save });
  open.push(dashboard);
  dashboard.press(['ctrl-s']);
  for (let i = 0; i < 5; i += 1) await new Promise((done) => setImmediate(done));
  expect(names).toEqual(['gpuproxy-2026-01-12T10-30-00.txt', 'gpuproxy-2026-01-12T10-30-00.json']);
  expect(dashboard.lines().map(textOf).join('\n')).toContain('saved /tmp/gpuproxy-2026-01-12T10-30-00.txt and .json');
});
