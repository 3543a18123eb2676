import { spawn } from 'node:child_process';
import { onInterrupt } from './interrupts.ts';

/**
 * Shows a text that is longer than the terminal is high with GPUPROXY_PAGER, PAGER or less; `cat` or an empty word means
 * none. A pager that cannot be started leaves the text on the terminal.
 */
export async function page(text: string): Promise<void> {
  const program = process.env.GPUPROXY_PAGER ?? process.env.PAGER ?? 'less -FIRX';
  if (program === '' || program === 'cat') {
    process.stdout.write(text);
    return;
  }
  // Ctrl-C is for the pager, which shares the terminal: ending here would leave it behind.
  const restore = onInterrupt(() => {});
  try {
    const child = spawn(program, { shell: true, stdio: ['pipe', 'inherit', 'inherit'] });
    const ended = new Promise<number | null>((resolve) => {
      child.on('error', () => resolve(127));
      child.on('close', (code) => resolve(code));
    });
    // Whoever has read enough closes the pipe.
    child.stdin.on('error', (error: NodeJS.ErrnoException) => {
      if (error.code !== 'EPIPE') throw error;
    });
    child.stdin.end(text);
    // 126 and 127 are the shell's: there is no such program.
    if ([126, 127].includes((await ended) ?? 0)) process.stdout.write(text);
  } finally {
    restore();
  }
}
