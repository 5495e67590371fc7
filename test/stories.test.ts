/**
 * A real pretrained model, stories260K (context of 512 tokens), on the real preference data of ../shared: log-probabilities that make
 * sense, and rows beyond the context treated as --on-long says and counted.
 */
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import type { ScoreSummary } from '../cli/score-summary.js'
import { readJsonl } from '../lib/data/jsonl.js'
import type { PairRow } from '../lib/data/rows.js'
import { RewardModel } from '../lib/models/reward-model.js'
import { implexHere } from './support/cli.js'
import { sharedPath } from './support/shared.js'
import { skip } from './support/skip.js'
import { temporaryFolder } from './support/tmp.js'

const MODEL = sharedPath('models/stories260K')
const CONTEXT = 512
const stories = suite('stories260K on real data')

/** Mean log-probability of a token, of every response. A uniform guess over its 512 tokens has -6.2. */
const perToken = (rows: { logprobs?: number[]; tokens: number[] }[]) =>
  rows.flatMap(({ logprobs, tokens }) => logprobs!.map((logprob, k) => logprob / tokens[k]!))

const mean = (values: number[]) => values.reduce((sum, value) => sum + value, 0) / values.length

stories('a sentence of a story is likelier than the same words shuffled', async () => {
  if (MODEL === undefined) return skip('../shared/models/stories260K is absent')
  using model = await RewardModel.open(MODEL, { kind: 'implicit', beta: 1, template: 'none', device: 'cpu' })
  const pairs = [
    {
      prompt: 'Once upon a time, there was a little girl named Lily.',
      chosen: ' She loved to play with her toys in the park.',
      rejected: ' park the in She with toys to her play loved.',
    },
    {
      prompt: 'One day, a boy named Tim saw a big dog.',
      chosen: ' The dog was very happy and wanted to play with Tim.',
      rejected: ' play wanted very The and with was Tim dog to happy.',
    },
    {
      prompt: 'The sun was hot.',
      chosen: ' Ben and his mom went to the beach to swim.',
      rejected: ' swim to mom beach and went the to his Ben.',
    },
  ]
  const { rewards, rows } = await model.score(pairs, { tokenLogprobs: true })
  for (const [fluent, shuffled] of rewards) assert.ok(fluent! > shuffled! + 10, `${fluent} against ${shuffled}`)
  // Without the end of the text, which a story does not reach so soon.
  const words = rows.flatMap(({ tokenLogprobs }) => [...tokenLogprobs![0]!.subarray(0, -1)])
  assert.ok(mean(words) > -2, `${mean(words)} a token`)
})

stories('statements of the persona data', async () => {
  const data = sharedPath('data/persona/agreeableness.jsonl')
  if (MODEL === undefined || data === undefined) return skip('../shared is absent')
  const lines = readFileSync(data, 'utf8').trimEnd().split('\n')
  const rows = lines.map((line): PairRow => {
    const row = JSON.parse(line) as Record<string, string>
    const [chosen, rejected] = [row['answer_matching_behavior']!, row['answer_not_matching_behavior']!]
    return { prompt: row['question']!, chosen, rejected }
  })
  using model = await RewardModel.open(MODEL, { kind: 'implicit', device: 'cpu' })
  const scores = await model.score(rows)
  assert.is(scores.rewards.length, 1000)
  // Every answer is "Yes" or "No", which children's stories rarely begin with, and the end of the turn.
  const terms = perToken(scores.rows)
  assert.ok(
    terms.every((term) => term < -1 && term > -20),
    `${Math.min(...terms)} to ${Math.max(...terms)}`,
  )
  assert.ok(new Set(terms).size > 1900, 'the prompt must count')
})

stories(
  'every file of the paper: rows beyond the context are errors, left out, or shortened, and counted',
  async () => {
    const folder = sharedPath('data/paper')
    if (MODEL === undefined || folder === undefined) return skip('../shared is absent')
    const files = readdirSync(folder).filter((name) => name.endsWith('.test.jsonl'))
    assert.ok(files.length >= 5)
    for (const name of files) {
      const counts = { rows: 0, long: 0 }
      const logprobs: number[] = []
      using model = await RewardModel.open(MODEL, { kind: 'implicit', device: 'cpu' })
      for await (const row of model.scoreStream(readJsonl(join(folder, name), { limit: 20 }), { onError: 'skip' })) {
        counts.rows++
        if (row.error?.code === 'ERR_ROW_TOO_LONG') counts.long++
        else if (row.error !== undefined) throw row.error
        else logprobs.push(...perToken([row]))
      }
      // Its tokenizer spells what it does not know in bytes, so code and formulas are long and unlikely.
      if (logprobs.length > 0) {
        assert.ok(
          logprobs.every((value) => value < 0 && value > -40),
          name,
        )
        assert.ok(mean(logprobs) < -1.5 && mean(logprobs) > -12, `${name}: ${mean(logprobs)} a token`)
      }

      using shortened = await RewardModel.open(MODEL, { kind: 'implicit', device: 'cpu', onLong: 'truncate-prompt' })
      const seen = { rows: 0, truncated: 0, long: 0 }
      for await (const row of shortened.scoreStream(readJsonl(join(folder, name), { limit: 20 }), {
        onError: 'skip',
      })) {
        seen.rows++
        if (row.truncated) {
          seen.truncated++
          assert.is(row.promptTokens + Math.max(...row.tokens), CONTEXT)
        } else if (row.error !== undefined) {
          seen.long++
          assert.is(row.error.code, 'ERR_ROW_TOO_LONG')
        }
      }
      assert.is(seen.rows, counts.rows)
      assert.is(seen.truncated + seen.long, counts.long, name)
    }
  },
)

stories('the counts in the summary of implex score', async () => {
  const data = sharedPath('data/paper/ultrafeedback.test.jsonl')
  if (MODEL === undefined || data === undefined) return skip('../shared is absent')
  const folder = temporaryFolder()
  const run = async (...more: string[]) => {
    const summary = join(folder, 'summary.json')
    const files = ['--data', data, '--out', join(folder, 'out.jsonl'), '--summary', summary]
    const { status, stderr } = await implexHere([
      'score',
      '--model',
      MODEL,
      '--kind',
      'implicit',
      ...files,
      ...more,
      '--force',
    ])
    return {
      status,
      stderr,
      summary: status === 0 ? (JSON.parse(readFileSync(summary, 'utf8')) as ScoreSummary) : undefined,
    }
  }
  const stopped = await run()
  assert.is(stopped.status, 1)
  assert.match(stopped.stderr, /line \d+: .*\[ERR_ROW_TOO_LONG\]/s)

  const noted = (await run('--on-error', 'skip')).summary!
  assert.is(noted.rows, 200)
  assert.ok(noted.errors > 0 && noted.skipped === 0 && noted.pairs === 200 - noted.errors)
  const skipped = (await run('--on-long', 'skip')).summary!
  assert.equal([skipped.errors, skipped.skipped, skipped.pairs], [0, noted.errors, noted.pairs])
  assert.is(skipped.accuracy, noted.accuracy)
  const shortened = (await run('--on-long', 'truncate-prompt', '--on-error', 'skip')).summary!
  assert.ok(shortened.truncated > 0)
  assert.is(shortened.truncated + shortened.errors, noted.errors)
  assert.is(shortened.pairs, noted.pairs + shortened.truncated)
})

stories.run()
