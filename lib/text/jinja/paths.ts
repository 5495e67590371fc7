/**
 * Attribute paths of filters: "function.name", "items.0", and for sorting several apart by commas.
 */
import { item } from './access.js'
import type { Runtime } from './signature.js'
import { Tuple, Undefined, type Value } from './values.js'

export type Getter = (value: Value) => Value

/** `otherwise` replaces what is undefined, unless it is null. */
export function pathGetter(runtime: Runtime, path: Value, otherwise: Value = null): Getter {
  const parts = pathParts(path)
  return (value) => {
    let found = value
    for (const part of parts) {
      found = item(runtime, found, part)
      if (otherwise !== null && found instanceof Undefined) found = otherwise
    }
    return found
  }
}

/** The key to sort by: a tuple of what every path gives. */
export function sortKeyGetter(runtime: Runtime, path: Value, caseSensitive: boolean): Getter {
  const paths = typeof path === 'string' ? path.split(',') : [path]
  const getters = paths.map((each) => foldingGetter(runtime, each, caseSensitive))
  return (value) => new Tuple(getters.map((get) => get(value)))
}

/** As pathGetter; a text in lower case unless case counts. */
export function foldingGetter(runtime: Runtime, path: Value, caseSensitive: boolean, otherwise: Value = null): Getter {
  const get = pathGetter(runtime, path, otherwise)
  return (value) => {
    const found = get(value)
    return !caseSensitive && typeof found === 'string' ? found.toLowerCase() : found
  }
}

function pathParts(path: Value): Value[] {
  if (path === null) return []
  if (typeof path !== 'string') return [path]
  return path.split('.').map((part) => (/^\d+$/.test(part) ? Number(part) : part))
}
