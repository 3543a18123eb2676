import type { IncomingMessage } from 'node:http';
import type { Socket } from 'node:net';
import type { Lease } from '../core/balancer.ts';
import type { Ending } from '../core/domain.ts';
import { STATUS_CODES, validateHeaderName, validateHeaderValue } from '../node-http.ts';
import { type AnswerHead, passedTrailers } from './answer-head.ts';
import { type Answer, openAiError, problem } from './answers.ts';
import { Attempt, hasBody, type Outgoing } from './attempt.ts';
import type { RequestHeaders } from './headers.ts';
import type { KeyTerms } from './key-limits.ts';
import { ModelScan } from './model-scan.ts';
import type { Plane } from './plane.ts';
import type { ProxyResponse } from './proxy-response.ts';
import type { RequestTrace } from './tracer.ts';
import { Tunnel } from './tunnel.ts';
import { Upload } from './upload.ts';
import { type Usage, UsageTail } from './usage-tail.ts';
import type { Waiting } from './wait-queue.ts';

/** What the parts of a request did in time, for the access log and the report. Milliseconds. */
export type RequestTimes = Readonly<{
  queueMs: number;
  connectMs: number | null;
  ttfbMs: number | null;
  totalMs: number;
}>;

const idempotent: Readonly<Record<string, true>> = {
  GET: true,
  HEAD: true,
  OPTIONS: true,
  PUT: true,
  DELETE: true,
  TRACE: true,
  PROPFIND: true,
  SEARCH: true,
  QUERY: true,
};

const nothingTried: readonly number[] = [];
/** Pieces up to this size are cheaper to copy into a string than to hand on. */
const copiedBytes = 8_192;
/**
 * A body that is on its way is waited for this long: a small one for all of it, so that it can go out, and go out again, in
 * one piece, any other for its first bytes, which leave together with the head.
 */
const bodyGraceMs = 50;
/** A directory older than the load table can name a row that this thread does not know yet. */
const maxMisses = 4;
/** A client that goes on sending after it was answered is listened to for so long, so that it reads the answer first. */
const lingerMs = 2_000;

/**
 * One request of a client, from its headers to its last byte: everything that happens once per request. What happens once
 * per upstream is an `Attempt`.
 */
export class Exchange implements Waiting {
  readonly plane: Plane;
  readonly req: IncomingMessage;
  readonly res: ProxyResponse;
  readonly socket: Socket;
  readonly id: string;
  readonly method: string;
  readonly target: string;
  readonly startedAt: number;
  readonly headers: RequestHeaders;
  /** Protocol asked for; null for an ordinary request. */
  readonly upgrade: string | null;
  /** Its place in a trace; null: not traced. */
  trace: RequestTrace | null = null;
  model: string | null = null;
  allowed: Uint8Array;
  tried: readonly number[] = nothingTried;
  picky = false;
  queuedAt = 0;
  queueMs = 0;
  attempts = 0;
  attempt: Attempt | null = null;
  status = 0;
  /** One word for how it ended; null while it runs. */
  cause: string | null = null;
  bytesOut = 0;
  /** Of a key with limits: the request counts until it ends. */
  terms: KeyTerms | null = null;
  /** Its place among the open requests. */
  slot = -1;
  done = false;
  /** First bytes of an upgraded connection. */
  early: Buffer[] = [];
  readonly #client: string | null;
  #upload: Upload | null = null;
  #retrying = false;
  #informed = false;
  #misses = 0;
  #queued = false;
  #answerLength = -1;
  #headOut = false;
  #ended = false;
  #chunkedAnswer = false;
  #drainArmed = false;
  #tunnelled = false;
  #grace: NodeJS.Timeout | null = null;
  #usage: UsageTail | null = null;

  constructor(
    plane: Plane,
    req: IncomingMessage,
    res: ProxyResponse,
    headers: RequestHeaders,
    id: string,
    upgrade: string | null,
    now: number,
  ) {
    this.plane = plane;
    this.req = req;
    this.res = res;
    this.socket = req.socket;
    this.#client = req.socket.remoteAddress ?? null;
    this.headers = headers;
    this.id = id;
    this.method = req.method ?? 'GET';
    this.target = req.url ?? '/';
    this.upgrade = upgrade;
    this.startedAt = now;
    this.allowed = plane.upstreams.known;
  }

  // --- once per request ---

  /**
   * Begins: reads as much of the body as the choice of an upstream needs, then chooses. Behind another request on its
   * connection it waits for the end of that one: it may build on what that one does, and answers that nobody can be
   * given yet would pile up.
   */
  start(model: string | null): void {
    if (this.res.socket === null) {
      this.res.once('socket', () => {
        if (!this.done && !this.#ended) this.start(model);
      });
      return;
    }
    const { settings, upstreams } = this.plane;
    if (model !== null && !this.#restrictTo(model)) return;
    if (this.headers.contentLength <= 0 && !this.headers.chunked) {
      this.choose();
      return;
    }
    const upload = new Upload(this.req, this.headers.contentLength, settings.retryBodyBytes);
    this.#upload = upload;
    const scan = this.headers.json && upstreams.knowsModels ? new ModelScan() : null;
    const small = !this.headers.chunked && this.headers.contentLength <= settings.retryBodyBytes;
    if (scan === null && !small && this.res.expectsContinue) {
      this.choose();
      return;
    }
    this.sendContinue();
    let waited = false;
    const proceed = () => {
      if (this.done || this.#ended) return;
      const modelKnown = scan === null || scan.state !== 'pending';
      const begun = waited || (!small && upload.bytes > 0);
      if (!upload.complete && !upload.full && !(modelKnown && begun)) return;
      if (this.#grace !== null) clearTimeout(this.#grace);
      upload.stopProgress();
      if (scan?.model != null && !this.#restrictTo(scan.model)) return;
      this.choose();
    };
    this.#grace = setTimeout(() => {
      waited = true;
      proceed();
    }, bodyGraceMs);
    upload.readAhead(proceed, scan, settings.modelScanBytes);
  }

  /** Takes a lease on an upstream, or waits for one, or answers that there is none. */
  choose(): void {
    const { balancer, queue } = this.plane;
    if (queue.isAhead(this)) {
      this.#enqueue();
      return;
    }
    const lease = balancer.acquire(this.plane.now(), this);
    if (lease === 'none') this.turnedAway('none');
    else if (lease === 'full') this.#enqueue();
    else this.#forward(lease);
  }

  admitted(lease: Lease): void {
    this.#queued = false;
    this.queueMs += this.plane.now() - this.queuedAt;
    this.#forward(lease);
  }

  turnedAway(why: 'none' | 'late' | 'full'): void {
    if (this.#queued) this.queueMs += this.plane.now() - this.queuedAt;
    this.#queued = false;
    if (this.attempts > 0) {
      this.#giveFailure();
      return;
    }
    if (why === 'none' && this.model !== null && this.picky) {
      this.#reply(
        openAiError(503, 'model_unavailable', `The model '${this.model}' has no live upstream at the moment.`),
        'no_upstream',
      );
    } else if (why === 'none') {
      this.refuse(503, 'no_upstream', 'No upstream can take requests at the moment.');
    } else if (why === 'full') {
      this.refuse(503, 'queue_full', 'Every upstream is busy and the queue is full.');
    } else {
      this.refuse(503, 'queue_timeout', 'Every upstream was busy for too long.');
    }
  }

  /** Answers in the proxy's own name. */
  refuse(status: number, code: string, detail: string, headers: readonly string[] = []): void {
    this.#reply(problem(status, code, detail, headers), code);
  }

  reply(answer: Answer, cause: string): void {
    this.#reply(answer, cause);
  }

  /** The client is not there any more, whatever we have been told so far. */
  get clientLeft(): boolean {
    return this.done || this.socket.destroyed || this.res.destroyed;
  }

  /** The client's side is closed: the end of every request, good or bad. */
  closed(): void {
    if (this.done || this.#tunnelled) return;
    this.#finish(this.res.writableFinished ? 'complete' : 'client_gone', 'client_gone');
  }

  /** Ends it from our side: at a drain deadline, or because the upstream was taken away. */
  cut(cause: 'drained' | 'total_timeout'): void {
    if (this.done) return;
    // An answer that is whole and waits for the end of the turn is not cut.
    this.plane.late.flush();
    this.cause = cause;
    this.plane.queue.remove(this);
    this.attempt?.cancel('drained');
    if (this.#tunnelled) this.socket.destroy();
    else if (this.res.headersSent) this.#abort();
    else if (cause === 'drained')
      this.refuse(503, 'drained', 'The server is shutting down or the upstream was removed.');
    else this.refuse(504, 'total_timeout', 'The request took too long.');
  }

  /** Looks whether a deadline has passed. Called a few times a second. */
  sweep(now: number): void {
    const { settings } = this.plane;
    if (this.socket.destroyed) {
      this.closed();
      return;
    }
    if (this.#tunnelled) {
      this.#tunnel?.sweep(now);
      return;
    }
    if (settings.totalTimeoutMs > 0 && now - this.startedAt > settings.totalTimeoutMs) {
      this.cut('total_timeout');
      return;
    }
    if (this.#queued) return;
    const upload = this.#upload;
    const attempt = this.attempt;
    if (upload?.touched === true) {
      upload.touched = false;
      if (attempt !== null) attempt.touched = true;
      else this.#uploadQuietSince = now;
    }
    if (attempt === null || attempt.over) {
      if (
        upload !== null &&
        !upload.complete &&
        now - this.#uploadQuietSince > settings.idleTimeoutMs &&
        !this.#ended
      ) {
        this.refuse(408, 'request_timeout', 'The request body did not arrive in time.');
      } else if (this.#ended && this.res.socket !== null) this.#watchEnd(now);
      return;
    }
    if (attempt.sentAt === null) {
      if (now - attempt.dispatchedAt > settings.connectTimeoutMs) this.#giveUp(attempt, 'refused', 'connect_timeout');
      return;
    }
    attempt.settleIn();
    if (attempt.over) return;
    if (attempt.touched) {
      attempt.touched = false;
      attempt.quietSince = now;
      return;
    }
    const quietMs = now - attempt.quietSince;
    if (!attempt.answered) {
      if (upload !== null && !upload.complete) {
        if (quietMs > settings.idleTimeoutMs) {
          if (upload.held) this.#giveUp(attempt, 'first_byte_timeout', 'upload_stalled');
          else {
            attempt.cancel('client_gone');
            this.refuse(408, 'request_timeout', 'The request body did not arrive in time.');
          }
        }
      } else if (quietMs > settings.firstByteTimeoutMs)
        this.#giveUp(attempt, 'first_byte_timeout', 'first_byte_timeout');
    } else if (quietMs > settings.idleTimeoutMs) {
      if (attempt.paused) {
        this.cause = 'client_stalled';
        attempt.cancel('client_gone');
        this.#abort();
      } else this.#giveUp(attempt, 'idle_timeout', 'idle_timeout');
    }
  }
  #uploadQuietSince = 0;

  /** The answer is whole, but the client has not taken all of it yet. */
  #watchEnd(now: number): void {
    const unsent = this.socket.writableLength;
    if (unsent !== this.#unsent) {
      this.#unsent = unsent;
      this.#unsentSince = now;
    } else if (now - this.#unsentSince > this.plane.settings.idleTimeoutMs) {
      this.cause = 'client_stalled';
      this.socket.destroy();
    }
  }
  #unsent = -1;
  #unsentSince = 0;

  /** What a whole answer said about its tokens; null when it said nothing. */
  get usage(): Usage | null {
    return this.cause === 'complete' && this.#usage !== null ? this.#usage.read() : null;
  }

  // --- called by the attempt ---

  sendContinue(): void {
    const { res } = this;
    if (res.continued || !res.expectsContinue) return;
    res.continued = true;
    res.writeContinue();
  }

  /** 1xx other than 100 and 101. */
  information(head: AnswerHead): void {
    if (this.req.httpVersionMinor === 0 || this.res.socket === null || this.res.headersSent) return;
    this.#informed = true;
    const { status, passed } = head;
    let text = `HTTP/1.1 ${status} ${STATUS_CODES[status] ?? 'Information'}\r\n`;
    for (let i = 0; i < passed.length; i += 2) text += `${passed[i]}: ${passed[i + 1]}\r\n`;
    this.res.socket.write(`${text}\r\n`, 'latin1');
  }

  /** The head of the answer. False when it cannot be passed on. */
  answer(head: AnswerHead, attempt: Attempt): boolean {
    const { res } = this;
    const { status } = head;
    const none = !hasBody(this.method, status);
    // A length beside 204 is forbidden, and some would wait for so many bytes.
    const contentLength = status === 204 ? -1 : head.contentLength;
    const chunked = contentLength === -1 && !none && this.req.httpVersionMinor > 0;
    const flat = this.#answerHeaders(head, attempt);
    if (head.trailer !== null && chunked) flat.push('trailer', head.trailer);
    const close = this.plane.draining || this.upgrade !== null;
    const { dated } = head;
    if (!res.takeHead(status, head.reason, flat, { contentLength, none, chunked }, { close, dated })) return false;
    this.status = status;
    this.#endRetry();
    if (this.method === 'POST' && status === 200 && tellsUsage(head)) this.#usage = new UsageTail();
    this.#chunkedAnswer = chunked;
    this.#answerLength = none ? -1 : contentLength;
    // With the first bytes of the body if they are here already, alone if they are not.
    attempt.flushSoon();
    return true;
  }

  #answerHeaders(head: AnswerHead, attempt: Attempt): string[] {
    const flat = head.passed;
    flat.push('via', head.via === '' ? '1.1 gpuproxy' : `${head.via}, 1.1 gpuproxy`);
    if (!head.identified) flat.push('x-request-id', this.id);
    if (this.plane.settings.instanceHeader) flat.push('x-gpuproxy-instance', attempt.upstream.entry.id);
    return flat;
  }

  flushHead(): void {
    if (this.#headOut || this.#ended || this.res.destroyed) return;
    this.#headOut = true;
    this.res.flushHeaders();
  }

  /**
   * Passes bytes of the body on; those of a text are its characters. False when the client takes no more for now; the
   * attempt is resumed when it does. A small piece is copied: as a string it leaves in one write with what goes before it.
   */
  write(chunk: Buffer | string): boolean {
    const { res } = this;
    const headOut = this.#headOut;
    const piece = typeof chunk === 'string' || chunk.length > copiedBytes ? chunk : chunk.toString('latin1');
    this.#headOut = true;
    this.bytesOut += chunk.length;
    if (this.#usage !== null) {
      if (typeof piece === 'string') this.#usage.push(piece);
      else this.#usage.pushEnd(piece);
    }
    if (this.bytesOut === this.#answerLength) {
      this.#ended = true;
      // Before the client can see the end: whoever has its answer must not find the slot still taken.
      this.attempt?.complete();
      if (typeof piece !== 'string') res.end(piece);
      else if (headOut) res.end(piece, 'latin1');
      else this.plane.late.end(res, piece);
      return true;
    }
    const { socket } = res;
    let more: boolean;
    if (this.#chunkedAnswer && socket !== null) more = this.#writeChunk(socket, piece, headOut);
    else more = typeof piece === 'string' ? res.write(piece, 'latin1') : res.write(piece);
    if (!more) this.#awaitDrain();
    return more;
  }

  /**
   * One chunk of a chunked answer, framed here: the bytes are those of `res.write`, but they leave in one write where
   * node gathers three pieces. All chunks of an answer go this way, because `res.write` may hold some back.
   */
  #writeChunk(socket: Socket, piece: Buffer | string, headOut: boolean): boolean {
    const size = typeof piece === 'string' ? hexadecimal(piece.length) : piece.length.toString(16);
    if (headOut && typeof piece === 'string') return socket.write(`${size}\r\n${piece}\r\n`, 'latin1');
    socket.cork();
    if (!headOut) this.res.flushHeaders();
    let more: boolean;
    if (typeof piece === 'string') more = socket.write(`${size}\r\n${piece}\r\n`, 'latin1');
    else {
      socket.write(`${size}\r\n`, 'latin1');
      socket.write(piece);
      more = socket.write('\r\n', 'latin1');
    }
    socket.uncork();
    return more;
  }

  /** The head is out and chunks follow it. */
  get takesChunks(): boolean {
    return this.#chunkedAnswer && this.#headOut && !this.#ended;
  }

  /** Passes whole chunks on with the framing that they have. False when the client takes no more for now. */
  writeChunks(text: string, bodyBytes: number): boolean {
    this.bytesOut += bodyBytes;
    this.#usage?.push(text, true);
    const more = this.socket.write(text, 'latin1');
    if (!more) this.#awaitDrain();
    return more;
  }

  #awaitDrain(): void {
    if (this.#drainArmed) return;
    this.#drainArmed = true;
    const { res } = this;
    const resume = () => this.attempt?.resume();
    res.on('drain', resume);
    this.socket.on('drain', resume);
    res.on('close', () => this.socket.off('drain', resume));
  }

  end(trailers: readonly string[]): void {
    if (this.#ended) return;
    this.#ended = true;
    if (this.#chunkedAnswer && trailers.length > 0) this.#addTrailers(trailers);
    this.res.end();
  }

  /**
   * The request may be sent once more as it was, to the same upstream on a new connection: nothing has come back and
   * nothing of it is lost. Once a request; `sent`: some of it may have got there.
   */
  takeRepeat(sent: boolean): boolean {
    if (this.#repeated || this.#informed || this.res.headersSent || this.#upload?.replayable === false) return false;
    this.#repeated = true;
    if (sent) {
      this.attempts++;
      this.plane.recorder.retries++;
    }
    return true;
  }
  #repeated = false;

  /**
   * The upstream has answered, but with a status that another one may do better. True when another one was found and is
   * being asked; false when this answer has to do.
   */
  answerElsewhere(attempt: Attempt, ending: Ending, retryAfter: number | null): boolean {
    if (!this.#mayRetry(attempt, ending)) return false;
    this.tried = [...this.tried, attempt.lease.row];
    const lease = this.plane.balancer.acquire(this.plane.now(), this);
    if (lease === 'none' || lease === 'full') return false;
    attempt.settle(ending, retryAfter);
    this.#forward(lease);
    return true;
  }

  /** The attempt ended without a whole answer, and the client is still there. */
  attemptFailed(attempt: Attempt, ending: Ending, code: string): void {
    attempt.settle(ending);
    this.#failure = ending;
    this.#failureCode = code;
    if (this.res.headersSent) {
      this.cause = ending;
      this.#abort();
      return;
    }
    this.#goOnWithout(attempt, ending);
  }

  /** This machine has no socket left for the attempt: another upstream may have a connection that is open. */
  noSocket(attempt: Attempt): void {
    attempt.settle('client_gone');
    this.#failure = 'no_sockets';
    this.#goOnWithout(attempt, 'refused');
  }

  #goOnWithout(attempt: Attempt, ending: Ending): void {
    if (!this.#mayRetry(attempt, ending)) {
      this.#giveFailure();
      return;
    }
    this.tried = [...this.tried, attempt.lease.row];
    this.choose();
  }

  /** Tells the client how the last attempt failed. */
  #giveFailure(): void {
    if (this.#failure === 'first_byte_timeout') {
      this.refuse(504, 'first_byte_timeout', 'The upstream did not answer in time.');
      return;
    }
    if (this.#failure === 'no_sockets') {
      this.refuse(503, 'no_sockets', 'The proxy has run out of sockets.');
      return;
    }
    const detail = `The upstream could not be reached or broke off (${this.#failureCode}).`;
    this.#reply(problem(502, 'upstream_failed', detail, []), this.#failure);
  }
  #failure: Ending | 'no_sockets' = 'refused';
  #failureCode = '';

  /** The upstream has switched protocols: from here on bytes pass both ways until either side closes. */
  tunnel(answer: AnswerHead, upstream: Socket, attempt: Attempt): void {
    const { socket, res } = this;
    this.#tunnelled = true;
    this.status = 101;
    this.#endRetry();
    this.plane.recorder.upgrades++;
    res.detachSocket(socket);
    socket.removeAllListeners('data');
    socket.removeAllListeners('end');
    const protocol = answer.upgrade ?? this.upgrade ?? 'websocket';
    let head = `HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: ${protocol}\r\n`;
    const flat = this.#answerHeaders(answer, attempt);
    for (let i = 0; i < flat.length; i += 2) head += `${flat[i]}: ${flat[i + 1]}\r\n`;
    const writtenBefore = socket.bytesWritten;
    socket.write(`${head}\r\n`, 'latin1');
    for (const chunk of this.early) upstream.write(chunk);
    this.early = [];
    let ending: Ending = 'complete';
    const close = () => {
      if (this.done) return;
      attempt.settle(ending);
      this.bytesOut = Math.max(0, socket.bytesWritten - writtenBefore - head.length - 2);
      this.#finish(this.cause ?? ending, 'client_gone');
    };
    socket.setKeepAlive(true, 60_000);
    upstream.setKeepAlive(true, 60_000);
    socket.on('error', () => {
      ending = 'client_gone';
    });
    upstream.on('error', () => {
      if (ending === 'complete' && !socket.destroyed) ending = 'truncated';
    });
    socket.on('close', () => {
      upstream.destroy();
      close();
    });
    upstream.on('close', () => {
      if (ending === 'complete' && !socket.destroyed) {
        socket.destroySoon();
        setTimeout(destroySocket, lingerMs, socket).unref();
      } else socket.destroy();
    });
    this.#tunnel = new Tunnel(socket, upstream, this.plane.settings.idleTimeoutMs, this.plane.now());
    socket.on('data', (chunk: Buffer) => {
      this.#tunnelBytesIn += chunk.length;
    });
    socket.pipe(upstream);
    upstream.pipe(socket);
  }
  #tunnel: Tunnel | null = null;
  #tunnelBytesIn = 0;

  /** Somebody joined, left or changed its models. */
  directoryChanged(): void {
    const { upstreams, queue } = this.plane;
    const knows = this.model !== null && upstreams.knowsModels;
    const mask = knows ? upstreams.serving(this.model as string) : upstreams.known;
    this.allowed = mask ?? upstreams.nobody;
    if (mask !== null || !this.#queued) return;
    // What it waits for is not in the fleet any more.
    queue.remove(this);
    this.#queued = false;
    this.queueMs += this.plane.now() - this.queuedAt;
    this.#modelNotFound();
  }

  /** Bytes of the request body that have arrived. */
  get bytesIn(): number {
    return this.#upload?.bytes ?? this.#tunnelBytesIn;
  }

  /** Address of the client. */
  get client(): string | null {
    return this.#client;
  }

  get times(): RequestTimes {
    const attempt = this.attempt;
    return {
      queueMs: this.queueMs,
      connectMs: attempt?.sentAt == null ? null : attempt.sentAt - attempt.dispatchedAt,
      ttfbMs: attempt?.firstByteAt == null ? null : attempt.firstByteAt - attempt.dispatchedAt,
      totalMs: this.plane.now() - this.startedAt,
    };
  }

  // --- details ---

  #restrictTo(model: string): boolean {
    this.model = model;
    const { upstreams } = this.plane;
    if (!upstreams.knowsModels) return true;
    const mask = upstreams.serving(model);
    if (mask === null) {
      this.#modelNotFound();
      return false;
    }
    this.allowed = mask;
    this.picky = true;
    return true;
  }

  #modelNotFound(): void {
    const message = `The model '${this.model}' does not exist or is not served here.`;
    this.#reply(openAiError(404, 'model_not_found', message), 'model_not_found');
  }

  #enqueue(): void {
    this.queuedAt = this.plane.now();
    if (this.plane.queue.add(this)) {
      this.#queued = true;
      this.plane.queue.wake();
    } else this.turnedAway('full');
  }

  /** One attempt: an upstream is chosen and its slot taken. */
  #forward(lease: Lease): void {
    const { plane } = this;
    const upstream = plane.upstreams.get(lease.row, lease.generation);
    if (upstream === null) {
      lease.settle('client_gone', plane.now());
      this.tried = [...this.tried, lease.row];
      if (++this.#misses > maxMisses) this.turnedAway('none');
      else this.choose();
      return;
    }
    if (this.attempts++ > 0) {
      plane.recorder.retries++;
      if (!this.#retrying) plane.retrying++;
      this.#retrying = true;
    }
    const attempt = new Attempt(this, lease, upstream, plane.now());
    this.attempt = attempt;
    if (this.trace !== null) this.trace.attempted(attempt);
    const chunkedWithTrailer = this.headers.trailer !== null && this.headers.chunked;
    const outgoing: Outgoing = {
      method: this.method,
      path: upstream.prefix === '' ? this.target : upstream.prefix + this.target,
      headers: this.headers.forward,
      upload: this.#upload,
      trailer: chunkedWithTrailer ? this.headers.trailer : null,
      upgrade: this.upgrade,
    };
    attempt.dispatch(outgoing);
  }

  #mayRetry(attempt: Attempt, ending: Ending): boolean {
    const { settings, active } = this.plane;
    if (this.#informed || this.res.headersSent || this.attempts > settings.maxRetries) return false;
    const inFlight = this.plane.retrying - (this.#retrying ? 1 : 0);
    if (inFlight >= Math.max(settings.retryBudgetMin, settings.retryBudgetFraction * active.size)) return false;
    if (attempt.sentAt === null) return this.#upload?.replayable !== false;
    if (ending === 'first_byte_timeout' && idempotent[this.method] !== true) return false;
    return this.#upload?.replayable !== false;
  }

  #giveUp(attempt: Attempt, ending: Ending, code: string): void {
    attempt.cancel(ending);
    this.attemptFailed(attempt, ending, code);
  }

  #reply(answer: Answer, cause: string): void {
    if (this.res.headersSent || this.clientLeft) {
      this.closed();
      return;
    }
    this.cause = cause;
    this.status = answer.status;
    this.#ended = true;
    this.#headOut = true;
    if (this.#grace !== null) clearTimeout(this.#grace);
    const flat = [...answer.headers, 'content-length', String(Buffer.byteLength(answer.body)), 'x-request-id', this.id];
    if (this.plane.draining || this.upgrade !== null) flat.push('connection', 'close');
    this.res.writeHead(answer.status, flat);
    this.bytesOut = this.method === 'HEAD' ? 0 : Buffer.byteLength(answer.body);
    this.res.end(answer.body);
  }

  #addTrailers(trailers: readonly string[]): void {
    const passed = passedTrailers(trailers);
    const sound: [string, string][] = [];
    for (let i = 0; i < passed.length; i += 2) {
      const [name, value] = [passed[i]!, passed[i + 1]!];
      try {
        validateHeaderName(name);
        validateHeaderValue(name, value);
        sound.push([name, value]);
      } catch {
        // One that node refuses to write is left out: the body itself is whole.
      }
    }
    // All at once: each call takes the place of the one before.
    this.res.addTrailers(sound);
  }

  /** Breaks the client's transfer so that it cannot be taken for a whole answer. */
  #abort(): void {
    const { socket } = this;
    this.#ended = true;
    // Without a length and without chunks only a reset tells a broken body from a finished one.
    if (!this.#chunkedAnswer && this.#answerLength === -1) {
      // Also under TLS: not every client minds a connection that ends without a close_notify.
      ((socket as Socket & { _parent?: Socket })._parent ?? socket).resetAndDestroy();
      socket.destroy();
      return;
    }
    socket.destroySoon();
    setTimeout(destroySocket, 1_000, socket).unref();
  }

  /** A retry has brought an answer, however long that lasts: it does not count against the budget any more. */
  #endRetry(): void {
    if (!this.#retrying) return;
    this.#retrying = false;
    this.plane.retrying--;
  }

  #finish(cause: string, ending: Ending): void {
    this.done = true;
    const { plane } = this;
    plane.active.remove(this);
    if (this.terms !== null) plane.keyLimits.release(this.terms);
    if (this.#queued) plane.queue.remove(this);
    if (this.#grace !== null) clearTimeout(this.#grace);
    this.attempt?.cancel(ending);
    this.#endRetry();
    this.cause ??= cause;
    if (this.status === 0) this.status = 499;
    const upload = this.#upload;
    if (upload !== null) {
      plane.recorder.bytesIn += upload.bytes;
      if (!upload.complete) {
        upload.discard();
        linger(this.req, this.socket);
      }
    } else if (!this.req.complete && this.upgrade === null) linger(this.req, this.socket);
    plane.recorder.finished(this);
    if (this.trace !== null) this.trace.ended(this);
  }
}

/** May the body be that of a model, in a form that can be read as it passes? */
function tellsUsage(head: AnswerHead): boolean {
  const type = head.contentType;
  return (
    type !== null && !head.encoded && (type.startsWith('application/json') || type.startsWith('text/event-stream'))
  );
}

/** Sizes of pieces as chunks tell them: to write a number to the base of 16 takes longer than to look it up. */
const sizes: string[] = [];

function hexadecimal(size: number): string {
  let text = sizes[size];
  if (text === undefined) {
    text = size.toString(16);
    sizes[size] = text;
  }
  return text;
}

function destroySocket(socket: Socket): void {
  socket.destroy();
}

function linger(req: IncomingMessage, socket: Socket): void {
  if (socket.destroyed) return;
  const timer = setTimeout(destroySocket, lingerMs, socket);
  timer.unref();
  req.once('end', () => clearTimeout(timer));
  req.resume();
}
