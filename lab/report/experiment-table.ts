/**
 * The results of an experiment for a terminal of 80 columns: the headline, accuracies by shift and kind, and the other tables.
 */
import type { Comparison, ExperimentResult, ResultTable } from '../experiments/result.js'

const COLUMNS = 80

export function experimentTable(result: ExperimentResult): string {
  const parts = [wrap(result.headline)]
  if (result.comparison.length > 0) parts.push(accuracyTable(result))
  for (const table of result.tables) parts.push(plainTable(table))
  return parts.join('\n\n')
}

/** One line per shift with its interval over seeds and prompts, and below it one line per set. */
export function accuracyTable({
  shifts,
  sets,
  comparison,
  members,
}: Pick<ExperimentResult, 'shifts' | 'sets' | 'comparison' | 'members'>): string {
  const kinds = [...new Set(members.map(({ kind }) => kind))]
  const seeds = new Set(members.map(({ seed }) => seed)).size
  const accuracy = (kind: string, shift: string) =>
    comparison.find((one) => one.kind === kind && one.shift === shift && one.statistic === 'accuracy')
  const ofSet = (kind: string, set: string) => {
    const values = members.filter((one) => one.kind === kind).map(({ evaluation }) => evaluation[set]?.accuracy)
    return values.some((value) => typeof value !== 'number')
      ? 'n/a'
      : ((values as number[]).reduce((a, b) => a + b) / values.length).toFixed(3)
  }
  const rows = shifts.flatMap(({ name, label }) => {
    const inShift = sets.filter((set) => set.shift === name)
    const head = [label, ...kinds.map((kind) => interval(accuracy(kind, name)))]
    if (inShift.length === 1 && inShift[0]!.label === label) return [head]
    return [
      head,
      ...inShift.map((set) => [`  ${set.label.split(',')[0]}`, ...kinds.map((kind) => ofSet(kind, set.name))]),
    ]
  })
  const caption = `accuracy, ${seeds} seed${seeds === 1 ? '' : 's'} [95%]`
  return columns([[caption, ...kinds], ...rows])
}

function plainTable({ title, note, columns: head, rows }: ResultTable): string {
  const shown = rows.map((row) => row.map((cell) => (typeof cell === 'number' ? short(cell) : String(cell ?? 'n/a'))))
  const fits = [head, ...shown]
  return [wrap(title), ...(rows.length === 0 ? [] : [columns(fits)]), wrap(note)].join('\n')
}

/** First column to the left; the others under their heads. Cells that do not fit are cut, the first column first. */
function columns(rows: readonly string[][]): string {
  const widths = rows[0]!.map((_, i) => Math.max(...rows.map((row) => row[i]!.length)))
  const excess = widths.reduce((sum, width) => sum + width + 2, -2) - COLUMNS
  if (excess > 0) widths[0] = Math.max(16, widths[0]! - excess)
  return rows
    .map((row) =>
      row
        .map((cell, i) => (i === 0 ? cut(cell, widths[0]!).padEnd(widths[0]!) : cell.padStart(widths[i]!)))
        .join('  ')
        .slice(0, COLUMNS)
        .trimEnd(),
    )
    .join('\n')
}

function cut(text: string, width: number): string {
  return text.length > width ? `${text.slice(0, width - 1)}~` : text
}

function interval(one: Comparison | undefined): string {
  if (one === undefined || one.mean === null) return 'n/a'
  if (one.low === null || one.high === null) return one.mean.toFixed(3)
  const bare = (end: number) => (end === 1 ? '1' : end.toFixed(2).replace(/^0\./, '.'))
  return `${one.mean.toFixed(3)} [${bare(one.low)}, ${bare(one.high)}]`
}

function short(value: number): string {
  const magnitude = Math.abs(value)
  if (Number.isInteger(value)) return String(value)
  return magnitude !== 0 && (magnitude < 1e-3 || magnitude >= 1e5)
    ? value.toExponential(1)
    : String(Number(value.toPrecision(3)))
}

export function wrap(text: string, width = COLUMNS): string {
  const lines = ['']
  for (const word of text.split(' ')) {
    const last = lines.at(-1)!
    if (last !== '' && last.length + 1 + word.length > width) lines.push(word)
    else lines[lines.length - 1] = last === '' ? word : `${last} ${word}`
  }
  return lines.join('\n')
}
