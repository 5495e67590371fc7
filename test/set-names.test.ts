/** Data sets named like members that every object has are in all results; what a killed run left half written is gone afterwards. */
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { evaluate, RewardModel, train } from '../lib/index.js'
import { openCheckpoint } from '../lib/checkpoint/checkpoint.js'
import { temporaryName } from '../lib/core/atomic.js'
import { RunFolder } from '../lib/train/runs/run-folder.js'
import { writeTinyCheckpoint } from './fixtures/tiny-checkpoint.js'
import { implexHere } from './support/cli.js'
import { rejection } from './support/engine.js'
import { pairs, writeRows } from './support/train.js'
import { temporaryFolder } from './support/tmp.js'

const folder = temporaryFolder()
const at = (...names: string[]) => join(folder, ...names)
await writeTinyCheckpoint(at('model'), { head: 'extra' })
const ROWS = pairs(6)
const FILE = writeRows(at('pairs.jsonl'), ROWS)
const NAMES = ['__proto__', 'constructor', 'toString', 'hasOwnProperty', 'valueOf']

const names = suite('names of data sets')

names('evaluate() has a result for each', async () => {
  using model = await RewardModel.open(at('model'), { kind: 'explicit', device: 'cpu' })
  const seen = new Set<string>()
  const data = Object.fromEntries(NAMES.map((name) => [name, ROWS]))
  const report = await evaluate(model, data, { resamples: 0, onRow: (name) => void seen.add(name) })
  assert.equal(Object.keys(report), NAMES)
  assert.equal([...seen], NAMES)
  for (const one of Object.values(report)) assert.is(one.pairs, 6)
})

names('implex eval prints and writes each', async () => {
  const out = at('evaluation.json')
  const sets = NAMES.map((name) => `${name}=${FILE}`)
  const common = ['eval', '--model', at('model'), '--kind', 'explicit', '--device', 'cpu', '--resamples', '10']
  const { status, stdout, stderr } = await implexHere([...common, '--data', ...sets, '--out', out])
  assert.is(status, 0, stderr)
  for (const name of NAMES) assert.ok(stdout.includes(name), name)
  assert.equal(Object.keys(JSON.parse(readFileSync(out, 'utf8')).sets), NAMES)
})

names('train() evaluates each, and its summary has them, resumed too', async () => {
  const evaluation = Object.fromEntries(NAMES.map((name) => [name, ROWS]))
  const options = { kind: 'explicit', out: at('run'), device: 'cpu', epochs: 1, batchPairs: 6, evaluation } as const
  const seen: string[] = []
  const { summary } = await train(at('model'), FILE, { ...options, onEvaluation: ({ name }) => void seen.push(name) })
  assert.equal([...new Set(seen)], NAMES)
  assert.equal(Object.keys(summary!.evaluation), NAMES)
  for (const [, one] of Object.entries(summary!.evaluation)) assert.is(one.pairs, 6)

  const left = [
    temporaryName(at('run', 'x')),
    temporaryName(at('run', 'data', 'y')),
    temporaryName(at('run', 'model', 'z')),
  ]
  mkdirSync(at('run', 'data'))
  for (const path of left) writeFileSync(path, '')
  writeFileSync(at('run', '.own.tmp'), '')
  const again = await train(at('model'), FILE, { ...options, resume: true })
  assert.equal(Object.keys(again.summary!.evaluation), NAMES)
  for (const path of left) assert.not.ok(existsSync(path), path)
  assert.ok(existsSync(at('run', '.own.tmp')), 'what is not of implex stays')
})

names('a folder inside a run is cleaned too', async () => {
  await using run = await RunFolder.open(at('experiment2'), false, () => {})
  mkdirSync(at('experiment2', 'member', 'rewards'), { recursive: true })
  const half = temporaryName(at('experiment2', 'member', 'rewards', 'a.jsonl'))
  writeFileSync(half, '{')
  await run.clean()
  assert.not.ok(existsSync(half))
})

names('a head of an odd size is blamed on the key that gives it', async () => {
  for (const [config, key] of [
    [{ head_dim: 7 }, 'head_dim'],
    [{ head_dim: undefined, hidden_size: 36, num_attention_heads: 4, num_key_value_heads: 2 }, 'hidden_size'],
  ] as const) {
    const path = at(`odd-${key}`)
    await writeTinyCheckpoint(path, { config })
    const error = await rejection(openCheckpoint(path))
    assert.is(error.code, 'ERR_CONFIG_INVALID')
    assert.match(error.message, new RegExp(`"${key}"`))
    assert.not.match(error.message, /partial_rotary_factor/)
  }
})

names.run()
