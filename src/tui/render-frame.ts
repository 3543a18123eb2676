import type { FleetEvent, Snapshot } from '../fleet/app.ts';
import { asciiGlyphs, unicodeGlyphs } from './format.ts';
import { composeFrame } from './frame.ts';
import { type PaneId, paneIds } from './layout.ts';
import { type ColorLevel, paint, type ThemeName, themes } from './theme.ts';
import type { View } from './view.ts';

export type FrameOptions = Readonly<{
  columns: number;
  rows: number;
  /** Oldest first. */
  events?: readonly FleetEvent[];
  glyphs?: 'unicode' | 'ascii';
  label?: string;
  readonly?: boolean;
  focus?: PaneId;
  /** Wall clock in ms; the snapshot's own time by default. */
  now?: number;
  /** Escape sequences for colours; none by default. */
  color?: ColorLevel;
  theme?: ThemeName;
  /** The system is not there yet: the frame says so in place of counts. */
  starting?: boolean;
}>;

/** One frame of the dashboard as text, for where there is no terminal. Lines end without trailing blanks. */
export function renderFrame(snapshot: Snapshot, options: FrameOptions): string {
  const zero = () => Object.fromEntries(paneIds.map((id) => [id, 0])) as Record<PaneId, number>;
  const ordered = [...snapshot.upstreams].sort((a, b) => a.id.localeCompare(b.id));
  const view: View = {
    snapshot,
    now: options.now ?? snapshot.at,
    clock: options.now ?? snapshot.at,
    keys: new Map(),
    glyphs: options.glyphs === 'ascii' ? asciiGlyphs : unicodeGlyphs,
    focus: options.focus ?? 'instances',
    zoom: false,
    rows: ordered,
    selected: ordered[0] ?? null,
    cursors: zero(),
    offsets: zero(),
    pages: zero(),
    marks: new Set(),
    sort: { column: 'instance', reverse: false },
    filter: '',
    hiddenColumns: new Set(),
    events: options.events ?? [],
    eventLevel: 'all',
    unseen: { warnings: 0, errors: 0 },
    connection: { state: options.starting ? 'starting' : 'live', since: 0, retryAt: null, detail: null },
    readonly: options.readonly ?? false,
    label: options.label ?? '',
    pausedAt: null,
    refreshMs: 250,
    strategyChangingTo: null,
    preview: null,
    toast: null,
    undo: null,
    hints: [
      ['enter', 'details'],
      ['1-5', 'strategy'],
      ['r', 'reserve'],
      ['d', 'drain'],
      ['x', 'destroy'],
      ['/', 'filter'],
      ['o', 'sort'],
      ['?', 'help'],
      ['q', 'quit'],
    ],
    prompt: null,
  };
  const level = options.color ?? 0;
  return composeFrame(view, options.columns, options.rows)
    .map((line) => {
      const text = paint(line, themes[options.theme ?? 'terminal'], level);
      return level === 0 ? text.trimEnd() : text;
    })
    .join('\n');
}
