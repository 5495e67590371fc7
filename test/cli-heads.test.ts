/** Heads and process rewards from the command line: flags, lines of output, resuming, evaluation, and messages. */
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { RewardModel } from '../lib/models/reward-model.js'
import { implex } from './support/cli.js'
import { tensor, WIDTH, withTensors } from './support/heads.js'
import { temporaryFolder } from './support/tmp.js'

const folder = temporaryFolder()
const at = (name: string) => join(folder, name)
const MODEL = await withTensors([tensor('score.weight', 3, WIDTH)], {
  config: { id2label: { 0: 'a', 1: 'b', 2: 'c' } },
})
const PROCESS = await withTensors([tensor('score.weight', 2, WIDTH)])
const PAIR = { prompt: 'what is', chosen: 'the\nanswer', rejected: 'oil\nand\nwater' }
const GROUP = { prompt: 'what is', responses: ['word\nword', 'people\nlike\nwater'] }
const BAD = { prompt: 'what is', responses: ['no line feed'] }

function lines(name: string, rows: object[]): string {
  writeFileSync(at(name), rows.map((row) => `${JSON.stringify(row)}\n`).join(''))
  return at(name)
}
const DATA = lines('rows.jsonl', [PAIR, GROUP])

async function score(args: string[]) {
  const { status, stdout, stderr } = await implex(['score', '--kind', 'explicit', '--device', 'cpu', ...args])
  const rows = stdout
    .split('\n')
    .slice(0, -1)
    .map((line) => JSON.parse(line))
  return { status, stderr, rows }
}

const cli = suite('the command: heads and steps')

cli('labels: weighed, by name, and all of them written', async () => {
  const { status, stderr, rows } = await score([
    '--model',
    MODEL,
    '--data',
    DATA,
    '--label-weights',
    'b=2,c=-1',
    '--labels',
  ])
  assert.is(status, 0, stderr)
  using model = await RewardModel.open(MODEL, { kind: 'explicit', device: 'cpu', labelWeights: [0, 2, -1] })
  const expected = await model.score([PAIR, GROUP], { labelRewards: true })
  assert.equal([rows[0].chosen_reward, rows[0].rejected_reward], expected.rewards[0])
  assert.equal([rows[0].chosen_label_rewards, rows[0].rejected_label_rewards], expected.rows[0]!.labelRewards)
  assert.equal([rows[1].rewards, rows[1].label_rewards], [expected.rewards[1], expected.rows[1]!.labelRewards])
  assert.is(rows[0].chosen_reward, 2 * rows[0].chosen_label_rewards[1] - rows[0].chosen_label_rewards[2])
  const list = await score(['--model', MODEL, '--data', DATA, '--label-weights', '0,2,-1'])
  assert.equal(
    list.rows.map(({ rewards, chosen_reward }) => rewards ?? chosen_reward),
    [rows[0].chosen_reward, rows[1].rewards],
  )
  for (const [args, message] of [
    [['--label-weights', '1,x'], /It must be a number/],
    [['--label-weights', '1,2'], /3 numbers, one for each label \("a", "b", "c"\)/],
    [['--label-weights', 'd=1'], /labels from 0 to 2/],
    [['--head-at', 'middle'], /last, last-non-pad, token:TOKEN, append:TOKEN/],
    [['--head-spec', 'score,b'], /logit:TOKEN, or LAYER/],
    [['--steps', '/(/'], /Invalid regular expression/],
    [['--steps-aggregate', 'sum'], /min, mean, last, product/],
  ] as [string[], RegExp][]) {
    const wrong = await score(['--model', MODEL, '--data', DATA, ...args])
    assert.is(wrong.status, 2, wrong.stderr)
    assert.match(wrong.stderr, message)
  }
})

cli('a head spec in a file, and a logit', async () => {
  writeFileSync(at('head.json'), JSON.stringify({ layers: ['score'], output: 'softmax' }))
  const { rows, stderr } = await score([
    '--model',
    MODEL,
    '--data',
    DATA,
    '--head-spec',
    at('head.json'),
    '--label',
    'b',
    '--labels',
  ])
  assert.ok(
    Math.abs(rows[1].label_rewards[0].reduce((sum: number, value: number) => sum + value, 0) - 1) < 1e-12,
    stderr,
  )
  const logit = await score(['--model', MODEL, '--data', DATA, '--head-spec', 'logit:7'])
  const append = await score(['--model', MODEL, '--data', DATA, '--head-spec', 'logit:7', '--head-at', 'append:4'])
  assert.is(logit.rows[1].tokens[0] + 1, append.rows[1].tokens[0])
})

cli('steps: lines, a row without any, and a run that goes on only as it was begun', async () => {
  const data = lines('steps.jsonl', [PAIR, BAD, GROUP])
  const args = ['--model', PROCESS, '--data', data, '--steps', '/\\n|$/', '--steps-aggregate', 'mean']
  const stopped = await score(args.with(5, '/\\n/'))
  assert.is(stopped.status, 1)
  assert.match(stopped.stderr, /steps\.jsonl: line 2: "responses\[0\]" has no step: nothing in it matches \/\\n\/g/)
  const { status, stderr, rows } = await score([...args.with(5, '/\\n/'), '--on-error', 'skip'])
  assert.is(status, 0, stderr)
  assert.equal([rows[0].chosen_step_rewards.length, rows[0].rejected_step_rewards.length], [1, 2])
  assert.is(rows[0].rejected_reward, (rows[0].rejected_step_rewards[0] + rows[0].rejected_step_rewards[1]) / 2)
  assert.is(rows[1].error.code, 'ERR_ROW_INVALID')
  assert.equal(
    rows[2].step_rewards.map((values: number[]) => values.length),
    [1, 2],
  )
  const out = ['--out', at('out.jsonl')]
  assert.is((await score([...args.with(5, '/\\n/'), ...out])).status, 1)
  const other = await score([...args, ...out, '--resume', '--on-error', 'skip'])
  assert.is(other.status, 1)
  assert.match(other.stderr, /steps/)
  assert.is((await score([...args.with(5, '/\\n/'), ...out, '--resume', '--on-error', 'skip'])).status, 0)
  const resumed = readFileSync(at('out.jsonl'), 'utf8')
    .split('\n')
    .slice(0, -1)
    .map((line) => JSON.parse(line))
  assert.equal(resumed, rows)
})

cli('generative steps, and an evaluation by steps', async () => {
  const args = ['--steps', '/\\n|$/', '--good-token', 'Yes', '--bad-token', '"No"']
  const data = lines('pair.jsonl', [PAIR])
  const { status, stdout, stderr } = await implex([
    'score',
    '--model',
    PROCESS,
    '--kind',
    'generative',
    '--device',
    'cpu',
    '--data',
    data,
    ...args,
  ])
  assert.is(status, 0, stderr)
  const row = JSON.parse(stdout)
  assert.is(row.chosen_reward, Math.min(...row.chosen_step_rewards))
  const report = await implex([
    'eval',
    '--model',
    PROCESS,
    '--kind',
    'generative',
    '--device',
    'cpu',
    '--data',
    `x=${data}`,
    ...args,
    '--out',
    at('eval.json'),
  ])
  assert.is(report.status, 0, report.stderr)
  const { sets } = JSON.parse(readFileSync(at('eval.json'), 'utf8'))
  assert.is(sets.x.accuracy.value, row.margin > 0 ? 1 : 0)
})

cli.run()
