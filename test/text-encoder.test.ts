/** RowEncoder: which template is taken, the ids of prompts and responses, the checks, and folders that do not work. */
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import type { Message } from '../lib/text/messages.js'
import { RowEncoder, type TextEncoderOptions } from '../lib/text/text-encoder.js'
import { responseIds, responseText } from './support/encoded.js'
import { sharedPath } from './support/shared.js'
import { skip } from './support/skip.js'
import { byteTokenizer, fails, folderOf, pieceTokenizer } from './support/text-fixtures.js'

const CHAT =
  "{{ bos_token }}{% for m in messages %}<|role|>{{ m['role'] }}\n{{ m['content'] | trim }}<|end|>{% endfor %}" +
  '{% if add_generation_prompt %}<|role|>assistant\n{% endif %}'
const CONFIG = { bos_token: '<|bos|>', eos_token: { content: '<|end|>', special: true }, pad_token: null }

/** A checkpoint folder with the byte-level tokenizer; `files` are added or, where undefined, left out. */
function folder(files: Record<string, unknown> = {}): string {
  const all = {
    'tokenizer.json': byteTokenizer(),
    'tokenizer_config.json': CONFIG,
    'chat_template.jinja': CHAT,
    ...files,
  }
  return folderOf(Object.fromEntries(Object.entries(all).filter(([, content]) => content !== undefined)))
}

const load = (path: string, options: Partial<TextEncoderOptions> = {}) => RowEncoder.load({ path, ...options })
const list = (ids: Int32Array): number[] => [...ids]

const golden = suite('RowEncoder: golden ids')

for (const name of ['llama', 'llama3', 'qwen2', 'qwen3', 'gpt_neox', 'gpt_neox_serial']) {
  golden(name, async () => {
    const root = sharedPath(`golden/${name}`)
    if (root === undefined) return skip(`no golden/${name} in the shared folder`)
    const expected = JSON.parse(readFileSync(join(root, 'expected.json'), 'utf8'))
    const encoder = await load(join(root, 'model'), { kind: 'generative' })
    assert.is(encoder.templateSource, 'checkpoint')
    assert.is(encoder.yesTokenId, expected.yes_id)
    assert.is(encoder.noTokenId, expected.no_id)
    assert.ok(expected.pairs.length > 0)
    for (const pair of expected.pairs) {
      assert.is(encoder.renderPrompt(pair.prompt), pair.rendered)
      assert.equal(list(encoder.encodePrompt(pair.prompt)), pair.ids.prompt)
      for (const side of ['chosen', 'rejected']) {
        assert.equal(list(responseIds(encoder, pair.prompt, pair[side])), pair.ids[side])
        assert.equal(list(encoder.encodeVerification(pair.prompt, pair[side])), pair.ids[`grm_${side}`])
      }
    }
  })
}

golden('stories260K: the default template adds two tokens', async () => {
  const path = sharedPath('models/stories260K')
  if (path === undefined) return skip('no models/stories260K in the shared folder')
  const encoder = await load(path)
  assert.is(encoder.templateSource, 'default')
  assert.equal(encoder.addedTokens, ['<|user|>', '<|assistant|>'])
  assert.is(encoder.vocabularySize, 514)
  assert.is(encoder.terminator, 2)
  const prompt = list(encoder.encodePrompt('Once upon a time'))
  assert.is(prompt[0], 512)
  assert.equal(prompt.slice(-2), [2, 513])
  const response = list(responseIds(encoder, 'Once upon a time', 'there was a girl.'))
  assert.is(response.at(-1), 2)
  await fails(() => load(path, { kind: 'generative' }), 'ERR_TOKENIZER_INVALID', '"Yes"', 'tokenizer.json')
})

golden.run()

const choice = suite('RowEncoder: which template')

choice('chat_template.jinja comes before tokenizer_config.json', async () => {
  const encoder = await load(folder({ 'tokenizer_config.json': { ...CONFIG, chat_template: 'other' } }))
  assert.is(encoder.templateSource, 'checkpoint')
  assert.is(encoder.renderPrompt(' hi '), '<|bos|><|role|>user\nhi<|end|><|role|>assistant\n')
  assert.is(responseText(encoder, ' hi ', ' yes '), 'yes<|end|>')
  assert.is(encoder.terminator, 1)
  assert.is(encoder.bosTokenId, 0)
})

choice('chat_template of tokenizer_config.json: text, or the default of a list', async () => {
  for (const template of [
    CHAT,
    [
      { name: 'tools', template: 'no' },
      { name: 'default', template: CHAT },
    ],
  ]) {
    const path = folder({
      'chat_template.jinja': undefined,
      'tokenizer_config.json': { ...CONFIG, chat_template: template },
    })
    assert.is(responseText(await load(path), 'a', 'b'), 'b<|end|>')
  }
})

choice('special_tokens_map.json names what tokenizer_config.json does not', async () => {
  const map = { bos_token: '<|role|>', eos_token: '<|end|>' }
  const path = folder({
    'tokenizer_config.json': { bos_token: null },
    'special_tokens_map.json': map,
    'chat_template.jinja': undefined,
  })
  const encoder = await load(path, { template: 'none' })
  assert.is(encoder.bosTokenId, undefined)
  assert.is(encoder.eosTokenId, 1)
})

choice('none: the raw prompt; the raw response and eos', async () => {
  const encoder = await load(folder(), { template: 'none' })
  assert.is(encoder.templateSource, 'none')
  assert.is(encoder.renderPrompt(' hi '), ' hi ')
  assert.is(responseText(encoder, ' hi ', ' yes'), ' yes<|end|>')
  assert.is(responseText(encoder, ' hi ', ' yes<|end|>'), ' yes<|end|>')
  assert.is(encoder.renderPrompt([{ role: 'user', content: 'x' }]), 'x')
  assert.is(encoder.terminator, 1)
  const two: Message[] = [
    { role: 'user', content: 'x' },
    { role: 'assistant', content: 'y' },
  ]
  await fails(() => encoder.encodePrompt(two), 'ERR_TEMPLATE_INVALID', '2 messages')
})

choice('default: markers the vocabulary has are not added again', async () => {
  const json = byteTokenizer()
  json.added_tokens.push({ id: 380, content: '<|assistant|>', special: true })
  const encoder = await load(folder({ 'tokenizer.json': json, 'chat_template.jinja': undefined }))
  assert.equal(encoder.addedTokens, ['<|user|>'])
  assert.is(encoder.vocabularySize, 382)
  assert.is(encoder.renderPrompt('a'), '<|user|>a<|end|><|assistant|>')
  assert.equal(list(encoder.encodePrompt('')), [381, 1, 380])
  await fails(() => encoder.encodePrompt([{ role: 'system', content: 'x' }]), 'ERR_TEMPLATE_INVALID', 'system')
})

choice('a file', async () => {
  const path = folder()
  const file = join(path, 'mine.jinja')
  writeFileSync(file, '{% for m in messages %}{{ m.content }}<|end|>{% endfor %}')
  const encoder = await load(path, { template: file })
  assert.is(encoder.templateSource, 'file')
  assert.is(responseText(encoder, 'a', 'b'), 'b<|end|>')
  await fails(() => load(path, { template: join(path, 'none.jinja') }), 'ERR_TEMPLATE_INVALID', 'none.jinja')
})

choice('the fingerprint tells apart what decides ids, and only that', async () => {
  const prints = await Promise.all([
    load(folder()),
    load(folder(), { template: 'none' }),
    load(folder(), { template: 'default' }),
    load(folder({ 'chat_template.jinja': `${CHAT} ` })),
    load(folder({ 'tokenizer_config.json': { ...CONFIG, bos_token: '<|role|>' } })),
    load(folder({ 'tokenizer.json': { ...byteTokenizer(), normalizer: { type: 'NFC' } } })),
  ])
  assert.is(new Set(prints.map((encoder) => encoder.fingerprint)).size, prints.length)
  assert.match(prints[0]!.fingerprint, /^[0-9a-f]{64}$/)
  assert.is((await load(folder({ 'other.json': {} }))).fingerprint, prints[0]!.fingerprint)
})

choice('a template that tells the date: fixed at loading, part of the fingerprint', async () => {
  const path = folder({ 'chat_template.jinja': `{{ strftime_now('%F') }}${CHAT}` })
  const first = await load(path, { now: new Date(2026, 1, 3, 4, 5) })
  const second = await load(path, { now: new Date(2026, 1, 4) })
  assert.match(first.renderPrompt('x'), /^2026-02-03/)
  assert.not.equal(first.fingerprint, second.fingerprint)
  assert.is(first.fingerprint, (await load(path, { now: new Date(2026, 1, 3, 22, 0) })).fingerprint)
})

choice.run()

const rows = suite('RowEncoder: rows')

rows('conversations: system and earlier turns belong to the prompt', async () => {
  const encoder = await load(folder())
  const prompt: Message[] = [
    { role: 'system', content: 's' },
    { role: 'user', content: 'a' },
    { role: 'assistant', content: 'b' },
    { role: 'user', content: 'c' },
  ]
  assert.is(
    encoder.renderPrompt(prompt),
    '<|bos|><|role|>system\ns<|end|><|role|>user\na<|end|><|role|>assistant\nb<|end|><|role|>user\nc<|end|><|role|>assistant\n',
  )
  assert.is(responseText(encoder, prompt, [{ role: 'assistant', content: 'd' }]), 'd<|end|>')
  assert.equal(
    list(responseIds(encoder, 'a', [{ role: 'assistant', content: 'd' }])),
    list(responseIds(encoder, 'a', 'd')),
  )
  const more: Message[] = [
    { role: 'assistant', content: 'd' },
    { role: 'user', content: 'e' },
    { role: 'assistant', content: 'f' },
  ]
  assert.is(responseText(encoder, prompt, more), 'd<|end|><|role|>user\ne<|end|><|role|>assistant\nf<|end|>')
})

rows('a list of messages that the caller changes afterwards is rendered anew', async () => {
  const encoder = await load(folder())
  const prompt = [{ role: 'user', content: 'a' }]
  const before = encoder.renderPrompt(prompt)
  prompt[0]!.content = 'b'
  assert.not.equal(encoder.renderPrompt(prompt), before)
})

rows('special tokens in a text are special tokens', async () => {
  const encoder = await load(folder(), { template: 'none' })
  assert.equal(list(encoder.encodePrompt('<|end|><|role|>')), [1, 2])
})

rows('a response of several messages becomes a transcript in the verification prompt', async () => {
  const encoder = await load(folder(), { template: 'none' })
  const turns: Message[] = [
    { role: 'user', content: 'a' },
    { role: 'assistant', content: 'b' },
  ]
  assert.equal(
    list(encoder.encodeVerification(turns, 'c')),
    list(encoder.encodeVerification('user: a\n\nassistant: b', 'c')),
  )
  assert.equal(list(encoder.encodeVerification([turns[0]!], 'c')), list(encoder.encodeVerification('a', 'c')))
})

rows('an empty response', async () => {
  for (const template of ['auto', 'none', 'default']) {
    const encoder = await load(folder(), { template })
    for (const empty of ['', ' \n\t', [], [{ role: 'assistant', content: '' }]]) {
      await fails(() => responseIds(encoder, 'x', empty), 'ERR_RESPONSE_EMPTY')
    }
  }
})

rows('a conversation that does not begin with its prompt', async () => {
  const encoder = await load(
    folder({
      'chat_template.jinja': '{{ messages | length }}{% for m in messages %}{{ m.content }}<|end|>{% endfor %}',
    }),
  )
  const { ids, border, parted, differs } = encoder.encodeConversation('x', 'y', 'separate')
  assert.equal([border, parted, differs], [0, true, false])
  assert.is(encoder.tokenTexts(ids).join(''), '2x<|end|>y<|end|>')
})

rows('a template that refuses a row', async () => {
  const encoder = await load(
    folder({
      'chat_template.jinja': `{% if 'bad' in messages[0].content %}{{ raise_exception('no bad words') }}{% endif %}${CHAT}`,
    }),
  )
  assert.ok(encoder.encodePrompt('good').length > 0)
  await fails(() => encoder.encodePrompt('bad'), 'ERR_TEMPLATE_INVALID', 'no bad words', 'chat_template.jinja')
})

rows('the terminator is what the template writes last, even after the end token', async () => {
  const text =
    '{% for m in messages %}<|role|>{{ m.content }}<|end|>\n{% endfor %}{% if add_generation_prompt %}<|role|>{% endif %}'
  const encoder = await load(folder({ 'chat_template.jinja': text }))
  assert.is(encoder.terminator, responseIds(encoder, 'x', 'y').at(-1))
  assert.not.equal(encoder.terminator, 1)
  const bare = await load(folder({ 'chat_template.jinja': '{% for m in messages %}{{ m.content }}\n{% endfor %}' }))
  assert.is(bare.terminator, undefined)
})

rows.run()

const bad = suite('RowEncoder: bad folders')

bad('no folder, no tokenizer', async () => {
  await fails(() => load(join(folder(), 'nowhere')), 'ERR_CHECKPOINT_NOT_FOUND', 'nowhere')
  await fails(
    () => load(folder({ 'tokenizer.json': undefined, 'tokenizer.model': 'x' })),
    'ERR_TOKENIZER_MISSING',
    'tokenizer.model',
  )
})

bad('tokenizer_config.json: not JSON, not an object, a token that is a number', async () => {
  for (const config of ['{"a":', '[]', '{"eos_token": 5}']) {
    await fails(
      () => load(folder({ 'tokenizer_config.json': config })),
      'ERR_TOKENIZER_INVALID',
      'tokenizer_config.json',
    )
  }
})

bad('chat_template of the wrong kind', async () => {
  for (const template of [5, {}, [5], [{ name: 'default' }], [{ name: 'tools', template: 'x' }]]) {
    const path = folder({
      'chat_template.jinja': undefined,
      'tokenizer_config.json': { ...CONFIG, chat_template: template },
    })
    await fails(() => load(path), 'ERR_TEMPLATE_INVALID', 'tokenizer_config.json', 'chat_template')
  }
})

bad('a template that is not Jinja', async () => {
  await fails(
    () => load(folder({ 'chat_template.jinja': '{% if %}' })),
    'ERR_TEMPLATE_INVALID',
    'chat_template.jinja',
    'Jinja',
  )
})

bad('a template that leaves out what is said', async () => {
  for (const text of [
    '',
    'hello',
    "{% for m in messages %}{% if m.role == 'user' %}{{ m.content }}{% endif %}{% endfor %}",
  ]) {
    await fails(() => load(folder({ 'chat_template.jinja': text })), 'ERR_TEMPLATE_INVALID', 'leaves out')
  }
})

bad('a special token that the vocabulary lacks', async () => {
  const config = { ...CONFIG, eos_token: '<|missing|>' }
  await fails(
    () => load(folder({ 'tokenizer_config.json': config }), { template: 'none' }),
    'ERR_TOKENIZER_INVALID',
    '<|missing|>',
  )
  // Named, but never written: no harm done.
  assert.is((await load(folder({ 'tokenizer_config.json': config }))).eosTokenId, undefined)
})

bad('a special token that is an ordinary entry of the vocabulary is cut out all the same', async () => {
  const json = pieceTokenizer()
  json.added_tokens = []
  const path = folderOf({ 'tokenizer.json': json, 'tokenizer_config.json': { bos_token: '<s>', eos_token: '</s>' } })
  const encoder = await load(path, { template: 'none' })
  assert.is(encoder.encodePrompt('<s>abc')[0], 1)
  assert.is(responseIds(encoder, 'abc', 'x').at(-1), 2)
})

bad('the default template without an end token', async () => {
  const path = folder({ 'chat_template.jinja': undefined, 'tokenizer_config.json': undefined })
  await fails(() => load(path), 'ERR_TEMPLATE_INVALID', 'eos_token', 'tokenizer_config.json')
})

bad('no "Yes" for a generative reward', async () => {
  const json = byteTokenizer()
  const { vocab } = json.model
  json.model.merges = []
  json.model.vocab = Object.fromEntries(Object.entries(vocab).filter(([token]) => [...token].length === 1))
  await fails(() => load(folder({ 'tokenizer.json': json }), { kind: 'generative' }), 'ERR_TOKENIZER_INVALID', '"Yes"')
})

bad('arguments', async () => {
  const wrong: [Record<string, unknown>, RegExp][] = [
    [{ path: 5 }, /"path" must be a string; got 5/],
    [{ path: 'x', template: 5 }, /"template"/],
    [{ path: 'x', template: '' }, /"template"/],
    [{ path: 'x', kind: 'best' }, /"kind" must be one of/],
    [{ path: 'x', now: new Date(Number.NaN) }, /"now"/],
  ]
  for (const [options, message] of wrong) {
    try {
      await RowEncoder.load(options as unknown as TextEncoderOptions)
      assert.unreachable()
    } catch (error) {
      assert.ok(error instanceof TypeError || error instanceof RangeError)
      assert.match((error as Error).message, message)
    }
  }
})

bad.run()
