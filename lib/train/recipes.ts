/**
 * Named sets of defaults, which come before those of option-table.ts and after the options that are given. docs/trl.md compares them.
 */
import type { RecipeName, TrainKind, TrainSettings } from './options.js'

interface Recipe {
  /** The one kind that it is for. */
  kind?: TrainKind
  defaults: Partial<TrainSettings>
}

/** What RewardConfig and DPOConfig have in common. */
const TRL = {
  schedule: 'linear',
  maxNorm: 1,
  epochs: 3,
  batchPairs: 8,
  weightDecayOn: 'matrices',
  maxLength: 1024,
  seed: 42,
} as const

export const RECIPES: Readonly<Record<RecipeName, Recipe>> = {
  paper: { defaults: {} },
  'trl-reward': { kind: 'explicit', defaults: { ...TRL, learningRate: 1e-4, onLong: 'skip' } },
  'trl-dpo': { kind: 'implicit', defaults: { ...TRL, learningRate: 1e-6, beta: 0.1, onLong: 'truncate-end' } },
}
