import type { Machine } from './machine.ts';
import { type Ask, askRow, diskUsdPerHour } from './vast-offers.ts';
import { simulatedHours, type World } from './world.ts';

/** A rented machine on vast.ai and what its renter wants of it. */
export type Contract = {
  readonly id: number;
  readonly ask: Ask;
  readonly machine: Machine;
  readonly createdAt: number;
  readonly diskGb: number;
  readonly image: string;
  readonly runtype: string;
  readonly args: readonly string[] | null;
  readonly onstart: string | null;
  readonly env: readonly (readonly [string, string])[];
  /** Published container ports, `8000/tcp`. */
  readonly ports: readonly string[];
  label: string | null;
  /** USD per hour bid; null on demand. */
  bid: number | null;
  intended: 'running' | 'stopped';
  outbid: boolean;
  destroyedAt: number | null;
  usdPerHour: number;
  /** GPU time charged at earlier prices, and how much of it that was. */
  charged: Readonly<{ usd: number; poweredMs: number }>;
  /** Waits for its GPU after a start that was refused. */
  queued: boolean;
  rebooting: boolean;
  readonly log: string[];
};

/** USD charged until now: the GPU while the container runs, the disk from renting to destruction. */
export function chargedUsd(world: World, contract: Contract): number {
  const diskUsd = diskUsdPerHour(contract.ask, contract.diskGb);
  const { machine, charged, usdPerHour } = contract;
  return (
    charged.usd +
    simulatedHours(world, machine.poweredMs - charged.poweredMs) * (usdPerHour - diskUsd) +
    simulatedHours(world, machine.ageMs) * diskUsd
  );
}

/** From now on the GPU costs this; what ran before is charged at the old price. */
export function setPrice(world: World, contract: Contract, gpuUsdPerHour: number): void {
  const diskUsd = diskUsdPerHour(contract.ask, contract.diskGb);
  const { poweredMs } = contract.machine;
  const usd = simulatedHours(world, poweredMs - contract.charged.poweredMs) * (contract.usdPerHour - diskUsd);
  contract.charged = { usd: contract.charged.usd + usd, poweredMs };
  contract.usdPerHour = Number((gpuUsdPerHour + diskUsd).toFixed(6));
}

/** `actual_status`. */
export function statusOf(contract: Contract): string | null {
  const { machine } = contract;
  if (contract.destroyedAt !== null) return 'exited';
  if (contract.rebooting && machine.booted < 0.5) return 'rebooting';
  if (machine.power === 'offline') return 'offline';
  if (machine.power === 'exited' || machine.power === 'off') return 'exited';
  if (machine.failure === 'oci_error' && machine.booted > 0.3) return 'created';
  // A restarted one goes on reading exited for a while.
  if (machine.booted < 0.15) return machine.restarted ? 'exited' : null;
  if (machine.booted < 0.3) return 'created';
  return machine.booted < 1 ? 'loading' : 'running';
}

function messageOf(contract: Contract, status: string | null): string | null {
  const { failure } = contract.machine;
  if (failure === 'oci_error' && status === 'created') {
    return 'Error response from daemon: failed to create task for container: OCI runtime create failed: runc create failed\n';
  }
  if (failure === 'pull_error' && status === 'loading') {
    return `Error response from daemon: manifest for ${contract.image} not found: manifest unknown\n`;
  }
  if (status === 'loading') return `${contract.image}: Pulling from library\n`;
  return status === 'running' ? `success, running ${contract.image}/${contract.runtype}\n` : null;
}

/** An instance as lists and single reads show it. */
export function instanceRow(contract: Contract, host: string): Record<string, unknown> {
  const { ask, machine } = contract;
  const status = statusOf(contract);
  const unloaded = contract.destroyedAt !== null;
  const port = machine.port;
  const priced = askRow(ask, { bid: contract.bid !== null, diskGb: contract.diskGb });
  const total = contract.usdPerHour;
  const state = unloaded ? 'unloaded' : contract.queued ? 'stopped' : contract.intended;
  const ports =
    port === null || ask.direct_port_count === 0
      ? null
      : Object.fromEntries(
          [...contract.ports, '22/tcp'].map((key, index) => {
            const outside = String(key === httpKey(contract) ? port : 40_000 + ((contract.id + index * 13) % 20_000));
            return [
              key,
              [
                { HostIp: '0.0.0.0', HostPort: outside },
                { HostIp: '::', HostPort: outside },
              ],
            ];
          }),
        );
  return {
    id: contract.id,
    machine_id: ask.machine_id,
    host_id: ask.host_id,
    bundle_id: ask.bundle_id,
    label: contract.label,
    actual_status: status,
    intended_status: unloaded ? 'stopped' : contract.intended,
    cur_state: state,
    next_state: contract.queued ? 'running' : state,
    status_msg: messageOf(contract, status),
    image_uuid: contract.image,
    image_runtype: contract.runtype,
    image_args: contract.args ?? [],
    onstart: contract.onstart,
    extra_env: contract.env,
    // The real one often comes with a newline.
    public_ipaddr: status === null ? null : `${host}\n`,
    local_ipaddrs: '172.17.0.2 192.168.1.20 \n',
    ports,
    ssh_host: 'ssh5.vast.ai',
    ssh_port: 10_000 + (contract.id % 30_000),
    ssh_idx: '5',
    machine_dir_ssh_port: 20_000 + (contract.id % 30_000),
    direct_port_count: ask.direct_port_count,
    direct_port_start: -1,
    direct_port_end: -1,
    num_gpus: ask.num_gpus,
    gpu_name: ask.card.vast,
    gpu_ram: ask.card.vramMb,
    gpu_totalram: ask.card.vramMb * ask.num_gpus,
    gpu_frac: ask.gpu_frac,
    gpu_util: status === 'running' ? Math.min(100, (machine.server?.stats.active ?? 0) * 12) : null,
    gpu_temp: status === 'running' ? 58 : null,
    gpu_arch: 'nvidia',
    cpu_name: ask.cpu_name,
    cpu_cores: ask.cpu_cores,
    cpu_cores_effective: ask.cpu_cores_effective,
    cpu_ram: ask.cpu_ram,
    cpu_arch: 'amd64',
    cpu_util: status === 'running' ? 0.11 : null,
    mem_limit: status === 'running' ? 15.7 : null,
    mem_usage: status === 'running' ? 3.2 : null,
    vmem_usage: status === 'running' ? 0.4 : null,
    disk_space: contract.diskGb,
    disk_usage: status === 'running' ? 4.2 : -1,
    disk_util: status === 'running' ? 4.2 : -1,
    dph_base: contract.bid ?? ask.dph_base,
    dph_total: total,
    min_bid: ask.min_bid,
    is_bid: contract.bid !== null,
    storage_cost: ask.storage_cost,
    inet_up: ask.inet_up,
    inet_down: ask.inet_down,
    inet_up_cost: ask.inet_up_cost,
    inet_down_cost: ask.inet_down_cost,
    search: priced.search,
    instance: priced.instance,
    start_date: contract.createdAt / 1000,
    end_date: contract.createdAt / 1000 + ask.duration,
    duration: Math.max(0, ask.duration - machine.ageMs / 1000),
    uptime_mins: status === 'running' ? Math.floor(machine.poweredMs / 60_000) : null,
    reliability2: ask.reliability,
    verification: ask.verification,
    geolocation: ask.geolocation,
    static_ip: ask.static_ip,
    hosting_type: ask.hosting_type,
    cuda_max_good: ask.cuda_max_good,
    driver_version: ask.driver_version,
    os_version: '22.04',
    jupyter_token: `sim-jupyter-${contract.id}`,
    template_id: null,
    template_hash_id: null,
    template_name: null,
    credit_balance: null,
    credit_discount: null,
    credit_discount_max: 0.4,
    client_run_time: 1.1,
    host_run_time: 259_200,
    time_remaining: '',
    volume_info: [],
  };
}

/** Container ports to publish, from docker's flags among the variables. The outside half of `-p` means nothing. */
export function portsOf(env: readonly (readonly [string, string])[]): string[] {
  return env.flatMap(([key]) => {
    const match = /^-p\s+\d+:(\d+)(?:\/(tcp|udp))?$/.exec(key);
    return match ? [`${match[1]}/${match[2] ?? 'tcp'}`] : [];
  });
}

/** The port behind which the GPU server is: the first that is published over TCP. */
function httpKey(contract: Contract): string | undefined {
  return contract.ports.find((key) => key.endsWith('/tcp') && key !== '22/tcp');
}

/** What the container wrote. */
export function serverLines(machine: Machine): string[] {
  if (machine.port === null || machine.server === null) return [];
  const { served, active, queued } = machine.server.stats;
  return [
    `INFO: Application startup complete, serving ${machine.models.join(', ')}`,
    `INFO: Uvicorn running on http://0.0.0.0 (Press CTRL+C to quit)`,
    `INFO: served ${served}, running ${active}, waiting ${queued}`,
  ];
}
