import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { defaultDataDir } from './data-dir.ts';
import { programVersion } from './version.ts';

/**
 * Writes what is known of a bug into a file of its own beside the ledger, readable by its owner alone, and returns the
 * path; null when no file can be written there.
 */
export function writeCrashLog(
  error: unknown,
  where: string,
  environment: NodeJS.ProcessEnv = process.env,
): string | null {
  const folder = environment.GPUPROXY_DATA_DIR || defaultDataDir(environment);
  const at = new Date().toISOString();
  const path = join(folder, `crash-${at.replace(/[:.]/g, '-')}-${process.pid}.log`);
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
    writeFileSync(path, text, { mode: 0o600 });
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
  const secrets = Object.entries(environment).flatMap(([name, value]) =>
    /KEY|TOKEN|SECRET|PASSWORD|CREDENTIAL|AUTH|HEADERS/i.test(name) && value !== undefined && value.length >= 8
      ? [value]
      : [],
  );
  for (const [index, word] of process.argv.entries()) {
    const value =
      /^--?k(?:ey)?=(.+)$/.exec(word)?.[1] ?? (/^--?k(?:ey)?$/.test(word) ? process.argv[index + 1] : undefined);
    if (value !== undefined && value.length >= 4) secrets.push(value);
  }
  let clean = text
    .replace(/([a-z][a-z0-9+.-]*:\/\/)[^\s/@]+@/gi, '$1…@')
    .replace(/\b(bearer|gp_)\s*[\w.~+/=-]{8,}/gi, '$1…');
  for (const secret of secrets.sort((a, b) => b.length - a.length)) clean = clean.replaceAll(secret, '…');
  return clean;
}
