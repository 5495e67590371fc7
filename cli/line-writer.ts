/**
 * Writes lines to a file or to standard output. Lines are gathered into larger writes but never kept for long, and writing has back-pressure.
 */
import { closeSync, constants, fstatSync, openSync } from 'node:fs'
import { type FileHandle, open } from 'node:fs/promises'
import { Socket } from 'node:net'
import type { Writable } from 'node:stream'
import { fileError, systemCode } from '../lib/core/files.js'
import { ImplexError } from '../lib/core/errors.js'
import { OutputClosed } from './exit.js'

const GATHER_CHARACTERS = 64 * 1024
const GATHER_MS = 100
/** How long a named pipe may be without a reader. */
const READER_SECONDS = 10

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
  return streamWrite(process.stdout, 'standard output')
}

/**
 * Writes to a named pipe or a device.
 * @throws ImplexError ERR_IO, also where nobody has opened the pipe to read from it
 */
export async function pipeWrite(path: string): Promise<Write> {
  // Opened without waiting: a pipe that nobody reads would block a thread of Node's pool, which even the end of the process waits for.
  for (let waited = 0; ; waited += 0.1) {
    try {
      const fd = openSync(path, constants.O_WRONLY | constants.O_NONBLOCK)
      if (fstatSync(fd).isFIFO()) return streamWrite(new Socket({ fd, readable: false, writable: true }), path)
      closeSync(fd)
      return fileWrite(await open(path, 'w'), path)
    } catch (error) {
      if (systemCode(error) !== 'ENXIO') throw fileError(path, 'write', error)
      if (waited >= READER_SECONDS) {
        throw new ImplexError('ERR_IO', `${path} is a pipe that nobody reads: start its reader first`, { path })
      }
      await new Promise((resolve) => setTimeout(resolve, 100))
    }
  }
}

function streamWrite(stream: Writable, name: string): Write {
  stream.on('error', () => {}) // each write's callback tells; without a listener the event would end the process
  return (text) =>
    new Promise((resolve, reject) => {
      stream.write(text, (error) => {
        if (error == null) resolve()
        else reject(systemCode(error) === 'EPIPE' ? new OutputClosed() : fileError(name, 'write', error))
      })
    })
}
