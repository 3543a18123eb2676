/** What the process answers to the shell. Scripts depend on these: append only. */
export const exitCodes = {
  done: 0,
  failed: 1,
  usage: 2,
  unreachable: 3,
  unauthorized: 4,
  nothing: 5,
  partly: 6,
  refused: 7,
  interrupted: 130,
  terminated: 143,
} as const;
export type ExitCode = (typeof exitCodes)[keyof typeof exitCodes];

/** One line each for `gpuproxy help exit-codes`. */
export const exitCodeMeanings: Readonly<Record<ExitCode, string>> = {
  0: 'done',
  1: 'the operation failed',
  2: 'wrong usage or configuration',
  3: 'the server is not reachable',
  4: 'not authorised: no key, an unknown key, or a key without the scope',
  5: 'nothing available: no offer matches, nothing was rented',
  6: 'partly done: fewer were reserved than requested',
  7: 'refused: over the budget, not confirmed, or read-only',
  130: 'interrupted (Ctrl-C)',
  143: 'terminated (SIGTERM)',
};

/** A failure that is told in three lines: what happened (`message`), why, and what to do (`hint`). */
export class CliError extends Error {
  override readonly name = 'CliError';
  readonly exitCode: ExitCode;
  /** Stable word for programs. */
  readonly code: string;
  readonly why: string | null;
  readonly hint: string | null;
  /** HTTP status of the answer that said no; null when there was none. */
  readonly status: number | null;
  readonly requestId: string | null;

  constructor(
    exitCode: ExitCode,
    code: string,
    message: string,
    options: { why?: string | null; hint?: string | null; status?: number | null; requestId?: string | null } = {},
  ) {
    super(message);
    this.exitCode = exitCode;
    this.code = code;
    this.why = options.why ?? null;
    this.hint = options.hint ?? null;
    this.status = options.status ?? null;
    this.requestId = options.requestId ?? null;
  }
}

/** Wrong words on the command line. */
export function usageError(message: string, options: { why?: string | null; hint?: string | null } = {}): CliError {
  return new CliError(exitCodes.usage, 'usage', message, options);
}

/** Runs something whose refusals get a way out by their code, where the command knows a better one than the client. */
export async function withWayOut<Result>(
  run: () => Promise<Result>,
  hints: Readonly<Record<string, string>>,
): Promise<Result> {
  try {
    return await run();
  } catch (error) {
    const hint = error instanceof CliError && error.status !== null ? hints[error.code] : undefined;
    if (!(error instanceof CliError) || hint === undefined) throw error;
    const { exitCode, code, message, why, status, requestId } = error;
    throw new CliError(exitCode, code, message, { why, hint, status, requestId });
  }
}

/** The error as text for people, or as one JSON document for programs. Always ends with a line feed. */
export function describeError(error: CliError, json: boolean): string {
  if (json) {
    return `${JSON.stringify({
      error: {
        code: error.code,
        message: error.message,
        cause: error.why,
        hint: error.hint,
        status: error.status,
        request_id: error.requestId,
      },
    })}\n`;
  }
  const lines = [`error: ${error.message}`];
  if (error.why) lines.push(`cause: ${error.why}`);
  if (error.hint) lines.push(`hint: ${error.hint}`);
  if (error.requestId) lines.push(`request: ${error.requestId}`);
  return `${lines.join('\n')}\n`;
}
