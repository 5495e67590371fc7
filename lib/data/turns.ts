/**
 * Prompt and responses as turns: where a conversation parts from its prompt, and what becomes of rows that say one of them twice.
 */
import { contentText, type Message, sameTurn } from '../text/messages.js'
import type { RowFields } from './row-fields.js'
import type { Text } from './rows.js'

export interface Conversation {
  prompt: Text
  responses: Text[]
}

/**
 * Prompt and responses in one style. A text prompt with responses as messages becomes a user's turn. Responses that are whole
 * conversations decide what the prompt is: the row's own prompt is dropped where it is the last of what they have in common.
 */
export function join(prompt: Text, responses: Text[], fields: RowFields): Conversation {
  if (responses.every((response) => typeof response === 'string')) return { prompt, responses }
  const messages = typeof prompt === 'string' ? [{ role: 'user', content: prompt }] : prompt
  if (!responses.every((response): response is Message[] => typeof response !== 'string')) {
    return { prompt: messages, responses }
  }
  if (responses.every((response) => beginsWith(response, messages))) return cut(responses, messages.length)
  if (responses.every(([first]) => first!.role === 'assistant' || first!.role === 'tool')) {
    return { prompt: messages, responses }
  }
  const end = endOfPrompt(messages, responses)
  if (end !== undefined) return cut(responses, end)
  if (responses.some(([first]) => first!.role === 'system') || followsUser(messages, responses)) {
    throw fields.fail(
      'the responses begin with another turn than the assistant\'s and do not hold "prompt"; give the turns that follow the prompt, or ' +
        'whole conversations alone',
    )
  }
  return { prompt: messages, responses }
}

/** Whole conversations: what they have in common is the prompt, up to the assistant's turn at which they part. */
export function splitConversations(
  conversations: Message[][],
  keys: readonly string[],
  fields: RowFields,
): Conversation {
  const names = keys.map((key) => `"${key}"`).join(' and ')
  const shared = commonTurns(conversations)
  if (shared === 0) throw fields.fail(`${names} share no first message, so there is no prompt; give "prompt"`)
  if (conversations.some((conversation) => conversation[shared]!.role !== 'assistant')) {
    throw fields.fail(`${names} part at message ${shared}, which is not the assistant's; give "prompt"`)
  }
  return cut(conversations, shared)
}

/** The prompt with a system message first. A conversation that has the same one already stays as it is. */
export function withSystem(prompt: Text, system: string, fields: RowFields): Message[] {
  const messages = typeof prompt === 'string' ? [{ role: 'user', content: prompt }] : prompt
  const [first] = messages
  if (first?.role !== 'system') return [{ role: 'system', content: system }, ...messages]
  if (contentText(first) === system) return messages
  throw fields.fail('"system" differs from the system message that the conversation begins with; leave one of them out')
}

function cut(conversations: Message[][], end: number): Conversation {
  return {
    prompt: conversations[0]!.slice(0, end),
    responses: conversations.map((conversation) => conversation.slice(end)),
  }
}

/** How many turns all conversations begin with; each keeps one turn of its own. */
function commonTurns(conversations: Message[][]): number {
  const [first] = conversations as [Message[]]
  const limit = conversations.reduce((least, { length }) => Math.min(least, length), Number.POSITIVE_INFINITY) - 1
  let shared = 0
  while (shared < limit && conversations.every((one) => sameTurn(first[shared]!, one[shared]!))) shared++
  return shared
}

function beginsWith(conversation: Message[], beginning: Message[]): boolean {
  return conversation.length > beginning.length && beginning.every((message, i) => sameTurn(message, conversation[i]!))
}

/** After which of the common turns `prompt` has been said, but for white space around its texts. */
function endOfPrompt(prompt: Message[], conversations: Message[][]): number | undefined {
  const [first] = conversations as [Message[]]
  for (let end = commonTurns(conversations); end >= prompt.length; end--) {
    const start = end - prompt.length
    if (prompt.every((message, i) => covers(first[start + i]!, message))) return end
  }
  return undefined
}

/** Whether `turn` says all that `part` says, but for white space around the text. */
function covers(turn: Message, part: Message): boolean {
  const content = contentText(part).trim()
  if (contentText(turn).trim() !== content) return false
  const named = Object.keys(part).filter((key) => key in turn)
  return sameTurn(
    { ...part, content },
    { role: '', ...Object.fromEntries(named.map((key) => [key, turn[key]])), content },
  )
}

function followsUser(prompt: Message[], responses: Message[][]): boolean {
  return prompt.at(-1)?.role === 'user' && responses.some(([first]) => first!.role === 'user')
}
