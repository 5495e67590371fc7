/**
 * Writes a base model with its LoRA adapter merged into it as a checkpoint folder of its own. Weights pass through memory one tensor at a
 * time; each is rounded once, to the type that the base stores it in.
 */
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { withAdapter } from '../checkpoint/adapter/adapter.js'
import type { Adapter } from '../checkpoint/adapter/types.js'
import { changes, mergedValues, placeRows } from '../checkpoint/adapter/merge.js'
import { type Checkpoint, familyOf, openCheckpoint } from '../checkpoint/checkpoint.js'
import { Config } from '../checkpoint/config.js'
import { bytesPerElement } from '../checkpoint/dtype.js'
import type { Family } from '../checkpoint/families.js'
import { floatKeys } from '../checkpoint/float-keys.js'
import { headTensors } from '../checkpoint/heads.js'
import type { TensorEntry } from '../checkpoint/safetensors.js'
import { readTensors } from '../checkpoint/tensors.js'
import { BUFFERS, readWeight, storedDtype } from '../checkpoint/weights.js'
import { type StreamedTensor, writeCheckpoint } from '../checkpoint/write.js'
import { throwIfAborted } from '../core/abort.js'
import { ImplexError } from '../core/errors.js'
import { isFolder, quoted } from '../core/files.js'
import type { StoredDtype, WeightSource } from '../native/spec.js'
import { mergedConfig, mergedText } from './merged-files.js'

const SHARD_BYTES = 5e9
/** From here on a number rounds to infinity as f16. */
const F16_LIMIT = 65_520

export interface MergeAdapterOptions {
  /** Folder of the base model. */
  model: string
  /** Folder of the adapter. */
  adapter: string
  /** Folder to write; it must not exist. */
  out: string
  /** Ends the merging with ERR_ABORTED; nothing is left of it then. */
  signal?: AbortSignal
}

export interface MergeAdapterResult {
  /** Tensors that the adapter changes or brings. */
  changed: number
  /** All tensors that were written. */
  tensors: number
  /** Tensors of the base that the merged model does not have. */
  left: string[]
  /** What a user may want to know, each a sentence. */
  notes: string[]
}

/**
 * Writes the merged model.
 * @throws ImplexError as openCheckpoint and withAdapter do; ERR_IO where `out` exists; ERR_WEIGHT_NOT_FINITE for a number that cannot be
 *   stored; ERR_DISK_FULL; ERR_ABORTED
 */
export async function mergeAdapter({ model, adapter, out, signal }: MergeAdapterOptions): Promise<MergeAdapterResult> {
  if ((await isFolder(out)) !== undefined)
    throw new ImplexError('ERR_IO', `${out}: exists already; choose another folder or remove it`, { path: out })
  const base = await openCheckpoint(model)
  const checkpoint = await withAdapter(base, adapter)
  const merging = new Merging(base, checkpoint, await readTensors(base.path))
  const { tensors, changed, left } = await merging.list()
  const dtypes = new Map(tensors.map(({ name, dtype }) => [name, dtype as StoredDtype]))
  const text = await mergedText(base.path, checkpoint.adapter!.path, checkpoint.heads.length > 0)
  await writeCheckpoint(out, {
    config: await mergedConfig(base, checkpoint, text.padTokenId),
    floats: floatKeys(await readFile(join(base.path, 'config.json'), 'utf8')),
    tensors,
    files: text.files,
    shardBytes: SHARD_BYTES,
    checkValues: (tensor, values, start) => {
      throwIfAborted(signal, 'the merging')
      checkValues(out, tensor, dtypes.get(tensor)!, values, start)
    },
  })
  return { changed, tensors: tensors.length, left, notes: checkpoint.notes }
}

function checkValues(out: string, tensor: string, dtype: StoredDtype, values: Float32Array, start: number): void {
  const limit = dtype === 'f16' ? F16_LIMIT : Number.MAX_VALUE
  const bad = values.findIndex((value) => !(Math.abs(value) < limit))
  if (bad < 0) return
  const message = `${out}: tensor ${quoted(tensor)} would have ${values[bad]} at element ${start + bad}, which ${dtype} cannot hold`
  throw new ImplexError('ERR_WEIGHT_NOT_FINITE', message, { path: out })
}

class Merging {
  readonly #base: Checkpoint
  readonly #merged: Checkpoint
  readonly #adapter: Adapter
  readonly #entries: ReadonlyMap<string, TensorEntry>
  readonly #byRole: ReadonlyMap<string, WeightSource>

  constructor(base: Checkpoint, merged: Checkpoint, entries: ReadonlyMap<string, TensorEntry>) {
    this.#base = base
    this.#merged = merged
    this.#adapter = merged.adapter!
    this.#entries = entries
    this.#byRole = new Map(merged.spec.weights.map((weight) => [weight.role, weight]))
  }

  async list(): Promise<{ tensors: StreamedTensor[]; changed: number; left: string[] }> {
    const { family } = familyOf(await Config.read(join(this.#base.path, 'config.json')))
    const { heads } = this.#merged
    const tensors: StreamedTensor[] = []
    const left: string[] = []
    let changed = 0
    const replacedHeads = new Set(
      heads.length === 0 ? [] : this.#base.heads.flatMap(headTensors).map(({ name }) => name),
    )
    const parts = new Map<string, WeightSource[]>()
    for (const weight of this.#base.spec.weights) {
      if (weight.role === 'head') continue
      parts.set(weight.tensor, [...(parts.get(weight.tensor) ?? []), weight])
    }
    for (const [name, entry] of this.#entries) {
      const own = parts.get(name) ?? []
      // Buffers are computed from the config; the second of two tied tensors is the first.
      if (BUFFERS.test(name) || (own.length === 0 && family.unembedding.includes(name))) continue
      if (replacedHeads.has(name)) continue
      if (this.#isUnembedding(own) && this.#classifies()) {
        left.push(name)
        continue
      }
      if (own.some(({ role }) => this.#changes(role))) changed++
      tensors.push(this.#tensor(this.#nameOf(name, own, family), entry, own))
    }
    const apart = this.#byRole.get('unembedding')
    if (apart !== undefined && this.#base.spec.tiedEmbedding && !this.#classifies()) {
      const data = () => mergedValues(apart, this.#adapter)
      tensors.push({ name: family.unembedding[0]!, shape: apart.shape, data, dtype: apart.dtype })
      changed++
    }
    for (const { form, layers } of heads.length === 0 ? this.#headsBeside() : heads) {
      for (const [i, { weight, bias, outputs, inputs }] of layers.entries()) {
        const name = form.layers[i]!
        tensors.push(whole(`${name}.weight`, weight, [outputs, inputs]))
        if (bias !== undefined) tensors.push(whole(`${name}.bias`, bias, [outputs]))
        if (heads.length > 0) changed += bias === undefined ? 1 : 2
      }
    }
    return { tensors, changed, left }
  }

  /** Heads of the base that lie in no file of its weights. */
  #headsBeside() {
    return this.#base.heads.filter((head) => headTensors(head).some(({ name }) => !this.#entries.has(name)))
  }

  /** A classifier is saved without the unembedding. */
  #classifies(): boolean {
    const { heads } = this.#merged
    return heads.length > 0 && this.#adapter.settings.taskType === 'SEQ_CLS' && !this.#changes('unembedding')
  }

  #isUnembedding(parts: readonly WeightSource[]): boolean {
    return parts.length === 1 && parts[0]!.role === 'unembedding'
  }

  #changes(role: string): boolean {
    return this.#adapter.replaced.has(role) || changes(this.#adapter, role)
  }

  /** A file of tied weights may have the embedding under the unembedding's name. */
  #nameOf(name: string, parts: readonly WeightSource[], family: Family): string {
    if (parts[0]?.role !== 'embedding' || !family.unembedding.includes(name)) return name
    const [norm] = family.final(this.#base.spec)
    const { tensor } = this.#base.spec.weights.find(({ role }) => role === 'final_norm')!
    return tensor.slice(0, tensor.length - norm!.name.length) + family.embedding
  }

  #tensor(name: string, entry: TensorEntry, parts: readonly WeightSource[]): StreamedTensor {
    if (!parts.some(({ role }) => this.#changes(role))) return whole(name, entry, entry.shape)
    const dtype = storedDtype(entry)
    const [first] = parts as [WeightSource]
    const merged = this.#byRole.get(first.role)!
    if (parts.length === 1 && first.rows === undefined && first.bytes === entry.bytes) {
      return { name, shape: merged.shape, dtype, data: () => mergedValues(merged, this.#adapter) }
    }
    return { name, shape: entry.shape, dtype, data: () => this.#assembled(entry, parts) }
  }

  /** A tensor that several roles share. */
  async #assembled(entry: TensorEntry, parts: readonly WeightSource[]): Promise<Float32Array> {
    const dtype = storedDtype(entry)
    const values = await readWeight({ ...entry, tensor: entry.name, dtype })
    for (const part of parts) {
      if (!this.#changes(part.role)) continue
      const start = (part.offset - entry.offset) / bytesPerElement(dtype)
      placeRows(values, part, await mergedValues(this.#byRole.get(part.role)!, this.#adapter), start)
    }
    return values
  }
}

function whole(name: string, entry: TensorEntry, shape: number[]): StreamedTensor {
  const dtype = storedDtype(entry)
  return { name, shape, dtype, data: () => readWeight({ ...entry, tensor: entry.name, dtype }) }
}
