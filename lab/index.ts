/**
 * The public API of implex/lab: the experiments of arXiv 2507.07981, and reports made of run folders.
 */
export { type HamiltonianOptions, hamiltonianExperiment } from './experiments/hamiltonian/hamiltonian.js'
export type { ExperimentConduct, ExperimentOptions, ExperimentSettings } from './experiments/options.js'
export type { ExperimentOutcome } from './experiments/outcome.js'
export { type PersonaOptions, personaExperiment } from './experiments/persona/persona.js'
export type {
  AttributionLine,
  Comparison,
  ExperimentKind,
  ExperimentName,
  ExperimentResult,
  Member,
  PaperNumber,
  ResultTable,
  SetInfo,
  Shift,
} from './experiments/result.js'
export type { Json } from '../lib/core/same-run.js'
export { type RewritesOptions, rewritesExperiment } from './experiments/rewrites/rewrites.js'
export { type TheoryOptions, theoryExperiment } from './experiments/theory/theory.js'
export { type ReportOptions, type ReportResult, writeReport } from './report/index.js'
