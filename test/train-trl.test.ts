/**
 * The recipes named after TRL's trainers take the steps that TRL takes: test/oracle/check_trl.py, run with the Python that
 * IMPLEX_ORACLE_PYTHON names (one that has torch, transformers, trl and datasets).
 */
import { spawnSync } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import type { TrainOptions, TrainStep } from '../lib/train/options.js'
import { train } from '../lib/train/train.js'
import { writeTinyCheckpoint } from './fixtures/tiny-checkpoint.js'
import { repositoryRoot } from './support/shared.js'
import { skip } from './support/skip.js'
import { temporaryFolder } from './support/tmp.js'
import { pairs } from './support/train.js'

const python = process.env.IMPLEX_ORACLE_PYTHON
const folder = temporaryFolder()
const KINDS = { 'trl-reward': 'explicit', 'trl-dpo': 'implicit' } as const
const CONDUCT = { device: 'cpu', cache: false } as const
const trl = suite('TRL')

function hasTrl(path: string): boolean {
  const find =
    'from importlib.util import find_spec; exit(None in map(find_spec, ["torch", "transformers", "trl", "datasets"]))'
  return spawnSync(path, ['-c', find]).status === 0
}

/** As TRL needs it: with a template, a padding token and, for the explicit kind, a head. */
async function start(family: 'llama' | 'gpt_neox', kind: 'explicit' | 'implicit'): Promise<string> {
  const path = join(folder, `${family}-${kind}`)
  // All dimensions are rotated: where none is, nothing depends on the bias of a key, and Adam makes whole steps of its rounding errors.
  await writeTinyCheckpoint(path, { family, rotaryFraction: 1 })
  const out = join(folder, `${family}-${kind}-start`)
  const { model } = await train(path, pairs(8, 3), {
    ...{ kind, out, learningRate: 1e-3, epochs: 1, batchPairs: 4 },
    ...CONDUCT,
  })
  return model!
}

trl('each recipe, as it is, with weight decay and with a length that rows exceed', async () => {
  if (python === undefined || !hasTrl(python))
    return skip('IMPLEX_ORACLE_PYTHON names no Python with torch, transformers, trl and datasets')
  const short = pairs(8)
  // One prompt that leaves no room for a response, and one response that goes over the end.
  const long = short.map((row, i) =>
    i === 2 ? { ...row, prompt: 'water '.repeat(90) } : i === 5 ? { ...row, chosen: 'find '.repeat(90) } : row,
  )
  const request: unknown[] = []
  for (const family of ['llama', 'gpt_neox'] as const) {
    for (const recipe of ['trl-reward', 'trl-dpo'] as const) {
      const model = await start(family, KINDS[recipe])
      const cases: [string, typeof short, Partial<TrainOptions>, object][] = [
        ['as it is', short, {}, {}],
        ['weight decay', short, { weightDecay: 0.5 }, { weight_decay: 0.5 }],
        ['at most 80 tokens', long, { maxLength: 80 }, { max_length: 80 }],
      ]
      for (const [what, rows, options, settings] of cases) {
        const name = `${recipe}, ${family}, ${what}`
        const steps: TrainStep[] = []
        const { model: trained, summary } = await train(model, rows, {
          ...{ kind: KINDS[recipe], recipe, out: join(folder, name), onStep: (step: TrainStep) => steps.push(step) },
          ...CONDUCT,
          ...options,
        })
        assert.is(steps.length, 3)
        const { pairs: count, skipped, truncated } = summary!
        const expected = rows === short ? [8, 0, 0] : recipe === 'trl-reward' ? [6, 2, 0] : [7, 1, 1]
        assert.equal([count, skipped, truncated], expected, name)
        request.push({ name, recipe, model, settings, rows, pairs: count, trained, steps })
      }
    }
  }
  writeFileSync(join(folder, 'request.json'), JSON.stringify(request))
  const script = join(repositoryRoot, 'test', 'oracle', 'check_trl.py')
  const { status, stdout, stderr } = spawnSync(python, [script, join(folder, 'request.json')], { encoding: 'utf8' })
  if (process.env.IMPLEX_VERBOSE !== undefined) console.log(stdout)
  assert.is(status, 0, `${stdout}${stderr.slice(-3000)}`)
  assert.is(stdout.split('\n').filter((line) => line.includes('largest difference')).length, request.length)
})
trl.run()
