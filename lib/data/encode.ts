/**
 * A row group to token ids: what the engine computes. A response's sequence is its part of `prompt` followed by `responses[k]`.
 *
 * explicit, implicit: the ids of the whole conversation, parted where the prompt ends (text/conversation.ts); the engine computes once what
 * the responses of a row have of the prompt. generative: each response has a whole verification prompt of its own; `prompt` is what these
 * begin with in common, `responses[k]` the rest.
 */
import { ImplexError } from '../core/errors.js'
import type { Border } from '../checkpoint/trained-with.js'
import type { Conversation } from '../text/conversation.js'
import { isBlank } from '../text/messages.js'
import type { RowEncoder } from '../text/text-encoder.js'
import { parseRowText } from './parse-row.js'
import { idOf, type RowGroup, rowError } from './rows.js'
import type { RowShapeName } from './shapes/names.js'
import { describeEnds, findStepEnds, type StepEnds, withStepTexts } from './steps.js'
import { shown } from './unread.js'

export const REWARD_KINDS = ['explicit', 'implicit', 'generative'] as const
export type RewardKind = (typeof REWARD_KINDS)[number]

/** What to do with a row beyond the model's context. `truncate-prompt` drops the prompt's oldest tokens, never the response's. */
export const ON_LONG = ['error', 'skip', 'truncate-prompt'] as const
export type OnLong = (typeof ON_LONG)[number]

/** In training also `truncate-end`: sequences end early, and rows whose prompt alone is that long are left out. */
export const TRAIN_ON_LONG = [...ON_LONG, 'truncate-end'] as const
export type TrainOnLong = (typeof TRAIN_ON_LONG)[number]

/** Whether rows beyond the limit may be left out, which is no error of theirs. */
export function leavesOut(onLong: TrainOnLong): boolean {
  return onLong === 'skip' || onLong === 'truncate-end'
}

export interface EncodeSettings {
  kind: RewardKind
  /** How prompt and response are parted; the generative kind has no border. */
  border: Border
  /** explicit: the head is read at the last token that is not this one. Absent: at the last token. */
  padTokenId?: number
  /** explicit: the head is read at the last of these tokens, or at one that is put at the end. */
  readAt?: { tokenId: number; append: boolean }
  /** Also find where the responses' steps end; a response without any is an error. */
  steps?: StepEnds
  /** Also find where the prompt's last turn ends, for a head with a gate. */
  gated?: boolean
  onLong: TrainOnLong
  /** Most tokens of prompt and response that the model can take. */
  contextLength: number
  /** A lower limit in training, which counts the tokens after the head's place too. Absent: none. */
  maxLength?: number
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
  /** As far as some response follows it. */
  prompt: Int32Array
  /** How many of the prompt's first tokens each response follows, where that is not all of them for each. */
  promptLengths?: number[]
  /** A response's scored tokens: those after the prompt, up to where the head is read. */
  responses: Int32Array[]
  /** The other rule for the border gives other ids. */
  borderDiffers?: boolean
  /** A conversation's text does not begin with the prompt's: the prompt is what they begin with in common. */
  promptParted?: boolean
  /** With `tokenTexts`: the text of each token of each response. */
  texts?: string[][]
  /** With `steps`: indices of each response's tokens at which a step ends, ascending. */
  stepEnds?: number[][]
  /** With `gated`: the index, in the sequence of prompt and response, of the token that ends the prompt's last turn. */
  gateAt?: number[]
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

/** The prompt that response k of a row follows. */
export function promptOf(
  { prompt, promptLengths }: Pick<EncodedRow, 'prompt' | 'promptLengths'>,
  k: number,
): Int32Array {
  return promptLengths === undefined ? prompt : prompt.subarray(0, promptLengths[k])
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

function encodeGroup(encoder: RowEncoder, given: RowGroup, settings: EncodeSettings): EncodedRow {
  const whole = settings.steps === undefined ? given : withStepTexts(given, encoder, settings.steps)
  const group = shown(whole, { templateSource: encoder.templateSource, kind: settings.kind })
  group.responses.forEach((response, k) => {
    if (isBlank(response)) throw rowError('ERR_RESPONSE_EMPTY', `${responseName(group, k)} is empty`, group)
  })
  const sequences =
    settings.kind === 'generative' ? verificationSequences(encoder, group) : responseSequences(encoder, group, settings)
  const truncated = fit(encoder, group, sequences, settings)
  const { wholeLength: _, ...rest } = sequences
  for (const ids of [rest.prompt, ...rest.responses]) checkIds(ids, group, settings.vocabularySize)
  return {
    index: group.index,
    ...(group.line === undefined ? {} : { line: group.line }),
    ...idOf(group),
    shape: group.shape,
    ...(group.margin === undefined ? {} : { margin: group.margin }),
    ...rest,
    ...(truncated ? { truncated } : {}),
    ...(group.unread === undefined ? {} : { unread: group.unread }),
    ...(settings.tokenTexts ? { texts: rest.responses.map((ids) => encoder.tokenTexts(ids)) } : {}),
    ...(settings.steps === undefined ? {} : { stepEnds: stepEndsOf(encoder, group, rest.responses, settings.steps) }),
    ...(settings.gated ? { gateAt: gatesOf(encoder, group, sequences) } : {}),
  }
}

function stepEndsOf(
  encoder: RowEncoder,
  group: RowGroup,
  responses: readonly Int32Array[],
  ends: StepEnds,
): number[][] {
  return responses.map((ids, k) => {
    const found = findStepEnds(encoder, ids, group.responses[k]!, ends)
    if (found.length === 0) {
      throw rowError('ERR_ROW_INVALID', `${responseName(group, k)} has no step: ${describeEnds(ends)}`, group)
    }
    if (group.steps !== undefined && group.steps.length !== found.length) {
      const advice =
        'pattern' in ends
          ? '; where the template strips white space from the end, a pattern such as /\\n|$/ finds it'
          : ''
      const counts = `"completions" has ${group.steps.length} steps, but ${found.length} ends of steps are in their text${advice}`
      throw rowError('ERR_ROW_INVALID', counts, group)
    }
    return found
  })
}

/** The last place in the sequence where the end of a turn and the opening of the answer follow each other. */
function gatesOf(encoder: RowEncoder, group: RowGroup, sequences: Sequences): number[] {
  const opening = encoder.opening(group.prompt, group.inputs)
  return sequences.responses.map((response, k) => {
    const ids = concat(promptOf(sequences, k), response)
    const at = opening === undefined ? -1 : lastIndexOf(ids, opening, promptOf(sequences, k).length)
    if (at >= 0) return at
    const why =
      'the head has a gate, which is read at the token that ends the turn before the answer, and the prompt has no such token'
    throw rowError(
      'ERR_ROW_INVALID',
      `${responseName(group, k)}: ${why}; give the chat template that the model was trained with`,
      group,
    )
  })
}

/** Where `part` is last found in `ids`; a single token must be in the prompt, for a response ends in one too. */
function lastIndexOf(ids: Int32Array, part: Int32Array, promptLength: number): number {
  for (let at = (part.length === 1 ? promptLength : ids.length) - part.length; at >= 0; at--) {
    if (part.every((id, i) => ids[at + i] === id)) return at
  }
  return -1
}

interface Sequences
  extends Pick<EncodedRow, 'prompt' | 'promptLengths' | 'responses' | 'borderDiffers' | 'promptParted'> {
  /** Tokens of the longest conversation, those after the head's place too. */
  wholeLength?: number
}

function responseSequences(
  encoder: RowEncoder,
  group: RowGroup,
  { kind, border, padTokenId, readAt }: EncodeSettings,
): Sequences {
  const prompt = encoder.encodePrompt(group.prompt, group.inputs)
  if (prompt.length === 0) {
    throw rowError('ERR_ROW_INVALID', 'the prompt is empty, so nothing predicts the first token of a response', group)
  }
  const conversations = group.responses.map((response, k) => {
    const one = encoder.encodeConversation(group.prompt, response, border, group.inputs)
    if (one.border === one.ids.length)
      throw rowError('ERR_RESPONSE_EMPTY', `${responseName(group, k)} has no tokens`, group)
    if (one.border === 0 && kind === 'implicit') {
      throw new ImplexError(
        'ERR_TEMPLATE_INVALID',
        `${responseName(group, k)}: the chat template renders the conversation unlike its prompt from the first token on, so nothing ` +
          'predicts that token; give another template',
      )
    }
    return readAt?.append ? { ...one, ids: endingWith(one.ids, readAt.tokenId) } : one
  })
  const responses = conversations.map(({ ids, border: start }, k) => {
    if (readAt !== undefined) {
      const end = ids.lastIndexOf(readAt.tokenId) + 1
      if (end > start) return ids.subarray(start, end)
      const what = `${responseName(group, k)} has no token ${readAt.tokenId}, at which the head is read`
      throw rowError('ERR_ROW_INVALID', what, group)
    }
    const end = kind === 'explicit' && padTokenId !== undefined ? endBeforePad(ids, padTokenId) : ids.length
    if (end > start) return ids.subarray(start, end)
    const message = `${responseName(group, k)} has padding tokens (id ${padTokenId}) only, where no head is read`
    throw rowError('ERR_RESPONSE_EMPTY', message, group)
  })
  return {
    ...sharedPrompt(prompt, conversations),
    responses,
    wholeLength: Math.max(...conversations.map(({ ids }) => ids.length)),
    ...(conversations.some(({ differs }) => differs) ? { borderDiffers: true } : {}),
    ...(conversations.some(({ parted }) => parted) ? { promptParted: true } : {}),
  }
}

/** Each conversation begins with the prompt's ids up to a border of its own; where these are not one, the longest part is kept. */
function sharedPrompt(
  prompt: Int32Array,
  conversations: readonly Conversation[],
): Pick<Sequences, 'prompt' | 'promptLengths'> {
  const borders = conversations.map(({ border }) => border)
  const longest = Math.max(...borders)
  return {
    prompt: prompt.subarray(0, longest),
    ...(borders.some((border) => border !== longest) ? { promptLengths: borders } : {}),
  }
}

function endingWith(ids: Int32Array, token: number): Int32Array {
  return ids.at(-1) === token ? ids : concat(ids, Int32Array.of(token))
}

/** Where transformers reads the head of a sequence: after its last token that is not padding, whatever the padding is. */
function endBeforePad(ids: Int32Array, padTokenId: number): number {
  let end = ids.length
  while (end > 0 && ids[end - 1] === padTokenId) end--
  return end
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

/** Brings a row within the limits, as `onLong` says. @returns whether it lost tokens @throws ImplexError ERR_ROW_TOO_LONG */
function fit(encoder: RowEncoder, group: RowGroup, sequences: Sequences, settings: EncodeSettings): boolean {
  const { contextLength, maxLength = Number.POSITIVE_INFINITY, onLong } = settings
  const length = longestOf(sequences)
  const { wholeLength = length } = sequences
  const excess = Math.max(length - contextLength, wholeLength - maxLength)
  if (excess <= 0) return false
  const tooLong =
    wholeLength - maxLength === excess
      ? `${wholeLength} tokens, but maxLength (--max-length) allows ${maxLength}`
      : `${length} tokens, but the model's context has ${contextLength}`
  switch (onLong) {
    case 'truncate-prompt':
      shorten(encoder, group, sequences, excess, settings.kind, tooLong)
      return true
    case 'truncate-end':
      cutEnds(group, sequences, Math.min(contextLength, maxLength), tooLong)
      return true
    default: {
      const advice = 'onLong (--on-long) "skip" leaves such rows out, "truncate-prompt" shortens them'
      throw rowError('ERR_ROW_TOO_LONG', `${tooLong}; ${advice}`, group)
    }
  }
}

/** Drops the prompt's oldest `excess` tokens; all responses of a group keep the same ones. Throws ERR_ROW_TOO_LONG. */
function shorten(
  encoder: RowEncoder,
  group: RowGroup,
  sequences: Sequences,
  excess: number,
  kind: RewardKind,
  tooLong: string,
): void {
  const { prompt, promptLengths, responses } = sequences
  // In a verification prompt the answer follows the question, and what the group has in common may reach into the answers. Two
  // other answers show where they begin. Elsewhere one token must stay, to predict the response's first.
  const droppable =
    kind === 'generative'
      ? commonPrefix([
          concat(prompt, responses[0]!),
          ...['0', 'x'].map((answer) => encoder.encodeVerification(group.prompt, answer)),
        ])
      : Math.min(...(promptLengths ?? [prompt.length])) - 1
  if (excess > Math.min(droppable, prompt.length)) {
    throw rowError('ERR_ROW_TOO_LONG', `${tooLong}, and the response alone does not fit`, group)
  }
  sequences.prompt = prompt.slice(excess)
  if (promptLengths !== undefined) sequences.promptLengths = promptLengths.map((length) => length - excess)
}

/** Ends each sequence after `limit` tokens. Throws ERR_ROW_TOO_LONG where that leaves nothing of a response. */
function cutEnds(group: RowGroup, sequences: Sequences, limit: number, tooLong: string): void {
  sequences.responses = sequences.responses.map((ids, k) => {
    const room = limit - promptOf(sequences, k).length
    if (room > 0) return ids.subarray(0, room)
    throw rowError('ERR_ROW_TOO_LONG', `${tooLong}, and the prompt alone has as many`, group)
  })
}

/** Tokens of the longest sequence. */
function longestOf(sequences: Sequences): number {
  return sequences.responses.reduce((most, ids, k) => Math.max(most, promptOf(sequences, k).length + ids.length), 0)
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
