import { randomUUID } from 'node:crypto';
import type { OfferFilter, ProviderName } from '../../core/domain.ts';
import { counted } from '../../core/words.ts';
import { AppError, type ReservePlan, type ReserveRequest, type ReserveResult } from '../../fleet/app.ts';
import { gpuLabel, stateStyle } from '../columns.ts';
import { type Dashboard, type Overlay, reasonOf } from '../dashboard.ts';
import { age, fitId, fitText, money, wrap } from '../format.ts';
import { fitLine, type Line, lineWidth, outside, span } from '../line.ts';
import { scrollTo } from '../panes/pane.ts';
import { acceptedRise, cancelText, type OpenRental } from '../rentals.ts';
import type { View } from '../view.ts';
import { createReleaseDialog } from './release.ts';
import { createStopDialog } from './stop-renting.ts';
import { createTextField } from './text-field.ts';

const fieldNames = ['count', 'gpu', 'provider', 'max $/h', 'min VRAM', 'location', 'GPUs each'] as const;
type FieldName = (typeof fieldNames)[number];

const fieldHelp: Readonly<Record<FieldName, string>> = {
  count: 'GPUs, 1 to 16',
  gpu: 'part of the name; empty: any',
  provider: 'left and right choose',
  'max $/h': 'per instance; empty: any',
  'min VRAM': 'GB of one GPU; empty: any',
  location: 'country code or place; empty: any',
  'GPUs each': 'GPUs of one instance; empty: 1',
};

type Step =
  | Readonly<{ name: 'form' }>
  | Readonly<{
      name: 'confirm';
      request: ReserveRequest;
      plan: ReservePlan;
      at: number;
      risen: number | null;
      /** Where Escape leads: the form, or the partial result that this fills up. */
      from: Step | null;
    }>
  | Readonly<{ name: 'renting'; since: number; rental: OpenRental; stopping: 'keep' | 'give back' | null }>
  | Readonly<{ name: 'done'; result: ReserveResult }>;

const graceMs = 300;

export type ReserveDefaults = Readonly<{ gpuModel?: string; provider?: ProviderName }>;

/** Form with a live plan, confirmation with the price, then the progress of each GPU. */
export function createReserveDialog(dashboard: Dashboard, defaults: ReserveDefaults = {}): Overlay {
  const fields: Readonly<Record<FieldName, ReturnType<typeof createTextField>>> = {
    count: createTextField('1', 2, true),
    gpu: createTextField(defaults.gpuModel ?? '', 40),
    provider: createTextField(defaults.provider ?? 'any', 20),
    'max $/h': createTextField('', 10),
    'min VRAM': createTextField('', 5),
    location: createTextField('', 40),
    'GPUs each': createTextField('', 2),
  };
  const typed = createTextField('', 6);
  let at = 0;
  let step: Step = { name: 'form' };
  let stepAt = dashboard.now();
  let plan: ReservePlan | null = null;
  let planFailed: string | null = null;
  let planning: AbortController | null = null;
  let timer: ReturnType<typeof setTimeout> | null = null;
  let refused: string | null = null;
  let closed = false;
  /** Enter was pressed before the price was there. */
  let wantsOn = false;
  /** What would fill up a partial reservation: the cheapest beyond the price asked for, when it must be. */
  let next: Readonly<{ request: ReserveRequest; plan: ReservePlan }> | null = null;
  // The key stays while the answer to the same request is not known, so that a lost answer is never paid for twice.
  let attempt: Readonly<{ body: string; key: string }> | null = null;
  /** The reservation that is being made, once it is known. */
  let reservation: string | null = null;
  let looking: ReturnType<typeof setTimeout> | null = null;
  let question: Overlay | null = null;
  /** The request has left: from here on it can only be stopped where it is carried out. */
  let sent = false;

  const request = (): ReserveRequest | string => {
    const read = (name: FieldName) => fields[name].text.trim();
    const number = (name: FieldName, min: number, max: number, whole: boolean): number | undefined | string => {
      const text = read(name);
      if (text === '') return undefined;
      const value = Number(text);
      if (!Number.isFinite(value) || value < min || value > max || (whole && !Number.isInteger(value))) {
        return `${name}: got "${text}", accepts ${whole ? 'a whole number' : 'a number'} from ${min} to ${max}`;
      }
      return value;
    };
    const count = number('count', 1, 16, true) ?? 'count: 1 to 16 GPUs';
    const max = number('max $/h', 0.001, 1000, false);
    const vram = number('min VRAM', 1, 2000, true);
    const each = number('GPUs each', 1, 16, true);
    for (const value of [count, max, vram, each]) if (typeof value === 'string') return value;
    const provider = read('provider');
    if (typeof each === 'number' && typeof count === 'number' && count % each !== 0) {
      return `count: ${count} is not a multiple of ${counted(each, 'GPU')} each`;
    }
    const filter: OfferFilter = {
      ...(read('gpu') === '' ? {} : { gpuModel: read('gpu') }),
      ...(provider === 'any' || provider === '' ? {} : { provider: provider as ProviderName }),
      ...(typeof max === 'number' ? { maxUsdPerHour: max } : {}),
      ...(typeof vram === 'number' ? { minVramGb: vram } : {}),
      ...(read('location') === '' ? {} : { location: read('location') }),
      ...(typeof each === 'number' ? { gpuCount: each } : {}),
    };
    return { count: count as number, filter, config: {} };
  };

  const cli = (wanted: ReserveRequest | string): string => {
    if (typeof wanted === 'string') return '';
    const { filter } = wanted;
    const quoted = (text: string) => (/^[\w.-]+$/.test(text) ? text : `'${text.replaceAll("'", `'\\''`)}'`);
    return [
      `gpuproxy reserve ${wanted.count}`,
      ...(filter.gpuModel === undefined ? [] : [`--gpu ${quoted(filter.gpuModel)}`]),
      ...(filter.provider === undefined ? [] : [`--provider ${filter.provider}`]),
      ...(filter.maxUsdPerHour === undefined ? [] : [`--max-price ${filter.maxUsdPerHour}`]),
      ...(filter.minVramGb === undefined ? [] : [`--min-vram ${filter.minVramGb}`]),
      ...(filter.location === undefined ? [] : [`--location ${quoted(filter.location)}`]),
      ...(filter.gpuCount === undefined ? [] : [`--gpu-count ${filter.gpuCount}`]),
      '--yes',
    ].join(' ');
  };

  const go = (next: Step) => {
    step = next;
    stepAt = dashboard.now();
    refused = null;
    if (!closed) dashboard.changed();
  };

  const replan = (delay: number) => {
    if (timer !== null) clearTimeout(timer);
    planning?.abort();
    // A plan for other wishes must never be confirmed.
    plan = null;
    planFailed = null;
    wantsOn = false;
    const wanted = request();
    if (typeof wanted === 'string') {
      planFailed = wanted;
      return;
    }
    timer = setTimeout(() => {
      const controller = new AbortController();
      planning = controller;
      dashboard.app
        .plan(wanted, controller.signal)
        .then((value) => {
          if (controller.signal.aborted) return;
          plan = value;
          planFailed = null;
          refused = null;
          if (wantsOn) toConfirm(wanted);
          dashboard.changed();
        })
        .catch((error: unknown) => {
          if (controller.signal.aborted) return;
          plan = null;
          planFailed = reasonOf(error);
          dashboard.changed();
        });
    }, delay);
  };
  replan(0);

  const stopping = () => (step.name === 'renting' ? step.stopping : null);

  /** Takes the quote again before anything is paid. */
  const confirm = () => {
    if (step.name !== 'confirm') return;
    const { request: wanted, from } = step;
    const why = dashboard.refusal();
    if (why !== null) {
      refused = why;
      return;
    }
    if (typed.text.trim() !== String(step.plan.count)) {
      refused = `type ${step.plan.count} to confirm`;
      return;
    }
    const agreed = step.plan.usdPerHour;
    const body = JSON.stringify(wanted);
    if (attempt?.body !== body) attempt = { body, key: randomUUID() };
    const { key } = attempt;
    sent = false;
    const rental: OpenRental = { key, what: counted(step.plan.count, 'GPU') };
    go({ name: 'renting', since: dashboard.now(), rental, stopping: null });
    void (async () => {
      try {
        const fresh = await dashboard.app.plan(wanted);
        if (stopping() !== null) {
          dashboard.toast('ok', 'cancelled: nothing had been rented');
          dashboard.close(overlay);
          return;
        }
        if (fresh.usdPerHour > agreed * acceptedRise) {
          if (closed) dashboard.toast('warn', 'reserve: the price rose, nothing was rented');
          typed.set('');
          go({ name: 'confirm', request: wanted, plan: fresh, at: dashboard.now(), risen: agreed, from });
          return;
        }
        const bounded = { ...wanted, maxTotalUsdPerHour: agreed * acceptedRise };
        sent = true;
        follow(key);
        const result = await dashboard.rentals.run(rental, () =>
          dashboard.app.reserve(bounded, { idempotencyKey: key, by: 'tui' }),
        );
        if (stopping() === 'give back') {
          // The server learnt of the request only after it was to stop it.
          await dashboard.act('cancel', async () => cancelText(await dashboard.app.cancel(key)));
          dashboard.close(overlay);
          return;
        }
        dashboard.toast(
          result.count < result.requested ? 'warn' : 'ok',
          `${result.reservation}: reserved ${result.count} of ${counted(result.requested, 'GPU')}`,
          cli(wanted),
        );
        attempt = null;
        next = null;
        go({ name: 'done', result });
        // Without an answer `n` opens the form in place of the next best offers.
        if (result.count < result.requested) findNext(wanted, result.requested - result.count).catch(() => {});
      } catch (error) {
        const answered =
          error instanceof AppError && error.code !== 'disconnected' && error.code !== 'provider_timeout';
        if (answered) attempt = null;
        if (answered && stopping() !== null) {
          // It was stopped: whoever stopped it is told what became of it.
          dashboard.close(overlay);
          return;
        }
        dashboard.toast('error', `reserve: ${reasonOf(error)}`);
        typed.set('');
        if (from === null) replan(0);
        go(from ?? { name: 'form' });
      } finally {
        unfollow();
        if (question !== null) dashboard.close(question);
      }
    })();
  };

  /** Learns which reservation the request makes, to show how far it is. */
  const follow = (key: string) => {
    reservation = null;
    looking = setTimeout(() => {
      dashboard.app
        .reservationOf(key)
        .then((found) => {
          reservation = found?.id ?? null;
          if (reservation === null && looking !== null) follow(key);
          else if (!closed) dashboard.changed();
        })
        // Without it the instances are shown when the answer is there.
        .catch(() => {});
    }, 200);
  };
  const unfollow = () => {
    if (looking !== null) clearTimeout(looking);
    looking = null;
  };

  const overlay: Overlay = {
    title: 'RESERVE',
    get hints() {
      return step.name === 'form'
        ? ([
            ['tab', 'next field'],
            ['enter', 'continue'],
            ['esc', 'cancel'],
          ] as const)
        : step.name === 'done'
          ? ([['esc', 'close']] as const)
          : step.name === 'renting'
            ? ([['esc', step.stopping === null ? 'stop or leave' : 'close']] as const)
            : ([
                ['enter', 'confirm'],
                ['esc', 'back'],
              ] as const);
    },
    size: (columns, rows) => ({ width: Math.min(84, columns - 2), height: Math.min(26, rows - 2) }),
    lines(view, width, height) {
      if (step.name === 'form') return formLines(view, width, height);
      if (step.name === 'confirm') return confirmLines(view, step, width, height);
      if (step.name === 'renting') {
        return rentingLines(view, step, reservation, height).map((line) => fitLine(line, width));
      }
      return doneLines(view, step.result, width, height);
    },
    key(key) {
      if (dashboard.now() - stepAt < graceMs && step.name !== 'form') return true;
      refused = null;
      if (step.name === 'form') return formKey(key);
      if (step.name === 'confirm') {
        if (key === 'escape') go(step.from ?? { name: 'form' });
        else if (key === 'enter') confirm();
        else if (key === 'ctrl-c') return false;
        else typed.key(key);
        return true;
      }
      if (step.name === 'done') {
        const { result } = step;
        if (key === 'x' && result.count > 0 && result.count < result.requested) {
          dashboard.open(createReleaseDialog(dashboard, result.reservation));
        } else if (key === 'k' || key === 'enter') dashboard.close(overlay);
        else if (key === 'n' && result.count < result.requested) {
          if (next === null) {
            dashboard.close(overlay);
            dashboard.open(createReserveDialog(dashboard, defaults));
          } else {
            typed.set('');
            go({ name: 'confirm', ...next, at: dashboard.now(), risen: null, from: step });
          }
        } else return false;
        return true;
      }
      if (key === 'ctrl-z' || key === 'ctrl-l') return false;
      if (step.stopping !== null) {
        if (key === 'escape' || key === 'ctrl-c') dashboard.close(overlay);
      } else if (key === 'escape' || key === 'ctrl-c' || key === 'q') ask(step);
      return true;
    },
    paste(text) {
      if (step.name !== 'form') return;
      fields[fieldNames[at] ?? 'gpu'].paste(text);
      replan(250);
    },
    closed() {
      closed = true;
      unfollow();
      if (timer !== null) clearTimeout(timer);
      planning?.abort();
    },
  };

  function ask(now: Extract<Step, { name: 'renting' }>): void {
    const opened = createStopDialog(dashboard, now.rental, {
      background: () => dashboard.close(overlay),
      sent: () => sent,
      stopping(keep) {
        step = { ...now, stopping: keep ? 'keep' : 'give back' };
      },
    });
    question = opened;
    dashboard.open(opened);
  }

  async function findNext(wanted: ReserveRequest, missing: number): Promise<void> {
    const { maxUsdPerHour: _limit, ...anyPrice } = wanted.filter;
    const each = wanted.filter.gpuCount ?? 1;
    const count = Math.max(each, Math.floor(missing / each) * each);
    for (const filter of [wanted.filter, anyPrice]) {
      const request = { ...wanted, count, filter };
      const found = await dashboard.app.plan(request);
      if (found.count === 0) continue;
      next = { request, plan: found };
      if (!closed) dashboard.changed();
      return;
    }
  }

  function toConfirm(wanted: ReserveRequest): void {
    wantsOn = false;
    if (plan === null || step.name !== 'form') return;
    if (plan.count === 0) {
      refused = 'nothing matches: widen the filter';
      return;
    }
    typed.set('');
    go({ name: 'confirm', request: wanted, plan, at: dashboard.now(), risen: null, from: null });
  }

  function formKey(key: string): boolean {
    const name = fieldNames[at] ?? 'count';
    if (key === 'tab' || key === 'down') at = (at + 1) % fieldNames.length;
    else if (key === 'shift-tab' || key === 'up') at = (at + fieldNames.length - 1) % fieldNames.length;
    else if (key === 'enter') {
      const wanted = request();
      if (typeof wanted === 'string') refused = wanted;
      else if (plan === null && planFailed === null) wantsOn = true;
      else if (plan === null) refused = planFailed;
      else toConfirm(wanted);
    } else if (name === 'provider' && ['left', 'right', 'space'].includes(key)) {
      const names = ['any', ...dashboard.view().snapshot.providers.map((provider) => provider.name)];
      const step = key === 'left' ? names.length - 1 : 1;
      fields.provider.set(names[(names.indexOf(fields.provider.text) + step) % names.length] ?? 'any');
      replan(0);
    } else if (name === 'count' && (key === 'left' || key === 'right')) {
      const value = Number(fields.count.text) || 1;
      fields.count.set(String(Math.max(1, Math.min(16, value + (key === 'right' ? 1 : -1)))));
      replan(100);
    } else if (name === 'provider' && key !== 'escape' && key !== 'ctrl-c') return true;
    else if (fields[name].key(key)) replan(250);
    else return false;
    return true;
  }

  function formLines(view: View, width: number, height: number): Line[] {
    const fieldLines = fieldNames.map((name, index): Line => {
      const here = index === at;
      return [
        span(here ? `${view.glyphs.cursor} ` : '  ', 'key'),
        span(fitText(name, 11), here ? 'title' : 'dim'),
        span(fields[name].text, 'strong'),
        span(here ? '_' : '', 'accent'),
        span(here ? `   ${fieldHelp[name]}` : '', 'dim'),
      ];
    });
    const found: Line[] =
      refused !== null
        ? [[outside(refused, 'bad')]]
        : planFailed !== null
          ? [[outside(planFailed, 'warn')]]
          : plan === null
            ? [[span(`asking the providers${wantsOn ? ', then on' : ''}`, 'busy')]]
            : planSummary(view, plan, width);
    // Where it is low what comes of the wishes stays in sight, and the field under the cursor.
    const room = height - found.length;
    const first = scrollTo(at, fieldLines.length, Math.max(1, room), 0);
    const lines: Line[] = fieldLines.slice(first, first + Math.max(1, room));
    if (room > lines.length) lines.push([]);
    lines.push(...found);
    const twin = cliLines(request(), width);
    if (plan !== null && height - lines.length - twin.length > 2)
      lines.push(...offerLines(plan, height - lines.length - twin.length));
    if (height - lines.length >= twin.length) {
      while (lines.length < height - twin.length) lines.push([]);
      lines.push(...twin);
    }
    return lines.map((line) => fitLine(line, width));
  }

  function cliLines(wanted: ReserveRequest | string, width: number): Line[] {
    return wrap(cli(wanted), width - 4).map((part, index) => [
      span(index === 0 ? 'CLI ' : '    ', 'dim'),
      outside(part, 'accent'),
    ]);
  }

  function confirmLines(view: View, now: Extract<Step, { name: 'confirm' }>, width: number, height: number): Line[] {
    const lines: Line[] = [
      [span(`Reserve ${counted(now.plan.count, 'GPU')}`, 'strong'), span('   step 2 of 2: confirm', 'dim')],
      [],
    ];
    if (now.risen !== null) {
      lines.push([
        span(
          `The price rose from ${money(now.risen)}/h to ${money(now.plan.usdPerHour)}/h. Nothing was rented.`,
          'bad',
        ),
      ]);
    }
    lines.push(...planSummary(view, now.plan, width));
    const end: Line[] = [
      refused !== null
        ? [outside(refused, 'bad')]
        : [span(`quote ${age(view.now - now.at)} old; it is taken again before renting`, 'dim')],
      [
        span(`Type ${now.plan.count} and enter to spend ${money(now.plan.usdPerHour)}/h: `, 'warn'),
        span('[ ', 'dim'),
        span(typed.text, 'strong'),
        span('_', 'accent'),
        span(' ]', 'dim'),
        span('   esc back', 'dim'),
      ],
    ];
    // Where it is low the price and what to type stay; the offers give way, then their command line.
    const twin = cliLines(now.request, width);
    const room = height - lines.length - end.length;
    if (room >= twin.length + 5) lines.push([], ...offerLines(now.plan, room - twin.length - 2), [], ...twin);
    else if (room >= twin.length + 2) lines.push(...offerLines(now.plan, room - twin.length), ...twin);
    else if (room >= twin.length) lines.push(...twin);
    return [...lines.slice(0, height - end.length), ...end].map((line) => fitLine(line, width));
  }

  function doneLines(view: View, result: ReserveResult, width: number, height: number): Line[] {
    const ids = result.reserved.map((item) => item.instanceId);
    const rows = ids.map((id) => view.snapshot.upstreams.find((row) => row.id === id));
    const ready = rows.filter((row) => row?.eligible).length;
    const lines: Line[] = [
      [
        outside(`${result.reservation}  `, 'accent'),
        span(
          `Reserved ${counted(result.count, 'GPU')} (requested: ${result.requested})`,
          result.count < result.requested ? 'warn' : 'good',
        ),
        span(`   ${ready} of ${ids.length} in rotation`, 'dim'),
      ],
      [],
    ];
    for (const [index, item] of result.reserved.entries()) {
      const row = rows[index];
      const state = row?.state ?? 'RESERVING';
      lines.push([
        span('  '),
        outside(fitId(item.instanceId, 18), 'strong'),
        span(' '),
        outside(fitText(item.provider, 9), 'dim'),
        outside(fitText(gpuLabel(item), 14)),
        span(fitText(`${money(item.usdPerHour)}/h`, 9, 'right')),
        span('  '),
        span(fitText(state, 10), stateStyle(state)),
        outside(row === undefined ? '' : row.eligible ? 'in rotation' : row.reason, 'dim'),
      ]);
    }
    for (const error of result.errors) lines.push([outside(`  ${error}`, 'warn')]);
    lines.push([]);
    lines.push(
      result.count < result.requested && result.count > 0
        ? [
            span('k', 'key'),
            span(` keep ${result.count}  `),
            span('n', 'key'),
            span(
              next === null
                ? ' try for more  '
                : ` next best: ${next.plan.count} more at ${money(next.plan.usdPerHour)}/h  `,
            ),
            span('x', 'key'),
            span(' release all'),
          ]
        : [span('enter', 'key'), span(' close: it goes on in the background')],
    );
    return lines.slice(0, height).map((line) => fitLine(line, width));
  }

  return overlay;
}

function rentingLines(
  view: View,
  now: Extract<Step, { name: 'renting' }>,
  reservation: string | null,
  height: number,
): Line[] {
  const members = view.snapshot.upstreams.filter((row) => reservation !== null && row.reservation === reservation);
  const rented = members.filter((row) => row.contract !== null && row.lifecycle.phase !== 'destroying').length;
  const lines: Line[] = [
    now.stopping === null
      ? [
          span(`Renting ${now.rental.what}`, 'strong'),
          span(reservation === null ? ': the price is asked for again, then it is rented' : '', 'busy'),
          span(members.length === 0 ? '' : `: ${rented} of ${counted(members.length, 'instance')} rented`, 'busy'),
        ]
      : [
          span('Stopping', 'strong'),
          span(
            `: waiting for the paid calls under way, then all is ${now.stopping === 'keep' ? 'kept' : 'given back'}`,
            'busy',
          ),
        ],
    [],
  ];
  for (const row of members.slice(0, height - 4)) {
    lines.push([
      span('  '),
      outside(fitId(row.id, 18), 'strong'),
      span(' '),
      outside(fitText(row.provider, 9), 'dim'),
      outside(fitText(gpuLabel(row), 14)),
      span(fitText(`${money(row.usdPerHour)}/h`, 9, 'right')),
      span('  '),
      span(fitText(row.state, 10), stateStyle(row.state)),
      outside(row.reason, 'dim'),
    ]);
  }
  if (members.length > 0) lines.push([]);
  lines.push([
    span(`for ${age(view.now - now.since)}; `, 'dim'),
    span('esc', 'key'),
    span(now.stopping === null ? ' asks: go on, keep, or give back' : ' closes this, it goes on', 'dim'),
  ]);
  return lines;
}

function planSummary(view: View, plan: ReservePlan, width: number): Line[] {
  const { cost } = view.snapshot;
  const then = cost.usdPerHour + plan.usdPerHour;
  const prepaid: Line = plan.prepaidUsd > 0 ? [span(`${money(plan.prepaidUsd)} are paid at once`, 'warn')] : [];
  const price: Line = [
    span(`${plan.count} of ${counted(plan.requested, 'GPU')}: `, plan.count < plan.requested ? 'warn' : 'good'),
    span(`${money(plan.usdPerHour)}/h`, 'strong'),
    span(`, about ${money(plan.usdPerHour * 24)} a day`),
  ];
  const together: Line = prepaid.length === 0 ? price : [...price, span('; '), ...prepaid];
  const lines: Line[] = [
    ...(lineWidth(together) <= width ? [together] : [price, prepaid]),
    [
      span(`fleet then ${money(then)}/h`, 'dim'),
      cost.maxUsdPerHour === null
        ? span('')
        : span(` of ${money(cost.maxUsdPerHour)}/h allowed`, then > cost.maxUsdPerHour ? 'bad' : 'dim'),
    ],
  ];
  for (const error of plan.errors.slice(0, 2)) lines.push([outside(error, 'warn')]);
  return lines;
}

function offerLines(plan: ReservePlan, room: number): Line[] {
  const lines: Line[] = [
    [
      span(
        `${fitText('#', 3, 'right')} ${fitText('PROVIDER', 9)}${fitText('OFFER', 13)} ${fitText('GPU', 15)}${fitText('VRAM', 6, 'right')}  ${fitText('LOCATION', 14)}${fitText('$/H', 8, 'right')}`,
        'head',
      ),
    ],
  ];
  for (const [index, offer] of plan.offers.slice(0, room - 1).entries()) {
    lines.push([
      span(`${fitText(String(index + 1), 3, 'right')} `, 'dim'),
      outside(fitText(offer.provider, 9), 'dim'),
      outside(fitId(offer.id, 13)),
      span(' '),
      outside(fitText(gpuLabel(offer), 15), 'strong'),
      span(fitText(`${offer.vramGb}GB`, 6, 'right')),
      span('  '),
      outside(fitText(offer.location ?? '-', 14), 'dim'),
      span(fitText(money(offer.usdPerHour), 8, 'right')),
    ]);
  }
  const more = plan.offers.length - (room - 1);
  if (more > 0) lines.push([span(`    and ${more} more`, 'dim')]);
  return lines;
}
