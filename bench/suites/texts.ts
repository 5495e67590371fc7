/**
 * Preference pairs to time with: from a file, or made up with lengths like UltraFeedback's (about 121 tokens of prompt and 288 of each
 * response, with a long tail).
 */
import { readJsonl } from '../../lib/data/jsonl.js'
import { parseRow } from '../../lib/data/parse-row.js'
import { ImplexError } from '../../lib/core/errors.js'
import { Random } from '../../lib/core/random.js'

export interface Pair {
  prompt: string
  chosen: string
  rejected: string
}

const LEXICON = 8000
const MEAN_PROMPT = 121
const MEAN_RESPONSE = 288

/** The first `count` pairs of a JSONL file of plain texts. */
export async function pairsOf(path: string, count: number): Promise<Pair[]> {
  const pairs: Pair[] = []
  for await (const rows of readJsonl(path, { limit: count }).chunks()) {
    for (const { text, index, line } of rows) {
      const { prompt, responses } = parseRow(parsed(text), index, line)
      const [chosen, rejected] = responses
      if (typeof prompt !== 'string' || typeof chosen !== 'string' || typeof rejected !== 'string') {
        throw new ImplexError('ERR_ROW_INVALID', `${path}, line ${line}: benchmarks take pairs of plain texts`, {
          path,
        })
      }
      pairs.push({ prompt, chosen, rejected })
    }
  }
  if (pairs.length === 0) throw new ImplexError('ERR_ROW_INVALID', `${path} has no rows`, { path })
  return pairs
}

/** What is not JSON is no row either: parseRow says so with the line. */
function parsed(text: string | undefined): unknown {
  try {
    return JSON.parse(text ?? '')
  } catch {
    return undefined
  }
}

/** The same seed gives the same texts. */
export function madeUpPairs(count: number, seed = 1): Pair[] {
  const random = Random.seeded(seed, 10)
  const syllables = [
    'ba',
    'den',
    'lo',
    'mir',
    'ta',
    've',
    'sor',
    'ni',
    'kul',
    'pre',
    'ga',
    'stin',
    'ro',
    'ex',
    'um',
    'th',
  ]
  const words = Array.from({ length: LEXICON }, () =>
    Array.from({ length: 1 + random.below(4) }, () => syllables[random.below(syllables.length)]).join(''),
  )
  // A word is about one token under a vocabulary made from these texts. Small indices are drawn more often, as in language.
  const text = (mean: number) => {
    const sigma = 0.7
    const length = Math.max(4, Math.round(mean * Math.exp(sigma * random.normal() - sigma ** 2 / 2)))
    return Array.from({ length }, () => words[Math.floor(LEXICON * random.unit() ** 3)]).join(' ')
  }
  return Array.from({ length: count }, () => ({
    prompt: text(MEAN_PROMPT),
    chosen: text(MEAN_RESPONSE),
    rejected: text(MEAN_RESPONSE),
  }))
}

export const allTexts = (pairs: readonly Pair[]): string[] =>
  pairs.flatMap(({ prompt, chosen, rejected }) => [prompt, chosen, rejected])
