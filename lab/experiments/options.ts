/**
 * Options that all experiments share: what is trained and how often, and how the work is done.
 */
import { POOLS } from '../../lib/data/rewards.js'
import { join, resolve } from 'node:path'
import { defaultCacheDir } from '../../lib/data/reference-cache.js'
import { ON_LONG, type OnLong } from '../../lib/data/encode.js'
import { DEVICES, DTYPES, type DeviceName, type DType } from '../../lib/native/device.js'
import { nativeLocation } from '../../lib/native/load.js'
import {
  checkBoolean,
  checkInteger,
  checkNumber,
  checkOneOf,
  checkString,
  invalidArgument,
} from '../../lib/core/arguments.js'
import type { TrainStep } from '../../lib/train/options.js'
import type { ExperimentKind } from './result.js'

export const EXPERIMENT_KINDS = ['explicit', 'implicit', 'generative'] as const satisfies readonly ExperimentKind[]

/** What decides the result, beside model and data. All kinds are trained alike, so that a difference comes from the kind. */
export interface ExperimentSettings {
  /** Defaults to all three, or those that the experiment can use. */
  kinds: ExperimentKind[]
  /** One training of each kind for each: of the order of the data and of a new head. Defaults to 0, 1, 2. */
  seeds: number[]
  /** Passes over the data. Defaults to the paper's for a model that is given, and to what suits it for the default model. */
  epochs: number
  /** Likewise. */
  learningRate: number
  /** Pairs per optimizer step; likewise. */
  batchPairs: number
  /** implicit: scale of the reward. Defaults to 0.01. */
  beta: number
  /** explicit: the head at the last token, or its mean over the response's tokens. Defaults to 'last'. */
  pool: 'last' | 'mean'
  /** Evaluate on every set after so many epochs, and before the first. Defaults to a quarter of the epochs, at least 1. */
  evaluateEpochs: number
  /** Weights and activations. Defaults to 'f32'. */
  dtype: DType
  /** As in TrainSettings. Defaults to 'auto'. */
  template: string
  /** As in TrainSettings. Defaults to 'error'. */
  onLong: OnLong
  /** Samples behind each interval. Defaults to 1000. */
  resamples: number
  /** Pairs of each set whose tokens are explained. Defaults to 4. */
  attributions: number
}

/** What changes nothing but speed, memory, and what is told meanwhile. */
export interface ExperimentConduct {
  /** Folder of the experiment; made if it is not there. */
  out: string
  /** Go on with the experiment in `out`. Defaults to false: a used folder is an error. */
  resume: boolean
  /** As in TrainConduct, like the five that have no sentence here. */
  device: 'auto' | DeviceName
  /** Keep the trained models; without it each is removed once its rewards are written. Defaults to false. */
  keepModels: boolean
  microBatchTokens?: number
  recompute: boolean
  cache: boolean
  cacheDir: string
  encodeThreads: number
  /** Stops within a micro-batch with ERR_ABORTED. */
  signal?: AbortSignal
  /** Stops in good order: a checkpoint is written, and the result has `interrupted`. */
  drain?: AbortSignal
  /** Told of each training as it begins, and what follows it. */
  onStage?: (stage: string) => void
  /** Told of each optimizer step. */
  onStep?: (step: TrainStep) => void
  /** Told of what goes wrong without stopping the work. Defaults to process.emitWarning. */
  onWarning: (message: string) => void
}

/** Everything but `out` has a default; an experiment adds its own. */
export type ExperimentOptions = Partial<ExperimentSettings & ExperimentConduct> & {
  out: string
  /** Checkpoint folder. Defaults to the model that comes with implex. */
  model?: string
}

/** Hyper-parameters: of the paper for models of its size, and of the small default model. */
export interface Preset {
  epochs: number
  learningRate: number
  batchPairs: number
}

export interface ResolvedExperiment {
  model: string
  settings: ExperimentSettings
  conduct: ExperimentConduct
}

/** Folder of the small model that comes with implex (docs/base-model.md). */
export function baseModelPath(): string {
  return join(nativeLocation().root, 'models', 'base')
}

/** A data file that comes with implex. */
export function dataPath(...names: string[]): string {
  return join(nativeLocation().root, 'lab', 'data', ...names)
}

/** Checks every option and fills in the defaults. @throws TypeError, RangeError naming the option */
export function resolveExperiment(
  options: ExperimentOptions,
  presets: { paper: Preset; base: Preset },
  kinds: readonly ExperimentKind[] = EXPERIMENT_KINDS,
): ResolvedExperiment {
  if (options.model !== undefined) checkString('model', options.model)
  const preset = options.model === undefined ? presets.base : presets.paper
  const epochs = options.epochs ?? preset.epochs
  checkInteger('epochs', epochs, 1, 1_000_000)
  const settings: ExperimentSettings = {
    kinds: options.kinds ?? [...kinds],
    seeds: options.seeds ?? [0, 1, 2],
    epochs,
    learningRate: options.learningRate ?? preset.learningRate,
    batchPairs: options.batchPairs ?? preset.batchPairs,
    beta: options.beta ?? 0.01,
    pool: options.pool ?? 'last',
    evaluateEpochs: options.evaluateEpochs ?? Math.max(1, Math.round(epochs / 4)),
    dtype: options.dtype ?? 'f32',
    template: options.template ?? 'auto',
    onLong: options.onLong ?? 'error',
    resamples: options.resamples ?? 1000,
    attributions: options.attributions ?? 4,
  }
  checkList('kinds', settings.kinds, (kind) => checkOneOf('kinds', kind, kinds))
  checkList('seeds', settings.seeds, (seed) => checkInteger('seeds', seed, 0))
  checkNumber('learningRate', settings.learningRate, 0)
  checkInteger('batchPairs', settings.batchPairs, 1, 1 << 20)
  checkNumber('beta', settings.beta, Number.MIN_VALUE)
  checkOneOf('pool', settings.pool, POOLS)
  checkInteger('evaluateEpochs', settings.evaluateEpochs, 1)
  checkOneOf('dtype', settings.dtype, DTYPES)
  checkString('template', settings.template)
  checkOneOf('onLong', settings.onLong, ON_LONG)
  checkInteger('resamples', settings.resamples, 0, 1_000_000)
  checkInteger('attributions', settings.attributions, 0, 1000)
  return { model: resolve(options.model ?? baseModelPath()), settings, conduct: resolveConduct(options) }
}

function resolveConduct(options: ExperimentOptions): ExperimentConduct {
  const { out, microBatchTokens, signal, drain, onStage, onStep } = options
  checkString('out', out)
  if (out === '' || out.includes('\0')) throw invalidArgument('out', 'the path of a folder', out)
  const conduct = {
    out: resolve(out),
    resume: options.resume ?? false,
    device: options.device ?? ('auto' as const),
    keepModels: options.keepModels ?? false,
    recompute: options.recompute ?? false,
    cache: options.cache ?? true,
    cacheDir: options.cacheDir ?? defaultCacheDir(),
    encodeThreads: options.encodeThreads ?? 1,
    onWarning: options.onWarning ?? ((message: string) => process.emitWarning(message, 'ImplexWarning')),
  }
  for (const name of ['resume', 'keepModels', 'recompute', 'cache'] as const) checkBoolean(name, conduct[name])
  checkOneOf('device', conduct.device, DEVICES)
  if (microBatchTokens !== undefined) checkInteger('microBatchTokens', microBatchTokens, 1, 2 ** 24)
  checkString('cacheDir', conduct.cacheDir)
  checkInteger('encodeThreads', conduct.encodeThreads, 1, 64)
  for (const [name, value] of Object.entries({ signal, drain })) {
    if (value !== undefined && !(value instanceof AbortSignal)) throw invalidArgument(name, 'an AbortSignal', value)
  }
  return {
    ...conduct,
    microBatchTokens,
    signal,
    drain,
    onStage,
    onStep,
  }
}

function checkList(name: string, value: unknown, check: (item: unknown) => void): void {
  if (!Array.isArray(value) || value.length === 0) throw invalidArgument(name, 'a list of at least one', value)
  for (const item of value) check(item)
  if (new Set(value).size < value.length) throw invalidArgument(name, 'a list without repetitions', value)
}
