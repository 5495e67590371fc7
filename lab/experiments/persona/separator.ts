/**
 * The hard-margin separator through the origin: w of the smallest norm with ⟨w, d⟩ ≥ 1 for every row d. What an explicit reward's head
 * converges to when hidden states are fixed (Theorem 2, footnote 3 of arXiv 2507.07981).
 *
 * Coordinate ascent on the dual, max Σ α - ½ ‖Σ α d‖² over α ≥ 0 (Hsieh et al. 2008, without a bound on α), in f64.
 */

import { quantile } from '../../../lib/evaluate/statistics.js'

const TOLERANCE = 1e-8
const SWEEPS = 20_000

export interface Separator {
  /** [D] */
  weight: Float64Array
  /** Rows on the margin. */
  support: number
}

/** @returns undefined when there is none within the sweeps: the rows do not lie on one side of any plane, or only just */
export function maxMarginSeparator(rows: readonly ArrayLike<number>[]): Separator | undefined {
  const size = rows[0]?.length ?? 0
  const alpha = new Float64Array(rows.length)
  const weight = new Float64Array(size)
  const squares = rows.map((row) => dot(row, row))
  if (squares.some((square) => square === 0)) return undefined
  for (let sweep = 0; sweep < SWEEPS; sweep++) {
    let worst = 0
    for (const [i, row] of rows.entries()) {
      const gradient = 1 - dot(weight, row)
      // A row that is beyond the margin and has no weight is where it should be.
      worst = Math.max(worst, alpha[i]! > 0 ? Math.abs(gradient) : gradient)
      const next = Math.max(0, alpha[i]! + gradient / squares[i]!)
      const change = next - alpha[i]!
      if (change === 0) continue
      alpha[i] = next
      for (let k = 0; k < size; k++) weight[k]! += change * row[k]!
    }
    if (worst < TOLERANCE) return { weight, support: alpha.filter((value) => value > 0).length }
  }
  return undefined
}

export function dot(a: ArrayLike<number>, b: ArrayLike<number>): number {
  let sum = 0
  for (let i = 0; i < a.length; i++) sum += a[i]! * b[i]!
  return sum
}

/** Minimum, quartiles, maximum and the share above 0, of the values. */
export function fiveNumbers(values: readonly number[]): {
  min: number
  lower: number
  median: number
  upper: number
  max: number
  positive: number
} {
  const sorted = Float64Array.from(values).sort()
  return {
    min: sorted[0]!,
    lower: quantile(sorted, 0.25),
    median: quantile(sorted, 0.5),
    upper: quantile(sorted, 0.75),
    max: sorted.at(-1)!,
    positive: sorted.filter((value) => value > 0).length / sorted.length,
  }
}
