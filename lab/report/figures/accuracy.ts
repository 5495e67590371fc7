/** The main figure: how often each kind gives the better response the higher reward, by shift. */
import type { ExperimentResult } from '../../experiments/result.js'
import type { Figure } from '../svg.js'
import { intervalFigure } from './intervals.js'

export function accuracyFigure(result: ExperimentResult, id: string): Figure | undefined {
  return intervalFigure(result, {
    id,
    title: 'Accuracy by shift and kind',
    statistic: 'accuracy',
    domain: [0, 1],
    axis: 'share of pairs ranked correctly',
    reference: { value: 0.5, label: 'chance' },
  })
}
