/**
 * The text files of a saved model: tokenizer and template as the model was trained with, so that it loads as it is.
 */
import { join } from 'node:path'
import { readIfPresent, readJsonFile, readJsonIfPresent } from '../../core/files.js'
import type { EncoderDescription } from '../../data/encode-worker.js'

const MAX_BYTES = 512 * 1024 * 1024
const OTHERS = ['special_tokens_map.json', 'added_tokens.json'] as const

export interface SavedText {
  /** By file name. */
  files: Record<string, string>
  /** A padding token that no sequence ends with, or the one that the head's place went by. */
  padTokenId: number
}

/**
 * transformers reads a classifier's reward at the last token that is not padding, so the padding token must not be the one that ends a
 * response (many tokenizers pad with the end-of-sequence token): it becomes another special token then. A head that was read at the last
 * token that is not padding keeps its padding token instead.
 *
 * @param padTokenId the padding token that the head's place went by, if it did
 */
export async function savedText(folder: string, encoder: EncoderDescription, padTokenId?: number): Promise<SavedText> {
  const tokenizer = await readJsonFile(join(folder, 'tokenizer.json'), 'ERR_TOKENIZER_INVALID', { maxBytes: MAX_BYTES })
  const settings = (await readJsonIfPresent(join(folder, 'tokenizer_config.json'), 'ERR_TOKENIZER_INVALID')) ?? {
    tokenizer_class: 'PreTrainedTokenizerFast',
  }
  const added = (Array.isArray(tokenizer.added_tokens) ? tokenizer.added_tokens : []) as AddedToken[]
  const files: Record<string, string> = {}

  const first = encoder.vocabularySize - encoder.addedTokens.length
  added.push(...encoder.addedTokens.map((content, i) => ({ ...MARKER, id: first + i, content })))
  tokenizer.added_tokens = added
  // Older tokenizers list their added tokens here too, and transformers then believes this list.
  const decoder = settings.added_tokens_decoder
  if (typeof decoder === 'object' && decoder !== null) {
    encoder.addedTokens.forEach((content, i) => {
      ;(decoder as Record<string, unknown>)[String(first + i)] = { ...MARKER, content }
    })
  }
  if (encoder.templateSource === 'default' || encoder.templateSource === 'file') {
    delete settings.chat_template
    files['chat_template.jinja'] = encoder.templateText ?? ''
  } else {
    const template = await readIfPresent(join(folder, 'chat_template.jinja'))
    if (template !== undefined) files['chat_template.jinja'] = template
  }
  const ids = idsOf(tokenizer, added)
  const pad = padTokenId === undefined ? choosePad(settings, ids, encoder.terminator) : padOf(padTokenId, ids)
  if (pad.token !== undefined) settings.pad_token = pad.token

  files['tokenizer.json'] = `${JSON.stringify(tokenizer)}\n`
  files['tokenizer_config.json'] = `${JSON.stringify(settings, null, 2)}\n`
  for (const name of OTHERS) {
    const text = await readIfPresent(join(folder, name))
    if (text === undefined || (name === 'added_tokens.json' && encoder.addedTokens.length > 0)) continue
    files[name] = name === 'special_tokens_map.json' && pad.token !== undefined ? withPad(text, pad.token) : text
  }
  return { files, padTokenId: pad.id }
}

interface AddedToken {
  id: number
  content: string
  [flag: string]: unknown
}

const MARKER = { single_word: false, lstrip: false, rstrip: false, normalized: false, special: true }

function choosePad(
  settings: Record<string, unknown>,
  ids: ReadonlyMap<string, number>,
  terminator: number | undefined,
): { id: number; token?: string } {
  const named = ['pad_token', 'unk_token', 'bos_token'].map((name) => contentOf(settings[name]))
  const specials = [...ids.keys()].filter((token) => /^<.*>$/.test(token)).sort((a, b) => ids.get(a)! - ids.get(b)!)
  for (const token of [...named, ...specials]) {
    const id = token === undefined ? undefined : ids.get(token)
    if (id !== undefined && id !== terminator) return { id, token: token! }
  }
  return { id: terminator === 0 ? 1 : 0 }
}

function padOf(id: number, ids: ReadonlyMap<string, number>): { id: number; token?: string } {
  const token = [...ids.keys()].find((one) => ids.get(one) === id)
  return token === undefined ? { id } : { id, token }
}

function contentOf(token: unknown): string | undefined {
  const content = typeof token === 'object' && token !== null ? (token as AddedToken).content : token
  return typeof content === 'string' ? content : undefined
}

function idsOf(tokenizer: Record<string, unknown>, added: AddedToken[]): Map<string, number> {
  const ids = new Map(added.map(({ content, id }) => [content, id]))
  const { vocab } = (tokenizer.model ?? {}) as { vocab?: Record<string, number> }
  for (const [token, id] of Object.entries(vocab ?? {})) ids.set(token, id)
  return ids
}

function withPad(text: string, token: string): string {
  return `${JSON.stringify({ ...(JSON.parse(text) as object), pad_token: token }, null, 2)}\n`
}
