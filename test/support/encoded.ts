/**
 * What the whole conversation has after its prompt, as text and as ids, for tests of one response.
 */
import type { Border } from '../../lib/checkpoint/trained-with.js'
import type { Message } from '../../lib/text/messages.js'
import type { RowEncoder } from '../../lib/text/text-encoder.js'

type Text = string | readonly Message[]

export function responseText(encoder: RowEncoder, prompt: Text, response: Text): string {
  const [before, whole] = [encoder.renderPrompt(prompt), encoder.renderConversation(prompt, response)]
  if (!whole.startsWith(before)) throw new Error(`the conversation does not begin with the prompt: ${whole}`)
  return whole.slice(before.length)
}

export function responseIds(encoder: RowEncoder, prompt: Text, response: Text, border: Border = 'whole'): Int32Array {
  const one = encoder.encodeConversation(prompt, response, border)
  return one.ids.subarray(one.border)
}
