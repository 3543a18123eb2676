import { gpuName } from '../core/words.ts';
import type { UpstreamView } from '../fleet/app.ts';
import {
  type Align,
  age,
  amount,
  barParts,
  cellWidth,
  count,
  cutMiddle,
  fitText,
  milliseconds,
  money,
  percent,
  plainText,
  rate,
  sparkline,
} from './format.ts';
import { type Span, type Style, span } from './line.ts';
import type { View } from './view.ts';

export const columnIds = [
  'instance',
  'provider',
  'active',
  'total',
  'avg',
  'weight',
  'last',
  'state',
  'gpu',
  'vram',
  'price',
  'share',
  'trend',
  'used',
  'rps',
  'p95',
  'errors',
  'location',
  'spent',
  'left',
] as const;
export type ColumnId = (typeof columnIds)[number];

/** What cells are compared with: the pool they belong to. */
export type Pool = Readonly<{
  medianAvgMs: number | null;
  topShare: number;
  /** Cells of the whole table. */
  width: number;
  /** True when predicted shares stand beside the real ones. */
  ghosts: boolean;
}>;

export type Column = Readonly<{
  id: ColumnId;
  title: string;
  /** Key in the sort chooser. */
  key: string;
  align: Align;
  /** By the width of the table alone, never by what is in it: a column neither moves nor goes because of one row. */
  width(pool: Pool): number;
  /** How wide it may become where cells are left over; absent: not at all. */
  most?: number;
  /** Order in which columns get room: lower first; what shows a course before the last single time. Display order is that of the list. */
  priority: number;
  /** True when sorting begins with the greatest. */
  descending: boolean;
  sortValue(row: UpstreamView): number | string;
  cell(row: UpstreamView, view: View, pool: Pool, width: number): readonly Span[];
}>;

/** What state words look like; the word itself carries the meaning. */
export function stateStyle(state: string): Style {
  switch (state) {
    case 'OK':
      return 'good';
    case 'SLOW':
    case 'PROBATION':
    case 'BACKOFF':
    case 'DRAIN':
    case 'OUTBID':
    case 'STOPPED':
      return 'warn';
    case 'DOWN':
    case 'FAILED':
    case 'DESTROYING':
      return 'bad';
    case 'BOOT':
    case 'PROBE':
    case 'RESERVING':
      return 'busy';
    default:
      return 'dim';
  }
}

/** Worst first. */
const stateOrder: readonly string[] = [
  'DOWN',
  'FAILED',
  'OUTBID',
  'STOPPED',
  'DESTROYING',
  'BACKOFF',
  'SLOW',
  'PROBATION',
  'DRAIN',
  'RESERVING',
  'BOOT',
  'PROBE',
  'OK',
  'ENDED',
];

/** Rank of a state word, the worst lowest; an unknown one is last. */
export function stateRank(state: string): number {
  const at = stateOrder.indexOf(state);
  return at === -1 ? stateOrder.length : at;
}

const text = (value: string, width: number, align: Align, style: Style = 'text'): readonly Span[] => [
  span(fitText(value, width, align), style),
];

const fixed = (width: number) => () => width;

const shareWithMore = 11;

/** Below it a few columns are narrower, so that none goes where they widen. */
const isNarrow = (pool: Pool): boolean => pool.width < 93;
const stateCells = (pool: Pool): number => (isNarrow(pool) ? 7 : 9);
/** A word that a beginning of stands for where it does not fit. */
const stateWord = (state: string, width: number): string =>
  state === 'DESTROYING' && width < state.length ? 'DESTROY' : state;

/** On the narrowest terminals the state goes before the end of the id: the other columns before it take 37 cells. */
const idCells = (pool: Pool): number =>
  isNarrow(pool) ? Math.max(10, Math.min(15, pool.width - 38 - stateCells(pool))) : 17;

/** Every column of the load table, in display order. */
export const columns: readonly Column[] = [
  {
    id: 'instance',
    title: 'INSTANCE',
    key: 'i',
    align: 'left',
    width: idCells,
    most: 32,
    priority: 0,
    descending: false,
    sortValue: (row) => row.id,
    cell: (row, _view, _pool, width) => text(cutMiddle(row.id, width), width, 'left', 'strong'),
  },
  {
    id: 'provider',
    title: 'PROVIDER',
    key: 'p',
    align: 'left',
    width: fixed(8),
    priority: 1,
    descending: false,
    sortValue: (row) => row.provider,
    cell: (row, _view, _pool, width) => text(row.provider, width, 'left', 'dim'),
  },
  {
    id: 'active',
    title: 'ACTIVE',
    key: 'a',
    align: 'right',
    width: fixed(6),
    priority: 2,
    descending: true,
    sortValue: (row) => row.active,
    cell: (row, _view, _pool, width) =>
      text(count(row.active, width), width, 'right', row.active === 0 ? 'dim' : 'strong'),
  },
  {
    id: 'total',
    title: 'TOTAL',
    key: 't',
    align: 'right',
    width: fixed(6),
    priority: 3,
    descending: true,
    sortValue: (row) => row.total,
    cell: (row, _view, _pool, width) => text(count(row.total, width), width, 'right', row.total === 0 ? 'dim' : 'text'),
  },
  {
    id: 'avg',
    title: 'AVG RT',
    key: 'r',
    align: 'right',
    width: fixed(6),
    priority: 4,
    descending: true,
    sortValue: (row) => row.avgMs ?? -1,
    cell: (row, _view, pool, width) =>
      text(milliseconds(row.avgMs), width, 'right', slowness(row.avgMs, pool.medianAvgMs)),
  },
  {
    id: 'weight',
    title: 'WEIGHT',
    key: 'w',
    align: 'right',
    width: fixed(6),
    priority: 5,
    descending: true,
    sortValue: (row) => row.weight,
    cell: (row, _view, _pool, width) =>
      text(
        `${row.weight.toFixed(2)}${row.weightSource === 'operator' ? '!' : ''}`,
        width,
        'right',
        row.weightSource === 'operator' ? 'accent' : 'text',
      ),
  },
  {
    id: 'last',
    title: 'LAST RT',
    key: 'l',
    align: 'right',
    width: fixed(7),
    priority: 12,
    descending: true,
    sortValue: (row) => row.lastMs ?? -1,
    cell: (row, _view, pool, width) =>
      text(milliseconds(row.lastMs), width, 'right', slowness(row.lastMs, pool.medianAvgMs)),
  },
  {
    id: 'state',
    title: 'STATE',
    key: 's',
    align: 'left',
    width: stateCells,
    most: 10,
    priority: 6,
    descending: false,
    sortValue: (row) => stateRank(row.state),
    cell: (row, _view, _pool, width) => text(stateWord(row.state, width), width, 'left', stateStyle(row.state)),
  },
  {
    id: 'gpu',
    title: 'GPU',
    key: 'g',
    align: 'left',
    width: (pool) => (isNarrow(pool) ? 8 : 9),
    most: 16,
    priority: 7,
    descending: false,
    sortValue: (row) => `${gpuName(row.gpuModel)} ${row.gpuCount}`,
    cell: (row, _view, _pool, width) => text(shortGpu(row, width), width, 'left'),
  },
  {
    id: 'vram',
    title: 'VRAM',
    key: 'v',
    align: 'right',
    width: fixed(5),
    priority: 11,
    descending: true,
    sortValue: (row) => row.vramGb * row.gpuCount,
    cell: (row, _view, _pool, width) => text(row.vramGb > 0 ? `${row.vramGb}GB` : '-', width, 'right', 'dim'),
  },
  {
    id: 'price',
    title: '$/H',
    key: 'd',
    align: 'right',
    width: fixed(5),
    priority: 8,
    descending: true,
    sortValue: (row) => row.usdPerHour,
    cell: (row, _view, _pool, width) => text(priceCell(row.usdPerHour, width), width, 'right'),
  },
  {
    id: 'share',
    title: 'SHARE',
    key: 'h',
    align: 'right',
    // With a bar, or with what a strategy would change.
    width: (pool) => (pool.ghosts ? shareWithMore : 5),
    priority: 9,
    descending: true,
    sortValue: (row) => row.share,
    cell: (row, view, pool, width) => {
      if (width < shareWithMore) return text(percent(row.share), width, 'right', row.share === 0 ? 'dim' : 'text');
      const ghost = view.preview?.shares?.get(row.id);
      if (ghost !== undefined) {
        return [
          span(fitText(percent(row.share), 4, 'right'), 'dim'),
          span(fitText(view.glyphs.name === 'ascii' ? '>' : view.glyphs.arrow, 2, 'right'), 'dim'),
          span(fitText(percent(ghost), width - 6, 'right'), ghost > row.share * 1.1 ? 'warn' : 'accent'),
        ];
      }
      const [filled, empty] = barParts(pool.topShare > 0 ? row.share / pool.topShare : 0, width - 6, view.glyphs);
      return [span(fitText(percent(row.share), 5, 'right')), span(' '), span(filled, 'bar'), span(empty, 'rule')];
    },
  },
  {
    id: 'trend',
    title: 'TREND',
    key: 'n',
    align: 'left',
    width: fixed(6),
    most: 12,
    priority: 10,
    descending: true,
    sortValue: (row) => row.rps,
    cell: (row, view, _pool, width) => [
      span(sparkline(row.trend, width, view.glyphs, undefined, Math.ceil(60 / width)), 'spark'),
    ],
  },
  {
    id: 'used',
    title: 'LAST USED',
    key: 'u',
    align: 'right',
    width: fixed(9),
    priority: 13,
    descending: true,
    sortValue: (row) => row.lastUsedAt ?? 0,
    cell: (row, view, _pool, width) => {
      if (row.lastUsedAt === null) return text('never', width, 'right', 'dim');
      const ms = view.now - row.lastUsedAt;
      return text(ms < 1500 ? 'now' : `${age(ms)} ago`, width, 'right', ms < 1500 ? 'text' : 'dim');
    },
  },
  {
    id: 'rps',
    title: 'REQ/S',
    key: 'q',
    align: 'right',
    width: fixed(6),
    priority: 14,
    descending: true,
    sortValue: (row) => row.rps,
    cell: (row, _view, _pool, width) => text(rate(row.rps), width, 'right', row.rps === 0 ? 'dim' : 'text'),
  },
  {
    id: 'p95',
    title: 'P95',
    key: '9',
    align: 'right',
    width: fixed(7),
    priority: 15,
    descending: true,
    sortValue: (row) => row.p95Ms ?? -1,
    cell: (row, view, _pool, width) =>
      text(milliseconds(row.p95Ms), width, 'right', slowness(row.p95Ms, view.snapshot.traffic.p95Ms)),
  },
  {
    id: 'errors',
    title: 'ERR',
    key: 'e',
    align: 'right',
    width: fixed(5),
    priority: 16,
    descending: true,
    sortValue: (row) => row.errorRate,
    cell: (row, _view, _pool, width) =>
      text(
        percent(row.errorRate),
        width,
        'right',
        row.errorRate > 0.05 ? 'bad' : row.errorRate > 0.01 ? 'warn' : 'dim',
      ),
  },
  {
    id: 'location',
    title: 'LOCATION',
    key: 'o',
    align: 'left',
    width: fixed(14),
    priority: 17,
    descending: false,
    sortValue: (row) => row.location ?? '',
    cell: (row, _view, _pool, width) => text(row.location ?? '-', width, 'left', 'dim'),
  },
  {
    id: 'spent',
    title: 'SPENT',
    key: '$',
    align: 'right',
    width: fixed(8),
    priority: 18,
    descending: true,
    sortValue: (row) => row.spentUsd,
    cell: (row, _view, _pool, width) => text(amount(row.spentUsd), width, 'right'),
  },
  {
    id: 'left',
    title: 'LEFT',
    key: 'f',
    align: 'right',
    width: fixed(6),
    priority: 19,
    descending: false,
    sortValue: (row) => row.expiresAt ?? Number.POSITIVE_INFINITY,
    cell: (row, view, _pool, width) => {
      if (row.expiresAt === null) return text('-', width, 'right', 'dim');
      const ms = row.expiresAt - view.now;
      return text(age(Math.max(0, ms)), width, 'right', ms < 900_000 ? 'bad' : 'text');
    },
  },
];

function slowness(value: number | null, usual: number | null): Style {
  if (value === null) return 'dim';
  if (usual === null || usual <= 0) return 'text';
  if (value > usual * 3) return 'bad';
  return value > usual * 1.7 ? 'warn' : 'text';
}

/** `RTX 4090`, or `4x RTX 4090` when there are several. */
export function gpuLabel(row: Readonly<{ gpuModel: string; gpuCount: number }>): string {
  const name = gpuName(row.gpuModel);
  return row.gpuCount > 1 ? `${row.gpuCount}x ${name}` : name || '-';
}

/** `4x 4090` where `4x RTX 4090` does not fit, `2xH100 S~` in place of `2x H100 ~`: what tells models apart stays. */
function shortGpu(row: Readonly<{ gpuModel: string; gpuCount: number }>, width: number): string {
  const label = gpuLabel(row);
  const brief = label.replace(/\bRTX /, '');
  const tight = brief.replace(/^(\d+x) /, '$1');
  return [label, brief].find((text) => cellWidth(plainText(text)) <= width) ?? tight;
}

/** A price without its sign; cents go where they do not fit. */
function priceCell(usd: number, width: number): string {
  if (!(usd > 0)) return '-';
  const text = money(usd).slice(1);
  return text.length > width ? usd.toFixed(usd < 1000 ? 1 : 0) : text;
}

export function columnById(id: ColumnId): Column {
  const found = columns.find((column) => column.id === id);
  if (!found) throw new RangeError(`unknown column ${id}`);
  return found;
}

/** What the rows are compared with. */
export function poolOf(rows: readonly UpstreamView[]): Pool {
  const averages = rows
    .map((row) => row.avgMs)
    .filter((value) => value !== null)
    .sort((a, b) => a - b);
  let topShare = 0;
  for (const row of rows) {
    topShare = Math.max(topShare, row.share);
  }
  return {
    topShare,
    width: 0,
    ghosts: false,
    medianAvgMs: averages[Math.floor(averages.length / 2)] ?? null,
  };
}

export type Fitted = Readonly<{ shown: readonly Readonly<{ column: Column; width: number }>[]; dropped: number }>;

/** The columns that fit into `width` cells, by priority, in display order; one blank between two (two where there is room). */
export function fitColumns(
  width: number,
  usual: Pool,
  hidden: ReadonlySet<ColumnId>,
  ghosts = false,
): Fitted & { gap: number } {
  const pool = { ...usual, ghosts, width };
  const wanted = columns.filter((column) => !hidden.has(column.id));
  // What a strategy would change comes before the price while it is shown.
  const rank = (column: Column) =>
    ghosts && column.id === 'share' ? columnById('price').priority - 0.5 : column.priority;
  const widths = new Map<ColumnId, number>();
  let used = 0;
  for (const column of [...wanted].sort((a, b) => rank(a) - rank(b))) {
    const more = column.width(pool) + (widths.size > 0 ? 1 : 0);
    // What comes after it waits too: a narrow column in its place would go again in a wider table.
    if (used + more > width && widths.size > 0) break;
    widths.set(column.id, column.width(pool));
    used += more;
  }
  const grow = (id: ColumnId, most: number) => {
    const now = widths.get(id);
    if (now === undefined) return;
    const more = Math.max(0, Math.min(most - now, width - used));
    widths.set(id, now + more);
    used += more;
  };
  grow('gpu', 11);
  grow('instance', 20);
  if (width - used >= shareWithMore - 5) grow('share', shareWithMore);
  grow('trend', 8);
  grow('state', 10);
  const gap = used + widths.size - 1 <= width ? 2 : 1;
  if (gap === 2) used += widths.size - 1;
  for (const { id, most } of wanted) if (most !== undefined) grow(id, most);
  const shown = wanted
    .filter((column) => widths.has(column.id))
    .map((column) => ({ column, width: widths.get(column.id) ?? 0 }));
  return { shown, dropped: wanted.length - shown.length, gap };
}
