/**
 * Matches the tensors of a checkpoint with what its family expects: each present, of the expected shape, of a type that is read,
 * and none left over that would change what the model computes.
 */
import { ImplexError } from '../core/errors.js'
import type { Config } from './config.js'
import { type HeadLayer, headTensors, type HeadSource, isOneRow } from './heads.js'
import { bytesPerElement, decode } from './dtype.js'
import type { Architecture, Family, LayerRules, TensorPart, TensorRule } from './families.js'
import { quoted, readAt, withRegularFile } from '../core/files.js'
import type { TensorEntry } from './safetensors.js'
import type { StoredDtype, WeightSource } from '../native/spec.js'

const STORED: ReadonlyMap<string, StoredDtype> = new Map([
  ['F32', 'f32'],
  ['F16', 'f16'],
  ['BF16', 'bf16'],
])

/** The name that a trained model's head is saved under. */
export const HEAD_TENSOR = 'score.weight'

/** How much of two tensors is compared at a time. */
const PIECE_ELEMENTS = 1 << 20

/** Buffers that transformers once saved with the weights and recomputes from the config. */
export const BUFFERS = /(^|\.)(rotary_emb\.inv_freq|attention\.(masked_)?bias)$/

export interface MatchedWeights {
  weights: WeightSource[]
  tiedEmbedding: boolean
  /** Names of tensors that nothing reads. */
  unread: string[]
  /** As of a Checkpoint. */
  notes: string[]
}

/**
 * @param folder for messages about tensors that are in no file
 * @throws ImplexError ERR_TENSOR_MISSING, ERR_TENSOR_SHAPE, ERR_TENSOR_DTYPE, ERR_CONFIG_INVALID, each naming the tensor
 */
export async function matchWeights(
  folder: string,
  family: Family,
  architecture: Architecture,
  config: Config,
  tensors: ReadonlyMap<string, TensorEntry>,
  heads: readonly HeadSource[],
): Promise<MatchedWeights> {
  const { vocabSize, hiddenSize, layers } = architecture
  const prefix = findPrefix(family, tensors)
  const table: TensorRule = { name: family.embedding, shape: [vocabSize, hiddenSize], parts: [{ role: 'embedding' }] }
  const expected = new Map<string, TensorRule>()

  const unembedding = family.unembedding.find((name) => tensors.has(name))
  const embedding = prefix + family.embedding
  const notes: string[] = []
  let tiedEmbedding = isTied(config, family, unembedding, heads.length > 0)
  if (tiedEmbedding && unembedding && (await differ(tensors.get(embedding), tensors.get(unembedding)))) {
    tiedEmbedding = false
    notes.push(
      `${config.file} says that the embedding is tied, but ${quoted(unembedding)} differs from it: the weights' own is used, as in transformers`,
    )
  }
  if (tiedEmbedding && unembedding && !tensors.has(embedding)) {
    // Of two tied tensors a writer may keep either.
    expected.set(unembedding, table)
  } else {
    expected.set(embedding, table)
    if (unembedding && !tiedEmbedding) expected.set(unembedding, { ...table, parts: [{ role: 'unembedding' }] })
  }
  for (const rule of family.final(architecture)) expected.set(prefix + rule.name, rule)
  for (const i of layers.keys()) {
    const below = `${prefix}layers.${i}.`
    for (const rule of chosen(family.layer(architecture, i, config), below, tensors)) {
      const parts = rule.parts.map((part) => ({ ...part, role: `layers.${i}.${part.role}` }))
      expected.set(below + rule.name, { ...rule, parts })
    }
  }
  const missing = [...expected.keys()].filter((name) => !tensors.has(name))
  if (missing.length > 0) throw missingTensors(folder, missing, expected.size)
  const weights: WeightSource[] = []
  for (const [name, rule] of expected) {
    const entry = tensors.get(name) as TensorEntry
    checkShape(entry, rule.shape, config)
    const dtype = storedDtype(entry)
    for (const part of rule.parts) weights.push(partOf(entry, name, dtype, part))
  }
  const [head] = heads
  // Other heads are read where one is chosen.
  if (head !== undefined && heads.length === 1 && isOneRow(head)) weights.push(headWeight(head))
  const unread = leftovers(family, tensors, expected, heads)
  refuseOwn(prefix, family, config, tensors, unread, expected, heads)
  return { weights, tiedEmbedding, unread, notes }
}

/** Where tensors may be stored in several ways: those of the first way that the file has. */
function chosen(rules: LayerRules, below: string, tensors: ReadonlyMap<string, TensorEntry>): TensorRule[] {
  return rules.flatMap((rule) => {
    if (!('oneOf' in rule)) return [rule]
    return rule.oneOf.find(([first]) => tensors.has(below + first!.name)) ?? rule.oneOf[0]!
  })
}

/** A matrix of a tensor of three dimensions is a byte range of its own. */
export function partOf(
  entry: TensorEntry,
  name: string,
  dtype: StoredDtype,
  { slab, ...part }: TensorPart,
): WeightSource {
  const { file, offset, bytes, shape } = entry
  const whole = { ...part, tensor: name, file, offset, bytes, dtype, shape }
  if (slab === undefined) return whole
  const size = bytes / shape[0]!
  return { ...whole, offset: offset + slab * size, bytes: size, shape: shape.slice(1) }
}

/** The weight of a head of one row. */
export function headWeight({ layers }: HeadSource): WeightSource {
  const { weight } = layers[0] as HeadLayer
  const { name, file, offset, bytes, shape } = weight
  return { role: 'head', tensor: name, file, offset, bytes, dtype: storedDtype(weight), shape }
}

/** Whether two tensors that should be one have other numbers; false where one is absent. */
async function differ(a: TensorEntry | undefined, b: TensorEntry | undefined): Promise<boolean> {
  if (a === undefined || b === undefined) return false
  if (a.shape.join() !== b.shape.join()) return true
  const elements = a.shape.reduce((product, size) => product * size, 1)
  const [one, other] = [piecesOf(a), piecesOf(b)]
  for (let start = 0; start < elements; start += PIECE_ELEMENTS) {
    const count = Math.min(PIECE_ELEMENTS, elements - start)
    const [x, y] = await Promise.all([one(start, count), other(start, count)])
    if (!x.equals(y)) return true
  }
  return false
}

/** Parts of a tensor as f32, as bytes. */
function piecesOf(entry: TensorEntry): (start: number, count: number) => Promise<Buffer> {
  const source = { ...entry, tensor: entry.name, dtype: storedDtype(entry) }
  const size = bytesPerElement(source.dtype)
  return async (start, count) => {
    const values = await readWeight({ ...source, offset: entry.offset + start * size, bytes: count * size })
    return Buffer.from(values.buffer, values.byteOffset, values.byteLength)
  }
}

/** A bare body is stored without the prefix that it has inside a causal language model or a classifier. */
function findPrefix(family: Family, tensors: ReadonlyMap<string, TensorEntry>): string {
  const { otherPrefixes = [], embedding } = family
  const other = otherPrefixes.find((prefix) => tensors.has(prefix + embedding) || tensors.has(`${prefix}norm.weight`))
  if (other !== undefined) return other
  for (const name of tensors.keys()) if (name.startsWith(family.prefix)) return family.prefix
  return tensors.has(family.embedding) || tensors.has('layers.0.input_layernorm.weight') ? '' : family.prefix
}

function isTied(config: Config, family: Family, unembedding: string | undefined, hasHead: boolean): boolean {
  const stated = config.boolean('tie_word_embeddings')
  if (stated === true) return true
  if (unembedding !== undefined) return false
  const causal = config.strings('architectures')?.some((name) => name.endsWith('ForCausalLM')) ?? false
  // A reward model under a language model's name has no use for an unembedding.
  if (stated === false && causal && !hasHead) {
    const name = family.unembedding[0] as string
    const problem = `${config.file}: "tie_word_embeddings" is false, but the weights have no tensor ${quoted(name)}`
    const advice = 'set it to true if the model shares its embedding, otherwise download the checkpoint again'
    throw new ImplexError('ERR_TENSOR_MISSING', `${problem}; ${advice}`, { path: config.file })
  }
  return stated === undefined && (causal || !hasHead)
}

function missingTensors(folder: string, missing: string[], total: number): ImplexError {
  const rest = missing.length - 1
  const more = rest > 0 ? ` and ${rest} more of ${total}` : ''
  const problem = `${folder}: the weights have no tensor ${quoted(missing[0] as string)}${more}`
  const causes = 'config.json and the weights belong to different models, or the download is incomplete'
  return new ImplexError('ERR_TENSOR_MISSING', `${problem}; ${causes}`, { path: folder })
}

function checkShape(entry: TensorEntry, expected: number[], config: Config): void {
  const same = entry.shape.length === expected.length && expected.every((size, i) => size === entry.shape[i])
  if (same) return
  const label = `${entry.file}: tensor ${quoted(entry.name)}`
  const message = `${label} has shape ${list(entry.shape)}, but ${config.file} requires ${list(expected)}`
  throw new ImplexError('ERR_TENSOR_SHAPE', message, { path: entry.file })
}

function list(shape: number[]): string {
  return `[${shape.slice(0, 8).join(', ')}${shape.length > 8 ? ', ...' : ''}]`
}

/** @throws ImplexError ERR_TENSOR_DTYPE */
export function storedDtype(entry: TensorEntry): StoredDtype {
  const dtype = STORED.get(entry.dtype)
  if (dtype) return dtype
  const problem = `${entry.file}: tensor ${quoted(entry.name)} is ${entry.dtype}`
  const advice = 'implex reads only F32, F16 and BF16: convert the checkpoint to one of them'
  throw new ImplexError('ERR_TENSOR_DTYPE', `${problem}; ${advice}`, { path: entry.file })
}

const DECODED_AT_ONCE = 1 << 17

/** The values of a whole tensor of a file. @throws ImplexError ERR_SAFETENSORS_INVALID, ERR_IO */
export async function readWeight({
  file,
  offset,
  bytes,
  dtype,
  tensor,
}: Pick<WeightSource, 'file' | 'offset' | 'bytes' | 'dtype' | 'tensor'>): Promise<Float32Array> {
  const size = bytesPerElement(dtype)
  const values = new Float32Array(bytes / size)
  // Piece by piece, each decoded in a few milliseconds: the event loop has its turn between them.
  const whole = await withRegularFile(file, async (handle) => {
    for (let done = 0; done < bytes; ) {
      const piece = Math.min(bytes - done, DECODED_AT_ONCE * size)
      const data = await readAt(handle, offset + done, piece)
      if (data.length < piece) return false
      values.set(decode(data, dtype), done / size)
      done += piece
    }
    return true
  })
  if (whole) return values
  const message = `${file}: tensor ${quoted(tensor)} ends early: the file was cut while being read`
  throw new ImplexError('ERR_SAFETENSORS_INVALID', message, { path: file })
}

/** Names of the tensors that nothing asked for; buffers and the second one of two tied tensors apart. */
function leftovers(
  family: Family,
  tensors: ReadonlyMap<string, TensorEntry>,
  expected: ReadonlyMap<string, TensorRule>,
  heads: readonly HeadSource[],
): string[] {
  const read = new Set([
    ...expected.keys(),
    ...family.unembedding,
    ...heads.flatMap(headTensors).map(({ name }) => name),
  ])
  return [...tensors.keys()].filter((name) => !read.has(name) && !BUFFERS.test(name))
}

/**
 * A tensor of the model's own that nothing asked for (one layer too many, a bias, a scale of a quantized matrix) means that the config
 * describes another model, and the scores would be wrong in silence. Tensors outside of the model, such as another head's or those that
 * read images, are left alone.
 */
function refuseOwn(
  prefix: string,
  family: Family,
  config: Config,
  tensors: ReadonlyMap<string, TensorEntry>,
  unread: readonly string[],
  expected: ReadonlyMap<string, TensorRule>,
  heads: readonly HeadSource[],
): void {
  const others = [...family.unembedding, ...heads.flatMap(headTensors).map(({ name }) => name)]
  const inBody = prefix === '' ? [...expected.keys()].map(firstPart) : []
  const owned = new Set([...inBody, ...others.map(firstPart).filter((part) => !prefix.startsWith(`${part}.`))])
  const name = unread.find((one) => (prefix !== '' && one.startsWith(prefix)) || owned.has(firstPart(one)))
  if (name === undefined) return
  const { file } = tensors.get(name) as TensorEntry
  const problem = `${file}: the model that ${config.file} describes has no tensor ${quoted(name)}`
  const advice = 'check "num_hidden_layers", biases and quantization in the config'
  throw new ImplexError('ERR_CONFIG_INVALID', `${problem}; ${advice}`, { path: file })
}

function firstPart(name: string): string {
  return name.split('.', 1)[0] as string
}
