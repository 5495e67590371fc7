/**
 * A checkpoint as plain data: what the native engine needs to know of a model, and where each weight lies on disk.
 * native/model/spec.h has the same names in snake_case. Nothing here knows a model family; families.ts makes these.
 */

/** Element types that weights may be stored in. */
export type StoredDtype = 'f32' | 'f16' | 'bf16'

export interface ModelSpec {
  /** 'llama', 'qwen2', …: for messages only. */
  family: string
  /** Rows of the embedding in the checkpoint. */
  vocabSize: number
  /** Rows that the engine appends to the embedding and the unembedding, each the mean of the existing rows. */
  addedTokens: number
  hiddenSize: number
  layers: number
  heads: number
  kvHeads: number
  headDim: number
  intermediateSize: number
  maxPositions: number
  norm: 'rms' | 'layer'
  normEps: number
  activation: 'silu' | 'gelu' | 'gelu_tanh'
  /** true: act(gate(x)) * up(x); false: act(up(x)). */
  gated: boolean
  /** true: x + attention(norm1 x) + mlp(norm2 x); false: one after the other. */
  parallelResidual: boolean
  /** RMS norm over each head of q and k, before the rotation. */
  qkNorm: boolean
  /** The first `rotaryDim` of a head's dimensions are rotated, i with i + rotaryDim / 2. */
  rotaryDim: number
  /** [rotaryDim / 2]; angle = position * frequency, scaling already applied. */
  inverseFrequencies: Float64Array
  tiedEmbedding: boolean
  weights: WeightSource[]
}

/**
 * One weight: a byte range of a file, row-major. Matrices are [out, in] as in the file.
 *
 * Roles, with D = hiddenSize, H = heads * headDim, K = kvHeads * headDim, F = intermediateSize, V = vocabSize:
 * `embedding` [V, D], `unembedding` [V, D] (absent when tied or when the checkpoint has none), `final_norm` [D],
 * `final_norm_bias` [D], `head` [1, D] (absent without `score.weight`), and below `layers.<i>.`:
 * `attention_norm`, `mlp_norm` [D] and their `_bias`; `q` [H, D], `k`, `v` [K, D], `o` [D, H] and their `_bias`;
 * `q_norm`, `k_norm` [headDim]; `gate`, `up` [F, D], `down` [D, F]; `up_bias` [F], `down_bias` [D].
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
