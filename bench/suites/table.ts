/**
 * Tables of at most 80 columns for the terminal: the first column to the left, numbers to the right.
 */

export function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const widths = head.map((title, c) => Math.max(title.length, ...rows.map((row) => row[c]!.length)))
  const spare = 80 - widths.reduce((sum, width) => sum + width, 2 * (widths.length - 1))
  if (spare < 0) widths[0] = Math.max(8, widths[0]! + spare)
  const line = (cells: readonly string[]) =>
    cells
      .map((cell, c) => (c === 0 ? cell.slice(0, widths[0]).padEnd(widths[0]!) : cell.padStart(widths[c]!)))
      .join('  ')
      .trimEnd()
  return `${[line(head), widths.map((width) => '-'.repeat(width)).join('  '), ...rows.map(line)].join('\n')}\n`
}

/** Three significant digits without exponents. */
export function short(value: number): string {
  if (!Number.isFinite(value)) return '-'
  const size = Math.abs(value)
  return value.toFixed(size >= 100 ? 0 : size >= 10 ? 1 : size >= 1 ? 2 : size >= 0.1 ? 3 : 4)
}

export function percent(value: number): string {
  return Number.isFinite(value) ? `${Math.round(value * 100)}%` : '-'
}

export function mebibytes(bytes: number): string {
  return `${Math.round(bytes / 2 ** 20)} MiB`
}
