/** Saving a model: the bytes of one that is gathered first, one tensor in memory at a time, and an event loop that goes on. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { monitorEventLoopDelay } from 'node:perf_hooks'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { openCheckpoint } from '../lib/checkpoint/checkpoint.js'
import { readWeight } from '../lib/checkpoint/weights.js'
import { type StreamedTensor, writeCheckpoint, writeSafetensors } from '../lib/checkpoint/write.js'
import { EncodePool } from '../lib/data/encode-pool.js'
import { saveModel } from '../lib/train/runs/save-model.js'
import { tinyCheckpoint, writeTinyCheckpoint } from './fixtures/tiny-checkpoint.js'
import { rejection, sleep } from './support/engine.js'
import { temporaryFolder } from './support/tmp.js'

const folder = temporaryFolder()
const at = (name: string) => join(folder, name)

/** Opens a checkpoint to be saved; its weights stand for a trainer's. */
async function open(path: string) {
  const checkpoint = await openCheckpoint(path)
  const pool = await EncodePool.start({ path, template: 'none' })
  pool.close()
  const sources = new Map(checkpoint.spec.weights.map((weight) => [weight.role, weight]))
  const trainer = (trained: boolean) => ({
    parameters: trained ? [...sources].map(([role, { shape }]) => ({ role, shape })) : [],
    parameter: async (role: string) => readWeight(sources.get(role)!),
  })
  const save = (out: string, { trained = false, dtype = 'f32' as 'f32' | 'bf16' } = {}) =>
    saveModel(out, trainer(trained) as never, checkpoint, pool.description, { explicit: false, dtype })
  return { checkpoint, sources, save }
}

const saving = suite('saving a model')

saving('a tensor made in its turn is written as one given at once, each alone in memory', async () => {
  const { tensors } = tinyCheckpoint()
  let inMemory = 0
  let most = 0
  const streamed = tensors.map(({ data, ...rest }): StreamedTensor => {
    const made = async () => {
      most = Math.max(most, ++inMemory)
      await sleep(1)
      inMemory--
      return data
    }
    return { ...rest, data: made }
  })
  let seen = 0
  const checkValues = (_: string, values: Float32Array) => {
    seen += values.length
  }
  for (const dtype of ['f32', 'f16', 'bf16'] as const) {
    await writeSafetensors(at('at-once'), tensors, { dtype })
    seen = 0
    await writeSafetensors(at('in-turn'), streamed, { dtype, checkValues })
    assert.ok(readFileSync(at('at-once')).equals(readFileSync(at('in-turn'))), dtype)
    assert.is(
      seen,
      tensors.reduce((sum, { data }) => sum + data.length, 0),
    )
  }
  assert.is(most, 1)
  const [first] = streamed as [StreamedTensor]
  const wrong = { ...first, shape: [1, 2, 3] }
  assert.match((await rejection(writeSafetensors(at('wrong'), [wrong]))).message, /of shape \[1, 2, 3\] has/)
})

for (const family of ['llama', 'gpt_neox'] as const) {
  saving(`what was loaded is saved, trained or not: ${family}`, async () => {
    await writeTinyCheckpoint(at(family), { family })
    const { checkpoint, sources, save } = await open(at(family))
    for (const trained of family === 'llama' ? [false, true] : [false]) {
      await save(at('saved'), { trained })
      const { spec } = await openCheckpoint(at('saved'))
      assert.is(spec.weights.length, checkpoint.spec.weights.length)
      for (const weight of spec.weights)
        assert.equal(await readWeight(weight), await readWeight(sources.get(weight.role)!), weight.role)
    }
  })
}

saving('a value that is not finite is named wherever it is, and leaves no folder', async () => {
  await writeTinyCheckpoint(at('tiny'))
  const { checkpoint, sources } = await open(at('tiny'))
  const pool = await EncodePool.start({ path: at('tiny') })
  pool.close()
  for (const { role, tensor } of checkpoint.spec.weights) {
    const parameter = async () => {
      const values = await readWeight(sources.get(role)!)
      return values.fill(Number.POSITIVE_INFINITY, values.length - 1)
    }
    const trainer = { parameters: [{ role }], parameter } as never
    const options = { explicit: false, dtype: 'f32' } as const
    const error = await rejection(saveModel(at('bad'), trainer, checkpoint, pool.description, options))
    assert.is(error.code, 'ERR_NOT_FINITE')
    assert.match(error.message, new RegExp(`tensor "${tensor}" ended up with Infinity at element \\d+`))
  }
  assert.not.ok((await rejection(openCheckpoint(at('bad')))).message.includes('Infinity'))
})

saving('the event loop goes on while a model of 20M parameters is saved', async () => {
  const sizes = { hiddenSize: 512, heads: 8, layers: 2, vocabSize: 16384, intermediateSize: 1536 }
  const content = tinyCheckpoint({ ...sizes, vocabSize: 512 })
  const grow = <T extends { shape: number[]; data: Float32Array }>(tensor: T): T =>
    tensor.shape[0] !== 512 || !/embed|lm_head/.test((tensor as unknown as { name: string }).name)
      ? tensor
      : { ...tensor, shape: [sizes.vocabSize, 512], data: new Float32Array(sizes.vocabSize * 512).fill(0.25) }
  const config = { ...content.config, vocab_size: sizes.vocabSize }
  await writeCheckpoint(at('large'), { ...content, config, tensors: content.tensors.map(grow) })
  const { checkpoint, save } = await open(at('large'))
  const parameters = checkpoint.spec.weights.reduce((sum, { shape }) => sum + shape.reduce((a, b) => a * b, 1), 0)
  assert.ok(parameters > 20e6, `${parameters}`)
  for (const dtype of ['f32', 'bf16'] as const) {
    // Another process on the machine can only lengthen a delay: the best of a few tries is the library's own.
    let best = Number.POSITIVE_INFINITY
    for (let attempt = 0; attempt < 6 && best >= 100; attempt++) {
      const delay = monitorEventLoopDelay({ resolution: 5 })
      delay.enable()
      await sleep(20)
      delay.reset()
      await save(at('large-saved'), { dtype })
      await sleep(20)
      delay.disable()
      best = Math.min(best, delay.max / 1e6)
    }
    assert.ok(best < 100, `${dtype}: the event loop was held up for ${best} ms`)
  }
})

saving.run()
