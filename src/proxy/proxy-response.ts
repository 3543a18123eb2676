import { ServerResponse } from '../node-http.ts';
import type { Exchange } from './exchange.ts';

/** What node keeps of a head that it has put together itself. */
type HeadFields = {
  _header: string | null;
  _headerSent: boolean;
  _hasBody: boolean;
  _last: boolean;
  _keepAliveTimeout: number;
};

/** Names and values as a parser may hand them out and as they may be written. */
const soundHeaders = /^(?:[\^_`a-zA-Z\-0-9!#$%&'*+.|~]+: [\t\x20-\x7e\x80-\xff]*\r\n)*$/;

let dateSecond = 0;
let dateText = '';

function httpDate(): string {
  const second = Math.floor(Date.now() / 1000);
  if (second !== dateSecond) {
    dateSecond = second;
    dateText = new Date(second * 1000).toUTCString();
  }
  return dateText;
}

/** Node's response, with a shorter way for the heads of answers that pass: one text, looked at once, written once. */
export class ProxyResponse extends ServerResponse {
  exchange: Exchange | null = null;
  expectsContinue = false;
  /** 100 Continue was sent. */
  continued = false;

  /**
   * As `writeHead`, of an answer that passes. `headers` is flat: name, value, name, value, without what is told apart.
   * `contentLength` is -1 when it is not told. False, with nothing done, for headers that cannot be written.
   */
  takeHead(
    status: number,
    reason: string,
    headers: readonly string[],
    body: Readonly<{ contentLength: number; none: boolean; chunked: boolean }>,
    connection: Readonly<{ close: boolean; dated: boolean }>,
  ): boolean {
    let text = '';
    for (let i = 0; i < headers.length; i += 2) text += `${headers[i]}: ${headers[i + 1]}\r\n`;
    if (!soundHeaders.test(text)) return false;
    if (!connection.dated) text += `Date: ${httpDate()}\r\n`;
    const fields = this as unknown as HeadFields;
    // A client that was not told to go on may or may not send its body: nobody knows where the next request begins.
    const told = !this.expectsContinue || this.continued;
    const delimited = body.none || body.contentLength !== -1 || body.chunked;
    const kept = this.shouldKeepAlive && !connection.close && told && delimited;
    if (kept) {
      text += 'Connection: keep-alive\r\n';
      if (fields._keepAliveTimeout > 0)
        text += `Keep-Alive: timeout=${Math.floor(fields._keepAliveTimeout / 1000)}\r\n`;
    } else {
      text += 'Connection: close\r\n';
      fields._last = true;
    }
    if (body.chunked) text += 'Transfer-Encoding: chunked\r\n';
    else if (body.contentLength !== -1) text += `content-length: ${body.contentLength}\r\n`;
    this.statusCode = status;
    this.chunkedEncoding = body.chunked;
    if (body.none) fields._hasBody = false;
    fields._header = `HTTP/1.1 ${status} ${reason}\r\n${text}\r\n`;
    fields._headerSent = false;
    return true;
  }

  /** Nothing follows this answer on its connection. */
  endConnection(): void {
    this.shouldKeepAlive = false;
    (this as unknown as HeadFields)._last = true;
  }

  /** Ends with a body of one character a byte, which leaves in one write with the head. Only before anything was written. */
  endWith(body: string): void {
    const { socket } = this;
    if (socket === null) {
      this.end(body, 'latin1');
      return;
    }
    const fields = this as unknown as HeadFields;
    fields._headerSent = true;
    socket.write(fields._header + body, 'latin1');
    this.end();
  }
}
