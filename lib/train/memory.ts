/**
 * How much memory a run will take, before it takes it. Weights, parameters and moments are counted from the shapes before anything is
 * loaded; the activations of the largest micro-batch are the engine's own count.
 */
import type { ModelSpec } from '../native/spec.js'
import type { Trainer } from '../native/handles.js'
import type { NativeTrainMemory, NativeTrainOptions } from '../native/types.js'
import { ImplexError } from '../core/errors.js'
import type { LargestBatch } from './batches.js'

/** Bytes. */
export interface MemoryEstimate extends NativeTrainMemory {
  /** A copy of the model in f32 while it is saved, which may take the place of the activations. */
  saving: number
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
  const { all, trained } = countElements(spec, train)
  const moments = momentsOf(train.optimizer)
  const bytes = {
    weights: all * (dtype === 'f32' ? 4 : 2),
    parameters: trained * 8,
    moments: trained * 4 * moments,
    activations: 0,
  }
  check({ ...bytes, saving: all * 4 }, available, dtype)
}

/** The estimate for the largest micro-batch. @throws ImplexError ERR_OUT_OF_MEMORY naming the numbers and what to reduce */
export function checkRunMemory(
  trainer: Pick<Trainer, 'memory'>,
  spec: ModelSpec,
  dtype: 'f32' | 'bf16',
  largest: LargestBatch,
  available: number,
): MemoryEstimate {
  return check(
    { ...trainer.memory(largest.tokens, largest.rows), saving: modelElements(spec) * 4 },
    available,
    dtype,
    largest,
  )
}

function check(
  parts: NativeTrainMemory & { saving: number },
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
      ? 'take a smaller --micro-batch-tokens (option microBatchTokens), --recompute, or shorter rows'
      : `take a smaller model, --freeze parts of it, ${dtype === 'f32' ? '--dtype bf16, ' : ''}or --optimizer sgd, which has no moments`
  throw new ImplexError(
    'ERR_OUT_OF_MEMORY',
    `the training would take ${size(estimate.total)}, but ${size(available)} are free: ${pieces.join(', ')}; ${advice}`,
  )
}

function momentsOf({ kind, momentum }: NativeTrainOptions['optimizer']): number {
  if (kind === 'adamw') return 2
  return (kind === 'rmsprop' ? 1 : 0) + (momentum > 0 ? 1 : 0)
}

/** Elements of a role, with the rows that the engine adds. */
function roleElements(spec: ModelSpec, { role, shape, rows }: ModelSpec['weights'][number]): number {
  const stored = shape.reduce((product, n) => product * n, 1)
  if (rows !== undefined) return (stored / rows.stride) * rows.block
  return role === 'embedding' || role === 'unembedding' ? stored + spec.addedTokens * spec.hiddenSize : stored
}

function modelElements(spec: ModelSpec): number {
  return spec.weights.reduce((sum, weight) => sum + roleElements(spec, weight), 0)
}

function countElements(spec: ModelSpec, { frozen, objective }: NativeTrainOptions): { all: number; trained: number } {
  let trained = objective === 'explicit' && !frozen.head ? spec.hiddenSize : 0
  for (const weight of spec.weights) {
    const { role } = weight
    const fixed =
      role === 'head' ||
      (role === 'embedding'
        ? frozen.embedding || (spec.tiedEmbedding && frozen.unembedding)
        : role === 'unembedding'
          ? frozen.unembedding || objective === 'explicit'
          : role.includes('norm')
            ? frozen.norms
            : frozen.blocks)
    if (!fixed) trained += roleElements(spec, weight)
  }
  return { all: modelElements(spec), trained }
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
