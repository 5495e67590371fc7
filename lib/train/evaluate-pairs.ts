/**
 * A model in training on a data set: losses and rewards as training has them, without gradients.
 */
import { PairRewards } from '../evaluate/statistics.js'
import type { Trainer } from '../native/handles.js'
import type { NativeCancel } from '../native/types.js'
import { microBatches, trainBatch } from './batches.js'
import type { TrainEvaluation, TrainKind } from './options.js'
import type { PairSet } from './pairs.js'

export interface EvaluatePairsOptions {
  /** Most tokens in a batch. */
  budget: number
  cancel?: NativeCancel
  /** Asked between batches. */
  stop?: () => boolean
}

/** @returns undefined when `stop` said so */
export async function evaluatePairs(
  trainer: Pick<Trainer, 'accumulate'>,
  kind: TrainKind,
  { pairs }: PairSet,
  { budget, cancel, stop }: EvaluatePairsOptions,
): Promise<Omit<TrainEvaluation, 'name' | 'step' | 'epoch' | 'seconds'> | undefined> {
  const rewards = new PairRewards()
  let loss = 0
  let chosen = 0
  for (const batch of microBatches(kind, pairs, budget)) {
    if (stop?.()) return undefined
    const result = await trainer.accumulate(
      trainBatch(kind, batch, { scale: 1 / batch.length, gradients: false }),
      cancel,
    )
    for (const [i, value] of result.losses.entries()) {
      if (kind === 'sft') {
        loss += value
        chosen += result.rewards[i]!
      } else {
        rewards.add(result.rewards[2 * i]!, result.rewards[2 * i + 1]!, value)
      }
    }
  }
  if (kind === 'sft') return { pairs: pairs.length, loss: loss / pairs.length, meanChosen: chosen / pairs.length }
  return { pairs: pairs.length, ...rewards.statistics() }
}
