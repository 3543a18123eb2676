import type { Simulator } from '../../src/sim/simulator.ts';

type Fields = Readonly<Record<string, unknown>>;

/** A row of any answer: the fields that tests compute with, and whatever else comes. */
export interface Row {
  [field: string]: unknown;
  id: number;
  num_gpus: number;
  gpu_name: string;
  gpu_ram: number;
  dph_total: number;
  dph_base: number;
  min_bid: number;
  storage_cost: number;
  reliability: number;
  cuda_max_good: number;
  geolocation: string | null;
  driver_version: string;
  machine_id: number;
  search: { totalHour: number };
  ports: Record<string, readonly [Binding, Binding]> | null;
  public_ipaddr: string;
  // io.net
  status: string;
  hardware_id: number;
  available: number;
  available_replicas: number;
  container_id: string;
  public_url: string | null;
}
type Binding = Readonly<{ HostIp: string; HostPort: string }>;

/** An answer of either marketplace, as far as tests read it. */
export interface Body {
  [field: string]: unknown;
  offers: Row[];
  instances: Row[];
  new_contract: number;
  new_contracts: number[];
  next_token: string | null;
  msg: string;
  result_url: string;
  credit: number;
  balance: number;
  deployment_id: string;
}
export type Answer = Readonly<{ status: number; type: string | null; headers: Headers; text: string; body: Body }>;

/** One call as a client would make it; a body that is no JSON leaves `body` empty. */
export async function call(
  base: string,
  method: string,
  path: string,
  { key, body, headers = {} }: { key?: Record<string, string>; body?: unknown; headers?: Record<string, string> } = {},
): Promise<Answer> {
  const response = await fetch(base + path, {
    method,
    headers: { ...key, ...headers, ...(body === undefined ? {} : { 'Content-Type': 'application/json' }) },
    ...(body === undefined ? {} : { body: typeof body === 'string' ? body : JSON.stringify(body) }),
  });
  const text = await response.text();
  let parsed = {} as Body;
  try {
    parsed = JSON.parse(text) as Body;
  } catch {
    // Some answers are no JSON on purpose.
  }
  return {
    status: response.status,
    type: response.headers.get('content-type'),
    headers: response.headers,
    text,
    body: parsed,
  };
}

export function vastClient(sim: Simulator, key = sim.vastKey) {
  const send = (method: string, path: string, body?: unknown) =>
    call(sim.vastUrl, method, path, {
      key: { Authorization: `Bearer ${key}` },
      ...(body === undefined ? {} : { body }),
    });
  return {
    send,
    search: (query: Fields = {}) => send('POST', '/api/v0/bundles/', query),
    /** A concrete machine with direct ports. */
    async ask(query: Fields = {}): Promise<Row> {
      const { body } = await send('POST', '/api/v0/bundles/', {
        rentable: { eq: true },
        direct_port_count: { gte: '1' },
        order: [['dph_total', 'asc']],
        ...query,
      });
      const [ask] = body.offers;
      if (!ask) throw new Error('no offer');
      return ask;
    },
    async rent(spec: Fields = {}): Promise<number> {
      const ask = await this.ask();
      const { body } = await send('PUT', `/api/v0/asks/${ask.id}/`, rentBody(spec));
      return body.new_contract;
    },
    get: async (id: number): Promise<Row | null> =>
      (await send('GET', `/api/v0/instances/${id}/`)).body.instances as unknown as Row | null,
  };
}

export const rentBody = (spec: Fields = {}): Fields => ({
  client_id: 'me',
  image: 'vllm/vllm-openai:latest',
  env: { '-p 8000:8000': '1', HF_TOKEN: 'x' },
  disk: 10,
  label: 'test-1',
  runtype: 'args',
  ...spec,
});

export const caas = '/enterprise/v1/io-cloud/caas';

export function ionetClient(sim: Simulator, key = sim.ionetKey) {
  const send = (method: string, path: string, body?: unknown) =>
    call(sim.ionetUrl, method, path, { key: { 'x-api-key': key }, ...(body === undefined ? {} : { body }) });
  const data = async <T>(path: string): Promise<T> => (await send('GET', caas + path)).body.data as T;
  return {
    send,
    /** What stands under `data` in the answer. */
    data,
    /** A hardware and a place with stock. */
    async place(): Promise<{ hardware: number; location: number; stock: number }> {
      const { hardware } = await data<{ hardware: Row[] }>('/hardware/max-gpus-per-container');
      const card = hardware.find((row) => row.available > 0);
      const rows = await data<Row[]>(`/available-replicas?hardware_id=${card?.hardware_id}&hardware_qty=1`);
      const row = rows.find((it) => it.available_replicas > 0);
      if (!card || !row) throw new Error('no stock');
      return { hardware: card.hardware_id, location: row.id, stock: row.available_replicas };
    },
    async deploy(change: Fields = {}): Promise<Answer> {
      const { hardware, location } = await this.place();
      return send('POST', `${caas}/deploy`, {
        resource_private_name: 'test-1',
        duration_hours: 1,
        gpus_per_container: 1,
        hardware_id: hardware,
        location_ids: [location],
        container_config: { replica_count: 1, env_variables: { A: 'b' }, traffic_port: 8000 },
        registry_config: { image_url: 'vllm/vllm-openai:latest' },
        ...change,
      });
    },
    get: (id: string) => data<Row>(`/deployment/${id}`),
    workers: async (id: string) => (await data<{ workers: Row[] }>(`/deployment/${id}/containers`)).workers,
  };
}

/** Outside port of the container's port 8000. */
export function httpPort(row: Row): string {
  const binding = row.ports?.['8000/tcp']?.[0];
  if (!binding) throw new Error('port 8000 is not published');
  return binding.HostPort;
}

/** The row, which must be there. */
export function one<T>(rows: readonly T[], index = 0): T {
  const row = rows.at(index);
  if (row === undefined) throw new Error(`no row ${index} of ${rows.length}`);
  return row;
}

/** Asks until the answer is wanted; fails with the last one after ten seconds. */
export async function until<T>(ask: () => Promise<T>, wanted: (value: T) => boolean): Promise<T> {
  const deadline = performance.now() + 10_000;
  for (;;) {
    const value = await ask();
    if (wanted(value)) return value;
    if (performance.now() > deadline) throw new Error(`still ${JSON.stringify(value)} after ten seconds`);
    await new Promise((resolve) => setTimeout(resolve, 15));
  }
}

export const fastBoot = { bootMs: { min: 0, max: 0 } };
