/**
 * Checks that results.json and attributions.jsonl have the content (lab/experiments/result.ts) that a report needs.
 */
import { EXPERIMENTS } from '../experiments/result.js'
import { type Check, first, list, number, numberOrNull, oneOf, optional, record, scalar, shape, text } from './check.js'

const kind = oneOf('explicit', 'implicit', 'generative')

const forms = shape({
  experiment: oneOf(...EXPERIMENTS),
  title: text,
  question: text,
  headline: text,
  model: shape({ path: text, name: text, parameters: number }),
  settings: record(() => undefined),
  shifts: list(shape({ name: text, label: text, description: text })),
  sets: list(shape({ name: text, label: text, shift: text, pairs: number })),
  members: list(
    shape({
      kind,
      seed: number,
      folder: text,
      steps: number,
      seconds: number,
      evaluation: record(record(numberOrNull)),
    }),
  ),
  comparison: list(
    shape({
      kind,
      shift: text,
      statistic: text,
      mean: numberOrNull,
      low: numberOrNull,
      high: numberOrNull,
      seeds: list(numberOrNull),
    }),
  ),
  tables: list(shape({ title: text, note: text, columns: list(text), rows: list(list(scalar)) })),
  paper: list(shape({ what: text, kind, paper: number, ours: numberOrNull })),
  notes: list(text),
  date: text,
  seconds: number,
  version: text,
  device: text,
  dtype: text,
  kernels: text,
  threads: number,
})

interface Names {
  shifts: { name: string }[]
  sets: { name: string; shift: string }[]
  members: { folder: string }[]
}

/** Checks that all names that are referred to exist, and that folders stay inside the experiment's folder. */
const references: Check = (value) => {
  const { shifts, sets, members } = value as Names
  const known = new Set(shifts.map(({ name }) => name))
  return first([
    ...sets.map((set, i) => () => (known.has(set.shift) ? undefined : `sets[${i}].shift must be the name of a shift`)),
    ...members.map(
      (member, i) => () =>
        /^(?![/\\])(?!.*(^|[/\\])\.\.([/\\]|$))[^\0]+$/.test(member.folder)
          ? undefined
          : `members[${i}].folder must be a path inside the folder`,
    ),
  ])
}

export const experimentResult: Check = (value, place) => forms(value, place) ?? references(value, place)

const lineForms = shape({
  set: text,
  index: number,
  side: oneOf('chosen', 'rejected'),
  prompt: text,
  tokens: list(text),
  implicit: optional(shape({ seed: number, reward: number, share: list(number) })),
  explicit: optional(shape({ seed: number, reward: number, along: list(number), pool: oneOf('last', 'mean') })),
})

export const attributionLine: Check = (value, place) => {
  const wrong = lineForms(value, place)
  if (wrong !== undefined) return wrong
  const { tokens, implicit, explicit } = value as {
    tokens: string[]
    implicit?: { share: number[] }
    explicit?: { along: number[] }
  }
  const lengths = [
    ['implicit.share', implicit?.share],
    ['explicit.along', explicit?.along],
  ] as const
  for (const [name, values] of lengths)
    if (values !== undefined && values.length !== tokens.length) return `${name} must have one number for each token`
  return undefined
}

export const metricsLine: Check = shape({ step: number, epoch: number, evaluation: optional(text) })
