/**
 * The functions that every template can call, beside those of its environment.
 */
import { items, setItem } from './compare.js'
import { LimitError, RenderFault } from './errors.js'
import { MAX_RANGE } from './limits.js'
import {
  asCount,
  Callable,
  type Dict,
  type Keywords,
  Namespace,
  Range,
  Tuple,
  typeName,
  Undefined,
  type Value,
} from './values.js'

export const GLOBALS: ReadonlyMap<string, Value> = new Map(
  [
    new Callable('range', (args, keywords) => makeRange(args, keywords)),
    new Callable('dict', (args, keywords) => makeDict('dict', args, keywords)),
    new Callable('namespace', (args, keywords) => new Namespace(makeDict('namespace', args, keywords))),
  ].map((callable) => [callable.name, callable]),
)

function makeRange(args: readonly Value[], keywords: Keywords): Range {
  if (keywords.size > 0) throw new RenderFault('range() takes no keyword arguments')
  if (args.length < 1 || args.length > 3) throw new RenderFault(`range expected 1 to 3 arguments, got ${args.length}`)
  const [first = 0, second, step = 1] = args.map((value) => asCount(value, 'range'))
  if (step === 0) throw new RenderFault('range() arg 3 must not be zero')
  const range = second === undefined ? new Range(0, first, 1) : new Range(first, second, step)
  if (range.length <= MAX_RANGE) return range
  throw new LimitError(`a range has more than ${MAX_RANGE} items`)
}

/** From a dict or a list of pairs, and then keywords. */
function makeDict(name: string, args: readonly Value[], keywords: Keywords): Dict {
  if (args.length > 1) throw new RenderFault(`${name} expected at most 1 argument, got ${args.length}`)
  const [source] = args
  if (source instanceof Undefined) source.fail()
  const dict: Dict = source instanceof Map ? new Map(source) : new Map()
  if (source !== undefined && !(source instanceof Map)) {
    for (const pair of items(source)) {
      const parts = Array.isArray(pair) ? pair : pair instanceof Tuple ? pair.items : []
      if (parts.length !== 2) throw new RenderFault(`${name}: a pair of key and value is needed, not ${typeName(pair)}`)
      setItem(dict, parts[0] as Value, parts[1] as Value)
    }
  }
  for (const [key, value] of keywords) dict.set(key, value)
  return dict
}
