import { afterEach, describe, expect, test } from 'vitest';
import type { Snapshot, UpstreamView } from '../../src/fleet/app.ts';
import { type ConnectionSource, createDashboard, type Dashboard } from '../../src/tui/dashboard.ts';
import { type PaneId, paneIds } from '../../src/tui/layout.ts';
import { textOf } from '../../src/tui/line.ts';
import { createPainter } from '../../src/tui/painter.ts';
import { themes } from '../../src/tui/theme.ts';
import { createFakeApp, type FakeApp } from './fake-app.ts';
import { createTestTerminal, type TestTerminal } from './terminal.ts';

const open: Dashboard[] = [];
const terminals: TestTerminal[] = [];
afterEach(() => {
  for (const dashboard of open.splice(0)) dashboard.dispose();
  for (const terminal of terminals.splice(0)) terminal.dispose();
});

type State = Readonly<{
  instances?: number;
  change?: (snapshot: Snapshot) => Snapshot;
  events?: (app: FakeApp) => void;
  connection?: ConnectionSource;
  /** What each pane must say, where it is shown alone. */
  says: Readonly<Record<PaneId, RegExp>>;
}>;

const renamed = (change: (row: UpstreamView, index: number) => Partial<UpstreamView>) => (snapshot: Snapshot) => ({
  ...snapshot,
  upstreams: snapshot.upstreams.map((row, index) => ({ ...row, ...change(row, index) })),
  providers: snapshot.providers.map((provider) => ({
    ...provider,
    cheapest: provider.cheapest.map((item, index) => ({ ...item, ...pick(change(upstreamOf(snapshot), index)) })),
  })),
  reservations: snapshot.reservations.map((item, index) => ({
    ...item,
    id: change(upstreamOf(snapshot), index).reservation ?? item.id,
  })),
});
const upstreamOf = (snapshot: Snapshot): UpstreamView => snapshot.upstreams[0] as UpstreamView;
const pick = (row: Partial<UpstreamView>) => (row.gpuModel === undefined ? {} : { gpuModel: row.gpuModel });

const strategies = /1 \S+ round_robin +each in turn +equal distribution, testing/;
const usual: State['says'] = {
  instances: /INSTANCE +PROVIDER +ACTIVE +TOTAL +AVG RT +WEIGHT/,
  providers: /vast\.ai +42 +\$0\.19-4\.12/,
  strategy: strategies,
  reservations: /r-0188 +active +4\/4 up/,
  events: /simulated fleet with seed 7 is up/,
};

const states: Readonly<Record<string, State>> = {
  usual: { says: usual },
  empty: {
    instances: 0,
    change: (snapshot) => ({ ...snapshot, providers: [], reservations: [] }),
    says: {
      instances: /No instances yet\./,
      providers: /No provider is configured\./,
      strategy: strategies,
      reservations: /None\. r reserves GPUs\./,
      events: /simulated fleet/,
    },
  },
  loading: {
    instances: 0,
    change: (snapshot) => ({
      ...snapshot,
      providers: snapshot.providers.map((provider) => ({
        ...provider,
        status: 'loading' as const,
        refreshedAt: null,
        available: 0,
        minUsdPerHour: null,
        maxUsdPerHour: null,
        cheapest: [],
        creditUsd: null,
      })),
    }),
    connection: {
      get: () => ({ state: 'starting', since: 0, retryAt: null, detail: null }),
      subscribe: () => () => undefined,
    },
    says: {
      instances: /Starting\. Keys typed now count as soon as it runs\./,
      providers: /vast\.ai +- +- +0 loading/,
      strategy: /1 .{1,3} round_robin/,
      reservations: /None\./,
      events: /simulated fleet/,
    },
  },
  error: {
    change: (snapshot) => ({
      ...snapshot,
      upstreams: snapshot.upstreams.map((row) => ({
        ...row,
        state: 'DOWN',
        eligible: false,
        health: { state: 'ejected' as const, untilAt: snapshot.at + 1000, times: 2, why: 'ECONNREFUSED' },
      })),
      providers: snapshot.providers.map((provider) => ({
        ...provider,
        status: 'error' as const,
        lastError: { at: snapshot.at, code: 'auth', message: 'HTTP 401: the API key was refused' },
      })),
      reservations: snapshot.reservations.map((item) => ({
        ...item,
        state: 'failed' as const,
        errors: ['nothing could be rented'],
      })),
    }),
    connection: {
      get: () => ({ state: 'stale', since: 0, retryAt: null, detail: 'ECONNREFUSED' }),
      subscribe: () => () => undefined,
    },
    says: {
      instances: /vast-\d+ .* DOWN/,
      providers: /io\.net +28 [\s\S]*vast\.ai: HTTP 401: the API key was refused/,
      strategy: strategies,
      reservations: /r-0188 +failed/,
      events: /ERROR vast-\d+ +health check failed/,
    },
  },
  one: {
    change: (snapshot) => ({
      ...snapshot,
      upstreams: snapshot.upstreams.slice(0, 1),
      providers: snapshot.providers.slice(0, 1),
      reservations: snapshot.reservations.slice(0, 1),
    }),
    says: { ...usual, reservations: /r-0188 +active/ },
  },
  many: {
    instances: 3000,
    change: (snapshot) => ({
      ...snapshot,
      reservations: Array.from({ length: 300 }, (_, index) => ({
        ...(snapshot.reservations[0] as Snapshot['reservations'][number]),
        id: `r-${1000 + index}`,
        createdAt: snapshot.at - index,
      })),
    }),
    events: (app) => {
      for (let i = 0; i < 2000; i += 1) app.emit('info', 'system', null, `event number ${i}`);
    },
    says: {
      instances: /2\.?9\d*k? below|\d{4} below/,
      providers: usual.providers,
      strategy: strategies,
      reservations: /r-1000 +active[\s\S]*r-1010/,
      events: /event number 1999[\s\S]*event number 1990/,
    },
  },
  'long names': {
    change: renamed((_row, index) => ({
      id: `vast-a-very-long-instance-id-that-nobody-expected-${index}`,
      gpuModel: 'NVIDIA RTX 6000 Ada Generation Founders Edition With A Very Long Name',
      location: 'A place with a name that is longer than every column, Somewhere',
      reservation: `reservation-with-a-very-long-name-${index}`,
    })),
    events: (app) => app.emit('warn', 'system', `subject-${'x'.repeat(80)}`, 'message '.repeat(60)),
    says: {
      instances: /vast-\S*~\S*-0 /,
      providers: / {2}RTX 6000 .*~/,
      strategy: strategies,
      reservations: /reserv~-name-0/,
      events: /WARN +subject~x+/,
    },
  },
  'wide characters': {
    change: renamed((_row, index) => ({
      id: `vast-深圳机房-${index}`,
      gpuModel: 'RTX 4090 ほげ 한글 👩‍👩‍👧 e\u0301 ไทย',
      location: '東京都, 日本',
      reservation: `予約-${index}`,
      reason: 'line\ttab\u0007\u001b[31mred',
    })),
    events: (app) => app.emit('warn', '事件', '機器', '再起動しました 🚀 \u001b[2J\r\nüber'),
    says: {
      instances: /vast-深圳机房-0/,
      providers: /RTX 4090 ほげ/,
      strategy: strategies,
      reservations: /予約-0/,
      events: /WARN +機器 +再起動しました \?\? {2}\[2J über/,
    },
  },
};

const sizes = [
  [60, 15],
  [80, 24],
  [100, 30],
  [160, 45],
] as const;

for (const [name, state] of Object.entries(states)) {
  describe(`a fleet that is ${name}`, () => {
    for (const pane of paneIds) {
      test(`${pane}: says what it must, and a terminal shows exactly that, at every size and in both glyph sets`, async () => {
        const app = createFakeApp(state.instances === undefined ? {} : { instances: state.instances });
        if (state.change) app.show(state.change);
        state.events?.(app);
        for (const glyphs of ['unicode', 'ascii'] as const) {
          const terminal = createTestTerminal(160, 45);
          terminals.push(terminal);
          const dashboard = createDashboard({
            app,
            columns: 160,
            rows: 45,
            color: 256,
            now: app.now,
            glyphs,
            ...(state.connection === undefined ? {} : { connection: state.connection }),
          });
          open.push(dashboard);
          const painter = createPainter(terminal.stdout, 256);
          dashboard.update({ focus: pane });
          for (const [columns, rows] of sizes) {
            for (const zoom of [false, true]) {
              dashboard.update({ zoom });
              terminal.resize(columns, rows);
              dashboard.resize(columns, rows);
              dashboard.changed();
              painter.forget();
              painter.show(dashboard.lines(), themes.terminal);
              const wanted = dashboard.lines().map((line) => textOf(line).trimEnd());
              const shown = (await terminal.screen()).map((line) => line.trimEnd());
              expect(shown, `${columns}x${rows} ${glyphs}`).toEqual(wanted);
              if (zoom && columns === 100) expect(wanted.join('\n'), `${columns}x${rows}`).toMatch(state.says[pane]);
            }
          }
        }
      });
    }
  });
}
