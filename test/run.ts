/**
 * The test runner: every compiled test file, and the native tests, each in a process of its own, so that a crash or a hang costs one file.
 *
 *   node dist/test/run.js [-v] [--jobs N] [--times FILE] [NAME…]
 *
 * NAME: only files whose path contains it (`native` is the native tests). -v: show all output, one file at a time. --jobs: files at once
 * (default 2, or 1 on a single core). --times: write each file's wall and processor seconds into FILE as JSON; test/times.json, made this
 * way, is read to start the longest files first. IMPLEX_TEST_TIMEOUT: seconds per file (300).
 * The last line is `N passed, N failed, N skipped`; the exit status is 1 when something failed.
 */
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { type Outcome, type Program, runProgram } from './support/child.js'
import { findTestFiles, nativeProgram, scriptProgram } from './support/programs.js'
import { repositoryRoot } from './support/shared.js'

const { values: options, positionals: names } = parseArgs({
  allowPositionals: true,
  options: {
    verbose: { type: 'boolean', short: 'v', default: false },
    jobs: { type: 'string', default: String(Math.min(2, availableParallelism())) },
    times: { type: 'string' },
  },
})
const timeout = Number(process.env.IMPLEX_TEST_TIMEOUT ?? 300)
const wanted = (name: string) => names.length === 0 || names.some((part) => name.includes(part))

interface Times {
  seconds: number
  cpuSeconds?: number
}

const total = { passed: 0, failed: 0, skipped: 0 }
const times: Record<string, Times> = {}

function report(name: string, outcome: Outcome): void {
  const { passed, failed, skips, seconds, cpuSeconds, problem, output } = outcome
  total.passed += passed
  total.failed += failed
  total.skipped += skips.length
  const tenths = (value: number) => Math.round(value * 10) / 10
  times[name] = { seconds: tenths(seconds), ...(cpuSeconds !== undefined && { cpuSeconds: tenths(cpuSeconds) }) }
  if (failed > 0 && !options.verbose) console.log(output.trimEnd())
  const counts = [`${passed} passed`, failed > 0 && `${failed} failed`, skips.length > 0 && `${skips.length} skipped`]
  const mark = failed > 0 ? 'FAIL' : 'ok'
  console.log(`${mark.padEnd(4)} ${name}: ${counts.filter(Boolean).join(', ')} (${seconds.toFixed(1)} s)`)
  if (problem !== undefined) console.log(`     ${name} ${problem}`)
  for (const text of skips) console.log(`     skipped: ${text}`)
}

/** The longest first, so that all jobs end at about the same time; what was never timed before those. */
function longestFirst(programs: Program[]): Program[] {
  const path = join(repositoryRoot, 'test', 'times.json')
  const known: Record<string, Times> = existsSync(path) ? JSON.parse(readFileSync(path, 'utf8')) : {}
  const seconds = ({ name }: Program) => known[name]?.cpuSeconds ?? known[name]?.seconds ?? Number.MAX_VALUE
  return programs.toSorted((a, b) => seconds(b) - seconds(a))
}

const programs = findTestFiles()
  .map(scriptProgram)
  .filter((program) => wanted(program.name))

if (wanted('native')) {
  const native = nativeProgram()
  if ('absent' in native) {
    report('native', { passed: 0, failed: 0, skips: [`native tests: ${native.absent}`], output: '', seconds: 0 })
  } else if ('broken' in native) {
    report('native', { passed: 0, failed: 1, skips: [], output: native.broken, seconds: 0, problem: 'did not build' })
  } else {
    programs.push(native)
  }
}

const queue = longestFirst(programs)
const jobs = options.verbose ? 1 : Math.max(1, Number(options.jobs))
await Promise.all(
  Array.from({ length: jobs }, async () => {
    for (let program = queue.shift(); program !== undefined; program = queue.shift())
      report(program.name, await runProgram(program, timeout, options.verbose))
  }),
)

if (total.passed + total.failed + total.skipped === 0) {
  console.log(`no test matches ${names.join(', ')}`)
  total.failed += 1
}
if (options.times !== undefined) {
  const sorted = Object.fromEntries(Object.entries(times).sort(([a], [b]) => (a < b ? -1 : 1)))
  writeFileSync(options.times, `${JSON.stringify(sorted, null, 2)}\n`)
}
console.log(`${total.passed} passed, ${total.failed} failed, ${total.skipped} skipped`)
process.exitCode = total.failed > 0 ? 1 : 0
