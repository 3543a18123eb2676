/** Where everything goes, from the size of the terminal alone. Pure: no measuring at run time. */

export type Rect = Readonly<{ x: number; y: number; width: number; height: number }>;

export const paneIds = ['instances', 'providers', 'strategy', 'reservations', 'events'] as const;
export type PaneId = (typeof paneIds)[number];

export type SizeClass = 'wide' | 'strip' | 'single' | 'tiny';

export type Layout = Readonly<{
  size: SizeClass;
  columns: number;
  rows: number;
  header: Rect;
  /** One line of tabs; only where a single pane is shown. */
  tabs: Rect | null;
  panes: Readonly<Partial<Record<PaneId, Rect>>>;
  /** Summary of the selected instance. */
  peek: Rect | null;
  /** Vertical rule between two columns of panes: one cell wide. */
  dividers: readonly Rect[];
  /** The line of messages, then the line of key hints. */
  toast: Rect | null;
  footer: Rect | null;
}>;

export type LayoutOptions = Readonly<{ focus?: PaneId; zoom?: boolean }>;

const rect = (x: number, y: number, width: number, height: number): Rect => ({ x, y, width, height });

/**
 * Rectangles that cover the terminal without overlapping. Breakpoints: two columns from 140x36, a strip of two panes
 * under the table from 100x28, one pane at a time from 60x15, below that one line of health.
 */
export function layout(columns: number, rows: number, options: LayoutOptions = {}): Layout {
  const focus = options.focus ?? 'instances';
  const size = sizeClass(columns, rows);
  if (size === 'tiny') {
    return {
      size,
      columns,
      rows,
      header: rect(0, 0, columns, rows),
      tabs: null,
      panes: {},
      peek: null,
      dividers: [],
      toast: null,
      footer: null,
    };
  }
  const top = 2;
  const bottom = rows - 2;
  const body = bottom - top;
  const common = {
    size,
    columns,
    rows,
    header: rect(0, 0, columns, top),
    toast: rect(0, bottom, columns, 1),
    footer: rect(0, bottom + 1, columns, 1),
  };
  if (size === 'single' || options.zoom) {
    const tabs = rect(0, top, columns, 1);
    const peekHeight = focus === 'instances' && body >= 17 && size === 'single' && !options.zoom ? 3 : 0;
    return {
      ...common,
      tabs,
      panes: { [focus]: rect(0, top + 1, columns, body - 1 - peekHeight) },
      peek: peekHeight > 0 ? rect(0, bottom - peekHeight, columns, peekHeight) : null,
      dividers: [],
    };
  }
  if (size === 'strip') {
    const stripHeight = Math.min(9, Math.max(7, Math.floor(body * 0.26)));
    const eventsHeight = Math.min(12, Math.max(5, Math.floor(body * 0.2)));
    const table = body - stripHeight - eventsHeight;
    const right = 47;
    const left = columns - right - 1;
    const stripTop = top + table;
    return {
      ...common,
      tabs: null,
      panes: {
        instances: rect(0, top, columns, table),
        // One of the two: what is looked at.
        [focus === 'reservations' ? 'reservations' : 'providers']: rect(0, stripTop, left, stripHeight),
        strategy: rect(left + 1, stripTop, right, stripHeight),
        events: rect(0, stripTop + stripHeight, columns, eventsHeight),
      },
      peek: null,
      dividers: [rect(left, stripTop, 1, stripHeight)],
    };
  }
  const right = columns >= 200 ? 58 : columns >= 170 ? 49 : 46;
  const left = columns - right - 1;
  const eventsHeight = Math.min(16, Math.max(9, Math.floor(body * 0.24)));
  const upper = body - eventsHeight;
  const strategyHeight = Math.min(13, Math.max(11, Math.floor(upper * 0.38)));
  const reservationsHeight = Math.max(5, Math.min(10, Math.floor(upper * 0.22)));
  const providersHeight = upper - strategyHeight - reservationsHeight;
  return {
    ...common,
    tabs: null,
    panes: {
      instances: rect(0, top, left, upper),
      providers: rect(left + 1, top, right, providersHeight),
      strategy: rect(left + 1, top + providersHeight, right, strategyHeight),
      reservations: rect(left + 1, top + providersHeight + strategyHeight, right, reservationsHeight),
      events: rect(0, top + upper, left, eventsHeight),
    },
    peek: rect(left + 1, top + upper, right, eventsHeight),
    dividers: [rect(left, top, 1, body)],
  };
}

export function sizeClass(columns: number, rows: number): SizeClass {
  if (columns >= 140 && rows >= 36) return 'wide';
  if (columns >= 100 && rows >= 28) return 'strip';
  if (columns >= 60 && rows >= 15) return 'single';
  return 'tiny';
}
