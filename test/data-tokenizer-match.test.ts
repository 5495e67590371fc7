/** Policy and reference: what may differ between two tokenizers, what may not, and what counts only where it occurs. */
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { EncodePool } from '../lib/data/encode-pool.js'
import type { EncodeSettings } from '../lib/data/encode.js'
import type { Row } from '../lib/data/rows.js'
import { rowSource } from '../lib/data/sources.js'
import { compareTokenizers } from '../lib/data/tokenizer-match.js'
import { Tokenizer } from '../lib/text/tokenizer.js'
import { readTokenizer } from '../lib/text/tokenizer-folder.js'
import { byteTokenizer, fails, folderOf, pieceTokenizer, type TokenizerJson } from './support/text-fixtures.js'

type Change = (json: TokenizerJson) => void

const FLAGS = { single_word: false, lstrip: false, rstrip: false, normalized: false, special: true }
const CONFIG = { bos_token: '<|bos|>', eos_token: '<|end|>' }

function folders(
  change: Change,
  make: () => TokenizerJson = byteTokenizer,
  config: unknown = CONFIG,
): [string, string] {
  const json = make()
  change(json)
  return [
    folderOf({ 'tokenizer.json': make(), 'tokenizer_config.json': CONFIG }),
    folderOf({ 'tokenizer.json': json, 'tokenizer_config.json': config }),
  ]
}

const equal = suite('tokenizers that give the same ids')

const steps = (json: TokenizerJson): { type: string; [key: string]: unknown }[] => {
  const step = json['pre_tokenizer'] as { type: string; pretokenizers?: { type: string }[] }
  return step.pretokenizers ?? [step]
}
const PREFIX_BYTES = { type: 'ByteLevel', add_prefix_space: false, trim_offsets: false, use_regex: false }

const harmless: [string, Change, (() => TokenizerJson)?][] = [
  ['nothing', () => {}],
  ['merges as texts', (j) => (j.model.merges = j.model.merges.map((m) => (Array.isArray(m) ? m.join(' ') : m)))],
  ['merges as lists', (j) => (j.model.merges = j.model.merges.map((m) => (typeof m === 'string' ? m.split(' ') : m)))],
  ['trim_offsets', (j) => steps(j).map((step) => Object.assign(step, { trim_offsets: !step['trim_offsets'] }))],
  ['an empty normalizer', (j) => (j['normalizer'] = { type: 'Sequence', normalizers: [] })],
  ['a sequence of one', (j) => (j['pre_tokenizer'] = { type: 'Sequence', pretokenizers: [j['pre_tokenizer']] })],
  [
    'post-processor, decoder, padding',
    (j) => Object.assign(j, { post_processor: PREFIX_BYTES, decoder: null, padding: {} }),
  ],
  [
    'an unknown token where all bytes are known',
    (j) => Object.assign(j.model, { unk_token: '<|end|>', fuse_unk: true }),
  ],
  ['order of the vocabulary', (j) => (j.model.vocab = Object.fromEntries(Object.entries(j.model.vocab).reverse()))],
  ['order of the added tokens', (j) => j.added_tokens.reverse()],
  ['special or not', (j) => j.added_tokens.map((token) => Object.assign(token, { special: false }))],
  [
    'normalized, without a normalizer',
    (j) => j.added_tokens.map((token) => Object.assign(token, { normalized: true })),
  ],
]
for (const [name, change, make] of harmless) {
  equal(name, async () => {
    assert.equal(await compareTokenizers(...folders(change, make)), {})
  })
}

equal('tokens that one file has in tokenizer.json and the other in tokenizer_config.json', async () => {
  const moved = byteTokenizer().added_tokens
  const decoder = Object.fromEntries(moved.map(({ id, ...token }) => [id, token]))
  const [a, b] = folders((j) => (j.added_tokens = []), byteTokenizer, { ...CONFIG, added_tokens_decoder: decoder })
  assert.equal(await compareTokenizers(a, b), {})
  assert.equal(await compareTokenizers(b, a), {})
})

equal('a folder without a tokenizer contradicts nothing', async () => {
  assert.equal(await compareTokenizers(folders(() => {})[0], folderOf({})), {})
})

equal.run()

const other = suite('tokenizers that give other ids')

const differing: [string, string, Change, (() => TokenizerJson)?][] = [
  ['a normalizer', 'normalizer', (j) => (j['normalizer'] = { type: 'NFC' })],
  ['cuts', 'pre-tokenizer', (j) => (j['pre_tokenizer'] = { type: 'ByteLevel', add_prefix_space: true })],
  ['the order of merges', 'merges', (j) => j.model.merges.reverse()],
  ['a merge less', 'merges', (j) => j.model.merges.pop()],
  [
    'ids of the vocabulary',
    'vocabulary',
    (j) => Object.assign(j.model.vocab, { a: j.model.vocab['b'], b: j.model.vocab['a'] }),
  ],
  ['ignore_merges', "model's settings", (j) => (j.model['ignore_merges'] = true)],
  ['byte_fallback', "model's settings", (j) => (j.model['byte_fallback'] = false), pieceTokenizer],
  ['a character that one side lacks', 'vocabulary', (j) => (j.model.vocab['\u20ac'] = 9000), pieceTokenizer],
]
for (const [name, expected, change, make] of differing) {
  other(name, async () => {
    const [a, b] = folders(change, make)
    assert.equal(await compareTokenizers(a, b), { difference: expected })
    assert.equal(await compareTokenizers(b, a), { difference: expected })
  })
}

other.run()

const occurring = suite('tokens that are not shared count where they occur')

// A change, a text without the token, a text with it, and the token.
const disputes: [string, Change, string, string][] = [
  [
    'a token that one side has alone',
    (j) => j.added_tokens.push({ id: 380, content: '<|new|>', ...FLAGS }),
    'a <b> c',
    '<|new|>',
  ],
  [
    'a token under another id',
    (j) => Object.assign(j.added_tokens[2]!, { content: '<|new|>' }) && delete j.model.vocab['<|role|>'],
    'a',
    '<|role|>',
  ],
  ['white space that one side takes away', (j) => (j.added_tokens[2]!['rstrip'] = true), '<|role|>a', '<|role|> '],
]
for (const [name, change, harmlessText, text] of disputes) {
  occurring(name, async () => {
    for (const [own, reference] of [folders(change), folders(change).reverse() as [string, string]]) {
      const { check, difference } = await compareTokenizers(own, reference)
      assert.is(difference, undefined)
      const { spec, file } = await readTokenizer(own)
      const tokenizer = new Tokenizer(spec, file)
      tokenizer.watch = check
      assert.ok(tokenizer.encode(`x${harmlessText}y`).length > 0)
      await fails(() => tokenizer.encode(`x${text}y`), 'ERR_TOKENIZER_INVALID', text.trim(), reference)
    }
  })
}

const SETTINGS: EncodeSettings = {
  kind: 'implicit',
  border: 'whole',
  onLong: 'error',
  contextLength: 100_000,
  vocabularySize: 1000,
}

async function rowsOf(own: string, reference: string, rows: Row[], template: string, threads: number) {
  const pool = await EncodePool.start({ path: own, template }, threads)
  try {
    assert.is(await pool.compareWith(reference), undefined)
    const all = []
    for await (const chunk of pool.encode(rowSource(rows).chunks(), SETTINGS)) all.push(...chunk)
    return all
  } finally {
    pool.close()
  }
}

occurring('a row with such a token is refused by name, in every thread; the others are not', async () => {
  const [own, reference] = folders((j) => j.added_tokens.push({ id: 380, content: '<|new|>', ...FLAGS }))
  // Many characters a row: every thread gets some.
  const long = 'word '.repeat(20_000)
  const rows = Array.from({ length: 8 }, (_, i) => ({ prompt: long, chosen: i % 2 ? 'a' : 'a <|new|>', rejected: 'b' }))
  const encoded = await rowsOf(own, reference, rows, 'none', 2)
  for (const [i, row] of encoded.entries()) {
    if (i % 2) assert.is(row.error, undefined)
    else assert.match(row.error!.message, /the token "<\|new\|>" occurs/)
  }
})

occurring('markers of the default template are in both', async () => {
  const [own, reference] = folders((j) => j.added_tokens.push({ id: 379 + 50, content: '<|new|>', ...FLAGS }))
  const [fine, bad] = await rowsOf(
    own,
    reference,
    [
      { prompt: 'p', responses: ['a'] },
      { prompt: 'p', responses: ['<|new|>'] },
    ],
    'default',
    1,
  )
  assert.is(fine!.error, undefined)
  assert.match(bad!.error!.message, /"<\|new\|>" occurs/)
})

occurring.run()
