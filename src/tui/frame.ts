import { cellWidth, clockTime, fitText, plainText } from './format.ts';
import { type Layout, layout, type PaneId, type Rect, type SizeClass } from './layout.ts';
import { block, drawOver, fitLine, type Line, lineWidth, marked, type Style, span, spread } from './line.ts';
import { headerLines, healthLine } from './panes/header.ts';
import { panes } from './panes/index.ts';
import { peekLines } from './panes/instances.ts';
import type { Pane } from './panes/pane.ts';
import { keyFor, type View } from './view.ts';

/** Something drawn over the panes: a dialog or a page of its own. */
export type Drawable = Readonly<{
  title: string;
  /** The room it would like; it gets less on a small terminal. `page` takes everything between header and toast. */
  size(columns: number, rows: number): Readonly<{ width: number; height: number }> | 'page';
  lines(view: View, width: number, height: number): readonly Line[];
}>;

/** The whole screen: exactly `rows` lines of exactly `columns` cells. */
export function composeFrame(view: View, columns: number, rows: number, overlays: readonly Drawable[] = []): Line[] {
  const places = layout(columns, rows, { focus: view.focus, zoom: view.zoom });
  let screen: Line[] = block([], columns, rows);
  /** A part that fails says so in its place; the rest of the screen goes on. */
  const guarded = (name: string, draw: () => readonly Line[]): readonly Line[] => {
    try {
      return draw();
    } catch (error) {
      const why = error instanceof Error ? error.message : String(error);
      return [[span(` ${name} cannot be drawn: ${plainText(why)}`, 'bad')]];
    }
  };
  const put = (lines: readonly Line[], at: Rect) => {
    screen = drawOver(screen, block(lines, at.width, at.height), at.x, at.y);
  };
  if (places.size === 'tiny') {
    put(tinyLines(view, columns, rows), places.header);
    return drawOverlays(screen, view, columns, rows, overlays, places.size);
  }
  put(
    guarded('header', () => headerLines(view, columns)),
    places.header,
  );
  const page = overlays.find((overlay) => overlay.size(columns, rows) === 'page');
  if (page === undefined) {
    if (places.tabs) put([tabLine(view, columns)], places.tabs);
    for (const pane of panes) {
      const at = places.panes[pane.id];
      if (at)
        put(
          guarded(pane.title, () => paneLines(pane, view, at, places)),
          at,
        );
    }
    if (places.peek) {
      const title = view.selected === null ? 'PEEK' : `PEEK ${plainText(view.selected.id)}`;
      const at = places.peek;
      put([titleRule(title, 'enter details', at.width, view, false), ...peekLines(view, at.width, at.height - 1)], at);
    }
    for (const at of places.dividers) {
      put(
        Array.from({ length: at.height }, () => [span(view.glyphs.side, 'rule')]),
        at,
      );
    }
  }
  if (places.toast) put([toastLine(view, columns)], places.toast);
  if (places.footer) put([footerLine(view, columns)], places.footer);
  return drawOverlays(screen, view, columns, rows, overlays, places.size);
}

function paneLines(pane: Pane, view: View, at: Rect, places: Layout): readonly Line[] {
  const focused = view.focus === pane.id;
  const heading = pane.heading(view, at.width);
  const left = `${pane.title}${heading.left === '' ? '' : ` ${heading.left}`}`;
  // A pane that another one stands in for says its count and key there.
  const behind = places.size === 'strip' && (pane.id === 'providers' || pane.id === 'reservations');
  const other = behind ? panes.find((each) => places.panes[each.id] === undefined) : undefined;
  const otherTab =
    other === undefined
      ? []
      : [
          `${keyFor(view, `pane-${other.id}`, other.letter)} ${tabTitles[other.id][0].toLowerCase()} ${other.tab(view).text}`,
        ];
  // Where both do not fit the body says what the heading would have said.
  const right = [[...otherTab, heading.right].join(` ${view.glyphs.separator} `), ...otherTab];
  // The tab of a pane says its name and count already.
  const rule =
    places.tabs === null
      ? titleRule(left, right, at.width, view, focused, keyFor(view, `pane-${pane.id}`, pane.letter))
      : titleRule(heading.left === pane.tab(view).text ? '' : heading.left, heading.right, at.width, view, focused);
  const body = block(pane.body(view, at.width, at.height - 1, focused), at.width, at.height - 1);
  // What may not be true any more looks it, but for events, which stay what they were.
  const old = view.connection.state === 'stale' && pane.id !== 'events';
  return [rule, ...(old ? body.map(faded) : body)];
}

const faded = (line: Line): Line => line.map((part) => (part.style === 'selected' ? part : { ...part, style: 'dim' }));

/** `── TITLE ───────── right ──`, as wide as the pane; of several at the right the first that fits. */
export function titleRule(
  title: string,
  right: string | readonly string[],
  width: number,
  view: View,
  focused: boolean,
  letter: string | null = null,
): Line {
  const { rule } = view.glyphs;
  const style: Style = focused ? 'accent' : 'rule';
  const leftPart: Line = [
    span(rule.repeat(2), style),
    ...(title === '' ? [] : [span(` ${title} `, focused ? 'title' : 'strong')]),
    ...(letter === null ? [] : [span('(', 'dim'), span(letter, 'key'), span(') ', 'dim')]),
  ];
  const room = width - lineWidth(leftPart) - 6;
  const choices = typeof right === 'string' ? [right] : right;
  const chosen = choices.find((text) => plainText(text).length <= room) ?? choices[0] ?? '';
  const rightText = room < 4 ? '' : fitText(chosen, Math.min(room, plainText(chosen).length)).trimEnd();
  const rightPart: Line = rightText === '' ? [] : [span(` ${rightText} `, 'dim'), span(rule.repeat(2), style)];
  const fill = width - lineWidth(leftPart) - lineWidth(rightPart);
  return fitLine([...leftPart, span(rule.repeat(Math.max(0, fill)), style), ...rightPart], width);
}

/** Names of the tabs: whole ones, and short ones for where they do not fit. */
const tabTitles: Readonly<Record<PaneId, readonly [string, string]>> = {
  instances: ['Instances', 'Inst'],
  providers: ['Providers', 'Prov'],
  strategy: ['Strategy', 'Strat'],
  reservations: ['Reserved', 'Res'],
  events: ['Events', 'Ev'],
};

/** The pane whose tab stands at cell `x`; null beyond them. */
export function tabAt(view: View, width: number, x: number): PaneId | null {
  let end = 1;
  for (const pane of panes) {
    end += lineWidth(tabOf(pane, view, tabSize(view, width)));
    if (x < end) return pane.id;
  }
  return null;
}

type TabSize = 0 | 1;
const tabEnd: Line = [span('tab ', 'dim')];

function tabOf(pane: Pane, view: View, size: TabSize): Line {
  const tab = pane.tab(view);
  const here = view.focus === pane.id;
  return [
    span(here ? '[' : ' ', 'accent'),
    span([tabTitles[pane.id][size], tab.text].join(' ').trimEnd(), here ? 'title' : tab.alarm ? 'bad' : 'dim'),
    span(tab.alarm ? '!' : '', 'bad'),
    span(here ? ']' : ' ', 'accent'),
  ];
}

function tabSize(view: View, width: number): TabSize {
  const whole = panes.reduce((sum, pane) => sum + lineWidth(tabOf(pane, view, 0)), 1);
  return whole + lineWidth(tabEnd) <= width ? 0 : 1;
}

function tabLine(view: View, width: number): Line {
  const size = tabSize(view, width);
  return spread([span(' '), ...panes.flatMap((pane) => tabOf(pane, view, size))], tabEnd, width);
}

const toastWords = { info: 'INFO ', ok: 'OK ', warn: 'WARN ', error: 'ERROR ' } as const;
const toastStyles: Readonly<Record<'info' | 'ok' | 'warn' | 'error', Style>> = {
  info: 'info',
  ok: 'good',
  warn: 'warn',
  error: 'bad',
};

function toastLine(view: View, width: number): Line {
  if (view.prompt !== null) {
    const { label, text, error, wrong, result } = view.prompt;
    const caret = view.glyphs.name === 'ascii' ? '_' : '▏';
    const line: Line = [
      span(` ${label}`, 'key'),
      ...marked(plainText(text), wrong),
      span(caret, 'accent'),
      span(error === null ? '' : `  ${plainText(error)}`, 'warn'),
    ];
    const end: Line = result === '' ? [] : [span(`  ${result} `, 'dim')];
    return lineWidth(line) + lineWidth(end) <= width ? spread(line, end, width) : fitLine(line, width);
  }
  if (view.toast === null) {
    if (view.connection.state !== 'stale') return fitLine([], width);
    const why = view.connection.detail === null ? '' : ` (${plainText(view.connection.detail)})`;
    return fitLine(
      [
        span(` Disconnected${why}: `, 'bad'),
        span(`what is shown is of ${clockTime(view.snapshot.at)}; changes wait for it`, 'dim'),
      ],
      width,
    );
  }
  const { toast } = view;
  const undo =
    view.undo !== null && view.undo.until > view.clock
      ? [
          span(`  ${keyFor(view, 'undo', 'u')}`, 'key'),
          span(
            ` undo ${view.undo.told ? '' : `${view.undo.label} `}(${Math.ceil((view.undo.until - view.clock) / 1000)} s)`,
            'dim',
          ),
        ]
      : [];
  const words: Line = [
    span(' '),
    span(toastWords[toast.level], toastStyles[toast.level]),
    span(plainText(toast.text)),
    span(toast.times > 1 ? ` x${toast.times}` : '', 'dim'),
  ];
  // The way back stays to be read where the words must be cut.
  const most = width - lineWidth(undo);
  const left: Line = [...(lineWidth(words) > most ? fitLine(words, most) : words), ...undo];
  const cli: Line = toast.cli === null ? [] : [span('  CLI ', 'dim'), span(plainText(toast.cli), 'accent'), span(' ')];
  return lineWidth(left) + lineWidth(cli) <= width ? spread(left, cli, width) : fitLine(left, width);
}

function footerLine(view: View, width: number): Line {
  const need = ([key, words]: readonly [string, string]) => cellWidth(key) + cellWidth(words) + 3;
  // The way to every other key, and the way out, have a place at every width.
  const always = view.hints.filter(([key]) => key === keyFor(view, 'help', '?') || key === keyFor(view, 'quit', 'q'));
  const shown = new Set<readonly [string, string]>();
  let used = 1;
  for (const hint of [...always, ...view.hints]) {
    if (shown.has(hint) || used + need(hint) > width) continue;
    shown.add(hint);
    used += need(hint);
  }
  const spans = [span(' ')];
  for (const hint of view.hints) {
    if (shown.has(hint)) spans.push(span(hint[0], 'key'), span(` ${hint[1]}  `, 'dim'));
  }
  return fitLine(spans, width);
}

function tinyLines(view: View, columns: number, rows: number): Line[] {
  const lines: Line[] = [
    healthLine(view),
    [span(`${view.snapshot.strategy.name}`, 'accent')],
    [span(`panes need 60x15, now ${columns}x${rows}`, 'dim')],
    [
      span(keyFor(view, 'quit', 'q'), 'key'),
      span(' quit  ', 'dim'),
      span(keyFor(view, 'help', '?'), 'key'),
      span(' help', 'dim'),
    ],
  ];
  if (view.toast !== null) lines.push([span(plainText(view.toast.text), toastStyles[view.toast.level])]);
  return lines;
}

function drawOverlays(
  screen: Line[],
  view: View,
  columns: number,
  rows: number,
  overlays: readonly Drawable[],
  size: SizeClass,
): Line[] {
  let out = screen;
  for (const overlay of overlays) {
    const wanted = overlay.size(columns, rows);
    if (wanted === 'page') {
      const top = size === 'tiny' ? 0 : 2;
      const height = size === 'tiny' ? rows : rows - 4;
      const rule = titleRule(overlay.title, 'esc back', columns, view, true);
      const body = block(overlay.lines(view, columns, height - 1), columns, height - 1);
      out = drawOver(out, [rule, ...body], 0, top);
      continue;
    }
    const width = Math.min(columns, wanted.width);
    const height = Math.min(size === 'tiny' ? rows : rows - 2, wanted.height);
    const x = Math.floor((columns - width) / 2);
    const y = Math.max(0, Math.floor((rows - height) / 2) - (size === 'tiny' ? 0 : 1));
    out = drawOver(out, boxed(overlay.title, overlay.lines(view, width - 4, height - 2), width, height, view), x, y);
  }
  return out;
}

function boxed(title: string, lines: readonly Line[], width: number, height: number, view: View): Line[] {
  const { corners, rule, side } = view.glyphs;
  const name = fitText(` ${title} `, Math.min(Math.max(0, width - 4), plainText(title).length + 2));
  const top = fitLine(
    [
      span(corners[0] + rule, 'accent'),
      span(name, 'title'),
      span(rule.repeat(Math.max(0, width - 3 - name.length)) + corners[1], 'accent'),
    ],
    width,
  );
  const bottom = [span(corners[2] + rule.repeat(Math.max(0, width - 2)) + corners[3], 'accent')];
  const body = block(lines, width - 4, height - 2).map(
    (line): Line => [span(`${side} `, 'accent'), ...line, span(` ${side}`, 'accent')],
  );
  return [top, ...body, bottom].map((line) => fitLine(line, width));
}
