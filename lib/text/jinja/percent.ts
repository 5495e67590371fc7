/**
 * Python's % on text: "%s has %05.1f" % (name, value).
 */
import { RenderFault, UnsupportedError } from './errors.js'
import type { Budget } from './limits.js'
import { repr, str } from './show.js'
import { asCount, isFloat, isInteger, Markup, numeric, Tuple, typeName, Undefined, type Value } from './values.js'

const CONVERSION =
  /%(?:\((?<key>[^)]*)\))?(?<flags>[-#0 +]*)(?<width>\*|\d*)(?:\.(?<digits>\*|\d*))?[hlL]?(?<kind>.?)/gsu

interface Spec {
  minus: boolean
  plus: string
  zero: boolean
  alternate: boolean
  width: number
  digits: number | undefined
}

export function formatPercent(budget: Budget, format: string, values: Value): string {
  const list = values instanceof Tuple ? values.items : [values]
  let used = 0
  let named = false
  const next = (): Value => {
    if (used >= list.length) throw new RenderFault('not enough arguments for format string')
    return list[used++] as Value
  }
  const text = format.replace(CONVERSION, (...match) => {
    const groups = match.at(-1) as Record<string, string | undefined>
    const { key, flags = '', width = '', digits, kind = '' } = groups
    if (kind === '%' && key === undefined && flags === '' && width === '') return '%'
    const number = (part: string): number => (part === '*' ? asCount(next(), '* wants int') : Number(part))
    const wide = width === '' ? 0 : number(width)
    const spec: Spec = {
      minus: flags.includes('-') || wide < 0,
      plus: flags.includes('+') ? '+' : flags.includes(' ') ? ' ' : '',
      zero: flags.includes('0'),
      alternate: flags.includes('#'),
      width: Math.abs(wide),
      digits: digits === undefined ? undefined : Math.max(0, number(digits)),
    }
    budget.write(spec.width + (spec.digits ?? 0))
    if (kind === '') throw new RenderFault('incomplete format')
    if (kind === '%') return '%'
    if (key !== undefined) named = true
    return padded(converted(kind, key === undefined ? next() : member(values, key), spec), spec, kind)
  })
  if (!named && used < list.length && !(values instanceof Map || (Array.isArray(values) && used === 0))) {
    throw new RenderFault('not all arguments converted during string formatting')
  }
  budget.write(text.length)
  return text
}

function member(values: Value, key: string): Value {
  if (!(values instanceof Map)) throw new RenderFault('format requires a mapping')
  const value = values.get(key)
  if (value === undefined) throw new RenderFault(`the mapping has no key '${key}'`)
  return value
}

function converted(kind: string, value: Value, spec: Spec): string {
  switch (kind) {
    case 's':
    case 'r':
    case 'a': {
      if (value instanceof Markup) throw new UnsupportedError('text marked as safe in %')
      if (kind === 'a') throw new UnsupportedError('the conversion %a')
      const text = kind === 's' ? str(value) : repr(value)
      return spec.digits === undefined ? text : [...text].slice(0, spec.digits).join('')
    }
    case 'c':
      return character(value)
    case 'd':
    case 'i':
    case 'u':
      return signed(wholeNumber(value, kind, true).toString(), spec)
    case 'x':
    case 'X':
    case 'o': {
      const digits = signed(wholeNumber(value, kind, false).toString(kind === 'o' ? 8 : 16), spec)
      const prefixed = spec.alternate ? digits.replace(/[0-9a-f]/, `0${kind.toLowerCase()}$&`) : digits
      return kind === 'X' ? prefixed.toUpperCase() : prefixed
    }
    case 'e':
    case 'E':
    case 'f':
    case 'F':
    case 'g':
    case 'G':
      return floating(kind, value, spec)
    default:
      throw new RenderFault(`unsupported format character '${kind}'`)
  }
}

function character(value: Value): string {
  if (typeof value === 'string' && [...value].length === 1) return value
  const code = isInteger(value) || typeof value === 'boolean' ? Number(value) : -1
  if (code < 0 || code > 0x10ffff) throw new RenderFault('%c requires an int or a unicode character')
  return String.fromCodePoint(code)
}

function wholeNumber(value: Value, kind: string, cuts: boolean): bigint {
  const number = numeric(value)
  if (number === undefined || (!cuts && isFloat(value))) {
    if (value instanceof Undefined) value.fail()
    const kinds = cuts ? 'a real number' : 'an integer'
    throw new RenderFault(`%${kind} format: ${kinds} is required, not ${typeName(value)}`)
  }
  if (typeof number === 'number' && !Number.isFinite(number)) throw new RenderFault('cannot convert float to integer')
  return typeof number === 'bigint' ? number : BigInt(Math.trunc(number))
}

/** With the sign, and at least so many digits. */
function signed(text: string, spec: Spec): string {
  const digits = text.replace('-', '').padStart(spec.digits ?? 0, '0')
  return (text.startsWith('-') ? '-' : spec.plus) + digits
}

function floating(kind: string, value: Value, spec: Spec): string {
  const given = numeric(value)
  if (given === undefined) {
    if (value instanceof Undefined) value.fail()
    throw new RenderFault(`must be real number, not ${typeName(value)}`)
  }
  if (spec.alternate) throw new UnsupportedError(`the flag # of %${kind}`)
  const text = floatDigits(kind.toLowerCase(), Math.abs(Number(given)), spec.digits ?? 6)
  const negative = Number(given) < 0 || Object.is(Number(given), -0)
  const whole = (negative ? '-' : spec.plus) + text
  return kind === kind.toUpperCase() ? whole.toUpperCase() : whole
}

function floatDigits(kind: string, value: number, digits: number): string {
  if (!Number.isFinite(value)) return Number.isNaN(value) ? 'nan' : 'inf'
  if (digits > 100 || value >= 1e21) throw new UnsupportedError('the text of so large or so precise a float with %')
  if (kind === 'f') return halfEven(value, digits)
  if (kind === 'e') return exponential(value, digits)
  const precision = Math.max(1, digits)
  const exponent = value === 0 ? 0 : Number(value.toExponential(precision - 1).split('e')[1])
  const trim = (text: string): string => (text.includes('.') ? text.replace(/\.?0+$/, '') : text)
  if (exponent >= -4 && exponent < precision) return trim(halfEven(value, precision - 1 - exponent))
  const [mantissa, power] = exponential(value, precision - 1).split('e') as [string, string]
  return `${trim(mantissa)}e${power}`
}

function exponential(value: number, digits: number): string {
  const [mantissa, power] = value.toExponential(digits).split('e') as [string, string]
  return `${mantissa}e${power.charAt(0)}${power.slice(1).padStart(2, '0')}`
}

/** toFixed, but an exact half goes to the even digit, as in Python. */
export function halfEven(value: number, digits: number): string {
  const text = value.toFixed(digits)
  if (value >= 2 ** 53 || digits > 60) return text
  const more = value.toFixed(digits + 40)
  const half = /^50*$/.test(more.slice(more.length - 40))
  if (!half || !/[13579]$/.test(text)) return text
  return more.slice(0, digits === 0 ? more.indexOf('.') : more.length - 40)
}

function padded(text: string, spec: Spec, kind: string): string {
  const missing = spec.width - [...text].length
  if (missing <= 0) return text
  if (spec.minus) return text + ' '.repeat(missing)
  if (!spec.zero || 'srac'.includes(kind) || /inf|nan/i.test(text)) return ' '.repeat(missing) + text
  const sign = /^[-+ ]?(0[xXoO])?/.exec(text)?.[0] ?? ''
  return sign + '0'.repeat(missing) + text.slice(sign.length)
}
