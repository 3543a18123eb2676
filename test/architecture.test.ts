import { execFileSync } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join, relative, resolve, sep } from 'node:path';
import { describe, expect, it } from 'vitest';

const root = resolve(import.meta.dirname, '..', 'src');

/** Folder (or top-level file) → what it may import besides itself. A folder that is not here is refused. */
const mayImport: Record<string, readonly string[]> = {
  core: [],
  'clock.ts': [],
  'config.ts': ['core'],
  'node-http.ts': [],
  providers: ['core', 'clock.ts'],
  fleet: ['providers', 'core', 'config.ts', 'clock.ts'],
  proxy: ['fleet', 'core', 'config.ts', 'clock.ts', 'node-http.ts'],
  rest: ['fleet', 'providers', 'core', 'config.ts', 'clock.ts', 'node-http.ts'],
  tui: ['fleet', 'providers', 'core', 'config.ts', 'clock.ts'],
  sim: ['core', 'clock.ts', 'node-http.ts'],
  cli: ['fleet', 'proxy', 'rest', 'tui', 'sim', 'providers', 'core', 'config.ts', 'clock.ts'],
  'main.ts': ['cli'],
  build: [],
};
const impure =
  /\b(Date\.now|new Date\(\)|Math\.random|performance\.now|setTimeout|setInterval|setImmediate|process\.)\b/;

type Source = Readonly<{ path: string; text: string }>;

/** Breaks of the import direction, one line each. */
function violations(sources: readonly Source[]): string[] {
  const found: string[] = [];
  for (const { path, text } of sources) {
    const part = path.split(sep)[0] ?? path;
    const allowed = mayImport[part];
    if (!allowed) {
      found.push(`${path}: nobody declared ${part}`);
      continue;
    }
    for (const match of text.matchAll(/(?:from|import|new URL)\s*\(?\s*'([^']+)'/g)) {
      const specifier = match[1] ?? '';
      if (!specifier.startsWith('.')) {
        if (part === 'core') found.push(`${path}: core imports the package ${specifier}`);
        // By name it brings all of its languages into the bundle, 440 kB that every command would load.
        if (specifier === 'zod' && /import (type )?\{[^}]*\} from 'zod'/.test(text))
          found.push(`${path}: zod is imported by name, not as a namespace`);
        continue;
      }
      const target = relative(root, resolve(root, dirname(path), specifier)).split(sep)[0] ?? '';
      if (target !== part && !allowed.includes(target)) found.push(`${path}: ${part} imports ${target}`);
    }
    if (part === 'core') {
      for (const [index, line] of text.split('\n').entries()) {
        const code = line.replace(/\/\/.*$|^\s*\/?\*.*$/, '');
        if (impure.test(code)) found.push(`${path}:${index + 1}: clock or randomness in core: ${code.trim()}`);
      }
    }
  }
  return found;
}

function sources(): Source[] {
  return readdirSync(root, { recursive: true, encoding: 'utf8' })
    .filter((path) => /\.tsx?$/.test(path))
    .map((path) => ({ path, text: readFileSync(join(root, path), 'utf8') }));
}

describe('the import direction', () => {
  it('holds in every file of src', () => {
    const all = sources();
    expect(all.length).toBeGreaterThan(10);
    expect(violations(all)).toEqual([]);
  });

  it.each([
    ['rest imports tui', { path: 'rest/a.ts', text: "import { x } from '../tui/x.ts';" }],
    ['core imports the package', { path: 'core/a.ts', text: "import fs from 'node:fs';" }],
    ['clock or randomness', { path: 'core/a.ts', text: 'const t = Date.now();' }],
    ['nobody declared', { path: 'extras/a.ts', text: '' }],
    ['not as a namespace', { path: 'rest/a.ts', text: "import { z } from 'zod';" }],
    ['imports main.ts', { path: 'cli/a.ts', text: "await import('../main.ts')" }],
    ['sim imports fleet', { path: 'sim/a.ts', text: "import type { App } from '../fleet/app.ts';" }],
  ])('finds a planted violation: %s', (words, planted) => {
    expect(violations([planted]).join('\n')).toContain(words);
  });

  it('keeps the top level small', () => {
    const kept = [
      'package.json',
      'package-lock.json',
      'tsconfig.json',
      'biome.json',
      'README.md',
      '.env.example',
      'LICENSE',
    ];
    const folders = ['src', 'test', 'bench', '.ci', 'docs', '.gitignore'];
    const tracked = execFileSync('git', ['ls-files'], { cwd: join(root, '..'), encoding: 'utf8' });
    const top = new Set(
      tracked
        .trim()
        .split('\n')
        .map((path) => path.split('/')[0] ?? ''),
    );
    expect([...top].sort()).toEqual([...kept, ...folders].sort());
  });
});
