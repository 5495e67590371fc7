/**
 * Saved models load in transformers and give the same rewards there: test/oracle/check_saved.py, run with the Python that
 * IMPLEX_ORACLE_PYTHON names (one that has torch and transformers).
 */
import { spawnSync } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { RewardModel } from '../lib/models/reward-model.js'
import { train } from '../lib/train/train.js'
import { TINY_FAMILIES, writeTinyCheckpoint } from './fixtures/tiny-checkpoint.js'
import { repositoryRoot, sharedPath } from './support/shared.js'
import { skip } from './support/skip.js'
import { temporaryFolder } from './support/tmp.js'
import { pairs } from './support/train.js'

const python = process.env.IMPLEX_ORACLE_PYTHON
const folder = temporaryFolder()
const oracle = suite('transformers')

async function trainAndScore(path: string, name: string, kind: 'explicit' | 'implicit') {
  const rows = pairs(12)
  const { model } = await train(path, rows, {
    ...{
      kind,
      out: join(folder, `${name}-${kind}`),
      learningRate: 1e-3,
      epochs: 1,
      batchPairs: 4,
      device: 'cpu',
      cache: false,
    },
  })
  const reference = kind === 'implicit' && name !== 'stories260K' ? path : undefined
  using saved = await RewardModel.open(model!, {
    kind,
    device: 'cpu',
    cache: false,
    beta: kind === 'implicit' ? 0.1 : undefined,
    reference,
  })
  const { rewards } = await saved.score(rows)
  return {
    model,
    kind,
    reference: reference ?? null,
    beta: 0.1,
    rows: rows.map((row, i) => ({ ...row, rewards: rewards[i] })),
  }
}

oracle(
  'saved models of every family, and one whose template and tokens were added, give the same rewards',
  async () => {
    if (python === undefined) return skip('IMPLEX_ORACLE_PYTHON names no Python with torch and transformers')
    const request: unknown[] = []
    for (const family of TINY_FAMILIES) {
      const path = join(folder, family)
      const tied = family === 'qwen2' || family.startsWith('gemma')
      await writeTinyCheckpoint(path, { family, tied, style: family === 'qwen3' ? 5 : 4 })
      for (const kind of ['explicit', 'implicit'] as const) request.push(await trainAndScore(path, family, kind))
    }
    const stories = sharedPath('models/stories260K')
    if (stories !== undefined) {
      for (const kind of ['explicit', 'implicit'] as const)
        request.push(await trainAndScore(stories, 'stories260K', kind))
    }
    writeFileSync(join(folder, 'request.json'), JSON.stringify(request))
    const script = join(repositoryRoot, 'test', 'oracle', 'check_saved.py')
    const { status, stdout, stderr } = spawnSync(python, [script, join(folder, 'request.json')], { encoding: 'utf8' })
    if (process.env.IMPLEX_VERBOSE !== undefined) console.log(stdout)
    assert.is(status, 0, `${stdout}${stderr.slice(-2000)}`)
    assert.is(stdout.trimEnd().split('\n').length, request.length)
  },
)
oracle.run()
