import { counted } from '../../core/words.ts';
import { operation } from '../operation.ts';
import { ProblemError } from '../problem.ts';
import * as schemas from '../schemas.ts';

export const probeOperations = [
  operation({
    method: 'GET',
    path: '/healthz',
    root: true,
    id: 'getHealth',
    tag: 'probes',
    summary: 'Liveness: the process answers',
    access: 'public',
    answers: { 200: { description: 'It lives', schema: schemas.healthAnswer } },
    handle: () => ({ status: 200, body: { status: 'ok' } }),
  }),
  operation({
    method: 'GET',
    path: '/readyz',
    root: true,
    id: 'getReadiness',
    tag: 'probes',
    summary: 'Readiness: an upstream can take a request',
    access: 'public',
    answers: { 200: { description: 'Ready', schema: schemas.readyAnswer } },
    problems: ['not_ready'],
    handle(_, { app, accepting }) {
      if (!accepting()) throw new ProblemError('not_ready', 'The server drains: it takes no new requests.');
      const { upstreams } = app.state.get();
      const eligible = upstreams.filter((upstream) => upstream.eligible).length;
      if (eligible === 0) {
        throw new ProblemError('not_ready', `None of ${counted(upstreams.length, 'upstream')} is eligible.`);
      }
      return { status: 200, body: { status: 'ready', eligible } };
    },
  }),
  operation({
    method: 'GET',
    path: '/version',
    id: 'getVersion',
    tag: 'probes',
    summary: 'Versions of the server and of its Node',
    access: 'read',
    answers: { 200: { description: 'The versions', schema: schemas.versionAnswer } },
    handle: (_, { version }) => ({ status: 200, body: { version, node: process.versions.node } }),
  }),
  operation({
    method: 'GET',
    path: '/metrics',
    root: true,
    id: 'getMetrics',
    tag: 'probes',
    summary: 'Prometheus metrics',
    description: 'Open to this machine; from elsewhere it takes a key that may read.',
    access: 'local',
    answers: { 200: { description: 'Text format 0.0.4', type: 'text/plain' } },
    handle: async (_, { metrics }) => ({ status: 200, type: metrics.contentType, text: await metrics.text() }),
  }),
];
