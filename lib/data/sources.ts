/**
 * What callers give as data, as a row source: a path, rows in memory, or any iterable of theirs. And the names of data sets.
 */
import { checkOneOf, invalidArgument, outOfRange } from '../core/arguments.js'
import { type JsonlSource, readJsonl } from './jsonl.js'
import type { Row, RowSource, SourceRow } from './rows.js'
import { ROWS_OPTIONS, type RowsOption } from './shapes/names.js'

const CHUNK_ROWS = 256

/** Rows to train on or to evaluate: the path of a JSON Lines file, a row source such as readJsonl(), or rows. */
export type TrainData = string | RowSource | AsyncIterable<Row> | Iterable<Row>

/** A data set of the caller's as a row source. `shape` is that of its rows, but for a RowSource, which knows its own. */
export function sourceOf(data: TrainData, shape: RowsOption = 'auto'): RowSource | JsonlSource {
  return typeof data === 'string' ? readJsonl(data, { rows: shape }) : rowSource(data, shape)
}

/** A RowSource as it is; an iterable or async iterable of rows numbered from 0. The caller keeps rows unchanged until they are read. */
export function rowSource(rows: RowSource | AsyncIterable<Row> | Iterable<Row>, shape: RowsOption = 'auto'): RowSource {
  checkOneOf('rows', shape, ROWS_OPTIONS)
  const common = shape === 'auto' ? {} : { shape }
  if (typeof rows === 'object' && rows !== null) {
    if ('chunks' in rows) return rows
    if (Symbol.asyncIterator in rows) return source(() => arriving(rows, common))
    if (Symbol.iterator in rows) return source(() => present(rows, common))
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

async function* present(rows: Iterable<Row>, common: Pick<SourceRow, 'shape'>): AsyncGenerator<SourceRow[]> {
  let chunk: SourceRow[] = []
  let index = 0
  for (const value of rows) {
    chunk.push({ index: index++, value, ...common })
    if (chunk.length === CHUNK_ROWS) {
      yield chunk
      chunk = []
    }
  }
  if (chunk.length > 0) yield chunk
}

/** Hands over what there is whenever the next row is not there at once. */
async function* arriving(rows: AsyncIterable<Row>, common: Pick<SourceRow, 'shape'>): AsyncGenerator<SourceRow[]> {
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
      chunk.push({ index: index++, value, ...common })
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

/** Names of data sets become names of files and columns. @throws RangeError */
export function checkSetName(name: string): void {
  if (!/^[\p{L}\p{N}_][\p{L}\p{N}_.+-]{0,63}$/u.test(name))
    throw outOfRange('the name of a data set', 'of letters, digits and _ . + - (at most 64)', name)
}
