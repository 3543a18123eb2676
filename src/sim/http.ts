import type { IncomingMessage, Server, ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { createServer } from '../node-http.ts';

/** An answer, made before anything of it is sent, so that a fault can lose it on the way. */
export type Reply = Readonly<{
  status: number;
  body: string;
  headers: Readonly<Record<string, string>>;
  /** Writes the answer itself instead of `body`; for endless streams. */
  stream?: (response: ServerResponse) => void;
}>;

/** JSON with exactly `application/json`: the official vast.ai CLI refuses an added charset. */
export function json(status: number, value: unknown, headers: Readonly<Record<string, string>> = {}): Reply {
  return { status, body: JSON.stringify(value), headers: { 'Content-Type': 'application/json', ...headers } };
}

export function text(status: number, body: string, type = 'text/plain; charset=utf-8'): Reply {
  return { status, body, headers: { 'Content-Type': type } };
}

export function html(status: number, title: string): Reply {
  const body = `<html>\r\n<head><title>${status} ${title}</title></head>\r\n<body>\r\n<center><h1>${status} ${title}</h1></center>\r\n</body>\r\n</html>\r\n`;
  return text(status, body, 'text/html');
}

export type Request = Readonly<{
  method: string;
  /** Without a trailing slash, which both marketplaces treat as optional. */
  path: string;
  query: URLSearchParams;
  header(name: string): string | undefined;
  /** The body's text, whole. */
  raw: string;
  /** Path parameters, in order. */
  params: readonly string[];
}>;

export type Route = Readonly<{
  method: string;
  pattern: RegExp;
  /** What faults call it. */
  name: string;
  /** Whether it wants a key: `optional` refuses only a wrong one. */
  key: 'required' | 'optional' | 'none';
  /** Seconds between two calls of one identity, where a limit is documented. */
  intervalS?: number;
  handle(request: Request): Reply | Promise<Reply>;
}>;

/** `/api/v0/asks/:/` as a pattern whose parameters are the segments written `:`. */
export function pathPattern(path: string): RegExp {
  const source = path.replace(/\/+$/, '').replace(/[.]/g, '\\.').replaceAll(':', '([^/]+)');
  return new RegExp(`^${source}$`);
}

const bodyLimit = 4 * 1024 * 1024;

/** A request that cannot be read at all. */
export class RequestError extends Error {
  override readonly name = 'RequestError';
  readonly status: 400 | 413;

  constructor(status: 400 | 413, message: string) {
    super(message);
    this.status = status;
  }
}

export async function readBody(message: IncomingMessage, limit = bodyLimit): Promise<string> {
  const parts: Buffer[] = [];
  let size = 0;
  for await (const part of message as AsyncIterable<Buffer>) {
    size += part.length;
    if (size > limit) throw new RequestError(413, `body above ${limit} bytes`);
    parts.push(part);
  }
  return Buffer.concat(parts).toString('utf8');
}

export async function toRequest(message: IncomingMessage): Promise<Request> {
  const url = URL.parse(message.url ?? '/', 'http://sim');
  if (!url) throw new RequestError(400, 'the target is no path');
  return {
    method: message.method ?? 'GET',
    path: url.pathname.replace(/\/+$/, '') || '/',
    query: url.searchParams,
    header(name) {
      const value = message.headers[name];
      return Array.isArray(value) ? value.join(', ') : value;
    },
    raw: await readBody(message),
    params: [],
  };
}

/** As it stands when it is not percent-encoded properly: no id looks like that. */
function decodePart(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

export function findRoute(
  routes: readonly Route[],
  request: Request,
): { route: Route; params: readonly string[] } | { allow: readonly string[] } {
  const allow: string[] = [];
  for (const route of routes) {
    const match = route.pattern.exec(request.path);
    if (!match) continue;
    if (route.method === request.method) return { route, params: match.slice(1).map(decodePart) };
    allow.push(route.method);
  }
  return { allow };
}

export function send(response: ServerResponse, reply: Reply): void {
  if (response.destroyed) return;
  if (reply.stream) {
    response.writeHead(reply.status, reply.headers);
    reply.stream(response);
    return;
  }
  const body = Buffer.from(reply.body);
  response.writeHead(reply.status, { ...reply.headers, 'Content-Length': body.length });
  response.end(body);
}

/** Base URL of a port; IPv6 addresses in brackets. */
export function originOf(host: string, port: number): string {
  return `http://${host.includes(':') ? `[${host}]` : host}:${port}`;
}

export type Listening = Readonly<{ server: Server; url: string; port: number; close(): Promise<void> }>;

/** Starts a server on a loopback address; closing it cuts every open connection. */
export async function listen(
  host: string,
  port: number,
  onRequest: (message: IncomingMessage, response: ServerResponse) => void,
): Promise<Listening> {
  const server = createServer(onRequest);
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(port, host, resolve);
  });
  const address = server.address() as AddressInfo;
  return {
    server,
    port: address.port,
    url: originOf(host, address.port),
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}
