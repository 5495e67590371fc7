/**
 * Filters on lists and dicts.
 */
import { ownAttribute } from './access.js'
import { checkHashable, compare, contains, equal, findKey, items, iterate, length, setItem, truth } from './compare.js'
import { RenderFault } from './errors.js'
import { binary } from './operators.js'
import { foldingGetter, type Getter, pathGetter, sortKeyGetter } from './paths.js'
import { str } from './show.js'
import { type Builtin, builtin, type Runtime } from './signature.js'
import { characters } from './text.js'
import {
  asCount,
  type Dict,
  Group,
  type Keywords,
  Lazy,
  orUndefined,
  Range,
  type Tuple,
  typeName,
  Undefined,
  type Value,
  View,
} from './values.js'

/** A filter that yields items one by one, each when it is asked for. */
const lazy = (
  parameters: string,
  // biome-ignore lint/suspicious/noExplicitAny: every filter has parameters of its own
  run: (runtime: Runtime, value: Value, ...args: any[]) => Generator<Value>,
): Builtin<Value> =>
  builtin(
    parameters,
    (runtime, value: Value, ...args: unknown[]) => new Lazy(counted(runtime, run(runtime, value, ...args))),
  )

function* counted({ budget }: Runtime, values: Iterable<Value>): Generator<Value> {
  for (const value of values) {
    budget.step()
    yield value
  }
}

/** The items as a list of their own. */
function listed({ budget }: Runtime, value: Value): Value[] {
  const list = [...items(value)]
  budget.step(list.length)
  return list
}

/** Sorted by a key, items of equal keys in their order. */
function sorted(runtime: Runtime, list: readonly Value[], key: Getter, reverse: boolean): Value[] {
  const keyed = list.map((item): [Value, Value] => [key(item), item])
  if (reverse) keyed.reverse()
  keyed.sort(([a], [b]) => {
    runtime.budget.step()
    return compare(a, b)
  })
  if (reverse) keyed.reverse()
  return keyed.map(([, item]) => item)
}

/** select, reject and their attribute forms. */
const selecting = (wanted: boolean, byAttribute: boolean): Builtin<Value> =>
  lazy('*', function* (runtime, value, args: readonly Value[], keywords: Keywords) {
    if (!truth(value)) return
    const [path, ...others] = byAttribute ? args : [null, ...args]
    if (path === undefined) throw new RenderFault('Missing parameter for attribute name')
    const get: Getter = byAttribute ? pathGetter(runtime, path) : (item) => item
    const [name, ...rest] = others
    for (const item of iterate(value)) {
      const subject = get(item)
      if ((name === undefined ? truth(subject) : runtime.test(name, subject, rest, keywords)) === wanted) yield item
    }
  })

const mapping = lazy('*', function* (runtime, value, args: readonly Value[], keywords: Keywords) {
  if (!truth(value)) return
  const apply = mapper(runtime, args, keywords)
  for (const item of iterate(value)) yield apply(item)
})

function mapper(runtime: Runtime, args: readonly Value[], keywords: Keywords): Getter {
  const [name, ...rest] = args
  if (name !== undefined) return (item) => runtime.filter(name, item, rest, keywords)
  const path = keywords.get('attribute')
  if (path === undefined) throw new RenderFault('map requires a filter argument')
  for (const keyword of keywords.keys()) {
    if (keyword !== 'attribute' && keyword !== 'default')
      throw new RenderFault(`Unexpected keyword argument '${keyword}'`)
  }
  return pathGetter(runtime, path, keywords.get('default') ?? null)
}

const extreme = (sign: number): Builtin<Value> =>
  builtin('case_sensitive? attribute?', (runtime, value: Value, caseSensitive: Value = false, path: Value = null) => {
    const key = foldingGetter(runtime, path, truth(caseSensitive))
    let best: [Value, Value] | undefined
    for (const item of iterate(value)) {
      runtime.budget.step()
      const rank = key(item)
      if (best === undefined || sign * compare(rank, best[0], sign > 0 ? '>' : '<') > 0) best = [rank, item]
    }
    return best === undefined ? new Undefined('No aggregated item, sequence was empty.') : best[1]
  })

const grouping = builtin<Value>(
  'attribute default? case_sensitive?',
  (runtime, value: Value, path: Value, otherwise: Value = null, caseSensitive: Value = false) => {
    const key = foldingGetter(runtime, path, truth(caseSensitive), otherwise)
    const real = pathGetter(runtime, path, otherwise)
    const groups: [Value, Value[]][] = []
    for (const item of sorted(runtime, items(value), key, false)) {
      const last = groups.at(-1)
      const rank = key(item)
      if (last !== undefined && equal(last[0], rank)) last[1].push(item)
      else groups.push([rank, [item]])
    }
    return groups.map(([, list]) => new Group(real(list[0] as Value), list))
  },
)

const dictSorting = builtin<Value>(
  'case_sensitive? by? reverse?',
  (runtime, value: Value, caseSensitive: Value = false, by: Value = 'key', reverse: Value = false) => {
    if (by !== 'key' && by !== 'value') throw new RenderFault('You can only sort by either "key" or "value"')
    if (value instanceof Undefined) value.fail()
    if (!(value instanceof Map)) throw new RenderFault(`'${typeName(value)}' object has no attribute 'items'`)
    const fold = foldingGetter(runtime, null, truth(caseSensitive))
    const place = by === 'key' ? 0 : 1
    const entries = new View('dict_items', value).items()
    return sorted(runtime, entries, (entry) => fold((entry as Tuple).items[place] as Value), truth(reverse))
  },
)

const batching = lazy('linecount fill_with?', function* (runtime, value, size: Value, fill: Value = null) {
  let batch: Value[] = []
  for (const item of iterate(value)) {
    if (equal(batch.length, size)) {
      yield batch
      batch = []
    }
    batch.push(item)
  }
  if (batch.length === 0) return
  if (fill !== null && compare(batch.length, size) < 0) {
    const missing = asCount(size, 'batch') - batch.length
    runtime.budget.step(missing)
    batch = [...batch, ...Array.from({ length: missing }, () => fill)]
  }
  yield batch
})

const slicing = lazy('slices fill_with?', function* (runtime, value, slices: Value, fill: Value = null) {
  const list = listed(runtime, value)
  const count = asCount(slices, 'slice')
  if (count === 0) throw new RenderFault('integer division or modulo by zero')
  const size = Math.floor(list.length / count)
  const larger = list.length % count
  let start = 0
  for (let i = 0; i < count; i++) {
    const end = start + size + (i < larger ? 1 : 0)
    yield fill !== null && i >= larger ? [...list.slice(start, end), fill] : list.slice(start, end)
    start = end
  }
})

const unique = lazy(
  'case_sensitive? attribute?',
  function* (runtime, value, caseSensitive: Value = false, path: Value = null) {
    const key = foldingGetter(runtime, path, truth(caseSensitive))
    const seen: Dict = new Map()
    const others: Value[] = []
    for (const item of iterate(value)) {
      const rank = key(item)
      checkHashable(rank)
      if (findKey(seen, rank) !== undefined) continue
      if (isCompound(rank)) {
        if (contains(others, rank)) continue
        others.push(rank)
      } else setItem(seen, rank, true)
      yield item
    }
  },
)

/** What cannot be a key of a dict here, a tuple for one. */
function isCompound(value: Value): boolean {
  return typeof value === 'object' && value !== null
}

const reversing = builtin<Value>('', (runtime, value: Value) => {
  if (typeof value === 'string') {
    runtime.budget.scan(value.length)
    return characters(value).reverse().join('')
  }
  return new Lazy(listed(runtime, value).reverse()[Symbol.iterator]())
})

const summing = builtin<Value>('attribute? start?', (runtime, value: Value, path: Value = null, start: Value = 0) => {
  if (typeof start === 'string') throw new RenderFault("sum() can't sum strings [use ''.join(seq) instead]")
  const get = pathGetter(runtime, path)
  let total: Value = start
  for (const item of iterate(value)) {
    runtime.budget.step()
    total = binary(runtime, '+', total, get(item))
  }
  return total
})

const last = builtin<Value>('', (_, value: Value) => {
  if (value instanceof Lazy) throw new RenderFault(`'generator' object is not reversible`)
  return orUndefined(items(value).at(-1), 'No last item, sequence was empty.')
})

export const SEQUENCE_FILTERS: Readonly<Record<string, Builtin<Value>>> = {
  attr: builtin('name', (runtime, value: Value, name: Value) => {
    if (value instanceof Undefined) value.fail()
    return orUndefined(
      ownAttribute(runtime, value, str(name)),
      `'${typeName(value)} object' has no attribute '${str(name)}'`,
    )
  }),
  batch: batching,
  count: builtin('', (_, value: Value) => length(value)),
  default: builtin('default_value? boolean?', (_, value: Value, otherwise: Value = '', boolean: Value = false) =>
    value instanceof Undefined || (truth(boolean) && !truth(value)) ? otherwise : value,
  ),
  dictsort: dictSorting,
  first: builtin('', (_, value: Value) => {
    if (value instanceof Range && value.length > 0) return value.at(0)
    const next = iterate(value).next()
    return next.done === true ? new Undefined('No first item, sequence was empty.') : next.value
  }),
  groupby: grouping,
  items: lazy('', function* (_, value) {
    if (value instanceof Undefined) return
    if (!(value instanceof Map)) throw new RenderFault('Can only get item pairs from a mapping.')
    yield* new View('dict_items', value).items()
  }),
  last,
  list: builtin('', (runtime, value: Value) => listed(runtime, value)),
  map: mapping,
  max: extreme(1),
  min: extreme(-1),
  reject: selecting(false, false),
  rejectattr: selecting(false, true),
  reverse: reversing,
  select: selecting(true, false),
  selectattr: selecting(true, true),
  slice: slicing,
  sort: builtin(
    'reverse? case_sensitive? attribute?',
    (runtime, value: Value, reverse: Value = false, caseSensitive: Value = false, path: Value = null) =>
      sorted(runtime, items(value), sortKeyGetter(runtime, path, truth(caseSensitive)), truth(reverse)),
  ),
  sum: summing,
  unique,
}
