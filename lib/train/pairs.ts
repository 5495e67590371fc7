/**
 * The data of a training in memory: every row read, checked and tokenized before the first step, so that a bad row costs no hours.
 */
import { createHash, type Hash } from 'node:crypto'
import { throwIfAborted } from '../core/abort.js'
import { checkBeginning, rowPlace, type SequenceEnds } from '../data/beginning.js'
import { type EncodedRow, type EncodeSettings, leavesOut, promptOf } from '../data/encode.js'
import type { EncodePool } from '../data/encode-pool.js'
import { rowError } from '../data/rows.js'
import type { RowSource } from '../data/rows.js'
import { UnreadCounts } from '../data/unread.js'
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
  /** Bad rows that were left out (`onError: 'skip'`). */
  errors: number
  /** Rows left out because they are too long (`onLong: 'skip'`, or 'truncate-end' for prompts). */
  skipped: number
  /** Rows that were shortened. */
  truncated: number
  /** Rows to which the other rule for the border gives other ids. */
  borderDiffers: number
  /** Rows whose prompt's text does not begin the conversation's. */
  promptParted: number
  /** SHA-256 of all token ids and margins in order. */
  fingerprint: string
}

export interface PairChecks extends SequenceEnds {
  /** sft: a row may have `responses` with the one that is learned, in place of a pair. */
  single?: boolean
  /** Token that ends every response, as far as it is scored. */
  terminator?: number
  /** A bad row ends the reading, or is counted and left out. Default: 'stop'. */
  onError?: 'stop' | 'skip'
  /** Told of rows left out, and of keys that nothing reads. */
  onWarning?: (message: string) => void
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
    errors: 0,
    skipped: 0,
    truncated: 0,
    borderDiffers: 0,
    promptParted: 0,
    fingerprint: '',
  }
  const hash = createHash('sha256')
  const unread = new UnreadCounts()
  let firstError: ImplexError | undefined
  let ordinal = 0
  try {
    for await (const rows of pool.encode(source.chunks(), settings, unread, checks.signal)) {
      throwIfAborted(checks.signal, 'the reading of the data')
      for (const row of rows) {
        const error = row.error ?? (row.shape === 'pair' ? undefined : singleError(row, checks))
        if (error !== undefined) {
          if (leavesOut(settings.onLong) && error.code === 'ERR_ROW_TOO_LONG') set.skipped++
          else if (checks.onError !== 'skip') throw error
          else {
            set.errors++
            firstError ??= error
          }
          continue
        }
        checkBeginning(row, checks)
        if (settings.kind !== 'generative') checkEnds(row, settings, checks)
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
    const why =
      set.errors > 0
        ? `no row is left; ${leftOut(set.errors, firstError!)}`
        : set.skipped > 0
          ? `all ${set.skipped} rows are too long`
          : 'it has no rows'
    throw new ImplexError('ERR_ROW_INVALID', `${source.name}: nothing to train on or evaluate: ${why}`)
  }
  if (firstError !== undefined) checks.onWarning?.(`${source.name}: ${leftOut(set.errors, firstError)}`)
  const message = unread.message(source.name)
  if (message !== undefined) checks.onWarning?.(message)
  set.fingerprint = hash.digest('hex')
  return set
}

function leftOut(errors: number, { message }: ImplexError): string {
  return errors === 1 ? `a bad row is left out: ${message}` : `${errors} bad rows are left out, the first: ${message}`
}

/** What is wrong with a row that is no pair. */
function singleError(row: EncodedRow, { single }: PairChecks): ImplexError | undefined {
  if (single === true && row.responses.length === 1) return undefined
  const needed =
    single === true
      ? '"responses" must hold exactly one here, the text to learn'
      : `is a group of ${row.responses.length} responses; a pair is needed here`
  return rowError('ERR_ROW_INVALID', needed, row)
}

/** A reward is read at the token that ends a response: never at one that was cut off. Verification prompts end in no such token. */
function checkEnds(
  row: EncodedRow,
  { contextLength, maxLength = contextLength, onLong }: EncodeSettings,
  { terminator }: PairChecks,
): void {
  if (terminator === undefined) return
  // Log-probabilities are read up to where a sequence was ended.
  const cut = (k: number) =>
    onLong === 'truncate-end' &&
    row.truncated === true &&
    promptOf(row, k).length + row.responses[k]!.length === Math.min(contextLength, maxLength)
  const other = row.responses.find((response, k) => response.at(-1) !== terminator && !cut(k))
  if (other !== undefined) {
    throw new ImplexError(
      'ERR_SELF_CHECK',
      `${rowPlace(row)}: a response ends with token ${other.at(-1)}, but the template ends a response with token ${terminator}, which is what the reward is read from`,
    )
  }
}

function digest(hash: Hash, { prompt, promptLengths = [], responses, margin }: EncodedRow): void {
  hash.update(Int32Array.of(prompt.length, ...responses.map((ids) => ids.length), ...promptLengths))
  for (const ids of [prompt, ...responses]) hash.update(ids)
  hash.update(Float64Array.of(margin ?? 0))
}

function named(error: unknown, name: string): unknown {
  if (!(error instanceof ImplexError) || error.code === 'ERR_ABORTED' || error.path === name) return error
  return new ImplexError(error.code, `${name}: ${error.message}`, {
    cause: error,
    line: error.line,
    path: error.path,
  })
}

/** How a message names a pair: by line where there is one, and by the row's own id. */
export function pairName({ index, line, id }: EncodedRow): string {
  const place = rowPlace({ index, line })
  return id === undefined ? place : `${place} (id ${JSON.stringify(id)})`
}
