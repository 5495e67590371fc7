/**
 * From batches to rewards: what each kind asks of the engine and makes of its answer. A batch's rewards are its items' in order.
 */
import { ImplexError } from '../native/errors.js'
import type { Model, NativeBatch, NativeCancel, NativeScores } from '../native/binding.js'
import { type BatchItem, nativeBatch, type Readout } from './batches.js'
import { hashTokens, type ReferenceCache, type TokenHash } from './reference-cache.js'
import type { EncodedRow } from './encode.js'

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
}

/** What of a model is needed here. */
export type Engine = Pick<Model, 'score'>

/** Scores batches. Calls may overlap; results do not depend on how items fall into batches. */
export type BatchScorer = (items: readonly BatchItem<Slot>[]) => Promise<Scored[]>

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
  cache?: ReferenceCache
  tokenLogprobs?: boolean
  cancel?: NativeCancel
}

/** implicit: β (ln π - ln π_ref) in double precision, the reference's part from the cache where it has it. */
export function implicitScorer(options: ImplicitOptions): BatchScorer {
  const { policy, beta, reference, cancel, tokenLogprobs = false } = options
  const policyReadout: Readout = { readout: 'logprob', ...(tokenLogprobs ? { tokenLogprobs } : {}) }
  return async (items) => {
    const [scores, references] = await Promise.all([
      run(policy, nativeBatch(items, policyReadout), cancel),
      reference === undefined ? undefined : referenceLogprobs(items, reference, options),
    ])
    let at = 0
    return items.map(({ slot, k }, i): Scored => {
      const logprob = scores.values[i]!
      const length = slot.row.responses[k]!.length
      const terms = tokenLogprobs ? { tokenLogprobs: scores.tokenLogprobs!.slice(at, at + length) } : {}
      at += length
      if (references === undefined) return { reward: beta * logprob, logprob, ...terms }
      const referenceLogprob = references[i]!
      return { reward: beta * (logprob - referenceLogprob), logprob, referenceLogprob, ...terms }
    })
  }
}

async function referenceLogprobs(
  items: readonly BatchItem<Slot>[],
  load: () => Promise<Engine>,
  { cache, cancel }: ImplicitOptions,
): Promise<number[]> {
  const known = new Array<number>(items.length)
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
    const logprob = await cache.get(slot.ordinal + k, hashes[i])
    if (logprob === undefined) missing.push(i)
    else known[i] = logprob
  }
  if (missing.length === 0) return known

  const model = await load()
  const batch = nativeBatch(
    missing.map((i) => items[i]!),
    { readout: 'logprob' },
  )
  const { values } = await run(model, batch, cancel)
  for (const [j, i] of missing.entries()) {
    known[i] = values[j]!
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
