import { afterEach, describe, expect, test } from 'vitest';
import type { Snapshot, UpstreamView } from '../../src/fleet/app.ts';
import { fitColumns, gpuLabel, poolOf } from '../../src/tui/columns.ts';
import { createDashboard, type Dashboard } from '../../src/tui/dashboard.ts';
import { textOf } from '../../src/tui/line.ts';
import { timeAxis } from '../../src/tui/panes/instances.ts';
import { renderFrame } from '../../src/tui/render-frame.ts';
import { createFakeApp } from './fake-app.ts';

const open: Dashboard[] = [];
afterEach(() => {
  for (const dashboard of open.splice(0)) dashboard.dispose();
});

const snapshot = createFakeApp().state.get();
const headings = (shown: Snapshot, columns: number, rows: number) =>
  renderFrame(shown, { columns, rows })
    .split('\n')
    .find((line) => line.includes('INSTANCE  ')) ?? '';
const sizes = [
  [60, 15],
  [80, 24],
  [100, 30],
  [120, 35],
  [140, 36],
  [158, 36],
  [160, 45],
  [200, 60],
] as const;

describe('the columns of the table', () => {
  test('stand where they stand, whatever one row has in it', () => {
    const odd: Partial<UpstreamView> = {
      id: 'static-a-very-long-name-of-a-server.example',
      state: 'DESTROYING',
      gpuModel: 'NVIDIA GeForce RTX 4090 Laptop',
      gpuCount: 8,
      usdPerHour: 123.45,
    };
    const other = {
      ...snapshot,
      upstreams: snapshot.upstreams.map((row, index) => (index === 3 ? { ...row, ...odd } : row)),
    };
    for (const [columns, rows] of sizes) {
      expect(headings(other, columns, rows), `${columns}x${rows}`).toBe(headings(snapshot, columns, rows));
    }
  });

  test('include the price from 80 cells on, share and trend from 100 on, also where panes stand beside the table', () => {
    for (const [columns, rows] of sizes) {
      const shown = headings(snapshot, columns, rows);
      if (columns >= 80) expect(shown, `${columns}x${rows}`).toMatch(/\$\/H/);
      if (columns >= 100) expect(shown, `${columns}x${rows}`).toMatch(/\$\/H +SHARE +TREND/);
    }
    // Where the panes begin to stand beside it, and a little above.
    for (const columns of [140, 146, 150, 157]) {
      expect(headings(snapshot, columns, 45), `${columns}`).toMatch(/\$\/H +SHARE +TREND/);
    }
  });

  test('never become fewer in a wider table', () => {
    let before = 0;
    for (let width = 57; width <= 300; width += 1) {
      const { shown, gap } = fitColumns(width, poolOf(snapshot.upstreams), new Set());
      const cells = shown.reduce((sum, column) => sum + column.width + gap, -gap);
      expect(cells, `${width}`).toBeLessThanOrEqual(width);
      expect(shown.length, `${width}`).toBeGreaterThanOrEqual(before);
      before = shown.length;
    }
    expect(before).toBe(20);
  });

  test('that find no room are counted above the table, also over many rows', () => {
    const many = {
      ...snapshot,
      upstreams: Array.from({ length: 300 }, (_, index) => ({
        ...(snapshot.upstreams[0] as UpstreamView),
        id: `vast-2100${String(index).padStart(4, '0')}`,
      })),
    };
    for (const [columns, rows] of sizes) {
      const frame = renderFrame(many, { columns, rows });
      if (columns < 200) expect(frame, `${columns}x${rows}`).toMatch(/sort INSTANCE . . \+\d+ columns? \(W\)/);
    }
  });

  test('say in the chooser which of them find no room', () => {
    const app = createFakeApp();
    const dashboard = createDashboard({ app, columns: 120, rows: 35, color: 0, now: app.now });
    open.push(dashboard);
    const screen = () => dashboard.lines().map(textOf).join('\n');
    dashboard.press(['W']);
    expect(screen()).toMatch(/n {2}TREND +shown/);
    expect(screen()).toMatch(/9 {2}P95 +no room/);
    dashboard.press(['v']);
    expect(screen()).toMatch(/v {2}VRAM +hidden/);
    dashboard.resize(240, 60);
    expect(screen()).toMatch(/9 {2}P95 +shown/);
  });

  test('show the shares of a preview wherever they show shares', () => {
    for (const width of [97, 107, 117, 137]) {
      const { shown } = fitColumns(width, poolOf(snapshot.upstreams), new Set(), true);
      expect(shown.find(({ column }) => column.id === 'share')?.width, `${width}`).toBe(11);
    }
  });
});

test('a GPU whose name has no room keeps what tells it from others', () => {
  const shown = (gpuModel: string, gpuCount: number, columns: number) => {
    const upstreams = snapshot.upstreams.slice(0, 1).map((row) => ({ ...row, gpuModel, gpuCount }));
    return renderFrame({ ...snapshot, upstreams }, { columns, rows: 35 });
  };
  expect(shown('RTX 4090', 4, 120)).toMatch(/OK +4x 4090 /);
  expect(shown('H100 SXM', 2, 120)).toMatch(/OK +2xH100 S~ /);
  expect(shown('H100 SXM', 2, 160)).toMatch(/OK +2x H100 SXM /);
});

test('the words that all cards of the vendor have are left out on the screen, and still found by the filter', () => {
  expect(gpuLabel({ gpuModel: 'NVIDIA GeForce RTX 4090', gpuCount: 1 })).toBe('RTX 4090');
  expect(gpuLabel({ gpuModel: 'GeForce RTX 4090', gpuCount: 4 })).toBe('4x RTX 4090');
  const app = createFakeApp();
  app.show((now) => ({
    ...now,
    upstreams: now.upstreams.map((row, index) => (index === 0 ? { ...row, gpuModel: 'GeForce RTX 4090' } : row)),
  }));
  const dashboard = createDashboard({ app, columns: 160, rows: 45, color: 0, now: app.now });
  open.push(dashboard);
  expect(dashboard.lines().map(textOf).join('\n')).not.toContain('GeForce');
  dashboard.press(['/', ...'gpu:geforce'.split(''), 'enter']);
  expect(dashboard.view().rows).toHaveLength(1);
});

test('a server of your own shows no hardware and no price that nobody knows', () => {
  const own: Partial<UpstreamView> = { provider: 'static', gpuModel: '-', gpuCount: 0, vramGb: 0, usdPerHour: 0 };
  const shown = {
    ...snapshot,
    providers: [],
    upstreams: snapshot.upstreams.map((row) => ({ ...row, ...own, location: null })),
  };
  for (const [columns, rows] of [
    [80, 24],
    [160, 45],
  ] as const) {
    const frame = renderFrame(shown, { columns, rows });
    expect(frame).not.toContain('0GB');
    expect(frame).not.toMatch(/0x/);
    expect(frame).toMatch(/OK +static/);
    expect(frame).toContain('your own');
  }
  expect(renderFrame(shown, { columns: 160, rows: 45 })).toMatch(/12 servers of your own; set VASTAI_API_KEY/);
});

test('the axis under the chart names moments where they stand', () => {
  expect(timeAxis(60)).toBe(`-60s${' '.repeat(11)}-45s${' '.repeat(11)}-30s${' '.repeat(11)}-15s${' '.repeat(8)}now`);
  expect(timeAxis(40)).toBe(`-60s${' '.repeat(16)}-30s${' '.repeat(13)}now`);
});
