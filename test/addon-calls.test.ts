/** The native engine at work: order, abort, errors, and the event loop meanwhile. */
import { getEventListeners } from 'node:events'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { monitorEventLoopDelay } from 'node:perf_hooks'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { createCancel, openModel } from '../lib/native/handles.js'
import { loadBinding } from '../lib/native/load.js'
import type { NativeModel } from '../lib/native/types.js'
import { ImplexError } from '../lib/core/errors.js'
import { bits, CPU, randomBatch, rejection, SLOW, sleep, slowBatch, tinySpec } from './support/engine.js'
import { temporaryFolder } from './support/tmp.js'

const spec = await tinySpec()
const slowSpec = await tinySpec(SLOW)
const binding = loadBinding()
let slow: NativeModel

test.before(async () => {
  slow = await binding.openModel(slowSpec, CPU)
})
test.after(() => slow.dispose())

test('calls are worked off in order, over models too', async () => {
  const model = await binding.openModel(spec, CPU)
  const settled: number[] = []
  const note = (n: number) => () => settled.push(n)
  await Promise.all([
    slow.score(randomBatch(1, 512)).then(note(0)),
    model.score(randomBatch(1, 4)).then(note(1)),
    model.score(randomBatch(1, 4, { tokens: Int32Array.of(-1, 0, 0, 0) })).catch(note(2)),
    slow.score(randomBatch(1, 4)).then(note(3)),
    binding.openModel(spec, CPU).then((opened) => {
      note(4)()
      opened.dispose()
    }),
  ])
  assert.equal(settled, [0, 1, 2, 3, 4])
  model.dispose()
})

test('aborted before the call', async () => {
  const cancel = binding.createCancel()
  assert.is(cancel.cancelled, false)
  cancel.cancel()
  cancel.cancel()
  assert.is(cancel.cancelled, true)
  assert.is((await rejection(slow.score(slowBatch(), cancel))).code, 'ERR_ABORTED')
  assert.is((await rejection(binding.openModel(slowSpec, CPU, cancel))).code, 'ERR_ABORTED')
})

test('aborted while queued: rejects at once', async () => {
  const stop = binding.createCancel()
  const running = rejection(slow.score(slowBatch(), stop))
  const cancel = binding.createCancel()
  const queued = [slow.score(slowBatch(), cancel), slow.score(slowBatch(), cancel)].map(rejection)
  const opening = rejection(binding.openModel(spec, CPU, cancel))
  await sleep(10)
  const start = performance.now()
  cancel.cancel()
  for (const call of [...queued, opening]) assert.is((await call).code, 'ERR_ABORTED')
  assert.ok(performance.now() - start < 50, 'did not wait for the running job')
  stop.cancel()
  assert.is((await running).code, 'ERR_ABORTED')
})

test('aborted while running: stops early, and the model goes on', async () => {
  const expected = bits(await slow.score(randomBatch(1, 100)))
  const start = performance.now()
  await slow.score(slowBatch())
  const whole = performance.now() - start
  const cancel = binding.createCancel()
  const running = rejection(slow.score(slowBatch(), cancel))
  await sleep(whole / 10)
  const asked = performance.now()
  cancel.cancel()
  assert.is((await running).code, 'ERR_ABORTED')
  assert.ok(performance.now() - asked < whole / 2, `took ${performance.now() - asked} of ${whole} ms`)
  assert.is(bits(await slow.score(randomBatch(1, 100))), expected)
})

test('an AbortSignal through binding.ts, with its reason and without a listener left behind', async () => {
  const model = await openModel(slowSpec, CPU)
  const controller = new AbortController()
  const reason = new Error('no longer needed')
  const { signal } = controller
  const listeners = () => getEventListeners(signal, 'abort').length
  await model.score(randomBatch(1, 4), signal)
  assert.is(listeners(), 0)
  const running = rejection(model.score(slowBatch(), signal))
  assert.is(listeners(), 1)
  await sleep(20)
  controller.abort(reason)
  const error = await running
  assert.instance(error, ImplexError)
  assert.is(error.code, 'ERR_ABORTED')
  assert.is(error.cause, reason)
  assert.is((await rejection(model.score(slowBatch(), signal))).code, 'ERR_ABORTED')
  assert.is((await rejection(openModel(spec, CPU, signal))).code, 'ERR_ABORTED')
  assert.is(listeners(), 0)
  model.dispose()
})

test('a cancel that outlives thousands of calls', async () => {
  const model = await binding.openModel(spec, CPU)
  const cancel = createCancel()
  for (let i = 0; i < 3000; i++) await model.score(randomBatch(1, 2), cancel)
  cancel.cancel()
  model.dispose()
})

test("errors carry the caller's stack", async () => {
  const model = await openModel(spec, CPU)
  async function theCaller() {
    return await model.score({ ...randomBatch(1, 4), scored: Int32Array.of(9) })
  }
  const error = await rejection(theCaller())
  assert.match(error.stack ?? '', /^ImplexError \[ERR_BATCH_INVALID\]: .*\n\s+at theCaller/)
  model.dispose()
})

test('a missing file, a truncated file', async () => {
  const weights = (file: string) => spec.weights.map((weight) => ({ ...weight, file }))
  const missing = await rejection(openModel({ ...spec, weights: weights('/nowhere/model.safetensors') }, CPU))
  assert.is(missing.code, 'ERR_IO')
  assert.match(missing.message, /\/nowhere\/model\.safetensors/)
  const short = join(temporaryFolder(), 'short')
  writeFileSync(short, 'short')
  const truncated = await rejection(openModel({ ...spec, weights: weights(short) }, CPU))
  assert.ok(['ERR_IO', 'ERR_SAFETENSORS_INVALID'].includes(truncated.code ?? ''), String(truncated))
})

test('the event loop stays free while a long score runs', async () => {
  // Three tries: other programs on the machine also delay the loop.
  const p99: number[] = []
  for (let i = 0; i < 3 && !p99.some((ms) => ms < 20); i++) {
    const histogram = monitorEventLoopDelay({ resolution: 1 })
    histogram.enable()
    const start = performance.now()
    while (performance.now() - start < 1000) await slow.score(slowBatch())
    histogram.disable()
    assert.ok(histogram.count > 50, 'the loop turned')
    p99.push(histogram.percentile(99) / 1e6)
  }
  assert.ok(
    p99.some((ms) => ms < 20),
    `99th percentile: ${p99.join(', ')} ms`,
  )
})

test.run()
