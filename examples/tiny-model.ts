/**
 * Makes a pair of tiny Llama-like checkpoints with random weights, so that `npm start` needs no download: a reference, and a policy that
 * is the reference after a small random push (what training would do with a purpose). The same seed gives the same bytes everywhere.
 */
import { join } from 'node:path'
import { type NamedTensor, writeCheckpoint } from '../lib/checkpoint/write.js'
import { byteTokenizer } from './byte-tokenizer.js'

const HIDDEN = 64
const LAYERS = 4
const HEADS = 4
const KV_HEADS = 2
const INTERMEDIATE = 192
const CONTEXT = 1024

export interface TinyModels {
  /** A language model with `score.weight`, so that it serves as explicit, implicit and generative reward model. */
  policy: string
  /** The same without `score.weight`, before the push. */
  reference: string
  /** Numbers in the policy. */
  parameters: number
}

/**
 * Writes `policy` and `reference` into a folder; folders of these names are replaced.
 * @throws ImplexError ERR_DISK_FULL, ERR_IO
 */
export async function writeTinyModels(folder: string, seed = 1): Promise<TinyModels> {
  const tokenizer = byteTokenizer()
  const config = {
    architectures: ['LlamaForCausalLM'],
    model_type: 'llama',
    vocab_size: tokenizer.size,
    hidden_size: HIDDEN,
    intermediate_size: INTERMEDIATE,
    num_hidden_layers: LAYERS,
    num_attention_heads: HEADS,
    num_key_value_heads: KV_HEADS,
    max_position_embeddings: CONTEXT,
    rms_norm_eps: 1e-6,
    rope_theta: 10000,
    hidden_act: 'silu',
    tie_word_embeddings: true,
    torch_dtype: 'float32',
    ...tokenizer.ids,
  }
  const normal = randomNormal(seed)
  const random = (name: string, mean: number, deviation: number, ...shape: number[]): NamedTensor => {
    const size = shape.reduce((product, length) => product * length, 1)
    return { name, shape, data: Float32Array.from({ length: size }, () => mean + deviation * normal()) }
  }

  const before = [random('model.embed_tokens.weight', 0, 0.06, tokenizer.size, HIDDEN)]
  for (let layer = 0; layer < LAYERS; layer++) {
    const matrix = (name: string, rows: number, columns: number) =>
      before.push(random(`model.layers.${layer}.${name}.weight`, 0, 0.06, rows, columns))
    const norm = (name: string) => before.push(random(`model.layers.${layer}.${name}.weight`, 1, 0.1, HIDDEN))
    const keys = (HIDDEN / HEADS) * KV_HEADS
    norm('input_layernorm')
    matrix('self_attn.q_proj', HIDDEN, HIDDEN)
    matrix('self_attn.k_proj', keys, HIDDEN)
    matrix('self_attn.v_proj', keys, HIDDEN)
    matrix('self_attn.o_proj', HIDDEN, HIDDEN)
    norm('post_attention_layernorm')
    matrix('mlp.gate_proj', INTERMEDIATE, HIDDEN)
    matrix('mlp.up_proj', INTERMEDIATE, HIDDEN)
    matrix('mlp.down_proj', HIDDEN, INTERMEDIATE)
  }
  before.push(random('model.norm.weight', 1, 0.1, HIDDEN))

  const after: NamedTensor[] = before.map(({ data, ...tensor }) => ({
    ...tensor,
    data: data.map((value) => value + 0.01 * normal()),
  }))
  after.push(random('score.weight', 0, 0.3, 1, HIDDEN))

  const { files } = tokenizer
  const models = { policy: join(folder, 'policy'), reference: join(folder, 'reference') }
  await writeCheckpoint(models.reference, { config, tensors: before, files }, { replace: true })
  await writeCheckpoint(models.policy, { config, tensors: after, files }, { replace: true })
  return { ...models, parameters: after.reduce((sum, { data }) => sum + data.length, 0) }
}

/**
 * Numbers near normal (mean 0, variance 1) from integers and exact sums alone: logarithms and cosines may differ between engines.
 * The integers are SplitMix32's (Steele, Lea, Flood 2014, in its 32-bit form).
 */
function randomNormal(seed: number): () => number {
  let state = seed >>> 0
  const unit = () => {
    state = (state + 0x9e3779b9) >>> 0
    let z = Math.imul(state ^ (state >>> 16), 0x21f0aaad)
    z = Math.imul(z ^ (z >>> 15), 0x735a2d97)
    return ((z ^ (z >>> 15)) >>> 0) / 2 ** 32
  }
  return () => (unit() + unit() + unit() + unit() - 2) * Math.sqrt(3)
}
