/** Good checkpoints: the specs of the reference folders and of tiny ones of every family, style and storage. */
import { join } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { type Checkpoint, openCheckpoint, readHead, withAddedTokens } from '../lib/checkpoint/checkpoint.js'
import type { LayerSpec, ModelSpec, StoredDtype, WeightSource } from '../lib/native/spec.js'
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
  const { weights: _, ropes, ...rest } = spec
  return { ...rest, ropes: ropes.map((rope) => ({ ...rope, inverseFrequencies: [...rope.inverseFrequencies] })) }
}

const LAYER: LayerSpec = {
  preNorm: true,
  postNorm: false,
  window: 0,
  attentionScale: 1 / 4,
  attentionSoftCap: 0,
  rope: 0,
  qkNorm: 'none',
  intermediateSize: 192,
}
const LLAMA = {
  vocabSize: 512,
  addedTokens: 0,
  hiddenSize: 64,
  heads: 4,
  maxPositions: 1024,
  kvHeads: 2,
  headDim: 16,
  norm: 'rms',
  normEps: 1e-6,
  normOffset: 0,
  activation: 'silu',
  gated: true,
  parallelResidual: false,
  tiedEmbedding: false,
  embeddingScale: 1,
  residualScale: 1,
  logitScale: 1,
  logitSoftCap: 0,
}
const NEOX = {
  ...LLAMA,
  family: 'gpt_neox',
  kvHeads: 4,
  norm: 'layer',
  normEps: 1e-5,
  activation: 'gelu',
  gated: false,
}
const NEOX_LAYER = { ...LAYER, intermediateSize: 256 }

interface Reference {
  numbers: Record<string, unknown>
  layers: LayerSpec[]
  /** One per role. */
  weights: number
  /** The second frequency of each table, as transformers 5 computes it in float32, and how many dimensions are turned. */
  ropes: [frequency: number, rotaryDim: number][]
}

const times = (count: number, change: Partial<LayerSpec> = {}): LayerSpec[] =>
  Array.from({ length: count }, () => ({ ...LAYER, ...change }))
/** Windows of 24 where the pattern says so. */
const slides = (pattern: (0 | 1)[], change: Partial<LayerSpec> = {}): LayerSpec[] =>
  pattern.map((slides) => ({ ...LAYER, window: 24 * slides, ...change }))

const WIDE = { headDim: 32 }
const WIDE_LAYER = { attentionScale: 32 ** -0.5 }
const GEMMA = { normOffset: 1, activation: 'gelu_tanh', embeddingScale: 8, headDim: 32, tiedEmbedding: true }
const GEMMA_LAYER = { postNorm: true, rope: 0 }
const AFTER = { preNorm: false, postNorm: true, qkNorm: 'width' } as const

const REFERENCES: Record<string, Reference> = {
  'golden/llama/model': {
    numbers: { ...LLAMA, family: 'llama' },
    layers: times(3),
    weights: 30,
    ropes: [[0.3162277638912201, 16]],
  },
  'golden/llama3/model': {
    numbers: { ...LLAMA, family: 'llama', normEps: 1e-5, tiedEmbedding: true },
    layers: times(3),
    weights: 29,
    ropes: [[0.193922758102417, 16]],
  },
  'golden/qwen2/model': {
    numbers: { ...LLAMA, family: 'qwen2', tiedEmbedding: true },
    layers: times(3),
    weights: 38,
    ropes: [[0.17782793939113617, 16]],
  },
  'golden/qwen3/model': {
    numbers: { ...LLAMA, ...WIDE, family: 'qwen3' },
    layers: times(3, { ...WIDE_LAYER, qkNorm: 'head' }),
    weights: 36,
    ropes: [[0.4216965138912201, 32]],
  },
  'golden/gpt_neox/model': {
    numbers: { ...NEOX, parallelResidual: true },
    layers: times(3, NEOX_LAYER),
    weights: 52,
    ropes: [[0.009999999776482582, 4]],
  },
  'golden/gpt_neox_serial/model': {
    numbers: NEOX,
    layers: times(3, NEOX_LAYER),
    weights: 52,
    ropes: [[0.3162277638912201, 16]],
  },
  'golden/mistral/model': {
    numbers: { ...LLAMA, family: 'mistral' },
    layers: slides([1, 1, 1]),
    weights: 30,
    ropes: [[0.17782793939113617, 16]],
  },
  'golden/gemma2/model': {
    numbers: { ...LLAMA, ...GEMMA, family: 'gemma2', logitSoftCap: 3 },
    layers: slides([1, 0, 1, 0], { ...GEMMA_LAYER, attentionScale: 21 ** -0.5, attentionSoftCap: 2 }),
    weights: 4 * 11 + 2,
    ropes: [[0.5623413324356079, 32]],
  },
  'golden/gemma3/model': {
    numbers: { ...LLAMA, ...GEMMA, family: 'gemma3_text' },
    layers: slides([1, 1, 0, 1], { ...GEMMA_LAYER, ...WIDE_LAYER, qkNorm: 'head' }).map((layer) => ({
      ...layer,
      rope: layer.window > 0 ? 1 : 0,
    })),
    weights: 4 * 13 + 2,
    ropes: [
      [0.4216965138912201, 32],
      [0.5623413324356079, 32],
    ],
  },
  'golden/phi3/model': {
    numbers: { ...LLAMA, family: 'phi3', normEps: 1e-5 },
    layers: slides([1, 1, 1]),
    weights: 30,
    ropes: [[0.3162277638912201, 16]],
  },
  'golden/olmo2/model': {
    numbers: { ...LLAMA, family: 'olmo2', normEps: 1e-5 },
    layers: times(3, AFTER),
    weights: 3 * 11 + 3,
    ropes: [[0.193922758102417, 16]],
  },
  'golden/olmo3/model': {
    numbers: { ...LLAMA, family: 'olmo3', normEps: 1e-5 },
    layers: slides([1, 1, 1, 0], AFTER).map((layer) => ({ ...layer, rope: layer.window > 0 ? 1 : 0 })),
    weights: 4 * 11 + 3,
    ropes: [
      [0.193922758102417, 16],
      [0.193922758102417, 16],
    ],
  },
  'golden/smollm3/model': {
    numbers: { ...LLAMA, family: 'smollm3', tiedEmbedding: true },
    layers: [0, -1, 0, -1].map((rope) => ({ ...LAYER, rope })),
    weights: 4 * 9 + 2,
    ropes: [[0.16306893527507782, 16]],
  },
  'golden/granite/model': {
    numbers: {
      ...{ ...LLAMA, family: 'granite', tiedEmbedding: true },
      ...{ embeddingScale: 6, residualScale: 0.4, logitScale: 0.25 },
    },
    layers: times(3, { attentionScale: 0.03 }),
    weights: 29,
    ropes: [[0.3162277638912201, 16]],
  },
  'golden/qwen3_moe/model': {
    numbers: { ...LLAMA, ...WIDE, family: 'qwen3_moe' },
    layers: [0, 1, 2].map((i) => ({
      ...{ ...LAYER, ...WIDE_LAYER, qkNorm: 'head' },
      ...(i === 1
        ? { intermediateSize: 128 }
        : { intermediateSize: 64, experts: { count: 6, perToken: 2, normalize: true } }),
    })),
    weights: 3 * 8 + 3 + 2 * 19 + 3,
    ropes: [[0.4216965138912201, 32]],
  },
  'models/stories260K': {
    numbers: {
      ...{ ...LLAMA, family: 'llama', heads: 8, kvHeads: 4, headDim: 8, maxPositions: 512, normEps: 1e-5 },
      tiedEmbedding: true,
    },
    layers: times(5, { intermediateSize: 172, attentionScale: 8 ** -0.5 }),
    weights: 47,
    ropes: [[0.10000000149011612, 8]],
  },
}

for (const [name, expected] of Object.entries(REFERENCES)) {
  test(`opens ${name}`, async () => {
    const path = sharedPath(name)
    if (!path) return skip(`the shared folder has no ${name}`)
    const checkpoint = await openCheckpoint(path)
    const { ropes, layers, ...rest } = numbers(checkpoint.spec)
    assert.equal(rest, expected.numbers)
    assert.equal(layers, expected.layers)
    const tables = ropes as { rotaryDim: number; scale: number; inverseFrequencies: number[] }[]
    assert.equal(
      tables.map(({ rotaryDim, inverseFrequencies }) => [inverseFrequencies[1], rotaryDim]),
      expected.ropes,
    )
    for (const { rotaryDim, inverseFrequencies, scale } of tables) {
      assert.is(inverseFrequencies.length, rotaryDim / 2)
      assert.is(scale, 1)
    }
    assert.is(checkpoint.spec.weights.length, expected.weights)
    assert.is(checkpoint.contextLength, expected.numbers['maxPositions'])
    assert.is(checkpoint.dtype, 'f32')
    assert.is(checkpoint.path, path)
    assert.equal(checkpoint.notes, [])
    assert.equal(checkpoint.unread, [])
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
