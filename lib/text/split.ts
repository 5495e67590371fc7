/**
 * Cutting a text at the matches of a pattern, in the five ways that tokenizer.json knows. The pieces of each way, empty ones left out,
 * are those of the reference implementation.
 */
import type { SplitBehavior } from './tokenizer-json.js'

/** `pattern` must have the global flag. `invert` exchanges matches and what lies between them. */
export function split(text: string, pattern: RegExp, behavior: SplitBehavior, invert: boolean): string[] {
  // Isolated keeps every piece, match or not: the common case, without bookkeeping.
  if (behavior === 'Isolated') return cut(text, pattern).pieces
  const { pieces, matched } = cut(text, pattern)
  const isMatch = (i: number): boolean => matched[i] !== invert
  if (behavior === 'Removed') return pieces.filter((_, i) => !isMatch(i))
  if (behavior === 'Contiguous') return join(pieces, (i) => isMatch(i) === isMatch(i - 1))
  if (behavior === 'MergedWithPrevious') return join(pieces, (i) => isMatch(i) && !isMatch(i - 1))
  return join(pieces, (i) => isMatch(i - 1) && !isMatch(i))
}

/** Pieces in order; piece i joins the one before it when `joined(i)`. */
function join(pieces: string[], joined: (i: number) => boolean): string[] {
  const out: string[] = []
  pieces.forEach((piece, i) => {
    if (i > 0 && joined(i)) out[out.length - 1] += piece
    else out.push(piece)
  })
  return out
}

function cut(text: string, pattern: RegExp): { pieces: string[]; matched: boolean[] } {
  const pieces: string[] = []
  const matched: boolean[] = []
  let end = 0
  for (const match of text.matchAll(pattern)) {
    if (match[0] === '') continue
    if (match.index > end) {
      pieces.push(text.slice(end, match.index))
      matched.push(false)
    }
    pieces.push(match[0])
    matched.push(true)
    end = match.index + match[0].length
  }
  if (end < text.length) {
    pieces.push(text.slice(end))
    matched.push(false)
  }
  return { pieces, matched }
}
