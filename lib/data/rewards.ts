/**
 * From batches to rewards: what each kind asks of the engine and makes of its answer. A batch's rewards are its items' in order.
 */
import type { NativeCancel } from '../native/types.js'
import { ImplexError } from '../core/errors.js'
import type { RewardKind } from './encode.js'
import { type BatchItem, nativeBatch, perItem, type Readout } from './pack.js'
import { type Engine, type ReferenceLogprob, type ReferenceOptions, referenceLogprobs, type Slot } from './reference.js'

/** Where an explicit reward reads its head: at the last token, or as the mean over the response's tokens. */
export const POOLS = ['last', 'mean'] as const
export type Pool = (typeof POOLS)[number]

export interface Scored extends Partial<ReferenceLogprob> {
  reward: number
  /** implicit: ln π(response | prompt), the sum over its tokens. */
  logprob?: number
  /** implicit, on request: the terms of `logprob`. [tokens of the response] */
  tokenLogprobs?: Float32Array
  /** explicit, on request: the head's value at each token. [tokens of the response] */
  tokenRewards?: Float32Array
  /** explicit, on request: the value of each label. */
  labelRewards?: number[]
  /** The reward at the end of each step, for a process reward. */
  stepRewards?: number[]
}

/** Scores batches. Calls may overlap; results do not depend on how items fall into batches. */
export type BatchScorer = (items: readonly BatchItem<Slot>[]) => Promise<Scored[]>

/** What the engine is asked for: of the explicit and the generative kind the reward itself, of the others what it is made of. */
export function readoutOf(kind: RewardKind | 'sft', pool: Pool, yesTokenId: number | undefined): Readout {
  if (kind === 'explicit') return { readout: pool === 'last' ? 'reward_last' : 'reward_mean' }
  return kind === 'generative' ? { readout: 'next_token', targetToken: yesTokenId } : { readout: 'logprob' }
}

/** generative: the engine's read-out is the reward. */
export function readoutScorer(engine: Engine, readout: Readout, cancel?: NativeCancel): BatchScorer {
  const model = advised(engine)
  return async (items) => {
    const { values } = await model.score(nativeBatch(items, readout), cancel)
    return Array.from(values, (reward) => ({ reward }))
  }
}

export interface ImplicitOptions extends Omit<ReferenceOptions, 'load'> {
  policy: Engine
  beta: number
  /** Absent: β ln π. Otherwise as `load` of the reference log-probabilities. */
  reference?: () => Promise<Engine>
}

/** implicit: β (ln π - ln π_ref) in double precision, the reference's part from the cache where it has it. */
export function implicitScorer(options: ImplicitOptions): BatchScorer {
  const { beta, reference, cancel, tokenLogprobs = false } = options
  const policy = advised(options.policy)
  const load = reference && (async () => advised(await reference()))
  return async (items) => {
    const [scores, references] = await Promise.all([
      policy.score(nativeBatch(items, { readout: 'logprob', tokenLogprobs }), cancel),
      load && referenceLogprobs(items, { ...options, load }),
    ])
    const terms = tokenLogprobs ? perItem(items, scores.tokenLogprobs!) : undefined
    return items.map((_, i): Scored => {
      const logprob = scores.values[i]!
      const reward = beta * (references === undefined ? logprob : logprob - references[i]!.referenceLogprob)
      return { reward, logprob, tokenLogprobs: terms?.[i], ...references?.[i] }
    })
  }
}

/** The engine, with what to do about a batch that its memory is too small for. */
export function advised(engine: Engine): Engine {
  return {
    async score(batch, cancel) {
      try {
        return await engine.score(batch, cancel)
      } catch (error) {
        if (!(error instanceof ImplexError) || error.code !== 'ERR_OUT_OF_MEMORY') throw error
        const advice = `the batch had ${batch.tokens.length} tokens: try a smaller --batch-tokens (option batchTokens)`
        throw new ImplexError(error.code, `${error.message}; ${advice}`, { cause: error })
      }
    },
  }
}
