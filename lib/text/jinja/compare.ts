/**
 * Questions about values: truth, length, items, equality, order, membership.
 */
import { RenderFault, UnsupportedError } from './errors.js'
import { spend } from './limits.js'
import { characters, compareText, length as textLength } from './text.js'
import {
  type Dict,
  Lazy,
  Markup,
  numeric,
  sameNumber,
  Range,
  textOf,
  Tuple,
  typeName,
  Undefined,
  type Value,
  View,
} from './values.js'

export function truth(value: Value): boolean {
  if (typeof value === 'boolean') return value
  if (value === null || value instanceof Undefined) return false
  const number = numeric(value)
  // Not Boolean(number): NaN is true in Python.
  if (number !== undefined) return !sameNumber(number, 0)
  return sizeOf(value) !== 0
}

/** len(). */
export function length(value: Value): number {
  if (value instanceof Undefined) return 0
  const text = textOf(value)
  const size = text === undefined ? sizeOf(value) : textLength(text)
  if (size === undefined) throw new RenderFault(`object of type '${typeName(value)}' has no len()`)
  return size
}

/** How many items there are (for text: UTF-16 units); undefined for what has no length. */
export function sizeOf(value: Value): number | undefined {
  if (typeof value === 'string' || Array.isArray(value)) return value.length
  if (value instanceof Map) return value.size
  if (value instanceof Tuple) return value.items.length
  if (value instanceof Markup) return value.text.length
  if (value instanceof View) return value.dict.size
  if (value instanceof Range) return value.length
  return undefined
}

/** Items in order. A generator is used up by this. */
export function items(value: Value): readonly Value[] {
  if (Array.isArray(value)) return value
  if (value instanceof Tuple) return value.items
  return [...iterate(value)]
}

/** iter(): items one by one, of a generator only as far as they are asked for. */
export function iterate(value: Value): Iterable<Value> & Iterator<Value> {
  return iterable(value)[Symbol.iterator]() as IterableIterator<Value>
}

function iterable(value: Value): Iterable<Value> {
  if (Array.isArray(value)) return value
  if (typeof value === 'string') return characters(value)
  if (value instanceof Tuple) return value.items
  if (value instanceof Map) return value.keys()
  if (value instanceof View) return value.items()
  if (value instanceof Range) return Array.from({ length: value.length }, (_, index) => value.at(index))
  if (value instanceof Undefined) return []
  if (value instanceof Lazy) return { [Symbol.iterator]: () => keepOpen(value.iterator) }
  if (value instanceof Markup) throw new UnsupportedError('the characters of text marked as safe')
  throw new RenderFault(`'${typeName(value)}' object is not iterable`)
}

/** Without `return`, so that leaving a loop early does not end the generator. */
function keepOpen(iterator: Iterator<Value>): IterableIterator<Value> {
  return { next: () => iterator.next(), [Symbol.iterator]: () => keepOpen(iterator) }
}

/** == */
export function equal(a: Value, b: Value): boolean {
  if (a === b) return true
  const left = numeric(a)
  if (left !== undefined) {
    const right = numeric(b)
    return right !== undefined && sameNumber(left, right)
  }
  const text = textOf(a)
  if (text !== undefined) return equalText(text, textOf(b))
  if (Array.isArray(a)) return Array.isArray(b) && equalItems(a, b)
  if (a instanceof Tuple) return b instanceof Tuple && equalItems(a.items, b.items)
  if (a instanceof Map) return b instanceof Map && equalDicts(a, b)
  if (a instanceof Range) return b instanceof Range && equalItems(items(a), items(b))
  if (a instanceof Undefined) return b instanceof Undefined
  if (a instanceof View && b instanceof View && a.type !== 'dict_values' && a.type === b.type) {
    throw new UnsupportedError(`the comparison of ${a.type}`)
  }
  return false
}

function equalText(a: string, b: string | undefined): boolean {
  if (a.length === b?.length) spend(0, a.length)
  return a === b
}

function equalItems(a: readonly Value[], b: readonly Value[]): boolean {
  spend(Math.min(a.length, b.length))
  return a.length === b.length && a.every((item, index) => equal(item, b[index] as Value))
}

function equalDicts(a: Dict, b: Dict): boolean {
  if (a.size !== b.size) return false
  spend(a.size)
  for (const [key, item] of a) {
    const found = findKey(b, key)
    if (found === undefined || !equal(item, b.get(found) as Value)) return false
  }
  return true
}

/** Negative, 0 or positive, as a is before, beside or behind b. An error where Python has no order. */
export function compare(a: Value, b: Value, operator = '<'): number {
  const left = numeric(a)
  const right = numeric(b)
  if (left !== undefined && right !== undefined)
    return left < right ? -1 : left > right ? 1 : sameNumber(left, right) ? 0 : Number.NaN
  const [textA, textB] = [textOf(a), textOf(b)]
  if (textA !== undefined && textB !== undefined) {
    spend(0, Math.min(textA.length, textB.length))
    return compareText(textA, textB)
  }
  if (Array.isArray(a) && Array.isArray(b)) return compareItems(a, b, operator)
  if (a instanceof Tuple && b instanceof Tuple) return compareItems(a.items, b.items, operator)
  for (const value of [a, b]) if (value instanceof Undefined) value.fail()
  if (a instanceof View && b instanceof View) throw new UnsupportedError(`the comparison of ${a.type}`)
  throw new RenderFault(`'${operator}' not supported between instances of '${typeName(a)}' and '${typeName(b)}'`)
}

function compareItems(a: readonly Value[], b: readonly Value[], operator: string): number {
  spend(Math.min(a.length, b.length))
  const different = a.findIndex((item, index) => index >= b.length || !equal(item, b[index] as Value))
  if (different < 0) return a.length - b.length
  return different >= b.length ? 1 : compare(a[different] as Value, b[different] as Value, operator)
}

/** in */
export function contains(container: Value, item: Value): boolean {
  const text = textOf(container)
  if (text !== undefined) {
    const part = textOf(item)
    if (part === undefined)
      throw new RenderFault(`'in <string>' requires string as left operand, not ${typeName(item)}`)
    return text.includes(part)
  }
  if (container instanceof Map) return findKey(container, item) !== undefined
  if (container instanceof View && container.type === 'dict_keys') return findKey(container.dict, item) !== undefined
  if (container instanceof Range && numeric(item) === undefined) return false
  if (sizeOf(container) === undefined && !(container instanceof Lazy || container instanceof Undefined)) {
    throw new RenderFault(`argument of type '${typeName(container)}' is not iterable`)
  }
  for (const member of iterate(container)) if (equal(member, item)) return true
  return false
}

/** The key of a dict that equals this one: 1, 1.0 and true are one key. Undefined when there is none. */
export function findKey(dict: Dict, key: Value): Value | undefined {
  if (dict.has(key)) return key
  checkHashable(key)
  if (key instanceof Markup) return findKey(dict, key.text)
  const number = numeric(key)
  if (number === undefined) return undefined
  if (typeof number === 'number' && dict.has(number + 0)) return number + 0
  if (sameNumber(number, 0) && dict.has(false)) return false
  return sameNumber(number, 1) && dict.has(true) ? true : undefined
}

/** Sets an item where an equal key keeps its place and its form. */
export function setItem(dict: Dict, key: Value, item: Value): void {
  const found = findKey(dict, key)
  if (found === undefined && typeof key === 'object' && key !== null) {
    throw new UnsupportedError(`a dictionary key of type ${typeName(key)}`)
  }
  dict.set(found === undefined ? key : found, item)
}

export function checkHashable(key: Value): void {
  const isSet = key instanceof View && key.type !== 'dict_values'
  if (Array.isArray(key) || key instanceof Map || isSet) throw new RenderFault(`unhashable type: '${typeName(key)}'`)
  if (key instanceof Tuple) key.items.forEach(checkHashable)
}
