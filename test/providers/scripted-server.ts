import { createServer, type IncomingHttpHeaders, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';

export type Recorded = Readonly<{
  method: string;
  /** With the query. */
  path: string;
  headers: IncomingHttpHeaders;
  body: unknown;
  at: number;
}>;

export type Scripted = Readonly<{ status?: number; body?: unknown; type?: string; headers?: Record<string, string> }>;
/** An answer; or nothing, and then the handler has answered (or not) by itself. */
export type Script = (request: Recorded, response: ServerResponse, message: IncomingMessage) => Scripted | undefined;

/** A real HTTP server that answers as a test says and keeps what it was asked. */
export async function startScripted(script: Script) {
  const requests: Recorded[] = [];
  let sockets = 0;
  const server = createServer((message, response) => {
    const chunks: Buffer[] = [];
    message.on('data', (chunk: Buffer) => chunks.push(chunk));
    message.on('end', () => {
      const text = Buffer.concat(chunks).toString();
      const request: Recorded = {
        method: message.method ?? '',
        path: message.url ?? '',
        headers: message.headers,
        body: text === '' ? undefined : JSON.parse(text),
        at: performance.now(),
      };
      requests.push(request);
      const answer = script(request, response, message);
      if (!answer) return;
      const { status = 200, body = {}, type, headers = {} } = answer;
      const isText = typeof body === 'string';
      response.writeHead(status, { 'content-type': type ?? (isText ? 'text/html' : 'application/json'), ...headers });
      response.end(isText ? body : JSON.stringify(body));
    });
  });
  server.on('connection', () => sockets++);
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  return {
    url,
    requests,
    /** Connections accepted so far. */
    sockets: () => sockets,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

export const errorOf = async (work: Promise<unknown>): Promise<Error> => {
  try {
    await work;
  } catch (error) {
    if (error instanceof Error) return error;
    throw error;
  }
  throw new Error('nothing was thrown');
};
