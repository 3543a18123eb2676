import { afterEach, expect, test } from 'vitest';
import { strategyNames } from '../../src/core/domain.ts';
import { columns } from '../../src/tui/columns.ts';
import { commandForKey, commands } from '../../src/tui/commands.ts';
import { createDashboard, type Dashboard } from '../../src/tui/dashboard.ts';
import { type PaneId, paneIds } from '../../src/tui/layout.ts';
import { textOf } from '../../src/tui/line.ts';
import { panes } from '../../src/tui/panes/index.ts';
import { themeNames } from '../../src/tui/theme.ts';
import { createFakeApp } from './fake-app.ts';

const open: Dashboard[] = [];
afterEach(() => {
  for (const dashboard of open.splice(0)) dashboard.dispose();
});

function start() {
  const app = createFakeApp();
  const done = { quits: 0, suspends: 0, redraws: 0, copied: [] as string[], saved: [] as string[] };
  const dashboard = createDashboard({
    app,
    columns: 160,
    rows: 45,
    color: 0,
    now: app.now,
    onQuit: () => (done.quits += 1),
    onSuspend: () => (done.suspends += 1),
    onRedraw: () => (done.redraws += 1),
    copy: (text) => done.copied.push(text) > 0,
    save: async (name) => {
      done.saved.push(name);
      return `/tmp/${name}`;
    },
  });
  open.push(dashboard);
  return {
    app,
    dashboard,
    done,
    calls: () => app.calls.map(([name]) => name),
    screen: () => dashboard.lines().map(textOf).join('\n'),
  };
}

type Stage = ReturnType<typeof start>;
/** What is pressed before the key, and what the key must have done. */
type Effect = Readonly<{ before?: readonly string[]; pane?: PaneId; expect(stage: Stage): void }>;

const settle = async () => {
  for (let i = 0; i < 8; i += 1) await new Promise((resolve) => setImmediate(resolve));
};

const shows = (text: string | RegExp, before: readonly string[] = []): Effect => ({
  before,
  expect: ({ screen }) => expect(screen()).toMatch(text),
});
const cursor = (pane: PaneId, at: number, before: readonly string[] = []): Effect => ({
  before,
  expect: ({ dashboard }) => expect(dashboard.view().cursors[pane]).toBe(at),
});
const called = (name: string, before: readonly string[] = []): Effect => ({
  before,
  expect: ({ calls }) => expect(calls()).toContain(name),
});

const effects: Readonly<Record<string, Effect>> = {
  help: shows(/HELP/),
  palette: shows(/COMMANDS/),
  ...Object.fromEntries(
    strategyNames.map((name, index) => [
      `strategy-${name}`,
      {
        before: [String(index === 0 ? 2 : 1)],
        expect: ({ app }: Stage) => expect(app.state.get().strategy.name).toBe(name),
      },
    ]),
  ),
  undo: { before: ['4'], expect: ({ app }) => expect(app.state.get().strategy.name).toBe('round_robin') },
  'next-pane': { expect: ({ dashboard }) => expect(dashboard.ui.focus).toBe('providers') },
  'previous-pane': { expect: ({ dashboard }) => expect(dashboard.ui.focus).toBe('events') },
  ...Object.fromEntries(
    panes.map((pane) => [
      `pane-${pane.id}`,
      {
        before: [pane.id === 'events' ? 'tab' : 'shift-tab'],
        expect: ({ dashboard }: Stage) => expect(dashboard.ui.focus).toBe(pane.id),
      },
    ]),
  ),
  reserve: shows(/RESERVE/),
  zoom: { expect: ({ dashboard }) => expect(dashboard.ui.zoom).toBe(true) },
  pause: shows(/PAUSED at/),
  'back-in-time': {
    before: ['p'],
    expect: ({ dashboard, app }) => expect(dashboard.view().snapshot.at).toBeLessThan(app.now()),
  },
  'forward-in-time': {
    before: ['p', 'left'],
    expect: ({ dashboard, app }) => expect(dashboard.view().snapshot.at).toBe(app.now()),
  },
  'back-far': {
    before: ['p'],
    expect: ({ dashboard, app }) => expect(app.now() - dashboard.view().snapshot.at).toBeGreaterThan(2000),
  },
  'forward-far': {
    before: ['p', '{'],
    expect: ({ dashboard, app }) => expect(dashboard.view().snapshot.at).toBe(app.now()),
  },
  faster: { before: ['-'], expect: ({ dashboard }) => expect(dashboard.ui.refreshMs).toBe(250) },
  slower: { expect: ({ dashboard }) => expect(dashboard.ui.refreshMs).toBe(1000) },
  refresh: called('refresh'),
  theme: { expect: ({ dashboard }) => expect(dashboard.ui.theme).toBe('dark') },
  glyphs: { expect: ({ dashboard }) => expect(dashboard.ui.glyphs.name).toBe('ascii') },
  mouse: shows(/mouse on/),
  export: { expect: ({ done }) => expect(done.saved.map((name) => name.split('.').at(-1))).toEqual(['txt', 'json']) },
  redraw: { expect: ({ done }) => expect(done.redraws).toBe(1) },
  suspend: { expect: ({ done }) => expect(done.suspends).toBe(1) },
  back: { before: ['space'], expect: ({ dashboard }) => expect(dashboard.ui.marks.size).toBe(0) },
  quit: { expect: ({ done }) => expect(done.quits).toBe(1) },
  down: cursor('instances', 1),
  up: cursor('instances', 1, ['j', 'j']),
  'page-down': cursor('instances', 11),
  'page-up': cursor('instances', 0, ['G']),
  first: cursor('instances', 0, ['j', 'j']),
  last: cursor('instances', 11),
  details: shows(/INSTANCES > .*\n.*\[overview\]/),
  logs: shows(/\[logs\][\s\S]*Uvicorn running/),
  filter: { expect: ({ dashboard }) => expect(dashboard.view().prompt?.label).toBe('/') },
  sort: shows(/SORT BY/),
  reverse: { expect: ({ dashboard }) => expect(dashboard.ui.sort.reverse).toBe(true) },
  columns: shows(/COLUMNS/),
  mark: { expect: ({ dashboard }) => expect(dashboard.ui.marks.size).toBe(1) },
  'mark-all': { expect: ({ dashboard }) => expect(dashboard.ui.marks.size).toBe(12) },
  drain: called('drain'),
  destroy: shows(/DESTROY/),
  weight: { expect: ({ dashboard }) => expect(dashboard.view().prompt?.label).toMatch(/^weight of /) },
  'weight-up': {
    expect: ({ app, dashboard }) => expect(app.calls.at(-1)).toEqual(['setWeight', dashboard.ui.selectedId, 2.8]),
  },
  'weight-down': {
    expect: ({ app, dashboard }) =>
      expect(app.calls.at(-1)?.slice(0, 2)).toEqual(['setWeight', dashboard.ui.selectedId]),
  },
  // The first row and the first reservation hold prepaid instances.
  extend: {
    pane: 'reservations',
    expect: ({ dashboard }) => expect(dashboard.view().prompt?.label).toMatch(/^more hours for /),
  },
  'extend-instance': { expect: ({ dashboard }) => expect(dashboard.view().prompt?.label).toMatch(/^more hours for /) },
  'copy-id': { expect: ({ done, dashboard }) => expect(done.copied).toEqual([dashboard.ui.selectedId]) },
  'copy-origin': { expect: ({ done }) => expect(done.copied[0]).toMatch(/^http:\/\/10\.0\.0\./) },
  'copy-cli': {
    expect: ({ done, dashboard }) => expect(done.copied).toEqual([`gpuproxy fleet ${dashboard.ui.selectedId}`]),
  },
  'events-of-row': {
    // The row that is down has an event of its own.
    before: ['j', 'j', 'j', 'j'],
    expect: ({ dashboard }) => expect(dashboard.ui.focus).toBe('events'),
  },
  ...Object.fromEntries(
    columns.map((column) => [
      `sort-${column.id}`,
      { expect: ({ dashboard }: Stage) => expect(dashboard.ui.sort.column).toBe(column.id) },
    ]),
  ),
  ...Object.fromEntries(
    themeNames.map((name) => [
      `theme-${name}`,
      { expect: ({ dashboard }: Stage) => expect(dashboard.ui.theme).toBe(name) },
    ]),
  ),
  'apply-strategy': {
    pane: 'strategy',
    before: ['j'],
    expect: ({ app }) => expect(app.state.get().strategy.name).toBe('equal_weighted'),
  },
  offers: { pane: 'providers', expect: ({ screen }) => expect(screen()).toMatch(/── OFFERS/) },
  'provider-health': { pane: 'providers', expect: ({ screen }) => expect(screen()).toMatch(/PROVIDER vast\.ai/) },
  members: { pane: 'reservations', expect: ({ dashboard }) => expect(dashboard.ui.filter).toMatch(/^res:r-/) },
  release: { pane: 'reservations', expect: ({ screen }) => expect(screen()).toMatch(/RELEASE/) },
  level: { expect: ({ dashboard }) => expect(dashboard.ui.eventLevel).toBe('warn') },
  follow: {
    pane: 'events',
    before: ['j', 'j'],
    expect: ({ dashboard }) => expect(dashboard.ui.cursors.events).toBe(0),
  },
  jump: {
    pane: 'events',
    expect: ({ dashboard }) => {
      expect(dashboard.ui.focus).toBe('instances');
      expect(dashboard.view().selected?.state).toBe('SLOW');
    },
  },
};

test('every command has an effect that is known here', () => {
  expect(Object.keys(effects).sort()).toEqual(commands.map((command) => command.id).sort());
});

for (const command of commands) {
  const effect = effects[command.id];
  if (effect === undefined) continue;
  for (const key of command.keys.length > 0 ? command.keys : [null]) {
    test(`${key ?? 'the palette'}: ${command.title}`, async () => {
      const stage = start();
      for (let i = 0; i < 4; i += 1) {
        stage.app.tick(1000);
        stage.dashboard.changed();
      }
      const pane =
        effect.pane ?? (paneIds.some((id) => id === command.scope) ? (command.scope as PaneId) : 'instances');
      stage.dashboard.update({ focus: pane });
      for (const earlier of effect.before ?? []) {
        stage.dashboard.press([earlier]);
        await settle();
      }
      if (key === null) stage.dashboard.run(command);
      else stage.dashboard.press([key]);
      await settle();
      stage.dashboard.changed();
      effect.expect(stage);
    });
  }
}

test('a key that a pane gives another meaning is one of those that are known', () => {
  const shadowed: string[] = [];
  for (const pane of paneIds) {
    for (const command of commands.filter(({ scope }) => scope === 'global' || scope === 'list')) {
      for (const key of command.keys) {
        const meant = commandForKey(key, pane);
        if (meant !== command && meant?.scope === pane)
          shadowed.push(`${pane}: ${key} is ${meant.id}, not ${command.id}`);
      }
    }
  }
  expect(shadowed).toEqual([
    'providers: i is provider-health, not pane-instances',
    'reservations: + is extend, not faster',
  ]);
});
