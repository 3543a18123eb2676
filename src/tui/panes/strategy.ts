import { type StrategyName, strategyNames } from '../../core/domain.ts';
import { counted } from '../../core/words.ts';
import { cutMiddle, fitText, milliseconds, percent, wrap } from '../format.ts';
import { fitLine, type Line, type Span, span, textOf } from '../line.ts';
import type { PreviewState } from '../preview.ts';
import { strategyNotes } from '../strategy-notes.ts';
import { isBlocked, keyFor, type View } from '../view.ts';
import { strategyKnown } from './header.ts';
import type { Pane } from './pane.ts';

/** The picker: a digit switches at once, the cursor previews. */
export const strategyPane: Pane = {
  id: 'strategy',
  title: 'STRATEGY',
  letter: 's',
  length: () => strategyNames.length,
  heading: (view) => ({
    left: '',
    right: isBlocked(view) ? '' : view.focus === 'strategy' ? 'enter applies, esc keeps' : '1-5 switch',
  }),
  // Its number would look like a count, and its name stands in the header.
  tab: () => ({ text: '', alarm: false }),
  body: (view, width, height, focused) => {
    const active = strategyKnown(view) ? view.snapshot.strategy.name : null;
    const lines: Line[] = strategyNames.map((name, index) => {
      const here = focused && view.cursors.strategy === index;
      const spans: Span[] = [
        span(here ? view.glyphs.cursor : ' ', 'key'),
        span(' '),
        span(String(index + 1), 'key'),
        span(` ${name === active ? view.glyphs.on : view.glyphs.off} `, name === active ? 'good' : 'dim'),
        span(fitText(name, nameCells), name === active ? 'strong' : 'text'),
        ...(name === view.strategyChangingTo ? [span('applying', 'busy')] : purpose(name, view, width)),
      ];
      return here ? [span(textOf(fitLine(spans, width)), 'selected')] : spans;
    });
    const shown = focused ? strategyNames[view.cursors.strategy] : active;
    if (shown == null) return lines;
    // Where it is low, what a switch would do matters more than the rule.
    const room = height - lines.length;
    if (view.preview !== null && room < 5) return [...lines, ...briefPreview(view.preview, view).slice(0, room)];
    const preview = previewLines(view, focused);
    const most = view.preview === null ? room : Math.max(1, room - preview.length);
    lines.push(...noteLines(shown, view, width, most));
    return [...lines, ...preview.slice(0, Math.max(0, height - lines.length))];
  },
};

/** Cells of the widest rule, and of what stands before it. */
const ruleCells = 20;
const nameCells = 21;

/** How much of the use case has room beside every name, 0 for all of it, and whether the rule has too. */
function roomBeside(view: View, width: number): Readonly<{ rule: boolean; size: 0 | 1 | 2 }> {
  const room = width - nameCells - view.glyphs.on.length - 5;
  const widest = (size: 0 | 1 | 2) => Math.max(...strategyNames.map((name) => strategyNotes[name].uses[size].length));
  const size = ([0, 1] as const).find((each) => widest(each) <= room) ?? 2;
  return { rule: room >= ruleCells + widest(0), size };
}

/** What a strategy is for, as far as there is room beside its name. */
function purpose(name: StrategyName, view: View, width: number): Span[] {
  const { rule, uses } = strategyNotes[name];
  const beside = roomBeside(view, width);
  return [...(beside.rule ? [span(fitText(rule, ruleCells), 'text')] : []), span(uses[beside.size], 'dim')];
}

/** Of what stands not beside the names: how the one under the cursor picks, and in full what it is for. */
function noteLines(name: StrategyName, view: View, width: number, most: number): Line[] {
  const { rule, uses } = strategyNotes[name];
  const beside = roomBeside(view, width);
  if (beside.rule || most < 1) return [];
  const whole = beside.size === 0 ? [] : wrap(`${rule}: ${uses[0]}`, width - 3);
  if (whole.length === 0 || whole.length > most) return [[span(`  ${rule}`, 'accent')]];
  return whole.map(
    (text, row): Line =>
      row === 0
        ? [span(`  ${text.slice(0, rule.length + 1)}`, 'accent'), span(text.slice(rule.length + 1), 'dim')]
        : [span(`  ${text}`, 'dim')],
  );
}

/** The result first, then what it is worth; one line holds both where there is no room for two. */
function briefPreview(preview: PreviewState, view: View): Line[] {
  const error = preview.modelError === null ? 'unchecked' : `err ${percent(preview.modelError)}`;
  if (preview.why !== null) return [[span(`  ${preview.why}`, 'warn')]];
  const arrow = view.glyphs.name === 'ascii' ? '->' : view.glyphs.arrow;
  const hottest = (shares: Iterable<number>) => percent(Math.max(0, ...shares));
  const hotNow = hottest(view.snapshot.upstreams.map((row) => row.share));
  const hot = preview.shares === null ? '' : ` hot ${hotNow}${arrow}${hottest(preview.shares.values())}`;
  return [
    [
      span('  model ', 'dim'),
      span(`p95 ${milliseconds(preview.nowP95Ms)}${arrow}${milliseconds(preview.predictedP95Ms)}${hot}`, 'strong'),
      span(` ${error}`, 'dim'),
    ],
    [span(`  of ${counted(preview.requests, 'request')} of the last minute`, 'dim')],
  ];
}

function previewLines(view: View, focused: boolean): Line[] {
  const preview = view.preview;
  if (preview === null) {
    const { source } = view.snapshot.strategy;
    const chosen =
      source === 'LB_STRATEGY' ? 'LB_STRATEGY chose it' : source === 'saved' ? 'your last choice' : 'the default';
    const how = focused ? 'arrows' : `${keyFor(view, 'pane-strategy', 's')} and arrows`;
    return [[span(`  ${chosen}; ${how} preview another`, 'dim')]];
  }
  const error = preview.modelError === null ? ', unchecked' : `, error ${percent(preview.modelError)}`;
  const title: Line = [
    span('  PREVIEW ', 'head'),
    span(`model of ${counted(preview.requests, 'request')}${error}`, 'dim'),
  ];
  if (preview.why !== null) return [title, [span(`  ${preview.why}`, 'warn')]];
  const arrow = view.glyphs.name === 'ascii' ? '->' : view.glyphs.arrow;
  const lines: Line[] = [
    title,
    comparison('p95 whole answer', milliseconds(preview.nowP95Ms), milliseconds(preview.predictedP95Ms), arrow),
  ];
  if (preview.shares !== null) {
    const now = new Map(view.snapshot.upstreams.map((row) => [row.id, row.share]));
    const hottestNow = Math.max(0, ...now.values());
    const hottestThen = Math.max(0, ...preview.shares.values());
    lines.push(comparison('hottest share', percent(hottestNow), percent(hottestThen), arrow));
    let mover: string | null = null;
    let most = 0;
    for (const [id, share] of preview.shares) {
      const change = Math.abs(share - (now.get(id) ?? 0));
      if (change > most) {
        most = change;
        mover = id;
      }
    }
    if (mover !== null) {
      lines.push(
        comparison(
          `moves ${cutMiddle(mover, 18)}`,
          percent(now.get(mover) ?? 0),
          percent(preview.shares.get(mover) ?? 0),
          arrow,
        ),
      );
    }
  }
  return lines;
}

function comparison(label: string, before: string, after: string, arrow: string): Line {
  return [
    span(`  ${fitText(label, 24)}`, 'dim'),
    span(fitText(before, 7, 'right')),
    span(` ${arrow} `, 'dim'),
    span(after, 'strong'),
  ];
}
