/**
 * One writer at a time: the system's lock of a file beside what is written. The system lets go of it with the process that holds it, so that
 * a run that was killed can go on at once, and nothing is to be guessed from process numbers or times.
 */
import { type FileHandle, open, readFile, rm } from 'node:fs/promises'
import { fileError } from '../core/files.js'
import { lockFile } from './handles.js'
import { ImplexError } from '../core/errors.js'

export class Lock implements AsyncDisposable {
  readonly #path: string
  readonly #file: FileHandle

  /**
   * @param path the lock's file: made here and removed by whoever holds the lock last, or left by a killed process, which does no harm
   * @param target what is locked, as messages call it
   * @throws ImplexError ERR_IN_USE naming the process that has it; ERR_IO, ERR_DISK_FULL
   */
  static async take(path: string, target: string, warn: (message: string) => void): Promise<Lock> {
    for (;;) {
      let file: FileHandle | undefined
      try {
        file = await open(path, 'a+')
        if (!isLocked(file, target, warn)) throw await inUse(path, target)
        // Otherwise the one before removed it after it was opened here, and it locks nothing.
        if ((await file.stat()).nlink > 0) {
          // For messages alone: a full disk is told by what is written next.
          await file.truncate()
          await file.appendFile(`${process.pid}\n`).catch(() => {})
          return new Lock(path, file)
        }
        await file.close()
      } catch (error) {
        await file?.close().catch(() => {})
        throw error instanceof ImplexError ? error : fileError(target, 'write', error)
      }
    }
  }

  private constructor(path: string, file: FileHandle) {
    this.#path = path
    this.#file = file
  }

  /** Idempotent. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#file.fd < 0) return
    await rm(this.#path, { force: true }).catch(() => {})
    await this.#file.close().catch(() => {})
  }
}

/** Some network file systems have no locks: a run must be possible there too. */
export function isLocked({ fd }: FileHandle, target: string, warn: (message: string) => void): boolean {
  try {
    return lockFile(fd)
  } catch (error) {
    if (!(error instanceof ImplexError) || error.code !== 'ERR_IO') throw error
    warn(`${target} ${error.message}; make sure that no other process writes there`)
    return true
  }
}

/** @param path the lock's file @param target what is locked */
export async function inUse(path: string, target: string): Promise<ImplexError> {
  const holder = /^\d+$/m.exec(await readFile(path, 'utf8').catch(() => ''))?.[0]
  const [who, end] =
    holder === undefined ? ['another process', 'end it'] : [`process ${holder}`, `end it (kill ${holder})`]
  const message = `${target} is being written by ${who}: wait for it, ${end}, or choose another --out (option out)`
  return new ImplexError('ERR_IN_USE', message, { path: target })
}
