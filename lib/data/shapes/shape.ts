/**
 * What a row shape is: the keys by which it is known, and how its row becomes a prompt and responses.
 */
import type { Message } from '../../text/messages.js'
import type { RowFields } from '../row-fields.js'
import type { Text } from '../rows.js'
import type { RowShapeName } from './names.js'

export interface RowShape {
  /** Its name for --rows and the option `rows`. */
  readonly name: RowShapeName
  /** Keys that a row of this shape has. */
  readonly keys: readonly string[]
  /** Keys that it may have and that are read. */
  readonly optional?: readonly string[]
  /** Keys that a row of this shape does not have: with them it is of another one. */
  readonly without?: readonly string[]
  /** Tells shapes with the same keys apart. Default: every row with the keys is of this shape. */
  fits?(row: Readonly<Record<string, unknown>>): boolean
  /** Keys of the published rows that say nothing about what is asked or answered; nothing reads them, and nobody need be told. */
  readonly leaves?: readonly string[]
  /** What the row holds, in a sentence for the documents. */
  readonly meaning: string
  /** Who publishes or reads such rows. */
  readonly source: string
  /** @throws ImplexError naming the field */
  read(fields: RowFields): ShapedRow
}

/** A row as its shape reads it. */
export interface ShapedRow {
  /** 'pair': the responses are [chosen, rejected]. */
  shape: 'pair' | 'group'
  /** Absent: the responses are whole conversations, and what they have in common is the prompt. */
  prompt?: Text
  responses: Text[]
  /** The steps that the one response is made of. */
  steps?: string[]
  /** Of functions, where the shape keeps them in a place of its own. */
  tools?: unknown
}

/** [chosen, rejected] of two responses. `sign` above 0 says that the first is better; 0 is an error that names `field`. */
export function ordered(first: Text, second: Text, sign: number, field: string, fields: RowFields): Text[] {
  if (sign === 0) throw fields.fail(`"${field}" says that neither response is better, so none is the chosen one`)
  return sign > 0 ? [first, second] : [second, first]
}

export function isListOf(value: unknown, type: 'string' | 'object'): boolean {
  return Array.isArray(value) && value.length > 0 && typeof value[0] === type && !Array.isArray(value[0])
}

export const user = (content: string): Message => ({ role: 'user', content })
export const assistant = (content: string): Message => ({ role: 'assistant', content })
