import {
  accessSync,
  closeSync,
  constants,
  existsSync,
  mkdirSync,
  openSync,
  readFileSync,
  rmdirSync,
  unlinkSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import { createSecureContext } from 'node:tls';
import { type Config, ConfigError } from '../config.ts';

/** Throws ConfigError when the access log is a file that cannot be written. `open` is told to open it for appending. */
export function checkAccessLog({ ACCESS_LOG: file }: Config, open: (file: string) => void = openLog): void {
  if (file === 'off' || file === '-') return;
  try {
    open(file);
  } catch (error) {
    const accepts = 'accepts off, - for stderr, or a file that can be written';
    throw new ConfigError(
      `ACCESS_LOG: got "${file}", which cannot be opened (${(error as Error).message}); ${accepts}`,
    );
  }
}

function openLog(file: string): void {
  makeFolders(dirname(file), []);
  closeSync(openSync(file, 'a'));
}

/** Throws when the ledger cannot be kept there: a system error with the path. */
export function checkDataDir(folder: string): void {
  // Not the ledger itself: what is taken away again may by now be that of a server which started meanwhile.
  const probe = join(folder, '.can-be-written');
  try {
    tryFile(probe);
  } catch (error) {
    const refused = error as NodeJS.ErrnoException;
    throw refused.path === probe ? Object.assign(refused, { path: folder }) : refused;
  }
  const ledger = join(folder, 'ledger.db');
  if (existsSync(ledger)) accessSync(ledger, constants.R_OK | constants.W_OK);
}

/** Opens a file for appending as the server would, folders and all, and takes away again what that made. Throws what stands in the way. */
export function tryFile(file: string): void {
  const made: string[] = [];
  try {
    makeFolders(dirname(file), made);
    const isNew = !existsSync(file);
    closeSync(openSync(file, 'a'));
    if (isNew) unlinkSync(file);
  } finally {
    for (const folder of made.reverse()) {
      try {
        rmdirSync(folder);
      } catch {
        // Something else is in it by now, which is not ours to take away.
      }
    }
  }
}

/** Adds to `made` each folder as it is made. Not `recursive`: that one tries for ever below /proc. */
function makeFolders(path: string, made: string[]): void {
  try {
    mkdirSync(path);
    made.push(path);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'EEXIST') return;
    if (code !== 'ENOENT' || dirname(path) === path) throw error;
    makeFolders(dirname(path), made);
    mkdirSync(path);
    made.push(path);
  }
}

/** PEM texts of both listeners; null: plain HTTP. Throws ConfigError. */
export function readTls(config: Config): { cert: string; key: string } | null {
  if (config.TLS_CERT === undefined || config.TLS_KEY === undefined) return null;
  const tls = { cert: readPem('TLS_CERT', config.TLS_CERT), key: readPem('TLS_KEY', config.TLS_KEY) };
  try {
    createSecureContext(tls);
  } catch (error) {
    throw new ConfigError(`TLS_CERT, TLS_KEY: accepts a PEM certificate and its own key (${(error as Error).message})`);
  }
  return tls;
}

function readPem(name: 'TLS_CERT' | 'TLS_KEY', path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    throw new ConfigError(
      `${name}: got "${path}", which cannot be read (${(error as NodeJS.ErrnoException).code}); accepts a PEM file`,
    );
  }
}
