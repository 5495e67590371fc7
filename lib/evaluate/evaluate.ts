/**
 * evaluate(): a reward model on named sets of preference pairs.
 */
import { type RowSource, rowError } from '../data/rows.js'
import { ROWS_OPTIONS, type RowsOption } from '../data/shapes/names.js'
import type { ScoredRow } from '../data/score-rows.js'
import { checkSetName, sourceOf, type TrainData } from '../data/sources.js'
import { type Estimate, PairRewards, type Statistic } from './statistics.js'
import { ImplexError } from '../core/errors.js'
import { checkInteger, checkObject, checkOneOf, invalidArgument } from '../core/arguments.js'
import type { RewardModel } from '../models/reward-model.js'

export interface EvaluateOptions {
  /** Samples that the 95% intervals are made of. Defaults to 1000; 0 leaves the intervals out (NaN). */
  resamples?: number
  /** Of the resampling. Defaults to 0. */
  seed?: number
  /** As in ScoreOptions. */
  batchTokens?: number
  /** The shape of the rows of every data set; `auto`, the default, tells it by each row's keys. docs/formats.md lists them. */
  rows?: RowsOption
  /** A bad row ends the evaluation, or is counted and left out. Defaults to 'stop'. */
  onError?: 'stop' | 'skip'
  /** Aborts with ERR_ABORTED. */
  signal?: AbortSignal
  /** Told of each row as it is scored, in order; awaited. */
  onRow?: (name: string, row: ScoredRow) => void | Promise<void>
}

/** What came out for one data set. */
export interface Evaluation {
  /** Rows of the data set. */
  rows: number
  /** Those that were scored. */
  pairs: number
  /** Bad rows (`onError: 'skip'`). */
  errors: number
  /** Rows beyond the context (`onLong: 'skip'`). */
  skipped: number
  truncated: number
  /** Pairs to which the other rule for the border of prompt and response gives other ids. */
  borderDiffers: number
  /** Pairs whose conversation's text does not begin with the prompt's. */
  promptParted: number
  /**
   * See PairStatistics. The loss is the Bradley-Terry loss; for the generative kind it is NaN: its loss needs p("No"), and a reward is p("Yes").
   */
  estimates: Record<Statistic, Estimate>
}

/**
 * Scores the pairs of each data set and sums them up.
 *
 * @param data by name; a path, a row source or rows
 * @returns by name, in the order given
 * @throws TypeError, RangeError for wrong arguments; ImplexError as RewardModel.score does, naming the data set
 */
export async function evaluate(
  model: RewardModel,
  data: Record<string, TrainData>,
  options: EvaluateOptions = {},
): Promise<Record<string, Evaluation>> {
  checkObject('data', data)
  checkObject('options', options)
  const { resamples = 1000, seed = 0, rows: shape = 'auto', onRow } = options
  checkInteger('resamples', resamples, 0, 1_000_000)
  checkInteger('seed', seed, 0)
  checkOneOf('rows', shape, ROWS_OPTIONS)
  if (onRow !== undefined && typeof onRow !== 'function') throw invalidArgument('onRow', 'a function', onRow)
  for (const name of Object.keys(data)) checkSetName(name)
  const sources = Object.entries(data).map(([name, rows]) => [name, sourceOf(rows, shape)] as const)

  const report: [name: string, Evaluation][] = []
  for (const [name, source] of sources) {
    try {
      report.push([name, await evaluateSet(model, source, options, (row) => onRow?.(name, row))])
    } catch (error) {
      throw inSet(error, name, source)
    }
  }
  // Not by assignment: that would set the prototype where a set is named "__proto__".
  return Object.fromEntries(report)
}

async function evaluateSet(
  model: RewardModel,
  source: RowSource,
  { resamples = 1000, seed = 0, batchTokens, onError = 'stop', signal }: EvaluateOptions,
  onRow: (row: ScoredRow) => void | Promise<void>,
): Promise<Evaluation> {
  const rewards = new PairRewards()
  const counts = { rows: 0, pairs: 0, errors: 0, skipped: 0, truncated: 0, borderDiffers: 0, promptParted: 0 }
  const stream = model.scoreStream(source, {
    onError,
    batchTokens,
    signal,
  })
  for await (const row of stream) {
    counts.rows++
    if (row.skipped) counts.skipped++
    else if (row.error !== undefined) counts.errors++
    else if (row.shape === 'group') {
      counts.errors++
      if (onError === 'stop')
        throw rowError(
          'ERR_ROW_INVALID',
          `is a group of ${row.rewards.length} responses; an evaluation needs pairs, "chosen" and "rejected"`,
          row,
        )
    } else {
      const [chosen, rejected] = row.rewards as [number, number]
      rewards.add(chosen, rejected, model.kind === 'generative' ? Number.NaN : undefined)
      counts.pairs++
      if (row.truncated) counts.truncated++
      if (row.borderDiffers) counts.borderDiffers++
      if (row.promptParted) counts.promptParted++
    }
    await onRow(row)
  }
  return { ...counts, estimates: rewards.estimates(resamples, seed) }
}

function inSet(error: unknown, name: string, source: RowSource): unknown {
  if (!(error instanceof ImplexError) || error.code === 'ERR_ABORTED' || error.path === source.name) return error
  return new ImplexError(error.code, `data set ${name} (${source.name}): ${error.message}`, {
    cause: error,
    line: error.line,
    path: error.path,
  })
}
