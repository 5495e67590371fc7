/**
 * Token ids to ragged batches. A prompt is computed once and shared by its responses through a parent segment; where a group is split over
 * batches the prompt is repeated. How rows fall into batches changes no reward, only the speed.
 */
import type { NativeBatch } from '../native/types.js'
import { type EncodedRow, promptOf } from './encode.js'

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
    const { row } = slot
    if (this.#openTokens + lengthOfAll(groupsOf(row, row.responses)) > this.#budget) this.flush()
    // Of the prompt that the batch ends with, if that is one of this row's.
    let prompt = -1
    row.responses.forEach((response, k) => {
      const { length } = promptOf(row, k)
      if (prompt >= 0 && this.#openTokens + response.length + (length === prompt ? 0 : length) > this.#budget) {
        this.flush()
        prompt = -1
      }
      this.#open.push({ slot, k })
      this.#openTokens += response.length + (length === prompt ? 0 : length)
      prompt = length
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
  const tokens = new Int32Array(lengthOfAll(groups))
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

/** Tokens that sequences take in a batch. */
export function lengthOfAll(groups: readonly SharedPrompt[]): number {
  const lengthOf = (sequences: readonly ArrayLike<number>[]) => sequences.reduce((sum, ids) => sum + ids.length, 0)
  return groups.reduce((sum, { prompt, responses }) => sum + prompt.length + lengthOf(responses), 0)
}

/** A row's responses, the first ones or all, with the prompts that they share: neighbors that follow the same part of it. */
export function groupsOf(row: EncodedRow, responses: readonly Int32Array[]): SharedPrompt[] {
  const groups: { prompt: Int32Array; responses: Int32Array[] }[] = []
  for (const [k, response] of responses.entries()) {
    const prompt = promptOf(row, k)
    if (groups.at(-1)?.prompt.length === prompt.length) groups.at(-1)!.responses.push(response)
    else groups.push({ prompt, responses: [response] })
  }
  return groups
}

export type Readout = Pick<NativeBatch, 'readout' | 'targetToken' | 'otherToken' | 'tokenLogprobs'>

/** The engine's form of a batch; value k of its result is that of item k. */
export function nativeBatch(items: readonly BatchItem[], readout: Readout): NativeBatch {
  const groups: { prompt: Int32Array; responses: Int32Array[] }[] = []
  let row: EncodedRow | undefined
  for (const { slot, k } of items) {
    const prompt = promptOf(slot.row, k)
    if (slot.row !== row || groups.at(-1)!.prompt.length !== prompt.length) groups.push({ prompt, responses: [] })
    row = slot.row
    groups.at(-1)!.responses.push(row.responses[k]!)
  }
  return { ...pack(groups), ...readout }
}

/**
 * The batch read at named tokens in the place of the items' last ones.
 * @param places of each item, indices in its sequence of prompt and response
 */
export function readingAt(
  batch: NativeBatch,
  items: readonly BatchItem[],
  places: readonly (readonly number[])[],
): NativeBatch {
  const { segments, scored } = batch
  const readAt = items.flatMap(({ slot, k }, i) => {
    const [start, , parent] = segments.subarray(3 * scored[i]!) as unknown as [number, number, number]
    const promptLength = parent < 0 ? 0 : promptOf(slot.row, k).length
    return places[i]!.map((at) => (at < promptLength ? segments[3 * parent]! + at : start + at - promptLength))
  })
  return { ...batch, scored: new Int32Array(0), readAt: Int32Array.from(readAt) }
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
