/**
 * A head made ready to score with: the label chosen, the weights read. One row goes to the engine, which multiplies it with hidden states
 * itself; a head of several layers is computed here, in double precision, from the hidden state of the last token.
 */
import { createHash } from 'node:crypto'
import { outOfRange } from '../core/arguments.js'
import { ImplexError } from '../core/errors.js'
import { quoted } from '../core/files.js'
import { type HeadLayer, type HeadSource, isOneRow } from './heads.js'
import type { TensorEntry } from './safetensors.js'
import { readWeight, storedDtype } from './weights.js'

export interface RewardHead {
  /** [hiddenSize], for the engine. Absent where it reads the checkpoint's own row, and of a head of several layers. */
  weight?: Float32Array
  /** Comes on top of what the engine gives. */
  bias: number
  /** Gives the reward for a hidden state after the final norm, if the head has several layers. */
  ofHidden?: (hidden: ArrayLike<number>) => number
  /** SHA-256 of the numbers; absent for the checkpoint's own row without a bias. */
  digest?: string
}

/**
 * @param label index or name, for a head of several
 * @param own whether the head is the checkpoint's own, whose row the engine can read
 * @throws RangeError for a label that the head does not have
 * @throws ImplexError ERR_TENSOR_SHAPE for several labels and no choice; ERR_WEIGHT_NOT_FINITE, ERR_TENSOR_DTYPE, ERR_IO
 */
export async function readRewardHead(
  head: HeadSource,
  label: number | string | undefined,
  own: boolean,
): Promise<RewardHead> {
  const row = chooseLabel(head, label)
  const last = head.layers.at(-1) as HeadLayer
  const bias = last.bias === undefined ? 0 : ((await readFinite(last.bias))[row] as number)
  if (own && isOneRow(head)) return bias === 0 ? { bias } : { bias, digest: digestOf([Float64Array.of(bias)]) }
  const matrix = await readFinite(last.weight)
  const weight = matrix.slice(row * last.inputs, (row + 1) * last.inputs)
  const ends = bias === 0 ? [weight] : [weight, Float64Array.of(bias)]
  if (head.layers.length === 1) return { weight, bias, digest: digestOf(ends) }
  const inner: Layer[] = []
  for (const layer of head.layers.slice(0, -1)) {
    const biases = layer.bias === undefined ? new Float32Array(layer.outputs) : await readFinite(layer.bias)
    inner.push({ weight: await readFinite(layer.weight), bias: biases })
  }
  const digest = digestOf([...inner.flatMap((layer) => [layer.weight, layer.bias]), ...ends])
  return { bias: 0, ofHidden: (hidden) => dot(weight, 0, inner.reduce(activate, hidden)) + bias, digest }
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
      'with --label N (option "label")',
    { path: file },
  )
}

interface Layer {
  weight: Float32Array
  bias: Float32Array
}

/** ReLU of a linear layer. */
function activate(input: ArrayLike<number>, { weight, bias }: Layer): Float64Array {
  return Float64Array.from(bias, (start, i) => Math.max(0, dot(weight, i * input.length, input) + start))
}

function dot(weight: Float32Array, at: number, input: ArrayLike<number>): number {
  let sum = 0
  for (let i = 0; i < input.length; i++) sum += (weight[at + i] as number) * (input[i] as number)
  return sum
}

function digestOf(parts: readonly (Float32Array | Float64Array)[]): string {
  const hash = createHash('sha256')
  for (const { buffer, byteOffset, byteLength } of parts) hash.update(new Uint8Array(buffer, byteOffset, byteLength))
  return hash.digest('hex')
}

/** @throws ImplexError ERR_WEIGHT_NOT_FINITE naming the element */
export async function readFinite(entry: TensorEntry): Promise<Float32Array> {
  const values = await readWeight({ ...entry, dtype: storedDtype(entry), tensor: entry.name })
  const bad = values.findIndex((value) => !Number.isFinite(value))
  if (bad < 0) return values
  const message = `${entry.file}: tensor ${quoted(entry.name)} has ${values[bad]} at element ${bad}`
  throw new ImplexError('ERR_WEIGHT_NOT_FINITE', message, { path: entry.file })
}
