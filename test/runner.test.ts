/** The test runner counts what uvu and node do not tell by themselves: crashes, hangs, skips, suites that never ran. */
import { existsSync } from 'node:fs'
import { dirname } from 'node:path'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { type Outcome, runProgram } from './support/child.js'
import { parseNative, parseUvu, suitesNotRun } from './support/programs.js'

const runner = suite('runner')

/** Runs JavaScript in a child process, as a program whose output is a native test's. */
function runScript(script: string, timeout = 60): Promise<Outcome> {
  return runProgram(
    { name: 'script', command: process.execPath, args: ['-e', script], parse: parseNative },
    timeout,
    false,
  )
}

const uvuSummary = (total: number, passed: number, skipped: number) =>
  `\n  Total:     ${total}\n  Passed:    ${passed}\n  Skipped:   ${skipped}\n  Duration:  1.00ms\n`

runner('counts a skip inside a test as skipped, not as passed', () => {
  const counts = parseUvu(` name  • \nSKIP a.test.ts:7: no GPU: none\n• ${uvuSummary(2, 2, 0)}`)
  assert.equal(counts, { passed: 1, failed: 0, skips: ['a.test.ts:7: no GPU: none'] })
})

runner('counts a skip outside of tests without taking from the passed ones', () => {
  const counts = parseUvu(`\nSKIP a.test.ts: no folder${uvuSummary(2, 2, 0)}`)
  assert.equal(counts, { passed: 2, failed: 0, skips: ['a.test.ts: no folder'] })
})

runner('counts tests that a throwing hook kept from running as failed', () => {
  assert.is(parseUvu(uvuSummary(3, 0, 0)).failed, 3)
})

runner('counts tests that uvu itself skipped', () => {
  assert.is(parseUvu(uvuSummary(1, 1, 2)).skips.length, 2)
})

runner('finds suites that are never run', () => {
  const source = "const a = suite('a');\nconst b = suite('b');\na('x', () => {});\nb.run();\n"
  assert.equal(suitesNotRun(source), ['a'])
})

runner('reads the native tests', async () => {
  const outcome = await runScript("console.log('ok x\\nFAIL y: 1 != 2\\nskip z: no device'); process.exit(1)")
  assert.is(outcome.passed, 1)
  assert.is(outcome.failed, 1)
  assert.equal(outcome.skips, ['z: no device'])
})

runner('fails a program that reports no tests', async () => {
  const outcome = await runScript('0')
  assert.is(outcome.failed, 1)
  assert.match(outcome.problem ?? '', 'no tests')
})

runner('fails a program that crashes after its tests passed', async () => {
  const outcome = await runScript("console.log('ok x'); process.kill(process.pid, 'SIGSEGV')")
  assert.is(outcome.failed, 1)
  assert.match(outcome.problem ?? '', 'SIGSEGV')
})

runner('fails a program that exits with an error though its tests passed', async () => {
  assert.is((await runScript("console.log('ok x'); process.exit(1)")).failed, 1)
})

runner('kills a program that hangs, and its children', async () => {
  // The grandchild holds the output pipe, so the outcome comes only when it is gone too.
  const outcome = await runScript(
    "require('node:child_process').spawn('sleep', ['60'], { stdio: 'inherit' }); setInterval(() => {}, 1e6)",
    2,
  )
  assert.match(outcome.problem ?? '', 'ran past 2 s')
  assert.ok(outcome.seconds < 30, `took ${outcome.seconds} s`)
})

runner('leaves no temporary files of a program that is killed', async () => {
  const make = "const path = require('node:fs').mkdtempSync(require('node:os').tmpdir() + '/left-')"
  const { output } = await runScript(`${make}; console.log(path); process.kill(process.pid, 'SIGKILL')`)
  const path = output.trim()
  assert.match(path, /left-\w+$/)
  assert.not.ok(existsSync(path) || existsSync(dirname(path)))
})

runner.run()
