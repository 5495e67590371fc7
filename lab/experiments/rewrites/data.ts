/**
 * Data sets of section 5.2 of arXiv 2507.07981: one to train on, others that ask for the same preference under another wording, another
 * language or in another domain.
 */
import type { PairRow, RowGroup, Text } from '../../../lib/data/rows.js'
import { parseRow } from '../../../lib/data/parse-row.js'
import { ImplexError } from '../../../lib/core/errors.js'
import { Random } from '../../../lib/core/random.js'
import { inFile, readRows } from '../read-rows.js'

const STREAM = 21

/** All pairs of a JSON Lines file. @throws ImplexError ERR_ROW_INVALID naming file and line, ERR_IO */
export async function readPairs(file: string): Promise<PairRow[]> {
  const pairs: PairRow[] = []
  for await (const { value, fail, index, line } of readRows(file)) {
    // What is wrong with a row is told now, and not in the middle of the second training.
    try {
      const group = parseRow(value, index, line)
      if (group.shape !== 'pair') throw fail(`is a group of ${group.responses.length} responses; a pair is needed here`)
      pairs.push(pairOf(group))
    } catch (error) {
      throw error instanceof ImplexError ? inFile(file, error) : error
    }
  }
  if (pairs.length === 0) throw new ImplexError('ERR_ROW_INVALID', `${file} has no rows`, { path: file })
  return pairs
}

/** The pair as a row of the plain shape, whatever shape the file has. */
function pairOf({ id, prompt, responses, margin, inputs }: RowGroup): PairRow {
  const [chosen, rejected] = responses as [Text, Text]
  return {
    ...(id === undefined ? {} : { id }),
    prompt,
    chosen,
    rejected,
    ...(margin === undefined ? {} : { margin }),
    ...(inputs?.tools === undefined ? {} : { tools: [...inputs.tools] }),
    ...(inputs?.documents === undefined ? {} : { documents: [...inputs.documents] }),
    ...(inputs?.variables === undefined ? {} : { chat_template_kwargs: inputs.variables }),
  }
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
