/**
 * Conversations: the message type, what a row gives the chat template besides its messages, and how a prompt and a response given as text
 * or as messages become one conversation.
 */
import { ImplexError } from '../core/errors.js'
import { Float } from '../core/parse-json.js'

/** A part of a message whose content is a list. Only parts of text can be read. */
export interface TextPart {
  readonly type: 'text'
  readonly text: string
  readonly [key: string]: unknown
}

/**
 * A turn of a conversation. Whatever it holds reaches the chat template: `tool_calls`, `tool_call_id`, `name`, `reasoning_content`,
 * `thinking` and any other key. Absent content and null differ to a template, as they do in Python: null prints as "None".
 */
export interface Message {
  role: string
  content?: string | readonly TextPart[] | null
  [key: string]: unknown
}

/** What a row gives the chat template besides its messages. A key that is absent is not given. */
export interface TemplateInputs {
  /** JSON schemas of functions: the template's variable `tools`. */
  readonly tools?: readonly unknown[]
  /** The template's variable `documents`. */
  readonly documents?: readonly unknown[]
  /** Further variables of the template, by name. They override those of the same name. */
  readonly variables?: Readonly<Record<string, unknown>>
}

/** A prompt as messages: plain text is one user turn. */
export function promptMessages(prompt: string | readonly Message[]): Message[] {
  return typeof prompt === 'string' ? [{ role: 'user', content: prompt }] : [...prompt]
}

/** A response as messages: plain text is one assistant turn. */
export function responseMessages(response: string | readonly Message[]): Message[] {
  return typeof response === 'string' ? [{ role: 'assistant', content: response }] : [...response]
}

/** The text of a message: its content, or the texts of its parts one after another. Empty where there is none. */
export function contentText({ content }: Message): string {
  if (typeof content === 'string') return content
  return content?.map((part) => part.text).join('') ?? ''
}

/** True when there is nothing to score: only white space, and no tool call or reasoning either. */
export function isBlank(text: string | readonly Message[]): boolean {
  if (typeof text === 'string') return text.trim() === ''
  return text.every((message) => contentText(message).trim() === '' && !says(message))
}

/** Keys of a message that are part of what it says; other keys say who speaks or what is answered. */
const SAYING = ['tool_calls', 'function_call', 'reasoning_content', 'reasoning', 'thinking']

/** Whether a turn says something besides its content. */
export function says(message: Message): boolean {
  return SAYING.some((key) => {
    const value = message[key]
    if (typeof value === 'string') return value.trim() !== ''
    return Array.isArray(value) ? value.length > 0 : typeof value === 'object' && value !== null
  })
}

/** The keys of a message that its content's text leaves out, in order. */
export function otherKeys({ role, content, ...rest }: Message): string[] {
  return Object.keys(rest)
}

/**
 * The text of a prompt or response without a template. A conversation of several messages has no such text: its turns would run together
 * unmarked, so it is an error (ERR_TEMPLATE_INVALID).
 */
export function plainText(text: string | readonly Message[]): string {
  if (typeof text === 'string') return text
  const [only, ...others] = text
  if (only === undefined) return ''
  if (others.length > 0) {
    throw new ImplexError(
      'ERR_TEMPLATE_INVALID',
      `a conversation of ${text.length} messages needs a chat template; without one (template "none") give plain text or one message`,
    )
  }
  return contentText(only)
}

/** One text for the verification prompt: the content of a single message, else every turn on its own, marked with its role. */
export function transcript(text: string | readonly Message[]): string {
  if (typeof text === 'string') return text
  const [only, ...others] = text
  if (only !== undefined && others.length === 0) return contentText(only)
  return text.map((message) => `${message.role}: ${contentText(message)}`).join('\n\n')
}

/** Whether two lists of turns are equal in every key and value, and so render alike. */
export function sameTurns(a: readonly Message[], b: readonly Message[]): boolean {
  return a.length === b.length && a.every((message, i) => sameTurn(message, b[i]!))
}

/** Whether two turns are equal in every key and value. The order of a turn's own keys does not count, that of keys inside does. */
export function sameTurn(a: Message, b: Message): boolean {
  if (a === b) return true
  if (a.role !== b.role || !sameJson(a.content, b.content)) return false
  const keys = Object.keys(a)
  return keys.length === Object.keys(b).length && keys.every((key) => Object.hasOwn(b, key) && sameJson(a[key], b[key]))
}

/** Whether two rows give a template the same besides their messages. */
export function sameInputs(a: TemplateInputs | undefined, b: TemplateInputs | undefined): boolean {
  return a === b || sameJson(a ?? {}, b ?? {})
}

/** Whether two values of JSON would be written alike: 2 and 2.0 differ, and so does another order of keys. */
function sameJson(a: unknown, b: unknown): boolean {
  if (Object.is(a, b)) return true
  if (typeof a !== 'object' || typeof b !== 'object' || a === null || b === null) return false
  if (a instanceof Float || b instanceof Float) {
    return a instanceof Float && b instanceof Float && Object.is(a.value, b.value)
  }
  if (Array.isArray(a) || Array.isArray(b)) {
    return Array.isArray(a) && Array.isArray(b) && a.length === b.length && a.every((value, i) => sameJson(value, b[i]))
  }
  const others = entriesOf(b)
  const own = entriesOf(a)
  return (
    own.length === others.length &&
    own.every(([key, value], i) => key === others[i]![0] && sameJson(value, others[i]![1]))
  )
}

function entriesOf(value: object): [unknown, unknown][] {
  return value instanceof Map ? [...value] : Object.entries(value)
}

/** A copy that later changes to the original do not reach. */
export function copyJson<T>(value: T): T {
  if (typeof value !== 'object' || value === null || value instanceof Float) return value
  if (Array.isArray(value)) return value.map(copyJson) as T
  const copies = entriesOf(value).map(([key, one]) => [key, copyJson(one)] as const)
  return (value instanceof Map ? new Map(copies) : Object.fromEntries(copies as [string, unknown][])) as T
}
