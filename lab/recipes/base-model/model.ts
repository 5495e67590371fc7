/**
 * The model before training: Llama's architecture with tied embeddings, and GPT-2's initial weights (normal with deviation 0.02, less by
 * √(2 layers) where a block adds to the residual stream).
 */
import { type NamedTensor, writeCheckpoint } from '../../../lib/checkpoint/write.js'
import { Random } from '../../../lib/core/random.js'
import { TOKEN_IDS, type TrainedTokenizer } from './tokenizer.js'

export interface Shape {
  hidden: number
  layers: number
  heads: number
  kvHeads: number
  intermediate: number
  context: number
}

const DEVIATION = 0.02
/** Stream of the model's random numbers. The corpus uses other streams. */
const STREAM = 201

/** Replaces an existing folder. */
export async function writeInitialModel(
  folder: string,
  shape: Shape,
  tokenizer: TrainedTokenizer,
  seed: number,
): Promise<void> {
  const config = {
    architectures: ['LlamaForCausalLM'],
    model_type: 'llama',
    vocab_size: tokenizer.size,
    hidden_size: shape.hidden,
    intermediate_size: shape.intermediate,
    num_hidden_layers: shape.layers,
    num_attention_heads: shape.heads,
    num_key_value_heads: shape.kvHeads,
    head_dim: shape.hidden / shape.heads,
    max_position_embeddings: shape.context,
    hidden_act: 'silu',
    rms_norm_eps: 1e-5,
    rope_theta: 10000,
    attention_bias: false,
    mlp_bias: false,
    tie_word_embeddings: true,
    initializer_range: DEVIATION,
    torch_dtype: 'float32',
    ...TOKEN_IDS,
  }
  const generation = { ...TOKEN_IDS, do_sample: true, temperature: 1 }
  const files = { ...tokenizer.files, 'generation_config.json': `${JSON.stringify(generation, null, 2)}\n` }
  await writeCheckpoint(
    folder,
    { config, tensors: initialTensors(shape, tokenizer.size, seed), files },
    { replace: true },
  )
}

function initialTensors(shape: Shape, vocabulary: number, seed: number): NamedTensor[] {
  const { hidden, layers, heads, kvHeads, intermediate } = shape
  const random = Random.seeded(seed, STREAM)
  const matrix = (name: string, rows: number, columns: number, deviation = DEVIATION): NamedTensor => {
    const data = Float32Array.from({ length: rows * columns }, () => deviation * random.normal())
    return { name, shape: [rows, columns], data }
  }
  const ones = (name: string): NamedTensor => ({ name, shape: [hidden], data: new Float32Array(hidden).fill(1) })
  const keys = (hidden / heads) * kvHeads
  const residual = DEVIATION / Math.sqrt(2 * layers)
  const tensors = [matrix('model.embed_tokens.weight', vocabulary, hidden), ones('model.norm.weight')]
  for (let i = 0; i < layers; i++) {
    const at = `model.layers.${i}`
    tensors.push(
      ones(`${at}.input_layernorm.weight`),
      ones(`${at}.post_attention_layernorm.weight`),
      matrix(`${at}.self_attn.q_proj.weight`, hidden, hidden),
      matrix(`${at}.self_attn.k_proj.weight`, keys, hidden),
      matrix(`${at}.self_attn.v_proj.weight`, keys, hidden),
      matrix(`${at}.self_attn.o_proj.weight`, hidden, hidden, residual),
      matrix(`${at}.mlp.gate_proj.weight`, intermediate, hidden),
      matrix(`${at}.mlp.up_proj.weight`, intermediate, hidden),
      matrix(`${at}.mlp.down_proj.weight`, hidden, intermediate, residual),
    )
  }
  return tensors
}
