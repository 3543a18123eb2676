import { spawnSync } from 'node:child_process';
import { chmodSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { createProgram, type Program } from './program.ts';

let program: Program;
let bin: string;
beforeAll(async () => {
  program = await createProgram();
  bin = join(program.folder, 'bin');
  mkdirSync(bin);
  for (const name of ['gpuproxy', 'aiserve-gpuproxy-client']) {
    writeFileSync(join(bin, name), `#!/bin/sh\nexec '${process.execPath}' '${program.main}' "$@"\n`);
    chmodSync(join(bin, name), 0o755);
  }
});
afterAll(() => program.remove());

function inShell(shell: string, args: readonly string[], script: string): string[] {
  const { stdout, stderr } = spawnSync(shell, [...args, script], {
    encoding: 'utf8',
    env: { ...program.environment(), PATH: `${bin}:${process.env.PATH}`, TERM: 'dumb' },
  });
  expect(stderr).toBe('');
  return stdout.split('\n').filter((line) => line !== '');
}

const has = (shell: string) => spawnSync(shell, ['--version']).status === 0;

/** Lines of a person at the keyboard, and what Tab must offer among others. */
const cases: readonly (readonly [line: string, offered: readonly string[], never: readonly string[]])[] = [
  ['gpuproxy lo', ['load', 'logs'], ['list']],
  ['gpuproxy lb-strategy least', ['least_connections', 'least_response_time'], ['round_robin']],
  ['gpuproxy load ', ['server', 'provider'], []],
  ['gpuproxy -key K load ser', ['server'], ['provider']],
  ['gpuproxy keys ', ['create', 'list', 'revoke'], []],
  ['gpuproxy keys create --scope ', ['admin', 'read', 'proxy'], []],
  ['gpuproxy reserve 4 --min', ['--min-vram'], ['--max-price']],
  ['aiserve-gpuproxy-client completion ', ['bash', 'zsh', 'fish'], []],
];

describe('completion', () => {
  /** One shell answers all lines: it costs less than one for each. */
  const check = (words: readonly string[], of: (word: string) => string = (word) => word) => {
    for (const [index, [line, offered, never]] of cases.entries()) {
      const mine = words
        .filter((word) => word.startsWith(`${index}:`))
        .map((word) => of(word.slice(`${index}:`.length)));
      expect(mine, line).toEqual(expect.arrayContaining([...offered]));
      for (const word of never) expect(mine, line).not.toContain(word);
    }
  };

  it('in bash offers what fits', () => {
    const ask = cases.map(([line], index) => `try ${index} '${line}'`).join('\n');
    check(
      inShell(
        'bash',
        ['--norc', '-c'],
        `source <(gpuproxy completion bash)
         complete -p gpuproxy aiserve-gpuproxy-client >/dev/null || exit 1
         try() {
           COMP_LINE=$2; COMP_POINT=\${#COMP_LINE}
           _gpuproxy "\${COMP_LINE%% *}"
           printf "$1:%s\\n" "\${COMPREPLY[@]}"
         }
         ${ask}`,
      ),
    );
  });

  it.skipIf(!has('fish'))('in fish offers what fits', () => {
    const ask = cases.map(([line], index) => `complete -C '${line}' | string replace -r '^' '${index}:'`).join('\n');
    check(
      inShell('fish', ['--no-config', '-c'], `gpuproxy completion fish | source\n${ask}`),
      (word) => word.split('\t')[0] ?? '',
    );
  });

  it.skipIf(!has('zsh')).each(cases.slice(0, 2))('in zsh of "%s" offers %j', (line, offered, never) => {
    // zsh completes only in its line editor: a shell on a terminal of its own gets the line and a Tab.
    const words = inShell(
      'zsh',
      ['-f', '-c'],
      `zmodload zsh/zpty
       zpty shell zsh -f -i
       ask() { zpty -w shell "$1"; }
       ask 'PS1=READY; stty -echo; autoload -Uz compinit; compinit -D -u; source <(gpuproxy completion zsh)'
       ask 'compadd() { local -a out; builtin compadd -O out "$@"; print -l -- "OFFER:"\${^out} >> "$OFFERS"; builtin compadd "$@"; }'
       ask 'OFFERS=${join(program.folder, 'zsh-offers')}; : > $OFFERS; print -r DO""NE'
       zpty -r shell seen '*DONE*'
       zpty -w -n shell $'${line}\\t'
       for i in {1..100}; do sleep 0.1; [[ -s ${join(program.folder, 'zsh-offers')} ]] && break; done
       sleep 0.2
       zpty -d shell
       cat ${join(program.folder, 'zsh-offers')}`,
    ).map((each) => each.replace('OFFER:', ''));
    expect(words).toEqual(expect.arrayContaining([...offered]));
    for (const word of never) expect(words).not.toContain(word);
  });

  it.each(['zsh', 'fish'])('says aloud when %s is not here to be tested', (shell) => {
    if (!has(shell)) console.warn(`completion is NOT tested in ${shell}: it is not installed`);
  });

  it('offers the values of an option also behind its equals sign, where bash has split the word', async () => {
    const { stdout } = await program.run(['__complete', '--', 'load', '--color=']);
    expect(stdout).toBe('--color=auto\n--color=always\n--color=never\n');
    const offered = (breaks: string) =>
      inShell(
        'bash',
        ['--norc', '-c'],
        `source <(gpuproxy completion bash)
         COMP_WORDBREAKS='${breaks}'; COMP_LINE='gpuproxy load --color=a'; COMP_POINT=\${#COMP_LINE}
         _gpuproxy gpuproxy
         printf '%s\\n' "\${COMPREPLY[@]}"`,
      );
    expect(offered(' =:')).toEqual(['auto', 'always']);
    expect(offered(' ')).toEqual(['--color=auto', '--color=always']);
  });

  it('never fails in the middle of a line', async () => {
    for (const words of [['drain', ''], ['bogus', ''], ['reserve', '4', '--gpu', ''], []]) {
      const { code, stdout, stderr } = await program.run(['__complete', '--', ...words]);
      expect([code, stderr]).toEqual([0, '']);
      expect(stdout).not.toContain('error');
    }
  });

  it('offers the instances that the server knows', async () => {
    const { startGuideServer } = await import('./guide-server.ts');
    const server = await startGuideServer();
    server.on('GET /api/v1/fleet', {
      body: { upstreams: [{ instance_id: 'vast-12345', state: 'OK', gpu_model: 'RTX 4090' }], count: 1, foreign: [] },
    });
    const { stdout } = await program.run(['__complete', '--', 'drain', '-u', server.url, 'va']);
    expect(stdout).toBe('vast-12345\tOK RTX 4090\n');
    await server.close();
  });
});
