import { readFileSync } from 'node:fs';

/** Put in by the build. */
declare const gpuproxyCommit: string | null | undefined;

/** Commit that this program was built of; null where it was no checkout, or is not built. */
export function programCommit(): string | null {
  return typeof gpuproxyCommit === 'string' ? gpuproxyCommit : null;
}

/** Version of this program, from the package that the file belongs to. */
export function programVersion(): string {
  // The bundle is one folder below the package, the sources are two.
  for (const path of ['../package.json', '../../package.json']) {
    try {
      const { name, version } = JSON.parse(readFileSync(new URL(path, import.meta.url), 'utf8')) as Record<
        string,
        unknown
      >;
      if (name === 'gpuproxy' && typeof version === 'string') return version;
    } catch {
      // the other place
    }
  }
  return 'unknown';
}
