import { execFile } from 'node:child_process';
import { mkdtemp, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import type { TestProject } from 'vitest/node';
import { describeApi } from '../../src/rest/openapi.ts';
import { operations } from '../../src/rest/operations/index.ts';

declare module 'vitest' {
  interface ProvidedContext {
    /** Where the program of this test run is; tests that need it say why it could not be built. */
    build: { main: string } | { error: string };
    /** The file with the OpenAPI document. */
    openapi: string;
  }
}

const root = join(import.meta.dirname, '..', '..');

/** Builds the program and its OpenAPI document once for all test files, in a folder of its own, so that `dist` is left alone. */
export default async function setup(project: TestProject): Promise<() => Promise<void>> {
  const folder = await mkdtemp(join(tmpdir(), 'gpuproxy-build-'));
  const manifest = await readFile(join(root, 'package.json'), 'utf8');
  const script = (JSON.parse(manifest) as { scripts: { build: string } }).scripts.build;
  const openapi = join(folder, 'openapi.json');
  await writeFile(openapi, JSON.stringify(describeApi(operations, null)));
  project.provide('openapi', openapi);
  const outdir = join(folder, 'dist');
  await writeFile(join(folder, 'package.json'), manifest);
  await symlink(join(root, 'node_modules'), join(folder, 'node_modules'));
  try {
    await promisify(execFile)('sh', ['-c', script.replace('--outdir=dist', `--outdir=${outdir}`)], {
      cwd: root,
      env: { ...process.env, PATH: `${join(root, 'node_modules', '.bin')}:${process.env.PATH}` },
    });
    project.provide('build', { main: join(outdir, 'main.js') });
  } catch (error) {
    project.provide('build', { error: (error as Error).message });
  }
  return () => rm(folder, { recursive: true, force: true });
}
