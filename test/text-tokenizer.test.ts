/** Token ids against the reference implementation, and what becomes of a tokenizer.json that is broken or beyond us. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { Tokenizer } from '../lib/text/tokenizer.js'
import { parseTokenizer, readTokenizerFile } from '../lib/text/tokenizer-json.js'
import { sharedPath } from './support/shared.js'
import { skip } from './support/skip.js'
import {
  byteTokenizer,
  expected,
  fails,
  folderOf,
  patched,
  pieceTokenizer,
  type TokenizerJson,
  texts,
  written,
} from './support/text-fixtures.js'

const build = (json: unknown): Tokenizer => new Tokenizer(parseTokenizer(json, 'tokenizer.json'), 'tokenizer.json')

const ids = suite('tokenizer: ids of the reference')

const shared: Record<string, string> = { golden: 'golden/llama/model', stories: 'models/stories260K' }

for (const { name, base, patch, ids: reference } of expected.cases) {
  ids(name, () => {
    let json = expected.tokenizers[base]
    if (json === undefined) {
      const folder = sharedPath(shared[base] as string)
      if (folder === undefined) return skip(`no ${shared[base]} in the shared folder`)
      json = JSON.parse(readFileSync(join(folder, 'tokenizer.json'), 'utf8')) as TokenizerJson
    }
    const tokenizer = build(patched(json, patch))
    texts.forEach((text, i) => {
      assert.is(written(tokenizer.encode(text)), reference[i], JSON.stringify(text.slice(0, 50)))
      // Again: this time pieces come from the cache.
      assert.is(written(tokenizer.encode(text)), reference[i], `cached: ${JSON.stringify(text.slice(0, 50))}`)
    })
  })
}

ids('texts of tokens: joined, what was encoded', () => {
  for (const [kind, tokenizer] of [
    ['byte', build(byteTokenizer())],
    ['piece', build(pieceTokenizer())],
  ] as const) {
    for (const text of ['hello world', ' two  spaces ', 'Bär 🐻 läuft', '\n\ttabs', '\ufeffmark']) {
      const encoded = tokenizer.encode(text)
      const decoded = tokenizer.texts(encoded)
      assert.is(decoded.length, encoded.length)
      assert.is(decoded.join(''), text, `${kind}: ${JSON.stringify(text)}`)
    }
    const bear = tokenizer.encode('🐻')
    // Cut in the middle of a character, which then never becomes whole.
    if (bear.length > 1) assert.match(tokenizer.texts(bear.slice(0, -1)).join(''), /^\ufffd+$/)
    assert.equal(tokenizer.texts([]), [])
    assert.equal(tokenizer.texts([1e6]), [''])
  }
})

ids('the order of texts and what was tokenized before change nothing', () => {
  const a = build(byteTokenizer())
  const b = build(byteTokenizer())
  const forwards = texts.map((text) => written(a.encode(text)))
  const backwards = texts.toReversed().map((text) => written(b.encode(text)))
  assert.equal(forwards, backwards.toReversed())
})

ids('a lone surrogate counts as U+FFFD', () => {
  for (const tokenizer of [build(byteTokenizer()), build(pieceTokenizer())]) {
    assert.equal(tokenizer.encode('a\ud800b'), tokenizer.encode('a\ufffdb'))
    assert.equal(tokenizer.encode('\udc00'), tokenizer.encode('\ufffd'))
    assert.equal(tokenizer.encode('x\ude00\ud83d'), tokenizer.encode('x\ufffd\ufffd'))
    assert.not.equal(tokenizer.encode('\ud83d\ude00'), tokenizer.encode('\ufffd\ufffd'))
  }
})

ids('tokens of the vocabulary are looked up exactly', () => {
  const tokenizer = build(byteTokenizer())
  assert.is(tokenizer.tokenId('<|end|>'), 1)
  assert.is(tokenizer.tokenId('<|END|>'), undefined)
  assert.is(tokenizer.tokenId('toString'), undefined)
  assert.is(tokenizer.size, 380)
  assert.ok(tokenizer.isAdded(1))
  assert.not.ok(tokenizer.isAdded(5))
})

ids('a word of 100 kB and a text of 1 MB take seconds at most', () => {
  for (const tokenizer of [build(byteTokenizer()), build(pieceTokenizer())]) {
    const started = performance.now()
    assert.ok(tokenizer.encode('ab'.repeat(50_000)).length > 1000)
    assert.ok(tokenizer.encode('The quick brown fox, 123.\n'.repeat(40_000)).length > 100_000)
    assert.ok(performance.now() - started < 20_000)
  }
})

ids.run()

const bad = suite('tokenizer: bad files')

const regex = { Regex: '(' }

// [what, where, the value put there, what the message must have]
const broken: [string, (string | number)[], unknown, string[]][] = [
  ['no model', ['model'], undefined, ['model', 'undefined']],
  ['a model of a kind that is not supported', ['model', 'type'], 'Unigram', ['Unigram', 'BPE']],
  ['an unknown pre-tokenizer', ['pre_tokenizer'], { type: 'Magic' }, ['pre_tokenizer', 'Magic']],
  [
    'one within a sequence',
    ['pre_tokenizer'],
    { type: 'Sequence', pretokenizers: [{ type: 'X' }] },
    ['pretokenizers[0]'],
  ],
  ['a pre-tokenizer that is text', ['pre_tokenizer'], 'ByteLevel', ['pre_tokenizer']],
  ['an unknown normalizer', ['normalizer'], { type: 'Lowercase' }, ['normalizer', 'Lowercase']],
  ['a vocabulary that is a list', ['model', 'vocab'], ['a'], ['model.vocab']],
  ['an id that is text', ['model', 'vocab', 'a'], '5', ['vocab', '"a"', '"5"']],
  ['an id below 0', ['model', 'vocab', 'a'], -1, ['vocab', '-1']],
  ['no merges', ['model', 'merges'], undefined, ['model.merges']],
  ['a merge of three tokens', ['model', 'merges', 3], 'a b c', ['merges[3]']],
  ['a merge of numbers', ['model', 'merges', 3], [1, 2], ['merges[3]']],
  ['a merge into no token', ['model', 'merges', 3], ['z', 'zz'], ['merges[3]', 'vocabulary']],
  ['an unknown-token that is unknown', ['model', 'unk_token'], '<nope>', ['unk_token', '<nope>']],
  ['an added token without text', ['added_tokens', 1, 'content'], '', ['added_tokens[1]']],
  ['an added token with a fraction as id', ['added_tokens', 1, 'id'], 1.5, ['added_tokens[1].id']],
  ['a bad pattern', ['pre_tokenizer'], { type: 'Split', pattern: regex, behavior: 'Isolated' }, []],
  [
    'an unknown split',
    ['pre_tokenizer'],
    { type: 'Split', pattern: { String: 'a' }, behavior: 'X' },
    ['behavior', '"X"'],
  ],
]

for (const [name, place, value, parts] of broken) {
  bad(name, async () => {
    const json = byteTokenizer()
    let at = json as unknown as Record<string | number, unknown>
    for (const key of place.slice(0, -1)) at = at[key] as Record<string | number, unknown>
    at[place.at(-1) as string | number] = value
    await fails(() => build(json), 'ERR_TOKENIZER_INVALID', 'tokenizer.json', ...parts)
  })
}

bad('not an object at all', async () => {
  for (const json of [[], null, 'x', 5]) await fails(() => build(json), 'ERR_TOKENIZER_INVALID', 'object')
})

bad('a file cut off anywhere is an error that names it', async () => {
  const whole = JSON.stringify(byteTokenizer())
  for (let part = 0; part < 1; part += 0.09) {
    const folder = folderOf({ 'tokenizer.json': whole.slice(0, Math.floor(whole.length * part)) })
    await fails(() => readTokenizerFile(folder), 'ERR_TOKENIZER_INVALID', join(folder, 'tokenizer.json'), 'JSON')
  }
})

bad('any value in any place gives an error of ours or a tokenizer', () => {
  const values: unknown[] = [
    null,
    undefined,
    0,
    -1,
    1e300,
    '',
    'x',
    true,
    [],
    {},
    [[]],
    { type: 'Split' },
    { type: 'Sequence' },
  ]
  const places = ['model', 'added_tokens', 'normalizer', 'pre_tokenizer', 'decoder', 'post_processor', 'truncation']
  const modelPlaces = [
    'type',
    'vocab',
    'merges',
    'unk_token',
    'byte_fallback',
    'fuse_unk',
    'ignore_merges',
    'end_of_word_suffix',
  ]
  for (const value of values) {
    for (const place of [...places, ...modelPlaces]) {
      const json = byteTokenizer()
      Object.assign(modelPlaces.includes(place) ? json.model : json, { [place]: value })
      try {
        build(json).encode('Hello, world! <|end|>')
      } catch (error) {
        assert.is((error as { code?: string }).code, 'ERR_TOKENIZER_INVALID', `${place}: ${String(error)}`)
      }
    }
  }
})

bad('no tokenizer.json: says what is there and what to do', async () => {
  const folder = folderOf({ 'tokenizer.model': 'x', 'config.json': {} })
  await fails(() => readTokenizerFile(folder), 'ERR_TOKENIZER_MISSING', folder, 'tokenizer.model', 'save_pretrained')
})

bad('no folder', async () => {
  const folder = join(folderOf({}), 'nowhere')
  await fails(() => readTokenizerFile(folder), 'ERR_CHECKPOINT_NOT_FOUND', folder)
})

bad.run()
