import { type Attributes, ROOT_CONTEXT, type Span, SpanKind, SpanStatusCode, trace } from '@opentelemetry/api';
import { ExportResultCode, parseTraceParent } from '@opentelemetry/core';
import { OTLPTraceExporter } from '@opentelemetry/exporter-trace-otlp-http';
import { resourceFromAttributes } from '@opentelemetry/resources';
import {
  AlwaysOffSampler,
  AlwaysOnSampler,
  BatchSpanProcessor,
  ParentBasedSampler,
  type Sampler,
  type SpanExporter,
  TraceIdRatioBasedSampler,
  TracerProvider,
} from '@opentelemetry/sdk-trace';
import { monotonicMs } from '../clock.ts';
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
/** For a batch with all its repetitions. */
const exportMs = 10_000;
const closeMs = 2_000;

const broken: readonly (Ending | null)[] = [
  'server_error',
  'refused',
  'first_byte_timeout',
  'truncated',
  'idle_timeout',
];

/**
 * Spans of requests, one each with its attempts as children. They begin when they begin, because upstreams are told
 * their names, and are filled in when the request has ended and all its times are known.
 */
export class Tracer {
  readonly #provider: TracerProvider;
  readonly #tracer: ReturnType<TracerProvider['getTracer']>;
  readonly #epochOffsetMs: number;
  #waiting = 0;
  exported = 0;
  dropped = 0;

  /** `epochOffsetMs`: wall time minus the monotonic time of the data plane. */
  constructor({ endpoint, headers, service, sampler, ratio }: TraceSettings, epochOffsetMs: number) {
    this.#epochOffsetMs = epochOffsetMs;
    const exporter = new OTLPTraceExporter({ url: `${endpoint}/v1/traces`, headers, timeoutMillis: exportMs });
    const processor = new BatchSpanProcessor({
      exporter: this.#counted(exporter),
      scheduledDelayMillis: flushMs,
      maxExportBatchSize: batchSpans,
      maxQueueSize: maxSpans,
      exportTimeoutMillis: exportMs,
    });
    this.#provider = new TracerProvider({
      resource: resourceFromAttributes({ 'service.name': service, 'process.pid': process.pid }),
      sampler: samplerOf(sampler, ratio),
      spanProcessors: [processor],
    });
    this.#tracer = this.#provider.getTracer('gpuproxy');
  }

  /** The trace of a request by the headers it came with; null when it is not sampled. */
  begin(headers: string[]): RequestTrace | null {
    let parent: ReturnType<typeof parseTraceParent> = null;
    for (let i = 0; i < headers.length; i += 2) {
      if (headers[i] === 'traceparent') parent = parseTraceParent(headers[i + 1]!);
    }
    const context = parent === null ? ROOT_CONTEXT : trace.setSpanContext(ROOT_CONTEXT, { ...parent, isRemote: true });
    const options = { kind: SpanKind.SERVER, startTime: this.#wall(monotonicMs()) };
    const span = this.#tracer.startSpan('request', options, context);
    return span.isRecording() ? new RequestTrace(this, span, headers) : null;
  }

  beginAttempt(request: Span, dispatchedAt: number): Span {
    const options = { kind: SpanKind.CLIENT, startTime: this.#wall(dispatchedAt) };
    return this.#tracer.startSpan('attempt', options, trace.setSpan(ROOT_CONTEXT, request));
  }

  /** Fills in and ends the spans of a request that has ended. */
  finish({ span, attempts }: RequestTrace, exchange: Exchange): void {
    const { id, times, cause, status, usage } = exchange;
    const endedAt = exchange.startedAt + times.totalMs;
    const path = pathOf(exchange);
    const failed = status >= 500 || broken.includes(cause as Ending);
    this.#end(span, exchange.method, endedAt, failed, {
      'http.request.method': exchange.method,
      'url.path': path,
      'url.scheme': exchange.plane.settings.tls === null ? 'http' : 'https',
      'network.protocol.version': exchange.req.httpVersion,
      'client.address': exchange.client ?? undefined,
      'http.response.status_code': status,
      'http.response.body.size': exchange.bytesOut,
      'gen_ai.request.model': exchange.model ?? undefined,
      'gen_ai.usage.input_tokens': usage?.promptTokens,
      'gen_ai.usage.output_tokens': usage?.completionTokens,
      'gpuproxy.request_id': id,
      'gpuproxy.cause': cause ?? undefined,
      'gpuproxy.queue_ms': times.queueMs,
      'error.type': failed ? (cause === 'complete' || cause === null ? String(status) : cause) : undefined,
    });
    for (const [index, { attempt, span: child }] of attempts.entries()) {
      const { entry } = attempt.upstream;
      const origin = new URL(entry.origin);
      const bad = broken.includes(attempt.ending);
      if (attempt.firstByteAt !== null) child.addEvent('first byte', this.#wall(attempt.firstByteAt));
      this.#end(child, exchange.method, attempt.endedAt ?? endedAt, bad, {
        'http.request.method': exchange.method,
        'url.full': `${origin.origin}${attempt.upstream.prefix}${path}`,
        'server.address': origin.hostname,
        'server.port': Number(origin.port || (origin.protocol === 'https:' ? 443 : 80)),
        'http.response.status_code': attempt.status ?? undefined,
        'http.request.resend_count': index === 0 ? undefined : index,
        'gpuproxy.upstream': entry.id,
        'gpuproxy.provider': entry.provider,
        'gpuproxy.ending': attempt.ending ?? undefined,
        'error.type': bad ? (attempt.ending ?? undefined) : undefined,
      });
    }
  }

  /** Sends what is left, within two seconds. */
  async close(): Promise<void> {
    const late = new Promise<void>((resolve) => setTimeout(resolve, closeMs).unref());
    // What could not be sent is counted where it fails.
    await Promise.race([late, this.#provider.shutdown().catch(() => {})]);
  }

  #end(span: Span, method: string, endedAt: number, failed: boolean, attributes: Attributes): void {
    span.updateName(method).setAttributes(attributes);
    if (failed) span.setStatus({ code: SpanStatusCode.ERROR });
    // The processor drops what is too much without a word.
    if (this.#waiting >= maxSpans) {
      this.dropped++;
      return;
    }
    this.#waiting++;
    span.end(this.#wall(endedAt));
  }

  #counted(exporter: SpanExporter): SpanExporter {
    return {
      export: (spans, done) =>
        exporter.export(spans, (result) => {
          this.#waiting -= spans.length;
          if (result.code === ExportResultCode.SUCCESS) this.exported += spans.length;
          else this.dropped += spans.length;
          done(result);
        }),
      shutdown: () => exporter.shutdown(),
      forceFlush: () => exporter.forceFlush?.() ?? Promise.resolve(),
    };
  }

  #wall(monotonic: number): number {
    return this.#epochOffsetMs + monotonic;
  }
}

/** A request that is traced: its span, and those of its attempts. */
export class RequestTrace {
  readonly traceId: string;
  readonly span: Span;
  readonly attempts: { attempt: Attempt; span: Span }[] = [];
  readonly #tracer: Tracer;
  readonly #headers: string[];

  constructor(tracer: Tracer, span: Span, headers: string[]) {
    this.#tracer = tracer;
    this.span = span;
    this.traceId = span.spanContext().traceId;
    this.#headers = headers;
  }

  /** Names the attempt and puts that name into the headers that go with it, as the parent of what the upstream does. */
  attempted(attempt: Attempt): void {
    const span = this.#tracer.beginAttempt(this.span, attempt.dispatchedAt);
    this.attempts.push({ attempt, span });
    const value = `00-${this.traceId}-${span.spanContext().spanId}-01`;
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

function samplerOf(name: SamplerName, ratio: number): Sampler {
  const root = name.endsWith('always_on')
    ? new AlwaysOnSampler()
    : name.endsWith('always_off')
      ? new AlwaysOffSampler()
      : new TraceIdRatioBasedSampler(ratio);
  return name.startsWith('parentbased_') ? new ParentBasedSampler({ root }) : root;
}

function pathOf({ target }: Exchange): string {
  const query = target.indexOf('?');
  return query === -1 ? target : target.slice(0, query);
}
