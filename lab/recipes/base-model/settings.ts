/**
 * Everything that determines the base model, apart from the corpus generators.
 */
import type { TrainOptions } from '../../../lib/train/options.js'
import type { Shape } from './model.js'

export interface Recipe {
  seed: number
  /** Number of training conversations; each is used once. */
  conversations: number
  /** Made from the next seed, to see the loss on. */
  heldOut: number
  /** Maximum number of tokens in the vocabulary. */
  vocabulary: number
  shape: Shape
  training: Pick<
    TrainOptions,
    'epochs' | 'batchPairs' | 'learningRate' | 'schedule' | 'warmupSteps' | 'adamBeta2' | 'weightDecay' | 'maxNorm'
  >
}

/** The recipe and what came of it: recipe.json beside the weights. */
export type Made = Recipe & {
  parameters: number
  /** Number of tokens in the vocabulary. */
  tokens: number
  corpus: Record<string, number>
  versions: Record<string, string>
  run: { threads: number; steps: number; tokens: number; seconds: number }
}

export const RECIPE: Recipe = {
  seed: 1,
  conversations: 40000,
  heldOut: 400,
  vocabulary: 1280,
  shape: { hidden: 128, layers: 3, heads: 4, kvHeads: 2, intermediate: 256, context: 1024 },
  training: {
    epochs: 1,
    batchPairs: 32,
    learningRate: 2e-3,
    schedule: 'cosine',
    warmupSteps: 0.05,
    adamBeta2: 0.98,
    weightDecay: 0.01,
    maxNorm: 1,
  },
}

/** The same path in a minute, to a model that has learned little. */
export const QUICK: Recipe = {
  ...RECIPE,
  conversations: 600,
  heldOut: 50,
  vocabulary: 600,
  shape: { ...RECIPE.shape, hidden: 32, layers: 2, heads: 2, kvHeads: 1, intermediate: 64 },
  training: { ...RECIPE.training, batchPairs: 32 },
}
