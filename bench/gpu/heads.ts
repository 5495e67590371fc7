/**
 * The fused head against the products that it cannot be without, on one device in one go: forward against the logits' product, forward and
 * backward against all three, each pair a round at a time on operands that no cache holds.
 */
import type { BenchCase } from '../suites/result.js'
import type { DeviceName } from '../../lib/native/device.js'
import { benchmarkInTurn } from '../../lib/native/kernels.js'
import type { BenchmarkShape } from '../../lib/native/kernel-calls.js'

export interface SuiteOptions {
  device: DeviceName
  /** Uses few and small shapes, to show that everything works. */
  tiny: boolean
  /** No case starts after this time (performance.now()). */
  end: number
  onCase: (item: BenchCase) => void
  /** What could not be measured, and why. The other cases continue. */
  onProblem: (text: string) => void
}

export interface Head {
  depth: number
  vocabulary: number
  rows: number
}

/** The shape first, then those of other models, so that a short session has what matters. */
function heads(tiny: boolean): Head[] {
  const [sizes, rows] = tiny
    ? [[[64, 2048]] as const, [8, 33]]
    : [
        [
          [2048, 128256],
          [2048, 50304],
          [1536, 151936],
          [4096, 128256],
        ] as const,
        [4096, 8191, 128, 64, 512, 1000, 2048, 16384],
      ]
  return sizes.flatMap(([depth, vocabulary]) => rows.map((count) => ({ depth, vocabulary, rows: count })))
}

/** What is timed of each head; names of cases are `TITLE NxVxD`. */
export const TITLES = {
  gemm: 'logits product',
  linear_logprob: 'logprob',
  head_products: 'three products',
  linear_logprob_both: 'logprob fwd+bwd',
} as const

export const headName = (op: keyof typeof TITLES, { rows, vocabulary, depth }: Head): string =>
  `${TITLES[op]} ${rows}x${vocabulary}x${depth}`

/** Five times the largest second-level cache of the GPUs meant here (50 MB). */
const COLD_BYTES = 250e6
/** Relative, in bf16: logits of the product alone are rounded, and gradients of logits; log-probabilities are not. */
const LIMIT = 1e-2

const timing = (tiny: boolean) =>
  tiny
    ? { samples: 3, warmupSeconds: 0.01, sampleSeconds: 0.002, coldBytes: 1e5, seed: 1 }
    : { samples: 30, warmupSeconds: 1, sampleSeconds: 0.02, coldBytes: COLD_BYTES, seed: 1 }

async function measured(
  names: readonly string[],
  shapes: readonly BenchmarkShape[],
  { device, tiny, onCase, onProblem }: SuiteOptions,
): Promise<void> {
  try {
    const results = await benchmarkInTurn(shapes, { device, dtype: 'bf16', ...timing(tiny) })
    for (const [i, { seconds, error, flops, bytes }] of results.entries()) {
      onCase({
        name: names[i]!,
        samples: [...seconds],
        work: { flops, bytes },
        check: { error, limit: LIMIT, against: 'float64 on sampled rows' },
      })
    }
  } catch (error) {
    onProblem(`${names[0]}: ${error instanceof Error ? error.message : String(error)}`)
  }
}

export const CEILING = 'product 8192x8192x8192'
export const COPY = 'copy 1 GiB'

/** The device's rates, for ratios of the same run: a large product, and copying. */
export function ceilingCases(options: SuiteOptions): Promise<void> {
  const size = options.tiny ? 256 : 8192
  const shapes: BenchmarkShape[] = [
    { op: 'gemm', rows: size, columns: size, depth: size },
    { op: 'copy', rows: options.tiny ? 2 ** 20 : 2 ** 28 },
  ]
  return measured([CEILING, COPY], shapes, options)
}

export async function headCases(options: SuiteOptions): Promise<void> {
  const ops = Object.keys(TITLES) as (keyof typeof TITLES)[]
  for (const head of heads(options.tiny)) {
    const names = ops.map((op) => headName(op, head))
    if (performance.now() > options.end) {
      options.onProblem(`${names[0]}: no time was left`)
      continue
    }
    const shapes = ops.map((op) => ({ op, rows: head.rows, columns: head.vocabulary, depth: head.depth }))
    await measured(names, shapes, options)
  }
}
