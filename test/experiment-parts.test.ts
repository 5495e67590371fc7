/** The parts of the experiments that need no training: data, separator, comparison over seeds. */
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { compare, type MemberRewards } from '../lab/experiments/comparison.js'
import { resolveExperiment } from '../lab/experiments/options.js'
import { personaData, SEEN, UNSEEN } from '../lab/experiments/persona/data.js'
import { dot, fiveNumbers, maxMarginSeparator } from '../lab/experiments/persona/separator.js'
import { readPairs, sample } from '../lab/experiments/rewrites/data.js'
import type { ExperimentKind } from '../lab/experiments/result.js'
import { Random } from '../lib/core/random.js'
import { temporaryFolder } from './support/tmp.js'

const folder = temporaryFolder()
const at = (name: string, rows: unknown[]) => {
  const path = join(folder, name)
  writeFileSync(path, rows.map((row) => `${typeof row === 'string' ? row : JSON.stringify(row)}\n`).join(''))
  return path
}
const statement = (i: number, answer = ' Yes') => ({ question: `Is it ${i}?`, answer_matching_behavior: answer })

const persona = suite('persona data')

persona(
  'prompts are drawn once, responses from the words of the paper, unseen ones share no word with seen ones',
  async () => {
    const rows = Array.from({ length: 40 }, (_, i) => statement(i, i % 4 === 0 ? ' No' : ' Yes'))
    const file = at('statements.jsonl', rows)
    const options = { file, trainPairs: 20, testPairs: 10, seed: 875 }
    const data = await personaData(options)
    assert.equal(
      [data.train.length, data.test.length, data.trainUnseen.length, data.testUnseen.length],
      [20, 10, 80, 40],
    )
    const prompts = [...data.train, ...data.test].map(({ prompt }) => prompt as string)
    assert.is(new Set(prompts).size, 30)
    for (const prompt of prompts) assert.is.not(Number(/\d+/.exec(prompt)![0]) % 4, 0, 'answers "No" are left out')
    const made = ({ prefixes, words }: { prefixes: readonly string[]; words: readonly string[] }) =>
      prefixes.flatMap((prefix) => words.map((word) => prefix + word))
    const used = new Set([...data.train, ...data.test].flatMap(({ chosen, rejected }) => [chosen, rejected]))
    assert.equal([...used].sort(), [...made(SEEN.chosen), ...made(SEEN.rejected)].sort())
    assert.is(
      new Set(data.trainUnseen.filter((row) => row.prompt === prompts[0]).map((row) => JSON.stringify(row))).size,
      4,
    )
    const seen = [...SEEN.chosen.words, ...SEEN.rejected.words] as string[]
    for (const word of [...UNSEEN.chosen.words, ...UNSEEN.rejected.words]) assert.not.ok(seen.includes(word))
    assert.equal(await personaData(options), data)
    assert.not.equal(await personaData({ ...options, seed: 876 }), data)
  },
)

persona('bad files are told by line and column, too few statements by count', async () => {
  const fails = async (rows: unknown[], code: string, pattern: RegExp) => {
    const file = at('bad.jsonl', rows)
    try {
      await personaData({ file, trainPairs: 2, testPairs: 1, seed: 0 })
    } catch (error) {
      const { code: found, message } = error as Error & { code: string }
      assert.is(found, code)
      assert.match(message, pattern)
      assert.ok(message.startsWith(file), message)
      return
    }
    assert.unreachable('no error')
  }
  await fails([statement(0), { question: 'Q?' }], 'ERR_ROW_INVALID', /line 2: "answer_matching_behavior" is missing/)
  await fails([{ ...statement(0), question: 7 }], 'ERR_ROW_INVALID', /line 1: "question" must be a text, not 7/)
  await fails(['{"question"'], 'ERR_ROW_INVALID', /line 1: is not valid JSON/)
  await fails([[1]], 'ERR_ROW_INVALID', /line 1: a row must be a JSON object/)
  await fails(
    [statement(0), statement(1), statement(2, ' No')],
    'ERR_ROW_INVALID',
    /2 statements .* too few for 2 .* 1/,
  )
})
persona.run()

const separator = suite('max-margin separator')

separator('a known one in the plane, and the conditions of the optimum in many dimensions', () => {
  // Support vectors (1, 1) and (1, -1): w = (1, 0); the third row lies beyond the margin.
  const plane = maxMarginSeparator([Float64Array.of(1, 1), Float64Array.of(1, -1), Float64Array.of(3, 0.5)])!
  assert.ok(Math.abs(plane.weight[0]! - 1) < 1e-7 && Math.abs(plane.weight[1]!) < 1e-7, String(plane.weight))
  assert.is(plane.support, 2)

  const random = Random.seeded(5, 30)
  const hidden = Float64Array.from({ length: 16 }, () => random.normal())
  const rows = Array.from({ length: 40 }, () => {
    const row = Float64Array.from({ length: 16 }, () => random.normal())
    return dot(row, hidden) > 0 ? row : row.map((value) => -value)
  })
  const { weight } = maxMarginSeparator(rows)!
  const margins = rows.map((row) => dot(weight, row))
  assert.ok(Math.min(...margins) > 1 - 1e-6, String(Math.min(...margins)))
  // No other direction has a larger margin: a nudge of w along anything costs margin or norm.
  const norm = (w: Float64Array) => Math.sqrt(dot(w, w))
  const marginOf = (w: Float64Array) => Math.min(...rows.map((row) => dot(w, row))) / norm(w)
  for (let i = 0; i < 200; i++) {
    const nudged = weight.map((value) => value + 0.02 * norm(weight) * random.normal())
    assert.ok(marginOf(nudged) <= marginOf(weight) + 1e-9)
  }
})

separator('rows on both sides of every plane have none', () => {
  assert.is(maxMarginSeparator([Float64Array.of(1, 0), Float64Array.of(-1, 0)]), undefined)
  assert.is(maxMarginSeparator([Float64Array.of(0, 0)]), undefined)
})

separator('five numbers', () => {
  assert.equal(fiveNumbers([5, -1, 3, 1, 2]), { min: -1, lower: 1, median: 2, upper: 3, max: 5, positive: 0.8 })
})
separator.run()

const comparison = suite('comparison over seeds')
const SHIFTS = [{ name: 's', label: 's', description: '' }]
const member = (kind: ExperimentKind, seed: number, correct: boolean[], prompts?: number[]): MemberRewards => ({
  kind,
  seed,
  rewards: {
    a: {
      chosen: correct.map((one) => (one ? 1 : 0)),
      rejected: correct.map((one) => (one ? 0 : 1)),
      prompts: prompts ?? correct.map((_, i) => i),
    },
  },
})
const accuracy = (members: MemberRewards[], resamples = 400) =>
  compare(members, SHIFTS, () => ['a'], { resamples }).find(({ statistic }) => statistic === 'accuracy')!

comparison('means of seeds, an interval that holds them, the same each time', () => {
  const half = Array.from({ length: 50 }, (_, i) => i % 2 === 0)
  const most = Array.from({ length: 50 }, (_, i) => i % 5 !== 0)
  const found = accuracy([member('explicit', 0, half), member('explicit', 1, most)])
  assert.equal(found.seeds, [0.5, 0.8])
  assert.is(found.mean, 0.65)
  assert.ok(found.low! < 0.5 && found.high! > 0.8, 'seeds are drawn anew as well')
  assert.equal(accuracy([member('explicit', 0, half), member('explicit', 1, most)]), found)
  const certain = accuracy([member('implicit', 0, [true, true])])
  assert.equal([certain.mean, certain.low, certain.high], [1, 1, 1])
  const without = accuracy([member('implicit', 0, half)], 0)
  assert.equal([without.mean, without.low, without.high], [0.5, null, null])
})

comparison('pairs of one prompt are drawn together: what is said twice is not known better', () => {
  const once = Array.from({ length: 30 }, (_, i) => i % 3 === 0)
  const fourTimes = once.flatMap((one) => [one, one, one, one])
  const prompts = once.flatMap((_, i) => [i, i, i, i])
  const width = ({ low, high }: { low: number | null; high: number | null }) => high! - low!
  const single = width(accuracy([member('explicit', 0, once)]))
  const clustered = width(accuracy([member('explicit', 0, fourTimes, prompts)]))
  const naive = width(accuracy([member('explicit', 0, fourTimes)]))
  assert.ok(Math.abs(clustered - single) < 0.05, `${clustered} ${single}`)
  assert.ok(naive < 0.7 * single, `${naive} ${single}`)
})
comparison.run()

const rewrites = suite('rewrites data')

rewrites('pairs are checked as they are read, and drawn in file order', async () => {
  const rows = Array.from({ length: 9 }, (_, i) => ({ prompt: `p${i}`, chosen: 'a', rejected: 'b', more: 1 }))
  const file = at('pairs.jsonl', rows)
  const pairs = await readPairs(file)
  assert.equal(pairs[0], { prompt: 'p0', chosen: 'a', rejected: 'b' })
  const drawn = sample(pairs, 4, 517, file).map(({ prompt }) => prompt as string)
  assert.equal(drawn, [...drawn].sort())
  assert.is(new Set(drawn).size, 4)
  assert.equal(sample(pairs, 4, 517, file), sample(pairs, 4, 517, file))
  assert.throws(() => sample(pairs, 10, 0, file), /has 9 pairs, fewer than the 10 that were requested/)
  for (const [row, pattern] of [
    [{ prompt: 'p', chosen: 'a' }, /line 2: no known shape of row .* pair lacks "rejected"/],
    [{ prompt: 'p', responses: ['a'] }, /line 2: is a group of 1 responses/],
  ] as const) {
    const bad = at('bad-pairs.jsonl', [rows[0], row])
    try {
      await readPairs(bad)
      assert.unreachable('no error')
    } catch (error) {
      assert.match((error as Error).message, pattern)
      assert.ok((error as Error).message.startsWith(bad), (error as Error).message)
    }
  }
})
rewrites.run()

const options = suite('options of experiments')

options("the default model has its own recipe, others the paper's; everything is checked", () => {
  const presets = {
    paper: { epochs: 50, learningRate: 1e-6, batchPairs: 32 },
    base: { epochs: 20, learningRate: 1e-3, batchPairs: 16 },
  }
  const own = resolveExperiment({ out: 'x' }, presets)
  assert.equal([own.settings.epochs, own.settings.learningRate, own.settings.evaluateEpochs], [20, 1e-3, 5])
  const given = resolveExperiment({ out: 'x', model: 'm', epochs: 8 }, presets)
  assert.equal([given.settings.epochs, given.settings.learningRate, given.settings.batchPairs], [8, 1e-6, 32])
  for (const [bad, pattern] of [
    [{ kinds: [] }, /"kinds" must be a list of at least one/],
    [{ kinds: ['explicit', 'explicit'] }, /"kinds" must be a list without repetitions/],
    [{ kinds: ['sft'] }, /"kinds" must be one of/],
    [{ seeds: [0.5] }, /"seeds" must be an integer/],
    [{ seeds: '0' }, /"seeds" must be a list/],
    [{ learningRate: -1 }, /"learningRate"/],
    [{ out: '' }, /"out" must be the path of a folder/],
    [{ attributions: -1 }, /"attributions"/],
    [{ drain: 1 }, /"drain" must be an AbortSignal/],
  ] as const)
    assert.throws(() => resolveExperiment({ out: 'x', ...(bad as object) }, presets), pattern)
})
options.run()
