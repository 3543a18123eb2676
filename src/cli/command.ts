import { Command, Option } from 'commander';
import { nearest } from '../core/words.ts';
import { usageError } from './exit.ts';
import type { CommandEntry } from './index.ts';
import { parseDuration } from './session.ts';
import type { Repeat } from './watch.ts';

/** The command with the options that all have, ready to parse. */
export async function createCommand(entry: CommandEntry): Promise<Command> {
  const command = new Command(entry.name)
    .description(sentence(entry.summary))
    .exitOverride()
    // Errors are told in one place, as three lines or as JSON; commander only throws them.
    .configureOutput({ outputError: () => {} })
    .configureHelp({ showGlobalOptions: true, helpWidth: Math.min(100, process.stdout.columns || 100) })
    .helpOption('-h, --help', 'show this help')
    .helpCommand(false)
    .allowExcessArguments(false);
  (await entry.load()).build(command);
  // The program is named in front of its command, as it is typed.
  command.name(`gpuproxy ${entry.name}`);
  return command;
}

/** Options of every command that talks to a server. `curl` false: it is no one request that could be shown. */
export function withConnection(command: Command, { curl = true }: Readonly<{ curl?: boolean }> = {}): Command {
  command
    .optionsGroup('Common options:')
    .option('-k, --key <key>', 'API key (GPUPROXY_API_KEY)')
    .addOption(new Option('--key-file <file>', 'read the API key from a file, - for stdin').conflicts('key'))
    .option('-u, --url <url>', 'control plane of the server (GPUPROXY_URL, default http://127.0.0.1:8080)')
    .option('--timeout <time>', 'longest wait for an answer, like 10s', parseDuration)
    .option('--json', 'print the body of the REST answer, nothing else')
    .addOption(new Option('--raw').hideHelp())
    .option('--fields <names>', 'with --json: these fields of each row alone, comma list; ? lists them')
    .addOption(
      new Option('--plain', 'rows with tabs between the fields, no header, for cut and awk').conflicts([
        'json',
        'fields',
      ]),
    )
    .option('-q, --quiet', 'print ids only, no messages')
    .addOption(new Option('--color <when>', 'colour').choices(['auto', 'always', 'never']))
    .option('--no-input', 'never ask: what would have to be confirmed is refused')
    .addOption(
      new Option('--retry <n>', 'further tries of a question that met no server, 0 to 10 (default: 1)').argParser(
        (word: string) => {
          if (!/^(?:\d|10)$/.test(word))
            throw usageError(`--retry: got "${word}", accepts a whole number from 0 to 10`);
          return Number(word);
        },
      ),
    )
    .option('--debug', 'log each request to stderr');
  if (curl) command.option('--curl', 'print the request as a curl command and send nothing');
  return command;
}

/** For commands that ask no server: who writes key and URL before every command may do so here as well. */
export function withoutConnection(command: Command): Command {
  return command
    .addOption(new Option('-k, --key <key>').hideHelp())
    .addOption(new Option('--key-file <file>').hideHelp())
    .addOption(new Option('-u, --url <url>').hideHelp());
}

/** `--watch [seconds]`. The router has put in the seconds where they were left out. */
export function withWatch(command: Command): Command {
  return command.option('-w, --watch [seconds]', 'repeat, every 2 seconds if no number is given', (word: string) => {
    const seconds = parseDuration(word) / 1000;
    if (seconds < 0.1 || seconds > 86_400)
      throw usageError(`--watch: got "${word}", accepts seconds from 0.1 to 86400`);
    return seconds;
  });
}

/** `--until ready`, for commands that show something which becomes ready. */
export function withUntil(command: Command): Command {
  return command.addOption(
    new Option('--until <state>', 'look until it is ready, for at most --timeout (default: 10m)').choices(['ready']),
  );
}

export type RepeatOptions = Readonly<{ watch?: number; until?: string; timeout?: number }>;

/** What `withWatch` and `withUntil` were told. */
export function repeatOf({ watch, until, timeout }: RepeatOptions): Repeat {
  return {
    watch: watch ?? null,
    until: until === undefined ? null : { state: until, timeoutMs: timeout ?? defaultUntilMs },
  };
}

const defaultUntilMs = 600_000;

/** Examples at the end of the help of a command: each a command line and what it does. */
export function withExamples(command: Command, examples: readonly (readonly [line: string, does: string])[]): Command {
  const width = Math.max(...examples.map(([line]) => line.length));
  return command.addHelpText(
    'after',
    `\nExamples:\n${examples.map(([line, does]) => `  ${line.padEnd(width)}  ${does}`).join('\n')}`,
  );
}

function sentence(text: string): string {
  return `${text.charAt(0).toUpperCase()}${text.slice(1)}.`;
}

/** Where the suggestions for a word come from: fixed words, or ids that the server knows. */
export type Suggestions = readonly string[] | 'instances' | 'upstreams' | 'reservations' | 'keys' | 'gpus' | 'files';

const suggested = new WeakMap<Command, Map<string, Suggestions>>();

/** Says what completion offers for an argument or the value of an option, by its name without dashes and brackets. */
export function suggest(command: Command, name: string, source: Suggestions): Command {
  const known = suggested.get(command) ?? new Map<string, Suggestions>();
  suggested.set(command, known.set(name, source));
  return command;
}

/** What `suggest` said, for a subcommand also what was said for its command. */
export function suggestionsFor(command: Command, name: string): Suggestions | undefined {
  return suggested.get(command)?.get(name) ?? (command.parent ? suggestionsFor(command.parent, name) : undefined);
}

/** A subcommand that also runs when none is named, so a word in its place that is no subcommand must be refused here. */
export function defaultSubcommand(command: Command, name: string): Command {
  const subcommand = command.command(name, { isDefault: true }).allowExcessArguments(true);
  return subcommand.hook('preAction', () => {
    const [word] = subcommand.args;
    if (word === undefined) return;
    const known = command.commands.map((each) => each.name());
    const near = nearest(word, known);
    throw usageError(`unknown subcommand "${word}"${near === undefined ? '' : `; did you mean ${near}?`}`, {
      hint: `one of ${known.join(', ')}`,
    });
  });
}
