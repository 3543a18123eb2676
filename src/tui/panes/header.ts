import { counted } from '../../core/words.ts';
import {
  age,
  amount,
  clockTime,
  count,
  fitText,
  milliseconds,
  money,
  percent,
  plainText,
  rate,
  sparkline,
} from '../format.ts';
import { fitLine, type Line, lineWidth, type Span, span } from '../line.ts';
import { keyFor, type View } from '../view.ts';

type Segment = Readonly<{ line: Line; priority: number }>;

/** The segments that fit, in their order, `gap` between them; the least important go first. */
export function joinSegments(segments: readonly Segment[], width: number, gap: Span): Line {
  return joined(fitting(segments, width, gap.text.length), gap);
}

/** What remains when the least important, and of two equal ones the later, are left out until the rest fits. */
function fitting(segments: readonly Segment[], width: number, gap: number): readonly Segment[] {
  const kept = [...segments];
  const total = () => kept.reduce((sum, segment) => sum + lineWidth(segment.line) + gap, -gap);
  while (kept.length > 1 && total() > width) {
    let worst = 0;
    for (const [index, segment] of kept.entries()) if (segment.priority >= (kept[worst]?.priority ?? 0)) worst = index;
    kept.splice(worst, 1);
  }
  return kept;
}

const joined = (segments: readonly Segment[], gap: Span): Line =>
  segments.flatMap((segment, index) => (index === 0 ? segment.line : [gap, ...segment.line]));

/** Cells of the longest age below a hundred days: what grows moves nothing beside it. */
const ageCells = 6;
/** Sums below a hundred keep their place; a greater one is shown whole. */
const atLeast = (text: string, least: number): string => text.padStart(least);

/** The two lines at the top: who and where, then traffic, fleet and money. Numbers keep their place. */
export function headerLines(view: View, width: number): Line[] {
  return [identity(view, width), numbers(view, width)];
}

function identity(view: View, width: number): Line {
  const { snapshot } = view;
  const left: Segment[] = [{ priority: 0, line: [span(' gpuproxy ', 'brand')] }];
  if (view.label !== '') {
    // Which server or recording it is must be seen; that it is the one in this process may go.
    const remote = view.label !== 'local';
    const name = remote && width < 120 ? view.label.replace(/^http:\/\//, '') : view.label;
    left.push({ priority: remote ? 1 : 5, line: [span(fitText(name, Math.min(name.length, 40)), 'accent')] });
  }
  const banner = plainText(snapshot.mode.banner ?? '');
  const bannerAt = left.length;
  if (view.readonly) left.push({ priority: 3, line: [span('[READ-ONLY]', 'warn')] });
  if (!snapshot.mode.balancing) left.push({ priority: 3, line: [span('LB OFF: failover only', 'warn')] });
  left.push({ priority: 7, line: [span(`up ${fitText(age(view.now - snapshot.startedAt), ageCells)}`, 'dim')] });
  if (snapshot.mode.proxyUrl !== null) {
    left.push({
      priority: 8,
      line: [span('traffic ', 'dim'), span(plainText(snapshot.mode.proxyUrl)), ...apiPart(snapshot.mode.apiUrl)],
    });
  }

  const { name, source, since } = snapshot.strategy;
  const chosen: Segment[] = [
    {
      priority: 1,
      line: [
        span(name, 'title'),
        ...(view.strategyChangingTo === null
          ? []
          : [span(` ${view.glyphs.name === 'ascii' ? '->' : view.glyphs.arrow} ${view.strategyChangingTo}`, 'busy')]),
      ],
    },
    // The variable wins at every start: a switch made here lasts until then.
    ...(source === 'LB_STRATEGY' ? [{ priority: 4, line: [span('by LB_STRATEGY', 'dim')] }] : []),
    { priority: 6, line: [span(`for ${fitText(age(view.now - since), ageCells)}`, 'dim')] },
  ];
  const fresh: Segment = {
    priority: view.connection.state === 'live' && view.pausedAt === null ? 3 : 0,
    line: [connectionSpan(view)],
  };
  const right: Segment[] = [
    ...(strategyKnown(view) ? chosen : []),
    fresh,
    { priority: 4, line: [span(keyFor(view, 'help', '?'), 'key'), span(' help', 'dim')] },
    { priority: 6, line: [span(keyFor(view, 'palette', ':'), 'key'), span(' commands', 'dim')] },
  ];
  const gap = span('  ');
  const fits = (words: string) => {
    const shown = [...left];
    if (words !== '') shown.splice(bannerAt, 0, { priority: 2, line: [span(` ${words} `, 'banner')] });
    return { shown, kept: new Set(fitting([...shown, ...right], width - 1, gap.text.length)) };
  };
  const whole = fits(banner);
  // Whether the picture is fresh is worth more than the second half of the banner.
  const { shown, kept } = width >= 100 && whole.kept.has(fresh) ? whole : fits(banner.replace(/:.*/, ''));
  const rightLine = joined(
    right.filter((segment) => kept.has(segment)),
    gap,
  );
  const leftLine = joined(
    shown.filter((segment) => kept.has(segment)),
    gap,
  );
  return fitLine([...fitLine(leftLine, width - lineWidth(rightLine) - 1), ...rightLine, span(' ')], width);
}

/** Before the start only the variable says which strategy it will be. */
export const strategyKnown = (view: View): boolean =>
  view.connection.state !== 'starting' || view.snapshot.strategy.source === 'LB_STRATEGY';

function apiPart(url: string | null): Line {
  return url === null ? [] : [span('  api ', 'dim'), span(plainText(url))];
}

export function connectionSpan(view: View): Span {
  if (view.pausedAt !== null) return span(`PAUSED at ${clockTime(view.pausedAt)}`, 'warn');
  if (view.connection.state === 'replay') return span(`REPLAY ${view.connection.detail ?? ''}`.trimEnd(), 'warn');
  if (view.connection.state === 'starting') return span('STARTING', 'busy');
  if (view.connection.state === 'stale') {
    const retry = view.connection.retryAt;
    const next =
      retry === null || retry <= view.clock
        ? 'connecting'
        : `retry in ${age(retry - view.clock + 999)} (${keyFor(view, 'refresh', 'R')} now)`;
    return span(`STALE ${age(view.clock - view.connection.since)}, ${next}`, 'bad');
  }
  return span(view.refreshMs === 250 ? 'LIVE 4/s' : `LIVE every ${view.refreshMs / 1000}s`, 'good');
}

/** GPUs in rotation and GPUs we hold. */
export function gpuCounts(view: View): Readonly<{ up: number; all: number; instancesUp: number }> {
  let up = 0;
  let all = 0;
  let instancesUp = 0;
  for (const row of view.snapshot.upstreams) {
    if (row.lifecycle.phase === 'ended') continue;
    const gpus = Math.max(1, row.gpuCount);
    all += gpus;
    if (row.eligible) {
      up += gpus;
      instancesUp += 1;
    }
  }
  return { up, all, instancesUp };
}

function numbers(view: View, width: number): Line {
  const { traffic, cost } = view.snapshot;
  const gpus = gpuCounts(view);
  const errorStyle = traffic.errorRate > 0.05 ? 'bad' : traffic.errorRate > 0.01 ? 'warn' : 'good';
  const label = (text: string): Span => span(text, 'dim');
  const cap = cost.maxUsdPerHour;
  const overBudget = cap !== null && cost.usdPerHour > cap * 0.9;
  const segments: Segment[] = [
    {
      priority: 0,
      line: [label('req/s '), span(fitText(rate(traffic.rps), 5, 'right'), 'strong')],
    },
    { priority: 7, line: [span(sparkline(traffic.trend, 12, view.glyphs, undefined, 5), 'spark')] },
    { priority: 4, line: [label('in-flight '), span(fitText(count(traffic.inFlight, 4), 4, 'right'), 'strong')] },
    {
      priority: 6,
      line: [
        label('queue '),
        span(fitText(count(traffic.queued, 3), 3, 'right'), traffic.queued > 0 ? 'warn' : 'text'),
      ],
    },
    { priority: 2, line: [label('err '), span(fitText(percent(traffic.errorRate), 5, 'right'), errorStyle)] },
    {
      priority: 8,
      line: [label('TTFB p50 '), span(fitText(milliseconds(traffic.p50Ms), 6, 'right'))],
    },
    { priority: 3, line: [label('p95 '), span(fitText(milliseconds(traffic.p95Ms), 6, 'right'), 'strong')] },
    { priority: 9, line: [label('p99 '), span(fitText(milliseconds(traffic.p99Ms), 6, 'right'))] },
    {
      priority: 1,
      line: [
        label('GPUs '),
        span(
          fitText(`${gpus.up}/${gpus.all}`, Math.max(5, 2 * String(gpus.all).length + 1), 'right'),
          gpus.up === 0 ? 'bad' : gpus.up < gpus.all ? 'warn' : 'good',
        ),
        label(' up'),
      ],
    },
    {
      priority: 1,
      line: [span(atLeast(`${money(cost.usdPerHour)}/h`, 8), overBudget ? 'warn' : 'strong')],
    },
    {
      priority: 5,
      line: [label('today '), span(atLeast(amount(cost.spentTodayUsd), 6))],
    },
    { priority: 10, line: [label('total '), span(atLeast(amount(cost.spentUsd), 6))] },
    ...(cap === null ? [] : [{ priority: 6, line: [label('limit '), span(`${money(cap)}/h`)] }]),
    { priority: 11, line: [label('retries '), span(count(traffic.retries, 6))] },
  ];
  return fitLine([span(' '), ...joinSegments(segments, width - 2, span('  '))], width);
}

/** All of it in one line, for terminals too small for panes. */
export function healthLine(view: View): Line {
  const { traffic, cost } = view.snapshot;
  const gpus = gpuCounts(view);
  return [
    span(`${rate(traffic.rps)} r/s`, 'strong'),
    span(` err ${percent(traffic.errorRate)}`, traffic.errorRate > 0.01 ? 'warn' : 'text'),
    span(` ${gpus.up}/${counted(gpus.all, 'GPU')}`, gpus.up === 0 ? 'bad' : 'text'),
    span(` ${money(cost.usdPerHour)}/h`),
  ];
}
