/**
 * All tensors of a checkpoint folder: one safetensors file, or shards with an index that must agree with them.
 */
import { readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { ImplexError } from '../core/errors.js'
import { describe, isPlainObject } from '../core/arguments.js'
import { fileError, printable, quoted, readJsonFile } from '../core/files.js'
import { refuseAdapterBeside, USE_ADAPTER } from './adapter/beside.js'
import { readHeader, type TensorEntry } from './safetensors.js'

const MAX_INDEX_BYTES = 100_000_000
const MAX_SHARDS = 100_000

export const SINGLE_FILE = 'model.safetensors'
export const INDEX_FILE = 'model.safetensors.index.json'

/**
 * All tensors of a checkpoint folder by name: `model.safetensors` where there is one, else the shards of its index.
 * @throws ImplexError ERR_CHECKPOINT_NOT_FOUND without weights, ERR_SAFETENSORS_INVALID for a lie in a header or the index, ERR_IO
 */
export async function readTensors(folder: string): Promise<Map<string, TensorEntry>> {
  let names: string[]
  try {
    names = await readdir(folder)
  } catch (error) {
    throw fileError(folder, 'list the folder', error)
  }
  if (names.includes(SINGLE_FILE) || names.includes(INDEX_FILE)) refuseAdapterBeside(folder, names)
  if (names.includes(SINGLE_FILE)) return readHeader(join(folder, SINGLE_FILE))
  if (names.includes(INDEX_FILE)) return readShards(folder, names)
  const message = `${folder}: no ${SINGLE_FILE} or ${INDEX_FILE} here; ${otherWeights(names)}`
  throw new ImplexError('ERR_CHECKPOINT_NOT_FOUND', message, { path: folder })
}

/** Says what to do about weights in another format. */
function otherWeights(names: string[]): string {
  for (const [pattern, advice] of OTHER_WEIGHTS) {
    const name = names.find((candidate) => pattern.test(candidate))
    if (name !== undefined) return `${quoted(name)} ${advice}`
  }
  return 'the weights are missing: download the checkpoint again'
}

const OTHER_WEIGHTS: [RegExp, string][] = [
  [/^adapter_model\./, `is a LoRA adapter, not a whole model: ${USE_ADAPTER}`],
  [/\.gguf$/i, 'is GGUF, which implex does not read: use the Hugging Face safetensors version of the model'],
  [
    /\.(bin|pt|pth|ckpt)$/i,
    'is a pickle, which implex does not read: load it in transformers and save it as safetensors with save_pretrained()',
  ],
  [
    /\.safetensors$/,
    `has another name: rename it to ${SINGLE_FILE} if it contains the whole model with Hugging Face names`,
  ],
]

async function readShards(folder: string, names: string[]): Promise<Map<string, TensorEntry>> {
  const index = join(folder, INDEX_FILE)
  const invalid = (message: string) =>
    new ImplexError('ERR_SAFETENSORS_INVALID', `${index}: ${message}`, { path: index })
  const { weight_map: map } = await readJsonFile(index, 'ERR_SAFETENSORS_INVALID', { maxBytes: MAX_INDEX_BYTES })
  if (!isPlainObject(map)) throw invalid('"weight_map" must be an object of tensor name -> file name')
  const placed = Object.entries(map)
  if (placed.length === 0) throw invalid('"weight_map" names no tensors')
  const shards = new Set<string>()
  for (const [tensor, shard] of placed) {
    if (typeof shard !== 'string')
      throw invalid(`the file of tensor ${quoted(tensor)} must be a string; got ${printable(describe(shard))}`)
    // A shard lies beside its index: a path, however spelled, could point anywhere.
    if (!/^[^/\\\p{Cc}]+\.safetensors$/u.test(shard)) {
      throw invalid(
        `tensor ${quoted(tensor)}: ${quoted(shard)} is not the name of a .safetensors file in the folder of the index`,
      )
    }
    shards.add(shard)
  }
  if (shards.size > MAX_SHARDS) throw invalid(`${shards.size} shards are too many (at most ${MAX_SHARDS})`)
  const present = new Set(names)
  const missing = [...shards].filter((shard) => !present.has(shard))
  if (missing.length > 0) {
    const more = missing.length > 1 ? ` and ${missing.length - 1} more` : ''
    const problem = `${index}: the shard ${quoted(missing[0] as string)}${more} of ${shards.size} is missing`
    throw new ImplexError('ERR_CHECKPOINT_NOT_FOUND', `${problem}; download the checkpoint again`, { path: index })
  }
  const tensors = new Map<string, TensorEntry>()
  for (const shard of [...shards].sort()) {
    for (const [name, entry] of await readHeader(join(folder, shard))) {
      const other = tensors.get(name)
      if (other) {
        const problem = `${entry.file}: tensor ${quoted(name)} is also in ${other.file}`
        const cause = 'the shards belong to different checkpoints'
        throw new ImplexError('ERR_SAFETENSORS_INVALID', `${problem}; ${cause}`, { path: entry.file })
      }
      tensors.set(name, entry)
    }
  }
  for (const [tensor, shard] of placed) {
    const entry = tensors.get(tensor)
    if (entry?.file === join(folder, shard as string)) continue
    const where = entry ? `is in ${entry.file}` : 'is in no shard'
    throw invalid(`tensor ${quoted(tensor)} should be in ${quoted(shard as string)} but ${where}`)
  }
  return tensors
}
