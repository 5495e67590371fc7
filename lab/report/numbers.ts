/**
 * Numbers for people, with a true minus sign; the whole number stays beside it in <data value>.
 */
import { html, type Markup } from './html.js'

export const ABSENT = 'n/a'

/** Formats a share or a statistic of the order of one with three places. */
export function fixed(value: number | null | undefined, places = 3): string {
  if (value === null || value === undefined || !Number.isFinite(value)) return ABSENT
  const text = value.toFixed(places)
  return minus(Number(text) === 0 ? text.replace('-', '') : text)
}

/** Formats a number of any magnitude with the given number of digits. */
export function digits(value: number | null | undefined, count = 3): string {
  if (value === null || value === undefined || !Number.isFinite(value)) return ABSENT
  if (value === 0) return '0'
  const size = Math.abs(value)
  if (Number.isInteger(value) && size < 1e6) return minus(grouped(value))
  if (size >= 1e6 || size < 1e-3) return minus(value.toExponential(count - 1).replace(/\.?0*e\+?/, 'e'))
  return minus(String(Number(value.toPrecision(count))))
}

/** Formats a number with its sign, also if it is positive. */
export function signed(value: number | null | undefined, count = 3): string {
  const text = digits(value, count)
  return value !== null && value !== undefined && value > 0 ? `+${text}` : text
}

export function grouped(value: number): string {
  return minus(String(value).replace(/\B(?=(\d{3})+$)/g, ' '))
}

export function interval(low: number | null, high: number | null): string {
  return low === null || high === null ? '' : `${fixed(low)} to ${fixed(high)}`
}

export function duration(seconds: number): string {
  if (seconds < 60) return `${digits(seconds)} s`
  const minutes = Math.round(seconds / 60)
  return minutes < 60 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`
}

/** 260 k, 1.2 M. */
export function magnitude(value: number): string {
  const [unit, name] = value >= 1e9 ? [1e9, ' billion'] : value >= 1e6 ? [1e6, ' million'] : [1, '']
  return unit === 1 ? grouped(value) : `${Number((value / unit).toPrecision(3))}${name}`
}

/** A number as people read it, with all its digits for programs. */
export function data(
  value: number | null | undefined,
  shown: (value: number) => string = (one) => digits(one),
): Markup {
  if (value === null || value === undefined || !Number.isFinite(value))
    return html`<span class="absent">${ABSENT}</span>`
  return html`<data value="${String(value)}">${shown(value)}</data>`
}

function minus(text: string): string {
  return text.replaceAll('-', '\u2212')
}
