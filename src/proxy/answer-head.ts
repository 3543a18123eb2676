import type { IncomingHttpHeaders } from 'undici/types/header.js';

/** Which headers of an answer need a closer look than passing them on. */
const pass = 0;
const drop = 1;
const contentLength = 2;
const transferEncoding = 3;
const connection = 4;
const via = 5;
const trailer = 6;
const retryAfter = 7;
const requestId = 8;
const upgrade = 10;
const contentType = 11;
const contentEncoding = 12;
const date = 13;

const kinds: Readonly<Record<string, number>> = {
  'content-length': contentLength,
  'transfer-encoding': transferEncoding,
  connection,
  via,
  trailer,
  'retry-after': retryAfter,
  'x-request-id': requestId,
  'keep-alive': drop,
  upgrade,
  'content-type': contentType,
  'content-encoding': contentEncoding,
  date,
  'proxy-connection': drop,
  'proxy-authenticate': drop,
  'proxy-authentication-info': drop,
  te: drop,
  'x-gpuproxy-instance': drop,
};

/** What no reason phrase may have. */
const badReasonPattern = /[^\t\x20-\x7e\x80-\xff]/;

/** The head of an answer: what it says about the connection and its body, and what of it passes on. */
export class AnswerHead {
  status = 0;
  reason = '';
  /** Name, value, name, value of what passes, names in lower case; without length, Via and Trailer. */
  readonly passed: string[] = [];
  /** -1: not given. */
  contentLength = -1;
  chunked = false;
  /** What its Connection headers say beyond keep-alive and close. */
  connection = '';
  /** Values of Via, joined; empty when there are none. */
  via = '';
  trailer: string | null = null;
  retryAfter: string | null = null;
  upgrade: string | null = null;
  contentType: string | null = null;
  /** The body has a content coding. */
  encoded = false;
  dated = false;
  /** It has an X-Request-Id of its own. */
  identified = false;
}

/**
 * Reads the head of an answer as undici's parser has taken it apart. Null when a body has a coding that we cannot undo, or
 * when its length is told in a way that could be read differently by the next one who reads it.
 */
export function readAnswerHead(status: number, reason: string, headers: IncomingHttpHeaders): AnswerHead | null {
  const head = new AnswerHead();
  head.status = status;
  // undici reads it as UTF-8; what cannot be passed on is left out, which HTTP allows.
  head.reason = badReasonPattern.test(reason) ? '' : reason;
  let named: Set<string> | null = null;
  for (const name in headers) {
    const value = headers[name]!;
    if (typeof value === 'string') {
      if (!takeHeader(head, name, value)) return null;
    } else {
      for (const one of value) if (!takeHeader(head, name, one)) return null;
    }
  }
  if (head.connection !== '') named = namedBy(head.connection);
  if (head.chunked && head.contentLength !== -1) return null;
  if (named !== null) dropNamed(head, named);
  return head;
}

/** Names of headers in a Connection header; null when there are none. */
function namedBy(value: string): Set<string> | null {
  let named: Set<string> | null = null;
  for (const part of value.split(',')) {
    const option = part.trim().toLowerCase();
    if (option === '' || option === 'close' || option === 'keep-alive' || option === 'upgrade') continue;
    named ??= new Set();
    named.add(option);
  }
  return named;
}

/** False: this header cannot be understood in one way alone. */
export function takeHeader(head: AnswerHead, name: string, value: string): boolean {
  const kind = Object.hasOwn(kinds, name) ? kinds[name]! : pass;
  switch (kind) {
    case pass:
      head.passed.push(name, value);
      break;
    case contentLength:
      if (head.contentLength !== -1 || !/^\d{1,15}$/.test(value)) return false;
      head.contentLength = Number(value);
      break;
    case transferEncoding:
      if (head.chunked || value.toLowerCase() !== 'chunked') return false;
      head.chunked = true;
      break;
    case connection:
      if (value !== 'keep-alive' && value !== 'close') head.connection = `${head.connection},${value}`;
      break;
    case via:
      head.via = head.via === '' ? value : `${head.via}, ${value}`;
      break;
    case trailer:
      head.trailer = head.trailer === null ? value : `${head.trailer}, ${value}`;
      break;
    case retryAfter:
      head.retryAfter ??= value;
      head.passed.push(name, value);
      break;
    case requestId:
      head.identified = true;
      head.passed.push(name, value);
      break;
    case contentType:
      head.contentType = value;
      head.passed.push(name, value);
      break;
    case contentEncoding:
      head.encoded = true;
      head.passed.push(name, value);
      break;
    case date:
      head.dated = true;
      head.passed.push(name, value);
      break;
    case upgrade:
      head.upgrade = value;
      break;
    default:
  }
  return true;
}

/** Drops what the Connection header names: it was meant for us alone. */
function dropNamed(head: AnswerHead, named: ReadonlySet<string>): void {
  const { passed } = head;
  let kept = 0;
  for (let i = 0; i < passed.length; i += 2) {
    if (named.has(passed[i]!)) continue;
    passed[kept] = passed[i]!;
    passed[kept + 1] = passed[i + 1]!;
    kept += 2;
  }
  passed.length = kept;
  if (named.has('trailer')) head.trailer = null;
  if (named.has('x-request-id')) head.identified = false;
  if (named.has('date')) head.dated = false;
}

const notInTrailers = new Set([
  ...['content-length', 'transfer-encoding', 'host', 'connection', 'trailer', 'te', 'upgrade', 'keep-alive'],
  ...['authorization', 'proxy-authorization', 'x-api-key', 'content-type', 'content-encoding', 'content-range'],
]);

/** Trailers, name, value, name, value, without those that would change what was already sent or tell keys. */
export function passedTrailers(raw: readonly string[]): string[] {
  const passed: string[] = [];
  for (let i = 0; i + 1 < raw.length; i += 2) {
    if (!notInTrailers.has(raw[i]!.toLowerCase())) passed.push(raw[i]!, raw[i + 1]!);
  }
  return passed;
}

/** Headers as undici gives them, as a flat array: name, value, name, value. */
export function flatHeaders(headers: IncomingHttpHeaders): string[] {
  const flat: string[] = [];
  for (const name in headers) {
    const value = headers[name]!;
    if (typeof value === 'string') flat.push(name, value);
    else for (const one of value) flat.push(name, one);
  }
  return flat;
}
