import { exitCodes } from './exit.ts';

type Listener = (signal: 'SIGINT' | 'SIGTERM') => void;

const leave: Listener = (signal) => process.exit(signal === 'SIGINT' ? exitCodes.interrupted : exitCodes.terminated);
let current: Listener = leave;
let installed = false;

/** From here on Ctrl-C and SIGTERM end the program with 130 and 143, which not every caller sees in a death by signal. */
export function exitOnInterrupt(): void {
  if (installed) return;
  installed = true;
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => current(signal));
}

/** Puts another reaction in place until the returned function is called. */
export function onInterrupt(listener: Listener): () => void {
  exitOnInterrupt();
  current = listener;
  return () => {
    current = leave;
  };
}
