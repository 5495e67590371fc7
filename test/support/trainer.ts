/** Training options, batches and checkpoints-from-memory for the tests of the native trainer. */
import { Buffer } from 'node:buffer'
import { createHash } from 'node:crypto'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { ModelSpec } from '../../lib/native/spec.js'
import type { Trainer } from '../../lib/native/handles.js'
import type { NativeTrainBatch, NativeTrainOptions } from '../../lib/native/types.js'
import { seededRandom } from '../fixtures/random.js'
import { temporaryFolder } from './tmp.js'

type Change = Partial<Omit<NativeTrainOptions, 'optimizer' | 'frozen'>> & {
  optimizer?: Partial<NativeTrainOptions['optimizer']>
  frozen?: Partial<NativeTrainOptions['frozen']>
}

export const NOTHING_FROZEN = { embedding: false, unembedding: false, blocks: false, norms: false, head: false }

export function trainOptions(change: Change = {}): NativeTrainOptions {
  return {
    objective: 'explicit',
    pool: 'last',
    beta: 0.1,
    lengthNormalized: false,
    labelSmoothing: 0,
    centering: 0,
    recompute: false,
    ...((change.objective ?? 'explicit') === 'generative' ? { yesToken: 7, noToken: 8 } : {}),
    ...change,
    optimizer: {
      kind: 'adamw',
      beta1: 0.9,
      beta2: 0.999,
      epsilon: 1e-8,
      weightDecay: 0,
      weightDecayOn: 'all',
      momentum: 0,
      ...change.optimizer,
    },
    frozen: { ...NOTHING_FROZEN, ...change.frozen },
  }
}

/** A head that is neither zero nor constant. */
export function randomHead(size: number, seed = 5): Float32Array {
  const random = seededRandom(seed)
  return Float32Array.from({ length: size }, () => 0.3 * random.normal())
}

export interface TokenPair {
  prompt: number[]
  chosen: number[]
  rejected: number[]
}

/** Pairs of ragged lengths up to `longest` tokens a part. */
export function randomPairs(count: number, seed = 1, longest = 9): TokenPair[] {
  const random = seededRandom(seed)
  const tokens = () => Array.from({ length: 1 + random.below(longest) }, () => random.below(512))
  return Array.from({ length: count }, () => ({ prompt: tokens(), chosen: tokens(), rejected: tokens() }))
}

/** `shared`: one prompt segment for both responses; otherwise each has its own. */
export function pairBatch(
  pairs: TokenPair[],
  objective: NativeTrainOptions['objective'] = 'explicit',
  change: Partial<NativeTrainBatch> & { shared?: boolean } = {},
): NativeTrainBatch {
  const { shared = true, ...rest } = change
  const tokens: number[] = []
  const segments: number[] = []
  const scored: number[] = []
  const add = (ids: number[], parent = -1) => {
    segments.push(tokens.length, ids.length, parent)
    tokens.push(...ids)
    return segments.length / 3 - 1
  }
  for (const { prompt, chosen, rejected } of pairs) {
    if (objective === 'generative') {
      scored.push(add([...prompt, ...chosen]), add([...prompt, ...rejected]))
      continue
    }
    const parent = add(prompt)
    scored.push(add(chosen, parent))
    if (objective !== 'sft') scored.push(add(rejected, shared ? parent : add(prompt)))
  }
  return {
    tokens: Int32Array.from(tokens),
    segments: Int32Array.from(segments),
    scored: Int32Array.from(scored),
    scale: 1 / pairs.length,
    gradients: true,
    ...rest,
  }
}

export type Tensors = Map<string, Float32Array>

export async function gradientsOf(trainer: Trainer): Promise<Tensors> {
  return new Map(
    await Promise.all(trainer.parameters.map(async ({ role }) => [role, await trainer.gradient(role)] as const)),
  )
}

export async function valuesOf(trainer: Trainer): Promise<Tensors> {
  return new Map(
    await Promise.all(trainer.parameters.map(async ({ role }) => [role, await trainer.parameter(role)] as const)),
  )
}

export function norm(values: Iterable<number>): number {
  let sum = 0
  for (const value of values) sum += value * value
  return Math.sqrt(sum)
}

/** ‖a - b‖ / ‖b‖ over all tensors together. */
export function relativeError(a: Tensors, b: Tensors): number {
  let error = 0
  let size = 0
  for (const [role, expected] of b) {
    const actual = a.get(role)!
    expected.forEach((value, i) => {
      error += (actual[i]! - value) ** 2
      size += value ** 2
    })
  }
  return Math.sqrt(error / size)
}

export const tensorBits = (tensors: Tensors): string => {
  const hash = createHash('sha256')
  for (const [role, { buffer, byteOffset, byteLength }] of tensors)
    hash.update(role).update(Buffer.from(buffer, byteOffset, byteLength))
  return hash.digest('hex')
}

export const fileHash = (path: string): string => createHash('sha256').update(readFileSync(path)).digest('hex')

const folder = temporaryFolder()
let files = 0

/** The spec with the weights named in `values` read from a new file that holds these; the others stay where they are. */
export function specWith(spec: ModelSpec, values: Tensors): ModelSpec {
  const file = join(folder, `values-${files++}`)
  const chunks: Buffer[] = []
  let offset = 0
  const moved = (role: string, tensor: string, shape: number[], data: Float32Array) => {
    chunks.push(Buffer.from(data.buffer, data.byteOffset, data.byteLength))
    const source = { role, tensor, file, offset, bytes: data.byteLength, dtype: 'f32' as const, shape }
    offset += data.byteLength
    return source
  }
  const weights = spec.weights
    .filter(({ role }) => role !== 'head' || !values.has('head'))
    .map((source) => {
      const data = values.get(source.role)
      if (data === undefined) return source
      const shape = source.shape.length === 1 ? [data.length] : [data.length / source.shape[1]!, source.shape[1]!]
      return moved(source.role, source.tensor, shape, data)
    })
  const head = values.get('head')
  if (head !== undefined) weights.push(moved('head', 'score.weight', [1, head.length], head))
  writeFileSync(file, Buffer.concat(chunks))
  return { ...spec, weights }
}
