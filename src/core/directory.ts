/** What a data-plane thread knows of an upstream besides the numbers in the load table. */
export type DirectoryEntry = Readonly<{
  row: number;
  generation: number;
  id: string;
  provider: string;
  /** Base URL without a trailing slash. */
  origin: string;
  /** Model ids it serves; null when not known: it may then serve any. */
  models: readonly string[] | null;
}>;
