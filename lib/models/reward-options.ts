/**
 * The options of a RewardModel and of its scoring: what they mean, their defaults and their checks.
 */
import type { RowsOption } from '../data/shapes/names.js'
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
import { checkHeadSpec, type HeadSpec, parseHeadSpec } from '../checkpoint/head-spec.js'
import type { LabelWeights } from '../checkpoint/reward-head.js'
import { type Border, BORDERS } from '../checkpoint/trained-with.js'
import { ON_LONG, type OnLong, REWARD_KINDS, type RewardKind } from '../data/encode.js'
import { defaultCacheDir } from '../data/reference-cache.js'
import { POOLS, type Pool } from '../data/rewards.js'
import { ON_ERROR, type OnError, type ScoredRow } from '../data/score-rows.js'
import { STEP_AGGREGATES, type StepAggregate } from '../data/steps.js'
import { DEVICES, type DeviceName, defaultBatchTokens, DTYPES, type DType } from '../native/device.js'
import { HEAD_AT, HEAD_PLACES, type HeadPlaceOption } from './head-place.js'

export interface RewardModelOptions {
  /**
   * `explicit`: u·h, a linear head on the last hidden state. `implicit`: β (ln π(y|x) - ln π_ref(y|x)), or β ln π(y|x) without a
   * reference. `generative`: p("Yes") after a verification prompt.
   */
  kind: RewardKind
  /**
   * Folder of a LoRA adapter that peft saved for the checkpoint. Its tokenizer, template and padding token count where it has them, and an
   * explicit reward reads the head that it has.
   */
  adapter?: string
  /**
   * implicit: folder of the reference checkpoint. It is loaded only when its log-probabilities are not in the cache. With an adapter it
   * defaults to the checkpoint without the adapter.
   */
  reference?: string
  /** implicit. Defaults to 0.01. */
  beta?: number
  /** explicit: the head at the last token, or its mean over the response's tokens. Defaults to 'last'. */
  pool?: Pool
  /** explicit: the head [hiddenSize], or a safetensors file or checkpoint that holds one. Defaults to the checkpoint's own. */
  head?: string | Float32Array
  /**
   * explicit: the head by the names of its layers, for a head that is not known or one of several, or the logit of a token: an object,
   * a text as --head-spec takes it, or the path of a .json file. docs/checkpoints.md has both.
   */
  headSpec?: string | HeadSpec
  /**
   * explicit, pool 'last': where the head is read: at the 'last' token, or at the last that is not the checkpoint's padding token
   * ('last-non-pad'), as transformers and TRL do; the two differ where the padding token ends a response. `token:TOKEN` is the last such
   * token of the response, `append:TOKEN` one that is put at the end. Defaults to what the head's checkpoint says; a head of which no
   * checkpoint says it is an error where it matters.
   */
  headAt?: HeadPlaceOption
  /**
   * explicit, implicit: 'whole' tokenizes a conversation in one piece, as TRL does, and the prompt ends where its ids and the
   * conversation's part; 'separate' tokenizes prompt and response apart, as the paper's code does. Defaults to what implex trained the
   * checkpoint with, if it did, else to 'whole'.
   */
  border?: Border
  /** explicit: which label of a head of several is the reward, by index or by its name in `id2label`. */
  label?: number | string
  /** explicit: the reward is this sum of a head's labels: a number for each, or by index or name, the others counting for nothing. */
  labelWeights?: LabelWeights
  /**
   * explicit, generative: process rewards. Where the steps of a response end: at each token of this kind, by its text or its id, or where
   * the matches of a pattern in the response's text end. A row without any is an error. A head of two labels gives the probability of
   * the second one; the generative kind gives the probability of `goodToken`.
   */
  steps?: string | number | RegExp
  /** With steps: how the rewards of a response's steps become its reward. Defaults to 'min'. */
  stepsAggregate?: StepAggregate
  /** generative, with steps: the token that follows a good step, by its text or its id. Defaults to "Yes". */
  goodToken?: string | number
  /** generative, with steps: the token that follows a bad one; the reward is then p(good) / (p(good) + p(bad)). */
  badToken?: string | number
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
  /** Threads that tokenize, each with a tokenizer of its own in memory. Defaults to 1. */
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
  /** explicit: also return the value of each of the head's labels where the head is read. Defaults to false. */
  labelRewards?: boolean
  /** Also return the ids and texts of each response's tokens. Defaults to false. */
  responseTokens?: boolean
  /** The shape of rows that are no RowSource; `auto`, the default, tells it by each row's keys. docs/formats.md lists them. */
  rows?: RowsOption
  /** Most tokens in a batch; changes speed and memory, never a reward. Defaults to 4096 on the CPU and 16384 on a GPU. */
  batchTokens?: number
}

export interface ScoreStreamOptions extends ScoreOptions {
  /** A bad row ends the stream with its error after the rows before it, or comes out with `error`. Defaults to 'stop'. */
  onError?: OnError
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
  /** Rows to which the other rule for the border of prompt and response gives other ids. */
  borderDiffers: number
  /** Rows whose conversation's text does not begin with the prompt's. */
  promptParted: number
}

type Optional =
  | 'adapter'
  | 'reference'
  | 'head'
  | 'headSpec'
  | 'headAt'
  | 'label'
  | 'labelWeights'
  | 'border'
  | 'steps'
  | 'goodToken'
  | 'badToken'
  | 'signal'
export type ResolvedOptions = Required<Omit<RewardModelOptions, Optional>> & Pick<RewardModelOptions, Optional>

export function resolveOptions(options: RewardModelOptions): ResolvedOptions {
  checkObject('options', options)
  const { beta = 0.01, pool = 'last', device = 'auto', dtype = 'f32', template = 'auto', onLong = 'error' } = options
  const {
    kind,
    adapter,
    reference,
    head,
    headSpec,
    headAt,
    border,
    label,
    labelWeights,
    steps,
    stepsAggregate = 'min',
    goodToken,
    badToken,
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
  if (adapter !== undefined) checkString('adapter', adapter)
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
  if (headAt !== undefined) {
    checkString('headAt', headAt)
    if (!HEAD_AT.test(headAt))
      throw outOfRange('headAt', `${HEAD_PLACES.join(', ')}, token:TOKEN or append:TOKEN`, headAt)
    if (kind !== 'explicit' || pool !== 'last')
      throw outOfRange('headAt', "left out: it is for the explicit kind with pool 'last' only", headAt)
  }
  if (border !== undefined) {
    checkOneOf('border', border, BORDERS)
    if (kind === 'generative' && steps === undefined)
      throw outOfRange('border', 'left out: a verification prompt is one text', border)
  }
  if (label !== undefined) {
    if (typeof label !== 'string') checkInteger('label', label, 0)
    if (kind !== 'explicit') throw outOfRange('label', 'left out: only the explicit kind has a head', label)
    if (head instanceof Float32Array) throw outOfRange('label', 'left out: the head that is given is one row', label)
  }
  checkHeadOptions(options)
  checkSteps(options)
  checkOneOf('stepsAggregate', stepsAggregate, STEP_AGGREGATES)
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
    adapter,
    reference,
    head,
    headSpec,
    headAt,
    border,
    label,
    labelWeights,
    steps,
    stepsAggregate,
    goodToken,
    badToken,
    signal,
  }
}

function checkHeadOptions({ kind, head, headSpec, label, labelWeights }: RewardModelOptions): void {
  if (headSpec !== undefined) {
    if (typeof headSpec !== 'string') checkHeadSpec(headSpec)
    else if (!headSpec.endsWith('.json')) parseHeadSpec(headSpec)
    if (kind !== 'explicit') throw outOfRange('headSpec', 'left out: only the explicit kind has a head', headSpec)
    if (head instanceof Float32Array) throw outOfRange('headSpec', 'left out: the head is given as numbers', headSpec)
  }
  if (labelWeights !== undefined) {
    if (kind !== 'explicit')
      throw outOfRange('labelWeights', 'left out: only the explicit kind has a head', labelWeights)
    if (label !== undefined) throw outOfRange('labelWeights', 'left out where a label is chosen', labelWeights)
    if (head instanceof Float32Array)
      throw outOfRange('labelWeights', 'left out: the head that is given is one row', labelWeights)
  }
}

function checkSteps({ kind, steps, pool, headAt, goodToken, badToken, stepsAggregate }: RewardModelOptions): void {
  for (const [name, token] of Object.entries({ goodToken, badToken })) {
    if (token === undefined) continue
    checkToken(name, token)
    if (kind !== 'generative' || steps === undefined)
      throw outOfRange(name, 'left out: it is for the generative kind with steps', token)
  }
  if (steps === undefined) {
    if (stepsAggregate !== undefined) throw outOfRange('stepsAggregate', 'left out without steps', stepsAggregate)
    return
  }
  if (!(steps instanceof RegExp)) checkToken('steps', steps)
  if (kind === 'implicit') throw outOfRange('steps', 'left out: the implicit kind has no reward of a step', steps)
  if (pool !== undefined && pool !== 'last') throw outOfRange('pool', '"last" with steps', pool)
  if (headAt !== undefined) throw outOfRange('headAt', 'left out with steps, which say where the head is read', headAt)
}

function checkToken(name: string, token: unknown): void {
  if (typeof token === 'number') checkInteger(name, token, 0)
  else if (typeof token !== 'string' || token === '') throw invalidArgument(name, "a token's text or its id", token)
}

function checkSignal(name: string, signal: unknown): asserts signal is AbortSignal | undefined {
  if (signal !== undefined && !(signal instanceof AbortSignal)) throw invalidArgument(name, 'an AbortSignal', signal)
}

/** @param kind of the model @param device that it is on */
export function resolveStreamOptions(options: ScoreStreamOptions, kind: RewardKind, device: DeviceName) {
  checkObject('options', options)
  const { signal, drain, onError = 'stop', firstOrdinal = 0 } = options
  const { tokenLogprobs = false, tokenRewards = false, labelRewards = false, responseTokens = false } = options
  const batchTokens = options.batchTokens ?? defaultBatchTokens(device)
  checkSignal('signal', signal)
  checkSignal('drain', drain)
  checkBoolean('tokenLogprobs', tokenLogprobs)
  if (tokenLogprobs && kind !== 'implicit') {
    throw outOfRange('tokenLogprobs', `false for the ${kind} kind, whose reward is no sum of log-probabilities`, true)
  }
  checkBoolean('tokenRewards', tokenRewards)
  if (tokenRewards && kind !== 'explicit') {
    throw outOfRange('tokenRewards', `false for the ${kind} kind, which has no head`, true)
  }
  checkBoolean('labelRewards', labelRewards)
  if (labelRewards && kind !== 'explicit') {
    throw outOfRange('labelRewards', `false for the ${kind} kind, which has no head`, true)
  }
  checkBoolean('responseTokens', responseTokens)
  checkOneOf('onError', onError, ON_ERROR)
  checkInteger('firstOrdinal', firstOrdinal, 0)
  checkInteger('batchTokens', batchTokens, 1, 2 ** 24)
  const more = { tokenLogprobs, tokenRewards, labelRewards, responseTokens }
  return { signal, drain, ...more, onError, firstOrdinal, batchTokens }
}
