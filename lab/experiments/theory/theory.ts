/**
 * The theory of arXiv 2507.07981 on a small model: each statement predicted on paper and measured in the engine.
 */
import { PREDICTIONS } from '../table-notes.js'
import { rm } from 'node:fs/promises'
import { basename, join, resolve } from 'node:path'
import { openCheckpoint } from '../../../lib/checkpoint/checkpoint.js'
import { modelFingerprint } from '../../../lib/checkpoint/fingerprint.js'
import { NUMERICS_VERSION } from '../../../lib/data/reference-cache.js'
import { openOnDevice } from '../../../lib/native/device.js'
import { nativeInfo } from '../../../lib/native/handles.js'
import { checkInteger } from '../../../lib/core/arguments.js'
import { writeFileAtomic } from '../../../lib/core/atomic.js'
import { checkRun, RunFolder } from '../../../lib/train/runs/run-folder.js'
import { Random } from '../../../lib/core/random.js'
import { parametersOf } from '../model-facts.js'
import { baseModelPath, type ExperimentOptions, resolveExperiment } from '../options.js'
import { type ExperimentResult, RESULT_FORMAT } from '../result.js'
import { type ExperimentOutcome, readResults } from '../outcome.js'
import {
  type Check,
  explicitDynamics,
  headDirection,
  implicitDynamics,
  stepZero,
  unseenTokens,
  type Draw,
} from './checks.js'
import { TheoryEngine } from './engine.js'
import { verificationWithoutGeneration } from './tilt.js'
import { untiedCopy } from './untied.js'

const STREAM = 22

export type TheoryOptions = Pick<
  ExperimentOptions,
  'out' | 'model' | 'resume' | 'device' | 'drain' | 'signal' | 'onStage' | 'onWarning' | 'cache' | 'cacheDir'
> & {
  /** Seed of the random prompts, responses and heads. Defaults to 0. */
  dataSeed?: number
}

const NONE = { epochs: 1, learningRate: 0, batchPairs: 1 }

/**
 * Theorems 1 and 2 and the one-step dynamics: predicted against measured. Writes the run folder `out`.
 * Everything is f32, with SGD on the head or the unembedding alone. `model` may be any checkpoint; its embeddings are untied first.
 * @throws TypeError, RangeError for wrong options
 * @throws ImplexError for a checkpoint or device that cannot be used; ERR_RESUME_MISMATCH, ERR_IN_USE for a used folder; ERR_ABORTED
 */
export async function theoryExperiment(options: TheoryOptions): Promise<ExperimentOutcome> {
  const { model, conduct } = resolveExperiment(options, { paper: NONE, base: NONE })
  const { dataSeed = 0 } = options
  checkInteger('dataSeed', dataSeed, 0)
  const start = performance.now()
  await using folder = await RunFolder.open(conduct.out, conduct.resume, conduct.onWarning)
  const now = folder.config === undefined ? new Date() : new Date(folder.config.run.now)
  const checkpoint = await openCheckpoint(model)
  const { version, threads } = nativeInfo()
  const config = {
    options: { experiment: 'theory', model, dataSeed, device: conduct.device },
    run: {
      decisive: {
        experiment: 'theory',
        dataSeed,
        model: await modelFingerprint(checkpoint, conduct.cache ? conduct.cacheDir : undefined, conduct.signal),
      },
      environment: { version, numerics: NUMERICS_VERSION },
      now: now.toISOString(),
    },
  }
  if (folder.config === undefined) await folder.writeConfig(config)
  else checkRun(folder.path, folder.config.run, config.run, conduct.onWarning)
  const resultsPath = join(folder.path, 'results.json')
  const before = folder.config === undefined ? undefined : await readResults(resultsPath)
  if (before !== undefined) return { out: folder.path, interrupted: false, result: before }

  const [base, tilted] = [join(folder.path, 'untied'), join(folder.path, 'tilted')]
  try {
    conduct.onStage?.('untying the embeddings')
    await untiedCopy(model, base)
    const { spec } = await openCheckpoint(base)
    const engine = new TheoryEngine(spec, conduct.device, conduct.signal)
    const draw = (stream: number): Draw => {
      const random = Random.seeded(dataSeed, STREAM + stream)
      return { random, tokens: (count) => Array.from({ length: count }, () => random.below(spec.vocabSize)) }
    }
    // Each has random numbers of its own, so that one more of them changes no other.
    const parts: [string, () => Promise<Check | Check[]>][] = [
      ['one step, explicit', () => explicitDynamics(engine, draw(0))],
      ['one step, implicit', () => implicitDynamics(engine, draw(1))],
      ['theorem 2, implicit', () => unseenTokens(engine, draw(2))],
      ['theorem 2, explicit', () => headDirection(engine, draw(3))],
      ['theorem 1', () => verificationWithoutGeneration(engine, draw(4), base, tilted)],
      ['the first step', () => stepZero(engine, draw(5))],
    ]
    const checks: Check[] = []
    for (const [name, measure] of parts) {
      if (conduct.drain?.aborted) return { out: folder.path, interrupted: true }
      conduct.onStage?.(name)
      checks.push(...[await measure()].flat())
    }
    const { model: opened, device } = await openOnDevice(spec, { device: conduct.device, dtype: 'f32' }, conduct.signal)
    const kernels = opened.kernels
    opened.dispose()
    const holding = checks.filter(({ error, bound }) => error <= bound).length
    const result: ExperimentResult = {
      format: RESULT_FORMAT,
      experiment: 'theory',
      title: 'Theory: predicted against measured',
      question: 'Do the theorems and the one-step dynamics hold in the engine?',
      headline: `${holding} of ${checks.length} statements hold within their bounds.`,
      model: {
        path: model,
        name: model === baseModelPath() ? 'base' : basename(resolve(model)),
        parameters: parametersOf(checkpoint),
      },
      settings: { dataSeed },
      shifts: [],
      sets: [],
      members: [],
      comparison: [],
      tables: [
        {
          ...PREDICTIONS,
          columns: ['statement', 'values', 'predicted', 'measured', 'error', 'bound', 'holds'],
          rows: checks.map(({ statement, values, predicted, measured, error, bound }) => [
            statement,
            values,
            predicted,
            measured,
            error,
            bound,
            error <= bound,
          ]),
        },
      ],
      paper: [],
      notes: [
        'Texts are random token ids, because the statements hold for any text. Embeddings are untied first, because the theorems move the unembedding and fix the hidden states.',
      ],
      date: now.toISOString(),
      seconds: (performance.now() - start) / 1000,
      version,
      device,
      dtype: 'f32',
      kernels,
      threads,
    }
    await writeFileAtomic(resultsPath, `${JSON.stringify(result, null, 2)}\n`)
    return { out: folder.path, interrupted: false, result }
  } finally {
    for (const path of [base, tilted]) await rm(path, { recursive: true, force: true }).catch(() => {})
  }
}
