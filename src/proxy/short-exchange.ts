import type { Dispatcher } from 'undici';
import { AnswerHead, takeHeader } from './answer-head.ts';

/**
 * The commonest exchange with an upstream on a connection that is open: a request that fits one write, and an answer that
 * comes whole in one read. Written and read here, without undici, for half of what undici takes. What is written is what
 * undici would write, byte for byte; what is read is only what leaves no two readings. Null is for everything else.
 */

/** Bodies and answers up to this size. */
export const maxShortBytes = 8_192;

/** What undici would let pass too. It must also have as many lines as were meant. */
const soundRequest =
  /^[!#$%&'*+\-.^_`|~\w]+ \/[\x21-\xff]* HTTP\/1\.1\r\n(?:[!#$%&'*+\-.^_`|~\w]+: [\t\x20-\x7e\x80-\xff]*\r\n)*$/;

/** Methods whose requests tell a length even where there is no body. */
const expectPayload: Readonly<Record<string, true>> = {
  PUT: true,
  POST: true,
  PATCH: true,
  QUERY: true,
  PROPFIND: true,
  PROPPATCH: true,
};

/** Of every request: its own line, Host and Connection. */
const firstLines = 3;

function linesOf(text: string): number {
  let lines = 0;
  for (let at = text.indexOf('\n'); at !== -1; at = text.indexOf('\n', at + 1)) lines++;
  return lines;
}

/** The request as one text, one character a byte. */
export function requestText(options: Dispatcher.DispatchOptions, host: string): string | null {
  const { method, path, body, upgrade } = options;
  // The answer to HEAD tells the length of a body that does not come.
  if (method === 'HEAD' || method === 'CONNECT' || upgrade) return null;
  let text = `${method} ${path} HTTP/1.1\r\nhost: ${host}\r\nconnection: keep-alive\r\n`;
  const headers = options.headers as readonly string[];
  for (let i = 0; i < headers.length; i += 2) text += `${headers[i]}: ${headers[i + 1]}\r\n`;
  if (!soundRequest.test(text) || linesOf(text) !== firstLines + headers.length / 2) return null;
  if (body == null) return expectPayload[method] === true ? `${text}content-length: 0\r\n\r\n` : `${text}\r\n`;
  if (!Buffer.isBuffer(body) || body.length > maxShortBytes) return null;
  return `${text}content-length: ${body.length}\r\n\r\n${body.toString('latin1')}`;
}

/** A head of a final answer without anything that could be read in two ways. Stands at its end after a match. */
const plainHead = /HTTP\/1\.1 [2-5]\d\d [\t\x20-\x7e]*\r\n(?:[!#$%&'*+\-.^_`|~\w]+:[\t\x20-\x7e]*\r\n)+\r\n/y;
const reasonAt = 'HTTP/1.1 200 '.length;
const space = 0x20;
const tab = 0x09;
const digitZero = 0x30;

/** These say something of the connection or of the framing; what they say is undici's business. */
const notShort: Readonly<Record<string, true>> = {
  'proxy-connection': true,
  'transfer-encoding': true,
  trailer: true,
  upgrade: true,
};

/** Spellings of names of headers and their lower-case forms. Bounded: upstreams choose names. */
const lowerCased = new Map<string, string>();
const maxNames = 1_024;

function lowerCase(name: string): string {
  const known = lowerCased.get(name);
  if (known !== undefined) return known;
  const lower = name.toLowerCase();
  if (lowerCased.size < maxNames && name.length <= 64) lowerCased.set(name, lower);
  return lower;
}

export type ShortAnswer = Readonly<{ head: AnswerHead; body: string }>;

/**
 * A whole answer and nothing else, from bytes as one character each. `keepAlive`: what undici knows already of how long the
 * upstream keeps idle connections.
 */
export function readShortAnswer(text: string, keepAlive: string | null): ShortAnswer | null {
  plainHead.lastIndex = 0;
  if (!plainHead.test(text)) return null;
  const bodyAt = plainHead.lastIndex;
  const head = new AnswerHead();
  head.status =
    (text.charCodeAt(9) - digitZero) * 100 + (text.charCodeAt(10) - digitZero) * 10 + (text.charCodeAt(11) - digitZero);
  if (head.status === 204 || head.status === 304) return null;
  let end = text.indexOf('\r', reasonAt);
  head.reason = text.slice(reasonAt, end);
  for (let at = end + 2; at < bodyAt - 2; at = end + 2) {
    const colon = text.indexOf(':', at);
    end = text.indexOf('\r', colon);
    const from = text.charCodeAt(colon + 1) === space ? colon + 2 : colon + 1;
    if (isBlank(text.charCodeAt(from)) || isBlank(text.charCodeAt(end - 1))) return null;
    const name = lowerCase(text.slice(at, colon));
    const value = text.slice(from, end);
    if (notShort[name] === true) return null;
    if (name === 'connection' && value !== 'keep-alive' && value !== 'Keep-Alive') return null;
    if (name === 'keep-alive' && value !== keepAlive) return null;
    if (!takeHeader(head, name, value)) return null;
  }
  if (head.contentLength !== text.length - bodyAt) return null;
  return { head, body: text.slice(bodyAt) };
}

function isBlank(code: number): boolean {
  return code === space || code === tab;
}
