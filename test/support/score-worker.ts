/** A worker_thread that opens a model, scores rows and posts their rewards. */
import { parentPort, workerData } from 'node:worker_threads'
import type { Row } from '../../lib/data/rows.js'
import { RewardModel } from '../../lib/models/reward-model.js'

const { path, rows } = workerData as { path: string; rows: Row[] }
using model = await RewardModel.open(path, { kind: 'implicit', device: 'cpu' })
parentPort?.postMessage((await model.score(rows)).rewards)
