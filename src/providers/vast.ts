import { isIP } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import * as z from 'zod';
import { monotonicMs } from '../clock.ts';
import type { ContractId, Offer, OfferFilter, ProviderInstance, RentResult, RentSpec } from '../core/domain.ts';
import { matchesFilter, usdPerHourWith } from '../core/offers.ts';
import { nominalVramGb } from '../core/weight.ts';
import { counted } from '../core/words.ts';
import { decodeRows, id, maybeFlag, maybeNumber, maybeText, number, text } from './decode-rows.ts';
import { type Answer, createJsonClient, type Endpoint, isOfApi, type JsonClient, messageOf, sendPaid } from './http.ts';
import type { ProviderOptions } from './index.ts';
import { type OfferList, type Provider, ProviderError } from './provider.ts';

const name = 'vast.ai';

/** Documented seconds between calls to an endpoint × 1.2. A search is documented as 10 a minute for each IP address. */
const endpoints = {
  search: { name: 'search', spacingMs: 6000, burst: 10 },
  gpuNames: { name: 'gpu names', spacingMs: 1200 },
  rent: { name: 'rent', spacingMs: 5400 },
  list: { name: 'list', spacingMs: 1200 },
  destroy: { name: 'destroy', spacingMs: 3600 },
  balance: { name: 'balance', spacingMs: 1200 },
  logs: { name: 'logs', spacingMs: 1200 },
} as const satisfies Record<string, Endpoint>;

/** The service returns at most this many offers, whatever is asked for. */
const pageCap = 64;
const listPage = 25;
/** Turns of the search endpoint that further pages leave to the next search. */
const spareSearches = 2;
/** Offers are volatile: one that no page has shown for so long is no longer listed. */
const offerKeptMs = 300_000;
/**
 * At ten searches a minute, 64 offers each, one search can read some hundreds and five minutes about 900 of a market
 * that has thousands. Where no such limit is kept this is the bound.
 */
const mostOffers = 3000;
const keptOffers = 10_000;
const gpuNamesKeptMs = 3_600_000;
/** Hours in a month of storage, for prices given by GB and month. */
const monthHours = 30 * 24;
/** Longest `onstart` and `args` together; documented 4096, observed a little less. */
const maxStartChars = 4048;
const maxEnvChars = 32_768;
/** A price may differ by rounding. */
const priceSlackUsd = 0.0005;

const offersAnswer = z.object({ offers: z.array(z.unknown()) });
const offerRow = z.object({
  id,
  num_gpus: number,
  gpu_name: text,
  gpu_ram: number,
  dph_total: number,
  min_bid: maybeNumber,
  storage_cost: maybeNumber,
  disk_space: maybeNumber,
  direct_port_count: maybeNumber,
  geolocation: maybeText,
  reliability: maybeNumber,
  reliability2: maybeNumber,
  verification: maybeText,
  resource_type: maybeText,
  rentable: maybeFlag,
  rented: maybeFlag,
  machine_id: id.nullish().catch(null),
});
type OfferRow = z.output<typeof offerRow>;

const portBinding = z.object({ HostPort: z.union([z.string(), z.number().transform(String)]) });
const instanceRow = z.object({
  // The one field that cannot be missing: a list that drops a row says that the instance does not exist.
  id,
  label: maybeText,
  actual_status: maybeText,
  intended_status: maybeText,
  cur_state: maybeText,
  next_state: maybeText,
  status_msg: maybeText,
  public_ipaddr: maybeText,
  ports: z.record(z.string(), z.array(portBinding).catch([])).nullish().catch(null),
  extra_env: z
    .array(z.tuple([z.string(), z.unknown()], z.unknown()))
    .nullish()
    .catch(null),
  gpu_name: maybeText,
  num_gpus: maybeNumber,
  gpu_ram: maybeNumber,
  dph_total: maybeNumber,
  storage_cost: maybeNumber,
  disk_space: maybeNumber,
  geolocation: maybeText,
  start_date: maybeNumber,
  is_bid: maybeFlag,
});
type InstanceRow = z.output<typeof instanceRow>;
const listAnswer = z.object({ instances: z.array(z.unknown()), next_token: z.string().nullish() });

const rentAnswer = z.object({ new_contract: id.nullish().catch(null), success: maybeFlag });
const userAnswer = z.object({ credit: number });
const logsAnswer = z.object({ result_url: z.string().min(1) });
const namesAnswer = z.object({ gpu_names: z.array(z.string()) });

/** vast.ai behind the Provider type. */
export function createVast(options: ProviderOptions): Provider {
  const pace = options.pace ?? 1;
  const diskGb = options.diskGb ?? 40;
  const maxOffers = options.maxOffers ?? mostOffers;
  const http = createJsonClient({
    provider: name,
    baseUrl: options.baseUrl,
    auth: { authorization: `Bearer ${options.apiKey}` },
    secret: options.apiKey,
    pace,
    patience: options.patience ?? 1,
    classify,
  });
  /** Everything that a search has shown lately, by id. */
  const known = new Map<string, Known>();
  // The cheapest of everything would be small cards alone, so each class of card has its own pages.
  const edges = [0, ...[24, 40, 80].map(slackMb)];
  const bands = edges.map((from, index): Band => newBand(from, edges[index + 1] ?? null));
  let gpuNames: { at: number; names: readonly string[] } | null = null;

  /** Marketing names as the service writes them; empty when they cannot be had, which only costs a wider search. */
  async function knownGpuNames(until: number, signal: AbortSignal | undefined): Promise<readonly string[]> {
    if (gpuNames && monotonicMs() - gpuNames.at < gpuNamesKeptMs) return gpuNames.names;
    try {
      const answer = await http.get(
        {
          endpoint: endpoints.gpuNames,
          method: 'GET',
          path: '/api/v0/gpu_names/unique/',
          until: Math.min(until, http.within(5000)),
          signal,
        },
        namesAnswer,
      );
      gpuNames = { at: monotonicMs(), names: answer.gpu_names };
      return gpuNames.names;
    } catch (error) {
      if (!(error instanceof ProviderError) || error.code === 'auth') throw error;
      return [];
    }
  }

  /** What the service can decide of a filter; the rest is checked on our side. */
  async function queryOf(filter: OfferFilter, until: number, signal: AbortSignal | undefined): Promise<Query> {
    const query: Record<string, unknown> = {
      rentable: { eq: true },
      external: { eq: false },
      rented: { eq: false },
      // Without a direct port nothing in the container can be reached over HTTP.
      direct_port_count: { gte: 1 },
    };
    if (filter.gpuCount !== undefined) query.num_gpus = { eq: filter.gpuCount };
    if (filter.verified === true) query.verified = { eq: true };
    if (filter.maxUsdPerHour !== undefined) query.dph_total = { lte: filter.maxUsdPerHour };
    if (filter.location !== undefined && /^[A-Za-z]{2}$/.test(filter.location)) {
      // Two letters are a country code here. Other places are matched on our side: the service knows countries alone.
      query.geolocation = { in: [filter.location.toUpperCase()] };
    }
    const wanted = filter.gpuModel === undefined ? '' : modelKey(filter.gpuModel);
    if (wanted !== '') {
      const names = (await knownGpuNames(until, signal)).filter((one) => modelKey(one).includes(wanted));
      if (names.length > 0) query.gpu_name = { in: names };
    }
    if (filter.minVramGb !== undefined) query.gpu_ram = { gte: slackMb(filter.minVramGb) };
    return query;
  }

  /** One page by price. What it shows is known from then on, as one of the class that was asked for. */
  async function readPage(
    query: Query,
    asked: Band | null,
    after: After | null,
    until: number,
    signal: AbortSignal | undefined,
  ): Promise<Page> {
    const dph = { ...(query.dph_total as object | undefined), ...after };
    const answer = await http.get(
      {
        endpoint: endpoints.search,
        method: 'POST',
        path: '/api/v0/bundles/',
        body: {
          ...query,
          ...(Object.keys(dph).length > 0 ? { dph_total: dph } : {}),
          type: 'on-demand',
          order: [['dph_total', 'asc']],
          limit: pageCap,
          allocated_storage: diskGb,
        },
        until,
        attempts: 3,
        signal,
      },
      offersAnswer,
    );
    const { decoded, skipped } = await decodeRows(answer.offers, offerRow);
    http.counters.skippedRows += skipped;
    const at = monotonicMs();
    const found = new Map<string, Offer>();
    let last = Number.NEGATIVE_INFINITY;
    for (const row of decoded) {
      last = Math.max(last, row.dph_total);
      known.delete(row.id);
      const offer = offerOf(row, diskGb);
      if (!offer) continue;
      found.set(row.id, offer);
      const band = asked ?? bands.findLast(({ fromMb }) => row.gpu_ram >= fromMb) ?? null;
      known.set(row.id, { offer, band, at });
      if (known.size > keptOffers) known.delete(known.keys().next().value ?? '');
    }
    return { found, last, next: answer.offers.length < pageCap ? null : pageAfter(after, last) };
  }

  /** Everything that matches, as far as the turns of the endpoint reach. */
  async function search(filter: OfferFilter, until: number, signal: AbortSignal | undefined): Promise<OfferList> {
    const query = await queryOf(filter, until, signal);
    const found = new Map<string, Offer>();
    let more = false;
    for (let after: After | null = null, pages = 0; ; pages++) {
      more = pages > 0 && (found.size >= maxOffers || http.freeIn(endpoints.search, spareSearches) > 0);
      if (more) break;
      try {
        const page: Page = await readPage(query, null, after, until, signal);
        for (const [offerId, offer] of page.found) found.set(offerId, offer);
        after = page.next;
      } catch (error) {
        if (pages === 0 || !(error instanceof ProviderError)) throw error;
        // What is missing from a later page is dearer than what is there.
        more = true;
        break;
      }
      if (after === null) break;
    }
    return { offers: [...found.values()].filter((offer) => matchesFilter(offer, filter)).sort(byPrice), more };
  }

  /**
   * What is there at all, which the background asks for every half minute: the cheapest page of each class, and with
   * the turns that are left the pages behind it, each round going on where the last one stopped.
   */
  async function survey(until: number, signal: AbortSignal | undefined): Promise<OfferList> {
    const query = await queryOf({}, until, signal);
    const patientUntil = http.within(10_000);
    const read = async (band: Band, after: After | null): Promise<After | null> => {
      const page = await readPage({ ...query, gpu_ram: ramOf(band) }, band, after, until, signal);
      forgetGone(band, after, page);
      return page.next;
    };
    let asked = 0;
    // The class that was not asked for longest goes first.
    for (const band of [...bands].sort((x, y) => x.askedAt - y.askedAt)) {
      // When turns are rare, a class that was seen lately can wait for the next round.
      if (asked > 0 && monotonicMs() + http.freeIn(endpoints.search) > patientUntil) continue;
      asked++;
      const next = await read(band, null);
      band.askedAt = monotonicMs();
      if (next === null) band.wholeUntil = band.askedAt + offerKeptMs;
      if (next !== null && band.next !== null) continue;
      band.next = next;
      band.sweepAt = band.askedAt;
      band.pages = 1;
    }
    for (let open = bands; ; ) {
      open = open.filter((band) => band.next !== null);
      if (open.length === 0) break;
      if ((bands.reduce((sum, band) => sum + band.pages, 0) + 1) * pageCap > maxOffers) {
        // As much as is listed at most: from the cheapest again in the next round.
        for (const band of open) band.next = null;
        break;
      }
      const band = open.reduce((least, one) => (one.pages < least.pages ? one : least));
      if (http.freeIn(endpoints.search, spareSearches) > 0) break;
      try {
        band.next = await read(band, band.next);
        band.pages++;
        if (band.next === null) band.wholeUntil = band.sweepAt + offerKeptMs;
      } catch (error) {
        if (!(error instanceof ProviderError)) throw error;
        break;
      }
    }
    const now = monotonicMs();
    for (const [offerId, { at }] of known) if (at < now - offerKeptMs) known.delete(offerId);
    return {
      offers: [...known.values()].map(({ offer }) => offer).sort(byPrice),
      more: bands.some((band) => now >= band.wholeUntil),
    };
  }

  /** Drops what a page should have shown and did not. */
  function forgetGone(asked: Band, after: After | null, page: Page): void {
    for (const [offerId, { offer, band }] of known) {
      if (band !== asked || page.found.has(offerId)) continue;
      const usd = offer.usdPerHour;
      const begun = after === null || ('gte' in after ? usd >= after.gte : usd > after.gt);
      // Others at the last price may be on the next page.
      if (begun && (page.next === null || usd < page.last)) known.delete(offerId);
    }
  }

  async function offers(filter: OfferFilter, signal?: AbortSignal): Promise<OfferList> {
    if (filter.provider !== undefined && filter.provider !== name) return { offers: [], more: false };
    const until = http.within(45_000);
    return isUnfiltered(filter) ? survey(until, signal) : search(filter, until, signal);
  }

  async function rent(offer: Offer, spec: RentSpec, signal?: AbortSignal): Promise<RentResult> {
    signal?.throwIfAborted();
    const fault = faultOfSpec(offer, spec);
    if (fault !== null) return { ok: false, reason: 'rejected', detail: fault };
    const risen = risenPrice(offer, known.get(offer.id)?.offer ?? offer, spec);
    if (risen !== null) return { ok: false, reason: 'price_risen', detail: risen };
    const answer = await sendPaid(http, {
      endpoint: endpoints.rent,
      method: 'PUT',
      path: `/api/v0/asks/${offer.id}/`,
      body: rentBody(spec),
      // Eight rentals in a row wait 38 s for their turns.
      until: http.within(150_000),
      timeoutMs: 45_000,
      signal,
    });
    if ('ok' in answer) return answer;
    return rentResult(answer, http);
  }

  async function list(signal?: AbortSignal): Promise<readonly ProviderInstance[]> {
    const until = http.within(60_000);
    for (let restarts = 0; ; restarts++) {
      try {
        return await listOnce(until, signal);
      } catch (error) {
        // A page token can become invalid between two pages; then the list begins again.
        if (!(error instanceof StaleToken)) throw error;
        if (restarts > 0) throw error.failure;
      }
    }
  }

  async function listOnce(until: number, signal: AbortSignal | undefined): Promise<ProviderInstance[]> {
    const found = new Map<string, ProviderInstance>();
    const tokens = new Set<string>();
    let token: string | null = null;
    for (;;) {
      const answer: Answer = await http.send({
        endpoint: endpoints.list,
        method: 'GET',
        path: '/api/v1/instances/',
        query: {
          select_filters: '{}',
          order_by: '[{"col": "id", "dir": "asc"}]',
          limit: listPage,
          ...(token === null ? {} : { after_token: token }),
        },
        until,
        attempts: 3,
        signal,
      });
      if (token !== null && answer.status === 400 && errorWord(answer) === 'invalid_token') {
        throw new StaleToken(http.failure(answer));
      }
      const page = http.decode(answer, endpoints.list, listAnswer);
      const { decoded, skipped } = await decodeRows(page.instances, instanceRow);
      if (skipped > 0) {
        throw new ProviderError(name, 'bad_answer', `list: ${counted(skipped, 'instance')} without a readable id`);
      }
      for (const row of decoded) found.set(row.id, instanceOf(row, options.instancePort, http));
      if (typeof page.next_token !== 'string' || page.next_token === '') return [...found.values()];
      token = page.next_token;
      if (tokens.has(token)) {
        throw new ProviderError(name, 'bad_answer', 'list: a page token came twice, the list does not end');
      }
      tokens.add(token);
    }
  }

  async function destroy(contract: ContractId, signal?: AbortSignal): Promise<void> {
    const answer = await http.send({
      endpoint: endpoints.destroy,
      method: 'DELETE',
      path: `/api/v0/instances/${contractNumber(contract)}/`,
      body: {},
      until: http.within(75_000),
      attempts: 4,
      signal,
    });
    if (isGone(answer)) return;
    http.decode(answer, endpoints.destroy, z.object({}));
  }

  async function balance(signal?: AbortSignal): Promise<number> {
    const user = await http.get(
      {
        endpoint: endpoints.balance,
        method: 'GET',
        path: '/api/v0/users/current/',
        until: http.within(30_000),
        attempts: 3,
        signal,
      },
      // `balance` is a billing figure, often 0 or negative; what can be spent is `credit`.
      userAnswer,
    );
    return user.credit;
  }

  async function logs(
    contract: ContractId,
    { tail }: { tail: number },
    signal?: AbortSignal,
  ): Promise<readonly string[]> {
    const until = http.within(30_000);
    const lines = Math.min(10_000, Math.max(1, Math.trunc(tail)));
    const { result_url } = await http.get(
      {
        endpoint: endpoints.logs,
        method: 'PUT',
        path: `/api/v0/instances/request_logs/${contractNumber(contract)}/`,
        body: { tail: String(lines) },
        until,
        attempts: 3,
        signal,
      },
      logsAnswer,
    );
    return fetchLog(resultUrl(result_url, options.baseUrl), lines, until, pace, signal);
  }

  return {
    name,
    prefix: 'vast',
    offers,
    rent,
    list,
    destroy,
    balance,
    logs,
    stats: http.stats,
    close: http.close,
  };
}

// --- search ---

type Query = Readonly<Record<string, unknown>>;

/** Where a page begins: at this price, whose offers come again, or behind it. */
type After = Readonly<{ gte: number }> | Readonly<{ gt: number }>;

type Page = Readonly<{
  found: ReadonlyMap<string, Offer>;
  /** The highest price in it. */
  last: number;
  /** null: nothing comes behind it. */
  next: After | null;
}>;

/** An offer as a search showed it last. */
type Known = Readonly<{ offer: Offer; band: Band | null; at: number }>;

/** One class of cards, paged by price on its own. */
type Band = {
  readonly fromMb: number;
  readonly toMb: number | null;
  /** When its first page was read. */
  askedAt: number;
  /** Where the sweep through its further pages goes on; null when none is under way. */
  next: After | null;
  sweepAt: number;
  /** Pages of this sweep. */
  pages: number;
  /** Until then all of it is known. */
  wholeUntil: number;
};

function newBand(fromMb: number, toMb: number | null): Band {
  const never = Number.NEGATIVE_INFINITY;
  return { fromMb, toMb, askedAt: never, next: null, sweepAt: never, pages: 0, wholeUntil: never };
}

function ramOf({ fromMb, toMb }: Band): Record<string, number> {
  return { ...(fromMb > 0 ? { gte: fromMb } : {}), ...(toMb === null ? {} : { lt: toMb }) };
}

/**
 * No cursor exists: the page behind a full one begins at its last price. When that is the price it began at, more than
 * a page has it, and only stepping over it gets on; when even that does not, the server ignores what is asked for.
 */
function pageAfter(after: After | null, last: number): After | null {
  if (!Number.isFinite(last)) return null;
  const from = after === null ? Number.NEGATIVE_INFINITY : 'gte' in after ? after.gte : after.gt;
  if (last > from) return { gte: last };
  return after !== null && 'gte' in after ? { gt: last } : null;
}

function byPrice(a: Offer, b: Offer): number {
  return a.usdPerHour - b.usdPerHour;
}

/** The background's question: what is there at all? */
function isUnfiltered(filter: OfferFilter): boolean {
  return Object.entries(filter).every(([key, value]) => key === 'provider' || value === undefined);
}

/** Lower edge in MB of cards with this nominal memory: drivers report up to 7.5 % less than what is printed on the card. */
function slackMb(gb: number): number {
  return Math.floor(gb * 1024 * 0.925);
}

/** `_` and blank are the same, case does not matter. */
function modelKey(model: string): string {
  return model.toLowerCase().replaceAll('_', ' ').trim();
}

/** null for rows that can never serve HTTP or are no GPU offers: the server does not always honour its filters. */
function offerOf(row: OfferRow, pricedGb: number): Offer | null {
  const usable =
    (row.resource_type ?? 'gpu') === 'gpu' &&
    row.rentable !== false &&
    row.rented !== true &&
    row.num_gpus >= 1 &&
    row.gpu_ram > 0 &&
    row.dph_total > 0 &&
    (row.direct_port_count ?? 0) >= 1;
  if (!usable) return null;
  return {
    provider: name,
    id: row.id,
    gpuModel: row.gpu_name,
    gpuCount: row.num_gpus,
    vramGb: nominalVramGb(row.gpu_ram / 1024),
    usdPerHour: row.dph_total,
    location: row.geolocation || null,
    countryCode: countryOf(row.geolocation),
    reliability: row.reliability ?? row.reliability2 ?? null,
    verified: row.verification == null ? null : row.verification === 'verified',
    available: 1,
    minBidUsdPerHour: row.min_bid ?? null,
    prepaidHours: null,
    diskGb: row.disk_space ?? null,
    storage: row.storage_cost == null ? null : { usdPerGbHour: row.storage_cost / monthHours, pricedGb },
    machineId: row.machine_id ?? null,
  };
}

/** "Sweden, SE" → "SE". */
function countryOf(geolocation: string | null | undefined): string | null {
  const match = /(?:^|,)\s*([A-Z]{2})\s*$/.exec(geolocation ?? '');
  return match?.[1] ?? null;
}

/**
 * Why an offer, as last seen, costs more than it may; null when it does not. The service has no call that quotes a price
 * without renting, so this is as fresh as the last search.
 */
function risenPrice(offer: Offer, latest: Offer, spec: RentSpec): string | null {
  const price = usdPerHourWith(latest, spec.diskGb, spec.maxBidUsdPerHour);
  const most = spec.maxUsdPerHour ?? usdPerHourWith(offer, spec.diskGb, spec.maxBidUsdPerHour);
  if (price <= most + priceSlackUsd) return null;
  return `costs ${price.toFixed(4)} USD an hour with ${spec.diskGb} GB of disk, the limit is ${most.toFixed(4)}`;
}

// --- rent ---

/** What the service would refuse or misread, found before anything is sent. */
function faultOfSpec(offer: Offer, spec: RentSpec): string | null {
  if (!/^\d+$/.test(offer.id)) return `offer id ${JSON.stringify(offer.id)} is not a number`;
  if (spec.image === '' || spec.image.length > 1024) return 'image must have 1 to 1024 characters';
  if (spec.label === '' || spec.label.length > 256) return 'label must have 1 to 256 characters';
  if (!(spec.diskGb >= 8)) return `disk of ${spec.diskGb} GB is below the minimum of 8`;
  if (offer.diskGb !== null && spec.diskGb > offer.diskGb) {
    return `disk of ${spec.diskGb} GB is more than the ${Math.floor(offer.diskGb)} GB of this machine`;
  }
  if (spec.ports.length === 0) return 'ports: at least one port is needed, the first one serves HTTP';
  if (spec.ports.length > 64) return 'ports: at most 64 are possible';
  const start = (spec.onstart ?? '').length + (spec.args ?? []).reduce((sum, arg) => sum + arg.length + 1, 0);
  if (start > maxStartChars) return `onstart and args have ${start} characters, ${maxStartChars} are possible`;
  const env = Object.entries(spec.env).reduce((sum, [key, value]) => sum + key.length + value.length, 0);
  if (env > maxEnvChars) return `env has ${env} characters, ${maxEnvChars} are possible`;
  const bad = Object.keys(spec.env).find((key) => !/^[A-Za-z_][A-Za-z0-9_]*$/.test(key));
  // Keys that begin with a dash are options of `docker run` there.
  if (bad !== undefined) return `env: ${JSON.stringify(bad)} is not a name of a variable`;
  const bid = spec.maxBidUsdPerHour;
  if (bid !== null && !(bid >= 0.001 && bid <= 128)) return `bid of ${bid} USD is outside 0.001 to 128`;
  return null;
}

function rentBody(spec: RentSpec): Record<string, unknown> {
  // The first published port is the one that serves HTTP: `list` finds it by this order.
  const ports = Object.fromEntries(spec.ports.map((port) => [`-p ${port}:${port}`, '1']));
  const onDemand = spec.maxBidUsdPerHour === null;
  return {
    client_id: 'me',
    image: spec.image,
    env: { ...ports, ...spec.env },
    // A price makes it an interruptible bid.
    price: spec.maxBidUsdPerHour,
    disk: spec.diskGb,
    label: spec.label,
    target_state: 'running',
    // Fail rather than wait, billed for disk, for a machine that is busy. A bid is meant to wait.
    cancel_unavail: onDemand,
    ...startOf(spec),
  };
}

/**
 * `args` keeps the image's entrypoint and replaces its command; there `onstart`, if given, is the entrypoint. The ssh
 * types replace the entrypoint, so that `onstart` starts the server. Neither: the image starts as it is built
 * (undocumented whether a missing `args` keeps the image's command; so nothing is sent rather than an empty list).
 */
function startOf(spec: RentSpec): Record<string, unknown> {
  if (spec.args !== null) {
    return { runtype: 'args', args: spec.args, ...(spec.onstart === null ? {} : { onstart: spec.onstart }) };
  }
  return spec.onstart === null ? { runtype: 'args' } : { runtype: 'ssh_direct', onstart: spec.onstart };
}

const goneWords = /no_such_ask|is not available|no longer available/i;

function rentResult(answer: Answer, http: JsonClient): RentResult {
  const { status } = answer;
  const body = rentAnswer.safeParse(answer.json);
  const contract = body.success ? (body.data.new_contract ?? null) : null;
  const ok = status >= 200 && status < 300 && body.success && body.data.success !== false && errorWord(answer) === '';
  if (ok && contract !== null) return { ok: true, contract };
  if (ok) return { ok: false, reason: 'unknown', detail: `HTTP ${status} without new_contract in the answer` };

  const detail = http.failure(answer).message;
  // A bid that is too low is refused and yet leaves a stopped instance behind, which costs disk.
  const leaked = contract === null ? {} : { leaked: contract };
  const words = `${errorWord(answer)} ${messageOf(answer)}`;
  if (goneWords.test(words) || status === 410) return { ok: false, reason: 'gone', detail, ...leaked };
  if (/insufficient_credit|spend_rate_limit|balance is too low/i.test(words)) {
    return { ok: false, reason: 'no_credit', detail, ...leaked };
  }
  if (status === 429) return { ok: false, reason: 'unavailable', detail, ...leaked };
  // Gateways answer 5xx for calls that went through, and what is not of the API's own form says nothing at all.
  if (status >= 500 || status < 200 || status === 408 || !isOfApi(answer)) {
    return { ok: false, reason: 'unknown', detail, ...leaked };
  }
  return { ok: false, reason: 'rejected', detail, ...leaked };
}

// --- answers ---

/** The literal in `error`; '' when there is none. */
function errorWord(answer: Answer): string {
  const json = answer.json;
  return typeof json === 'object' && json !== null && 'error' in json && typeof json.error === 'string'
    ? json.error
    : '';
}

/** A wrong key is 401, but 404 on search; and HTTP 200 can say that it failed. */
function classify(answer: Answer): ReturnType<NonNullable<Parameters<typeof createJsonClient>[0]['classify']>> {
  const { json, status } = answer;
  if (typeof json !== 'object' || json === null) return null;
  if (errorWord(answer) === 'auth_error' || /invalid user key/i.test(messageOf(answer))) return 'auth';
  if (status === 429 || errorWord(answer) === 'rate_limit_exceeded') return 'rate_limited';
  if (status < 300 && 'success' in json && json.success === false) return 'rejected';
  return null;
}

/** What a destroy of something that is not there says. A 404 from anything else than the service does not count. */
function isGone(answer: Answer): boolean {
  if (typeof answer.json !== 'object' || answer.json === null || classify(answer) === 'auth') return false;
  if (/^(not_found|no_such_instance|invalid_id)$/.test(errorWord(answer))) return true;
  return messageOf(answer).includes('no_such_instance');
}

class StaleToken extends Error {
  readonly failure: ProviderError;
  constructor(failure: ProviderError) {
    super(failure.message);
    this.failure = failure;
  }
}

/** Contract ids are numbers: anything else would be another path. */
function contractNumber(contract: ContractId): string {
  if (/^\d+$/.test(contract)) return contract;
  throw new ProviderError(name, 'rejected', `contract id ${JSON.stringify(contract)} is not a number`, {
    sent: false,
  });
}

// --- list ---

const brokenStart = /OCI runtime create failed|manifest unknown|pull access denied|no such host/i;

function instanceOf(row: InstanceRow, instancePort: number, http: JsonClient): ProviderInstance {
  const origin = originOf(row, instancePort);
  const phase = phaseOf(row, origin);
  const words = row.status_msg ? http.clean(row.status_msg) : '';
  const status = row.actual_status ?? 'provisioning';
  return {
    contract: row.id,
    label: row.label || null,
    phase,
    origin: phase === 'running' ? origin : null,
    detail: words === '' ? status : `${status}: ${words}`,
    gpuModel: row.gpu_name || 'unknown',
    gpuCount: row.num_gpus ?? 1,
    vramGb: row.gpu_ram == null ? 0 : nominalVramGb(row.gpu_ram / 1024),
    usdPerHour: row.dph_total ?? 0,
    diskUsdPerHour: diskUsdPerHourOf(row),
    location: row.geolocation || null,
    startedAt: row.start_date == null ? null : Math.round(row.start_date * 1000),
    expiresAt: null,
    interruptible: row.is_bid === true,
    // A bid that its owner stopped by hand looks the same.
    outbid:
      row.is_bid === true &&
      row.cur_state === 'stopped' &&
      row.intended_status === 'stopped' &&
      (row.next_state ?? 'stopped') === 'stopped',
  };
}

/** Negative: not known. */
function diskUsdPerHourOf({ storage_cost: usdPerGbMonth, disk_space: gb }: InstanceRow): number | null {
  return usdPerGbMonth == null || gb == null || gb < 0 ? null : (usdPerGbMonth * gb) / monthHours;
}

/** Intended before actual: a stopped instance shows `exited` too. */
function phaseOf(row: InstanceRow, origin: string | null): ProviderInstance['phase'] {
  if (row.cur_state === 'unloaded' || row.next_state === 'unloaded') return 'ended';
  if (row.intended_status === 'stopped' || row.intended_status === 'frozen') return 'stopped';
  const starting = row.cur_state === 'stopped' && row.next_state === 'running';
  switch (row.actual_status ?? null) {
    case null:
    case 'created':
    case 'loading':
      return brokenStart.test(row.status_msg ?? '') ? 'failed' : 'booting';
    case 'rebooting':
      return 'booting';
    case 'running':
      return origin === null ? 'booting' : 'running';
    case 'exited':
      // Just after a start it still reads `exited` for a while.
      return starting ? 'booting' : 'failed';
    case 'stopped':
    case 'frozen':
      return starting ? 'booting' : 'stopped';
    case 'offline':
      return 'failed';
    case 'unknown':
      // No heartbeat reached the marketplace. What served before may still serve: probes and traffic decide. What never
      // served will not.
      return origin === null ? 'failed' : 'running';
    default:
      return origin === null ? 'booting' : 'running';
  }
}

/** `http://ip:port` of the port that serves HTTP; null before it is mapped. */
function originOf(row: InstanceRow, instancePort: number): string | null {
  // Comes with blanks or a newline at its end, which decoding has removed.
  const ip = row.public_ipaddr ?? '';
  const family = isIP(ip);
  if (family === 0 || !row.ports) return null;
  const asked = (row.extra_env ?? []).flatMap(([key]) => {
    const match = /^-p\s+(?:\d+:)?(\d+)(?:\/tcp)?$/.exec(key);
    return match ? [`${match[1]}/tcp`] : [];
  });
  const open = Object.keys(row.ports).filter((port) => port.endsWith('/tcp') && port !== '22/tcp');
  const chosen =
    asked.find((port) => row.ports?.[port]) ??
    open.find((port) => port === `${instancePort}/tcp`) ??
    (open.length === 1 ? open[0] : undefined);
  const hostPort = chosen === undefined ? undefined : row.ports[chosen]?.[0]?.HostPort;
  if (hostPort === undefined || !/^\d{1,5}$/.test(hostPort)) return null;
  return `http://${family === 6 ? `[${ip}]` : ip}:${hostPort}`;
}

// --- logs ---

/**
 * Logs lie at a second URL. It is followed, without the key, over https to a named host, or to the host of the base URL
 * itself (a simulator or proxy); anything else could point into the own network.
 */
function resultUrl(text: string, baseUrl: string): URL {
  const url = URL.canParse(text, baseUrl) ? new URL(text, baseUrl) : null;
  const base = new URL(baseUrl);
  const own = url !== null && url.hostname === base.hostname && url.protocol === base.protocol;
  const named =
    url?.protocol === 'https:' &&
    url.hostname.includes('.') &&
    isIP(url.hostname.replace(/^\[|\]$/g, '')) === 0 &&
    !/\.(local|internal|localhost|lan|home\.arpa)$/i.test(url.hostname);
  if (url !== null && (own || named)) return url;
  throw new ProviderError(name, 'bad_answer', 'logs: the address of the log is not a public https URL');
}

/** Waits until the log is there: 403 or 404 until it was written. */
async function fetchLog(
  url: URL,
  tail: number,
  until: number,
  pace: number,
  signal: AbortSignal | undefined,
): Promise<readonly string[]> {
  const store = createJsonClient({ provider: name, baseUrl: url.origin, auth: {}, secret: '', pace, patience: 1 });
  try {
    for (;;) {
      const answer = await store.send({
        endpoint: { name: 'log file', spacingMs: 0 },
        method: 'GET',
        path: url.pathname + url.search,
        until,
        signal,
      });
      if (answer.status >= 200 && answer.status < 300) {
        const lines = answer.text.split(/\r?\n/);
        if (lines.at(-1) === '') lines.pop();
        return lines.slice(-tail);
      }
      if (answer.status !== 403 && answer.status !== 404) throw store.failure(answer);
      const pause = Math.max(20, 300 * Math.min(1, pace));
      if (monotonicMs() + pause >= until) {
        throw new ProviderError(name, 'timeout', 'logs: the log was not written in time');
      }
      await sleep(pause, undefined, { signal });
    }
  } catch (error) {
    signal?.throwIfAborted();
    throw error;
  } finally {
    await store.close();
  }
}
