/**
 * Training against float64 PyTorch: losses, every parameter's gradient and five AdamW steps, for six architectures and six objectives.
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
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { openCheckpoint, readHead } from '../lib/checkpoint/checkpoint.js'
import type { ModelSpec } from '../lib/checkpoint/spec.js'
import { type NativeTrainBatch, type NativeTrainOptions, openTrainer } from '../lib/native/binding.js'
import { CPU } from './support/engine.js'
import { sharedPath } from './support/shared.js'
import { skip } from './support/skip.js'
import { gradientsOf, norm, pairBatch, type Tensors, trainOptions } from './support/trainer.js'

const ARCHITECTURES = ['llama', 'llama3', 'qwen2', 'qwen3', 'gpt_neox', 'gpt_neox_serial']
const KINDS = ['ex', 'ex_mean', 'im', 'im_noref', 'grm', 'sft'] as const
type Kind = (typeof KINDS)[number]
const OBJECTIVES = {
  ex: 'explicit',
  ex_mean: 'explicit',
  im: 'implicit',
  im_noref: 'implicit',
  grm: 'generative',
  sft: 'sft',
} as const
const BOUND = 1e-3
const STEPS = 5

interface Golden {
  beta_in_losses: number
  yes_id: number
  no_id: number
  pairs: {
    ids: Record<'prompt' | 'chosen' | 'rejected' | 'grm_chosen' | 'grm_rejected', number[]>
    logp: { ref: { chosen: number; rejected: number } }
  }[]
  loss: Record<Kind, number>
  grad: Record<Kind, Record<string, { norm: number; head: number[] }>>
  train: Record<Kind, { lr: number; losses: number[]; final_loss: number; rewards_after: [number, number][] | null }>
}

interface Case {
  architecture: string
  kind: Kind
  parameters: number
  loss: number
  norm: number
  worst: string
  head: number
  /** Largest gradient that should be 0, against the largest of all; undefined where there is none. */
  zero?: number
  steps: number
  final: number
  rewards?: number
}

/** The gradient of each tensor of the file, put together from the weights that are parts of it. */
function byTensor(spec: ModelSpec, gradients: Tensors): Tensors {
  const tensors: Tensors = new Map()
  for (const { role, tensor, shape, rows } of spec.weights) {
    const part = gradients.get(role)
    if (part === undefined) continue
    if (rows === undefined) {
      // transformers 5 calls it so in every model; in files GPT-NeoX still has embed_out.
      tensors.set(role === 'unembedding' ? 'lm_head.weight' : tensor, part)
      continue
    }
    const columns = shape[1] ?? 1
    const whole = tensors.get(tensor) ?? new Float32Array(shape[0]! * columns).fill(Number.NaN)
    for (let i = 0; i < part.length / columns; i++) {
      const row = rows.start + Math.floor(i / rows.block) * rows.stride + (i % rows.block)
      whole.set(part.subarray(i * columns, (i + 1) * columns), row * columns)
    }
    tensors.set(tensor, whole)
  }
  const head = gradients.get('head')
  if (head !== undefined) tensors.set('score.weight', head)
  return tensors
}

function batchOf(golden: Golden, kind: Kind): NativeTrainBatch {
  const responses = golden.pairs.map(({ ids }) =>
    kind === 'grm' ? { prompt: [], chosen: ids.grm_chosen, rejected: ids.grm_rejected } : ids,
  )
  const reference = Float64Array.from(golden.pairs.flatMap(({ logp: { ref } }) => [ref.chosen, ref.rejected]))
  return pairBatch(responses, OBJECTIVES[kind], kind === 'im' ? { reference } : {})
}

const relative = (actual: number, expected: number) => Math.abs(actual - expected) / Math.abs(expected)
const mean = (values: ArrayLike<number>) => Array.from(values).reduce((sum, value) => sum + value, 0) / values.length

async function measure(architecture: string, kind: Kind, change: Partial<NativeTrainOptions> = {}): Promise<Case> {
  const folder = sharedPath(join('golden', architecture))!
  const golden = JSON.parse(readFileSync(join(folder, 'expected.json'), 'utf8')) as Golden
  const { spec } = await openCheckpoint(join(folder, 'model'))
  const objective = OBJECTIVES[kind]
  const explicit = objective === 'explicit'
  const trainer = await openTrainer(
    spec,
    CPU,
    trainOptions({
      objective,
      pool: kind === 'ex_mean' ? 'mean' : 'last',
      beta: golden.beta_in_losses,
      yesToken: golden.yes_id,
      noToken: golden.no_id,
      ...(explicit ? { head: await readHead(join(folder, 'score.safetensors'), spec.hiddenSize) } : {}),
      ...change,
    }),
  )
  const batch = batchOf(golden, kind)
  const { lr, losses, final_loss, rewards_after } = golden.train[kind]
  const result: Case = { architecture, kind, parameters: 0, loss: 0, norm: 0, worst: '', head: 0, steps: 0, final: 0 }
  const shiftInvariant = explicit && spec.weights.some(({ role }) => role === 'final_norm_bias')

  for (let step = 0; step < STEPS; step++) {
    const loss = mean((await trainer.accumulate(batch)).losses)
    if (step === 0) {
      result.loss = relative(loss, golden.loss[kind])
      const tensors = byTensor(spec, await gradientsOf(trainer))
      const expected = golden.grad[kind]
      assert.equal([...tensors.keys()].sort(), Object.keys(expected).sort(), 'the same parameters are trained')
      const largest = Math.max(...Object.values(expected).map((gradient) => gradient.norm))
      for (const [name, reference] of Object.entries(expected)) {
        const gradient = tensors.get(name)!
        result.parameters++
        if (shiftInvariant && name.endsWith('final_layer_norm.bias')) {
          result.zero = Math.max(norm(gradient), reference.norm) / largest
          continue
        }
        const error = relative(norm(gradient), reference.norm)
        // `!(… <= …)` so that NaN counts as the worst.
        if (!(error <= result.norm)) Object.assign(result, { norm: error, worst: name })
        const head = norm(reference.head.map((value, i) => gradient[i]! - value)) / reference.norm
        if (!(head <= result.head)) result.head = head
      }
    }
    result.steps = Math.max(result.steps, relative(loss, losses[step]!))
    await trainer.step({ learningRate: lr, maxNorm: 0 })
  }
  const after = await trainer.accumulate({ ...batch, gradients: false })
  result.final = relative(mean(after.losses), final_loss)
  if (rewards_after !== null) {
    const expected = rewards_after.flat()
    const differences = Array.from(after.rewards, (reward, i) => reward - expected[i]!)
    const shift = shiftInvariant ? mean(differences) : 0
    const size = Math.max(...expected.map(Math.abs))
    result.rewards = Math.max(...differences.map((difference) => Math.abs(difference - shift))) / size
  }
  trainer.dispose()
  return result
}

const short = (value: number | undefined) => (value === undefined ? '—' : value.toExponential(1))

function tableRow({ architecture, kind, parameters, worst, ...errors }: Case): string {
  const { loss, norm, head, zero, steps, final, rewards } = errors
  const numbers = [loss, norm].map(short).concat(`\`${worst}\``, [head, zero, steps, final, rewards].map(short))
  return `| ${[architecture, kind, String(parameters), ...numbers].join(' | ')} |`
}

async function writeTable(): Promise<void> {
  console.log(
    '| architecture | objective | parameters | loss | worst gradient norm | of | worst gradient head | gradient that is 0 | losses of 5 steps | final loss | rewards after |',
  )
  console.log('|---|---|---:|---:|---:|---|---:|---:|---:|---:|---:|')
  for (const architecture of ARCHITECTURES) {
    for (const kind of KINDS) console.log(tableRow(await measure(architecture, kind)))
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
        const result = await measure(architecture, kind)
        console.log(tableRow(result))
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
