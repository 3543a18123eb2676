import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import { type AddressInfo, connect } from 'node:net';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { type Simulator, startSimulator } from '../../src/sim/simulator.ts';
import { eventually } from '../helpers/eventually.ts';
import { createProgram, type Outcome, type Program } from './program.ts';

/** One for each way in; a leak names the way by its text. */
const secrets = {
  vastKey: 'PLANTED-vast-key',
  ionetKey: 'PLANTED-ionet-key',
  upstreamKey: 'PLANTED-upstream-key',
  adminKey: 'PLANTED-admin-key',
  collectorKey: 'PLANTED-collector-key',
  flagKey: 'PLANTED-flag-key',
  wrongKey: 'PLANTED-wrong-key',
  bearer: 'PLANTED-bearer',
  cookie: 'PLANTED-cookie',
  query: 'PLANTED-query',
  env: 'PLANTED-env',
  onstart: 'PLANTED-onstart',
  arg: 'PLANTED-arg',
  probe: 'PLANTED-probe',
  body: 'PLANTED-body',
  urlPassword: 'PLANTED-url/password',
  urlQuery: 'PLANTED-url-query',
  pem: 'PLANTED-pem',
  dotenv: 'PLANTED-dotenv',
} as const;

let program: Program;
let simulator: Simulator;
let collector: Server;
let server: ChildProcess;
let folder: string;
let log = '';
let api = '';
let proxy = '';
/** Everything that came out, by where it came out. */
const outputs = new Map<string, string>();
const keep = (name: string, text: string) => outputs.set(name, `${outputs.get(name) ?? ''}${text}\n`);
const outcome = (name: string, { stdout, stderr }: Outcome) => keep(name, `${stdout}\n${stderr}`);

beforeAll(async () => {
  [program, simulator] = await Promise.all([
    createProgram(),
    startSimulator({ vastKey: secrets.vastKey, ionetKey: secrets.ionetKey, bootMs: { min: 50, max: 100 }, speed: 50 }),
  ]);
  let spans = '';
  collector = createServer((req, res) => {
    req.setEncoding('utf8').on('data', (text: string) => {
      spans += text;
      outputs.set('spans', spans);
    });
    req.on('end', () => res.end('{}'));
  }).listen(0, '127.0.0.1');
  await new Promise((resolve) => collector.once('listening', resolve));
  folder = mkdtempSync(join(program.folder, 'secrets-'));
  mkdirSync(join(folder, 'conf'));
  server = spawn(process.execPath, [program.main, 'serve', '--port', '0', '--proxy-port', '0', '--threads', '1'], {
    cwd: folder,
    env: program.environment({
      GPUPROXY_CONFIG_DIR: join(folder, 'conf'),
      GPUPROXY_DATA_DIR: join(folder, 'data'),
      GPUPROXY_API_KEY: secrets.adminKey,
      VASTAI_API_KEY: secrets.vastKey,
      VASTAI_URL: simulator.vastUrl,
      IONET_API_KEY: secrets.ionetKey,
      IONET_URL: simulator.ionetUrl,
      UPSTREAM_API_KEY: secrets.upstreamKey,
      OTEL_EXPORTER_OTLP_ENDPOINT: `http://127.0.0.1:${(collector.address() as AddressInfo).port}`,
      OTEL_EXPORTER_OTLP_HEADERS: `x-key=${secrets.collectorKey}`,
      ACCESS_LOG: join(folder, 'access.log'),
      // Knows no such path, which is said of it.
      UPSTREAMS: `wrong=${simulator.vastUrl}`,
      HEALTH_PATH: `/health?key=${secrets.probe}`,
      HEALTH_INTERVAL_SECONDS: '0.2',
      REFRESH_SECONDS: '1',
      PROXY_AUTH: 'required',
    }),
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  for (const stream of [server.stdout, server.stderr]) {
    stream?.setEncoding('utf8').on('data', (text: string) => {
      log += text;
    });
  }
  await eventually(() => /data plane +http/.test(log), 'the addresses');
  const address = (name: string) => new RegExp(`${name} +(http://[0-9.:]+)`).exec(log)?.[1] ?? '';
  [api, proxy] = [address('control plane'), address('data plane')];
});
afterAll(async () => {
  server?.kill('SIGKILL');
  collector?.close();
  await simulator?.[Symbol.asyncDispose]();
  program?.remove();
});

const call = async (
  name: string,
  method: string,
  path: string,
  body?: unknown,
  headers: Record<string, string> = {},
) => {
  const answer = await fetch(`${api}${path}`, {
    method,
    headers: {
      'x-api-key': secrets.adminKey,
      ...(body === undefined ? {} : { 'content-type': 'application/json' }),
      ...headers,
    },
    ...(body === undefined ? {} : { body: typeof body === 'string' ? body : JSON.stringify(body) }),
  });
  const text = await answer.text();
  keep(`${name} (${method} ${path})`, `${JSON.stringify([...answer.headers])}\n${text}`);
  return { status: answer.status, text };
};

it('no secret that goes in anywhere comes out anywhere', { timeout: 120_000 }, async () => {
  await eventually(async () => {
    const { text } = await call('offers', 'GET', '/api/v1/gpu/instances');
    return (JSON.parse(text) as { count: number }).count > 0;
  }, 'offers');

  // In: bodies, good and bad.
  const config = { env: { HF_TOKEN: secrets.env }, onstart: `curl -H 'Authorization: ${secrets.onstart}' x` };
  const rented = await call(
    'reserve',
    'POST',
    '/api/v1/gpu/instances/reserve',
    { count: 2, config },
    { 'idempotency-key': 'once' },
  );
  expect(rented.status).toBe(201);
  const replay = await call(
    'replay',
    'POST',
    '/api/v1/gpu/instances/reserve',
    { count: 2, config },
    { 'idempotency-key': 'once' },
  );
  expect(replay.status).toBe(201);
  await call('bad env', 'POST', '/api/v1/gpu/instances/reserve', { count: 1, config: { env: secrets.env } });
  await call('bad env name', 'POST', '/api/v1/gpu/instances/reserve', {
    count: 1,
    config: { env: { 'A B': secrets.env } },
  });
  await call('bad args', 'POST', '/api/v1/gpu/instances/reserve', { count: 1, config: { args: secrets.arg } });
  await call('long arg', 'POST', '/api/v1/gpu/instances/reserve', {
    count: 1,
    config: { args: [secrets.arg.repeat(400)] },
  });
  await call('bad onstart', 'POST', '/api/v1/gpu/instances/reserve', {
    count: 1,
    config: { onstart: [secrets.onstart] },
  });
  await call('bad json', 'POST', '/api/v1/gpu/instances/reserve', `{"count": 1, "x": "${secrets.body}`);
  await call('bad key', 'POST', '/api/v1/keys', { name: 'x', scope: 'read', key: secrets.body });
  for (const url of [`http://me:${secrets.urlPassword}@127.0.0.1:9`, `http://127.0.0.1:9/?token=${secrets.urlQuery}`]) {
    expect((await call('upstream', 'POST', '/api/v1/upstreams', { name: 'mine', url })).status).toBe(400);
  }

  // In: headers and query strings, of both planes.
  await call('wrong key', 'GET', '/api/v1/fleet', undefined, { 'x-api-key': secrets.wrongKey, cookie: secrets.cookie });
  await call('query', 'GET', `/api/v1/fleet?api_key=${secrets.query}`);
  await call('unknown path', 'GET', `/api/v1/flet?token=${secrets.query}`, undefined, {
    authorization: `Bearer ${secrets.bearer}`,
  });
  await eventually(async () => (await call('ready', 'GET', '/readyz')).status === 200, 'an upstream in rotation');
  for (const headers of [
    { 'x-api-key': secrets.adminKey, cookie: secrets.cookie },
    { 'x-api-key': secrets.wrongKey },
    { authorization: `Bearer ${secrets.bearer}` },
    {},
  ]) {
    const answer = await fetch(`${proxy}/v1/chat/completions?key=${secrets.query}`, {
      method: 'POST',
      headers: { 'content-type': 'application/json', ...(headers as Record<string, string>) },
      body: JSON.stringify({ max_tokens: 3, messages: [{ role: 'user', content: secrets.body }] }),
    });
    const text = await answer.text();
    // What a model says to its own user is the user's; what the proxy says itself is looked at.
    if (answer.status >= 400) keep(`data plane ${Object.keys(headers)}`, text);
  }
  for (const port of [new URL(api).port, new URL(proxy).port]) {
    outputs.set(
      `broken request to ${port}`,
      await raw(Number(port), `GET / HTTP/1.1\r\nHost: x\r\nX-API-Key ${secrets.bearer}\r\n\r\n`),
    );
  }

  // In: answers of providers that quote what they were sent.
  for (const provider of ['vast', 'ionet'] as const) {
    const key = provider === 'vast' ? secrets.vastKey : secrets.ionetKey;
    const status = provider === 'vast' ? 401 : 400;
    const body = { msg: `no such key: ${key}`, detail: `Authorization: Bearer ${key}`, error: `key ${key}` };
    simulator.faults.add({ kind: 'error', status, body, provider });
    await call('provider trouble', 'POST', '/api/v1/providers/refresh');
    await call('rent in trouble', 'POST', '/api/v1/gpu/instances/reserve', { count: 1, config });
    await eventually(async () => {
      const { text } = await call('providers', 'GET', '/api/v1/providers');
      return text.includes('"status":"error"');
    }, 'the trouble to be seen');
    simulator.faults.clear();
  }

  // In: flags, environment and files of commands, and what they say.
  const at = ['-u', api, '-k', secrets.flagKey];
  outcome('load', await program.run(['load', ...at]));
  outcome('load debug', await program.run(['load', '--debug', ...at]));
  outcome('curl', await program.run(['reserve', '2', '--curl', ...at]));
  const given = ['--env', `HF_TOKEN=${secrets.env}`, '--onstart', `echo '${secrets.onstart}'`];
  given.push('--arg=--api-key', `--arg=${secrets.arg}`, `--arg=--hf-token=${secrets.arg}`);
  given.push(`--arg=https://bob:${secrets.arg}-url@hub/m`, `--arg=--from=git+https://${secrets.arg}-user@hub/m`);
  const paid = [
    ['reserve', '1'],
    ['batch', '--vastai', '1'],
    ['rent', 'vast.ai', '1'],
  ] as const;
  for (const words of paid) {
    const curl = await program.run([...words, ...given, '--curl', ...at]);
    outcome(`${words[0]} curl`, curl);
    expect(curl.stdout).toContain(`"env":{"HF_TOKEN":"'"$HF_TOKEN"'"},"onstart":"'"$ONSTART"'"`);
    expect(curl.stdout).toContain(
      `"args":["--api-key","'"$API_KEY"'","--hf-token='"$HF_TOKEN"'","https://bob:'"$URL_PASSWORD"'@hub/m","--from=git+https://'"$URL_USER"'@hub/m"]`,
    );
  }
  const { instances } = JSON.parse((await call('offers', 'GET', '/api/v1/gpu/instances?provider=vast')).text) as {
    instances: { id: string }[];
  };
  for (const words of [paid[0], paid[1], ['rent', 'vast.ai', instances[0]?.id ?? '']]) {
    const planned = await program.run([...words, ...given, '--dry-run', '--json', '-u', api, '-k', secrets.adminKey]);
    outcome(`${words[0]} dry run`, planned);
    expect(planned.stdout, planned.stderr).toContain('"env":{"HF_TOKEN":"$HF_TOKEN"},"onstart":"$ONSTART"');
    expect(planned.stdout).toContain(
      '"args":["--api-key","$API_KEY","--hf-token=$HF_TOKEN","https://bob:$URL_PASSWORD@hub/m","--from=git+https://$URL_USER@hub/m"]',
    );
  }
  for (const key of [`gp_${secrets.wrongKey}`, secrets.flagKey]) {
    const revoked = await program.run(['keys', 'revoke', key, ...at]);
    outcome('revoke a key by itself', revoked);
    expect([revoked.code, revoked.stderr]).toEqual([2, expect.stringContaining('got a key, accepts its id')]);
  }
  outcome('stray word', await program.run(['-key', secrets.flagKey, 'lod']));
  outcome('wrong option', await program.run(['load', '--kex', '-k', secrets.flagKey]));
  outcome('bad env flag', await program.run(['reserve', '1', '--env', `A B=${secrets.env}`, ...at]));
  for (const url of [
    `http://me:${secrets.urlPassword}@127.0.0.1:9`,
    `http://127.0.0.1:9/?token=${secrets.urlQuery}`,
    `me:${secrets.urlPassword}@127.0.0.1:9`,
  ]) {
    for (const command of [['load'], ['tui', '--once'], ['doctor', '--offline']]) {
      const [flag, variable] = await Promise.all([
        program.run([...command, '-u', url]),
        program.run(command, { env: { GPUPROXY_URL: url } }),
      ]);
      outcome(`${command} url`, flag);
      outcome(`${command} GPUPROXY_URL`, variable);
    }
    const env = { GPUPROXY_CONFIG_DIR: join(folder, 'urls') };
    const set = await program.run(['config', 'set', 'url', url], { env });
    outcome('set url', set);
    expect([set.code, set.stderr]).toEqual([2, expect.stringContaining('without user, password, query')]);
    outcome('set url, after', await program.run(['config', 'show'], { env }));
    expect(existsSync(join(folder, 'urls', 'config.json'))).toBe(false);
    // What an older version took.
    mkdirSync(join(folder, 'old'), { recursive: true });
    writeFileSync(join(folder, 'old', 'config.json'), JSON.stringify({ url }));
    for (const args of [['config', 'get'], ['config', 'get', 'url'], ['config', 'show'], ['load']]) {
      outcome(`old ${args.join(' ')}`, await program.run(args, { env: { GPUPROXY_CONFIG_DIR: join(folder, 'old') } }));
    }
  }
  const env = {
    GPUPROXY_API_KEY: secrets.adminKey,
    VASTAI_API_KEY: secrets.vastKey,
    VASTAI_URL: simulator.vastUrl,
    HEALTH_PATH: `/health?key=${secrets.probe}`,
  };
  for (const args of [
    ['doctor'],
    ['config', 'show'],
    ['config', 'show', '--json'],
    ['load', '--debug'],
    ['version'],
    ['keys'],
    ['events', '--help'],
  ]) {
    outcome(args.join(' '), await program.run([...args, ...(args[0] === 'config' ? [] : ['-u', api])], { env }));
  }
  mkdirSync(join(folder, 'dotenv'));
  writeFileSync(
    join(folder, 'dotenv', '.env'),
    `VASTAI_API_KEY=${secrets.dotenv}\nGPUPROXY_API_KEY=${secrets.dotenv}\n`,
  );
  for (const args of [
    ['doctor', '--offline'],
    ['config', 'show'],
    ['load', '--debug'],
  ]) {
    outcome(`.env ${args}`, await program.run(args, { cwd: join(folder, 'dotenv'), env: { GPUPROXY_URL: api } }));
  }
  expect(outputs.get('config show')).toMatch(/^HEALTH_PATH +environment +\/health\?…$/m);
  expect((await call('fleet', 'GET', '/api/v1/fleet')).text).toContain('/health?… answered 404');
  outcome('doctor wrong key', await program.run(['doctor'], { env: { ...env, VASTAI_API_KEY: secrets.wrongKey } }));
  outcome(
    'set',
    await program.run(['config', 'set', 'apiKey', secrets.flagKey], {
      env: { GPUPROXY_CONFIG_DIR: join(folder, 'other') },
    }),
  );
  outcome('get', await program.run(['config', 'show'], { env: { GPUPROXY_CONFIG_DIR: join(folder, 'other') } }));
  const pem = `-----BEGIN PRIVATE KEY-----\n${secrets.pem}\n-----END PRIVATE KEY-----\n`;
  for (const [name, value] of [
    ['UPSTREAMS', `a=http://me:${secrets.urlPassword}@127.0.0.1:9`],
    ['UPSTREAMS', `a=http://127.0.0.1:9/?token=${secrets.urlQuery}`],
    ['UPSTREAMS', `a=http://me:${secrets.urlPassword},more@127.0.0.1:9`],
    ['VASTAI_URL', `http://me:${secrets.urlPassword}@127.0.0.1:9`],
    ['VASTAI_URL', `http://127.0.0.1:9/?api_key=${secrets.urlQuery}`],
    ['OTEL_EXPORTER_OTLP_ENDPOINT', `http://127.0.0.1:9/?api_key=${secrets.urlQuery}`],
    ['OTEL_EXPORTER_OTLP_ENDPOINT', `http://127.0.0.1:9/#${secrets.urlQuery}`],
    ['OTEL_EXPORTER_OTLP_HEADERS', `no header ${secrets.collectorKey}`],
    ['GPUPROXY_API_KEY', 'PLANTED'],
    ['TLS_KEY', pem],
    ['TLS_CERT', pem],
  ] as const) {
    const env = { [name]: value, GPUPROXY_PORT: '99999' };
    for (const wrong of await Promise.all([
      program.run(['serve'], { env }),
      program.run(['config', 'show'], { env }),
    ])) {
      outcome(`a wrong ${name}`, wrong);
      expect(wrong.stderr).toContain(`${name}: got`);
    }
  }
  outcome(
    'dashboard',
    await program.run(['tui', '--once', '-u', api], {
      env: { GPUPROXY_API_KEY: secrets.adminKey, COLUMNS: '200', LINES: '60' },
    }),
  );

  // Out: everything that can be asked for.
  for (const path of [
    'fleet',
    'state',
    'reservations',
    'providers',
    'requests',
    'decisions',
    'keys',
    'cost',
    'loadbalancer/loads',
    'openapi.json',
    'docs',
  ]) {
    expect((await call('out', 'GET', `/api/v1/${path}`)).status, path).toBe(200);
  }
  await call('out', 'GET', '/metrics');
  const stop = new AbortController();
  const events = await fetch(`${api}/api/v1/events?last_event_id=0`, {
    headers: { 'x-api-key': secrets.adminKey },
    signal: stop.signal,
  });
  const first = await events.body!.getReader().read();
  outputs.set('events', new TextDecoder().decode(first.value));
  stop.abort();
  await eventually(() => outputs.has('spans'), 'spans');

  const ended = new Promise((resolve) => server.once('exit', resolve));
  server.kill('SIGTERM');
  await ended;
  outputs.set('log of the server', log);
  const files = [
    join(folder, 'access.log'),
    ...readdirSync(join(folder, 'data')).map((name) => join(folder, 'data', name)),
  ];
  for (const file of files) {
    if (statSync(file).isFile()) outputs.set(file, readFileSync(file, 'latin1'));
  }
  expect(files.length).toBeGreaterThan(1);
  expect(outputs.get(join(folder, 'access.log'))).toContain('/v1/chat/completions');

  const leaks = [...outputs].flatMap(([where, text]) =>
    Object.values(secrets)
      .filter((secret) => text.includes(secret))
      .map((secret) => `${secret} in ${where}: ${excerpt(text, secret)}`),
  );
  expect(leaks).toEqual([]);
});

function excerpt(text: string, secret: string): string {
  const at = text.indexOf(secret);
  return JSON.stringify(text.slice(Math.max(0, at - 80), at + secret.length + 20));
}

function raw(port: number, text: string): Promise<string> {
  return new Promise((resolve) => {
    let received = '';
    const socket = connect(port, '127.0.0.1', () => socket.write(text));
    socket.setEncoding('utf8').on('data', (part: string) => {
      received += part;
    });
    socket.on('error', () => {});
    socket.on('close', () => resolve(received));
  });
}
