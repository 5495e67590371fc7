/**
 * Reference log-probabilities of responses: from the cache where it has them, else from the reference, and then into the cache.
 */
import { type Model, nativeInfo } from '../native/handles.js'
import type { NativeCancel } from '../native/types.js'
import { type EncodedRow, promptOf } from './encode.js'
import { type BatchItem, nativeBatch, perItem } from './pack.js'
import {
  hashTokens,
  NUMERICS_VERSION,
  type ReferenceCache,
  type ReferenceKey,
  type TokenHash,
} from './reference-cache.js'

/** What of a model is needed to score batches. */
export type Engine = Pick<Model, 'score'>

/** A row under way. */
export interface Slot {
  row: EncodedRow
  /** The ordinal of its first response among all responses of the source: where the cache keeps it. */
  ordinal: number
  /** Scored once more, to be compared: the cache does not count it. */
  again?: boolean
}

export interface ReferenceLogprob {
  /** ln π_ref(response | prompt), the sum over its tokens. */
  referenceLogprob: number
  /** On request: its terms. [tokens of the response] */
  referenceTokenLogprobs?: Float32Array
}

export interface ReferenceOptions {
  /** Called when a value is not in the cache, so that the model may be loaded only then. */
  load: () => Promise<Engine>
  /** Holds sums: not asked for what `tokenLogprobs` wants, but told. */
  cache?: ReferenceCache
  tokenLogprobs?: boolean
  cancel?: NativeCancel
}

/** One for each item. Which items are computed together changes no bit. */
export async function referenceLogprobs(
  items: readonly BatchItem<Slot>[],
  { load, cache, tokenLogprobs = false, cancel }: ReferenceOptions,
): Promise<ReferenceLogprob[]> {
  const hashes = cache === undefined ? [] : hashItems(items)
  const known = new Array<ReferenceLogprob>(items.length)
  const missing: number[] = []
  for (const [i, { slot, k }] of items.entries()) {
    const logprob = tokenLogprobs ? undefined : await cache?.get(slot.ordinal + k, hashes[i]!, slot.again !== true)
    if (logprob === undefined) missing.push(i)
    else known[i] = { referenceLogprob: logprob }
  }
  if (missing.length === 0) return known

  const model = await load()
  const computed = missing.map((i) => items[i]!)
  const scores = await model.score(nativeBatch(computed, { readout: 'logprob', tokenLogprobs }), cancel)
  const terms = tokenLogprobs ? perItem(computed, scores.tokenLogprobs!) : undefined
  for (const [j, i] of missing.entries()) {
    const { slot, k } = items[i]!
    known[i] = { referenceLogprob: scores.values[j]!, referenceTokenLogprobs: terms?.[j] }
    await cache?.put(slot.ordinal + k, hashes[i]!, scores.values[j]!)
  }
  return known
}

function hashItems(items: readonly BatchItem<Slot>[]): TokenHash[] {
  let row: EncodedRow | undefined
  let known: { length: number; hash: TokenHash } | undefined
  return items.map(({ slot, k }) => {
    const prompt = promptOf(slot.row, k)
    if (slot.row !== row || known?.length !== prompt.length) known = { length: prompt.length, hash: hashTokens(prompt) }
    row = slot.row
    return hashTokens(row.responses[k]!, known.hash)
  })
}

/** The cache's key. Its names stay in this order: the file's header is made of them. */
export function referenceKey(parts: Omit<ReferenceKey, 'version' | 'numerics'>): ReferenceKey {
  const { weights, text, data, dtype, device, kernels, border, onLong, contextLength } = parts
  const { version } = nativeInfo()
  const numerics = NUMERICS_VERSION
  return { weights, text, data, dtype, device, kernels, version, numerics, border, onLong, contextLength }
}
