/**
 * Opens a LoRA adapter of peft over its base model: every tensor of its file finds its place in the base, or is refused by name.
 */
import { resolve } from 'node:path'
import { ImplexError } from '../../core/errors.js'
import { isFolder, quoted } from '../../core/files.js'
import type { WeightSource } from '../../native/spec.js'
import type { Checkpoint } from '../checkpoint.js'
import { findHeads, headTensors, type HeadSource } from '../heads.js'
import type { TensorEntry } from '../safetensors.js'
import { trainedBeside } from '../trained-with.js'
import { partOf, storedDtype } from '../weights.js'
import { ADAPTER_CONFIG } from './beside.js'
import { type BaseModule, type BaseTensor, baseModules, baseTensors } from './modules.js'
import { type AdapterTensors, type LowRankTensors, readAdapterTensors } from './names.js'
import { type AdapterSettings, readAdapterSettings } from './settings.js'
import { adaptedSpec } from './spec.js'
import { Targets } from './targets.js'
import type { Adapter, LowRank } from './types.js'

/**
 * The base with the adapter in `path`.
 * @throws ImplexError ERR_CHECKPOINT_NOT_FOUND, ERR_CONFIG_INVALID, ERR_SAFETENSORS_INVALID, ERR_TENSOR_MISSING, ERR_TENSOR_SHAPE,
 *   ERR_TENSOR_DTYPE, ERR_IO; the message names the file and the key or tensor
 */
export async function withAdapter(base: Checkpoint, path: string): Promise<Checkpoint> {
  const folder = resolve(path)
  if (!(await isFolder(folder))) {
    const message = `${folder}: no such folder; give the folder of a LoRA adapter, with ${ADAPTER_CONFIG} in it`
    throw new ImplexError('ERR_CHECKPOINT_NOT_FOUND', message, { path: folder })
  }
  const settings = await readAdapterSettings(folder)
  const tensors = await readAdapterTensors(folder)
  const opening = new Opening(base, settings, tensors)
  const { adapter, heads } = await opening.open(folder)
  const { spec, notes } = adaptedSpec(base, adapter, heads)
  const trained = await trainedBeside(folder)
  return { ...base, ...trained, spec, heads, notes: [...base.notes, ...settings.notes, ...notes], adapter }
}

/**
 * The base model that an adapter names, where it is a folder.
 * @throws ImplexError ERR_CHECKPOINT_NOT_FOUND where it is none
 */
export async function baseOfAdapter(path: string): Promise<string> {
  const { base, file } = await readAdapterSettings(resolve(path))
  if (base !== undefined && base !== '' && (await isFolder(resolve(base)))) return base
  const named =
    base === undefined || base === ''
      ? 'names no base model'
      : `names the base model ${quoted(base)}, which is no folder here`
  throw new ImplexError('ERR_CHECKPOINT_NOT_FOUND', `${file}: ${named}; give the base's folder with --model`, {
    path: file,
  })
}

class Opening {
  readonly #base: Checkpoint
  readonly #settings: AdapterSettings
  readonly #tensors: AdapterTensors
  readonly #targets: Targets
  readonly #lowRank: LowRank[] = []
  readonly #biases: Adapter['biases'] = []
  #embedding: LowRank | undefined
  #mergeOnly: string | undefined

  constructor(base: Checkpoint, settings: AdapterSettings, tensors: AdapterTensors) {
    this.#base = base
    this.#settings = settings
    this.#tensors = tensors
    this.#targets = new Targets(settings)
  }

  async open(path: string): Promise<{ adapter: Adapter; heads: HeadSource[] }> {
    const { lowRank, whole } = this.#tensors
    const heads = findHeads(whole, undefined, this.#base.spec.hiddenSize)
    const known = await baseTensors(this.#base, [...[...lowRank.keys()].map((name) => `${name}.`), ...whole.keys()])
    const replaced = this.#replaced(known, heads)
    const rows = replaced.get('embedding')?.shape[0]
    const modules = baseModules(known)
    for (const [name, tensors] of lowRank) this.#add(this.#module(modules, name, tensors), tensors, rows)
    this.#checkComplete(modules, known)
    const adapter: Adapter = {
      path,
      settings: this.#settings,
      lowRank: this.#lowRank,
      biases: this.#biases,
      replaced,
      ...(this.#embedding === undefined ? {} : { embedding: this.#embedding }),
      ...(this.#mergeOnly === undefined ? {} : { mergeOnly: this.#mergeOnly }),
    }
    return { adapter, heads }
  }

  /** Whole tensors by role. */
  #replaced(known: ReadonlyMap<string, BaseTensor>, heads: readonly HeadSource[]): Map<string, WeightSource> {
    const ofHeads = new Set(heads.flatMap(headTensors))
    const replaced = new Map<string, WeightSource>()
    for (const [name, entry] of this.#tensors.whole) {
      if (ofHeads.has(entry)) continue
      const tensor = known.get(name)
      if (tensor === undefined)
        throw this.#refuse(entry, `the base model ${this.#base.path} has no tensor ${quoted(name)}`)
      const role = tensor.parts[0]!.role
      // A vocabulary may have grown in training.
      const grown = (role === 'embedding' || role === 'unembedding') && entry.shape.length === 2 && entry.shape[0]! > 0
      const expected = grown ? [entry.shape[0]!, tensor.shape[1]!] : tensor.shape
      this.#checkShape(entry, expected, 'the base model')
      for (const part of tensor.parts) replaced.set(part.role, partOf(entry, entry.name, storedDtype(entry), part))
    }
    return replaced
  }

  #module(modules: ReadonlyMap<string, BaseModule>, name: string, tensors: LowRankTensors): BaseModule {
    const entry = Object.values(tensors)[0] as TensorEntry
    const module = modules.get(name)
    if (module === undefined)
      throw this.#refuse(
        entry,
        `the base model ${this.#base.path} has no module ${quoted(name)} that a low-rank part could be added to`,
      )
    if (this.#targets.names({ name, linear: !['embedding', 'unembedding'].includes(module.kind) }) === false) {
      throw this.#refuse(
        entry,
        `${this.#settings.file} leaves the module ${quoted(name)} out ("target_modules", "exclude_modules", "modules_to_save" and "layers_to_transform" decide)`,
      )
    }
    return module
  }

  #add(module: BaseModule, tensors: LowRankTensors, vocabulary: number | undefined): void {
    const { name, kind } = module
    const rank = this.#targets.rank(name)
    const scale = this.#targets.scale(name)
    const table = kind === 'embedding' || kind === 'unembedding'
    const outputs = table ? (vocabulary ?? module.shape[0]) : module.shape[0]
    const inputs = module.shape[1]
    const why = `the base model and rank ${rank} of ${this.#settings.file}`
    if (kind === 'embedding') {
      const a = this.#need(tensors, 'embeddingA', `${name}.lora_embedding_A`)
      const b = this.#need(tensors, 'embeddingB', `${name}.lora_embedding_B`)
      this.#refuseRest(tensors, ['embeddingA', 'embeddingB'])
      this.#checkShape(a, [rank, outputs], why)
      this.#checkShape(b, [inputs, rank], why)
      this.#embedding = { role: 'embedding', scale, a: sourceOf(a, 'embedding.a'), b: sourceOf(b, 'embedding.b') }
      this.#mergeOnly ??= a.name
      return
    }
    const a = this.#need(tensors, 'a', `${name}.lora_A.weight`)
    const b = this.#need(tensors, 'b', `${name}.lora_B.weight`)
    this.#checkShape(a, [rank, inputs], why)
    this.#checkShape(b, [outputs, rank], why)
    const { dora, loraBias } = this.#settings
    const magnitude = dora ? this.#need(tensors, 'magnitude', `${name}.lora_magnitude_vector`) : undefined
    if (magnitude !== undefined) this.#checkShape(magnitude, [outputs], why)
    const bias = loraBias ? this.#need(tensors, 'bias', `${name}.lora_B.bias`) : undefined
    if (bias !== undefined) this.#checkShape(bias, [outputs], why)
    this.#refuseRest(tensors, ['a', 'b', ...(dora ? ['magnitude'] : []), ...(loraBias ? ['bias'] : [])])
    // The engine adds low-rank parts to the projections of a layer alone.
    if (table || kind === 'router') this.#mergeOnly ??= a.name
    this.#mergeOnly ??= (magnitude ?? bias)?.name
    for (const part of module.parts) this.#addPart(part, scale, { a, b, magnitude, bias })
  }

  #addPart(
    { role, rows }: BaseModule['parts'][number],
    scale: number,
    { a, b, magnitude, bias }: { a: TensorEntry; b: TensorEntry; magnitude?: TensorEntry; bias?: TensorEntry },
  ): void {
    const { weights, tiedEmbedding } = this.#base.spec
    const exists = (wanted: string) => weights.some((weight) => weight.role === wanted)
    if (!exists(role) && !(role === 'unembedding' && tiedEmbedding))
      throw this.#refuse(a, `the base model ${this.#base.path} has no ${role} to add it to`)
    const part = (entry: TensorEntry, suffix: string): WeightSource => ({
      ...sourceOf(entry, `${role}.${suffix}`),
      ...(rows === undefined ? {} : { rows }),
    })
    this.#lowRank.push({
      ...{ role, scale, a: sourceOf(a, `${role}.a`), b: part(b, 'b') },
      ...(magnitude === undefined ? {} : { magnitude: part(magnitude, 'magnitude') }),
    })
    if (bias === undefined) return
    if (!exists(`${role}_bias`)) throw this.#refuse(bias, `the base model ${this.#base.path} has no bias to add it to`)
    this.#biases.push({ role: `${role}_bias`, scale, bias: part(bias, 'bias') })
  }

  /** What the settings name must be in the file. */
  #checkComplete(modules: ReadonlyMap<string, BaseModule>, known: ReadonlyMap<string, BaseTensor>): void {
    const { lowRank, whole, file } = this.#tensors
    const { tiedEmbedding, weights } = this.#base.spec
    const has = (wanted: BaseModule['kind']) => [...lowRank.keys()].some((name) => modules.get(name)!.kind === wanted)
    // Experts are modules in some versions of transformers only; a classifier has no unembedding; and an unembedding has several names.
    const without = new Set((['expert', 'router'] as const).filter((kind) => !has(kind)) as BaseModule['kind'][])
    const unembedding = tiedEmbedding || weights.some(({ role }) => role === 'unembedding')
    if (this.#settings.taskType === 'SEQ_CLS' || !unembedding || has('unembedding')) without.add('unembedding')
    for (const { name, kind } of modules.values()) {
      if (lowRank.has(name) || without.has(kind)) continue
      if (this.#targets.names({ name, linear: kind === 'linear' || kind === 'expert' }) !== true) continue
      throw missing(
        file,
        `base_model.model.${name}.lora_A.weight`,
        `${this.#settings.file} names the module in "target_modules"`,
      )
    }
    for (const { name, parts } of known.values()) {
      const module = name.replace(/\.(weight|bias)$/, '')
      if (whole.has(name) || !this.#targets.savesWhole(module) || parts[0]!.role === 'unembedding') continue
      throw missing(file, `base_model.model.${name}`, `${this.#settings.file} names the module in "modules_to_save"`)
    }
  }

  #need(tensors: LowRankTensors, part: keyof LowRankTensors, name: string): TensorEntry {
    const entry = tensors[part]
    if (entry !== undefined) return entry
    const other = Object.values(tensors)[0] as TensorEntry
    throw missing(this.#tensors.file, `base_model.model.${name}`, `it has ${quoted(other.name)}`)
  }

  #refuseRest(tensors: LowRankTensors, used: readonly string[]): void {
    for (const [part, entry] of Object.entries(tensors) as [string, TensorEntry][]) {
      if (used.includes(part)) continue
      throw this.#refuse(
        entry,
        `nothing in ${this.#settings.file} says that the module has such a tensor ("use_dora", "lora_bias")`,
      )
    }
  }

  #checkShape({ file, name, shape }: TensorEntry, expected: readonly number[], who: string): void {
    if (shape.length === expected.length && expected.every((size, i) => size === shape[i])) return
    const message = `${file}: tensor ${quoted(name)} has shape [${shape.slice(0, 8).join(', ')}], but ${who} require [${expected.join(', ')}]`
    throw new ImplexError('ERR_TENSOR_SHAPE', message.replace('the base model require', 'the base model requires'), {
      path: file,
    })
  }

  #refuse({ file, name }: TensorEntry, why: string): ImplexError {
    return new ImplexError('ERR_CONFIG_INVALID', `${file}: tensor ${quoted(name)}: ${why}`, { path: file })
  }
}

function missing(file: string, name: string, because: string): ImplexError {
  const message = `${file}: no tensor ${quoted(name)}, but ${because}; the adapter and the base do not belong together, or the file is incomplete`
  return new ImplexError('ERR_TENSOR_MISSING', message, { path: file })
}

function sourceOf(entry: TensorEntry, role: string): WeightSource {
  const { name, file, offset, bytes, shape } = entry
  return { role, tensor: name, file, offset, bytes, dtype: storedDtype(entry), shape }
}
