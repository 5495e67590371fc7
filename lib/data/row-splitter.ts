/**
 * Bytes cut into rows: the lines of JSON Lines, or the elements of one JSON array. Pieces of a row that a read did not complete are kept, at
 * most `maxRowBytes` of them; a longer row comes out as an error.
 */
import { isUtf8 } from 'node:buffer'
import { ImplexError } from '../core/errors.js'
import { rowError, type SourceRow } from './rows.js'
import type { RowShapeName } from './shapes/names.js'

const NEWLINE = 0x0a
const [QUOTE, BACKSLASH, COMMA] = [0x22, 0x5c, 0x2c]
const [OPEN_ARRAY, CLOSE_ARRAY, OPEN_OBJECT, CLOSE_OBJECT] = [0x5b, 0x5d, 0x7b, 0x7d]

export interface RowLimits {
  /** Rows to pass over before the first one that comes out; they keep their numbers. */
  skipRows: number
  /** Rows after which the splitter is done. */
  limit: number
  maxRowBytes: number
  /** Given to every row. */
  shape?: RowShapeName
}

export abstract class RowSplitter {
  /** No further row is wanted. */
  done = false
  protected line = 1
  readonly #limits: RowLimits
  #parts: Buffer[] = []
  #bytes = 0
  #tooLong = false
  #index = 0

  constructor(limits: RowLimits) {
    this.#limits = limits
  }

  /** Rows that `bytes` complete. The buffer is the splitter's from now on. */
  push(bytes: Buffer): SourceRow[] {
    const rows: SourceRow[] = []
    this.cut(bytes, rows)
    // Kept parts are views of the read buffer; a copy frees the rest of it.
    const last = this.#parts.length - 1
    if (last >= 0) this.#parts[last] = Buffer.from(this.#parts[last]!)
    return rows
  }

  /** Rows that the end completes. @throws ImplexError ERR_ROW_INVALID when it comes too early */
  abstract end(): SourceRow[]

  protected abstract cut(bytes: Buffer, rows: SourceRow[]): void

  /** Whether something of a row is kept. */
  protected get begun(): boolean {
    return this.#bytes > 0 || this.#tooLong
  }

  protected keep(bytes: Buffer): void {
    if (this.#tooLong || bytes.length === 0) return
    if (this.#bytes + bytes.length > this.#limits.maxRowBytes) {
      this.#tooLong = true
      this.#parts = []
      this.#bytes = 0
      return
    }
    this.#parts.push(bytes)
    this.#bytes += bytes.length
  }

  /** Makes a row of what is kept; of nothing but white space none. `line`: where it stands. */
  protected finish(rows: SourceRow[], line: number): void {
    let bytes = this.#parts.length === 1 ? this.#parts[0]! : Buffer.concat(this.#parts, this.#bytes)
    const tooLong = this.#tooLong
    this.#parts = []
    this.#bytes = 0
    this.#tooLong = false
    if (line === 1) bytes = bytes.subarray(markLength(bytes))
    if (!tooLong && isBlank(bytes)) return
    const { skipRows, limit, maxRowBytes, shape } = this.#limits
    const index = this.#index++
    if (this.#index >= limit) this.done = true
    if (index < skipRows) return
    const place = { index, line }
    if (tooLong) rows.push({ ...place, error: rowError('ERR_ROW_INVALID', `longer than ${maxRowBytes} bytes`, place) })
    else if (!isUtf8(bytes)) rows.push({ ...place, error: rowError('ERR_ROW_INVALID', 'not valid UTF-8', place) })
    else {
      const text = bytes.toString('utf8')
      rows.push(shape === undefined ? { ...place, text } : { ...place, text, shape })
    }
  }
}

export class LineSplitter extends RowSplitter {
  protected cut(bytes: Buffer, rows: SourceRow[]): void {
    let start = 0
    while (!this.done) {
      const newline = bytes.indexOf(NEWLINE, start)
      this.keep(bytes.subarray(start, newline < 0 ? bytes.length : newline))
      if (newline < 0) return
      this.finish(rows, this.line++)
      start = newline + 1
    }
  }

  end(): SourceRow[] {
    const rows: SourceRow[] = []
    if (!this.done && this.begun) this.finish(rows, this.line)
    return rows
  }
}

/** The elements of an array at the top level. What an element is, is left to whoever parses it; only brackets and texts are followed. */
export class ArraySplitter extends RowSplitter {
  /** Brackets that are open: 0 before the array and behind it. */
  #depth = 0
  #closed = false
  #inText = false
  #escaped = false
  /** Line on which the element began. */
  #start = 1

  protected cut(bytes: Buffer, rows: SourceRow[]): void {
    let from = 0
    for (let i = 0; i < bytes.length && !this.done; i++) {
      const byte = bytes[i]!
      if (byte === NEWLINE) this.line++
      if (this.#inText) {
        if (this.#escaped) this.#escaped = false
        else if (byte === BACKSLASH) this.#escaped = true
        else if (byte === QUOTE) this.#inText = false
        continue
      }
      if (byte === QUOTE) this.#inText = true
      const opens = byte === OPEN_ARRAY || byte === OPEN_OBJECT
      const closes = byte === CLOSE_ARRAY || byte === CLOSE_OBJECT
      if (this.#depth === 0) {
        if (byte === OPEN_ARRAY && !this.#closed) {
          this.#depth = 1
          this.#start = this.line
        } else if (this.#closed && !isSpace(byte)) throw this.#wrong('goes on behind its end')
        from = i + 1
        continue
      }
      if (this.#depth === 1 && (byte === COMMA || byte === CLOSE_ARRAY)) {
        this.keep(bytes.subarray(from, i))
        this.finish(rows, this.#start)
        this.#start = this.line
        from = i + 1
      } else if (this.#depth === 1 && byte === NEWLINE && !this.begun && isBlank(bytes.subarray(from, i))) {
        this.#start = this.line
        from = i + 1
      }
      if (opens) this.#depth++
      if (closes) {
        this.#depth--
        this.#closed = this.#depth === 0
      }
    }
    const rest = bytes.subarray(from)
    if (this.#depth > 0 && !this.done && (this.begun || !isBlank(rest))) this.keep(rest)
  }

  end(): SourceRow[] {
    if (!this.done && !this.#closed) throw this.#wrong('ends before its last bracket: it was cut off')
    return []
  }

  #wrong(what: string): ImplexError {
    return new ImplexError('ERR_ROW_INVALID', `line ${this.line}: the JSON array ${what}`, { line: this.line })
  }
}

/** Whether a file that begins so is one JSON array of rows: a bracket, and then an object or nothing. Undefined: more bytes will tell. */
export function beginsArray(start: Buffer): boolean | undefined {
  let i = start[0] === 0xef ? 3 : 0
  while (i < start.length && isSpace(start[i]!)) i++
  if (i >= start.length) return undefined
  if (start[i++] !== OPEN_ARRAY) return false
  while (i < start.length && isSpace(start[i]!)) i++
  return i === start.length ? undefined : start[i] === OPEN_OBJECT || start[i] === CLOSE_ARRAY
}

/** Bytes of a byte order mark. */
function markLength(bytes: Buffer): number {
  return bytes[0] === 0xef && bytes[1] === 0xbb && bytes[2] === 0xbf ? 3 : 0
}

function isBlank(bytes: Buffer): boolean {
  return bytes.every(isSpace)
}

function isSpace(byte: number): boolean {
  return byte === 0x20 || byte === 0x0d || byte === 0x09 || byte === NEWLINE
}
