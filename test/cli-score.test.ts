/** `implex score` end to end: output, summary, bad rows, resuming, signals, closed pipes, full disks. */
import { spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { truncateSync } from 'node:fs'
import { join } from 'node:path'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { PreferenceMetrics } from '../lib/evaluate/metrics.js'
import { RewardModel } from '../lib/models/reward-model.js'
import { seededRandom } from './fixtures/random.js'
import { writeTinyCheckpoint } from './fixtures/tiny-checkpoint.js'
import { type CliOptions, type CliResult, implex, implexHere } from './support/cli.js'
import { sleep } from './support/engine.js'
import { repositoryRoot } from './support/shared.js'
import { skip } from './support/skip.js'
import { temporaryFolder } from './support/tmp.js'

const folder = temporaryFolder()
const POLICY = join(folder, 'policy')
const REFERENCE = join(folder, 'reference')
await writeTinyCheckpoint(POLICY, { head: 'extra' })
await writeTinyCheckpoint(REFERENCE, { seed: 2 })
const at = (name: string) => join(folder, name)
const env = { XDG_CACHE_HOME: at('xdg') }

const random = seededRandom(6)
const words = 'the answer is that people would write about water and oil all day Yes No'.split(' ')
const text = (count: number) => Array.from({ length: count }, () => random.pick(words)).join(' ')
const pair = (id: number) => ({
  id,
  prompt: text(4),
  chosen: text(1 + random.below(9)),
  rejected: text(1 + random.below(9)),
})
const PAIRS = Array.from({ length: 300 }, (_, i) => pair(i))

function writeLines(name: string, lines: unknown[]): string {
  writeFileSync(at(name), lines.map((line) => `${typeof line === 'string' ? line : JSON.stringify(line)}\n`).join(''))
  return at(name)
}
const data = writeLines('pairs.jsonl', PAIRS)
const EXPLICIT = ['score', '--model', POLICY, '--kind', 'explicit', '--device', 'cpu']
const IMPLICIT = ['score', '--model', POLICY, '--reference', REFERENCE, '--kind', 'implicit', '--device', 'cpu']
const run = (args: string[], options?: CliOptions): Promise<CliResult> =>
  options === undefined ? implexHere(args, env) : implex(args, { ...options, env: { ...env, ...options.env } })
const rowsOf = (output: string) =>
  output
    .split('\n')
    .slice(0, -1)
    .map((line) => JSON.parse(line))

const score = suite('implex score')

score('pairs: one line per row in order, with all digits, and a summary that agrees', async () => {
  const { status, stdout, stderr } = await run([...EXPLICIT, '--data', data, '--summary', at('summary.json')])
  assert.is(status, 0, stderr)
  using model = await RewardModel.open(POLICY, { kind: 'explicit', device: 'cpu' })
  const expected = await model.score(PAIRS)
  const metrics = new PreferenceMetrics()
  const rows = rowsOf(stdout)
  assert.is(rows.length, PAIRS.length)
  for (const [i, row] of rows.entries()) {
    const [chosen, rejected] = expected.rewards[i] as [number, number]
    const { promptTokens, tokens } = expected.rows[i]!
    assert.equal(row, {
      id: i,
      index: i,
      chosen_reward: chosen,
      rejected_reward: rejected,
      margin: chosen - rejected,
      prompt_tokens: promptTokens,
      chosen_tokens: tokens[0],
      rejected_tokens: tokens[1],
    })
    metrics.add(chosen, rejected)
  }
  const summary = JSON.parse(readFileSync(at('summary.json'), 'utf8'))
  assert.is(summary.rows, PAIRS.length)
  assert.is(summary.accuracy, metrics.accuracy)
  assert.is(summary.mean_margin, metrics.meanMargin)
  assert.is(summary.normalized_margin, metrics.normalizedMargin)
  for (const key of ['seconds', 'load_seconds', 'pairs_per_second', 'tokens_per_second'])
    assert.ok(summary[key] > 0, key)
  assert.equal(
    [summary.errors, summary.skipped, summary.truncated, summary.device, summary.dtype],
    [0, 0, 0, 'cpu', 'f32'],
  )
  assert.equal([summary.template, summary.reference_loaded, summary.fallback_reason], ['checkpoint', false, null])
  assert.match(summary.version, /^\d+\.\d+\.\d+$/)
  assert.match(stderr, /300 rows in .* accuracy/s)
})

score('groups, conversations and ids of either type, from standard input', async () => {
  const rows = [
    { id: 'a', prompt: 'p', responses: ['water', 'oil', 'day'] },
    {
      prompt: [{ role: 'user', content: 'p' }],
      chosen: [{ role: 'assistant', content: 'water' }],
      rejected: [{ role: 'assistant', content: 'oil' }],
    },
  ]
  const { status, stdout } = await run([...EXPLICIT, '--data', '-', '--quiet'], {
    input: rows.map((row) => JSON.stringify(row)).join('\n'),
  })
  assert.is(status, 0)
  const [group, conversation] = rowsOf(stdout)
  assert.equal(Object.keys(group), ['id', 'index', 'rewards', 'prompt_tokens', 'tokens'])
  assert.is(group.rewards.length, 3)
  assert.equal(group.rewards.slice(0, 2), [conversation.chosen_reward, conversation.rejected_reward])
  assert.not('id' in conversation)
})

score('--logprobs adds what an implicit reward is made of', async () => {
  const { stdout } = await run([...IMPLICIT, '--data', data, '--limit', '5', '--logprobs', '--beta', '0.5'])
  for (const row of rowsOf(stdout)) {
    assert.is(row.chosen_reward, 0.5 * (row.chosen_logprob - row.chosen_reference_logprob))
    assert.is(row.rejected_token_logprobs.length, row.rejected_tokens)
    assert.is(row.chosen_reference_token_logprobs.length, row.chosen_tokens)
  }
})

score('--limit, --batch-tokens and --encode-threads change no byte', async () => {
  const whole = await run([...EXPLICIT, '--data', data])
  const part = await run([
    ...EXPLICIT,
    '--data',
    data,
    '--limit',
    '70',
    '--batch-tokens',
    '40',
    '--encode-threads',
    '2',
  ])
  assert.is(part.stdout, `${whole.stdout.split('\n').slice(0, 70).join('\n')}\n`)
  assert.is((await run([...EXPLICIT, '--data', data, '--limit', '0'])).stdout, '')
})

score('the number of threads changes no byte', async () => {
  const outputs = await Promise.all(
    ['1', '2', '5'].map((threads) =>
      run([...IMPLICIT, '--data', data, '--no-cache'], { env: { IMPLEX_THREADS: threads } }),
    ),
  )
  for (const { stdout } of outputs) assert.is(stdout, outputs[0]!.stdout)
})

score('an empty file is scored: no rows, no metrics', async () => {
  const { status, stdout } = await run([
    ...EXPLICIT,
    '--data',
    writeLines('empty.jsonl', []),
    '--out',
    at('empty.out'),
    '--summary',
    '-',
  ])
  assert.is(status, 0)
  assert.is(readFileSync(at('empty.out'), 'utf8'), '')
  assert.equal([JSON.parse(stdout).rows, JSON.parse(stdout).accuracy], [0, null])
})
score.run()

const bad = suite('bad rows')
const BAD: [string, string, string][] = [
  ['broken JSON', '{"prompt": "p", ', 'ERR_ROW_INVALID'],
  ['no object', '[1]', 'ERR_ROW_INVALID'],
  ['no rejected', '{"prompt":"p","chosen":"c"}', 'ERR_ROW_INVALID'],
  ['an empty response', '{"prompt":"p","chosen":"","rejected":"r"}', 'ERR_RESPONSE_EMPTY'],
  ['a row beyond the context', JSON.stringify({ prompt: text(300), chosen: 'c', rejected: 'r' }), 'ERR_ROW_TOO_LONG'],
]
const mixed = writeLines(
  'mixed.jsonl',
  BAD.flatMap(([, line], i) => [PAIRS[i]!, line, '']),
)

bad('--on-error skip: an error in its place, the rest scored', async () => {
  const { status, stdout, stderr } = await run([
    ...EXPLICIT,
    '--data',
    mixed,
    '--on-error',
    'skip',
    '--summary',
    at('mixed.json'),
  ])
  assert.is(status, 0, stderr)
  const rows = rowsOf(stdout)
  assert.is(rows.length, 2 * BAD.length)
  for (const [i, [, , code]] of BAD.entries()) {
    assert.type(rows[2 * i].chosen_reward, 'number')
    const { index, error } = rows[2 * i + 1]
    assert.equal([index, error.code, error.line], [2 * i + 1, code, 3 * i + 2])
    assert.match(error.message, new RegExp(`^line ${3 * i + 2}: `))
  }
  assert.is(JSON.parse(readFileSync(at('mixed.json'), 'utf8')).errors, BAD.length)
})

for (const [name, line, code] of BAD) {
  bad(`--on-error stop names file and line: ${name}`, async () => {
    const file = writeLines('one-bad.jsonl', [PAIRS[0], PAIRS[1], line, PAIRS[2]])
    const { status, stdout, stderr } = await run([...EXPLICIT, '--data', file])
    assert.is(status, 1)
    assert.is(rowsOf(stdout).length, 2)
    assert.ok(stderr.includes(`${file}: line 3: `) && stderr.includes(code), stderr)
  })
}

bad('--on-long skip and truncate-prompt are counted', async () => {
  const file = writeLines('long.jsonl', [PAIRS[0], BAD[4]![1], PAIRS[1]])
  const skipped = await run([...EXPLICIT, '--data', file, '--on-long', 'skip', '--summary', at('long.json')])
  assert.is(skipped.status, 0)
  assert.equal([rowsOf(skipped.stdout)[1].skipped, rowsOf(skipped.stdout)[1].error.code], [true, 'ERR_ROW_TOO_LONG'])
  const counts = () => {
    const { errors, skipped: left, truncated } = JSON.parse(readFileSync(at('long.json'), 'utf8'))
    return [errors, left, truncated]
  }
  assert.equal(counts(), [0, 1, 0])
  const cut = await run([...EXPLICIT, '--data', file, '--on-long', 'truncate-prompt', '--summary', at('long.json')])
  assert.is(rowsOf(cut.stdout)[1].truncated, true)
  assert.equal(counts(), [0, 0, 1])
})

bad('after --on-error stop, the run goes on with --resume --on-error skip', async () => {
  const out = at('stopped.out')
  const first = await run([...EXPLICIT, '--data', mixed, '--out', out])
  assert.is(first.status, 1)
  assert.match(
    first.stderr,
    /The output so far is kept\. To continue, repeat the command with --resume --on-error skip/,
  )
  const second = await run([...EXPLICIT, '--data', mixed, '--out', out, '--resume', '--on-error', 'skip'])
  assert.is(second.status, 0, second.stderr)
  assert.is(readFileSync(out, 'utf8'), (await run([...EXPLICIT, '--data', mixed, '--on-error', 'skip'])).stdout)
})
bad.run()

const resume = suite('resuming')
const big = writeLines(
  'big.jsonl',
  Array.from({ length: 2000 }, (_, i) => PAIRS[i % PAIRS.length]),
)
let expected = ''
let expectedSummary: Record<string, unknown> = {}
const METRICS = ['rows', 'errors', 'pairs', 'accuracy', 'mean_margin', 'normalized_margin']
resume.before(async () => {
  const { status, stderr } = await run([
    ...IMPLICIT,
    '--data',
    big,
    '--out',
    at('whole.out'),
    '--summary',
    at('whole.json'),
  ])
  assert.is(status, 0, stderr)
  expected = readFileSync(at('whole.out'), 'utf8')
  expectedSummary = JSON.parse(readFileSync(at('whole.json'), 'utf8'))
  assert.not(existsSync(at('whole.out.resume.json')))
})
const finished = async (out: string, flags: string[] = []) => {
  const { status, stderr } = await run([
    ...IMPLICIT,
    '--data',
    big,
    '--out',
    out,
    '--resume',
    '--summary',
    at('resumed.json'),
    ...flags,
  ])
  assert.is(status, 0, stderr)
  assert.ok(readFileSync(out, 'utf8') === expected, 'the bytes differ from those of an undisturbed run')
  const summary = JSON.parse(readFileSync(at('resumed.json'), 'utf8'))
  for (const key of METRICS) assert.is(summary[key], expectedSummary[key], key)
  assert.not(existsSync(`${out}.resume.json`))
  return summary
}

for (const [lines, moment] of [
  [-1, 'before it writes'],
  [0, 'when it has opened its output'],
  [1, 'with some lines'],
  [1000, 'with half of its lines'],
] as const) {
  resume(`killed with SIGKILL ${moment}, continued: the same bytes`, async () => {
    const out = at(`killed-${lines}.out`)
    // In batches so small that it is not done before it is killed.
    const { signal } = await run([...IMPLICIT, '--data', big, '--out', out, '--no-cache', '--batch-tokens', '40'], {
      onStart: async (child) => {
        if (lines < 0) await once(child, 'spawn')
        else while (child.exitCode === null && linesOf(out) < lines) await sleep(5)
        child.kill('SIGKILL')
      },
    })
    assert.is(signal, 'SIGKILL')
    const summary = await finished(out)
    assert.not(summary.reference_loaded, 'the values of the first run were not found')
  })
}

/** Lines in a file; -1 where there is none. */
function linesOf(path: string): number {
  return existsSync(path) ? readFileSync(path, 'utf8').split('\n').length - 1 : -1
}

resume('cut at any byte: the same bytes', async () => {
  const lines = readFileSync(big, 'utf8').split('\n').slice(0, -1)
  const journal = Buffer.concat(lines.map((line) => createHash('sha256').update(line).digest().subarray(0, 8)))
  for (const bytes of [0, 1, 100, 5000, Math.floor(expected.length / 2), expected.length - 1, expected.length]) {
    const out = at('cut.out')
    await interrupted(out)
    writeFileSync(out, expected.slice(0, bytes))
    writeFileSync(`${out}.resume.rows`, journal)
    const summary = await finished(out, ['--batch-tokens', '900'])
    assert.is(summary.resumed_rows, expected.slice(0, bytes).split('\n').length - 1)
  }
})

/** A run ended by Ctrl-C soon after it began to write. */
async function interrupted(out: string, args: string[] = [...IMPLICIT, '--data', big]): Promise<CliResult> {
  rmSync(out, { force: true })
  const result = run([...args, '--out', out, '--force'], {
    onStart: async (child) => {
      while (!existsSync(`${out}.resume.json`) && child.exitCode === null) await sleep(5)
      child.kill('SIGINT')
    },
  })
  return result
}

resume('Ctrl-C: what is under way is finished, status 130, and how to go on', async () => {
  const out = at('interrupted.out')
  const { status, stderr } = await interrupted(out)
  assert.is(status, 130)
  assert.match(stderr, /interrupted after \d+ rows; to continue, repeat the command with --resume/)
  const lines = readFileSync(out, 'utf8')
  assert.ok(lines === '' || lines.endsWith('\n'))
  assert.ok(expected.startsWith(lines))
  await finished(out)
})

resume('an unfinished output is not overwritten without --force', async () => {
  const out = at('unfinished.out')
  await interrupted(out)
  const before = readFileSync(out, 'utf8')
  const { status, stderr } = await run([...IMPLICIT, '--data', big, '--out', out])
  assert.is(status, 1)
  assert.match(stderr, /is unfinished .* --resume, or overwrite it with --force/)
  assert.is(readFileSync(out, 'utf8'), before)
  const forced = await run([...IMPLICIT, '--data', big, '--out', out, '--force', '--limit', '3'])
  assert.is(forced.status, 0)
  assert.is(readFileSync(out, 'utf8').split('\n').length, 4)
})

resume('another run does not continue it, and the difference is named', async () => {
  const out = at('mismatch.out')
  await interrupted(out)
  const others: [RegExp, string[]][] = [
    [/beta was 0\.01, now 0\.02/, [...IMPLICIT, '--data', big, '--beta', '0.02']],
    [/dtype was "f32", now "bf16"/, [...IMPLICIT, '--data', big, '--dtype', 'bf16']],
    [/template was content \w+, now content \w+/, [...IMPLICIT, '--data', big, '--template', 'default']],
    [/on-long was "error", now "skip"/, [...IMPLICIT, '--data', big, '--on-long', 'skip']],
    [/logprobs was false, now true/, [...IMPLICIT, '--data', big, '--logprobs']],
    [/reference was content \w+, now content \w+/, [...IMPLICIT, '--data', big, '--reference', POLICY]],
    [
      /model was content \w+, now content \w+/,
      ['score', '--model', REFERENCE, '--reference', REFERENCE, '--kind', 'implicit', '--data', big],
    ],
    [/kind was "implicit", now "explicit"/, [...EXPLICIT, '--data', big]],
  ]
  for (const [message, args] of others) {
    const { status, stderr } = await run([...args, '--out', out, '--resume'])
    assert.is(status, 1)
    assert.match(stderr, message)
    assert.match(stderr, /ERR_RESUME_MISMATCH/)
  }
  await finished(out)
})

resume(
  '--resume with nothing there begins; with a finished output it is done; with another file in its place it refuses',
  async () => {
    const out = at('fresh.out')
    await finished(out)
    const again = await run([...IMPLICIT, '--data', big, '--out', out, '--resume'])
    assert.is(again.status, 0)
    assert.match(again.stderr, /is complete; there is nothing to resume/)
    await interrupted(out)
    writeFileSync(out, '{"index":0,"chosen_reward":1,"rejected_reward":2}\n{"index":7}\n')
    writeFileSync(`${out}.resume.rows`, Buffer.alloc(16))
    const foreign = await run([...IMPLICIT, '--data', big, '--out', out, '--resume'])
    assert.is(foreign.status, 1)
    assert.match(foreign.stderr, /line 2 is not the line that this run wrote for row 1/)
    truncateSync(`${out}.resume.json`, 10)
    const damaged = await run([...IMPLICIT, '--data', big, '--out', out, '--resume'])
    assert.match(damaged.stderr, /resume\.json: the file is not valid JSON: .*; start again with --force/)
  },
)
resume.run()

const ends = suite('ways to end')
const shell = (command: string) =>
  spawnSync('bash', ['-c', `set -o pipefail; ${command}`], {
    env: { ...process.env, ...env },
    encoding: 'utf8',
    timeout: 60_000,
  })
const node = `'${process.execPath}' '${join(repositoryRoot, 'dist', 'cli', 'main.js')}'`

ends('a reader that has enough (head -5) ends it quietly', () => {
  const { status, stdout, stderr } = shell(`${node} ${EXPLICIT.join(' ')} --data '${big}' | head -5`)
  assert.is(stdout.split('\n').length, 6)
  assert.is(stderr, '')
  assert.is(status, 0)
})

ends('a full disk is an error that says so', () => {
  if (!existsSync('/dev/full')) return skip('there is no /dev/full')
  const file = shell(`${node} ${EXPLICIT.join(' ')} --data '${data}' --out /dev/full`)
  assert.is(file.status, 1)
  assert.match(file.stderr, /\/dev\/full: cannot write: .*ENOSPC/)
  assert.match(file.stderr, /ERR_DISK_FULL/)
  const stdout = shell(`${node} ${EXPLICIT.join(' ')} --data '${data}' > /dev/full`)
  assert.is(stdout.status, 1)
  assert.match(stdout.stderr, /standard output: cannot write: .*ENOSPC/)
})

ends('output that cannot be written, data and models that are not there: status 1, naming the path', async () => {
  mkdirSync(at('a-folder'))
  const cases: [string[], string][] = [
    [[...EXPLICIT, '--data', data, '--out', join(folder, 'no', 'such', 'folder.out')], join('no', 'such')],
    [[...EXPLICIT, '--data', data, '--out', at('a-folder')], 'a-folder'],
    [[...EXPLICIT, '--data', at('absent.jsonl')], 'absent.jsonl: there is no such file'],
    [[...EXPLICIT, '--data', at('a-folder')], 'a-folder'],
    [['score', '--model', at('absent-model'), '--kind', 'explicit', '--data', data], 'absent-model'],
    [[...EXPLICIT, '--data', data, '--head', at('absent-head')], 'absent-head'],
    [[...EXPLICIT, '--data', data, '--template', at('absent.jinja')], 'absent.jinja'],
    [[...EXPLICIT, '--data', data, '--summary', join(folder, 'no', 'summary.json')], 'summary.json'],
  ]
  for (const [args, path] of cases) {
    const { status, stderr } = await run(args)
    assert.is(status, 1, stderr)
    assert.ok(stderr.includes(path), stderr)
    assert.not(stderr.includes('this is a bug in implex'), stderr)
  }
})

ends('a flag that does not fit the kind is wrong usage', async () => {
  const { status, stderr } = await run([...EXPLICIT, '--data', data, '--reference', REFERENCE])
  assert.is(status, 2)
  assert.match(stderr, /only the implicit kind has a reference/)
})

ends('the second Ctrl-C ends at once', async () => {
  const { status } = await run([...EXPLICIT, '--data', '-'], {
    onStart: (child) => {
      child.stdin?.removeAllListeners('finish')
      // The first once it is at work, the second once it has said that it heard the first.
      child.stdout?.once('data', () => child.kill('SIGINT'))
      child.stderr?.once('data', () => child.kill('SIGINT'))
    },
    input: `${JSON.stringify(PAIRS[0])}\n`.repeat(200_000),
  })
  assert.is(status, 130)
})
ends.run()
