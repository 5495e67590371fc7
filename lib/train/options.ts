/**
 * The options of a training: their defaults are the paper's (arXiv 2507.07981), their checks are here and nowhere else.
 */
import { POOLS } from '../data/rewards.js'
import { tmpdir } from 'node:os'
import { resolve } from 'node:path'
import { ON_LONG, type OnLong } from '../data/encode.js'
import { defaultCacheDir } from '../data/reference-cache.js'
import { ON_ERROR } from '../data/score-rows.js'
import { ROWS_OPTIONS, type RowsOption } from '../data/shapes/names.js'
import { checkSetName, type TrainData } from '../data/sources.js'
import { DEVICES, DTYPES, type DeviceName, type DType } from '../native/device.js'
import {
  checkBoolean,
  checkInteger,
  checkNumber,
  checkObject,
  checkOneOf,
  checkString,
  invalidArgument,
  outOfRange,
} from '../core/arguments.js'
import { SCHEDULES, type Schedule } from './schedule.js'

export const TRAIN_KINDS = ['explicit', 'implicit', 'generative', 'sft'] as const
export type TrainKind = (typeof TRAIN_KINDS)[number]
export const OPTIMIZERS = ['adamw', 'rmsprop', 'sgd'] as const
export const FREEZABLE = ['embedding', 'unembedding', 'blocks', 'norms', 'head', 'all-but-head'] as const
export type Freezable = (typeof FREEZABLE)[number]

/** What decides the result, beside the model and the data. */
export interface TrainSettings {
  /**
   * `explicit`, `implicit`: the Bradley-Terry loss -ln σ(r⁺ - r⁻) over that kind of reward. `generative`: -ln p(Yes) on chosen and
   * -ln p(No) on rejected, averaged. `sft`: -ln π(chosen), or of the one response of a row with `responses`.
   */
  kind: TrainKind
  /**
   * implicit: 'initial', the untrained model; 'none', the reward is β ln π; or the folder of another checkpoint with the same tokenizer.
   * Its log-probabilities are computed before the training. Defaults to 'initial'.
   */
  reference: string
  /** implicit. Defaults to 0.01. */
  beta: number
  /** implicit: divide each reward by the response's number of tokens. Defaults to false. */
  lengthNormalized: boolean
  /** explicit: the head at the last token, or its mean over the response's tokens. Defaults to 'last'. */
  pool: 'last' | 'mean'
  /** explicit, implicit: ε in [0, 0.5): (1 - ε) -ln σ(d) + ε -ln σ(-d). Defaults to 0. */
  labelSmoothing: number
  /** explicit, implicit: c in + c (r⁺ + r⁻)², which keeps rewards near zero (arXiv 2312.09244). Defaults to 0. */
  centering: number
  /** Defaults to 5. */
  epochs: number
  /** Pairs per optimizer step; the last step of an epoch takes those that are left. Defaults to 32. */
  batchPairs: number
  /**
   * Most tokens that go through the model at once; the step's gradient is summed over as many micro-batches as that takes. Less takes less
   * memory and changes results by rounding only. Defaults to 4096 on the CPU and 16384 on a GPU.
   */
  microBatchTokens: number
  /** Defaults to 1e-6. */
  learningRate: number
  /** Defaults to 'constant'. */
  schedule: Schedule
  /** Steps over which the learning rate rises from 0, or below 1 their share of all steps. Defaults to 0. */
  warmupSteps: number
  /** As PyTorch's of the same names. Defaults to 'adamw'. */
  optimizer: (typeof OPTIMIZERS)[number]
  /** adamw. Defaults to 0.9 and 0.999. */
  adamBeta1: number
  adamBeta2: number
  /** rmsprop: its smoothing constant. Defaults to 0.99. */
  rmspropAlpha: number
  /** adamw, rmsprop. Defaults to 1e-8. */
  epsilon: number
  /** adamw: decoupled; rmsprop, sgd: added to the gradient. Defaults to 0. */
  weightDecay: number
  /** rmsprop, sgd. Defaults to 0. */
  momentum: number
  /** Clip the gradient to this norm. Defaults to 0: no clipping. */
  maxNorm: number
  /** Parts that stay as they are. With tied embeddings, freezing either one freezes both. Defaults to none. */
  freeze: Freezable[]
  /** Of the order of the data and of a new head. Defaults to 0. */
  seed: number
  /** 'bf16': weights and activations; the master weights, the moments and every sum stay f32. Defaults to 'f32'. */
  dtype: DType
  /** 'auto', 'default', 'none' or the path of a Jinja file; see RewardModelOptions. Defaults to 'auto'. */
  template: string
  /** Rows beyond the model's context; see RewardModelOptions. Defaults to 'error'. */
  onLong: OnLong
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
  /** Defaults to $XDG_CACHE_HOME/implex or ~/.cache/implex. */
  cacheDir: string
  /** Threads that tokenize. Defaults to 1. */
  encodeThreads: number
  /** The time told to templates that ask for it. Defaults to now; a resumed run keeps the first one. */
  now: Date
  /** Stops within a micro-batch with ERR_ABORTED; the last checkpoint stays. */
  signal?: AbortSignal
  /** Stops in good order: the step under way is finished, a checkpoint written, and the result has `interrupted`. */
  drain?: AbortSignal
  onStep?: (step: TrainStep) => void
  onEvaluation?: (evaluation: TrainEvaluation) => void
  /** What the run is doing before the first step, in a few words. */
  onStage?: (stage: string) => void
  /** Told of what goes wrong without stopping the run. Defaults to process.emitWarning. */
  onWarning: (message: string) => void
}

export type TrainOptions = Partial<TrainSettings & TrainConduct> & { kind: TrainKind; out: string }

/** One optimizer step. Rewards and losses are those before the update. */
export interface TrainStep {
  /** 1-based. */
  step: number
  steps: number
  /** Epochs completed, as a fraction. */
  epoch: number
  epochs: number
  /** Mean over the step's pairs. */
  loss: number
  /** Ties half; like the margin and the rewards absent for sft. */
  accuracy?: number
  margin?: number
  chosenReward?: number
  rejectedReward?: number
  learningRate: number
  /** Before clipping. */
  gradientNorm: number
  pairs: number
  /** Of all sequences, as if no prompt were shared. */
  tokens: number
  /** Of this step. */
  seconds: number
}

/** One data set evaluated during training. */
export interface TrainEvaluation {
  name: string
  step: number
  epoch: number
  pairs: number
  loss: number
  accuracy?: number
  tieShare?: number
  meanChosen: number
  meanRejected?: number
  meanMargin?: number
  normalizedMargin?: number
  brier?: number
  ece?: number
  seconds: number
}

export interface ResolvedOptions {
  settings: Omit<TrainSettings, 'microBatchTokens'> & { microBatchTokens?: number }
  conduct: TrainConduct
}

/** Checks every option and fills in the defaults. @throws TypeError, RangeError naming the option */
export function resolveTrainOptions(options: TrainOptions): ResolvedOptions {
  checkObject('options', options)
  const settings = resolveSettings(options)
  const conduct = resolveConduct(options)
  if (conduct.head !== undefined && settings.kind !== 'explicit')
    throw outOfRange('head', 'left out: only the explicit kind has a head', conduct.head)
  return { settings, conduct }
}

function resolveSettings(options: TrainOptions): Settings {
  const { kind, microBatchTokens } = options
  checkOneOf('kind', kind, TRAIN_KINDS)
  const settings = {
    kind,
    reference: options.reference ?? 'initial',
    beta: options.beta ?? 0.01,
    lengthNormalized: options.lengthNormalized ?? false,
    pool: options.pool ?? 'last',
    labelSmoothing: options.labelSmoothing ?? 0,
    centering: options.centering ?? 0,
    epochs: options.epochs ?? 5,
    batchPairs: options.batchPairs ?? 32,
    learningRate: options.learningRate ?? 1e-6,
    schedule: options.schedule ?? 'constant',
    warmupSteps: options.warmupSteps ?? 0,
    optimizer: options.optimizer ?? 'adamw',
    adamBeta1: options.adamBeta1 ?? 0.9,
    adamBeta2: options.adamBeta2 ?? 0.999,
    rmspropAlpha: options.rmspropAlpha ?? 0.99,
    epsilon: options.epsilon ?? 1e-8,
    weightDecay: options.weightDecay ?? 0,
    momentum: options.momentum ?? 0,
    maxNorm: options.maxNorm ?? 0,
    freeze: options.freeze ?? [],
    seed: options.seed ?? 0,
    dtype: options.dtype ?? 'f32',
    template: options.template ?? 'auto',
    onLong: options.onLong ?? 'error',
    evaluateEpochs: options.evaluateEpochs ?? 1,
    ...(microBatchTokens === undefined ? {} : { microBatchTokens }),
  } satisfies Settings

  checkString('reference', settings.reference)
  checkNumber('beta', settings.beta, Number.MIN_VALUE)
  checkBoolean('lengthNormalized', settings.lengthNormalized)
  checkOneOf('pool', settings.pool, POOLS)
  checkNumber('labelSmoothing', settings.labelSmoothing, 0, 0.4999999)
  checkNumber('centering', settings.centering, 0)
  checkInteger('epochs', settings.epochs, 1, 1_000_000)
  checkInteger('batchPairs', settings.batchPairs, 1, 1 << 20)
  if (microBatchTokens !== undefined) checkInteger('microBatchTokens', microBatchTokens, 1, 2 ** 24)
  checkNumber('learningRate', settings.learningRate, 0)
  checkOneOf('schedule', settings.schedule, SCHEDULES)
  checkNumber('warmupSteps', settings.warmupSteps, 0, Number.MAX_SAFE_INTEGER)
  if (settings.warmupSteps >= 1) checkInteger('warmupSteps', settings.warmupSteps, 1)
  checkOneOf('optimizer', settings.optimizer, OPTIMIZERS)
  checkNumber('adamBeta1', settings.adamBeta1, 0, 0.9999999)
  checkNumber('adamBeta2', settings.adamBeta2, 0, 0.9999999)
  checkNumber('rmspropAlpha', settings.rmspropAlpha, 0, 0.9999999)
  checkNumber('epsilon', settings.epsilon, 1e-30)
  checkNumber('weightDecay', settings.weightDecay, 0)
  checkNumber('momentum', settings.momentum, 0, 0.9999999)
  checkNumber('maxNorm', settings.maxNorm, 0)
  if (!Array.isArray(settings.freeze)) throw invalidArgument('freeze', 'a list of parts', settings.freeze)
  for (const part of settings.freeze) checkOneOf('freeze', part, FREEZABLE)
  checkInteger('seed', settings.seed, 0)
  checkOneOf('dtype', settings.dtype, DTYPES)
  checkString('template', settings.template)
  checkOneOf('onLong', settings.onLong, ON_LONG)
  checkInteger('evaluateEpochs', settings.evaluateEpochs, 1)

  // An option that the kind or the optimizer would ignore is a misunderstanding worth an error.
  for (const [name, { holds, whose }] of Object.entries(APPLIES)) {
    const given: unknown = options[name as keyof TrainSettings]
    if (given !== undefined && !holds(settings)) throw outOfRange(name, `left out: it is for ${whose} only`, given)
  }
  if (settings.freeze.includes('all-but-head') && kind !== 'explicit')
    throw outOfRange('freeze', `without "all-but-head": the ${kind} kind has no head`, 'all-but-head')
  return settings
}

type Settings = ResolvedOptions['settings']

const implicit = { holds: (s: Settings) => s.kind === 'implicit', whose: 'the implicit kind' }
const pairwise = {
  holds: (s: Settings) => s.kind === 'explicit' || s.kind === 'implicit',
  whose: 'the explicit and implicit kinds',
}
const adamw = { holds: (s: Settings) => s.optimizer === 'adamw', whose: 'adamw' }

/** Options that only some kinds or optimizers have. */
const APPLIES: Partial<Record<keyof TrainSettings, { holds: (s: Settings) => boolean; whose: string }>> = {
  reference: implicit,
  beta: implicit,
  lengthNormalized: implicit,
  pool: { holds: (s) => s.kind === 'explicit', whose: 'the explicit kind' },
  labelSmoothing: pairwise,
  centering: pairwise,
  adamBeta1: adamw,
  adamBeta2: adamw,
  rmspropAlpha: { holds: (s) => s.optimizer === 'rmsprop', whose: 'rmsprop' },
  epsilon: { holds: (s) => s.optimizer !== 'sgd', whose: 'adamw and rmsprop' },
  momentum: { holds: (s) => s.optimizer !== 'adamw', whose: 'rmsprop and sgd' },
}

/** The settings that mean something for this kind and optimizer: what a run's config.json holds. */
export function applicableSettings(settings: Settings): Partial<TrainSettings> {
  return Object.fromEntries(
    Object.entries(settings).filter(([name]) => APPLIES[name as keyof TrainSettings]?.holds(settings) ?? true),
  )
}

function resolveConduct(options: TrainOptions): TrainConduct {
  const { out, head, memoryLimit, signal, drain, onStep, onEvaluation, onStage } = options
  const conduct = {
    resume: options.resume ?? false,
    evaluation: options.evaluation ?? {},
    rows: options.rows ?? 'auto',
    onError: options.onError ?? 'stop',
    device: options.device ?? 'auto',
    recompute: options.recompute ?? false,
    checkpointSteps: options.checkpointSteps ?? 0,
    cache: options.cache ?? true,
    cacheDir: options.cacheDir ?? defaultCacheDir(),
    encodeThreads: options.encodeThreads ?? 1,
    now: options.now ?? new Date(),
    onWarning: options.onWarning ?? ((message: string) => process.emitWarning(message, 'ImplexWarning')),
  }
  checkString('out', out)
  if (out === '' || out.includes('\0')) throw invalidArgument('out', `a path such as ${tmpdir()}/run`, out)
  checkBoolean('resume', conduct.resume)
  if (head !== undefined && typeof head !== 'string' && !(head instanceof Float32Array))
    throw invalidArgument('head', 'a path or a Float32Array', head)
  checkObject('evaluation', conduct.evaluation)
  for (const name of Object.keys(conduct.evaluation)) checkSetName(name)
  checkOneOf('rows', conduct.rows, ROWS_OPTIONS)
  checkOneOf('onError', conduct.onError, ON_ERROR)
  checkOneOf('device', conduct.device, DEVICES)
  checkBoolean('recompute', conduct.recompute)
  checkInteger('checkpointSteps', conduct.checkpointSteps, 0)
  if (memoryLimit !== undefined) checkNumber('memoryLimit', memoryLimit, 1)
  checkBoolean('cache', conduct.cache)
  checkString('cacheDir', conduct.cacheDir)
  checkInteger('encodeThreads', conduct.encodeThreads, 1, 64)
  if (!(conduct.now instanceof Date) || Number.isNaN(conduct.now.getTime()))
    throw invalidArgument('now', 'a valid Date', conduct.now)
  for (const [name, value] of Object.entries({ signal, drain })) {
    if (value !== undefined && !(value instanceof AbortSignal)) throw invalidArgument(name, 'an AbortSignal', value)
  }
  for (const [name, value] of Object.entries({ onStep, onEvaluation, onStage, onWarning: conduct.onWarning })) {
    if (value !== undefined && typeof value !== 'function') throw invalidArgument(name, 'a function', value)
  }
  return {
    ...conduct,
    out: resolve(out),
    ...(head === undefined ? {} : { head }),
    ...(memoryLimit === undefined ? {} : { memoryLimit }),
    ...(signal === undefined ? {} : { signal }),
    ...(drain === undefined ? {} : { drain }),
    ...(onStep === undefined ? {} : { onStep }),
    ...(onEvaluation === undefined ? {} : { onEvaluation }),
    ...(onStage === undefined ? {} : { onStage }),
  }
}
