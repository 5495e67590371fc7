/** A worker_thread that scores. Its messages: 'running' once a score is under way, then the bits of every result. */
import { parentPort, workerData } from 'node:worker_threads'
import type { ModelSpec } from '../../lib/native/spec.js'
import { openModel } from '../../lib/native/handles.js'
import type { NativeBatch } from '../../lib/native/types.js'
import { bits, CPU } from './engine.js'

export interface WorkerTask {
  spec: ModelSpec
  batches: NativeBatch[]
  /** 'exit': process.exit() while scoring. 'throw': an uncaught error then. 'stay': wait for ever when done. Default: end when done. */
  ending?: 'exit' | 'throw' | 'stay'
}

const { spec, batches, ending } = workerData as WorkerTask
const model = await openModel(spec, CPU)
const scores = batches.map((batch) => model.score(batch))
setTimeout(() => {
  parentPort?.postMessage('running')
  if (ending === 'exit') process.exit(7)
  if (ending === 'throw') throw new Error('thrown on purpose')
}, 5)
for (const score of scores) parentPort?.postMessage(bits(await score))
if (ending === 'stay') setInterval(() => {}, 1000)
