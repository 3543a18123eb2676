import { createHash } from 'node:crypto';
import { mkdirSync, readdirSync, readFileSync, statSync, unlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseEnv } from 'node:util';
import { defaultDataDir } from './data-dir.ts';
import { readPreferences } from './preferences-file.ts';
import { programVersion } from './version.ts';

/** What repeats with every request must not fill the disk that the ledger is on. */
const maxFiles = 20;
const sameBugMs = 60 * 60_000;

/**
 * Writes what is known of a bug into a file of its own beside the ledger, readable by its owner alone, and returns the
 * path; null when no file can be written there. A bug that was written within the last hour keeps that file.
 */
export function writeCrashLog(
  error: unknown,
  where: string,
  environment: NodeJS.ProcessEnv = process.env,
): string | null {
  const folder = environment.GPUPROXY_DATA_DIR || defaultDataDir(environment);
  const at = new Date().toISOString();
  const what = error instanceof Error ? `${error.name}: ${error.message}` : String(error);
  // Part of the name, so that the folder itself knows, for all processes and after a restart.
  const mark = createHash('sha256').update(what).digest('hex').slice(0, 8);
  const path = join(folder, `crash-${at.replace(/[:.]/g, '-')}-${mark}.log`);
  const text = [
    `gpuproxy ${programVersion()}, Node ${process.versions.node}, ${process.platform} ${process.arch}`,
    at,
    where,
    '',
    withoutSecrets(stackOf(error), environment),
    '',
  ].join('\n');
  try {
    mkdirSync(folder, { recursive: true, mode: 0o700 });
    // Names begin with the time: the oldest comes first.
    const kept = readdirSync(folder)
      .filter((name) => /^crash-.*\.log$/.test(name))
      .sort();
    const same = kept.findLast((name) => name.endsWith(`-${mark}.log`));
    if (same !== undefined && Date.now() - statSync(join(folder, same)).mtimeMs < sameBugMs) return join(folder, same);
    writeFileSync(path, text, { mode: 0o600 });
    for (const name of kept.slice(0, Math.max(0, kept.length + 1 - maxFiles))) unlinkSync(join(folder, name));
    return path;
  } catch {
    // The bug itself is told all the same; only its details are lost.
    return null;
  }
}

/** Stack with the causes below it. */
export function stackOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  const own = error.stack ?? `${error.name}: ${error.message}`;
  return error.cause === undefined ? own : `${own}\ncaused by: ${stackOf(error.cause)}`;
}

/** An error of a library may quote what it was given: the secrets that this process knows are taken out. */
export function withoutSecrets(text: string, environment: NodeJS.ProcessEnv = process.env): string {
  let clean = text
    // None goes beyond a quote: a line of a recording is JSON, and stays so. Packages have an @ in the paths of files.
    .replace(/\b(?!file:)([a-z][a-z0-9+.-]*:\/\/)[^\s"@]+@/gi, '$1…@')
    .replace(/(https?:\/\/[^\s?#"]*)[?#][^\s"]*/gi, '$1?…')
    .replace(/-----BEGIN [A-Z ]*PRIVATE KEY-----[^"]*?(?:-----END [A-Z ]*-----|(?=")|$)/g, '…')
    .replace(/\b(bearer|gp_)\s*[\w.~+/=-]{8,}/gi, '$1…');
  for (const secret of secretsOf(environment)) clean = clean.replaceAll(secret, '…');
  return clean;
}

/** By every way in which one can come, the longest first: a part of another must not leave the rest of it. */
function secretsOf(environment: NodeJS.ProcessEnv): readonly string[] {
  const secrets: string[] = [];
  for (const variables of [environment, readDotenv()]) {
    for (const [name, value] of Object.entries(variables)) {
      if (value === undefined || !/KEY|TOKEN|SECRET|PASSWORD|CREDENTIAL|AUTH|HEADERS/i.test(name)) continue;
      secrets.push(value, ...(/HEADERS/i.test(name) ? value.split(/[,=]/) : []));
    }
  }
  secrets.push(storedKey(environment));
  const long = secrets.filter((secret) => secret.length >= 8);
  for (const [index, word] of process.argv.entries()) {
    const value =
      /^--?k(?:ey)?=(.+)$/.exec(word)?.[1] ?? (/^--?k(?:ey)?$/.test(word) ? process.argv[index + 1] : undefined);
    if (value !== undefined && value.length >= 4) long.push(value);
  }
  return long.sort((a, b) => b.length - a.length);
}

/** Read again each time, as a reload does: what is there now may be what the error quotes. */
function readDotenv(): NodeJS.Dict<string> {
  try {
    return parseEnv(readFileSync('.env', 'utf8'));
  } catch {
    return {};
  }
}

function storedKey(environment: NodeJS.ProcessEnv): string {
  try {
    const { apiKey } = readPreferences(environment);
    return typeof apiKey === 'string' ? apiKey : '';
  } catch {
    return '';
  }
}
