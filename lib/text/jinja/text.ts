/**
 * Python's view of text: characters are code points, white space and letters are Unicode's.
 */
import { RenderFault } from './errors.js'

/** What Python's str.isspace() accepts, for use in a character class. JavaScript's \s is another set. */
export const SPACE = '\\t-\\r\\x1c-\\x1f \\x85\\xa0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000'
const IS_SPACE = new RegExp(`[${SPACE}]`)
const SPACES = new RegExp(`[${SPACE}]+`, 'g')
// biome-ignore lint/suspicious/noControlCharactersInRegex: Python's line ends are control characters
const LINE_END = /\r\n|[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]/g

/** Whether some characters take two UTF-16 units, so that units and characters are counted apart. */
export function isWide(text: string): boolean {
  return /[\ud800-\udbff][\udc00-\udfff]/.test(text)
}

export function characters(text: string): string[] {
  return isWide(text) ? [...text] : text.split('')
}

export function length(text: string): number {
  return isWide(text) ? [...text].length : text.length
}

/** Order by code points, as Python's <; JavaScript's own goes by UTF-16 units. */
export function compareText(a: string, b: string): number {
  const size = Math.min(a.length, b.length)
  for (let i = 0; i < size; i++) {
    if (a.charCodeAt(i) === b.charCodeAt(i)) continue
    const [left, right] = [a.codePointAt(i) as number, b.codePointAt(i) as number]
    return left - right
  }
  return a.length - b.length
}

export function stripStart(text: string, set: string | null): string {
  const strips = stripper(set)
  let start = 0
  while (start < text.length) {
    const character = String.fromCodePoint(text.codePointAt(start) as number)
    if (!strips(character)) break
    start += character.length
  }
  return text.slice(start)
}

export function stripEnd(text: string, set: string | null): string {
  const strips = stripper(set)
  let end = text.length
  while (end > 0) {
    const pair = end > 1 && isWide(text.slice(end - 2, end))
    const character = text.slice(end - (pair ? 2 : 1), end)
    if (!strips(character)) break
    end -= character.length
  }
  return text.slice(0, end)
}

function stripper(set: string | null): (character: string) => boolean {
  if (set === null) return (character) => IS_SPACE.test(character)
  const members = new Set(set)
  return (character) => members.has(character)
}

/** str.split: at runs of white space when `separator` is null. */
export function split(text: string, separator: string | null, most: number): string[] {
  const limit = most < 0 ? Number.POSITIVE_INFINITY : most
  if (separator !== null) return splitAt(text, separator, limit)
  const parts: string[] = []
  let rest = stripStart(text, null)
  if (limit === Number.POSITIVE_INFINITY) return rest === '' ? [] : stripEnd(rest, null).split(SPACES)
  while (rest !== '' && parts.length < limit) {
    SPACES.lastIndex = 0
    const found = SPACES.exec(rest)
    if (found === null) break
    parts.push(rest.slice(0, found.index))
    rest = rest.slice(found.index + found[0].length)
  }
  if (rest !== '') parts.push(parts.length < limit ? stripEnd(rest, null) : rest)
  return parts
}

function splitAt(text: string, separator: string, limit: number): string[] {
  if (separator === '') throw new RenderFault('empty separator')
  const parts = text.split(separator)
  if (parts.length - 1 <= limit) return parts
  return [...parts.slice(0, limit), parts.slice(limit).join(separator)]
}

/** str.rsplit: the same parts, but a limit is counted from the end. */
export function splitFromEnd(text: string, separator: string | null, most: number): string[] {
  if (most < 0) return split(text, separator, most)
  if (separator !== null) {
    const parts = splitAtEnd(text, separator)
    const kept = Math.max(0, parts.length - 1 - most)
    return [parts.slice(0, kept + 1).join(separator), ...parts.slice(kept + 1)]
  }
  const parts: string[] = []
  let rest = stripEnd(text, null)
  while (rest !== '' && parts.length < most) {
    let start = rest.length
    while (start > 0 && !IS_SPACE.test(rest.charAt(start - 1))) start--
    if (start === 0) break
    parts.unshift(rest.slice(start))
    rest = stripEnd(rest.slice(0, start), null)
  }
  if (rest !== '') parts.unshift(parts.length < most ? stripStart(rest, null) : rest)
  return parts
}

/** Occurrences are looked for from the end: "aaa" has "aa" at 1, not at 0. */
function splitAtEnd(text: string, separator: string): string[] {
  if (separator === '') throw new RenderFault('empty separator')
  const parts: string[] = []
  let end = text.length
  for (;;) {
    const found = end < separator.length ? -1 : text.lastIndexOf(separator, end - separator.length)
    if (found < 0) return [text.slice(0, end), ...parts.reverse()]
    parts.push(text.slice(found + separator.length, end))
    end = found
  }
}

export function splitLines(text: string, keepEnds: boolean): string[] {
  const lines: string[] = []
  let start = 0
  for (const end of text.matchAll(LINE_END)) {
    const next = end.index + end[0].length
    lines.push(text.slice(start, keepEnds ? next : end.index))
    start = next
  }
  if (start < text.length) lines.push(text.slice(start))
  return lines
}

/** str.replace of the first `most` occurrences, all when negative. */
export function replace(text: string, old: string, by: string, most: number): string {
  if (old === by || most === 0) return text
  if (old !== '' && most < 0) return text.split(old).join(by)
  const parts = old === '' ? ['', ...characters(text), ''] : text.split(old)
  const count = most < 0 ? parts.length - 1 : Math.min(most, parts.length - 1)
  return (
    parts.slice(0, count + 1).join(by) +
    parts
      .slice(count + 1)
      .map((part) => old + part)
      .join('')
  )
}

/** How often `part` occurs without overlap. */
export function count(text: string, part: string): number {
  if (part === '') return length(text) + 1
  let found = 0
  for (let at = text.indexOf(part); at >= 0; at = text.indexOf(part, at + part.length)) found++
  return found
}

/** First letter upper case, the others lower case. */
export function capitalize(text: string): string {
  const [first = ''] = text
  return titleCase(first) + text.slice(first.length).toLowerCase()
}

/** str.title: a letter after another letter is lower case, any other upper case. */
export function title(text: string): string {
  return text.replace(/(\p{Cased})([\p{Cased}\p{Mn}]*)/gu, (_, first: string, others: string) => {
    // In front of the others an "a": a sigma at the end of a word is written otherwise.
    return titleCase(first) + (others === '' ? '' : `a${others}`.toLowerCase().slice(1))
  })
}

/** The upper case of a character at the start of a word: "ǆ" becomes "ǅ", and of "ß" only the first letter is upper case. */
function titleCase(character: string): string {
  if (character === '') return ''
  const digraph = ['ǄǅǆǇǈǉǊǋǌ', 'ǱǲǳǱǲǳǱǲǳ'].find((triples) => triples.includes(character))
  if (digraph !== undefined) return digraph.charAt(Math.floor(digraph.indexOf(character) / 3) * 3 + 1)
  const [first = '', ...others] = character.toUpperCase()
  return first + others.join('').toLowerCase()
}

/** The classes of str.isalpha() and the like: what every character must be. */
const CLASSES = {
  isalpha: /^\p{L}+$/u,
  isalnum: /^[\p{L}\p{N}]+$/u,
  isdecimal: /^\p{Nd}+$/u,
  isdigit:
    /^[\p{Nd}\u00b2\u00b3\u00b9\u1369-\u1371\u19da\u2070\u2074-\u2079\u2080-\u2089\u2460-\u2468\u2474-\u247c\u2488-\u2490\u24ea\u24f5-\u24fd\u24ff\u2776-\u277e\u2780-\u2788\u278a-\u2792]+$/u,
  isnumeric: /^\p{N}+$/u,
  isspace: new RegExp(`^[${SPACE}]+$`),
  // biome-ignore lint/suspicious/noControlCharactersInRegex: every ASCII character
  isascii: /^[\x00-\x7f]*$/,
} satisfies Record<string, RegExp>

export type CharacterClass = keyof typeof CLASSES
export const CHARACTER_CLASSES = Object.keys(CLASSES) as CharacterClass[]

export function isAll(name: CharacterClass, text: string): boolean {
  return CLASSES[name].test(text)
}

export function isLower(text: string): boolean {
  return /\p{Lowercase}/u.test(text) && !/[\p{Uppercase}\p{Lt}]/u.test(text)
}

export function isUpper(text: string): boolean {
  return /\p{Uppercase}/u.test(text) && !/[\p{Lowercase}\p{Lt}]/u.test(text)
}
