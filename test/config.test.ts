import { mkdtempSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { describe, expect, it } from 'vitest';
import { ConfigError, defaultThreads, envExample, loadConfig, variables } from '../src/config.ts';

function message(environment: Record<string, string>): string {
  try {
    loadConfig({ environment });
  } catch (error) {
    expect(error).toBeInstanceOf(ConfigError);
    return (error as Error).message;
  }
  throw new Error('nothing was thrown');
}

describe('loadConfig', () => {
  it('gives every default when nothing is set', () => {
    const config = loadConfig({ environment: {} });
    expect(config).toMatchObject({
      LB_STRATEGY: undefined,
      LB_ENABLED: true,
      GPUPROXY_PORT: 8080,
      UPSTREAMS: [],
      HEALTH_PATH: '/health',
    });
    expect(new Set(Object.values(config.origin))).toEqual(new Set(['default']));
    expect(Object.isFrozen(config)).toBe(true);
  });

  it('prefers flag, then environment, then .env, then the conf file, then the default', () => {
    const cwd = mkdtempSync(join(tmpdir(), 'gpuproxy-config-'));
    writeFileSync(join(cwd, '.env'), 'GPUPROXY_PORT=3\nGPUPROXY_PROXY_PORT=3\nGPUPROXY_HOST=dotenv\n');
    const config = loadConfig({
      flags: { GPUPROXY_PORT: '1' },
      environment: { GPUPROXY_PORT: '2', GPUPROXY_PROXY_PORT: '2' },
      cwd,
      stored: { GPUPROXY_PORT: 4, GPUPROXY_HOST: 'conf', GPUPROXY_URL: 'http://conf:1/' },
    });
    expect(config).toMatchObject({
      GPUPROXY_PORT: 1,
      GPUPROXY_PROXY_PORT: 2,
      GPUPROXY_HOST: 'dotenv',
      GPUPROXY_URL: 'http://conf:1',
    });
    expect(config.origin).toMatchObject({
      GPUPROXY_PORT: 'flag',
      GPUPROXY_PROXY_PORT: 'environment',
      GPUPROXY_HOST: '.env',
      GPUPROXY_URL: 'conf',
    });
  });

  it('names the variable, what it got and what it accepts, all of them at once', () => {
    const text = message({ LB_STRATEGY: 'least_conn', GPUPROXY_PORT: '99999', LB_ENABLED: 'maybe' });
    expect(text).toContain(
      'LB_STRATEGY: got "least_conn", accepts one of round_robin, equal_weighted, weighted_round_robin, least_connections, least_response_time',
    );
    expect(text).toContain('GPUPROXY_PORT: got "99999"');
    expect(text).toContain('LB_ENABLED: got "maybe", accepts true or false');
  });

  it('never prints the value of a secret', () => {
    expect(message({ GPUPROXY_API_KEY: 'short!!' })).not.toContain('short!!');
  });

  it('reads upstreams with and without names and refuses doubles and other schemes', () => {
    expect(
      loadConfig({ environment: { UPSTREAMS: 'a=http://10.0.0.1:8000/, https://b.example:1' } }).UPSTREAMS,
    ).toEqual([
      { name: 'a', url: 'http://10.0.0.1:8000' },
      { name: 'b.example-1', url: 'https://b.example:1' },
    ]);
    expect(message({ UPSTREAMS: 'a=http://x:1,a=http://y:1' })).toContain('a comes twice');
    expect(message({ UPSTREAMS: 'http://x:1,ftp://y' })).toContain('item 2');
  });

  it('refuses upstreams and marketplaces whose URL carries a password, a query or a fragment, without showing them', () => {
    for (const name of ['UPSTREAMS', 'VASTAI_URL']) {
      for (const url of ['http://me:hunter2@x:1', 'http://me@x:1', 'http://x:1/?token=a', 'http://x:1/#a']) {
        expect(message({ [name]: url })).toContain('without user');
        expect(message({ [name]: url })).not.toContain('hunter2');
      }
    }
  });

  it.each([
    ['UPSTREAMS', 'a=http://h:1/?token=hunter2', 'a=http://h:1/?…'],
    ['UPSTREAMS', 'b=http://other:1,a=http://me:hun/ter2@h', 'a=http://…@h'],
    ['UPSTREAMS', 'a=http://me:hunter2,x@h', 'a=http://me:…'],
    ['VASTAI_URL', 'https://x/?api_key=hunter2', 'https://x/?…'],
    ['VASTAI_URL', 'https://x/#hunter2', 'https://x/#…'],
    ['IONET_URL', 'me:hunter2@x', '…@x'],
    ['OTEL_EXPORTER_OTLP_ENDPOINT', 'https://x/?api_key=hunter2', 'https://x/?…'],
    ['GPUPROXY_URL', 'http://x/?token=a@hunter2', 'http://…'],
    ['GPUPROXY_URL', 'http://me:hun?ter2@x', 'http://…'],
    ['GPUPROXY_URL', 'http://me:hun@ter2@x', 'http://…@x'],
    ['GPUPROXY_URL', 'ftp://x:21/a', 'ftp://x:21/a'],
  ])('shows of %s=%s no more than %s', (name, value, shown) => {
    expect(message({ [name]: value })).toContain(`${name}: got "${shown}", accepts `);
    expect(message({ [name]: value })).not.toMatch(/hun|ter2|other/);
  });

  it('refuses a key where the path of its file belongs, and does not show it', () => {
    for (const value of ['-----BEGIN PRIVATE KEY-----\nhunter2', '-----BEGIN PRIVATE KEY----- hunter2']) {
      const text = message({ TLS_KEY: value, TLS_CERT: value });
      expect(text).toContain('TLS_KEY: got a value that is hidden, accepts the path of a PEM file');
      expect(text).toContain('TLS_CERT: got a value that is hidden, accepts the path of a PEM file');
      expect(text).not.toContain('hunter2');
    }
  });

  it('takes one thread a core but one where nothing is said, and never more than may be said', () => {
    expect([1, 2, 8, 65, 128, 1024].map(defaultThreads)).toEqual([1, 1, 7, 64, 64, 64]);
    const most = String(defaultThreads(1024));
    expect(loadConfig({ environment: { GPUPROXY_THREADS: most } }).GPUPROXY_THREADS).toBe(Number(most));
  });

  it('wants the TLS certificate and key together', () => {
    expect(message({ TLS_CERT: '/a' })).toContain('TLS_CERT and TLS_KEY go together');
  });

  it('is not all that is read of the environment: .env.example names the rest too', () => {
    const src = resolve(import.meta.dirname, '..', 'src');
    const read = new Set(
      readdirSync(src, { recursive: true, encoding: 'utf8' })
        .filter((path) => /\.tsx?$/.test(path))
        .flatMap((path) => [
          ...readFileSync(join(src, path), 'utf8').matchAll(/\b(?:process\.env|environment|env)\.([A-Z][A-Z0-9_]+)/g),
        ])
        .map(([, name = '']) => name),
    );
    expect([...read]).toEqual(expect.arrayContaining(['GPUPROXY_DEBUG', 'NO_COLOR']));
    const shown = readFileSync(resolve(src, '..', '.env.example'), 'utf8');
    // What one process of ours tells the next is no setting.
    read.delete('GPUPROXY_REEXEC');
    expect([...read].filter((name) => !new RegExp(`\\b${name}\\b`).test(shown))).toEqual([]);
  });

  it('is described by .env.example, every variable with its default', () => {
    const shown = readFileSync(resolve(import.meta.dirname, '..', '.env.example'), 'utf8');
    expect(shown).toBe(envExample());
    for (const name of Object.keys(variables)) expect(shown).toContain(`#${name}=`);
    const uncommented = Object.fromEntries(
      shown
        .split('\n')
        .flatMap((line) =>
          /^#[A-Z]/.test(line) ? [[line.slice(1, line.indexOf('=')), line.slice(line.indexOf('=') + 1)]] : [],
        ),
    );
    const { origin: _a, LB_STRATEGY: strategy, ...fromExample } = loadConfig({ environment: uncommented });
    const { origin: _b, LB_STRATEGY: _none, ...fromNothing } = loadConfig({ environment: {} });
    expect(fromExample).toEqual(fromNothing);
    expect(strategy).toBe('round_robin');
  });
});
