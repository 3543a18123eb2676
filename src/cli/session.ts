import { readFileSync } from 'node:fs';
import type { Command } from 'commander';
import { type Answer, type Call, type Client, createClient, type Method } from './client.ts';
import { type ColorChoice, colorWanted } from './color.ts';
import { findConnection } from './connection.ts';
import { CliError, exitCodes, usageError } from './exit.ts';
import { exitOnInterrupt } from './interrupts.ts';
import { narrow } from './narrow.ts';

/** Values of the options that every client command has. */
export type CommonOptions = Readonly<{
  key?: string;
  keyFile?: string;
  url?: string;
  timeout?: number;
  json?: boolean;
  fields?: string;
  raw?: boolean;
  quiet?: boolean;
  color?: ColorChoice;
  input?: boolean;
  debug?: boolean;
  curl?: boolean;
}>;

/** What a client command works with: the client, and the ways to say something. */
export type Session = Readonly<{
  client: Client;
  json: boolean;
  /** A document as --fields wants it. */
  narrowed(document: unknown): unknown;
  quiet: boolean;
  /** May stdout carry colour? */
  color: boolean;
  /** A person can be asked: stdin is a terminal and --no-input was not given. */
  interactive: boolean;
  call(method: Method, path: string, call?: Call): Promise<Answer>;
  /** Data, on stdout. */
  print(text: string): void;
  /** The body of an answer as one document on stdout. */
  printBody(answer: Answer): void;
  printJson(value: unknown): void;
  /** Progress and notes for people, on stderr; silent with --quiet. */
  note(text: string): void;
}>;

/** Thrown when --curl printed the request in place of sending it. */
export class CurlPrinted extends Error {}

export function openSession(command: Command): Session {
  exitOnInterrupt();
  const options = command.optsWithGlobals<CommonOptions>();
  // Fields are those of the document, so asking for them asks for it.
  const json = options.json === true || options.raw === true || options.fields !== undefined;
  const fields = options.fields?.split(',').map((name) => name.trim()) ?? null;
  const narrowed = (document: unknown) => narrow(document, fields);
  const quiet = options.quiet === true;
  const connection = findConnection({
    key: options.keyFile === undefined ? options.key : readKey(options.keyFile),
    url: options.url,
  });
  const client = createClient({
    connection,
    timeoutMs: options.timeout ?? 30_000,
    retries: 1,
    debug:
      options.debug === true || process.env.GPUPROXY_DEBUG
        ? (line) => process.stderr.write(`debug: ${line}\n`)
        : undefined,
  });
  const print = (text: string) => process.stdout.write(text);
  const printJson = (value: unknown) =>
    print(`${JSON.stringify(narrowed(value), null, process.stdout.isTTY ? 2 : 0)}\n`);
  return {
    client,
    json,
    narrowed,
    quiet,
    color: colorWanted(options.color ?? 'auto', process.env, process.stdout.isTTY === true),
    interactive: process.stdin.isTTY === true && options.input !== false,
    async call(method, path, call) {
      if (options.curl === true) {
        print(`${client.curl(method, path, call)}\n`);
        throw new CurlPrinted();
      }
      return client.call(method, path, call);
    },
    print,
    printBody(answer) {
      if (process.stdout.isTTY || fields !== null) printJson(answer.body ?? null);
      else print(`${answer.text.trimEnd() || 'null'}\n`);
    },
    printJson,
    note(text) {
      if (!quiet) process.stderr.write(`${text}\n`);
    },
  };
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

/** Asks on stderr, reads one line of stdin. Anything but yes is no. */
export async function confirm(question: string): Promise<boolean> {
  const { createInterface } = await import('node:readline/promises');
  const lines = createInterface({ input: process.stdin, output: process.stderr });
  const closed = new Promise<string>((resolve) => lines.once('close', () => resolve('')));
  lines.once('SIGINT', () => {
    process.stderr.write('\n');
    process.exit(exitCodes.interrupted);
  });
  try {
    const answer = await Promise.race([lines.question(`${question} [y/N] `), closed]);
    return /^y(es)?$/i.test(answer.trim());
  } finally {
    lines.close();
  }
}

export function notConfirmed(what: string): CliError {
  return new CliError(exitCodes.refused, 'not_confirmed', `not confirmed: ${what}`, {
    hint: 'answer y, or add --yes to skip the question',
  });
}

/** Seconds or minutes as people type them: "10", "10s", "500ms", "5m". Returns milliseconds. */
export function parseDuration(word: string): number {
  const match = /^(\d+(?:\.\d+)?)(ms|s|m|h)?$/.exec(word);
  if (match === null) throw usageError(`"${word}" is not a time`, { hint: 'for example 30s, 500ms, 5m' });
  return Number(match[1]) * { ms: 1, s: 1000, m: 60_000, h: 3_600_000 }[(match[2] ?? 's') as 'ms' | 's' | 'm' | 'h'];
}
