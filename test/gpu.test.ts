/**
 * The GPU tests: run where the CUDA device opens, reported as skipped with the reason where it does not. How they read what programs print
 * is tested everywhere.
 */
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { readCases, summary } from './gpu/cases.js'
import { parityCases } from './gpu/parity.js'
import { finish } from './gpu/programs.js'
import { cudaAbsent, gpuTests } from './gpu/run.js'
import { verdict } from './gpu/sanitize.js'
import { repositoryRoot, sharedPath } from './support/shared.js'
import { skip } from './support/skip.js'

const gpu = suite('gpu')

gpu('CUDA against the CPU and float64', async () => {
  const absent = cudaAbsent()
  if (absent !== undefined) return skip(absent)
  const cases = await gpuTests({ device: 'cuda', only: ['parity', 'models', 'graphs'], seconds: 280, sanitizePart: '' })
  console.log(summary(cases))
  assert.equal(
    cases.filter(({ outcome }) => outcome === 'failed'),
    [],
  )
})

// Modules that call themselves CUDA and compute on the CPU, one of them wrongly: the way to the device, and whether a fault shows.
for (const [module, outcome] of [
  ['implex_test_device_cuda', 'passed'],
  ['implex_test_device_cuda_wrong', 'failed'],
] as const) {
  gpu(`whole models on ${module}`, async () => {
    const folder = process.env.IMPLEX_TEST_DEVICES ?? join(repositoryRoot, 'build-native', 'native', 'test', 'device')
    const path = join(folder, `${module}.so`)
    if (!existsSync(path)) return skip(`there is no ${path}: the native tests are not built`)
    if (sharedPath('golden') === undefined) return skip('../shared/golden is absent')
    const script = join(import.meta.dirname, 'gpu', 'models.js')
    for (const part of ['qwen3 f32: rewards', 'qwen3 f32: training im_noref', 'stories260K f32']) {
      const { output } = await finish(process.execPath, [script, 'cuda', part], 100, { IMPLEX_CUDA: path })
      assert.equal(
        readCases(output).map((item) => item.outcome),
        [outcome],
        output,
      )
    }
  })
}

gpu('reads the comparison of operations', () => {
  const good = parityCases('device cuda: x\nok gemm.values 126 0.31\nok norm.rows 3 0\n2 passed, 0 failed\n', 0, false)
  assert.equal(
    good.map(({ name, outcome, worst }) => [name, outcome, worst]),
    [
      ['gemm.values', 'passed', 0.31],
      ['norm.rows', 'passed', 0],
    ],
  )
  const bad = parityCases('FAIL gemm.values: [x.cc:1] off\n0 passed, 1 failed\n', 1, false)
  assert.equal(bad, [{ suite: 'parity', name: 'gemm.values', outcome: 'failed', detail: '[x.cc:1] off' }])
  for (const [output, status, late] of [
    ['ok gemm.values 1 0\n', null, false],
    ['ok gemm.values 1 0\n', null, true],
    ['unavailable: no device\n', 2, false],
    ['0 passed, 0 failed\n', 2, false],
  ] as const) {
    assert.ok(
      parityCases(output, status, late).some(({ outcome }) => outcome === 'failed'),
      output,
    )
  }
})

gpu('reads compute-sanitizer', () => {
  const clean = '12 passed, 0 failed\n========= ERROR SUMMARY: 0 errors\n'
  assert.is(verdict('memcheck', clean, 0, false).outcome, 'passed')
  const race = '12 passed, 0 failed\n========= RACECHECK SUMMARY: 0 hazards displayed (0 errors, 0 warnings)\n'
  assert.is(verdict('racecheck', race, 0, false).outcome, 'passed')
  assert.is(verdict('racecheck', race.replace('0 hazards', '2 hazards'), 9, false).outcome, 'failed')
  assert.is(verdict('memcheck', '========= ERROR SUMMARY: 3 errors\n', 9, false).outcome, 'failed')
  assert.is(verdict('memcheck', '========= ERROR SUMMARY: 0 errors\n', 0, false).outcome, 'failed')
  assert.is(verdict('memcheck', '11 passed, 1 failed\n========= ERROR SUMMARY: 0 errors\n', 1, false).outcome, 'failed')
  assert.is(verdict('memcheck', 'not found', 1, false).outcome, 'failed')
  assert.is(verdict('memcheck', clean, 0, true).outcome, 'skipped')
})

gpu.run()
