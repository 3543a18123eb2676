import { homedir } from 'node:os';
import { join } from 'node:path';

/** Where the ledger is when GPUPROXY_DATA_DIR does not say. */
export function defaultDataDir(environment: NodeJS.ProcessEnv = process.env): string {
  return join(environment.XDG_STATE_HOME || join(homedir(), '.local', 'state'), 'gpuproxy');
}
