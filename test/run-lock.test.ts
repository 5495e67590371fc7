/** One writer at a time in a run folder or on an output, whoever comes second and however the first one ends; refused runs leave nothing. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { Worker } from 'node:worker_threads'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { personaExperiment } from '../lab/experiments/persona/persona.js'
import { theoryExperiment } from '../lab/experiments/theory/theory.js'
import { lockFile } from '../lib/native/handles.js'
import { loadBinding } from '../lib/native/load.js'
import { Lock } from '../lib/native/lock.js'
import { train } from '../lib/train/train.js'
import { writeTinyCheckpoint } from './fixtures/tiny-checkpoint.js'
import { implexHere } from './support/cli.js'
import { failure, fails, unsafe } from './support/engine.js'
import { repositoryRoot } from './support/shared.js'
import { temporaryFolder } from './support/tmp.js'
import { pairs, writeRows } from './support/train.js'

const folder = temporaryFolder()
const at = (...names: string[]) => join(folder, ...names)
await writeTinyCheckpoint(at('model'), { head: 'extra' })
const data = writeRows(at('pairs.jsonl'), pairs(8))
const env = { XDG_CACHE_HOME: at('xdg') }
const take = (path: string) => Lock.take(path, path, assert.unreachable)

const MODULE = JSON.stringify(pathToFileURL(join(repositoryRoot, 'dist', 'lib', 'native', 'lock.js')).href)
const HOLD = `
  const { Lock } = await import(${MODULE})
  await Lock.take(PATH, 'it', console.error)
  console.log('held')
  setInterval(() => {}, 1000)`
const holding = (path: string) => HOLD.replace('PATH', JSON.stringify(path))

/** A process that holds the lock until it is killed. */
async function holder(path: string) {
  const child = spawn(process.execPath, ['--input-type=module', '-e', holding(path)])
  await once(child.stdout, 'data')
  return child
}

const lock = suite('lock')

lock('a second taker is told who has it, in the same process too, until it is let go of', async () => {
  const path = at('a.lock')
  const first = await take(path)
  assert.is(readFileSync(path, 'utf8'), `${process.pid}\n`)
  const error = await failure(() => Lock.take(path, 'runs/a', assert.unreachable))
  assert.is(error.code, 'ERR_IN_USE')
  assert.match(
    error.message,
    `runs/a is being written by process ${process.pid}: wait for it, end it (kill ${process.pid})`,
  )
  await first[Symbol.asyncDispose]()
  assert.not.ok(existsSync(path))
  const second = await take(path)
  await first[Symbol.asyncDispose]() // once more: the lock is the second's
  assert.is((await failure(() => take(path))).code, 'ERR_IN_USE')
  await second[Symbol.asyncDispose]()
  const { message } = await failure(() => Lock.take(at('no', 'b.lock'), 'runs/b', assert.unreachable))
  assert.match(message, /^runs\/b: cannot write: ENOENT/)
})

lock('goes with a process that is killed: the next one has it at once', async () => {
  const path = at('killed.lock')
  const child = await holder(path)
  assert.match((await failure(() => take(path))).message, `process ${child.pid}`)
  child.kill('SIGKILL')
  await once(child, 'exit')
  assert.is(readFileSync(path, 'utf8'), `${child.pid}\n`)
  await (await take(path))[Symbol.asyncDispose]()
  assert.not.ok(existsSync(path))
})

lock('goes with a thread that is terminated', async () => {
  const path = at('thread.lock')
  const script = new URL(`data:text/javascript,${encodeURIComponent(holding(path))}`)
  const worker = new Worker(script, { stdout: true })
  await once(worker.stdout, 'data')
  assert.is((await failure(() => take(path))).code, 'ERR_IN_USE')
  await worker.terminate()
  await (await take(path))[Symbol.asyncDispose]()
})

lock('is a warning where the file system has no locks', async () => {
  await fails(() => lockFile(2 ** 20), 'ImplexError', /^cannot be locked: Bad file descriptor/)
  await fails(() => lockFile(unsafe('a')), 'TypeError', /"descriptor" must be/)
  const binding = loadBinding()
  const { lockFile: original } = binding
  binding.lockFile = () => original(2 ** 20)
  const warnings: string[] = []
  try {
    await using _ = await Lock.take(at('none.lock'), 'runs/a', (message) => warnings.push(message))
  } finally {
    binding.lockFile = original
  }
  assert.equal(warnings, ['runs/a cannot be locked: Bad file descriptor; make sure that no other process writes there'])
  assert.not.ok(existsSync(at('none.lock')))
})

lock('is never held twice, however often it is taken and removed', async () => {
  const path = at('contended.lock')
  const script = `
    const { Lock } = await import(${MODULE})
    const { open, rm } = await import('node:fs/promises')
    for (let taken = 0; taken < 100; ) {
      const lock = await Lock.take(${JSON.stringify(path)}, 'it', console.error).catch((error) => {
        if (error.code !== 'ERR_IN_USE') throw error
      })
      if (lock === undefined) continue
      await (await open(${JSON.stringify(at('inside'))}, 'wx')).close()
      await rm(${JSON.stringify(at('inside'))})
      await lock[Symbol.asyncDispose]()
      taken++
    }`
  const ends = [1, 2, 3].map(async () => {
    const child = spawn(process.execPath, ['--input-type=module', '-e', script], {
      stdio: ['ignore', 'ignore', 'pipe'],
    })
    let said = ''
    child.stderr.on('data', (text) => {
      said += text
    })
    const [status] = await once(child, 'close')
    assert.is(status, 0, said)
  })
  await Promise.all(ends)
})
lock.run()

const runs = suite('run folders')

runs('a training, an experiment and an output in use are refused and stay as they are', async () => {
  const training = ['train', '--model', at('model'), '--kind', 'explicit', '--data', data, '--out', at('run')]
  const scoring = ['score', '--model', at('model'), '--kind', 'explicit', '--data', data, '--out', at('rewards.jsonl')]
  const theory = ['experiment', 'theory', '--model', at('model'), '--out', at('run')]
  mkdirSync(at('run'))
  const holders = [await holder(at('run', '.lock')), await holder(at('rewards.jsonl.lock'))] as const
  writeFileSync(at('rewards.jsonl'), 'of the other\n')
  for (const [args, { pid }] of [
    [training, holders[0]],
    [[...training, '--resume'], holders[0]],
    [theory, holders[0]],
    [scoring, holders[1]],
    [[...scoring, '--force'], holders[1]],
  ] as const) {
    const { status, stderr } = await implexHere([...args, '--device', 'cpu'], env)
    assert.is(status, 1, stderr)
    assert.match(stderr, new RegExp(`(run|rewards.jsonl) is being written by process ${pid}: .*ERR_IN_USE`))
  }
  assert.equal(readdirSync(at('run')), ['.lock'])
  assert.is(readFileSync(at('rewards.jsonl'), 'utf8'), 'of the other\n')
  for (const child of holders) {
    child.kill('SIGKILL')
    await once(child, 'exit')
  }
  for (const args of [
    [...training, '--epochs', '1', '--batch-pairs', '4'],
    [...scoring, '--force'],
  ]) {
    const { status, stderr } = await implexHere([...args, '--device', 'cpu', '--quiet'], env)
    assert.is(status, 0, stderr)
  }
  assert.not.ok(readdirSync(at('run')).includes('.lock'))
  assert.not.ok(existsSync(at('rewards.jsonl.lock')))
})

runs('what is refused leaves neither a folder nor those above it that it made', async () => {
  const absent = { model: at('absent'), cache: false, device: 'cpu' } as const
  mkdirSync(at('mine'))
  for (const run of [
    (out: string) => train(absent.model, data, { ...absent, kind: 'explicit', out }),
    (out: string) => theoryExperiment({ ...absent, out }),
    (out: string) => personaExperiment({ ...absent, out }),
  ]) {
    assert.is((await failure(() => run(at('new', 'runs', 'a')))).code, 'ERR_CHECKPOINT_NOT_FOUND')
    assert.not.ok(existsSync(at('new')))
    assert.is((await failure(() => run(at('mine', 'b')))).code, 'ERR_CHECKPOINT_NOT_FOUND')
    assert.is((await failure(() => run(at('mine')))).code, 'ERR_CHECKPOINT_NOT_FOUND')
    assert.equal(readdirSync(at('mine')), [])
  }
})
runs.run()
