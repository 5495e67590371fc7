/**
 * Encoding worker threads behind an ordered stream: chunks of rows go out as text, token ids come back in input order. A few chunks
 * are under way at a time and no more, so that a slow engine slows the reading down.
 */
import { untilAborted } from '../core/abort.js'
import { ImplexError } from '../core/errors.js'
import { contentText } from '../text/messages.js'
import type { TextEncoderOptions } from '../text/text-encoder.js'
import type { EncodedRow, EncodeSettings, PreparedRow } from './encode.js'
import { type EncodeBody, EncodeThread } from './encode-thread.js'
import type { EncodeReply, EncoderDescription } from './encode-worker.js'
import { parseRow } from './parse-row.js'
import type { Prompt, RowGroup, SourceRow } from './rows.js'
import type { UnreadCounts } from './unread.js'
import { packExact, packPrepared, unpackRows, type WireChunk } from './wire.js'

const CHUNK_ROWS = 256
const CHUNK_CHARACTERS = 64 * 1024
const CHUNKS_IN_FLIGHT = 4 // per worker: one being encoded, the others hide the way there and back

export interface EncodePoolOptions {
  signal?: AbortSignal
  /** Longest that one text of a row may take. Defaults to TEXT_LIMIT_MS. */
  limitMs?: number
}

export class EncodePool {
  readonly description: EncoderDescription
  readonly #workers: EncodeThread[]
  #next = 0

  /**
   * Starts `workers` threads, each with its own encoder. Rejects with the encoder's own error when that cannot be made, and with ERR_ABORTED
   * as soon as `signal` is aborted, whatever a thread is at.
   */
  static async start(options: TextEncoderOptions, workers = 1, start: EncodePoolOptions = {}): Promise<EncodePool> {
    // One time for all threads, those too that take another's place.
    const timed = { ...options, now: options.now ?? new Date() }
    const threads = Array.from({ length: workers }, () => new EncodeThread(timed, start.limitMs))
    try {
      const opened = Promise.all(threads.map((thread) => thread.open()))
      const [description] = (await untilAborted(opened, start.signal, 'the opening')) as [EncoderDescription]
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

  /** Prompts to continue, in order. @throws ImplexError of the first one that cannot be encoded, with its number */
  async encodePrompts(prompts: readonly Prompt[]): Promise<Int32Array[]> {
    const encoded: Int32Array[] = []
    let first = 0
    while (first < prompts.length) {
      let end = first
      for (let characters = 0; end < prompts.length && end - first < CHUNK_ROWS && characters < CHUNK_CHARACTERS; end++)
        characters += groupCharacters({ prompt: prompts[end]!.prompt, responses: [] })
      const chunk = prompts.slice(first, end).map((prompt) => packExact(prompt) as Prompt)
      const reply = await this.#ask({ prompts: chunk, first })
      if ('encoded' in reply) encoded.push(...reply.encoded)
      first = end
    }
    return encoded
  }

  /** The id of each token; undefined for one that the vocabulary lacks. */
  async tokenIds(tokens: string[]): Promise<(number | undefined)[]> {
    const reply = await this.#ask({ tokens })
    return 'ids' in reply ? reply.ids : []
  }

  /** The id of the token that a text alone is made: see RowEncoder.singleTokenId. */
  async singleTokenId(text: string): Promise<number | undefined> {
    const reply = await this.#ask({ tokens: [text], alone: true })
    return 'ids' in reply ? reply.ids[0] : undefined
  }

  /** The text of each token of each sequence: see Tokenizer.texts. */
  async tokenTexts(sequences: Int32Array[]): Promise<string[][]> {
    const reply = await this.#ask({ sequences })
    return 'texts' in reply ? reply.texts : []
  }

  /**
   * Encoded rows in input order. Ending the iteration early stops the reading; an error of the source comes after its last rows.
   * `unread` is told of what nobody reads of the rows that were handed out. `signal` ends it with ERR_ABORTED, whatever a thread is at.
   */
  async *encode(
    source: AsyncIterable<SourceRow[]>,
    settings: EncodeSettings,
    unread?: UnreadCounts,
    signal?: AbortSignal,
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
          const chunk = await untilAborted(results[0]!, signal, 'the reading of the data')
          results.shift()
          room.signal()
          if (chunk === undefined) continue
          for (const [name, rows] of chunk.unread) unread?.add(name, rows)
          yield unpackRows(chunk)
        } else if (state !== 'reading') {
          if (failure !== undefined) throw failure.error
          return
        } else {
          await untilAborted(changed.wait(), signal, 'the reading of the data')
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
    const reply = await this.#ask({ rows: rows.map(packPrepared), settings })
    return 'chunk' in reply ? reply.chunk : undefined
  }

  #ask(body: EncodeBody): Promise<EncodeReply> {
    return this.#workers[this.#next++ % this.#workers.length]!.request(body)
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

function groupCharacters({ prompt, responses }: Pick<RowGroup, 'prompt' | 'responses'>): number {
  let characters = 0
  for (const text of [prompt, ...responses]) {
    if (typeof text === 'string') characters += text.length
    else for (const message of text) characters += contentText(message).length
  }
  return characters
}
