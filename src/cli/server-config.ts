import { type Config, ConfigError, loadConfig, type VariableName, variables } from '../config.ts';
import { marketplaceNames } from '../providers/names.ts';
import { CliError, exitCodes } from './exit.ts';
import { readPreferences } from './preferences-file.ts';
import type { ServerOptions } from './server-options.ts';

/** Values of the conf file under the names of the variables. */
export function storedVariables(): Partial<Record<VariableName, unknown>> {
  const { url, apiKey } = readPreferences();
  return {
    ...(url === undefined ? {} : { GPUPROXY_URL: url }),
    ...(apiKey === undefined ? {} : { GPUPROXY_API_KEY: apiKey }),
  };
}

/** The whole configuration of a server. Throws ConfigError. */
export function serverConfig(options: Pick<ServerOptions, 'flags'>): Config {
  const unknown = Object.keys(options.flags).find((name) => !Object.hasOwn(variables, name));
  if (unknown !== undefined) {
    throw new ConfigError(`--set: got "${unknown}", accepts NAME=value with a name of .env.example`);
  }
  return loadConfig({
    flags: options.flags,
    environment: process.env,
    cwd: process.cwd(),
    stored: storedVariables(),
  });
}

/** The same of a server that has something to balance. Throws CliError (exit 2) where nothing says what. */
export function configuredServer(options: ServerOptions): Config {
  const config = serverConfig(options);
  if (options.demo || !nothingConfigured(config)) return config;
  throw new CliError(
    exitCodes.usage,
    'not_configured',
    'nothing to balance: no provider and no upstream is configured',
    {
      why: 'VASTAI_API_KEY, IONET_API_KEY and UPSTREAMS are all empty',
      hint: 'set at least one of them (see .env.example), or start the simulated fleet with "gpuproxy serve --demo"',
    },
  );
}

/** True when nothing says where GPUs should come from. */
export function nothingConfigured(config: Config): boolean {
  return config.UPSTREAMS.length === 0 && marketplaceNames.every((m) => config[`${m.env}_API_KEY`] === undefined);
}
