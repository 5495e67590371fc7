/**
 * Added tokens (special ones among them) are cut out of a text before anything else sees it: leftmost first, the longest at each place.
 */
import type { AddedTokenSpec } from './tokenizer-json.js'

/** Either text between added tokens, or the id of one. `start` is the offset in the text that was given. */
export type Section = { start: number; text: string } | { start: number; id: number }

const SPACE = /\p{White_Space}/u
const WORD_AT_END = /[\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\p{Join_Control}]$/u
const WORD_AT_START = /^[\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\p{Join_Control}]/u

export class AddedTokenSplitter {
  private readonly tokens = new Map<string, AddedTokenSpec>()
  private readonly pattern: RegExp | undefined

  /** `tokens`: each with the text to look for (its content, normalized where the tokenizer looks in normalized text). */
  constructor(tokens: Iterable<[string, AddedTokenSpec]>) {
    for (const [content, token] of tokens) this.tokens.set(content, token)
    // An alternation takes the first alternative that matches, so the longest come first.
    const contents = [...this.tokens.keys()].sort((a, b) => b.length - a.length)
    if (contents.length > 0) this.pattern = new RegExp(contents.map(escapePattern).join('|'), 'g')
  }

  split(text: string): Section[] {
    if (this.pattern === undefined) return text === '' ? [] : [{ start: 0, text }]
    const sections: Section[] = []
    let end = 0
    for (const match of text.matchAll(this.pattern)) {
      const token = this.tokens.get(match[0]) as AddedTokenSpec
      let start = match.index
      let stop = start + match[0].length
      if (token.singleWord && (touchesWord(text, start, WORD_AT_END) || touchesWord(text, stop, WORD_AT_START)))
        continue
      if (token.lstrip) while (start > end && SPACE.test(text.charAt(start - 1))) start--
      if (token.rstrip) while (stop < text.length && SPACE.test(text.charAt(stop))) stop++
      if (start > end) sections.push({ start: end, text: text.slice(end, start) })
      sections.push({ start, id: token.id })
      end = stop
    }
    if (end < text.length) sections.push({ start: end, text: text.slice(end) })
    return sections
  }
}

/** Whether the character before (WORD_AT_END) or after (WORD_AT_START) `at` belongs to a word. */
function touchesWord(text: string, at: number, side: RegExp): boolean {
  return side.test(side === WORD_AT_END ? text.slice(Math.max(0, at - 2), at) : text.slice(at, at + 2))
}

function escapePattern(text: string): string {
  return text.replace(/[.*+?^${}()|[\]\\/-]/g, '\\$&')
}
