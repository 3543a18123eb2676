import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseEnv } from 'node:util';
import { isBaseUrl, shownValue } from '../core/base-url.ts';
import { CliError, exitCodes } from './exit.ts';
import { readPreferences } from './preferences-file.ts';

export type SettingOrigin = 'flag' | 'environment' | '.env' | 'conf' | 'default';

/** Where a client command sends its requests, and as whom. */
export type Connection = Readonly<{
  /** Without a trailing slash and without the API path. */
  url: string;
  urlOrigin: SettingOrigin;
  /** null: none is configured. */
  key: string | null;
  keyOrigin: SettingOrigin | null;
}>;

/**
 * The two settings of client commands, by the precedence of all configuration: flag, environment, `.env`, conf file,
 * default. Read here without the full schema, which takes longer than such a command may run.
 * Throws CliError (exit 2) that names the variable and never its secret value.
 */
export function findConnection(
  flags: Readonly<{ key?: string | undefined; url?: string | undefined }>,
  environment: Readonly<Record<string, string | undefined>> = process.env,
  cwd: string = process.cwd(),
): Connection {
  const dotenv = readDotenv(cwd);
  const stored = readPreferences(environment);
  const port = environment.GPUPROXY_PORT || dotenv.GPUPROXY_PORT || '';
  // Where a server with the same settings listens.
  const here = `http://127.0.0.1:${/^[1-9]\d{0,4}$/.test(port) ? port : 8080}`;
  const [url, urlOrigin] = first<string>(here, [
    ['flag', flags.url],
    ['environment', environment.GPUPROXY_URL || undefined],
    ['.env', dotenv.GPUPROXY_URL || undefined],
    ['conf', stored.url],
  ]);
  const [key, keyOrigin] = first<string | null>(null, [
    ['flag', flags.key],
    ['environment', environment.GPUPROXY_API_KEY || undefined],
    ['.env', dotenv.GPUPROXY_API_KEY || undefined],
    ['conf', stored.apiKey],
  ]);
  const told = (name: string, flag: string, origin: SettingOrigin) =>
    origin === 'flag' ? flag : origin === 'environment' ? name : `${name} (${origin})`;
  if (typeof url !== 'string' || !isBaseUrl(url)) {
    throw new CliError(
      exitCodes.usage,
      'configuration',
      `${told('GPUPROXY_URL', '--url', urlOrigin)}: got ${shownValue(url)}, accepts an http:// or https:// URL without user, password, query and fragment`,
      { hint: 'for example http://127.0.0.1:8080' },
    );
  }
  if (key !== null && (typeof key !== 'string' || key === '' || /[^\x21-\x7e]/.test(key))) {
    throw new CliError(
      exitCodes.usage,
      'configuration',
      `${told('GPUPROXY_API_KEY', '--key', keyOrigin)}: got a value that is hidden, accepts a key of printable characters without blanks`,
      { hint: 'keys are made by "gpuproxy keys create"' },
    );
  }
  const base = url.replace(/\/+$/, '').replace(/\/api\/v1$/, '');
  return { url: base, urlOrigin, key, keyOrigin: key === null ? null : keyOrigin };
}

function first<T>(
  fallback: T,
  layers: readonly (readonly [SettingOrigin, T | undefined])[],
): readonly [T, SettingOrigin] {
  const found = layers.find(([, value]) => value !== undefined);
  return found === undefined ? [fallback, 'default'] : [found[1] as T, found[0]];
}

function readDotenv(folder: string): Record<string, string | undefined> {
  try {
    return parseEnv(readFileSync(join(folder, '.env'), 'utf8'));
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT') return {};
    throw new CliError(exitCodes.usage, 'configuration', `.env: cannot be read (${code ?? 'unknown error'})`);
  }
}
