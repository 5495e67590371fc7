/**
 * Token ids back to text: the inverse of what a tokenizer does after its cuts (byte-level encoding, word marks, bytes of characters that the
 * vocabulary lacks). What normalization changed stays changed.
 */
import { byteAlphabet } from './byte-level.js'
import type { TokenizerSpec } from './tokenizer-json.js'

/** What a token stands for: bytes of UTF-8, which may be a part of a character. */
type Token = { bytes: Uint8Array; added: boolean }

export class TokenDecoder {
  private readonly tokens = new Map<number, string>()
  private readonly added = new Map<number, string>()
  private readonly bytesOf: (token: string) => Uint8Array
  /** Encoding writes a space before a text, which is not part of it. */
  private readonly stripsSpace: boolean

  constructor(spec: TokenizerSpec, vocab: Iterable<[string, number]>) {
    for (const [token, id] of vocab) this.tokens.set(id, token)
    for (const { id, content } of spec.addedTokens) this.added.set(id, content)
    const prepends = spec.normalizers.some((step) => step.type === 'Prepend')
    this.stripsSpace =
      prepends ||
      spec.steps.some((step) => step.type === 'prefix-space' || (step.type === 'metaspace' && step.prepend !== 'never'))
    this.bytesOf = spec.steps.some((step) => step.type === 'bytes') ? byteLevel() : pieces(spec)
  }

  /** See Tokenizer.texts. */
  texts(ids: Iterable<number>): string[] {
    const texts: string[] = []
    // ignoreBOM: the mark is text too. Bytes of a character that is not whole yet wait in the decoder.
    const decoder = new TextDecoder('utf-8', { ignoreBOM: true })
    const flush = () => {
      const rest = decoder.decode()
      if (rest !== '') texts[texts.length - 1] += rest
    }
    for (const id of ids) {
      const { bytes, added } = this.token(id)
      if (added) flush()
      texts.push(decoder.decode(bytes, { stream: true }))
    }
    flush()
    if (this.stripsSpace && texts[0]?.startsWith(' ')) texts[0] = texts[0].slice(1)
    return texts
  }

  private token(id: number): Token {
    const content = this.added.get(id)
    if (content !== undefined) return { bytes: encoder.encode(content), added: true }
    const token = this.tokens.get(id)
    return { bytes: token === undefined ? new Uint8Array(0) : this.bytesOf(token), added: false }
  }
}

const encoder = new TextEncoder()

function byteLevel(): (token: string) => Uint8Array {
  const bytes = new Map(byteAlphabet().map((character, byte) => [character, byte]))
  // A token with characters that are no byte's is text as it stands.
  return (token) => {
    const values = [...token].map((character) => bytes.get(character))
    return values.includes(undefined) ? encoder.encode(token) : Uint8Array.from(values as number[])
  }
}

/** SentencePiece's: marks stand for spaces, `<0x0A>` for a byte. */
function pieces({ normalizers, steps, model }: TokenizerSpec): (token: string) => Uint8Array {
  const marks = new Set<string>()
  for (const step of steps) if (step.type === 'metaspace') marks.add(step.replacement)
  for (const step of normalizers) {
    if (step.type === 'Replace' && 'String' in step.pattern && step.pattern.String === ' ') marks.add(step.content)
  }
  marks.delete('')
  const suffix = model.endOfWordSuffix
  return (token) => {
    const byte = model.byteFallback ? /^<0x([0-9A-Fa-f]{2})>$/.exec(token) : null
    if (byte !== null) return Uint8Array.of(Number.parseInt(byte[1]!, 16))
    let text = token
    for (const mark of marks) text = text.replaceAll(mark, ' ')
    if (suffix !== undefined && text.endsWith(suffix)) text = `${text.slice(0, -suffix.length)} `
    return encoder.encode(text)
  }
}
