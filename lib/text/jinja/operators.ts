/**
 * The binary and unary operators of expressions.
 */
import { RenderFault, UnsupportedError } from './errors.js'
import { type Operator, arithmetic, unsupportedOperands } from './numbers.js'
import { formatPercent } from './percent.js'
import type { Runtime } from './signature.js'
import { asCount, isFloat, Markup, numeric, textOf, Tuple, typeName, Undefined, type Value } from './values.js'

export function binary(runtime: Runtime, operator: Operator, left: Value, right: Value): Value {
  if (operator === '+' && typeof left === 'string' && typeof right === 'string')
    return concatenate(runtime, left, right)
  const number = arithmetic(operator, left, right)
  if (number !== undefined) return number
  if (operator === '+') return add(runtime, left, right)
  if (operator === '*') return repeat(runtime, left, right)
  if (operator === '%' && typeof left === 'string') return formatPercent(runtime.budget, left, right)
  if (left instanceof Markup || right instanceof Markup) refuseMarkup(operator)
  return unsupportedOperands(operator, left, right)
}

function refuseMarkup(operator: string): never {
  throw new UnsupportedError(`the operator ${operator} on text marked as safe`)
}

/** Two texts in a row. */
export function concatenate(runtime: Runtime, left: string, right: string): string {
  runtime.budget.text(left.length + right.length)
  return left + right
}

function add(runtime: Runtime, left: Value, right: Value): Value {
  if (left instanceof Markup || right instanceof Markup) return addMarkup(runtime, left, right)
  if (left instanceof Undefined) left.fail()
  if (Array.isArray(left) && Array.isArray(right)) {
    runtime.budget.step(left.length + right.length)
    return [...left, ...right]
  }
  if (left instanceof Tuple && right instanceof Tuple) {
    runtime.budget.step(left.items.length + right.items.length)
    return new Tuple([...left.items, ...right.items])
  }
  if (right instanceof Undefined) right.fail()
  const type = typeName(left)
  if (['str', 'list', 'tuple'].includes(type)) {
    throw new RenderFault(`can only concatenate ${type} (not "${typeName(right)}") to ${type}`)
  }
  return unsupportedOperands('+', left, right)
}

/** What is added to a safe text is escaped. */
function addMarkup(runtime: Runtime, left: Value, right: Value): Value {
  const [a, b] = [textOf(left), textOf(right)]
  if (a === undefined || b === undefined) return unsupportedOperands('+', left, right)
  return new Markup(concatenate(runtime, escaped(left), escaped(right)))
}

const ENTITIES: Readonly<Record<string, string>> = {
  '&': '&amp;',
  '<': '&lt;',
  '>': '&gt;',
  "'": '&#39;',
  '"': '&#34;',
}

/** A value as HTML, what is marked as safe as it is. */
export function escaped(value: Value): string {
  if (value instanceof Markup) return value.text
  return (textOf(value) ?? '').replace(/[&<>'"]/g, (character) => ENTITIES[character] as string)
}

function repeat(runtime: Runtime, left: Value, right: Value): Value {
  if (left instanceof Markup || right instanceof Markup) refuseMarkup('*')
  const swap = numeric(left) !== undefined
  const [what, times] = swap ? [right, left] : [left, right]
  const size =
    Array.isArray(what) || typeof what === 'string' ? what.length : what instanceof Tuple ? what.items.length : -1
  if (size < 0 || numeric(times) === undefined || isFloat(times)) return unsupportedOperands('*', left, right)
  const count = Math.max(0, asCount(times, '*'))
  if (typeof what === 'string') {
    runtime.budget.write(size * count)
    return what.repeat(size === 0 ? 0 : count)
  }
  runtime.budget.step(size * count)
  const once = Array.isArray(what) ? what : (what as Tuple).items
  const all = size === 0 ? [] : Array.from({ length: count }, () => once).flat()
  return Array.isArray(what) ? all : new Tuple(all)
}

export function negate(value: Value): Value {
  const number = numeric(value)
  if (number === undefined) return unsupportedUnary('-', value)
  return arithmetic('*', value, -1) as Value
}

export function positive(value: Value): Value {
  if (numeric(value) === undefined) return unsupportedUnary('+', value)
  return typeof value === 'boolean' ? Number(value) : value
}

function unsupportedUnary(operator: string, value: Value): never {
  if (value instanceof Undefined) value.fail()
  throw new RenderFault(`bad operand type for unary ${operator}: '${typeName(value)}'`)
}
