/**
 * Do two checkpoints turn text into the same ids? An implicit reward compares two models' probabilities of the same tokens.
 *
 * What decides ids is compared, not the files: normalizer, cuts, merges and vocabulary must be the same. Added tokens that the two do not
 * share count only where they occur: such a text is tokenized by both.
 */
import { isDeepStrictEqual } from 'node:util'
import { ImplexError } from '../core/errors.js'
import { byteAlphabet } from '../text/byte-level.js'
import { Tokenizer } from '../text/tokenizer.js'
import { readTokenizer, type TokenizerFolder } from '../text/tokenizer-folder.js'
import type { AddedTokenSpec, BpeSpec, TokenizerSpec } from '../text/tokenizer-json.js'

/** Throws ERR_TOKENIZER_INVALID where the other tokenizer gives a text other ids than these. */
export type TextCheck = (text: string, ids: ArrayLike<number>) => void

export interface TokenizerMatch {
  /** What differs for texts of any kind; undefined when nothing does. */
  difference?: string
  /** Where tokens are not shared: to be called for every text that is encoded. */
  check?: TextCheck
}

/**
 * @param markers tokens that the chat template adds to both vocabularies
 * @param adapter of the first: see TextEncoderOptions
 * @returns {} for a second checkpoint without a tokenizer: it has nothing to contradict
 * @throws ImplexError as readTokenizer does
 */
export async function compareTokenizers(
  path: string,
  otherPath: string,
  markers: readonly AddedTokenSpec[] = [],
  adapter?: string,
): Promise<TokenizerMatch> {
  const other = await readOther(otherPath)
  if (other === undefined) return {}
  const own = await readTokenizer(path, adapter)
  const difference = findDifference(own.spec, other.spec)
  if (difference !== undefined) return { difference }
  const disputed = disputedTokens(own.spec, other.spec)
  if (disputed.length === 0) return {}
  const missing = markers.filter(({ content }) => !other.spec.addedTokens.some((token) => token.content === content))
  other.spec.addedTokens.push(...missing)
  return { check: textCheck(new Tokenizer(other.spec, other.file), disputed, otherPath) }
}

async function readOther(path: string): Promise<TokenizerFolder | undefined> {
  try {
    return await readTokenizer(path)
  } catch (error) {
    if (error instanceof ImplexError && error.code === 'ERR_TOKENIZER_MISSING') return undefined
    throw error
  }
}

function findDifference(a: TokenizerSpec, b: TokenizerSpec): string | undefined {
  if (!isDeepStrictEqual(a.normalizers, b.normalizers)) return 'normalizer'
  if (!isDeepStrictEqual(a.steps, b.steps)) return 'pre-tokenizer'
  if (!sameMerges(a.model.merges, b.model.merges)) return 'merges'
  if (!isDeepStrictEqual(settings(a), settings(b))) return "model's settings"
  return sameVocabulary(a, b) && sameVocabulary(b, a) ? undefined : 'vocabulary'
}

function sameMerges(a: BpeSpec['merges'], b: BpeSpec['merges']): boolean {
  return a.length === b.length && a.every(([left, right], i) => left === b[i]![0] && right === b[i]![1])
}

/** What the merging depends on besides merges and vocabulary. */
function settings({ steps, model }: TokenizerSpec): unknown {
  const { unkToken, fuseUnk, byteFallback, ignoreMerges, endOfWordSuffix } = model
  // Bytes that are all in the vocabulary leave nothing unknown.
  const complete = steps.some(({ type }) => type === 'bytes') && byteAlphabet().every((char) => char in model.vocab)
  return [ignoreMerges, endOfWordSuffix, ...(complete ? [] : [unkToken, fuseUnk, byteFallback])]
}

/** Whether every token that texts can be merged into, in `a`, is the same in `b`. The merges are known to be equal. */
function sameVocabulary(a: TokenizerSpec, b: TokenizerSpec): boolean {
  const added = new Set([...a.addedTokens, ...b.addedTokens].map(({ content }) => content))
  return Object.entries(a.model.vocab).every(([token, id]) => {
    if (added.has(token) || b.model.vocab[token] === id) return true
    if (Object.hasOwn(b.model.vocab, token)) return false
    // What merges make is in both vocabularies; a token that begins as one, or is taken as a whole, need not be.
    const whole = a.model.ignoreMerges || a.model.endOfWordSuffix !== undefined
    return !whole && [...token].length > 1 && !/^<0x[0-9A-F]{2}>$/.test(token)
  })
}

/** Added tokens that one of the two has alone, under another id, or cuts out in another way. */
function disputedTokens(a: TokenizerSpec, b: TokenizerSpec): AddedTokenSpec[] {
  const normalizes = a.normalizers.length > 0
  const facts = ({ normalized, ...token }: AddedTokenSpec) => ({ ...token, normalized: normalized && normalizes })
  const inA = new Map(a.addedTokens.map((token) => [token.content, facts(token)]))
  const inB = new Map(b.addedTokens.map((token) => [token.content, facts(token)]))
  const all = new Map([...inA, ...inB])
  return [...all.values()].filter(({ content }) => !isDeepStrictEqual(inA.get(content), inB.get(content)))
}

function textCheck(other: Tokenizer, disputed: readonly AddedTokenSpec[], otherPath: string): TextCheck {
  const contents = disputed.map(({ content }) => content).sort((a, b) => b.length - a.length)
  const pattern = new RegExp(contents.map((content) => content.replace(/[.*+?^${}()|[\]\\/-]/g, '\\$&')).join('|'))
  // A token that is looked for in normalized text may hide in a text that has not its letters.
  const hidden = disputed.some(({ normalized }) => normalized)
  return (text, ids) => {
    const found = pattern.exec(text)?.[0]
    if (found === undefined && !hidden) return
    const others = other.encode(text)
    if (others.length === ids.length && others.every((id, i) => id === ids[i])) return
    throw new ImplexError(
      'ERR_TOKENIZER_INVALID',
      `the token ${JSON.stringify(found ?? contents[0])} occurs, and the reference's tokenizer (${otherPath}) makes other ids of it; an ` +
        'implicit reward compares probabilities of the same tokens: leave such rows out, or give both models the same tokenizer',
      { path: otherPath },
    )
  }
}
