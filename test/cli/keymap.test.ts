import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { createProgram, type Program } from './program.ts';

let program: Program;
beforeAll(async () => {
  program = await createProgram();
}, 60_000);
afterAll(() => program?.remove());

test('a keymap that cannot be understood ends the dashboard before it begins, with the file and what is wrong', async () => {
  const file = join(program.folder, 'conf', 'keymap.json');
  for (const [text, said] of [
    ['{"drian": ["D"]}', 'no command "drian"; there are help palette'],
    ['{"drain": ["x"]}', '"x" would mean both drain and destroy in instances'],
    ['{"drain": ', 'is not JSON'],
  ] as const) {
    writeFileSync(file, text);
    const outcome = await program.run(['tui', '--demo', '--once']);
    expect(outcome.code).toBe(2);
    expect(outcome.stderr).toContain(`${file}: `);
    expect(outcome.stderr).toContain(said);
    expect(outcome.stdout).toBe('');
  }
});
