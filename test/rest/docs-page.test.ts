import { createHash } from 'node:crypto';
import { Script } from 'node:vm';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { problems } from '../../src/rest/problem.ts';
import { createFakeApp } from '../helpers/fake-app.ts';
import { type Reply, type Rest, startRest } from './harness.ts';

let rest: Rest;
let page: Reply;

beforeAll(async () => {
  rest = await startRest(createFakeApp());
  page = await rest.call('GET', '/api/v1/docs', { key: null });
});
afterAll(() => rest[Symbol.asyncDispose]());

const between = (tag: string) =>
  [...page.text.matchAll(new RegExp(`<${tag}>([\\s\\S]*?)</${tag}>`, 'g'))].map((m) => m[1]!);

test('the page needs no key and nothing from elsewhere', () => {
  expect(page.status).toBe(200);
  expect(page.headers['content-type']).toBe('text/html; charset=utf-8');
  expect(page.text).not.toMatch(/(?:src|href)="(?:https?:)?\/\//);
  expect(page.text).not.toMatch(/@import|url\(/);
});

test('its policy lets its own script and style run and nothing else', () => {
  const policy = String(page.headers['content-security-policy']);
  expect(policy).toContain("default-src 'none'");
  expect(policy).toContain("frame-ancestors 'none'");
  expect(policy).not.toMatch(/unsafe|\*/);
  for (const tag of ['script', 'style']) {
    const [text, ...more] = between(tag);
    expect(more).toEqual([]);
    expect(policy).toContain(`${tag}-src 'sha256-${createHash('sha256').update(text!).digest('base64')}'`);
  }
  expect(page.text).not.toMatch(/<[^>]+ on\w+=/i);
  expect(page.text).not.toMatch(/<[^>]+ style=/i);
});

test('its script is valid and never makes markup of data', () => {
  const [script] = between('script');
  expect(() => new Script(script!)).not.toThrow();
  expect(script).not.toMatch(/innerHTML|insertAdjacentHTML|document\.write|eval\(|localStorage|sessionStorage|cookie/);
});

test('every problem code has its row, where the type of a problem points', async () => {
  for (const code of Object.keys(problems)) expect(page.text).toContain(`<tr id="${code}">`);
  const { body } = await rest.call('GET', '/api/v1/fleet', { key: null });
  const { type } = body as { type: string };
  expect(type).toBe('/api/v1/docs#unauthorized');
});
