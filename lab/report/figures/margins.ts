/** How far apart the rewards of a pair are, measured in standard deviations, by shift. */
import type { ExperimentResult } from '../../experiments/result.js'
import type { Figure } from '../svg.js'
import { intervalFigure } from './intervals.js'

export function marginFigure(result: ExperimentResult, id: string): Figure | undefined {
  return intervalFigure(result, {
    id,
    title: 'Normalized margin by shift and kind',
    statistic: 'normalizedMargin',
    axis: 'mean |r⁺ − r⁻| in standard deviations',
  })
}
