import * as z from 'zod';
import * as schemas from '../rest/schemas.ts';
import { CliError, exitCodes } from './exit.ts';

const offer = schemas.offer
  .pick({
    id: true,
    provider: true,
    gpu_name: true,
    gpu_count: true,
    vram_gb: true,
    price_per_hour: true,
    location: true,
    available: true,
    prepaid_hours: true,
    storage: true,
  })
  .partial({ prepaid_hours: true, storage: true });

const reservation = schemas.reservation.pick({
  reservation_id: true,
  created_at: true,
  by: true,
  requested: true,
  state: true,
  instances: true,
  ended: true,
  price_per_hour: true,
  errors: true,
});

/**
 * What client commands read of the answers, made of the schemas that the server answers by. Where the guide shows an
 * answer, only what it shows is asked for. Imported when an answer is read: printing one as JSON does not need it.
 */
const answers = {
  strategy: schemas.strategyAnswer,
  strategySet: schemas.strategySetAnswer.pick({ strategy: true }),
  loads: schemas.loadsAnswer.extend({
    loads: z.record(
      z.string(),
      schemas.load
        .pick({
          instance_id: true,
          provider: true,
          active_connections: true,
          total_connections: true,
          avg_response_time: true,
          avg_response_time_ms: true,
          weight: true,
        })
        .partial({ avg_response_time_ms: true }),
    ),
  }),
  available: schemas.providersAnswer.extend({
    providers: z.array(
      schemas.provider
        .pick({ provider: true, available: true, more: true, status: true, refreshed_at: true, last_error: true })
        .partial({ more: true, status: true, refreshed_at: true, last_error: true }),
    ),
  }),
  offers: schemas.offersAnswer.extend({ instances: z.array(offer) }).partial({ more: true }),
  plan: schemas.planAnswer.extend({ instances: z.array(offer) }),
  reserved: schemas.reserveAnswer.extend({
    reserved: z.array(schemas.reserveAnswer.shape.reserved.element.partial({ gpu_count: true })),
    reservation_id: schemas.reserveAnswer.shape.reservation_id.optional(),
  }),
  batch: schemas.batchAnswer.partial({ reservation_id: true }),
  rented: schemas.rentedAnswer,
  destroyed: schemas.destroyAnswer,
  fleet: schemas.fleetAnswer,
  upstream: schemas.upstream,
  /** For suggestions. */
  upstreamWords: z.object({
    upstreams: z.array(
      schemas.upstream
        .pick({ instance_id: true, provider: true, state: true, gpu_model: true })
        .partial({ provider: true, state: true, gpu_model: true }),
    ),
  }),
  logs: schemas.logsAnswer,
  providers: schemas.providersAnswer,
  reservations: schemas.reservationsAnswer.extend({ reservations: z.array(reservation) }),
  reservation,
  released: schemas.releasedAnswer,
  cost: schemas.costAnswer,
  keys: schemas.keysAnswer,
  keyCreated: schemas.keyCreatedAnswer,
  requests: schemas.requestsAnswer,
  event: schemas.event,
  version: schemas.versionAnswer,
} as const;

export type AnswerName = keyof typeof answers;
export type Answers = { readonly [Name in AnswerName]: z.output<(typeof answers)[Name]> };

/** Checks what a server sent. Fields that a newer one added are no error. Throws CliError that names the field. */
export function readAnswer<Name extends AnswerName>(name: Name, value: unknown, from: string): Answers[Name] {
  const parsed = answers[name].safeParse(value);
  if (parsed.success) return parsed.data as Answers[Name];
  const wrong = parsed.error.issues.filter(({ code }) => code !== 'unrecognized_keys');
  const [issue] = wrong;
  if (issue === undefined) return value as Answers[Name];
  const where = issue.path.length === 0 ? '' : `${issue.path.join('.')}: `;
  throw new CliError(exitCodes.failed, 'bad_answer', `${from} answered something else than this program knows`, {
    why: `${where}${issue.message}`,
    hint: 'is it a gpuproxy of the same version? "gpuproxy version" tells; --json prints the answer as it came',
  });
}

/** What became of a request that was stopped. Fields that a newer server added are no error. */
export function readCancelled(value: unknown): z.output<typeof cancelled> {
  return cancelled.parse(value);
}
const cancelled = z.object(schemas.cancelAnswer.shape);

const problem = z.object({
  code: z.string().optional().catch(undefined),
  title: z.string().optional().catch(undefined),
  detail: z.string().optional().catch(undefined),
  errors: z
    .array(z.object({ path: z.string().optional(), message: z.string() }))
    .optional()
    .catch(undefined),
});

/** What a refusal says of itself; nothing where it is no problem document: a proxy in between may have answered. */
export function readProblem(value: unknown): z.output<typeof problem> {
  return problem.safeParse(value).data ?? {};
}
