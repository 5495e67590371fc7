/**
 * Added tokens that tokenizer_config.json names, beside those of tokenizer.json: `added_tokens_decoder` (with ids),
 * `additional_special_tokens` and `extra_special_tokens`. As in transformers they are tokens like those of tokenizer.json, whose flags win
 * where both files have one.
 */
import { describe, isPlainObject } from '../core/arguments.js'
import { ImplexError } from '../core/errors.js'
import { type AddedTokenSpec, parseAddedToken, type TokenizerSpec } from './tokenizer-json.js'

/** What a folder's tokenizer_config.json says of tokens, the named special ones apart. */
export interface ConfigTokens {
  /** By ascending id. */
  added: AddedTokenSpec[]
  /** Special tokens without an id of their own. */
  special: string[]
  /** Whether a plain text is begun with bos_token and ended with eos_token; undefined: tokenizer.json's post-processor decides. */
  ends?: { bos: boolean; eos: boolean }
}

/**
 * @param older the content of special_tokens_map.json, which has the additional tokens where `config` does not
 * @param file tokenizer_config.json, for messages
 * @throws ImplexError ERR_TOKENIZER_INVALID
 */
export function readConfigTokens(
  config: Record<string, unknown>,
  older: Record<string, unknown>,
  file: string,
): ConfigTokens {
  const additional = config['additional_special_tokens'] ?? older['additional_special_tokens']
  const special = [
    ...contents(additional, 'additional_special_tokens', file),
    ...contents(config['extra_special_tokens'], 'extra_special_tokens', file),
  ]
  const explicit = Object.hasOwn(config, 'add_bos_token') || Object.hasOwn(config, 'add_eos_token')
  return {
    added: decoderTokens(config['added_tokens_decoder'], file),
    special: [...new Set(special)],
    ...(explicit ? { ends: { bos: config['add_bos_token'] === true, eos: config['add_eos_token'] === true } } : {}),
  }
}

function decoderTokens(value: unknown, file: string): AddedTokenSpec[] {
  if (value === undefined || value === null) return []
  if (!isPlainObject(value)) return invalid(file, 'added_tokens_decoder', 'an object of ids', value)
  return Object.entries(value)
    .map(([id, token]) => {
      const name = `added_tokens_decoder["${id}"]`
      if (!/^\d+$/.test(id) || !isPlainObject(token)) return invalid(file, name, 'a token under its id', token)
      return parseAddedToken({ ...token, id: Number(id) }, name, file)
    })
    .sort((a, b) => a.id - b.id)
}

/** A list of tokens, or an object of name -> token. */
function contents(value: unknown, name: string, file: string): string[] {
  if (value === undefined || value === null) return []
  const list = Array.isArray(value) ? (value as unknown[]) : isPlainObject(value) ? Object.values(value) : undefined
  if (list === undefined) return invalid(file, name, 'a list of tokens', value)
  return list.flatMap((token) => {
    // Some files list further tokens below a name of their own.
    const content = isPlainObject(token) ? token['content'] : token
    if (Array.isArray(content)) return contents(content, name, file)
    return typeof content === 'string' ? [content] : invalid(file, name, 'strings or {content}', token)
  })
}

function invalid(file: string, name: string, expected: string, actual: unknown): never {
  const message = `${file}: ${name} must be ${expected}; got ${describe(actual)}`
  throw new ImplexError('ERR_TOKENIZER_INVALID', message, { path: file })
}

/**
 * Adds to `spec` what the config names and it lacks. A token of the vocabulary keeps its id there; one that is new has the id that
 * added_tokens_decoder gives it, or, without one or where that id is taken, the next after the last.
 * @param named bos_token, eos_token, …: cut out of texts even where tokenizer.json has them as ordinary entries only
 */
export function addConfigTokens(
  spec: TokenizerSpec,
  { added, special }: ConfigTokens,
  named: Readonly<Record<string, string>>,
): void {
  const known = new Set(spec.addedTokens.map(({ content }) => content))
  const taken = new Set([...Object.values(spec.model.vocab), ...spec.addedTokens.map(({ id }) => id)])
  const add = (token: Omit<AddedTokenSpec, 'id'>, wanted?: number): void => {
    const { content } = token
    if (content === '' || known.has(content)) return
    const id = vocabularyId(spec, content) ?? (wanted === undefined || taken.has(wanted) ? nextId(spec) : wanted)
    spec.addedTokens.push({ ...token, id })
    known.add(content)
    taken.add(id)
  }
  for (const { id, ...token } of added) add(token, id)
  // A named token that nothing has an id for is no token: what writes it is told so.
  for (const content of Object.values(named)) if (vocabularyId(spec, content) !== undefined) add(specialToken(content))
  for (const content of special) add(specialToken(content))
}

/** A special token as the reference implementation makes one of a plain string. */
export function specialToken(content: string): Omit<AddedTokenSpec, 'id'> {
  return { content, singleWord: false, lstrip: false, rstrip: false, normalized: false }
}

/** The id after the last one. */
export function nextId(spec: TokenizerSpec): number {
  let next = 0
  for (const id of Object.values(spec.model.vocab)) next = Math.max(next, id + 1)
  for (const { id } of spec.addedTokens) next = Math.max(next, id + 1)
  return next
}

function vocabularyId({ model }: TokenizerSpec, content: string): number | undefined {
  return Object.hasOwn(model.vocab, content) ? model.vocab[content] : undefined
}
