import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { endings } from '../../src/core/domain.ts';

/** Bodies as they stand in the load balancing guide. */
export const guideLoads = {
  strategy: 'least_connections',
  count: 5,
  loads: Object.fromEntries(
    (
      [
        ['vast-12345', 'vast.ai', 3, 150, '250ms', 1.5],
        ['vast-67890', 'vast.ai', 2, 120, '230ms', 1.5],
        ['ionet-abc', 'io.net', 1, 80, '180ms', 2],
      ] as const
    ).map(([instance_id, provider, active_connections, total_connections, avg_response_time, weight]) => [
      instance_id,
      {
        instance_id,
        provider,
        active_connections,
        total_connections,
        avg_response_time,
        last_response_time: '245ms',
        weight,
        last_used: '2024-01-12T10:30:00Z',
      },
    ]),
  ),
};
export const guideProviders = {
  providers: [
    { provider: 'vast.ai', status: 'ok', available: 42 },
    { provider: 'io.net', status: 'ok', available: 28 },
  ],
  total_available: 70,
};
export const guideReserved = {
  reserved: [
    {
      instance_id: 'vast-12345',
      contract_id: '54321',
      provider: 'vast.ai',
      gpu_model: 'RTX 4090',
      vram: 24,
      price: 0.79,
    },
    {
      instance_id: 'vast-67890',
      contract_id: '54322',
      provider: 'vast.ai',
      gpu_model: 'RTX 4090',
      vram: 24,
      price: 0.79,
    },
    { instance_id: 'ionet-abc', contract_id: 'xyz789', provider: 'io.net', gpu_model: 'A100', vram: 80, price: 1.99 },
  ],
  count: 16,
  requested: 16,
  errors: [] as string[],
  reservation_id: 'res-1',
};

export type Seen = Readonly<{ method: string; path: string; headers: IncomingMessage['headers']; body: unknown }>;
export type Reply = Readonly<{ status?: number; body?: unknown; type?: string; headers?: Record<string, string> }>;
type Handler = (request: Seen, response: ServerResponse) => Reply | undefined | Promise<Reply | undefined>;

/** A real HTTP server that answers like the guide; `on` puts another answer in place of one. */
export async function startGuideServer() {
  const seen: Seen[] = [];
  const handlers = new Map<string, Handler>();
  const usual: Record<string, Reply> = {
    'GET /api/v1/loadbalancer/loads': { body: guideLoads },
    'GET /api/v1/providers': { body: guideProviders },
    'GET /api/v1/loadbalancer/strategy': { body: { strategy: 'round_robin' } },
    'POST /api/v1/gpu/instances/reserve': { status: 201, body: guideReserved },
    'GET /healthz': { body: { status: 'ok' } },
  };
  const server = createServer((incoming, response) => {
    void (async () => {
      const chunks: Buffer[] = [];
      for await (const chunk of incoming as AsyncIterable<Buffer>) chunks.push(chunk);
      const text = Buffer.concat(chunks).toString();
      const request: Seen = {
        method: incoming.method ?? '',
        path: incoming.url ?? '',
        headers: incoming.headers,
        body: text === '' ? undefined : JSON.parse(text),
      };
      seen.push(request);
      const name = `${request.method} ${request.path.split('?')[0]}`;
      const handler = handlers.get(name);
      const reply = handler
        ? await handler(request, response)
        : (usual[name] ?? problem(404, 'not_found', 'no such thing'));
      if (reply === undefined) return;
      response.writeHead(reply.status ?? 200, {
        'content-type': reply.type ?? ((reply.status ?? 200) >= 400 ? 'application/problem+json' : 'application/json'),
        ...reply.headers,
      });
      response.end(
        reply.body === undefined ? '' : typeof reply.body === 'string' ? reply.body : JSON.stringify(reply.body),
      );
    })();
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    seen,
    on: (name: string, handler: Handler | Reply) =>
      void handlers.set(name, typeof handler === 'function' ? handler : () => handler),
    reset() {
      seen.length = 0;
      handlers.clear();
    },
    async close() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

export function problem(status: number, code: string, detail: string, more: object = {}): Reply {
  return { status, body: { type: `/docs#${code}`, title: `Title of ${code}`, status, detail, code, ...more } };
}

/** An instance as the server describes it. */
export function upstreamBody(id: string, more: Readonly<Record<string, unknown>> = {}) {
  return {
    instance_id: id,
    provider: 'vast.ai',
    contract_id: '54321',
    reservation_id: 'res-1',
    state: 'OK',
    reason: '',
    eligible: true,
    lifecycle: { phase: 'running', since: '2026-11-20T10:00:00.000Z', detail: null },
    admin: { mode: 'ready', deadline: null },
    health: { state: 'up', until: null, times: 0, why: '' },
    origin: 'http://127.0.0.1:9',
    gpu_model: 'RTX 4090',
    gpu_count: 1,
    vram_gb: 24,
    price_per_hour: 0.79,
    location: null,
    models: null,
    interruptible: false,
    started_at: null,
    expires_at: null,
    spent_usd: 1.5,
    weight: 1.5,
    weight_source: 'formula',
    configured: false,
    max_in_flight: 0,
    requests_per_second: 0,
    error_rate: 0,
    share: 0,
    p50_ms: null,
    p95_ms: null,
    p99_ms: null,
    endings: Object.fromEntries(endings.map((ending) => [ending, 0])),
    load: {
      ...guideLoads.loads['vast-12345'],
      avg_response_time_ms: 250,
      last_response_time_ms: 245,
    },
    ...more,
  };
}
