/**
 * What theory predicts against what was measured, for a table that has a column of each: points on the diagonal agree.
 */
import { extent } from 'd3-array'
import { type ScaleContinuousNumeric, scaleLinear, scaleLog, scaleSymlog } from 'd3-scale'
import type { ResultTable } from '../../experiments/result.js'
import { type Content, html } from '../html.js'
import { digits } from '../numbers.js'
import { kindIn, lookOf } from '../palette.js'
import { type Drawing, type Figure, type Form, legend, line, mark, type Panel, text, WIDTHS } from '../svg.js'

interface Point {
  label: string
  kind: string
  predicted: number
  measured: number
}

/** Undefined for a table that lacks one of the columns, or has no numbers in them. */
export function predictedFigure(table: ResultTable, id: string): Figure | undefined {
  const predicted = table.columns.findIndex((name) => /predict/i.test(name))
  const measured = table.columns.findIndex((name) => /measur/i.test(name))
  if (predicted < 0 || measured < 0) return undefined
  const points = table.rows.flatMap((row): Point[] => {
    const [p, m] = [row[predicted], row[measured]]
    if (typeof p !== 'number' || typeof m !== 'number') return []
    const label = row.filter((cell) => typeof cell === 'string').join(', ')
    return [{ label, kind: kindIn(label) ?? 'sft', predicted: p, measured: m }]
  })
  if (points.length === 0) return undefined
  const said = points.map(
    ({ label, predicted: p, measured: m }) => `${label}: ${digits(p)} predicted, ${digits(m)} measured.`,
  )
  return {
    id,
    title: `Predicted against measured: ${table.title}`,
    description: `On the diagonal, prediction and measurement agree. ${said.slice(0, 20).join(' ')}`,
    draw: (form) => draw(points, form),
  }
}

type Scale = ScaleContinuousNumeric<number, number>

function draw(points: readonly Point[], form: Form): Drawing {
  const at: Panel = { x: 70, y: 34, width: Math.min(WIDTHS[form] - 90, 420), height: form === 'wide' ? 340 : 270 }
  const scale = scaleOf(points)
  const x = scale.copy().range([at.x, at.x + at.width])
  const y = scale.copy().range([at.y + at.height, at.y])
  const [low, high] = scale.domain() as [number, number]
  const kinds = [...new Set(points.flatMap(({ label }) => kindIn(label) ?? []))]
  const ticks = ticksOf(scale)
  return {
    height: at.y + at.height + 44,
    content: [
      kinds.length > 0 && legend(kinds, 70, 12),
      ticks.map(
        (tick): Content => [
          line(x(tick), at.y, x(tick), at.y + at.height, 'stroke-grid'),
          line(at.x, y(tick), at.x + at.width, y(tick), 'stroke-grid'),
          text(x(tick), at.y + at.height + 16, digits(tick, 2), { anchor: 'middle', look: 'muted small' }),
          text(at.x - 6, y(tick) + 4, digits(tick, 2), { anchor: 'end', look: 'muted small' }),
        ],
      ),
      line(x(low), y(low), x(high), y(high), 'stroke-ink', '3 4'),
      text(at.x + at.width / 2, at.y + at.height + 36, 'predicted', { anchor: 'middle', look: 'muted' }),
      html`<g transform="translate(14,${at.y + at.height / 2}) rotate(-90)">${text(0, 0, 'measured', { anchor: 'middle', look: 'muted' })}</g>`,
      points.map(
        (point) =>
          html`<g><title>${point.label}: ${digits(point.predicted)} predicted, ${digits(point.measured)} measured</title>${mark(lookOf(point.kind), x(point.predicted), y(point.measured), 60)}</g>`,
      ),
    ],
  }
}

/** Linear where the values are of one magnitude, else logarithmic, with a linear middle where there are signs or zeros. */
function scaleOf(points: readonly Point[]): Scale {
  const values = points.flatMap(({ predicted, measured }) => [predicted, measured])
  const [least, most] = extent(values) as [number, number]
  const sizes = values.map(Math.abs).filter((size) => size > 0)
  const [small, large] = extent(sizes) as [number, number] | [undefined, undefined]
  if (small === undefined || large === undefined || large / small < 300) {
    const margin = (most - least || Math.abs(most) || 1) * 0.06
    return scaleLinear().domain([least - margin, most + margin])
  }
  if (least > 0) return scaleLog().domain([least / 2, most * 2])
  return scaleSymlog()
    .constant(Math.max(small, large / 1e3))
    .domain([least * 1.5, most * 1.5])
}

/** A few ticks, far enough apart to be readable. */
function ticksOf(scale: Scale): number[] {
  const unit = scale.copy().range([0, 1])
  const [low, high] = scale.domain() as [number, number]
  const powers = Array.from({ length: 61 }, (_, i) => 10 ** (i - 30))
  const symlog = 'constant' in scale
  const candidates = symlog ? [0, ...powers.flatMap((power) => [power, -power])] : scale.ticks(6)
  const kept: number[] = []
  for (const tick of candidates) {
    if (tick < low || tick > high) continue
    if (kept.every((other) => Math.abs(unit(other) - unit(tick)) > 0.11)) kept.push(tick)
  }
  return kept
}
