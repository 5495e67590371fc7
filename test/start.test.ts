/** The main job of `npm start`, without the build: runs on a bare machine, fits 80 columns, and says the same each time. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { scoreExample } from '../examples/start.js'
import { writeTinyModels } from '../examples/tiny-model.js'
import { RewardModel } from '../lib/reward-model.js'
import { repositoryRoot } from './support/shared.js'
import { temporaryFolder } from './support/tmp.js'

const start = suite('npm start')

async function output(): Promise<string> {
  const pieces: string[] = []
  await scoreExample((text) => pieces.push(text))
  return pieces.join('\n')
}

start('prints rewards of every kind in 80 columns, the same twice but for the speed', async () => {
  const text = await output()
  for (const line of text.split('\n')) assert.ok(line.length <= 80, line)
  for (const part of ['implicit reward', 'explicit reward', 'accuracy', 'What is the capital', 'implex doctor']) {
    assert.ok(text.includes(part), `${JSON.stringify(part)} is not in\n${text}`)
  }
  const withoutSpeeds = (whole: string) => whole.replaceAll(/( [-+]\d\.\d{5}) +[\d,]+ +[\d,]+$/gm, '$1')
  assert.is.not(withoutSpeeds(text), text)
  assert.is(withoutSpeeds(await output()), withoutSpeeds(text))
})

start('the tiny model is the same each time, and serves as every kind', async () => {
  const [first, second] = [temporaryFolder(), temporaryFolder()]
  const { policy, reference } = await writeTinyModels(first)
  await writeTinyModels(second)
  for (const model of ['policy', 'reference']) {
    for (const file of ['model.safetensors', 'config.json', 'tokenizer.json']) {
      assert.ok(readFileSync(join(first, model, file)).equals(readFileSync(join(second, model, file))), file)
    }
  }
  const row = { prompt: 'Is 水 water?', responses: ['Yes', 'No', '🙂'] }
  for (const kind of ['explicit', 'implicit', 'generative'] as const) {
    using model = await RewardModel.open(policy, { kind, device: 'cpu', ...(kind === 'implicit' ? { reference } : {}) })
    const { rewards, rows } = await model.score([row])
    assert.is(model.templateSource, 'checkpoint')
    assert.is(new Set(rewards[0]).size, 3, kind)
    assert.ok(rewards[0]?.every(Number.isFinite))
    if (kind === 'implicit') assert.equal(rows[0]?.tokens, [2, 2, 5]) // "Yes", "No", four bytes; each with the end marker
  }
})

start('the pairs are 24, with an id each', () => {
  const lines = readFileSync(join(repositoryRoot, 'examples', 'pairs.jsonl'), 'utf8')
    .trimEnd()
    .split('\n')
  const rows = lines.map((line) => JSON.parse(line) as Record<string, string>)
  assert.is(rows.length, 24)
  assert.is(new Set(rows.map(({ id }) => id)).size, 24)
  for (const row of rows) assert.equal(Object.keys(row), ['id', 'prompt', 'chosen', 'rejected'])
})

start.run()
