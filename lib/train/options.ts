/**
 * The types of a training's options and of what it tells. The defaults are the paper's (arXiv 2507.07981); they stand in option-table.ts, others in recipes.ts.
 */
import type { TrainOnLong } from '../data/encode.js'
import type { TrainData } from '../data/sources.js'
import type { DeviceName, DType } from '../native/device.js'
import type { Schedule } from './schedule.js'
import type { Border } from '../checkpoint/trained-with.js'
import type { HeadPlaceName } from '../models/head-place.js'
import type { RowsOption } from '../data/shapes/names.js'

export const TRAIN_KINDS = ['explicit', 'implicit', 'generative', 'sft'] as const
export type TrainKind = (typeof TRAIN_KINDS)[number]
/** Named sets of defaults: recipes.ts. */
export const RECIPE_NAMES = ['paper', 'trl-reward', 'trl-dpo'] as const
export type RecipeName = (typeof RECIPE_NAMES)[number]
export const OPTIMIZERS = ['adamw', 'rmsprop', 'sgd'] as const
export const FREEZABLE = ['embedding', 'unembedding', 'blocks', 'norms', 'head', 'all-but-head'] as const
/** The value of `loraTargets` that means every projection, named as in peft. */
export const ALL_LINEAR = 'all-linear'
export type Freezable = (typeof FREEZABLE)[number]

/** What decides the result, beside the model and the data. */
export interface TrainSettings {
  /**
   * `explicit`, `implicit`: the Bradley-Terry loss -ln σ(r⁺ - r⁻) over that kind of reward. `generative`: -ln p(Yes) on chosen and
   * -ln p(No) on rejected, averaged. `sft`: -ln π(chosen), or of the one response of a row with `responses`.
   */
  kind: TrainKind
  /**
   * The set of defaults: 'paper', those named here, or with 'trl-reward' (explicit) and 'trl-dpo' (implicit) those of TRL 1.13's RewardTrainer
   * and DPOTrainer, docs/trl.md. Options that are given override it. Defaults to 'paper'.
   */
  recipe: RecipeName
  /**
   * implicit: 'initial', the untrained model; 'none', the reward is β ln π; or the folder of another checkpoint with the same tokenizer.
   * Its log-probabilities are computed before the training. Defaults to 'initial'.
   */
  reference: string
  /** implicit: scale of the reward. Defaults to 0.01. */
  beta: number
  /** implicit: divide each reward by the response's number of tokens. Defaults to false. */
  lengthNormalized: boolean
  /** explicit: the head at the last token, or its mean over the response's tokens. Defaults to 'last'. */
  pool: 'last' | 'mean'
  /** explicit, implicit: ε in [0, 0.5): (1 - ε) -ln σ(d) + ε -ln σ(-d). Defaults to 0. */
  labelSmoothing: number
  /** explicit, implicit: c in + c (r⁺ + r⁻)², which keeps rewards near zero (arXiv 2312.09244). Defaults to 0. */
  centering: number
  /** Passes over the data. Defaults to 5. */
  epochs: number
  /** Pairs per optimizer step; the last step of an epoch takes those that are left. Defaults to 32. */
  batchPairs: number
  /**
   * Most tokens that go through the model at once; the step's gradient is summed over as many micro-batches as that takes. Less takes less
   * memory and changes results by rounding only. Defaults to 4096 on the CPU and 16384 on a GPU.
   */
  microBatchTokens: number
  /** Peak of the schedule. Defaults to 1e-6. */
  learningRate: number
  /** How the learning rate goes on after the warm-up, as in transformers. Defaults to 'constant'. */
  schedule: Schedule
  /** Steps over which the learning rate rises from 0, or below 1 their share of all steps. Defaults to 0. */
  warmupSteps: number
  /** As PyTorch's of the same names. Defaults to 'adamw'. */
  optimizer: (typeof OPTIMIZERS)[number]
  /** adamw: decay of the mean of the gradients. Defaults to 0.9. */
  adamBeta1: number
  /** adamw: decay of the mean of their squares. Defaults to 0.999. */
  adamBeta2: number
  /** rmsprop: its smoothing constant. Defaults to 0.99. */
  rmspropAlpha: number
  /** adamw, rmsprop: added to the denominator. Defaults to 1e-8. */
  epsilon: number
  /** adamw: decoupled; rmsprop, sgd: added to the gradient. Defaults to 0. */
  weightDecay: number
  /** 'all' parameters, or as in transformers' Trainer the 'matrices': not norms and biases. Defaults to 'all'. */
  weightDecayOn: 'all' | 'matrices'
  /** rmsprop, sgd: share of the step before that is kept. Defaults to 0. */
  momentum: number
  /** Clip the gradient to this norm. Defaults to 0: no clipping. */
  maxNorm: number
  /**
   * Train a LoRA adapter of this rank, and the head of the explicit kind, and leave the model itself as it is. Defaults to none: the model is
   * trained.
   */
  loraRank?: number
  /** With `loraRank`: the adapter's part is multiplied by this over the rank. Defaults to twice the rank. */
  loraAlpha?: number
  /**
   * With `loraRank`: which projections get a part, by the names that transformers and peft have for them, `q_proj` or `self_attn.q_proj`.
   * Defaults to all-linear: every projection of attention and MLP, and in a mixture of experts those of attention.
   */
  loraTargets: string[]
  /** With `loraRank`: multiply by `loraAlpha` over the root of the rank (arXiv 2312.03732). Defaults to false. */
  rslora: boolean
  /** Parts that stay as they are. With tied embeddings, freezing either one freezes both. Defaults to none. */
  freeze: Freezable[]
  /** Decides the order of the data and a new head. Defaults to 0. */
  seed: number
  /** 'bf16': weights and activations; the master weights, the moments and every sum stay f32. Defaults to 'f32'. */
  dtype: DType
  /** 'auto', 'default', 'none' or the path of a Jinja file; see RewardModelOptions. Defaults to 'auto'. */
  template: string
  /** explicit, implicit, sft: see RewardModelOptions. Defaults to what implex trained the checkpoint with, if it did, else to 'whole'. */
  border: Border
  /** explicit: with pool 'last', see RewardModelOptions. Defaults to what a head's checkpoint says, and for a new head to 'last'. */
  headAt: HeadPlaceName
  /** Most tokens of prompt and response, those after the head's place too. Defaults to 0: as many as the model's context has. */
  maxLength: number
  /**
   * Rows beyond `maxLength` or the model's context; see RewardModelOptions. Also, for implicit and sft, 'truncate-end': sequences end early, and
   * rows with too long a prompt are left out. Defaults to 'error'.
   */
  onLong: TrainOnLong
  /** Evaluate after every so many epochs, and before the first; the last epoch always. Defaults to 1. */
  evaluateEpochs: number
}

/** What changes nothing but speed, memory, and what is told meanwhile. */
export interface TrainConduct {
  /** Folder of the run; made if it is not there. */
  out: string
  /** Go on with the run in `out`, from its last checkpoint; start it when there is none. Defaults to false: a used folder is an error. */
  resume: boolean
  /** explicit: the head [hiddenSize] to start from, or a file with `score.weight`. Defaults to the checkpoint's own, else a random one. */
  head?: string | Float32Array
  /** Data sets by name, evaluated during training. Defaults to none. */
  evaluation: Record<string, TrainData>
  /** The shape of the rows of every data set; `auto` tells it by each row's keys, docs/formats.md lists them. Defaults to 'auto'. */
  rows: RowsOption
  /** A bad row ends the run before its first step, or is counted and left out. Defaults to 'stop'. */
  onError: 'stop' | 'skip'
  /** 'auto' takes an NVIDIA GPU if the CUDA module is built, verified and works, else the CPU. Defaults to 'auto'. */
  device: 'auto' | DeviceName
  /** Compute activations again in the backward pass instead of keeping them: less memory, about a third more time. Defaults to false. */
  recompute: boolean
  /** Steps between checkpoints. Defaults to 0: one at the end of each epoch, and one every ten minutes. */
  checkpointSteps: number
  /** Bytes that the run may take. Defaults to what the machine, or the container, has free. */
  memoryLimit?: number
  /** Keep reference log-probabilities on disk. Defaults to true. */
  cache: boolean
  /** Where they are kept. Defaults to $XDG_CACHE_HOME/implex or ~/.cache/implex. */
  cacheDir: string
  /** Threads that tokenize. Defaults to 1. */
  encodeThreads: number
  /** The time told to templates that ask for it. Defaults to now; a resumed run keeps the first one. */
  now: Date
  /** Stops within a micro-batch with ERR_ABORTED; the last checkpoint stays. */
  signal?: AbortSignal
  /** Stops in good order: the step under way is finished, a checkpoint written, and the result has `interrupted`. */
  drain?: AbortSignal
  /** Told of each optimizer step. */
  onStep?: (step: TrainStep) => void
  /** Told of each evaluation. */
  onEvaluation?: (evaluation: TrainEvaluation) => void
  /** What the run is doing before the first step, in a few words. */
  onStage?: (stage: string) => void
  /** Told of what goes wrong without stopping the run. Defaults to process.emitWarning. */
  onWarning: (message: string) => void
}

/** Everything but `kind` and `out` has a default. */
export type TrainOptions = Partial<TrainSettings & TrainConduct> & { kind: TrainKind; out: string }

/** One optimizer step. Rewards and losses are those before the update. */
export interface TrainStep {
  /** 1-based. */
  step: number
  /** Steps of the whole run. */
  steps: number
  /** Epochs completed, as a fraction. */
  epoch: number
  /** Epochs of the whole run. */
  epochs: number
  /** Mean over the step's pairs, in nats. */
  loss: number
  /** Share of pairs with r⁺ > r⁻, ties half; like the margin and the rewards absent for sft. */
  accuracy?: number
  /** Mean of r⁺ - r⁻. */
  margin?: number
  /** Mean of r⁺. */
  chosenReward?: number
  /** Mean of r⁻. */
  rejectedReward?: number
  /** Learning rate of this step. */
  learningRate: number
  /** Norm of the whole gradient before clipping. */
  gradientNorm: number
  /** Pairs of this step. */
  pairs: number
  /** Tokens of all its sequences, as if no prompt were shared. */
  tokens: number
  /** Seconds that it took. */
  seconds: number
}

/** One data set evaluated during training. */
export interface TrainEvaluation {
  /** Name of the data set. */
  name: string
  /** Steps taken before it. */
  step: number
  /** Epochs completed before it. */
  epoch: number
  /** Pairs, or for sft responses, of the set. */
  pairs: number
  /** Mean of the training's own loss, in nats. */
  loss: number
  /** See PairStatistics for this and the following ones; sft has `meanChosen` alone. */
  accuracy?: number
  tieShare?: number
  meanChosen: number
  meanRejected?: number
  meanMargin?: number
  normalizedMargin?: number
  brier?: number
  ece?: number
  /** Seconds that it took. */
  seconds: number
}
