/**
 * At which token an explicit reward's head is read, and what a trained model records: a padding token that ends responses moves the head to
 * the token before, in scoring and in training on; a head whose place no checkpoint tells is refused where it matters.
 */
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { readHead } from '../lib/checkpoint/checkpoint.js'
import { RewardModel } from '../lib/models/reward-model.js'
import type { RewardModelOptions } from '../lib/models/reward-options.js'
import { train } from '../lib/train/train.js'
import { writeTinyCheckpoint } from './fixtures/tiny-checkpoint.js'
import { TOKEN_IDS } from './fixtures/tiny-tokenizer.js'
import { fails } from './support/text-fixtures.js'
import { temporaryFolder } from './support/tmp.js'
import { pairs } from './support/train.js'

const folder = temporaryFolder()
const ROWS = pairs(12)
const END = '<|end|>'

/** A checkpoint with a head. `config`: of config.json; `token`: pad_token of tokenizer_config.json. */
async function checkpoint(
  name: string,
  config: number | undefined,
  token?: string,
  head: 'extra' | 'none' = 'extra',
): Promise<string> {
  const path = join(folder, name)
  await writeTinyCheckpoint(path, { head, config: { pad_token_id: config } })
  const file = join(path, 'tokenizer_config.json')
  const settings = JSON.parse(readFileSync(file, 'utf8'))
  writeFileSync(file, JSON.stringify({ ...settings, ...(token === undefined ? {} : { pad_token: token }) }))
  return path
}

async function opened(path: string, options: Partial<RewardModelOptions> = {}) {
  using model = await RewardModel.open(path, { kind: 'explicit', device: 'cpu', cache: false, ...options })
  const scores = await model.score(ROWS, { tokenRewards: model.kind === 'explicit' })
  return { ...scores, headAt: model.headAt, padTokenId: model.padTokenId, border: model.border }
}

const place = suite('where the head is read')
const OTHER = await checkpoint('other', TOKEN_IDS.pad)
const SAME = await checkpoint('same', TOKEN_IDS.eos, END)

place('another padding token than the one that ends responses: at the last token', async () => {
  const { rewards, rows, headAt } = await opened(OTHER)
  assert.is(headAt, 'last')
  for (const [i, row] of rows.entries())
    assert.equal(
      row.tokenRewards!.map((one) => one.at(-1)!),
      rewards[i],
    )
})

place('the padding token ends responses: at the token before, as transformers reads it', async () => {
  const last = await opened(SAME, { headAt: 'last' })
  assert.equal(last.rewards, (await opened(OTHER)).rewards)
  const found = await opened(SAME)
  assert.equal([found.headAt, found.padTokenId], ['last-non-pad', TOKEN_IDS.eos])
  for (const [i, row] of last.rows.entries()) {
    assert.equal(
      row.tokenRewards!.map((one) => one.at(-2)!),
      found.rewards[i],
    )
    assert.equal(
      found.rows[i]!.tokens,
      row.tokens.map((count) => count - 1),
    )
  }
  assert.not.equal(found.rewards, last.rewards)
})

place('the mean over a response does not go by padding', async () => {
  const found = await opened(SAME, { pool: 'mean' })
  assert.equal([found.headAt, found.padTokenId], [undefined, undefined])
  assert.equal(found.rewards, (await opened(OTHER, { pool: 'mean' })).rewards)
})

place('a place that no checkpoint tells is refused where it matters, and can be said', async () => {
  const untold = await checkpoint('untold', undefined, END)
  const bare = await checkpoint('bare', TOKEN_IDS.eos, END, 'none')
  const head = await readHead(SAME, 32)
  for (const [path, options, why] of [
    [untold, {}, 'names no pad_token_id'],
    [bare, { head }, 'no config.json beside it'],
  ] as const) {
    await fails(() => opened(path, options), 'ERR_CONFIG_INVALID', why, '--head-at')
    assert.is((await opened(path, { ...options, headAt: 'last' })).headAt, 'last')
    const found = await opened(path, { ...options, headAt: 'last-non-pad' })
    assert.equal(found.rewards, (await opened(SAME)).rewards)
  }
  // The checkpoint that a head is taken from tells.
  assert.is((await opened(bare, { head: OTHER })).headAt, 'last')
  assert.is((await opened(bare, { head: SAME })).headAt, 'last-non-pad')
  assert.is((await opened(await checkpoint('apart', undefined, '<|pad|>'))).headAt, 'last')
})

place('options that mean nothing are refused', async () => {
  const refused = async (options: RewardModelOptions, name: string) => {
    try {
      await RewardModel.open(OTHER, options)
    } catch (error) {
      assert.instance(error, RangeError)
      return assert.match((error as Error).message, name)
    }
    assert.unreachable('was not refused')
  }
  await refused({ kind: 'implicit', headAt: 'last' }, 'headAt')
  await refused({ kind: 'explicit', pool: 'mean', headAt: 'last' }, 'headAt')
  await refused({ kind: 'generative', border: 'whole' }, 'border')
})
place.run()

const kept = suite('what a trained model keeps')

let runs = 0
const conduct = () =>
  ({ out: join(folder, `run-${runs++}`), epochs: 1, batchPairs: 4, device: 'cpu', cache: false }) as const

kept('the place of its head, where the checkpoint had one', async () => {
  for (const path of [SAME, OTHER]) {
    const { model, summary } = await train(path, ROWS, { kind: 'explicit', learningRate: 0, ...conduct() })
    const [before, after] = [await opened(path), await opened(model!)]
    assert.equal(after.rewards, before.rewards)
    assert.equal([after.headAt, summary!.headAt], [before.headAt, before.headAt])
    assert.equal([after.padTokenId, summary!.padTokenId], [before.padTokenId, before.padTokenId ?? null])
  }
})

kept('a new head is read at the last token, and the saved padding token does not move it', async () => {
  const path = await checkpoint('new-head', TOKEN_IDS.eos, END, 'none')
  const { model, summary } = await train(path, ROWS, {
    kind: 'explicit',
    learningRate: 1e-3,
    ...conduct(),
    evaluation: { rows: ROWS },
  })
  const { rewards, headAt } = await opened(model!)
  assert.equal([headAt, summary!.headAt], ['last', 'last'])
  const mean = rewards.reduce((sum, [chosen]) => sum + chosen!, 0) / rewards.length
  assert.ok(Math.abs(mean - (summary!.evaluation['rows']!['meanChosen'] as number)) < 1e-12)
})

kept('the rule for the border, which scoring and training on then follow', async () => {
  for (const border of ['separate', 'whole'] as const) {
    const first = await train(OTHER, ROWS, { kind: 'implicit', border, learningRate: 0, ...conduct() })
    assert.is(first.summary!.border, border)
    assert.is((await opened(first.model!, { kind: 'implicit' })).border, border)
    const second = await train(first.model!, ROWS, { kind: 'sft', learningRate: 0, ...conduct() })
    assert.is(second.summary!.border, border)
    const other = border === 'whole' ? 'separate' : 'whole'
    assert.is((await opened(second.model!, { kind: 'implicit', border: other })).border, other)
  }
  assert.is((await opened(OTHER)).border, 'whole')
})
kept.run()
