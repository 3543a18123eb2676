import { request as httpRequest, type IncomingHttpHeaders } from 'node:http';
import type { LocalApp } from '../../src/fleet/app.ts';
import { createRestServer, type RestServer, type RestServerOptions } from '../../src/rest/create-server.ts';
import { refuseAnswerFaults } from '../helpers/answer-faults.ts';
import type { OpenApi } from '../helpers/answers.ts';

export type Reply = { status: number; headers: IncomingHttpHeaders; text: string; body: unknown };
export type CallOptions = {
  /** null sends none; absent sends the admin key. */
  key?: string | null;
  /** An object is sent as JSON, text and bytes as they are. */
  body?: unknown;
  headers?: Record<string, string | string[]>;
};

export type Rest = AsyncDisposable & {
  server: RestServer;
  url: string;
  adminKey: string;
  document: OpenApi;
  /** One request. Throws when an answer was not as the OpenAPI document says. */
  call(method: string, path: string, options?: CallOptions): Promise<Reply>;
};

/** The document does not depend on the application, so one copy serves every test of a file. */
let described: Promise<OpenApi> | null = null;

const readDocument = async (url: string) => (await send(url, 'GET', '/api/v1/openapi.json', {})).body as OpenApi;

export async function startRest(app: LocalApp, options: Partial<RestServerOptions> = {}): Promise<Rest> {
  const server = await createRestServer({ app, host: '127.0.0.1', port: 0, ...options });
  const adminKey = app.keys.create({ name: 'tester', scope: 'admin' }).key;
  const document = await (described ??= readDocument(server.url));
  return {
    server,
    url: server.url,
    adminKey,
    document,
    async call(method, path, options = {}) {
      const { key = adminKey } = options;
      const reply = await send(server.url, method, path, {
        ...options,
        headers: { ...(key === null ? {} : { 'x-api-key': key }), ...options.headers },
      });
      // All answers are checked; here the call that got the wrong one is known.
      refuseAnswerFaults();
      return reply;
    },
    [Symbol.asyncDispose]: () => server.close(),
  };
}

export function send(base: string, method: string, path: string, options: CallOptions): Promise<Reply> {
  const { body, headers = {} } = options;
  const isRaw = typeof body === 'string' || Buffer.isBuffer(body);
  const bytes = body === undefined ? null : isRaw ? (body as string | Buffer) : JSON.stringify(body);
  const { promise, resolve, reject } = Promise.withResolvers<Reply>();
  const outgoing = httpRequest(
    new URL(base).origin,
    {
      method,
      path,
      agent: false,
      headers: {
        ...(bytes === null ? {} : { 'content-type': 'application/json', 'content-length': Buffer.byteLength(bytes) }),
        ...headers,
      },
    },
    (incoming) => {
      if (method !== 'HEAD' && incoming.headers['content-type']?.startsWith('text/event-stream')) {
        // A stream has no end to wait for.
        resolve({ status: incoming.statusCode ?? 0, headers: incoming.headers, text: '', body: undefined });
        outgoing.destroy();
        return;
      }
      const parts: Buffer[] = [];
      incoming.on('data', (part: Buffer) => parts.push(part));
      incoming.on('error', reject);
      incoming.on('end', () => {
        const text = Buffer.concat(parts).toString('utf8');
        let parsed: unknown;
        try {
          parsed = text === '' ? undefined : JSON.parse(text);
        } catch {
          parsed = undefined;
        }
        resolve({ status: incoming.statusCode ?? 0, headers: incoming.headers, text, body: parsed });
      });
    },
  );
  outgoing.on('error', reject);
  outgoing.end(bytes ?? undefined);
  return promise;
}

export type SseMessage = { id: string | null; event: string | null; data: unknown };

/** An open event stream that a test reads message by message. */
export type SseReader = {
  status: number;
  headers: IncomingHttpHeaders;
  next(timeoutMs?: number): Promise<SseMessage>;
  /** True once the server ended or cut the stream. */
  ended: Promise<void>;
  pause(): void;
  resume(): void;
  comments(): number;
  close(): void;
};

export function openSse(base: string, path: string, headers: Record<string, string>): Promise<SseReader> {
  const { promise, resolve, reject } = Promise.withResolvers<SseReader>();
  const outgoing = httpRequest(new URL(path, base), { agent: false, headers }, (incoming) => {
    const queue: SseMessage[] = [];
    const waiting: ((message: SseMessage) => void)[] = [];
    let text = '';
    let comments = 0;
    const ended = new Promise<void>((done) => incoming.on('close', () => done()));
    incoming.on('error', () => {});
    incoming.setEncoding('utf8');
    incoming.on('data', (part: string) => {
      text += part;
      for (let end = text.indexOf('\n\n'); end >= 0; end = text.indexOf('\n\n')) {
        const lines = text.slice(0, end).split('\n');
        text = text.slice(end + 2);
        const field = (name: string) =>
          lines.find((line) => line.startsWith(`${name}: `))?.slice(name.length + 2) ?? null;
        const data = field('data');
        if (data === null) {
          if (lines[0]?.startsWith(':')) comments++;
          continue;
        }
        const message = { id: field('id'), event: field('event'), data: JSON.parse(data) as unknown };
        const taker = waiting.shift();
        if (taker) taker(message);
        else queue.push(message);
      }
    });
    resolve({
      status: incoming.statusCode ?? 0,
      headers: incoming.headers,
      next(timeoutMs = 10_000) {
        const ready = queue.shift();
        if (ready) return Promise.resolve(ready);
        return new Promise((take, fail) => {
          const timer = setTimeout(() => fail(new Error('no message in time')), timeoutMs);
          waiting.push((message) => {
            clearTimeout(timer);
            take(message);
          });
        });
      },
      ended,
      pause: () => incoming.pause(),
      resume: () => incoming.resume(),
      comments: () => comments,
      close: () => outgoing.destroy(),
    });
  });
  outgoing.on('error', reject);
  outgoing.end();
  return promise;
}
