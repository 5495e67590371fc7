/**
 * JSON Lines, or one JSON array of rows, as a row source: streamed in bounded memory, with line numbers, also from gzip. Tolerates CRLF, a
 * byte order mark, blank lines (not counted as rows) and a last line without a newline. Parsing is left to whoever wants the row.
 */
import { createHash } from 'node:crypto'
import { open, stat } from 'node:fs/promises'
import type { Readable } from 'node:stream'
import { ImplexError } from '../core/errors.js'
import { checkInteger, checkOneOf } from '../core/arguments.js'
import { type OpenStream, openStream } from '../core/open-stream.js'
import { unpacked } from './gzip.js'
import { notJsonl } from './not-jsonl.js'
import { ArraySplitter, beginsArray, LineSplitter, type RowSplitter } from './row-splitter.js'
import type { RowSource, SourceRow } from './rows.js'
import { ROWS_OPTIONS, type RowShapeName, type RowsOption } from './shapes/names.js'

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
    const limits = {
      skipRows: this.#skipRows,
      limit: this.#limit,
      maxRowBytes: this.#maxLineBytes,
      shape: this.#shape,
    }
    const { stream, checkUnchanged } = this.#open()
    let splitter: RowSplitter | undefined
    let start: Buffer | undefined
    try {
      for await (const bytes of unpacked(this.#counted(stream))) {
        let piece = bytes
        if (splitter === undefined) {
          piece = start === undefined ? bytes : Buffer.concat([start, bytes])
          start = piece
          const isArray = beginsArray(piece)
          if (isArray === undefined && piece.length < READ_BYTES) continue
          this.#checkStart(piece)
          splitter = isArray ? new ArraySplitter(limits) : new LineSplitter(limits)
        }
        const rows = splitter.push(piece)
        if (rows.length > 0) yield rows
        if (splitter.done) return
      }
    } catch (error) {
      throw error instanceof ImplexError ? error : this.#readError(error)
    }
    // Before the last line comes out: of a file that was cut it may be half of one.
    await checkUnchanged()
    if (splitter === undefined && start !== undefined) {
      splitter = new LineSplitter(limits)
      const rows = splitter.push(start)
      if (rows.length > 0) yield rows
    }
    const rows = splitter?.end() ?? []
    if (rows.length > 0) yield rows
  }

  async *#counted(stream: Readable): AsyncGenerator<Buffer> {
    for await (const chunk of stream) {
      const bytes = Buffer.isBuffer(chunk) ? chunk : Buffer.from(chunk as string | Uint8Array)
      this.bytesRead += bytes.length
      if (bytes.length > 0) yield bytes
    }
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
