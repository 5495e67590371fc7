/**
 * Continues an interrupted `implex score`. While the output is unfinished, OUT.resume.json holds everything that determines its bytes. Only a
 * run that agrees with all of it may continue after the last line. The result then equals that of a run without interruption.
 */
import { type FileHandle, open, rm } from 'node:fs/promises'
import { removeLeftoversOf, writeFileAtomic } from '../lib/core/atomic.js'
import { fileError, readJsonIfPresent, systemCode } from '../lib/core/files.js'
import { readJsonl } from '../lib/data/jsonl.js'
import { ImplexError } from '../lib/core/errors.js'
import { isPlainObject } from '../lib/core/arguments.js'
import { parseFacts } from '../lib/data/row-lines.js'
import type { ScoreTally } from './score-summary.js'

const FORMAT = 2
const NEWLINE = 0x0a
const BLOCK_BYTES = 64 * 1024
export const MAX_LINE_BYTES = 256 * 1024 * 1024

/** What determines the output's bytes. Names and values are readable, so that an error can name the difference. */
export type RunIdentity = Record<string, string | number | boolean | null>

export interface ResumeFile {
  format: number
  /** The time given to templates that write the date. */
  now: string
  run: RunIdentity
}

export function resumePath(out: string): string {
  return `${out}.resume.json`
}

/** The resume file of an unfinished run; undefined if there is none. */
export async function readResumeFile(out: string): Promise<ResumeFile | undefined> {
  const path = resumePath(out)
  const value = await readJsonIfPresent(path, 'ERR_RESUME_MISMATCH', { advice: 'start again with --force' })
  if (value === undefined) return undefined
  if (value.format === FORMAT && typeof value.now === 'string' && isPlainObject(value.run))
    return value as unknown as ResumeFile
  throw new ImplexError(
    'ERR_RESUME_MISMATCH',
    `${path} is damaged or from another version of implex; start again with --force`,
    {
      path,
    },
  )
}

/** For the one process that holds the output's lock. */
export async function writeResumeFile(out: string, now: Date, run: RunIdentity): Promise<void> {
  const value: ResumeFile = { format: FORMAT, now: now.toISOString(), run }
  await removeLeftoversOf(resumePath(out))
  await writeFileAtomic(resumePath(out), `${JSON.stringify(value, null, 2)}\n`)
}

export async function removeResumeFile(out: string): Promise<void> {
  await rm(resumePath(out), { force: true })
}

/**
 * Cuts off a partial last line and lines without a row in the journal, counts the rest into `tally`, and opens the file to append to it.
 *
 * @param rows rows in the journal
 */
export async function reopenOutput(out: string, tally: ScoreTally, rows: number): Promise<FileHandle> {
  let file: FileHandle
  try {
    file = await open(out, 'r+').catch((error: unknown) => {
      if (systemCode(error) === 'ENOENT') return open(out, 'w+')
      throw error
    })
  } catch (error) {
    throw fileError(out, 'open', error)
  }
  try {
    await file.truncate(await endOfLastLine(file))
    let end = 0
    for await (const { text = '', line } of readJsonl(out, { maxLineBytes: MAX_LINE_BYTES, limit: rows })) {
      const facts = parseFacts(text)
      if (facts?.index !== tally.rows) {
        throw new ImplexError(
          'ERR_RESUME_MISMATCH',
          `${out}: line ${line} is not the line that this run wrote for row ${tally.rows}; start again with --force`,
          { path: out, line },
        )
      }
      tally.addResumed(facts)
      end += Buffer.byteLength(text) + 1
    }
    await file.truncate(end)
    await file.close()
    return await open(out, 'a')
  } catch (error) {
    await file.close().catch(() => {})
    throw error instanceof ImplexError ? error : fileError(out, 'continue', error)
  }
}

async function endOfLastLine(file: FileHandle): Promise<number> {
  const block = Buffer.alloc(BLOCK_BYTES)
  let end = (await file.stat()).size
  while (end > 0) {
    const start = Math.max(0, end - BLOCK_BYTES)
    const { bytesRead } = await file.read(block, 0, end - start, start)
    const newline = block.subarray(0, bytesRead).lastIndexOf(NEWLINE)
    if (newline >= 0) return start + newline + 1
    end = start
  }
  return 0
}
