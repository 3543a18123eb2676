import { closeSync, existsSync, openSync, readFileSync, writeSync } from 'node:fs';
import { mkdir, writeFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import type { Config } from '../config.ts';
import { withoutUrlSecrets } from '../core/base-url.ts';
import type { ProviderName } from '../core/domain.ts';
import { counted } from '../core/words.ts';
import type { LocalApp } from '../fleet/app.ts';
import type { Command } from '../tui/commands.ts';
import type { Opening } from '../tui/opening.ts';
import type { ThemeName } from '../tui/theme.ts';
import { CliError, exitCodes, usageError } from './exit.ts';
import { readKeymap } from './keymap-file.ts';
import { readPreferences } from './preferences-file.ts';
import type { TuiOptions } from './server-options.ts';
import { whatRuns } from './what-runs.ts';

/** Leaves the alternate screen, shows the cursor, ends mouse, focus and paste reports, resets colours. */
const restoreTerminal =
  '\u001b[?1049l\u001b[?25h\u001b[?1000l\u001b[?1002l\u001b[?1004l\u001b[?1006l\u001b[?2004l\u001b[?2026l\u001b[0m\r\n';

/** `gpuproxy tui`: the dashboard, over a system in this process or over a server elsewhere. Resolves with the exit code. */
export async function run(options: TuiOptions): Promise<number> {
  if (options.reset) {
    process.stdout.write(restoreTerminal);
    return exitCodes.done;
  }
  const env = dashboardEnvironment(options);
  const theme = options.theme === undefined ? undefined : await themeNamed(options.theme);
  if (options.record !== null && options.replay !== null) {
    throw usageError('--record and --replay exclude each other: a recording is there already');
  }
  if (options.speed !== undefined && options.replay === null) throw usageError('--speed goes with --replay');

  const commands = await readKeymap(env);

  const { openTerminal } = await import('../tui/opening.ts');
  const opening = drawsAtOnce(options, env)
    ? openTerminal(
        process.stdout,
        env,
        options.url === null ? 'starting' : `connecting to ${withoutUrlSecrets(options.url)}`,
      )
    : null;
  const recording = options.record === null ? null : await startFile(options.record);
  try {
    return await show(options, { env, theme, commands, opening, recording });
  } finally {
    opening?.close();
    recording?.close();
  }
}

type Shown = Readonly<{
  env: NodeJS.ProcessEnv;
  theme: ThemeName | undefined;
  commands: readonly Command[] | undefined;
  opening: Opening | null;
  recording: RecordingFile | null;
}>;

async function show(options: TuiOptions, { env, theme, commands, opening, recording }: Shown): Promise<number> {
  const common = {
    stdin: process.stdin,
    stdout: process.stdout,
    env,
    readonly: options.readonly,
    once: options.once,
    interactive: options.interactive,
    commands,
    ...(options.screenReader ? { screenReader: true } : {}),
    ...(opening === null ? {} : { opening }),
    ...(recording === null ? {} : { record: recording.write }),
    save,
    ...(theme === undefined ? {} : { theme }),
  };
  // Looks are kept in the conf file under one name; a file that cannot be written costs only the memory of looks.
  const preferences = {
    read: () => readPreferences().dashboard ?? {},
    async write(looks: object) {
      const { openPreferences } = await import('./preferences.ts');
      openPreferences().set('dashboard', looks as Record<string, unknown>);
    },
  };

  if (options.replay !== null) {
    const { createReplayApp, RecordingError } = await import('../tui/recording.ts');
    const speed = options.speed ?? 1;
    try {
      using app = createReplayApp(readRecording(options.replay), { speed });
      const { runDashboard } = await import('../tui/run-dashboard.tsx');
      return await runDashboard({
        ...common,
        app,
        preferences,
        label: basename(options.replay),
        connection: {
          get: () => ({ state: 'replay', since: 0, retryAt: null, detail: app.ended ? 'ended' : `x${speed}` }),
          subscribe: () => () => undefined,
        },
        readonly: true,
        now: app.now,
      });
    } catch (error) {
      if (!(error instanceof RecordingError)) throw error;
      throw usageError(`--replay ${options.replay}: ${error.message}`);
    }
  }

  const attach = async (to: string): Promise<number> => {
    const loading = import('../tui/run-dashboard.tsx');
    // Awaited below; until then its failure is nobody's.
    loading.catch(() => {});
    const { findConnection } = await import('./connection.ts');
    const { connectApp } = await import('./remote-app.ts');
    const { url, key } = findConnection({ key: options.key, url: to });
    await using app = await connectApp({ url, key });
    const { runDashboard } = await loading;
    return await runDashboard({
      ...common,
      preferences,
      app,
      label: url,
      connection: app.connection,
      readonly: options.readonly || app.readonly,
    });
  };
  if (options.url !== null) return attach(options.url);

  await using stack = new AsyncDisposableStack();
  const startDemo = async () => {
    const demo = (await import('./demo.ts')).startDemo(options.seed ?? 1);
    stack.defer(demo.stop);
    return demo;
  };
  // The simulator takes longest to start, so it does not wait for the configuration where that cannot matter.
  let demo = surelySimulated(options, env) ? await startDemo() : null;
  const { serverConfig, nothingConfigured } = await import('./server-config.ts');
  const config = serverConfig(options);
  demo ??= nothingConfigured(config) ? await startDemo() : null;
  const loadingSystem = import('./system.ts');
  // Both are awaited below; until then their failures are nobody's.
  loadingSystem.catch(() => {});
  const loadingDashboard = import('../tui/run-dashboard.tsx');
  loadingDashboard.catch(() => {});
  await opening?.draw(expected(config, options), {
    label: 'local',
    readonly: options.readonly,
    theme: theme ?? readPreferences().dashboard?.theme,
  });
  const { startSystem, tellKey } = await loadingSystem;
  const { writeCrashLog } = await import('./crash-log.ts');
  const logger = { error: (fields: { err?: unknown }, message: string) => void writeCrashLog(fields.err, message) };
  const failed = new AbortController();
  const showSystem = async (app: LocalApp, onPicture: () => void): Promise<number> => {
    const { runDashboard } = await loadingDashboard;
    return runDashboard({
      ...common,
      preferences,
      app,
      onPicture,
      label: 'local',
      carriesTraffic: true,
      signal: failed.signal,
    });
  };
  let shown: Promise<number> | null = null;
  // Who looks at a screen sees the fleet while the rest of the system starts.
  const onApp = (app: LocalApp): Promise<void> | undefined => {
    if (opening === null) return undefined;
    const { promise, resolve } = Promise.withResolvers<void>();
    shown = showSystem(app, resolve);
    // Its end is waited for below; the system need not wait for the picture of a dashboard that is over.
    shown.then(
      () => resolve(),
      () => resolve(),
    );
    return promise;
  };
  const system = await startSystem({ config, demo, logger, onApp }).catch(async (error: unknown) => {
    failed.abort();
    await shown;
    const { serverAt } = await import('./running-server.ts');
    const running = await serverAt(config);
    if (running !== null) return running;
    const { startFailure } = await import('./start-failure.ts');
    throw startFailure(error);
  });
  if (typeof system === 'string') {
    opening?.close();
    const { confirm } = await import('./confirm.ts');
    const asks = process.stdin.isTTY === true;
    if (asks) process.stderr.write(`a gpuproxy already runs at ${system}\n`);
    if (!asks || !(await confirm('follow it?'))) {
      throw new CliError(exitCodes.failed, 'already_running', `a gpuproxy already runs at ${system}`, {
        hint: `gpuproxy tui --url ${system}`,
      });
    }
    return attach(system);
  }
  let exitCode: number;
  try {
    exitCode = await (shown ?? showSystem(system.app, () => {}));
    if (demo === null) {
      await drainTelling(system, config.DRAIN_SECONDS * 1000);
    }
  } finally {
    await system[Symbol.asyncDispose]();
  }
  // Only now: paid calls that were under way have been finished.
  if (demo === null) for (const line of whatRuns(system.app)) process.stderr.write(`${line}\n`);
  if (system.newKey !== null) {
    process.stderr.write(`${tellKey(system.newKey, process.stderr.isTTY === true)}\n`);
  }
  return exitCode;
}

/** True when a person looks at a drawn screen, so that something should stand on it at once. */
function drawsAtOnce(options: TuiOptions, env: NodeJS.ProcessEnv): boolean {
  const inCi = env.CI !== undefined && env.CI !== '' && env.CI !== 'false' && !options.interactive;
  const reads = options.screenReader || env.INK_SCREEN_READER === 'true';
  return process.stdin.isTTY === true && process.stdout.isTTY === true && !options.once && !inCi && !reads;
}

/** Without a file, a variable or a flag that could name a marketplace or an upstream the fleet is simulated. */
function surelySimulated({ demo, flags }: TuiOptions, env: NodeJS.ProcessEnv): boolean {
  const names = ['UPSTREAMS', 'VASTAI_API_KEY', 'IONET_API_KEY'] as const;
  return demo || (!names.some((name) => name in flags || name in env) && !existsSync('.env'));
}

/** What the configuration says of a system before it has started. */
function expected(config: Config, options: TuiOptions): Parameters<Opening['draw']>[0] {
  const providers: ProviderName[] = [];
  if (config.VASTAI_API_KEY !== undefined) providers.push('vast.ai');
  if (config.IONET_API_KEY !== undefined) providers.push('io.net');
  const demo = options.demo || (providers.length === 0 && config.UPSTREAMS.length === 0);
  return {
    banner: demo ? 'SIMULATED FLEET: no money is spent' : null,
    balancing: config.LB_ENABLED,
    strategy: config.LB_STRATEGY ?? null,
    providers: demo ? ['vast.ai', 'io.net'] : providers,
    maxUsdPerHour: config.MAX_USD_PER_HOUR ?? null,
  };
}

function dashboardEnvironment(options: TuiOptions): NodeJS.ProcessEnv {
  const env = { ...process.env };
  if (options.ascii) env.GPUPROXY_GLYPHS = 'ascii';
  const wanted = options.color === 'auto' ? env.GPUPROXY_COLOR : options.color;
  if (wanted === 'never') env.NO_COLOR = '1';
  if (wanted === 'always') {
    env.FORCE_COLOR ??= '1';
    delete env.NO_COLOR;
  }
  return env;
}

async function themeNamed(word: string): Promise<ThemeName> {
  const { themeNames } = await import('../tui/theme.ts');
  const name = themeNames.find((each) => each === word);
  if (name === undefined) throw usageError(`--theme: got "${word}", accepts ${themeNames.join(', ')}`);
  return name;
}

type RecordingFile = Readonly<{ write(line: string): void; close(): void }>;

/** A new file for a recording. Each line is written at once, so that a crash loses none. Throws CliError (exit 2). */
async function startFile(path: string): Promise<RecordingFile> {
  const { withoutSecrets } = await import('./crash-log.ts');
  let file: number;
  try {
    file = openSync(path, 'wx', 0o600);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    throw usageError(
      code === 'EEXIST'
        ? `--record: ${path} is there already; name another file`
        : `--record: ${path} cannot be written (${code ?? 'unknown error'})`,
    );
  }
  let lines = 0;
  let failed: string | null = null;
  return {
    write(line) {
      if (failed !== null) return;
      try {
        writeSync(file, withoutSecrets(line));
        lines += 1;
      } catch (error) {
        // A full disk costs the recording, not the dashboard.
        failed = (error as NodeJS.ErrnoException).code ?? 'unknown error';
      }
    },
    close() {
      closeSync(file);
      const end = failed === null ? '' : `; it ends early: ${failed}`;
      process.stderr.write(
        `recorded ${counted(lines, 'line')} in ${path}${end}: "gpuproxy tui --replay ${path}" shows it\n`,
      );
    },
  };
}

function readRecording(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    throw usageError(`--replay: ${path} cannot be read (${(error as NodeJS.ErrnoException).code ?? 'unknown error'})`);
  }
}

async function save(name: string, content: string): Promise<string> {
  const { defaultDataDir } = await import('./data-dir.ts');
  const folder = join(process.env.GPUPROXY_DATA_DIR || defaultDataDir(), 'exports');
  await mkdir(folder, { recursive: true, mode: 0o700 });
  const path = join(folder, name);
  await writeFile(path, content, { mode: 0o600 });
  return path;
}

async function drainTelling(
  system: Readonly<{ app: LocalApp; drain(deadlineMs: number): Promise<void> }>,
  deadlineMs: number,
): Promise<void> {
  const { inFlight } = system.app.state.get().traffic;
  if (inFlight === 0) return;
  process.stderr.write(
    `finishing ${counted(inFlight, 'open request')} (at most ${deadlineMs / 1000} s, ctrl-c stops at once)\n`,
  );
  // A closed terminal says so more than once.
  process.on('SIGHUP', () => {});
  const stop = Promise.withResolvers<void>();
  process.once('SIGINT', stop.resolve);
  process.once('SIGTERM', stop.resolve);
  await Promise.race([system.drain(deadlineMs), stop.promise]);
}
