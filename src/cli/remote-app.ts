import { createParser } from 'eventsource-parser';
import { Agent, errors, request } from 'undici';
import * as z from 'zod';
import type { Offer } from '../core/domain.ts';
import {
  type App,
  AppError,
  type AppErrorCode,
  type BatchRequest,
  type FleetEvent,
  type InstanceConfig,
  type ReservedItem,
  type ReservePlan,
  type ReserveRequest,
  type Snapshot,
  type UpstreamView,
} from '../fleet/app.ts';
import * as schemas from '../rest/schemas.ts';
import type { ConnectionSource } from '../tui/dashboard.ts';
import type { Connection } from '../tui/view.ts';
import { CliError, exitCodes } from './exit.ts';

export type RemoteAppOptions = Readonly<{
  /** Control plane without the API path. */
  url: string;
  key: string | null;
  /** Longest wait for an answer; a stream that is silent for twice the server's keep-alive counts as lost. */
  timeoutMs?: number;
}>;

/** A running server as an App: its snapshots and events are followed for ever, its data stay while it is away. */
export interface RemoteApp extends App, AsyncDisposable {
  readonly connection: ConnectionSource;
  /** The key may only look. */
  readonly readonly: boolean;
}

const silentMs = 40_000;
/** Renting goes through slow provider calls one after the other. */
const paidTimeoutMs = 300_000;
const firstRetryMs = 500;
const maxRetryMs = 10_000;
const keptEvents = 1000;

/** What our own server answers with, as the App's words. The rest becomes `provider_failed`. */
const codeOf: Readonly<Record<string, AppErrorCode>> = {
  not_found: 'not_found',
  invalid: 'invalid',
  bad_json: 'invalid',
  conflict: 'conflict',
  no_offers: 'no_offers',
  incomplete: 'incomplete',
  budget_exceeded: 'budget_exceeded',
  idempotency_mismatch: 'idempotency_mismatch',
  no_credit: 'no_credit',
  provider_timeout: 'provider_timeout',
  unsupported: 'unsupported',
  unauthorized: 'read_only',
  forbidden: 'read_only',
};

/** Connects once, so that a wrong address or key is told at once; from then on it reconnects by itself. Throws CliError. */
export async function connectApp(options: RemoteAppOptions): Promise<RemoteApp> {
  const { url, key, timeoutMs = 10_000 } = options;
  const base = `${url}/api/v1`;
  const agent = new Agent({ connect: { timeout: timeoutMs }, headersTimeout: paidTimeoutMs, bodyTimeout: silentMs });
  const headers = key === null ? {} : { 'x-api-key': key };
  const closing = new AbortController();

  /** One exchange. Rejects with AppError. */
  async function call(
    method: 'GET' | 'POST' | 'PUT' | 'DELETE',
    path: string,
    body?: unknown,
    more: Record<string, string> = {},
  ): Promise<unknown> {
    let answer: Awaited<ReturnType<typeof request>>;
    let text: string;
    try {
      answer = await request(`${base}${path}`, {
        method,
        dispatcher: agent,
        headers: { ...headers, ...more, ...(body === undefined ? {} : { 'content-type': 'application/json' }) },
        ...(body === undefined ? {} : { body: JSON.stringify(body) }),
        signal: closing.signal,
      });
      text = await answer.body.text();
    } catch (error) {
      throw new AppError('disconnected', `${url} does not answer (${reason(error)})`, { cause: error });
    }
    let value: unknown = null;
    try {
      value = text === '' ? null : JSON.parse(text);
    } catch {
      throw new AppError('disconnected', `${url} answers ${answer.statusCode} with something that is not JSON`);
    }
    if (answer.statusCode < 400) return value;
    const problem = problemShape.safeParse(value).data ?? {};
    throw new AppError(
      codeOf[problem.code ?? ''] ?? 'provider_failed',
      problem.detail ?? `answer ${answer.statusCode}`,
      {
        details: (problem.errors ?? []).map((each) => each.message),
      },
    );
  }

  /** Whether the key may change something, asked by what only such a key may read. */
  const mayChange = async (): Promise<boolean> => {
    try {
      await call('GET', '/keys');
      return true;
    } catch (error) {
      if (error instanceof AppError && error.code === 'read_only') return false;
      throw error;
    }
  };

  let snapshot: Snapshot;
  let readonly: boolean;
  try {
    const [state, changes] = await Promise.all([call('GET', '/state'), mayChange()]);
    snapshot = decode(schemas.snapshot, state);
    readonly = !changes;
  } catch (error) {
    await agent.close();
    if (!(error instanceof AppError)) throw error;
    if (error.code === 'read_only') {
      throw new CliError(exitCodes.unauthorized, 'unauthorized', `not authorised by ${url}`, {
        why: error.message,
        hint: 'give a key of scope read or admin with --key or GPUPROXY_API_KEY',
      });
    }
    throw new CliError(exitCodes.unreachable, 'unreachable', error.message, {
      hint: 'start it with "gpuproxy serve", or correct --url',
    });
  }

  const listeners = new Set<() => void>();
  const eventListeners = new Set<(event: FleetEvent) => void>();
  const connectionListeners = new Set<() => void>();
  let events: readonly FleetEvent[] = [];
  let connection: Connection = { state: 'live', since: Date.now(), retryAt: null, detail: null };

  /** The newest message of the stream: taken apart when somebody looks, because a frozen dashboard looks once a second. */
  let unread: string | null = null;
  const adopt = (next: Snapshot): boolean => {
    // A server that was started again counts from one.
    if (next.version <= snapshot.version && next.startedAt === snapshot.startedAt) return false;
    snapshot = next;
    return true;
  };
  const tell = () => {
    for (const listener of listeners) listener();
  };
  const present = (): Snapshot => {
    if (unread === null) return snapshot;
    const text = unread;
    unread = null;
    try {
      adopt(decode(schemas.snapshot, JSON.parse(text)));
    } catch (error) {
      setConnection('stale', null, reason(error));
    }
    return snapshot;
  };
  const setConnection = (state: Connection['state'], retryAt: number | null, detail: string | null) => {
    const since = state === connection.state ? connection.since : Date.now();
    connection = { state, since, retryAt, detail };
    for (const listener of connectionListeners) listener();
  };
  const reload = async () => {
    if (adopt(decode(schemas.snapshot, await call('GET', '/state')))) tell();
  };

  /** Follows one stream of the server until it ends; resolves never, rejects when it is lost. */
  async function follow(
    path: string,
    onMessage: (event: string | undefined, text: string) => void,
    onOpen: () => void,
  ): Promise<never> {
    const answer = await request(`${base}${path}`, { dispatcher: agent, headers, signal: closing.signal });
    if (answer.statusCode !== 200) {
      await answer.body.dump();
      throw new Error(`answer ${answer.statusCode}`);
    }
    onOpen();
    const parser = createParser({ onEvent: ({ event, data }) => onMessage(event, data) });
    for await (const chunk of answer.body.setEncoding('utf8')) parser.feed(chunk as string);
    throw new Error('the server ended the stream');
  }

  /** Ends the pause of each stream that waits for its next attempt. */
  const pauses = new Set<() => void>();
  const pause = (ms: number) =>
    new Promise<void>((resolve) => {
      const end = () => {
        clearTimeout(timer);
        pauses.delete(end);
        resolve();
      };
      const timer = setTimeout(end, ms);
      pauses.add(end);
    });
  const endPauses = () => {
    for (const end of [...pauses]) end();
  };

  /** Follows for ever, with growing pauses between attempts. */
  async function followForever(
    path: () => string,
    onMessage: Parameters<typeof follow>[1],
    tells: boolean,
  ): Promise<void> {
    let waitMs = firstRetryMs;
    while (!closing.signal.aborted) {
      try {
        await follow(path(), onMessage, () => {
          waitMs = firstRetryMs;
          if (tells) setConnection('live', null, null);
        });
      } catch (error) {
        if (closing.signal.aborted) return;
        if (tells) setConnection('stale', Date.now() + waitMs, reason(error));
        await pause(waitMs);
        if (tells && !closing.signal.aborted) setConnection('stale', null, connection.detail);
        waitMs = Math.min(maxRetryMs, waitMs * 2);
      }
    }
  }

  void followForever(
    () => '/state/stream',
    (_, text) => {
      unread = text;
      tell();
    },
    true,
  );
  // All that are kept, each time: after a restart ids may have begun anew, so that an id tells nothing alone.
  void followForever(
    () => '/events?last_event_id=0',
    (kind, text) => {
      if (kind === 'gap') return;
      const wire = decode(schemas.event, JSON.parse(text));
      const event: FleetEvent = { ...wire, at: Date.parse(wire.at) };
      if (events.some((known) => known.id === event.id && known.at === event.at)) return;
      events = [...events.slice(1 - keptEvents), event];
      for (const listener of eventListeners) listener(event);
    },
    false,
  );

  const at = (id: string) => encodeURIComponent(id);
  /** The upstream as it is after a command. */
  const upstreamAfter = async (id: string): Promise<UpstreamView> => {
    await reload();
    const view = present().upstreams.find((upstream) => upstream.id === id);
    if (!view) throw new AppError('not_found', `${id} is not in the fleet any more`);
    return view;
  };
  const idempotency = (options: { idempotencyKey?: string } | undefined): Record<string, string> =>
    options?.idempotencyKey === undefined ? {} : { 'idempotency-key': options.idempotencyKey };

  return {
    state: {
      get: present,
      subscribe: (listener) => {
        listeners.add(listener);
        return () => listeners.delete(listener);
      },
    },
    events: {
      recent: (afterId = 0) => events.filter((event) => event.id > afterId),
      subscribe: (listener) => {
        eventListeners.add(listener);
        return () => eventListeners.delete(listener);
      },
    },
    connection: {
      get: () => connection,
      subscribe: (listener) => {
        connectionListeners.add(listener);
        return () => connectionListeners.delete(listener);
      },
      retry: endPauses,
    },
    readonly,
    async setStrategy(name) {
      const previous = present().strategy.name;
      const { strategy } = decode(
        schemas.strategySetAnswer,
        await call('PUT', '/loadbalancer/strategy', { strategy: name }),
      );
      await reload();
      return { strategy, previous };
    },
    async offers(filter) {
      const query = new URLSearchParams();
      for (const [name, value] of Object.entries(filterWire(filter))) query.set(name, String(value));
      const answer = decode(schemas.offersAnswer, await call('GET', `/gpu/instances?${query}`));
      return {
        offers: answer.instances.map(offerFrom),
        errors: answer.errors.map((error) => ({ ...error, staleMs: error.stale_ms })),
        more: answer.more,
      };
    },
    async plan(wish) {
      return planFrom(decode(schemas.planAnswer, await call('POST', '/gpu/instances/plan', reserveWire(wish))));
    },
    async planBatch(wish) {
      return planFrom(decode(schemas.planAnswer, await call('POST', '/gpu/instances/batch/plan', batchWire(wish))));
    },
    async reserve(wish, reserveOptions) {
      const answer = decode(
        schemas.reserveAnswer,
        await call('POST', '/gpu/instances/reserve', reserveWire(wish), idempotency(reserveOptions)),
      );
      await reload();
      return {
        reservation: answer.reservation_id,
        reserved: answer.reserved.map(reservedFrom),
        count: answer.count,
        requested: answer.requested,
        errors: answer.errors,
      };
    },
    async batch(wish, batchOptions) {
      const answer = decode(
        schemas.batchAnswer,
        await call('POST', '/gpu/instances/batch', batchWire(wish), idempotency(batchOptions)),
      );
      await reload();
      return {
        reservation: answer.reservation_id,
        vast: answer.vastai_instances,
        ionet: answer.ionet_instances,
        errors: answer.errors,
      };
    },
    async rentOffer(provider, offerId, config, rentOptions) {
      const path = `/gpu/instances/${at(provider)}/${at(offerId)}`;
      const body = defined({ ...configWire(config), max_price: rentOptions?.maxUsdPerHour });
      const item = decode(schemas.rentedAnswer, await call('POST', path, body, idempotency(rentOptions)));
      await reload();
      return reservedFrom(item);
    },
    async reservationOf(key) {
      const query = new URLSearchParams({ idempotency_key: key });
      const { reservations } = decode(schemas.reservationsAnswer, await call('GET', `/reservations?${query}`));
      const [found] = reservations;
      return found === undefined
        ? null
        : {
            id: found.reservation_id,
            createdAt: Date.parse(found.created_at),
            by: found.by,
            requested: found.requested,
            state: found.state,
            instances: found.instances,
            ended: found.ended,
            usdPerHour: found.price_per_hour,
            errors: found.errors,
          };
    },
    async cancel(key, cancelOptions) {
      const body = { idempotency_key: key, keep: cancelOptions?.keep ?? false };
      const answer = decode(schemas.cancelAnswer, await call('POST', '/reservations/cancel', body));
      await reload();
      return {
        reservation: answer.reservation_id,
        kept: answer.kept,
        released: answer.released,
        pending: answer.pending,
      };
    },
    async releaseReservation(id, releaseOptions) {
      const answer = decode(
        schemas.releasedAnswer,
        await call('DELETE', `/reservations/${at(id)}${now(releaseOptions)}`),
      );
      await reload();
      return { released: answer.released, failed: answer.failed };
    },
    async destroy(id, destroyOptions) {
      const answer = decode(schemas.destroyAnswer, await call('DELETE', `/fleet/${at(id)}${now(destroyOptions)}`));
      await reload();
      return { id: answer.instance_id, status: answer.status };
    },
    async drain(id, drainOptions) {
      const deadlineMs = drainOptions?.deadlineMs;
      await call(
        'POST',
        `/fleet/${at(id)}/drain`,
        deadlineMs === undefined ? {} : { deadline_seconds: deadlineMs / 1000 },
      );
      return upstreamAfter(id);
    },
    async resume(id) {
      await call('POST', `/fleet/${at(id)}/resume`);
      return upstreamAfter(id);
    },
    async setWeight(id, weight) {
      await call('PUT', `/fleet/${at(id)}/weight`, { weight });
      return upstreamAfter(id);
    },
    async extend(id, hours) {
      await call('POST', `/fleet/${at(id)}/extend`, { hours });
      return upstreamAfter(id);
    },
    async logs(id, logOptions) {
      return decode(schemas.logsAnswer, await call('GET', `/fleet/${at(id)}/logs?tail=${logOptions?.tail ?? 100}`))
        .lines;
    },
    async adopt(provider, contract) {
      const { instance_id } = decode(
        schemas.upstream,
        await call('POST', '/fleet/adopt', { provider, contract_id: contract }),
      );
      return upstreamAfter(instance_id);
    },
    async addUpstream(input) {
      const { instance_id } = decode(schemas.upstream, await call('POST', '/upstreams', input));
      return upstreamAfter(instance_id);
    },
    async removeUpstream(id, removeOptions) {
      await call('DELETE', `/upstreams/${at(id)}${removeOptions?.now === true ? '?now=true' : ''}`);
      await reload();
    },
    async decisions(query = {}) {
      const { decisions } = decode(schemas.decisionsAnswer, await call('GET', `/decisions?${listQuery(query)}`));
      return decisions.map((each) => ({
        at: Date.parse(each.at),
        strategy: each.strategy,
        winner: each.winner,
        candidates: each.candidates,
        ending: each.ending,
        ttfbMs: each.ttfb_ms,
        totalMs: each.total_ms,
      }));
    },
    async requests(query = {}) {
      const { requests } = decode(schemas.requestsAnswer, await call('GET', `/requests?${listQuery(query)}`));
      return requests.map((each) => ({
        at: Date.parse(each.at),
        id: each.id,
        method: each.method,
        path: each.path,
        status: each.status,
        cause: each.cause,
        instance: each.instance_id,
        attempts: each.attempts,
        queueMs: each.queue_ms,
        ttfbMs: each.ttfb_ms,
        totalMs: each.total_ms,
        bytesOut: each.bytes_out,
        model: each.model,
      }));
    },
    async refresh() {
      await call('POST', '/providers/refresh');
      await reload();
    },
    async [Symbol.asyncDispose]() {
      closing.abort();
      endPauses();
      await agent.destroy();
    },
  };
}

const problemShape = z.object({
  code: z.string().optional(),
  detail: z.string().optional(),
  errors: z.array(z.object({ message: z.string() })).optional(),
});

/** Checks an answer. Fields that a newer server added are no error. */
function decode<Schema extends z.ZodType>(schema: Schema, value: unknown): z.output<Schema> {
  const parsed = schema.safeParse(value);
  if (parsed.success) return parsed.data;
  if (parsed.error.issues.every((issue) => issue.code === 'unrecognized_keys')) return value as z.output<Schema>;
  const [issue] = parsed.error.issues;
  throw new AppError('disconnected', `the server speaks another version: ${issue?.path.join('.')}: ${issue?.message}`);
}

const words: Readonly<Record<string, string>> = {
  ECONNREFUSED: 'connection refused',
  ECONNRESET: 'connection reset',
  UND_ERR_SOCKET: 'connection closed',
  UND_ERR_CONNECT_TIMEOUT: 'no connection in time',
  UND_ERR_HEADERS_TIMEOUT: 'no answer in time',
  ENOTFOUND: 'unknown host',
  EAI_AGAIN: 'its name cannot be looked up',
  EHOSTUNREACH: 'no way to the host',
};

/** One line about a failed exchange, without the URL's secrets (there are none: the key is in a header). */
function reason(error: unknown): string {
  if (error instanceof errors.BodyTimeoutError) return 'silent for too long';
  const { code, message } = error as { code?: string; message?: string };
  return words[code ?? ''] ?? code ?? message ?? 'unknown error';
}

function now(options: { now?: boolean } | undefined): string {
  return options?.now ? '?now=true' : '';
}

function listQuery(query: { instance?: string; slowest?: boolean; limit?: number }): URLSearchParams {
  const search = new URLSearchParams();
  if (query.instance !== undefined) search.set('instance_id', query.instance);
  if (query.slowest) search.set('slowest', 'true');
  if (query.limit !== undefined) search.set('limit', String(query.limit));
  return search;
}

function filterWire(filter: ReserveRequest['filter']) {
  return defined({
    min_vram: filter.minVramGb,
    max_price: filter.maxUsdPerHour,
    gpu_model: filter.gpuModel,
    location: filter.location,
    provider: filter.provider,
    gpu_count: filter.gpuCount,
    verified: filter.verified,
  });
}

function configWire(config: InstanceConfig) {
  return defined({
    image: config.image,
    disk_gb: config.diskGb,
    env: config.env,
    onstart: config.onstart,
    args: config.args,
    ports: config.ports,
    max_bid: config.maxBidUsdPerHour,
    duration_hours: config.durationHours,
  });
}

function reserveWire(wish: ReserveRequest) {
  return defined({
    count: wish.count,
    filters: filterWire(wish.filter),
    config: configWire(wish.config),
    all_or_nothing: wish.allOrNothing,
    max_total_price: wish.maxTotalUsdPerHour,
  });
}

function batchWire(wish: BatchRequest) {
  return defined({
    vastai_count: wish.vast,
    ionet_count: wish.ionet,
    filters: filterWire(wish.filter),
    config: configWire(wish.config),
    max_total_price: wish.maxTotalUsdPerHour,
  });
}

function planFrom(wire: z.output<typeof schemas.planAnswer>): ReservePlan {
  return {
    offers: wire.instances.map(offerFrom),
    count: wire.count,
    requested: wire.requested,
    usdPerHour: wire.price_per_hour,
    prepaidUsd: wire.prepaid_usd,
    errors: wire.errors,
  };
}

function defined<T extends Record<string, unknown>>(fields: T): Partial<T> {
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined)) as Partial<T>;
}

function reservedFrom(wire: z.output<typeof schemas.rentedAnswer>): ReservedItem {
  return {
    instanceId: wire.instance_id,
    contractId: wire.contract_id,
    provider: wire.provider,
    gpuModel: wire.gpu_model,
    gpuCount: wire.gpu_count,
    vramGb: wire.vram,
    usdPerHour: wire.price,
  };
}

function offerFrom(wire: z.output<typeof schemas.offer>): Offer {
  return {
    provider: wire.provider,
    id: wire.id,
    gpuModel: wire.gpu_name,
    gpuCount: wire.gpu_count,
    vramGb: wire.vram_gb,
    usdPerHour: wire.price_per_hour,
    location: wire.location,
    countryCode: wire.country_code,
    reliability: wire.reliability,
    verified: wire.verified,
    available: wire.available,
    minBidUsdPerHour: wire.min_bid,
    prepaidHours: wire.prepaid_hours,
    diskGb: wire.disk_gb,
    storage:
      wire.storage === null ? null : { usdPerGbHour: wire.storage.usd_per_gb_hour, pricedGb: wire.storage.priced_gb },
    machineId: null,
  };
}
