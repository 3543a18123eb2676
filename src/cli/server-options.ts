import { type Command, Option } from 'commander';
import type { VariableName } from '../config.ts';
import { strategyNames } from '../core/domain.ts';
import type { ColorChoice } from './color.ts';
import { suggest } from './command.ts';
import { CliError, exitCodes } from './exit.ts';

/** What `serve` is told; `tui` adds to it. Values of `flags` are as typed: the configuration schema checks them. */
export type ServerOptions = Readonly<{
  demo: boolean;
  seed: number | undefined;
  flags: Partial<Record<VariableName, unknown>>;
}>;

export type TuiOptions = ServerOptions &
  Readonly<{
    /** Follow this server in place of running the system here; null: run it here. */
    url: string | null;
    /** Key for `url`; undefined: the one that client commands use. */
    key: string | undefined;
    /** One frame as text, then exit, also on a terminal. */
    once: boolean;
    /** Draw on the terminal although CI is set. */
    interactive: boolean;
    /** Only put the terminal back in order. */
    reset: boolean;
    readonly: boolean;
    theme: string | undefined;
    ascii: boolean;
    color: ColorChoice;
    /** Sentences and typed commands in place of a drawn screen. */
    screenReader: boolean;
    /** New file that keeps what is shown; null: none. */
    record: string | null;
    /** Recording to show in place of a system; null: none. */
    replay: string | null;
    /** Of the replay; undefined: as it was recorded. */
    speed: number | undefined;
  }>;

const flagOf: Readonly<Record<string, VariableName>> = {
  host: 'GPUPROXY_HOST',
  port: 'GPUPROXY_PORT',
  proxyPort: 'GPUPROXY_PROXY_PORT',
  dataDir: 'GPUPROXY_DATA_DIR',
  threads: 'GPUPROXY_THREADS',
  strategy: 'LB_STRATEGY',
  upstreams: 'UPSTREAMS',
  maxUsdPerHour: 'MAX_USD_PER_HOUR',
};

/** Options of a command that runs the system in this process. */
export function withServer(command: Command): Command {
  suggest(command, 'strategy', strategyNames);
  suggest(command, 'data-dir', 'files');
  return command
    .optionsGroup('Server:')
    .option('--demo', 'rent from the simulated marketplaces: no account, no money')
    .addOption(
      new Option('--seed <n>', 'of the simulated fleet: the same seed gives the same fleet').argParser(seedNumber),
    )
    .option('--host <address>', 'address of both listeners (GPUPROXY_HOST)')
    .option('--port <n>', 'control plane, 0 takes a free port (GPUPROXY_PORT)')
    .option('--proxy-port <n>', 'data plane, 0 takes a free port (GPUPROXY_PROXY_PORT)')
    .option('--data-dir <folder>', 'of the ledger (GPUPROXY_DATA_DIR)')
    .option('--threads <n>', 'data-plane threads (GPUPROXY_THREADS)')
    .option('--strategy <name>', 'load balancing strategy (LB_STRATEGY)')
    .option('--upstreams <list>', 'servers you already have: comma list of [name=]url (UPSTREAMS)')
    .option('--max-usd-per-hour <usd>', 'reservations beyond it are refused (MAX_USD_PER_HOUR)')
    .option('--set <NAME=value>', 'any other variable of .env.example, repeatable', assignment);
}

/** The options of `withServer` as ServerOptions. */
export function serverOptions(values: Readonly<Record<string, unknown>>): ServerOptions {
  const flags: Partial<Record<VariableName, unknown>> = { ...(values.set as Record<string, string> | undefined) };
  for (const [option, name] of Object.entries(flagOf)) {
    if (values[option] !== undefined) flags[name] = values[option];
  }
  return { demo: values.demo === true, seed: values.seed as number | undefined, flags };
}

function assignment(word: string, before: Record<string, string> = {}): Record<string, string> {
  const at = word.indexOf('=');
  // Which names there are says the configuration, which is not loaded for this.
  if (at < 0) throw refused(`--set: got "${word}", accepts NAME=value with a name of .env.example`);
  return { ...before, [word.slice(0, at)]: word.slice(at + 1) };
}

function seedNumber(word: string): number {
  const seed = /^-?\d{1,15}$/.test(word) ? Number(word) : Number.NaN;
  if (Number.isNaN(seed)) throw refused(`--seed: got "${word}", accepts a whole number`);
  return seed;
}

const refused = (message: string) =>
  new CliError(exitCodes.usage, 'configuration', message, { hint: '.env.example lists every variable' });
