/**
 * Training against float64 PyTorch: losses, every parameter's gradient and five AdamW steps, for fifteen architectures and six objectives.
 *
 * `node dist/test/golden-train.test.js --table` writes the errors as a Markdown table instead.
 *
 * Bounds (design, "Numerical contract"): gradients 1e-3 relative, in norm and in the first eight elements; losses of five steps 1e-3.
 *
 * Bradley-Terry over a linear head does not change when all rewards shift together, and the bias of GPT-NeoX's final norm shifts them
 * all by head · bias, so its gradient is exactly 0. Whatever number stands there is rounding, in the reference as here, and AdamW
 * divides it by its own size: every step moves the bias by the learning rate in directions that rounding chose. So that one gradient is
 * compared with 0, and the rewards after five steps up to one shift that all of them share. The losses do not see the shift.
 */
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { ARCHITECTURES } from './support/golden.js'
import { KINDS, measureTraining, STEPS, trainingRow } from './support/golden-train.js'
import { sharedPath } from './support/shared.js'
import { skip } from './support/skip.js'

const BOUND = 1e-3

async function writeTable(): Promise<void> {
  console.log(
    '| architecture | objective | parameters | loss | worst gradient norm | of | worst gradient head | gradient that is 0 | losses of 5 steps | final loss | rewards after |',
  )
  console.log('|---|---|---:|---:|---:|---|---:|---:|---:|---:|---:|')
  for (const architecture of ARCHITECTURES) {
    for (const kind of KINDS) console.log(trainingRow(await measureTraining(architecture, kind)))
  }
}

const absent = sharedPath('golden') === undefined
if (absent) skip('../shared/golden is absent')
else if (process.argv.includes('--table')) await writeTable()
else {
  const golden = suite('golden training')
  for (const architecture of ARCHITECTURES) {
    for (const kind of KINDS) {
      golden(`${architecture} ${kind}`, async () => {
        const result = await measureTraining(architecture, kind)
        console.log(trainingRow(result))
        assert.ok(result.loss <= BOUND, `loss: ${result.loss}`)
        assert.ok(result.norm <= BOUND, `norm of the gradient of ${result.worst}: ${result.norm}`)
        assert.ok(result.head <= BOUND, `first elements of a gradient: ${result.head}`)
        assert.ok((result.zero ?? 0) <= 1e-6, `a gradient that should be 0: ${result.zero}`)
        assert.ok(result.steps <= BOUND, `losses of ${STEPS} steps: ${result.steps}`)
        assert.ok(result.final <= BOUND, `loss after ${STEPS} steps: ${result.final}`)
        assert.ok((result.rewards ?? 0) <= BOUND, `rewards after ${STEPS} steps: ${result.rewards}`)
      })
    }
  }
  golden.run()
}
