import type { Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import type { Dispatcher } from 'undici';
import type { IncomingHttpHeaders } from 'undici/types/header.js';
import type { Lease } from '../core/balancer.ts';
import type { Ending } from '../core/domain.ts';
import { type AnswerHead, flatHeaders, readAnswerHead } from './answer-head.ts';
import type { Exchange } from './exchange.ts';
import { retryAfterMs } from './headers.ts';
import { dispatchByNode } from './node-dispatch.ts';
import type { Upload } from './upload.ts';
import type { Taker, UpstreamConnection } from './upstream-pool.ts';
import type { Upstream } from './upstreams.ts';

type Controller = Dispatcher.DispatchController;

/** One request as it goes out. */
export type Outgoing = Readonly<{
  method: string;
  path: string;
  /** Flat: name, value, name, value. Without Host, Connection and the framing of the body. */
  headers: readonly string[];
  upload: Upload | null;
  /** Value of Trailer when the client has announced trailers and sends chunks. */
  trailer: string | null;
  /** Protocol asked for. */
  upgrade: string | null;
}>;

/** Answers up to this size are read to their end when nobody wants them, so that the connection can be used again. */
const cheapToDrain = 16_384;
/** … but no longer than this. */
const drainMs = 1_000;

/** Errors of this machine, not of an upstream. */
const localFaults: ReadonlySet<string> = new Set(['EMFILE', 'ENFILE', 'ENOBUFS', 'ENOMEM']);
/** The news that an idle connection was closed is on its way for so long at least. */
const leastStaleMs = 50;

const noTrailers: IncomingHttpHeaders = {};

class Cancelled extends Error {
  override readonly name = 'Cancelled';
}
const cancelled = new Cancelled('cancelled by the proxy');

/**
 * One try at one upstream: what undici calls while the request goes out and the answer comes in. Holds the lease
 * from the pick on and settles it exactly once; whatever arrives after that is thrown away.
 */
export class Attempt implements Taker {
  readonly lease: Lease;
  readonly upstream: Upstream;
  /** Lease settled: nothing of this attempt counts any more. */
  over = false;
  /** When the latest connection for it was asked for. */
  dispatchedAt: number;
  /** When the request was written to a connection; null: nothing was sent yet. */
  sentAt: number | null = null;
  answered = false;
  /** Of the answer's head; null before it. */
  status: number | null = null;
  /** How and when the lease was settled; null while it is open. */
  ending: Ending | null = null;
  endedAt: number | null = null;
  firstByteAt: number | null = null;
  /** Set whenever bytes move, cleared by the sweep. */
  touched = true;
  quietSince: number;
  paused = false;
  readonly #exchange: Exchange;
  #connection: UpstreamConnection | null = null;
  #controller: Controller | null = null;
  /** Bytes of an answer were seen. */
  #answering = false;
  #outgoing: Outgoing | null = null;
  #tunnel: Socket | null = null;
  #ending: Ending = 'complete';
  /** The upstream frames the body of its answer in chunks. */
  #chunked = false;
  /** The body of the answer ends where the connection does. */
  #delimitedByEnd = false;
  #retryAfterMs: number | null = null;

  constructor(exchange: Exchange, lease: Lease, upstream: Upstream, now: number) {
    this.#exchange = exchange;
    this.lease = lease;
    this.upstream = upstream;
    this.dispatchedAt = now;
    this.quietSince = now;
  }

  dispatch(outgoing: Outgoing, fresh = false): void {
    this.#outgoing = outgoing;
    const { method, path, headers, upload, upgrade } = outgoing;
    const body = upload === null ? null : upload.body();
    try {
      const isHeadAlone =
        upload !== null && !upload.complete && upload.bytes === 0 && !this.#exchange.res.expectsContinue;
      if (outgoing.trailer !== null || isHeadAlone) {
        const { plane, req } = this.#exchange;
        this.#controller = dispatchByNode(outgoing, body, this.upstream.entry.origin, req, this, plane.settings);
        return;
      }
      const connection = this.upstream.pool.take(fresh, upgrade !== null);
      this.#connection = connection;
      if (connection === null) {
        this.#failed('removed');
        return;
      }
      const known = upload !== null && !upload.complete && upload.length > 0;
      connection.dispatch(
        {
          path,
          method: method as Dispatcher.HttpMethod,
          headers: (known ? [...headers, 'content-length', String(upload.length)] : headers) as string[],
          body,
          upgrade,
          blocking: false,
          // A server that sends a body to HEAD would send it into the next answer of the connection.
          reset: upgrade !== null || method === 'HEAD',
        },
        this,
      );
    } catch (error) {
      this.onResponseError(null, error as Error);
    }
  }

  /** Ends the attempt from our side, at once: the slot is free and the connection is cut. */
  cancel(ending: Ending): void {
    if (this.over) return;
    this.settle(ending);
    this.#cut();
    this.#tunnel?.destroy();
  }

  settle(ending: Ending, retryAfter: number | null = null): void {
    if (this.over) return;
    this.over = true;
    const now = this.#exchange.plane.now();
    this.ending = ending;
    this.endedAt = now;
    if (retryAfter === null) this.lease.settle(ending, now);
    else this.lease.settle(ending, now, retryAfter);
    this.#exchange.plane.queue.wake();
  }

  /** All bytes of the answer are here. */
  complete(): void {
    this.settle(this.#ending, this.#retryAfterMs);
  }

  /** Sends the head of the answer on its own, unless bytes of its body are here too. */
  flushSoon(): void {
    if (this.#connection === null) process.nextTick(flushHead, this.#exchange);
    else this.#connection.flushSoon(this.#exchange);
  }

  /** The answer takes its time. */
  settleIn(): void {
    this.#connection?.settleIn();
  }

  /** The client takes bytes again. */
  resume(): void {
    if (!this.paused) return;
    this.paused = false;
    this.touched = true;
    this.#controller?.resume();
  }

  onRequestStart(controller: Controller): void {
    if (this.over) {
      controller.abort(cancelled);
      return;
    }
    this.#controller = controller;
    this.#connection?.writing();
    if (this.sentAt === null) this.onSent();
  }

  onSent(): void {
    this.sentAt = this.#exchange.plane.now();
    this.touched = true;
    this.#exchange.sendContinue();
  }

  onResponseStarted(): void {
    this.#answering = true;
  }

  onResponseStart(controller: Controller, status: number, headers: IncomingHttpHeaders, text = ''): void {
    if (this.over) return;
    const head = readAnswerHead(status, text, headers);
    // 101 without an Upgrade header, or unasked, switches to nothing; below 100 there is no status.
    if (head === null || status === 101 || status < 100) {
      const connection = this.#connection;
      this.#failed('bad_head');
      controller.abort(cancelled);
      connection?.destroy();
      return;
    }
    if (status < 200) {
      this.#exchange.information(head);
      return;
    }
    this.#connection?.told(headers['keep-alive']);
    this.#answer(head);
  }

  /** A final head. */
  #answer(head: AnswerHead): void {
    const { status } = head;
    this.touched = true;
    this.status = status;
    if (status >= 400) {
      const wait = status === 429 || status === 503 ? retryAfterMs(head.retryAfter, Date.now()) : null;
      if (wait !== null) this.#ending = 'backoff';
      else this.#ending = status >= 500 ? 'server_error' : 'client_error';
      this.#retryAfterMs = wait;
      if (status === 429 || (status >= 502 && status <= 504)) {
        if (this.#exchange.answerElsewhere(this, this.#ending, wait)) {
          if (head.contentLength < 0 || head.contentLength > cheapToDrain) this.#cut();
          else if (this.#controller !== null) setTimeout(cut, drainMs, this.#controller).unref();
          return;
        }
      }
    }
    this.answered = true;
    this.#chunked = head.chunked;
    this.#delimitedByEnd = !head.chunked && head.contentLength === -1 && hasBody(this.#exchange.method, status);
    if (!this.#exchange.answer(head, this)) {
      this.#exchange.attemptFailed(this, 'server_error', 'bad_answer');
      this.#cut();
    }
  }

  onResponseData(controller: Controller, chunk: Buffer): void {
    // undici's parser tells of nothing when it goes on after a pause. As a chunk, nothing would be the end of the answer.
    if (this.over || chunk.length === 0) return;
    this.touched = true;
    if (this.firstByteAt === null) this.#firstByte();
    if (!this.#exchange.write(chunk)) {
      this.paused = true;
      controller.pause();
    }
  }

  onShortAnswer(head: AnswerHead, body: string): void {
    this.#answering = true;
    if (!this.over) this.#answer(head);
    if (!this.over && body !== '') {
      this.#firstByte();
      this.#exchange.write(body);
    }
    this.onResponseEnd(null, noTrailers);
  }

  get takesChunks(): boolean {
    return this.#chunked && !this.over && !this.paused && this.#exchange.takesChunks;
  }

  onChunks(text: string, bodyBytes: number): void {
    this.touched = true;
    if (this.firstByteAt === null) this.#firstByte();
    if (!this.#exchange.writeChunks(text, bodyBytes)) {
      this.paused = true;
      this.#controller?.pause();
    }
  }

  onResponseEnd(
    _controller: Controller | null,
    trailers: IncomingHttpHeaders,
    abrupt = this.#connection?.abrupt,
  ): void {
    const connection = this.#connection;
    if (abrupt === true && this.#delimitedByEnd) {
      // Anybody on the way can end a connection: only the upstream itself can say that this was all.
      this.#failed('TLS_CUT');
      connection?.destroy();
      return;
    }
    // From here on the connection may be somebody else's.
    this.#connection = null;
    this.#controller = null;
    this.paused = false;
    connection?.release();
    if (this.over) return;
    if (this.firstByteAt === null) this.#firstByte();
    this.complete();
    this.#exchange.end(flatHeaders(trailers));
  }

  onResponseError(_controller: Controller | null, error: Error): void {
    const code = (error as NodeJS.ErrnoException).code ?? error.name;
    const connection = this.#connection;
    this.#failed(code === 'RESET' ? 'ECONNRESET' : code);
    connection?.destroy();
  }

  onRequestUpgrade(_controller: Controller, status: number, headers: IncomingHttpHeaders, socket: Duplex): void {
    this.#connection = null;
    this.#controller = null;
    const head = readAnswerHead(status, '', headers);
    if (this.over || head === null) {
      socket.destroy();
      if (!this.over) this.#failed('bad_head');
      return;
    }
    this.answered = true;
    this.status = status;
    this.#tunnel = socket as Socket;
    this.#firstByte();
    this.#exchange.tunnel(head, this.#tunnel, this);
  }

  #failed(code: string): void {
    const connection = this.#connection;
    this.#connection = null;
    this.#controller = null;
    this.paused = false;
    if (this.over) return;
    // Our own side first: an upstream death and a departed client both end here.
    if (this.#exchange.clientLeft) {
      this.settle('client_gone');
      this.#exchange.closed();
      return;
    }
    if (code === 'UND_ERR_INVALID_ARG' || code === 'UND_ERR_NOT_SUPPORTED') {
      this.settle('client_gone');
      this.#exchange.refuse(400, 'bad_request', 'The request cannot be forwarded.');
      return;
    }
    // An idle connection that was closed just as it was used again says nothing about the upstream. What fails later than
    // the news of that takes to come has failed while the upstream was at work.
    if (connection !== null && connection.used > 0 && !this.#answering) {
      const now = this.#exchange.plane.now();
      const onItsWay = this.sentAt === null || now - this.sentAt <= Math.max(leastStaleMs, 2 * connection.connectMs);
      if (onItsWay && this.#exchange.takeRepeat(this.sentAt !== null)) {
        this.sentAt = null;
        this.dispatchedAt = now;
        this.dispatch(this.#outgoing!, true);
        return;
      }
    }
    if (!this.answered && localFaults.has(code)) {
      this.#exchange.noSocket(this);
      return;
    }
    this.#exchange.attemptFailed(this, this.answered ? 'truncated' : 'refused', code);
  }

  /** Cuts the connection, or what is to become one. */
  #cut(): void {
    const controller = this.#controller;
    const connection = this.#connection;
    if (controller !== null) controller.abort(cancelled);
    connection?.destroy();
  }

  #firstByte(): void {
    this.firstByteAt = this.#exchange.plane.now();
    this.lease.firstByte(this.firstByteAt, this.#ending === 'complete');
  }
}

/** Has the answer to such a request a body? */
export function hasBody(method: string, status: number): boolean {
  return method !== 'HEAD' && status !== 204 && status !== 304;
}

function flushHead(exchange: Exchange): void {
  exchange.flushHead();
}

function cut(controller: Controller): void {
  controller.abort(cancelled);
}
