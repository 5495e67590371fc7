/**
 * Single operations of the engine, for programs that have hidden states and weights of their own.
 *
 * Every call copies its arrays before it returns and computes off the event loop, after what the engine was asked before. Matrices are
 * row-major in flat arrays, their sizes follow from each other. Where much is computed with one weight, open a model instead: these
 * calls lay the weight out anew each time.
 */
import { cudaModulePath, type DeviceName, type DType } from './device.js'
import { awaitNative } from './handles.js'
import { loadBinding } from './load.js'
import type { Cancellation, OpenOptions } from './types.js'
import type { BenchmarkResult, BenchmarkShape, BenchmarkTiming } from './kernel-calls.js'
import { checkInteger, checkObject, checkOneOf, invalidArgument, outOfRange } from '../core/arguments.js'

export interface KernelOptions {
  /** Defaults to 'cpu'. */
  device?: DeviceName
  /** 'bf16' rounds the operands first; sums are f32 in either case. Defaults to 'f32'. */
  dtype?: DType
  /** Rejects with ERR_ABORTED unless the operation has begun. */
  signal?: AbortSignal
}

export interface GemmInput extends KernelOptions {
  /** [M, k] */
  a: Float32Array
  /** [N, k] */
  b: Float32Array
  /** Length of the rows of both. */
  k: number
  /** [N] */
  bias?: Float32Array
}

export interface LinearLogprobInput extends KernelOptions {
  /** [N, D] */
  hidden: Float32Array
  /** [V, D] */
  weight: Float32Array
  /** [N], each below V. */
  targets: Int32Array
}

export interface LinearRewardInput extends KernelOptions {
  /** [N, D] */
  hidden: Float32Array
  /** [D] */
  head: Float32Array
  /** First row and number of rows of each reward. Defaults to one reward for each row. */
  spans?: readonly (readonly [first: number, count: number])[]
  /** Applied to each row before the head: a model's final norm. `beta` is for 'layer'. Defaults to none. */
  norm?: { kind: 'rms' | 'layer'; gamma: Float32Array; beta?: Float32Array; eps: number }
}

/**
 * a · bᵀ + bias.
 * @returns [M, N]
 * @throws TypeError, RangeError for arrays that do not fit together
 * @throws ImplexError ERR_DEVICE_UNAVAILABLE, ERR_OUT_OF_MEMORY, ERR_ABORTED
 */
async function gemm(input: GemmInput): Promise<Float32Array> {
  const options = resolve(input)
  checkInteger('input.k', input.k, 1)
  return awaitNative(gemm, input.signal, (flag) => loadBinding().kernelGemm(input, options, flag))
}

/**
 * ln softmax(hidden[i] · weightᵀ)[targets[i]], without the [N, V] array of logits ever being in memory.
 * @returns [N]
 * @throws as gemm
 */
async function linearLogprob(input: LinearLogprobInput): Promise<Float32Array> {
  const options = resolve(input)
  return awaitNative(linearLogprob, input.signal, (flag) => loadBinding().kernelLinearLogprob(input, options, flag))
}

/**
 * The mean of head · norm(hidden[i]) over each span's rows.
 * @returns [spans], or [N] without spans
 * @throws as gemm
 */
async function linearReward(input: LinearRewardInput): Promise<Float32Array> {
  const options = resolve(input)
  const { hidden, head } = input
  if (!(hidden instanceof Float32Array)) throw invalidArgument('input.hidden', 'a Float32Array', hidden)
  if (!(head instanceof Float32Array)) throw invalidArgument('input.head', 'a Float32Array', head)
  if (head.length === 0) throw outOfRange('input.head', 'of at least one element', head.length)
  const spans = Int32Array.from(spanNumbers(input.spans, Math.floor(hidden.length / head.length)))
  return awaitNative(linearReward, input.signal, (flag) =>
    loadBinding().kernelLinearReward({ ...input, spans }, options, flag),
  )
}

function spanNumbers(spans: LinearRewardInput['spans'], rows: number): number[] {
  if (spans === undefined) return Array.from({ length: rows }, (_, row) => [row, 1]).flat()
  if (!Array.isArray(spans)) throw invalidArgument('input.spans', 'a list of [first, count]', spans)
  return spans.flatMap((span, i) => {
    if (!Array.isArray(span) || span.length !== 2) throw invalidArgument(`input.spans[${i}]`, '[first, count]', span)
    const [first, count] = span
    checkInteger(`input.spans[${i}][0]`, first, 0, rows - 1)
    checkInteger(`input.spans[${i}][1]`, count, 1, rows - first)
    return [first, count]
  })
}

export const kernels = { gemm, linearLogprob, linearReward }

type BenchmarkOptions = BenchmarkTiming & Omit<KernelOptions, 'signal'> & { cancel?: Cancellation }

/** Times one operation in the engine; see BenchmarkResult. */
export async function benchmark(shape: BenchmarkShape, options: BenchmarkOptions): Promise<BenchmarkResult> {
  const [result] = await benchmarkInTurn([shape], options)
  return result!
}

/** Times several, a sample of each in every round, so that a device that grows hot or slow does so for all of them. */
export async function benchmarkInTurn(
  shapes: readonly BenchmarkShape[],
  { device = 'cpu', dtype = 'f32', cancel, ...timing }: BenchmarkOptions,
): Promise<BenchmarkResult[]> {
  const options = { ...resolve({ device, dtype }), coldBytes: 0, ...timing }
  return awaitNative(benchmark, cancel, (flag) => loadBinding().kernelBenchmark(shapes, options, flag))
}

function resolve(input: KernelOptions): OpenOptions {
  checkObject('input', input)
  const { device = 'cpu', dtype = 'f32', signal } = input
  checkOneOf('input.device', device, ['cpu', 'cuda'])
  checkOneOf('input.dtype', dtype, ['f32', 'bf16'])
  if (signal !== undefined && !(signal instanceof AbortSignal)) {
    throw invalidArgument('input.signal', 'an AbortSignal', signal)
  }
  return device === 'cpu' ? { device, dtype } : { device, dtype, devicePath: cudaModulePath() }
}
