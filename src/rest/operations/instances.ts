import type * as z from 'zod';
import type { ProviderName } from '../../core/domain.ts';
import {
  AppError,
  type BatchRequest,
  type DestroyResult,
  type LocalApp,
  type ReserveRequest,
} from '../../fleet/app.ts';
import { marketplaceNames } from '../../providers/names.ts';
import { operation } from '../operation.ts';
import { ProblemError } from '../problem.ts';
import * as schemas from '../schemas.ts';
import { batchWire, offersWire, planWire, rentedWire, reserveWire } from '../wire.ts';

const rentProblems = [
  'no_offers',
  'incomplete',
  'budget_exceeded',
  'no_credit',
  'conflict',
  'provider_failed',
  'provider_timeout',
  'unavailable',
] as const;

export const instanceOperations = [
  operation({
    method: 'GET',
    path: '/gpu/instances',
    id: 'listOffers',
    tag: 'instances',
    summary: 'Offers that are rentable now, cheapest first',
    access: 'read',
    query: schemas.offersQuery,
    answers: {
      200: { description: 'Offers; errors names providers that could not be asked', schema: schemas.offersAnswer },
    },
    problems: ['provider_failed', 'provider_timeout', 'unavailable'],
    async handle({ query, signal }, { app }) {
      const answer = await app.offers(schemas.toOfferFilter(query), signal);
      return { status: 200, body: offersWire(answer, query.provider ?? 'all') };
    },
  }),
  operation({
    method: 'POST',
    path: '/gpu/instances/plan',
    id: 'planReservation',
    tag: 'instances',
    summary: 'What a reservation would rent now, without renting',
    access: 'read',
    body: schemas.reserveBody,
    answers: { 200: { description: 'The plan', schema: schemas.planAnswer } },
    problems: rentProblems,
    async handle({ body, signal }, { app }) {
      return { status: 200, body: planWire(await app.plan(toReserveRequest(body), signal)) };
    },
  }),
  operation({
    method: 'POST',
    path: '/gpu/instances/reserve',
    id: 'reserve',
    tag: 'instances',
    summary: 'Rent up to 16 GPUs, chosen by the strategy in use',
    description: 'Fewer than requested is 201 with the reasons in errors, unless all_or_nothing.',
    access: 'admin',
    body: schemas.reserveBody,
    idempotent: true,
    answers: { 201: { description: 'What was rented', schema: schemas.reserveAnswer } },
    problems: [...rentProblems, 'idempotency_mismatch'],
    async handle({ body, idempotencyKey, by }, { app }) {
      // A client that leaves does not stop what is being paid for: it asks again with its key, or cancels.
      const result = await app.reserve(toReserveRequest(body), {
        by,
        ...(idempotencyKey === null ? {} : { idempotencyKey }),
      });
      if (result.count === 0) throw nothing(result.errors);
      return {
        status: 201,
        body: reserveWire(result),
        headers: {
          location: `/api/v1/reservations/${encodeURIComponent(result.reservation)}`,
          ...replayed(result),
        },
      };
    },
  }),
  operation({
    method: 'POST',
    path: '/gpu/instances/batch',
    id: 'createBatch',
    tag: 'instances',
    summary: 'Rent a number of one-GPU instances from each provider',
    access: 'admin',
    body: schemas.batchBody,
    idempotent: true,
    answers: { 201: { description: 'What was rented', schema: schemas.batchAnswer } },
    problems: [...rentProblems, 'idempotency_mismatch'],
    async handle({ body, idempotencyKey, by }, { app }) {
      const result = await app.batch(toBatchRequest(body), {
        by,
        ...(idempotencyKey === null ? {} : { idempotencyKey }),
      });
      if (result.vast.length + result.ionet.length === 0) throw nothing(result.errors);
      return { status: 201, body: batchWire(result), headers: replayed(result) };
    },
  }),
  operation({
    method: 'POST',
    path: '/gpu/instances/batch/plan',
    id: 'planBatch',
    tag: 'instances',
    summary: 'What a batch would rent now, without renting',
    access: 'read',
    body: schemas.batchBody,
    answers: { 200: { description: 'The plan', schema: schemas.planAnswer } },
    problems: rentProblems,
    async handle({ body, signal }, { app }) {
      return { status: 200, body: planWire(await app.planBatch(toBatchRequest(body), signal)) };
    },
  }),
  operation({
    method: 'POST',
    path: '/gpu/instances/{provider}/{id}',
    id: 'rentOffer',
    tag: 'instances',
    summary: 'Rent one offer',
    access: 'admin',
    params: schemas.providerIdParams,
    body: schemas.rentBody.optional(),
    idempotent: true,
    answers: { 201: { description: 'Rented', schema: schemas.rentedAnswer } },
    problems: [...rentProblems, 'not_found', 'unsupported', 'idempotency_mismatch'],
    async handle({ params, body, idempotencyKey, by }, { app }) {
      const { max_price: maxUsdPerHour, ...config } = body ?? {};
      const item = await app.rentOffer(params.provider, params.id, schemas.toInstanceConfig(config), {
        by,
        maxUsdPerHour,
        ...(idempotencyKey === null ? {} : { idempotencyKey }),
      });
      return {
        status: 201,
        body: rentedWire(item),
        headers: { location: `/api/v1/fleet/${encodeURIComponent(item.instanceId)}`, ...replayed(item) },
      };
    },
  }),
  operation({
    method: 'DELETE',
    path: '/gpu/instances/{provider}/{id}',
    id: 'destroyInstance',
    tag: 'instances',
    summary: 'Destroy an instance; one that is already gone counts as done',
    description: 'The id is the instance id or the contract id. It is drained first unless now=true.',
    access: 'admin',
    params: schemas.providerIdParams,
    query: schemas.destroyQuery,
    answers: {
      200: { description: 'Destroyed, or it was gone', schema: schemas.destroyAnswer },
      202: { description: 'Being destroyed', schema: schemas.destroyAnswer },
    },
    // Of a path that no instance can have; one that is gone is none.
    problems: ['not_found', 'conflict', 'unsupported', 'provider_failed', 'provider_timeout'],
    async handle({ params, query }, { app }) {
      return destroyed(await destroyByAnyId(app, params.provider, params.id, query.now ?? false));
    },
  }),
];

function toReserveRequest(body: {
  count: number;
  filters?: Parameters<typeof schemas.toOfferFilter>[0];
  config?: Parameters<typeof schemas.toInstanceConfig>[0];
  all_or_nothing?: boolean | undefined;
  max_total_price?: number | undefined;
}): ReserveRequest {
  return {
    count: body.count,
    filter: schemas.toOfferFilter(body.filters),
    config: schemas.toInstanceConfig(body.config),
    allOrNothing: body.all_or_nothing,
    maxTotalUsdPerHour: body.max_total_price,
  };
}

function toBatchRequest(body: z.output<typeof schemas.batchBody>): BatchRequest {
  const vast = body.vastai_count ?? 0;
  const ionet = body.ionet_count ?? 0;
  if (vast + ionet === 0) {
    throw new ProblemError('invalid', 'vastai_count and ionet_count are both 0: nothing to create', {
      errors: ['vastai_count', 'ionet_count'].map((path) => ({
        path,
        in: 'body',
        message: 'accepts 0 to 8, and one of the two more than 0',
      })),
    });
  }
  return {
    vast,
    ionet,
    filter: schemas.toOfferFilter(body.filters),
    config: schemas.toInstanceConfig(body.config),
    maxTotalUsdPerHour: body.max_total_price,
  };
}

function replayed(result: { replayed?: boolean }): Record<string, string> {
  return result.replayed ? { 'idempotency-replayed': 'true' } : {};
}

function nothing(errors: readonly string[]): AppError {
  return new AppError('no_offers', errors[0] ?? 'No offer matches.', { details: errors });
}

export function destroyed(result: DestroyResult) {
  return {
    status: result.status === 'destroying' ? 202 : 200,
    body: { instance_id: result.id, status: result.status },
  };
}

async function destroyByAnyId(app: LocalApp, provider: ProviderName, id: string, now: boolean): Promise<DestroyResult> {
  const marketplace = marketplaceNames.find((m) => m.name === provider);
  if (!marketplace) {
    throw new AppError(
      'unsupported',
      'Static upstreams are not rented; remove one with DELETE /api/v1/upstreams/{id}.',
    );
  }
  const { upstreams, foreign } = app.state.get();
  const instanceId = id.startsWith(`${marketplace.prefix}-`) ? id : `${marketplace.prefix}-${id}`;
  const view = upstreams.find((u) => u.provider === provider && (u.id === instanceId || u.contract === id));
  if (!view && foreign.some((f) => f.provider === provider && f.contract === id)) {
    throw new AppError('conflict', `${id} was not rented by this server, so it is not touched; adopt it first.`);
  }
  try {
    return await app.destroy(view?.id ?? instanceId, { now });
  } catch (error) {
    if (error instanceof AppError && error.code === 'not_found') return { id: view?.id ?? instanceId, status: 'gone' };
    throw error;
  }
}
