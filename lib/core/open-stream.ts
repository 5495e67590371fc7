/**
 * A path opened to be read from start to end: a regular file, which must not change meanwhile, a named pipe or a device.
 */
import { closeSync, constants, createReadStream, fstatSync, openSync, type Stats } from 'node:fs'
import { stat } from 'node:fs/promises'
import { Socket } from 'node:net'
import type { Readable } from 'node:stream'
import { ImplexError } from './errors.js'

export interface OpenStream {
  stream: Readable
  /** Bytes, where the path is a regular file. */
  size?: number
  /**
   * To be awaited at the end of a regular file: its size and time must be those at the start, since a file that shrank has rows that nobody
   * saw. A pipe or device has no such state.
   * @throws ImplexError ERR_IO
   */
  checkUnchanged(): Promise<void>
}

/** @throws an Error of the system, and for a folder one that says so */
export function openStream(path: string, highWaterMark: number): OpenStream {
  // A named pipe without a writer would block a thread of Node's pool, which even the end of the process waits for.
  const fd = openSync(path, constants.O_RDONLY | (constants.O_NONBLOCK ?? 0))
  const before = fstatSync(fd, { bigint: false })
  if (before.isFile()) {
    return {
      stream: createReadStream('', { fd, highWaterMark }),
      size: before.size,
      checkUnchanged: () => checkUnchanged(path, before),
    }
  }
  const checkNothing = async () => {}
  if (before.isFIFO())
    return { stream: new Socket({ fd, readable: true, writable: false }), checkUnchanged: checkNothing }
  closeSync(fd)
  if (before.isDirectory()) throw new Error('it is a folder')
  return { stream: createReadStream(path, { highWaterMark }), checkUnchanged: checkNothing }
}

async function checkUnchanged(path: string, before: Stats): Promise<void> {
  const now = await stat(path).catch(() => undefined)
  if (now !== undefined && now.size === before.size && now.mtimeMs === before.mtimeMs && now.ino === before.ino) return
  const how = now === undefined ? 'was removed' : now.ino !== before.ino ? 'was replaced' : 'was changed'
  const message = `${path} ${how} while it was read, so rows may be missing; begin again when it is complete`
  throw new ImplexError('ERR_IO', message, { path })
}
