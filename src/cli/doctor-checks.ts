import { existsSync, statSync } from 'node:fs';
import { statfs } from 'node:fs/promises';
import type { Server } from 'node:net';
import { dirname, join } from 'node:path';
import { type Config, ConfigError, loadConfig } from '../config.ts';
import { withoutUrlSecrets } from '../core/base-url.ts';
import { counted } from '../core/words.ts';
import { marketplaces } from '../providers/index.ts';
import { ProviderError } from '../providers/provider.ts';
import { readAnswer } from './answers.ts';
import type { Client } from './client.ts';
import { defaultDataDir } from './data-dir.ts';
import { CliError, exitCodes } from './exit.ts';
import { usd } from './output.ts';
import { preferencesFile } from './preferences-file.ts';
import { storedVariables } from './server-config.ts';
import { checkAccessLog, checkDataDir, readTls, tryFile } from './start-checks.ts';

export type Check = Readonly<{
  name: string;
  status: 'ok' | 'warn' | 'fail' | 'skip';
  detail: string;
  /** What to do; null when nothing is to be done. */
  hint: string | null;
}>;

const ok = (name: string, detail: string): Check => ({ name, status: 'ok', detail, hint: null });
const skip = (name: string, detail: string): Check => ({ name, status: 'skip', detail, hint: null });
const warn = (name: string, detail: string, hint: string): Check => ({ name, status: 'warn', detail, hint });
const fail = (name: string, detail: string, hint: string): Check => ({ name, status: 'fail', detail, hint });

const neededMajor = 24;
const lowCreditUsd = 5;
const lowDiskBytes = 256 * 1024 * 1024;
const maxSkewMs = 60_000;
const networkTimeoutMs = 10_000;

/**
 * Everything that must be right for the program to work, each check with what to do. `client` is an error where the
 * settings of the client commands are wrong. Never throws.
 */
export async function runChecks({
  client,
  offline,
}: Readonly<{ client: Client | CliError; offline: boolean }>): Promise<readonly Check[]> {
  const checks: Check[] = [checkNode()];
  const config = readConfig();
  if (!isConfig(config)) checks.push(...config);
  const known = (message: string) => checks.some(({ detail }) => detail.startsWith(message.split(':')[0] ?? message));
  if (client instanceof CliError && !known(client.message)) {
    checks.push(fail('configuration', client.message, client.hint ?? 'correct it'));
  }
  if (!isConfig(config)) {
    checks.push(...checkSecrets());
    if (!(client instanceof CliError)) checks.push(...(await checkServer(client)).checks);
    checks.push(
      skip('the rest', 'data folder, ports, upstreams and providers: not tried until the configuration is right'),
    );
    return checks;
  }
  checks.push(checkSources(config), ...checkSecrets(), ...checkFiles(config), await checkFolder(config));
  const running = client instanceof CliError ? notTried : await checkServer(client);
  checks.push(...running.checks);
  checks.push(...(await checkPorts(config, running.alive)));
  checks.push(...(await Promise.all(config.UPSTREAMS.map((upstream) => checkUpstream(upstream, config.HEALTH_PATH)))));
  for (const marketplace of marketplaces) {
    const apiKey = config[`${marketplace.env}_API_KEY`];
    if (apiKey === undefined) checks.push(skip(marketplace.name, `off: ${marketplace.env}_API_KEY is not set`));
    else if (offline) checks.push(skip(marketplace.name, 'not asked: --offline'));
    else {
      checks.push(...(await checkProvider(marketplace, apiKey, config)));
    }
  }
  return checks;
}

const notTried = { alive: false, checks: [skip('server', 'not tried: no right address or key')] };

/** The configuration, or what is wrong with it. */
function readConfig(): Config | Check[] {
  try {
    return loadConfig({ environment: process.env, cwd: process.cwd(), stored: storedVariables() });
  } catch (error) {
    if (error instanceof CliError) return [fail('configuration', error.message, error.hint ?? 'correct it')];
    if (!(error instanceof ConfigError)) throw error;
    const hint = 'correct it; .env.example says what each variable accepts';
    return error.message.split('\n').map((line) => fail('configuration', line, hint));
  }
}

const isConfig = (value: Config | Check[]): value is Config => !Array.isArray(value);

function checkNode(): Check {
  const version = process.versions.node;
  return Number.parseInt(version, 10) >= neededMajor
    ? ok('node', `${version} (${process.execPath})`)
    : fail('node', version, `install Node ${neededMajor} or newer`);
}

function checkSources(config: Config): Check {
  const set = Object.values(config.origin).filter((origin) => origin !== 'default').length;
  const sources = marketplaces
    .filter((each) => config[`${each.env}_API_KEY`] !== undefined)
    .map((each) => each.name as string);
  if (config.UPSTREAMS.length > 0) sources.push(counted(config.UPSTREAMS.length, 'upstream'));
  return sources.length === 0
    ? warn(
        'configuration',
        `${set === 1 ? '1 variable is' : `${set} variables are`} set, none says where GPUs come from`,
        'set VASTAI_API_KEY, IONET_API_KEY or UPSTREAMS; until then "gpuproxy tui" shows a simulated fleet',
      )
    : ok(
        'configuration',
        `${set === 1 ? '1 variable is' : `${set} variables are`} set; GPUs from ${sources.join(', ')}`,
      );
}

/** Files that hold keys must not be readable by others. */
function checkSecrets(): Check[] {
  if (process.platform === 'win32') return [];
  return [preferencesFile(), join(process.cwd(), '.env')].flatMap((file) => {
    if (!existsSync(file)) return [];
    const mode = statSync(file).mode & 0o777;
    return (mode & 0o077) === 0
      ? [ok('secrets', `${file} is readable by its owner alone`)]
      : [warn('secrets', `${file} is readable by others (mode ${mode.toString(8)})`, `chmod 600 ${file}`)];
  });
}

/** Files without which the server does not start. */
function checkFiles(config: Config): Check[] {
  const check = (name: string, look: () => void, detail: string): Check => {
    try {
      look();
      return ok(name, detail);
    } catch (error) {
      if (!(error instanceof ConfigError)) throw error;
      return fail(name, error.message, 'correct the variable, or the permissions of the file');
    }
  };
  const { TLS_CERT: cert, ACCESS_LOG: log } = config;
  return [
    ...(cert === undefined ? [] : [check('TLS', () => readTls(config), `${cert} and its key can be used`)]),
    ...(log === 'off' || log === '-'
      ? []
      : [check('access log', () => checkAccessLog(config, tryFile), `${log} can be written`)]),
  ];
}

const makeRoom = 'make room: the ledger must be able to grow';

async function checkFolder(config: Config): Promise<Check> {
  const folder = config.GPUPROXY_DATA_DIR ?? defaultDataDir();
  let existing = folder;
  while (!existsSync(existing) && dirname(existing) !== existing) existing = dirname(existing);
  try {
    checkDataDir(folder);
  } catch (error) {
    const { code = 'unknown error' } = error as NodeJS.ErrnoException;
    return ['ENOSPC', 'EDQUOT'].includes(code)
      ? fail('data folder', `${folder} is full (${code})`, makeRoom)
      : fail(
          'data folder',
          `${folder} cannot be made or written (${code})`,
          'correct its permissions, or set GPUPROXY_DATA_DIR to a folder of your own',
        );
  }
  const { bavail, bsize } = await statfs(existing);
  const free = bavail * bsize;
  const text = `${folder}, ${Math.round(free / 1024 / 1024)} MiB free`;
  return free < lowDiskBytes ? fail('data folder', text, makeRoom) : ok('data folder', text);
}

async function checkServer(client: Client): Promise<{ alive: boolean; checks: Check[] }> {
  const { url, key } = client.connection;
  try {
    await client.call('GET', '//healthz', { timeoutMs: 3000 });
  } catch (error) {
    const told = error instanceof CliError ? error : null;
    if (told?.exitCode === exitCodes.unreachable) {
      return {
        alive: false,
        checks: [warn('server', told.message, told.hint ?? 'gpuproxy serve'), skip('key', 'not tried: no server')],
      };
    }
    return {
      alive: true,
      checks: [fail('server', told?.message ?? String(error), told?.hint ?? 'check GPUPROXY_URL')],
    };
  }
  const checks = [ok('server', `${url} answers`)];
  try {
    const { headers } = await client.call('GET', '/loadbalancer/strategy', { timeoutMs: 3000 });
    checks.push(
      key === null ? warn('key', 'the server asks for none', 'keep it on loopback') : ok('key', 'the server knows it'),
    );
    checks.push(...skewCheck('clock', headers.date));
    const { body } = await client.call('GET', '/providers', { timeoutMs: 3000 });
    for (const row of readAnswer('providers', body, url).providers) {
      if (row.status !== 'error') continue;
      checks.push(
        fail(
          `server: ${row.provider}`,
          row.last_error?.message ?? 'no answer',
          'look at "gpuproxy providers" and the key that the server has',
        ),
      );
    }
    const ready = await client.call('GET', '//readyz', { timeoutMs: 3000 }).catch((error: unknown) => error);
    checks.push(
      ready instanceof Error
        ? warn('ready', ready.message, '"gpuproxy fleet" says why; "gpuproxy reserve 1" rents')
        : ok('ready', 'an upstream takes requests'),
    );
  } catch (error) {
    const told = error instanceof CliError ? error : null;
    checks.push(fail('key', told?.why ?? told?.message ?? String(error), told?.hint ?? 'gpuproxy config set apiKey'));
  }
  return { alive: true, checks };
}

async function checkPorts(config: Config, alive: boolean): Promise<Check[]> {
  const wanted = [
    ['control plane', 'GPUPROXY_PORT', config.GPUPROXY_PORT],
    ['data plane', 'GPUPROXY_PROXY_PORT', config.GPUPROXY_PROXY_PORT],
  ] as const;
  const checks: Check[] = [];
  for (const [name, variable, port] of wanted) {
    if (port === 0) {
      checks.push(ok(name, 'takes a free port'));
      continue;
    }
    const code = await listenCode(config.GPUPROXY_HOST, port);
    const where = `${config.GPUPROXY_HOST}:${port}`;
    if (code === null) checks.push(ok(name, `${where} is free`));
    else if (code === 'EADDRINUSE' && alive) checks.push(ok(name, `${where} is in use, and a server answers`));
    else if (code === 'EADDRINUSE') {
      checks.push(
        fail(
          name,
          `${where} is in use, and not by the server that is asked`,
          `find who it is (ss -ltnp 'sport = :${port}'): a gpuproxy is found by GPUPROXY_URL, for another program set ${variable}`,
        ),
      );
    } else checks.push(fail(name, `${where} cannot be used (${code})`, `set GPUPROXY_HOST or ${variable}`));
  }
  return checks;
}

/** null when one can listen there, else the code of the system. */
async function listenCode(host: string, port: number): Promise<string | null> {
  const { createServer } = await import('node:net');
  const server: Server = createServer();
  return new Promise((resolve) => {
    server.once('error', (error: NodeJS.ErrnoException) => resolve(error.code ?? 'unknown error'));
    server.listen({ host, port, exclusive: true }, () => server.close(() => resolve(null)));
  });
}

async function checkUpstream({ name, url }: { name: string; url: string }, healthPath: string): Promise<Check> {
  const answer = await head(`${url}${healthPath}`, 'GET');
  const probed = withoutUrlSecrets(`${url}${healthPath}`);
  if (typeof answer === 'string')
    return fail(`upstream ${name}`, `${url}: ${answer}`, 'start it, or correct UPSTREAMS');
  return answer.status < 400
    ? ok(`upstream ${name}`, `${probed} answers ${answer.status}`)
    : fail(`upstream ${name}`, `${probed} answers ${answer.status}`, 'correct UPSTREAMS or HEALTH_PATH');
}

async function checkProvider(
  marketplace: (typeof marketplaces)[number],
  apiKey: string,
  config: Config,
): Promise<Check[]> {
  const { name, env } = marketplace;
  const baseUrl = config[`${env}_URL`];
  const reached = await head(baseUrl, 'HEAD');
  if (typeof reached === 'string') {
    return [fail(name, `${baseUrl}: ${reached}`, `check the network, or ${env}_URL`)];
  }
  const checks: Check[] = [...skewCheck(`${name} clock`, reached.date)];
  const provider = marketplace.create({ apiKey, baseUrl, instancePort: config.INSTANCE_PORT });
  const started = performance.now();
  try {
    const signal = AbortSignal.timeout(networkTimeoutMs);
    const credit = provider.balance === undefined ? null : await provider.balance(signal);
    const rented = await provider.list(signal);
    const text = `key accepted, ${counted(rented.length, 'instance')}, ${Math.round(performance.now() - started)} ms`;
    if (credit === null) checks.push(ok(name, `${text}; it does not tell its credit`));
    else if (credit < lowCreditUsd)
      checks.push(
        warn(name, `${text}, credit ${usd(credit)}`, `add credit at ${name}: rented instances stop without it`),
      );
    else checks.push(ok(name, `${text}, credit ${usd(credit)}`));
  } catch (error) {
    const told = error instanceof ProviderError ? error : null;
    checks.push(
      told?.code === 'auth'
        ? fail(name, 'the key was refused', `make a new key at ${name} and set ${env}_API_KEY`)
        : fail(
            name,
            told?.message ?? 'no answer in time',
            told?.code === 'rate_limited' ? 'wait a minute, then try again' : `try again later, or check ${env}_URL`,
          ),
    );
  } finally {
    await provider.close?.();
  }
  return checks;
}

function skewCheck(name: string, date: string | undefined): Check[] {
  const at = Date.parse(date ?? '');
  if (Number.isNaN(at)) return [];
  const skew = Math.abs(Date.now() - at);
  // The header has whole seconds.
  return skew <= maxSkewMs
    ? [ok(name, `within ${Math.max(1, Math.round(skew / 1000))} s`)]
    : [
        fail(
          name,
          `differs by ${Math.round(skew / 1000)} s`,
          'set the clock (timedatectl set-ntp true): expiry and prices depend on it',
        ),
      ];
}

/** Status and clock of a server, or why it cannot be reached. */
async function head(
  url: string,
  method: 'HEAD' | 'GET',
): Promise<{ status: number; date: string | undefined } | string> {
  const http = process.getBuiltinModule(url.startsWith('https:') ? 'node:https' : 'node:http');
  return new Promise((resolve) => {
    const request = http.request(url, { method, agent: false, timeout: networkTimeoutMs }, (response) => {
      response.destroy();
      resolve({ status: response.statusCode ?? 0, date: response.headers.date });
    });
    request.on('timeout', () => {
      request.destroy();
      resolve(`no answer within ${networkTimeoutMs / 1000} s`);
    });
    request.on('error', (error: NodeJS.ErrnoException) => resolve(error.code ?? error.message));
    request.end();
  });
}
