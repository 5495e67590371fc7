/**
 * JSON Lines as a row source: streamed in bounded memory, with line numbers. Tolerates CRLF, a byte order mark, blank lines (not
 * counted as rows) and a last line without a newline. Lines are cut here and decoded; parsing is left to whoever wants the row.
 */
import { isUtf8 } from 'node:buffer'
import { createHash } from 'node:crypto'
import { open, stat } from 'node:fs/promises'
import type { Readable } from 'node:stream'
import { ImplexError } from '../core/errors.js'
import { checkInteger, checkOneOf } from '../core/arguments.js'
import { type OpenStream, openStream } from '../core/open-stream.js'
import { notJsonl } from './not-jsonl.js'
import { type RowSource, rowError, type SourceRow } from './rows.js'
import { ROWS_OPTIONS, type RowShapeName, type RowsOption } from './shapes/names.js'

const NEWLINE = 0x0a
const READ_BYTES = 64 * 1024
const FINGERPRINT_BYTES = 64 * 1024

export interface JsonlOptions {
  /** Rows to pass over before the first one handed out; they keep their numbers. Defaults to 0. */
  skipRows?: number
  /** Rows after which reading stops, counted from the file's start. Defaults to no limit. */
  limit?: number
  /** The shape of the rows; `auto`, the default, tells it by each row's keys. docs/formats.md lists them. */
  rows?: RowsOption
  /** A longer line is a row error, and is not kept in memory. Defaults to 16 MiB. */
  maxLineBytes?: number
}

/**
 * Reads JSON Lines from a file, from standard input (`-`) or from a stream.
 * Iterating throws ERR_IO when the file cannot be read; a line that is too long or no UTF-8 comes as a row with `error`.
 */
export function readJsonl(from: string | Readable, options: JsonlOptions = {}): JsonlSource {
  return new JsonlSource(from, options)
}

export class JsonlSource implements RowSource {
  readonly name: string
  /** Bytes read so far, for progress. */
  bytesRead = 0
  readonly #from: string | Readable
  readonly #skipRows: number
  readonly #limit: number
  readonly #maxLineBytes: number
  readonly #shape: RowShapeName | undefined

  constructor(from: string | Readable, options: JsonlOptions) {
    const { skipRows = 0, limit, rows = 'auto', maxLineBytes = 16 * 1024 * 1024 } = options
    checkInteger('skipRows', skipRows, 0)
    if (limit !== undefined) checkInteger('limit', limit, 0)
    checkInteger('maxLineBytes', maxLineBytes, 1, 256 * 1024 * 1024)
    checkOneOf('rows', rows, ROWS_OPTIONS)
    this.#from = from
    this.#shape = rows === 'auto' ? undefined : rows
    this.#skipRows = skipRows
    this.#limit = limit ?? Number.MAX_SAFE_INTEGER
    this.#maxLineBytes = maxLineBytes
    this.name = typeof from !== 'string' ? 'the stream' : from === '-' ? 'standard input' : from
  }

  /** Whether there is something to read, told without reading. @throws ImplexError ERR_IO */
  async check(): Promise<void> {
    if (typeof this.#from !== 'string' || this.#from === '-') return
    try {
      if ((await stat(this.#from)).isDirectory()) throw new Error('it is a folder')
    } catch (error) {
      throw this.#readError(error)
    }
  }

  /** Size and both ends of the file: cheap, and enough to notice another or a grown file. Undefined for a pipe or a stream. */
  async fingerprint(): Promise<string | undefined> {
    if (typeof this.#from !== 'string' || this.#from === '-') return undefined
    let file: Awaited<ReturnType<typeof open>> | undefined
    try {
      const stats = await stat(this.#from)
      if (!stats.isFile()) return undefined
      file = await open(this.#from, 'r')
      const hash = createHash('sha256').update(`jsonl ${stats.size} `)
      const bytes = Buffer.alloc(FINGERPRINT_BYTES)
      for (const position of [0, Math.max(0, stats.size - FINGERPRINT_BYTES)]) {
        const { bytesRead } = await file.read(bytes, 0, FINGERPRINT_BYTES, position)
        hash.update(bytes.subarray(0, bytesRead))
      }
      return hash.digest('hex')
    } catch (error) {
      throw this.#readError(error)
    } finally {
      await file?.close()
    }
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<SourceRow> {
    for await (const rows of this.chunks()) yield* rows
  }

  /** The rows that each read completed; never empty. */
  async *chunks(): AsyncGenerator<SourceRow[]> {
    if (this.#limit <= this.#skipRows) return
    const splitter = new LineSplitter(this.#skipRows, this.#limit, this.#maxLineBytes, this.#shape)
    const { stream, checkUnchanged } = this.#open()
    try {
      for await (const chunk of stream) {
        const bytes = Buffer.isBuffer(chunk) ? chunk : Buffer.from(chunk as string | Uint8Array)
        if (this.bytesRead === 0) this.#checkStart(bytes)
        this.bytesRead += bytes.length
        const rows = splitter.push(bytes)
        if (rows.length > 0) yield rows
        if (splitter.done) return
      }
    } catch (error) {
      throw error instanceof ImplexError ? error : this.#readError(error)
    }
    // Before the last line comes out: of a file that was cut it may be half of one.
    await checkUnchanged()
    const rows = splitter.end()
    if (rows.length > 0) yield rows
  }

  #open(): OpenStream {
    const given = (stream: Readable): OpenStream => ({ stream, checkUnchanged: async () => {} })
    if (typeof this.#from !== 'string') return given(this.#from)
    if (this.#from === '-') return given(process.stdin)
    try {
      return openStream(this.#from, READ_BYTES)
    } catch (error) {
      throw this.#readError(error)
    }
  }

  #checkStart(bytes: Buffer): void {
    const other = notJsonl(bytes)
    if (other === undefined) return
    throw new ImplexError('ERR_ROW_INVALID', `${this.name} is no JSON Lines: ${other}`, {
      ...(typeof this.#from === 'string' && this.#from !== '-' ? { path: this.#from } : {}),
    })
  }

  #readError(error: unknown): ImplexError {
    const { code, message } = error as NodeJS.ErrnoException
    const reason = code === 'ENOENT' ? 'there is no such file' : code === 'EACCES' ? 'no permission' : message
    return new ImplexError('ERR_IO', `cannot read ${this.name}: ${reason}`, { cause: error, path: this.name })
  }
}

/** Cuts bytes into lines; holds at most one unfinished line of `maxLineBytes`. */
class LineSplitter {
  done = false
  readonly #skipRows: number
  readonly #limit: number
  readonly #maxLineBytes: number
  readonly #shape: RowShapeName | undefined
  #parts: Buffer[] = []
  #partBytes = 0
  #tooLong = false
  #line = 0
  #index = 0

  constructor(skipRows: number, limit: number, maxLineBytes: number, shape: RowShapeName | undefined) {
    this.#shape = shape
    this.#skipRows = skipRows
    this.#limit = limit
    this.#maxLineBytes = maxLineBytes
  }

  push(bytes: Buffer): SourceRow[] {
    const rows: SourceRow[] = []
    let start = 0
    while (!this.done) {
      const newline = bytes.indexOf(NEWLINE, start)
      if (newline < 0) {
        if (start < bytes.length) this.#keep(bytes.subarray(start))
        break
      }
      this.#keep(bytes.subarray(start, newline))
      this.#finishLine(rows)
      start = newline + 1
    }
    // Kept parts are views of the read buffer, which the stream hands over to us for good; a copy frees the rest of it.
    if (this.#parts.length > 0) this.#parts[this.#parts.length - 1] = Buffer.from(this.#parts[this.#parts.length - 1]!)
    return rows
  }

  end(): SourceRow[] {
    const rows: SourceRow[] = []
    if (!this.done && (this.#partBytes > 0 || this.#tooLong)) this.#finishLine(rows)
    return rows
  }

  #keep(bytes: Buffer): void {
    if (this.#tooLong) return
    if (this.#partBytes + bytes.length > this.#maxLineBytes) {
      this.#tooLong = true
      this.#parts = []
      this.#partBytes = 0
      return
    }
    this.#parts.push(bytes)
    this.#partBytes += bytes.length
  }

  #finishLine(rows: SourceRow[]): void {
    let bytes = this.#parts.length === 1 ? this.#parts[0]! : Buffer.concat(this.#parts, this.#partBytes)
    const tooLong = this.#tooLong
    this.#parts = []
    this.#partBytes = 0
    this.#tooLong = false
    this.#line++
    if (this.#line === 1 && bytes[0] === 0xef && bytes[1] === 0xbb && bytes[2] === 0xbf) bytes = bytes.subarray(3)
    if (!tooLong && isBlank(bytes)) return
    const index = this.#index++
    if (this.#index >= this.#limit) this.done = true
    if (index < this.#skipRows) return
    const place = { index, line: this.#line }
    if (tooLong) {
      rows.push({ ...place, error: rowError('ERR_ROW_INVALID', `longer than ${this.#maxLineBytes} bytes`, place) })
    } else if (!isUtf8(bytes)) {
      rows.push({ ...place, error: rowError('ERR_ROW_INVALID', 'not valid UTF-8', place) })
    } else {
      const text = bytes.toString('utf8')
      rows.push(this.#shape === undefined ? { ...place, text } : { ...place, text, shape: this.#shape })
    }
  }
}

function isBlank(bytes: Buffer): boolean {
  for (const byte of bytes) if (byte !== 0x20 && byte !== 0x0d && byte !== 0x09) return false
  return true
}
