import type { Socket } from 'node:net';
import type { Lease } from '../core/balancer.ts';
import type { Ending } from '../core/domain.ts';
import type { AnswerHead } from './answer-head.ts';
import type { Exchange } from './exchange.ts';
import { retryAfterMs } from './headers.ts';
import type { AnswerListener, Outgoing, UpstreamConnection } from './upstream-connection.ts';
import type { Upstream } from './upstreams.ts';

/** Answers up to this size are read to their end when nobody wants them, so that the connection can be used again. */
const cheapToDrain = 16_384;
/** … but no longer than this. */
const drainMs = 1_000;

/**
 * One try at one upstream: what its connection calls while the request goes out and the answer comes in. Holds the lease
 * from the pick on and settles it exactly once; whatever arrives after that is thrown away.
 */
export class Attempt implements AnswerListener {
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
  readonly #exchange: Exchange;
  #connection: UpstreamConnection | null = null;
  #outgoing: Outgoing | null = null;
  #tunnel: Socket | null = null;
  #ending: Ending = 'complete';
  #retryAfterMs: number | null = null;
  #repeated = false;

  constructor(exchange: Exchange, lease: Lease, upstream: Upstream, now: number) {
    this.#exchange = exchange;
    this.lease = lease;
    this.upstream = upstream;
    this.dispatchedAt = now;
    this.quietSince = now;
  }

  dispatch(outgoing: Outgoing, fresh = false): void {
    this.#outgoing = outgoing;
    this.#connection = this.upstream.pool.send(outgoing, this, fresh);
    if (this.#connection === null) this.onFailure('removed');
  }

  /** Ends the attempt from our side, at once: the slot is free and the connection is cut. */
  cancel(ending: Ending): void {
    if (this.over) return;
    this.settle(ending);
    this.#connection?.abort(this);
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

  /** The client takes bytes again. */
  resume(): void {
    if (!this.paused) return;
    this.paused = false;
    this.touched = true;
    this.#connection?.resume();
  }

  onSent(): void {
    this.sentAt = this.#exchange.plane.now();
    this.touched = true;
    this.#exchange.sendContinue();
  }

  onInformation(head: AnswerHead): void {
    if (this.over) return;
    this.touched = true;
    this.#exchange.information(head);
  }

  onHead(head: AnswerHead): void {
    if (this.over) return;
    this.touched = true;
    const { status } = head;
    this.status = status;
    if (status >= 400) {
      const wait = status === 429 || status === 503 ? retryAfterMs(head.retryAfter, Date.now()) : null;
      if (wait !== null) this.#ending = 'backoff';
      else this.#ending = status >= 500 ? 'server_error' : 'client_error';
      this.#retryAfterMs = wait;
      if (status === 429 || (status >= 502 && status <= 504)) {
        if (this.#exchange.answerElsewhere(this, this.#ending, wait)) {
          this.#abandon(head.contentLength);
          return;
        }
      }
    }
    this.answered = true;
    if (!this.#exchange.answer(head, this)) {
      const connection = this.#connection;
      this.#exchange.attemptFailed(this, 'server_error', 'bad_answer');
      connection?.abort(this);
    }
  }

  onData(chunk: Buffer): void {
    if (this.over) return;
    this.touched = true;
    if (this.firstByteAt === null) this.#firstByte();
    if (!this.#exchange.write(chunk)) this.#pause();
  }

  onChunks(buffer: Buffer, from: number, to: number, bytes: number): boolean {
    if (this.over) return true;
    if (!this.#exchange.passesFrames) return false;
    this.touched = true;
    if (this.firstByteAt === null) this.#firstByte();
    if (!this.#exchange.writeFrames(buffer, from, to, bytes)) this.#pause();
    return true;
  }

  onEnd(trailers: readonly string[]): void {
    // From here on the connection may be somebody else's.
    this.#connection = null;
    this.paused = false;
    if (this.over) return;
    if (this.firstByteAt === null) this.#firstByte();
    this.complete();
    this.#exchange.end(trailers);
  }

  onFailure(code: string): void {
    const connection = this.#connection;
    this.#connection = null;
    this.paused = false;
    if (this.over) return;
    // Our own side first: an upstream death and a departed client both end here.
    if (this.#exchange.clientLeft) {
      this.settle('client_gone');
      this.#exchange.closed();
      return;
    }
    // An idle connection that was closed just as it was used again says nothing about the upstream.
    if (connection !== null && connection.used > 0 && !connection.answering && !this.#repeated) {
      if (this.#exchange.repeatable) {
        this.#repeated = true;
        this.sentAt = null;
        this.dispatch(this.#outgoing!, true);
        return;
      }
    }
    this.#exchange.attemptFailed(this, this.answered ? 'truncated' : 'refused', code);
  }

  onUpgrade(head: AnswerHead, socket: Socket): void {
    this.#connection = null;
    if (this.over) {
      socket.destroy();
      return;
    }
    this.answered = true;
    this.status = head.status;
    this.#tunnel = socket;
    this.#firstByte();
    this.#exchange.tunnel(head, socket, this);
  }

  #pause(): void {
    // The last bytes may have ended the attempt: then there is nothing to hold back.
    if (this.#connection === null) return;
    this.paused = true;
    this.#connection.pause();
  }

  #abandon(length: number): void {
    const connection = this.#connection;
    if (connection === null) return;
    if (length < 0 || length > cheapToDrain) connection.abort(this);
    else setTimeout(abandon, drainMs, connection, this).unref();
  }

  #firstByte(): void {
    this.firstByteAt = this.#exchange.plane.now();
    this.lease.firstByte(this.firstByteAt);
  }
}

function abandon(connection: UpstreamConnection, attempt: Attempt): void {
  connection.abort(attempt);
}
