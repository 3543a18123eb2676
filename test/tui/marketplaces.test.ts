import { afterEach, expect, test } from 'vitest';
import type { Snapshot, UpstreamView } from '../../src/fleet/app.ts';
import { createDashboard, type Dashboard } from '../../src/tui/dashboard.ts';
import { textOf } from '../../src/tui/line.ts';
import { createFakeApp } from './fake-app.ts';

const open: Dashboard[] = [];
afterEach(() => {
  for (const dashboard of open.splice(0)) dashboard.dispose();
});

function start(rows = 45) {
  const app = createFakeApp();
  const dashboard = createDashboard({ app, columns: 160, rows, color: 0, now: app.now });
  open.push(dashboard);
  const show = (change: (snapshot: Snapshot) => Snapshot) => {
    app.show(change);
    dashboard.changed();
  };
  const first = (change: (row: UpstreamView) => UpstreamView) =>
    show((snapshot) => ({
      ...snapshot,
      upstreams: snapshot.upstreams.map((row, index) => (index === 0 ? change(row) : row)),
    }));
  const vast = (change: (provider: Snapshot['providers'][number]) => Snapshot['providers'][number]) =>
    show((snapshot) => ({
      ...snapshot,
      providers: snapshot.providers.map((provider) => (provider.name === 'vast.ai' ? change(provider) : provider)),
    }));
  return {
    app,
    dashboard,
    show,
    first,
    vast,
    screen: () => dashboard.lines().map(textOf).join('\n'),
  };
}

/** Lets answers of the app arrive. */
const settle = async () => {
  for (let i = 0; i < 5; i += 1) await new Promise((done) => setImmediate(done));
};

test('an outbid instance is called that, with the reason, in the table and on its page', async () => {
  const { app, dashboard, first, screen } = start();
  const detail = 'somebody bids more; it runs again by itself when its bid wins';
  first((row) => ({
    ...row,
    state: 'OUTBID',
    reason: detail,
    eligible: false,
    interruptible: true,
    lifecycle: { phase: 'halted', at: app.now() - 5000, cause: 'outbid', detail },
  }));
  const { id } = app.state.get().upstreams[0] as UpstreamView;
  expect(screen()).toMatch(new RegExp(`${id}.*OUTBID`));
  dashboard.update({ selectedId: id });
  dashboard.press(['enter']);
  await settle();
  expect(screen()).toMatch(/OUTBID .*interruptible/);
  expect(screen()).toMatch(/provider says halted +somebody bids more/);
});

test('the page of a prepaid instance shows the time left, more loudly when it is short', async () => {
  const { app, dashboard, first, screen } = start();
  first((row) => ({ ...row, expiresAt: app.now() + 65 * 60_000 }));
  dashboard.update({ selectedId: app.state.get().upstreams[0]?.id ?? null });
  dashboard.press(['enter']);
  await settle();
  expect(screen()).toMatch(/time left 1h0?5m/);
  first((row) => ({ ...row, expiresAt: app.now() + 5 * 60_000 }));
  const spans = dashboard.lines().flat();
  expect(spans[spans.findIndex((span) => span.text.includes('time left')) + 1]).toMatchObject({ style: 'bad' });
});

test('prepaid time that is left is a column where there is room, and one to sort by', () => {
  const { app, dashboard, first, screen } = start();
  dashboard.resize(260, 45);
  first((row) => ({ ...row, expiresAt: app.now() + 65 * 60_000 }));
  const { id } = app.state.get().upstreams[0] as UpstreamView;
  // A row under the cursor has the colours of the cursor.
  dashboard.update({ selectedId: app.state.get().upstreams[1]?.id ?? null });
  expect(screen()).toMatch(new RegExp(`LEFT[\\s\\S]*${id}.* 1h0?5m *[│|]?`));
  first((row) => ({ ...row, expiresAt: app.now() + 5 * 60_000 }));
  const spans = dashboard.lines().find((line) => textOf(line).includes(id)) ?? [];
  expect(spans.some((span) => span.style === 'bad' && /^5m/.test(span.text.trim()))).toBe(true);
  dashboard.resize(120, 45);
  expect(screen()).not.toContain('LEFT');
});

test('a reservation counts what exists of it, not what has ended', () => {
  const { app, show, screen } = start();
  const item = app.state.get().reservations.find(({ instances }) => instances.length > 1);
  const [gone = '', ...stay] = item?.instances ?? [];
  const counts = () => new RegExp(`${item?.id} +active +(\\d+)/(\\d+) up`).exec(screen())?.slice(1);
  const before = counts();
  expect(before?.[1]).toBe(String(item?.instances.length));
  show((snapshot) => ({
    ...snapshot,
    reservations: snapshot.reservations.map((each) =>
      each.id === item?.id ? { ...each, instances: stay, ended: [gone] } : each,
    ),
  }));
  expect(counts()?.[1]).toBe(String(stay.length));
});

test('a market that could not be read whole says so beside its number, and in the sum', () => {
  const { vast, screen } = start();
  expect(screen()).not.toContain('+ available');
  vast((provider) => ({ ...provider, available: 861, more: true }));
  expect(screen()).toMatch(/vast\.ai +861\+ /);
  expect(screen()).toMatch(/\d+\+ available/);
  expect(screen()).toMatch(/Total +\d+\+/);
});

test('of a provider that fails the last good number stays, with its age and the reason; the other is as ever', () => {
  const { app, vast, screen } = start(60);
  vast((provider) => ({
    ...provider,
    available: 42,
    status: 'error',
    refreshedAt: app.now() - 95_000,
    lastError: { at: app.now(), code: 'server_error', message: 'HTTP 503: a page of HTML' },
  }));
  expect(screen()).toMatch(/vast\.ai +42 .* ERROR +(95s|1m)/);
  expect(screen()).toContain('vast.ai: HTTP 503: a page of HTML');
  expect(screen()).toMatch(/io\.net +\d+ .*OK/);
});
