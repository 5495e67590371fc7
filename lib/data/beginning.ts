/**
 * Where a beginning-of-sequence token may stand: first, and once. One from the template and another from the text shift every position.
 */
import { ImplexError } from '../core/errors.js'
import { type EncodedRow, promptOf } from './encode.js'

/** Of the tokenizer; undefined where it names none. */
export interface SequenceEnds {
  bosTokenId?: number
  eosTokenId?: number
}

/** Where a row is, for messages. */
export function rowPlace({ index, line }: Pick<EncodedRow, 'index' | 'line'>): string {
  return line === undefined ? `row ${index}` : `line ${line}`
}

/** @throws ImplexError ERR_SELF_CHECK naming the row */
export function checkBeginning(row: EncodedRow, { bosTokenId: bos, eosTokenId }: SequenceEnds): void {
  // Some models use one token for both ends of a text, which may then begin with the end of another.
  if (bos === undefined || bos === eosTokenId) return
  const { prompt, responses } = row
  const failed = (message: string) => new ImplexError('ERR_SELF_CHECK', `${rowPlace(row)}: ${message}`)
  // Verification prompts with no beginning in common are whole sequences, and there is no prompt.
  const begins = prompt.length > 0 ? [prompt] : responses
  if (begins.some(([first, second]) => first === bos && second === bos)) {
    throw failed(
      `the prompt begins with two beginning-of-sequence tokens (id ${bos}): the template adds one and the text has another; ` +
        'remove it from the data or the template',
    )
  }
  if (responses.some(([first], k) => first === bos && promptOf(row, k).length > 0)) {
    throw failed(`a response begins with the beginning-of-sequence token (id ${bos}), which belongs before the prompt`)
  }
}
