import { mkdtemp, rm } from 'node:fs/promises';
import { availableParallelism, tmpdir } from 'node:os';
import { join } from 'node:path';
import { type Config, defaultThreads, type VariableName, variables } from '../config.ts';
import { AppError, type LocalApp } from '../fleet/app.ts';
import { createApp } from '../fleet/create-app.ts';
import { marketplaces } from '../providers/index.ts';
import type { RestServerOptions } from '../rest/create-server.ts';
import { defaultDataDir } from './data-dir.ts';
import type { Demo } from './demo.ts';
import { preferencesFile } from './preferences-file.ts';
import { checkAccessLog, checkDataDir, readTls } from './start-checks.ts';
import { programVersion } from './version.ts';

export type SystemOptions = Readonly<{
  config: Config;
  /** Rent from the built-in simulated marketplaces instead of the configured ones. */
  demo: Demo | null;
  /** Called as soon as there is something to show, before the listeners are open; they wait until it is shown. */
  onApp?: (app: LocalApp) => Promise<void> | undefined;
  /** Told of bugs that cost one answer of the control plane and not the process. */
  logger?: NonNullable<RestServerOptions['logger']>;
}>;

/** The whole program in this process. Disposing it drains nothing: call `drain` first. */
export interface System extends AsyncDisposable {
  readonly app: LocalApp;
  readonly apiUrl: string;
  readonly proxyUrl: string;
  /** Set when this start made the admin key: whoever started it is told. */
  readonly newKey: NewKey | null;
  /** Takes no new request and waits for the open ones until the deadline. */
  drain(deadlineMs: number): Promise<void>;
  /**
   * Takes up another configuration and the present contents of the TLS files without touching what is open. Returns which
   * variables changed and which of them wait for the next start. Throws ConfigError, and then nothing has changed.
   */
  reconfigure(config: Config): Readonly<{ changed: readonly VariableName[]; waiting: readonly VariableName[] }>;
}

/** `stored` false: the client commands will not find it, because `file` cannot be written. */
export type NewKey = Readonly<{ key: string; stored: boolean; file: string }>;

/**
 * One line for whoever started the server. What is no terminal is kept by somebody: there the key is named by its place,
 * unless it is in no other.
 */
export function tellKey({ key, stored, file }: NewKey, onTerminal: boolean): string {
  if (!stored) {
    return `api key       ${key}  (shown once, not stored, ${file} cannot be written: keep it as GPUPROXY_API_KEY)`;
  }
  return onTerminal
    ? `api key       ${key}  (shown once, stored for this user's commands)`
    : `api key made and stored in ${file}, where this user's commands find it; "gpuproxy config get apiKey --reveal" shows it`;
}

/** What is fixed once the listeners, the ledger and the provider clients exist. */
const fixedAtStart: readonly VariableName[] = [
  'GPUPROXY_HOST',
  'GPUPROXY_PORT',
  'GPUPROXY_PROXY_PORT',
  'GPUPROXY_DATA_DIR',
  'GPUPROXY_THREADS',
  'VASTAI_API_KEY',
  'VASTAI_URL',
  'IONET_API_KEY',
  'IONET_URL',
  'INSTANCE_PORT',
  'DEFAULT_DISK_GB',
  'OTEL_EXPORTER_OTLP_ENDPOINT',
  'OTEL_EXPORTER_OTLP_HEADERS',
  'OTEL_SERVICE_NAME',
  'OTEL_TRACES_SAMPLER',
  'OTEL_TRACES_SAMPLER_ARG',
];

/** Puts the parts together, in the order in which they need each other; what was started is stopped when a later part fails. */
export async function startSystem({ config, demo, onApp, logger }: SystemOptions): Promise<System> {
  await using starting = new AsyncDisposableStack();
  const simulator = demo ? await demo.simulator : null;
  if (simulator) starting.defer(() => simulator.close());
  const tls = readTls(config);
  checkAccessLog(config);

  let dataDir = config.GPUPROXY_DATA_DIR ?? defaultDataDir();
  if (simulator) {
    // Contracts of a simulator end with it, so its ledger must not outlive it, and must never mix with a real one.
    dataDir = await mkdtemp(join(tmpdir(), 'gpuproxy-demo-'));
    starting.defer(() => rm(dataDir, { recursive: true, force: true }));
  } else checkDataDir(dataDir);

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
  if (simulator) void rentDemoFleet(app, logger);
  // The questions to the marketplaces leave before drawing keeps this thread busy.
  for (let turn = 0; turn < 3; turn += 1) await new Promise((done) => setImmediate(done));
  // So does loading the rest.
  await onApp?.(app);

  const loadingRest = import('../rest/create-server.ts');
  // Awaited below; until then its failure is nobody's.
  loadingRest.catch(() => {});
  const { startDataPlane } = await import('../proxy/data-plane.ts');
  const dataPlane = await startDataPlane({
    app: app.dataPlane,
    keys: app.keys,
    config,
    tls,
    threads: config.GPUPROXY_THREADS ?? defaultThreads(availableParallelism()),
  });
  starting.defer(() => dataPlane.close());

  const newKey = await admitOperator(app, config);

  let draining = false;
  const { createRestServer } = await loadingRest;
  const rest = await createRestServer({
    accepting: () => !draining,
    version: programVersion(),
    app,
    host: config.GPUPROXY_HOST,
    port: config.GPUPROXY_PORT,
    tls,
    ...(logger === undefined ? {} : { logger }),
  });
  starting.defer(() => rest.close());
  // Before the control plane closes: who waits for a rental gets its answer.
  starting.defer(() => app.stopRenting());

  const proxyUrl = `${tls ? 'https' : 'http'}://${urlHost(config.GPUPROXY_HOST)}:${dataPlane.port}`;
  app.announce({ apiUrl: rest.url, proxyUrl });

  if (simulator) {
    const traffic = { url: proxyUrl, seed: demo?.seed, key: trafficKey(app) };
    // Traffic before anything serves would only show refusals.
    const stopWaiting = app.state.subscribe(() => {
      if (!app.state.get().upstreams.some((upstream) => upstream.eligible)) return;
      stopWaiting();
      simulator.startTraffic(traffic).catch((error: unknown) => {
        // When the simulator has ended there is nothing to send traffic to.
        if (!running.disposed) logger?.error({ err: error }, 'the demo sends no traffic');
      });
    });
    starting.defer(stopWaiting);
  }

  const running = starting.move();
  let current = config;
  return {
    app,
    apiUrl: rest.url,
    proxyUrl,
    newKey,
    drain: async (deadlineMs) => {
      draining = true;
      // The demo's own client would keep the drain waiting until its deadline.
      await simulator?.stopTraffic();
      await Promise.all([app.stopRenting(), dataPlane.drain(deadlineMs)]);
    },
    reconfigure(wanted) {
      // With a certificate the listeners speak TLS, without one they do not: that cannot change under open connections.
      const switchesTls = (tls === null) !== (wanted.TLS_CERT === undefined);
      const nextTls = switchesTls ? tls : readTls(wanted);
      checkAccessLog(wanted);
      const fixed = switchesTls ? [...fixedAtStart, 'TLS_CERT' as const, 'TLS_KEY' as const] : fixedAtStart;
      const differs = (name: VariableName) => JSON.stringify(wanted[name]) !== JSON.stringify(current[name]);
      const names = (Object.keys(variables) as VariableName[]).filter((name) => name !== 'GPUPROXY_URL');
      const waiting = names.filter((name) => fixed.includes(name) && differs(name));
      const changed = names.filter((name) => !fixed.includes(name) && differs(name));
      // What waits keeps its value, so that it is told again at each reload until the program was started anew.
      const next: Config = { ...wanted, ...Object.fromEntries(fixed.map((name) => [name, current[name]])) };
      if (changed.includes('GPUPROXY_API_KEY')) {
        admitConfiguredKey(app, next);
      }
      app.reconfigure?.(next);
      dataPlane.reconfigure(next, nextTls);
      if (nextTls !== null) rest.setTls(nextTls);
      current = next;
      return { changed, waiting };
    },
    [Symbol.asyncDispose]: () => running.disposeAsync(),
  };
}

/** Name of the key that the first start made. It stays good beside one that the configuration names. */
const madeKeyName = 'operator';
/** Name of the key that the configuration names; there is one at a time. */
const configuredKeyName = 'GPUPROXY_API_KEY';

/** Admits the configured key and revokes the one it replaces; false when none is configured. */
function admitConfiguredKey(app: LocalApp, config: Config): boolean {
  if (config.GPUPROXY_API_KEY === undefined) return false;
  const made = config.origin.GPUPROXY_API_KEY === 'conf';
  const { id } = app.keys.ensure(config.GPUPROXY_API_KEY, {
    name: made ? madeKeyName : configuredKeyName,
    scope: 'admin',
  });
  for (const key of app.keys.list()) {
    // A key is replaced because it must not be good any longer.
    if (key.name === configuredKeyName && key.id !== id && key.revokedAt === null) app.keys.revoke(key.id);
  }
  return true;
}

/** The key of the person at this machine: the configured one, or one made now and kept where the client commands look. */
async function admitOperator(app: LocalApp, config: Config): Promise<NewKey | null> {
  if (admitConfiguredKey(app, config)) return null;
  const { openPreferences } = await import('./preferences.ts');
  const file = preferencesFile();
  const { key } = app.keys.create({ name: madeKeyName, scope: 'admin' });
  try {
    openPreferences().set('apiKey', key);
    return { key, stored: true, file };
  } catch (error) {
    // A read-only folder, a full disk: no reason not to serve. Without a code it is a bug of ours.
    if ((error as NodeJS.ErrnoException).code === undefined) throw error;
    return { key, stored: false, file };
  }
}

/** The demo's own client pays with a key of its own, so that it also works where the data plane asks for one. */
function trafficKey(app: LocalApp): string {
  return app.keys.create({ name: 'demo traffic', scope: 'proxy' }).key;
}

/** A few instances of different speed and price, through the ordinary reservation, so that the screen lives. */
async function rentDemoFleet(app: LocalApp, logger: SystemOptions['logger']): Promise<void> {
  const wishes = [
    { count: 2, filter: { gpuModel: 'RTX 4090', gpuCount: 1, provider: 'vast.ai' as const } },
    { count: 1, filter: { gpuModel: 'A100', gpuCount: 1, provider: 'vast.ai' as const } },
    { count: 1, filter: { gpuModel: 'RTX 3090', gpuCount: 1, provider: 'vast.ai' as const } },
    { count: 1, filter: { gpuModel: 'H100', gpuCount: 1, provider: 'io.net' as const } },
    { count: 1, filter: { gpuModel: 'L40S', gpuCount: 1, provider: 'io.net' as const } },
  ];
  await Promise.all(
    wishes.map(async (wish) => {
      try {
        await app.reserve({ ...wish, config: {} }, { by: 'demo' });
      } catch (error) {
        // A wish that the seed's market cannot meet is no error: the reservation says so in the event list.
        if (!(error instanceof AppError)) logger?.error({ err: error }, 'the demo could not rent');
      }
    }),
  );
}

/** An address as it stands in a URL: IPv6 in brackets, "any" as loopback. */
function urlHost(host: string): string {
  if (host === '0.0.0.0' || host === '::') return '127.0.0.1';
  return host.includes(':') ? `[${host}]` : host;
}
