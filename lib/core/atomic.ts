/**
 * Atomic writing. A temporary file in the same folder is written, flushed to disk and renamed, and then the folder is flushed. So a file
 * appears completely or not at all, and survives a power failure.
 */
import { randomBytes } from 'node:crypto'
import { type FileHandle, mkdir, open, readdir, rename, rm } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { ImplexError } from './errors.js'
import { fileError, systemCode } from './files.js'

/** A unique hidden name in the folder of `path`; removeLeftovers() recognizes it. */
export function temporaryName(path: string): string {
  return join(dirname(path), `.${basename(path)}.${randomBytes(6).toString('hex')}.tmp`)
}

/** Whether a folder's entry is such a temporary name, left behind by a killed process. */
export function isTemporary(name: string): boolean {
  return /^\..+\.[0-9a-f]{12}\.tmp$/.test(name)
}

/** Removes what killed processes left of their writing of `path`. To be called only where no other process can be writing it. */
export async function removeLeftoversOf(path: string): Promise<void> {
  const start = `.${basename(path)}.`
  const names = await readdir(dirname(path)).catch(() => [])
  const left = names.filter((name) => name.startsWith(start) && isTemporary(`.x${name.slice(start.length - 1)}`))
  for (const name of left) await rm(join(dirname(path), name), { force: true }).catch(() => {})
}

/**
 * Lets a file or a folder appear at `path`: `fill` makes it under the temporary name that it is given, `place` renames it.
 * @throws ImplexError ERR_IO, ERR_DISK_FULL naming `path`, and what `fill` throws that is no failed system call
 */
export async function appear(
  path: string,
  fill: (temporary: string) => Promise<void>,
  place: (temporary: string, path: string) => Promise<void> = rename,
): Promise<void> {
  const temporary = temporaryName(path)
  try {
    await fill(temporary)
    await place(temporary, path)
    await flushFolder(dirname(path))
  } catch (error) {
    // What went wrong before matters more than a failure to clean up.
    await rm(temporary, { recursive: true, force: true }).catch(() => {})
    throw error instanceof ImplexError || systemCode(error) === undefined ? error : fileError(path, 'write', error)
  }
}

/** A new file, flushed to disk. */
export async function writeFlushed(path: string, write: (file: FileHandle) => Promise<void>): Promise<void> {
  const file = await open(path, 'wx')
  try {
    await write(file)
    await file.sync()
  } finally {
    await file.close()
  }
}

/** A file of this content, which replaces one that is there. @throws ImplexError ERR_IO, ERR_DISK_FULL naming `path` */
export function writeFileAtomic(path: string, content: string | Uint8Array): Promise<void> {
  return appear(path, (temporary) => writeFlushed(temporary, (file) => file.writeFile(content)))
}

/** Makes the names in a folder durable. Where folders cannot be opened or flushed there is nothing to do. */
export async function flushFolder(path: string): Promise<void> {
  let folder: FileHandle | undefined
  try {
    folder = await open(path, 'r')
    await folder.sync()
  } catch (error) {
    if (!UNFLUSHABLE.includes(systemCode(error) ?? '')) throw error
  } finally {
    await folder?.close()
  }
}

const UNFLUSHABLE = ['EISDIR', 'EPERM', 'EINVAL', 'EACCES', 'ENOTSUP', 'ENOSYS']

/** Makes a folder and those above it, where they are not there. @throws ImplexError ERR_IO, ERR_DISK_FULL naming `path` */
export async function makeFolder(path: string): Promise<void> {
  try {
    await mkdir(path, { recursive: true })
  } catch (error) {
    throw fileError(path, 'make the folder', error)
  }
}
