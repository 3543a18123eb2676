import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';

/** Another process works on the same data directory. */
export class LedgerLockedError extends Error {
  override readonly name = 'LedgerLockedError';
  readonly code = 'ledger_locked';
  readonly dataDir: string;
  /** Process id of the holder; null when it could not be read. */
  readonly pid: number | null;

  constructor(dataDir: string, pid: number | null) {
    super(
      `${dataDir} is in use by another gpuproxy${pid === null ? '' : ` (pid ${pid})`}: stop it, or set GPUPROXY_DATA_DIR to another folder`,
    );
    this.dataDir = dataDir;
    this.pid = pid;
  }
}

/**
 * Holds the data directory for this process. The lock is SQLite's own on a file beside the ledger, so the kernel gives
 * it back when the process dies in whatever way; the pid beside it is only for the message.
 */
export function lockDataDir(dataDir: string): { release(): void } {
  const pidFile = join(dataDir, 'lock.pid');
  const lock = new DatabaseSync(join(dataDir, 'lock.db'), { timeout: 250 });
  try {
    lock.exec('PRAGMA journal_mode = DELETE; BEGIN EXCLUSIVE');
  } catch (cause) {
    lock.close();
    // 5 is SQLITE_BUSY; anything else is a broken disk or folder and speaks for itself.
    if ((cause as { errcode?: number }).errcode !== 5) throw cause;
    throw new LedgerLockedError(dataDir, readPid(pidFile));
  }
  writeFileSync(pidFile, `${process.pid}\n`, { mode: 0o600 });
  return {
    release() {
      lock.exec('ROLLBACK');
      lock.close();
    },
  };
}

function readPid(file: string): number | null {
  try {
    const pid = Number.parseInt(readFileSync(file, 'utf8'), 10);
    return Number.isInteger(pid) ? pid : null;
  } catch {
    return null;
  }
}
