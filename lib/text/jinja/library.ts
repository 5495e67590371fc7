/**
 * Filters and tests by name, and the names of Jinja's that this implementation refuses.
 */
import { checkHashable } from './compare.js'
import { RenderFault, UnsupportedError } from './errors.js'
import { SEQUENCE_FILTERS } from './sequence-filters.js'
import type { Builtin } from './signature.js'
import { TESTS } from './tests.js'
import { TEXT_FILTERS } from './text-filters.js'
import { builtin } from './signature.js'
import { textOf, typeName, type Value } from './values.js'

const ALIASES: Readonly<Record<string, string>> = { d: 'default', e: 'escape', length: 'count' }
const REFUSED_FILTERS = new Set(
  'filesizeformat forceescape pprint random striptags truncate urlencode urlize wordwrap xmlattr'.split(' '),
)
export const REFUSED_GLOBALS = new Set(['lipsum', 'cycler', 'joiner'])

const filters = new Map<string, Builtin<Value>>(Object.entries({ ...TEXT_FILTERS, ...SEQUENCE_FILTERS }))
for (const [alias, name] of Object.entries(ALIASES)) filters.set(alias, filters.get(name) as Builtin<Value>)
const tests = new Map<string, Builtin<Value>>(Object.entries(TESTS))
const named = (exists: (name: string) => boolean): Builtin<Value> =>
  builtin('', (_, name: Value) => {
    checkHashable(name)
    return typeof name === 'string' && exists(name)
  })
tests.set(
  'filter',
  named((name) => filters.has(name) || REFUSED_FILTERS.has(name)),
)
tests.set(
  'test',
  named((name) => tests.has(name)),
)

/** Undefined when Jinja knows none of this name either; an UnsupportedError when only Jinja does. */
export function findFilter(name: string): Builtin<Value> | undefined {
  if (REFUSED_FILTERS.has(name)) throw new UnsupportedError(`the filter ${name}`)
  return filters.get(name)
}

export function findTest(name: string): Builtin<Value> | undefined {
  return tests.get(name)
}

/** A filter or a test that is named by a value. */
export function namedBuiltin(kind: 'filter' | 'test', name: Value): { name: string; found: Builtin<Value> } {
  const text = textOf(name)
  if (text === undefined) throw new RenderFault(`a ${kind} is named by a str, not by ${typeName(name)}`)
  const found = kind === 'filter' ? findFilter(text) : findTest(text)
  if (found === undefined) throw new RenderFault(`No ${kind} named '${text}'.`)
  return { name: text, found }
}
