import * as z from 'zod';
import { cards, ionetStaples, places } from './cards.ts';
import { json, originOf, pathPattern, type Reply, type Request, type Route } from './http.ts';
import {
  data,
  deployBody,
  detail,
  extendBody,
  integer,
  parseBody,
  parseJson,
  patchBody,
  renameBody,
  unprocessable,
} from './ionet-bodies.ts';
import {
  chargedUsd,
  type Deployment,
  details,
  type Hardware,
  hoursServed,
  type Location,
  naive,
  type Pool,
  type Replica,
  statuses,
  statusOf,
  summary,
  usd,
  workers,
} from './ionet-deployment.ts';
import { Machine } from './machine.ts';
import { createRandom, seedOf } from './random.ts';
import { bootPlan, type InstanceFault, type LedgerEntry, type Market, type World } from './world.ts';

/** io.net's CaaS API (and its public lists) over simulated machines. */
export function createIonetMarket(world: World): Market {
  const { settings } = world;
  const random = world.random('ionet');
  const deployments = new Map<string, Deployment>();
  let credit = settings.credit.ionet;
  let number = 0;

  const rented = cards.filter((card) => card.ionet !== null);
  const hardware: Hardware[] = rented.map((card, index) => ({
    id: 200 + index * 3,
    card,
    name: card.ionet as string,
    largest: card.interconnect === 'pcie' ? 4 : 8,
    usdPerGpuHour: Number(random.between(card.usd[0] * 1.05, card.usd[1]).toFixed(2)),
  }));
  const seen = new Map<string, Location>();
  for (const place of places) {
    if (!seen.has(place.iso2)) {
      seen.set(place.iso2, { id: 3 + seen.size * 3, iso2: place.iso2, name: place.country, region: place.region });
    }
  }
  const locations = [...seen.values()];
  const pools: Pool[] = [];
  const poolAt = (hard: Hardware, place: Location): Pool => {
    let pool = pools.find((it) => it.hardware === hard && it.place === place);
    if (!pool) {
      pool = { hardware: hard, place, free: 0 };
      pools.push(pool);
    }
    return pool;
  };
  for (let left = settings.offers.ionet, drawn = 0; left > 0; drawn++) {
    const staple = hardware.find((it) => it.card === ionetStaples[drawn]);
    const hard = staple ?? random.weighted(hardware, (it) => it.card.share[1]);
    const part = Math.min(left, random.int(1, Math.max(3, Math.ceil(settings.offers.ionet / 40))));
    poolAt(hard, random.pick(locations.slice(0, 10))).free += part;
    left -= part;
  }

  const creditLeft = (): number =>
    credit - [...deployments.values()].reduce((sum, it) => sum + chargedUsd(world, it), 0);

  const end = async (it: Deployment, as: 'completed' | 'destroyed' | 'failed'): Promise<void> => {
    if (it.ending) return;
    it.ending = { as, at: Date.now(), mono: performance.now() };
    for (const replica of it.replicas) replica.pool.free += it.gpusPerContainer;
    await Promise.all(it.replicas.map(({ machine }) => machine.stop('gone')));
  };

  const nameTaken = (name: string): boolean =>
    [...deployments.values()].some(
      (it) => it.name === name && (!it.ending || statusOf(it) === 'termination requested'),
    );

  const deploy = async (request: Request): Promise<Reply> => {
    const parsed = parseBody(request, deployBody);
    if ('status' in parsed) return parsed;
    const { value } = parsed;
    const hard = hardware.find((it) => it.id === value.hardware_id);
    if (!hard) return detail(404, 'Hardware not found');
    if (value.gpus_per_container > hard.largest) return detail(400, 'Too many GPUs per container for this hardware');
    if (nameTaken(value.resource_private_name)) return detail(400, 'Cluster name is already in use');
    const replicas = value.container_config.replica_count;
    const open = pools.filter((pool) => pool.hardware === hard && value.location_ids.includes(pool.place.id));
    const chosen: Pool[] = [];
    for (const pool of open) {
      for (let room = Math.floor(pool.free / value.gpus_per_container); room > 0 && chosen.length < replicas; room--) {
        chosen.push(pool);
      }
    }
    const stale = world.faults.strike(['stale_offers'], (fault) => fault.provider !== 'vast').length > 0;
    if (chosen.length < replicas || stale) {
      if (stale) for (const pool of open) pool.free = 0;
      return detail(400, 'Requested hardware is not available in the selected locations');
    }
    const amount = usd(hard, value.gpus_per_container * replicas, value.duration_hours);
    if (creditLeft() < amount) return detail(402, 'Insufficient IO credits for this deployment');

    number++;
    const id = stableUuid(settings.seed, number);
    const made = chosen.map((pool, index): Replica => {
      pool.free -= value.gpus_per_container;
      return {
        containerId: stableUuid(settings.seed, number * 1000 + index + 1),
        deviceId: stableUuid(settings.seed, number * 1000 + index + 500),
        pool,
        machine: new Machine({
          contract: id,
          provider: 'ionet',
          card: hard.card,
          gpuCount: value.gpus_per_container,
          models: settings.models,
          seed: settings.seed + index,
          speed: settings.speed,
          slots: settings.slots,
          host: settings.host,
          faults: world.faults,
        }),
      };
    });
    deployments.set(id, {
      id,
      number,
      replicas: made,
      hardware: hard,
      gpusPerContainer: value.gpus_per_container,
      createdAt: Date.now(),
      createdMono: performance.now(),
      locations: [...new Set(chosen.map((pool) => pool.place))],
      config: value.container_config,
      imageUrl: value.registry_config.image_url,
      name: value.resource_private_name,
      hours: value.duration_hours,
      amountPaid: amount,
      ending: null,
    });
    for (const [index, { machine }] of made.entries()) {
      const plan = bootPlan(world, createRandom(seedOf(settings.seed, `ionet-boot-${number}-${index}`)), 'ionet');
      await machine.start(plan.bootMs, plan.failure);
    }
    return json(200, { status: 'deployment requested', deployment_id: id });
  };

  const byId = (handle: (it: Deployment, request: Request) => Reply | Promise<Reply>) => (request: Request) => {
    const it = deployments.get(request.params[0] ?? '');
    return it ? handle(it, request) : detail(404, 'Not found');
  };

  const replicas = (request: Request): Reply => {
    const id = integer(request, 'hardware_id', 0);
    if (typeof id !== 'number') return id;
    const quantity = integer(request, 'hardware_qty', 1);
    if (typeof quantity !== 'number') return quantity;
    const rows = pools
      .filter((pool) => pool.hardware.id === id)
      .map(({ place, free }) => ({
        id: place.id,
        iso2: place.iso2,
        name: place.name,
        available_replicas: Math.floor(free / quantity),
      }));
    return data(rows);
  };

  const price = (request: Request): Reply => {
    const numbers: Record<string, number> = {};
    for (const name of ['hardware_id', 'duration_hours', 'gpus_per_container', 'replica_count']) {
      const value = integer(request, name, name === 'hardware_id' ? 0 : 1);
      if (typeof value !== 'number') return value;
      numbers[name] = value;
    }
    const ids = z
      .array(z.number().int())
      .min(1)
      .safeParse(parseJson(request.query.get('location_ids') ?? ''));
    if (!ids.success) {
      return unprocessable([
        { loc: ['query', 'location_ids'], msg: 'Input should be a valid list of integers', type: 'list_type' },
      ]);
    }
    const hard = hardware.find((it) => it.id === numbers.hardware_id);
    if (!hard) return detail(404, 'Hardware not found');
    const { duration_hours: hours = 1, gpus_per_container: gpus = 1, replica_count: count = 1 } = numbers;
    return data({
      replica_count: count,
      gpus_per_container: gpus,
      available_replica_count: ids.data.map((place) =>
        pools
          .filter((pool) => pool.hardware === hard && pool.place.id === place)
          .reduce((sum, pool) => sum + Math.floor(pool.free / gpus), 0),
      ),
      discount: 0,
      ionet_fee: 0,
      ionet_fee_percent: 0,
      currency_conversion_fee: 0,
      currency_conversion_fee_percent: 0,
      total_cost_usdc: usd(hard, gpus * count, hours),
    });
  };

  /** The public lists name hardware by text; prices are for the whole configuration. */
  const publicRows = (withReplicas: boolean) => {
    const rows = pools.map((pool) => {
      const { card } = pool.hardware;
      const deployId = `1${card.vast.replaceAll(' ', '')}.${Math.round(card.vramMb / 1024)}G.24V`;
      return {
        id: `${deployId}__${pool.place.iso2}`,
        deploy_id: deployId,
        name: pool.hardware.name,
        num_cards: 1,
        supplier: 'external',
        sold_out: pool.free === 0,
        price: usd(pool.hardware, 1, 1),
        vram_per_card: Math.round(card.vramMb / 1024),
        interconnect: card.interconnect,
        nvlink: card.interconnect !== 'pcie',
        storage: 500,
        vcpu: 24,
        memory: 96,
        location: pool.place.iso2,
        ...(withReplicas ? { brand_name: 'NVIDIA', available_replicas: pool.free } : {}),
      };
    });
    const [first] = rows;
    // Empty rows occur in the real list.
    return first ? [...rows, { ...first, id: 'unknown__US', deploy_id: 'unknown', num_cards: 0, price: 0 }] : rows;
  };

  const hardwareList = (): Reply => {
    const rows = hardware.map((it) => ({
      hardware_id: it.id,
      hardware_name: it.name,
      brand_name: 'NVIDIA',
      max_gpus_per_container: it.largest,
      available: pools.filter((pool) => pool.hardware === it).reduce((sum, pool) => sum + pool.free, 0),
    }));
    return data({ hardware: rows, total: rows.length });
  };

  const locationList = (): Reply => {
    const rows = locations.map((place) => ({
      id: place.id,
      name: place.name,
      iso2: place.iso2.toLowerCase(),
      region: place.region,
      country: place.name,
      available: pools.filter((pool) => pool.place === place).reduce((sum, pool) => sum + pool.free, 0),
    }));
    return data({ locations: rows, total: rows.length });
  };

  const listDeployments = (request: Request): Reply => {
    const { query } = request;
    const status = query.get('status');
    if (status !== null && !statuses.includes(status.toLowerCase())) {
      return unprocessable([{ loc: ['query', 'status'], msg: `Input should be one of ${statuses}`, type: 'enum' }]);
    }
    const page = query.has('page') ? integer(request, 'page', 0) : 0;
    if (typeof page !== 'number') return page;
    const size = query.has('page_size') ? integer(request, 'page_size', 1) : 10;
    if (typeof size !== 'number') return size;
    if (size > 100) {
      return unprocessable([
        { loc: ['query', 'page_size'], msg: 'Input should be less than or equal to 100', type: 'less_than_equal' },
      ]);
    }
    const rows = [...deployments.values()]
      .reverse()
      .filter((it) => status === null || statusOf(it) === status.toLowerCase());
    return data({
      deployments: rows.slice(page * size, (page + 1) * size).map((it) => summary(world, it)),
      total: rows.length,
      statuses,
    });
  };

  const logStream = (it: Deployment, request: Request): Reply => {
    const replica = it.replicas.find(({ containerId }) => containerId === request.params[1]);
    if (!replica) return detail(404, 'Not found');
    const stream = request.query.get('stream') ?? 'stdout';
    if (stream !== 'stdout' && stream !== 'stderr') {
      return unprocessable([{ loc: ['query', 'stream'], msg: "Input should be 'stdout' or 'stderr'", type: 'enum' }]);
    }
    return {
      status: 200,
      body: '',
      headers: { 'Content-Type': 'text/event-stream' },
      stream(response) {
        let line = 0;
        const write = () => {
          const { machine } = replica;
          const said =
            machine.port === null
              ? `pulling ${it.imageUrl}`
              : `GET /health 200, running ${machine.server?.stats.active}`;
          response.write(`data: ${naive(Date.now())} ${stream} ${++line} ${said}\n\n`);
        };
        for (let i = 0; i < 20; i++) write();
        const timer = setInterval(write, 250);
        response.once('close', () => clearInterval(timer));
      },
    };
  };

  const enterprise = '/enterprise/v1/io-cloud/caas';
  const open = '/v1/io-cloud/caas';
  const route = (
    method: string,
    path: string,
    name: string,
    handle: Route['handle'],
    key: Route['key'] = 'required',
  ): Route => ({ method, pattern: pathPattern(path), name, key, handle });

  const free = (): number => pools.reduce((sum, pool) => sum + pool.free, 0);

  const routes: readonly Route[] = [
    route('GET', `${enterprise}/hardware/max-gpus-per-container`, 'hardware', hardwareList),
    route('GET', `${enterprise}/available-replicas`, 'replicas', replicas),
    route('GET', `${enterprise}/price`, 'price', price),
    ...[enterprise, open].map((prefix) => route('GET', `${prefix}/locations`, 'locations', locationList, 'optional')),
    route('GET', `${open}/hardware`, 'public_hardware', () => data({ hardware: publicRows(true) }), 'none'),
    route('GET', '/v1/io-cloud/vmaas/hardware', 'public_hardware', () => data({ hardware: publicRows(false) }), 'none'),
    route('GET', `${enterprise}/clusters/check_cluster_name_availability`, 'name', (request) => {
      const name = request.query.get('cluster_name');
      if (name === null) {
        return unprocessable([{ loc: ['query', 'cluster_name'], msg: 'Field required', type: 'missing' }]);
      }
      return json(200, !nameTaken(name));
    }),
    route(
      'PUT',
      `${enterprise}/clusters/:/update-name`,
      'update',
      byId((it, request) => {
        const parsed = parseBody(request, renameBody);
        if ('status' in parsed) return parsed;
        if (nameTaken(parsed.value.cluster_name)) return detail(400, 'Cluster name is already in use');
        it.name = parsed.value.cluster_name;
        return json(200, { status: 'success', message: 'Cluster name updated successfully' });
      }),
    ),
    route('POST', `${enterprise}/deploy`, 'rent', deploy),
    route('GET', `${enterprise}/deployments`, 'list', listDeployments),
    ...[enterprise, open].flatMap((prefix) => [
      route('GET', `${prefix}/deployment/:/log/:`, 'logs', byId(logStream)),
      route(
        'GET',
        `${prefix}/deployment/:/containers`,
        'containers',
        byId((it) => data(workers(world, it))),
      ),
    ]),
    route(
      'GET',
      `${enterprise}/deployment/:/containers-jobs/:`,
      'containers',
      byId((it) => data(workers(world, it))),
    ),
    route(
      'GET',
      `${enterprise}/deployment/:/container/:`,
      'containers',
      byId((it, request) => {
        const found = workers(world, it).workers.find((worker) => worker.container_id === request.params[1]);
        return found ? data(found) : detail(404, 'Not found');
      }),
    ),
    route(
      'POST',
      `${enterprise}/deployment/:/extend`,
      'extend',
      byId((it, request) => {
        const parsed = parseBody(request, extendBody);
        if ('status' in parsed) return parsed;
        if (it.ending) return detail(400, 'Deployment is not running');
        const amount = usd(it.hardware, it.gpusPerContainer * it.replicas.length, parsed.value.duration_hours);
        if (creditLeft() < amount) return detail(402, 'Insufficient IO credits for this deployment');
        it.hours += parsed.value.duration_hours;
        it.amountPaid = Number((it.amountPaid + amount).toFixed(4));
        return data(details(world, it));
      }),
    ),
    route(
      'GET',
      `${enterprise}/deployment/:`,
      'get',
      byId((it) => data(details(world, it))),
    ),
    route(
      'PATCH',
      `${enterprise}/deployment/:`,
      'update',
      byId((it, request) => {
        const parsed = parseBody(request, patchBody);
        if ('status' in parsed) return parsed;
        const { image_url, registry_username: _user, registry_secret: _secret, ...config } = parsed.value;
        it.config = { ...it.config, ...config };
        if (typeof image_url === 'string') it.imageUrl = image_url;
        return json(200, { status: 'success', deployment_id: it.id });
      }),
    ),
    route(
      'DELETE',
      `${enterprise}/deployment/:`,
      'destroy',
      byId(async (it) => {
        await end(it, 'destroyed');
        return json(200, { status: 'success', deployment_id: it.id });
      }),
    ),
  ];

  return {
    name: 'ionet',
    routes,
    identity: (request) => request.header('x-api-key') ?? '',
    refuse(found, request) {
      const key = request.header('x-api-key');
      if (found.key === 'none' || key === settings.ionetKey) return null;
      if (found.key === 'optional' && key === undefined) return null;
      return detail(401, 'Invalid API key');
    },
    notFound: (allow) => (allow.length > 0 ? detail(405, 'Method Not Allowed') : detail(404, 'Not Found')),
    instances: () =>
      [...deployments.values()]
        .filter((it) => !it.ending)
        .map((it) => {
          const [first] = it.replicas;
          const stats = it.replicas.map(({ machine }) => machine.server?.stats);
          const sum = (of: 'active' | 'queued' | 'served') => stats.reduce((total, one) => total + (one?.[of] ?? 0), 0);
          const port = first?.machine.port ?? null;
          return {
            provider: 'ionet',
            contract: it.id,
            label: it.name,
            status: statusOf(it),
            gpuModel: it.hardware.name,
            gpuCount: it.gpusPerContainer * it.replicas.length,
            usdPerHour: usd(it.hardware, it.gpusPerContainer * it.replicas.length, 1),
            url: port === null ? null : originOf(settings.host, port),
            interruptible: false,
            active: sum('active'),
            queued: sum('queued'),
            served: sum('served'),
          };
        }),
    contracts: () => [...deployments.values()].filter((it) => !it.ending).map((it) => it.id),
    machines: (contract) => (deployments.get(contract)?.replicas ?? []).map(({ machine }) => machine),
    ledger: () =>
      [...deployments.values()].map(
        (it): LedgerEntry => ({
          provider: 'ionet',
          contract: it.id,
          label: it.name,
          offer: String(it.hardware.id),
          gpuModel: it.hardware.name,
          gpuCount: it.gpusPerContainer * it.replicas.length,
          usdPerHour: usd(it.hardware, it.gpusPerContainer * it.replicas.length, 1),
          createdAt: it.createdAt,
          destroyedAt: it.ending?.at ?? null,
          chargedUsd: chargedUsd(world, it),
        }),
      ),
    rentable: free,
    async act(kind: InstanceFault['kind'], id) {
      const it = deployments.get(id);
      if (!it || it.ending) return;
      if (kind === 'expire') await end(it, 'completed');
      else if (kind === 'exit') await end(it, 'failed');
      else if (kind === 'offline' || kind === 'online') {
        for (const { machine } of it.replicas) machine.setOffline(kind === 'offline');
      }
    },
    vanish(offer, count) {
      const open = () => pools.filter((pool) => pool.free > 0);
      if (offer !== undefined) for (const pool of pools) if (String(pool.hardware.id) === offer) pool.free = 0;
      for (let i = 0; offer === undefined && i < count && open().length > 0; i++) random.pick(open()).free--;
    },
    reprice(factor) {
      for (const hard of hardware) hard.usdPerGpuHour = Number((hard.usdPerGpuHour * factor).toFixed(4));
    },
    setCredit(usdLeft) {
      credit += usdLeft - creditLeft();
    },
    churn() {
      const from = pools.filter((pool) => pool.free > 0);
      if (from.length === 0) return;
      random.pick(from).free--;
      random.pick(pools).free++;
    },
    async tick() {
      for (const it of deployments.values()) {
        if (!it.ending && hoursServed(world, it) >= it.hours) await end(it, 'completed');
      }
    },
    async close() {
      await Promise.all(
        [...deployments.values()].flatMap((it) => it.replicas.map(({ machine }) => machine.stop('gone'))),
      );
    },
  };
}

/** The same seed names the same deployments. */
function stableUuid(seed: number, number: number): string {
  const random = createRandom(seedOf(seed, `uuid-${number}`));
  const hex = Array.from({ length: 32 }, () => Math.floor(random.next() * 16).toString(16)).join('');
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-4${hex.slice(13, 16)}-a${hex.slice(17, 20)}-${hex.slice(20)}`;
}
