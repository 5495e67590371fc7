/**
 * Model families: how a config.json becomes the numbers of a ModelSpec, and under which names the weights are stored.
 * A new family is one entry in FAMILIES; nothing else knows its name.
 */
import type { Config } from './config.js'
import { quoted } from '../core/files.js'
import { readRope } from './rope.js'
import type { ModelSpec, RowSelection } from '../native/spec.js'

/** The part of a ModelSpec that does not depend on the weight files. */
export type Architecture = Omit<ModelSpec, 'weights' | 'addedTokens' | 'tiedEmbedding'>

/** One tensor of the file. Fused projections have several parts, each with its own role. */
export interface TensorRule {
  /** Name below the layer's prefix for tensors of a layer, below the body's prefix for all others. */
  name: string
  /** Shape in the file. */
  shape: number[]
  parts: { role: string; rows?: RowSelection }[]
}

export interface Family {
  /** @throws ImplexError ERR_CONFIG_INVALID naming the key */
  read(config: Config): Architecture
  /** Comes before the body's names, except in a checkpoint of the bare body. */
  prefix: string
  embedding: string
  /** Full names, any of which may be used. */
  unembedding: readonly string[]
  /** Tensors after the last layer. */
  final(a: Architecture): TensorRule[]
  /** Tensors of each layer, below `layers.<i>.`. */
  layer(a: Architecture, config: Config): TensorRule[]
}

const rule = (role: string, name: string, ...shape: number[]): TensorRule => ({ name, shape, parts: [{ role }] })

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

function readActivation(config: Config, fallback: string): ModelSpec['activation'] {
  const activation = ACTIVATIONS.get(config.string('hidden_act', fallback))
  if (!activation) throw config.unexpected('hidden_act', `one of ${[...ACTIVATIONS.keys()].join(', ')}`)
  return activation
}

/**
 * Bounds that no model comes near, so that a damaged number ends in a message and not in an absurd allocation. native/model/spec.cc checks
 * the same ones.
 */
const MAX = {
  vocabulary: 1 << 24,
  width: 1 << 20,
  layers: 1 << 12,
  heads: 1 << 12,
  headDim: 1 << 12,
  positions: 1 << 26,
}

function readSizes(config: Config) {
  const hiddenSize = config.integer('hidden_size', 1, MAX.width)
  return {
    vocabSize: config.integer('vocab_size', 1, MAX.vocabulary),
    hiddenSize,
    layers: config.integer('num_hidden_layers', 1, MAX.layers),
    heads: config.integer('num_attention_heads', 1, MAX.heads),
    intermediateSize: config.integer('intermediate_size', 1, MAX.width),
    maxPositions: config.integer('max_position_embeddings', 1, MAX.positions),
  }
}

function headDimOf(config: Config, hiddenSize: number, heads: number): number {
  if (hiddenSize % heads !== 0) {
    throw config.error('hidden_size', `must be a multiple of "num_attention_heads"; got ${hiddenSize} and ${heads}`)
  }
  return hiddenSize / heads
}

interface LlamaLike {
  family: string
  /** Head size of a config without `head_dim`. Defaults to hidden size / heads. */
  headDim?: number
  qkNorm?: boolean
  /** Which projections of the attention have a bias: always q, k and v, or all four where the config says so. */
  bias: 'qkv' | 'attention_bias'
}

function llamaLike({ family, headDim, qkNorm = false, bias }: LlamaLike): Family {
  return {
    prefix: 'model.',
    embedding: 'embed_tokens.weight',
    unembedding: ['lm_head.weight'],
    read(config) {
      const sizes = readSizes(config)
      const dim = config.has('head_dim')
        ? config.integer('head_dim', 1, MAX.headDim)
        : (headDim ?? headDimOf(config, sizes.hiddenSize, sizes.heads))
      const kvHeads = config.integer('num_key_value_heads', 1, MAX.heads, sizes.heads)
      if (sizes.heads % kvHeads !== 0) {
        throw config.error(
          'num_key_value_heads',
          `must divide "num_attention_heads"; got ${kvHeads} and ${sizes.heads}`,
        )
      }
      if (config.boolean('mlp_bias', false)) throw config.error('mlp_bias', 'true is not supported')
      refuseSlidingWindow(config, sizes.layers, sizes.maxPositions)
      return {
        family,
        ...sizes,
        kvHeads,
        headDim: dim,
        norm: 'rms',
        normEps: config.positive('rms_norm_eps', 0.1, 1e-6),
        activation: readActivation(config, 'silu'),
        gated: true,
        parallelResidual: false,
        qkNorm,
        ...readRope(config, { headDim: dim, maxPositions: sizes.maxPositions, partial: 'whole' }),
      }
    },
    final: ({ hiddenSize: d }) => [rule('final_norm', 'norm.weight', d)],
    layer(a, config) {
      const { hiddenSize: d, intermediateSize: f } = a
      const q = a.heads * a.headDim
      const kv = a.kvHeads * a.headDim
      const rules = [
        rule('attention_norm', 'input_layernorm.weight', d),
        rule('q', 'self_attn.q_proj.weight', q, d),
        rule('k', 'self_attn.k_proj.weight', kv, d),
        rule('v', 'self_attn.v_proj.weight', kv, d),
        rule('o', 'self_attn.o_proj.weight', d, q),
        rule('mlp_norm', 'post_attention_layernorm.weight', d),
        rule('gate', 'mlp.gate_proj.weight', f, d),
        rule('up', 'mlp.up_proj.weight', f, d),
        rule('down', 'mlp.down_proj.weight', d, f),
      ]
      const all = bias === 'attention_bias' && config.boolean('attention_bias', false)
      if (bias === 'qkv' || all) {
        rules.push(
          rule('q_bias', 'self_attn.q_proj.bias', q),
          rule('k_bias', 'self_attn.k_proj.bias', kv),
          rule('v_bias', 'self_attn.v_proj.bias', kv),
        )
      }
      if (all) rules.push(rule('o_bias', 'self_attn.o_proj.bias', d))
      if (qkNorm) {
        rules.push(
          rule('q_norm', 'self_attn.q_norm.weight', a.headDim),
          rule('k_norm', 'self_attn.k_norm.weight', a.headDim),
        )
      }
      return rules
    },
  }
}

/** transformers' defaults, for a config that does not say. */
const WINDOW = { tokens: 4096, firstLayer: 28 }

/** A window that cuts in some layer is refused; one that no layer has, or that is as long as the context, changes nothing. */
function refuseSlidingWindow(config: Config, layers: number, maxPositions: number): void {
  const types = config.strings('layer_types')
  const other = types?.find((type) => type !== 'full_attention' && type !== 'sliding_attention')
  if (other !== undefined) throw config.error('layer_types', `has ${quoted(other)}, which is not supported`)
  const uses = config.boolean('use_sliding_window', false)
  const first = uses ? config.integer('max_window_layers', 0, MAX.layers, WINDOW.firstLayer) : layers
  const slides =
    types === undefined ? first < layers && !config.isNull('sliding_window') : types.includes('sliding_attention')
  if (!slides) return
  // A window that the config does not use has no length of its own either.
  const fallback = uses ? WINDOW.tokens : 1
  const tokens = config.integer('sliding_window', 1, MAX.positions, fallback)
  if (tokens >= maxPositions) return
  if (types === undefined)
    throw config.error('use_sliding_window', `true is not supported (a window of ${tokens} tokens)`)
  throw config.error('layer_types', `other than "full_attention" are not supported (a window of ${tokens} tokens)`)
}

const gptNeox: Family = {
  prefix: 'gpt_neox.',
  embedding: 'embed_in.weight',
  // transformers renames the first to the second when it loads.
  unembedding: ['embed_out.weight', 'lm_head.weight'],
  read(config) {
    const sizes = readSizes(config)
    const headDim = headDimOf(config, sizes.hiddenSize, sizes.heads)
    return {
      family: 'gpt_neox',
      ...sizes,
      kvHeads: sizes.heads,
      headDim,
      norm: 'layer',
      normEps: config.positive('layer_norm_eps', 0.1, 1e-5),
      activation: readActivation(config, 'gelu'),
      gated: false,
      parallelResidual: config.boolean('use_parallel_residual', true),
      qkNorm: false,
      ...readRope(config, { headDim, maxPositions: sizes.maxPositions, partial: 0.25 }),
    }
  },
  final: ({ hiddenSize: d }) => [
    rule('final_norm', 'final_layer_norm.weight', d),
    rule('final_norm_bias', 'final_layer_norm.bias', d),
  ],
  layer(a, config) {
    const { hiddenSize: d, intermediateSize: f, headDim } = a
    // Rows of the fused projection: for each head its q, then its k, then its v.
    const fused = (suffix: string) =>
      ['q', 'k', 'v'].map((part, i) => ({
        role: part + suffix,
        rows: { start: i * headDim, block: headDim, stride: 3 * headDim },
      }))
    const rules = [
      rule('attention_norm', 'input_layernorm.weight', d),
      rule('attention_norm_bias', 'input_layernorm.bias', d),
      { name: 'attention.query_key_value.weight', shape: [3 * d, d], parts: fused('') },
      rule('o', 'attention.dense.weight', d, d),
      rule('mlp_norm', 'post_attention_layernorm.weight', d),
      rule('mlp_norm_bias', 'post_attention_layernorm.bias', d),
      rule('up', 'mlp.dense_h_to_4h.weight', f, d),
      rule('up_bias', 'mlp.dense_h_to_4h.bias', f),
      rule('down', 'mlp.dense_4h_to_h.weight', d, f),
      rule('down_bias', 'mlp.dense_4h_to_h.bias', d),
    ]
    if (config.boolean('attention_bias', true)) {
      rules.push(
        { name: 'attention.query_key_value.bias', shape: [3 * d], parts: fused('_bias') },
        rule('o_bias', 'attention.dense.bias', d),
      )
    }
    return rules
  },
}

/** By `model_type` of config.json. */
export const FAMILIES: ReadonlyMap<string, Family> = new Map([
  ['llama', llamaLike({ family: 'llama', bias: 'attention_bias' })],
  ['qwen2', llamaLike({ family: 'qwen2', bias: 'qkv' })],
  ['qwen3', llamaLike({ family: 'qwen3', bias: 'attention_bias', headDim: 128, qkNorm: true })],
  ['gpt_neox', gptNeox],
])
