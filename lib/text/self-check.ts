/**
 * Checks of a row's ids before a run spends hours on them. Each throws ERR_SELF_CHECK and says what is wrong and what to do.
 */
import { ImplexError } from '../core/errors.js'
import type { Message } from './messages.js'
import type { RowEncoder } from './text-encoder.js'

/** int32[prompt + response]: the sequence that is scored. The prompt's ids begin it, whatever the response. */
export function sequenceIds(prompt: Int32Array, response: Int32Array): Int32Array {
  const ids = new Int32Array(prompt.length + response.length)
  ids.set(prompt)
  ids.set(response, prompt.length)
  return ids
}

/** A beginning-of-sequence token may only come first: one from the template and one from a tokenizer shift every position. */
export function checkBos(encoder: RowEncoder, prompt: Int32Array, response: Int32Array): void {
  const bos = encoder.bosTokenId
  // Some models use one token for both ends; a response that is only its end is no second beginning.
  if (bos === undefined || bos === encoder.eosTokenId) return
  if (prompt[0] === bos && prompt[1] === bos) {
    throw failed(`the prompt begins with token ${bos} (beginning of sequence) twice; does the text bring its own?`)
  }
  if (response[0] === bos) {
    throw failed(`the response begins with token ${bos} (beginning of sequence), which belongs before the prompt only`)
  }
}

/** The last scored token is the one that the template ends a response with: never padding, never cut off. */
export function checkTerminator(encoder: RowEncoder, response: Int32Array): void {
  if (response.length === 0) throw failed('the response has no tokens')
  const last = response.at(-1)
  if (encoder.terminator !== undefined && last !== encoder.terminator) {
    throw failed(
      `the response ends with token ${last}, but the template ends a response with token ${encoder.terminator}`,
    )
  }
}

/** The model must have a row for every id: below `embeddingRows`. */
export function checkRange(ids: Int32Array, embeddingRows: number): void {
  const outside = ids.find((id) => id < 0 || id >= embeddingRows)
  if (outside !== undefined) {
    throw failed(
      `token id ${outside} is outside the model's ${embeddingRows} embedding rows; is the tokenizer another model's?`,
    )
  }
}

/** All of the above for one row, as it will be scored. `embeddingRows` counts rows added for the encoder's added tokens. */
export function checkRow(
  encoder: RowEncoder,
  prompt: string | readonly Message[],
  response: string | readonly Message[],
  embeddingRows: number,
): void {
  const { ids, border } = encoder.encodeConversation(prompt, response, 'whole')
  const [promptIds, responseIds] = [ids.subarray(0, border), ids.subarray(border)]
  if (promptIds.length === 0)
    throw failed('the prompt has no tokens, so nothing predicts the first token of a response')
  checkBos(encoder, promptIds, responseIds)
  checkTerminator(encoder, responseIds)
  checkRange(ids, embeddingRows)
}

function failed(message: string): ImplexError {
  return new ImplexError('ERR_SELF_CHECK', `text self-check: ${message}`)
}
