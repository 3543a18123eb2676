import { CommanderError } from 'commander';
import { nearest } from '../core/words.ts';
import { stackOf, withoutSecrets, writeCrashLog } from './crash-log.ts';
import { CliError, exitCodes, usageError } from './exit.ts';
import { FieldsListed } from './narrow.ts';
import { CurlPrinted } from './session.ts';

/** Any error as one that can be told; null when it was no error but a normal end. */
export function toCliError(error: unknown): CliError | null {
  if (error instanceof CliError) return error;
  if (error instanceof CurlPrinted) return null;
  if (error instanceof FieldsListed) {
    process.stdout.write(`${error.names.join('\n')}\n`);
    return null;
  }
  if (error instanceof CommanderError) {
    if (error.exitCode === 0) return null;
    const [first = '', ...more] = error.message.replace(/^error: /, '').split('\n');
    const suggestion = /\(Did you mean (.+)\?\)/.exec(more.join(' '))?.[1];
    const [, given = '', choices] = /argument '(.*)' is invalid\. Allowed choices are (.+)\.$/.exec(first) ?? [];
    const meant = suggestion ?? (choices === undefined ? undefined : nearest(given, choices.split(', ')));
    return usageError(meant === undefined ? first : `${first.replace(/\.$/, '')}; did you mean ${meant}?`, {
      hint: 'add --help to see what the command takes',
    });
  }
  // By name: the class is in the configuration module, which client commands do not load.
  if (error instanceof Error && error.name === 'ConfigError') {
    return new CliError(exitCodes.usage, 'configuration', error.message, { hint: '.env.example lists every variable' });
  }
  return bug(error);
}

/** What nobody expected: told in one line, with the details in a file, and on stderr for those who asked for them. */
function bug(error: unknown): CliError {
  if (process.argv.includes('--debug') || process.env.GPUPROXY_DEBUG) {
    process.stderr.write(`${withoutSecrets(stackOf(error))}\n`);
  }
  const path = writeCrashLog(error, 'unexpected error');
  const message = withoutSecrets(error instanceof Error ? error.message || error.name : String(error));
  return new CliError(exitCodes.failed, 'unexpected', message, {
    why: 'this is a bug of gpuproxy, or of something below it',
    hint:
      path === null ? 'run it again with --debug to see where' : `details are in ${path}; please report it with them`,
  });
}
