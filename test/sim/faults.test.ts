import { describe, expect, test } from 'vitest';
import { parseFault, parseFaultFlag } from '../../src/sim/faults.ts';
import { type Simulator, startSimulator } from '../../src/sim/simulator.ts';
import { caas, call, fastBoot, ionetClient, one, rentBody, until, vastClient } from './calls.ts';

const withSim = async (
  run: (sim: Simulator, vast: ReturnType<typeof vastClient>, ionet: ReturnType<typeof ionetClient>) => Promise<void>,
  options: Parameters<typeof startSimulator>[0] = {},
) => {
  await using sim = await startSimulator({ ...fastBoot, ...options });
  await run(sim, vastClient(sim), ionetClient(sim));
};

describe.concurrent('the REST control', () => {
  test('adds, lists and removes faults at the control address and at both marketplaces', () =>
    withSim(async (sim, vast) => {
      for (const url of [sim.controlUrl, sim.vastUrl, sim.ionetUrl]) {
        const added = await call(url, 'POST', '/__sim/faults', {
          body: { kind: 'error', provider: 'vast', route: 'list', status: 503 },
        });
        expect(added.status).toBe(201);
        const [{ id }] = added.body.faults as [{ id: string }];
        expect((await vast.send('GET', '/api/v1/instances/')).status).toBe(503);
        const listed = (await call(url, 'GET', '/__sim/faults')).body.faults;
        expect(listed).toMatchObject([{ id, kind: 'error', hits: 1 }]);
        expect((await call(url, 'DELETE', `/__sim/faults/${id}`)).status).toBe(200);
        expect((await call(url, 'DELETE', `/__sim/faults/${id}`)).status).toBe(404);
        expect((await vast.send('GET', '/api/v1/instances/')).status).toBe(200);
      }
    }));

  test('takes a list, and clears all', () =>
    withSim(async (sim, vast) => {
      await call(sim.controlUrl, 'POST', '/__sim/faults', {
        body: [
          { kind: 'rate_limit', times: 5 },
          { kind: 'latency', ms: 1 },
        ],
      });
      expect(sim.faults.list()).toHaveLength(2);
      expect((await vast.send('GET', '/api/v1/instances/')).status).toBe(429);
      await call(sim.controlUrl, 'DELETE', '/__sim/faults');
      expect(sim.faults.list()).toEqual([]);
    }));

  test('shows the instances, the ledger and the calls', () =>
    withSim(async (sim, vast) => {
      const id = await vast.rent();
      const get = async (path: string) => (await call(sim.controlUrl, 'GET', `/__sim/${path}`)).body;
      expect((await get('')).instances).toBe(1);
      expect((await get('instances')).instances).toMatchObject([{ contract: String(id), status: 'running' }]);
      expect((await get('ledger')).contracts).toMatchObject([{ contract: String(id), label: 'test-1' }]);
      expect((await get('calls')).calls).toMatchObject([
        { route: 'search', status: 200 },
        { route: 'rent', status: 200, method: 'PUT' },
      ]);
      expect((await call(sim.controlUrl, 'GET', '/__sim/nothing')).status).toBe(404);
    }));

  test('describes every fault as a JSON schema', () =>
    withSim(async (sim) => {
      const { oneOf } = (await call(sim.controlUrl, 'GET', '/__sim/faults/schema')).body as unknown as {
        oneOf: { properties: { kind: { const: string } } }[];
      };
      const kinds = oneOf.map(({ properties }) => properties.kind.const);
      expect(kinds).toEqual(expect.arrayContaining(['latency', 'lose_answer', 'outbid', 'gpu_reset']));
    }));

  test('says what is wrong with a fault', () =>
    withSim(async (sim) => {
      for (const [body, words] of [
        [{ kind: 'earthquake' }, ['kind', 'earthquake', 'latency']],
        [{ kind: 'latency' }, ['ms']],
        [{ kind: 'latency', ms: 1, provider: 'runpod' }, ['provider', 'vast']],
        [{ kind: 'reset', tiems: 2 }, ['tiems']],
        [null, ['kind']],
        ['{"kind":', ['JSON']],
      ] as const) {
        const answer = await call(sim.controlUrl, 'POST', '/__sim/faults', { body });
        expect(answer.status).toBe(400);
        for (const word of words) expect(answer.body.error).toContain(word);
      }
      expect(sim.faults.list()).toEqual([]);
    }));
});

test('a flag reads like the object', () => {
  expect(parseFaultFlag('latency,ms=500,route=rent,probability=0.5')).toEqual(
    parseFault({ kind: 'latency', ms: 500, route: 'rent', probability: 0.5 }),
  );
  expect(parseFaultFlag('outbid,instance=31000002')).toEqual({ kind: 'outbid', instance: '31000002' });
  expect(() => parseFaultFlag('latency,ms')).toThrow('key=value');
  expect(() => parseFaultFlag('nonsense')).toThrow('accepts one of');
  expect(() => parseFaultFlag('latency,ms=1,route=serach')).toThrow(/^route: .*search/);
});

describe.concurrent('on an API', () => {
  test('latency delays, and only the calls it names', () =>
    withSim(async (sim, vast, ionet) => {
      sim.faults.add({ kind: 'latency', ms: 900, provider: 'vast', route: 'list' });
      const timed = async (work: Promise<unknown>) => {
        const started = performance.now();
        await work;
        return performance.now() - started;
      };
      expect(await timed(vast.send('GET', '/api/v1/instances/'))).toBeGreaterThan(890);
      expect(await timed(ionet.send('GET', `${caas}/deployments`))).toBeLessThan(890);
      expect(one(sim.faults.list()).hits).toBe(1);
    }));

  test('rate limits come in three forms and never with Retry-After', () =>
    withSim(async (sim, vast) => {
      const seen: string[] = [];
      for (const form of ['text', 'detail', 'error'] as const) {
        sim.faults.add({ kind: 'rate_limit', form, times: 1 });
        const answer = await vast.send('GET', '/api/v1/instances/');
        expect(answer.status).toBe(429);
        expect(answer.headers.has('retry-after')).toBe(false);
        expect(answer.text).toContain('API requests too frequent');
        seen.push(Object.keys(answer.body).join());
      }
      expect(seen).toEqual(['', 'detail', 'success,error,msg']);
    }));

  test('errors, resets, hangs and garbage', () =>
    withSim(async (sim, vast) => {
      const list = () => vast.send('GET', '/api/v1/instances/');
      sim.faults.add({ kind: 'error', status: 502, times: 1 });
      const html = await list();
      expect([html.status, html.type]).toEqual([502, 'text/html']);
      sim.faults.add({ kind: 'error', status: 500, body: { error: 'custom' }, times: 1 });
      expect((await list()).body).toEqual({ error: 'custom' });
      sim.faults.add({ kind: 'reset', times: 1 });
      await expect(list()).rejects.toThrow();
      sim.faults.add({ kind: 'hang', times: 1 });
      await expect(fetch(`${sim.vastUrl}/api/v1/instances/`, { signal: AbortSignal.timeout(150) })).rejects.toThrow(
        'timeout',
      );
      sim.faults.add({ kind: 'garbage', how: 'truncate', times: 1 });
      await expect(list()).rejects.toThrow();
      sim.faults.add({ kind: 'garbage', how: 'empty', times: 1 });
      expect(await list()).toMatchObject({ status: 200, text: '' });
      sim.faults.add({ kind: 'garbage', how: 'html', times: 1 });
      expect((await list()).type).toBe('text/html');
      sim.faults.add({ kind: 'garbage', how: 'wrong_shape', times: 1 });
      expect((await list()).body.instances).toBeUndefined();
      expect((await list()).status).toBe(200);
    }));

  test.each(['reset', 'hang', 'error', 'truncate'] as const)(
    'the answer to the paid call is lost by %s, with or without a rental behind it',
    (how) =>
      withSim(async (sim, vast, ionet) => {
        const lost = async (work: (signal: AbortSignal) => Promise<Response>) => {
          let status = 0;
          try {
            const answer = await work(AbortSignal.timeout(150));
            await answer.text();
            status = answer.status;
          } catch {
            // No answer, or half of one.
          }
          expect(status).toBe(how === 'error' ? 502 : 0);
        };
        const { id } = await vast.ask();
        const { hardware, location } = await ionet.place();
        const rentVast = (signal: AbortSignal) =>
          fetch(`${sim.vastUrl}/api/v0/asks/${id}/`, {
            method: 'PUT',
            headers: { Authorization: `Bearer ${sim.vastKey}` },
            body: JSON.stringify(rentBody({ label: 'mine' })),
            signal,
          });
        const rentIonet = (signal: AbortSignal) =>
          fetch(`${sim.ionetUrl}${caas}/deploy`, {
            method: 'POST',
            headers: { 'x-api-key': sim.ionetKey },
            body: JSON.stringify({
              resource_private_name: 'mine',
              duration_hours: 1,
              gpus_per_container: 1,
              hardware_id: hardware,
              location_ids: [location],
              container_config: { replica_count: 1 },
              registry_config: { image_url: 'x' },
            }),
            signal,
          });
        sim.faults.add({ kind: 'lose_answer', how, when: 'before', times: 2 });
        await lost(rentVast);
        await lost(rentIonet);
        expect(sim.ledger()).toEqual([]);
        sim.faults.add({ kind: 'lose_answer', how, times: 2 });
        await lost(rentVast);
        await lost(rentIonet);
        expect(sim.ledger().map((row) => [row.provider, row.label])).toEqual([
          ['vast', 'mine'],
          ['ionet', 'mine'],
        ]);
        expect(sim.faults.list()).toEqual([]);
      }),
  );

  test('strike as often as their probability says, the same for the same seed', () =>
    withSim(async (sim, vast) => {
      const run = async () => {
        const statuses: number[] = [];
        for (let i = 0; i < 40; i++) statuses.push((await vast.send('GET', '/api/v0/users/current')).status);
        return statuses;
      };
      sim.faults.add({ kind: 'error', probability: 0.4 });
      const first = await run();
      expect(new Set(first)).toEqual(new Set([200, 503]));
      await using twin = await startSimulator({ ...fastBoot });
      twin.faults.add({ kind: 'error', probability: 0.4 });
      const second: number[] = [];
      for (let i = 0; i < 40; i++) second.push((await vastClient(twin).send('GET', '/api/v0/users/current')).status);
      expect(second).toEqual(first);
    }));

  test('end with their time', () =>
    withSim(async (sim, vast) => {
      sim.faults.add({ kind: 'error', forMs: 150 });
      expect((await vast.search()).status).toBe(503);
      await until(
        () => vast.search(),
        (answer) => answer.status === 200,
      );
      expect(sim.faults.list()).toEqual([]);
    }));

  test('given as options they stand from the start', () =>
    withSim(
      async (_sim, vast) => {
        expect((await vast.search()).status).toBe(500);
      },
      { faults: [{ kind: 'error', route: 'search', status: 500 }] },
    ));
});

describe.concurrent('on offers', () => {
  test('vanished ones are in no list and cannot be rented', () =>
    withSim(async (sim, vast) => {
      const { id } = await vast.ask();
      sim.faults.add({ kind: 'vanish_offers', provider: 'vast', offer: String(id) });
      expect((await vast.search({ ask_contract_id: { eq: id } })).body.offers).toEqual([]);
      expect((await vast.send('PUT', `/api/v0/asks/${id}/`, rentBody())).body.msg).toContain('no_such_ask');
      const before = sim.rentable();
      sim.faults.add({ kind: 'vanish_offers', count: 5 });
      expect(sim.rentable()).toEqual({ vast: before.vast - 5, ionet: before.ionet - 5 });
    }));

  test('stale ones are listed, but gone for who rents them', () =>
    withSim(async (sim, vast, ionet) => {
      sim.faults.add({ kind: 'stale_offers', times: 2 });
      const { id } = await vast.ask();
      expect((await vast.send('PUT', `/api/v0/asks/${id}/`, rentBody())).body.msg).toContain('no_such_ask');
      expect((await ionet.deploy()).status).toBe(400);
      expect((await ionet.deploy()).status).toBe(200);
    }));

  test('prices rise', () =>
    withSim(async (sim, vast) => {
      const ask = await vast.ask();
      sim.faults.add({ kind: 'reprice', provider: 'vast', factor: 2 });
      const [again] = (await vast.search({ ask_contract_id: { eq: ask.id } })).body.offers;
      expect(again?.dph_base).toBeCloseTo(ask.dph_base * 2, 3);
    }));

  test('churn changes ids, not how many there are', () =>
    withSim(
      async (sim, vast) => {
        const ids = async () =>
          (await vast.search({ direct_port_count: { gte: 1 } })).body.offers.map((offer) => offer.id).join();
        const before = await ids();
        await until(ids, (now) => now !== before);
        expect(sim.rentable()).toEqual({ vast: 42, ionet: 28 });
      },
      { churnPerMinute: 1200 },
    ));
});

test('accidents happen to instances when asked for', () =>
  withSim(
    async (sim, vast) => {
      await vast.rent();
      await until(
        async () => one(sim.instances()).status,
        (status) => status !== 'running',
      );
    },
    { accidentsPerHour: 7200 },
  ));

test('a random instance is one that exists, and stays the same one', () =>
  withSim(async (sim, vast) => {
    const ids = [await vast.rent(), await vast.rent()].map(String);
    const fault = sim.faults.add({ kind: 'gpu_error', instance: 'random' });
    expect(ids).toContain('instance' in fault ? fault.instance : '');
  }));

test('wrong options are named', async () => {
  await expect(startSimulator({ seed: 1.5 })).rejects.toThrow('seed');
  await expect(startSimulator({ bootMs: { min: 9, max: 1 } })).rejects.toThrow('min must not be above max');
  await using sim = await startSimulator();
  const port = Number(new URL(sim.vastUrl).port);
  await expect(startSimulator({ ports: { vast: port } })).rejects.toThrow('EADDRINUSE');
});
