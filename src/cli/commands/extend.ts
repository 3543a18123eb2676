import type { Command } from 'commander';
import { counted } from '../../core/words.ts';
import { suggest, withConnection, withExamples } from '../command.ts';
import { confirmation, settle } from '../confirm.ts';
import { callInstance } from '../fleet-call.ts';
import { wholeFrom } from '../offer-options.ts';
import { usd } from '../output.ts';
import { checkPlan, looksFirst, type PlanOptions, planOf, showPlan, withPlan } from '../plan.ts';
import { openSession } from '../session.ts';

export function build(command: Command): void {
  command
    .argument('<id>', 'instance')
    .argument('<hours>', '1 to 8760', wholeFrom('hours', 1, 8760))
    .option('-y, --yes', 'buy without asking');
  withPlan(command);
  suggest(command, 'id', 'instances');
  withConnection(command);
  withExamples(command, [['gpuproxy extend ionet-abc 4', 'four more prepaid hours']]);
  command.action(async (id: string, hours: number, options: PlanOptions & Readonly<{ yes?: boolean }>) => {
    const session = openSession(command);
    const need = confirmation(session, { confirmed: options.yes === true || options.plan !== undefined });
    if (looksFirst(session, options) || need !== 'none') {
      const answer = await callInstance(session, 'GET', id, '');
      const { price_per_hour: price, expires_at: until } = await session.read('upstream', answer);
      const cost = `${counted(hours, 'hour')} for about ${usd(price * hours)}`;
      const plan = planOf(session, [{ method: 'POST', path: `/fleet/${id}/extend`, body: { hours } }], [price, until]);
      if (options.dryRun === true) {
        const document = { instance_id: id, hours, price_usd: price * hours, expires_at: until };
        const text = session.quiet
          ? `${id}\n`
          : session.plain
            ? session.line(id, String(hours), String(price * hours))
            : `Would buy ${cost}\n`;
        showPlan(session, plan, document, text);
        return;
      }
      checkPlan(plan, options.plan);
      if (need !== 'none') {
        await settle(need, { question: `Buy ${cost}?`, undone: 'nothing was bought', would: `buy ${cost}` });
      }
    }
    const answer = await callInstance(session, 'POST', id, '/extend', { body: { hours }, timeoutMs: 120_000 });
    if (session.json) session.printBody(answer);
    else {
      const { expires_at: until } = await session.read('upstream', answer);
      session.print(
        session.quiet ? `${id}\n` : session.line(id, session.plain ? (until ?? '') : `prepaid until ${until ?? '-'}`),
      );
    }
  });
}
