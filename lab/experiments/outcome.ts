/**
 * What a call of an experiment returns, and the results.json of one that is complete.
 */
import { existsSync } from 'node:fs'
import { readText } from '../../lib/core/files.js'
import { ImplexError } from '../../lib/core/errors.js'
import { type ExperimentResult, RESULT_FORMAT } from './result.js'

export interface ExperimentOutcome {
  /** Folder of the experiment. */
  out: string
  /** The drain signal ended it; the same call with `resume` goes on. */
  interrupted: boolean
  /** As in results.json; absent when interrupted. */
  result?: ExperimentResult
}

/** @returns undefined when the experiment is not complete @throws ImplexError ERR_RESUME_MISMATCH for another format or damage, ERR_IO */
export async function readResults(path: string): Promise<ExperimentResult | undefined> {
  if (!existsSync(path)) return undefined
  let format: unknown = 'none'
  try {
    const result = JSON.parse(await readText(path)) as ExperimentResult
    format = result.format
    if (format === RESULT_FORMAT) return result
  } catch (error) {
    if (error instanceof ImplexError) throw error
  }
  throw new ImplexError(
    'ERR_RESUME_MISMATCH',
    `${path} is damaged or from another version of implex (format ${format}, not ${RESULT_FORMAT})`,
    { path },
  )
}
