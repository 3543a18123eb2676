import type * as z from 'zod';
import { AppError, type AppErrorCode } from '../fleet/app.ts';
import { ProviderError } from '../providers/provider.ts';
import type * as schemas from './schemas.ts';

type FieldError = NonNullable<z.output<typeof schemas.problem>['errors']>[number];

/** Every code that an answer can carry: status, title and what the reader can do. Codes are stable, texts are not. */
export const problems = {
  bad_json: { status: 400, title: 'The body is not JSON', advice: 'Send one JSON document in UTF-8.' },
  bad_request: { status: 400, title: 'The request is malformed', advice: 'Check the request line and the headers.' },
  invalid: { status: 400, title: 'A value is not accepted', advice: 'errors[] names each field and what it accepts.' },
  unauthorized: {
    status: 401,
    title: 'A key is needed',
    advice: 'Send X-API-Key or Authorization: Bearer with a key that was not revoked and has not expired.',
  },
  forbidden: { status: 403, title: 'The key may not do this', advice: 'Use a key with the scope admin.' },
  read_only: { status: 403, title: 'This server only reads', advice: 'Ask the person who runs it.' },
  not_found: { status: 404, title: 'There is no such thing here', advice: 'Check the path and the id.' },
  method_not_allowed: { status: 405, title: 'The method does not fit the path', advice: 'Allow lists those that do.' },
  request_timeout: { status: 408, title: 'The request took too long to arrive', advice: 'Send it again.' },
  conflict: { status: 409, title: 'The state does not allow it', advice: 'detail says what stands in the way.' },
  no_offers: {
    status: 409,
    title: 'No offer matches',
    advice: 'Loosen the filters, or look at GET /gpu/instances for what there is.',
  },
  incomplete: {
    status: 409,
    title: 'Not everything could be had, so nothing was kept',
    advice: 'Ask for fewer, or leave out all_or_nothing.',
  },
  budget_exceeded: {
    status: 409,
    title: 'It would cost more per hour than allowed',
    advice: 'Release something, choose cheaper offers or raise MAX_USD_PER_HOUR.',
  },
  no_credit: { status: 409, title: 'The account has no credit', advice: 'Top up the account at the provider.' },
  unsupported: { status: 409, title: 'This provider cannot do that', advice: 'detail names what it lacks.' },
  too_large: { status: 413, title: 'The body is too large', advice: 'Send less.' },
  unsupported_media_type: {
    status: 415,
    title: 'The body is not application/json',
    advice: 'Set Content-Type: application/json and send it without Content-Encoding.',
  },
  expectation_failed: {
    status: 417,
    title: 'The expectation cannot be met',
    advice: 'Leave out Expect, or send 100-continue.',
  },
  idempotency_mismatch: {
    status: 422,
    title: 'The Idempotency-Key was used with another body',
    advice: 'Use a new key for a new request.',
  },
  rate_limited: { status: 429, title: 'Too many requests', advice: 'Wait as long as Retry-After says.' },
  headers_too_large: { status: 431, title: 'The headers are too large', advice: 'Send less.' },
  internal: { status: 500, title: 'A bug in this server', advice: 'Please report it with the X-Request-Id.' },
  provider_failed: {
    status: 502,
    title: 'The provider answered with an error',
    advice: 'GET /providers shows the state of each; try again later.',
  },
  not_ready: { status: 503, title: 'No upstream can take requests', advice: 'GET /fleet says why.' },
  unavailable: { status: 503, title: 'Not available at the moment', advice: 'Try again later.' },
  provider_timeout: {
    status: 504,
    title: 'The provider did not answer in time',
    advice: 'Look at what exists before you repeat it: the call may have worked.',
  },
} as const satisfies Record<string, { status: number; title: string; advice: string }>;

export type ProblemCode = keyof typeof problems;

/** An answer that is not a success. Thrown inside the control plane and turned into problem+json at its edge. */
export class ProblemError extends Error {
  override readonly name = 'ProblemError';
  readonly code: ProblemCode;
  readonly errors: readonly FieldError[];
  readonly headers: Readonly<Record<string, string>>;

  constructor(
    code: ProblemCode,
    detail: string,
    options: { errors?: readonly FieldError[]; headers?: Readonly<Record<string, string>> } = {},
  ) {
    super(detail);
    this.code = code;
    this.errors = options.errors ?? [];
    this.headers = options.headers ?? {};
  }

  get status(): number {
    return problems[this.code].status;
  }

  /** The body, without anything that only the server should know. */
  toBody(): z.output<typeof schemas.problem> {
    return {
      type: `/api/v1/docs#${this.code}`,
      title: problems[this.code].title,
      status: this.status,
      detail: this.message,
      code: this.code,
      ...(this.errors.length > 0 ? { errors: [...this.errors] } : {}),
    };
  }
}

const codeOfAppError: Record<AppErrorCode, ProblemCode> = {
  not_found: 'not_found',
  invalid: 'invalid',
  conflict: 'conflict',
  no_offers: 'no_offers',
  incomplete: 'incomplete',
  budget_exceeded: 'budget_exceeded',
  idempotency_mismatch: 'idempotency_mismatch',
  no_credit: 'no_credit',
  provider_failed: 'provider_failed',
  provider_timeout: 'provider_timeout',
  unsupported: 'unsupported',
  read_only: 'read_only',
  disconnected: 'unavailable',
};

/**
 * Any error → the problem it is for the client. The only place where that is decided. Bugs become `internal`.
 * `bodyBytes`: the largest body that is taken.
 */
export function toProblem(error: unknown, bodyBytes: number): ProblemError {
  if (error instanceof ProblemError) return error;
  if (error instanceof AppError) {
    return new ProblemError(codeOfAppError[error.code], error.message, {
      errors:
        error.field === null
          ? error.details.map((message) => ({ message }))
          : [{ path: error.field, in: 'body', message: error.message.slice(error.field.length + 2) }],
    });
  }
  if (error instanceof ProviderError) {
    const code: ProblemCode =
      error.code === 'timeout' ? 'provider_timeout' : error.code === 'rate_limited' ? 'unavailable' : 'provider_failed';
    return new ProblemError(
      code,
      `${error.provider}: ${error.message}`,
      error.retryAfterMs === null ? {} : { headers: { 'retry-after': String(Math.ceil(error.retryAfterMs / 1000)) } },
    );
  }
  const code = (error as { code?: unknown } | null)?.code;
  if (code === 'FST_ERR_CTP_BODY_TOO_LARGE') {
    return new ProblemError('too_large', `The body is larger than ${bodyBytes} bytes, the limit.`);
  }
  const ofFramework = typeof code === 'string' ? frameworkProblems[code] : undefined;
  if (ofFramework) return new ProblemError(...ofFramework);
  return new ProblemError('internal', 'Something went wrong in this server; its log has the details.');
}

/** Fastify's own refusals, which come before any handler. */
const frameworkProblems: Record<string, readonly [ProblemCode, string]> = {
  FST_ERR_CTP_INVALID_MEDIA_TYPE: [
    'unsupported_media_type',
    'Content-Type: accepts application/json (curl -d needs -H "Content-Type: application/json").',
  ],
  FST_ERR_CTP_INVALID_CONTENT_LENGTH: ['bad_request', 'The body is not as long as Content-Length says.'],
  FST_ERR_BAD_URL: ['bad_request', 'The path has a broken percent-encoding.'],
  FST_ERR_MAX_PARAM_LENGTH: ['not_found', 'A part of the path is longer than any id.'],
};
