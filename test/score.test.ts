/** RewardModel on the real engine: kinds, batch invariance, long rows, errors, the reference cache, threads and the event loop. */
import { cpSync, existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { Worker } from 'node:worker_threads'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { readJsonl } from '../lib/data/jsonl.js'
import type { Row } from '../lib/data/rows.js'
import type { ScoredRow } from '../lib/data/score-rows.js'
import { CUDA_UNVERIFIED } from '../lib/native/device.js'
import { RewardModel } from '../lib/models/reward-model.js'
import type { RewardModelOptions, ScoreStreamOptions } from '../lib/models/reward-options.js'
import { seededRandom } from './fixtures/random.js'
import { writeTinyCheckpoint } from './fixtures/tiny-checkpoint.js'
import { rejection, within } from './support/engine.js'
import { temporaryFolder } from './support/tmp.js'

const folder = temporaryFolder()
const POLICY = join(folder, 'policy')
const REFERENCE = join(folder, 'reference')
await writeTinyCheckpoint(POLICY, { head: 'extra' })
await writeTinyCheckpoint(REFERENCE, { seed: 2 })
const CACHE = join(folder, 'cache')

const random = seededRandom(6)
const words = 'the answer is that people would write about water and oil all day Yes No'.split(' ')
const text = (count: number) => Array.from({ length: count }, () => random.pick(words)).join(' ')
const PAIRS: Row[] = Array.from({ length: 40 }, () => ({
  prompt: text(1 + random.below(8)),
  chosen: text(1 + random.below(12)),
  rejected: text(1 + random.below(12)),
}))
const GROUPS: Row[] = Array.from({ length: 12 }, () => ({
  prompt: text(6),
  responses: Array.from({ length: 1 + random.below(9) }, () => text(1 + random.below(12))),
}))

type Choice = Partial<RewardModelOptions> & Pick<RewardModelOptions, 'kind'>
const KINDS: [string, Choice][] = [
  ['explicit, last', { kind: 'explicit' }],
  ['explicit, mean', { kind: 'explicit', pool: 'mean' }],
  ['implicit', { kind: 'implicit', reference: REFERENCE }],
  ['implicit, without a reference', { kind: 'implicit' }],
  ['generative', { kind: 'generative' }],
]
const open = (options: Choice, path = POLICY) => RewardModel.open(path, { device: 'cpu', cacheDir: CACHE, ...options })

async function collect(rows: AsyncIterable<ScoredRow>): Promise<ScoredRow[]> {
  const all: ScoredRow[] = []
  for await (const row of rows) all.push(row)
  return all
}

function writeRows(name: string, rows: Row[]): string {
  const file = join(folder, name)
  writeFileSync(file, rows.map((row) => `${JSON.stringify(row)}\n`).join(''))
  return file
}

const kinds = suite('kinds of reward')
for (const [name, options] of KINDS) {
  kinds(`${name}: the same bits alone, in any batch, in any order`, async () => {
    using model = await open(options)
    for (const rows of [PAIRS, GROUPS]) {
      const { rewards } = await model.score(rows)
      assert.ok(rewards.flat().every(Number.isFinite))
      assert.ok(new Set(rewards.flat()).size > rewards.flat().length / 2)
      for (const batchTokens of [1, 64, 100_000]) {
        assert.equal((await model.score(rows, { batchTokens })).rewards, rewards)
        assert.equal(
          (await collect(model.scoreStream(rows, { batchTokens }))).map((row) => row.rewards),
          rewards,
        )
      }
      assert.equal((await model.score([...rows].reverse())).rewards.reverse(), rewards)
      const alone = await Promise.all(rows.slice(0, 5).map(async (row) => (await model.score([row])).rewards[0]))
      assert.equal(alone, rewards.slice(0, 5))
    }
  })
}

kinds('a pair and a group of its responses have the same rewards; each response may stand alone', async () => {
  for (const [, options] of KINDS) {
    using model = await open(options)
    const pairs = PAIRS.slice(0, 6) as { prompt: string; chosen: string; rejected: string }[]
    const { rewards } = await model.score(pairs)
    const groups = pairs.map(({ prompt, chosen, rejected }) => ({ prompt, responses: [chosen, rejected] }))
    assert.equal((await model.score(groups)).rewards, rewards)
    const singles = pairs.flatMap(({ prompt, chosen, rejected }) =>
      [chosen, rejected].map((one) => ({ prompt, responses: [one] })),
    )
    assert.equal((await model.score(singles)).rewards.flat(), rewards.flat())
  }
})

kinds('implicit: β times the difference of the log-probabilities, in double precision', async () => {
  using model = await open({ kind: 'implicit', reference: REFERENCE, beta: 0.3 })
  using policy = await open({ kind: 'implicit', beta: 1 })
  using reference = await open({ kind: 'implicit', beta: 1 }, REFERENCE)
  const { rows } = await model.score(PAIRS, { tokenLogprobs: true })
  const [own, other] = [await policy.score(PAIRS), await reference.score(PAIRS)]
  for (const [i, row] of rows.entries()) {
    assert.equal(row.logprobs, own.rewards[i])
    assert.equal(row.referenceLogprobs, other.rewards[i])
    assert.equal(
      row.rewards,
      row.logprobs!.map((logprob, k) => 0.3 * (logprob - row.referenceLogprobs![k]!)),
    )
    for (const [terms, sums] of [
      [row.tokenLogprobs!, row.logprobs!],
      [row.referenceTokenLogprobs!, row.referenceLogprobs!],
    ] as const) {
      assert.equal(
        terms.map((one) => one.length),
        row.tokens,
      )
      assert.equal(
        terms.map((one) => one.reduce((total, term) => total + term, 0)),
        sums,
      )
    }
  }
  assert.not('referenceTokenLogprobs' in (await policy.score(PAIRS.slice(0, 1), { tokenLogprobs: true })).rows[0]!)
})

kinds(
  "implicit: the reference's terms are computed where the cache knows their sum, and the reward stays",
  async () => {
    const cacheDir = join(folder, 'terms')
    const file = writeRows('terms.jsonl', PAIRS.slice(0, 4))
    const options = { kind: 'implicit', reference: REFERENCE, cacheDir } as const
    const scored = async (tokenLogprobs: boolean) => {
      using model = await open(options)
      const rows = await collect(model.scoreStream(readJsonl(file), { tokenLogprobs }))
      return { rows, loaded: model.referenceLoaded }
    }
    const first = await scored(true)
    const cached = await scored(false)
    const again = await scored(true)
    assert.equal([first.loaded, cached.loaded, again.loaded], [true, false, true])
    assert.equal(again.rows, first.rows)
    assert.equal(
      cached.rows.map((row) => row.rewards),
      first.rows.map((row) => row.rewards),
    )
  },
)

kinds("explicit: the head's value at each token, of which the reward is the last or the mean", async () => {
  for (const pool of ['last', 'mean'] as const) {
    using model = await open({ kind: 'explicit', pool })
    const { rewards } = await model.score(PAIRS)
    for (const batchTokens of [64, 100_000]) {
      const { rows } = await model.score(PAIRS, { tokenRewards: true, batchTokens })
      assert.equal(
        rows.map((row) => row.rewards),
        rewards,
      )
      for (const row of rows) {
        for (const [k, values] of row.tokenRewards!.entries()) {
          assert.is(values.length, row.tokens[k])
          const mean = values.reduce((sum, value) => sum + value, 0) / values.length
          assert.is(row.rewards[k], pool === 'last' ? values.at(-1) : Math.fround(mean))
        }
      }
    }
  }
})

kinds('the tokens of a response: ids, and texts that joined are the response', async () => {
  using model = await open({ kind: 'explicit', template: 'none' })
  const rows = [...PAIRS.slice(0, 3), { prompt: 'p', responses: ['ein Bär 🐻 läuft', 'x'] }]
  const scored = (await model.score(rows, { responseTokens: true })).rows
  for (const [i, row] of scored.entries()) {
    const given = rows[i] as { chosen: string; rejected: string } | { responses: string[] }
    const responses = 'responses' in given ? given.responses : [given.chosen, given.rejected]
    for (const [k, { ids, texts }] of row.responseTokens!.entries()) {
      assert.is(ids.length, row.tokens[k])
      assert.is(texts.length, ids.length)
      assert.ok(texts.join('').startsWith(responses[k]!), texts.join(''))
    }
  }
  assert.not('responseTokens' in (await model.score(rows)).rows[0]!)
})

kinds('implicit with the policy as its own reference: every reward is zero', async () => {
  using model = await open({ kind: 'implicit', reference: POLICY })
  assert.ok((await model.score(PAIRS)).rewards.flat().every((reward) => reward === 0))
})

kinds('explicit: a head given is used, from a file or as numbers', async () => {
  const zero = new Float32Array(32)
  using model = await open({ kind: 'explicit', head: zero })
  assert.ok((await model.score(PAIRS)).rewards.flat().every((reward) => reward === 0))
  using own = await open({ kind: 'explicit' })
  using same = await open({ kind: 'explicit', head: POLICY })
  assert.equal((await same.score(PAIRS)).rewards, (await own.score(PAIRS)).rewards)
})

kinds('bf16 weights give nearby rewards', async () => {
  using exact = await open({ kind: 'implicit' })
  using rounded = await open({ kind: 'implicit', dtype: 'bf16' })
  const [a, b] = [await exact.score(PAIRS), await rounded.score(PAIRS)]
  for (const [i, rewards] of a.rewards.entries()) {
    for (const [k, reward] of rewards.entries())
      assert.ok(Math.abs(b.rewards[i]![k]! - reward) < 0.02 * Math.abs(reward))
  }
})

kinds('a sequence-classification checkpoint, without an unembedding, is enough for explicit rewards', async () => {
  const path = join(folder, 'classifier')
  await writeTinyCheckpoint(path, { head: 'instead' })
  using model = await open({ kind: 'explicit' }, path)
  assert.ok((await model.score(PAIRS)).rewards.flat().every(Number.isFinite))
  assert.is((await rejection(open({ kind: 'implicit' }, path))).code, 'ERR_TENSOR_MISSING')
})

kinds('the default template: its new tokens get rows, in the reference too', async () => {
  const path = join(folder, 'plain')
  cpSync(POLICY, path, { recursive: true })
  rmSync(join(path, 'chat_template.jinja'))
  using model = await open({ kind: 'implicit', reference: REFERENCE }, path)
  assert.is(model.templateSource, 'default')
  assert.ok((await model.score(PAIRS)).rewards.flat().every(Number.isFinite))
  using none = await open({ kind: 'implicit', template: 'none' })
  assert.is(none.templateSource, 'none')
  assert.not.equal((await none.score(PAIRS)).rewards, (await model.score(PAIRS)).rewards)
})
kinds.run()

const refusals = suite('refusals')
const openings: [string, unknown, string, RegExp][] = [
  ['no options', undefined, 'ERR_INVALID_ARG_TYPE', /"options" must be an object/],
  ['an unknown kind', { kind: 'other' }, 'ERR_OUT_OF_RANGE', /"kind"/],
  ['a negative β', { kind: 'implicit', beta: -1 }, 'ERR_OUT_OF_RANGE', /"beta"/],
  ['a text for β', { kind: 'implicit', beta: '1' }, 'ERR_INVALID_ARG_TYPE', /"beta"/],
  ['an unknown pool', { kind: 'explicit', pool: 'first' }, 'ERR_OUT_OF_RANGE', /"pool"/],
  ['an unknown dtype', { kind: 'explicit', dtype: 'f16' }, 'ERR_OUT_OF_RANGE', /"dtype"/],
  ['an unknown device', { kind: 'explicit', device: 'tpu' }, 'ERR_OUT_OF_RANGE', /"device"/],
  ['a reference for an explicit reward', { kind: 'explicit', reference: REFERENCE }, 'ERR_OUT_OF_RANGE', /"reference"/],
  ['a head for an implicit reward', { kind: 'implicit', head: POLICY }, 'ERR_OUT_OF_RANGE', /"head"/],
  ['a head of another size', { kind: 'explicit', head: new Float32Array(3) }, 'ERR_OUT_OF_RANGE', /hidden size, 32/],
  [
    'a head that is not finite',
    { kind: 'explicit', head: new Float32Array(32).fill(Number.NaN) },
    'ERR_OUT_OF_RANGE',
    /finite/,
  ],
  ['a list for a head', { kind: 'explicit', head: [1] }, 'ERR_INVALID_ARG_TYPE', /"head"/],
  ['a signal that is none', { kind: 'explicit', signal: {} }, 'ERR_INVALID_ARG_TYPE', /"signal"/],
  [
    'a reference that is not there',
    { kind: 'implicit', reference: join(folder, 'absent') },
    'ERR_CHECKPOINT_NOT_FOUND',
    /absent/,
  ],
  [
    'a template that is not there',
    { kind: 'implicit', template: join(folder, 'absent.jinja') },
    'ERR_TEMPLATE_INVALID',
    /absent\.jinja/,
  ],
  ['an aborted signal', { kind: 'explicit', signal: AbortSignal.abort() }, 'ERR_ABORTED', /aborted/],
]
for (const [name, options, code, message] of openings) {
  refusals(`open: ${name}`, async () => {
    const error = await rejection(RewardModel.open(POLICY, options as RewardModelOptions))
    assert.is(error.code, code)
    assert.match(error.message, message)
  })
}

refusals('open: a folder that is not there, an explicit reward without a head', async () => {
  assert.is((await rejection(open({ kind: 'explicit' }, join(folder, 'absent')))).code, 'ERR_CHECKPOINT_NOT_FOUND')
  const error = await rejection(open({ kind: 'explicit' }, REFERENCE))
  assert.is(error.code, 'ERR_TENSOR_MISSING')
  assert.match(error.message, /no tensor score\.weight; give one with --head/)
})

refusals('open: a reference with another tokenizer', async () => {
  const path = join(folder, 'other-tokenizer')
  await writeTinyCheckpoint(path, { vocabSize: 400 })
  const error = await rejection(open({ kind: 'implicit', reference: path }))
  assert.is(error.code, 'ERR_TOKENIZER_INVALID')
  assert.match(error.message, /differs from the model's .* in its merges/)
})

refusals('open: cuda that is not there is an error; auto falls back and says why', async () => {
  process.env.IMPLEX_CUDA = join(folder, 'absent.so')
  try {
    const error = await rejection(open({ kind: 'explicit', device: 'cuda' }))
    assert.is(error.code, 'ERR_DEVICE_UNAVAILABLE')
    assert.match(error.message, /absent\.so/)
    using model = await open({ kind: 'explicit', device: 'auto' })
    assert.is(model.device, 'cpu')
    assert.match(model.fallbackReason!, /there is no CUDA module at .*absent\.so/)
    process.env.IMPLEX_CUDA = writeRows('no-library.so', [])
    using other = await open({ kind: 'explicit', device: 'auto' })
    assert.is(other.device, 'cpu')
    assert.is(other.fallbackReason, CUDA_UNVERIFIED) // goes with CUDA_VERIFIED
    assert.is((await rejection(open({ kind: 'explicit', device: 'cuda' }))).code, 'ERR_DEVICE_UNAVAILABLE')
  } finally {
    delete process.env.IMPLEX_CUDA
  }
})

refusals('score: wrong arguments and bad rows, each named', async () => {
  using model = await open({ kind: 'explicit' })
  assert.is((await rejection(model.score(3 as never))).code, 'ERR_INVALID_ARG_TYPE')
  assert.is((await rejection(model.score(PAIRS, { batchTokens: 0 }))).code, 'ERR_OUT_OF_RANGE')
  assert.is((await rejection(model.score(PAIRS, { tokenLogprobs: true }))).code, 'ERR_OUT_OF_RANGE')
  assert.is((await rejection(model.score(PAIRS, { signal: 'x' as never }))).code, 'ERR_INVALID_ARG_TYPE')
  assert.is((await rejection(model.score(PAIRS, { responseTokens: 1 as never }))).code, 'ERR_INVALID_ARG_TYPE')
  using other = await open({ kind: 'implicit' })
  assert.is((await rejection(other.score(PAIRS, { tokenRewards: true }))).code, 'ERR_OUT_OF_RANGE')
  assert.match(
    (await rejection(model.score([PAIRS[0]!, { prompt: 'p', responses: [''] }]))).message,
    /^row 1: "responses\[0\]" is empty/,
  )
  assert.match((await rejection(model.score([{} as Row]))).message, /^row 0: /)
  assert.equal((await model.score([])).rewards, [])
  assert.ok((await model.score(PAIRS)).rewards.flat().every(Number.isFinite), 'the model works on after errors')
})

refusals('a model that has been disposed of', async () => {
  const model = await open({ kind: 'explicit' })
  const running = rejection(model.score([...PAIRS, ...GROUPS]))
  model.dispose()
  model.dispose()
  assert.ok(['ERR_DISPOSED', 'ERR_ABORTED'].includes((await within(5000, 'the end', running)).code!))
  assert.is((await rejection(model.score(PAIRS))).code, 'ERR_DISPOSED')
})
refusals.run()

const long = suite('rows beyond the context')
const LONG: Row = { prompt: text(300), chosen: text(4), rejected: text(5) }
const HOPELESS: Row = { prompt: 'p', chosen: text(300), rejected: 'r' }

long('error, skip, truncate-prompt', async () => {
  const rows = [PAIRS[0]!, LONG, PAIRS[1]!, HOPELESS]
  using strict = await open({ kind: 'explicit' })
  assert.is((await rejection(strict.score(rows))).code, 'ERR_ROW_TOO_LONG')
  const expected = (await strict.score([PAIRS[0]!, PAIRS[1]!])).rewards

  using skipping = await open({ kind: 'explicit', onLong: 'skip' })
  const skipped = await skipping.score(rows)
  assert.equal(skipped.rewards, [expected[0], [], expected[1], []])
  assert.is(skipped.skipped, 2)

  using cutting = await open({ kind: 'explicit', onLong: 'truncate-prompt' })
  const cut = await cutting.score(rows.slice(0, 3))
  assert.equal([cut.rewards[0], cut.rewards[2]], expected)
  assert.is(cut.truncated, 1)
  const { promptTokens, tokens } = cut.rows[1]!
  assert.is(promptTokens + Math.max(...tokens), 256)
  assert.match((await rejection(cutting.score(rows))).message, /the response alone does not fit/)
})
long.run()

const cache = suite('reference cache in use')
const IMPLICIT = { kind: 'implicit', reference: REFERENCE } as const
const scoreFile = async (file: string, options: Choice, stream: ScoreStreamOptions = {}) => {
  using model = await open(options)
  const rewards = (await collect(model.scoreStream(readJsonl(file), stream))).map((row) => row.rewards)
  return { rewards, loaded: model.referenceLoaded, ...model.cacheStatistics }
}

cache('a second run does not load the reference and gives the same bits', async () => {
  const file = writeRows('pairs.jsonl', PAIRS)
  const first = await scoreFile(file, IMPLICIT)
  assert.equal([first.loaded, first.hits, first.misses], [true, 0, 80])
  const second = await scoreFile(file, IMPLICIT, { batchTokens: 33 })
  assert.equal([second.loaded, second.hits, second.misses], [false, 80, 0])
  assert.equal(second.rewards, first.rewards)
  assert.equal((await scoreFile(file, { ...IMPLICIT, cache: false })).rewards, first.rewards)
})

cache('a changed row is computed, its neighbors are not', async () => {
  const rows = [...PAIRS]
  const file = writeRows('changing.jsonl', rows)
  await scoreFile(file, IMPLICIT)
  using model = await open(IMPLICIT)
  const fresh = (await model.score(PAIRS)).rewards
  // The same fingerprint for other content: a hit must depend on the tokens themselves.
  const swapped = readJsonl(writeRows('swapped.jsonl', [rows[1]!, rows[0]!, ...rows.slice(2)]))
  const print = await readJsonl(file).fingerprint()
  swapped.fingerprint = async () => print
  const scored = (await collect(model.scoreStream(swapped))).map((row) => row.rewards)
  assert.equal(scored, [fresh[1], fresh[0], ...fresh.slice(2)])
  assert.ok(model.cacheStatistics.misses >= 4 && model.cacheStatistics.hits >= 70)
})

cache('rows in memory leave nothing on the disk, and a folder that cannot be used is a warning', async () => {
  const warnings: string[] = []
  const cacheDir = writeRows('a-file', [])
  const result = await scoreFile(writeRows('pairs.jsonl', PAIRS), {
    ...IMPLICIT,
    cacheDir,
    onWarning: (text) => warnings.push(text),
  })
  assert.ok(result.loaded)
  assert.match(warnings.join(), /reference log-probabilities are not cached/)
  const empty = join(folder, 'empty-cache')
  using model = await open({ ...IMPLICIT, cacheDir: empty })
  await model.score(PAIRS)
  assert.throws(() => readdirSync(empty))
})

cache(
  'rows in memory: a key that nothing reads is told once, not at every call; a stream is told of its own',
  async () => {
    const warnings: string[] = []
    using model = await open({ ...IMPLICIT, cache: false, onWarning: (text) => warnings.push(text) })
    const odd = PAIRS.slice(0, 2).map((row) => ({ ...row, remark: 'x' }))
    for (let i = 0; i < 3; i++) await model.score(odd as Row[])
    assert.equal(warnings.length, 1)
    await collect(model.scoreStream(readJsonl(writeRows('odd.jsonl', odd))))
    assert.equal(warnings.length, 2)
    assert.match(warnings[1]!, /odd\.jsonl: nothing reads these keys: remark \(2 rows\)/)
  },
)

cache('a run of part of the rows is completed by the next', async () => {
  const file = writeRows('partly.jsonl', PAIRS.slice().reverse())
  using model = await open(IMPLICIT)
  let taken = 0
  for await (const _ of model.scoreStream(readJsonl(file), { batchTokens: 64 })) if (++taken === 10) break
  const whole = await scoreFile(file, IMPLICIT)
  assert.ok(whole.hits >= 20 && whole.misses > 0 && whole.misses <= 60)
  // As --resume does: the rows before are passed over, and their responses are counted.
  using again = await open(IMPLICIT)
  const rest = await collect(again.scoreStream(readJsonl(file, { skipRows: 30 }), { firstOrdinal: 60 }))
  assert.equal(
    rest.map((row) => row.rewards),
    whole.rewards.slice(30),
  )
  assert.not(again.referenceLoaded)
})
cache.run()

const loop = suite('event loop and threads')

/** Nanoseconds that this process's main thread has waited for a processor, where the kernel tells. */
function waited(): number {
  const file = `/proc/self/task/${process.pid}/schedstat`
  return existsSync(file) ? Number(readFileSync(file, 'utf8').split(' ')[1]) : 0
}

const message = (worker: Worker) =>
  new Promise<unknown>((resolve, reject) => {
    worker.once('message', resolve)
    worker.once('error', reject)
  })

loop('the event loop answers while rows are tokenized and scored', async () => {
  const rows = Array.from({ length: 3000 }, (_, i) => PAIRS[i % PAIRS.length]!)
  using model = await open({ kind: 'implicit' })
  const file = writeRows('many.jsonl', rows)
  // What other processes take from this machine's processors is not the loop's fault: waiting for one is left out.
  const delays: number[] = []
  let last = { time: performance.now(), waited: waited() }
  const timer = setInterval(() => {
    const now = { time: performance.now(), waited: waited() }
    delays.push(now.time - last.time - (now.waited - last.waited) / 1e6 - 2)
    last = now
  }, 2)
  const scored = await collect(model.scoreStream(readJsonl(file)))
  clearInterval(timer)
  assert.is(scored.length, rows.length)
  const p99 = delays.sort((a, b) => a - b)[Math.floor(delays.length * 0.99)]!
  console.log(`\n  event loop: 99th percentile ${p99.toFixed(1)} ms of ${delays.length}`)
  assert.ok(delays.length > 50 && p99 < 20, `the 99th percentile of the delay is ${p99} ms`)
})

loop('abort ends a score, early ends of a stream leave the model usable, calls may overlap', async () => {
  using model = await open({ kind: 'explicit' })
  const expected = (await model.score(PAIRS)).rewards
  const controller = new AbortController()
  const many = Array.from({ length: 2000 }, (_, i) => PAIRS[i % PAIRS.length]!)
  const running = rejection(model.score(many, { signal: controller.signal }))
  setTimeout(() => controller.abort(), 20)
  assert.is((await within(5000, 'the abort', running)).code, 'ERR_ABORTED')
  for await (const _ of model.scoreStream(many)) break
  const all = await Promise.all(Array.from({ length: 5 }, () => model.score(PAIRS)))
  for (const { rewards } of all) assert.equal(rewards, expected)
})

loop('async iterables are scored as they come', async () => {
  using model = await open({ kind: 'explicit' })
  const source = async function* () {
    for (const row of PAIRS.slice(0, 5)) {
      await new Promise((resolve) => setTimeout(resolve, 2))
      yield row
    }
  }
  const expected = (await model.score(PAIRS.slice(0, 5))).rewards
  assert.equal(
    (await collect(model.scoreStream(source()))).map((row) => row.rewards),
    expected,
  )
})

const script = new URL('./support/score-worker.js', import.meta.url)
loop('four worker_threads score at once, to the same bits', async () => {
  using model = await open({ kind: 'implicit' })
  const expected = (await model.score(PAIRS)).rewards
  const workers = Array.from({ length: 4 }, () => new Worker(script, { workerData: { path: POLICY, rows: PAIRS } }))
  const results = await within(60_000, 'the workers', Promise.all(workers.map(message)))
  for (const rewards of results) assert.equal(rewards, expected)
  await Promise.all(workers.map((worker) => worker.terminate()))
})

loop('a worker terminated while it scores takes nothing down', async () => {
  const rows = Array.from({ length: 5000 }, (_, i) => PAIRS[i % PAIRS.length]!)
  for (const pause of [0, 60, 150]) {
    const worker = new Worker(script, { workerData: { path: POLICY, rows } })
    await new Promise((resolve) => setTimeout(resolve, pause))
    await within(10_000, 'the termination', worker.terminate())
  }
  using model = await open({ kind: 'implicit' })
  assert.is((await model.score(PAIRS)).rewards.length, PAIRS.length)
})
loop.run()
