import { readFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { CliError, exitCodes } from './exit.ts';

/** What the conf file may hold: choices of a person, nothing that the ledger owns. */
export type Preferences = Readonly<{
  /** Key that the client commands send. */
  apiKey?: string;
  /** Where client commands find the server. */
  url?: string;
  /** What the dashboard keeps: theme, columns, last sort. It checks this itself. */
  dashboard?: Readonly<Record<string, unknown>>;
}>;

type Environment = Readonly<Record<string, string | undefined>>;

/** GPUPROXY_CONFIG_DIR, else the XDG folder. */
export function preferencesFolder(environment: Environment = process.env): string {
  if (environment.GPUPROXY_CONFIG_DIR) return environment.GPUPROXY_CONFIG_DIR;
  if (process.platform === 'win32' && environment.APPDATA) return join(environment.APPDATA, 'gpuproxy');
  return join(environment.XDG_CONFIG_HOME || join(homedir(), '.config'), 'gpuproxy');
}

export function preferencesFile(environment: Environment = process.env): string {
  return join(preferencesFolder(environment), 'config.json');
}

/**
 * Reads the conf file without the library behind `openPreferences`, which costs more time than a whole client command
 * may take. An absent file is an empty one. Throws CliError (exit 2) when it cannot be understood.
 */
export function readPreferences(environment: Environment = process.env): Preferences {
  const file = preferencesFile(environment);
  let text: string;
  try {
    text = readFileSync(file, 'utf8');
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT' || code === 'ENOTDIR') return {};
    throw new CliError(exitCodes.usage, 'configuration', `${file} cannot be read (${code ?? 'unknown error'})`, {
      hint: 'correct its permissions, or set GPUPROXY_CONFIG_DIR to another folder',
    });
  }
  if (text.trim() === '') return {};
  try {
    const value: unknown = JSON.parse(text);
    if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value;
  } catch {
    // told below, without the text: it may hold a key
  }
  throw new CliError(exitCodes.usage, 'configuration', `${file} is not a JSON object`, {
    why: 'the file was changed by hand, or its disk was full',
    hint: `correct it, or remove it and set the values again with "gpuproxy config set"`,
  });
}
