import { readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { describe, expect, it } from 'vitest';

type Lock = { packages: Record<string, { optionalDependencies?: Record<string, string> }> };

/** Optional dependencies that the lock file does not know: `npm ci` refuses such a file on every machine. */
function missing(lock: Lock): string[] {
  return Object.entries(lock.packages).flatMap(([path, { optionalDependencies = {} }]) =>
    Object.keys(optionalDependencies)
      .filter(
        (name) => !(`node_modules/${name}` in lock.packages) && !(`${path}/node_modules/${name}` in lock.packages),
      )
      .map((name) => `${path} wants ${name}`),
  );
}

describe('package-lock.json', () => {
  it('knows every optional package of other platforms, so that npm ci accepts it', () => {
    const lock = JSON.parse(readFileSync(resolve(import.meta.dirname, '..', 'package-lock.json'), 'utf8')) as Lock;
    expect(Object.keys(lock.packages).length).toBeGreaterThan(50);
    expect(missing(lock)).toEqual([]);
  });

  it('is found out when one is missing', () => {
    const lock = { packages: { 'node_modules/a': { optionalDependencies: { 'a-darwin': '1.0.0' } } } };
    expect(missing(lock)).toEqual(['node_modules/a wants a-darwin']);
  });
});
