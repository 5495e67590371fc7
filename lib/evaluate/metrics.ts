/**
 * Metrics of preference pairs, streaming, in double precision: constant memory, one pass, mergeable.
 */

/** Count, mean and sum of squared deviations of a stream of numbers (Welford), mergeable (Chan et al.). */
export class Moments {
  /** Numbers added. */
  count = 0
  /** Their mean; 0 before the first. */
  mean = 0
  /** Sum of (x - mean)². */
  #squares = 0

  /** Adds a number. */
  add(value: number): void {
    this.count++
    const before = value - this.mean
    this.mean += before / this.count
    this.#squares += before * (value - this.mean)
  }

  /** Adds all numbers of another stream. */
  merge(other: Moments): void {
    if (other.count === 0) return
    const count = this.count + other.count
    const difference = other.mean - this.mean
    this.#squares += other.#squares + difference * difference * ((this.count * other.count) / count)
    this.mean += difference * (other.count / count)
    this.count = count
  }

  /** Sample standard deviation (n - 1); NaN for fewer than two values. */
  get deviation(): number {
    return this.count < 2 ? Number.NaN : Math.sqrt(this.#squares / (this.count - 1))
  }
}

/** Accuracy and margins of pairs (r⁺, r⁻). All are NaN before the first pair. */
export class PreferenceMetrics {
  readonly #rewards = new Moments()
  readonly #margins = new Moments()
  readonly #absoluteMargins = new Moments()
  #wins = 0
  #ties = 0

  /** Adds a pair. */
  add(chosen: number, rejected: number): void {
    if (chosen > rejected) this.#wins++
    else if (chosen === rejected) this.#ties++
    this.#rewards.add(chosen)
    this.#rewards.add(rejected)
    this.#margins.add(chosen - rejected)
    this.#absoluteMargins.add(Math.abs(chosen - rejected))
  }

  /** Adds all pairs of another one. */
  merge(other: PreferenceMetrics): void {
    this.#wins += other.#wins
    this.#ties += other.#ties
    this.#rewards.merge(other.#rewards)
    this.#margins.merge(other.#margins)
    this.#absoluteMargins.merge(other.#absoluteMargins)
  }

  /** Pairs added. */
  get pairs(): number {
    return this.#margins.count
  }

  /** Pairs whose rewards are exactly equal. */
  get ties(): number {
    return this.#ties
  }

  /** Share of pairs with r⁺ > r⁻; a tie counts half. */
  get accuracy(): number {
    return (this.#wins + 0.5 * this.#ties) / this.pairs
  }

  /** Mean of r⁺ - r⁻. */
  get meanMargin(): number {
    return this.pairs === 0 ? Number.NaN : this.#margins.mean
  }

  /** Mean of |r⁺ - r⁻| over the standard deviation of all rewards, chosen and rejected, plus 1e-8: free of the rewards' scale. */
  get normalizedMargin(): number {
    return this.#absoluteMargins.mean / (this.#rewards.deviation + 1e-8)
  }
}
