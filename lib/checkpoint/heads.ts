/**
 * Heads of explicit reward models as they are published: under which names their tensors lie, what comes between their layers, and where
 * training read them. A new form is one entry in HEAD_FORMS; nothing else knows its name. head-spec.ts has heads that a user describes.
 */
import { ImplexError } from '../core/errors.js'
import { quoted } from '../core/files.js'
import type { Config } from './config.js'
import type { TensorEntry } from './safetensors.js'

/** What comes between two layers, as PyTorch computes it; `gelu_tanh` is the approximation. */
export const HEAD_ACTIVATIONS = ['relu', 'gelu', 'gelu_tanh', 'silu', 'tanh', 'none'] as const
export type HeadActivation = (typeof HEAD_ACTIVATIONS)[number]

/** What becomes of the last layer's outputs: nothing, or probabilities. */
export const HEAD_OUTPUTS = ['none', 'sigmoid', 'softmax'] as const
export type HeadOutput = (typeof HEAD_OUTPUTS)[number]

/**
 * The token whose hidden state training gave the head: the last one, the last one that is not `pad_token_id`, or a token that is put at
 * the end to be read at: its id, or the tokenizer's `cls_token`.
 */
export type HeadReadAt = 'last' | 'last-unpadded' | { append: number | 'cls_token' }

export interface HeadForm {
  /** Names of the layers, first to last: `NAME.weight` [outputs, inputs], and where there is one `NAME.bias` [outputs]. */
  layers: readonly string[]
  /** Defaults to ReLU, which all published heads of several layers have. */
  activation?: HeadActivation
  /** Defaults to 'none'. */
  output?: HeadOutput
  /** `reward_token_id`: the token that the config has under this key is put at the end; without it, the last token. */
  readAt: 'last' | 'last-unpadded' | 'cls_token' | 'reward_token_id'
  /**
   * Beside the layers there may be a gate, `gating.layers.0` and on, with ReLU between them, read where the prompt's last turn ends: softmax of
   * its outputs over `gating_temperature` weighs the labels, which `reward_transform_matrix` has changed.
   */
  gated?: boolean
  /** Names in the config's `architectures`: among several heads whose tensors are there, the one that this fits is the head. */
  architectures?: RegExp
  /** Whether the form needs one of those names, for its tensors are those of another form. */
  named?: boolean
  /** Who publishes or saves such a head, for the documents. */
  savedBy: string
}

export const HEAD_FORMS: readonly HeadForm[] = [
  {
    layers: ['score'],
    readAt: 'last-unpadded',
    architectures: /For(Sequence|Token)Classification$/,
    savedBy:
      'transformers and TRL (`…ForSequenceClassification`, `…ForTokenClassification`): Skywork-Reward, FsfairX, most others',
  },
  {
    layers: ['score.0', 'score.2'],
    readAt: 'last-unpadded',
    architectures: /^(Qwen2For(Process)?RewardModel|INFORMForSequenceClassification)$/,
    savedBy: 'Qwen2.5-Math-RM, Qwen2.5-Math-PRM, WorldPM, INF-ORM',
  },
  {
    layers: ['regression_layer'],
    gated: true,
    readAt: 'last-unpadded',
    architectures: /RewardModelWithGating$/,
    savedBy: 'ArmoRM',
  },
  { layers: ['v_head.summary'], readAt: 'last', savedBy: "TRL's value heads, LLaMA-Factory, Skywork-o1-Open-PRM" },
  {
    layers: ['v_head'],
    readAt: 'cls_token',
    architectures: /^(Athene|CustomAutoModel)ForSequenceClassification$/,
    named: true,
    savedBy: 'Athene-RM',
  },
  {
    layers: ['v_head'],
    readAt: 'reward_token_id',
    architectures: /^InternLM2ForRewardModel$/,
    savedBy: 'InternLM2-style models, Starling-RM',
  },
  { layers: ['value_head'], readAt: 'last', savedBy: 'OpenRLHF' },
  { layers: ['reward_head'], readAt: 'last', savedBy: 'various' },
  {
    layers: ['regression_head'],
    readAt: 'last',
    architectures: /^(UltraRM|EurusRewardModel|LlamaRewardModel)$/,
    savedBy: 'UltraRM, Eurus-RM',
  },
  { layers: ['classifier'], readAt: 'last-unpadded', savedBy: 'various' },
]

/** A head may lie in this file beside the weights. */
export const HEAD_FILE = 'value_head.safetensors'

const GATE = 'gating'
const TRANSFORM = 'reward_transform_matrix'
const GATE_SCALE = `${GATE}.logit_scale`
/** What ArmoRM's code takes for a config that does not say. */
const GATE_TEMPERATURE = 10

export interface HeadLayer {
  weight: TensorEntry
  bias?: TensorEntry
  outputs: number
  inputs: number
}

/** What weighs the labels of a gated head. */
export interface HeadGate {
  layers: HeadLayer[]
  temperature: number
  /** One number, by which the weights are multiplied. */
  scale?: TensorEntry
  /** [labels, labels] */
  transform?: TensorEntry
}

/** A head that was found, not read. */
export interface HeadSource {
  form: HeadForm
  layers: HeadLayer[]
  /** How many the last layer has: labels to choose from if there are several. */
  outputs: number
  /** Their names, where the config has them. */
  labels: string[]
  /** The form's place, with the token that the config names. */
  readAt: HeadReadAt
  gate?: HeadGate
}

/**
 * All heads among `tensors`: more than one is for the user to choose from.
 * @param config of the same checkpoint; its `architectures` and `value_head_prefix` name the head
 * @throws ImplexError ERR_TENSOR_SHAPE naming the tensor
 */
export function findHeads(
  tensors: ReadonlyMap<string, TensorEntry>,
  config: Config | undefined,
  hiddenSize: number,
): HeadSource[] {
  const prefix = config?.has('value_head_prefix') ? config.string('value_head_prefix') : undefined
  if (prefix !== undefined && tensors.has(`${prefix}.weight`)) {
    return [readForm({ layers: [prefix], readAt: 'last', savedBy: 'OpenRLHF' }, tensors, config, hiddenSize)]
  }
  const names = config?.strings('architectures') ?? []
  const fits = ({ architectures }: HeadForm) => names.some((name) => architectures?.test(name))
  const found = HEAD_FORMS.filter(
    (form) => form.layers.every((name) => tensors.has(`${name}.weight`)) && (form.named !== true || fits(form)),
  )
  const fitting = found.filter(fits)
  const forms = fitting.length > 0 ? fitting.slice(0, 1) : found
  return forms.map((form) => readForm(form, tensors, config, hiddenSize))
}

/**
 * The head of this form, whose layers must be there.
 * @throws ImplexError ERR_TENSOR_SHAPE, ERR_TENSOR_MISSING naming the tensor
 */
export function readForm(
  form: HeadForm,
  tensors: ReadonlyMap<string, TensorEntry>,
  config: Config | undefined,
  hiddenSize: number,
): HeadSource {
  const layers = readLayers(tensors, form.layers, hiddenSize)
  const { outputs } = layers.at(-1) as HeadLayer
  const head = { form, layers, outputs, labels: labelNames(config, outputs), readAt: placeOf(form, config) }
  const gate = form.gated ? readGate(tensors, config, hiddenSize, outputs) : undefined
  return gate === undefined ? head : { ...head, gate }
}

function placeOf({ readAt }: HeadForm, config: Config | undefined): HeadReadAt {
  if (readAt === 'cls_token') return { append: readAt }
  if (readAt !== 'reward_token_id') return readAt
  if (config === undefined || !config.has(readAt)) return 'last'
  return { append: config.integer(readAt, 0, 1 << 24) }
}

function readLayers(
  tensors: ReadonlyMap<string, TensorEntry>,
  names: readonly string[],
  hiddenSize: number,
): HeadLayer[] {
  let inputs = hiddenSize
  return names.map((name) => {
    const layer = readLayer(tensors, name, inputs)
    inputs = layer.outputs
    return layer
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

function readGate(
  tensors: ReadonlyMap<string, TensorEntry>,
  config: Config | undefined,
  hiddenSize: number,
  labels: number,
): HeadGate | undefined {
  const names: string[] = []
  while (tensors.has(`${GATE}.layers.${names.length}.weight`)) names.push(`${GATE}.layers.${names.length}`)
  if (names.length === 0) return undefined
  const layers = readLayers(tensors, names, hiddenSize)
  const last = layers.at(-1) as HeadLayer
  if (last.outputs !== labels) throw wrongShape(last.weight, `[${labels}, ${last.inputs}], a row for each label`)
  const scale = tensors.get(GATE_SCALE)
  if (scale !== undefined && scale.shape.join() !== '1') throw wrongShape(scale, '[1]')
  const transform = tensors.get(TRANSFORM)
  if (transform !== undefined && transform.shape.join() !== `${labels},${labels}`)
    throw wrongShape(transform, `[${labels}, ${labels}]`)
  const temperature = config?.positive('gating_temperature', 1e6, GATE_TEMPERATURE) ?? GATE_TEMPERATURE
  return { layers, temperature, ...(scale && { scale }), ...(transform && { transform }) }
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
export function headTensors({ layers, gate }: HeadSource): TensorEntry[] {
  const all = [...layers, ...(gate?.layers ?? [])]
  const entries = all.flatMap(({ weight, bias }) => (bias === undefined ? [weight] : [weight, bias]))
  return [...entries, ...[gate?.scale, gate?.transform].filter((entry) => entry !== undefined)]
}

/** Whether the head is one row, which the engine reads and trains itself. A bias may come on top. */
export function isOneRow({ layers, outputs, gate }: HeadSource): boolean {
  return layers.length === 1 && outputs === 1 && gate === undefined
}

/**
 * The head, where there is one.
 * @param path of the file or folder, for messages
 * @throws ImplexError ERR_TENSOR_MISSING for several, naming them
 */
export function onlyHead(heads: readonly HeadSource[], path: string): HeadSource | undefined {
  if (heads.length <= 1) return heads[0]
  const names = heads.map((head) => quoted((head.layers.at(-1) as HeadLayer).weight.name)).join(', ')
  const message = `${path}: several heads (${names}), and nothing says which the reward is; name the layers of the wanted one with --head-spec`
  throw new ImplexError('ERR_TENSOR_MISSING', message, { path })
}

/**
 * The head that training can start from: one row without a bias, as it is saved again.
 * @throws ImplexError ERR_TENSOR_SHAPE for another one
 */
export function checkPlain(head: HeadSource): void {
  const plain = isOneRow(head) && head.layers[0]?.bias === undefined
  if (plain && typeof head.readAt === 'string') return
  const { weight, bias } = head.layers[0] as HeadLayer
  const what = plain ? 'an appended token' : kindOf(head)
  const { file, name } = isOneRow(head) && bias !== undefined ? bias : weight
  const message = `${file}: tensor ${quoted(name)}: a head of ${what} can be scored with, not trained; it takes one row without a bias`
  throw new ImplexError('ERR_TENSOR_SHAPE', message, { path: file })
}

function kindOf({ layers, outputs }: HeadSource): string {
  if (layers.length > 1) return `${layers.length} layers`
  return outputs > 1 ? `${outputs} labels` : 'a bias'
}
