/**
 * Training curves with caption and numbers, for an experiment or a single training run.
 */
import { type CurvePanel, curvesFigure, meansOf } from './figures/curves.js'
import { type Content, html } from './html.js'
import type { Training } from './load.js'
import { data, fixed } from './numbers.js'
import { lookOf } from './palette.js'
import { figureBlock } from './section.js'
import type { Figure } from './svg.js'
import { figureTable, table } from './table.js'

/** Rows of a table of numbers. */
const ROWS = 12

export function curveSection(
  trainings: readonly Training[],
  labelOf: (set: string) => string,
  id: string,
): { figure: Figure; body: Content } | undefined {
  const curves = curvesFigure(trainings, labelOf, id)
  if (curves === undefined) return undefined
  const { figure, panels, stepsPerPoint } = curves
  const several = trainings.length > new Set(trainings.map(({ kind }) => kind)).size
  const caption = [
    several ? 'Thin lines are seeds, thick lines are their mean. ' : '',
    stepsPerPoint > 1 ? `Each point of the training curves is the mean of ${stepsPerPoint} steps. ` : '',
    'Before training, the loss of the explicit and implicit kinds is ln 2. The accuracies of the sets were measured during training.',
  ]
  return { figure, body: figureBlock(figure, caption, figureTable('Numbers of this figure', panels.map(panelTable))) }
}

function panelTable({ title, curves }: CurvePanel): Content {
  const means = meansOf(curves)
  const epochs = [...new Set(means.flatMap(({ points }) => points.map(({ epoch }) => epoch)))].sort((a, b) => a - b)
  const some =
    epochs.length <= ROWS
      ? epochs
      : Array.from({ length: ROWS }, (_, i) => epochs[Math.round((i * (epochs.length - 1)) / (ROWS - 1))]!)
  const caption =
    some.length < epochs.length
      ? `${title}: mean over seeds at ${some.length} of ${epochs.length} points`
      : `${title}: mean over seeds`
  return html`${table(
    caption,
    [{ name: 'Epoch', numeric: true }, ...means.map(({ kind }) => ({ name: lookOf(kind).label, numeric: true }))],
    some.map((epoch) => [
      data(epoch),
      ...means.map(({ points }) => data(points.find((point) => point.epoch === epoch)?.value, fixed)),
    ]),
  )}`
}
