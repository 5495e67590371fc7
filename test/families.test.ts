/**
 * Every family in the engine, on tiny checkpoints: no bit depends on the batch, and every setting of its config counts: switched off, it gives
 * other numbers by far more than the bound of the golden tests, so that those fail where one is ignored.
 */
import { execFile } from 'node:child_process'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { openModel } from '../lib/native/handles.js'
import type { LayerSpec, ModelSpec, RopeSpec } from '../lib/native/spec.js'
import type { NativeBatch } from '../lib/native/types.js'
import { TINY_FAMILIES, type TinyCheckpointOptions } from './fixtures/tiny-checkpoint.js'
import { bits, randomBatch, tinySpec } from './support/engine.js'
import { type FamilyBits, familyBits } from './support/family-child.js'

/** Log-probabilities of sequences longer than every window. */
const BATCH = randomBatch(6, 40, { tokenLogprobs: true })

async function logprobs(spec: ModelSpec, batch: NativeBatch = BATCH, dtype: 'f32' | 'bf16' = 'f32') {
  const model = await openModel(spec, { device: 'cpu', dtype })
  const scores = await model.score(batch)
  model.dispose()
  return scores
}

const independent = suite('bits')

/** Sequences `chosen` of BATCH, in this order; with `prompt`, each in two segments. */
function part(chosen: number[], prompt = 0): NativeBatch {
  const length = 40
  const tokens = Int32Array.from(chosen.flatMap((i) => [...BATCH.tokens.subarray(i * length, (i + 1) * length)]))
  const segments = chosen.flatMap((_, i) =>
    prompt === 0 ? [i * length, length, -1] : [i * length, prompt, -1, i * length + prompt, length - prompt, 2 * i],
  )
  const scored = Int32Array.from(chosen, (_, i) => (prompt === 0 ? i : 2 * i + 1))
  return { ...BATCH, tokens, segments: Int32Array.from(segments), scored }
}

for (const family of TINY_FAMILIES) {
  for (const dtype of ['f32', 'bf16'] as const) {
    independent(`${family}, ${dtype}: alone, in another order, in two segments`, async () => {
      const spec = await tinySpec({ family })
      const model = await openModel(spec, { device: 'cpu', dtype })
      const all = await model.score(BATCH)
      const order = [4, 0, 5, 2, 3, 1]
      const other = await model.score(part(order))
      assert.equal(
        [...other.values],
        order.map((i) => all.values[i]),
      )
      for (const i of [0, 3, 5]) {
        const alone = await model.score(part([i]))
        assert.is(alone.values[0], all.values[i])
        const split = await model.score(part([i], 13))
        assert.equal([...split.tokenLogprobs!], [...alone.tokenLogprobs!].slice(13))
      }
      const parts = await model.score(part([0, 1, 2, 3, 4, 5], 13))
      for (const i of [1, 4]) assert.is(parts.values[i], (await model.score(part([i], 13))).values[0])
      model.dispose()
    })
  }
}

independent('do not depend on the number of threads', async () => {
  const here = await familyBits()
  const script = join(import.meta.dirname, 'support', 'family-child.js')
  for (const threads of ['1', '3']) {
    const env = { ...process.env, IMPLEX_THREADS: threads }
    const { stdout } = await promisify(execFile)(process.execPath, [script], { env, maxBuffer: 1 << 26 })
    assert.equal(JSON.parse(stdout) as FamilyBits, here, `${threads} threads`)
  }
})

independent.run()

const settings = suite('settings that are switched off')

const layers = (change: Partial<LayerSpec>) => (spec: ModelSpec) => ({
  ...spec,
  layers: spec.layers.map((layer) => ({ ...layer, ...change })),
})
const model = (change: Partial<ModelSpec>) => (spec: ModelSpec) => ({ ...spec, ...change })
const ropes = (change: (rope: RopeSpec) => Partial<RopeSpec>) => (spec: ModelSpec) => ({
  ...spec,
  ropes: spec.ropes.map((rope) => ({ ...rope, ...change(rope) })),
})
const experts = (change: Partial<LayerSpec['experts']>) => (spec: ModelSpec) => ({
  ...spec,
  layers: spec.layers.map((layer) =>
    layer.experts === undefined ? layer : { ...layer, experts: { ...layer.experts, ...change } },
  ),
})

const OFF: [name: string, checkpoint: TinyCheckpointOptions, off: (spec: ModelSpec) => ModelSpec][] = [
  ...(['mistral', 'ministral', 'phi3', 'gemma2', 'gemma3_text', 'olmo3', 'exaone4'] as const).map(
    (family): (typeof OFF)[number] => [`the window of ${family}`, { family }, layers({ window: 0 })],
  ),
  ['one position of a window', { family: 'mistral' }, layers({ window: 8 })],
  ['the scale of the attention in gemma2', { family: 'gemma2' }, layers({ attentionScale: 16 ** -0.5 })],
  ['the soft cap of the attention', { family: 'gemma2' }, layers({ attentionSoftCap: 0 })],
  ['the soft cap of the logits', { family: 'gemma2' }, model({ logitSoftCap: 0 })],
  ['the scale of the embedding in gemma', { family: 'gemma' }, model({ embeddingScale: 1 })],
  ['the offset of the norms', { family: 'gemma' }, model({ normOffset: 0 })],
  ['the scale of the embedding in granite', { family: 'granite' }, model({ embeddingScale: 1 })],
  ['the scale of the attention in granite', { family: 'granite' }, layers({ attentionScale: 8 ** -0.5 })],
  ['the scale of the residual', { family: 'granite' }, model({ residualScale: 1 })],
  ['the scale of the logits', { family: 'granite' }, model({ logitScale: 1 })],
  ['layers without rotation', { family: 'smollm3' }, layers({ rope: 0 })],
  ['a table of their own for layers with a window', { family: 'gemma3_text' }, layers({ rope: 0 })],
  ['the scale of yarn', { family: 'ministral3' }, ropes(() => ({ scale: 1 }))],
  [
    'a part of each head',
    { family: 'phi3' },
    ropes(({ rotaryDim, inverseFrequencies }) => ({
      rotaryDim: 2 * rotaryDim,
      inverseFrequencies: Float64Array.of(...inverseFrequencies, ...inverseFrequencies),
    })),
  ],
  ['the experts per token', { family: 'mixtral' }, experts({ perToken: 1 })],
  ['the share of each expert', { family: 'qwen3_moe' }, experts({ normalize: false })],
]

for (const [name, checkpoint, off] of OFF) {
  settings(name, async () => {
    const spec = await tinySpec(checkpoint)
    const [on, without] = [await logprobs(spec), await logprobs(off(structuredClone(spec)))]
    assert.not.equal(bits(on), bits(without))
    const difference = Math.max(...on.values.map((value, i) => Math.abs(value / without.values[i]! - 1)))
    assert.ok(difference > 1e-4, `the log-probabilities differ by ${difference}`)
  })
}

settings('a window that no sequence fills changes no bit', async () => {
  const spec = await tinySpec({ family: 'mistral' })
  const [wide, none] = [layers({ window: 40 }), layers({ window: 0 })]
  assert.is(bits(await logprobs(wide(spec))), bits(await logprobs(none(spec))))
})

settings.run()
