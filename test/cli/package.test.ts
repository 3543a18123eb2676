import { execFileSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { createProgram, type Program } from './program.ts';

let program: Program;
beforeAll(async () => {
  program = await createProgram();
});
afterAll(() => program.remove());

it('npm pack gives a package that runs in an empty folder, without anything beside it', async () => {
  const folder = mkdtempSync(join(program.folder, 'packed-'));
  const packed = execFileSync('npm', ['pack', '--silent', '--ignore-scripts', '--pack-destination', folder], {
    cwd: program.package,
    encoding: 'utf8',
  }).trim();
  execFileSync('tar', ['xzf', packed], { cwd: folder });
  const root = join(folder, 'package');
  expect(existsSync(join(root, 'node_modules'))).toBe(false);
  const { bin, version } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as {
    bin: Record<string, string>;
    version: string;
  };
  expect(Object.keys(bin)).toEqual(['gpuproxy', 'aiserve-gpuproxy-client']);
  for (const [name, path] of Object.entries(bin)) {
    const main = join(root, path);
    expect(readFileSync(main, 'utf8').split('\n')[0], name).toBe('#!/usr/bin/env node');
    expect(statSync(main).isFile()).toBe(true);
    expect((await program.run(['--version'], { main })).stdout).toBe(`${version}\n`);
  }
  const { code, stdout, stderr } = await program.run(['tui'], {
    main: join(root, bin.gpuproxy ?? ''),
    env: { GPUPROXY_PORT: '0', GPUPROXY_PROXY_PORT: '0', GPUPROXY_API_KEY: 'a-key-for-tests' },
  });
  expect([code, stderr]).toEqual([0, '']);
  expect(stdout).toContain('SIMULATED FLEET: no money is spent');
});
