/**
 * What a tokenizer itself puts around a text: the post-processor of tokenizer.json, as far as it adds tokens to a single text. It counts
 * for plain text only (template "none"); a chat template writes its special tokens itself.
 */
import { describe, isPlainObject } from '../core/arguments.js'
import { ImplexError } from '../core/errors.js'

/** Ids before and after a text's own. */
export interface Surroundings {
  before: number[]
  after: number[]
}

/**
 * @param value `post_processor` of tokenizer.json
 * @param file for messages
 * @throws ImplexError ERR_TOKENIZER_INVALID for a kind that is not known, or one that does more than to add tokens
 */
export function parsePostProcessor(value: unknown, file: string, name = 'post_processor'): Surroundings {
  const fail = (where: string, expected: string, actual: unknown): never => {
    const message = `${file}: ${where} must be ${expected}; got ${describe(actual)}`
    throw new ImplexError('ERR_TOKENIZER_INVALID', message, { path: file })
  }
  const tokenId = (token: unknown, where: string): number => {
    // [content, id]
    const id: unknown = Array.isArray(token) ? token[1] : undefined
    return Number.isSafeInteger(id) ? (id as number) : fail(where, 'a token and its id', token)
  }
  if (value === undefined || value === null) return { before: [], after: [] }
  if (!isPlainObject(value)) return fail(name, 'an object', value)
  switch (value['type']) {
    case 'ByteLevel':
      return { before: [], after: [] }
    case 'BertProcessing':
    case 'RobertaProcessing':
      return {
        before: [tokenId(value['cls'], `${name}.cls`)],
        after: [tokenId(value['sep'], `${name}.sep`)],
      }
    case 'Sequence': {
      const parts = value['processors']
      if (!Array.isArray(parts)) return fail(`${name}.processors`, 'an array', parts)
      // Each works on what the one before it made.
      return parts
        .map((part, i) => parsePostProcessor(part, file, `${name}.processors[${i}]`))
        .reduce(
          (inner, outer) => ({
            before: [...outer.before, ...inner.before],
            after: [...inner.after, ...outer.after],
          }),
          { before: [] as number[], after: [] as number[] },
        )
    }
    case 'TemplateProcessing':
      return templateProcessing(value, name, fail)
    default:
      return fail(
        `${name}.type`,
        'ByteLevel, BertProcessing, RobertaProcessing, Sequence or TemplateProcessing',
        value['type'],
      )
  }
}

type Fail = (where: string, expected: string, actual: unknown) => never

function templateProcessing(value: Record<string, unknown>, name: string, fail: Fail): Surroundings {
  const pieces = value['single']
  const special = value['special_tokens']
  if (!Array.isArray(pieces)) return fail(`${name}.single`, 'an array', pieces)
  const idsOf = (token: unknown): number[] => {
    const entry = isPlainObject(special) && typeof token === 'string' ? special[token] : undefined
    const ids = isPlainObject(entry) ? entry['ids'] : undefined
    if (!Array.isArray(ids) || !ids.every(Number.isSafeInteger)) {
      return fail(`${name}.special_tokens[${describe(token)}].ids`, 'token ids', ids)
    }
    return ids as number[]
  }
  const around: Surroundings = { before: [], after: [] }
  let texts = 0
  for (const [i, piece] of pieces.entries()) {
    const token = isPlainObject(piece) ? piece['SpecialToken'] : undefined
    if (isPlainObject(token)) (texts === 0 ? around.before : around.after).push(...idsOf(token['id']))
    else if (isPlainObject(piece) && isPlainObject(piece['Sequence'])) texts++
    else fail(`${name}.single[${i}]`, 'a SpecialToken or a Sequence', piece)
  }
  return texts === 1 ? around : fail(`${name}.single`, 'a template with the text once', pieces)
}
