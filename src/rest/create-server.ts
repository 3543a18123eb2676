import { randomUUID } from 'node:crypto';
import type { IncomingMessage, RequestListener, Server } from 'node:http';
import { createServer as createSecureServer } from 'node:https';
import type { AddressInfo, Socket } from 'node:net';
import { Server as SecureServer } from 'node:tls';
import Fastify, { type FastifyReply, type FastifyRequest } from 'fastify';
import { monotonicMs } from '../clock.ts';
import type { KeyView, LocalApp } from '../fleet/app.ts';
import { createServer, STATUS_CODES } from '../node-http.ts';
import { docsPage } from './docs-page.ts';
import { createEventStream, type EventStream, eventStreamType } from './event-stream.ts';
import { createGate } from './gate.ts';
import { createMetrics } from './metrics.ts';
import { nearestPath } from './nearest-path.ts';
import { describeApi } from './openapi.ts';
import type { Answer, Context, Operation } from './operation.ts';
import { operations } from './operations/index.ts';
import { ProblemError, toProblem } from './problem.ts';

export type RestServerOptions = Readonly<{
  app: LocalApp;
  host: string;
  /** 0 takes a free one. */
  port: number;
  /** PEM texts; null or absent serves plain HTTP. */
  tls?: Readonly<{ cert: string; key: string }> | null;
  /** False while the data plane drains: readiness then says no. */
  accepting?: () => boolean;
  /** Of the program. */
  version?: string;
  /** pino fits. Gets bugs and their stacks, never a key or a body. */
  logger?: Readonly<{ error(fields: object, message: string): void }>;
  limits?: Partial<RestLimits>;
}>;

/** Bounds of what a client may send and how slowly. */
export type RestLimits = Readonly<{
  bodyBytes: number;
  headerBytes: number;
  /** Until the headers are complete. */
  headersMs: number;
  /** Until the whole request has arrived. */
  requestMs: number;
  connections: number;
  /** Open event streams. */
  streams: number;
  /** Between two comments on an event stream. */
  keepAliveMs: number;
  /** How long `close` waits for answers that are under way. */
  closeMs: number;
}>;

export const defaultRestLimits: RestLimits = {
  bodyBytes: 256 * 1024,
  headerBytes: 16 * 1024,
  headersMs: 10_000,
  requestMs: 30_000,
  connections: 1024,
  streams: 64,
  keepAliveMs: 15_000,
  closeMs: 5_000,
};

export type RestServer = Readonly<{
  port: number;
  url: string;
  /** Another certificate for connections from now on; only where TLS is on already. */
  setTls(tls: Readonly<{ cert: string; key: string }>): void;
  close(): Promise<void>;
}>;

/** Starts the control plane. Rejects when the address is in use or may not be bound. */
export async function createRestServer(options: RestServerOptions): Promise<RestServer> {
  const { app, host, tls = null, logger, version = 'unknown', accepting = () => true } = options;
  const limits = { ...defaultRestLimits, ...options.limits };
  const gate = createGate(app.keys, monotonicMs);
  const streams = new Map<EventStream, KeyView | undefined>();
  const metrics = createMetrics(app, () => streams.size);
  const context: Context = { app, now: Date.now, metrics, version, accepting };

  const server = Fastify({
    logger: false,
    bodyLimit: limits.bodyBytes,
    forceCloseConnections: false,
    return503OnClosing: false,
    exposeHeadRoutes: false,
    genReqId: requestId,
    requestIdHeader: false,
    routerOptions: { ignoreTrailingSlash: true, maxParamLength: 512, querystringParser: parseQuery },
    serverFactory: (handler) => createListener(handler, tls, limits),
    frameworkErrors: (error, request, reply) => {
      reply.header('x-request-id', request.id);
      sendProblem(reply, toProblem(error, limits.bodyBytes), request.method);
    },
    clientErrorHandler: (error, socket) => refuseConnection(error, socket, limits),
  });
  server.server.maxConnections = limits.connections;

  server.removeAllContentTypeParsers();
  server.addContentTypeParser('application/json', { parseAs: 'buffer' }, (_request, body, done) => {
    try {
      done(null, parseJson(body as Buffer));
    } catch (error) {
      done(error as Error);
    }
  });

  server.addHook('onRequest', async (request, reply) => {
    reply.headers({ ...securityHeaders, 'x-request-id': request.id });
    if (request.headers.host === undefined && request.raw.httpVersion === '1.1') {
      throw new ProblemError('bad_request', 'Host is missing.', { headers: { connection: 'close' } });
    }
    const { expect } = request.headers;
    if (expect !== undefined && !/^100-continue$/i.test(expect)) {
      throw new ProblemError('expectation_failed', 'Expect: accepts 100-continue.', {
        headers: { connection: 'close' },
      });
    }
    // Before Fastify looks at a body that nothing here would take.
    if (request.is404) return refusePath(request, reply);
    if (request.headers['content-encoding'] !== undefined) {
      throw new ProblemError('unsupported_media_type', 'Content-Encoding: accepts none.');
    }
  });

  for (const operation of operations) {
    const url = (operation.root ? operation.path : `/api/v1${operation.path}`).replace(/\{(\w+)\}/g, ':$1');
    server.route({
      method: operation.method === 'GET' ? ['GET', 'HEAD'] : operation.method,
      url,
      onRequest: async (request, reply) => {
        const startedAt = monotonicMs();
        reply.raw.once('close', () => {
          const isStream = reply.raw.getHeader('content-type') === eventStreamType;
          metrics.observe(operation.id, reply.raw.statusCode, isStream ? null : (monotonicMs() - startedAt) / 1000);
        });
        const { access } = operation;
        if (access === 'public' || (access === 'local' && isLocal(request))) return;
        const needed = access === 'local' ? 'read' : access;
        const admission = gate.admit({ headers: request.headers, address: request.ip, access: needed });
        reply.raw.once('close', admission.release);
        // Gone already: its close was told before anybody listened.
        if (reply.raw.closed) admission.release();
        reply.headers(admission.headers);
        callers.set(request.raw, admission.key);
      },
      handler: (request, reply) => answer(operation, request, reply),
    });
  }

  let description: string | null = null;
  const page = docsPage();
  server.route({
    method: ['GET', 'HEAD'],
    url: '/api/v1/openapi.json',
    handler: (_request, reply) => {
      description ??= JSON.stringify(describeApi(operations, app.state.get().mode.proxyUrl));
      return reply.type('application/json; charset=utf-8').send(description);
    },
  });
  server.route({
    method: ['GET', 'HEAD'],
    url: '/api/v1/docs',
    handler: (_request, reply) =>
      reply
        .header('content-security-policy', page.contentSecurityPolicy)
        .type('text/html; charset=utf-8')
        .send(page.html),
  });

  const known = knownPaths(operations);
  /** 404, or 405 where the path exists; OPTIONS learns what does. */
  function refusePath(request: FastifyRequest, reply: FastifyReply): FastifyReply {
    const path = request.url.split('?', 1)[0]!.replace(/(.)\/$/, '$1');
    const methods = known.find((entry) => entry.pattern.test(path))?.methods;
    if (methods === undefined) {
      const guess = nearestPath(
        path,
        known.map((entry) => entry.path),
      );
      const hint = guess === undefined ? 'GET /api/v1/openapi.json lists what there is.' : `Did you mean ${guess}?`;
      throw new ProblemError('not_found', `There is nothing at this path. ${hint}`);
    }
    const allow = methods.join(', ');
    if (request.method === 'OPTIONS') return reply.code(204).header('allow', allow).send();
    throw new ProblemError('method_not_allowed', `${request.method} does not fit this path, which accepts ${allow}.`, {
      headers: { allow },
    });
  }
  server.setErrorHandler((error, request, reply) => {
    // A client that left, or that was cut off, broke its own upload: nobody is left to be told.
    const brokeOff = error === request.raw.errored;
    const problem = brokeOff
      ? new ProblemError('bad_request', 'The request broke off.')
      : toProblem(error, limits.bodyBytes);
    // The same of one that left while its answer was made, which aborts the work.
    if (problem.code === 'internal' && !(reply.raw.destroyed && (error as Error).name === 'AbortError')) {
      logger?.error({ err: error, requestId: request.id, route: request.routeOptions.url }, 'control plane bug');
    }
    return sendProblem(reply, problem, request.method);
  });

  async function answer(operation: Operation, request: FastifyRequest, reply: FastifyReply): Promise<FastifyReply> {
    const left = new AbortController();
    reply.raw.once('close', () => left.abort());
    const result = await operation.run(
      {
        params: request.params,
        query: request.query as Record<string, string | string[]>,
        body: request.body,
        headers: request.headers,
        by: callers.get(request.raw)?.name ?? 'anonymous',
        signal: left.signal,
      },
      context,
    );
    return 'stream' in result ? openStream(result, request, reply) : sendAnswer(result, reply);
  }

  function openStream(result: Extract<Answer, { stream: unknown }>, request: FastifyRequest, reply: FastifyReply) {
    if (request.method === 'HEAD') return reply.type(eventStreamType).send();
    if (streams.size >= limits.streams) {
      throw new ProblemError('unavailable', `${limits.streams} event streams are open, the limit.`, {
        headers: { 'retry-after': '5' },
      });
    }
    const headers = Object.fromEntries(
      Object.entries(reply.getHeaders()).map(([name, value]) => [name, String(value)]),
    );
    reply.hijack();
    if (reply.raw.destroyed) return reply;
    const stream = createEventStream(reply.raw, headers, limits.keepAliveMs);
    const key = callers.get(request.raw);
    streams.set(stream, key);
    const expiry =
      key?.expiresAt == null
        ? null
        : setTimeout(() => stream.close(), Math.min(maxTimerMs, Math.max(0, key.expiresAt - context.now())));
    stream.onClose(() => {
      streams.delete(stream);
      if (expiry !== null) clearTimeout(expiry);
    });
    result.stream(stream);
    return reply;
  }

  // A stream outlives the check of its key, so a key that is revoked takes its streams with it.
  const ignoreKeys = app.keys.onChange(() => {
    const live = new Set(app.keys.list().flatMap((key) => (key.revokedAt === null ? [key.id] : [])));
    for (const [stream, key] of streams) if (key && !live.has(key.id)) stream.close();
  });

  try {
    await server.listen({ host, port: options.port });
  } catch (error) {
    metrics.close();
    ignoreKeys();
    await server.close();
    throw error;
  }
  const { port } = server.server.address() as AddressInfo;
  let closing: Promise<void> | null = null;

  return {
    port,
    url: `${tls ? 'https' : 'http'}://${urlHost(host)}:${port}`,
    setTls(next) {
      if (server.server instanceof SecureServer) server.server.setSecureContext(next);
    },
    close() {
      closing ??= (async () => {
        metrics.close();
        for (const stream of streams.keys()) stream.close();
        ignoreKeys();
        const hurry = setTimeout(() => server.server.closeAllConnections(), limits.closeMs);
        const closed = server.close();
        server.server.closeIdleConnections();
        await closed;
        clearTimeout(hurry);
      })();
      return closing;
    },
  };
}

/** Who sent a request: its key, set when it was let in. */
const callers = new WeakMap<IncomingMessage, KeyView>();

/** The longest delay that a timer takes. */
const maxTimerMs = 2 ** 31 - 1;

const securityHeaders = {
  'x-content-type-options': 'nosniff',
  'cache-control': 'no-store',
  'referrer-policy': 'no-referrer',
  'content-security-policy': "default-src 'none'; frame-ancestors 'none'",
};

function createListener(handler: RequestListener, tls: RestServerOptions['tls'], limits: RestLimits): Server {
  const options = {
    maxHeaderSize: limits.headerBytes,
    headersTimeout: limits.headersMs,
    requestTimeout: limits.requestMs,
    keepAliveTimeout: 65_000,
    connectionsCheckingInterval: Math.min(1000, limits.headersMs),
    // Node's own refusal has neither a body nor an id.
    requireHostHeader: false,
  };
  // The two differ in the kind of socket alone, which nothing here looks at.
  const server = tls
    ? (createSecureServer(
        { ...options, cert: tls.cert, key: tls.key, minVersion: 'TLSv1.2' },
        handler,
      ) as unknown as Server)
    : createServer(options, handler);
  // As above: an expectation that nobody can meet is refused like any other request.
  server.on('checkExpectation', handler);
  return server;
}

/**
 * A caller on this machine that also knows it as such. The name keeps out a browser page whose host name was pointed at
 * this machine; the headers keep out the world behind a reverse proxy on it.
 */
function isLocal(request: FastifyRequest): boolean {
  if (Object.keys(request.headers).some((name) => /^(forwarded|x-forwarded-.*|x-real-ip|via)$/.test(name)))
    return false;
  const isLoopback = (address: string) => address === '::1' || /^(::ffff:)?127(\.\d{1,3}){3}$/.test(address);
  return (
    isLoopback(request.ip) && (request.hostname === 'localhost' || isLoopback(request.hostname.replace(/^\[|\]$/g, '')))
  );
}

/** The caller's own id when it is harmless, else a new one. */
function requestId(request: IncomingMessage): string {
  const given = request.headers['x-request-id'];
  return typeof given === 'string' && /^[\w.:-]{1,64}$/.test(given) ? given : randomUUID();
}

/** As URLSearchParams reads it; a name that comes twice keeps all its values, so that it can be refused. */
function parseQuery(text: string): Record<string, string | string[]> {
  const query: Record<string, string | string[]> = Object.create(null);
  for (const [name, value] of new URLSearchParams(text)) {
    const before = query[name];
    query[name] = before === undefined ? value : [before, value].flat();
  }
  return query;
}

const utf8 = new TextDecoder('utf-8', { fatal: true });

/** Throws `bad_json`. An empty body is undefined: whether one is needed is the operation's to say. */
function parseJson(body: Buffer): unknown {
  if (body.length === 0) return undefined;
  let text: string;
  try {
    text = utf8.decode(body);
  } catch {
    throw new ProblemError('bad_json', 'The body is not UTF-8.');
  }
  try {
    return JSON.parse(text, (name, value: unknown) => {
      if (name === '__proto__') throw new ProblemError('bad_json', 'The body has a member called __proto__.');
      return value;
    });
  } catch (error) {
    if (error instanceof ProblemError) throw error;
    // The engine's message quotes the body, which may hold a secret; the position is enough to find the fault.
    const position = /position (\d+)/.exec((error as Error).message)?.[1];
    throw new ProblemError(
      'bad_json',
      position === undefined ? 'The body is not valid JSON.' : `The body stops being JSON at character ${position}.`,
    );
  }
}

function sendAnswer(result: Exclude<Answer, { stream: unknown }>, reply: FastifyReply): FastifyReply {
  reply.code(result.status).headers(result.headers ?? {});
  if ('text' in result) return reply.type(result.type).send(result.text);
  if (result.body === undefined) return reply.send();
  return reply.type('application/json; charset=utf-8').send(JSON.stringify(result.body));
}

function sendProblem(reply: FastifyReply, problem: ProblemError, method: string): FastifyReply {
  reply
    .code(problem.status)
    .headers({ ...securityHeaders, ...problem.headers })
    .type('application/problem+json; charset=utf-8');
  return method === 'HEAD' ? reply.send() : reply.send(JSON.stringify(problem.toBody()));
}

/** Refusals of Node's own parser: no request object exists, so the answer is written by hand. */
function refuseConnection(error: Error & { code?: string }, socket: Socket, limits: RestLimits): void {
  if (error.code === 'ECONNRESET' || socket.destroyed) return;
  const problem =
    error.code === 'ERR_HTTP_REQUEST_TIMEOUT'
      ? new ProblemError(
          'request_timeout',
          `The headers did not arrive within ${limits.headersMs / 1000} s, or the request within ${limits.requestMs / 1000} s.`,
        )
      : error.code === 'HPE_HEADER_OVERFLOW'
        ? new ProblemError(
            'headers_too_large',
            `The request line and headers are larger than ${limits.headerBytes} bytes, the limit.`,
          )
        : new ProblemError('bad_request', 'This is not HTTP as this server understands it.');
  const body = JSON.stringify(problem.toBody());
  const headers = {
    ...securityHeaders,
    'x-request-id': randomUUID(),
    'content-type': 'application/problem+json; charset=utf-8',
    'content-length': Buffer.byteLength(body),
    connection: 'close',
  };
  const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`);
  if (socket.writable) {
    socket.end(`HTTP/1.1 ${problem.status} ${STATUS_CODES[problem.status]}\r\n${lines.join('')}\r\n${body}`);
  }
  socket.destroySoon();
}

function knownPaths(all: readonly Operation[]): { path: string; pattern: RegExp; methods: string[] }[] {
  const methods = new Map<string, string[]>();
  for (const { root, path, method } of all) {
    const full = root ? path : `/api/v1${path}`;
    methods.set(full, [...(methods.get(full) ?? []), ...(method === 'GET' ? ['GET', 'HEAD'] : [method])]);
  }
  for (const path of ['/api/v1/openapi.json', '/api/v1/docs']) methods.set(path, ['GET', 'HEAD']);
  return [...methods].map(([path, own]) => ({
    path,
    pattern: new RegExp(`^${path.replace(/[.]/g, '\\.').replace(/\{\w+\}/g, '[^/]+')}$`),
    methods: [...own, 'OPTIONS'],
  }));
}

/** An address as it stands in a URL: IPv6 in brackets, "any" as loopback. */
function urlHost(host: string): string {
  if (host === '0.0.0.0' || host === '::') return '127.0.0.1';
  return host.includes(':') ? `[${host}]` : host;
}
