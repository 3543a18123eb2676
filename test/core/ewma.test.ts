import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { ewmaStep } from '../../src/core/ewma.ts';

type Step = typeof ewmaStep;
const tauMs = 30_000;
const ms = fc.double({ min: 0, max: 1e6, noNaN: true });
const gap = fc.double({ min: 0, max: 1e6, noNaN: true });

const constant = (step: Step) =>
  fc.property(ms, fc.array(gap, { minLength: 1, maxLength: 50 }), (x, gaps) =>
    gaps.every((dt) => Math.abs(step(x, x, dt, tauMs) - x) <= 1e-9 * x),
  );
const monotone = (step: Step) =>
  fc.property(ms, ms, ms, gap, (average, a, b, dt) => {
    const [low, high] = a < b ? [a, b] : [b, a];
    return step(average, high, dt, tauMs) >= step(average, low, dt, tauMs);
  });
const followed = (step: Step) =>
  fc.property(fc.integer({ min: 1, max: 500 }), (count) => {
    const dt = (3 * tauMs) / count;
    let average = 20;
    for (let i = 0; i < count; i++) average = step(average, 200, dt, tauMs);
    return average > 190;
  });
/** Halves of a gap must do as much as the whole: the average knows time, not counts. */
const independentOfCount = (step: Step) =>
  fc.property(ms, ms, gap, (average, x, dt) => {
    const twice = step(step(average, x, dt / 2, tauMs), x, dt / 2, tauMs);
    return Math.abs(twice - step(average, x, dt, tauMs)) <= 1e-6 * (1 + average + x);
  });

const byCount: Step = (average, sample) => average * 0.9 + sample * 0.1;
const inWholeMicroseconds: Step = (average, sample, dt, tau) =>
  Math.round(average + (sample - average) * (1 - Math.exp(-dt / tau)));

describe('ewma', () => {
  test('a constant sample is its own average at any spacing', () => {
    fc.assert(constant(ewmaStep));
    expect(() => fc.assert(constant((_, x, dt, tau) => x * (1 - Math.exp(-dt / tau))))).toThrow('Property failed');
  });

  test('a higher sample never gives a lower average', () => {
    fc.assert(monotone(ewmaStep));
    const swapped: Step = (average, sample, dt, tau) => sample + (average - sample) * (2 - Math.exp(-dt / tau));
    expect(() => fc.assert(monotone(swapped))).toThrow('Property failed');
  });

  test('a tenfold change is followed within three time constants, by few samples and by many', () => {
    fc.assert(followed(ewmaStep));
    expect(() => fc.assert(followed(byCount))).toThrow('Property failed');
  });

  test('a thousand samples a second are followed too, which whole microseconds would not be', () => {
    const follow = (step: Step) => {
      let average = 1000;
      for (let i = 0; i < 90_000; i++) average = step(average, 2000, 1, tauMs);
      return average;
    };
    expect(follow(ewmaStep)).toBeGreaterThan(1940);
    expect(follow(inWholeMicroseconds)).toBe(1000);
  });

  test('the average depends on time, not on the number of samples', () => {
    fc.assert(independentOfCount(ewmaStep));
    expect(() => fc.assert(independentOfCount(byCount))).toThrow('Property failed');
  });

  test('a clock that steps back changes nothing', () => {
    expect(ewmaStep(10, 20, -5, tauMs)).toBe(10);
  });
});
