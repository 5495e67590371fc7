/**
 * Trains byte-pair merges (Sennrich, Haddow, Birch 2016) over the bytes of pre-tokenized words: no kept npm library trains them, and for a
 * vocabulary of this size counting anew after each merge is quick enough.
 */
import { byteAlphabet } from '../../../lib/text/byte-level.js'

export type Merge = [string, string]

interface Word {
  parts: string[]
  count: number
}

/**
 * @param pieces how often each piece of text occurs; merges stay within a piece
 * @param limit most merges
 * @param first merges made before any is counted
 */
export function trainMerges(pieces: ReadonlyMap<string, number>, limit: number, first: readonly Merge[] = []): Merge[] {
  const alphabet = byteAlphabet()
  const words = [...pieces].map(([piece, count]): Word => {
    return { parts: Array.from(Buffer.from(piece, 'utf8'), (byte) => alphabet[byte]!), count }
  })
  const merges: Merge[] = []
  const take = (merge: Merge) => {
    merges.push(merge)
    for (const word of words) apply(word, merge)
  }
  for (const merge of first) take(merge)
  while (merges.length < limit) {
    const best = mostFrequent(words)
    if (best === undefined) break
    take(best)
  }
  return merges
}

function apply(word: Word, [left, right]: Merge): void {
  const { parts } = word
  for (let i = 0; i + 1 < parts.length; i++) {
    if (parts[i] === left && parts[i + 1] === right) parts.splice(i, 2, left + right)
  }
}

/** The pair that occurs most often, at least twice; of equals the one that sorts first. */
function mostFrequent(words: readonly Word[]): Merge | undefined {
  const counts = new Map<string, number>()
  for (const { parts, count } of words) {
    for (let i = 0; i + 1 < parts.length; i++) {
      // No part has a space: byte 32 is written Ġ.
      const pair = `${parts[i]} ${parts[i + 1]}`
      counts.set(pair, (counts.get(pair) ?? 0) + count)
    }
  }
  let best: string | undefined
  let most = 1
  for (const [pair, count] of counts) {
    if (count > most || (count === most && best !== undefined && pair < best)) {
      best = pair
      most = count
    }
  }
  return best === undefined ? undefined : (best.split(' ') as Merge)
}
