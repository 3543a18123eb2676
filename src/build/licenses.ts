/**
 * Writes the licences of the packages that the bundle holds, beside it: they allow copies that carry their notices.
 *
 *   node src/build/licenses.ts [folder]
 */
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';

const root = resolve(import.meta.dirname, '..', '..');

type Locked = Readonly<{ version: string; license?: string; dependencies?: Readonly<Record<string, string>> }>;

/** Names of the packages that the program's sources import. */
export function importedPackages(): string[] {
  const names = new Set<string>();
  for (const path of readdirSync(join(root, 'src'), { recursive: true, encoding: 'utf8' })) {
    if (!/\.tsx?$/.test(path)) continue;
    const text = readFileSync(join(root, 'src', path), 'utf8');
    for (const [, name = ''] of text.matchAll(/\b(?:from |import |import\()'((?:@[a-z\d-]+\/)?[a-z][a-z\d-]*)['/]/g)) {
      names.add(name);
    }
  }
  return [...names].sort();
}

/** Paths, in the lock file, of those packages and of all that they need themselves. */
function bundledPaths(packages: Readonly<Record<string, Locked>>): string[] {
  const found = new Set<string>();
  const visit = (name: string, from: string): void => {
    let folder = from;
    while (folder !== '' && !(`${folder}/node_modules/${name}` in packages)) {
      folder = folder.slice(0, Math.max(0, folder.lastIndexOf('/node_modules/')));
    }
    const path = folder === '' ? `node_modules/${name}` : `${folder}/node_modules/${name}`;
    const locked = packages[path];
    if (locked === undefined) throw new Error(`${from || 'src'} needs ${name}, which package-lock.json does not know`);
    if (found.has(path)) return;
    found.add(path);
    for (const dependency of Object.keys(locked.dependencies ?? {})) visit(dependency, path);
  };
  for (const name of importedPackages()) visit(name, '');
  return [...found].sort();
}

function noticeOf(path: string): string {
  const file = readdirSync(join(root, path)).find((name) => /^licen[cs]e/i.test(name));
  return file === undefined ? '' : `\n${readFileSync(join(root, path, file), 'utf8').trim()}\n`;
}

if (import.meta.main) {
  const { packages } = JSON.parse(readFileSync(join(root, 'package-lock.json'), 'utf8')) as {
    packages: Record<string, Locked>;
  };
  const parts = bundledPaths(packages).map((path) => {
    const { version, license } = packages[path] as Locked;
    const name = path.slice(path.lastIndexOf('node_modules/') + 'node_modules/'.length);
    return `${name} ${version} (${license ?? 'see below'})\n${noticeOf(path)}`;
  });
  writeFileSync(
    join(process.argv[2] ?? join(root, 'dist'), 'THIRD-PARTY-LICENSES.txt'),
    parts.join(`\n${'-'.repeat(78)}\n\n`),
  );
}
