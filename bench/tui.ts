/**
 * What the dashboard costs, in a real pseudo-terminal of 160x45 around the built program: time to the first and to the
 * full frame, key to bytes, CPU and bytes per second live, frozen and idle, memory. Needs Linux, `script` of util-linux
 * and `npm run build`. Run: node bench/tui.ts [seconds per measurement]
 */
import { type ChildProcessByStdio, execFileSync, spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { loadavg, tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Readable, Writable } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';

const seconds = Number(process.argv[2] ?? 10);
const main = join(import.meta.dirname, '..', 'dist', 'main.js');
const node = process.execPath;
const folder = mkdtempSync(join(tmpdir(), 'gpuproxy-tui-bench-'));
const env: NodeJS.ProcessEnv = {
  ...process.env,
  GPUPROXY_CONFIG_DIR: folder,
  GPUPROXY_DATA_DIR: folder,
  TERM: 'xterm-256color',
  LANG: 'C.UTF-8',
};
delete env.CI;

type Terminal = Readonly<{
  pid: number;
  /** Milliseconds from the start of the program to the first output with this text in it. */
  saw(text: string): Promise<number>;
  /** Bytes written so far. */
  bytes(): number;
  /** Milliseconds from writing the key to the first byte after it; null when nothing came within half a second. */
  press(key: string): Promise<number | null>;
  end(): Promise<void>;
}>;

const children = new Set<ChildProcessByStdio<Writable, Readable, null>>();

/** The program in a pseudo-terminal of 160x45. */
async function open(args: readonly string[]): Promise<Terminal> {
  const words = [node, main, 'tui', ...args].map((word) => `'${word}'`).join(' ');
  const child = spawn('script', ['-qfec', `stty cols 160 rows 45 -echo; echo BEGIN; exec ${words}`, '/dev/null'], {
    cwd: folder,
    env,
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  children.add(child);
  let startedAt: number | null = null;
  let total = 0;
  let text = '';
  const listeners = new Set<() => void>();
  child.stdout.setEncoding('utf8').on('data', (chunk: string) => {
    total += Buffer.byteLength(chunk);
    if (startedAt === null && `${text}${chunk}`.includes('BEGIN')) startedAt = performance.now();
    text = (text + chunk).slice(-200_000);
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
    get pid() {
      return Number(readFileSync(`/proc/${child.pid}/task/${child.pid}/children`, 'utf8').trim().split(' ')[0]);
    },
    async saw(wanted) {
      if (!(await next(() => text.includes(wanted), 30_000))) throw new Error(`never saw ${wanted}`);
      return performance.now() - (startedAt ?? 0);
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
  };
}

/** CPU seconds of a process and all its threads. */
function cpuSeconds(pid: number): number {
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1]?.split(' ') ?? [];
  return (Number(fields[11]) + Number(fields[12])) / 100;
}

const rssMb = (pid: number): number =>
  Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]) / 1024;

async function cost(terminal: Terminal): Promise<{ cpu: number; bytes: number }> {
  const { pid } = terminal;
  const [cpu, bytes, at] = [cpuSeconds(pid), terminal.bytes(), performance.now()];
  await sleep(seconds * 1000);
  const passed = (performance.now() - at) / 1000;
  return { cpu: ((cpuSeconds(pid) - cpu) / passed) * 100, bytes: (terminal.bytes() - bytes) / passed };
}

const quantile = (values: readonly number[], p: number): number =>
  values.toSorted((a, b) => a - b)[Math.min(values.length - 1, Math.floor(values.length * p))] ?? Number.NaN;
const median = (values: readonly number[]): number => quantile(values, 0.5);

const rows: { what: string; value: number; unit: string; budget: number }[] = [];
const row = (what: string, value: number, unit: string, budget: number) =>
  void rows.push({ what, value, unit, budget });

/** A server without a terminal; resolves with its control plane and what stops it. */
async function serve(args: readonly string[]): Promise<{ url: string; stop(): Promise<void> }> {
  const server = spawn(node, [main, 'serve', '--port', '0', '--proxy-port', '0', ...args], {
    cwd: folder,
    env,
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  const url = await new Promise<string>((resolve, reject) => {
    let log = '';
    server.once('exit', () => reject(new Error(log)));
    server.stderr.setEncoding('utf8').on('data', (chunk: string) => {
      log += chunk;
      const found = /control plane (http:[^\s"]+)\/api\/v1/.exec(log)?.[1];
      if (found !== undefined) resolve(found);
    });
  });
  return {
    url,
    async stop() {
      const ended = new Promise((done) => server.once('exit', done));
      server.kill('SIGTERM');
      server.kill('SIGTERM');
      await ended;
    },
  };
}

const startNode = () => {
  const at = performance.now();
  execFileSync(node, ['-e', '0']);
  return performance.now() - at;
};

try {
  const bare = median(Array.from({ length: 7 }, startNode));

  const local = ['--demo', '--port', '0', '--proxy-port', '0'];
  const first: number[] = [];
  const full: number[] = [];
  const live: number[] = [];
  for (let run = 0; run < 5; run += 1) {
    const terminal = await open(local);
    first.push(await terminal.saw('gpuproxy'));
    full.push(await terminal.saw('RESERVATIONS'));
    live.push(await terminal.saw('LIVE'));
    if (run === 4) {
      await sleep(8000);
      row('memory of the whole demo in one process', rssMb(terminal.pid), 'MB', 250);
    }
    await terminal.end();
  }
  row('first output', median(first), 'ms', 100);
  row('full frame, the system still starting', median(full), 'ms', 300);
  row('full frame with live data of the demo', median(live), 'ms', 1000);

  const demo = await serve(['--demo']);
  const attached = await open(['--url', demo.url]);
  await attached.saw('LIVE');
  await sleep(5000);
  const busy = await cost(attached);
  row('CPU, live at 4 Hz', busy.cpu, '%', 5);
  row('output, live at 4 Hz', busy.bytes / 1000, 'KB/s', 20);
  row('memory of the dashboard, attached', rssMb(attached.pid), 'MB', 150);
  await attached.press('p');
  await sleep(1500);
  const times: number[] = [];
  for (let at = 0; at < 60; at += 1) {
    const ms = await attached.press(at % 2 === 0 ? 'j' : 'k');
    if (ms !== null) times.push(ms);
    await sleep(60);
  }
  row('key to bytes, median', median(times), 'ms', 10);
  row('key to bytes, p95', quantile(times, 0.95), 'ms', 16);
  const frozen = await cost(attached);
  row('CPU, frozen over a live system', frozen.cpu, '%', 3);
  row('output, frozen', frozen.bytes / 1000, 'KB/s', 0);
  await attached.end();
  await demo.stop();

  const quiet = await serve(['--upstreams', 'http://127.0.0.1:9']);
  const idle = await open(['--url', quiet.url]);
  await idle.saw('LIVE');
  await sleep(4000);
  const nothing = await cost(idle);
  row('CPU, idle', nothing.cpu, '%', 0.5);
  row('output, idle', nothing.bytes / 1000, 'KB/s', 1);
  await idle.end();
  await quiet.stop();

  console.log(`node -e 0 takes ${bare.toFixed(0)} ms here; load average ${loadavg()[0]?.toFixed(1)}`);
  console.log(
    'measured on a quiet machine the budgets are absolute; times on a busy one are worth comparing by their ratio\n',
  );
  console.log('    value        budget   of budget   x node -e 0');
  for (const { what, value, unit, budget } of rows) {
    const part = budget === 0 ? (value === 0 ? 'kept' : 'missed') : `${((value / budget) * 100).toFixed(0)} %`;
    const ratio = unit === 'ms' && budget >= 100 ? (value / bare).toFixed(1) : '';
    console.log(
      `${value.toFixed(1).padStart(8)} ${unit.padEnd(5)}${String(budget).padStart(7)} ${part.padStart(10)} ${ratio.padStart(10)}   ${what}`,
    );
  }
} finally {
  for (const child of children) child.kill('SIGTERM');
  rmSync(folder, { recursive: true, force: true });
}
