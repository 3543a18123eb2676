import { cards, vastStaples } from './cards.ts';
import { html, json, originOf, pathPattern, type Reply, type Request, type Route } from './http.ts';
import { Machine } from './machine.ts';
import { createRandom, seedOf } from './random.ts';
import { type Contract, chargedUsd, instanceRow, portsOf, serverLines, setPrice, statusOf } from './vast-contract.ts';
import { listPage, parameter } from './vast-list.ts';
import { type Ask, diskUsdPerHour, drawAsk } from './vast-offers.ts';
import { fields, type Query, QueryError, searchAsks, toNumber } from './vast-search.ts';
import { bootPlan, type InstanceFault, type LedgerEntry, type Market, type World } from './world.ts';

const stringOr = <T>(value: unknown, other: T): string | T => (typeof value === 'string' ? value : other);

const fail = (status: number, error: string, msg: string, rest: object = {}): Reply =>
  json(status, { success: false, error, msg, ...rest });
const ok = (rest: object = {}): Reply => json(200, { success: true, ...rest });
const noInstance = (): Reply => fail(404, 'no_such_instance', 'error 404/3401: no_such_instance');

/** vast.ai's HTTP API over simulated machines. */
export function createVastMarket(world: World): Market {
  const { settings } = world;
  const random = world.random('vast');
  const asks = new Map<number, Ask>();
  const contracts = new Map<number, Contract>();
  let credit = settings.credit.vast;
  let lastAsk = 21_000_000;
  let lastContract = 31_000_000;

  for (let i = 0; i < settings.offers.vast; i++) {
    const staple = vastStaples[i];
    lastAsk += random.int(1, 97);
    asks.set(lastAsk, drawAsk(random, lastAsk, staple === undefined ? {} : { card: staple, gpus: 1 }));
  }
  const spares = createRandom(seedOf(settings.seed, 'vast-spares'));
  for (let i = 0; i < Math.ceil(settings.offers.vast / 12); i++) {
    lastAsk += spares.int(1, 97);
    asks.set(lastAsk, drawAsk(spares, lastAsk, { spare: true }));
  }

  const body = (request: Request): Query => {
    try {
      const value = fields(JSON.parse(request.raw === '' ? '{}' : request.raw));
      if (value) return value;
    } catch {
      // Told below, as for any other body that is no object.
    }
    throw new QueryError('Invalid json body');
  };

  const spentUsd = (): number =>
    [...contracts.values()].reduce((sum, contract) => sum + chargedUsd(world, contract), 0);
  const creditLeft = (): number => credit - spentUsd();

  const row = (contract: Contract) => instanceRow(contract, settings.host);

  const search = (query: Query): Reply => {
    const sloppy = world.faults.strike(['sloppy_filters'], () => true).length > 0;
    return json(200, { offers: searchAsks(asks.values(), query, sloppy).rows });
  };

  const gone = (id: number): Reply =>
    fail(400, 'invalid_args', `error 404/3603: no_such_ask  Instance type by id ${id} is not available.`, {
      ask_id: id,
    });

  /** The answer, and the contract that it made, if any: a refused bid makes one all the same. */
  const rent = async (id: number, spec: Query): Promise<Reply> => {
    const ask = asks.get(id);
    if (!ask || ask.rented || !ask.rentable) return gone(id);
    if (world.faults.strike(['stale_offers'], (fault) => fault.provider !== 'ionet').length > 0) {
      asks.delete(id);
      return gone(id);
    }
    const image = stringOr(spec.image, null);
    if ((image === null || image === '') && typeof spec.template_hash_id !== 'string') {
      return fail(400, 'invalid_args', 'error 400/3467: Invalid args: image or template required');
    }
    const diskGb = spec.disk === undefined || spec.disk === null ? 8 : toNumber(spec.disk);
    if (diskGb === null || diskGb < 8 || diskGb > ask.disk_space) {
      return fail(400, 'invalid_args', `error 400/3467: Invalid args: disk ${String(spec.disk)}`);
    }
    const label = stringOr(spec.label, null);
    if (label !== null && label.length > 256) return fail(400, 'label_too_long', 'error 400/3468: label_too_long');
    const onstart = stringOr(spec.onstart, null);
    const args = Array.isArray(spec.args) ? spec.args.map(String) : null;
    const scriptLength = (onstart ?? '').length + (args?.join(' ') ?? stringOr(spec.args_str, '')).length;
    if (scriptLength > 4096) return fail(400, 'invalid_args', 'error 400/3469: Invalid args: onstart too long');
    let bid: number | null = null;
    if (spec.price !== undefined && spec.price !== null) {
      bid = toNumber(spec.price);
      if (bid === null || bid < 0.001 || bid > 128) {
        return fail(400, 'invalid_price', 'error 400/3470: Please set a bid price >= 0.001.');
      }
    }
    const usdPerHour = Number(((bid ?? ask.dph_base) + diskUsdPerHour(ask, diskGb)).toFixed(6));
    if (creditLeft() < usdPerHour) {
      return fail(400, 'insufficient_credit', 'Your balance is too low to rent this instance; please add credit.');
    }

    const env = fields(spec.env);
    const pairs = Object.entries(env ?? {}).map(([key, value]): [string, string] => [key, String(value)]);
    const tooLong = pairs.some(([key, value]) => key.length > 256 || value.length > 32_768);
    if (tooLong) return fail(400, 'invalid_args', 'error 400/3471: Invalid args: env too long');

    ask.rented = true;
    ask.rentable = false;
    lastContract += random.int(1, 9);
    const contractId = lastContract;
    const tooLow = bid !== null && bid < ask.min_bid;
    const machine = new Machine({
      contract: String(contractId),
      provider: 'vast',
      card: ask.card,
      gpuCount: ask.num_gpus,
      models: settings.models,
      seed: settings.seed,
      speed: settings.speed,
      slots: settings.slots,
      host: settings.host,
      faults: world.faults,
    });
    const contract: Contract = {
      id: contractId,
      ask,
      machine,
      createdAt: Date.now(),
      diskGb,
      image: image ?? 'template/image',
      runtype: stringOr(spec.runtype, 'ssh'),
      args,
      onstart,
      env: pairs,
      ports: portsOf(pairs),
      label,
      bid,
      intended: tooLow || spec.target_state === 'stopped' ? 'stopped' : 'running',
      outbid: tooLow,
      destroyedAt: null,
      usdPerHour,
      charged: { usd: 0, poweredMs: 0 },
      queued: false,
      rebooting: false,
      log: [],
    };
    contracts.set(contractId, contract);
    if (contract.intended === 'running') await boot(contract);
    if (tooLow) {
      return fail(400, 'invalid_price', `error 400/3605: bid of ${bid} is below the minimum of ${ask.min_bid}`, {
        new_contract: contractId,
      });
    }
    return ok({ new_contract: contractId, instance_api_key: `sim-instance-key-${contractId}` });
  };

  const boot = async (contract: Contract): Promise<void> => {
    const draw = createRandom(seedOf(settings.seed, `vast-boot-${contract.id}`));
    const plan = bootPlan(world, draw, 'vast');
    contract.intended = 'running';
    contract.outbid = false;
    contract.queued = false;
    contract.rebooting = false;
    contract.log.push(`${new Date().toISOString()} starting ${contract.image}`);
    await contract.machine.start(plan.bootMs, plan.failure);
  };

  const destroy = async (contract: Contract): Promise<void> => {
    contract.destroyedAt = Date.now();
    await contract.machine.stop('gone');
    // The machine is offered again, as another ask.
    asks.delete(contract.ask.id);
    lastAsk += random.int(1, 97);
    asks.set(lastAsk, { ...contract.ask, id: lastAsk, rented: false, rentable: true });
  };

  const lagging = (contract: Contract): boolean => Date.now() - contract.createdAt < settings.lagMs;
  const lingers = (contract: Contract): boolean =>
    contract.destroyedAt !== null && Date.now() - contract.destroyedAt < settings.lagMs;
  const listed = (): Contract[] =>
    [...contracts.values()].filter(
      (contract) => (contract.destroyedAt === null || lingers(contract)) && !lagging(contract),
    );
  const living = (id: string | undefined): Contract | undefined => {
    const contract = contracts.get(Number(id));
    return contract?.destroyedAt === null ? contract : undefined;
  };

  const change = async (contract: Contract, fields: Query): Promise<Reply> => {
    if (typeof fields.label === 'string') {
      if (fields.label.length > 1024) return fail(400, 'label_too_long', 'error 400/3468: label_too_long');
      contract.label = fields.label;
    }
    if (fields.state === 'stopped') {
      contract.intended = 'stopped';
      contract.queued = false;
      await contract.machine.stop('off');
      contract.log.push(`${new Date().toISOString()} stopped`);
    } else if (fields.state === 'running' && contract.machine.power !== 'on') {
      if (world.faults.strike(['start_refused'], () => true).length > 0) {
        contract.intended = 'running';
        contract.queued = true;
        return json(200, {
          success: false,
          msg: 'Required resources are currently unavailable, state change queued.',
        });
      }
      if (contract.machine.power === 'offline') await contract.machine.stop('off');
      await boot(contract);
    } else if (fields.state !== undefined && fields.state !== 'running') {
      return fail(400, 'invalid_args', `error 400/3467: Invalid args: state ${String(fields.state)}`);
    }
    return ok();
  };

  const reboot = async (contract: Contract): Promise<Reply> => {
    await contract.machine.stop('off');
    await boot(contract);
    contract.rebooting = true;
    return ok();
  };

  const logs = (contract: Contract, options: Query): Reply => {
    const tail = toNumber(options.tail) ?? 1000;
    const filter = stringOr(options.filter, '');
    const url = world.publishLog(
      () =>
        `${[...contract.log, ...serverLines(contract.machine)]
          .filter((line) => line.includes(filter))
          .slice(-tail)
          .join('\n')}\n`,
    );
    return ok({ result_url: url, msg: 'Request sent' });
  };

  const byId = (handle: (contract: Contract, request: Request) => Reply | Promise<Reply>) => (request: Request) => {
    const contract = living(request.params[0]);
    return contract ? handle(contract, request) : noInstance();
  };

  const route = (
    method: string,
    path: string,
    name: string,
    intervalS: number | undefined,
    handle: Route['handle'],
    key: Route['key'] = 'required',
  ): Route => ({
    method,
    pattern: pathPattern(path),
    name,
    key,
    ...(intervalS === undefined ? {} : { intervalS }),
    handle: async (request) => {
      try {
        return await handle(request);
      } catch (error) {
        if (error instanceof QueryError)
          return json(400, { success: false, error: 'invalid_request', msg: error.message });
        throw error;
      }
    },
  });

  const user = (): Reply =>
    json(200, {
      id: 4711,
      key_id: 1,
      username: 'simulated',
      email: 'simulated@example.invalid',
      fullname: 'Simulated Account',
      balance: -Number(spentUsd().toFixed(6)),
      credit: Number(creditLeft().toFixed(6)),
      balance_threshold: 0,
      balance_threshold_enabled: false,
      billaddress_line1: null,
      billaddress_line2: null,
      billaddress_city: null,
      billaddress_zip: null,
      billaddress_country: null,
      billed_expected: null,
      billed_verified: null,
      billing_creditonly: 0,
      can_pay: true,
      email_verified: true,
      got_signup_credit: 0,
      has_billing: true,
      has_payout: false,
      last4: null,
      paid_expected: null,
      paid_verified: null,
      password_resettable: true,
      paypal_email: null,
      user: null,
      ssh_key: '',
      sid: 'simulated',
      // Older versions of the official command line fail without it.
      api_key: settings.vastKey,
    });

  const routes: readonly Route[] = [
    route('POST', '/api/v0/bundles/', 'search', 6, (r) => search(body(r)), 'optional'),
    route(
      'GET',
      '/api/v0/bundles/',
      'search',
      6,
      (r) => search(fields(parameter(r.query.get('q'), {})) ?? {}),
      'optional',
    ),
    route(
      'PUT',
      '/api/v0/search/asks/',
      'search',
      6,
      (r) => {
        const query = fields(body(r).q);
        if (!query) throw new QueryError('Invalid json body');
        return search(query);
      },
      'optional',
    ),
    // What it answers is not documented.
    route('POST', '/api/v0/asks/bulk/', 'rent', 4.5, async (r) => {
      const spec = body(r);
      const ids = Array.isArray(spec.ids) ? spec.ids : [];
      if (ids.length === 0 || ids.length > 64) return fail(400, 'invalid_args', 'error 400/3467: Invalid args: ids');
      const results: Query[] = [];
      for (const id of ids) {
        const reply = await rent(Number(id), spec);
        results.push({ ask_id: Number(id), ...JSON.parse(reply.body) });
      }
      const made = results.filter((it) => it.success === true).map((it) => it.new_contract);
      return json(200, { success: made.length > 0, new_contracts: made, results });
    }),
    route('PUT', '/api/v0/asks/:/', 'rent', 4.5, (r) => rent(Number(r.params[0]), body(r))),
    route('PUT', '/api/v0/launch_instance/', 'rent', 5, (r) => {
      const spec = body(r);
      const [ask] = searchAsks(asks.values(), fields(spec.q) ?? {}, false).asks;
      return ask ? rent(ask.id, spec) : fail(400, 'no_such_ask', 'error 404/3603: no_such_ask  No matching offer');
    }),
    route('GET', '/api/v1/instances/', 'list', 1, (r) => {
      const page = listPage(listed().map(row), r.query);
      return page ? json(200, page) : fail(400, 'invalid_token', 'Invalid after_token');
    }),
    route('GET', '/api/v0/instances/', 'list', 1, () => {
      const rows = listed().map(row);
      return json(200, { instances_found: rows.length, instances: rows });
    }),
    route('PUT', '/api/v0/instances/', 'update', 1, async (r) => {
      const fields = body(r);
      const ids = Array.isArray(fields.ids) ? fields.ids : [];
      for (const id of ids) {
        const contract = living(String(id));
        if (!contract) return noInstance();
        const reply = await change(contract, fields);
        if (reply.status !== 200) return reply;
      }
      return ok();
    }),
    route('DELETE', '/api/v0/instances/', 'destroy', 3, async (r) => {
      const { instance_ids: ids } = body(r);
      if (!Array.isArray(ids)) return fail(400, 'invalid_args', 'error 400/3467: Invalid args: instance_ids');
      for (const id of ids) {
        const contract = living(String(id));
        if (contract) await destroy(contract);
      }
      return ok();
    }),
    route('GET', '/api/v0/instances/filters/', 'filters', undefined, () =>
      json(200, {
        filters: listed().map((contract) => ({
          actual_status: statusOf(contract),
          verification: contract.ask.verification,
          gpu_name: contract.ask.card.vast,
        })),
      }),
    ),
    route('GET', '/api/v0/instances/pending-price-increases/', 'other', undefined, () =>
      fail(404, 'no_pending_price_increase', 'no_pending_price_increase'),
    ),
    route('PUT', '/api/v0/instances/reboot/:/', 'reboot', 1, byId(reboot)),
    route('PUT', '/api/v0/instances/recycle/:/', 'reboot', 1, byId(reboot)),
    route(
      'PUT',
      '/api/v0/instances/bid_price/:/',
      'bid',
      5.5,
      byId(async (contract, request) => {
        const price = toNumber(body(request).price);
        if (price === null || price < 0.001 || price > 32) {
          return fail(400, 'invalid_price', 'Please set a bid price >= 0.001.');
        }
        contract.bid = price;
        setPrice(world, contract, price);
        if (contract.outbid && price >= contract.ask.min_bid) await boot(contract);
        return ok();
      }),
    ),
    route('PUT', '/api/v0/instances/request_logs/:/', 'logs', 1, (r) => {
      const contract = living(r.params[0]);
      return contract ? logs(contract, body(r)) : fail(404, 'invalid_id', 'invalid_id');
    }),
    route(
      'PUT',
      '/api/v0/instances/command/:/',
      'command',
      1.5,
      byId((_contract, request) => {
        const { command } = body(request);
        if (typeof command !== 'string' || command.length > 512 || !/^(ls|rm|du)\b/.test(command)) {
          return fail(400, 'invalid_args', 'error 400/3467: Invalid args: command');
        }
        return ok({ result_url: world.publishLog(() => 'total 0\n'), writeable_path: '/root' });
      }),
    ),
    route(
      'GET',
      '/api/v0/instances/balance/:/',
      'other',
      undefined,
      byId(() => ok({ refundable_deposit: 0, total_discount: 0, discount_months: 0 })),
    ),
    route('GET', '/api/v0/instances/:/', 'get', 2, (r) => {
      const contract = contracts.get(Number(r.params[0]));
      const visible = contract !== undefined && contract.destroyedAt === null && !lagging(contract);
      return json(200, { instances: visible ? row(contract) : null });
    }),
    route(
      'PUT',
      '/api/v0/instances/:/',
      'update',
      1,
      byId((contract, request) => change(contract, body(request))),
    ),
    route(
      'DELETE',
      '/api/v0/instances/:/',
      'destroy',
      3,
      byId(async (contract) => {
        await destroy(contract);
        return ok({ msg: `Instance ${contract.id} destroyed` });
      }),
    ),
    route('GET', '/api/v0/users/current/', 'user', undefined, user),
    route(
      'GET',
      '/api/v0/gpu_names/unique/',
      'gpu_names',
      undefined,
      () => json(200, { gpu_names: [...new Set(cards.map((card) => card.vast))] }),
      'none',
    ),
    route('GET', '/api/v0/ssh/', 'other', undefined, () => fail(404, 'not_found', 'No ssh keys')),
    route('GET', '/api/v0/charges/', 'other', 1, () => ok({ charges: [] })),
    route('GET', '/api/v1/invoices/', 'other', undefined, () => ok({ results: [], count: 0, next_token: null })),
  ];

  const identity = (request: Request): string =>
    /^Bearer\s+(.+)$/i.exec(request.header('authorization') ?? '')?.[1]?.trim() ?? request.query.get('api_key') ?? '';

  const free = (): Ask[] =>
    [...asks.values()].filter((ask) => ask.rentable && !ask.rented && ask.direct_port_count > 0);

  return {
    name: 'vast',
    routes,
    identity,
    refuse(found, request) {
      if (found.key === 'none') return null;
      const key = identity(request);
      if (key === settings.vastKey || (key === '' && found.key === 'optional')) return null;
      return fail(found.name === 'search' ? 404 : 401, 'auth_error', 'Invalid user key');
    },
    notFound: (allow) => (allow.length > 0 ? html(405, 'Method Not Allowed') : html(404, 'Not Found')),
    instances: () =>
      [...contracts.values()]
        .filter((contract) => contract.destroyedAt === null)
        .map((contract) => {
          const { port, server } = contract.machine;
          return {
            provider: 'vast',
            contract: String(contract.id),
            label: contract.label,
            status: statusOf(contract) ?? 'null',
            gpuModel: contract.ask.card.vast,
            gpuCount: contract.ask.num_gpus,
            usdPerHour: contract.usdPerHour,
            url: port === null ? null : originOf(settings.host, port),
            interruptible: contract.bid !== null,
            active: server?.stats.active ?? 0,
            queued: server?.stats.queued ?? 0,
            served: server?.stats.served ?? 0,
          };
        }),
    contracts: () => [...contracts.values()].filter((it) => it.destroyedAt === null).map((it) => String(it.id)),
    machines: (id) => {
      const contract = living(id);
      return contract ? [contract.machine] : [];
    },
    ledger: () =>
      [...contracts.values()].map(
        (contract): LedgerEntry => ({
          provider: 'vast',
          contract: String(contract.id),
          label: contract.label,
          offer: String(contract.ask.id),
          gpuModel: contract.ask.card.vast,
          gpuCount: contract.ask.num_gpus,
          usdPerHour: contract.usdPerHour,
          createdAt: contract.createdAt,
          destroyedAt: contract.destroyedAt,
          chargedUsd: chargedUsd(world, contract),
        }),
      ),
    rentable: () => free().length,
    async act(kind: InstanceFault['kind'], id) {
      const contract = living(id);
      if (!contract) return;
      const { machine } = contract;
      if (kind === 'exit') await machine.stop('exited');
      else if (kind === 'offline') machine.setOffline(true);
      else if (kind === 'online') {
        if (machine.power === 'offline') machine.setOffline(false);
        else if (machine.power === 'exited' || contract.outbid) await boot(contract);
      } else if (kind === 'outbid' && contract.bid !== null) {
        contract.ask.min_bid = Number((contract.bid * 1.2 + 0.001).toFixed(4));
        contract.intended = 'stopped';
        contract.outbid = true;
        await machine.stop('off');
      }
    },
    vanish(offer, count) {
      if (offer !== undefined) asks.delete(Number(offer));
      else for (let i = 0; i < count && free().length > 0; i++) asks.delete(random.pick(free()).id);
    },
    reprice(factor) {
      for (const ask of free()) {
        ask.dph_base = Number((ask.dph_base * factor).toFixed(4));
        ask.min_bid = Number((ask.min_bid * factor).toFixed(4));
      }
    },
    setCredit(usd) {
      credit = usd + spentUsd();
    },
    churn() {
      const choices = free();
      if (choices.length === 0) return;
      asks.delete(random.pick(choices).id);
      lastAsk += random.int(1, 97);
      asks.set(lastAsk, drawAsk(random, lastAsk));
    },
    async tick() {
      for (const contract of contracts.values()) {
        const taken = world.faults.stands('start_refused', () => true);
        if (contract.queued && contract.destroyedAt === null && !taken) await boot(contract);
      }
      if (creditLeft() > 0) return;
      for (const contract of contracts.values()) {
        if (contract.destroyedAt !== null || contract.machine.power !== 'on') continue;
        contract.intended = 'stopped';
        await contract.machine.stop('off');
      }
    },
    async close() {
      await Promise.all([...contracts.values()].map((contract) => contract.machine.stop('gone')));
    },
  };
}
