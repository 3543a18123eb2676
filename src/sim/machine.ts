import { type Card, modelsFor } from './cards.ts';
import type { FaultBook } from './faults.ts';
import { GpuServer, namesInstance } from './gpu-server.ts';
import { seedOf } from './random.ts';

/** How a rented machine was told to fail; see `never_healthy`. */
export type BootFailure = 'refuse' | 'error' | 'stuck' | 'pull_error' | 'oci_error';

export type MachineOptions = Readonly<{
  contract: string;
  provider: 'vast' | 'ionet';
  card: Card;
  gpuCount: number;
  /** Names the application serves; absent: by VRAM. */
  models?: readonly string[] | undefined;
  seed: number;
  speed: number;
  slots?: number | undefined;
  host: string;
  faults: FaultBook;
}>;

/** off: stopped on demand. */
export type MachinePower = 'on' | 'off' | 'exited' | 'offline' | 'gone';

/**
 * The hardware behind a contract: a boot that takes time, a GPU server on a port of its own, and the time for which
 * GPU and disk cost money. What follows from time alone is computed when asked, so it needs no timers.
 */
export class Machine {
  readonly options: MachineOptions;
  readonly models: readonly string[];
  readonly createdAt = performance.now();
  power: MachinePower = 'off';
  failure: BootFailure | null = null;
  #server: GpuServer | null = null;
  #bootAt = 0;
  #bootMs = 0;
  #poweredBefore = 0;
  #poweredSince = 0;
  #boots = 0;
  #goneAt: number | null = null;
  #vanished = false;

  constructor(options: MachineOptions) {
    this.options = options;
    this.models = options.models ?? modelsFor(options.card.vramMb);
  }

  /** Boots: the container runs after `bootMs`, its application listens a quarter of that later. */
  async start(bootMs: number, failure: BootFailure | null): Promise<void> {
    const now = performance.now();
    const endless = failure === 'stuck' || failure === 'pull_error' || failure === 'oci_error';
    this.failure = failure;
    this.power = 'on';
    this.#bootAt = now;
    this.#poweredSince = now;
    this.#bootMs = endless ? Infinity : bootMs;
    this.#boots++;
    const { contract, provider, card, gpuCount, seed, speed, slots, host, faults } = this.options;
    const server = new GpuServer({
      contract,
      provider,
      card,
      gpuCount,
      models: this.models,
      seed: seedOf(seed, `${provider}-${contract}-${this.#boots}`),
      speed,
      slots,
      host,
      faults,
      readyAt: endless || failure === 'refuse' ? Infinity : now + bootMs * 1.25,
      sick: failure === 'error',
    });
    this.#server = server;
    this.#vanished = false;
    await this.#open(server);
    await this.followFaults();
  }

  /** 0 to 1 of the boot; 1 when the container runs. */
  get booted(): number {
    if (this.power !== 'on' && this.power !== 'offline') return 0;
    if (this.#bootMs === Infinity) return Math.min(0.9, (performance.now() - this.#bootAt) / 2000);
    return this.#bootMs === 0 ? 1 : Math.min(1, (performance.now() - this.#bootAt) / this.#bootMs);
  }

  /** Port of the GPU server once the container runs; null before and after. */
  get port(): number | null {
    return this.power === 'on' && this.booted === 1 && this.#server !== null ? this.#server.port : null;
  }

  /** Whether it was started before: its state reads as exited for a moment then. */
  get restarted(): boolean {
    return this.#boots > 1;
  }

  /** Monotonic milliseconds at which so much of the boot is over; null for a boot without end. */
  bootedAt(part: number): number | null {
    return this.#bootMs === Infinity ? null : this.#bootAt + this.#bootMs * part;
  }

  get server(): GpuServer | null {
    return this.#server;
  }

  /** Real milliseconds for which the container ran, all boots together. */
  get poweredMs(): number {
    return this.#poweredBefore + this.#poweredNow();
  }

  /** Real milliseconds since it was rented, up to its destruction. */
  get ageMs(): number {
    return (this.#goneAt ?? performance.now()) - this.createdAt;
  }

  #poweredNow(): number {
    if (this.power !== 'on' || this.booted < 1) return 0;
    return performance.now() - Math.max(this.#poweredSince, this.#bootAt + this.#bootMs);
  }

  /** Stops the container; its next start has another port. */
  async stop(as: 'off' | 'exited' | 'gone'): Promise<void> {
    if (this.power === 'gone') return;
    this.#poweredBefore = this.poweredMs;
    this.power = as;
    if (as === 'gone') this.#goneAt = performance.now();
    const server = this.#server;
    this.#server = null;
    await server?.close();
  }

  setOffline(offline: boolean): void {
    if (this.power !== (offline ? 'on' : 'offline')) return;
    if (offline) this.#poweredBefore = this.poweredMs;
    else this.#poweredSince = performance.now();
    this.power = offline ? 'offline' : 'on';
    this.#server?.silence(offline);
  }

  /** Closes or opens the port as `gpu_vanish` says. */
  async followFaults(): Promise<void> {
    const server = this.#server;
    if (!server) return;
    const vanished = this.options.faults.stands('gpu_vanish', (fault) => namesInstance(fault.instance, this.options));
    if (vanished === this.#vanished) return;
    this.#vanished = vanished;
    if (vanished) await server.close();
    else await this.#open(server);
  }

  async #open(server: GpuServer): Promise<void> {
    try {
      await server.open();
    } catch (error) {
      // No port is to be had: the container cannot run.
      if ((error as NodeJS.ErrnoException).syscall !== 'listen') throw error;
      await this.stop('exited');
    }
  }
}
