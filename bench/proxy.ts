import { type ChildProcess, execFileSync, spawn, spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';
import { availableParallelism, cpus, loadavg, tmpdir, totalmem } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { benchKey } from './proxy-key.ts';

/**
 * What the data plane costs next to its rivals, on loopback. Short runs of every candidate take turns, and medians are
 * told, because the machine has other things to do. CPU is that of the proxy alone: user and system time of its process
 * tree, from /proc. Writes bench/RESULTS.md.
 *
 * BENCH_SECONDS (per run, 3), BENCH_ROUNDS (5), BENCH_STREAMS ("200,800"), BENCH_IDLE (2000), BENCH_ONLY (names, with semicolons between them).
 */
const seconds = Number(process.env.BENCH_SECONDS ?? 3);
const rounds = Number(process.env.BENCH_ROUNDS ?? 5);
const streamCounts = (process.env.BENCH_STREAMS ?? '200,800')
  .split(',')
  .map(Number)
  .filter((n) => n > 0);
const idleStreams = Number(process.env.BENCH_IDLE ?? 2000);
const only = process.env.BENCH_ONLY?.split(';');
const eventEveryMs = 100;

const here = import.meta.dirname;
const folder = mkdtempSync(join(tmpdir(), 'gpuproxy-bench-'));
const children = new Set<ChildProcess>();

type Candidate = Readonly<{ name: string; start: (upstreams: readonly string[]) => Promise<Running> }>;
/** `asks`: how the load is put where a plain GET of any path is not understood; there is then no measuring of streams. */
type Running = Readonly<{ port: number; pid: number | null; asks?: Ask; stop: () => Promise<void> }>;
type Ask = Readonly<{ path: string; headers: Readonly<Record<string, string>>; body: string }>;

for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  process.on(signal, () => {
    for (const child of children) child.kill('SIGKILL');
    rmSync(folder, { recursive: true, force: true });
    process.exit(130);
  });
}

const cores = availableParallelism();
/**
 * From four cores on the candidate has the first to itself, and load and upstreams have the others. With fewer the load
 * would share one core, be the bottleneck for every candidate, and measure how they wait.
 */
const pinned = cores >= 4 && spawnSync('taskset', ['-V']).error === undefined;
const [candidateCore, loadCore] = ['0', `1-${cores - 1}`];
if (pinned) spawnSync('taskset', ['-acp', loadCore, String(process.pid)]);

function run(command: string, args: readonly string[], core: string | null = loadCore): ChildProcess {
  const [name, all] = pinned ? ['taskset', ['-c', core ?? `0-${cores - 1}`, command, ...args]] : [command, args];
  const child = spawn(name, all, { stdio: ['ignore', 'pipe', 'inherit'] });
  children.add(child);
  child.on('exit', () => children.delete(child));
  return child;
}

async function stop(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const gone = new Promise((resolve) => child.once('exit', resolve));
  child.kill('SIGTERM');
  const timer = setTimeout(() => child.kill('SIGKILL'), 3_000);
  await gone;
  clearTimeout(timer);
}

/** A Node program that prints its port. */
async function node(args: readonly string[], core: string | null = candidateCore): Promise<Running> {
  const child = run(process.execPath, args, core);
  const port = await new Promise<number>((resolve, reject) => {
    let text = '';
    child.stdout?.on('data', (chunk) => {
      text += chunk;
      const match = /^(\d+)$/m.exec(text);
      if (match) resolve(Number(match[1]));
    });
    child.once('exit', () => reject(new Error(`${args.join(' ')} ended`)));
  });
  return { port, pid: child.pid ?? null, stop: () => stop(child) };
}

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return port;
}

/** A program that listens on a port it is told in its configuration. */
async function configured(
  command: string,
  args: (file: string) => string[],
  name: string,
  text: (port: number) => string,
): Promise<Running> {
  const port = await freePort();
  const file = join(folder, name);
  writeFileSync(file, text(port));
  const child = run(command, args(file), candidateCore);
  const deadline = Date.now() + 10_000;
  for (;;) {
    const open = await new Promise<boolean>((resolve) => {
      const socket = connect(port, '127.0.0.1', () => {
        socket.destroy();
        resolve(true);
      });
      socket.on('error', () => resolve(false));
    });
    if (open) break;
    if (Date.now() > deadline || child.exitCode !== null) throw new Error(`${command} does not listen`);
    await sleep(50);
  }
  return { port, pid: child.pid ?? null, stop: () => stop(child) };
}

const hostOf = (origin: string) => origin.replace('http://', '');

const candidates: readonly Candidate[] = [
  {
    name: 'direct',
    start: async (upstreams) => ({ port: Number(new URL(upstreams[0]!).port), pid: null, stop: async () => {} }),
  },
  {
    name: 'gpuproxy',
    start: (upstreams) => node([join(here, 'proxy-subject.ts'), upstreams.join(','), '1', join(folder, 'access.log')]),
  },
  {
    name: 'gpuproxy, 2 threads',
    start: (upstreams) =>
      node([join(here, 'proxy-subject.ts'), upstreams.join(','), '2', join(folder, 'access2.log')], null),
  },
  {
    name: 'nginx',
    start: (upstreams) =>
      configured(
        'nginx',
        (file) => ['-c', file, '-p', folder],
        'nginx.conf',
        (port) => `
        daemon off; master_process off; worker_processes 1; pid ${folder}/nginx.pid; error_log /dev/null;
        events { worker_connections 16384; }
        http {
          log_format json escape=json '{"time":"$time_iso8601","method":"$request_method","path":"$uri","status":$status,"upstream":"$upstream_addr","ttfb":"$upstream_header_time","total":$request_time,"bytes":$body_bytes_sent}';
          access_log ${folder}/nginx.log json buffer=8k flush=1s;
          client_body_temp_path ${folder}/b; proxy_temp_path ${folder}/p; fastcgi_temp_path ${folder}/f; uwsgi_temp_path ${folder}/u; scgi_temp_path ${folder}/s;
          keepalive_requests 1000000000;
          upstream fleet { least_conn; ${upstreams.map((origin) => `server ${hostOf(origin)};`).join(' ')} keepalive 1024; keepalive_requests 1000000000; }
          server {
            listen 127.0.0.1:${port} backlog=4096;
            location / {
              proxy_pass http://fleet; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering off;
              proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; proxy_set_header X-Forwarded-Proto $scheme;
              proxy_set_header X-API-Key ""; proxy_read_timeout 120s;
            }
          }
        }`,
      ),
  },
  {
    name: 'haproxy',
    start: (upstreams) =>
      configured(
        'haproxy',
        (file) => ['-f', file, '-db'],
        'haproxy.cfg',
        (port) => `
global
  nbthread 1
  maxconn 8000
defaults
  mode http
  timeout connect 5s
  timeout client 120s
  timeout server 120s
  option forwardfor
  http-reuse always
frontend f
  bind 127.0.0.1:${port} backlog 4096
  default_backend b
backend b
  balance leastconn
${upstreams.map((origin, i) => `  server s${i} ${hostOf(origin)}`).join('\n')}
`,
      ),
  },
  {
    name: 'caddy',
    start: (upstreams) =>
      configured(
        'caddy',
        (file) => ['run', '--config', file, '--adapter', 'caddyfile'],
        'Caddyfile',
        (port) => `{
  admin off
  auto_https off
  log {
    output discard
  }
}
http://127.0.0.1:${port} {
  bind 127.0.0.1
  log {
    output file ${folder}/caddy.log
  }
  reverse_proxy ${upstreams.map(hostOf).join(' ')} {
    lb_policy least_conn
    flush_interval -1
    transport http {
      keepalive_idle_conns_per_host 1024
    }
  }
}
`,
      ),
  },
  { name: '@fastify/http-proxy', start: (upstreams) => rival('fastify-http-proxy.js', upstreams) },
  { name: 'http-proxy-3', start: (upstreams) => rival('http-proxy-3.js', upstreams) },
  { name: '@portkey-ai/gateway', start: portkey },
];

/** It forwards chat completions alone, to the upstream that the request names; streamed ones fail in it on this Node. */
async function portkey(upstreams: readonly string[]): Promise<Running> {
  const file = join(here, 'rivals', 'node_modules', '@portkey-ai', 'gateway', 'build', 'start-server.js');
  if (!existsSync(file)) throw new Error('not installed: npm install --prefix bench/rivals');
  const running = await configured(
    process.execPath,
    () => [file, `--port=${portkeyPort}`, '--headless'],
    'portkey',
    (port) => {
      portkeyPort = port;
      return '';
    },
  );
  const headers = {
    'content-type': 'application/json',
    authorization: `Bearer ${benchKey}`,
    'x-portkey-provider': 'openai',
    'x-portkey-custom-host': `${upstreams[0]}/small`,
  };
  return { ...running, asks: { path: '/v1/chat/completions', headers, body: '{"model":"m","messages":[]}' } };
}
let portkeyPort = 0;

function rival(file: string, upstreams: readonly string[]): Promise<Running> {
  if (!existsSync(join(here, 'rivals', 'node_modules')))
    throw new Error('not installed: npm install --prefix bench/rivals');
  return node([join(here, 'rivals', file), upstreams.join(',')]);
}

// --- measuring ---

/**
 * Seconds that the threads of a process and its children were running, user and system. By the scheduler's own clock: the
 * ticks of 10 ms that `stat` counts miss most of what runs for some microseconds at a time.
 */
function cpuSeconds(pid: number | null): number {
  if (pid === null) return 0;
  let total = 0;
  for (const id of [pid, ...childrenOf(pid)]) {
    try {
      for (const task of readdirSync(`/proc/${id}/task`)) {
        total += Number(readFileSync(`/proc/${id}/task/${task}/schedstat`, 'utf8').split(' ')[0]) / 1e9;
      }
    } catch {
      // it has ended
    }
  }
  return total;
}

function memoryKb(pid: number | null): number {
  if (pid === null) return 0;
  let total = 0;
  for (const id of [pid, ...childrenOf(pid)]) {
    const match = /VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${id}/status`, 'utf8'));
    total += Number(match?.[1] ?? 0);
  }
  return total;
}

function childrenOf(pid: number): number[] {
  const found: number[] = [];
  for (const task of readdirSync(`/proc/${pid}/task`)) {
    try {
      const text = readFileSync(`/proc/${pid}/task/${task}/children`, 'utf8').trim();
      if (text !== '') found.push(...text.split(' ').map(Number));
    } catch {
      // not every kernel has it
    }
  }
  return found;
}

type Small = { rps: number; cpuUs: number; p50: number; p99: number };

/** wrk with keep-alive connections against `/small`. */
async function small(target: Running, connections: number): Promise<Small> {
  const before = cpuSeconds(target.pid);
  const ask = target.asks;
  const headers = Object.entries(ask?.headers ?? { 'X-API-Key': benchKey });
  const script = join(folder, 'post.lua');
  if (ask !== undefined) writeFileSync(script, `wrk.method = "POST"\nwrk.body = '${ask.body}'\n`);
  const child = run('wrk', [
    '-t1',
    `-c${connections}`,
    `-d${seconds}s`,
    '--latency',
    ...(ask === undefined ? [] : ['-s', script]),
    ...headers.flatMap(([name, value]) => ['-H', `${name}: ${value}`]),
    `http://127.0.0.1:${target.port}${ask?.path ?? '/small'}`,
  ]);
  let text = '';
  child.stdout?.on('data', (chunk) => {
    text += chunk;
  });
  await new Promise((resolve) => child.once('exit', resolve));
  const cpu = cpuSeconds(target.pid) - before;
  const requests = Number(/(\d+) requests in/.exec(text)?.[1] ?? Number.NaN);
  if (/Non-2xx|Socket errors/.test(text)) throw new Error(text);
  const ms = (name: string) => {
    const match = new RegExp(`${name}\\s+([\\d.]+)(us|ms|s)`).exec(text);
    return match === null
      ? Number.NaN
      : Number(match[1]) * { us: 0.001, ms: 1, s: 1000 }[match[2] as 'us' | 'ms' | 's'];
  };
  return { rps: requests / seconds, cpuUs: (cpu / requests) * 1e6, p50: ms('50%'), p99: ms('99%') };
}

/** Opens `count` requests and counts what comes back. */
async function open(port: number, path: string, count: number): Promise<{ sockets: Socket[]; events: () => number }> {
  const text = `GET ${path} HTTP/1.1\r\nHost: 127.0.0.1:${port}\r\nX-API-Key: ${benchKey}\r\n\r\n`;
  const sockets: Socket[] = [];
  let bytes = 0;
  const perEvent = 95;
  let ready = 0;
  for (let i = 0; i < count; i++) {
    const socket = connect(port, '127.0.0.1');
    socket.on('error', () => {});
    socket.once('data', () => ready++);
    socket.on('data', (chunk: Buffer) => {
      bytes += chunk.length;
    });
    socket.write(text);
    sockets.push(socket);
    if (i % 100 === 99) await sleep(20);
  }
  const deadline = Date.now() + 15_000;
  while (ready < count && Date.now() < deadline) await sleep(20);
  if (ready < count) throw new Error(`only ${ready} of ${count} streams began`);
  return { sockets, events: () => bytes / perEvent };
}

/** CPU µs per event passed on, at `count` streams. */
async function streams(target: Running, count: number): Promise<number> {
  const { sockets, events } = await open(target.port, `/stream?ms=${eventEveryMs}`, count);
  await sleep(500);
  const [before, from, at] = [cpuSeconds(target.pid), events(), performance.now()];
  await sleep(seconds * 1000);
  const [cpu, passed, ms] = [cpuSeconds(target.pid) - before, events() - from, performance.now() - at];
  for (const socket of sockets) socket.destroy();
  await sleep(300);
  const expected = (count * ms) / eventEveryMs;
  if (passed < expected * 0.7)
    console.error(
      `  (only ${Math.round((passed / expected) * 100)} % of the events came through: the machine is too busy)`,
    );
  return (cpu / passed) * 1e6;
}

/** Not the upstream itself, nor who cannot. */
const streamsWith = ({ pid, asks }: Running) => pid !== null && asks === undefined;

/** Many events in a short time: at the rates that are measured a compiler takes minutes to make up its mind. */
async function warmStreams(target: Running): Promise<void> {
  const { sockets } = await open(target.port, '/stream?ms=10', 200);
  await sleep(6_000);
  for (const socket of sockets) socket.destroy();
  await sleep(300);
}

/** KB of memory per open stream that says nothing. */
async function idle(target: Running, count: number): Promise<number> {
  await small(target, 8); // warm
  const before = memoryKb(target.pid);
  const { sockets } = await open(target.port, '/idle', count);
  await sleep(1_000);
  const after = memoryKb(target.pid);
  for (const socket of sockets) socket.destroy();
  await sleep(500);
  return (after - before) / count;
}

const median = (values: readonly number[]) =>
  [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)] ?? Number.NaN;

// --- the run ---

const loadBefore = loadavg()[0] ?? 0;
const backends = await Promise.all([1, 2].map(() => node([join(here, 'proxy-backend.ts')])));
const upstreams = backends.map((backend) => `http://127.0.0.1:${backend.port}`);
const running = new Map<string, Running>();
const skipped: string[] = [];
type Row = { small: Small[]; light: Small[]; streams: Map<number, number[]>; idle: number };
const rows = new Map<string, Row>();

try {
  for (const candidate of candidates) {
    if (only !== undefined && candidate.name !== 'direct' && !only.includes(candidate.name)) continue;
    try {
      running.set(candidate.name, await candidate.start(upstreams));
      rows.set(candidate.name, {
        small: [],
        light: [],
        streams: new Map(streamCounts.map((n) => [n, []])),
        idle: Number.NaN,
      });
    } catch (error) {
      skipped.push(`${candidate.name}: ${(error as Error).message}`);
      console.error(`SKIPPED ${candidate.name}: ${(error as Error).message}`);
    }
  }
  // Until the compilers are done: the second run of a Node or Go proxy is still slower than the tenth.
  for (const target of running.values()) {
    for (let i = 0; i < 4; i++) await small(target, 64);
    if (streamsWith(target) && streamCounts.length > 0) await warmStreams(target);
  }
  for (let round = 0; round < rounds; round++) {
    for (const [name, target] of running) {
      const row = rows.get(name)!;
      row.small.push(await small(target, 64));
      row.light.push(await small(target, 2));
      if (streamsWith(target))
        for (const count of streamCounts) row.streams.get(count)!.push(await streams(target, count));
      const last = row.small.at(-1)!;
      console.error(`round ${round + 1} ${name}: ${Math.round(last.rps)}/s, ${last.cpuUs.toFixed(1)} µs/request`);
    }
  }
  if (idleStreams > 0) {
    for (const { name, start } of candidates) {
      const used = running.get(name);
      if (used === undefined || !streamsWith(used)) continue;
      await used.stop();
      // One that has carried streams keeps their memory for the next ones.
      const fresh = await start(upstreams);
      running.set(name, fresh);
      rows.get(name)!.idle = await idle(fresh, idleStreams);
    }
  }
} finally {
  for (const target of running.values()) await target.stop();
  for (const backend of backends) await backend.stop();
  for (const child of children) child.kill('SIGKILL');
  rmSync(folder, { recursive: true, force: true });
}

const of = (name: string) => rows.get(name);
const cpuOf = (name: string) => median((of(name)?.small ?? []).map((one) => one.cpuUs));
const directLight = {
  p50: median(of('direct')!.light.map((one) => one.p50)),
  p99: median(of('direct')!.light.map((one) => one.p99)),
};
const number = (value: number, digits = 1) => (Number.isFinite(value) ? value.toFixed(digits) : '–');
const lines = [
  `| | requests/s (64 connections) | CPU µs per request | × nginx | added ms p50 / p99 (2 connections) | ${streamCounts.map((n) => `CPU µs per event, ${n} streams`).join(' | ')} | KB per idle stream |`,
  `| --- | ---: | ---: | ---: | ---: |${streamCounts.map(() => ' ---: |').join('')} ---: |`,
];
for (const [name, row] of rows) {
  const cpu = cpuOf(name);
  const p50 = median(row.light.map((one) => one.p50)) - directLight.p50;
  const p99 = median(row.light.map((one) => one.p99)) - directLight.p99;
  lines.push(
    `| ${name} | ${Math.round(median(row.small.map((one) => one.rps)))} | ${name === 'direct' ? '–' : number(cpu)} | ${name === 'direct' ? '–' : number(cpu / cpuOf('nginx'), 2)} | ` +
      `${name === 'direct' ? '–' : `${number(p50, 2)} / ${number(p99, 2)}`} | ${streamCounts.map((n) => number(median(row.streams.get(n) ?? []))).join(' | ')} | ${number(row.idle)} |`,
  );
}
// --- what is aimed at ---

const rps = (name: string) => median((of(name)?.small ?? []).map((one) => one.rps));
const perEvent = (name: string, count: number) => median(of(name)?.streams.get(count) ?? []);
/** How much of what it can do the candidate does with two connections that ask one request after the other. */
const lightShare = median((of('gpuproxy')?.light ?? []).map((one) => one.rps)) / rps('gpuproxy');
const addedP99 = median((of('gpuproxy')?.light ?? []).map((one) => one.p99)) - directLight.p99;
const aims: readonly (readonly [what: string, value: number, unit: string, holds: boolean])[] = [
  [
    'CPU per small request at most 3 × nginx',
    cpuOf('gpuproxy') / cpuOf('nginx'),
    '×',
    cpuOf('gpuproxy') <= 3 * cpuOf('nginx'),
  ],
  ["CPU per small request below Caddy's", cpuOf('gpuproxy') / cpuOf('caddy'), '×', cpuOf('gpuproxy') < cpuOf('caddy')],
  [
    'throughput at least 1.8 × @fastify/http-proxy',
    rps('gpuproxy') / rps('@fastify/http-proxy'),
    '×',
    rps('gpuproxy') >= 1.8 * rps('@fastify/http-proxy'),
  ],
  ...streamCounts.map((count) => {
    const ratio = perEvent('gpuproxy', count) / perEvent('nginx', count);
    return [`CPU per event at most 1.7 × nginx, ${count} streams`, ratio, '×', ratio <= 1.7] as const;
  }),
  [
    'memory per idle stream at most 64 KB',
    of('gpuproxy')?.idle ?? Number.NaN,
    'KB',
    (of('gpuproxy')?.idle ?? Number.NaN) <= 64,
  ],
  [
    `p99 of added latency at about half load (${number(lightShare * 100, 0)} %) under 2 ms`,
    addedP99,
    'ms',
    addedP99 < 2,
  ],
  [
    '2 threads: CPU per request within 15 % of one',
    cpuOf('gpuproxy, 2 threads') / cpuOf('gpuproxy'),
    '×',
    cpuOf('gpuproxy, 2 threads') <= 1.15 * cpuOf('gpuproxy'),
  ],
];
const aimLines = aims.map(
  ([what, value, unit, holds]) =>
    `| ${what} | ${number(value, 2)} ${unit} | ${Number.isFinite(value) ? (holds ? 'reached' : '**missed**') : 'not measured'} |`,
);
const version = (command: string, args: string[]) => {
  try {
    return (
      execFileSync('sh', ['-c', `${command} ${args.join(' ')} 2>&1`])
        .toString()
        .trim()
        .split('\n')[0] ?? ''
    );
  } catch {
    return 'not installed';
  }
};
const text = `# Data plane next to its rivals

Made by \`npm run bench\`; ${rounds} rounds of ${seconds} s, taking turns, medians. Loopback, two upstreams that write ready-made bytes
(a 120-byte JSON answer; an event of about 95 bytes every ${eventEveryMs} ms). One worker or thread each unless the name says otherwise; nginx, Caddy and
gpuproxy write an access log to a file, gpuproxy also checks a key and keeps its load table. Load generator and upstreams share
the cores with the candidates, so requests per second say less than CPU per request.

Machine: ${cpus()[0]?.model ?? '?'}, ${cores} cores${pinned ? '' : ' (too few to pin anything)'}, ${Math.round(totalmem() / 2 ** 30)} GB. Node ${process.version}, ${version('nginx', ['-v'])}, ${version('haproxy', ['-v'])}, Caddy ${version('caddy', ['version'])}.

Load average of the machine (1 min) before the run ${number(loadBefore)}, at its end ${number(loadavg()[0] ?? 0)}; the bench itself makes about 2 to 3.

${lines.join('\n')}

| aim | measured | |
| --- | ---: | --- |
${aimLines.join('\n')}
${skipped.length > 0 ? `\nSkipped: ${skipped.join('; ')}\n` : ''}`;
console.log(text);
if (only === undefined) writeFileSync(join(here, 'RESULTS.md'), text);
