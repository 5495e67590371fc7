/**
 * One encoding thread and the requests that wait for it. A row that keeps it busy beyond the limit gets an error, and another thread takes
 * over the rest: no row can make the encoder deaf for good. The thread keeps the process alive only while something waits.
 */
import { Worker } from 'node:worker_threads'
import { ImplexError } from '../core/errors.js'
import type { TextEncoderOptions } from '../text/text-encoder.js'
import type { EncodeReply, EncoderDescription, EncodeRequest, EncodeWorkerData } from './encode-worker.js'
import { rowError } from './rows.js'
import { packError, unpackError } from './wire.js'

/** Longest that one text of a row may take. Above the bound of a template's rendering (60 s), which names its reason itself. */
export const TEXT_LIMIT_MS = 90_000
/** The thread is looked at so often within the limit. Counted in looks, not in time: a host that was stopped itself must not blame a row. */
const LOOKS = 10
/** In the place of a request's id while there was none. */
const NOTHING = -1

type Body<T> = T extends unknown ? Omit<T, 'id'> : never
export type EncodeBody = Body<EncodeRequest>

interface Waiting {
  body: EncodeBody
  resolve(reply: EncodeReply): void
  reject(error: Error): void
}

export class EncodeThread {
  readonly #options: TextEncoderOptions
  readonly #limitMs: number
  /** [signs of life, id of the request under way, its row]: written by the thread. */
  #progress: Int32Array = new Int32Array(0)
  #worker: Worker | undefined
  #ready = false
  /** In the order of the requests. */
  readonly #waiting = new Map<number, Waiting>()
  #opening: { resolve(description: EncoderDescription): void; reject(error: Error): void } | undefined
  #id = 0
  #fingerprint: string | undefined
  /** Every later thread compares too: it then watches for tokens that are not shared. */
  #compared: EncodeBody | undefined
  #closed: Error | undefined
  #watch: NodeJS.Timeout | undefined

  constructor(options: TextEncoderOptions, limitMs = TEXT_LIMIT_MS) {
    this.#options = options
    this.#limitMs = limitMs
  }

  /** Rejects with the encoder's own error when it cannot be made. Once, before the first request. */
  open(): Promise<EncoderDescription> {
    return new Promise((resolve, reject) => {
      this.#opening = { resolve, reject }
      this.#start()
    })
  }

  request(body: EncodeBody): Promise<EncodeReply> {
    if (this.#closed !== undefined) return Promise.reject(this.#closed)
    return new Promise((resolve, reject) => {
      const id = this.#id++
      this.#waiting.set(id, { body, resolve, reject })
      if (this.#worker === undefined) this.#start()
      else if (this.#ready) this.#send(id, body)
      this.#attend()
    })
  }

  /** Ends the thread; what is under way is rejected. Idempotent. */
  close(): void {
    this.#closed ??= new ImplexError('ERR_DISPOSED', 'the model has been disposed of')
    this.#fail(this.#closed)
  }

  #start(): void {
    this.#progress = new Int32Array(new SharedArrayBuffer(12))
    this.#progress[1] = NOTHING
    const workerData: EncodeWorkerData = { options: this.#options, progress: this.#progress }
    // execArgv: flags such as --input-type, meant for the main script, would keep the worker from starting.
    const worker = new Worker(new URL('./encode-worker.js', import.meta.url), { workerData, execArgv: [] })
    this.#worker = worker
    const current = (handle: () => void) => {
      if (worker === this.#worker) handle()
    }
    worker.on('message', (reply: EncodeReply) => current(() => this.#receive(reply)))
    worker.on('error', (cause: Error) => {
      const error = new ImplexError('ERR_INTERNAL', `the encoding thread failed: ${cause.message}`, { cause })
      current(() => this.#fail(error))
    })
    worker.on('exit', () => current(() => this.#fail(new ImplexError('ERR_DISPOSED', 'the encoding thread has ended'))))
  }

  #send(id: number, body: EncodeBody): void {
    try {
      this.#worker!.postMessage({ id, ...body } satisfies EncodeRequest)
    } catch (error) {
      this.#waiting.get(id)?.reject(error as Error)
      this.#waiting.delete(id)
    }
  }

  #receive(reply: EncodeReply): void {
    if ('ready' in reply) this.#begin(reply.ready)
    else if ('id' in reply) this.#settle(reply)
    else this.#fail(unpackError(reply.failed))
  }

  #settle(reply: Extract<EncodeReply, { id: number }>): void {
    const waiting = this.#waiting.get(reply.id)
    this.#waiting.delete(reply.id)
    if (waiting !== undefined) {
      if ('compareWith' in waiting.body) this.#compared = waiting.body
      if ('failed' in reply) waiting.reject(unpackError(reply.failed))
      else waiting.resolve(reply)
    }
    this.#attend()
  }

  #begin(description: EncoderDescription): void {
    this.#fingerprint ??= description.fingerprint
    if (description.fingerprint !== this.#fingerprint) {
      const { path } = this.#options
      const message = `${path}: tokenizer or template changed while the model was open; open it again`
      this.#fail(new ImplexError('ERR_TOKENIZER_INVALID', message, { path }))
      return
    }
    this.#ready = true
    this.#opening?.resolve(description)
    this.#opening = undefined
    if (this.#compared !== undefined) this.#send(this.#id++, this.#compared)
    for (const [id, { body }] of this.#waiting) this.#send(id, body)
    this.#attend()
  }

  /** Holds the process while something waits, and looks whether the thread gets on. */
  #attend(): void {
    const busy = this.#waiting.size > 0 || this.#opening !== undefined
    if (!busy) {
      this.#worker?.unref()
      clearInterval(this.#watch)
      this.#watch = undefined
      return
    }
    this.#worker?.ref()
    if (this.#watch !== undefined) return
    let seen: number | undefined
    let looks = 0
    const look = () => {
      const signs = Atomics.load(this.#progress, 0)
      looks = signs === seen && this.#ready && this.#waiting.size > 0 ? looks + 1 : 0
      seen = signs
      if (looks < LOOKS) return
      looks = 0
      this.#replace()
    }
    this.#watch = setInterval(look, this.#limitMs / LOOKS)
    this.#watch.unref()
  }

  /** The row that the thread hangs at gets an error in its place, and another thread is given all that is not answered. */
  #replace(): void {
    const [, id, at] = this.#progress as unknown as [number, number, number]
    this.#drop()
    const waiting = this.#waiting.get(id)
    const what = `its text took more than ${this.#limitMs / 1000} s to render and tokenize; shorten it, or change the template`
    if (waiting !== undefined && 'rows' in waiting.body) {
      const rows = [...waiting.body.rows]
      const { index, line } = rows[at]!
      rows[at] = { index, line, error: packError(rowError('ERR_ROW_INVALID', what, { index, line })) }
      waiting.body = { ...waiting.body, rows }
    } else if (waiting !== undefined) {
      this.#waiting.delete(id)
      const where =
        'prompts' in waiting.body ? `prompt ${waiting.body.first + at}: ${what}` : 'the tokenizer took too long'
      waiting.reject(new ImplexError('ERR_ROW_INVALID', where))
    }
    if (this.#waiting.size > 0) this.#start()
    this.#attend()
  }

  /** Rejects all that waits. The next request starts another thread, unless this one was closed. */
  #fail(error: Error): void {
    this.#drop()
    const waiting = [...this.#waiting.values()]
    this.#waiting.clear()
    this.#opening?.reject(error)
    this.#opening = undefined
    this.#attend()
    for (const { reject } of waiting) reject(error)
  }

  #drop(): void {
    const worker = this.#worker
    this.#worker = undefined
    this.#ready = false
    void worker?.terminate()
  }
}
