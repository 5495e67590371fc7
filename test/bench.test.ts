/** The benchmark suite itself: its statistics, files, tables and document; `implex bench` at its smallest. */
import { spawnSync } from 'node:child_process'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { countRows, type OutputRow } from '../bench/builds/bits.js'
import { DOCUMENT, withTables } from '../bench/report.js'
import { ceilings, roofline } from '../bench/suites/kernels.js'
import { type BenchCase, beginResult, readResult, writeResult } from '../bench/suites/result.js'
import { profiled, profileRows } from '../bench/suites/profile.js'
import { bestOf } from '../bench/suites/score.js'
import { median, quantile, ratioOfMedians, verdict } from '../bench/suites/statistics.js'
import { short, table } from '../bench/suites/table.js'
import { madeUpPairs, pairsOf } from '../bench/suites/texts.js'
import { prepareModel, timed } from '../bench/suites/models.js'
import { realTokens, ScoringWorkload, TrainingWorkload, unshared } from '../bench/suites/workload.js'
import { TINY } from '../bench/suites/checkpoint.js'
import { RewardModel } from '../lib/models/reward-model.js'
import { implexHere } from './support/cli.js'
import { rejection } from './support/engine.js'
import { repositoryRoot } from './support/shared.js'
import { temporaryFolder } from './support/tmp.js'

const folder = temporaryFolder()

test('quantiles', () => {
  assert.is(median([3, 1, 2]), 2)
  assert.is(median([4, 1, 2, 3]), 2.5)
  assert.is(quantile([1, 2, 3, 4, 5], 0.25), 2)
  assert.is(quantile([7], 0.9), 7)
})

test('verdicts: clear differences, small ones, scatter', () => {
  const around = (center: number, spread: number) =>
    Array.from({ length: 15 }, (_, i) => center * (1 + spread * (((i * 7) % 15) / 15 - 0.5)))
  const judged = (a: number[], b: number[]) => verdict(ratioOfMedians(a, b))
  assert.is(judged(around(1, 0.02), around(1.1, 0.02)), 'slower')
  assert.is(judged(around(1, 0.02), around(0.9, 0.02)), 'faster')
  assert.is(judged(around(1, 0.002), around(1.01, 0.002)), 'noise')
  assert.is(judged(around(1, 0.8), around(1.1, 0.8)), 'noise')
  assert.equal(ratioOfMedians([1, 2, 3], [2, 3, 4]), ratioOfMedians([1, 2, 3], [2, 3, 4]))
})

test('tables keep to 80 columns', () => {
  const text = table(
    ['case', 'ms'],
    [
      ['x'.repeat(100), short(1234.5)],
      ['y', short(0.001234)],
    ],
  )
  for (const line of text.split('\n')) assert.ok(line.length <= 80)
  assert.match(text, / 1235\n/)
})

test('a profile lists what takes time in any case, and the rest', () => {
  const item = (name: string, profile?: Record<string, number>): BenchCase => ({
    name,
    samples: [1],
    work: {},
    profile,
  })
  const { head, rows } = profileRows(
    [
      item('a', { gemm: 0.6, norm: 0.001, other: 0.399 }),
      item('b'),
      item('c', { attention: 0.7, gemm: 0.2, other: 0.1 }),
    ],
    '-',
  )
  assert.equal(head, ['operation', 'a', 'c'])
  assert.equal(rows, [
    ['attention', '-', '70%'],
    ['gemm', '60%', '20%'],
    ['other', '40%', '10%'],
  ])
})

test('roofline: the slower of the two bounds', () => {
  const cases: BenchCase[] = [
    { name: 'copy 256 MiB', samples: [1], work: { bytes: 100 } },
    { name: 'f32 multiply-add rate', samples: [2, 1], work: { flops: 1000 } },
  ]
  const limits = ceilings(cases)
  assert.equal(limits, { flops: { f32: 1000 }, bytes: 100 })
  assert.equal(roofline({ name: 'f32 a', samples: [2], work: { flops: 1000, bytes: 1 } }, limits), {
    fraction: 0.5,
    bound: 'flops',
  })
  assert.equal(roofline({ name: 'f32 b', samples: [4], work: { flops: 1, bytes: 100 } }, limits), {
    fraction: 0.25,
    bound: 'bytes',
  })
})

test('result files, and what is none', async () => {
  const path = join(folder, 'result.json')
  const result = (await beginResult('kernels'))([{ name: 'a', samples: [1], work: { ops: 1 } }], { torch: '2' })
  await writeResult(path, result)
  assert.equal(await readResult(path), JSON.parse(JSON.stringify(result)))
  assert.ok(result.machine.threads >= 1 && result.versions.torch === '2')
  for (const text of ['{}', 'no json', '[]']) {
    writeFileSync(path, text)
    assert.is((await rejection(readResult(path))).code, 'ERR_IO')
  }
  assert.is((await rejection(readResult(join(folder, 'absent.json')))).code, 'ERR_IO')
})

test('bench:compare names what is faster, slower, new and gone', async () => {
  const finish = await beginResult('api')
  const write = async (name: string, cases: Record<string, number>) => {
    const path = join(folder, name)
    const list = Object.entries(cases).map(([name, center]) => ({
      name,
      samples: Array.from({ length: 9 }, (_, i) => center * (1 + i / 1000)),
      work: {},
    }))
    await writeResult(path, finish(list))
    return path
  }
  const a = await write('a.json', { same: 1, better: 1, worse: 1, old: 1 })
  const b = await write('b.json', { same: 1, better: 0.5, worse: 2, added: 1 })
  const run = (...files: string[]) =>
    spawnSync(process.execPath, [join(repositoryRoot, 'dist/bench/compare.js'), ...files], { encoding: 'utf8' })
  const { stdout, status } = run(a, b)
  for (const pattern of [/same .* noise/, /better .* faster/, /worse .* slower/, /added .* new/, /old .* gone/])
    assert.match(stdout, pattern)
  assert.is(status, 1)
  assert.is(run(a, a).status, 0)
  assert.is(run(a).status, 2)
  assert.is(run(a, join(folder, 'absent.json')).status, 2)
})

test('docs/performance.md shows what bench/results holds', () => {
  const document = readFileSync(DOCUMENT, 'utf8')
  assert.ok(document.includes('<!-- bench:kernels -->') && document.includes('<!-- bench:peers -->'))
  assert.is(withTables(document), document, 'run `npm run bench:report`')
})

test('rows of two builds are counted by what they have in common', () => {
  const pair = (chosen: number, rejected: number): OutputRow => ({ chosen_reward: chosen, rejected_reward: rejected })
  const ids = (text: string, borders = '3,3') => ({ ids: text, borders })
  const error: OutputRow = { error: { code: 'ERR_ROW_INVALID' } }
  const rows: [string, OutputRow, OutputRow, ReturnType<typeof ids>, ReturnType<typeof ids>][] = [
    ['equalRewards', pair(1, 2), pair(1, 2), ids('a'), ids('a')],
    ['equalRewards', { rewards: [0.1] }, { rewards: [0.1] }, ids('a'), ids('a')],
    ['otherRewards', pair(1, 2), pair(1, 2 + 2 ** -51), ids('a'), ids('a')],
    ['otherRewards', pair(0, 2), pair(-0, 2), ids('a'), ids('a')],
    ['otherRewards', { rewards: [1] }, { rewards: [1, 2] }, ids('a'), ids('a')],
    ['otherIds', pair(1, 2), pair(1, 2), ids('a'), ids('b')],
    ['otherIds', pair(1, 2), pair(1, 2), ids('a'), ids('a', '3,2')],
    ['scoredByOne', error, pair(1, 2), ids(''), ids('a')],
    ['scoredByNone', error, error, ids(''), ids('')],
  ]
  for (const [outcome, before, now, idsBefore, idsNow] of rows) {
    const counts = countRows('implicit', [[idsBefore], [idsNow]], [[before], [now]])
    assert.equal(
      Object.entries(counts).filter(([, n]) => n > 0),
      [
        ['rows', 1],
        [outcome, 1],
      ],
    )
  }
  const moved = countRows('explicit', [[ids('a')], [ids('a', '3,2')]], [[pair(1, 2)], [pair(1, 2)]])
  assert.is(moved.equalRewards, 1)
  assert.throws(() => countRows('explicit', [[ids('a')], [ids('a')]], [[{}], [{}]]), /neither/)
})

test('the record of rewards of two builds has none that changed', () => {
  const record = JSON.parse(readFileSync(join(repositoryRoot, 'bench/results/reward_bits.json'), 'utf8'))
  assert.ok(record.total.equalRewards > 0 && record.commits.before.commit !== record.commits.now.commit)
  assert.is(record.total.otherRewards, 0)
})

test('tables of a document', async () => {
  const finish = await beginResult('score')
  const text = 'before\n<!-- bench:made -->\nold\n<!-- /bench:made -->\nafter\n'
  await writeResult(join(folder, 'made.json'), finish([{ name: 'x', samples: [0.5], work: { tokens: 100, pairs: 2 } }]))
  const made = withTables(text, folder)
  assert.match(
    made,
    /^before\n<!-- bench:made -->\nFrom bench\/results\/made\.json: .*\n\n\| case .*\n.*\n\| x \| 0\.500 \| 200 \| 4\.00 \| {2}\|\n<!-- \/bench:made -->\nafter\n$/,
  )
  assert.is(withTables(made, folder), made)
})

test('made-up pairs: the same for the same seed, and about as long as promised', () => {
  assert.equal(madeUpPairs(3, 1), madeUpPairs(3, 1))
  assert.not.equal(madeUpPairs(3, 1), madeUpPairs(3, 2))
  const words = madeUpPairs(400).map(({ chosen }) => chosen.split(' ').length)
  const mean = words.reduce((sum, n) => sum + n, 0) / words.length
  assert.ok(mean > 230 && mean < 350, String(mean))
})

test('pairs from a file, and files that have none', async () => {
  const path = join(folder, 'pairs.jsonl')
  writeFileSync(
    path,
    `${madeUpPairs(3)
      .map((pair) => JSON.stringify(pair))
      .join('\n')}\n`,
  )
  assert.equal(await pairsOf(path, 2), madeUpPairs(3).slice(0, 2))
  for (const text of [
    '',
    'no json\n',
    '{"prompt":"a","responses":["b"]}\n',
    '{"prompt":[{"role":"user","content":"a"}],"chosen":"b","rejected":"c"}\n',
  ]) {
    writeFileSync(path, text)
    assert.is((await rejection(pairsOf(path, 2))).code, 'ERR_ROW_INVALID', text)
  }
})

test('what is timed is what scoring gives', async () => {
  const pairs = madeUpPairs(3)
  const { rows, options } = await prepareModel(TINY, {
    pairs,
    folder: join(folder, 'models'),
    device: 'cpu',
    dtype: 'f32',
  })
  assert.is(realTokens(unshared(rows)), realTokens(rows))
  for (const kind of ['explicit', 'implicit'] as const) {
    using workload = await ScoringWorkload.open(kind, options)
    using model = await RewardModel.open(options.policy, {
      kind,
      device: 'cpu',
      cache: false,
      ...(kind === 'explicit' ? { head: options.head } : { reference: options.reference }),
    })
    const expected = (await model.score(pairs)).rewards
    assert.equal(
      (await workload.score(rows)).map(({ rewards }) => rewards),
      expected,
    )
    const profile = await profiled(() => workload.score(rows))
    const total = Object.values(profile).reduce((sum, share) => sum + share, 0)
    assert.ok(Math.abs(total - 1) < 1e-6, `shares add up to ${total}`)
    assert.ok(profile.gemm! > 0 && profile.attention! > 0)
    assert.is(profile.linear_logprob === undefined, kind === 'explicit')
    assert.equal(
      (await workload.score(rows)).map(({ rewards }) => rewards),
      expected,
      'a profile changes no bit',
    )
    assert.equal(
      (await workload.score(unshared(rows))).flatMap(({ rewards }) => rewards),
      expected.flat(),
    )
    const groups = bestOf(rows)
    assert.equal(
      (await workload.score(groups)).flatMap(({ rewards }) => rewards),
      (await workload.score(unshared(groups))).flatMap(({ rewards }) => rewards),
    )

    using training = await TrainingWorkload.open(kind, options)
    const known = await training.withReference(rows)
    const [first, second] = [await training.step(known), await training.step(known)]
    for (const [i, [chosen, rejected]] of (expected as [number, number][]).entries()) {
      const loss = Math.log1p(Math.exp(rejected - chosen))
      assert.ok(Math.abs(first[i]! - loss) < 1e-4, `${kind} loss ${first[i]} instead of ${loss}`)
    }
    assert.not.equal(first, second)
  }
})

test('timed: one run more than samples, and a signal ends it', async () => {
  let runs = 0
  const run = async () => {
    runs++
  }
  assert.is((await timed(3, run)).length, 3)
  assert.is(runs, 4)
  assert.is((await rejection(timed(3, run, AbortSignal.abort()))).name, 'AbortError')
})

test('implex bench', async () => {
  const json = join(folder, 'bench.json')
  const { status, stdout, stderr } = await implexHere([
    'bench',
    '--quick',
    '--json',
    json,
    '--folder',
    join(folder, 'made'),
  ])
  assert.is(status, 0, stderr)
  for (const line of stdout.split('\n')) assert.ok(line.length <= 80, line)
  for (const part of [
    'multiply-add rate',
    'tiny explicit f32 ids',
    'tiny best of 8, shared',
    'tiny implicit f32 step',
  ]) {
    assert.ok(stdout.includes(part), part)
  }
  const result = await readResult(json)
  assert.ok(result.cases.every(({ samples }) => samples.length > 0 && samples.every((s) => s > 0)))
  assert.is(new Set(result.cases.map(({ name }) => name)).size, result.cases.length)
})

test('implex bench: wrong usage', async () => {
  for (const args of [
    ['bench', 'everything'],
    ['bench', 'score', '--pairs', '0'],
    ['bench', '--device', 'tpu'],
  ]) {
    assert.is((await implexHere(args)).status, 2, args.join(' '))
  }
})

test.run()
