import { execFile } from 'node:child_process';

const timeoutMs = 5000;

/**
 * Tells systemd about a unit of Type=notify; nothing where NOTIFY_SOCKET is not set. Node cannot open the kind of socket
 * that systemd listens on, so systemd's own program does it. Resolves with what went wrong, null when nothing did.
 */
export function tellSystemd(...states: readonly string[]): Promise<string | null> {
  if (!process.env.NOTIFY_SOCKET) return Promise.resolve(null);
  return new Promise((resolve) => {
    // Without access to processes (--permission) this throws before it starts.
    try {
      execFile('systemd-notify', states, { timeout: timeoutMs }, (error) => resolve(error?.message.trim() ?? null));
    } catch (error) {
      resolve(error instanceof Error ? error.message : String(error));
    }
  });
}
