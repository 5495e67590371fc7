/**
 * Checks of arguments: a wrong type is a TypeError, a value outside its range a RangeError. Both carry Node's own codes and wording.
 */

/** One line that shows a value of any kind: short, and safe on getters, cycles and huge strings. */
export function describe(value: unknown): string {
  if (typeof value === 'string') return JSON.stringify(value.length > 60 ? `${value.slice(0, 57)}...` : value)
  if (typeof value === 'function') return 'a function'
  if (typeof value === 'bigint') return `${value}n`
  if (value === null || typeof value !== 'object') return String(value)
  if (Array.isArray(value)) return `an array of length ${value.length}`
  const name: unknown = Object.getPrototypeOf(value)?.constructor?.name
  return typeof name === 'string' && name !== '' && name !== 'Object' ? `an instance of ${name}` : 'an object'
}

/** `expected` reads after "must be": "a string", "a positive integer". */
export function invalidArgument(name: string, expected: string, actual: unknown): TypeError {
  const error = new TypeError(`"${name}" must be ${expected}; got ${describe(actual)}`)
  return Object.assign(error, { code: 'ERR_INVALID_ARG_TYPE' })
}

export function outOfRange(name: string, expected: string, actual: unknown): RangeError {
  const error = new RangeError(`"${name}" must be ${expected}; got ${describe(actual)}`)
  return Object.assign(error, { code: 'ERR_OUT_OF_RANGE' })
}

export function isPlainObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

export function checkObject(name: string, value: unknown): asserts value is Record<string, unknown> {
  if (!isPlainObject(value)) throw invalidArgument(name, 'an object', value)
}

export function checkString(name: string, value: unknown): asserts value is string {
  if (typeof value !== 'string') throw invalidArgument(name, 'a string', value)
}

export function checkBoolean(name: string, value: unknown): asserts value is boolean {
  if (typeof value !== 'boolean') throw invalidArgument(name, 'true or false', value)
}

/** A finite number in [min, max]. */
export function checkNumber(
  name: string,
  value: unknown,
  min = -Number.MAX_VALUE,
  max = Number.MAX_VALUE,
): asserts value is number {
  if (typeof value !== 'number') throw invalidArgument(name, 'a number', value)
  if (!(value >= min && value <= max)) throw outOfRange(name, `a finite number ${bounds(min, max)}`.trim(), value)
}

/** An integer in [min, max]. */
export function checkInteger(
  name: string,
  value: unknown,
  min = Number.MIN_SAFE_INTEGER,
  max = Number.MAX_SAFE_INTEGER,
): asserts value is number {
  if (typeof value !== 'number') throw invalidArgument(name, 'an integer', value)
  if (!Number.isSafeInteger(value) || value < min || value > max) {
    throw outOfRange(name, `an integer ${bounds(min, max)}`.trim(), value)
  }
}

export function checkOneOf<T extends string>(name: string, value: unknown, choices: readonly T[]): asserts value is T {
  const expected = `one of ${choices.map((choice) => `"${choice}"`).join(', ')}`
  if (typeof value !== 'string') throw invalidArgument(name, expected, value)
  if (!(choices as readonly string[]).includes(value)) throw outOfRange(name, expected, value)
}

function bounds(min: number, max: number): string {
  const low = min > -Number.MAX_VALUE && min !== Number.MIN_SAFE_INTEGER
  const high = max < Number.MAX_VALUE && max !== Number.MAX_SAFE_INTEGER
  if (min === Number.MIN_VALUE && !high) return 'above 0'
  if (low && high) return `from ${min} to ${max}`
  if (low) return `of at least ${min}`
  return high ? `of at most ${max}` : ''
}
