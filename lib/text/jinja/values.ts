/**
 * Python's values as templates see them. Those that JavaScript has are used as they are:
 *
 *   None null · bool boolean · str string · list Array · dict Map
 *   int    an integral number, or a bigint beyond 2^53
 *   float  a number that is not integral (NaN and infinities too), or a Float
 */
import { Float } from '../../core/parse-json.js'
import { RenderFault, UnsupportedError } from './errors.js'

export { Float }

export type Value = null | boolean | number | bigint | string | Value[] | Dict | Float | PythonObject
export type Dict = Map<Value, Value>
export type Keywords = ReadonlyMap<string, Value>
export const NO_KEYWORDS: Keywords = new Map()

/** A value that JavaScript has no type for. `type` is Python's name, for messages. */
export abstract class PythonObject {
  abstract readonly type: string
}

export class Tuple extends PythonObject {
  readonly type = 'tuple'
  constructor(readonly items: readonly Value[]) {
    super()
  }
}

/** What groupby yields: a tuple whose items have names too. */
export class Group extends Tuple {
  constructor(
    readonly grouper: Value,
    readonly list: Value[],
  ) {
    super([grouper, list])
  }
}

/** What a missing name, key or attribute gives: nothing when printed, an error in most other uses. */
export class Undefined extends PythonObject {
  readonly type = 'Undefined'
  constructor(readonly reason: string) {
    super()
  }
  fail(): never {
    throw new RenderFault(this.reason)
  }
}

/** For a look-up that finds nothing; `reason` is what a use of the value then says. Not ??, as None is a value. */
export function orUndefined(value: Value | undefined, reason: string): Value {
  return value === undefined ? new Undefined(reason) : value
}

/** A text that the template marked with `safe` or `escape`: it escapes what is added to it. */
export class Markup extends PythonObject {
  readonly type = 'Markup'
  constructor(readonly text: string) {
    super()
  }
}

/** A generator: it has no length, and is used up as it is read. */
export class Lazy extends PythonObject {
  readonly type = 'generator'
  constructor(readonly iterator: Iterator<Value>) {
    super()
  }
}

export class View extends PythonObject {
  constructor(
    readonly type: 'dict_keys' | 'dict_values' | 'dict_items',
    readonly dict: Dict,
  ) {
    super()
  }
  items(): Value[] {
    if (this.type === 'dict_keys') return [...this.dict.keys()]
    if (this.type === 'dict_values') return [...this.dict.values()]
    return Array.from(this.dict, (entry) => new Tuple(entry))
  }
}

export class Range extends PythonObject {
  readonly type = 'range'
  readonly length: number
  constructor(
    readonly start: number,
    readonly stop: number,
    readonly step: number,
  ) {
    super()
    this.length = Math.max(0, Math.ceil((stop - start) / step))
  }
  at(index: number): number {
    return this.start + index * this.step
  }
}

export class Namespace extends PythonObject {
  readonly type = 'Namespace'
  constructor(readonly attributes: Dict) {
    super()
  }
}

/** Anything that can be called: a global, a method of a value, a macro, a recursive loop. */
export class Callable extends PythonObject {
  readonly type: string = 'builtin_function_or_method'
  constructor(
    readonly name: string,
    readonly call: (args: readonly Value[], keywords: Keywords) => Value,
  ) {
    super()
  }
}

/** A value from outside: JSON as parseJson gives it, or plain JavaScript. */
export function fromJavaScript(value: unknown): Value {
  switch (typeof value) {
    case 'string':
    case 'boolean':
      return value
    case 'number':
      if (Number.isSafeInteger(value) || !Number.isInteger(value)) return value === 0 ? 0 : value
      return BigInt(value)
    case 'bigint':
      return integer(value)
    case 'object':
      return fromObject(value)
    default:
      throw new RenderFault(`a template cannot be given a ${typeof value}`)
  }
}

function fromObject(value: object | null): Value {
  if (value === null || value instanceof Float || value instanceof PythonObject) return value
  if (Array.isArray(value)) return value.map(fromJavaScript)
  const dict: Dict = new Map()
  const entries = value instanceof Map ? (value as Map<string, unknown>) : Object.entries(value)
  for (const [key, item] of entries) if (item !== undefined) dict.set(key, fromJavaScript(item))
  return dict
}

/** An int: the plain number where it is exact. */
export function integer(value: bigint): number | bigint {
  return value >= Number.MIN_SAFE_INTEGER && value <= Number.MAX_SAFE_INTEGER ? Number(value) : value
}

export function float(value: number): number | Float {
  return Number.isInteger(value) ? new Float(value) : value
}

export function isInteger(value: Value): value is number | bigint {
  return typeof value === 'bigint' || Number.isInteger(value)
}

export function isFloat(value: Value): value is number | Float {
  return value instanceof Float || (typeof value === 'number' && !Number.isInteger(value))
}

/** A number of any kind, bool included, as JavaScript's; undefined for what is no number. */
export function numeric(value: Value): number | bigint | undefined {
  if (typeof value === 'number' || typeof value === 'bigint') return value
  if (typeof value === 'boolean') return Number(value)
  return value instanceof Float ? value.value : undefined
}

export function sameNumber(a: number | bigint, b: number | bigint): boolean {
  // biome-ignore lint/suspicious/noDoubleEquals: a number and a bigint are compared by what they are worth
  return a == b
}

/** Python's name of a value's type. */
export function typeName(value: Value): string {
  if (value === null) return 'NoneType'
  if (typeof value === 'string') return 'str'
  if (typeof value === 'boolean') return 'bool'
  if (isInteger(value)) return 'int'
  if (isFloat(value)) return 'float'
  if (Array.isArray(value)) return 'list'
  return value instanceof Map ? 'dict' : value.type
}

/** The text of a str or Markup; undefined for other values. */
export function textOf(value: Value): string | undefined {
  if (typeof value === 'string') return value
  return value instanceof Markup ? value.text : undefined
}

/** An argument that must be a str. */
export function asText(value: Value, what: string): string {
  if (typeof value === 'string') return value
  if (value instanceof Markup) throw new UnsupportedError(`text marked as safe in ${what}`)
  if (value instanceof Undefined) value.fail()
  throw new RenderFault(`${what}: a str is needed, not ${typeName(value)}`)
}

/** An argument that must be an int, and of a size that can count something. */
export function asCount(value: Value, what: string): number {
  if (typeof value === 'boolean') return Number(value)
  if (typeof value === 'number' && Number.isInteger(value)) return value
  if (typeof value === 'bigint') return value > 0n ? Number.MAX_SAFE_INTEGER : Number.MIN_SAFE_INTEGER
  if (value instanceof Undefined) value.fail()
  throw new RenderFault(`${what}: an int is needed, not ${typeName(value)}`)
}
