import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  age,
  amount,
  asciiGlyphs,
  bar,
  cellWidth,
  count,
  fitText,
  milliseconds,
  money,
  percent,
  plainText,
  rate,
  sliceCells,
  sparkline,
  unicodeGlyphs,
  wrap,
} from '../../src/tui/format.ts';

const anyText = fc.string({ unit: 'binary', maxLength: 60 });
const widths = fc.integer({ min: 0, max: 80 });

describe('text of an exact width', () => {
  test('is exactly as wide as asked for, whatever the text', () => {
    fc.assert(
      fc.property(anyText, widths, fc.constantFrom('left' as const, 'right' as const), (text, width, align) => {
        expect(cellWidth(fitText(text, width, align))).toBe(width);
      }),
    );
  });

  test('has no control character and no newline in it', () => {
    fc.assert(
      fc.property(anyText, (text) => {
        expect(plainText(text)).not.toMatch(/[\u0000-\u001f\u007f-\u009f\u200b-\u200f\u2028\u2029]/);
      }),
    );
    expect(plainText('a\u001b[31mred\u001b[0m\nb')).toBe('a [31mred [0m b');
    expect(plainText('a\u2028b\u2029c')).toBe('a b c');
  });

  test('is the same when it is made safe twice', () => {
    fc.assert(
      fc.property(anyText, (text) => {
        expect(plainText(plainText(text))).toBe(plainText(text));
      }),
    );
  });

  test('keeps wide characters whole and counts them as two cells', () => {
    expect(fitText('深圳 GPU', 6)).toBe('深圳 ~');
    expect(cellWidth('深圳')).toBe(4);
    expect(sliceCells('深圳', 1, 4)).toBe(' 圳');
  });

  test('says that something was cut', () => {
    expect(fitText('vast-12345678', 8)).toBe('vast-12~');
    expect(fitText('ab', 1)).toBe('~');
    expect(fitText('a', 1)).toBe('a');
  });

  test('breaks into lines that are not wider than asked for', () => {
    fc.assert(
      fc.property(fc.string({ maxLength: 80 }), fc.integer({ min: 3, max: 40 }), (text, width) => {
        for (const line of wrap(text, width)) expect(cellWidth(line)).toBeLessThanOrEqual(width);
      }),
    );
  });
});

describe('bars and sparklines', () => {
  const glyphs = fc.constantFrom(asciiGlyphs, unicodeGlyphs);

  test('are exactly as wide as asked for, for any number', () => {
    fc.assert(
      fc.property(fc.double(), widths, glyphs, (value, width, set) => {
        expect(cellWidth(bar(value, width, set))).toBe(width);
      }),
    );
    fc.assert(
      fc.property(fc.array(fc.double()), widths, glyphs, fc.integer({ min: 1, max: 9 }), (values, width, set, per) => {
        expect(cellWidth(sparkline(values, width, set, undefined, per))).toBe(width);
      }),
    );
  });

  test('show that something is there, and look full only when full', () => {
    expect(bar(0.001, 10, asciiGlyphs)).toBe('|.........');
    expect(bar(0, 10, asciiGlyphs)).toBe('..........');
    expect(bar(1, 10, asciiGlyphs)).toBe('||||||||||');
    expect(sparkline([0, 1, 2, 4, 8], 5, asciiGlyphs)).toBe('_.-=^');
  });

  test('the ASCII set has nothing but ASCII', () => {
    expect(JSON.stringify(asciiGlyphs)).toMatch(/^[\x20-\x7e]*$/);
  });
});

describe('figures', () => {
  test('money keeps cents, and more where cents would hide the price', () => {
    expect([0, 0.034, 0.79, 17.9, 1234.5, 250_000].map(money)).toEqual([
      '$0.00',
      '$0.034',
      '$0.79',
      '$17.90',
      '$1235',
      '$250k',
    ]);
  });

  test('a sum is in cents, and less than one is not nothing', () => {
    expect([0, 0.004, 0.053, 0.76, 999.994, 1234.5, 250_000].map(amount)).toEqual([
      '$0.00',
      '<$0.01',
      '$0.05',
      '$0.76',
      '$999.99',
      '$1235',
      '$250k',
    ]);
  });

  test('times are as people say them', () => {
    expect([null, 0.44, 9.96, 250, 1240, 12_400, 125_000].map(milliseconds)).toEqual([
      '-',
      '0.4ms',
      '10ms',
      '250ms',
      '1.24s',
      '12.4s',
      '2m05s',
    ]);
    expect([-5, 4000, 130_000, 11_040_000, 183_600_000].map(age)).toEqual(['0s', '4s', '2m10s', '3h04m', '2d03h']);
  });

  test('counts fit their width', () => {
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 1_000_000_000 }), fc.integer({ min: 4, max: 9 }), (value, width) => {
        expect(count(value, width).length).toBeLessThanOrEqual(width);
      }),
    );
    expect(count(12_345, 5)).toBe('12345');
    expect(count(123_456, 5)).toBe('123k');
  });

  test('percentages and rates never round a little to nothing', () => {
    expect(percent(0.0001)).toBe('<0.1%');
    expect(percent(0.142)).toBe('14%');
    expect(rate(0.44)).toBe('0.4');
    expect(rate(634.2)).toBe('634');
  });
});
