/**
 * What crosses the proxy in the headers of a request and what does not. They arrive as node's flat array of names and values
 * and leave as one; the length of the body is told apart, because whoever sends the body frames it.
 */

const pass = 0;
const drop = 1;
const host = 2;
const connection = 3;
const contentLength = 4;
const transferEncoding = 5;
const contentType = 6;
const authorization = 7;
const apiKey = 8;
const forwardedFor = 9;
const forwardedProto = 10;
const forwardedHost = 11;
const via = 12;
const requestId = 13;
const te = 14;
const upgrade = 15;
const traceparent = 16;
const trailer = 17;
const origin = 18;

const kinds: Readonly<Record<string, number>> = {
  host,
  connection,
  'content-length': contentLength,
  'transfer-encoding': transferEncoding,
  'content-type': contentType,
  authorization,
  'x-api-key': apiKey,
  'x-forwarded-for': forwardedFor,
  'x-forwarded-proto': forwardedProto,
  'x-forwarded-host': forwardedHost,
  forwarded: origin,
  'x-real-ip': origin,
  'x-forwarded-port': origin,
  'x-forwarded-prefix': origin,
  'x-forwarded-server': origin,
  'x-forwarded-ssl': origin,
  'x-forwarded-scheme': origin,
  via,
  'x-request-id': requestId,
  te,
  upgrade,
  traceparent,
  trailer,
  // Hop by hop, or answered by the proxy itself (expect), or a plea to change protocols behind our back (http2-settings).
  'keep-alive': drop,
  'proxy-connection': drop,
  'proxy-authorization': drop,
  'proxy-authenticate': drop,
  expect: drop,
  'http2-settings': drop,
};

/** What some servers read as one of the headers that tell where a request came from. */
const lookalike = /^(?=[^_]*_)x[_-](?:forwarded|real)[_-]/;

type Name = Readonly<{ lower: string; kind: number }>;

/** Spelling as sent → lower-case form and kind; saves lower-casing every name of every request. Bounded: clients choose names. */
const names = new Map<string, Name>();
const maxNames = 2048;
const longestName = 64;

function nameOf(raw: string): Name {
  const known = names.get(raw);
  if (known !== undefined) return known;
  const lower = raw.toLowerCase();
  const name = { lower, kind: Object.hasOwn(kinds, lower) ? kinds[lower]! : lookalike.test(lower) ? drop : pass };
  if (names.size < maxNames && raw.length <= longestName) names.set(raw, name);
  return name;
}

/** Why a request is answered with 400 (or 431, 508) without asking an upstream. */
export type HeaderFault = Readonly<{ status: number; code: string; detail: string }>;

const faults = {
  duplicateHost: { status: 400, code: 'duplicate_host', detail: 'The request has more than one Host header.' },
  badHost: { status: 400, code: 'bad_host', detail: 'The Host header is not a host name with an optional port.' },
  missingHost: { status: 400, code: 'missing_host', detail: 'An HTTP/1.1 request needs a Host header.' },
  codings: { status: 400, code: 'transfer_coding', detail: 'Of the transfer codings only "chunked" is understood.' },
  framing: { status: 400, code: 'ambiguous_framing', detail: 'The length of the request body is ambiguous.' },
  version: { status: 400, code: 'bad_version', detail: 'Only HTTP/1.0 and HTTP/1.1 are spoken here.' },
  oldChunks: { status: 400, code: 'chunked_http10', detail: 'An HTTP/1.0 request cannot be chunked.' },
  tooMany: { status: 431, code: 'too_many_headers', detail: 'The request has too many header fields.' },
  loop: { status: 508, code: 'loop', detail: 'The request has come through this proxy too often (see Via).' },
} as const satisfies Record<string, HeaderFault>;

/** What one pass over the request headers finds out. Reused by nobody: one object a request. */
export class RequestHeaders {
  /** Flat array for the upstream; names in lower case. */
  readonly forward: string[] = [];
  fault: HeaderFault | null = null;
  /** The client's key for this proxy, from X-API-Key or a bearer token. */
  key: string | null = null;
  requestId: string | null = null;
  /** Names of trailers that the client announces. */
  trailer: string | null = null;
  /** Trace id of a valid `traceparent`. */
  trace: string | null = null;
  /** -1: none given. */
  contentLength = -1;
  chunked = false;
  json = false;
  /** Protocols of the Upgrade header. */
  upgrade: string | null = null;
}

const hostPattern = /^(?:[A-Za-z0-9._~!$&'()*+,;=%-]+|\[[0-9A-Fa-f:.]+\])(?::\d{0,5})?$/;
const requestIdPattern = /^[\w.:/+=@-]{1,128}$/;
const bearerPattern = /^bearer +([^ ]+) *$/i;
const traceparentPattern = /^[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}/;
const maxHops = 8;
let lastGoodHost = '';

/** One loop over the headers of a request: what to refuse, what to forward, what the proxy itself needs to know. */
export function readRequestHeaders(
  raw: readonly string[],
  limits: { maxHeaderCount: number },
  client: { address: string; trusted: boolean; secure: boolean; oldHttp: boolean; httpVersion: string },
): RequestHeaders {
  const found = new RequestHeaders();
  if (client.httpVersion !== '1.1' && client.httpVersion !== '1.0') {
    found.fault = faults.version;
    return found;
  }
  if (raw.length > 2 * limits.maxHeaderCount) {
    found.fault = faults.tooMany;
    return found;
  }
  const forward = found.forward;
  let hostValue: string | null = null;
  let named: Set<string> | null = null;
  let forwarded = '';
  let proto = '';
  let forwardedHostValue = '';
  let viaValue = '';
  for (let i = 0; i < raw.length; i += 2) {
    const name = nameOf(raw[i]!);
    const value = raw[i + 1]!;
    switch (name.kind) {
      case pass:
        forward.push(name.lower, value);
        break;
      case host:
        if (hostValue !== null) found.fault = faults.duplicateHost;
        hostValue = value;
        break;
      case connection:
        named = connectionNames(value, named);
        break;
      case contentLength:
        if (found.contentLength !== -1) found.fault = faults.framing;
        found.contentLength = Number(value);
        if (!/^\d+$/.test(value) || !Number.isSafeInteger(found.contentLength)) found.fault = faults.framing;
        break;
      case transferEncoding:
        if (found.chunked) found.fault = faults.framing;
        found.chunked = true;
        if (value !== 'chunked' && value.toLowerCase() !== 'chunked') found.fault = faults.codings;
        else if (client.oldHttp) found.fault = faults.oldChunks;
        break;
      case contentType:
        found.json = isJson(value);
        forward.push(name.lower, value);
        break;
      case authorization:
        if (found.key === null) found.key = bearerPattern.exec(value)?.[1] ?? null;
        break;
      case apiKey:
        found.key = value;
        break;
      case forwardedFor:
        if (client.trusted) forwarded = forwarded === '' ? value : `${forwarded}, ${value}`;
        break;
      case forwardedProto:
        if (client.trusted) proto = value;
        break;
      case forwardedHost:
        if (client.trusted) forwardedHostValue = value;
        break;
      case origin:
        // Whoever is not trusted to say where a request came from says nothing about it.
        if (client.trusted) forward.push(name.lower, value);
        break;
      case via:
        viaValue = viaValue === '' ? value : `${viaValue}, ${value}`;
        break;
      case requestId:
        if (requestIdPattern.test(value)) found.requestId = value;
        break;
      case traceparent:
        found.trace = traceparentPattern.exec(value)?.[1] ?? null;
        forward.push(name.lower, value);
        break;
      case trailer:
        found.trailer = value;
        break;
      case te:
        // The only member of TE that a proxy can honour: it passes trailers on.
        if (value.toLowerCase().includes('trailers')) forward.push('te', 'trailers');
        break;
      case upgrade:
        found.upgrade = value;
        break;
      default:
    }
  }
  if (hostValue === null) {
    if (!client.oldHttp) found.fault ??= faults.missingHost;
  } else if (hostValue !== lastGoodHost) {
    if (hostValue !== '' && !hostPattern.test(hostValue)) found.fault ??= faults.badHost;
    else lastGoodHost = hostValue;
  }
  if (found.chunked && found.contentLength !== -1) found.fault ??= faults.framing;
  if (named !== null) dropNamed(forward, named);
  if (viaValue !== '' && viaValue.split('gpuproxy').length > maxHops) found.fault ??= faults.loop;
  forward.push(
    'x-forwarded-for',
    forwarded === '' ? client.address : `${forwarded}, ${client.address}`,
    'x-forwarded-proto',
    proto === '' ? (client.secure ? 'https' : 'http') : proto,
  );
  const outside = forwardedHostValue === '' ? hostValue : forwardedHostValue;
  if (outside !== null && outside !== '') forward.push('x-forwarded-host', outside);
  const hop = client.oldHttp ? '1.0 gpuproxy' : '1.1 gpuproxy';
  forward.push('via', viaValue === '' ? hop : `${viaValue}, ${hop}`);
  return found;
}

function isJson(value: string): boolean {
  if (value === 'application/json') return true;
  const type = value.split(';', 1)[0]!.trim().toLowerCase();
  return type === 'application/json' || type.endsWith('+json');
}

/** Names listed in Connection, which are hop by hop too; null when there are none besides the usual ones. */
function connectionNames(value: string, so_far: Set<string> | null): Set<string> | null {
  if (value === 'keep-alive' || value === 'close' || value === 'Keep-Alive' || value === 'Upgrade') return so_far;
  let named = so_far;
  for (const part of value.split(',')) {
    const name = part.trim().toLowerCase();
    if (name === '' || name === 'keep-alive' || name === 'close' || name === 'upgrade') continue;
    named ??= new Set();
    named.add(name);
  }
  return named;
}

function dropNamed(flat: string[], named: ReadonlySet<string>): void {
  let kept = 0;
  for (let i = 0; i < flat.length; i += 2) {
    const name = flat[i]!;
    if (named.has(name) && name !== 'te') continue;
    flat[kept] = name;
    flat[kept + 1] = flat[i + 1]!;
    kept += 2;
  }
  flat.length = kept;
}

/** Milliseconds to wait by a Retry-After header (seconds or HTTP date); null when absent or not understood. */
export function retryAfterMs(text: string | null, wallNow: number): number | null {
  if (text === null) return null;
  if (/^\d+$/.test(text.trim())) return Math.min(Number(text) * 1000, 86_400_000);
  const at = Date.parse(text);
  return Number.isNaN(at) ? null : Math.min(Math.max(0, at - wallNow), 86_400_000);
}
