/**
 * What the dashboard costs, in a real pseudo-terminal of 160x45 around the built program: time to the first and to the
 * full frame, key to bytes, CPU and bytes per second live, frozen and idle, memory, the preview of a great fleet. Each
 * beside its budget. Needs Linux, `script` of util-linux and `npm run build`.
 * Run: node bench/tui.ts [seconds per measurement] [starts]
 */
import { execFileSync, spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { loadavg, tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { FinishedRequest } from '../src/core/report.ts';
import type { Snapshot } from '../src/fleet/app.ts';
import { predictByReplay, previewOf } from '../src/tui/preview.ts';
import { cpuMs, endAll, openTerminal, type PseudoTerminal } from './pseudo-terminal.ts';

const seconds = Number(process.argv[2] ?? 10);
const starts = Number(process.argv[3] ?? 7);
const main = join(import.meta.dirname, '..', 'dist', 'main.js');
const node = process.execPath;
const folder = mkdtempSync(join(tmpdir(), 'gpuproxy-tui-bench-'));
const env: NodeJS.ProcessEnv = {
  ...process.env,
  GPUPROXY_CONFIG_DIR: folder,
  GPUPROXY_DATA_DIR: folder,
  // Code that was compiled for an earlier bench would hide what a first start costs.
  XDG_CACHE_HOME: folder,
  TERM: 'xterm-256color',
  LANG: 'C.UTF-8',
};
delete env.CI;

const open = (args: readonly string[]): Promise<PseudoTerminal> =>
  openTerminal([node, main, 'tui', ...args], { folder, env });

const rssMb = (pid: number): number =>
  Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]) / 1024;

async function cost(terminal: PseudoTerminal): Promise<{ cpu: number; bytes: number }> {
  const { pid } = terminal;
  const [cpu, bytes, at] = [cpuMs(pid), terminal.bytes(), performance.now()];
  await sleep(seconds * 1000);
  const passed = performance.now() - at;
  return { cpu: ((cpuMs(pid) - cpu) / passed) * 100, bytes: ((terminal.bytes() - bytes) / passed) * 1000 };
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

/** An instance in that state; the providers beside the table have states too. */
const rowOf = (state: string) => new RegExp(`^..(?:vast|ionet|res)-.{40,75} ${state} `, 'm');

/** Screens of a start, in their order. */
const milestones = {
  'first line': (screen: string) => screen.includes('gpuproxy'),
  'all panes, the system still starting': (screen: string) =>
    ['INSTANCES', 'PROVIDERS', 'STRATEGY', 'RESERVATIONS', 'EVENTS'].every((pane) => screen.includes(pane)),
  'prices and stock of a provider': (screen: string) => /(vast\.ai|io\.net) +\d+ +\$/.test(screen),
  'full frame: all panes, instances as rows': (screen: string) =>
    /INSTANCE +PROVIDER/.test(screen) && rowOf('(?:RESERVING|BOOT|OK)').test(screen),
  'an instance takes requests': (screen: string) => rowOf('OK').test(screen),
} as const;
/** How long the simulated instances boot is no budget of the dashboard. */
const budgets: Readonly<Partial<Record<keyof typeof milestones, number>>> = {
  'first line': 100,
  'all panes, the system still starting': 300,
  'prices and stock of a provider': 300,
  'full frame: all panes, instances as rows': 300,
};

/** The longest time for which the preview of a great fleet keeps the thread, in ms of its own CPU. */
async function longestPreviewBlock(): Promise<number> {
  const upstreams = Array.from({ length: 2000 }, (_, at) => ({
    id: `vast-${at}`,
    eligible: true,
    weight: 1 + (at % 3),
  }));
  const requests = Array.from({ length: 5000 }, (_, at) => ({
    at: at * 11,
    cause: 'complete',
    instance: `vast-${(at * 31) % 2000}`,
    ttfbMs: 80,
    totalMs: 300 + ((at * 7919) % 900),
    queueMs: 0,
  })) as unknown as FinishedRequest[];
  const strategy = { name: 'least_connections', since: 0 };
  const snapshot = { upstreams, strategy } as unknown as Snapshot;
  const used = () => process.threadCpuUsage().user / 1000 + process.threadCpuUsage().system / 1000;
  let longest = 0;
  let last = used();
  let over = false;
  const tick = () => {
    const now = used();
    longest = Math.max(longest, now - last);
    last = now;
    if (!over) setImmediate(tick);
  };
  setImmediate(tick);
  for (const name of ['least_response_time', 'weighted_round_robin'] as const) {
    await previewOf(name, requests, snapshot, 60_000, predictByReplay);
  }
  over = true;
  await new Promise((done) => setImmediate(done));
  return longest;
}

try {
  const bares: number[] = [];
  const local = ['--demo', '--port', '0', '--proxy-port', '0'];
  const reached = Object.fromEntries(
    Object.keys(milestones).map((name) => [name, { ms: [], cpu: [] }]),
  ) as unknown as Record<keyof typeof milestones, { ms: number[]; cpu: number[] }>;
  // The first start compiles; what it compiled is kept for all that follow.
  for (let run = -1; run < starts; run += 1) {
    bares.push(startNode(), startNode());
    const terminal = await open(local);
    await terminal.saw('LIVE');
    await sleep(run === starts - 1 ? 8000 : 3000);
    if (run === starts - 1)
      row('memory with the simulated marketplaces and servers in it', rssMb(terminal.pid), 'MB', 250);
    await terminal.end();
    const found = await terminal.milestones(milestones);
    if (run < 0) {
      const { ms, cpu } = found['full frame: all panes, instances as rows'];
      console.log(
        `the first start of all, nothing compiled yet: full frame after ${ms.toFixed(0)} ms, CPU ${cpu.toFixed(0)} ms`,
      );
      continue;
    }
    for (const name of Object.keys(milestones) as (keyof typeof milestones)[]) {
      reached[name].ms.push(found[name].ms);
      reached[name].cpu.push(found[name].cpu);
    }
  }
  const bare = median(bares);
  console.log('from the start of the process, median (least to most); CPU of all its threads by then');
  for (const name of Object.keys(milestones) as (keyof typeof milestones)[]) {
    const { ms, cpu } = reached[name];
    console.log(
      `${median(ms).toFixed(0).padStart(6)} ms (${quantile(ms, 0).toFixed(0)} to ${quantile(ms, 1).toFixed(0)}), CPU ${median(cpu).toFixed(0)} ms   ${name}`,
    );
    const budget = budgets[name];
    if (budget !== undefined) row(name, median(ms), 'ms', budget);
  }
  console.log('');
  row('preview on 2,000 instances: longest block', await longestPreviewBlock(), 'ms', 30);

  const real = await open(['--upstreams', 'http://127.0.0.1:9', '--port', '0', '--proxy-port', '0']);
  await real.saw('LIVE');
  await sleep(5000);
  row('memory of the whole system in one process', rssMb(real.pid), 'MB', 150);
  await real.end();

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
  row('CPU, frozen over a live system', frozen.cpu, '%', 0.5);
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
  console.log('    value        budget     of budget   x node -e 0');
  for (const { what, value, unit, budget } of rows) {
    const part = `${value <= budget ? 'kept' : 'MISSED'}${budget === 0 ? '' : ` ${((value / budget) * 100).toFixed(0)} %`}`;
    const ratio = unit === 'ms' && budget >= 100 ? (value / bare).toFixed(1) : '';
    console.log(
      `${value.toFixed(1).padStart(8)} ${unit.padEnd(5)}${String(budget).padStart(7)} ${part.padStart(13)} ${ratio.padStart(10)}   ${what}`,
    );
  }
} finally {
  endAll();
  rmSync(folder, { recursive: true, force: true });
}
