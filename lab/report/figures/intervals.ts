/**
 * Estimates with their 95% intervals, one row for each kind, grouped by shift: a bar for the interval, the kind's mark for the mean, and a
 * hollow mark for each seed below it. accuracy.ts and margins.ts are this figure with their own scale.
 */
import { extent } from 'd3-array'
import { scaleLinear } from 'd3-scale'
import type { Comparison, ExperimentResult } from '../../experiments/result.js'
import { type Content, html } from '../html.js'
import { fixed, interval } from '../numbers.js'
import { lookOf } from '../palette.js'
import { type Figure, type Form, line, mark, type Panel, px, text, WIDTHS, xAxis } from '../svg.js'

export interface IntervalFigure {
  id: string
  title: string
  statistic: Comparison['statistic']
  /** Range of the axis. By default it fits the values and includes zero. */
  domain?: [number, number]
  axis: string
  /** A line to compare with. */
  reference?: { value: number; label: string }
}

const ROW = 24
const SEED = 5
const LAYERS = 4

/** Undefined if nothing was measured. */
export function intervalFigure(result: ExperimentResult, options: IntervalFigure): Figure | undefined {
  const groups = groupsOf(result, options.statistic)
  if (groups.length === 0) return undefined
  const said = groups.map(
    ({ label, rows }) =>
      `${label}: ${rows.map(({ kind, mean, low, high }) => `${kind} ${fixed(mean)} (${interval(low, high)})`).join(', ')}.`,
  )
  return {
    id: options.id,
    title: options.title,
    description: `${options.title}: ${options.axis}, with 95% intervals. ${said.join(' ')}`,
    draw: (form) => draw(groups, options, form),
  }
}

interface Group {
  label: string
  rows: Comparison[]
}

/** Rows in the order of the shifts, without those that have no value. */
export function groupsOf({ shifts, comparison }: ExperimentResult, statistic: Comparison['statistic']): Group[] {
  return shifts
    .map(({ name, label }) => ({
      label,
      rows: comparison.filter((one) => one.shift === name && one.statistic === statistic && one.mean !== null),
    }))
    .filter(({ rows }) => rows.length > 0)
}

function draw(groups: readonly Group[], { domain, axis, reference }: IntervalFigure, form: Form) {
  const wide = form === 'wide'
  const names = wide ? 318 : 92
  const values = wide ? 178 : 54
  const top = reference === undefined ? 10 : 26
  let height = top
  const content: Content[] = []
  const plot: Panel = { x: names, y: top, width: WIDTHS[form] - names - values, height: 0 }
  const all = groups
    .flatMap(({ rows }) => rows.flatMap(({ mean, low, high, seeds }) => [mean, low, high, ...seeds]))
    .filter((value) => value !== null)
  const [least, most] = extent([0, ...all]) as [number, number]
  const x = scaleLinear()
    .domain(domain ?? [least, most || 1])
    .range([plot.x, plot.x + plot.width])
  if (domain === undefined) x.nice()

  for (const [i, { label, rows }] of groups.entries()) {
    if (i > 0) {
      content.push(line(0, height + 5, WIDTHS[form], height + 5, 'stroke-line'))
      height += 10
    }
    if (!wide) {
      content.push(text(0, height + 16, label, { look: 'bold', room: WIDTHS[form] }))
      height += 24
    }
    for (const [j, row] of rows.entries()) {
      const look = lookOf(row.kind)
      const layers = layersOf(row.seeds, x)
      const room = ROW + SEED * Math.min(LAYERS, 1 + Math.max(...layers.map(({ layer }) => layer), 0))
      const y = height + 14
      if (wide && j === 0) content.push(text(0, y + 4, label, { look: 'bold', room: names - 124 }))
      const left = wide ? names - 112 : 0
      content.push(mark(look, left + 7, y, 60), text(left + 20, y + 4, look.label, { look: `ink-${look.color}` }))
      content.push(drawRow(row, look.color, x, y))
      for (const { value, layer } of layers)
        content.push(mark(look, x(value), y + 12 + SEED * Math.min(layer, LAYERS - 1), 17, false))
      content.push(mark(look, x(row.mean!), y, 105))
      const range = interval(row.low, row.high)
      content.push(
        text(plot.x + plot.width + (wide ? 16 : 12), y + 4, fixed(row.mean), { look: `bold ink-${look.color}` }),
      )
      if (wide && range !== '') content.push(text(plot.x + plot.width + 64, y + 4, range, { look: 'muted' }))
      height += room
    }
  }
  plot.height = height + 4 - top
  const below: Content = [
    xAxis(x, plot, wide ? 6 : 4, axis),
    reference !== undefined && [
      line(x(reference.value), top - 4, x(reference.value), top + plot.height, 'stroke-ink', '3 4'),
      text(x(reference.value), top - 10, reference.label, { anchor: 'middle', look: 'muted small' }),
    ],
  ]
  return { height: height + 46, content: [below, content] }
}

function drawRow({ low, high }: Comparison, color: string, x: (value: number) => number, y: number): Content {
  if (low === null || high === null) return null
  const width = Math.max(x(high) - x(low), 0)
  return [
    html`<rect x="${px(x(low))}" y="${px(y - 4)}" width="${px(width)}" height="8" class="bar-${color}"/>`,
    [low, high].map((end) => line(x(end), y - 6, x(end), y + 6, `stroke-${color}`)),
  ]
}

/** Places seeds that would overlap below each other. */
function layersOf(seeds: readonly (number | null)[], x: (value: number) => number): { value: number; layer: number }[] {
  const ends: number[] = []
  return seeds
    .filter((value) => value !== null)
    .sort((a, b) => a - b)
    .map((value) => {
      const at = x(value)
      let layer = ends.findIndex((end) => at - end >= 6)
      if (layer < 0) layer = ends.length
      ends[layer] = at
      return { value, layer }
    })
}
