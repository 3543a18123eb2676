import { type Config, type VariableName, variables } from '../config.ts';
import { withoutUrlSecrets } from '../core/base-url.ts';
import type { Column } from './output.ts';

/** A variable as people may see it. */
export type SettingRow = Readonly<{ name: VariableName; value: string; origin: Config['origin'][VariableName] }>;

/** Every variable of a configuration, secrets masked. */
export function settingRows(config: Config): readonly SettingRow[] {
  return (Object.keys(variables) as VariableName[]).map((name) => {
    const value = valueText(config[name]);
    return {
      name,
      value:
        'secret' in variables[name] && value !== ''
          ? masked(value)
          : // The one address that may have a query, where a key may stand.
            name === 'HEALTH_PATH'
            ? withoutUrlSecrets(value)
            : value,
      origin: config.origin[name],
    };
  });
}

export const settingColumns: readonly Column<SettingRow>[] = [
  { title: 'NAME', value: (row) => row.name },
  { title: 'ORIGIN', value: (row) => row.origin },
  { title: 'VALUE', value: (row) => row.value, cut: 6 },
];

/** The same for programs. */
export function settingsDocument(rows: readonly SettingRow[]): Record<string, Omit<SettingRow, 'name'>> {
  return Object.fromEntries(rows.map(({ name, value, origin }) => [name, { value, origin }]));
}

export function masked(secret: string): string {
  return `${secret.slice(0, 3)}…`;
}

function valueText(value: unknown): string {
  if (value === undefined) return '';
  if (Array.isArray(value))
    return value.map((item: { name: string; url: string }) => `${item.name}=${item.url}`).join(',');
  if (typeof value === 'object' && value !== null)
    return Object.entries(value)
      .map((pair) => pair.join('='))
      .join(',');
  return String(value);
}
