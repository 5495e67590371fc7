/** Good checkpoints: the specs of the reference folders and of tiny ones of every family, style and storage. */
import { join } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { type Checkpoint, openCheckpoint, readHead, withAddedTokens } from '../lib/checkpoint/checkpoint.js'
import type { ModelSpec, StoredDtype, WeightSource } from '../lib/native/spec.js'
import { editHeader, joinSafetensors, splitSafetensors, weightsFile } from './fixtures/damage.js'
import { TINY_FAMILIES, type TinyCheckpointOptions, writeTinyCheckpoint } from './fixtures/tiny-checkpoint.js'
import { sharedPath } from './support/shared.js'
import { skip } from './support/skip.js'
import { temporaryFolder } from './support/tmp.js'

const root = temporaryFolder()
let made = 0

async function tiny(options: TinyCheckpointOptions = {}): Promise<Checkpoint> {
  const folder = join(root, String(made++))
  await writeTinyCheckpoint(folder, { tokenizer: false, ...options })
  return openCheckpoint(folder)
}

const roles = ({ spec }: Checkpoint) => spec.weights.map((weight) => weight.role)
const weight = ({ spec }: Checkpoint, role: string) => spec.weights.find((item) => item.role === role) as WeightSource

/** The numbers of a spec, for comparing. */
function numbers(spec: ModelSpec): Record<string, unknown> {
  const { weights: _, inverseFrequencies, ...rest } = spec
  return { ...rest, inverseFrequencies: [...inverseFrequencies] }
}

const SMALL = { vocabSize: 512, addedTokens: 0, hiddenSize: 64, layers: 3, heads: 4, maxPositions: 1024 }
const LLAMA = {
  ...SMALL,
  kvHeads: 2,
  headDim: 16,
  rotaryDim: 16,
  intermediateSize: 192,
  norm: 'rms',
  normEps: 1e-6,
  activation: 'silu',
  gated: true,
  parallelResidual: false,
  qkNorm: false,
  tiedEmbedding: false,
}
const NEOX = {
  ...LLAMA,
  family: 'gpt_neox',
  kvHeads: 4,
  intermediateSize: 256,
  norm: 'layer',
  normEps: 1e-5,
  activation: 'gelu',
  gated: false,
}
// Numbers of weights: one per role. Frequencies: the second of each, as transformers 5 computes it in float32.
const REFERENCES = [
  ['golden/llama/model', { ...LLAMA, family: 'llama' }, 30, 0.3162277638912201],
  ['golden/llama3/model', { ...LLAMA, family: 'llama', normEps: 1e-5, tiedEmbedding: true }, 29, 0.193922758102417],
  ['golden/qwen2/model', { ...LLAMA, family: 'qwen2', tiedEmbedding: true }, 38, 0.17782793939113617],
  [
    'golden/qwen3/model',
    { ...LLAMA, family: 'qwen3', headDim: 32, rotaryDim: 32, qkNorm: true },
    36,
    0.4216965138912201,
  ],
  ['golden/gpt_neox/model', { ...NEOX, parallelResidual: true, rotaryDim: 4 }, 52, 0.009999999776482582],
  ['golden/gpt_neox_serial/model', { ...NEOX, rotaryDim: 16 }, 52, 0.3162277638912201],
  [
    'models/stories260K',
    {
      ...LLAMA,
      family: 'llama',
      layers: 5,
      heads: 8,
      kvHeads: 4,
      headDim: 8,
      rotaryDim: 8,
      intermediateSize: 172,
      maxPositions: 512,
      normEps: 1e-5,
      tiedEmbedding: true,
    },
    47,
    0.10000000149011612,
  ],
] as const

for (const [name, expected, weights, frequency] of REFERENCES) {
  test(`opens ${name}`, async () => {
    const path = sharedPath(name)
    if (!path) return skip(`the shared folder has no ${name}`)
    const checkpoint = await openCheckpoint(path)
    const { inverseFrequencies, ...rest } = numbers(checkpoint.spec)
    assert.equal(rest, expected)
    assert.is((inverseFrequencies as number[]).length, expected.rotaryDim / 2)
    assert.is((inverseFrequencies as number[])[1], frequency)
    assert.is(checkpoint.spec.weights.length, weights)
    assert.is(checkpoint.contextLength, expected.maxPositions)
    assert.is(checkpoint.dtype, 'f32')
    assert.is(checkpoint.path, path)
  })
}

test('reads the reference heads', async () => {
  const path = sharedPath('golden/llama/score.safetensors')
  if (!path) return skip('the shared folder has no golden/llama')
  const head = await readHead(path, 64)
  assert.is(head.length, 64)
  assert.is(head[0], 0.03624336048960686)
})

for (const family of TINY_FAMILIES) {
  test(`${family}: styles, shards and dtypes give the same spec`, async () => {
    const plain = await tiny({ family })
    const expected = numbers(plain.spec)
    for (const dtype of ['f32', 'f16', 'bf16'] satisfies StoredDtype[]) {
      for (const options of [{ style: 4 }, { style: 5, shardBytes: 20_000 }] as TinyCheckpointOptions[]) {
        const other = await tiny({ family, dtype, ...options })
        assert.equal(numbers(other.spec), expected)
        assert.equal(roles(other), roles(plain))
        assert.is(other.dtype, dtype)
        const files = new Set(other.spec.weights.map((item) => item.file)).size
        assert.ok(options.shardBytes ? files > 3 : files === 1)
      }
    }
  })

  test(`${family}: unembedding and head by kind of checkpoint`, async () => {
    const has = async (options: TinyCheckpointOptions, unembedding: boolean, head: boolean, tied: boolean) => {
      const checkpoint = await tiny({ family, ...options })
      assert.is(roles(checkpoint).includes('unembedding'), unembedding)
      assert.is(roles(checkpoint).includes('head'), head)
      assert.is(checkpoint.spec.tiedEmbedding, tied)
      assert.ok(roles(checkpoint).includes('embedding'))
    }
    const untold = { tie_word_embeddings: undefined }
    await has({}, true, false, false)
    await has({ config: untold }, true, false, false)
    await has({ tied: true }, false, false, true)
    await has({ tied: true, config: untold }, false, false, true)
    // Tied by name, with an unembedding of its own all the same.
    await has({ config: { tie_word_embeddings: true } }, true, false, false)
    await has({ head: 'extra' }, true, true, false)
    await has({ head: 'instead' }, false, true, false)
    await has({ head: 'instead', config: untold }, false, true, false)
    await has({ head: 'instead', tied: true }, false, true, true)
    await has({ bare: true }, false, false, false)
    await has({ bare: true, head: 'instead' }, false, true, false)
  })
}

test('GPT-NeoX: q, k and v are rows of one tensor', async () => {
  const checkpoint = await tiny({ family: 'gpt_neox' })
  const [q, k, v] = ['q', 'k', 'v'].map((role) => weight(checkpoint, `layers.1.${role}`)) as WeightSource[]
  assert.equal(q?.rows, { start: 0, block: 8, stride: 24 })
  assert.equal(k?.rows, { start: 8, block: 8, stride: 24 })
  assert.equal(v?.rows, { start: 16, block: 8, stride: 24 })
  assert.equal(q?.shape, [96, 32])
  assert.is(q?.offset, v?.offset)
  assert.equal(weight(checkpoint, 'layers.0.k_bias').rows, { start: 8, block: 8, stride: 24 })
  assert.is(weight(checkpoint, 'layers.0.o').rows, undefined)
})

test('GPT-NeoX: the other name of the unembedding, and old buffers', async () => {
  const { path } = await tiny({ family: 'gpt_neox', bare: false })
  const { header, data } = splitSafetensors(weightsFile(path))
  const end = data.length
  const buffer = { dtype: 'BOOL', shape: [1, 1, 4, 4], data_offsets: [end, end + 16] }
  const renamed = header.replace('embed_out.weight', 'lm_head.weight')
  const entries = { ...JSON.parse(renamed), 'gpt_neox.layers.0.attention.bias': buffer }
  joinSafetensors(weightsFile(path), JSON.stringify(entries), Buffer.concat([data, Buffer.alloc(16)]))
  assert.is(weight(await openCheckpoint(path), 'unembedding').tensor, 'lm_head.weight')
})

test('biases of Llama and Qwen3', async () => {
  for (const family of ['llama', 'qwen3'] as const) {
    const all = roles(await tiny({ family, attentionBias: true }))
    for (const part of ['q', 'k', 'v', 'o']) assert.ok(all.includes(`layers.1.${part}_bias`))
  }
  assert.not.ok(roles(await tiny({ family: 'qwen2' })).includes('layers.0.o_bias'))
})

test('tied weights saved under the name of the unembedding', async () => {
  const { path } = await tiny({ tied: true })
  editHeader(weightsFile(path), (header) =>
    JSON.stringify(header).replace('"model.embed_tokens.weight"', '"lm_head.weight"'),
  )
  assert.is(weight(await openCheckpoint(path), 'embedding').tensor, 'lm_head.weight')
})

test('byte ranges are absolute and hold the right weights', async () => {
  const checkpoint = await tiny({ head: 'extra', dtype: 'bf16', shardBytes: 30_000 })
  const head = weight(checkpoint, 'head')
  const bytes = splitSafetensors(head.file)
  const start = 8 + Buffer.byteLength(bytes.header)
  assert.ok(head.offset >= start && head.offset + head.bytes <= start + bytes.data.length)
  const values = await readHead(checkpoint.path, 32)
  const first = bytes.data.readUInt16LE(head.offset - start)
  assert.is(Math.fround(values[0] as number), Buffer.from([0, 0, first & 255, first >> 8]).readFloatLE())
})

test('token ids and added tokens', async () => {
  const plain = await tiny()
  assert.equal([plain.bosTokenId, plain.eosTokenId, plain.padTokenId], [0, 1, 4])
  const odd = await tiny({ config: { eos_token_id: [2, 1], bos_token_id: null, pad_token_id: -1 } })
  assert.equal([odd.bosTokenId, odd.eosTokenId, odd.padTokenId], [undefined, 2, undefined])
  const grown = withAddedTokens(plain, 2)
  assert.is(grown.spec.addedTokens, 2)
  assert.is(grown.spec.vocabSize, 512)
  assert.is(plain.spec.addedTokens, 0)
  assert.throws(() => withAddedTokens(plain, -1), /"addedTokens" must be/)
  assert.throws(() => withAddedTokens(plain, 2 ** 20), /"addedTokens" must be/)
})

test.run()
