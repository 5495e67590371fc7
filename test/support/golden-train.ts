/**
 * Training on the golden checkpoints of ../shared/golden against float64 PyTorch: losses, every parameter's gradient, five AdamW steps.
 * What is measured and why one gradient is compared with 0: golden-train.test.ts.
 */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import * as assert from 'uvu/assert'
import { openCheckpoint, readHead } from '../../lib/checkpoint/checkpoint.js'
import type { ModelSpec } from '../../lib/native/spec.js'
import type { DeviceChoice } from '../../lib/native/device.js'
import { openTrainerOnDevice } from '../../lib/native/device.js'
import type { NativeTrainBatch, NativeTrainOptions } from '../../lib/native/types.js'
import { sharedPath } from './shared.js'
import { gradientsOf, norm, pairBatch, type Tensors, trainOptions } from './trainer.js'

export const KINDS = ['ex', 'ex_mean', 'im', 'im_noref', 'grm', 'sft'] as const
export type Kind = (typeof KINDS)[number]
const OBJECTIVES = {
  ex: 'explicit',
  ex_mean: 'explicit',
  im: 'implicit',
  im_noref: 'implicit',
  grm: 'generative',
  sft: 'sft',
} as const
export const STEPS = 5

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

export interface TrainAccuracy {
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
  fuseExperts(spec, tensors)
  const head = gradients.get('head')
  if (head !== undefined) tensors.set('score.weight', head)
  return tensors
}

/** The experts' gradients in tensors of three dimensions, as transformers 5 has the weights in memory. */
function fuseExperts({ layers }: ModelSpec, tensors: Tensors): void {
  for (const [i, { experts }] of layers.entries()) {
    if (experts === undefined) continue
    const block = `model.layers.${i}.mlp.experts`
    const fused = (...parts: string[]) => {
      const pieces: Float32Array[] = []
      for (let e = 0; e < experts.count; e++) {
        for (const part of parts) {
          const name = `${block}.${e}.${part}_proj.weight`
          pieces.push(tensors.get(name)!)
          tensors.delete(name)
        }
      }
      const whole = new Float32Array(pieces.reduce((sum, { length }) => sum + length, 0))
      let at = 0
      for (const piece of pieces) {
        whole.set(piece, at)
        at += piece.length
      }
      return whole
    }
    tensors.set(`${block}.gate_up_proj`, fused('gate', 'up'))
    tensors.set(`${block}.down_proj`, fused('down'))
  }
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

/** On the device asked for and no other: 'auto' is not for tests. */
export async function measureTraining(
  architecture: string,
  kind: Kind,
  choice: DeviceChoice = { device: 'cpu', dtype: 'f32' },
  change: Partial<NativeTrainOptions> = {},
): Promise<TrainAccuracy> {
  const folder = sharedPath(join('golden', architecture))!
  const golden = JSON.parse(readFileSync(join(folder, 'expected.json'), 'utf8')) as Golden
  const { spec } = await openCheckpoint(join(folder, 'model'))
  const objective = OBJECTIVES[kind]
  const explicit = objective === 'explicit'
  const { model: trainer } = await openTrainerOnDevice(
    spec,
    choice,
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
  const result: TrainAccuracy = {
    architecture,
    kind,
    parameters: 0,
    loss: 0,
    norm: 0,
    worst: '',
    head: 0,
    steps: 0,
    final: 0,
  }
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

export function trainingRow({ architecture, kind, parameters, worst, ...errors }: TrainAccuracy): string {
  const { loss, norm, head, zero, steps, final, rewards } = errors
  const numbers = [loss, norm].map(short).concat(`\`${worst}\``, [head, zero, steps, final, rewards].map(short))
  return `| ${[architecture, kind, String(parameters), ...numbers].join(' | ')} |`
}
