import type { FleetEvent } from '../fleet/app.ts';
import { CliError, exitCodes } from './exit.ts';
import { type ServerOptions, serverConfig } from './server-options.ts';
import { nextSignal } from './signals.ts';
import { startFailure } from './start-failure.ts';
import { nothingConfigured, startSystem } from './system.ts';

/** `gpuproxy serve`: the system headless, until a signal. Resolves with the exit code. */
export async function run(options: ServerOptions): Promise<number> {
  const config = serverConfig(options);
  if (!options.demo && nothingConfigured(config)) {
    throw new CliError(
      exitCodes.usage,
      'not_configured',
      'nothing to balance: no provider and no upstream is configured',
      {
        why: 'VASTAI_API_KEY, IONET_API_KEY and UPSTREAMS are all empty',
        hint: 'set at least one of them (see .env.example), or start the simulated fleet with "gpuproxy serve --demo"',
      },
    );
  }
  const say = logger();
  await using system = await startSystem({ config, demo: options.demo ? { seed: options.seed ?? 1 } : null }).catch(
    (error: unknown) => {
      throw startFailure(error);
    },
  );
  const stopListening = system.app.events.subscribe((event) => say.event(event));
  for (const event of system.app.events.recent()) say.event(event);
  say.line('ok', `control plane ${system.apiUrl}/api/v1`);
  say.line('ok', `data plane    ${system.proxyUrl}`);
  if (options.demo) say.line('warn', 'SIMULATED FLEET: no money is spent');
  if (system.newKey !== null) {
    // The one time that the key is shown; from here on it is stored for this user's client commands.
    process.stderr.write(`api key       ${system.newKey}  (shown once, stored for this user's commands)\n`);
  }
  say.line('info', 'dashboard: gpuproxy tui');

  const signal = await nextSignal();
  say.line('info', `${signal}: draining for at most ${config.DRAIN_SECONDS} s; again to stop at once`);
  const again = nextSignal().then((second) =>
    process.exit(second === 'SIGINT' ? exitCodes.interrupted : exitCodes.terminated),
  );
  await Promise.race([system.drain(config.DRAIN_SECONDS * 1000), again]);
  stopListening();
  return exitCodes.done;
}

/** Lines for a person on a terminal, one JSON object a line elsewhere. */
function logger() {
  const human = process.stderr.isTTY === true;
  const write = (level: string, message: string, more: Record<string, unknown> = {}) => {
    const at = new Date();
    process.stderr.write(
      human
        ? `${at.toTimeString().slice(0, 8)} ${level.toUpperCase().padEnd(5)} ${message}\n`
        : `${JSON.stringify({ time: at.toISOString(), level, msg: message, ...more })}\n`,
    );
  };
  return {
    line: (level: FleetEvent['level'], message: string) => write(level, message),
    event: (event: FleetEvent) =>
      write(event.level, human && event.subject ? `${event.subject}  ${event.message}` : event.message, {
        kind: event.kind,
        subject: event.subject,
      }),
  };
}
