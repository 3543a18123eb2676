import type { Command } from 'commander';
import { withConnection, withExamples } from '../command.ts';
import type { Connection } from '../connection.ts';
import { CliError, exitCodes } from '../exit.ts';
import { connectionOf, openSession } from '../session.ts';

export function build(command: Command): void {
  command.option('--offline', 'ask no provider');
  withConnection(command, { curl: false });
  withExamples(command, [
    ['gpuproxy doctor', 'every check, with what to do about what is wrong'],
    ['gpuproxy doctor --json', 'for programs'],
  ]);
  command.action(async (options: { offline?: boolean }) => {
    const found = connection(command);
    const session = openSession(command, { rows: 'checks' }, found instanceof CliError ? nowhere : found);
    const { runChecks } = await import('../doctor-checks.ts');
    const checks = await runChecks({
      client: found instanceof CliError ? found : session.client,
      offline: options.offline === true,
    });
    const failed = checks.filter((check) => check.status === 'fail').length;
    const warned = checks.filter((check) => check.status === 'warn').length;
    if (session.json) session.printJson({ ok: failed === 0, checks });
    else {
      const color = (text: string, code: string) => (session.color ? `\u001b[${code}m${text}\u001b[0m` : text);
      const codes = { ok: '32', warn: '33', fail: '31', skip: '2' } as const;
      const width = Math.max(...checks.map((check) => check.name.length));
      for (const { status, name, detail, hint } of checks) {
        if (session.quiet) {
          // What calls for somebody.
          if (status === 'warn' || status === 'fail') session.print(`${name}\n`);
          continue;
        }
        if (session.plain) {
          session.print(session.line(status, name, detail, hint ?? ''));
          continue;
        }
        const indent = width + 8;
        const what = session.prose(detail, indent);
        session.print(`${color(status.padEnd(4), codes[status])}  ${name.padEnd(width)}  ${what}`);
        if (hint !== null) session.print(`${' '.repeat(indent)}do: ${session.prose(hint, indent + 4)}`);
      }
      session.note(failed + warned === 0 ? 'All is well.' : `${failed} failed, ${warned} to look at.`);
    }
    process.exitCode = failed > 0 ? exitCodes.failed : exitCodes.done;
  });
}

/** What is wrong with the settings is one of the findings, and must not keep the others from being found. */
function connection(command: Command): Connection | CliError {
  try {
    return connectionOf(command);
  } catch (error) {
    if (error instanceof CliError) return error;
    throw error;
  }
}

const nowhere: Connection = { url: 'http://127.0.0.1', urlOrigin: 'default', key: null, keyOrigin: null };
