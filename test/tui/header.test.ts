import { describe, expect, test } from 'vitest';
import type { Snapshot } from '../../src/fleet/app.ts';
import { renderFrame } from '../../src/tui/render-frame.ts';
import { createFakeApp } from './fake-app.ts';

const snapshot = createFakeApp().state.get();
const headOf = (shown: Snapshot, columns = 160, now = shown.at) =>
  renderFrame(shown, { columns, rows: 45, now, label: 'local' }).split('\n').slice(0, 2);

describe('the header', () => {
  test('counts the GPUs of a great fleet in full, and keeps its place while they come up', () => {
    const fleet = (up: number): Snapshot => ({
      ...snapshot,
      upstreams: Array.from({ length: 300 }, (_, index) => ({
        ...(snapshot.upstreams[0] as Snapshot['upstreams'][number]),
        id: `vast-${index}`,
        gpuCount: 1,
        eligible: index < up,
      })),
    });
    for (const columns of [80, 100, 120, 160]) {
      const few = headOf(fleet(9), columns)[1] ?? '';
      const many = headOf(fleet(299), columns)[1] ?? '';
      expect(few, `${columns}`).toContain('GPUs   9/300 up');
      expect(many, `${columns}`).toContain('GPUs 299/300 up');
      expect(many.indexOf('/300'), `${columns}`).toBe(few.indexOf('/300'));
    }
  });

  test('moves no word sideways while ages and sums grow', () => {
    const at = (seconds: number, usd: number) => {
      const now = snapshot.startedAt + seconds * 1000;
      const [names = '', numbers = ''] = headOf(
        {
          ...snapshot,
          strategy: { ...snapshot.strategy, since: snapshot.startedAt },
          cost: { usdPerHour: usd, spentTodayUsd: usd, spentUsd: usd, maxUsdPerHour: null },
        },
        160,
        now,
      );
      return [
        ...['up ', 'round_robin', 'for ', 'LIVE', 'help'].map((word) => names.lastIndexOf(word)),
        ...['req/s', 'GPUs', '/h', 'today', 'total'].map((word) => numbers.indexOf(word)),
      ];
    };
    const first = at(9, 0.001);
    expect(first.every((place) => place > 0)).toBe(true);
    for (const [seconds, usd] of [
      [89, 3.5],
      [3599, 99.9],
      [40_000, 0.6],
      [90 * 86_400, 12.34],
    ] as const) {
      expect(at(seconds, usd), `${seconds} s, $${usd}`).toEqual(first);
    }
  });

  test('never cuts a number', () => {
    const [, numbers = ''] = headOf(
      {
        ...snapshot,
        cost: { usdPerHour: 812.34, spentTodayUsd: 4321, spentUsd: 250_000, maxUsdPerHour: null },
        traffic: { ...snapshot.traffic, inFlight: 12_345, queued: 4567 },
      },
      200,
    );
    expect(numbers).toMatch(/in-flight +12k +queue +5k/);
    expect(numbers).toMatch(/\$812\.34\/h +today +\$4321 +total +\$250k/);
    expect(numbers).not.toContain('~');
  });
});
