/** The rule for the beginning-of-sequence token, which scoring and training must keep alike. */
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { checkBeginning, type SequenceEnds } from '../lib/data/beginning.js'
import type { EncodedRow, EncodeSettings } from '../lib/data/encode.js'
import type { EncodePool } from '../lib/data/encode-pool.js'
import { rowSource } from '../lib/data/sources.js'
import { scoreRows } from '../lib/data/score-rows.js'
import { loadPairs } from '../lib/train/pairs.js'
import { failure } from './support/engine.js'

const BOS = 9
const ENDS = { bosTokenId: BOS, eosTokenId: 2 }

const row = (prompt: number[], ...responses: number[][]): EncodedRow => ({
  index: 0,
  line: 4,
  shape: 'pair',
  prompt: Int32Array.from(prompt),
  responses: responses.map((ids) => Int32Array.from(ids)),
})
const good = row([BOS, 3], [4, BOS], [5, BOS, BOS]) // inside a text it is the text's own affair
const twice = row([BOS, BOS, 3], [4], [5])
const between = row([BOS, 3], [4], [BOS, 5])
const whole = row([], [BOS, 3], [BOS, 4]) // verification prompts without a common beginning
const wholeTwice = row([], [BOS, 3], [BOS, BOS, 4])

async function* chunks(one: EncodedRow): AsyncGenerator<EncodedRow[]> {
  yield [one]
}

async function score(one: EncodedRow, ends: SequenceEnds): Promise<void> {
  const options = { batchTokens: 64, onError: 'stop', skipLong: false, ...ends } as const
  for await (const _ of scoreRows(chunks(one), async (items) => items.map(() => ({ reward: 1 })), options));
}

async function load(one: EncodedRow, ends: SequenceEnds): Promise<void> {
  const pool = { encode: () => chunks(one) } as unknown as EncodePool
  const settings: EncodeSettings = {
    kind: 'implicit',
    border: 'whole',
    onLong: 'error',
    contextLength: 64,
    vocabularySize: 64,
  }
  await loadPairs(rowSource([]), pool, settings, ends)
}

const beginning = suite('beginning of sequence')

for (const [name, one, message] of [
  ['two at the start', twice, /^(the rows: )?line 4: the prompt begins with two beginning-of-sequence tokens \(id 9\)/],
  ['one between prompt and response', between, /line 4: a response begins with the beginning-of-sequence token/],
  ['two at the start of a verification prompt', wholeTwice, /line 4: the prompt begins with two/],
] as const) {
  beginning(`${name}: refused by scoring and training alike`, async () => {
    for (const check of [score, load]) {
      const error = await failure(() => check(one, ENDS))
      assert.is(error.code, 'ERR_SELF_CHECK')
      assert.match(error.message, message)
    }
  })

  beginning(`${name}: allowed where the token also ends a text, and where there is none`, async () => {
    for (const ends of [{ bosTokenId: BOS, eosTokenId: BOS }, { eosTokenId: 2 }, {}]) {
      await score(one, ends)
      await load(one, ends)
    }
  })
}

beginning('one at the start is as it should be', async () => {
  for (const one of [good, whole, row([3], [4], [5])]) {
    checkBeginning(one, ENDS)
    await score(one, ENDS)
    await load(one, ENDS)
  }
})
beginning.run()
