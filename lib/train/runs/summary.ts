/**
 * summary.json: what a complete run was and what came out; TrainSummary is the same in camelCase. Its last step and evaluations are read back from metrics.jsonl, so that they are
 * there also when the process that took the step did not live to tell.
 */
import { isPlainObject } from '../../core/arguments.js'
import { readText } from '../../core/files.js'
import { camelKeys, snakeKeys } from '../../core/keys.js'
import type { OnDevice } from '../../native/device.js'
import { nativeInfo, type Trainer } from '../../native/handles.js'
import type { TemplateSource } from '../../text/text-encoder.js'
import type { Border } from '../../checkpoint/trained-with.js'
import type { HeadPlace, HeadPlaceName } from '../../models/head-place.js'
import type { MemoryEstimate } from '../memory.js'
import type { TrainEvaluation, TrainSettings, TrainStep } from '../options.js'
import type { PairSet } from '../pairs.js'
import type { RunPosition } from './checkpoints.js'
import type { RunFolder } from './run-folder.js'

/** As JSON has it: null where a number would be NaN. */
export type Recorded<T> = { [K in keyof T]: T[K] | null }

/** A complete run: what it was and what came out. */
export interface TrainSummary {
  /** A TrainKind. */
  kind: string
  /** The checkpoint that was trained. */
  model: string
  /** A TemplateSource. */
  template: string
  /** Where the explicit head came from. */
  head: 'given' | 'checkpoint' | 'random' | null
  /** Pairs of the training data. */
  pairs: number
  /** Bad rows that were left out (`onError: 'skip'`). */
  errors: number
  /** Rows left out because they are too long. */
  skipped: number
  /** Rows that were shortened. */
  truncated: number
  /** How prompt and response are parted; rows to which the other rule gives other ids, and whose prompt does not begin the conversation. */
  border: Border | null
  borderDiffers: number
  promptParted: number
  /** Where the head is read, and the padding token that this goes by. */
  headAt: HeadPlaceName | null
  padTokenId: number | null
  epochs: number
  /** Optimizer steps of the whole run. */
  steps: number
  /** Tokens trained on, as if no prompt were shared. */
  tokens: number
  /** Seconds of the steps alone, over all processes of the run. */
  seconds: number
  pairsPerSecond: number
  tokensPerSecond: number
  /** From its line of metrics.jsonl. */
  lastStep: Recorded<Omit<TrainStep, 'steps' | 'epochs'>> | null
  /** By data set, from its last line. */
  evaluation: Record<string, Recorded<Omit<TrainEvaluation, 'name'>>>
  /** Estimated before the run, in bytes; `peakRss` is what the process that ended it took at most. */
  memory: Record<keyof MemoryEstimate | 'peakRss', number>
  /** Reference log-probabilities found on disk, and not found there. */
  cacheHits: number
  cacheMisses: number
  device: string
  /** Why `device: 'auto'` is not the GPU. */
  fallbackReason: string | null
  dtype: string
  /** Kernel set of the engine: results are bit-identical under one of these. */
  kernels: string
  /** Version of implex. */
  version: string
}

export async function summarize(parts: {
  folder: RunFolder
  model: string
  settings: TrainSettings
  position: RunPosition
  data: PairSet
  templateSource: TemplateSource
  opened: OnDevice<Trainer>
  memory: MemoryEstimate
  place?: HeadPlace
  head?: 'given' | 'checkpoint' | 'random'
  cacheHits: number
  cacheMisses: number
}): Promise<TrainSummary> {
  const { folder, settings, position, data, opened, memory } = parts
  const { pairs, errors, skipped, truncated, borderDiffers, promptParted } = data
  return {
    kind: settings.kind,
    model: parts.model,
    template: parts.templateSource,
    head: parts.head ?? null,
    pairs: pairs.length,
    errors,
    skipped,
    truncated,
    border: settings.kind === 'generative' ? null : settings.border,
    borderDiffers,
    promptParted,
    headAt: parts.place?.headAt ?? null,
    padTokenId: parts.place?.padTokenId ?? null,
    epochs: settings.epochs,
    steps: position.step,
    tokens: position.tokens,
    seconds: position.seconds,
    pairsPerSecond: (pairs.length * settings.epochs) / position.seconds,
    tokensPerSecond: position.tokens / position.seconds,
    ...(await lastLines(folder.metricsPath)),
    memory: { ...memory, peakRss: process.resourceUsage().maxRSS * 1024 },
    cacheHits: parts.cacheHits,
    cacheMisses: parts.cacheMisses,
    device: opened.device,
    fallbackReason: opened.fallbackReason ?? null,
    dtype: settings.dtype,
    kernels: opened.model.kernels,
    version: nativeInfo().version,
  }
}

/** A summary as summary.json holds it. */
export function summaryToJson(summary: TrainSummary): Record<string, unknown> {
  const { lastStep, evaluation, memory } = summary
  return snakeKeys({
    ...summary,
    lastStep: lastStep && snakeKeys(lastStep),
    evaluation: mapValues(evaluation, snakeKeys),
    memory: snakeKeys(memory),
  })
}

/** What summary.json holds; the caller has seen that it is an object. */
export function summaryFromJson(json: Record<string, unknown>): TrainSummary {
  const { lastStep, evaluation, memory, ...rest } = camelKeys(json)
  const renamed = (value: unknown) => (isPlainObject(value) ? camelKeys(value) : null)
  return {
    ...rest,
    lastStep: renamed(lastStep),
    evaluation: isPlainObject(evaluation) ? mapValues(evaluation, renamed) : {},
    memory: renamed(memory),
  } as unknown as TrainSummary
}

function mapValues<T, U>(value: Record<string, T>, change: (item: T) => U): Record<string, U> {
  return Object.fromEntries(Object.entries(value).map(([name, item]) => [name, change(item)]))
}

async function lastLines(path: string): Promise<Pick<TrainSummary, 'lastStep' | 'evaluation'>> {
  let lastStep: Record<string, unknown> | null = null
  const evaluation = new Map<string, Record<string, unknown>>()
  for (const line of (await readText(path)).split('\n')) {
    if (line === '') continue
    const { evaluation: name, ...rest } = camelKeys(JSON.parse(line) as Record<string, unknown>)
    if (typeof name === 'string') evaluation.set(name, rest)
    else lastStep = rest
  }
  return { lastStep, evaluation: Object.fromEntries(evaluation) } as unknown as Pick<
    TrainSummary,
    'lastStep' | 'evaluation'
  >
}
