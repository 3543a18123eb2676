import { execFileSync, spawn, spawnSync } from 'node:child_process';
import { cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { afterAll, beforeAll, describe, expect, it, test } from 'vitest';
import { parse, parseAllDocuments } from 'yaml';
import { commands } from '../src/cli/index.ts';
import { loadConfig, variables } from '../src/config.ts';
import { operations } from '../src/rest/operations/index.ts';
import { createFakeApp } from './helpers/fake-app.ts';
import { type Rest, send, startRest } from './rest/harness.ts';

const root = resolve(import.meta.dirname, '..');
const deploy = (name: string) => readFileSync(join(root, 'docs', 'deploy', name), 'utf8');
const manifest = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as {
  bin: Record<string, string>;
  engines: { node: string };
};
const defaults = loadConfig({ environment: {} });
/** Read before the configuration, because it says where a part of that lies. */
const otherVariables = ['GPUPROXY_CONFIG_DIR', 'NODE_ENV'];
const unknownVariables = (names: readonly string[]) =>
  names.filter((name) => !(name in variables) && !otherVariables.includes(name));
const rootPaths = operations.filter((operation) => operation.root).map((operation) => operation.path);

const app = createFakeApp();
let folder = '';
let rest: Rest;
beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'gpuproxy-deploy-'));
  rest = await startRest(app);
});
afterAll(async () => {
  await rest[Symbol.asyncDispose]();
  rmSync(folder, { recursive: true });
});

describe('Dockerfile', () => {
  const steps = deploy('Dockerfile')
    .replace(/^#.*\n/gm, '')
    .replace(/\\\n\s*/g, ' ')
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => {
      const [, word = '', rest = ''] = /^(\w+)\s+(.*)$/.exec(line) ?? [];
      return { word, rest };
    });
  const all = (word: string) => steps.filter((step) => step.word === word).map((step) => step.rest);
  const secondStage = steps.findLastIndex(({ word }) => word === 'FROM');
  const build = steps.slice(0, secondStage);
  const final = steps.slice(secondStage);
  const environment = Object.fromEntries(
    all('ENV').flatMap((text) => text.split(/\s+/).map((pair) => pair.split('=') as [string, string])),
  );

  it('builds the program from what it copies, in its order', { timeout: 90_000 }, () => {
    const work = join(folder, 'build');
    let built = false;
    for (const { word, rest } of build) {
      if (word === 'COPY') {
        const paths = rest.split(' ');
        const target = paths.pop() ?? '';
        for (const path of paths) {
          expect(existsSync(join(root, path)), path).toBe(true);
          cpSync(join(root, path), join(work, target === './' ? path : target), { recursive: true });
        }
      }
      // What npm would install is here already.
      if (word === 'RUN' && rest.startsWith('npm ci'))
        symlinkSync(join(root, 'node_modules'), join(work, 'node_modules'));
      if (word === 'RUN' && rest.endsWith('npm run build')) {
        execFileSync('npm', ['run', 'build', '--silent'], { cwd: work, timeout: 60_000 });
        built = true;
      }
    }
    expect(built).toBe(true);
    for (const copied of all('COPY').filter((text) => text.startsWith('--from=build'))) {
      const [from = ''] = copied.split(' ').slice(1);
      expect(existsSync(join(work, from.replace('/src/', ''))), from).toBe(true);
    }
    const version = execFileSync(process.execPath, [join(work, 'dist', 'main.js'), '--version'], { encoding: 'utf8' });
    expect(version).toMatch(/^\d+\.\d+\.\d+\n$/);
  });

  it('runs as an ordinary user, on a Node that is new enough, with the ports and variables there are', () => {
    expect(final.findLast(({ word }) => word === 'USER')?.rest).toBe('node');
    for (const image of all('FROM')) {
      const major = Number(/^node:(\d+)-slim/.exec(image)?.[1]);
      expect(major).toBeGreaterThanOrEqual(Number(/\d+/.exec(manifest.engines.node)?.[0]));
    }
    expect(unknownVariables(Object.keys(environment))).toEqual([]);
    expect(all('EXPOSE')).toEqual([`${defaults.GPUPROXY_PORT} ${defaults.GPUPROXY_PROXY_PORT}`]);
    expect(all('WORKDIR').at(-1)).toBe(environment.GPUPROXY_DATA_DIR);
    const [program = '', command = ''] = JSON.parse(all('CMD').at(-1) ?? '[]') as string[];
    expect(Object.keys(manifest.bin)).toContain(program);
    expect(commands.map(({ name }) => name)).toContain(command);
  });

  it('has a health check that tells a server that answers from one that does not', () => {
    const check = JSON.parse(/ CMD (\[.*\])$/.exec(all('HEALTHCHECK')[0] ?? '')?.[1] ?? '[]') as string[];
    expect(check[0]).toBe('node');
    const status = (port: number) =>
      new Promise((done) => {
        spawn(process.execPath, check.slice(1), { env: { GPUPROXY_PORT: String(port) }, stdio: 'ignore' }).on(
          'exit',
          done,
        );
      });
    return Promise.all([expect(status(rest.server.port)).resolves.toBe(0), expect(status(9)).resolves.toBe(1)]);
  });

  it('checks the port that the .env of the volume names', async () => {
    const volume = join(folder, 'volume');
    mkdirSync(volume);
    writeFileSync(join(volume, '.env'), `GPUPROXY_PORT=${rest.server.port}\n`);
    const check = JSON.parse(/ CMD (\[.*\])$/.exec(all('HEALTHCHECK')[0] ?? '')?.[1] ?? '[]') as string[];
    const child = spawn(process.execPath, check.slice(1), { cwd: volume, env: {}, stdio: 'ignore' });
    expect(await new Promise((done) => child.on('exit', done))).toBe(0);
  });

  it('shows how to run it without giving the control plane to the network', () => {
    const published = [...deploy('Dockerfile').matchAll(/-p (\S+)/g)].map(([, ports]) => ports);
    expect(published).toEqual(['127.0.0.1:8080:8080', '8081:8081']);
  });
});

type Port = { name: string; containerPort: number };
type Probe = { httpGet: { path: string; port: string } };
type Container = {
  ports: Port[];
  env: { name: string; value: string }[];
  envFrom: { secretRef: { name: string } }[];
  livenessProbe: Probe;
  readinessProbe: Probe;
  lifecycle: { preStop: { exec: { command: string[] } } };
  volumeMounts: { name: string; mountPath: string }[];
  resources: { limits: { memory: string } };
};
type Scrape = {
  scrape_configs: { job_name: string; authorization: object; static_configs: { targets: string[] }[] }[];
};
type ServiceMonitor = {
  spec: {
    selector: { matchLabels: { app: string } };
    jobLabel: string;
    endpoints: { port: string; path: string; authorization: { credentials: object } }[];
  };
};
type Manifest = {
  kind: string;
  metadata: { name: string; labels?: Record<string, string> };
  stringData: Record<string, string>;
  spec: {
    selector: Record<string, string> & { matchLabels: Record<string, string> };
    ports: { name: string; port: number; targetPort: string }[];
    publishNotReadyAddresses?: boolean;
    template: {
      metadata: { labels: Record<string, string> };
      spec: {
        terminationGracePeriodSeconds: number;
        containers: Container[];
        volumes: { name: string; persistentVolumeClaim?: { claimName: string } }[];
      };
    };
  };
};

describe('Kubernetes manifest', () => {
  const documents = parseAllDocuments(deploy('kubernetes.yaml'), { strict: true, uniqueKeys: true });
  const objects = documents.map((document) => document.toJS() as Manifest);
  const of = (kind: string) => objects.filter((object) => object.kind === kind);
  const { template, selector } = of('Deployment')[0]!.spec;
  const container = template.spec.containers[0]!;

  it('is YAML without mistakes', () => {
    expect(documents.flatMap((document) => [...document.errors, ...document.warnings])).toEqual([]);
    expect(objects.map(({ kind }) => kind)).toEqual([
      'Secret',
      'PersistentVolumeClaim',
      'Deployment',
      'Service',
      'Service',
    ]);
  });

  it('probes paths that exist, at the port of the control plane', () => {
    const portOf = (name: string) => container.ports.find((port) => port.name === name)?.containerPort;
    expect(portOf('control')).toBe(defaults.GPUPROXY_PORT);
    expect(portOf('data')).toBe(defaults.GPUPROXY_PROXY_PORT);
    for (const { httpGet } of [container.livenessProbe, container.readinessProbe]) {
      expect(rootPaths).toContain(httpGet.path);
      expect(httpGet.port).toBe('control');
    }
  });

  it('promises no scrape without a key, which would be refused', async () => {
    expect(deploy('kubernetes.yaml')).not.toContain('prometheus.io/');
    const headers = { host: 'gpuproxy-control:8080' };
    expect((await send(rest.url, 'GET', '/metrics', { headers })).status).toBe(401);
  });

  it('the scrape configurations in docs/running.md ask for what there is, with a key', async () => {
    const blocks = [...readFileSync(join(root, 'docs', 'running.md'), 'utf8').matchAll(/```yaml\n(.*?)```/gs)];
    const [scrape, monitor] = blocks.map((block) => parse(block[1]!)) as [Scrape, ServiceMonitor];
    const [job] = scrape.scrape_configs;
    expect(job?.job_name).toBe('gpuproxy');
    expect(job?.authorization).toMatchObject({ type: 'Bearer', credentials_file: expect.any(String) });
    expect(Number(job?.static_configs[0]?.targets[0]?.split(':')[1])).toBe(defaults.GPUPROXY_PORT);

    const [endpoint] = monitor.spec.endpoints;
    expect(rootPaths).toContain(endpoint?.path);
    expect(endpoint?.authorization.credentials).toEqual({ name: 'gpuproxy-metrics', key: 'key' });
    const found = of('Service').filter(
      ({ metadata }) => metadata.labels?.app === monitor.spec.selector.matchLabels.app,
    );
    expect(found.flatMap(({ spec }) => spec.ports.map(({ name }) => name))).toEqual([endpoint?.port]);
    expect(found[0]?.metadata.labels?.[monitor.spec.jobLabel]).toBe('gpuproxy');

    const { key } = app.keys.create({ name: 'prometheus', scope: 'read' });
    const headers = { host: 'gpuproxy-control:8080', authorization: `Bearer ${key}` };
    expect((await send(rest.url, 'GET', '/metrics', { headers })).status).toBe(200);
  });

  it('has memory for the threads that it starts', () => {
    const threads = Number(container.env.find(({ name }) => name === 'GPUPROXY_THREADS')?.value);
    const megabytes = Number(/^(\d+)Gi$/.exec(container.resources.limits.memory)?.[1]) * 1024;
    expect(threads).toBeGreaterThan(0);
    // 17 MB each when idle, and room for ten times that under load.
    expect(megabytes).toBeGreaterThanOrEqual(200 + threads * 170);
  });

  it('names variables that exist, with values that are accepted', () => {
    const names = [...container.env.map(({ name }) => name), ...Object.keys(of('Secret')[0]!.stringData)];
    expect(unknownVariables(names)).toEqual([]);
    const environment = Object.fromEntries(container.env.map(({ name, value }) => [name, value]));
    expect(() => loadConfig({ environment: { ...of('Secret')[0]!.stringData, ...environment } })).not.toThrow();
  });

  it('leaves a drain the time that it needs', () => {
    const [sleep, seconds] = container.lifecycle.preStop.exec.command;
    expect(sleep).toBe('sleep');
    const drain = Number(container.env.find(({ name }) => name === 'DRAIN_SECONDS')?.value);
    expect(template.spec.terminationGracePeriodSeconds).toBeGreaterThan(Number(seconds) + drain);
  });

  it('its parts find each other', () => {
    const { labels } = template.metadata;
    expect(selector.matchLabels).toEqual(labels);
    for (const { spec } of of('Service')) {
      expect(labels).toMatchObject(spec.selector);
      for (const { targetPort } of spec.ports) expect(container.ports.map(({ name }) => name)).toContain(targetPort);
    }
    // Before anything is rented no upstream is eligible, and then only the control plane can change that.
    expect(
      of('Service')
        .filter(({ spec }) => spec.publishNotReadyAddresses)
        .map(({ spec }) => spec.ports[0]?.targetPort),
    ).toEqual(['control']);
    expect(container.envFrom.map(({ secretRef }) => secretRef.name)).toEqual(
      of('Secret').map(({ metadata }) => metadata.name),
    );
    const claims = of('PersistentVolumeClaim').map(({ metadata }) => metadata.name);
    const volumes = template.spec.volumes.map(({ name, persistentVolumeClaim }) => {
      if (persistentVolumeClaim) expect(claims).toContain(persistentVolumeClaim.claimName);
      return name;
    });
    expect(container.volumeMounts.map(({ name }) => name).sort()).toEqual(volumes.sort());
    expect(container.volumeMounts.map(({ mountPath }) => mountPath)).toContain('/var/lib/gpuproxy');
  });
});

describe('systemd unit', () => {
  const unit = deploy('gpuproxy.service');
  const values = (name: string) => [...unit.matchAll(new RegExp(`^${name}=(.*)$`, 'gm'))].map((match) => match[1]!);

  it('starts a command that exists, with variables that exist, and leaves a drain its time', () => {
    const [path = '', command = ''] = values('ExecStart')[0]?.split(' ') ?? [];
    expect(Object.keys(manifest.bin)).toContain(path.split('/').at(-1));
    expect(commands.map(({ name }) => name)).toContain(command);
    expect(unknownVariables(values('Environment').map((pair) => pair.split('=')[0]!))).toEqual([]);
    expect(values('ExecReload')).toEqual(['/bin/kill -HUP $MAINPID']);
    expect(Number(values('TimeoutStopSec')[0])).toBeGreaterThan(defaults.DRAIN_SECONDS);
  });

  const isInstalled = spawnSync('systemd-analyze', ['--version']).error === undefined;
  if (!isInstalled) process.stderr.write('SKIPPED LOUDLY: no systemd-analyze here to check the unit\n');
  test.skipIf(!isInstalled)('systemd takes it, and finds little to attack', () => {
    const file = join(folder, 'gpuproxy.service');
    // It looks for the program, which is not installed here.
    writeFileSync(file, unit.replace(/^ExecStart=\S+/m, 'ExecStart=/bin/true'));
    const verified = spawnSync('systemd-analyze', ['verify', file], { encoding: 'utf8' });
    expect(verified.stderr + verified.stdout).toBe('');
    expect(verified.status).toBe(0);
    const rated = spawnSync('systemd-analyze', ['security', '--offline=true', '--threshold=15', file], {
      encoding: 'utf8',
    });
    expect(rated.status, rated.stdout).toBe(0);
  });
});

test('alert rules are YAML, each with a severity and what it means', () => {
  const { groups } = parse(readFileSync(join(root, 'docs', 'alerts.yml'), 'utf8'), { strict: true }) as {
    groups: { rules: { alert: string; labels: { severity: string }; annotations: { summary: string } }[] }[];
  };
  const rules = groups.flatMap((group) => group.rules);
  expect(new Set(rules.map(({ alert }) => alert)).size).toBe(rules.length);
  for (const { alert, labels, annotations } of rules) {
    expect(['critical', 'warning', 'info'], alert).toContain(labels.severity);
    expect(annotations.summary, alert).not.toBe('');
  }
});
