/**
 * train(): trains a checkpoint as an explicit, implicit or generative reward model, or on the chosen responses alone (sft).
 */
import { createHash } from 'node:crypto'
import { existsSync } from 'node:fs'
import { resolve } from 'node:path'
import { type Checkpoint, openCheckpoint, readHead } from '../checkpoint/checkpoint.js'
import { modelFingerprint } from '../checkpoint/fingerprint.js'
import type { ModelSpec } from '../native/spec.js'
import type { Readout } from '../data/batches.js'
import type { EncodeSettings, RewardKind } from '../data/encode.js'
import { EncodePool } from '../data/encode-pool.js'
import { NUMERICS_VERSION, ReferenceCache } from '../data/reference-cache.js'
import type { Engine } from '../data/rewards.js'
import type { RowSource } from '../data/rows.js'
import { CUDA_VERIFIED, cudaModulePath, type OnDevice, openOnDevice, openTrainerOnDevice } from '../native/device.js'
import { sourceOf, type TrainData } from '../data/sources.js'
import { type Model, createCancel, nativeInfo, type Trainer } from '../native/handles.js'
import type { NativeCancel, NativeTrainOptions } from '../native/types.js'
import { ImplexError } from '../core/errors.js'
import { checkString } from '../core/arguments.js'
import type { RunPosition } from './runs/checkpoints.js'
import { MetricsLog } from './runs/metrics-log.js'
import { checkSameRun, type Json, type RunConfig, RunFolder } from './runs/run-folder.js'
import { saveModel } from './runs/save-model.js'
import { summarise, type TrainSummary } from './runs/summary.js'
import { writeFileAtomic } from '../core/atomic.js'
import { RowEncoder } from '../text/text-encoder.js'
import { largestBatch, microBatches } from './batches.js'
import { type InitialHead, initialHead } from './head.js'
import { TrainLoop } from './loop.js'
import { availableMemory } from '../core/memory.js'
import { checkModelMemory, checkRunMemory, type MemoryEstimate } from './memory.js'
import {
  applicableSettings,
  type ResolvedOptions,
  resolveTrainOptions,
  type TrainOptions,
  type TrainSettings,
} from './options.js'
import { loadPairs, type PairSet, type TrainPair } from './pairs.js'
import { Random, STREAMS } from '../core/random.js'
import { addReferences } from './reference.js'
import { selfCheck } from './self-check.js'

export interface TrainResult {
  /** Folder of the run. */
  out: string
  /** The drain signal ended the run; a checkpoint is there to go on from. */
  interrupted: boolean
  /** Optimiser steps taken, those before a resumption included; 0 when interrupted before the first step of this call. */
  steps: number
  /** Folder of the trained model; absent when interrupted. */
  model?: string
  /** As in summary.json; absent when interrupted. */
  summary?: TrainSummary
}

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
  #cacheHits = 0
  #cacheMisses = 0

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
    this.#cancel = createCancel()
    const { signal } = conduct
    if (signal?.aborted) throw new ImplexError('ERR_ABORTED', 'the training was aborted', { cause: signal.reason })
    const abort = () => this.#cancel.cancel()
    signal?.addEventListener('abort', abort, { once: true })
    this.#closing.push(() => signal?.removeEventListener('abort', abort))
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
    const { checkpoint, reference, encoder, pool } = await this.#openText(now)
    const encoding = encodeSettings(settings, checkpoint, reference)
    this.#stage('reading the data')
    const sets = await this.#loadSets(pool, encoder, encoding)
    pool.close()
    const early: TrainResult = { out: folder.path, interrupted: true, steps: 0 }
    if (this.#drained) return early

    const head = settings.kind === 'explicit' ? await initialHead(checkpoint, conduct.head, settings.seed) : undefined
    const spec = trainedSpec(checkpoint.spec, settings.kind, head)
    const native = nativeOptions(this.#options, encoder, head)
    const estimated =
      conduct.device === 'cpu' || (conduct.device === 'auto' && !(CUDA_VERIFIED && existsSync(cudaModulePath())))
    if (estimated) checkModelMemory(spec, settings.dtype, native, available)

    const cached = await this.#caches(encoding, encoder, reference ?? checkpoint)
    if (reference !== undefined) {
      this.#stage('computing reference log-probabilities')
      await this.#otherReference(reference, sets, cached)
    }
    if (this.#drained) return early
    this.#stage('loading the model')
    const opened = await openTrainerOnDevice(
      spec,
      { device: conduct.device, dtype: settings.dtype },
      native,
      this.#cancel,
    )
    const { model: trainer } = opened
    this.#closing.push(() => trainer.dispose())
    const complete: TrainSettings = {
      ...settings,
      microBatchTokens: settings.microBatchTokens ?? (opened.device === 'cpu' ? 4096 : 16384),
    }
    const largest = largestBatch(complete, allBatches(complete, sets))
    const memory = checkRunMemory(
      trainer,
      spec,
      settings.dtype,
      largest,
      opened.device === 'cpu' ? available : Number.MAX_VALUE,
    )

    const config = await this.#describe(complete, now, encoder, sets, checkpoint, reference, opened, head)
    if (folder.config === undefined) await folder.writeConfig(config)
    else checkSameRun(folder.path, folder.config, config, conduct.onWarning)
    await folder.clean()

    if (settings.kind === 'implicit' && settings.reference === 'initial') {
      this.#stage('computing reference log-probabilities')
      await this.#references(
        sets,
        complete.microBatchTokens,
        async () => trainer,
        await cached(opened.device, trainer.kernels),
      )
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
    return this.#finish({ folder, trainer, checkpoint, encoder, settings: complete, head, opened, sets, loop, memory })
  }

  get #drained(): boolean {
    return this.#options.conduct.drain?.aborted === true
  }

  #stage(stage: string): void {
    this.#options.conduct.onStage?.(stage)
  }

  /** The result of a run that is complete already, once its settings are seen to be those asked for. */
  async #completeRun(folder: RunFolder, before: RunConfig): Promise<TrainResult | undefined> {
    const summary = (await folder.readSummary()) as TrainSummary | undefined
    if (summary === undefined) return undefined
    const asked = decisiveSettings(this.#options.settings)
    const decisive = Object.fromEntries(Object.keys(asked).map((name) => [name, before.run.decisive[name] ?? null]))
    const now = Object.fromEntries(Object.entries(asked).map(([name, value]) => [name, value ?? null]))
    checkSameRun(
      folder.path,
      { ...before, run: { ...before.run, decisive, environment: {} } },
      { ...before, run: { ...before.run, decisive: now, environment: {} } },
      () => {},
    )
    return { out: folder.path, interrupted: false, steps: summary.steps, model: folder.modelPath, summary }
  }

  /** Checkpoints with rows for every token, and the encoders: one here for what it knows, one in threads for the rows. */
  async #openText(now: Date) {
    const { settings, conduct } = this.#options
    const plain = await openCheckpoint(this.#model)
    const other = settings.kind === 'implicit' && !['initial', 'none'].includes(settings.reference)
    const referencePlain = other ? await openCheckpoint(settings.reference) : undefined
    const kind: RewardKind = settings.kind === 'sft' ? 'implicit' : settings.kind
    const description = { path: this.#model, template: settings.template, kind, now }
    const encoder = await RowEncoder.load(description)
    const pool = await EncodePool.start(description, conduct.encodeThreads)
    this.#closing.push(() => pool.close())
    // A template may add tokens that neither model has rows for.
    const widen = (one: Checkpoint) => {
      const rows = encoder.addedTokens.length === 0 ? 0 : Math.max(0, encoder.vocabularySize - one.spec.vocabSize)
      return rows === 0 ? one : openCheckpoint(one.path, { addedTokens: rows })
    }
    const checkpoint = await widen(plain)
    const reference = referencePlain === undefined ? undefined : await widen(referencePlain)
    if (reference !== undefined) {
      const difference = await pool.compareWith(reference.path)
      if (difference !== undefined) {
        throw new ImplexError(
          'ERR_TOKENIZER_INVALID',
          `${reference.path}: the reference's tokenizer differs from the model's (${plain.path}) in its ${difference}; both need the same`,
          { path: reference.path },
        )
      }
    }
    return { checkpoint, reference, encoder, pool }
  }

  async #loadSets(pool: EncodePool, encoder: RowEncoder, encoding: EncodeSettings) {
    const { settings, conduct } = this.#options
    const { onError, onWarning, signal } = conduct
    const checks = {
      single: settings.kind === 'sft',
      onError,
      onWarning,
      ...(encoder.bosTokenId === undefined ? {} : { bosTokenId: encoder.bosTokenId }),
      ...(encoder.eosTokenId === undefined ? {} : { eosTokenId: encoder.eosTokenId }),
      ...(encoder.terminator === undefined ? {} : { terminator: encoder.terminator }),
      ...(signal === undefined ? {} : { signal }),
    }
    const data = await loadPairs(this.#source, pool, encoding, checks)
    const evaluation = new Map<string, PairSet>()
    for (const [name, source] of this.#evaluationSources)
      evaluation.set(name, await loadPairs(source, pool, encoding, checks))
    return { data, evaluation }
  }

  /** How to open the reference cache of each set, once the device is known. */
  async #caches(encoding: EncodeSettings, encoder: RowEncoder, reference: Checkpoint): Promise<OpenCaches> {
    const { settings, conduct } = this.#options
    if (settings.kind !== 'implicit' || settings.reference === 'none' || !conduct.cache)
      return async () => async () => undefined
    const weights = await modelFingerprint(reference, conduct.cacheDir, conduct.signal)
    const sources = new Map([['', this.#source], ...this.#evaluationSources])
    return async (device, kernels) => async (name, set) => {
      const key = {
        weights,
        text: encoder.fingerprint,
        data: (await sources.get(name)?.fingerprint?.()) ?? set.fingerprint,
        dtype: settings.dtype,
        device,
        kernels,
        version: nativeInfo().version,
        numerics: NUMERICS_VERSION,
        onLong: encoding.onLong,
        contextLength: encoding.contextLength,
      }
      return ReferenceCache.open(conduct.cacheDir, key, conduct.onWarning)
    }
  }

  async #references(sets: Sets, batchTokens: number, load: () => Promise<Engine>, open: OpenCache): Promise<void> {
    const stop = () => this.#drained
    for (const [name, set] of [['', sets.data] as const, ...sets.evaluation]) {
      const cache = await open(name, set)
      try {
        await addReferences(set, { batchTokens, load, cancel: this.#cancel, stop, ...(cache && { cache }) })
      } finally {
        this.#cacheHits += cache?.hits ?? 0
        this.#cacheMisses += cache?.misses ?? 0
        await cache?.close()
      }
    }
  }

  /** A reference of its own is loaded, read out and let go of before the model to be trained is loaded. */
  async #otherReference(reference: Checkpoint, sets: Sets, cached: OpenCaches): Promise<void> {
    const { settings, conduct } = this.#options
    const spec = { ...reference.spec, weights: reference.spec.weights.filter(({ role }) => role !== 'head') }
    const { model, device } = await openOnDevice(spec, { device: conduct.device, dtype: settings.dtype }, this.#cancel)
    try {
      checkUnembedding(model, reference)
      const tokens = settings.microBatchTokens ?? (device === 'cpu' ? 4096 : 16384)
      await this.#references(sets, tokens, async () => model, await cached(device, model.kernels))
    } finally {
      model.dispose()
    }
  }

  async #selfCheck(trainer: Trainer, settings: TrainSettings, data: PairSet, encoder: RowEncoder): Promise<void> {
    const [batch] = microBatches(settings.kind, data.pairs, settings.microBatchTokens) as [TrainPair[]]
    const readout: Readout =
      settings.kind === 'explicit'
        ? { readout: settings.pool === 'last' ? 'reward_last' : 'reward_mean' }
        : settings.kind === 'generative'
          ? { readout: 'next_token', targetToken: encoder.yesTokenId }
          : { readout: 'logprob' }
    await selfCheck(trainer, batch.slice(0, settings.batchPairs), {
      kind: settings.kind,
      readout,
      beta: settings.beta,
      lengthNormalized: settings.lengthNormalized,
      startsAtReference: settings.kind === 'implicit' && settings.reference === 'initial',
      cancel: this.#cancel,
    })
  }

  async #describe(
    settings: TrainSettings,
    now: Date,
    encoder: RowEncoder,
    sets: Sets,
    checkpoint: Checkpoint,
    reference: Checkpoint | undefined,
    { device, model }: OnDevice<Trainer>,
    head: InitialHead | undefined,
  ): Promise<RunConfig> {
    const { conduct } = this.#options
    const { template } = settings
    const fingerprint = (one: Checkpoint) =>
      modelFingerprint(one, conduct.cache ? conduct.cacheDir : undefined, conduct.signal)
    const info = nativeInfo()
    return {
      options: {
        ...this.#paths,
        ...(applicableSettings(settings) as Record<string, Json>),
        ...(reference === undefined ? {} : { reference: reference.path }),
        template: ['auto', 'default', 'none'].includes(template) ? template : resolve(template),
        ...(typeof conduct.head === 'string' ? { head: resolve(conduct.head) } : {}),
        device: conduct.device,
        rows: conduct.rows,
        onError: conduct.onError,
        recompute: conduct.recompute,
        checkpointSteps: conduct.checkpointSteps,
      },
      run: {
        decisive: {
          ...decisiveSettings(settings),
          ...(reference === undefined ? {} : { reference: await fingerprint(reference) }),
          model: await fingerprint(checkpoint),
          text: encoder.fingerprint,
          data: sets.data.fingerprint,
          evaluation: Object.fromEntries([...sets.evaluation].map(([name, set]) => [name, set.fingerprint])),
          ...(head === undefined
            ? {}
            : { head: head.weight === undefined ? 'of the checkpoint' : digest(head.weight) }),
        },
        environment: { version: info.version, numerics: NUMERICS_VERSION, device, kernels: model.kernels },
        now: now.toISOString(),
      },
    }
  }

  async #finish(parts: {
    folder: RunFolder
    trainer: Trainer
    checkpoint: Checkpoint
    encoder: RowEncoder
    settings: TrainSettings
    head: InitialHead | undefined
    opened: OnDevice<Trainer>
    sets: Sets
    loop: TrainLoop
    memory: MemoryEstimate
  }): Promise<TrainResult> {
    const { folder, trainer, checkpoint, encoder, settings, head, opened, sets, loop, memory } = parts
    const { spec } = checkpoint
    this.#stage('saving the model')
    const explicit = settings.kind === 'explicit'
    const weight = explicit ? (head?.weight ?? (await readHead(checkpoint.path, spec.hiddenSize))) : undefined
    await saveModel(folder.modelPath, trainer, checkpoint, encoder, {
      explicit,
      dtype: settings.dtype,
      ...(weight === undefined ? {} : { head: weight }),
    })
    const summary = await summarise({
      folder,
      model: checkpoint.path,
      settings,
      position: loop.position,
      data: sets.data,
      templateSource: encoder.templateSource,
      opened,
      memory,
      ...(head === undefined ? {} : { head: head.origin }),
      cacheHits: this.#cacheHits,
      cacheMisses: this.#cacheMisses,
    })
    await writeFileAtomic(folder.summaryPath, `${JSON.stringify(summary, null, 2)}\n`)
    return { out: folder.path, interrupted: false, steps: loop.position.step, model: folder.modelPath, summary }
  }
}

/** Without those that are paths: fingerprints of what these lead to stand for them. */
function decisiveSettings(settings: ResolvedOptions['settings']): Record<string, Json> {
  const { template: _, reference, ...rest } = applicableSettings(settings)
  const named = reference === 'initial' || reference === 'none' ? { reference } : {}
  return { ...rest, ...named } as Record<string, Json>
}

interface Sets {
  data: PairSet
  evaluation: Map<string, PairSet>
}

/** Opens the cache of a set ('' is the training data); undefined without one. */
type OpenCache = (name: string, set: PairSet) => Promise<ReferenceCache | undefined>
type OpenCaches = (device: string, kernels: string) => Promise<OpenCache>

function startOf({ seed }: TrainSettings): RunPosition {
  const random = Random.seeded(seed, STREAMS.order).state
  return { step: 0, epoch: 0, pair: 0, random, metricsBytes: 0, seconds: 0, tokens: 0 }
}

function encodeSettings(
  { kind, onLong }: ResolvedOptions['settings'],
  checkpoint: Checkpoint,
  reference: Checkpoint | undefined,
): EncodeSettings {
  const models = reference === undefined ? [checkpoint] : [checkpoint, reference]
  return {
    kind: kind === 'sft' ? 'implicit' : kind,
    onLong,
    contextLength: Math.min(...models.map(({ contextLength }) => contextLength)),
    vocabularySize: Math.min(...models.map(({ spec }) => spec.vocabSize + spec.addedTokens)),
  }
}

/** Without the weights that the kind has no use for: the unembedding is often the largest one. */
function trainedSpec(spec: ModelSpec, kind: TrainSettings['kind'], head: InitialHead | undefined): ModelSpec {
  const unused = new Set(kind === 'explicit' ? ['unembedding', ...(head?.weight ? ['head'] : [])] : ['head'])
  return { ...spec, weights: spec.weights.filter(({ role }) => !unused.has(role)) }
}

function nativeOptions(
  { settings, conduct }: ResolvedOptions,
  encoder: RowEncoder,
  head: InitialHead | undefined,
): NativeTrainOptions {
  const { kind, optimizer } = settings
  const parts = new Set<string>(settings.freeze)
  const rest = parts.has('all-but-head')
  const frozen = (part: string) => rest || parts.has(part)
  return {
    objective: kind,
    pool: settings.pool,
    beta: settings.beta,
    lengthNormalized: settings.lengthNormalized,
    labelSmoothing: settings.labelSmoothing,
    centering: settings.centering,
    ...(kind === 'generative' ? { yesToken: encoder.yesTokenId, noToken: encoder.noTokenId } : {}),
    optimizer: {
      kind: optimizer,
      beta1: settings.adamBeta1,
      beta2: optimizer === 'rmsprop' ? settings.rmspropAlpha : settings.adamBeta2,
      epsilon: settings.epsilon,
      weightDecay: settings.weightDecay,
      momentum: settings.momentum,
    },
    frozen: {
      embedding: frozen('embedding'),
      unembedding: frozen('unembedding'),
      blocks: frozen('blocks'),
      norms: frozen('norms'),
      head: parts.has('head'),
    },
    recompute: conduct.recompute,
    ...(head?.weight === undefined ? {} : { head: head.weight }),
  }
}

/** Every micro-batch of the run and of its evaluations: the order of the data is known before the first step. */
function* allBatches(settings: TrainSettings, { data, evaluation }: Sets): Generator<readonly TrainPair[]> {
  const { kind, epochs, batchPairs, microBatchTokens, seed } = settings
  const random = Random.seeded(seed, STREAMS.order)
  for (let epoch = 0; epoch < epochs; epoch++) {
    const order = random.permutation(data.pairs.length)
    for (let at = 0; at < order.length; at += batchPairs) {
      const pairs = Array.from(order.subarray(at, at + batchPairs), (i) => data.pairs[i]!)
      yield* microBatches(kind, pairs, microBatchTokens)
    }
  }
  for (const { pairs } of evaluation.values()) yield* microBatches(kind, pairs, microBatchTokens)
}

function checkUnembedding(model: Model, { path }: Checkpoint): void {
  if (model.hasUnembedding) return
  const message = `${path}: a reference needs a language model's unembedding (lm_head), and this checkpoint has none`
  throw new ImplexError('ERR_TENSOR_MISSING', message, { path })
}

function digest(values: Float32Array): string {
  return createHash('sha256').update(values).digest('hex')
}
