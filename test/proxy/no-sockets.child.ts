import { closeSync, openSync } from 'node:fs';
import { RawClient, Rig, until } from './rig.ts';

/** To be run with a low limit of open files. Prints what a client gets when there is no socket for a new connection. */
const rig = await Rig.start({ settings: { maxRetries: 1 } });
const a = await rig.backend('a', (_req, res) => res.end('from a'));
const client = new RawClient(rig.proxy.port);
const seen: string[] = [];
async function ask(): Promise<void> {
  client.received = '';
  client.send('GET / HTTP/1.1\r\nHost: x\r\n\r\n');
  const answer = await client.until(/from .$|}\s*$/);
  seen.push(`${answer.slice(9, 12)} ${/"code":"(\w+)"/.exec(answer)?.[1] ?? answer.slice(-6)}`);
}

await ask();
await rig.backend('b', (_req, res) => res.end('from b'));
const files: number[] = [];
function fill(): void {
  try {
    for (;;) files.push(openSync('/dev/null', 'r'));
  } catch {
    // No more to be had.
  }
}
fill();
await ask();
await ask();
rig.leave('a');
await until(() => a.sockets.size === 0);
fill();
await ask();
for (const file of files) closeSync(file);
await ask();
await until(() => rig.active('b') === 0);
console.log(JSON.stringify({ seen, endings: rig.endings('b') }));
client.socket.destroy();
await rig.close();
