import { execFileSync, spawn } from 'node:child_process';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { eventually } from '../helpers/eventually.ts';
import { createProgram, type Program } from './program.ts';

let program: Program;
beforeAll(async () => {
  program = await createProgram();
});
afterAll(() => program.remove());

const has = (command: string) => {
  try {
    execFileSync('sh', ['-c', `command -v ${command}`]);
    return true;
  } catch {
    return false;
  }
};

/** What systemd listens on: a socket that Node itself cannot open. */
const listener = `
import socket, sys
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.bind(sys.argv[1])
print("listening", flush=True)
while True:
    fds, data = [], s.recvmsg(65536, 4096)
    print(data[0].decode(), flush=True)
    import os, array
    for level, kind, content in data[1]:
        if kind == socket.SCM_RIGHTS:
            passed = array.array("i")
            passed.frombytes(content[: len(content) - len(content) % passed.itemsize])
            for fd in passed: os.close(fd)
`;

it.skipIf(!has('systemd-notify') || !has('python3'))(
  'serve tells systemd when it is ready and when it stops',
  async () => {
    const path = join(program.folder, 'notify');
    const systemd = spawn('python3', ['-c', listener, path], { stdio: ['ignore', 'pipe', 'inherit'] });
    let told = '';
    systemd.stdout.setEncoding('utf8').on('data', (text: string) => {
      told += text;
    });
    await eventually(() => told.includes('listening'), 'the listener');
    const server = start({ NOTIFY_SOCKET: path });
    try {
      await eventually(() => /^READY=1$/m.test(told), 'READY=1');
      expect(server.log()).toContain('data plane');
      server.child.kill('SIGTERM');
      await eventually(() => /^STOPPING=1$/m.test(told), 'STOPPING=1');
      expect(await server.ended).toBe(0);
      expect(server.log()).not.toContain('was not told');
    } finally {
      server.child.kill('SIGKILL');
      systemd.kill();
    }
  },
  60_000,
);

it('serve says when systemd could not be told, and serves all the same', async () => {
  const server = start({ NOTIFY_SOCKET: join(program.folder, 'nobody'), PATH: join(program.folder, 'empty') });
  try {
    await eventually(() => server.log().includes('systemd was not told READY=1'), 'the error');
    server.child.kill('SIGTERM');
    expect(await server.ended).toBe(0);
  } finally {
    server.child.kill('SIGKILL');
  }
}, 60_000);

function start(env: Record<string, string>) {
  const args = ['serve', '--upstreams', 'http://127.0.0.1:9', '--port', '0', '--proxy-port', '0', '--threads', '1'];
  const child = spawn(process.execPath, [program.main, ...args], {
    cwd: join(program.folder, 'empty'),
    env: program.environment({ GPUPROXY_DATA_DIR: join(program.folder, `data-${Object.keys(env).length}`), ...env }),
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  let log = '';
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    log += text;
  });
  const ended = new Promise<number | null>((resolve) => child.once('exit', resolve));
  return { child, ended, log: () => log };
}
