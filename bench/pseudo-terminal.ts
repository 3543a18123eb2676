import { type ChildProcessByStdio, spawn } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import type { Readable, Writable } from 'node:stream';
import xterm from '@xterm/headless';

/** A program in a pseudo-terminal of 160x45, and everything it wrote with its time. Needs Linux and `script` of util-linux. */
export type PseudoTerminal = Readonly<{
  pid: number;
  /** Milliseconds from the start of the program to the first output with this text in it. */
  saw(text: string): Promise<number>;
  /** Bytes written so far. */
  bytes(): number;
  /** Milliseconds from writing the key to the first byte after it; null when nothing came within half a second. */
  press(key: string): Promise<number | null>;
  /** Asks the program to leave and waits for it. */
  end(): Promise<void>;
  /** Milliseconds from the start of the program to the first screen that passes each test; NaN when none did. */
  milestones<Name extends string>(
    tests: Readonly<Record<Name, (screen: string) => boolean>>,
  ): Promise<Readonly<Record<Name, Milestone>>>;
}>;

/** `cpu`: what the program and its threads had used by then, in ms. */
export type Milestone = Readonly<{ ms: number; cpu: number }>;

const columns = 160;
const rows = 45;
const children = new Set<ChildProcessByStdio<Writable, Readable, null>>();

/** Ends what is still open. */
export function endAll(): void {
  for (const child of children) child.kill('SIGTERM');
}

export async function openTerminal(
  words: readonly string[],
  { folder, env }: { folder: string; env: NodeJS.ProcessEnv },
): Promise<PseudoTerminal> {
  const line = words.map((word) => `'${word}'`).join(' ');
  // The shell says when it becomes the program: what comes before does not count.
  const shell = `stty cols ${columns} rows ${rows} -echo; echo "BEGIN $EPOCHREALTIME."; exec ${line}`;
  const child = spawn('script', ['-qfec', shell, '/dev/null'], {
    cwd: folder,
    env: { ...env, SHELL: '/bin/bash' },
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  children.add(child);
  const written: { at: number; cpu: number; text: string }[] = [];
  let startedAt: number | null = null;
  let pid = 0;
  let total = 0;
  let text = '';
  const listeners = new Set<() => void>();
  child.stdout.setEncoding('utf8').on('data', (chunk: string) => {
    const at = performance.timeOrigin + performance.now();
    total += Buffer.byteLength(chunk);
    text = (text + chunk).slice(-200_000);
    if (startedAt === null) {
      const begin = /BEGIN ([\d.]+)\.\r?\n/.exec(text);
      if (begin !== null) {
        startedAt = Number(begin[1]) * 1000;
        pid = Number(readFileSync(`/proc/${child.pid}/task/${child.pid}/children`, 'utf8').trim().split(' ')[0]);
        chunk = text.slice(begin.index + begin[0].length);
      }
    }
    if (startedAt !== null && chunk !== '') written.push({ at: at - startedAt, cpu: cpuMs(pid), text: chunk });
    for (const listener of [...listeners]) listener();
  });
  const next = (test: () => boolean, ms: number) =>
    new Promise<boolean>((done) => {
      const timer = setTimeout(() => finish(false), ms);
      const listener = () => void (test() && finish(true));
      const finish = (found: boolean) => {
        clearTimeout(timer);
        listeners.delete(listener);
        done(found);
      };
      listeners.add(listener);
      listener();
    });
  if (!(await next(() => startedAt !== null, 10_000))) throw new Error('no pseudo-terminal');
  const ended = new Promise<void>((done) => child.once('exit', () => done()));
  return {
    pid,
    async saw(wanted) {
      if (!(await next(() => text.includes(wanted), 30_000))) throw new Error(`never saw ${wanted}`);
      return performance.timeOrigin + performance.now() - (startedAt ?? 0);
    },
    bytes: () => total,
    async press(key) {
      const before = total;
      const at = performance.now();
      child.stdin.write(key);
      return (await next(() => total > before, 500)) ? performance.now() - at : null;
    },
    async end() {
      child.stdin.write('qq');
      const timer = setTimeout(() => child.kill('SIGTERM'), 8000);
      await ended;
      clearTimeout(timer);
      children.delete(child);
    },
    async milestones(tests) {
      // Drawn afterwards, so that drawing takes no time from the program.
      const terminal = new xterm.Terminal({ cols: columns, rows, allowProposedApi: true });
      const found: Partial<Record<keyof typeof tests, Milestone>> = {};
      for (const { at, cpu, text: piece } of written) {
        await new Promise<void>((done) => terminal.write(piece, done));
        const { active } = terminal.buffer;
        const screen = Array.from({ length: rows }, (_, row) => active.getLine(row)?.translateToString(true) ?? '');
        for (const name of Object.keys(tests) as (keyof typeof tests)[]) {
          if (tests[name](screen.join('\n'))) found[name] ??= { ms: at, cpu };
        }
      }
      terminal.dispose();
      const none = { ms: Number.NaN, cpu: Number.NaN };
      return Object.fromEntries(
        (Object.keys(tests) as (keyof typeof tests)[]).map((name) => [name, found[name] ?? none]),
      ) as Record<keyof typeof tests, Milestone>;
    },
  };
}

/** CPU milliseconds that the threads of a process have used so far, by the scheduler's own count. */
export function cpuMs(pid: number, counts: (thread: string) => boolean = () => true): number {
  let sum = 0;
  for (const [name, ms] of threadsMs(pid)) if (counts(name)) sum += ms;
  return sum;
}

/** CPU milliseconds by thread: its name and number. */
export function threadsMs(pid: number): Map<string, number> {
  const threads = new Map<string, number>();
  for (const thread of readdirSync(`/proc/${pid}/task`)) {
    try {
      const name = readFileSync(`/proc/${pid}/task/${thread}/comm`, 'utf8').trim();
      const ns = Number(readFileSync(`/proc/${pid}/task/${thread}/schedstat`, 'utf8').split(' ')[0]);
      threads.set(`${name} ${thread}`, ns / 1e6);
    } catch (error) {
      // A thread that has just ended.
      if (!['ENOENT', 'ESRCH'].includes((error as NodeJS.ErrnoException).code ?? '')) throw error;
    }
  }
  return threads;
}
