/**
 * What the rewards of preference pairs say about a reward model, as point estimates and as bootstrap intervals.
 */
import { Random, STREAMS } from '../core/random.js'

export const STATISTICS = [
  'accuracy',
  'tieShare',
  'loss',
  'meanChosen',
  'meanRejected',
  'meanMargin',
  'normalizedMargin',
  'brier',
  'ece',
] as const
export type Statistic = (typeof STATISTICS)[number]

/**
 * With d = r⁺ - r⁻ and p = σ(d), which is the Bradley-Terry model's probability that the chosen response is the better one:
 *
 * accuracy: share of d > 0, ties half. tieShare: share of d = 0. loss: mean loss of a pair. meanChosen, meanRejected, meanMargin: means of r⁺,
 * r⁻, d. normalizedMargin: mean |d| / (standard deviation of all rewards + 1e-8). brier: mean (1 - p)². ece: expected calibration error of the
 * prediction "the response with the higher reward", whose confidence is max(p, 1 - p), in 10 equal bins of [0.5, 1].
 */
export type PairStatistics = Record<Statistic, number>

/** A value with the ends of its 95% interval. */
export interface Estimate {
  value: number
  /** 2.5th percentile of the bootstrap. */
  low: number
  /** 97.5th percentile. */
  high: number
}

const BINS = 10

/** Rewards of pairs, gathered as they come. */
export class PairRewards {
  readonly #chosen: number[] = []
  readonly #rejected: number[] = []
  readonly #losses: number[] = []
  #table: Table | undefined

  /** Without a loss: the Bradley-Terry loss -ln σ(chosen - rejected); NaN: not known. */
  add(chosen: number, rejected: number, loss?: number): void {
    this.#chosen.push(chosen)
    this.#rejected.push(rejected)
    this.#losses.push(loss ?? softplus(rejected - chosen))
    this.#table = undefined
  }

  get pairs(): number {
    return this.#chosen.length
  }

  /**
   * NaN throughout without pairs; the normalized margin needs no more than one, since a pair has two rewards.
   * @param weights how often each pair counts; once where absent
   */
  statistics(weights?: Uint32Array): PairStatistics {
    return this.#built().statistics(weights)
  }

  /**
   * Each statistic with its percentile interval over `resamples` samples of as many pairs, drawn with replacement.
   * The same seed and rewards give the same intervals.
   */
  estimates(resamples: number, seed: number): Record<Statistic, Estimate> {
    const table = this.#built()
    const values = table.statistics()
    const samples = Object.fromEntries(STATISTICS.map((name) => [name, new Float64Array(resamples)])) as Record<
      Statistic,
      Float64Array
    >
    const random = Random.seeded(seed, STREAMS.bootstrap)
    const weights = new Uint32Array(this.pairs)
    for (let i = 0; i < resamples && this.pairs > 0; i++) {
      weights.fill(0)
      for (let j = 0; j < this.pairs; j++) weights[random.below(this.pairs)]!++
      const sample = table.statistics(weights)
      for (const name of STATISTICS) samples[name][i] = sample[name]
    }
    const estimate = (name: Statistic): Estimate => {
      const sorted = samples[name].sort()
      const empty = this.pairs === 0 || resamples === 0
      return {
        value: values[name],
        low: empty ? Number.NaN : quantile(sorted, 0.025),
        high: empty ? Number.NaN : quantile(sorted, 0.975),
      }
    }
    return Object.fromEntries(STATISTICS.map((name) => [name, estimate(name)])) as Record<Statistic, Estimate>
  }

  #built(): Table {
    this.#table ??= new Table(this.#chosen, this.#rejected, this.#losses)
    return this.#table
  }
}

/** ln(1 + e^x), without overflow and without losing small results. */
export function softplus(x: number): number {
  return x > 0 ? x + Math.log1p(Math.exp(-x)) : Math.log1p(Math.exp(x))
}

function sigmoid(x: number): number {
  return x >= 0 ? 1 / (1 + Math.exp(-x)) : Math.exp(x) / (1 + Math.exp(x))
}

/** What each pair adds to the sums, computed once: a resample only weighs it. */
class Table {
  readonly #chosen: Float64Array
  readonly #rejected: Float64Array
  readonly #losses: Float64Array
  /** 1, ½ or 0. */
  readonly #correct: Float64Array
  readonly #brier: Float64Array
  readonly #confidence: Float64Array
  readonly #bin: Uint8Array
  /** Rewards are squared relative to this, so that a large common offset costs no digits. */
  readonly #center: number

  constructor(chosen: readonly number[], rejected: readonly number[], losses: readonly number[]) {
    this.#chosen = Float64Array.from(chosen)
    this.#rejected = Float64Array.from(rejected)
    this.#losses = Float64Array.from(losses)
    const margin = this.#chosen.map((reward, i) => reward - this.#rejected[i]!)
    this.#correct = margin.map((d) => (d > 0 ? 1 : d === 0 ? 0.5 : 0))
    this.#brier = margin.map((d) => sigmoid(-d) ** 2)
    this.#confidence = margin.map((d) => sigmoid(Math.abs(d)))
    this.#bin = Uint8Array.from(this.#confidence, (p) => Math.min(BINS - 1, Math.floor((p - 0.5) * 2 * BINS)))
    let sum = 0
    for (let i = 0; i < chosen.length; i++) sum += chosen[i]! + rejected[i]!
    this.#center = chosen.length === 0 ? 0 : sum / (2 * chosen.length)
  }

  /** `weights`: how often each pair counts; once where absent. */
  statistics(weights?: Uint32Array): PairStatistics {
    const pairs = this.#chosen.length
    const count = weights === undefined ? pairs : weights.reduce((sum, weight) => sum + weight, 0)
    let correct = 0
    let ties = 0
    let loss = 0
    let chosen = 0
    let rejected = 0
    let distance = 0
    let squares = 0
    let brier = 0
    const gap = new Float64Array(BINS) // of each bin: sum of (correct - confidence)
    for (let i = 0; i < pairs; i++) {
      const w = weights === undefined ? 1 : weights[i]!
      if (w === 0) continue
      const a = this.#chosen[i]! - this.#center
      const b = this.#rejected[i]! - this.#center
      correct += w * this.#correct[i]!
      if (this.#correct[i] === 0.5) ties += w
      loss += w * this.#losses[i]!
      chosen += w * a
      rejected += w * b
      distance += w * Math.abs(this.#chosen[i]! - this.#rejected[i]!)
      squares += w * (a * a + b * b)
      brier += w * this.#brier[i]!
      gap[this.#bin[i]!]! += w * (this.#correct[i]! - this.#confidence[i]!)
    }
    const mean = (chosen + rejected) / (2 * count)
    const variance = Math.max(0, squares - 2 * count * mean * mean) / (2 * count - 1)
    return {
      accuracy: correct / count,
      tieShare: ties / count,
      loss: loss / count,
      meanChosen: this.#center + chosen / count,
      meanRejected: this.#center + rejected / count,
      meanMargin: (chosen - rejected) / count,
      normalizedMargin: distance / count / (Math.sqrt(variance) + 1e-8),
      brier: brier / count,
      ece: gap.reduce((sum, bin) => sum + Math.abs(bin), 0) / count,
    }
  }
}

/** Between the two nearest of sorted values, as most software has it by default. */
export function quantile(sorted: Float64Array, share: number): number {
  const at = share * (sorted.length - 1)
  const below = Math.floor(at)
  const low = sorted[below]!
  const high = sorted[Math.min(below + 1, sorted.length - 1)]!
  return low + (at - below) * (high - low)
}
