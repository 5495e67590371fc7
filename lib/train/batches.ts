/**
 * From the order of an epoch to optimizer steps and micro-batches. A micro-batch holds whole pairs, because a pair's loss couples its two
 * responses; each prompt is in it once, as the parent of its responses.
 */
import { promptOf } from '../data/encode.js'
import { groupsOf, lengthOfAll, pack } from '../data/pack.js'
import type { NativeTrainBatch } from '../native/types.js'
import type { TrainPair } from './pairs.js'
import type { TrainKind } from './options.js'

export interface BatchShape {
  kind: TrainKind
  /** explicit. */
  pool: 'last' | 'mean'
}

/** Which of a pair's responses go through the model. */
function usedResponses(kind: TrainKind, { responses }: TrainPair): Int32Array[] {
  return kind === 'sft' ? responses.slice(0, 1) : responses
}

/** Tokens that a pair takes in a batch. */
export function batchTokens(kind: TrainKind, pair: TrainPair): number {
  return lengthOfAll(groupsOf(pair, usedResponses(kind, pair)))
}

/** Tokens of its sequences, as if the prompt were not shared: what throughput is measured in. */
export function sequenceTokens(kind: TrainKind, pair: TrainPair): number {
  return usedResponses(kind, pair).reduce((sum, response, k) => sum + promptOf(pair, k).length + response.length, 0)
}

/** Cuts a step's pairs into micro-batches of at most `budget` tokens; a pair beyond that gets one of its own. */
export function microBatches(kind: TrainKind, pairs: readonly TrainPair[], budget: number): TrainPair[][] {
  const batches: TrainPair[][] = []
  let room = 0
  for (const pair of pairs) {
    const tokens = batchTokens(kind, pair)
    if (tokens > room || batches.length === 0) {
      batches.push([])
      room = budget
    }
    batches.at(-1)!.push(pair)
    room -= tokens
  }
  return batches
}

/** The engine's form of a micro-batch. `scale`: 1 / pairs of the whole step. */
export function trainBatch(
  kind: TrainKind,
  pairs: readonly TrainPair[],
  { scale, gradients }: { scale: number; gradients: boolean },
): NativeTrainBatch {
  const pairwise = kind === 'explicit' || kind === 'implicit'
  const reference = kind === 'implicit' && pairs.every((pair) => pair.reference !== undefined)
  const margin = pairwise && pairs.some((pair) => pair.margin !== undefined)
  return {
    ...pack(pairs.flatMap((pair) => groupsOf(pair, usedResponses(kind, pair)))),
    reference: reference ? Float64Array.from(pairs.flatMap((pair) => pair.reference!)) : undefined,
    margin: margin ? Float64Array.from(pairs, (pair) => pair.margin ?? 0) : undefined,
    scale,
    gradients,
  }
}

/** Size of the largest micro-batch, for the estimate of memory: each of the two numbers is a maximum of its own. */
export interface LargestBatch {
  tokens: number
  /** Rows of the last hidden states that are read, or predictions made from them. */
  rows: number
}

export function largestBatch(shape: BatchShape, batches: Iterable<readonly TrainPair[]>): LargestBatch {
  const largest = { tokens: 0, rows: 0 }
  for (const pairs of batches) {
    let tokens = 0
    let rows = 0
    for (const pair of pairs) {
      tokens += batchTokens(shape.kind, pair)
      rows += rowsOf(shape, pair)
    }
    largest.tokens = Math.max(largest.tokens, tokens)
    largest.rows = Math.max(largest.rows, rows)
  }
  return largest
}

function rowsOf({ kind, pool }: BatchShape, pair: TrainPair): number {
  if (kind === 'generative') return 4 // two predictions at the end of each response
  if (kind === 'explicit' && pool === 'last') return 2
  return usedResponses(kind, pair).reduce((sum, response) => sum + response.length, 0)
}
