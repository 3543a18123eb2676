import type { SamplerName } from '../config.ts';
import type { TraceSettings } from './tracer.ts';

/** Everything a data-plane thread can be told. Plain data, so that it travels to a worker as it is. */
export type ProxySettings = Readonly<{
  /** Connecting to an upstream, TLS included. */
  connectTimeoutMs: number;
  /** From dispatch to the status line of the answer. */
  firstByteTimeoutMs: number;
  /** Silence between two chunks, of an answer and of an upload. */
  idleTimeoutMs: number;
  /** Whole request; 0: no limit. */
  totalTimeoutMs: number;
  /** Requests that may wait in this thread when every upstream is at its ceiling. */
  queueLimit: number;
  queueTimeoutMs: number;
  /** Further attempts after the first. */
  maxRetries: number;
  /** Request bodies up to this size are kept for a retry. */
  retryBodyBytes: number;
  /** Retries in flight may be this part of the active requests … */
  retryBudgetFraction: number;
  /** … but always at least this many. */
  retryBudgetMin: number;
  /** How much of a JSON body may be held while its `model` is looked for. */
  modelScanBytes: number;
  maxConnections: number;
  /** Bytes of request line and headers together. */
  maxHeaderBytes: number;
  maxHeaderCount: number;
  /** A client must have sent its whole header block in this time. */
  headersTimeoutMs: number;
  /** An idle client connection is closed after this time. */
  keepAliveTimeoutMs: number;
  /** Answer with X-Gpuproxy-Instance. */
  instanceHeader: boolean;
  /** Sent to upstreams as `Authorization: Bearer`; null: nothing is sent. */
  upstreamApiKey: string | null;
  /** Certificates of https upstreams are checked; false only for test set-ups. */
  verifyUpstreamTls: boolean;
  /** PEM texts; null: plain HTTP. */
  tls: Readonly<{ cert: string; key: string }> | null;
  /** `off`, `-` for stderr, or a file: one JSON line a request. */
  accessLog: string;
  /** Where spans go; null: nothing is traced. */
  tracing: TraceSettings | null;
}>;

export const defaultProxySettings: ProxySettings = {
  connectTimeoutMs: 5_000,
  firstByteTimeoutMs: 120_000,
  idleTimeoutMs: 120_000,
  totalTimeoutMs: 0,
  queueLimit: 1024,
  queueTimeoutMs: 30_000,
  maxRetries: 2,
  retryBodyBytes: 65_536,
  retryBudgetFraction: 0.2,
  retryBudgetMin: 3,
  modelScanBytes: 1_048_576,
  maxConnections: 16_384,
  maxHeaderBytes: 32_768,
  maxHeaderCount: 128,
  headersTimeoutMs: 15_000,
  keepAliveTimeoutMs: 65_000,
  instanceHeader: true,
  upstreamApiKey: null,
  verifyUpstreamTls: true,
  tls: null,
  accessLog: 'off',
  tracing: null,
};

/** The configuration variables that the data plane reads; the program's `Config` is one of these. */
export type ProxyVariables = Readonly<{
  CONNECT_TIMEOUT_SECONDS: number;
  FIRST_BYTE_TIMEOUT_SECONDS: number;
  IDLE_TIMEOUT_SECONDS: number;
  TOTAL_TIMEOUT_SECONDS: number;
  QUEUE_LIMIT: number;
  QUEUE_TIMEOUT_SECONDS: number;
  MAX_RETRIES: number;
  RETRY_BODY_BYTES: number;
  MAX_CONNECTIONS: number;
  INSTANCE_HEADER: boolean;
  ACCESS_LOG: string;
  UPSTREAM_API_KEY?: string | undefined;
  OTEL_EXPORTER_OTLP_ENDPOINT?: string | undefined;
  OTEL_EXPORTER_OTLP_HEADERS?: Readonly<Record<string, string>>;
  OTEL_SERVICE_NAME?: string;
  OTEL_TRACES_SAMPLER?: SamplerName;
  OTEL_TRACES_SAMPLER_ARG?: number;
}>;

/** Settings from configuration; the PEM texts are read by the caller, because TLS_CERT and TLS_KEY name files. */
export function proxySettingsFrom(variables: ProxyVariables, tls: ProxySettings['tls'] = null): ProxySettings {
  return {
    ...defaultProxySettings,
    connectTimeoutMs: variables.CONNECT_TIMEOUT_SECONDS * 1000,
    firstByteTimeoutMs: variables.FIRST_BYTE_TIMEOUT_SECONDS * 1000,
    idleTimeoutMs: variables.IDLE_TIMEOUT_SECONDS * 1000,
    totalTimeoutMs: variables.TOTAL_TIMEOUT_SECONDS * 1000,
    queueLimit: variables.QUEUE_LIMIT,
    queueTimeoutMs: variables.QUEUE_TIMEOUT_SECONDS * 1000,
    maxRetries: variables.MAX_RETRIES,
    retryBodyBytes: variables.RETRY_BODY_BYTES,
    maxConnections: variables.MAX_CONNECTIONS,
    instanceHeader: variables.INSTANCE_HEADER,
    accessLog: variables.ACCESS_LOG,
    upstreamApiKey: variables.UPSTREAM_API_KEY ?? null,
    tracing:
      variables.OTEL_EXPORTER_OTLP_ENDPOINT === undefined
        ? null
        : {
            endpoint: variables.OTEL_EXPORTER_OTLP_ENDPOINT,
            headers: variables.OTEL_EXPORTER_OTLP_HEADERS ?? {},
            service: variables.OTEL_SERVICE_NAME ?? 'gpuproxy',
            sampler: variables.OTEL_TRACES_SAMPLER ?? 'parentbased_always_on',
            ratio: variables.OTEL_TRACES_SAMPLER_ARG ?? 1,
          },
    tls,
  };
}
