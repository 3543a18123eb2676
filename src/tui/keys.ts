import type { Key as InkKey } from 'ink';

/** One key press by name: a character, `space`, `enter`, `escape`, `up`, `pagedown`, `shift-tab`, `ctrl-c`, … */
export type Key = string;

const characters = new Intl.Segmenter('en', { granularity: 'grapheme' });

const named: readonly (readonly [keyof InkKey, Key])[] = [
  ['upArrow', 'up'],
  ['downArrow', 'down'],
  ['leftArrow', 'left'],
  ['rightArrow', 'right'],
  ['pageUp', 'pageup'],
  ['pageDown', 'pagedown'],
  ['home', 'home'],
  ['end', 'end'],
  ['return', 'enter'],
  ['escape', 'escape'],
  ['backspace', 'backspace'],
  ['delete', 'delete'],
];

/**
 * The keys of one input event. Keys typed fast arrive as one chunk, so every character counts on its own; a chunk never
 * becomes one long unknown key.
 */
export function keysOf(input: string, key: InkKey): readonly Key[] {
  if (key.eventType === 'release') return [];
  const keys = withoutMeta(input, key);
  // Escape followed at once by another key arrives as that key with meta.
  return key.meta && keys[0] !== 'escape' ? ['escape', ...keys] : keys;
}

function withoutMeta(input: string, key: InkKey): readonly Key[] {
  if (key.tab) return [key.shift ? 'shift-tab' : 'tab'];
  for (const [flag, name] of named) {
    if (key[flag] && !(flag === 'escape' && input !== '')) return [name];
  }
  if (key.ctrl) return input === '' ? [] : [`ctrl-${input.toLowerCase()}`];
  return splitCharacters(input);
}

function splitCharacters(input: string): Key[] {
  const keys: Key[] = [];
  for (const { segment } of characters.segment(input)) {
    if (segment === '\r' || segment === '\n' || segment === '\r\n') keys.push('enter');
    else if (segment === '\t') keys.push('tab');
    else if (segment === ' ') keys.push('space');
    else if (segment === '\u007f' || segment === '\b') keys.push('backspace');
    else if (segment === '\u001b') keys.push('escape');
    else if (segment < ' ') keys.push(`ctrl-${String.fromCharCode(segment.charCodeAt(0) + 96)}`);
    else keys.push(segment);
  }
  return keys;
}
