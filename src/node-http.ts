/**
 * What servers and clients use of `node:http`. Importing that module makes Node read all its properties, and one of them
 * loads Node's own fetch: 50 ms of a core and megabytes in each thread, for something that this program never uses.
 */
const http = process.getBuiltinModule('node:http');

export const { Agent, createServer, request, ServerResponse, STATUS_CODES, validateHeaderName, validateHeaderValue } =
  http;
