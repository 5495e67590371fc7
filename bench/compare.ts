/**
 * Two result files of the same benchmark: each case of the second is faster, slower or noise.
 *
 *   node dist/bench/compare.js A.json B.json
 *
 * The ratio is B's median time over A's, with its 95% bootstrap interval. The exit status is 1 when a case is slower.
 */
import { failed, readResult } from './suites/result.js'
import { ratioOfMedians, verdict } from './suites/statistics.js'
import { short, table } from './suites/table.js'

const files = process.argv.slice(2)
if (files.length !== 2) {
  console.error('usage: compare A.json B.json')
  process.exit(2)
}
try {
  const [a, b] = await Promise.all([readResult(files[0]!), readResult(files[1]!)])
  if (a.machine.cpu !== b.machine.cpu || a.machine.threads !== b.machine.threads) {
    console.error('The two were measured on different machines or thread counts: the ratios say little of the code.')
  }
  const rows: string[][] = []
  let slower = 0
  for (const item of b.cases) {
    const before = a.cases.find(({ name }) => name === item.name)
    if (before === undefined || failed(item) || failed(before)) {
      rows.push([item.name, '-', '-', before === undefined ? 'new' : 'failed'])
      continue
    }
    const ratio = ratioOfMedians(before.samples, item.samples)
    const found = verdict(ratio)
    if (found === 'slower') slower++
    rows.push([item.name, short(ratio.value), `${short(ratio.low)} to ${short(ratio.high)}`, found])
  }
  for (const { name } of a.cases) {
    if (!b.cases.some((item) => item.name === name)) rows.push([name, '-', '-', 'gone'])
  }
  process.stdout.write(table(['case', 'B / A', '95% interval', 'B is'], rows))
  process.exitCode = slower > 0 ? 1 : 0
} catch (error) {
  console.error(error instanceof Error ? error.message : error)
  process.exitCode = 2
}
