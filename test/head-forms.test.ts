/**
 * Heads as they are published: labels chosen, weighed and written out, a gate over them, heads read at a token that is put at the end, a
 * logit as reward, heads that a user describes, and heads that nobody knows.
 */
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { openCheckpoint } from '../lib/checkpoint/checkpoint.js'
import { type HeadSpec, parseHeadSpec } from '../lib/checkpoint/head-spec.js'
import { activate } from '../lib/checkpoint/head-arithmetic.js'
import type { LabelWeights } from '../lib/checkpoint/reward-head.js'
import type { NamedTensor } from '../lib/checkpoint/write.js'
import { RewardModel } from '../lib/models/reward-model.js'
import type { RewardModelOptions } from '../lib/models/reward-options.js'
import { RowEncoder } from '../lib/text/text-encoder.js'
import { train } from '../lib/train/train.js'
import { rejection } from './support/engine.js'
import {
  gatedTensors,
  hiddenAt,
  layer,
  near,
  openHidden,
  relu,
  softmax,
  tensor,
  WIDTH,
  withTensors,
} from './support/heads.js'
import { temporaryFolder } from './support/tmp.js'

const ROW = { prompt: 'what is the answer', responses: ['the answer is water', 'people like oil'] }
const LABELS = { id2label: { 0: 'bad', 1: 'good', 2: 'both' } }
const folder = temporaryFolder()

const three = [tensor('score.weight', 3, WIDTH), tensor('score.bias', 3)]
const deep = [tensor('score.0.weight', 8, WIDTH), tensor('score.2.weight', 3, 8), tensor('score.2.bias', 3)]
const THREE = await withTensors(three, { config: LABELS })
const DEEP = await withTensors(deep, { config: LABELS })
const encoder = await RowEncoder.load({ path: THREE })
const sequences = ROW.responses.map((response) => encoder.encodeConversation(ROW.prompt, response, 'whole').ids)

/** Each response’s hidden state, at a place in its sequence or at its end. */
async function states(
  path: string,
  ids = sequences,
  at = (one: Int32Array) => one.length - 1,
): Promise<Float64Array[]> {
  using engine = await openHidden(path)
  return await Promise.all(ids.map((one) => hiddenAt(engine, one, at(one))))
}

async function scored(path: string, options: Partial<RewardModelOptions> = {}, labelRewards = false) {
  using model = await RewardModel.open(path, { kind: 'explicit', device: 'cpu', ...options })
  const [row] = (await model.score([ROW], { labelRewards })).rows
  return { ...row!, headAt: model.headAt, labelNames: model.labelNames, digest: model.headDigest }
}

const opening = (path: string, options: Partial<RewardModelOptions>): Promise<Error & { code?: string }> =>
  RewardModel.open(path, { kind: 'explicit', device: 'cpu', ...options }).then(
    () => new Error('it opened'),
    (error: Error) => error,
  )

const labels = suite('heads: labels weighed and written')

labels('weights as a list, by name and by number; all labels beside the reward', async () => {
  const byHand = {
    [THREE]: (hidden: Float64Array) => layer(three[0]!, three[1], hidden),
    [DEEP]: (hidden: Float64Array) => layer(deep[1]!, deep[2], relu(layer(deep[0]!, undefined, hidden))),
  }
  for (const path of [THREE, DEEP]) {
    const all = (await states(path)).map(byHand[path]!)
    const weighed = all.map(([, good, both]) => 0.25 * good! - 2 * both!)
    const ways: LabelWeights[] = [[0, 0.25, -2], { good: 0.25, both: -2 }, { 1: 0.25, 2: -2 }]
    for (const labelWeights of ways) {
      const { rewards, labelRewards, labelNames } = await scored(path, { labelWeights }, true)
      near(rewards, weighed)
      for (const [k, values] of labelRewards!.entries()) near(values, all[k]!)
      assert.equal(labelNames, ['bad', 'good', 'both'])
    }
    // What else is asked for changes no bit.
    const chosen = await scored(path, { label: 'good' })
    const written = await scored(path, { label: 'good' }, true)
    assert.equal(written.rewards, chosen.rewards)
    assert.equal(
      written.labelRewards!.map(([, good]) => good),
      chosen.rewards,
    )
    assert.is(chosen.labelRewards, undefined)
    assert.is.not(chosen.digest, (await scored(path, { label: 'bad' })).digest)
  }
})

labels('the mean over tokens of several labels, and a label at each token', async () => {
  using model = await RewardModel.open(THREE, { kind: 'explicit', device: 'cpu', pool: 'mean', label: 2 })
  const [row] = (await model.score([ROW], { tokenRewards: true, labelRewards: true })).rows
  row!.tokenRewards!.forEach((values, k) => {
    near([values.reduce((sum, value) => sum + value, 0) / values.length], [row!.rewards[k]!])
    assert.is(row!.labelRewards![k]![2], row!.rewards[k])
  })
})

labels('weights that do not fit are errors that name the labels', async () => {
  for (const [options, message] of [
    [{ labelWeights: [1, 2] }, /"labelWeights" must be 3 numbers, one for each label \("bad", "good", "both"\)/],
    [
      { labelWeights: { fine: 1 } },
      /"labelWeights" must be of labels from 0 to 2 \("bad", "good", "both"\); got "fine"/,
    ],
    [{ labelWeights: { 3: 1 } }, /"labelWeights" must be of labels from 0 to 2/],
    [{ labelWeights: [1, Number.NaN, 2] }, /"labelWeights\[1\]" must be a finite number/],
    [{ labelWeights: 'good' }, /"labelWeights" must be a list of numbers or an object/],
    [{ labelWeights: [1, 2, 3], label: 1 }, /left out where a label is chosen/],
    [{ labelWeights: [1, 2, 3], kind: 'implicit' }, /only the explicit kind/],
    [{}, /3 labels: 0 is "bad".*--label N .*--label-weights/],
  ] as [Partial<RewardModelOptions>, RegExp][])
    assert.match((await opening(THREE, options)).message, message)
})

labels.run()

const gate = suite('heads: a gate over the labels')

gate('labels of the last token, weighed by the gate at the end of the turn before the answer', async () => {
  const tensors = gatedTensors(3)
  const [regression, in0, bias0, in1, bias1, scale, transform] = tensors as [NamedTensor, ...NamedTensor[]]
  const config = { ...LABELS, gating_temperature: 4, architectures: ['LlamaForRewardModelWithGating'] }
  const path = await withTensors(tensors, { config })
  const turnEnd = encoder.encodePrompt(ROW.prompt).lastIndexOf(encoder.tokenId('<|end|>')!)
  const ends = await states(path)
  const gates = await states(path, sequences, () => turnEnd)
  const rewards = ends.map((hidden) => layer(regression, undefined, hidden))
  const expected = rewards.map((values, k) => {
    const logits = layer(in1!, bias1, relu(layer(in0!, bias0, gates[k]!))).map((value) => value / 4)
    const shares = softmax(logits).map((share) => share * scale!.data[0]!)
    const changed = shares.map((_, j) => values.reduce((sum, value, i) => sum + value * transform!.data[i * 3 + j]!, 0))
    return shares.reduce((sum, share, j) => sum + share * changed[j]!, 0)
  })
  const found = await scored(path, {}, true)
  near(found.rewards, expected)
  for (const [k, values] of found.labelRewards!.entries()) near(values, rewards[k]!)
  near(
    (await scored(path, { label: 'good' })).rewards,
    rewards.map(([, good]) => good!),
  )
  near(
    (await scored(path, { labelWeights: [1, 1, 0] })).rewards,
    rewards.map(([a, b]) => a! + b!),
  )
  // One response alone has the same bits as two that share the prompt.
  using model = await RewardModel.open(path, { kind: 'explicit', device: 'cpu' })
  const alone = await model.score(ROW.responses.map((response) => ({ prompt: ROW.prompt, responses: [response] })))
  assert.equal(alone.rewards.flat(), found.rewards)
  assert.match((await opening(path, { pool: 'mean' })).message, /"pool" must be "last"/)
  assert.match((await opening(path, { steps: '<|pad|>' })).message, /"steps" must be left out for a head with a gate/)
  using plain = await RewardModel.open(path, { kind: 'explicit', device: 'cpu', template: 'none' })
  assert.match((await rejection(plain.score([ROW]))).message, /row 0: "responses\[0\]": the head has a gate/)
})

gate('without one, its layer is like any other; a gate of another form is refused', async () => {
  const [regression, ...rest] = gatedTensors(3) as [NamedTensor, ...NamedTensor[]]
  const path = await withTensors([regression])
  near(
    (await scored(path, { label: 1 })).rewards,
    (await states(path)).map((hidden) => layer(regression, undefined, hidden)[1]!),
  )
  // As QRM has it: a norm between the layers, and so numbers that are not in a row.
  const other = [regression, rest[0]!, tensor('gating.layers.2.weight', 8), tensor('gating.layers.3.weight', 3, 8)]
  assert.match((await opening(await withTensors(other), {})).message, /"gating.layers.0.weight" has shape \[8, 32\]/)
})

gate.run()

const place = suite('heads: where they are read')

place(
  'at a token that is put at the end: the config’s reward token, the tokenizer’s cls token, one that is named',
  async () => {
    const head = tensor('v_head.weight', 1, WIDTH)
    const byHand = async (path: string, token: number) => {
      const longer = sequences.map((ids) => Int32Array.of(...ids, token))
      return (await states(path, longer)).map((hidden) => layer(head, undefined, hidden)[0]!)
    }
    const internlm = await withTensors([head], { config: { reward_token_id: 4 } })
    const found = await scored(internlm)
    near(found.rewards, await byHand(internlm, 4))
    assert.is(found.headAt, 'append:4')
    assert.equal(
      found.tokens,
      (await scored(internlm, { headAt: 'last' })).tokens.map((count) => count + 1),
    )
    const error = await rejection(
      train(internlm, [{ prompt: 'p', chosen: 'the', rejected: 'a' }], {
        kind: 'explicit',
        device: 'cpu',
        out: join(folder, 'run'),
      }),
    )
    assert.match(error.message, /a head of an appended token can be scored with, not trained/)

    const athene = await withTensors([head], { config: { architectures: ['AtheneForSequenceClassification'] } })
    assert.match((await opening(athene, {})).message, /append:TOKEN: the head is read at a cls_token/)
    const settings = join(athene, 'tokenizer_config.json')
    writeFileSync(settings, JSON.stringify({ ...JSON.parse(readFileSync(settings, 'utf8')), cls_token: '<|text|>' }))
    near((await scored(athene)).rewards, await byHand(athene, encoder.tokenId('<|text|>')!))

    const starling = await withTensors([head])
    assert.is((await scored(starling)).headAt, 'last')
    near((await scored(starling, { headAt: 'append:<|pad|>' })).rewards, await byHand(starling, 4))
    // A token that the sequence ends with already is not put there again.
    assert.equal((await scored(starling, { headAt: 'append:<|end|>' })).rewards, (await scored(starling)).rewards)
  },
)

place('at the last token of its kind in the response', async () => {
  using model = await RewardModel.open(THREE, { kind: 'explicit', device: 'cpu', label: 0, headAt: 'token:<|pad|>' })
  const ids = encoder.encodeConversation('what', 'the<|pad|> answer<|pad|> is', 'whole').ids
  const [hidden] = await states(THREE, [ids], (one) => one.lastIndexOf(4))
  const { rewards } = await model.score([{ prompt: 'what', responses: ['the<|pad|> answer<|pad|> is'] }])
  near(rewards[0]!, [layer(three[0]!, three[1], hidden!)[0]!])
  const error = await rejection(model.score([ROW]))
  assert.is(error.code, 'ERR_ROW_INVALID')
  assert.match(error.message, /"responses\[0\]" has no token 4, at which the head is read/)
  assert.match(
    (await opening(THREE, { label: 0, headAt: 'middle' as 'last' })).message,
    /"headAt" must be last, last-non-pad/,
  )
  assert.match((await opening(THREE, { label: 0, headAt: 'token:no token' })).message, /one token of the tokenizer/)
})

place.run()

const spec = suite('heads: described by the user')

spec('layers by name, with what comes between them and what becomes of them', async () => {
  const first = tensor('judge.in.weight', 8, WIDTH)
  const last = tensor('judge.out.weight', 2, 8)
  const path = await withTensors([first, last])
  const hidden = await states(path)
  const byHand = (change: (value: number) => number) =>
    hidden.map((one) => layer(last, undefined, layer(first, undefined, one).map(change)))
  const headSpec = 'judge.in+judge.out,activation=silu'
  near(
    (await scored(path, { headSpec, label: 1 })).rewards,
    byHand((x) => x / (1 + Math.exp(-x))).map((values) => values[1]!),
  )
  const object: HeadSpec = { layers: ['judge.in', 'judge.out'], output: 'softmax' }
  const file = join(folder, 'head.json')
  writeFileSync(file, JSON.stringify(object))
  const expected = byHand((x) => Math.max(0, x)).map((values) => softmax(values)[0]!)
  near((await scored(path, { headSpec: object, label: 0 })).rewards, expected)
  near((await scored(path, { headSpec: file, label: 0 })).rewards, expected)
  const error = await opening(path, { headSpec: 'judge.in+judge.middle' })
  assert.is(error.code, 'ERR_TENSOR_MISSING')
  assert.match(error.message, /no tensor "judge.middle.weight", which the head spec names/)
})

spec('one of several heads', async () => {
  const heads = [tensor('v_head.weight', 1, WIDTH), tensor('reward_head.weight', 1, WIDTH)]
  const path = await withTensors(heads)
  assert.match((await opening(path, {})).message, /several heads .*--head-spec/)
  near(
    (await scored(path, { headSpec: 'reward_head' })).rewards,
    (await states(path)).map((one) => layer(heads[1]!, undefined, one)[0]!),
  )
  // The architecture's name decides where it is one that is known.
  const named = await withTensors([...heads, ...three.slice(0, 1)], {
    config: { ...LABELS, architectures: ['LlamaForSequenceClassification'] },
  })
  assert.is((await openCheckpoint(named)).heads.length, 1)
})

spec('the logit of a token, by its id and by its text; of a tied embedding too', async () => {
  for (const tied of [false, true]) {
    const path = await withTensors([], { tied })
    const yes = encoder.tokenId('Yes')!
    const { weights } = (await openCheckpoint(path)).spec
    const source = weights.find(({ role }) => role === (tied ? 'embedding' : 'unembedding'))!
    const bytes = readFileSync(source.file).subarray(
      source.offset + yes * WIDTH * 4,
      source.offset + (yes + 1) * WIDTH * 4,
    )
    const row = { name: 'row', shape: [1, WIDTH], data: new Float32Array(Uint8Array.from(bytes).buffer) }
    const expected = (await states(path)).map((hidden) => layer(row, undefined, hidden)[0]!)
    near((await scored(path, { headSpec: `logit:${yes}` })).rewards, expected)
    near((await scored(path, { headSpec: { logit: 'Yes' } })).rewards, expected)
  }
  assert.match(
    (await opening(THREE, { headSpec: 'logit:512' })).message,
    /"headSpec.logit" must be a token of the model/,
  )
  assert.match((await opening(THREE, { headSpec: 'logit:' })).message, /"headSpec" must be logit:TOKEN/)
  assert.match((await opening(THREE, { headSpec: 'logit:1', label: 0 })).message, /a logit has none/)
  assert.match(
    (await opening(THREE, { headSpec: 'logit:1', head: THREE })).message,
    /"head" must be left out for a logit/,
  )
})

spec('a spec that says nothing sound is refused', async () => {
  assert.equal(parseHeadSpec('a.0+a.2,activation=gelu,output=sigmoid,at=last'), {
    layers: ['a.0', 'a.2'],
    activation: 'gelu',
    output: 'sigmoid',
    at: 'last',
  })
  assert.equal(parseHeadSpec('logit:"0"'), { logit: '0' })
  for (const text of ['', 'a+', 'a,b=c', 'a,output=soft', 'a,at=last,at=last', 'a,output'])
    assert.throws(() => parseHeadSpec(text), /headSpec/)
  for (const headSpec of [
    {},
    { layers: ['a'], logit: 1 },
    { layers: [] },
    { logit: -1 },
    { logit: 1, output: 'sigmoid' },
    { layer: ['a'] },
  ])
    assert.match((await opening(THREE, { headSpec: headSpec as object })).message, /headSpec/)
  assert.match((await opening(THREE, { headSpec: 'score', kind: 'implicit' })).message, /only the explicit kind/)
  assert.match(
    (await opening(THREE, { headSpec: { layers: ['score'], at: 'there' }, label: 0 })).message,
    /"headSpec.at"/,
  )
})

spec('activations have the values of PyTorch', () => {
  const at = Float64Array.of(-4, -1, -0.1, 0, 0.5, 3)
  const expected = {
    gelu: [-0.000126685, -0.1586552539, -0.0460172163, 0, 0.3457312306, 2.9959503059],
    gelu_tanh: [-0.0000702459, -0.1588080094, -0.046017249, 0, 0.3457140098, 2.9963626079],
    silu: [-0.0719448398, -0.2689414214, -0.0475020813, 0, 0.3112296656, 2.8577223805],
    tanh: [-0.9993292997, -0.761594156, -0.0996679946, 0, 0.4621171573, 0.9950547537],
  }
  for (const [name, values] of Object.entries(expected)) {
    activate(at, name as 'gelu').forEach((value, i) => {
      assert.ok(Math.abs(value - values[i]!) < 1e-9, `${name}(${at[i]}) is ${value}, not ${values[i]}`)
    })
  }
})

spec('a head that nobody knows is an error that lists the tensors outside of the body', async () => {
  const path = await withTensors([tensor('judge.in.weight', 8, WIDTH), tensor('judge.out.weight', 1, 8)])
  const error = await opening(path, {})
  assert.is(error.code, 'ERR_TENSOR_MISSING')
  assert.match(
    error.message,
    /tensors outside of the body: "judge.in.weight", "judge.out.weight".*--head-spec.*score\.0\+score\.2/,
  )
})

spec.run()
