import type { Command } from 'commander';
import { suggest, withConnection, withExamples } from '../command.ts';
import { callInstance, forEachId } from '../fleet-call.ts';
import { openSession, parseDuration } from '../session.ts';

export function build(command: Command): void {
  command
    .argument('<id...>', 'instances')
    .option(
      '--deadline <time>',
      'cut what is still open after this time (default: DRAIN_SECONDS of the server)',
      parseDuration,
    )
    .option('-n, --dry-run', 'show the present state, and change nothing');
  suggest(command, 'id', 'instances');
  withConnection(command);
  withExamples(command, [
    ['gpuproxy drain vast-12345', 'finish the open requests, take no new ones'],
    ['gpuproxy drain vast-12345 --deadline 2m', 'and cut what is still open after two minutes'],
  ]);
  command.action(async (ids: readonly string[], options: { deadline?: number; dryRun?: boolean }) => {
    const session = openSession(command);
    const body = options.deadline === undefined ? {} : { deadline_seconds: options.deadline / 1000 };
    await forEachId(ids, async (id) => {
      const answer =
        options.dryRun === true
          ? await callInstance(session, 'GET', id, '')
          : await callInstance(session, 'POST', id, '/drain', { body });
      const upstream = await session.read('upstream', answer);
      if (session.json) session.printBody(answer);
      else session.print(session.quiet ? `${id}\n` : session.line(id, upstream.state));
      const active = upstream.load.active_connections;
      session.note(
        options.dryRun === true
          ? `${id} would be drained; it has ${active} open requests.`
          : `${id} takes no new requests; ${active} are open. Undo: gpuproxy resume ${id}`,
      );
    });
  });
}
