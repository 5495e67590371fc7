/**
 * Footnote 3 of arXiv 2507.07981: do the model's hidden states, before any training, let a linear head carry over from seen to unseen words?
 * The max-margin separator of the training pairs' differences h(chosen) - h(rejected) is what a head would converge to; its inner products with
 * the differences of unseen pairs say what it would make of them.
 */
import { SEPARATION } from '../table-notes.js'
import type { PairRow } from '../../../lib/data/rows.js'
import { type HiddenPair, hiddenStates } from '../hidden-states.js'
import type { ResolvedExperiment } from '../options.js'
import type { ResultTable } from '../result.js'
import { dot, fiveNumbers, maxMarginSeparator } from './separator.js'

export async function hiddenSeparation(
  model: string,
  now: Date,
  { settings, conduct }: Pick<ResolvedExperiment, 'settings' | 'conduct'>,
  train: readonly PairRow[],
  unseen: Record<string, readonly PairRow[]>,
): Promise<ResultTable> {
  const names = Object.keys(unseen)
  const states = await hiddenStates(model, now, settings, conduct, { train, ...unseen })
  const difference = ({ chosen, rejected }: HiddenPair) => chosen.map((value, i) => value - rejected[i]!)
  const seen = states.train!.map(difference)
  const separator = maxMarginSeparator(seen)
  const columns = ['differences', 'pairs', 'min', '25 %', 'median', '75 %', 'max', 'above 0']
  if (separator === undefined)
    return {
      title: SEPARATION.title,
      note: 'No plane through the origin has all training differences on one side, so there is no max-margin separator.',
      columns,
      rows: [],
    }
  const { weight } = separator
  const norm = Math.sqrt(dot(weight, weight))
  const row = (label: string, differences: readonly Float64Array[]) => {
    const cosines = differences.map((d) => dot(weight, d) / (norm * Math.sqrt(dot(d, d)) || 1))
    const { min, lower, median, upper, max, positive } = fiveNumbers(cosines)
    return [label, differences.length, min, lower, median, upper, max, positive]
  }
  return {
    ...SEPARATION,
    columns,
    rows: [row('training words', seen), ...names.map((name) => row(name, states[name]!.map(difference)))],
  }
}
