/**
 * Formats an evaluation as a table for the terminal, at most 80 columns wide.
 */
import type { Evaluation } from '../lib/evaluate/evaluate.js'
import type { Estimate } from '../lib/evaluate/statistics.js'

export function evaluationTable(report: Record<string, Evaluation>): string {
  const rows = Object.entries(report).map(([name, { pairs, estimates: e }]) => [
    name.length > 15 ? `${name.slice(0, 14)}~` : name,
    String(pairs),
    interval(e.accuracy, 3),
    fixed(e.loss.value, 4),
    significant(e.meanMargin.value),
    fixed(e.normalizedMargin.value, 3),
    fixed(e.brier.value, 3),
    fixed(e.ece.value, 3),
  ])
  const header = ['data set', 'pairs', 'accuracy [95%]', 'loss', 'margin', 'norm.', 'Brier', 'ECE']
  const widths = header.map((title, i) => Math.max(title.length, ...rows.map((row) => row[i]!.length)))
  const line = (cells: string[]) =>
    cells.map((cell, i) => (i === 0 ? cell.padEnd(widths[i]!) : cell.padStart(widths[i]!))).join('  ')
  return [line(header), ...rows.map(line)].map((text) => text.slice(0, 80).trimEnd()).join('\n')
}

/** A value with its interval. The ends have no leading zero, to save space: `0.781 [.721, .840]`. */
function interval({ value, low, high }: Estimate, digits: number): string {
  if (Number.isNaN(value)) return 'n/a'
  if (Number.isNaN(low)) return value.toFixed(digits)
  const bare = (end: number) => end.toFixed(digits).replace(/^0\./, '.')
  return `${value.toFixed(digits)} [${bare(low)}, ${bare(high)}]`
}

function fixed(value: number, digits: number): string {
  if (Number.isNaN(value)) return 'n/a'
  return Math.abs(value) < 1000 ? value.toFixed(digits) : value.toPrecision(4)
}

function significant(value: number): string {
  if (Number.isNaN(value)) return 'n/a'
  const magnitude = Math.abs(value)
  return magnitude !== 0 && (magnitude < 1e-3 || magnitude >= 1e5)
    ? value.toExponential(2)
    : String(Number(value.toPrecision(4)))
}
