import { createServer } from 'node:net';
import { Worker } from 'node:worker_threads';
import { healthSettingsOf } from '../config.ts';
import type { Decision } from '../core/report.ts';
import type { Keys, LocalApp } from '../fleet/app.ts';
import type { ProxyAuth } from './guard.ts';
import { KeyLimits, type KeyTerms, limitedKeys } from './key-limits.ts';
import { type ProxySettings, type ProxyVariables, proxySettingsFrom } from './settings.ts';
import type { FromWorker, ToWorker, WorkerStart } from './worker-messages.ts';

/** The variables the data plane reads; the program's `Config` has them all. */
export type DataPlaneVariables = ProxyVariables &
  Readonly<{
    GPUPROXY_HOST: string;
    GPUPROXY_PROXY_PORT: number;
    PROXY_AUTH: 'auto' | 'required';
    EJECT_AFTER_FAILURES: number;
    EJECT_BASE_SECONDS: number;
    EJECT_MAX_SECONDS: number;
    MAX_EJECTED_FRACTION: number;
    SLOW_START_SECONDS: number;
  }>;

export type DataPlaneOptions = Readonly<{
  app: LocalApp['dataPlane'];
  keys: Pick<Keys, 'proxyHashes' | 'onChange'> & Partial<Pick<Keys, 'proxyTerms' | 'used'>>;
  config: DataPlaneVariables;
  /** PEM texts; null: plain HTTP. */
  tls: ProxySettings['tls'];
  /** Worker threads, 1 to 63. */
  threads: number;
  /** Over what `config` says. */
  settings?: Partial<ProxySettings>;
}>;

export interface RunningDataPlane {
  readonly host: string;
  readonly port: number;
  readonly threads: number;
  /** Takes nothing new, finishes what it has, cuts what is left at the deadline; then all is closed. */
  drain(deadlineMs: number): Promise<void>;
  close(): Promise<void>;
  /** Kills one thread as a crash would, to see that it is replaced. */
  crash(thread: number): void;
  /**
   * Takes up other variables and PEM texts while requests are open. Address, port and the number of threads stay.
   */
  reconfigure(config: DataPlaneVariables, tls: ProxySettings['tls']): void;
}

/** The listener cannot be opened. `code` is that of the system: EADDRINUSE, EACCES, EADDRNOTAVAIL … */
export class ListenError extends Error {
  override readonly name = 'ListenError';
  readonly code: string;
  constructor(code: string, host: string, port: number, detail: string) {
    super(`data plane: cannot listen on ${host}:${port} (${code === 'EADDRINUSE' ? 'the port is in use' : detail})`);
    this.code = code;
  }
}

const answerMs = 1_000;
const restartMs = 250;
const maxRestartMs = 10_000;

/**
 * Runs the data plane on worker threads that share one port and one load table. A worker that dies is replaced, and the
 * leases it held are given back. Rejects with `ListenError`.
 */
export async function startDataPlane(options: DataPlaneOptions): Promise<RunningDataPlane> {
  const { app, keys } = options;
  let { config } = options;
  const threads = Math.max(1, Math.min(63, options.threads));
  const host = config.GPUPROXY_HOST;
  const settingsOf = (variables: DataPlaneVariables, tls: ProxySettings['tls']): ProxySettings => {
    const configured = proxySettingsFrom(variables, tls);
    return {
      ...configured,
      // The limits of the process are shared out, rounded up so that nobody has none.
      queueLimit: Math.ceil(configured.queueLimit / threads),
      ...options.settings,
    };
  };
  let settings = settingsOf(config, options.tls);
  let balancer = healthSettingsOf(config);
  const keyLimits = KeyLimits.buffer();
  const slots = new KeySlots(new KeyLimits(keyLimits, 0));
  const auth = (): ProxyAuth => ({
    required: config.PROXY_AUTH === 'required' || !isLoopbackHost(host),
    hashes: keys.proxyHashes(),
    terms: slots.assign(keys.proxyTerms?.() ?? []),
  });
  let port = config.GPUPROXY_PROXY_PORT;
  const workers: (Worker | null)[] = Array.from({ length: threads }, () => null);
  let stopping = false;
  const timers = new Set<NodeJS.Timeout>();

  // With reusePort a second program could join the port unnoticed, so the first look is without it.
  if (threads > 1 && port !== 0) await probePort(host, port);

  /** Starts the worker of one thread; resolves when it listens. */
  function launch(thread: number, restarts: number): Promise<number> {
    const start: WorkerStart = {
      buffer: app.table.buffer,
      thread: thread + 1,
      host,
      port,
      reusePort: threads > 1,
      settings,
      balancer,
      auth: auth(),
      keyLimits,
      directory: app.directory(),
    };
    const worker = new Worker(workerUrl(), {
      workerData: start,
      name: `proxy-${thread}`,
      // Requests live shorter than the default young generation lasts at full load; a larger one copies less.
      resourceLimits: { maxYoungGenerationSizeMb: 64 },
    });
    workers[thread] = worker;
    let listening = false;
    const listens = new Promise<number>((resolve, reject) => {
      worker.on('message', (message: FromWorker) => {
        if (message.type === 'report') {
          keys.used?.(message.report.keysUsed ?? []);
          app.report(message.report);
        } else if (message.type === 'decisions') answered.get(message.number)?.(message.decisions);
        else if (message.type === 'listening') {
          listening = true;
          resolve(message.port);
        } else if (message.type === 'failed') reject(new ListenError(message.code, host, port, message.message));
      });
      worker.on('error', (error: Error) => reject(error));
      worker.on('exit', (code) => {
        workers[thread] = null;
        reject(new Error(`data plane: thread ${thread} ended with code ${code}`));
        app.table.releaseThread(thread + 1);
        slots.limits.releaseThread(thread + 1);
        if (stopping || (!listening && restarts === 0)) return;
        const delay = Math.min(maxRestartMs, restartMs * 2 ** (listening ? 0 : restarts));
        const timer = setTimeout(() => {
          timers.delete(timer);
          if (!stopping) launch(thread, listening ? 1 : restarts + 1).catch(() => {});
        }, delay);
        timers.add(timer);
      });
    });
    return listens;
  }

  /** Who waits for the decisions of a thread, by the number of the question. */
  const answered = new Map<number, (decisions: readonly Decision[]) => void>();
  let questions = 0;
  /** A thread that is too busy to answer in time is left out. */
  const askThread = (worker: Worker) =>
    new Promise<readonly Decision[]>((resolve) => {
      const number = questions++;
      const done = (decisions: readonly Decision[]) => {
        clearTimeout(timer);
        answered.delete(number);
        resolve(decisions);
      };
      const timer = setTimeout(done, answerMs, []);
      answered.set(number, done);
      worker.postMessage({ type: 'decisions', number } satisfies ToWorker);
    });
  const decisions = async (): Promise<readonly Decision[]> => {
    const all = await Promise.all(workers.filter((worker) => worker !== null).map(askThread));
    return all.flat().sort((a, b) => b.at - a.at);
  };

  const stopListening: (() => void)[] = [];
  const tellAll = (message: ToWorker) => {
    for (const worker of workers) worker?.postMessage(message);
  };

  async function stop(message: ToWorker, graceMs: number): Promise<void> {
    stopping = true;
    for (const unsubscribe of stopListening.splice(0)) unsubscribe();
    for (const timer of timers) clearTimeout(timer);
    await Promise.all(
      workers.map(async (worker) => {
        if (worker === null) return;
        const exited = new Promise<void>((resolve) => worker.once('exit', () => resolve()));
        worker.postMessage(message);
        const timer = setTimeout(() => void worker.terminate(), graceMs);
        await exited;
        clearTimeout(timer);
      }),
    );
  }

  try {
    port = await launch(0, 0);
    await Promise.all(Array.from({ length: threads - 1 }, (_, i) => launch(i + 1, 0)));
  } catch (error) {
    await stop({ type: 'close' }, 1_000);
    throw error;
  }
  app.traceFrom?.(decisions);
  stopListening.push(app.onDirectory((entries) => tellAll({ type: 'directory', entries })));
  stopListening.push(keys.onChange(() => tellAll({ type: 'auth', auth: auth() })));
  // Changes while the workers were starting.
  tellAll({ type: 'directory', entries: app.directory() });

  return {
    host,
    port,
    threads,
    drain: (deadlineMs) => stop({ type: 'drain', deadlineMs }, deadlineMs + 2_000),
    close: () => stop({ type: 'close' }, 2_000),
    reconfigure(next, tls) {
      config = next;
      settings = settingsOf(next, tls);
      balancer = healthSettingsOf(next);
      tellAll({ type: 'settings', settings, balancer });
      tellAll({ type: 'auth', auth: auth() });
    },
    crash: (thread) => void workers[thread]?.terminate(),
  };
}

/** Gives keys with limits their places in the shared counts, and gives the places of keys that are no more to others. */
class KeySlots {
  readonly limits: KeyLimits;
  readonly #slots = new Map<string, number>();

  constructor(limits: KeyLimits) {
    this.limits = limits;
  }

  /** Throws RangeError when more keys have limits than can be counted. */
  assign(terms: ReturnType<Keys['proxyTerms']>): KeyTerms[] {
    const limited = new Set(terms.filter(isLimited).map((one) => one.hash));
    for (const [hash, slot] of this.#slots) {
      if (!limited.has(hash) && this.limits.free(slot)) this.#slots.delete(hash);
    }
    return terms.map((one) => ({ ...one, slot: isLimited(one) ? this.#slotOf(one.hash) : -1 }));
  }

  #slotOf(hash: string): number {
    const known = this.#slots.get(hash);
    if (known !== undefined) return known;
    const taken = new Set(this.#slots.values());
    let slot = 0;
    while (taken.has(slot)) slot++;
    if (slot >= limitedKeys) throw new RangeError(`more than ${limitedKeys} keys have limits`);
    this.#slots.set(hash, slot);
    return slot;
  }
}

function isLimited(terms: Pick<KeyTerms, 'requestsPerMinute' | 'maxConcurrent'>): boolean {
  return terms.requestsPerMinute !== null || terms.maxConcurrent !== null;
}

/** Beside the bundle the worker is `proxy-worker.js`; run from source it is the file next to this one. */
function workerUrl(): URL {
  return new URL(import.meta.url.endsWith('.ts') ? './worker.ts' : './proxy-worker.js', import.meta.url);
}

function probePort(host: string, port: number): Promise<void> {
  return new Promise((resolve, reject) => {
    const probe = createServer();
    probe.once('error', (error: NodeJS.ErrnoException) =>
      reject(new ListenError(error.code ?? 'ERROR', host, port, error.message)),
    );
    probe.listen({ host, port }, () => probe.close(() => resolve()));
  });
}

function isLoopbackHost(host: string): boolean {
  return host === 'localhost' || host === '::1' || host.startsWith('127.');
}
