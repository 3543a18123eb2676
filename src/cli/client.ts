import type { ClientRequest, IncomingMessage } from 'node:http';
import type { Connection } from './connection.ts';
import { CliError, type ExitCode, exitCodes } from './exit.ts';

export type Call = Readonly<{
  query?: Readonly<Record<string, string | number | boolean | undefined>>;
  body?: unknown;
  headers?: Readonly<Record<string, string>>;
  signal?: AbortSignal;
  /** Milliseconds; null waits for ever. Default: that of the client. */
  timeoutMs?: number | null;
}>;

/** One answer of the control plane. `text` is the body as it came, `body` what it says. */
export type Answer = Readonly<{ status: number; body: unknown; text: string; headers: IncomingMessage['headers'] }>;

export type Method = 'GET' | 'POST' | 'PUT' | 'DELETE';

/** REST client of the control plane. Every method throws CliError alone. */
export type Client = Readonly<{
  connection: Connection;
  call(method: Method, path: string, call?: Call): Promise<Answer>;
  /** Server-sent events as they come; ends when the server closes, or with the signal. */
  events(path: string, call?: Call): AsyncGenerator<ServerSentEvent>;
  /** The request as a curl command line, with the key left as a variable. */
  curl(method: Method, path: string, call?: Call): string;
}>;

export type ServerSentEvent = Readonly<{ id: string | null; event: string; data: string }>;

export type ClientOptions = Readonly<{
  connection: Connection;
  /** Milliseconds until an answer must be complete. */
  timeoutMs: number;
  /** Further tries of a GET that met no server or a broken connection. */
  retries?: number;
  /** Gets one line a request. */
  debug?: ((line: string) => void) | undefined;
}>;

export const apiPath = '/api/v1';
/** Longest answer that is taken: a server that never ends its answer must not fill the memory. */
const maxAnswerBytes = 64 * 1024 * 1024;

export function createClient({ connection, timeoutMs, retries = 0, debug }: ClientOptions): Client {
  const target = (path: string, query: Call['query']) => {
    const url = new URL(connection.url + (path.startsWith('//') ? path.slice(1) : apiPath + path));
    for (const [name, value] of Object.entries(query ?? {})) {
      if (value !== undefined) url.searchParams.set(name, String(value));
    }
    return url;
  };

  const open = (method: Method, url: URL, call: Call, limitMs: number | null): Promise<IncomingMessage> => {
    // An import statement would also load what node:http only offers lazily, which doubles the start-up time.
    const http = process.getBuiltinModule(url.protocol === 'https:' ? 'node:https' : 'node:http');
    const payload = call.body === undefined ? undefined : JSON.stringify(call.body);
    const { promise, resolve, reject } = Promise.withResolvers<IncomingMessage>();
    const request: ClientRequest = http.request(url, {
      method,
      agent: false,
      headers: {
        accept: 'application/json',
        ...(connection.key === null ? {} : { 'x-api-key': connection.key }),
        ...(payload === undefined
          ? {}
          : { 'content-type': 'application/json', 'content-length': String(Buffer.byteLength(payload)) }),
        ...call.headers,
      },
      ...(call.signal ? { signal: call.signal } : {}),
    });
    const timer =
      limitMs === null
        ? undefined
        : setTimeout(() => request.destroy(Object.assign(new Error('timeout'), { code: 'GPUPROXY_TIMEOUT' })), limitMs);
    request.on('close', () => clearTimeout(timer));
    request.on('error', reject);
    request.on('response', resolve);
    request.end(payload);
    return promise;
  };

  const once = async (method: Method, path: string, call: Call): Promise<Answer> => {
    const url = target(path, call.query);
    const limitMs = call.timeoutMs === undefined ? timeoutMs : call.timeoutMs;
    const started = performance.now();
    let response: IncomingMessage;
    let text: string;
    try {
      response = await open(method, url, call, limitMs);
      text = await readAll(response);
    } catch (error) {
      debug?.(`${method} ${url.pathname}${url.search} failed after ${Math.round(performance.now() - started)} ms`);
      throw connectionError(connection.url, error, limitMs);
    }
    const status = response.statusCode ?? 0;
    debug?.(`${method} ${url.pathname}${url.search} ${status} ${Math.round(performance.now() - started)} ms`);
    const type = response.headers['content-type'] ?? '';
    const parsed = /json/.test(type) ? parseJson(text) : undefined;
    if (status >= 400) throw await refusal(status, parsed, response, connection);
    if (status >= 300 || (parsed === undefined && text !== '' && !type.startsWith('text/plain'))) {
      throw new CliError(
        exitCodes.failed,
        'bad_answer',
        `${url.href} answered ${status} with ${type || 'no content type'}`,
        {
          why: 'what listens there does not speak the API of gpuproxy',
          hint: urlHint,
          status,
        },
      );
    }
    return { status, body: parsed, text, headers: response.headers };
  };

  return {
    connection,
    async call(method, path, call = {}) {
      for (let left = method === 'GET' ? retries : 0; ; left -= 1) {
        try {
          return await once(method, path, call);
        } catch (error) {
          if (left <= 0 || !(error instanceof CliError) || error.exitCode !== exitCodes.unreachable) throw error;
          await new Promise((resolve) => setTimeout(resolve, 200 + Math.random() * 300));
        }
      }
    },
    async *events(path, call = {}) {
      const url = target(path, call.query);
      let response: IncomingMessage;
      try {
        response = await open('GET', url, { ...call, headers: { accept: 'text/event-stream', ...call.headers } }, null);
        if ((response.statusCode ?? 0) >= 400) {
          throw await refusal(response.statusCode ?? 0, parseJson(await readAll(response)), response, connection);
        }
      } catch (error) {
        throw error instanceof CliError ? error : connectionError(connection.url, error, null);
      }
      try {
        yield* parseEvents(response);
      } catch (error) {
        if (call.signal?.aborted) return;
        throw connectionError(connection.url, error, null);
      }
    },
    curl(method, path, call = {}) {
      const quote = (text: string) =>
        /^[\w@%+=:,./?&-]+$/.test(text) && !/[?&]/.test(text) ? text : `'${text.replaceAll("'", `'\\''`)}'`;
      const words = ['curl', '-sS'];
      if (method !== 'GET') words.push('-X', method);
      words.push('-H', '"X-API-Key: $GPUPROXY_API_KEY"');
      for (const [name, value] of Object.entries(call.headers ?? {})) words.push('-H', quote(`${name}: ${value}`));
      if (call.body !== undefined) {
        // Between two NUL, which no argument can hold; JSON writes them out.
        const text = quote(bodyText(call.body, (name) => `\0${name}\0`));
        words.push('-H', quote('Content-Type: application/json'));
        words.push('-d', text.replace(/\\u0000(\w+)\\u0000/g, `'"$$$1"'`));
      }
      words.push(quote(target(path, call.query).href));
      return words.join(' ');
    },
  };
}

/**
 * A body as text to be shown, with what the instances are given, which may be secret, spelt by the name of a variable: an
 * environment variable by its own, the script that runs at the start by ONSTART, what an argument calls a secret as it does.
 */
export function bodyText(body: unknown, spell: (name: string) => string): string {
  return JSON.stringify(body, (field, value: unknown) => {
    if (field === 'onstart' && typeof value === 'string') return spell('ONSTART');
    if (field === 'args' && Array.isArray(value)) return withoutArgSecrets(value as string[], spell);
    if (field !== 'env' || typeof value !== 'object' || value === null) return value;
    return Object.fromEntries(Object.keys(value).map((name) => [name, spell(name)]));
  });
}

/** Names of secrets, not of what is merely about tokens: `--max-tokens`, `--tokenizer`. */
const secretName =
  '[\\w-]*(?:token|secret|passw(?:or)?d|passphrase|credentials?|authorization|api[-_]?key|access[-_]?key|(?<![a-z\\d])key)';
const secretOption = new RegExp(`^(?=-)${secretName}$`, 'i');
const secretPair = new RegExp(`^(${secretName})=(\\S+)$`, 'i');
/** The same within a script, a header or JSON. */
const secretWithin = new RegExp(
  `(?<![\\w-])(${secretName})(["']?\\s*[=:]\\s*["']?(?:(?:bearer|basic)\\s+)?)((?<=")[^"]+|(?<=')[^']+|[^\\s"',;&}]+)`,
  'gi',
);

/** User and password of a URL; a user alone is a token for some. */
const urlUser = /(?<=:\/\/)(?:([^\s/:@"']*):)?([^\s/@"']+)(?=@)/g;

function withoutArgSecrets(args: readonly string[], spell: (name: string) => string): string[] {
  const secrets = new Map<string, string>();
  const spelt = (from: string, secret: string): string => {
    const name = from.replace(/^-+/, '').replaceAll('-', '_').toUpperCase();
    let variable = name;
    // A variable has one value.
    for (let count = 2; (secrets.get(variable) ?? secret) !== secret; count++) variable = `${name}_${count}`;
    secrets.set(variable, secret);
    return spell(variable);
  };
  let option: string | null = null;
  return args.map((word) => {
    // More than one may follow: `--api-key x y`.
    if (option !== null && !word.startsWith('-')) return spelt(option, word);
    option = secretOption.test(word) ? word : null;
    const [, name, secret] = secretPair.exec(word) ?? [];
    if (name !== undefined && secret !== undefined) return `${name}=${spelt(name, secret)}`;
    return word
      .replace(secretWithin, (_found, called: string, between: string, value: string) => {
        return `${called}${between}${spelt(called, value)}`;
      })
      .replace(urlUser, (_found, user: string | undefined, value: string) => {
        return user === undefined ? spelt('url-user', value) : `${user}:${spelt('url-password', value)}`;
      });
  });
}

/** What a text says; undefined when it is no JSON. */
export function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

async function readAll(response: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of response as AsyncIterable<Buffer>) {
    size += chunk.length;
    if (size > maxAnswerBytes) throw Object.assign(new Error('answer too long'), { code: 'GPUPROXY_TOO_LONG' });
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString('utf8');
}

/** Frames of text/event-stream, by the HTML standard (comments and `retry` are left out). */
export async function* parseEvents(chunks: AsyncIterable<Buffer | string>): AsyncGenerator<ServerSentEvent> {
  const decoder = new TextDecoder();
  let rest = '';
  let id: string | null = null;
  let event = 'message';
  let data: string[] = [];
  for await (const chunk of chunks) {
    rest += typeof chunk === 'string' ? chunk : decoder.decode(chunk, { stream: true });
    // A lone CR at the end may be half of a CRLF: it waits for the next chunk.
    const lines = rest.split(/\r\n|\n|\r(?!$)/);
    rest = lines.pop() ?? '';
    for (const line of lines) {
      if (line === '') {
        if (data.length > 0) yield { id, event, data: data.join('\n') };
        event = 'message';
        data = [];
        continue;
      }
      const colon = line.indexOf(':');
      if (colon === 0) continue;
      const field = colon < 0 ? line : line.slice(0, colon);
      const value = colon < 0 ? '' : line.slice(colon + 1).replace(/^ /, '');
      if (field === 'id') id = value;
      else if (field === 'event') event = value;
      else if (field === 'data') data.push(value);
    }
  }
}

function connectionError(url: string, error: unknown, limitMs: number | null): CliError {
  const code = systemCode(error);
  const port = new URL(url).port || (url.startsWith('https:') ? '443' : '80');
  const host = new URL(url).hostname;
  const unreachable = (cause: string, hint: string, word = 'unreachable') =>
    new CliError(
      exitCodes.unreachable,
      word,
      `could not reach ${url}${code.startsWith('GPUPROXY_') || cause.includes(code) ? '' : ` (${code})`}`,
      { why: cause, hint },
    );
  switch (code) {
    case 'ECONNREFUSED':
      return unreachable(
        `nothing listens on port ${port}`,
        'start it with "gpuproxy serve", or set --url / GPUPROXY_URL',
      );
    case 'ENOTFOUND':
    case 'EAI_AGAIN':
      return unreachable(`the name ${host} is not known`, 'check --url / GPUPROXY_URL and the network');
    case 'GPUPROXY_TIMEOUT':
      return unreachable(
        `no answer within ${(limitMs ?? 0) / 1000} s`,
        'try again, or wait longer with --timeout 60s',
        'timeout',
      );
    case 'ECONNRESET':
    case 'EPIPE':
    case 'UND_ERR_SOCKET':
      return unreachable(
        'the connection was closed before the answer was complete',
        'look at the log of the server, then try again',
        'connection_lost',
      );
    case 'ABORT_ERR':
      return new CliError(exitCodes.interrupted, 'interrupted', 'cancelled');
    case 'GPUPROXY_TOO_LONG':
      return new CliError(
        exitCodes.failed,
        'bad_answer',
        `${url} answered more than ${maxAnswerBytes / 1024 / 1024} MiB`,
        { hint: 'check --url / GPUPROXY_URL' },
      );
    default: {
      if (/CERT|SIGNATURE|SELF_SIGNED|TLS|SSL|EPROTO/.test(code)) {
        return unreachable(
          'the TLS handshake failed',
          'for a private certificate set NODE_EXTRA_CA_CERTS to its PEM file; for plain HTTP use an http:// URL',
        );
      }
      if (code.startsWith('HPE_')) {
        return unreachable(
          'what listens there does not speak HTTP/1.1',
          'check --url / GPUPROXY_URL: http:// or https://?',
        );
      }
      return unreachable(error instanceof Error ? error.message : 'unknown error', 'check --url / GPUPROXY_URL');
    }
  }
}

function systemCode(error: unknown): string {
  // Trying several addresses fails with an AggregateError whose parts know the code.
  const parts = error instanceof AggregateError ? error.errors : [error];
  for (const part of parts) {
    const { code } = part as NodeJS.ErrnoException;
    if (typeof code === 'string') return code;
  }
  return 'unknown error';
}

const urlHint = 'check --url / GPUPROXY_URL: it is the control plane (default port 8080), not the data plane';

/** What exit code a stable `code` of a problem answer means; others go by their status. */
const exitByCode: Readonly<Record<string, ExitCode>> = {
  no_offers: exitCodes.nothing,
  incomplete: exitCodes.nothing,
  budget_exceeded: exitCodes.refused,
  read_only: exitCodes.refused,
  idempotency_mismatch: exitCodes.usage,
};

function exitByStatus(status: number): ExitCode {
  if (status === 400 || status === 413 || status === 415 || status === 422) return exitCodes.usage;
  if (status === 401 || status === 403) return exitCodes.unauthorized;
  return exitCodes.failed;
}

async function refusal(
  status: number,
  body: unknown,
  response: IncomingMessage,
  connection: Connection,
): Promise<CliError> {
  const { readProblem } = await import('./answers.ts');
  const problem = readProblem(body);
  const code = problem.code ?? `http_${status}`;
  const title = problem.title ?? `the server answered ${status}`;
  const detail = problem.detail ?? '';
  const details = (problem.errors ?? []).map(({ path, message }) => (path ? `${path}: ${message}` : message));
  const requestId = response.headers['x-request-id'];
  const more = {
    status,
    requestId: typeof requestId === 'string' ? requestId : null,
  };
  const exitCode = exitByCode[code] ?? exitByStatus(status);
  // Every refusal of the control plane has a code.
  if (problem.code === undefined) {
    return new CliError(exitCode, code, `${connection.url} answered ${status}${detail === '' ? '' : ` (${detail})`}`, {
      ...more,
      why: 'it is no answer of the control plane: another program, the data plane or a proxy in between gave it',
      hint: urlHint,
    });
  }
  if (status === 401) {
    const sent = connection.key !== null;
    return new CliError(exitCodes.unauthorized, code, `not authorised by ${connection.url}`, {
      ...more,
      why: sent ? `the server does not know the key (from ${originText(connection)})` : 'no key was sent',
      hint: 'give one with --key, GPUPROXY_API_KEY or "gpuproxy config set apiKey"; as the user of the server, "gpuproxy config get apiKey --reveal" shows its first one',
    });
  }
  const hint =
    status === 403
      ? 'use a key of the scope that is needed; an admin makes it with "gpuproxy keys create --scope admin"'
      : (hints[code] ??
        (status === 429
          ? retryHint(response)
          : status >= 500
            ? 'look at "gpuproxy providers" and the log of the server'
            : null));
  const message = detail === '' ? title : detail;
  const unsaid = details.filter((each) => !message.includes(each));
  const known = details.length > 0 || detail === '' || detail === title || emptyTitles.has(code);
  return new CliError(exitCode, code, message, {
    ...more,
    why: unsaid.length > 0 ? unsaid.join('; ') : known ? null : `${title} (${status})`,
    hint,
  });
}

/** Codes whose title says less than any detail. */
const emptyTitles: ReadonlySet<string> = new Set(['conflict', 'not_found', 'invalid', 'unsupported']);

const hints: Readonly<Record<string, string>> = {
  no_offers: 'look at "gpuproxy list", then loosen the filters or lower the count',
  incomplete: 'nothing was kept; loosen the filters, lower the count, or leave out --all-or-nothing',
  budget_exceeded:
    'lower the count or --max-price, destroy something ("gpuproxy cost"), or raise MAX_USD_PER_HOUR on the server',
  idempotency_mismatch: 'use another --idempotency-key for another request',
  conflict: '"gpuproxy fleet" shows what is there and in which state',
  no_credit: 'add credit at the provider; "gpuproxy providers" shows what is left',
  read_only: 'the server was started read-only',
};

function retryHint(response: IncomingMessage): string {
  const after = response.headers['retry-after'];
  return after === undefined ? 'wait a little, then try again' : `try again in ${after} s`;
}

function originText(connection: Connection): string {
  return connection.keyOrigin === 'flag'
    ? '--key'
    : connection.keyOrigin === 'environment'
      ? 'GPUPROXY_API_KEY'
      : connection.keyOrigin === '.env'
        ? 'GPUPROXY_API_KEY in .env'
        : 'the conf file';
}
