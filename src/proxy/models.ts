import type { LoadTable } from '../core/load-table.ts';
import type { Answer } from './answers.ts';
import type { Upstreams } from './upstreams.ts';

/**
 * `/v1/models` of the whole fleet: the union over upstreams that work. Null when the target is another one, or when no
 * working upstream has told its models, so that one of them has to answer for itself.
 */
export function modelsAnswer(target: string, upstreams: Upstreams, table: LoadTable): Answer | null {
  const query = target.indexOf('?');
  const path = query === -1 ? target : target.slice(0, query);
  if (path !== '/v1/models' && path !== '/v1/models/') return null;
  const models = new Set<string>();
  let told = false;
  for (const { entry } of upstreams.all()) {
    if (entry.models === null) continue;
    const row = table.read(entry);
    if (row === null || !row.running || row.health === 'unknown' || row.health === 'ejected') continue;
    told = true;
    for (const model of entry.models) models.add(model);
  }
  if (!told) return null;
  const data = [...models].sort().map((id) => ({ id, object: 'model', created: 0, owned_by: 'gpuproxy' }));
  return { status: 200, headers: ['content-type', 'application/json'], body: JSON.stringify({ object: 'list', data }) };
}

/** The model that `/v1/models/{model}` asks about; null for other targets. */
export function modelOfPath(target: string): string | null {
  const match = /^\/v1\/models\/([^?]+)/.exec(target);
  if (match === null) return null;
  try {
    return decodeURIComponent(match[1]!);
  } catch {
    return null;
  }
}
