/**
 * Conversations: the message type, and how a prompt and a response given as text or as messages become one conversation.
 */
import { ImplexError } from '../core/errors.js'

export interface Message {
  role: string
  content: string
}

/** A prompt as messages: plain text is one user turn. */
export function promptMessages(prompt: string | readonly Message[]): Message[] {
  return typeof prompt === 'string' ? [{ role: 'user', content: prompt }] : [...prompt]
}

/** A response as messages: plain text is one assistant turn. */
export function responseMessages(response: string | readonly Message[]): Message[] {
  return typeof response === 'string' ? [{ role: 'assistant', content: response }] : [...response]
}

/** Whether there is nothing to score: no messages, or only white space in all of them. */
export function isBlank(text: string | readonly Message[]): boolean {
  if (typeof text === 'string') return text.trim() === ''
  return text.every((message) => message.content.trim() === '')
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
  return only.content
}

/** One text for the verification prompt: the content of a single message, else every turn on its own, marked with its role. */
export function transcript(text: string | readonly Message[]): string {
  if (typeof text === 'string') return text
  const [only, ...others] = text
  if (only !== undefined && others.length === 0) return only.content
  return text.map((message) => `${message.role}: ${message.content}`).join('\n\n')
}
