/**
 * Checkpoints in the shapes of published models of one to two billion parameters, with random weights, stored in bf16: what the GPU is
 * measured on. The names of tensors come from lib/checkpoint/families.ts.
 */
import { Config } from '../../lib/checkpoint/config.js'
import { FAMILIES, type TensorRule, usualRules } from '../../lib/checkpoint/families.js'
import type { NamedTensor } from '../../lib/checkpoint/write.js'
import { Random } from '../../lib/core/random.js'

export interface RealShape {
  /** Without what the tokenizer made for timing decides. */
  config: Record<string, unknown> & { model_type: string; vocab_size: number; hidden_size: number }
}

const decoder = { hidden_act: 'silu', max_position_embeddings: 4096, tie_word_embeddings: true }

export const REAL_SHAPES: Record<string, RealShape> = {
  'Llama-3.2-1B': {
    config: {
      ...decoder,
      architectures: ['LlamaForCausalLM'],
      model_type: 'llama',
      vocab_size: 128256,
      hidden_size: 2048,
      intermediate_size: 8192,
      num_hidden_layers: 16,
      num_attention_heads: 32,
      num_key_value_heads: 8,
      head_dim: 64,
      rms_norm_eps: 1e-5,
      rope_theta: 500000,
    },
  },
  'Pythia-1B': {
    config: {
      ...decoder,
      architectures: ['GPTNeoXForCausalLM'],
      model_type: 'gpt_neox',
      hidden_act: 'gelu',
      tie_word_embeddings: false,
      vocab_size: 50304,
      hidden_size: 2048,
      intermediate_size: 8192,
      num_hidden_layers: 16,
      num_attention_heads: 8,
      rotary_pct: 0.25,
      rotary_emb_base: 10000,
      layer_norm_eps: 1e-5,
      use_parallel_residual: true,
    },
  },
  'Qwen2.5-1.5B': {
    config: {
      ...decoder,
      architectures: ['Qwen2ForCausalLM'],
      model_type: 'qwen2',
      vocab_size: 151936,
      hidden_size: 1536,
      intermediate_size: 8960,
      num_hidden_layers: 28,
      num_attention_heads: 12,
      num_key_value_heads: 2,
      rms_norm_eps: 1e-6,
      rope_theta: 1000000,
    },
  },
}

/** The same kinds at a size that shows that everything works. */
export function scaledDown({ config }: RealShape): RealShape {
  const few = Number(config['num_key_value_heads'] ?? 4) < Number(config['num_attention_heads']) ? 2 : 4
  return {
    config: {
      ...config,
      vocab_size: 2048,
      hidden_size: 64,
      intermediate_size: 128,
      num_hidden_layers: 2,
      num_attention_heads: 4,
      ...('num_key_value_heads' in config ? { num_key_value_heads: few } : {}),
      ...('head_dim' in config ? { head_dim: 16 } : {}),
    },
  }
}

/** Matrices of layers are stretches of one array of random numbers, so that this takes seconds and little memory. */
const POOL = 1 << 25
const DEVIATION = 0.02

function randomNumbers(count: number, seed: number): Float32Array {
  const random = Random.seeded(seed, 12)
  const step = (2 * DEVIATION * Math.sqrt(3)) / 2 ** 32
  const data = new Float32Array(count)
  for (let i = 0; i < count; i++) data[i] = (random.bits() - 2 ** 31) * step
  return data
}

export function tensorsOfShape({ config }: RealShape, seed: number): NamedTensor[] {
  const family = FAMILIES.get(config.model_type)!
  const read = new Config('config.json', config)
  const architecture = family.read(read, () => {})
  const { vocab_size: vocabulary, hidden_size: hidden } = config
  const sizeOf = (shape: readonly number[]) => shape.reduce((product, size) => product * size, 1)
  const layerRules = architecture.layers.map((_, i) => usualRules(family.layer(architecture, i, read)))
  const pool = randomNumbers(Math.min(POOL, 2 * Math.max(...layerRules.flat().map(({ shape }) => sizeOf(shape)))), seed)
  const place = Random.seeded(seed, 13)
  const tensor = (prefix: string, { name, shape }: TensorRule): NamedTensor => {
    const count = sizeOf(shape)
    if (/norm\.weight$/.test(name)) return { name: prefix + name, shape, data: new Float32Array(count).fill(1) }
    const start = place.below(pool.length - count + 1)
    return { name: prefix + name, shape, data: pool.subarray(start, start + count) }
  }
  const table = (name: string, more: number): NamedTensor => ({
    name,
    shape: [vocabulary, hidden],
    data: randomNumbers(vocabulary * hidden, seed + more),
  })
  const list = [table(family.prefix + family.embedding, 100)]
  if (config['tie_word_embeddings'] === false) list.push(table(family.unembedding[0]!, 200))
  for (const rule of family.final(architecture)) list.push(tensor(family.prefix, rule))
  for (const [i, rules] of layerRules.entries()) {
    for (const rule of rules) list.push(tensor(`${family.prefix}layers.${i}.`, rule))
  }
  return list
}
