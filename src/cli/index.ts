import type { Command } from 'commander';

/** A command of the program. `load` imports its file, which nothing else does: a command costs only itself. */
export type CommandEntry = Readonly<{
  name: string;
  /** Heading in the help. */
  group: 'Traffic' | 'Renting' | 'Fleet' | 'Server' | 'This program';
  /** Arguments as shown in the list of commands. */
  usage: string;
  summary: string;
  load: () => Promise<Readonly<{ build: (command: Command) => void }>>;
}>;

/** The registry: one file and one line a command. Help, completion and did-you-mean derive from it. */
// biome-ignore format: one line a command
export const commands: readonly CommandEntry[] = [
  { name: 'tui', group: 'Server', usage: '', summary: 'the dashboard, with the whole system in this process', load: () => import('./commands/tui.ts') },
  { name: 'serve', group: 'Server', usage: '', summary: 'the same system without a screen', load: () => import('./commands/serve.ts') },
  { name: 'sim', group: 'Server', usage: '', summary: 'the simulated marketplaces and GPU servers alone', load: () => import('./commands/sim.ts') },
  { name: 'doctor', group: 'Server', usage: '', summary: 'check configuration, ports, keys, providers, clock and Node', load: () => import('./commands/doctor.ts') },
  { name: 'keys', group: 'Server', usage: 'list|create|revoke', summary: 'API keys of the server', load: () => import('./commands/keys.ts') },
  { name: 'events', group: 'Server', usage: '', summary: 'follow what happens', load: () => import('./commands/events.ts') },
  { name: 'load', group: 'Traffic', usage: '[server|provider]', summary: 'load of the instances, availability of the providers', load: () => import('./commands/load.ts') },
  { name: 'lb-strategy', group: 'Traffic', usage: '[name]', summary: 'show the load balancing strategy, or switch it live', load: () => import('./commands/lb-strategy.ts') },
  { name: 'simulate', group: 'Traffic', usage: '', summary: 'compare the strategies on a model of a fleet', load: () => import('./commands/simulate.ts') },
  { name: 'list', group: 'Renting', usage: '[provider]', summary: 'offers that can be rented now', load: () => import('./commands/list.ts') },
  { name: 'reserve', group: 'Renting', usage: '<count>', summary: 'rent 1 to 16 GPUs, chosen by the strategy', load: () => import('./commands/reserve.ts') },
  { name: 'rent', group: 'Renting', usage: '<provider> <offer>', summary: 'rent one offer of the list', load: () => import('./commands/rent.ts') },
  { name: 'batch', group: 'Renting', usage: '', summary: 'rent up to 8 instances of each provider', load: () => import('./commands/batch.ts') },
  { name: 'reservations', group: 'Renting', usage: '[list|show|release]', summary: 'what was reserved', load: () => import('./commands/reservations.ts') },
  { name: 'providers', group: 'Renting', usage: '', summary: 'state, stock, prices and credit of the providers', load: () => import('./commands/providers.ts') },
  { name: 'cost', group: 'Renting', usage: '', summary: 'what the fleet costs and has cost', load: () => import('./commands/cost.ts') },
  { name: 'fleet', group: 'Fleet', usage: '[id]', summary: 'rented and own servers with their state', load: () => import('./commands/fleet.ts') },
  { name: 'drain', group: 'Fleet', usage: '<id...>', summary: 'no new requests, finish the open ones', load: () => import('./commands/drain.ts') },
  { name: 'resume', group: 'Fleet', usage: '<id...>', summary: 'take requests again', load: () => import('./commands/resume.ts') },
  { name: 'destroy', group: 'Fleet', usage: '<id...>', summary: 'give instances back: drained first, then destroyed', load: () => import('./commands/destroy.ts') },
  { name: 'weight', group: 'Fleet', usage: '<id> <weight|auto>', summary: 'set the weight of an instance', load: () => import('./commands/weight.ts') },
  { name: 'extend', group: 'Fleet', usage: '<id> <hours>', summary: 'buy more prepaid hours', load: () => import('./commands/extend.ts') },
  { name: 'logs', group: 'Fleet', usage: '<id>', summary: 'last lines of output of an instance', load: () => import('./commands/logs.ts') },
  { name: 'adopt', group: 'Fleet', usage: '<provider> <contract>', summary: 'take over an instance rented elsewhere', load: () => import('./commands/adopt.ts') },
  { name: 'upstream', group: 'Fleet', usage: 'add|remove', summary: 'servers that you already have', load: () => import('./commands/upstream.ts') },
  { name: 'config', group: 'This program', usage: 'get|set|unset|path|show', summary: 'preferences, and where every setting comes from', load: () => import('./commands/config.ts') },
  { name: 'schema', group: 'This program', usage: '[command]', summary: 'JSON Schema of what a command prints with --json', load: () => import('./commands/schema.ts') },
  { name: 'completion', group: 'This program', usage: 'bash|zsh|fish', summary: 'completion script of a shell', load: () => import('./commands/completion.ts') },
  { name: 'version', group: 'This program', usage: '', summary: 'version of this program and of the server', load: () => import('./commands/version.ts') },
  { name: 'help', group: 'This program', usage: '[command|exit-codes]', summary: 'help', load: () => import('./commands/help.ts') },
];

export function commandNamed(name: string): CommandEntry | undefined {
  return commands.find((entry) => entry.name === name);
}
