/**
 * Rows as they travel to an encoding worker and back: all token ids of a chunk in one transferred array, everything else as plain
 * data. Errors lose their class in a structured clone, so they travel as their fields.
 */
import { ImplexError, type ImplexErrorCode } from '../core/errors.js'
import { Float } from '../core/parse-json.js'
import type { EncodedRow, PreparedRow } from './encode.js'
import { UnreadCounts } from './unread.js'

export interface WireRow {
  index: number
  line?: number
  id?: string | number | bigint
  /** The digits of a number, where `id` would be written otherwise: 1.0. */
  idText?: string
  shape: 'pair' | 'group'
  margin?: number
  truncated?: boolean
  promptLengths?: number[]
  borderDiffers?: boolean
  promptParted?: boolean
  texts?: string[][]
  stepEnds?: number[][]
  gateAt?: number[]
  /** Tokens of the prompt and of each response, in the order in which they lie in the chunk. */
  lengths: number[]
  error?: WireError
}

export interface WireError {
  code: ImplexErrorCode
  message: string
  line?: number
  path?: string
}

export interface WireChunk {
  rows: WireRow[]
  /** How many of the rows have what nobody reads, by name. */
  unread: [name: string, rows: number][]
  /** [sum of all lengths] */
  tokens: Int32Array<ArrayBuffer>
}

/** PreparedRow with its error as plain data. */
export type WirePrepared = Omit<PreparedRow, 'error'> & { error?: WireError }

export function packPrepared({ error, ...rest }: PreparedRow): WirePrepared {
  return error === undefined ? rest : { ...rest, error: packError(error) }
}

export function unpackPrepared({ error, ...rest }: WirePrepared): PreparedRow {
  return error === undefined ? rest : { ...rest, error: unpackError(error) }
}

export function packRows(encoded: EncodedRow[]): WireChunk {
  let total = 0
  for (const row of encoded) total += row.responses.reduce((sum, ids) => sum + ids.length, row.prompt.length)
  const tokens = new Int32Array(total)
  let at = 0
  const unread = new UnreadCounts()
  const rows = encoded.map(({ prompt, responses, error, unread: names, ...rest }): WireRow => {
    for (const name of names ?? []) unread.add(name)
    const lengths: number[] = []
    for (const ids of [prompt, ...responses]) {
      tokens.set(ids, at)
      at += ids.length
      lengths.push(ids.length)
    }
    return { ...rest, lengths, error: error && packError(error) }
  })
  return { rows, unread: unread.entries, tokens }
}

export function unpackRows({ rows, tokens }: WireChunk): EncodedRow[] {
  let at = 0
  return rows.map(({ lengths, error, ...rest }): EncodedRow => {
    const parts = lengths.map((length) => {
      at += length
      return tokens.subarray(at - length, at)
    })
    const [prompt = new Int32Array(0), ...responses] = parts
    return { ...rest, prompt, responses, error: error && unpackError(error) }
  })
}

export function packError(error: unknown): WireError {
  if (!(error instanceof ImplexError)) {
    return { code: 'ERR_INTERNAL', message: error instanceof Error ? (error.stack ?? error.message) : String(error) }
  }
  const { code, message, line, path } = error
  return { code, message, line, path }
}

export function unpackError({ code, message, ...options }: WireError): ImplexError {
  return new ImplexError(code, message, options)
}

/** A value of JSON so that its Floats cross: a clone loses their class, but keeps that of a Number. */
export function packExact(value: unknown): unknown {
  return mapExact(value, (one) => (one instanceof Float ? Object(one.value) : undefined))
}

export function unpackExact(value: unknown): unknown {
  return mapExact(value, (one) => (one instanceof Number ? new Float(one.valueOf()) : undefined))
}

function mapExact(value: unknown, change: (one: object) => unknown): unknown {
  if (typeof value !== 'object' || value === null) return value
  const changed = change(value)
  if (changed !== undefined) return changed
  if (Array.isArray(value)) return value.map((one) => mapExact(one, change))
  if (value instanceof Map) return new Map([...value].map(([key, one]) => [key, mapExact(one, change)]))
  return Object.fromEntries(Object.entries(value).map(([key, one]) => [key, mapExact(one, change)]))
}
