import { execFile, spawn } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';

const root = join(import.meta.dirname, '..', '..');

export type Outcome = Readonly<{ code: number | null; signal: NodeJS.Signals | null; stdout: string; stderr: string }>;

export type RunOptions = Readonly<{
  env?: Readonly<Record<string, string>>;
  input?: string;
  cwd?: string;
  node?: string;
  /** Called with the child once it runs. */
  onStart?: (child: ReturnType<typeof spawn>) => void;
}>;

/** The built program in a folder of its own, as the package's build script makes it. */
export type Program = Readonly<{
  main: string;
  folder: string;
  run(args: readonly string[], options?: RunOptions): Promise<Outcome>;
  environment(more?: Readonly<Record<string, string>>): NodeJS.ProcessEnv;
  remove(): void;
}>;

export async function buildProgram(): Promise<Program> {
  const folder = mkdtempSync(join(tmpdir(), 'gpuproxy-cli-'));
  const manifest = readFileSync(join(root, 'package.json'), 'utf8');
  const script = (JSON.parse(manifest) as { scripts: { build: string } }).scripts.build;
  const outdir = join(folder, 'dist');
  await promisify(execFile)('sh', ['-c', script.replace('--outdir=dist', `--outdir=${outdir}`)], {
    cwd: root,
    env: { ...process.env, PATH: `${join(root, 'node_modules', '.bin')}:${process.env.PATH}` },
  });
  writeFileSync(join(folder, 'package.json'), manifest);
  symlinkSync(join(root, 'node_modules'), join(folder, 'node_modules'));
  mkdirSync(join(folder, 'empty'));
  mkdirSync(join(folder, 'conf'));
  const main = join(outdir, 'main.js');

  const environment = (more: Readonly<Record<string, string>> = {}): NodeJS.ProcessEnv => ({
    PATH: process.env.PATH,
    HOME: folder,
    GPUPROXY_CONFIG_DIR: join(folder, 'conf'),
    GPUPROXY_DATA_DIR: join(folder, 'data'),
    ...more,
  });
  return {
    main,
    folder,
    environment,
    run(args, options = {}) {
      const child = spawn(options.node ?? process.execPath, [main, ...args], {
        cwd: options.cwd ?? join(folder, 'empty'),
        env: environment(options.env),
        stdio: [options.input === undefined ? 'ignore' : 'pipe', 'pipe', 'pipe'],
      });
      let stdout = '';
      let stderr = '';
      child.stdout?.setEncoding('utf8').on('data', (text: string) => {
        stdout += text;
      });
      child.stderr?.setEncoding('utf8').on('data', (text: string) => {
        stderr += text;
      });
      if (options.input !== undefined) child.stdin?.end(options.input);
      options.onStart?.(child);
      return new Promise((resolve, reject) => {
        child.on('error', reject);
        child.on('close', (code, signal) => resolve({ code, signal, stdout, stderr }));
      });
    },
    remove: () => rmSync(folder, { recursive: true, force: true }),
  };
}

/** Polls until the text satisfies the test, with a generous deadline. */
export async function until(holds: () => boolean, what: string): Promise<void> {
  const deadline = Date.now() + 15_000;
  while (!holds()) {
    if (Date.now() > deadline) throw new Error(`waited in vain for: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}
