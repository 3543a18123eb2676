import { strategyNames } from '../core/domain.ts';
import { counted } from '../core/words.ts';
import type { UpstreamView } from '../fleet/app.ts';
import { columns } from './columns.ts';
import type { Dashboard } from './dashboard.ts';
import { each } from './each.ts';
import { parseFilter } from './filter.ts';
import { asciiGlyphs, money, unicodeGlyphs } from './format.ts';
import type { Key } from './keys.ts';
import type { PaneId } from './layout.ts';
import { createDestroyDialog } from './overlays/destroy.ts';
import { createDetailPage } from './overlays/detail.ts';
import { createExtendDialog } from './overlays/extend.ts';
import { createHelp } from './overlays/help.ts';
import { createOffersPage } from './overlays/offers.ts';
import { createPalette } from './overlays/palette.ts';
import { createProviderPage } from './overlays/provider.ts';
import { createReleaseDialog } from './overlays/release.ts';
import { createReserveDialog } from './overlays/reserve.ts';
import { createColumnChooser, createSortChooser } from './overlays/sort.ts';
import { createQuitDialog } from './overlays/stop-renting.ts';
import { paneById, panes } from './panes/index.ts';
import { shownReservations } from './panes/reservations.ts';
import { refreshSteps } from './preferences.ts';
import { themeNames } from './theme.ts';

/**
 * Everything that a key can do. Keys, help, palette, footer hints and the command-line echo all come from this list.
 */
export type Command = Readonly<{
  id: string;
  title: string;
  /** Other words that people look for it by. */
  also?: string;
  /** The first one is the one shown. */
  keys: readonly Key[];
  /** `global` works in every pane; the name of a pane works there and comes first. */
  scope: 'global' | 'list' | PaneId;
  /** Words in the footer; absent: not shown there. Lower `rank` comes first. */
  hint?: string | ((dashboard: Dashboard) => string);
  rank?: number | ((dashboard: Dashboard) => number);
  /** True when it changes the fleet: refused when read-only, disconnected or frozen. */
  changes?: boolean;
  /** Why it cannot be done now; null when it can. */
  why?(dashboard: Dashboard): string | null;
  run(dashboard: Dashboard): void;
  /** The command line that does the same. */
  cli?(dashboard: Dashboard): string | null;
}>;

const selected = (dashboard: Dashboard): UpstreamView | null => dashboard.view().selected;
const needsSelection = (dashboard: Dashboard): string | null =>
  selected(dashboard) === null ? 'no instance is selected' : null;

/** Marked instances, or the selected one when nothing is marked. */
function targets(dashboard: Dashboard): readonly UpstreamView[] {
  const view = dashboard.view();
  const marked = view.snapshot.upstreams.filter((row) => view.marks.has(row.id));
  if (marked.length > 0) return marked;
  return view.selected === null ? [] : [view.selected];
}

/** Nothing is done to what cannot be seen, and nothing else in its place. */
function needsTargets(dashboard: Dashboard): string | null {
  const view = dashboard.view();
  const shown = new Set(view.rows.map((row) => row.id));
  const hidden = targets(dashboard).filter((row) => view.marks.has(row.id) && !shown.has(row.id)).length;
  if (hidden === 0) return needsSelection(dashboard);
  return `${hidden} marked ${hidden === 1 ? 'row is' : 'rows are'} hidden by the filter: esc clears it, then the marks`;
}

const onlyFrozen = (dashboard: Dashboard): string | null =>
  dashboard.view().pausedAt === null ? 'only while frozen: p freezes' : null;

function move(dashboard: Dashboard, to: (cursor: number, length: number) => number): void {
  const view = dashboard.view();
  const { focus } = view;
  const length = paneById(focus).length(view);
  const next = Math.max(0, Math.min(length - 1, to(view.cursors[focus], length)));
  dashboard.update({
    cursors: { ...dashboard.ui.cursors, [focus]: next },
    ...(focus === 'instances' ? { selectedId: view.rows[next]?.id ?? null } : {}),
  });
}

/** As many rows as are seen, and the picture with the cursor. */
function page(dashboard: Dashboard, by: 1 | -1): void {
  const { focus, pages, offsets } = dashboard.view();
  const rows = by * Math.max(1, pages[focus]);
  offsets[focus] = Math.max(0, offsets[focus] + rows);
  move(dashboard, (at) => at + rows);
}

function focusBy(dashboard: Dashboard, step: number): void {
  const at = panes.findIndex((pane) => pane.id === dashboard.ui.focus);
  focus(dashboard, (panes[(at + step + panes.length) % panes.length] ?? panes[0])?.id ?? 'instances');
}

function focus(dashboard: Dashboard, pane: PaneId): void {
  const active = strategyNames.indexOf(dashboard.view().snapshot.strategy.name);
  dashboard.update({
    focus: pane,
    ...(pane === 'strategy' ? { cursors: { ...dashboard.ui.cursors, strategy: Math.max(0, active) } } : {}),
  });
}

/** What UPSTREAMS names comes back at the next start: only the variable takes it out. */
function namedElsewhere(rows: readonly UpstreamView[]): string | null {
  const named = rows.find((row) => row.configured);
  return named === undefined ? null : `${named.id} comes from UPSTREAMS: take it out there, or drain it`;
}

/** What a server accepts. */
export const maxWeight = 1000;
/** 2.8 - 1 is not 1.8 in binary. */
const hundredths = (weight: number): number => Math.round(weight * 100) / 100;

function setWeight(
  dashboard: Dashboard,
  rows: readonly UpstreamView[],
  weight: (row: UpstreamView) => number | null,
): void {
  const undo = rows.map((row) => [row.id, row.weightSource === 'operator' ? row.weight : null] as const);
  void dashboard.act(
    'weight',
    async () => {
      const undoable = () =>
        dashboard.offerUndo('weight', () => {
          void dashboard.act('weight', async () => {
            await each(undo, ([id, before]) => dashboard.app.setWeight(id, before));
            return 'weights are as they were';
          });
        });
      const done = await each(rows, (row) => dashboard.app.setWeight(row.id, weight(row)), undoable);
      return done.map((row) => `${row.id} weighs ${row.weight.toFixed(2)}`).join(', ');
    },
    rows.map((row) => `gpuproxy weight ${row.id} ${weight(row) ?? 'auto'}`).join(' && '),
  );
}

/** `vast-1` or `3 instances`. */
function nameThem(rows: readonly UpstreamView[]): string {
  return rows.length === 1 ? (rows[0]?.id ?? '') : counted(rows.length, 'instance');
}

function drainOrResume(dashboard: Dashboard): void {
  const rows = targets(dashboard);
  const draining = rows.filter((row) => row.admin.mode === 'drain');
  const resume = draining.length === rows.length;
  const chosen = resume ? draining : rows.filter((row) => row.admin.mode === 'ready');
  const verb = resume ? 'resume' : 'drain';
  const left = dashboard.view().snapshot.upstreams.some((row) => row.eligible && !chosen.includes(row));
  const apply = (reverse: boolean, undoable?: () => void) =>
    each(chosen, (row) => (resume !== reverse ? dashboard.app.resume(row.id) : dashboard.app.drain(row.id)), undoable);
  void dashboard.act(
    verb,
    async () => {
      const undoable = () =>
        dashboard.offerUndo(verb, () => {
          void dashboard.act(verb, async () => {
            await apply(true);
            return `${verb} taken back`;
          });
        });
      await apply(false, undoable);
      dashboard.update({ marks: new Set() });
      return resume
        ? `${nameThem(chosen)} back in rotation`
        : `draining ${nameThem(chosen)}: ${left ? 'nothing new, in-flight requests finish' : 'nothing is left that takes requests'}`;
    },
    chosen.map((row) => `gpuproxy ${verb} ${row.id}`).join(' && '),
  );
}

function exportView(dashboard: Dashboard): void {
  const text = dashboard
    .lines()
    .map((line) =>
      line
        .map((part) => part.text)
        .join('')
        .trimEnd(),
    )
    .join('\n');
  const stamp = new Date(dashboard.now()).toISOString().replaceAll(':', '-').slice(0, 19);
  void dashboard.save(`gpuproxy-${stamp}`, {
    txt: `${text}\n`,
    json: `${JSON.stringify(dashboard.view().snapshot, null, 2)}\n`,
  });
}

/** The command line that shows what the focused pane shows. */
function shownByCli(dashboard: Dashboard): string {
  const view = dashboard.view();
  switch (view.focus) {
    case 'instances':
      return view.selected === null ? 'gpuproxy load' : `gpuproxy fleet ${view.selected.id}`;
    case 'providers':
      return 'gpuproxy list';
    case 'strategy':
      return `gpuproxy lb-strategy ${strategyNames[view.cursors.strategy] ?? ''}`.trim();
    case 'reservations':
      return 'gpuproxy reservations';
    case 'events':
      return 'gpuproxy events';
  }
}

/** Every command, in the order of the help. */
export const commands: readonly Command[] = [
  // --- everywhere ---
  {
    id: 'help',
    title: 'Help: every key',
    keys: ['?', 'h'],
    scope: 'global',
    hint: 'help',
    rank: 46,
    run: (d) => d.open(createHelp(d)),
  },
  {
    id: 'palette',
    title: 'Find and run a command',
    keys: [':'],
    scope: 'global',
    hint: 'commands',
    rank: 91,
    run: (d) => d.open(createPalette(d)),
  },
  ...strategyNames.map(
    (name, index): Command => ({
      id: `strategy-${name}`,
      title: `Switch to ${name}`,
      keys: [String(index + 1)],
      scope: 'global',
      changes: true,
      run: (d) => d.switchStrategy(name),
      cli: () => `gpuproxy lb-strategy ${name}`,
    }),
  ),
  {
    id: 'undo',
    title: 'Undo the last change (within 10 s)',
    keys: ['u'],
    scope: 'global',
    changes: true,
    run: (d) => d.undo(),
  },
  {
    id: 'next-pane',
    title: 'Next pane',
    keys: ['tab'],
    scope: 'global',
    hint: 'pane',
    rank: 80,
    run: (d) => focusBy(d, 1),
  },
  { id: 'previous-pane', title: 'Previous pane', keys: ['shift-tab'], scope: 'global', run: (d) => focusBy(d, -1) },
  ...panes.map(
    (pane): Command => ({
      id: `pane-${pane.id}`,
      title: `Go to ${pane.title.toLowerCase()}`,
      keys: [pane.letter],
      scope: 'global',
      ...(pane.id === 'strategy' ? { hint: 'strategy', rank: 40, also: 'lb' } : {}),
      ...(pane.id === 'instances' ? { also: 'fleet load' } : {}),
      run: (d) => focus(d, pane.id),
    }),
  ),
  {
    id: 'reserve',
    title: 'Reserve GPUs',
    also: 'rent',
    keys: ['r'],
    scope: 'global',
    hint: 'reserve',
    rank: 20,
    changes: true,
    run: (d) => d.open(createReserveDialog(d)),
    cli: () => 'gpuproxy reserve 1',
  },
  {
    id: 'zoom',
    title: 'Show one pane alone',
    keys: ['z'],
    scope: 'global',
    hint: 'zoom',
    rank: 70,
    run: (d) => d.update({ zoom: !d.ui.zoom }),
  },
  {
    id: 'pause',
    title: 'Freeze the picture; left and right walk back in time',
    also: 'freeze',
    keys: ['p'],
    scope: 'global',
    hint: (d) => (d.view().pausedAt === null ? 'pause' : 'live'),
    rank: (d) => (d.view().pausedAt === null ? 65 : -5),
    run: (d) => d.pause(),
  },
  {
    id: 'back-in-time',
    title: 'One second back (frozen)',
    also: 'history rewind',
    keys: ['left', '['],
    scope: 'global',
    hint: '1 s back',
    rank: -4,
    why: onlyFrozen,
    run: (d) => d.scrub(-1),
  },
  {
    id: 'forward-in-time',
    title: 'One second forward (frozen)',
    keys: ['right', ']'],
    scope: 'global',
    hint: 'forward',
    rank: -3,
    why: onlyFrozen,
    run: (d) => d.scrub(1),
  },
  {
    id: 'back-far',
    title: 'Thirty seconds back (frozen)',
    keys: ['{'],
    scope: 'global',
    hint: '30 s back',
    rank: -2,
    why: onlyFrozen,
    run: (d) => d.scrub(-30),
  },
  {
    id: 'forward-far',
    title: 'Thirty seconds forward (frozen)',
    keys: ['}'],
    scope: 'global',
    hint: 'forward',
    rank: -1,
    why: onlyFrozen,
    run: (d) => d.scrub(30),
  },
  {
    id: 'faster',
    title: 'Refresh more often',
    keys: ['+', '='],
    scope: 'global',
    run: (d) => stepRefresh(d, -1),
  },
  { id: 'slower', title: 'Refresh less often', keys: ['-'], scope: 'global', run: (d) => stepRefresh(d, 1) },
  {
    id: 'refresh',
    title: 'Ask the providers again now; while disconnected, connect again now',
    keys: ['R'],
    scope: 'global',
    run: (d) => d.refreshNow(),
  },
  {
    id: 'theme',
    title: 'Next colour theme',
    keys: ['t'],
    scope: 'global',
    run: (d) => {
      const next = themeNames[(themeNames.indexOf(d.ui.theme) + 1) % themeNames.length] ?? 'terminal';
      d.update({ theme: next });
      d.toast('info', `theme ${next}`);
    },
  },
  {
    id: 'glyphs',
    title: 'ASCII or Unicode drawing',
    keys: ['T'],
    scope: 'global',
    run: (d) => d.update({ glyphs: d.ui.glyphs.name === 'ascii' ? unicodeGlyphs : asciiGlyphs }),
  },
  {
    id: 'mouse',
    title: 'Mouse on or off: click, double click, wheel',
    keys: ['m'],
    scope: 'global',
    run: (d) => {
      const mouse = !d.ui.mouse;
      d.update({ mouse });
      d.toast('info', mouse ? 'mouse on: the terminal selects text with shift held' : 'mouse off');
    },
  },
  { id: 'export', title: 'Save this view as text and JSON', keys: ['ctrl-s'], scope: 'global', run: exportView },
  { id: 'redraw', title: 'Draw the screen anew', keys: ['ctrl-l'], scope: 'global', run: (d) => d.redraw() },
  { id: 'suspend', title: 'Suspend to the shell', keys: ['ctrl-z'], scope: 'global', run: (d) => d.suspend() },
  {
    id: 'back',
    title: 'Back: live, no zoom, no filter, no marks, then the instances',
    keys: ['escape'],
    scope: 'global',
    run: (d) => {
      if (d.view().pausedAt !== null) d.pause(false);
      else if (d.ui.zoom) d.update({ zoom: false });
      else if (d.ui.filter !== '') d.update({ filter: '' });
      else if (d.ui.marks.size > 0) d.update({ marks: new Set() });
      else d.update({ focus: 'instances' });
    },
  },
  {
    id: 'quit',
    title: 'Quit',
    also: 'exit leave',
    keys: ['q', 'ctrl-c'],
    scope: 'global',
    hint: 'quit',
    rank: 45,
    run: (d) => {
      if (d.rentals.all().length > 0) {
        d.open(createQuitDialog(d));
        return;
      }
      const { mode, reservations } = d.view().snapshot;
      const renting = mode.simulated ? [] : reservations.filter((item) => item.state === 'renting');
      const warning = `${renting[0]?.id} is being rented and goes on being paid: q again to quit`;
      if (renting.length === 0 || d.confirmedTwice('quit', warning)) d.quit();
    },
  },

  // --- lists ---
  { id: 'down', title: 'Next row', keys: ['j', 'down'], scope: 'list', run: (d) => move(d, (at) => at + 1) },
  { id: 'up', title: 'Previous row', keys: ['k', 'up'], scope: 'list', run: (d) => move(d, (at) => at - 1) },
  {
    id: 'page-down',
    title: 'Page down',
    keys: ['pagedown', 'ctrl-f'],
    scope: 'list',
    run: (d) => page(d, 1),
  },
  { id: 'page-up', title: 'Page up', keys: ['pageup', 'ctrl-b'], scope: 'list', run: (d) => page(d, -1) },
  { id: 'first', title: 'First row', keys: ['g', 'home'], scope: 'list', run: (d) => move(d, () => 0) },
  {
    id: 'last',
    title: 'Last row',
    keys: ['G', 'end'],
    scope: 'list',
    run: (d) => move(d, (_at, length) => length - 1),
  },

  // --- instances ---
  {
    id: 'details',
    title: 'Details of the instance',
    also: 'show inspect',
    keys: ['enter'],
    scope: 'instances',
    hint: 'details',
    rank: 1,
    why: needsSelection,
    run: (d) => {
      const row = selected(d);
      if (row !== null) d.open(createDetailPage(d, row.id));
    },
    cli: (d) => `gpuproxy fleet ${selected(d)?.id ?? 'ID'}`,
  },
  {
    id: 'logs',
    title: 'Logs of the instance',
    keys: ['l'],
    scope: 'instances',
    why: needsSelection,
    run: (d) => {
      const row = selected(d);
      if (row !== null) d.open(createDetailPage(d, row.id, 'logs'));
    },
    cli: (d) => `gpuproxy logs ${selected(d)?.id ?? 'ID'}`,
  },
  {
    id: 'filter',
    title: 'Filter: text, !text, prov:vast, active>3, $<0.5',
    also: 'search find',
    keys: ['/'],
    scope: 'global',
    hint: 'filter',
    rank: 10,
    run: (d) => {
      const { filter, focus: place } = d.ui;
      d.update({ focus: 'instances' });
      d.ask({
        label: '/',
        text: filter,
        earlier: d.ui.filters,
        wrong: (text) => parseFilter(text).wrong,
        result: (shown, all) => (shown === all ? `all ${all}` : `${shown} of ${all}`),
        change: (text) => {
          const { error, understood } = parseFilter(text);
          d.update({ filter: understood });
          return error;
        },
        submit: (text) => {
          d.update({ filter: text.trim() });
          d.rememberFilter(text.trim());
        },
        cancel: () => d.update({ filter, focus: place }),
      });
    },
  },
  {
    id: 'sort',
    title: 'Sort by a column',
    keys: ['o'],
    scope: 'instances',
    hint: 'sort',
    rank: 11,
    run: (d) => d.open(createSortChooser(d, columns)),
  },
  {
    id: 'reverse',
    title: 'Reverse the order',
    keys: ['O'],
    scope: 'instances',
    run: (d) => d.update({ sort: { ...d.ui.sort, reverse: !d.ui.sort.reverse } }),
  },
  {
    id: 'columns',
    title: 'Choose columns',
    also: 'hide show',
    keys: ['W'],
    scope: 'instances',
    run: (d) => d.open(createColumnChooser(d, columns)),
  },
  {
    id: 'mark',
    title: 'Mark for a bulk action',
    keys: ['space'],
    scope: 'instances',
    hint: 'mark',
    rank: 60,
    why: needsSelection,
    run: (d) => {
      const row = selected(d);
      if (row === null) return;
      const marks = new Set(d.ui.marks);
      if (!marks.delete(row.id)) marks.add(row.id);
      d.update({ marks });
      move(d, (at) => at + 1);
    },
  },
  {
    id: 'mark-all',
    title: 'Mark all that are shown, or none',
    keys: ['*'],
    scope: 'instances',
    run: (d) => {
      const { rows } = d.view();
      d.update({ marks: d.ui.marks.size > 0 ? new Set() : new Set(rows.map((row) => row.id)) });
    },
  },
  {
    id: 'drain',
    title: 'Drain, or put back into rotation',
    also: 'resume undrain rotation',
    keys: ['d'],
    scope: 'instances',
    hint: 'drain',
    rank: 30,
    changes: true,
    why: needsTargets,
    run: drainOrResume,
    cli: (d) => {
      const row = selected(d);
      return row === null ? null : `gpuproxy ${row.admin.mode === 'drain' ? 'resume' : 'drain'} ${row.id}`;
    },
  },
  {
    id: 'destroy',
    title: 'Destroy (asks first)',
    also: 'kill terminate delete remove',
    keys: ['x'],
    scope: 'instances',
    hint: 'destroy',
    rank: 31,
    changes: true,
    why: (d) => needsTargets(d) ?? namedElsewhere(targets(d)),
    run: (d) =>
      d.open(
        createDestroyDialog(
          d,
          targets(d).map((row) => row.id),
        ),
      ),
    cli: (d) =>
      targets(d)
        .map((row) => `gpuproxy ${row.provider === 'static' ? 'upstream remove' : 'destroy'} ${row.id}`)
        .join(' && '),
  },
  {
    id: 'weight',
    title: 'Set the weight (empty: by the formula)',
    keys: ['w'],
    scope: 'instances',
    changes: true,
    why: needsTargets,
    run: (d) => {
      const rows = targets(d);
      const valid = (text: string) => text.trim() === '' || (Number(text) >= 0 && Number(text) <= maxWeight);
      d.ask({
        label: `weight of ${nameThem(rows)}: `,
        change: (text) => (valid(text) ? null : `a number from 0 to ${maxWeight}, or nothing`),
        submit: (text) => setWeight(d, rows, () => (text.trim() === '' ? null : Number(text))),
        cancel: () => undefined,
      });
    },
  },
  {
    id: 'weight-up',
    title: 'Weight + 1',
    keys: ['>'],
    scope: 'instances',
    changes: true,
    why: needsTargets,
    run: (d) => setWeight(d, targets(d), (row) => Math.min(maxWeight, hundredths(row.weight + 1))),
  },
  {
    id: 'weight-down',
    title: 'Weight - 1',
    keys: ['<'],
    scope: 'instances',
    changes: true,
    why: needsTargets,
    run: (d) => setWeight(d, targets(d), (row) => Math.max(0, hundredths(row.weight - 1))),
  },
  {
    id: 'extend',
    title: 'Buy more prepaid hours (io.net)',
    also: 'renew prolong',
    keys: ['+'],
    scope: 'reservations',
    hint: 'more hours',
    rank: 3,
    changes: true,
    why: (d) => (extendable(d).length === 0 ? 'no prepaid instance in this reservation' : null),
    run: (d) => askExtend(d, extendable(d)),
  },
  {
    id: 'extend-instance',
    title: 'Buy more prepaid hours for this instance',
    also: 'renew prolong',
    keys: ['X'],
    scope: 'instances',
    changes: true,
    why: (d) => (selected(d)?.expiresAt == null ? 'this instance has no prepaid time' : null),
    run: (d) => {
      const row = selected(d);
      if (row !== null) askExtend(d, [row]);
    },
  },
  {
    id: 'copy-id',
    title: 'Copy the id',
    keys: ['y'],
    scope: 'instances',
    why: needsSelection,
    run: (d) => d.copy(selected(d)?.id ?? '', 'id'),
  },
  {
    id: 'copy-origin',
    title: 'Copy the address',
    also: 'url endpoint',
    keys: ['c'],
    scope: 'instances',
    why: (d) => needsSelection(d) ?? (selected(d)?.origin === null ? 'it has no address yet' : null),
    run: (d) => d.copy(selected(d)?.origin ?? '', 'address'),
  },
  {
    id: 'copy-cli',
    title: 'Copy the command line: of what was just done, else of what is shown',
    keys: ['Y'],
    scope: 'list',
    run: (d) => d.copy(d.view().toast?.cli ?? shownByCli(d), 'command'),
  },
  {
    id: 'events-of-row',
    title: 'Go to the newest event of this instance',
    keys: ['e'],
    scope: 'instances',
    why: needsSelection,
    run: (d) => {
      const view = d.view();
      const id = view.selected?.id;
      const at = [...view.events].reverse().findIndex((event) => event.subject === id);
      if (at === -1) d.toast('info', `no event about ${id ?? ''} is kept`);
      else d.update({ focus: 'events', cursors: { ...d.ui.cursors, events: at } });
    },
  },

  // --- without keys of their own: by the palette, or by a keymap ---
  ...columns.map(
    (column): Command => ({
      id: `sort-${column.id}`,
      title: `Sort by ${column.title}`,
      keys: [],
      scope: 'instances',
      run: (d) => {
        const { sort } = d.ui;
        d.update({ sort: { column: column.id, reverse: sort.column === column.id && !sort.reverse } });
      },
    }),
  ),
  ...themeNames.map(
    (name): Command => ({
      id: `theme-${name}`,
      title: `Theme ${name}`,
      keys: [],
      scope: 'global',
      run: (d) => d.update({ theme: name }),
    }),
  ),

  // --- strategy ---
  {
    id: 'apply-strategy',
    title: 'Switch to the strategy under the cursor',
    keys: ['enter'],
    scope: 'strategy',
    hint: 'apply',
    rank: 1,
    changes: true,
    run: (d) => {
      const name = strategyNames[d.view().cursors.strategy];
      if (name !== undefined) d.switchStrategy(name);
    },
  },

  // --- providers ---
  {
    id: 'offers',
    title: 'Browse the offers',
    also: 'list market rent',
    keys: ['enter'],
    scope: 'providers',
    hint: 'offers',
    rank: 1,
    run: (d) => {
      const view = d.view();
      d.open(createOffersPage(d, view.snapshot.providers[view.cursors.providers]?.name));
    },
    cli: () => 'gpuproxy list',
  },
  {
    id: 'provider-health',
    title: "Health of the provider's API",
    keys: ['i'],
    scope: 'providers',
    hint: 'API health',
    rank: 2,
    why: (d) => (d.view().snapshot.providers.length === 0 ? 'no provider is configured' : null),
    run: (d) => {
      const view = d.view();
      const provider = view.snapshot.providers[view.cursors.providers];
      if (provider !== undefined) d.open(createProviderPage(d, provider.name));
    },
    cli: () => 'gpuproxy providers',
  },

  // --- reservations ---
  {
    id: 'members',
    title: 'Show the instances of the reservation',
    keys: ['enter'],
    scope: 'reservations',
    hint: 'members',
    rank: 1,
    why: (d) => (d.view().snapshot.reservations.length === 0 ? 'there is no reservation' : null),
    run: (d) => {
      const view = d.view();
      const item = shownReservations(view)[view.cursors.reservations];
      if (item) d.update({ filter: `res:${item.id}`, focus: 'instances' });
    },
  },
  {
    id: 'release',
    title: 'Release the reservation (asks first)',
    also: 'give back',
    keys: ['x'],
    scope: 'reservations',
    hint: 'release',
    rank: 2,
    changes: true,
    why: (d) => {
      const view = d.view();
      const item = shownReservations(view)[view.cursors.reservations];
      if (item === undefined) return 'there is no reservation';
      const over = item.state === 'ended' || item.state === 'failed' || item.state === 'releasing';
      return over ? `${item.id} is ${item.state === 'releasing' ? 'being released' : 'over'}` : null;
    },
    run: (d) => {
      const view = d.view();
      const item = shownReservations(view)[view.cursors.reservations];
      if (item) d.open(createReleaseDialog(d, item.id));
    },
  },

  // --- events ---
  {
    id: 'level',
    title: 'All events, or warnings and errors',
    also: 'warnings',
    keys: ['v'],
    scope: 'global',
    run: (d) => d.update({ eventLevel: d.ui.eventLevel === 'all' ? 'warn' : 'all' }),
  },
  {
    id: 'follow',
    title: 'To the newest event',
    keys: ['f'],
    scope: 'events',
    hint: 'newest',
    rank: 2,
    run: (d) => d.update({ cursors: { ...d.ui.cursors, events: 0 } }),
  },
  {
    id: 'jump',
    title: 'Go to what the event is about',
    keys: ['enter'],
    scope: 'events',
    hint: 'go to it',
    rank: 1,
    run: (d) => {
      const view = d.view();
      const subject = view.events[view.events.length - 1 - view.cursors.events]?.subject;
      if (subject != null && view.snapshot.upstreams.some((row) => row.id === subject)) {
        d.update({ focus: 'instances', filter: '', selectedId: subject });
      } else if (view.snapshot.reservations.some((item) => item.id === subject)) d.update({ focus: 'reservations' });
      else if (view.snapshot.providers.some((item) => item.name === subject)) d.update({ focus: 'providers' });
      else d.toast('info', 'this event is about nothing that is on the screen');
    },
  },
];

function extendable(dashboard: Dashboard): readonly UpstreamView[] {
  const view = dashboard.view();
  const item = shownReservations(view)[view.cursors.reservations];
  return view.snapshot.upstreams.filter((row) => row.expiresAt !== null && item?.instances.includes(row.id));
}

function askExtend(dashboard: Dashboard, rows: readonly UpstreamView[]): void {
  const perHour = rows.reduce((sum, row) => sum + row.usdPerHour, 0);
  const valid = (text: string) => /^\d+$/.test(text.trim()) && Number(text) >= 1 && Number(text) <= 720;
  dashboard.ask({
    label: `more hours for ${nameThem(rows)} (${money(perHour)} an hour, paid at once): `,
    change: (text) => (valid(text) ? null : 'a whole number of hours from 1 to 720'),
    submit: (text) => dashboard.open(createExtendDialog(dashboard, rows, Number(text))),
    cancel: () => undefined,
  });
}

function stepRefresh(dashboard: Dashboard, step: number): void {
  const at = refreshSteps.indexOf(dashboard.ui.refreshMs as (typeof refreshSteps)[number]);
  const next = refreshSteps[Math.max(0, Math.min(refreshSteps.length - 1, at + step))] ?? 250;
  dashboard.update({ refreshMs: next });
  dashboard.toast('info', next === 250 ? 'refresh 4 times a second' : `refresh every ${next / 1000} s`);
}

/** The command that a key runs in a pane: that of the pane, then of lists, then of everywhere. */
export function commandForKey(key: Key, pane: PaneId, all: readonly Command[] = commands): Command | undefined {
  for (const scope of [pane, 'list', 'global'] as const) {
    const found = all.find((command) => command.scope === scope && command.keys.includes(key));
    if (found) return found;
  }
  return undefined;
}

const keyNames: Readonly<Record<string, string>> = {
  pagedown: 'PgDn',
  pageup: 'PgUp',
  escape: 'esc',
};

/** How a key is written for people. */
export const keyName = (key: Key): string => keyNames[key] ?? key;

/** Key hints for the footer: what works here and now, most used first. */
export function commandHints(dashboard: Dashboard): readonly (readonly [string, string])[] {
  const { commands, ui } = dashboard;
  const blocked = dashboard.refusal() !== null;
  const pane = ui.focus;
  const rankOf = ({ rank }: Command): number => (typeof rank === 'function' ? rank(dashboard) : (rank ?? 50));
  return commands
    .filter(
      (command) =>
        command.hint !== undefined && command.keys.length > 0 && (command.scope === 'global' || command.scope === pane),
    )
    .filter((command) => !(blocked && command.changes) && (command.why?.(dashboard) ?? null) === null)
    .sort((a, b) => rankOf(a) - rankOf(b))
    .map(({ keys, hint }) => [keyName(keys[0] ?? ''), typeof hint === 'function' ? hint(dashboard) : (hint ?? '')]);
}

/** Of the commands that work everywhere, those that also work on a page that covers the panes. */
const onPages: ReadonlySet<string> = new Set([
  ...['undo', 'pause', 'refresh', 'help', 'palette', 'theme', 'glyphs', 'faster', 'slower', 'export', 'mouse'],
  ...['back-far', 'forward-far', ...strategyNames.map((name) => `strategy-${name}`)],
]);

/** The command that a key runs on a page which has no use of its own for it. */
export function commandOnPage(key: Key, all: readonly Command[]): Command | undefined {
  return all.find((command) => command.scope === 'global' && command.keys.includes(key) && onPages.has(command.id));
}
