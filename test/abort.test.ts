/** Every public call that takes a signal rejects alike when it is aborted: an ImplexError named AbortError, whose cause is the reason. */
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { hamiltonianExperiment, personaExperiment, rewritesExperiment, theoryExperiment } from '../lab/index.js'
import { evaluate, ImplexError, kernels, LanguageModel, RewardModel, train } from '../lib/index.js'
import { writeTinyCheckpoint } from './fixtures/tiny-checkpoint.js'
import { rejection } from './support/engine.js'
import { pairs, writeRows } from './support/train.js'
import { temporaryFolder } from './support/tmp.js'

const folder = temporaryFolder()
const at = (...names: string[]) => join(folder, ...names)
const MODEL = await writeTinyCheckpoint(at('model')).then(() => at('model'))
const ROWS = pairs(40)
const FILE = writeRows(at('pairs.jsonl'), ROWS)
const STATEMENTS = Array.from({ length: 20 }, (_, i) => ({ question: `Is it ${i}?`, answer_matching_behavior: ' Yes' }))
writeFileSync(at('statements.jsonl'), STATEMENTS.map((row) => `${JSON.stringify(row)}\n`).join(''))

const scoring = await RewardModel.open(MODEL, { kind: 'implicit', device: 'cpu' })
const language = await LanguageModel.open(MODEL, { device: 'cpu' })
let runs = 0
const out = () => at(`run-${runs++}`)
const cpu = { device: 'cpu', cacheDir: at('cache') } as const
const small = { ...cpu, model: MODEL, seeds: [0], epochs: 1, batchPairs: 4 }
const persona = { ...small, data: at('statements.jsonl'), trainPairs: 4, testPairs: 2 }
const training = { kind: 'explicit', batchPairs: 8, epochs: 3, ...cpu } as const
const a = new Float32Array(4)

/** Each call, and where it takes `abort`, how it is aborted while it runs. */
const CALLS: Record<string, (signal: AbortSignal, abort: () => void) => Promise<unknown>> = {
  'RewardModel.open': (signal) => RewardModel.open(MODEL, { kind: 'implicit', ...cpu, signal }),
  'RewardModel.score': (signal, abort) => {
    setImmediate(abort)
    return scoring.score(
      Array.from({ length: 4000 }, (_, i) => ROWS[i % ROWS.length]!),
      { signal },
    )
  },
  'RewardModel.scoreStream': async (signal, abort) => {
    for await (const _ of scoring.scoreStream(FILE_ROWS(), { signal })) abort()
  },
  'LanguageModel.open': (signal) => LanguageModel.open(MODEL, { device: 'cpu', signal }),
  'LanguageModel.generate': (signal, abort) => {
    setTimeout(abort, 20)
    return language.generate(
      Array.from({ length: 64 }, (_, i) => `${i}`),
      { maxNewTokens: 400, stop: [], signal },
    )
  },
  evaluate: (signal, abort) => evaluate(scoring, { test: FILE_ROWS() }, { signal, onRow: abort }),
  'train, opening': (signal, abort) => train(MODEL, FILE, { ...training, out: out(), signal, onStage: () => abort() }),
  'train, reading': (signal, abort) =>
    train(MODEL, FILE, {
      ...training,
      out: out(),
      signal,
      onStage: (stage) => stage === 'reading the data' && abort(),
    }),
  'train, at a step': (signal, abort) => train(MODEL, FILE, { ...training, out: out(), signal, onStep: abort }),
  'train, references': (signal, abort) =>
    train(MODEL, FILE, {
      ...{ ...training, kind: 'implicit', out: out(), signal },
      onStage: (stage) => stage.includes('reference') && abort(),
    }),
  'kernels.gemm': (signal) => kernels.gemm({ a, b: a, k: 4, signal }),
  'kernels.linearLogprob': (signal) =>
    kernels.linearLogprob({ hidden: a, weight: a, targets: Int32Array.of(0), signal }),
  'kernels.linearReward': (signal) => kernels.linearReward({ hidden: a, head: a, signal }),
  personaExperiment: (signal, abort) => personaExperiment({ ...persona, out: out(), signal, onStep: abort }),
  hamiltonianExperiment: (signal, abort) =>
    hamiltonianExperiment({
      ...{ ...small, trainPairs: 4, testPairs: 2, vertices: 4, generations: 0 },
      ...{ out: out(), signal, onStep: abort },
    }),
  rewritesExperiment: (signal, abort) =>
    rewritesExperiment({ ...small, train: FILE, data: { test: FILE }, out: out(), signal, onStep: abort }),
  theoryExperiment: (signal, abort) => theoryExperiment({ model: MODEL, ...cpu, out: out(), signal, onStage: abort }),
}

/** Rows without end: only an abort stops the reading of them. */
async function* FILE_ROWS() {
  for (;;) yield* ROWS
}

const aborting = suite('abort')

for (const [name, call] of Object.entries(CALLS)) {
  aborting(name, async () => {
    for (const when of call.length === 1 ? ['before'] : ['before', 'during']) {
      const reason = new Error('no longer needed')
      const controller = new AbortController()
      if (when === 'before') controller.abort(reason)
      const error = await rejection(call(controller.signal, () => controller.abort(reason)))
      assert.instance(error, ImplexError, `${when}: ${error.stack}`)
      assert.equal([error.name, error.code], ['AbortError', 'ERR_ABORTED'], when)
      assert.is(error.cause, reason, when)
      assert.match(error.stack!, /^AbortError/)
    }
  })
}

aborting('other errors keep their name', async () => {
  assert.is((await rejection(RewardModel.open(at('nothing'), { kind: 'explicit' }))).name, 'ImplexError')
})

aborting.after(() => {
  scoring.dispose()
  language.dispose()
})
aborting.run()
