/**
 * Weights with an adapter merged into them. Sums and products are those of peft's merge_and_unload on the CPU, to the bit where W is f32:
 * each element of B A is a chain of fused multiply-adds over the rank, then the scale, then W. What is returned is f32, to be rounded once.
 */
import { setImmediate } from 'node:timers/promises'
import type { RowSelection, WeightSource } from '../../native/spec.js'
import { readFinite } from '../reward-head.js'
import { readWeight } from '../weights.js'
import type { Adapter, LowRank } from './types.js'

/** Multiplications between two turns of the event loop: a few milliseconds. */
const TURN = 1 << 21

/** Whether the adapter changes the numbers of a role beyond replacing its tensor. */
export function changes({ lowRank, biases, embedding }: Adapter, role: string): boolean {
  return role === embedding?.role || [...lowRank, ...biases].some((part) => part.role === role)
}

/**
 * The values of a role, row-major, the adapter merged into them.
 * @throws ImplexError ERR_WEIGHT_NOT_FINITE for the adapter's, ERR_SAFETENSORS_INVALID, ERR_IO
 */
export async function mergedValues(source: WeightSource, adapter: Adapter): Promise<Float32Array> {
  const values = await readRows(source)
  const { embedding } = adapter
  if (source.role === embedding?.role) await addTransposed(values, embedding)
  const part = adapter.lowRank.find(({ role }) => role === source.role)
  if (part !== undefined) await addLowRank(values, part)
  const bias = adapter.biases.find(({ role }) => role === source.role)
  if (bias !== undefined) {
    const added = await readAdapterRows(bias.bias)
    const scale = Math.fround(bias.scale)
    for (const [i, value] of added.entries()) values[i]! += Math.fround(value * scale)
  }
  return values
}

/** W + scale · B A, and for DoRA each row scaled to its magnitude. */
async function addLowRank(weight: Float32Array, { a, b, scale, magnitude }: LowRank): Promise<void> {
  const [rows, left, right] = [await readAdapterRows(b), await readAdapterRows(a), Math.fround(scale)]
  const [rank, inputs] = a.shape as [number, number]
  const lengths = magnitude === undefined ? undefined : await readAdapterRows(magnitude)
  const sum = new Float32Array(inputs)
  let since = 0
  for (let row = 0; row * inputs < weight.length; row++) {
    chain(sum, rows, row * rank, left, rank)
    const at = row * inputs
    if (lengths === undefined) for (let i = 0; i < inputs; i++) weight[at + i]! += Math.fround(sum[i]! * right)
    else rescale(weight.subarray(at, at + inputs), sum, right, lengths[row]!)
    since += inputs * rank
    if (since >= TURN) since = await turn()
  }
}

/** sum = Σ_k b[k] a[k], each step rounded to f32 once, as a fused multiply-add is. */
function chain(sum: Float32Array, b: Float32Array, at: number, a: Float32Array, rank: number): void {
  const { length } = sum
  sum.fill(0)
  for (let k = 0; k < rank; k++) {
    const factor = b[at + k]!
    for (let i = 0, j = k * length; i < length; i++, j++) sum[i] = factor * a[j]! + sum[i]!
  }
}

/** One row of DoRA: w = m (w + s d) / ‖w + s d‖. */
function rescale(row: Float32Array, delta: Float32Array, scale: number, magnitude: number): void {
  let squares = 0
  for (let i = 0; i < row.length; i++) {
    row[i]! += Math.fround(delta[i]! * scale)
    squares += row[i]! * row[i]!
  }
  const factor = Math.fround(magnitude / Math.fround(Math.sqrt(squares)))
  for (let i = 0; i < row.length; i++) row[i] = factor * row[i]!
}

/** The embedding [tokens, width] + scale · (B A)ᵀ. */
async function addTransposed(table: Float32Array, { a, b, scale }: Pick<LowRank, 'a' | 'b' | 'scale'>): Promise<void> {
  const [left, right, factor] = [await readAdapterRows(a), await readAdapterRows(b), Math.fround(scale)]
  const [rank, tokens] = a.shape as [number, number]
  const width = b.shape[0]!
  const sum = new Float32Array(width)
  let since = 0
  for (let token = 0; token < tokens; token++) {
    sum.fill(0)
    for (let k = 0; k < rank; k++) {
      const value = left[k * tokens + token]!
      for (let i = 0; i < width; i++) sum[i] = value * right[i * rank + k]! + sum[i]!
    }
    for (let i = 0; i < width; i++) table[token * width + i]! += Math.fround(sum[i]! * factor)
    since += width * rank
    if (since >= TURN) since = await turn()
  }
}

async function turn(): Promise<0> {
  await setImmediate()
  return 0
}

/** The rows of a source that are its own. */
export async function readRows(source: WeightSource): Promise<Float32Array> {
  return chosenRows(await readWeight(source), source)
}

async function readAdapterRows(source: WeightSource): Promise<Float32Array> {
  const { tensor, dtype, ...rest } = source
  const stored = { f32: 'F32', f16: 'F16', bf16: 'BF16' }[dtype]
  return chosenRows(await readFinite({ ...rest, name: tensor, dtype: stored }), source)
}

function chosenRows(values: Float32Array, { rows, shape }: WeightSource): Float32Array {
  if (rows === undefined) return values
  const columns = shape.length === 2 ? shape[1]! : 1
  const pieces = [...blocksOf(rows, shape[0]!)].map(([from, to]) => values.subarray(from * columns, to * columns))
  const chosen = new Float32Array(pieces.reduce((sum, { length }) => sum + length, 0))
  let at = 0
  for (const piece of pieces) {
    chosen.set(piece, at)
    at += piece.length
  }
  return chosen
}

/** Puts the rows of a source into the whole tensor. */
export function placeRows(whole: Float32Array, { rows, shape }: WeightSource, values: Float32Array, start = 0): void {
  const columns = shape.length === 2 ? shape[1]! : 1
  let at = 0
  for (const [from, to] of rows === undefined ? [[0, shape[0]!] as const] : blocksOf(rows, shape[0]!)) {
    whole.set(values.subarray(at, at + (to - from) * columns), start + from * columns)
    at += (to - from) * columns
  }
}

/** First and last row (not included) of each block. */
function* blocksOf({ start, block, stride }: RowSelection, rows: number): Generator<[number, number]> {
  for (let from = start; from < rows; from += stride) yield [from, Math.min(from + block, rows)]
}
