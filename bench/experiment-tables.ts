/**
 * Records of bench/results/experiments as tables for docs/experiments.md. test/docs.test.ts keeps the two equal.
 */
import { readFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { accuracyTable as screenTable } from '../lab/report/experiment-table.js'
import type { Comparison, ResultTable } from '../lab/experiments/result.js'
import { CYCLES_AFTER, CYCLES_BEFORE, PREDICTIONS, SEPARATION } from '../lab/experiments/table-notes.js'
import type { ExperimentRecord } from './experiments.js'
import { markdown } from './markdown.js'

const folder = resolve(import.meta.dirname, '..', '..', 'bench', 'results', 'experiments')

/**
 * @param part `result`: source and accuracies; `paper`: the paper's numbers beside; `tables`: what else was
 * measured; `screen`: accuracies as the terminal shows them
 */
export function experimentBlock(name: string, part: string): string {
  const record = asToday(JSON.parse(readFileSync(join(folder, `${name}.json`), 'utf8')) as ExperimentRecord)
  if (part === 'paper') return paperTable(record)
  if (part === 'screen') return `\`\`\`\n${screenTable(record)}\n\`\`\``
  if (part === 'tables') return record.tables.map(tableOf).join('\n\n')
  const leftOut = record.notes.filter((note) => note.endsWith('were left out.')).map((note) => `- ${note}`)
  return [source(name, record), accuracyTable(record), ...(leftOut.length > 0 ? [leftOut.join('\n')] : [])].join('\n\n')
}

/**
 * A record keeps the command and the words of its day, and records are evidence, so they are not edited. The document shows the path that works
 * now (configs/ became lab/configs/) and the words that the program prints now.
 */
function asToday(record: ExperimentRecord): ExperimentRecord {
  return {
    ...record,
    command: record.command.map((word) => word.replace(/^configs\//, 'lab/configs/')),
    notes: record.notes.map((note) =>
      note.replace("are beyond the model's context", "are longer than the model's context"),
    ),
    paper: record.paper.map((row) => ({ ...row, what: row.what.replace('normalised', 'normalized') })),
    tables: record.tables.map((table) => ({ ...table, note: NOTES.get(table.title) ?? table.note })),
  }
}

const NOTES = new Map(
  [SEPARATION, PREDICTIONS, CYCLES_BEFORE, CYCLES_AFTER].map(({ title, note }) => [title, note] as const),
)

function source(name: string, record: ExperimentRecord): string {
  const { date, commit, dirty, machine, kernels, threads, seconds, model, command } = record
  const code = commit === null ? 'an uncommitted tree' : `commit ${commit.slice(0, 12)}${dirty ? ' with changes' : ''}`
  return (
    `\`${command.join(' ')}\`\n\n` +
    `bench/results/experiments/${name}.json: ${date.slice(0, 10)}, ${code}, ${machine.cpu}, ${threads} threads, kernels ${kernels}; ` +
    `${model.name}, ${model.parameters.toLocaleString('en')} parameters; ${Math.round(seconds)} s on a machine with other work.`
  )
}

/** Accuracies with their intervals, and below them the normalized margins, by shift and kind. */
function accuracyTable({ shifts, comparison, members }: ExperimentRecord): string {
  const kinds = [...new Set(members.map(({ kind }) => kind))]
  const cell = (kind: string, shift: string, statistic: Comparison['statistic']) => {
    const one = comparison.find((c) => c.kind === kind && c.shift === shift && c.statistic === statistic)
    if (one === undefined || one.mean === null) return 'n/a'
    const interval = one.low === null || one.high === null ? '' : ` [${one.low.toFixed(2)}, ${one.high.toFixed(2)}]`
    return `${one.mean.toFixed(3)}${interval}`
  }
  const rows = (['accuracy', 'normalizedMargin'] as const).flatMap((statistic) =>
    shifts.map(({ name, label }) => [
      `${label}, ${statistic === 'accuracy' ? 'accuracy' : 'normalized margin'}`,
      ...kinds.map((kind) => cell(kind, name, statistic)),
    ]),
  )
  return markdown(['', ...kinds], rows)
}

function paperTable({ paper }: ExperimentRecord): string {
  return markdown(
    ['what', 'kind', 'paper', 'here'],
    paper.map(({ what, kind, paper: theirs, ours }) => [what, kind, theirs.toFixed(3), ours?.toFixed(3) ?? 'n/a']),
  )
}

function tableOf({ title, note, columns, rows }: ResultTable): string {
  const shown = (cell: string | number | boolean | null) =>
    cell === true ? 'yes' : cell === false ? 'no' : typeof cell === 'number' ? short(cell) : (cell ?? 'n/a')
  return `${title}. ${note}\n\n${markdown(
    columns,
    rows.map((row) => row.map(shown)),
  )}`
}

function short(value: number): string {
  if (Number.isInteger(value)) return String(value)
  const magnitude = Math.abs(value)
  return magnitude < 1e-3 || magnitude >= 1e5 ? value.toExponential(1) : String(Number(value.toPrecision(3)))
}
