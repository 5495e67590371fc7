/** What the native engine accepts: wrong arguments are errors that name the field, never crashes. */
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import type { ModelSpec } from '../lib/native/spec.js'
import { openModel } from '../lib/native/handles.js'
import { loadBinding } from '../lib/native/load.js'
import type { NativeBatch } from '../lib/native/types.js'
import { seededRandom } from './fixtures/random.js'
import { bits, CPU, fails, failure, randomBatch, rejection, tinySpec, unsafe } from './support/engine.js'

const spec = await tinySpec()
const binding = loadBinding()

const DECIMALS = ['normEps', 'normOffset', 'embeddingScale', 'residualScale', 'logitScale', 'logitSoftCap'] as const

test('spec: each field missing, of a wrong type, out of range', async () => {
  const integers = new Set<string>()
  for (const field of Object.keys(spec)) {
    const name = new RegExp(`"spec\\.${field}" must be`)
    const { [field as keyof ModelSpec]: value, ...without } = spec
    await fails(() => binding.openModel(unsafe(without), CPU), 'TypeError', name)
    for (const wrong of [null, Symbol('s'), () => 1, {}, 1n]) {
      await fails(() => binding.openModel(unsafe({ ...spec, [field]: wrong }), CPU), 'TypeError', name)
    }
    const decimal = (DECIMALS as readonly string[]).includes(field)
    if (typeof value === 'number' && !decimal) integers.add(field)
  }
  assert.is(integers.size, 7)
  for (const field of integers) {
    for (const wrong of [-1, 1.5, Number.NaN, Number.POSITIVE_INFINITY, 2 ** 53]) {
      const name = new RegExp(`"spec\\.${field}" must be an integer from 0`)
      await fails(() => binding.openModel({ ...spec, [field]: wrong }, CPU), 'RangeError', name)
    }
  }
  for (const field of DECIMALS) {
    const name = new RegExp(`spec\\.${field}`)
    await fails(() => binding.openModel({ ...spec, [field]: Number.NaN }, CPU), 'RangeError', name)
  }
  await fails(() => binding.openModel(unsafe({ ...spec, norm: 'batch' }), CPU), 'RangeError', /"spec\.norm".*"batch"/)
  for (const wrong of [undefined, null, [], 'llama', new Map()]) {
    await fails(() => binding.openModel(unsafe(wrong), CPU), 'TypeError', /"spec(\.family)?" must be/)
  }
})

test('spec: fields of layers, rotations, experts and adapters', async () => {
  const layer = spec.layers[0]!
  const rope = spec.ropes[0]!
  const experts = { count: 4, perToken: 2, normalize: true }
  const adapter = { role: 'layers.0.q', rank: 2, scale: 1 }
  const parts: [string, object, (changed: object) => object][] = [
    ['layers[0]', layer, (changed) => ({ ...spec, layers: [changed, ...spec.layers.slice(1)] })],
    ['ropes[0]', rope, (changed) => ({ ...spec, ropes: [changed] })],
    [
      'layers[0].experts',
      experts,
      (changed) => ({ ...spec, layers: [{ ...layer, experts: changed }, ...spec.layers.slice(1)] }),
    ],
    ['adapters[0]', adapter, (changed) => ({ ...spec, adapters: [changed] })],
  ]
  for (const [name, part, within] of parts) {
    for (const field of Object.keys(part)) {
      const path = new RegExp(`"spec\\.${`${name}.${field}`.replaceAll(/[[\].]/g, '\\$&')}" must be`)
      for (const wrong of [null, Symbol('s'), {}, 1n]) {
        await fails(() => binding.openModel(unsafe(within({ ...part, [field]: wrong })), CPU), 'TypeError', path)
      }
    }
  }
  for (const wrong of [
    { ...adapter, role: 'layers.0.none' },
    { ...adapter, rank: 0 },
  ]) {
    const error = await failure(() => binding.openModel({ ...spec, adapters: [wrong] }, CPU))
    assert.is(error.code, 'ERR_CONFIG_INVALID')
  }
  const twice: ModelSpec = { ...spec, adapters: [adapter, adapter] }
  await fails(() => binding.openModel(twice, CPU), 'RangeError', /adapters\[1\]\.role/)
})

test('spec: fields of weights', async () => {
  const open = (change: object) => () =>
    binding.openModel(unsafe({ ...spec, weights: [spec.weights[0], { ...spec.weights[1], ...change }] }), CPU)
  for (const field of ['role', 'tensor', 'file', 'offset', 'bytes', 'dtype', 'shape']) {
    await fails(open({ [field]: undefined }), 'TypeError', new RegExp(`"spec\\.weights\\[1\\]\\.${field}" must be`))
  }
  for (const field of ['offset', 'bytes']) {
    for (const wrong of [-1, 0.5, 2 ** 53, Number.NaN]) {
      await fails(open({ [field]: wrong }), 'RangeError', new RegExp(`weights\\[1\\]\\.${field}`))
    }
  }
  await fails(open({ dtype: 'i8' }), 'RangeError', /weights\[1\]\.dtype/)
  await fails(open({ file: 'a\0b' }), 'RangeError', /weights\[1\]\.file/)
  await fails(open({ shape: [1, '2'] }), 'TypeError', /weights\[1\]\.shape\[1\]/)
  await fails(open({ shape: new Array(9).fill(1) }), 'RangeError', /weights\[1\]\.shape/)
  await fails(open({ rows: { start: 0, block: 1 } }), 'TypeError', /weights\[1\]\.rows\.stride/)
  await fails(() => binding.openModel({ ...spec, weights: new Array(1e9) }, CPU), 'TypeError', /weights\[0\]/)
})

test('options', async () => {
  await fails(() => binding.openModel(spec, unsafe(undefined)), 'TypeError', /"options" must be an object/)
  await fails(() => openModel(spec, unsafe({ dtype: 'f32' })), 'TypeError', /"options\.device" must be one of/)
  await fails(() => openModel(spec, unsafe({ device: 'tpu', dtype: 'f32' })), 'RangeError', /"options\.device"/)
  await fails(() => openModel(spec, unsafe({ device: 'cpu', dtype: 'f16' })), 'RangeError', /"options\.dtype"/)
  await fails(() => openModel(spec, { device: 'cuda', dtype: 'f32' }), 'TypeError', /"options\.devicePath"/)
})

test('batch', async () => {
  const model = await binding.openModel(spec, CPU)
  const batch = randomBatch(2, 4)
  const score = (change: object) => () => model.score({ ...batch, ...change })
  for (const field of ['tokens', 'segments', 'scored']) {
    const name = new RegExp(`"batch\\.${field}" must be an Int32Array`)
    for (const wrong of [undefined, [0], new Uint32Array(6), new BigInt64Array(6), new DataView(new ArrayBuffer(24))]) {
      await fails(score({ [field]: wrong }), 'TypeError', name)
    }
    await fails(score({ [field]: new Int32Array(new SharedArrayBuffer(24)) }), 'TypeError', name)
    const detached = new Int32Array(6)
    structuredClone(detached, { transfer: [detached.buffer] })
    await fails(score({ [field]: detached }), 'TypeError', name)
  }
  await fails(score({ segments: new Int32Array(5) }), 'RangeError', /"batch\.segments" must be triples/)
  await fails(score({ readout: 'mean' }), 'RangeError', /"batch\.readout"/)
  await fails(score({ readout: undefined }), 'TypeError', /"batch\.readout"/)
  await fails(score({ readout: 'next_token' }), 'TypeError', /"batch\.targetToken"/)
  for (const targetToken of [-1, 0.5, 2 ** 31]) {
    await fails(score({ readout: 'next_token', targetToken }), 'RangeError', /"batch\.targetToken"/)
    const other = { readout: 'next_token', targetToken: 1, otherToken: targetToken }
    await fails(score(other), 'RangeError', /"batch\.otherToken"/)
  }
  await fails(score({ readAt: [0] }), 'TypeError', /"batch\.readAt" must be an Int32Array/)
  await fails(score({ tokenLogprobs: 1 }), 'TypeError', /"batch\.tokenLogprobs"/)
  await fails(score({ readout: 'next_token', targetToken: 1, tokenLogprobs: true }), 'RangeError', /tokenLogprobs/)
  await fails(() => model.score(unsafe(undefined)), 'TypeError', /"batch" must be an object/)
  const bomb = Object.defineProperty({ ...batch }, 'scored', {
    get() {
      throw new SyntaxError('from a getter')
    },
  })
  await fails(() => model.score(bomb), 'SyntaxError', /from a getter/)
  model.dispose()
})

test('generate', async () => {
  const model = await binding.openModel(spec, CPU)
  const request = {
    tokens: Int32Array.of(1, 2, 3),
    lengths: Int32Array.of(3),
    sequences: Int32Array.of(0),
    seeds: Int32Array.of(0, 1),
    maxNewTokens: 2,
    temperature: 1,
    topP: 1,
    topK: 0,
    stop: new Int32Array(0),
  }
  const generate = (change: object) => () => model.generate(unsafe({ ...request, ...change }))
  for (const field of ['tokens', 'lengths', 'sequences', 'seeds', 'stop']) {
    const name = new RegExp(`"request\\.${field}"`)
    for (const wrong of [undefined, [0], new Uint32Array(2)])
      await fails(generate({ [field]: wrong }), 'TypeError', name)
  }
  await fails(generate({ seeds: new Int32Array(3) }), 'RangeError', /two numbers for each sequence/)
  for (const [field, wrong] of Object.entries({ maxNewTokens: 0, temperature: -1, topP: 2, topK: -1 })) {
    await fails(generate({ [field]: wrong }), 'RangeError', new RegExp(`"request\\.${field}"`))
    await fails(generate({ [field]: '1' }), 'TypeError', new RegExp(`"request\\.${field}"`))
  }
  await fails(() => model.generate(unsafe(undefined)), 'TypeError', /"request" must be an object/)
  assert.is((await rejection(model.generate({ ...request, lengths: Int32Array.of(2) }))).code, 'ERR_BATCH_INVALID')
  assert.is((await rejection(model.generate({ ...request, sequences: Int32Array.of(1) }))).code, 'ERR_BATCH_INVALID')
  assert.is((await rejection(model.generate({ ...request, tokens: Int32Array.of(1, 2, -3) }))).code, 'ERR_TOKEN_RANGE')
  assert.equal([...(await model.generate(request)).lengths], [2])
  model.dispose()
})

test('head', async () => {
  const model = await binding.openModel(spec, CPU)
  const batch = randomBatch(2, 8, { readout: 'reward_last' })
  assert.is(model.hasHead, false)
  await fails(() => model.setHead(unsafe(new Float64Array(32))), 'TypeError', /"weight" must be a Float32Array/)
  await fails(() => model.setHead(new Float32Array(31)), 'RangeError', /32 elements; got 31/)
  const error = await failure(() => model.setHead(new Float32Array(32).fill(Number.NaN)))
  assert.is(error.code, 'ERR_WEIGHT_NOT_FINITE')
  // Calls before a change see the old head though they run after it was asked for.
  const ones = new Float32Array(32).fill(1)
  model.setHead(ones)
  ones.fill(9)
  const first = model.score(batch)
  model.setHead(new Float32Array(32).fill(2))
  const second = model.score(batch)
  assert.is(model.hasHead, true)
  const [a, b] = [(await first).values, (await second).values]
  assert.not.equal(a, b)
  model.setHead(new Float32Array(32).fill(1))
  assert.equal((await model.score(batch)).values, a)
  // Several rows: the values of each, side by side.
  await fails(() => model.setHead(new Float32Array(0)), 'RangeError', /one or more times .* 32 elements; got 0/)
  model.setHead(Float32Array.from({ length: 64 }, (_, i) => (i < 32 ? 2 : 1)))
  const rows = (await model.score(batch)).values
  assert.equal([...rows], [b[0], a[0], b[1], a[1]])
  const readAt = Int32Array.of(15, 7)
  const at = (await model.score({ ...batch, scored: new Int32Array(0), readAt })).values
  assert.equal([...at], [b[1], a[1], b[0], a[0]])
  model.dispose()
})

test('views are read at their offset, and inputs may be reused at once', async () => {
  const model = await openModel(spec, CPU)
  const batch = randomBatch(3, 5)
  const expected = bits(await model.score(batch))
  const view = (array: Int32Array) => {
    const wide = new Int32Array(array.length + 7).fill(-5)
    wide.set(array, 3)
    return wide.subarray(3, 3 + array.length)
  }
  const views = { ...batch, tokens: view(batch.tokens), segments: view(batch.segments), scored: view(batch.scored) }
  const scores = model.score(views)
  for (const array of [views.tokens, views.segments, views.scored]) array.fill(-1)
  assert.is(bits(await scores), expected)
  model.dispose()
})

test('a batch that makes no sense is refused with a code', async () => {
  const model = await openModel(spec, CPU)
  const batch = randomBatch(2, 4)
  const code = async (change: Partial<NativeBatch>) => (await rejection(model.score({ ...batch, ...change }))).code
  assert.is(await code({ tokens: new Int32Array(8).fill(512) }), 'ERR_TOKEN_RANGE')
  assert.is(await code({ tokens: new Int32Array(8).fill(-1) }), 'ERR_TOKEN_RANGE')
  assert.is(await code({ readout: 'next_token', targetToken: 512 }), 'ERR_TOKEN_RANGE')
  assert.is(await code({ readout: 'next_token', targetToken: 1, otherToken: 512 }), 'ERR_TOKEN_RANGE')
  assert.is(await code({ readout: 'hidden_last', readAt: Int32Array.of(0) }), 'ERR_BATCH_INVALID')
  const none = { scored: new Int32Array(0) }
  assert.is(await code({ ...none, readout: 'hidden_last', readAt: Int32Array.of(8) }), 'ERR_BATCH_INVALID')
  assert.is(await code({ ...none, readAt: Int32Array.of(0) }), 'ERR_BATCH_INVALID')
  for (const segments of [
    [0, 9, -1, 9, 1, -1],
    [0, 4, -1, 3, 5, -1],
    [0, 4, 1, 4, 4, -1],
    [0, 4, -2, 4, 4, -1],
    [0, 0, -1, 0, 8, -1],
    [0, -4, -1, -4, 12, -1],
    [2 ** 31 - 1, 2 ** 31 - 1, -1, 0, 8, -1],
  ]) {
    assert.is(await code({ segments: Int32Array.from(segments) }), 'ERR_BATCH_INVALID', String(segments))
  }
  for (const scored of [[2], [-1], [2 ** 31 - 1]]) {
    assert.is(await code({ scored: Int32Array.from(scored) }), 'ERR_BATCH_INVALID', String(scored))
  }
  assert.is((await model.score(batch)).values.length, 2, 'the model is still usable')
  model.dispose()
})

test('random specs and batches: an answer or an error, never a crash', async () => {
  const random = seededRandom(7)
  const junk = [
    0,
    -1,
    1,
    3,
    7,
    2 ** 20,
    2 ** 31,
    2 ** 53 - 1,
    0.5,
    Number.NaN,
    '',
    'rms',
    null,
    undefined,
    [],
    {},
    true,
  ]
  const known = /^ERR_[A-Z_]+$/
  for (let i = 0; i < 200; i++) {
    const mutant: Record<string, unknown> = { ...spec }
    for (let n = 1 + random.below(2); n > 0; n--) mutant[random.pick(Object.keys(spec))] = random.pick(junk)
    if (random.below(2) === 0) {
      const weight: Record<string, unknown> = { ...random.pick(spec.weights) }
      weight[random.pick(Object.keys(weight))] = random.pick(junk)
      mutant.weights = spec.weights.map((old) => (old.role === weight.role ? weight : old))
    }
    try {
      const model = await openModel(unsafe(mutant), CPU)
      model.dispose()
    } catch (error) {
      assert.match((error as { code: string }).code, known)
      assert.is.not((error as { code: string }).code, 'ERR_INTERNAL', String(error))
    }
  }
  const model = await openModel(spec, CPU)
  for (let i = 0; i < 500; i++) {
    const batch = randomBatch(1 + random.below(4), 1 + random.below(6), {}, i)
    const array = random.pick([batch.tokens, batch.segments, batch.scored])
    array[random.below(array.length)] = random.pick([-2, -1, 0, 1, 2, 3, 5, 2 ** 31 - 1, -(2 ** 31)])
    try {
      await model.score({ ...batch, readout: random.pick(['logprob', 'next_token']), targetToken: 3 })
    } catch (error) {
      assert.ok(['ERR_BATCH_INVALID', 'ERR_TOKEN_RANGE'].includes((error as { code: string }).code), String(error))
    }
  }
  model.dispose()
})

test.run()
