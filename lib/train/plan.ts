/**
 * What a run knows before its first step: where it starts, how its rows are encoded, and every batch that it will see.
 */
import type { Checkpoint } from '../checkpoint/checkpoint.js'
import type { Border } from '../checkpoint/trained-with.js'
import { Random, STREAMS } from '../core/random.js'
import type { EncodeSettings } from '../data/encode.js'
import type { HeadPlace } from '../models/head-place.js'
import { limitsOf } from '../models/open.js'
import { microBatches } from './batches.js'
import type { TrainSettings } from './options.js'
import type { PairSet, TrainPair } from './pairs.js'
import type { ResolvedOptions } from './resolve-options.js'
import type { RunPosition } from './runs/checkpoints.js'

/** The training data and the sets that are evaluated, by name. */
export interface Sets {
  data: PairSet
  evaluation: Map<string, PairSet>
}

export function startOf({ seed }: TrainSettings): RunPosition {
  const random = Random.seeded(seed, STREAMS.order).state
  return { step: 0, epoch: 0, pair: 0, random, metricsBytes: 0, seconds: 0, tokens: 0 }
}

export function encodeSettings(
  { kind, onLong, maxLength }: ResolvedOptions['settings'],
  border: Border,
  place: HeadPlace | undefined,
  checkpoint: Checkpoint,
  reference: Checkpoint | undefined,
): EncodeSettings {
  return {
    kind: kind === 'sft' ? 'implicit' : kind,
    border,
    padTokenId: place?.padTokenId,
    onLong,
    ...(maxLength > 0 && { maxLength }),
    ...limitsOf(checkpoint, reference),
  }
}

/** Every micro-batch of the run and of its evaluations: the order of the data is known before the first step. */
export function* allBatches(settings: TrainSettings, { data, evaluation }: Sets): Generator<readonly TrainPair[]> {
  const { kind, epochs, batchPairs, microBatchTokens, seed } = settings
  const random = Random.seeded(seed, STREAMS.order)
  for (let epoch = 0; epoch < epochs; epoch++) {
    const order = random.permutation(data.pairs.length)
    for (let at = 0; at < order.length; at += batchPairs) {
      const pairs = Array.from(order.subarray(at, at + batchPairs), (i) => data.pairs[i]!)
      yield* microBatches(kind, pairs, microBatchTokens)
    }
  }
  for (const { pairs } of evaluation.values()) yield* microBatches(kind, pairs, microBatchTokens)
}
