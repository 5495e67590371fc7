/**
 * A checkpoint as plain data: what the native engine needs to know of a model, and where each weight lies on disk.
 * native/model/spec.h has the same names in snake_case. Nothing here knows a model family; families.ts makes these.
 */

/** Element types that weights may be stored in. */
export type StoredDtype = 'f32' | 'f16' | 'bf16'

/** Rotary positions: angle = position * frequency, scaling already applied. */
export interface RopeSpec {
  /** The first `rotaryDim` of a head's dimensions are rotated, i with i + rotaryDim / 2. */
  rotaryDim: number
  /** [rotaryDim / 2] */
  inverseFrequencies: Float64Array
  /** Cosines and sines are multiplied by it; 1 but for yarn and longrope, which call it the attention factor. */
  scale: number
}

/** A mixture of experts: a router's f32 softmax over `count` chooses `perToken` of them for each token. */
export interface ExpertsSpec {
  count: number
  perToken: number
  /** The chosen experts' probabilities are divided by their sum. */
  normalize: boolean
}

export interface LayerSpec {
  /** A norm before attention and one before the MLP. */
  preNorm: boolean
  /** A norm after attention and one after the MLP, each before it is added to the residual stream. */
  postNorm: boolean
  /** How many positions a query sees, its own included; 0: all. */
  window: number
  /** Scores are q · k times this. */
  attentionScale: number
  /** A score s becomes cap * tanh(s / cap); 0: none. */
  attentionSoftCap: number
  /** Index in `ropes`, or -1 for no rotation. */
  rope: number
  /** RMS norm of q and k before the rotation: over each head, or over all heads at once. */
  qkNorm: 'none' | 'head' | 'width'
  /** Width of the MLP, or of each expert. */
  intermediateSize: number
  /** Absent for a dense MLP. */
  experts?: ExpertsSpec
}

/**
 * A low-rank adapter of a projection: y = W x + scale · B (A x). The weights have the roles `<role>.lora_a` [rank, columns] and
 * `<role>.lora_b` [rows, rank]. A trainer of a model with adapters trains these alone, and the head.
 */
export interface AdapterSpec {
  /** The projection, as `layers.0.q` or `layers.3.experts.2.down`. */
  role: string
  rank: number
  scale: number
}

export interface ModelSpec {
  /** 'llama', 'qwen2', …: for messages only. */
  family: string
  /** Rows of the embedding in the checkpoint. */
  vocabSize: number
  /** Rows that the engine appends to the embedding and the unembedding, each the mean of the existing rows. */
  addedTokens: number
  hiddenSize: number
  layers: LayerSpec[]
  heads: number
  kvHeads: number
  headDim: number
  maxPositions: number
  norm: 'rms' | 'layer'
  normEps: number
  /** Added to the stored gamma of every norm: 1 in Gemma, else 0. */
  normOffset: number
  activation: 'silu' | 'gelu' | 'gelu_tanh'
  /** true: act(gate(x)) * up(x); false: act(up(x)). */
  gated: boolean
  /** true: x + attention(norm1 x) + mlp(norm2 x); false: one after the other. */
  parallelResidual: boolean
  ropes: RopeSpec[]
  /** The embedding's rows are multiplied by it, rounded to the weights' dtype as training did. */
  embeddingScale: number
  /** What attention and MLP give is multiplied by it before it is added to the residual stream. */
  residualScale: number
  /** Logits are multiplied by it. */
  logitScale: number
  /** A logit z, already scaled, becomes cap * tanh(z / cap); 0: none. */
  logitSoftCap: number
  tiedEmbedding: boolean
  adapters?: AdapterSpec[]
  weights: WeightSource[]
}

/**
 * One weight: a byte range of a file, row-major. Matrices are [out, in] as in the file.
 *
 * Roles, with D = hiddenSize, H = heads * headDim, K = kvHeads * headDim, F = the layer's intermediateSize, V = vocabSize:
 * `embedding` [V, D], `unembedding` [V, D] (absent when tied or when the checkpoint has none), `final_norm` [D],
 * `final_norm_bias` [D], `head` [1, D] (absent without `score.weight`), and below `layers.<i>.`:
 * `attention_norm`, `mlp_norm` (with `preNorm`), `attention_post_norm`, `mlp_post_norm` (with `postNorm`) [D] and their `_bias`;
 * `q` [H, D], `k`, `v` [K, D], `o` [D, H] and their `_bias`; `q_norm`, `k_norm` [headDim], or [H] and [K] over the whole width;
 * `gate`, `up` [F, D], `down` [D, F]; `up_bias`, `gate_bias` [F], `down_bias` [D]; with experts instead of these
 * `router` [experts.count, D] and for each expert `experts.<e>.gate`, `experts.<e>.up` and `experts.<e>.down`.
 * With `rows`, the file's tensor is taller than the role and the selected rows make it up.
 */
export interface WeightSource {
  role: string
  /** Name in the file, for messages. */
  tensor: string
  file: string
  /** Absolute byte position in the file. */
  offset: number
  /** Size of the whole tensor in the file, in bytes. */
  bytes: number
  dtype: StoredDtype
  /** Shape of the whole tensor in the file. */
  shape: number[]
  rows?: RowSelection
}

/** `block` rows at `start`, at `start + stride`, …: one part of a fused projection that is interleaved by head. */
export interface RowSelection {
  start: number
  block: number
  stride: number
}
