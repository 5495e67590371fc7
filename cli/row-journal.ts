/**
 * A digest of every row that an unfinished output has a line for, beside it in OUT.resume.rows: 8 bytes a row, the first of SHA-256 over
 * the row's text. A resumed run reads the rows again and compares, so data that was edited anywhere is noticed and the line named.
 */
import { createHash } from 'node:crypto'
import { type FileHandle, open, rm, stat } from 'node:fs/promises'
import { ImplexError } from '../lib/core/errors.js'
import { fileError } from '../lib/core/files.js'
import type { RowSource, SourceRow } from '../lib/data/rows.js'

const DIGEST_BYTES = 8
/** Rows whose digests are read at once. */
const READ_ROWS = 8192

export function journalPath(out: string): string {
  return `${out}.resume.rows`
}

export class RowJournal {
  readonly #path: string
  readonly #file: FileHandle
  /** Digests of rows that were read and not yet scored, in their order. */
  readonly #ahead: Buffer[] = []
  #scored: Buffer[] = []

  /** @param rows how many rows' digests to keep: 0 begins anew */
  static async open(out: string, rows: number): Promise<RowJournal> {
    const path = journalPath(out)
    try {
      const file = await open(path, rows === 0 ? 'w' : 'a')
      if (rows > 0) await file.truncate(rows * DIGEST_BYTES)
      return new RowJournal(path, file)
    } catch (error) {
      throw fileError(path, 'write', error)
    }
  }

  private constructor(path: string, file: FileHandle) {
    this.#path = path
    this.#file = file
  }

  /** The same rows; their digests are noted as they pass. */
  watch(source: RowSource): RowSource {
    const ahead = this.#ahead
    async function* chunks(): AsyncGenerator<SourceRow[]> {
      for await (const rows of source.chunks()) {
        for (const row of rows) ahead.push(digestOf(row))
        yield rows
      }
    }
    return {
      name: source.name,
      fingerprint: source.fingerprint?.bind(source),
      chunks,
      async *[Symbol.asyncIterator]() {
        for await (const rows of chunks()) yield* rows
      },
    }
  }

  /** The next row, in input order, has its line. */
  take(): void {
    this.#scored.push(this.#ahead.shift()!)
  }

  /** To be awaited before the lines of these rows are written: then no line is without its digest, whenever the process is killed. */
  async flush(): Promise<void> {
    const bytes = Buffer.concat(this.#scored)
    this.#scored = []
    try {
      for (let done = 0; done < bytes.length; ) done += (await this.#file.write(bytes, done)).bytesWritten
    } catch (error) {
      throw fileError(this.#path, 'write', error)
    }
  }

  async close(): Promise<void> {
    await this.#file.close().catch(() => {})
  }
}

export async function removeJournal(out: string): Promise<void> {
  await rm(journalPath(out), { force: true })
}

/** Rows with digests; 0 without a journal. */
export async function journalRows(out: string): Promise<number> {
  return stat(journalPath(out)).then(
    ({ size }) => Math.floor(size / DIGEST_BYTES),
    () => 0,
  )
}

/** @throws ImplexError ERR_RESUME_MISMATCH naming the first of the journal's first `rows` rows that `source` has otherwise */
export async function checkRows(out: string, rows: number, source: RowSource): Promise<void> {
  if (rows === 0) return
  const path = journalPath(out)
  const file = await open(path, 'r').catch((error: unknown) => {
    throw fileError(path, 'read', error)
  })
  const block = Buffer.alloc(READ_ROWS * DIGEST_BYTES)
  let first = 0
  let held = 0
  let row = 0
  const differs = (what: string, line?: number) =>
    new ImplexError(
      'ERR_RESUME_MISMATCH',
      `${source.name}: ${what} since ${out} was begun, so its lines cannot be continued; start again with --force`,
      { path: source.name, line },
    )
  try {
    for await (const chunk of source.chunks()) {
      for (const one of chunk) {
        if (row === rows) return
        if (row === first + held) {
          first = row
          const length = Math.min(block.length, (rows - row) * DIGEST_BYTES)
          held = Math.floor((await file.read(block, 0, length, row * DIGEST_BYTES)).bytesRead / DIGEST_BYTES)
        }
        const at = (row - first) * DIGEST_BYTES
        if (!digestOf(one).equals(block.subarray(at, at + DIGEST_BYTES))) {
          throw differs(`row ${row}${one.line === undefined ? '' : ` (line ${one.line})`} has changed`, one.line)
        }
        row++
      }
    }
  } finally {
    await file.close()
  }
  if (row < rows) throw differs(`it has fewer rows than the ${rows} that are scored: it was shortened`)
}

function digestOf({ text, value, error }: SourceRow): Buffer {
  const content = text ?? (error === undefined ? JSON.stringify(value) : `${error.code}`)
  return createHash('sha256').update(content).digest().subarray(0, DIGEST_BYTES)
}
