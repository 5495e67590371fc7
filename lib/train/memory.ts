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

/** @throws ImplexError ERR_OUT_OF_MEMORY when the model alone is beyond `available`; before it is loaded */
export function checkModelMemory(
  spec: ModelSpec,
  dtype: 'f32' | 'bf16',
  train: NativeTrainOptions,
  available: number,
): void {
  check(trainMemory(spec, { device: 'cpu', dtype }, train), available, dtype)
}

/** The estimate for the largest micro-batch. @throws ImplexError ERR_OUT_OF_MEMORY naming the numbers and what to reduce */
export function checkRunMemory(
  trainer: Pick<Trainer, 'memory'>,
  dtype: 'f32' | 'bf16',
  largest: LargestBatch,
  available: number,
): MemoryEstimate {
  return check(trainer.memory(largest.tokens, largest.rows), available, dtype, largest)
}

function check(
  parts: NativeTrainMemory,
  available: number,
  dtype: 'f32' | 'bf16',
  largest?: LargestBatch,
): MemoryEstimate {
  const fixed = parts.weights + parts.parameters + parts.moments
  const estimate = { ...parts, total: fixed + Math.max(parts.activations, parts.saving), available }
  if (estimate.total <= available) return estimate
  const pieces = [
    `weights ${size(parts.weights)}`,
    `parameters and gradients ${size(parts.parameters)}`,
    `the optimizer's moments ${size(parts.moments)}`,
    parts.activations > parts.saving && largest
      ? `activations of a micro-batch of ${largest.tokens} tokens ${size(parts.activations)}`
      : `a copy of the model while it is saved ${size(parts.saving)}`,
  ]
  const advice =
    parts.activations > parts.saving
      ? 'use a smaller --micro-batch-tokens (option microBatchTokens), --recompute, or shorter rows'
      : `use a smaller model, --freeze parts of it, ${dtype === 'f32' ? '--dtype bf16, ' : ''}or --optimizer sgd, which has no moments`
  throw new ImplexError(
    'ERR_OUT_OF_MEMORY',
    `the training run needs ${size(estimate.total)}, but only ${size(available)} are free: ${pieces.join(', ')}; ${advice}`,
  )
}

function size(bytes: number): string {
  for (const [unit, scale] of [
    ['GiB', 2 ** 30],
    ['MiB', 2 ** 20],
  ] as const) {
    if (bytes >= scale) return `${(bytes / scale).toFixed(1)} ${unit}`
  }
  return `${Math.ceil(bytes / 1024)} KiB`
}
