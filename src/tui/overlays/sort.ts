import type { Column } from '../columns.ts';
import type { Dashboard, Overlay } from '../dashboard.ts';
import { fitText } from '../format.ts';
import { layout } from '../layout.ts';
import { fitLine, type Line, span, textOf } from '../line.ts';
import { fittedColumns } from '../panes/instances.ts';
import type { View } from '../view.ts';

function chooser(
  title: string,
  columns: readonly Column[],
  mark: (column: Column, view: View, columns: number, rows: number) => string,
  choose: (column: Column, self: Overlay) => void,
): Overlay {
  let cursor = 0;
  let screen: readonly [number, number] = [0, 0];
  const overlay: Overlay = {
    title,
    hints: [
      ['letter', 'choose'],
      ['enter', 'choose'],
      ['esc', 'close'],
    ],
    size: (across, rows) => {
      screen = [across, rows];
      return { width: 34, height: Math.min(columns.length + 2, rows - 2) };
    },
    lines(view: View, width, height) {
      const first = Math.max(0, Math.min(cursor - Math.floor(height / 2), columns.length - height));
      return columns.slice(first, first + height).map((column, index): Line => {
        const here = first + index === cursor;
        const line: Line = [
          span(here ? `${view.glyphs.cursor} ` : '  ', 'key'),
          span(column.key, 'key'),
          span(`  ${fitText(column.title, 12)}`),
          span(mark(column, view, ...screen), 'accent'),
        ];
        return here ? [span(textOf(fitLine(line, width)), 'selected')] : line;
      });
    },
    key(key) {
      if (key === 'down') cursor = Math.min(columns.length - 1, cursor + 1);
      else if (key === 'up') cursor = Math.max(0, cursor - 1);
      else if (key === 'enter' || key === 'space') {
        const column = columns[cursor];
        if (column) choose(column, overlay);
      } else {
        const at = columns.findIndex((column) => column.key === key);
        const column = columns[at];
        if (!column) return false;
        cursor = at;
        choose(column, overlay);
      }
      return true;
    },
  };
  return overlay;
}

/** One key chooses the column to sort by; the same column again reverses. */
export function createSortChooser(dashboard: Dashboard, columns: readonly Column[]): Overlay {
  return chooser(
    'SORT BY',
    columns,
    (column) => (dashboard.ui.sort.column === column.id ? 'now' : ''),
    (column, self) => {
      const { sort } = dashboard.ui;
      dashboard.update({
        sort: { column: column.id, reverse: sort.column === column.id ? !sort.reverse : false },
      });
      dashboard.close(self);
    },
  );
}

/** Shows and hides columns; what was shown last is kept. One that is wanted may still find no room. */
export function createColumnChooser(dashboard: Dashboard, columns: readonly Column[]): Overlay {
  return chooser(
    'COLUMNS',
    columns.filter((column) => column.id !== 'instance'),
    (column, view, across, rows) => {
      if (view.hiddenColumns.has(column.id)) return 'hidden';
      const table = layout(across, rows, { focus: 'instances', zoom: view.zoom }).panes.instances;
      const { shown } = fittedColumns(view, table?.width ?? 0);
      return shown.some((fitted) => fitted.column.id === column.id) ? 'shown' : 'no room';
    },
    (column) => {
      const hidden = new Set(dashboard.ui.hiddenColumns);
      if (!hidden.delete(column.id)) hidden.add(column.id);
      dashboard.update({ hiddenColumns: hidden });
    },
  );
}
