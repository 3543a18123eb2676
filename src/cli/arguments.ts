/** Options every command has, long names: those with a value, and those without. */
const withValue = ['key', 'key-file', 'url', 'timeout', 'color', 'fields', 'retry'] as const;
const withoutValue = [
  'json',
  'raw',
  'quiet',
  'yes',
  'debug',
  'curl',
  'plain',
  'no-input',
  'dry-run',
  'help',
  'version',
  'watch',
] as const;
const shortWithValue = ['-k', '-u'] as const;

const defaultWatchSeconds = 2;

export type Routed = Readonly<{
  /** The first word that is no option; undefined when there is none. */
  command: string | undefined;
  /** Everything else in its order, common options in their long form. */
  rest: readonly string[];
}>;

/**
 * Finds the command among the words of the command line, wherever the common options stand, and turns the single-dash
 * long forms (`-key K`, `-url=U`) into the usual ones.
 */
export function route(argv: readonly string[]): Routed {
  const rest: string[] = [];
  let command: string | undefined;
  for (let i = 0; i < argv.length; i += 1) {
    const word = argv[i]!;
    if (word === '--') {
      if (command === undefined) {
        command = argv[i + 1];
        rest.push(word, ...argv.slice(i + 2));
      } else rest.push(...argv.slice(i));
      break;
    }
    if (!word.startsWith('-') || word === '-') {
      if (command === undefined) command = word;
      else rest.push(word);
      continue;
    }
    const option = longForm(word);
    if (option === '--watch' || option === '-w') {
      // Its value may be left out, so a word that follows is only taken when it is a number.
      if (/^\d/.test(argv[i + 1] ?? '')) i += 1;
      rest.push(`--watch=${/^\d/.test(argv[i] ?? '') ? argv[i] : defaultWatchSeconds}`);
      continue;
    }
    rest.push(option);
    const takesValue =
      (withValue as readonly string[]).includes(option.slice(2)) ||
      (shortWithValue as readonly string[]).includes(option);
    if (takesValue && i + 1 < argv.length) {
      i += 1;
      rest.push(argv[i]!);
    }
  }
  return { command, rest };
}

function longForm(word: string): string {
  const match = /^-([a-z][a-z-]+)(=.*)?$/s.exec(word);
  if (match === null) return word;
  const known = [...withValue, ...withoutValue] as readonly string[];
  return known.includes(match[1]!) ? `-${word}` : word;
}
