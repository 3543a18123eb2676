import { readFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { availableParallelism, homedir, tmpdir } from 'node:os';
import { join } from 'node:path';
import { type Config, ConfigError } from '../config.ts';
import type { LocalApp } from '../fleet/app.ts';
import { createApp } from '../fleet/create-app.ts';
import { marketplaces } from '../providers/index.ts';
import { startDataPlane } from '../proxy/data-plane.ts';
import { createRestServer } from '../rest/create-server.ts';
import { startSimulatorThread } from '../sim/simulator-thread.ts';
import { openPreferences } from './preferences.ts';

export type SystemOptions = Readonly<{
  config: Config;
  /** Rent from the built-in simulated marketplaces instead of the configured ones. */
  demo: Readonly<{ seed: number }> | null;
}>;

/** The whole program in this process. Disposing it drains nothing: call `drain` first. */
export interface System extends AsyncDisposable {
  readonly app: LocalApp;
  readonly apiUrl: string;
  readonly proxyUrl: string;
  /** Set when this start made the admin key: it is shown once. */
  readonly newKey: string | null;
  /** Takes no new request and waits for the open ones until the deadline. */
  drain(deadlineMs: number): Promise<void>;
}

/** Where the ledger is when GPUPROXY_DATA_DIR does not say. */
export function defaultDataDir(environment: NodeJS.ProcessEnv = process.env): string {
  return join(environment.XDG_STATE_HOME || join(homedir(), '.local', 'state'), 'gpuproxy');
}

/** True when nothing says where GPUs should come from. */
export function nothingConfigured(config: Config): boolean {
  return config.UPSTREAMS.length === 0 && marketplaces.every((m) => config[`${m.env}_API_KEY`] === undefined);
}

/** Puts the parts together, in the order in which they need each other; what was started is stopped when a later part fails. */
export async function startSystem({ config, demo }: SystemOptions): Promise<System> {
  await using starting = new AsyncDisposableStack();
  const tls =
    config.TLS_CERT === undefined || config.TLS_KEY === undefined
      ? null
      : { cert: readPem('TLS_CERT', config.TLS_CERT), key: readPem('TLS_KEY', config.TLS_KEY) };

  const simulator = demo
    ? await startSimulatorThread({ seed: demo.seed, bootMs: { min: 300, max: 2500 }, churnPerMinute: 6 })
    : null;
  if (simulator) starting.defer(() => simulator.close());

  let dataDir = config.GPUPROXY_DATA_DIR ?? defaultDataDir();
  if (simulator) {
    // Contracts of a simulator end with it, so its ledger must not outlive it, and must never mix with a real one.
    dataDir = await mkdtemp(join(tmpdir(), 'gpuproxy-demo-'));
    starting.defer(() => rm(dataDir, { recursive: true, force: true }));
  }

  const providers = marketplaces.flatMap((marketplace) => {
    const simulated =
      simulator &&
      { 'vast.ai': [simulator.vastKey, simulator.vastUrl], 'io.net': [simulator.ionetKey, simulator.ionetUrl] }[
        marketplace.name
      ];
    const apiKey = simulated ? simulated[0] : config[`${marketplace.env}_API_KEY`];
    const baseUrl = simulated ? simulated[1] : config[`${marketplace.env}_URL`];
    if (apiKey === undefined || baseUrl === undefined) return [];
    const provider = marketplace.create({
      apiKey,
      baseUrl,
      instancePort: config.INSTANCE_PORT,
      diskGb: config.DEFAULT_DISK_GB,
      ...(simulated ? { pace: 0 } : {}),
    });
    starting.defer(() => provider.close?.());
    return [provider];
  });

  const app = await createApp({
    config,
    providers,
    dataDir,
    simulated: simulator !== null,
    banner: simulator ? 'SIMULATED FLEET: no money is spent' : null,
  });
  starting.use(app);

  const newKey = admitOperator(app, config);

  const dataPlane = await startDataPlane({
    app: app.dataPlane,
    keys: app.keys,
    config,
    tls,
    threads: config.GPUPROXY_THREADS ?? Math.max(1, availableParallelism() - 1),
  });
  starting.defer(() => dataPlane.close());

  const rest = await createRestServer({ app, host: config.GPUPROXY_HOST, port: config.GPUPROXY_PORT, tls });
  starting.defer(() => rest.close());

  const proxyUrl = `${tls ? 'https' : 'http'}://${urlHost(config.GPUPROXY_HOST)}:${dataPlane.port}`;
  app.announce({ apiUrl: rest.url, proxyUrl });

  if (simulator) {
    const traffic = { url: proxyUrl, seed: demo?.seed, key: trafficKey(app) };
    // Traffic before anything serves would only show refusals.
    const stopWaiting = app.state.subscribe(() => {
      if (!app.state.get().upstreams.some((upstream) => upstream.eligible)) return;
      stopWaiting();
      // Rejects only when the simulator has ended, and then there is nothing to send traffic to.
      simulator.startTraffic(traffic).catch(() => {});
    });
    starting.defer(stopWaiting);
    void rentDemoFleet(app);
  }

  const running = starting.move();
  return {
    app,
    apiUrl: rest.url,
    proxyUrl,
    newKey,
    drain: async (deadlineMs) => {
      // The demo's own client would keep the drain waiting until its deadline.
      await simulator?.stopTraffic();
      await dataPlane.drain(deadlineMs);
    },
    [Symbol.asyncDispose]: () => running.disposeAsync(),
  };
}

/** The key of the person at this machine: the configured one, or one made now and kept where the client commands look. */
function admitOperator(app: LocalApp, config: Config): string | null {
  const preferences = openPreferences();
  const known = config.GPUPROXY_API_KEY ?? preferences.get('apiKey');
  if (known !== undefined) {
    app.keys.ensure(known, { name: 'operator', scope: 'admin' });
    return null;
  }
  const { key } = app.keys.create({ name: 'operator', scope: 'admin' });
  preferences.set('apiKey', key);
  return key;
}

/** The demo's own client pays with a key of its own, so that it also works where the data plane asks for one. */
function trafficKey(app: LocalApp): string {
  return app.keys.create({ name: 'demo traffic', scope: 'proxy' }).key;
}

/** A few instances of different speed and price, through the ordinary reservation, so that the screen lives. */
async function rentDemoFleet(app: LocalApp): Promise<void> {
  const wishes = [
    { count: 2, filter: { gpuModel: 'RTX 4090', gpuCount: 1, provider: 'vast.ai' as const } },
    { count: 1, filter: { gpuModel: 'A100', gpuCount: 1, provider: 'vast.ai' as const } },
    { count: 1, filter: { gpuModel: 'RTX 3090', gpuCount: 1, provider: 'vast.ai' as const } },
    { count: 1, filter: { gpuModel: 'H100', gpuCount: 1, provider: 'io.net' as const } },
    { count: 1, filter: { gpuModel: 'L40S', gpuCount: 1, provider: 'io.net' as const } },
  ];
  // A wish that the seed's market cannot meet is no error: the reservation says so in the event list.
  await Promise.allSettled(wishes.map((wish) => app.reserve({ ...wish, config: {} }, { by: 'demo' })));
}

function readPem(name: 'TLS_CERT' | 'TLS_KEY', path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    throw new ConfigError(
      `${name}: got "${path}", which cannot be read (${(error as NodeJS.ErrnoException).code}); accepts a PEM file`,
    );
  }
}

/** An address as it stands in a URL: IPv6 in brackets, "any" as loopback. */
function urlHost(host: string): string {
  if (host === '0.0.0.0' || host === '::') return '127.0.0.1';
  return host.includes(':') ? `[${host}]` : host;
}
