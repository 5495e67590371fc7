/**
 * The public API of implex, and nothing else.
 */
export { type JsonlOptions, type JsonlSource, readJsonl } from './data/jsonl.js'
export type { OnLong, RewardKind, TrainOnLong } from './data/encode.js'
export type { GroupRow, PairRow, Prompt, Row, RowExtras, RowGroup, RowSource, SourceRow, Text } from './data/rows.js'
export { parseRow } from './data/parse-row.js'
export type { RowShapeName, RowsOption } from './data/shapes/names.js'
export type { ScoredRow } from './data/score-rows.js'
export type { TrainData } from './data/sources.js'
export type { DeviceName, DType } from './native/device.js'
export { type EvaluateOptions, type Evaluation, evaluate } from './evaluate/evaluate.js'
export type { Estimate, PairStatistics, Statistic } from './evaluate/statistics.js'
export {
  type GemmInput,
  type KernelOptions,
  kernels,
  type LinearLogprobInput,
  type LinearRewardInput,
} from './native/kernels.js'
export {
  type GenerateOptions,
  type Generation,
  LanguageModel,
  type LanguageModelOptions,
} from './models/language-model.js'
export { Moments, PreferenceMetrics } from './evaluate/metrics.js'
export { ImplexError, type ImplexErrorCode, type ImplexErrorOptions } from './core/errors.js'
export { type ExpertLoad, RewardModel } from './models/reward-model.js'
export type { RewardModelOptions, ScoreOptions, Scores, ScoreStreamOptions } from './models/reward-options.js'
export type { Schedule } from './train/schedule.js'
export type { TemplateSource } from './text/text-encoder.js'
export type { Checkpoint } from './checkpoint/checkpoint.js'
export type { AdapterPattern, AdapterSettings } from './checkpoint/adapter/settings.js'
export type { Adapter, LowRank } from './checkpoint/adapter/types.js'
export { mergeAdapter, type MergeAdapterOptions, type MergeAdapterResult } from './models/merge-adapter.js'
export type {
  HeadActivation,
  HeadForm,
  HeadGate,
  HeadLayer,
  HeadOutput,
  HeadReadAt,
  HeadSource,
} from './checkpoint/heads.js'
export type { HeadSpec } from './checkpoint/head-spec.js'
export type { LabelWeights } from './checkpoint/reward-head.js'
export type { StepAggregate } from './data/steps.js'
export type { TensorEntry } from './checkpoint/safetensors.js'
export type { Border } from './checkpoint/trained-with.js'
export type { HeadPlaceName, HeadPlaceOption } from './models/head-place.js'
export type { NativeTrainMemory } from './native/types.js'
export type {
  AdapterSpec,
  ExpertsSpec,
  LayerSpec,
  ModelSpec,
  RopeSpec,
  RowSelection,
  StoredDtype,
  WeightSource,
} from './native/spec.js'
export type { OnError } from './data/score-rows.js'
export type { Pool } from './data/rewards.js'
export type { Message, TemplateInputs, TextPart } from './text/messages.js'
export type { Recorded, TrainSummary } from './train/runs/summary.js'
export type { MemoryEstimate } from './train/memory.js'
export type {
  Freezable,
  RecipeName,
  TrainConduct,
  TrainEvaluation,
  TrainKind,
  TrainOptions,
  TrainSettings,
  TrainStep,
} from './train/options.js'
export type { TrainResult } from './train/finish.js'
export { train } from './train/train.js'
