import { createHash } from 'node:crypto';
import { expect, test } from 'vitest';
import { Guard } from '../../src/proxy/guard.ts';

const sha256 = (text: string) => createHash('sha256').update(text).digest('hex');
const hashes = [sha256('good-key'), sha256('other-key')];
const here = '10.0.0.1';

test('an open data plane lets everybody in, and yet knows which keys were used', () => {
  const guard = new Guard({ required: false, hashes });
  for (const key of [null, 'good-key', 'sk-dummy', 'sk-dummy', 'good-key', 'x'.repeat(2000)]) {
    expect(guard.admit(key, here, 0)).toMatchObject({ terms: null });
  }
  expect(guard.takeUsed()).toEqual([sha256('good-key')]);
  expect(guard.takeUsed()).toEqual([]);
  guard.admit('good-key', here, 0);
  guard.admit('other-key', here, 0);
  expect(guard.takeUsed()).toEqual([sha256('good-key'), sha256('other-key')]);
  // However many guess at it, there is nothing to keep them from.
  for (let guess = 0; guess < 30; guess++) expect(guard.admit(`guess-${guess}`, here, 0)).toEqual({ terms: null });
});

test('where keys are required a guesser is locked out, and keys that proved right are not', () => {
  const guard = new Guard({ required: true, hashes });
  expect(guard.admit(null, here, 0)).toEqual({ refused: 'missing' });
  expect(guard.admit('good-key', here, 0)).toMatchObject({ terms: null });
  for (let guess = 0; guess < 10; guess++)
    expect(guard.admit(`guess-${guess}`, here, 0)).toEqual({ refused: 'unknown' });
  expect(guard.admit('guess-10', here, 200)).toEqual({ refused: 'locked', waitMs: 800 });
  expect(guard.admit('other-key', here, 200)).toEqual({ refused: 'locked', waitMs: 800 });
  expect(guard.admit('good-key', here, 200)).toMatchObject({ terms: null });
  expect(guard.admit('other-key', '10.0.0.2', 200)).toMatchObject({ terms: null });
  expect(guard.admit('guess-11', here, 1001)).toEqual({ refused: 'unknown' });
  expect(guard.admit('guess-12', here, 1001)).toEqual({ refused: 'locked', waitMs: 2000 });
  expect(guard.takeUsed()).toEqual(hashes);
});

test('the same wrong key over and over is no guess', () => {
  const guard = new Guard({ required: true, hashes });
  for (let turn = 0; turn < 100; turn++) expect(guard.admit('stale', here, 0)).toEqual({ refused: 'unknown' });
});

test('a key that was taken back is unknown at once, and a new one known', () => {
  const guard = new Guard({ required: true, hashes });
  guard.admit('good-key', here, 0);
  guard.set({ required: true, hashes: [sha256('new-key')] });
  expect(guard.admit('good-key', here, 0)).toEqual({ refused: 'unknown' });
  expect(guard.admit('new-key', here, 0)).toMatchObject({ terms: null });
});
