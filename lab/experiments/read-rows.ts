/**
 * A JSON Lines file as objects in memory, every complaint naming file and line.
 */
import { readJsonl } from '../../lib/data/jsonl.js'
import { rowError } from '../../lib/data/rows.js'
import { ImplexError } from '../../lib/core/errors.js'
import { describe, isPlainObject } from '../../lib/core/arguments.js'

export interface FileRow {
  value: Record<string, unknown>
  /** Counted from 0, and the line of the file, from 1. */
  index: number
  line?: number
  /** For errors about this row. */
  fail(message: string): ImplexError
}

/** @throws ImplexError ERR_IO, ERR_ROW_INVALID */
export async function* readRows(file: string): AsyncGenerator<FileRow> {
  for await (const row of readJsonl(file)) {
    const place = { index: row.index, ...(row.line === undefined ? {} : { line: row.line }) }
    const fail = (message: string) => inFile(file, rowError('ERR_ROW_INVALID', message, place))
    if (row.error !== undefined) throw inFile(file, row.error)
    let value: unknown
    try {
      value = row.value ?? JSON.parse(row.text ?? '')
    } catch (error) {
      throw fail(`is not valid JSON: ${(error as Error).message}`)
    }
    if (!isPlainObject(value)) throw fail(`a row must be a JSON object, not ${describe(value)}`)
    yield { value, fail, ...place }
  }
}

/** A field of a row that must be a text. */
export function textField({ value, fail }: FileRow, name: string, expected: readonly string[]): string {
  const found = value[name]
  if (typeof found === 'string' && found.trim() !== '') return found
  const what = found === undefined ? 'is missing' : `must be a text, not ${describe(found)}`
  throw fail(`"${name}" ${what}; a row of this file needs ${expected.map((one) => `"${one}"`).join(' and ')}`)
}

export function inFile(file: string, error: ImplexError): ImplexError {
  if (error.path === file) return error
  const { code, line, message } = error
  return new ImplexError(code, `${file}: ${message}`, {
    cause: error,
    path: file,
    ...(line === undefined ? {} : { line }),
  })
}
