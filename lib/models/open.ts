/**
 * What everyone who uses a checkpoint does first, told once: opens it with its text, gives every token a row, takes the weights that the use
 * needs, and demands what it cannot do without.
 */
import { type Checkpoint, findHead, openCheckpoint, readHead, withAddedTokens } from '../checkpoint/checkpoint.js'
import { changes } from '../checkpoint/adapter/merge.js'
import { lowRankSpec } from '../checkpoint/adapter/spec.js'
import { withMerged } from '../checkpoint/adapter/temporary.js'
import { withAdapter } from '../checkpoint/adapter/adapter.js'
import type { HeadSpec } from '../checkpoint/head-spec.js'
import { checkPlain, HEAD_FORMS, onlyHead } from '../checkpoint/heads.js'
import { type LabelChoice, logitHead, plainHead, readRewardHead, type RewardHead } from '../checkpoint/reward-head.js'
import { throwIfAborted, untilAborted } from '../core/abort.js'
import { outOfRange } from '../core/arguments.js'
import { ImplexError } from '../core/errors.js'
import { quoted } from '../core/files.js'
import type { EncodeSettings, RewardKind } from '../data/encode.js'
import { EncodePool } from '../data/encode-pool.js'
import { type DeviceChoice, type OnDevice, openOnDevice } from '../native/device.js'
import type { Model } from '../native/handles.js'
import type { ModelSpec } from '../native/spec.js'
import type { Cancellation } from '../native/types.js'
import { textFolders } from '../text/tokenizer-folder.js'
import type { TextEncoderOptions } from '../text/text-encoder.js'

export interface OpenText {
  checkpoint: Checkpoint
  reference?: Checkpoint
  /** To be closed by the caller. */
  pool: EncodePool
}

/**
 * Opens the checkpoint of `text` with its adapter, that of the reference if there is one, and the threads that encode for both.
 * @param reference a folder, or the checkpoint without the adapter
 * @throws ImplexError as openCheckpoint, withAdapter and the encoder do; ERR_TOKENIZER_INVALID when the two have different tokenizers;
 *   ERR_ABORTED
 */
export async function openText(
  text: TextEncoderOptions,
  threads: number,
  { reference, signal }: { reference?: string | { base: true }; signal?: AbortSignal } = {},
): Promise<OpenText> {
  throwIfAborted(signal, 'the opening')
  const base = await openCheckpoint(text.path)
  const checkpoint = text.adapter === undefined ? base : await withAdapter(base, text.adapter)
  const off = withoutAdapter(base, checkpoint)
  const other = typeof reference === 'string' ? await openCheckpoint(reference) : reference && off
  const pool = await EncodePool.start(text, threads, { signal })
  try {
    if (other !== undefined && other !== off)
      await untilAborted(checkTokenizers(pool, checkpoint, other), signal, 'the opening')
    const { description } = pool
    const padded = await withOwnPadding(checkpoint, description)
    return { checkpoint: widened(padded, description), reference: other && widened(other, description), pool }
  } catch (error) {
    pool.close()
    throw error
  }
}

/**
 * The model with its adapter off. Where the vocabulary grew and the longer tables were saved beside the adapter, they stay, as in peft: the
 * base has no rows for the new tokens.
 */
function withoutAdapter(base: Checkpoint, { spec, adapter }: Checkpoint): Checkpoint {
  const { vocabSize, tiedEmbedding, weights } = base.spec
  if (adapter === undefined || spec.vocabSize === vocabSize || spec.tiedEmbedding !== tiedEmbedding) return base
  // Copies that modules_to_save trained are part of the adapter.
  if (adapter.settings.modulesToSave.length > 0) return base
  const tables = weights.map((weight) =>
    ['embedding', 'unembedding'].includes(weight.role) ? (adapter.replaced.get(weight.role) ?? weight) : weight,
  )
  return { ...base, spec: { ...base.spec, vocabSize: spec.vocabSize, weights: tables } }
}

/** An adapter's own tokenizer pads as in its training, whatever the base's config says. */
async function withOwnPadding(checkpoint: Checkpoint, { padTokenId }: { padTokenId?: number }): Promise<Checkpoint> {
  const { path, adapter } = checkpoint
  if (adapter === undefined || padTokenId === undefined) return checkpoint
  const { config } = await textFolders(path, adapter.path)
  return config === adapter.path ? { ...checkpoint, padTokenId } : checkpoint
}

async function checkTokenizers(pool: EncodePool, { path: model }: Checkpoint, { path }: Checkpoint): Promise<void> {
  const difference = await pool.compareWith(path)
  if (difference === undefined) return
  throw new ImplexError(
    'ERR_TOKENIZER_INVALID',
    `${path}: the reference's tokenizer differs from the model's (${model}) in its ${difference}; an implicit reward compares ` +
      'probabilities of the same tokens, so both need the same tokenizer.json',
    { path },
  )
}

/** With rows for tokens that a template adds and the model has none for. */
export function widened(
  checkpoint: Checkpoint,
  { addedTokens, vocabularySize }: { addedTokens: readonly string[]; vocabularySize: number },
): Checkpoint {
  const missing = addedTokens.length === 0 ? 0 : Math.max(0, vocabularySize - checkpoint.spec.vocabSize)
  return missing === 0 ? checkpoint : withAddedTokens(checkpoint, missing)
}

/** What rows must keep to, so that each of the models can take them. */
export function limitsOf(
  checkpoint: Checkpoint,
  reference?: Checkpoint,
): Pick<EncodeSettings, 'contextLength' | 'vocabularySize'> {
  const models = reference === undefined ? [checkpoint] : [checkpoint, reference]
  return {
    contextLength: Math.min(...models.map(({ contextLength }) => contextLength)),
    vocabularySize: Math.min(...models.map(({ spec }) => spec.vocabSize + spec.addedTokens)),
  }
}

/** `hidden`: the hidden states alone. */
export type Use = RewardKind | 'sft' | 'hidden'

/**
 * Whether a model with its adapter can share the weights of the same model without it.
 * @param off the checkpoint without the adapter
 */
function sharesWeights({ adapter, spec }: Checkpoint, off: Checkpoint | undefined): boolean {
  if (adapter === undefined || off === undefined || off.adapter !== undefined || adapter.mergeOnly !== undefined)
    return false
  const own = new Set(off.spec.weights)
  return spec.weights.every((weight) => weight.role === 'head' || own.has(weight))
}

/** The weights that a use reads: the unembedding is often the largest one, and an explicit reward has no use for it. */
export function weightsFor(spec: ModelSpec, use: Use, headGiven = false): ModelSpec {
  const unused = new Set<string>()
  if (use === 'explicit' || use === 'hidden') unused.add('unembedding')
  if (use !== 'explicit' || headGiven) unused.add('head')
  return { ...spec, weights: spec.weights.filter(({ role }) => !unused.has(role)) }
}

export interface ScoringModel {
  use: Use
  /** Who needs the unembedding, as a message begins: "generation", "a reference". */
  who: string
  /** explicit: takes the place of the checkpoint's own. */
  head?: Float32Array
}

/**
 * Loads the weights.
 * @throws ImplexError as openOnDevice does; ERR_TENSOR_MISSING without the unembedding that the use needs
 */
export async function openToScore(
  checkpoint: Checkpoint,
  { use, who, head }: ScoringModel,
  choice: DeviceChoice,
  cancel?: Cancellation,
): Promise<OnDevice<Model>> {
  const { path, spec, adapter } = checkpoint
  const weights = weightsFor(spec, use, head !== undefined)
  const open = (one: ModelSpec) => openOnDevice(one, choice, cancel)
  const opened =
    adapter === undefined
      ? await open(weights)
      : adapter.mergeOnly === undefined
        ? await open(lowRankSpec(weights, adapter))
        : await withMerged(weights, adapter, choice.dtype, open, cancel instanceof AbortSignal ? cancel : undefined)
  try {
    if (head !== undefined) opened.model.setHead(head)
    if (use === 'explicit' || use === 'hidden' || opened.model.hasUnembedding) return opened
    const message = `${path}: ${who} needs a language model's unembedding (lm_head), and this checkpoint has none`
    throw new ImplexError('ERR_TENSOR_MISSING', message, { path })
  } catch (error) {
    opened.model.dispose()
    throw error
  }
}

/** A model to score with, and the same one without its adapter where that has to be had and both can share their weights. */
export interface ScoringModels extends OnDevice<Model> {
  off?: Model
}

/** Loads the weights, those that the checkpoint shares with `off` once. Errors as openToScore. */
export async function openWithReference(
  checkpoint: Checkpoint,
  off: Checkpoint | undefined,
  scoring: ScoringModel,
  choice: DeviceChoice,
  cancel?: Cancellation,
): Promise<ScoringModels> {
  if (off === undefined || !sharesWeights(checkpoint, off)) return openToScore(checkpoint, scoring, choice, cancel)
  const opened = await openToScore(off, scoring, choice, cancel)
  try {
    const spec = lowRankSpec(weightsFor(checkpoint.spec, scoring.use), checkpoint.adapter!)
    return { ...opened, model: await opened.model.withAdapters(spec, cancel), off: opened.model }
  } catch (error) {
    opened.model.dispose()
    throw error
  }
}

/** A head that the caller gives. @returns [hiddenSize] @throws RangeError for a wrong one, ImplexError as readHead */
export async function givenHead({ spec }: Checkpoint, head: string | Float32Array): Promise<Float32Array> {
  if (typeof head === 'string') return readHead(head, spec.hiddenSize)
  if (head.length !== spec.hiddenSize)
    throw outOfRange('head', `of the model's hidden size, ${spec.hiddenSize} numbers`, head.length)
  if (!head.every(Number.isFinite)) throw outOfRange('head', 'finite in every element', head)
  return head
}

/**
 * Whether training can start from the checkpoint's own head.
 * @throws ImplexError ERR_TENSOR_SHAPE, ERR_TENSOR_MISSING for a head that can be scored with only
 */
export function hasTrainableHead({ heads, path }: Checkpoint): boolean {
  const head = onlyHead(heads, path)
  if (head !== undefined) checkPlain(head)
  return head !== undefined
}

export interface HeadChoice extends LabelChoice {
  head?: string | Float32Array
  spec?: HeadSpec
  /** The id of the token that `spec` names. */
  logit?: number
}

/**
 * The head of an explicit reward, given, described or the checkpoint's own, with its label chosen.
 * @throws RangeError for a wrong one or a label that it lacks, ImplexError as readHead; ERR_TENSOR_MISSING where there is none
 */
export async function openHead(checkpoint: Checkpoint, choice: HeadChoice): Promise<RewardHead> {
  const { path, spec, heads, unread, adapter } = checkpoint
  const { head, logit } = choice
  if (adapter !== undefined) checkDescribed(checkpoint, choice)
  if (logit !== undefined) return logitHead(checkpoint, logit)
  if (typeof head === 'string' || choice.spec !== undefined) {
    const found = await findHead(typeof head === 'string' ? head : path, spec.hiddenSize, choice.spec)
    return readRewardHead(found, choice, false)
  }
  if (head !== undefined) return plainHead(await givenHead(checkpoint, head))
  const own = onlyHead(heads, path)
  if (own !== undefined) return readRewardHead(own, choice, true)
  if (adapter !== undefined) throw headlessAdapter(adapter.path, path)
  const known = HEAD_FORMS.map(({ layers }) => layers.join('+'))
  const names = unread.slice(0, 20).map(quoted).join(', ')
  const others =
    unread.length === 0
      ? ''
      : `; tensors outside of the body: ${names}${unread.length > 20 ? `, ... (${unread.length})` : ''}. Where one of them is the head, name its ` +
        `layers with --head-spec (option "headSpec"); known without that: ${[...new Set(known)].join(', ')}`
  throw new ImplexError(
    'ERR_TENSOR_MISSING',
    `${path}: an explicit reward needs a head, and this checkpoint has no tensor score.weight; give one with --head FILE (option "head"), ` +
      `or score with kind "implicit", which needs none${others}`,
    { path },
  )
}

/** A described head is read from the files as they are. */
function checkDescribed({ adapter, spec, path }: Checkpoint, { head, spec: described, logit }: HeadChoice): void {
  const changed = changes(adapter!, spec.tiedEmbedding ? 'embedding' : 'unembedding')
  if (logit !== undefined ? !changed : described === undefined || head !== undefined) return
  const [what, instead] =
    logit !== undefined
      ? ['a logit', `merge the adapter with \`implex merge-adapter\` and open the result`]
      : ['layers', `say with --head (option "head") which file has them, for example ${path}`]
  throw outOfRange('headSpec', `without ${what} for this adapter: ${instead}`, described)
}

function headlessAdapter(path: string, base: string): ImplexError {
  return new ImplexError(
    'ERR_TENSOR_MISSING',
    `${path}: an explicit reward needs a head, and this adapter was saved without one (peft saves it where modules_to_save has "score"); if ` +
      `it belongs to the head of another file or of its base, give that with --head (option "head"), for example --head ${base}`,
    { path },
  )
}
