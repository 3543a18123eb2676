import { readFileSync } from 'node:fs';

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
