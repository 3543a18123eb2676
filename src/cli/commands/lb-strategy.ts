import type { Command } from 'commander';
import { strategyNames } from '../../core/domain.ts';
import { repeatOf, suggest, withConnection, withExamples, withWatch } from '../command.ts';
import { CliError, usageError } from '../exit.ts';
import { nearest } from '../nearest.ts';
import { openSession } from '../session.ts';
import { show } from '../watch.ts';

export function build(command: Command): void {
  command.argument('[name]', `the new strategy: ${strategyNames.join(', ')}`);
  command.option('-n, --dry-run', 'say what would change, and change nothing');
  withWatch(command);
  withConnection(command);
  suggest(command, 'name', strategyNames);
  withExamples(command, [
    ['gpuproxy lb-strategy', 'the strategy in use'],
    ['gpuproxy lb-strategy least_connections', 'switch; counters and response times are kept'],
    ['gpuproxy lb-strategy round_robin --dry-run', 'what a switch would change'],
  ]);
  command.action(async (name: string | undefined, options: { watch?: number; dryRun?: boolean }) => {
    const session = openSession(command);
    if (name === undefined) {
      await show(session, repeatOf(options), async () => {
        const answer = await session.call('GET', '/loadbalancer/strategy');
        return { json: answer.body, text: async () => `${(await session.read('strategy', answer)).strategy}\n` };
      });
      return;
    }
    if (!(strategyNames as readonly string[]).includes(name)) {
      const near = nearest(name, strategyNames);
      throw usageError(`unknown strategy "${name}"${near ? `; did you mean ${near}?` : ''}`, {
        hint: `one of ${strategyNames.join(', ')}`,
      });
    }
    const previous = options.dryRun === true || !(session.quiet || session.shows) ? await currentStrategy() : null;
    if (options.dryRun === true) {
      if (session.json) session.printJson({ strategy: previous, would_be: name, dry_run: true });
      else session.print(`${name}\n`);
      session.note(
        previous === name
          ? `Strategy is already ${name}; nothing would change.`
          : `Strategy would change: ${previous} -> ${name}`,
      );
      return;
    }
    const answer = await session.call('PUT', '/loadbalancer/strategy', { body: { strategy: name } });
    if (session.json) session.printBody(answer);
    else session.print(`${(await session.read('strategySet', answer)).strategy}\n`);
    if (previous === name) session.note(`Strategy is already ${name}.`);
    else if (previous !== null)
      session.note(`Strategy: ${previous} -> ${name}. Undo: gpuproxy lb-strategy ${previous}`);

    /** For the message only: a key that may not read must still be able to try the switch. */
    async function currentStrategy(): Promise<string | null> {
      try {
        return (await session.read('strategy', await session.client.call('GET', '/loadbalancer/strategy'))).strategy;
      } catch (error) {
        if (options.dryRun === true || !(error instanceof CliError) || error.status === null) throw error;
        return null;
      }
    }
  });
}
