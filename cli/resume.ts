/**
 * Continues an interrupted `implex score`. While the output is unfinished, OUT.resume.json holds everything that determines its bytes. Only a
 * run that agrees with all of it may continue after the last line. The result then equals that of a run without interruption.
 */
import { createHash } from 'node:crypto'
import { type FileHandle, open, rm, stat } from 'node:fs/promises'
import { writeFileAtomic } from '../lib/core/atomic.js'
import type { Checkpoint } from '../lib/checkpoint/checkpoint.js'
import { fileError, readJsonIfPresent, systemCode } from '../lib/core/files.js'
import { readJsonl } from '../lib/data/jsonl.js'
import { ImplexError } from '../lib/core/errors.js'
import { isPlainObject } from '../lib/core/arguments.js'
import { parseFacts } from '../lib/data/row-lines.js'
import type { ScoreTally } from './score-summary.js'

const FORMAT = 1
const NEWLINE = 0x0a
const BLOCK_BYTES = 64 * 1024
const MAX_LINE_BYTES = 256 * 1024 * 1024

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

export async function writeResumeFile(out: string, now: Date, run: RunIdentity): Promise<void> {
  const value: ResumeFile = { format: FORMAT, now: now.toISOString(), run }
  await writeFileAtomic(resumePath(out), `${JSON.stringify(value, null, 2)}\n`)
}

export async function removeResumeFile(out: string): Promise<void> {
  await rm(resumePath(out), { force: true })
}

/** Cuts off a partial last line, adds the complete lines to `tally`, and opens the file for appending. */
export async function reopenOutput(out: string, tally: ScoreTally): Promise<FileHandle> {
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
    const end = await endOfLastLine(file)
    await file.truncate(end)
    for await (const { text = '', line } of readJsonl(out, { maxLineBytes: MAX_LINE_BYTES })) {
      const facts = parseFacts(text)
      if (facts?.index !== tally.rows) {
        throw new ImplexError(
          'ERR_RESUME_MISMATCH',
          `${out}: line ${line} is not the line that this run wrote for row ${tally.rows}; start again with --force`,
          { path: out, ...(line === undefined ? {} : { line }) },
        )
      }
      tally.addResumed(facts)
    }
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

const SAMPLES = 64
const SAMPLE_BYTES = 16 * 1024

/**
 * A checkpoint's identity without reading gigabytes: its numbers, and size and evenly spread samples of each weight file (all of a
 * small one). Enough to notice that another model, or another state of a training, stands in the same place.
 */
export async function sampleCheckpoint({ spec }: Checkpoint): Promise<string> {
  const { weights, ...numbers } = spec
  const hash = createHash('sha256').update(
    JSON.stringify({ ...numbers, inverseFrequencies: [...numbers.inverseFrequencies] }),
  )
  const buffer = Buffer.alloc(SAMPLE_BYTES)
  for (const path of [...new Set(weights.map((weight) => weight.file))].sort()) {
    let file: FileHandle | undefined
    try {
      const { size } = await stat(path)
      file = await open(path)
      hash.update(`${size} `)
      const step = Math.max(SAMPLE_BYTES, (size - SAMPLE_BYTES) / (SAMPLES - 1))
      for (let at = 0; at < size; at += step) {
        const { bytesRead } = await file.read(buffer, 0, SAMPLE_BYTES, Math.floor(at))
        hash.update(buffer.subarray(0, bytesRead))
      }
    } catch (error) {
      throw fileError(path, 'read', error)
    } finally {
      await file?.close()
    }
  }
  return hash.digest('hex')
}
