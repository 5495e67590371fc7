/**
 * tokenizer.json as plain, checked data: what a byte-pair tokenizer needs and nothing that would be tokenized wrongly in silence.
 * A component whose ids were not checked against the reference implementation is refused by name.
 */
import { readdir } from 'node:fs/promises'
import path from 'node:path'
import { isAbsent, readText } from '../core/files.js'
import { ImplexError } from '../core/errors.js'
import { describe, isPlainObject } from '../core/arguments.js'

export interface AddedTokenSpec {
  id: number
  content: string
  singleWord: boolean
  lstrip: boolean
  rstrip: boolean
  /** Looked for in the normalized text instead of the raw text. */
  normalized: boolean
}

export type Pattern = { String: string } | { Regex: string }
export type SplitBehavior = 'Removed' | 'Isolated' | 'MergedWithPrevious' | 'MergedWithNext' | 'Contiguous'

/** Pre-tokenizer steps, sequences flattened, each broken down to one of four. */
export type PreTokenizerStep =
  | { type: 'split'; pattern: Pattern; behavior: SplitBehavior; invert: boolean }
  | { type: 'prefix-space' }
  | { type: 'bytes' }
  | { type: 'metaspace'; replacement: string; prepend: 'always' | 'first' | 'never' }

export type NormalizerStep =
  | { type: 'NFC' | 'NFD' | 'NFKC' | 'NFKD' }
  | { type: 'Prepend'; prepend: string }
  | { type: 'Replace'; pattern: Pattern; content: string }

export interface BpeSpec {
  vocab: Record<string, number>
  merges: [string, string][]
  unkToken?: string
  fuseUnk: boolean
  byteFallback: boolean
  ignoreMerges: boolean
  endOfWordSuffix?: string
}

export interface TokenizerSpec {
  normalizers: NormalizerStep[]
  steps: PreTokenizerStep[]
  model: BpeSpec
  addedTokens: AddedTokenSpec[]
}

/** The split that a byte-level pre-tokenizer applies with `use_regex`: GPT-2's. */
const BYTE_LEVEL_SPLIT = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"
/** What the reference implementation calls a word character in this place. */
const WORD = '\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\p{Join_Control}'
const BEHAVIORS: readonly string[] = ['Removed', 'Isolated', 'MergedWithPrevious', 'MergedWithNext', 'Contiguous']
const MAX_ID = 2 ** 31 - 1

/**
 * Reads FOLDER/tokenizer.json.
 * Errors: ERR_CHECKPOINT_NOT_FOUND (no such folder), ERR_TOKENIZER_MISSING (says what else is there), ERR_TOKENIZER_INVALID (not JSON).
 */
export async function readTokenizerFile(folder: string): Promise<{ file: string; text: string; json: unknown }> {
  const file = path.join(folder, 'tokenizer.json')
  let text: string
  try {
    text = await readText(file)
  } catch (error) {
    throw isAbsent((error as Error).cause) ? await missingTokenizer(folder) : error
  }
  try {
    return { file, text, json: JSON.parse(text) }
  } catch (cause) {
    throw new ImplexError(
      'ERR_TOKENIZER_INVALID',
      `${file} is not valid JSON (${(cause as Error).message}); is the file complete?`,
      { cause, path: file },
    )
  }
}

async function missingTokenizer(folder: string): Promise<ImplexError> {
  let names: string[]
  try {
    names = await readdir(folder)
  } catch (cause) {
    return new ImplexError('ERR_CHECKPOINT_NOT_FOUND', `no checkpoint folder ${folder}: ${(cause as Error).message}`, {
      cause,
      path: folder,
    })
  }
  const others = names.filter((name) => /^(tokenizer\.model|.*\.tiktoken|vocab\.json|spiece\.model)$/.test(name))
  const found = others.length === 0 ? '' : ` (it has ${others.join(', ')})`
  return new ImplexError(
    'ERR_TOKENIZER_MISSING',
    `no tokenizer.json in ${folder}${found}; write one with transformers: ` +
      'AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)',
    { path: folder },
  )
}

/** Checks `json` and breaks it down. ERR_TOKENIZER_INVALID names `file` and the field. */
export function parseTokenizer(json: unknown, file: string): TokenizerSpec {
  return new Reader(file).tokenizer(json)
}

/** One added token as both tokenizer.json and tokenizer_config.json write it. ERR_TOKENIZER_INVALID names `file` and `name`. */
export function parseAddedToken(json: unknown, name: string, file: string): AddedTokenSpec {
  return new Reader(file).added(json, name)
}

class Reader {
  constructor(private readonly file: string) {}

  tokenizer(json: unknown): TokenizerSpec {
    const root = this.object(json, 'the file')
    const model = this.model(root['model'])
    const addedTokens = this.array(root['added_tokens'] ?? [], 'added_tokens').map((value, i) => {
      const token = this.added(value, `added_tokens[${i}]`)
      // The reference implementation goes by the vocabulary where it has the token.
      return Object.hasOwn(model.vocab, token.content) ? { ...token, id: model.vocab[token.content] as number } : token
    })
    const known = (token: string) => Object.hasOwn(model.vocab, token) || addedTokens.some((t) => t.content === token)
    if (model.unkToken !== undefined && !known(model.unkToken)) {
      this.fail('model.unk_token', 'a token of the vocabulary', model.unkToken)
    }
    return {
      normalizers: this.normalizers(root['normalizer'] ?? null, 'normalizer'),
      steps: this.steps(root['pre_tokenizer'] ?? null, 'pre_tokenizer'),
      model,
      addedTokens,
    }
  }

  private model(value: unknown): BpeSpec {
    const json = this.object(value, 'model')
    // Files written before the field existed have no type; of the kinds of model only BPE has merges.
    const type = json['type'] ?? ('merges' in json ? 'BPE' : 'unknown')
    if (type !== 'BPE') this.unsupported('model', type, 'BPE')
    if (json['continuing_subword_prefix'])
      this.unsupported('model.continuing_subword_prefix', json['continuing_subword_prefix'], 'null')
    const vocab = this.object(json['vocab'], 'model.vocab') as Record<string, number>
    for (const [token, id] of Object.entries(vocab)) {
      if (!Number.isInteger(id) || id < 0 || id > MAX_ID) this.fail(`model.vocab[${describe(token)}]`, 'a token id', id)
    }
    const merges = this.array(json['merges'], 'model.merges').map((merge, i) => this.merge(merge, i, vocab))
    const unkToken = this.optionalString(json['unk_token'], 'model.unk_token')
    const endOfWordSuffix = this.optionalString(json['end_of_word_suffix'], 'model.end_of_word_suffix')
    return {
      vocab,
      merges,
      fuseUnk: this.boolean(json['fuse_unk'], 'model.fuse_unk', false),
      byteFallback: this.boolean(json['byte_fallback'], 'model.byte_fallback', false),
      ignoreMerges: this.boolean(json['ignore_merges'], 'model.ignore_merges', false),
      ...(unkToken === undefined ? {} : { unkToken }),
      ...(endOfWordSuffix ? { endOfWordSuffix } : {}),
    }
  }

  private merge(value: unknown, i: number, vocab: Record<string, number>): [string, string] {
    const pair: unknown = typeof value === 'string' ? value.split(' ') : value
    if (!Array.isArray(pair) || pair.length !== 2 || typeof pair[0] !== 'string' || typeof pair[1] !== 'string') {
      this.fail(`model.merges[${i}]`, 'two tokens', value)
    }
    const [left, right] = pair as [string, string]
    for (const token of [left, right, left + right]) {
      if (!Object.hasOwn(vocab, token)) this.fail(`model.merges[${i}]`, 'made of tokens of the vocabulary', token)
    }
    return [left, right]
  }

  added(value: unknown, name: string): AddedTokenSpec {
    const json = this.object(value, name)
    const id = json['id']
    if (typeof id !== 'number' || !Number.isInteger(id) || id < 0 || id > MAX_ID)
      this.fail(`${name}.id`, 'a token id', id)
    const content = this.string(json['content'], `${name}.content`)
    if (content === '') this.fail(`${name}.content`, 'a string that is not empty', content)
    const special = this.boolean(json['special'], `${name}.special`, false)
    return {
      id: id as number,
      content,
      singleWord: this.boolean(json['single_word'], `${name}.single_word`, false),
      lstrip: this.boolean(json['lstrip'], `${name}.lstrip`, false),
      rstrip: this.boolean(json['rstrip'], `${name}.rstrip`, false),
      normalized: this.boolean(json['normalized'], `${name}.normalized`, !special),
    }
  }

  private normalizers(value: unknown, name: string): NormalizerStep[] {
    if (value === null) return []
    const json = this.object(value, name)
    const type = json['type']
    switch (type) {
      case 'Sequence':
        return this.array(json['normalizers'], `${name}.normalizers`).flatMap((step, i) =>
          this.normalizers(step, `${name}.normalizers[${i}]`),
        )
      case 'NFC':
      case 'NFD':
      case 'NFKC':
      case 'NFKD':
        return [{ type }]
      case 'Prepend':
        return [{ type, prepend: this.string(json['prepend'], `${name}.prepend`) }]
      case 'Replace': {
        const content = this.string(json['content'], `${name}.content`)
        return [{ type, pattern: this.pattern(json['pattern'], `${name}.pattern`), content }]
      }
      default:
        return this.unsupported(name, type, 'NFC, NFD, NFKC, NFKD, Prepend, Replace, Sequence')
    }
  }

  private steps(value: unknown, name: string): PreTokenizerStep[] {
    if (value === null) return []
    const json = this.object(value, name)
    const split = (regex: string, behavior: SplitBehavior, invert = false): PreTokenizerStep => ({
      type: 'split',
      pattern: { Regex: regex },
      behavior,
      invert,
    })
    switch (json['type']) {
      case 'Sequence':
        return this.array(json['pretokenizers'], `${name}.pretokenizers`).flatMap((step, i) =>
          this.steps(step, `${name}.pretokenizers[${i}]`),
        )
      case 'Split': {
        const pattern = this.pattern(json['pattern'], `${name}.pattern`)
        const invert = this.boolean(json['invert'], `${name}.invert`, false)
        return [{ type: 'split', pattern, behavior: this.behavior(json['behavior'], name), invert }]
      }
      case 'ByteLevel': {
        const steps: PreTokenizerStep[] = []
        if (this.boolean(json['add_prefix_space'], `${name}.add_prefix_space`, true))
          steps.push({ type: 'prefix-space' })
        if (this.boolean(json['use_regex'], `${name}.use_regex`, true)) steps.push(split(BYTE_LEVEL_SPLIT, 'Isolated'))
        return [...steps, { type: 'bytes' }]
      }
      case 'Metaspace':
        return this.metaspace(json, name)
      case 'Digits': {
        const single = this.boolean(json['individual_digits'], `${name}.individual_digits`, false)
        return [split(single ? '\\p{N}' : '\\p{N}+', 'Isolated')]
      }
      case 'Punctuation':
        return [split('[\\p{P}!-/:-@\\[-`{-~]', this.behavior(json['behavior'] ?? 'Isolated', name))]
      case 'WhitespaceSplit':
        return [split('\\s+', 'Removed')]
      case 'Whitespace':
        return [split(`[${WORD}]+|[^${WORD}\\s]+`, 'Removed', true)]
      default:
        return this.unsupported(
          name,
          json['type'],
          'ByteLevel, Digits, Metaspace, Punctuation, Sequence, Split, Whitespace, WhitespaceSplit',
        )
    }
  }

  private metaspace(json: Record<string, unknown>, name: string): PreTokenizerStep[] {
    const replacement = this.string(json['replacement'], `${name}.replacement`)
    // Before prepend_scheme existed, add_prefix_space said always or never.
    const older = this.boolean(json['add_prefix_space'], `${name}.add_prefix_space`, true) ? 'always' : 'never'
    const prepend = json['prepend_scheme'] ?? older
    if (prepend !== 'always' && prepend !== 'first' && prepend !== 'never') {
      this.fail(`${name}.prepend_scheme`, '"always", "first" or "never"', prepend)
    }
    const steps: PreTokenizerStep[] = [
      { type: 'metaspace', replacement, prepend: prepend as 'always' | 'first' | 'never' },
    ]
    if (this.boolean(json['split'], `${name}.split`, true)) {
      steps.push({ type: 'split', pattern: { String: replacement }, behavior: 'MergedWithNext', invert: false })
    }
    return steps
  }

  private pattern(value: unknown, name: string): Pattern {
    const json = this.object(value, name)
    if (typeof json['String'] === 'string') return { String: json['String'] }
    if (typeof json['Regex'] === 'string') return { Regex: json['Regex'] }
    return this.fail(name, '{"String": …} or {"Regex": …}', value)
  }

  private behavior(value: unknown, name: string): SplitBehavior {
    if (typeof value !== 'string' || !BEHAVIORS.includes(value))
      this.fail(`${name}.behavior`, `one of ${BEHAVIORS.join(', ')}`, value)
    return value as SplitBehavior
  }

  private object(value: unknown, name: string): Record<string, unknown> {
    return isPlainObject(value) ? value : this.fail(name, 'an object', value)
  }

  private array(value: unknown, name: string): unknown[] {
    return Array.isArray(value) ? value : this.fail(name, 'an array', value)
  }

  private string(value: unknown, name: string): string {
    return typeof value === 'string' ? value : this.fail(name, 'a string', value)
  }

  private optionalString(value: unknown, name: string): string | undefined {
    return value === undefined || value === null ? undefined : this.string(value, name)
  }

  private boolean(value: unknown, name: string, fallback: boolean): boolean {
    if (value === undefined || value === null) return fallback
    return typeof value === 'boolean' ? value : this.fail(name, 'true or false', value)
  }

  private fail(name: string, expected: string, actual: unknown): never {
    throw new ImplexError(
      'ERR_TOKENIZER_INVALID',
      `${this.file}: ${name} must be ${expected}; got ${describe(actual)}`,
      {
        path: this.file,
      },
    )
  }

  private unsupported(name: string, actual: unknown, known: string): never {
    throw new ImplexError(
      'ERR_TOKENIZER_INVALID',
      `${this.file}: ${name} of type ${describe(actual)} is not supported (supported: ${known})`,
      { path: this.file },
    )
  }
}
