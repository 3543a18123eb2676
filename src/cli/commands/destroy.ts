import type { Command } from 'commander';
import { counted } from '../../core/words.ts';
import type { Answers } from '../answers.ts';
import { suggest, withConnection, withExamples } from '../command.ts';
import { confirmation, confirmedAs, settle } from '../confirm.ts';
import { callInstance, forEachId, lookAt } from '../fleet-call.ts';
import { usd } from '../output.ts';
import { checkPlan, looksFirst, type PlanOptions, planOf, showPlan, withPlan } from '../plan.ts';
import { openSession } from '../session.ts';

const meanings = {
  destroyed: 'destroyed, as the provider confirms',
  destroying: 'being destroyed; the server repeats it until the provider confirms',
  gone: 'was not there any more',
} as const;

type DestroyOptions = PlanOptions & Readonly<{ now?: boolean; yes?: boolean; confirm?: string }>;

export function build(command: Command): void {
  command
    .argument('<id...>', 'instances')
    .option('--now', 'do not drain first: open requests are cut')
    .option('-y, --yes', 'destroy without asking')
    .option('--confirm <id>', 'the same if it is this one; of several, their number');
  withPlan(command);
  suggest(command, 'id', 'instances');
  withConnection(command);
  withExamples(command, [
    ['gpuproxy destroy vast-12345', 'drain, then give it back'],
    ['gpuproxy destroy $(gpuproxy fleet -q) --yes', 'the whole fleet'],
    ['gpuproxy destroy vast-12345 --now --confirm vast-12345', 'at once, in a script'],
  ]);
  command.action(async (ids: readonly string[], options: DestroyOptions) => {
    const session = openSession(command, { rows: options.dryRun === true ? 'instances' : null });
    // A list that grew must not be destroyed by a word that was meant for one.
    const [wanted, what] =
      ids.length === 1
        ? [ids[0] ?? '', `the instance is ${ids[0]}`]
        : [String(ids.length), `these are ${ids.length} instances`];
    const confirmed = options.yes === true || options.plan !== undefined || confirmedAs(options.confirm, wanted, what);
    const need = confirmation(session, { confirmed });
    if (looksFirst(session, options) || need === 'ask') {
      const { bodies, upstreams } = await lookAt(session, ids);
      const query = options.now === true ? { now: true } : {};
      const plan = planOf(
        session,
        ids.map((id) => ({ method: 'DELETE', path: `/fleet/${id}`, query })),
        upstreams.map((each) => [each.contract_id, each.price_per_hour, each.lifecycle.phase]),
      );
      const text = upstreams
        .map((each) => {
          const { instance_id: id, gpu_model: gpu, price_per_hour: price } = each;
          const open = each.load.active_connections;
          const lost = unusedUsd(each);
          if (session.plain) return session.line(id, gpu, String(price), String(open), lost === 0 ? '' : String(lost));
          return session.line(
            id,
            gpu,
            `${usd(price)} per hour`,
            counted(open, 'open request'),
            ...(lost === 0 ? [] : [`${usd(lost)} of prepaid time is not used and stays booked`]),
          );
        })
        .join('');
      if (options.dryRun === true) {
        const perHour = upstreams.reduce((sum, each) => sum + each.price_per_hour, 0);
        const document = { instances: bodies, price_per_hour: perHour };
        showPlan(session, plan, document, session.quiet ? ids.map((id) => `${id}\n`).join('') : text);
        return;
      }
      checkPlan(plan, options.plan);
      if (need === 'ask') process.stderr.write(text);
    }
    if (need !== 'none') {
      await settle(need, {
        question: `Destroy ${ids.length === 1 ? 'it' : `these ${ids.length}`}?`,
        undone: 'nothing was destroyed',
        would: `destroy ${ids.length === 1 ? ids[0] : counted(ids.length, 'instance')}`,
      });
    }
    await forEachId(ids, async (id) => {
      const answer = await callInstance(session, 'DELETE', id, '', {
        query: { now: options.now },
        timeoutMs: 120_000,
      });
      const { status } = await session.read('destroyed', answer);
      if (session.json) session.printBody(answer);
      else session.print(session.quiet ? `${id}\n` : session.line(id, status));
      session.note(`${id}: ${meanings[status]}`);
    });
  });
}

/** What is lost of time that is paid already, USD to a hundredth. */
function unusedUsd({ expires_at: end, price_per_hour: perHour }: Answers['upstream']): number {
  const hours = end === null ? 0 : (Date.parse(end) - Date.now()) / 3_600_000;
  return hours <= 0 ? 0 : Math.round(hours * perHour * 100) / 100;
}
