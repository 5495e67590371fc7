/** evaluate(), `implex eval`, and the statistics and intervals behind them. */
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { evaluationTable } from '../cli/eval-table.js'
import { evaluate } from '../lib/evaluate/evaluate.js'
import { PairRewards, softplus, STATISTICS } from '../lib/evaluate/statistics.js'
import { PreferenceMetrics } from '../lib/evaluate/metrics.js'
import { ImplexError } from '../lib/core/errors.js'
import { RewardModel } from '../lib/models/reward-model.js'
import { seededRandom } from './fixtures/random.js'
import { writeTinyCheckpoint } from './fixtures/tiny-checkpoint.js'
import { implexHere } from './support/cli.js'
import { pairs, writeRows } from './support/train.js'
import { temporaryFolder } from './support/tmp.js'

const folder = temporaryFolder()
const at = (name: string) => join(folder, name)
await writeTinyCheckpoint(at('model'), { head: 'extra' })
const A = writeRows(at('a.jsonl'), pairs(30))
const B = writeRows(at('b.jsonl'), pairs(25, 9))
const env = { XDG_CACHE_HOME: at('xdg') }

const numbers = suite('pair statistics')

function rewardsOf(list: [number, number][]): PairRewards {
  const rewards = new PairRewards()
  for (const pair of list) rewards.add(...pair)
  return rewards
}

numbers('by hand', () => {
  const s = rewardsOf([
    [2, 0],
    [0, 1],
    [1, 1],
    [3, 0],
  ]).statistics()
  const sigmoid = (x: number) => 1 / (1 + Math.exp(-x))
  assert.is(s.accuracy, 0.625)
  assert.is(s.tieShare, 0.25)
  assert.equal([s.meanChosen, s.meanRejected, s.meanMargin], [1.5, 0.5, 1])
  const close = (a: number, b: number) => assert.ok(Math.abs(a - b) < 1e-12, `${a} ${b}`)
  close(s.loss, (softplus(-2) + softplus(1) + Math.LN2 + softplus(-3)) / 4)
  close(s.brier, (sigmoid(-2) ** 2 + sigmoid(1) ** 2 + 0.25 + sigmoid(-3) ** 2) / 4)
  // Confidences .88 and .95 (right), .73 (wrong), .5 (half right): each in a bin of its own.
  close(s.ece, (1 - sigmoid(2) + sigmoid(1) + 0 + 1 - sigmoid(3)) / 4)
  const deviation = Math.sqrt([2, 0, 0, 1, 1, 1, 3, 0].reduce((sum, r) => sum + (r - 1) ** 2, 0) / 7)
  close(s.normalizedMargin, 1.5 / (deviation + 1e-8))
})

numbers('agree with the streaming metrics, also far from zero', () => {
  const random = seededRandom(3)
  for (const offset of [0, 1e7]) {
    const list = Array.from({ length: 500 }, (): [number, number] => [
      offset + random.normal() + 0.5,
      offset + random.normal(),
    ])
    const metrics = new PreferenceMetrics()
    for (const pair of list) metrics.add(...pair)
    const s = rewardsOf(list).statistics()
    const close = (a: number, b: number) => assert.ok(Math.abs(a - b) < 1e-8 * Math.abs(b), `${a} ${b}`)
    close(s.accuracy, metrics.accuracy)
    close(s.meanMargin, metrics.meanMargin)
    close(s.normalizedMargin, metrics.normalizedMargin)
  }
})

numbers('intervals: seeded, around the value, and as wide as theory says', () => {
  const random = seededRandom(4)
  const list = Array.from({ length: 400 }, (): [number, number] => [random.unit() < 0.7 ? 1 : -1, 0])
  const first = rewardsOf(list).estimates(1000, 0)
  assert.equal(rewardsOf(list).estimates(1000, 0), first)
  assert.not.equal(rewardsOf(list).estimates(1000, 1), first)
  for (const name of STATISTICS) {
    const { value, low, high } = first[name]
    assert.ok(low <= high, name)
    // The calibration error of a resample is larger: its noise never cancels.
    if (name !== 'ece') assert.ok(low - 1e-12 <= value && value <= high + 1e-12, name)
  }
  const { value, low, high } = first.accuracy
  const expected = 2 * 1.96 * Math.sqrt((value * (1 - value)) / 400)
  assert.ok(Math.abs(high - low - expected) < 0.15 * expected, `${low} ${high}`)
})

numbers('no pairs: NaN', () => {
  const { accuracy } = new PairRewards().estimates(10, 0)
  assert.equal(accuracy, { value: Number.NaN, low: Number.NaN, high: Number.NaN })
})
numbers.run()

const api = suite('evaluate')

api('is what scoring and its metrics say, per set', async () => {
  using model = await RewardModel.open(at('model'), { kind: 'explicit', device: 'cpu' })
  const seen: string[] = []
  const report = await evaluate(model, { a: A, b: pairs(25, 9) }, { onRow: (name) => void seen.push(name) })
  assert.equal(Object.keys(report), ['a', 'b'])
  assert.is(seen.length, 55)
  for (const [name, rows] of [
    ['a', pairs(30)],
    ['b', pairs(25, 9)],
  ] as const) {
    const metrics = new PreferenceMetrics()
    for (const [chosen, rejected] of (await model.score(rows)).rewards) metrics.add(chosen!, rejected!)
    const { estimates } = report[name]!
    assert.is(report[name]!.pairs, rows.length)
    assert.ok(Math.abs(estimates.accuracy.value - metrics.accuracy) < 1e-12)
    assert.ok(Math.abs(estimates.normalizedMargin.value - metrics.normalizedMargin) < 1e-9)
    assert.ok(estimates.accuracy.low <= estimates.accuracy.value)
  }
})

api('a policy that is its own reference ties everywhere', async () => {
  const path = at('model')
  using model = await RewardModel.open(path, { kind: 'implicit', reference: path, device: 'cpu', cache: false })
  const { a } = await evaluate(model, { a: A })
  const { accuracy, tieShare, loss, normalizedMargin, ece } = a!.estimates
  assert.equal([accuracy.value, tieShare.value, normalizedMargin.value, ece.value], [0.5, 1, 0, 0])
  assert.ok(Math.abs(loss.value - Math.LN2) < 1e-12)
})

api('bad rows: named with their set, or counted', async () => {
  using model = await RewardModel.open(at('model'), { kind: 'explicit', device: 'cpu' })
  const file = writeRows(at('bad.jsonl'), [...pairs(3), { prompt: 'x', chosen: 'y' }])
  const error = (await evaluate(model, { odd: file }).catch((reason: unknown) => reason)) as ImplexError
  assert.instance(error, ImplexError)
  assert.is(error.code, 'ERR_ROW_INVALID')
  assert.match(error.message, /odd .*bad\.jsonl.*line 4/)
  const { odd } = await evaluate(model, { odd: file }, { onError: 'skip', resamples: 0 })
  assert.equal([odd!.rows, odd!.pairs, odd!.errors], [4, 3, 1])
  assert.ok(Number.isNaN(odd!.estimates.accuracy.low))
  const group = (await evaluate(model, { g: [{ prompt: 'x', responses: ['a'] }] }).catch(
    (reason: unknown) => reason,
  )) as ImplexError
  assert.match(group.message, /needs pairs/)
  const mixed = [...pairs(2), { prompt: 'x', responses: ['a'] }]
  const { g } = await evaluate(model, { g: mixed }, { onError: 'skip', resamples: 0 })
  assert.equal([g!.rows, g!.pairs, g!.errors], [3, 2, 1])
})

api('a shape that is named, and keys that nothing reads', async () => {
  const warnings: string[] = []
  using model = await RewardModel.open(at('model'), {
    kind: 'explicit',
    device: 'cpu',
    onWarning: (message) => warnings.push(message),
  })
  const file = writeRows(at('shaped.jsonl'), [
    { question: 'Is it?', response_A: 'No', response_B: 'Yes', label: 'B>A', pair_id: 1, remark: 'x' },
  ])
  const { shaped } = await evaluate(model, { shaped: file }, { resamples: 0, rows: 'judgebench' })
  assert.is(shaped!.pairs, 1)
  assert.match(warnings.join(), /shaped\.jsonl: nothing reads these keys: remark \(1 row\)/)
  const other = (await evaluate(model, { shaped: file }, { rows: 'nectar' }).catch(
    (reason: unknown) => reason,
  )) as Error
  assert.match(other.message, /line 1: "prompt" is missing/)
})
api.run()

const cli = suite('implex eval')

cli('a table in 80 columns, JSON, and every reward', async () => {
  const args = ['eval', '--model', at('model'), '--kind', 'explicit', '--device', 'cpu', '--data', `a=${A}`, `b=${B}`]
  const { status, stdout, stderr } = await implexHere([...args, '--out', `${at('results')}/`], env)
  assert.is(status, 0, stderr)
  const lines = stdout.trimEnd().split('\n')
  assert.is(lines.length, 3)
  for (const line of lines) assert.ok(line.length <= 80, line)
  assert.match(lines[0]!, /data set +pairs +accuracy \[95%\] +loss +margin +norm\. +Brier +ECE/)
  const json = JSON.parse(readFileSync(at('results/evaluation.json'), 'utf8'))
  assert.equal(Object.keys(json.sets), ['a', 'b'])
  for (const key of [
    'accuracy',
    'tie_share',
    'loss',
    'mean_chosen',
    'mean_rejected',
    'mean_margin',
    'normalized_margin',
    'brier',
    'ece',
  ])
    assert.equal(Object.keys(json.sets.a[key]), ['value', 'low', 'high'], key)
  const rewards = readFileSync(at('results/b.jsonl'), 'utf8')
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line))
  assert.is(rewards.length, 25)
  const correct = rewards.filter((row) => row.margin > 0).length
  assert.ok(Math.abs(json.sets.b.accuracy.value - correct / 25) < 1e-12)

  const file = await implexHere([...args, '--out', at('only.json'), '--quiet', '--resamples', '50'], env)
  assert.equal([file.status, file.stdout, file.stderr], [0, '', ''])
  assert.equal(JSON.parse(readFileSync(at('only.json'), 'utf8')).sets.a.loss.value, json.sets.a.loss.value)
  assert.not.ok(existsSync(at('a.jsonl.jsonl')))
  const printed = await implexHere([...args, '--out', '-', '--resamples', '50'], env)
  assert.is(printed.stdout, readFileSync(at('only.json'), 'utf8'))
})

cli('wrong usage is status 2, help fits 80 columns', async () => {
  const base = ['eval', '--model', at('model'), '--kind', 'explicit', '--device', 'cpu']
  for (const data of [[A], [`a=${A}`, `a=${B}`], [`a b=${A}`]]) {
    const { status, stderr } = await implexHere([...base, '--data', ...data], env)
    assert.is(status, 2, stderr)
  }
  for (const command of ['eval', 'train']) {
    const { status, stdout } = await implexHere([command, '--help'])
    assert.is(status, 0)
    for (const line of stdout.split('\n')) assert.ok(line.length <= 80, line)
  }
})

cli('the table holds long names and extreme numbers', () => {
  const rewards = rewardsOf([
    [1e9, -1e9],
    [-1e9, 1e9],
  ])
  const counts = { rows: 2, pairs: 1_000_000, errors: 0, skipped: 0, truncated: 0, borderDiffers: 0, promptParted: 0 }
  const one = { ...counts, estimates: rewards.estimates(20, 0) }
  const table = evaluationTable({
    ['a-name-that-goes-on-and-on']: one,
    b: { ...one, estimates: new PairRewards().estimates(0, 0) },
  })
  for (const line of table.split('\n')) assert.ok(line.length <= 80, line)
})
cli.run()
