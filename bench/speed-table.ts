/**
 * The README's table of speed against PyTorch, from the records of bench/peers (docs/performance.md has each in full).
 */
import { readFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import type { BenchCase, BenchResult } from './suites/result.js'
import { short } from './suites/table.js'
import { markdown } from './markdown.js'

const RESULTS = resolve(import.meta.dirname, '..', '..', 'bench', 'results')
const RECORDS = ['peers', 'peers_avx2']

/** One row per workload and PyTorch variant, one column per record (named after its kernel set). Cells: PyTorch's median time / implex's. */
export function speedTable(): string {
  const records = RECORDS.map((name) => JSON.parse(readFileSync(join(RESULTS, `${name}.json`), 'utf8')) as BenchResult)
  const names = new Set(records.flatMap(({ cases }) => cases.filter(isContest).map(({ name }) => name)))
  const rows = Array.from(names, (name) => {
    const [work, against] = name.split(': ') as [string, string]
    const ratios = records.map(({ cases }) => cases.find((item) => item.name === name)?.values?.ratio)
    return [work, against, ...ratios.map((ratio) => (ratio === undefined ? '' : short(ratio)))]
  })
  const head = ['workload', 'PyTorch variant', ...records.map(({ machine }) => machine.kernels)]
  return markdown(head, rows, 2)
}

/** Whether the case compares a whole task with PyTorch. Single matrix products and implex against itself are left out. */
function isContest({ name, values }: BenchCase): boolean {
  return values?.ratio !== undefined && / (plain|tuned)$/.test(name)
}
