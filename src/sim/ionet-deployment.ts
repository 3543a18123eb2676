import type { Card } from './cards.ts';
import { originOf } from './http.ts';
import type { ContainerConfig } from './ionet-bodies.ts';
import type { Machine } from './machine.ts';
import { simulatedHours, type World } from './world.ts';

/** GPUs of one model in one place, shared by every size of container. */
export type Pool = { readonly hardware: Hardware; readonly place: Location; free: number };
export type Hardware = {
  readonly id: number;
  readonly card: Card;
  readonly name: string;
  readonly largest: number;
  usdPerGpuHour: number;
};
export type Location = Readonly<{ id: number; iso2: string; name: string; region: string }>;

export type Replica = Readonly<{ containerId: string; deviceId: string; machine: Machine; pool: Pool }>;
export type Deployment = {
  readonly id: string;
  readonly number: number;
  readonly replicas: readonly Replica[];
  readonly hardware: Hardware;
  readonly gpusPerContainer: number;
  readonly createdAt: number;
  readonly createdMono: number;
  readonly locations: readonly Location[];
  config: ContainerConfig;
  imageUrl: string;
  name: string;
  hours: number;
  amountPaid: number;
  /** Set once it is on its way out. */
  ending: Readonly<{ as: 'completed' | 'destroyed' | 'failed'; at: number; mono: number }> | null;
};

/** All that a deployment can read. */
export const statuses = [
  'running',
  'completed',
  'failed',
  'deployment requested',
  'termination requested',
  'destroyed',
];
const terminationMs = 400;
/** The endpoint is known this part of the boot after the deployment reads running. */
const runningAt = 0.6;

/** Without a zone, in microseconds; UTC. */
export const naive = (at: number): string => `${new Date(at).toISOString().slice(0, -1)}000`;

/** USD for so many GPUs and hours. */
export function usd(hard: Hardware, gpus: number, hours: number): number {
  return Number((hard.usdPerGpuHour * gpus * hours).toFixed(4));
}

/** Monotonic milliseconds at which it began to run; null before. */
function startedMono(it: Deployment): number | null {
  const until = it.ending?.mono ?? performance.now();
  const starts = it.replicas.map(({ machine }) => machine.bootedAt(runningAt) ?? Infinity);
  const first = Math.min(...starts);
  return first <= until ? first : null;
}

/** Prepaid time passes from the moment it runs. */
export function hoursServed(world: World, it: Deployment): number {
  const start = startedMono(it);
  if (start === null) return 0;
  return Math.min(it.hours, simulatedHours(world, (it.ending?.mono ?? performance.now()) - start));
}

/** The first hour is not refundable, the rest is pro rata. */
export function chargedUsd(world: World, it: Deployment): number {
  if (it.ending?.as !== 'destroyed') return it.amountPaid;
  return (it.amountPaid * Math.max(1, hoursServed(world, it))) / it.hours;
}

/** The marketplace's own word. */
export function statusOf(it: Deployment): string {
  if (it.ending) {
    if (it.ending.as !== 'destroyed') return it.ending.as;
    return performance.now() - it.ending.mono < terminationMs ? 'termination requested' : 'destroyed';
  }
  return startedMono(it) === null ? 'deployment requested' : 'running';
}

function minutes(world: World, it: Deployment) {
  const served = hoursServed(world, it) * 60;
  return { served: Math.floor(served), remaining: Math.max(0, Math.ceil(it.hours * 60 - served)) };
}

function span(total: number): string {
  return `${Math.floor(total / 1440)}d ${Math.floor((total % 1440) / 60)}h`;
}

/** A row of the list. */
export function summary(world: World, it: Deployment) {
  const { served, remaining } = minutes(world, it);
  return {
    id: it.id,
    status: statusOf(it),
    name: it.name,
    completed_percent: Number(((100 * hoursServed(world, it)) / it.hours).toFixed(2)),
    hardware_quantity: it.gpusPerContainer * it.replicas.length,
    brand_name: 'NVIDIA',
    hardware_name: it.hardware.name,
    served: span(served),
    remaining: span(remaining),
    compute_minutes_served: served,
    compute_minutes_remaining: remaining,
    created_at: naive(it.createdAt),
  };
}

export function details(world: World, it: Deployment) {
  const { served, remaining } = minutes(world, it);
  const start = startedMono(it);
  return {
    id: it.id,
    status: statusOf(it),
    created_at: naive(it.createdAt),
    started_at: start === null ? null : naive(it.createdAt + start - it.createdMono),
    finished_at: it.ending ? naive(it.ending.at) : null,
    amount_paid: it.amountPaid,
    completed_percent: Number(((100 * hoursServed(world, it)) / it.hours).toFixed(2)),
    total_gpus: it.gpusPerContainer * it.replicas.length,
    gpus_per_container: it.gpusPerContainer,
    total_containers: it.replicas.length,
    hardware_name: it.hardware.name,
    hardware_id: it.hardware.id,
    locations: it.locations.map(({ id, iso2, name }) => ({ id, iso2, name })),
    brand_name: 'NVIDIA',
    compute_minutes_served: served,
    compute_minutes_remaining: remaining,
    container_config: {
      entrypoint: it.config.entrypoint ?? null,
      env_variables: it.config.env_variables ?? null,
      traffic_port: it.config.traffic_port ?? 80,
      image_url: it.imageUrl,
      secret_env_keys: Object.keys(it.config.secret_env_variables ?? {}),
    },
  };
}

/** Its containers, each with an address of its own once it runs. */
export function workers(world: World, it: Deployment) {
  const rows = it.ending ? [] : it.replicas;
  return {
    total: rows.length,
    workers: rows.map(({ containerId, deviceId, machine }) => {
      const { port } = machine;
      const events = [
        { time: naive(it.createdAt), message: `Pulling image ${it.imageUrl}` },
        ...(machine.failure === 'pull_error' ? [{ time: naive(it.createdAt), message: 'Image pull failed' }] : []),
        ...(port === null ? [] : [{ time: naive(Date.now()), message: 'Container started' }]),
      ];
      return {
        device_id: deviceId,
        container_id: containerId,
        hardware: it.hardware.name,
        brand_name: 'NVIDIA',
        created_at: naive(it.createdAt),
        uptime_percent: machine.power === 'on' ? 100 : 0,
        gpus_per_container: it.gpusPerContainer,
        status: machine.power === 'on' ? (port === null ? 'pending' : 'running') : 'failed',
        container_events: machine.booted < 0.2 ? null : events,
        public_url: port === null ? null : originOf(world.settings.host, port),
      };
    }),
  };
}
