/**
 * Heads of several layers, gates and process rewards are those that PyTorch computes from the same files: test/oracle/check_heads.py, run with
 * the Python that IMPLEX_ORACLE_PYTHON names (with torch and transformers). Without it this is skipped.
 */
import { spawnSync } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { RewardModel } from '../lib/models/reward-model.js'
import type { RewardModelOptions } from '../lib/models/reward-options.js'
import { gatedTensors, tensor, WIDTH, withTensors } from './support/heads.js'
import { repositoryRoot } from './support/shared.js'
import { skip } from './support/skip.js'
import { temporaryFolder } from './support/tmp.js'

const python = process.env.IMPLEX_ORACLE_PYTHON
const STEP = '<|pad|>'
const ROWS = [
  { prompt: 'what is the answer', response: `the answer${STEP} is water${STEP}` },
  { prompt: 'who made the first word', response: `people${STEP} like oil${STEP} and more${STEP}` },
]

async function scored(model: string, options: Partial<RewardModelOptions>) {
  using opened = await RewardModel.open(model, { kind: 'explicit', device: 'cpu', ...options })
  const rows = ROWS.map(({ prompt, response }) => ({ prompt, responses: [response] }))
  const scores = await opened.score(rows)
  return ROWS.map((row, i) => ({ ...row, rewards: scores.rows[i]!.stepRewards?.[0] ?? scores.rewards[i]! }))
}

const oracle = suite('oracle: heads in PyTorch')

oracle('process rewards of two labels, a gate over labels, and good and bad tokens', async () => {
  if (python === undefined) return skip('IMPLEX_ORACLE_PYTHON names no Python with torch and transformers')
  const layers = [
    tensor('score.0.weight', 24, WIDTH),
    tensor('score.0.bias', 24),
    tensor('score.2.weight', 2, 24),
    tensor('score.2.bias', 2),
  ]
  const steps = await withTensors(layers, { config: { architectures: ['Qwen2ForProcessRewardModel'] } })
  const config = { gating_temperature: 3, architectures: ['LlamaForRewardModelWithGating'] }
  const gated = await withTensors(gatedTensors(5), { config })
  const language = await withTensors([])
  const tokens = { goodToken: 'Yes', badToken: 'No' }
  const request = [
    { model: steps, head: 'process', step: STEP, rows: await scored(steps, { steps: STEP }) },
    { model: gated, head: 'gated', rows: await scored(gated, {}) },
    {
      model: language,
      head: 'steps',
      step: STEP,
      good: 'Yes',
      bad: 'No',
      rows: await scored(language, { kind: 'generative', steps: STEP, ...tokens }),
    },
  ]
  const file = join(temporaryFolder(), 'request.json')
  writeFileSync(file, JSON.stringify(request))
  const script = join(repositoryRoot, 'test', 'oracle', 'check_heads.py')
  const { status, stdout, stderr } = spawnSync(python, [script, file], { encoding: 'utf8' })
  if (process.env.IMPLEX_VERBOSE !== undefined) console.log(stdout)
  assert.is(status, 0, `${stdout}${stderr.slice(-2000)}`)
  assert.equal(
    stdout
      .trimEnd()
      .split('\n')
      .map((line) => line.split(' ')[0]),
    ['process', 'gated', 'steps'],
  )
})
oracle.run()
