/**
 * Attributes, items and slices of values, with the rules of Jinja's immutable sandbox.
 */
import { checkHashable, findKey, items } from './compare.js'
import { RenderFault, UnsupportedError } from './errors.js'
import { methodsOf } from './methods.js'
import { callBuiltin, type Runtime } from './signature.js'
import { characters, isWide } from './text.js'
import {
  asCount,
  Callable,
  Group,
  isInteger,
  Markup,
  Namespace,
  orUndefined,
  Range,
  Tuple,
  typeName,
  Undefined,
  type Value,
} from './values.js'

/** Attributes that Python's values have and this implementation does not: refused by name, as they are not undefined. */
const UNSUPPORTED: Readonly<Record<string, string>> = {
  str: 'casefold encode expandtabs format format_map isidentifier isprintable istitle maketrans swapcase translate',
  dict: 'fromkeys',
  int: 'as_integer_ratio bit_count bit_length conjugate denominator from_bytes imag is_integer numerator real to_bytes',
  float: 'as_integer_ratio conjugate fromhex hex imag is_integer real',
  range: 'count index start step stop',
  generator: 'close gi_code gi_frame gi_running gi_suspended gi_yieldfrom send throw',
  dict_keys: 'isdisjoint mapping',
  dict_values: 'mapping',
  dict_items: 'isdisjoint mapping',
  macro: 'arguments caller catch_kwargs catch_varargs explicit_caller name',
}

/** Methods that would change a value: the sandbox hides them. */
const MUTATING: Readonly<Record<string, string>> = {
  list: 'append clear pop reverse insert sort extend remove',
  dict: 'clear pop popitem setdefault update',
}

const words = (table: Readonly<Record<string, string>>): Map<string, Set<string>> =>
  new Map(Object.entries(table).map(([type, names]) => [type, new Set(names.split(' '))]))
const unsupported = words(UNSUPPORTED)
const mutating = words(MUTATING)

/** A dot and a name: an attribute, else an item of that key. */
export function attribute(runtime: Runtime, value: Value, name: string): Value {
  if (value instanceof Undefined) value.fail()
  const found = ownAttribute(runtime, value, name)
  if (found !== undefined) return found
  if (value instanceof Map) {
    const item = value.get(name)
    if (item !== undefined) return item
  }
  return new Undefined(`'${describe(value)}' has no attribute '${name}'`)
}

/** Python's getattr; undefined where it raises an AttributeError. */
export function ownAttribute(runtime: Runtime, value: Value, name: string): Value | undefined {
  if (value instanceof Namespace) return value.attributes.get(name)
  if (value instanceof Attributed) return value.attribute(name)
  if (value instanceof Group && (name === 'grouper' || name === 'list')) return value[name]
  const type = typeName(value)
  const method = methodsOf(value)?.get(name)
  if (method !== undefined) {
    return new Callable(`${type}.${name}`, (args, keywords) =>
      callBuiltin(`${type}.${name}`, method, runtime, value as never, args, keywords),
    )
  }
  if (mutating.get(type)?.has(name) === true) {
    return new Undefined(`access to attribute '${name}' of '${type}' object is unsafe.`)
  }
  const known = type === 'bool' ? 'int' : type
  if (name.startsWith('__') || value instanceof Markup || unsupported.get(known)?.has(name) === true) {
    throw new UnsupportedError(`the attribute ${name} of ${type}`)
  }
  return undefined
}

/** A value with attributes of its own that can be called too: the variable `loop`. */
export abstract class Attributed extends Callable {
  abstract attribute(name: string): Value | undefined
}

/** Brackets: an item, else (for a text) an attribute of that name. */
export function item(runtime: Runtime, value: Value, key: Value): Value {
  if (value instanceof Map) {
    const found = typeof key === 'string' ? value.get(key) : dictItem(value, key)
    if (found !== undefined) return found
  } else {
    if (value instanceof Undefined) value.fail()
    const found = typeof key === 'object' && !isInteger(key) ? undefined : sequenceItem(value, key)
    if (found !== undefined) return found
  }
  if (typeof key !== 'string') return new Undefined(`${describe(value)} has no element ${String(key)}`)
  return orUndefined(ownAttribute(runtime, value, key), `'${describe(value)}' has no attribute '${key}'`)
}

function dictItem(dict: Map<Value, Value>, key: Value): Value | undefined {
  try {
    checkHashable(key)
  } catch {
    return undefined
  }
  const found = findKey(dict, key)
  return found === undefined ? undefined : dict.get(found)
}

function sequenceItem(value: Value, key: Value): Value | undefined {
  if (typeof key !== 'boolean' && !isInteger(key)) return undefined
  const index = Number(key)
  if (typeof value === 'string') return (isWide(value) ? characters(value) : value).at(index)
  if (Array.isArray(value)) return value.at(index)
  if (value instanceof Tuple) return value.items.at(index)
  if (value instanceof Markup) throw new UnsupportedError('the characters of text marked as safe')
  if (!(value instanceof Range)) return undefined
  const place = index < 0 ? index + value.length : index
  return place >= 0 && place < value.length ? value.at(place) : undefined
}

/** value[start:stop:step]; null where a bound is left out. */
export function slice(runtime: Runtime, value: Value, start: Value, stop: Value, step: Value): Value {
  if (value instanceof Undefined) value.fail()
  if (value instanceof Markup) throw new UnsupportedError('the characters of text marked as safe')
  const wide = typeof value === 'string' && isWide(value)
  const list = wide ? characters(value) : value
  if (typeof list === 'string') runtime.budget.scan(list.length)
  else if (!(Array.isArray(list) || list instanceof Tuple || list instanceof Range)) {
    throw new RenderFault(`'${typeName(value)}' object is not subscriptable by a slice`)
  }
  const by = step === null ? 1 : asCount(step, 'slice')
  if (by === 0) throw new RenderFault('slice step cannot be zero')
  const size = list instanceof Tuple ? list.items.length : list.length
  const from = bound(start, size, by > 0 ? 0 : size - 1, by)
  const to = bound(stop, size, by > 0 ? size : -1, by)
  if (typeof list === 'string' && by === 1) return list.slice(from, Math.max(from, to))
  if (list instanceof Range) return new Range(list.at(from), list.at(to), list.step * by)
  const all = typeof list === 'string' ? list.split('') : items(list)
  const picked: Value[] = []
  for (let i = from; by > 0 ? i < to : i > to; i += by) picked.push(all[i] as Value)
  runtime.budget.step(picked.length)
  if (typeof value === 'string') return picked.join('')
  return value instanceof Tuple ? new Tuple(picked) : picked
}

function bound(value: Value, size: number, otherwise: number, step: number): number {
  if (value === null) return otherwise
  const index = asCount(value, 'slice indices must be integers or None')
  const [low, high] = step > 0 ? [0, size] : [-1, size - 1]
  return Math.min(high, Math.max(low, index < 0 ? index + size : index))
}

/** How Jinja's messages name a value. */
function describe(value: Value): string {
  if (value === null) return 'None'
  return `${typeName(value)} object`
}
