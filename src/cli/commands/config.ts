import { type Command, Option } from 'commander';
import { loadConfig } from '../../config.ts';
import { isBaseUrl, shownValue, withoutUrlSecrets } from '../../core/base-url.ts';
import { nearest } from '../../core/words.ts';
import { defaultSubcommand, suggest, withExamples } from '../command.ts';
import { usageError } from '../exit.ts';
import { type Column, plainLines, tableLines } from '../output.ts';
import { openPreferences } from '../preferences.ts';
import { preferencesFile, readPreferences } from '../preferences-file.ts';
import { storedVariables } from '../server-config.ts';
import { masked, settingColumns, settingRows, settingsDocument } from '../setting-rows.ts';
import { terminal } from '../terminal.ts';

/** Preferences that may be set by hand, with what they accept. */
const names = {
  apiKey: {
    accepts: 'a key of at least 8 printable characters',
    ok: (text: string) => /^[\x21-\x7e]{8,}$/.test(text),
    secret: true,
  },
  url: {
    accepts: 'an http:// or https:// URL without user, password, query and fragment',
    ok: isBaseUrl,
    secret: false,
  },
} as const;
type Name = keyof typeof names;

export function build(command: Command): void {
  withExamples(command, [
    ['gpuproxy config set url http://gpu-host:8080', 'where client commands find the server'],
    ['gpuproxy config get url', 'one preference'],
    ['gpuproxy config show', 'every setting and where it comes from'],
    ['gpuproxy config path', 'the file'],
  ]);
  suggest(command, 'name', Object.keys(names));
  command
    .option('--json', 'print one JSON document')
    .addOption(new Option('--plain', 'rows with tabs between the fields, no header').conflicts('json'))
    .option('-q, --quiet', 'of several print the names only');
  const wants = () => command.opts<{ json?: boolean; plain?: boolean; quiet?: boolean }>();
  const print = (text: string, value: unknown) =>
    process.stdout.write(wants().json === true ? `${JSON.stringify(value)}\n` : text);
  const printRows = <Row extends { name: string }>(
    columns: readonly Column<Row>[],
    rows: readonly Row[],
    table: readonly string[],
    value: unknown,
  ) => {
    const { plain, quiet } = wants();
    const lines = quiet ? rows.map(({ name }) => name) : plain ? plainLines(columns, rows) : table;
    print(lines.map((line) => `${line}\n`).join(''), value);
  };

  command
    .command('get')
    .description('One preference; all when none is named. Keys are shown masked.')
    .argument('[name]', Object.keys(names).join(', '))
    .option('--reveal', 'show a key in full')
    .action((word: string | undefined, options: { reveal?: boolean }) => {
      const stored = readPreferences();
      const shown = (name: Name) => {
        const value = stored[name];
        if (value === undefined || options.reveal === true) return value ?? null;
        // An address that an older version took may hold a password.
        return names[name].secret ? masked(value) : withoutUrlSecrets(value);
      };
      if (word === undefined) {
        const all = Object.fromEntries((Object.keys(names) as Name[]).map((name) => [name, shown(name)]));
        const rows = Object.entries(all).map(([name, value]) => ({ name, value: value ?? '' }));
        printRows(
          [
            { title: 'NAME', value: (row) => row.name },
            { title: 'VALUE', value: (row) => row.value },
          ],
          rows,
          rows.map(({ name, value }) => `${name}=${value}`),
          all,
        );
        return;
      }
      const value = shown(known(word));
      print(value === null ? '' : `${value}\n`, value);
      if (value === null) process.exitCode = 1;
    });
  command
    .command('set')
    .description('Keep a preference.')
    .argument('<name>', Object.keys(names).join(', '))
    .argument('<value>')
    .action((word: string, value: string) => {
      const name = known(word);
      if (!names[name].ok(value)) {
        throw usageError(
          `${name}: got ${names[name].secret ? 'a value that is hidden' : shownValue(value)}, accepts ${names[name].accepts}`,
        );
      }
      openPreferences().set(name, value);
    });
  command
    .command('unset')
    .description('Forget a preference.')
    .argument('<name>', Object.keys(names).join(', '))
    .action((word: string) => openPreferences().delete(known(word)));
  command
    .command('path')
    .description('The file that keeps the preferences.')
    .action(() => {
      print(`${preferencesFile()}\n`, preferencesFile());
    });
  defaultSubcommand(command, 'show')
    .description('Every setting, its value and where it comes from. Secrets are masked.')
    .option('--origin', 'with the origin (always shown)')
    .action(() => {
      const config = loadConfig({ environment: process.env, cwd: process.cwd(), stored: storedVariables() });
      const rows = settingRows(config);
      const table = tableLines(settingColumns, rows, terminal()?.columns ?? null);
      printRows(settingColumns, rows, table, settingsDocument(rows));
    });
  for (const subcommand of command.commands) withExamples(subcommand, examples[subcommand.name()] ?? []);
}

const examples: Readonly<Record<string, readonly (readonly [line: string, does: string])[]>> = {
  get: [
    ['gpuproxy config get url', 'where client commands find the server'],
    ['gpuproxy config get apiKey --reveal', 'the key itself, for another program'],
  ],
  set: [
    ['gpuproxy config set url http://gpu-host:8080', 'client commands find the server there'],
    ['gpuproxy config set apiKey gp_0123456789', 'and send this key'],
  ],
  unset: [['gpuproxy config unset url', 'the server of this machine again']],
  path: [['gpuproxy config path', 'to look at it, or to keep it safe']],
  show: [
    ['gpuproxy config show', 'every variable with its value and its origin'],
    ['gpuproxy config show --json', 'for programs'],
  ],
};

function known(word: string): Name {
  const all = Object.keys(names) as Name[];
  const exact = all.find((name) => name.toLowerCase() === word.toLowerCase().replace(/[-_]/g, ''));
  if (exact !== undefined) return exact;
  const near = nearest(word, all);
  throw usageError(`unknown preference "${word}"${near === undefined ? '' : `; did you mean ${near}?`}`, {
    hint: `one of ${all.join(', ')}`,
  });
}
