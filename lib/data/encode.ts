/**
 * A row group to token ids: what the engine computes. A response's sequence is `prompt` followed by `responses[k]`.
 *
 * explicit, implicit: the prompt's and the response's own ids. generative: each response has a whole verification prompt of its own;
 * `prompt` is what these begin with in common, `responses[k]` the rest, so that the engine computes the common part once.
 */
import { ImplexError } from '../core/errors.js'
import { isBlank } from '../text/messages.js'
import type { RowEncoder } from '../text/text-encoder.js'
import { parseRowText } from './parse-row.js'
import { idOf, type RowGroup, rowError } from './rows.js'
import type { RowShapeName } from './shapes/names.js'
import { shown } from './unread.js'

export const REWARD_KINDS = ['explicit', 'implicit', 'generative'] as const
export type RewardKind = (typeof REWARD_KINDS)[number]

/** What to do with a row beyond the model's context. `truncate-prompt` drops the prompt's oldest tokens, never the response's. */
export const ON_LONG = ['error', 'skip', 'truncate-prompt'] as const
export type OnLong = (typeof ON_LONG)[number]

export interface EncodeSettings {
  kind: RewardKind
  onLong: OnLong
  /** Most tokens that prompt and response may have together. */
  contextLength: number
  /** Token ids must be below this: the rows of the model's embedding. */
  vocabularySize: number
  /** Also give the responses' tokens as texts. Default false. */
  tokenTexts?: boolean
}

export interface EncodedRow {
  index: number
  line?: number
  id?: string | number | bigint
  /** The digits of a number, where `id` would be written otherwise: 1.0. */
  idText?: string
  shape: 'pair' | 'group'
  /** Of a pair: what r⁺ must exceed r⁻ by, in training. */
  margin?: number
  prompt: Int32Array
  responses: Int32Array[]
  /** With `tokenTexts`: the text of each token of each response. */
  texts?: string[][]
  /** Tokens were dropped from the prompt (`onLong: 'truncate-prompt'`). */
  truncated?: boolean
  /** What of the row nobody reads: see `shown`. */
  unread?: readonly string[]
  /** The row cannot be scored; prompt and responses are empty. */
  error?: ImplexError
}

/** A row on its way to an encoder: a line still to be parsed, or a group, or an error that takes the row's place in the output. */
export interface PreparedRow {
  index: number
  line?: number
  text?: string
  shape?: RowShapeName
  group?: RowGroup
  error?: ImplexError
}

/** Parses, checks and tokenizes one row. Never throws for a bad row: the result carries `error`. */
export function encodeRow(encoder: RowEncoder, row: PreparedRow, settings: EncodeSettings): EncodedRow {
  const place = { index: row.index, ...(row.line === undefined ? {} : { line: row.line }) }
  let id: Pick<RowGroup, 'id' | 'idText'> = {}
  try {
    if (row.error !== undefined) throw row.error
    const group = row.group ?? parseRowText(row.text ?? '', row.index, row.line, row.shape)
    id = idOf(group)
    return encodeGroup(encoder, group, settings)
  } catch (error) {
    return {
      ...place,
      ...id,
      shape: 'group',
      prompt: new Int32Array(0),
      responses: [],
      error: asRowError(error, place),
    }
  }
}

function encodeGroup(encoder: RowEncoder, whole: RowGroup, settings: EncodeSettings): EncodedRow {
  const group = shown(whole, { templateSource: encoder.templateSource, kind: settings.kind })
  group.responses.forEach((response, k) => {
    if (isBlank(response)) throw rowError('ERR_RESPONSE_EMPTY', `${responseName(group, k)} is empty`, group)
  })
  const sequences =
    settings.kind === 'generative' ? verificationSequences(encoder, group) : responseSequences(encoder, group)
  const longest = longestOf(sequences.responses)
  const excess = sequences.prompt.length + longest - settings.contextLength
  const truncated = excess > 0
  if (truncated) {
    sequences.prompt = shorten(encoder, group, sequences, excess, settings)
  }
  for (const ids of [sequences.prompt, ...sequences.responses]) checkIds(ids, group, settings.vocabularySize)
  return {
    index: group.index,
    ...(group.line === undefined ? {} : { line: group.line }),
    ...idOf(group),
    shape: group.shape,
    ...(group.margin === undefined ? {} : { margin: group.margin }),
    ...sequences,
    ...(truncated ? { truncated } : {}),
    ...(group.unread === undefined ? {} : { unread: group.unread }),
    ...(settings.tokenTexts ? { texts: sequences.responses.map((ids) => encoder.tokenTexts(ids)) } : {}),
  }
}

interface Sequences {
  prompt: Int32Array
  responses: Int32Array[]
}

function responseSequences(encoder: RowEncoder, group: RowGroup): Sequences {
  const prompt = encoder.encodePrompt(group.prompt, group.inputs)
  if (prompt.length === 0) {
    throw rowError('ERR_ROW_INVALID', 'the prompt is empty, so nothing predicts the first token of a response', group)
  }
  const responses = group.responses.map((response, k) => {
    const ids = encoder.encodeResponse(group.prompt, response, group.inputs)
    if (ids.length === 0) throw rowError('ERR_RESPONSE_EMPTY', `${responseName(group, k)} has no tokens`, group)
    return ids
  })
  return { prompt, responses }
}

function verificationSequences(encoder: RowEncoder, group: RowGroup): Sequences {
  const whole = group.responses.map((response) => encoder.encodeVerification(group.prompt, response))
  const shared = commonPrefix(whole)
  return { prompt: whole[0]!.subarray(0, shared), responses: whole.map((ids) => ids.subarray(shared)) }
}

/** Length of the longest common beginning that leaves each sequence at least one token. */
function commonPrefix(sequences: Int32Array[]): number {
  const limit = sequences.reduce((least, ids) => Math.min(least, ids.length), Number.POSITIVE_INFINITY) - 1
  const [first] = sequences as [Int32Array]
  for (let i = 0; i < limit; i++) {
    for (const ids of sequences) if (ids[i] !== first[i]) return i
  }
  return Math.max(0, limit)
}

/** The prompt without its oldest `excess` tokens; all responses of a group keep the same prompt. Throws ERR_ROW_TOO_LONG. */
function shorten(
  encoder: RowEncoder,
  group: RowGroup,
  { prompt, responses }: Sequences,
  excess: number,
  { kind, onLong, contextLength }: EncodeSettings,
): Int32Array {
  const tokens = prompt.length + longestOf(responses)
  const tooLong = `${tokens} tokens, but the model's context has ${contextLength}`
  if (onLong !== 'truncate-prompt') {
    const advice = 'onLong (--on-long) "skip" leaves such rows out, "truncate-prompt" shortens them'
    throw rowError('ERR_ROW_TOO_LONG', `${tooLong}; ${advice}`, group)
  }
  // In a verification prompt the answer follows the question, and what the group has in common may reach into the answers. Two
  // other answers show where they begin. Elsewhere one token must stay, to predict the response's first.
  const droppable =
    kind === 'generative'
      ? commonPrefix([
          concat(prompt, responses[0]!),
          ...['0', 'x'].map((answer) => encoder.encodeVerification(group.prompt, answer)),
        ])
      : prompt.length - 1
  if (excess > Math.min(droppable, prompt.length)) {
    throw rowError('ERR_ROW_TOO_LONG', `${tooLong}, and the response alone does not fit`, group)
  }
  return prompt.slice(excess)
}

function longestOf(sequences: Int32Array[]): number {
  return sequences.reduce((most, ids) => Math.max(most, ids.length), 0)
}

function concat(a: Int32Array, b: Int32Array): Int32Array {
  const all = new Int32Array(a.length + b.length)
  all.set(a)
  all.set(b, a.length)
  return all
}

function checkIds(ids: Int32Array, group: RowGroup, vocabularySize: number): void {
  for (const id of ids) {
    if (id < 0 || id >= vocabularySize) {
      throw rowError(
        'ERR_TOKEN_RANGE',
        `token id ${id} is outside the model's vocabulary of ${vocabularySize}; tokenizer.json and the weights do not belong together`,
        group,
      )
    }
  }
}

function responseName(group: RowGroup, k: number): string {
  if (group.shape === 'pair') return k === 0 ? '"chosen"' : '"rejected"'
  return `"responses[${k}]"`
}

/** Errors of the template or the tokenizer do not know the row; this adds where it is. */
function asRowError(error: unknown, place: { index: number; line?: number }): ImplexError {
  if (error instanceof ImplexError) {
    if (error.line !== undefined || place.line === undefined) return error
    return new ImplexError(error.code, `line ${place.line}: ${error.message}`, { cause: error, line: place.line })
  }
  return rowError('ERR_ROW_INVALID', error instanceof Error ? error.message : String(error), place, error)
}
