/**
 * Checkpoints made for timing: Llama-like with seeded random weights, and a byte-level tokenizer whose vocabulary is the words of the
 * texts to be scored, so that sequences are about as long as under a real one. transformers loads them too.
 */
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { type NamedTensor, writeCheckpoint, writeSafetensors } from '../../lib/checkpoint/write.js'
import { byteAlphabet, byteLevelTokenizer, LLAMA_PIECES } from '../../lib/text/byte-level.js'
import { Random } from '../../lib/core/random.js'
import { type RealShape, tensorsOfShape } from './real-shapes.js'

export interface ModelSize {
  name: string
  hidden: number
  layers: number
  heads: number
  kvHeads: number
  intermediate: number
  vocabulary: number
  /** Use the shape of a published model, stored in bf16, instead of a Llama-like one in f32. */
  real?: RealShape
}

/** A size that is one of real-shapes.ts. */
export function sizeOfShape(name: string, real: RealShape): ModelSize {
  const number = (key: string) => Number(real.config[key] ?? real.config['num_attention_heads'])
  return {
    name,
    hidden: number('hidden_size'),
    layers: number('num_hidden_layers'),
    heads: number('num_attention_heads'),
    kvHeads: number('num_key_value_heads'),
    intermediate: number('intermediate_size'),
    vocabulary: number('vocab_size'),
    real,
  }
}

/** 22 and 100 million parameters, tied embeddings. */
export const SIZES = {
  '22M': { name: '22M', hidden: 384, layers: 6, heads: 6, kvHeads: 2, intermediate: 1024, vocabulary: 32000 },
  '100M': { name: '100M', hidden: 768, layers: 12, heads: 12, kvHeads: 4, intermediate: 2048, vocabulary: 32000 },
} as const satisfies Record<string, ModelSize>

/** Only shows that everything works; its speed means nothing. */
export const TINY: ModelSize = {
  name: 'tiny',
  hidden: 64,
  layers: 2,
  heads: 4,
  kvHeads: 2,
  intermediate: 128,
  vocabulary: 2048,
}
/** Llama-3's vocabulary on an otherwise small model: what it costs in memory. */
export const LARGE_VOCABULARY: ModelSize = { ...SIZES['22M'], name: 'V=128256', layers: 2, vocabulary: 128256 }

export const MAX_POSITIONS = 4096
const SPECIAL = ['<|begin|>', '<|end|>', '<|role|>', '<|text|>', '<|pad|>']
const TEMPLATE =
  "{{ bos_token }}{% for message in messages %}<|role|>{{ message['role'] }}<|text|>{{ message['content'] }}<|end|>{% endfor %}" +
  '{% if add_generation_prompt %}<|role|>assistant<|text|>{% endif %}'
/** Whole words in the vocabulary; rarer ones are cut, as any tokenizer cuts rare words. */
const WORDS = 12000

/** Writes the checkpoint unless the folder is there. Other seeds give other weights under the same tokenizer. */
export async function ensureCheckpoint(
  folder: string,
  size: ModelSize,
  texts: readonly string[],
  seed: number,
): Promise<void> {
  if (existsSync(folder)) return
  const { hidden, layers, heads, kvHeads, intermediate, vocabulary, real } = size
  const files = tokenizerFiles(vocabulary, texts)
  if (real !== undefined) {
    const config = { ...real.config, bos_token_id: 0, eos_token_id: 1, pad_token_id: 4, dtype: 'bfloat16' }
    return writeCheckpoint(folder, { config, tensors: tensorsOfShape(real, seed), files, dtype: 'bf16' })
  }
  await writeCheckpoint(folder, {
    config: {
      architectures: ['LlamaForCausalLM'],
      model_type: 'llama',
      vocab_size: vocabulary,
      hidden_size: hidden,
      intermediate_size: intermediate,
      num_hidden_layers: layers,
      num_attention_heads: heads,
      num_key_value_heads: kvHeads,
      head_dim: hidden / heads,
      max_position_embeddings: MAX_POSITIONS,
      hidden_act: 'silu',
      rms_norm_eps: 1e-6,
      attention_bias: false,
      mlp_bias: false,
      tie_word_embeddings: true,
      bos_token_id: 0,
      eos_token_id: 1,
      pad_token_id: 4,
      rope_theta: 10000,
      dtype: 'float32',
    },
    tensors: tensorsOf(size, seed),
    files,
  })
}

/** A file with `score.weight` for the explicit kind. */
export async function ensureHead(file: string, { hidden }: ModelSize): Promise<void> {
  if (existsSync(file)) return
  const random = Random.seeded(3, 11)
  const data = Float32Array.from({ length: hidden }, () => 0.02 * random.normal())
  await writeSafetensors(file, [{ name: 'score.weight', shape: [1, hidden], data }])
}

function tensorsOf(
  { hidden, layers, heads, kvHeads, intermediate, vocabulary }: ModelSize,
  seed: number,
): NamedTensor[] {
  const random = Random.seeded(seed, 12)
  const kv = (hidden / heads) * kvHeads
  // Uniform with deviation 0.02: normal numbers would take longer to make than to use.
  const matrix = (name: string, rows: number, cols: number): NamedTensor => {
    const data = new Float32Array(rows * cols)
    const step = (0.04 * Math.sqrt(3)) / 2 ** 32
    for (let i = 0; i < data.length; i++) data[i] = (random.bits() - 2 ** 31) * step
    return { name, shape: [rows, cols], data }
  }
  const ones = (name: string): NamedTensor => ({ name, shape: [hidden], data: new Float32Array(hidden).fill(1) })
  const list = [matrix('model.embed_tokens.weight', vocabulary, hidden), ones('model.norm.weight')]
  for (let i = 0; i < layers; i++) {
    const at = `model.layers.${i}`
    list.push(
      ones(`${at}.input_layernorm.weight`),
      ones(`${at}.post_attention_layernorm.weight`),
      matrix(`${at}.self_attn.q_proj.weight`, hidden, hidden),
      matrix(`${at}.self_attn.k_proj.weight`, kv, hidden),
      matrix(`${at}.self_attn.v_proj.weight`, kv, hidden),
      matrix(`${at}.self_attn.o_proj.weight`, hidden, hidden),
      matrix(`${at}.mlp.gate_proj.weight`, intermediate, hidden),
      matrix(`${at}.mlp.up_proj.weight`, intermediate, hidden),
      matrix(`${at}.mlp.down_proj.weight`, hidden, intermediate),
    )
  }
  return list
}

function tokenizerFiles(vocabulary: number, texts: readonly string[]): Record<string, string> {
  const alphabet = byteAlphabet()
  const tokens = new Set([...SPECIAL, ...alphabet])
  const merges: [string, string][] = []
  const counts = new Map<string, number>()
  for (const text of texts) {
    for (const [word] of text.matchAll(/[^\r\n\p{L}\p{N}]?\p{L}+/gu)) counts.set(word, (counts.get(word) ?? 0) + 1)
  }
  const byUse = [...counts].sort(([a, m], [b, n]) => n - m || (a < b ? -1 : 1)).slice(0, WORDS)
  for (const [word] of byUse) {
    const spelled = Array.from(Buffer.from(word, 'utf8'), (byte) => alphabet[byte]!)
    for (let end = 2; end <= spelled.length && tokens.size < vocabulary; end++) {
      const merged = spelled.slice(0, end).join('')
      if (tokens.has(merged)) continue
      tokens.add(merged)
      merges.push([spelled.slice(0, end - 1).join(''), spelled[end - 1]!])
    }
  }
  const parts = { special: SPECIAL, tokens, merges, pieces: LLAMA_PIECES, ignoreMerges: true }
  const settings = {
    tokenizer_class: 'PreTrainedTokenizerFast',
    bos_token: SPECIAL[0],
    eos_token: SPECIAL[1],
    pad_token: SPECIAL[4],
    chat_template: TEMPLATE,
  }
  return {
    'tokenizer.json': JSON.stringify(byteLevelTokenizer(parts)),
    'tokenizer_config.json': JSON.stringify(settings, null, 2),
  }
}

export const checkpointPath = (root: string, size: ModelSize, role: 'policy' | 'reference') =>
  join(root, `${size.name.replace(/\W/g, '')}-${role}`)
