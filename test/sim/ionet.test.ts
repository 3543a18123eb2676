import { describe, expect, test } from 'vitest';
import { type Simulator, startSimulator } from '../../src/sim/simulator.ts';
import { caas, call, fastBoot, ionetClient, one, type Row, until } from './calls.ts';

const withSim = async (
  options: Parameters<typeof startSimulator>[0],
  run: (ionet: ReturnType<typeof ionetClient>, sim: Simulator) => Promise<void>,
) => {
  await using sim = await startSimulator(options);
  await run(ionetClient(sim), sim);
};
const container = { replica_count: 1, traffic_port: 8000 };

describe.concurrent('what can be rented', () => {
  test('hardware, places with stock and prices make 28 single-GPU instances by default', () =>
    withSim({}, async (ionet, sim) => {
      const { hardware, total } = await ionet.data<{ hardware: Row[]; total: number }>(
        '/hardware/max-gpus-per-container',
      );
      expect(total).toBe(hardware.length);
      let stock = 0;
      for (const card of hardware) {
        const path = `/available-replicas?hardware_id=${card.hardware_id}&hardware_qty=1`;
        for (const row of await ionet.data<Row[]>(path)) {
          expect(row).toEqual({
            id: expect.any(Number),
            iso2: expect.stringMatching(/^[A-Z]{2}$/),
            name: expect.any(String),
            available_replicas: expect.any(Number),
          });
          stock += row.available_replicas;
        }
      }
      expect(stock).toBe(28);
      expect(sim.rentable().ionet).toBe(28);
    }));

  test('the price is for all hours, GPUs and replicas together', () =>
    withSim({}, async (ionet) => {
      const { hardware, location } = await ionet.place();
      const price = async (hours: number, gpus: number, replicas: number) =>
        (
          await ionet.data<{ total_cost_usdc: number }>(
            `/price?location_ids=${encodeURIComponent(`[${location}]`)}&hardware_id=${hardware}` +
              `&duration_hours=${hours}&gpus_per_container=${gpus}&replica_count=${replicas}`,
          )
        ).total_cost_usdc;
      const single = await price(1, 1, 1);
      expect(single).toBeGreaterThan(0);
      expect(await price(24, 2, 3)).toBeCloseTo(single * 144, 2);
    }));

  test('the public lists need no key, name hardware by text and have empty rows', () =>
    withSim({}, async (_ionet, sim) => {
      for (const path of ['/v1/io-cloud/caas/hardware', '/v1/io-cloud/vmaas/hardware']) {
        const rows = (await call(sim.ionetUrl, 'GET', path)).body.data as { hardware: Row[] };
        expect(rows.hardware.every((row) => typeof row.id === 'string')).toBe(true);
        expect(rows.hardware.some((row) => row.price === 0 && row.num_cards === 0)).toBe(true);
        expect(rows.hardware.some((row) => row.vram_per_card === 80)).toBe(true);
      }
      const places = (await call(sim.ionetUrl, 'GET', '/v1/io-cloud/caas/locations')).body.data;
      expect(places).toMatchObject({ total: expect.any(Number) });
    }));
});

test('a wrong key is refused with a text in detail', () =>
  withSim({}, async (_ionet, sim) => {
    const answer = await ionetClient(sim, 'wrong').send('GET', `${caas}/deployments`);
    expect([answer.status, answer.body.detail]).toEqual([401, 'Invalid API key']);
    expect((await call(sim.ionetUrl, 'GET', `${caas}/deployments`)).status).toBe(401);
  }));

describe.concurrent('validation', () => {
  test('answers 422 with the place, the message and the type of each problem', () =>
    withSim(fastBoot, async (ionet) => {
      const cases: [Record<string, unknown>, unknown][] = [
        [{ duration_hours: 0 }, { loc: ['body', 'duration_hours'] }],
        [{ gpus_per_container: 1.5 }, { loc: ['body', 'gpus_per_container'] }],
        [{ location_ids: [] }, { loc: ['body', 'location_ids'] }],
        [{ resource_private_name: undefined }, { loc: ['body', 'resource_private_name'], type: 'missing' }],
        [{ disk_gb: 10 }, { loc: ['body', 'disk_gb'], type: 'extra_forbidden' }],
        [
          { container_config: { ...container, ports: [1] } },
          { loc: ['body', 'container_config', 'ports'], type: 'extra_forbidden' },
        ],
        [{ registry_config: {} }, { loc: ['body', 'registry_config', 'image_url'], type: 'missing' }],
      ];
      for (const [change, problem] of cases) {
        const answer = await ionet.deploy(change);
        expect(answer.status).toBe(422);
        const problems = answer.body.detail as unknown[];
        expect(problems).toContainEqual({ msg: expect.any(String), type: expect.any(String), ...(problem as object) });
      }
      const query = await ionet.send('GET', `${caas}/available-replicas?hardware_id=x&hardware_qty=1`);
      expect(query.body.detail).toEqual([
        { loc: ['query', 'hardware_id'], msg: 'Input should be a valid integer', type: 'int_parsing' },
      ]);
      expect((await ionet.send('GET', `${caas}/deployments?page_size=101`)).status).toBe(422);
      expect((await ionet.send('POST', `${caas}/deploy`, '{')).status).toBe(422);
    }));

  test('a patch takes fields on top, not in a container_config', () =>
    withSim(fastBoot, async (ionet) => {
      const id = (await ionet.deploy()).body.deployment_id;
      const wrapped = await ionet.send('PATCH', `${caas}/deployment/${id}`, { container_config: { traffic_port: 1 } });
      expect(wrapped.status).toBe(422);
      expect(wrapped.body.detail).toMatchObject([{ type: 'extra_forbidden' }]);
      const flat = await ionet.send('PATCH', `${caas}/deployment/${id}`, { env_variables: { B: 'c' } });
      expect(flat.body).toEqual({ status: expect.any(String), deployment_id: id });
      expect((await ionet.get(id)).container_config).toMatchObject({ env_variables: { B: 'c' }, traffic_port: 8000 });
    }));
});

describe.concurrent('deployments', () => {
  test('reads are wrapped in data, writes are not; times have no zone', () =>
    withSim(fastBoot, async (ionet) => {
      const made = await ionet.deploy();
      expect(made.status).toBe(200);
      expect(made.body).toEqual({
        status: expect.any(String),
        deployment_id: expect.stringMatching(/^[0-9a-f-]{36}$/),
      });
      const id = made.body.deployment_id;
      const list = await ionet.data<{ deployments: Row[]; total: number; statuses: string[] }>('/deployments');
      expect(list.total).toBe(1);
      expect(one(list.deployments)).toMatchObject({ id, name: 'test-1', compute_minutes_remaining: 60 });
      expect(one(list.deployments).created_at).toMatch(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}$/);
      const details = await ionet.get(id);
      expect(Object.keys(details).sort()).toEqual(
        [
          'id status created_at started_at finished_at amount_paid completed_percent total_gpus gpus_per_container',
          'total_containers hardware_name hardware_id locations brand_name compute_minutes_served',
          'compute_minutes_remaining container_config',
        ]
          .join(' ')
          .split(' ')
          .sort(),
      );
      expect(await ionet.send('GET', `${caas}/deployment/nonsense`)).toMatchObject({ status: 404 });
    }));

  test('runs for a while before its public_url is known, and the url serves some time after that', () =>
    withSim({ bootMs: { min: 1000, max: 1000 } }, async (ionet) => {
      const id = (await ionet.deploy()).body.deployment_id;
      expect((await ionet.get(id)).status).toBe('deployment requested');
      expect((await ionet.get(id)).started_at).toBeNull();
      let nullWhileRunning = false;
      const worker = await until(
        async () => {
          const { status } = await ionet.get(id);
          const row = one(await ionet.workers(id));
          if (status === 'running' && row.public_url === null) nullWhileRunning = true;
          return row;
        },
        (row) => row.public_url !== null,
      );
      expect(nullWhileRunning).toBe(true);
      await until(
        () =>
          fetch(`${worker.public_url}/health`).then(
            (answer) => answer.status,
            () => 0,
          ),
        (status) => status === 200,
      );
    }));

  test('each replica has an address of its own', () =>
    withSim(fastBoot, async (ionet) => {
      const { hardware } = await ionet.data<{ hardware: Row[] }>('/hardware/max-gpus-per-container');
      for (const card of hardware) {
        const rows = await ionet.data<Row[]>(`/available-replicas?hardware_id=${card.hardware_id}&hardware_qty=1`);
        const place = rows.find((row) => row.available_replicas >= 2);
        if (!place) continue;
        const { body } = await ionet.deploy({
          hardware_id: card.hardware_id,
          location_ids: [place.id],
          container_config: { ...container, replica_count: 2 },
        });
        const urls = (await ionet.workers(body.deployment_id)).map((row) => row.public_url);
        expect(new Set(urls).size).toBe(2);
        return;
      }
      throw new Error('nowhere are two replicas to be had');
    }));

  test('names are unique among what lives, and free again afterwards', () =>
    withSim(fastBoot, async (ionet) => {
      const free = () => ionet.send('GET', `${caas}/clusters/check_cluster_name_availability?cluster_name=test-1`);
      expect((await free()).text).toBe('true');
      const id = (await ionet.deploy()).body.deployment_id;
      expect((await free()).text).toBe('false');
      const second = await ionet.deploy();
      expect([second.status, second.body.detail]).toEqual([400, 'Cluster name is already in use']);
      const renamed = await ionet.send('PUT', `${caas}/clusters/${id}/update-name`, { cluster_name: 'other' });
      expect(renamed.body).toMatchObject({ status: expect.any(String), message: expect.any(String) });
      expect((await free()).text).toBe('true');
    }));

  test('stock shrinks with each deployment and comes back; without stock and money it is a 4xx with a text', () =>
    withSim(fastBoot, async (ionet, sim) => {
      const { hardware, location, stock } = await ionet.place();
      const change = { hardware_id: hardware, location_ids: [location] };
      const ids: string[] = [];
      for (let i = 0; i < stock; i++) {
        ids.push((await ionet.deploy({ ...change, resource_private_name: `n${i}` })).body.deployment_id);
      }
      const none = await ionet.deploy({ ...change, resource_private_name: 'one-more' });
      expect([none.status, typeof none.body.detail]).toEqual([400, 'string']);
      await ionet.send('DELETE', `${caas}/deployment/${ids[0]}`);
      sim.faults.add({ kind: 'credit', provider: 'ionet', usd: 0 });
      const poor = await ionet.deploy({ ...change, resource_private_name: 'poor' });
      expect([poor.status, typeof poor.body.detail]).toEqual([402, 'string']);
      sim.faults.add({ kind: 'credit', provider: 'ionet', usd: 100 });
      expect((await ionet.deploy({ ...change, resource_private_name: 'back' })).status).toBe(200);
    }));

  test('a deletion passes through termination requested; repeating it is no error', () =>
    withSim(fastBoot, async (ionet) => {
      const id = (await ionet.deploy()).body.deployment_id;
      const url = one(await ionet.workers(id)).public_url;
      const gone = await ionet.send('DELETE', `${caas}/deployment/${id}`);
      expect(gone.body).toEqual({ status: expect.any(String), deployment_id: id });
      expect((await ionet.get(id)).status).toBe('termination requested');
      await until(
        () => ionet.get(id),
        (row) => row.status === 'destroyed',
      );
      await expect(fetch(`${url}/health`)).rejects.toThrow();
      expect((await ionet.send('DELETE', `${caas}/deployment/${id}`)).status).toBe(200);
      const list = await ionet.data<{ deployments: Row[] }>('/deployments?status=destroyed');
      expect(list.deployments.map((row) => row.id)).toEqual([id]);
      const running = await ionet.data<{ deployments: Row[] }>('/deployments?status=running');
      expect(running.deployments).toEqual([]);
    }));

  test('there is no start and no stop', () =>
    withSim(fastBoot, async (ionet) => {
      const id = (await ionet.deploy()).body.deployment_id;
      for (const action of ['start', 'stop', 'pause']) {
        expect((await ionet.send('POST', `${caas}/deployment/${id}/${action}`, {})).status).toBe(404);
      }
    }));

  test('prepaid time runs out unless it is extended', () =>
    withSim({ ...fastBoot, timeScale: 3600 / 0.6 }, async (ionet, sim) => {
      const short = (await ionet.deploy({ resource_private_name: 'short' })).body.deployment_id;
      const long = (await ionet.deploy({ resource_private_name: 'long' })).body.deployment_id;
      const paid = (await ionet.get(long)).amount_paid as number;
      const more = await ionet.send('POST', `${caas}/deployment/${long}/extend`, { duration_hours: 10 });
      expect((more.body.data as Row).amount_paid).toBeCloseTo(paid * 11, 3);
      expect((more.body.data as Row).compute_minutes_remaining).toBeGreaterThan(60);
      await until(
        () => ionet.get(short),
        (row) => row.status === 'completed',
      );
      expect((await ionet.get(long)).status).toBe('running');
      const rows = sim.ledger();
      expect(rows.find((row) => row.contract === short)).toMatchObject({ chargedUsd: paid });
      expect(rows.find((row) => row.contract === short)?.destroyedAt).toBeGreaterThan(0);
      const late = await ionet.send('POST', `${caas}/deployment/${short}/extend`, { duration_hours: 1 });
      expect(late.status).toBe(400);
    }));

  test('the first hour stays paid, what is left of later ones comes back', () =>
    withSim(fastBoot, async (ionet, sim) => {
      const id = (await ionet.deploy({ duration_hours: 10 })).body.deployment_id;
      const paid = one(sim.ledger()).chargedUsd;
      await ionet.send('DELETE', `${caas}/deployment/${id}`);
      expect(one(sim.ledger()).chargedUsd).toBeCloseTo(paid / 10, 3);
    }));

  test('logs are an endless text stream', () =>
    withSim(fastBoot, async (ionet, sim) => {
      const id = (await ionet.deploy()).body.deployment_id;
      const { container_id } = one(await ionet.workers(id));
      const leave = new AbortController();
      const answer = await fetch(`${sim.ionetUrl}${caas}/deployment/${id}/log/${container_id}?stream=stdout`, {
        headers: { 'x-api-key': sim.ionetKey },
        signal: leave.signal,
      });
      expect(answer.headers.get('content-type')).toBe('text/event-stream');
      let text = '';
      await expect(async () => {
        for await (const part of answer.body as ReadableStream<Uint8Array>) {
          text += Buffer.from(part).toString();
          // More than the first burst: it goes on.
          if (text.split('\n\n').length > 22) leave.abort();
        }
      }).rejects.toThrow();
      expect(text).toMatch(/^data: \S+ stdout 1 /);
    }));

  test('a deployment that exits reads failed', () =>
    withSim(fastBoot, async (ionet, sim) => {
      const id = (await ionet.deploy()).body.deployment_id;
      sim.faults.add({ kind: 'exit', instance: 'ionet' });
      await until(
        () => ionet.get(id),
        (row) => row.status === 'failed',
      );
    }));
});
