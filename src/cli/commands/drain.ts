import type { Command } from 'commander';
import type { Answers } from '../answers.ts';
import { suggest, withConnection, withExamples } from '../command.ts';
import { callInstance, forEachId, lookAt } from '../fleet-call.ts';
import { checkPlan, looksFirst, type PlanOptions, planOf, showPlan, withPlan } from '../plan.ts';
import { openSession, parseDuration } from '../session.ts';

export function build(command: Command): void {
  command
    .argument('<id...>', 'instances')
    .option(
      '--deadline <time>',
      'cut what is still open after this time (default: DRAIN_SECONDS of the server)',
      parseDuration,
    );
  withPlan(command);
  suggest(command, 'id', 'instances');
  withConnection(command);
  withExamples(command, [
    ['gpuproxy drain vast-12345', 'finish the open requests, take no new ones'],
    ['gpuproxy drain vast-12345 --deadline 2m', 'and cut what is still open after two minutes'],
    ['gpuproxy drain vast-12345 --dry-run', 'what would happen'],
  ]);
  command.action(async (ids: readonly string[], options: PlanOptions & Readonly<{ deadline?: number }>) => {
    const session = openSession(command, { rows: options.dryRun === true ? 'instances' : null });
    const body = options.deadline === undefined ? {} : { deadline_seconds: options.deadline / 1000 };
    if (looksFirst(session, options)) {
      const { bodies, upstreams } = await lookAt(session, ids);
      const requests = ids.map((id) => ({ method: 'POST', path: `/fleet/${id}/drain`, body }) as const);
      const plan = planOf(
        session,
        requests,
        upstreams.map(({ admin, lifecycle }) => [admin.mode, lifecycle.phase]),
      );
      if (options.dryRun === true) {
        const lines = upstreams.map((each) =>
          session.quiet
            ? `${each.instance_id}\n`
            : session.line(
                each.instance_id,
                each.state,
                session.plain ? String(each.load.active_connections) : openText(each),
              ),
        );
        showPlan(session, plan, { instances: bodies }, lines.join(''));
        return;
      }
      checkPlan(plan, options.plan);
    }
    await forEachId(ids, async (id) => {
      const answer = await callInstance(session, 'POST', id, '/drain', { body });
      const upstream = await session.read('upstream', answer);
      if (session.json) session.printBody(answer);
      else session.print(session.quiet ? `${id}\n` : session.line(id, upstream.state));
      session.note(`${id} takes no new requests; ${openText(upstream)}. Undo: gpuproxy resume ${id}`);
    });
  });
}

function openText({ load }: Answers['upstream']): string {
  return `${load.active_connections} open`;
}
