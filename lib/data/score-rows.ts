/**
 * The way of rows through the scoring: encoded rows in, batches to the engine, scored rows out in input order. Two batches are under
 * way at a time, so that the engine has the next one when it finishes the first; nothing else is read ahead than fills two more.
 */
import { onAbort } from '../core/abort.js'
import { ImplexError } from '../core/errors.js'
import { BatchBuilder, type BatchItem } from './pack.js'
import { checkBeginning, type SequenceEnds } from './beginning.js'
import { type EncodedRow, promptOf } from './encode.js'
import { Wakeup } from './encode-pool.js'
import type { Slot } from './reference.js'
import type { BatchScorer, Scored } from './rewards.js'
import { idOf, rowError } from './rows.js'

const BATCHES_IN_FLIGHT = 2
const BATCHES_WAITING = 2
/** Most rows that wait for their turn behind one without rewards yet: bad rows fill no batch, so batches alone would not bound them. */
const ROWS_WAITING = 4096
/** An idle engine waits so long for more rows before it takes a batch that is not full; it matters to slow sources only. */
const PATIENCE_MS = 20
const SELF_CHECK_TOKENS = 256

/** What a bad row does to the stream: ends it with its error after the rows before it, or comes out with `error`. */
export const ON_ERROR = ['stop', 'skip'] as const
export type OnError = (typeof ON_ERROR)[number]

/** One row's rewards, or why it has none. Numbers per response are in the order of the row's responses. */
export interface ScoredRow {
  index: number
  line?: number
  id?: string | number | bigint
  /** The digits of a number, where `id` would be written otherwise: 1.0. */
  idText?: string
  /** 'pair': responses are [chosen, rejected]. */
  shape: 'pair' | 'group'
  /** One for each response; none for a row with `error`. */
  rewards: number[]
  /** Tokens of the prompt, as far as some response follows it. */
  promptTokens: number
  /** Tokens of each response, up to where the head is read. */
  tokens: number[]
  /** implicit: ln π and ln π_ref of each response. */
  logprobs?: number[]
  referenceLogprobs?: number[]
  /** With `tokenLogprobs`: the terms of `logprobs`. */
  tokenLogprobs?: Float32Array[]
  /** With `tokenLogprobs` and a reference: the terms of `referenceLogprobs`. */
  referenceTokenLogprobs?: Float32Array[]
  /** With `tokenRewards`: the head's value at each token of each response. */
  tokenRewards?: Float32Array[]
  /** With `labelRewards`: the value of each label of the head, of each response. */
  labelRewards?: number[][]
  /** With the model's `steps`: the reward at the end of each step, of each response. */
  stepRewards?: number[][]
  /**
   * With `responseTokens`: each response's tokens. Its `texts` joined are the response as the model reads it; a character spread over
   * several tokens is in the text of the last one, and bytes that are no UTF-8 show as U+FFFD.
   */
  responseTokens?: { ids: Int32Array; texts: string[] }[]
  /** The prompt lost its oldest tokens (`onLong: 'truncate-prompt'`). */
  truncated?: boolean
  /** The other rule for the border of prompt and response gives other ids. */
  borderDiffers?: boolean
  /** The prompt's text does not begin the conversation's; what the two begin with in common counts as the prompt. */
  promptParted?: boolean
  /** The row is beyond the context and `onLong` is 'skip'; `error` says how long it is. */
  skipped?: boolean
  /** Why the row has no rewards; only under `onError: 'skip'` or `onLong: 'skip'`. */
  error?: ImplexError
}

/** The tokens are those that the first row is checked for. */
export interface ScoreRowsOptions extends SequenceEnds {
  batchTokens: number
  onError: OnError
  /** Rows beyond the context come out with `skipped` whatever `onError` says. */
  skipLong: boolean
  /** Ordinal of the first response, where rows before were scored in an earlier run. */
  firstOrdinal?: number
  /** Score the first response again in a batch of its own and compare the bits, if the row is short. */
  selfCheck?: boolean
  /** Ends the stream with ERR_ABORTED. */
  signal?: AbortSignal
  /** Ends the stream early but in good order: no new batch is begun, those under way are finished and their rows come out. */
  drain?: AbortSignal
}

interface OpenSlot extends Slot {
  scored: Scored[]
  /** Responses without a reward yet. */
  open: number
}

export async function* scoreRows(
  encoded: AsyncGenerator<EncodedRow[]>,
  score: BatchScorer,
  options: ScoreRowsOptions,
): AsyncGenerator<ScoredRow> {
  const { signal, drain } = options
  const changed = new Wakeup()
  const batches = new BatchBuilder<OpenSlot>(options.batchTokens)
  const order: OpenSlot[] = []
  let ordinal = options.firstOrdinal ?? 0
  let inFlight = 0
  let reading = false
  let ended = false
  let checked = options.selfCheck !== true
  let sawRow = false
  let patience: NodeJS.Timeout | undefined
  let failure: { error: unknown } | undefined
  /** Rows read before it are still scored and handed out; it comes in their wake. */
  let sourceError: { error: unknown } | undefined
  const fail = (error: unknown) => {
    failure ??= { error }
  }

  const accept = (row: EncodedRow) => {
    if (ended) return
    if (row.error === undefined && !sawRow) {
      sawRow = true
      checkBeginning(row, options)
    }
    const slot: OpenSlot = { row, ordinal, scored: [], open: row.responses.length }
    ordinal += slot.open
    order.push(slot)
    if (slot.open > 0) batches.add(slot)
    if (row.error !== undefined && stops(row, options)) ended = true
  }
  const read = async () => {
    reading = true
    try {
      const next = await encoded.next()
      if (next.done) ended = true
      else next.value.forEach(accept)
    } catch (error) {
      sourceError = { error }
      ended = true
    }
    reading = false
    changed.signal()
  }
  const submit = async (items: BatchItem<OpenSlot>[]) => {
    inFlight++
    try {
      const scored = await score(items)
      if (!checked) {
        checked = true
        await selfCheck(items, scored, score)
      }
      for (const [i, { slot, k }] of items.entries()) {
        slot.scored[k] = scored[i]!
        slot.open--
      }
    } catch (error) {
      fail(error)
    }
    inFlight--
    changed.signal()
  }
  const advance = () => {
    if (failure !== undefined || drain?.aborted) return
    // Rows that wait for a batch that is not full must not keep it from filling.
    const room = order.length < ROWS_WAITING || (inFlight === 0 && batches.full === 0)
    if (!ended && !reading && batches.full < BATCHES_WAITING && room) void read()
    if (inFlight === 0 && batches.full === 0 && !batches.empty) {
      if (ended) batches.flush()
      else {
        patience ??= setTimeout(() => {
          patience = undefined
          if (inFlight === 0 && batches.full === 0) batches.flush()
          changed.signal()
        }, PATIENCE_MS)
      }
    }
    while (inFlight < BATCHES_IN_FLIGHT) {
      // The last rows fill no batch; they need not wait for the batch before them.
      if (batches.full === 0 && ended) batches.flush()
      const items = batches.take()
      if (items === undefined) break
      void submit(items)
    }
  }
  const wake = () => changed.signal()
  const abort = () => {
    fail(new ImplexError('ERR_ABORTED', 'the scoring was aborted', { cause: signal?.reason }))
    changed.signal()
  }
  const offs = [onAbort(signal, abort), onAbort(drain, wake)]

  try {
    for (;;) {
      advance()
      while (order[0]?.open === 0 && !signal?.aborted) {
        const slot = order.shift()!
        const row = result(slot, options)
        if (row.error !== undefined && stops(row, options)) throw row.error
        yield row
        advance()
      }
      if (failure !== undefined && (inFlight === 0 || signal?.aborted)) throw failure.error
      if (inFlight === 0 && drain?.aborted) return
      if (ended && order.length === 0) {
        if (sourceError !== undefined) throw sourceError.error
        return
      }
      if (failure === undefined || inFlight > 0) await changed.wait()
    }
  } finally {
    clearTimeout(patience)
    ended = true
    for (const off of offs) off()
    void encoded.return(undefined).catch(() => {})
  }
}

function result({ row, scored }: OpenSlot, options: ScoreRowsOptions): ScoredRow {
  const place = {
    index: row.index,
    ...(row.line === undefined ? {} : { line: row.line }),
    ...idOf(row),
  }
  const finite = ({ reward, stepRewards = [], labelRewards = [] }: Scored) =>
    [reward, ...stepRewards, ...labelRewards].every(Number.isFinite)
  const bad = !scored.every(finite)
  const error = bad ? notFinite(row) : row.error
  if (error !== undefined) {
    const skipped = options.skipLong && error.code === 'ERR_ROW_TOO_LONG'
    return {
      ...place,
      shape: row.shape,
      rewards: [],
      promptTokens: 0,
      tokens: [],
      error,
      ...(skipped ? { skipped } : {}),
    }
  }
  const [first] = scored as [Scored]
  return {
    ...place,
    shape: row.shape,
    rewards: scored.map(({ reward }) => reward),
    promptTokens: row.prompt.length,
    tokens: row.responses.map((response) => response.length),
    ...(row.truncated ? { truncated: true } : {}),
    ...(row.borderDiffers ? { borderDiffers: true } : {}),
    ...(row.promptParted ? { promptParted: true } : {}),
    ...(first.logprob === undefined ? {} : { logprobs: scored.map(({ logprob }) => logprob!) }),
    ...(first.referenceLogprob === undefined ? {} : { referenceLogprobs: scored.map((s) => s.referenceLogprob!) }),
    ...(first.tokenLogprobs === undefined ? {} : { tokenLogprobs: scored.map((s) => s.tokenLogprobs!) }),
    ...(first.referenceTokenLogprobs === undefined
      ? {}
      : { referenceTokenLogprobs: scored.map((s) => s.referenceTokenLogprobs!) }),
    ...(first.tokenRewards === undefined ? {} : { tokenRewards: scored.map((s) => s.tokenRewards!) }),
    ...(first.labelRewards === undefined ? {} : { labelRewards: scored.map((s) => s.labelRewards!) }),
    ...(first.stepRewards === undefined ? {} : { stepRewards: scored.map((s) => s.stepRewards!) }),
    ...(row.texts === undefined
      ? {}
      : { responseTokens: row.texts.map((texts, k) => ({ ids: row.responses[k]!, texts })) }),
  }
}

function stops(row: { error?: ImplexError }, { onError, skipLong }: ScoreRowsOptions): boolean {
  return onError === 'stop' && !(skipLong && row.error?.code === 'ERR_ROW_TOO_LONG')
}

function notFinite(row: EncodedRow): ImplexError {
  return rowError('ERR_INTERNAL', 'the reward of this row is not finite; with dtype bf16, try f32', row)
}

async function selfCheck(items: BatchItem<OpenSlot>[], scored: Scored[], score: BatchScorer): Promise<void> {
  const [first] = items as [BatchItem<OpenSlot>]
  const { row } = first.slot
  const tokens = promptOf(row, first.k).length + row.responses[first.k]!.length
  if (items.length === 1 || tokens > SELF_CHECK_TOKENS) return
  const again = { ...first, slot: { ...first.slot, again: true } }
  const [alone] = (await score([again])) as [Scored]
  if (Object.is(alone.reward, scored[0]!.reward)) return
  throw new ImplexError(
    'ERR_SELF_CHECK',
    `row ${row.index} has reward ${scored[0]!.reward} in a batch and ${alone.reward} alone; ` +
      'rewards must not depend on the batch, so this is a bug in the engine; please report it with the output of implex doctor',
  )
}
