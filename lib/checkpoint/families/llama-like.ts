/** Llama and the families that differ from it in windows, norms of q and k, biases, rotation or scales. */
import type { Config } from '../config.js'
import { parametersOf, readRope, type Rope, type RopeDefaults } from '../rope.js'
import { decoder } from './decoder.js'
import { readExpertCount, readPerToken } from './experts.js'
import type { Family } from './family.js'
import { MAX } from './sizes.js'
import type { WindowRule } from './windows.js'

const LLAMA: Family['defaults'] = {
  vocab_size: 32_000,
  hidden_size: 4096,
  intermediate_size: 11_008,
  num_hidden_layers: 32,
  num_attention_heads: 32,
  max_position_embeddings: 2048,
  tie_word_embeddings: false,
}

export const llama = decoder({
  family: 'llama',
  opens: 'Llama 2 and 3, Tülu 3, Vicuna, Yi, DeepSeek LLM and R1-Distill-Llama, TinyLlama',
  classes: { causal: 'Llama' },
  refuses: 'windows',
  defaults: LLAMA,
  bias: 'attention_bias',
  mlpBias: true,
})

/** The layers from `max_window_layers` on. */
const LAST_LAYERS: WindowRule = {
  flag: true,
  length: 4096,
  keys: ['max_window_layers'],
  slides: (i, config) => i >= config.integer('max_window_layers', 0, MAX.layers, 28),
}

export const qwen2 = decoder({
  family: 'qwen2',
  opens: 'Qwen2, Qwen2.5, QwQ, R1-Distill-Qwen',
  classes: { causal: 'Qwen2' },
  refuses: '`mlp_bias`',
  bias: 'qkv',
  windows: LAST_LAYERS,
})

export const qwen3 = decoder({
  family: 'qwen3',
  opens: 'Qwen3 (dense), Skywork-Reward-V2-Qwen3',
  classes: { causal: 'Qwen3' },
  refuses: '`mlp_bias`',
  headDim: 128,
  bias: 'attention_bias',
  qkNorm: 'head',
  windows: LAST_LAYERS,
})

const everyLayer = (length?: number, flag = false): WindowRule => ({
  everyLayer: true,
  flag,
  length,
  slides: () => true,
})

const MISTRAL: Family['defaults'] = {
  ...LLAMA,
  intermediate_size: 14_336,
  num_key_value_heads: 8,
  max_position_embeddings: 131_072,
}

export const mistral = decoder({
  family: 'mistral',
  opens: 'Mistral 7B v0.1 to v0.3, Zephyr, Mistral Nemo and Small, Eurus, RM-Mistral',
  classes: { causal: 'Mistral' },
  refuses: '`attention_bias`, `mlp_bias`, `layer_types` that differ',
  defaults: MISTRAL,
  kvHeads: 'required',
  windows: everyLayer(4096),
})

export const ministral = decoder({
  family: 'ministral',
  opens: 'Ministral 8B (2410)',
  classes: { causal: 'Ministral' },
  refuses: '`attention_bias`, `mlp_bias`',
  kvHeads: 'required',
  windows: { length: 4096, slides: () => true },
})

const BETA = 'llama_4_scaling_beta'

/** Later positions have larger scores, in steps of the original context: within the first step the factor is 1. */
function readMinistral3Rope(config: Config, defaults: RopeDefaults): Rope {
  const parameters = parametersOf(config)
  // Without one, transformers takes a scaling of its own.
  if (parameters === undefined) throw config.error('rope_parameters', 'is missing')
  const rope = readRope(config, { ...defaults, keys: [BETA] })
  if (!parameters.has(BETA) || parameters.get(BETA) === 0) return rope
  parameters.positive(BETA, MAX.factor)
  const positions = parameters.integer('original_max_position_embeddings', 1, MAX.positions, defaults.maxPositions)
  const reason = `"${BETA}" scales the attention of later positions`
  return positions < defaults.maxPositions ? { ...rope, limit: { positions, reason } } : rope
}

export const ministral3 = decoder({
  family: 'ministral3',
  opens: 'Ministral 3, alone or inside Mistral 3',
  classes: { causal: 'Ministral3' },
  refuses: 'texts beyond `original_max_position_embeddings`, where `llama_4_scaling_beta` scales the attention',
  kvHeads: 'required',
  headDim: 128,
  eps: 1e-5,
  defaults: {
    ...MISTRAL,
    vocab_size: 131_072,
    num_hidden_layers: 34,
    head_dim: 128,
    max_position_embeddings: 262_144,
    rope_parameters: {
      ...{ rope_type: 'yarn', rope_theta: 1_000_000, factor: 16, original_max_position_embeddings: 16_384 },
      ...{ beta_fast: 32, beta_slow: 1, mscale: 1, mscale_all_dim: 1, [BETA]: 0.1 },
    },
  },
  windows: everyLayer(),
  ropes: (config, defaults, { length }) => ({
    tables: [readMinistral3Rope(config, defaults)],
    of: new Array(length).fill(0),
  }),
})

export const smollm3 = decoder({
  family: 'smollm3',
  opens: 'SmolLM3',
  classes: { causal: 'SmolLM3' },
  kvHeads: 'required',
  bias: 'attention_bias',
  mlpBias: true,
  unused: ['max_window_layers'],
  rope: { theta: 2_000_000 },
  windows: { flag: true, slides: (i, config) => !readRotated(config, i + 1)[i] },
  ropes: (config, defaults, { length }) => ({
    tables: [readRope(config, defaults)],
    of: readRotated(config, length).map((rotated) => (rotated ? 0 : -1)),
  }),
})

/** By layer, whether q and k are rotated; despite its name, `no_rope_layers` has 1 for those that are. */
function readRotated(config: Config, layers: number): boolean[] {
  config.know('no_rope_layer_interval')
  const given = config.integers('no_rope_layers', 0, 1)
  if (given !== undefined && given.length < layers)
    throw config.error('no_rope_layers', `must have one entry for each of the ${layers} layers`)
  if (given !== undefined) return given.slice(0, layers).map((rotated) => rotated === 1)
  const interval = config.integer('no_rope_layer_interval', 1, MAX.layers, 4)
  return Array.from({ length: layers }, (_, i) => (i + 1) % interval !== 0)
}

export const granite = decoder({
  family: 'granite',
  opens: 'Granite 3 (dense)',
  classes: { causal: 'Granite' },
  bias: 'attention_bias',
  mlpBias: true,
  attentionScale: (config) => config.positive('attention_multiplier', MAX.factor, 1),
  model: (config) => ({
    embeddingScale: config.positive('embedding_multiplier', MAX.factor, 1),
    residualScale: config.positive('residual_multiplier', MAX.factor, 1),
    logitScale: 1 / config.positive('logits_scaling', MAX.factor, 1),
  }),
})

export const phi3 = decoder({
  family: 'phi3',
  opens: 'Phi-3 and Phi-3.5 (mini, medium), Phi-4, Phi-4-mini',
  classes: { causal: 'Phi3' },
  refuses: 'texts beyond `original_max_position_embeddings`, where longrope has other frequencies',
  unused: ['full_attn_mod', 'interpolate_factor'],
  eps: 1e-5,
  rope: { partial: 1, originalPositions: 4096 },
  windows: everyLayer(),
  fused(a, { intermediateSize: f }) {
    const [d, q, kv] = [a.hiddenSize, a.heads * a.headDim, a.kvHeads * a.headDim]
    const part = (role: string, start: number, block: number, stride: number) => ({
      role,
      rows: { start, block, stride },
    })
    const rows = q + 2 * kv
    return [
      {
        name: 'self_attn.qkv_proj.weight',
        shape: [rows, d],
        parts: [part('q', 0, q, rows), part('k', q, kv, rows), part('v', q + kv, kv, rows)],
      },
      {
        name: 'mlp.gate_up_proj.weight',
        shape: [2 * f, d],
        parts: [part('gate', 0, f, 2 * f), part('up', f, f, 2 * f)],
      },
    ]
  },
})

export const qwen3Moe = decoder({
  family: 'qwen3_moe',
  opens: 'Qwen3 30B-A3B and 235B-A22B',
  classes: { causal: 'Qwen3Moe' },
  refuses: '`mlp_bias`',
  kvHeads: 'required',
  bias: 'attention_bias',
  qkNorm: 'head',
  windows: { ...everyLayer(4096, true), keys: ['max_window_layers'] },
  experts: {
    block: 'mlp',
    parts: { gate: 'gate_proj', up: 'up_proj', down: 'down_proj' },
    read(config, layers) {
      const count = readExpertCount(config, 0)
      const step = config.integer('decoder_sparse_step', 1, MAX.layers, 1)
      const dense = new Set(config.integers('mlp_only_layers', 0, MAX.layers))
      const intermediateSize = config.integer('moe_intermediate_size', 1, MAX.width)
      const normalize = config.boolean('norm_topk_prob', false)
      const perToken = count === 0 ? 0 : readPerToken(config, count)
      config.know('num_experts_per_tok')
      return Array.from({ length: layers }, (_, i) =>
        count === 0 || dense.has(i) || (i + 1) % step !== 0
          ? {}
          : { intermediateSize, experts: { count, perToken, normalize } },
      )
    },
  },
})

export const mixtral = decoder({
  family: 'mixtral',
  opens: 'Mixtral 8x7B and 8x22B',
  classes: { causal: 'Mixtral' },
  refuses: '`attention_bias`, `mlp_bias`',
  kvHeads: 'required',
  eps: 1e-5,
  rope: { theta: 1_000_000 },
  windows: everyLayer(),
  experts: {
    block: 'block_sparse_moe',
    parts: { gate: 'w1', up: 'w3', down: 'w2' },
    read(config, layers) {
      const count = readExpertCount(config)
      const experts = { count, perToken: readPerToken(config, count), normalize: true }
      return Array.from({ length: layers }, () => ({ experts }))
    },
  },
})
