/**
 * metrics.jsonl: one line per step and per evaluation, each a single write, so that a reader sees whole lines whenever the run dies.
 */
import { type FileHandle, open } from 'node:fs/promises'
import { fileError } from '../../core/files.js'
import { ImplexError } from '../../core/errors.js'

export class MetricsLog {
  readonly path: string
  readonly #file: FileHandle
  #bytes: number

  /**
   * Opens the file, and cuts off what comes after `keep` bytes: lines of steps that no checkpoint holds, which will be taken again.
   * @throws ImplexError ERR_IO, and ERR_RESUME_MISMATCH when the file is shorter than that
   */
  static async open(path: string, keep: number): Promise<MetricsLog> {
    let file: FileHandle | undefined
    try {
      file = await open(path, 'a+')
      const { size } = await file.stat()
      if (size < keep) {
        throw new ImplexError(
          'ERR_RESUME_MISMATCH',
          `${path} has ${size} bytes, but its run wrote ${keep}: the file was changed or cut off; restore it, or train into another folder`,
          { path },
        )
      }
      if (size > keep) await file.truncate(keep)
      return new MetricsLog(path, file, keep)
    } catch (error) {
      await file?.close().catch(() => {})
      throw error instanceof ImplexError ? error : fileError(path, 'open', error)
    }
  }

  private constructor(path: string, file: FileHandle, bytes: number) {
    this.path = path
    this.#file = file
    this.#bytes = bytes
  }

  /** Written so far: where a resumed run goes on. */
  get bytes(): number {
    return this.#bytes
  }

  async line(value: Record<string, unknown>): Promise<void> {
    const bytes = Buffer.from(`${JSON.stringify(value)}\n`)
    try {
      await this.#file.appendFile(bytes)
    } catch (error) {
      throw fileError(this.path, 'write', error)
    }
    this.#bytes += bytes.length
  }

  /** To disk. */
  async flush(): Promise<void> {
    try {
      await this.#file.sync()
    } catch (error) {
      throw fileError(this.path, 'write', error)
    }
  }

  async close(): Promise<void> {
    await this.#file.close().catch(() => {})
  }
}
