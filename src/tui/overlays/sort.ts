import type { Column } from '../columns.ts';
import type { Dashboard, Overlay } from '../dashboard.ts';
import { fitText } from '../format.ts';
import { fitLine, type Line, span, textOf } from '../line.ts';
import type { View } from '../view.ts';

function chooser(
  title: string,
  columns: readonly Column[],
  mark: (column: Column) => string,
  choose: (column: Column, self: Overlay) => void,
): Overlay {
  let cursor = 0;
  const overlay: Overlay = {
    title,
    hints: [
      ['letter', 'choose'],
      ['enter', 'choose'],
      ['esc', 'close'],
    ],
    size: (_columns, rows) => ({ width: 34, height: Math.min(columns.length + 2, rows - 2) }),
    lines(view: View, width, height) {
      const first = Math.max(0, Math.min(cursor - Math.floor(height / 2), columns.length - height));
      return columns.slice(first, first + height).map((column, index): Line => {
        const here = first + index === cursor;
        const line: Line = [
          span(here ? `${view.glyphs.cursor} ` : '  ', 'key'),
          span(column.key, 'key'),
          span(`  ${fitText(column.title, 12)}`),
          span(mark(column), 'accent'),
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

/** Shows and hides columns; what was shown last is kept. */
export function createColumnChooser(dashboard: Dashboard, columns: readonly Column[]): Overlay {
  return chooser(
    'COLUMNS',
    columns.filter((column) => column.id !== 'instance'),
    (column) => (dashboard.ui.hiddenColumns.has(column.id) ? 'hidden' : 'shown'),
    (column) => {
      const hidden = new Set(dashboard.ui.hiddenColumns);
      if (!hidden.delete(column.id)) hidden.add(column.id);
      dashboard.update({ hiddenColumns: hidden });
    },
  );
}
