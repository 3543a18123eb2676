/**
 * How long client commands take from the shell, against `node -e 0` and a bare request of Node, with what they should
 * stay within. Needs hyperfine and `npm run build`.
 * Run: npm run bench:startup [-- runs]
 */
import { execFileSync, spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const runs = process.argv[2] ?? '40';
const main = join(import.meta.dirname, '..', 'dist', 'main.js');
const node = process.execPath;
const folder = mkdtempSync(join(tmpdir(), 'gpuproxy-startup-'));
// Compiled code of its own, which the warm-up runs leave there.
const env = { ...process.env, GPUPROXY_CONFIG_DIR: folder, GPUPROXY_DATA_DIR: folder, XDG_CACHE_HOME: folder };
const server = spawn(
  node,
  [main, 'serve', '--upstreams', 'http://127.0.0.1:9', '--port', '0', '--proxy-port', '0', '--threads', '1'],
  { cwd: folder, env, stdio: ['ignore', 'ignore', 'pipe'] },
);
const url = await new Promise<string>((resolve, reject) => {
  let log = '';
  server.once('exit', () => reject(new Error(log)));
  server.stderr.setEncoding('utf8').on('data', (text: string) => {
    log += text;
    const found = /control plane (http:[^\s"]+)\/api\/v1/.exec(log)?.[1];
    if (found !== undefined) resolve(found);
  });
});

try {
  const bare = `process.getBuiltinModule("http").get("${url}/healthz",(r)=>r.resume())`;
  /** With what each should stay within: times of `node -e 0` and on top of that a bare request, or ms. */
  const commands: readonly (readonly [command: string, target?: { times: number } | { ms: number }])[] = [
    [`${node} -e 0`],
    [`${node} -e '${bare}'`],
    [`${node} ${main} load --json -u ${url}`, { times: 2.5 }],
    [`${node} ${main} load server --json -u ${url}`, { times: 2.5 }],
    [`${node} ${main} --version`, { ms: 60 }],
    [`${node} ${main} --help`, { ms: 60 }],
    [`${node} ${main} reserve --help`, { ms: 60 }],
    [`${node} ${main} __complete -- lb-strategy least`, { ms: 60 }],
  ];
  const report = join(folder, 'report.json');
  execFileSync('hyperfine', ['-N', '-w', '3', '-r', runs, '--export-json', report, ...commands.map(([line]) => line)], {
    cwd: folder,
    env,
    stdio: 'ignore',
  });
  const { results } = JSON.parse(readFileSync(report, 'utf8')) as {
    results: { command: string; median: number; min: number; user: number; system: number }[];
  };
  const first = results[0]!;
  const cpu = (row: { user: number; system: number }) => row.user + row.system;
  console.log('median ms   x    target    min ms   x    CPU ms   x   command');
  for (const [i, row] of results.entries()) {
    const target = commands[i]?.[1];
    const requestMs = (results[1]!.median - first.median) * 1000;
    const wantedMs =
      target === undefined ? null : 'ms' in target ? target.ms : target.times * first.median * 1000 + requestMs;
    const wanted = wantedMs === null ? '' : `${wantedMs.toFixed(0)} ms`;
    const pair = (value: number, base: number) =>
      `${(value * 1000).toFixed(1).padStart(8)} ${(value / base).toFixed(2).padStart(5)}`;
    const shown = row.command
      .replaceAll(node, 'node')
      .replaceAll(main, 'gpuproxy')
      .replace(/ -u \S+/, '')
      .replace(bare, 'http.get(…)');
    console.log(
      `${pair(row.median, first.median)} ${wanted.padStart(8)}  ${pair(row.min, first.min)} ${pair(cpu(row), cpu(first))}  ${shown}`,
    );
  }
} finally {
  const ended = new Promise((resolve) => server.once('exit', resolve));
  server.kill('SIGTERM');
  server.kill('SIGTERM');
  await ended;
  rmSync(folder, { recursive: true, force: true });
}
