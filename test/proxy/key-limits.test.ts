import { expect, test } from 'vitest';
import { KeyLimits, tooManyOpen } from '../../src/proxy/key-limits.ts';

const terms = (slot: number, requestsPerMinute: number | null, maxConcurrent: number | null) => ({
  hash: '',
  slot,
  expiresAt: null,
  requestsPerMinute,
  maxConcurrent,
});

test('open requests are counted over all threads, and those of a thread that died are given back', () => {
  const buffer = KeyLimits.buffer();
  const [main, one, two] = [0, 1, 2].map((thread) => new KeyLimits(buffer, thread)) as [
    KeyLimits,
    KeyLimits,
    KeyLimits,
  ];
  const key = terms(7, null, 3);
  expect([one.admit(key, 0), two.admit(key, 0), two.admit(key, 0)]).toEqual([0, 0, 0]);
  expect(one.admit(key, 0)).toBe(tooManyOpen);
  expect(main.free(7)).toBe(false);
  main.releaseThread(2);
  expect([one.admit(key, 0), one.admit(key, 0)]).toEqual([0, 0]);
  expect(two.admit(key, 0)).toBe(tooManyOpen);
  for (let i = 0; i < 3; i++) one.release(key);
  expect(main.free(7)).toBe(true);
});

test('a minute holds so many requests and no more, however they are spread over threads', () => {
  const buffer = KeyLimits.buffer();
  const threads = [1, 2].map((thread) => new KeyLimits(buffer, thread));
  const key = terms(0, 60, null);
  let admitted = 0;
  for (let ms = 0; ms < 60_000; ms += 50) if (threads[(ms / 50) % 2]!.admit(key, ms) === 0) admitted++;
  // A minute's worth at once and another one over the minute.
  expect(admitted).toBeGreaterThanOrEqual(119);
  expect(admitted).toBeLessThanOrEqual(121);
  expect(threads[0]!.admit(key, 60_000)).toBeLessThanOrEqual(1_000);
});

test('a request that is refused leaves nothing behind', () => {
  const limits = new KeyLimits(KeyLimits.buffer(), 1);
  const key = terms(3, 2, 5);
  const answers = Array.from({ length: 50 }, () => limits.admit(key, 1));
  expect(answers.filter((wait) => wait === 0)).toHaveLength(2);
  limits.release(key);
  limits.release(key);
  expect(limits.free(3)).toBe(true);
});
