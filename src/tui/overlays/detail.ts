import { ttfbBoundsMs } from '../../core/load-table.ts';
import type { Decision, FinishedRequest } from '../../core/report.ts';
import type { UpstreamView } from '../../fleet/app.ts';
import { gpuLabel, stateStyle } from '../columns.ts';
import { commandForKey, keyName } from '../commands.ts';
import { type Dashboard, type Overlay, reasonOf } from '../dashboard.ts';
import {
  age,
  amount,
  barParts,
  clockTime,
  count,
  cutMiddle,
  fitText,
  milliseconds,
  money,
  percent,
  rate,
  sparkline,
  wrap,
} from '../format.ts';
import { block, fitLine, type Line, lineWidth, outside, span } from '../line.ts';
import { eventRow } from '../panes/events.ts';
import type { View } from '../view.ts';

export type DetailTab = 'overview' | 'requests' | 'decisions' | 'logs' | 'events';
const tabs: readonly DetailTab[] = ['overview', 'requests', 'decisions', 'logs', 'events'];

/** Upper bounds of the rows of the histogram, in ms: fixed, so that rows never jump. */
const rowBounds = [5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10_000, Number.POSITIVE_INFINITY];
const rowLabels = [
  '<5ms',
  '<10ms',
  '<25ms',
  '<50ms',
  '<100ms',
  '<250ms',
  '<500ms',
  '<1s',
  '<2.5s',
  '<5s',
  '<10s',
  '>10s',
];

/** Counts of the fine buckets gathered into the rows of the histogram. */
export function histogramRows(counts: readonly number[]): readonly Readonly<{ label: string; part: number }>[] {
  const sums = rowBounds.map(() => 0);
  let total = 0;
  for (const [index, value] of counts.entries()) {
    const bound = ttfbBoundsMs[index] ?? Number.POSITIVE_INFINITY;
    const row = rowBounds.findIndex((limit) => bound <= limit * 1.001);
    sums[row] = (sums[row] ?? 0) + value;
    total += value;
  }
  return rowBounds.map((_limit, index) => ({
    label: rowLabels[index] ?? '',
    part: total === 0 ? 0 : (sums[index] ?? 0) / total,
  }));
}

/** Commands about one instance that the page offers beside its own keys. */
const offered: ReadonlySet<string> = new Set([
  ...['drain', 'destroy', 'weight', 'weight-up', 'weight-down', 'extend-instance'],
  ...['copy-id', 'copy-cli', 'copy-origin'],
]);

type Loaded<T> =
  | Readonly<{ state: 'loading' }>
  | Readonly<{ state: 'ready'; value: T }>
  | Readonly<{ state: 'failed'; why: string }>;

/** Everything about one instance: its three states, latency against the pool, requests, decisions, logs, events. */
export function createDetailPage(dashboard: Dashboard, firstId: string, firstTab: DetailTab = 'overview'): Overlay {
  let id = firstId;
  let tab = firstTab;
  let top = 0;
  /** Lines that were shown last. */
  let page = 1;
  /** The newest log lines stay in sight, until one scrolls up. */
  let follow = true;
  let ghost = true;
  let requests: Loaded<readonly FinishedRequest[]> = { state: 'loading' };
  let decisions: Loaded<readonly Decision[]> = { state: 'loading' };
  let logs: Loaded<readonly string[]> = { state: 'loading' };
  let closed = false;

  const load = () => {
    const asked = id;
    const settle = <T>(promise: Promise<T>, set: (value: Loaded<T>) => void) => {
      promise
        .then((value): Loaded<T> => ({ state: 'ready', value }))
        .catch((error: unknown): Loaded<T> => ({ state: 'failed', why: reasonOf(error) }))
        .then((value) => {
          if (closed || asked !== id) return;
          set(value);
          dashboard.changed();
        });
    };
    settle(dashboard.app.requests({ instance: id, slowest: true, limit: 50 }), (value) => (requests = value));
    settle(dashboard.app.decisions({ instance: id, limit: 50 }), (value) => (decisions = value));
    if (tab === 'logs') settle(dashboard.app.logs(id, { tail: 500 }), (value) => (logs = value));
  };
  load();
  const timer = setInterval(() => {
    if (dashboard.view().pausedAt === null) load();
  }, 2000);

  const step = (by: number) => {
    const { rows } = dashboard.view();
    const at = rows.findIndex((row) => row.id === id);
    const next = rows[(at + by + rows.length) % Math.max(1, rows.length)];
    if (!next) return;
    id = next.id;
    top = 0;
    follow = true;
    requests = { state: 'loading' };
    decisions = { state: 'loading' };
    logs = { state: 'loading' };
    dashboard.update({ selectedId: id });
    load();
  };

  const overlay: Overlay = {
    get title() {
      return `INSTANCES > ${id}`;
    },
    get hints() {
      const key = (id: string): string =>
        keyName(dashboard.commands.find((command) => command.id === id)?.keys[0] ?? '');
      return [
        ['esc', 'back'],
        ['tab', 'next tab'],
        ['[ ]', 'previous, next'],
        ...(tab === 'overview'
          ? ([
              ['g', 'pool ghost'],
              ['l', 'logs'],
            ] as const)
          : ([
              ['j k', 'scroll'],
              ['G', tab === 'logs' ? 'newest' : 'end'],
            ] as const)),
        ...(dashboard.refusal() !== null
          ? []
          : ([
              [key('drain'), 'drain'],
              [key('destroy'), 'destroy'],
              [key('weight'), 'weight'],
            ] as const)),
        [key('copy-cli'), 'copy as CLI'],
      ] as const;
    },
    size: () => 'page',
    page: true,
    lines(view, width, height) {
      const row = view.snapshot.upstreams.find((one) => one.id === id);
      const bar: Line = tabs.flatMap(
        (name): Line => [
          span(name === tab ? ' [' : '  ', 'accent'),
          span(name, name === tab ? 'title' : 'dim'),
          span(name === tab ? ']' : ' ', 'accent'),
        ],
      );
      if (!row) return [bar, [], [span(`  ${id} is not there any more.`, 'warn')]];
      const room = height - 1;
      page = Math.max(1, room);
      const body =
        tab === 'overview'
          ? overview(row, view, width, room)
          : tab === 'requests'
            ? scrolled(requestLines(requests, width), room)
            : tab === 'decisions'
              ? scrolled(decisionLines(decisions, id, width), room)
              : tab === 'logs'
                ? scrolled(logLines(logs), room, follow)
                : scrolled(eventLines(view, id, width), room);
      return [bar, ...body];
    },
    key(key) {
      const frozen = dashboard.view().pausedAt !== null;
      if (frozen && (key === 'left' || key === 'right')) dashboard.scrub(key === 'left' ? -1 : 1);
      else if (key === 'tab' || key === 'right' || key === 'shift-tab' || key === 'left') {
        const by = key === 'tab' || key === 'right' ? 1 : tabs.length - 1;
        tab = tabs[(tabs.indexOf(tab) + by) % tabs.length] ?? 'overview';
        top = 0;
        follow = true;
        load();
      } else if (key === '[') step(-1);
      else if (key === ']') step(1);
      else if (key === 'g' && tab === 'overview') ghost = !ghost;
      else if (key === 'l') {
        tab = 'logs';
        follow = true;
        load();
      } else if (key === 'j' || key === 'down') scroll(1);
      else if (key === 'k' || key === 'up') scroll(-1);
      else if (key === 'pagedown') scroll(page);
      else if (key === 'pageup') scroll(-page);
      else if (key === 'home' || key === 'g') scroll(Number.NEGATIVE_INFINITY);
      else if (key === 'end' || key === 'G') scroll(Number.POSITIVE_INFINITY);
      else {
        const command = commandForKey(key, 'instances', dashboard.commands);
        if (command === undefined || !offered.has(command.id)) return false;
        // The same commands as in the table, about this instance alone.
        dashboard.update({ focus: 'instances', selectedId: id, marks: new Set() });
        dashboard.run(command);
      }
      return true;
    },
    closed() {
      closed = true;
      clearInterval(timer);
    },
  };

  function scroll(by: number): void {
    top = Math.max(0, top + by);
    if (by < 0) follow = false;
    else if (by === Number.POSITIVE_INFINITY) follow = true;
  }

  function scrolled(lines: readonly Line[], room: number, toEnd = false): readonly Line[] {
    const last = Math.max(0, lines.length - room);
    top = toEnd ? last : Math.min(top, last);
    return lines.slice(top, top + room);
  }

  function overview(row: UpstreamView, view: View, width: number, height: number): readonly Line[] {
    const lines: Line[] = [...identityLines(row, view, width), ...stateLines(row, view, width)];
    const wide = width >= 96;
    const left = wide ? Math.floor(width * 0.58) : width;
    const right = wide ? width - left - 3 : width;
    const histogram = histogramLines(row, view, left, ghost);
    const figures = figureLines(row, view, right);
    if (wide) {
      const tall = Math.max(histogram.length, figures.length);
      const a = block(histogram, left, tall);
      const b = block(figures, right, tall);
      for (let at = 0; at < tall; at += 1) {
        lines.push([...(a[at] ?? []), span(` ${view.glyphs.side} `, 'rule'), ...(b[at] ?? [])]);
      }
    } else lines.push(...histogram, ...figures);
    const rest = height - lines.length;
    if (rest >= 4) {
      lines.push(
        section('SLOWEST REQUESTS', width, view),
        ...requestLines(requests, width).slice(0, Math.ceil((rest - 2) / 2)),
      );
      const events = eventLines(view, id, width);
      const last = height - lines.length - 1;
      if (last >= 1) lines.push(section('EVENTS', width, view), ...events.slice(0, last));
    }
    return scrolled(lines, height);
  }

  return overlay;
}

const section = (title: string, width: number, view: View): Line => [
  span(view.glyphs.rule.repeat(2), 'rule'),
  span(` ${title} `, 'strong'),
  span(view.glyphs.rule.repeat(Math.max(0, width - title.length - 4)), 'rule'),
];

function identityLines(row: UpstreamView, view: View, width: number): Line[] {
  const left = row.expiresAt === null ? null : row.expiresAt - view.now;
  const known = (label: string, value: string): Line => [span(`${label} `, 'dim'), outside(value)];
  return [
    [
      span(' '),
      outside(row.state, stateStyle(row.state)),
      span('  '),
      outside(row.provider, 'accent'),
      outside(`  ${gpuLabel(row)}${row.vramGb > 0 ? ` ${row.vramGb}GB` : ''}`, 'strong'),
      span('  '),
      outside(row.location ?? '', 'dim'),
      ...(row.interruptible ? [span('  interruptible', 'warn')] : []),
    ],
    ...flowed(
      [
        known('origin', row.origin ?? 'none yet'),
        known('contract', row.contract ?? '-'),
        known('reservation', row.reservation ?? '-'),
        known('models', row.models === null ? 'any' : row.models.join(' ') || 'none'),
      ],
      width,
    ),
    ...flowed(
      [
        [span('price ', 'dim'), span(`${money(row.usdPerHour)}/h`, 'strong')],
        known('spent', amount(row.spentUsd)),
        ...(row.startedAt === null ? [] : [known('up', age(view.now - row.startedAt))]),
        ...(left === null
          ? []
          : [[span('time left ', 'dim'), span(age(left), left < 900_000 ? 'bad' : 'text')] as Line]),
        known('weight', `${row.weight.toFixed(2)} (${row.weightSource})`),
        known('ceiling', row.ceiling > 0 ? String(row.ceiling) : 'none'),
      ],
      width,
    ),
  ];
}

/** Pieces one after the other, each whole: one that does not fit begins the next line. */
function flowed(pieces: readonly Line[], width: number): Line[] {
  const lines: Line[] = [];
  for (const piece of pieces) {
    const line = lines.at(-1);
    if (line !== undefined && lineWidth(line) + 2 + lineWidth(piece) <= width) {
      lines[lines.length - 1] = [...line, span('  '), ...piece];
    } else lines.push([span(' '), ...piece]);
  }
  return lines;
}

function stateLines(row: UpstreamView, view: View, width: number): Line[] {
  const { lifecycle, admin, health } = row;
  const lifecycleNote =
    lifecycle.phase === 'ended'
      ? lifecycle.reason
      : 'detail' in lifecycle && lifecycle.detail !== null
        ? lifecycle.detail
        : `for ${age(view.now - lifecycle.at)}`;
  const adminNote =
    admin.mode === 'ready'
      ? 'may take requests'
      : admin.deadlineAt === null
        ? `${row.active} in flight, no deadline`
        : `${row.active} in flight, ${age(admin.deadlineAt - view.now)} to the deadline`;
  const healthNote =
    health.state === 'ejected'
      ? `${health.why}; ${health.times} in a row, again in ${age(health.untilAt - view.now)}`
      : health.state === 'backoff'
        ? `${health.why}; until ${clockTime(health.untilAt)}`
        : health.state === 'probation'
          ? 'one request decides'
          : health.state === 'unknown'
            ? 'no probe has passed yet'
            : 'answers probes and requests';
  return [
    [
      span(' provider says ', 'dim'),
      span(
        fitText(lifecycle.phase, 11),
        lifecycle.phase === 'running' ? 'good' : lifecycle.phase === 'halted' ? 'warn' : 'busy',
      ),
      outside(lifecycleNote, 'dim'),
    ],
    [
      span(' operator says ', 'dim'),
      span(fitText(admin.mode, 11), admin.mode === 'ready' ? 'good' : 'warn'),
      outside(adminNote, 'dim'),
    ],
    [
      span('  traffic says ', 'dim'),
      span(fitText(health.state, 11), health.state === 'up' ? 'good' : health.state === 'ejected' ? 'bad' : 'warn'),
      outside(healthNote, 'dim'),
      span(row.eligible ? '   eligible' : '   NOT eligible', row.eligible ? 'good' : 'bad'),
    ],
    ...(row.reason === ''
      ? []
      : wrap(row.reason, width - 16).map((text): Line => [span(fitText('', 15)), outside(text, 'warn')])),
  ];
}

function histogramLines(row: UpstreamView, view: View, width: number, ghost: boolean): Line[] {
  const mine = histogramRows(row.ttfbHistogram);
  const pool = histogramRows(view.snapshot.traffic.ttfbHistogram);
  const lines: Line[] = [
    [
      ...section('TIME TO FIRST BYTE', 24, view),
      span(ghost ? ` ${view.glyphs.ghost} pool` : '', 'dim'),
      span('  g', 'key'),
      span(ghost ? ' hides the pool' : ' shows the pool', 'dim'),
    ],
  ];
  const most = Math.max(0, ...mine.map((item) => item.part), ...(ghost ? pool.map((item) => item.part) : []));
  if (mine.every((item) => item.part === 0)) {
    return [...lines, [span('  no request has been answered yet', 'dim')]];
  }
  const markers = (low: number, high: number): string =>
    (
      [
        ['p50', row.p50Ms],
        ['p95', row.p95Ms],
        ['p99', row.p99Ms],
      ] as const
    )
      .filter(([, value]) => value !== null && value >= low && value < high)
      .map(([name, value]) => `${name} ${milliseconds(value)}`)
      .join(' ');
  const barWidth = Math.max(6, width - 44);
  for (const [index, item] of mine.entries()) {
    const other = pool[index]?.part ?? 0;
    const [filled, empty] = barParts(most === 0 ? 0 : item.part / most, barWidth, view.glyphs);
    // The pool is drawn where it reaches further than the instance.
    const reach = ghost ? Math.round((most === 0 ? 0 : other / most) * barWidth) : 0;
    const ghosts = Math.max(0, Math.min(empty.length, reach - (barWidth - empty.length)));
    lines.push([
      span(fitText(item.label, 7, 'right'), 'dim'),
      span(' '),
      span(filled, 'bar'),
      span(view.glyphs.ghost.repeat(ghosts), 'dim'),
      span(' '.repeat(empty.length - ghosts)),
      span(fitText(item.part === 0 ? '' : percent(item.part), 7, 'right')),
      span(ghost ? fitText(other === 0 ? '' : percent(other), 7, 'right') : '', 'dim'),
      span(
        `  ${markers(index === 0 ? 0 : (rowBounds[index - 1] ?? 0), rowBounds[index] ?? Number.POSITIVE_INFINITY)}`,
        'accent',
      ),
    ]);
  }
  const usual = view.snapshot.traffic.p95Ms;
  if (row.p95Ms !== null && usual !== null && usual > 0) {
    const factor = row.p95Ms / usual;
    lines.push([
      span(`  pool p95 ${milliseconds(usual)}: `, 'dim'),
      span(
        factor > 1.15
          ? `${factor.toFixed(1)}x slower than the pool`
          : factor < 0.87
            ? `${(1 / factor).toFixed(1)}x faster than the pool`
            : 'like the pool',
        factor > 2 ? 'bad' : factor > 1.3 ? 'warn' : 'good',
      ),
    ]);
  }
  return lines.map((line) => fitLine(line, width));
}

function figureLines(row: UpstreamView, view: View, width: number): Line[] {
  const label = (text: string) => span(fitText(text, 11), 'dim');
  const value = (text: string) => span(fitText(text, 9, 'right'), 'strong');
  const sparkWidth = Math.max(8, Math.min(60, width - 22));
  const lines: Line[] = [
    section('LAST 60 s', width, view),
    [
      label('requests/s'),
      value(rate(row.rps)),
      span('  '),
      span(sparkline(row.trend, sparkWidth, view.glyphs), 'spark'),
    ],
    [label('in flight'), value(String(row.active)), span(row.ceiling > 0 ? `  of ${row.ceiling}` : '', 'dim')],
    [label('share'), value(percent(row.share))],
    [label('errors'), span(fitText(percent(row.errorRate), 9, 'right'), row.errorRate > 0.05 ? 'bad' : 'strong')],
    [label('average RT'), value(milliseconds(row.avgMs))],
    [label('last RT'), value(milliseconds(row.lastMs))],
    [label('total'), value(count(row.total, 9))],
    section('ENDINGS since it joined', width, view),
  ];
  for (const [name, times] of Object.entries(row.endings)) {
    if (times === 0) continue;
    const good = name === 'complete';
    lines.push([
      span(fitText(name.replaceAll('_', ' '), 20), good ? 'good' : 'dim'),
      span(fitText(count(times, 9), 10, 'right')),
    ]);
  }
  return lines;
}

function waiting<T>(loaded: Loaded<readonly T[]>, what: string): Line[] | null {
  if (loaded.state === 'loading') return [[span('  loading', 'busy')]];
  if (loaded.state === 'failed') return [[outside(`  ${loaded.why}`, 'warn')]];
  return loaded.value.length === 0 ? [[span(`  no ${what}`, 'dim')]] : null;
}

function requestLines(loaded: Loaded<readonly FinishedRequest[]>, width: number): Line[] {
  const early = waiting(loaded, 'requests are kept');
  if (early !== null || loaded.state !== 'ready') return early ?? [];
  return loaded.value.map((request) => [
    span(` ${clockTime(request.at)}  `, 'dim'),
    outside(fitText(`${request.method} ${request.path}`, width >= 110 ? 36 : 25)),
    span(
      ` ${request.status === 0 ? '---' : request.status} `,
      request.status >= 500 || request.status === 0 ? 'bad' : request.status >= 400 ? 'warn' : 'good',
    ),
    span(fitText(milliseconds(request.totalMs), 8, 'right'), 'strong'),
    span(' ttfb ', 'dim'),
    span(fitText(milliseconds(request.ttfbMs), 6, 'right')),
    outside(request.cause === 'complete' ? '' : `  ${request.cause.replaceAll('_', ' ')}`, 'warn'),
    span(request.attempts > 1 ? `  ${request.attempts} attempts` : '', 'warn'),
    outside(request.model === null ? '' : `  ${request.model}`, 'dim'),
    outside(`  ${request.id}`, 'dim'),
  ]);
}

function decisionLines(loaded: Loaded<readonly Decision[]>, id: string, width: number): Line[] {
  const early = waiting(loaded, 'decisions are kept');
  if (early !== null || loaded.state !== 'ready') return early ?? [];
  const to = width >= 110 ? 32 : 18;
  return loaded.value
    .toSorted((a, b) => b.at - a.at)
    .map((decision) => {
      const own = decision.candidates.find((candidate) => candidate.id === id);
      const open = decision.candidates.filter((candidate) => candidate.excluded === null);
      const won = decision.winner === id;
      return [
        span(` ${clockTime(decision.at)}  `, 'dim'),
        span(fitText(decision.strategy, 21)),
        outside(
          `${fitText(won ? 'chosen' : `to ${cutMiddle(decision.winner ?? 'nobody', to - 3)}`, to)} `,
          won ? 'good' : 'dim',
        ),
        outside(
          own === undefined
            ? 'was not a candidate'
            : own.excluded !== null
              ? `excluded: ${own.excluded}`
              : `score ${own.score === null ? '-' : own.score.toFixed(1)} among ${open.length}`,
          own?.excluded == null ? 'text' : 'warn',
        ),
        span(decision.ending === null ? '' : `  ${decision.ending}`, 'dim'),
        span(decision.ttfbMs === null ? '' : `  ttfb ${milliseconds(decision.ttfbMs)}`, 'dim'),
      ];
    });
}

function logLines(loaded: Loaded<readonly string[]>): Line[] {
  const early = waiting(loaded, 'log lines');
  if (early !== null || loaded.state !== 'ready') return early ?? [];
  return loaded.value.map((line) => [outside(` ${line}`)]);
}

function eventLines(view: View, id: string, width: number): Line[] {
  const own = view.events.filter((event) => event.subject === id);
  if (own.length === 0) return [[span('  no event about it is kept', 'dim')]];
  return own.toReversed().map((event) => eventRow(event, width));
}
