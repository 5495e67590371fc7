/**
 * Matches the tensors of a checkpoint with what its family expects: each present, of the expected shape, of a type that is read,
 * and none left over that would change what the model computes.
 */
import { ImplexError } from '../core/errors.js'
import type { Config } from './config.js'
import { decode } from './dtype.js'
import type { Architecture, Family, TensorRule } from './families.js'
import { quoted, readAt, withRegularFile } from '../core/files.js'
import type { TensorEntry } from './safetensors.js'
import type { StoredDtype, WeightSource } from '../native/spec.js'

const STORED: ReadonlyMap<string, StoredDtype> = new Map([
  ['F32', 'f32'],
  ['F16', 'f16'],
  ['BF16', 'bf16'],
])

export const HEAD_TENSOR = 'score.weight'

/** Buffers that transformers once saved with the weights and recomputes from the config. */
const BUFFERS = /(^|\.)(rotary_emb\.inv_freq|attention\.(masked_)?bias)$/

export interface MatchedWeights {
  weights: WeightSource[]
  tiedEmbedding: boolean
}

/**
 * @param folder for messages about tensors that are in no file
 * @throws ImplexError ERR_TENSOR_MISSING, ERR_TENSOR_SHAPE, ERR_TENSOR_DTYPE, ERR_CONFIG_INVALID, each naming the tensor
 */
export function matchWeights(
  folder: string,
  family: Family,
  architecture: Architecture,
  config: Config,
  tensors: ReadonlyMap<string, TensorEntry>,
): MatchedWeights {
  const { vocabSize, hiddenSize, layers } = architecture
  const prefix = findPrefix(family, tensors)
  const table: TensorRule = { name: family.embedding, shape: [vocabSize, hiddenSize], parts: [{ role: 'embedding' }] }
  const expected = new Map<string, TensorRule>()

  const unembedding = family.unembedding.find((name) => tensors.has(name))
  const tiedEmbedding = isTied(config, family, tensors, unembedding)
  const embedding = prefix + family.embedding
  if (tiedEmbedding && unembedding && !tensors.has(embedding)) {
    // Of two tied tensors a writer may keep either.
    expected.set(unembedding, table)
  } else {
    expected.set(embedding, table)
    if (unembedding && !tiedEmbedding) expected.set(unembedding, { ...table, parts: [{ role: 'unembedding' }] })
  }
  for (const rule of family.final(architecture)) expected.set(prefix + rule.name, rule)
  const layerRules = family.layer(architecture, config)
  for (let i = 0; i < layers; i++) {
    for (const rule of layerRules) {
      const parts = rule.parts.map((part) => ({ ...part, role: `layers.${i}.${part.role}` }))
      expected.set(`${prefix}layers.${i}.${rule.name}`, { ...rule, parts })
    }
  }
  if (tensors.has(HEAD_TENSOR)) {
    expected.set(HEAD_TENSOR, { name: HEAD_TENSOR, shape: [1, hiddenSize], parts: [{ role: 'head' }] })
  }

  const missing = [...expected.keys()].filter((name) => !tensors.has(name))
  if (missing.length > 0) throw missingTensors(folder, missing, expected.size)
  const weights: WeightSource[] = []
  for (const [name, rule] of expected) {
    const entry = tensors.get(name) as TensorEntry
    checkShape(entry, rule.shape, config)
    const dtype = storedDtype(entry)
    const { file, offset, bytes, shape } = entry
    for (const part of rule.parts) weights.push({ ...part, tensor: name, file, offset, bytes, dtype, shape })
  }
  refuseLeftovers(family, config, tensors, expected)
  return { weights, tiedEmbedding }
}

/** A bare body is stored without the prefix that it has inside a causal language model or a classifier. */
function findPrefix(family: Family, tensors: ReadonlyMap<string, TensorEntry>): string {
  for (const name of tensors.keys()) if (name.startsWith(family.prefix)) return family.prefix
  return tensors.has(family.embedding) || tensors.has('layers.0.input_layernorm.weight') ? '' : family.prefix
}

function isTied(
  config: Config,
  family: Family,
  tensors: ReadonlyMap<string, TensorEntry>,
  unembedding: string | undefined,
): boolean {
  const stated = config.boolean('tie_word_embeddings')
  if (stated === true) return true
  if (unembedding !== undefined) return false
  const causal = config.strings('architectures')?.some((name) => name.endsWith('ForCausalLM')) ?? false
  if (stated === false && causal) {
    const name = family.unembedding[0] as string
    const problem = `${config.file}: "tie_word_embeddings" is false, but the weights have no tensor ${quoted(name)}`
    const advice = 'set it to true if the model shares its embedding, otherwise download the checkpoint again'
    throw new ImplexError('ERR_TENSOR_MISSING', `${problem}; ${advice}`, { path: config.file })
  }
  return stated === undefined && (causal || !tensors.has(HEAD_TENSOR))
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
  const message =
    entry.name === HEAD_TENSOR
      ? `${label} has shape ${list(entry.shape)}; a reward model's head has one output: ${list(expected)} ("num_labels": 1)`
      : `${label} has shape ${list(entry.shape)}, but ${config.file} requires ${list(expected)}`
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

/** The values of a whole tensor of a file. @throws ImplexError ERR_SAFETENSORS_INVALID, ERR_IO */
export async function readWeight({
  file,
  offset,
  bytes,
  dtype,
  tensor,
}: Pick<WeightSource, 'file' | 'offset' | 'bytes' | 'dtype' | 'tensor'>): Promise<Float32Array> {
  const data = await withRegularFile(file, (handle) => readAt(handle, offset, bytes))
  if (data.length === bytes) return decode(data, dtype)
  const message = `${file}: tensor ${quoted(tensor)} ends early: the file was cut while being read`
  throw new ImplexError('ERR_SAFETENSORS_INVALID', message, { path: file })
}

/**
 * A tensor of the model's own that nothing asked for (one layer too many, a bias, a scale of a quantized matrix) means that the config
 * describes another model, and the scores would be wrong in silence. Tensors outside of the model, such as a value head's, are left alone.
 */
function refuseLeftovers(
  family: Family,
  config: Config,
  tensors: ReadonlyMap<string, TensorEntry>,
  expected: ReadonlyMap<string, TensorRule>,
): void {
  const owned = new Set([...expected.keys(), ...family.unembedding, HEAD_TENSOR].map(firstPart))
  for (const entry of tensors.values()) {
    const { name } = entry
    if (expected.has(name) || family.unembedding.includes(name) || BUFFERS.test(name)) continue
    if (!owned.has(firstPart(name))) continue
    const problem = `${entry.file}: the model that ${config.file} describes has no tensor ${quoted(name)}`
    const advice = 'check "num_hidden_layers", biases and quantization in the config'
    throw new ImplexError('ERR_CONFIG_INVALID', `${problem}; ${advice}`, { path: entry.file })
  }
}

function firstPart(name: string): string {
  return name.split('.', 1)[0] as string
}
