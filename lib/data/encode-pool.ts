/**
 * Encoding worker threads behind an ordered stream: chunks of rows go out as text, token ids come back in input order. A few chunks
 * are under way at a time and no more, so that a slow engine slows the reading down.
 */
import { Worker } from 'node:worker_threads'
import { ImplexError } from '../core/errors.js'
import { contentText } from '../text/messages.js'
import type { TextEncoderOptions } from '../text/text-encoder.js'
import type { EncodedRow, EncodeSettings, PreparedRow } from './encode.js'
import type { EncodeReply, EncoderDescription, EncodeRequest } from './encode-worker.js'
import { parseRow } from './parse-row.js'
import type { RowGroup, SourceRow } from './rows.js'
import type { UnreadCounts } from './unread.js'
import { packPrepared, unpackError, unpackRows, type WireChunk } from './wire.js'

const CHUNK_ROWS = 256
const CHUNK_CHARACTERS = 64 * 1024
const CHUNKS_IN_FLIGHT = 4 // per worker: one being encoded, the others hide the way there and back

export class EncodePool {
  readonly description: EncoderDescription
  readonly #workers: EncodeThread[]
  #next = 0

  /** Starts `workers` threads, each with its own encoder. Rejects with the encoder's own error when that cannot be made. */
  static async start(options: TextEncoderOptions, workers = 1): Promise<EncodePool> {
    const threads = Array.from({ length: workers }, () => new EncodeThread(options))
    try {
      const [description] = (await Promise.all(threads.map((thread) => thread.ready))) as [EncoderDescription]
      return new EncodePool(threads, description)
    } catch (error) {
      for (const thread of threads) thread.close()
      throw error
    }
  }

  private constructor(workers: EncodeThread[], description: EncoderDescription) {
    this.#workers = workers
    this.description = description
  }

  /**
   * What differs between the encoder's tokenizer and that of the checkpoint at `path`; undefined when nothing does. From then on a row with
   * a token that the two do not share is an error.
   */
  async compareWith(path: string): Promise<string | undefined> {
    const [reply] = await Promise.all(this.#workers.map((worker) => worker.request({ compareWith: path })))
    return reply !== undefined && 'difference' in reply ? reply.difference : undefined
  }

  /**
   * Encoded rows in input order. Ending the iteration early stops the reading; an error of the source comes after its last rows.
   * `unread` is told of what nobody reads of the rows that were handed out.
   */
  async *encode(
    source: AsyncIterable<SourceRow[]>,
    settings: EncodeSettings,
    unread?: UnreadCounts,
  ): AsyncGenerator<EncodedRow[]> {
    const iterator = source[Symbol.asyncIterator]()
    const results: Promise<WireChunk | undefined>[] = []
    const limit = CHUNKS_IN_FLIGHT * this.#workers.length
    const changed = new Wakeup()
    const room = new Wakeup()
    let state: 'reading' | 'ended' | 'stopped' = 'reading'
    let failure: { error: unknown } | undefined

    const read = async () => {
      try {
        while (state === 'reading') {
          const next = await iterator.next()
          if (next.done) break
          for (const rows of cut(next.value)) {
            while (results.length >= limit && state === 'reading') await room.wait()
            if (state !== 'reading') return
            const result = this.#encodeChunk(rows, settings)
            result.catch(() => {}) // reported where it is awaited, or of no interest after an early end
            results.push(result)
            changed.signal()
          }
        }
      } catch (error) {
        failure = { error }
      }
      if (state === 'reading') state = 'ended'
      changed.signal()
    }
    void read()

    try {
      for (;;) {
        if (results.length > 0) {
          const chunk = await results[0]!
          results.shift()
          room.signal()
          if (chunk === undefined) continue
          for (const [name, rows] of chunk.unread) unread?.add(name, rows)
          yield unpackRows(chunk)
        } else if (state !== 'reading') {
          if (failure !== undefined) throw failure.error
          return
        } else {
          await changed.wait()
        }
      }
    } finally {
      state = 'stopped'
      room.signal()
      // Not awaited: a source that waits for input (a terminal, a pipe) would answer only when some comes.
      iterator.return?.()?.catch(() => {})
    }
  }

  /** Ends the threads; what is under way is rejected. Idempotent. */
  close(): void {
    for (const worker of this.#workers) worker.close()
  }

  async #encodeChunk(rows: PreparedRow[], settings: EncodeSettings): Promise<WireChunk | undefined> {
    const worker = this.#workers[this.#next++ % this.#workers.length]!
    const reply = await worker.request({ rows: rows.map(packPrepared), settings })
    return 'chunk' in reply ? reply.chunk : undefined
  }
}

type Body<T> = T extends unknown ? Omit<T, 'id'> : never

/** One worker thread and the requests that wait for it. It keeps the process alive only while some do. */
class EncodeThread {
  readonly ready: Promise<EncoderDescription>
  readonly #worker: Worker
  readonly #waiting = new Map<number, { resolve(reply: EncodeReply): void; reject(error: Error): void }>()
  #id = 0
  #failure: Error | undefined

  constructor(options: TextEncoderOptions) {
    // execArgv: flags such as --input-type, meant for the main script, would keep the worker from starting.
    this.#worker = new Worker(new URL('./encode-worker.js', import.meta.url), { workerData: options, execArgv: [] })
    this.ready = new Promise((resolve, reject) => {
      this.#waiting.set(this.#id++, { resolve: (reply) => 'ready' in reply && resolve(reply.ready), reject })
    })
    this.#worker.on('message', (reply: EncodeReply) => this.#receive(reply))
    this.#worker.on('error', (error) =>
      this.#fail(new ImplexError('ERR_INTERNAL', `the encoding thread failed: ${error.message}`, { cause: error })),
    )
    this.#worker.on('exit', () => this.#fail(new ImplexError('ERR_DISPOSED', 'the encoding thread has ended')))
  }

  request(body: Body<EncodeRequest>): Promise<EncodeReply> {
    if (this.#failure !== undefined) return Promise.reject(this.#failure)
    return new Promise((resolve, reject) => {
      const id = this.#id++
      if (this.#waiting.size === 0) this.#worker.ref()
      this.#waiting.set(id, { resolve, reject })
      this.#worker.postMessage({ id, ...body })
    })
  }

  close(): void {
    this.#fail(new ImplexError('ERR_DISPOSED', 'the reward model has been disposed of'))
    void this.#worker.terminate()
  }

  #receive(reply: EncodeReply): void {
    const id = 'id' in reply ? reply.id : 0
    const waiting = this.#waiting.get(id)
    this.#waiting.delete(id)
    if (this.#waiting.size === 0) this.#worker.unref()
    if ('failed' in reply) waiting?.reject(unpackError(reply.failed))
    else waiting?.resolve(reply)
  }

  #fail(error: Error): void {
    this.#failure ??= error
    const waiting = [...this.#waiting.values()]
    this.#waiting.clear()
    this.#worker.unref()
    for (const { reject } of waiting) reject(this.#failure)
  }
}

/** Lets one loop sleep until another says that something changed; a signal given while nobody sleeps is kept. */
export class Wakeup {
  #signalled = false
  #resolve: (() => void) | undefined

  signal(): void {
    this.#signalled = true
    this.#resolve?.()
  }

  async wait(): Promise<void> {
    if (!this.#signalled) await new Promise<void>((resolve) => (this.#resolve = resolve))
    this.#resolve = undefined
    this.#signalled = false
  }
}

/** Pieces small enough that encoding one takes milliseconds; values are checked here, since only plain data may cross to a thread. */
function* cut(rows: SourceRow[]): Generator<PreparedRow[]> {
  let piece: PreparedRow[] = []
  let characters = 0
  for (const row of rows) {
    const prepared = prepare(row)
    piece.push(prepared)
    characters += prepared.text?.length ?? (prepared.group === undefined ? 0 : groupCharacters(prepared.group))
    if (piece.length === CHUNK_ROWS || characters >= CHUNK_CHARACTERS) {
      yield piece
      piece = []
      characters = 0
    }
  }
  if (piece.length > 0) yield piece
}

function prepare({ value, ...row }: SourceRow): PreparedRow {
  if (value === undefined || row.text !== undefined || row.error !== undefined) return row
  try {
    return { ...row, group: parseRow(value, row.index, row.line, row.shape) }
  } catch (error) {
    if (error instanceof ImplexError) return { ...row, error }
    throw error
  }
}

function groupCharacters({ prompt, responses }: RowGroup): number {
  let characters = 0
  for (const text of [prompt, ...responses]) {
    if (typeof text === 'string') characters += text.length
    else for (const message of text) characters += contentText(message).length
  }
  return characters
}
