import fc from 'fast-check';
import { afterEach, describe, expect, test } from 'vitest';
import type { Snapshot, UpstreamView } from '../../src/fleet/app.ts';
import { createDashboard, type Dashboard } from '../../src/tui/dashboard.ts';
import { lineWidth, textOf } from '../../src/tui/line.ts';
import { renderFrame } from '../../src/tui/render-frame.ts';
import { createFakeApp, fakeUpstream, randomOf } from './fake-app.ts';

const open: Dashboard[] = [];
afterEach(() => {
  for (const dashboard of open.splice(0)) dashboard.dispose();
});

function dashboardOf(
  app = createFakeApp(),
  columns = 160,
  rows = 45,
  glyphs: 'unicode' | 'ascii' = 'unicode',
): Dashboard {
  const dashboard = createDashboard({ app, columns, rows, color: 0, now: app.now, glyphs });
  open.push(dashboard);
  return dashboard;
}

function expectExact(dashboard: Dashboard, columns: number, rows: number, what: string): void {
  const lines = dashboard.lines();
  expect(lines.length, what).toBe(rows);
  for (const [row, line] of lines.entries())
    expect(lineWidth(line), `${what}, row ${row}: ${textOf(line)}`).toBe(columns);
}

const hostile: Partial<UpstreamView> = {
  id: 'vast-深圳-a-very-long-instance-id-that-nobody-expected',
  gpuModel: 'RTX 4090 \u001b[31m👩‍👩‍👧 e\u0301 ไทย GPU with a long name\nand a newline',
  location: '東京都, 日本',
  reason: 'line one\nline two\ttab \u0007bell',
  avgMs: Number.NaN,
  lastMs: Number.POSITIVE_INFINITY,
  usdPerHour: 1e9,
  total: 1e15,
  active: 1e12,
  errorRate: Number.NaN,
  trend: [Number.NaN, -1, 1e300],
  state: 'SOMETHING NEW AND LONG',
};

const fleets: Readonly<Record<string, (snapshot: Snapshot) => Snapshot>> = {
  usual: (snapshot) => snapshot,
  empty: (snapshot) => ({ ...snapshot, upstreams: [], reservations: [] }),
  'without providers': (snapshot) => ({ ...snapshot, providers: [], upstreams: [] }),
  one: (snapshot) => ({ ...snapshot, upstreams: snapshot.upstreams.slice(0, 1) }),
  hostile: (snapshot) => ({
    ...snapshot,
    upstreams: snapshot.upstreams.map((row, index) =>
      index % 2 === 0 ? { ...row, ...hostile, id: `${hostile.id}${index}` } : row,
    ),
    mode: { ...snapshot.mode, banner: 'BANNER '.repeat(40) },
  }),
  'with failing providers': (snapshot) => ({
    ...snapshot,
    providers: snapshot.providers.map((provider) => ({
      ...provider,
      status: 'error' as const,
      lastError: { at: 0, code: 'rate_limited', message: 'API 429, too many requests; '.repeat(6) },
    })),
  }),
  'with loading providers': (snapshot) => ({
    ...snapshot,
    providers: snapshot.providers.map((provider) => ({
      ...provider,
      status: 'loading' as const,
      refreshedAt: null,
      minUsdPerHour: null,
      maxUsdPerHour: null,
      cheapest: [],
    })),
  }),
};

describe('a frame', () => {
  for (const [name, change] of Object.entries(fleets)) {
    test(`is exactly as large as the terminal at every size with a fleet that is ${name}`, () => {
      const app = createFakeApp();
      app.show(change);
      const dashboard = dashboardOf(app);
      for (let columns = 40; columns <= 300; columns += 26) {
        for (let rows = 10; rows <= 90; rows += 10) {
          dashboard.resize(columns, rows);
          expectExact(dashboard, columns, rows, `${columns}x${rows}`);
        }
      }
    });
  }

  for (const keys of [
    ['tab'],
    ['s'],
    ['V'],
    ['E'],
    ['?'],
    [':'],
    ['enter'],
    ['r'],
    ['x'],
    ['o'],
    ['W'],
    ['P', 'enter'],
    ['/', 'a'],
    ['z'],
    ['p'],
    ['V', 'x'],
    ['w'],
  ]) {
    test(`is exactly as large as the terminal after ${keys.join(' ')}`, () => {
      const dashboard = dashboardOf();
      dashboard.press(keys);
      for (const [columns, rows] of [
        [40, 10],
        [60, 15],
        [80, 24],
        [99, 27],
        [100, 30],
        [139, 50],
        [160, 45],
        [240, 70],
      ] as const) {
        dashboard.resize(columns, rows);
        expectExact(dashboard, columns, rows, `${keys.join(' ')} at ${columns}x${rows}`);
      }
    });
  }

  test('drawn in ASCII has nothing but ASCII', () => {
    const dashboard = dashboardOf(createFakeApp(), 160, 45, 'ascii');
    for (const keys of [[], ['s'], ['enter'], ['escape', 'r'], ['escape', '?']]) {
      dashboard.press(keys);
      for (const line of dashboard.lines()) expect(textOf(line)).toMatch(/^[\x20-\x7e]*$/);
    }
  });

  test("shows the guide's columns first, in the guide's words, at every size that has a table", () => {
    for (const [columns, rows] of [
      [60, 15],
      [80, 24],
      [100, 30],
      [160, 45],
      [240, 70],
    ] as const) {
      const frame = renderFrame(createFakeApp().state.get(), { columns, rows });
      expect(frame).toMatch(/INSTANCE +PROVIDER +ACTIVE +TOTAL +AVG RT +WEIGHT/);
    }
  });

  test('names the strategy, the traffic, the money and the simulation', () => {
    for (const [columns, rows] of [
      [80, 24],
      [160, 45],
    ] as const) {
      const frame = renderFrame(createFakeApp().state.get(), { columns, rows });
      expect(frame).toContain('round_robin');
      expect(frame).toContain('SIMULATED FLEET');
      expect(frame).toMatch(/req\/s +\d+/);
      expect(frame).toMatch(/\$\d+\.\d\d\/h/);
      expect(frame).toMatch(/GPUs +\d+\/\d+ up/);
    }
  });

  test('says whether it is fresh before the second half of the banner', () => {
    const snapshot = createFakeApp().state.get();
    const strategy = { ...snapshot.strategy, name: 'weighted_round_robin' as const };
    const head = (columns: number, label: string) =>
      renderFrame({ ...snapshot, strategy }, { columns, rows: 30, label }).split('\n')[0];
    expect(head(100, 'gpu-host.example:8080')).toMatch(/example:8080 +SIMULATED FLEET +weighted_round_robin .*LIVE/);
    expect(head(100, 'local')).toMatch(/SIMULATED FLEET: no money is spent +weighted_round_robin +LIVE/);
    expect(head(120, 'gpu-host.example:8080')).toMatch(
      /SIMULATED FLEET: no money is spent +weighted_round_robin +.*LIVE/,
    );
  });

  test('shows available instances per provider and in total', () => {
    const frame = renderFrame(createFakeApp().state.get(), { columns: 160, rows: 45 });
    expect(frame).toMatch(/vast\.ai +42/);
    expect(frame).toMatch(/io\.net +28/);
    expect(frame).toMatch(/Total +70/);
  });

  test('on a terminal that is too small still shows health, and says which size it needs', () => {
    const frame = renderFrame(createFakeApp().state.get(), { columns: 52, rows: 12 });
    expect(frame).toMatch(/\d+ r\/s err .* GPUs \$/);
    expect(frame).toContain('60x15, now 52x12');
  });

  test('of an empty fleet says what to do', () => {
    const app = createFakeApp({ instances: 0 });
    const frame = renderFrame(app.state.get(), { columns: 100, rows: 30 });
    expect(frame).toContain('No instances yet.');
    expect(frame).toContain('reserve GPUs');
  });

  test('of three thousand instances draws only what is visible, fast', () => {
    const random = randomOf(3);
    const app = createFakeApp({ instances: 3000 });
    const dashboard = dashboardOf(app);
    const started = performance.now();
    for (let i = 0; i < 10; i += 1) {
      app.show((snapshot) => ({
        ...snapshot,
        upstreams: [...snapshot.upstreams.slice(1), fakeUpstream(i, app.now(), random)],
      }));
      dashboard.press(['j']);
    }
    expect((performance.now() - started) / 10).toBeLessThan(250);
    expectExact(dashboard, 160, 45, 'many');
  });

  test('keeps its reference while nothing visible changed', () => {
    const app = createFakeApp();
    const dashboard = dashboardOf(app);
    const before = dashboard.lines();
    app.show((snapshot) => ({
      ...snapshot,
      upstreams: snapshot.upstreams.map((row) => ({ ...row, avgMs: row.avgMs === null ? null : row.avgMs + 0.0001 })),
    }));
    dashboard.changed();
    expect(dashboard.lines()).toBe(before);
  });

  test('a pane that fails says so and the others go on', () => {
    const app = createFakeApp();
    app.show((snapshot) => ({ ...snapshot, providers: [null as never] }));
    const dashboard = dashboardOf(app);
    const text = dashboard.lines().map(textOf).join('\n');
    expect(text).toContain('PROVIDERS cannot be drawn');
    expect(text).toContain('INSTANCE');
  });
});

test('any sequence of keys, data and sizes leaves a frame that fits', () => {
  const keys = [
    'j',
    'k',
    'g',
    'G',
    'tab',
    'shift-tab',
    'enter',
    'escape',
    's',
    'z',
    'p',
    'left',
    'right',
    'o',
    'O',
    'W',
    'a',
    '/',
    'x',
    'd',
    'r',
    'w',
    '1',
    '3',
    'u',
    'v',
    't',
    'T',
    '?',
    ':',
    'space',
    '*',
    'backspace',
    '+',
    '-',
    'pagedown',
    'pageup',
    '[',
    ']',
    'l',
    'R',
    'y',
    'Y',
    'f',
    'n',
    'down',
    'up',
    'm',
    'i',
    'e',
    '{',
    'é',
    '深',
  ];
  const step = fc.oneof(
    { weight: 8, arbitrary: fc.record({ kind: fc.constant('key' as const), key: fc.constantFrom(...keys) }) },
    { weight: 2, arbitrary: fc.constant({ kind: 'tick' as const }) },
    { weight: 1, arbitrary: fc.record({ kind: fc.constant('drop' as const), at: fc.nat(12) }) },
    {
      weight: 1,
      arbitrary: fc.record({
        kind: fc.constant('size' as const),
        // Greater ones are held by the test of all sizes.
        columns: fc.integer({ min: 1, max: 180 }),
        rows: fc.integer({ min: 1, max: 50 }),
      }),
    },
    {
      weight: 1,
      arbitrary: fc.record({
        kind: fc.constant('mouse' as const),
        report: fc.record({
          kind: fc.constantFrom('press' as const, 'wheel-up' as const, 'wheel-down' as const),
          x: fc.nat(180),
          y: fc.nat(50),
        }),
      }),
    },
    { weight: 1, arbitrary: fc.record({ kind: fc.constant('paste' as const), text: fc.string({ unit: 'binary' }) }) },
  );
  fc.assert(
    fc.property(fc.array(step, { maxLength: 40 }), (steps) => {
      const app = createFakeApp();
      const dashboard = createDashboard({ app, columns: 100, rows: 30, color: 16, now: app.now });
      let columns = 100;
      let rows = 30;
      try {
        for (const one of steps) {
          if (one.kind === 'key') dashboard.press([one.key]);
          else if (one.kind === 'tick') app.tick();
          else if (one.kind === 'mouse') dashboard.report(one.report);
          else if (one.kind === 'paste') dashboard.paste(one.text);
          else if (one.kind === 'drop') {
            app.show((snapshot) => ({
              ...snapshot,
              upstreams: snapshot.upstreams.filter((_row, index) => index !== one.at),
            }));
          } else {
            columns = one.columns;
            rows = one.rows;
            dashboard.resize(columns, rows);
          }
          dashboard.changed();
          expectExact(dashboard, columns, rows, JSON.stringify(one));
        }
      } finally {
        dashboard.dispose();
      }
    }),
    { numRuns: 60 },
  );
});
