import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { describe, expect, it } from 'vitest';
import { importedPackages } from '../src/build/licenses.ts';

const root = resolve(import.meta.dirname, '..');
const text = (path: string) => readFileSync(join(root, path), 'utf8');

type Locked = {
  resolved?: string;
  integrity?: string;
  license?: string;
  link?: boolean;
  hasInstallScript?: boolean;
  optionalDependencies?: Record<string, string>;
};
type Lock = { packages: Record<string, Locked> };
type Manifest = {
  dependencies?: Record<string, string>;
  devDependencies: Record<string, string>;
  scripts: Record<string, string>;
  allowScripts: Record<string, boolean>;
};

const lock = JSON.parse(text('package-lock.json')) as Lock;
const manifest = JSON.parse(text('package.json')) as Manifest;
const others = Object.entries(lock.packages).filter(([path]) => path !== '');

/** Optional dependencies that the lock file does not know: `npm ci` refuses such a file on every machine. */
function missing({ packages }: Lock): string[] {
  return Object.entries(packages).flatMap(([path, { optionalDependencies = {} }]) =>
    Object.keys(optionalDependencies)
      .filter((name) => !(`node_modules/${name}` in packages) && !(`${path}/node_modules/${name}` in packages))
      .map((name) => `${path} wants ${name}`),
  );
}

describe('package-lock.json', () => {
  it('knows every optional package of other platforms, so that npm ci accepts it', () => {
    expect(others.length).toBeGreaterThan(50);
    expect(missing(lock)).toEqual([]);
  });

  it('is found out when one is missing', () => {
    const broken = { packages: { 'node_modules/a': { optionalDependencies: { 'a-darwin': '1.0.0' } } } };
    expect(missing(broken)).toEqual(['node_modules/a wants a-darwin']);
  });

  it('pins every package by its hash, and takes none from elsewhere than the registry', () => {
    const loose = others.filter(
      ([, { integrity, resolved, link }]) =>
        link === true ||
        !/^sha512-/.test(integrity ?? '') ||
        (resolved !== undefined && !resolved.startsWith('https://registry.npmjs.org/')),
    );
    expect(loose.map(([path]) => path)).toEqual([]);
  });

  it('lets no package run a script at installation but those that were looked at', () => {
    const scripted = others.filter(([, { hasInstallScript }]) => hasInstallScript).map(([path]) => path);
    const allowed = Object.keys(manifest.allowScripts).map((name) => `node_modules/${name}`);
    expect(scripted.filter((path) => !allowed.includes(path) && path !== 'node_modules/fsevents')).toEqual([]);
  });

  it('holds packages with permissive licences alone', () => {
    const permissive =
      /^\(?(MIT|ISC|0BSD|BSD-[23]-Clause|Apache-2\.0|BlueOak-1\.0\.0|CC0-1\.0|MPL-2\.0|Python-2\.0)( (OR|AND) .*)?\)?$/;
    expect(others.filter(([, { license = '' }]) => !permissive.test(license)).map(([path]) => path)).toEqual([]);
  });
});

/** Names in the first column of the README's table of dependencies. */
function explained(): string[] {
  const table = /### Dependencies\n\n([\s\S]*?)\n\n/.exec(text('README.md'))?.[1] ?? '';
  const rows = table.split('\n').slice(2);
  return rows.flatMap((row) => {
    const [, names = '', does = '', why = ''] = row.split('|').map((cell) => cell.trim());
    if (does === '' || (why === '' && !names.startsWith('@types/'))) throw new Error(`no reason is given: ${row}`);
    return names.replace(' (development)', '').split(', ');
  });
}

describe('dependencies', () => {
  const declared = Object.keys(manifest.devDependencies).sort();

  it('are not fetched by who installs the package: the bundle holds what it needs', () => {
    expect(manifest.dependencies).toBeUndefined();
    const imported = importedPackages();
    expect(imported).toContain('fastify');
    expect(imported.filter((name) => !declared.includes(name))).toEqual([]);
  });

  it('have each a line with a reason in the README', () => {
    const inReadme = explained().sort();
    expect(inReadme.filter((name) => name !== '@types/*')).toEqual(declared.filter((name) => !/^@types\//.test(name)));
    expect(inReadme).toContain('@types/*');
  });

  it('are all used', () => {
    const files = ['src', 'test', 'bench'].flatMap((folder) =>
      readdirSync(join(root, folder), { recursive: true, encoding: 'utf8' })
        .filter((path) => /\.tsx?$/.test(path) && path !== 'package.test.ts')
        .map((path) => text(join(folder, path))),
    );
    const scripts = Object.values(manifest.scripts).join('\n');
    const commands: Record<string, string> = { '@biomejs/biome': 'biome ', typescript: 'tsc', node: 'node ' };
    const used = (name: string) =>
      files.some((file) => file.includes(`'${name}'`) || file.includes(`'${name}/`)) ||
      scripts.includes(commands[name] ?? '\0') ||
      (name.startsWith('@types/') && (name === '@types/node' || declared.includes(name.slice('@types/'.length))));
    expect(declared.filter((name) => !used(name))).toEqual([]);
    expect(used('left-pad')).toBe(false);
  });

  it('travel with their licences', () => {
    const folder = mkdtempSync(join(tmpdir(), 'gpuproxy-licences-'));
    try {
      execFileSync(process.execPath, [join(root, 'src', 'build', 'licenses.ts'), folder]);
      const notices = readFileSync(join(folder, 'THIRD-PARTY-LICENSES.txt'), 'utf8');
      for (const name of [...importedPackages(), 'find-my-way', 'yoga-layout']) {
        expect(notices).toMatch(new RegExp(`^${name} \\d+\\.\\d+\\.\\d+ \\(`, 'm'));
      }
      expect(notices).toContain('The Fastify team');
    } finally {
      rmSync(folder, { recursive: true });
    }
  });
});

describe('the commit that a build puts into the program', () => {
  const commitOf = (folder: string) =>
    JSON.parse(
      execFileSync(process.execPath, [join(root, 'src', 'build', 'commit.ts'), folder], { encoding: 'utf8' }),
    ) as string | null;

  it('is that of the checkout, and none where the files are no checkout of their own', () => {
    expect(manifest.scripts.build).toContain('$(node src/build/commit.ts)');
    const folder = mkdtempSync(join(tmpdir(), 'gpuproxy-commit-'));
    try {
      expect(commitOf(folder)).toBeNull();
      const git = (...args: string[]) => execFileSync('git', ['-C', folder, ...args], { encoding: 'utf8' }).trim();
      git('init', '--quiet');
      expect(commitOf(folder)).toBeNull();
      const as = ['-c', 'user.name=test', '-c', 'user.email=test@example.com'];
      git(...as, 'commit', '--quiet', '--allow-empty', '--message=first');
      expect(commitOf(folder)).toBe(git('rev-parse', 'HEAD'));
      mkdirSync(join(folder, 'unpacked'));
      expect(commitOf(join(folder, 'unpacked'))).toBeNull();
    } finally {
      rmSync(folder, { recursive: true });
    }
  });
});

it('a build puts the client where the load balancing guide calls it', () => {
  const command = './bin/aiserve-gpuproxy-client';
  expect(text('docs/load-balancing-guide.md')).toContain(`${command} -key YOUR_KEY load`);
  expect(manifest.scripts.postbuild).toContain('node src/build/client-link.ts');
  const folder = mkdtempSync(join(tmpdir(), 'gpuproxy-client-link-'));
  try {
    mkdirSync(join(folder, 'dist'));
    writeFileSync(join(folder, 'dist', 'main.js'), '#!/bin/sh\necho "client $*"\n', { mode: 0o755 });
    // The second build finds the link of the first.
    for (let build = 0; build < 2; build += 1) {
      execFileSync(process.execPath, [join(root, 'src', 'build', 'client-link.ts'), folder]);
      const said = execFileSync(command, ['-key', 'YOUR_KEY', 'load'], { cwd: folder, encoding: 'utf8' });
      expect(said).toBe('client -key YOUR_KEY load\n');
    }
  } finally {
    rmSync(folder, { recursive: true });
  }
});
