/** The native engine in one thread: its exports and its handles. */
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { nativeInfo, openModel, probeDevice } from '../lib/native/handles.js'
import { loadBinding, nativeLocation } from '../lib/native/load.js'
import { ImplexError } from '../lib/core/errors.js'
import {
  CPU,
  fails,
  failure,
  randomBatch,
  rejection,
  SLOW,
  sleep,
  slowBatch,
  tinySpec,
  unsafe,
  within,
} from './support/engine.js'

const spec = await tinySpec()
const slowSpec = await tinySpec(SLOW)
const binding = loadBinding()

const exported = suite('exports')

exported('are those that binding.ts declares', () => {
  assert.equal(Object.keys(binding).sort(), [
    'createCancel',
    'info',
    'kernelBenchmark',
    'kernelGemm',
    'kernelLinearLogprob',
    'kernelLinearReward',
    'lockFile',
    'meanRow',
    'openModel',
    'openTrainer',
    'probeDevice',
    'profileOperations',
    'trainMemory',
  ])
})

exported('handles have the members that binding.ts declares', async () => {
  const members = (handle: object) => Object.getOwnPropertyNames(Object.getPrototypeOf(handle)).sort()
  assert.equal(members(binding.createCancel()), ['cancel', 'cancelled', 'constructor'])
  const model = await binding.openModel(spec, CPU)
  assert.equal(members(model), [
    'constructor',
    'device',
    'dispose',
    'disposed',
    'generate',
    'hasHead',
    'hasUnembedding',
    'kernels',
    'score',
    'setHead',
    'weightBytes',
    'withAdapters',
  ])
  model.dispose()
})

exported('info', () => {
  const info = nativeInfo()
  assert.match(info.version, /^\d+\.\d+\.\d+/)
  assert.ok(['node-gyp', 'cmake'].includes(info.builder))
  assert.is(info.napi, 9)
  assert.ok(info.threads >= 1)
  assert.ok(info.cpu.available.includes(info.cpu.kernels))
  assert.ok(info.cpu.name !== '' && info.compiler !== '')
})

exported('nativeLocation names the file', () => {
  const location = nativeLocation()
  assert.match(location.path ?? '', /\.node$/)
  assert.is(location.error, undefined)
})

exported('probeDevice says why not', async () => {
  const probe = probeDevice('/nowhere/implex_cuda.so')
  assert.is(probe.ok, false)
  assert.match(probe.reason ?? '', /implex_cuda\.so/)
  await fails(() => probeDevice(unsafe(7)), 'TypeError', /"modulePath" must be a string; got 7/)
  await fails(() => probeDevice('a\0b'), 'RangeError', /NUL/)
})

exported.run()

const handles = suite('handles')

handles('cannot be made, mistaken or imitated', async () => {
  const model = await binding.openModel(spec, CPU)
  const cancel = binding.createCancel()
  const make = (handle: object, ...args: unknown[]) =>
    Reflect.construct(handle.constructor as new () => unknown, args, Object)
  for (const handle of [model, cancel]) {
    await fails(() => make(handle), 'TypeError', /no public constructor/)
    await fails(() => make(handle, {}), 'TypeError', /no public constructor/)
    await fails(() => make(handle, handle), 'TypeError', /no public constructor/)
    await fails(() => unsafe<() => void>(handle.constructor)(), 'TypeError', /without 'new'/)
  }
  const batch = randomBatch(1, 4)
  for (const wrong of [cancel, {}, Object.create(model), new Proxy(model, {}), 1, 'x', null, undefined]) {
    await fails(() => model.score.call(wrong, batch), 'TypeError', /"this" must be a NativeModel/)
    const getter = Object.getOwnPropertyDescriptor(Object.getPrototypeOf(model), 'disposed')?.get
    await fails(() => getter?.call(wrong), 'TypeError', /"this" must be a NativeModel/)
  }
  await fails(() => cancel.cancel.call(unsafe(model)), 'TypeError', /"this" must be a NativeCancel/)
  for (const wrong of [model, {}, 1, 'x', AbortSignal.abort()]) {
    await fails(() => model.score(batch, unsafe(wrong)), 'TypeError', /"cancel" must be a NativeCancel/)
    await fails(() => binding.openModel(spec, CPU, unsafe(wrong)), 'TypeError', /"cancel" must be a NativeCancel/)
  }
  model.dispose()
})

handles('dispose: idempotent, and no call after it', async () => {
  const model = await openModel(spec, CPU)
  assert.is(model.disposed, false)
  assert.ok(model.weightBytes > 0)
  model.dispose()
  model.dispose()
  assert.is(model.disposed, true)
  const error = await rejection(model.score(randomBatch(1, 4)))
  assert.instance(error, ImplexError)
  assert.is(error.code, 'ERR_DISPOSED')
  assert.is((await failure(() => model.setHead(new Float32Array(32)))).code, 'ERR_DISPOSED')
  assert.is(model.device, 'cpu', 'facts are still there')
})

handles('dispose: queued calls are refused, the running one is cancelled, other models go on', async () => {
  const [model, other] = await Promise.all([openModel(slowSpec, CPU), openModel(spec, CPU)])
  const running = rejection(model.score(slowBatch()))
  const queued = [rejection(model.score(randomBatch(1, 4))), rejection(model.score(randomBatch(1, 4)))]
  const unharmed = other.score(randomBatch(1, 4))
  await sleep(30)
  model.dispose()
  for (const call of queued) assert.is((await within(1000, 'the refusal', call)).code, 'ERR_DISPOSED')
  assert.is((await within(5000, 'the cancellation', running)).code, 'ERR_ABORTED')
  assert.is((await unharmed).values.length, 1)
  other.dispose()
})

handles('dispose inside a getter of the batch', async () => {
  const model = await binding.openModel(spec, CPU)
  const batch = randomBatch(1, 4)
  const trap = Object.defineProperty({ ...batch }, 'scored', {
    get() {
      model.dispose()
      return batch.scored
    },
  })
  assert.is((await failure(() => model.score(trap))).code, 'ERR_DISPOSED')
})

handles.run()
