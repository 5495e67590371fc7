/**
 * `implex bench kernels`: each operation of the engine on shapes of real models, against what the machine can do.
 */
import type { DeviceName, DType } from '../../lib/native/device.js'
import { benchmark } from '../../lib/native/kernels.js'
import type { NativeCancel } from '../../lib/native/types.js'
import type { BenchmarkShape } from '../../lib/native/kernel-calls.js'
import type { BenchCase } from './result.js'
import { failed } from './result.js'
import { median } from './statistics.js'
import { percent, short, table } from './table.js'

interface Model {
  name: string
  hidden: number
  intermediate: number
  heads: number
  kvHeads: number
  headDim: number
  vocabulary: number
  norm: 'rms' | 'layer'
}

const MODELS: Model[] = [
  {
    name: 'Llama-3.2-1B',
    hidden: 2048,
    intermediate: 8192,
    heads: 32,
    kvHeads: 8,
    headDim: 64,
    vocabulary: 128256,
    norm: 'rms',
  },
  {
    name: 'Pythia-1B',
    hidden: 2048,
    intermediate: 8192,
    heads: 8,
    kvHeads: 8,
    headDim: 256,
    vocabulary: 50304,
    norm: 'layer',
  },
  {
    name: 'Qwen2.5-1.5B',
    hidden: 1536,
    intermediate: 8960,
    heads: 12,
    kvHeads: 2,
    headDim: 128,
    vocabulary: 151936,
    norm: 'rms',
  },
]

const QUICK: Model = {
  name: 'small',
  hidden: 256,
  intermediate: 512,
  heads: 4,
  kvHeads: 2,
  headDim: 64,
  vocabulary: 4096,
  norm: 'rms',
}

/** Relative errors that a result may have against float64, ‖Δ‖ / ‖reference‖. bf16: its rounding of the result or of loss gradients. */
const LIMITS: Record<DType, number> = { f32: 1e-5, bf16: 1e-2 }

export interface KernelSuiteOptions {
  device: DeviceName
  dtypes: readonly DType[]
  /** Uses few shapes and samples, to show that everything works, not how fast. */
  quick: boolean
  cancel?: NativeCancel
  onCase?: (item: BenchCase) => void
}

interface Item {
  name: string
  shape: BenchmarkShape
}

/** @throws ImplexError ERR_DEVICE_UNAVAILABLE, ERR_OUT_OF_MEMORY, ERR_ABORTED */
export async function kernelSuite(options: KernelSuiteOptions): Promise<BenchCase[]> {
  const { device, dtypes, quick, cancel, onCase } = options
  const timing = quick
    ? { samples: 5, warmupSeconds: 0.02, sampleSeconds: 0.005, seed: 1 }
    : { samples: 15, warmupSeconds: 0.5, sampleSeconds: 0.05, seed: 1 }
  const cases: BenchCase[] = []
  for (const dtype of dtypes) {
    for (const { name, shape } of items(quick, device)) {
      if (shape.op === 'copy' && dtype !== dtypes[0]) continue
      const { seconds, error, flops, bytes } = await benchmark(shape, {
        device,
        dtype,
        ...timing,
        samples: isLong(shape) ? Math.min(7, timing.samples) : timing.samples,
        ...(cancel && { cancel }),
      })
      const item: BenchCase = {
        name: shape.op === 'copy' ? name : `${dtype} ${name}`,
        samples: [...seconds],
        work: { flops, bytes },
        ...(shape.op === 'peak' ? {} : { check: { error, limit: LIMITS[dtype], against: 'float64 on sampled rows' } }),
      }
      cases.push(item)
      onCase?.(item)
    }
  }
  return cases
}

/** Heads of large vocabularies: a call may take a second. */
function isLong(shape: BenchmarkShape): boolean {
  return 'depth' in shape && shape.rows * shape.columns * shape.depth > 4e10
}

/** Names: what, then M×N×K of a product (rows of the batch, outputs, inputs), N×V×D of a head, tokens of attention. */
function items(quick: boolean, device: DeviceName): Item[] {
  const product = (what: string, rows: number, columns: number, depth: number): Item => ({
    name: `${what} ${rows}x${columns}x${depth}`,
    shape: { op: 'gemm', rows, columns, depth },
  })
  const head = (what: string, op: 'linear_logprob' | 'linear_logprob_backward', rows: number, model: Model): Item => ({
    name: `${what} ${rows}x${model.vocabulary}x${model.hidden}`,
    shape: { op, rows, columns: model.vocabulary, depth: model.hidden },
  })
  const list: Item[] = [
    { name: 'copy 256 MiB', shape: { op: 'copy', rows: 2 ** 26 } },
    ...(device === 'cpu' ? [{ name: 'multiply-add rate', shape: { op: 'peak' } as const }] : []),
  ]
  const sizes = quick ? [64] : [64, 512, 2048]
  list.push(quick ? product('square', 512, 512, 512) : product('square', 2048, 2048, 2048))
  for (const model of quick ? [QUICK] : MODELS) {
    const { name, hidden, intermediate, heads, kvHeads, headDim, norm } = model
    for (const rows of sizes) {
      list.push(product(`${name} q`, rows, heads * headDim, hidden))
      list.push(product(`${name} up`, rows, intermediate, hidden))
      list.push(product(`${name} down`, rows, hidden, intermediate))
    }
    for (const rows of quick ? [8] : [64, 512]) list.push(head(`${name} logprob`, 'linear_logprob', rows, model))
    list.push(head(`${name} logprob bwd`, 'linear_logprob_backward', quick ? 8 : 256, model))
    const attention = {
      heads,
      kvHeads,
      headDim,
      groups: quick ? 1 : 2,
      prompt: 128,
      responses: 2,
      response: quick ? 16 : 288,
    }
    list.push({ name: `${name} attention`, shape: { op: 'attention', ...attention } })
    list.push({ name: `${name} attention bwd`, shape: { op: 'attention_backward', ...attention } })
    const rows = quick ? 256 : 4096
    list.push({ name: `${name} norm ${rows}x${hidden}`, shape: { op: 'norm', rows, columns: hidden, norm } })
    list.push({
      name: `${name} norm bwd ${rows}x${hidden}`,
      shape: { op: 'norm_backward', rows, columns: hidden, norm },
    })
  }
  return list
}

/** The machine's measured rates: multiply-adds by dtype, and bytes read and written by copying. */
export interface Ceilings {
  flops: Partial<Record<DType, number>>
  bytes?: number
}

export function ceilings(cases: readonly BenchCase[]): Ceilings {
  const best = (name: string, per: 'flops' | 'bytes') => {
    const found = cases.find((item) => item.name === name)
    return found === undefined ? undefined : found.work[per]! / Math.min(...found.samples)
  }
  const [f32, bf16, bytes] = [
    best('f32 multiply-add rate', 'flops'),
    best('bf16 multiply-add rate', 'flops'),
    best('copy 256 MiB', 'bytes'),
  ]
  return {
    flops: { ...(f32 === undefined ? {} : { f32 }), ...(bf16 === undefined ? {} : { bf16 }) },
    ...(bytes === undefined ? {} : { bytes }),
  }
}

/** Fraction of the bound that holds for a case, and which bound: the slower of multiply-adds and memory. */
export function roofline(
  item: BenchCase,
  limits: Ceilings,
): { fraction: number; bound: 'flops' | 'bytes' } | undefined {
  const { flops = 0, bytes = 0 } = item.work
  const rate = limits.flops[item.name.startsWith('bf16') ? 'bf16' : 'f32']
  const compute = rate === undefined ? 0 : flops / rate
  const memory = limits.bytes === undefined ? 0 : bytes / limits.bytes
  const least = Math.max(compute, memory)
  if (least === 0) return undefined
  return { fraction: least / median(item.samples), bound: compute >= memory ? 'flops' : 'bytes' }
}

export function kernelTable(cases: readonly BenchCase[]): string {
  const limits = ceilings(cases)
  return table(
    ['operation', 'ms', 'GFLOP/s', 'GB/s', 'of bound', 'error'],
    cases.map((item) => {
      const seconds = median(item.samples)
      const { flops = 0, bytes = 0 } = item.work
      const bound = roofline(item, limits)
      const error = item.check === undefined ? '-' : item.check.error.toExponential(0)
      if (failed(item)) return [item.name, 'FAILED', '-', '-', '-', error]
      return [
        item.name,
        short(seconds * 1e3),
        flops === 0 ? '-' : short(flops / seconds / 1e9),
        bytes === 0 ? '-' : short(bytes / seconds / 1e9),
        bound === undefined ? '-' : `${percent(bound.fraction)} ${bound.bound === 'flops' ? 'fma' : 'mem'}`,
        error,
      ]
    }),
  )
}
