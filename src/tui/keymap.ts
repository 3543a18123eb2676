import * as z from 'zod';
import { type Command, commands } from './commands.ts';
import type { Key } from './keys.ts';

/** What is wrong with a keymap, one sentence each. */
export class KeymapError extends Error {
  override readonly name = 'KeymapError';
  readonly details: readonly string[];
  constructor(details: readonly string[]) {
    super(details.join('; '));
    this.details = details;
  }
}

const namedKeys = [
  'space',
  'enter',
  'escape',
  'tab',
  'shift-tab',
  'up',
  'down',
  'left',
  'right',
  'pageup',
  'pagedown',
  'home',
  'end',
  'backspace',
  'delete',
] as const;
const characters = new Intl.Segmenter('en', { granularity: 'grapheme' });

const isKey = (text: string): boolean =>
  namedKeys.some((name) => name === text) ||
  /^ctrl-[a-z]$/.test(text) ||
  (/^[^\s\p{Control}]+$/u.test(text) && [...characters.segment(text)].length === 1);

const shape = z.record(z.string(), z.array(z.string()));

/**
 * The commands with the keys of a keymap: `{"drain": ["D"]}` gives the command of that id these keys in place of its
 * own. Throws KeymapError.
 */
export function withKeymap(keymap: unknown): readonly Command[] {
  const parsed = shape.safeParse(keymap);
  if (!parsed.success) {
    throw new KeymapError(
      parsed.error.issues.map(
        (issue) =>
          `${issue.path.length === 0 ? 'the whole' : `"${issue.path.join('.')}"`}: ${issue.message}; accepts ids of commands with lists of keys, like {"drain": ["D"]}`,
      ),
    );
  }
  const wanted = new Map(Object.entries(parsed.data));
  const wrong: string[] = [];
  for (const [id, keys] of wanted) {
    if (!commands.some((command) => command.id === id)) {
      wrong.push(`no command "${id}"; there are ${commands.map((command) => command.id).join(' ')}`);
    }
    for (const key of keys) {
      if (isKey(key)) continue;
      wrong.push(
        `"${id}": got the key ${JSON.stringify(key)}, accepts one character, ctrl-a to ctrl-z, or ${namedKeys.join(' ')}`,
      );
    }
  }
  const changed = commands.map((command): Command => {
    const keys = wanted.get(command.id);
    if (keys === undefined) return command;
    // The way out that everybody knows stays, whatever else is chosen.
    return { ...command, keys: command.id === 'quit' ? [...new Set<Key>([...keys, 'ctrl-c'])] : keys };
  });
  const taken = new Map<string, string>();
  for (const { id, scope, keys } of changed) {
    for (const key of keys) {
      const before = taken.get(`${scope} ${key}`);
      if (before !== undefined && before !== id) {
        wrong.push(
          `"${key}" would mean both ${before} and ${id}${scope === 'global' ? '' : ` in ${scope}`}; give one of them another key`,
        );
      }
      taken.set(`${scope} ${key}`, id);
    }
  }
  if (wrong.length > 0) throw new KeymapError(wrong);
  return changed;
}
