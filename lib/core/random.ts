/**
 * The random numbers of a run: xoshiro128** (Blackman and Vigna 2018). Its state is four integers, so that a checkpoint can hold it, and
 * integers and comparisons alone decide the order of the data: the same on every platform.
 */

/** Four unsigned 32-bit integers. */
export type RandomState = [number, number, number, number]

/** Independent streams of one seed: drawing from one stream does not change another. From `adapter` on, each projection has its own. */
export const STREAMS = { order: 0, head: 1, bootstrap: 2, graphs: 3, rows: 4, adapter: 1 << 16 } as const

const rotate = (value: number, by: number) => (value << by) | (value >>> (32 - by))

export class Random {
  readonly #s: Uint32Array

  constructor(state: RandomState) {
    this.#s = Uint32Array.from(state)
  }

  /** @param seed a safe integer of at least 0 */
  static seeded(seed: number, stream: number): Random {
    // SplitMix32 (Steele, Lea, Flood 2014, in its 32-bit form) spreads similar seeds apart.
    let x = (seed >>> 0) ^ Math.imul(Math.floor(seed / 2 ** 32), 0x85ebca6b) ^ Math.imul(stream + 1, 0xc2b2ae35)
    const next = () => {
      x = (x + 0x9e3779b9) >>> 0
      let z = x
      z = Math.imul(z ^ (z >>> 16), 0x21f0aaad)
      z = Math.imul(z ^ (z >>> 15), 0x735a2d97)
      return (z ^ (z >>> 15)) >>> 0
    }
    return new Random([next(), next(), next(), next() | 1])
  }

  get state(): RandomState {
    return [...this.#s] as RandomState
  }

  /** An integer in [0, 2^32). */
  bits(): number {
    const s = this.#s as unknown as RandomState
    const result = Math.imul(rotate(Math.imul(s[1], 5), 7), 9) >>> 0
    const t = s[1] << 9
    s[2] ^= s[0]
    s[3] ^= s[1]
    s[1] ^= s[2]
    s[0] ^= s[3]
    s[2] ^= t
    s[3] = rotate(s[3], 11)
    return result
  }

  /** A number in [0, 1) with 53 random bits. */
  unit(): number {
    return ((this.bits() >>> 5) * 2 ** 26 + (this.bits() >>> 6)) / 2 ** 53
  }

  /** An integer in [0, limit), each equally likely; `limit` is at most 2^32. */
  below(limit: number): number {
    const fair = 2 ** 32 - (2 ** 32 % limit)
    for (;;) {
      const value = this.bits()
      if (value < fair) return value % limit
    }
  }

  /** A normal random number with mean 0 and variance 1 (Box and Muller). */
  normal(): number {
    return Math.sqrt(-2 * Math.log(1 - this.unit())) * Math.cos(2 * Math.PI * this.unit())
  }

  /** The numbers 0 … count - 1 in random order (Fisher and Yates). */
  permutation(count: number): Uint32Array {
    const order = Uint32Array.from({ length: count }, (_, i) => i)
    for (let i = count - 1; i > 0; i--) {
      const j = this.below(i + 1)
      const taken = order[i]!
      order[i] = order[j]!
      order[j] = taken
    }
    return order
  }
}
