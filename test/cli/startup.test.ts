import { mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { createProgram, type Program } from './program.ts';

let program: Program;
beforeAll(async () => {
  program = await createProgram();
});
afterAll(() => program.remove());

/** Every file below a folder with the time of its last change. */
const filesOf = (folder: string) =>
  readdirSync(folder, { recursive: true, encoding: 'utf8' })
    .map((name) => [name, statSync(join(folder, name))] as const)
    .filter(([, stat]) => stat.isFile())
    .map(([name, stat]) => `${name} ${stat.mtimeMs}`)
    .sort();

test('what was compiled is kept in the cache folder, and a second start writes nothing there', async () => {
  const cache = join(program.folder, 'cache');
  const help = () => program.run(['--help'], { env: { XDG_CACHE_HOME: cache } });
  expect((await help()).code).toBe(0);
  const kept = filesOf(join(cache, 'gpuproxy'));
  expect(kept.length).toBeGreaterThan(3);
  expect((await help()).code).toBe(0);
  expect(filesOf(join(cache, 'gpuproxy'))).toEqual(kept);
});

test('without a folder for it the program runs all the same', async () => {
  const file = join(program.folder, 'no-folder');
  writeFileSync(file, '');
  const { code, stderr } = await program.run(['--help'], { env: { XDG_CACHE_HOME: file } });
  expect([code, stderr]).toEqual([0, '']);
});

test("no thread of the whole system loads Node's own fetch, and neither does the renderer", async () => {
  const folder = join(program.folder, 'loaded');
  mkdirSync(folder);
  const spy = join(program.folder, 'spy.mjs');
  writeFileSync(
    spy,
    `import { writeFileSync } from 'node:fs';
     import { threadId } from 'node:worker_threads';
     const write = () => writeFileSync(${JSON.stringify(folder)} + '/' + process.pid + '-' + threadId, process.moduleLoadList.join('\\n'));
     setInterval(write, 200).unref();
     process.on('exit', write);`,
  );
  const run = await program.run(['tui', '--once', '--demo', '--port', '0', '--proxy-port', '0', '--threads', '1'], {
    env: { NODE_OPTIONS: `--import=${pathToFileURL(spy).href}` },
  });
  expect([run.code, run.stderr]).toEqual([0, expect.not.stringContaining('rror')]);
  const screen = readdirSync(dirname(program.main)).find((name) => /^screen-\w+\.js$/.test(name));
  const renderer = await program.run([], {
    main: join(dirname(program.main), screen ?? ''),
    env: { NODE_OPTIONS: `--import=${pathToFileURL(spy).href}` },
  });
  expect([renderer.code, renderer.stderr]).toEqual([0, '']);
  const threads = readdirSync(folder).map((name) => readFileSync(join(folder, name), 'utf8'));
  // The program with its simulator and its data plane, and the renderer alone.
  expect(threads.length).toBeGreaterThanOrEqual(4);
  for (const modules of threads) {
    expect(modules).toContain('NativeModule events');
    expect(modules).not.toContain('internal/deps/undici/undici');
  }
});

test('the bundle holds one language of zod and no browser parts of undici', () => {
  const folder = dirname(program.main);
  const bundle = readdirSync(folder)
    .filter((name) => name.endsWith('.js'))
    .map((name) => readFileSync(join(folder, name), 'utf8'))
    .join('\n');
  expect(bundle).toContain('Invalid input');
  expect(bundle).not.toMatch(/Ung(?:ü|\\xFC)ltige Eingabe/);
  expect(bundle).toContain('UND_ERR_HEADERS_TIMEOUT');
  expect(bundle).not.toMatch(/MockAgent|SnapshotAgent|WebSocketStream/);
});
