/**
 * A head made ready to score with: its weights read, and what of its labels is the reward. Rows go to the engine, which multiplies them with
 * hidden states itself; a head of several layers or with a gate is computed here, in double precision, from hidden states.
 */
import { createHash } from 'node:crypto'
import { checkNumber, invalidArgument, isPlainObject, outOfRange } from '../core/arguments.js'
import { ImplexError } from '../core/errors.js'
import { quoted } from '../core/files.js'
import { activate, linear, type Numbers, outputOf, softmax } from './head-arithmetic.js'
import { type HeadGate, type HeadLayer, type HeadOutput, type HeadReadAt, type HeadSource, isOneRow } from './heads.js'
import type { TensorEntry } from './safetensors.js'
import type { ModelSpec } from '../native/spec.js'
import { readWeight, storedDtype } from './weights.js'

/** Labels are named by number or, where the config names them, by name. */
export type LabelWeights = readonly number[] | Readonly<Record<string, number>>

/** Which of several labels is the reward. */
export interface LabelChoice {
  label?: number | string
  labelWeights?: LabelWeights
  /** Read at the ends of steps: a head of two labels is the probability of the second one unless something else is said. */
  steps?: boolean
}

export interface RewardHead {
  /** [labels, hiddenSize], for the engine. Absent where it reads the checkpoint's own row, and with `ofHidden`. */
  weight?: Float32Array
  /** Gives the labels for a hidden state after the final norm, if the engine cannot. */
  ofHidden?: (hidden: Numbers) => Float64Array
  /** Whether the mean of labels over tokens is the labels of the mean. */
  linear: boolean
  /** How many the head has, and their names where the config has them. */
  labels: number
  labelNames: string[]
  /** The labels' values from what the engine or `ofHidden` gives. */
  values(raw: Numbers): Float64Array
  /** The reward of the labels' values; `gate` is what `ofGate` gave. */
  reward(values: Float64Array, gate?: Float64Array): number
  /** Gives the labels' weights for the hidden state where the prompt's last turn ends. */
  ofGate?: (hidden: Numbers) => Float64Array
  /** Where the head's form says that it is read. */
  readAt?: HeadReadAt
  /** SHA-256 of the numbers and the choice; absent for the checkpoint's own row without a bias. */
  digest?: string
}

/** A row that is given as numbers. */
export function plainHead(weight: Float32Array, change: (value: number) => number = (value) => value): RewardHead {
  const values = (raw: Numbers) => Float64Array.of(change(raw[0]!))
  return { weight, linear: true, labels: 1, labelNames: [], values, reward: ([value]) => value! }
}

/** What of a checkpoint makes its logits. */
export interface LogitSource {
  path: string
  spec: Pick<ModelSpec, 'weights' | 'tiedEmbedding' | 'hiddenSize'> & { logitScale?: number; logitSoftCap?: number }
}

/**
 * The head that is the logit of a token: its row of the unembedding.
 * @throws RangeError for a token without a row; ImplexError ERR_TENSOR_MISSING without an unembedding, and as readWeight
 */
export async function logitHead({ path, spec }: LogitSource, token: number): Promise<RewardHead> {
  const role = spec.tiedEmbedding ? 'embedding' : 'unembedding'
  const source = spec.weights.find((weight) => weight.role === role)
  if (source === undefined) {
    const message = `${path}: a logit as reward needs a language model's unembedding (lm_head), and this checkpoint has none`
    throw new ImplexError('ERR_TENSOR_MISSING', message, { path })
  }
  const rows = source.shape[0]!
  if (token >= rows) throw outOfRange('headSpec', `a logit of a token from 0 to ${rows - 1}`, token)
  const bytes = source.bytes / rows
  const row = await readWeight({ ...source, offset: source.offset + token * bytes, bytes })
  if (!row.every(Number.isFinite)) {
    const message = `${source.file}: tensor ${quoted(source.tensor)} has an element in row ${token} that is not finite`
    throw new ImplexError('ERR_WEIGHT_NOT_FINITE', message, { path: source.file })
  }
  const { logitScale: scale = 1, logitSoftCap: cap = 0 } = spec
  const logit = (value: number) => (cap === 0 ? scale * value : cap * Math.tanh((scale * value) / cap))
  return { ...plainHead(row, logit), linear: cap === 0, readAt: 'last', digest: digestOf([row], { logit: token }) }
}

/**
 * @param own whether the head is the checkpoint's own, whose row the engine can read
 * @throws RangeError, TypeError for labels that the head does not have
 * @throws ImplexError ERR_TENSOR_SHAPE for several labels and no choice; ERR_WEIGHT_NOT_FINITE, ERR_TENSOR_DTYPE, ERR_IO
 */
export async function readRewardHead(head: HeadSource, choice: LabelChoice, own: boolean): Promise<RewardHead> {
  const { output, weights } = chooseLabels(head, choice)
  const layers = await Promise.all(head.layers.map(readLayer))
  const last = layers.at(-1) as Layer
  const inner = layers.slice(0, -1)
  const gate = weights === undefined && head.gate !== undefined ? await readGate(head.gate) : undefined
  const inHidden = inner.length > 0 || head.gate !== undefined
  const engines = own && isOneRow(head)
  const numbers = [...layers, ...(gate?.layers ?? [])].flatMap(({ weight, bias }) => [weight, bias])
  const plain = engines && last.bias.every((value) => value === 0) && output === 'none'
  const activation = head.form.activation ?? 'relu'
  const ofHidden = (hidden: Numbers) =>
    linear(
      inner.reduce<Numbers>((input, layer) => activate(linear(input, layer), activation), hidden),
      last,
    )
  return {
    linear: output === 'none',
    labels: head.outputs,
    labelNames: head.labels,
    readAt: head.readAt,
    ...(inHidden ? { ofHidden } : engines ? {} : { weight: last.weight }),
    values: (raw) =>
      outputOf(inHidden ? Float64Array.from(raw) : Float64Array.from(raw, (one, i) => one + last.bias[i]!), output),
    reward: (values, gated) => weighted(values, weights ?? gated!),
    ...(gate && { ofGate: gate.weightsOf }),
    ...(plain ? {} : { digest: digestOf([...numbers, ...(gate?.numbers ?? [])], { output, weights, activation }) }),
  }
}

interface Layer {
  weight: Float32Array
  bias: Float32Array
}

async function readLayer({ weight, bias, outputs }: HeadLayer): Promise<Layer> {
  return {
    weight: await readFinite(weight),
    bias: bias === undefined ? new Float32Array(outputs) : await readFinite(bias),
  }
}

async function readGate({ layers, temperature, scale, transform }: HeadGate) {
  const read = await Promise.all(layers.map(readLayer))
  const last = read.at(-1) as Layer
  const labels = last.bias.length
  const factor = scale === undefined ? 1 : (await readFinite(scale))[0]!
  const matrix = transform === undefined ? undefined : await readFinite(transform)
  /** The transform changes the labels, values · matrix; it may as well change what they are weighed with, matrix · weights. */
  const weightsOf = (hidden: Numbers) => {
    const inner = read.slice(0, -1).reduce<Numbers>((input, layer) => activate(linear(input, layer), 'relu'), hidden)
    const shares = softmax(linear(inner, last).map((value) => value / temperature)).map((share) => share * factor)
    return matrix === undefined ? shares : linear(shares, { weight: matrix, bias: new Float32Array(labels) })
  }
  return { layers: read, weightsOf, numbers: [Float64Array.of(temperature, factor), ...(matrix ? [matrix] : [])] }
}

function weighted(values: Float64Array, weights: Float64Array): number {
  let sum = 0
  // A label without weight counts for nothing, whatever it is.
  for (const [i, weight] of weights.entries()) if (weight !== 0) sum += weight * values[i]!
  return sum
}

/** `weights` are undefined where a gate gives them. */
function chooseLabels(
  head: HeadSource,
  { label, labelWeights, steps = false }: LabelChoice,
): { output: HeadOutput; weights?: Float64Array } {
  const { outputs, form, gate } = head
  const probability = steps && outputs === 2
  const output = form.output ?? (probability ? 'softmax' : 'none')
  if (labelWeights !== undefined) return { output, weights: weightsOf(head, labelWeights) }
  if (label === undefined && gate !== undefined) return { output }
  const chosen = label === undefined && probability ? 1 : chooseLabel(head, label)
  return { output, weights: Float64Array.from({ length: outputs }, (_, i) => (i === chosen ? 1 : 0)) }
}

function weightsOf(head: HeadSource, given: LabelWeights): Float64Array {
  const { outputs } = head
  if (Array.isArray(given)) {
    if (given.length !== outputs)
      throw outOfRange('labelWeights', `${outputs} numbers, one for each label${namesOf(head)}`, given.length)
    for (const [i, weight] of given.entries()) checkNumber(`labelWeights[${i}]`, weight)
    return Float64Array.from(given)
  }
  if (!isPlainObject(given)) throw invalidArgument('labelWeights', 'a list of numbers or an object of them', given)
  const weights = new Float64Array(outputs)
  for (const [name, weight] of Object.entries(given)) {
    checkNumber(`labelWeights.${name}`, weight)
    const named = head.labels.indexOf(name)
    const index = named < 0 && /^\d+$/.test(name) ? Number(name) : named
    if (index < 0 || index >= outputs)
      throw outOfRange('labelWeights', `of labels from 0 to ${outputs - 1}${namesOf(head)}`, name)
    weights[index] = weight
  }
  return weights
}

function namesOf({ labels }: HeadSource): string {
  return labels.length === 0 ? '' : ` (${labels.map(quoted).join(', ')})`
}

function chooseLabel({ outputs, labels, layers }: HeadSource, label: number | string | undefined): number {
  const index = typeof label === 'string' ? labels.indexOf(label) : label
  if (index !== undefined) {
    if (index >= 0 && index < outputs) return index
    const known = labels.length === 0 ? '' : `, or one of ${labels.map(quoted).join(', ')}`
    throw outOfRange('label', outputs === 1 ? '0: the head has one label' : `from 0 to ${outputs - 1}${known}`, label)
  }
  if (outputs === 1) return 0
  const { file, name, shape } = (layers.at(-1) as HeadLayer).weight
  const names = labels.length === 0 ? '' : `: ${labels.map((text, i) => `${i} is ${quoted(text)}`).join(', ')}`
  throw new ImplexError(
    'ERR_TENSOR_SHAPE',
    `${file}: tensor ${quoted(name)} has shape [${shape.join(', ')}], a head of ${outputs} labels${names}; a reward is one of them: choose it ` +
      'with --label N (option "label"), or weigh them with --label-weights (option "labelWeights")',
    { path: file },
  )
}

function digestOf(parts: readonly (Float32Array | Float64Array)[], choice: object): string {
  const hash = createHash('sha256')
  for (const { buffer, byteOffset, byteLength } of parts) hash.update(new Uint8Array(buffer, byteOffset, byteLength))
  return hash.update(JSON.stringify(choice)).digest('hex')
}

/** @throws ImplexError ERR_WEIGHT_NOT_FINITE naming the element */
export async function readFinite(entry: TensorEntry): Promise<Float32Array> {
  const values = await readWeight({ ...entry, dtype: storedDtype(entry), tensor: entry.name })
  const bad = values.findIndex((value) => !Number.isFinite(value))
  if (bad < 0) return values
  const message = `${entry.file}: tensor ${quoted(entry.name)} has ${values[bad]} at element ${bad}`
  throw new ImplexError('ERR_WEIGHT_NOT_FINITE', message, { path: entry.file })
}
