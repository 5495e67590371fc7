/**
 * The paper's headline on a real pretrained model of 260 thousand parameters: both kinds learn the persona, and only the explicit one still
 * knows it when the answer is put in unseen words. How well depends on the random head. IMPLEX_PERSONA=full trains three of them at two
 * learning rates and asks of each what the paper claims, better than chance.
 */
import { join } from 'node:path'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { personaData } from '../lab/experiments/persona/data.js'
import { train } from '../lib/train/train.js'
import { sharedPath } from './support/shared.js'
import { skip } from './support/skip.js'
import { temporaryFolder } from './support/tmp.js'

const model = sharedPath('models/stories260K')
const file = sharedPath('data/persona/agreeableness.jsonl')
const full = process.env.IMPLEX_PERSONA === 'full'
const folder = temporaryFolder()
const story = suite('persona')

async function accuracies(kind: 'explicit' | 'implicit', learningRate: number, seed: number) {
  const options = { file: file!, trainPairs: 80, testPairs: 40, seed: 875 }
  const { train: pairs, ...evaluation } = await personaData(options)
  const { summary } = await train(model!, pairs, {
    kind,
    out: join(folder, `${kind}-${learningRate}-${seed}`),
    epochs: 20,
    evaluateEpochs: 20,
    learningRate,
    seed,
    device: 'cpu',
    cache: false,
    checkpointSteps: 1000,
    evaluation: { train: pairs, ...evaluation },
  })
  assert.is(summary!.template, 'default')
  const of = (name: string) => summary!.evaluation[name]!.accuracy as number
  const result = { train: of('train'), test: of('test'), trainUnseen: of('trainUnseen'), testUnseen: of('testUnseen') }
  if (full) console.log(kind, learningRate, seed, JSON.stringify(result), `${summary!.seconds.toFixed(1)} s`)
  return result
}

for (const learningRate of full ? [1e-4, 1e-3] : [1e-3]) {
  for (const seed of full ? [0, 1, 2] : [1]) {
    story(
      `explicit generalizes to unseen words, implicit does not: learning rate ${learningRate}, seed ${seed}`,
      async () => {
        if (model === undefined || file === undefined) return skip('../shared is absent')
        const explicit = await accuracies('explicit', learningRate, seed)
        const implicit = await accuracies('implicit', learningRate, seed)
        for (const { train, test } of [explicit, implicit]) {
          assert.is(train, 1)
          assert.is(test, 1)
        }
        for (const accuracy of [explicit.trainUnseen, explicit.testUnseen])
          assert.ok(seed === 1 ? accuracy >= 0.75 : accuracy > 0.5, String(accuracy))
        for (const accuracy of [implicit.trainUnseen, implicit.testUnseen]) assert.is(accuracy, 0)
      },
    )
  }
}
story.run()
