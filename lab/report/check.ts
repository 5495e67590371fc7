/**
 * Checks of a file's content, as values. A check passes, or names the place and what belongs there.
 */

/** @returns what is wrong with `value` at `place`, undefined when nothing is */
export type Check = (value: unknown, place: string) => string | undefined

const expected =
  (what: string, holds: (value: unknown) => boolean): Check =>
  (value, place) =>
    holds(value) ? undefined : `${place} must be ${what}`

export const text = expected('a text', (value) => typeof value === 'string')
export const number = expected('a number', (value) => typeof value === 'number')
export const numberOrNull = expected('a number or null', (value) => value === null || typeof value === 'number')
export const scalar = expected(
  'a text, a number, true, false or null',
  (value) => value === null || typeof value !== 'object',
)

export function oneOf(...names: readonly string[]): Check {
  return expected(`one of ${names.join(', ')}`, (value) => typeof value === 'string' && names.includes(value))
}

export function list(item: Check): Check {
  return (value, place) => {
    if (!Array.isArray(value)) return `${place} must be a list`
    return first(value.map((one, i) => () => item(one, `${place}[${i}]`)))
  }
}

export function record(item: Check): Check {
  return (value, place) => {
    if (!isRecord(value)) return `${place} must be an object`
    return first(
      Object.entries(value).map(
        ([key, one]) =>
          () =>
            item(one, `${place}.${key}`),
      ),
    )
  }
}

export function optional(check: Check): Check {
  return (value, place) => (value === undefined ? undefined : check(value, place))
}

/** An object with at least these keys. */
export function shape(fields: Record<string, Check>): Check {
  return (value, place) => {
    if (!isRecord(value)) return `${place || 'it'} must be an object`
    return first(
      Object.entries(fields).map(
        ([key, check]) =>
          () =>
            check(Object.hasOwn(value, key) ? value[key] : undefined, place === '' ? key : `${place}.${key}`),
      ),
    )
  }
}

/** The first problem found. */
export function first(checks: readonly (() => string | undefined)[]): string | undefined {
  for (const check of checks) {
    const wrong = check()
    if (wrong !== undefined) return wrong
  }
  return undefined
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}
