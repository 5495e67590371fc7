/**
 * summary.json: what a complete run was and what came out. Its last step and evaluations are read back from metrics.jsonl, so that they are
 * there also when the process that took the step did not live to tell.
 */
import { readText } from '../../core/files.js'
import type { OnDevice } from '../../native/device.js'
import { nativeInfo, type Trainer } from '../../native/handles.js'
import type { TemplateSource } from '../../text/text-encoder.js'
import type { MemoryEstimate } from '../memory.js'
import type { TrainSettings } from '../options.js'
import type { PairSet } from '../pairs.js'
import type { RunPosition } from './checkpoints.js'
import type { RunFolder } from './run-folder.js'

export interface TrainSummary {
  kind: string
  /** The checkpoint that was trained. */
  model: string
  template: string
  /** Where the explicit head came from. */
  head: 'given' | 'checkpoint' | 'random' | null
  pairs: number
  /** Bad rows that were left out (`onError: 'skip'`). */
  errors: number
  skipped: number
  truncated: number
  epochs: number
  steps: number
  /** Trained on, as if no prompt were shared. */
  tokens: number
  /** Of the steps alone, over all processes of the run. */
  seconds: number
  pairs_per_second: number
  tokens_per_second: number
  /** The last step's line of metrics.jsonl. */
  last_step: Record<string, unknown> | null
  /** Each data set's last line. */
  evaluation: Record<string, Record<string, unknown>>
  /** Estimated before the run, in bytes; peak_rss is what the process that ended it took at most. */
  memory: Record<keyof MemoryEstimate | 'peak_rss', number>
  cache_hits: number
  cache_misses: number
  device: string
  fallback_reason: string | null
  dtype: string
  kernels: string
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
  head?: 'given' | 'checkpoint' | 'random'
  cacheHits: number
  cacheMisses: number
}): Promise<TrainSummary> {
  const { folder, settings, position, data, opened, memory } = parts
  const { pairs, errors, skipped, truncated } = data
  return {
    kind: settings.kind,
    model: parts.model,
    template: parts.templateSource,
    head: parts.head ?? null,
    pairs: pairs.length,
    errors,
    skipped,
    truncated,
    epochs: settings.epochs,
    steps: position.step,
    tokens: position.tokens,
    seconds: position.seconds,
    pairs_per_second: (pairs.length * settings.epochs) / position.seconds,
    tokens_per_second: position.tokens / position.seconds,
    ...(await lastLines(folder.metricsPath)),
    memory: { ...memory, peak_rss: process.resourceUsage().maxRSS * 1024 },
    cache_hits: parts.cacheHits,
    cache_misses: parts.cacheMisses,
    device: opened.device,
    fallback_reason: opened.fallbackReason ?? null,
    dtype: settings.dtype,
    kernels: opened.model.kernels,
    version: nativeInfo().version,
  }
}

async function lastLines(path: string): Promise<Pick<TrainSummary, 'last_step' | 'evaluation'>> {
  let lastStep: Record<string, unknown> | null = null
  const evaluation: Record<string, Record<string, unknown>> = {}
  for (const line of (await readText(path)).split('\n')) {
    if (line === '') continue
    const { evaluation: name, ...rest } = JSON.parse(line) as Record<string, unknown>
    if (typeof name === 'string') evaluation[name] = rest
    else lastStep = rest
  }
  return { last_step: lastStep, evaluation }
}
