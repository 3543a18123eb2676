import type { Command } from 'commander';
import { suggest, withConnection, withExamples } from '../command.ts';
import { fieldsOf, numberOf, textOf } from '../fields.ts';
import { callInstance, forEachId } from '../fleet-call.ts';
import { usd } from '../output.ts';
import { confirm, notConfirmed, openSession } from '../session.ts';

const meanings: Readonly<Record<string, string>> = {
  destroyed: 'destroyed, as the provider confirms',
  destroying: 'being destroyed; the server repeats it until the provider confirms',
  gone: 'was not there any more',
};

export function build(command: Command): void {
  command
    .argument('<id...>', 'instances')
    .option('--now', 'do not drain first: open requests are cut')
    .option('-y, --yes', 'destroy without asking')
    .option('-n, --dry-run', 'show what would be destroyed, and destroy nothing');
  suggest(command, 'id', 'instances');
  withConnection(command);
  withExamples(command, [
    ['gpuproxy destroy vast-12345', 'drain, then give it back'],
    ['gpuproxy destroy $(gpuproxy fleet -q) --yes', 'the whole fleet'],
    ['gpuproxy destroy vast-12345 --now', 'at once'],
  ]);
  command.action(async (ids: readonly string[], options: { now?: boolean; yes?: boolean; dryRun?: boolean }) => {
    const session = openSession(command);
    if (options.dryRun === true || (session.interactive && options.yes !== true)) {
      await forEachId(ids, async (id) => {
        const answer = await callInstance(session, 'GET', id, '');
        const upstream = fieldsOf(answer.body);
        const active = textOf(fieldsOf(upstream.load).active_connections, '0');
        const line = `${id}  ${textOf(upstream.gpu_model)}  ${usd(numberOf(upstream.price_per_hour))} per hour  ${active} open requests`;
        if (options.dryRun !== true) process.stderr.write(`${line}\n`);
        else if (session.json) session.printBody(answer);
        else session.print(session.quiet ? `${id}\n` : `${line}\n`);
      });
      if (options.dryRun === true) return;
      if (!(await confirm(`Destroy ${ids.length === 1 ? 'it' : `these ${ids.length}`}?`))) {
        throw notConfirmed('nothing was destroyed');
      }
    }
    await forEachId(ids, async (id) => {
      const answer = await callInstance(session, 'DELETE', id, '', {
        query: { now: options.now },
        timeoutMs: 120_000,
      });
      const status = textOf(fieldsOf(answer.body).status);
      if (session.json) session.printBody(answer);
      else session.print(session.quiet ? `${id}\n` : `${id}  ${status}\n`);
      session.note(`${id}: ${meanings[status] ?? status}`);
    });
  });
}
