/**
 * How much memory a run will take, before it takes it. The engine counts: weights, parameters and moments before anything is loaded, the
 * activations of the largest micro-batch after.
 */
import type { ModelSpec } from '../native/spec.js'
import { type Trainer, trainMemory } from '../native/handles.js'
import type { NativeTrainMemory, NativeTrainOptions } from '../native/types.js'
import { ImplexError } from '../core/errors.js'
import type { LargestBatch } from './batches.js'

/** Bytes. */
export interface MemoryEstimate extends NativeTrainMemory {
  /** `saving` may take the place of the activations. */
  total: number
  available: number
}

/** What the advice depends on. */
export interface MemoryChoices {
  spec: ModelSpec
  dtype: 'f32' | 'bf16'
  recompute: boolean
}

/** @throws ImplexError ERR_OUT_OF_MEMORY when the model alone is beyond `available`; before it is loaded */
export function checkModelMemory(choices: MemoryChoices, train: NativeTrainOptions, available: number): void {
  const { spec, dtype } = choices
  check(trainMemory(spec, { device: 'cpu', dtype }, train), available, choices)
}

/** The estimate for the largest micro-batch. @throws ImplexError ERR_OUT_OF_MEMORY naming the numbers and what to reduce */
export function checkRunMemory(
  trainer: Pick<Trainer, 'memory'>,
  choices: MemoryChoices,
  largest: LargestBatch,
  available: number,
): MemoryEstimate {
  return check(trainer.memory(largest.tokens, largest.rows), available, choices, largest)
}

function check(
  found: NativeTrainMemory,
  available: number,
  choices: MemoryChoices,
  largest?: LargestBatch,
): MemoryEstimate {
  const parts = { ...found, saving: savingBytes(found, choices.spec) }
  const fixed = parts.weights + parts.parameters + parts.moments
  const estimate = { ...parts, total: fixed + Math.max(parts.activations, parts.saving), available }
  if (estimate.total <= available) return estimate
  const adapter = isAdapter(choices.spec)
  const pieces = [
    `weights ${size(parts.weights)}`,
    `${adapter ? "the adapter's numbers" : 'parameters'} and gradients ${size(parts.parameters)}`,
    `the optimizer's moments ${size(parts.moments)}`,
    parts.activations > parts.saving && largest
      ? `activations of a micro-batch of ${largest.tokens} tokens ${size(parts.activations)}`
      : `a copy of the ${adapter ? 'adapter' : 'model'} while it is saved ${size(parts.saving)}`,
  ]
  const advice = adviceFor(parts, available, choices, largest !== undefined)
  throw new ImplexError(
    'ERR_OUT_OF_MEMORY',
    `the training run needs ${size(estimate.total)}, but only ${size(available)} are free: ${pieces.join(', ')}; ${advice}`,
  )
}

function isAdapter({ adapters }: ModelSpec): boolean {
  return adapters !== undefined && adapters.length > 0
}

/** An adapter is saved without the model. The engine counts values and gradients together. */
function savingBytes({ saving, parameters }: NativeTrainMemory, spec: ModelSpec): number {
  if (!isAdapter(spec)) return saving
  const tables = spec.addedTokens === 0 ? 0 : 4 * (spec.vocabSize + spec.addedTokens) * spec.hiddenSize
  return Math.max(parameters / 2, tables)
}

/** What would make the run fit, from what changes least. */
function adviceFor(
  { weights, activations, saving }: NativeTrainMemory,
  available: number,
  { spec, dtype, recompute }: MemoryChoices,
  batchKnown: boolean,
): string {
  const advice: string[] = []
  const adapter = isAdapter(spec)
  if (batchKnown && activations > saving) {
    advice.push('use a smaller --micro-batch-tokens (option microBatchTokens)')
    if (!recompute) advice.push('--recompute (option recompute), which keeps the inputs of layers alone')
    advice.push('or shorter rows')
    if (!adapter) advice.push(`or ${LORA}`)
    return advice.join(', ')
  }
  // Weights alone are all that an adapter cannot do without.
  if (!adapter && weights <= available) advice.push(LORA)
  advice.push('use a smaller model')
  if (!adapter) advice.push('--freeze parts of it')
  if (dtype === 'f32') advice.push('--dtype bf16')
  advice.push('or --optimizer sgd, which has no moments')
  return advice.join(', ')
}

const LORA = '--lora-rank 16 (option loraRank), which keeps gradients and moments of an adapter alone'

function size(bytes: number): string {
  for (const [unit, scale] of [
    ['GiB', 2 ** 30],
    ['MiB', 2 ** 20],
  ] as const) {
    if (bytes >= scale) return `${(bytes / scale).toFixed(1)} ${unit}`
  }
  return `${Math.ceil(bytes / 1024)} KiB`
}
