/** Tiny checkpoints with heads of any form, and hidden states and layers to compute by hand what a head must give. */
import { join } from 'node:path'
import * as assert from 'uvu/assert'
import { openCheckpoint } from '../../lib/checkpoint/checkpoint.js'
import { type NamedTensor, writeCheckpoint } from '../../lib/checkpoint/write.js'
import { openToScore } from '../../lib/models/open.js'
import type { Model } from '../../lib/native/handles.js'
import { seededRandom } from '../fixtures/random.js'
import { type TinyCheckpointOptions, tinyCheckpoint } from '../fixtures/tiny-checkpoint.js'
import { temporaryFolder } from './tmp.js'

export const WIDTH = 32

const root = temporaryFolder()
const random = seededRandom(41)
let count = 0

export function tensor(name: string, ...shape: number[]): NamedTensor {
  const size = shape.reduce((product, one) => product * one, 1)
  return { name, shape, data: Float32Array.from({ length: size }, () => random.normal()) }
}

/** A language model with further tensors. @returns its folder */
export async function withTensors(tensors: NamedTensor[], options: TinyCheckpointOptions = {}): Promise<string> {
  const content = tinyCheckpoint(options)
  const folder = join(root, `model-${count++}`)
  await writeCheckpoint(folder, { ...content, tensors: [...content.tensors, ...tensors] })
  return folder
}

export async function openHidden(folder: string): Promise<Model> {
  const choice = { device: 'cpu', dtype: 'f32' } as const
  return (await openToScore(await openCheckpoint(folder), { use: 'hidden', who: 'a test' }, choice)).model
}

/** The hidden state at a token, of a sequence that ends there. */
export async function hiddenAt(engine: Model, ids: Int32Array, at: number): Promise<Float64Array> {
  const tokens = ids.slice(0, at + 1)
  const segments = Int32Array.of(0, tokens.length, -1)
  return (await engine.score({ tokens, segments, scored: Int32Array.of(0), readout: 'hidden_last' })).values
}

export function layer({ data, shape }: NamedTensor, bias: NamedTensor | undefined, input: ArrayLike<number>): number[] {
  const width = shape.at(-1)!
  return Array.from({ length: data.length / width }, (_, row) => {
    let sum = bias?.data[row] ?? 0
    for (let i = 0; i < width; i++) sum += data[row * width + i]! * input[i]!
    return sum
  })
}

export function near(actual: readonly number[], expected: readonly number[]): void {
  assert.is(actual.length, expected.length)
  expected.forEach((value, i) => {
    assert.ok(Math.abs(actual[i]! - value) < 1e-4 * Math.max(1, Math.abs(value)), `${actual[i]} is not ${value}`)
  })
}

export const relu = (values: number[]) => values.map((value) => Math.max(0, value))

export function softmax(values: number[]): number[] {
  const exponentials = values.map(Math.exp)
  const sum = exponentials.reduce((total, value) => total + value, 0)
  return exponentials.map((value) => value / sum)
}

/** ArmoRM's: two layers of a gate, a transform of the labels, a scale, and the labels themselves. */
export function gatedTensors(labels: number): NamedTensor[] {
  return [
    tensor('regression_layer.weight', labels, WIDTH),
    tensor('gating.layers.0.weight', 8, WIDTH),
    tensor('gating.layers.0.bias', 8),
    tensor('gating.layers.1.weight', labels, 8),
    tensor('gating.layers.1.bias', labels),
    { name: 'gating.logit_scale', shape: [1], data: Float32Array.of(1.5) },
    tensor('reward_transform_matrix', labels, labels),
  ]
}
