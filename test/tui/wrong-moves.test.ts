import { afterEach, describe, expect, test, vi } from 'vitest';
import type { UpstreamView } from '../../src/fleet/app.ts';
import { createDashboard, type Dashboard, type DashboardSettings } from '../../src/tui/dashboard.ts';
import { textOf } from '../../src/tui/line.ts';
import { runDashboard } from '../../src/tui/run-dashboard.tsx';
import { createFakeApp, type FakeApp } from './fake-app.ts';
import { createTestTerminal } from './terminal.ts';

/** What keeps a person from doing something to another thing than the one meant, or for more than was shown. */

const open: Dashboard[] = [];
afterEach(() => {
  for (const dashboard of open.splice(0)) dashboard.dispose();
});

function start(settings: Partial<DashboardSettings> = {}) {
  const app = (settings.app as FakeApp | undefined) ?? createFakeApp();
  const dashboard = createDashboard({ columns: 160, rows: 45, color: 0, now: app.now, ...settings, app });
  open.push(dashboard);
  return {
    app,
    dashboard,
    screen: () => dashboard.lines().map(textOf).join('\n'),
    footer: () => textOf(dashboard.lines().at(-1) ?? []),
    press: (...keys: string[]) => dashboard.press(keys),
    callsOf: (name: string) => app.calls.filter(([called]) => called === name),
  };
}

const settle = async () => {
  for (let i = 0; i < 8; i += 1) await new Promise((done) => setImmediate(done));
};

test('Escape counts also where Enter, an arrow or a tab comes with it in one chunk', async () => {
  for (const then of ['\r', '\u001b[B', '\t']) {
    const terminal = createTestTerminal(100, 30);
    const app = createFakeApp();
    const ended = runDashboard({ app, ...terminal, env: { TERM: 'xterm-256color', LANG: 'C.UTF-8' } });
    const shows = (text: RegExp) =>
      vi.waitFor(async () => expect((await terminal.screen()).join('\n')).toMatch(text), { timeout: 5000 });
    await shows(/INSTANCE +PROVIDER/);
    terminal.type('w5');
    await shows(/weight of/);
    terminal.type(`\u001b${then}`);
    await vi.waitFor(async () => expect((await terminal.screen()).join('\n')).not.toMatch(/weight of/), {
      timeout: 5000,
    });
    expect(app.calls.filter(([name]) => name === 'setWeight')).toEqual([]);
    terminal.type('\u0003\u0003');
    await ended;
    terminal.dispose();
  }
});

describe('marks', () => {
  test('that the filter hides keep an action from falling on the row under the cursor', async () => {
    const { dashboard, screen, press, callsOf } = start();
    const [first, second] = dashboard.view().rows as readonly [UpstreamView, UpstreamView];
    press('space', 'space');
    expect([...dashboard.ui.marks]).toEqual([first.id, second.id]);
    press('/', ...`!${first.id}`.split(''), 'space', ...`!${second.id}`.split(''), 'enter');
    for (const key of ['d', 'x', 'w', '>', '<']) {
      press(key);
      await settle();
      expect(screen()).toContain('2 marked rows are hidden by the filter');
    }
    expect(callsOf('drain')).toEqual([]);
    expect(dashboard.overlays).toEqual([]);
    press('escape', 'd');
    await settle();
    expect(callsOf('drain').map(([, id]) => id)).toEqual([first.id, second.id]);
  });

  test('of instances that are gone are no marks any more', () => {
    const { app, dashboard, press } = start();
    press('space', 'space');
    const [gone] = [...dashboard.ui.marks];
    app.show((now) => ({ ...now, upstreams: now.upstreams.filter((row) => row.id !== gone) }));
    dashboard.changed();
    expect(dashboard.ui.marks.size).toBe(1);
    expect(dashboard.ui.marks.has(gone ?? '')).toBe(false);
  });

  test('of which one fails leave the others done, with a way back', async () => {
    const fake = createFakeApp();
    const ids = fake.state.get().upstreams.map((row) => row.id);
    const app: FakeApp = {
      ...fake,
      drain: (id) => (id === ids[0] ? Promise.reject(new Error('the server is busy')) : fake.drain(id)),
    };
    const { dashboard, screen, press, callsOf } = start({ app });
    dashboard.update({ marks: new Set(ids.slice(0, 3)) });
    press('d');
    await settle();
    expect(screen()).toContain('drain: 1 of 3 failed: the server is busy');
    expect(callsOf('drain').length).toBe(2);
    press('u');
    await settle();
    expect(callsOf('resume').map(([, id]) => id)).toEqual(expect.arrayContaining(ids.slice(1, 3)));
  });
});

test('the cursor follows its reservation when others come, and an event when it is not on the newest', () => {
  const { app, dashboard, press, screen } = start();
  press('V', 'j');
  const chosen = /▸ (\S+)/.exec(screen().slice(screen().indexOf('RESERVATIONS')))?.[1] ?? '';
  const before = dashboard.view().cursors.reservations;
  app.show((now) => ({
    ...now,
    reservations: [
      ...now.reservations,
      { ...(now.reservations[0] as (typeof now.reservations)[number]), id: 'r-new', createdAt: app.now() + 1 },
    ],
  }));
  dashboard.changed();
  expect(dashboard.view().cursors.reservations).toBe(before + 1);
  press('x');
  expect(screen()).toContain(`Release ${chosen}`);
  press('escape');
  app.tick(400);
  press('escape');
  // The word is that of this reservation and of no other.
  expect(screen()).not.toContain('RELEASE');

  press('E', 'j', 'j');
  const at = dashboard.view().cursors.events;
  const { events } = dashboard.view();
  const event = events[events.length - 1 - at];
  app.emit('info', 'system', null, 'something came');
  dashboard.changed();
  const after = dashboard.view();
  expect(after.cursors.events).toBe(at + 1);
  expect(after.events[after.events.length - 1 - after.cursors.events]).toBe(event);
  press('f');
  app.emit('info', 'system', null, 'something else came');
  dashboard.changed();
  expect(dashboard.view().cursors.events).toBe(0);
});

test('undo does not take back what somebody else has chosen meanwhile', async () => {
  const { app, press, screen, callsOf } = start();
  press('2');
  await settle();
  app.show((now) => ({ ...now, strategy: { ...now.strategy, name: 'least_connections' } }));
  press('u');
  await settle();
  expect(screen()).toContain('not undone: somebody else has switched to least_connections');
  expect(callsOf('setStrategy').length).toBe(1);
});

describe('prepaid hours', () => {
  test('are paid after a question that names the sum, with Cancel under the cursor', async () => {
    const { app, dashboard, press, screen, callsOf } = start();
    const row = app.state.get().upstreams.find((one) => one.expiresAt !== null) as UpstreamView;
    dashboard.update({ selectedId: row.id });
    press('X', '9', 'enter', 'enter');
    await settle();
    expect(screen()).toContain(`$${(row.usdPerHour * 9).toFixed(2)} are paid at once`);
    expect(screen()).toContain(`gpuproxy extend ${row.id} 9`);
    app.tick(400);
    press('enter');
    await settle();
    expect(screen()).not.toContain('EXTEND');
    expect(callsOf('extend')).toEqual([]);
    press('X', '9', 'enter');
    app.tick(400);
    press('y');
    await settle();
    expect(callsOf('extend')).toEqual([['extend', row.id, 9]]);
  });

  test('of another number than can be bought stay to be mended', () => {
    const { app, dashboard, press, screen } = start();
    const row = app.state.get().upstreams.find((one) => one.expiresAt !== null) as UpstreamView;
    dashboard.update({ selectedId: row.id });
    press('X', 'a', 'enter');
    expect(screen()).toContain('a whole number of hours from 1 to 720');
    press('backspace', '2', 'enter');
    expect(screen()).toContain('Pay for 2 more hours');
  });
});

describe('a server of one’s own', () => {
  const own = (app: FakeApp, configured: boolean): string => {
    app.show((now) => ({
      ...now,
      upstreams: now.upstreams.map((row, at) =>
        at === 0 ? { ...row, id: 'static-lab', provider: 'static', contract: null, configured, usdPerHour: 0 } : row,
      ),
    }));
    return 'static-lab';
  };

  test('is removed and not destroyed: it drains first, and nothing has to be typed', async () => {
    const app = createFakeApp();
    const id = own(app, false);
    const removed: unknown[] = [];
    const { dashboard, press, screen } = start({
      app: { ...app, removeUpstream: async (...call) => void removed.push(call) },
    });
    dashboard.update({ selectedId: id });
    press('x');
    expect(screen()).toContain('Remove this server from the fleet? It goes on running.');
    expect(screen()).toContain(`gpuproxy upstream remove ${id}`);
    expect(screen()).not.toMatch(/cannot be undone|keep paying|Type the last/);
    app.tick(400);
    press('enter');
    await settle();
    expect(removed).toEqual([[id, { now: false }]]);
  });

  test('that UPSTREAMS names says so before anything is asked', () => {
    const app = createFakeApp();
    const id = own(app, true);
    const { dashboard, press, screen } = start({ app });
    dashboard.update({ selectedId: id });
    press('x');
    expect(dashboard.overlays).toEqual([]);
    expect(screen()).toContain(`${id} comes from UPSTREAMS: take it out there, or drain it`);
  });
});

describe('reserving', () => {
  async function partial() {
    const fake = createFakeApp();
    const app: FakeApp = {
      ...fake,
      reserve: async (request, options) => ({
        ...(await fake.reserve({ ...request, count: 1 }, options)),
        requested: request.count,
        errors: ['2 offers are gone'],
      }),
    };
    const stage = start({ app });
    stage.press('r', '3');
    await vi.waitFor(() => expect(stage.screen()).toContain('3 of 3 GPUs'));
    stage.press('enter');
    fake.tick(400);
    stage.press('3', 'enter');
    await vi.waitFor(() => expect(stage.screen()).toContain('next best: 2 more'));
    fake.tick(400);
    return stage;
  }

  test('has no key that gives everything back without asking', async () => {
    const { app, press, screen, callsOf } = await partial();
    press('x');
    expect(screen()).toContain('Release r-0200');
    expect(callsOf('releaseReservation')).toEqual([]);
    app.tick(400);
    press('escape');
    expect(screen()).toContain('next best: 2 more');

    const whole = start();
    whole.press('r');
    await vi.waitFor(() => expect(whole.screen()).toContain('1 of 1 GPU:'));
    whole.press('enter');
    whole.app.tick(400);
    whole.press('1', 'enter');
    await vi.waitFor(() => expect(whole.screen()).toContain('in rotation'));
    whole.app.tick(400);
    whole.press('x');
    await settle();
    expect(whole.callsOf('releaseReservation')).toEqual([]);
  });

  test('more after a partial result shows the command line of just that, and Escape leads back to the choice', async () => {
    const { app, press, screen } = await partial();
    press('n');
    expect(screen()).toContain('Reserve 2 GPUs');
    expect(screen()).toContain('CLI gpuproxy reserve 2');
    app.tick(400);
    press('escape');
    expect(screen()).toContain('k keep 1');
    expect(screen()).toContain('next best: 2 more');
  });

  test('says the price and what to type at every size', async () => {
    for (const [columns, rows] of [
      [160, 45],
      [80, 24],
      [60, 15],
      [50, 10],
    ] as const) {
      const { app, press, screen } = start({ columns, rows });
      press('r', '3');
      await vi.waitFor(() => expect(screen()).toContain('3 of 3 GPUs'));
      press('enter');
      app.tick(400);
      press('3');
      expect(screen(), `${columns}x${rows}`).toMatch(/3 of 3 GPUs: \$[\d.]+\/h/);
      expect(screen(), `${columns}x${rows}`).toMatch(/Type 3 and enter to spend \$[\d.]+\/h/);
    }
  });
});

describe('walking back in time', () => {
  test('starts from what is on the screen, however many pictures came since', () => {
    const { app, dashboard, press } = start();
    for (let i = 0; i < 40; i += 1) {
      app.tick(250);
      dashboard.changed();
    }
    press('p');
    const frozen = dashboard.view().pausedAt ?? 0;
    for (let i = 0; i < 3; i += 1) {
      app.tick(250);
      press('R');
    }
    press('left');
    const back = dashboard.view().pausedAt ?? 0;
    expect(frozen - back).toBeGreaterThan(0);
    expect(frozen - back).toBeLessThan(2500);
    press('right', 'right');
    expect(dashboard.view().pausedAt).toBeGreaterThan(back);
  });

  test('its keys stand in the footer while it is frozen, and what would change something does not', () => {
    const { press, footer } = start();
    expect(footer()).toContain('d drain');
    press('p');
    expect(footer()).toMatch(/p live +left 1 s back +right forward +\{ 30 s back/);
    expect(footer()).not.toMatch(/drain|destroy|reserve/);
    press('p');
    expect(footer()).toContain('d drain');
  });
});

test('on a page keys that work everywhere work too', async () => {
  const { dashboard, press, callsOf, screen } = start();
  press('P', 'enter');
  expect(screen()).toContain('OFFERS');
  press('4');
  await settle();
  expect(callsOf('setStrategy').length).toBe(1);
  press('?');
  expect(dashboard.overlays.at(-1)?.title).toContain('HELP');
  press('escape', 'escape', 'i');
  expect(screen()).toContain('PROVIDER ');
  press('5');
  await settle();
  expect(callsOf('setStrategy').length).toBe(2);
});
