/**
 * Ids of whole conversations and where the prompt ends in them: reference ids of small conversations at whose border tokens join or whose
 * prompt does not begin them, both rules against plain tokenizing on random texts, and the sharing of prompts of several lengths.
 *
 * fixtures/conversations/expected.json: made with transformers 5.18 and jinja2 3.1. `whole` are the ids of the rendered conversation in one
 * piece, `prompt` those that it begins with in common with the rendered prompt.
 */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { encodeRow, type EncodedRow, type EncodeSettings, promptOf } from '../lib/data/encode.js'
import { BatchBuilder, nativeBatch } from '../lib/data/pack.js'
import { trainBatch } from '../lib/train/batches.js'
import { ChatTemplate } from '../lib/text/chat-template.js'
import { encodeConversation, encodeText } from '../lib/text/conversation.js'
import { RowEncoder } from '../lib/text/text-encoder.js'
import { Tokenizer } from '../lib/text/tokenizer.js'
import { parseTokenizer } from '../lib/text/tokenizer-json.js'
import { seededRandom } from './fixtures/random.js'
import { repositoryRoot } from './support/shared.js'
import { expected, folderOf, patched, texts } from './support/text-fixtures.js'

interface Case {
  name: string
  what: string
  tokenizer: unknown
  config: unknown
  template: string
  rows: { row: unknown; responses: { whole: number[]; prompt: number[] }[] }[]
}

const cases = JSON.parse(
  readFileSync(join(repositoryRoot, 'test/fixtures/conversations/expected.json'), 'utf8'),
) as Case[]

const SETTINGS: EncodeSettings = {
  kind: 'implicit',
  border: 'whole',
  onLong: 'error',
  contextLength: 10_000,
  vocabularySize: 10_000,
}

const encoderOf = ({ tokenizer, config, template }: Case): Promise<RowEncoder> =>
  RowEncoder.load({
    path: folderOf({ 'tokenizer.json': tokenizer, 'tokenizer_config.json': config, 'chat_template.jinja': template }),
  })

const sequence = (row: EncodedRow, k: number) => [...promptOf(row, k), ...row.responses[k]!]

const ids = suite('ids of conversations')

for (const one of cases) {
  ids(`${one.name}: ${one.what}`, async () => {
    const encoder = await encoderOf(one)
    let odd = 0
    for (const [index, { row, responses }] of one.rows.entries()) {
      for (const kind of ['explicit', 'implicit'] as const) {
        const encoded = encodeRow(encoder, { index, text: JSON.stringify(row) }, { ...SETTINGS, kind })
        if (encoded.error !== undefined) throw encoded.error
        for (const [k, { whole, prompt }] of responses.entries()) {
          assert.equal(sequence(encoded, k), whole)
          assert.equal([...promptOf(encoded, k)], prompt)
        }
        if (encoded.borderDiffers || encoded.promptParted) odd++
      }
    }
    assert.ok(odd > 0, 'no row of this case tells that its border is odd')
  })
}

ids('a row says whether the other rule gives other ids, and then they are', async () => {
  for (const one of cases) {
    const encoder = await encoderOf(one)
    for (const [index, { row }] of one.rows.entries()) {
      const line = { index, text: JSON.stringify(row) }
      const whole = encodeRow(encoder, line, SETTINGS)
      const separate = encodeRow(encoder, line, { ...SETTINGS, border: 'separate' })
      const same = whole.responses.every(
        (_, k) =>
          String(sequence(whole, k)) === String(sequence(separate, k)) &&
          promptOf(whole, k).length === promptOf(separate, k).length,
      )
      assert.is(same, !whole.borderDiffers, `${one.name}, row ${index}`)
      assert.is(separate.borderDiffers, whole.borderDiffers)
      assert.is(separate.promptParted, whole.promptParted)
    }
  }
})

ids('both rules are plain tokenizing, wherever a text is cut', () => {
  const bases = expected.cases.flatMap(({ name, base, patch }) => {
    const json = expected.tokenizers[base]
    return json === undefined ? [] : [{ name, json: patched(json, patch) }]
  })
  const random = seededRandom(12)
  let differ = 0
  let agree = 0
  for (const { name, json } of bases) {
    const tokenizer = new Tokenizer(parseTokenizer(json, name), name)
    const added = json.added_tokens.map(({ content }) => content)
    for (let i = 0; i < 60; i++) {
      const parts = Array.from({ length: 4 }, () =>
        random.pick([random.pick(texts).slice(0, 40), random.pick(added), ' ', '\n', "'s", '  a']),
      )
      const text = parts.join('')
      const at = random.below(text.length + 1)
      if (!text.slice(0, at).isWellFormed()) continue
      const prompt = encodeText(tokenizer, text.slice(0, at))
      const whole = encodeConversation(tokenizer, prompt, text, 'whole')
      const separate = encodeConversation(tokenizer, prompt, text, 'separate')
      const apart = [...tokenizer.encode(text.slice(0, at)), ...tokenizer.encode(text.slice(at))]
      const where = `${name}: ${JSON.stringify([text.slice(0, at), text.slice(at)])}`
      assert.equal([...whole.ids], tokenizer.encode(text), where)
      assert.equal([...separate.ids], apart, where)
      assert.equal(prompt.ids.subarray(0, whole.border), whole.ids.subarray(0, whole.border), where)
      assert.is(whole.ids[whole.border] !== prompt.ids[whole.border] || whole.border === prompt.ids.length, true, where)
      const equal = String(apart) === String([...whole.ids]) && whole.border === prompt.ids.length
      assert.equal([whole.differs, separate.differs], [!equal, !equal], where)
      if (equal) agree++
      else differ++
    }
  }
  assert.ok(differ > 100 && agree > 100, `${differ} differ, ${agree} agree`)
})
ids('a template renders a prompt once for all its responses, and each conversation once', async () => {
  const encoder = await encoderOf(cases[0]!)
  const { render } = ChatTemplate.prototype
  let prompts = 0
  let conversations = 0
  ChatTemplate.prototype.render = function (messages, addGenerationPrompt, inputs) {
    if (addGenerationPrompt) prompts++
    else conversations++
    return render.call(this, messages, addGenerationPrompt, inputs)
  }
  try {
    const lines = ['q', 'q', 'r'].map((prompt) => JSON.stringify({ prompt, responses: ['a', 'b', 'c'] }))
    for (const [index, text] of lines.entries())
      assert.is(encodeRow(encoder, { index, text }, SETTINGS).error, undefined)
  } finally {
    ChatTemplate.prototype.render = render
  }
  assert.equal([prompts, conversations], [2, 9])
})
ids.run()

const sharing = suite('prompts of several lengths in a row')

const row = (id: number, borders: number[], lengths: number[]): EncodedRow => ({
  index: id,
  shape: 'group',
  prompt: Int32Array.from({ length: Math.max(...borders) }, (_, i) => id + i),
  ...(new Set(borders).size > 1 ? { promptLengths: borders } : {}),
  responses: lengths.map((length, k) => new Int32Array(length).fill(100 + k)),
})

/** The sequences of a batch, as the engine reads them. */
function sequences({ tokens, segments, scored }: { tokens: Int32Array; segments: Int32Array; scored: Int32Array }) {
  const segment = (i: number) => [...tokens.subarray(segments[3 * i]!, segments[3 * i]! + segments[3 * i + 1]!)]
  return Array.from(scored, (i) => {
    const parent = segments[3 * i + 2]!
    return { prompt: parent < 0 ? [] : segment(parent), response: segment(i) }
  })
}

sharing('each response follows its own part of the prompt, in scoring and in training', () => {
  const { below } = seededRandom(7)
  for (let round = 0; round < 100; round++) {
    const rows = Array.from({ length: 4 }, (_, id) => {
      const count = 1 + below(4)
      const borders = Array.from({ length: count }, () => below(4))
      return row(
        10 * (id + 1),
        borders,
        Array.from({ length: count }, () => 1 + below(5)),
      )
    })
    const budget = 1 + below(40)
    const builder = new BatchBuilder(budget)
    for (const one of rows) builder.add({ row: one })
    builder.flush()
    const found = []
    for (let items = builder.take(); items !== undefined; items = builder.take()) {
      const batch = nativeBatch(items, { readout: 'logprob' })
      assert.ok(batch.tokens.length <= budget || items.length === 1)
      found.push(...sequences(batch))
    }
    const wanted = rows.flatMap((one) =>
      one.responses.map((response, k) => ({ prompt: [...promptOf(one, k)], response: [...response] })),
    )
    assert.equal(found, wanted)
    const pairs = rows.filter(({ responses }) => responses.length === 2).map((one) => ({ ...one, ordinal: 0 }))
    if (pairs.length === 0) continue
    const trained = trainBatch('implicit', pairs, { scale: 1, gradients: false })
    const parts = pairs.flatMap((one) =>
      one.responses.map((response, k) => ({ prompt: [...promptOf(one, k)], response: [...response] })),
    )
    assert.equal(sequences(trained), parts)
  }
})

sharing('responses that follow the same part share it', () => {
  const items = [0, 1, 2].map((k) => ({ slot: { row: row(5, [3, 3, 2], [1, 1, 1]) }, k }))
  const shared = items.map(({ k }) => ({ slot: items[0]!.slot, k }))
  const { segments } = nativeBatch(shared, { readout: 'logprob' })
  assert.equal([...segments], [0, 3, -1, 3, 1, 0, 4, 1, 0, 5, 2, -1, 7, 1, 3])
})
sharing.run()
