/** Process rewards: a reward at every end of a step, by heads and by the tokens that follow a step, and what becomes of them. */
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { openCheckpoint } from '../lib/checkpoint/checkpoint.js'
import type { Row } from '../lib/data/rows.js'
import { STEP_AGGREGATES } from '../lib/data/steps.js'
import { RewardModel } from '../lib/models/reward-model.js'
import type { RewardModelOptions } from '../lib/models/reward-options.js'
import { openToScore } from '../lib/models/open.js'
import { RowEncoder } from '../lib/text/text-encoder.js'
import { hiddenAt, layer, near, openHidden, relu, softmax, tensor, WIDTH, withTensors } from './support/heads.js'
import { rejection } from './support/engine.js'

const TAG = '<|pad|>'
const PROMPT = 'what is the answer'
const STEPS = [
  ['the answer', 'is water'],
  ['people', 'like', 'oil'],
]
const ROW = { prompt: PROMPT, responses: STEPS.map((steps) => steps.map((step) => step + TAG).join('')) }

const one = [tensor('score.weight', 1, WIDTH), tensor('score.bias', 1)]
const two = [tensor('score.weight', 2, WIDTH), tensor('score.bias', 2)]
const deep = [
  tensor('score.0.weight', 16, WIDTH),
  tensor('score.0.bias', 16),
  tensor('score.2.weight', 2, 16),
  tensor('score.2.bias', 2),
]
const folders = { one: await withTensors(one), two: await withTensors(two), deep: await withTensors(deep) }
const encoder = await RowEncoder.load({ path: folders.one })

/** Ids of each response's conversation, and where its tags are. */
const sequences = ROW.responses.map((response) => {
  const { ids } = encoder.encodeConversation(PROMPT, response, 'whole')
  const tag = encoder.tokenId(TAG)!
  return { ids, ends: [...ids.keys()].filter((i) => ids[i] === tag) }
})

async function states(folder: string): Promise<Float64Array[][]> {
  using engine = await openHidden(folder)
  return await Promise.all(sequences.map(({ ids, ends }) => Promise.all(ends.map((at) => hiddenAt(engine, ids, at)))))
}

const open = (path: string, options: Partial<RewardModelOptions> = {}) =>
  RewardModel.open(path, { kind: 'explicit', device: 'cpu', steps: TAG, ...options })

async function stepRewards(path: string, options: Partial<RewardModelOptions> = {}, row: object = ROW) {
  using model = await open(path, options)
  const [first] = (await model.score([row as Row])).rows
  return { steps: first!.stepRewards!, rewards: first!.rewards }
}

const explicit = suite('process rewards: explicit')

explicit('one label is the reward itself, two are the probability of the second, in one layer and in two', async () => {
  const byHand = {
    one: (hidden: Float64Array) => layer(one[0]!, one[1], hidden)[0]!,
    two: (hidden: Float64Array) => softmax(layer(two[0]!, two[1], hidden))[1]!,
    deep: (hidden: Float64Array) => softmax(layer(deep[2]!, deep[3], relu(layer(deep[0]!, deep[1], hidden))))[1]!,
  }
  for (const name of ['one', 'two', 'deep'] as const) {
    const expected = (await states(folders[name])).map((all) => all.map(byHand[name]))
    const { steps, rewards } = await stepRewards(folders[name])
    assert.equal(
      steps.map(({ length }) => length),
      [2, 3],
    )
    for (const [k, values] of steps.entries()) near(values, expected[k]!)
    assert.equal(
      rewards,
      steps.map((values) => Math.min(...values)),
    )
  }
})

explicit('the other label, other weights, and outputs as they are', async () => {
  const all = (await states(folders.two))[0]!
  const logits = all.map((hidden) => layer(two[0]!, two[1], hidden))
  const first = async (options: Partial<RewardModelOptions>) => (await stepRewards(folders.two, options)).steps[0]!
  near(
    await first({ label: 0 }),
    logits.map((values) => softmax(values)[0]!),
  )
  near(
    await first({ labelWeights: [0, 2] }),
    logits.map((values) => 2 * softmax(values)[1]!),
  )
  near(
    await first({ headSpec: 'score,output=none', label: 1 }),
    logits.map((values) => values[1]!),
  )
  near(
    await first({ headSpec: 'score,output=sigmoid', label: 1 }),
    logits.map(([, value]) => 1 / (1 + Math.exp(-value!))),
  )
})

explicit('every way to make a reward of the steps', async () => {
  const { steps } = await stepRewards(folders.two)
  const expected = {
    min: (values: number[]) => Math.min(...values),
    mean: (values: number[]) => values.reduce((sum, value) => sum + value, 0) / values.length,
    last: (values: number[]) => values.at(-1)!,
    product: (values: number[]) => values.reduce((product, value) => product * value, 1),
  }
  for (const how of STEP_AGGREGATES) {
    const { rewards } = await stepRewards(folders.two, { stepsAggregate: how })
    assert.equal(rewards, steps.map(expected[how]))
  }
})

explicit('bits do not depend on the batch, and are those of the token’s own reward', async () => {
  using model = await open(folders.one)
  using tokens = await RewardModel.open(folders.one, { kind: 'explicit', device: 'cpu', headAt: 'last' })
  const together = (await model.score([ROW, ROW], { batchTokens: 16 })).rows
  const [alone] = (await model.score([ROW])).rows
  assert.equal(together[0]!.stepRewards, alone!.stepRewards)
  assert.equal(together[1]!.stepRewards, alone!.stepRewards)
  const [each] = (await tokens.score([ROW], { tokenRewards: true, responseTokens: true })).rows
  each!.responseTokens!.forEach(({ ids }, k) => {
    const at = [...ids.keys()].filter((i) => ids[i] === encoder.tokenId(TAG))
    assert.equal(
      at.map((i) => each!.tokenRewards![k]![i]),
      alone!.stepRewards![k]!.map(Math.fround),
    )
  })
})

explicit.run()

const ends = suite('process rewards: where steps end')

ends('a pattern ends steps at the token that holds its last character, and reads the response only', async () => {
  const texts = STEPS.map((steps) => steps.join('\n'))
  const row = { prompt: PROMPT, responses: texts }
  const counts = async (steps: RegExp) =>
    (await stepRewards(folders.one, { steps }, row)).steps.map(({ length }) => length)
  assert.equal(await counts(/\n/), [1, 2])
  assert.equal(await counts(/\n|$/), [2, 3])
  // The words that the template writes are no part of it, nor is an empty match at its beginning.
  assert.is((await rejection(stepRewards(folders.one, { steps: /assistant|<\|end\|>/ }, row))).code, 'ERR_ROW_INVALID')
  assert.equal(await counts(/^|$/), [1, 1])
  using engine = await openHidden(folders.one)
  const { ids, border } = encoder.encodeConversation(PROMPT, texts[0]!, 'whole')
  const pieces = encoder.tokenTexts(ids.subarray(border))
  const at = border + pieces.findIndex((text) => text.includes('\n'))
  const { steps } = await stepRewards(folders.one, { steps: /\n/ }, row)
  near(steps[0]!, layer(one[0]!, one[1], await hiddenAt(engine, ids, at)))
})

ends('a list of steps is a response with their ends', async () => {
  const listed = { prompt: PROMPT, completions: STEPS[1], labels: [true, true, false] }
  assert.equal((await stepRewards(folders.one, {}, listed)).steps, [(await stepRewards(folders.one)).steps[1]])
  const row = { prompt: PROMPT, responses: [`${STEPS[1]!.join('\n')}\n`] }
  const plain = { steps: /\n/, template: 'none' }
  const { steps } = await stepRewards(folders.one, plain, listed)
  assert.is(steps[0]!.length, 3)
  assert.equal(steps, (await stepRewards(folders.one, plain, row)).steps)
  // The template strips the last line feed.
  assert.is((await stepRewards(folders.one, { steps: /\n|$/ }, listed)).steps[0]!.length, 3)
  const error = await rejection(stepRewards(folders.one, { steps: /\n/ }, listed))
  assert.match(error.message, /"completions" has 3 steps, but 2 ends of steps .* \/\\n\|\$\//)
})

ends('a row without a step is an error of its own', async () => {
  const bad = { prompt: PROMPT, responses: ['the answer is oil'] }
  const error = await rejection(stepRewards(folders.one, {}, bad))
  assert.is(error.code, 'ERR_ROW_INVALID')
  assert.match(error.message, /row 0: "responses\[0\]" has no step: it has no token "<\|pad\|>" \(id 4\)/)
  using model = await open(folders.one)
  const rows = []
  for await (const row of model.scoreStream([ROW, bad, ROW], { onError: 'skip' })) rows.push(row)
  assert.equal(
    rows.map((row) => row.error?.code),
    [undefined, 'ERR_ROW_INVALID', undefined],
  )
  assert.equal(rows[2]!.stepRewards, rows[0]!.stepRewards)
  const twice = { prompt: PROMPT, completions: [`a${TAG}b`, 'c'] }
  assert.match((await rejection(stepRewards(folders.one, {}, twice))).message, /2 steps, but 3 ends/)
})

ends.run()

const generative = suite('process rewards: generative')

generative('the probability of the good token, alone or of the good and the bad one', async () => {
  const choice = { device: 'cpu', dtype: 'f32' } as const
  const checkpoint = await openCheckpoint(folders.one)
  const { model: engine } = await openToScore(checkpoint, { use: 'generative', who: 'a test' }, choice)
  using _ = engine
  const yes = encoder.tokenId('Yes')!
  const no = encoder.tokenId('No')!
  const probability = async (ids: Int32Array, at: number, targetToken: number) => {
    const tokens = ids.slice(0, at + 1)
    const segments = Int32Array.of(0, tokens.length, -1)
    const batch = { tokens, segments, scored: Int32Array.of(0), readout: 'next_token', targetToken } as const
    return (await engine.score(batch)).values[0]!
  }
  for (const [k, { ids, ends: at }] of sequences.entries()) {
    const good = await Promise.all(at.map((i) => probability(ids, i, yes)))
    const bad = await Promise.all(at.map((i) => probability(ids, i, no)))
    const alone = await stepRewards(folders.one, { kind: 'generative' })
    near(alone.steps[k]!, good)
    const both = await stepRewards(folders.one, { kind: 'generative', goodToken: 'Yes', badToken: no })
    near(
      both.steps[k]!,
      good.map((p, i) => p / (p + bad[i]!)),
    )
  }
})

generative.run()

const refused = suite('process rewards: what cannot be')

refused('options that do not fit', async () => {
  for (const [options, message] of [
    [{ kind: 'implicit' }, /"steps" must be left out/],
    [{ pool: 'mean' }, /"pool" must be "last" with steps/],
    [{ headAt: 'last' }, /"headAt" must be left out with steps/],
    [{ goodToken: 'Yes' }, /"goodToken" must be left out/],
    [{ steps: undefined, stepsAggregate: 'mean' }, /"stepsAggregate" must be left out/],
    [{ stepsAggregate: 'median' }, /"stepsAggregate" must be one of/],
    [{ steps: 'no such token at all' }, /"steps" must be one token of the tokenizer/],
    [{ steps: 512 }, /below 512/],
    [{ steps: '' }, /a token's text or its id/],
    [{ kind: 'generative', badToken: 99999 }, /"badToken" must be a token of the model/],
  ] as [Partial<RewardModelOptions>, RegExp][]) {
    const error = await open(folders.one, options).then(
      () => new Error('it opened'),
      (reason: Error) => reason,
    )
    assert.match(error.message, message)
  }
})

refused.run()
