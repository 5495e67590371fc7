/**
 * Writes lines to a file or to standard output. Lines are gathered into larger writes but never kept for long, and writing has back-pressure.
 */
import type { FileHandle } from 'node:fs/promises'
import { fileError, systemCode } from '../lib/core/files.js'
import { OutputClosed } from './exit.js'

const GATHER_CHARACTERS = 64 * 1024
const GATHER_MS = 100

type Write = (text: string) => Promise<void>

export class LineWriter {
  readonly #write: Write
  #lines: string[] = []
  #characters = 0
  #timer: NodeJS.Timeout | undefined
  /** The current write. If it fails, every later call fails too. */
  #last: Promise<void> = Promise.resolve()

  constructor(write: Write) {
    this.#write = write
  }

  /** Resolves at once while the buffer has room, otherwise when all lines so far are written. */
  async line(text: string): Promise<void> {
    this.#lines.push(text)
    this.#characters += text.length + 1
    if (this.#characters >= GATHER_CHARACTERS) await this.flush()
    else {
      this.#timer ??= setTimeout(() => {
        this.flush().catch(() => {}) // the next call reports the error
      }, GATHER_MS)
    }
  }

  flush(): Promise<void> {
    clearTimeout(this.#timer)
    this.#timer = undefined
    if (this.#lines.length === 0) return this.#last
    const text = `${this.#lines.join('\n')}\n`
    this.#lines = []
    this.#characters = 0
    this.#last = this.#last.then(() => this.#write(text))
    return this.#last
  }
}

/** Appends to an open file. Errors name the file. */
export function fileWrite(file: FileHandle, path: string): Write {
  return async (text) => {
    const bytes = Buffer.from(text)
    let done = 0
    try {
      while (done < bytes.length) done += (await file.write(bytes, done, bytes.length - done)).bytesWritten
    } catch (error) {
      throw fileError(path, 'write', error)
    }
  }
}

/** Throws OutputClosed when the reader has closed standard output. */
export function stdoutWrite(): Write {
  process.stdout.on('error', () => {}) // each write's callback reports the error; without a listener the event would end the process
  return (text) =>
    new Promise((resolve, reject) => {
      process.stdout.write(text, (error) => {
        if (error == null) resolve()
        else reject(systemCode(error) === 'EPIPE' ? new OutputClosed() : fileError('standard output', 'write', error))
      })
    })
}
