import { readFileSync } from 'node:fs';
import type { Command } from 'commander';
import type { AnswerName, Answers } from './answers.ts';
import { type Answer, type Call, type Client, createClient, type Method, type ServerSentEvent } from './client.ts';
import { type ColorChoice, colorWanted } from './color.ts';
import { type Connection, findConnection } from './connection.ts';
import { usageError } from './exit.ts';
import { exitOnInterrupt } from './interrupts.ts';
import { checkFields, narrow } from './narrow.ts';
import { type Column, plainLines, proseLines, tableLines } from './output.ts';
import { terminal } from './terminal.ts';

/** Values of the options that every client command has. */
export type CommonOptions = Readonly<{
  key?: string;
  keyFile?: string;
  url?: string;
  timeout?: number;
  json?: boolean;
  fields?: string;
  raw?: boolean;
  plain?: boolean;
  quiet?: boolean;
  color?: ColorChoice;
  input?: boolean;
  debug?: boolean;
  curl?: boolean;
  retry?: number;
  until?: string;
  dryRun?: boolean;
}>;

/** What the document is that a command prints with --json. */
export type Document = Readonly<{
  /** The field that holds its rows, a list or a table by id; null (the default): it is one row itself. */
  rows?: string | null;
  /** Its name in `gpuproxy schema`, by default that of the command; null: it has none. */
  schema?: string | null;
}>;

/** What a client command works with: the client, and the ways to say something. */
export type Session = Readonly<{
  client: Client;
  json: boolean;
  /** A document as --fields wants it. */
  narrowed(document: unknown): unknown;
  quiet: boolean;
  /** For programs that read columns: tabs, no header, no sentences around it. */
  plain: boolean;
  /** May stdout carry colour? */
  color: boolean;
  call(method: Method, path: string, call?: Call): Promise<Answer>;
  /** Server-sent events as they come. */
  events(path: string, call?: Call): AsyncGenerator<ServerSentEvent>;
  /** What an answer says, checked. Throws CliError when it is not the answer that its name promises. */
  read<Name extends AnswerName>(name: Name, answer: Answer): Promise<Answers[Name]>;
  /** By whom a question before the deed is answered. Under CI a terminal is there by accident, so nobody may be asked. */
  asking: 'terminal' | 'nobody' | 'forbidden';
  /** --curl: nothing is asked and nothing looked up, so that the one request of the command is shown. */
  shows: boolean;
  /** Data, on stdout. */
  print(text: string): void;
  /** Rows as the options want them: a table that fits the terminal, or tabs with --plain. Ends with a line feed. */
  table<Row>(columns: readonly Column<Row>[], rows: readonly Row[]): string;
  /** Sentences behind `indent` cells: one line, or as many as the terminal needs to break no word. Ends with a line feed. */
  prose(text: string, indent?: number): string;
  /** Text on stdout; on a terminal that is too low for it, through a pager. */
  page(text: string): Promise<void>;
  /** One line of a few words. */
  line(...words: readonly string[]): string;
  /** The body of an answer as one document on stdout. */
  printBody(answer: Answer): void;
  printJson(value: unknown): void;
  /** Progress and notes for people, on stderr; silent with --quiet. */
  note(text: string): void;
}>;

/** Thrown when --curl printed the request in place of sending it. */
export class CurlPrinted extends Error {}

/** Where the options of a command send its requests. Throws CliError (exit 2). */
export function connectionOf(command: Command): Connection {
  const options = command.optsWithGlobals<CommonOptions>();
  return findConnection({
    key: options.keyFile === undefined ? options.key : readKey(options.keyFile),
    url: options.url,
  });
}

export function openSession(
  command: Command,
  { rows = null, schema = schemaName(command) }: Document = {},
  connection: Connection = connectionOf(command),
): Session {
  exitOnInterrupt();
  const options = command.optsWithGlobals<CommonOptions>();
  // Fields are those of the document, so asking for them asks for it.
  const json = options.json === true || options.raw === true || options.fields !== undefined;
  const fields = options.fields?.split(',').map((name) => name.trim()) ?? null;
  const narrowed = (document: unknown) => narrow(document, fields, rows);
  const quiet = options.quiet === true;
  const plain = options.plain === true;
  const client = createClient({
    connection,
    // With --until the time given is for the state, not for one answer.
    timeoutMs: options.until === undefined ? (options.timeout ?? 30_000) : 30_000,
    retries: options.retry ?? 1,
    debug:
      options.debug === true || process.env.GPUPROXY_DEBUG
        ? (line) => process.stderr.write(`debug: ${line}\n`)
        : undefined,
  });
  const print = (text: string) => process.stdout.write(text);
  /** Before something is sent for it: neither a list of fields nor a slip of the pen may rent or destroy anything. */
  const checkFieldsFirst = async (changes: boolean) => {
    if (fields === null || schema === null || options.dryRun === true || !(changes || fields[0] === '?')) return;
    const known = (await import('./output-schemas.ts')).rowFields(schema, rows);
    if (known !== undefined) checkFields(fields, known);
  };
  const printJson = (value: unknown) =>
    print(`${JSON.stringify(narrowed(value), null, terminal() === null ? 0 : 2)}\n`);
  return {
    client,
    json,
    narrowed,
    quiet,
    plain,
    color: !plain && colorWanted(options.color ?? 'auto', process.env, terminal() !== null),
    asking:
      options.input === false || (process.stdin.isTTY === true && process.env.CI && process.env.CI !== 'false')
        ? 'forbidden'
        : process.stdin.isTTY === true
          ? 'terminal'
          : 'nobody',
    shows: options.curl === true,
    async call(method, path, call) {
      if (options.curl === true) {
        print(`${client.curl(method, path, call)}\n`);
        throw new CurlPrinted();
      }
      await checkFieldsFirst(method !== 'GET');
      return client.call(method, path, call);
    },
    async *events(path, call) {
      if (options.curl === true) {
        print(`${client.curl('GET', path, call)}\n`);
        throw new CurlPrinted();
      }
      await checkFieldsFirst(true);
      yield* client.events(path, call);
    },
    async read(name, answer) {
      const { readAnswer } = await import('./answers.ts');
      return readAnswer(name, answer.body, connection.url);
    },
    print,
    table(columns, rows) {
      const lines = plain ? plainLines(columns, rows) : tableLines(columns, rows, terminal()?.columns ?? null);
      return lines.map((line) => `${line}\n`).join('');
    },
    prose(text, indent) {
      const columns = terminal()?.columns;
      return `${columns === undefined ? text : proseLines(text, columns, indent).join('\n')}\n`;
    },
    async page(text) {
      const lines = text.split('\n').length - 1;
      if (process.stdout.isTTY !== true || plain || quiet || lines < (process.stdout.rows || Number.POSITIVE_INFINITY))
        print(text);
      else await (await import('./pager.ts')).page(text);
    },
    line: (...words) => `${words.join(plain ? '\t' : '  ')}\n`,
    printBody(answer) {
      if (terminal() !== null || fields !== null) printJson(answer.body ?? null);
      else print(`${answer.text.trimEnd() || 'null'}\n`);
    },
    printJson,
    note(text) {
      if (!quiet) process.stderr.write(`${text}\n`);
    },
  };
}

/** "reservations show"; what a subcommand prints that also runs unnamed is that of its command. */
function schemaName(command: Command): string {
  const words: string[] = [];
  for (let each: Command | null = command; each !== null; each = each.parent) words.unshift(each.name());
  return words
    .join(' ')
    .replace(/^gpuproxy /, '')
    .replace(/ list$/, '');
}

function readKey(file: string): string {
  try {
    return readFileSync(file === '-' ? 0 : file, 'utf8').trim();
  } catch (error) {
    throw usageError(
      `--key-file: ${file} cannot be read (${(error as NodeJS.ErrnoException).code ?? 'unknown error'})`,
    );
  }
}

/** Seconds or minutes as people type them: "10", "10s", "500ms", "5m". Returns milliseconds. */
export function parseDuration(word: string): number {
  const match = /^(\d+(?:\.\d+)?)(ms|s|m|h)?$/.exec(word);
  if (match === null) throw usageError(`"${word}" is not a time`, { hint: 'for example 30s, 500ms, 5m' });
  return Number(match[1]) * { ms: 1, s: 1000, m: 60_000, h: 3_600_000 }[(match[2] ?? 's') as 'ms' | 's' | 'm' | 'h'];
}
