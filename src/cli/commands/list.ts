import { type Command, Option } from 'commander';
import { repeatOf, suggest, withConnection, withExamples, withWatch } from '../command.ts';
import { exitCodes, usageError } from '../exit.ts';
import {
  type FilterOptions,
  filtersBody,
  offerColumns,
  providerWord,
  wholeFrom,
  withFilters,
} from '../offer-options.ts';
import { duration } from '../output.ts';
import { openSession } from '../session.ts';
import { show } from '../watch.ts';

/** More than one looks through by eye. */
const tableLimit = 50;

export function build(command: Command): void {
  command.argument('[provider]', 'vast.ai or io.net; both when left out', providerWord);
  withFilters(command, { provider: true });
  command.optionsGroup('Options:');
  command
    .option('--limit <n>', 'offers at most (default: 50 in the table, all elsewhere)', wholeFrom('--limit', 1, 100_000))
    .addOption(new Option('--all', 'all offers').conflicts('limit'));
  withWatch(command);
  withConnection(command);
  suggest(command, 'provider', ['vast.ai', 'io.net']);
  withExamples(command, [
    ['gpuproxy list', 'every offer, cheapest first'],
    ['gpuproxy list vast.ai --gpu "rtx 4090" --max-price 0.5', 'RTX 4090 on vast.ai for at most $0.50 per hour'],
    ['gpuproxy list --min-vram 80 --json', 'for programs'],
  ]);
  command.action(
    async (
      provider: string | undefined,
      options: FilterOptions & { watch?: number; limit?: number; all?: boolean },
    ) => {
      if (provider !== undefined && options.provider !== undefined && provider !== options.provider) {
        throw usageError(`two providers: ${provider} and --provider ${options.provider}`, { hint: 'name one of them' });
      }
      const session = openSession(command, { rows: 'instances' });
      const query = filtersBody(provider === undefined ? options : { ...options, provider });
      await show(session, repeatOf(options), async () => {
        const answer = await session.call('GET', '/gpu/instances', { query });
        const { instances: offers, errors, more = [] } = await session.read('offers', answer);
        for (const { provider: name, message, stale_ms: age } of errors) {
          const shown = age === null ? 'none of its offers are known' : `its offers are ${duration(age)} old`;
          session.note(`warning: ${name}: ${message}; ${shown}`);
        }
        // Of a provider that did not answer that is said already.
        const unread = more.filter((name) => !errors.some((error) => error.provider === name));
        if (unread.length > 0) {
          session.note(`note: ${unread.join(' and ')} may have more of them; a filter finds what is left out here`);
        }
        if (offers.length === 0) {
          session.note('No offer matches. Loosen the filters, or look at "gpuproxy providers".');
          process.exitCode = exitCodes.nothing;
        } else process.exitCode = exitCodes.done;
        const limit =
          options.limit ?? (options.all || session.json || session.plain || session.quiet ? null : tableLimit);
        const shown = limit === null ? offers : offers.slice(0, limit);
        if (shown.length < offers.length) {
          session.note(`${shown.length} of ${offers.length} offers; --all shows the others`);
        }
        return {
          json:
            limit === null ? answer.body : Object.assign({}, answer.body, { instances: shown, count: shown.length }),
          text() {
            if (session.quiet) return shown.map((offer) => `${offer.id}\n`).join('');
            return shown.length === 0 ? '' : session.table(offerColumns, shown);
          },
        };
      });
    },
  );
}
