/**
 * Opens Hugging Face checkpoint folders: config.json and the headers of the weights become a ModelSpec. No weight is read here, unless the
 * files contradict each other about a tied embedding.
 */
import { readdir } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import { ImplexError } from '../core/errors.js'
import { checkInteger, checkString, invalidArgument } from '../core/arguments.js'
import type { Adapter } from './adapter/types.js'
import { describeAdapter, hasAdapter } from './adapter/beside.js'
import { Config } from './config.js'
import { refuseUnknown } from './config-keys.js'
import { bytesPerElement } from './dtype.js'
import { FAMILIES, type Family } from './families.js'
import { isFolder, quoted } from '../core/files.js'
import { checkPlain, findHeads, HEAD_FILE, type HeadSource, onlyHead } from './heads.js'
import { type HeadSpec, specifiedHead } from './head-spec.js'
import { readFinite } from './reward-head.js'
import { readHeader, type TensorEntry } from './safetensors.js'
import type { ModelSpec, StoredDtype } from '../native/spec.js'
import { readTensors } from './tensors.js'
import { type Border, trainedWith } from './trained-with.js'
import { HEAD_TENSOR, matchWeights } from './weights.js'
import { textValues, WRAPPERS, wrapped } from './wrapper.js'

export interface Checkpoint {
  /** Absolute path of the folder. */
  path: string
  /** `model_type` of config.json, or of its `text_config` in a vision-language model. */
  family: string
  spec: ModelSpec
  /** Longest sequence, in tokens: `max_position_embeddings`. */
  contextLength: number
  /** The type that most bytes of the weights have. */
  dtype: StoredDtype
  /** Heads of a reward model; more than one is for the user to choose from. */
  heads: HeadSource[]
  /** Tensors that nothing reads, by name. */
  unread: string[]
  /** What was decided about the files that a user may want to know; each a sentence. */
  notes: string[]
  /** The config's, by which transformers reads heads. What the tokenizer pads with is for the text's side to say. */
  padTokenId?: number
  /** The first one if the config lists several. */
  eosTokenId?: number
  bosTokenId?: number
  /** How prompt and response were parted when implex trained it; absent where that is not recorded. */
  border?: Border
  /** Comes on top of the weights of `spec`, which is the base's but for tensors that the adapter replaces. */
  adapter?: Adapter
}

const MAX_ADDED_TOKENS = 1 << 16

/**
 * Reads config.json and the headers of `model.safetensors` or of the shards of `model.safetensors.index.json`.
 *
 * @throws TypeError, RangeError for wrong arguments
 * @throws ImplexError ERR_CHECKPOINT_NOT_FOUND, ERR_CONFIG_INVALID, ERR_FAMILY_UNKNOWN, ERR_SAFETENSORS_INVALID, ERR_TENSOR_MISSING,
 *   ERR_TENSOR_SHAPE, ERR_TENSOR_DTYPE or ERR_IO; the message names the file and the key or tensor
 */
export async function openCheckpoint(path: string): Promise<Checkpoint> {
  checkPath(path)
  const folder = resolve(path)
  await checkFolder(folder, path)

  const { config, family, outerType } = familyOf(await readConfig(folder))
  const modelType = config.string('model_type')
  if (config.has('quantization_config')) {
    throw config.error(
      'quantization_config',
      'is set, but implex does not read quantized weights; use the f32, f16 or bf16 checkpoint',
    )
  }
  const notes: string[] = []
  const architecture = family.read(config, (sentence) => notes.push(sentence))
  refuseUnknown(config, modelType, family.unused)
  const tensors = await readTensors(folder)
  const heads = findHeads(await withHeadFile(folder, tensors), config, architecture.hiddenSize)
  const matched = await matchWeights(folder, family, architecture, config, tensors, heads)
  const { weights, tiedEmbedding, unread } = matched
  notes.push(...matched.notes)
  if (outerType !== undefined) notes.push(textPartNote(config, outerType, modelType, unread))
  const { vocabSize } = architecture
  return {
    path: folder,
    family: modelType,
    spec: { ...architecture, addedTokens: 0, tiedEmbedding, weights },
    contextLength: architecture.maxPositions,
    dtype: mostUsed(weights),
    heads,
    unread,
    notes,
    ...tokenId(config, 'pad_token_id', 'padTokenId', vocabSize),
    ...tokenId(config, 'eos_token_id', 'eosTokenId', vocabSize),
    ...tokenId(config, 'bos_token_id', 'bosTokenId', vocabSize),
    ...trainedWith(config),
  }
}

/**
 * The config that counts, and its family.
 * @returns `outerType`: the model type of a vision-language model, of which the text part alone is read
 * @throws ImplexError ERR_FAMILY_UNKNOWN, ERR_CONFIG_INVALID
 */
export function familyOf(whole: Config): { config: Config; family: Family; outerType?: string } {
  const outerType = whole.string('model_type')
  const text = textValues(whole.values)
  const modelType = text === undefined ? outerType : new Config(whole.file, text, 'text_config.').string('model_type')
  const family = FAMILIES.get(modelType)
  if (family === undefined) {
    const known = [...FAMILIES.keys()].join(', ')
    const inside = text === undefined ? '' : `the text part of ${quoted(outerType)}: `
    const wrappers = text === undefined ? `, and the text part of ${[...WRAPPERS.keys()].join(', ')}` : ''
    const message = `${whole.file}: ${inside}model_type ${quoted(modelType)} is not supported; supported families: ${known}${wrappers}`
    throw new ImplexError('ERR_FAMILY_UNKNOWN', message, { path: whole.file })
  }
  if (text === undefined) return { config: whole, family }
  const config = new Config(whole.file, { ...family.defaults, ...text }, 'text_config.')
  return { config, family: wrapped(family), outerType }
}

function textPartNote({ file }: Config, outerType: string, modelType: string, unread: readonly string[]): string {
  const rest = unread.length === 0 ? '' : `; ${unread.length} tensors such as ${quoted(unread[0]!)} are not read`
  return `${file}: of this ${outerType} model implex reads the text part (${modelType}) alone${rest}`
}

/** With the tensors of a head that lies beside the weights. */
async function withHeadFile(
  folder: string,
  tensors: ReadonlyMap<string, TensorEntry>,
): Promise<ReadonlyMap<string, TensorEntry>> {
  const file = join(folder, HEAD_FILE)
  return (await isFolder(file)) === false ? new Map([...tensors, ...(await readHeader(file))]) : tensors
}

/** With `count` rows that the engine appends to the embeddings. @throws TypeError, RangeError */
export function withAddedTokens(checkpoint: Checkpoint, count: number): Checkpoint {
  checkInteger('addedTokens', count, 0, MAX_ADDED_TOKENS)
  return { ...checkpoint, spec: { ...checkpoint.spec, addedTokens: count } }
}

/**
 * The head that training can start from, one row without a bias, of a safetensors file or a checkpoint folder.
 *
 * @returns [hiddenSize]
 * @throws TypeError, RangeError for wrong arguments
 * @throws ImplexError as openCheckpoint does for damaged files, and ERR_WEIGHT_NOT_FINITE
 */
export async function readHead(file: string, hiddenSize: number): Promise<Float32Array> {
  const head = await findHead(file, hiddenSize)
  checkPlain(head)
  return readFinite(head.layers[0]!.weight)
}

/**
 * The head of an explicit reward model, of any form that is known or of the layers that `spec` names, of a safetensors file or a checkpoint
 * folder. Nothing but headers is read. Errors as readHead.
 */
export async function findHead(file: string, hiddenSize: number, spec?: HeadSpec): Promise<HeadSource> {
  checkPath(file)
  checkInteger('hiddenSize', hiddenSize, 1)
  const path = resolve(file)
  const folder = await isFolder(path)
  if (folder === undefined)
    throw notFound(path, 'no such file or folder; give the safetensors file that contains the head')
  const tensors = folder ? await withHeadFile(path, await readTensors(path)) : await readHeader(path)
  const about = join(path, 'config.json')
  const config = folder && (await isFolder(about)) === false ? await Config.read(about) : undefined
  if (spec?.layers !== undefined) return specifiedHead(spec, tensors, config, hiddenSize, path)
  const head = onlyHead(findHeads(tensors, config, hiddenSize), path)
  if (head !== undefined) return head
  const names = [...tensors.keys()].slice(0, 3).map(quoted).join(', ')
  const instead = names === '' ? 'it has no tensors' : `it has ${names}${tensors.size > 3 ? ', ...' : ''}`
  const message = `${path}: no tensor "${HEAD_TENSOR}", the head of a reward model; ${instead}`
  throw new ImplexError('ERR_TENSOR_MISSING', message, { path })
}

function checkPath(path: unknown): asserts path is string {
  checkString('path', path)
  if (path === '' || path.includes('\0')) throw invalidArgument('path', 'a path', path)
}

function notFound(path: string, message: string): ImplexError {
  return new ImplexError('ERR_CHECKPOINT_NOT_FOUND', `${path}: ${message}`, { path })
}

async function checkFolder(folder: string, given: string): Promise<void> {
  const found = await isFolder(folder)
  if (found) return
  if (found === false)
    throw notFound(folder, 'is a file; give the checkpoint folder that contains config.json and the weights')
  const hub = /^[\w.-]+\/[\w.-]+$/.test(given) ? ' Models on the Hugging Face Hub must be downloaded first.' : ''
  throw notFound(folder, `no such folder; give a local checkpoint folder.${hub}`)
}

async function readConfig(folder: string): Promise<Config> {
  try {
    return await Config.read(join(folder, 'config.json'))
  } catch (error) {
    if (!(error instanceof ImplexError) || error.code !== 'ERR_CHECKPOINT_NOT_FOUND') throw error
    const names = await readdir(folder)
    const problem = hasAdapter(names)
      ? await describeAdapter(folder)
      : 'has no config.json; give a checkpoint folder in Hugging Face format'
    throw notFound(folder, problem)
  }
}

/** {} for an absent id and for ones outside of the vocabulary: no text has such a token, and some converters wrote -1 for "none". */
function tokenId<Name extends string>(
  config: Config,
  key: string,
  name: Name,
  vocabSize: number,
): { [name in Name]?: number } {
  const value = config.get(key)
  const ids: unknown[] = Array.isArray(value) ? value : value === undefined ? [] : [value]
  for (const id of ids) if (!Number.isSafeInteger(id)) throw config.unexpected(key, 'a token id or a list of them')
  const first = ids.find((id) => (id as number) >= 0 && (id as number) < vocabSize)
  return (first === undefined ? {} : { [name]: first }) as { [name in Name]?: number }
}

function mostUsed(weights: ModelSpec['weights']): StoredDtype {
  const sizes = new Map<StoredDtype, number>()
  for (const { dtype, bytes } of weights) {
    sizes.set(dtype, (sizes.get(dtype) ?? 0) + bytes / bytesPerElement(dtype))
  }
  const [first] = [...sizes].sort((a, b) => b[1] - a[1])
  return first ? first[0] : 'f32'
}
