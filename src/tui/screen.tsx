import { Box, type Instance, render, Text, useApp, useInput, usePaste, useWindowSize } from 'ink';
import { memo, useEffect, useMemo } from 'react';
import type { Dashboard } from './dashboard.ts';
import { keysOf } from './keys.ts';
import { type Source, useSnapshot } from './use-snapshot.ts';

/** One row of the terminal, already exactly as wide as it. */
const Row = memo(function Row({ text }: { text: string }) {
  return <Text wrap="truncate">{text}</Text>;
});

export type ScreenProps = Readonly<{
  dashboard: Dashboard;
  /** Hands out what only the renderer can do. */
  onReady?: (terminal: ReturnType<typeof useApp>) => void;
}>;

/** The only component: rows of text, keys in, pastes in, sizes in. */
export function Screen({ dashboard, onReady }: ScreenProps) {
  const app = useApp();
  const { columns, rows } = useWindowSize();
  const source: Source<readonly string[]> = useMemo(
    () => ({ get: dashboard.frame, subscribe: dashboard.subscribe }),
    [dashboard],
  );
  const frame = useSnapshot(source, (value) => value);

  useInput((input, key) => dashboard.press(keysOf(input, key)));
  usePaste((text) => dashboard.paste(text));
  useEffect(() => dashboard.resize(columns, rows), [dashboard, columns, rows]);
  useEffect(() => onReady?.(app), [app, onReady]);

  return (
    <Box flexDirection="column" width={columns} height={rows} overflow="hidden">
      {/* Rows never move: the index is their identity. A frame of another size waits for the next one. */}
      {frame.slice(0, rows).map((text, index) => (
        // biome-ignore lint/suspicious/noArrayIndexKey: a row is its position on the screen
        <Row key={index} text={text} />
      ))}
    </Box>
  );
}

export type MountOptions = Readonly<{
  stdin: NodeJS.ReadStream;
  stdout: NodeJS.WriteStream;
  onReady: NonNullable<ScreenProps['onReady']>;
}>;

/** Puts the dashboard on the alternate screen of a terminal. */
export function mountScreen(dashboard: Dashboard, { stdin, stdout, onReady }: MountOptions): Instance {
  return render(<Screen dashboard={dashboard} onReady={onReady} />, {
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
