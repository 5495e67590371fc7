/** The main job of `npm start`, without the build: what it prints fits 80 columns and says what was measured; the page lies beside. */
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { meaning, startExperiment } from '../examples/start.js'
import type { Comparison, ExperimentResult } from '../lab/experiments/result.js'
import { repositoryRoot } from './support/shared.js'
import { temporaryFolder } from './support/tmp.js'

const start = suite('npm start')
const out = join(temporaryFolder(), 'start')

async function output(): Promise<string> {
  const pieces: string[] = []
  const done = await startExperiment({ out, print: (text) => pieces.push(text), progress: () => {}, seeds: [0] })
  assert.is(done, true)
  return pieces.join('\n')
}

start('runs the experiment, prints the table, makes the page; a second time it shows the same', async () => {
  const text = await output()
  for (const line of text.split('\n')) assert.ok(line.length <= 80 || line.startsWith('The page: '), line)
  for (const part of ['Training words', 'Unseen words', 'explicit', 'implicit', 'generative', 'report.html'])
    assert.ok(text.includes(part), `${JSON.stringify(part)} is not in\n${text}`)
  const { members } = JSON.parse(readFileSync(join(out, 'results.json'), 'utf8')) as ExperimentResult
  assert.is(members.length, 3)
  for (const { kind, evaluation } of members)
    assert.is(evaluation.test!.accuracy, 1, `${kind} learns the training words`)
  assert.ok(existsSync(join(out, 'report.html')))
  const again = await output()
  const table = (whole: string) =>
    whole.slice(whole.indexOf('Pairs ranked correctly with training words'), whole.indexOf('The page'))
  assert.is(table(again), table(text))
})

start('what the table means depends on what is in it', () => {
  const result = (explicit: number, implicit: number, original = 1, width = 0) => ({
    comparison: (['explicit', 'implicit'] as const).flatMap((kind) =>
      (['original', 'paraphrase'] as const).map((shift): Comparison => {
        const mean = shift === 'original' ? original : kind === 'explicit' ? explicit : implicit
        return { kind, shift, statistic: 'accuracy', mean, low: mean - width, high: mean + width, seeds: [mean] }
      }),
    ),
  })
  const said = (...numbers: Parameters<typeof result>) => meaning(result(...numbers)).replaceAll('\n', ' ')
  assert.match(said(1, 0), /explicit models rank more pairs correctly/)
  assert.match(said(0.6, 0.5, 1, 0.2), /intervals overlap/)
  assert.match(said(0.3, 0.5), /the opposite/)
  assert.match(said(1, 0, 0.6), /says little/)
})

start('the pairs to train on in the README are 24, with an id each', () => {
  const lines = readFileSync(join(repositoryRoot, 'examples', 'pairs.jsonl'), 'utf8')
    .trimEnd()
    .split('\n')
  const rows = lines.map((line) => JSON.parse(line) as Record<string, string>)
  assert.is(rows.length, 24)
  assert.is(new Set(rows.map(({ id }) => id)).size, 24)
  for (const row of rows) assert.equal(Object.keys(row), ['id', 'prompt', 'chosen', 'rejected'])
})

start.run()
