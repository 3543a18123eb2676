import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { request } from 'undici';
import type { Config } from '../config.ts';
import type { LocalApp } from '../fleet/app.ts';
import type { ThemeName } from '../tui/theme.ts';
import { writeCrashLog } from './crash-log.ts';
import { defaultDataDir } from './data-dir.ts';
import { CliError, exitCodes, usageError } from './exit.ts';
import { openPreferences } from './preferences.ts';
import { serverConfig, type TuiOptions } from './server-options.ts';
import { confirm } from './session.ts';
import { startFailure } from './start-failure.ts';
import { nothingConfigured, startSystem } from './system.ts';

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
  // The dashboard is loaded while the system starts: both take about as long.
  const loading = import('../tui/run-dashboard.tsx');
  loading.catch(() => {});
  const theme = options.theme === undefined ? undefined : await themeNamed(options.theme);

  const common = {
    stdin: process.stdin,
    stdout: process.stdout,
    env,
    readonly: options.readonly,
    once: options.once,
    interactive: options.interactive,
    preferences: dashboardPreferences(),
    save,
    ...(theme === undefined ? {} : { theme }),
  };

  const attach = async (to: string): Promise<number> => {
    const { findConnection } = await import('./connection.ts');
    const { connectApp } = await import('./remote-app.ts');
    const { url, key } = findConnection({ key: options.key, url: to });
    await using app = await connectApp({ url, key });
    const { runDashboard } = await loading;
    return await runDashboard({ ...common, app, label: url, connection: app.connection });
  };
  if (options.url !== null) return attach(options.url);

  const config = serverConfig(options);
  const demo = options.demo || nothingConfigured(config) ? { seed: options.seed ?? 1 } : null;
  const logger = { error: (fields: { err?: unknown }, message: string) => void writeCrashLog(fields.err, message) };
  const system = await startSystem({ config, demo, logger }).catch(async (error: unknown) => {
    const running = await serverAt(config);
    if (running === null) throw startFailure(error);
    return running;
  });
  if (typeof system === 'string') {
    process.stderr.write(`a gpuproxy already runs at ${system}\n`);
    if (process.stdin.isTTY !== true || !(await confirm('follow it?'))) {
      throw new CliError(exitCodes.failed, 'already_running', `a gpuproxy already runs at ${system}`, {
        hint: `gpuproxy tui --url ${system}`,
      });
    }
    return attach(system);
  }
  let exitCode: number;
  try {
    const { runDashboard } = await loading;
    exitCode = await runDashboard({ ...common, app: system.app, label: 'local', carriesTraffic: true });
    if (demo === null) {
      await drainTelling(system, config.DRAIN_SECONDS * 1000);
      tellWhatRuns(system.app);
    }
  } finally {
    await system[Symbol.asyncDispose]();
  }
  if (system.newKey !== null) {
    process.stderr.write(`api key  ${system.newKey}  (shown once, stored for this user's commands)\n`);
  }
  return exitCode;
}

/** Address of the gpuproxy that already serves the configured control plane; null when there is none. */
async function serverAt(config: Config): Promise<string | null> {
  const url = `http://${config.GPUPROXY_HOST}:${config.GPUPROXY_PORT}`;
  try {
    const answer = await request(`${url}/healthz`, { headersTimeout: 1000, bodyTimeout: 1000 });
    const body = (await answer.body.text()).slice(0, 200);
    return answer.statusCode === 200 && body.includes('"status":"ok"') ? url : null;
  } catch (error) {
    // Nothing there, or no HTTP: not one of ours. Without a code it is a bug of ours.
    if ((error as { code?: string }).code === undefined) throw error;
    return null;
  }
}

function dashboardEnvironment(options: TuiOptions): NodeJS.ProcessEnv {
  const env = { ...process.env };
  if (options.ascii) env.GPUPROXY_GLYPHS = 'ascii';
  if (options.color === 'never') env.NO_COLOR = '1';
  if (options.color === 'always') {
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

/** Looks are kept in the conf file under one name; a file that cannot be written costs only the memory of looks. */
function dashboardPreferences() {
  const store = openPreferences();
  return {
    read: () => store.get('dashboard') ?? {},
    write: (preferences: object) => store.set('dashboard', preferences as Record<string, unknown>),
  };
}

async function save(name: string, content: string): Promise<string> {
  const folder = join(process.env.GPUPROXY_DATA_DIR || defaultDataDir(), 'exports');
  await mkdir(folder, { recursive: true, mode: 0o700 });
  const path = join(folder, name);
  await writeFile(path, content, { mode: 0o600 });
  return path;
}

async function drainTelling(system: Awaited<ReturnType<typeof startSystem>>, deadlineMs: number): Promise<void> {
  const { inFlight } = system.app.state.get().traffic;
  if (inFlight === 0) return;
  process.stderr.write(`finishing ${inFlight} open requests (at most ${deadlineMs / 1000} s, ctrl-c stops at once)\n`);
  const stop = Promise.withResolvers<void>();
  process.once('SIGINT', stop.resolve);
  process.once('SIGTERM', stop.resolve);
  await Promise.race([system.drain(deadlineMs), stop.promise]);
}

/** What goes on costing money after this program has ended is said, never left to be remembered. */
function tellWhatRuns(app: LocalApp): void {
  const { upstreams, cost } = app.state.get();
  const billed = upstreams.filter((upstream) => upstream.contract !== null && upstream.lifecycle.phase !== 'ended');
  if (billed.length === 0) return;
  process.stderr.write(
    `${billed.length} rented instances keep running and cost $${cost.usdPerHour.toFixed(2)}/h: ` +
      `"gpuproxy tui" or "gpuproxy serve" takes them up again, "gpuproxy destroy" gives them back\n`,
  );
}
