/**
 * Section 3.2 of arXiv 2507.07981: is an implicit reward model poor because it would have to generate what it verifies? Reward models learn to
 * tell a Hamiltonian cycle from another order of the vertices, and the implicit one is then asked to write cycles itself.
 */
import { CYCLES_AFTER, CYCLES_BEFORE } from '../table-notes.js'
import { checkInteger, checkNumber, checkOneOf } from '../../../lib/core/arguments.js'
import { LanguageModel } from '../../../lib/models/language-model.js'
import { byKind, compared, percent } from '../findings.js'
import { type ExperimentOptions, resolveExperiment } from '../options.js'
import type { ExperimentOutcome } from '../outcome.js'
import type { Conclusions, ExperimentPlan, Findings } from '../plan.js'
import type { ResultTable } from '../result.js'
import { runExperiment } from '../run.js'
import { type HamiltonianPair, hamiltonianData } from './data.js'
import { type GenerationRate, generationRate } from './generation-rate.js'
import { SEPARATORS } from './graph.js'

export type HamiltonianOptions = ExperimentOptions & {
  /** Vertices per graph. Defaults to 10. */
  vertices?: number
  /** Probability of each edge outside the cycle, 0 to 1. Defaults to 0.2. */
  edgeProbability?: number
  /** Pairs to train on. Defaults to 1000. */
  trainPairs?: number
  /** Pairs of the test set. Defaults to 200. */
  testPairs?: number
  /** Seed of the graphs. Defaults to 982, as the paper's. */
  dataSeed?: number
  /**
   * `added`: between vertices and inside an edge stand tokens added to the vocabulary, as in the paper; `plain`: a space and a hyphen, which a
   * model may have seen in pretraining. Defaults to 'added'.
   */
  separators?: 'added' | 'plain'
  /** Test graphs for which the model writes a cycle, one try each. Defaults to all. */
  generations?: number
}

const PAPER = { epochs: 15, learningRate: 1e-6, batchPairs: 32 }
const BASE = { epochs: 5, learningRate: 3e-4, batchPairs: 32 }
export const SEPARATOR_KINDS = ['added', 'plain'] as const
const PLAIN = { vertex: ' ', edge: '-' }
/** New tokens of one try. */
const MAX_NEW_TOKENS = 300

/**
 * The experiment of section 3.2: must a model that verifies Hamiltonian cycles be able to generate them? Writes the run folder `out`.
 *
 * @throws TypeError, RangeError for wrong options
 * @throws ImplexError ERR_RESUME_MISMATCH, ERR_IN_USE for a used folder; as train() and RewardModel.open() for data, model or device; ERR_ABORTED
 */
export async function hamiltonianExperiment(options: HamiltonianOptions): Promise<ExperimentOutcome> {
  const resolved = resolveExperiment(options, { paper: PAPER, base: BASE })
  const { vertices = 10, edgeProbability = 0.2, trainPairs = 1000, testPairs = 200, dataSeed = 982 } = options
  const { generations = testPairs, separators = 'added' } = options
  checkInteger('vertices', vertices, 4, 100)
  checkNumber('edgeProbability', edgeProbability, 0, 1)
  checkInteger('trainPairs', trainPairs, 1)
  checkInteger('testPairs', testPairs, 1)
  checkInteger('dataSeed', dataSeed, 0)
  checkInteger('generations', generations, 0, testPairs)
  checkOneOf('separators', separators, SEPARATOR_KINDS)
  const { train, test } = hamiltonianData({
    vertices,
    p: edgeProbability,
    train: trainPairs,
    test: testPairs,
    seed: dataSeed,
    separators: separators === 'added' ? SEPARATORS : PLAIN,
  })
  const { conduct, settings } = resolved
  const write = async (model: string, now: Date): Promise<GenerationRate> => {
    using opened = await LanguageModel.open(model, {
      device: conduct.device,
      dtype: settings.dtype,
      template: settings.template,
      now,
      signal: conduct.signal,
    })
    return await generationRate(opened, test.slice(0, generations), {
      maxNewTokens: MAX_NEW_TOKENS,
      signal: conduct.signal,
    })
  }
  const rows = (pairs: readonly HamiltonianPair[]) => pairs.map(({ row }) => row)
  const plan: ExperimentPlan = {
    experiment: 'hamiltonian',
    title: 'Hamiltonian cycles: recognizing without writing',
    question: 'Must an implicit reward model be able to write what it recognizes?',
    dataSettings: { vertices, edgeProbability, trainPairs, testPairs, dataSeed, separators, generations },
    tokens: separators === 'added' ? Object.values(SEPARATORS) : [],
    train: rows(train),
    shifts: [
      { name: 'seen', label: 'Training graphs', description: 'Graphs from the training pairs.' },
      { name: 'held-out', label: 'New graphs', description: 'Graphs that are in no training pair.' },
    ],
    sets: [
      { name: 'train', label: 'training graphs', shift: 'seen', rows: rows(train.slice(0, testPairs)) },
      { name: 'test', label: 'new graphs', shift: 'held-out', rows: rows(test) },
    ],
    explain: ['test'],
    ...(generations === 0
      ? {}
      : {
          before: async (base, now) => [rateTable(CYCLES_BEFORE, [['base model', await write(base, now)]])],
          observe: async ({ kind, model, now }) => {
            if (kind !== 'implicit') return null
            const { correct, total, examples } = await write(model, now)
            return { correct, total, texts: examples.slice(0, 3).map(({ text }) => text) }
          },
        }),
    conclude,
  }
  return runExperiment(plan, resolved)
}

interface Written {
  correct: number
  total: number
  texts: string[]
}

function conclude(findings: Findings): Conclusions {
  const written = findings.members
    .filter(({ kind }) => kind === 'implicit')
    .map(({ seed, folder }) => ({ seed, rate: findings.observations[folder] as unknown as Written | null }))
    .filter((one): one is { seed: number; rate: Written } => one.rate !== null)
  const correct = written.reduce((sum, { rate }) => sum + rate.correct, 0)
  const total = written.reduce((sum, { rate }) => sum + rate.total, 0)
  const best = Math.max(...findings.settings.kinds.map((kind) => compared(findings, kind, 'held-out')?.mean ?? 0))
  return {
    headline:
      `Pairs ranked correctly on new graphs: ${byKind(findings, 'held-out')}.` +
      (total === 0 ? '' : ` Cycles that the implicit model writes: ${correct} in ${total} tries.`),
    notes: [
      'An accuracy of 0.5 is chance. A try is one sample at temperature 1 with at most 300 tokens. It counts if it names every vertex once and every step is an edge, including the step back to the start.',
      ...(best < 0.95
        ? [
            `No kind reached 0.95 on new graphs here (best: ${percent(best)}). A model of this size can hardly learn to look up ten edges from this number of pairs.`,
          ]
        : []),
    ],
    tables:
      total === 0
        ? []
        : [
            rateTable(
              CYCLES_AFTER,
              written.map(({ seed, rate }) => [`seed ${seed}`, rate]),
            ),
          ],
    paper: (['implicit'] as const)
      .filter((kind) => findings.settings.kinds.includes(kind))
      .flatMap((kind) => [
        { what: 'accuracy, new graphs', kind, paper: 0.993, ours: compared(findings, kind, 'held-out')?.mean ?? null },
        ...(total === 0 ? [] : [{ what: 'share of correct cycles generated', kind, paper: 0, ours: correct / total }]),
      ]),
  }
}

function rateTable(
  head: Pick<ResultTable, 'title' | 'note'>,
  rows: [string, Pick<GenerationRate, 'correct' | 'total'>][],
): ResultTable {
  return {
    ...head,
    columns: ['model', 'tries', 'correct', 'share'],
    rows: rows.map(([name, { correct, total }]) => [name, total, correct, total === 0 ? null : correct / total]),
  }
}
