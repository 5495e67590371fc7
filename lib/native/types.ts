/**
 * Types of what the addon exports, as native/addon implements them: batches in, scores out. docs/architecture.md explains a batch.
 */
import type { ModelSpec } from './spec.js'
export interface NativeInfo {
  version: string
  builder: 'node-gyp' | 'cmake'
  compiler: string
  /** Version of Node-API that the addon was built for. */
  napi: number
  cpu: {
    name: string
    /** The kernel set in use: results are bit-identical only under one of these. */
    kernels: string
    /** Kernel sets that were built and that this processor can run. */
    available: string[]
  }
  /** Size of the process-wide pool of compute threads. IMPLEX_THREADS sets it. */
  threads: number
}

export interface DeviceProbe {
  ok: boolean
  /** Why not. */
  reason?: string
  /** What was opened. */
  description?: string
}

export interface OpenOptions {
  device: 'cpu' | 'cuda'
  /** The device's module. Required unless `device` is 'cpu'. */
  devicePath?: string
  /** Storage of the weights. */
  dtype: 'f32' | 'bf16'
}

/** One ragged batch: see docs/architecture.md. */
export interface NativeBatch {
  /** [T] */
  tokens: Int32Array
  /** [S * 3]: start, length, parent. parent = -1, or an earlier segment that has none. */
  segments: Int32Array
  /** [K] indices of segments. */
  scored: Int32Array
  /**
   * What `values` are: `logprob` the sum over the segment's tokens of ln p(token | all before it); `reward_last` and `reward_mean` the head's
   * product with the last token's hidden row, or its mean over the segment; `reward_tokens` that product at each of the segment's tokens,
   * the last one with the bits of `reward_last`; `next_token` p(targetToken | the segment and its parent);
   * `hidden_last` the last token's hidden state after the final norm.
   */
  readout: 'logprob' | 'reward_last' | 'reward_mean' | 'reward_tokens' | 'next_token' | 'hidden_last'
  /** `next_token` only. */
  targetToken?: number
  /** `next_token` only: also p(otherToken). `values` are then pairs. */
  otherToken?: number
  /**
   * `reward_last`, `next_token`, `hidden_last`: [P] tokens of the batch to read at, in the place of the scored segments' last ones. `scored`
   * is empty then, and `values` are those of these tokens.
   */
  readAt?: Int32Array
  /** `logprob` only: also return each token's term. Default false. */
  tokenLogprobs?: boolean
}

export interface NativeScores {
  /**
   * [K]; `reward_tokens`: the scored segments' tokens, back to back; `hidden_last`: [K, hiddenSize]. With a head of several rows, each
   * reward is as many values.
   */
  values: Float64Array
  /** The scored segments' tokens, back to back. The first token of a segment without a parent has no term: 0. */
  tokenLogprobs?: Float32Array
  /** Tokens that each expert got, those of all layers with experts back to back; the last layer computes only rows that are read. */
  expertLoad?: Float64Array
}

/** Prompts to go on from. */
export interface NativeGenerateRequest {
  /** The prompts back to back. */
  tokens: Int32Array
  /** [prompts] */
  lengths: Int32Array
  /** [N] the prompt of each sequence. A prompt is computed once. */
  sequences: Int32Array
  /** [N * 2] high and low half of each sequence's seed. */
  seeds: Int32Array
  /** At least 1. A sequence also ends where the model's context does. */
  maxNewTokens: number
  /** 0: the most probable token. */
  temperature: number
  /** Samples from the fewest of the `topK` most probable tokens (0: all tokens) whose total probability reaches `topP` (1: all of them). */
  topP: number
  topK: number
  /** A sequence ends with the first of these tokens. */
  stop: Int32Array
}

export interface NativeGeneration {
  /** The sequences' new tokens back to back, a stop token included. */
  tokens: Int32Array
  /** [N] */
  lengths: Int32Array
  /** ln p(token | all before it) by the model itself, whatever the temperature, with the bits of read-out `logprob`. */
  logprobs: Float32Array
}

export interface NativeCancel {
  /** Idempotent. Queued calls reject at once, the running one within a layer. */
  cancel(): void
  readonly cancelled: boolean
}

export interface NativeModel {
  readonly weightBytes: number
  readonly device: string
  readonly kernels: string
  readonly hasHead: boolean
  readonly hasUnembedding: boolean
  readonly disposed: boolean
  /** Sets the explicit reward's head, [hiddenSize] or several rows of it. Calls of score() made before use the old one, those made after the new one. */
  setHead(weight: Float32Array): void
  /**
   * A model with the adapters of `spec` that shares this one's weights: of the spec's weights only the adapters' matrices are read, and
   * the head if there is one; without one the new model has this one's head.
   */
  withAdapters(spec: ModelSpec, cancel?: NativeCancel): Promise<NativeModel>
  /** What a sequence gets depends on its prompt, its seed and the options alone, not on the sequences beside it. */
  generate(request: NativeGenerateRequest, cancel?: NativeCancel): Promise<NativeGeneration>
  /** Calls are worked off in order, one at a time per thread of JavaScript. */
  score(batch: NativeBatch, cancel?: NativeCancel): Promise<NativeScores>
  /** Idempotent. Queued calls reject with ERR_DISPOSED; the running one with ERR_ABORTED, unless it is all but done. */
  dispose(): void
}

/** What a trainer minimizes, over what, and how. Native code fills in no defaults: those are of the callers in lib. */
export interface NativeTrainOptions {
  /**
   * `explicit`: Bradley-Terry over head · h; `implicit`: Bradley-Terry over beta (ln π - reference); `generative`: -ln p(Yes) of chosen,
   * -ln p(No) of rejected, their mean; `sft`: -ln π(chosen).
   */
  objective: 'explicit' | 'implicit' | 'generative' | 'sft'
  /** `explicit` only: the last token's hidden row, or the mean over the response. */
  pool: 'last' | 'mean'
  /** `implicit` only, positive. */
  beta: number
  /** `implicit` only: rewards are divided by the response's tokens. */
  lengthNormalized: boolean
  /** Bradley-Terry: the share of pairs that are taken to be labeled the wrong way, 0 to 0.5. */
  labelSmoothing: number
  /** Bradley-Terry: adds centering * (r⁺ + r⁻)² to each loss. */
  centering: number
  /** `generative` only, and required there. */
  yesToken?: number
  noToken?: number
  /**
   * PyTorch's rules. rmsprop: beta2 is its `alpha`; momentum: rmsprop and sgd. `weightDecayOn`: every parameter, or, as in transformers, all
   * but biases and norms.
   */
  optimizer: {
    kind: 'adamw' | 'rmsprop' | 'sgd'
    beta1: number
    beta2: number
    epsilon: number
    weightDecay: number
    weightDecayOn: 'all' | 'matrices'
    momentum: number
  }
  /** Parts that stay as they are. `blocks`: projections and their biases. With tied embeddings either name freezes the one matrix. */
  frozen: { embedding: boolean; unembedding: boolean; blocks: boolean; norms: boolean; head: boolean }
  /** Keep each layer's input only and compute the rest again: less memory, about a third more time, the same bits. */
  recompute: boolean
  /** `explicit` only: the head to begin with, [hiddenSize], where the checkpoint has none or another one. */
  head?: Float32Array
}

/** One micro-batch. Prompts may be shared: a segment for the prompt, chosen and rejected its children. */
export interface NativeTrainBatch {
  /** [T] */
  tokens: Int32Array
  /** [S * 3]: start, length, parent, as in NativeBatch. */
  segments: Int32Array
  /** [K] chosen and rejected of each pair in turn; `sft`: chosen only; `generative`: the verification prompts of chosen and rejected. */
  scored: Int32Array
  /** `implicit`: [K] the reference's ln π of each scored segment. Absent: no reference. */
  reference?: Float64Array
  /** Bradley-Terry: [pairs], how much larger r⁺ than r⁻ should be. Absent: 0. */
  margin?: Float64Array
  /** 1 / pairs of the whole optimizer step, so that gradients of micro-batches add up to those of the mean loss. */
  scale: number
  /** false: losses and rewards only. */
  gradients: boolean
}

export interface NativeTrainResult {
  /** [pairs], not scaled. */
  losses: Float64Array
  /** [K] as scored: the reward, or `generative` p(Yes), `sft` ln π. */
  rewards: Float64Array
}

/** A parameter that is trained: roles as in WeightSource, vectors with one row. */
export interface NativeParameter {
  role: string
  rows: number
  cols: number
}

/** Bytes. */
export interface NativeTrainMemory {
  /** What the products use. */
  weights: number
  /** f32 values and gradients. */
  parameters: number
  moments: number
  /** One micro-batch's; 0 where no batch was asked about. */
  activations: number
  /** The whole model in f32, which whoever saves it may hold at once. */
  saving: number
}

/** Calls are worked off in order, with those of models in the same thread of JavaScript. A call that fails changes nothing else. */
export interface NativeTrainer {
  readonly weightBytes: number
  readonly device: string
  readonly kernels: string
  /** What is trained, in the order of the state file. */
  readonly parameters: NativeParameter[]
  readonly disposed: boolean
  /**
   * Adds a micro-batch's gradients of `scale` * (sum of its losses).
   *
   * Rejects with ERR_NOT_FINITE naming the pair and the first bad tensor. After that, and after an abort half-way (step() then rejects with
   * ERR_ABORTED), call zeroGradients() or loadState() and begin the step again.
   */
  accumulate(batch: NativeTrainBatch, cancel?: NativeCancel): Promise<NativeTrainResult>
  /**
   * One optimizer step, after which the gradients are zero.
   * @param options maxNorm: clips the gradient to this norm; 0 does not
   * @returns the gradient's norm before clipping. Rejects with ERR_NOT_FINITE naming a parameter, with nothing changed.
   */
  step(options: { learningRate: number; maxNorm: number }): Promise<number>
  zeroGradients(): Promise<void>
  /** Row-major copy. Rejects with ERR_CONFIG_INVALID for what is not trained. */
  parameter(role: string): Promise<Float32Array>
  /** As it stands between steps. */
  gradient(role: string): Promise<Float32Array>
  /** Writes everything that the next step depends on but the gradients, to a file that appears whole or not at all. */
  saveState(path: string): Promise<void>
  /** Zeroes the gradients. Rejects with ERR_IO, with nothing changed, for a file that is damaged or of other parameters. */
  loadState(path: string): Promise<void>
  /** Steps taken, those before loadState() included. */
  steps(): Promise<number>
  score(batch: NativeBatch, cancel?: NativeCancel): Promise<NativeScores>
  /**
   * What a micro-batch of `tokens` tokens takes at most. `rows`: the tokens of its scored segments, or, for `explicit` with pool `last` and
   * `generative`, the scored segments. Answers at once.
   */
  memory(tokens: number, rows: number): NativeTrainMemory
  /** As of a model. */
  dispose(): void
}

/** What can stop a call: an AbortSignal, or a NativeCancel, which avoids one listener per call. */
export type Cancellation = AbortSignal | NativeCancel
