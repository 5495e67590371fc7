/**
 * The public API of implex, and nothing else.
 */
export { type JsonlOptions, type JsonlSource, readJsonl } from './data/jsonl.js'
export type { OnLong, RewardKind } from './data/encode.js'
export {
  type GroupRow,
  type PairRow,
  parseRow,
  type Row,
  type RowGroup,
  type RowSource,
  type SourceRow,
  type Text,
} from './data/rows.js'
export type { ScoredRow } from './data/score-rows.js'
export type { DeviceName, DType } from './device.js'
export { type EvaluateOptions, type Evaluation, evaluate } from './evaluate.js'
export type { Estimate, PairStatistics, Statistic } from './evaluation/statistics.js'
export {
  type GemmInput,
  type KernelOptions,
  kernels,
  type LinearLogprobInput,
  type LinearRewardInput,
} from './kernels.js'
export { type GenerateOptions, type Generation, LanguageModel, type LanguageModelOptions } from './language-model.js'
export { type HamiltonianOptions, hamiltonianExperiment } from './experiments/hamiltonian/hamiltonian.js'
export type { ExperimentOptions } from './experiments/options.js'
export type { ExperimentOutcome } from './experiments/outcome.js'
export { type PersonaOptions, personaExperiment } from './experiments/persona/persona.js'
export type { AttributionLine, ExperimentResult } from './experiments/result.js'
export { type RewritesOptions, rewritesExperiment } from './experiments/rewrites/rewrites.js'
export { type TheoryOptions, theoryExperiment } from './experiments/theory/theory.js'
export { Moments, PreferenceMetrics } from './metrics.js'
export { ImplexError, type ImplexErrorCode } from './native/errors.js'
export { type ReportOptions, type ReportResult, writeReport } from './report/index.js'
export {
  RewardModel,
  type RewardModelOptions,
  type Scores,
  type ScoreOptions,
  type ScoreStreamOptions,
} from './reward-model.js'
export type { Message } from './text/messages.js'
export type { TrainSummary } from './runs/summary.js'
export type { TrainData, TrainEvaluation, TrainKind, TrainOptions, TrainStep } from './train/options.js'
export { train, type TrainResult } from './trainer.js'
