import type { IncomingMessage } from 'node:http';
import { isIP } from 'node:net';
import type { Readable } from 'node:stream';
import type { Dispatcher } from 'undici';
import { request } from '../node-http.ts';
import { passedTrailers } from './answer-head.ts';
import type { Attempt, Outgoing } from './attempt.ts';
import type { ProxySettings } from './settings.ts';
import { TlsTransport } from './tls-transport.ts';
import { maxHeadBytes } from './upstream-pool.ts';

/**
 * Sends a request that undici cannot send: it knows no trailers, and its heads leave with the first byte of a body and not
 * before. These rare requests go through node's own client, each on a connection of its own, and call the attempt as undici
 * would.
 */
export function dispatchByNode(
  wanted: Outgoing,
  body: Buffer | Readable | null,
  origin: string,
  incoming: IncomingMessage,
  attempt: Attempt,
  settings: ProxySettings,
): Dispatcher.DispatchController {
  const { trailer } = wanted;
  const length = trailer === null && wanted.upload !== null ? wanted.upload.length : -1;
  const url = new URL(origin);
  const secure = url.protocol === 'https:';
  const host = url.hostname.replace(/^\[|\]$/g, '');
  const port = url.port === '' ? (secure ? 443 : 80) : Number(url.port);
  const transport = secure ? new TlsTransport(host, port) : null;
  const req = request({
    host,
    port,
    path: wanted.path,
    method: wanted.method,
    maxHeaderSize: maxHeadBytes,
    headers: [
      ...wanted.headers,
      'host',
      url.host,
      ...(trailer === null ? [] : ['trailer', trailer]),
      ...(length === -1 ? ['transfer-encoding', 'chunked'] : ['content-length', String(length)]),
      'connection',
      'close',
    ],
    ...(transport === null
      ? { agent: false }
      : {
          createConnection: () =>
            transport.secure({
              host,
              servername: isIP(host) === 0 ? host : '',
              rejectUnauthorized: settings.verifyUpstreamTls,
              ALPNProtocols: ['http/1.1'],
            }),
        }),
  });
  let answer: IncomingMessage | null = null;
  let aborted: Error | null = null;
  const controller: Dispatcher.DispatchController = {
    get aborted() {
      return aborted !== null;
    },
    get reason() {
      return aborted;
    },
    get paused() {
      return answer?.isPaused() ?? false;
    },
    abort(reason) {
      aborted = reason;
      req.destroy();
    },
    pause: () => void answer?.pause(),
    resume: () => void answer?.resume(),
  };
  const failed = (error: Error) => attempt.onResponseError(controller, error);
  req.on('error', failed);
  req.on('information', (info) => {
    // The client was told to go on by us.
    if (info.statusCode === 100) return;
    attempt.onResponseStart(controller, info.statusCode, byName(info.rawHeaders), info.statusMessage);
  });
  req.on('upgrade', (res, socket) => {
    socket.destroy();
    attempt.onResponseStart(controller, res.statusCode ?? 502, byName(res.rawHeaders), res.statusMessage ?? '');
  });
  req.on('response', (res) => {
    answer = res;
    res.on('error', failed);
    attempt.onResponseStart(controller, res.statusCode ?? 502, byName(res.rawHeaders), res.statusMessage ?? '');
    res.on('data', (chunk: Buffer) => attempt.onResponseData(controller, chunk));
    res.on('end', () => {
      attempt.onResponseEnd(controller, byName(res.rawTrailers), transport?.abrupt);
      // One who has answered may never read the rest of the request, and the connection would wait for that.
      if (!req.writableFinished) req.destroy();
    });
  });
  const finish = () => {
    if (trailer === null) {
      req.end();
      return;
    }
    // Complete by now: a body ends after its trailers were read.
    const passed = passedTrailers(incoming.rawTrailers);
    const trailers: [string, string][] = [];
    for (let i = 0; i < passed.length; i += 2) trailers.push([passed[i]!, passed[i + 1]!]);
    if (trailers.length > 0) req.addTrailers(trailers);
    req.end();
  };
  const begin = () => {
    attempt.onRequestStart(controller);
    if (aborted !== null) return;
    req.flushHeaders();
    if (body === null || Buffer.isBuffer(body)) {
      if (body !== null) req.write(body);
      finish();
      return;
    }
    body.pipe(req, { end: false });
    body.on('end', finish);
    req.on('close', () => body.destroy());
  };
  req.on('socket', (socket) => {
    socket.once(secure ? 'secureConnect' : 'connect', begin);
  });
  return controller;
}

/** As undici gives them: names in lower case, several values of one name as an array. Node would join or drop some. */
function byName(raw: readonly string[]): Record<string, string | string[]> {
  const headers: Record<string, string | string[]> = Object.create(null);
  for (let i = 0; i + 1 < raw.length; i += 2) {
    const [name, value] = [raw[i]!.toLowerCase(), raw[i + 1]!];
    const before = headers[name];
    if (before === undefined) headers[name] = value;
    else headers[name] = typeof before === 'string' ? [before, value] : [...before, value];
  }
  return headers;
}
