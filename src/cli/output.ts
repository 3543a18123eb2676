/** One column of a table: left-aligned, at least `width` wide, two blanks before the next. */
export type Column<Row> = Readonly<{
  title: string;
  /** For programs, where the table is written for people: a price as a number, a time in full. null: not known. */
  plain?: (row: Row) => string | number | null;
  /** Least width of the contents; scripts cut fixed columns, so it never shrinks below this without a terminal. */
  width?: number;
  /** What stands for the value where the terminal is too narrow for the whole. */
  brief?: (row: Row) => string;
  /** Cells that it may be cut to with `…` when the terminal is too narrow. Never what one types again: ids, contracts. */
  cut?: number;
  /** Left out when the terminal is too narrow even so; of several the least number first. */
  drop?: number;
}> &
  Readonly<
    | { value: (row: Row) => string; usd?: never }
    /** An amount, which programs get as a number; all of a column have the same decimals, so that they can be compared. */
    | { usd: (row: Row) => number | null | undefined; value?: never }
  >;

export const gap = 2;

/** A column with its texts, and how wide they are. */
type Laid<Row> = Readonly<{ column: Column<Row>; texts: readonly string[]; width: number; least: number }>;

/**
 * Lines of a table, header first, no blanks at the ends of lines. With `fit`, where they are wider than that: columns
 * with nothing in them go, briefer words stand in for long ones, some columns are left out, and what may be cut is cut,
 * in this order and as far as it takes. What is too wide even so is not cut for nothing.
 */
export function tableLines<Row>(
  all: readonly Column<Row>[],
  rows: readonly Row[],
  fit: number | null = null,
): string[] {
  const laid = all.map((column) => laidOut(column, textsOf(column, rows)));
  if (fit === null || total(laid) <= fit) return joined(laid);
  // A table without rows is its header.
  const filled =
    rows.length === 0 ? laid : laid.filter(({ texts }) => texts.some((text) => text !== '' && text !== '-'));
  if (total(filled) <= fit) return joined(filled);
  const brief = filled.map((each) =>
    each.column.brief === undefined ? each : laidOut(each.column, rows.map(each.column.brief).map(oneLine)),
  );
  const kept = withoutDropped(brief, fit);
  return joined(total(kept.map(atLeast)) > fit ? kept : narrowed(kept, fit));
}

function laidOut<Row>(column: Column<Row>, texts: readonly string[]): Laid<Row> {
  const contents = Math.max(column.title.length, ...texts.map((text) => text.length));
  const width = Math.max(contents, column.width ?? 0);
  return {
    column,
    texts,
    width,
    least: column.cut === undefined ? width : Math.min(contents, Math.max(column.title.length, column.cut)),
  };
}

const atLeast = <Row>(each: Laid<Row>): Laid<Row> => ({ ...each, width: each.least });

function textsOf<Row>({ value, usd: amount }: Column<Row>, rows: readonly Row[]): readonly string[] {
  if (value !== undefined) return rows.map((row) => oneLine(value(row)));
  const amounts = rows.map(amount);
  const decimals = Math.max(2, ...amounts.map(decimalsOf));
  return amounts.map((each) => usd(each, decimals));
}

function joined<Row>(laid: readonly Laid<Row>[]): string[] {
  const line = (textOf: (each: Laid<Row>) => string) =>
    laid
      .map((each) => {
        const text = textOf(each);
        return (text.length > each.width ? `${text.slice(0, each.width - 1)}…` : text).padEnd(each.width + gap);
      })
      .join('')
      .trimEnd();
  const rows = laid[0]?.texts.map((_, row) => line(({ texts }) => texts[row]!)) ?? [];
  return [line(({ column }) => column.title), ...rows];
}

/** Width of a line of columns that are so wide. */
function total(columns: readonly Readonly<{ width: number }>[]): number {
  return columns.reduce((sum, { width }) => sum + width + gap, -gap);
}

function withoutDropped<Row>(all: readonly Laid<Row>[], fit: number): readonly Laid<Row>[] {
  let columns = all;
  while (total(columns.map(atLeast)) > fit) {
    const [first] = columns
      .filter(({ column }) => column.drop !== undefined)
      .sort((a, b) => (a.column.drop ?? 0) - (b.column.drop ?? 0));
    if (first === undefined) break;
    columns = columns.filter((column) => column !== first);
  }
  return columns;
}

/** Takes from the widest of those that may be cut, cell by cell. */
function narrowed<Row>(columns: readonly Laid<Row>[], fit: number): readonly Laid<Row>[] {
  const widths = columns.map(({ width }) => width);
  for (let over = total(columns) - fit; over > 0; over -= 1) {
    let widest = -1;
    for (const [i, width] of widths.entries()) {
      if (width > columns[i]!.least && (widest < 0 || width > widths[widest]!)) widest = i;
    }
    widths[widest]! -= 1;
  }
  return columns.map((each, i) => ({ ...each, width: widths[i]! }));
}

/** Texts of others (image names, reasons) must not move the cursor or break the line. */
function oneLine(text: string): string {
  return text.replace(/[\u0000-\u001f\u007f-\u009f]+/g, ' ');
}

/**
 * A text that stands behind `indent` cells, in lines that end at most at `width`, broken between words. What is longer,
 * and what is in quotation marks, stays whole: one copies it.
 */
export function proseLines(text: string, width: number, indent = 0): string[] {
  const lines: string[] = [];
  for (const word of text.match(/(?:"[^"]*"|[^\s"]|")+/g) ?? []) {
    const line = lines.at(-1);
    if (line === undefined) lines.push(word);
    else if (indent + line.length + 1 + word.length <= width) lines[lines.length - 1] = `${line} ${word}`;
    else lines.push(word);
  }
  return lines.map((line, at) => (at === 0 ? line : ' '.repeat(indent) + line));
}

/** As `--plain` wants it: no header, one tab between two fields, an empty field for what is not known. */
export function plainLines<Row>(columns: readonly Column<Row>[], rows: readonly Row[]): string[] {
  return rows.map((row) =>
    columns
      .map(({ plain, value, usd: amount }) => {
        const text = String((plain ?? value ?? amount)(row) ?? '');
        return text === '-' ? '' : oneLine(text);
      })
      .join('\t'),
  );
}

/** "$0.79"; small prices keep four digits so that they do not become nothing. "-" when not known. */
export function usd(amount: number | null | undefined, decimals = decimalsOf(amount)): string {
  return typeof amount === 'number' && Number.isFinite(amount) ? `$${amount.toFixed(decimals)}` : '-';
}

function decimalsOf(amount: number | null | undefined): number {
  return amount && Math.abs(amount) < 0.095 ? 4 : 2;
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
