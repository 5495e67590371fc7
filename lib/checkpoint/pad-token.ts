/**
 * The token that fills up short rows in training: heads are read at the last token that is another one.
 */
import { join } from 'node:path'
import { isPlainObject } from '../core/arguments.js'
import { readJsonIfPresent } from '../core/files.js'

const MAX_TOKENIZER_BYTES = 256_000_000

/**
 * The id of `pad_token` of the folder's tokenizer_config.json; undefined where it names none, or one without an id.
 * Files that cannot be read are for the reader of the tokenizer to complain about.
 */
export async function tokenizerPadToken(folder: string): Promise<number | undefined> {
  const read = (name: string) =>
    readJsonIfPresent(join(folder, name), 'ERR_TOKENIZER_INVALID', { maxBytes: MAX_TOKENIZER_BYTES }).catch(
      () => undefined,
    )
  const config = (await read('tokenizer_config.json')) ?? {}
  const content = contentOf(config['pad_token'])
  if (content === undefined) return undefined
  const decoder = isPlainObject(config['added_tokens_decoder']) ? config['added_tokens_decoder'] : {}
  const [id] = Object.entries(decoder).find(([, token]) => contentOf(token) === content) ?? []
  if (id !== undefined && /^\d+$/.test(id)) return Number(id)
  const tokenizer = (await read('tokenizer.json')) ?? {}
  const added: unknown[] = Array.isArray(tokenizer['added_tokens']) ? tokenizer['added_tokens'] : []
  const token = added.find((one) => contentOf(one) === content)
  const model = isPlainObject(tokenizer['model']) ? tokenizer['model'] : {}
  const vocabulary = isPlainObject(model['vocab']) ? model['vocab'] : {}
  const known = isPlainObject(token)
    ? token['id']
    : Object.hasOwn(vocabulary, content)
      ? vocabulary[content]
      : undefined
  return Number.isSafeInteger(known) ? (known as number) : undefined
}

function contentOf(token: unknown): string | undefined {
  const content = isPlainObject(token) ? token['content'] : token
  return typeof content === 'string' ? content : undefined
}
