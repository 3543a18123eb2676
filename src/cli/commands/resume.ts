import type { Command } from 'commander';
import { suggest, withConnection, withExamples } from '../command.ts';
import { callInstance, forEachId } from '../fleet-call.ts';
import { openSession } from '../session.ts';

export function build(command: Command): void {
  command.argument('<id...>', 'instances');
  suggest(command, 'id', 'instances');
  withConnection(command);
  withExamples(command, [['gpuproxy resume vast-12345', 'ends a drain']]);
  command.action(async (ids: readonly string[]) => {
    const session = openSession(command);
    await forEachId(ids, async (id) => {
      const answer = await callInstance(session, 'POST', id, '/resume');
      if (session.json) session.printBody(answer);
      else {
        const { state } = await session.read('upstream', answer);
        session.print(session.quiet ? `${id}\n` : session.line(id, state));
      }
    });
  });
}
