import type { Command } from 'commander';
import { suggest, withConnection, withExamples } from '../command.ts';
import { fieldsOf, numberOf, textOf } from '../fields.ts';
import { callInstance } from '../fleet-call.ts';
import { wholeFrom } from '../offer-options.ts';
import { counted, usd } from '../output.ts';
import { confirm, notConfirmed, openSession } from '../session.ts';

export function build(command: Command): void {
  command
    .argument('<id>', 'instance')
    .argument('<hours>', '1 to 8760', wholeFrom('hours', 1, 8760))
    .option('-y, --yes', 'buy without asking')
    .option('-n, --dry-run', 'show the price, and buy nothing');
  suggest(command, 'id', 'instances');
  withConnection(command);
  withExamples(command, [['gpuproxy extend ionet-abc 4', 'four more prepaid hours']]);
  command.action(async (id: string, hours: number, options: { yes?: boolean; dryRun?: boolean }) => {
    const session = openSession(command);
    if (options.dryRun === true || (session.interactive && options.yes !== true)) {
      const answer = await callInstance(session, 'GET', id, '');
      const price = numberOf(fieldsOf(answer.body).price_per_hour);
      const cost = `${counted(hours, 'hour')} for about ${usd(price === null ? null : price * hours)}`;
      if (options.dryRun === true) {
        if (session.json) session.printBody(answer);
        else session.print(`Would buy ${cost}\n`);
        return;
      }
      if (!(await confirm(`Buy ${cost}?`))) throw notConfirmed('nothing was bought');
    }
    const answer = await callInstance(session, 'POST', id, '/extend', { body: { hours }, timeoutMs: 120_000 });
    if (session.json) session.printBody(answer);
    else session.print(`${id}  prepaid until ${textOf(fieldsOf(answer.body).expires_at)}\n`);
  });
}
