/**
 * The golden checkpoints: the same bits whatever the batch, its order, its size and the sharing of prompts. Errors against float64 and the
 * number of threads: golden.test.ts.
 */
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { openCheckpoint } from '../lib/checkpoint/checkpoint.js'
import type { Row } from '../lib/data/rows.js'
import { openModel } from '../lib/native/handles.js'
import { RewardModel } from '../lib/models/reward-model.js'
import { ARCHITECTURES, type Architecture, type Golden, golden, kindsOf } from './support/golden.js'
import { skip } from './support/skip.js'

const test = suite('golden bits')

function ofEach(name: string, run: (architecture: Architecture, files: Golden) => Promise<void>): void {
  for (const architecture of ARCHITECTURES) {
    test(`${architecture}: ${name}`, async () => {
      const files = golden(architecture)
      return files === undefined ? skip('../shared/golden is absent') : run(architecture, files)
    })
  }
}

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

test.run()
