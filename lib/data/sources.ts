/**
 * Rows in memory, or from any iterable of the caller's, as a row source.
 */
import { invalidArgument } from '../native/validate.js'
import type { Row, RowSource, SourceRow } from './rows.js'

const CHUNK_ROWS = 256

/** A RowSource as it is; an iterable or async iterable of rows numbered from 0. The caller keeps rows unchanged until they are read. */
export function rowSource(rows: RowSource | AsyncIterable<Row> | Iterable<Row>): RowSource {
  if (typeof rows === 'object' && rows !== null) {
    if ('chunks' in rows) return rows
    if (Symbol.asyncIterator in rows) return source(() => arriving(rows))
    if (Symbol.iterator in rows) return source(() => present(rows))
  }
  throw invalidArgument('rows', 'a list of rows, an async iterable of rows, or a row source such as readJsonl()', rows)
}

function source(chunks: () => AsyncGenerator<SourceRow[]>): RowSource {
  return {
    name: 'the rows',
    chunks,
    async *[Symbol.asyncIterator]() {
      for await (const rows of chunks()) yield* rows
    },
  }
}

async function* present(rows: Iterable<Row>): AsyncGenerator<SourceRow[]> {
  let chunk: SourceRow[] = []
  let index = 0
  for (const value of rows) {
    chunk.push({ index: index++, value })
    if (chunk.length === CHUNK_ROWS) {
      yield chunk
      chunk = []
    }
  }
  if (chunk.length > 0) yield chunk
}

/** Hands over what there is whenever the next row is not there at once. */
async function* arriving(rows: AsyncIterable<Row>): AsyncGenerator<SourceRow[]> {
  const iterator = rows[Symbol.asyncIterator]()
  let chunk: SourceRow[] = []
  let index = 0
  try {
    for (;;) {
      const next = iterator.next()
      if (chunk.length > 0 && (chunk.length === CHUNK_ROWS || !(await settlesNow(next)))) {
        next.catch(() => {}) // awaited after the yield
        yield chunk
        chunk = []
      }
      const { value, done } = await next
      if (done) break
      chunk.push({ index: index++, value })
    }
  } finally {
    void iterator.return?.()?.catch(() => {})
  }
  if (chunk.length > 0) yield chunk
}

function settlesNow(promise: Promise<unknown>): Promise<boolean> {
  return new Promise((resolve) => {
    const yes = () => resolve(true)
    promise.then(yes, yes)
    setImmediate(resolve, false)
  })
}
