/**
 * An adapter that was opened over its base: what it does to which weight. Nothing of it is read yet but headers.
 */
import type { WeightSource } from '../../native/spec.js'
import type { AdapterSettings } from './settings.js'

/** What is added to one weight: scale · B A. Several parts of a fused projection share A and take rows of B. */
export interface LowRank {
  /** As in WeightSource. */
  role: string
  scale: number
  /** [rank, inputs] */
  a: WeightSource
  /** [outputs, rank] */
  b: WeightSource
  /** DoRA: the length of each row of W + scale · B A. */
  magnitude?: WeightSource
}

export interface Adapter {
  /** Absolute path of the folder. */
  path: string
  settings: AdapterSettings
  lowRank: LowRank[]
  /** Scale times this is added to the bias `role`. */
  biases: { role: string; scale: number; bias: WeightSource }[]
  /** The embedding's: a is [rank, tokens], b [width, rank], and scale · (B A)ᵀ is added to it. */
  embedding?: LowRank
  /** Weights that are the adapter's own, by role. */
  replaced: ReadonlyMap<string, WeightSource>
  /** Absent: the engine can add the low-rank parts while a projection computes. Else the tensor for which they must be merged. */
  mergeOnly?: string
}
