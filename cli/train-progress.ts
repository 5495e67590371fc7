/**
 * What `implex train` prints on stderr. A terminal shows one line that is redrawn; other outputs get a plain line every few steps. Evaluations
 * have their own lines. No line is wider than 80 columns.
 */
import type { TrainEvaluation, TrainStep } from '../lib/train/options.js'
import { clock } from './progress.js'

const COLUMNS = 79 // a line of 80 wraps on some terminals
const REFRESH_MS = 100

export interface ProgressOptions {
  quiet: boolean
  /** Steps between plain lines. */
  logSteps: number
  stream?: NodeJS.WriteStream
}

export class TrainProgress implements Disposable {
  readonly #stream: NodeJS.WriteStream
  readonly #quiet: boolean
  readonly #logSteps: number
  #drawnAt = Number.NEGATIVE_INFINITY
  #drawn = false
  /** Steps since the last line. */
  #gathered: TrainStep[] = []
  #steps = 0
  #seconds = 0

  constructor({ quiet, logSteps, stream = process.stderr }: ProgressOptions) {
    this.#stream = stream
    this.#quiet = quiet
    this.#logSteps = logSteps
  }

  stage(stage: string): void {
    if (this.#quiet || !this.#stream.isTTY) return
    this.#draw(stage)
  }

  step(step: TrainStep): void {
    if (this.#quiet) return
    this.#gathered.push(step)
    this.#steps++
    this.#seconds += step.seconds
    const left = (this.#seconds / this.#steps) * (step.steps - step.step)
    const last = step.step === step.steps
    if (this.#stream.isTTY) {
      // What is drawn is the mean of what came since; many steps a second would only flicker.
      if (!last && performance.now() - this.#drawnAt < REFRESH_MS) return
      this.#draw(stepText(this.#gathered, left))
    } else {
      if (!last && step.step % this.#logSteps !== 0) return
      this.#stream.write(`${stepText(this.#gathered, left)}\n`)
    }
    this.#gathered = []
  }

  evaluation(evaluation: TrainEvaluation): void {
    if (!this.#quiet) this.line(evaluationText(evaluation))
  }

  /** Prints a line that stays. */
  line(text: string): void {
    this.clear()
    this.#stream.write(`${text}\n`)
  }

  clear(): void {
    if (this.#drawn) this.#stream.write('\r\x1b[K')
    this.#drawn = false
  }

  [Symbol.dispose](): void {
    this.clear()
  }

  #draw(text: string): void {
    this.#stream.write(`\r${text.slice(0, COLUMNS)}\x1b[K`)
    this.#drawn = true
    this.#drawnAt = performance.now()
  }
}

/** @param steps the most recent steps; their means are shown @param left the remaining time in seconds */
export function stepText(steps: readonly TrainStep[], left: number): string {
  const last = steps.at(-1)!
  const mean = (value: (step: TrainStep) => number) => {
    let sum = 0
    let pairs = 0
    for (const step of steps) {
      sum += value(step) * step.pairs
      pairs += step.pairs
    }
    return sum / pairs
  }
  const tokens = steps.reduce((sum, step) => sum + step.tokens, 0)
  const seconds = steps.reduce((sum, step) => sum + step.seconds, 0)
  const parts = [
    `step ${last.step}/${last.steps}`,
    `epoch ${last.epoch.toFixed(2)}`,
    `loss ${short(mean((step) => step.loss))}`,
    ...(last.accuracy === undefined ? [] : [`acc ${mean((step) => step.accuracy!).toFixed(3)}`]),
    ...(last.margin === undefined
      ? []
      : [
          `margin ${short(
            mean((step) => step.margin!),
            3,
          )}`,
        ]),
    `${rate(tokens / seconds)} tok/s`,
    `${clock(left)} left`,
  ]
  const [roomy, close] = [parts.join('  '), parts.join(' ')]
  if (roomy.length <= COLUMNS) return roomy
  return close.length <= COLUMNS ? close : close.replace('step ', '').replace('epoch', 'ep').slice(0, COLUMNS)
}

export function evaluationText({ name, epoch, loss, accuracy, meanMargin, meanChosen }: TrainEvaluation): string {
  const shown = name.length > 20 ? `${name.slice(0, 19)}~` : name
  const parts = [`epoch ${epoch}`, `evaluation of ${shown}:`, `loss ${short(loss)}`]
  if (accuracy !== undefined) parts.push(`acc ${accuracy.toFixed(3)}`, `margin ${short(meanMargin!)}`)
  else parts.push(`ln p ${short(meanChosen)}`)
  return parts.join('  ').slice(0, COLUMNS)
}

/** A few significant digits, and never more than nine characters. */
function short(value: number, digits = 4): string {
  const magnitude = Math.abs(value)
  if (magnitude !== 0 && (magnitude < 1e-3 || magnitude >= 1e5)) return value.toExponential(1)
  return String(Number(value.toPrecision(digits)))
}

function rate(value: number): string {
  if (value >= 1e6) return `${(value / 1e6).toFixed(1)}M`
  return value >= 1e4 ? `${Math.round(value / 1e3)}k` : String(Math.round(value))
}
