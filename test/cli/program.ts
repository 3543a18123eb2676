import { spawn } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { inject } from 'vitest';

export type Outcome = Readonly<{ code: number | null; signal: NodeJS.Signals | null; stdout: string; stderr: string }>;

export type RunOptions = Readonly<{
  env?: Readonly<Record<string, string>>;
  input?: string;
  cwd?: string;
  node?: string;
  /** Another copy of the program than the one of this test run. */
  main?: string;
  /** Called with the child once it runs. */
  onStart?: (child: ReturnType<typeof spawn>) => void;
}>;

/** The built program, as the package's build script makes it, and a folder for what it keeps. */
export type Program = Readonly<{
  main: string;
  /** Root of the package that `main` is in. */
  package: string;
  folder: string;
  run(args: readonly string[], options?: RunOptions): Promise<Outcome>;
  /** A server that runs in it has its answers checked. */
  environment(more?: Readonly<Record<string, string>>): NodeJS.ProcessEnv;
  remove(): void;
}>;

/** The program of this test run, built once for all files, with a home, conf folder and data folder of the caller's own. */
export async function createProgram(): Promise<Program> {
  const build = inject('build');
  if ('error' in build) throw new Error(`the build failed: ${build.error}`);
  const folder = mkdtempSync(join(tmpdir(), 'gpuproxy-cli-'));
  mkdirSync(join(folder, 'empty'));
  mkdirSync(join(folder, 'conf'));
  const { main } = build;

  const environment = (more: Readonly<Record<string, string>> = {}): NodeJS.ProcessEnv => ({
    PATH: process.env.PATH,
    HOME: folder,
    GPUPROXY_CONFIG_DIR: join(folder, 'conf'),
    GPUPROXY_DATA_DIR: join(folder, 'data'),
    NODE_OPTIONS: `--import=${new URL('../helpers/watch-answers.mjs', import.meta.url).href}`,
    TEST_OPENAPI: process.env.TEST_OPENAPI,
    TEST_ANSWER_FAULTS: process.env.TEST_ANSWER_FAULTS,
    ...more,
  });
  return {
    main,
    package: dirname(dirname(main)),
    folder,
    environment,
    run(args, options = {}) {
      const child = spawn(options.node ?? process.execPath, [options.main ?? main, ...args], {
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
