/**
 * The golden checkpoints, fifteen architectures: token ids, every reward against float64 within the contract, and the same bits whatever the
 * batch, its order, its size, the sharing of prompts and the number of threads. Measures and bounds: support/golden.ts.
 */
import { execFile } from 'node:child_process'
import { existsSync, readdirSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { openCheckpoint } from '../lib/checkpoint/checkpoint.js'
import type { Row } from '../lib/data/rows.js'
import type { DType } from '../lib/native/device.js'
import { nativeInfo, openModel } from '../lib/native/handles.js'
import { nativeLocation } from '../lib/native/load.js'
import { RewardModel } from '../lib/models/reward-model.js'
import { RowEncoder } from '../lib/text/text-encoder.js'
import {
  type Accuracy,
  ARCHITECTURES,
  type Architecture,
  BOUNDS,
  errorTable,
  type Golden,
  golden,
  kindsOf,
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

for (const dtype of ['f32', 'bf16'] as const) {
  ofEach(`${dtype} bits do not depend on the batch`, async (_, files) => {
    const rows: Row[] = files.pairs.map(({ prompt, chosen, rejected }) => ({ prompt, chosen, rejected }))
    for (const [kind, options] of Object.entries(kindsOf(files))) {
      using model = await RewardModel.open(files.path, { ...options, dtype })
      const { rewards } = await model.score(rows)
      const same = (actual: number[][], what: string, rowOf = (at: number) => at) => {
        for (const [at, values] of actual.entries()) {
          const expected = rewards[rowOf(at)]!
          for (const [k, value] of values.entries())
            assert.ok(Object.is(value, expected[k]), `${kind}, row ${rowOf(at)}, ${what}: ${value} and ${expected[k]}`)
        }
      }
      const alone: number[][] = []
      for (const row of rows) alone.push((await model.score([row])).rewards[0]!)
      same(alone, 'alone')
      const last = rows.length - 1
      same((await model.score([...rows].reverse())).rewards, 'in reverse', (at) => last - at)
      const stride = (at: number) => (at * 5 + 3) % rows.length
      const strided = Array.from({ length: 3 * rows.length }, (_, at) => rows[stride(at)]!)
      same((await model.score(strided)).rewards, 'in another order, three times', stride)
      for (const batchTokens of [1, 61, 128, 1000]) {
        same((await model.score(rows, { batchTokens })).rewards, `batchTokens ${batchTokens}`)
      }
      const single = files.pairs.flatMap(({ prompt, chosen, rejected }): Row[] => [
        { prompt, responses: [chosen] },
        { prompt, responses: [rejected] },
      ])
      const apart = (await model.score(single)).rewards.flat()
      same(
        rows.map((_, i) => apart.slice(2 * i, 2 * i + 2)),
        'prompt not shared',
      )
      const groups = files.pairs.map(
        ({ prompt, chosen, rejected }): Row => ({ prompt, responses: [chosen, rejected, prompt, chosen] }),
      )
      const four = (await model.score(groups)).rewards
      same(
        four.map((values) => values.slice(0, 2)),
        'in a group of four',
      )
      same(
        four.map((values) => values.slice(3)),
        'twice in a group',
      )
    }
  })
}

ofEach('a sequence has the same bits in one segment and as prompt and response', async (_, { path, pairs }) => {
  const model = await openModel((await openCheckpoint(path)).spec, { device: 'cpu', dtype: 'f32' })
  for (const { ids } of pairs) {
    const tokens = Int32Array.from([...ids.prompt, ...ids.chosen])
    const readout = { tokens, readout: 'logprob', tokenLogprobs: true } as const
    const [p, c] = [ids.prompt.length, ids.chosen.length]
    const segments = Int32Array.of(0, p, -1, p, c, 0)
    const split = await model.score({ ...readout, segments, scored: Int32Array.of(1) })
    const whole = await model.score({ ...readout, segments: Int32Array.of(0, p + c, -1), scored: Int32Array.of(0) })
    assert.equal([...split.tokenLogprobs!], [...whole.tokenLogprobs!].slice(p))
  }
  model.dispose()
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
