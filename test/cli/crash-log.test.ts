import {
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { withoutSecrets, writeCrashLog } from '../../src/cli/crash-log.ts';
import { createProgram, type Program } from './program.ts';

let program: Program;
beforeAll(async () => {
  program = await createProgram();
});
afterAll(() => program.remove());

/** Runs a client command in which something throws that nobody expected. */
async function crash(args: readonly string[]) {
  const folder = mkdtempSync(join(program.folder, 'crash-'));
  const planted = join(folder, 'planted.mjs');
  writeFileSync(planted, `setTimeout(() => { throw new TypeError('planted, with hunter22-the-key in it'); }, 300);`);
  const outcome = await program.run(['events', '-u', 'http://127.0.0.1:9', ...args], {
    env: { NODE_OPTIONS: `--import=${planted}`, GPUPROXY_DATA_DIR: folder, GPUPROXY_API_KEY: 'hunter22-the-key' },
  });
  return { ...outcome, folder, logs: readdirSync(folder).filter((name) => name.startsWith('crash-')) };
}

it('a bug leaves its details in a file of its owner, says where, and exits 1, without a stack on the screen', async () => {
  // The command itself must still be running then: it waits for a server that never answers.
  const { createServer } = await import('node:http');
  const silent = createServer(() => {}).listen(0, '127.0.0.1');
  await new Promise((resolve) => silent.once('listening', resolve));
  const { port } = silent.address() as { port: number };
  try {
    const { code, stdout, stderr, folder, logs } = await crash(['-u', `http://127.0.0.1:${port}`]);
    expect([code, stdout]).toEqual([1, '']);
    expect(logs).toHaveLength(1);
    const path = join(folder, logs[0] ?? '');
    expect(stderr).toBe(
      `error: planted, with … in it\ncause: this is a bug of gpuproxy, or of something below it\nhint: details are in ${path}; please report it with them\n`,
    );
    const text = readFileSync(path, 'utf8');
    expect(text).toMatch(/^gpuproxy \d.*Node \d/);
    expect(text).toContain('TypeError: planted');
    expect(text).toMatch(/\n +at /);
    expect(text).not.toContain('hunter22');
    expect(statSync(path).mode & 0o777).toBe(0o600);

    const loud = await crash(['--debug', '-u', `http://127.0.0.1:${port}`]);
    expect(loud.stderr).toMatch(/TypeError: planted, with … in it\n +at /);
    const json = await crash(['--json', '-u', `http://127.0.0.1:${port}`]);
    expect(JSON.parse(json.stderr)).toMatchObject({ error: { code: 'unexpected', message: 'planted, with … in it' } });
  } finally {
    silent.closeAllConnections();
    silent.close();
  }
});

it('takes out keys, bearer tokens and passwords of URLs', () => {
  const environment = {
    VASTAI_API_KEY: 'vast-secret-1',
    OTEL_EXPORTER_OTLP_HEADERS: 'x-key=abcdefgh',
    PORT: '12345678',
  };
  const text =
    'GET https://me:pw@host/x Bearer abcdefgh12345 vast-secret-1 x-key=abcdefgh abcdefgh gp_0123456789abcdef 12345678';
  expect(withoutSecrets(text, environment)).toBe('GET https://…@host/x Bearer… … … … gp_… 12345678');
});

it.each([
  ['GET https://me:p/w@host/x failed', 'GET https://…@host/x failed'],
  ['GET https://host/x?api_key=abc failed', 'GET https://host/x?… failed'],
  ['GET https://host/x#abc failed', 'GET https://host/x?… failed'],
  ['no file "-----BEGIN RSA PRIVATE KEY-----\nabc\n-----END RSA PRIVATE KEY-----"', 'no file "…"'],
  ['no file "-----BEGIN PRIVATE KEY-----\nabc"', 'no file "…"'],
  ['at file:///x/node_modules/@scope/y.js:1:2', 'at file:///x/node_modules/@scope/y.js:1:2'],
  [
    '{"url":"http://h:1?a=b","image":"x@sha256:1","k":"-----BEGIN PRIVATE KEY-----"}',
    '{"url":"http://h:1?…","image":"x@sha256:1","k":"…"}',
  ],
])('of %j it leaves %j', (text, clean) => {
  expect(withoutSecrets(text, {})).toBe(clean);
});

it('takes out what stands in .env and in the conf file, and not in the environment', () => {
  const folder = mkdtempSync(join(program.folder, 'sources-'));
  writeFileSync(join(folder, '.env'), 'VASTAI_API_KEY=from-dotenv-1\nVASTAI_URL=not-a-secret\n');
  writeFileSync(join(folder, 'config.json'), '{"apiKey":"from-conf-file"}');
  const before = process.cwd();
  try {
    process.chdir(folder);
    const text = 'from-dotenv-1 not-a-secret from-conf-file';
    expect(withoutSecrets(text, { GPUPROXY_CONFIG_DIR: folder })).toBe('… not-a-secret …');
    // A file that cannot be understood hides no error.
    writeFileSync(join(folder, 'config.json'), '{');
    expect(withoutSecrets(text, { GPUPROXY_CONFIG_DIR: folder })).toBe('… not-a-secret from-conf-file');
  } finally {
    process.chdir(before);
  }
});

it('the same bug is written once an hour, and twenty files are all that are kept', () => {
  const folder = mkdtempSync(join(program.folder, 'bound-'));
  const write = (message: string) => writeCrashLog(new Error(message), 'here', { GPUPROXY_DATA_DIR: folder });
  const logs = () => readdirSync(folder).sort();
  const first = write('again');
  expect(first).not.toBeNull();
  expect([write('again'), write('again')]).toEqual([first, first]);
  expect(logs()).toHaveLength(1);

  const hourAgo = new Date(Date.now() - 61 * 60_000);
  utimesSync(first ?? '', hourAgo, hourAgo);
  expect(write('again')).not.toBe(first);
  expect(logs()).toHaveLength(2);

  writeFileSync(join(folder, 'ledger.db'), '');
  const paths = Array.from({ length: 30 }, (_, index) => write(`bug ${index}`));
  expect(logs().filter((name) => name.startsWith('crash-'))).toHaveLength(20);
  expect(logs()).toContain('ledger.db');
  // The latest are kept.
  expect(paths.slice(-5).every((path) => path !== null && existsSync(path))).toBe(true);
});

it('where no file can be written, the bug is told all the same', () => {
  const folder = mkdtempSync(join(tmpdir(), 'gpuproxy-crash-'));
  const file = join(folder, 'a-file');
  writeFileSync(file, '');
  expect(writeCrashLog(new Error('x'), 'here', { GPUPROXY_DATA_DIR: join(file, 'below') })).toBeNull();
  rmSync(folder, { recursive: true });
});
