import { connect } from 'node:net';
import { expect, test } from 'vitest';
import { type Simulator, type SimulatorOptions, startSimulator } from '../../src/sim/simulator.ts';
import { fastBoot, one, type Row, vastClient } from './calls.ts';

/**
 * What the official command line sent, as it was recorded: byte for byte but for the ids and the key, which each run of a
 * simulator makes anew. The answers are read as that program reads them.
 */

type Exchange = Readonly<{ status: number; headers: readonly string[]; text: string; body: Body }>;
type Body = Record<string, unknown> & {
  offers: Row[];
  instances: Row[] & Row;
  new_contract: number;
  result_url: string;
  next_token: string | null;
};

const cliAgent = 'vastai-cli/0.0.0';

/** The bytes of one request on a connection of its own, and the raw answer. */
function exchange(url: string, agent: string, key: string | null, head: string, body?: string): Promise<Exchange> {
  const { hostname, port } = new URL(url);
  const lines = [
    `${head} HTTP/1.1`,
    `Host: ${hostname}:${port}`,
    `User-Agent: ${agent}`,
    'Accept-Encoding: gzip, deflate',
    'Accept: */*',
    'Connection: keep-alive',
    ...(key === null ? [] : [`Authorization: Bearer ${key}`]),
    ...(body === undefined ? [] : [`Content-Length: ${Buffer.byteLength(body)}`, 'Content-Type: application/json']),
  ];
  return new Promise((resolve, reject) => {
    const socket = connect(Number(port), hostname);
    let text = '';
    socket.setEncoding('utf8');
    socket.on('data', (part) => {
      text += part;
      const end = text.indexOf('\r\n\r\n');
      const length = /content-length: (\d+)/i.exec(text.slice(0, end))?.[1];
      if (end < 0 || length === undefined || Buffer.byteLength(text.slice(end + 4)) < Number(length)) return;
      socket.destroy();
      const answer = text.slice(end + 4);
      const json = /^[[{]/.test(answer) ? (JSON.parse(answer) as Body) : ({} as Body);
      resolve({
        status: Number(text.slice(9, 12)),
        headers: text.slice(0, end).split('\r\n'),
        text: answer,
        body: json,
      });
    });
    socket.on('error', reject);
    socket.write(`${lines.join('\r\n')}\r\n\r\n${body ?? ''}`);
  });
}

const withCli = async (
  options: SimulatorOptions,
  run: (cli: (head: string, body?: string) => Promise<Exchange>, sim: Simulator) => Promise<void>,
) => {
  await using sim = await startSimulator(options);
  await run((head, body) => exchange(sim.vastUrl, cliAgent, sim.vastKey, head, body), sim);
};

/** It takes an answer to a search only with exactly this, and prints "invalid return Content-Type" otherwise. */
const jsonHeader = 'Content-Type: application/json';

/** Columns of a table: those it formats as numbers must be numbers or null, others may be any text. */
function expectColumns(row: Row, numbers: readonly string[], texts: readonly string[]): void {
  for (const name of numbers) {
    expect(row, name).toHaveProperty(name);
    expect(['number', 'null'], `${name}: ${String(row[name])}`).toContain(
      row[name] === null ? 'null' : typeof row[name],
    );
  }
  for (const name of texts) expect(row, name).toHaveProperty(name);
}
const offerNumbers =
  'cuda_max_good num_gpus pcie_bw cpu_ghz cpu_cores_effective cpu_ram gpu_ram disk_space dph_total discounted_dph_total dlperf dlperf_per_dphtotal score inet_up inet_down reliability duration'.split(
    ' ',
  );
const offerTexts = 'id gpu_name driver_version machine_id verification host_id direct_port_count geolocation'.split(
  ' ',
);
const instanceNumbers =
  'num_gpus gpu_util cpu_cores_effective cpu_ram disk_space dph_total inet_up inet_down reliability2 duration uptime_mins start_date'.split(
    ' ',
  );
const instanceTexts = 'id machine_id actual_status gpu_name ssh_host ssh_port image_uuid label'.split(' ');

test('import: the names of cards, without a key, by another agent', () =>
  withCli({}, async (_cli, sim) => {
    const answer = await exchange(sim.vastUrl, 'python-requests/2.28.1', null, 'GET /api/v0/gpu_names/unique/');
    expect(answer.status).toBe(200);
    expect(answer.body.gpu_names).toEqual(expect.arrayContaining(['RTX 4090', 'H100 SXM', 'A100 PCIE']));
  }));

const searches: readonly (readonly [command: string, head: string, body: string, holds: (row: Row) => void])[] = [
  [
    "search offers 'gpu_name=RTX_4090 num_gpus=1 gpu_ram>=20 dph<0.5 geolocation in [SE,DE] direct_port_count>=1 cuda_vers>=12.4' -o dph --limit 5 --storage 20",
    'POST /api/v0/bundles/',
    '{"verified": {"eq": true}, "external": {"eq": false}, "rentable": {"eq": true}, "gpu_name": {"eq": "RTX 4090"}, "num_gpus": {"eq": "1"}, "gpu_ram": {"gte": 20000.0}, "dph_total": {"lt": "0.5"}, "geolocation": {"in": ["SE", "DE"]}, "direct_port_count": {"gte": "1"}, "cuda_max_good": {"gte": "12.4"}, "order": [["dph_total", "asc"]], "type": "on-demand", "limit": 5, "allocated_storage": 20.0}',
    (row) => {
      expect(row).toMatchObject({ gpu_name: 'RTX 4090', num_gpus: 1, verification: 'verified', rentable: true });
      expect(row.dph_total).toBeLessThan(0.5);
      expect(row.dph_total).toBeCloseTo(row.dph_base + (20 * row.storage_cost) / 720, 5);
      expect(row.geolocation).toMatch(/, (SE|DE)$/);
      expect(row.cuda_max_good).toBeGreaterThanOrEqual(12.4);
    },
  ],
  [
    "search offers 'gpu_name=RTX_4090 num_gpus=1' --raw",
    'POST /api/v0/bundles/',
    '{"verified": {"eq": true}, "external": {"eq": false}, "rentable": {"eq": true}, "gpu_name": {"eq": "RTX 4090"}, "num_gpus": {"eq": "1"}, "order": [["score", "desc"]], "type": "on-demand", "allocated_storage": 5.0}',
    (row) => expect(row).toMatchObject({ gpu_name: 'RTX 4090', num_gpus: 1, is_bid: false }),
  ],
  [
    "search offers 'num_gpus>=1 verified=any' -i --limit 2 --raw",
    'POST /api/v0/bundles/',
    '{"external": {"eq": false}, "rentable": {"eq": true}, "num_gpus": {"gte": "1"}, "order": [["score", "desc"]], "type": "bid", "limit": 2, "allocated_storage": 5.0}',
    (row) => {
      expect(row.is_bid).toBe(true);
      expect(row.dph_total).toBeCloseTo(row.min_bid + (5 * row.storage_cost) / 720, 5);
    },
  ],
  [
    "search offers 'rented=False gpu_name in [RTX_4090,H100_SXM] reliability>0.98 duration>=3 inet_down>=200 disk_space>=50 static_ip=true datacenter=true' -n --raw",
    'POST /api/v0/bundles/',
    '{"rented": {"eq": false}, "gpu_name": {"in": ["RTX 4090", "H100 SXM"]}, "reliability": {"gt": "0.98"}, "duration": {"gte": 259200.0}, "inet_down": {"gte": "200"}, "disk_space": {"gte": "50"}, "static_ip": {"eq": true}, "datacenter": {"eq": true}, "order": [["score", "desc"]], "type": "on-demand", "allocated_storage": 5.0}',
    (row) => {
      expect(['RTX 4090', 'H100 SXM']).toContain(row.gpu_name);
      expect(row.reliability).toBeGreaterThan(0.98);
      expect(row).toMatchObject({ static_ip: true, hosting_type: 1, rented: false });
    },
  ],
  [
    'search offers num_gpus=1 --new --raw',
    'PUT /api/v0/search/asks/',
    '{"select_cols": ["*"], "q": {"verified": {"eq": true}, "external": {"eq": false}, "rentable": {"eq": true}, "num_gpus": {"eq": "1"}, "order": [["score", "desc"]], "type": "on-demand", "allocated_storage": 5.0}}',
    (row) => expect(row.num_gpus).toBe(1),
  ],
];

test.each(searches)('vastai %s', (_command, head, body, holds) =>
  withCli({ offers: { vast: 3000 } }, async (cli) => {
    const answer = await cli(head, body);
    expect(answer.status).toBe(200);
    expect(answer.headers).toContain(jsonHeader);
    const { offers } = answer.body;
    const asked = JSON.parse(body) as { limit?: number; order?: [[string, string]]; q?: { order: [[string, string]] } };
    expect(offers.length).toBeGreaterThan(0);
    expect(offers.length).toBeLessThanOrEqual(asked.limit ?? 64);
    for (const row of offers) {
      expectColumns(row, offerNumbers, offerTexts);
      holds(row);
    }
    const [[field, direction]] = asked.order ?? asked.q?.order ?? [['', '']];
    const values = offers.map((row) => row[field] as number);
    expect(values).toEqual([...values].sort((a, b) => (direction === 'desc' ? b - a : a - b)));
  }),
);

const order = 'select_filters=%7B%7D&order_by=%5B%7B%22col%22%3A+%22id%22%2C+%22dir%22%3A+%22asc%22%7D%5D&limit=25';
const columns =
  'select_cols=%5B%22id%22%2C+%22actual_status%22%2C+%22label%22%2C+%22num_gpus%22%2C+%22gpu_name%22%2C+%22gpu_util%22%2C+%22disk_space%22%2C+%22disk_usage%22%2C+%22disk_util%22%2C+%22volume_info%22%2C+%22dph_total%22%2C+%22image_uuid%22%2C+%22start_date%22%2C+%22verification%22%5D';
const listed =
  'id actual_status label num_gpus gpu_name gpu_util disk_space disk_usage disk_util volume_info dph_total image_uuid start_date verification'.split(
    ' ',
  );
/** As `quote_plus` writes it. */
const quoted = (text: string): string => encodeURIComponent(text).replaceAll('%20', '+');

const rest =
  '"extra": null, "onstart": null, "image_login": null, "python_utf8": false, "lang_utf8": false, "use_jupyter_lab": false, "jupyter_dir": null, "force": false, "cancel_unavail": false, "template_hash_id": null, "user": null';

test('the life of an instance: create, show, stop, start, label, reboot, logs, show user, destroy', () =>
  withCli(fastBoot, async (cli, sim) => {
    const { id: ask } = await vastClient(sim).ask();
    // create instance … --disk 40 --env '-p 8000:8000 -e FOO=bar -h worker1' --onstart-cmd 'echo hi' --label gpuproxy-1 --ssh --direct
    const create = await cli(
      `PUT /api/v0/asks/${ask}/`,
      '{"client_id": "me", "image": "vllm/vllm-openai:latest", "env": {"-p 8000:8000": "1", "FOO": "bar", "-h": "worker1"}, "price": null, "disk": 40.0, "label": "gpuproxy-1", "extra": null, "onstart": "echo hi", "image_login": null, "python_utf8": false, "lang_utf8": false, "use_jupyter_lab": false, "jupyter_dir": null, "force": false, "cancel_unavail": false, "template_hash_id": null, "user": null, "runtype": "ssh_direc ssh_proxy"}',
    );
    expect([create.status, create.body]).toEqual([
      200,
      { success: true, new_contract: expect.any(Number), instance_api_key: expect.any(String) },
    ]);
    const id = create.body.new_contract;

    // show instances --raw
    const raw = await cli(`GET /api/v1/instances/?${order}`);
    expect(raw.body).toMatchObject({ success: true, instances_found: 1, total_instances: 1, next_token: null });
    const row = one(raw.body.instances);
    // It dies of a row without a start date, or with variables that are no pairs.
    expect(typeof row.start_date).toBe('number');
    expect(row.extra_env).toEqual([
      ['-p 8000:8000', '1'],
      ['FOO', 'bar'],
      ['-h', 'worker1'],
    ]);
    // show instances: what may be chosen, then only the columns of its table.
    const filters = (await cli('GET /api/v0/instances/filters/')).body.filters;
    expect(filters).toEqual([
      { actual_status: expect.any(String), verification: expect.any(String), gpu_name: row.gpu_name },
    ]);
    const table = one((await cli(`GET /api/v1/instances/?${order}&${columns}`)).body.instances);
    expect(Object.keys(table)).toEqual(listed);
    expectColumns(
      table,
      ['num_gpus', 'gpu_util', 'disk_space', 'disk_usage', 'disk_util', 'dph_total', 'start_date'],
      [],
    );
    // show instances --status running --label gpuproxy-1 --gpu-name RTX_4090 --order-by "dph_total desc" --limit 10 --raw
    const chosen = quoted(
      '{"actual_status": {"in": ["running"]}, "label": {"in": ["gpuproxy-1"]}, "gpu_name": {"in": ["RTX_4090"]}}',
    );
    const dearest = quoted('[{"col": "dph_total", "dir": "desc"}, {"col": "id", "dir": "asc"}]');
    const none = await cli(`GET /api/v1/instances/?select_filters=${chosen}&order_by=${dearest}&limit=10`);
    // Names have blanks there: the underscore that it sends as typed matches nothing.
    expect([none.status, none.body.instances, none.body.next_token]).toEqual([200, [], null]);

    // show instance: one object under the plural.
    const show = await cli(`GET /api/v0/instances/${id}/?owner=me`);
    expect(show.body.instances).toMatchObject({ id, label: 'gpuproxy-1', intended_status: 'running' });
    expectColumns(show.body.instances, instanceNumbers, instanceTexts);

    expect((await cli(`PUT /api/v0/instances/${id}/`, '{"state": "stopped"}')).body).toEqual({ success: true });
    expect((await cli(`GET /api/v0/instances/${id}/?owner=me`)).body.instances).toMatchObject({
      actual_status: 'exited',
      intended_status: 'stopped',
    });
    expect((await cli(`PUT /api/v0/instances/${id}/`, '{"state": "running"}')).body).toEqual({ success: true });
    expect((await cli(`PUT /api/v0/instances/${id}/`, '{"label": "x"}')).body).toEqual({ success: true });
    expect((await cli(`GET /api/v0/instances/${id}/?owner=me`)).body.instances.label).toBe('x');
    expect((await cli(`PUT /api/v0/instances/reboot/${id}/`, '{}')).body).toEqual({ success: true });

    // logs --tail 50: the address comes with success, and is read without a key until it is there.
    const logs = await cli(`PUT /api/v0/instances/request_logs/${id}/`, '{"tail": "50"}');
    expect(logs.body).toMatchObject({ success: true, result_url: expect.stringMatching(/^http.*\.log$/) });
    const statuses: number[] = [];
    for (let n = 0; n < 30 && statuses.at(-1) !== 200; n++) {
      const { origin, pathname } = new URL(logs.body.result_url);
      const answer = await exchange(origin, 'python-requests/2.28.1', null, `GET ${pathname}`);
      statuses.push(answer.status);
      if (answer.status === 200) expect(answer.text).toContain('starting vllm/vllm-openai:latest');
    }
    expect(statuses.at(-1)).toBe(200);
    expect(statuses.slice(0, -1).every((status) => status === 403 || status === 404)).toBe(true);

    // show user, without the slash at the end
    const user = (await cli('GET /api/v0/users/current')).body;
    for (const name of 'id email balance ssh_key sid username billaddress_city billaddress_line2 can_pay has_billing has_payout user'.split(
      ' ',
    )) {
      expect(user, name).toHaveProperty(name);
    }
    expect(typeof user.credit).toBe('number');

    const destroy = await cli(`DELETE /api/v0/instances/${id}/`, '{}');
    expect([destroy.status, destroy.body.success]).toEqual([200, true]);
    // "Instance ID not found or no longer exists."
    expect((await cli(`GET /api/v0/instances/${id}/?owner=me`)).body).toEqual({ instances: null });
    // "Failed with error 404: …" reads the message.
    const again = await cli(`DELETE /api/v0/instances/${id}/`, '{}');
    expect([again.status, again.body]).toEqual([
      404,
      { success: false, error: 'no_such_instance', msg: expect.any(String) },
    ]);
  }));

test('pages of instances are asked for with the token of the page before', () =>
  withCli({ ...fastBoot, offers: { vast: 100 } }, async (cli, sim) => {
    const { offers } = (await vastClient(sim).search({ rentable: { eq: true } })).body;
    const ids = offers.slice(0, 27).map((offer) => offer.id);
    await cli(
      'POST /api/v0/asks/bulk/',
      `{"client_id": "me", "image": "x:y", "env": {}, "price": null, "disk": 10.0, "label": null, ${rest}, "runtype": "ssh", "ids": [${ids.join(', ')}]}`,
    );
    const first = await cli(`GET /api/v1/instances/?${order}`);
    expect(first.body.instances).toHaveLength(25);
    const second = await cli(`GET /api/v1/instances/?${order}&after_token=${first.body.next_token}`);
    expect(second.body.instances).toHaveLength(2);
    expect(second.body.next_token).toBeNull();
    expect(new Set([...first.body.instances, ...second.body.instances].map((row) => row.id)).size).toBe(27);
  }));

test('with arguments, as a bid, several at once, and by search', () =>
  withCli(fastBoot, async (cli, sim) => {
    const { offers } = (await vastClient(sim).search({ rentable: { eq: true }, direct_port_count: { gte: 1 } })).body;
    const [a, b, c, d] = [one(offers), one(offers, 1), one(offers, 2), one(offers, 3)];
    // create instance … --raw --args --model Qwen/Qwen2.5-7B-Instruct --port 8000
    const args = await cli(
      `PUT /api/v0/asks/${a.id}/`,
      `{"client_id": "me", "image": "vllm/vllm-openai:latest", "env": {"-p 8000:8000": "1", "HF_TOKEN": "x"}, "price": null, "disk": 40.0, "label": null, ${rest}, "runtype": "args", "args": ["--model", "Qwen/Qwen2.5-7B-Instruct", "--port", "8000"]}`,
    );
    expect((await cli(`GET /api/v0/instances/${args.body.new_contract}/?owner=me`)).body.instances).toMatchObject({
      image_args: ['--model', 'Qwen/Qwen2.5-7B-Instruct', '--port', '8000'],
      image_runtype: 'args',
    });
    // create instance … --bid_price … --env '-p 70000:8000/udp -e A="b c"'
    const bid = await cli(
      `PUT /api/v0/asks/${b.id}/`,
      `{"client_id": "me", "image": "x:y", "env": {"-p 70000:8000/udp": "1", "A": "b c"}, "price": ${b.min_bid + 0.02}, "disk": 10.0, "label": null, ${rest}, "runtype": "ssh"}`,
    );
    expect((await cli(`GET /api/v0/instances/${bid.body.new_contract}/?owner=me`)).body.instances).toMatchObject({
      is_bid: true,
      extra_env: [
        ['-p 70000:8000/udp', '1'],
        ['A', 'b c'],
      ],
    });
    // change bid … --price 0.2
    const change = await cli(
      `PUT /api/v0/instances/bid_price/${bid.body.new_contract}/`,
      '{"client_id": "me", "price": 0.2}',
    );
    expect(change.body).toEqual({ success: true });
    // create instances ID ID --image x:y --disk 10
    const many = await cli(
      'POST /api/v0/asks/bulk/',
      `{"client_id": "me", "image": "x:y", "env": {}, "price": null, "disk": 10.0, "label": null, ${rest}, "runtype": "ssh", "ids": [${c.id}, ${d.id}]}`,
    );
    expect(many.body.success).toBe(true);
    // launch instance -g RTX_4090 -n 1 -i x:y -d 10 --env '-p 8000:8000'
    const launch = await cli(
      'PUT /api/v0/launch_instance/',
      '{"image": "x:y", "disk": 10.0, "q": {"verified": {"eq": true}, "external": {"eq": false}, "rentable": {"eq": true}, "gpu_name": {"eq": "RTX 4090"}, "num_gpus": {"eq": "1"}, "order": [["score", "desc"]], "type": "on-demand", "limit": 3, "allocated_storage": 10.0}, "env": {"-p 8000:8000": "1"}}',
    );
    expect(launch.body).toMatchObject({ success: true, new_contract: expect.any(Number) });
    // A refusal: "Failed with error 400: <msg>".
    const gone = await cli(
      `PUT /api/v0/asks/${a.id}/`,
      `{"client_id": "me", "image": "x:y", "env": {}, "price": null, "disk": 10.0, "label": null, ${rest}, "runtype": "ssh"}`,
    );
    expect([gone.status, gone.headers.includes(jsonHeader), gone.body.msg]).toEqual([
      400,
      true,
      `error 404/3603: no_such_ask  Instance type by id ${a.id} is not available.`,
    ]);
    // destroy instances … -y
    const ids = sim.instances().map((it) => it.contract);
    expect(ids).toHaveLength(5);
    expect((await cli('DELETE /api/v0/instances/', `{"instance_ids": [${ids.join(', ')}]}`)).body).toEqual({
      success: true,
    });
    expect(sim.instances()).toEqual([]);
  }));

test('every answer of the API that is JSON has exactly the type that it insists on', () =>
  withCli(fastBoot, async (cli) => {
    for (const [head, body] of [
      ['POST /api/v0/bundles/', '{}'],
      ['GET /api/v0/users/current'],
      ['GET /api/v1/instances/'],
      ['GET /api/v0/instances/1/?owner=me'],
      ['PUT /api/v0/instances/1/', '{"state": "stopped"}'],
      ['PUT /api/v0/asks/1/', '{}'],
      ['PUT /api/v0/instances/request_logs/1/', '{}'],
      ['DELETE /api/v0/instances/1/', '{}'],
    ] as const) {
      expect((await cli(head, body)).headers, head).toContain(jsonHeader);
    }
  }));
