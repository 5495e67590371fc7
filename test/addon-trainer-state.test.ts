/** The native trainer's state file: going on from it, and files that are not one; and the same bits on any number of threads. */
import { spawnSync } from 'node:child_process'
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { openTrainer, type Trainer } from '../lib/native/handles.js'
import type { NativeTrainOptions } from '../lib/native/types.js'
import { seededRandom } from './fixtures/random.js'
import { CPU, rejection, tinySpec } from './support/engine.js'
import { fileHash, pairBatch, randomHead, randomPairs, tensorBits, trainOptions, valuesOf } from './support/trainer.js'
import { temporaryFolder } from './support/tmp.js'

const spec = await tinySpec()
const folder = temporaryFolder()
const options = trainOptions({ head: randomHead(32) })
const open = (change: Parameters<typeof trainOptions>[0] = {}, of = spec) =>
  openTrainer(of, CPU, trainOptions({ ...options, ...change }))

/** Steps `first` to `last`, each with a batch of its own. */
async function train(
  trainer: Trainer,
  first: number,
  last: number,
  objective: NativeTrainOptions['objective'] = 'explicit',
) {
  const losses: number[] = []
  for (let step = first; step <= last; step++) {
    losses.push(...(await trainer.accumulate(pairBatch(randomPairs(3, step), objective))).losses)
    losses.push(await trainer.step({ learningRate: 1e-3, maxNorm: 1 }))
  }
  return losses
}

const saving = suite('state')

saving('training goes on from a state as if nothing had happened', async () => {
  const optimizers = [
    { kind: 'adamw' },
    { kind: 'rmsprop', momentum: 0.5 },
    { kind: 'rmsprop' },
    { kind: 'sgd', momentum: 0.9 },
    { kind: 'sgd' },
  ] as const
  for (const dtype of ['f32', 'bf16'] as const) {
    for (const optimizer of optimizers) {
      const path = join(folder, 'half-way')
      const settings = trainOptions({ objective: 'implicit', optimizer })
      const one = await openTrainer(spec, { device: 'cpu', dtype }, settings)
      await train(one, 1, 3, 'implicit')
      await one.saveState(path)
      const expected = await train(one, 4, 6, 'implicit')
      const two = await openTrainer(spec, { device: 'cpu', dtype }, settings)
      // A gradient that stands must not leak into the state that is loaded.
      await two.accumulate(pairBatch(randomPairs(2, 99), 'implicit'))
      await two.loadState(path)
      assert.is(await two.steps(), 3)
      assert.equal(await train(two, 4, 6, 'implicit'), expected)
      assert.is(tensorBits(await valuesOf(two)), tensorBits(await valuesOf(one)))
      await one.saveState(join(folder, 'one'))
      await two.saveState(join(folder, 'two'))
      assert.is(fileHash(join(folder, 'two')), fileHash(join(folder, 'one')))
      one.dispose()
      two.dispose()
    }
  }
})

saving('loading what was just saved changes nothing; saving does not disturb the gradients', async () => {
  const trainer = await open()
  await train(trainer, 1, 2)
  await trainer.accumulate(pairBatch(randomPairs(3, 3)))
  const gradient = await trainer.gradient('layers.0.q')
  const path = join(folder, 'same')
  await trainer.saveState(path)
  assert.equal(await trainer.gradient('layers.0.q'), gradient)
  const before = tensorBits(await valuesOf(trainer))
  await trainer.loadState(path)
  assert.is(tensorBits(await valuesOf(trainer)), before)
  assert.ok((await trainer.gradient('layers.0.q')).every((value) => value === 0))
  trainer.dispose()
})

saving('a state brings a trainer back from NaN', async () => {
  const trainer = await open()
  const path = join(folder, 'good')
  await trainer.saveState(path)
  const expected = await train(trainer, 1, 1)
  await trainer.accumulate(pairBatch(randomPairs(3, 2)))
  await trainer.step({ learningRate: 1e30, maxNorm: 0 })
  const error = await rejection(trainer.accumulate(pairBatch(randomPairs(3, 1))))
  assert.is(error.code, 'ERR_NOT_FINITE')
  await trainer.loadState(path)
  assert.equal(await train(trainer, 1, 1), expected)
  trainer.dispose()
})

saving('damaged, truncated and foreign files are refused, and the trainer is as it was', async () => {
  const trainer = await open()
  await train(trainer, 1, 2)
  const good = join(folder, 'intact')
  await trainer.saveState(good)
  await train(trainer, 3, 3)
  const values = tensorBits(await valuesOf(trainer))
  const refused = async (path: string, reason: RegExp) => {
    const error = await rejection(trainer.loadState(path))
    assert.is(error.code, 'ERR_IO', String(error))
    assert.match(error.message, reason)
    assert.ok(error.message.includes(path), 'names the file')
    assert.is(tensorBits(await valuesOf(trainer)), values)
    assert.is(await trainer.steps(), 3)
  }
  const bytes = readFileSync(good)
  const variant = (content: Uint8Array) => {
    const path = join(folder, 'variant')
    writeFileSync(path, content)
    return path
  }
  await refused(join(folder, 'absent'), /cannot open/)
  await refused(folder, /not a regular file/)
  symlinkSync(join(folder, 'nothing'), join(folder, 'dangling'))
  await refused(join(folder, 'dangling'), /cannot open/)
  await refused(variant(new Uint8Array(0)), /too short/)
  await refused(variant(new Uint8Array(4096)), /does not start as one/)
  const random = seededRandom(5)
  for (const length of [1, 39, 47, 48, 100, bytes.length / 2, bytes.length - 8, bytes.length - 1]) {
    copyFileSync(good, join(folder, 'cut'))
    truncateSync(join(folder, 'cut'), Math.floor(length))
    await refused(join(folder, 'cut'), /too short|truncated/)
  }
  await refused(variant(Buffer.concat([bytes, Buffer.alloc(1)])), /not a state of this run/)
  // Every bit of the header, and some of the rest.
  const positions = Array.from({ length: 48 }, (_, i) => i)
  for (let i = 0; i < 40; i++) positions.push(random.below(bytes.length))
  for (const position of [...positions, bytes.length - 1]) {
    const damaged = Buffer.from(bytes)
    damaged[position]! ^= 1 << random.below(8)
    await refused(variant(damaged), /not a state of this run/)
  }
  // Two words exchanged.
  const exchanged = Buffer.from(bytes)
  bytes.copy(exchanged, 1000, 2000, 2008)
  bytes.copy(exchanged, 2000, 1000, 1008)
  await refused(variant(exchanged), /checksum/)

  const others = {
    'another objective': await openTrainer(spec, CPU, trainOptions({ objective: 'implicit' })),
    'another optimizer': await open({ optimizer: { kind: 'sgd' } }),
    'other freezing': await open({ frozen: { embedding: true } }),
    'another model': await open({}, await tinySpec({ layers: 1 })),
  }
  for (const [name, other] of Object.entries(others)) {
    const path = join(folder, name)
    await other.saveState(path)
    await refused(path, /other parameters/)
    other.dispose()
  }

  await trainer.loadState(good)
  assert.is(await trainer.steps(), 2)
  await train(trainer, 3, 3)
  assert.is(tensorBits(await valuesOf(trainer)), values)
  trainer.dispose()
})

saving('where a file cannot be written: an error, the old one intact, nothing left behind', async () => {
  const trainer = await open()
  const place = join(folder, 'place')
  mkdirSync(place)
  const path = join(place, 'state')
  await trainer.saveState(path)
  const before = fileHash(path)
  await train(trainer, 1, 1)
  for (const target of [join(folder, 'no', 'such', 'folder'), place, `${path}/below-a-file`]) {
    const error = await rejection(trainer.saveState(target))
    assert.is(error.code, 'ERR_IO', String(error))
    assert.ok(error.message.includes(target))
  }
  if (existsSync('/dev/full')) {
    // The temporary file lies beside its name; in its place a device that is always full.
    symlinkSync('/dev/full', `${path}.tmp-${process.pid}`)
    const error = await rejection(trainer.saveState(path))
    assert.is(error.code, 'ERR_DISK_FULL', String(error))
  }
  assert.is(fileHash(path), before)
  assert.equal(readdirSync(place), ['state'])
  assert.equal(
    readdirSync(folder).filter((name) => name.includes('.tmp-')),
    [],
  )
  await trainer.saveState(path)
  assert.is.not(fileHash(path), before)
  trainer.dispose()
})

saving.run()

const threads = suite('threads')

threads('1, 2 or 5 threads give the same bits', () => {
  const program = join(import.meta.dirname, 'support', 'trainer-child.js')
  const runs = [1, 2, 5].map((count) => {
    const { status, signal, stderr, stdout } = spawnSync(process.execPath, [program, 'bits'], {
      encoding: 'utf8',
      timeout: 240_000,
      env: { ...process.env, IMPLEX_THREADS: String(count) },
    })
    assert.is(status, 0, `${signal} ${stderr}`)
    const run = JSON.parse(stdout) as { threads: number; results: unknown }
    assert.is(run.threads, count)
    return run.results
  })
  assert.equal(runs[1], runs[0])
  assert.equal(runs[2], runs[0])
})

threads.run()
