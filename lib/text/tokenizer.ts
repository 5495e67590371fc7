/**
 * Text to token ids, exactly as the reference implementation of tokenizer.json (no special tokens added; those in the text are cut out).
 * The library does what is hard to get right: normalization, Oniguruma patterns in JavaScript, byte-level encoding, the merges. Cutting at
 * added tokens and at patterns is done here (split.ts, added-tokens.ts say how), and the ids of short pieces are remembered.
 */
import * as library from '@huggingface/tokenizers'
import { ImplexError } from '../core/errors.js'
import { AddedTokenSplitter, type Section } from './added-tokens.js'
import { meetingOf } from './meeting.js'
import { split } from './split.js'
import { TokenDecoder } from './token-decoder.js'
import type {
  AddedTokenSpec,
  BpeSpec,
  NormalizerStep,
  Pattern,
  PreTokenizerStep,
  TokenizerSpec,
} from './tokenizer-json.js'

// The library's own types import without file extensions, which NodeNext does not resolve: this says what is used of it.
const { BPE, ByteLevelPreTokenizer, SequenceNormalizer, SplitPreTokenizer } = library as unknown as {
  BPE: new (config: object) => { _call(pieces: string[]): string[] }
  ByteLevelPreTokenizer: new (config: object) => { pre_tokenize_text(text: string): string[] }
  SequenceNormalizer: new (config: object) => { normalize(text: string): string }
  SplitPreTokenizer: new (config: object) => { pattern: RegExp }
}

/** `first`: the piece starts where the whole text starts. */
type Step = (piece: string, first: boolean) => string[]

/** The ids that the end of a text has when it is tokenized alone: these, then what the whole text has from its id number `from` on. */
export interface Rejoin {
  alone: readonly number[]
  from: number
}

const CACHED_PIECE_LENGTH = 64
const CACHED_PIECES = 100_000

export class Tokenizer {
  private readonly vocab: Map<string, number>
  private readonly added = new Map<string, number>()
  private readonly addedIds = new Set<number>()
  private readonly model: (pieces: string[]) => string[]
  private readonly normalize: (text: string) => string
  /** Up to the last cut: what comes after works on each piece alone, so its result can be remembered per piece. */
  private readonly cutting: Step[]
  private readonly encoding: Step[]
  private readonly rawSplitter: AddedTokenSplitter
  private readonly decoder: TokenDecoder
  private readonly normalizedSplitter: AddedTokenSplitter
  private cache = new Map<string, readonly number[]>()
  /** About the first cut, if it looks ahead only: what follows a place where it cuts has the pieces that it has alone. */
  private readonly firstCut: RegExp | undefined
  /** Some added token, or a step before the cuts, looks at what stands to its left. */
  private readonly looksBack: boolean
  /** Ids lie in [0, size). */
  readonly size: number
  /** Told of every text that is encoded, with its ids; what it throws is the encoding's error. */
  watch: ((text: string, ids: ArrayLike<number>) => void) | undefined

  /** `file` is for messages. ERR_TOKENIZER_INVALID when a pattern is beyond the library. */
  constructor(spec: TokenizerSpec, file: string) {
    try {
      this.vocab = new Map(Object.entries(spec.model.vocab))
      this.model = bpe(spec.model)
      this.normalize = normalizer(spec.normalizers)
      const steps = [...spec.steps, ...cutsAtSpaces(spec)]
      const cuts = steps.findLastIndex((step) => step.type === 'split') + 1
      this.cutting = steps.slice(0, cuts).map(compile)
      this.encoding = steps.slice(cuts).map(compile)
      this.firstCut = steps[0] === undefined ? undefined : cutsApart(steps[0])
      this.looksBack =
        spec.addedTokens.some((token) => token.singleWord) ||
        steps.some((step) => step.type === 'metaspace' && step.prepend === 'first')
    } catch (cause) {
      throw new ImplexError('ERR_TOKENIZER_INVALID', `${file}: ${(cause as Error).message}`, { cause, path: file })
    }
    const raw: [string, AddedTokenSpec][] = []
    const normalized: [string, AddedTokenSpec][] = []
    for (const token of spec.addedTokens) {
      this.added.set(token.content, token.id)
      this.addedIds.add(token.id)
      if (token.normalized && spec.normalizers.length > 0) normalized.push([this.normalize(token.content), token])
      else raw.push([token.content, token])
    }
    this.rawSplitter = new AddedTokenSplitter(raw)
    this.normalizedSplitter = new AddedTokenSplitter(normalized.filter(([content]) => content !== ''))
    let largest = -1
    for (const ids of [this.vocab, this.added]) for (const id of ids.values()) largest = Math.max(largest, id)
    this.size = largest + 1
    this.decoder = new TokenDecoder(spec, this.vocab)
  }

  /** Lone surrogates, which no tokenizer can encode, count as U+FFFD. */
  encode(text: string): number[] {
    const ids: number[] = []
    for (const section of this.sections(text)) this.encodeSection(section, ids)
    this.watch?.(text, ids)
    return ids
  }

  /** The text's added tokens and what lies between them: each has ids of its own. */
  sections(text: string): Section[] {
    return this.rawSplitter.split(wellFormed(text))
  }

  /**
   * Appends a section's ids to `ids`. @returns what the section's text has from offset `at` on when it is tokenized alone; undefined where
   * that was not looked into
   */
  encodeSection(section: Section, ids: number[], at = -1): Rejoin | undefined {
    if ('id' in section) {
      ids.push(section.id)
      return undefined
    }
    return this.encodeText(section.text, section.start === 0, ids, at)
  }

  /** Whether a text that begins at the end of another one's last section has the ids that it has alone. */
  get startsAfresh(): boolean {
    return !this.looksBack
  }

  /** The id of exactly this token; undefined when the vocabulary lacks it. */
  tokenId(token: string): number | undefined {
    return this.added.get(token) ?? this.vocab.get(token)
  }

  /**
   * The text of each token, such that all joined are the text that the ids stand for. A character whose bytes are spread over several
   * tokens is in the last one's text; bytes that are no UTF-8 show as U+FFFD. An id without a token has no text.
   */
  texts(ids: Iterable<number>): string[] {
    return this.decoder.texts(ids)
  }

  /** Whether the id is an added token's: never part of a merge with its neighbors. */
  isAdded(id: number): boolean {
    return this.addedIds.has(id)
  }

  private encodeText(text: string, first: boolean, ids: number[], at: number): Rejoin | undefined {
    const sections = this.normalizedSplitter.split(this.normalize(text))
    const within = at > 0 && at < text.length
    const looked = within && this.firstCut !== undefined && !this.looksBack && sections.length === 1
    let rejoin: Rejoin | undefined
    for (const section of sections) {
      if ('id' in section) {
        ids.push(section.id)
        continue
      }
      const atStart = first && section.start === 0
      const [step, ...steps] = this.cutting
      const coarse = step === undefined ? [section.text] : step(section.text, atStart)
      if (looked) rejoin = this.encodeApart(section.text, coarse, text.slice(at), ids)
      else this.encodePieces(run(steps, coarse, atStart), atStart, ids)
    }
    return rejoin
  }

  /** Appends the ids of a text, given with its first cut, and finds those that its last part has alone. */
  private encodeApart(text: string, coarse: string[], end: string, ids: number[]): Rejoin | undefined {
    const [, ...steps] = this.cutting
    const encode = (pieces: string[], to: number[]) => this.encodePieces(run(steps, pieces, false), false, to)
    const normalized = this.normalize(wellFormed(end))
    const [only, ...others] = this.normalizedSplitter.split(normalized)
    if (only === undefined || 'id' in only || others.length > 0) {
      encode(coarse, ids)
      return undefined
    }
    const { before, piece } = meetingOf(text, coarse, normalized, this.firstCut as RegExp)
    encode(coarse.slice(0, piece), ids)
    const from = ids.length
    encode(coarse.slice(piece), ids)
    const alone: number[] = []
    encode(before, alone)
    return { alone, from }
  }

  private encodePieces(pieces: readonly string[], first: boolean, ids: number[]): void {
    for (const piece of pieces) for (const id of this.encodePiece(piece, first)) ids.push(id)
  }

  private encodePiece(piece: string, first: boolean): readonly number[] {
    // Without a cut before it, a step may depend on where the piece stands (metaspace); such pieces are whole sections, seldom seen twice.
    const cached = piece.length <= CACHED_PIECE_LENGTH && this.cutting.length > 0
    const known = cached ? this.cache.get(piece) : undefined
    if (known !== undefined) return known
    const ids: number[] = []
    for (const token of this.model(run(this.encoding, [piece], first))) {
      const id = this.vocab.get(token) ?? this.added.get(token)
      if (id === undefined)
        throw new ImplexError('ERR_INTERNAL', `the tokenizer made ${JSON.stringify(token)}, which has no id`)
      ids.push(id)
    }
    if (cached) {
      if (this.cache.size >= CACHED_PIECES) this.cache = new Map()
      this.cache.set(piece, ids)
    }
    return ids
  }
}

/** The pattern of a step that cuts at matches, looks at nothing before the place where it tries them, and keeps all of the text. */
function cutsApart(step: PreTokenizerStep): RegExp | undefined {
  if (step.type !== 'split' || step.behavior !== 'Isolated') return undefined
  // Look-behinds, word boundaries and anchors; ^ after [ is a negation.
  const looksAhead = 'String' in step.pattern || !/\(\?<[=!]|\\[AbBGZz]|(?<!\[)\^|\\K/.test(step.pattern.Regex)
  return looksAhead ? compilePattern(step.pattern) : undefined
}

function run(steps: readonly Step[], pieces: string[], first: boolean): string[] {
  for (const step of steps) pieces = pieces.flatMap((piece, i) => step(piece, first && i === 0))
  return pieces
}

function compile(step: PreTokenizerStep): Step {
  switch (step.type) {
    case 'split': {
      const pattern = compilePattern(step.pattern)
      return (piece) => split(piece, pattern, step.behavior, step.invert)
    }
    case 'prefix-space':
      return (piece) => [piece.startsWith(' ') ? piece : ` ${piece}`]
    case 'bytes': {
      const bytes = new ByteLevelPreTokenizer({
        type: 'ByteLevel',
        add_prefix_space: false,
        trim_offsets: false,
        use_regex: false,
      })
      return (piece) => bytes.pre_tokenize_text(piece)
    }
    case 'metaspace':
      return (piece, first) => {
        const text = piece.replaceAll(' ', () => step.replacement)
        const prepend = step.prepend === 'always' || (step.prepend === 'first' && first)
        return [prepend && !text.startsWith(step.replacement) ? step.replacement + text : text]
      }
  }
}

/** The library's split does not know all behaviors; its translation of the pattern is what is wanted. */
function compilePattern(pattern: Pattern): RegExp {
  if ('String' in pattern) {
    // An empty string matches nowhere.
    return pattern.String === '' ? /(?!)/g : new RegExp(pattern.String.replace(/[.*+?^${}()|[\]\\/]/g, '\\$&'), 'gu')
  }
  return new SplitPreTokenizer({ type: 'Split', pattern, behavior: 'Isolated', invert: false }).pattern
}

function normalizer(steps: NormalizerStep[]): (text: string) => string {
  if (steps.length === 0) return (text) => text
  const normalizers = steps.map((step) => {
    // The content goes to String.replaceAll, where a dollar sign is special.
    return step.type === 'Replace' ? { ...step, content: step.content.replaceAll('$', '$$$$') } : step
  })
  const sequence = new SequenceNormalizer({ type: 'Sequence', normalizers })
  return (text) => sequence.normalize(text)
}

function bpe(spec: BpeSpec): (pieces: string[]) => string[] {
  const model = new BPE({
    type: 'BPE',
    vocab: spec.vocab,
    merges: spec.merges,
    unk_token: spec.unkToken ?? null,
    fuse_unk: spec.fuseUnk,
    byte_fallback: spec.byteFallback,
    ignore_merges: spec.ignoreMerges,
    end_of_word_suffix: spec.endOfWordSuffix ?? null,
  })
  return (pieces) => model._call(pieces)
}

/**
 * Tokenizers converted from SentencePiece have no pre-tokenizer: a whole text is one piece for the merges. When no merge joins a word
 * mark to what stands before it, cutting there changes nothing but the speed: pieces become words, which repeat.
 */
function cutsAtSpaces({ model, steps }: TokenizerSpec): PreTokenizerStep[] {
  const mark = '\u2581'
  // ignore_merges and a suffix look at the piece as a whole; an unknown mark could be fused with unknown neighbors.
  if (model.ignoreMerges || model.endOfWordSuffix !== undefined || !Object.hasOwn(model.vocab, mark)) return []
  if (steps.some((step) => step.type !== 'metaspace')) return []
  if (model.merges.some(([left, right]) => /[^\u2581]\u2581/.test(left + right))) return []
  return [{ type: 'split', pattern: { Regex: `${mark}+[^${mark}]*|[^${mark}]+` }, behavior: 'Isolated', invert: false }]
}

function wellFormed(text: string): string {
  // In ES2024's library, in Node since version 20.
  return (text as string & { toWellFormed(): string }).toWellFormed()
}
