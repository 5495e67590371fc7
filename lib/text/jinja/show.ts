/**
 * Values as text: Python's str() and repr().
 */
import { UnsupportedError } from './errors.js'
import { spend } from './limits.js'
import { floatText } from './numbers.js'
import {
  Callable,
  Float,
  isFloat,
  Lazy,
  Markup,
  Namespace,
  type PythonObject,
  Range,
  Tuple,
  Undefined,
  type Value,
  View,
} from './values.js'

/** str(): what `{{ … }}` and `~` write. */
export function str(value: Value): string {
  if (typeof value === 'string') return value
  if (value instanceof Markup) return value.text
  if (value instanceof Undefined) return ''
  return repr(value)
}

export function repr(value: Value): string {
  spend(1)
  if (value === null) return 'None'
  switch (typeof value) {
    case 'string':
      return quoted(value)
    case 'boolean':
      return value ? 'True' : 'False'
    case 'bigint':
      return value.toString()
    case 'number':
      return isFloat(value) ? floatText(value as number) : String(value)
    default:
      if (Array.isArray(value)) return `[${value.map(repr).join(', ')}]`
      if (value instanceof Map) return dictText(value)
      return value instanceof Float ? floatText(value.value) : objectText(value as PythonObject)
  }
}

function dictText(dict: Map<Value, Value>): string {
  return `{${Array.from(dict, ([key, item]) => `${repr(key)}: ${repr(item)}`).join(', ')}}`
}

function objectText(value: PythonObject): string {
  if (value instanceof Tuple) {
    return value.items.length === 1 ? `(${repr(value.items[0] as Value)},)` : `(${value.items.map(repr).join(', ')})`
  }
  if (value instanceof Undefined) return 'Undefined'
  if (value instanceof Markup) return `Markup(${quoted(value.text)})`
  if (value instanceof View) return `${value.type}(${repr(value.items())})`
  if (value instanceof Namespace) return `<Namespace ${dictText(value.attributes)}>`
  if (value instanceof Range) {
    const step = value.step === 1 ? '' : `, ${value.step}`
    return `range(${value.start}, ${value.stop}${step})`
  }
  if (value instanceof Callable || value instanceof Lazy) throw new UnsupportedError(`the text of a ${value.type}`)
  return String(value)
}

/** repr of a str: in single quotes unless it has only those, and what cannot be printed as an escape. */
export function quoted(text: string): string {
  spend(0, text.length)
  const quote = text.includes("'") && !text.includes('"') ? '"' : "'"
  const escaped = text.replace(/[\\'"]|[\p{C}\p{Z}]/gu, (character) => {
    if (character === '\\' || character === quote) return `\\${character}`
    return character === ' ' || character === "'" || character === '"' ? character : escapeSequence(character)
  })
  return quote + escaped + quote
}

const SHORT: Readonly<Record<string, string>> = { '\n': '\\n', '\r': '\\r', '\t': '\\t' }

function escapeSequence(character: string): string {
  const code = character.codePointAt(0) as number
  const hex = code.toString(16)
  if (code < 0x100) return SHORT[character] ?? `\\x${hex.padStart(2, '0')}`
  return code < 0x10000 ? `\\u${hex.padStart(4, '0')}` : `\\U${hex.padStart(8, '0')}`
}
