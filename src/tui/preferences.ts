import * as z from 'zod';
import { columnIds } from './columns.ts';
import { themeNames } from './theme.ts';

export const refreshSteps = [250, 1000, 2000, 5000] as const;

const schema = z.object({
  theme: z.enum(themeNames).optional().catch(undefined),
  glyphs: z.enum(['unicode', 'ascii']).optional().catch(undefined),
  refreshMs: z.literal(refreshSteps).optional().catch(undefined),
  sort: z
    .object({ column: z.enum(columnIds), reverse: z.boolean() })
    .optional()
    .catch(undefined),
  hiddenColumns: z.array(z.enum(columnIds)).optional().catch(undefined),
  filters: z.array(z.string().max(500)).max(20).optional().catch(undefined),
});

/** What a person chose about looks. Nothing in it changes what the program does. */
export type DashboardPreferences = z.infer<typeof schema>;

/** Where preferences are kept; what `read` gives is not trusted. */
export interface PreferenceStore {
  read(): unknown;
  /** May give a promise; it rejects when nothing was kept. */
  write(preferences: DashboardPreferences): unknown;
}

/** Preferences as far as they can be understood; the rest falls back to defaults. */
export function readPreferences(store: PreferenceStore | undefined): DashboardPreferences {
  try {
    const parsed = schema.safeParse(store?.read() ?? {});
    return parsed.success ? parsed.data : {};
  } catch {
    return {};
  }
}
