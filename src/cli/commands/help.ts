import type { Command } from 'commander';
import { createCommand, suggest } from '../command.ts';
import { exitCodeMeanings, usageError } from '../exit.ts';
import { commandNamed, commands } from '../index.ts';
import { nearest } from '../nearest.ts';
import { overview } from '../overview.ts';

export function build(command: Command): void {
  command.argument('[topic]', 'a command, or exit-codes');
  suggest(command, 'topic', [...commands.map((each) => each.name), 'exit-codes']);
  command.action(async (topic: string | undefined) => {
    if (topic === undefined) {
      process.stdout.write(overview());
      return;
    }
    if (topic === 'exit-codes') {
      const lines = Object.entries(exitCodeMeanings).map(([code, meaning]) => `  ${code.padStart(3)}  ${meaning}`);
      process.stdout.write(`Exit codes:\n${lines.join('\n')}\n`);
      return;
    }
    const entry = commandNamed(topic);
    if (entry === undefined) {
      const near = nearest(topic, [...commands.map((each) => each.name), 'exit-codes']);
      throw usageError(`no help on "${topic}"${near === undefined ? '' : `; did you mean ${near}?`}`, {
        hint: '"gpuproxy help" lists the commands',
      });
    }
    (await createCommand(entry)).outputHelp();
  });
}
