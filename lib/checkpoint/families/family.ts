/**
 * What a model family is: how a config.json becomes the numbers of a ModelSpec, and under which names the weights are stored.
 */
import type { Config } from '../config.js'
import type { ModelSpec, RowSelection } from '../../native/spec.js'

/** The part of a ModelSpec that does not depend on the weight files. */
export type Architecture = Omit<ModelSpec, 'weights' | 'addedTokens' | 'tiedEmbedding'>

/** One tensor of the file. Fused projections have several parts, each with its own role. */
export interface TensorRule {
  /** Name below the layer's prefix for tensors of a layer, below the body's prefix for all others. */
  name: string
  /** Shape in the file. */
  shape: number[]
  parts: TensorPart[]
}

export interface TensorPart {
  role: string
  /** For a tensor of three dimensions: the place in the first one of the matrix that has this part. */
  slab?: number
  rows?: RowSelection
}

/** Tensors that writers store in one of several ways; the first name of each tells them apart, and the first way is the usual one. */
export interface Alternatives {
  oneOf: TensorRule[][]
}

export type LayerRules = (TensorRule | Alternatives)[]

export interface Family {
  /** Published models of this family, for the documents. */
  opens: string
  /** What its config may not ask for, beyond what no family can do; for the documents. */
  refuses?: string
  /**
   * @param note is told what a user must know of the model, each a sentence
   * @throws ImplexError ERR_CONFIG_INVALID naming the key
   */
  read(config: Config, note: (sentence: string) => void): Architecture
  /** Keys that transformers does not read in this family. */
  unused?: readonly string[]
  /** What transformers takes for absent keys, where the config lies inside that of a vision-language model, which leaves them out. */
  defaults?: Readonly<Record<string, unknown>>
  /** Class names in transformers, without "ForCausalLM" and "ForSequenceClassification". */
  classes: { causal: string; classifier?: string }
  /** Comes before the body's names, except in a checkpoint of the bare body. */
  prefix: string
  /** Others that are read too, in the order in which they are tried. */
  otherPrefixes?: readonly string[]
  embedding: string
  /** Full names, any of which may be used. */
  unembedding: readonly string[]
  /** Tensors after the last layer. */
  final(a: Architecture): TensorRule[]
  /** Tensors of layer `i`, below `layers.<i>.`. */
  layer(a: Architecture, i: number, config: Config): LayerRules
}

export const rule = (role: string, name: string, ...shape: number[]): TensorRule => ({ name, shape, parts: [{ role }] })

/** With the usual way of every tensor that may be stored in several. */
export function usualRules(rules: LayerRules): TensorRule[] {
  return rules.flatMap((one) => ('oneOf' in one ? one.oneOf[0]! : [one]))
}
