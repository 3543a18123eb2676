import { AppError } from '../../fleet/app.ts';
import { operation } from '../operation.ts';
import { ProblemError } from '../problem.ts';
import * as schemas from '../schemas.ts';
import { keyWire } from '../wire.ts';

export const keyOperations = [
  operation({
    method: 'GET',
    path: '/keys',
    id: 'listKeys',
    tag: 'keys',
    summary: 'API keys, without the secrets',
    access: 'admin',
    answers: { 200: { description: 'Keys', schema: schemas.keysAnswer } },
    handle(_, { app }) {
      const keys = app.keys.list().map(keyWire);
      return { status: 200, body: { keys, count: keys.length } };
    },
  }),
  operation({
    method: 'POST',
    path: '/keys',
    id: 'createKey',
    tag: 'keys',
    summary: 'Make a key; the secret is shown this once',
    description: 'Scopes: admin may do everything, read may only look, proxy may only use the data plane.',
    access: 'admin',
    body: schemas.createKeyBody,
    answers: { 201: { description: 'The key', schema: schemas.keyCreatedAnswer } },
    handle({ body }, { app, now }) {
      const expiresAt = body.expires_at == null ? null : Date.parse(body.expires_at);
      if (expiresAt !== null && !(expiresAt > now())) {
        const message = `got "${body.expires_at}", accepts a time in the future`;
        throw new ProblemError('invalid', `expires_at: ${message}`, {
          errors: [{ path: 'expires_at', in: 'body', message }],
        });
      }
      const { key, view } = app.keys.create({
        name: body.name,
        scope: body.scope,
        expiresAt,
        requestsPerMinute: body.requests_per_minute ?? null,
        maxConcurrent: body.max_concurrent ?? null,
      });
      return { status: 201, body: { ...keyWire(view), key } };
    },
  }),
  operation({
    method: 'DELETE',
    path: '/keys/{id}',
    id: 'revokeKey',
    tag: 'keys',
    summary: 'Revoke a key, at once and for good',
    access: 'admin',
    params: schemas.idParams,
    answers: { 204: { description: 'Revoked' } },
    problems: ['not_found', 'conflict'],
    handle({ params }, { app, now }) {
      const keys = app.keys.list();
      const key = keys.find((candidate) => candidate.id === params.id);
      // Without the id: a key that was given in its place must not come back in an answer.
      if (!key) throw new AppError('not_found', 'There is no key with this id.');
      const isLive = (candidate: typeof key) =>
        candidate.revokedAt === null && (candidate.expiresAt === null || candidate.expiresAt > now());
      // One that expires does not stand in for one that does not: its end would leave nobody with power.
      const remains = keys.some(
        (other) =>
          other !== key &&
          other.scope === 'admin' &&
          isLive(other) &&
          (other.expiresAt === null || key.expiresAt !== null),
      );
      if (key.scope === 'admin' && isLive(key) && !remains) {
        throw new AppError(
          'conflict',
          `This is the last admin key${key.expiresAt === null ? ' that does not expire' : ''}; make another one before you revoke it.`,
        );
      }
      app.keys.revoke(params.id);
      return { status: 204, body: undefined };
    },
  }),
];
