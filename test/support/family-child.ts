/** Prints, for every tiny family and dtype, the bits of some log-probabilities and of a gradient, as JSON: run with other thread counts. */
import { createHash } from 'node:crypto'
import { openModel, openTrainer } from '../../lib/native/handles.js'
import { TINY_FAMILIES } from '../fixtures/tiny-checkpoint.js'
import { bits, randomBatch, tinySpec } from './engine.js'
import { gradientsOf, pairBatch, randomPairs, tensorBits, trainOptions } from './trainer.js'

export type FamilyBits = Record<string, string>

export async function familyBits(): Promise<FamilyBits> {
  const found: FamilyBits = {}
  for (const family of TINY_FAMILIES) {
    const spec = await tinySpec({ family })
    for (const dtype of ['f32', 'bf16'] as const) {
      const model = await openModel(spec, { device: 'cpu', dtype })
      const scores = bits(await model.score(randomBatch(7, 33)))
      model.dispose()
      const trainer = await openTrainer(spec, { device: 'cpu', dtype }, trainOptions({ objective: 'implicit' }))
      await trainer.accumulate(pairBatch(randomPairs(4, 9, 30), 'implicit'))
      const gradients = JSON.stringify(tensorBits(await gradientsOf(trainer)))
      trainer.dispose()
      found[`${family} ${dtype}`] = `${scores} ${createHash('sha256').update(gradients).digest('hex')}`
    }
  }
  return found
}

if (process.argv[1] === import.meta.filename) process.stdout.write(JSON.stringify(await familyBits()))
