import { createHash } from 'node:crypto';
import { type Command, Option } from 'commander';
import { apiPath, bodyText, type Call, type Method } from './client.ts';
import { CliError, exitCodes } from './exit.ts';
import type { Session } from './session.ts';

/** What a command is about to send. */
export type PlannedRequest = Readonly<{ method: Method; path: string }> & Pick<Call, 'query' | 'body'>;

/**
 * What `--dry-run` shows and `--plan` does. Its id is made of the requests and of what they were planned upon, so it needs
 * no place to be kept in: who repeats the command with the id gets just that, or a refusal when things have changed.
 */
export type Plan = Readonly<{ id: string; requests: readonly PlannedRequest[] }>;

/** `upon`: what the server said, as far as it matters for what will happen. */
export function planOf(session: Session, requests: readonly PlannedRequest[], upon: unknown): Plan {
  const text = JSON.stringify([session.client.connection.url, requests, upon]);
  return {
    id: `plan-${createHash('sha256').update(text).digest('hex').slice(0, 16)}`,
    requests: requests.map(({ path, ...request }) => ({ ...request, path: `${apiPath}${path}` })),
  };
}

export function withPlan(command: Command): Command {
  return command
    .option('-n, --dry-run', 'show what would happen, and do nothing')
    .addOption(
      new Option(
        '--plan <id>',
        'do just what --dry-run has shown under this id, without asking; refuse if it has changed',
      ).conflicts(['dryRun']),
    );
}

export type PlanOptions = Readonly<{ dryRun?: boolean; plan?: string }>;

/** Whether the command looks at what it would act upon, to show or to check a plan. --curl shows the request itself. */
export function looksFirst(session: Session, { dryRun, plan }: PlanOptions): boolean {
  return !session.shows && (dryRun === true || plan !== undefined);
}

/** A request as it is shown; the values that it would carry to the instances stay with whoever typed them. */
function shownRequest({ body, ...request }: PlannedRequest): PlannedRequest {
  return body === undefined ? request : { ...request, body: JSON.parse(bodyText(body, (name) => `$${name}`)) };
}

/** Prints a plan: the document with --json, else the text, and how to carry it out. */
export function showPlan(session: Session, plan: Plan, document: object, text: string): void {
  if (session.json) {
    session.printJson({ ...document, plan_id: plan.id, requests: plan.requests.map(shownRequest) });
    return;
  }
  session.print(text);
  session.note(`To do just this: --plan ${plan.id} in place of --dry-run.`);
}

/** Throws CliError (exit 7) when the plan is not the one that was asked for. */
export function checkPlan(plan: Plan, wanted: string | undefined): void {
  if (wanted === undefined || wanted === plan.id) return;
  throw new CliError(exitCodes.refused, 'plan_changed', `not done: it would no longer be ${wanted}`, {
    why: 'the command is another one, or what it would act on has changed since',
    hint: 'look at it again with --dry-run',
  });
}
