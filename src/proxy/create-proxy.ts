import { randomBytes } from 'node:crypto';
import type { IncomingMessage, RequestListener, Server, ServerResponse } from 'node:http';
import { createServer as createTlsServer } from 'node:https';
import type { AddressInfo, Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import type { TLSSocket, Server as TlsServer } from 'node:tls';
import { monotonicMs } from '../clock.ts';
import { type BalancerSettings, createBalancer } from '../core/balancer.ts';
import type { DirectoryEntry } from '../core/directory.ts';
import type { LoadTable } from '../core/load-table.ts';
import type { DataPlaneReport, Decision } from '../core/report.ts';
import { counted } from '../core/words.ts';
import { createServer, STATUS_CODES } from '../node-http.ts';
import { AccessLog } from './access-log.ts';
import { problem } from './answers.ts';
import { Exchange } from './exchange.ts';
import { Guard, type ProxyAuth, type Refused } from './guard.ts';
import { readRequestHeaders } from './headers.ts';
import { KeyLimits, type KeyTerms, tooManyOpen } from './key-limits.ts';
import { LateAnswers } from './late-answers.ts';
import { modelOfPath, modelsAnswer } from './models.ts';
import { OpenRequests } from './open-requests.ts';
import type { Plane } from './plane.ts';
import { ProxyResponse } from './proxy-response.ts';
import { Recorder } from './recorder.ts';
import { defaultProxySettings, type ProxySettings } from './settings.ts';
import { Upstreams } from './upstreams.ts';
import { WaitQueue } from './wait-queue.ts';

/** Who may send requests: everybody, or holders of a key whose SHA-256 (hex) is listed. */

export type ProxyOptions = Readonly<{
  table: LoadTable;
  directory: readonly DirectoryEntry[];
  host: string;
  /** 0 takes a free one. */
  port: number;
  settings?: Partial<ProxySettings>;
  balancer?: Partial<BalancerSettings>;
  auth?: ProxyAuth;
  /** Counts of keys with limits, shared by all threads; absent: of this thread alone. */
  keyLimits?: SharedArrayBuffer;
  /** Number of this data-plane thread; leases are booked under it. */
  thread?: number;
  /** Several threads listen on one port. */
  reusePort?: boolean;
  /** Called about four times a second while there is something to say. */
  report?: (report: DataPlaneReport) => void;
}>;

/** The data plane of one thread, listening. */
export interface RunningProxy {
  readonly host: string;
  readonly port: number;
  /** Requests that have begun and not ended. */
  readonly active: number;
  /** The last 1,000 picks of this thread, newest first; open ones too. */
  decisions(): Decision[];
  setDirectory(entries: readonly DirectoryEntry[]): void;
  setAuth(auth: ProxyAuth): void;
  /** Other settings from the next request on; those of the listener itself (limits of headers) stay. */
  reconfigure(settings: ProxySettings, balancer: Partial<BalancerSettings>): void;
  /** Takes no new connection, finishes what it has, and cuts what is left at the deadline. */
  drain(deadlineMs: number): Promise<void>;
  /** Cuts everything and closes. */
  close(): Promise<void>;
}

/** What a path cannot have: spaces and controls, a fragment, characters beyond one byte. */
const badTargetPattern = /[^\x21\x22\x24-\xff]/;
/** How often deadlines are looked after and the main thread is told what happened. */
const watchMs = 250;
/** The same where a deadline is shorter than … */
const hastyMs = 100;
const patientMs = 4_000;
const notableLagMs = 20;

/** Starts the data plane of one thread. Rejects with the error of `listen` (EADDRINUSE, EACCES …). */
export async function createProxy(options: ProxyOptions): Promise<RunningProxy> {
  // Changed in place by `reconfigure`: every part reads it when it needs it.
  const settings: ProxySettings = { ...defaultProxySettings, ...options.settings };
  const thread = options.thread ?? 0;
  const { table } = options;
  const balancer = createBalancer(table, options.balancer, { thread });
  const upstreams = new Upstreams(settings, table.capacity);
  const recorder = new Recorder(thread, openLog(settings));
  const queue = new WaitQueue(balancer, settings, monotonicMs);
  const plane: Plane = {
    settings,
    balancer,
    upstreams,
    queue,
    recorder,
    active: new OpenRequests(),
    late: new LateAnswers(),
    retrying: 0,
    draining: false,
    keyLimits: new KeyLimits(options.keyLimits ?? KeyLimits.buffer(), thread),
    now: monotonicMs,
  };
  const guard = new Guard(options.auth ?? { required: false, hashes: [] });
  const idPrefix = `${randomBytes(5).toString('hex')}-`;
  let idCounter = 0;
  const secure = settings.tls !== null;
  const epochOffsetMs = Date.now() - monotonicMs();
  // Loaded by those alone who trace.
  const tracer =
    settings.tracing === null ? null : new (await import('./tracer.ts')).Tracer(settings.tracing, epochOffsetMs);

  /** From a parsed request to an exchange under way; refusals that need no upstream are answered here. */
  function handle(req: IncomingMessage, res: ProxyResponse, upgrade: string | null): Exchange {
    const address = req.socket.remoteAddress ?? '';
    const headers = readRequestHeaders(req.rawHeaders, settings, {
      address,
      trusted: isLoopback(address),
      secure,
      oldHttp: req.httpVersionMinor === 0,
      httpVersion: req.httpVersion,
    });
    const id = headers.requestId ?? idPrefix + (idCounter++).toString(36);
    const exchange = new Exchange(plane, req, res, headers, id, upgrade, monotonicMs());
    if (tracer !== null) {
      exchange.trace = tracer.begin(headers.forward);
      if (exchange.trace !== null) headers.trace = exchange.trace.traceId;
    }
    res.exchange = exchange;
    plane.active.add(exchange);
    res.on('close', onResponseClose);
    if (headers.fault !== null) {
      const { status, code, detail } = headers.fault;
      // Where a body ends may be unclear now, so nothing more is read from this connection.
      exchange.refuse(status, code, detail, ['connection', 'close']);
      return exchange;
    }
    const target = exchange.target;
    if (target.charCodeAt(0) !== 0x2f || badTargetPattern.test(target)) {
      const detail = 'The request target must be a path; this is no proxy for other servers.';
      exchange.refuse(400, 'bad_target', detail, ['connection', 'close']);
      return exchange;
    }
    const admission = guard.admit(headers.key, address, exchange.startedAt);
    if ('refused' in admission) {
      refuseKey(exchange, admission);
      return exchange;
    }
    const { terms } = admission;
    if (terms !== null && terms.slot !== -1) {
      const waitMs = plane.keyLimits.admit(terms, exchange.startedAt);
      if (waitMs !== 0) {
        refuseUse(exchange, terms, waitMs);
        return exchange;
      }
      exchange.terms = terms;
    }
    // Added per request and not to all, because TRACE would echo it to the client.
    headers.forward.push('x-request-id', id);
    if (settings.upstreamApiKey !== null && exchange.method !== 'TRACE') {
      headers.forward.push('authorization', `Bearer ${settings.upstreamApiKey}`);
    }
    if (upstreams.knowsModels && exchange.method === 'GET' && target.startsWith('/v1/models')) {
      const answer = modelsAnswer(target, upstreams, table);
      if (answer !== null) {
        exchange.reply(answer, 'complete');
        return exchange;
      }
      exchange.start(modelOfPath(target));
      return exchange;
    }
    exchange.start(null);
    return exchange;
  }

  const listener = ((req: IncomingMessage, res: ProxyResponse) => {
    handle(req, res, null);
  }) as unknown as RequestListener;
  const serverOptions = {
    ServerResponse: ProxyResponse as unknown as typeof ServerResponse,
    maxHeaderSize: settings.maxHeaderBytes,
    headersTimeout: settings.headersTimeoutMs,
    // Uploads may take as long as they keep moving: the sweep watches that.
    requestTimeout: 0,
    keepAliveTimeout: settings.keepAliveTimeoutMs,
    connectionsCheckingInterval: Math.min(1_000, Math.max(100, settings.headersTimeoutMs / 4)),
    insecureHTTPParser: false,
    requireHostHeader: false, // checked with the other headers, which answers with a problem document
    optimizeEmptyRequests: true,
    noDelay: true,
    // Behind a request that is still to be answered, one that would change the protocol is answered as any other.
    shouldUpgradeCallback: (req: IncomingMessage) => answering(req.socket) === null && tunnelProtocol(req) !== null,
  };
  const server: Server =
    settings.tls === null
      ? createServer(serverOptions as Parameters<typeof createServer>[0] & object, listener)
      : (createTlsServer(
          {
            ...serverOptions,
            ...settings.tls,
            minVersion: 'TLSv1.2',
            ALPNProtocols: ['http/1.1'],
            handshakeTimeout: settings.headersTimeoutMs,
          } as object,
          listener,
        ) as unknown as Server);
  server.maxHeadersCount = 0; // counted by ourselves: node would silently drop what is over the limit
  server.maxConnections = settings.maxConnections;
  server.timeout = 0;
  /** Those that speak HTTP. */
  const connections = new Set<Socket>();
  server.on(secure ? 'secureConnection' : 'connection', (socket: Socket) => {
    connections.add(socket);
    socket.once('close', () => connections.delete(socket));
  });
  // Node's own, which its `close` calls too, cuts answers that have ended but that their clients have not taken yet.
  server.closeIdleConnections = () => {
    for (const socket of connections) {
      if (answering(socket) === null && socket.writableLength === 0) socket.destroy();
    }
  };
  const unsent = () => {
    for (const socket of connections) if (socket.writableLength > 0) return true;
    return false;
  };

  server.on('checkContinue', (req: IncomingMessage, res: ServerResponse) => {
    const response = res as unknown as ProxyResponse;
    response.expectsContinue = true;
    handle(req, response, null);
  });
  /** The answer to a request that is not even looked at, counted and logged. */
  function unreadAnswer(
    socket: Socket,
    status: number,
    cause: string,
    detail: string,
  ): { flat: string[]; body: string } {
    const id = idPrefix + (idCounter++).toString(36);
    const { headers, body } = problem(status, cause, detail);
    recorder.unread(id, status, cause, body.length, socket.remoteAddress ?? null);
    const length = String(Buffer.byteLength(body));
    return { flat: [...headers, 'content-length', length, 'x-request-id', id, 'connection', 'close'], body };
  }
  /** For requests that never became one: there is no response object to answer with. */
  function refuseUnread(socket: Socket, status: number, cause: string, detail: string): void {
    const { flat, body } = unreadAnswer(socket, status, cause, detail);
    let head = `HTTP/1.1 ${status} ${STATUS_CODES[status]}\r\n`;
    for (let i = 0; i < flat.length; i += 2) head += `${flat[i]}: ${flat[i + 1]}\r\n`;
    socket.end(`${head}\r\n${body}`);
    socket.destroySoon();
  }

  server.on('checkExpectation', ({ socket }: IncomingMessage, res: ServerResponse) => {
    const detail = 'Of the expectations only 100-continue is understood.';
    const { flat, body } = unreadAnswer(socket, 417, 'bad_expectation', detail);
    res.writeHead(417, flat);
    res.end(body);
  });
  server.on('connect', ({ socket }: IncomingMessage) => {
    // Node has let go of it.
    socket.on('error', () => socket.destroy());
    if (answering(socket) !== null) socket.destroy();
    else refuseUnread(socket, 405, 'method_not_allowed', 'This is no proxy for other servers.');
  });
  server.on('upgrade', (req: IncomingMessage, duplex: Duplex, head: Buffer) => {
    const socket = duplex as Socket;
    connections.delete(socket);
    const res = new ProxyResponse(req);
    res.shouldKeepAlive = false;
    res.assignSocket(socket);
    res.on('finish', () => socket.destroySoon());
    socket.on('error', () => socket.destroy());
    const early: Buffer[] = head.length > 0 ? [head] : [];
    let earlyBytes = head.length;
    // Read on before the upstream has agreed, or a client that leaves would not be noticed.
    socket.on('data', (chunk: Buffer) => {
      early.push(chunk);
      earlyBytes += chunk.length;
      if (earlyBytes > 65_536) socket.destroy();
    });
    socket.on('end', () => socket.destroy());
    const exchange = handle(req, res, tunnelProtocol(req));
    exchange.early = early;
  });
  server.on('clientError', (error: NodeJS.ErrnoException, duplex: Duplex) => {
    const socket = duplex as Socket;
    const current = answering(socket);
    if (!socket.writable || error.code === 'ECONNRESET') {
      socket.destroy();
      return;
    }
    if (current?.req.complete === true) {
      // What cannot be read came behind a request that has nothing to do with it.
      current.endConnection();
      return;
    }
    if (current?.headersSent === true) {
      socket.destroy();
      return;
    }
    if (error.code === 'HPE_HEADER_OVERFLOW') {
      refuseUnread(socket, 431, 'headers_too_large', 'Request line and headers are too large.');
    } else if (error.code === 'ERR_HTTP_REQUEST_TIMEOUT') {
      refuseUnread(socket, 408, 'request_timeout', 'The request headers did not arrive in time.');
    } else refuseUnread(socket, 400, 'malformed', 'The request is not well-formed HTTP/1.1.');
  });
  server.on('tlsClientError', (_error: Error, socket: TLSSocket) => socket.destroy());

  applyDirectory(options.directory);
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(
      { host: options.host, port: options.port, reusePort: options.reusePort === true, backlog: 4096 },
      () => {
        server.off('error', reject);
        resolve();
      },
    );
  }).catch(async (error: unknown) => {
    await recorder.log?.close();
    throw error;
  });
  server.on('error', () => {}); // accept errors (EMFILE): node goes on accepting when it can

  let loopLagMs = 0;
  let reported = '';
  const sendReport = () => {
    const lagMs = Math.round(loopLagMs);
    loopLagMs = 0;
    // A lag that was told is taken back by a further report, also when nothing else happens.
    const isLate = lagMs > notableLagMs;
    const state = `${recorder.requests} ${queue.size} ${recorder.upgrades} ${isLate} ${tracer?.exported} ${tracer?.dropped} ${recorder.log?.fault}`;
    if (state === reported) return;
    reported = state;
    options.report?.({ ...recorder.report(queue.size, lagMs, tracer), keysUsed: guard.takeUsed() });
  };

  /** One timer for all that is looked after: each wake-up of a thread that has nothing to do costs it 0.1 ms. */
  function watch(): void {
    const { connectTimeoutMs, firstByteTimeoutMs, idleTimeoutMs, totalTimeoutMs, queueTimeoutMs } = settings;
    const deadlines = [
      connectTimeoutMs,
      firstByteTimeoutMs,
      idleTimeoutMs,
      totalTimeoutMs || idleTimeoutMs,
      queueTimeoutMs,
    ];
    const everyMs = Math.min(...deadlines) < patientMs ? hastyMs : watchMs;
    const from = monotonicMs();
    watcher = setTimeout(() => {
      const now = monotonicMs();
      loopLagMs = Math.max(loopLagMs, now - from - everyMs);
      queue.expire(now);
      plane.active.visit((exchange) => exchange.sweep(now));
      if (options.report !== undefined && now - reportedAt >= watchMs * 0.9) {
        reportedAt = now;
        sendReport();
      }
      watch();
    }, everyMs);
  }
  let reportedAt = monotonicMs();
  let watcher: NodeJS.Timeout;
  watch();

  function idOf(row: number, generation: number): string | null {
    return upstreams.get(row, generation)?.entry.id ?? null;
  }

  function applyDirectory(entries: readonly DirectoryEntry[]): void {
    for (const gone of upstreams.update(entries)) {
      plane.active.visit((exchange) => {
        const attempt = exchange.attempt;
        if (attempt !== null && !attempt.over && attempt.upstream.pool === gone.pool) exchange.cut('drained');
      });
      gone.pool.destroy();
    }
    // Those who wait hold masks of the old directory.
    plane.active.visit((exchange) => exchange.directoryChanged());
    queue.directoryChanged();
    queue.wake();
  }

  let closing: Promise<void> | null = null;
  function close(): Promise<void> {
    closing ??= (async () => {
      plane.draining = true;
      const closed = new Promise<void>((resolve) => server.close(() => resolve()));
      plane.active.visit((exchange) => exchange.cut('drained'));
      server.closeAllConnections();
      plane.active.visit((exchange) => {
        exchange.socket.destroy();
        exchange.closed();
      });
      await closed;
      clearTimeout(watcher);
      queue.close();
      if (options.report !== undefined) sendReport();
      upstreams.destroy();
      await tracer?.close();
      await recorder.log?.close();
    })();
    return closing;
  }

  const bound = server.address() as AddressInfo;
  return {
    host: options.host,
    port: bound.port,
    get active() {
      return plane.active.size;
    },
    decisions: () => balancer.trace.recent(balancer.trace.capacity, idOf, epochOffsetMs),
    setDirectory: applyDirectory,
    setAuth: (auth) => guard.set(auth),
    reconfigure(next, balancerSettings) {
      Object.assign(settings, next);
      balancer.configure(balancerSettings);
      server.maxConnections = next.maxConnections;
      if (next.tls !== null && 'setSecureContext' in server)
        (server as unknown as TlsServer).setSecureContext(next.tls);
      // Opened anew also under the same name, which may have been moved away.
      const log = recorder.log;
      try {
        recorder.log = openLog(next);
        void log?.close();
      } catch (error) {
        if (log !== null) log.fault = (error as Error).message;
      }
      queue.wake();
    },
    async drain(deadlineMs) {
      plane.draining = true;
      server.close();
      server.closeIdleConnections();
      const deadline = monotonicMs() + deadlineMs;
      while ((plane.active.size > 0 || unsent()) && monotonicMs() < deadline) {
        await new Promise((resolve) => setTimeout(resolve, 25));
        server.closeIdleConnections();
      }
      await close();
    },
    close,
  };
}

function refuseKey(exchange: Exchange, refusal: Refused): void {
  if (refusal.refused === 'locked') {
    const detail = 'Too many wrong keys came from this address.';
    exchange.refuse(429, 'rate_limited', detail, ['retry-after', String(Math.ceil(refusal.waitMs / 1000))]);
    return;
  }
  const isMissing = refusal.refused === 'missing';
  const detail = isMissing ? 'A key is needed: X-API-Key or Authorization: Bearer.' : 'The key is not known.';
  exchange.refuse(401, 'unauthorized', detail, ['www-authenticate', 'Bearer realm="gpuproxy"']);
}

function refuseUse(exchange: Exchange, terms: KeyTerms, waitMs: number): void {
  if (waitMs === tooManyOpen) {
    const detail = `The key has ${counted(terms.maxConcurrent ?? 0, 'request')} open, its limit.`;
    exchange.refuse(429, 'rate_limited', detail, ['retry-after', '1']);
    return;
  }
  const seconds = Math.max(1, Math.ceil(waitMs / 1000));
  exchange.refuse(
    429,
    'rate_limited',
    `The key may make ${counted(terms.requestsPerMinute ?? 0, 'request')} a minute.`,
    [
      ...['retry-after', String(seconds)],
      ...['ratelimit-policy', `"key";q=${terms.requestsPerMinute};w=60`, 'ratelimit', `"key";r=0;t=${seconds}`],
    ],
  );
}

function openLog({ accessLog }: ProxySettings): AccessLog | null {
  return accessLog === 'off' ? null : new AccessLog(accessLog);
}

function onResponseClose(this: ServerResponse): void {
  (this as unknown as ProxyResponse).exchange?.closed();
}

/** The response that has the connection now. */
function answering(socket: Socket): ProxyResponse | null {
  return (socket as Socket & { _httpMessage?: ProxyResponse | null })._httpMessage ?? null;
}

function isLoopback(address: string): boolean {
  return address.startsWith('127.') || address === '::1' || address.startsWith('::ffff:127.');
}

/**
 * The protocol to tunnel, or null for an ordinary request. h2c is not tunnelled: it would carry requests past every rule
 * of this proxy; the request is then answered as HTTP/1.1, as the sender must expect.
 */
function tunnelProtocol(req: IncomingMessage): string | null {
  const protocol = req.headers.upgrade?.trim();
  if (protocol === undefined || protocol === '' || req.method !== 'GET') return null;
  if (/\b(?:h2c?|HTTP\/|TLS\/)/i.test(protocol)) return null;
  if (req.headers['content-length'] !== undefined || req.headers['transfer-encoding'] !== undefined) return null;
  return protocol;
}
