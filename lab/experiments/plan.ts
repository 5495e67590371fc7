/**
 * What an experiment is, to the runner: its data, and what it measures beside accuracies.
 */
import type { PairRow } from '../../lib/data/rows.js'
import type { Json } from '../../lib/core/same-run.js'
import type { ExperimentSettings, ResolvedExperiment } from './options.js'
import type {
  Comparison,
  ExperimentKind,
  ExperimentName,
  Member,
  PaperNumber,
  ResultTable,
  SetInfo,
  Shift,
} from './result.js'

export interface PlannedSet {
  name: string
  label: string
  /** Name of a shift. */
  shift: string
  rows: PairRow[]
}

/** A trained member, while its model is still there. */
export interface TrainedMember {
  kind: ExperimentKind
  seed: number
  /** Folder of the trained model. */
  model: string
  /** The time told to templates. */
  now: Date
}

/** What came out, for the parts of the result that only the experiment itself can write. */
export interface Findings {
  settings: ExperimentSettings
  sets: SetInfo[]
  members: Member[]
  comparison: Comparison[]
  /** What `observe` returned, by member folder. */
  observations: Record<string, Json>
}

export interface Conclusions {
  headline: string
  notes: string[]
  tables: ResultTable[]
  paper: PaperNumber[]
}

export interface ExperimentPlan {
  experiment: ExperimentName
  title: string
  question: string
  /** What the data was made with: part of what decides the result, and shown with the settings. */
  dataSettings: Record<string, Json>
  /** Tokens that the vocabulary needs beside its own. */
  tokens: string[]
  train: PairRow[]
  shifts: Shift[]
  /** Sets to evaluate on; the training pairs are one of them when named `train`. */
  sets: PlannedSet[]
  /** Sets whose tokens are explained. */
  explain: string[]
  /** Measured on the model before any training. @param now the time told to templates, as in training */
  before?(base: string, now: Date): Promise<ResultTable[]>
  /** Measured on a trained member. */
  observe?(member: TrainedMember): Promise<Json>
  conclude(findings: Findings): Conclusions
}

/** What all members of an experiment have in common. */
export interface MemberContext extends ResolvedExperiment {
  plan: ExperimentPlan
  /** Folder of the model that training starts from. */
  base: string
  /** Path of a set's file. */
  dataOf(set: string): string
  now: Date
}
