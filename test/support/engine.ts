/** Models and batches for the tests of the native engine. */
import type { ImplexErrorOptions } from '../../lib/core/errors.js'
import { Buffer } from 'node:buffer'
import { join } from 'node:path'
import * as assert from 'uvu/assert'
import { openCheckpoint } from '../../lib/checkpoint/checkpoint.js'
import type { ModelSpec } from '../../lib/native/spec.js'
import type { NativeBatch, NativeScores } from '../../lib/native/types.js'
import { seededRandom } from '../fixtures/random.js'
import { type TinyCheckpointOptions, writeTinyCheckpoint } from '../fixtures/tiny-checkpoint.js'
import { temporaryFolder } from './tmp.js'

export const CPU = { device: 'cpu', dtype: 'f32' } as const

export const SLOW = { hiddenSize: 64, heads: 4, layers: 16, maxPositions: 4096 }

/** The spec of a tiny checkpoint, written to a temporary folder that lives as long as the process. */
export async function tinySpec(options: TinyCheckpointOptions = {}): Promise<ModelSpec> {
  const folder = join(temporaryFolder(), 'checkpoint')
  await writeTinyCheckpoint(folder, { tokenizer: false, ...options })
  return (await openCheckpoint(folder)).spec
}

/** `count` sequences of `length` random tokens, all scored, without parents. */
export function randomBatch(count: number, length: number, more: Partial<NativeBatch> = {}, seed = 1): NativeBatch {
  const random = seededRandom(seed)
  return {
    tokens: Int32Array.from({ length: count * length }, () => random.below(512)),
    segments: Int32Array.from(Array.from({ length: count }, (_, i) => [i * length, length, -1]).flat()),
    scored: Int32Array.from({ length: count }, (_, i) => i),
    readout: 'logprob',
    ...more,
  }
}

/** Takes a model of SLOW sizes a second or so, in layers of a tenth. */
export const slowBatch = (): NativeBatch => randomBatch(2, SLOW.maxPositions)

/** The values' bits, for comparison. */
export const bits = (scores: NativeScores): string => Buffer.from(scores.values.buffer).toString('hex')

export const sleep = (ms: number): Promise<void> => new Promise((done) => setTimeout(done, ms))

/** Fails with `what` when the promise takes longer: uvu has no timeouts. */
export async function within<T>(ms: number, what: string, promise: Promise<T>): Promise<T> {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<never>((_, fail) => {
    timer = setTimeout(() => fail(new Error(`${what} took longer than ${ms} ms`)), ms)
  })
  try {
    return await Promise.race([promise, late])
  } finally {
    clearTimeout(timer)
  }
}

/** An error with what the engine may know of it. */
type EngineError = Error & Pick<ImplexErrorOptions, 'pair' | 'step' | 'parameter' | 'tensor'> & { code?: string }

/** What a promise is rejected with. */
export async function rejection(promise: Promise<unknown>): Promise<EngineError> {
  try {
    await promise
  } catch (error) {
    if (error instanceof Error) return error
    throw new Error(`rejected with something else than an Error: ${String(error)}`)
  }
  throw new Error('was not rejected')
}

/** The error that a call throws, or that the promise it returns is rejected with. */
export function failure(call: () => unknown): Promise<EngineError> {
  return rejection((async () => call())())
}

export async function fails(call: () => unknown, kind: string, pattern: RegExp): Promise<void> {
  const error = await failure(call)
  assert.is(error.name, kind, String(error))
  assert.match(error.message, pattern)
}

/** For arguments that the types forbid. */
export const unsafe = <T>(value: unknown): T => value as T
