/**
 * Files that appear whole or not at all, and stay: a neighbor is written, flushed to disk and renamed, and the folder flushed after it.
 */
import { randomBytes } from 'node:crypto'
import { mkdir, open, rename, rm } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { fileError } from './files.js'

/** A hidden name beside `path` that nothing else has; removeLeftovers() knows it. */
export function temporaryName(path: string): string {
  return join(dirname(path), `.${basename(path)}.${randomBytes(6).toString('hex')}.tmp`)
}

/** Whether a folder's entry is such a name, left behind by a process that was killed. */
export function isTemporary(name: string): boolean {
  return /^\..+\.[0-9a-f]{12}\.tmp$/.test(name)
}

/** @throws ImplexError ERR_IO, ERR_DISK_FULL naming `path` */
export async function writeFileAtomic(path: string, content: string | Uint8Array): Promise<void> {
  const temporary = temporaryName(path)
  try {
    const file = await open(temporary, 'wx')
    try {
      await file.writeFile(content)
      await file.sync()
    } finally {
      await file.close()
    }
    await rename(temporary, path)
    await flushFolder(dirname(path))
  } catch (error) {
    await rm(temporary, { force: true }).catch(() => {})
    throw fileError(path, 'write', error)
  }
}

/** Makes the names in a folder durable; some file systems cannot, and there is nothing to do about it. */
export async function flushFolder(path: string): Promise<void> {
  const folder = await open(path, 'r').catch(() => undefined)
  await folder?.sync().catch(() => {})
  await folder?.close()
}

/** Makes a folder and those above it, where they are not there. @throws ImplexError ERR_IO, ERR_DISK_FULL naming `path` */
export async function makeFolder(path: string): Promise<void> {
  try {
    await mkdir(path, { recursive: true })
  } catch (error) {
    throw fileError(path, 'make the folder', error)
  }
}
