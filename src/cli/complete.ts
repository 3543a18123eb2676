import type { Argument, Command, Option } from 'commander';
import type { AnswerName, Answers } from './answers.ts';
import { route } from './arguments.ts';
import { type Client, createClient } from './client.ts';
import { createCommand, type Suggestions, suggestionsFor } from './command.ts';
import { findConnection } from './connection.ts';
import { writeCrashLog } from './crash-log.ts';
import { CliError } from './exit.ts';
import { commandNamed, commands } from './index.ts';

/** Nobody waits longer than this for a Tab. */
const serverTimeoutMs = 800;

type Suggestion = readonly [word: string, meaning: string];

/**
 * What may stand in place of the last of `words` (the words of the command line without the program). One line a
 * suggestion, word and meaning with a tab between. Never throws: nothing is better than an error in the middle of a line.
 */
export async function complete(words: readonly string[]): Promise<string> {
  const current = words.at(-1) ?? '';
  const found = await suggestions(words.slice(0, -1), current).catch((error: unknown) => {
    // No server, no key: there is nothing to offer. A bug leaves its details where every bug does.
    if (!(error instanceof CliError)) writeCrashLog(error, 'completion');
    return [];
  });
  return found
    .filter(([word]) => word.startsWith(current) && !/[\s\u0000-\u001f]/.test(word))
    .map(([word, meaning]) => (meaning === '' ? `${word}\n` : `${word}\t${meaning.replace(/[\t\n]+/g, ' ')}\n`))
    .join('');
}

async function suggestions(before: readonly string[], current: string): Promise<readonly Suggestion[]> {
  const { command: name, rest } = route(before);
  if (name === undefined) {
    return current.startsWith('-')
      ? [
          ['--help', 'help'],
          ['--version', 'version of this program'],
          ['--key', 'API key'],
          ['--url', 'control plane of the server'],
          ['--json', 'print JSON'],
        ]
      : commands.map((entry) => [entry.name, entry.summary] as const);
  }
  const entry = commandNamed(name);
  if (entry === undefined) return [];
  const { command, operands, pending } = walk(await createCommand(entry), rest);
  const [, long, given] = /^(--[a-z-]+)=(.*)$/s.exec(current) ?? [];
  if (long !== undefined && given !== undefined) {
    const option = allOptions(command).find((each) => each.long === long && each.required);
    const values = option === undefined ? [] : await valuesOf(command, option.name(), option.argChoices, before);
    return values.map(([word, meaning]) => [`${long}=${word}`, meaning] as const);
  }
  if (pending !== undefined) return valuesOf(command, pending.name(), pending.argChoices, before);
  if (current.startsWith('-')) return optionsOf(command);
  const subcommands = command.commands.map((each) => [each.name(), each.description()] as const);
  if (operands === 0 && subcommands.length > 0) return subcommands;
  const argument = argumentAt(command, operands);
  return argument === undefined ? [] : valuesOf(command, argument.name(), argument.argChoices, before);
}

/** Follows the words into subcommands; `pending` is an option that waits for its value. */
function walk(
  root: Command,
  words: readonly string[],
): { command: Command; operands: number; pending: Option | undefined } {
  let command = root;
  let operands = 0;
  let pending: Option | undefined;
  for (const word of words) {
    if (pending !== undefined) {
      pending = undefined;
      continue;
    }
    if (word.startsWith('-')) {
      const option = allOptions(command).find((each) => each.long === word || each.short === word);
      if (option?.required === true) pending = option;
      continue;
    }
    const next = operands === 0 ? command.commands.find((each) => each.name() === word) : undefined;
    if (next !== undefined) command = next;
    else operands += 1;
  }
  return { command, operands, pending };
}

function allOptions(command: Command): readonly Option[] {
  return [...command.options, ...(command.parent ? allOptions(command.parent) : [])];
}

function optionsOf(command: Command): readonly Suggestion[] {
  const options = allOptions(command).filter((option) => !option.hidden && option.long !== undefined);
  return [...options.map((option) => [option.long ?? '', option.description] as const), ['--help', 'show the help']];
}

function argumentAt(command: Command, index: number): Argument | undefined {
  const all = command.registeredArguments;
  const last = all.at(-1);
  return all[index] ?? (last?.variadic === true ? last : undefined);
}

async function valuesOf(
  command: Command,
  name: string,
  choices: readonly string[] | undefined,
  before: readonly string[],
): Promise<readonly Suggestion[]> {
  const source = choices ?? suggestionsFor(command, name);
  if (source === undefined || source === 'files') return [];
  if (typeof source !== 'string') return source.map((word) => [word, ''] as const);
  // What already stands on the line is not offered again.
  return (await ask(source, before)).filter(([word]) => !before.includes(word));
}

type Source = Exclude<Suggestions, readonly string[] | 'files'>;
type Question = (client: Client) => Promise<readonly Suggestion[]>;

function question<Name extends AnswerName>(
  path: string,
  name: Name,
  read: (answer: Answers[Name]) => readonly Suggestion[],
): Question {
  return async (client) => {
    const { readAnswer } = await import('./answers.ts');
    return read(readAnswer(name, (await client.call('GET', path)).body, client.connection.url));
  };
}

const questions: Readonly<Record<Source, Question>> = {
  instances: question('/fleet', 'upstreamWords', ({ upstreams }) => upstreams.map(upstreamWord)),
  upstreams: question('/fleet', 'upstreamWords', ({ upstreams }) =>
    upstreams.filter(({ provider }) => provider === 'static').map(upstreamWord),
  ),
  reservations: question('/reservations', 'reservations', ({ reservations }) =>
    reservations.map((row) => [row.reservation_id, row.state]),
  ),
  keys: question('/keys', 'keys', ({ keys }) => keys.map((row) => [row.id, row.name])),
  gpus: question('/providers', 'providers', ({ providers }) => {
    const models = providers.flatMap(({ cheapest }) => cheapest.map((row) => row.gpu_model));
    // A blank would end the word; the server takes "_" for it.
    return [...new Set(models.map((model) => model.replaceAll(' ', '_')))].map((model) => [model, '']);
  }),
};

function upstreamWord(row: Answers['upstreamWords']['upstreams'][number]): Suggestion {
  return [row.instance_id, `${row.state ?? ''} ${row.gpu_model ?? ''}`.trim()];
}

async function ask(source: Source, before: readonly string[]): Promise<readonly Suggestion[]> {
  const { rest } = route(before);
  const valueAfter = (...names: string[]) => rest[rest.findIndex((word) => names.includes(word)) + 1];
  const has = (...names: string[]) => rest.some((word) => names.includes(word));
  const client = createClient({
    connection: findConnection({
      key: has('--key', '-k') ? valueAfter('--key', '-k') : undefined,
      url: has('--url', '-u') ? valueAfter('--url', '-u') : undefined,
    }),
    timeoutMs: serverTimeoutMs,
  });
  return questions[source](client);
}
