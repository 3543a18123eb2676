import { createServer, type IncomingMessage, type RequestListener, type Server, type ServerResponse } from 'node:http';
import { createServer as createSecureServer } from 'node:https';
import { type AddressInfo, connect, type Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { monotonicMs } from '../../src/clock.ts';
import { type BalancerSettings, createBalancer } from '../../src/core/balancer.ts';
import type { DirectoryEntry } from '../../src/core/directory.ts';
import type { Ending, StrategyName } from '../../src/core/domain.ts';
import { LoadTable, type RowRef } from '../../src/core/load-table.ts';
import type { DataPlaneReport, FinishedRequest } from '../../src/core/report.ts';
import { createProxy, type RunningProxy } from '../../src/proxy/create-proxy.ts';
import type { ProxyAuth } from '../../src/proxy/guard.ts';
import type { ProxySettings } from '../../src/proxy/settings.ts';

/** A real upstream server on a free port. */
export type Backend = Readonly<{
  server: Server;
  origin: string;
  port: number;
  sockets: Set<Socket>;
  close(): Promise<void>;
}>;

export async function startBackend(
  listener: RequestListener,
  prepare?: (server: Server) => void,
  tls: UpstreamOptions['tls'] = null,
): Promise<Backend> {
  const server =
    tls === null
      ? createServer({ keepAliveTimeout: 60_000 }, listener)
      : createSecureServer({ keepAliveTimeout: 60_000, ...tls }, listener);
  prepare?.(server);
  const sockets = new Set<Socket>();
  server.on('connection', (socket) => {
    sockets.add(socket);
    socket.on('error', () => {});
    socket.on('close', () => sockets.delete(socket));
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  return {
    server,
    port,
    origin: `${tls === null ? 'http' : 'https'}://127.0.0.1:${port}`,
    sockets,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
        for (const socket of sockets) socket.destroy();
      }),
  };
}

export type UpstreamOptions = Readonly<{
  models?: readonly string[] | null;
  ceiling?: number;
  weight?: number;
  running?: boolean;
  /** It speaks TLS. */
  tls?: Readonly<{ cert: string; key: string }> | null;
}>;

export type RigOptions = Readonly<{
  settings?: Partial<ProxySettings>;
  balancer?: Partial<BalancerSettings>;
  auth?: ProxyAuth;
  strategy?: StrategyName;
}>;

/** A load table, upstreams that were probed, and a proxy in front of them. Everything it starts ends with `close`. */
export class Rig {
  readonly table: LoadTable;
  readonly proxy: RunningProxy;
  readonly reports: DataPlaneReport[] = [];
  readonly refs = new Map<string, RowRef>();
  readonly entries: DirectoryEntry[] = [];
  readonly #balancer;
  readonly #backends: Backend[] = [];

  private constructor(table: LoadTable, proxy: RunningProxy, reports: DataPlaneReport[], options: RigOptions) {
    this.table = table;
    this.proxy = proxy;
    this.reports = reports;
    this.#balancer = createBalancer(
      new LoadTable(table.buffer),
      { slowStartMs: 0, ...options.balancer },
      { thread: 63 },
    );
  }

  static async start(options: RigOptions = {}): Promise<Rig> {
    const table = LoadTable.create(64);
    table.strategy = options.strategy ?? 'round_robin';
    const reports: DataPlaneReport[] = [];
    const proxy = await createProxy({
      table,
      directory: [],
      host: '127.0.0.1',
      port: 0,
      thread: 1,
      settings: options.settings ?? {},
      balancer: { slowStartMs: 0, ...options.balancer },
      ...(options.auth === undefined ? {} : { auth: options.auth }),
      report: (report) => reports.push(report),
    });
    return new Rig(table, proxy, reports, options);
  }

  /** Starts a server and lets it join as `id`. */
  async backend(id: string, listener: RequestListener, options: UpstreamOptions = {}): Promise<Backend> {
    const backend = await startBackend(listener, undefined, options.tls);
    this.#backends.push(backend);
    this.join(id, backend.origin, options);
    return backend;
  }

  join(id: string, origin: string, options: UpstreamOptions = {}): RowRef {
    const now = monotonicMs();
    const ref = this.table.join({ weight: options.weight ?? 1, ceiling: options.ceiling ?? 0, now });
    if (options.running !== false) {
      this.table.setRunning(ref, true, now);
      this.#balancer.probed(ref, true, now, '');
    }
    this.refs.set(id, ref);
    this.entries.push({ ...ref, id, provider: 'static', origin, models: options.models ?? null });
    this.proxy.setDirectory([...this.entries]);
    return ref;
  }

  leave(id: string): void {
    const ref = this.refs.get(id);
    if (ref === undefined) throw new Error(`no upstream ${id}`);
    this.refs.delete(id);
    this.entries.splice(
      this.entries.findIndex((entry) => entry.id === id),
      1,
    );
    this.proxy.setDirectory([...this.entries]);
    this.table.leave(ref);
  }

  /** The data plane of another thread over the same table, as far as one process can have it. Closes with the rig. */
  async otherThread(
    settings: Partial<ProxySettings> = {},
    balancer: Partial<BalancerSettings> = {},
  ): Promise<RunningProxy> {
    const proxy = await createProxy({
      table: new LoadTable(this.table.buffer),
      directory: this.entries,
      host: '127.0.0.1',
      port: 0,
      thread: 2 + this.#others.length,
      balancer: { slowStartMs: 0, ...balancer },
      settings,
    });
    this.#others.push(proxy);
    return proxy;
  }
  readonly #others: RunningProxy[] = [];

  get url(): string {
    return `http://127.0.0.1:${this.proxy.port}`;
  }

  active(id: string): number {
    return this.table.read(this.refs.get(id)!)?.active ?? 0;
  }

  endings(id: string): Partial<Record<Ending, number>> {
    const endings = this.table.read(this.refs.get(id)!)?.endings ?? ({} as Record<Ending, number>);
    return Object.fromEntries(Object.entries(endings).filter(([, count]) => count > 0));
  }

  /** Finished requests reported so far, oldest first. */
  get requests(): FinishedRequest[] {
    return this.reports.flatMap((report) => report.requests);
  }

  /** Waits until `count` finished requests were reported. */
  async reported(count: number): Promise<FinishedRequest[]> {
    await until(() => this.requests.length >= count);
    return this.requests;
  }

  async close(): Promise<void> {
    await Promise.all([this.proxy, ...this.#others].map((proxy) => proxy.close()));
    await Promise.all(this.#backends.map((backend) => backend.close()));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}

/** Polls until `check` holds; fails after ten seconds, which no machine is too busy for. */
export async function until(check: () => boolean, deadlineMs = 10_000): Promise<void> {
  const deadline = Date.now() + deadlineMs;
  while (!check()) {
    if (Date.now() > deadline) throw new Error(`not within ${deadlineMs} ms: ${check.toString()}`);
    await sleep(5);
  }
}

/** A client that speaks bytes. */
export class RawClient {
  readonly socket: Socket;
  received = '';
  closed = false;
  error: Error | null = null;

  constructor(port: number) {
    this.socket = connect(port, '127.0.0.1');
    this.socket.on('data', (chunk) => {
      this.received += chunk.toString('latin1');
    });
    this.socket.on('error', (error) => {
      this.error = error;
    });
    this.socket.on('close', () => {
      this.closed = true;
    });
  }

  send(text: string): this {
    this.socket.write(text, 'latin1');
    return this;
  }

  async until(pattern: RegExp): Promise<string> {
    await until(() => pattern.test(this.received) || this.closed);
    if (!pattern.test(this.received)) throw new Error(`closed before ${pattern}: ${JSON.stringify(this.received)}`);
    return this.received;
  }
}

export async function readAll(req: IncomingMessage): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for await (const chunk of req) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks);
}

/** Answers with what it was sent. */
export const echo: RequestListener = async (req: IncomingMessage, res: ServerResponse) => {
  const body = await readAll(req);
  const text = JSON.stringify({
    method: req.method,
    url: req.url,
    headers: req.headers,
    raw: req.rawHeaders,
    body: body.toString('latin1'),
  });
  res.writeHead(200, { 'content-type': 'application/json', 'content-length': Buffer.byteLength(text) });
  res.end(text);
};

export type Echo = { method: string; url: string; headers: Record<string, string>; raw: string[]; body: string };
export { sleep };
