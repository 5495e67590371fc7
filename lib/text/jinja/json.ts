/**
 * The filter tojson as transformers defines it: Python's json.dumps, byte for byte.
 */
import { compare, items, truth } from './compare.js'
import { RenderFault } from './errors.js'
import { spend } from './limits.js'
import { floatText } from './numbers.js'
import { asCount, asText, isFloat, Markup, Tuple, typeName, type Dict, type Value } from './values.js'

export interface JsonOptions {
  ensureAscii: boolean
  /** White space of one level; undefined writes everything in one line. */
  indent: string | undefined
  itemSeparator: string
  keySeparator: string
  sortKeys: boolean
}

export function jsonOptions(ensureAscii: Value, indent: Value, separators: Value, sortKeys: Value): JsonOptions {
  const unit = indent === null ? undefined : typeof indent === 'string' ? indent : ' '.repeat(level(indent))
  const [item, key] = separators === null ? [unit === undefined ? ', ' : ',', ': '] : separatorTexts(separators)
  return {
    ensureAscii: truth(ensureAscii),
    indent: unit,
    itemSeparator: item,
    keySeparator: key,
    sortKeys: truth(sortKeys),
  }
}

function level(indent: Value): number {
  const count = Math.max(0, asCount(indent, 'tojson: indent'))
  spend(0, count)
  return count
}

function separatorTexts(separators: Value): [string, string] {
  const texts = items(separators)
  if (texts.length !== 2) throw new RenderFault('tojson: separators must be two texts')
  return [asText(texts[0] as Value, 'tojson: separators'), asText(texts[1] as Value, 'tojson: separators')]
}

export function toJson(value: Value, options: JsonOptions, newline = '\n'): string {
  spend(1)
  if (value === null) return 'null'
  if (typeof value === 'string') return jsonString(value, options.ensureAscii)
  if (typeof value === 'boolean') return String(value)
  if (isFloat(value)) return jsonFloat(Number(value))
  if (typeof value === 'number' || typeof value === 'bigint') return String(value)
  if (value instanceof Markup) return jsonString(value.text, options.ensureAscii)
  if (value instanceof Map) return jsonDict(value, options, newline)
  const list = Array.isArray(value) ? value : value instanceof Tuple ? value.items : undefined
  if (list === undefined) throw new RenderFault(`Object of type ${typeName(value)} is not JSON serializable`)
  const inner = newline + (options.indent ?? '')
  return enclosed(
    '[',
    list.map((item) => toJson(item, options, inner)),
    ']',
    options,
    newline,
  )
}

function jsonDict(dict: Dict, options: JsonOptions, newline: string): string {
  const inner = newline + (options.indent ?? '')
  const entries = [...dict]
  if (options.sortKeys) entries.sort(([a], [b]) => compare(a, b))
  const texts = entries.map(([key, item]) => {
    return jsonString(keyText(key), options.ensureAscii) + options.keySeparator + toJson(item, options, inner)
  })
  return enclosed('{', texts, '}', options, newline)
}

function enclosed(open: string, texts: string[], close: string, options: JsonOptions, newline: string): string {
  if (texts.length === 0) return open + close
  const between = options.itemSeparator.length + newline.length + (options.indent?.length ?? 0)
  spend(
    0,
    texts.reduce((size, text) => size + text.length + between, 0),
  )
  if (options.indent === undefined) return open + texts.join(options.itemSeparator) + close
  const inner = newline + options.indent
  return open + inner + texts.join(options.itemSeparator + inner) + newline + close
}

function keyText(key: Value): string {
  if (typeof key === 'string') return key
  if (key === null) return 'null'
  if (isFloat(key)) return jsonFloat(Number(key))
  if (typeof key === 'boolean' || typeof key === 'number' || typeof key === 'bigint') return String(key)
  throw new RenderFault(`keys must be str, int, float, bool or None, not ${typeName(key)}`)
}

function jsonFloat(value: number): string {
  if (Number.isNaN(value)) return 'NaN'
  if (!Number.isFinite(value)) return value < 0 ? '-Infinity' : 'Infinity'
  return floatText(value)
}

const SHORT: Readonly<Record<string, string>> = {
  '"': '\\"',
  '\\': '\\\\',
  '\n': '\\n',
  '\r': '\\r',
  '\t': '\\t',
  '\b': '\\b',
  '\f': '\\f',
}

function jsonString(text: string, ensureAscii: boolean): string {
  spend(0, text.length)
  // biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what JSON escapes
  const escaped = ensureAscii ? /["\\]|[^ -~]/g : /["\\\x00-\x1f]/g
  return `"${text.replace(escaped, (unit) => SHORT[unit] ?? `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`)}"`
}
