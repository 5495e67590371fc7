/** Opening a checkpoint: rows for every token, the weights of a use, and what it cannot do without. */
import { rmSync } from 'node:fs'
import { join } from 'node:path'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { openCheckpoint } from '../lib/checkpoint/checkpoint.js'
import { limitsOf, openText, openToScore, weightsFor, widened } from '../lib/models/open.js'
import { writeTinyCheckpoint } from './fixtures/tiny-checkpoint.js'
import { CPU, failure } from './support/engine.js'
import { temporaryFolder } from './support/tmp.js'

const folder = temporaryFolder()
const at = (name: string) => join(folder, name)
await writeTinyCheckpoint(at('model'), { head: 'extra' })
await writeTinyCheckpoint(at('short'), { maxPositions: 64, vocabSize: 520 })
await writeTinyCheckpoint(at('classifier'), { head: 'instead' })

const open = suite('open')

open('rows for added tokens are a matter of what is open: the files are not asked again', async () => {
  await writeTinyCheckpoint(at('gone'))
  const checkpoint = await openCheckpoint(at('gone'))
  rmSync(at('gone'), { recursive: true })
  const rows = (added: number, vocabularySize: number) =>
    widened(checkpoint, { addedTokens: Array(added).fill('<x>'), vocabularySize }).spec.addedTokens
  assert.is(rows(2, 514), 2)
  assert.is(rows(2, 513), 1) // the embedding has a row for one of them
  assert.is(rows(2, 400), 0)
  assert.is(rows(0, 600), 0) // a tokenizer beyond the model: rows tell, not the opening
  assert.is(checkpoint.spec.addedTokens, 0)
})

open('a text that adds tokens gives each of the models its rows', async () => {
  const text = { path: at('model'), template: 'default' }
  const { checkpoint, reference, pool } = await openText(text, 1, { reference: at('short') })
  pool.close()
  const { vocabularySize, addedTokens } = pool.description
  assert.ok(addedTokens.length > 0)
  assert.is(checkpoint.spec.addedTokens, Math.max(0, vocabularySize - 512))
  assert.is(reference!.spec.addedTokens, Math.max(0, vocabularySize - 520))
  const limits = limitsOf(checkpoint, reference)
  assert.is(limits.contextLength, 64)
  assert.is(limits.vocabularySize, 512 + checkpoint.spec.addedTokens)
  assert.is(limitsOf(checkpoint).contextLength, 256)
})

open('each use takes the weights that it reads', async () => {
  const { spec } = await openCheckpoint(at('model'))
  const roles = (...args: [Parameters<typeof weightsFor>[1], boolean?]) => {
    const taken = new Set(weightsFor(spec, ...args).weights.map(({ role }) => role))
    assert.ok(taken.has('embedding') && taken.has('final_norm'))
    return ['unembedding', 'head'].filter((role) => taken.has(role))
  }
  assert.equal(roles('explicit'), ['head'])
  assert.equal(roles('explicit', true), [])
  assert.equal(roles('hidden'), [])
  for (const use of ['implicit', 'generative', 'sft'] as const) assert.equal(roles(use), ['unembedding'])
})

open('who reads log-probabilities needs an unembedding', async () => {
  const checkpoint = await openCheckpoint(at('classifier'))
  const error = await failure(() => openToScore(checkpoint, { use: 'implicit', who: 'a reference' }, CPU))
  assert.is(error.code, 'ERR_TENSOR_MISSING')
  assert.match(error.message, `${at('classifier')}: a reference needs a language model's unembedding`)
  for (const use of ['explicit', 'hidden'] as const) {
    using model = (await openToScore(checkpoint, { use, who: 'nobody' }, CPU)).model
    assert.is(model.hasHead, use === 'explicit')
  }
})
open.run()
