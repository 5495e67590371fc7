/** Settings of a checkpoint that contradict its files, or change nothing. */
import { join } from 'node:path'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { type Checkpoint, openCheckpoint } from '../lib/checkpoint/checkpoint.js'
import { writeCheckpoint } from '../lib/checkpoint/write.js'
import { RewardModel } from '../lib/models/reward-model.js'
import { type TinyCheckpointOptions, tinyCheckpoint, writeTinyCheckpoint } from './fixtures/tiny-checkpoint.js'
import { temporaryFolder } from './support/tmp.js'

const root = temporaryFolder()
let count = 0

async function folderOf(options: TinyCheckpointOptions = {}): Promise<string> {
  const folder = join(root, `model-${count++}`)
  await writeTinyCheckpoint(folder, options)
  return folder
}

const tiny = async (options: TinyCheckpointOptions = {}): Promise<Checkpoint> => openCheckpoint(await folderOf(options))
const roles = ({ spec }: Checkpoint) => spec.weights.map(({ role }) => role)

const tied = suite('a tied embedding and an unembedding in the file')

for (const family of ['llama', 'gpt_neox'] as const) {
  tied(`${family}: another one is used, and told of; the rewards are those of an untied model`, async () => {
    const [said, untied] = [
      await folderOf({ family, config: { tie_word_embeddings: true } }),
      await folderOf({ family }),
    ]
    const rewards = []
    const warnings: string[] = []
    for (const folder of [said, untied]) {
      const onWarning = (message: string) => warnings.push(message)
      using model = await RewardModel.open(folder, { kind: 'implicit', device: 'cpu', onWarning })
      rewards.push((await model.score([{ prompt: 'the water', responses: ['is oil', 'is'] }])).rewards)
    }
    assert.equal(rewards[0], rewards[1])
    assert.is(warnings.length, 1)
    const name = family === 'llama' ? 'lm_head.weight' : 'embed_out.weight'
    assert.ok(warnings[0]!.includes(`"${name}" differs`), warnings[0])
  })
}

tied('a copy of the embedding, of the same type or another, is none', async () => {
  for (const dtype of ['f32', 'bf16'] as const) {
    const content = tinyCheckpoint({ tied: true })
    const table = content.tensors.find(({ name }) => name === 'model.embed_tokens.weight')!
    // Numbers that both types can hold.
    for (const [i, value] of table.data.entries()) table.data[i] = Math.round(value * 64) / 64
    const copy = { ...table, name: 'lm_head.weight', dtype }
    const folder = join(root, `copy-${dtype}`)
    await writeCheckpoint(folder, { ...content, tensors: [...content.tensors, copy] })
    const checkpoint = await openCheckpoint(folder)
    assert.ok(checkpoint.spec.tiedEmbedding)
    assert.equal(checkpoint.notes, [])
    assert.not.ok(roles(checkpoint).includes('unembedding'))
    copy.data = Float32Array.from(copy.data)
    copy.data[copy.data.length - 1]! += 0.5
    await writeCheckpoint(folder, { ...content, tensors: [...content.tensors, copy] }, { replace: true })
    assert.not.ok((await openCheckpoint(folder)).spec.tiedEmbedding, 'a difference in the last number')
  }
})

tied.run()

const windows = suite('windows that never cut')

const layers = (...types: string[]) => types.map((type) => `${type}_attention`)
const harmless: [string, Record<string, unknown>][] = [
  [
    'used from a layer on that the model does not have',
    { use_sliding_window: true, sliding_window: 16, max_window_layers: 2 },
  ],
  ['used from the default layer on', { use_sliding_window: true, sliding_window: 16 }],
  ['as long as the context', { use_sliding_window: true, sliding_window: 256, max_window_layers: 0 }],
  ['as long as the default one', { use_sliding_window: true, max_window_layers: 0 }],
  [
    'of no length',
    { use_sliding_window: true, sliding_window: null, max_window_layers: 0, max_position_embeddings: 8192 },
  ],
  ['not used', { use_sliding_window: false, sliding_window: 16, max_window_layers: 0 }],
  [
    'longer than the context, in one layer',
    { use_sliding_window: true, sliding_window: 512, layer_types: layers('full', 'sliding') },
  ],
  ['in no layer', { use_sliding_window: true, sliding_window: 16, layer_types: layers('full', 'full') }],
]
for (const [name, config] of harmless) {
  windows(name, async () => {
    for (const family of ['qwen2', 'qwen3'] as const) await tiny({ family, config })
  })
}

windows.run()

const ids = suite('ids of special tokens')

ids('outside of the vocabulary: the next one that is in it, or none', async () => {
  const open = async (config: Record<string, unknown>) => {
    const { eosTokenId, padTokenId, bosTokenId } = await tiny({ config, tokenizer: false })
    return [eosTokenId, padTokenId, bosTokenId]
  }
  const none = { eos_token_id: null, pad_token_id: null, bos_token_id: null }
  assert.equal(await open(none), [undefined, undefined, undefined])
  assert.equal(await open({ ...none, eos_token_id: [5000, 1, 2] }), [1, undefined, undefined])
  assert.equal(await open({ ...none, eos_token_id: 512 }), [undefined, undefined, undefined])
  assert.equal(await open({ eos_token_id: -1, pad_token_id: 512, bos_token_id: 511 }), [undefined, undefined, 511])
})

ids.run()
