import { AppError } from '../../fleet/app.ts';
import { operation } from '../operation.ts';
import { ProblemError } from '../problem.ts';
import * as schemas from '../schemas.ts';
import { cancelWire, fleetWire, providersWire, reservationWire, upstreamWire } from '../wire.ts';
import { destroyed } from './instances.ts';

const one = { 200: { description: 'The upstream', schema: schemas.upstream } };

export const fleetOperations = [
  operation({
    method: 'GET',
    path: '/fleet',
    id: 'listFleet',
    tag: 'fleet',
    summary: 'Rented and static upstreams with lifecycle, admin state, health, price and load',
    access: 'read',
    answers: { 200: { description: 'The fleet', schema: schemas.fleetAnswer } },
    handle: (_, { app }) => ({ status: 200, body: fleetWire(app.state.get()) }),
  }),
  operation({
    method: 'GET',
    path: '/fleet/{id}',
    id: 'getUpstream',
    tag: 'fleet',
    summary: 'One upstream',
    access: 'read',
    params: schemas.idParams,
    answers: one,
    problems: ['not_found'],
    handle({ params }, { app }) {
      const view = app.state.get().upstreams.find((upstream) => upstream.id === params.id);
      if (!view) throw new AppError('not_found', `There is no upstream ${params.id}.`);
      return { status: 200, body: upstreamWire(view) };
    },
  }),
  operation({
    method: 'DELETE',
    path: '/fleet/{id}',
    id: 'destroyUpstream',
    tag: 'fleet',
    summary: 'Destroy a rented instance',
    access: 'admin',
    params: schemas.idParams,
    query: schemas.destroyQuery,
    answers: {
      200: { description: 'Destroyed, or it was gone', schema: schemas.destroyAnswer },
      202: { description: 'Being destroyed', schema: schemas.destroyAnswer },
    },
    problems: ['not_found', 'conflict', 'unsupported', 'provider_failed', 'provider_timeout'],
    handle: async ({ params, query }, { app }) => destroyed(await app.destroy(params.id, { now: query.now ?? false })),
  }),
  operation({
    method: 'POST',
    path: '/fleet/{id}/drain',
    id: 'drainUpstream',
    tag: 'fleet',
    summary: 'Give it no new requests; what it has may finish',
    access: 'admin',
    params: schemas.idParams,
    body: schemas.drainBody.optional(),
    answers: one,
    problems: ['not_found', 'conflict'],
    async handle({ params, body }, { app }) {
      const deadlineMs = body?.deadline_seconds === undefined ? undefined : body.deadline_seconds * 1000;
      const view = await app.drain(params.id, deadlineMs === undefined ? {} : { deadlineMs });
      return { status: 200, body: upstreamWire(view) };
    },
  }),
  operation({
    method: 'POST',
    path: '/fleet/{id}/resume',
    id: 'resumeUpstream',
    tag: 'fleet',
    summary: 'Give it requests again',
    access: 'admin',
    params: schemas.idParams,
    answers: one,
    problems: ['not_found', 'conflict'],
    handle: async ({ params }, { app }) => ({ status: 200, body: upstreamWire(await app.resume(params.id)) }),
  }),
  operation({
    method: 'PUT',
    path: '/fleet/{id}/weight',
    id: 'setWeight',
    tag: 'fleet',
    summary: 'Set its weight by hand, or give it back to the formula',
    access: 'admin',
    params: schemas.idParams,
    body: schemas.weightBody,
    answers: one,
    problems: ['not_found', 'conflict'],
    handle: async ({ params, body }, { app }) => ({
      status: 200,
      body: upstreamWire(await app.setWeight(params.id, body.weight)),
    }),
  }),
  operation({
    method: 'POST',
    path: '/fleet/{id}/extend',
    id: 'extendUpstream',
    tag: 'fleet',
    summary: 'Buy more prepaid hours',
    access: 'admin',
    params: schemas.idParams,
    body: schemas.extendBody,
    answers: one,
    problems: [
      'not_found',
      'conflict',
      'unsupported',
      'budget_exceeded',
      'no_credit',
      'provider_failed',
      'provider_timeout',
    ],
    handle: async ({ params, body }, { app }) => ({
      status: 200,
      body: upstreamWire(await app.extend(params.id, body.hours)),
    }),
  }),
  operation({
    method: 'GET',
    path: '/fleet/{id}/logs',
    id: 'getLogs',
    tag: 'fleet',
    summary: 'Last lines of its output',
    access: 'read',
    params: schemas.idParams,
    query: schemas.logsQuery,
    answers: { 200: { description: 'Lines, oldest first', schema: schemas.logsAnswer } },
    problems: ['not_found', 'conflict', 'unsupported', 'provider_failed', 'provider_timeout', 'unavailable'],
    async handle({ params, query, signal }, { app }) {
      const lines = await app.logs(params.id, { tail: query.tail ?? 100 }, signal);
      return { status: 200, body: { instance_id: params.id, lines } };
    },
  }),
  operation({
    method: 'POST',
    path: '/fleet/adopt',
    id: 'adoptInstance',
    tag: 'fleet',
    summary: 'Take in an instance of the account that this server did not rent',
    access: 'admin',
    body: schemas.adoptBody,
    answers: { 201: { description: 'It is in the fleet', schema: schemas.upstream } },
    problems: ['not_found', 'conflict', 'unsupported', 'provider_failed', 'provider_timeout'],
    async handle({ body }, { app }) {
      const view = await app.adopt(body.provider, body.contract_id);
      return {
        status: 201,
        body: upstreamWire(view),
        headers: { location: `/api/v1/fleet/${encodeURIComponent(view.id)}` },
      };
    },
  }),
  operation({
    method: 'POST',
    path: '/upstreams',
    id: 'addUpstream',
    tag: 'fleet',
    summary: 'Add a server one already has',
    access: 'admin',
    body: schemas.addUpstreamBody,
    answers: { 201: { description: 'It is in the fleet', schema: schemas.upstream } },
    problems: ['conflict'],
    async handle({ body }, { app }) {
      checkUpstreamUrl(body.url);
      const view = await app.addUpstream({ url: body.url, ...(body.name === undefined ? {} : { name: body.name }) });
      return {
        status: 201,
        body: upstreamWire(view),
        headers: { location: `/api/v1/fleet/${encodeURIComponent(view.id)}` },
      };
    },
  }),
  operation({
    method: 'DELETE',
    path: '/upstreams/{id}',
    id: 'removeUpstream',
    tag: 'fleet',
    summary: 'Remove a static upstream',
    access: 'admin',
    params: schemas.idParams,
    query: schemas.removeQuery,
    answers: { 204: { description: 'It takes no requests any more, and is gone when those that are open have ended' } },
    problems: ['not_found', 'conflict'],
    async handle({ params, query }, { app }) {
      await app.removeUpstream(params.id, { now: query.now === true });
      return { status: 204, body: undefined };
    },
  }),
  operation({
    method: 'GET',
    path: '/providers',
    id: 'listProviders',
    tag: 'providers',
    summary: 'Availability, prices, credit and trouble of each provider',
    access: 'read',
    answers: { 200: { description: 'Providers', schema: schemas.providersAnswer } },
    handle: (_, { app }) => ({ status: 200, body: providersWire(app.state.get()) }),
  }),
  operation({
    method: 'POST',
    path: '/providers/refresh',
    id: 'refreshProviders',
    tag: 'providers',
    summary: 'Ask every provider again now',
    access: 'admin',
    answers: { 200: { description: 'Providers', schema: schemas.providersAnswer } },
    async handle(_, { app }) {
      await app.refresh();
      return { status: 200, body: providersWire(app.state.get()) };
    },
  }),
  operation({
    method: 'GET',
    path: '/reservations',
    id: 'listReservations',
    tag: 'reservations',
    summary: 'What was reserved',
    description: 'With idempotency_key: the one that the request with this key made, also while it is under way.',
    access: 'read',
    query: schemas.reservationsQuery,
    answers: { 200: { description: 'Reservations', schema: schemas.reservationsAnswer } },
    async handle({ query: { idempotency_key: key } }, { app }) {
      const views = key === undefined ? app.state.get().reservations : [await app.reservationOf(key)];
      const reservations = views.flatMap((view) => (view === null ? [] : [reservationWire(view)]));
      return { status: 200, body: { reservations, count: reservations.length } };
    },
  }),
  operation({
    method: 'POST',
    path: '/reservations/cancel',
    id: 'cancelReservation',
    tag: 'reservations',
    summary: 'Stop a request that rents, by its Idempotency-Key',
    description:
      'No further paid call is made, those under way are waited for; then what was rented is given back, or kept with keep.',
    access: 'admin',
    body: schemas.cancelBody,
    answers: {
      200: { description: 'What became of what was begun', schema: schemas.cancelAnswer },
      202: { description: 'What is pending is being retried', schema: schemas.cancelAnswer },
    },
    problems: ['not_found', 'conflict', 'provider_failed', 'provider_timeout'],
    async handle({ body }, { app }) {
      const result = await app.cancel(body.idempotency_key, { keep: body.keep ?? false });
      return { status: result.pending.length === 0 ? 200 : 202, body: cancelWire(result) };
    },
  }),
  operation({
    method: 'GET',
    path: '/reservations/{id}',
    id: 'getReservation',
    tag: 'reservations',
    summary: 'One reservation',
    access: 'read',
    params: schemas.idParams,
    answers: { 200: { description: 'The reservation', schema: schemas.reservation } },
    problems: ['not_found'],
    handle({ params }, { app }) {
      const view = app.state.get().reservations.find((reservation) => reservation.id === params.id);
      if (!view) throw new AppError('not_found', `There is no reservation ${params.id}.`);
      return { status: 200, body: reservationWire(view) };
    },
  }),
  operation({
    method: 'DELETE',
    path: '/reservations/{id}',
    id: 'releaseReservation',
    tag: 'reservations',
    summary: 'Destroy all of it',
    access: 'admin',
    params: schemas.idParams,
    query: schemas.destroyQuery,
    answers: {
      200: { description: 'All of it was released', schema: schemas.releasedAnswer },
      202: { description: 'What failed is being retried', schema: schemas.releasedAnswer },
    },
    problems: ['not_found', 'conflict', 'provider_failed', 'provider_timeout'],
    async handle({ params, query }, { app }) {
      const { released, failed } = await app.releaseReservation(params.id, { now: query.now ?? false });
      return { status: failed.length === 0 ? 200 : 202, body: { reservation_id: params.id, released, failed } };
    },
  }),
];

function checkUpstreamUrl(text: string): void {
  const refuse = (message: string) =>
    new ProblemError('invalid', `url: ${message}`, { errors: [{ path: 'url', in: 'body', message }] });
  if (!URL.canParse(text)) throw refuse('not a URL, accepts http://host:port or https://host:port');
  const url = new URL(text);
  if (url.protocol !== 'http:' && url.protocol !== 'https:') {
    throw refuse(`got the scheme ${url.protocol.slice(0, -1)}, accepts http or https`);
  }
  if (url.username !== '' || url.password !== '') {
    throw refuse('has a user name or password in it; set UPSTREAM_API_KEY instead');
  }
}
