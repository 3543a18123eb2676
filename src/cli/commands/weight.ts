import type { Command } from 'commander';
import { suggest, withConnection, withExamples } from '../command.ts';
import { usageError } from '../exit.ts';
import { callInstance } from '../fleet-call.ts';
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
    })
    .option('-n, --dry-run', 'show the present weight, and change nothing');
  suggest(command, 'id', 'instances');
  withConnection(command);
  withExamples(command, [
    ['gpuproxy weight vast-12345 3', 'three times the share of a weight of 1'],
    ['gpuproxy weight vast-12345 auto', 'the formula again'],
  ]);
  command.action(async (id: string, weight: number | null, options: { dryRun?: boolean }) => {
    const session = openSession(command);
    const answer =
      options.dryRun === true
        ? await callInstance(session, 'GET', id, '')
        : await callInstance(session, 'PUT', id, '/weight', { body: { weight } });
    const upstream = await session.read('upstream', answer);
    if (session.json) session.printBody(answer);
    else
      session.print(session.quiet ? `${id}\n` : session.line(id, upstream.weight.toFixed(2), upstream.weight_source));
    if (options.dryRun === true) session.note(`It would become ${weight ?? 'that of the formula'}.`);
  });
}
