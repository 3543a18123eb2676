import { ConfigError } from '../config.ts';
import type { FleetEvent } from '../fleet/app.ts';
import { withoutSecrets, writeCrashLog } from './crash-log.ts';
import { startDemo } from './demo.ts';
import { CliError, exitCodes } from './exit.ts';
import { serverAt } from './running-server.ts';
import { configuredServer, serverConfig } from './server-config.ts';
import type { ServerOptions } from './server-options.ts';
import { nextSignal } from './signals.ts';
import { startFailure } from './start-failure.ts';
import { tellSystemd } from './systemd.ts';
import { whatRuns } from './what-runs.ts';

/** `gpuproxy serve`: the system headless, until a signal. Resolves with the exit code. */
export async function run(options: ServerOptions): Promise<number> {
  const config = configuredServer(options);
  const demo = options.demo ? startDemo(options.seed ?? 1) : null;
  const { startSystem, tellKey } = await import('./system.ts');
  const say = logger();
  await using system = await startSystem({
    config,
    demo,
    logger: say,
  }).catch(async (error: unknown) => {
    throw startFailure(error, await serverAt(config));
  });
  const stopListening = system.app.events.subscribe((event) => say.event(event));
  // Kept events of earlier runs were logged by those.
  const { startedAt } = system.app.state.get();
  for (const event of system.app.events.recent()) if (event.at >= startedAt) say.event(event);
  say.line('ok', `control plane ${system.apiUrl}/api/v1`);
  say.line('ok', `data plane    ${system.proxyUrl}`);
  if (options.demo) say.line('warn', 'SIMULATED FLEET: no money is spent');
  if (system.newKey !== null) {
    const onTerminal = process.stderr.isTTY === true;
    const told = tellKey(system.newKey, onTerminal);
    if (onTerminal) process.stderr.write(`${told}\n`);
    else say.line(system.newKey.stored ? 'info' : 'warn', told);
  }
  say.line('info', 'dashboard: gpuproxy tui');
  const toldSystemd = async (...states: readonly string[]) => {
    const wrong = await tellSystemd(...states);
    if (wrong !== null) say.line('error', `systemd was not told ${states[0]}: ${wrong}`);
  };

  const reload = () => {
    try {
      const { changed, waiting } = system.reconfigure(serverConfig(options));
      say.line('ok', `configuration read again: ${changed.length === 0 ? 'nothing changed' : changed.join(', ')}`);
      if (waiting.length > 0) say.line('warn', `take effect at the next start: ${waiting.join(', ')}`);
    } catch (error) {
      if (!(error instanceof ConfigError) && !(error instanceof CliError)) throw error;
      say.line('error', `configuration not taken up, the old one stays: ${error.message.replaceAll('\n', '; ')}`);
    }
  };
  process.on('SIGHUP', reload);
  const signalled = nextSignal();
  // Only now: whoever is told may send a signal at once.
  await toldSystemd('READY=1', `STATUS=serving on ${system.apiUrl}`);

  const signal = await signalled;
  process.off('SIGHUP', reload);
  // The default would end the process in the middle of its drain.
  process.on('SIGHUP', () => {});
  void toldSystemd('STOPPING=1', 'STATUS=draining');
  say.line('info', `${signal}: draining for at most ${config.DRAIN_SECONDS} s; again to stop at once`);
  const again = nextSignal().then((second) =>
    process.exit(second === 'SIGINT' ? exitCodes.interrupted : exitCodes.terminated),
  );
  await Promise.race([system.drain(config.DRAIN_SECONDS * 1000), again]);
  // What is being rented is finished or undone, and the events say which.
  await system[Symbol.asyncDispose]();
  stopListening();
  if (!options.demo) for (const line of whatRuns(system.app)) say.line('warn', line);
  say.line('ok', 'drained, ends');
  return exitCodes.done;
}

/** Lines for a person on a terminal, one JSON object a line elsewhere. */
function logger() {
  const human = process.stderr.isTTY === true;
  const write = (level: string, message: string, more: Record<string, unknown> = {}, at = new Date()) => {
    process.stderr.write(
      human
        ? `${at.toTimeString().slice(0, 8)} ${level.toUpperCase().padEnd(5)} ${message}\n`
        : `${JSON.stringify({ time: at.toISOString(), level, msg: message, ...more })}\n`,
    );
  };
  return {
    line: (level: FleetEvent['level'], message: string) => write(level, message),
    /** A bug, with its stack in a file: a stack has no place among lines that people follow. */
    error(fields: object, message: string) {
      const { err, ...more } = fields as { err?: unknown };
      const path = writeCrashLog(err, `${message} ${JSON.stringify(more)}`);
      const what = withoutSecrets(err instanceof Error ? err.message : String(err));
      write('error', `${message}: ${what}${path === null ? '' : ` (details in ${path})`}`, more);
    },
    event: (event: FleetEvent) =>
      write(
        event.level,
        human && event.subject && !event.message.startsWith(event.subject)
          ? `${event.subject}  ${event.message}`
          : event.message,
        { kind: event.kind, subject: event.subject },
        new Date(event.at),
      ),
  };
}
