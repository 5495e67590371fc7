/**
 * Where the pieces of a text and those of its end alone come together. A pattern that looks ahead only cuts both in the same places from
 * the first one on at which both are cut and go on with the same letters, so that nothing after it need be cut twice.
 */

export interface Meeting {
  /** The pieces of the end alone, up to where the two meet. */
  before: string[]
  /** The number of the text's piece from which on both have the same; the number of all pieces where they never meet. */
  piece: number
}

/**
 * `pieces`: of `text`, cut at every match of `pattern`, which must have the global flag and look at nothing before the place where it is
 * tried. `end`: what the text ends with, but its first letters may differ.
 */
export function meetingOf(text: string, pieces: readonly string[], end: string, pattern: RegExp): Meeting {
  const before: string[] = []
  let last = 0
  let piece = 0
  let place = 0
  for (const start of pieceStarts(end, pattern)) {
    if (start > last) before.push(end.slice(last, start))
    last = start
    const same = text.length - end.length + start
    while (piece < pieces.length && place < same) place += pieces[piece++]!.length
    if (piece < pieces.length && place === same && text.startsWith(end.slice(start), place)) return { before, piece }
  }
  if (last < end.length) before.push(end.slice(last))
  return { before, piece: pieces.length }
}

/** Where the pieces of a cut at every match begin, one after the other, as far as they are asked for. */
function* pieceStarts(text: string, pattern: RegExp): Generator<number> {
  let end = 0
  for (const match of text.matchAll(pattern)) {
    if (match[0] === '') continue
    if (match.index > end) yield end
    yield match.index
    end = match.index + match[0].length
  }
  if (end < text.length) yield end
}
