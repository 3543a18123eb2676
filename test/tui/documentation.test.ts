import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { columns } from '../../src/tui/columns.ts';
import { commands, keyName } from '../../src/tui/commands.ts';
import { filterFields, offerFilterFields } from '../../src/tui/filter.ts';
import { themeNames } from '../../src/tui/theme.ts';

const text = readFileSync(join(import.meta.dirname, '..', '..', 'docs', 'dashboard.md'), 'utf8');

const scopes = { global: 'everywhere', list: 'lists' } as const;
const code = (words: string) => (words.includes('`') ? `\`\` ${words} \`\`` : `\`${words}\``);
const row = (command: (typeof commands)[number]) =>
  `| ${command.keys.map((key) => code(keyName(key))).join(' ')} | ${
    scopes[command.scope as keyof typeof scopes] ?? command.scope
  } | ${command.title} | ${code(command.id)} |`;

test('the page about the dashboard has every key with its command, in the order of the help', () => {
  const wanted = commands.filter((command) => command.keys.length > 0).map(row);
  const found = text.split('\n').filter((line) => / \| `[a-z_-]+` \|$/.test(line));
  expect(found).toEqual(wanted);
});

test('the page about the dashboard names every command without a key, field of the filter and theme', () => {
  for (const { id } of columns) expect(text).toContain(`\`sort-${id}\``);
  for (const name of themeNames) expect(text).toContain(`\`theme-${name}\``);
  for (const field of [...filterFields, ...offerFilterFields]) expect(text).toContain(`\`${field}\``);
});
