/**
 * Training curves: loss and accuracy of the steps, then accuracy of each set that was evaluated during training. A thin line for each seed, a
 * thick one for their mean; kinds differ by color and dash.
 */
import { group, max, mean } from 'd3-array'
import { scaleLinear } from 'd3-scale'
import { line as path } from 'd3-shape'
import { type Content, html } from '../html.js'
import type { MetricsLine, Training } from '../load.js'
import { fixed } from '../numbers.js'
import { lookOf } from '../palette.js'
import {
  type Drawing,
  type Figure,
  type Form,
  legend,
  line,
  mark,
  type Panel,
  panels,
  text,
  xAxis,
  yAxis,
} from '../svg.js'

/** More points than this would be a line thicker than the differences it shows. */
const POINTS = 160

export interface Curve {
  kind: string
  seed: number
  points: Point[]
}

interface Point {
  epoch: number
  value: number
}

export interface CurvePanel {
  title: string
  /** Upper end of the axis; undefined for the loss, which has none. */
  top: number | undefined
  reference?: { value: number; label: string }
  curves: Curve[]
}

export interface Curves {
  figure: Figure
  panels: CurvePanel[]
  /** Steps behind each point of the training curves. */
  stepsPerPoint: number
}

/** Undefined if there are no metrics. */
export function curvesFigure(
  trainings: readonly Training[],
  labelOf: (set: string) => string,
  id: string,
): Curves | undefined {
  const steps = Math.max(...trainings.map(({ metrics }) => metrics.filter(isStep).length), 0)
  const stepsPerPoint = Math.max(1, Math.ceil(steps / POINTS))
  const list = panelsOf(trainings, labelOf, stepsPerPoint)
  if (list.length === 0) return undefined
  const kinds = [...new Set(trainings.map(({ kind }) => kind))]
  const ends = list.map(({ title, curves }) => {
    const last = meansOf(curves).map((curve) => `${curve.kind} ${fixed(curve.points.at(-1)?.value)}`)
    return `${title} ends at: ${last.join(', ')}.`
  })
  const figure: Figure = {
    id,
    title: 'Training curves',
    description: `By epoch, mean over the seeds. ${ends.join(' ')}`,
    draw: (form) => draw(list, kinds, form),
  }
  return { figure, panels: list, stepsPerPoint }
}

const isStep = ({ evaluation }: MetricsLine) => evaluation === undefined

function panelsOf(
  trainings: readonly Training[],
  labelOf: (set: string) => string,
  stepsPerPoint: number,
): CurvePanel[] {
  const curves = (name: string, evaluation?: string): Curve[] =>
    trainings
      .map(({ kind, seed, metrics }) => {
        const lines = metrics.filter((one) => one.evaluation === evaluation)
        const size = evaluation === undefined ? stepsPerPoint : 1
        return { kind, seed, points: pointsOf(lines, name, size) }
      })
      .filter(({ points }) => points.length > 0)
  const sets = [...new Set(trainings.flatMap(({ metrics }) => metrics.map(({ evaluation }) => evaluation)))]
  const chance = { value: 0.5, label: 'chance' }
  const list: CurvePanel[] = [
    { title: 'Training loss', top: undefined, reference: { value: Math.LN2, label: 'ln 2' }, curves: curves('loss') },
    { title: 'Training accuracy', top: 1, reference: chance, curves: curves('accuracy') },
  ]
  for (const set of sets) {
    if (set === undefined) continue
    const accuracy = curves('accuracy', set)
    if (accuracy.length > 0)
      list.push({ title: `Accuracy: ${labelOf(set)}`, top: 1, reference: chance, curves: accuracy })
    else list.push({ title: `Loss: ${labelOf(set)}`, top: undefined, curves: curves('loss', set) })
  }
  return list.filter((panel) => panel.curves.length > 0)
}

/** Means of `size` lines at a time. */
function pointsOf(lines: readonly MetricsLine[], name: string, size: number): Point[] {
  const points: Point[] = []
  for (let i = 0; i < lines.length; i += size) {
    const part = lines.slice(i, i + size).filter((one) => typeof one[name] === 'number')
    if (part.length === 0) continue
    points.push({ epoch: part.at(-1)!.epoch, value: mean(part, (one) => one[name] as number)! })
  }
  return points
}

/** Mean curve per kind, at the epochs that all of its seeds have. */
export function meansOf(curves: readonly Curve[]): Curve[] {
  return [...group(curves, ({ kind }) => kind)].map(([kind, of]) => {
    const values = group(
      of.flatMap(({ points }) => points),
      ({ epoch }) => epoch,
    )
    const points = [...values]
      .filter(([, found]) => found.length === of.length)
      .map(([epoch, found]) => ({ epoch, value: mean(found, ({ value }) => value)! }))
      .sort((a, b) => a.epoch - b.epoch)
    return { kind, seed: -1, points }
  })
}

function draw(list: readonly CurvePanel[], kinds: readonly string[], form: Form): Drawing {
  const { at, bottom } = panels(list.length, form, { most: 2, top: 66, height: 150, gap: 74, left: 36 })
  return {
    height: bottom + 42,
    content: [legend(kinds, 4, 14), list.map((panel, i) => drawPanel(panel, at[i]!))],
  }
}

function drawPanel({ title, top, reference, curves }: CurvePanel, at: Panel): Content {
  const means = meansOf(curves)
  const all = curves.flatMap(({ points }) => points)
  const x = scaleLinear()
    .domain([0, max(all, ({ epoch }) => epoch) || 1])
    .range([at.x, at.x + at.width])
  const y = scaleLinear().range([at.y + at.height, at.y])
  if (top === undefined) y.domain([0, Math.max(max(all, ({ value }) => value)!, reference?.value ?? 0) || 1]).nice(4)
  else y.domain([0, top])
  const draw = path<Point>(
    ({ epoch }) => x(epoch),
    ({ value }) => y(value),
  ).digits(2)
  const stroke = (curve: Curve, look: string, width: number) =>
    html`<path d="${draw(curve.points)!}" class="${look} stroke-${lookOf(curve.kind).color}" stroke-width="${width}" stroke-dasharray="${lookOf(curve.kind).dash}"/>`
  return [
    text(at.x - 32, at.y - 14, title, { look: 'bold', room: at.width + 32 }),
    yAxis(y, at, 4),
    xAxis(x, at, 5, 'epochs', false),
    reference !== undefined && [
      line(at.x, y(reference.value), at.x + at.width, y(reference.value), 'stroke-ink', '3 4'),
      text(at.x + at.width, y(reference.value) - 5, reference.label, { anchor: 'end', look: 'muted small' }),
    ],
    curves.map((curve) => stroke(curve, 'thin', 1)),
    means.map((curve) => stroke(curve, '', 2.25)),
    means.map(({ kind, points: of }) => {
      const end = of.at(-1)
      return end !== undefined && mark(lookOf(kind), x(end.epoch), y(end.value), 52)
    }),
  ]
}
