import { execFile, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { type AddressInfo, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { promisify } from 'node:util';
import { expect, test } from 'vitest';
import { eventually } from '../helpers/eventually.ts';
import { createFakeApp, providerView, upstreamView } from '../helpers/fake-app.ts';
import { send, startRest } from './harness.ts';

/** Debian's package `prometheus` has both. */
const isInstalled = ['prometheus', 'promtool'].every((tool) => spawnSync(tool, ['--version']).error === undefined);
if (!isInstalled)
  process.stderr.write('SKIPPED LOUDLY: no Prometheus here to scrape /metrics (apt-get install prometheus)\n');

/** The questions of the dashboard, as Grafana asks them. */
function dashboardQueries(): string[] {
  const { panels } = JSON.parse(readFileSync('docs/grafana-dashboard.json', 'utf8')) as {
    panels: { targets?: { expr: string }[] }[];
  };
  return panels
    .flatMap(({ targets = [] }) => targets.map(({ expr }) => expr))
    .map((expr) => expr.replaceAll('$__rate_interval', '5m').replaceAll('$job', '.*'));
}

test.skipIf(!isInstalled)(
  'Prometheus itself scrapes the metrics and takes the rules',
  { timeout: 60_000 },
  async () => {
    const app = createFakeApp({ upstreams: [upstreamView()], providers: [providerView()] });
    const ref = app.dataPlane.table.join({ weight: 1, ceiling: 0, now: 0 });
    const entry = { ...ref, id: 'vast-12345', provider: 'vast.ai', origin: 'http://127.0.0.1:1', models: null };
    Object.assign(app.dataPlane, { directory: () => [entry] });
    await using rest = await startRest(app);
    await rest.call('GET', '/api/v1/fleet');
    const { text } = await rest.call('GET', '/metrics', { key: null });

    const checked = spawnSync('promtool', ['check', 'metrics'], { input: text, encoding: 'utf8' });
    expect(checked.stdout + checked.stderr).toBe('');
    expect(checked.status).toBe(0);
    await promisify(execFile)('promtool', ['check', 'rules', 'docs/alerts.yml']);

    const port = await freePort();
    const folder = await mkdtemp(join(tmpdir(), 'gpuproxy-prometheus-'));
    await writeFile(
      join(folder, 'prometheus.yml'),
      `global: { scrape_interval: 1s, evaluation_interval: 1s }
rule_files: [${JSON.stringify(resolve('docs/alerts.yml'))}]
scrape_configs:
  - job_name: gpuproxy
    static_configs: [{ targets: ['127.0.0.1:${rest.server.port}'] }]
`,
    );
    const server = spawn(
      'prometheus',
      [
        `--config.file=${folder}/prometheus.yml`,
        `--storage.tsdb.path=${folder}/data`,
        `--web.listen-address=127.0.0.1:${port}`,
      ],
      { stdio: 'ignore' },
    );
    try {
      const ask = async (path: string) =>
        (await send(`http://127.0.0.1:${port}`, 'GET', path, {})).body as {
          data: {
            activeTargets: { health: string }[];
            groups: { rules: { health: string }[] }[];
          };
        };
      await eventually(async () => (await ask('/api/v1/targets')).data.activeTargets[0]?.health === 'up', 'a scrape');
      await eventually(
        async () => (await ask('/api/v1/rules')).data.groups[0]?.rules.every((rule) => rule.health === 'ok'),
        'all rules to be evaluated',
      );
      const query = (text: string) =>
        send(`http://127.0.0.1:${port}`, 'GET', `/api/v1/query?query=${encodeURIComponent(text)}`, {});
      const value = async (text: string) =>
        ((await query(text)).body as { data: { result: { value: [number, string] }[] } }).data.result[0]?.value[1];
      expect(await value('gpuproxy_upstream_in_flight{upstream="vast-12345"}')).toBe('3');
      for (const part of ['sum', 'count', 'bucket{le="+Inf"}']) {
        expect(await value(`gpuproxy_upstream_ttfb_seconds_${part}`), part).toBe('0');
      }
      const queries = dashboardQueries();
      expect(queries.length).toBeGreaterThan(20);
      for (const text of queries) expect((await query(text)).status, text).toBe(200);
      expect((await query('sum(')).status).toBe(400);
    } finally {
      server.kill();
      await new Promise((done) => server.once('exit', done));
      await rm(folder, { recursive: true, force: true });
    }
  },
);

/** It logs the port that it was given, not the one that it got, so 0 would not tell. */
async function freePort(): Promise<number> {
  const probe = createServer().listen(0, '127.0.0.1');
  await once(probe, 'listening');
  const { port } = probe.address() as AddressInfo;
  probe.close();
  await once(probe, 'close');
  return port;
}
