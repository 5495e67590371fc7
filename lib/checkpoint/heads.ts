/**
 * Heads of explicit reward models as trainers save them: under which names their tensors lie, and where training read them. A reward is
 * the last layer's output; before each further layer comes a ReLU. A new form is one entry in HEAD_FORMS; nothing else knows its name.
 */
import { quoted } from '../core/files.js'
import { ImplexError } from '../core/errors.js'
import type { Config } from './config.js'
import type { TensorEntry } from './safetensors.js'

export interface HeadForm {
  /** Names of the layers, first to last: `NAME.weight` [outputs, inputs], and where there is one `NAME.bias` [outputs]. */
  layers: readonly string[]
  /** The token whose hidden state training gave the head: the last one, or the last one that is not `pad_token_id`. */
  readAt: 'last' | 'last-unpadded'
  /** Who saves such a head, for the documents. */
  savedBy: string
}

export const HEAD_FORMS: readonly HeadForm[] = [
  { layers: ['score'], readAt: 'last-unpadded', savedBy: 'transformers and TRL (`…ForSequenceClassification`)' },
  { layers: ['score.0', 'score.2'], readAt: 'last-unpadded', savedBy: 'Qwen2.5-Math-RM, WorldPM, INF-ORM' },
  { layers: ['v_head.summary'], readAt: 'last', savedBy: "TRL's value heads, LLaMA-Factory" },
  { layers: ['v_head'], readAt: 'last', savedBy: 'InternLM2-style models' },
  { layers: ['value_head'], readAt: 'last', savedBy: 'OpenRLHF' },
  { layers: ['reward_head'], readAt: 'last', savedBy: 'various' },
  { layers: ['classifier'], readAt: 'last-unpadded', savedBy: 'various' },
]

/** A head may lie in this file beside the weights. */
export const HEAD_FILE = 'value_head.safetensors'

export interface HeadLayer {
  weight: TensorEntry
  bias?: TensorEntry
  outputs: number
  inputs: number
}

/** A head that was found, not read. */
export interface HeadSource {
  form: HeadForm
  layers: HeadLayer[]
  /** How many the last layer has: labels to choose from if there are several. */
  outputs: number
  /** Their names, where the config has them. */
  labels: string[]
}

/**
 * All heads among `tensors`: more than one is for the user to choose from.
 * @param config of the same checkpoint; its `value_head_prefix` names the head
 * @throws ImplexError ERR_TENSOR_SHAPE naming the tensor
 */
export function findHeads(
  tensors: ReadonlyMap<string, TensorEntry>,
  config: Config | undefined,
  hiddenSize: number,
): HeadSource[] {
  const named = config?.has('value_head_prefix') ? config.string('value_head_prefix') : undefined
  const found = HEAD_FORMS.filter(({ layers }) => layers.every((name) => tensors.has(`${name}.weight`)))
  const forms: HeadForm[] =
    named !== undefined && tensors.has(`${named}.weight`)
      ? [{ layers: [named], readAt: 'last', savedBy: 'OpenRLHF' }]
      : found
  return forms.map((form) => {
    const layers: HeadLayer[] = []
    let inputs = hiddenSize
    for (const name of form.layers) {
      const layer = readLayer(tensors, name, inputs)
      layers.push(layer)
      inputs = layer.outputs
    }
    return { form, layers, outputs: inputs, labels: labelNames(config, inputs) }
  })
}

function readLayer(tensors: ReadonlyMap<string, TensorEntry>, name: string, inputs: number): HeadLayer {
  const weight = tensors.get(`${name}.weight`) as TensorEntry
  const bias = tensors.get(`${name}.bias`)
  // One row may be stored as a vector.
  const [outputs, width] = weight.shape.length === 1 ? [1, weight.shape[0]] : weight.shape
  if (weight.shape.length > 2 || outputs === undefined || outputs < 1 || width !== inputs) {
    throw wrongShape(weight, `[${weight.shape.length === 2 ? outputs : 1}, ${inputs}]`)
  }
  if (bias !== undefined && (bias.shape.length !== 1 || bias.shape[0] !== outputs)) {
    throw wrongShape(bias, `[${outputs}]`)
  }
  return { weight, ...(bias === undefined ? {} : { bias }), outputs, inputs }
}

function wrongShape(entry: TensorEntry, needed: string): ImplexError {
  const found = `[${entry.shape.slice(0, 8).join(', ')}]`
  const message = `${entry.file}: tensor ${quoted(entry.name)} has shape ${found}, but the model needs ${needed}`
  return new ImplexError('ERR_TENSOR_SHAPE', message, { path: entry.file })
}

function labelNames(config: Config | undefined, outputs: number): string[] {
  const names = config?.object('id2label')
  if (names === undefined || outputs === 1) return []
  return Array.from({ length: outputs }, (_, i) => String(names.get(String(i)) ?? i))
}

/** All tensors of a head. */
export function headTensors({ layers }: HeadSource): TensorEntry[] {
  return layers.flatMap(({ weight, bias }) => (bias === undefined ? [weight] : [weight, bias]))
}

/** Whether the head is one row, which the engine reads and trains itself. A bias may come on top. */
export function isOneRow({ layers, outputs }: HeadSource): boolean {
  return layers.length === 1 && outputs === 1
}

/**
 * The head, where there is one.
 * @param path of the file or folder, for messages
 * @throws ImplexError ERR_TENSOR_MISSING for several, naming them
 */
export function onlyHead(heads: readonly HeadSource[], path: string): HeadSource | undefined {
  if (heads.length <= 1) return heads[0]
  const names = heads.map((head) => quoted((head.layers.at(-1) as HeadLayer).weight.name)).join(', ')
  const message = `${path}: several heads (${names}), and nothing says which the reward is; put the wanted one into a file of its own and give that`
  throw new ImplexError('ERR_TENSOR_MISSING', message, { path })
}

/**
 * The head that training can start from: one row without a bias, as it is saved again.
 * @throws ImplexError ERR_TENSOR_SHAPE for another one
 */
export function checkPlain(head: HeadSource): void {
  if (isOneRow(head) && head.layers[0]?.bias === undefined) return
  const { weight, bias } = head.layers[0] as HeadLayer
  const what =
    head.layers.length > 1 ? `${head.layers.length} layers` : head.outputs > 1 ? `${head.outputs} labels` : 'a bias'
  const { file, name } = head.layers.length === 1 && head.outputs === 1 && bias !== undefined ? bias : weight
  const message = `${file}: tensor ${quoted(name)}: a head of ${what} can be scored with, not trained; it takes one row without a bias`
  throw new ImplexError('ERR_TENSOR_SHAPE', message, { path: file })
}
