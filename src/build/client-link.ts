import { mkdirSync, rmSync, symlinkSync } from 'node:fs';
import { join, resolve } from 'node:path';

/** `./bin/aiserve-gpuproxy-client`, as the load balancing guide calls the client in a checkout. */
const root = resolve(process.argv[2] ?? join(import.meta.dirname, '..', '..'));
// Windows gives links to administrators only, and would not run this one.
if (process.platform !== 'win32') {
  const link = join(root, 'bin', 'aiserve-gpuproxy-client');
  mkdirSync(join(root, 'bin'), { recursive: true });
  rmSync(link, { force: true });
  symlinkSync(join('..', 'dist', 'main.js'), link);
}
