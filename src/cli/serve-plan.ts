import { availableParallelism } from 'node:os';
import { type Config, defaultThreads } from '../config.ts';
import { strategyNames } from '../core/domain.ts';
import { marketplaceNames } from '../providers/names.ts';
import { defaultDataDir } from './data-dir.ts';
import { tableLines } from './output.ts';
import { configuredServer } from './server-config.ts';
import type { ServerOptions } from './server-options.ts';
import { settingColumns, settingRows, settingsDocument } from './setting-rows.ts';
import { checkAccessLog, checkDataDir, readTls, tryFile } from './start-checks.ts';
import { startFailure } from './start-failure.ts';
import { terminal } from './terminal.ts';

/** `gpuproxy serve --dry-run`: what it would do, as one document or for people. Throws what would keep it from starting. */
export function showServe(options: ServerOptions, json: boolean): void {
  const config = configuredServer(options);
  const tls = readTls(config) !== null;
  checkAccessLog(config, tryFile);
  const dataDir = options.demo ? null : (config.GPUPROXY_DATA_DIR ?? defaultDataDir());
  if (dataDir !== null) {
    try {
      checkDataDir(dataDir);
    } catch (error) {
      throw startFailure(error);
    }
  }
  const { GPUPROXY_HOST: host, GPUPROXY_PORT: port, GPUPROXY_PROXY_PORT: proxyPort, UPSTREAMS: upstreams } = config;
  const providers = marketplaceNames
    .filter(({ env }) => options.demo || config[`${env}_API_KEY`] !== undefined)
    .map(({ name }) => name);
  const rows = settingRows(config);
  if (json) {
    const settings = settingsDocument(rows);
    const listens = { host, port, proxy_port: proxyPort, tls };
    const document = { ...listens, data_dir: dataDir, simulated: options.demo, providers, upstreams, config: settings };
    process.stdout.write(`${JSON.stringify(document, null, terminal() === null ? 0 : 2)}\n`);
    return;
  }
  const listener = (which: number) =>
    `${tls ? 'https' : 'http'}://${host}${which === 0 ? ', a free port' : `:${which}`}`;
  const lines = [
    ['control plane', listener(port)],
    ['data plane', listener(proxyPort)],
    ['data folder', dataDir ?? 'a temporary one'],
    ['strategy', config.LB_STRATEGY ?? `the last choice that is kept, else ${strategyNames[0]}`],
    ['threads', String(config.GPUPROXY_THREADS ?? defaultThreads(availableParallelism()))],
    ['providers', `${providers.join(', ') || '-'}${options.demo ? ' (simulated)' : ''}`],
    ['upstreams', upstreams.map(({ name, url }) => `${name} ${url}`).join(', ') || '-'],
    ['api key', keyText(config)],
  ].map(([name = '', value]) => `${name.padEnd(15)}${value}\n`);
  const table = tableLines(settingColumns, rows, terminal()?.columns ?? null);
  process.stdout.write(`${lines.join('')}\n${table.join('\n')}\n`);
}

function keyText({ GPUPROXY_API_KEY: key, origin }: Config): string {
  return key === undefined ? 'made at the first start' : `GPUPROXY_API_KEY (${origin.GPUPROXY_API_KEY})`;
}
