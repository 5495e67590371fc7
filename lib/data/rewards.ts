/**
 * From batches to rewards: what each kind asks of the engine and makes of its answer. A batch's rewards are its items' in order.
 */

import type { Model } from '../native/handles.js'
import type { NativeBatch, NativeCancel, NativeScores } from '../native/types.js'
import { ImplexError } from '../core/errors.js'
import { type BatchItem, nativeBatch, type Readout } from './batches.js'
import type { EncodedRow } from './encode.js'
import { hashTokens, type ReferenceCache, type TokenHash } from './reference-cache.js'

/** A row under way. */
export interface Slot {
  row: EncodedRow
  /** The ordinal of its first response among all responses of the source. */
  ordinal: number
}

export interface Scored {
  reward: number
  /** implicit: ln π(response | prompt), the sum over its tokens. */
  logprob?: number
  /** implicit with a reference: the same under the reference. */
  referenceLogprob?: number
  /** implicit, on request: the terms of `logprob`. [tokens of the response] */
  tokenLogprobs?: Float32Array
  /** implicit with a reference, on request: the terms of `referenceLogprob`. [tokens of the response] */
  referenceTokenLogprobs?: Float32Array
  /** explicit, on request: the head's value at each token. [tokens of the response] */
  tokenRewards?: Float32Array
}

/** What of a model is needed here. */
export type Engine = Pick<Model, 'score'>

/** Scores batches. Calls may overlap; results do not depend on how items fall into batches. */
export type BatchScorer = (items: readonly BatchItem<Slot>[]) => Promise<Scored[]>

/** What a read-out gives for each item, cut out of what it gives for all tokens of the batch. */
function perItem(items: readonly BatchItem<Slot>[], values: Float32Array): Float32Array[] {
  let at = 0
  return items.map(({ slot, k }) => {
    at += slot.row.responses[k]!.length
    return values.slice(at - slot.row.responses[k]!.length, at)
  })
}

/** explicit with the head's value at each token. The reward has the bits that it has without. */
export function tokenRewardScorer(model: Engine, pool: 'last' | 'mean', cancel?: NativeCancel): BatchScorer {
  return async (items) => {
    const [tokens, mean] = await Promise.all([
      run(model, nativeBatch(items, { readout: 'reward_tokens' }), cancel),
      // The engine's mean, for its bits.
      pool === 'mean' ? run(model, nativeBatch(items, { readout: 'reward_mean' }), cancel) : undefined,
    ])
    return perItem(items, Float32Array.from(tokens.values)).map((tokenRewards, i) => ({
      reward: mean === undefined ? tokenRewards.at(-1)! : mean.values[i]!,
      tokenRewards,
    }))
  }
}

/** explicit and generative: the engine's read-out is the reward. */
export function readoutScorer(model: Engine, readout: Readout, cancel?: NativeCancel): BatchScorer {
  return async (items) => {
    const { values } = await run(model, nativeBatch(items, readout), cancel)
    return Array.from(values, (reward) => ({ reward }))
  }
}

export interface ImplicitOptions {
  policy: Engine
  beta: number
  /** Absent: β ln π. Called when a value is not in the cache, so that the model may be loaded only then. */
  reference?: () => Promise<Engine>
  /** Holds sums: not asked for what `tokenLogprobs` wants, but told. */
  cache?: ReferenceCache
  tokenLogprobs?: boolean
  cancel?: NativeCancel
}

/** implicit: β (ln π - ln π_ref) in double precision, the reference's part from the cache where it has it. */
export function implicitScorer(options: ImplicitOptions): BatchScorer {
  const { policy, beta, reference, cancel, tokenLogprobs = false } = options
  return async (items) => {
    const [scores, references] = await Promise.all([
      run(policy, nativeBatch(items, logprobReadout(tokenLogprobs)), cancel),
      reference === undefined ? undefined : referenceLogprobs(items, reference, options),
    ])
    const terms = tokenLogprobs ? perItem(items, scores.tokenLogprobs!) : undefined
    return items.map((_, i): Scored => {
      const logprob = scores.values[i]!
      const own = { logprob, ...(terms && { tokenLogprobs: terms[i]! }) }
      if (references === undefined) return { reward: beta * logprob, ...own }
      return { reward: beta * (logprob - references[i]!.referenceLogprob), ...own, ...references[i]! }
    })
  }
}

function logprobReadout(tokenLogprobs: boolean): Readout {
  return { readout: 'logprob', ...(tokenLogprobs ? { tokenLogprobs } : {}) }
}

type ReferencePart = Pick<Scored, 'referenceTokenLogprobs'> & { referenceLogprob: number }

async function referenceLogprobs(
  items: readonly BatchItem<Slot>[],
  load: () => Promise<Engine>,
  { cache, cancel, tokenLogprobs = false }: ImplicitOptions,
): Promise<ReferencePart[]> {
  const known = new Array<ReferencePart>(items.length)
  const hashes: TokenHash[] = []
  const missing: number[] = []
  let promptOf: EncodedRow | undefined
  let promptHash: TokenHash | undefined
  for (const [i, { slot, k }] of items.entries()) {
    if (cache === undefined) {
      missing.push(i)
      continue
    }
    if (slot.row !== promptOf) {
      promptOf = slot.row
      promptHash = hashTokens(slot.row.prompt)
    }
    hashes[i] = hashTokens(slot.row.responses[k]!, promptHash)
    const logprob = tokenLogprobs ? undefined : await cache.get(slot.ordinal + k, hashes[i])
    if (logprob === undefined) missing.push(i)
    else known[i] = { referenceLogprob: logprob }
  }
  if (missing.length === 0) return known

  const model = await load()
  const computed = missing.map((i) => items[i]!)
  const scores = await run(model, nativeBatch(computed, logprobReadout(tokenLogprobs)), cancel)
  const { values } = scores
  const terms = tokenLogprobs ? perItem(computed, scores.tokenLogprobs!) : undefined
  for (const [j, i] of missing.entries()) {
    known[i] = { referenceLogprob: values[j]!, ...(terms && { referenceTokenLogprobs: terms[j]! }) }
    const { slot, k } = items[i]!
    await cache?.put(slot.ordinal + k, hashes[i]!, values[j]!)
  }
  return known
}

async function run(model: Engine, batch: NativeBatch, cancel: NativeCancel | undefined): Promise<NativeScores> {
  try {
    return await model.score(batch, cancel)
  } catch (error) {
    if (!(error instanceof ImplexError) || error.code !== 'ERR_OUT_OF_MEMORY') throw error
    const advice = `the batch had ${batch.tokens.length} tokens: try a smaller --batch-tokens (option batchTokens)`
    throw new ImplexError(error.code, `${error.message}; ${advice}`, { cause: error })
  }
}
