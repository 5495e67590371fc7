/** Generation on the real engine: determinism, independence of the batch, agreement with scoring, stop tokens, abort, wrong arguments, the command. */
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { openCheckpoint } from '../lib/checkpoint/checkpoint.js'
import { type GenerateOptions, LanguageModel } from '../lib/models/language-model.js'
import { openModel } from '../lib/native/handles.js'
import { RowEncoder } from '../lib/text/text-encoder.js'
import { writeTinyCheckpoint } from './fixtures/tiny-checkpoint.js'
import { implexHere } from './support/cli.js'
import { CPU, rejection, SLOW, sleep, within } from './support/engine.js'
import { sharedPath } from './support/shared.js'
import { skip } from './support/skip.js'
import { temporaryFolder } from './support/tmp.js'

const folder = temporaryFolder()
const MODEL = join(folder, 'model')
await writeTinyCheckpoint(MODEL)
const PROMPTS: [string, string, string, string] = ['the answer', 'people would write about water', 'the answer', 'oil']
const open = (options = {}) => LanguageModel.open(MODEL, { device: 'cpu', ...options })

const generation = suite('generation')

generation('the same from the same seed, in any batch; another from another seed', async () => {
  using model = await open()
  const options: GenerateOptions = { maxNewTokens: 12, samples: 3, seed: 5 }
  const all = await model.generate(PROMPTS, options)
  assert.equal(
    all.map((one) => one.length),
    [3, 3, 3, 3],
  )
  for (const batchSize of [1, 2, 5]) assert.equal(await model.generate(PROMPTS, { ...options, batchSize }), all)
  assert.equal(await model.generate([PROMPTS[1]!], options), [all[1]])
  assert.equal(await model.generate([...PROMPTS].reverse(), options), [all[3], all[0], all[1], all[2]])
  const texts = new Set(all.flat().map(({ text }) => text))
  assert.is(texts.size, 12, 'a prompt given twice and its samples differ')
  assert.not.equal(await model.generate(PROMPTS, { ...options, seed: 6 }), all)
  assert.not.equal(await model.generate(PROMPTS, { ...options, seed: 5 + 2 ** 40 }), all)
})

generation('log-probabilities have the bits of scoring', async () => {
  using model = await open()
  const { spec } = await openCheckpoint(MODEL)
  const scorer = await openModel(spec, CPU)
  const encoder = await RowEncoder.load({ path: MODEL })
  const generated = await model.generate(PROMPTS, { maxNewTokens: 10, temperature: 0.7, topP: 0.9, topK: 100 })
  for (const [i, [one]] of generated.entries()) {
    const prompt = encoder.encodePrompt(PROMPTS[i]!)
    const scores = await scorer.score({
      tokens: Int32Array.of(...prompt, ...one!.ids),
      segments: Int32Array.of(0, prompt.length, -1, prompt.length, one!.ids.length, 0),
      scored: Int32Array.of(1),
      readout: 'logprob',
      tokenLogprobs: true,
    })
    assert.equal(scores.tokenLogprobs, one!.logprobs)
  }
  scorer.dispose()
})

generation('temperature 0 takes the most probable token, as top-k 1 does', async () => {
  using model = await open()
  const options = { maxNewTokens: 8, samples: 2 }
  const greedy = await model.generate(PROMPTS, { ...options, temperature: 0 })
  for (const [first, second] of greedy) assert.equal(first, second)
  assert.equal(await model.generate(PROMPTS, { ...options, topK: 1, seed: 3 }), greedy)
  assert.equal(await model.generate(PROMPTS, { ...options, topP: 1e-9, seed: 4 }), greedy)
})

generation('stop tokens end a sequence and are not in its text', async () => {
  using model = await open()
  const [[free]] = (await model.generate(['oil'], { maxNewTokens: 10, stop: [] })) as unknown as [[{ ids: Int32Array }]]
  const stop = free.ids[4]!
  const end = free.ids.indexOf(stop) + 1
  const [[one]] = await model.generate(['oil'], { maxNewTokens: 10, stop: [stop] })
  assert.equal(one!.ids, free.ids.slice(0, end))
  assert.is(one!.finish, 'stop')
  const [[cut]] = await model.generate(['oil'], { maxNewTokens: end - 1, stop: [stop] })
  assert.is(cut!.text, one!.text)
  assert.is(cut!.finish, 'length')
})

generation('aborted before and while running; beyond the memory; disposed', async () => {
  const slow = join(folder, 'slow')
  await writeTinyCheckpoint(slow, SLOW)
  const model = await LanguageModel.open(slow, { device: 'cpu' })
  assert.is((await rejection(model.generate(['x'], { signal: AbortSignal.abort() }))).code, 'ERR_ABORTED')
  const controller = new AbortController()
  const prompts = Array.from({ length: 64 }, (_, i) => `oil ${i}`)
  const running = rejection(model.generate(prompts, { maxNewTokens: 3000, stop: [], signal: controller.signal }))
  await sleep(50)
  controller.abort('enough')
  const error = await within(5000, 'the abort', running)
  assert.is(error.code, 'ERR_ABORTED')
  assert.is(error.cause, 'enough')
  const memory = await rejection(model.generate(['oil'], { samples: 2 ** 16, batchSize: 2 ** 16, maxNewTokens: 4000 }))
  assert.is(memory.code, 'ERR_OUT_OF_MEMORY')
  assert.match(memory.message, /batchSize/)
  model.dispose()
  assert.ok(model.disposed)
  assert.is((await rejection(model.generate(['x']))).code, 'ERR_DISPOSED')
})

generation('wrong arguments, each named', async () => {
  using model = await open()
  const wrong: [unknown, string, RegExp][] = [
    [{ maxNewTokens: 0 }, 'ERR_OUT_OF_RANGE', /maxNewTokens/],
    [{ temperature: -1 }, 'ERR_OUT_OF_RANGE', /temperature/],
    [{ topP: 0 }, 'ERR_OUT_OF_RANGE', /topP/],
    [{ topK: 1.5 }, 'ERR_OUT_OF_RANGE', /topK/],
    [{ seed: -1 }, 'ERR_OUT_OF_RANGE', /seed/],
    [{ samples: '2' }, 'ERR_INVALID_ARG_TYPE', /samples/],
    [{ batchSize: 0 }, 'ERR_OUT_OF_RANGE', /batchSize/],
    [{ stop: 'x' }, 'ERR_INVALID_ARG_TYPE', /stop/],
    [{ stop: ['no such token'] }, 'ERR_OUT_OF_RANGE', /stop\[0\]/],
    [{ signal: 1 }, 'ERR_INVALID_ARG_TYPE', /signal/],
    [null, 'ERR_INVALID_ARG_TYPE', /options/],
  ]
  for (const [options, code, message] of wrong) {
    const error = await rejection(model.generate(PROMPTS, options as GenerateOptions))
    assert.is(error.code, code, String(message))
    assert.match(error.message, message)
  }
  assert.is((await rejection(model.generate('x' as never))).code, 'ERR_INVALID_ARG_TYPE')
  assert.is((await rejection(LanguageModel.open(3 as never))).code, 'ERR_INVALID_ARG_TYPE')
  assert.equal(await model.generate([]), [])
  const long = 'water '.repeat(model.contextLength)
  const error = await rejection(model.generate(['oil', long]))
  assert.is(error.code, 'ERR_ROW_TOO_LONG')
  assert.match(error.message, /^prompt 1: /)
})

const stories = suite('stories260K')

// transformers 5 on this checkpoint: greedy, 24 new tokens, float32.
stories('greedy text is that of the reference', async () => {
  const path = sharedPath('models/stories260K')
  if (path === undefined) return skip('no models/stories260K in the shared folder')
  using model = await LanguageModel.open(path, { device: 'cpu', template: 'none' })
  const [[one]] = await model.generate(['<s>Once upon a time'], { temperature: 0, maxNewTokens: 24 })
  assert.is(one!.text, ', there was a little girl named Lily. She loved to play outside in the p')
})

generation('what a prompt gives its template is seen, or refused by one that shows texts only', async () => {
  const template = join(folder, 'tools.jinja')
  writeFileSync(
    template,
    '{% if tools %}[{{ tools[0].name }}] {% endif %}{% for m in messages %}{{ m.content }}{% endfor %}',
  )
  const options = { temperature: 0, maxNewTokens: 5 }
  const prompt = { prompt: PROMPTS[0]!, inputs: { tools: [{ name: 'depth' }] } }
  using whole = await LanguageModel.open(MODEL, { device: 'cpu', template })
  using plain = await LanguageModel.open(MODEL, { device: 'cpu', template: 'none' })
  const [[seen]] = await whole.generate([prompt], options)
  const [[same]] = await plain.generate([`[depth] ${PROMPTS[0]}`], options)
  assert.equal([...seen!.ids], [...same!.ids])
  assert.match((await rejection(plain.generate([prompt], options))).message, /template "none" does not show tools/)
})

const command = suite('implex generate')

command('writes one line for each sequence, the same each time', async () => {
  const data = join(folder, 'prompts.jsonl')
  writeFileSync(data, PROMPTS.map((prompt) => `${JSON.stringify({ prompt })}\n`).join(''))
  const common = ['generate', '--model', MODEL, '--device', 'cpu', '--max-new-tokens', '5', '--samples', '2']
  const { status, stdout, stderr } = await implexHere([...common, '--data', data])
  assert.is(status, 0, stderr)
  const rows = stdout
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line))
  assert.equal(
    rows.map(({ index, sample }) => [index, sample]),
    [0, 1, 2, 3].flatMap((index) => [0, 1].map((sample) => [index, sample])),
  )
  assert.equal(Object.keys(rows[0]), ['index', 'sample', 'text', 'tokens', 'logprob', 'finish'])
  const out = join(folder, 'out.jsonl')
  assert.is((await implexHere([...common, '--data', data, '--out', out])).status, 0)
  assert.is(readFileSync(out, 'utf8'), stdout)
  assert.is((await implexHere([...common, '--data', data, '--out', '-'])).stdout, stdout)
  const one = await implexHere([...common, '--prompt', PROMPTS[1]!])
  assert.equal(
    one.stdout
      .trimEnd()
      .split('\n')
      .map((line) => JSON.parse(line).text),
    [rows[2].text, rows[3].text],
  )
  writeFileSync(data, `${JSON.stringify({ question: PROMPTS[1], chosen: 'a', rejected: 'b' })}\n`)
  assert.is((await implexHere([...common, '--data', data, '--rows', 'orca'])).stdout, one.stdout)
  assert.is((await implexHere(common)).status, 2)
  writeFileSync(data, '{"prompt": 3}\n')
  const bad = await implexHere([...common, '--data', data])
  assert.is(bad.status, 1)
  assert.match(bad.stderr, /line 1: "prompt" must be/)
})

generation.run()
stories.run()
command.run()
