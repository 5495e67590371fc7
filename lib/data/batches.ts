/**
 * Encoded rows to ragged batches under a token budget. A prompt is computed once and shared by its responses through a parent segment;
 * where a group is split over batches the prompt is repeated. How rows fall into batches changes no reward, only the speed.
 */
import type { NativeBatch } from '../native/types.js'
import type { EncodedRow } from './encode.js'

/** One response to score. Consecutive items of a batch with the same row share its prompt. */
export interface BatchItem<R extends { row: EncodedRow } = { row: EncodedRow }> {
  slot: R
  /** Which of the row's responses. */
  k: number
}

/** Fills batches in order. A response that with its prompt is longer than the budget gets a batch of its own. */
export class BatchBuilder<R extends { row: EncodedRow }> {
  readonly #budget: number
  readonly #full: BatchItem<R>[][] = []
  #open: BatchItem<R>[] = []
  #openTokens = 0

  constructor(batchTokens: number) {
    this.#budget = batchTokens
  }

  /** Batches that `take` can hand out. */
  get full(): number {
    return this.#full.length
  }

  get empty(): boolean {
    return this.#full.length === 0 && this.#open.length === 0
  }

  add(slot: R): void {
    const { prompt, responses } = slot.row
    const whole = responses.reduce((sum, response) => sum + response.length, prompt.length)
    if (this.#openTokens + whole > this.#budget) this.flush()
    let promptIsIn = false
    responses.forEach((response, k) => {
      if (promptIsIn && this.#openTokens + response.length > this.#budget) {
        this.flush()
        promptIsIn = false
      }
      this.#open.push({ slot, k })
      this.#openTokens += response.length + (promptIsIn ? 0 : prompt.length)
      promptIsIn = true
    })
    if (this.#openTokens >= this.#budget) this.flush()
  }

  /** Makes a full batch of what there is. */
  flush(): void {
    if (this.#open.length > 0) this.#full.push(this.#open)
    this.#open = []
    this.#openTokens = 0
  }

  take(): BatchItem<R>[] | undefined {
    return this.#full.shift()
  }
}

export type Readout = Pick<NativeBatch, 'readout' | 'targetToken' | 'tokenLogprobs'>

/** The engine's form of a batch; value k of its result is that of item k. */
export function nativeBatch(items: readonly BatchItem[], readout: Readout): NativeBatch {
  const parts: Int32Array[] = []
  const segments: number[] = []
  const scored: number[] = []
  let tokenCount = 0
  const append = (ids: Int32Array, parent: number): number => {
    parts.push(ids)
    segments.push(tokenCount, ids.length, parent)
    tokenCount += ids.length
    return segments.length / 3 - 1
  }
  let promptOf: EncodedRow | undefined
  let parent = -1
  for (const { slot, k } of items) {
    if (slot.row !== promptOf) {
      promptOf = slot.row
      // A generative row's verification prompts may have no common beginning.
      parent = slot.row.prompt.length === 0 ? -1 : append(slot.row.prompt, -1)
    }
    scored.push(append(slot.row.responses[k]!, parent))
  }
  const tokens = new Int32Array(tokenCount)
  let at = 0
  for (const ids of parts) {
    tokens.set(ids, at)
    at += ids.length
  }
  return { tokens, segments: Int32Array.from(segments), scored: Int32Array.from(scored), ...readout }
}
