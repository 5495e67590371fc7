/** Encoding in worker threads: the same ids as encoding here, in order, with bounded read-ahead; lengths, errors and their places. */
import { join } from 'node:path'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import type { EncodedRow, EncodeSettings } from '../lib/data/encode.js'
import { EncodePool } from '../lib/data/encode-pool.js'
import type { Row, SourceRow } from '../lib/data/rows.js'
import { rowSource } from '../lib/data/sources.js'
import { RowEncoder } from '../lib/text/text-encoder.js'
import { seededRandom } from './fixtures/random.js'
import { writeTinyCheckpoint } from './fixtures/tiny-checkpoint.js'
import { responseIds } from './support/encoded.js'
import { rejection, sleep, within } from './support/engine.js'
import { temporaryFolder } from './support/tmp.js'

const path = join(temporaryFolder(), 'checkpoint')
await writeTinyCheckpoint(path)
const encoder = await RowEncoder.load({ path })
const SETTINGS: EncodeSettings = {
  kind: 'implicit',
  border: 'whole',
  onLong: 'error',
  contextLength: 256,
  vocabularySize: 512,
}

const random = seededRandom(4)
const words = 'the answer is that people would write about water and oil all day Yes No'.split(' ')
const text = (count: number) => Array.from({ length: count }, () => random.pick(words)).join(' ')
const pairs = (count: number): Row[] =>
  Array.from({ length: count }, (_, id) => ({
    id,
    prompt: text(3),
    chosen: text(1 + random.below(5)),
    rejected: text(2),
  }))

async function collect(encoded: AsyncIterable<EncodedRow[]>): Promise<EncodedRow[]> {
  const all: EncodedRow[] = []
  for await (const rows of encoded) all.push(...rows)
  return all
}

const pooled = suite('encoding pool')
const pools: EncodePool[] = []
async function start(workers = 1, options = {}): Promise<EncodePool> {
  const pool = await EncodePool.start({ path, ...options }, workers)
  pools.push(pool)
  return pool
}
pooled.after(() => {
  for (const pool of pools) pool.close()
})

for (const workers of [1, 3]) {
  pooled(`${workers} threads give the ids that one encoder gives, in order`, async () => {
    const rows = pairs(2000)
    const pool = await start(workers)
    const encoded = await collect(pool.encode(rowSource(rows).chunks(), SETTINGS))
    assert.is(encoded.length, rows.length)
    for (const [i, row] of encoded.entries()) {
      const { prompt, chosen, rejected } = rows[i] as { prompt: string; chosen: string; rejected: string }
      assert.is(row.index, i)
      assert.is(row.id, i)
      if (i % 50 > 0) continue
      assert.equal(row.prompt, encoder.encodePrompt(prompt))
      assert.equal(row.responses, [responseIds(encoder, prompt, chosen), responseIds(encoder, prompt, rejected)])
    }
  })
}

pooled('describes its encoder', async () => {
  const { description } = await start()
  assert.is(description.templateSource, 'checkpoint')
  assert.is(description.vocabularySize, encoder.vocabularySize)
  assert.is(description.fingerprint, encoder.fingerprint)
  assert.is((await start(1, { kind: 'generative' })).description.yesTokenId, encoder.yesTokenId)
})

pooled('reads no further ahead than a few chunks', async () => {
  let read = 0
  const source = async function* (): AsyncGenerator<SourceRow[]> {
    for (let i = 0; i < 200; i++) {
      read++
      yield [{ index: i, value: { prompt: 'p', responses: ['a'] } }]
    }
  }
  const encoded = (await start()).encode(source(), SETTINGS)
  for (let taken = 1; taken <= 50; taken++) {
    await encoded.next()
    if (taken % 10 === 0) await sleep(5)
    assert.ok(read - taken <= 6, `${read} chunks read when ${taken} were taken`)
  }
  await encoded.return(undefined)
  await sleep(5)
  assert.ok(read < 60)
})

pooled('bad rows come out in their place, with the line', async () => {
  const source = async function* (): AsyncGenerator<SourceRow[]> {
    yield [
      { index: 0, line: 1, text: '{"prompt":"p","responses":["a"]}' },
      { index: 1, line: 2, text: '{"prompt":' },
      { index: 2, line: 3, text: '{"id":"x","prompt":"p","chosen":"","rejected":"r"}' },
      { index: 3, line: 4, text: '{"prompt":"p","chosen":"c","rejected":" \\n"}' },
      { index: 4, line: 5, text: '[]' },
      { index: 5, line: 6, text: '{"prompt":"p","responses":["a",""]}' },
    ]
  }
  const rows = await collect((await start()).encode(source(), SETTINGS))
  assert.equal(
    rows.map(({ error }) => [error?.code, error?.line]),
    [
      [undefined, undefined],
      ['ERR_ROW_INVALID', 2],
      ['ERR_RESPONSE_EMPTY', 3],
      ['ERR_RESPONSE_EMPTY', 4],
      ['ERR_ROW_INVALID', 5],
      ['ERR_RESPONSE_EMPTY', 6],
    ],
  )
  assert.match(rows[1]!.error!.message, /^line 2: not valid JSON/)
  assert.match(rows[2]!.error!.message, /^line 3: "chosen" is empty/)
  assert.match(rows[5]!.error!.message, /"responses\[1\]" is empty/)
  assert.is(rows[2]!.id, 'x')
})

pooled('a row that a worker cannot have, such as one with functions, is refused as a row', async () => {
  const rows = [{ prompt: 'p', responses: [() => {}] }] as never as Row[]
  const [row] = await collect((await start()).encode(rowSource(rows).chunks(), SETTINGS))
  assert.is(row!.error!.code, 'ERR_ROW_INVALID')
})

pooled('rows beyond the context: error, or the prompt loses its oldest tokens and no more than it must', async () => {
  const rows: Row[] = [{ prompt: text(80), chosen: text(30), rejected: text(3) }]
  const pool = await start()
  const whole = (await collect(pool.encode(rowSource(rows).chunks(), { ...SETTINGS, contextLength: 4096 })))[0]!
  const excess = 10
  const contextLength = whole.prompt.length + whole.responses[0]!.length - excess
  const error = (await collect(pool.encode(rowSource(rows).chunks(), { ...SETTINGS, contextLength })))[0]!.error!
  assert.is(error.code, 'ERR_ROW_TOO_LONG')
  assert.match(
    error.message,
    new RegExp(`${contextLength + excess} tokens, but the model's context has ${contextLength}`),
  )

  const settings = { ...SETTINGS, contextLength, onLong: 'truncate-prompt' } as const
  const cut = (await collect(pool.encode(rowSource(rows).chunks(), settings)))[0]!
  assert.ok(cut.truncated)
  assert.equal(cut.prompt, whole.prompt.slice(excess))
  assert.equal(cut.responses, whole.responses)

  // One token of the prompt must stay.
  const least = whole.responses[0]!.length + 1
  const one = (await collect(pool.encode(rowSource(rows).chunks(), { ...settings, contextLength: least })))[0]!
  assert.equal(one.prompt, whole.prompt.slice(-1))
  const none = (await collect(pool.encode(rowSource(rows).chunks(), { ...settings, contextLength: least - 1 })))[0]!
  assert.match(none.error!.message, /the response alone does not fit/)
})

pooled('truncate-end: each sequence has its first tokens, at least one of a response', async () => {
  const rows: Row[] = [{ prompt: text(20), chosen: text(30), rejected: text(3) }]
  const pool = await start()
  const encode = async (change: Partial<EncodeSettings>) =>
    (await collect(pool.encode(rowSource(rows).chunks(), { ...SETTINGS, contextLength: 4096, ...change })))[0]!
  const whole = await encode({})
  const prompt = whole.prompt.length
  // The model's context and a limit below it act alike.
  for (const limit of ['contextLength', 'maxLength'] as const) {
    for (const room of [10, 1]) {
      const cut = await encode({ onLong: 'truncate-end', [limit]: prompt + room })
      assert.ok(cut.truncated)
      assert.equal(cut.prompt, whole.prompt)
      assert.equal(
        cut.responses,
        whole.responses.map((ids) => ids.slice(0, room)),
      )
    }
    const none = await encode({ onLong: 'truncate-end', [limit]: prompt })
    assert.is(none.error?.code, 'ERR_ROW_TOO_LONG')
    assert.match(none.error!.message, /the prompt alone has as many/)
  }
  const fitting = await encode({ onLong: 'truncate-end', maxLength: prompt + whole.responses[0]!.length })
  assert.is(fitting.truncated, undefined)
  assert.equal(fitting.responses, whole.responses)
})

pooled('maxLength: the lower limit holds, and the tokens after the head are counted', async () => {
  const rows: Row[] = [{ prompt: text(20), chosen: text(30), rejected: text(3) }]
  const pool = await start()
  const encode = async (change: Partial<EncodeSettings>) =>
    (await collect(pool.encode(rowSource(rows).chunks(), { ...SETTINGS, contextLength: 4096, ...change })))[0]!
  const whole = await encode({ kind: 'explicit' })
  const length = whole.prompt.length + whole.responses[0]!.length
  const padTokenId = whole.responses[0]!.at(-1)!
  assert.is((await encode({ kind: 'explicit', maxLength: length, padTokenId })).error, undefined)
  const { error } = await encode({ kind: 'explicit', maxLength: length - 1, padTokenId })
  assert.is(error?.code, 'ERR_ROW_TOO_LONG')
  assert.match(error!.message, new RegExp(`${length} tokens, but maxLength \\(--max-length\\) allows ${length - 1};`))
  assert.is((await encode({ kind: 'explicit', contextLength: length - 1, padTokenId })).error, undefined)
  const context = await encode({ maxLength: length, contextLength: length - 1 })
  assert.match(context.error!.message, /the model's context has/)
})

pooled('generative: verification prompts, cut where they part, each with a token of its own', async () => {
  const rows: Row[] = [
    { prompt: text(5), responses: [text(3), text(4), text(5)] },
    { prompt: 'p', responses: ['same', 'same'] },
    { prompt: 'p', responses: ['only'] },
  ]
  const encoded = await collect((await start()).encode(rowSource(rows).chunks(), { ...SETTINGS, kind: 'generative' }))
  for (const [i, row] of encoded.entries()) {
    const { prompt, responses } = rows[i] as { prompt: string; responses: string[] }
    const whole = responses.map((response) => encoder.encodeVerification(prompt, response))
    assert.equal(
      row.responses.map((rest) => [...row.prompt, ...rest]),
      whole.map((ids) => [...ids]),
    )
    assert.ok(row.responses.every((rest) => rest.length > 0))
    assert.ok(row.prompt.length > 5)
  }
})

pooled('generative: shortening takes from the question, never from the answers', async () => {
  const rows: Row[] = [{ prompt: text(60), responses: ['water about all', 'water about oil'] }]
  const pool = await start()
  const settings = { ...SETTINGS, kind: 'generative', onLong: 'truncate-prompt' } as const
  const encode = async (contextLength: number) =>
    (await collect(pool.encode(rowSource(rows).chunks(), { ...settings, contextLength })))[0]!
  const whole = await encode(4096)
  const sequence = (row: EncodedRow, k: number) => [...row.prompt, ...row.responses[k]!]
  const cut = await encode(sequence(whole, 0).length - 20)
  assert.ok(cut.truncated)
  assert.equal(sequence(cut, 1), sequence(whole, 1).slice(20))
  // All of the question may go, but nothing from where another answer would make a difference.
  const long = sequence(whole, 0)
  const other = encoder.encodeVerification((rows[0] as { prompt: string }).prompt, 'x')
  const before = long.findIndex((id, i) => id !== other[i])
  assert.equal(sequence(await encode(long.length - before), 0), long.slice(before))
  assert.is((await encode(long.length - before - 1)).error?.code, 'ERR_ROW_TOO_LONG')
})

pooled('a group of very many responses', async () => {
  const rows: Row[] = [{ prompt: 'p', responses: Array.from({ length: 150_000 }, () => 'a') }]
  const pool = await start(1, { template: 'none' })
  const limited = { ...SETTINGS, contextLength: 2 }
  assert.is((await collect(pool.encode(rowSource(rows).chunks(), limited)))[0]!.error!.code, 'ERR_ROW_TOO_LONG')
  assert.is((await collect(pool.encode(rowSource(rows).chunks(), SETTINGS)))[0]!.responses.length, 150_000)
})

pooled('ids outside the model are refused', async () => {
  const [row] = await collect(
    (await start()).encode(rowSource(pairs(1)).chunks(), { ...SETTINGS, vocabularySize: 260 }),
  )
  assert.is(row!.error!.code, 'ERR_TOKEN_RANGE')
})

pooled('a folder without a tokenizer is the error of the start', async () => {
  const bare = join(temporaryFolder(), 'bare')
  await writeTinyCheckpoint(bare, { tokenizer: false })
  assert.is((await rejection(EncodePool.start({ path: bare }))).code, 'ERR_TOKENIZER_MISSING')
})

pooled('closing rejects what is under way', async () => {
  const pool = await EncodePool.start({ path })
  const running = collect(pool.encode(rowSource(pairs(5000)).chunks(), SETTINGS))
  await sleep(2)
  pool.close()
  assert.is((await within(2000, 'the end', rejection(running))).code, 'ERR_DISPOSED')
  pool.close()
})
pooled.run()
