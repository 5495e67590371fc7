/** Numbers that every family's config has, within bounds. */
import type { Config } from '../config.js'
import type { ModelSpec } from '../../native/spec.js'

/**
 * Bounds that no model comes near, so that a damaged number ends in a message and not in an absurd allocation. native/model/spec.cc checks
 * the same ones.
 */
export const MAX = {
  vocabulary: 1 << 24,
  width: 1 << 20,
  layers: 1 << 12,
  heads: 1 << 12,
  headDim: 1 << 12,
  positions: 1 << 26,
  experts: 1 << 12,
  factor: 1e6,
}

export function readSizes(config: Config) {
  return {
    vocabSize: config.integer('vocab_size', 1, MAX.vocabulary),
    hiddenSize: config.integer('hidden_size', 1, MAX.width),
    layers: config.integer('num_hidden_layers', 1, MAX.layers),
    heads: config.integer('num_attention_heads', 1, MAX.heads),
    intermediateSize: config.integer('intermediate_size', 1, MAX.width),
    maxPositions: config.integer('max_position_embeddings', 1, MAX.positions),
  }
}

/** For a config without `head_dim`. */
export function headDimOf(config: Config, hiddenSize: number, heads: number): number {
  if (hiddenSize % heads !== 0) {
    throw config.error('hidden_size', `must be a multiple of "num_attention_heads"; got ${hiddenSize} and ${heads}`)
  }
  return hiddenSize / heads
}

/** @param fallback for a config without the key; required where it is not given */
export function readKvHeads(config: Config, heads: number, fallback?: number): number {
  const kvHeads = config.integer('num_key_value_heads', 1, MAX.heads, fallback)
  if (heads % kvHeads === 0) return kvHeads
  throw config.error('num_key_value_heads', `must divide "num_attention_heads"; got ${kvHeads} and ${heads}`)
}

const ACTIVATIONS = new Map<string, ModelSpec['activation']>([
  ['silu', 'silu'],
  ['swish', 'silu'],
  ['gelu', 'gelu'],
  ['gelu_python', 'gelu'],
  ['gelu_new', 'gelu_tanh'],
  ['gelu_fast', 'gelu_tanh'],
  ['gelu_pytorch_tanh', 'gelu_tanh'],
  ['gelu_python_tanh', 'gelu_tanh'],
])

export function readActivation(config: Config, key: string, fallback: string): ModelSpec['activation'] {
  const activation = ACTIVATIONS.get(config.string(key, fallback))
  if (!activation) throw config.unexpected(key, `one of ${[...ACTIVATIONS.keys()].join(', ')}`)
  return activation
}

/** A number above 0 that null turns off; absent, it is `fallback`. */
export function readCap(config: Config, key: string, fallback = 0): number {
  if (config.isNull(key)) return 0
  return config.has(key) ? config.positive(key, MAX.factor) : fallback
}
