/**
 * RewardModel: a checkpoint opened as one of the three kinds of reward model, and the scoring of rows with it.
 */
import type { Checkpoint } from '../checkpoint/checkpoint.js'
import { modelFingerprint } from '../checkpoint/fingerprint.js'
import { onAbort } from '../core/abort.js'
import { checkString, invalidArgument, outOfRange } from '../core/arguments.js'
import { ImplexError } from '../core/errors.js'
import type { Border } from '../checkpoint/trained-with.js'
import type { EncodeSettings, OnLong, RewardKind } from '../data/encode.js'
import { referenceKey } from '../data/reference.js'
import { ReferenceCache } from '../data/reference-cache.js'
import { headScorer, stepTokenScorer } from '../data/head-scorer.js'
import { type BatchScorer, implicitScorer, type Pool, readoutOf, readoutScorer } from '../data/rewards.js'
import type { Row, RowSource } from '../data/rows.js'
import { type ScoredRow, scoreRows } from '../data/score-rows.js'
import { rowSource } from '../data/sources.js'
import { UnreadCounts } from '../data/unread.js'
import type { DeviceName, DType } from '../native/device.js'
import { createCancel, type Model } from '../native/handles.js'
import type { NativeCancel } from '../native/types.js'
import type { TemplateSource } from '../text/text-encoder.js'
import { DEFAULT_BORDER } from '../text/conversation.js'
import type { HeadPlaceOption } from './head-place.js'
import {
  limitsOf,
  type OpenText,
  openText,
  openToScore,
  openWithReference,
  type ScoringModel,
  type ScoringModels,
} from './open.js'
import { openReading, type Reading, readingSettings } from './reading.js'
import {
  type ResolvedOptions,
  type RewardModelOptions,
  resolveOptions,
  resolveStreamOptions,
  type ScoreOptions,
  type Scores,
  type ScoreStreamOptions,
} from './reward-options.js'

/** See RewardModel.expertLoad. */
export interface ExpertLoad {
  /** From 0. */
  layer: number
  /** One number for each expert. */
  tokens: number[]
}

interface Parts extends OpenText, ScoringModels {
  border?: Border
  reading: Reading
}

/** Open one with `RewardModel.open`. Calls may overlap; the engine works on one batch after the other. */
export class RewardModel implements Disposable {
  /** Absolute path of the checkpoint. */
  readonly path: string
  readonly kind: RewardKind
  readonly device: DeviceName
  /** Why `device: 'auto'` is not the GPU. */
  readonly fallbackReason?: string
  readonly dtype: DType
  /** Kernel set of the engine: rewards are bit-identical under one of these. */
  readonly kernels: string
  readonly beta: number
  readonly pool: Pool
  /** How prompt and response are parted; absent for the generative kind. */
  readonly border?: Border
  /** Where the head is read; absent without pool 'last'. */
  readonly headAt?: HeadPlaceOption
  /** With headAt 'last-non-pad': the padding token. */
  readonly padTokenId?: number
  /** Names of the head's labels, where it has several and the config names them. */
  readonly labelNames?: readonly string[]
  readonly onLong: OnLong
  /** Where the chat template came from. */
  readonly templateSource: TemplateSource
  /** SHA-256 of tokenizer, template and added tokens. */
  readonly textFingerprint: string
  /** Most tokens of prompt and response together. */
  readonly contextLength: number
  /** Bytes of the weights in memory, the reference's not included. */
  readonly weightBytes: number
  /** Reference log-probabilities found on disk, and not found there, so far. */
  readonly cacheStatistics = { hits: 0, misses: 0 }
  readonly #options: ResolvedOptions
  readonly #parts: Parts
  #reference: Promise<Model> | undefined
  #referenceLoaded = false
  #selfChecked = false
  /** Keys of rows in memory that nothing reads, once told. */
  readonly #told = new Set<string>()
  #disposed = false

  /**
   * Opens a checkpoint folder in Hugging Face form.
   * @throws TypeError, RangeError for wrong arguments
   * @throws ImplexError when checkpoint, tokenizer, template, head, reference or device cannot be used; the message says what to do
   */
  static async open(path: string, options: RewardModelOptions): Promise<RewardModel> {
    checkString('path', path)
    const resolved = resolveOptions(options)
    const { kind, adapter, template, now, encodeThreads, signal } = resolved
    // Process rewards of the generative kind have tokens of their own in the place of "Yes" and "No".
    const textKind = resolved.steps === undefined ? kind : undefined
    const off = adapter !== undefined && kind === 'implicit' ? ({ base: true } as const) : undefined
    const opening = { reference: resolved.reference ?? off, signal }
    const text = await openText({ path, adapter, template, kind: textKind, now }, encodeThreads, opening)
    try {
      const { checkpoint } = text
      // A reference that is the model without its adapter has nothing else to tell.
      const others = off === undefined || resolved.reference !== undefined ? (text.reference?.notes ?? []) : []
      for (const note of [...checkpoint.notes, ...others]) resolved.onWarning(note)
      const reading = await openReading(text, resolved)
      const { head, steps } = reading
      const use = head?.ofHidden === undefined ? kind : 'hidden'
      const who = `the ${kind} kind`
      const apart = kind === 'generative' && steps === undefined
      const border = apart ? undefined : (resolved.border ?? checkpoint.border ?? DEFAULT_BORDER)
      const scoring: ScoringModel = { use, who, head: head?.weight }
      const opened = await openWithReference(checkpoint, text.reference, scoring, resolved, signal)
      return new RewardModel({ ...text, ...opened, border, reading }, resolved)
    } catch (error) {
      text.pool.close()
      throw error
    }
  }

  private constructor(parts: Parts, options: ResolvedOptions) {
    const { checkpoint, reference, pool, model } = parts
    this.path = checkpoint.path
    this.kind = options.kind
    this.device = parts.device
    this.fallbackReason = parts.fallbackReason
    this.dtype = options.dtype
    this.kernels = model.kernels
    this.beta = options.beta
    this.pool = options.pool
    this.border = parts.border
    const { head, place } = parts.reading
    this.headAt = place?.headAt
    this.padTokenId = place?.padTokenId
    if (head !== undefined && head.labelNames.length > 0) this.labelNames = head.labelNames
    this.onLong = options.onLong
    this.templateSource = pool.description.templateSource
    this.textFingerprint = pool.description.fingerprint
    this.contextLength = limitsOf(checkpoint, reference).contextLength
    this.weightBytes = model.weightBytes + (parts.off?.weightBytes ?? 0)
    this.#parts = parts
    this.#options = options
  }

  /** Whether a reference had to be loaded so far; false as long as the cache knew everything. */
  get referenceLoaded(): boolean {
    return this.#referenceLoaded
  }

  /** Absolute path of the adapter, if there is one. */
  get adapter(): string | undefined {
    return this.#parts.checkpoint.adapter?.path
  }

  /** For a mixture of experts: how many tokens each expert of each such layer got so far. The last layer counts only tokens that are read. */
  get expertLoad(): ExpertLoad[] | undefined {
    const load = this.#parts.model.expertLoad
    if (load === undefined) return undefined
    let at = 0
    return this.checkpoint.spec.layers.flatMap(({ experts }, layer) => {
      if (experts === undefined) return []
      at += experts.count
      return [{ layer, tokens: [...load.subarray(at - experts.count, at)] }]
    })
  }

  /** The policy's checkpoint: read-only data. */
  get checkpoint(): Checkpoint {
    return this.#parts.checkpoint
  }

  /** The reference's checkpoint, if there is one. */
  get referenceCheckpoint(): Checkpoint | undefined {
    return this.#parts.reference
  }

  /** SHA-256 of a head that the checkpoint's own row alone is not; undefined for that, and for the other kinds. */
  get headDigest(): string | undefined {
    return this.#parts.reading.head?.digest
  }

  get disposed(): boolean {
    return this.#disposed
  }

  /**
   * Scores rows held in memory.
   * @throws ImplexError ERR_ROW_INVALID, ERR_RESPONSE_EMPTY, ERR_ROW_TOO_LONG, … naming the row; ERR_ABORTED; ERR_DISPOSED
   */
  async score(rows: Iterable<Row>, options: ScoreOptions = {}): Promise<Scores> {
    if (typeof rows !== 'object' || rows === null || !(Symbol.iterator in rows)) {
      throw invalidArgument('rows', 'a list of rows', rows)
    }
    const scored: ScoredRow[] = []
    for await (const row of this.#stream([...rows], options, false)) scored.push(row)
    return {
      rewards: scored.map((row) => row.rewards),
      rows: scored,
      skipped: scored.filter((row) => row.skipped).length,
      truncated: scored.filter((row) => row.truncated).length,
      borderDiffers: scored.filter((row) => row.borderDiffers).length,
      promptParted: scored.filter((row) => row.promptParted).length,
    }
  }

  /**
   * Scores a stream of rows in bounded memory; results come in input order. Ending the iteration early stops the work.
   * Errors as for `score`, and ERR_SELF_CHECK when the first rows show that no reward of this run could be trusted.
   */
  scoreStream(
    source: RowSource | AsyncIterable<Row> | Iterable<Row>,
    options: ScoreStreamOptions = {},
  ): AsyncGenerator<ScoredRow> {
    return this.#stream(source, options, true)
  }

  /** Frees the weights and ends the threads. What is under way is rejected. Idempotent. */
  dispose(): void {
    if (this.#disposed) return
    this.#disposed = true
    this.#parts.pool.close()
    this.#parts.model.dispose()
    this.#parts.off?.dispose()
    this.#reference?.then(
      (model) => model.dispose(),
      () => {},
    )
  }

  [Symbol.dispose](): void {
    this.dispose()
  }

  async *#stream(
    rows: RowSource | AsyncIterable<Row> | Iterable<Row>,
    options: ScoreStreamOptions,
    selfCheck: boolean,
  ): AsyncGenerator<ScoredRow> {
    const resolved = resolveStreamOptions(options, this.kind, this.device)
    const { signal, drain, onError, firstOrdinal, batchTokens } = resolved
    const source = rowSource(rows, options.rows)
    if (this.#disposed) throw new ImplexError('ERR_DISPOSED', 'the reward model has been disposed of')
    const cancel = createCancel(signal)
    const off = onAbort(signal, () => cancel.cancel())
    const cache = await this.#openCache(source, signal)
    const scorer = this.#scorer(cancel, cache, resolved)
    const settings: EncodeSettings = {
      border: this.border ?? DEFAULT_BORDER,
      ...readingSettings(this.#parts.reading, this.kind),
      onLong: this.onLong,
      ...limitsOf(this.#parts.checkpoint, this.#parts.reference),
      tokenTexts: resolved.responseTokens,
    }
    const check = selfCheck && !this.#selfChecked
    if (check) this.#selfChecked = true
    const { bosTokenId, eosTokenId } = this.#parts.pool.description
    const unread = new UnreadCounts()
    try {
      yield* scoreRows(this.#parts.pool.encode(source.chunks(), settings, unread), scorer, {
        batchTokens,
        onError,
        skipLong: this.onLong === 'skip',
        firstOrdinal,
        selfCheck: check,
        bosTokenId,
        eosTokenId,
        signal,
        drain,
      })
    } finally {
      // A program may score rows in memory one at a time: it is told of each key once. A stream is a run of its own.
      const message = unread.message(source.name, selfCheck ? undefined : this.#told)
      if (message !== undefined) this.#options.onWarning(message)
      off()
      cancel.cancel() // an early end leaves batches in the engine's queue
      if (cache !== undefined) {
        this.cacheStatistics.hits += cache.hits
        this.cacheStatistics.misses += cache.misses
        await cache.close()
      }
    }
  }

  #scorer(
    cancel: NativeCancel,
    cache: ReferenceCache | undefined,
    { tokenLogprobs, tokenRewards, labelRewards }: Asked,
  ): BatchScorer {
    const { model, pool, reference, reading } = this.#parts
    if (this.kind === 'implicit') {
      const load = reference && (() => this.#loadReference(reference))
      return implicitScorer({ policy: model, beta: this.beta, reference: load, cache, tokenLogprobs, cancel })
    }
    const { head, steps, tokens } = reading
    const aggregate = steps && this.#options.stepsAggregate
    if (head === undefined) {
      if (tokens !== undefined) return stepTokenScorer(model, tokens, this.#options.stepsAggregate, cancel)
      return readoutScorer(model, readoutOf(this.kind, this.pool, pool.description.yesTokenId), cancel)
    }
    if (tokenRewards && head.ofHidden !== undefined) {
      throw outOfRange('tokenRewards', 'false for a head of several layers or with a gate', true)
    }
    if (steps !== undefined) {
      if (tokenRewards) throw outOfRange('tokenRewards', 'false with steps, at whose ends the head is read', true)
      if (labelRewards) throw outOfRange('labelRewards', 'false with steps, at whose ends the head is read', true)
    }
    return headScorer(model, { head, pool: this.pool, tokenRewards, labelRewards, steps: aggregate, cancel })
  }

  #loadReference(checkpoint: Checkpoint): Promise<Model> {
    const { off } = this.#parts
    if (off !== undefined) {
      this.#referenceLoaded = true
      return Promise.resolve(off)
    }
    const choice = { device: this.device, dtype: this.dtype }
    this.#reference ??= openToScore(checkpoint, { use: 'implicit', who: 'a reference' }, choice)
      .then(({ model }) => {
        if (this.#disposed) model.dispose()
        else this.#referenceLoaded = true
        return model
      })
      .catch((error: unknown) => {
        this.#reference = undefined
        throw error
      })
    return this.#reference
  }

  async #openCache(source: RowSource, signal: AbortSignal | undefined): Promise<ReferenceCache | undefined> {
    const { reference } = this.#parts
    const { cache, cacheDir, onWarning } = this.#options
    if (reference === undefined || !cache) return undefined
    const data = await source.fingerprint?.()
    if (data === undefined) return undefined
    const key = referenceKey({
      weights: await modelFingerprint(reference, cacheDir, signal),
      text: this.textFingerprint,
      data,
      dtype: this.dtype,
      device: this.device,
      kernels: this.kernels,
      border: this.border ?? DEFAULT_BORDER,
      onLong: this.onLong,
      contextLength: this.contextLength,
    })
    return ReferenceCache.open(cacheDir, key, onWarning)
  }
}

interface Asked {
  tokenLogprobs: boolean
  tokenRewards: boolean
  labelRewards: boolean
}
