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
const keepAlive = 9;
const upgrade = 10;
const contentType = 11;
const contentEncoding = 12;

const kinds: Readonly<Record<string, number>> = {
  'content-length': contentLength,
  'transfer-encoding': transferEncoding,
  connection,
  via,
  trailer,
  'retry-after': retryAfter,
  'x-request-id': requestId,
  'keep-alive': keepAlive,
  upgrade,
  'content-type': contentType,
  'content-encoding': contentEncoding,
  'proxy-connection': drop,
  'proxy-authenticate': drop,
  'proxy-authentication-info': drop,
  te: drop,
  'x-gpuproxy-instance': drop,
};

type Name = Readonly<{ lower: string; kind: number }>;

/** Spelling as sent → lower-case form and kind. Bounded: upstreams choose names. */
const names = new Map<string, Name>();
const maxNames = 2048;
const tokenPattern = /^[!#$%&'*+\-.^_`|~\w]+$/;
const badValuePattern = /[^\t\x20-\x7e\x80-\xff]/;
const statusLinePattern = /^HTTP\/1\.([01]) ([1-9]\d\d)(?: ([\t\x20-\x7e\x80-\xff]*))?$/;

function nameOf(raw: string): Name | null {
  const known = names.get(raw);
  if (known !== undefined) return known;
  if (!tokenPattern.test(raw)) return null;
  const lower = raw.toLowerCase();
  const name = { lower, kind: Object.hasOwn(kinds, lower) ? kinds[lower]! : pass };
  // A copy as key: a slice would keep the whole head that it was cut from.
  if (names.size < maxNames) names.set(Buffer.from(raw, 'latin1').toString('latin1'), name);
  return name;
}

/** The head of an answer: what it says about the connection and its body, and what of it passes on. */
export class AnswerHead {
  status = 0;
  reason = '';
  /** HTTP/1.0. */
  old = false;
  /** Name, value, name, value of what passes, names in lower case; without length, Via and Trailer. */
  readonly passed: string[] = [];
  /** -1: not given. */
  contentLength = -1;
  chunked = false;
  /** The connection ends with this answer. */
  close = false;
  /** Milliseconds after which the upstream closes an idle connection; -1: not told. */
  idleMs = -1;
  /** Values of Via, joined; empty when there are none. */
  via = '';
  trailer: string | null = null;
  retryAfter: string | null = null;
  upgrade: string | null = null;
  contentType: string | null = null;
  /** The body has a content coding. */
  encoded = false;
  /** It has an X-Request-Id of its own. */
  identified = false;
}

let lastStatusLine = '';
let lastOld = false;
let lastStatus = 0;
let lastReason = '';

/**
 * Reads the head of an answer, given without its closing empty line. Null when it breaks the rules of RFC 9112 in a way that
 * could be read differently by the next one who reads it: two lengths, a length and chunks, codings that we cannot undo,
 * folded lines, spaces before colons, stray line ends, characters that no header may have.
 */
export function readAnswerHead(text: string): AnswerHead | null {
  const head = new AnswerHead();
  let at = text.indexOf('\r\n');
  const statusLine = at === -1 ? text : text.slice(0, at);
  if (statusLine !== lastStatusLine) {
    const match = statusLinePattern.exec(statusLine);
    if (match === null) return null;
    lastStatusLine = statusLine;
    lastOld = match[1] === '0';
    lastStatus = Number(match[2]);
    lastReason = match[3] ?? '';
  }
  head.old = lastOld;
  head.status = lastStatus;
  head.reason = lastReason;
  let named: Set<string> | null = null;
  let persists = !lastOld;
  while (at !== -1) {
    const start = at + 2;
    at = text.indexOf('\r\n', start);
    const end = at === -1 ? text.length : at;
    const colon = text.indexOf(':', start);
    if (colon === -1 || colon >= end) return null;
    const name = nameOf(text.slice(start, colon));
    if (name === null) return null;
    const value = trimmed(text, colon + 1, end);
    if (badValuePattern.test(value)) return null;
    switch (name.kind) {
      case pass:
        head.passed.push(name.lower, value);
        break;
      case contentLength:
        if (head.contentLength !== -1 || !/^\d{1,15}$/.test(value)) return null;
        head.contentLength = Number(value);
        break;
      case transferEncoding:
        if (head.chunked || value.toLowerCase() !== 'chunked') return null;
        head.chunked = true;
        break;
      case connection:
        if (value === 'keep-alive') {
          persists = true;
          break;
        }
        for (const part of value.split(',')) {
          const option = part.trim().toLowerCase();
          if (option === 'close') head.close = true;
          else if (option === 'keep-alive') persists = true;
          else if (option !== '' && option !== 'upgrade') {
            named ??= new Set();
            named.add(option);
          }
        }
        break;
      case via:
        head.via = head.via === '' ? value : `${head.via}, ${value}`;
        break;
      case trailer:
        head.trailer = head.trailer === null ? value : `${head.trailer}, ${value}`;
        break;
      case retryAfter:
        head.retryAfter ??= value;
        head.passed.push(name.lower, value);
        break;
      case requestId:
        head.identified = true;
        head.passed.push(name.lower, value);
        break;
      case contentType:
        head.contentType = value;
        head.passed.push(name.lower, value);
        break;
      case contentEncoding:
        head.encoded = true;
        head.passed.push(name.lower, value);
        break;
      case keepAlive: {
        const match = /timeout=(\d{1,6})/i.exec(value);
        if (match !== null) head.idleMs = Number(match[1]) * 1000;
        break;
      }
      case upgrade:
        head.upgrade = value;
        break;
      default:
    }
  }
  if (head.chunked && (head.contentLength !== -1 || lastOld)) return null;
  if (!persists) head.close = true;
  if (named !== null) dropNamed(head, named);
  return head;
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

/** Reads a block of trailers, given without its closing empty line; null when it is none. */
export function readTrailers(text: string): string[] | null {
  const found: string[] = [];
  if (text === '') return found;
  for (const line of text.split('\r\n')) {
    const colon = line.indexOf(':');
    if (colon < 1) return null;
    const name = nameOf(line.slice(0, colon));
    const value = trimmed(line, colon + 1, line.length);
    if (name === null || badValuePattern.test(value)) return null;
    found.push(name.lower, value);
  }
  return found;
}

function trimmed(text: string, from: number, to: number): string {
  let start = from;
  let end = to;
  while (start < end && (text.charCodeAt(start) === 0x20 || text.charCodeAt(start) === 0x09)) start++;
  while (end > start && (text.charCodeAt(end - 1) === 0x20 || text.charCodeAt(end - 1) === 0x09)) end--;
  return text.slice(start, end);
}
