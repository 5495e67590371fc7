/**
 * Arithmetic of int, float and bool, and numbers as Python writes and reads them.
 */
import { LimitError, RenderFault } from './errors.js'
import { MAX_DIGITS } from './limits.js'
import { Float, float, integer, numeric, typeName, Undefined, type Value } from './values.js'

export type Operator = '+' | '-' | '*' | '/' | '//' | '%' | '**'

const MAX_BITS = Math.floor(MAX_DIGITS * Math.log2(10))

/** Undefined when one of the two is no number. */
export function arithmetic(operator: Operator, left: Value, right: Value): Value | undefined {
  const a = numeric(left)
  const b = numeric(right)
  if (a === undefined || b === undefined) return undefined
  const floats = isFloating(left) || isFloating(right)
  if (operator === '/') return float(floats ? checkDivisor(Number(a), Number(b)) / Number(b) : quotient(a, b))
  if (floats) return float(floating(operator, Number(a), Number(b)))
  return exact(operator, a, b)
}

export function unsupportedOperands(operator: string, left: Value, right: Value): never {
  for (const value of [left, right]) if (value instanceof Undefined) value.fail()
  throw new RenderFault(`unsupported operand type(s) for ${operator}: '${typeName(left)}' and '${typeName(right)}'`)
}

function isFloating(value: Value): boolean {
  return value instanceof Float || (typeof value === 'number' && !Number.isInteger(value))
}

function floating(operator: Operator, a: number, b: number): number {
  switch (operator) {
    case '+':
      return a + b
    case '-':
      return a - b
    case '*':
      return a * b
    case '//':
      return Math.floor((checkDivisor(a, b) - floatModulo(a, b)) / b)
    case '%':
      return floatModulo(checkDivisor(a, b), b)
    default:
      return power(a, b)
  }
}

/** The remainder has the sign of the divisor. */
function floatModulo(a: number, b: number): number {
  const rest = a % b
  if (rest === 0) return b < 0 || Object.is(b, -0) ? -0 : 0
  return rest < 0 === b < 0 ? rest : rest + b
}

function power(a: number, b: number): number {
  if (a === 0 && b < 0) throw new RenderFault('0.0 cannot be raised to a negative power')
  if (a < 0 && !Number.isInteger(b)) throw new RenderFault('a power that is a complex number')
  const result = a === 1 || b === 0 ? 1 : a ** b
  if (!Number.isFinite(result) && Number.isFinite(a) && Number.isFinite(b)) {
    throw new RenderFault("(34, 'Numerical result out of range')")
  }
  return result
}

function exact(operator: Operator, a: number | bigint, b: number | bigint): Value {
  if (operator === '**') return integerPower(a, b)
  if (operator === '//' || operator === '%') checkDivisor(Number(a), Number(b))
  if (typeof a === 'number' && typeof b === 'number') {
    const result = small(operator, a, b)
    // Adding 0 makes -0 an ordinary 0.
    if (Number.isSafeInteger(result)) return result + 0
  }
  return bounded(large(operator, BigInt(a), BigInt(b)))
}

function small(operator: Operator, a: number, b: number): number {
  if (operator === '+') return a + b
  if (operator === '-') return a - b
  if (operator === '*') return a * b
  const rest = floatModulo(a, b)
  return operator === '%' ? rest : Math.round((a - rest) / b)
}

function large(operator: Operator, a: bigint, b: bigint): bigint {
  if (operator === '+') return a + b
  if (operator === '-') return a - b
  if (operator === '*') return a * b
  const rest = ((a % b) + b) % b
  return operator === '%' ? rest : (a - rest) / b
}

/** The float nearest to a / b. */
function quotient(a: number | bigint, b: number | bigint): number {
  checkDivisor(Number(a), Number(b))
  if (typeof a === 'number' && typeof b === 'number') return a / b
  const [n, d] = [BigInt(a) < 0n ? -BigInt(a) : BigInt(a), BigInt(b) < 0n ? -BigInt(b) : BigInt(b)]
  // Enough bits that the last one can stand for all that is cut off.
  const shift = Math.max(0, 66 + d.toString(2).length - n.toString(2).length)
  const scaled = n << BigInt(shift)
  const result = Number((scaled / d) | (scaled % d === 0n ? 0n : 1n)) * 2 ** -shift
  if (!Number.isFinite(result)) throw new RenderFault('integer division result too large for a float')
  return a < 0 === b < 0 ? result : -result
}

function integerPower(a: number | bigint, b: number | bigint): Value {
  if (b < 0) {
    if (Number(a) === 0) throw new RenderFault('0.0 cannot be raised to a negative power')
    return float(Number(a) ** Number(b))
  }
  const bits = Math.log2(Math.abs(Number(a)) + 1) * Number(b)
  if (bits > 2 * MAX_BITS && Math.abs(Number(a)) > 1) tooLong()
  return bounded(BigInt(a) ** BigInt(b))
}

function bounded(value: bigint): number | bigint {
  const result = integer(value)
  if (typeof result === 'bigint' && result.toString(16).length * 4 > MAX_BITS + 8) tooLong()
  return result
}

function tooLong(): never {
  throw new LimitError(`an integer has more than ${MAX_DIGITS} digits`)
}

function checkDivisor(a: number, b: number): number {
  if (b === 0) throw new RenderFault('division by zero')
  return a
}

/** repr of a float: the shortest digits that give it back, with an exponent below 1e-4 and from 1e16 on. */
export function floatText(value: number): string {
  if (Number.isNaN(value)) return 'nan'
  if (!Number.isFinite(value)) return value < 0 ? '-inf' : 'inf'
  if (value === 0) return Object.is(value, -0) ? '-0.0' : '0.0'
  const [mantissa, exponentText] = value.toExponential().split('e') as [string, string]
  const exponent = Number(exponentText)
  if (exponent < -4 || exponent >= 16) {
    return `${mantissa}e${exponent < 0 ? '-' : '+'}${String(Math.abs(exponent)).padStart(2, '0')}`
  }
  const sign = mantissa.startsWith('-') ? '-' : ''
  const digits = mantissa.replace(/[-.]/g, '')
  if (exponent < 0) return `${sign}0.${'0'.repeat(-exponent - 1)}${digits}`
  const whole = digits.slice(0, exponent + 1).padEnd(exponent + 1, '0')
  return `${sign}${whole}.${digits.slice(exponent + 1) || '0'}`
}

/** round(): to the nearest, an exact half to the even neighbor. Undefined digits give an int. */
export function roundNumber(value: number, digits: number | undefined): Value {
  if (!Number.isFinite(value)) {
    if (digits === undefined) throw new RenderFault('cannot convert a float that is not finite to an integer')
    return float(value)
  }
  const rounded = nearest(value, digits ?? 0)
  return digits === undefined ? integer(BigInt(rounded)) : float(Object.is(value, -0) ? -0 : rounded)
}

function nearest(value: number, digits: number): number {
  if (digits < 0) {
    const unit = 10 ** -digits
    return nearest(value / unit, 0) * unit
  }
  if (digits > 22 || Math.abs(value) >= 2 ** 53) return value
  const exactDigits = Math.abs(value).toFixed(Math.min(100, digits + 60))
  const cut = exactDigits.length - Math.min(100, digits + 60) + digits
  const half = /^50*$/.test(exactDigits.slice(cut))
  let text = Math.abs(value).toFixed(digits)
  // toFixed takes the larger of two equally near numbers.
  if (half && /[13579]$/.test(text)) text = exactDigits.slice(0, digits === 0 ? cut - 1 : cut)
  const result = Number(text)
  return value < 0 ? -result : result
}

/** int(text, base), or undefined where Python raises a ValueError. */
export function parseInteger(text: string, base: number): Value | undefined {
  const found = /^([-+]?)(0[xXbBoO])?((?:_?[0-9a-zA-Z])+)$/.exec(stripped(text))
  if (found === null) return undefined
  const [, sign, prefix, marked] = found as unknown as [string, string, string | undefined, string]
  const bases: Record<string, number> = { '0x': 16, '0b': 2, '0o': 8 }
  const prefixed = prefix === undefined ? undefined : bases[prefix.toLowerCase()]
  let digits = marked
  let used = base
  if (prefixed !== undefined && (base === 0 || base === prefixed)) used = prefixed
  else if (prefix !== undefined) digits = prefix + marked
  if (used === 0) used = 10
  if (digits.startsWith('_') && digits === marked && prefixed === undefined) return undefined
  digits = digits.replaceAll('_', '')
  if (digits.length > MAX_DIGITS) return undefined
  let value = 0n
  for (const digit of digits) {
    const amount = Number.parseInt(digit, 36)
    if (!(amount < used)) return undefined
    value = value * BigInt(used) + BigInt(amount)
  }
  return integer(sign === '-' ? -value : value)
}

/** float(text), or undefined where Python raises a ValueError. */
export function parseFloatText(text: string): number | undefined {
  const trimmed = stripped(text).toLowerCase()
  const word = /^([-+]?)(inf|infinity|nan)$/.exec(trimmed)
  if (word !== null) return (word[1] === '-' ? -1 : 1) * (word[2] === 'nan' ? Number.NaN : Number.POSITIVE_INFINITY)
  if (!/^[-+]?(\d+(_\d+)*\.?(\d+(_\d+)*)?|\.\d+(_\d+)*)(e[-+]?\d+(_\d+)*)?$/.test(trimmed)) return undefined
  return Number(trimmed.replaceAll('_', ''))
}

function stripped(text: string): string {
  return text.trim()
}
