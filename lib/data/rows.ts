/**
 * The row formats: what a user's row may look like, and the one form (`RowGroup`) that everything after this file works with.
 *
 * | row | meaning |
 * |---|---|
 * | `{prompt, chosen, rejected}` | a preference pair |
 * | `{prompt, responses: […]}` | one prompt with K ≥ 1 responses |
 * | `{chosen, rejected}`, both lists of messages | TRL's implicit prompt: the conversations' common beginning is the prompt |
 *
 * A prompt or response is a text or a list of `{role, content}` messages. `id` (text or number) and `margin` (number) are optional.
 */
import { ImplexError } from '../core/errors.js'
import { describe, isPlainObject } from '../core/arguments.js'
import { type Message, sameTurn, type TemplateInputs } from '../text/messages.js'

export type Text = string | Message[]

export interface PairRow {
  prompt?: Text
  chosen: Text
  rejected: Text
  id?: string | number
  margin?: number
}

export interface GroupRow {
  prompt: Text
  responses: Text[]
  id?: string | number
}

export type Row = PairRow | GroupRow

/** One prompt and its responses. */
export interface RowGroup {
  /** 0-based row number; blank lines are not counted. */
  index: number
  /** 1-based line in the file. */
  line?: number
  id?: string | number
  shape: 'pair' | 'group'
  prompt: Text
  /** For a pair: [chosen, rejected]. */
  responses: Text[]
  /** What the template is given besides messages; absent where the row has nothing of the kind. */
  inputs?: TemplateInputs
  margin?: number
}

/** A row as it comes from a source, before it is understood: text (a line of JSON), or a value, or an error of the source itself. */
export interface SourceRow {
  index: number
  line?: number
  text?: string
  value?: unknown
  error?: ImplexError
}

/**
 * Where rows come from. `chunks` hands over what arrived together, so that a slow source never holds back rows it has already
 * delivered; iterating gives the same rows one at a time. JSONL implements this; any other format can.
 */
export interface RowSource extends AsyncIterable<SourceRow> {
  /** For messages: the file's path. */
  readonly name: string
  chunks(): AsyncIterable<SourceRow[]>
  /** Identifies the content of a source that can be read again; undefined for one that cannot (a pipe). */
  fingerprint?(): Promise<string | undefined>
}

/** Checks a row and brings it into the one form. Throws ERR_ROW_INVALID naming line and field. */
export function parseRow(value: unknown, index: number, line?: number): RowGroup {
  const fail = (message: string) =>
    rowError('ERR_ROW_INVALID', message, { index, ...(line === undefined ? {} : { line }) })
  if (!isPlainObject(value)) throw fail(`a row must be a JSON object, not ${describe(value)}`)
  const { id, margin, prompt, chosen, rejected, responses } = value
  if (id !== undefined && typeof id !== 'string' && (typeof id !== 'number' || !Number.isFinite(id))) {
    throw fail(`"id" must be a string or a number, not ${describe(id)}`)
  }
  if (margin !== undefined && margin !== null && (typeof margin !== 'number' || !Number.isFinite(margin))) {
    throw fail(`"margin" must be a number, not ${describe(margin)}`)
  }
  const common = {
    index,
    ...(line === undefined ? {} : { line }),
    ...(id === undefined ? {} : { id }),
    ...(typeof margin === 'number' ? { margin } : {}),
  }

  if (responses !== undefined) {
    if (chosen !== undefined || rejected !== undefined) {
      throw fail('a row has either "chosen" and "rejected" or "responses", not both')
    }
    if (!Array.isArray(responses) || responses.length === 0) {
      throw fail(`"responses" must be a list of at least one response, not ${describe(responses)}`)
    }
    if (prompt === undefined) throw fail('"prompt" is missing')
    const texts = responses.map((response, i) => checkText(response, `responses[${i}]`, fail))
    return { ...common, shape: 'group', ...join(checkText(prompt, 'prompt', fail), texts) }
  }

  if (chosen === undefined || rejected === undefined) {
    const missing =
      chosen === undefined ? (rejected === undefined ? '"chosen" (or "responses")' : '"chosen"') : '"rejected"'
    throw fail(`${missing} is missing; a row is {prompt, chosen, rejected} or {prompt, responses}`)
  }
  const pair = [checkText(chosen, 'chosen', fail), checkText(rejected, 'rejected', fail)]
  if (prompt !== undefined) return { ...common, shape: 'pair', ...join(checkText(prompt, 'prompt', fail), pair) }
  if (typeof pair[0] === 'string' || typeof pair[1] === 'string') {
    throw fail('"prompt" is missing; only "chosen" and "rejected" given as lists of messages may leave it out')
  }
  return { ...common, shape: 'pair', ...splitConversations(pair as [Message[], Message[]], fail) }
}

/** An error about one row: the message says where the row is, the error carries the line. */
export function rowError(
  code: 'ERR_ROW_INVALID' | 'ERR_ROW_TOO_LONG' | 'ERR_RESPONSE_EMPTY' | 'ERR_TOKEN_RANGE' | 'ERR_INTERNAL',
  message: string,
  row: { index: number; line?: number },
  cause?: unknown,
): ImplexError {
  const place = row.line === undefined ? `row ${row.index}` : `line ${row.line}`
  return new ImplexError(code, `${place}: ${message}`, {
    ...(row.line === undefined ? {} : { line: row.line }),
    ...(cause === undefined ? {} : { cause }),
  })
}

type Fail = (message: string) => ImplexError

function checkText(value: unknown, field: string, fail: Fail): Text {
  if (typeof value === 'string') return checkUnicode(value, field, fail)
  if (!Array.isArray(value)) throw fail(`"${field}" must be a string or a list of messages, not ${describe(value)}`)
  if (value.length === 0) throw fail(`"${field}" must hold at least one message`)
  return value.map((message: unknown, i): Message => {
    const name = `${field}[${i}]`
    if (!isPlainObject(message)) throw fail(`"${name}" must be a message {role, content}, not ${describe(message)}`)
    const { role, content } = message
    if (typeof role !== 'string') throw fail(`"${name}.role" must be a string, not ${describe(role)}`)
    if (typeof content !== 'string') throw fail(`"${name}.content" must be a string, not ${describe(content)}`)
    return { role: checkUnicode(role, `${name}.role`, fail), content: checkUnicode(content, `${name}.content`, fail) }
  })
}

function checkUnicode(text: string, field: string, fail: Fail): string {
  if (!text.isWellFormed()) throw fail(`"${field}" holds half of a surrogate pair, which is no character`)
  return text
}

/**
 * Prompt and responses in one style. A text prompt with message responses becomes a user message. Responses that repeat the whole
 * conversation (as in ultrafeedback_binarized: a prompt and, in chosen and rejected, prompt and answer) lose the repetition.
 */
function join(prompt: Text, responses: Text[]): { prompt: Text; responses: Text[] } {
  if (responses.every((response) => typeof response === 'string')) return { prompt, responses }
  const messages = typeof prompt === 'string' ? [{ role: 'user', content: prompt }] : prompt
  const repeats = responses.every(
    (response) =>
      typeof response !== 'string' &&
      response.length > messages.length &&
      messages.every((message, i) => sameTurn(message, response[i]!)),
  )
  return {
    prompt: messages,
    responses: repeats ? responses.map((response) => response.slice(messages.length) as Message[]) : responses,
  }
}

function splitConversations(
  [chosen, rejected]: [Message[], Message[]],
  fail: Fail,
): { prompt: Message[]; responses: [Message[], Message[]] } {
  const limit = Math.min(chosen.length, rejected.length) - 1
  let shared = 0
  while (shared < limit && sameTurn(chosen[shared]!, rejected[shared]!)) shared++
  if (shared === 0) throw fail('"chosen" and "rejected" share no first message, so there is no prompt; give "prompt"')
  if (chosen[shared]!.role !== 'assistant' || rejected[shared]!.role !== 'assistant') {
    throw fail(`"chosen" and "rejected" part at message ${shared}, which is not the assistant's; give "prompt"`)
  }
  return { prompt: chosen.slice(0, shared), responses: [chosen.slice(shared), rejected.slice(shared)] }
}
