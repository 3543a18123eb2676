import { describe, expect, test } from 'vitest';
import { type Simulator, startSimulator } from '../../src/sim/simulator.ts';
import { type Answer, call, fastBoot, httpPort, one, type Row, rentBody, until, vastClient } from './calls.ts';

const withSim = async (
  options: Parameters<typeof startSimulator>[0],
  run: (vast: ReturnType<typeof vastClient>, sim: Simulator) => Promise<void>,
) => {
  await using sim = await startSimulator(options);
  await run(vastClient(sim), sim);
};

describe.concurrent('search', () => {
  test('answers with exactly application/json, which the official command line insists on', () =>
    withSim({}, async (vast) => {
      expect((await vast.search()).type).toBe('application/json');
    }));

  test('answers under both paths, with and without the trailing slash, and as GET with q', () =>
    withSim({}, async (vast) => {
      const query = { num_gpus: { eq: 1 }, order: [['dph_total', 'asc']], limit: 3 };
      const ids = (answer: Answer | undefined) => answer?.body.offers.map((offer) => offer.id);
      const answers = await Promise.all([
        vast.send('POST', '/api/v0/bundles/', query),
        vast.send('POST', '/api/v0/bundles', query),
        vast.send('PUT', '/api/v0/search/asks/', { select_cols: ['*'], q: query }),
        vast.send('GET', `/api/v0/bundles/?q=${encodeURIComponent(JSON.stringify(query))}`),
      ]);
      expect(ids(answers[0])).toHaveLength(3);
      for (const answer of answers) expect(ids(answer)).toEqual(ids(answers[0]));
    }));

  test('reads numbers that come as strings', () =>
    withSim({}, async (vast) => {
      const query = (quote: (n: number) => unknown) => ({
        num_gpus: { eq: quote(1) },
        dph_total: { lt: quote(1.5) },
        reliability: { gt: quote(0.95) },
        cuda_max_good: { gte: quote(12.4) },
        gpu_ram: { gte: 20_000.0 },
      });
      const [text, number] = await Promise.all([vast.search(query(String)), vast.search(query((n) => n))]);
      expect(text.text).toBe(number.text);
      expect(text.body.offers.length).toBeGreaterThan(2);
      for (const offer of text.body.offers) {
        expect(offer.num_gpus).toBe(1);
        expect(offer.dph_total).toBeLessThan(1.5);
        expect(offer.reliability).toBeGreaterThan(0.95);
        expect(offer.cuda_max_good).toBeGreaterThanOrEqual(12.4);
        expect(offer.gpu_ram).toBeGreaterThanOrEqual(20_000);
      }
    }));

  test('filters places by country code, names with blanks, and drivers by their numbers', () =>
    withSim({ offers: { vast: 400 } }, async (vast) => {
      const countries = (await vast.search({ geolocation: { in: ['SE', 'DE'] } })).body.offers;
      expect(countries.length).toBeGreaterThan(0);
      for (const offer of countries) expect(offer.geolocation).toMatch(/, (SE|DE)$/);
      const blanks = (await vast.search({ gpu_name: { in: ['RTX 5090', 'H100 SXM'] }, num_gpus: { gte: 2 } })).body
        .offers;
      expect(new Set(blanks.map((offer) => offer.gpu_name))).toEqual(new Set(['RTX 5090', 'H100 SXM']));
      expect((await vast.search({ gpu_name: { eq: 'RTX_4090' } })).body.offers).toEqual([]);
      const drivers = (await vast.search({ driver_version: { gte: '570.86.15' } })).body.offers;
      expect(drivers.length).toBeGreaterThan(0);
      for (const offer of drivers) expect(Number.parseInt(offer.driver_version, 10)).toBeGreaterThanOrEqual(570);
    }));

  test('gives at most 64 offers whatever the limit, and all of them to one who pages by price', () =>
    withSim({ offers: { vast: 300 } }, async (vast, sim) => {
      const first = await vast.search({ limit: 3000 });
      expect(first.body.offers).toHaveLength(64);
      const seen = new Set<number>();
      for (let from = 0, pages = 0; pages < 20; pages++) {
        const { offers } = (
          await vast.search({
            rentable: { eq: true },
            direct_port_count: { gte: 1 },
            dph_total: { gte: from },
            order: [['dph_total', 'asc']],
            limit: 64,
          })
        ).body;
        for (const offer of offers) seen.add(offer.id);
        if (offers.length < 64) break;
        from = one(offers, -1).dph_total;
      }
      expect(seen.size).toBe(sim.rentable().vast);
      expect(seen.size).toBe(300);
    }));

  test('prices bids by min_bid and the disk by allocated_storage', () =>
    withSim({}, async (vast) => {
      const sorted = { order: [['machine_id', 'asc']], limit: 5 };
      const demand = (await vast.search({ ...sorted, type: 'on-demand', allocated_storage: 0 })).body.offers;
      const alias = (await vast.search({ ...sorted, type: 'ondemand', allocated_storage: 0 })).body.offers;
      const bid = (await vast.search({ ...sorted, type: 'bid', allocated_storage: 0 })).body.offers;
      const disk = (await vast.search({ ...sorted, type: 'on-demand', allocated_storage: 720 })).body.offers;
      expect(alias).toEqual(demand);
      for (const [index, offer] of demand.entries()) {
        expect(offer.dph_total).toBeCloseTo(offer.dph_base, 5);
        expect(offer.search.totalHour).toBe(offer.dph_total);
        expect(one(bid, index).dph_total).toBeCloseTo(offer.min_bid, 5);
        expect(one(bid, index).is_bid).toBe(true);
        expect(one(disk, index).dph_total).toBeCloseTo(offer.dph_base + offer.storage_cost, 4);
      }
    }));

  test('has nominal memory, rows with nulls, and an id filter that matches nothing', () =>
    withSim({ offers: { vast: 500 } }, async (vast) => {
      const rows: Row[] = [];
      for (const gpu_name of ['RTX 4090', 'RTX 3090', 'A100 SXM4', 'H100 SXM']) {
        rows.push(...(await vast.search({ gpu_name: { eq: gpu_name } })).body.offers);
      }
      expect(rows.find((row) => row.gpu_name === 'RTX 4090')?.gpu_ram).toBe(24_564);
      expect(rows.find((row) => row.gpu_name === 'H100 SXM')?.gpu_ram).toBe(81_559);
      for (const field of ['cpu_cores', 'geolocation', 'driver_version', 'dlperf']) {
        expect(rows.some((row) => row[field] === null)).toBe(true);
        expect(rows.some((row) => row[field] !== null)).toBe(true);
      }
      const { id } = rows[0] as Row;
      expect((await vast.search({ id: { eq: id } })).body.offers).toEqual([]);
      expect((await vast.search({ ask_contract_id: { eq: id } })).body.offers).toHaveLength(1);
    }));

  test('refuses a query it cannot read with 400 invalid_request', () =>
    withSim({}, async (vast) => {
      const answers = await Promise.all([
        vast.send('POST', '/api/v0/bundles/', '{"num_gpus":'),
        vast.search({ no_such_field: { eq: 1 } }),
        vast.search({ num_gpus: { about: 1 } }),
        vast.search({ type: 'stolen' }),
      ]);
      for (const answer of answers) {
        expect(answer.status).toBe(400);
        expect(answer.body).toMatchObject({ success: false, error: 'invalid_request', msg: expect.any(String) });
      }
      expect(answers[0]?.body.msg).toBe('Invalid json body');
    }));

  test('ignores comparisons of numbers while told to be sloppy', () =>
    withSim({}, async (vast, sim) => {
      sim.faults.add({ kind: 'sloppy_filters', times: 1 });
      const query = { dph_total: { lt: 0.2 } };
      expect((await vast.search(query)).body.offers.some((offer) => offer.dph_total > 0.2)).toBe(true);
      expect((await vast.search(query)).body.offers.every((offer) => offer.dph_total < 0.2)).toBe(true);
    }));

  test('is quick over 3,000 offers', () =>
    withSim({ offers: { vast: 3000, ionet: 3000 } }, async (vast, sim) => {
      const started = performance.now();
      for (let i = 0; i < 10; i++) await vast.search({ num_gpus: { gte: '1' }, order: [['dph_total', 'asc']] });
      expect(performance.now() - started).toBeLessThan(2000);
      expect(sim.rentable()).toEqual({ vast: 3000, ionet: 3000 });
    }));
});

describe.concurrent('keys', () => {
  test('a wrong key is 404 auth_error on search, 401 elsewhere, and no key at all may search', () =>
    withSim({}, async (_vast, sim) => {
      const wrong = vastClient(sim, 'wrong');
      const search = await wrong.search();
      expect(search.status).toBe(404);
      expect(search.body).toEqual({ success: false, error: 'auth_error', msg: 'Invalid user key' });
      for (const [method, path] of [
        ['GET', '/api/v1/instances/'],
        ['GET', '/api/v0/users/current'],
        ['PUT', '/api/v0/asks/1/'],
        ['DELETE', '/api/v0/instances/1/'],
      ] as const) {
        const answer = await wrong.send(method, path, method === 'GET' ? undefined : {});
        expect([method, path, answer.status]).toEqual([method, path, 401]);
        expect(answer.body.error).toBe('auth_error');
      }
      expect((await call(sim.vastUrl, 'POST', '/api/v0/bundles/', { body: {} })).status).toBe(200);
      expect((await call(sim.vastUrl, 'GET', '/api/v0/gpu_names/unique/')).body.gpu_names).toContain('RTX 4090');
      expect((await call(sim.vastUrl, 'GET', '/api/v1/instances/')).status).toBe(401);
      expect((await call(sim.vastUrl, 'GET', `/api/v1/instances/?api_key=${sim.vastKey}`)).status).toBe(200);
    }));

  test('the account has credit to spend, and a balance that is not it', () =>
    withSim({ credit: { vast: 12.5 } }, async (vast) => {
      const { body } = await vast.send('GET', '/api/v0/users/current');
      expect(body.credit).toBe(12.5);
      expect(body.balance).toBeLessThanOrEqual(0);
    }));
});

describe.concurrent('renting', () => {
  test('an offer can be rented once; the second is told in two blanks that it is gone', () =>
    withSim(fastBoot, async (vast, sim) => {
      const { id } = await vast.ask();
      const before = sim.rentable().vast;
      const first = await vast.send('PUT', `/api/v0/asks/${id}/`, rentBody());
      expect(first.body).toMatchObject({ success: true, new_contract: expect.any(Number) });
      const second = await vast.send('PUT', `/api/v0/asks/${id}/`, rentBody());
      expect(second.status).toBe(400);
      expect(second.body).toEqual({
        success: false,
        error: 'invalid_args',
        msg: `error 404/3603: no_such_ask  Instance type by id ${id} is not available.`,
        ask_id: id,
      });
      const unknown = await vast.send('PUT', '/api/v0/asks/999/', rentBody());
      expect(unknown.body.msg).toContain('no_such_ask');
      expect(sim.rentable().vast).toBe(before - 1);
      const found = (await vast.search({ ask_contract_id: { eq: id } })).body.offers;
      expect(found).toEqual([]);
      const rented = (await vast.search({ ask_contract_id: { eq: id }, rented: { eq: true } })).body.offers;
      expect(rented).toHaveLength(1);
    }));

  test('two who rent the same offer at once: one gets it', () =>
    withSim(fastBoot, async (vast, sim) => {
      const { id } = await vast.ask();
      const answers = await Promise.all(
        Array.from({ length: 6 }, () => vast.send('PUT', `/api/v0/asks/${id}/`, rentBody())),
      );
      expect(answers.map((answer) => answer.status).sort()).toEqual([200, 400, 400, 400, 400, 400]);
      expect(sim.ledger()).toHaveLength(1);
    }));

  test('walks from null over created and loading to running; ports come last, on IPv4 and IPv6, as strings', () =>
    withSim({ bootMs: { min: 1000, max: 1000 } }, async (vast) => {
      const id = await vast.rent();
      const statuses: unknown[] = [];
      const row = await until(
        () => vast.get(id) as Promise<Row>,
        (it) => {
          if (statuses.at(-1) !== it.actual_status) statuses.push(it.actual_status);
          if (it.actual_status !== 'running') expect(it.ports).toBeNull();
          return it.actual_status === 'running';
        },
      );
      const order = [null, 'created', 'loading', 'running'];
      expect(statuses[0]).toBeNull();
      expect(statuses).toEqual(order.filter((status) => statuses.includes(status)));
      const bindings = row.ports?.['8000/tcp'];
      expect(bindings?.map((it) => it.HostIp)).toEqual(['0.0.0.0', '::']);
      expect(httpPort(row)).toMatch(/^\d+$/);
      expect(httpPort(row)).not.toBe('8000');
      expect(row.ports?.['22/tcp']).toHaveLength(2);
      expect(row.public_ipaddr).toBe('127.0.0.1\n');
      expect(row.extra_env).toContainEqual(['-p 8000:8000', '1']);
      expect(row).toMatchObject({ label: 'test-1', intended_status: 'running', cur_state: 'running', is_bid: false });
      expect(row.gpu_totalram).toBe(row.gpu_ram * row.num_gpus);
      const origin = `http://${row.public_ipaddr.trim()}:${httpPort(row)}`;
      // Running says that the container started, not that its application listens.
      await until(
        async () =>
          fetch(`${origin}/health`).then(
            (answer) => answer.status,
            () => 0,
          ),
        (status) => status === 200,
      );
    }));

  test('an offer without direct ports maps none', () =>
    withSim(fastBoot, async (vast) => {
      const ask = (await vast.search({ direct_port_count: { eq: 0 } })).body.offers;
      const { body } = await vast.send('PUT', `/api/v0/asks/${one(ask).id}/`, rentBody());
      expect(await vast.get(body.new_contract)).toMatchObject({ actual_status: 'running', ports: null });
    }));

  test('refuses without enough credit, with bad arguments and with bids out of range', () =>
    withSim({ ...fastBoot, credit: { vast: 0.01 } }, async (vast, sim) => {
      const { id } = await vast.ask();
      const poor = await vast.send('PUT', `/api/v0/asks/${id}/`, rentBody());
      expect([poor.status, poor.body.error]).toEqual([400, 'insufficient_credit']);
      sim.faults.add({ kind: 'credit', provider: 'vast', usd: 100 });
      for (const [spec, error] of [
        [{ image: null }, 'invalid_args'],
        [{ disk: 4 }, 'invalid_args'],
        [{ onstart: 'x'.repeat(4097) }, 'invalid_args'],
        [{ label: 'x'.repeat(257) }, 'label_too_long'],
        [{ price: 0.0001 }, 'invalid_price'],
        [{ price: 129 }, 'invalid_price'],
      ] as const) {
        const answer = await vast.send('PUT', `/api/v0/asks/${id}/`, rentBody(spec));
        expect([answer.status, answer.body.error]).toEqual([400, error]);
      }
      expect(sim.ledger()).toEqual([]);
      expect((await vast.send('PUT', `/api/v0/asks/${id}/`, rentBody())).status).toBe(200);
    }));

  test('a bid below the minimum is refused and leaves a stopped contract behind all the same', () =>
    withSim(fastBoot, async (vast, sim) => {
      const ask = await vast.ask();
      const answer = await vast.send('PUT', `/api/v0/asks/${ask.id}/`, rentBody({ price: ask.min_bid / 2 }));
      expect(answer.status).toBe(400);
      expect(answer.body.success).toBe(false);
      const row = await vast.get(answer.body.new_contract);
      expect(row).toMatchObject({ cur_state: 'stopped', intended_status: 'stopped', is_bid: true, label: 'test-1' });
      expect(sim.ledger()).toHaveLength(1);
    }));

  test('rents several at once and by search', () =>
    withSim(fastBoot, async (vast, sim) => {
      const { offers } = (await vast.search({ rentable: { eq: true }, limit: 2 })).body;
      const ids = offers.map((offer) => offer.id);
      const bulk = await vast.send('POST', '/api/v0/asks/bulk/', { ...rentBody(), ids: [...ids, 1] });
      expect(bulk.body.new_contracts).toHaveLength(2);
      const q = { gpu_name: { eq: 'RTX 4090' }, num_gpus: { eq: '1' }, limit: 3, order: [['dph_total', 'asc']] };
      const launched = await vast.send('PUT', '/api/v0/launch_instance/', { ...rentBody(), q });
      expect(launched.body.success).toBe(true);
      expect(sim.instances().map((it) => it.gpuModel)).toContain('RTX 4090');
      expect(sim.ledger()).toHaveLength(3);
    }));
});

describe.concurrent('instances', () => {
  test('are listed in pages of 25 with an opaque token, and whole under the old path', () =>
    withSim(fastBoot, async (vast) => {
      const { offers } = (await vast.search({ rentable: { eq: true } })).body;
      const ids = offers.slice(0, 30).map((offer) => offer.id);
      await vast.send('POST', '/api/v0/asks/bulk/', { ...rentBody(), ids });
      const order = encodeURIComponent('[{"col": "id", "dir": "asc"}]');
      const path = `/api/v1/instances/?select_filters=%7B%7D&order_by=${order}&limit=100`;
      const first = (await vast.send('GET', path)).body;
      expect(first.instances).toHaveLength(25);
      expect(first).toMatchObject({ success: true, total_instances: 30, next_token: expect.any(String) });
      const second = (await vast.send('GET', `${path}&after_token=${first.next_token}`)).body;
      expect(second.instances).toHaveLength(5);
      expect(second.next_token).toBeNull();
      const all = [...first.instances, ...second.instances].map((row) => row.id);
      expect(all).toEqual([...new Set(all)].sort((a, b) => a - b));
      expect((await vast.send('GET', '/api/v0/instances/?owner=me')).body.instances).toHaveLength(30);
      expect((await vast.send('GET', '/api/v1/instances/?limit=0')).body.instances).toHaveLength(5);
      const bad = await vast.send('GET', `${path}&after_token=bm9uc2Vuc2U`);
      expect([bad.status, bad.body.error]).toEqual([400, 'invalid_token']);
    }));

  test('a page token holds its place while rows before it go', () =>
    withSim(fastBoot, async (vast) => {
      const { offers } = (await vast.search({ rentable: { eq: true } })).body;
      const asks = offers.slice(0, 30).map((offer) => offer.id);
      const { new_contracts: ids } = (await vast.send('POST', '/api/v0/asks/bulk/', { ...rentBody(), ids: asks })).body;
      const order = encodeURIComponent('[{"col": "gpu_name", "dir": "desc"}]');
      const path = `/api/v1/instances/?order_by=${order}`;
      const first = (await vast.send('GET', path)).body;
      for (const row of first.instances.slice(0, 3)) await vast.send('DELETE', `/api/v0/instances/${row.id}/`, {});
      const second = (await vast.send('GET', `${path}&after_token=${first.next_token}`)).body;
      expect(second.instances).toHaveLength(5);
      expect(new Set([...first.instances, ...second.instances].map((row) => row.id))).toEqual(new Set(ids));
    }));

  test('can be filtered by stored columns, not by computed ones; unknown columns come as null', () =>
    withSim(fastBoot, async (vast) => {
      const a = await vast.rent({ label: 'a' });
      await vast.rent({ label: 'b' });
      const list = (filters: Readonly<Record<string, unknown>>, rest = '') =>
        vast.send('GET', `/api/v1/instances/?select_filters=${encodeURIComponent(JSON.stringify(filters))}${rest}`);
      const found = (await list({ label: { in: ['a'] }, actual_status: { in: ['running'] } })).body;
      expect(found.instances.map((row) => row.id)).toEqual([a]);
      expect(found.label_counts).toEqual({ a: 1 });
      const computed = await list({ dph_total: { gt: 0 } });
      expect([computed.status, computed.body.msg]).toEqual([
        400,
        'Error in query parameters: dph_total is not a valid search key',
      ]);
      const columns = (await list({}, `&select_cols=${encodeURIComponent('["id","nonsense"]')}`)).body.instances;
      expect(Object.keys(one(columns))).toEqual(['id', 'nonsense']);
      expect(one(columns).nonsense).toBeNull();
    }));

  test('read as null once destroyed; destroying what is gone is 404 and the machine is offered again', () =>
    withSim(fastBoot, async (vast, sim) => {
      const before = sim.rentable().vast;
      const id = await vast.rent();
      const row = (await vast.get(id)) as Row;
      const gone = await vast.send('DELETE', `/api/v0/instances/${id}/`, {});
      expect([gone.status, gone.body.success]).toEqual([200, true]);
      const after = await vast.send('GET', `/api/v0/instances/${id}/?owner=me`);
      expect([after.status, after.body]).toEqual([200, { instances: null }]);
      const again = await vast.send('DELETE', `/api/v0/instances/${id}/`, {});
      expect([again.status, again.body.error]).toEqual([404, 'no_such_instance']);
      const back = (await vast.search({ machine_id: { eq: row.machine_id } })).body.offers;
      expect(back).toHaveLength(1);
      expect(sim.rentable().vast).toBe(before);
      await expect(fetch(`http://127.0.0.1:${httpPort(row)}/health`)).rejects.toThrow();
    }));

  test('stop and start: exited and stopped, then another port', () =>
    withSim({ bootMs: { min: 150, max: 150 } }, async (vast, sim) => {
      const id = await vast.rent();
      const running = await until(
        () => vast.get(id) as Promise<Row>,
        (row) => row.actual_status === 'running',
      );
      expect((await vast.send('PUT', `/api/v0/instances/${id}/`, { state: 'stopped' })).body).toEqual({
        success: true,
      });
      expect(await vast.get(id)).toMatchObject({
        actual_status: 'exited',
        intended_status: 'stopped',
        cur_state: 'stopped',
        next_state: 'stopped',
        ports: null,
      });
      sim.faults.add({ kind: 'slow_boot' });
      await vast.send('PUT', `/api/v0/instances/${id}/`, { state: 'running' });
      expect(await vast.get(id)).toMatchObject({ actual_status: 'exited', intended_status: 'running' });
      const again = await until(
        () => vast.get(id) as Promise<Row>,
        (row) => row.actual_status === 'running',
      );
      expect(httpPort(again)).not.toBe(httpPort(running));
      await vast.send('PUT', `/api/v0/instances/${id}/`, { label: 'renamed' });
      expect((await vast.get(id))?.label).toBe('renamed');
      const long = await vast.send('PUT', `/api/v0/instances/${id}/`, { label: 'x'.repeat(1025) });
      expect([long.status, long.body.error]).toEqual([400, 'label_too_long']);
      await vast.send('PUT', `/api/v0/instances/reboot/${id}/`, {});
      expect((await vast.get(id))?.actual_status).toBe('rebooting');
    }));

  test('a start whose GPU is taken is 200 without success and starts later by itself', () =>
    withSim(fastBoot, async (vast, sim) => {
      const id = await vast.rent();
      await vast.send('PUT', `/api/v0/instances/${id}/`, { state: 'stopped' });
      sim.faults.add({ kind: 'start_refused' });
      const answer = await vast.send('PUT', `/api/v0/instances/${id}/`, { state: 'running' });
      expect([answer.status, answer.body]).toEqual([
        200,
        { success: false, msg: 'Required resources are currently unavailable, state change queued.' },
      ]);
      expect(await vast.get(id)).toMatchObject({
        actual_status: 'exited',
        cur_state: 'stopped',
        next_state: 'running',
      });
      sim.faults.clear();
      await until(
        () => vast.get(id) as Promise<Row>,
        (row) => row.actual_status === 'running',
      );
    }));

  test('logs come from a second address that has them late and takes no key', () =>
    withSim(fastBoot, async (vast, sim) => {
      const id = await vast.rent();
      const { body } = await vast.send('PUT', `/api/v0/instances/request_logs/${id}/`, { tail: '2' });
      expect(body.success).toBe(true);
      expect(new URL(body.result_url).origin).not.toBe(sim.vastUrl);
      const withKey = await fetch(body.result_url, { headers: { Authorization: `Bearer ${sim.vastKey}` } });
      expect(withKey.status).toBe(400);
      const statuses: number[] = [];
      let text = '';
      while (statuses.at(-1) !== 200 && statuses.length < 10) {
        const answer = await fetch(body.result_url);
        statuses.push(answer.status);
        text = await answer.text();
      }
      expect(statuses).toEqual([404, 403, 200]);
      expect(text.trim().split('\n')).toHaveLength(2);
      const gone = await vast.send('PUT', '/api/v0/instances/request_logs/1/', {});
      expect([gone.status, gone.body.error]).toEqual([404, 'invalid_id']);
    }));

  test('outbid: everything says stopped; a higher bid brings it back', () =>
    withSim(fastBoot, async (vast, sim) => {
      const demand = await vast.rent();
      const ask = await vast.ask();
      const answer = await vast.send('PUT', `/api/v0/asks/${ask.id}/`, rentBody({ price: ask.min_bid + 0.01 }));
      const id = answer.body.new_contract;
      expect(await vast.get(id)).toMatchObject({ is_bid: true, actual_status: 'running' });
      sim.faults.add({ kind: 'outbid', instance: '*' });
      const row = await until(
        () => vast.get(id) as Promise<Row>,
        (it) => it.actual_status === 'exited',
      );
      expect(row).toMatchObject({ cur_state: 'stopped', intended_status: 'stopped', next_state: 'stopped' });
      expect(await vast.get(demand)).toMatchObject({ actual_status: 'running' });
      const low = await vast.send('PUT', `/api/v0/instances/bid_price/${id}/`, { client_id: 'me', price: 0.0001 });
      expect([low.status, low.body.msg]).toEqual([400, 'Please set a bid price >= 0.001.']);
      await vast.send('PUT', `/api/v0/instances/bid_price/${id}/`, { client_id: 'me', price: row.min_bid + 0.1 });
      expect(await vast.get(id)).toMatchObject({ actual_status: 'running', intended_status: 'running' });
    }));

  test('exit and go offline on command, while they should run', () =>
    withSim(fastBoot, async (vast, sim) => {
      const [a, b] = [await vast.rent(), await vast.rent()];
      sim.faults.add({ kind: 'exit', instance: String(a) });
      sim.faults.add({ kind: 'offline', instance: `vast-${b}` });
      await until(
        () => vast.get(a) as Promise<Row>,
        (row) => row.actual_status === 'exited',
      );
      expect(await vast.get(a)).toMatchObject({ actual_status: 'exited', intended_status: 'running', ports: null });
      expect(await vast.get(b)).toMatchObject({ actual_status: 'offline', intended_status: 'running' });
      sim.faults.add({ kind: 'online', instance: '*' });
      for (const id of [a, b]) {
        await until(
          () => vast.get(id) as Promise<Row>,
          (row) => row.actual_status === 'running' && row.ports !== null,
        );
      }
    }));

  test('failed boots say why', () =>
    withSim(fastBoot, async (vast, sim) => {
      sim.faults.add({ kind: 'never_healthy', how: 'oci_error', times: 1 });
      const oci = await vast.rent();
      sim.faults.add({ kind: 'never_healthy', how: 'pull_error', times: 1 });
      const pull = await vast.rent();
      await until(
        () => vast.get(oci) as Promise<Row>,
        (row) => row.actual_status === 'created' && String(row.status_msg).includes(': OCI runtime create failed:'),
      );
      await until(
        () => vast.get(pull) as Promise<Row>,
        (row) => row.actual_status === 'loading' && String(row.status_msg).includes('manifest unknown'),
      );
    }));

  test('a new contract is invisible and a destroyed one lingers for the time of the lag', () =>
    withSim({ ...fastBoot, lagMs: 300 }, async (vast) => {
      const id = await vast.rent();
      const listed = async () => (await vast.send('GET', '/api/v1/instances/')).body.instances.map((row) => row.id);
      expect(await vast.get(id)).toBeNull();
      expect(await listed()).toEqual([]);
      await until(listed, (ids) => ids.includes(id));
      await vast.send('DELETE', `/api/v0/instances/${id}/`, {});
      expect(await listed()).toEqual([id]);
      expect(await vast.get(id)).toBeNull();
      await until(listed, (ids) => ids.length === 0);
    }));

  test('all stop when the credit is used up', () =>
    withSim({ ...fastBoot, credit: { vast: 5 }, timeScale: 360_000 }, async (vast) => {
      const id = await vast.rent();
      await until(
        () => vast.get(id) as Promise<Row>,
        (row) => row.cur_state === 'stopped' && row.actual_status === 'exited',
      );
      expect((await vast.send('GET', '/api/v0/users/current/')).body.credit).toBeLessThanOrEqual(0);
    }));
});

test('every path is the same with and without the slash at its end', () =>
  withSim(fastBoot, async (vast) => {
    const id = await vast.rent();
    for (const [method, path, body] of [
      ['POST', '/api/v0/bundles', {}],
      ['PUT', '/api/v0/search/asks', { q: {} }],
      ['PUT', '/api/v0/asks/1', rentBody()],
      ['GET', '/api/v1/instances'],
      ['GET', '/api/v0/instances'],
      ['GET', `/api/v0/instances/${id}`],
      ['PUT', `/api/v0/instances/${id}`, { label: 'x' }],
      ['PUT', `/api/v0/instances/request_logs/${id}`, {}],
      ['PUT', `/api/v0/instances/bid_price/${id}`, { price: 0.2 }],
      ['GET', '/api/v0/users/current'],
      ['GET', '/api/v0/gpu_names/unique'],
      ['DELETE', '/api/v0/instances/1', {}],
    ] as const) {
      const [without, with_] = [await vast.send(method, path, body), await vast.send(method, `${path}/`, body)];
      expect([path, without.status, without.type]).toEqual([path, with_.status, 'application/json']);
      expect(Object.keys(without.body)).toEqual(Object.keys(with_.body));
    }
  }));

test('too frequent calls are plain text 429 without Retry-After, by endpoint and key, when limits are on', () =>
  withSim({ rateLimit: 1 }, async (vast, sim) => {
    expect((await vast.send('GET', '/api/v1/instances/')).status).toBe(200);
    const second = await vast.send('GET', '/api/v1/instances/');
    expect(second.status).toBe(429);
    expect(second.type).toContain('text/plain');
    expect(second.text).toBe('API requests too frequent: endpoint threshold=1.0*1.0');
    expect(second.headers.has('retry-after')).toBe(false);
    expect((await vast.send('GET', '/api/v0/users/current')).status).toBe(200);
    expect((await vastClient(sim, 'other').send('GET', '/api/v1/instances/')).status).toBe(401);
  }));

test('the cost meter charges the GPU while it runs and the disk until the end', () =>
  withSim({ ...fastBoot, timeScale: 36_000 }, async (vast, sim) => {
    const id = await vast.rent({ disk: 40 });
    const entry = () => sim.ledger().find((it) => it.contract === String(id));
    await until(
      async () => entry()?.chargedUsd ?? 0,
      (usd) => usd > 0.2,
    );
    await vast.send('PUT', `/api/v0/instances/${id}/`, { state: 'stopped' });
    const stopped = entry()?.chargedUsd as number;
    await until(
      async () => entry()?.chargedUsd ?? 0,
      (usd) => usd > stopped,
    );
    await vast.send('DELETE', `/api/v0/instances/${id}/`, {});
    const final = entry();
    expect(final?.destroyedAt).toBeGreaterThan(0);
    await new Promise((resolve) => setTimeout(resolve, 30));
    expect(entry()).toEqual(final);
    expect(final).toMatchObject({ provider: 'vast', label: 'test-1' });
  }));
