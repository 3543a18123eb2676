import { setTimeout as sleep } from 'node:timers/promises';
import { Client, type Dispatcher, Pool } from 'undici';
import type * as z from 'zod';
import { monotonicMs } from '../clock.ts';
import type { ProviderName, RentResult } from '../core/domain.ts';
import { plain } from './decode-rows.ts';
import { ProviderError, type ProviderErrorCode, type ProviderStats } from './provider.ts';

/**
 * One JSON client for a marketplace: own connections, a bound on every wait and on every answer, spacing of calls by
 * endpoint, and one error type. The key goes into its header and nowhere else.
 */

export type JsonClientOptions = Readonly<{
  provider: ProviderName;
  /** May have a path, which is put before every path. */
  baseUrl: string;
  /** Headers that authenticate: sent to the base URL alone. */
  auth: Readonly<Record<string, string>>;
  /** Never to be seen in a message, even when the provider echoes it. */
  secret: string;
  /** Factor on every spacing; 0 switches spacing and waits between attempts off. */
  pace: number;
  /** Factor on every bound in time. */
  patience: number;
  /** What an answer means beyond its status; null leaves it to the status. */
  classify?: (answer: Answer) => ProviderErrorCode | null;
}>;

/** How often an endpoint may be called: `burst` calls at once, then one every `spacingMs`. */
export type Endpoint = Readonly<{
  name: string;
  spacingMs: number;
  burst?: number;
  /** Endpoints of one group share their turns. */
  group?: string;
}>;

export type Call = Readonly<{
  endpoint: Endpoint;
  method: 'GET' | 'POST' | 'PUT' | 'PATCH' | 'DELETE';
  path: string;
  query?: Readonly<Record<string, string | number>>;
  body?: unknown;
  /** Monotonic time (`monotonicMs`) after which the call has failed: waits for a turn and all attempts included. */
  until: number;
  /** Bound of one attempt. */
  timeoutMs?: number;
  /** Attempts in all, 1 by default. More than one only for what may be repeated: a paid call never. */
  attempts?: number;
  /**
   * A new connection for this call alone, so that a pooled one that the other side has just closed cannot leave it
   * open whether the call arrived.
   */
  freshConnection?: boolean;
  /** Called when the request goes out; before that nothing has happened. */
  onDispatch?: () => void;
  signal?: AbortSignal | undefined;
}>;

export type Answer = Readonly<{
  status: number;
  text: string;
  /** The parsed body; undefined when it is not JSON. */
  json: unknown;
  retryAfterMs: number | null;
}>;

export interface JsonClient {
  /** Monotonic time `ms` (times the client's patience) from now, for `Call.until`. */
  within(ms: number): number;
  /** Any answer of the provider, whatever its status. Rejects with ProviderError when there is none. */
  send(call: Call): Promise<Answer>;
  /** A decoded 2xx answer. Everything else rejects with ProviderError. */
  get<T>(call: Call, schema: z.ZodType<T>): Promise<T>;
  /** The same for an answer that is already there. */
  decode<T>(answer: Answer, endpoint: Endpoint, schema: z.ZodType<T>): T;
  /** Maps an answer that is a failure to its error. */
  failure(answer: Answer): ProviderError;
  /** Lines of a text that may never end, see LineLimits. */
  lines(call: Call, limits: LineLimits): Promise<readonly string[]>;
  /** Text made fit for a message: one line, no control characters, no secret, bounded. */
  clean(text: string): string;
  /** Milliseconds until a call to the endpoint would go out and leave `spare` more of its burst; 0: now. */
  freeIn(endpoint: Endpoint, spare?: number): number;
  readonly counters: { calls: number; retries: number; rateLimited: number; skippedRows: number };
  stats(): ProviderStats;
  close(): Promise<void>;
}

/**
 * The last `tail` lines that are not empty, read until the end, `quietMs` without news (`settledMs` once there are enough lines), `maxMs`,
 * or `maxBytes`, whichever comes first.
 */
export type LineLimits = Readonly<{
  tail: number;
  quietMs: number;
  settledMs: number;
  maxMs: number;
  maxBytes: number;
}>;

const defaultTimeoutMs = 20_000;
const connectTimeoutMs = 10_000;
const maxAnswerBytes = 16 * 1024 * 1024;
const maxBackoffMs = 60_000;
const strictMs = 600_000;
const maxMessage = 300;

/**
 * One paid call, sent at most once. A rental without an answer becomes a value: `unavailable` when it certainly never
 * arrived, else `unknown`. Rejects with the signal's reason only when the abort came before anything was sent.
 */
export async function sendPaid(http: JsonClient, call: Call): Promise<Answer | Extract<RentResult, { ok: false }>> {
  let dispatched = false;
  try {
    return await http.send({
      ...call,
      attempts: 1,
      freshConnection: true,
      onDispatch: () => {
        dispatched = true;
      },
    });
  } catch (error) {
    if (error instanceof ProviderError) {
      return { ok: false, reason: error.sent ? 'unknown' : 'unavailable', detail: error.message };
    }
    if (!dispatched || !call.signal?.aborted) throw error;
    return { ok: false, reason: 'unknown', detail: 'aborted after the request was sent' };
  }
}

export function createJsonClient(options: JsonClientOptions): JsonClient {
  const { provider, secret, pace, patience } = options;
  const base = new URL(options.baseUrl);
  const prefix = base.pathname.replace(/\/+$/, '');
  const connection = {
    // Own timers bound connect, headers and body together, so the library's coarser ones are off.
    headersTimeout: 0,
    bodyTimeout: 0,
    connect: { timeout: connectTimeoutMs },
    allowH2: false,
  };
  const pool = new Pool(base.origin, { ...connection, connections: 16, keepAliveTimeout: 10_000 });
  const counters = { calls: 0, retries: 0, rateLimited: 0, skippedRows: 0 };
  let answeredMs: number | null = null;
  const turns = new Map<string, Turns>();
  const sendable = /^[\x21-\x7e]*$/.test(secret);

  function turnsOf(endpoint: Endpoint): Turns {
    const key = endpoint.group ?? endpoint.name;
    let found = turns.get(key);
    if (!found) {
      found = new Turns(endpoint.spacingMs * pace, endpoint.burst ?? 1);
      turns.set(key, found);
    }
    return found;
  }

  function error(
    code: ProviderErrorCode,
    message: string,
    rest: { status?: number; retryAfterMs?: number | null; sent?: boolean; cause?: unknown } = {},
  ): ProviderError {
    return new ProviderError(provider, code, clean(message), rest);
  }

  function clean(text: string): string {
    // The provider's words reach terminals and logs: no escape sequences, no key.
    const line = plain(secret === '' ? text : text.replaceAll(secret, '[key]'));
    return line.length > maxMessage ? `${line.slice(0, maxMessage - 1)}…` : line;
  }

  async function takeTurn(call: Call): Promise<void> {
    const own = turnsOf(call.endpoint);
    const refuseLate = (wait: number) => {
      if (monotonicMs() + wait < call.until) return;
      throw error('rate_limited', `calls to ${call.endpoint.name} wait for their turn, ${seconds(wait)} more`, {
        retryAfterMs: Math.ceil(wait),
        sent: false,
      });
    };
    for (;;) {
      call.signal?.throwIfAborted();
      const now = monotonicMs();
      const slot = own.reserve(now);
      const wait = slot - now;
      try {
        if (wait > 0) {
          refuseLate(wait);
          await pauseFor(wait, call.signal);
        }
      } catch (cause) {
        own.giveBack(monotonicMs(), slot);
        throw cause;
      }
      // A 429 that came meanwhile moves everybody back.
      if (wait > 0 && own.blockedUntil > monotonicMs()) continue;
      // After a stall of this process several turns have come at once: they are still taken one after the other.
      for (let more = own.sooner(monotonicMs()); more > 1; more = own.sooner(monotonicMs())) {
        refuseLate(more);
        await pauseFor(more, call.signal);
      }
      own.departed(monotonicMs());
      return;
    }
  }

  /** One request on the wire. A body that `read` leaves unread is cut off. */
  async function exchange<T>(call: Call, read: (response: Dispatcher.ResponseData) => Promise<T>): Promise<T> {
    call.signal?.throwIfAborted();
    if (!sendable) {
      throw error('auth', 'the API key has characters that a header cannot carry', { sent: false });
    }
    const limit = Math.min((call.timeoutMs ?? defaultTimeoutMs) * patience, call.until - monotonicMs());
    if (limit <= 0) throw error('timeout', `no time left for ${call.endpoint.name}`, { sent: false });

    const control = new AbortController();
    // Cast: assignments inside closures are not seen by control flow analysis.
    let ended = null as 'timeout' | 'caller' | null;
    const end = (why: 'timeout' | 'caller') => {
      ended ??= why;
      control.abort();
    };
    const timer = setTimeout(end, limit, 'timeout');
    const onAbort = () => end('caller');
    call.signal?.addEventListener('abort', onAbort, { once: true });
    // What the library does after an abort must not decide when the caller goes on.
    const cut = new Promise<never>((_, reject) => {
      control.signal.addEventListener('abort', () => reject(control.signal.reason), { once: true });
    });
    cut.catch(() => {});

    const dispatcher = call.freshConnection ? new Client(base.origin, connection) : pool;
    const hasBody = call.body !== undefined;
    counters.calls++;
    call.onDispatch?.();
    try {
      const work = (async () => {
        const response = await dispatcher.request({
          method: call.method,
          path: prefix + call.path + queryOf(call.query),
          headers: {
            accept: 'application/json, text/plain, */*',
            'user-agent': 'gpuproxy',
            ...(hasBody ? { 'content-type': 'application/json' } : {}),
            ...options.auth,
          },
          body: hasBody ? JSON.stringify(call.body) : null,
          signal: control.signal,
        });
        response.body.on('error', () => {});
        return read(response);
      })();
      work.catch(() => {});
      return await Promise.race([work, cut]);
    } catch (cause) {
      if (cause instanceof ProviderError) throw cause;
      if (ended === 'caller') call.signal?.throwIfAborted();
      if (ended === 'timeout') {
        throw error('timeout', `no answer from ${call.endpoint.name} in ${seconds(limit)}`, { cause });
      }
      const fault = faultOf(cause);
      if (!fault) throw cause;
      throw error(fault.code, `${call.endpoint.name}: ${fault.text}`, { sent: fault.sent, cause });
    } finally {
      clearTimeout(timer);
      control.abort();
      call.signal?.removeEventListener('abort', onAbort);
      if (call.freshConnection) dispatcher.destroy().catch(() => {});
    }
  }

  async function readAnswer(response: Dispatcher.ResponseData): Promise<Answer> {
    const chunks: Buffer[] = [];
    let size = 0;
    for await (const chunk of response.body as AsyncIterable<Buffer>) {
      size += chunk.length;
      if (size > maxAnswerBytes) {
        response.body.destroy();
        throw error('bad_answer', `the answer is larger than ${maxAnswerBytes / 1024 / 1024} MB`, {
          status: response.statusCode,
        });
      }
      chunks.push(chunk);
    }
    const text = Buffer.concat(chunks).toString('utf8');
    return {
      status: response.statusCode,
      text,
      json: parseJson(text),
      retryAfterMs: retryAfterOf(response.headers['retry-after']),
    };
  }

  function noted(call: Call, answer: Answer): Answer {
    const own = turnsOf(call.endpoint);
    if (answer.status === 429) {
      counters.rateLimited++;
      own.refused(monotonicMs(), answer.retryAfterMs, pace);
    } else {
      own.accepted();
    }
    return answer;
  }

  async function send(call: Call): Promise<Answer> {
    const attempts = call.attempts ?? 1;
    let arrived = false;
    for (let attempt = 1; ; attempt++) {
      let outcome: { answer: Answer } | { error: ProviderError };
      try {
        await takeTurn(call);
        const sentAt = monotonicMs();
        outcome = { answer: noted(call, await exchange(call, readAnswer)) };
        answeredMs = monotonicMs() - sentAt;
      } catch (cause) {
        if (!(cause instanceof ProviderError)) throw cause;
        outcome = { error: cause };
      }
      const again =
        attempt < attempts &&
        ('answer' in outcome
          ? outcome.answer.status === 429 || outcome.answer.status >= 500
          : outcome.error.code === 'unreachable' || (outcome.error.code === 'timeout' && outcome.error.sent));
      const pause = again ? 250 * 2 ** (attempt - 1) * (0.75 + Math.random() / 2) * Math.min(1, pace) : 0;
      if (!again || monotonicMs() + pause >= call.until) {
        if ('answer' in outcome) return outcome.answer;
        const { code, message, status, retryAfterMs, sent, cause } = outcome.error;
        // An earlier attempt may have arrived although this one did not.
        throw arrived && !sent
          ? new ProviderError(provider, code, message, { status, retryAfterMs, cause })
          : outcome.error;
      }
      arrived ||= 'answer' in outcome || outcome.error.sent;
      counters.retries++;
      await pauseFor(pause, call.signal);
    }
  }

  function codeOf(answer: Answer): ProviderErrorCode {
    const special = options.classify?.(answer);
    if (special) return special;
    const { status } = answer;
    if (status === 401 || status === 403) return 'auth';
    if (status === 404) return 'not_found';
    if (status === 429) return 'rate_limited';
    if (status >= 500) return 'server_error';
    if (status >= 400) return 'rejected';
    return 'bad_answer';
  }

  function failure(answer: Answer): ProviderError {
    const code = codeOf(answer);
    const said = messageOf(answer);
    const text =
      answer.status >= 300 && answer.status < 400
        ? 'the base URL redirects elsewhere; redirects are not followed because the key would go along'
        : code === 'auth'
          ? `the API key was refused${said === '' ? '' : ` (${said})`}`
          : said === ''
            ? 'no message in the answer'
            : said;
    return error(code, `HTTP ${answer.status}: ${text}`, {
      status: answer.status,
      retryAfterMs: answer.status === 429 ? answer.retryAfterMs : null,
    });
  }

  function decode<T>(answer: Answer, endpoint: Endpoint, schema: z.ZodType<T>): T {
    if (answer.status < 200 || answer.status >= 300 || options.classify?.(answer)) {
      const thrown = failure(answer);
      if (thrown.code !== 'rate_limited') throw thrown;
      // The wait that spacing will impose is what a caller can act on.
      throw new ProviderError(provider, thrown.code, thrown.message, {
        status: thrown.status,
        retryAfterMs: Math.ceil(Math.max(0, turnsOf(endpoint).blockedUntil - monotonicMs())),
      });
    }
    const parsed = schema.safeParse(answer.json);
    if (parsed.success) return parsed.data;
    const issue = parsed.error.issues[0];
    const where = issue && issue.path.length > 0 ? ` at ${issue.path.join('.')}` : '';
    const what = answer.json === undefined ? 'not JSON' : `not as documented${where}: ${issue?.message ?? ''}`;
    throw error('bad_answer', `${endpoint.name}: the answer is ${what}`, { status: answer.status });
  }

  return {
    within: (ms) => monotonicMs() + ms * patience,
    send,
    failure,
    clean,
    counters,
    decode,
    async get<T>(call: Call, schema: z.ZodType<T>): Promise<T> {
      return decode(await send(call), call.endpoint, schema);
    },
    async lines(call, limits) {
      await takeTurn(call);
      return exchange(call, async (response) => {
        if (response.statusCode < 200 || response.statusCode >= 300) {
          throw failure(noted(call, await readAnswer(response)));
        }
        // A little before the bound of the call, so that what was read is not lost to it.
        const maxMs = Math.min(limits.maxMs, Math.max(0, call.until - monotonicMs() - 100));
        return lastLines(response.body, { ...limits, maxMs });
      });
    },
    freeIn(endpoint, spare = 0) {
      return turnsOf(endpoint).freeIn(monotonicMs(), spare);
    },
    stats: () => ({ ...counters, answeredMs }),
    close: () => pool.destroy(),
  };
}

/** Rejects with the signal's reason. */
async function pauseFor(ms: number, signal: AbortSignal | undefined): Promise<void> {
  try {
    await sleep(ms, undefined, { signal });
  } catch (cause) {
    signal?.throwIfAborted();
    throw cause;
  }
}

/**
 * Turns at one endpoint: a generic cell rate algorithm (`burst` at once, then one every `spacingMs`), moved back by
 * refusals that double from one spacing up to a minute and are forgotten at the first answer that is none. A refusal
 * also says that bursts are not welcome: for ten minutes there are none.
 */
class Turns {
  readonly #spacingMs: number;
  readonly #burst: number;
  /** When the bucket would be full again. */
  #full = Number.NEGATIVE_INFINITY;
  #backoffMs = 0;
  #strictUntil = Number.NEGATIVE_INFINITY;
  #lastAt = Number.NEGATIVE_INFINITY;
  blockedUntil = Number.NEGATIVE_INFINITY;

  constructor(spacingMs: number, burst: number) {
    this.#spacingMs = spacingMs;
    this.#burst = burst;
  }

  /** How much of the bucket a call may find used, with `spare` more left in it. */
  #usable(now: number, spare = 0): number {
    return ((now < this.#strictUntil ? 1 : this.#burst) - 1 - spare) * this.#spacingMs;
  }

  /** How much too soon a call would go out now after the last one; 0 where bursts are welcome. */
  sooner(now: number): number {
    return this.#usable(now) > 0 ? 0 : Math.max(0, this.#lastAt + this.#spacingMs - now);
  }

  departed(now: number): void {
    this.#lastAt = now;
  }

  freeIn(now: number, spare: number): number {
    return Math.max(0, this.#full - this.#usable(now, spare) - now, this.blockedUntil - now);
  }

  /** The earliest time for one more call, now or later; it is taken. */
  reserve(now: number): number {
    const slot = now + this.freeIn(now, 0);
    this.#full = Math.max(this.#full, slot) + this.#spacingMs;
    return slot;
  }

  /** Returns a slot that was not used. Only the last one can go back: a hole before others stays. */
  giveBack(now: number, slot: number): void {
    const last = this.#full - this.#spacingMs - this.#usable(now);
    if (slot >= last - 0.001) this.#full -= this.#spacingMs;
  }

  refused(now: number, retryAfterMs: number | null, pace: number): void {
    const first = Math.max(this.#spacingMs, 1000 * pace);
    this.#backoffMs = Math.min(maxBackoffMs, this.#backoffMs === 0 ? first : this.#backoffMs * 2);
    const wait = retryAfterMs ?? this.#backoffMs;
    this.blockedUntil = Math.max(this.blockedUntil, now + wait);
    this.#strictUntil = now + strictMs;
    this.#full = Math.max(Math.min(this.#full, now + wait), this.blockedUntil);
  }

  accepted(): void {
    this.#backoffMs = 0;
  }
}

/** The end of a text body that may go on for ever, without empty lines; of events their data. A body that breaks after some lines counts as ended. */
export function lastLines(body: Dispatcher.ResponseData['body'], limits: LineLimits): Promise<readonly string[]> {
  const { promise, resolve, reject } = Promise.withResolvers<readonly string[]>();
  const decoder = new TextDecoder();
  const kept: string[] = [];
  let rest = '';
  let size = 0;
  let seen = 0;
  let events: boolean | null = null;
  const keep = (raw: string) => {
    const line = raw.endsWith('\r') ? raw.slice(0, -1) : raw;
    if (line === '') return;
    // Undocumented whether a log is plain text or server-sent events: the first line tells.
    events ??= /^(data|event|id|retry)?:/.test(line);
    if (events && !line.startsWith('data:')) return;
    kept.push(events ? line.slice(line[5] === ' ' ? 6 : 5) : line);
    seen++;
    // Trimmed in blocks, so that a long text does not shift an array for every line.
    if (kept.length > limits.tail * 2 + 64) kept.splice(0, kept.length - limits.tail);
  };
  const finish = () => {
    clearTimeout(total);
    clearTimeout(quiet);
    if (rest !== '') keep(rest);
    rest = '';
    resolve(kept.slice(-limits.tail));
    body.destroy();
  };
  const total = setTimeout(finish, limits.maxMs);
  let quiet = setTimeout(finish, limits.quietMs);
  body.on('data', (chunk: Buffer) => {
    const before = seen;
    size += chunk.length;
    rest += decoder.decode(chunk, { stream: true });
    for (let end = rest.indexOf('\n'); end >= 0; end = rest.indexOf('\n')) {
      keep(rest.slice(0, end));
      rest = rest.slice(end + 1);
    }
    if (rest.length > maxLineChars) {
      keep(rest);
      rest = '';
    }
    if (size > limits.maxBytes) return finish();
    // Heartbeats are no news.
    if (seen === before) return;
    clearTimeout(quiet);
    quiet = setTimeout(finish, seen >= limits.tail ? limits.settledMs : limits.quietMs);
  });
  body.on('end', finish);
  body.on('error', (error) => {
    if (kept.length > 0 || rest !== '') return finish();
    clearTimeout(total);
    clearTimeout(quiet);
    reject(error);
  });
  return promise;
}

const maxLineChars = 64 * 1024;

/** Says what a failed exchange was. null for what is no failure of input or output: a bug, to be thrown plainly. */
function faultOf(cause: unknown): { code: ProviderErrorCode; text: string; sent: boolean } | null {
  if (!(cause instanceof Error)) return null;
  const code = 'code' in cause && typeof cause.code === 'string' ? cause.code : null;
  if (code === null || code === 'UND_ERR_INVALID_ARG') return null;
  // The message of a system or library error names the reason already, most of them with the code in it.
  const text = cause.message === '' ? code : cause.message;
  if (/^(HPE_|UND_ERR_HEADERS_OVERFLOW|UND_ERR_RES_)/.test(code)) return { code: 'bad_answer', text, sent: true };
  const before =
    ('syscall' in cause && (cause.syscall === 'connect' || cause.syscall === 'getaddrinfo')) ||
    /^(ECONNREFUSED|ENOTFOUND|EAI_|EHOSTUNREACH|ENETUNREACH|UND_ERR_CONNECT_TIMEOUT|UND_ERR_CLOSED)/.test(code) ||
    /^(ERR_TLS_|CERT_|UNABLE_TO_|DEPTH_ZERO_|SELF_SIGNED_)/.test(code) ||
    cause.message.includes('before secure TLS connection');
  return { code: 'unreachable', text, sent: !before };
}

/** The provider's own words for a failure: `msg`, `message`, `detail` (a text, or a list of validation errors), `error`. */
export function messageOf(answer: Answer): string {
  const { json, text } = answer;
  if (typeof json === 'object' && json !== null) {
    for (const key of ['msg', 'message', 'detail', 'error'] as const) {
      const value = (json as Record<string, unknown>)[key];
      if (typeof value === 'string' && value !== '') return value;
      if (Array.isArray(value)) return value.map(validationLine).join('; ');
    }
    return '';
  }
  if (typeof json === 'string') return json;
  if (/^\s*</.test(text)) return 'a page of HTML';
  return text.slice(0, 1000);
}

/**
 * Whether the service itself answered. A page or an empty body is from something in between, which may have passed the
 * call on before it failed.
 */
export function isOfApi(answer: Answer): boolean {
  return typeof answer.json === 'object' && answer.json !== null;
}

/** One entry of a 422: `{loc:["body","duration_hours"],msg,type}` → "body.duration_hours: msg". */
function validationLine(entry: unknown): string {
  if (typeof entry !== 'object' || entry === null) return String(entry);
  const { loc, msg, type } = entry as { loc?: unknown; msg?: unknown; type?: unknown };
  const words = typeof msg === 'string' ? msg : typeof type === 'string' ? type : 'invalid';
  return Array.isArray(loc) && loc.length > 0 ? `${loc.join('.')}: ${words}` : words;
}

function queryOf(query: Call['query']): string {
  const pairs = Object.entries(query ?? {});
  return pairs.length === 0
    ? ''
    : `?${new URLSearchParams(pairs.map(([key, value]) => [key, String(value)])).toString()}`;
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** Seconds or a date, as milliseconds from now; no longer than is waited for: nobody who retries is sent away for days. */
function retryAfterOf(header: string | string[] | undefined): number | null {
  const text = Array.isArray(header) ? header[0] : header;
  if (text === undefined) return null;
  const ms = /^\d+$/.test(text.trim()) ? Number(text) * 1000 : Date.parse(text) - Date.now();
  return Number.isFinite(ms) ? Math.min(maxBackoffMs, Math.max(0, ms)) : null;
}

function seconds(ms: number): string {
  return `${ms < 10_000 ? Math.round(ms / 100) / 10 : Math.round(ms / 1000)} s`;
}
