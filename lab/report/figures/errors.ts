/**
 * How far each measurement is from its prediction, against the bound that it must keep, for a table that has both: on a logarithmic scale,
 * since errors of rounding and bounds lie decades apart. An error of zero stands at the left end.
 */
import { scaleLog } from 'd3-scale'
import type { ResultTable } from '../../experiments/result.js'
import { type Content, html } from '../html.js'
import { digits } from '../numbers.js'
import { kindIn, lookOf } from '../palette.js'
import { type Drawing, type Figure, type Form, line, mark, px, text, WIDTHS } from '../svg.js'

interface Row {
  label: string
  error: number
  bound: number
}

const ROW = 26

/** Undefined for a table that lacks one of the columns, or has no numbers above zero in them. */
export function errorFigure(table: ResultTable, id: string): Figure | undefined {
  const error = table.columns.findIndex((name) => /^error$/i.test(name))
  const bound = table.columns.findIndex((name) => /^bound$/i.test(name))
  if (error < 0 || bound < 0) return undefined
  const rows = table.rows.flatMap((row): Row[] => {
    const [e, b] = [row[error], row[bound]]
    return typeof e === 'number' && typeof b === 'number'
      ? [{ label: String(row[0]), error: Math.abs(e), bound: b }]
      : []
  })
  if (!rows.some(({ error: e, bound: b }) => e > 0 || b > 0)) return undefined
  const said = rows.map(({ label, error: e, bound: b }) => `${label}: error ${digits(e)}, bound ${digits(b)}.`)
  return {
    id,
    title: `Errors and their bounds: ${table.title}`,
    description: said.join(' '),
    draw: (form) => draw(rows, form),
  }
}

function draw(rows: readonly Row[], form: Form): Drawing {
  const wide = form === 'wide'
  const left = wide ? 400 : 16
  const right = WIDTHS[form] - 24
  const step = wide ? ROW : ROW + 18
  const sizes = rows.flatMap(({ error, bound }) => [error, bound]).filter((size) => size > 0)
  const [low, high] = [Math.min(...sizes), Math.max(...sizes)]
  const x = scaleLog()
    .domain([10 ** Math.floor(Math.log10(low) - 0.5), 10 ** Math.ceil(Math.log10(high) + 0.01)])
    .range([left, right])
  const place = (size: number) => (size > 0 ? x(size) : left)
  const bottom = 8 + rows.length * step
  const decades = x.ticks(wide ? 8 : 5).filter((tick) => Math.abs(Math.log10(tick) % 1) < 1e-9)
  const every = Math.ceil(decades.length / (wide ? 8 : 5))
  return {
    height: bottom + 44,
    content: [
      decades.map(
        (tick, i): Content => [
          line(x(tick), 4, x(tick), bottom, 'stroke-grid'),
          i % every === 0 && text(x(tick), bottom + 16, digits(tick, 1), { anchor: 'middle', look: 'muted small' }),
        ],
      ),
      rows.map(({ label, error, bound }, i) => {
        const look = lookOf(kindIn(label) ?? 'sft')
        const y = 8 + i * step + (wide ? ROW / 2 : ROW / 2 + 16)
        const [from, to] = [place(error), place(bound)]
        return [
          text(0, wide ? y + 4 : y - 14, label, { room: wide ? left - 20 : WIDTHS.narrow }),
          html`<rect x="${px(left)}" y="${px(y - 4)}" width="${px(Math.max(to - left, 0))}" height="8" class="bar-${look.color}"/>`,
          line(to, y - 8, to, y + 8, `stroke-${look.color}`),
          mark(look, from, y, 60, error <= bound),
        ]
      }),
      text((left + right) / 2, bottom + 34, 'error (mark) and bound (end of the bar)', {
        anchor: 'middle',
        look: 'muted',
      }),
    ],
  }
}
