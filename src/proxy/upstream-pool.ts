import { type AnswerListener, type Outgoing, type Target, UpstreamConnection } from './upstream-connection.ts';

/** An idle connection is closed after this time, if the upstream has not told that it does so earlier. */
const maxIdleMs = 30_000;
/** So much earlier than the upstream says it will close, because a request may be on its way just then. */
const idleMarginMs = 1_000;

/** The connections to one upstream. The one used last is used next, so that the others can grow old and go. */
export class UpstreamPool {
  readonly #target: Target;
  readonly #now: () => number;
  readonly #all = new Set<UpstreamConnection>();
  #idle: UpstreamConnection[] = [];
  #destroyed = false;
  #retired = false;

  /** `settings.verifyUpstreamTls` is looked up for every connection: it can change. */
  constructor(origin: URL, settings: Readonly<{ verifyUpstreamTls: boolean }>, now: () => number) {
    const secure = origin.protocol === 'https:';
    this.#now = now;
    this.#target = {
      secure,
      host: origin.hostname.replace(/^\[|\]$/g, ''),
      port: origin.port === '' ? (secure ? 443 : 80) : Number(origin.port),
      authority: origin.host,
      settings,
      session: undefined,
    };
  }

  /** Sends a request over an idle connection, or over a new one. Null when the pool is closed. */
  send(outgoing: Outgoing, listener: AnswerListener, fresh = false): UpstreamConnection | null {
    if (this.#destroyed) return null;
    // A connection that changes its protocol is handed over, so it must not read into the shared buffer.
    const own = outgoing.upgrade !== null;
    let connection = fresh || own ? undefined : this.#idle.pop();
    while (connection?.broken === true) connection = this.#idle.pop();
    if (connection === undefined) {
      connection = new UpstreamConnection(this.#target, !own, this.#onIdle, this.#onClose);
      this.#all.add(connection);
    }
    connection.send(outgoing, listener);
    return connection;
  }

  /** Closes what has been idle for long. */
  sweep(now: number): void {
    const idle = this.#idle;
    let old = 0;
    while (old < idle.length && now - idle[old]!.idleSince > maxIdleMs) old++;
    if (old > 0) for (const connection of idle.splice(0, old)) connection.close();
    for (let i = idle.length - 1; i >= 0; i--) {
      const { idleMs, idleSince } = idle[i]!;
      if (idleMs >= 0 && now - idleSince > idleMs - idleMarginMs) idle.splice(i, 1)[0]!.close();
    }
  }

  /** Finishes what is under way and keeps nothing for later. */
  retire(): void {
    this.#retired = true;
    for (const connection of this.#idle.splice(0)) connection.close();
  }

  destroy(): void {
    this.#destroyed = true;
    this.#idle = [];
    for (const connection of this.#all) connection.close();
  }

  readonly #onIdle = (connection: UpstreamConnection): void => {
    if (this.#destroyed || this.#retired || (connection.idleMs >= 0 && connection.idleMs <= idleMarginMs)) {
      connection.close();
      return;
    }
    connection.idleSince = this.#now();
    this.#idle.push(connection);
  };

  readonly #onClose = (connection: UpstreamConnection): void => {
    this.#all.delete(connection);
    const at = this.#idle.indexOf(connection);
    if (at !== -1) this.#idle.splice(at, 1);
  };
}
