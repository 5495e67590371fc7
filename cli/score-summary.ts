/**
 * What `implex score` says about a run as a whole: as JSON for programs, as a few lines for people.
 */
import { PreferenceMetrics } from '../lib/evaluate/metrics.js'
import type { ScoredRow } from '../lib/data/score-rows.js'
import type { RewardModel } from '../lib/models/reward-model.js'
import { factsOf, type RowFacts } from '../lib/data/row-lines.js'
import { VERSION } from './version.js'

export class ScoreTally {
  readonly metrics = new PreferenceMetrics()
  rows = 0
  errors = 0
  skipped = 0
  truncated = 0
  /** Responses scored; the next one's ordinal. */
  responses = 0
  /** Rows taken over from an earlier run, whose time is not known. */
  resumedRows = 0
  /** Rows with rewards, and tokens of their sequences with the prompt counted for each response, of this run. */
  scoredRows = 0
  tokens = 0

  add(row: ScoredRow): void {
    this.#count(factsOf(row))
    if (row.error !== undefined) return
    this.scoredRows++
    for (const tokens of row.tokens) this.tokens += row.promptTokens + tokens
  }

  /** A row of an earlier run's output. */
  addResumed(facts: RowFacts): void {
    this.#count(facts)
    this.resumedRows++
  }

  #count({ pair, responses, error, skipped, truncated }: RowFacts): void {
    this.rows++
    this.responses += responses
    if (error) this.errors++
    if (skipped) this.skipped++
    if (truncated) this.truncated++
    if (pair !== undefined) this.metrics.add(...pair)
  }
}

export interface ScoreSummary {
  rows: number
  errors: number
  skipped: number
  truncated: number
  resumed_rows: number
  pairs: number
  accuracy: number | null
  mean_margin: number | null
  normalized_margin: number | null
  seconds: number
  load_seconds: number
  /** Rows with rewards, pairs or groups, per second. */
  pairs_per_second: number
  /** Tokens of all sequences as if no prompt were shared. */
  tokens_per_second: number
  kind: string
  model: string
  template: string
  device: string
  fallback_reason: string | null
  dtype: string
  kernels: string
  reference_loaded: boolean
  cache_hits: number
  cache_misses: number
  version: string
}

export function summarize(tally: ScoreTally, model: RewardModel, seconds: number, loadSeconds: number): ScoreSummary {
  const { metrics } = tally
  return {
    rows: tally.rows,
    errors: tally.errors,
    skipped: tally.skipped,
    truncated: tally.truncated,
    resumed_rows: tally.resumedRows,
    pairs: metrics.pairs,
    accuracy: finite(metrics.accuracy),
    mean_margin: finite(metrics.meanMargin),
    normalized_margin: finite(metrics.normalizedMargin),
    seconds,
    load_seconds: loadSeconds,
    pairs_per_second: tally.scoredRows / seconds,
    tokens_per_second: tally.tokens / seconds,
    kind: model.kind,
    model: model.path,
    template: model.templateSource,
    device: model.device,
    fallback_reason: model.fallbackReason ?? null,
    dtype: model.dtype,
    kernels: model.kernels,
    reference_loaded: model.referenceLoaded,
    cache_hits: model.cacheStatistics.hits,
    cache_misses: model.cacheStatistics.misses,
    version: VERSION,
  }
}

export function describeSummary(summary: ScoreSummary): string {
  const rate = `${count(summary.pairs_per_second)} rows/s, ${count(summary.tokens_per_second)} tokens/s`
  const lines = [
    `${count(summary.rows)} rows in ${summary.seconds.toFixed(1)} s (${rate}) on ${summary.device} in ${summary.dtype}`,
  ]
  if (summary.accuracy !== null) {
    const margins = `mean margin ${short(summary.mean_margin)}, normalized margin ${short(summary.normalized_margin)}`
    lines.push(`accuracy ${short(summary.accuracy)}, ${margins}`)
  }
  const odd = (['errors', 'skipped', 'truncated'] as const).filter((key) => summary[key] > 0)
  if (odd.length > 0) lines.push(odd.map((key) => `${count(summary[key])} ${key}`).join(', '))
  return lines.join('\n        ')
}

export function count(value: number): string {
  return Math.round(value).toLocaleString('en-US')
}

function short(value: number | null): string {
  return value === null ? 'n/a' : String(Number(value.toPrecision(4)))
}

/** JSON has no NaN. */
function finite(value: number): number | null {
  return Number.isFinite(value) ? value : null
}
