import { PassThrough } from 'node:stream';

/** A report of the terminal that is no key. Cells count from 0. */
export type TerminalReport =
  | Readonly<{ kind: 'focus'; on: boolean }>
  | Readonly<{ kind: 'press' | 'wheel-up' | 'wheel-down'; x: number; y: number }>;

export const focusReports = { on: '\u001b[?1004h', off: '\u001b[?1004l' } as const;
/** Presses and the wheel, as SGR reports: the older forms cannot name columns beyond 223. */
export const mouseReports = { on: '\u001b[?1000h\u001b[?1006h', off: '\u001b[?1006l\u001b[?1000l' } as const;

const esc = '\u001b';
const report = new RegExp(`${esc}\\[(?:([IO])|<(\\d+);(\\d+);(\\d+)([Mm]))`, 'g');
/** The beginning of a mouse report whose rest is still on its way. */
const unfinished = new RegExp(`${esc}\\[<[\\d;]*$`);

/**
 * Keys of a terminal without its focus and mouse reports, which go to `tell`. It reads from the terminal only while
 * raw mode is on, so that a shell or a child process gets what is typed in between.
 */
export function createTerminalInput(source: NodeJS.ReadStream, tell: (report: TerminalReport) => void) {
  let held = '';
  const stream = Object.assign(new PassThrough(), {
    isTTY: true,
    isRaw: false,
    setRawMode(mode: boolean) {
      if (mode !== stream.isRaw) {
        stream.isRaw = mode;
        source.setRawMode(mode);
        if (mode) {
          source.on('data', take);
          source.resume();
        } else {
          source.off('data', take);
          source.pause();
        }
      }
      return stream;
    },
    ref() {
      source.ref();
      return stream;
    },
    unref() {
      source.unref();
      return stream;
    },
  });

  function take(chunk: Buffer | string): void {
    // As latin1, so that the bytes of longer characters stay as they are, wherever a chunk ends.
    const text = held + Buffer.from(chunk as string).toString('latin1');
    const keys = text.replace(report, (_all, focus, button, x, y, end) => {
      if (focus !== undefined) tell({ kind: 'focus', on: focus === 'I' });
      else {
        const at = { x: Number(x) - 1, y: Number(y) - 1 };
        if (end === 'M' && Number(button) === 0) tell({ kind: 'press', ...at });
        else if (Number(button) === 64) tell({ kind: 'wheel-up', ...at });
        else if (Number(button) === 65) tell({ kind: 'wheel-down', ...at });
      }
      return '';
    });
    // It waits as long as it must: passed on, the numbers in its rest would be taken for keys.
    held = unfinished.exec(keys)?.[0] ?? '';
    pass(keys.slice(0, keys.length - held.length));
  }

  function pass(keys: string): void {
    if (keys !== '') stream.write(Buffer.from(keys, 'latin1'));
  }

  return stream as unknown as NodeJS.ReadStream;
}
