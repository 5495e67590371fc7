/**
 * Where `implex score` writes its lines: a file that can be continued, or standard output, a pipe or a device, which cannot.
 *
 * While a file is unfinished, OUT.resume.json and OUT.resume.rows lie beside it: what the run was begun with, and a digest of every row
 * that has a line. A link is followed, so that two names of one file are one output.
 */
import { type FileHandle, open, realpath, rm, stat } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { ImplexError } from '../lib/core/errors.js'
import { fileError, systemCode } from '../lib/core/files.js'
import { checkSameRun } from '../lib/core/same-run.js'
import { type JsonlSource, readJsonl } from '../lib/data/jsonl.js'
import { parseFacts } from '../lib/data/row-lines.js'
import type { RowSource } from '../lib/data/rows.js'
import { inUse, isLocked, Lock } from '../lib/native/lock.js'
import { refuseOverwriting } from './outputs.js'
import { fileWrite, LineWriter, pipeWrite, stdoutWrite } from './line-writer.js'
import {
  MAX_LINE_BYTES,
  readResumeFile,
  removeResumeFile,
  reopenOutput,
  type ResumeFile,
  resumePath,
  type RunIdentity,
  writeResumeFile,
} from './resume.js'
import { checkRows, journalRows, removeJournal, RowJournal } from './row-journal.js'
import type { ScoreTally } from './score-summary.js'

export interface OutputOptions {
  /** Overwrite what is there. */
  force?: boolean
  /** Continue what is there. */
  resume?: boolean
}

export class ScoreOutput implements AsyncDisposable {
  /** The unfinished run to continue. */
  readonly begun: ResumeFile | undefined
  readonly #out: string
  readonly #lock: Lock | undefined
  #writer: LineWriter | undefined
  #file: FileHandle | undefined
  #journal: RowJournal | undefined

  /**
   * Looks at what is there, changes nothing, and keeps other writers out until the end.
   * @throws ImplexError ERR_IN_USE; ERR_OUTPUT_EXISTS for a finished file without `force`; ERR_RESUME_MISMATCH for an unfinished one without either
   */
  static async take(out: string, options: OutputOptions, warn: (message: string) => void): Promise<ScoreOutput> {
    if (out === '-' || !(await isRegularOrAbsent(out))) return new ScoreOutput(out, undefined, undefined)
    const real = await realPath(out)
    const lock = await Lock.take(`${real}.lock`, out, warn)
    try {
      return new ScoreOutput(real, lock, await unfinishedRun(real, options))
    } catch (error) {
      await lock[Symbol.asyncDispose]()
      throw error
    }
  }

  private constructor(out: string, lock: Lock | undefined, begun: ResumeFile | undefined) {
    this.#out = out
    this.#lock = lock
    this.begun = begun
  }

  /** Whether an interrupted run can go on. */
  get resumable(): boolean {
    return this.#lock !== undefined
  }

  /** Whether a file with nothing unfinished beside it has a line for each row of `source`: a run that is resumed once more is done. */
  async isComplete(source: JsonlSource): Promise<boolean> {
    if (this.begun !== undefined || (await sizeOf(this.#out)) === undefined) return false
    const lines = await lastIndex(this.#out)
    let rows = 0
    for await (const chunk of source.chunks()) rows += chunk.length
    if (lines + 1 === rows) return true
    if ((await sizeOf(this.#out)) === 0) return false // nothing is lost by beginning
    const message = `${this.#out} has no ${resumePath(this.#out)} beside it and not a line for each row: it is of other data, or not from implex score; --force overwrites it`
    throw new ImplexError('ERR_RESUME_MISMATCH', message, { path: this.#out })
  }

  /** Opens it: anew, or behind the lines that the same run has written for the same rows. They are counted into `tally`. */
  async open(run: RunIdentity, now: Date, source: JsonlSource, tally: ScoreTally): Promise<void> {
    if (this.#out === '-') {
      this.#writer = new LineWriter(stdoutWrite())
      return
    }
    if (!this.resumable) {
      this.#writer = new LineWriter(await pipeWrite(this.#out))
      return
    }
    if (this.begun !== undefined) {
      checkSameRun(this.#out, this.begun.run, run, 'start again with --force')
      this.#file = await reopenOutput(this.#out, tally, await journalRows(this.#out))
      await checkRows(this.#out, tally.rows, source)
    } else {
      // In this order: at no moment is there an unfinished file that looks finished.
      if (await sizeOf(this.#out)) await rm(this.#out)
      await writeResumeFile(this.#out, now, run)
      this.#file = await create(this.#out)
    }
    this.#journal = await RowJournal.open(this.#out, tally.rows)
    // A hard link is another name of the same file, with a lock of its own. That there are no locks here was told when the first was taken.
    if (!isLocked(this.#file, this.#out, () => {})) throw await inUse(`${this.#out}.lock`, this.#out)
    const write = fileWrite(this.#file, this.#out)
    this.#writer = new LineWriter(async (text) => {
      await this.#journal!.flush()
      await write(text)
    })
  }

  /** The rows to be scored; where the run can be continued, their digests are noted as they pass. */
  watch(source: RowSource): RowSource {
    return this.#journal?.watch(source) ?? source
  }

  /** The line of the next row. */
  line(text: string): Promise<void> {
    this.#journal?.take()
    return this.#writer!.line(text)
  }

  async flush(): Promise<void> {
    await this.#writer?.flush()
  }

  /** All rows have their lines. */
  async finish(): Promise<void> {
    if (!this.resumable) return
    await removeResumeFile(this.#out)
    await removeJournal(this.#out)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#file?.close().catch(() => {})
    await this.#journal?.close()
    await this.#lock?.[Symbol.asyncDispose]()
  }
}

/** The run to continue; undefined to start from the beginning. */
async function unfinishedRun(out: string, { force, resume }: OutputOptions): Promise<ResumeFile | undefined> {
  if (force) return undefined
  const before = await readResumeFile(out)
  if (before === undefined) {
    if (!resume) await refuseOverwriting(out, force, 'choose another --out')
    return undefined
  }
  if (resume) return before
  const message = `${out} is unfinished (${resumePath(out)} exists): continue it with --resume, or overwrite it with --force`
  throw new ImplexError('ERR_RESUME_MISMATCH', message, { path: out })
}

/** Links followed, also where the file itself is not there yet. */
async function realPath(path: string): Promise<string> {
  try {
    return await realpath(path)
  } catch (error) {
    if (systemCode(error) !== 'ENOENT') throw fileError(path, 'write', error)
  }
  try {
    return join(await realpath(dirname(path)), basename(path))
  } catch (error) {
    throw fileError(path, 'write', error)
  }
}

async function create(path: string): Promise<FileHandle> {
  try {
    return await open(path, 'w')
  } catch (error) {
    throw fileError(path, 'write', error)
  }
}

/** The number of a file's last row; -1 where it has none. */
async function lastIndex(out: string): Promise<number> {
  let last = -1
  for await (const { text = '' } of readJsonl(out, { maxLineBytes: MAX_LINE_BYTES }))
    last = parseFacts(text)?.index ?? -2
  return last
}

/** Devices and named pipes can be written to, but nothing can be put beside them or continued. */
async function isRegularOrAbsent(path: string): Promise<boolean> {
  try {
    return (await stat(path)).isFile()
  } catch (error) {
    return systemCode(error) === 'ENOENT'
  }
}

async function sizeOf(path: string): Promise<number | undefined> {
  return stat(path).then(
    ({ size }) => size,
    () => undefined,
  )
}
