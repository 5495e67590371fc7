/**
 * Texts that do not end: an opening can be aborted, the event loop of the host goes on, a row that hangs gets an error, and the model
 * serves the next call.
 */
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { LanguageModel, RewardModel, train } from '../lib/index.js'
import type { EncodedRow, EncodeSettings } from '../lib/data/encode.js'
import { EncodePool } from '../lib/data/encode-pool.js'
import type { Prompt } from '../lib/data/rows.js'
import { rowSource } from '../lib/data/sources.js'
import { writeTinyCheckpoint } from './fixtures/tiny-checkpoint.js'
import { rejection, sleep, within } from './support/engine.js'
import { pairs, writeRows } from './support/train.js'
import { temporaryFolder } from './support/tmp.js'

const folder = temporaryFolder()
const at = (name: string) => join(folder, name)
const HANG = 'a'.repeat(60)
const SETTINGS: EncodeSettings = {
  ...{ kind: 'implicit', border: 'whole', onLong: 'error', contextLength: 4096, vocabularySize: 512 },
}

/** A checkpoint whose tokenizer takes ages over HANG: its pattern tries every way to part the letters. */
const MODEL = at('model')
await writeTinyCheckpoint(MODEL)
const file = join(MODEL, 'tokenizer.json')
const tokenizer = JSON.parse(readFileSync(file, 'utf8'))
const slow = { type: 'Split', pattern: { Regex: '(a+)+!' }, behavior: 'Isolated', invert: false }
tokenizer.pre_tokenizer = { type: 'Sequence', pretokenizers: [slow, tokenizer.pre_tokenizer] }
writeFileSync(file, JSON.stringify(tokenizer))
/** Its end is tokenized when the encoder is loaded. */
writeFileSync(at('hangs.jinja'), `{% for m in messages %}{{ m.content }}{% endfor %}${HANG}`)
const endless =
  '{% for m in messages %}{% if m.content == "wait" %}{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}{% endif %}{{ m.content }}{% endfor %}'
writeFileSync(at('endless.jinja'), endless)
const DATA = writeRows(at('pairs.jsonl'), pairs(8))

const threads = suite('encoding threads')

/** What `work` gives, and that the event loop went on meanwhile. */
async function beating<T>(work: () => Promise<T>, least = 5): Promise<T> {
  let beats = 0
  const heart = setInterval(() => beats++, 10)
  try {
    return await work()
  } finally {
    clearInterval(heart)
    assert.ok(beats >= least, `the event loop stood still: ${beats} beats`)
  }
}

const cpu = { device: 'cpu', template: at('hangs.jinja') } as const
const OPENINGS: Record<string, (signal: AbortSignal) => Promise<unknown>> = {
  'RewardModel.open': (signal) => RewardModel.open(MODEL, { kind: 'implicit', ...cpu, signal }),
  'RewardModel.open, two threads': (signal) =>
    RewardModel.open(MODEL, { kind: 'implicit', encodeThreads: 2, ...cpu, signal }),
  'LanguageModel.open': (signal) => LanguageModel.open(MODEL, { ...cpu, signal }),
  train: (signal) => train(MODEL, DATA, { kind: 'explicit', out: at('run'), ...cpu, signal }),
}

for (const [name, open] of Object.entries(OPENINGS)) {
  threads(`${name} is aborted while the tokenizer loads`, async () => {
    const controller = new AbortController()
    const opening = rejection(open(controller.signal))
    await beating(() => sleep(700))
    controller.abort('enough')
    const error = await within(5000, 'the abort', opening)
    assert.equal([error.name, error.code, error.cause], ['AbortError', 'ERR_ABORTED', 'enough'])
  })
}

threads('train drains while the tokenizer loads', async () => {
  const controller = new AbortController()
  const run = train(MODEL, DATA, { kind: 'explicit', out: at('drained'), ...cpu, drain: controller.signal })
  setTimeout(() => controller.abort(), 700)
  const { interrupted, steps } = await within(8000, 'the drain', run)
  assert.equal([interrupted, steps], [true, 0])
})

const fine = { prompt: 'the answer', chosen: 'oil', rejected: 'water' }
async function collect(encoded: AsyncIterable<EncodedRow[]>): Promise<EncodedRow[]> {
  const all: EncodedRow[] = []
  for await (const rows of encoded) all.push(...rows)
  return all
}

for (const workers of [1, 2]) {
  threads(`a row that hangs gets an error and no other does, ${workers} threads`, async () => {
    const pool = await EncodePool.start({ path: MODEL, template: 'none' }, workers, { limitMs: 3000 })
    const rows = Array.from({ length: 600 }, () => fine)
    const [expected] = await collect(pool.encode(rowSource([fine]).chunks(), SETTINGS))
    rows[300] = { ...fine, chosen: HANG }
    const found = await beating(() => collect(pool.encode(rowSource(rows).chunks(), SETTINGS)))
    assert.is(found.length, 600)
    for (const [i, { index, error, prompt, responses }] of found.entries()) {
      assert.is(index, i)
      if (i === 300) {
        assert.is(error!.code, 'ERR_ROW_INVALID')
        assert.match(error!.message, /^row 300: its text took more than 3 s/)
      } else assert.equal([prompt, responses], [expected!.prompt, expected!.responses])
    }
    const prompts: Prompt[] = [{ prompt: 'oil' }, { prompt: HANG }]
    const error = await rejection(pool.encodePrompts(prompts))
    assert.is(error.code, 'ERR_ROW_INVALID')
    assert.match(error.message, /^prompt 1: its text took/)
    assert.is((await pool.encodePrompts([{ prompt: 'oil' }])).length, 1)
    pool.close()
  })
}

threads('a call that is aborted at a row that hangs rejects at once', async () => {
  const pool = await EncodePool.start({ path: MODEL, template: 'none' })
  const signal = AbortSignal.timeout(300)
  const rows = rowSource([{ ...fine, chosen: HANG }]).chunks()
  const error = await within(5000, 'the abort', rejection(collect(pool.encode(rows, SETTINGS, undefined, signal))))
  assert.is(error.code, 'ERR_ABORTED')
  pool.close()
})

threads('a template that loops stalls nothing and ends by its bound', async () => {
  using model = await LanguageModel.open(MODEL, { device: 'cpu', template: at('endless.jinja') })
  const error = await beating(() => rejection(model.generate(['oil', 'wait'])))
  assert.is(error.code, 'ERR_TEMPLATE_LIMIT')
  assert.match(error.message, /^prompt 1: /)
  assert.is((await model.generate(['oil'], { maxNewTokens: 2 })).length, 1)
})

threads('prompts that are none reject with a code, and numbers keep their digits', async () => {
  writeFileSync(at('numbers.jinja'), '{{ n }}{% for m in messages %}{{ m.content }}{% endfor %}')
  using model = await LanguageModel.open(MODEL, { device: 'cpu', template: at('numbers.jinja') })
  const odd = { prompt: 'oil', inputs: { variables: { n: () => 1 } } }
  for (const wrong of [null, undefined, 1, {}, [], [null], { prompt: null }, { prompt: 3 }, odd, Symbol('x')]) {
    const error = await rejection(model.generate([wrong as never]))
    assert.ok(['ERR_INVALID_ARG_TYPE', 'ERR_ROW_INVALID'].includes(error.code ?? ''), error.stack)
    assert.match(error.message, /prompts\[0\]|prompt 0: /)
  }
  const { Float } = await import('../lib/core/parse-json.js')
  const options = { temperature: 0, maxNewTokens: 3 }
  const asked = { prompt: 'oil', inputs: { variables: { n: new Float(2) } } }
  const text = { prompt: '2.0oil', inputs: { variables: { n: '' } } }
  assert.equal(await model.generate([asked], options), await model.generate([text], options))
})

threads('many calls on one signal make no warning of listeners', async () => {
  const warnings: string[] = []
  const warn = ({ name }: Error) => warnings.push(name)
  process.on('warning', warn)
  using model = await RewardModel.open(MODEL, { kind: 'implicit', device: 'cpu', template: 'none' })
  const { signal } = new AbortController()
  await Promise.all(Array.from({ length: 30 }, () => model.score([fine], { signal })))
  await sleep(20)
  process.off('warning', warn)
  assert.equal(warnings, [])
})

threads.run()
