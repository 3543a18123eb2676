import { flushCompileCache } from 'node:module';
import { loadConfig } from '../../src/config.ts';
import { createApp } from '../../src/fleet/create-app.ts';
import { createIonet } from '../../src/providers/ionet.ts';
import { createVast } from '../../src/providers/vast.ts';
import type { Action, Message, Plan, Setup } from './protocol.ts';

/**
 * The process that is killed: the real application on a real ledger and real HTTP clients. It does what the parent
 * says and dies by its own SIGKILL at the step that the plan names.
 */
const setup = JSON.parse(process.argv[2] ?? '{}') as Setup;
const send = (message: Message) => process.send?.(message);

process.on('disconnect', () => process.exit(0));
// The parent starts the next process while this one still lives; it may open the ledger only when that one is dead.
await new Promise<void>((resolve) => {
  process.once('message', () => resolve());
  send({ type: 'loaded' });
  // A killed process does not write the cache at its end.
  flushCompileCache();
});

let plan: Plan | null = null;
let countdown = 0;
const common = { instancePort: 8000, pace: 0, patience: 0.05 };

const app = await createApp({
  config: loadConfig({ flags: { MAX_USD_PER_HOUR: setup.maxUsdPerHour, DRAIN_SECONDS: 0 } }),
  providers: [
    createVast({ ...common, apiKey: setup.vastKey, baseUrl: setup.vastUrl }),
    createIonet({ ...common, apiKey: setup.ionetKey, baseUrl: setup.ionetUrl }),
  ],
  dataDir: setup.dataDir,
  timing: {
    reconcileMs: 100,
    reconcileBusyMs: 40,
    refreshMs: 60_000,
    offersFreshMs: 3000,
    callTimeoutMs: 500,
    rentTimeoutMs: 500,
    destroyTimeoutMs: 500,
    lookForLabelMs: [10, 30, 60],
    unknownGraceMs: 100,
    absentGraceMs: 60,
    lingerGraceMs: 60,
    failedGraceMs: 500,
    destroyRetryMs: 20,
    destroyRetryMaxMs: 100,
    destroyWaitMs: 400,
    probeIntervalMs: 60_000,
    probeFirstMs: 60_000,
  },
  onStep(name) {
    if (plan?.dieAt?.step !== name) return;
    countdown -= 1;
    if (countdown <= 0) process.kill(process.pid, 'SIGKILL');
  },
});

const act = async (action: Action): Promise<string> => {
  switch (action.kind) {
    case 'reserve': {
      const { kind: _, idempotencyKey, ...request } = action;
      const result = await app.reserve(
        { ...request, config: {} },
        idempotencyKey === undefined ? {} : { idempotencyKey },
      );
      return `${result.replayed ? 'replayed' : 'reserved'} ${result.count}`;
    }
    case 'release': {
      const result = await app.releaseReservation(action.reservation, { now: true });
      return `released ${result.released.length}`;
    }
    case 'destroy':
      return (await app.destroy(action.instance, { now: true })).status;
  }
};

process.on('message', (message: Message) => {
  if (message.type === 'plan') {
    plan = message.plan;
    countdown = plan.dieAt?.occurrence ?? 0;
    Promise.all(
      plan.actions.map((action) =>
        act(action).catch((error: unknown) => `refused: ${error instanceof Error ? error.message : String(error)}`),
      ),
    ).then((results) => send({ type: 'done', results }));
  } else if (message.type === 'look') {
    const { upstreams, reservations, foreign, cost } = app.state.get();
    send({
      type: 'state',
      upstreams: upstreams.map((view) => ({
        id: view.id,
        contract: view.contract,
        phase: view.lifecycle.phase,
        reservation: view.reservation,
        usdPerHour: view.usdPerHour,
      })),
      reservations: reservations.map(({ id, state, requested, instances }) => ({ id, state, requested, instances })),
      foreign: foreign.map((instance) => instance.contract),
      spentUsd: cost.spentUsd,
    });
  }
});
send({ type: 'ready' });
