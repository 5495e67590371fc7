/**
 * Our side of the comparison, with peer_torch.py's protocol: requests on standard input, answers on standard output.
 *
 * `score` and `train` work from token ids, like the peer, with models loaded; `tokenize_seconds` is the time of encoding apart.
 * `text` is the whole way from texts to rewards. Styles: `shared` (what implex does), `alone` (one pair after the other), and for best-of-n
 * groups `unshared`.
 */
import { readFileSync } from 'node:fs'
import { createInterface } from 'node:readline'
import { peakBytes, residentBytes, resetPeak } from '../suites/memory.js'
import { bestOf } from '../suites/score.js'
import type { Pair } from '../suites/texts.js'
import {
  BETA,
  type BenchKind,
  encodePairs,
  realTokens,
  ScoringWorkload,
  TrainingWorkload,
  uniform,
  unshared,
  type WorkloadOptions,
} from '../suites/workload.js'
import { benchmark } from '../../lib/native/kernels.js'
import type { DeviceName, DType } from '../../lib/native/device.js'
import { RewardModel } from '../../lib/models/reward-model.js'
import { nativeInfo } from '../../lib/native/handles.js'
import type { Answer, Request } from './peer.js'

interface ModelRequest {
  kind: BenchKind
  style: string
  dtype: DType
  model: string
  reference: string
  head: string
  data: string
  warm?: boolean
  /** Defaults to the CPU. */
  device?: DeviceName
  /** Number of tokens in a batch. */
  batchTokens?: number
  /** IMPLEX_CUDA_GRAPHS of the device: operations of short passes launched together. Default: as the environment says. */
  graphs?: boolean
  /** `count` sequences of `length` tokens instead of the data's pairs, as torch_gpu.py makes them. */
  uniform?: { count: number; length: number }
}

interface HeadRequest {
  n: number
  v: number
  d: number
  dtype: DType
  what: 'forward' | 'both'
  /** Minimum time to measure, in seconds. */
  seconds: number
  device?: DeviceName
}

const readPairs = (path: string) =>
  readFileSync(path, 'utf8')
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line) as Pair)

const workloadOptions = ({ model, reference, head, dtype, device = 'cpu' }: ModelRequest): WorkloadOptions => ({
  policy: model,
  reference,
  head,
  dtype,
  device,
})

/** As this process was started. */
const GRAPHS = process.env.IMPLEX_CUDA_GRAPHS ?? ''

/** Loaded models by what decides them. */
const scoring = new Map<string, Promise<ScoringWorkload>>()
const training = new Map<string, Promise<TrainingWorkload>>()

function kept<T>(map: Map<string, Promise<T>>, request: ModelRequest, open: () => Promise<T>): Promise<T> {
  const key = JSON.stringify([request.kind, request.dtype, request.model, request.device, request.graphs])
  if (!map.has(key)) {
    // A device reads it when it is opened; requests are answered one after the other.
    process.env.IMPLEX_CUDA_GRAPHS = request.graphs === undefined ? GRAPHS : request.graphs ? '1' : '0'
    map.set(key, open())
  }
  return map.get(key)!
}

const operations: Record<string, (request: never) => Promise<Answer>> = {
  async versions() {
    const { version, cpu, threads } = nativeInfo()
    return { implex: version, kernels: cpu.kernels, threads }
  },

  async gemm({ m, n, k, dtype }: { m: number; n: number; k: number; dtype: DType }) {
    const timing = { samples: 1, warmupSeconds: 0, sampleSeconds: 0.1, seed: 1 }
    const { seconds, error } = await benchmark({ op: 'gemm', rows: m, columns: n, depth: k }, { dtype, ...timing })
    return { seconds: seconds[0]!, check: error }
  },

  /** One head's forward pass, or forward and backward, on a device; as torch_gpu.py's. */
  async head({ n, v, d, dtype, what, seconds: least, device = 'cpu' }: HeadRequest) {
    const op = what === 'both' ? 'linear_logprob_both' : 'linear_logprob'
    const timing = { samples: 1, warmupSeconds: 5 * least, sampleSeconds: least, seed: 1 }
    const shape = { op, rows: n, columns: v, depth: d } as const
    const { seconds, error } = await benchmark(shape, { device, dtype, ...timing })
    return { seconds: seconds[0]!, check: error }
  },

  async score(request: ModelRequest) {
    const workload = await kept(scoring, request, () => ScoringWorkload.open(request.kind, workloadOptions(request)))
    const before = performance.now()
    const pairs = await encodePairs(request.model, readPairs(request.data))
    const tokenizeSeconds = (performance.now() - before) / 1000
    const rows =
      request.uniform !== undefined
        ? uniform(pairs, request.uniform)
        : request.style.startsWith('best')
          ? bestOf(pairs)
          : pairs
    const { batchTokens } = request
    const run = async () => {
      if (request.style === 'alone') {
        const single = []
        for (const row of rows) single.push(...(await workload.score([row])))
        return single
      }
      return workload.score(request.style === 'best of 8, unshared' ? unshared(rows) : rows, batchTokens)
    }
    if (request.warm) await (request.device === 'cuda' ? run() : workload.score(rows.slice(0, 1)))
    const start = performance.now()
    const scored = await run()
    return {
      seconds: (performance.now() - start) / 1000,
      tokenize_seconds: tokenizeSeconds,
      tokens: realTokens(rows),
      rewards: scored.map(({ rewards }) => rewards),
      logprobs: scored.flatMap(({ logprobs }) => (logprobs === undefined ? [] : [logprobs])),
    }
  },

  async text(request: ModelRequest) {
    const { kind, dtype, head, reference } = request
    const pairs = readPairs(request.data)
    using model = await RewardModel.open(request.model, {
      kind,
      dtype,
      device: 'cpu',
      beta: BETA,
      cache: false,
      ...(kind === 'explicit' ? { head } : { reference }),
    })
    await model.score(pairs.slice(0, 1))
    const start = performance.now()
    await model.score(pairs)
    return { seconds: (performance.now() - start) / 1000 }
  },

  async train(request: ModelRequest) {
    const workload = await kept(training, request, () => TrainingWorkload.open(request.kind, workloadOptions(request)))
    const rows = await encodePairs(request.model, readPairs(request.data))
    const cached = request.style === 'cached' ? await workload.withReference(rows) : undefined
    const { batchTokens } = request
    const step = async () => workload.step(cached ?? (await workload.withReference(rows)), batchTokens)
    if (request.warm) await step()
    const start = performance.now()
    const losses = await step()
    const loss = losses.reduce((sum, value) => sum + value, 0) / losses.length
    return { seconds: (performance.now() - start) / 1000, tokens: realTokens(rows), losses: [loss] }
  },

  /** Disposes of loaded models. */
  async release() {
    for (const map of [scoring, training] as Map<string, Promise<Disposable>>[]) {
      for (const workload of map.values()) (await workload)[Symbol.dispose]()
      map.clear()
    }
    return {}
  },

  /** Memory that scoring needs beyond the weights. Meaningful only as the first request of a process. */
  async memory(request: ModelRequest) {
    using workload = await ScoringWorkload.open(request.kind, workloadOptions(request))
    const rows = await encodePairs(request.model, readPairs(request.data))
    const loaded = residentBytes()
    resetPeak()
    const start = performance.now()
    await workload.score(rows)
    const seconds = (performance.now() - start) / 1000
    return { seconds, extra_bytes: Math.max(0, peakBytes() - loaded), weight_bytes: workload.weightBytes }
  },
}

for await (const line of createInterface({ input: process.stdin })) {
  const request = JSON.parse(line) as Request
  let answer: Answer
  try {
    answer = await operations[request.op]!(request as never)
  } catch (error) {
    answer = { error: String(error) }
  }
  process.stdout.write(`${JSON.stringify(answer)}\n`)
}
process.exit(0)
