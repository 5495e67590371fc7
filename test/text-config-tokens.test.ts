/** Tokens that tokenizer_config.json adds, and what a tokenizer's own post-processor puts around plain text. */
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { RowEncoder } from '../lib/text/text-encoder.js'
import { byteTokenizer, fails, folderOf, type TokenizerJson } from './support/text-fixtures.js'

const FLAGS = { single_word: false, lstrip: false, rstrip: false, normalized: false, special: true }
const CHAT =
  '{% for m in messages %}<|role|>{{ m.content }}<|end|>{% endfor %}{% if add_generation_prompt %}<|role|>{% endif %}'

function load(config: unknown, json: TokenizerJson = byteTokenizer(), template = 'none'): Promise<RowEncoder> {
  const files = { 'tokenizer.json': json, 'tokenizer_config.json': config, 'chat_template.jinja': CHAT }
  return RowEncoder.load({ path: folderOf(files), template })
}

const prompt = async (text: string, ...load_: Parameters<typeof load>) => [...(await load(...load_)).encodePrompt(text)]

/** Ids of two letters. Read here: a suite that is made after another was run and something was awaited is lost. */
const [A, B] = await prompt('ab', {}, { ...byteTokenizer(), model: { ...byteTokenizer().model, merges: [] } })

/** The byte-level tokenizer without some of its added tokens, in the vocabulary or not. */
function without(contents: readonly string[], inVocabulary: boolean): TokenizerJson {
  const json = byteTokenizer()
  json.added_tokens = json.added_tokens.filter(({ content }) => !contents.includes(content))
  if (!inVocabulary) for (const content of contents) delete json.model.vocab[content]
  return json
}

const added = suite('tokenizer_config.json: added tokens')

for (const inVocabulary of [true, false]) {
  const where = inVocabulary ? 'in the vocabulary' : 'in no other file'
  added(`added_tokens_decoder: tokens ${where} have the ids given there`, async () => {
    const json = without(['<|end|>', '<|role|>'], inVocabulary)
    const decoder = { 1: { content: '<|end|>', ...FLAGS }, 2: { content: '<|role|>', ...FLAGS } }
    const config = { eos_token: '<|end|>', added_tokens_decoder: decoder }
    assert.equal(await prompt('<|role|><|end|>', config, json), [2, 1])
    const encoder = await load(config, json, 'auto')
    assert.is(encoder.terminator, 1)
    assert.is(encoder.eosTokenId, 1)
    assert.is(encoder.vocabularySize, 380)
  })
}

added('added_tokens_decoder: flags count for new tokens; tokenizer.json has the last word on its own', async () => {
  const token = (content: string) => ({ content, ...FLAGS, rstrip: true })
  const config = { added_tokens_decoder: { 1: token('<|end|>'), 400: token('<|new|>') } }
  const [space] = await prompt(' ', config)
  assert.equal(await prompt('<|new|>  <|end|> ', config), [400, 1, space])
  assert.is((await load(config)).vocabularySize, 401)
})

added('added_tokens_decoder: an id that is taken, and none at all, is the next one', async () => {
  const config = {
    added_tokens_decoder: { 5: { content: '<|new|>', ...FLAGS } },
    additional_special_tokens: ['<|more|>'],
  }
  assert.equal(await prompt('<|new|><|more|><|role|>', config), [380, 381, 2])
})

added('additional_special_tokens and extra_special_tokens: lists, objects, and the older file', async () => {
  const two = ['<|a|>', { content: '<|b|>', ...FLAGS }]
  for (const config of [
    { additional_special_tokens: two },
    { extra_special_tokens: two },
    { extra_special_tokens: { first_token: '<|a|>', second_token: '<|b|>' } },
    { additional_special_tokens: ['<|a|>'], extra_special_tokens: ['<|a|>', '<|b|>'] },
  ]) {
    assert.equal(await prompt('<|b|><|a|>', config), [381, 380], JSON.stringify(config))
  }
  const files = { 'tokenizer.json': byteTokenizer(), 'special_tokens_map.json': { additional_special_tokens: two } }
  const encoder = await RowEncoder.load({ path: folderOf(files), template: 'none' })
  assert.equal([...encoder.encodePrompt('<|b|>')], [381])
  assert.equal(await prompt('<|role|>', { additional_special_tokens: ['<|role|>'] }, without(['<|role|>'], true)), [2])
})

added('they are part of the fingerprint', async () => {
  const prints = [{}, { extra_special_tokens: ['<|a|>'] }, { extra_special_tokens: ['<|b|>'] }, { add_bos_token: true }]
  const all = await Promise.all(prints.map(async (config) => (await load(config)).fingerprint))
  assert.is(new Set(all).size, prints.length)
})

added('what is no token is refused', async () => {
  const wrong: [unknown, string][] = [
    [{ added_tokens_decoder: [] }, 'added_tokens_decoder'],
    [{ added_tokens_decoder: { x: { content: 'a' } } }, 'added_tokens_decoder["x"]'],
    [{ added_tokens_decoder: { 7: 'a' } }, 'added_tokens_decoder["7"]'],
    [{ added_tokens_decoder: { 7: { content: 5 } } }, 'added_tokens_decoder["7"].content'],
    [{ additional_special_tokens: 'a' }, 'additional_special_tokens'],
    [{ extra_special_tokens: [5] }, 'extra_special_tokens'],
  ]
  for (const [config, name] of wrong) {
    await fails(() => load(config), 'ERR_TOKENIZER_INVALID', 'tokenizer_config.json', name)
  }
})

added.run()

const around = suite('template "none": what the tokenizer puts around a text')

const SPECIAL = {
  '<|bos|>': { id: '<|bos|>', ids: [0], tokens: ['<|bos|>'] },
  '<|end|>': { id: '<|end|>', ids: [1], tokens: [] },
}
const piece = (token: string) => ({ SpecialToken: { id: token, type_id: 0 } })
const TEXT = { Sequence: { id: 'A', type_id: 0 } }
const template = (...single: unknown[]) => ({ type: 'TemplateProcessing', single, special_tokens: SPECIAL })
const CONFIG = { bos_token: '<|bos|>', eos_token: '<|end|>' }

async function whole(post: unknown, question: string, answer: string, config: unknown = CONFIG): Promise<number[]> {
  const encoder = await load(config, { ...byteTokenizer(), post_processor: post })
  return [...encoder.encodeConversation(question, answer, 'separate').ids]
}

// post-processor, before, after the end that every response has
const kinds: [string, unknown, number[], number[]][] = [
  ['none', null, [], []],
  ['ByteLevel', { type: 'ByteLevel', trim_offsets: true }, [], []],
  ['a template with the text alone', template(TEXT), [], []],
  ['a template with a beginning', template(piece('<|bos|>'), TEXT), [0], []],
  ['a template with an end: no second one', template(piece('<|bos|>'), TEXT, piece('<|end|>')), [0], []],
  ['BertProcessing', { type: 'BertProcessing', cls: ['<|bos|>', 0], sep: ['<|role|>', 2] }, [0], [2]],
  ['RobertaProcessing', { type: 'RobertaProcessing', cls: ['<|bos|>', 0], sep: ['<|end|>', 1] }, [0], []],
  ['a sequence', { type: 'Sequence', processors: [{ type: 'ByteLevel' }, template(piece('<|bos|>'), TEXT)] }, [0], []],
]
for (const [name, post, before, after] of kinds) {
  around(name, async () => {
    const expected = [...before, A, B, 1, ...after]
    assert.equal(await whole(post, 'a', 'b'), expected)
    assert.equal(await whole(post, 'a', 'b<|end|>'), expected, 'a response that ends in its end')
    const begun = before.length > 0 ? before : [0]
    assert.equal(await whole(post, '<|bos|>a', 'b'), [...begun, A, B, 1, ...after], 'a prompt that begins')
    const same = { bos_token: '<|end|>', eos_token: '<|end|>' }
    assert.equal(await whole(post, 'a', 'b', same), expected, 'one token for both')
  })
}

around('add_bos_token and add_eos_token take the place of the post-processor', async () => {
  const post = template(piece('<|bos|>'), TEXT)
  assert.equal(await whole(post, 'a', 'b', { ...CONFIG, add_bos_token: false }), [A, B, 1])
  assert.equal(await whole(null, 'a', 'b', { ...CONFIG, add_bos_token: true, add_eos_token: true }), [0, A, B, 1])
  assert.equal(await whole(post, 'a', 'b', { eos_token: '<|end|>', add_bos_token: true }), [A, B, 1])
})

around('with a chat template nothing is added, and a kind that is not known does no harm', async () => {
  for (const post of [template(piece('<|bos|>'), TEXT, piece('<|end|>')), { type: 'Magic' }]) {
    const encoder = await load(CONFIG, { ...byteTokenizer(), post_processor: post }, 'auto')
    assert.equal([...encoder.encodeConversation('a', 'b', 'separate').ids], [2, A, 1, 2, B, 1])
  }
})

around('without one, what cannot be done is refused by name', async () => {
  const wrong: [unknown, string][] = [
    [{ type: 'Magic' }, '"Magic"'],
    [5, 'post_processor'],
    [{ type: 'Sequence', processors: [{ type: 'Magic' }] }, 'post_processor.processors[0].type'],
    [template(TEXT, TEXT), 'post_processor.single'],
    [template(), 'post_processor.single'],
    [template(piece('<|other|>'), TEXT), 'special_tokens["<|other|>"]'],
    [{ type: 'BertProcessing', cls: '<|bos|>' }, 'post_processor.cls'],
  ]
  for (const [post, name] of wrong) {
    await fails(
      () => load(CONFIG, { ...byteTokenizer(), post_processor: post }),
      'ERR_TOKENIZER_INVALID',
      'tokenizer.json',
      name,
    )
  }
})

around.run()
