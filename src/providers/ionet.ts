import * as z from 'zod';
import { monotonicMs } from '../clock.ts';
import type { ContractId, Offer, OfferFilter, ProviderInstance, RentResult, RentSpec } from '../core/domain.ts';
import { matchesFilter } from '../core/offers.ts';
import { unlessAborted } from '../core/unless-aborted.ts';
import { decodeRows, id, mapBounded, maybeNumber, maybeText, number, text } from './decode-rows.ts';
import { type Answer, createJsonClient, type Endpoint, isOfApi, messageOf, sendPaid } from './http.ts';
import type { ProviderOptions } from './index.ts';
import { type OfferList, type Provider, ProviderError } from './provider.ts';
import { cardsOf, type PublicCard, vramOf } from './vram.ts';

/**
 * io.net sells containers by the prepaid hour (CaaS). Its API has no search: offers are put together from hardware,
 * places with stock, and a price for each. Undocumented, and therefore handled by what the words suggest: the status of
 * a refused key (401 or 403), of missing credit and of missing stock (some 4xx with a text), rate limits, the text of
 * `status` in the answer to a deployment, how the ids of the public hardware list map to those of this API.
 */
const name = 'io.net';
const api = '/enterprise/v1/io-cloud/caas';

/** Limits are not documented. Another API of the same house allows 15 requests a second in all; this stays below. */
const paced = { spacingMs: 100, burst: 20, group: 'io.net' };
const endpoints = {
  hardware: { name: 'hardware', ...paced },
  replicas: { name: 'available replicas', ...paced },
  price: { name: 'price', ...paced },
  vram: { name: 'public hardware list', ...paced },
  deploy: { name: 'deploy', ...paced },
  list: { name: 'deployments', ...paced },
  detail: { name: 'deployment', ...paced },
  containers: { name: 'containers', ...paced },
  destroy: { name: 'destroy', ...paced },
  extend: { name: 'extend', ...paced },
  logs: { name: 'log', ...paced },
} as const satisfies Record<string, Endpoint>;

const width = 4;
const hardwareKeptMs = 60_000;
const stockKeptMs = 20_000;
const priceKeptMs = 300_000;
/** A price this old still stands in when asking again fails. */
const priceStaleMs = 3_600_000;
const vramKeptMs = 3_600_000;
/** An address that is known is asked again this often. */
const addressKeptMs = 60_000;
const deploymentsPage = 100;
const priceSlackUsd = 0.0005;
/** Clocks that differ by less do not move the end of a deployment. */
const clockSlackMs = 120_000;

/** Answers of GET come as `{data: …}`, those of deploy, PATCH and DELETE bare. Both are accepted everywhere. */
function wrapped<T extends z.ZodType>(schema: T) {
  return z.preprocess(
    (value) => (typeof value === 'object' && value !== null && 'data' in value ? value.data : value),
    schema,
  );
}

const hardwareAnswer = wrapped(z.object({ hardware: z.array(z.unknown()) }));
const hardwareRow = z.object({
  hardware_id: id,
  hardware_name: text,
  brand_name: maybeText,
  max_gpus_per_container: maybeNumber,
  available: maybeNumber,
});
type Hardware = z.output<typeof hardwareRow>;
const stockAnswer = wrapped(z.array(z.unknown()));
const stockRow = z.object({ id, iso2: maybeText, name: maybeText, available_replicas: number });
type Stock = z.output<typeof stockRow>;
const priceAnswer = wrapped(
  z.object({ total_cost_usdc: number, available_replica_count: z.array(number).nullish().catch(null) }),
);
const publicRow = z.object({ name: text, vram_per_card: number, interconnect: maybeText });

const deployAnswer = wrapped(z.object({ deployment_id: id.nullish(), id: id.nullish() }));
const deploymentsAnswer = wrapped(z.object({ deployments: z.array(z.unknown()), total: maybeNumber }));
const deploymentRow = z.object({
  id,
  status: maybeText,
  name: maybeText,
  brand_name: maybeText,
  hardware_name: maybeText,
  hardware_quantity: maybeNumber,
  compute_minutes_served: maybeNumber,
  compute_minutes_remaining: maybeNumber,
  created_at: maybeText,
});
type Deployment = z.output<typeof deploymentRow>;
const detailAnswer = wrapped(
  z.object({
    status: maybeText,
    started_at: maybeText,
    amount_paid: maybeNumber,
    gpus_per_container: maybeNumber,
    hardware_name: maybeText,
    compute_minutes_served: maybeNumber,
    compute_minutes_remaining: maybeNumber,
    locations: z
      .array(z.object({ iso2: maybeText, name: maybeText }))
      .nullish()
      .catch(null),
  }),
);
type Detail = z.output<typeof detailAnswer>;
const containersAnswer = wrapped(
  z.object({
    workers: z
      .array(
        z.object({
          container_id: id.nullish().catch(null),
          status: maybeText,
          public_url: maybeText,
          container_events: z
            .array(z.object({ message: maybeText }))
            .nullish()
            .catch(null),
        }),
      )
      .nullish(),
  }),
);
type Worker = NonNullable<z.output<typeof containersAnswer>['workers']>[number];

/** io.net (CaaS) behind the Provider type. It has no documented balance. */
export function createIonet(options: ProviderOptions): Provider {
  const hours = Math.max(1, Math.trunc(options.durationHours ?? 1));
  const maxOffers = options.maxOffers ?? Number.POSITIVE_INFINITY;
  const http = createJsonClient({
    provider: name,
    baseUrl: options.baseUrl,
    auth: { 'x-api-key': options.apiKey },
    secret: options.apiKey,
    pace: options.pace ?? 1,
    patience: options.patience ?? 1,
  });

  const hardwareKept = new Kept<readonly Hardware[]>(1);
  const stockKept = new Kept<readonly Stock[]>(1000);
  const priceKept = new Kept<number>(10_000);
  const vramKept = new Kept<readonly PublicCard[]>(1);
  const detailKept = new Map<string, Detail>();
  const workersKept = new Kept<readonly Worker[]>(10_000);
  /** USD per hour of what this client rented, until the details say it. */
  const rentedAt = new Map<string, number>();

  // --- offers ---

  function hardware(until: number, signal: AbortSignal | undefined): Promise<readonly Hardware[]> {
    return hardwareKept.get('', hardwareKeptMs, signal, async () => {
      const answer = await http.get(
        {
          endpoint: endpoints.hardware,
          method: 'GET',
          path: `${api}/hardware/max-gpus-per-container`,
          until,
          attempts: 3,
          signal,
        },
        hardwareAnswer,
      );
      return rowsOf(answer.hardware, hardwareRow);
    });
  }

  function stock(
    hardwareId: string,
    gpus: number,
    until: number,
    signal: AbortSignal | undefined,
  ): Promise<readonly Stock[]> {
    return stockKept.get(`${hardwareId} ${gpus}`, stockKeptMs, signal, async () => {
      const answer = await http.get(
        {
          endpoint: endpoints.replicas,
          method: 'GET',
          path: `${api}/available-replicas`,
          query: { hardware_id: hardwareId, hardware_qty: gpus },
          until,
          attempts: 3,
          signal,
        },
        stockAnswer,
      );
      return rowsOf(answer, stockRow);
    });
  }

  async function quote(
    place: Place,
    durationHours: number,
    until: number,
    signal: AbortSignal | undefined,
  ): Promise<{ usdPerHour: number; left: number | null }> {
    const answer = await http.get(
      {
        endpoint: endpoints.price,
        method: 'GET',
        path: `${api}/price`,
        query: {
          location_ids: JSON.stringify([numeric(place.locationId)]),
          hardware_id: place.hardwareId,
          duration_hours: durationHours,
          gpus_per_container: place.gpus,
          replica_count: 1,
        },
        until,
        attempts: 3,
        signal,
      },
      priceAnswer,
    );
    const counts = answer.available_replica_count;
    return {
      // The total is for all hours, replicas and GPUs together.
      usdPerHour: answer.total_cost_usdc / durationHours,
      left: counts && counts.length > 0 ? counts.reduce((sum, count) => sum + count, 0) : null,
    };
  }

  function price(place: Place, until: number, signal: AbortSignal | undefined): Promise<number> {
    return priceKept.get(
      offerIdOf(place),
      priceKeptMs,
      signal,
      async () => (await quote(place, hours, until, signal)).usdPerHour,
      priceStaleMs,
    );
  }

  /** Memory by card from the public list; empty when it cannot be had, then the table of names decides. */
  async function publicHardware(until: number, signal: AbortSignal | undefined): Promise<readonly PublicCard[]> {
    try {
      return await vramKept.get(
        '',
        vramKeptMs,
        signal,
        async () => {
          const answer = await http.get(
            {
              endpoint: endpoints.vram,
              method: 'GET',
              path: '/v1/io-cloud/caas/hardware',
              until: Math.min(until, http.within(5000)),
              signal,
            },
            hardwareAnswer,
          );
          return cardsOf(await rowsOf(answer.hardware, publicRow));
        },
        Number.POSITIVE_INFINITY,
      );
    } catch (error) {
      if (!(error instanceof ProviderError)) throw error;
      return [];
    }
  }

  async function rowsOf<T>(rows: readonly unknown[], schema: z.ZodType<T>): Promise<T[]> {
    const { decoded, skipped } = await decodeRows(rows, schema);
    http.counters.skippedRows += skipped;
    return decoded;
  }

  async function offers(filter: OfferFilter, signal?: AbortSignal): Promise<OfferList> {
    if (filter.provider !== undefined && filter.provider !== name) return { offers: [], more: false };
    const until = http.within(45_000);
    // Every container size would be a set of offers, and of calls, of its own: without a wish it is one GPU.
    const gpus = filter.gpuCount ?? 1;
    const [cards, sizes] = await allDone([hardware(until, signal), publicHardware(until, signal)]);
    const failures: ProviderError[] = [];
    /** One failed call hides one card or place, not all of them; a refused key concerns all. */
    const tolerate = async <T>(work: Promise<T>): Promise<T | null> => {
      try {
        return await work;
      } catch (error) {
        if (!(error instanceof ProviderError) || error.code === 'auth') throw error;
        failures.push(error);
        return null;
      }
    };
    // What the filter says without a price is decided before prices are asked for.
    const { maxUsdPerHour: _, ...withoutPrice } = filter;

    const usable = cards.filter((card) => card.available !== 0 && (card.max_gpus_per_container ?? gpus) >= gpus);
    const places = (
      await mapBounded(usable, width, async (card) => {
        const rows = (await tolerate(stock(card.hardware_id, gpus, until, signal))) ?? [];
        const vramGb = vramOf(card.hardware_name, sizes);
        return rows
          .filter((row) => row.available_replicas >= 1)
          .map((row): Offer => {
            const country = row.iso2?.toUpperCase() || null;
            return {
              provider: name,
              id: offerIdOf({ hardwareId: card.hardware_id, locationId: row.id, gpus }),
              gpuModel: card.hardware_name,
              gpuCount: gpus,
              vramGb,
              usdPerHour: 0,
              location: [row.name || null, country].filter((part) => part !== null).join(', ') || null,
              countryCode: country,
              reliability: null,
              verified: null,
              available: Math.trunc(row.available_replicas),
              minBidUsdPerHour: null,
              prepaidHours: hours,
              diskGb: null,
              storage: null,
              machineId: null,
            };
          })
          .filter((offer) => matchesFilter(offer, withoutPrice));
      })
    ).flat();
    const priced = await mapBounded(places, width, async (offer): Promise<Offer | null> => {
      const place = placeOf(offer.id);
      const usdPerHour = place && (await tolerate(price(place, until, signal)));
      return usdPerHour ? { ...offer, usdPerHour } : null;
    });
    const found = priced.filter((offer) => offer !== null && matchesFilter(offer, filter)) as Offer[];
    if (found.length === 0 && failures[0]) throw failures[0];
    found.sort((a, b) => a.usdPerHour - b.usdPerHour);
    return { offers: found.slice(0, maxOffers), more: found.length > maxOffers || failures.length > 0 };
  }

  // --- rent ---

  async function rent(offer: Offer, spec: RentSpec, signal?: AbortSignal): Promise<RentResult> {
    signal?.throwIfAborted();
    const place = placeOf(offer.id);
    if (!place)
      return { ok: false, reason: 'rejected', detail: `offer id ${JSON.stringify(offer.id)} is not one of ours` };
    const fault = faultOfSpec(spec);
    if (fault !== null) return { ok: false, reason: 'rejected', detail: fault };

    let usdPerHour: number;
    try {
      const now = await quote(place, spec.durationHours, http.within(30_000), signal);
      if (now.left !== null && now.left < 1) {
        return { ok: false, reason: 'gone', detail: 'no replica is left at this place' };
      }
      usdPerHour = now.usdPerHour;
    } catch (error) {
      if (!(error instanceof ProviderError)) throw error;
      const refused = error.code === 'auth' || error.code === 'rejected';
      return { ok: false, reason: refused ? 'rejected' : 'unavailable', detail: error.message };
    }
    const most = spec.maxUsdPerHour ?? offer.usdPerHour;
    if (usdPerHour > most + priceSlackUsd) {
      priceKept.drop(offer.id);
      return {
        ok: false,
        reason: 'price_risen',
        detail: `costs ${usdPerHour.toFixed(4)} USD an hour now, the limit is ${most.toFixed(4)}`,
      };
    }

    const answer = await sendPaid(http, {
      endpoint: endpoints.deploy,
      method: 'POST',
      path: `${api}/deploy`,
      body: deployBody(place, spec),
      until: http.within(120_000),
      timeoutMs: 60_000,
      signal,
    });
    if ('ok' in answer) return answer;
    // Stock has changed, or was not what it seemed.
    stockKept.drop(`${place.hardwareId} ${place.gpus}`);
    if (answer.status < 200 || answer.status >= 300) {
      const reason = refusalOf(answer);
      return { ok: false, reason, detail: http.failure(answer).message };
    }
    const parsed = deployAnswer.safeParse(answer.json);
    const contract = parsed.success ? (parsed.data.deployment_id ?? parsed.data.id) : null;
    if (contract == null) {
      return { ok: false, reason: 'unknown', detail: `HTTP ${answer.status} without deployment_id in the answer` };
    }
    rentedAt.set(contract, usdPerHour);
    return { ok: true, contract, usdPerHour };
  }

  // --- list ---

  async function deployments(until: number, signal: AbortSignal | undefined): Promise<Deployment[]> {
    const found = new Map<string, Deployment>();
    let total = 0;
    // Pages are counted, so a deployment that ends meanwhile can push another over the edge between two pages: when
    // fewer came than there are, all are read once more.
    for (let round = 0; round < 2; round++) {
      for (let page = 0; ; page++) {
        const answer = await http.get(
          {
            endpoint: endpoints.list,
            method: 'GET',
            path: `${api}/deployments`,
            query: { page, page_size: deploymentsPage },
            until,
            attempts: 3,
            signal,
          },
          deploymentsAnswer,
        );
        const { decoded, skipped } = await decodeRows(answer.deployments, deploymentRow);
        if (skipped > 0) {
          throw new ProviderError(name, 'bad_answer', `list: ${skipped} deployments without a readable id`);
        }
        for (const row of decoded) found.set(row.id, row);
        total = answer.total ?? 0;
        if (answer.deployments.length < deploymentsPage) break;
      }
      if (found.size >= total) break;
    }
    return [...found.values()];
  }

  async function detailOf(row: Deployment, until: number, signal: AbortSignal | undefined): Promise<Detail | null> {
    const kept = detailKept.get(row.id);
    const minutes = minutesOf(row);
    const stale =
      !kept ||
      (kept.started_at == null && stateOf(row) === 'running') ||
      // Extended: the sum of time served and time left is no longer what it was.
      (minutes !== null && Math.abs(minutes - (minutesOf(kept) ?? minutes)) > 2);
    if (!stale) return kept;
    try {
      const detail = await http.get(
        { endpoint: endpoints.detail, method: 'GET', path: `${api}/deployment/${row.id}`, until, signal },
        detailAnswer,
      );
      detailKept.set(row.id, detail);
      return detail;
    } catch (error) {
      if (!(error instanceof ProviderError) || error.code === 'auth') throw error;
      return kept ?? null;
    }
  }

  async function workersOf(
    contract: string,
    until: number,
    signal: AbortSignal | undefined,
    keptMs: number,
  ): Promise<readonly Worker[]> {
    const known = workersKept.peek(contract);
    const reachable = known?.some((worker) => addressOf(worker.public_url) !== null) ?? false;
    try {
      return await workersKept.get(contract, reachable ? keptMs : 0, signal, async () => {
        const answer = await http.get(
          {
            endpoint: endpoints.containers,
            method: 'GET',
            path: `${api}/deployment/${contract}/containers`,
            until,
            signal,
          },
          containersAnswer,
        );
        return answer.workers ?? [];
      });
    } catch (error) {
      // The deployment is there, that is what the list is about: an address known before still stands.
      if (!(error instanceof ProviderError) || error.code === 'auth') throw error;
      return known ?? [];
    }
  }

  async function list(signal?: AbortSignal): Promise<readonly ProviderInstance[]> {
    const until = http.within(60_000);
    const rows = await deployments(until, signal);
    const there = new Set(rows.map((row) => row.id));
    for (const gone of [...detailKept.keys()].filter((key) => !there.has(key))) forget(gone);
    return mapBounded(rows, width, async (row): Promise<ProviderInstance> => {
      const state = stateOf(row);
      const live = state === 'booting' || state === 'running';
      const detail = live && isPathSafe(row.id) ? await detailOf(row, until, signal) : (detailKept.get(row.id) ?? null);
      const workers =
        state === 'running' && isPathSafe(row.id) ? await workersOf(row.id, until, signal, addressKeptMs) : [];
      const origin = workers.map((worker) => addressOf(worker.public_url)).find((url) => url !== null) ?? null;
      const dead = workers.length > 0 && workers.every((worker) => /fail|error|exited|dead/i.test(worker.status ?? ''));
      // `running` comes minutes before the address, while the image is still pulled.
      const phase = state === 'running' ? (dead ? 'failed' : origin === null ? 'booting' : 'running') : state;
      const event = workers.flatMap((worker) => worker.container_events ?? []).at(-1)?.message;
      const status = row.status ?? 'no status';
      const startedAt = utc(detail?.started_at) ?? (phase === 'running' ? utc(row.created_at) : null);
      const place = detail?.locations?.[0];
      return {
        contract: row.id,
        label: row.name || null,
        phase,
        origin: phase === 'running' ? origin : null,
        detail: http.clean(event ? `${status}: ${event}` : status),
        gpuModel: (detail?.hardware_name ?? row.hardware_name) || 'unknown',
        gpuCount: detail?.gpus_per_container ?? row.hardware_quantity ?? 1,
        vramGb: vramOf(detail?.hardware_name ?? row.hardware_name ?? '', vramKept.peek('') ?? []),
        usdPerHour: paidPerHour(detail) ?? rentedAt.get(row.id) ?? 0,
        diskUsdPerHour: null,
        location: place ? [place.name, place.iso2?.toUpperCase()].filter(Boolean).join(', ') || null : null,
        startedAt,
        expiresAt: live ? expiryOf(row, utc(detail?.started_at)) : null,
        interruptible: false,
        outbid: false,
      };
    });
  }

  // --- destroy, extend, logs ---

  async function destroy(contract: ContractId, signal?: AbortSignal): Promise<void> {
    const path = `${api}/deployment/${safe(contract)}`;
    const until = http.within(60_000);
    const answer = await http.send({ endpoint: endpoints.destroy, method: 'DELETE', path, until, attempts: 4, signal });
    if (answer.status >= 200 && answer.status < 300) return;
    if (isGone(answer)) return forget(contract);
    if (answer.status >= 400 && answer.status < 500 && answer.status !== 401 && answer.status !== 403) {
      // What a second DELETE answers is not documented. If it is ending or has ended, all is well.
      const now = await http.send({ endpoint: endpoints.detail, method: 'GET', path, until, attempts: 2, signal });
      if (isGone(now)) return forget(contract);
      const detail = detailAnswer.safeParse(now.json);
      const state = now.status === 200 && detail.success ? stateOf(detail.data) : 'running';
      if (state === 'ended' || state === 'stopped') return;
    }
    throw http.failure(answer);
  }

  function forget(contract: ContractId): void {
    detailKept.delete(contract);
    workersKept.drop(contract);
    rentedAt.delete(contract);
  }

  async function extend(contract: ContractId, more: number, signal?: AbortSignal): Promise<void> {
    if (!Number.isInteger(more) || more < 1) {
      throw new ProviderError(name, 'rejected', `hours: got ${more}, accepts a whole number from 1`, {
        sent: false,
      });
    }
    // Paid, so it is sent once; the time left in the next list tells what became of a lost answer.
    await http.get(
      {
        endpoint: endpoints.extend,
        method: 'POST',
        path: `${api}/deployment/${safe(contract)}/extend`,
        body: { duration_hours: more },
        until: http.within(60_000),
        timeoutMs: 45_000,
        freshConnection: true,
        signal,
      },
      z.unknown(),
    );
    detailKept.delete(contract);
  }

  async function logs(
    contract: ContractId,
    { tail }: { tail: number },
    signal?: AbortSignal,
  ): Promise<readonly string[]> {
    const until = http.within(30_000);
    const wanted = Math.min(10_000, Math.max(1, Math.trunc(tail)));
    const answer = await http.get(
      {
        endpoint: endpoints.containers,
        method: 'GET',
        path: `${api}/deployment/${safe(contract)}/containers`,
        until,
        attempts: 3,
        signal,
      },
      containersAnswer,
    );
    const container = answer.workers?.find((worker) => worker.container_id != null)?.container_id;
    if (container == null) return [];
    // The stream has no end: what is there comes at once, then it waits for more.
    const read = (stream: 'stdout' | 'stderr') =>
      http.lines(
        {
          endpoint: endpoints.logs,
          method: 'GET',
          path: `${api}/deployment/${safe(contract)}/log/${safe(container)}`,
          query: { stream },
          until,
          timeoutMs: 30_000,
          signal,
        },
        { tail: wanted, quietMs: 1500, settledMs: 200, maxMs: 2500, maxBytes: 4 * 1024 * 1024 },
      );
    const [out, err] = await Promise.allSettled([read('stdout'), read('stderr')]);
    if (out.status === 'rejected') throw out.reason;
    const stdout = out.value;
    const stderr = err.status === 'fulfilled' ? err.value.map((line) => `stderr: ${line}`) : [];
    // The two streams carry no common time, so they come one after the other, neither crowding out the other.
    const half = Math.ceil(wanted / 2);
    const keepErr = Math.min(stderr.length, Math.max(half, wanted - stdout.length));
    return [...stdout.slice(-Math.max(1, wanted - keepErr)), ...stderr.slice(stderr.length - keepErr)].slice(-wanted);
  }

  return { name, prefix: 'ionet', offers, rent, list, destroy, extend, logs, stats: http.stats, close: http.close };
}

// --- ids ---

type Place = Readonly<{ hardwareId: string; locationId: string; gpus: number }>;

/** `203-12-x1`: hardware, location, GPUs in the container. Everything that a deployment needs, also after a restart. */
function offerIdOf(place: Place): string {
  return `${place.hardwareId}-${place.locationId}-x${place.gpus}`;
}

function placeOf(offerId: string): Place | null {
  const match = /^(.+)-([^-]+)-x([1-9]\d*)$/.exec(offerId);
  return match?.[1] && match[2] ? { hardwareId: match[1], locationId: match[2], gpus: Number(match[3]) } : null;
}

/** Ids are integers in this API, but text elsewhere in the same house. */
function numeric(value: string): number | string {
  return /^\d{1,15}$/.test(value) ? Number(value) : value;
}

function isPathSafe(value: string): boolean {
  return /^[A-Za-z0-9_-]{1,128}$/.test(value);
}

function safe(value: string): string {
  if (isPathSafe(value)) return value;
  throw new ProviderError(name, 'rejected', `${JSON.stringify(value)} is not an id`, { sent: false });
}

// --- rent ---

function faultOfSpec(spec: RentSpec): string | null {
  if (spec.maxBidUsdPerHour !== null) return 'io.net has no interruptible instances: a bid is not possible';
  if (spec.image === '') return 'image must not be empty';
  if (spec.label === '') return 'label must not be empty';
  if (spec.ports.length !== 1) return `io.net publishes exactly one port of a container, got ${spec.ports.length}`;
  if (!Number.isInteger(spec.durationHours) || spec.durationHours < 1) {
    return `duration: got ${spec.durationHours} hours, io.net sells whole hours from 1`;
  }
  return null;
}

/** There is no disk to ask for: `diskGb` has no counterpart. */
function deployBody(place: Place, spec: RentSpec): Record<string, unknown> {
  const env = Object.entries(spec.env);
  const secret = ([key]: [string, string]) => /TOKEN|SECRET|PASSWORD|CREDENTIAL|API_?KEY|ACCESS_?KEY/i.test(key);
  return {
    resource_private_name: spec.label,
    duration_hours: spec.durationHours,
    gpus_per_container: place.gpus,
    hardware_id: numeric(place.hardwareId),
    location_ids: [numeric(place.locationId)],
    container_config: {
      replica_count: 1,
      // Plain variables come back in the details of a deployment, secret ones only by name.
      env_variables: Object.fromEntries(env.filter((pair) => !secret(pair))),
      secret_env_variables: Object.fromEntries(env.filter(secret)),
      ...(spec.onstart === null ? {} : { entrypoint: ['/bin/sh', '-c', spec.onstart] }),
      ...(spec.args === null ? {} : { args: spec.args }),
      traffic_port: spec.ports[0],
    },
    registry_config: { image_url: spec.image, registry_username: '', registry_secret: '' },
  };
}

type Refusal = Extract<RentResult, { ok: false }>['reason'];

/** Codes for missing credit and missing stock are not documented, so the text decides. */
function refusalOf(answer: Answer): Refusal {
  const { status } = answer;
  const words = messageOf(answer);
  if (status === 429) return 'unavailable';
  // A page of a gateway does not say whether the call went through.
  if (status >= 500 || status < 400 || status === 408 || !isOfApi(answer)) return 'unknown';
  if (status === 401 || status === 403 || status === 422) return 'rejected';
  if (status === 402 || /credit|balance|funds?\b|payment/i.test(words)) return 'no_credit';
  // The label is ours alone: whoever has it is the instance of an earlier answer that was lost.
  if (/\bname\b.*(taken|exists?|in use|unique|not available)|already exists/i.test(words)) return 'unknown';
  if (/stock|capacity|replica|sold out|(not|no longer|un)\s*available|insufficient/i.test(words)) return 'gone';
  return 'rejected';
}

/** A 404 of the API itself, not of whatever else answers under the base URL. */
function isGone(answer: Answer): boolean {
  return answer.status === 404 && typeof answer.json === 'object' && answer.json !== null && 'detail' in answer.json;
}

// --- list ---

/** Words are compared without case; unknown ones go by what they contain. */
function stateOf(row: { status?: string | null | undefined }): ProviderInstance['phase'] {
  const word = (row.status ?? '').trim().toLowerCase();
  if (word === 'termination requested') return 'stopped';
  if (/destroy|complet|terminated|expired|finished/.test(word)) return 'ended';
  if (/fail|error/.test(word)) return 'failed';
  return word === 'running' ? 'running' : 'booting';
}

/** Minutes that were bought: served and left. */
function minutesOf(row: {
  compute_minutes_served?: number | null | undefined;
  compute_minutes_remaining?: number | null | undefined;
}): number | null {
  return row.compute_minutes_remaining == null
    ? null
    : (row.compute_minutes_served ?? 0) + row.compute_minutes_remaining;
}

function paidPerHour(detail: Detail | null): number | null {
  const minutes = detail && minutesOf(detail);
  return detail?.amount_paid != null && minutes ? detail.amount_paid / (minutes / 60) : null;
}

/** From the start where it is known, which stands still, unless the time left says that it comes sooner. */
function expiryOf(row: Deployment, startedAt: number | null): number | null {
  const minutes = minutesOf(row);
  if (minutes === null) return null;
  // Whole minutes: up to one more may be left.
  const byTimeLeft = Date.now() + ((row.compute_minutes_remaining ?? 0) + 1) * 60_000;
  if (startedAt === null) return stateOf(row) === 'running' ? byTimeLeft : null;
  const byStart = startedAt + minutes * 60_000;
  return stateOf(row) === 'running' && byTimeLeft < byStart - clockSlackMs ? byTimeLeft : byStart;
}

/** ISO time, without a zone and with microseconds, which is UTC; also with one. */
function utc(text: string | null | undefined): number | null {
  if (!text) return null;
  const zoned = /(?:Z|[+-]\d{2}:?\d{2})$/i.test(text.trim()) ? text.trim() : `${text.trim()}Z`;
  const ms = Date.parse(zoned.replace(' ', 'T').replace(/(\.\d{3})\d+/, '$1'));
  return Number.isNaN(ms) ? null : ms;
}

function addressOf(url: string | null | undefined): string | null {
  const text = url?.trim();
  if (!text) return null;
  const full = /^[a-z]+:\/\//i.test(text) ? text : `https://${text}`;
  if (!URL.canParse(full) || !/^https?:$/.test(new URL(full).protocol)) return null;
  return full.replace(/\/+$/, '');
}

// --- cache ---

/** Like Promise.all, but when it rejects nothing goes on in the background. */
async function allDone<A, B>(work: [Promise<A>, Promise<B>]): Promise<[A, B]> {
  const [a, b] = await Promise.allSettled(work);
  if (a.status === 'rejected') throw a.reason;
  if (b.status === 'rejected') throw b.reason;
  return [a.value, b.value];
}

/** Values by key for a time. Concurrent requests for one key share one call; failures are not kept. */
class Kept<T> {
  readonly #limit: number;
  readonly #entries = new Map<string, { value: T; at: number }>();
  readonly #open = new Map<string, Promise<T>>();

  constructor(limit: number) {
    this.#limit = limit;
  }

  /** The kept value if it is younger than `keptMs`, else a new one; on failure one younger than `staleMs` stands in. */
  async get(
    key: string,
    keptMs: number,
    signal: AbortSignal | undefined,
    load: () => Promise<T>,
    staleMs = 0,
  ): Promise<T> {
    for (;;) {
      signal?.throwIfAborted();
      const entry = this.#entries.get(key);
      if (entry && monotonicMs() - entry.at < keptMs) return entry.value;
      const shared = this.#open.get(key);
      try {
        return await (shared ? unlessAborted(shared, signal) : this.#load(key, load));
      } catch (error) {
        if (error instanceof ProviderError) {
          if (entry && monotonicMs() - entry.at < staleMs) return entry.value;
          throw error;
        }
        // Somebody else's call was aborted by its caller: that is not this caller's end.
        if (!shared) throw error;
      }
    }
  }

  #load(key: string, load: () => Promise<T>): Promise<T> {
    const open = load()
      .then((value) => {
        this.#entries.delete(key);
        this.#entries.set(key, { value, at: monotonicMs() });
        if (this.#entries.size > this.#limit) this.#entries.delete(this.#entries.keys().next().value ?? '');
        return value;
      })
      .finally(() => this.#open.delete(key));
    this.#open.set(key, open);
    return open;
  }

  peek(key: string): T | undefined {
    return this.#entries.get(key)?.value;
  }

  drop(key: string): void {
    this.#entries.delete(key);
  }
}
