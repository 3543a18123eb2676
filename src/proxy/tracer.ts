import { randomBytes } from 'node:crypto';
import { request } from 'undici';
import type { SamplerName } from '../config.ts';
import type { Ending } from '../core/domain.ts';
import type { Attempt } from './attempt.ts';
import type { Exchange } from './exchange.ts';

/** The variables of OpenTelemetry as one record. Plain data, so that it travels to a worker. */
export type TraceSettings = Readonly<{
  /** Base URL of an OTLP/HTTP receiver. */
  endpoint: string;
  headers: Readonly<Record<string, string>>;
  service: string;
  sampler: SamplerName;
  /** Part of the traces that the ratio samplers keep. */
  ratio: number;
}>;

const flushMs = 1_000;
const batchSpans = 512;
/** Beyond it spans are dropped: a receiver that is away must not fill the memory. */
const maxSpans = 4_096;
const exportMs = 10_000;
const maxPauseMs = 30_000;

const serverKind = 2;
const clientKind = 3;
const errorStatus = 2;
const broken: readonly (Ending | null)[] = [
  'server_error',
  'refused',
  'first_byte_timeout',
  'truncated',
  'idle_timeout',
];

type Attribute = { key: string; value: { stringValue: string } | { intValue: string } | { doubleValue: number } };
type Span = Readonly<Record<string, unknown>>;

/**
 * Spans of requests, one each with its attempts as children, sent as OTLP/HTTP JSON. A span is written once, when its
 * request has ended and all its times are known; nothing is kept open in between.
 */
export class Tracer {
  readonly #settings: TraceSettings;
  readonly #epochOffsetMs: number;
  #spans: Span[] = [];
  #timer: NodeJS.Timeout | null = null;
  #sending: Promise<void> | null = null;
  #failures = 0;
  #closed = false;
  exported = 0;
  dropped = 0;

  /** `epochOffsetMs`: wall time minus the monotonic time of the data plane. */
  constructor(settings: TraceSettings, epochOffsetMs: number) {
    this.#settings = settings;
    this.#epochOffsetMs = epochOffsetMs;
  }

  /** The trace of a request by the headers it came with; null when it is not sampled. */
  begin(headers: string[]): RequestTrace | null {
    let parent: RegExpExecArray | null = null;
    for (let i = 0; i < headers.length; i += 2) {
      if (headers[i] === 'traceparent') parent = traceparentPattern.exec(headers[i + 1]!);
    }
    const valid = parent !== null && parent[1] !== noTrace && parent[2] !== noSpan ? parent : null;
    const traceId = valid?.[1] ?? randomBytes(16).toString('hex');
    const sampled = valid === null ? null : (Number.parseInt(valid[3]!, 16) & 1) === 1;
    return this.#samples(traceId, sampled) ? new RequestTrace(this, traceId, valid?.[2] ?? null, headers) : null;
  }

  #samples(traceId: string, parentSampled: boolean | null): boolean {
    const { sampler, ratio } = this.#settings;
    if (sampler.startsWith('parentbased_') && parentSampled !== null) return parentSampled;
    if (sampler.endsWith('always_on')) return true;
    if (sampler.endsWith('always_off')) return false;
    // 52 bits: as many as a number holds exactly. The same trace gets the same answer everywhere.
    return Number.parseInt(traceId.slice(-13), 16) < ratio * 2 ** 52;
  }

  /** Writes the spans of a request that has ended. */
  finish(trace: RequestTrace, exchange: Exchange): void {
    const { id, times, cause, status } = exchange;
    const endedAt = exchange.startedAt + times.totalMs;
    const path = pathOf(exchange);
    const failed = status >= 500 || broken.includes(cause as Ending);
    this.#add({
      traceId: trace.traceId,
      spanId: trace.spanId,
      ...(trace.parentId === null ? {} : { parentSpanId: trace.parentId }),
      name: exchange.method,
      kind: serverKind,
      startTimeUnixNano: this.#nanos(exchange.startedAt),
      endTimeUnixNano: this.#nanos(endedAt),
      attributes: attributes({
        'http.request.method': exchange.method,
        'url.path': path,
        'url.scheme': exchange.plane.settings.tls === null ? 'http' : 'https',
        'network.protocol.version': exchange.req.httpVersion,
        'client.address': exchange.client,
        'http.response.status_code': status,
        'http.response.body.size': exchange.bytesOut,
        'gen_ai.request.model': exchange.model,
        'gen_ai.usage.input_tokens': exchange.usage?.promptTokens ?? null,
        'gen_ai.usage.output_tokens': exchange.usage?.completionTokens ?? null,
        'gpuproxy.request_id': id,
        'gpuproxy.cause': cause,
        'gpuproxy.queue_ms': times.queueMs,
        'error.type': failed ? (cause === 'complete' ? String(status) : cause) : null,
      }),
      status: failed ? { code: errorStatus } : {},
    });
    for (const [index, { attempt, spanId }] of trace.attempts.entries()) {
      const { entry } = attempt.upstream;
      const origin = new URL(entry.origin);
      const bad = broken.includes(attempt.ending);
      this.#add({
        traceId: trace.traceId,
        spanId,
        parentSpanId: trace.spanId,
        name: exchange.method,
        kind: clientKind,
        startTimeUnixNano: this.#nanos(attempt.dispatchedAt),
        endTimeUnixNano: this.#nanos(attempt.endedAt ?? endedAt),
        attributes: attributes({
          'http.request.method': exchange.method,
          'url.full': `${origin.origin}${attempt.upstream.prefix}${path}`,
          'server.address': origin.hostname,
          'server.port': Number(origin.port || (origin.protocol === 'https:' ? 443 : 80)),
          'http.response.status_code': attempt.status,
          'http.request.resend_count': index === 0 ? null : index,
          'gpuproxy.upstream': entry.id,
          'gpuproxy.provider': entry.provider,
          'gpuproxy.ending': attempt.ending,
          'error.type': bad ? attempt.ending : null,
        }),
        events:
          attempt.firstByteAt === null
            ? []
            : [{ name: 'first byte', timeUnixNano: this.#nanos(attempt.firstByteAt), attributes: [] }],
        status: bad ? { code: errorStatus } : {},
      });
    }
  }

  /** Sends what is left, within two seconds. */
  async close(): Promise<void> {
    this.#closed = true;
    if (this.#timer !== null) clearTimeout(this.#timer);
    const end = new Promise<void>((resolve) => setTimeout(resolve, 2_000).unref());
    await Promise.race([end, (this.#sending ?? Promise.resolve()).then(() => this.#flush())]);
  }

  #add(span: Span): void {
    if (this.#spans.length >= maxSpans) {
      this.dropped++;
      return;
    }
    this.#spans.push(span);
    this.#schedule(flushMs);
  }

  #schedule(ms: number): void {
    if (this.#timer !== null || this.#sending !== null || this.#closed) return;
    this.#timer = setTimeout(() => {
      this.#timer = null;
      this.#sending = this.#flush().finally(() => {
        this.#sending = null;
        if (this.#spans.length > 0) this.#schedule(Math.min(maxPauseMs, flushMs * 2 ** this.#failures));
      });
    }, ms);
    this.#timer.unref();
  }

  /** One batch after the other until all is sent or the receiver wants a pause. */
  async #flush(): Promise<void> {
    while (this.#spans.length > 0) {
      const batch = this.#spans.slice(0, batchSpans);
      const outcome = await this.#send(batch);
      if (outcome === 'later' && !this.#closed) {
        this.#failures = Math.min(this.#failures + 1, 5);
        return;
      }
      this.#spans.splice(0, batch.length);
      if (outcome === 'sent') {
        this.#failures = 0;
        this.exported += batch.length;
      } else this.dropped += batch.length;
    }
  }

  /** `later`: the receiver cannot now; `refused`: it never will. */
  async #send(spans: readonly Span[]): Promise<'sent' | 'later' | 'refused'> {
    const { endpoint, headers, service } = this.#settings;
    try {
      const answer = await request(`${endpoint}/v1/traces`, {
        method: 'POST',
        headers: { 'content-type': 'application/json', ...headers },
        body: JSON.stringify({
          resourceSpans: [
            {
              resource: { attributes: attributes({ 'service.name': service, 'process.pid': process.pid }) },
              scopeSpans: [{ scope: { name: 'gpuproxy' }, spans }],
            },
          ],
        }),
        signal: AbortSignal.timeout(exportMs),
      });
      await answer.body.dump({ limit: 65_536 });
      if (answer.statusCode < 300) return 'sent';
      return [429, 502, 503, 504].includes(answer.statusCode) ? 'later' : 'refused';
    } catch {
      return 'later';
    }
  }

  /** Nanoseconds since the epoch: more digits than a number holds, hence text. */
  #nanos(monotonic: number): string {
    const ms = this.#epochOffsetMs + monotonic;
    const whole = Math.floor(ms);
    return `${whole}${String(Math.floor((ms - whole) * 1e6)).padStart(6, '0')}`;
  }
}

const traceparentPattern = /^[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})/;
const noTrace = '0'.repeat(32);
const noSpan = '0'.repeat(16);

/** A request that is traced: its place in the trace, and what its attempts are called there. */
export class RequestTrace {
  readonly traceId: string;
  readonly spanId = randomBytes(8).toString('hex');
  /** Span of the client; null when it sent none. */
  readonly parentId: string | null;
  readonly attempts: { attempt: Attempt; spanId: string }[] = [];
  readonly #tracer: Tracer;
  readonly #headers: string[];

  constructor(tracer: Tracer, traceId: string, parentId: string | null, headers: string[]) {
    this.#tracer = tracer;
    this.traceId = traceId;
    this.parentId = parentId;
    this.#headers = headers;
  }

  /** Names the attempt and puts that name into the headers that go with it, as the parent of what the upstream does. */
  attempted(attempt: Attempt): void {
    const spanId = randomBytes(8).toString('hex');
    this.attempts.push({ attempt, spanId });
    const value = `00-${this.traceId}-${spanId}-01`;
    let found = false;
    for (let i = 0; i < this.#headers.length; i += 2) {
      if (this.#headers[i] !== 'traceparent') continue;
      this.#headers[i + 1] = value;
      found = true;
    }
    if (!found) this.#headers.push('traceparent', value);
  }

  ended(exchange: Exchange): void {
    this.#tracer.finish(this, exchange);
  }
}

function pathOf({ target }: Exchange): string {
  const query = target.indexOf('?');
  return query === -1 ? target : target.slice(0, query);
}

function attributes(values: Readonly<Record<string, string | number | null>>): Attribute[] {
  return Object.entries(values).flatMap(([key, value]): Attribute[] => {
    if (value === null) return [];
    if (typeof value === 'string') return [{ key, value: { stringValue: value } }];
    return [{ key, value: Number.isInteger(value) ? { intValue: String(value) } : { doubleValue: value } }];
  });
}
