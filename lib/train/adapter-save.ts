/**
 * A trained LoRA adapter as a folder that peft loads over the base model: adapter_config.json, adapter_model.safetensors under peft's names,
 * the tokenizer's files, and README.md, the model card.
 */
import { join } from 'node:path'
import type { Checkpoint } from '../checkpoint/checkpoint.js'
import { type StreamedTensor, writeFiles, writeFolder, writeSafetensors } from '../checkpoint/write.js'
import { type Border, TRAINING_FILE } from '../checkpoint/trained-with.js'
import { HEAD_TENSOR } from '../checkpoint/weights.js'
import type { EncoderDescription } from '../data/encode-worker.js'
import type { Trainer } from '../native/handles.js'
import { type AdaptedModule, type AdaptedPart, lastName } from './adapter-modules.js'
import type { NewAdapter } from './adapter-start.js'
import { ALL_LINEAR } from './options.js'
import { checkFinite, grownTable } from './runs/save-model.js'
import { savedNames } from './runs/saved-names.js'
import { savedText } from './runs/saved-text.js'

/** What peft puts before the names of the model that it wraps. */
const WRAPPER = 'base_model.model.'

export interface SaveAdapterOptions {
  explicit: boolean
  adapter: NewAdapter
  dtype: 'f32' | 'bf16'
  /** explicit: where the head was frozen, the trainer does not know it. */
  head?: Float32Array
  /** As of SaveOptions. */
  border?: Border
  padTokenId?: number
  /** The text of README.md. @param padTokenId what a classifier must be told to pad with */
  card: (padTokenId: number) => string
}

/**
 * Writes the folder, all or nothing; one that exists is replaced.
 * @throws ImplexError ERR_NOT_FINITE naming the tensor, ERR_DISK_FULL, ERR_IO
 */
export async function saveAdapter(
  folder: string,
  trainer: Pick<Trainer, 'parameters' | 'parameter'>,
  checkpoint: Checkpoint,
  encoder: EncoderDescription,
  options: SaveAdapterOptions,
): Promise<void> {
  const text = await savedText(checkpoint.path, encoder, options.padTokenId)
  const { border, adapter } = options
  const { modules, settings } = adapter
  const tensors = [
    ...modules.flatMap((module) => moduleTensors(trainer, module, settings.loraRank)),
    ...headTensors(trainer, checkpoint, options),
    ...addedRows(checkpoint, options),
  ]
  await writeFolder(
    folder,
    async (temporary) => {
      await writeSafetensors(join(temporary, 'adapter_model.safetensors'), tensors, { checkValues: checkFinite })
      await writeFiles(temporary, {
        'adapter_config.json': json(adapterConfig(checkpoint.path, options)),
        ...(border === undefined ? {} : { [TRAINING_FILE]: json({ border }) }),
        ...text.files,
        'README.md': options.card(text.padTokenId),
      })
    },
    { replace: true },
  )
}

function json(value: unknown): string {
  return `${JSON.stringify(value, null, 2)}\n`
}

/** The keys that every version of peft knows: an older one refuses those that came later. */
function adapterConfig(
  base: string,
  { explicit, adapter: { modules, settings } }: SaveAdapterOptions,
): Record<string, unknown> {
  const { loraRank: rank, loraAlpha: alpha, loraTargets, rslora } = settings
  const fused = modules.filter(({ parts }) => parts.length > 1)
  const pattern = (value: (parts: number) => number) =>
    Object.fromEntries(fused.map((module) => [lastName(module), value(module.parts.length)]))
  const targets = loraTargets.includes(ALL_LINEAR) ? modules.map(lastName) : loraTargets
  return {
    alpha_pattern: pattern((parts) => alpha * (rslora ? Math.sqrt(parts) : parts)),
    auto_mapping: null,
    base_model_name_or_path: base,
    bias: 'none',
    fan_in_fan_out: false,
    inference_mode: true,
    init_lora_weights: true,
    layers_pattern: null,
    layers_to_transform: null,
    lora_alpha: alpha,
    lora_dropout: 0,
    modules_to_save: explicit ? ['classifier', 'score'] : null,
    peft_type: 'LORA',
    r: rank,
    rank_pattern: pattern((parts) => rank * parts),
    revision: null,
    target_modules: [...new Set(targets)].sort(),
    task_type: explicit ? 'SEQ_CLS' : 'CAUSAL_LM',
    use_dora: false,
    use_rslora: rslora,
  }
}

/**
 * A fused module has one A and one B in peft, where each of its parts has been trained with its own: the As one below the other, and every B in
 * the rows of its part and the columns of its A, give the same sum. The rank is the parts' together, and alpha is raised with it.
 */
function moduleTensors(
  trainer: Pick<Trainer, 'parameter'>,
  { name, parts }: AdaptedModule,
  rank: number,
): StreamedTensor[] {
  const { inputs } = parts[0]!
  const outputs = parts.reduce((sum, part) => sum + part.outputs, 0)
  const width = rank * parts.length
  const a = async () => {
    const whole = new Float32Array(width * inputs)
    for (const [i, { role }] of parts.entries()) whole.set(await trainer.parameter(`${role}.lora_a`), i * rank * inputs)
    return whole
  }
  const b = async () => {
    const whole = new Float32Array(outputs * width)
    for (const [i, part] of parts.entries())
      place(whole, await trainer.parameter(`${part.role}.lora_b`), part, { width, rank, at: i * rank })
    return whole
  }
  return [
    { name: `${WRAPPER}${name}.lora_A.weight`, shape: [width, inputs], data: a },
    { name: `${WRAPPER}${name}.lora_B.weight`, shape: [outputs, width], data: b },
  ]
}

function place(
  whole: Float32Array,
  values: Float32Array,
  { outputs, rows }: AdaptedPart,
  { width, rank, at }: { width: number; rank: number; at: number },
): void {
  const { start, block, stride } = rows ?? { start: 0, block: outputs, stride: outputs }
  for (let i = 0; i < outputs; i++) {
    const row = start + Math.floor(i / block) * stride + (i % block)
    whole.set(values.subarray(i * rank, (i + 1) * rank), row * width + at)
  }
}

function headTensors(
  trainer: Pick<Trainer, 'parameters' | 'parameter'>,
  { spec }: Checkpoint,
  { explicit, head }: SaveAdapterOptions,
): StreamedTensor[] {
  if (!explicit) return []
  const trained = trainer.parameters.some(({ role }) => role === 'head')
  const data = trained ? () => trainer.parameter('head') : head!
  return [{ name: WRAPPER + HEAD_TENSOR, shape: [1, spec.hiddenSize], data }]
}

/** Where the template brought tokens that the base has no rows for, the longer tables, as peft saves them after a resizing. */
function addedRows({ family, spec }: Checkpoint, { explicit, dtype }: SaveAdapterOptions): StreamedTensor[] {
  const { addedTokens: added } = spec
  if (added === 0) return []
  const nameOf = savedNames(family, spec)
  const tables = spec.weights.filter(
    ({ role }) => role === 'embedding' || (role === 'unembedding' && !explicit && !spec.tiedEmbedding),
  )
  return tables.map((source) => ({
    name: WRAPPER + nameOf(source),
    shape: [spec.vocabSize + added, spec.hiddenSize],
    data: () => grownTable(source, added),
    ...(dtype === 'bf16' ? { dtype: 'bf16' as const } : {}),
  }))
}
