/**
 * What must hold before the first step, or the run would be wasted. Each failure stops it with ERR_SELF_CHECK and the reason.
 */
import { nativeBatch, type Readout } from '../data/pack.js'
import type { Trainer } from '../native/handles.js'
import type { NativeCancel, NativeTrainResult } from '../native/types.js'
import { ImplexError } from '../core/errors.js'
import { trainBatch } from './batches.js'
import { pairName, type TrainPair } from './pairs.js'

export interface SelfCheckOptions {
  kind: 'explicit' | 'implicit' | 'generative' | 'sft'
  readout: Readout
  /** implicit: what turns a log-probability into a reward. */
  beta: number
  lengthNormalized: boolean
  /** The reference is the model itself, before training. */
  startsAtReference: boolean
  cancel?: NativeCancel
}

/**
 * Scores the first micro-batch in each way that the run will: training and scoring must agree in every bit, alone and in the batch, and an
 * implicit model that is its own reference must give every response a reward of exactly 0.
 */
export async function selfCheck(
  trainer: Trainer,
  pairs: readonly TrainPair[],
  options: SelfCheckOptions,
): Promise<void> {
  const { kind, cancel } = options
  const trained = await trainer.accumulate(
    trainBatch(kind, pairs, { scale: 1 / pairs.length, gradients: false }),
    cancel,
  )
  const perPair = kind === 'sft' ? 1 : 2
  const items = pairs.flatMap((row) => Array.from({ length: perPair }, (_, k) => ({ slot: { row }, k })))
  const together = await trainer.score(nativeBatch(items, options.readout), cancel)
  const alone = await trainer.score(nativeBatch(items.slice(0, 1), options.readout), cancel)
  const defect = 'this is a bug in the engine; please report it with the output of implex doctor'

  if (!Object.is(together.values[0], alone.values[0])) {
    throw failed(
      `${pairName(pairs[0]!)}: its chosen response scores ${together.values[0]} in a batch and ${alone.values[0]} alone; ${defect}`,
    )
  }
  for (const [i, { slot, k }] of items.entries()) {
    const expected = reward(together.values[i]!, slot.row, k, options)
    if (Object.is(trained.rewards[i]! + 0, expected + 0)) continue // + 0: -0 is 0
    throw failed(
      `${pairName(slot.row)}: response ${k} has reward ${trained.rewards[i]} in training and ${expected} in scoring; ${defect}`,
    )
  }
  if (options.startsAtReference) checkStart(trained, pairs)
}

function reward(value: number, pair: TrainPair, k: number, options: SelfCheckOptions): number {
  if (options.kind !== 'implicit') return value
  const factor = options.lengthNormalized ? options.beta / Math.max(1, pair.responses[k]!.length) : options.beta
  return factor * (value - (pair.reference?.[k as 0 | 1] ?? 0))
}

function checkStart({ rewards, losses }: NativeTrainResult, pairs: readonly TrainPair[]): void {
  const at = rewards.findIndex((reward) => reward !== 0)
  if (at >= 0) {
    throw failed(
      `${pairName(pairs[at >> 1]!)}: the reference is the untrained model, so every reward must start at 0, but this one is ${rewards[at]}; ` +
        'the cached reference log-probabilities belong to another model: delete them (see --cache-dir), or use --no-cache',
    )
  }
  const odd = losses.findIndex((loss, i) => (pairs[i]!.margin ?? 0) === 0 && Math.abs(loss - Math.LN2) > 1e-12)
  if (odd >= 0) throw failed(`${pairName(pairs[odd]!)}: the loss starts at ${losses[odd]}; it must start at ln 2`)
}

function failed(message: string): ImplexError {
  return new ImplexError('ERR_SELF_CHECK', `self-check before the first step: ${message}`)
}
