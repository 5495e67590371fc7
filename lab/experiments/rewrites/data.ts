/**
 * Data sets of section 5.2 of arXiv 2507.07981: one to train on, others that ask for the same preference under another wording, another
 * language or in another domain.
 */
import type { PairRow } from '../../../lib/data/rows.js'
import { parseRow } from '../../../lib/data/parse-row.js'
import { ImplexError } from '../../../lib/core/errors.js'
import { Random } from '../../../lib/core/random.js'
import { inFile, readRows } from '../read-rows.js'

const STREAM = 21

/** All pairs of a JSON Lines file. @throws ImplexError ERR_ROW_INVALID naming file and line, ERR_IO */
export async function readPairs(file: string): Promise<PairRow[]> {
  const pairs: PairRow[] = []
  let index = 0
  for await (const { value, fail } of readRows(file)) {
    // What is wrong with a row is told now, and not in the middle of the second training.
    try {
      if (parseRow(value, index++).shape !== 'pair') throw fail('has "responses"; a pair is needed here')
    } catch (error) {
      if (!(error instanceof ImplexError)) throw error
      throw error.path === undefined ? inFile(file, fail(error.message.replace(/^row \d+: /, ''))) : error
    }
    const { prompt, chosen, rejected, id, margin } = value as unknown as PairRow
    pairs.push({
      ...(id === undefined ? {} : { id }),
      ...(prompt === undefined ? {} : { prompt }),
      chosen,
      rejected,
      ...(typeof margin === 'number' ? { margin } : {}),
    })
  }
  if (pairs.length === 0) throw new ImplexError('ERR_ROW_INVALID', `${file}: it has no rows`, { path: file })
  return pairs
}

/**
 * `count` of the pairs, drawn without replacement and in file order.
 * @throws ImplexError ERR_ROW_INVALID when there are fewer
 */
export function sample(pairs: readonly PairRow[], count: number, seed: number, file: string): PairRow[] {
  if (pairs.length < count) {
    throw new ImplexError(
      'ERR_ROW_INVALID',
      `${file}: it has ${pairs.length} pairs, too few for the ${count} asked for`,
      {
        path: file,
      },
    )
  }
  const order = Random.seeded(seed, STREAM).permutation(pairs.length)
  return Array.from(order.subarray(0, count).sort(), (i) => pairs[i]!)
}
