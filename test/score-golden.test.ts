/**
 * The golden checkpoints: token ids and every reward of six architectures against float64 PyTorch, through the public API.
 *
 * f32: log-probabilities within 1e-4 relative (design, "Numerical contract"); a reward that is a difference is measured
 * against the size of what it is made of, and one that is a projection u·h, h being normed, against |u|. bf16: weights have 8 bits of mantissa, so a product of two carries up to 2^-8 relative error;
 * errors of the terms are independent, so a sum over a response stays well below 2 %, which is the bound here.
 */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { openCheckpoint, readHead } from '../lib/checkpoint/checkpoint.js'
import type { DType } from '../lib/device.js'
import { RewardModel, type RewardModelOptions } from '../lib/reward-model.js'
import { RowEncoder } from '../lib/text/text-encoder.js'
import { sharedPath } from './support/shared.js'
import { skip } from './support/skip.js'

interface GoldenPair {
  prompt: string
  chosen: string
  rejected: string
  ids: Record<'prompt' | 'chosen' | 'rejected' | 'grm_chosen' | 'grm_rejected', number[]>
  logp: Record<'policy' | 'ref', Record<'chosen' | 'rejected', number>>
  token_logp: Record<'chosen' | 'rejected', number[]>
  ex_last: number[]
  ex_mean: number[]
  im: Record<string, number[]>
  grm_yes: number[]
}

const ARCHITECTURES = ['llama', 'llama3', 'qwen2', 'qwen3', 'gpt_neox', 'gpt_neox_serial']
const RELATIVE: Record<DType, number> = { f32: 1e-4, bf16: 2e-2 }
const SIDES = ['chosen', 'rejected'] as const

/** Worst |actual - expected| / scale over all pairs and sides. */
function worst(
  pairs: GoldenPair[],
  actual: number[][],
  expected: (pair: GoldenPair) => number[],
  scale: (pair: GoldenPair, k: number) => number,
) {
  const errors = pairs.flatMap((pair, i) =>
    expected(pair).map((value, k) => Math.abs(actual[i]![k]! - value) / scale(pair, k)),
  )
  return Math.max(...errors)
}

const golden = suite('golden rewards')
if (sharedPath('golden') === undefined) skip('../shared/golden is absent')
else {
  for (const architecture of ARCHITECTURES) {
    const folder = sharedPath(join('golden', architecture))!
    const path = join(folder, 'model')
    const pairs = (JSON.parse(readFileSync(join(folder, 'expected.json'), 'utf8')) as { pairs: GoldenPair[] }).pairs
    const scored = async (options: RewardModelOptions) => {
      using model = await RewardModel.open(path, { device: 'cpu', cache: false, ...options })
      return (await model.score(pairs, { tokenLogprobs: options.kind === 'implicit' })).rows
    }
    const rewards = async (options: RewardModelOptions) => (await scored(options)).map((row) => row.rewards)

    golden(`${architecture}: token ids`, async () => {
      const encoder = await RowEncoder.load({ path })
      for (const { prompt, chosen, rejected, ids } of pairs) {
        assert.equal([...encoder.encodePrompt(prompt)], ids.prompt)
        assert.equal([...encoder.encodeResponse(prompt, chosen)], ids.chosen)
        assert.equal([...encoder.encodeResponse(prompt, rejected)], ids.rejected)
        assert.equal([...encoder.encodeVerification(prompt, chosen)], ids.grm_chosen)
        assert.equal([...encoder.encodeVerification(prompt, rejected)], ids.grm_rejected)
      }
    })

    for (const dtype of ['f32', 'bf16'] as const) {
      golden(`${architecture}: rewards in ${dtype}`, async () => {
        const bound = RELATIVE[dtype]
        const head = join(folder, 'score.safetensors')
        const logp = (pair: GoldenPair, k: number) => Math.abs(pair.logp.policy[SIDES[k]!])
        const headNorm = Math.hypot(...(await readHead(head, (await openCheckpoint(path)).spec.hiddenSize)))

        const implicit = await scored({ kind: 'implicit', reference: join(folder, 'ref'), beta: 0.1, dtype })
        const errors = {
          logp: worst(
            pairs,
            implicit.map((row) => row.logprobs!),
            (pair) => SIDES.map((side) => pair.logp.policy[side]),
            logp,
          ),
          ref: worst(
            pairs,
            implicit.map((row) => row.referenceLogprobs!),
            (pair) => SIDES.map((side) => pair.logp.ref[side]),
            logp,
          ),
          im: worst(
            pairs,
            implicit.map((row) => row.rewards),
            (pair) => pair.im['0.1']!,
            (pair, k) => 0.1 * 2 * logp(pair, k),
          ),
          ex_last: worst(
            pairs,
            await rewards({ kind: 'explicit', head, dtype }),
            (pair) => pair.ex_last,
            () => headNorm,
          ),
          ex_mean: worst(
            pairs,
            await rewards({ kind: 'explicit', pool: 'mean', head, dtype }),
            (pair) => pair.ex_mean,
            () => headNorm,
          ),
          // p(Yes) = exp(ln p): an absolute error of ln p is a relative one of p.
          grm_yes: worst(
            pairs,
            await rewards({ kind: 'generative', dtype }),
            (pair) => pair.grm_yes,
            (pair, k) => pair.grm_yes[k]! * -Math.log(pair.grm_yes[k]!),
          ),
        }
        const list = Object.entries(errors).map(([name, error]) => `${name} ${error.toExponential(1)}`)
        console.log(`\n  ${architecture} ${dtype}: ${list.join(', ')}`)
        for (const [name, error] of Object.entries(errors))
          assert.ok(error <= bound, `${name}: ${error} is beyond ${bound}`)
        for (const [i, row] of implicit.entries()) {
          for (const [k, terms] of row.tokenLogprobs!.entries()) {
            const expected = pairs[i]!.token_logp[SIDES[k]!]
            assert.is(terms.length, expected.length)
            for (const [t, term] of terms.entries())
              assert.ok(Math.abs(term - expected[t]!) <= bound * Math.max(1, Math.abs(expected[t]!)))
          }
        }
      })
    }
  }
}
golden.run()
