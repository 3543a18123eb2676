import type { Command } from 'commander';
export function build(_command: Command): void {}
