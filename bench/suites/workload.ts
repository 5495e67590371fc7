/**
 * Models loaded and pairs encoded, ready to be timed: the same engine calls as scoring and training make, without the reading and
 * tokenizing before them.
 */
import { openCheckpoint, readHead } from '../../lib/checkpoint/checkpoint.js'
import { type EncodedRow, encodeRow } from '../../lib/data/encode.js'
import { type BatchScorer, implicitScorer, readoutScorer } from '../../lib/data/rewards.js'
import { type ScoredRow, scoreRows } from '../../lib/data/score-rows.js'
import { type DeviceName, type DType, openOnDevice, openTrainerOnDevice } from '../../lib/native/device.js'
import type { Model, Trainer } from '../../lib/native/handles.js'
import { RowEncoder } from '../../lib/text/text-encoder.js'
import { microBatches, trainBatch } from '../../lib/train/batches.js'
import type { TrainPair } from '../../lib/train/pairs.js'
import { MAX_POSITIONS } from './checkpoint.js'
import type { Pair } from './texts.js'

export type BenchKind = 'explicit' | 'implicit'

export interface WorkloadOptions {
  policy: string
  /** implicit. */
  reference: string
  /** explicit: a file with `score.weight`. */
  head: string
  device: DeviceName
  dtype: DType
}

export const BETA = 0.01
const BATCH_TOKENS = 4096
const ENCODING = { kind: 'implicit', border: 'whole', onLong: 'truncate-prompt', contextLength: MAX_POSITIONS } as const

export async function encodePairs(path: string, pairs: readonly Pair[]): Promise<EncodedRow[]> {
  const encoder = await RowEncoder.load({ path })
  return pairs.map(({ prompt, chosen, rejected }, index) => {
    const group = { index, shape: 'pair' as const, prompt, responses: [chosen, rejected] }
    const row = encodeRow(encoder, { index, group }, { ...ENCODING, vocabularySize: encoder.vocabularySize })
    if (row.error !== undefined) throw row.error
    return row
  })
}

/** The same sequences with nothing shared: each response a row of its own, with its prompt. */
export function unshared(rows: readonly EncodedRow[]): EncodedRow[] {
  return rows.flatMap((row) => row.responses.map((ids) => ({ ...row, shape: 'group', responses: [ids] })))
}

/** Sequences of one length, made of the rows' ids one after the other and around: half prompt, half response. */
export function uniform(
  rows: readonly EncodedRow[],
  { count, length }: { count: number; length: number },
): EncodedRow[] {
  const ids = rows.flatMap(({ prompt, responses }) => [...prompt, ...responses.flatMap((response) => [...response])])
  const half = Math.floor(length / 2)
  const take = (start: number, n: number) => Int32Array.from({ length: n }, (_, i) => ids[(start + i) % ids.length]!)
  return Array.from({ length: count }, (_, index) => ({
    index,
    shape: 'group' as const,
    prompt: take(index * length, half),
    responses: [take(index * length + half, length - half)],
  }))
}

/** Real tokens of the unshared sequences: the prompt counts for each response. */
export function realTokens(rows: readonly EncodedRow[]): number {
  const each = ({ prompt, responses }: EncodedRow) =>
    responses.reduce((sum, ids) => sum + prompt.length + ids.length, 0)
  return rows.reduce((sum, row) => sum + each(row), 0)
}

export class ScoringWorkload implements Disposable {
  readonly weightBytes: number
  readonly #models: Model[]

  static async open(kind: BenchKind, options: WorkloadOptions): Promise<ScoringWorkload> {
    const open = async (path: string) => (await openOnDevice((await openCheckpoint(path)).spec, options)).model
    const policy = await open(options.policy)
    if (kind === 'explicit') {
      const { spec } = await openCheckpoint(options.policy)
      policy.setHead(await readHead(options.head, spec.hiddenSize))
      return new ScoringWorkload([policy], readoutScorer(policy, { readout: 'reward_last' }))
    }
    const reference = await open(options.reference)
    const scorer = implicitScorer({ policy, beta: BETA, reference: async () => reference })
    return new ScoringWorkload([policy, reference], scorer)
  }

  private constructor(
    models: Model[],
    readonly scorer: BatchScorer,
  ) {
    this.#models = models
    this.weightBytes = models.reduce((sum, { weightBytes }) => sum + weightBytes, 0)
  }

  /** Rewards of all rows, in batches as scoring makes them. */
  async score(rows: EncodedRow[], batchTokens = BATCH_TOKENS): Promise<ScoredRow[]> {
    const encoded = async function* () {
      yield rows
    }
    const scored: ScoredRow[] = []
    const options = { batchTokens, onError: 'stop', skipLong: false } as const
    for await (const row of scoreRows(encoded(), this.scorer, options)) scored.push(row)
    return scored
  }

  [Symbol.dispose](): void {
    for (const model of this.#models) model.dispose()
  }
}

const OPTIMIZER = {
  kind: 'adamw',
  beta1: 0.9,
  beta2: 0.999,
  epsilon: 1e-8,
  weightDecay: 0,
  weightDecayOn: 'all',
  momentum: 0,
} as const
const TRAIN_NOTHING_FROZEN = { embedding: false, unembedding: false, blocks: false, norms: false, head: false }

export class TrainingWorkload implements Disposable {
  static async open(kind: BenchKind, options: WorkloadOptions): Promise<TrainingWorkload> {
    const { spec } = await openCheckpoint(options.policy)
    const train = {
      objective: kind,
      pool: 'last',
      beta: BETA,
      lengthNormalized: false,
      labelSmoothing: 0,
      centering: 0,
      optimizer: OPTIMIZER,
      frozen: TRAIN_NOTHING_FROZEN,
      recompute: false,
      ...(kind === 'explicit' ? { head: await readHead(options.head, spec.hiddenSize) } : {}),
    } as const
    const { model: trainer } = await openTrainerOnDevice(spec, options, train)
    if (kind === 'explicit') return new TrainingWorkload(kind, trainer)
    const reference = await openOnDevice((await openCheckpoint(options.reference)).spec, options)
    return new TrainingWorkload(kind, trainer, reference.model)
  }

  private constructor(
    readonly kind: BenchKind,
    readonly trainer: Trainer,
    readonly reference?: Model,
  ) {}

  /** ln π_ref of each pair; a training computes it once and keeps it. */
  async withReference(rows: readonly EncodedRow[]): Promise<TrainPair[]> {
    const pairs: TrainPair[] = rows.map((row, i) => ({ ...row, ordinal: 2 * i }))
    if (this.reference === undefined) return pairs
    for (const batch of microBatches('implicit', pairs, BATCH_TOKENS)) {
      const { tokens, segments, scored } = trainBatch('implicit', batch, { scale: 1, gradients: false })
      const { values } = await this.reference.score({ tokens, segments, scored, readout: 'logprob' })
      for (const [i, pair] of batch.entries()) pair.reference = [values[2 * i]!, values[2 * i + 1]!]
    }
    return pairs
  }

  /** One optimizer step over all pairs; returns their losses. */
  async step(pairs: readonly TrainPair[], batchTokens = BATCH_TOKENS): Promise<number[]> {
    const losses: number[] = []
    for (const batch of microBatches(this.kind, pairs, batchTokens)) {
      const result = await this.trainer.accumulate(
        trainBatch(this.kind, batch, { scale: 1 / pairs.length, gradients: true }),
      )
      losses.push(...result.losses)
    }
    await this.trainer.step({ learningRate: 1e-6, maxNorm: 0 })
    return losses
  }

  [Symbol.dispose](): void {
    this.trainer.dispose()
    this.reference?.dispose()
  }
}
