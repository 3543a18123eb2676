import { counted, gpuName } from '../../core/words.ts';
import { type ColumnId, columnById, type Fitted, fitColumns, type Pool, poolOf, stateStyle } from '../columns.ts';
import { age, amount, areaChart, count, fitText, milliseconds, money, percent, rate, sparkline } from '../format.ts';
import { fitLine, type Line, outside, type Span, span, textOf } from '../line.ts';
import { keyFor, type View } from '../view.ts';
import { type Pane, scrollTo } from './pane.ts';

/** The load table: one row an instance, the columns of `gpuproxy load` first. */
export const instancesPane: Pane = {
  id: 'instances',
  title: 'INSTANCES',
  letter: 'i',
  length: (view) => view.rows.length,
  above: () => 1,
  heading: (view, width) => {
    const all = view.snapshot.upstreams.length;
    const shown = view.rows.length;
    const column = columnById(view.sort.column);
    const down = column.descending !== view.sort.reverse;
    const { dropped } = fittedColumns(view, width);
    return {
      left: shown === all ? String(all) : `${shown} of ${all}`,
      right: [
        ...(view.marks.size > 0 ? [`${view.marks.size} marked`] : []),
        ...(view.filter === '' ? [] : [`filter ${view.filter}`]),
        `sort ${column.title} ${down ? view.glyphs.down : view.glyphs.up}`,
        // How many columns there is no room for, and where to choose others.
        ...(dropped === 0 || all === 0 ? [] : [`+${counted(dropped, 'column')} (${keyFor(view, 'columns', 'W')})`]),
      ].join(` ${view.glyphs.separator} `),
    };
  },
  tab: (view) => ({
    text: String(view.snapshot.upstreams.length),
    alarm: view.snapshot.upstreams.some((row) => row.state === 'DOWN' || row.state === 'FAILED'),
  }),
  body: (view, width, height, focused) => {
    if (view.snapshot.upstreams.length === 0) return emptyFleet(view, width);
    const pool = poolOf(view.rows.length > 0 ? view.rows : view.snapshot.upstreams);
    const fitted = fittedColumns(view, width, pool);
    const gap = span(' '.repeat(fitted.gap));
    const lines: Line[] = [headings(view, fitted, gap)];
    if (view.rows.length === 0) {
      return [
        ...lines,
        [],
        [span(`   nothing matches "${view.filter}"`, 'warn')],
        [span('   esc clears the filter', 'dim')],
      ];
    }
    const room = height - 1;
    const overflow = view.rows.length > room;
    const listHeight = overflow ? room - 1 : room;
    const cursor = view.cursors.instances;
    const first = scrollTo(cursor, view.rows.length, listHeight, view.offsets.instances);
    view.offsets.instances = first;
    view.pages.instances = listHeight;
    for (const [index, row] of view.rows.slice(first, first + listHeight).entries()) {
      const here = first + index === cursor;
      const marked = view.marks.has(row.id);
      const spans: Span[] = [
        span(here ? view.glyphs.cursor : ' ', here ? 'key' : 'text'),
        span(marked ? view.glyphs.mark : ' ', 'marked'),
      ];
      for (const [at, { column, width: cells }] of fitted.shown.entries()) {
        if (at > 0) spans.push(gap);
        spans.push(...column.cell(row, view, pool, cells));
      }
      lines.push(here && focused ? [span(textOf(fitLine(spans, width)), 'selected')] : spans);
    }
    if (overflow) {
      const below = view.rows.length - first - listHeight;
      lines.push([
        span(
          `   ${first > 0 ? `${count(first)} above` : ''}${first > 0 && below > 0 ? ', ' : ''}${below > 0 ? `${count(below)} below` : ''}`,
          'dim',
        ),
      ]);
    }
    const spare = height - lines.length;
    return spare >= 8 ? [...lines, ...trafficChart(view, width, spare)] : lines;
  },
};

/** The columns of a table of this width. */
export const fittedColumns = (view: View, width: number, pool: Pool = poolOf([])): ReturnType<typeof fitColumns> =>
  fitColumns(width - 3, pool, view.hiddenColumns, view.preview?.shares != null);

/** The column whose heading stands at cell `x` of a table of this width; null between and beyond them. */
export function columnAt(view: View, width: number, x: number): ColumnId | null {
  const { shown, gap } = fittedColumns(view, width);
  let from = 2;
  for (const { column, width: cells } of shown) {
    if (x >= from && x < from + cells) return column.id;
    from += cells + gap;
  }
  return null;
}

function headings(view: View, fitted: Fitted, gap: Span): Line {
  const spans: Span[] = [span('  ')];
  for (const [at, { column, width }] of fitted.shown.entries()) {
    if (at > 0) spans.push(gap);
    spans.push(span(fitText(column.title, width, column.align), view.sort.column === column.id ? 'accent' : 'head'));
  }
  return spans;
}

/** The requests of the last minute, drawn where the table leaves room. */
function trafficChart(view: View, width: number, room: number): Line[] {
  const { trend, rps } = view.snapshot.traffic;
  if (trend.length < 2) return [];
  const height = Math.min(8, room - 3);
  const top = Math.max(1, ...trend.filter(Number.isFinite));
  // Always a whole minute, so that a second keeps its width.
  const minute = [...Array.from({ length: Math.max(0, 60 - trend.length) }, () => 0), ...trend.slice(-60)];
  const scale = 8;
  const blanks: Line[] = Array.from({ length: room - height - 2 }, () => []);
  const axisWidth = width - scale - 2;
  const rows = areaChart(minute, axisWidth, height, view.glyphs, top).map(
    (text, row): Line => [
      span(fitText(row === 0 ? rate(top) : row === height - 1 ? '0' : '', scale - 1, 'right'), 'dim'),
      span(` ${view.glyphs.side}`, 'rule'),
      span(text, 'spark'),
    ],
  );
  const axis: Line = [span(' '.repeat(scale + 1)), span(timeAxis(axisWidth), 'dim')];
  return [...blanks, [span('  REQUESTS/S', 'head'), span(`  last 60 s, now ${rate(rps)}`, 'dim')], ...rows, axis];
}

/** `-60s … -30s … now` in exactly `width` cells, each word where its moment stands. */
export function timeAxis(width: number): string {
  const parts = width >= 60 ? 4 : 2;
  let out = '';
  for (let part = 0; part < parts; part += 1) {
    const at = Math.round((part * width) / parts);
    out = `${out.padEnd(at)}-${60 - (60 / parts) * part}s`;
  }
  return `${out.padEnd(width - 3)}now`;
}

function emptyFleet(view: View, width: number): Line[] {
  if (view.connection.state === 'starting') {
    return [[], [span('  Starting.', 'busy'), span(' Keys typed now count as soon as it runs.', 'dim')]];
  }
  const lines: Line[] = [
    [],
    [span('  No instances yet.', 'strong')],
    [],
    [
      span('  '),
      span(keyFor(view, 'reserve', 'r'), 'key'),
      span('  reserve GPUs: they appear here while they boot and get traffic when they pass the probe'),
    ],
    [
      span('  '),
      span(keyFor(view, 'pane-providers', 'P'), 'key'),
      span('  what the providers have, then Enter for their offers'),
    ],
    [span('  '), span(keyFor(view, 'help', '?'), 'key'), span('  all keys')],
  ];
  const available = view.snapshot.providers.reduce((sum, provider) => sum + provider.available, 0);
  if (available > 0)
    lines.push(
      [],
      [span(`  ${count(available)} ${available === 1 ? 'instance is' : 'instances are'} rentable now.`, 'dim')],
    );
  return lines.map((line) => fitLine(line, width));
}

/** Three lines about the selected instance. */
export function peekLines(view: View, width: number, height: number): Line[] {
  const row = view.selected;
  if (row === null) return [[span(' nothing selected', 'dim')]];
  const lines: Line[] = [
    [
      span(' '),
      outside(row.state, stateStyle(row.state)),
      span('  '),
      outside(
        [
          // Of a server of one's own the hardware is not known.
          ...(row.gpuCount === 0 ? [] : [`${row.gpuCount}x ${gpuName(row.gpuModel)}`]),
          ...(row.vramGb > 0 ? [`${row.vramGb}GB`] : []),
        ].join(' ') || row.provider,
      ),
      outside(row.location === null ? '' : `  ${row.location}`, 'dim'),
    ],
  ];
  if (row.reason !== '') lines.push([span(' '), outside(row.reason, stateStyle(row.state))]);
  lines.push([
    span(' '),
    // Nobody is paid for it.
    ...(row.provider === 'static'
      ? [span('your own', 'dim')]
      : [span(`${money(row.usdPerHour)}/h`, 'strong'), span('  spent ', 'dim'), span(amount(row.spentUsd))]),
    ...(row.startedAt === null ? [] : [span('  up ', 'dim'), span(age(view.now - row.startedAt))]),
    ...(row.expiresAt === null ? [] : [span('  left ', 'dim'), span(age(row.expiresAt - view.now))]),
  ]);
  if (height >= 5) {
    lines.push([
      span(' p50 ', 'dim'),
      span(milliseconds(row.p50Ms)),
      span('  p95 ', 'dim'),
      span(milliseconds(row.p95Ms), 'strong'),
      span('  p99 ', 'dim'),
      span(milliseconds(row.p99Ms)),
      span('  err ', 'dim'),
      span(percent(row.errorRate), row.errorRate > 0.01 ? 'warn' : 'text'),
    ]);
    lines.push([
      span(` ${rate(row.rps).padStart(5)} r/s `, 'strong'),
      span(sparkline(row.trend, Math.max(4, width - 13), view.glyphs), 'spark'),
    ]);
    lines.push([span(' '), outside(row.origin ?? 'no address yet', 'accent')]);
    lines.push([span(' models ', 'dim'), outside(row.models === null ? 'any' : row.models.join(' ') || 'none')]);
    if (row.reservation !== null) lines.push([span(' reserved by ', 'dim'), outside(row.reservation)]);
  }
  return lines.slice(0, height).map((line) => fitLine(line, width));
}
