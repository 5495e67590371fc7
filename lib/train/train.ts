/**
 * train(): trains a checkpoint as an explicit, implicit or generative reward model, or on the chosen responses alone (sft).
 */
import { existsSync } from 'node:fs'
import { rm } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import type { Checkpoint } from '../checkpoint/checkpoint.js'
import { modelFingerprint } from '../checkpoint/fingerprint.js'
import { onAbort } from '../core/abort.js'
import { checkString } from '../core/arguments.js'
import { temporaryName } from '../core/atomic.js'
import { ImplexError } from '../core/errors.js'
import { availableMemory } from '../core/memory.js'
import type { Json } from '../core/same-run.js'
import type { EncodeSettings } from '../data/encode.js'
import type { EncodePool } from '../data/encode-pool.js'
import type { EncoderDescription } from '../data/encode-worker.js'
import { readoutOf } from '../data/rewards.js'
import type { RowSource } from '../data/rows.js'
import { sourceOf, type TrainData } from '../data/sources.js'
import { type OpenText, openText, openToScore, weightsFor } from '../models/open.js'
import { CUDA_VERIFIED, cudaModulePath, defaultBatchTokens, openTrainerOnDevice } from '../native/device.js'
import { createCancel, type Trainer } from '../native/handles.js'
import type { ModelSpec } from '../native/spec.js'
import type { NativeCancel } from '../native/types.js'
import { adapterOf, type NewAdapter, withNewAdapter } from './adapter-start.js'
import { largestBatch, microBatches } from './batches.js'
import { finishRun, savedAt, type TrainResult } from './finish.js'
import { type InitialHead, initialHead } from './head.js'
import { TrainLoop } from './loop.js'
import { checkModelMemory, checkRunMemory, type MemoryChoices } from './memory.js'
import { nativeOptions } from './native-options.js'
import type { TrainOptions, TrainSettings } from './options.js'
import { loadPairs, type PairSet, type TrainPair } from './pairs.js'
import { allBatches, encodeSettings, type Sets, startOf } from './plan.js'
import { RunReferences } from './reference.js'
import { checkSettings, describeRun } from './run-config.js'
import { MetricsLog } from './runs/metrics-log.js'
import { checkRun, type RunConfig, RunFolder } from './runs/run-folder.js'
import { type ResolvedOptions, resolveTrainOptions } from './resolve-options.js'
import { summaryFromJson } from './runs/summary.js'
import { selfCheck } from './self-check.js'
import { type HeadPlace, headPlace } from '../models/head-place.js'
import { DEFAULT_BORDER } from '../text/conversation.js'

/**
 * Trains the checkpoint folder `model` on preference pairs, into a run folder. Two runs with the same settings, model and data give the same
 * bytes, on any number of threads and however often they were killed and resumed.
 *
 * @throws TypeError, RangeError for wrong arguments
 * @throws ImplexError for data, checkpoint, tokenizer or device that cannot be used; ERR_OUT_OF_MEMORY before anything is trained;
 *   ERR_SELF_CHECK when the run would be wasted; ERR_RESUME_MISMATCH; ERR_IN_USE; ERR_NOT_FINITE; ERR_DISK_FULL, ERR_IO; ERR_ABORTED
 */
export async function train(model: string, data: TrainData, options: TrainOptions): Promise<TrainResult> {
  checkString('model', model)
  const resolved = resolveTrainOptions(options)
  const run = new Run(resolve(model), data, resolved)
  try {
    return await run.run()
  } finally {
    await run.close()
  }
}

/** One call of train(): opens things in order and closes what was opened. */
class Run {
  readonly #model: string
  readonly #source: RowSource
  readonly #evaluationSources: [string, RowSource][]
  readonly #paths: Record<string, Json>
  readonly #options: ResolvedOptions
  readonly #cancel: NativeCancel
  readonly #closing: (() => unknown)[] = []
  /** Aborted by either signal: ends the reading. */
  readonly #stop: AbortSignal | undefined
  #removeStart: (() => Promise<void>) | undefined

  constructor(model: string, data: TrainData, options: ResolvedOptions) {
    const { conduct } = options
    this.#model = model
    this.#options = options
    this.#source = sourceOf(data, conduct.rows)
    this.#evaluationSources = Object.entries(conduct.evaluation).map(([name, rows]) => [
      name,
      sourceOf(rows, conduct.rows),
    ])
    const pathOf = (rows: TrainData) => (typeof rows === 'string' && rows !== '-' ? resolve(rows) : null)
    this.#paths = {
      model,
      data: pathOf(data),
      evaluation: Object.fromEntries(Object.entries(conduct.evaluation).map(([name, rows]) => [name, pathOf(rows)])),
    }
    const { signal } = conduct
    this.#cancel = createCancel(signal)
    if (signal?.aborted) throw new ImplexError('ERR_ABORTED', 'the training was aborted', { cause: signal.reason })
    this.#closing.push(onAbort(signal, () => this.#cancel.cancel()))
    const stops = [signal, conduct.drain].filter((one) => one !== undefined)
    if (stops.length > 0) this.#stop = AbortSignal.any(stops)
  }

  async close(): Promise<void> {
    for (const close of this.#closing.reverse()) await close()
  }

  async run(): Promise<TrainResult> {
    const { settings, conduct } = this.#options
    const folder = await RunFolder.open(conduct.out, conduct.resume, conduct.onWarning)
    this.#closing.push(() => folder[Symbol.asyncDispose]())
    if (folder.config !== undefined) {
      const complete = await this.#completeRun(folder, folder.config)
      if (complete !== undefined) return complete
    }
    const now = folder.config === undefined ? conduct.now : new Date(folder.config.run.now)
    const available = conduct.memoryLimit ?? availableMemory()

    this.#stage('opening the checkpoint')
    const early: TrainResult = { out: folder.path, interrupted: true, steps: 0 }
    const opened = await this.#unlessDrained(this.#openText(now))
    if (opened === undefined) return early
    const { checkpoint, reference, pool } = opened
    const encoder = pool.description
    const head = settings.kind === 'explicit' ? await initialHead(checkpoint, conduct.head, settings.seed) : undefined
    const place = await this.#headPlace(checkpoint, encoder, head)
    const adapter = await adapterOf(checkpoint, settings)
    const border = settings.border ?? checkpoint.border ?? DEFAULT_BORDER
    const encoding = encodeSettings(settings, border, place, checkpoint, reference)
    this.#stage('reading the data')
    const sets = await this.#unlessDrained(this.#loadSets(pool, encoding))
    pool.close()
    if (sets === undefined || this.#drained) return early

    const weights = weightsFor(checkpoint.spec, settings.kind, head?.weight !== undefined)
    const spec = adapter === undefined ? weights : await this.#withNewAdapter(weights, adapter, folder)
    const native = nativeOptions(this.#options, encoder, head)
    const estimated =
      conduct.device === 'cpu' || (conduct.device === 'auto' && !(CUDA_VERIFIED && existsSync(cudaModulePath())))
    const choices: MemoryChoices = { spec, dtype: settings.dtype, recompute: conduct.recompute }
    if (estimated) checkModelMemory(choices, native, available)

    const references = await this.#references(sets, encoding, encoder, reference ?? checkpoint)
    if (reference !== undefined) {
      this.#stage('computing reference log-probabilities')
      await this.#otherReference(reference, references)
    }
    if (this.#drained) return early
    this.#stage('loading the model')
    const onDevice = await openTrainerOnDevice(
      spec,
      { device: conduct.device, dtype: settings.dtype },
      native,
      this.#cancel,
    )
    const { model: trainer } = onDevice
    this.#closing.push(() => trainer.dispose())
    await this.#removeStart?.()
    const microBatchTokens = settings.microBatchTokens ?? defaultBatchTokens(onDevice.device)
    const complete: TrainSettings = { ...settings, border, headAt: place?.headAt ?? 'last', microBatchTokens }
    const largest = largestBatch(complete, allBatches(complete, sets))
    const limit = onDevice.device === 'cpu' ? available : Number.MAX_VALUE
    const memory = checkRunMemory(trainer, choices, largest, limit)

    const parts = { checkpoint, reference, text: encoder.fingerprint, ...sets, head, opened: onDevice, now }
    const config = await describeRun(this.#paths, complete, conduct, parts)
    if (folder.config === undefined) await folder.writeConfig(config)
    else checkRun(folder.path, folder.config.run, config.run, conduct.onWarning)
    await folder.clean()

    if (settings.kind === 'implicit' && settings.reference === 'initial') {
      this.#stage('computing reference log-probabilities')
      await references.fill(trainer, onDevice.device, complete.microBatchTokens)
    }
    if (this.#drained) return early
    this.#stage('checking')
    await this.#selfCheck(trainer, complete, sets.data, encoder)

    const position = (await folder.checkpoints.load(trainer, conduct.onWarning)) ?? startOf(complete)
    const log = await MetricsLog.open(folder.metricsPath, position.metricsBytes)
    this.#closing.push(() => log.close())
    const loop = new TrainLoop(
      { trainer, settings: complete, conduct, ...sets, folder, log, cancel: this.#cancel },
      position,
    )
    const finished = await loop.run()
    const { step } = loop.position
    if (!finished) return { out: folder.path, interrupted: true, steps: step }
    this.#stage('saving the model')
    return finishRun({
      ...{
        folder,
        trainer,
        checkpoint,
        encoder,
        settings: complete,
        head,
        adapter,
        place,
        sets,
        references,
        loop,
        memory,
      },
      ...{ opened: onDevice, facts: config.run.decisive },
    })
  }

  get #drained(): boolean {
    return this.#options.conduct.drain?.aborted === true
  }

  /** undefined when the drain signal came first: before there is a step to be finished, it ends what it meets. */
  async #unlessDrained<T>(work: Promise<T>): Promise<T | undefined> {
    try {
      return await work
    } catch (error) {
      const aborted = error instanceof ImplexError && error.code === 'ERR_ABORTED'
      if (aborted && this.#drained && this.#options.conduct.signal?.aborted !== true) return undefined
      throw error
    }
  }

  #stage(stage: string): void {
    this.#options.conduct.onStage?.(stage)
  }

  /** The result of a run that is complete already, once its settings are seen to be those asked for. */
  async #completeRun(folder: RunFolder, before: RunConfig): Promise<TrainResult | undefined> {
    const found = await folder.readSummary()
    if (found === undefined) return undefined
    const summary = summaryFromJson(found)
    checkSettings(folder.path, before.run, this.#options.settings)
    await folder.clean()
    const saved = savedAt(folder, this.#options.settings)
    return { out: folder.path, interrupted: false, steps: summary.steps, ...saved, summary }
  }

  /** Checkpoints with rows for every token, and the threads that encode. */
  async #openText(now: Date): Promise<OpenText> {
    const { settings, conduct } = this.#options
    const { kind, template, reference } = settings
    const text = { path: this.#model, template, kind: kind === 'sft' ? 'implicit' : kind, now } as const
    const other = kind === 'implicit' && !['initial', 'none'].includes(reference) ? reference : undefined
    const opened = await openText(text, conduct.encodeThreads, { reference: other, signal: this.#stop })
    this.#closing.push(() => opened.pool.close())
    return opened
  }

  /** The engine reads weights from files: the adapter's first ones lie in the run's folder until it has. */
  async #withNewAdapter(spec: ModelSpec, adapter: NewAdapter, folder: RunFolder): Promise<ModelSpec> {
    const file = temporaryName(join(folder.path, 'adapter.safetensors'))
    this.#removeStart = () => rm(file, { force: true }).catch(() => {})
    this.#closing.push(this.#removeStart)
    return withNewAdapter(spec, adapter, this.#options.settings.seed, file)
  }

  /** Where the head is read; undefined without one that is read at a single token. */
  async #headPlace(
    checkpoint: Checkpoint,
    encoder: EncoderDescription,
    head: InitialHead | undefined,
  ): Promise<HeadPlace | undefined> {
    const { settings, conduct } = this.#options
    if (head === undefined || settings.pool !== 'last') return undefined
    const given = { file: typeof conduct.head === 'string' ? conduct.head : undefined }
    const from = { checkpoint: 'own', random: 'new', given } as const
    return headPlace(settings.headAt, checkpoint, encoder, from[head.origin])
  }

  async #loadSets(pool: EncodePool, encoding: EncodeSettings): Promise<Sets> {
    const { settings, conduct } = this.#options
    const { bosTokenId, eosTokenId, terminator: end } = pool.description
    // A head that is read before the terminator makes its row end there.
    const terminator = end === encoding.padTokenId ? undefined : end
    const single = settings.kind === 'sft'
    const { onError, onWarning } = conduct
    const signal = this.#stop
    const checks = { single, bosTokenId, eosTokenId, terminator, onError, onWarning, signal }
    const data = await loadPairs(this.#source, pool, encoding, checks)
    const evaluation = new Map<string, PairSet>()
    for (const [name, source] of this.#evaluationSources)
      evaluation.set(name, await loadPairs(source, pool, encoding, checks))
    return { data, evaluation }
  }

  async #references(
    sets: Sets,
    encoding: EncodeSettings,
    encoder: EncoderDescription,
    checkpoint: Checkpoint,
  ): Promise<RunReferences> {
    const { settings, conduct } = this.#options
    const { cache, cacheDir, onWarning, signal } = conduct
    const kept = settings.kind === 'implicit' && settings.reference !== 'none' && cache
    const all = [
      { set: sets.data, source: this.#source },
      ...this.#evaluationSources.map(([name, source]) => ({ set: sets.evaluation.get(name)!, source })),
    ]
    const key = kept
      ? {
          weights: await modelFingerprint(checkpoint, cacheDir, signal),
          text: encoder.fingerprint,
          dtype: settings.dtype,
          border: encoding.border,
          onLong: encoding.onLong,
          contextLength: Math.min(encoding.contextLength, encoding.maxLength ?? encoding.contextLength),
        }
      : undefined
    const stop = () => this.#drained
    return new RunReferences({ sets: all, key, cacheDir, onWarning, cancel: this.#cancel, stop })
  }

  /** A reference of its own is loaded, read out and let go of before the model to be trained is loaded. */
  async #otherReference(reference: Checkpoint, references: RunReferences): Promise<void> {
    const { settings, conduct } = this.#options
    const choice = { device: conduct.device, dtype: settings.dtype }
    const use = { use: 'implicit', who: 'a reference' } as const
    const { model, device } = await openToScore(reference, use, choice, this.#cancel)
    try {
      await references.fill(model, device, settings.microBatchTokens ?? defaultBatchTokens(device))
    } finally {
      model.dispose()
    }
  }

  async #selfCheck(
    trainer: Trainer,
    settings: TrainSettings,
    data: PairSet,
    encoder: EncoderDescription,
  ): Promise<void> {
    const [batch] = microBatches(settings.kind, data.pairs, settings.microBatchTokens) as [TrainPair[]]
    const yes = settings.kind === 'generative' ? encoder.yesTokenId : undefined
    await selfCheck(trainer, batch.slice(0, settings.batchPairs), {
      kind: settings.kind,
      readout: readoutOf(settings.kind, settings.pool, yes),
      beta: settings.beta,
      lengthNormalized: settings.lengthNormalized,
      startsAtReference: settings.kind === 'implicit' && settings.reference === 'initial',
      cancel: this.#cancel,
    })
  }
}
