import type { FleetEvent, Snapshot, UpstreamView } from '../fleet/app.ts';
import type { ColumnId } from './columns.ts';
import type { Glyphs } from './format.ts';
import type { PaneId } from './layout.ts';
import type { PreviewState } from './preview.ts';

/** Whether what is shown is current. A local system is `starting` until there is something to show, then always `live`. */
export type Connection = Readonly<{
  /** `replay`: a recording, `detail` says how fast. */
  state: 'live' | 'stale' | 'starting' | 'replay';
  /** When it got into this state, wall-clock ms. */
  since: number;
  /** When the next attempt is made; null when none is planned. */
  retryAt: number | null;
  detail: string | null;
}>;

export type ToastLevel = 'info' | 'ok' | 'warn' | 'error';
export type Toast = Readonly<{
  level: ToastLevel;
  text: string;
  /** The command line that does the same; null when there is none. */
  cli: string | null;
  at: number;
  times: number;
}>;

export type SortOrder = Readonly<{ column: ColumnId; reverse: boolean }>;

/** Everything a pane needs to draw itself. Immutable; one is made for each frame. */
export type View = Readonly<{
  snapshot: Snapshot;
  /** The moment that is shown; it stands still while frozen. */
  now: number;
  /** The moment it is, for what goes on while frozen: messages, undo, the connection. */
  clock: number;
  glyphs: Glyphs;
  focus: PaneId;
  zoom: boolean;
  /** Filtered and sorted. */
  rows: readonly UpstreamView[];
  /** The instance under the cursor; null when there is none. */
  selected: UpstreamView | null;
  /** Index of the cursor in each list pane, clamped by the pane to what it has. */
  cursors: Readonly<Record<PaneId, number>>;
  /** First row shown in each list pane; panes keep the cursor inside. */
  offsets: Record<PaneId, number>;
  /** Rows that each list pane had room for; panes set it. */
  pages: Record<PaneId, number>;
  marks: ReadonlySet<string>;
  sort: SortOrder;
  filter: string;
  hiddenColumns: ReadonlySet<ColumnId>;
  /** Oldest first. */
  events: readonly FleetEvent[];
  eventLevel: 'all' | 'warn';
  /** What has come since the events were last looked at. */
  unseen: Readonly<{ warnings: number; errors: number }>;
  connection: Connection;
  readonly: boolean;
  label: string;
  /** When the frozen picture was taken; null when live. */
  pausedAt: number | null;
  refreshMs: number;
  strategyChangingTo: string | null;
  preview: PreviewState | null;
  toast: Toast | null;
  /** `told`: the message that is shown is of what would be undone. */
  undo: Readonly<{ label: string; until: number; told: boolean }> | null;
  /** Keys that a keymap gave to commands in place of their own, by the command's id. */
  keys: ReadonlyMap<string, string>;
  /** Key hints of the commands that work now. */
  hints: readonly (readonly [string, string])[];
  /** The one-line text field at the bottom, when it is open. */
  prompt: Readonly<{
    label: string;
    text: string;
    error: string | null;
    /** A part of the text that is not understood. */
    wrong: string | null;
    result: string;
  }> | null;
}>;

/** The key to name for a command: the person's own when a keymap changed it. */
export const keyFor = (view: View, command: string, usual: string): string => view.keys.get(command) ?? usual;

/** Nothing can be changed right now: hints for what changes something stay away. */
export const isBlocked = (view: View): boolean =>
  view.readonly || view.pausedAt !== null || view.connection.state === 'stale';
