/**
 * Theory of arXiv 2507.07981 against the engine: what one gradient step does to the reward of another response when hidden states are fixed
 * (section 4), unseen single tokens (Theorem 2), verification without generation (Theorem 1), and the symmetries of the losses.
 */
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { PairRewards } from '../lib/evaluate/statistics.js'
import type { ModelSpec } from '../lib/native/spec.js'
import { type IdPair, pairBatch, readoutDescent, sequenceBatch } from '../lab/experiments/theory/engine.js'
import { openModel, openTrainer } from '../lib/native/handles.js'
import { seededRandom } from './fixtures/random.js'
import { CPU, tinySpec } from './support/engine.js'

const D = 32
const V = 512
const spec = await tinySpec({ hiddenSize: D, vocabSize: V, layers: 2 })
const random = seededRandom(11)
const tokens = (count: number) => Array.from({ length: count }, () => random.below(V))

/** [sequences][D]: the last hidden state of each, one component at a time by heads that are unit vectors. */
async function hiddenStates(of: ModelSpec, sequences: number[][]): Promise<number[][]> {
  const model = await openModel(of, CPU)
  const columns: Float64Array[] = []
  for (let i = 0; i < D; i++) {
    model.setHead(Float32Array.from({ length: D }, (_, j) => (i === j ? 1 : 0)))
    columns.push((await model.score(sequenceBatch(sequences, 'reward_last'))).values)
  }
  model.dispose()
  return sequences.map((_, row) => columns.map((column) => column[row]!))
}

const dot = (a: ArrayLike<number>, b: ArrayLike<number>) =>
  Array.from(a).reduce((sum, value, i) => sum + value * b[i]!, 0)
const sigmoid = (x: number) => 1 / (1 + Math.exp(-x))
const near = (actual: number, expected: number, relative: number, what: string) =>
  assert.ok(Math.abs(actual - expected) <= relative * Math.abs(expected), `${what}: ${actual}, expected ${expected}`)

const dynamics = suite('dynamics with fixed hidden states')

dynamics('explicit: Δr(x′,y′) = η g ⟨h′, h⁺ - h⁻⟩', async () => {
  const pair = { prompt: tokens(5), chosen: tokens(4), rejected: tokens(3) }
  const others = Array.from({ length: 6 }, () => tokens(3 + random.below(6)))
  const head = Float32Array.from({ length: D }, () => random.normal() * 0.1)
  const trainer = await openTrainer(spec, CPU, readoutDescent('explicit', { head }))
  assert.equal(
    trainer.parameters.map(({ role }) => role),
    ['head'],
  )
  const before = (await trainer.score(sequenceBatch(others, 'reward_last'))).values
  const { rewards } = await trainer.accumulate(pairBatch([pair]))
  const learningRate = 0.1
  await trainer.step({ learningRate, maxNorm: 0 })
  const after = (await trainer.score(sequenceBatch(others, 'reward_last'))).values
  trainer.dispose()

  const sequences = [[...pair.prompt, ...pair.chosen], [...pair.prompt, ...pair.rejected], ...others]
  const [chosen, rejected, ...rest] = (await hiddenStates(spec, sequences)) as [number[], number[], ...number[][]]
  const difference = chosen.map((value, i) => value - rejected[i]!)
  const g = sigmoid(rewards[1]! - rewards[0]!)
  const scale = Math.max(...rest.map((h) => Math.abs(learningRate * g * dot(h, difference))))
  for (const [i, h] of rest.entries()) {
    const expected = learningRate * g * dot(h, difference)
    assert.ok(
      Math.abs(after[i]! - before[i]! - expected) < 1e-5 * scale,
      `${after[i]! - before[i]!}, expected ${expected}`,
    )
  }
})

dynamics('implicit: Δr(x′,y′) = η g β² Σ ρ ⟨h′, h⟩, to first order', async () => {
  // y′ shares tokens with y⁺ and y⁻, so that matches and mismatches both have a part.
  const pair = { prompt: tokens(4), chosen: tokens(3), rejected: tokens(4) }
  const other = { prompt: tokens(5), response: [pair.chosen[1]!, ...tokens(1), pair.rejected[0]!] }
  const beta = 0.5
  const g = { value: 0 }
  const change = async (learningRate: number) => {
    const trainer = await openTrainer(spec, CPU, readoutDescent('implicit', { beta }))
    assert.equal(
      trainer.parameters.map(({ role }) => role),
      ['unembedding'],
    )
    const score = async () => {
      const { tokens, segments } = pairBatch([{ prompt: other.prompt, chosen: other.response, rejected: [0] }])
      const request = { tokens, segments, scored: Int32Array.of(1), readout: 'logprob' } as const
      return beta * (await trainer.score(request)).values[0]!
    }
    const before = await score()
    const { rewards } = await trainer.accumulate(pairBatch([pair]))
    g.value = sigmoid(rewards[1]! - rewards[0]!)
    await trainer.step({ learningRate, maxNorm: 0 })
    const after = await score()
    const table = learningRate === 0 ? await trainer.parameter('unembedding') : undefined
    trainer.dispose()
    return { change: after - before, table }
  }
  const { table } = await change(0)
  const rate = 0.02
  // Richardson: the second order cancels.
  const measured = 4 * (await change(rate / 2)).change - (await change(rate)).change

  // What each token of a response is predicted from: h of all before it, and the distribution there.
  const prefixes = (prompt: number[], response: number[]) =>
    response.map((_, k) => [...prompt, ...response.slice(0, k)])
  const [mine, plus, minus] = await Promise.all(
    [
      prefixes(other.prompt, other.response),
      prefixes(pair.prompt, pair.chosen),
      prefixes(pair.prompt, pair.rejected),
    ].map(async (sequences) =>
      (await hiddenStates(spec, sequences)).map((h) => {
        const logits = Array.from({ length: V }, (_, v) => dot(table!.subarray(v * D, (v + 1) * D), h))
        const top = Math.max(...logits)
        const weights = logits.map((z) => Math.exp(z - top))
        const sum = weights.reduce((a, b) => a + b)
        return { h, p: weights.map((w) => w / sum) }
      }),
    ),
  )
  const pull = (response: number[], positions: typeof mine) => {
    let sum = 0
    for (const [k, { h, p }] of mine!.entries()) {
      for (const [l, at] of positions!.entries()) {
        const [a, b] = [other.response[k]!, response[l]!]
        const rho = (a === b ? 1 : 0) - at.p[a]! - p[b]! + dot(p, at.p)
        sum += rho * dot(h, at.h)
      }
    }
    return sum
  }
  const expected = rate * g.value * beta ** 2 * (pull(pair.chosen, plus) - pull(pair.rejected, minus))
  near(measured, expected, 2e-3, 'change of reward')
})
dynamics.run()

const unseen = suite('unseen single tokens')

unseen('their implicit reward difference stays 0: rows of other tokens never move', async () => {
  const seen = [10, 11, 12, 13]
  const others = [20, 21, 22, 23]
  const prompts = Array.from({ length: 4 }, () => tokens(6))
  const trained = prompts.map((prompt, i) => ({ prompt, chosen: [seen[i % 2]!], rejected: [seen[2 + (i % 2)]!] }))
  const trainer = await openTrainer(spec, CPU, readoutDescent('implicit', { beta: 0.1 }))
  const request = {
    ...pairBatch(
      [...prompts, tokens(4)].flatMap((prompt) =>
        [
          [0, 1],
          [0, 2],
          [3, 1],
        ].map(([a, b]) => ({ prompt, chosen: [others[a!]!], rejected: [others[b!]!] })),
      ),
    ),
    readout: 'logprob',
  } as const
  const scored = async () => (await trainer.score(request)).values
  const rows = async () => {
    const table = await trainer.parameter('unembedding')
    return [...seen, ...others].map((v) => table.slice(v * D, (v + 1) * D))
  }
  const [before, rowsBefore] = [await scored(), await rows()]
  let first = 0
  let last = 0
  for (let step = 0; step < 300; step++) {
    const { losses } = await trainer.accumulate(pairBatch(trained))
    last = losses.reduce((a, b) => a + b) / losses.length
    if (step === 0) first = last
    await trainer.step({ learningRate: 0.5, maxNorm: 0 })
  }
  assert.ok(last < first - 0.05, `${first} ${last}: the seen tokens are learned`)
  const [after, rowsAfter] = [await scored(), await rows()]
  let moved = 0
  for (const [i, row] of rowsAfter.entries()) {
    for (const [j, value] of row.entries()) {
      const change = Math.abs(value - rowsBefore[i]![j]!)
      if (i >= seen.length) moved = Math.max(moved, change)
    }
  }
  const differences: number[] = []
  for (let i = 0; i < after.length; i += 2) differences.push(after[i]! - before[i]! - (after[i + 1]! - before[i + 1]!))
  assert.is(moved, 0)
  // The logits' difference is the same to the bit; what is left is the rounding of two log-probabilities near -7 to f32.
  for (const difference of differences) assert.ok(Math.abs(difference) < 2e-6, String(difference))
  trainer.dispose()
})
unseen.run()

const verification = suite('verification without generation')

verification('a policy that verifies with margin δ need not generate: π ∝ π_ref exp(δ [y correct] / β)', () => {
  for (let trial = 0; trial < 200; trial++) {
    const beta = 0.01 + random.unit()
    const delta = random.unit() * 3
    const weights = Array.from({ length: 2 + random.below(30) }, () => Math.exp(3 * random.normal()))
    const total = weights.reduce((a, b) => a + b)
    const reference = weights.map((w) => w / total)
    const correct = reference.map((_, y) => y % 3 === 0)
    const tilted = reference.map((p, y) => Math.log(p) + (correct[y] ? delta / beta : 0))
    const top = Math.max(...tilted)
    const logZ = top + Math.log(tilted.reduce((sum, value) => sum + Math.exp(value - top), 0))
    const reward = tilted.map((value, y) => beta * (value - logZ - Math.log(reference[y]!)))
    for (const [y, good] of correct.entries()) {
      if (!good) near(reward[0]! - reward[y]!, delta, 1e-9, 'margin')
      // Raised by no more than exp(δ / β): rare correct answers stay rare when that is small against 1 / π_ref.
      else assert.ok(tilted[y]! - logZ <= Math.log(reference[y]!) + delta / beta + 1e-9)
    }
  }
})
verification.run()

const symmetry = suite('symmetries')

const SETS = Array.from({ length: 40 }, () => ({ chosen: random.normal(), rejected: random.normal() }))
const statistics = (map: (pair: { chosen: number; rejected: number }) => [number, number]) => {
  const rewards = new PairRewards()
  for (const pair of SETS) rewards.add(...map(pair))
  return rewards.statistics()
}

symmetry('swapping chosen and rejected: accuracy → 1 - accuracy, margins mirrored', () => {
  const a = statistics(({ chosen, rejected }) => [chosen, rejected])
  const b = statistics(({ chosen, rejected }) => [rejected, chosen])
  near(b.accuracy, 1 - a.accuracy, 1e-12, 'accuracy')
  near(b.meanMargin, -a.meanMargin, 1e-12, 'margin')
  near(b.normalizedMargin, a.normalizedMargin, 1e-12, 'normalized margin')
})

symmetry(
  'a constant added to every reward changes neither loss nor accuracy nor margins; a factor leaves the normalized margin',
  () => {
    const a = statistics(({ chosen, rejected }) => [chosen, rejected])
    const shifted = statistics(({ chosen, rejected }) => [chosen + 1000, rejected + 1000])
    for (const name of ['accuracy', 'loss', 'meanMargin', 'normalizedMargin', 'brier', 'ece'] as const)
      near(shifted[name], a[name], 1e-9, name)
    const scaled = statistics(({ chosen, rejected }) => [0.01 * chosen, 0.01 * rejected])
    near(scaled.normalizedMargin, a.normalizedMargin, 1e-5, 'normalized margin')
  },
)

symmetry('training on swapped pairs with the opposite head gives the opposite rewards', async () => {
  const pairs = Array.from({ length: 5 }, () => ({ prompt: tokens(3), chosen: tokens(4), rejected: tokens(2) }))
  const head = Float32Array.from({ length: D }, () => random.normal() * 0.1)
  const frozen = { embedding: false, blocks: false, norms: false, unembedding: true, head: false }
  const run = async (data: IdPair[], start: Float32Array) => {
    const trainer = await openTrainer(spec, CPU, { ...readoutDescent('explicit', { head: start }), frozen })
    const losses: number[] = []
    for (let step = 0; step < 5; step++) {
      losses.push((await trainer.accumulate(pairBatch(data))).losses.reduce((a, b) => a + b))
      await trainer.step({ learningRate: 0.05, maxNorm: 0 })
    }
    const { rewards } = await trainer.accumulate(pairBatch(data, false))
    trainer.dispose()
    return { losses, rewards }
  }
  const a = await run(pairs, head)
  const b = await run(
    pairs.map(({ prompt, chosen, rejected }) => ({ prompt, chosen: rejected, rejected: chosen })),
    head.map((value) => -value),
  )
  for (const [i, loss] of a.losses.entries()) near(b.losses[i]!, loss, 1e-5, 'loss')
  for (let i = 0; i < a.rewards.length; i++) near(-b.rewards[i ^ 1]!, a.rewards[i]!, 1e-3, 'reward')
})
symmetry.run()
