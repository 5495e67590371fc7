/**
 * A checkpoint's content as a hash. It is part of the key of the reference cache.
 */
import { createHash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { readFile, stat } from 'node:fs/promises'
import { basename, join } from 'node:path'
import { ImplexError } from '../core/errors.js'
import { isPlainObject } from '../core/arguments.js'
import { ADAPTER_WEIGHTS } from './adapter/beside.js'
import type { Checkpoint } from './checkpoint.js'
import { makeFolder, writeFileAtomic } from '../core/atomic.js'
import { fileError } from '../core/files.js'

/** Small enough that hashing one piece does not hold up the event loop. */
const PIECE_BYTES = 1 << 18

/**
 * SHA-256 over the whole content of the weight files: that of the file itself where there is one (as sha256sum prints), else over the
 * sorted shards' names and digests.
 *
 * @param cacheDir where digests are remembered by path, size, times and inode of the file; nothing is remembered without it. A folder that
 *   cannot be written is not an error.
 * @returns 64 hexadecimal digits
 * @throws ImplexError ERR_IO when a file cannot be read or changes meanwhile, ERR_ABORTED
 */
export async function weightsFingerprint(
  checkpoint: Checkpoint,
  cacheDir?: string,
  signal?: AbortSignal,
): Promise<string> {
  const files = [...new Set(checkpoint.spec.weights.map((weight) => weight.file))].sort()
  const digests: string[] = []
  for (const file of files) digests.push(await fileDigest(file, cacheDir, signal))
  if (digests.length === 1) return digests[0] as string
  const hash = createHash('sha256')
  for (const [i, file] of files.entries()) hash.update(`${basename(file)}\0${digests[i]}\n`)
  return hash.digest('hex')
}

/**
 * SHA-256 over all that the outputs of a model depend on: its weights, the numbers of its config and its adapter.
 * Arguments, result and errors as weightsFingerprint.
 */
export async function modelFingerprint(
  checkpoint: Checkpoint,
  cacheDir?: string,
  signal?: AbortSignal,
): Promise<string> {
  const { weights, ropes, ...numbers } = checkpoint.spec
  const places = weights.map(({ role, tensor, dtype, shape, rows }) => [role, tensor, dtype, shape, rows ?? null])
  const sorted = Object.entries(numbers).sort(([a], [b]) => (a < b ? -1 : 1))
  const hash = createHash('sha256')
  const tables = ropes.map(({ inverseFrequencies, ...rope }) => [rope, [...inverseFrequencies]])
  hash.update(JSON.stringify([sorted, tables, places]))
  hash.update(await weightsFingerprint(checkpoint, cacheDir, signal))
  const { adapter } = checkpoint
  if (adapter !== undefined) {
    const parts = [...adapter.lowRank, ...adapter.biases, adapter.embedding ?? null]
    hash.update(JSON.stringify(parts, (key, value) => (key === 'file' ? undefined : value)))
    hash.update(await fileDigest(join(adapter.path, ADAPTER_WEIGHTS), cacheDir, signal))
  }
  return hash.digest('hex')
}

/** What must be unchanged for a remembered digest to be valid. Decimal strings, because nanoseconds do not fit a double. */
interface Identity {
  path: string
  size: string
  mtimeNs: string
  ctimeNs: string
  inode: string
}

async function identify(path: string): Promise<Identity> {
  try {
    const { size, mtimeNs, ctimeNs, ino } = await stat(path, { bigint: true })
    return { path, size: `${size}`, mtimeNs: `${mtimeNs}`, ctimeNs: `${ctimeNs}`, inode: `${ino}` }
  } catch (error) {
    throw fileError(path, 'read', error)
  }
}

async function fileDigest(
  path: string,
  cacheDir: string | undefined,
  signal: AbortSignal | undefined,
): Promise<string> {
  const identity = await identify(path)
  const key = createHash('sha256').update(path).digest('hex').slice(0, 32)
  const memo = cacheDir === undefined ? undefined : join(cacheDir, `weights-${key}.json`)
  const remembered = memo && (await recall(memo, identity))
  if (remembered) return remembered
  const sha256 = await hashFile(path, signal)
  const now = await identify(path)
  if (!sameIdentity(identity, now)) {
    throw new ImplexError('ERR_IO', `${path}: changed while it was being read; try again when it is complete`, { path })
  }
  if (memo && cacheDir !== undefined) await remember(cacheDir, memo, { ...identity, sha256 })
  return sha256
}

async function hashFile(path: string, signal: AbortSignal | undefined): Promise<string> {
  const hash = createHash('sha256')
  try {
    for await (const piece of createReadStream(path, { highWaterMark: PIECE_BYTES, signal })) hash.update(piece)
  } catch (error) {
    if (signal?.aborted)
      throw new ImplexError('ERR_ABORTED', `${path}: hashing was aborted`, { cause: signal.reason, path })
    throw fileError(path, 'read', error)
  }
  return hash.digest('hex')
}

function sameIdentity(a: Identity, b: object): boolean {
  return Object.entries(a).every(([key, value]) => Reflect.get(b, key) === value)
}

/** Anything unreadable counts as not remembered, so it is hashed again. */
async function recall(memo: string, identity: Identity): Promise<string | undefined> {
  try {
    const value: unknown = JSON.parse(await readFile(memo, 'utf8'))
    if (!isPlainObject(value) || !sameIdentity(identity, value)) return undefined
    return typeof value.sha256 === 'string' && /^[0-9a-f]{64}$/.test(value.sha256) ? value.sha256 : undefined
  } catch {
    return undefined
  }
}

async function remember(cacheDir: string, memo: string, value: Identity & { sha256: string }): Promise<void> {
  try {
    await makeFolder(cacheDir)
    await writeFileAtomic(memo, JSON.stringify(value))
  } catch (error) {
    if (!(error instanceof ImplexError)) throw error
  }
}
