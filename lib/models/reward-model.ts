/**
 * RewardModel: a checkpoint opened as one of the three kinds of reward model, and the scoring of rows with it.
 */
import { type Checkpoint, openCheckpoint, readHead } from '../checkpoint/checkpoint.js'
import { modelFingerprint } from '../checkpoint/fingerprint.js'
import type { ModelSpec } from '../native/spec.js'
import type { Readout } from '../data/batches.js'
import type { EncodeSettings, OnLong, RewardKind } from '../data/encode.js'
import { EncodePool } from '../data/encode-pool.js'
import type { EncoderDescription } from '../data/encode-worker.js'
import { defaultCacheDir, NUMERICS_VERSION, ReferenceCache } from '../data/reference-cache.js'
import { type BatchScorer, implicitScorer, readoutScorer, tokenRewardScorer } from '../data/rewards.js'
import type { Row, RowSource } from '../data/rows.js'
import { type ScoredRow, scoreRows } from '../data/score-rows.js'
import type { RowsOption } from '../data/shapes/names.js'
import { rowSource } from '../data/sources.js'
import { UnreadCounts } from '../data/unread.js'
import { type DeviceName, type DType, openOnDevice } from '../native/device.js'
import { createCancel, type Model, nativeInfo } from '../native/handles.js'
import type { NativeCancel } from '../native/types.js'
import { ImplexError } from '../core/errors.js'
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

export const REWARD_KINDS = ['explicit', 'implicit', 'generative'] as const
export const POOLS = ['last', 'mean'] as const
export const ON_LONG = ['error', 'skip', 'truncate-prompt'] as const
export const ON_ERROR = ['stop', 'skip'] as const
export const DEVICES = ['auto', 'cpu', 'cuda'] as const
export const DTYPES = ['f32', 'bf16'] as const

export interface RewardModelOptions {
  /**
   * `explicit`: u·h, a linear head on the last hidden state. `implicit`: β (ln π(y|x) - ln π_ref(y|x)), or β ln π(y|x) without a
   * reference. `generative`: p("Yes") after a verification prompt.
   */
  kind: RewardKind
  /** implicit: folder of the reference checkpoint. It is loaded only when its log-probabilities are not in the cache. */
  reference?: string
  /** implicit. Defaults to 0.01. */
  beta?: number
  /** explicit: the head at the last token, or its mean over the response's tokens. Defaults to 'last'. */
  pool?: 'last' | 'mean'
  /** explicit: the head [hiddenSize], or a safetensors file or checkpoint that holds `score.weight`. Defaults to the checkpoint's own. */
  head?: string | Float32Array
  /** 'auto' takes an NVIDIA GPU if the CUDA module is built, verified and works, else the CPU; see `fallbackReason`. Defaults to 'auto'. */
  device?: 'auto' | DeviceName
  /** How weights are held: 'bf16' halves memory and is less exact. Defaults to 'f32'. */
  dtype?: DType
  /**
   * 'auto': the checkpoint's chat template, or the default one where it has none; 'default'; 'none': plain text; or the path of a
   * Jinja file. Defaults to 'auto'.
   */
  template?: string
  /** The time told to templates that ask for it (some write today's date into the prompt). Defaults to now. */
  now?: Date
  /**
   * Rows beyond the model's context: 'error'; 'skip' them; or 'truncate-prompt', dropping the prompt's oldest tokens, never the
   * response's. Defaults to 'error'.
   */
  onLong?: OnLong
  /** Keep reference log-probabilities on disk. Defaults to true; it works for files only, see readJsonl. */
  cache?: boolean
  /** Defaults to $XDG_CACHE_HOME/implex or ~/.cache/implex. */
  cacheDir?: string
  /** Threads that tokenise, each with a tokenizer of its own in memory. Defaults to 1. */
  encodeThreads?: number
  /** Aborts the opening (ERR_ABORTED). */
  signal?: AbortSignal
  /** Told of what goes wrong without stopping the work. Defaults to process.emitWarning. */
  onWarning?: (message: string) => void
}

export interface ScoreOptions {
  /** Aborts with ERR_ABORTED within a batch. */
  signal?: AbortSignal
  /**
   * implicit: also return each response token's log-probability, and the reference's where there is one: it is computed then, since the
   * cache holds sums only. Defaults to false.
   */
  tokenLogprobs?: boolean
  /** explicit: also return the head's value at each response token; with pool 'last' the reward is the last one's. Defaults to false. */
  tokenRewards?: boolean
  /** Also return the ids and texts of each response's tokens. Defaults to false. */
  responseTokens?: boolean
  /** The shape of rows that are no RowSource; `auto`, the default, tells it by each row's keys. docs/formats.md lists them. */
  rows?: RowsOption
  /** Most tokens in a batch; changes speed and memory, never a reward. Defaults to 4096 on the CPU and 16384 on a GPU. */
  batchTokens?: number
}

export interface ScoreStreamOptions extends ScoreOptions {
  /** A bad row ends the stream with its error after the rows before it, or comes out with `error`. Defaults to 'stop'. */
  onError?: 'stop' | 'skip'
  /** When aborted, the stream finishes the batches under way, hands out their rows and ends without an error. */
  drain?: AbortSignal
  /** Responses that the rows before the source's first one had, where a run is continued (see readJsonl's skipRows). Defaults to 0. */
  firstOrdinal?: number
}

export interface Scores {
  /** [rows][responses]; for a pair [chosen, rejected]. Empty for a row left out by onLong 'skip'. */
  rewards: number[][]
  /** The same rows with token counts and, for the implicit kind, log-probabilities. */
  rows: ScoredRow[]
  /** Rows left out because they are beyond the context. */
  skipped: number
  /** Rows whose prompt was shortened. */
  truncated: number
}

interface Parts {
  checkpoint: Checkpoint
  reference?: Checkpoint
  pool: EncodePool
  model: Model
  device: DeviceName
  fallbackReason?: string
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
  readonly pool: 'last' | 'mean'
  readonly onLong: OnLong
  /** Where the chat template came from. */
  readonly templateSource: EncoderDescription['templateSource']
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
    const { kind, template, now, encodeThreads, signal } = resolved
    if (signal?.aborted) throw new ImplexError('ERR_ABORTED', 'the opening was aborted', { cause: signal.reason })
    const plain = await openCheckpoint(path)
    const referencePlain = resolved.reference === undefined ? undefined : await openCheckpoint(resolved.reference)
    const pool = await EncodePool.start({ path, template, kind, now }, encodeThreads)
    try {
      // A template may add tokens that neither model has rows for.
      const { addedTokens, vocabularySize } = pool.description
      const widen = (checkpoint: Checkpoint): Promise<Checkpoint> | Checkpoint => {
        const missing = addedTokens === 0 ? 0 : Math.max(0, vocabularySize - checkpoint.spec.vocabSize)
        return missing === 0 ? checkpoint : openCheckpoint(checkpoint.path, { addedTokens: missing })
      }
      const checkpoint = await widen(plain)
      const reference = referencePlain === undefined ? undefined : await widen(referencePlain)
      if (reference !== undefined) await checkReference(pool, plain, reference)
      const head = await resolveHead(checkpoint, resolved)
      const spec = needed(checkpoint.spec, kind, head !== undefined)
      const opened = await openOnDevice(spec, resolved, signal)
      try {
        if (head !== undefined) opened.model.setHead(head)
        checkReadable(opened.model, checkpoint, kind)
      } catch (error) {
        opened.model.dispose()
        throw error
      }
      return new RewardModel({ checkpoint, ...(reference && { reference }), pool, ...opened }, resolved)
    } catch (error) {
      pool.close()
      throw error
    }
  }

  private constructor(parts: Parts, options: ResolvedOptions) {
    const { checkpoint, reference, pool, model } = parts
    this.path = checkpoint.path
    this.kind = options.kind
    this.device = parts.device
    if (parts.fallbackReason !== undefined) this.fallbackReason = parts.fallbackReason
    this.dtype = options.dtype
    this.kernels = model.kernels
    this.beta = options.beta
    this.pool = options.pool
    this.onLong = options.onLong
    this.templateSource = pool.description.templateSource
    this.textFingerprint = pool.description.fingerprint
    this.contextLength = Math.min(checkpoint.contextLength, reference?.contextLength ?? Number.POSITIVE_INFINITY)
    this.weightBytes = model.weightBytes
    this.#parts = parts
    this.#options = options
  }

  /** Whether a reference had to be loaded so far; false as long as the cache knew everything. */
  get referenceLoaded(): boolean {
    return this.#referenceLoaded
  }

  /** The policy's checkpoint: read-only data. */
  get checkpoint(): Checkpoint {
    return this.#parts.checkpoint
  }

  /** The reference's checkpoint, if there is one. */
  get referenceCheckpoint(): Checkpoint | undefined {
    return this.#parts.reference
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
    const resolved = this.#resolveStream(options)
    const { signal, drain, onError, firstOrdinal, batchTokens } = resolved
    const source = rowSource(rows, options.rows)
    if (this.#disposed) throw new ImplexError('ERR_DISPOSED', 'the reward model has been disposed of')
    const cancel = createCancel()
    const abort = () => cancel.cancel()
    signal?.addEventListener('abort', abort, { once: true })
    const cache = await this.#openCache(source, signal)
    const scorer = this.#scorer(cancel, cache, resolved)
    const settings: EncodeSettings = {
      kind: this.kind,
      onLong: this.onLong,
      contextLength: this.contextLength,
      vocabularySize: this.#vocabularySize(),
      ...(resolved.responseTokens ? { tokenTexts: true } : {}),
    }
    const check = selfCheck && !this.#selfChecked
    if (check) this.#selfChecked = true
    const { bosTokenId } = this.#parts.pool.description
    const unread = new UnreadCounts()
    try {
      yield* scoreRows(this.#parts.pool.encode(source.chunks(), settings, unread), scorer, {
        batchTokens,
        onError,
        skipLong: this.onLong === 'skip',
        firstOrdinal,
        selfCheck: check,
        ...(bosTokenId === undefined ? {} : { bosTokenId }),
        ...(signal && { signal }),
        ...(drain && { drain }),
      })
    } finally {
      // A program may score rows in memory one at a time: it is told of each key once. A stream is a run of its own.
      const message = unread.message(source.name, selfCheck ? undefined : this.#told)
      if (message !== undefined) this.#options.onWarning(message)
      signal?.removeEventListener('abort', abort)
      cancel.cancel() // an early end leaves batches in the engine's queue
      if (cache !== undefined) {
        this.cacheStatistics.hits += cache.hits
        this.cacheStatistics.misses += cache.misses
        await cache.close()
      }
    }
  }

  #resolveStream(options: ScoreStreamOptions) {
    checkObject('options', options)
    const { signal, drain, onError = 'stop', firstOrdinal = 0 } = options
    const { tokenLogprobs = false, tokenRewards = false, responseTokens = false } = options
    const batchTokens = options.batchTokens ?? (this.device === 'cpu' ? 4096 : 16384)
    checkSignal('signal', signal)
    checkSignal('drain', drain)
    checkBoolean('tokenLogprobs', tokenLogprobs)
    if (tokenLogprobs && this.kind !== 'implicit') {
      throw outOfRange(
        'tokenLogprobs',
        `false for the ${this.kind} kind, whose reward is no sum of log-probabilities`,
        true,
      )
    }
    checkBoolean('tokenRewards', tokenRewards)
    if (tokenRewards && this.kind !== 'explicit') {
      throw outOfRange('tokenRewards', `false for the ${this.kind} kind, which has no head`, true)
    }
    checkBoolean('responseTokens', responseTokens)
    checkOneOf('onError', onError, ON_ERROR)
    checkInteger('firstOrdinal', firstOrdinal, 0)
    checkInteger('batchTokens', batchTokens, 1, 2 ** 24)
    return { signal, drain, tokenLogprobs, tokenRewards, responseTokens, onError, firstOrdinal, batchTokens }
  }

  #scorer(
    cancel: NativeCancel,
    cache: ReferenceCache | undefined,
    { tokenLogprobs, tokenRewards }: { tokenLogprobs: boolean; tokenRewards: boolean },
  ): BatchScorer {
    const { model, pool, reference } = this.#parts
    if (this.kind === 'implicit') {
      return implicitScorer({
        policy: model,
        beta: this.beta,
        tokenLogprobs,
        cancel,
        ...(reference && { reference: () => this.#loadReference(reference) }),
        ...(cache && { cache }),
      })
    }
    if (tokenRewards) return tokenRewardScorer(model, this.pool, cancel)
    const readout: Readout =
      this.kind === 'generative'
        ? { readout: 'next_token', targetToken: pool.description.yesTokenId! }
        : { readout: this.pool === 'last' ? 'reward_last' : 'reward_mean' }
    return readoutScorer(model, readout, cancel)
  }

  /** Ids below this have an embedding row in every model that sees them. */
  #vocabularySize(): number {
    const rows = ({ spec }: Checkpoint) => spec.vocabSize + spec.addedTokens
    const { checkpoint, reference } = this.#parts
    return Math.min(rows(checkpoint), reference === undefined ? Number.POSITIVE_INFINITY : rows(reference))
  }

  #loadReference(checkpoint: Checkpoint): Promise<Model> {
    this.#reference ??= openOnDevice(needed(checkpoint.spec, 'implicit', false), {
      device: this.device,
      dtype: this.dtype,
    })
      .then(({ model }) => {
        if (this.#disposed) model.dispose()
        else {
          this.#referenceLoaded = true
          checkReadable(model, checkpoint, 'implicit')
        }
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
    const key = {
      weights: await modelFingerprint(reference, cacheDir, signal),
      text: this.textFingerprint,
      data,
      dtype: this.dtype,
      device: this.device,
      kernels: this.kernels,
      version: nativeInfo().version,
      numerics: NUMERICS_VERSION,
      onLong: this.onLong,
      contextLength: this.contextLength,
    }
    return ReferenceCache.open(cacheDir, key, onWarning)
  }
}

type ResolvedOptions = Required<Omit<RewardModelOptions, 'reference' | 'head' | 'signal'>> &
  Pick<RewardModelOptions, 'reference' | 'head' | 'signal'>

function resolveOptions(options: RewardModelOptions): ResolvedOptions {
  checkObject('options', options)
  const { beta = 0.01, pool = 'last', device = 'auto', dtype = 'f32', template = 'auto', onLong = 'error' } = options
  const {
    kind,
    reference,
    head,
    now = new Date(),
    cache = true,
    cacheDir = defaultCacheDir(),
    encodeThreads = 1,
    signal,
  } = options
  const { onWarning = (message: string) => process.emitWarning(message, 'ImplexWarning') } = options
  checkOneOf('kind', kind, REWARD_KINDS)
  checkNumber('beta', beta, Number.MIN_VALUE)
  checkOneOf('pool', pool, POOLS)
  checkOneOf('device', device, DEVICES)
  checkOneOf('dtype', dtype, DTYPES)
  checkString('template', template)
  if (!(now instanceof Date) || Number.isNaN(now.getTime())) throw invalidArgument('now', 'a valid Date', now)
  checkOneOf('onLong', onLong, ON_LONG)
  checkBoolean('cache', cache)
  checkString('cacheDir', cacheDir)
  checkInteger('encodeThreads', encodeThreads, 1, 64)
  checkSignal('signal', signal)
  if (typeof onWarning !== 'function') throw invalidArgument('onWarning', 'a function', onWarning)
  if (reference !== undefined) {
    checkString('reference', reference)
    if (kind !== 'implicit')
      throw outOfRange('reference', 'left out: only the implicit kind has a reference', reference)
  }
  if (head !== undefined) {
    if (typeof head !== 'string' && !(head instanceof Float32Array))
      throw invalidArgument('head', 'a path or a Float32Array', head)
    if (kind !== 'explicit') throw outOfRange('head', 'left out: only the explicit kind has a head', head)
  }
  return {
    kind,
    beta,
    pool,
    device,
    dtype,
    template,
    now,
    onLong,
    cache,
    cacheDir,
    encodeThreads,
    onWarning,
    ...(reference === undefined ? {} : { reference }),
    ...(head === undefined ? {} : { head }),
    ...(signal === undefined ? {} : { signal }),
  }
}

function checkSignal(name: string, signal: unknown): asserts signal is AbortSignal | undefined {
  if (signal !== undefined && !(signal instanceof AbortSignal)) throw invalidArgument(name, 'an AbortSignal', signal)
}

/** The head to set; undefined when the checkpoint's own is to be used, or none is needed. */
async function resolveHead(
  { path, spec }: Checkpoint,
  { kind, head }: ResolvedOptions,
): Promise<Float32Array | undefined> {
  if (kind !== 'explicit') return undefined
  if (typeof head === 'string') return readHead(head, spec.hiddenSize)
  if (head !== undefined) {
    if (head.length !== spec.hiddenSize) {
      throw outOfRange('head', `of the model's hidden size, ${spec.hiddenSize} numbers`, head.length)
    }
    if (!head.every(Number.isFinite)) throw outOfRange('head', 'finite in every element', head)
    return head
  }
  if (spec.weights.some(({ role }) => role === 'head')) return undefined
  throw new ImplexError(
    'ERR_TENSOR_MISSING',
    `${path}: an explicit reward needs a head, and this checkpoint has no tensor score.weight; give one with --head FILE (option "head"), ` +
      'or score with kind "implicit", which needs none',
    { path },
  )
}

/** The weights that a kind reads: the unembedding is often the largest one, and an explicit reward has no use for it. */
function needed(spec: ModelSpec, kind: RewardKind, headGiven: boolean): ModelSpec {
  const unused = new Set(kind === 'explicit' ? ['unembedding', ...(headGiven ? ['head'] : [])] : ['head'])
  return { ...spec, weights: spec.weights.filter(({ role }) => !unused.has(role)) }
}

function checkReadable(model: Model, { path }: Checkpoint, kind: RewardKind): void {
  if (kind === 'explicit' || model.hasUnembedding) return
  const message = `${path}: the ${kind} kind needs a language model's unembedding (lm_head), and this checkpoint has none`
  throw new ImplexError('ERR_TENSOR_MISSING', message, { path })
}

async function checkReference(pool: EncodePool, policy: Checkpoint, reference: Checkpoint): Promise<void> {
  const difference = await pool.compareWith(reference.path)
  if (difference !== undefined) {
    throw new ImplexError(
      'ERR_TOKENIZER_INVALID',
      `${reference.path}: the reference's tokenizer differs from the policy's (${policy.path}) in its ${difference}; an implicit reward ` +
        'compares probabilities of the same tokens, so both need the same tokenizer.json',
      { path: reference.path },
    )
  }
}
