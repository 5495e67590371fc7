/** The native trainer's steps against PyTorch's update rules written out here in float64, and freezing. */
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import type { NativeTrainOptions } from '../lib/native/types.js'
import { openModel, openTrainer } from '../lib/native/handles.js'
import { bits, CPU, randomBatch, tinySpec } from './support/engine.js'
import {
  gradientsOf,
  norm,
  pairBatch,
  randomHead,
  randomPairs,
  specWith,
  tensorBits,
  trainOptions,
  valuesOf,
} from './support/trainer.js'

const spec = await tinySpec()
const STEPS = 4
type Optimizer = NativeTrainOptions['optimizer']

/** One element's update: torch.optim.AdamW, RMSprop and SGD (dampening 0, no Nesterov), as their documentation states them. */
function update(
  o: Optimizer,
  rate: number,
  step: number,
  state: { p: number; m: number; v: number },
  gradient: number,
) {
  let g = gradient
  if (o.kind === 'adamw') {
    state.p *= 1 - rate * o.weightDecay
    state.m = o.beta1 * state.m + (1 - o.beta1) * g
    state.v = o.beta2 * state.v + (1 - o.beta2) * g * g
    const root = Math.sqrt(state.v / (1 - o.beta2 ** step))
    state.p -= (rate * (state.m / (1 - o.beta1 ** step))) / (root + o.epsilon)
    return
  }
  g += o.weightDecay * state.p
  if (o.kind === 'rmsprop') {
    state.v = o.beta2 * state.v + (1 - o.beta2) * g * g
    g /= Math.sqrt(state.v) + o.epsilon
    state.m = o.momentum * state.m + g
  } else {
    state.m = step === 1 ? g : o.momentum * state.m + g
  }
  state.p -= rate * (o.momentum > 0 ? state.m : g)
}

const rules: [string, Partial<Optimizer>, { learningRate: number; maxNorm: number }][] = [
  ['adamw', {}, { learningRate: 1e-3, maxNorm: 0 }],
  [
    'adamw, weight decay, other betas',
    { weightDecay: 0.1, beta1: 0.8, beta2: 0.95, epsilon: 1e-6 },
    { learningRate: 2e-3, maxNorm: 0 },
  ],
  ['adamw, clipped', {}, { learningRate: 1e-3, maxNorm: 0.05 }],
  ['rmsprop', { kind: 'rmsprop', beta2: 0.99 }, { learningRate: 1e-4, maxNorm: 0 }],
  // Where decay all but cancels the gradient, f32 keeps few digits of the rest, and a small epsilon would make them large again.
  [
    'rmsprop, momentum, weight decay',
    { kind: 'rmsprop', beta2: 0.9, momentum: 0.5, weightDecay: 0.05, epsilon: 1e-4 },
    { learningRate: 1e-4, maxNorm: 0 },
  ],
  ['sgd', { kind: 'sgd' }, { learningRate: 0.1, maxNorm: 0 }],
  ['sgd, momentum, weight decay', { kind: 'sgd', momentum: 0.9, weightDecay: 0.01 }, { learningRate: 0.1, maxNorm: 0 }],
  ['sgd, clipped', { kind: 'sgd' }, { learningRate: 0.1, maxNorm: 0.1 }],
  ['sgd, clipped at more than the norm', { kind: 'sgd' }, { learningRate: 0.1, maxNorm: 1e6 }],
]

const optimizers = suite('optimizers')

for (const [name, change, step] of rules) {
  optimizers(name, async () => {
    const options = trainOptions({ objective: 'implicit', optimizer: change })
    const trainer = await openTrainer(spec, CPU, options)
    const start = await valuesOf(trainer)
    const states = new Map([...start].map(([role, values]) => [role, Array.from(values, (p) => ({ p, m: 0, v: 0 }))]))
    for (let i = 1; i <= STEPS; i++) {
      await trainer.accumulate(pairBatch(randomPairs(3, i), 'implicit'))
      const gradients = await gradientsOf(trainer)
      const size = norm([...gradients.values()].map(norm))
      const reported = await trainer.step(step)
      assert.ok(Math.abs(reported - size) <= 1e-6 * size, `norm ${reported}, expected ${size}`)
      const scale = step.maxNorm > 0 ? Math.min(1, step.maxNorm / (size + 1e-6)) : 1
      assert.ok(step.maxNorm === 0 || step.maxNorm > 1 || scale < 0.9, 'clipping has something to clip')
      const values = await valuesOf(trainer)
      for (const [role, gradient] of gradients) {
        const state = states.get(role)!
        const actual = values.get(role)!
        let error = 0
        let change = 0
        gradient.forEach((g, j) => {
          const one = state[j]!
          const before = one.p
          update(options.optimizer, step.learningRate, i, one, g * scale)
          // Beyond the rounding of the value itself to f32, at each step.
          error = Math.max(error, Math.abs(actual[j]! - one.p) - i * 1.2e-7 * Math.abs(one.p))
          change = Math.max(change, Math.abs(one.p - before))
        })
        assert.ok(change > 0, `${role} moves`)
        assert.ok(error <= 1e-5 * change, `${role}, step ${i}: off by ${error} of ${change}`)
      }
    }
    trainer.dispose()
  })
}

optimizers('gradients are zero after a step', async () => {
  const trainer = await openTrainer(spec, CPU, trainOptions({ objective: 'sft' }))
  await trainer.accumulate(pairBatch(randomPairs(2), 'sft'))
  await trainer.step({ learningRate: 1e-3, maxNorm: 0 })
  for (const gradient of (await gradientsOf(trainer)).values()) assert.ok(gradient.every((value) => value === 0))
  assert.is(await trainer.step({ learningRate: 0, maxNorm: 1 }), 0, 'and so is their norm')
  trainer.dispose()
})

optimizers.run()

const freezing = suite('freezing')
const PARTS = {
  embedding: (role: string) => role === 'embedding',
  unembedding: (role: string) => role === 'unembedding',
  norms: (role: string) => role.includes('norm'),
  head: (role: string) => role === 'head',
  blocks: (role: string) => role.startsWith('layers.') && !role.includes('norm'),
}

for (const family of ['llama', 'qwen3', 'gpt_neox'] as const) {
  freezing(`${family}: each part stays, the others move with the gradients that they had`, async () => {
    const spec = await tinySpec({ family })
    for (const objective of ['explicit', 'implicit'] as const) {
      // Centering gives a gradient to the final norm's bias too, which the differences of rewards do not have.
      const head = objective === 'explicit' ? { head: randomHead(32), centering: 0.1 } : {}
      const batch = pairBatch(randomPairs(4, 3), objective)
      const free = await openTrainer(spec, CPU, trainOptions({ objective, ...head }))
      await free.accumulate(batch)
      const expected = await gradientsOf(free)
      free.dispose()
      for (const [part, belongs] of Object.entries(PARTS)) {
        const trainer = await openTrainer(spec, CPU, trainOptions({ objective, ...head, frozen: { [part]: true } }))
        const roles = trainer.parameters.map(({ role }) => role)
        assert.equal(
          roles,
          [...expected.keys()].filter((role) => !belongs(role)),
          `all but ${part}`,
        )
        const before = await valuesOf(trainer)
        await trainer.accumulate(batch)
        const gradients = await gradientsOf(trainer)
        const rest = new Map([...expected].filter(([role]) => !belongs(role)))
        assert.is(tensorBits(gradients), tensorBits(rest), `${part}: the same bits`)
        await trainer.step({ learningRate: 1e-2, maxNorm: 0 })
        const after = await valuesOf(trainer)
        for (const [role, values] of after) assert.not.equal(values, before.get(role), `${role} moves`)

        // What was trained, put beside the checkpoint's own frozen part, must be the model that the trainer now computes with.
        const model = await openModel(specWith(spec, after), CPU)
        if (objective === 'explicit' && part === 'head') model.setHead(randomHead(32))
        const readout = objective === 'explicit' ? 'reward_last' : 'logprob'
        const request = randomBatch(4, 9, { readout })
        assert.is(bits(await trainer.score(request)), bits(await model.score(request)), `${objective}, ${part} frozen`)
        model.dispose()
        trainer.dispose()
      }
    }
  })
}

freezing('tied embeddings: either name freezes the one matrix', async () => {
  const spec = await tinySpec({ family: 'qwen2', tied: true })
  for (const part of ['embedding', 'unembedding']) {
    const trainer = await openTrainer(spec, CPU, trainOptions({ objective: 'implicit', frozen: { [part]: true } }))
    assert.not(trainer.parameters.some(({ role }) => role.endsWith('embedding')))
    await trainer.accumulate(pairBatch(randomPairs(4), 'implicit'))
    await trainer.step({ learningRate: 1e-2, maxNorm: 0 })
    const model = await openModel(specWith(spec, await valuesOf(trainer)), CPU)
    const request = randomBatch(4, 9)
    assert.is(bits(await trainer.score(request)), bits(await model.score(request)))
    model.dispose()
    trainer.dispose()
  }
})

freezing('everything but the head', async () => {
  const frozen = { embedding: true, unembedding: true, blocks: true, norms: true }
  const options = trainOptions({ head: randomHead(32), frozen, optimizer: { kind: 'sgd' } })
  const [trainer, model] = await Promise.all([openTrainer(spec, CPU, options), openModel(spec, CPU)])
  assert.equal(
    trainer.parameters.map(({ role }) => role),
    ['head'],
  )
  const batch = pairBatch(randomPairs(6, 8))
  const losses: number[] = []
  for (let i = 0; i < 10; i++) {
    losses.push((await trainer.accumulate(batch)).losses.reduce((a, b) => a + b))
    await trainer.step({ learningRate: 0.05, maxNorm: 0 })
  }
  for (let i = 1; i < losses.length; i++) assert.ok(losses[i]! < losses[i - 1]!, `${losses}`)
  const request = randomBatch(3, 9)
  assert.is(bits(await trainer.score(request)), bits(await model.score(request)), 'the language model is untouched')
  model.setHead(await trainer.parameter('head'))
  const rewards = randomBatch(3, 9, { readout: 'reward_last' })
  assert.is(bits(await trainer.score(rewards)), bits(await model.score(rewards)))
  model.dispose()
  trainer.dispose()
})

freezing.run()
