/**
 * Reference log-probabilities on disk: constants of a (reference model, tokenizer, data set), worth computing once.
 *
 * One file per key. After a header of 4096 bytes (readable text: magic, the key as JSON, its SHA-256), record `ordinal` lies at
 * 4096 + 16·ordinal, little-endian: u64 check, f64 log-probability. `ordinal` counts the responses of the rows that could be encoded,
 * in the order of the data. check = hash(token ids) ^ mix(log-probability), 0 = no record: a value is used only for exactly the
 * tokens it was computed for, and a damaged one not at all. The worst a wrong ordinal, a torn write or another file can do is a miss.
 *
 * A lock keeps a second process from writing; it reads. (Two writers would write the same bytes: what a key leads to is
 * deterministic. The lock only spares them the trouble.) Any failure of the disk costs the cache, never the run.
 */
import { createHash } from 'node:crypto'
import { constants } from 'node:fs'
import { type FileHandle, open } from 'node:fs/promises'
import { homedir } from 'node:os'
import { isAbsolute, join } from 'node:path'
import { makeFolder } from '../core/atomic.js'
import { ImplexError } from '../core/errors.js'
import { systemCode } from '../core/files.js'
import { Lock } from '../native/lock.js'

const MAGIC = 'implex reference log-probabilities 1'
const HEADER_BYTES = 4096
const RECORD_BYTES = 16
const BLOCK_RECORDS = 4096
const BLOCK_BYTES = BLOCK_RECORDS * RECORD_BYTES
const BLOCKS_IN_MEMORY = 8
/** What is in memory is written so often: most work that a killed process loses. */
export const FLUSH_MS = 1000

/** To be raised by whoever changes an engine's results in their last bits on purpose. */
export const NUMERICS_VERSION = 1

/** All that decides a reference log-probability, and which response has which ordinal. */
export interface ReferenceKey {
  /** SHA-256 of the reference's weights. */
  weights: string
  /** Of tokenizer and template. */
  text: string
  data: string
  dtype: string
  device: string
  /** The kernel set: results are bit-identical under one only. */
  kernels: string
  version: string
  numerics: number
  /** How prompt and response are parted. */
  border: string
  onLong: string
  contextLength: number
}

/** $XDG_CACHE_HOME/implex, or ~/.cache/implex. */
export function defaultCacheDir(): string {
  const base = process.env.XDG_CACHE_HOME
  return join(base !== undefined && isAbsolute(base) ? base : join(homedir(), '.cache'), 'implex')
}

interface Block {
  data: Buffer
  dirty: boolean
}

export class ReferenceCache {
  readonly path: string
  hits = 0
  misses = 0
  readonly #file: FileHandle
  readonly #lock: Lock | undefined
  readonly #warn: (message: string) => void
  /** In order of last use. */
  readonly #blocks = new Map<number, Promise<Block>>()
  #failed = false
  #flushed = performance.now()

  /** Undefined, after a warning, when the directory cannot be used. A file that is not what its name says is started anew. */
  static async open(
    cacheDir: string,
    key: ReferenceKey,
    warn: (message: string) => void,
  ): Promise<ReferenceCache | undefined> {
    const header = encodeHeader(key)
    const directory = join(cacheDir, 'reference')
    const path = join(directory, `${createHash('sha256').update(header).digest('hex').slice(0, 32)}.logp`)
    let lock: Lock | undefined
    let file: FileHandle | undefined
    try {
      await makeFolder(directory)
      lock = await takeLock(path)
      const writable = lock !== undefined
      file = await openFile(path, writable)
      if (file === undefined) return undefined
      const found = Buffer.alloc(HEADER_BYTES)
      const { bytesRead } = await file.read(found, 0, HEADER_BYTES, 0)
      if (!found.equals(header)) {
        if (bytesRead > 0) warn(`${path}: not a valid cache of reference log-probabilities; implex makes a new one`)
        if (!writable) {
          await file.close()
          return undefined
        }
        await file.truncate(0)
        await file.write(header, 0, HEADER_BYTES, 0)
      }
      return new ReferenceCache(path, file, lock, warn)
    } catch (error) {
      await file?.close().catch(() => {})
      await lock?.[Symbol.asyncDispose]()
      warn(`reference log-probabilities are not cached: ${(error as Error).message}`)
      return undefined
    }
  }

  private constructor(path: string, file: FileHandle, lock: Lock | undefined, warn: (message: string) => void) {
    this.path = path
    this.#file = file
    this.#lock = lock
    this.#warn = warn
  }

  /** False when another process writes this file. */
  get writable(): boolean {
    return this.#lock !== undefined
  }

  /** The log-probability of the response with this ordinal and these tokens, if it is known. `counts`: among hits and misses. */
  async get(ordinal: number, hash: TokenHash, counts = true): Promise<number | undefined> {
    const block = await this.#block(ordinal)
    if (block !== undefined) {
      const at = (ordinal % BLOCK_RECORDS) * RECORD_BYTES
      const low = block.data.readUInt32LE(at)
      const high = block.data.readUInt32LE(at + 4)
      const logprob = block.data.readDoubleLE(at + 8)
      const check = checkOf(hash, logprob)
      if ((low !== 0 || high !== 0) && low === check.low && high === check.high && Number.isFinite(logprob)) {
        if (counts) this.hits++
        return logprob
      }
    }
    if (counts) this.misses++
    return undefined
  }

  async put(ordinal: number, hash: TokenHash, logprob: number): Promise<void> {
    if (!this.writable || !Number.isFinite(logprob)) return
    const block = await this.#block(ordinal)
    if (block === undefined) return
    const at = (ordinal % BLOCK_RECORDS) * RECORD_BYTES
    const check = checkOf(hash, logprob)
    block.data.writeUInt32LE(check.low, at)
    block.data.writeUInt32LE(check.high, at + 4)
    block.data.writeDoubleLE(logprob, at + 8)
    block.dirty = true
    if (performance.now() - this.#flushed >= FLUSH_MS) await this.#flushAll()
  }

  async #flushAll(): Promise<void> {
    this.#flushed = performance.now()
    try {
      for (const [index, block] of [...this.#blocks]) await this.#flush(index, await block)
    } catch (error) {
      this.#fail(error)
    }
  }

  /** Writes what is still in memory and lets go of the file and its lock. */
  async close(): Promise<void> {
    await this.#flushAll()
    this.#blocks.clear()
    this.#failed = true
    await this.#file.close().catch(() => {})
    await this.#lock?.[Symbol.asyncDispose]()
  }

  async #block(ordinal: number): Promise<Block | undefined> {
    if (this.#failed) return undefined
    const index = Math.floor(ordinal / BLOCK_RECORDS)
    let block = this.#blocks.get(index)
    if (block === undefined) {
      block = this.#read(index)
      block.catch(() => {}) // it is awaited below, but perhaps only after another block was written
    }
    this.#blocks.delete(index)
    this.#blocks.set(index, block)
    try {
      if (this.#blocks.size > BLOCKS_IN_MEMORY) await this.#evict()
      return await block
    } catch (error) {
      this.#fail(error)
      return undefined
    }
  }

  async #read(index: number): Promise<Block> {
    const data = Buffer.alloc(BLOCK_BYTES)
    let done = 0
    while (done < BLOCK_BYTES) {
      const position = HEADER_BYTES + index * BLOCK_BYTES + done
      const { bytesRead } = await this.#file.read(data, done, BLOCK_BYTES - done, position)
      if (bytesRead === 0) break // past the end: no records
      done += bytesRead
    }
    return { data, dirty: false }
  }

  async #evict(): Promise<void> {
    const [index, promise] = this.#blocks.entries().next().value!
    const block = await promise
    await this.#flush(index, block)
    // It may have been written to again, or gone already, while it was being flushed.
    if (!block.dirty && this.#blocks.get(index) === promise) this.#blocks.delete(index)
  }

  async #flush(index: number, block: Block): Promise<void> {
    if (!block.dirty) return
    block.dirty = false
    let done = 0
    while (done < BLOCK_BYTES) {
      const position = HEADER_BYTES + index * BLOCK_BYTES + done
      done += (await this.#file.write(block.data, done, BLOCK_BYTES - done, position)).bytesWritten
    }
  }

  #fail(error: unknown): void {
    if (this.#failed) return
    this.#failed = true
    this.#warn(`${this.path}: ${(error as Error).message}; continuing without this cache`)
  }
}

/** 64 bits that stand for a prompt's and a response's token ids. */
export interface TokenHash {
  low: number
  high: number
}

const SEED: TokenHash = { low: 0x243f6a88, high: 0x85a308d3 }

/** Hashes `ids`, continuing from `state`: hash the prompt once, then each response from there. The lengths count. */
export function hashTokens(ids: Int32Array, state: TokenHash = SEED): TokenHash {
  let { low, high } = state
  for (let i = -1; i < ids.length; i++) {
    const value = i < 0 ? ids.length : ids[i]!
    low = Math.imul(low ^ Math.imul(value, 0xcc9e2d51), 0x1b873593)
    low = ((low << 13) | (low >>> 19)) + 0x52dce729
    high = Math.imul(high ^ Math.imul(value + 0x165667b1, 0x85ebca77), 0xc2b2ae3d)
    high = ((high << 17) | (high >>> 15)) + 0x38495ab5
  }
  return { low: finalize(low ^ (high << 7)), high: finalize(high ^ low) }
}

function finalize(value: number): number {
  let h = value
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b)
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35)
  return (h ^ (h >>> 16)) >>> 0
}

const double = new DataView(new ArrayBuffer(8))

function checkOf(hash: TokenHash, logprob: number): TokenHash {
  double.setFloat64(0, logprob)
  const a = double.getUint32(0)
  const b = double.getUint32(4)
  const low = (hash.low ^ finalize(a ^ finalize(b))) >>> 0
  const high = (hash.high ^ finalize(b + Math.imul(finalize(a), 0x9e3779b1))) >>> 0
  return low === 0 && high === 0 ? { low: 1, high: 0 } : { low, high }
}

function encodeHeader(key: ReferenceKey): Buffer {
  const text = `${MAGIC}\n${JSON.stringify(key)}\n`
  const header = Buffer.alloc(HEADER_BYTES, '\n')
  header.write(`${text}${createHash('sha256').update(text).digest('hex')}\n`)
  return header
}

/** Undefined when somebody else has it. Where the file system has no locks, nobody is kept out: see above why that does no harm. */
async function takeLock(path: string): Promise<Lock | undefined> {
  try {
    return await Lock.take(`${path}.lock`, path, () => {})
  } catch (error) {
    if (error instanceof ImplexError && error.code === 'ERR_IN_USE') return undefined
    throw error
  }
}

/** Undefined when another process has the lock and is about to create the file: there is nothing to read yet. */
async function openFile(path: string, writable: boolean): Promise<FileHandle | undefined> {
  try {
    return await open(path, writable ? constants.O_RDWR | constants.O_CREAT : constants.O_RDONLY)
  } catch (error) {
    if (!writable && systemCode(error) === 'ENOENT') return undefined
    throw error
  }
}
