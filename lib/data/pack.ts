/**
 * Token ids to ragged batches. A prompt is computed once and shared by its responses through a parent segment; where a group is split over
 * batches the prompt is repeated. How rows fall into batches changes no reward, only the speed.
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

/** Sequences that share a beginning. */
export interface SharedPrompt {
  /** Empty: the responses are whole sequences, such as verification prompts that have no beginning in common. */
  prompt: ArrayLike<number>
  responses: readonly ArrayLike<number>[]
}

/** The engine's form of sequences: each prompt once, as the parent of its responses; scored are all responses, in order. */
export function pack(groups: readonly SharedPrompt[]): Pick<NativeBatch, 'tokens' | 'segments' | 'scored'> {
  const count = groups.reduce((sum, group) => sum + group.prompt.length + lengthOf(group.responses), 0)
  const tokens = new Int32Array(count)
  const segments: number[] = []
  const scored: number[] = []
  let at = 0
  const append = (ids: ArrayLike<number>, parent: number): number => {
    tokens.set(ids, at)
    segments.push(at, ids.length, parent)
    at += ids.length
    return segments.length / 3 - 1
  }
  for (const { prompt, responses } of groups) {
    const parent = prompt.length === 0 ? -1 : append(prompt, -1)
    for (const response of responses) scored.push(append(response, parent))
  }
  return { tokens, segments: Int32Array.from(segments), scored: Int32Array.from(scored) }
}

function lengthOf(sequences: readonly ArrayLike<number>[]): number {
  return sequences.reduce((sum, ids) => sum + ids.length, 0)
}

export type Readout = Pick<NativeBatch, 'readout' | 'targetToken' | 'tokenLogprobs'>

/** The engine's form of a batch; value k of its result is that of item k. */
export function nativeBatch(items: readonly BatchItem[], readout: Readout): NativeBatch {
  const groups: { prompt: Int32Array; responses: Int32Array[] }[] = []
  let row: EncodedRow | undefined
  for (const { slot, k } of items) {
    if (slot.row !== row) groups.push({ prompt: slot.row.prompt, responses: [] })
    row = slot.row
    groups.at(-1)!.responses.push(row.responses[k]!)
  }
  return { ...pack(groups), ...readout }
}

/** What a read-out gives for each item, cut out of what it gives for all tokens of the batch. */
export function perItem(items: readonly BatchItem[], values: Float32Array): Float32Array[] {
  let at = 0
  return items.map(({ slot, k }) => {
    const { length } = slot.row.responses[k]!
    at += length
    return values.slice(at - length, at)
  })
}
