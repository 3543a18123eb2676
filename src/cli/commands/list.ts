import type { Command } from 'commander';
import { repeatOf, suggest, withConnection, withExamples, withWatch } from '../command.ts';
import { exitCodes, usageError } from '../exit.ts';
import { type FilterOptions, filtersBody, offerColumns, providerWord, withFilters } from '../offer-options.ts';
import { openSession } from '../session.ts';
import { show } from '../watch.ts';

export function build(command: Command): void {
  command.argument('[provider]', 'vast.ai or io.net; both when left out', providerWord);
  withFilters(command, { provider: true });
  command.optionsGroup('Options:');
  withWatch(command);
  withConnection(command);
  suggest(command, 'provider', ['vast.ai', 'io.net']);
  withExamples(command, [
    ['gpuproxy list', 'every offer, cheapest first'],
    ['gpuproxy list vast.ai --gpu "rtx 4090" --max-price 0.5', 'RTX 4090 on vast.ai for at most $0.50 per hour'],
    ['gpuproxy list --min-vram 80 --json', 'for programs'],
  ]);
  command.action(async (provider: string | undefined, options: FilterOptions & { watch?: number }) => {
    if (provider !== undefined && options.provider !== undefined && provider !== options.provider) {
      throw usageError(`two providers: ${provider} and --provider ${options.provider}`, { hint: 'name one of them' });
    }
    const session = openSession(command);
    const query = filtersBody(provider === undefined ? options : { ...options, provider });
    await show(session, repeatOf(options), async () => {
      const answer = await session.call('GET', '/gpu/instances', { query });
      const { instances: offers, errors } = await session.read('offers', answer);
      for (const { provider: name, message, stale_ms: age } of errors) {
        session.note(`warning: ${name}: ${message}${age === null ? '' : ' (older offers shown)'}`);
      }
      if (offers.length === 0) {
        session.note('No offer matches. Loosen the filters, or look at "gpuproxy providers".');
        process.exitCode = exitCodes.nothing;
      } else process.exitCode = exitCodes.done;
      return {
        json: answer.body,
        text() {
          if (session.quiet) return offers.map((offer) => `${offer.id}\n`).join('');
          return offers.length === 0 ? '' : session.table(offerColumns, offers);
        },
      };
    });
  });
}
