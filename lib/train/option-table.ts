/**
 * The table of training options. A row tells an option's default, what it may be, which kinds and optimizers have it, its flag and what
 * --help says of it. The checks, the flags of `implex train`, the names that an options file may hold, what a run folder records, the
 * plain copies for the engine and the table of docs/api.md come from here; the sentence for TypeScript's users stands with the interface
 * in options.ts, and the compiler proves that the two agree.
 *
 * Rows are in the order of --help. A default stands in its row alone; recipes.ts has named sets of others, which resolveTrainOptions() asks
 * first.
 */
import { defaultCacheDir } from '../data/reference-cache.js'
import { TRAIN_ON_LONG } from '../data/encode.js'
import { POOLS } from '../data/rewards.js'
import { ON_ERROR } from '../data/score-rows.js'
import { ROWS_OPTIONS } from '../data/shapes/names.js'
import { DEVICES, DTYPES } from '../native/device.js'
import {
  boolean,
  callback,
  date,
  folder,
  head,
  integer,
  names,
  number,
  one,
  sets,
  signal,
  some,
  steps,
  text,
} from './option-values.js'
import type { Value } from './option-values.js'
import {
  ALL_LINEAR,
  FREEZABLE,
  OPTIMIZERS,
  RECIPE_NAMES,
  TRAIN_KINDS,
  type TrainConduct,
  type TrainKind,
  type TrainSettings,
} from './options.js'
import { BORDERS } from '../checkpoint/trained-with.js'
import { HEAD_PLACES } from '../models/head-place.js'
import { SCHEDULES } from './schedule.js'

export interface OptionRow<T = unknown> {
  value: Value<T>
  /** Absent: none, or one that depends on the device or the checkpoint. */
  default?: T
  /** A default that is made anew for each run. */
  make?: () => T
  /** The only kinds or optimizers that have the option. */
  kinds?: readonly TrainKind[]
  optimizers?: readonly TrainSettings['optimizer'][]
  /** Only runs with `loraRank` have the option. */
  lora?: true
  /** Where the engine takes the value as it is. */
  engine?: 'training' | 'optimizer'
  /** What --help calls the value, '' for a switch, and what it says of the option. Absent: an option of TypeScript alone. */
  flag?: readonly [argument: string, help: string]
  /** The default in words, where the value itself does not say it. */
  shown?: string
  /** What the flag's number is multiplied by. */
  unit?: number
  /** An option of one call: no options file holds it. */
  once?: true
}

/** `decides`: the option decides the result; the others change speed, memory, and what is told meanwhile. */
type Rows = { [K in keyof TrainSettings]: OptionRow<TrainSettings[K]> & { decides: true } } & {
  [K in keyof TrainConduct]-?: OptionRow<NonNullable<TrainConduct[K]>> & { decides?: never }
}

const GENERAL = {
  kind: { decides: true, value: one(TRAIN_KINDS), flag: ['<kind>', 'explicit, implicit, generative or sft'] },
  recipe: {
    decides: true,
    value: one(RECIPE_NAMES),
    default: 'paper',
    flag: ['<name>', 'set of defaults: paper, trl-reward or trl-dpo'],
  },
  out: { value: folder, flag: ['<dir>', 'folder of the run; made if it is not there'] },
  evaluation: { value: sets, make: () => ({}), flag: ['<name=file...>', 'data sets to evaluate during training'] },
  rows: { value: one(ROWS_OPTIONS), default: 'auto', flag: ['<shape>', 'shape of the rows, see docs/formats.md'] },
  onError: {
    value: one(ON_ERROR),
    default: 'stop',
    flag: ['<what>', 'a bad row ends the run (stop) or is left out (skip)'],
  },
  evaluateEpochs: { decides: true, value: integer(1), default: 1, flag: ['<n>', 'epochs between evaluations'] },
  resume: { value: boolean, default: false, flag: ['', 'go on from the last checkpoint in --out'], once: true },
} as const satisfies Partial<Rows>

const implicit = { decides: true, kinds: ['implicit'] } as const
const pairwise = { decides: true, kinds: ['explicit', 'implicit'], engine: 'training' } as const
const adamw = { decides: true, optimizers: ['adamw'] } as const

const LOSS = {
  reference: {
    ...implicit,
    value: text,
    default: 'initial',
    flag: ['<dir>', 'implicit: initial, none or a checkpoint'],
  },
  beta: {
    ...implicit,
    value: number(Number.MIN_VALUE),
    default: 0.01,
    engine: 'training',
    flag: ['<number>', 'implicit: scale of the reward'],
  },
  lengthNormalized: {
    ...implicit,
    value: boolean,
    default: false,
    engine: 'training',
    flag: ['', 'implicit: divide rewards by the tokens of the response'],
  },
  pool: {
    decides: true,
    value: one(POOLS),
    default: 'last',
    kinds: ['explicit'],
    engine: 'training',
    flag: ['<where>', 'explicit: last token, or mean over the response'],
  },
  head: {
    value: head,
    kinds: ['explicit'],
    flag: ['<file>', 'explicit: score.weight to start from'],
    shown: "the checkpoint's, else random",
  },
  headAt: {
    decides: true,
    value: one(HEAD_PLACES),
    kinds: ['explicit'],
    flag: ['<token>', 'explicit: last or last-non-pad'],
    shown: "as the head's checkpoint says",
  },
  labelSmoothing: {
    ...pairwise,
    value: number(0, 0.4999999),
    default: 0,
    flag: ['<number>', 'share of labels taken to be wrong'],
  },
  centering: { ...pairwise, value: number(0), default: 0, flag: ['<number>', 'weight of (r+ + r-)^2 in the loss'] },
} as const satisfies Partial<Rows>

const OPTIMIZATION = {
  epochs: { decides: true, value: integer(1, 1_000_000), default: 5, flag: ['<n>', 'passes over the data'] },
  batchPairs: { decides: true, value: integer(1, 2 ** 20), default: 32, flag: ['<n>', 'pairs per step'] },
  microBatchTokens: {
    decides: true,
    value: integer(1, 2 ** 24),
    flag: ['<n>', 'most tokens at once'],
    shown: '4096 on the CPU',
  },
  learningRate: { decides: true, value: number(0), default: 1e-6, flag: ['<number>', ''] },
  schedule: {
    decides: true,
    value: one(SCHEDULES),
    default: 'constant',
    flag: ['<name>', 'constant, linear or cosine'],
  },
  warmupSteps: { decides: true, value: steps, default: 0, flag: ['<number>', 'steps, or below 1 a share of all'] },
  optimizer: { decides: true, value: one(OPTIMIZERS), default: 'adamw', flag: ['<name>', 'adamw, rmsprop or sgd'] },
  adamBeta1: { ...adamw, value: number(0, 0.9999999), default: 0.9, flag: ['<number>', ''] },
  adamBeta2: { ...adamw, value: number(0, 0.9999999), default: 0.999, flag: ['<number>', ''] },
  rmspropAlpha: {
    decides: true,
    value: number(0, 0.9999999),
    default: 0.99,
    optimizers: ['rmsprop'],
    flag: ['<number>', ''],
  },
  epsilon: {
    decides: true,
    value: number(1e-30),
    default: 1e-8,
    optimizers: ['adamw', 'rmsprop'],
    engine: 'optimizer',
    flag: ['<number>', 'adamw, rmsprop'],
  },
  weightDecay: { decides: true, value: number(0), default: 0, engine: 'optimizer', flag: ['<number>', ''] },
  weightDecayOn: {
    decides: true,
    value: one(['all', 'matrices']),
    default: 'all',
    engine: 'optimizer',
    flag: ['<what>', 'all parameters, or matrices: not norms, biases'],
  },
  momentum: {
    decides: true,
    value: number(0, 0.9999999),
    default: 0,
    optimizers: ['rmsprop', 'sgd'],
    engine: 'optimizer',
    flag: ['<number>', 'rmsprop, sgd'],
  },
  maxNorm: {
    decides: true,
    value: number(0),
    default: 0,
    flag: ['<number>', 'clip the gradient to this norm'],
    shown: '0, no clipping',
  },
  freeze: {
    decides: true,
    value: some(FREEZABLE),
    make: () => [],
    flag: ['<parts>', `some of ${FREEZABLE.join(', ')}`],
  },
  seed: { decides: true, value: integer(0), default: 0, flag: ['<n>', 'of the order of the data and of a new head'] },
} as const satisfies Partial<Rows>

const lora = { decides: true, lora: true } as const

const LORA = {
  loraRank: {
    ...lora,
    value: integer(1, 1 << 12),
    flag: ['<n>', 'train a LoRA adapter of this rank alone'],
    shown: 'none, the model is trained',
  },
  loraAlpha: {
    ...lora,
    value: number(Number.MIN_VALUE),
    flag: ['<number>', 'its scale is this / rank'],
    shown: 'twice the rank',
  },
  loraTargets: {
    ...lora,
    value: names,
    make: () => [ALL_LINEAR],
    flag: ['<names>', 'projections, such as q_proj,v_proj'],
    shown: ALL_LINEAR,
  },
  rslora: { ...lora, value: boolean, default: false, flag: ['', 'its scale is alpha / root of the rank'] },
} as const satisfies Partial<Rows>

const RUNNING = {
  device: { value: one(DEVICES), default: 'auto', flag: ['<device>', 'auto, cpu or cuda'] },
  dtype: {
    decides: true,
    value: one(DTYPES),
    default: 'f32',
    flag: ['<type>', 'weights and activations: f32 or bf16'],
  },
  recompute: {
    value: boolean,
    default: false,
    engine: 'training',
    flag: ['', 'less memory, about a third more time'],
  },
  template: { decides: true, value: text, default: 'auto', flag: ['<name>', 'auto, default, none, or a .jinja file'] },
  border: {
    decides: true,
    value: one(BORDERS),
    kinds: ['explicit', 'implicit', 'sft'],
    flag: ['<rule>', 'tokenize prompt and response whole or separate'],
    shown: 'as trained, else whole',
  },
  maxLength: {
    decides: true,
    value: integer(0),
    default: 0,
    flag: ['<n>', 'most tokens of prompt and response'],
    shown: "the model's context",
  },
  onLong: {
    decides: true,
    value: one(TRAIN_ON_LONG),
    default: 'error',
    flag: ['<what>', 'too long rows: error, skip, truncate-prompt or truncate-end'],
  },
  checkpointSteps: {
    value: integer(0),
    default: 0,
    flag: ['<n>', 'steps between checkpoints'],
    shown: 'each epoch, or 10 minutes',
  },
  memoryLimit: {
    value: number(1),
    flag: ['<MiB>', 'refuse a run that needs more'],
    shown: 'what is free',
    unit: 2 ** 20,
    once: true,
  },
  encodeThreads: { value: integer(1, 64), default: 1, flag: ['<n>', 'threads that tokenize'] },
  cacheDir: {
    value: text,
    make: defaultCacheDir,
    flag: ['<dir>', 'for reference log-probabilities'],
    shown: '~/.cache/implex',
  },
  cache: { value: boolean, default: true, flag: ['', 'keep no reference log-probabilities'] },
} as const satisfies Partial<Rows>

const CODE = {
  now: { value: date, make: () => new Date() },
  signal: { value: signal },
  drain: { value: signal },
  onStep: { value: callback<NonNullable<TrainConduct['onStep']>>() },
  onEvaluation: { value: callback<NonNullable<TrainConduct['onEvaluation']>>() },
  onStage: { value: callback<NonNullable<TrainConduct['onStage']>>() },
  onWarning: {
    value: callback<TrainConduct['onWarning']>(),
    make: () => (message: string) => process.emitWarning(message, 'ImplexWarning'),
  },
} as const satisfies Partial<Rows>

export const TRAIN_OPTIONS = { ...GENERAL, ...LOSS, ...OPTIMIZATION, ...LORA, ...RUNNING, ...CODE } satisfies Rows

/** Options with flags, under the headings of --help. */
export const TRAIN_OPTION_GROUPS = {
  'Options:': GENERAL,
  'Reward and loss:': LOSS,
  'Optimization:': OPTIMIZATION,
  'LoRA, see docs/training.md:': LORA,
  'Running:': RUNNING,
}

export type TrainOptionName = keyof typeof TRAIN_OPTIONS

/** The rows as data, in the table's order. */
export const TRAIN_OPTION_ROWS = Object.entries(TRAIN_OPTIONS) as [TrainOptionName, OptionRow & { decides?: boolean }][]

type EngineOptions<P> = {
  [K in TrainOptionName as (typeof TRAIN_OPTIONS)[K] extends { engine: P } ? K : never]: (TrainSettings &
    TrainConduct)[K]
}

/** The options that the engine takes as they are. */
export function engineOptions<P extends 'training' | 'optimizer'>(
  part: P,
  options: Partial<TrainSettings & TrainConduct>,
): EngineOptions<P> {
  const names = TRAIN_OPTION_ROWS.filter(([, { engine }]) => engine === part).map(([name]) => name)
  return Object.fromEntries(names.map((name) => [name, options[name]])) as EngineOptions<P>
}

/** Whether a run of this kind and optimizer, with or without an adapter, has the option. */
export function applies(
  { kinds, optimizers, lora: adapter }: Pick<OptionRow, 'kinds' | 'optimizers' | 'lora'>,
  { kind, optimizer, loraRank }: Pick<TrainSettings, 'kind' | 'optimizer' | 'loraRank'>,
): boolean {
  if (adapter === true && loraRank === undefined) return false
  return (kinds?.includes(kind) ?? true) && (optimizers?.includes(optimizer) ?? true)
}

/** Who has the option: "the implicit kind", "rmsprop and sgd"; undefined when all do. */
export function whose({
  kinds,
  optimizers,
  lora: adapter,
}: Pick<OptionRow, 'kinds' | 'optimizers' | 'lora'>): string | undefined {
  if (adapter === true) return 'runs with loraRank'
  if (kinds !== undefined) return `the ${kinds.join(' and ')} ${kinds.length === 1 ? 'kind' : 'kinds'}`
  return optimizers?.join(' and ')
}
