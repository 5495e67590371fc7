/**
 * What figures are made of: a whole SVG with its name and description, axes, legend, and text that has a known room.
 *
 * A figure is drawn for a width of its own, wide or narrow, so that its letters keep their size on every screen. Colors are custom
 * properties (palette.ts), given through classes; export.ts puts in values for a file that stands alone.
 */
import type { ScaleContinuousNumeric } from 'd3-scale'
import { symbol } from 'd3-shape'
import { type Content, html, type Markup, visible } from './html.js'
import { type KindLook, lookOf } from './palette.js'

export const WIDTHS = { wide: 880, narrow: 360 } as const
export type Form = keyof typeof WIDTHS

export interface Figure {
  /** Unique in the page, and the name of its file. */
  id: string
  title: string
  /** A description of the figure for people who cannot see it. */
  description: string
  draw(form: Form): Drawing
}

export interface Drawing {
  height: number
  content: Content
}

export function drawSvg({ id, title, description, draw }: Figure, form: Form): Markup {
  const { height, content } = draw(form)
  const name = `${id}-${form}`
  return html`<svg xmlns="http://www.w3.org/2000/svg" class="${form}" viewBox="0 0 ${WIDTHS[form]} ${px(height)}" role="img" aria-labelledby="${name}-t ${name}-d"><title id="${name}-t">${title}</title><desc id="${name}-d">${description}</desc>${content}</svg>`
}

/** Formats a coordinate; two places are finer than any screen. */
export function px(value: number): string {
  return String(Math.round(value * 100) / 100)
}

export interface TextOptions {
  anchor?: 'start' | 'middle' | 'end'
  /** Classes: muted, bold, small, and names of colors as ink-NAME. */
  look?: string
  /** Longer text is cut; a tooltip has all of it. */
  room?: number
}

export function text(
  x: number,
  y: number,
  value: string,
  { anchor = 'start', look = '', room }: TextOptions = {},
): Markup {
  const size = look.includes('small') ? 11 : look.includes('large') ? 14.5 : 12.5
  const shown =
    room === undefined ? visible(value) : fit(visible(value), room, look.includes('bold') ? size * 1.07 : size)
  const whole = shown === visible(value) ? '' : html`<title>${value}</title>`
  return html`<text x="${px(x)}" y="${px(y)}" text-anchor="${anchor}" class="${look}">${whole}${shown}</text>`
}

/** Estimates the width of a text from a generous average width of letters. */
export function fit(value: string, room: number, size: number): string {
  let width = 0
  let kept = ''
  const line = value.replace(/\s+/g, ' ')
  for (const { segment } of new Intl.Segmenter('en').segment(line)) {
    width +=
      size *
      (/^[ilj.,:;'!|()[\]tfr ]/.test(segment) ? 0.36 : /^[\u0020-\u024F\u0370-\u052F]/.test(segment) ? 0.64 : 1.1)
    if (width > room) return `${kept.trimEnd()}…`
    kept += segment
  }
  return line
}

export function mark(look: KindLook, x: number, y: number, area: number, filled = true): Markup {
  return html`<path d="${symbol(look.symbol, area).digits(2)()!}" transform="translate(${px(x)},${px(y)})" class="${filled ? 'fill' : 'hollow'}-${look.color}"/>`
}

/** The legend: for each kind a piece of line, the mark and the name, side by side. Its height is 26. */
export function legend(kinds: readonly string[], x: number, y: number): Content {
  return kinds.map((kind, i) => {
    const look = lookOf(kind)
    const left = x + i * 112
    return [
      html`<line x1="${px(left)}" x2="${px(left + 26)}" y1="${px(y)}" y2="${px(y)}" class="stroke-${look.color}" stroke-width="2" stroke-dasharray="${look.dash}"/>`,
      mark(look, left + 13, y, 52),
      text(left + 32, y + 4, look.label),
    ]
  })
}

export interface Panel {
  x: number
  y: number
  width: number
  height: number
}

type Scale = ScaleContinuousNumeric<number, number>

/** Vertical grid lines with their numbers below, and what they mean. */
export function xAxis(
  scale: Scale,
  { x, y, width, height }: Panel,
  ticks: number,
  label?: string,
  grid = true,
): Content {
  const format = scale.tickFormat(ticks)
  const bottom = y + height
  return [
    scale
      .ticks(ticks)
      .map((tick) => [
        grid && line(scale(tick), y, scale(tick), bottom, 'stroke-grid'),
        text(scale(tick), bottom + 16, format(tick), { anchor: 'middle', look: 'muted small' }),
      ]),
    line(x, bottom, x + width, bottom, 'stroke-line'),
    label !== undefined && text(x + width / 2, bottom + 34, label, { anchor: 'middle', look: 'muted' }),
  ]
}

/** Horizontal grid lines with their numbers on the left. */
export function yAxis(scale: Scale, { x, width }: Panel, ticks: number): Content {
  const format = scale.tickFormat(ticks)
  return scale
    .ticks(ticks)
    .map((tick) => [
      line(x, scale(tick), x + width, scale(tick), 'stroke-grid'),
      text(x - 6, scale(tick) + 4, format(tick), { anchor: 'end', look: 'muted small' }),
    ])
}

export function line(x1: number, y1: number, x2: number, y2: number, look: string, dash = 'none'): Markup {
  const dashes = dash === 'none' ? '' : html` stroke-dasharray="${dash}"`
  return html`<line x1="${px(x1)}" y1="${px(y1)}" x2="${px(x2)}" y2="${px(y2)}" class="${look}"${dashes}/>`
}

/** Room for `count` panels in columns of at least `least` pixels, at most `most` of them. */
export function panels(
  count: number,
  form: Form,
  { most, top, height, gap, left }: { most: number; top: number; height: number; gap: number; left: number },
): { at: Panel[]; bottom: number } {
  const columns = Math.min(form === 'wide' ? most : 1, count)
  const column = (WIDTHS[form] - 8) / columns
  const at = Array.from({ length: count }, (_, i) => ({
    x: (i % columns) * column + left,
    y: top + Math.floor(i / columns) * (height + gap),
    width: column - left - 14,
    height,
  }))
  return { at, bottom: top + Math.ceil(count / columns) * (height + gap) - gap }
}
