import type { Command } from 'commander';
import { nearest } from '../../core/words.ts';
import { createCommand, suggest, withExamples, withoutConnection } from '../command.ts';
import { exitCodeMeanings, usageError } from '../exit.ts';
import { commandNamed, commands } from '../index.ts';
import { overview } from '../overview.ts';

export function build(command: Command): void {
  withoutConnection(command);
  command.argument('[topic...]', 'a command, or exit-codes');
  suggest(command, 'topic', [...commands.map((each) => each.name), 'exit-codes']);
  withExamples(command, [
    ['gpuproxy help', 'every command'],
    ['gpuproxy help reserve', 'one of them, with examples'],
    ['gpuproxy help keys create', 'a subcommand'],
    ['gpuproxy help exit-codes', 'what the program answers to the shell'],
  ]);
  command.action(async ([topic, ...words]: readonly string[]) => {
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
    let described = await createCommand(entry);
    for (const word of words) {
      const known = described.commands.map((each) => each.name());
      const next = described.commands.find((each) => each.name() === word);
      if (next === undefined) {
        const near = nearest(word, known);
        throw usageError(`no help on "${topic} ${word}"${near === undefined ? '' : `; did you mean ${near}?`}`, {
          hint: `gpuproxy help ${topic}`,
        });
      }
      described = next;
    }
    described.outputHelp();
  });
}
