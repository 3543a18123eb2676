import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { eventually } from '../helpers/eventually.ts';
import { createFakeApp, upstreamView } from '../helpers/fake-app.ts';
import { startRest } from './harness.ts';

const chromium = ['chromium', 'chromium-browser', 'google-chrome'].find(
  (name) => spawnSync(name, ['--version']).status === 0,
);
if (chromium === undefined) process.stderr.write('SKIPPED LOUDLY: no Chromium here to open /api/v1/docs in\n');

type Message = { id?: number; method?: string; params?: unknown; result?: unknown };

/** A page of a headless browser that reaches this machine alone, spoken to in its DevTools protocol. */
async function openBrowser(program: string) {
  const folder = mkdtempSync(join(tmpdir(), 'gpuproxy-chromium-'));
  const child = spawn(
    program,
    [
      ...['--headless', '--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage', '--no-first-run'],
      ...['--disable-background-networking', '--disable-component-update', '--disable-sync'],
      ...['--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1', '--window-size=1200,1400'],
      ...[`--user-data-dir=${folder}`, '--remote-debugging-port=0', 'about:blank'],
    ],
    { stdio: ['ignore', 'ignore', 'pipe'] },
  );
  const exited = once(child, 'exit');
  let said = '';
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    said += text;
  });
  await eventually(() => /ws:\/\/\S+/.test(said), 'the browser to start');
  const { host } = new URL(/ws:\/\/\S+/.exec(said)?.[0] ?? '');
  const target = (await (await fetch(`http://${host}/json/new?about:blank`, { method: 'PUT' })).json()) as {
    webSocketDebuggerUrl: string;
  };
  const socket = new WebSocket(target.webSocketDebuggerUrl);
  await new Promise((resolve) => socket.addEventListener('open', resolve));
  const waiting = new Map<number, (result: unknown) => void>();
  const events: Message[] = [];
  socket.addEventListener('message', ({ data }) => {
    const message = JSON.parse(String(data)) as Message;
    if (message.id === undefined) events.push(message);
    else waiting.get(message.id)?.(message.result);
  });
  let lastId = 0;
  const command = <T>(method: string, params: object = {}) =>
    new Promise<T>((resolve) => {
      waiting.set(++lastId, (result) => resolve(result as T));
      socket.send(JSON.stringify({ id: lastId, method, params }));
    });
  return {
    command,
    of: (method: string) => events.filter((event) => event.method === method).map((event) => event.params),
    async evaluate(expression: string): Promise<unknown> {
      const options = { expression, awaitPromise: true, returnByValue: true };
      return (await command<{ result: { value?: unknown } }>('Runtime.evaluate', options)).result.value;
    },
    async [Symbol.asyncDispose]() {
      socket.close();
      child.kill('SIGKILL');
      await exited;
      rmSync(folder, { recursive: true, force: true, maxRetries: 5 });
    },
  };
}

test.skipIf(chromium === undefined)(
  'the page of the API works in a browser that has no network',
  { timeout: 120_000 },
  async () => {
    await using rest = await startRest(createFakeApp({ upstreams: [upstreamView()] }));
    await using browser = await openBrowser(chromium ?? '');
    const { command, evaluate, of } = browser;
    for (const domain of ['Log', 'Runtime', 'Page', 'Network']) await command(`${domain}.enable`);
    await command('Page.navigate', { url: `${rest.url}/api/v1/docs` });
    const described = Object.values(rest.document.paths).reduce((sum, path) => sum + Object.keys(path).length, 0);
    const rows = () => evaluate("document.querySelectorAll('details.operation').length");
    await eventually(async () => (await rows()) === described, `${described} operations on the page`);

    const shown = (id: string) =>
      evaluate(`[...document.querySelectorAll('#${id} pre')].map((p) => p.textContent).join('\\n')`);
    const send = async (id: string) => {
      await evaluate(`document.getElementById('${id}').open = true`);
      await eventually(
        async () => (await evaluate(`document.querySelector('#${id} button') !== null`)) === true,
        'its form',
      );
      await evaluate(`document.querySelector('#${id} button').click()`);
    };
    await send('getStrategy');
    await eventually(async () => /401 Unauthorized/.test(String(await shown('getStrategy'))), 'a refusal');
    await evaluate(`document.getElementById('key').value = ${JSON.stringify(rest.adminKey)}`);
    await send('getStrategy');
    await eventually(
      async () => /200 OK(.*\n)*.*"strategy": "round_robin"/.test(String(await shown('getStrategy'))),
      'an answer',
    );
    // The curl line beside it names the variable, not the key.
    expect(await shown('getStrategy')).not.toContain(rest.adminKey);
    await evaluate(
      "document.getElementById('find').value = 'reserve'; document.getElementById('find').oninput({ target: document.getElementById('find') })",
    );
    expect(await evaluate("document.getElementById('listKeys').hidden")).toBe(true);
    expect(await evaluate("document.getElementById('reserve').hidden")).toBe(false);

    const urls = of('Network.requestWillBeSent').map((params) => (params as { request: { url: string } }).request.url);
    expect(urls.filter((url) => !url.startsWith(rest.url) && !url.startsWith('data:'))).toEqual([]);
    expect(urls.some((url) => url === `${rest.url}/api/v1/openapi.json`)).toBe(true);
    expect(of('Runtime.exceptionThrown')).toEqual([]);
    // Refusals of the content security policy are told there; the 401 from above is too.
    const entries = of('Log.entryAdded').map((params) => (params as { entry: { level: string; text: string } }).entry);
    const complaints = entries.filter(({ level }) => level === 'error' || level === 'warning');
    expect(complaints.filter(({ text }) => !text.includes('401'))).toEqual([]);
  },
);
