/** `implex train`: flags and files of options, what it tells, signals, full disks. */
import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, readdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { evaluationText, stepText } from '../cli/train-progress.js'
import { writeTinyCheckpoint } from './fixtures/tiny-checkpoint.js'
import { type CliOptions, type CliResult, implex, implexHere } from './support/cli.js'
import { metricsOf, pairs, resultOf, writeRows } from './support/train.js'
import { repositoryRoot } from './support/shared.js'
import { skip } from './support/skip.js'
import { temporaryFolder } from './support/tmp.js'

const folder = temporaryFolder()
const at = (name: string) => join(folder, name)
await writeTinyCheckpoint(at('model'))
const data = writeRows(at('pairs.jsonl'), pairs(100))
const test = writeRows(at('test.jsonl'), pairs(20, 9))
const env = { XDG_CACHE_HOME: at('xdg') }
const run = (args: string[], options?: CliOptions): Promise<CliResult> =>
  options === undefined
    ? implexHere(['train', ...args], env)
    : implex(['train', ...args], { ...options, env: { ...env, ...options.env } })
const BASE = [
  '--model',
  at('model'),
  '--data',
  data,
  '--device',
  'cpu',
  '--learning-rate',
  '1e-3',
  '--batch-pairs',
  '8',
]

const cli = suite('implex train')

cli('flags, a file of the same options, and a finished run as that file give the same run', async () => {
  const flags = await run([
    ...BASE,
    '--kind',
    'implicit',
    '--epochs',
    '2',
    '--out',
    at('flags'),
    '--evaluation',
    `test=${test}`,
  ])
  assert.is(flags.status, 0, flags.stderr)
  assert.is(flags.stdout, '')
  writeFileSync(
    at('config.json'),
    JSON.stringify({
      ...{ model: at('model'), data, kind: 'implicit', device: 'cpu', learningRate: 5, batchPairs: 8, epochs: 2 },
      evaluation: { test },
    }),
  )
  const file = await run(['--config', at('config.json'), '--learning-rate', '1e-3', '--out', at('file'), '--quiet'])
  assert.equal([file.status, file.stderr], [0, ''])
  const again = await run(['--config', at('flags/config.json'), '--out', at('again'), '--quiet'])
  assert.is(again.status, 0, again.stderr)
  assert.equal(resultOf(at('file')), resultOf(at('flags')))
  assert.equal(resultOf(at('again')), resultOf(at('flags')))
  for (const line of flags.stderr.split('\n')) assert.ok(line.length <= 80 || line.includes(folder), line)
  assert.match(flags.stderr, /^step 10\/26 {1,2}epoch 0\.\d+ .*loss .*acc .*margin .*tok\/s.*left$/m)
  assert.match(flags.stderr, /^epoch 2 {2}evaluation of test: {2}loss .*acc/m)
  assert.match(flags.stderr, /implex: 26 steps in/)
})

cli('the number of threads changes no byte', async () => {
  const kind = ['--kind', 'explicit', '--epochs', '1', '--quiet']
  for (const threads of ['1', '2', '5'])
    assert.is(
      (await run([...BASE, ...kind, '--out', at(`threads-${threads}`)], { env: { IMPLEX_THREADS: threads } })).status,
      0,
    )
  assert.equal(resultOf(at('threads-2')), resultOf(at('threads-1')))
  assert.equal(resultOf(at('threads-5')), resultOf(at('threads-1')))
})

cli('Ctrl-C writes a checkpoint and says how to go on; the result is that of an undisturbed run', async () => {
  const args = [...BASE, '--kind', 'explicit', '--epochs', '30', '--checkpoint-steps', '1000', '--log-steps', '1']
  const undisturbed = await run([...args, '--quiet', '--out', at('undisturbed')])
  assert.is(undisturbed.status, 0, undisturbed.stderr)
  let stopped = false
  const onStderr = (text: string, child: { kill(signal: string): unknown }) => {
    if (!stopped && text.includes('step 20/')) stopped = Boolean(child.kill('SIGINT'))
  }
  const { status, stderr } = await run([...args, '--out', at('stopped')], { onStderr: onStderr as never })
  assert.is(status, 130, stderr)
  const said = /interrupted after step (\d+); continue with: implex (train --out \S+ --resume)/.exec(stderr)
  assert.ok(said, stderr)
  assert.equal(readdirSync(at('stopped/checkpoints')), [`step-${said![1]!.padStart(9, '0')}`])
  const resumed = await implex([...said![2]!.split(' '), '--quiet'], { env })
  assert.equal([resumed.status, resumed.stderr], [0, ''])
  assert.equal(resultOf(at('stopped')), resultOf(at('undisturbed')))
})

cli('a used folder, a folder of something else, a folder that cannot be made', async () => {
  const args = [...BASE, '--kind', 'sft', '--epochs', '1', '--quiet', '--out']
  assert.is((await run([...args, at('used')])).status, 0)
  const used = await run([...args, at('used')])
  assert.equal([used.status, /--resume/.test(used.stderr), /ERR_RESUME_MISMATCH/.test(used.stderr)], [1, true, true])
  const under = await run([...args, join(data, 'run')])
  assert.equal([under.status, /ERR_IO/.test(under.stderr)], [1, true])
  const complete = await run(['--out', at('used'), '--resume'])
  assert.is(complete.status, 0)
  assert.match(complete.stderr, /13 steps/)
})

cli('wrong usage is status 2 and names the option', async () => {
  const cases: [string[], RegExp][] = [
    [['--kind', 'explicit', '--out', at('x')], /--model is required/],
    [[...BASE, '--kind', 'dpo', '--out', at('x')], /explicit, implicit, generative or sft|must be one of/],
    [[...BASE, '--kind', 'explicit', '--beta', '1', '--out', at('x')], /"beta".*implicit/],
    [[...BASE, '--kind', 'explicit', '--learning-rate', 'fast', '--out', at('x')], /must be a number/],
    [[...BASE, '--kind', 'explicit', '--evaluation', 'test', '--out', at('x')], /NAME=FILE/],
    [['--model', at('model'), '--data', '-', '--kind', 'explicit', '--out', at('x')], /--data must be a file/],
  ]
  for (const [args, pattern] of cases) {
    const { status, stderr } = await run(args)
    assert.is(status, 2, stderr)
    assert.match(stderr, pattern)
  }
  writeFileSync(at('typo.json'), '{"learning_rate": 1}')
  assert.match((await run(['--config', at('typo.json')])).stderr, /no such option: learning_rate/)
  assert.not.ok(existsSync(at('x')))
})

cli('a full disk: the error says so, the last checkpoint is intact, and more room lets the run go on', async () => {
  const disk = at('disk')
  mkdirSync(disk)
  const mount = spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=2m', 'tmpfs', disk])
  if (mount.status !== 0) return skip('a small file system cannot be mounted here')
  try {
    const args = [...BASE, '--kind', 'implicit', '--epochs', '2', '--checkpoint-steps', '5', '--quiet']
    assert.is((await run([...args, '--out', at('roomy')])).status, 0)
    // Room for one checkpoint of 0.7 MiB, but neither for two nor for the model.
    writeFileSync(join(disk, 'ballast'), Buffer.alloc(900 * 1024))
    const full = await run([...args, '--out', join(disk, 'run')])
    assert.is(full.status, 1, full.stderr)
    assert.match(full.stderr, /ERR_DISK_FULL/)
    assert.match(full.stderr, /[Cc]ontinue with: implex train --out \S+ --resume/)
    const left = readdirSync(join(disk, 'run', 'checkpoints'))
    assert.equal(left, ['step-000000005'])
    for (const line of metricsOf(join(disk, 'run'))) assert.type(line.step, 'number')
    const more = spawnSync('mount', ['-o', 'remount,size=16m', disk])
    assert.is(more.status, 0)
    const resumed = await run(['--out', join(disk, 'run'), '--resume', '--quiet'])
    assert.is(resumed.status, 0, resumed.stderr)
    assert.equal(resultOf(join(disk, 'run')), resultOf(at('roomy')))
  } finally {
    spawnSync('umount', [disk])
  }
})

cli('a full disk under metrics.jsonl is an error that names it', () => {
  if (!existsSync('/dev/full')) return skip('there is no /dev/full')
  const script = `
    const { MetricsLog } = await import(${JSON.stringify(join(repositoryRoot, 'dist/lib/train/runs/metrics-log.js'))})
    const log = await MetricsLog.open('/dev/full', 0)
    await log.line({ step: 1 }).catch((error) => console.log(error.code, error.message))`
  const { stdout } = spawnSync(process.execPath, ['--input-type=module', '-e', script], { encoding: 'utf8' })
  assert.match(stdout, /ERR_DISK_FULL \/dev\/full: cannot write/)
})

cli('lines of progress fit 80 columns, whatever the numbers', () => {
  const step = {
    ...{
      step: 123_456,
      steps: 1_234_567,
      epoch: 12.345,
      epochs: 50,
      loss: 12.3456789,
      accuracy: 0.98765,
      margin: -123.456,
    },
    ...{
      chosenReward: 1,
      rejectedReward: 2,
      learningRate: 1e-6,
      gradientNorm: 1,
      pairs: 32,
      tokens: 5_000_000,
      seconds: 2,
    },
  }
  for (const left of [1, 60, 1e5, 1e7]) {
    const line = stepText([step], left)
    assert.ok(line.length <= 79, line)
    for (const part of ['123456/1234567', '12.3', 'loss 12.35', 'acc 0.988', 'margin -123', 'M tok/s'])
      assert.ok(line.includes(part), line)
  }
  const text = evaluationText({
    name: 'n'.repeat(64),
    step: 1,
    epoch: 1000,
    pairs: 1,
    loss: 1e-12,
    accuracy: 1,
    meanChosen: 0,
    meanMargin: -1e12,
    seconds: 1,
  })
  assert.ok(text.length <= 79, text)
})
cli.run()
