/**
 * What an experiment leaves in its run folder, and what a report is made from:
 *
 *   config.json                     options as resolved, and what decides the result
 *   data/SET.jsonl                  the pairs of each set, as trained on or evaluated
 *   members/KIND-SEED/              one training: a run folder (config.json, metrics.jsonl, summary.json, with --keep-models model/)
 *   members/KIND-SEED/rewards/SET.jsonl   rewards of each pair, as `implex eval --rewards` writes them
 *   attributions.jsonl              AttributionLine: the tokens of some responses with their share of the reward
 *   results.json                    ExperimentResult; last of all: with it the experiment is complete
 *
 * Paths inside results.json are relative to the folder, so that it may be moved. Numbers that are not there are null, never NaN.
 */
import type { PairStatistics } from '../../lib/evaluate/statistics.js'
import type { Json } from '../../lib/core/same-run.js'

export const RESULT_FORMAT = 1
export const EXPERIMENTS = ['persona', 'hamiltonian', 'rewrites', 'theory'] as const
export type ExperimentName = (typeof EXPERIMENTS)[number]
export type ExperimentKind = 'explicit' | 'implicit' | 'generative'

/** Sets that ask the same question of a reward model: the paper's in-distribution, token-level shift and domain shift, for example. */
export interface Shift {
  /** Short and unique: `original`, `paraphrase`. */
  name: string
  /** For people: `Training words`, `Unseen words`. */
  label: string
  /** One sentence: what differs from the training data. */
  description: string
}

export interface SetInfo {
  name: string
  label: string
  /** Name of a shift. */
  shift: string
  pairs: number
}

/** One training with one seed, evaluated on every set. */
export interface Member {
  kind: ExperimentKind
  seed: number
  /** Relative folder of the training run; its metrics.jsonl has the curves. */
  folder: string
  steps: number
  /** Time of the training steps in seconds. */
  seconds: number
  /** By set; for the generative kind the loss is null, because a reward is p("Yes") alone. */
  evaluation: Record<string, { [S in keyof PairStatistics]: number | null }>
}

/** A statistic of one kind over the sets of one shift, and over all seeds. */
export interface Comparison {
  kind: ExperimentKind
  shift: string
  statistic: 'accuracy' | 'normalizedMargin' | 'meanMargin' | 'brier' | 'ece'
  /** Mean over the seeds; of each seed, over the shift's sets. */
  mean: number | null
  /** 95% interval: seeds and, within a set, pairs drawn anew (percentiles of a seeded two-level bootstrap). */
  low: number | null
  high: number | null
  /** By seed, in the order of the members of this kind. */
  seeds: (number | null)[]
}

/** Anything else that was measured: a statistic of hidden states, rates of generation, predicted against measured. */
export interface ResultTable {
  title: string
  /** One or two sentences that say how to read it. */
  note: string
  columns: string[]
  rows: (string | number | boolean | null)[][]
}

/** A number of the paper beside ours. */
export interface PaperNumber {
  what: string
  kind: ExperimentKind
  paper: number
  ours: number | null
}

export interface ExperimentResult {
  format: typeof RESULT_FORMAT
  experiment: ExperimentName
  title: string
  /** The question, one sentence. */
  question: string
  /** The answer in one or two sentences of plain words, made from the numbers below. */
  headline: string
  /** The checkpoint: its folder as given, and for people a name and its size. */
  model: { path: string; name: string; parameters: number }
  /** Options as resolved: epochs, learningRate by kind, beta, seeds, dataSeed … */
  settings: Record<string, Json>
  shifts: Shift[]
  sets: SetInfo[]
  members: Member[]
  comparison: Comparison[]
  tables: ResultTable[]
  paper: PaperNumber[]
  /** Caveats: what a reader must know before quoting a number. */
  notes: string[]
  /** ISO 8601. */
  date: string
  /** Time of the whole experiment in seconds, summed over all processes that worked on it. */
  seconds: number
  version: string
  device: string
  dtype: string
  kernels: string
  threads: number
}

/** A line of attributions.jsonl: one response, its tokens, and what each kind makes of them. */
export interface AttributionLine {
  set: string
  /** Index of the pair in its set, from 0. */
  index: number
  side: 'chosen' | 'rejected'
  /** The text as a person reads it, without the template. */
  prompt: string
  /** The response's tokens as text; joined they are the response with the template's ending. */
  tokens: string[]
  /**
   * `implicit`: share[k] = β (ln π - ln π_ref) of token k; the reward is their sum.
   * `explicit`: along[k] = u·h at token k, the reward if the response ended there; with pool `last` the reward is the last one, with
   * `mean` their mean.
   */
  implicit?: { seed: number; reward: number; share: number[] }
  explicit?: { seed: number; reward: number; along: number[]; pool: 'last' | 'mean' }
}
