/** Five AdamW steps on the reference checkpoints: every loss, the rewards after them, as PyTorch has them in float64. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { RewardModel } from '../lib/models/reward-model.js'
import type { TrainOptions } from '../lib/train/options.js'
import { train } from '../lib/train/train.js'
import { ARCHITECTURES } from './support/golden.js'
import { sharedPath } from './support/shared.js'
import { skip } from './support/skip.js'
import { temporaryFolder } from './support/tmp.js'
import { metricsOf } from './support/train.js'

interface Golden {
  beta_in_losses: number
  pairs: { prompt: string; chosen: string; rejected: string }[]
  train: Record<string, { lr: number; losses: number[]; final_loss: number; rewards_after: [number, number][] | null }>
}

const folder = temporaryFolder()
const golden = suite('golden training')

for (const name of ARCHITECTURES) {
  golden(`${name}: losses before each of five steps and after them, and rewards`, async () => {
    const path = sharedPath(`golden/${name}`)
    if (path === undefined) return skip(`../shared/golden/${name} is absent`)
    const {
      beta_in_losses: beta,
      pairs,
      train: expected,
    } = JSON.parse(readFileSync(join(path, 'expected.json'), 'utf8')) as Golden
    const model = join(path, 'model')
    const reference = join(path, 'ref')
    const head = join(path, 'score.safetensors')
    const rows = pairs.map(({ prompt, chosen, rejected }) => ({ prompt, chosen, rejected }))
    const kinds: Record<string, Pick<TrainOptions, 'kind' | 'pool' | 'head' | 'reference' | 'beta'>> = {
      ex: { kind: 'explicit', head },
      ex_mean: { kind: 'explicit', head, pool: 'mean' },
      im: { kind: 'implicit', reference, beta },
      im_noref: { kind: 'implicit', reference: 'none', beta },
      grm: { kind: 'generative' },
      sft: { kind: 'sft' },
    }
    for (const [objective, options] of Object.entries(kinds)) {
      const { lr, losses, final_loss: last, rewards_after: after } = expected[objective]!
      const { out, model: saved } = await train(model, rows, {
        ...options,
        out: join(folder, `${name}-${objective}`),
        learningRate: lr,
        epochs: losses.length,
        evaluateEpochs: losses.length,
        batchPairs: rows.length,
        checkpointSteps: 1000,
        device: 'cpu',
        cache: false,
        evaluation: { same: rows },
      })
      const lines = metricsOf(out)
      const near = (value: number, reference: number, what: string) =>
        assert.ok(
          Math.abs(value - reference) <= 1e-3 * Math.max(Math.abs(reference), 1e-2),
          `${objective}, ${what}: ${value}, expected ${reference}`,
        )
      const steps = lines.filter((line) => line.evaluation === undefined)
      assert.is(steps.length, losses.length)
      for (const [i, { loss }] of steps.entries()) near(loss, losses[i]!, `step ${i + 1}`)
      near(lines.at(-1)!.loss, last, 'after the last step')
      if (after === null || options.kind === 'sft') continue
      using rm = await RewardModel.open(saved!, {
        ...(options.kind === 'explicit' ? { kind: 'explicit', pool: options.pool } : { kind: 'implicit', beta }),
        ...(objective === 'im' ? { reference } : {}),
        device: 'cpu',
        cache: false,
      })
      const { rewards } = await rm.score(rows)
      // A bias of the final norm moves all rewards alike, so its gradient is 0 but for rounding, which AdamW turns into whole steps:
      // margins are as close as losses, rewards are less.
      const scale = Math.max(...after.flat().map(Math.abs))
      const worst = Math.max(...rewards.flatMap((pair, i) => pair.map((r, k) => Math.abs(r - after[i]![k]!)))) / scale
      if (process.env.IMPLEX_VERBOSE !== undefined) console.log(name, objective, `rewards ${worst.toExponential(1)}`)
      for (const [i, [a, b]] of (rewards as [number, number][]).entries()) {
        const [c, d] = after[i]!
        assert.ok(Math.abs(a - b - (c - d)) < 1e-3 * scale, `${objective}: margin ${a - b}, expected ${c - d}`)
      }
      assert.ok(worst < 5e-3, `${objective}: rewards differ by ${worst} of the largest`)
    }
  })
}
golden.run()
