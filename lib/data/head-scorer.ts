/**
 * The explicit kind: from batches to rewards, through a head's labels. The engine gives a row's products with hidden states, or the hidden
 * states themselves for a head that is computed here; labels, weights, gates and steps come on top.
 */
import { setImmediate } from 'node:timers/promises'
import type { RewardHead } from '../checkpoint/reward-head.js'
import type { NativeCancel } from '../native/types.js'
import { type BatchItem, nativeBatch, readingAt } from './pack.js'
import type { Engine, Slot } from './reference.js'
import { advised, type BatchScorer, type Pool, type Scored } from './rewards.js'
import { aggregateSteps, type StepAggregate } from './steps.js'

export interface HeadScorerOptions {
  head: RewardHead
  pool: Pool
  /** Also give the head's value at each token. */
  tokenRewards?: boolean
  /** Also give the labels' values where the head is read. */
  labelRewards?: boolean
  /** Read at the ends of the rows' steps; the reward is made of theirs. */
  steps?: StepAggregate
  cancel?: NativeCancel
}

/** The reward has the same bits whatever else is asked for. */
export function headScorer(engine: Engine, options: HeadScorerOptions): BatchScorer {
  const { head, steps, tokenRewards = false } = options
  if (steps !== undefined) return stepScorer(engine, { ...options, steps })
  if (head.ofHidden !== undefined) return hiddenScorer(engine, options)
  return tokenRewards ? tokenScorer(engine, options) : rowScorer(engine, options)
}

function rowScorer(engine: Engine, { head, pool, labelRewards, cancel }: HeadScorerOptions): BatchScorer {
  const model = advised(engine)
  const readout = pool === 'last' ? 'reward_last' : 'reward_mean'
  return async (items) => {
    const { values } = await model.score(nativeBatch(items, { readout }), cancel)
    return cut(values, head.labels).map((raw) => scoredOf(head, raw, labelRewards))
  }
}

function tokenScorer(engine: Engine, { head, pool, labelRewards, cancel }: HeadScorerOptions): BatchScorer {
  const model = advised(engine)
  return async (items) => {
    const [tokens, mean] = await Promise.all([
      model.score(nativeBatch(items, { readout: 'reward_tokens' }), cancel),
      // The engine's mean, for its bits.
      pool === 'mean' ? model.score(nativeBatch(items, { readout: 'reward_mean' }), cancel) : undefined,
    ])
    const counts = items.map(({ slot, k }) => slot.row.responses[k]!.length)
    const means = mean === undefined ? undefined : cut(mean.values, head.labels)
    return share(cut(tokens.values, head.labels), counts).map((raws, i) => ({
      ...scoredOf(head, means?.[i] ?? raws.at(-1)!, labelRewards),
      tokenRewards: Float32Array.from(raws, (raw) => head.reward(head.values(raw))),
    }))
  }
}

/** Between two responses the event loop gets its turn. */
function hiddenScorer(engine: Engine, { head, labelRewards, cancel }: HeadScorerOptions): BatchScorer {
  const model = advised(engine)
  const { ofGate, ofHidden } = head
  return async (items) => {
    const last = items.map((item) => lengthOf(item) - 1)
    const places = last.map((at, i) => (ofGate === undefined ? [at] : [items[i]!.slot.row.gateAt![items[i]!.k]!, at]))
    const batch = readingAt(nativeBatch(items, { readout: 'hidden_last' }), items, places)
    const { values } = await model.score(batch, cancel)
    const each = ofGate === undefined ? 1 : 2
    const states = cut(values, values.length / (items.length * each))
    const scored: Scored[] = []
    let gate: { of: Float64Array; weights: Float64Array } | undefined
    for (let i = 0; i < items.length; i++) {
      const own = states.slice(i * each, (i + 1) * each)
      if (ofGate !== undefined) {
        const [state] = own as [Float64Array]
        // Responses of one prompt have the same gate.
        const same = gate?.of.every((value, j) => Object.is(value, state[j])) ?? false
        if (!same) gate = { of: state, weights: ofGate(state) }
      }
      scored.push(scoredOf(head, ofHidden!(own.at(-1)!), labelRewards, gate?.weights))
      await setImmediate()
    }
    return scored
  }
}

function stepScorer(
  engine: Engine,
  { head, steps, cancel }: HeadScorerOptions & { steps: StepAggregate },
): BatchScorer {
  const model = advised(engine)
  const { ofHidden } = head
  return async (items) => {
    const ends = stepPlaces(items)
    const readout = ofHidden === undefined ? 'reward_last' : 'hidden_last'
    const { values } = await model.score(readingAt(nativeBatch(items, { readout }), items, ends), cancel)
    const reads = ends.reduce((sum, { length }) => sum + length, 0)
    const rewards: number[] = []
    for (const raw of cut(values, values.length / reads)) {
      rewards.push(head.reward(head.values(ofHidden === undefined ? raw : ofHidden(raw))))
      if (ofHidden !== undefined) await setImmediate()
    }
    return share(
      rewards,
      ends.map(({ length }) => length),
    ).map((stepRewards) => ofSteps(stepRewards, steps))
  }
}

export interface StepTokens {
  good: number
  /** Absent: the reward is p(good) among all tokens. */
  bad?: number
}

/** generative: at the end of each step the probability of the good token, of both where there is a bad one. */
export function stepTokenScorer(
  engine: Engine,
  { good, bad }: StepTokens,
  steps: StepAggregate,
  cancel?: NativeCancel,
): BatchScorer {
  const model = advised(engine)
  return async (items) => {
    const ends = stepPlaces(items)
    const readout = {
      readout: 'next_token',
      targetToken: good,
      ...(bad === undefined ? {} : { otherToken: bad }),
    } as const
    const { values } = await model.score(readingAt(nativeBatch(items, readout), items, ends), cancel)
    const rewards = cut(values, bad === undefined ? 1 : 2).map(([p, q]) => (q === undefined ? p! : p! / (p! + q)))
    return share(
      rewards,
      ends.map(({ length }) => length),
    ).map((stepRewards) => ofSteps(stepRewards, steps))
  }
}

function ofSteps(stepRewards: number[], how: StepAggregate): Scored {
  return { reward: aggregateSteps(stepRewards, how), stepRewards }
}

function scoredOf(head: RewardHead, raw: Float64Array, labelRewards = false, gate?: Float64Array): Scored {
  const values = head.values(raw)
  return { reward: head.reward(values, gate), ...(labelRewards && { labelRewards: [...values] }) }
}

/** Places in the sequences. */
function stepPlaces(items: readonly BatchItem<Slot>[]): number[][] {
  return items.map((item) => {
    const { slot, k } = item
    const promptLength = lengthOf(item) - slot.row.responses[k]!.length
    return slot.row.stepEnds![k]!.map((at) => promptLength + at)
  })
}

function lengthOf({ slot: { row }, k }: BatchItem<Slot>): number {
  return (row.promptLengths?.[k] ?? row.prompt.length) + row.responses[k]!.length
}

function cut(values: Float64Array, width: number): Float64Array[] {
  return Array.from({ length: values.length / width }, (_, i) => values.subarray(i * width, (i + 1) * width))
}

function share<T>(all: readonly T[], counts: readonly number[]): T[][] {
  let at = 0
  return counts.map((count) => {
    at += count
    return all.slice(at - count, at)
  })
}
