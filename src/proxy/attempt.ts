import type { Duplex } from 'node:stream';
import type { Dispatcher } from 'undici';
import type { IncomingHttpHeaders } from 'undici/types/header.js';
import type { Lease } from '../core/balancer.ts';
import type { Ending } from '../core/domain.ts';
import type { Exchange } from './exchange.ts';
import { retryAfterMs } from './headers.ts';
import type { Upstream } from './upstreams.ts';

type Controller = Dispatcher.DispatchController;

/** Answers up to this size are read to their end when nobody wants them, so that the connection can be used again. */
const cheapToDrain = 16_384;
/** … but no longer than this; abandoning one that has ended does nothing. */
const drainMs = 1_000;

class Cancelled extends Error {
  override readonly name = 'Cancelled';
}
const cancelled = new Cancelled('cancelled by the proxy');

/**
 * One try at one upstream: what undici calls while the request goes out and the answer comes in. Holds the lease from the
 * pick on and settles it exactly once; whatever arrives after that is thrown away.
 */
export class Attempt implements Dispatcher.DispatchHandler {
  readonly lease: Lease;
  readonly upstream: Upstream;
  /** Lease settled: nothing of this attempt counts any more. */
  over = false;
  readonly dispatchedAt: number;
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
  tunnel: Duplex | null = null;
  readonly #exchange: Exchange;
  #controller: Controller | null = null;
  #ending: Ending = 'complete';
  #retryAfterMs: number | null = null;

  constructor(exchange: Exchange, lease: Lease, upstream: Upstream, now: number) {
    this.#exchange = exchange;
    this.lease = lease;
    this.upstream = upstream;
    this.dispatchedAt = now;
    this.quietSince = now;
  }

  dispatch(options: Dispatcher.DispatchOptions): void {
    try {
      this.upstream.pool.dispatch(options, this);
    } catch (error) {
      this.onResponseError(null, error as Error);
    }
  }

  /** Ends the attempt from our side, at once: the slot is free and the connection is cut. */
  cancel(ending: Ending): void {
    if (this.over) return;
    this.settle(ending);
    this.#controller?.abort(cancelled);
    this.tunnel?.destroy();
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
    this.sentAt = this.#exchange.plane.now();
    this.touched = true;
    this.#exchange.sending();
  }

  onResponseStart(controller: Controller, status: number, headers: IncomingHttpHeaders, text?: string): void {
    if (this.over) return;
    this.touched = true;
    if (status < 200) {
      this.#exchange.information(status, headers);
      return;
    }
    this.status = status;
    const wait = status === 429 || status === 503 ? retryAfterMs(headers['retry-after'], Date.now()) : null;
    if (wait !== null) this.#ending = 'backoff';
    else if (status >= 500) this.#ending = 'server_error';
    else if (status >= 400) this.#ending = 'client_error';
    this.#retryAfterMs = wait;
    if (status === 429 || (status >= 502 && status <= 504)) {
      if (this.#exchange.answerElsewhere(this, this.#ending, wait)) {
        const length = headers['content-length'];
        if (typeof length !== 'string' || Number(length) > cheapToDrain) controller.abort(cancelled);
        else setTimeout(abort, drainMs, controller).unref();
        return;
      }
    }
    this.answered = true;
    if (!this.#exchange.answer(status, text ?? '', headers, this)) {
      this.#exchange.attemptFailed(this, 'server_error', 'bad_answer');
      controller.abort(cancelled);
    }
  }

  onResponseData(controller: Controller, chunk: Buffer): void {
    if (this.over) return;
    this.touched = true;
    if (this.firstByteAt === null) this.#firstByte();
    if (!this.#exchange.write(chunk)) {
      this.paused = true;
      controller.pause();
    }
  }

  onResponseEnd(_controller: Controller, trailers: IncomingHttpHeaders): void {
    if (this.over) return;
    if (this.firstByteAt === null) this.#firstByte();
    this.complete();
    this.#exchange.end(trailers);
  }

  onResponseError(_controller: Controller | null, error: Error): void {
    if (this.over) return;
    // Our own side first: an upstream death and a departed client both end here.
    if (this.#exchange.clientLeft) {
      this.settle('client_gone');
      this.#exchange.closed();
      return;
    }
    const code = (error as NodeJS.ErrnoException).code ?? error.name;
    if (code === 'UND_ERR_INVALID_ARG' || code === 'UND_ERR_NOT_SUPPORTED') {
      this.settle('client_gone');
      this.#exchange.refuse(400, 'bad_request', 'The request cannot be forwarded.');
      return;
    }
    this.#exchange.attemptFailed(this, this.answered ? 'truncated' : 'refused', code);
  }

  onRequestUpgrade(_controller: Controller, status: number, headers: IncomingHttpHeaders, socket: Duplex): void {
    if (this.over) {
      socket.destroy();
      return;
    }
    this.answered = true;
    this.status = status;
    this.tunnel = socket;
    this.#firstByte();
    this.#exchange.tunnel(status, headers, socket, this);
  }

  #firstByte(): void {
    this.firstByteAt = this.#exchange.plane.now();
    this.lease.firstByte(this.firstByteAt, this.#ending === 'complete');
  }
}

function abort(controller: Controller): void {
  controller.abort(cancelled);
}
