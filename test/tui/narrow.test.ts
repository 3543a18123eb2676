import { afterEach, describe, expect, test } from 'vitest';
import { createDashboard, type Dashboard } from '../../src/tui/dashboard.ts';
import { textOf } from '../../src/tui/line.ts';
import { createFakeApp } from './fake-app.ts';

const open: Dashboard[] = [];
afterEach(() => {
  for (const dashboard of open.splice(0)) dashboard.dispose();
});

function start(columns = 80, rows = 24) {
  const app = createFakeApp();
  const dashboard = createDashboard({ app, columns, rows, color: 0, now: app.now });
  open.push(dashboard);
  return {
    app,
    dashboard,
    press: (...keys: string[]) => dashboard.press(keys),
    screen: () => dashboard.lines().map(textOf).join('\n'),
  };
}

describe('at 80x24', () => {
  test('the help names every state', () => {
    const { press, screen } = start();
    press('?');
    for (const state of ['BOOT', 'PROBATION', 'OUTBID', 'STOPPED', 'FAILED', 'DRAIN'])
      expect(screen()).toContain(state);
    expect(screen()).not.toContain('~');
  });

  test('the page of an instance shows its contract and its price whole', () => {
    const { app, dashboard, press, screen } = start();
    const contract = 'f66bfc97-c16a-434d-aa59-a9c6fb645ff9';
    app.show((now) => ({ ...now, upstreams: now.upstreams.map((row) => ({ ...row, contract })) }));
    press('enter');
    expect(screen()).toContain(`contract ${contract}`);
    expect(screen()).toContain(`reservation ${dashboard.view().selected?.reservation}`);
    expect(screen()).toMatch(/ price \$.* weight \d+\.\d\d \((formula|operator)\)/);
    expect(screen()).toMatch(/ceiling (none|\d+)/);
  });

  test('the tab of the strategies bears no figure that could be taken for a count', () => {
    const { press, screen } = start();
    expect(screen()).toMatch(/ Providers \d+ {2}Strategy {2}Reserved \d+ /);
    press('s');
    expect(screen()).toContain('[Strategy]');
  });
});

test('the note under the strategies says the way that leads on from here', () => {
  const { press, screen } = start(120, 45);
  expect(screen()).toMatch(/; s and arrows preview another/);
  press('s');
  expect(screen()).toMatch(/; arrows preview another/);
  expect(screen()).not.toContain('s and arrows');
});

test('reservations say how far they are in one way, however much room there is', () => {
  for (const [columns, rows] of [
    [80, 24],
    [160, 45],
  ] as const) {
    const { app, press, screen } = start(columns, rows);
    const [ready, booting] = app.state.get().upstreams.filter((row) => row.eligible);
    app.show((now) => ({
      ...now,
      upstreams: now.upstreams.map((row) =>
        row.id === booting?.id ? { ...row, state: 'BOOT', eligible: false } : row,
      ),
      reservations: now.reservations.slice(0, 1).map((item) => ({
        ...item,
        id: 'res-f6fa5442c1',
        state: 'active',
        instances: [ready?.id ?? '', booting?.id ?? ''],
      })),
    }));
    press('V');
    expect(screen()).toMatch(columns === 80 ? / active {2}1\/2 up, 1 boot / : / active {2}1\/2 up /);
  }
});
