/** Gemma: norms that multiply by 1 + w, a scaled embedding, and from Gemma 2 on norms after attention and MLP, windows and soft caps. */
import type { Config } from '../config.js'
import { readRopesByType } from '../rope.js'
import { decoder, type DecoderOptions } from './decoder.js'
import { MAX, readCap } from './sizes.js'

const KEYS = { key: 'hidden_activation', fallback: 'gelu_pytorch_tanh' }

/** What all have in common. A config may ask for attention in both directions, as embedding models have it. */
const COMMON = {
  headDim: 256,
  kvHeads: 'required',
  bias: 'attention_bias',
  activation: KEYS,
  refuses: '`use_bidirectional_attention`',
} satisfies Partial<DecoderOptions>

function readModel(config: Config, hiddenSize: number) {
  if (config.boolean('use_bidirectional_attention', false))
    throw config.error('use_bidirectional_attention', 'true is not supported: a language model sees what came before')
  return { normOffset: 1, embeddingScale: Math.sqrt(hiddenSize) }
}

const readScale = (config: Config) => config.positive('query_pre_attn_scalar', MAX.factor, 256) ** -0.5

export const gemma = decoder({
  ...COMMON,
  family: 'gemma',
  opens: 'Gemma 1, RM-Gemma',
  classes: { causal: 'Gemma' },
  model: (config, hiddenSize) => {
    // Of the two keys, this one came later; the first configs had "gelu" in the other and meant the approximation.
    config.know('hidden_act')
    if (
      !config.has('hidden_activation') &&
      !['gelu', 'gelu_pytorch_tanh'].includes(config.string('hidden_act', 'gelu'))
    )
      throw config.unexpected('hidden_act', 'gelu_pytorch_tanh')
    return readModel(config, hiddenSize)
  },
})

export const gemma2 = decoder({
  ...COMMON,
  family: 'gemma2',
  opens: 'Gemma 2, Skywork-Reward-Gemma-2, GRM-Gemma-2',
  classes: { causal: 'Gemma2' },
  unused: ['hidden_act', 'sliding_window_size'],
  norms: 'both',
  windows: { length: 4096, slides: (i) => i % 2 === 0 },
  attentionScale: readScale,
  attentionSoftCap: (config) => readCap(config, 'attn_logit_softcapping', 50),
  model: (config, hiddenSize) => ({
    ...readModel(config, hiddenSize),
    logitSoftCap: readCap(config, 'final_logit_softcapping', 30),
  }),
})

const pattern = ['sliding_window_pattern', '_sliding_window_pattern'] as const

export const gemma3Text = decoder({
  ...COMMON,
  family: 'gemma3_text',
  opens: 'Gemma 3, text models and the text part of the others',
  classes: { causal: 'Gemma3', classifier: 'Gemma3Text' },
  refuses: '`use_bidirectional_attention`, `attn_logit_softcapping`',
  unused: ['hidden_act'],
  defaults: {
    vocab_size: 262_208,
    hidden_size: 2304,
    intermediate_size: 9216,
    num_hidden_layers: 26,
    num_attention_heads: 8,
    num_key_value_heads: 4,
    head_dim: 256,
    max_position_embeddings: 131_072,
    tie_word_embeddings: true,
  },
  norms: 'both',
  qkNorm: 'head',
  windows: {
    length: 4096,
    keys: pattern,
    slides: (i, config) => (i + 1) % config.integer(config.firstOf(...pattern), 1, MAX.layers, 6) !== 0,
  },
  ropes(config, defaults, sliding) {
    const theta = { full: 1_000_000, sliding: 10_000 }
    const tables = readRopesByType(config, { ...defaults, theta: theta.full }, 'rope_local_base_freq', theta.sliding)
    return { tables: [tables.full, tables.sliding], of: sliding.map(Number) }
  },
  attentionScale: readScale,
  model: (config, hiddenSize) => {
    // transformers reads the key and then does not use it.
    if (readCap(config, 'attn_logit_softcapping') !== 0)
      throw config.error('attn_logit_softcapping', 'is not supported in this family')
    return { ...readModel(config, hiddenSize), logitSoftCap: readCap(config, 'final_logit_softcapping') }
  },
})
