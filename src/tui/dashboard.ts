import { type StrategyName, strategyNames } from '../core/domain.ts';
import { keptRequests } from '../core/report.ts';
import { counted } from '../core/words.ts';
import { type App, AppError, type FleetEvent, type Snapshot, type UpstreamView } from '../fleet/app.ts';
import { type ColumnId, columnById } from './columns.ts';
import {
  type Command,
  commandForKey,
  commandHints,
  commandOnPage,
  keyName,
  commands as usualCommands,
} from './commands.ts';
import { parseFilter } from './filter.ts';
import { age, asciiGlyphs, type Glyphs, milliseconds, unicodeGlyphs } from './format.ts';
import { composeFrame, type Drawable, tabAt } from './frame.ts';
import { createHistory } from './history.ts';
import type { Key } from './keys.ts';
import { layout, type PaneId, paneIds } from './layout.ts';
import type { Line } from './line.ts';
import { paneById } from './panes/index.ts';
import { columnAt } from './panes/instances.ts';
import type { DashboardPreferences, PreferenceStore } from './preferences.ts';
import { readPreferences } from './preferences.ts';
import { leastRequests, observedP95, type Predict, type PreviewState, predictByReplay, previewOf } from './preview.ts';
import { createOpenRentals, type OpenRentals } from './rentals.ts';
import type { TerminalReport } from './terminal-input.ts';
import { type ColorLevel, paint, type ThemeName, themes } from './theme.ts';
import type { Connection, SortOrder, Toast, ToastLevel, View } from './view.ts';

/** Source of the connection's state; absent for a system in this process. */
export interface ConnectionSource {
  get(): Connection;
  subscribe(listener: () => void): () => void;
  /** Makes the next attempt now in place of later; absent where nothing is ever lost. */
  retry?(): void;
}

export type DashboardSettings = Readonly<{
  app: App;
  columns: number;
  rows: number;
  color: ColorLevel;
  /** `ascii` where the terminal can draw no more. */
  glyphs?: 'unicode' | 'ascii';
  /** Wins over what is kept. */
  theme?: ThemeName;
  label?: string;
  readonly?: boolean;
  /** Commands with the keys of a keymap; their own keys when absent. */
  commands?: readonly Command[] | undefined;
  preferences?: PreferenceStore | undefined;
  connection?: ConnectionSource | undefined;
  /** What the preview of a strategy asks; the model of the core when absent. */
  predict?: Predict | undefined;
  /** Wall clock in ms. */
  now?: () => number;
  /** Called when the person wants to leave. */
  onQuit?: () => void;
  /** Called on Ctrl-Z. */
  onSuspend?: () => void;
  /** Writes a text to the clipboard; false when there is no way. */
  copy?: (text: string) => boolean;
  /** Saves text and data of the current view; resolves with the path. */
  save?: (name: string, content: string) => Promise<string>;
  /** Switches mouse reports of the terminal; absent where there are none. */
  onMouse?: (on: boolean) => void;
  /** Asks the terminal to be drawn anew. */
  onRedraw?: () => void;
  /** Called once when a frame cannot be made at all; nothing is drawn after it. Without it the error is thrown. */
  onFailure?: (error: unknown) => void;
}>;

/** A dialog or page: it gets every key while it is open. */
export interface Overlay extends Drawable {
  /** For the footer. */
  readonly hints: readonly (readonly [string, string])[];
  /** Nothing is typed in it: keys that it has no use for do what they do everywhere. */
  readonly page?: boolean;
  /** Called with every key; Escape closes it when this returns false. */
  key(key: Key): boolean;
  /** Pasted text, newlines included. Without this method pastes are dropped. */
  paste?(text: string): void;
  /** Called once when it is closed. */
  closed?(): void;
}

export type Prompt = Readonly<{
  label: string;
  text: string;
  error: string | null;
  /** Texts that up and down go through, the newest first. */
  earlier?: readonly string[];
  change(text: string): string | null;
  /** The word of the text that is not understood. */
  wrong?(text: string): string | null;
  /** What the text leads to, at the end of the line. */
  result?(shown: number, all: number): string;
  submit(text: string): void;
  cancel(): void;
}>;

export type UiState = Readonly<{
  focus: PaneId;
  zoom: boolean;
  cursors: Readonly<Record<PaneId, number>>;
  /** The instance under the cursor; it follows the instance when rows move. */
  selectedId: string | null;
  marks: ReadonlySet<string>;
  sort: SortOrder;
  filter: string;
  hiddenColumns: ReadonlySet<ColumnId>;
  /** Filters that were used, the newest first. */
  filters: readonly string[];
  eventLevel: 'all' | 'warn';
  refreshMs: number;
  theme: ThemeName;
  glyphs: Glyphs;
  mouse: boolean;
}>;

/**
 * The dashboard without a terminal: takes keys, pastes, sizes and data, gives rows of text. Everything that the screen
 * shows comes from here, so that it can be tried without a terminal.
 */
export interface Dashboard {
  readonly app: App;
  readonly commands: readonly Command[];
  readonly readonly: boolean;
  readonly ui: UiState;
  readonly overlays: readonly Overlay[];
  /** What this dashboard is renting. */
  readonly rentals: OpenRentals;
  /** The system runs elsewhere and goes on without this dashboard. */
  readonly remote: boolean;
  readonly now: () => number;
  /** Rows as painted text; the same reference while nothing visible changed. */
  frame(): readonly string[];
  /** The same rows with the meaning of each piece. */
  lines(): readonly Line[];
  view(): View;
  subscribe(listener: () => void): () => void;
  resize(columns: number, rows: number): void;
  press(keys: readonly Key[]): void;
  paste(text: string): void;
  /** What the terminal reports beside keys: a click selects, sorts and focuses, a second one opens; the wheel scrolls. */
  report(report: TerminalReport): void;
  update(patch: Partial<UiState>): void;
  /** Keeps a filter among those that up and down bring back. */
  rememberFilter(text: string): void;
  /** Something visible may have changed: draw now. */
  changed(): void;
  open(overlay: Overlay): void;
  close(overlay?: Overlay): void;
  ask(prompt: Omit<Prompt, 'error' | 'text'> & { text?: string }): void;
  /** Says something in the line of messages: for a time, and no longer than it is true where `holds` tells. */
  toast(level: ToastLevel, text: string, cli?: string | null, holds?: () => boolean): void;
  /** Why nothing may be changed right now; null when it may. */
  refusal(): string | null;
  run(command: Command): void;
  switchStrategy(name: StrategyName): void;
  /** Runs an action of the App: errors become a message, never an exception. True when it worked. */
  act(label: string, action: () => Promise<string | undefined>, cli?: string | null): Promise<boolean>;
  offerUndo(label: string, run: () => void): void;
  undo(): void;
  pause(on?: boolean): void;
  /** Goes so many seconds back (negative) or forward through the kept pictures while frozen, at least to the next. */
  scrub(seconds: number): void;
  refreshNow(): void;
  copy(text: string, what: string): void;
  /** Writes one file for each extension, under one name. */
  save(name: string, contents: Readonly<Record<string, string>>): Promise<void>;
  /** True when the same thing was asked for twice within three seconds; the first time it warns. */
  confirmedTwice(what: string, warning: string): boolean;
  quit(): void;
  suspend(): void;
  redraw(): void;
  dispose(): void;
}

const undoMs = 10_000;
const checkMs = 60_000;
const filtersKept = 20;
const resortMs = 2000;
const eventsKept = 1000;
const againMs = 3000;
const toastMs: Readonly<Record<ToastLevel, number>> = {
  info: 6000,
  ok: 10_000,
  warn: 15_000,
  error: Number.POSITIVE_INFINITY,
};

/** Between two frames of which the second brings something new. */
const earlyMs = 50;

const always = () => true;

const live: Connection = { state: 'live', since: 0, retryAt: null, detail: null };

/** One line for a person about anything that was thrown. */
export function reasonOf(error: unknown): string {
  if (error instanceof AppError) {
    const more = error.details.filter((detail) => !error.message.includes(detail));
    return [error.message, ...more].join('; ');
  }
  return error instanceof Error ? error.message : String(error);
}

function sameLines(a: readonly Line[], b: readonly Line[]): boolean {
  return (
    a.length === b.length &&
    a.every((line, row) => {
      const other = b[row];
      return (
        other !== undefined &&
        line.length === other.length &&
        line.every((part, at) => part.text === other[at]?.text && part.style === other[at]?.style)
      );
    })
  );
}

export function createDashboard(settings: DashboardSettings): Dashboard {
  const { app, commands = usualCommands } = settings;
  const ownKeys = new Map(
    commands
      .filter((command) => usualCommands.find((usual) => usual.id === command.id)?.keys !== command.keys)
      .map((command) => [command.id, keyName(command.keys[0] ?? '')] as const),
  );
  const now = settings.now ?? Date.now;
  const kept: DashboardPreferences = readPreferences(settings.preferences);
  const listeners = new Set<() => void>();
  const history = createHistory();
  const zero = Object.fromEntries(paneIds.map((id) => [id, 0])) as Record<PaneId, number>;
  const offsets = { ...zero };
  const pages = { ...zero };

  let columns = settings.columns;
  let rows = settings.rows;
  let snapshot = app.state.get();
  let events: FleetEvent[] = [...app.events.recent()].slice(-eventsKept);
  let ui: UiState = {
    focus: 'instances',
    zoom: false,
    cursors: zero,
    selectedId: null,
    marks: new Set(),
    sort: kept.sort ?? { column: 'instance', reverse: false },
    filter: '',
    hiddenColumns: new Set(kept.hiddenColumns ?? []),
    filters: kept.filters ?? [],
    eventLevel: 'all',
    refreshMs: kept.refreshMs ?? 250,
    theme: settings.theme ?? kept.theme ?? 'terminal',
    // What the terminal cannot draw is not drawn, whatever was chosen on another one.
    glyphs: settings.glyphs === 'ascii' || kept.glyphs === 'ascii' ? asciiGlyphs : unicodeGlyphs,
    mouse: false,
  };
  /** Chosen here or kept from before: a flag of one start is not kept. */
  let chosen: Pick<DashboardPreferences, 'theme' | 'glyphs'> = { theme: kept.theme, glyphs: kept.glyphs };
  let overlays: Overlay[] = [];
  let prompt: Prompt | null = null;
  let toast: Toast | null = null;
  let toastHolds: () => boolean = always;
  let undoable: { label: string; until: number; run: () => void; told: Toast | null } | null = null;
  let changingTo: StrategyName | null = null;
  let preview: PreviewState | null = null;
  /** What the model said of a strategy that was then applied: checked against the traffic a minute later. */
  let predicted: Readonly<{ strategy: StrategyName; p95Ms: number; at: number }> | null = null;
  let told = 0;
  /** When the server was lost; null while it is there. */
  let lostAt: number | null = null;
  let paused: Snapshot | null = null;
  let frameRows: readonly string[] | null = null;
  let frameTheme: ThemeName = ui.theme;
  let frameLines: readonly Line[] = [];
  let flushTimer: ReturnType<typeof setTimeout> | null = null;
  let lastFlush = 0;
  let flushesEarly = false;
  let disposed = false;
  /** False while the terminal says that it has no focus: then once a second is enough. */
  let watched = true;
  /** What the server said when the key was not good for changes. */
  let keyReads: string | null = null;
  let pressed: { pane: PaneId; row: number; at: number } | null = null;
  let asked: { what: string; at: number } | null = null;

  /** The newest event when the events were last looked at. */
  let seen: FleetEvent | undefined;

  let order: string[] = [];
  let orderKey = '';
  let sortedAt = Number.NEGATIVE_INFINITY;
  /** The view while its hints are made. */
  let making: View | null = null;
  let orderedFor: Snapshot | null = null;
  let orderedRows: readonly UpstreamView[] = [];

  const isReadonly = (): boolean => settings.readonly === true || keyReads !== null;
  const shownSnapshot = (): Snapshot => paused ?? snapshot;

  /** Rows change places at most every two seconds, so that a row can be read and chosen. */
  function orderRows(shown: Snapshot): readonly UpstreamView[] {
    const key = `${ui.sort.column} ${ui.sort.reverse} ${ui.filter}`;
    if (orderedFor === shown && key === orderKey && now() - sortedAt < resortMs) return orderedRows;
    const filter = parseFilter(ui.filter);
    const passing = filter.error === null ? shown.upstreams.filter((row) => filter.matches(row)) : [...shown.upstreams];
    const byId = new Map(passing.map((row) => [row.id, row]));
    const stable = key === orderKey && now() - sortedAt < resortMs && order.length === byId.size;
    if (stable && order.every((id) => byId.has(id))) {
      orderedRows = order.map((id) => byId.get(id)).filter((row) => row !== undefined);
    } else {
      const column = columnById(ui.sort.column);
      const sign = column.descending !== ui.sort.reverse ? -1 : 1;
      const values = new Map(passing.map((row) => [row, column.sortValue(row)]));
      orderedRows = passing.sort((a, b) => {
        const left = values.get(a) ?? 0;
        const right = values.get(b) ?? 0;
        const compared =
          typeof left === 'number' && typeof right === 'number'
            ? left - right
            : String(left).localeCompare(String(right));
        return compared === 0 || Number.isNaN(compared) ? a.id.localeCompare(b.id) : compared * sign;
      });
      order = orderedRows.map((row) => row.id);
      orderKey = key;
      sortedAt = now();
    }
    orderedFor = shown;
    return orderedRows;
  }

  function makeView(): View {
    const shown = shownSnapshot();
    const at = paused === null ? now() : shown.at;
    if (ui.marks.size > 0 && paused === null) {
      const living = new Set(shown.upstreams.filter((row) => ui.marks.has(row.id)).map((row) => row.id));
      if (living.size < ui.marks.size) ui = { ...ui, marks: living };
    }
    const ordered = orderRows(shown);
    let cursor = ui.selectedId === null ? -1 : ordered.findIndex((row) => row.id === ui.selectedId);
    if (cursor === -1) {
      cursor = Math.min(ui.cursors.instances, Math.max(0, ordered.length - 1));
      ui = { ...ui, selectedId: ordered[cursor]?.id ?? null };
    }
    const shownEvents = events.filter(
      (event) =>
        (paused === null || event.at <= shown.at) &&
        (ui.eventLevel === 'all' || event.level === 'warn' || event.level === 'error'),
    );
    if (ui.focus === 'events' && paused === null) seen = events.at(-1);
    const news = events.slice(seen === undefined ? 0 : events.lastIndexOf(seen) + 1);
    const cursors: Record<PaneId, number> = { ...ui.cursors, instances: cursor };
    const base = {
      snapshot: shown,
      now: at,
      clock: now(),
      keys: ownKeys,
      glyphs: ui.glyphs,
      focus: ui.focus,
      zoom: ui.zoom,
      rows: ordered,
      selected: ordered[cursor] ?? null,
      cursors,
      offsets,
      pages,
      marks: ui.marks,
      sort: ui.sort,
      filter: ui.filter,
      hiddenColumns: ui.hiddenColumns,
      events: shownEvents,
      eventLevel: ui.eventLevel,
      unseen: {
        warnings: news.filter((event) => event.level === 'warn').length,
        errors: news.filter((event) => event.level === 'error').length,
      },
      connection: settings.connection?.get() ?? live,
      readonly: isReadonly(),
      label: settings.label ?? '',
      pausedAt: paused === null ? null : shown.at,
      refreshMs: refreshMs(),
      strategyChangingTo: changingTo,
      preview: ui.focus === 'strategy' ? preview : null,
      toast,
      undo: undoable === null ? null : { label: undoable.label, until: undoable.until, told: undoable.told === toast },
      prompt:
        prompt === null
          ? null
          : {
              label: prompt.label,
              text: prompt.text,
              error: prompt.error,
              wrong: prompt.wrong?.(prompt.text) ?? null,
              result: prompt.result?.(ordered.length, shown.upstreams.length) ?? '',
            },
    };
    for (const id of paneIds) {
      if (id !== 'instances') cursors[id] = placeCursor(id, { ...base, hints: [] });
    }
    const top = overlays.at(-1);
    // Commands look at the view to say whether they can be done now.
    making = { ...base, hints: [] };
    try {
      return { ...base, hints: prompt === null ? (top?.hints ?? commandHints(dashboard)) : promptHints(prompt) };
    } finally {
      making = null;
    }
  }

  /** What the cursor of a pane stands on, and where it stood then: it follows its item when others come and go. */
  const standsOn = new Map<PaneId, Readonly<{ at: number; item: string }>>();

  function placeCursor(id: PaneId, view: View): number {
    const pane = paneById(id);
    const wanted = ui.cursors[id];
    const clamped = Math.max(0, Math.min(wanted, pane.length(view) - 1));
    const { items } = pane;
    if (items === undefined || (items.newestFirst === true && wanted === 0)) return clamped;
    const before = standsOn.get(id);
    const kept = before?.at === wanted && items.at(view, clamped) !== before.item ? items.rowOf(view, before.item) : -1;
    const at = kept === -1 ? clamped : kept;
    const item = items.at(view, at);
    if (item === undefined) standsOn.delete(id);
    else standsOn.set(id, { at, item });
    if (at !== wanted) ui = { ...ui, cursors: { ...ui.cursors, [id]: at } };
    return at;
  }

  const promptHints = ({ earlier = [] }: Prompt): readonly (readonly [string, string])[] => [
    ...(earlier.length === 0 ? [] : [['up', 'earlier'] as const]),
    ['enter', 'accept'],
    ['esc', 'cancel'],
  ];

  /** What cannot be shown at all ends the dashboard in an orderly way; null then. */
  function guarded<T>(make: () => T): T | null {
    try {
      return make();
    } catch (error) {
      if (settings.onFailure === undefined) throw error;
      if (!disposed) settings.onFailure(error);
      disposed = true;
      return null;
    }
  }

  function draw(): void {
    if (disposed) return;
    if (toast !== null && now() - toast.at > toastMs[toast.level]) toast = null;
    if (undoable !== null && now() > undoable.until) undoable = null;
    const next = guarded(() => {
      if (toast !== null && !toastHolds()) toast = null;
      return composeFrame(makeView(), columns, rows, overlays);
    });
    if (next === null) return;
    // The same reference for an unchanged picture: nothing is committed and nothing is written.
    if (sameLines(next, frameLines) && ui.theme === frameTheme) return;
    frameLines = next;
    frameTheme = ui.theme;
    frameRows = null;
    for (const listener of listeners) listener();
  }

  /** Something that only this dashboard knows of, among the events. */
  function note(level: FleetEvent['level'], kind: string, message: string): void {
    told += 1;
    const event: FleetEvent = { id: -told, at: now(), level, kind, subject: null, message };
    events = [...events.slice(-(eventsKept - 1)), event];
  }

  function noteConnection(): void {
    const { state, since, detail } = settings.connection?.get() ?? live;
    if (state === 'stale' && lostAt === null) {
      lostAt = since;
      note('warn', 'connection', `the server is lost${detail === null ? '' : ` (${detail})`}; what is shown is old`);
    } else if (state === 'live' && lostAt !== null) {
      note('ok', 'connection', `the server is back after ${age(now() - lostAt)}`);
      lostAt = null;
    }
  }

  /** A minute after a previewed switch: what the model said, and what came. */
  async function checkPrediction(): Promise<void> {
    const said = predicted;
    if (said === null || now() - said.at < checkMs) return;
    predicted = null;
    if (snapshot.strategy.name !== said.strategy) return;
    try {
      const since = (await app.requests({ limit: keptRequests })).filter((request) => request.at >= said.at);
      const p95Ms = observedP95(since);
      const came =
        since.length < leastRequests || p95Ms === null
          ? `too little traffic to check: ${counted(since.length, 'request')}`
          : `${milliseconds(p95Ms)} came`;
      note('info', 'preview', `${said.strategy}: p95 ${milliseconds(said.p95Ms)} was predicted, ${came}`);
    } catch (error) {
      note('warn', 'preview', `${said.strategy}: the prediction could not be checked: ${reasonOf(error)}`);
    }
    if (paused === null) draw();
  }

  /** Takes the newest data. Frozen: the pictures are kept for walking through them. */
  function take(): void {
    if (flushTimer !== null) clearTimeout(flushTimer);
    flushTimer = null;
    lastFlush = now();
    const next = app.state.get();
    if (next === snapshot) return;
    if (next.startedAt !== snapshot.startedAt) note('warn', 'connection', 'the server was started again');
    guarded(() => history.add(next));
    snapshot = next;
  }

  function flush(): void {
    take();
    if (paused === null) draw();
  }

  function refresh(): void {
    take();
    draw();
  }

  function schedule(): void {
    if (disposed || (flushTimer !== null && flushesEarly)) return;
    const early = watched && paused === null && guarded(() => turnsUp(app.state.get())) === true;
    if (flushTimer !== null) {
      if (!early) return;
      clearTimeout(flushTimer);
    }
    flushesEarly = early;
    const every = early ? earlyMs : refreshMs();
    const wait = Math.min(every, Math.max(0, every - (now() - lastFlush)));
    flushTimer = setTimeout(flush, wait);
  }

  /** An instance that comes or goes and the first answer of a provider are shown at once; what counts up waits its turn. */
  function turnsUp(next: Snapshot): boolean {
    return (
      next.upstreams.length !== snapshot.upstreams.length ||
      next.providers.some(({ status }, at) => status !== 'loading' && snapshot.providers[at]?.status === 'loading')
    );
  }

  /** While nobody looks, or the picture is frozen, once a second is enough: so far apart are the pictures that are kept. */
  const refreshMs = (): number => (watched && paused === null ? ui.refreshMs : Math.max(1000, ui.refreshMs));

  function point({ kind, x, y }: Exclude<TerminalReport, { kind: 'focus' }>): void {
    if (kind !== 'press') {
      const key = kind === 'wheel-up' ? 'up' : 'down';
      dashboard.press([key, key, key]);
      return;
    }
    if (overlays.length > 0) return;
    const view = makeView();
    const places = layout(columns, rows, { focus: ui.focus, zoom: ui.zoom });
    const tab = places.tabs?.y === y ? tabAt(view, columns, x) : null;
    const pane =
      tab ??
      paneIds.find((id) => {
        const at = places.panes[id];
        return at !== undefined && x >= at.x && x < at.x + at.width && y >= at.y && y < at.y + at.height;
      });
    if (pane === undefined) return;
    const place = places.panes[pane];
    const { above, length } = paneById(pane);
    const row = y - (place?.y ?? 0) - 1 - (above?.(view) ?? 0);
    const index = offsets[pane] + row;
    const column = pane === 'instances' && row === -1 && place ? columnAt(view, place.width, x - place.x) : null;
    dashboard.update({ focus: pane });
    if (column !== null) {
      dashboard.update({ sort: { column, reverse: ui.sort.column === column && !ui.sort.reverse } });
    } else if (tab === null && row >= 0 && index < length(view)) {
      const again = pressed?.pane === pane && pressed.row === index && now() - pressed.at < 500;
      pressed = { pane, row: index, at: now() };
      dashboard.update({
        cursors: { ...ui.cursors, [pane]: index },
        ...(pane === 'instances' ? { selectedId: view.rows[index]?.id ?? null } : {}),
      });
      if (again) dashboard.press(['enter']);
    }
    draw();
  }

  async function saveLooks(): Promise<void> {
    try {
      await settings.preferences?.write({
        ...(chosen.theme === undefined ? {} : { theme: chosen.theme }),
        ...(chosen.glyphs === undefined ? {} : { glyphs: chosen.glyphs }),
        refreshMs: ui.refreshMs as NonNullable<DashboardPreferences['refreshMs']>,
        sort: ui.sort,
        hiddenColumns: [...ui.hiddenColumns],
        filters: [...ui.filters],
      });
    } catch (error) {
      dashboard.toast('warn', `preferences are not kept: ${reasonOf(error)}`);
      draw();
    }
  }

  function promptKey(key: Key): void {
    if (prompt === null) return;
    if (key === 'escape' || key === 'ctrl-c') {
      const { cancel } = prompt;
      prompt = null;
      cancel();
    } else if (key === 'enter') {
      const { submit, text, change } = prompt;
      const error = change(text);
      // What is not understood can be mended where it stands.
      prompt = error === null ? null : { ...prompt, error };
      if (error === null) submit(text);
    } else if (key === 'backspace' || key === 'delete') {
      setPrompt([...prompt.text].slice(0, -1).join(''));
    } else if (key === 'up' || key === 'down') {
      const earlier = prompt.earlier ?? [];
      const at = earlier.indexOf(prompt.text) + (key === 'up' ? 1 : -1);
      if (at < earlier.length) setPrompt(earlier[at] ?? '');
    } else if (key === 'ctrl-u') {
      setPrompt('');
    } else if (key === 'space') {
      setPrompt(`${prompt.text} `);
    } else if ([...key].length === 1) {
      setPrompt(prompt.text + key);
    }
  }

  function setPrompt(text: string): void {
    if (prompt === null) return;
    prompt = { ...prompt, text: text.slice(0, 500) };
    prompt = { ...prompt, error: prompt.change(prompt.text) };
  }

  function pressOne(key: Key): void {
    if (toast?.level === 'error' && now() - toast.at > 1000) toast = null;
    if (prompt !== null) {
      promptKey(key);
      return;
    }
    const top = overlays.at(-1);
    if (top !== undefined) {
      if (top.key(key)) return;
      if (key === 'escape' || key === 'ctrl-c' || key === 'q') dashboard.close(top);
      else if (key === 'ctrl-z') dashboard.suspend();
      else if (key === 'ctrl-l') dashboard.redraw();
      else if (top.page === true) {
        const command = commandOnPage(key, commands);
        if (command) dashboard.run(command);
      }
      return;
    }
    const command = commandForKey(key, ui.focus, commands);
    if (command) dashboard.run(command);
  }

  const dashboard: Dashboard = {
    app,
    commands,
    get readonly() {
      return isReadonly();
    },
    now,
    get ui() {
      return ui;
    },
    get overlays() {
      return overlays;
    },
    rentals: createOpenRentals(),
    remote: settings.connection !== undefined,
    frame() {
      frameRows ??= frameLines.map((line) => paint(line, themes[frameTheme], settings.color));
      return frameRows;
    },
    lines: () => frameLines,
    view: () => making ?? makeView(),
    subscribe(listener) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    resize(newColumns, newRows) {
      if (newColumns === columns && newRows === rows) return;
      columns = newColumns;
      rows = newRows;
      draw();
    },
    press(keys) {
      take();
      for (const key of keys) pressOne(key);
      draw();
    },
    paste(text) {
      if (prompt !== null) setPrompt(prompt.text + text.replace(/\s+/g, ' ').trim());
      else overlays.at(-1)?.paste?.(text);
      draw();
    },
    report(report) {
      if (report.kind === 'focus') {
        watched = report.on;
        if (watched) refresh();
      } else if (prompt === null) point(report);
    },
    update(patch) {
      const before = ui;
      ui = { ...ui, ...patch };
      if (patch.mouse !== undefined) settings.onMouse?.(patch.mouse);
      if (patch.theme !== undefined) chosen = { ...chosen, theme: patch.theme };
      if (patch.glyphs !== undefined) chosen = { ...chosen, glyphs: patch.glyphs.name };
      const looks = ['theme', 'glyphs', 'refreshMs', 'sort', 'hiddenColumns', 'filters'] as const;
      if (looks.some((name) => before[name] !== ui[name])) void saveLooks();
      if (patch.focus !== undefined || patch.cursors !== undefined) showPreview();
    },
    rememberFilter(text) {
      if (text === '' || ui.filters[0] === text) return;
      const others = ui.filters.filter((other) => other !== text);
      dashboard.update({ filters: [text, ...others].slice(0, filtersKept) });
    },
    changed: refresh,
    open(overlay) {
      overlays = [...overlays, overlay];
      draw();
    },
    close(overlay = overlays.at(-1)) {
      if (overlay === undefined || !overlays.includes(overlay)) return;
      overlays = overlays.filter((other) => other !== overlay);
      overlay.closed?.();
      draw();
    },
    ask(wanted) {
      prompt = { ...wanted, text: wanted.text ?? '', error: null };
      draw();
    },
    toast(level, text, cli = null, holds = always) {
      const again = toast !== null && toast.text === text && toast.level === level;
      toast = { level, text, cli, at: now(), times: again ? (toast?.times ?? 0) + 1 : 1 };
      toastHolds = holds;
      if (undoable !== null) undoable.told ??= toast;
    },
    refusal() {
      if (settings.readonly) return 'this dashboard is read-only';
      if (keyReads !== null) return keyReads;
      const connection = settings.connection?.get() ?? live;
      if (connection.state === 'stale') return 'disconnected: nothing can be changed until the server answers again';
      if (paused !== null) return 'the picture is frozen: p continues';
      return null;
    },
    run(command) {
      const refused = () => (command.changes ? dashboard.refusal() : null) ?? command.why?.(dashboard) ?? null;
      const why = refused();
      if (why === null) command.run(dashboard);
      else dashboard.toast('warn', `${command.keys[0] ?? command.id}: ${why}`, null, () => refused() === why);
    },
    switchStrategy(name) {
      const previous = snapshot.strategy.name;
      const cli = `gpuproxy lb-strategy ${name}`;
      if (name === previous) {
        dashboard.toast('info', `strategy is already ${name}`, cli);
        return;
      }
      const expected = preview?.strategy === name ? preview.predictedP95Ms : null;
      changingTo = name;
      void dashboard
        .act(
          `switching to ${name}`,
          async () => {
            const answer = await app.setStrategy(name, 'tui');
            predicted = expected === null ? null : { strategy: name, p95Ms: expected, at: now() };
            dashboard.offerUndo('the strategy', () => {
              // What somebody else has chosen meanwhile is not ours to take back.
              const present = snapshot.strategy.name;
              if (present === name) dashboard.switchStrategy(answer.previous);
              else dashboard.toast('warn', `not undone: somebody else has switched to ${present} meanwhile`);
            });
            return `strategy is now ${name} (was ${answer.previous})`;
          },
          cli,
        )
        .finally(() => {
          changingTo = null;
          refresh();
        });
    },
    async act(label, action, cli = null) {
      try {
        const said = await action();
        if (said !== undefined) dashboard.toast('ok', said, cli);
        return true;
      } catch (error) {
        if (error instanceof AppError && error.code === 'read_only') keyReads = error.message;
        dashboard.toast('error', `${label}: ${reasonOf(error)}`);
        // The message goes with the next key: what failed can still be read among the events.
        note('error', 'dashboard', `${label}: ${reasonOf(error)}`);
        return false;
      } finally {
        refresh();
      }
    },
    offerUndo(label, run) {
      // The next message is of what was just done.
      undoable = { label, until: now() + undoMs, run, told: null };
    },
    undo() {
      const last = undoable;
      if (last === null || now() > last.until) {
        dashboard.toast('info', 'nothing to undo: 10 s are over or nothing was changed');
        return;
      }
      undoable = null;
      last.run();
    },
    pause(on = paused === null) {
      if (!on) {
        paused = null;
        refresh();
        return;
      }
      history.add(snapshot);
      paused = snapshot;
    },
    scrub(seconds) {
      if (paused === null) return;
      // By its time: what was on the screen may have given way to a later picture of the same second.
      const from = history.indexAt(paused.at);
      const aimed = history.nearest(paused.at + seconds * 1000);
      const before = (history.at(from)?.at ?? 0) < paused.at ? from : from - 1;
      const next = history.at(seconds < 0 ? Math.max(0, Math.min(aimed, before)) : Math.max(aimed, from + 1));
      if (next !== undefined && (seconds < 0 ? next.at < paused.at : next.at > paused.at)) paused = next;
    },
    refreshNow() {
      if (settings.connection?.get().state === 'stale' && settings.connection.retry !== undefined) {
        dashboard.toast('info', 'connecting again');
        settings.connection.retry();
        return;
      }
      void dashboard.act('asking the providers', async () => {
        await app.refresh();
        return 'providers asked again';
      });
    },
    copy(text, what) {
      const done = settings.copy?.(text) ?? false;
      dashboard.toast(done ? 'ok' : 'warn', done ? `copied ${what}: ${text}` : `no clipboard here; ${what}: ${text}`);
    },
    async save(name, contents) {
      await dashboard.act('export', async () => {
        if (!settings.save) throw new Error('nowhere to write to');
        const paths: string[] = [];
        for (const [extension, content] of Object.entries(contents)) {
          paths.push(await settings.save(`${name}.${extension}`, content));
        }
        const others = Object.keys(contents).slice(1);
        return `saved ${[paths[0], ...others.map((extension) => `.${extension}`)].join(' and ')}`;
      });
    },
    confirmedTwice(what, warning) {
      const at = now();
      const again = asked?.what === what && at - asked.at < againMs;
      asked = again ? null : { what, at };
      if (!again) dashboard.toast('warn', warning, null, () => now() - at < againMs);
      return again;
    },
    quit() {
      settings.onQuit?.();
    },
    suspend() {
      settings.onSuspend?.();
    },
    redraw() {
      settings.onRedraw?.();
    },
    dispose() {
      disposed = true;
      if (flushTimer !== null) clearTimeout(flushTimer);
      clearInterval(second);
      // An open page has timers of its own: they must not keep the process alive.
      for (const overlay of overlays.splice(0)) overlay.closed?.();
      for (const stop of stops) stop();
      listeners.clear();
    },
  };

  function showPreview(): void {
    const name = ui.focus === 'strategy' ? strategyNames[ui.cursors.strategy] : undefined;
    if (name === undefined || name === snapshot.strategy.name) {
      preview = null;
      return;
    }
    void app
      .requests({ limit: keptRequests })
      .then((kept) => previewOf(name, kept, snapshot, now(), settings.predict ?? predictByReplay))
      .then((found) => {
        if (ui.focus !== 'strategy' || strategyNames[ui.cursors.strategy] !== name) return;
        preview = found;
        draw();
      })
      .catch((error: unknown) => {
        preview = null;
        dashboard.toast('warn', `preview: ${reasonOf(error)}`);
        draw();
      });
  }

  let seconds = 0;
  const second = setInterval(() => {
    seconds += 1;
    void checkPrediction();
    // A frozen picture changes only where a message runs out or an undo counts down.
    if (paused !== null) {
      if (toast !== null || undoable !== null) draw();
      return;
    }
    // What the model says changes with the traffic.
    if (ui.focus === 'strategy' && seconds % 5 === 0) showPreview();
    draw();
  }, 1000);
  const stops = [
    app.state.subscribe(schedule),
    app.events.subscribe((event) => {
      events = [...events.slice(-(eventsKept - 1)), event];
      schedule();
    }),
    settings.connection?.subscribe(() => {
      noteConnection();
      schedule();
    }) ?? (() => undefined),
  ];
  history.add(snapshot);
  draw();
  return dashboard;
}
