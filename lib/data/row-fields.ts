/**
 * The fields of one row, checked as they are read: texts, messages, numbers, values of JSON. null is absent everywhere, but for the
 * content of a message and inside of values that a template is given.
 */
import { describe, isPlainObject } from '../core/arguments.js'
import type { ImplexError } from '../core/errors.js'
import type { Message, TextPart } from '../text/messages.js'
import { says } from '../text/messages.js'
import { Float } from '../core/parse-json.js'
import { type RowPlace, rowError, type Text } from './rows.js'

/** How deep a value that a template is given may be nested. */
const MAX_DEPTH = 64

export class RowFields {
  /** Something was read whose numbers and keys a template may print: 2.0 is not 2 there. */
  exact = false

  constructor(
    readonly row: Readonly<Record<string, unknown>>,
    private readonly place: RowPlace,
  ) {}

  fail(message: string): ImplexError {
    return rowError('ERR_ROW_INVALID', message, this.place)
  }

  has(key: string): boolean {
    return this.row[key] !== undefined && this.row[key] !== null
  }

  /** The value of a key that must be there. */
  value(key: string): unknown {
    if (!this.has(key)) throw this.fail(`"${key}" is missing`)
    return this.row[key]
  }

  text(key: string): Text {
    return this.textOf(this.value(key), key)
  }

  /** A text that is not a conversation. */
  string(key: string): string {
    const value = this.value(key)
    if (typeof value !== 'string') throw this.fail(`"${key}" must be a string, not ${describe(value)}`)
    return this.unicode(value, key)
  }

  /** A string that may be absent; an empty one is as good as none. */
  optionalString(key: string): string | undefined {
    return this.has(key) ? this.string(key) || undefined : undefined
  }

  list(key: string): unknown[] {
    const value = this.value(key)
    if (Array.isArray(value) && value.length > 0) return value
    throw this.fail(`"${key}" must be a list of at least one response, not ${describe(value)}`)
  }

  number(key: string): number {
    return this.numberOf(this.value(key), key)
  }

  numberOf(value: unknown, field: string): number {
    const number = value instanceof Float ? value.value : typeof value === 'bigint' ? Number(value) : value
    if (typeof number === 'number' && Number.isFinite(number)) return number
    throw this.fail(`"${field}" must be a number, not ${describe(value)}`)
  }

  messages(key: string): Message[] {
    return this.messagesOf(this.value(key), key)
  }

  textOf(value: unknown, field: string): Text {
    if (typeof value === 'string') return this.unicode(value, field)
    if (!Array.isArray(value)) {
      throw this.fail(`"${field}" must be a string or a list of messages, not ${describe(value)}`)
    }
    return this.messagesOf(value, field)
  }

  messagesOf(value: unknown, field: string): Message[] {
    if (!Array.isArray(value)) throw this.fail(`"${field}" must be a list of messages, not ${describe(value)}`)
    if (value.length === 0) throw this.fail(`"${field}" must hold at least one message`)
    return value.map((message: unknown, i) => bareMessage(message) ?? this.message(message, `${field}[${i}]`))
  }

  message(value: unknown, field: string): Message {
    if (!isPlainObject(value)) throw this.fail(`"${field}" must be a message {role, content}, not ${describe(value)}`)
    const given = value instanceof Map ? (Object.fromEntries(value) as Record<string, unknown>) : value
    const { role } = given
    if (typeof role !== 'string') throw this.fail(`"${field}.role" must be a string, not ${describe(role)}`)
    const message: Message = { role: this.unicode(role, `${field}.role`) }
    for (const [key, one] of Object.entries(given)) {
      if (key === 'role' || one === undefined) continue
      if (key === 'content') message.content = this.content(one, `${field}.content`)
      else if (one !== null) message[key] = this.json(one, `${field}.${key}`)
    }
    if ((message.content === undefined || message.content === null) && !says(message)) {
      throw this.fail(`"${field}.content" must be a string or a list of text parts, not ${describe(message.content)}`)
    }
    return message
  }

  /** A value that a template is given as it is. */
  json(value: unknown, field: string, depth = 0): unknown {
    this.exact = true
    if (typeof value === 'string') return this.unicode(value, field)
    if (typeof value === 'boolean' || typeof value === 'bigint' || value === null || value instanceof Float)
      return value
    if (typeof value === 'number' && Number.isFinite(value)) return value
    if (typeof value !== 'object') throw this.fail(`"${field}" must be a value of JSON, not ${describe(value)}`)
    if (depth === MAX_DEPTH) throw this.fail(`"${field}" is nested more than ${MAX_DEPTH} deep`)
    if (Array.isArray(value)) return value.map((one: unknown, i) => this.json(one, `${field}[${i}]`, depth + 1))
    const entries = value instanceof Map ? [...value] : Object.entries(value)
    const read = entries
      .filter(([, one]) => one !== undefined)
      .map(([key, one]): [string, unknown] => [
        this.unicode(String(key), field),
        this.json(one, `${field}.${key}`, depth + 1),
      ])
    return value instanceof Map ? new Map(read) : Object.fromEntries(read)
  }

  unicode(text: string, field: string): string {
    if (!text.isWellFormed()) throw this.fail(`"${field}" holds half of a surrogate pair, which is no character`)
    return text
  }

  private content(value: unknown, field: string): string | TextPart[] | null {
    if (value === null) return null
    if (typeof value === 'string') return this.unicode(value, field)
    if (!Array.isArray(value) || value.length === 0) {
      throw this.fail(`"${field}" must be a string or a list of text parts, not ${describe(value)}`)
    }
    return value.map((part: unknown, i): TextPart => {
      const name = `${field}[${i}]`
      if (!isPlainObject(part)) throw this.fail(`"${name}" must be a part {type, text}, not ${describe(part)}`)
      if (part.type !== 'text') {
        throw this.fail(`"${name}" is a part of type ${describe(part.type)}; only parts of type "text" can be read`)
      }
      if (typeof part.text !== 'string') {
        throw this.fail(`"${name}.text" must be a string, not ${describe(part.text)}`)
      }
      const present = Object.entries(part).filter(([, one]) => one !== null && one !== undefined)
      return this.json(Object.fromEntries(present), name) as TextPart
    })
  }
}

/** A message of role and text and nothing else, as most are; undefined for any other, which is looked at more closely. */
function bareMessage(value: unknown): Message | undefined {
  if (typeof value !== 'object' || value === null) return undefined
  const { role, content } = value as Record<string, unknown>
  if (typeof role !== 'string' || typeof content !== 'string') return undefined
  if (!role.isWellFormed() || !content.isWellFormed()) return undefined
  for (const key in value) {
    if (key === 'role' || key === 'content') continue
    const other = (value as Record<string, unknown>)[key]
    if (other !== null && other !== undefined) return undefined
  }
  return { role, content }
}
