import { nearest } from '../core/words.ts';
import { route } from './arguments.ts';
import { describeError, exitCodes, usageError } from './exit.ts';
import { commandNamed, commands } from './index.ts';

/** Runs one command line (without node and script). Never throws; resolves with the exit code. */
export async function run(argv: readonly string[]): Promise<number> {
  const { command: name, rest } = route(argv);
  const json = rest.includes('--json') || rest.includes('--raw');
  process.once('uncaughtException', (error) => {
    void report(error, json).then((code) => process.exit(code));
  });
  try {
    if (name === undefined) {
      // Both without commander: they are the first that people and scripts try.
      if (rest.includes('--version') || rest.includes('-V')) {
        const { programVersion } = await import('./version.ts');
        process.stdout.write(`${programVersion()}\n`);
        return exitCodes.done;
      }
      const stray = rest.find((word) => word !== '--help' && word !== '-h');
      if (stray !== undefined) {
        throw usageError(`no command beside ${stray}`, { hint: '"gpuproxy help" lists the commands' });
      }
      const { overview } = await import('./overview.ts');
      process.stdout.write(overview());
      return exitCodes.done;
    }
    if (name === '__complete') {
      const { complete } = await import('./complete.ts');
      process.stdout.write(await complete(argv.slice(argv.indexOf('--') + 1)));
      return exitCodes.done;
    }
    return await runCommand(name, rest);
  } catch (error) {
    return report(error, json);
  }
}

async function runCommand(name: string, rest: readonly string[]): Promise<number> {
  const entry = commandNamed(name);
  if (entry === undefined) {
    const near = nearest(
      name,
      commands.map((each) => each.name),
    );
    throw usageError(`unknown command "${name}"${near === undefined ? '' : `; did you mean ${near}?`}`, {
      hint: near === undefined ? '"gpuproxy help" lists the commands' : `gpuproxy ${near}`,
    });
  }
  const { createCommand } = await import('./command.ts');
  const command = await createCommand(entry);
  await command.parseAsync(rest, { from: 'user' });
  return typeof process.exitCode === 'number' ? process.exitCode : exitCodes.done;
}

async function report(error: unknown, json: boolean): Promise<number> {
  const { toCliError } = await import('./errors.ts');
  const told = toCliError(error);
  if (told === null) return typeof process.exitCode === 'number' ? process.exitCode : exitCodes.done;
  process.stderr.write(describeError(told, json));
  return told.exitCode;
}
