/** Heads of explicit reward models in every form that is known: the reward is what the form says, from the hidden state of the last token. */
import { join } from 'node:path'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { openCheckpoint, readHead } from '../lib/checkpoint/checkpoint.js'
import { HEAD_FILE, HEAD_FORMS } from '../lib/checkpoint/heads.js'
import { type NamedTensor, writeCheckpoint, writeSafetensors } from '../lib/checkpoint/write.js'
import { openToScore } from '../lib/models/open.js'
import { RewardModel } from '../lib/models/reward-model.js'
import type { RewardModelOptions } from '../lib/models/reward-options.js'
import { RowEncoder } from '../lib/text/text-encoder.js'
import { train } from '../lib/train/train.js'
import { seededRandom } from './fixtures/random.js'
import { type TinyCheckpointOptions, tinyCheckpoint } from './fixtures/tiny-checkpoint.js'
import { rejection } from './support/engine.js'
import { temporaryFolder } from './support/tmp.js'

const WIDTH = 32
const ROW = { prompt: 'what is the answer', responses: ['the answer is water', 'people like oil'] }
const root = temporaryFolder()
const random = seededRandom(12)
let count = 0

function tensor(name: string, ...shape: number[]): NamedTensor {
  const size = shape.reduce((product, one) => product * one, 1)
  return { name, shape, data: Float32Array.from({ length: size }, () => random.normal()) }
}

/** A language model with further tensors, in the same file or beside it. */
async function model(
  tensors: NamedTensor[],
  { beside = false, config = {}, ...options }: TinyCheckpointOptions & { beside?: boolean } = {},
): Promise<string> {
  const content = tinyCheckpoint({ ...options, config })
  const folder = join(root, `model-${count++}`)
  await writeCheckpoint(folder, { ...content, tensors: [...content.tensors, ...(beside ? [] : tensors)] })
  if (beside) await writeSafetensors(join(folder, HEAD_FILE), tensors)
  return folder
}

async function hiddenStates(folder: string): Promise<Float64Array[]> {
  const encoder = await RowEncoder.load({ path: folder })
  const choice = { device: 'cpu', dtype: 'f32' } as const
  const { model: engine } = await openToScore(await openCheckpoint(folder), { use: 'hidden', who: 'a test' }, choice)
  try {
    const states: Float64Array[] = []
    for (const response of ROW.responses) {
      const tokens = encoder.encodeConversation(ROW.prompt, response, 'whole').ids
      const segments = Int32Array.of(0, tokens.length, -1)
      const scores = await engine.score({ tokens, segments, scored: Int32Array.of(0), readout: 'hidden_last' })
      states.push(scores.values)
    }
    return states
  } finally {
    engine.dispose()
  }
}

function linear({ data, shape }: NamedTensor, bias: NamedTensor | undefined, input: ArrayLike<number>): number[] {
  const width = shape.at(-1)!
  return Array.from({ length: data.length / width }, (_, row) => {
    let sum = bias?.data[row] ?? 0
    for (let i = 0; i < width; i++) sum += data[row * width + i]! * input[i]!
    return sum
  })
}

const score = async (folder: string, options: Partial<RewardModelOptions> = {}) => {
  using opened = await RewardModel.open(folder, { kind: 'explicit', device: 'cpu', ...options })
  return (await opened.score([ROW])).rewards[0]!
}

function near(actual: number[], expected: number[]): void {
  assert.is(actual.length, expected.length)
  expected.forEach((value, i) => {
    assert.ok(Math.abs(actual[i]! - value) < 1e-4 * Math.max(1, Math.abs(value)), `${actual[i]} is not ${value}`)
  })
}

const plain = await model([])
const states = await hiddenStates(plain)

const forms = suite('heads: every form')

for (const [n, { layers }] of HEAD_FORMS.entries()) {
  // Opening takes a moment: what is the same for all forms is tried for the first three.
  for (const withBias of n < 3 ? [false, true] : [true]) {
    forms(`${layers.join(', ')}${withBias ? ' with bias' : ''}: in the weights, beside them, and given`, async () => {
      const weights = layers.map((name, i) =>
        tensor(`${name}.weight`, ...(i < layers.length - 1 ? [WIDTH, WIDTH] : [1, WIDTH])),
      )
      const biases = withBias ? layers.map((name, i) => tensor(`${name}.bias`, weights[i]!.shape[0]!)) : []
      const tensors = [...weights, ...biases]
      const expected = states.map((hidden) => {
        let values: ArrayLike<number> = hidden
        for (const [i, weight] of weights.entries()) {
          const outputs = linear(weight, biases[i], values)
          values = i < weights.length - 1 ? outputs.map((value) => Math.max(0, value)) : outputs
        }
        return values[0]!
      })
      near(await score(await model(tensors)), expected)
      if (n >= 3 || !withBias) return
      near(await score(await model(tensors, { beside: true })), expected)
      const file = join(root, `head-${count++}.safetensors`)
      await writeSafetensors(file, tensors)
      near(await score(plain, { head: file }), expected)
      near(await score(plain, { head: await model(tensors) }), expected)
      // A head of the checkpoint's own does not stand in the way of one that is given.
      if (n > 0) near(await score(await model([], { head: 'extra' }), { head: file }), expected)
    })
  }
}

forms('a name of its own, which value_head_prefix tells', async () => {
  const weight = tensor('judge.weight', 1, WIDTH)
  const folder = await model([weight, tensor('v_head.weight', 1, WIDTH)], { config: { value_head_prefix: 'judge' } })
  near(
    await score(folder),
    (await hiddenStates(folder)).map((hidden) => linear(weight, undefined, hidden)[0]!),
  )
  assert.is((await openCheckpoint(folder)).heads[0]!.form.readAt, 'last')
})

forms('a language model by its name, without an unembedding', async () => {
  const config = { architectures: ['LlamaForCausalLM'], tie_word_embeddings: false }
  const folder = await model([], { head: 'instead', config })
  assert.equal(await score(folder), await score(await model([], { head: 'instead' })))
  const error = await rejection(RewardModel.open(folder, { kind: 'implicit', device: 'cpu' }))
  assert.match(error.message, /lm_head/)
})

forms('the plain head is the engine’s own: the bits of a head that is given', async () => {
  const folder = await model([], { head: 'extra' })
  assert.equal(await score(folder), await score(folder, { head: await readHead(folder, WIDTH) }))
})

forms.run()

const labels = suite('heads: labels')

labels('one of several, by number and by name; in one layer and in two', async () => {
  const config = { id2label: { 0: 'bad', 1: 'good', 2: 'both' } }
  const one = [tensor('score.weight', 3, WIDTH), tensor('score.bias', 3)]
  const two = [tensor('score.0.weight', 8, WIDTH), tensor('score.2.weight', 3, 8), tensor('score.2.bias', 3)]
  for (const tensors of [one, two]) {
    const folder = await model(tensors, { config })
    const states = await hiddenStates(folder)
    for (const [index, name] of ['bad', 'good', 'both'].entries()) {
      const expected = states.map((hidden) => {
        if (tensors === one) return linear(one[0]!, one[1], hidden)[index]!
        const inner = linear(two[0]!, undefined, hidden).map((value) => Math.max(0, value))
        return linear(two[1]!, two[2], inner)[index]!
      })
      near(await score(folder, { label: index }), expected)
      near(await score(folder, { label: name }), expected)
    }
    const error = await rejection(RewardModel.open(folder, { kind: 'explicit', device: 'cpu' }))
    assert.is(error.code, 'ERR_TENSOR_SHAPE')
    assert.match(error.message, /3 labels: 0 is "bad", 1 is "good", 2 is "both".*--label N/)
    // Other kinds have no use for it.
    using other = await RewardModel.open(folder, { kind: 'implicit', device: 'cpu' })
    assert.is((await other.score([ROW])).rewards[0]!.length, 2)
  }
})

async function wrong(folder: string, options: Partial<RewardModelOptions>, message: RegExp): Promise<void> {
  try {
    await RewardModel.open(folder, { kind: 'explicit', device: 'cpu', ...options })
    assert.unreachable()
  } catch (error) {
    assert.instance(error, RangeError)
    assert.match((error as Error).message, message)
  }
}

labels('one that the head lacks, or that nothing can have', async () => {
  const several = await model([tensor('score.weight', 3, WIDTH)])
  await wrong(several, { label: 3 }, /"label" must be from 0 to 2/)
  await wrong(several, { label: 'good' }, /"label" must be from 0 to 2/)
  const one = await model([], { head: 'extra' })
  assert.equal(await score(one, { label: 0 }), await score(one))
  await wrong(one, { label: 1 }, /one label/)
  await wrong(one, { label: 0, kind: 'implicit' }, /only the explicit kind/)
  await wrong(one, { label: 0, head: new Float32Array(WIDTH) }, /one row/)
})

labels.run()

const limits = suite('heads: what a form cannot do')

limits('several layers: no mean over tokens, no value at each token', async () => {
  const folder = await model([tensor('score.0.weight', WIDTH, WIDTH), tensor('score.2.weight', 1, WIDTH)])
  await wrong(folder, { pool: 'mean' }, /"pool" must be "last"/)
  using opened = await RewardModel.open(folder, { kind: 'explicit', device: 'cpu' })
  try {
    await opened.score([ROW], { tokenRewards: true })
    assert.unreachable()
  } catch (error) {
    assert.match((error as Error).message, /"tokenRewards" must be false/)
  }
})

limits('a bias is part of the value at each token, and of the mean', async () => {
  const bias = tensor('score.bias', 1)
  const weight = tensor('score.weight', 1, WIDTH)
  for (const pool of ['last', 'mean'] as const) {
    using biased = await RewardModel.open(await model([weight, bias]), { kind: 'explicit', device: 'cpu', pool })
    using plain = await RewardModel.open(await model([weight]), { kind: 'explicit', device: 'cpu', pool })
    const [a] = (await biased.score([ROW], { tokenRewards: true })).rows
    const [b] = (await plain.score([ROW], { tokenRewards: true })).rows
    near(
      a!.rewards,
      b!.rewards.map((value) => value + bias.data[0]!),
    )
    near(
      [...a!.tokenRewards![0]!],
      [...b!.tokenRewards![0]!].map((value) => value + bias.data[0]!),
    )
  }
})

limits('training starts from one row without a bias, and says so of another head', async () => {
  const data = [{ prompt: 'p', chosen: 'the', rejected: 'a' }]
  for (const tensors of [
    [tensor('score.weight', 2, WIDTH)],
    [tensor('score.weight', 1, WIDTH), tensor('score.bias', 1)],
    [tensor('score.0.weight', WIDTH, WIDTH), tensor('score.2.weight', 1, WIDTH)],
  ]) {
    const folder = await model(tensors)
    const error = await rejection(
      train(folder, data, { kind: 'explicit', device: 'cpu', out: join(root, `run-${count++}`) }),
    )
    assert.is(error.code, 'ERR_TENSOR_SHAPE')
    assert.match(error.message, /not trained/)
  }
})

limits.run()
