/**
 * Writes safetensors files and checkpoint folders, all or nothing: see atomic.ts.
 */
import { lstat, mkdir, rename, rm } from 'node:fs/promises'
import { basename, dirname, join, resolve } from 'node:path'
import { appear, flushFolder, temporaryName, writeFlushed } from '../core/atomic.js'
import { ImplexError } from '../core/errors.js'
import { bytesPerElement, encode } from './dtype.js'
import { withFloats } from './float-keys.js'
import { quoted, systemCode } from '../core/files.js'
import type { StoredDtype } from '../native/spec.js'
import { INDEX_FILE, SINGLE_FILE } from './tensors.js'

export interface NamedTensor {
  name: string
  shape: number[]
  /** Values in row-major order; the number of elements must match the shape. */
  data: Float32Array
  /** Type of this tensor in the file. Defaults to the type of the whole file. */
  dtype?: StoredDtype
}

/** A tensor whose values may be made when it is their turn to be written, so that they need not all be in memory. */
export interface StreamedTensor extends Omit<NamedTensor, 'data'> {
  data: Float32Array | (() => Promise<Float32Array>)
}

export interface WriteSafetensorsOptions {
  /** Type of the tensors in the file. Defaults to 'f32'. */
  dtype?: StoredDtype
  /** Defaults to `{ format: 'pt' }`, which transformers requires. */
  metadata?: Record<string, string>
  /** As in CheckpointContent. */
  checkValues?: CheckpointContent['checkValues']
}

export interface CheckpointContent<T extends StreamedTensor = NamedTensor> {
  /** Written as config.json. */
  config: Record<string, unknown>
  /** Keys of the config whose whole numbers are written as floats. */
  floats?: ReadonlySet<string>
  tensors: T[]
  /** Further files by plain name, such as tokenizer.json. */
  files?: Record<string, string>
  /** Type of the stored weights. Defaults to 'f32'. */
  dtype?: StoredDtype
  /** Told of all values, piece by piece, before they are written; what it throws ends the writing. `start`: the first one's element. */
  checkValues?: (tensor: string, values: Float32Array, start: number) => void
  /** Maximum size of a file in bytes. Larger models are split into several files, each with at least one tensor. Defaults to one file. */
  shardBytes?: number
}

export interface WriteCheckpointOptions {
  /** Replaces an existing folder. Defaults to false: an existing folder is an error. */
  replace?: boolean
}

const SAFETENSORS_DTYPE = { f32: 'F32', f16: 'F16', bf16: 'BF16' } as const
/** Encoded and written at once, in a few milliseconds: between two pieces the event loop has its turn. */
const CHUNK_ELEMENTS = 1 << 17

/**
 * Writes one safetensors file; an existing one is replaced.
 * @throws RangeError for repeated names and data that does not fit its shape
 * @throws ImplexError ERR_DISK_FULL, ERR_IO
 */
export async function writeSafetensors(
  file: string,
  tensors: readonly StreamedTensor[],
  options: WriteSafetensorsOptions = {},
): Promise<void> {
  await appear(resolve(file), (temporary) => writeTensors(temporary, tensors, options))
}

/**
 * Writes a checkpoint folder that transformers and `openCheckpoint` load as it is.
 * @throws RangeError for repeated names and data that does not fit its shape
 * @throws ImplexError ERR_DISK_FULL, ERR_IO; also when the folder exists and `replace` is not set
 */
export async function writeCheckpoint(
  folder: string,
  content: CheckpointContent<StreamedTensor>,
  options: WriteCheckpointOptions = {},
): Promise<void> {
  const fill = async (temporary: string) => {
    await writeWeights(temporary, content)
    const config = withFloats(JSON.stringify(content.config, null, 2), content.floats ?? new Set())
    await writeText(join(temporary, 'config.json'), `${config}\n`)
    await writeFiles(temporary, content.files ?? {})
  }
  await writeFolder(folder, fill, options)
}

/**
 * Writes a folder, all or nothing: `fill` is given the temporary one to write into.
 * @throws ImplexError ERR_DISK_FULL, ERR_IO; also when the folder exists and `replace` is not set
 */
export async function writeFolder(
  folder: string,
  fill: (temporary: string) => Promise<void>,
  options: WriteCheckpointOptions = {},
): Promise<void> {
  const whole = async (temporary: string) => {
    if (!options.replace) await refuseExisting(resolve(folder))
    await mkdir(temporary, { recursive: true })
    await fill(temporary)
    await flushFolder(temporary)
  }
  await appear(resolve(folder), whole, moveIntoPlace)
}

/** Text files by plain name. @throws RangeError for a name that is a path */
export async function writeFiles(folder: string, files: Record<string, string>): Promise<void> {
  for (const [name, text] of Object.entries(files)) {
    if (basename(name) !== name) throw new RangeError(`${quoted(name)} is not a plain file name`)
    await writeText(join(folder, name), text)
  }
}

async function refuseExisting(path: string): Promise<void> {
  if (!(await exists(path))) return
  throw new ImplexError('ERR_IO', `${path}: exists already; choose another folder or remove it`, { path })
}

async function exists(path: string): Promise<boolean> {
  try {
    await lstat(path)
    return true
  } catch (error) {
    if (systemCode(error) === 'ENOENT') return false
    throw error
  }
}

/**
 * A folder cannot be renamed over a full one: the old one steps aside, and comes back if the new one cannot take its place. Killed between
 * the two renames, a process leaves no folder of that name, and both under temporary ones.
 */
async function moveIntoPlace(temporary: string, target: string): Promise<void> {
  const aside = temporaryName(target)
  const replaces = await exists(target)
  if (replaces) await rename(target, aside)
  try {
    await rename(temporary, target)
  } catch (error) {
    if (replaces) await rename(aside, target)
    throw error
  }
  if (!replaces) return
  await flushFolder(dirname(target))
  await rm(aside, { recursive: true, force: true })
}

async function writeWeights(
  folder: string,
  { tensors, dtype = 'f32', shardBytes, checkValues }: CheckpointContent<StreamedTensor>,
): Promise<void> {
  checkTensors(tensors)
  const shards = shardBytes === undefined ? [[...tensors]] : splitBySize(tensors, dtype, shardBytes)
  if (shards.length <= 1) return writeTensors(join(folder, SINGLE_FILE), shards[0] ?? [], { dtype, checkValues })
  const placed = new Map<string, string>()
  let total = 0
  for (const [i, shard] of shards.entries()) {
    const number = (n: number) => String(n).padStart(5, '0')
    const name = `model-${number(i + 1)}-of-${number(shards.length)}.safetensors`
    await writeTensors(join(folder, name), shard, { dtype, checkValues })
    for (const tensor of shard) {
      placed.set(tensor.name, name)
      total += tensorBytes(tensor, dtype)
    }
  }
  const index = { metadata: { total_size: total }, weight_map: Object.fromEntries(placed) }
  await writeText(join(folder, INDEX_FILE), `${JSON.stringify(index, null, 2)}\n`)
}

function splitBySize(tensors: readonly StreamedTensor[], dtype: StoredDtype, limit: number): StreamedTensor[][] {
  const shards: StreamedTensor[][] = []
  let room = 0
  for (const tensor of tensors) {
    const bytes = tensorBytes(tensor, dtype)
    if (bytes > room || shards.length === 0) {
      shards.push([])
      room = limit
    }
    shards.at(-1)?.push(tensor)
    room -= bytes
  }
  return shards
}

function tensorBytes(tensor: StreamedTensor, dtype: StoredDtype): number {
  return elementsOf(tensor) * bytesPerElement(tensor.dtype ?? dtype)
}

function elementsOf({ shape }: StreamedTensor): number {
  return shape.reduce((product, size) => product * size, 1)
}

function checkTensors(tensors: readonly StreamedTensor[]): void {
  const names = new Set(['__metadata__'])
  for (const tensor of tensors) {
    const { name, data } = tensor
    if (names.has(name)) throw new RangeError(`tensor ${quoted(name)} appears twice, or its name is reserved`)
    names.add(name)
    if (typeof data !== 'function') checkElements(tensor, data)
  }
}

function checkElements(tensor: StreamedTensor, { length }: Float32Array): void {
  if (elementsOf(tensor) === length) return
  throw new RangeError(`tensor ${quoted(tensor.name)} of shape [${tensor.shape.join(', ')}] has ${length} elements`)
}

/** Wider types come first and the header is padded to 8 bytes, so that every tensor is aligned to its own type. */
async function writeTensors(
  file: string,
  tensors: readonly StreamedTensor[],
  { dtype = 'f32', metadata = { format: 'pt' }, checkValues }: WriteSafetensorsOptions,
): Promise<void> {
  checkTensors(tensors)
  const typed = tensors.map((tensor) => ({ ...tensor, dtype: tensor.dtype ?? dtype }))
  typed.sort((a, b) => bytesPerElement(b.dtype) - bytesPerElement(a.dtype) || (a.name < b.name ? -1 : 1))
  let end = 0
  const entries: [string, unknown][] = typed.map((tensor) => {
    const begin = end
    end += tensorBytes(tensor, dtype)
    return [tensor.name, { dtype: SAFETENSORS_DTYPE[tensor.dtype], shape: tensor.shape, data_offsets: [begin, end] }]
  })
  const header = Buffer.from(JSON.stringify(Object.fromEntries([['__metadata__', metadata], ...entries])))
  const padded = Buffer.alloc(Math.ceil(header.length / 8) * 8, ' ')
  header.copy(padded)
  const length = Buffer.alloc(8)
  length.writeBigUInt64LE(BigInt(padded.length))
  await writeFlushed(file, async (handle) => {
    await handle.writeFile(Buffer.concat([length, padded]))
    for (const tensor of typed) {
      const data = typeof tensor.data === 'function' ? await tensor.data() : tensor.data
      checkElements(tensor, data)
      for (let start = 0; start < data.length; start += CHUNK_ELEMENTS) {
        const end = Math.min(start + CHUNK_ELEMENTS, data.length)
        checkValues?.(tensor.name, data.subarray(start, end), start)
        await handle.writeFile(encode(data, start, end, tensor.dtype))
      }
    }
  })
}

async function writeText(file: string, text: string): Promise<void> {
  await writeFlushed(file, (handle) => handle.writeFile(text))
}
