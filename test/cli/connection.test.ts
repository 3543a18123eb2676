import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, test } from 'vitest';
import { findConnection } from '../../src/cli/connection.ts';

const folder = mkdtempSync(join(tmpdir(), 'gpuproxy-connection-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));
const urlWith = (variables: Record<string, string>) =>
  findConnection({}, { GPUPROXY_CONFIG_DIR: folder, ...variables }, folder).url;

test('without an address commands look where a server with the same settings listens', () => {
  expect(urlWith({})).toBe('http://127.0.0.1:8080');
  expect(urlWith({ GPUPROXY_PORT: '18590' })).toBe('http://127.0.0.1:18590');
  // 0 is any free one, which nobody can guess.
  for (const GPUPROXY_PORT of ['0', 'x', '']) expect(urlWith({ GPUPROXY_PORT })).toBe('http://127.0.0.1:8080');
  expect(urlWith({ GPUPROXY_PORT: '18590', GPUPROXY_URL: 'http://gpu-host:1' })).toBe('http://gpu-host:1');
  writeFileSync(join(folder, '.env'), 'GPUPROXY_PORT=18600\n');
  expect(urlWith({})).toBe('http://127.0.0.1:18600');
  expect(urlWith({ GPUPROXY_PORT: '18590' })).toBe('http://127.0.0.1:18590');
});
