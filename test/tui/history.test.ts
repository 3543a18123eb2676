import { describe, expect, test } from 'vitest';
import type { Snapshot, UpstreamView } from '../../src/fleet/app.ts';
import { createHistory, type History } from '../../src/tui/history.ts';
import { createFakeApp } from './fake-app.ts';

const usual = createFakeApp().state.get();

/** What is kept after so many seconds of pictures, four a second as the dashboard takes them. */
function keptAfter(seconds: number, instances: number): { history: History; now: number; times: number[] } {
  const upstreams = Array.from({ length: instances }, () => usual.upstreams[0] as UpstreamView);
  const history = createHistory();
  let now = 1_000_000;
  for (let step = 0; step < seconds * 4; step += 1) {
    now += 250;
    history.add({ ...usual, at: now, upstreams } satisfies Snapshot);
  }
  return { history, now, times: Array.from({ length: history.length }, (_, index) => history.at(index)?.at ?? 0) };
}

describe('the kept pictures', () => {
  test('reach ten minutes back however great the fleet is, in bounded memory', () => {
    for (const instances of [6, 100, 300, 1000, 3000]) {
      const { now, times } = keptAfter(900, instances);
      const [oldest = 0] = times;
      expect(now - oldest, `${instances}`).toBeGreaterThanOrEqual(600_000);
      expect(now - oldest, `${instances}`).toBeLessThan(800_000);
      expect(times.length * instances, `${instances}`).toBeLessThanOrEqual(60_000);
      expect(times, `${instances}`).toEqual([...times].sort((a, b) => a - b));
    }
  });

  test('are one a second, and on great fleets still dense where they are new', () => {
    const small = keptAfter(900, 6);
    const steps = small.times.slice(1).map((at, index) => at - (small.times[index] ?? 0));
    expect(Math.max(...steps)).toBeLessThanOrEqual(1250);
    const great = keptAfter(900, 1000);
    const gaps = great.times.slice(1).map((at, index) => ({
      age: great.now - at,
      gap: at - (great.times[index] ?? 0),
    }));
    for (const { age, gap } of gaps) {
      // A tenth of its age and a few seconds, never a hole of minutes.
      expect(gap, `${age}`).toBeLessThanOrEqual(4000 + age * 0.25);
    }
  });

  test('are found by their time', () => {
    const { history, now } = keptAfter(60, 6);
    const at = (index: number) => history.at(index)?.at ?? 0;
    expect(at(history.indexAt(now))).toBe(now);
    expect(at(history.indexAt(0))).toBe(at(0));
    expect(now - 30_000 - at(history.indexAt(now - 30_000))).toBeGreaterThanOrEqual(0);
    expect(Math.abs(at(history.nearest(now - 30_000)) - (now - 30_000))).toBeLessThanOrEqual(625);
    expect(at(history.nearest(now + 99_999))).toBe(now);
  });
});
