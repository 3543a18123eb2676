import { createHash } from 'node:crypto';
import { problems } from './problem.ts';

/**
 * The page to read and try the API. It is one document without anything from elsewhere: the operations are read from
 * openapi.json beside it, and the policy lets it run its own script and talk to its own server alone.
 */
export function docsPage(): { html: string; contentSecurityPolicy: string } {
  const html = `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>gpuproxy control plane</title>
<link rel="icon" href="data:,">
<style>${style}</style>
</head>
<body>
<header>
<h1>gpuproxy control plane</h1>
<p id="about">Reading <a href="/api/v1/openapi.json">openapi.json</a> …</p>
<p class="bar">
<label>Key <input id="key" type="password" autocomplete="off" spellcheck="false" placeholder="X-API-Key" size="36"></label>
<label>Find <input id="find" type="search" placeholder="word" size="20"></label>
<span class="dim">The key stays in this page and is sent to this server alone.</span>
</p>
</header>
<nav id="tags" aria-label="Groups"></nav>
<main id="operations"><noscript>This page needs JavaScript; <a href="/api/v1/openapi.json">openapi.json</a> does not.</noscript></main>
<section>
<h2 id="problems">Problems</h2>
<p>Whatever fails answers <code>application/problem+json</code> with one of these codes. Codes are stable, texts are not.</p>
<table><thead><tr><th>code<th>status<th>meaning<th>what to do</thead><tbody>
${Object.entries(problems)
  .map(
    ([code, { status, title, advice }]) =>
      `<tr id="${code}"><td><code>${code}</code><td>${status}<td>${escapeHtml(title)}<td>${escapeHtml(advice)}`,
  )
  .join('\n')}
</tbody></table>
</section>
<script>${script}</script>
</body>
</html>
`;
  const policy = [
    "default-src 'none'",
    `script-src '${hashOf(script)}'`,
    `style-src '${hashOf(style)}'`,
    "connect-src 'self'",
    'img-src data:',
    "base-uri 'none'",
    "form-action 'none'",
    "frame-ancestors 'none'",
  ];
  return { html, contentSecurityPolicy: policy.join('; ') };
}

function hashOf(text: string): string {
  return `sha256-${createHash('sha256').update(text).digest('base64')}`;
}

function escapeHtml(text: string): string {
  return text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;');
}

const style = `
:root { color-scheme: light dark; --line: light-dark(#d5d9de, #3a4049); --dim: light-dark(#5d6673, #98a2b0);
  --back: light-dark(#fff, #14171c); --soft: light-dark(#f4f6f8, #1c2027); --accent: light-dark(#0b62c4, #6db3ff); }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 64rem; padding: 1rem 1.25rem 4rem; background: var(--back);
  font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.4rem; margin: 0; }
h2 { font-size: 1.05rem; margin: 2rem 0 .5rem; text-transform: capitalize; }
a { color: var(--accent); }
code, pre, textarea, .path, .method, input { font-family: ui-monospace, monospace; font-size: 13px; }
.dim { color: var(--dim); }
.bar { display: flex; flex-wrap: wrap; gap: .75rem 1.25rem; align-items: center; }
nav { position: sticky; top: 0; background: var(--back); padding: .5rem 0; border-bottom: 1px solid var(--line);
  display: flex; flex-wrap: wrap; gap: .25rem 1rem; }
details.operation { border: 1px solid var(--line); border-radius: 6px; margin: .4rem 0; }
details.operation > summary { display: flex; flex-wrap: wrap; gap: .25rem .75rem; padding: .45rem .75rem; cursor: pointer; list-style: none; }
details.operation[open] > summary { background: var(--soft); border-bottom: 1px solid var(--line); }
.method { font-weight: 700; width: 4.5em; }
.GET { color: light-dark(#1a7f37, #57c975); } .POST { color: light-dark(#0b62c4, #6db3ff); }
.PUT { color: light-dark(#9a6700, #e3b341); } .DELETE { color: light-dark(#cf222e, #ff7b72); }
.path { font-weight: 600; overflow-wrap: anywhere; }
.inside { padding: .5rem .75rem .75rem; }
table { border-collapse: collapse; width: 100%; margin: .4rem 0; }
th, td { text-align: left; vertical-align: top; padding: .25rem .6rem .25rem 0; border-bottom: 1px solid var(--line); }
h2, details, tr { scroll-margin-top: 3.5rem; }
tr:target { background: var(--soft); outline: 2px solid var(--accent); }
input, textarea, button { font-size: 13px; padding: .3rem .45rem; border: 1px solid var(--line); border-radius: 4px;
  background: var(--soft); color: inherit; }
textarea { width: 100%; min-height: 9rem; resize: vertical; }
button { cursor: pointer; font-family: inherit; padding: .35rem .9rem; }
button.danger { border-color: light-dark(#cf222e, #ff7b72); }
pre { background: var(--soft); padding: .6rem; border-radius: 4px; overflow: auto; max-height: 28rem; margin: .4rem 0;
  white-space: pre-wrap; overflow-wrap: anywhere; }
`;

/** Plain script of the page. It builds everything with textContent, so nothing that a server says becomes markup. */
const script = `
'use strict';
const el = (tag, props, ...children) => {
  const node = Object.assign(document.createElement(tag), props);
  node.append(...children.filter((child) => child !== null));
  return node;
};
const byId = (id) => document.getElementById(id);
const say = (text) => { byId('about').textContent = text; };
let api = null;

const resolve = (schema) => schema && schema.$ref ? resolve(api.components.schemas[schema.$ref.split('/').pop()]) : schema || {};

const kindOf = (schema) => {
  const name = schema && schema.$ref ? schema.$ref.split('/').pop() + ': ' : '';
  const s = resolve(schema);
  if (s.enum) return name + s.enum.map((v) => JSON.stringify(v)).join(' | ');
  if ('const' in s) return JSON.stringify(s.const);
  if (s.anyOf) return name + s.anyOf.map(kindOf).join(' | ');
  if (s.type === 'array') return 'list of ' + kindOf(s.items);
  const bounds = [];
  if (s.minimum !== undefined) bounds.push('>= ' + s.minimum);
  if (s.exclusiveMinimum !== undefined) bounds.push('> ' + s.exclusiveMinimum);
  if (s.maximum !== undefined && s.maximum < 1e15) bounds.push('<= ' + s.maximum);
  return name + (s.format || s.type || 'any') + (bounds.length ? ' (' + bounds.join(', ') + ')' : '');
};

const example = (schema, depth) => {
  const s = resolve(schema);
  if (s.examples) return s.examples[0];
  if (s.enum) return s.enum[0];
  if (s.anyOf) return example(s.anyOf[0], depth);
  if (s.type === 'object') {
    const out = {};
    for (const [name, inner] of Object.entries(s.properties || {})) {
      if (depth === 0 || (s.required || []).includes(name)) out[name] = example(inner, depth + 1);
    }
    return out;
  }
  if (s.type === 'array') return [];
  if (s.type === 'boolean') return false;
  if (s.type === 'null') return null;
  if (s.type === 'integer' || s.type === 'number') return Math.max(1, s.minimum || 0);
  return '';
};

const fieldRows = (schema, prefix, depth) => {
  const s = resolve(schema);
  if (s.type === 'array') return fieldRows(s.items, prefix + '[]', depth);
  if (s.type !== 'object' || depth > 3) return [];
  const rows = [];
  for (const [name, inner] of Object.entries(s.properties || {})) {
    const full = prefix === '' ? name : prefix + '.' + name;
    const needed = (s.required || []).includes(name) ? '' : 'optional ';
    const said = inner.description || resolve(inner).description || '';
    rows.push(el('tr', {}, el('td', {}, el('code', { textContent: full })), el('td', { textContent: needed + kindOf(inner) }),
      el('td', { textContent: said })));
    rows.push(...fieldRows(inner, full, depth + 1));
  }
  const values = s.additionalProperties;
  if (values && typeof values === 'object') rows.push(...fieldRows(values, prefix + '.*', depth + 1));
  return rows;
};

const table = (rows) => el('table', {}, el('tbody', {}, ...rows));

const tryIt = (method, path, operation) => {
  const inputs = operation.parameters.map((parameter) => {
    const input = el('input', { size: 30, spellcheck: false, placeholder: parameter.required ? 'needed' : '' });
    input.setAttribute('aria-label', parameter.name);
    return { parameter, input };
  });
  const media = operation.requestBody && operation.requestBody.content['application/json'];
  const body = media ? el('textarea', { spellcheck: false, value: JSON.stringify(example(media.schema, 0), null, 2) }) : null;
  if (body) body.setAttribute('aria-label', 'body');
  const changes = operation['x-scope'] === 'admin' && method !== 'GET';
  const send = el('button', { type: 'button', textContent: changes ? 'Send: this changes things' : 'Send', className: changes ? 'danger' : '' });
  const stop = el('button', { type: 'button', textContent: 'Stop', hidden: true });
  const curl = el('pre', { hidden: true });
  const result = el('pre', { hidden: true });
  result.setAttribute('role', 'status');
  let abort = null;
  stop.onclick = () => abort && abort.abort();
  send.onclick = async () => {
    let url = path;
    const query = new URLSearchParams();
    const headers = {};
    for (const { parameter, input } of inputs) {
      if (parameter.in === 'path') url = url.replace('{' + parameter.name + '}', encodeURIComponent(input.value));
      else if (input.value !== '' && parameter.in === 'query') query.set(parameter.name, input.value);
      else if (input.value !== '') headers[parameter.name] = input.value;
    }
    if (String(query) !== '') url += '?' + query;
    const text = body && body.value.trim() !== '' ? body.value : undefined;
    if (text !== undefined) headers['Content-Type'] = 'application/json';
    const quote = (value) => "'" + value.replaceAll("'", "'\\\\''") + "'";
    curl.textContent = ['curl' + (method === 'GET' ? '' : ' -X ' + method) + ' -H "X-API-Key: $GPUPROXY_API_KEY"',
      ...Object.entries(headers).map(([name, value]) => '-H ' + quote(name + ': ' + value)),
      ...(text === undefined ? [] : ['-d ' + quote(text)]), quote(location.origin + url)].join(' \\\\\\n  ');
    if (byId('key').value !== '') headers['X-API-Key'] = byId('key').value;
    curl.hidden = result.hidden = false;
    result.textContent = '…';
    send.disabled = true;
    abort = new AbortController();
    const began = performance.now();
    try {
      const answer = await fetch(url, { method, headers, body: text, signal: abort.signal, cache: 'no-store', credentials: 'omit' });
      const head = answer.status + ' ' + answer.statusText + '  ' + Math.round(performance.now() - began) + ' ms\\n';
      const type = answer.headers.get('content-type') || '';
      if (type.startsWith('text/event-stream')) {
        stop.hidden = false;
        result.textContent = head;
        const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
        for (let part = await reader.read(); !part.done; part = await reader.read()) {
          result.textContent = (result.textContent + part.value).slice(-20000);
          result.scrollTop = result.scrollHeight;
        }
      } else {
        const came = await answer.text();
        result.textContent = head + (type.includes('json') ? JSON.stringify(JSON.parse(came), null, 2) : came);
      }
    } catch (error) {
      if (error.name !== 'AbortError') result.textContent = 'No answer: ' + error.message;
    } finally {
      send.disabled = false;
      stop.hidden = true;
    }
  };
  return [
    ...(inputs.length === 0 ? [] : [table(inputs.map(({ parameter, input }) => el('tr', {},
      el('td', {}, el('code', { textContent: parameter.name }), el('span', { className: 'dim', textContent: ' ' + parameter.in })),
      el('td', {}, input),
      el('td', { className: 'dim', textContent: [kindOf(parameter.schema), parameter.description || parameter.schema.description].filter(Boolean).join(': ') }))))]),
    ...(media ? [el('p', { className: 'dim', textContent: operation.requestBody.required ? 'Body' : 'Body (may be left out)' }), body,
      el('details', {}, el('summary', { textContent: 'Fields of the body' }), table(fieldRows(media.schema, '', 0)))] : []),
    el('p', {}, send, ' ', stop), curl, result,
  ];
};

const answers = (operation) => table(Object.entries(operation.responses).map(([status, answer]) => {
  const content = Object.entries(answer.content || {})[0];
  const schema = content && (content[1].schema || content[1]['x-data-schema']);
  const rows = schema && status < 400 ? fieldRows(schema, '', 0) : [];
  const fields = rows.length ? el('details', {}, el('summary', { textContent: content[0] }), table(rows)) : (content ? content[0] : '');
  return el('tr', {}, el('td', { textContent: status }), el('td', { textContent: answer.description }), el('td', {}, fields));
}));

const row = (method, path, operation) => {
  const scope = operation.security && operation.security.length === 0 ? 'no key' : 'scope ' + operation['x-scope'];
  const inside = el('div', { className: 'inside' });
  const details = el('details', { className: 'operation', id: operation.operationId },
    el('summary', {}, el('span', { className: 'method ' + method, textContent: method }), el('span', { className: 'path', textContent: path }),
      el('span', { textContent: operation.summary }), el('span', { className: 'dim', textContent: scope })), inside);
  details.dataset.words = [method, path, operation.operationId, operation.summary, operation.description || ''].join(' ').toLowerCase();
  details.ontoggle = () => {
    if (!details.open || inside.childElementCount > 0) return;
    if (operation.description) inside.append(el('p', { textContent: operation.description }));
    inside.append(...tryIt(method, path, operation), el('details', {}, el('summary', { textContent: 'Answers' }), answers(operation)));
  };
  return details;
};

const openTarget = () => {
  const target = location.hash.length > 1 && byId(decodeURIComponent(location.hash.slice(1)));
  if (target && target.tagName === 'DETAILS') target.open = true;
  if (target) target.scrollIntoView();
};

(async () => {
  const answer = await fetch('/api/v1/openapi.json');
  if (!answer.ok) throw new Error('openapi.json answered ' + answer.status);
  api = await answer.json();
  say(api.info.description);
  for (const { name } of api.tags) {
    const heading = el('h2', { textContent: name, id: 'tag-' + name.replaceAll(' ', '-') });
    byId('tags').append(el('a', { href: '#' + heading.id, textContent: name }));
    const section = el('section', {}, heading);
    for (const [path, methods] of Object.entries(api.paths)) {
      for (const [method, operation] of Object.entries(methods)) {
        if (operation.tags[0] === name) section.append(row(method.toUpperCase(), path, operation));
      }
    }
    byId('operations').append(section);
  }
  byId('tags').append(el('a', { href: '#problems', textContent: 'problems' }));
  byId('find').oninput = (event) => {
    const words = event.target.value.toLowerCase().split(' ').filter(Boolean);
    for (const details of document.querySelectorAll('details.operation')) {
      details.hidden = !words.every((word) => details.dataset.words.includes(word));
    }
  };
  addEventListener('hashchange', openTarget);
  openTarget();
})().catch((error) => say('The description could not be read: ' + error.message));
`;
