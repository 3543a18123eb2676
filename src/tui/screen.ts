import { Box, type Instance, render, Text, useApp, useInput, usePaste, useWindowSize } from 'ink';
import { createElement, memo, type ReactElement, useEffect, useMemo } from 'react';
import type { Dashboard } from './dashboard.ts';
import { keysOf } from './keys.ts';
import type { Painter } from './painter.ts';
import { themes } from './theme.ts';
import { type Source, useSnapshot } from './use-snapshot.ts';

/** One row of the terminal, already exactly as wide as it. */
const Row = memo(function Row({ text }: { text: string }) {
  return createElement(Text, { wrap: 'truncate' }, text);
});

/** The rows as elements, for where no painter may write: tests, logs, terminals without cursor movement. */
function Rows({ dashboard, columns, rows }: { dashboard: Dashboard; columns: number; rows: number }) {
  const source: Source<readonly string[]> = useMemo(
    () => ({ get: dashboard.frame, subscribe: dashboard.subscribe }),
    [dashboard],
  );
  const frame = useSnapshot(source, (value) => value);
  const elements: ReactElement[] = [];
  for (const [row, text] of frame.slice(0, rows).entries()) elements.push(createElement(Row, { key: row, text }));
  return createElement(Box, { flexDirection: 'column', width: columns, height: rows, overflow: 'hidden' }, elements);
}

export type ScreenProps = Readonly<{
  dashboard: Dashboard;
  /** Writes the rows itself; without one they are rendered as elements. */
  painter?: Painter;
  /** Hands out what only the renderer can do. */
  onReady?: (terminal: ReturnType<typeof useApp>) => void;
}>;

/** The only component: keys, pastes and sizes in, rows of text out. */
export function Screen({ dashboard, painter, onReady }: ScreenProps) {
  const app = useApp();
  const { columns, rows } = useWindowSize();

  useInput((input, key) => dashboard.press(keysOf(input, key)));
  usePaste((text) => dashboard.paste(text));
  useEffect(() => onReady?.(app), [app, onReady]);
  useEffect(() => {
    if (painter === undefined) return;
    const show = () => painter.show(dashboard.lines(), themes[dashboard.ui.theme]);
    const stop = dashboard.subscribe(show);
    show();
    return () => {
      stop();
      painter.pause();
    };
  }, [dashboard, painter]);
  useEffect(() => {
    painter?.forget();
    dashboard.resize(columns, rows);
    // The terminal may have cut or moved what stood there, also when the rows are the same.
    painter?.show(dashboard.lines(), themes[dashboard.ui.theme]);
  }, [dashboard, painter, columns, rows]);

  return painter === undefined ? createElement(Rows, { dashboard, columns, rows }) : null;
}

export type MountOptions = Readonly<{
  stdin: NodeJS.ReadStream;
  stdout: NodeJS.WriteStream;
  painter: Painter;
  onReady: NonNullable<ScreenProps['onReady']>;
}>;

/** Puts the dashboard on the alternate screen of a terminal. */
export function mountScreen(dashboard: Dashboard, { stdin, stdout, painter, onReady }: MountOptions): Instance {
  return render(createElement(Screen, { dashboard, painter, onReady }), {
    stdin,
    stdout,
    exitOnCtrlC: false,
    // Console output belongs on the normal screen, after the dashboard has left.
    patchConsole: false,
    incrementalRendering: true,
    alternateScreen: true,
    interactive: true,
    maxFps: 60,
    isScreenReaderEnabled: false,
  });
}
