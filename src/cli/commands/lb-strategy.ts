import type { Command } from 'commander';
import { type StrategyName, strategyNames } from '../../core/domain.ts';
import { nearest } from '../../core/words.ts';
import { repeatOf, suggest, withConnection, withExamples, withWatch } from '../command.ts';
import { CliError, usageError } from '../exit.ts';
import { checkPlan, looksFirst, type PlanOptions, planOf, showPlan, withPlan } from '../plan.ts';
import { openSession } from '../session.ts';
import { show } from '../watch.ts';

export function build(command: Command): void {
  command.argument('[name]', `the new strategy: ${strategyNames.join(', ')}`);
  withPlan(command);
  command.option(
    '--preview',
    'show how it and the present one would have done with the latest requests, and change nothing',
  );
  withWatch(command);
  withConnection(command);
  suggest(command, 'name', strategyNames);
  withExamples(command, [
    ['gpuproxy lb-strategy', 'the strategy in use'],
    ['gpuproxy lb-strategy least_connections', 'switch; counters and response times are kept'],
    ['gpuproxy lb-strategy least_connections --preview', 'what it would have made of the latest requests'],
  ]);
  command.action(async (word: string | undefined, options: PlanOptions & { watch?: number; preview?: boolean }) => {
    const session = openSession(command, options.preview === true ? { rows: 'results', schema: null } : {});
    if (word === undefined) {
      await show(session, repeatOf(options), async () => {
        const answer = await session.call('GET', '/loadbalancer/strategy');
        return { json: answer.body, text: async () => `${(await session.read('strategy', answer)).strategy}\n` };
      });
      return;
    }
    const name = strategyNames.find((each) => each === word);
    if (name === undefined) {
      const near = nearest(word, strategyNames);
      throw usageError(`unknown strategy "${word}"${near ? `; did you mean ${near}?` : ''}`, {
        hint: `one of ${strategyNames.join(', ')}`,
      });
    }
    const plans = looksFirst(session, options);
    const looks = plans || (options.preview === true && !session.shows);
    const previous = looks || !(session.quiet || session.shows) ? await currentStrategy() : null;
    if (options.preview === true) {
      const { showReplay } = await import('../strategy-results.ts');
      const compared = previous === null || previous === name ? [name] : [previous, name];
      await showReplay(session, compared);
      return;
    }
    if (plans) {
      const plan = planOf(
        session,
        [{ method: 'PUT', path: '/loadbalancer/strategy', body: { strategy: name } }],
        previous,
      );
      if (options.dryRun === true) {
        showPlan(session, plan, { strategy: previous, would_be: name }, `${name}\n`);
        session.note(
          previous === name
            ? `Strategy is already ${name}; nothing would change.`
            : `Strategy would change: ${previous} -> ${name}`,
        );
        return;
      }
      checkPlan(plan, options.plan);
    }
    const answer = await session.call('PUT', '/loadbalancer/strategy', { body: { strategy: name } });
    if (session.json) session.printBody(answer);
    else session.print(`${(await session.read('strategySet', answer)).strategy}\n`);
    if (previous === name) session.note(`Strategy is already ${name}.`);
    else if (previous !== null)
      session.note(`Strategy: ${previous} -> ${name}. Undo: gpuproxy lb-strategy ${previous}`);

    /** For the message only: a key that may not read must still be able to try the switch. */
    async function currentStrategy(): Promise<StrategyName | null> {
      try {
        return (await session.read('strategy', await session.client.call('GET', '/loadbalancer/strategy'))).strategy;
      } catch (error) {
        if (looks || !(error instanceof CliError) || error.status === null) throw error;
        return null;
      }
    }
  });
}
