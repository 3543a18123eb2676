import { describe, expect, it } from 'vitest';
import { marketplaces } from '../../src/providers/index.ts';
import { providerNamed } from '../../src/providers/names.ts';

describe('the registry of marketplaces', () => {
  it.each([
    ['vastai', 'vast.ai'],
    ['VAST', 'vast.ai'],
    ['vast.ai', 'vast.ai'],
    ['ionet', 'io.net'],
    ['io.net', 'io.net'],
    ['static', 'static'],
    ['runpod', undefined],
    ['', undefined],
  ])('knows %s as %s', (word, name) => {
    expect(providerNamed(word)).toBe(name);
  });

  it('makes clients that agree with it about names and prefixes', async () => {
    for (const marketplace of marketplaces) {
      const client = marketplace.create({ apiKey: 'k', baseUrl: 'http://127.0.0.1:1/', instancePort: 8000 });
      expect([client.name, client.prefix]).toEqual([marketplace.name, marketplace.prefix]);
      await client.close?.();
    }
  });
});
