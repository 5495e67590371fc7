/**
 * Opens Hugging Face checkpoint folders: config.json and the headers of the weights become a ModelSpec. No weight is read here.
 */
import { join, resolve } from 'node:path'
import { ImplexError } from '../core/errors.js'
import { checkInteger, checkString, invalidArgument } from '../core/arguments.js'
import { Config } from './config.js'
import { bytesPerElement } from './dtype.js'
import { FAMILIES } from './families.js'
import { isFolder, printable, quoted } from '../core/files.js'
import { readHeader, type TensorEntry } from './safetensors.js'
import type { ModelSpec, StoredDtype } from '../native/spec.js'
import { readTensors } from './tensors.js'
import { HEAD_TENSOR, matchWeights, readWeight, storedDtype } from './weights.js'

export interface Checkpoint {
  /** Absolute path of the folder. */
  path: string
  /** `model_type` of config.json. */
  family: string
  spec: ModelSpec
  /** Longest sequence, in tokens: `max_position_embeddings`. */
  contextLength: number
  /** The type that most bytes of the weights have. */
  dtype: StoredDtype
  padTokenId?: number
  /** The first one if the config lists several. */
  eosTokenId?: number
  bosTokenId?: number
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

  const config = await readConfig(folder)
  const modelType = config.string('model_type')
  const family = FAMILIES.get(modelType)
  if (!family) {
    const known = [...FAMILIES.keys()].join(', ')
    const message = `${config.file}: model_type ${quoted(modelType)} is not supported; supported families: ${known}`
    throw new ImplexError('ERR_FAMILY_UNKNOWN', message, { path: config.file })
  }
  if (config.has('quantization_config')) {
    throw config.error(
      'quantization_config',
      'is set, but implex does not read quantized weights; use the f32, f16 or bf16 checkpoint',
    )
  }
  const architecture = family.read(config)
  const tensors = await readTensors(folder)
  const { weights, tiedEmbedding } = matchWeights(folder, family, architecture, config, tensors)
  return {
    path: folder,
    family: modelType,
    spec: { ...architecture, addedTokens: 0, tiedEmbedding, weights },
    contextLength: architecture.maxPositions,
    dtype: mostUsed(weights),
    ...tokenId(config, 'pad_token_id', 'padTokenId', architecture.vocabSize),
    ...tokenId(config, 'eos_token_id', 'eosTokenId', architecture.vocabSize),
    ...tokenId(config, 'bos_token_id', 'bosTokenId', architecture.vocabSize),
  }
}

/** With `count` rows that the engine appends to the embeddings. @throws TypeError, RangeError */
export function withAddedTokens(checkpoint: Checkpoint, count: number): Checkpoint {
  checkInteger('addedTokens', count, 0, MAX_ADDED_TOKENS)
  return { ...checkpoint, spec: { ...checkpoint.spec, addedTokens: count } }
}

/**
 * The head of an explicit reward model: `score.weight`, [1, hiddenSize] or [hiddenSize], of a safetensors file or a checkpoint folder.
 *
 * @returns [hiddenSize]
 * @throws TypeError, RangeError for wrong arguments
 * @throws ImplexError as openCheckpoint does for damaged files, and ERR_WEIGHT_NOT_FINITE
 */
export async function readHead(file: string, hiddenSize: number): Promise<Float32Array> {
  checkPath(file)
  checkInteger('hiddenSize', hiddenSize, 1)
  const path = resolve(file)
  const folder = await isFolder(path)
  if (folder === undefined)
    throw notFound(path, 'no such file or folder; give the safetensors file that contains the head')
  const tensors = folder ? await readTensors(path) : await readHeader(path)
  const entry = tensors.get(HEAD_TENSOR)
  if (!entry) {
    const names = [...tensors.keys()].slice(0, 3).map(quoted).join(', ')
    const instead = names === '' ? 'it has no tensors' : `it has ${names}${tensors.size > 3 ? ', ...' : ''}`
    const message = `${path}: no tensor "${HEAD_TENSOR}", the head of a reward model; ${instead}`
    throw new ImplexError('ERR_TENSOR_MISSING', message, { path })
  }
  const shape = entry.shape.length === 2 && entry.shape[0] === 1 ? entry.shape.slice(1) : entry.shape
  if (shape.length !== 1 || shape[0] !== hiddenSize) {
    const found = `[${entry.shape.slice(0, 8).join(', ')}]`
    const message = `${entry.file}: tensor "${HEAD_TENSOR}" has shape ${found}, but the model needs [1, ${hiddenSize}]`
    throw new ImplexError('ERR_TENSOR_SHAPE', message, { path: entry.file })
  }
  return readFinite(entry)
}

async function readFinite(entry: TensorEntry): Promise<Float32Array> {
  const values = await readWeight({ ...entry, dtype: storedDtype(entry), tensor: entry.name })
  const bad = values.findIndex((value) => !Number.isFinite(value))
  if (bad < 0) return values
  const message = `${entry.file}: tensor ${quoted(entry.name)} has ${values[bad]} at element ${bad}`
  throw new ImplexError('ERR_WEIGHT_NOT_FINITE', message, { path: entry.file })
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
    throw notFound(folder, 'has no config.json; give a checkpoint folder in Hugging Face format')
  }
}

/** Returns {} for an absent id and for a negative one, which some converters wrote for "none". */
function tokenId(config: Config, key: string, name: string, vocabulary: number): Record<string, number> {
  const value = config.get(key)
  const ids: unknown[] = Array.isArray(value) ? value : value === undefined ? [] : [value]
  for (const id of ids) {
    if (!Number.isSafeInteger(id)) throw config.unexpected(key, 'a token id or a list of them')
    if ((id as number) >= vocabulary) {
      throw config.error(key, `is ${printable(String(id))}, but the vocabulary has ${vocabulary} tokens`)
    }
  }
  const first = ids[0] as number | undefined
  return first === undefined || first < 0 ? {} : { [name]: first }
}

function mostUsed(weights: ModelSpec['weights']): StoredDtype {
  const sizes = new Map<StoredDtype, number>()
  for (const { dtype, bytes } of weights) {
    sizes.set(dtype, (sizes.get(dtype) ?? 0) + bytes / bytesPerElement(dtype))
  }
  const [first] = [...sizes].sort((a, b) => b[1] - a[1])
  return first ? first[0] : 'f32'
}
