/**
 * What repeated timings say: medians, and whether two sets of them differ by more than their own scatter.
 */
import { Random } from '../../lib/core/random.js'

const RESAMPLES = 2000
/** Differences below this are called noise however certain: code layout alone moves timings by as much. */
const LEAST_DIFFERENCE = 0.02

/** Linear between order statistics; NaN for none. */
export function quantile(values: readonly number[], q: number): number {
  const sorted = [...values].sort((a, b) => a - b)
  const at = q * (sorted.length - 1)
  const low = sorted[Math.floor(at)] ?? Number.NaN
  const high = sorted[Math.ceil(at)] ?? Number.NaN
  return low + (high - low) * (at - Math.floor(at))
}

export function median(values: readonly number[]): number {
  return quantile(values, 0.5)
}

export interface Ratio {
  /** median(b) / median(a) */
  value: number
  /** 95% interval by bootstrap. */
  low: number
  high: number
}

/** How much longer b takes than a. The same samples give the same interval. */
export function ratioOfMedians(a: readonly number[], b: readonly number[]): Ratio {
  const random = Random.seeded(1, 0)
  const drawn = (values: readonly number[]) => median(values.map(() => values[random.below(values.length)]!))
  const ratios = Array.from({ length: RESAMPLES }, () => drawn(b) / drawn(a))
  return { value: median(b) / median(a), low: quantile(ratios, 0.025), high: quantile(ratios, 0.975) }
}

export type Verdict = 'faster' | 'slower' | 'noise'

/** Whether the times b are faster or slower than the times a; 'noise' when the interval holds 1 or the difference is below 2%. */
export function verdict({ value, low, high }: Ratio): Verdict {
  if (high < 1 && value < 1 - LEAST_DIFFERENCE) return 'faster'
  if (low > 1 && value > 1 + LEAST_DIFFERENCE) return 'slower'
  return 'noise'
}
