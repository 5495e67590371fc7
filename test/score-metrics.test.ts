/** Streaming metrics against their definitions, and the properties of notes on the paper. */
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { Moments, PreferenceMetrics } from '../lib/evaluate/metrics.js'
import { seededRandom } from './fixtures/random.js'

const random = seededRandom(8)
const sample = (count: number, scale = 1, shift = 0) =>
  Array.from({ length: count }, (): [number, number] => [
    random.normal() * scale + shift,
    random.normal() * scale + shift,
  ])
const near = (actual: number, expected: number, tolerance = 1e-12) =>
  assert.ok(Math.abs(actual - expected) <= tolerance * Math.max(1, Math.abs(expected)), `${actual} is not ${expected}`)
const mean = (values: number[]) => values.reduce((sum, value) => sum + value, 0) / values.length

function metricsOf(pairs: [number, number][]): PreferenceMetrics {
  const metrics = new PreferenceMetrics()
  for (const pair of pairs) metrics.add(...pair)
  return metrics
}

const metrics = suite('metrics')

metrics('are what their definitions say', () => {
  const pairs = [...sample(500), [1, 1], [2, 2]] as [number, number][]
  const { accuracy, meanMargin, normalizedMargin, ties } = metricsOf(pairs)
  const rewards = pairs.flat()
  const center = mean(rewards)
  const deviation = Math.sqrt(rewards.reduce((sum, r) => sum + (r - center) ** 2, 0) / (rewards.length - 1))
  assert.is(ties, 2)
  near(accuracy, mean(pairs.map(([c, r]) => (c > r ? 1 : c === r ? 0.5 : 0))))
  near(meanMargin, mean(pairs.map(([c, r]) => c - r)))
  near(normalizedMargin, mean(pairs.map(([c, r]) => Math.abs(c - r))) / (deviation + 1e-8))
})

metrics('all ties: accuracy one half', () => {
  assert.is(
    metricsOf([
      [1, 1],
      [2, 2],
    ]).accuracy,
    0.5,
  )
})

metrics('swapping chosen and rejected mirrors the accuracy and keeps the normalized margin', () => {
  const pairs = sample(300)
  const swapped = metricsOf(pairs.map(([c, r]) => [r, c]))
  const straight = metricsOf(pairs)
  near(swapped.accuracy, 1 - straight.accuracy)
  near(swapped.normalizedMargin, straight.normalizedMargin)
  near(swapped.meanMargin, -straight.meanMargin)
})

metrics('a constant and a scale leave the normalized margin alone', () => {
  const pairs = sample(300)
  const moved = metricsOf(pairs.map(([c, r]) => [c * 3 + 100, r * 3 + 100]))
  near(moved.normalizedMargin, metricsOf(pairs).normalizedMargin, 1e-7)
  near(moved.accuracy, metricsOf(pairs).accuracy)
})

metrics('are accurate far from zero, where sums of squares fail', () => {
  const moments = new Moments()
  for (const value of [1e9 + 4, 1e9 + 7, 1e9 + 13, 1e9 + 16]) moments.add(value)
  near(moments.deviation, Math.sqrt(30))
})

metrics('merge as if counted together', () => {
  const pairs = sample(1000, 2, 5)
  const whole = metricsOf(pairs)
  const merged = metricsOf(pairs.slice(0, 137))
  merged.merge(new PreferenceMetrics())
  merged.merge(metricsOf(pairs.slice(137)))
  for (const key of ['pairs', 'ties', 'accuracy', 'meanMargin', 'normalizedMargin'] as const)
    near(merged[key], whole[key])
})

metrics('are not numbers before the first pair, and few pairs have no deviation problem', () => {
  const none = new PreferenceMetrics()
  for (const key of ['accuracy', 'meanMargin', 'normalizedMargin'] as const) assert.ok(Number.isNaN(none[key]))
  near(metricsOf([[2, 1]]).normalizedMargin, 1 / (Math.sqrt(0.5) + 1e-8))
})
metrics.run()
