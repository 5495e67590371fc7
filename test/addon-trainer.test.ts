/** The native trainer's handle: arguments, order, abort, disposal, and the end of processes and threads. */
import { spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import { Worker } from 'node:worker_threads'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { meanRow, openModel, openTrainer, type Trainer, trainMemory } from '../lib/native/handles.js'
import { loadBinding } from '../lib/native/load.js'
import type { NativeTrainBatch } from '../lib/native/types.js'
import { ImplexError } from '../lib/core/errors.js'
import { seededRandom } from './fixtures/random.js'
import {
  bits,
  CPU,
  fails,
  failure,
  randomBatch,
  rejection,
  SLOW,
  sleep,
  tinySpec,
  unsafe,
  within,
} from './support/engine.js'
import { temporaryFolder } from './support/tmp.js'
import { gradientsOf, pairBatch, randomHead, randomPairs, tensorBits, trainOptions } from './support/trainer.js'

const spec = await tinySpec()
const slowSpec = await tinySpec(SLOW)
const binding = loadBinding()
const options = trainOptions({ head: randomHead(32) })
const pairs = randomPairs(3)
const batch = pairBatch(pairs)
const program = join(import.meta.dirname, 'support', 'trainer-child.js')
const slowOptions = trainOptions({ head: randomHead(SLOW.hiddenSize) })
/** Takes a trainer of SLOW sizes a second or so. */
const slowBatch = () => pairBatch(randomPairs(6, 1, 1000))
const STEP = { learningRate: 1e-3, maxNorm: 0 }

const handles = suite('handles')

handles('have the members that binding.ts declares, and cannot be imitated', async () => {
  const trainer = await binding.openTrainer(spec, CPU, options)
  assert.equal(Object.getOwnPropertyNames(Object.getPrototypeOf(trainer)).sort(), [
    'accumulate',
    'constructor',
    'device',
    'dispose',
    'disposed',
    'gradient',
    'kernels',
    'loadState',
    'memory',
    'parameter',
    'parameters',
    'saveState',
    'score',
    'step',
    'steps',
    'weightBytes',
    'zeroGradients',
  ])
  const model = await binding.openModel(spec, CPU)
  const make = () => Reflect.construct(unsafe(trainer.constructor), [], Object)
  await fails(make, 'TypeError', /no public constructor/)
  for (const wrong of [model, {}, Object.create(trainer), new Proxy(trainer, {}), 1, null, undefined]) {
    for (const name of ['accumulate', 'step', 'zeroGradients', 'saveState', 'score', 'memory', 'dispose'] as const) {
      const method = trainer[name] as (...args: unknown[]) => unknown
      await fails(() => method.call(wrong, batch), 'TypeError', /"this" must be a NativeTrainer/)
    }
  }
  await fails(() => model.score.call(trainer, randomBatch(1, 4)), 'TypeError', /"this" must be a NativeModel/)
  await fails(() => trainer.accumulate(batch, unsafe(model)), 'TypeError', /"cancel" must be a NativeCancel/)
  model.dispose()
  trainer.dispose()
})

handles('facts', async () => {
  const trainer = await openTrainer(spec, CPU, options)
  assert.is(trainer.device, 'cpu')
  assert.is(trainer.kernels, binding.info().cpu.kernels)
  const roles = spec.weights.map(({ role }) => role).filter((role) => role !== 'unembedding')
  assert.equal(
    trainer.parameters.map(({ role }) => role),
    [...roles, 'head'],
  )
  assert.equal(trainer.parameters[0], { role: 'embedding', rows: 512, cols: 32 })
  assert.is(await trainer.steps(), 0)
  const elements = trainer.parameters.reduce((sum, { rows, cols }) => sum + rows * cols, 0)
  const memory = trainer.memory(1000, 100)
  assert.is(memory.weights, trainer.weightBytes)
  assert.ok(
    memory.parameters >= 8 * elements && memory.parameters < 8 * elements * 1.05,
    'values and gradients, padded',
  )
  assert.is(memory.moments, memory.parameters, 'two, for AdamW')
  const stored = spec.weights.reduce((sum, { shape }) => sum + shape.reduce((product, n) => product * n, 1), 0)
  assert.is(memory.saving, 4 * stored)
  const least = trainMemory(spec, CPU, options)
  assert.equal(least, { ...memory, weights: least.weights, activations: 0 }, 'known before anything is loaded')
  assert.is(least.weights, 4 * stored)
  assert.is(trainMemory(spec, { ...CPU, dtype: 'bf16' }, options).weights, 2 * stored)
  const frozen = { embedding: true, unembedding: true, blocks: true, norms: true, head: true }
  const nothing = trainOptions({ head: randomHead(32), frozen })
  assert.is((await failure(() => trainMemory(spec, CPU, nothing))).code, 'ERR_CONFIG_INVALID')
  // Worth it from three layers on: one layer's activations are kept all the same.
  const [keeping, recomputing] = await Promise.all(
    [false, true].map((recompute) => openTrainer(slowSpec, CPU, { ...slowOptions, recompute })),
  )
  assert.ok(recomputing!.memory(1000, 100).activations < 0.3 * keeping!.memory(1000, 100).activations)
  assert.ok(trainer.memory(2000, 100).activations > memory.activations)
  const sgd = await openTrainer(spec, CPU, trainOptions({ ...options, optimizer: { kind: 'sgd' } }))
  assert.is(sgd.memory(1, 1).moments, 0)
  for (const one of [trainer, keeping!, recomputing!, sgd]) one.dispose()
})

handles('dispose: idempotent, and no call after it', async () => {
  const trainer = await openTrainer(spec, CPU, options)
  assert.is(trainer.disposed, false)
  trainer.dispose()
  trainer.dispose()
  assert.is(trainer.disposed, true)
  assert.is(trainer.device, 'cpu', 'facts are still there')
  assert.ok(trainer.parameters.length > 0)
  const calls: (() => unknown)[] = [
    () => trainer.accumulate(batch),
    () => trainer.step(STEP),
    () => trainer.zeroGradients(),
    () => trainer.parameter('head'),
    () => trainer.gradient('head'),
    () => trainer.saveState('/nowhere/state'),
    () => trainer.loadState('/nowhere/state'),
    () => trainer.steps(),
    () => trainer.score(randomBatch(1, 4)),
    () => trainer.memory(1, 1),
  ]
  for (const call of calls) {
    const error = await failure(call)
    assert.instance(error, ImplexError)
    assert.is(error.code, 'ERR_DISPOSED', String(call))
    assert.match(error.message, /the trainer has been disposed/)
  }
})

handles('dispose: queued calls are refused, the running one is cancelled, models go on', async () => {
  const [trainer, model] = await Promise.all([openTrainer(slowSpec, CPU, slowOptions), openModel(spec, CPU)])
  const running = rejection(trainer.accumulate(slowBatch()))
  const queued = [trainer.step(STEP), trainer.saveState('/nowhere/state'), trainer.steps()].map(rejection)
  const unharmed = model.score(randomBatch(1, 4))
  await sleep(30)
  trainer.dispose()
  for (const call of queued) {
    const error = await within(1000, 'the refusal', call)
    assert.is(error.code, 'ERR_DISPOSED')
    assert.match(error.message, /the trainer was disposed before this call began/)
  }
  const error = await within(5000, 'the cancellation', running)
  assert.is(error.code, 'ERR_ABORTED')
  assert.match(error.message, /the trainer was disposed while/)
  assert.is((await unharmed).values.length, 1)
  model.dispose()
})

handles('dispose inside a getter of the batch', async () => {
  const trainer = await binding.openTrainer(spec, CPU, options)
  const trap = Object.defineProperty({ ...batch }, 'gradients', {
    get() {
      trainer.dispose()
      return true
    },
  })
  assert.is((await failure(() => trainer.accumulate(trap))).code, 'ERR_DISPOSED')
})

handles.run()

const wrong = suite('arguments')

wrong('options: each field missing, of a wrong type, out of range', async () => {
  const open = (change: object) => () => binding.openTrainer(spec, CPU, unsafe({ ...options, ...change }))
  for (const missing of [undefined, null, 1, 'x', []]) {
    await fails(() => binding.openTrainer(spec, CPU, unsafe(missing)), 'TypeError', /"train" must be an object/)
  }
  const { head: _, ...required } = options
  for (const field of Object.keys(required)) {
    for (const value of [undefined, null, Symbol('s'), () => 1]) {
      await fails(open({ [field]: value }), 'TypeError', new RegExp(`"train\\.${field}" must be`))
    }
  }
  for (const part of ['optimizer', 'frozen'] as const) {
    for (const field of Object.keys(options[part])) {
      const change = { [part]: { ...options[part], [field]: undefined } }
      await fails(open(change), 'TypeError', new RegExp(`"train\\.${part}\\.${field}" must be`))
    }
  }
  const outside = { objective: 'dpo', pool: 'max', beta: 0, labelSmoothing: 0.6, centering: -1 }
  for (const [field, value] of Object.entries(outside)) {
    await fails(open({ [field]: value }), 'RangeError', new RegExp(`"train\\.${field}" must be`))
  }
  const optimizer = {
    kind: 'lion',
    beta1: 1,
    beta2: -0.1,
    epsilon: 0,
    weightDecay: -1,
    weightDecayOn: 'norms',
    momentum: 1.1,
  }
  for (const [field, value] of Object.entries(optimizer)) {
    const change = { optimizer: { ...options.optimizer, [field]: value } }
    await fails(open(change), 'RangeError', new RegExp(`"train\\.optimizer\\.${field}" must be`))
  }
  for (const value of [Number.NaN, Number.POSITIVE_INFINITY, 1e39]) {
    await fails(open({ beta: value }), 'RangeError', /"train\.beta" must be a number from 1e-30 to 3e\+38/)
  }
  await fails(open({ objective: 'generative', head: undefined }), 'TypeError', /"train\.yesToken" must be/)
  await fails(open({ head: new Float64Array(32) }), 'TypeError', /"train\.head" must be a Float32Array/)
  await fails(open({ head: new Float32Array(31) }), 'RangeError', /"train\.head" .*32 elements; got 31/)
  await fails(open({ objective: 'sft' }), 'RangeError', /"train\.head" must be absent/)
  assert.is((await failure(open({ head: new Float32Array(32).fill(Number.NaN) }))).code, 'ERR_WEIGHT_NOT_FINITE')
  await fails(() => binding.openTrainer(unsafe({}), CPU, options), 'TypeError', /"spec\.family"/)
  await fails(() => binding.openTrainer(spec, unsafe({}), options), 'TypeError', /"options\.device"/)
})

wrong('options that do not fit the model', async () => {
  const code = async (change: object, of = spec) =>
    (await rejection(openTrainer(of, CPU, { ...options, head: undefined, ...change }))).code
  assert.is(await code({}), 'ERR_CONFIG_INVALID', 'no head')
  assert.is(await code({ objective: 'generative', yesToken: 1, noToken: 512 }), 'ERR_CONFIG_INVALID')
  const everything = { embedding: true, unembedding: true, blocks: true, norms: true, head: true }
  assert.is(await code({ objective: 'sft', frozen: everything }), 'ERR_CONFIG_INVALID')
  assert.is(await code({ objective: 'sft' }, await tinySpec({ bare: true })), 'ERR_CONFIG_INVALID', 'no unembedding')
  // A role that the spec's own numbers leave no place for.
  const misplaced = (role: string) => ({
    ...spec,
    weights: [...spec.weights, { ...spec.weights.find((weight) => weight.role === 'layers.0.up')!, role }],
  })
  for (const role of ['layers.0.q_norm', 'layers.2.up', 'layers.00.up', 'layers.-1.up', 'layers..up', 'up', '', '.q']) {
    assert.is(await code({ objective: 'sft' }, misplaced(role)), 'ERR_CONFIG_INVALID', role)
  }
  const ungated = { ...spec, gated: false }
  assert.is(await code({ objective: 'sft' }, ungated), 'ERR_CONFIG_INVALID')
})

wrong('batch', async () => {
  const trainer = await binding.openTrainer(spec, CPU, options)
  const accumulate = (change: object) => () => trainer.accumulate({ ...batch, ...change })
  for (const field of ['tokens', 'segments', 'scored']) {
    for (const value of [undefined, [0], new Uint32Array(6), new Int32Array(new SharedArrayBuffer(24))]) {
      await fails(accumulate({ [field]: value }), 'TypeError', new RegExp(`"batch\\.${field}" must be an Int32Array`))
    }
  }
  for (const field of ['reference', 'margin']) {
    await fails(accumulate({ [field]: new Float32Array(3) }), 'TypeError', new RegExp(`"batch\\.${field}" must be`))
    const nan = Float64Array.of(0, Number.NaN, 0)
    await fails(accumulate({ [field]: nan }), 'RangeError', new RegExp(`"batch\\.${field}\\[1\\]" must be a finite`))
    const error = await failure(accumulate({ [field]: new Float64Array(5) }))
    assert.is(error.code, 'ERR_BATCH_INVALID', field)
  }
  for (const scale of [0, -1, Number.NaN, Number.POSITIVE_INFINITY]) {
    await fails(accumulate({ scale }), 'RangeError', /"batch\.scale"/)
  }
  await fails(accumulate({ scale: '1' }), 'TypeError', /"batch\.scale"/)
  await fails(accumulate({ gradients: 1 }), 'TypeError', /"batch\.gradients"/)
  await fails(accumulate({ segments: new Int32Array(4) }), 'RangeError', /triples/)
  await fails(() => trainer.accumulate(unsafe(undefined)), 'TypeError', /"batch" must be an object/)
  const code = async (change: Partial<NativeTrainBatch>) =>
    (await rejection(trainer.accumulate({ ...batch, ...change }))).code
  assert.is(await code({ scored: Int32Array.of(1, 2, 4) }), 'ERR_BATCH_INVALID', 'half a pair')
  assert.is(await code({ scored: new Int32Array(0) }), 'ERR_BATCH_INVALID')
  assert.is(await code({ scored: Int32Array.of(1, 99) }), 'ERR_BATCH_INVALID')
  assert.is(await code({ tokens: batch.tokens.map(() => 512) }), 'ERR_TOKEN_RANGE')
  assert.is((await trainer.accumulate(batch)).losses.length, 3, 'still usable')
  for (const options of [undefined, {}, { learningRate: 1 }, { learningRate: '1', maxNorm: 0 }]) {
    await fails(() => trainer.step(unsafe(options)), 'TypeError', /"options(\.\w+)?" must be/)
  }
  for (const learningRate of [-1, Number.NaN, 1e39]) {
    await fails(() => trainer.step({ learningRate, maxNorm: 0 }), 'RangeError', /"options\.learningRate"/)
  }
  await fails(() => trainer.step({ learningRate: 1, maxNorm: -1 }), 'RangeError', /"options\.maxNorm"/)
  for (const name of ['parameter', 'gradient'] as const) {
    await fails(() => trainer[name](unsafe(1)), 'TypeError', /"role" must be a string/)
    for (const role of ['unembedding', '', 'x\0y', '__proto__']) {
      assert.is((await rejection(trainer[name](role))).code, 'ERR_CONFIG_INVALID', role)
    }
  }
  for (const name of ['saveState', 'loadState'] as const) {
    await fails(() => trainer[name](unsafe(undefined)), 'TypeError', /"path" must be a string/)
    for (const path of ['', 'a\0b']) await fails(() => trainer[name](path), 'RangeError', /"path"/)
  }
  for (const [tokens, rows] of [
    [0, 1],
    [1, -1],
    [1.5, 1],
    [2 ** 31, 1],
  ] as const) {
    await fails(() => trainer.memory(tokens, rows), 'RangeError', /"(tokens|rows)" must be an integer/)
  }
  await fails(() => trainer.memory(unsafe('1'), 1), 'TypeError', /"tokens"/)
  trainer.dispose()
})

wrong('views are read at their offset, and inputs may be reused at once', async () => {
  const trainer = await openTrainer(spec, CPU, { ...options, head: undefined, objective: 'implicit' })
  const reference = Float64Array.from(batch.scored, (i) => -i)
  const margin = Float64Array.of(0.1, 0.2, 0.3)
  await trainer.accumulate({ ...batch, reference, margin })
  const expected = tensorBits(await gradientsOf(trainer))
  await trainer.zeroGradients()
  const view = <T extends Int32Array | Float64Array>(array: T): T => {
    const wide = new (array.constructor as new (length: number) => T)(array.length + 7).fill(-5) as T
    wide.set(array, 3)
    return wide.subarray(3, 3 + array.length) as T
  }
  const views = {
    ...batch,
    tokens: view(batch.tokens),
    segments: view(batch.segments),
    scored: view(batch.scored),
    reference: view(reference),
    margin: view(margin),
  }
  const running = trainer.accumulate(views)
  for (const array of [views.tokens, views.segments, views.scored, views.reference, views.margin]) array.fill(-1)
  await running
  assert.is(tensorBits(await gradientsOf(trainer)), expected)
  trainer.dispose()
  const head = randomHead(32)
  const opening = openTrainer(spec, CPU, trainOptions({ head }))
  head.fill(0)
  const opened = await opening
  assert.equal(await opened.parameter('head'), randomHead(32))
  opened.dispose()
})

wrong('random options and batches: an answer or an error, never a crash', async () => {
  const random = seededRandom(11)
  const junk = [0, -1, 1, 0.5, 2 ** 31, 1e300, Number.NaN, '', 'sft', 'mean', null, undefined, [], {}, true, false]
  for (let i = 0; i < 200; i++) {
    const mutant = structuredClone(options) as unknown as Record<string, unknown>
    const target = random.pick([mutant, mutant.optimizer, mutant.frozen]) as Record<string, unknown>
    target[random.pick(Object.keys(target))] = random.pick(junk)
    try {
      const trainer = await openTrainer(spec, CPU, unsafe(mutant))
      await trainer.accumulate(batch)
      await trainer.step(STEP)
      trainer.dispose()
    } catch (error) {
      assert.match((error as { code: string }).code, /^ERR_/)
      assert.is.not((error as { code: string }).code, 'ERR_INTERNAL', String(error))
    }
  }
  const objectives = ['explicit', 'implicit', 'generative', 'sft'] as const
  const trainers = new Map<string, Trainer>()
  for (const objective of objectives) {
    trainers.set(
      objective,
      await openTrainer(spec, CPU, trainOptions(objective === 'explicit' ? options : { objective })),
    )
  }
  for (let i = 0; i < 400; i++) {
    const objective = random.pick(objectives)
    const mutant = pairBatch(randomPairs(1 + random.below(3), i, 4), objective)
    const array = random.pick([mutant.tokens, mutant.segments, mutant.scored])
    array[random.below(array.length)] = random.pick([-2, -1, 0, 1, 2, 3, 5, 2 ** 31 - 1, -(2 ** 31)])
    try {
      await trainers.get(objective)!.accumulate(mutant)
    } catch (error) {
      assert.ok(['ERR_BATCH_INVALID', 'ERR_TOKEN_RANGE'].includes((error as { code: string }).code), String(error))
    }
  }
  for (const trainer of trainers.values()) trainer.dispose()
})

wrong.run()

const work = suite('at work')

work('calls are worked off in order, with those of models', async () => {
  const trainer = await openTrainer(spec, CPU, options)
  const model = await openModel(spec, CPU)
  const settled: string[] = []
  const note = (name: string) => () => settled.push(name)
  const [, , before, , after] = await Promise.all([
    trainer.accumulate(batch).then(note('accumulate')),
    model.score(randomBatch(1, 4)).then(note('score')),
    trainer.gradient('head').finally(note('gradient')),
    trainer.step(STEP).then(note('step')),
    trainer.gradient('head').finally(note('gradient again')),
    trainer.parameter('nothing').catch(note('failure')),
    trainer.steps().then(note('steps')),
  ])
  assert.equal(settled, ['accumulate', 'score', 'gradient', 'step', 'gradient again', 'failure', 'steps'])
  assert.ok(before.some((value) => value !== 0))
  assert.ok(after.every((value) => value === 0))
  assert.is(await trainer.steps(), 1)
  model.dispose()
  trainer.dispose()
})

work('score gives the bits of a model, and follows training', async () => {
  const trainer = await openTrainer(spec, CPU, options)
  const model = await openModel(spec, CPU)
  model.setHead(randomHead(32))
  for (const readout of ['reward_last', 'reward_mean', 'reward_tokens'] as const) {
    const request = randomBatch(3, 7, { readout })
    assert.is(bits(await trainer.score(request)), bits(await model.score(request)))
  }
  assert.is(bits(await trainer.score(randomBatch(3, 7))), bits(await model.score(randomBatch(3, 7))), 'log-probs')
  const request = randomBatch(3, 7, { readout: 'reward_last' })
  const before = bits(await trainer.score(request))
  await trainer.accumulate(batch)
  const gradients = tensorBits(await gradientsOf(trainer))
  assert.is(bits(await trainer.score(request)), before)
  assert.is(tensorBits(await gradientsOf(trainer)), gradients, 'scoring leaves gradients alone')
  await trainer.step(STEP)
  assert.is.not(bits(await trainer.score(request)), before)
  model.dispose()
  trainer.dispose()
})

work('rows of added tokens are the mean of those before, and meanRow() has it', async () => {
  const source = spec.weights.find(({ role }) => role === 'embedding')!
  const row = await meanRow(source)
  assert.is(row.length, spec.hiddenSize)
  const trainer = await openTrainer({ ...spec, addedTokens: 3 }, CPU, options)
  const table = await trainer.parameter('embedding')
  const added = table.subarray(spec.vocabSize * spec.hiddenSize)
  assert.equal([...added], [...row, ...row, ...row])
  const sum = new Float64Array(spec.hiddenSize)
  for (let i = 0; i < spec.vocabSize * spec.hiddenSize; i++) sum[i % spec.hiddenSize]! += table[i]!
  assert.equal([...row], [...Float32Array.from(sum, (value) => value / spec.vocabSize)])
  trainer.dispose()
  const error = await rejection(meanRow({ ...source, bytes: source.bytes - 4 }))
  assert.is(error.code, 'ERR_SAFETENSORS_INVALID')
  assert.is(error.tensor, source.tensor)
  assert.is(error.parameter, 'embedding')
})

work('aborted before, while queued, while running', async () => {
  const cancelled = binding.createCancel()
  cancelled.cancel()
  assert.is((await rejection(openTrainer(slowSpec, CPU, slowOptions, cancelled))).code, 'ERR_ABORTED')
  const trainer = await openTrainer(slowSpec, CPU, slowOptions)
  assert.is((await rejection(trainer.accumulate(slowBatch(), AbortSignal.abort()))).code, 'ERR_ABORTED')
  const [first, second] = [new AbortController(), new AbortController()]
  const running = rejection(trainer.accumulate(slowBatch(), first.signal))
  const queued = rejection(trainer.accumulate(slowBatch(), second.signal))
  await sleep(10)
  second.abort()
  assert.is((await within(100, 'the abort of a queued call', queued)).code, 'ERR_ABORTED')
  first.abort('enough')
  const error = await running
  assert.is(error.code, 'ERR_ABORTED')
  assert.is(error.cause, 'enough')
  trainer.dispose()
})

work('a pass aborted half-way: no step on half a gradient, and all is well after zeroGradients()', async () => {
  const trainer = await openTrainer(slowSpec, CPU, slowOptions)
  const someBatch = pairBatch(randomPairs(3, 1, 500))
  const start = performance.now()
  await trainer.accumulate(someBatch)
  const whole = performance.now() - start
  const expected = tensorBits(await gradientsOf(trainer))
  await trainer.zeroGradients()
  let refused = 0
  // The right moment is looked for: other programs on the machine move it, hence the many tries.
  let moment = 0.5
  for (let i = 0; i < 60 && refused === 0; i++) {
    const controller = new AbortController()
    const running = trainer.accumulate(someBatch, controller.signal).then(
      () => 'done',
      () => 'aborted',
    )
    setTimeout(() => controller.abort(), whole * moment)
    const outcome = await running
    // In the forward pass it left nothing, after the last layer it was too late: these steps are as good as any.
    const error = await trainer.step({ learningRate: 0, maxNorm: 0 }).catch((error) => error)
    if (error instanceof ImplexError) {
      assert.is(error.code, 'ERR_ABORTED')
      assert.match(error.message, /incomplete/)
      refused++
    }
    moment *= outcome === 'aborted' ? 1.07 : 0.8
    await trainer.zeroGradients()
  }
  assert.is(refused, 1)
  await trainer.accumulate(someBatch)
  assert.is(tensorBits(await gradientsOf(trainer)), expected)
  await trainer.step(STEP)
  trainer.dispose()
})

work("errors carry the caller's stack", async () => {
  const trainer = await openTrainer(spec, CPU, options)
  async function theCaller() {
    return await trainer.parameter('nothing')
  }
  const error = await rejection(theCaller())
  assert.match(error.stack ?? '', /^ImplexError \[ERR_CONFIG_INVALID\]: .*\n\s+at theCaller/)
  trainer.dispose()
})

function child(name: string, ...flags: string[]) {
  return spawnSync(process.execPath, [...flags, program, name], { encoding: 'utf8', timeout: 240_000 })
}
function answer(name: string, ...flags: string[]): Record<string, unknown> {
  const { status, signal, stderr, stdout } = child(name, ...flags)
  assert.is(status, 0, `${signal} ${stderr}`)
  return JSON.parse(stdout)
}

work('a handle is collected while its job runs, which ends well', () => {
  assert.equal(answer('gc', '--expose-gc'), { collected: true, whileRunning: true, losses: 6 })
})

work('undisposed trainers press on the garbage collector', () => {
  const { held, opened, alive } = answer('pressure') as Record<string, number>
  assert.ok(held > 60 << 20, String(held))
  assert.is(opened, 10)
  assert.ok(alive < 8, `${alive} of 10 trainers of ${held} bytes were still alive`)
})

work('process.exit() during a pass', () => {
  const { status, signal, stderr } = child('exit-in-accumulate')
  assert.is(status, 3, `${signal} ${stderr}`)
})

work('threads terminated in the middle of a pass', async () => {
  // Its temporary files go with this process: a thread that is terminated cleans nothing up.
  const env = { ...process.env, TMPDIR: temporaryFolder() }
  for (let i = 0; i < 6; i++) {
    const worker = new Worker(program, { argv: ['slow'], stdout: true, env })
    const messages: string[] = []
    worker.on('message', (message) => messages.push(message))
    await within(30_000, 'the start of a worker', once(worker, 'message'))
    await sleep(i * 8)
    await within(20_000, 'termination', worker.terminate())
    assert.equal(messages, ['running'])
  }
})

work.run()
