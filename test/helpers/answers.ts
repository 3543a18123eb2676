import { appendFileSync, readFileSync } from 'node:fs';
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import { Ajv2020, type ValidateFunction } from 'ajv/dist/2020.js';
import type { FastifyInstance } from 'fastify';

type Responses = Record<string, { content?: Record<string, { schema?: object; 'x-data-schema'?: object }> }>;
export type OpenApiOperation = {
  operationId: string;
  description?: string;
  parameters: { name: string; in: string; required: boolean; schema: object }[];
  requestBody?: { required: boolean; content: { 'application/json': { schema: object } } };
  responses: Responses;
  security?: unknown[];
  'x-scope'?: string;
};
export type OpenApi = {
  openapi: string;
  info: { description: string };
  paths: Record<string, Record<string, OpenApiOperation>>;
  components: { schemas: Record<string, object> };
};

/** An answer as it leaves; of a stream the head, or one message of it. */
export type Reply = { method: string; route: string | null; status: number; type: string; text: string };

const undescribed = ['/api/v1/openapi.json', '/api/v1/docs'];

/**
 * Looks at everything that a server answers, to whomever and however, and appends what is not as the document says to
 * the file that TEST_ANSWER_FAULTS names.
 */
export function watch(fastify: FastifyInstance): void {
  const { server } = fastify;
  const { TEST_OPENAPI, TEST_ANSWER_FAULTS: faults } = process.env;
  if (TEST_OPENAPI === undefined || faults === undefined) throw new Error('answers are watched in tests alone');
  const check = createChecker(JSON.parse(readFileSync(TEST_OPENAPI, 'utf8')) as OpenApi);
  const note = (reply: Reply) => {
    try {
      check(reply);
    } catch (error) {
      appendFileSync(faults, `${(error as Error).message}\n`);
    }
  };

  const routes = new WeakMap<ServerResponse, string>();
  fastify.addHook('onRequest', (request, reply, done) => {
    const { url } = request.routeOptions;
    if (url !== undefined) routes.set(reply.raw, url.replace(/:(\w+)/g, '{$1}'));
    done();
  });
  const observe = (request: IncomingMessage, response: ServerResponse) =>
    observeAnswer(response, (part) =>
      note({
        ...part,
        method: request.method ?? '',
        route: routes.get(response) ?? null,
        status: response.statusCode,
      }),
    );
  for (const event of ['request', 'checkExpectation']) server.prependListener(event, observe);
  server.prependListener('clientError', (_error: Error, socket: Socket) => observeRefusal(socket, note));
}

/** The body of a whole answer, or each message of a stream as it goes out. */
function observeAnswer(response: ServerResponse, told: (part: { type: string; text: string }) => void): void {
  const { writeHead, write, end } = response;
  // Headers that are given to `writeHead` alone cannot be read back.
  let type: unknown;
  let text = '';
  let isStream = false;
  const put = (chunk: unknown) => {
    if (typeof chunk === 'string') text += chunk;
    else if (chunk instanceof Uint8Array) text += Buffer.from(chunk).toString('utf8');
  };
  const typeNow = () => String(type ?? response.getHeader('content-type') ?? '').split(';', 1)[0]!;

  response.writeHead = ((...args: Parameters<typeof writeHead>) => {
    const headers = args.at(-1) as unknown;
    if (typeof headers === 'object' && headers !== null) type = (headers as Record<string, unknown>)['content-type'];
    return writeHead.apply(response, args);
  }) as typeof writeHead;
  response.write = ((...args: Parameters<typeof write>) => {
    put(args[0]);
    if (typeNow() === 'text/event-stream') {
      isStream = true;
      for (let at = text.indexOf('\n\n'); at >= 0; at = text.indexOf('\n\n')) {
        told({ type: typeNow(), text: text.slice(0, at) });
        text = text.slice(at + 2);
      }
    }
    return write.apply(response, args);
  }) as typeof write;
  response.end = ((...args: Parameters<typeof end>) => {
    put(args[0]);
    if (!isStream || text !== '') told({ type: typeNow(), text });
    return end.apply(response, args);
  }) as typeof end;
}

/** An answer to what Node could not read as a request is written to the socket by hand. */
function observeRefusal(socket: Socket, note: (reply: Reply) => void): void {
  const { end } = socket;
  socket.end = ((...args: Parameters<typeof end>) => {
    const [, status, head = '', text = ''] =
      /^HTTP\/1\.1 (\d+) (.*?)\r\n\r\n(.*)$/s.exec(String(args[0] as unknown)) ?? [];
    const type = /^content-type: ([^;\r]+)/im.exec(head)?.[1] ?? '';
    if (status !== undefined) note({ method: '', route: null, status: Number(status), type, text });
    return end.apply(socket, args);
  }) as typeof end;
}

/** Throws when an answer is not one that the document announces. */
export function createChecker(document: OpenApi): (reply: Reply) => void {
  const ajv = new Ajv2020({ strict: false, allErrors: true, validateFormats: false });
  ajv.addSchema(document, 'api');
  const compiled = new Map<string, ValidateFunction>();
  /** By what it was checked against: the same again is not checked twice, which large answers of a cache would feel. */
  const lastFit = new Map<string, string>();

  const assertValid = (pointer: string, what: string, text: string): void => {
    if (lastFit.get(pointer) === text) return;
    let body: unknown;
    try {
      body = JSON.parse(text);
    } catch {
      throw new Error(`${what} is not JSON:\n${text.slice(0, 2000)}`);
    }
    let validate = compiled.get(pointer);
    if (validate === undefined) {
      validate = ajv.compile({ $ref: `api#${pointer}` });
      compiled.set(pointer, validate);
    }
    if (!validate(body)) {
      const errors = validate.errors?.map(
        (error) => `${error.instancePath} ${error.message} ${JSON.stringify(error.params)}`,
      );
      throw new Error(`${what} is not as described:\n${errors?.join('\n')}\n${text.slice(0, 2000)}`);
    }
    lastFit.set(pointer, text);
  };

  return ({ method, route, status, type, text }) => {
    const what = `${method} ${route ?? 'to no route'} ${status}`;
    const verb = method === 'HEAD' ? 'get' : method.toLowerCase();
    // A body that was made all the same is dropped by Node.
    const isHeadOnly = method === 'HEAD' && text === '';
    if (route === null || undescribed.includes(route)) {
      if (method === 'OPTIONS' && status === 204 && text === '') return;
      if (status === 200 && route !== null) return;
      if (type !== 'application/problem+json') throw new Error(`${what} came as ${type}, which is no problem`);
      if (!isHeadOnly) assertValid('/components/schemas/Problem', what, text);
      return;
    }
    const operation = document.paths[route]?.[verb];
    const response = operation?.responses[String(status)];
    if (response === undefined) throw new Error(`${what} is not described: ${text.slice(0, 2000)}`);
    if (response.content === undefined) {
      if (text !== '') throw new Error(`${what} has a body`);
      return;
    }
    const content = response.content[type];
    if (content === undefined) throw new Error(`${what} came as ${type}, which is not described`);
    if (isHeadOnly) return;
    const isStream = type === 'text/event-stream';
    const keyword = isStream ? 'x-data-schema' : 'schema';
    const pointer = ['paths', route, verb, 'responses', String(status), 'content', type, keyword];
    const path = `/${pointer.map(escapePart).join('/')}`;
    if (!isStream) {
      if (content.schema !== undefined) assertValid(path, what, text);
      return;
    }
    const { event, data } = fieldsOf(text);
    if (data === undefined) {
      if (event !== undefined) throw new Error(`${what} has a message without data: ${text}`);
      return;
    }
    assertValid(path, `${what}, message ${event},`, data);
    // A message is called by the kind of its event, or as the description says.
    const { kind } = JSON.parse(data) as { kind?: string };
    if (event === undefined || (event !== kind && operation?.description?.includes(`\`${event}\``) !== true)) {
      throw new Error(`${what} has a message called ${event}, which is not described`);
    }
  };
}

const escapePart = (part: string) => encodeURIComponent(part.replaceAll('~', '~0').replaceAll('/', '~1'));

/** Of one message of a stream; a comment has no name. */
function fieldsOf(text: string): Record<string, string> {
  return Object.fromEntries(
    text.split('\n').flatMap((line) => {
      const at = line.indexOf(':');
      return at === 0 ? [] : [[line.slice(0, at), line.slice(at + 1).replace(/^ /, '')]];
    }),
  );
}
