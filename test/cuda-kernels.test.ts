/**
 * What the CUDA assembler makes of the kernels: the checked-in report is of these sources and shows no stack and no spills; where nvcc is
 * found, the head's sm_90a kernel is compiled again, which a wrong step serializes or spills first.
 */
import { spawnSync } from 'node:child_process'
import { join } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { repositoryRoot } from './support/shared.js'
import { skip } from './support/skip.js'

function report(...args: string[]): { status: number | null; text: string } {
  const { status, stdout, stderr } = spawnSync(
    process.execPath,
    [join(repositoryRoot, 'scripts', 'ptxas-report.mjs'), ...args],
    { encoding: 'utf8' },
  )
  return { status, text: stdout + stderr }
}

test('no kernel has a stack or spills', () => {
  const { status, text } = report('--check')
  assert.is(status, 0, text)
})

test('the sm_90a head compiles without warnings, stack or spills', () => {
  if (spawnSync('nvcc', ['--version']).error) return skip('nvcc was not found')
  const { status, text } = report('--compile', 'linear_logprob_hopper')
  assert.is(status, 0, text)
})

test('a file that is not there is refused', () => {
  assert.is(report('--compile', 'nothing').status, 2)
})

test.run()
