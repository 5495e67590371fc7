/** The way of rows through the scoring, with an engine made up: order, back-pressure, early ends and errors. */
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import type { EncodedRow } from '../lib/data/encode.js'
import type { BatchScorer } from '../lib/data/rewards.js'
import { rowError } from '../lib/data/rows.js'
import { type ScoredRow, type ScoreRowsOptions, scoreRows } from '../lib/data/score-rows.js'
import { ImplexError } from '../lib/core/errors.js'
import { seededRandom } from './fixtures/random.js'
import { rejection, sleep, within } from './support/engine.js'

const OPTIONS: ScoreRowsOptions = { batchTokens: 50, onError: 'stop', skipLong: false }

const row = (index: number, responses = 2, length = 5): EncodedRow => ({
  index,
  line: index + 1,
  shape: responses === 2 ? 'pair' : 'group',
  prompt: Int32Array.of(1, 2, 3),
  responses: Array.from({ length: responses }, () => new Int32Array(length)),
})
const badRow = (index: number, code: 'ERR_ROW_INVALID' | 'ERR_ROW_TOO_LONG' = 'ERR_ROW_INVALID'): EncodedRow => ({
  index,
  shape: 'group',
  prompt: new Int32Array(0),
  responses: [],
  error: rowError(code, 'bad', { index, line: index + 1 }),
})

async function* chunks(rows: EncodedRow[], size = 3): AsyncGenerator<EncodedRow[]> {
  for (let i = 0; i < rows.length; i += size) yield rows.slice(i, i + size)
}

const rewardOf = (index: number, k: number) => index * 10 + k
const instant: BatchScorer = async (items) => items.map(({ slot, k }) => ({ reward: rewardOf(slot.row.index, k) }))

async function collect(rows: AsyncIterable<ScoredRow>): Promise<ScoredRow[]> {
  const all: ScoredRow[] = []
  for await (const one of rows) all.push(one)
  return all
}

const stream = suite('scoreRows')

stream('rows come in order with their rewards, however long batches take', async () => {
  const random = seededRandom(1)
  const rows = Array.from({ length: 100 }, (_, i) => row(i, 1 + random.below(4), 1 + random.below(40)))
  const slow: BatchScorer = async (items) => {
    await sleep(random.below(4))
    return instant(items)
  }
  const scored = await collect(scoreRows(chunks(rows), slow, OPTIONS))
  assert.equal(
    scored.map(({ index }) => index),
    rows.map(({ index }) => index),
  )
  for (const { index, rewards, tokens } of scored) {
    assert.equal(
      rewards,
      rows[index]!.responses.map((_, k) => rewardOf(index, k)),
    )
    assert.equal(
      tokens,
      rows[index]!.responses.map((response) => response.length),
    )
  }
})

stream('no more than two batches are under way, and the source is not read ahead of the consumer', async () => {
  let underWay = 0
  let most = 0
  let read = 0
  const counting: BatchScorer = async (items) => {
    most = Math.max(most, ++underWay)
    await sleep(1)
    underWay--
    return instant(items)
  }
  const source = async function* (): AsyncGenerator<EncodedRow[]> {
    for (let i = 0; i < 1000; i++) {
      read++
      yield [row(i)]
    }
  }
  let seen = 0
  for await (const _ of scoreRows(source(), counting, OPTIONS)) {
    seen++
    if (seen === 50) await sleep(30)
    // 50 tokens are 3 rows: two batches under way, two waiting, one being filled.
    assert.ok(read - seen < 24, `${read} rows read after ${seen} were handed out`)
  }
  assert.is(seen, 1000)
  assert.is(most, 2)
})

stream('a slow source does not hold back the rows that it has delivered', async () => {
  let release = () => {}
  const waiting = new Promise<void>((resolve) => {
    release = resolve
  })
  const source = async function* (): AsyncGenerator<EncodedRow[]> {
    yield [row(0)]
    await waiting
    yield [row(1)]
  }
  const rows = scoreRows(source(), instant, { ...OPTIONS, batchTokens: 10_000 })
  assert.is((await within(2000, 'the first row', rows.next())).value.index, 0)
  release()
  assert.is((await rows.next()).value.index, 1)
  assert.ok((await rows.next()).done)
})

stream('stop: the rows before a bad one come out, then its error', async () => {
  const rows = scoreRows(chunks([row(0), row(1), badRow(2), row(3)], 2), instant, OPTIONS)
  assert.is((await rows.next()).value.index, 0)
  assert.is((await rows.next()).value.index, 1)
  const error = await rejection(rows.next())
  assert.is(error.code, 'ERR_ROW_INVALID')
  assert.is((error as ImplexError).line, 3)
})

stream('skip: a bad row comes out in its place', async () => {
  const scored = await collect(
    scoreRows(chunks([badRow(0), row(1), badRow(2)]), instant, { ...OPTIONS, onError: 'skip' }),
  )
  assert.equal(
    scored.map(({ index, error, rewards }) => [index, error?.code, rewards.length]),
    [
      [0, 'ERR_ROW_INVALID', 0],
      [1, undefined, 2],
      [2, 'ERR_ROW_INVALID', 0],
    ],
  )
  assert.not(scored[0]!.skipped)
})

stream('rows beyond the context are left out by their own rule', async () => {
  const rows = [row(0), badRow(1, 'ERR_ROW_TOO_LONG'), row(2)]
  const scored = await collect(scoreRows(chunks(rows), instant, { ...OPTIONS, skipLong: true }))
  assert.equal(
    scored.map(({ skipped }) => skipped),
    [undefined, true, undefined],
  )
  assert.is((await rejection(collect(scoreRows(chunks(rows), instant, OPTIONS)))).code, 'ERR_ROW_TOO_LONG')
})

stream('ordinals count the responses of the rows that could be encoded', async () => {
  const seen: number[] = []
  const noting: BatchScorer = async (items) => {
    seen.push(...items.map(({ slot, k }) => slot.ordinal + k))
    return instant(items)
  }
  const rows = [row(0, 3), badRow(1), row(2, 1), row(3, 2)]
  await collect(scoreRows(chunks(rows), noting, { ...OPTIONS, onError: 'skip', firstOrdinal: 100 }))
  assert.equal(seen, [100, 101, 102, 103, 104, 105])
})

stream('a reward that is no number is an error of its row', async () => {
  const scorer: BatchScorer = async (items) =>
    items.map(({ slot }) => ({ reward: slot.row.index === 1 ? Number.NaN : 1 }))
  const scored = await collect(scoreRows(chunks([row(0), row(1), row(2)]), scorer, { ...OPTIONS, onError: 'skip' }))
  assert.equal(
    scored.map(({ error }) => error?.code),
    [undefined, 'ERR_INTERNAL', undefined],
  )
  assert.match(scored[1]!.error!.message, /^line 2: the reward of this row is not finite/)
})

stream('an error of the engine ends the stream', async () => {
  const failing: BatchScorer = async (items) => {
    if (items.some(({ slot }) => slot.row.index === 30)) throw new ImplexError('ERR_OUT_OF_MEMORY', 'full')
    return instant(items)
  }
  const rows = Array.from({ length: 60 }, (_, i) => row(i))
  assert.is((await rejection(collect(scoreRows(chunks(rows), failing, OPTIONS)))).code, 'ERR_OUT_OF_MEMORY')
})

stream('an error of the source comes after the rows it delivered', async () => {
  const source = async function* (): AsyncGenerator<EncodedRow[]> {
    yield [row(0), row(1)]
    throw new ImplexError('ERR_IO', 'gone')
  }
  const seen: number[] = []
  const error = await rejection(
    (async () => {
      for await (const { index } of scoreRows(source(), instant, OPTIONS)) seen.push(index)
    })(),
  )
  assert.is(error.code, 'ERR_IO')
  assert.equal(seen, [0, 1])
})

stream('abort: ends at once, whatever is under way', async () => {
  const controller = new AbortController()
  const never: BatchScorer = () => new Promise(() => {})
  const running = collect(scoreRows(chunks([row(0), row(1)]), never, { ...OPTIONS, signal: controller.signal }))
  await sleep(5)
  controller.abort('enough')
  const error = await within(1000, 'the abort', rejection(running))
  assert.is(error.code, 'ERR_ABORTED')
  assert.is(error.cause, 'enough')
  const before = collect(scoreRows(chunks([row(0)]), instant, { ...OPTIONS, signal: AbortSignal.abort() }))
  assert.is((await rejection(before)).code, 'ERR_ABORTED')
})

stream('drain: what is under way is finished and handed out, nothing new begins', async () => {
  const controller = new AbortController()
  let begun = 0
  const slow: BatchScorer = async (items) => {
    begun += items.length
    if (begun > 12) controller.abort()
    await sleep(5)
    return instant(items)
  }
  const rows = Array.from({ length: 500 }, (_, i) => row(i))
  const scored = await collect(scoreRows(chunks(rows), slow, { ...OPTIONS, drain: controller.signal }))
  assert.is(scored.length * 2, begun)
  assert.ok(scored.length >= 6 && scored.length < 20)
})

stream('drain ends a stream that waits for its source', async () => {
  const controller = new AbortController()
  const source = async function* (): AsyncGenerator<EncodedRow[]> {
    yield [row(0)]
    await new Promise(() => {})
  }
  const running = collect(scoreRows(source(), instant, { ...OPTIONS, drain: controller.signal }))
  await sleep(50)
  controller.abort()
  assert.is((await within(1000, 'the end', running)).length, 1)
})

stream('self check: a reward that depends on its batch stops the run', async () => {
  const dependent: BatchScorer = async (items) => items.map(() => ({ reward: items.length }))
  const options = { ...OPTIONS, selfCheck: true }
  assert.is((await rejection(collect(scoreRows(chunks([row(0), row(1)]), dependent, options)))).code, 'ERR_SELF_CHECK')
  assert.is((await collect(scoreRows(chunks([row(0), row(1)]), instant, options))).length, 2)
})

stream('self check: a doubled beginning-of-sequence token stops the run', async () => {
  const doubled = { ...row(0), prompt: Int32Array.of(9, 9, 3) }
  const error = await rejection(collect(scoreRows(chunks([doubled]), instant, { ...OPTIONS, bosTokenId: 9 })))
  assert.is(error.code, 'ERR_SELF_CHECK')
  assert.match(error.message, /two beginning-of-sequence tokens/)
})
stream.run()
