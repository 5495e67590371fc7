/**
 * Programs that the engine's tests run in a process of their own: `node [--expose-gc] engine-child.js PROGRAM`.
 * Each prints what it saw as one line of JSON.
 */
import { closeSync, ftruncateSync, openSync } from 'node:fs'
import { join } from 'node:path'
import type { ModelSpec } from '../../lib/native/spec.js'
import { openModel } from '../../lib/native/handles.js'
import { loadBinding } from '../../lib/native/load.js'
import type { NativeModel } from '../../lib/native/types.js'
import { bits, CPU, randomBatch, SLOW, sleep, slowBatch, tinySpec } from './engine.js'
import { temporaryFolder } from './tmp.js'

const collect = (globalThis as { gc?: () => void }).gc

const programs: Record<string, () => Promise<unknown>> = {
  /** Handles that nobody holds are collected, also while their job runs; the job ends with the right result. */
  async gc() {
    const binding = loadBinding()
    const spec = await tinySpec(SLOW)
    const batch = randomBatch(1, SLOW.maxPositions)
    const reference = await binding.openModel(spec, CPU)
    const expected = bits(await reference.score(batch))
    reference.dispose()

    const collected = new Set<string>()
    const registry = new FinalizationRegistry<string>((name) => collected.add(name))
    // In a function of its own, so that no stack slot keeps the handles.
    const start = async () => {
      const model = await binding.openModel(spec, CPU)
      const cancel = binding.createCancel()
      registry.register(model, 'model')
      registry.register(cancel, 'cancel')
      const scores = model.score(batch, cancel)
      return { scores }
    }
    const { scores } = await start()
    let done = false
    const finished = scores.then((result) => {
      done = true
      return bits(result)
    })
    for (let i = 0; i < 20 && collected.size < 2; i++) {
      await sleep(5)
      collect?.()
    }
    const whileRunning = !done
    return { collected: [...collected].sort(), whileRunning, same: (await finished) === expected }
  },

  /** V8 is told of the weights: without it, handles of a few bytes would never be worth collecting. Not run with --expose-gc. */
  async pressure() {
    const spec = await sparseSpec()
    const handles: WeakRef<NativeModel>[] = []
    let weightBytes = 0
    for (let i = 0; i < 12; i++) {
      const model = await loadBinding().openModel(spec, CPU)
      weightBytes = model.weightBytes
      handles.push(new WeakRef(model))
      await sleep(20)
    }
    return { weightBytes, opened: handles.length, alive: handles.filter((handle) => handle.deref()).length }
  },

  /** Ends by itself although the model was not disposed, and not before the score is there. */
  async idle() {
    const model = await openModel(await tinySpec(), CPU)
    const { values } = await model.score(randomBatch(2, 8))
    return { values: values.length, at: Date.now() }
  },

  async 'exit-in-score'() {
    const model = await openModel(await tinySpec(SLOW), CPU)
    void model.score(slowBatch())
    void model.score(slowBatch())
    await sleep(20)
    process.exit(3)
  },

  async 'throw-in-score'() {
    const model = await openModel(await tinySpec(SLOW), CPU)
    void model.score(slowBatch())
    await sleep(20)
    setTimeout(() => {
      throw new Error('thrown on purpose')
    })
    await sleep(60_000)
  },

  async missing() {
    try {
      loadBinding()
      return {}
    } catch (error) {
      return { name: (error as Error).name, code: (error as { code?: string }).code, message: (error as Error).message }
    }
  },
}

/** A model of 48 MiB whose weights are zeros that take no room on disk. */
async function sparseSpec(): Promise<ModelSpec> {
  const spec = await tinySpec({ layers: 1 })
  const intermediateSize = 1 << 17
  const file = join(temporaryFolder(), 'zeros')
  const bytes = intermediateSize * spec.hiddenSize * 4
  const descriptor = openSync(file, 'w')
  ftruncateSync(descriptor, bytes)
  closeSync(descriptor)
  const weights = spec.weights.map((weight) => {
    const name = weight.role.replace('layers.0.', '')
    if (!['gate', 'up', 'down'].includes(name)) return weight
    const shape = name === 'down' ? [spec.hiddenSize, intermediateSize] : [intermediateSize, spec.hiddenSize]
    return { ...weight, file, offset: 0, bytes, shape }
  })
  return { ...spec, layers: spec.layers.map((layer) => ({ ...layer, intermediateSize })), weights }
}

const result = await programs[process.argv[2]]()
process.stdout.write(`${JSON.stringify(result)}\n`)
