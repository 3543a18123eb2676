import type { IncomingMessage } from 'node:http';
import { isIP } from 'node:net';
import type { Readable } from 'node:stream';
import type { Dispatcher } from 'undici';
import { request } from '../node-http.ts';
import { passedTrailers } from './answer-head.ts';
import type { Attempt, Outgoing } from './attempt.ts';
import type { ProxySettings } from './settings.ts';
import { TlsTransport } from './tls-transport.ts';

/**
 * Sends a request that announces trailers. undici cannot send any, so these rare requests go through node's own client,
 * each on a connection of its own, and call the attempt as undici would.
 */
export function dispatchWithTrailers(
  wanted: Outgoing,
  trailer: string,
  body: Buffer | Readable | null,
  origin: string,
  incoming: IncomingMessage,
  attempt: Attempt,
  settings: ProxySettings,
): Dispatcher.DispatchController {
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
    headers: [
      ...wanted.headers,
      'host',
      url.host,
      'trailer',
      trailer,
      'transfer-encoding',
      'chunked',
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
    attempt.onResponseStart(controller, info.statusCode, info.headers, info.statusMessage);
  });
  req.on('response', (res) => {
    answer = res;
    res.on('error', failed);
    attempt.onResponseStart(controller, res.statusCode ?? 502, res.headers, res.statusMessage ?? '');
    res.on('data', (chunk: Buffer) => attempt.onResponseData(controller, chunk));
    res.on('end', () => attempt.onResponseEnd(controller, res.trailers, transport?.abrupt));
  });
  const finish = () => {
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
