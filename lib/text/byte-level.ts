/**
 * Byte-level BPE: the alphabet that bytes are written in, and the tokenizer.json, in Hugging Face form, of a vocabulary of implex's own making.
 */

/** GPT-2's printable character for each byte: printable Latin-1 stands for itself, the rest moves to 256 and up. */
export function byteAlphabet(): string[] {
  const printable = (byte: number) => (byte > 32 && byte < 127) || (byte > 160 && byte !== 173)
  let moved = 256
  return Array.from({ length: 256 }, (_, byte) => String.fromCharCode(printable(byte) ? byte : moved++))
}

/** What byte-level tokenizers of Llama 3 and Qwen cut text into before merging. */
export const LLAMA_PIECES =
  "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"

export interface ByteLevelVocabulary {
  /** Tokens of no text's bytes; they have the first ids. */
  special: readonly string[]
  /** All of them in the order of their ids, the special ones first, then the alphabet. */
  tokens: Iterable<string>
  merges: readonly (readonly [string, string])[]
  /** A regular expression of what text is cut into; merges stay within a piece. */
  pieces: string
  /** A piece that is in the vocabulary is one token whatever its merges would make of it. */
  ignoreMerges?: boolean
}

/** The content of tokenizer.json. */
export function byteLevelTokenizer({ special, tokens, merges, pieces, ignoreMerges = false }: ByteLevelVocabulary) {
  const byteLevel = { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: false }
  const flags = { single_word: false, lstrip: false, rstrip: false, normalized: false, special: true }
  return {
    version: '1.0',
    truncation: null,
    padding: null,
    added_tokens: special.map((content, id) => ({ id, content, ...flags })),
    normalizer: null,
    pre_tokenizer: {
      type: 'Sequence',
      pretokenizers: [{ type: 'Split', pattern: { Regex: pieces }, behavior: 'Isolated', invert: false }, byteLevel],
    },
    post_processor: null,
    decoder: byteLevel,
    model: {
      type: 'BPE',
      dropout: null,
      unk_token: null,
      continuing_subword_prefix: null,
      end_of_word_suffix: null,
      fuse_unk: false,
      byte_fallback: false,
      ignore_merges: ignoreMerges,
      vocab: Object.fromEntries(Array.from(tokens, (token, id) => [token, id])),
      merges,
    },
  }
}
