/** One column of a table: left-aligned, at least `width` wide, two blanks before the next. */
export type Column<Row> = Readonly<{
  title: string;
  /** For programs, where `value` is written for people: a price as a number, a time in full. null: not known. */
  plain?: (row: Row) => string | number | null;
  /** Least width of the contents; scripts cut fixed columns, so it never shrinks below this without a terminal. */
  width?: number;
  value: (row: Row) => string;
  /** May be cut with `…` when the terminal is too narrow. Never what one types again: ids, contracts. */
  cut?: boolean;
  /** Left out when the terminal is too narrow even so; of several the least number first. */
  drop?: number;
}>;

export const gap = 2;

/** Least width of a column that is cut. */
const leastCut = 6;

/**
 * Lines of a table, header first, no blanks at the ends of lines. With `fit`, columns that may be cut give way until
 * the lines are at most that wide, and if that is not enough those that may be left out go; without it nothing is cut.
 */
export function tableLines<Row>(
  all: readonly Column<Row>[],
  rows: readonly Row[],
  fit: number | null = null,
): string[] {
  const widthOf = (column: Column<Row>) =>
    Math.max(column.title.length, column.width ?? 0, ...rows.map((row) => oneLine(column.value(row)).length));
  const leastOf = (column: Column<Row>) =>
    column.cut ? Math.min(widthOf(column), Math.max(column.title.length, leastCut)) : widthOf(column);
  const columns = fit === null ? all : withoutDropped(all, leastOf, fit);
  const widths = columns.map(widthOf);
  if (fit !== null) {
    const least = columns.map(leastOf);
    for (let over = total(widths) - fit; over > 0; over -= 1) {
      let widest = -1;
      for (const [i, width] of widths.entries()) {
        if (width > least[i]! && (widest < 0 || width > widths[widest]!)) widest = i;
      }
      if (widest < 0) break;
      widths[widest]! -= 1;
    }
  }
  const cells = rows.map((row) => columns.map((column) => oneLine(column.value(row))));
  const line = (texts: readonly string[]) =>
    texts
      .map((text, i) => {
        const width = widths[i]!;
        return (text.length > width ? `${text.slice(0, width - 1)}…` : text).padEnd(width + gap);
      })
      .join('')
      .trimEnd();
  return [line(columns.map((column) => column.title)), ...cells.map(line)];
}

/** Width of a line of columns that are so wide. */
function total(widths: readonly number[]): number {
  return widths.reduce((sum, width) => sum + width + gap, -gap);
}

function withoutDropped<Row>(
  all: readonly Column<Row>[],
  leastOf: (column: Column<Row>) => number,
  fit: number,
): readonly Column<Row>[] {
  let columns = all;
  while (total(columns.map(leastOf)) > fit) {
    const [first] = columns.filter((column) => column.drop !== undefined).sort((a, b) => (a.drop ?? 0) - (b.drop ?? 0));
    if (first === undefined) break;
    columns = columns.filter((column) => column !== first);
  }
  return columns;
}

/** Texts of others (image names, reasons) must not move the cursor or break the line. */
function oneLine(text: string): string {
  return text.replace(/[\u0000-\u001f\u007f-\u009f]+/g, ' ');
}

/** As `--plain` wants it: no header, one tab between two fields, an empty field for what is not known. */
export function plainLines<Row>(columns: readonly Column<Row>[], rows: readonly Row[]): string[] {
  return rows.map((row) =>
    columns
      .map(({ plain, value }) => {
        const text = String((plain === undefined ? value(row) : plain(row)) ?? '');
        return text === '-' ? '' : oneLine(text);
      })
      .join('\t'),
  );
}

/** "$0.79"; small prices keep four digits so that they do not become nothing. "-" when not known. */
export function usd(amount: number | null | undefined): string {
  if (typeof amount !== 'number' || !Number.isFinite(amount)) return '-';
  return amount !== 0 && Math.abs(amount) < 0.095 ? `$${amount.toFixed(4)}` : `$${amount.toFixed(2)}`;
}

/** "4 s", "3 m", "2 h 5 m", "4 d 3 h". */
export function duration(ms: number): string {
  const seconds = Math.max(0, Math.round(ms / 1000));
  if (seconds < 60) return `${seconds} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes} m`;
  const hours = Math.floor(minutes / 60);
  if (hours < 24) return minutes % 60 === 0 ? `${hours} h` : `${hours} h ${minutes % 60} m`;
  const days = Math.floor(hours / 24);
  return hours % 24 === 0 ? `${days} d` : `${days} d ${hours % 24} h`;
}
