/**
 * Jinja's tests: what `is` asks.
 */
import { compare, contains, equal, sizeOf } from './compare.js'
import { RenderFault } from './errors.js'
import { binary } from './operators.js'
import { str } from './show.js'
import { type Builtin, builtin } from './signature.js'
import { isLower, isUpper } from './text.js'
import { Callable, isFloat, isInteger, Lazy, Markup, numeric, Range, Tuple, Undefined, type Value } from './values.js'

const plain = (run: (value: Value) => boolean): Builtin<Value> => builtin('', (_, value: Value) => run(value))
const against = (run: (value: Value, other: Value) => boolean): Builtin<Value> =>
  builtin('/other', (_, value: Value, other: Value) => run(value, other))

const remainder = (divisor: number, wanted: number): Builtin<Value> =>
  builtin('', (runtime, value: Value) => equal(binary(runtime, '%', value, divisor), wanted))

const equals = against(equal)
const less = against((value, other) => compare(value, other, '<') < 0)
const atMost = against((value, other) => compare(value, other, '<=') <= 0)
const greater = against((value, other) => compare(value, other, '>') > 0)
const atLeast = against((value, other) => compare(value, other, '>=') >= 0)
const differs = against((value, other) => !equal(value, other))

export const TESTS: Readonly<Record<string, Builtin<Value>>> = {
  boolean: plain((value) => typeof value === 'boolean'),
  callable: plain((value) => value instanceof Callable || value instanceof Undefined),
  defined: plain((value) => !(value instanceof Undefined)),
  divisibleby: builtin('num', (runtime, value: Value, num: Value) => equal(binary(runtime, '%', value, num), 0)),
  '==': equals,
  eq: equals,
  equalto: equals,
  escaped: plain((value) => value instanceof Markup),
  even: remainder(2, 0),
  false: plain((value) => value === false),
  float: plain(isFloat),
  '>=': atLeast,
  ge: atLeast,
  '>': greater,
  gt: greater,
  greaterthan: greater,
  in: builtin('/seq', (_, value: Value, seq: Value) => contains(seq, value)),
  integer: plain(isInteger),
  iterable: plain((value) => sizeOf(value) !== undefined || value instanceof Lazy || value instanceof Undefined),
  '<=': atMost,
  le: atMost,
  '<': less,
  lt: less,
  lessthan: less,
  lower: plain((value) => isLower(str(value))),
  mapping: plain((value) => value instanceof Map),
  '!=': differs,
  ne: differs,
  none: plain((value) => value === null),
  number: plain((value) => numeric(value) !== undefined),
  odd: remainder(2, 1),
  sameas: builtin('other', (_, value: Value, other: Value) => same(value, other)),
  sequence: plain(
    (value) =>
      typeof value === 'string' ||
      Array.isArray(value) ||
      value instanceof Map ||
      [Tuple, Range, Markup, Undefined].some((type) => value instanceof type),
  ),
  string: plain((value) => typeof value === 'string' || value instanceof Markup),
  true: plain((value) => value === true),
  undefined: plain((value) => value instanceof Undefined),
  upper: plain((value) => isUpper(str(value))),
}

/** Identity. Whether two equal texts or large numbers are one object is an accident in Python. */
function same(value: Value, other: Value): boolean {
  const accident = (each: Value): boolean =>
    typeof each === 'string' || (numeric(each) !== undefined && typeof each !== 'boolean')
  if (accident(value) && accident(other) && typeof value === typeof other && equal(value, other)) {
    if (isInteger(value) && isInteger(other) && value >= -5 && value <= 256) return true
    throw new RenderFault('sameas of two equal texts or numbers is not defined; use equalto')
  }
  return value === other
}
