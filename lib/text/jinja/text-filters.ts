/**
 * Filters on text and numbers, and those that turn a value into text.
 */
import { iterate, truth } from './compare.js'
import { RenderFault, UnsupportedError } from './errors.js'
import { jsonOptions, toJson } from './json.js'
import { replaceText } from './methods.js'
import { parseFloatText, parseInteger, roundNumber } from './numbers.js'
import { binary, escaped } from './operators.js'
import { formatPercent } from './percent.js'
import { pathGetter } from './paths.js'
import { str } from './show.js'
import { type Builtin, builtin } from './signature.js'
import * as text from './text.js'
import {
  asCount,
  asText,
  float,
  integer,
  isFloat,
  type Keywords,
  Markup,
  numeric,
  Tuple,
  typeName,
  Undefined,
  type Value,
} from './values.js'

/** A filter that works on the text of any value. */
const onText = (run: (subject: string) => Value): Builtin<Value> =>
  builtin('', ({ budget }, value: Value) => {
    const subject = softText(value)
    budget.scan(subject.length)
    return run(subject)
  })

/** str(), except that a safe text would stay one: that is refused where the filter then changes the text. */
function softText(value: Value): string {
  if (value instanceof Markup) throw new UnsupportedError('a filter on text marked as safe')
  return str(value)
}

const json = builtin<Value>(
  'ensure_ascii? indent? separators? sort_keys?',
  (
    { budget },
    value: Value,
    ensureAscii: Value = false,
    indent: Value = null,
    separators: Value = null,
    sort: Value = false,
  ) => {
    const result = toJson(value, jsonOptions(ensureAscii, indent, separators, sort))
    budget.write(result.length)
    return result
  },
)

const joining = builtin<Value>('d? attribute?', (runtime, value: Value, separator: Value = '', path: Value = null) => {
  const get = path === null ? undefined : pathGetter(runtime, path)
  const mark = str(separator)
  let size = 0
  const parts: string[] = []
  for (const item of iterate(value)) {
    runtime.budget.step()
    const part = str(get === undefined ? item : get(item))
    size += part.length + mark.length
    runtime.budget.text(size)
    parts.push(part)
  }
  runtime.budget.scan(size)
  return parts.join(mark)
})

const indenting = builtin<Value>(
  'width? first? blank?',
  ({ budget }, value: Value, width: Value = 4, first: Value = false, blank: Value = false) => {
    const subject = asText(value, 'indent')
    budget.write(typeof width === 'string' ? width.length : asCount(width, 'indent'))
    const space = typeof width === 'string' ? width : ' '.repeat(Math.max(0, asCount(width, 'indent')))
    const [start = '', ...others] = text.splitLines(`${subject}\n`, false)
    budget.write(subject.length + space.length * (others.length + 1))
    const all = truth(blank)
    return (
      (truth(first) ? space : '') +
      [start, ...others.map((line) => (line !== '' || all ? space + line : line))].join('\n')
    )
  },
)

/** Words begin after white space, a hyphen or an opening bracket; unlike the method, letters after other signs are lower case. */
function titleFilter(subject: string): string {
  return subject
    .split(new RegExp(`([-(\\{\\[<${text.SPACE}]+)`))
    .map((part) => {
      const [first = ''] = part
      return first.toUpperCase() + part.slice(first.length).toLowerCase()
    })
    .join('')
}

const integerFilter = builtin<Value>(
  'default? base?',
  ({ budget }, value: Value, otherwise: Value = 0, base: Value = 10) => {
    if (typeof value === 'string') {
      budget.scan(value.length)
      const exact = parseInteger(value, asCount(base, 'int'))
      return exact ?? truncated(parseFloatText(value)) ?? otherwise
    }
    const number = numeric(value)
    if (typeof number !== 'number') {
      if (value instanceof Undefined) value.fail()
      return number ?? otherwise
    }
    return isFloat(value) ? (truncated(number) ?? infinite(number, otherwise)) : number
  },
)

function truncated(value: number | undefined): Value | undefined {
  return value === undefined || !Number.isFinite(value) ? undefined : integer(BigInt(Math.trunc(value)))
}

/** Python's int() of an infinity is an OverflowError, which the filter lets through; of a NaN a ValueError, which it does not. */
function infinite(value: number, otherwise: Value): Value {
  if (Number.isNaN(value)) return otherwise
  throw new RenderFault('cannot convert float infinity to integer')
}

const floatFilter = builtin<Value>('default?', (_, value: Value, otherwise: Value = float(0)) => {
  if (value instanceof Undefined) value.fail()
  const number = typeof value === 'string' ? parseFloatText(value) : numeric(value)
  return number === undefined ? otherwise : float(Number(number))
})

const rounding = builtin<Value>(
  'precision? method?',
  (runtime, value: Value, digits: Value = 0, method: Value = 'common') => {
    if (method !== 'common' && method !== 'ceil' && method !== 'floor')
      throw new RenderFault('method must be common, ceil or floor')
    const number = numeric(value)
    if (number === undefined) throw new RenderFault(`type ${typeName(value)} doesn't define __round__ method`)
    const places = digits === null ? undefined : asCount(digits, 'round')
    if (method === 'common') {
      if (!isFloat(value) && (places === undefined || places >= 0)) return number
      if (isFloat(value)) return roundNumber(Number(number), places)
      throw new UnsupportedError('round of an integer to tens')
    }
    const unit = binary(runtime, '**', 10, digits)
    const scaled = numeric(binary(runtime, '*', value, unit)) as number | bigint
    const whole =
      typeof scaled === 'bigint' ? scaled : BigInt(method === 'ceil' ? Math.ceil(scaled) : Math.floor(scaled))
    return binary(runtime, '/', integer(whole), unit)
  },
)

const formatting = builtin<Value>('*', ({ budget }, value: Value, args: readonly Value[], keywords: Keywords) => {
  if (args.length > 0 && keywords.size > 0) {
    throw new RenderFault("can't handle positional and keyword arguments at the same time")
  }
  return formatPercent(budget, softText(value), keywords.size > 0 ? new Map(keywords) : new Tuple(args))
})

export const TEXT_FILTERS: Readonly<Record<string, Builtin<Value>>> = {
  abs: builtin('', (runtime, value: Value) => {
    const number = numeric(value)
    if (number === undefined) throw new RenderFault(`bad operand type for abs(): '${typeName(value)}'`)
    if (isFloat(value)) return float(Math.abs(Number(number)))
    return number < 0 ? binary(runtime, '*', value, -1) : number
  }),
  capitalize: onText(text.capitalize),
  center: builtin('width?', ({ budget }, value: Value, width: Value = 80) => {
    const subject = softText(value)
    const wide = asCount(width, 'center')
    const missing = Math.max(0, wide - text.length(subject))
    budget.write(subject.length + missing)
    const left = (missing >> 1) + (missing & wide & 1)
    return ' '.repeat(left) + subject + ' '.repeat(missing - left)
  }),
  escape: builtin('', ({ budget }, value: Value) => {
    if (value instanceof Markup) return value
    const subject = str(value)
    budget.scan(subject.length)
    return new Markup(escaped(subject))
  }),
  float: floatFilter,
  format: formatting,
  indent: indenting,
  int: integerFilter,
  join: joining,
  lower: onText((subject) => subject.toLowerCase()),
  replace: builtin('old new count?', (runtime, value: Value, old: Value, by: Value, most: Value = null) =>
    replaceText(runtime, softText(value), str(old), str(by), most === null ? -1 : asCount(most, 'replace')),
  ),
  round: rounding,
  safe: builtin('', (_, value: Value) => (value instanceof Markup ? value : new Markup(str(value)))),
  string: builtin('', ({ budget }, value: Value) => {
    if (value instanceof Markup) return value
    const subject = str(value)
    budget.write(subject.length)
    return subject
  }),
  title: onText(titleFilter),
  tojson: json,
  trim: builtin('chars?', ({ budget }, value: Value, set: Value = null) => {
    const subject = softText(value)
    budget.scan(subject.length)
    const marks = set === null ? null : asText(set, 'trim')
    return text.stripEnd(text.stripStart(subject, marks), marks)
  }),
  upper: onText((subject) => subject.toUpperCase()),
  wordcount: onText((subject) => subject.match(/[\p{L}\p{N}_]+/gu)?.length ?? 0),
}
