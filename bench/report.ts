/**
 * Writes the tables of docs/performance.md, between its markers, from bench/results.
 *
 *   node dist/bench/report.js [--check]       --check: fails when the document is not what the results say
 */
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { ceilings, roofline } from './suites/kernels.js'
import { type BenchCase, type BenchResult, failed, RESULT_FORMAT } from './suites/result.js'
import { profileRows } from './suites/profile.js'
import { MODEL_COLUMNS, modelRows } from './suites/score.js'
import { median } from './suites/statistics.js'
import { mebibytes, percent, short } from './suites/table.js'
import { markdown } from './markdown.js'

const root = resolve(import.meta.dirname, '..', '..')
export const DOCUMENT = join(root, 'docs', 'performance.md')
const RESULTS = join(root, 'bench', 'results')

/** The document's text with every part between `<!-- bench:NAME -->` and `<!-- /bench:NAME -->` written again. */
export function withTables(document: string, folder = RESULTS): string {
  return document.replace(
    /(<!-- bench:(\w+) -->\n)[\s\S]*?(<!-- \/bench:\2 -->)/g,
    (_, open: string, name: string, close: string) => `${open}${section(name, folder)}${close}`,
  )
}

/** The text of one section. `profile` joins the shares from two files; every other name is the table of its file. */
function section(name: string, folder: string): string {
  if (name === 'profile') {
    const cases = ['score', 'train'].flatMap((file) => read(join(folder, `${file}.json`))?.cases ?? [])
    const { head, rows } = profileRows(cases, '')
    return head.length === 1 ? 'No result has a profile.\n' : `${markdown(head, rows)}\n`
  }
  if (name === 'library_invariance') return libraryTable(join(folder, `${name}.json`))
  const result = read(join(folder, `${name}.json`))
  if (result === undefined) return `There is no bench/results/${name}.json.\n`
  return `${source(name, result)}\n\n${tableOf(result)}\n`
}

function read(file: string): BenchResult | undefined {
  if (!existsSync(file)) return undefined
  const result = JSON.parse(readFileSync(file, 'utf8')) as BenchResult
  if (result.format !== RESULT_FORMAT) throw new Error(`${file} is not of format ${RESULT_FORMAT}`)
  return result
}

function source(name: string, { date, commit, dirty, machine, versions }: BenchResult): string {
  const { cpu, threads, kernels, load } = machine
  const code = commit === null ? 'an uncommitted tree' : `commit ${commit.slice(0, 12)}${dirty ? ' with changes' : ''}`
  const others = Object.entries(versions).filter(([key]) => key !== 'implex' && key !== 'compiler')
  return (
    `From bench/results/${name}.json: ${date.slice(0, 10)}, ${code}, ${cpu}, ${threads} threads, kernels ${kernels}, ` +
    `${others.map(([key, value]) => `${key} ${value}`).join(', ')}; load average ${short(load[0])} before, ${short(load[1])} after.`
  )
}

interface LibraryInvariance {
  machine: string
  versions: { torch: string; libraries: string[] }
  cases: { dtype: string; n: number; k: number; m: number; differing_rows: number }[]
}

/** One row per dtype and weight, one column per number of rows m; a cell counts the rows that differ. */
function libraryTable(file: string): string {
  const { machine, versions, cases } = JSON.parse(readFileSync(file, 'utf8')) as LibraryInvariance
  const counts = [...new Set(cases.map(({ m }) => m))]
  const weights = [...new Set(cases.map(({ dtype, n, k }) => `${dtype} ${n}x${k}`))]
  const cell = (weight: string, m: number) => {
    const found = cases.find((item) => item.m === m && `${item.dtype} ${item.n}x${item.k}` === weight)
    return String(found?.differing_rows ?? '')
  }
  const rows = weights.map((weight) => [weight, ...counts.map((m) => cell(weight, m))])
  const from = `From bench/results/library_invariance.json: torch ${versions.torch} on ${machine}; ${versions.libraries.join('; ')}.`
  return `${from}\n\n${markdown(['weight', ...counts.map((m) => `m = ${m}`)], rows)}\n`
}

function tableOf(result: BenchResult): string {
  if (result.what === 'kernels') return kernelTable(result.cases)
  if (result.what === 'peers') return peerTable(result.cases)
  return markdown(MODEL_COLUMNS, modelRows(result.cases, ''))
}

function kernelTable(cases: BenchCase[]): string {
  const limits = ceilings(cases)
  return markdown(
    ['operation', 'ms', 'GFLOP/s', 'GB/s', 'of bound', 'bound', 'error'],
    cases.map((item) => {
      const seconds = median(item.samples)
      const { flops = 0, bytes = 0 } = item.work
      const bound = roofline(item, limits)
      const error = item.check?.error.toExponential(0) ?? ''
      if (failed(item)) return [item.name, 'failed', '', '', '', '', error]
      const rate = (amount: number) => (amount === 0 ? '' : short(amount / seconds / 1e9))
      return [
        item.name,
        short(seconds * 1e3),
        rate(flops),
        rate(bytes),
        bound === undefined ? '' : percent(bound.fraction),
        bound === undefined ? '' : bound.bound === 'flops' ? 'multiply-adds' : 'memory',
        error,
      ]
    }),
  )
}

function peerTable(cases: BenchCase[]): string {
  return markdown(
    ['case', 'side', 'seconds', 'rounds', 'ratio', 'promised', 'kept', 'differs by'],
    cases.map((item) => {
      const [name, side = ''] = item.name.split(': ') as [string, string?]
      const { ratio, promised, extraBytes } = item.values ?? {}
      const memory = extraBytes !== undefined
      const kept = memory ? extraBytes <= promised! : ratio !== undefined && promised !== undefined && ratio >= promised
      const applies = memory || (ratio !== undefined && promised !== undefined)
      return [
        name,
        side,
        short(median(item.samples)),
        String(item.samples.length),
        memory ? mebibytes(extraBytes) : ratio === undefined ? '' : short(ratio),
        !applies ? '' : memory ? `≤ ${mebibytes(promised!)}` : `≥ ${promised}`,
        applies ? (kept ? 'yes' : 'no') : '',
        failed(item) ? `${item.check!.error.toExponential(0)}, too much` : (item.check?.error.toExponential(0) ?? ''),
      ]
    }),
  )
}

if (process.argv[1] !== undefined && import.meta.filename === resolve(process.argv[1])) {
  const document = readFileSync(DOCUMENT, 'utf8')
  const made = withTables(document)
  if (process.argv.includes('--check')) {
    if (made !== document) {
      console.error('docs/performance.md does not show bench/results: run `npm run bench:report`')
      process.exitCode = 1
    }
  } else if (made !== document) writeFileSync(DOCUMENT, made)
}
