import type { FleetEvent, Snapshot } from '../../fleet/app.ts';
import { operation } from '../operation.ts';
import * as schemas from '../schemas.ts';
import { costWire, decisionWire, eventWire, requestWire } from '../wire.ts';

/** A dashboard draws at most this often. */
const minSnapshotGapMs = 250;

export const watchOperations = [
  operation({
    method: 'GET',
    path: '/events',
    id: 'streamEvents',
    tag: 'watch',
    summary: 'Server-sent events: strategy changes, rentals, ejections, recoveries, errors',
    description:
      'Each message has an id and is called by the kind of its event; Last-Event-ID (or last_event_id) resumes after it. Without either the stream starts now. ' +
      'An event `gap` with {"missed":true} says that older ones are no longer kept. A reader that is too slow is dropped.',
    access: 'read',
    query: schemas.eventsQuery,
    resumable: true,
    answers: { 200: { description: 'The stream', schema: schemas.eventMessage, type: 'text/event-stream' } },
    problems: ['unavailable'],
    handle({ query, lastEventId }, { app }) {
      const afterId = lastEventId ?? query.last_event_id ?? null;
      return {
        stream(out) {
          let sentId = afterId ?? app.events.recent().at(-1)?.id ?? 0;
          const send = (event: FleetEvent) => {
            if (event.id <= sentId) return;
            sentId = event.id;
            out.send({ id: event.id, event: event.kind, data: eventWire(event) });
          };
          if (afterId !== null) {
            const kept = app.events.recent();
            const oldest = kept[0]?.id ?? 0;
            const newest = kept.at(-1)?.id ?? 0;
            // An id from the future is one of another ledger: everything here is new to that reader.
            if (afterId > newest) sentId = 0;
            if (afterId > newest || (afterId > 0 && oldest > afterId + 1)) {
              out.send({ event: 'gap', data: { missed: true } });
            }
            for (const event of kept) send(event);
          }
          out.onClose(app.events.subscribe(send));
        },
      };
    },
  }),
  operation({
    method: 'GET',
    path: '/state',
    id: 'getState',
    tag: 'watch',
    summary: 'Everything that the dashboard shows, as one document',
    access: 'read',
    answers: { 200: { description: 'The snapshot', schema: schemas.snapshot } },
    handle: (_, { app }) => ({ status: 200, body: app.state.get() }),
  }),
  operation({
    method: 'GET',
    path: '/state/stream',
    id: 'streamState',
    tag: 'watch',
    summary: 'Server-sent events: a whole snapshot after each change, at most 4 a second',
    description: 'Each message is a `snapshot`. A slow reader misses some, never parts of one.',
    access: 'read',
    answers: { 200: { description: 'The stream', schema: schemas.snapshot, type: 'text/event-stream' } },
    problems: ['unavailable'],
    handle: (_, { app }) => ({
      stream(out) {
        let sent: Snapshot | null = null;
        let timer: NodeJS.Timeout | null = null;
        const sendNewest = () => {
          // With bytes still under way the newest snapshot waits for the drain; those in between are never sent.
          if (out.closed || out.waiting || timer !== null) return;
          const snapshot = app.state.get();
          if (snapshot === sent) return;
          sent = snapshot;
          out.send({ id: snapshot.version, event: 'snapshot', data: snapshot });
          timer = setTimeout(() => {
            timer = null;
            sendNewest();
          }, minSnapshotGapMs);
        };
        out.onDrain(sendNewest);
        const unsubscribe = app.state.subscribe(sendNewest);
        out.onClose(() => {
          unsubscribe();
          if (timer !== null) clearTimeout(timer);
        });
        sendNewest();
      },
    }),
  }),
  operation({
    method: 'GET',
    path: '/cost',
    id: 'getCost',
    tag: 'watch',
    summary: 'Cost per hour and spend',
    access: 'read',
    answers: { 200: { description: 'Cost', schema: schemas.costAnswer } },
    handle: (_, { app }) => ({ status: 200, body: costWire(app.state.get()) }),
  }),
  operation({
    method: 'GET',
    path: '/decisions',
    id: 'listDecisions',
    tag: 'watch',
    summary: 'The latest picks, with every candidate and why it lost',
    access: 'read',
    query: schemas.decisionsQuery,
    answers: { 200: { description: 'Decisions', schema: schemas.decisionsAnswer } },
    async handle({ query }, { app }) {
      const decisions = (await app.decisions(toQuery(query))).map(decisionWire);
      return { status: 200, body: { decisions, count: decisions.length } };
    },
  }),
  operation({
    method: 'GET',
    path: '/requests',
    id: 'listRequests',
    tag: 'watch',
    summary: 'The latest requests of the data plane: no headers, bodies or query strings',
    access: 'read',
    query: schemas.requestsQuery,
    answers: { 200: { description: 'Requests', schema: schemas.requestsAnswer } },
    async handle({ query }, { app }) {
      const found = await app.requests({
        ...toQuery(query),
        ...(query.slowest === undefined ? {} : { slowest: query.slowest }),
      });
      const requests = found.map(requestWire);
      return { status: 200, body: { requests, count: requests.length } };
    },
  }),
];

function toQuery(query: { instance_id?: string | undefined; limit?: number | undefined }) {
  return {
    limit: query.limit ?? 100,
    ...(query.instance_id === undefined ? {} : { instance: query.instance_id }),
  };
}
