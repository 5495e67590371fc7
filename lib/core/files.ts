/**
 * Reading of small files. Every failure is an ImplexError that names the file.
 */
import { constants } from 'node:fs'
import { type FileHandle, open, readFile, stat } from 'node:fs/promises'
import { ImplexError, type ImplexErrorCode } from './errors.js'
import { isPlainObject } from './arguments.js'

// O_NONBLOCK has no effect on regular files and keeps a named pipe without a writer from blocking for ever; absent on Windows.
const NONBLOCKING_READ = constants.O_RDONLY | (constants.O_NONBLOCK ?? 0)

const MAX_JSON_BYTES = 16_000_000

/** The `code` of a failed system call ('ENOENT', …), if `error` is one. */
export function systemCode(error: unknown): string | undefined {
  const code: unknown = isPlainObject(error) ? error.code : undefined
  return typeof code === 'string' ? code : undefined
}

/** `action` reads after "cannot": "read", "write", "rename to x". */
export function fileError(file: string, action: string, cause: unknown): ImplexError {
  const code = systemCode(cause)
  const full = code === 'ENOSPC' || code === 'EDQUOT'
  const reason = cause instanceof Error ? cause.message : String(cause)
  const advice = full ? '; free some space or choose another disk' : ''
  return new ImplexError(full ? 'ERR_DISK_FULL' : 'ERR_IO', `${file}: cannot ${action}: ${reason}${advice}`, {
    cause,
    path: file,
  })
}

/** Whether `path` is a folder; undefined if it does not exist. */
export async function isFolder(path: string): Promise<boolean | undefined> {
  try {
    return (await stat(path)).isDirectory()
  } catch (error) {
    const code = systemCode(error)
    if (code === 'ENOENT' || code === 'ENOTDIR') return undefined
    throw fileError(path, 'open', error)
  }
}

/** Opens a regular file for reading; a folder, pipe or device is an error. */
export async function withRegularFile<T>(
  file: string,
  use: (handle: FileHandle, size: number) => Promise<T>,
): Promise<T> {
  let handle: FileHandle | undefined
  try {
    handle = await open(file, NONBLOCKING_READ)
    const status = await handle.stat()
    if (!status.isFile()) throw new ImplexError('ERR_IO', `${file}: is not a regular file`, { path: file })
    return await use(handle, status.size)
  } catch (error) {
    if (error instanceof ImplexError) throw error
    if (systemCode(error) === 'ENOENT') {
      throw new ImplexError('ERR_CHECKPOINT_NOT_FOUND', `${file}: no such file`, { cause: error, path: file })
    }
    if (systemCode(error) === undefined) throw error
    throw fileError(file, 'read', error)
  } finally {
    await handle?.close()
  }
}

/** Reads `length` bytes at `position`, or fewer if the file ends earlier. */
export async function readAt(handle: FileHandle, position: number, length: number): Promise<Buffer> {
  const buffer = Buffer.allocUnsafe(length)
  let done = 0
  while (done < length) {
    const { bytesRead } = await handle.read(buffer, done, length - done, position + done)
    if (bytesRead === 0) break
    done += bytesRead
  }
  return buffer.subarray(0, done)
}

/** The text of a file. @throws ImplexError ERR_IO */
export async function readText(file: string): Promise<string> {
  try {
    return await readFile(file, 'utf8')
  } catch (error) {
    throw fileError(file, 'read', error)
  }
}

/** The text of a file that need not be there. @throws ImplexError ERR_IO */
export async function readIfPresent(file: string): Promise<string | undefined> {
  return (await isFolder(file)) === undefined ? undefined : readText(file)
}

export interface JsonFileOptions {
  /** Defaults to 16 MB. */
  maxBytes?: number
  /** What to do about a damaged one; reads after "; ". */
  advice?: string
}

/**
 * A JSON file that holds an object.
 * @param code for what is wrong inside it
 * @throws ImplexError of that code; ERR_CHECKPOINT_NOT_FOUND, ERR_IO
 */
export async function readJsonFile(
  file: string,
  code: ImplexErrorCode,
  { maxBytes = MAX_JSON_BYTES, advice }: JsonFileOptions = {},
): Promise<Record<string, unknown>> {
  const bytes = await withRegularFile(file, async (handle, size) => {
    if (size <= maxBytes) return readAt(handle, 0, size)
    const message = `${file}: ${size} bytes are too large for this file (at most ${maxBytes})`
    throw new ImplexError(code, message, { path: file })
  })
  return parseJsonObject(bytes, file, 'the file', code, advice)
}

/** The same for a file that need not be there. */
export async function readJsonIfPresent(
  file: string,
  code: ImplexErrorCode,
  options: JsonFileOptions = {},
): Promise<Record<string, unknown> | undefined> {
  return (await isFolder(file)) === undefined ? undefined : readJsonFile(file, code, options)
}

/** Parses bytes as a JSON object. `what` names the part of `file` that they come from: "the file", "the header". */
export function parseJsonObject(
  bytes: Uint8Array,
  file: string,
  what: string,
  code: ImplexErrorCode,
  advice?: string,
): Record<string, unknown> {
  const invalid = (problem: string, cause?: unknown) =>
    new ImplexError(code, `${file}: ${what} ${problem}${advice === undefined ? '' : `; ${advice}`}`, {
      cause,
      path: file,
    })
  let value: unknown
  try {
    value = JSON.parse(new TextDecoder('utf-8', { fatal: true, ignoreBOM: false }).decode(bytes))
  } catch (error) {
    const reason = error instanceof SyntaxError ? printable(error.message) : 'not UTF-8'
    throw invalid(`is not valid JSON: ${reason}`, error)
  }
  if (!isPlainObject(value)) throw invalid('must be a JSON object')
  return value
}

/** Text from a file, made safe for a message: one line of bounded length. */
export function printable(text: string, limit = 160): string {
  const clean = text.replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]+/gu, ' ')
  return clean.length > limit ? `${clean.slice(0, limit - 3)}...` : clean
}

/** A name from a file, quoted for a message. */
export function quoted(name: string): string {
  return `"${printable(name, 120)}"`
}
