/**
 * The data of a training in memory: every row read, checked and tokenized before the first step, so that a bad row costs no hours.
 */
import { createHash, type Hash } from 'node:crypto'
import { type EncodedRow, type EncodeSettings, promptOf } from '../data/encode.js'
import type { EncodePool } from '../data/encode-pool.js'
import { rowError } from '../data/rows.js'
import type { RowSource } from '../data/rows.js'
import { ImplexError } from '../core/errors.js'

/** An encoded preference pair; `responses` are [chosen, rejected], for sft perhaps [chosen] alone. */
export interface TrainPair extends EncodedRow {
  /** Of its first response, among all responses of the source: where the reference cache keeps it. */
  ordinal: number
  /** ln π_ref of [chosen, rejected], once that is known. */
  reference?: [number, number]
}

export interface PairSet {
  /** The source, for messages. */
  name: string
  pairs: TrainPair[]
  /** Rows left out because they are beyond the context (`onLong: 'skip'`). */
  skipped: number
  /** Rows whose prompt was shortened. */
  truncated: number
  /** Rows to which the other rule for the border gives other ids. */
  borderDiffers: number
  /** Rows whose prompt's text does not begin the conversation's. */
  promptParted: number
  /** SHA-256 of all token ids and margins in order. */
  fingerprint: string
}

export interface PairChecks {
  /** sft: a row may have `responses` with the one that is learned, in place of a pair. */
  single?: boolean
  /** Token that may stand once, at a prompt's start. */
  bosTokenId?: number
  eosTokenId?: number
  /** Token that ends every response, as far as it is scored. */
  terminator?: number
  signal?: AbortSignal
}

/**
 * Reads the whole source.
 * @throws ImplexError for the first bad row, naming its line; ERR_SELF_CHECK when the token sequences cannot be right; ERR_ABORTED
 */
export async function loadPairs(
  source: RowSource,
  pool: EncodePool,
  settings: EncodeSettings,
  checks: PairChecks,
): Promise<PairSet> {
  const set: PairSet = {
    name: source.name,
    pairs: [],
    skipped: 0,
    truncated: 0,
    borderDiffers: 0,
    promptParted: 0,
    fingerprint: '',
  }
  const hash = createHash('sha256')
  let ordinal = 0
  try {
    for await (const rows of pool.encode(source.chunks(), settings)) {
      if (checks.signal?.aborted) throw new ImplexError('ERR_ABORTED', 'the reading of the data was aborted')
      for (const row of rows) {
        if (row.error !== undefined) {
          if (settings.onLong !== 'skip' || row.error.code !== 'ERR_ROW_TOO_LONG') throw row.error
          set.skipped++
          continue
        }
        if (row.shape !== 'pair') checkSingle(row, checks)
        if (settings.kind !== 'generative') checkSequences(row, checks)
        if (row.truncated) set.truncated++
        if (row.borderDiffers) set.borderDiffers++
        if (row.promptParted) set.promptParted++
        digest(hash, row)
        set.pairs.push({ ...row, ordinal })
        ordinal += row.responses.length
      }
    }
  } catch (error) {
    throw named(error, source.name)
  }
  if (set.pairs.length === 0) {
    const why = set.skipped > 0 ? `all ${set.skipped} rows are beyond the model's context` : 'it has no rows'
    throw new ImplexError('ERR_ROW_INVALID', `${source.name}: nothing to train on or evaluate: ${why}`)
  }
  set.fingerprint = hash.digest('hex')
  return set
}

function checkSingle(row: EncodedRow, { single }: PairChecks): void {
  if (single === true && row.responses.length === 1) return
  const needed =
    single === true
      ? '"responses" must hold exactly one here, the text to learn'
      : 'has "responses"; a pair is needed here'
  throw rowError('ERR_ROW_INVALID', needed, row)
}

/** What of a row every kind but the generative relies on; its prompt's ids are a prefix of both sequences by construction. */
function checkSequences(row: TrainPair | EncodedRow, { bosTokenId, eosTokenId, terminator }: PairChecks): void {
  const place = row.line === undefined ? `row ${row.index}` : `line ${row.line}`
  const failed = (message: string) => new ImplexError('ERR_SELF_CHECK', `${place}: ${message}`)
  // Some models use one token for both ends of a text.
  if (bosTokenId !== undefined && bosTokenId !== eosTokenId) {
    if (row.prompt[0] === bosTokenId && row.prompt[1] === bosTokenId) {
      throw failed(
        `the prompt begins with two beginning-of-sequence tokens (id ${bosTokenId}): the template adds one and the text has another; ` +
          'remove it from the data or the template',
      )
    }
    if (row.responses.some((response, k) => response[0] === bosTokenId && promptOf(row, k).length > 0))
      throw failed(
        `a response begins with the beginning-of-sequence token (id ${bosTokenId}), which belongs before the prompt`,
      )
  }
  if (terminator === undefined) return
  const other = row.responses.find((response) => response.at(-1) !== terminator)
  if (other !== undefined) {
    throw failed(
      `a response ends with token ${other.at(-1)}, but the template ends a response with token ${terminator}, which is what the reward is read from`,
    )
  }
}

function digest(hash: Hash, { prompt, promptLengths = [], responses, margin }: EncodedRow): void {
  hash.update(Int32Array.of(prompt.length, ...responses.map((ids) => ids.length), ...promptLengths))
  for (const ids of [prompt, ...responses]) hash.update(ids)
  hash.update(Float64Array.of(margin ?? 0))
}

function named(error: unknown, name: string): unknown {
  if (!(error instanceof ImplexError) || error.path === name) return error
  return new ImplexError(error.code, `${name}: ${error.message}`, {
    cause: error,
    ...(error.line === undefined ? {} : { line: error.line }),
    ...(error.path === undefined ? {} : { path: error.path }),
  })
}

/** How a message names a pair: by line where there is one, and by the row's own id. */
export function pairName({ index, line, id }: EncodedRow): string {
  const place = line === undefined ? `row ${index}` : `line ${line}`
  return id === undefined ? place : `${place} (id ${JSON.stringify(id)})`
}
