import { plainText } from '../format.ts';
import type { Key } from '../keys.ts';

/** A line of text that keys edit. */
export interface TextField {
  readonly text: string;
  /** True when the key was meant for the field. */
  key(key: Key): boolean;
  /** Newlines in pasted text become blanks: they never submit. */
  paste(text: string): void;
  set(text: string): void;
}

/** With `selected` the first character typed replaces the text, as if all of it were selected. */
export function createTextField(text = '', limit = 200, selected = false): TextField {
  let value = text;
  let replace = selected;
  const set = (next: string) => {
    value = [...plainText(next)].slice(0, limit).join('');
  };
  return {
    get text() {
      return value;
    },
    key(key) {
      const before = replace && [...key].length === 1 ? '' : value;
      replace = false;
      if (key === 'backspace' || key === 'delete') set([...value].slice(0, -1).join(''));
      else if (key === 'ctrl-u') set('');
      else if (key === 'space') set(`${value} `);
      else if ([...key].length === 1) set(before + key);
      else return false;
      return true;
    },
    paste: (pasted) => set(value + pasted.replace(/\s+/g, ' ').trim()),
    set,
  };
}
