import type { App } from '../fleet/app.ts';
import type { Command } from './commands.ts';
import {
  type ConnectionSource,
  createDashboard,
  type Dashboard,
  type DashboardSettings,
  reasonOf,
} from './dashboard.ts';
import type { Opening } from './opening.ts';
import { createPainter } from './painter.ts';
import type { PreferenceStore } from './preferences.ts';
import type { Predict } from './preview.ts';
import { startRecording } from './recording.ts';
import { renderFrame } from './render-frame.ts';
import { createTerminalInput, focusReports, mouseReports } from './terminal-input.ts';
import { colorLevel, glyphsFor, type ThemeName, themes } from './theme.ts';

export { renderFrame } from './render-frame.ts';

export type RunDashboardOptions = Readonly<{
  app: App;
  stdin: NodeJS.ReadStream;
  stdout: NodeJS.WriteStream;
  stderr?: NodeJS.WritableStream;
  env: Readonly<Record<string, string | undefined>>;
  preferences?: PreferenceStore;
  /** Keys that change the fleet answer with the reason instead. */
  readonly?: boolean;
  /** What stands after the name in the header: `local`, or the server's address. */
  label?: string;
  /** State of the connection to a server; absent for a system in this process. */
  connection?: ConnectionSource;
  predict?: Predict;
  /** Commands with the keys of a keymap; see `withKeymap`. */
  commands?: readonly Command[] | undefined;
  theme?: ThemeName;
  /** Sentences and typed commands in place of a drawn screen; also by INK_SCREEN_READER=true. */
  screenReader?: boolean;
  /** Print one frame and return, even on a terminal. */
  once?: boolean;
  /** Open the dashboard although CI is set. */
  interactive?: boolean;
  /** True when this process also carries traffic: suspending it then asks twice. */
  carriesTraffic?: boolean;
  /** Ends the dashboard from outside; the terminal is restored first. */
  signal?: AbortSignal;
  /** Called when the person asked to leave, before the terminal is restored. */
  onQuit?: () => void;
  /** The screen as it was taken when the program began. */
  opening?: Opening;
  /** Called when the first whole picture stands on the screen, before the renderer is loaded. */
  onPicture?: () => void;
  /** Takes a line of the session's recording; see `createReplayApp`. */
  record?: (line: string) => void;
  /** Wall clock in ms; that of a recording when one is shown. */
  now?: () => number;
  /** Saves an exported view; resolves with the path. */
  save?: (name: string, content: string) => Promise<string>;
}>;

/** A fleet that has just been started gets this long to show something in a single printed frame. */
const settleMs = 2500;

/**
 * Shows the dashboard until the person quits, a signal comes or it fails; resolves with the exit code after the
 * terminal is as it was. Without a terminal it prints one frame and resolves with 0.
 */
export async function runDashboard(options: RunDashboardOptions): Promise<number> {
  const { app, env, stdin, stdout } = options;
  const inCi = env.CI !== undefined && env.CI !== '' && env.CI !== 'false' && options.interactive !== true;
  if (options.once || !stdout.isTTY || !stdin.isTTY || inCi) {
    await settled(app);
    const frame = renderFrame(app.state.get(), {
      columns: stdout.columns || Number(env.COLUMNS) || 120,
      rows: stdout.rows || Number(env.LINES) || 35,
      events: app.events.recent(),
      glyphs: glyphsFor(env),
      label: options.label ?? '',
      readonly: options.readonly ?? false,
      color: stdout.isTTY ? colorLevel(env) : 0,
    });
    await new Promise<void>((done) => stdout.write(`${frame}\n`, () => done()));
    return 0;
  }
  if (options.screenReader ?? env.INK_SCREEN_READER === 'true') {
    const { runScreenReader } = await import('./screen-reader.ts');
    await settled(app);
    return runScreenReader({
      app,
      stdin,
      stdout,
      readonly: options.readonly ?? false,
      label: options.label === 'local' ? '' : (options.label ?? ''),
      connection: options.connection,
      predict: options.predict,
      carriesTraffic: options.carriesTraffic ?? false,
      save: options.save,
      now: options.now,
      ...(options.signal === undefined ? {} : { signal: options.signal }),
    });
  }
  return showOnTerminal(options);
}

async function settled(app: App): Promise<void> {
  const deadline = Date.now() + settleMs;
  const ready = () => {
    const { upstreams, mode, traffic } = app.state.get();
    return !mode.simulated || (upstreams.some((row) => row.eligible) && traffic.requests > 0);
  };
  while (!ready() && Date.now() < deadline) await new Promise((done) => setTimeout(done, 50));
}

/** Resolves when the first instances are drawn, or after a second without any. */
async function instancesShown(dashboard: Dashboard): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  const stop = dashboard.subscribe(() => {
    if (dashboard.view().rows.length > 0) resolve();
  });
  const timer = setTimeout(resolve, 1000);
  await promise;
  clearTimeout(timer);
  stop();
}

async function showOnTerminal(options: RunDashboardOptions): Promise<number> {
  const { app, env, stdin, stdout } = options;
  const stderr = options.stderr ?? process.stderr;
  let exitCode = 0;
  let failure: { error: unknown } | null = null;
  let leave: (() => void) | null = null;
  let suspendTerminal: ReturnType<typeof import('ink').useApp>['suspendTerminal'] | null = null;

  const settings: DashboardSettings = {
    app,
    columns: stdout.columns,
    rows: stdout.rows,
    color: colorLevel(env),
    glyphs: glyphsFor(env),
    label: options.label ?? '',
    readonly: options.readonly ?? false,
    preferences: options.preferences,
    connection: options.connection,
    predict: options.predict,
    commands: options.commands,
    ...(options.theme === undefined ? {} : { theme: options.theme }),
    ...(options.save === undefined ? {} : { save: options.save }),
    ...(options.now === undefined ? {} : { now: options.now }),
    onQuit: () => {
      options.onQuit?.();
      leave?.();
    },
    onSuspend: () => {
      // A stopped process carries no traffic: one key press is too little for that.
      const warning = 'Ctrl-Z again suspends; traffic through this process stops with it';
      if (!options.carriesTraffic || dashboard.confirmedTwice('suspend', warning)) void suspend();
    },
    copy: (text) => {
      // OSC 52: the terminal puts it into the clipboard, over SSH too.
      stdout.write(`\u001b]52;c;${Buffer.from(text).toString('base64')}\u0007`);
      return true;
    },
    onMouse: (on) => void stdout.write(on ? mouseReports.on : mouseReports.off),
    onRedraw: () => showAll(),
    onFailure: (error) => {
      failure = { error };
      leave?.();
    },
  };
  const dashboard = createDashboard(settings);
  const input = createTerminalInput(stdin, (report) => dashboard.report(report));
  const reportsOff = () => void stdout.write(mouseReports.off + focusReports.off);
  const reportsOn = () => void stdout.write(focusReports.on + (dashboard.ui.mouse ? mouseReports.on : ''));
  const painter = createPainter(stdout, settings.color);
  const stopRecording = options.record === undefined ? null : startRecording(app, options.record);

  const onStop = () => void suspend();
  const suspend = async (): Promise<void> => {
    if (suspendTerminal === null) return;
    const since = Date.now();
    painter.pause();
    reportsOff();
    const suspension = await suspendTerminal();
    // The whole process group stops, as with a program that never caught the key: the shell gets control back even when
    // npm or a script stands between. Where there is no job control nothing stops, and the timer brings the screen back.
    process.off('SIGTSTP', onStop);
    await new Promise<void>((done) => {
      process.once('SIGCONT', () => done());
      setTimeout(done, 300);
      process.kill(0, 'SIGTSTP');
    });
    process.on('SIGTSTP', onStop);
    await suspension.resume();
    reportsOn();
    painter.resume();
    dashboard.resize(stdout.columns, stdout.rows);
    const away = Math.round((Date.now() - since) / 1000);
    dashboard.toast('info', `was away ${away} s`);
    dashboard.changed();
    showAll();
  };

  const showAll = (): void => {
    painter.forget();
    painter.show(dashboard.lines(), themes[dashboard.ui.theme]);
  };

  if (options.opening !== undefined) {
    // The painter needs no renderer: what is there is shown while that is loaded.
    const stop = dashboard.subscribe(() => painter.show(dashboard.lines(), themes[dashboard.ui.theme]));
    showAll();
    // A simulated fleet rents at once, and loading keeps the thread busy.
    if (app.state.get().mode.simulated) await instancesShown(dashboard);
    stop();
  }
  options.onPicture?.();
  const { mountScreen } = await import('./screen.ts');
  let ended = false;
  const end = (code: number) => () => {
    ended = true;
    exitCode = code;
    leave?.();
  };
  const onTerm = end(143);
  const onHangup = end(129);
  const onInterrupt = end(130);
  // Before the opening lets go of its own: a signal for which nobody listens, even for a moment, would be lost.
  process.on('SIGTERM', onTerm);
  process.on('SIGHUP', onHangup);
  process.on('SIGINT', onInterrupt);
  options.opening?.handOver();
  reportsOn();
  process.on('exit', reportsOff);
  const instance = mountScreen(dashboard, {
    stdin: input,
    stdout,
    painter,
    onReady: (terminal) => {
      suspendTerminal = terminal.suspendTerminal;
      leave = () => terminal.exit();
    },
  });
  leave ??= () => instance.unmount();
  if (failure !== null || ended) leave();
  process.on('SIGTSTP', onStop);
  const onAbort = end(0);
  options.signal?.addEventListener('abort', onAbort, { once: true });
  if (options.signal?.aborted) onAbort();

  try {
    await instance.waitUntilExit();
  } catch (error) {
    failure = { error };
  } finally {
    process.off('SIGTERM', onTerm);
    process.off('SIGHUP', onHangup);
    process.off('SIGINT', onInterrupt);
    process.off('SIGTSTP', onStop);
    options.signal?.removeEventListener('abort', onAbort);
    process.off('exit', reportsOff);
    reportsOff();
    stopRecording?.();
    dashboard.dispose();
    instance.cleanup();
    // The renderer let go of it: a question that is asked next must keep the process alive.
    stdin.ref();
  }
  const failed = failure as { error: unknown } | null;
  if (failed === null) return exitCode;
  // The alternate screen is gone by now: what is written here can be read.
  stderr.write(`gpuproxy: the dashboard failed: ${reasonOf(failed.error)}\n`);
  if (failed.error instanceof Error && failed.error.stack !== undefined) stderr.write(`${failed.error.stack}\n`);
  return 1;
}
