/**
 * Data sets of section 5.2 of arXiv 2507.07981: one to train on, others that ask for the same preference under another wording, another
 * language or in another domain.
 */
import { type PairRow, parseRow, type RowGroup } from '../../../lib/data/rows.js'
import { ImplexError } from '../../../lib/core/errors.js'
import { Random } from '../../../lib/core/random.js'
import { inFile, readRows } from '../read-rows.js'

const STREAM = 21

/** All pairs of a JSON Lines file. @throws ImplexError ERR_ROW_INVALID naming file and line, ERR_IO */
export async function readPairs(file: string): Promise<PairRow[]> {
  const pairs: PairRow[] = []
  for await (const { value, fail, index, line } of readRows(file)) {
    // What is wrong with a row is told now, and not in the middle of the second training.
    let shape: RowGroup['shape']
    try {
      shape = parseRow(value, index, line).shape
    } catch (error) {
      throw error instanceof ImplexError ? inFile(file, error) : error
    }
    if (shape !== 'pair') throw fail('has "responses"; a pair is needed here')
    const { prompt, chosen, rejected, id, margin } = value as unknown as PairRow
    pairs.push({
      ...(id === undefined ? {} : { id }),
      ...(prompt === undefined ? {} : { prompt }),
      chosen,
      rejected,
      ...(typeof margin === 'number' ? { margin } : {}),
    })
  }
  if (pairs.length === 0) throw new ImplexError('ERR_ROW_INVALID', `${file} has no rows`, { path: file })
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
      `${file} has ${pairs.length} pairs, fewer than the ${count} that were requested`,
      {
        path: file,
      },
    )
  }
  const order = Random.seeded(seed, STREAM).permutation(pairs.length)
  return Array.from(order.subarray(0, count).sort(), (i) => pairs[i]!)
}
