/** The GPU benchmark at its smallest on the CPU, and what it says of its promises. */
import { spawnSync } from 'node:child_process'
import { join } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { flopsPerToken, type Target, targets } from '../bench/gpu/targets.js'
import { sizeOfShape } from '../bench/suites/checkpoint.js'
import { prepareModel, readPairs } from '../bench/suites/models.js'
import { REAL_SHAPES, scaledDown } from '../bench/suites/real-shapes.js'
import { type BenchCase, readResult } from '../bench/suites/result.js'
import { realTokens, ScoringWorkload, uniform } from '../bench/suites/workload.js'
import { repositoryRoot } from './support/shared.js'
import { temporaryFolder } from './support/tmp.js'

const folder = temporaryFolder()

const body = { matrices: 1e9, layers: 16, attentionWidth: 2048 }
const input = { model: 'M', body, length: 2048 }
const kept = (list: readonly Target[], part: string) => list.find(({ what }) => what.includes(part))!.kept

const item = (name: string, seconds: number, more: Partial<BenchCase> = {}): BenchCase => ({
  name,
  samples: [seconds, seconds, seconds],
  work: {},
  ...more,
})

test('promises: kept, broken, not measured', () => {
  const cases = (forward: number, both: number) => [
    item('logits product 4096x1000x64', 1),
    item('three products 4096x1000x64', 3),
    item('logprob 4096x1000x64', forward, { check: { error: 1e-8, limit: 1e-2, against: 'x' } }),
    item('logprob fwd+bwd 4096x1000x64', both, { check: { error: 2e-3, limit: 1e-2, against: 'x' } }),
  ]
  const good = targets({ ...input, cases: cases(1.2, 4) })
  assert.is(kept(good, '/ product'), true)
  assert.is(kept(good, '/ products'), true)
  assert.is(kept(good, 'nat/512'), true)
  assert.is(kept(good, 'gradients'), true)
  assert.is(kept(good, 'of peak'), undefined)
  const bad = targets({ ...input, cases: cases(1.3, 4.1) })
  assert.is(kept(bad, '4096x1000x64 / product'), false)
  assert.is(kept(bad, '/ products'), false)
})

test('promises: a wrong result has no time', () => {
  const wrong = { check: { error: 1, limit: 1e-2, against: 'x' } }
  const cases = [item('logits product 4096x1000x64', 1), item('logprob 4096x1000x64', 0.1, wrong)]
  assert.is(kept(targets({ ...input, cases }), '/ product'), undefined)
})

test('promises: small heads against reading the weights, models against the best of the other side', () => {
  const tokens = 1e6
  const cases = [
    item('copy 1 GiB', 1e-3, { work: { bytes: 2e9 } }),
    item('product 8192x8192x8192', 1, { work: { flops: 4 * tokens * flopsPerToken(body, 2048) } }),
    item('logprob 64x1000000x1000', 1.4e-3),
    item('M explicit scoring, S=2048: ours', 0.5, { work: { tokens } }),
    item('M implicit scoring: ours', 1),
    item('M implicit scoring: eager', 3),
    item('M implicit scoring: compile', 1.9),
    item('M explicit training step: ours', 1),
    item('M explicit training step: eager', 2.5),
  ]
  const list = targets({ ...input, cases })
  assert.is(kept(list, "weights' read"), true)
  assert.is(kept(list, 'of peak'), true)
  assert.is(kept(list, 'implicit / transformers'), false, 'the quicker of the two counts')
  assert.is(kept(list, 'train explicit'), true)
  assert.is(kept(list, 'train implicit'), undefined)
})

test('a run of the heads writes a result', async () => {
  const out = join(folder, 'gpu.json')
  const script = join(repositoryRoot, 'dist', 'bench', 'gpu', 'run.js')
  const args = [script, '--device', 'cpu', '--tiny', '--only', 'heads', '--out', out]
  const { status, stdout, stderr } = spawnSync(process.execPath, args, { encoding: 'utf8' })
  assert.is(status, 0, stderr)
  for (const line of stdout.split('\n')) assert.ok(line.length <= 80, line)
  const { what, cases, targets: list } = await readResult(out)
  assert.is(what, 'gpu')
  assert.is(cases.length, 10)
  assert.ok(list!.some((target) => target.what.includes('gradients') && target.kept === true))
})

test('checkpoints of real shapes open, in bf16, with each family', async () => {
  const { pairs, folder: made } = await readPairs({ pairs: 2, folder })
  for (const [name, shape] of Object.entries(REAL_SHAPES)) {
    const size = sizeOfShape(`${name}-tiny`, scaledDown(shape))
    const { rows, options } = await prepareModel(size, { pairs, folder: made, device: 'cpu', dtype: 'bf16' })
    using workload = await ScoringWorkload.open('explicit', options)
    const same = uniform(rows, { count: 3, length: 65 })
    assert.is(realTokens(same), 3 * 65)
    const scored = await workload.score(same)
    assert.ok(
      scored.every(({ rewards }) => Number.isFinite(rewards![0])),
      name,
    )
  }
})

test.run()
