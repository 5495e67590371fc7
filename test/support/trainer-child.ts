/**
 * Programs that the trainer's tests run in a process, or a thread, of their own: `node [--expose-gc] trainer-child.js PROGRAM`.
 * Each prints what it saw as one line of JSON.
 */
import { join } from 'node:path'
import { parentPort } from 'node:worker_threads'
import { openTrainer } from '../../lib/native/handles.js'
import { loadBinding } from '../../lib/native/load.js'
import type { NativeTrainer } from '../../lib/native/types.js'
import { CPU, SLOW, sleep, tinySpec } from './engine.js'
import { temporaryFolder } from './tmp.js'
import { fileHash, pairBatch, randomHead, randomPairs, trainOptions } from './trainer.js'

const collect = (globalThis as { gc?: () => void }).gc

const slowTrainer = async () =>
  openTrainer(await tinySpec(SLOW), CPU, trainOptions({ head: randomHead(SLOW.hiddenSize) }))
const slowTraining = () => pairBatch(randomPairs(6, 1, 1000))

const programs: Record<string, () => Promise<unknown>> = {
  /** Three steps of each kind of pass; large enough that every operation is split over threads. */
  async bits() {
    const folder = temporaryFolder()
    const pairs = randomPairs(6, 3, 90)
    const results: Record<string, unknown> = {}
    for (const [objective, family, dtype] of [
      ['explicit', 'llama', 'f32'],
      ['implicit', 'qwen3', 'f32'],
      ['implicit', 'gpt_neox', 'bf16'],
      ['generative', 'qwen2', 'bf16'],
    ] as const) {
      const spec = await tinySpec({ family, hiddenSize: 64, tied: family === 'qwen2' })
      const head = objective === 'explicit' ? { head: randomHead(64) } : {}
      const trainer = await openTrainer(spec, { device: 'cpu', dtype }, trainOptions({ objective, ...head }))
      const losses: number[] = []
      for (let step = 0; step < 3; step++) {
        losses.push(...(await trainer.accumulate(pairBatch(pairs, objective))).losses)
        losses.push(await trainer.step({ learningRate: 1e-3, maxNorm: 1 }))
      }
      const path = join(folder, objective + family)
      await trainer.saveState(path)
      results[`${objective} ${family} ${dtype}`] = { losses, state: fileHash(path) }
      trainer.dispose()
    }
    return { threads: loadBinding().info().threads, results }
  },

  /** A handle that nobody holds is collected, also while its job runs; the job ends well. */
  async gc() {
    let collected = false
    const registry = new FinalizationRegistry<string>(() => {
      collected = true
    })
    const spec = await tinySpec(SLOW)
    const start = async () => {
      const trainer = await loadBinding().openTrainer(spec, CPU, trainOptions({ head: randomHead(SLOW.hiddenSize) }))
      registry.register(trainer, 'trainer')
      return { running: trainer.accumulate(slowTraining()) }
    }
    const { running } = await start()
    let done = false
    const finished = running.then(({ losses }) => {
      done = true
      return losses.length
    })
    for (let i = 0; i < 20 && !collected; i++) {
      await sleep(5)
      collect?.()
    }
    const whileRunning = !done
    return { collected, whileRunning, losses: await finished }
  },

  /** V8 is told of the flat arrays. Not run with --expose-gc. */
  async pressure() {
    const spec = await tinySpec({ hiddenSize: 128, intermediateSize: 1 << 13, layers: 1 })
    const handles: WeakRef<NativeTrainer>[] = []
    let held = 0
    for (let i = 0; i < 10; i++) {
      const trainer = await loadBinding().openTrainer(spec, CPU, trainOptions({ objective: 'implicit' }))
      const { weights, parameters, moments } = trainer.memory(1, 1)
      held = weights + parameters + moments
      handles.push(new WeakRef(trainer))
      await sleep(20)
    }
    return { held, opened: handles.length, alive: handles.filter((handle) => handle.deref()).length }
  },

  async 'exit-in-accumulate'() {
    const trainer = await slowTrainer()
    void trainer.accumulate(slowTraining())
    void trainer.step({ learningRate: 1, maxNorm: 0 })
    await sleep(20)
    process.exit(3)
  },

  /** In a thread that is terminated in the middle. */
  async slow() {
    const trainer = await slowTrainer()
    const running = trainer.accumulate(slowTraining())
    void trainer.step({ learningRate: 1e-3, maxNorm: 0 })
    parentPort?.postMessage('running')
    await running
    parentPort?.postMessage('finished')
    return {}
  },
}

const result = await programs[process.argv[2]!]!()
process.stdout.write(`${JSON.stringify(result)}\n`)
