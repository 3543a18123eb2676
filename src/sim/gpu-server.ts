import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import * as z from 'zod';
import type { Card } from './cards.ts';
import type { FaultBook, FaultKind, FaultOf } from './faults.ts';
import { type Listening, listen, readBody } from './http.ts';
import { createRandom, type Random, seedOf } from './random.ts';
import { echoWebSocket } from './web-socket.ts';

export type GpuServerOptions = Readonly<{
  /** The contract it stands behind; faults name it. */
  contract: string;
  provider: 'vast' | 'ionet';
  card: Card;
  gpuCount: number;
  models: readonly string[];
  seed: number;
  /** 2 is twice as fast. */
  speed: number;
  /** Sequences at once; absent: by card. */
  slots?: number | undefined;
  host: string;
  faults: FaultBook;
  /** Monotonic milliseconds from which the application inside the container answers. */
  readyAt: number;
  /** /health answers 503 for ever. */
  sick: boolean;
}>;

type GpuFaultKind = FaultKind & `gpu_${string}`;
type Cut = FaultOf<'gpu_reset' | 'gpu_hang'>;
type Purpose = 'health' | 'inference' | 'other';
type Job = { readonly start: () => () => void; stop: (() => void) | null };

export type GpuServerStats = Readonly<{
  active: number;
  queued: number;
  served: number;
  aborted: number;
  tokens: number;
}>;

const words =
  'the model answers with words that mean little but arrive one after another like rain on a roof while tokens stream from a busy card to a patient reader who counts them'.split(
    ' ',
  );
/** Chunks are at least this far apart, so that hundreds of streams cost few timers; a chunk may hold several tokens. */
const chunkMs = 25;
const uvicornKeepAliveMs = 5000;
const queuePerSlot = 8;
const largestBody = 32 * 1024 * 1024;
const inferencePaths = new Set(['/v1/chat/completions', '/v1/completions', '/v1/embeddings', '/echo', '/ws']);

const completionBody = z.looseObject({
  model: z.string().optional(),
  stream: z.boolean().nullish(),
  max_tokens: z.number().int().min(1).nullish(),
  max_completion_tokens: z.number().int().min(1).nullish(),
  stream_options: z.looseObject({ include_usage: z.boolean().nullish() }).nullish(),
});
const chatBody = completionBody.extend({ messages: z.array(z.looseObject({ role: z.string() })).min(1) });
const textBody = completionBody.extend({ prompt: z.union([z.string(), z.array(z.unknown())]) });
const embeddingsBody = z.looseObject({
  model: z.string().optional(),
  input: z.union([z.string(), z.array(z.unknown()).min(1)]),
});

/** An inference server in a rented container: OpenAI's paths, as fast and as wide as its card, with a queue behind. */
export class GpuServer {
  readonly #options: GpuServerOptions;
  readonly #random: Random;
  readonly #slots: number;
  readonly #sockets = new Set<Socket>();
  readonly #waiting = new Set<Job>();
  #listening: Listening | null = null;
  #turn: Promise<void> = Promise.resolve();
  #port = 0;
  #silent = false;
  #active = 0;
  #served = 0;
  #aborted = 0;
  #tokens = 0;
  #requests = 0;

  constructor(options: GpuServerOptions) {
    this.#options = options;
    this.#random = createRandom(options.seed);
    this.#slots = options.slots ?? options.card.slots * options.gpuCount;
  }

  /** 0 until it first listened. */
  get port(): number {
    return this.#port;
  }

  get stats(): GpuServerStats {
    return {
      active: this.#active,
      queued: this.#waiting.size,
      served: this.#served,
      aborted: this.#aborted,
      tokens: this.#tokens,
    };
  }

  /** On a free port; on the same one again after `close`. */
  open(): Promise<void> {
    return this.#inTurn(() => this.#open());
  }

  /** Nothing listens any more; open connections are reset. */
  close(): Promise<void> {
    return this.#inTurn(() => this.#close());
  }

  /** A closing that overtakes its opening would leave a server behind. */
  #inTurn(work: () => Promise<void>): Promise<void> {
    const done = this.#turn.then(work);
    const next = () => {};
    this.#turn = done.then(next, next);
    return done;
  }

  async #open(): Promise<void> {
    if (this.#listening) return;
    const listening = await listen(this.#options.host, this.#port, (request, response) => {
      this.#handle(request, response).catch(() => response.destroy());
    });
    this.#listening = listening;
    this.#port = listening.port;
    listening.server.keepAliveTimeout = uvicornKeepAliveMs;
    listening.server.requestTimeout = 0;
    listening.server.on('connection', (socket: Socket) => {
      // A container whose application does not listen yet: the port is mapped, connections are cut.
      if (performance.now() < this.#options.readyAt) {
        socket.destroy();
        return;
      }
      this.#sockets.add(socket);
      socket.once('close', () => this.#sockets.delete(socket));
    });
    listening.server.on('upgrade', (request: IncomingMessage, socket: Socket, head: Buffer) => {
      socket.on('error', () => socket.destroy());
      if (this.#silent) return;
      if (pathOf(request) !== '/ws') {
        socket.end('HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n');
        return;
      }
      echoWebSocket(request, socket, head);
    });
  }

  async #close(): Promise<void> {
    const listening = this.#listening;
    this.#listening = null;
    for (const socket of this.#sockets) socket.resetAndDestroy();
    await listening?.close();
  }

  /** The host is off the net: connections stay open and nothing comes. */
  silence(silent: boolean): void {
    this.#silent = silent;
    if (!silent) for (const socket of this.#sockets) socket.resetAndDestroy();
  }

  async #handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
    if (this.#silent) return;
    const path = pathOf(request);
    const call = `${request.method} ${path}`;
    response.setHeader('X-Sim-Instance', this.#options.contract);
    const purpose =
      path === '/health' || path === '/ping' ? 'health' : inferencePaths.has(path) ? 'inference' : 'other';
    const [refusal] = this.#strike(['gpu_rate_limit', 'gpu_error'], purpose);
    if (refusal) {
      request.resume();
      if (refusal.kind === 'gpu_rate_limit') {
        response.setHeader('Retry-After', String(refusal.retryAfterS));
        answerError(response, 429, 'RateLimitError', 'Too many requests');
      } else answerError(response, refusal.status, 'InternalServerError', 'Internal Server Error');
      return;
    }
    const [cut] = this.#strike(['gpu_reset', 'gpu_hang'], purpose);
    if (cut && (cut.afterChunks === 0 || purpose !== 'inference')) {
      request.resume();
      if (cut.kind === 'gpu_reset') request.socket.resetAndDestroy();
      return;
    }
    if (call === 'POST /v1/chat/completions' || call === 'POST /v1/completions') {
      return this.#complete(request, response, call === 'POST /v1/completions' ? 'text' : 'chat', cut);
    }
    if (call === 'POST /v1/embeddings') return this.#embed(request, response, cut);
    if (path === '/echo') {
      response.writeHead(200, {
        'Content-Type': request.headers['content-type'] ?? 'application/octet-stream',
        'X-Sim-Method': request.method ?? '',
      });
      request.pipe(response);
      return;
    }
    request.resume();
    if (purpose === 'health') {
      response.writeHead(this.#options.sick ? 503 : 200, { 'Content-Length': 0 });
      response.end();
    } else if (call === 'GET /v1/models') {
      answer(response, 200, { object: 'list', data: this.#options.models.map(modelRow) });
    } else if (call === 'GET /metrics') {
      response.writeHead(200, { 'Content-Type': 'text/plain; version=0.0.4' });
      response.end(`vllm:num_requests_running ${this.#active}\nvllm:num_requests_waiting ${this.#waiting.size}\n`);
    } else answer(response, 404, { detail: 'Not Found' });
  }

  #strike<K extends GpuFaultKind>(kinds: readonly K[], purpose: Purpose): FaultOf<K>[] {
    return this.#options.faults.strike(kinds, (fault) => {
      const { instance, paths } = fault as FaultOf<GpuFaultKind>;
      return namesInstance(instance, this.#options) && (paths === 'all' || paths === purpose);
    });
  }

  /** Null after a refusal was sent. */
  async #body<S extends z.ZodType<{ model?: string | undefined }>>(
    request: IncomingMessage,
    response: ServerResponse,
    schema: S,
  ): Promise<z.infer<S> | null> {
    let value: unknown;
    try {
      value = JSON.parse(await readBody(request, largestBody));
    } catch {
      answerError(response, 400, 'BadRequestError', 'The body is not JSON.');
      return null;
    }
    const parsed = schema.safeParse(value);
    if (!parsed.success) {
      const issue = parsed.error.issues[0];
      answerError(response, 400, 'BadRequestError', `${issue?.path.join('.')}: ${issue?.message}`);
      return null;
    }
    const { model } = parsed.data;
    if (model !== undefined && !this.#options.models.includes(model)) {
      answerError(response, 404, 'NotFoundError', `The model \`${model}\` does not exist.`);
      return null;
    }
    return parsed.data;
  }

  /** Starts the work when a slot is free. The slot is given back when the answer ends or the client leaves. */
  #admit(response: ServerResponse, start: () => () => void): void {
    if (response.destroyed) {
      this.#aborted++;
      return;
    }
    if (this.#active >= this.#slots && this.#waiting.size >= this.#slots * queuePerSlot) {
      response.setHeader('Retry-After', '1');
      answerError(response, 503, 'ServiceUnavailableError', 'The queue is full.');
      return;
    }
    const job: Job = { start, stop: null };
    response.once('close', () => {
      if (response.writableFinished) this.#served++;
      else this.#aborted++;
      this.#waiting.delete(job);
      if (job.stop === null) return;
      job.stop();
      this.#active--;
      const [next] = this.#waiting;
      if (next) this.#run(next);
    });
    if (this.#active < this.#slots) this.#run(job);
    else this.#waiting.add(job);
  }

  #run(job: Job): void {
    this.#waiting.delete(job);
    this.#active++;
    job.stop = job.start();
  }

  async #complete(
    request: IncomingMessage,
    response: ServerResponse,
    shape: 'chat' | 'text',
    cut: Cut | undefined,
  ): Promise<void> {
    const body = await this.#body(request, response, shape === 'chat' ? chatBody : textBody);
    if (body === null) return;
    const count = Math.min(body.max_completion_tokens ?? body.max_tokens ?? this.#random.int(24, 120), 4096);
    const first = this.#random.int(0, words.length - 1);
    const promptTokens = Math.ceil(Number(request.headers['content-length'] ?? 200) / 4);
    const frame = completionFrame(shape, {
      id: `${shape === 'chat' ? 'chatcmpl' : 'cmpl'}-${this.#options.contract}-${++this.#requests}`,
      model: body.model ?? (this.#options.models[0] as string),
      usage: { prompt_tokens: promptTokens, completion_tokens: count, total_tokens: promptTokens + count },
    });
    const textOf = (from: number, to: number): string => {
      let out = '';
      for (let i = from; i < to; i++) out += `${i === 0 ? '' : ' '}${words[(first + i * 7) % words.length]}`;
      return out;
    };
    this.#admit(response, () => {
      const slow = this.#slowness();
      let timer: NodeJS.Timeout;
      if (body.stream !== true) {
        timer = setTimeout(
          () => {
            this.#tokens += count;
            answer(response, 200, frame.whole(textOf(0, count)), cut);
          },
          this.#ttftMs() * slow + count * this.#msPerToken() * slow,
        );
        return () => clearTimeout(timer);
      }
      let sent = 0;
      let chunks = 0;
      let dueAt = 0;
      const step = (): void => {
        if (response.destroyed || this.#silent) return;
        if (chunks === 0) {
          response.writeHead(200, { 'Content-Type': 'text/event-stream; charset=utf-8', 'Cache-Control': 'no-cache' });
          dueAt = performance.now();
        }
        if (cut && chunks >= cut.afterChunks) {
          breakOff(response, cut);
          return;
        }
        const msPerToken = this.#msPerToken() * slow;
        const burst = Math.min(count - sent, Math.max(1, Math.round(chunkMs / msPerToken)));
        let out = chunks === 0 ? frame.opening : '';
        out += frame.piece(textOf(sent, sent + burst));
        sent += burst;
        chunks++;
        this.#tokens += burst;
        if (sent >= count && cut) {
          // Shorter than the fault reckons with: broken off all the same, before its end.
          response.write(out, () => breakOff(response, cut));
          return;
        }
        if (sent >= count) {
          response.end(out + frame.closing(body.stream_options?.include_usage === true));
          return;
        }
        dueAt += burst * msPerToken;
        const wait = () => {
          timer = setTimeout(step, Math.max(0, dueAt - performance.now()));
        };
        if (response.write(out)) wait();
        else response.once('drain', wait);
      };
      timer = setTimeout(step, this.#ttftMs() * slow);
      return () => clearTimeout(timer);
    });
  }

  async #embed(request: IncomingMessage, response: ServerResponse, cut: Cut | undefined): Promise<void> {
    const body = await this.#body(request, response, embeddingsBody);
    if (body === null) return;
    const inputs = Array.isArray(body.input) ? body.input : [body.input];
    this.#admit(response, () => {
      const timer = setTimeout(
        () => {
          const usage = { prompt_tokens: 8 * inputs.length, total_tokens: 8 * inputs.length };
          const data = inputs.map((input, index) => ({ object: 'embedding', index, embedding: vectorOf(input) }));
          answer(response, 200, { object: 'list', model: body.model ?? 'bge-m3', data, usage }, cut);
        },
        (this.#ttftMs() / 4) * this.#slowness(),
      );
      return () => clearTimeout(timer);
    });
  }

  #slowness(): number {
    return this.#strike(['gpu_slow'], 'inference').reduce((factor, fault) => factor * fault.factor, 1);
  }

  /** A full batch prefills later. */
  #ttftMs(): number {
    const crowd = 1 + this.#active / this.#slots;
    return (this.#options.card.ttftMs * crowd * this.#random.between(0.85, 1.25)) / this.#options.speed;
  }

  /** Continuous batching: each further sequence costs the others a little. */
  #msPerToken(): number {
    const crowd = 1 + 0.6 * (this.#active / this.#slots);
    return ((1000 / this.#options.card.tokensPerSecond) * crowd) / this.#options.speed;
  }
}

/** Whether a fault's `instance` means this one. */
export function namesInstance(named: string, it: Readonly<{ contract: string; provider: 'vast' | 'ionet' }>): boolean {
  return named === '*' || named === it.provider || named === it.contract || named === `${it.provider}-${it.contract}`;
}

function completionFrame(
  shape: 'chat' | 'text',
  { id, model, usage }: { id: string; model: string; usage: Readonly<Record<string, number>> },
) {
  const created = Math.floor(Date.now() / 1000);
  const object = shape === 'chat' ? 'chat.completion' : 'text_completion';
  const head = { id, object: shape === 'chat' ? 'chat.completion.chunk' : object, created, model };
  const event = (choices: readonly unknown[], rest: object = {}) =>
    `data: ${JSON.stringify({ ...head, choices, ...rest })}\n\n`;
  const part = (delta: object, text: string, finish_reason: string | null) =>
    event([shape === 'chat' ? { index: 0, delta, finish_reason } : { index: 0, text, finish_reason }]);
  return {
    opening: shape === 'chat' ? part({ role: 'assistant', content: '' }, '', null) : '',
    piece: (text: string) => part({ content: text }, text, null),
    closing: (withUsage: boolean) => `${part({}, '', 'stop')}${withUsage ? event([], { usage }) : ''}data: [DONE]\n\n`,
    whole: (text: string) => ({
      id,
      object,
      created,
      model,
      choices: [
        shape === 'chat'
          ? { index: 0, message: { role: 'assistant', content: text }, finish_reason: 'stop' }
          : { index: 0, text, finish_reason: 'stop' },
      ],
      usage,
    }),
  };
}

function pathOf(request: IncomingMessage): string {
  return URL.parse(request.url ?? '/', 'http://gpu')?.pathname ?? '';
}

function vectorOf(input: unknown): number[] {
  const numbers = createRandom(seedOf(1, JSON.stringify(input)));
  return Array.from({ length: 64 }, () => Math.round(numbers.between(-1, 1) * 1e6) / 1e6);
}

function modelRow(id: string) {
  return { id, object: 'model', created: 1_760_000_000, owned_by: 'vllm', root: id, max_model_len: 32_768 };
}

/** JSON with its length; a cut ends it halfway. */
function answer(response: ServerResponse, status: number, value: unknown, cut?: Cut): void {
  if (response.destroyed) return;
  const body = Buffer.from(JSON.stringify(value));
  response.writeHead(status, { 'Content-Type': 'application/json', 'Content-Length': body.length });
  if (!cut) {
    response.end(body);
    return;
  }
  response.write(body.subarray(0, body.length >> 1), () => breakOff(response, cut));
}

/** A hang leaves it open; nothing more comes. */
function breakOff(response: ServerResponse, cut: Cut): void {
  if (cut.kind === 'gpu_reset') response.socket?.resetAndDestroy();
}

function answerError(response: ServerResponse, status: number, type: string, message: string): void {
  answer(response, status, { error: { message, type, param: null, code: status } });
}
