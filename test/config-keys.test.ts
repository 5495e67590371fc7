/** No setting that changes numbers is ignored: every key of config.json is used, known to be harmless, or refused before weights are read. */
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { Config } from '../lib/checkpoint/config.js'
import { refuseUnknown } from '../lib/checkpoint/config-keys.js'
import { FAMILIES } from '../lib/checkpoint/families.js'
import type { Architecture } from '../lib/checkpoint/families.js'
import { TINY_FAMILIES, type TinyFamily, tinyCheckpoint } from './fixtures/tiny-checkpoint.js'

interface Reading {
  architecture: Architecture
  notes: string[]
}

function read(values: Record<string, unknown>): Reading {
  const config = new Config('config.json', values)
  const name = config.string('model_type')
  const family = FAMILIES.get(name)!
  for (const key of ['pad_token_id', 'eos_token_id', 'bos_token_id']) config.get(key)
  const notes: string[] = []
  const architecture = family.read(config, (sentence) => notes.push(sentence))
  refuseUnknown(config, name, family.unused)
  return { architecture, notes }
}

const bases = new Map<TinyFamily, Record<string, unknown>>()

/** The config of a tiny checkpoint with some keys changed, or taken out with undefined. */
function configOf(family: TinyFamily, change: Record<string, unknown>): Record<string, unknown> {
  const base = bases.get(family) ?? tinyCheckpoint({ family, tokenizer: false }).config
  bases.set(family, base)
  return Object.fromEntries(Object.entries({ ...base, ...change }).filter(([, value]) => value !== undefined))
}

function refusal(values: Record<string, unknown>): string {
  try {
    read(values)
  } catch (error) {
    assert.is((error as { code?: string }).code, 'ERR_CONFIG_INVALID')
    return (error as Error).message
  }
  throw new Error(`nothing was refused in ${JSON.stringify(values)}`)
}

const keys = suite('keys of config.json')

/** Keys of other families, or of none yet, each with a value that would change numbers. */
const CHANGES: Record<string, unknown> = {
  clip_qkv: 8,
  qk_layernorm: true,
  use_qk_norm: true,
  logit_scale: 0.0625,
  logits_scaling: 8,
  embedding_multiplier: 12,
  residual_multiplier: 0.22,
  attention_multiplier: 0.01,
  attn_logit_softcapping: 50,
  final_logit_softcapping: 30,
  query_pre_attn_scalar: 144,
  num_experts: 8,
  num_local_experts: 8,
  n_routed_experts: 8,
  moe_intermediate_size: 64,
  attention_chunk_size: 8192,
  no_rope_layers: [0, 1],
  attn_temperature_tuning: true,
  position_embedding_type: 'alibi',
  scale_emb: 12,
  scale_depth: 1.4,
  lm_head_multiplier: 0.5,
  attention_sinks: 4,
  num_nextn_predict_layers: 1,
  kv_lora_rank: 512,
  mlp_activation_sparsity: 0.5,
  some_new_norm: 'sandwich',
}

for (const family of TINY_FAMILIES) {
  keys(`${family}: those of other families are refused by name, unless the family has them`, () => {
    let refused = 0
    for (const [key, value] of Object.entries(CHANGES)) {
      const usual = read(configOf(family, {})).architecture
      const config = configOf(family, { [key]: value })
      let found: Architecture
      try {
        found = read(config).architecture
      } catch (error) {
        const { message } = error as Error
        assert.ok(message.includes(`"${key}"`) || /num_(local_)?experts/.test(message), message)
        refused++
        continue
      }
      assert.not.equal(found, usual, `${key} is neither used nor refused`)
    }
    assert.ok(refused >= 12, `only ${refused} are refused`)
  })

  keys(`${family}: those that are switched off, and those about the file, are not`, () => {
    const off = Object.fromEntries(Object.keys(CHANGES).map((key) => [key, null]))
    const { notes } = read(
      configOf(family, {
        ...off,
        ...{
          clip_qkv: null,
          qk_layernorm: false,
          logit_scale: 1,
          some_multiplier: 1,
          attention_sinks: 0,
          lm_head_bias: false,
        },
        ...{
          _name_or_path: 'some/model',
          auto_map: { AutoModel: 'a.B' },
          torch_dtype: 'bfloat16',
          unsloth_version: '2025.1',
        },
        ...{ attention_dropout: 0.1, hidden_dropout: 0.1, initializer_range: 0.02, output_router_logits: true },
        ...{ router_aux_loss_coef: 0.001, classifier_dropout: null, problem_type: 'regression', num_labels: 1 },
        ...{ use_cache: false, _attn_implementation: 'sdpa', cache_implementation: 'hybrid', pretraining_tp: 4 },
        ...{ top_k: 50, temperature: 0.6, max_length: 20, task_specific_params: {}, image_token_index: 7 },
        ...{ value_head_prefix: 'score', reward_layers: 3, some_metadata: 'x', is_decoder: true },
        ...(family === 'qwen3_moe' || family === 'mixtral' ? configOf(family, {}) : {}),
      }),
    )
    assert.equal(notes, [])
  })
}

const REFUSED: [TinyFamily, Record<string, unknown>, RegExp][] = [
  ['mistral', { attention_bias: true }, /"attention_bias" true is not supported in this family/],
  ['qwen2', { mlp_bias: true }, /"mlp_bias" true is not supported/],
  ['mistral', { layer_types: ['full_attention', 'sliding_attention'] }, /"layer_types" has layers without a window/],
  ['mistral', { layer_types: ['chunked_attention', 'full_attention'] }, /"chunked_attention", which is not supported/],
  [
    'gemma2',
    { layer_types: ['full_attention'] },
    /"layer_types" must have one entry for each of the 2 layers; it has 1/,
  ],
  [
    'gemma2',
    { layer_types: ['full_attention', 'sliding_attention'], sliding_window: null },
    /"sliding_window" is not set/,
  ],
  [
    'qwen3',
    { layer_types: ['full_attention', 'sliding_attention'], sliding_window: 9 },
    /"use_sliding_window" is not true/,
  ],
  ['olmo2', { sliding_window: 16 }, /"sliding_window" is 16, but this family has no windows/],
  ['llama', { layer_types: ['full_attention', 'sliding_attention'] }, /"layer_types" has "sliding_attention"/],
  ['gemma', { hidden_act: 'silu' }, /"hidden_act" must be gelu_pytorch_tanh/],
  ['gemma2', { hidden_activation: 'quick_gelu' }, /"hidden_activation" must be one of silu/],
  ['gemma2', { use_bidirectional_attention: true }, /"use_bidirectional_attention" true is not supported/],
  ['gemma3_text', { attn_logit_softcapping: 50 }, /"attn_logit_softcapping" is not supported in this family/],
  [
    'gemma3_text',
    { rope_parameters: { rope_type: 'default', rope_theta: 1e4 } },
    /"rope_parameters.rope_type" is not supported here/,
  ],
  ['gemma2', { num_key_value_heads: undefined }, /"num_key_value_heads" is missing/],
  ['granite', { logits_scaling: 0 }, /"logits_scaling" must be a number above 0/],
  ['smollm3', { no_rope_layers: [1] }, /"no_rope_layers" must have one entry/],
  ['smollm3', { no_rope_layers: [1, 2] }, /"no_rope_layers" must be a list of integers from 0 to 1/],
  ['qwen3_moe', { num_experts_per_tok: 6 }, /"num_experts_per_tok" must be an integer from 1 to 5/],
  ['qwen3_moe', { num_local_experts: 1 }, /"num_local_experts" must be at least 2/],
  ['mixtral', { num_local_experts: undefined }, /"num_experts" is missing/],
  ['ministral3', { rope_parameters: undefined }, /"rope_parameters" is missing/],
  [
    'llama',
    { rope_parameters: { rope_type: 'dynamic', factor: 2 } },
    /"dynamic" is not supported, because .* each sequence/,
  ],
  ['phi3', { rope_parameters: { rope_type: 'longrope', short_factor: [1], long_factor: [1] } }, /must have \d numbers/],
  [
    'llama',
    { partial_rotary_factor: 0.5, rope_parameters: undefined },
    /"partial_rotary_factor" must be 1 in this family/,
  ],
]
for (const [family, change, message] of REFUSED) {
  keys(`${family} refuses ${JSON.stringify(change)}`, () => {
    const found = refusal(configOf(family, change))
    assert.ok(found.startsWith('config.json: "'), found)
    assert.match(found, message)
  })
}

keys.run()

const published = suite('configs as they are published')

const common = {
  bos_token_id: 1,
  eos_token_id: 2,
  torch_dtype: 'bfloat16',
  transformers_version: '4.46.0',
  use_cache: true,
}
const sizes = (hidden: number, inner: number, layers: number, heads: number, kv: number, positions: number) => ({
  ...{ hidden_size: hidden, intermediate_size: inner, num_hidden_layers: layers, num_attention_heads: heads },
  ...{ num_key_value_heads: kv, max_position_embeddings: positions, vocab_size: 32000, ...common },
})
const factors = (count: number) => Array.from({ length: count }, (_, i) => 1 + i / 10)

published('Phi-4-mini: a part of each head, and the original context', () => {
  const { architecture, notes } = read({
    ...{ model_type: 'phi3', ...sizes(3072, 8192, 32, 24, 8, 131072), attention_bias: false, mlp_bias: false },
    ...{ embd_pdrop: 0, resid_pdrop: 0, full_attn_mod: 1, interpolate_factor: 1, lm_head_bias: false },
    ...{ original_max_position_embeddings: 4096, partial_rotary_factor: 0.75, sliding_window: 262144, rope_theta: 1e4 },
    rope_scaling: { type: 'longrope', short_factor: factors(48), long_factor: factors(48) },
  })
  assert.is(architecture.maxPositions, 4096)
  assert.is(architecture.ropes[0]!.rotaryDim, 96)
  assert.is(architecture.layers[0]!.window, 0)
  assert.match(
    notes.join(),
    /sequences may have 4096 tokens and not "max_position_embeddings" \(131072\), because its longrope/,
  )
})

published('Gemma 2 27B', () => {
  const { architecture } = read({
    ...{ model_type: 'gemma2', ...sizes(4608, 36864, 46, 32, 16, 8192), head_dim: 128, query_pre_attn_scalar: 144 },
    ...{
      attn_logit_softcapping: 50,
      final_logit_softcapping: 30,
      attention_bias: false,
      cache_implementation: 'hybrid',
    },
    ...{ hidden_act: 'gelu_pytorch_tanh', hidden_activation: 'gelu_pytorch_tanh', rope_theta: 1e4 },
    ...{ sliding_window: 4096, sliding_window_size: 4096 },
  })
  assert.is(architecture.layers[0]!.attentionScale, 1 / 12)
  assert.is(architecture.layers[0]!.window, 4096)
  assert.is(architecture.layers[1]!.window, 0)
  assert.is(architecture.embeddingScale, Math.sqrt(4608))
})

published('Mistral 7B v0.1, v0.3 and Nemo', () => {
  const base = { model_type: 'mistral', ...sizes(4096, 14336, 32, 32, 8, 32768), hidden_act: 'silu', rope_theta: 1e6 }
  assert.is(read({ ...base, sliding_window: 4096 }).architecture.layers[31]!.window, 4096)
  assert.is(read({ ...base, sliding_window: null }).architecture.layers[31]!.window, 0)
  const nemo = read({ ...base, hidden_size: 5120, head_dim: 128, sliding_window: null }).architecture
  assert.is(nemo.headDim, 128)
})

published('Ministral 3, within the context in which its attention is not scaled', () => {
  const { architecture, notes } = read({
    ...{ model_type: 'ministral3', ...sizes(4096, 14336, 34, 32, 8, 262144), head_dim: 128, sliding_window: null },
    rope_parameters: {
      ...{ type: 'yarn', rope_type: 'yarn', rope_theta: 1e6, factor: 16, original_max_position_embeddings: 16384 },
      ...{ beta_fast: 32, beta_slow: 1, mscale: 1, mscale_all_dim: 1, llama_4_scaling_beta: 0.1 },
    },
  })
  assert.is(architecture.maxPositions, 16384)
  assert.is(architecture.ropes[0]!.scale, 1)
  assert.match(notes.join(), /because "llama_4_scaling_beta" scales the attention of later positions/)
})

published('OLMo 3: yarn where there is no window', () => {
  const { architecture } = read({
    ...{ model_type: 'olmo3', ...sizes(4096, 11008, 32, 32, 32, 65536), attention_bias: false, rope_theta: 5e5 },
    ...{
      sliding_window: 4096,
      layer_types: Array.from({ length: 32 }, (_, i) => (i % 4 === 3 ? 'full_attention' : 'sliding_attention')),
    },
    rope_scaling: {
      ...{ rope_type: 'yarn', factor: 8, attention_factor: 1.2079441541679836, beta_fast: 32, beta_slow: 1 },
      original_max_position_embeddings: 8192,
    },
  })
  assert.equal(
    architecture.ropes.map(({ scale }) => scale),
    [1.2079441541679836, 1],
  )
  assert.equal(
    architecture.layers.slice(2, 4).map(({ rope, window }) => [rope, window]),
    [
      [1, 4096],
      [0, 0],
    ],
  )
})

published('Qwen3 30B-A3B and Mixtral 8x7B', () => {
  const { architecture } = read({
    ...{ model_type: 'qwen3_moe', ...sizes(2048, 6144, 48, 32, 4, 40960), attention_bias: false, head_dim: 128 },
    ...{
      decoder_sparse_step: 1,
      max_window_layers: 48,
      mlp_only_layers: [],
      moe_intermediate_size: 768,
      num_experts: 128,
    },
    ...{ norm_topk_prob: true, num_experts_per_tok: 8, output_router_logits: false, router_aux_loss_coef: 0.001 },
    ...{ rope_scaling: null, rope_theta: 1e6, sliding_window: null, use_sliding_window: false },
  })
  assert.equal(architecture.layers[47]!.experts, { count: 128, perToken: 8, normalize: true })
  assert.is(architecture.layers[47]!.intermediateSize, 768)
  const mixtral = read({
    ...{ model_type: 'mixtral', ...sizes(4096, 14336, 32, 32, 8, 32768), num_local_experts: 8, num_experts_per_tok: 2 },
    ...{
      output_router_logits: false,
      router_aux_loss_coef: 0.02,
      router_jitter_noise: 0,
      rope_theta: 1e6,
      sliding_window: null,
    },
  })
  assert.is(mixtral.architecture.layers[0]!.intermediateSize, 14336)
})

published('Granite 3 and SmolLM3', () => {
  const granite = read({
    ...{ model_type: 'granite', ...sizes(4096, 12800, 40, 32, 8, 131072), attention_bias: false, mlp_bias: false },
    ...{
      attention_multiplier: 0.0078125,
      embedding_multiplier: 12,
      logits_scaling: 16,
      residual_multiplier: 0.22,
      rope_theta: 1e7,
    },
  }).architecture
  assert.is(granite.logitScale, 1 / 16)
  const smol = read({
    ...{ model_type: 'smollm3', ...sizes(2048, 11008, 36, 16, 4, 65536), attention_bias: false, mlp_bias: false },
    ...{ max_window_layers: 28, no_rope_layer_interval: 4, pretraining_tp: 2, rope_theta: 5e6, sliding_window: null },
    ...{ use_sliding_window: false, rope_scaling: null },
  }).architecture
  assert.equal(
    smol.layers.slice(0, 4).map(({ rope }) => rope),
    [0, 0, 0, -1],
  )
})

published.run()
