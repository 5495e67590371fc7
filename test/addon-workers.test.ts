/** The native engine in several threads of JavaScript at once, and in threads that are ended in the middle of a score. */
import { once } from 'node:events'
import { join } from 'node:path'
import { Worker } from 'node:worker_threads'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { openModel } from '../lib/native/handles.js'
import { bits, CPU, randomBatch, SLOW, sleep, slowBatch, tinySpec, within } from './support/engine.js'
import type { WorkerTask } from './support/engine-worker.js'

const spec = await tinySpec({ family: 'qwen3' })
const slowSpec = await tinySpec(SLOW)

function start(task: WorkerTask): Worker {
  return new Worker(join(import.meta.dirname, 'support', 'engine-worker.js'), { workerData: task, stderr: true })
}

/** Its results when it has ended by itself. Tells a score that never finished from a thread that never ended. */
async function run(task: WorkerTask): Promise<string[]> {
  const worker = start(task)
  const messages: string[] = []
  worker.on('message', (message) => messages.push(message))
  const ended = once(worker, 'exit')
  const complete = (async () => {
    while (messages.length <= task.batches.length) await once(worker, 'message')
  })()
  await within(
    60_000,
    'the scores',
    Promise.race([complete, once(worker, 'error').then(([error]) => assert.unreachable(error)), ended]),
  )
  assert.equal((await within(10_000, 'the end of the thread', ended))[0], 0)
  return messages.filter((message) => message !== 'running')
}

/** Resolves once the worker is in the middle of its score. */
const running = (worker: Worker) => within(20_000, 'the start of a worker', once(worker, 'message'))

test('four threads score at once and get the bits that one gets', async () => {
  const batches = Array.from({ length: 12 }, (_, i) => randomBatch(1 + (i % 3), 7 + i, {}, i))
  const model = await openModel(spec, CPU)
  const expected = []
  for (const batch of batches) expected.push(bits(await model.score(batch)))
  const results = await Promise.all([0, 1, 2, 3].map(() => run({ spec, batches })))
  for (const result of results) assert.equal(result, expected)
  model.dispose()
})

test('threads terminated in mid-score, twenty times, while this one scores', async () => {
  const model = await openModel(slowSpec, CPU)
  const batch = randomBatch(4, 64)
  const expected = bits(await model.score(batch))
  let stop = false
  let scored = 0
  const others = (async () => {
    for (; !stop; scored++) assert.is(bits(await model.score(batch)), expected)
  })()
  for (let i = 0; i < 20; i++) {
    // With a queue behind the running job, every second time.
    const worker = start({ spec: slowSpec, batches: new Array(1 + (i % 2) * 3).fill(slowBatch()) })
    let finished = 0
    worker.on('message', (message) => {
      if (message !== 'running') finished++
    })
    await running(worker)
    await sleep(i * 3)
    await within(10_000, 'termination', worker.terminate())
    assert.is(finished, 0, 'it was in mid-score')
  }
  stop = true
  await others
  assert.ok(scored > 0)
  assert.is(bits(await model.score(batch)), expected)
  model.dispose()
})

test('threads terminated together', async () => {
  const workers = [0, 1, 2, 3].map(() => start({ spec: slowSpec, batches: [slowBatch(), slowBatch()] }))
  await Promise.all(workers.map(running))
  await within(20_000, 'termination', Promise.all(workers.map((worker) => worker.terminate())))
})

test('process.exit() and an uncaught error in a thread during its score', async () => {
  const exiting = start({ spec: slowSpec, batches: [slowBatch(), slowBatch()], ending: 'exit' })
  assert.equal((await within(20_000, 'the exit', once(exiting, 'exit')))[0], 7)
  const throwing = start({ spec: slowSpec, batches: [slowBatch()], ending: 'throw' })
  const [error] = await within(20_000, 'the error', once(throwing, 'error'))
  assert.match(String(error), /thrown on purpose/)
  assert.equal((await within(20_000, 'the exit', once(throwing, 'exit')))[0], 1)
})

test('threads terminated when idle, and while they load the addon', async () => {
  const idle = start({ spec, batches: [randomBatch(1, 4)], ending: 'stay' })
  await running(idle)
  await sleep(100)
  await within(10_000, 'termination', idle.terminate())
  for (const delay of [0, 10, 20, 30, 40, 50, 60, 80]) {
    const worker = start({ spec, batches: [randomBatch(1, 4)], ending: 'stay' })
    await sleep(delay)
    await within(10_000, 'termination', worker.terminate())
  }
})

test('many threads one after the other', async () => {
  for (let i = 0; i < 10; i++) assert.is((await run({ spec, batches: [randomBatch(1, 4)] })).length, 1)
})

test.run()
