/** Experiments from end to end on a tiny random model: what lies in the folder, resuming, and what is refused before any training. */
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import type { PersonaOptions } from '../lab/experiments/persona/persona.js'
import { personaExperiment } from '../lab/experiments/persona/persona.js'
import type { AttributionLine, ExperimentResult } from '../lab/experiments/result.js'
import { rewritesExperiment } from '../lab/experiments/rewrites/rewrites.js'
import { theoryExperiment } from '../lab/experiments/theory/theory.js'
import { writeTinyCheckpoint } from './fixtures/tiny-checkpoint.js'
import { type CliOptions, implex, implexHere } from './support/cli.js'
import { pairs, writeRows } from './support/train.js'
import { temporaryFolder } from './support/tmp.js'

const folder = temporaryFolder()
const at = (...names: string[]) => join(folder, ...names)
await writeTinyCheckpoint(at('model'))
const statements = Array.from({ length: 20 }, (_, i) => ({
  question: `Would you say "${['help', 'share', 'listen', 'wait'][i % 4]} ${i}"?`,
  answer_matching_behavior: ' Yes',
}))
writeFileSync(at('statements.jsonl'), statements.map((row) => `${JSON.stringify(row)}\n`).join(''))
const PERSONA: PersonaOptions = {
  out: '',
  model: at('model'),
  data: at('statements.jsonl'),
  trainPairs: 12,
  testPairs: 6,
  epochs: 4,
  batchPairs: 4,
  learningRate: 1e-3,
  seeds: [0, 1],
  resamples: 50,
  attributions: 2,
  device: 'cpu',
  cacheDir: at('cache'),
}
const read = (path: string) => JSON.parse(readFileSync(path, 'utf8')) as ExperimentResult
const linesOf = <T>(path: string) =>
  readFileSync(path, 'utf8')
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line) as T)
/** Without what differs from run to run. */
const comparable = (path: string) => {
  const { seconds: _, date: __, members, ...rest } = read(path)
  return { ...rest, members: members.map(({ seconds: ___, ...member }) => member) }
}

const experiment = suite('experiments')

experiment('persona: every kind and seed, rewards of every set, attributions that add up', async () => {
  const { result, interrupted } = await personaExperiment({ ...PERSONA, out: at('persona') })
  assert.is(interrupted, false)
  assert.equal(read(at('persona', 'results.json')), JSON.parse(JSON.stringify(result)))
  const { members, sets, comparison, headline, paper, tables } = result!
  assert.equal(
    members.map(({ kind, seed }) => `${kind}-${seed}`),
    ['explicit-0', 'explicit-1', 'implicit-0', 'implicit-1', 'generative-0', 'generative-1'],
  )
  assert.equal(
    sets.map(({ name, pairs: count }) => [name, count]),
    [
      ['train', 12],
      ['test', 6],
      ['train-unseen', 48],
      ['test-unseen', 24],
    ],
  )
  for (const { folder: name, kind, evaluation } of members) {
    assert.not.ok(existsSync(at('persona', name, 'model')), 'models are removed')
    for (const set of sets) {
      const rewards = linesOf<{ chosen_reward: number; rejected_reward: number }>(
        at('persona', name, 'rewards', `${set.name}.jsonl`),
      )
      assert.is(rewards.length, set.pairs)
      const right = rewards.map(({ chosen_reward: a, rejected_reward: b }) => (a > b ? 1 : a === b ? 0.5 : 0) as number)
      const mean = right.reduce((a, b) => a + b) / right.length
      assert.ok(Math.abs(mean - evaluation[set.name]!.accuracy!) < 1e-12)
    }
    assert.is(evaluation.test!.loss === null, kind === 'generative')
  }
  const one = comparison.find(
    ({ kind, shift, statistic }) => `${kind} ${shift} ${statistic}` === 'explicit original accuracy',
  )!
  const perSeed = members.slice(0, 2).map(({ evaluation: e }) => (e.train!.accuracy! + e.test!.accuracy!) / 2)
  assert.equal(one.seeds, perSeed)
  assert.ok(headline.includes(`explicit ${Math.round(100 * one.mean!)} %`), headline)
  assert.is(paper.length, 8)
  assert.is(tables[0]!.rows.length, 3)

  const explained = linesOf<AttributionLine>(at('persona', 'attributions.jsonl'))
  assert.is(explained.length, 2 * 2 * 2)
  for (const { tokens, implicit, explicit } of explained) {
    assert.is(implicit!.share.length, tokens.length)
    assert.is(explicit!.along.length, tokens.length)
    const sum = implicit!.share.reduce((a, b) => a + b)
    assert.ok(Math.abs(sum - implicit!.reward) < 1e-6, `${sum} ${implicit!.reward}`)
    assert.is(explicit!.along.at(-1), explicit!.reward)
  }
  assert.match(explained[0]!.tokens.join(''), /yes|sure/)
})

experiment('interrupted in the middle of a training and resumed, it ends as an undisturbed one', async () => {
  let steps = 0
  let stops = 0
  const out = at('resumed')
  for (;;) {
    const controller = new AbortController()
    const { interrupted } = await personaExperiment({
      ...PERSONA,
      out,
      resume: existsSync(join(out, 'config.json')),
      drain: controller.signal,
      onStep: () => {
        if (++steps % 31 === 0) controller.abort()
      },
    })
    if (!interrupted) break
    stops++
  }
  assert.ok(stops >= 2, String(stops))
  assert.equal(comparable(join(out, 'results.json')), comparable(at('persona', 'results.json')))
  assert.is(
    readFileSync(join(out, 'attributions.jsonl'), 'utf8'),
    readFileSync(at('persona', 'attributions.jsonl'), 'utf8'),
  )
  // Once more: nothing is trained, the same result comes back.
  const again = await personaExperiment({ ...PERSONA, out, resume: true, onStep: () => assert.unreachable() })
  assert.equal(JSON.parse(JSON.stringify(again.result)), read(join(out, 'results.json')))
  try {
    await personaExperiment({ ...PERSONA, out, resume: true, epochs: 5 })
    assert.unreachable('no error')
  } catch (error) {
    assert.is((error as { code: string }).code, 'ERR_RESUME_MISMATCH')
    assert.match((error as Error).message, /epochs was 4, now 5/)
  }
})

experiment('rewrites: shifts of named sets, normalized margins, numbers of the paper beside', async () => {
  const [train, test, other] = [9, 1, 2].map((seed, i) => writeRows(at(`rows-${i}.jsonl`), pairs(12, seed)))
  const { result } = await rewritesExperiment({
    out: at('rewrites'),
    model: at('model'),
    train: train!,
    data: { test: 'rows-1.jsonl', french: other!, code: other! },
    dataDir: folder,
    shifts: { 'in-distribution': ['test'], domain: ['code'] },
    trainPairs: 8,
    testPairs: 5,
    kinds: ['implicit'],
    seeds: [3],
    epochs: 1,
    learningRate: 1e-3,
    resamples: 10,
    device: 'cpu',
    cache: false,
    keepModels: true,
  })
  assert.ok(test)
  assert.equal(
    result!.shifts.map(({ name }) => name),
    ['in-distribution', 'french', 'domain'],
  )
  assert.equal(
    result!.sets.map(({ name, shift, pairs: count }) => [name, shift, count]),
    [
      ['test', 'in-distribution', 5],
      ['french', 'french', 5],
      ['code', 'domain', 5],
    ],
  )
  assert.ok(existsSync(at('rewrites', 'members', 'implicit-3', 'model', 'config.json')), 'models are kept')
  assert.equal(
    result!.paper.map(({ what, paper }) => [what, paper]),
    [
      ['accuracy, in distribution', 0.646],
      ['normalized margin, in distribution', 0.813],
      ['accuracy, domain shift', 0.72],
      ['normalized margin, domain shift', 0.726],
    ],
  )
})

experiment('theory: every statement holds on the tiny model as well', async () => {
  const { result } = await theoryExperiment({ out: at('theory'), model: at('model'), device: 'cpu', dataSeed: 1 })
  const [table] = result!.tables
  assert.is(table!.rows.length, 10)
  for (const row of table!.rows) assert.is(row.at(-1), true, row.join(' '))
  assert.equal(readdirSync(at('theory')).sort(), ['config.json', 'results.json'])
})

experiment('what cannot work is refused before any training', async () => {
  const cases: [Partial<PersonaOptions>, string, RegExp][] = [
    [{ trainPairs: 19 }, 'ERR_ROW_INVALID', /20 statements .* too few for 19 training prompts and 6 test prompts/],
    [{ data: at('absent.jsonl') }, 'ERR_IO', /absent\.jsonl/],
    [{ model: at('nothing') }, 'ERR_CHECKPOINT_NOT_FOUND', /no such folder/],
    [{ out: at('persona') }, 'ERR_RESUME_MISMATCH', /already contains a run/],
  ]
  for (const [more, code, pattern] of cases) {
    const out = more.out ?? at(`refused-${code}`)
    try {
      await personaExperiment({ ...PERSONA, ...more, out, onStep: () => assert.unreachable('trained') })
      assert.unreachable('no error')
    } catch (error) {
      assert.is((error as { code?: string }).code, code, String(error))
      assert.match((error as Error).message, pattern)
    }
    if (more.out === undefined) assert.not.ok(existsSync(join(out, 'members')))
  }
  const rows = writeRows(at('rows.jsonl'), pairs(3))
  const rewrites = (more: object) =>
    rewritesExperiment({ out: at('never'), model: at('model'), train: rows, data: { test: rows }, ...more })
  for (const [more, pattern] of [
    [{ shifts: { domain: ['code'] } }, /made of the sets that data names: test; got "code"/],
    [{ shifts: { a: ['test'], b: ['test'] } }, /sets that no other shift has/],
    [{ trainPairs: 4 }, /has 3 pairs, fewer than the 4 that were requested/],
    [{ data: {} }, /at least one set/],
    [{ data: { 'a/b': rows } }, /name of a data set/],
  ] as const) {
    try {
      await rewrites(more)
      assert.unreachable('no error')
    } catch (error) {
      assert.match((error as Error).message, pattern)
    }
  }
  assert.not.ok(existsSync(at('never')))
})

experiment('the command: usage, table in 80 columns, Ctrl-C and what it says', async () => {
  const env = { XDG_CACHE_HOME: at('xdg') }
  const run = (args: string[], options?: CliOptions) =>
    options === undefined
      ? implexHere(['experiment', ...args], env)
      : implex(['experiment', ...args], { env, ...options })
  const flags = ['persona', '--model', at('model'), '--data', at('statements.jsonl'), '--train-pairs', '12']
  const all = [...flags, '--test-pairs', '6', '--device', 'cpu', '--seeds', '0', '--batch-pairs', '4']
  for (const [args, pattern] of [
    [['persona'], /--out is required/],
    [['nothing'], /unknown command/],
    [['persona', '--kinds', 'explicit,none', '--out', at('x')], /"kinds" must be one of/],
    [['rewrites', '--out', at('x')], /--train is required/],
    [['persona', '--vertices', '3'], /unknown option/],
  ] as const) {
    const { status, stderr } = await run([...args])
    assert.is(status, 2, stderr)
    assert.match(stderr, pattern)
  }
  const out = at('cli')
  const stopped = await run([...all, '--out', out, '--epochs', '60', '--kinds', 'implicit'], {
    onStderr: (text, child) => {
      if (!child.killed && /seed 0/.test(text)) child.kill('SIGINT')
    },
  })
  assert.is(stopped.status, 130, stopped.stderr)
  assert.ok(stopped.stderr.includes(`implex experiment persona --out ${out} --resume`), stopped.stderr)
  const done = await run(['persona', '--out', out, '--resume'])
  assert.is(done.status, 0, done.stderr)
  for (const line of done.stdout.split('\n')) assert.ok(line.length <= 80, line)
  assert.match(done.stdout, /Unseen words +\d\.\d{3} \[/)
  assert.ok(done.stderr.includes(`implex report ${out}`))
})

experiment.run()
