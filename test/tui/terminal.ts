import { EventEmitter } from 'node:events';
import { Duplex } from 'node:stream';
import xterm from '@xterm/headless';

/** A real terminal emulator behind the two streams of a process. */
export type TestTerminal = Readonly<{
  stdin: NodeJS.ReadStream;
  stdout: NodeJS.WriteStream;
  /** Bytes written since the last call. */
  taken(): string;
  type(text: string): void;
  resize(columns: number, rows: number): void;
  /** Rows on the screen, without trailing blanks. */
  screen(): Promise<string[]>;
  alternate(): boolean;
  cursorVisible(): boolean;
  dispose(): void;
}>;

export function createTestTerminal(columns = 100, rows = 30): TestTerminal {
  const terminal = new xterm.Terminal({ cols: columns, rows, allowProposedApi: true, convertEol: true });
  let bytes = '';
  let pending = 0;
  let visible = true;
  const idle = new EventEmitter();
  const write = (chunk: string) => {
    bytes += chunk;
    if (chunk.includes('\u001b[?25l')) visible = false;
    if (chunk.includes('\u001b[?25h')) visible = true;
    pending += 1;
    terminal.write(chunk, () => {
      pending -= 1;
      if (pending === 0) idle.emit('idle');
    });
  };
  const stdout = Object.assign(
    new Duplex({
      read: () => undefined,
      write(chunk: Buffer, _encoding, done) {
        write(chunk.toString('utf8'));
        done();
      },
    }),
    { isTTY: true, columns, rows, fd: 1, getColorDepth: () => 8, hasColors: () => true },
  );
  const stdin = Object.assign(new Duplex({ read: () => undefined, write: (_chunk, _encoding, done) => done() }), {
    isTTY: true,
    fd: 0,
    isRaw: false,
    setRawMode(mode: boolean) {
      stdin.isRaw = mode;
      return stdin;
    },
    ref: () => stdin,
    unref: () => stdin,
  });
  return {
    stdin: stdin as unknown as NodeJS.ReadStream,
    stdout: stdout as unknown as NodeJS.WriteStream,
    taken() {
      const all = bytes;
      bytes = '';
      return all;
    },
    type: (text) => void stdin.push(text),
    resize(newColumns, newRows) {
      terminal.resize(newColumns, newRows);
      Object.assign(stdout, { columns: newColumns, rows: newRows });
      stdout.emit('resize');
    },
    async screen() {
      if (pending > 0) await new Promise((done) => idle.once('idle', done));
      const buffer = terminal.buffer.active;
      return Array.from(
        { length: terminal.rows },
        (_, row) => buffer.getLine(buffer.baseY + row)?.translateToString(true) ?? '',
      );
    },
    alternate: () => terminal.buffer.active.type === 'alternate',
    cursorVisible: () => visible,
    dispose: () => terminal.dispose(),
  };
}
