import { STATUS_CODES } from '../node-http.ts';

/** An answer in the proxy's own name. `headers` is flat: name, value, name, value. */
export type Answer = Readonly<{ status: number; headers: readonly string[]; body: string }>;

/** RFC 9457 problem document with a stable `code`. */
export function problem(status: number, code: string, detail: string, headers: readonly string[] = []): Answer {
  return {
    status,
    headers: ['content-type', 'application/problem+json', ...retryAfter(status), ...headers],
    body: `${JSON.stringify({ type: 'about:blank', title: STATUS_CODES[status] ?? 'Error', status, detail, code })}\n`,
  };
}

/** The error form that OpenAI clients understand. */
export function openAiError(status: number, code: string, message: string): Answer {
  const type = status === 404 ? 'invalid_request_error' : 'server_error';
  return {
    status,
    headers: ['content-type', 'application/json', ...retryAfter(status)],
    body: `${JSON.stringify({ error: { message, type, param: status === 404 ? 'model' : null, code } })}\n`,
  };
}

function retryAfter(status: number): readonly string[] {
  return status === 503 ? ['retry-after', '1'] : [];
}
