/** A real pretrained model, stories260K, on sentences and on real preference data. */
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { readJsonl } from '../lib/data/jsonl.js'
import { PreferenceMetrics } from '../lib/metrics.js'
import { RewardModel } from '../lib/reward-model.js'
import { sharedPath } from './support/shared.js'
import { skip } from './support/skip.js'

const path = sharedPath('models/stories260K')
const stories = suite('stories260K')

stories('a fluent sentence is likelier than its words shuffled', async () => {
  if (path === undefined) return skip('../shared/models/stories260K is absent')
  using model = await RewardModel.open(path, { kind: 'implicit', template: 'none', device: 'cpu' })
  const fluent = [
    [
      'Once upon a time',
      ', there was a little girl named Lily. She loved to play outside in the park.',
      ' park in time little, outside a play named loved She to Lily girl. the was there.',
    ],
    [
      'One day',
      ', a boy named Tim went to the park with his mom. He was very happy.',
      ' very mom his Tim. a with was named went park happy to the boy, He.',
    ],
    [
      'The dog',
      ' was very happy. He ran to the big tree and barked.',
      ' tree big. very He happy barked was ran the and to.',
    ],
  ]
  const { rewards } = await model.score(
    fluent.map(([prompt, chosen, rejected]) => ({ prompt, chosen: chosen!, rejected: rejected! })),
  )
  for (const [chosen, rejected] of rewards) assert.ok(chosen! > rejected! + 0.1, `${chosen} against ${rejected}`)
})

stories('real preference data: every row is scored, left out or named', async () => {
  const data = sharedPath('data/paper/ultrafeedback.test.jsonl')
  if (path === undefined || data === undefined) return skip('../shared is absent')
  using model = await RewardModel.open(path, { kind: 'implicit', device: 'cpu', onLong: 'truncate-prompt' })
  assert.is(model.templateSource, 'default')
  assert.is(model.contextLength, 512)
  const metrics = new PreferenceMetrics()
  const perToken: number[] = []
  const seen = { rows: 0, truncated: 0, errors: 0 }
  for await (const row of model.scoreStream(readJsonl(data), { onError: 'skip' })) {
    seen.rows++
    if (row.truncated) {
      seen.truncated++
      assert.is(row.promptTokens + Math.max(...row.tokens), 512)
    }
    if (row.error !== undefined) {
      seen.errors++
      assert.is(row.error.code, 'ERR_ROW_TOO_LONG')
      continue
    }
    for (const [k, logprob] of row.logprobs!.entries()) perToken.push(logprob / row.tokens[k]!)
    metrics.add(...(row.rewards as [number, number]))
  }
  assert.is(seen.rows, 200)
  // Instructions are far from children's stories, and some rows are in scripts that the model never saw.
  perToken.sort((a, b) => a - b)
  const median = perToken[perToken.length >> 1]!
  assert.ok(median > -6 && median < -1.5, `${median} per token`)
  assert.ok(perToken.at(-1)! < -0.5 && perToken[0]! > -40)
  assert.is(metrics.pairs + seen.errors, 200)
  assert.ok(seen.truncated > 0 && metrics.pairs > 50)
})
stories.run()
