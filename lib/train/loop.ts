/**
 * The steps of a training, from one position to the end or to an interruption: order, micro-batches, update, metrics, checkpoints,
 * evaluations. What happens is decided by the position alone, so a resumed run repeats an undisturbed one bit for bit.
 */
import { PreferenceMetrics } from '../evaluate/metrics.js'
import type { Trainer } from '../native/handles.js'
import type { NativeCancel, NativeTrainResult } from '../native/types.js'
import { ImplexError } from '../core/errors.js'
import type { RunPosition } from './runs/checkpoints.js'
import type { MetricsLog } from './runs/metrics-log.js'
import type { RunFolder } from './runs/run-folder.js'
import { microBatches, sequenceTokens, trainBatch } from './batches.js'
import { evaluatePairs } from './evaluate-pairs.js'
import { evaluationLine, stepLine } from './lines.js'
import type { TrainConduct, TrainEvaluation, TrainSettings, TrainStep } from './options.js'
import { type PairSet, pairName, type TrainPair } from './pairs.js'
import { Random } from '../core/random.js'
import { scheduleFactor, warmupLength } from './schedule.js'

const CHECKPOINT_SECONDS = 600

export interface LoopParts {
  trainer: Trainer
  settings: TrainSettings
  conduct: Pick<TrainConduct, 'checkpointSteps' | 'drain' | 'onStep' | 'onEvaluation'>
  data: PairSet
  evaluation: ReadonlyMap<string, PairSet>
  folder: RunFolder
  log: MetricsLog
  cancel: NativeCancel
}

export class TrainLoop {
  readonly #parts: LoopParts
  readonly #steps: number
  #position: RunPosition
  #checkpointedAt = performance.now()
  /** The last step and evaluations of this process. */
  lastStep: TrainStep | undefined
  readonly evaluations = new Map<string, TrainEvaluation>()

  constructor(parts: LoopParts, position: RunPosition) {
    this.#parts = parts
    this.#steps = totalSteps(parts.settings, parts.data.pairs.length)
    this.#position = position
  }

  get position(): RunPosition {
    return this.#position
  }

  /**
   * Trains to the end. @returns false when the drain signal ended it, with a checkpoint written
   * @throws ImplexError ERR_NOT_FINITE naming step and rows, ERR_ABORTED, ERR_DISK_FULL, ERR_IO, …
   */
  async run(): Promise<boolean> {
    const { settings, data, log } = this.#parts
    const count = data.pairs.length
    if (log.bytes === 0 && !(await this.#evaluate())) return this.#stop()
    while (this.#position.epoch < settings.epochs) {
      const random = new Random(this.#position.random)
      const order = random.permutation(count)
      while (this.#position.pair < count) {
        if (this.#drained) return this.#stop()
        const end = Math.min(count, this.#position.pair + settings.batchPairs)
        await this.#step(Array.from(order.subarray(this.#position.pair, end), (i) => data.pairs[i]!))
        this.#position = { ...this.#position, step: this.#position.step + 1, pair: end }
        if (this.#dueAfterStep(end === count)) await this.#checkpoint()
      }
      const epoch = this.#position.epoch + 1
      const due = epoch % settings.evaluateEpochs === 0 || epoch === settings.epochs
      if (due && !(await this.#evaluate())) return this.#stop()
      this.#position = { ...this.#position, epoch, pair: 0, random: random.state }
      if (epoch === settings.epochs || this.#parts.conduct.checkpointSteps === 0) await this.#checkpoint()
    }
    return true
  }

  get #drained(): boolean {
    return this.#parts.conduct.drain?.aborted === true
  }

  async #stop(): Promise<false> {
    await this.#checkpoint()
    return false
  }

  #dueAfterStep(last: boolean): boolean {
    const { checkpointSteps } = this.#parts.conduct
    if (checkpointSteps > 0) return this.#position.step % checkpointSteps === 0
    return !last && performance.now() - this.#checkpointedAt > CHECKPOINT_SECONDS * 1000
  }

  async #step(pairs: TrainPair[]): Promise<void> {
    const { trainer, settings, cancel, conduct, log } = this.#parts
    const { step, epoch, pair } = this.#position
    const start = performance.now()
    const warmup = warmupLength(settings.warmupSteps, this.#steps)
    const learningRate = settings.learningRate * scheduleFactor(settings.schedule, step, this.#steps, warmup)
    // All handed over at once: the engine works them off in order, and has the next one when it finishes the first.
    const batches = microBatches(settings.kind, pairs, settings.microBatchTokens)
    const scale = 1 / pairs.length
    const results = await Promise.allSettled(
      batches.map((batch) => trainer.accumulate(trainBatch(settings.kind, batch, { scale, gradients: true }), cancel)),
    )
    for (const [i, result] of results.entries()) {
      if (result.status === 'rejected') throw atStep(result.reason, step + 1, batches[i]!)
    }
    let gradientNorm: number
    try {
      gradientNorm = await trainer.step({ learningRate, maxNorm: settings.maxNorm })
    } catch (error) {
      throw atStep(error, step + 1, pairs)
    }
    const seconds = (performance.now() - start) / 1000
    const tokens = pairs.reduce((sum, one) => sum + sequenceTokens(settings.kind, one), 0)
    this.lastStep = {
      step: step + 1,
      steps: this.#steps,
      epoch: epoch + (pair + pairs.length) / this.#parts.data.pairs.length,
      epochs: settings.epochs,
      ...meansOf(results.map((result) => (result as PromiseFulfilledResult<NativeTrainResult>).value)),
      learningRate,
      gradientNorm,
      pairs: pairs.length,
      tokens,
      seconds,
    }
    await log.line(stepLine(this.lastStep))
    this.#position = {
      ...this.#position,
      metricsBytes: log.bytes,
      seconds: this.#position.seconds + seconds,
      tokens: this.#position.tokens + tokens,
    }
    conduct.onStep?.(this.lastStep)
  }

  /** Evaluates every data set. @returns false when the drain signal came first; nothing is written then */
  async #evaluate(): Promise<boolean> {
    const { trainer, settings, cancel, evaluation, log, conduct } = this.#parts
    const done: TrainEvaluation[] = []
    for (const [name, set] of evaluation) {
      const start = performance.now()
      const options = { budget: settings.microBatchTokens, cancel, stop: () => this.#drained }
      let found: Awaited<ReturnType<typeof evaluatePairs>>
      try {
        found = await evaluatePairs(trainer, settings.kind, set, options)
      } catch (error) {
        throw after(error, this.#position.step, name)
      }
      if (found === undefined) return false
      const { step, epoch } = this.#position
      const seconds = (performance.now() - start) / 1000
      done.push({ name, step, epoch: step === 0 ? 0 : epoch + 1, ...found, seconds })
    }
    for (const one of done) {
      await log.line(evaluationLine(one))
      this.evaluations.set(one.name, one)
      conduct.onEvaluation?.(one)
    }
    this.#position = { ...this.#position, metricsBytes: log.bytes }
    return true
  }

  async #checkpoint(): Promise<void> {
    const { trainer, settings, data, folder, log, cancel } = this.#parts
    // The update itself may have overflowed, which only the next loss would tell; a state like that must not replace a good one.
    const probe = data.pairs.slice(0, 1)
    try {
      await trainer.accumulate(trainBatch(settings.kind, probe, { scale: 1, gradients: false }), cancel)
    } catch (error) {
      throw after(error, this.#position.step, pairName(probe[0]!))
    }
    await log.flush()
    await folder.checkpoints.write(trainer, this.#position)
    this.#checkpointedAt = performance.now()
  }
}

/** Steps of the whole run: each epoch's last one takes the pairs that are left. */
export function totalSteps(
  { epochs, batchPairs }: Pick<TrainSettings, 'epochs' | 'batchPairs'>,
  pairs: number,
): number {
  return epochs * Math.ceil(pairs / batchPairs)
}

function meansOf(
  results: NativeTrainResult[],
): Pick<TrainStep, 'loss' | 'accuracy' | 'margin' | 'chosenReward' | 'rejectedReward'> {
  const metrics = new PreferenceMetrics()
  let loss = 0
  let pairs = 0
  let chosen = 0
  let rejected = 0
  for (const { losses, rewards } of results) {
    pairs += losses.length
    for (const value of losses) loss += value
    if (rewards.length === losses.length) continue // sft
    for (let i = 0; i < rewards.length; i += 2) {
      metrics.add(rewards[i]!, rewards[i + 1]!)
      chosen += rewards[i]!
      rejected += rewards[i + 1]!
    }
  }
  if (metrics.pairs === 0) return { loss: loss / pairs }
  return {
    loss: loss / pairs,
    accuracy: metrics.accuracy,
    margin: metrics.meanMargin,
    chosenReward: chosen / pairs,
    rejectedReward: rejected / pairs,
  }
}

/** A loss or gradient that is not finite, with the step and the rows that it came from. */
function atStep(error: unknown, step: number, pairs: TrainPair[]): unknown {
  if (!(error instanceof ImplexError) || error.code !== 'ERR_NOT_FINITE') return error
  const { pair, parameter, tensor } = error
  const culprit = pair === undefined ? undefined : pairs[pair]
  const names = pairs.map(pairName)
  const list = names.length > 8 ? `${names.slice(0, 8).join(', ')} and ${names.length - 8} more` : names.join(', ')
  const where = culprit === undefined ? `on ${list}` : `on ${pairName(culprit)}, in a micro-batch of ${list}`
  return new ImplexError(
    'ERR_NOT_FINITE',
    `step ${step}, ${where}: ${error.message}. The checkpoints of the steps before it are intact; a smaller learning rate, warm-up ` +
      'or --max-norm help against divergence, in another folder',
    { cause: error, line: culprit?.line, step, parameter, tensor },
  )
}

function after(error: unknown, step: number, what: string): unknown {
  if (!(error instanceof ImplexError) || error.code !== 'ERR_NOT_FINITE') return error
  return new ImplexError(
    'ERR_NOT_FINITE',
    `after step ${step}, on ${what}: ${error.message}. The checkpoints of earlier steps are intact; a smaller learning rate, warm-up ` +
      'or --max-norm help against divergence, in another folder',
    { cause: error, step, parameter: error.parameter, tensor: error.tensor },
  )
}
