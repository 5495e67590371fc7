/**
 * A trained model as a checkpoint folder in Hugging Face form: `…ForSequenceClassification` with one label for the explicit kind,
 * `…ForCausalLM` for the others.
 */
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setImmediate } from 'node:timers/promises'
import type { Checkpoint } from '../../checkpoint/checkpoint.js'
import { FAMILIES } from '../../checkpoint/families.js'
import { readJsonFile } from '../../core/files.js'
import type { ModelSpec, WeightSource } from '../../native/spec.js'
import { type Border, recordTraining } from '../../checkpoint/trained-with.js'
import { HEAD_TENSOR, readWeight } from '../../checkpoint/weights.js'
import { floatKeys } from '../../checkpoint/float-keys.js'
import { textValues } from '../../checkpoint/wrapper.js'
import { type StreamedTensor, writeCheckpoint } from '../../checkpoint/write.js'
import { meanRow, type Trainer } from '../../native/handles.js'
import { ImplexError } from '../../core/errors.js'
import type { EncoderDescription } from '../../data/encode-worker.js'
import { savedNames } from './saved-names.js'
import { savedText } from './saved-text.js'

/** Elements that are copied before the event loop has its turn. */
const PIECE = 1 << 20

async function pause(): Promise<0> {
  await setImmediate()
  return 0
}

export interface SaveOptions {
  explicit: boolean
  /** 'bf16' stores matrices so, as they are computed with; vectors and the head stay f32. */
  dtype: 'f32' | 'bf16'
  /** The head, where it was frozen: the trainer does not know it then. */
  head?: Float32Array
  /** How prompt and response were parted; absent for the generative kind. */
  border?: Border
  /** The padding token that the head's place goes by: it stays the model's. Absent: the head was read at the last token. */
  padTokenId?: number
}

/**
 * Writes the folder, all or nothing; one that exists is replaced.
 * @throws ImplexError ERR_NOT_FINITE naming the tensor, ERR_DISK_FULL, ERR_IO
 */
export async function saveModel(
  folder: string,
  trainer: Pick<Trainer, 'parameters' | 'parameter'>,
  checkpoint: Checkpoint,
  encoder: EncoderDescription,
  options: SaveOptions,
): Promise<void> {
  const text = await savedText(checkpoint.path, encoder, options.padTokenId)
  const tensors = listTensors(trainer, checkpoint, options)
  const generation = options.explicit ? {} : await generationConfig(checkpoint.path)
  await writeCheckpoint(
    folder,
    {
      config: await savedConfig(checkpoint, text.padTokenId, options),
      floats: floatKeys(await readFile(join(checkpoint.path, 'config.json'), 'utf8')),
      tensors,
      files: { ...text.files, ...generation },
      dtype: 'f32',
      checkValues: checkFinite,
    },
    { replace: true },
  )
}

export function checkFinite(name: string, values: Float32Array, start: number): void {
  for (let i = 0; i < values.length; i++) {
    const value = values[i]!
    if (Number.isFinite(value)) continue
    const message = `tensor "${name}" ended up with ${value} at element ${start + i}: the run diverged`
    throw new ImplexError('ERR_NOT_FINITE', message)
  }
}

async function savedConfig(
  { path, family: name, spec }: Checkpoint,
  padTokenId: number,
  { explicit, dtype, border }: SaveOptions,
): Promise<Record<string, unknown>> {
  const whole = await readJsonFile(join(path, 'config.json'), 'ERR_CONFIG_INVALID')
  const family = FAMILIES.get(name)!
  // Of a vision-language model the text part is what was trained, and what is saved is that alone.
  const text = textValues(whole)
  const config: Record<string, unknown> = text === undefined ? whole : { ...family.defaults, ...text }
  config.vocab_size = spec.vocabSize + spec.addedTokens
  recordTraining(config, border === undefined ? {} : { border })
  if (Array.isArray(config.architectures) && config.architectures.length > 0) {
    const { causal, classifier = causal } = family.classes
    config.architectures = [explicit ? `${classifier}ForSequenceClassification` : `${causal}ForCausalLM`]
  }
  const type = dtype === 'bf16' ? 'bfloat16' : 'float32'
  if ('torch_dtype' in config || !('dtype' in config)) config.torch_dtype = type
  if ('dtype' in config) config.dtype = type
  if (explicit) {
    config.num_labels = 1
    config.id2label = { 0: 'LABEL_0' }
    config.label2id = { LABEL_0: 0 }
    config.pad_token_id = padTokenId
  } else {
    config.tie_word_embeddings = spec.tiedEmbedding
    for (const key of ['num_labels', 'id2label', 'label2id']) delete config[key]
  }
  return config
}

async function generationConfig(path: string): Promise<Record<string, string>> {
  try {
    const value = await readJsonFile(join(path, 'generation_config.json'), 'ERR_CONFIG_INVALID')
    return { 'generation_config.json': `${JSON.stringify(value, null, 2)}\n` }
  } catch {
    return {} // absent or unreadable: nothing that a reward depends on
  }
}

/**
 * All tensors of the saved model under the names that transformers gives them, whatever those of the checkpoint were. Each is made when it
 * is its turn to be written, so that one is in memory at a time.
 */
function listTensors(
  trainer: Pick<Trainer, 'parameters' | 'parameter'>,
  { family: name, spec }: Checkpoint,
  { explicit, dtype, head }: SaveOptions,
): StreamedTensor[] {
  const trained = new Set(trainer.parameters.map(({ role }) => role))
  const byTensor = new Map<string, WeightSource[]>()
  for (const weight of spec.weights) {
    if (weight.role === 'head' || (explicit && weight.role === 'unembedding')) continue
    byTensor.set(weight.tensor, [...(byTensor.get(weight.tensor) ?? []), weight])
  }
  const tensors: StreamedTensor[] = []
  const nameOf = savedNames(name, spec)
  for (const [tensor, parts] of byTensor) {
    const { role, shape } = parts[0]!
    const [rows, ...columns] = shape as [number, ...number[]]
    const added = role === 'embedding' || role === 'unembedding' ? spec.addedTokens : 0
    const slabs = slabsOf(parts)
    tensors.push({
      name: nameOf({ tensor, role }),
      shape: [...(slabs.length > 1 ? [slabs.length] : []), rows + added, ...columns],
      data: () => wholeTensor(trainer, trained, spec, slabs),
      dtype: dtype === 'bf16' && shape.length === 2 ? 'bf16' : undefined,
    })
  }
  if (explicit) {
    const data = trained.has('head') ? () => trainer.parameter('head') : head
    if (data === undefined) throw new ImplexError('ERR_INTERNAL', 'the head of the trained model is not known')
    tensors.push({ name: HEAD_TENSOR, shape: [1, spec.hiddenSize], data })
  }
  return tensors
}

/** The parts by the matrix that they are in, where the tensor of the file has several, one below the other. */
function slabsOf(parts: WeightSource[]): WeightSource[][] {
  const slabs = new Map<number, WeightSource[]>()
  for (const part of parts) slabs.set(part.offset, [...(slabs.get(part.offset) ?? []), part])
  return [...slabs].sort(([a], [b]) => a - b).map(([, slab]) => slab)
}

async function wholeTensor(
  trainer: Pick<Trainer, 'parameter'>,
  trained: ReadonlySet<string>,
  spec: ModelSpec,
  slabs: WeightSource[][],
): Promise<Float32Array> {
  if (slabs.length === 1) return wholeMatrix(trainer, trained, spec, slabs[0]!)
  const elements = slabs[0]![0]!.shape.reduce((product, size) => product * size, 1)
  const whole = new Float32Array(slabs.length * elements)
  for (const [i, slab] of slabs.entries()) {
    whole.set(await wholeMatrix(trainer, trained, spec, slab), i * elements)
    await pause()
  }
  return whole
}

/** A tensor or a matrix of it, its trained parts from the trainer and the rest as they were. */
async function wholeMatrix(
  trainer: Pick<Trainer, 'parameter'>,
  trained: ReadonlySet<string>,
  spec: ModelSpec,
  parts: WeightSource[],
): Promise<Float32Array> {
  const [first] = parts as [WeightSource]
  if (first.rows === undefined && trained.has(first.role)) return trainer.parameter(first.role)
  const stored = await readWeight(first)
  if (first.rows === undefined) {
    const grows = (first.role === 'embedding' || first.role === 'unembedding') && spec.addedTokens > 0
    return grows ? withAddedRows(stored, first, spec.addedTokens) : stored
  }
  const columns = first.shape.length === 2 ? first.shape[1]! : 1
  for (const { role, rows } of parts) {
    if (!trained.has(role) || rows === undefined) continue
    const values = await trainer.parameter(role)
    const block = rows.block * columns
    for (let i = 0, since = 0; i * block < values.length; i++) {
      stored.set(values.subarray(i * block, (i + 1) * block), (rows.start + i * rows.stride) * columns)
      since += block
      if (since >= PIECE) since = await pause()
    }
  }
  return stored
}

/** An embedding or unembedding as the engine has it at the start: the file's rows, then those that it made. */
export async function grownTable(source: WeightSource, count: number): Promise<Float32Array> {
  return withAddedRows(await readWeight(source), source, count)
}

/** With `count` rows more, as the engine made them. */
async function withAddedRows(table: Float32Array, source: WeightSource, count: number): Promise<Float32Array> {
  const row = await meanRow(source)
  const grown = new Float32Array(table.length + count * row.length)
  for (let at = 0; at < table.length; at += PIECE) {
    grown.set(table.subarray(at, at + PIECE), at)
    await pause()
  }
  for (let i = 0; i < count; i++) grown.set(row, table.length + i * row.length)
  return grown
}
