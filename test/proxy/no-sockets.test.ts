import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { expect, test } from 'vitest';

test('where no socket is left an upstream with an open connection answers, and no upstream is blamed', async () => {
  const child = new URL('no-sockets.child.ts', import.meta.url).pathname;
  const { stdout } = await promisify(execFile)('bash', [
    '-c',
    'ulimit -n 256; exec "$0" "$1"',
    process.execPath,
    child,
  ]);
  expect(JSON.parse(stdout)).toEqual({
    seen: ['200 from a', '200 from a', '200 from a', '503 no_sockets', '200 from b'],
    endings: { complete: 1, client_gone: 3 },
  });
});
