import { counted } from '../../core/words.ts';
import type { UpstreamView } from '../../fleet/app.ts';
import { gpuLabel } from '../columns.ts';
import type { Dashboard, Overlay } from '../dashboard.ts';
import { each } from '../each.ts';
import { age, clockTime, fitId, fitText, money } from '../format.ts';
import { type Line, outside, span } from '../line.ts';
import { createConfirmation } from './confirmation.ts';

const hourMs = 3_600_000;

/** Prepaid hours are paid at once and not given back: says how much in all and how long the instances then last. */
export function createExtendDialog(dashboard: Dashboard, rows: readonly UpstreamView[], hours: number): Overlay {
  const usd = rows.reduce((sum, row) => sum + row.usdPerHour, 0) * hours;
  const words = counted(hours, 'more hour');
  const cli = rows.map((row) => `gpuproxy extend ${row.id} ${hours} --yes`).join(' && ');
  const whom = rows.length === 1 ? (rows[0]?.id ?? '') : counted(rows.length, 'instance');
  return createConfirmation(dashboard, {
    title: 'EXTEND',
    body: (view) => [
      [span(`Pay for ${words} of `), outside(whom, 'strong'), span('? It is not given back.')],
      [],
      ...rows.slice(0, 8).map((row): Line => {
        const end = Math.max(row.expiresAt ?? view.clock, view.clock) + hours * hourMs;
        return [
          span('  '),
          outside(fitId(row.id, 16), 'strong'),
          outside(` ${fitText(gpuLabel(row), 14)}`),
          span(fitText(money(row.usdPerHour * hours), 9, 'right')),
          span(`  then lasts ${age(end - view.clock)}, until ${clockTime(end).slice(0, 5)}`, 'dim'),
        ];
      }),
      ...(rows.length > 8 ? [[span(`  and ${rows.length - 8} more`, 'dim')] as Line] : []),
      [],
      [span('  '), span(money(usd), 'strong'), span(' are paid at once', 'warn')],
    ],
    choices: [
      {
        label: `Pay ${money(usd)} for ${words}`,
        cli,
        run: () => {
          void dashboard.act(
            'extend',
            async () => {
              await each(rows, (row) => dashboard.app.extend(row.id, hours));
              return `${whom} paid for ${words} (${money(usd)})`;
            },
            cli,
          );
        },
      },
      { label: 'Cancel', run: null },
    ],
    first: 1,
    typed: null,
  });
}
