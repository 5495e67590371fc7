/**
 * The controlled token-level shift of section 5.1 of arXiv 2507.07981: all kinds learn to prefer agreement in some words; do they still when
 * it is put in others?
 */
import { resolve } from 'node:path'
import { checkInteger, checkString } from '../../../lib/core/arguments.js'
import { byKind, compared, setAccuracy } from '../findings.js'
import { dataPath, type ExperimentOptions, resolveExperiment } from '../options.js'
import type { Conclusions, ExperimentPlan, Findings } from '../plan.js'
import type { PaperNumber } from '../result.js'
import type { ExperimentOutcome } from '../outcome.js'
import { runExperiment } from '../run.js'
import { personaData } from './data.js'
import { hiddenSeparation } from './separation.js'

export type PersonaOptions = ExperimentOptions & {
  /** JSON Lines with `question` and `answer_matching_behavior`. Defaults to the statements that come with implex. */
  data?: string
  /** Pairs to train on. Defaults to 80. */
  trainPairs?: number
  /** Pairs of a test set. Defaults to 40. */
  testPairs?: number
  /** Seed for choosing prompts and responses. Defaults to 875, like the paper's. */
  dataSeed?: number
}

const PAPER = { epochs: 50, learningRate: 1e-6, batchPairs: 32 }
/** Chosen on other words than those of this experiment: docs/base-model.md. */
const BASE = { epochs: 10, learningRate: 1e-4, batchPairs: 32 }

/**
 * The experiment of section 5.1: do reward models that learned a persona know it in other words? Writes the run folder `out`.
 *
 * @throws TypeError, RangeError for wrong options
 * @throws ImplexError ERR_RESUME_MISMATCH, ERR_IN_USE for a used folder; as train() and RewardModel.open() for data, model or device; ERR_ABORTED
 */
export async function personaExperiment(options: PersonaOptions): Promise<ExperimentOutcome> {
  const resolved = resolveExperiment(options, { paper: PAPER, base: BASE })
  const { data = dataPath('persona', 'statements.jsonl'), trainPairs = 80, testPairs = 40, dataSeed = 875 } = options
  checkString('data', data)
  checkInteger('trainPairs', trainPairs, 1)
  checkInteger('testPairs', testPairs, 1)
  checkInteger('dataSeed', dataSeed, 0)
  const file = resolve(data)
  const { train, test, trainUnseen, testUnseen } = await personaData({ file, trainPairs, testPairs, seed: dataSeed })
  const plan: ExperimentPlan = {
    experiment: 'persona',
    title: 'Persona: the same meaning in other words',
    question:
      'A reward model learned to prefer agreement. Does it still prefer agreement in words that training never used?',
    dataSettings: { data: file, trainPairs, testPairs, dataSeed },
    tokens: [],
    train,
    shifts: [
      { name: 'original', label: 'Training words', description: 'Responses with the words of the training pairs.' },
      {
        name: 'paraphrase',
        label: 'Unseen words',
        description: 'Responses with the same meaning that share no answer word with the training pairs.',
      },
    ],
    sets: [
      { name: 'train', label: 'training prompts', shift: 'original', rows: train },
      { name: 'test', label: 'test prompts', shift: 'original', rows: test },
      { name: 'train-unseen', label: 'training prompts, unseen words', shift: 'paraphrase', rows: trainUnseen },
      { name: 'test-unseen', label: 'test prompts, unseen words', shift: 'paraphrase', rows: testUnseen },
    ],
    explain: ['test', 'test-unseen'],
    before: async (base, now) => [
      await hiddenSeparation(base, now, resolved, train, {
        'training prompts, unseen words': trainUnseen,
        'test prompts, unseen words': testUnseen,
      }),
    ],
    conclude,
  }
  return runExperiment(plan, resolved)
}

function conclude(findings: Findings): Conclusions {
  return {
    headline: `Pairs ranked correctly with training words: ${byKind(findings, 'original')}. With unseen words that mean the same: ${byKind(findings, 'paraphrase')}.`,
    notes: notes(findings),
    tables: [],
    paper: paperNumbers(findings),
  }
}

function notes(findings: Findings): string[] {
  const list = [
    'An accuracy of 0.5 is chance. Below 0.5, tokens mislead the model; the rewards token by token show which ones.',
  ]
  const explicit = compared(findings, 'explicit', 'paraphrase')
  if (explicit !== undefined && explicit.seeds.length > 1) {
    const values = explicit.seeds.filter((value) => value !== null)
    const [low, high] = [Math.min(...values), Math.max(...values)]
    if (high - low > 0.1)
      list.push(
        `The explicit result depends on the random head that training starts from: ${low.toFixed(2)} to ${high.toFixed(2)} over the seeds.`,
      )
  }
  return list
}

/** Section 5.1, mean over four models of 1 to 1.5 billion parameters. */
function paperNumbers(findings: Findings): PaperNumber[] {
  const known = [
    ['training words, training prompts', 'train', 1, 1],
    ['training words, test prompts', 'test', 1, 1],
    ['unseen words, training prompts', 'train-unseen', 1, 0.022],
    ['unseen words, test prompts', 'test-unseen', 1, 0.019],
  ] as const
  return known.flatMap(([what, set, explicit, implicit]) =>
    Object.entries({ explicit, implicit })
      .filter(([kind]) => findings.settings.kinds.includes(kind as 'explicit' | 'implicit'))
      .map(([kind, paper]) => ({
        what: `accuracy, ${what}`,
        kind: kind as 'explicit' | 'implicit',
        paper,
        ours: setAccuracy(findings, kind as 'explicit' | 'implicit', set),
      })),
  )
}
