import { randomUUID } from 'node:crypto';
import { existsSync, readFileSync, rmSync } from 'node:fs';
import { afterAll, afterEach, inject } from 'vitest';

/** In the folder of the test run, which goes with it. */
const faults = `${inject('openapi')}.${randomUUID()}.faults`;
process.env.TEST_OPENAPI = inject('openapi');
process.env.TEST_ANSWER_FAULTS = faults;

/** What servers of this test file, in whatever process, answered other than described since the last call. */
export function takeAnswerFaults(): string {
  if (!existsSync(faults)) return '';
  const text = readFileSync(faults, 'utf8');
  rmSync(faults);
  return text;
}

export function refuseAnswerFaults(): void {
  const text = takeAnswerFaults();
  // A stream says the same a thousand times.
  if (text !== '') throw new Error(text.slice(0, 10_000));
}

afterEach(refuseAnswerFaults);
// A program may answer until it is stopped, after the last test.
afterAll(refuseAnswerFaults);
