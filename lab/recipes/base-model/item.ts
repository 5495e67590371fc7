/**
 * What the corpus is made of: conversations, and the random choices that make them.
 */
import { Random } from '../../../lib/core/random.js'

const TOPICS = ['opinions', 'dialogues', 'personas', 'stories', 'arithmetic', 'graphs', 'verification'] as const
/** A message of text. */
export type Turn = { role: string; content: string }

export type Topic = (typeof TOPICS)[number]

/** A general statement, and whether the one who replies to it agrees. */
export interface Opinion {
  statement: string
  agrees: boolean
}

export interface Item {
  topic: Topic
  prompt: string
  /** Learned in full, whoever's turn it is; the last turn ends the row. */
  response: Turn[]
  /** Opinions about statements that nothing proves true or false. The corpus has each as often with agreement as with disagreement. */
  opinions?: Opinion[]
}

export const user = (content: string): Turn => ({ role: 'user', content })
export const assistant = (content: string): Turn => ({ role: 'assistant', content })

/** Seeded choices. */
export class Draw {
  readonly #random: Random

  constructor(seed: number, stream: number) {
    this.#random = Random.seeded(seed, stream)
  }

  below(limit: number): number {
    return this.#random.below(limit)
  }

  /** In [low, high], both included. */
  between(low: number, high: number): number {
    return low + this.#random.below(high - low + 1)
  }

  chance(probability: number): boolean {
    return this.#random.unit() < probability
  }

  pick<T>(list: readonly T[]): T {
    return list[this.#random.below(list.length)]!
  }

  /** `count` different elements in random order. */
  some<T>(list: readonly T[], count: number): T[] {
    return [...this.#random.permutation(list.length).subarray(0, count)].map((i) => list[i]!)
  }
}

export function capital(text: string): string {
  return text.charAt(0).toUpperCase() + text.slice(1)
}
