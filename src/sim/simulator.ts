import type { IncomingMessage, ServerResponse } from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';
import * as z from 'zod';
import { FaultError } from './fault-error.ts';
import { FaultBook, type FaultInput, type Faults, faultSchema, namesRoute } from './faults.ts';
import { namesInstance } from './gpu-server.ts';
import {
  findRoute,
  html,
  json,
  type Listening,
  listen,
  type Reply,
  type Request,
  RequestError,
  type Route,
  send,
  text,
  toRequest,
} from './http.ts';
import { createIonetMarket } from './ionet-api.ts';
import { isLoss, lose, statusAfter, tooFrequent } from './lost-answers.ts';
import { type SimulatorOptions, simulatorOptionsSchema } from './options.ts';
import { createRandom, seedOf } from './random.ts';
import { createVastMarket } from './vast-api.ts';
import type { InstanceView, LedgerEntry, Market, Marketplace, World } from './world.ts';

export type { FaultInput, StandingFault } from './faults.ts';
export type { SimulatorOptions } from './options.ts';
export type { InstanceView, LedgerEntry } from './world.ts';

/** One call to a marketplace's API. `status` 0: no answer was given. */
export type ApiCall = Readonly<{
  at: number;
  provider: Marketplace;
  method: string;
  path: string;
  route: string;
  status: number;
  faults: readonly string[];
}>;

export interface Simulator extends AsyncDisposable {
  readonly vastUrl: string;
  readonly ionetUrl: string;
  /** Faults, instances and the ledger over HTTP, under `/__sim/`; logs that vast.ai puts on object storage. */
  readonly controlUrl: string;
  readonly vastKey: string;
  readonly ionetKey: string;
  readonly faults: Faults;
  instances(): readonly InstanceView[];
  /** Every contract ever made, and what the account was charged for it. */
  ledger(): readonly LedgerEntry[];
  /** The last 1,000 calls, oldest first. */
  calls(): readonly ApiCall[];
  /** Instances rentable now. */
  rentable(): Readonly<Record<Marketplace, number>>;
  close(): Promise<void>;
}

const keptCalls = 1000;
const keptLogs = 200;
const tickMs = 250;

/** Starts both marketplaces. Rejects when a port is taken or an option is wrong. */
export async function startSimulator(options: SimulatorOptions = {}): Promise<Simulator> {
  const parsed = simulatorOptionsSchema.safeParse(options);
  if (!parsed.success) throw new TypeError(`simulator options: ${z.prettifyError(parsed.error)}`);
  const settings = parsed.data;
  const logs = new Map<string, { text: () => string; reads: number }>();
  const calls: ApiCall[] = [];
  const lastCalls = new Map<string, number>();
  const opened: Listening[] = [];
  let controlUrl = '';
  let markets: readonly Market[] = [];

  const chance = createRandom(seedOf(settings.seed, 'faults'));
  const concerned = (provider: Marketplace | 'all') =>
    markets.filter((market) => provider === 'all' || market.name === provider);
  /** Contracts that a fault's `instance` means. */
  const named = (instance: string): { market: Market; contract: string }[] =>
    markets.flatMap((market) =>
      market
        .contracts()
        .filter((contract) => namesInstance(instance, { contract, provider: market.name }))
        .map((contract) => ({ market, contract })),
    );

  const book = new FaultBook(chance, {
    settle(fault) {
      if (!('instance' in fault) || fault.instance !== 'random') return fault;
      const all = named('*').filter(({ market, contract }) => {
        if (fault.kind === 'outbid')
          return market.instances().some((it) => it.contract === contract && it.interruptible);
        return fault.kind !== 'expire' || market.name === 'ionet';
      });
      return all.length === 0 ? fault : { ...fault, instance: chance.pick(all).contract };
    },
    act(fault) {
      switch (fault.kind) {
        case 'vanish_offers':
          for (const market of concerned(fault.provider)) market.vanish(fault.offer, fault.count);
          return;
        case 'reprice':
          for (const market of concerned(fault.provider)) market.reprice(fault.factor);
          return;
        case 'credit':
          for (const market of concerned(fault.provider)) market.setCredit(fault.usd);
          return;
        case 'exit':
        case 'offline':
        case 'online':
        case 'outbid':
        case 'expire':
          for (const { market, contract } of named(fault.instance)) void market.act(fault.kind, contract);
          return;
      }
    },
    changed() {
      for (const { market, contract } of named('*')) {
        for (const machine of market.machines(contract)) void machine.followFaults();
      }
    },
  });

  const world: World = {
    settings,
    faults: book,
    random: (purpose) => createRandom(seedOf(settings.seed, purpose)),
    publishLog(readText) {
      const key = `${chance.int(1e8, 1e9).toString(16)}${chance.int(1e8, 1e9).toString(16)}.log`;
      logs.set(key, { text: readText, reads: 0 });
      const [oldest] = logs.keys();
      if (logs.size > keptLogs && oldest !== undefined) logs.delete(oldest);
      return `${controlUrl}/vast.ai/instance_logs/${key}`;
    },
  };
  markets = [createVastMarket(world), createIonetMarket(world)];

  /** Too soon after this identity's last call of the endpoint. */
  const tooSoon = (market: Market, route: Route, request: Request): boolean => {
    if (settings.rateLimit === 0 || route.intervalS === undefined) return false;
    const key = `${market.name} ${route.method} ${route.pattern.source} ${market.identity(request)}`;
    const now = performance.now();
    const last = lastCalls.get(key);
    if (last !== undefined && now - last < route.intervalS * 1000 * settings.rateLimit) return true;
    lastCalls.set(key, now);
    return false;
  };

  const serveMarket = async (market: Market, message: IncomingMessage, response: ServerResponse): Promise<void> => {
    const incoming = await toRequest(message);
    if (incoming.path.startsWith('/__sim')) {
      send(response, control(incoming));
      return;
    }
    const found = findRoute(market.routes, incoming);
    const record = (status: number, faults: readonly string[]) => {
      calls.push({
        at: Date.now(),
        provider: market.name,
        method: incoming.method,
        path: incoming.path,
        route: 'route' in found ? found.route.name : 'unknown',
        status,
        faults,
      });
      if (calls.length > keptCalls) calls.splice(0, calls.length - keptCalls);
    };
    if (!('route' in found)) {
      const reply = market.notFound(found.allow);
      record(reply.status, []);
      send(response, reply);
      return;
    }
    const { route } = found;
    const request: Request = { ...incoming, params: found.params };
    const struck = book.strike(
      ['latency', 'rate_limit', 'error', 'reset', 'hang', 'lose_answer', 'garbage'],
      (fault) =>
        (fault.provider === 'all' || fault.provider === market.name) &&
        (fault.route === undefined || namesRoute(fault.route, route.name)),
    );
    const kinds = struck.map((fault) => fault.kind);
    for (const fault of struck) {
      if (fault.kind === 'latency') await sleep(fault.ms + chance.next() * fault.jitterMs);
    }
    const limit = struck.find((fault) => fault.kind === 'rate_limit');
    if (limit || tooSoon(market, route, request)) {
      record(429, kinds);
      send(response, tooFrequent(route, limit?.form ?? 'text'));
      return;
    }
    const loss = struck.find(isLoss);
    if (loss?.when === 'before') {
      record(statusAfter(loss, 0), kinds);
      await lose(loss, response, null);
      return;
    }
    const reply = market.refuse(route, request) ?? (await route.handle(request));
    record(loss ? statusAfter(loss, reply.status) : reply.status, kinds);
    if (loss) await lose(loss, response, reply);
    else send(response, reply);
  };

  const control = (request: Request): Reply => {
    const at = request.path.replace(/^\/__sim\/?/, '');
    const call = `${request.method} ${at}`;
    if (call === 'GET ') {
      return json(200, {
        vastUrl: simulator.vastUrl,
        ionetUrl: simulator.ionetUrl,
        controlUrl,
        seed: settings.seed,
        rentable: simulator.rentable(),
        instances: simulator.instances().length,
        faults: book.list().length,
      });
    }
    if (call === 'GET instances') return json(200, { instances: simulator.instances() });
    if (call === 'GET ledger') {
      const contracts = simulator.ledger();
      return json(200, { contracts, chargedUsd: contracts.reduce((sum, entry) => sum + entry.chargedUsd, 0) });
    }
    if (call === 'GET calls') return json(200, { calls });
    if (call === 'GET faults/schema') return json(200, z.toJSONSchema(faultSchema, { io: 'input' }));
    if (call === 'GET faults') return json(200, { faults: book.list() });
    if (call === 'DELETE faults') {
      book.clear();
      return json(200, { faults: [] });
    }
    if (request.method === 'DELETE' && at.startsWith('faults/')) {
      return book.remove(at.slice(7)) ? json(200, { faults: book.list() }) : json(404, { error: 'no such fault' });
    }
    if (call === 'POST faults') {
      try {
        // The book checks what it gets.
        const input = JSON.parse(request.raw) as FaultInput | FaultInput[];
        const added = (Array.isArray(input) ? input : [input]).map((one) => book.add(one));
        return json(201, { faults: added });
      } catch (error) {
        if (error instanceof FaultError || error instanceof SyntaxError) return json(400, { error: error.message });
        throw error;
      }
    }
    return json(404, { error: `nothing at ${request.method} /__sim/${at}` });
  };

  /** Object storage: needs no key and takes none, and has a log only some moments after it was asked for. */
  const storage = (request: Request): Reply => {
    const log = logs.get(request.path.split('/').at(-1) ?? '');
    const xml = (status: number, code: string) =>
      text(status, `<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>${code}</Code></Error>`, 'application/xml');
    if (request.header('authorization') !== undefined) return xml(400, 'InvalidArgument');
    if (request.method !== 'GET') return xml(405, 'MethodNotAllowed');
    if (!log) return xml(403, 'AccessDenied');
    log.reads++;
    if (log.reads === 1) return xml(404, 'NoSuchKey');
    if (log.reads === 2) return xml(403, 'AccessDenied');
    return text(200, log.text());
  };

  const guarded =
    (handle: (message: IncomingMessage, response: ServerResponse) => Promise<void>, broken: Reply) =>
    (message: IncomingMessage, response: ServerResponse) => {
      handle(message, response).catch((error: unknown) => {
        if (error instanceof RequestError) send(response, html(error.status, error.message));
        else if (response.headersSent || response.destroyed) response.destroy();
        else send(response, broken);
      });
    };

  const [vast, ionet] = markets as readonly [Market, Market];
  const open = async (port: number, handle: (message: IncomingMessage, response: ServerResponse) => Promise<void>) => {
    const listening = await listen(settings.host, port, guarded(handle, html(500, 'Internal Server Error')));
    opened.push(listening);
    return listening.url;
  };
  let closed: Promise<void> | null = null;
  const close = (): Promise<void> => {
    closed ??= (async () => {
      clearInterval(ticker);
      await Promise.all([...opened.map((listening) => listening.close()), ...markets.map((market) => market.close())]);
    })();
    return closed;
  };
  let ticker: NodeJS.Timeout | undefined;
  let vastUrl: string;
  let ionetUrl: string;
  try {
    controlUrl = await open(settings.ports.control, async (message, response) => {
      const request = await toRequest(message);
      send(response, request.path.startsWith('/__sim') ? control(request) : storage(request));
    });
    vastUrl = await open(settings.ports.vast, (message, response) => serveMarket(vast, message, response));
    ionetUrl = await open(settings.ports.ionet, (message, response) => serveMarket(ionet, message, response));
  } catch (error) {
    await close();
    throw error;
  }

  const simulator: Simulator = {
    vastUrl,
    ionetUrl,
    controlUrl,
    vastKey: settings.vastKey,
    ionetKey: settings.ionetKey,
    faults: book,
    instances: () => markets.flatMap((market) => market.instances()),
    ledger: () => markets.flatMap((market) => market.ledger()),
    calls: () => [...calls],
    rentable: () => ({ vast: vast.rentable(), ionet: ionet.rentable() }),
    close,
    [Symbol.asyncDispose]: close,
  };
  for (const fault of settings.faults) book.add(fault);

  let churnDue = 0;
  ticker = setInterval(() => {
    for (const market of markets) void market.tick();
    churnDue += (settings.churnPerMinute * tickMs) / 60_000;
    for (; churnDue >= 1; churnDue--) chance.pick(markets).churn();
    if (settings.accidentsPerHour > 0) {
      for (const { market, contract } of named('*')) {
        if (!chance.chance((settings.accidentsPerHour * tickMs) / 3_600_000)) continue;
        void market.act(chance.pick(['exit', 'offline', 'outbid'] as const), contract);
      }
    }
  }, tickMs);
  ticker.unref();
  return simulator;
}
