/**
 * The addon's exports that run one operation, as they are: lib/native/kernels.ts has the calls that check and explain.
 */
import type { NativeCancel, OpenOptions } from './types.js'

export interface NativeKernels {
  /** out[M, N] = a[M, K] · b[N, K]ᵀ + bias[N], rows back to back. */
  kernelGemm(
    input: { a: Float32Array; b: Float32Array; k: number; bias?: Float32Array },
    options: OpenOptions,
    cancel?: NativeCancel,
  ): Promise<Float32Array>
  /** hidden [N, D], weight [V, D], targets [N] -> [N] */
  kernelLinearLogprob(
    input: { hidden: Float32Array; weight: Float32Array; targets: Int32Array },
    options: OpenOptions,
    cancel?: NativeCancel,
  ): Promise<Float32Array>
  /** hidden [N, D], head [D], spans [K * 2]: first row, number of rows -> [K] */
  kernelLinearReward(
    input: { hidden: Float32Array; head: Float32Array; spans: Int32Array; norm?: NativeNorm },
    options: OpenOptions,
    cancel?: NativeCancel,
  ): Promise<Float32Array>
  /** Times operations in turn, round by round, on operands that it makes itself. */
  kernelBenchmark(
    shapes: readonly BenchmarkShape[],
    options: OpenOptions & Required<BenchmarkTiming>,
    cancel?: NativeCancel,
  ): Promise<BenchmarkResult[]>
  /** Switches the profile of the process on, or off and returns what was called since, the longest first. */
  profileOperations(on: true): undefined
  profileOperations(on: false): OperationTime[]
}

/** Time in one operation of a device's table (native/backend.h), waited for. */
export interface OperationTime {
  name: string
  calls: number
  seconds: number
}

export interface NativeNorm {
  kind: 'rms' | 'layer'
  /** [D] */
  gamma: Float32Array
  /** [D] */
  beta?: Float32Array
  eps: number
}

/**
 * `peak`: multiply-adds in registers, the bound of every product (CPU only). `copy`: `rows` floats from memory to memory.
 * `linear_logprob_both`: forward and backward. `head_products`: the three products that these cannot be without, alone.
 */
export type BenchmarkShape =
  | { op: 'peak' }
  | { op: 'copy'; rows: number }
  | {
      op: 'gemm' | 'linear_logprob' | 'linear_logprob_backward' | 'linear_logprob_both' | 'head_products'
      rows: number
      columns: number
      depth: number
    }
  | { op: 'norm' | 'norm_backward'; rows: number; columns: number; norm: 'rms' | 'layer' }
  | {
      op: 'attention' | 'attention_backward'
      heads: number
      kvHeads: number
      headDim: number
      /** Prompts, each of `prompt` tokens with `responses` responses of `response` tokens. */
      groups: number
      prompt: number
      responses: number
      response: number
    }

export interface BenchmarkTiming {
  samples: number
  /** At least one call is made before the first sample. */
  warmupSeconds: number
  /** Calls are repeated until a sample takes this long. */
  sampleSeconds: number
  /** Operands of fewer bytes are there three times and used in turn, so that no call finds them in a cache. Default 0. */
  coldBytes?: number
  seed: number
}

export interface BenchmarkResult {
  /** Seconds per call, one value per sample. */
  seconds: Float64Array
  /** Calls in a sample. */
  repeats: number
  /** ‖result - float64 reference‖ / ‖reference‖ over sampled rows. */
  error: number
  /** Floating-point operations of one call. */
  flops: number
  /** The least that one call must read and write. */
  bytes: number
}
