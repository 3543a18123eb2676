import { connect } from 'node:net';
import { expect, test } from 'vitest';
import { startSimulator } from '../../src/sim/simulator.ts';
import { fastBoot, one, vastClient } from './calls.ts';

/** Sends bytes as the official command line does, a connection each, and gives the raw answer. */
function exchange(url: string, head: string, body: string): Promise<{ status: number; head: string; body: string }> {
  const { hostname, port } = new URL(url);
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
      resolve({ status: Number(text.slice(9, 12)), head: text.slice(0, end), body: text.slice(end + 4) });
    });
    socket.on('error', reject);
    const length =
      body === '' ? '' : `Content-Length: ${Buffer.byteLength(body)}\r\nContent-Type: application/json\r\n`;
    socket.write(
      `${head} HTTP/1.1\r\nHost: ${hostname}:${port}\r\nUser-Agent: vastai-cli/0.0.0\r\nAccept-Encoding: gzip, deflate\r\n` +
        `Accept: */*\r\nConnection: keep-alive\r\nAuthorization: Bearer sim-vast-key\r\n${length}\r\n${body}`,
    );
  });
}

const searches: readonly (readonly [command: string, head: string, body: string])[] = [
  [
    "search offers 'gpu_name=RTX_4090 num_gpus=1 gpu_ram>=20 dph<0.9 …' -o dph --limit 5 --storage 20",
    'POST /api/v0/bundles/',
    '{"verified": {"eq": true}, "external": {"eq": false}, "rentable": {"eq": true}, "gpu_name": {"eq": "RTX 4090"}, "num_gpus": {"eq": "1"}, "gpu_ram": {"gte": 20000.0}, "dph_total": {"lt": "0.9"}, "direct_port_count": {"gte": "1"}, "cuda_max_good": {"gte": "12.2"}, "order": [["dph_total", "asc"]], "type": "on-demand", "limit": 5, "allocated_storage": 20.0}',
  ],
  [
    "search offers 'gpu_name=RTX_4090 num_gpus=1' --raw",
    'POST /api/v0/bundles/',
    '{"verified": {"eq": true}, "external": {"eq": false}, "rentable": {"eq": true}, "gpu_name": {"eq": "RTX 4090"}, "num_gpus": {"eq": "1"}, "order": [["score", "desc"]], "type": "on-demand", "allocated_storage": 5.0}',
  ],
  [
    "search offers 'num_gpus>=1 verified=any' -i --limit 2 --raw",
    'POST /api/v0/bundles/',
    '{"external": {"eq": false}, "rentable": {"eq": true}, "num_gpus": {"gte": "1"}, "order": [["score", "desc"]], "type": "bid", "limit": 2, "allocated_storage": 5.0}',
  ],
  [
    "search offers 'rented=False gpu_name in [RTX_4090,H100_SXM] reliability>0.9 …' -n --raw",
    'POST /api/v0/bundles/',
    '{"rented": {"eq": false}, "gpu_name": {"in": ["RTX 4090", "H100 SXM"]}, "reliability": {"gt": "0.9"}, "duration": {"gte": 172800.0}, "inet_down": {"gte": "150"}, "disk_space": {"gte": "50"}, "static_ip": {"eq": true}, "datacenter": {"eq": true}, "order": [["score", "desc"]], "type": "on-demand", "allocated_storage": 5.0}',
  ],
  [
    'search offers num_gpus=1 --new --raw',
    'PUT /api/v0/search/asks/',
    '{"select_cols": ["*"], "q": {"verified": {"eq": true}, "external": {"eq": false}, "rentable": {"eq": true}, "num_gpus": {"eq": "1"}, "order": [["score", "desc"]], "type": "on-demand", "allocated_storage": 5.0}}',
  ],
];

test.each(searches)('vastai %s', async (_command, head, body) => {
  await using sim = await startSimulator({ offers: { vast: 300 } });
  const answer = await exchange(sim.vastUrl, head, body);
  expect(answer.status).toBe(200);
  expect(answer.head.split('\r\n')).toContain('Content-Type: application/json');
  expect(JSON.parse(answer.body).offers.length).toBeGreaterThan(0);
});

const listQuery = 'select_filters=%7B%7D&order_by=%5B%7B%22col%22%3A+%22id%22%2C+%22dir%22%3A+%22asc%22%7D%5D&limit=25';
const columns =
  'select_cols=%5B%22id%22%2C+%22actual_status%22%2C+%22label%22%2C+%22num_gpus%22%2C+%22gpu_name%22%2C+%22gpu_util%22%2C+%22disk_space%22%2C+%22disk_usage%22%2C+%22disk_util%22%2C+%22volume_info%22%2C+%22dph_total%22%2C+%22image_uuid%22%2C+%22start_date%22%2C+%22verification%22%5D';

test('the life of an instance in the hands of the official command line', async () => {
  await using sim = await startSimulator(fastBoot);
  const vast = vastClient(sim);
  const send = async (head: string, body = '') => {
    const answer = await exchange(sim.vastUrl, head, body);
    return { status: answer.status, body: JSON.parse(answer.body) };
  };
  const names = await send('GET /api/v0/gpu_names/unique/');
  expect(names.body.gpu_names).toContain('H100 SXM');

  const { id: ask } = await vast.ask();
  // create instance … --env '-p 8000:8000 -e FOO=bar -h worker1' --ssh --direct
  const create = await send(
    `PUT /api/v0/asks/${ask}/`,
    '{"client_id": "me", "image": "vllm/vllm-openai:latest", "env": {"-p 8000:8000": "1", "FOO": "bar", "-h": "worker1"}, "price": null, "disk": 40.0, "label": "gpuproxy-1", "extra": null, "onstart": "echo hi", "image_login": null, "python_utf8": false, "lang_utf8": false, "use_jupyter_lab": false, "jupyter_dir": null, "force": false, "cancel_unavail": false, "template_hash_id": null, "user": null, "runtype": "ssh_direc ssh_proxy"}',
  );
  expect(create).toEqual({
    status: 200,
    body: { success: true, new_contract: expect.any(Number), instance_api_key: expect.any(String) },
  });
  const id = create.body.new_contract as number;

  const raw = await send(`GET /api/v1/instances/?${listQuery}`);
  // The command line dies of a row without a start date or with variables that are no pairs.
  expect(raw.body.instances).toMatchObject([
    { id, start_date: expect.any(Number), extra_env: expect.arrayContaining([['FOO', 'bar']]) },
  ]);
  expect((await send('GET /api/v0/instances/filters/')).body.filters).toHaveLength(1);
  const table = await send(`GET /api/v1/instances/?${listQuery}&${columns}`);
  expect(Object.keys(one(table.body.instances as object[]))).toHaveLength(14);
  const filters = encodeURIComponent(
    '{"actual_status": {"in": ["running"]}, "label": {"in": ["gpuproxy-1"]}, "gpu_name": {"in": ["RTX_4090"]}}',
  );
  const order = encodeURIComponent('[{"col": "dph_total", "dir": "desc"}, {"col": "id", "dir": "asc"}]');
  const filtered = await send(`GET /api/v1/instances/?select_filters=${filters}&order_by=${order}&limit=10`);
  expect(filtered).toMatchObject({ status: 200, body: { instances: [], next_token: null } });

  expect((await send(`GET /api/v0/instances/${id}/?owner=me`)).body.instances.label).toBe('gpuproxy-1');
  expect((await send(`PUT /api/v0/instances/${id}/`, '{"state": "stopped"}')).body).toEqual({ success: true });
  expect((await send(`PUT /api/v0/instances/${id}/`, '{"state": "running"}')).body).toEqual({ success: true });
  expect((await send(`PUT /api/v0/instances/${id}/`, '{"label": "x"}')).body).toEqual({ success: true });
  expect((await send(`PUT /api/v0/instances/reboot/${id}/`, '{}')).body).toEqual({ success: true });
  const bid = await send(`PUT /api/v0/instances/bid_price/${id}/`, '{"client_id": "me", "price": 0.2}');
  expect(bid.body).toEqual({ success: true });
  const logs = await send(`PUT /api/v0/instances/request_logs/${id}/`, '{"tail": "50"}');
  expect(logs.body.result_url).toMatch(/^http.*\.log$/);
  expect((await send('GET /api/v0/users/current')).body).toMatchObject({
    credit: expect.any(Number),
    sid: expect.any(String),
  });
  expect((await send(`DELETE /api/v0/instances/${id}/`, '{}')).body.success).toBe(true);
  expect((await send(`GET /api/v0/instances/${id}/?owner=me`)).body).toEqual({ instances: null });
});

test('several at once, interruptible, and by search, as the official command line asks', async () => {
  await using sim = await startSimulator(fastBoot);
  const vast = vastClient(sim);
  const send = async (head: string, body: string) => JSON.parse((await exchange(sim.vastUrl, head, body)).body);
  const { offers } = (await vast.search({ rentable: { eq: true }, direct_port_count: { gte: 1 } })).body;
  const spec =
    '"client_id": "me", "image": "x:y", "env": {"-p 70000:8000/udp": "1", "A": "b c"}, "disk": 10.0, "label": null, "runtype": "ssh"';
  const many = await send(
    'POST /api/v0/asks/bulk/',
    `{${spec}, "price": null, "ids": [${one(offers).id}, ${one(offers, 1).id}]}`,
  );
  expect(many.success).toBe(true);
  const third = one(offers, 2);
  const bid = await send(`PUT /api/v0/asks/${third.id}/`, `{${spec}, "price": ${third.min_bid + 0.02}}`);
  expect(bid.success).toBe(true);
  expect(await vast.get(bid.new_contract)).toMatchObject({ is_bid: true });
  const launch = await send(
    'PUT /api/v0/launch_instance/',
    '{"image": "x:y", "disk": 10.0, "env": {"-p 8000:8000": "1"}, "q": {"gpu_name": {"eq": "RTX 4090"}, "num_gpus": {"eq": "1"}, "order": [["score", "desc"]], "limit": 3}}',
  );
  expect(launch.success).toBe(true);
  const ids = sim.instances().map((it) => it.contract);
  expect(ids).toHaveLength(4);
  expect(await send('DELETE /api/v0/instances/', `{"instance_ids": [${ids}]}`)).toEqual({ success: true });
  expect(sim.instances()).toEqual([]);
});
