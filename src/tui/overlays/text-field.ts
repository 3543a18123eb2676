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

export function createTextField(text = '', limit = 200): TextField {
  let value = text;
  const set = (next: string) => {
    value = [...plainText(next)].slice(0, limit).join('');
  };
  return {
    get text() {
      return value;
    },
    key(key) {
      if (key === 'backspace' || key === 'delete') set([...value].slice(0, -1).join(''));
      else if (key === 'ctrl-u') set('');
      else if (key === 'space') set(`${value} `);
      else if ([...key].length === 1) set(value + key);
      else return false;
      return true;
    },
    paste: (pasted) => set(value + pasted.replace(/\s+/g, ' ').trim()),
    set,
  };
}
