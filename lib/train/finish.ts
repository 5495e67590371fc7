/**
 * The end of a run: the trained model or adapter in Hugging Face form, then summary.json, with which the run is complete.
 */
import type { Checkpoint } from '../checkpoint/checkpoint.js'
import { readHead } from '../checkpoint/checkpoint.js'
import { writeFileAtomic } from '../core/atomic.js'
import type { Facts } from '../core/same-run.js'
import type { EncoderDescription } from '../data/encode-worker.js'
import type { HeadPlace } from '../models/head-place.js'
import type { OnDevice } from '../native/device.js'
import type { Trainer } from '../native/handles.js'
import { modelCard } from './adapter-card.js'
import { saveAdapter } from './adapter-save.js'
import type { NewAdapter } from './adapter-start.js'
import type { InitialHead } from './head.js'
import type { TrainLoop } from './loop.js'
import type { MemoryEstimate } from './memory.js'
import type { TrainSettings } from './options.js'
import type { Sets } from './plan.js'
import type { RunReferences } from './reference.js'
import type { RunFolder } from './runs/run-folder.js'
import { saveModel } from './runs/save-model.js'
import { summarize, summaryToJson, type TrainSummary } from './runs/summary.js'

export interface TrainResult {
  /** Folder of the run. */
  out: string
  /** The drain signal ended the run; a checkpoint is there to go on from. */
  interrupted: boolean
  /** Optimizer steps taken, those before a resumption included; 0 when interrupted before the first step of this call. */
  steps: number
  /** Folder of the trained model; absent when interrupted, and with `loraRank`. */
  model?: string
  /** With `loraRank`, the folder of the trained adapter; absent when interrupted. */
  adapter?: string
  /** What summary.json holds, in camelCase; absent when interrupted. */
  summary?: TrainSummary
}

export interface FinishedRun {
  folder: RunFolder
  trainer: Trainer
  checkpoint: Checkpoint
  encoder: EncoderDescription
  settings: TrainSettings
  head: InitialHead | undefined
  adapter: NewAdapter | undefined
  place: HeadPlace | undefined
  opened: OnDevice<Trainer>
  sets: Sets
  references: RunReferences
  loop: TrainLoop
  memory: MemoryEstimate
  /** What decided the run, as its config.json holds it. */
  facts: Facts
}

/** @throws ImplexError ERR_NOT_FINITE naming the tensor, ERR_DISK_FULL, ERR_IO */
export async function finishRun(run: FinishedRun): Promise<TrainResult> {
  const { folder, trainer, checkpoint, encoder, settings, head, adapter, place, loop } = run
  const explicit = settings.kind === 'explicit'
  const weight = explicit ? (head?.weight ?? (await readHead(checkpoint.path, checkpoint.spec.hiddenSize))) : undefined
  const common = {
    explicit,
    dtype: settings.dtype,
    head: weight,
    border: settings.kind === 'generative' ? undefined : settings.border,
    padTokenId: place?.padTokenId,
  }
  if (adapter === undefined) await saveModel(folder.modelPath, trainer, checkpoint, encoder, common)
  const summary = await summaryOf(run)
  if (adapter !== undefined) {
    const card = (padTokenId: number) => modelCard(cardFacts(run, adapter, summary), padTokenId)
    await saveAdapter(folder.adapterPath, trainer, checkpoint, encoder, { ...common, adapter, card })
  }
  await writeFileAtomic(folder.summaryPath, `${JSON.stringify(summaryToJson(summary), null, 2)}\n`)
  return { out: folder.path, interrupted: false, steps: loop.position.step, ...savedAt(folder, settings), summary }
}

/** Where a complete run has what it trained. */
export function savedAt(
  { modelPath, adapterPath }: RunFolder,
  { loraRank }: Pick<TrainSettings, 'loraRank'>,
): Pick<TrainResult, 'model' | 'adapter'> {
  return loraRank === undefined ? { model: modelPath } : { adapter: adapterPath }
}

function summaryOf(run: FinishedRun): Promise<TrainSummary> {
  const { folder, checkpoint, settings, loop, sets, encoder, opened, memory, head, place, references } = run
  return summarize({
    folder,
    model: checkpoint.path,
    settings,
    position: loop.position,
    data: sets.data,
    templateSource: encoder.templateSource,
    opened,
    memory,
    head: head?.origin,
    place,
    cacheHits: references.hits,
    cacheMisses: references.misses,
  })
}

function cardFacts({ checkpoint, settings, facts }: FinishedRun, { modules }: NewAdapter, summary: TrainSummary) {
  return {
    base: checkpoint.path,
    baseFingerprint: String(facts.model),
    data: String(facts.data),
    settings,
    modules,
    summary,
    addedTokens: checkpoint.spec.addedTokens,
  }
}
