/**
 * Section 5.2 of arXiv 2507.07981: trained on one set of preferences, how do the kinds do on it, when its responses are put in other words or
 * languages, and in another domain?
 */
import { isAbsolute, join, resolve } from 'node:path'
import { checkInteger, checkObject, checkString, invalidArgument, outOfRange } from '../../../lib/core/arguments.js'
import { checkSetName } from '../../../lib/data/sources.js'
import { byKind } from '../findings.js'
import { type ExperimentOptions, resolveExperiment } from '../options.js'
import type { Conclusions, ExperimentPlan, Findings, PlannedSet } from '../plan.js'
import type { PaperNumber, Shift } from '../result.js'
import type { ExperimentOutcome } from '../outcome.js'
import { runExperiment } from '../run.js'
import { readPairs, sample } from './data.js'

export type RewritesOptions = ExperimentOptions & {
  /** The pairs to train on. */
  train: string
  /** Sets to evaluate on, by name: files of pairs. */
  data: Record<string, string>
  /** Names of sets by shift, for the shifts of SHIFTS and others. Defaults to a shift of its own for each set. */
  shifts?: Record<string, string[]>
  /** Folder that relative paths of data start from. Defaults to the working directory. */
  dataDir?: string
  /** Draw so many pairs to train on. Defaults to all. */
  trainPairs?: number
  /** Draw so many pairs of each set, where it has more. Defaults to all. */
  testPairs?: number
  /** Seed for choosing the data. Defaults to 517, like the paper's. */
  dataSeed?: number
}

const PAPER = { epochs: 5, learningRate: 1e-6, batchPairs: 32 }
const BASE = { epochs: 5, learningRate: 3e-4, batchPairs: 32 }

/** What the paper calls its groups of sets, by the names that `shifts` uses. */
export const SHIFTS: Record<string, { label: string; description: string }> = {
  'in-distribution': { label: 'In distribution', description: 'Held-out pairs from the training data.' },
  'token-level': {
    label: 'Token-level shift',
    description: 'The same preferences, with paraphrased or translated responses.',
  },
  domain: { label: 'Domain shift', description: 'Preferences from another domain, such as mathematics or code.' },
}

/**
 * The experiment of section 5.2: the same preference in another wording, language or domain. Writes the run folder `out`.
 *
 * @throws TypeError, RangeError for wrong options
 * @throws ImplexError ERR_RESUME_MISMATCH, ERR_IN_USE for a used folder; as train() and RewardModel.open() for data, model or device; ERR_ABORTED
 */
export async function rewritesExperiment(options: RewritesOptions): Promise<ExperimentOutcome> {
  const resolved = resolveExperiment(options, { paper: PAPER, base: BASE })
  const { train, data, dataDir = '.', trainPairs, testPairs, dataSeed = 517 } = options
  checkString('train', train)
  checkObject('data', data)
  if (Object.keys(data).length === 0) throw invalidArgument('data', 'at least one set by name', data)
  checkString('dataDir', dataDir)
  if (trainPairs !== undefined) checkInteger('trainPairs', trainPairs, 1)
  if (testPairs !== undefined) checkInteger('testPairs', testPairs, 1)
  checkInteger('dataSeed', dataSeed, 0)
  for (const [name, file] of Object.entries(data)) {
    checkSetName(name)
    checkString(`data.${name}`, file)
  }
  const shiftOf = assignShifts(Object.keys(data), options.shifts)
  const place = (file: string) => (isAbsolute(file) ? file : resolve(join(dataDir, file)))

  const all = await readPairs(place(train))
  const rows = trainPairs === undefined ? all : sample(all, trainPairs, dataSeed, place(train))
  const sets: PlannedSet[] = []
  for (const [name, file] of Object.entries(data)) {
    const pairs = await readPairs(place(file))
    const count = Math.min(testPairs ?? pairs.length, pairs.length)
    sets.push({
      name,
      label: name,
      shift: shiftOf.get(name)!,
      rows: sample(pairs, count, dataSeed, place(file)),
    })
  }
  const names = [...new Set(shiftOf.values())]
  const plan: ExperimentPlan = {
    experiment: 'rewrites',
    title: 'Rewrites: other words, other languages, other domains',
    question:
      'The kinds are trained on the same pairs. Which kind still ranks responses correctly when they are rewritten or come from another domain?',
    dataSettings: {
      train: place(train),
      data: Object.fromEntries(Object.entries(data).map(([name, file]) => [name, place(file)])),
      shifts: Object.fromEntries(
        names.map((shift) => [shift, sets.filter((s) => s.shift === shift).map((s) => s.name)]),
      ),
      trainPairs: rows.length,
      testPairs: testPairs ?? null,
      dataSeed,
    },
    tokens: [],
    train: rows,
    shifts: names.map(
      (name): Shift => ({
        name,
        ...(Object.hasOwn(SHIFTS, name) ? SHIFTS[name]! : { label: name, description: `The set ${name}.` }),
      }),
    ),
    sets,
    explain: sets.slice(0, 2).map(({ name }) => name),
    conclude,
  }
  return runExperiment(plan, resolved)
}

/** @throws RangeError for a shift's set that is not there, or is in two shifts */
function assignShifts(names: readonly string[], shifts: Record<string, string[]> = {}): Map<string, string> {
  checkObject('shifts', shifts)
  const shiftOf = new Map<string, string>()
  for (const [shift, sets] of Object.entries(shifts)) {
    checkSetName(shift)
    if (!Array.isArray(sets)) throw invalidArgument(`shifts.${shift}`, 'a list of names of sets', sets)
    for (const set of sets) {
      if (!names.includes(set))
        throw outOfRange(`shifts.${shift}`, `made of the sets that data names: ${names.join(', ')}`, set)
      if (shiftOf.has(set)) throw outOfRange(`shifts.${shift}`, 'made of sets that no other shift has', set)
      shiftOf.set(set, shift)
    }
  }
  for (const name of names) if (!shiftOf.has(name)) shiftOf.set(name, name)
  // In the order of the data, so that tables read as the caller wrote them.
  return new Map(names.map((name) => [name, shiftOf.get(name)!]))
}

function conclude(findings: Findings): Conclusions {
  const shifts = [...new Set(findings.sets.map(({ shift }) => shift))]
  const label = (shift: string) => SHIFTS[shift]?.label ?? shift
  return {
    headline: `Pairs ranked correctly: ${shifts.map((shift) => `${label(shift).toLowerCase()} ${byKind(findings, shift)}`).join('; ')}.`,
    notes: [
      'An accuracy of 0.5 is chance. Intervals are over seeds and prompts. If the intervals of two kinds overlap much, no difference was shown.',
      'The paper trained models with 1 to 8 billion parameters. A small model knows little about what makes a response better, and may stay near chance everywhere.',
    ],
    tables: [],
    paper: paperNumbers(findings, shifts),
  }
}

/** Section 5.2, means over six models of 1 to 8 billion parameters trained on UltraFeedback. */
const REPORTED = {
  accuracy: {
    'in-distribution': { explicit: 0.752, implicit: 0.646 },
    'token-level': { explicit: 0.665, implicit: 0.602 },
    domain: { explicit: 0.621, implicit: 0.72 },
  },
  normalizedMargin: {
    'in-distribution': { explicit: 1.014, implicit: 0.813 },
    'token-level': { explicit: 0.976, implicit: 0.763 },
    domain: { explicit: 0.807, implicit: 0.726 },
  },
} as const

function paperNumbers({ comparison }: Findings, shifts: readonly string[]): PaperNumber[] {
  const what = { accuracy: 'accuracy', normalizedMargin: 'normalized margin' }
  return comparison.flatMap(({ kind, shift, statistic, mean }) => {
    if (statistic !== 'accuracy' && statistic !== 'normalizedMargin') return []
    if (kind === 'generative' || !shifts.includes(shift) || !(shift in REPORTED.accuracy)) return []
    const paper = REPORTED[statistic][shift as keyof (typeof REPORTED)['accuracy']][kind]
    return [{ what: `${what[statistic]}, ${SHIFTS[shift]!.label.toLowerCase()}`, kind, paper, ours: mean }]
  })
}
