import type { ProviderName, StrategyName } from '../core/domain.ts';
import type { Snapshot } from '../fleet/app.ts';
import { colorLevel, glyphsFor, type ThemeName, themeNames } from './theme.ts';

/** What is known of a system that has not started yet. */
export type Expected = Readonly<{
  /** One line for people; null when there is nothing to say. */
  banner: string | null;
  balancing: boolean;
  /** Null when only the ledger knows it. */
  strategy: StrategyName | null;
  providers: readonly ProviderName[];
  maxUsdPerHour: number | null;
}>;

/** The alternate screen from the first moment on, long before there is anything to show. */
export interface Opening {
  /** Draws the whole dashboard with nothing in it yet. */
  draw(expected: Expected, options: Readonly<{ label: string; readonly: boolean; theme: unknown }>): Promise<void>;
  /** The dashboard takes the screen over: nothing is written or restored from here on. */
  handOver(): void;
  /** Puts the terminal back, before an error is told or a question asked. Does nothing after `handOver`. */
  close(): void;
}

const exitCodes = { SIGINT: 130, SIGTERM: 143, SIGHUP: 129 } as const;

/**
 * Takes the alternate screen and says that the program starts. Whatever ends the process before `handOver` puts the
 * terminal back. Loads neither the renderer nor the system.
 */
export function openTerminal(
  stdout: NodeJS.WriteStream,
  env: Readonly<Record<string, string | undefined>>,
  words: string,
): Opening {
  let open = true;
  const color = colorLevel(env);
  const leave = () => {
    if (!open) return;
    open = false;
    for (const [signal, listener] of listeners) process.off(signal, listener);
    process.off('exit', close);
  };
  const close = () => {
    if (!open) return;
    leave();
    stdout.write('\u001b[?25h\u001b[?1049l');
  };
  const listeners = (Object.keys(exitCodes) as (keyof typeof exitCodes)[]).map(
    (signal) => [signal, () => process.exit(exitCodes[signal])] as const,
  );
  for (const [signal, listener] of listeners) process.on(signal, listener);
  process.on('exit', close);
  const name = color === 0 ? ' gpuproxy ' : '\u001b[1;30;46m gpuproxy \u001b[0m';
  stdout.write(`\u001b[?1049h\u001b[?25l\u001b[2J\u001b[H${name}  ${words}\r`);

  return {
    async draw(expected, { label, readonly, theme }) {
      // Only now, so that the first line need not wait for it.
      const { renderFrame } = await import('./render-frame.ts');
      if (!open) return;
      const at = Date.now();
      const frame = renderFrame(nothingYet(expected, at), {
        columns: stdout.columns,
        rows: stdout.rows,
        color,
        glyphs: glyphsFor(env),
        label,
        readonly,
        starting: true,
        ...(isTheme(theme) ? { theme } : {}),
      });
      const rows = frame.split('\n').map((line, row) => `\u001b[${row + 1};1H${line}\u001b[K`);
      stdout.write(`\u001b[?2026h${rows.join('')}\u001b[H\u001b[?2026l`);
    },
    handOver: leave,
    close,
  };
}

const isTheme = (theme: unknown): theme is ThemeName => themeNames.some((name) => name === theme);

function nothingYet(expected: Expected, at: number): Snapshot {
  return {
    version: 0,
    at,
    startedAt: at,
    mode: {
      simulated: false,
      banner: expected.banner,
      balancing: expected.balancing,
      proxyUrl: null,
      apiUrl: null,
    },
    strategy: {
      name: expected.strategy ?? 'round_robin',
      source: expected.strategy === null ? 'saved' : 'LB_STRATEGY',
      since: at,
    },
    upstreams: [],
    providers: expected.providers.map((name) => ({
      name,
      status: 'loading',
      available: 0,
      more: false,
      offers: 0,
      minUsdPerHour: null,
      maxUsdPerHour: null,
      cheapest: [],
      rented: 0,
      usdPerHour: 0,
      creditUsd: null,
      refreshedAt: null,
      latencyMs: null,
      lastError: null,
      nextRefreshAt: null,
    })),
    reservations: [],
    foreign: [],
    traffic: {
      rps: 0,
      inFlight: 0,
      queued: 0,
      errorRate: 0,
      p50Ms: null,
      p95Ms: null,
      p99Ms: null,
      requests: 0,
      retries: 0,
      trend: [],
      ttfbHistogram: [],
    },
    cost: { usdPerHour: 0, spentUsd: 0, spentTodayUsd: 0, maxUsdPerHour: expected.maxUsdPerHour },
  };
}
