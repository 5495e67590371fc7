/**
 * The test runner: every compiled test file, and the native tests, each in a process of its own, so that a crash or a hang costs one file.
 *
 *   node dist/test/run.js [-v] [NAME…]
 *
 * NAME: only files whose path contains it (`native` is the native tests). -v: show all output. IMPLEX_TEST_TIMEOUT: seconds per file (300).
 * The last line is `N passed, N failed, N skipped`; the exit status is 1 when something failed.
 */
import { type Outcome, runProgram } from './support/child.js'
import { findTestFiles, nativeProgram, scriptProgram } from './support/programs.js'

const verbose = process.argv.includes('-v')
const names = process.argv.slice(2).filter((argument) => argument !== '-v')
const timeout = Number(process.env.IMPLEX_TEST_TIMEOUT ?? 300)
const wanted = (name: string) => names.length === 0 || names.some((part) => name.includes(part))

const total = { passed: 0, failed: 0, skipped: 0 }

function report(name: string, outcome: Outcome): void {
  const { passed, failed, skips, seconds, problem, output } = outcome
  total.passed += passed
  total.failed += failed
  total.skipped += skips.length
  if (failed > 0 && !verbose) console.log(output.trimEnd())
  const counts = [`${passed} passed`, failed > 0 && `${failed} failed`, skips.length > 0 && `${skips.length} skipped`]
  const mark = failed > 0 ? 'FAIL' : 'ok'
  console.log(`${mark.padEnd(4)} ${name}: ${counts.filter(Boolean).join(', ')} (${seconds.toFixed(1)} s)`)
  if (problem !== undefined) console.log(`     ${name} ${problem}`)
  for (const text of skips) console.log(`     skipped: ${text}`)
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
    programs.unshift(native)
  }
}

for (const program of programs) report(program.name, await runProgram(program, timeout, verbose))

if (total.passed + total.failed + total.skipped === 0) {
  console.log(`no test matches ${names.join(', ')}`)
  total.failed += 1
}
console.log(`${total.passed} passed, ${total.failed} failed, ${total.skipped} skipped`)
process.exitCode = total.failed > 0 ? 1 : 0
