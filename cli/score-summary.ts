/**
 * What `implex score` says about a run as a whole: as JSON for programs, as a few lines for people.
 */
import { PreferenceMetrics } from '../lib/evaluate/metrics.js'
import type { ScoredRow } from '../lib/data/score-rows.js'
import type { ExpertLoad, RewardModel } from '../lib/models/reward-model.js'
import { factsOf, type RowFacts } from '../lib/data/row-lines.js'
import { VERSION } from './version.js'

export class ScoreTally {
  readonly metrics = new PreferenceMetrics()
  rows = 0
  errors = 0
  skipped = 0
  truncated = 0
  borderDiffers = 0
  promptParted = 0
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

  #count({ pair, responses, error, skipped, truncated, borderDiffers, promptParted }: RowFacts): void {
    this.rows++
    this.responses += responses
    if (error) this.errors++
    if (skipped) this.skipped++
    if (truncated) this.truncated++
    if (borderDiffers) this.borderDiffers++
    if (promptParted) this.promptParted++
    if (pair !== undefined) this.metrics.add(...pair)
  }
}

export interface ScoreSummary {
  rows: number
  errors: number
  skipped: number
  truncated: number
  /** Rows to which the other rule for the border gives other ids; whose conversation does not begin with the prompt. */
  borderDiffers: number
  promptParted: number
  resumedRows: number
  pairs: number
  accuracy: number | null
  meanMargin: number | null
  normalizedMargin: number | null
  seconds: number
  loadSeconds: number
  /** Rows with rewards, pairs or groups, per second. */
  pairsPerSecond: number
  /** Tokens of all sequences as if no prompt were shared. */
  tokensPerSecond: number
  kind: string
  model: string
  template: string
  /** How prompt and response are parted; where the head is read, and the padding token that this goes by. */
  border: string | null
  headAt: string | null
  padTokenId: number | null
  device: string
  fallbackReason: string | null
  dtype: string
  kernels: string
  referenceLoaded: boolean
  cacheHits: number
  cacheMisses: number
  /** For a mixture of experts only: see RewardModel. */
  expertLoad?: ExpertLoad[]
  version: string
}

export function summarize(tally: ScoreTally, model: RewardModel, seconds: number, loadSeconds: number): ScoreSummary {
  const { metrics } = tally
  return {
    rows: tally.rows,
    errors: tally.errors,
    skipped: tally.skipped,
    truncated: tally.truncated,
    borderDiffers: tally.borderDiffers,
    promptParted: tally.promptParted,
    resumedRows: tally.resumedRows,
    pairs: metrics.pairs,
    accuracy: finite(metrics.accuracy),
    meanMargin: finite(metrics.meanMargin),
    normalizedMargin: finite(metrics.normalizedMargin),
    seconds,
    loadSeconds,
    pairsPerSecond: tally.scoredRows / seconds,
    tokensPerSecond: tally.tokens / seconds,
    kind: model.kind,
    model: model.path,
    template: model.templateSource,
    border: model.border ?? null,
    headAt: model.headAt ?? null,
    padTokenId: model.padTokenId ?? null,
    device: model.device,
    fallbackReason: model.fallbackReason ?? null,
    dtype: model.dtype,
    kernels: model.kernels,
    referenceLoaded: model.referenceLoaded,
    cacheHits: model.cacheStatistics.hits,
    cacheMisses: model.cacheStatistics.misses,
    ...(model.expertLoad !== undefined && { expertLoad: model.expertLoad }),
    version: VERSION,
  }
}

export function describeSummary(summary: ScoreSummary): string {
  const rate = `${count(summary.pairsPerSecond)} rows/s, ${count(summary.tokensPerSecond)} tokens/s`
  const lines = [
    `${count(summary.rows)} rows in ${summary.seconds.toFixed(1)} s (${rate}) on ${summary.device} in ${summary.dtype}`,
  ]
  if (summary.accuracy !== null) {
    const margins = `mean margin ${short(summary.meanMargin)}, normalized margin ${short(summary.normalizedMargin)}`
    lines.push(`accuracy ${short(summary.accuracy)}, ${margins}`)
  }
  const odd = (['errors', 'skipped', 'truncated'] as const).filter((key) => summary[key] > 0)
  if (odd.length > 0) lines.push(odd.map((key) => `${count(summary[key])} ${key}`).join(', '))
  if (summary.borderDiffers > 0) {
    const [rule, other] = summary.border === 'whole' ? ['in one piece', 'separate'] : ['apart', 'whole']
    lines.push(
      `${count(summary.borderDiffers)} rows have other tokens with --border ${other}: prompt and response were tokenized ${rule}`,
    )
  }
  if (summary.promptParted > 0)
    lines.push(`${count(summary.promptParted)} rows: the conversation does not begin with the rendered prompt`)
  if (summary.headAt === 'last-non-pad')
    lines.push(`head read at the last token that is not pad_token_id ${summary.padTokenId}, as the checkpoint says`)
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
