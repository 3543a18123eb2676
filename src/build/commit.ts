/**
 * Prints the commit of this checkout as a JavaScript literal, for the bundle; null outside a checkout, where there may be
 * no git, or only that of a folder around.
 * Run: node src/build/commit.ts [root]
 */
import { execFileSync } from 'node:child_process';
import { join } from 'node:path';

const root = process.argv[2] ?? join(import.meta.dirname, '..', '..');
const git = (...args: string[]) =>
  execFileSync('git', ['-C', root, ...args], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }).trim();

function commit(): string | null {
  try {
    return git('rev-parse', '--show-prefix') === '' ? git('rev-parse', 'HEAD') : null;
  } catch {
    return null;
  }
}

process.stdout.write(JSON.stringify(commit()));
