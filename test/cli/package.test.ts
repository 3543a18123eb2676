import { execFile, execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { createProgram, type Program } from './program.ts';

let program: Program;
/** Where `npm install --global` put the packed program. */
let prefix = '';
let empty = '';
beforeAll(async () => {
  program = await createProgram();
  const folder = mkdtempSync(join(program.folder, 'packed-'));
  prefix = join(folder, 'global');
  empty = join(folder, 'empty');
  mkdirSync(empty);
  const pack = ['pack', '--silent', '--ignore-scripts', '--pack-destination', folder];
  const tarball = execFileSync('npm', pack, { cwd: program.package, encoding: 'utf8', timeout: 60_000 }).trim();
  // Offline: a package that had to fetch anything would fail here, not only where the registry is out of reach.
  const install = ['install', '--global', '--prefix', prefix, '--offline', '--no-audit', '--no-fund'];
  const quiet = ['--no-update-notifier', '--fetch-retries=0', '--loglevel=error'];
  await promisify(execFile)('npm', [...install, ...quiet, join(folder, tarball)], {
    cwd: empty,
    env: bare(),
    timeout: 60_000,
  });
}, 120_000);
afterAll(() => program.remove());

/** The environment of somebody who has just logged in for the first time. */
function bare(more: Readonly<Record<string, string>> = {}): NodeJS.ProcessEnv {
  return { PATH: process.env.PATH, HOME: program.folder, ...more };
}

async function run(name: string, args: readonly string[], more: Readonly<Record<string, string>> = {}) {
  const running = promisify(execFile)(join(prefix, 'bin', name), args, { cwd: empty, env: bare(more) });
  running.child.stdin?.end();
  return running.then(
    ({ stdout, stderr }) => ({ code: 0, stdout, stderr }),
    ({ code, stdout, stderr }: { code: number; stdout: string; stderr: string }) => ({ code, stdout, stderr }),
  );
}

it('the packed program installs globally without anything beside it', () => {
  const root = join(prefix, 'lib', 'node_modules');
  expect(readdirSync(root).filter((name) => !name.startsWith('.'))).toEqual(['gpuproxy']);
  expect(existsSync(join(root, 'gpuproxy', 'node_modules'))).toBe(false);
  expect(readdirSync(join(prefix, 'bin')).sort()).toEqual(['aiserve-gpuproxy-client', 'gpuproxy']);
});

it.each(['gpuproxy', 'aiserve-gpuproxy-client'])('%s runs in an empty folder and environment', async (name) => {
  const { version } = JSON.parse(readFileSync('package.json', 'utf8')) as { version: string };
  expect(await run(name, ['--version'])).toEqual({ code: 0, stdout: `${version}\n`, stderr: '' });
  const load = await run(name, ['load', '--json', '--url', 'http://127.0.0.1:9']);
  expect(load.code).toBe(3);
  expect(JSON.parse(load.stderr || load.stdout)).toMatchObject({ error: { code: 'unreachable' } });
  expect(readdirSync(empty)).toEqual([]);
});

it('without a terminal the dashboard is one frame of the simulated fleet', async () => {
  const { code, stdout } = await run('gpuproxy', ['tui'], { GPUPROXY_PORT: '0', GPUPROXY_PROXY_PORT: '0' });
  expect(code).toBe(0);
  expect(stdout).toContain('SIMULATED FLEET: no money is spent');
  expect(stdout.split('\n').filter((line) => line.includes('INSTANCES'))).toHaveLength(1);
  expect(readdirSync(empty)).toEqual([]);
});
