import type { Command } from 'commander';
import { suggest, withConnection, withExamples } from '../command.ts';
import { usageError } from '../exit.ts';
import { callInstance, lookAt } from '../fleet-call.ts';
import { checkPlan, looksFirst, type PlanOptions, planOf, showPlan, withPlan } from '../plan.ts';
import { openSession } from '../session.ts';

export function build(command: Command): void {
  command
    .argument('<id>', 'instance')
    .argument('<weight>', '0 to 1000, or auto to give it back to the formula', (word: string) => {
      if (word === 'auto') return null;
      const weight = /^\d*\.?\d+$/.test(word) ? Number(word) : Number.NaN;
      if (!(weight >= 0 && weight <= 1000))
        throw usageError(`weight: got "${word}", accepts a number from 0 to 1000, or auto`);
      return weight;
    });
  withPlan(command);
  suggest(command, 'id', 'instances');
  withConnection(command);
  withExamples(command, [
    ['gpuproxy weight vast-12345 3', 'three times the share of a weight of 1'],
    ['gpuproxy weight vast-12345 auto', 'the formula again'],
  ]);
  command.action(async (id: string, weight: number | null, options: PlanOptions) => {
    const session = openSession(command);
    const body = { weight };
    const plans = looksFirst(session, options);
    const [before] = plans || !(session.quiet || session.shows) ? (await lookAt(session, [id])).upstreams : [];
    if (before !== undefined && plans) {
      const plan = planOf(
        session,
        [{ method: 'PUT', path: `/fleet/${id}/weight`, body }],
        [before.weight, before.weight_source],
      );
      if (options.dryRun === true) {
        const from = { weight: before.weight, weight_source: before.weight_source };
        const text = session.quiet
          ? `${id}\n`
          : session.plain
            ? session.line(id, String(before.weight), String(weight ?? 'auto'))
            : session.line(
                id,
                before.weight.toFixed(2),
                '->',
                weight === null ? 'that of the formula' : String(weight),
              );
        showPlan(session, plan, { instance_id: id, from, to: body }, text);
        return;
      }
      checkPlan(plan, options.plan);
    }
    const answer = await callInstance(session, 'PUT', id, '/weight', { body });
    const upstream = await session.read('upstream', answer);
    if (session.json) session.printBody(answer);
    else {
      const now = session.plain ? String(upstream.weight) : upstream.weight.toFixed(2);
      session.print(session.quiet ? `${id}\n` : session.line(id, now, upstream.weight_source));
    }
    if (before !== undefined) {
      const old = before.weight_source === 'operator' ? String(before.weight) : 'auto';
      session.note(
        `Weight: ${before.weight.toFixed(2)} -> ${upstream.weight.toFixed(2)}. Undo: gpuproxy weight ${id} ${old}`,
      );
    }
  });
}
