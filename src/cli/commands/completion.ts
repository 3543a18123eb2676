import type { Command } from 'commander';
import { nearest } from '../../core/words.ts';
import { suggest, withExamples, withoutConnection } from '../command.ts';
import { completionScript, shells } from '../completion-scripts.ts';
import { usageError } from '../exit.ts';

export function build(command: Command): void {
  withoutConnection(command);
  command.argument('<shell>', shells.join(', '));
  suggest(command, 'shell', shells);
  withExamples(command, [
    ['source <(gpuproxy completion bash)', 'in ~/.bashrc'],
    ['source <(gpuproxy completion zsh)', 'in ~/.zshrc, after compinit'],
    ['gpuproxy completion fish > ~/.config/fish/completions/gpuproxy.fish', 'once'],
  ]);
  command.action((word: string) => {
    const shell = shells.find((each) => each === word);
    if (shell === undefined) {
      const near = nearest(word, shells);
      throw usageError(`unknown shell "${word}"${near === undefined ? '' : `; did you mean ${near}?`}`, {
        hint: `one of ${shells.join(', ')}`,
      });
    }
    process.stdout.write(completionScript(shell));
  });
}
