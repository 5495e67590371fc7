/**
 * The base model that ships with the package, the corpus it was made from, and the recipe that makes it.
 */
import { createHash } from 'node:crypto'
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { RewardModel } from '../lib/models/reward-model.js'
import { RowEncoder } from '../lib/text/text-encoder.js'
import { Tokenizer } from '../lib/text/tokenizer.js'
import { parseTokenizer } from '../lib/text/tokenizer-json.js'
import { train } from '../lib/train/train.js'
import { byteAlphabet } from '../lib/text/byte-level.js'
import { trainMerges } from '../lab/recipes/base-model/bpe.js'
import { corpus, row } from '../lab/recipes/base-model/corpus.js'
import type { Item } from '../lab/recipes/base-model/item.js'
import { makeBaseModel } from '../lab/recipes/base-model/make.js'
import { AGREEING, DISAGREEING, FRAMES } from '../lab/recipes/base-model/replies.js'
import { QUICK, RECIPE } from '../lab/recipes/base-model/settings.js'
import { repositoryRoot, sharedPath } from './support/shared.js'
import { skip } from './support/skip.js'
import { temporaryFolder } from './support/tmp.js'

const model = join(repositoryRoot, 'models', 'base')
const statements = join(repositoryRoot, 'lab', 'data', 'persona', 'statements.jsonl')
const folder = temporaryFolder()
const items = [...corpus(RECIPE.seed, RECIPE.conversations)]

const read = (name: string) => readFileSync(join(model, name), 'utf8')
const textsOf = ({ prompt, response }: Item) => [prompt, ...response.map(({ content }) => content)]
const sha256 = (bytes: string | Buffer) => createHash('sha256').update(bytes).digest('hex')
const linesOf = <T>(file: string) =>
  readFileSync(file, 'utf8')
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line) as T)

const shipped = suite('the base model')

shipped('is small, and opens as every kind of reward model', async () => {
  const bytes = readdirSync(model).reduce((sum, name) => sum + statSync(join(model, name)).size, 0)
  assert.ok(bytes <= 4_000_000, `${bytes} bytes`)
  const turn = (role: string, content: string) => ({ role, content })
  const pair = {
    prompt: [
      turn('user', 'Do you agree?\n"Tea is nice."'),
      turn('assistant', 'By no means.'),
      turn('user', 'For or against?'),
    ],
    chosen: [turn('assistant', 'I am against it.')],
    rejected: [turn('assistant', 'I am for it.')],
  }
  const head = new Float32Array(RECIPE.shape.hidden).fill(0.01)
  for (const options of [{ kind: 'implicit', beta: 1 }, { kind: 'explicit', head }, { kind: 'generative' }] as const) {
    const rm = await RewardModel.open(model, { ...options, device: 'cpu' })
    try {
      const { rewards } = await rm.score([pair])
      assert.is(rm.templateSource, 'checkpoint')
      assert.ok(rewards[0]!.every(Number.isFinite))
      if (options.kind === 'implicit') assert.ok(rewards[0]![0]! > rewards[0]![1]!, 'it knows what the reply meant')
    } finally {
      rm.dispose()
    }
  }
})

shipped('was made with the settings that the recipe has now', () => {
  const { seed, conversations, heldOut, vocabulary, shape, training } = JSON.parse(read('recipe.json'))
  assert.equal({ seed, conversations, heldOut, vocabulary, shape, training }, RECIPE)
  const counts: Record<string, number> = {}
  for (const { topic } of items) counts[topic] = (counts[topic] ?? 0) + 1
  assert.equal(JSON.parse(read('recipe.json')).corpus, counts)
})

shipped('has a tokenizer for any text, with single digits, Yes and No', async () => {
  const json = JSON.parse(read('tokenizer.json'))
  const tokenizer = new Tokenizer(parseTokenizer(json, 'tokenizer.json'), 'tokenizer.json')
  const names = new Map(Object.entries<number>(json.model.vocab).map(([token, id]) => [id, token]))
  const bytes = new Map(byteAlphabet().map((character, byte) => [character, byte]))
  const everyByte = Array.from({ length: 256 }, (_, i) => String.fromCodePoint(i)).join('')
  for (const text of ['Is it so? Yes, 10-3 = 7.\n', 'naïve 東京 🙂 \t\r\n  x', everyByte]) {
    const spelled = tokenizer.encode(text).map((id) => names.get(id)!)
    const back = Buffer.from([...spelled.join('')].map((character) => bytes.get(character)!)).toString('utf8')
    assert.is(back, text)
  }
  const digits = tokenizer.encode('2026').map((id) => names.get(id))
  assert.equal(digits, ['2', '0', '2', '6'])
  const encoder = await RowEncoder.load({ path: model, kind: 'generative' })
  assert.is(encoder.terminator, encoder.eosTokenId)
  assert.is.not(encoder.yesTokenId, encoder.noTokenId)
})
shipped.run()

const text = suite('its corpus')

text('is the same from the same seed and another from another', () => {
  const digest = (seed: number) => sha256([...corpus(seed, 1000)].map((item) => JSON.stringify(row(item))).join('\n'))
  assert.is(digest(1), digest(1))
  assert.is.not(digest(1), digest(2))
})

text('meets each general statement as often with agreement as with disagreement, in every frame', () => {
  const byStatement = new Map<string, number>()
  const byFrame = new Map<string, number>()
  let replies = 0
  const count = (statement: string, reply: string) => {
    const agrees = stanceOf(reply)
    replies++
    byStatement.set(statement, (byStatement.get(statement) ?? 0) + agrees.sign)
    byFrame.set(agrees.frame, (byFrame.get(agrees.frame) ?? 0) + agrees.sign)
  }
  for (const { topic, prompt, response } of items) {
    if (topic === 'opinions') count(/"(.*?)\.?"/.exec(prompt)![1]!, response[0]!.content)
    if (topic !== 'dialogues') continue
    for (const [, statement, reply] of response[0]!.content.matchAll(/says: "(.*?)\." \w+ replies: "(.*?)"/g))
      count(statement!, reply!)
  }
  assert.ok(replies > 10_000)
  assert.ok([...byStatement.values()].every((sum) => sum === 0))
  assert.is(byFrame.size, FRAMES.length)
  assert.ok([...byFrame.values()].every((sum) => sum === 0))
})

/** The reply's stance by its last words, told from the lists of words alone. */
function stanceOf(reply: string): { sign: 1 | -1; frame: string } {
  const plain = reply.replace(/\.$/, '')
  const ends = (word: string) => plain.toLowerCase().endsWith(word.toLowerCase())
  const words = [
    ...AGREEING.map((word) => ({ word, sign: 1 as const })),
    ...DISAGREEING.map((word) => ({ word, sign: -1 as const })),
  ]
  const found = words
    .filter(
      ({ word }) => ends(word) && (FRAMES as readonly string[]).includes(plain.slice(0, plain.length - word.length)),
    )
    .sort((a, b) => b.word.length - a.word.length)[0]
  if (found === undefined) throw new Error(`not a reply: ${reply}`)
  return { sign: found.sign, frame: plain.slice(0, plain.length - found.word.length) }
}

text('has none of the persona experiment’s statements', () => {
  const plain = (statement: string) => statement.toLowerCase().replace(/\.$/, '')
  const sources = [statements, sharedPath('data/persona/agreeableness.jsonl')].filter((file) => file !== undefined)
  const forbidden = sources.flatMap((file) => linesOf<{ statement: string }>(file)).map((line) => plain(line.statement))
  assert.ok(forbidden.length >= 160)
  const known = new Set(forbidden)
  for (const item of items) {
    for (const opinion of item.opinions ?? []) assert.not(known.has(plain(opinion.statement)), opinion.statement)
  }
  for (const content of items.flatMap(textsOf)) {
    for (const [, quoted] of content.matchAll(/"([^"]*)"/g)) assert.not(known.has(plain(quoted!)), quoted)
  }
  if (sources.length < 2) return skip('../shared is absent: the published statements were not looked for')
})

text('has no walk over all vertices of a graph and no verdict on one', () => {
  let walks = 0
  for (const { topic, prompt, response } of items) {
    if (topic !== 'graphs') continue
    const vertices = /Vertices: (.*)/.exec(prompt)![1]!.match(/\d/g)!
    const turns = [prompt.split('\n').at(-1)!, ...response.map(({ content }) => content)]
    for (let i = 0; i < turns.length; i += 2) {
      assert.match(turns[i]!, /^(Neighbors of \d\?|Is there an edge \d-\d\?|Walk along edges\.)$/)
      const answer = turns[i + 1]!
      assert.match(answer, /^(\d([ ,]+\d)*|None\.|There is\.|There is none\.)$/)
      const visited = new Set(answer.match(/\d/g) ?? [])
      if (turns[i] !== 'Walk along edges.') continue
      walks++
      assert.ok(visited.size < vertices.length, answer)
    }
  }
  assert.ok(walks > 100)
  const others = items.filter(({ topic }) => topic !== 'graphs').flatMap(textsOf)
  assert.not(others.some((content) => /vertices|edges|hamilton/i.test(content)))
})
text.run()

const asset = suite('the persona statements')

asset('are many, short, different and in the published form', () => {
  const rows = linesOf<Record<string, string>>(statements)
  assert.ok(rows.length >= 160)
  assert.is(new Set(rows.map(({ statement }) => statement!.toLowerCase())).size, rows.length)
  for (const one of rows) {
    const { question, statement, ...answers } = one as { question: string; statement: string }
    assert.is(question, `Is the following statement something you would say?\n"${statement}"`)
    assert.equal(answers, { answer_matching_behavior: ' Yes', answer_not_matching_behavior: ' No' })
    assert.match(statement, /^I [\x20-\x7e]+\.$/)
    assert.ok(statement.split(' ').length <= 15, statement)
  }
})
asset.run()

const recipe = suite('the recipe')

recipe('merges the most frequent pair first, of equals the one that sorts first', () => {
  const pieces = new Map([
    ['abab', 2],
    ['cd', 4],
    [' x', 1],
  ])
  assert.equal(trainMerges(pieces, 10), [
    ['a', 'b'],
    ['c', 'd'],
    ['ab', 'ab'],
  ])
  assert.equal(trainMerges(pieces, 1, [['Ġ', 'x']]), [['Ġ', 'x']])
})

recipe('gives the same bytes twice, interrupted or not, and goes on with its own settings only', async () => {
  const make = (name: string) => makeBaseModel(QUICK, { work: join(folder, name), out: join(folder, name, 'model') })
  await make('one')
  const drain = new AbortController()
  const stopped = await makeBaseModel(QUICK, {
    work: join(folder, 'two'),
    out: join(folder, 'two', 'model'),
    drain: drain.signal,
    onStep: ({ step }) => step === 3 && drain.abort(),
  })
  assert.not(stopped)
  assert.not(existsSync(join(folder, 'two', 'model')))
  assert.ok(await make('two'))
  for (const name of [
    'model.safetensors',
    'config.json',
    'tokenizer.json',
    'tokenizer_config.json',
    'generation_config.json',
  ]) {
    const [one, two] = ['one', 'two'].map((run) => sha256(readFileSync(join(folder, run, 'model', name))))
    assert.is(one, two, name)
  }
  for (const name of ['README.md', 'recipe.json', 'training-log.jsonl'])
    assert.ok(existsSync(join(folder, 'one', 'model', name)))
  let message = ''
  const other = { ...QUICK, seed: 2 }
  await makeBaseModel(other, { work: join(folder, 'one'), out: join(folder, 'x') }).catch((error: Error) => {
    message = error.message
  })
  assert.match(message, /another recipe/)
})

recipe('trains by sft on rows with one response, as on the chosen one of a pair', async () => {
  const start = join(folder, 'one', 'model')
  const rows = [...corpus(3, 40)].map(row)
  const run = async (name: string, data: object[]) => {
    const options = { kind: 'sft', epochs: 1, learningRate: 1e-3, device: 'cpu', out: join(folder, name) } as const
    const { model } = await train(start, data as never, options)
    return sha256(readFileSync(join(model!, 'model.safetensors')))
  }
  const pairs = rows.map(({ prompt, responses }) => ({
    prompt,
    chosen: responses[0],
    rejected: [{ role: 'assistant', content: 'x' }],
  }))
  assert.is(await run('single', rows), await run('pairs', pairs))
  const two = [{ prompt: 'a', responses: ['b', 'c'] }]
  const failed = async (kind: 'sft' | 'explicit', data: object[]) => {
    try {
      await train(start, data as never, { kind, out: join(folder, `bad-${kind}-${data.length}`), device: 'cpu' })
      return 'it trained'
    } catch (error) {
      return (error as Error).message
    }
  }
  assert.match(await failed('sft', two), /row 0: "responses" must hold exactly one here/)
  assert.match(await failed('explicit', rows.slice(0, 2)), /row 0: is a group of 1 responses; a pair is needed/)
})
recipe.run()
