import { ConfigError } from '../config.ts';
import { CliError, exitCodes } from './exit.ts';

const fileRefusals = new Set(['EACCES', 'EPERM', 'EROFS', 'ENOSPC', 'ENOENT', 'ENOTDIR', 'ERR_ACCESS_DENIED']);

/** A start that failed, in words of the person who typed the command; `running`: where a gpuproxy serves already. */
export function startFailure(error: unknown, running: string | null = null): unknown {
  if (error instanceof ConfigError) return error;
  const { code, port, address, message, path, resource } = error as {
    code?: string;
    port?: number;
    address?: string;
    message: string;
    /** Of a refused file. */
    path?: string;
    /** The same of a refusal by Node's permission model. */
    resource?: string;
  };
  const file = path ?? resource;
  if (file !== undefined && fileRefusals.has(code ?? '')) {
    return new CliError(exitCodes.usage, 'cannot_write', `${file} cannot be made or written (${code})`, {
      why: 'the ledger and the log of a bug are kept there; temporary files of a simulated fleet are in TMPDIR',
      hint: 'set GPUPROXY_DATA_DIR (TMPDIR with --demo) to a folder of your own, or correct its permissions',
    });
  }
  const where = port === undefined ? null : `${address}:${port}`;
  if (code === 'ledger_locked') {
    return new CliError(exitCodes.usage, code, message, {
      hint: `one process at a time keeps the books: "gpuproxy tui --url ${running ?? '…'}" follows the one that runs`,
    });
  }
  if (code === 'EADDRINUSE') {
    const follow =
      running === null
        ? 'if it is a gpuproxy, "gpuproxy tui" follows it'
        : `"gpuproxy tui --url ${running}" follows it`;
    return new CliError(exitCodes.failed, 'port_in_use', where === null ? message : `${where} is in use`, {
      why: running === null ? 'something listens there already' : `a gpuproxy already runs at ${running}`,
      hint: `${follow}; else stop it, or choose other ports with GPUPROXY_PORT and GPUPROXY_PROXY_PORT (0 takes a free one)`,
    });
  }
  if (code === 'EACCES' || code === 'EADDRNOTAVAIL') {
    return new CliError(
      exitCodes.usage,
      'cannot_listen',
      where === null ? message : `cannot listen on ${where} (${code})`,
      {
        why: code === 'EACCES' ? 'ports below 1024 need a privilege' : 'no interface of this machine has that address',
        hint: 'set GPUPROXY_HOST, GPUPROXY_PORT and GPUPROXY_PROXY_PORT',
      },
    );
  }
  return error;
}
