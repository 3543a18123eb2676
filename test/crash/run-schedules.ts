import { type ChildProcess, fork } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { buildSync } from 'esbuild';
import { type FaultInput, type Simulator, startSimulator } from '../../src/sim/simulator.ts';
import type { Action, Message, Plan, Setup, State } from './protocol.ts';

/**
 * Where the process dies. `at` is by its own hand, at a step that the application announces before it takes it: every
 * commit and every paid call lies between two of them. `fault` is by the parent's hand, while the marketplace has the
 * call in hand: it has not carried it out, has and cannot say so, or does after the process is dead.
 */
type Point = Readonly<{ name: string; at: string } | { name: string; fault: FaultInput }>;
type Stage = Readonly<{ kind: 'rent' | 'rollBack' | 'destroy'; points: readonly Point[] }>;

const step = (name: string): Point => ({ name, at: name });
const stages = {
  'before intent': { kind: 'rent', points: [step('before-intent')] },
  'after intent': { kind: 'rent', points: [step('after-intent'), step('call')] },
  'during the call': {
    kind: 'rent',
    points: [{ name: 'in the call', fault: { kind: 'hang', when: 'before', route: 'rent', times: 1 } }],
  },
  'accepted, not answered': {
    kind: 'rent',
    points: [
      { name: 'carried out', fault: { kind: 'hang', when: 'after', route: 'rent', times: 1 } },
      { name: 'carried out late', fault: { kind: 'latency', ms: 250, route: 'rent', times: 1 } },
    ],
  },
  'after the answer': {
    kind: 'rent',
    points: ['answered', 'before-outcome', 'after-outcome', 'before-answer', 'answer'].map(step),
  },
  'during roll-back': {
    kind: 'rollBack',
    points: [
      step('before-rollback'),
      step('rollback'),
      { name: 'destroy of a roll-back', at: 'destroy' },
      { name: 'destroyed by a roll-back', at: 'destroyed' },
    ],
  },
  'during destroy': {
    kind: 'destroy',
    points: [
      step('destroy'),
      step('destroyed'),
      { name: 'in the destroy', fault: { kind: 'hang', when: 'before', route: 'destroy', times: 1 } },
      { name: 'destroyed, not answered', fault: { kind: 'hang', when: 'after', route: 'destroy', times: 1 } },
    ],
  },
} as const satisfies Record<string, Stage>;
export type StageName = keyof typeof stages;
export const stageNames = Object.keys(stages) as StageName[];

/** Steps that come once for every instance. */
const manifold = new Set(['call', 'answered', 'before-outcome', 'after-outcome', 'destroy', 'destroyed']);

/** Fails some of the rentals for good, so that all-or-nothing has something to roll back. */
const halfRefused: FaultInput = { kind: 'rate_limit', route: 'rent', probability: 0.6, times: 20 };

const randomFaults: readonly FaultInput[] = [
  { kind: 'error', status: 503, when: 'before', route: 'rent', times: 2 },
  { kind: 'error', status: 500, when: 'after', route: 'rent', times: 1 },
  { kind: 'reset', when: 'before', route: 'rent', times: 1 },
  { kind: 'lose_answer', how: 'reset', times: 1 },
  { kind: 'lose_answer', how: 'error', times: 2 },
  { kind: 'lose_answer', how: 'truncate', times: 1 },
  { kind: 'lose_answer', how: 'hang', times: 1 },
  { kind: 'garbage', how: 'wrong_shape', route: 'rent', times: 1 },
  { kind: 'rate_limit', route: 'rent', times: 2 },
  { kind: 'stale_offers', times: 2 },
  { kind: 'stale_offers', provider: 'vast', probability: 0.5, times: 4 },
  { kind: 'error', status: 502, route: 'list', times: 3 },
  { kind: 'reset', route: 'list', times: 2 },
  { kind: 'error', status: 503, route: 'destroy', times: 3 },
  { kind: 'error', status: 503, when: 'after', route: 'destroy', times: 1 },
  { kind: 'reset', when: 'after', route: 'destroy', times: 1 },
  { kind: 'rate_limit', route: 'destroy', times: 2 },
  { kind: 'latency', ms: 30, jitterMs: 60 },
  { kind: 'error', status: 503, route: 'search', provider: 'vast', times: 3 },
];

/** Prices that rise between the listing and the paid call, above what anybody asked for. */
const priceRise = { kind: 'reprice', factor: 10 } as const satisfies FaultInput;
/** After these the next process is the first that can see the price. */
const priceUnseen = new Set(['after-outcome', 'carried out', 'carried out late']);

export type CrashReport = Readonly<{
  schedules: number;
  /** How often the process died in each stage, and at each point of it. */
  stages: Readonly<Record<StageName, number>>;
  points: Readonly<Record<string, number>>;
  /** Schedules that finished before their death came. */
  survived: number;
  rented: number;
  seconds: number;
}>;

/** What takes longer counts as endless. Everything waited for is bounded by some seconds, on a machine that has time. */
const endlessMs = 90_000;
const maxUsdPerHour = 12;
/** Of one instance. */
const maxPrice = 1.5;

/**
 * Kills and restarts the application over and over on one ledger and one pair of marketplaces. After each restart the
 * ledger and the marketplaces have to agree: every contract that exists is owned by a reservation that wants it, every
 * contract that the ledger believes in exists, all-or-nothing holds, the budget holds, what was charged is
 * booked, foreign instances are untouched.
 * Throws with the seed and the number of the schedule that failed.
 */
export async function runSchedules(options: {
  seed: number;
  schedules: number;
  log?: (line: string) => void;
}): Promise<CrashReport> {
  const random = generator(options.seed);
  const pick = <T>(items: readonly T[]): T => items[Math.floor(random() * items.length)] as T;
  const startedAt = performance.now();
  const simulator = await startSimulator({
    seed: options.seed,
    bootMs: { min: 0, max: 100 },
    offers: { vast: 60, ionet: 40 },
    credit: { vast: 100_000, ionet: 100_000 },
    churnPerMinute: 120,
  });
  const dataDir = await mkdtemp(join(tmpdir(), 'gpuproxy-crash-'));
  const setup: Setup = {
    dataDir,
    vastUrl: simulator.vastUrl,
    vastKey: simulator.vastKey,
    ionetUrl: simulator.ionetUrl,
    ionetKey: simulator.ionetKey,
    maxUsdPerHour,
  };
  const died = Object.fromEntries(stageNames.map((name) => [name, 0])) as Record<StageName, number>;
  const points: Record<string, number> = {};
  let survived = 0;
  const code = bundle(dataDir);
  // Two ahead, so that none has to be waited for.
  const warm: Child[] = [];
  const takeWarm = (): Child => {
    while (warm.length < 3) warm.push(Child.load(code, setup));
    return warm.shift() as Child;
  };
  let child: Child | null = null;
  let next: Child | null = null;
  let schedule = 0;
  let trace: string[] = [];
  try {
    const foreign = await rentForeign(simulator);
    child = takeWarm();
    await child.open();
    const books: Books = { apart: 0 };
    let state = await agreement(simulator, child, foreign, books);
    for (schedule = 1; schedule <= options.schedules; schedule += 1) {
      const live = state.upstreams.filter((view) => view.phase === 'booting' || view.phase === 'running');
      // The stage that was met least often; now and then any.
      const possible = stageNames.filter((name) => stages[name].kind !== 'destroy' || live.length > 0);
      const least = Math.min(...possible.map((name) => died[name]));
      const stageName = pick(random() < 0.2 ? possible : possible.filter((name) => died[name] === least));
      const stage: Stage = stages[stageName];
      const point = pick(stage.points);
      const rises = stage.kind === 'rent' && random() < (priceUnseen.has(point.name) ? 0.5 : 0.05);
      const actions = chooseActions(stage.kind, live, schedule, random, pick).map((action) =>
        // Where only the list tells the price, and nothing else gives it back.
        rises && action.kind === 'reserve'
          ? { ...action, filter: { ...action.filter, provider: 'vast.ai' as const }, allOrNothing: false }
          : action,
      );
      const plan: Plan = {
        actions,
        dieAt:
          'at' in point
            ? { step: point.at, occurrence: manifold.has(point.at) ? 1 + Math.floor(random() * random() * 3) : 1 }
            : null,
      };
      const wire = 'fault' in point ? point.fault : null;
      const faults =
        stage.kind === 'rollBack'
          ? [halfRefused]
          : random() < 0.6
            ? Array.from({ length: 1 + Math.floor(random() * 2) }, () => pick(randomFaults))
            : [];
      trace = [JSON.stringify({ point, plan, faults, rises })];
      for (const fault of faults) simulator.faults.add(fault);
      if (rises) simulator.faults.add(priceRise);
      if (wire !== null) simulator.faults.add(wire);
      const known = new Set(state.reservations.map((reservation) => reservation.id));

      next = takeWarm();
      const death = await child.runToDeath(plan, wire === null ? null : () => struck(simulator, wire));
      trace.push(`${death.killed ? 'died' : 'survived'}; results: ${JSON.stringify(death.results)}`);
      if (death.killed) {
        died[stageName] += 1;
        points[point.name] = (points[point.name] ?? 0) + 1;
      } else survived += 1;
      // Half of the repairs run under what is left of the faults.
      if (random() < 0.5) simulator.faults.clear();
      child = next;
      await child.open();
      if (faults.length > 0) await sleep(30);
      simulator.faults.clear();
      if (wire?.kind === 'latency') await sleep(wire.ms);
      state = await agreement(simulator, child, foreign, books);
      allOrNothing(actions, state, known);
      await repeat(simulator, child, actions, state, known);
      if (rises) simulator.faults.add({ ...priceRise, factor: 1 / priceRise.factor });
      options.log?.(
        `${schedule} ${stageName}, ${point.name}${death.killed ? '' : ' (survived)'}: ${simulator.instances().length - foreign.length} alive`,
      );
    }
    return {
      schedules: options.schedules,
      stages: died,
      points,
      survived,
      rented: simulator.ledger().length - foreign.length,
      seconds: (performance.now() - startedAt) / 1000,
    };
  } catch (error) {
    const cause = error instanceof Error ? error.message : String(error);
    throw new Error(`seed ${options.seed}, schedule ${schedule}: ${cause}\n${trace.join('\n')}`, { cause: error });
  } finally {
    await Promise.all([child, next, ...warm].map((life) => life?.kill()));
    await simulator.close();
    await rm(dataDir, { recursive: true, force: true });
  }
}

function chooseActions(
  kind: Stage['kind'],
  live: State['upstreams'],
  schedule: number,
  random: () => number,
  pick: <T>(items: readonly T[]) => T,
): Action[] {
  const owners = [...new Set(live.flatMap((view) => view.reservation ?? []))];
  const actions: Action[] = [];
  if (kind === 'destroy' || (owners.length > 0 && (live.length > 6 || random() < 0.3))) {
    for (const reservation of owners) {
      if (random() < 0.6) actions.push({ kind: 'release', reservation });
    }
    if (actions.length === 0) actions.push({ kind: 'destroy', instance: pick(live).id });
  }
  if (kind !== 'destroy' || random() < 0.3) {
    const provider = kind === 'rollBack' ? undefined : pick([undefined, undefined, 'vast.ai', 'io.net'] as const);
    const whole = kind === 'rollBack' || random() < 0.5;
    actions.push({
      kind: 'reserve',
      count: kind === 'rollBack' ? 4 : 1 + Math.floor(random() * 4),
      filter: { maxUsdPerHour: maxPrice, ...(provider === undefined ? {} : { provider }) },
      allOrNothing: whole,
      ...(random() < 0.4 ? { idempotencyKey: `key-${schedule}` } : {}),
    });
  }
  return actions;
}

/** A reservation of this schedule that was to be all or nothing is one of the two. */
function allOrNothing(actions: readonly Action[], state: State, known: ReadonlySet<string>): void {
  const action = actions.find((candidate) => candidate.kind === 'reserve');
  if (action === undefined || !action.allOrNothing) return;
  for (const { id, requested } of state.reservations.filter((reservation) => !known.has(reservation.id))) {
    const alive = state.upstreams.filter((view) => view.reservation === id && view.phase !== 'ended').length;
    if (alive !== 0 && alive !== requested)
      throw new Error(`${id} was all or nothing and has ${alive} of ${requested}`);
  }
}

/** The client that got no answer asks again with the same key: what was rented for it is the answer, and no more is rented. */
async function repeat(
  simulator: Simulator,
  child: Child,
  actions: readonly Action[],
  state: State,
  known: ReadonlySet<string>,
): Promise<void> {
  const action = actions.find((candidate) => candidate.kind === 'reserve');
  if (action?.idempotencyKey === undefined) return;
  const rented = state.reservations.some(
    (reservation) => !known.has(reservation.id) && ['active', 'partial'].includes(reservation.state),
  );
  if (!rented) return;
  const before = simulator.ledger().length;
  const [result] = await child.run([action]);
  if (!result?.startsWith('replayed ')) throw new Error(`the same key again: ${result}`);
  if (simulator.ledger().length !== before) throw new Error('the same key rented twice');
}

/** The fault has a call in its hands: the moment to kill. */
function struck(simulator: Simulator, fault: FaultInput): boolean {
  // A standing fault with `times: 1` is off the list once it struck.
  return !simulator.faults
    .list()
    .some(
      (standing) =>
        standing.kind === fault.kind &&
        'ms' in standing === 'ms' in fault &&
        'times' in standing &&
        standing.times === 1 &&
        'route' in standing &&
        'route' in fault &&
        standing.route === fault.route,
    );
}

/** Waits until ledger and marketplaces agree and nothing is open; throws with the difference. */
async function agreement(simulator: Simulator, child: Child, foreign: readonly string[], books: Books): Promise<State> {
  const deadline = performance.now() + endlessMs;
  for (;;) {
    const state = await child.look();
    const difference = disagreement(simulator, state, foreign) ?? misbooked(simulator, state, foreign, books);
    if (difference === null) return state;
    if (performance.now() > deadline) throw new Error(difference);
    await sleep(15);
  }
}

function disagreement(simulator: Simulator, state: State, foreign: readonly string[]): string | null {
  const alive = new Map(simulator.instances().map((instance) => [String(instance.contract), instance]));
  for (const contract of foreign) {
    if (!alive.delete(contract)) return `foreign contract ${contract} is gone`;
    if (!state.foreign.includes(contract)) return `foreign contract ${contract} is not shown as foreign`;
  }
  for (const instance of alive.values()) {
    if (['destroyed', 'termination requested', 'completed'].includes(instance.status))
      alive.delete(String(instance.contract));
  }
  const live = state.upstreams.filter((view) => view.phase !== 'ended');
  const open = live.find((view) => view.phase === 'reserving' || view.phase === 'destroying');
  if (open !== undefined) return `${open.id} is still ${open.phase}`;
  const reservations = new Map(state.reservations.map((reservation) => [reservation.id, reservation]));
  for (const reservation of state.reservations) {
    if (reservation.state === 'renting' || reservation.state === 'releasing') {
      return `${reservation.id} is still ${reservation.state}`;
    }
  }
  for (const view of live) {
    if (view.contract === null) return `${view.id} has no contract`;
    if (!alive.delete(view.contract))
      return `the ledger has ${view.id} (contract ${view.contract}), the marketplace does not`;
    const owner = view.reservation === null ? undefined : reservations.get(view.reservation);
    if (owner === undefined) return `${view.id} has no reservation`;
    if (owner.state !== 'active' && owner.state !== 'partial')
      return `${view.id} belongs to ${owner.id}, which is ${owner.state}`;
  }
  if (alive.size > 0) return `running and owned by nobody: ${[...alive.keys()].join(', ')}`;
  const dear = live.find((view) => view.usdPerHour > maxPrice + 0.002);
  if (dear !== undefined) return `${dear.id} costs $${dear.usdPerHour}/h, which is more than max_price`;
  const usdPerHour = live.reduce((sum, view) => sum + view.usdPerHour, 0);
  if (usdPerHour > maxUsdPerHour + 0.001) return `over the budget: $${usdPerHour}/h`;
  return null;
}

/** USD by which ledger and marketplaces were apart when they last agreed: seconds of use are measured on both sides. */
type Books = { apart: number };

/** What the marketplaces have charged is what the ledger has booked. */
function misbooked(simulator: Simulator, state: State, foreign: readonly string[], books: Books): string | null {
  const charged = simulator
    .ledger()
    .filter((entry) => !foreign.includes(entry.contract))
    .reduce((sum, entry) => sum + entry.chargedUsd, 0);
  const apart = state.spentUsd - charged;
  // The cheapest hour of prepaid time costs several times as much.
  if (Math.abs(apart - books.apart) > 0.1) return `booked $${state.spentUsd}, charged $${charged.toFixed(4)}`;
  books.apart = apart;
  return null;
}

/** The program of the process in one file: it is loaded hundreds of times. */
function bundle(dir: string): string {
  const outfile = join(dir, 'child.mjs');
  buildSync({
    entryPoints: [fileURLToPath(new URL('child.ts', import.meta.url))],
    bundle: true,
    format: 'esm',
    platform: 'node',
    outfile,
    logLevel: 'warning',
    banner: { js: `import{createRequire as __cr}from'node:module';const require=__cr(import.meta.url);` },
  });
  return outfile;
}

/** Instances of the same account that somebody else rented. */
async function rentForeign(simulator: Simulator): Promise<string[]> {
  const headers = { authorization: `Bearer ${simulator.vastKey}`, 'content-type': 'application/json' };
  const search = await fetch(`${simulator.vastUrl}/api/v0/bundles/`, {
    method: 'POST',
    headers,
    body: JSON.stringify({ type: 'on-demand', limit: 1 }),
  });
  const { offers } = (await search.json()) as { offers: { id: number }[] };
  const rented = await fetch(`${simulator.vastUrl}/api/v0/asks/${offers[0]?.id}/`, {
    method: 'PUT',
    headers,
    body: JSON.stringify({ client_id: 'me', image: 'x:y', disk: 10, label: 'somebody else' }),
  });
  const { new_contract } = (await rented.json()) as { new_contract: number };
  return [String(new_contract)];
}

/** One life of the application. */
class Child {
  readonly #process: ChildProcess;
  readonly #exited: Promise<void>;
  readonly #loaded: Promise<void>;
  #listeners = new Set<(message: Message) => void>();
  #output = '';

  /** A process that has loaded its code and waits for `open`. */
  static load(code: string, setup: Setup): Child {
    return new Child(code, setup);
  }

  async open(): Promise<void> {
    await this.#loaded;
    const ready = this.#next('ready');
    this.#process.send({ type: 'open' } satisfies Message);
    await ready;
  }

  private constructor(code: string, setup: Setup) {
    this.#process = fork(code, [JSON.stringify(setup)], {
      execArgv: ['--disable-warning=ExperimentalWarning'],
      stdio: ['ignore', 'pipe', 'pipe', 'ipc'],
      // The same few modules are loaded hundreds of times.
      env: { ...process.env, NODE_COMPILE_CACHE: join(setup.dataDir, 'compile-cache') },
    });
    for (const stream of [this.#process.stdout, this.#process.stderr]) {
      stream?.on('data', (chunk: Buffer) => {
        this.#output += chunk.toString();
      });
    }
    this.#process.on('message', (message: Message) => {
      for (const listener of this.#listeners) listener(message);
    });
    this.#exited = new Promise((resolve) => this.#process.once('exit', () => resolve()));
    this.#loaded = this.#next('loaded').then(() => undefined);
    this.#loaded.catch(() => undefined);
  }

  async look(): Promise<State> {
    const answer = this.#next('state');
    this.#process.send({ type: 'look' } satisfies Message);
    return answer;
  }

  async run(actions: readonly Action[]): Promise<readonly string[]> {
    const answer = this.#next('done');
    this.#process.send({ type: 'plan', plan: { actions, dieAt: null } } satisfies Message);
    return (await answer).results;
  }

  /** Runs the plan until the process is dead: by its own hand, by `now`, or by ours when it has finished. */
  async runToDeath(
    plan: Plan,
    now: (() => boolean) | null,
  ): Promise<{ killed: boolean; results: readonly string[] | null }> {
    let results: readonly string[] | null = null;
    let dead = false;
    this.#listeners.add((message) => {
      if (message.type === 'done') results = message.results;
    });
    void this.#exited.then(() => {
      dead = true;
    });
    this.#process.send({ type: 'plan', plan } satisfies Message);
    const deadline = performance.now() + endlessMs;
    let killed = false;
    while (!dead) {
      if (now?.()) {
        killed = true;
        break;
      }
      if (results !== null) break;
      if (performance.now() > deadline) {
        throw new Error(`the plan never ended: ${JSON.stringify(await this.look())}\n${this.#output}`);
      }
      await sleep(3);
    }
    const bySelf = dead;
    await this.kill();
    if (bySelf && this.#process.signalCode !== 'SIGKILL')
      throw new Error(`the process died otherwise:\n${this.#output}`);
    return { killed: killed || bySelf, results };
  }

  async kill(): Promise<void> {
    this.#process.kill('SIGKILL');
    await this.#exited;
  }

  async #next<T extends Message['type']>(type: T): Promise<Extract<Message, { type: T }>> {
    const waiting = Promise.withResolvers<Extract<Message, { type: T }>>();
    const listener = (message: Message) => {
      if (message.type === type) waiting.resolve(message as Extract<Message, { type: T }>);
    };
    this.#listeners.add(listener);
    const timer = setTimeout(() => waiting.reject(new Error(`no ${type} in time\n${this.#output}`)), endlessMs);
    void this.#exited.then(() => waiting.reject(new Error(`the process ended before ${type}:\n${this.#output}`)));
    try {
      return await waiting.promise;
    } finally {
      clearTimeout(timer);
      this.#listeners.delete(listener);
    }
  }
}

/** Mulberry32: the same seed gives the same schedules. */
function generator(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4_294_967_296;
  };
}
