/**
 * What the theorems ask of the engine: sequences of token ids scored and trained with fixed hidden states.
 */
import { pack } from '../../../lib/data/pack.js'
import type { ModelSpec } from '../../../lib/native/spec.js'
import { openOnDevice, openTrainerOnDevice } from '../../../lib/native/device.js'
import type { Model, Trainer } from '../../../lib/native/handles.js'
import type { NativeBatch, NativeTrainBatch, NativeTrainOptions } from '../../../lib/native/types.js'
import type { ExperimentConduct } from '../options.js'

/** A prompt and two responses, in token ids. */
export interface IdPair {
  prompt: number[]
  chosen: number[]
  rejected: number[]
}

export class TheoryEngine {
  constructor(
    readonly spec: ModelSpec,
    readonly device: ExperimentConduct['device'],
    readonly signal?: AbortSignal,
  ) {}

  async with<T>(use: (model: Model) => Promise<T>, spec = this.spec): Promise<T> {
    using model = (await openOnDevice(spec, { device: this.device, dtype: 'f32' }, this.signal)).model
    return await use(model)
  }

  /** See readoutDescent(). */
  async training<T>(
    objective: 'explicit' | 'implicit',
    parts: DescentParts,
    use: (trainer: Trainer) => Promise<T>,
  ): Promise<T> {
    const choice = { device: this.device, dtype: 'f32' } as const
    using trainer = (await openTrainerOnDevice(this.spec, choice, readoutDescent(objective, parts))).model
    return await use(trainer)
  }

  /** [sequences][D]: the hidden state at the end of each, after the final norm. */
  hidden(sequences: readonly number[][]): Promise<Float64Array[]> {
    const { hiddenSize } = this.spec
    return this.with(async (model) => {
      const { values } = await model.score(sequenceBatch(sequences, 'hidden_last'), this.signal)
      return sequences.map((_, i) => values.slice(i * hiddenSize, (i + 1) * hiddenSize))
    })
  }
}

interface DescentParts {
  /** Defaults to 1. */
  beta?: number
  head?: Float32Array
}

/** Plain gradient descent on the head alone (explicit) or the unembedding alone (implicit): hidden states are fixed. */
export function readoutDescent(
  objective: 'explicit' | 'implicit',
  { beta = 1, head }: DescentParts = {},
): NativeTrainOptions {
  const explicit = objective === 'explicit'
  return {
    objective,
    pool: 'last',
    beta,
    lengthNormalized: false,
    labelSmoothing: 0,
    centering: 0,
    optimizer: { kind: 'sgd', beta1: 0, beta2: 0, epsilon: 1e-8, weightDecay: 0, weightDecayOn: 'all', momentum: 0 },
    frozen: { embedding: true, blocks: true, norms: true, unembedding: explicit, head: !explicit },
    recompute: false,
    head,
  }
}

/** Sequences that share nothing. */
export function sequenceBatch(sequences: readonly number[][], readout: NativeBatch['readout']): NativeBatch {
  return { ...pack([{ prompt: [], responses: sequences }]), readout }
}

export function pairBatch(pairs: readonly IdPair[], gradients = true): NativeTrainBatch {
  const groups = pairs.map(({ prompt, chosen, rejected }) => ({ prompt, responses: [chosen, rejected] }))
  return { ...pack(groups), scale: 1 / pairs.length, gradients }
}
