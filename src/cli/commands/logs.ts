import type { Command } from 'commander';
import { repeatOf, suggest, withConnection, withExamples, withWatch } from '../command.ts';
import { callInstance } from '../fleet-call.ts';
import { wholeFrom } from '../offer-options.ts';
import { openSession } from '../session.ts';
import { terminal } from '../terminal.ts';
import { show } from '../watch.ts';

export function build(command: Command): void {
  command.argument('<id>', 'instance').option('--tail <n>', 'lines, 1 to 10000', wholeFrom('--tail', 1, 10_000), 100);
  withWatch(command);
  suggest(command, 'id', 'instances');
  withConnection(command);
  withExamples(command, [['gpuproxy logs vast-12345 --tail 20', 'the last 20 lines']]);
  command.action(async (id: string, options: { tail: number; watch?: number }) => {
    const session = openSession(command);
    await show(session, repeatOf(options), async () => {
      const answer = await callInstance(session, 'GET', id, '/logs', {
        query: { tail: options.tail },
        timeoutMs: 60_000,
      });
      return {
        json: answer.body,
        async text() {
          const { lines } = await session.read('logs', answer);
          return lines.map((line) => `${terminal() === null ? line : printable(line)}\n`).join('');
        },
      };
    });
  });
}

/** Output of a rented machine is not trusted to steer this terminal: colours stay, everything else goes. */
function printable(line: string): string {
  return line.replace(/\u001b\[[0-9;]*m|[\u0000-\u0008\u000b-\u001f\u007f-\u009f]/g, (match) =>
    match.startsWith('\u001b[') ? match : '',
  );
}
