import type { ServerResponse } from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Fault, FaultOf } from './faults.ts';
import { html, json, type Reply, type Route, send, text } from './http.ts';

/** What vast.ai says to those who call too often, in each of its forms; never with a Retry-After. */
export function tooFrequent(route: Route, form: FaultOf<'rate_limit'>['form']): Reply {
  const threshold = (route.intervalS ?? 1).toFixed(1);
  const msg = `API requests too frequent endpoint threshold=${threshold}`;
  if (form === 'detail') return json(429, { detail: msg });
  if (form === 'error') return json(429, { success: false, error: 'rate_limit_exceeded', msg });
  return text(429, `API requests too frequent: endpoint threshold=${threshold}*1.0`);
}

/** Faults that end a call in place of its answer. */
export type Loss = FaultOf<'error' | 'reset' | 'hang' | 'lose_answer' | 'garbage'>;

export function isLoss(fault: Fault): fault is Loss {
  return ['error', 'reset', 'hang', 'lose_answer', 'garbage'].includes(fault.kind);
}

/** Status of the call for the record; 0: no answer. */
export function statusAfter(loss: Loss, handled: number): number {
  if (loss.kind === 'error') return loss.status;
  if (loss.kind === 'garbage') return 200;
  if (loss.kind === 'hang' && loss.ms !== undefined) return handled === 0 ? 503 : handled;
  return loss.kind === 'lose_answer' && loss.how === 'error' ? 502 : 0;
}

/** Answers as the fault says. `reply` is what would have been sent; null when nothing was done. */
export async function lose(loss: Loss, response: ServerResponse, reply: Reply | null): Promise<void> {
  const how = loss.kind === 'lose_answer' || loss.kind === 'garbage' ? loss.how : loss.kind;
  switch (how) {
    case 'reset':
      response.socket?.resetAndDestroy();
      return;
    case 'hang':
      if (loss.kind !== 'hang' || loss.ms === undefined) return;
      await sleep(loss.ms);
      send(response, reply ?? html(503, 'Service Temporarily Unavailable'));
      return;
    case 'error':
      if (loss.kind !== 'error') send(response, html(502, 'Bad Gateway'));
      else if (loss.body === undefined) send(response, html(loss.status, 'Service Temporarily Unavailable'));
      else if (typeof loss.body === 'string') send(response, text(loss.status, loss.body));
      else send(response, json(loss.status, loss.body));
      return;
    case 'html':
      send(response, html(200, 'Welcome'));
      return;
    case 'empty':
      send(response, { ...json(200, null), body: '' });
      return;
    case 'wrong_shape':
      send(response, json(200, { unexpected: [null, { offers: 'none' }] }));
      return;
    case 'truncate': {
      const body = Buffer.from(reply?.body ?? '{"success": true, "offers": [');
      response.writeHead(200, { 'Content-Type': 'application/json', 'Content-Length': body.length });
      response.write(body.subarray(0, Math.max(1, body.length >> 1)), () => response.socket?.resetAndDestroy());
      return;
    }
  }
}
