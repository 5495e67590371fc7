/**
 * Trained adapters load in peft and give the same rewards there: test/oracle/check_adapters.py, run with the Python that
 * IMPLEX_ORACLE_PYTHON names (one that has torch, transformers and peft).
 */
import { spawnSync } from 'node:child_process'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { RewardModel } from '../lib/models/reward-model.js'
import { train } from '../lib/train/train.js'
import { TINY_FAMILIES, writeTinyCheckpoint } from './fixtures/tiny-checkpoint.js'
import { writeMerged } from './support/adapters.js'
import { repositoryRoot, sharedPath } from './support/shared.js'
import { skip } from './support/skip.js'
import { temporaryFolder } from './support/tmp.js'
import { pairs } from './support/train.js'

const python = process.env.IMPLEX_ORACLE_PYTHON
const folder = temporaryFolder()
const oracle = suite('peft')
const BETA = 0.1

async function trainAndScore(base: string, name: string, kind: 'explicit' | 'implicit') {
  const rows = pairs(8)
  const out = join(folder, `${name}-${kind}`)
  const { adapter } = await train(base, rows, {
    ...{ kind, out, learningRate: 1e-2, epochs: 2, batchPairs: 4, device: 'cpu', cache: false },
    ...{ loraRank: 4, rslora: kind === 'explicit' },
  })
  // The reference of a run has the tokens that the template brings; that of scoring is given them here.
  const merged = `${out}-merged`
  const head = await writeMerged(merged, base, adapter!)
  const scored = async (path: string) => {
    using model = await RewardModel.open(path, {
      ...(head === undefined ? { kind: 'implicit', beta: BETA } : { kind: 'explicit', head, headAt: 'last' }),
      ...{ device: 'cpu', cache: false, template: 'auto' },
    })
    return (await model.score(rows)).rewards as [number, number][]
  }
  const rewards = await scored(merged)
  if (head === undefined) {
    const before = await scored(base)
    for (const [i, pair] of rewards.entries()) for (const k of [0, 1] as const) pair[k] -= before[i]![k]
  }
  const card = readFileSync(join(adapter!, 'README.md'), 'utf8')
  const pad = Number(/pad_token_id=(\d+)/.exec(card)?.[1])
  return { base, adapter, kind, pad, beta: BETA, rows: rows.map((row, i) => ({ ...row, rewards: rewards[i] })) }
}

oracle('adapters of every family, and one whose template brought tokens, give the same rewards', async () => {
  if (python === undefined) return skip('IMPLEX_ORACLE_PYTHON names no Python with torch, transformers and peft')
  const request: unknown[] = []
  for (const family of TINY_FAMILIES) {
    const path = join(folder, family)
    const tied = family === 'qwen2' || family.startsWith('gemma')
    await writeTinyCheckpoint(path, { family, tied })
    for (const kind of ['explicit', 'implicit'] as const) request.push(await trainAndScore(path, family, kind))
  }
  const stories = sharedPath('models/stories260K')
  if (stories !== undefined) {
    for (const kind of ['explicit', 'implicit'] as const)
      request.push(await trainAndScore(stories, 'stories260K', kind))
  }
  writeFileSync(join(folder, 'request.json'), JSON.stringify(request))
  const script = join(repositoryRoot, 'test', 'oracle', 'check_adapters.py')
  const { status, stdout, stderr } = spawnSync(python, [script, join(folder, 'request.json')], { encoding: 'utf8' })
  if (process.env.IMPLEX_VERBOSE !== undefined) console.log(stdout)
  assert.is(status, 0, `${stdout}${stderr.slice(-2000)}`)
  assert.is(stdout.trimEnd().split('\n').length, request.length)
})
oracle.run()
