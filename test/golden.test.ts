/**
 * The golden checkpoints, fifteen architectures: token ids, every reward against float64 within the contract, and the same bits whatever the
 * number of threads. Measures and bounds: support/golden.ts. The bits of other batches: golden-bits.test.ts.
 */
import { execFile } from 'node:child_process'
import { existsSync, readdirSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import type { DType } from '../lib/native/device.js'
import { nativeInfo } from '../lib/native/handles.js'
import { nativeLocation } from '../lib/native/load.js'
import { RowEncoder } from '../lib/text/text-encoder.js'
import {
  type Accuracy,
  ARCHITECTURES,
  type Architecture,
  BOUNDS,
  errorTable,
  type Golden,
  golden,
  MEASURES,
  measure,
} from './support/golden.js'
import type { GoldenReport } from './support/golden-child.js'
import { responseIds } from './support/encoded.js'
import { repositoryRoot, sharedPath } from './support/shared.js'
import { skip } from './support/skip.js'

/** What f32 leaves unused of the contract (it is near 1e-6): a kernel that loses digits shows before it breaks a promise. */
const F32_EXPECTED = 1e-5

const test = suite('golden')
const measured: Partial<Record<DType, Partial<Record<Architecture, Accuracy>>>> = { f32: {}, bf16: {} }

function checkErrors({ errors }: Accuracy, dtype: DType, what: string): void {
  for (const name of MEASURES) {
    const bound = dtype === 'f32' ? Math.min(F32_EXPECTED, BOUNDS.f32[name]) : BOUNDS[dtype][name]
    assert.ok(errors[name] <= bound, `${what}, ${dtype}, ${name}: ${errors[name]} is beyond ${bound}`)
  }
}

async function child(environment: Record<string, string>, ...dtypes: DType[]): Promise<GoldenReport> {
  const script = join(import.meta.dirname, 'support', 'golden-child.js')
  const { stdout } = await promisify(execFile)(process.execPath, [script, ...dtypes], {
    env: { ...process.env, ...environment },
  })
  return JSON.parse(stdout) as GoldenReport
}

function ofEach(name: string, run: (architecture: Architecture, files: Golden) => Promise<void>): void {
  for (const architecture of ARCHITECTURES) {
    test(`${architecture}: ${name}`, async () => {
      const files = golden(architecture)
      return files === undefined ? skip('../shared/golden is absent') : run(architecture, files)
    })
  }
}

ofEach('token ids', async (_, { path, reference, pairs }) => {
  for (const folder of [path, reference]) {
    const encoder = await RowEncoder.load({ path: folder, kind: 'generative' })
    for (const { prompt, chosen, rejected, ids } of pairs) {
      assert.equal([...encoder.encodePrompt(prompt)], ids.prompt)
      assert.equal([...responseIds(encoder, prompt, chosen)], ids.chosen)
      assert.equal([...responseIds(encoder, prompt, rejected)], ids.rejected)
      assert.equal([...encoder.encodeVerification(prompt, chosen)], ids.grm_chosen)
      assert.equal([...encoder.encodeVerification(prompt, rejected)], ids.grm_rejected)
    }
  }
})

for (const dtype of ['f32', 'bf16'] as const) {
  ofEach(`rewards in ${dtype}`, async (architecture, files) => {
    const accuracy = await measure(files, dtype)
    measured[dtype]![architecture] = accuracy
    checkErrors(accuracy, dtype, architecture)
  })
}

test.after(() => {
  for (const [dtype, results] of Object.entries(measured)) {
    const rows = Object.entries(results)
    if (rows.length > 0) console.log(`\n${dtype}\n${errorTable(rows.map(([name, { errors }]) => [name, errors]))}`)
  }
})

test('bits do not depend on the number of threads', async () => {
  if (sharedPath('golden') === undefined) return skip('../shared/golden is absent')
  for (const threads of [1, 2, 5]) {
    const report = await child({ IMPLEX_THREADS: String(threads) }, 'f32', 'bf16')
    assert.is(report.threads, threads)
    assert.is(report.results.length, 2 * ARCHITECTURES.length)
    for (const { architecture, dtype, accuracy } of report.results) {
      const here = measured[dtype]?.[architecture]
      assert.is(accuracy.digest, here?.digest, `${architecture}, ${dtype}, ${threads} threads`)
    }
  }
})

for (const kernels of ['baseline', 'avx2', 'avx512']) {
  test(`rewards with the ${kernels} kernels`, async () => {
    if (sharedPath('golden') === undefined) return skip('../shared/golden is absent')
    if (!nativeInfo().cpu.available.includes(kernels)) return skip(`this processor or build has no ${kernels} kernels`)
    const report = await child({ IMPLEX_KERNELS: kernels }, 'f32')
    assert.is(report.kernels, kernels)
    for (const { architecture, dtype, accuracy } of report.results)
      checkErrors(accuracy, dtype, `${architecture} with ${kernels}`)
  })
}

for (const folder of ['build', 'build-cmake']) {
  const path = join(repositoryRoot, folder, 'Release', 'implex.node')
  if (nativeLocation().path === path) continue
  test(`rewards of the build in ${folder}`, async () => {
    if (sharedPath('golden') === undefined) return skip('../shared/golden is absent')
    if (!existsSync(path)) return skip(`${folder} holds no build`)
    if (statSync(path).mtimeMs < newestSource()) return skip(`the build in ${folder} is older than the sources`)
    const report = await child({ IMPLEX_NATIVE: path }, 'f32', 'bf16')
    assert.is(report.builder, folder === 'build' ? 'node-gyp' : 'cmake')
    for (const { architecture, dtype, accuracy } of report.results)
      checkErrors(accuracy, dtype, `${architecture} of ${folder}`)
  })
}

function newestSource(): number {
  const folder = join(repositoryRoot, 'native')
  const files = readdirSync(folder, { recursive: true, encoding: 'utf8' }).filter((name) => !name.startsWith('test'))
  return Math.max(...files.map((name) => statSync(join(folder, name)).mtimeMs))
}

test.run()
