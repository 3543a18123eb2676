import { expect, test } from 'vitest';
import { layout, paneIds, type Rect, sizeClass } from '../../src/tui/layout.ts';

/** How often each cell is covered. */
function coverage(columns: number, rows: number, rects: readonly Rect[]): number[] {
  const cells = new Array<number>(columns * rows).fill(0);
  for (const { x, y, width, height } of rects) {
    for (let row = y; row < y + height; row += 1) {
      for (let column = x; column < x + width; column += 1) {
        const at = row * columns + column;
        cells[at] = (cells[at] ?? 0) + 1;
      }
    }
  }
  return cells;
}

test('every cell belongs to exactly one part, at every size, with every focus, zoomed or not', () => {
  for (let columns = 40; columns <= 300; columns += 13) {
    for (let rows = 10; rows <= 90; rows += 5) {
      for (const focus of paneIds) {
        for (const zoom of [false, true]) {
          const places = layout(columns, rows, { focus, zoom });
          const rects = [
            places.header,
            places.tabs,
            ...Object.values(places.panes),
            places.peek,
            ...places.dividers,
            places.toast,
            places.footer,
          ].filter((rect) => rect != null);
          for (const rect of rects) {
            expect(rect.width, `${columns}x${rows} ${focus}`).toBeGreaterThan(0);
            expect(rect.height, `${columns}x${rows} ${focus}`).toBeGreaterThan(0);
          }
          const cells = coverage(columns, rows, rects);
          const wrong = cells.findIndex((times) => times !== 1);
          expect(
            wrong,
            `${columns}x${rows} ${focus} ${zoom}: cell ${wrong % columns},${Math.floor(wrong / columns)}`,
          ).toBe(-1);
        }
      }
    }
  }
});

test('the four size classes begin where they are said to', () => {
  expect(sizeClass(140, 36)).toBe('wide');
  expect(sizeClass(139, 36)).toBe('strip');
  expect(sizeClass(140, 35)).toBe('strip');
  expect(sizeClass(100, 28)).toBe('strip');
  expect(sizeClass(100, 27)).toBe('single');
  expect(sizeClass(99, 28)).toBe('single');
  expect(sizeClass(60, 15)).toBe('single');
  expect(sizeClass(59, 15)).toBe('tiny');
  expect(sizeClass(60, 14)).toBe('tiny');
});

test('the table gets at least half of a wide terminal and a third of a middle one', () => {
  const wide = layout(160, 45).panes.instances;
  expect((wide?.width ?? 0) * (wide?.height ?? 0)).toBeGreaterThan((160 * 45) / 2.3);
  const strip = layout(100, 30).panes.instances;
  expect(strip?.height).toBeGreaterThanOrEqual(13);
});

test('a single pane takes everything between the tabs and the messages', () => {
  for (const focus of paneIds) {
    const places = layout(80, 18, { focus });
    expect(Object.keys(places.panes)).toEqual([focus]);
    expect(places.panes[focus]).toEqual({ x: 0, y: 3, width: 80, height: 13 });
  }
});
