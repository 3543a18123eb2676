import { AppError } from '../../fleet/app.ts';
import { operation } from '../operation.ts';
import * as schemas from '../schemas.ts';
import { loadsWire, loadWire, tracked } from '../wire.ts';

export const loadBalancerOperations = [
  operation({
    method: 'GET',
    path: '/loadbalancer/strategy',
    id: 'getStrategy',
    tag: 'load balancer',
    summary: 'The strategy in use',
    access: 'read',
    answers: { 200: { description: 'The strategy', schema: schemas.strategyAnswer } },
    handle: (_, { app }) => ({ status: 200, body: { strategy: app.state.get().strategy.name } }),
  }),
  operation({
    method: 'PUT',
    path: '/loadbalancer/strategy',
    id: 'setStrategy',
    tag: 'load balancer',
    summary: 'Switch the strategy, at once and without losing statistics',
    access: 'admin',
    body: schemas.setStrategyBody,
    answers: { 200: { description: 'Switched', schema: schemas.strategySetAnswer } },
    async handle({ body, by }, { app }) {
      const { strategy } = await app.setStrategy(body.strategy, by);
      return { status: 200, body: { strategy, message: 'Load balancing strategy updated' } };
    },
  }),
  operation({
    method: 'GET',
    path: '/loadbalancer/loads',
    id: 'listLoads',
    tag: 'load balancer',
    summary: 'Load of every tracked instance',
    access: 'read',
    answers: { 200: { description: 'Loads by instance id', schema: schemas.loadsAnswer } },
    handle: (_, { app }) => ({ status: 200, body: loadsWire(app.state.get()) }),
  }),
  operation({
    method: 'GET',
    path: '/loadbalancer/load',
    id: 'getLoad',
    tag: 'load balancer',
    summary: 'Load of one instance',
    access: 'read',
    query: schemas.loadQuery,
    answers: { 200: { description: 'The load', schema: schemas.load } },
    problems: ['not_found'],
    handle({ query }, { app }) {
      const view = tracked(app.state.get()).find((upstream) => upstream.id === query.instance_id);
      if (!view) throw new AppError('not_found', `There is no tracked instance ${query.instance_id}.`);
      return { status: 200, body: loadWire(view) };
    },
  }),
];
