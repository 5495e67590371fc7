/**
 * A prompt to continue, as a program gives it: checked, and copied as plain data that may cross to the encoding thread.
 */
import { invalidArgument, isPlainObject } from '../core/arguments.js'
import { ImplexError, type ImplexErrorCode } from '../core/errors.js'
import { RowFields } from '../data/row-fields.js'
import type { Prompt } from '../data/rows.js'

/** @throws TypeError for what is no prompt, ImplexError ERR_ROW_INVALID for one with a wrong part */
export function givenPrompt(given: unknown, at: number): Prompt {
  const bare = typeof given === 'string' || Array.isArray(given)
  if (!bare && !(isPlainObject(given) && 'prompt' in given)) {
    throw invalidArgument(`prompts[${at}]`, 'a string, a list of messages or {prompt, inputs}', given)
  }
  const { prompt, inputs } = bare ? { prompt: given, inputs: undefined } : given
  if (prompt === undefined || prompt === null) {
    throw invalidArgument(`prompts[${at}].prompt`, 'a string or a list of messages', prompt)
  }
  const fields = new RowFields({ prompt }, { index: at })
  try {
    const text = fields.text('prompt')
    if (inputs === undefined || inputs === null) return { prompt: text }
    if (!isPlainObject(inputs)) throw invalidArgument(`prompts[${at}].inputs`, 'an object', inputs)
    return { prompt: text, inputs: fields.json(inputs, 'inputs') as Prompt['inputs'] & object }
  } catch (error) {
    if (!(error instanceof ImplexError)) throw error
    throw promptError(error.code, at, error.message.replace(/^row \d+: /, ''))
  }
}

export function promptError(code: ImplexErrorCode, at: number, what: string): ImplexError {
  return new ImplexError(code, `prompt ${at}: ${what}`)
}
