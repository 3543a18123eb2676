import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import type { UpstreamView } from '../../src/fleet/app.ts';
import { createDashboard } from '../../src/tui/dashboard.ts';
import { textOf } from '../../src/tui/line.ts';
import { createFakeApp } from './fake-app.ts';

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

function start() {
  const app = createFakeApp({ now: Date.now, at: Date.now() });
  let frames = 0;
  const dashboard = createDashboard({
    app,
    columns: 160,
    rows: 45,
    color: 0,
    preferences: { read: () => ({ refreshMs: 5000 }), write: () => undefined },
  });
  dashboard.subscribe(() => {
    frames += 1;
  });
  return {
    app,
    dashboard,
    frames: () => frames,
    screen: () => dashboard.lines().map(textOf).join('\n'),
    show: (change: (rows: readonly UpstreamView[]) => readonly UpstreamView[]) =>
      app.show((snapshot) => ({ ...snapshot, upstreams: change(snapshot.upstreams) })),
  };
}

test('an instance that is ordered is shown at once, also where counts are drawn every five seconds', () => {
  const { dashboard, show, screen } = start();
  const count = (total: number) => show(([first, ...rest]) => [{ ...(first as UpstreamView), total }, ...rest]);
  count(123_456);
  vi.advanceTimersByTime(200);
  expect(screen()).toContain('123456');
  count(987_654);
  vi.advanceTimersByTime(200);
  expect(screen()).not.toContain('987654');
  show((rows) => [{ ...(rows[0] as UpstreamView), id: 'vast-000-new' }, ...rows]);
  vi.advanceTimersByTime(200);
  expect(screen()).toContain('vast-000-new');
  dashboard.dispose();
});

test('a fleet that changes all the time is drawn at most twenty times a second', () => {
  const { dashboard, frames, show } = start();
  vi.advanceTimersByTime(5000);
  const before = frames();
  for (let ms = 0; ms < 1000; ms += 1) {
    show((rows) => [{ ...(rows[0] as UpstreamView), id: `vast-new-${ms}` }, ...rows]);
    vi.advanceTimersByTime(1);
  }
  expect(frames() - before).toBeGreaterThan(5);
  // And once by the clock of the screen.
  expect(frames() - before).toBeLessThanOrEqual(23);
  dashboard.dispose();
});
